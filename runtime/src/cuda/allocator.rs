//! Caching of a device's memory: size classes, one free list each.
//!
//! All work of a device runs on one stream, so a block that its last owner lets go may be handed out again at once: whatever
//! still reads it was submitted before whatever writes it next. So giving a block back touches no driver, and taking one
//! that fits only where none is cached. Memory goes back to the driver where there is too little of it, and where more is
//! cached than was ever in use. Driver calls happen under the queue's lock only, since what is submitted meanwhile
//! may be a capture.

use super::driver::{Address, FailureKind};
use super::gpu::{Gpu, Queue};
use crate::allocator::{MemoryStats, class_of};
use lazuli_ir::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The smallest block: what the driver aligns to.
const SMALLEST: usize = 512;
/// Buffers that an error of memory names.
const NAMED: usize = 5;

/// The blocks of a device.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    /// Whether blocks are kept for reuse; for tests they are not.
    caching: bool,
}

#[derive(Debug, Default)]
struct State {
    /// By size. The lowest address goes first, so that calls that take and drop the same sizes get the same blocks.
    free: BTreeMap<usize, BTreeSet<Address>>,
    live: BTreeMap<Address, Live>,
    stats: MemoryStats,
    /// The largest use ever.
    most: usize,
}

/// A block in use.
#[derive(Clone, Copy, Debug)]
struct Live {
    /// What was asked for.
    bytes: usize,
    size: usize,
    purpose: &'static str,
}

/// A block of a device's memory, given back by its drop.
#[derive(Debug)]
pub(crate) struct DeviceBlock {
    gpu: &'static Gpu,
    address: Address,
    bytes: usize,
}

impl DeviceBlock {
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    /// Fails where so many bytes from an offset on do not lie in it.
    pub(super) fn holds(&self, offset: usize, bytes: usize) -> Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(Error::internal(format!("{bytes} bytes at {offset} of a block of {}", self.bytes))),
        }
    }
}

impl Drop for DeviceBlock {
    fn drop(&mut self) {
        self.gpu.pool.release(self.address);
    }
}

impl Pool {
    pub(super) fn new(caching: bool) -> Pool {
        Pool { state: Mutex::default(), caching }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> MemoryStats {
        self.lock().stats
    }

    pub(super) fn reset_peak(&self) {
        let mut state = self.lock();
        state.stats.peak = state.stats.in_use;
    }

    fn release(&self, address: Address) {
        let mut state = self.lock();
        if let Some(live) = state.live.remove(&address) {
            state.stats.in_use -= live.size;
            state.stats.cached += live.size;
            state.free.entry(live.size).or_default().insert(address);
        }
    }
}

/// A block of at least `bytes` with arbitrary contents; `purpose` is what an error of memory calls it.
pub(super) fn acquire(queue: &mut Queue, bytes: usize, purpose: &'static str) -> Result<DeviceBlock> {
    let gpu = queue.gpu();
    let size = class_of(bytes.max(SMALLEST)).map(|(_, size)| size);
    let size = size.ok_or_else(|| out_of_memory(queue, bytes, purpose))?;
    let cached = {
        let mut state = gpu.pool.lock();
        let cached = state.free.get_mut(&size).and_then(BTreeSet::pop_first);
        if cached.is_some() {
            state.stats.cached -= size;
        }
        cached
    };
    let address = match cached {
        Some(address) => address,
        None => allocate(queue, size, bytes, purpose)?,
    };
    let mut state = gpu.pool.lock();
    state.live.insert(address, Live { bytes, size, purpose });
    state.stats.in_use += size;
    state.stats.peak = state.stats.peak.max(state.stats.in_use);
    state.most = state.most.max(state.stats.in_use);
    Ok(DeviceBlock { gpu, address, bytes })
}

/// New memory of the driver; where there is none, after all that is cached went back to it.
fn allocate(queue: &mut Queue, size: usize, bytes: usize, purpose: &'static str) -> Result<Address> {
    let gpu = queue.gpu();
    let surplus = {
        let state = gpu.pool.lock();
        state.stats.cached > state.most || !gpu.pool.caching
    };
    if surplus {
        trim(queue)?;
    }
    match gpu.driver.allocate(size) {
        Ok(address) => Ok(address),
        Err(failure) if failure.kind == FailureKind::OutOfMemory => {
            trim(queue)?;
            // The driver has memory that was freed once the stream has come there.
            let synchronised = gpu.driver.synchronise();
            queue.check(synchronised)?;
            match gpu.driver.allocate(size) {
                Ok(address) => Ok(address),
                Err(f) if f.kind == FailureKind::OutOfMemory => Err(out_of_memory(queue, bytes, purpose)),
                failed => queue.check(failed),
            }
        }
        failed => queue.check(failed),
    }
}

/// Gives all cached blocks back to the driver.
pub(super) fn trim(queue: &mut Queue) -> Result<()> {
    let gpu = queue.gpu();
    let free = {
        let mut state = gpu.pool.lock();
        state.stats.cached = 0;
        std::mem::take(&mut state.free)
    };
    for address in free.into_values().flatten() {
        let freed = gpu.driver.free(address);
        queue.check(freed)?;
    }
    Ok(())
}

/// The error of a block that could not be had: how much is in use, and by what.
fn out_of_memory(queue: &Queue, bytes: usize, purpose: &str) -> Error {
    let gpu = queue.gpu();
    let state = gpu.pool.lock();
    let mut live: Vec<&Live> = state.live.values().collect();
    live.sort_by_key(|l| std::cmp::Reverse(l.bytes));
    let named: Vec<String> = live.iter().take(NAMED).map(|l| format!("{} of {}", l.purpose, size(l.bytes))).collect();
    let free = gpu
        .driver
        .memory()
        .map_or(String::new(), |(free, all)| format!(" of {}, {} are free", size(all as usize), size(free as usize)));
    let mut message = format!(
        "{purpose} of {} could not be allocated on {}{free}; {} are in use by {} buffers",
        size(bytes),
        gpu.describe(),
        size(state.stats.in_use),
        live.len()
    );
    if !named.is_empty() {
        message.push_str(&format!(", the largest of which are {}", named.join(", ")));
    }
    Error::new(ErrorKind::Memory, message)
}

/// A number of bytes in words.
pub(super) fn size(bytes: usize) -> String {
    let units = [(1usize << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}
