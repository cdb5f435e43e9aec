//! Process-wide caching of tensor storage: size classes, one free list each.
//!
//! Fresh memory from the system costs a page fault every 4 KiB, which for a large result is several times the kernel that
//! fills it; so blocks go back to a free list and the next tensor of that size takes them warm. A class is an eighth of a
//! power of two, so at most an eighth of a block is never used. The cache keeps no more than was ever in use at once.
//!
//! Blocks come zeroed from the system (which for large ones is free), so memory is initialised, always: what a program
//! reads without having written is arbitrary, but not undefined.
//!
//! For tests, `LAZULI_GUARD=end` or `=start` puts every block against an inaccessible page and fills it with NaN (on Unix
//! systems; elsewhere it fills only). Results do not change; an access outside of a buffer ends the process.

mod fence;

use fence::Fence;
pub use fence::Fencing;
use lazuli_ir::{Error, ErrorKind, Result};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// The alignment of every block: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Blocks below this size are not split further into classes.
const SMALLEST: usize = 64;
/// Classes a power of two.
const STEPS: usize = 8;
const CLASSES: usize = STEPS * usize::BITS as usize;
/// The cache may always hold this much.
const CACHE_FLOOR: usize = 64 << 20;

/// What the allocator holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes of blocks that buffers and running calls hold.
    pub in_use: usize,
    /// The largest that `in_use` was since the start or [`reset_peak`].
    pub peak: usize,
    /// Bytes of free blocks kept for reuse.
    pub cached: usize,
}

/// What every block counts in, and so every thread writes, lies apart from what threads read.
#[repr(align(128))]
struct Apart<T>(T);

struct Pool {
    in_use: Apart<AtomicUsize>,
    free: Apart<[Mutex<Vec<Block>>; CLASSES]>,
    /// Bytes of blocks that the system gave and has not got back. What is not in use is cached.
    held: AtomicUsize,
    peak: AtomicUsize,
    /// The largest use ever: the cache's bound, which `reset_peak` leaves alone.
    most: AtomicUsize,
    poison: AtomicBool,
    /// 0: none; else the number of a [`Fencing`] plus 1.
    fencing: AtomicU8,
}

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool {
    in_use: Apart(AtomicUsize::new(0)),
    free: Apart(std::array::from_fn(|_| Mutex::new(Vec::new()))),
    held: AtomicUsize::new(0),
    peak: AtomicUsize::new(0),
    most: AtomicUsize::new(0),
    poison: AtomicBool::new(std::env::var_os("LAZULI_GUARD").is_some_and(|v| !v.is_empty())),
    fencing: AtomicU8::new(Fencing::from_environment().map_or(0, |f| f as u8 + 1)),
});

impl Pool {
    fn in_use(&self) -> usize {
        self.in_use.0.load(Relaxed)
    }

    fn cached(&self) -> usize {
        self.held.load(Relaxed).saturating_sub(self.in_use())
    }

    fn free(&self, class: usize) -> MutexGuard<'_, Vec<Block>> {
        self.free.0[class].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises a maximum. Most often it stands, and is then only read.
fn raise(maximum: &AtomicUsize, to: usize) {
    if to > maximum.load(Relaxed) {
        maximum.fetch_max(to, Relaxed);
    }
}

/// A block of memory. Freed by [`release`], not by dropping.
pub(crate) struct Block {
    pointer: NonNull<u8>,
    class: u32,
    /// Where it lies between inaccessible pages.
    fence: Option<Box<Fence>>,
}

// SAFETY: a block is plain memory without any tie to a thread; whoever holds it owns the bytes.
unsafe impl Send for Block {}
// SAFETY: a shared block only tells its address.
unsafe impl Sync for Block {}

impl Block {
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }
}

