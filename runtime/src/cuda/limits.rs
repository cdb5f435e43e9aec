//! What a GPU does at most, measured on it once: what profiles compare kernels with.
//!
//! The kernels are Kernel IR as any others: one copies past the second cache, one reads again and again what is in it, one multiplies and
//! adds in registers.
//! Events around them give the times.

use super::code::{Loaded, load, text};
use super::driver::{Event, Function, Shape};
use super::gpu::{Gpu, Queue};
use super::source::Source;
use lazuli_ir::{Error, Kernel, Limits, Result};
use std::fmt::Write;
use std::sync::Arc;

/// Elements that a block copies, or reads.
const PIECE: u64 = THREADS * READS;
/// Threads of a block.
const THREADS: u64 = 256;
/// Elements that a thread reads for one that it writes.
const READS: u64 = 16;
/// How often a launch reads what is in the second cache, since a launch takes longer than doing that once.
const AGAIN: u64 = 16;
/// Chains of a thread that do not wait for each other, the links of one, and how often a thread walks them all.
const CHAINS: u64 = 8;
const LINKS: u64 = 32;
const WALKS: u64 = 64;
/// Launches of which the fastest counts.
const ROUNDS: u32 = 10;

/// The kernels that measure: a copy, sums of what is read, and chains of fused multiply-adds.
///
/// # Errors
/// Of the compiler alone.
pub fn kernels() -> Result<[Kernel; 3]> {
    let copy = format!(
        "kernel copy(%from: f32[n], %to: mut f32[n]) extents(n) {{
           loop %start in n step {PIECE} grid.x, %i in {PIECE} below n - %start block vector(4) {{
             store %to[%start + %i], load %from[%start + %i]
           }}
         }}"
    );
    let read = format!(
        "kernel read(%from: f32[n,{READS},{THREADS}], %to: mut f32[again,n,{THREADS}]) extents(n, again) {{
           loop %time in again grid.y, %b in n grid.x, %i in {THREADS} block {{
             %0 = reduce sum %j in {READS} unroll({READS}) {{ yield load %from[%b,%j,%i] }}
             store %to[%time,%b,%i], %0
           }}
         }}"
    );
    let mut chains = format!(
        "kernel multiply(%first: f32[{}], %factor: f32[{THREADS}], %to: mut f32[n]) extents(n) {{
           loop %start in n step {THREADS} grid.x, %i in {THREADS} block {{
             %0 = load %factor[%i]
             %1 = reduce sum %k in {WALKS} {{\n",
        CHAINS * WALKS
    );
    let mut next = 2;
    let mut line = |text: String| {
        // Writing to a string cannot fail.
        _ = writeln!(chains, "%{next} = {text}");
        next += 1;
        next - 1
    };
    let mut values: Vec<u64> = (0..CHAINS).map(|c| line(format!("load %first[%k*{CHAINS} + {c}]"))).collect();
    for _ in 0..LINKS {
        values.iter_mut().for_each(|v| *v = line(format!("fma %{v}, %0, %0")));
    }
    let sum = values.into_iter().reduce(|a, b| line(format!("add %{a}, %{b}"))).unwrap_or(0);
    chains += &format!("yield %{sum} }} store %to[%start + %i], %1 }} }}");
    Ok([Kernel::parse(&copy)?, Kernel::parse(&read)?, Kernel::parse(&chains)?])
}

/// What a GPU does at most.
///
/// # Errors
/// Memory; its compiler; the device.
pub(super) fn measure(gpu: &'static Gpu) -> Result<Limits> {
    let properties = gpu.properties();
    let (text, sources) = text(&kernels()?)?;
    let loaded = load(gpu, text)?;
    let mut queue = gpu.queue()?;
    let measured = |source| Measured::new(&mut queue, &loaded, source);
    let measured: Vec<Measured> = sources.iter().map(measured).collect::<Result<_>>()?;
    let [copy, read, multiply] = measured.as_slice() else { return Err(Error::internal("three kernels measure")) };

    // In pieces: four times what the second cache holds, and half of it.
    let pieces = |bytes: u64| (bytes / 4 / PIECE).max(1);
    let near = pieces(properties.l2_bytes / 2);
    let far = pieces((properties.l2_bytes * 4).min(properties.memory / 32)).max(near);
    let bytes = (far * PIECE * 4) as usize;
    let (from, to) = (queue.acquire(bytes, "a measurement")?, queue.acquire(bytes, "a measurement")?);
    for block in [&from, &to] {
        // SAFETY: the block holds so many bytes.
        let cleared = unsafe { gpu.driver.fill(block.address(), 0, bytes) };
        queue.check(cleared)?;
    }
    let (a, b) = (from.address().0, to.address().0);
    // SAFETY: both blocks hold so many pieces.
    let us = unsafe { copy.fastest(&mut queue, far, &[a, b, far * PIECE])? };
    let memory = (8 * far * PIECE) as f64 / us;
    // SAFETY: the first block holds `near` pieces, and a piece of the second takes the sums of as many pieces as a thread reads.
    let us = unsafe { read.fastest(&mut queue, near * AGAIN, &[a, b, near * THREADS, near, AGAIN])? };
    let cached = (4 * near * AGAIN * (PIECE + THREADS)) as f64 / us;
    // All threads that the device holds at once, in some rounds.
    let threads = u64::from(properties.multiprocessors) * u64::from(properties.resident_threads) * 4;
    let blocks = (threads.min(far * PIECE) / THREADS).max(1);
    let threads = blocks * THREADS;
    // SAFETY: as above; what is read of the first is less than a piece.
    let us = unsafe { multiply.fastest(&mut queue, blocks, &[a, a, b, threads])? };
    let flops = (2 * threads * CHAINS * LINKS * WALKS) as f64 / us;
    Ok(Limits::new(properties.multiprocessors, memory, cached, properties.l2_bytes / 2, flops))
}

/// A kernel that measures, loaded.
struct Measured {
    function: Function,
    threads: u32,
    _loaded: Arc<Loaded>,
}

impl Measured {
    fn new(queue: &mut Queue, loaded: &Arc<Loaded>, source: &Source) -> Result<Measured> {
        let function = queue.gpu().driver.function(loaded.module(), &source.name, source.launch.shared_bytes);
        Ok(Measured { function: queue.check(function)?, threads: source.launch.threads, _loaded: loaded.clone() })
    }

    /// Microseconds of the fastest of some launches.
    ///
    /// # Safety
    /// As for [`Driver::launch`](super::driver::Driver::launch).
    unsafe fn fastest(&self, queue: &mut Queue, blocks: u64, words: &[u64]) -> Result<f64> {
        let shape = Shape { blocks: blocks as u32, threads: self.threads, shared_bytes: 0 };
        let mut events = Vec::new();
        // SAFETY: by the contract.
        let submitted = unsafe { self.submit(queue, shape, words, &mut events) };
        let done = submitted.and_then(|()| queue.settle());
        let driver = &queue.gpu().driver;
        let mut best = f64::INFINITY;
        let times: Vec<_> = match done {
            Ok(()) => events.windows(2).map(|pair| driver.elapsed_us(pair[0], pair[1])).collect(),
            Err(_) => Vec::new(),
        };
        let destroyed: Vec<_> = events.into_iter().map(|event| driver.destroy_event(event)).collect();
        done?;
        for us in times {
            best = best.min(queue.check(us)?);
        }
        for gone in destroyed {
            queue.check(gone)?;
        }
        // A driver whose clock stands still measures nothing; no launch takes less than this.
        Ok(best.max(0.1))
    }

    /// Submits launches, with an event before the second and after each of the others.
    unsafe fn submit(&self, queue: &mut Queue, shape: Shape, words: &[u64], events: &mut Vec<Event>) -> Result<()> {
        let driver = &queue.gpu().driver;
        for _ in 0..=ROUNDS {
            // SAFETY: by the contract of the caller.
            let launched = unsafe { driver.launch(self.function, shape, words) };
            queue.check(launched)?;
            let event = driver.create_event();
            let event = queue.check(event)?;
            events.push(event);
            let recorded = driver.record(event);
            queue.check(recorded)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::driver::FailureKind::Refused;
    use crate::cuda::gpu;
    use crate::cuda::testing::Fake;

    #[test]
    fn kernels_are_right_as_they_are_written() {
        for kernel in kernels().unwrap() {
            kernel.verify().unwrap();
            assert_eq!(Kernel::parse(&kernel.to_string()).unwrap(), kernel);
        }
    }

    #[test]
    fn a_gpu_is_measured_once_and_again_after_a_failure() {
        let fake = Fake::default();
        let gpu = gpu::gpu(fake.install(true).unwrap()).unwrap();
        let count = |name: &str| fake.take_log().iter().filter(|l| l.split(' ').next() == Some(name)).count();
        fake.fail("elapsed", 3, Refused);
        assert!(gpu.limits().is_err());
        fake.fail("launch", 3, Refused);
        assert!(gpu.limits().is_err());
        assert_eq!(gpu.memory_stats().in_use, 0);
        fake.take_log();
        let limits = gpu.limits().unwrap();
        assert_eq!(count("launch"), 3 * (1 + ROUNDS as usize));
        // A launch takes a microsecond there: 32 MiB to and from, half of the second cache again and again, and all threads
        // four times over.
        assert_eq!((limits.memory_bytes_per_us, limits.threads), (f64::from(64 << 20), 132));
        assert_eq!(limits.cache_bytes_per_us, (AGAIN * gpu.properties().l2_bytes / 2 / 16 * 17) as f64);
        assert_eq!(limits.flops_per_us, (132 * 2048 * 4 * 2 * CHAINS * LINKS * WALKS) as f64);
        assert_eq!(gpu.limits().unwrap(), limits);
        assert_eq!(count("launch"), 0);
        gpu.synchronise().unwrap();
        assert_eq!((fake.misuses(), gpu.memory_stats().in_use), (Vec::new(), 0));
    }
}