/// The class that holds `bytes`, and its size; `None` where the size overflows.
pub(crate) fn class_of(bytes: usize) -> Option<(usize, usize)> {
    let bytes = bytes.max(SMALLEST);
    let power = bytes.ilog2() as usize;
    let base = 1usize << power;
    // Below 512 bytes a step would be less than a cache line; the steps between are then empty classes.
    let step = (base / STEPS).max(ALIGNMENT.min(base));
    let rounded = bytes.checked_next_multiple_of(step)?;
    let power = rounded.ilog2() as usize;
    let within = (rounded - (1 << power)) / ((1usize << power) / STEPS).max(1);
    Some((power * STEPS + within, rounded))
}

fn class_bytes(class: usize) -> usize {
    let (power, within) = (class / STEPS, class % STEPS);
    (1usize << power) + within * ((1usize << power) / STEPS)
}

fn system_layout(class: usize) -> Option<Layout> {
    // Alignments up to 16 take the system's `calloc`, which gets large blocks as untouched pages; a higher one would
    // write zeros by hand. So the block is aligned here.
    Layout::from_size_align(class_bytes(class).checked_add(ALIGNMENT)?, 16).ok()
}

fn out_of_memory(bytes: usize) -> Error {
    Error::new(ErrorKind::Memory, format!("{bytes} bytes of memory for a tensor could not be allocated"))
}

/// A block of at least `bytes`, with arbitrary (but initialised) contents.
pub(crate) fn acquire(bytes: usize) -> Result<Block> {
    let pool = &*POOL;
    let (class, size) = class_of(bytes).ok_or_else(|| out_of_memory(bytes))?;
    let block = match fencing() {
        Some(place) => fenced(bytes, class, size, place)?,
        None => pooled(bytes, class, size)?,
    };
    let now = pool.in_use.0.fetch_add(size, Relaxed) + size;
    raise(&pool.peak, now);
    raise(&pool.most, now);
    Ok(block)
}

fn pooled(bytes: usize, class: usize, size: usize) -> Result<Block> {
    let pool = &*POOL;
    let cached = pool.free(class).pop();
    let block = match cached {
        Some(block) => block,
        None => {
            let block = from_system(class).ok_or_else(|| out_of_memory(bytes))?;
            pool.held.fetch_add(size, Relaxed);
            block
        }
    };
    if pool.poison.load(Relaxed) {
        // SAFETY: the block is `size` bytes and nobody else holds it.
        unsafe { block.pointer.as_ptr().write_bytes(fence::POISON, size) };
    }
    Ok(block)
}

#[cold]
fn fenced(bytes: usize, class: usize, size: usize, place: Fencing) -> Result<Block> {
    match Fence::new(bytes, place) {
        Some(fence) => {
            POOL.held.fetch_add(size, Relaxed);
            Ok(Block { pointer: fence.pointer(), class: class as u32, fence: Some(Box::new(fence)) })
        }
        // The system has no more mappings for one process, or no memory.
        None => pooled(bytes, class, size),
    }
}

/// How blocks are fenced now.
#[doc(hidden)]
pub fn fencing() -> Option<Fencing> {
    match POOL.fencing.load(Relaxed) {
        _ if cfg!(not(unix)) => None,
        0 => None,
        n if n == Fencing::End as u8 + 1 => Some(Fencing::End),
        _ => Some(Fencing::Start),
    }
}

/// Gives a block back.
pub(crate) fn release(block: Block) {
    let pool = &*POOL;
    let class = block.class as usize;
    let size = class_bytes(class);
    pool.in_use.0.fetch_sub(size, Relaxed);
    if let Some(fence) = block.fence {
        fence.inspect();
        pool.held.fetch_sub(size, Relaxed);
        return;
    }
    let bound = pool.most.load(Relaxed).max(CACHE_FLOOR);
    // This block counts as cached already.
    if pool.cached() > bound {
        trim();
    }
    if size > bound {
        to_system(block);
        return;
    }
    pool.free(class).push(block);
}

fn from_system(class: usize) -> Option<Block> {
    let layout = system_layout(class)?;
    // SAFETY: the layout's size is not 0.
    let raw = match NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }) {
        Some(raw) => raw,
        None => {
            trim();
            // SAFETY: as above.
            NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?
        }
    };
    advise(raw, layout.size());
    // The distance to the raw block, 16..=64, is kept in the byte before the aligned one.
    let distance = ALIGNMENT - raw.as_ptr().addr() % ALIGNMENT;
    // SAFETY: `distance` is at most ALIGNMENT, by which the raw block is larger, and at least 16, so the byte before the
    // aligned one belongs to the raw block.
    let pointer = unsafe {
        let pointer = raw.add(distance);
        pointer.sub(1).write(distance as u8);
        pointer
    };
    Some(Block { pointer, class: class as u32, fence: None })
}

/// Blocks from this size on ask for large pages.
const LARGE: usize = 4 << 20;

/// Asks the system to map a large block in large pages: walking it then misses fewer addresses, and its first use faults less.
fn advise(block: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes >= LARGE {
        const PAGE: usize = 4096;
        let skipped = block.as_ptr().align_offset(PAGE).min(bytes);
        let whole = (bytes - skipped) / PAGE * PAGE;
        // SAFETY: whole pages of the block; the advice changes no contents, and where it is not taken nothing happens.
        unsafe { libc::madvise(block.as_ptr().add(skipped).cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, bytes >= LARGE);
}

fn to_system(block: Block) {
    let Some(layout) = system_layout(block.class as usize) else { return };
    POOL.held.fetch_sub(class_bytes(block.class as usize), Relaxed);
    // SAFETY: `from_system` made the block with this layout and left the distance in the byte before it.
    unsafe {
        let distance = usize::from(block.pointer.sub(1).read());
        std::alloc::dealloc(block.pointer.sub(distance).as_ptr(), layout);
    }
}

/// Gives all cached blocks back to the system.
pub fn trim() {
    for class in 0..CLASSES {
        let blocks = std::mem::take(&mut *POOL.free(class));
        blocks.into_iter().for_each(to_system);
    }
}

/// What the allocator holds now.
pub fn memory_stats() -> MemoryStats {
    MemoryStats { in_use: POOL.in_use(), peak: POOL.peak.load(Relaxed), cached: POOL.cached() }
}

/// Starts a new measurement of [`MemoryStats::peak`].
pub fn reset_peak() {
    POOL.peak.store(POOL.in_use(), Relaxed);
}

/// Puts blocks that are handed out from now on against inaccessible pages, or no longer. Also `LAZULI_GUARD`.
#[doc(hidden)]
pub fn set_fencing(place: Option<Fencing>) {
    POOL.fencing.store(place.map_or(0, |f| f as u8 + 1), Relaxed);
}

/// Fills every block that is handed out with the bits of NaN: what reads before it writes shows.
#[doc(hidden)]
pub fn set_poison(on: bool) {
    POOL.poison.store(on, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_say() {
        let mut last = 0;
        for bytes in (0..5000).chain((1..200).map(|k| k * 12_347)).chain([1 << 40, (1 << 40) + 1]) {
            let (class, size) = class_of(bytes).unwrap();
            assert_eq!(class_bytes(class), size, "{bytes}");
            assert!(size >= bytes && size.is_multiple_of(64));
            assert!(bytes < 512 || size - bytes <= bytes / 8 + 1, "{bytes} in {size}");
            last = last.max(class);
        }
        assert!(last < CLASSES);
        assert!(class_of(usize::MAX).is_none());
    }

    #[test]
    fn too_much_is_an_error() {
        for bytes in [isize::MAX as usize, usize::MAX, 1 << 60] {
            let error = acquire(bytes).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Memory);
            assert!(error.message().contains(&bytes.to_string()), "{error}");
        }
    }

    #[test]
    fn blocks_are_aligned_and_reused() {
        if fencing().is_some() {
            return;
        }
        let size = 987_654;
        let a = acquire(size).unwrap();
        let first = a.pointer();
        assert!(first.as_ptr().addr().is_multiple_of(ALIGNMENT));
        release(a);
        let b = acquire(size + 100).unwrap();
        assert_eq!(b.pointer(), first);
        release(b);
    }
}
