//! What this machine does at most, measured once for each number of threads: what profiles compare kernels with.

use super::abi::DotCall;
use super::{Vectors, host_target, threads};
use lazuli_ir::{Error, ErrorKind, Limits, Result};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Instant;

/// What this machine does at most with the present number of threads. The first question takes some tenths of a second,
/// in which it copies memory and multiplies matrices; later ones know the answer.
///
/// # Errors
/// Memory.
pub fn limits() -> Result<Limits> {
    static KNOWN: Mutex<Vec<Limits>> = Mutex::new(Vec::new());
    let n = threads() as u32;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(limits) = known.iter().find(|l| l.threads == n) {
        return Ok(*limits);
    }
    // Half of its second-level cache a thread: a copy reads one half of that and writes the other.
    let near = host_target().l2_bytes / 2;
    let far = (FAR / u64::from(n)).max(near);
    let memory = copied(n, far, 3, plainly)?.max(copied(n, far, 3, past_caches)?);
    let limits = Limits::new(n, memory, copied(n, near, 200, plainly)?, u64::from(n) * near * 2, multiplied(n)?);
    known.push(limits);
    Ok(limits)
}

/// Bytes of a copy, source and destination, that no cache holds.
const FAR: u64 = 256 << 20;

/// Bytes in a microsecond of threads that each copy within so many bytes, in this way.
fn copied(threads: u32, bytes: u64, rounds: u32, copy: fn(&[u64], &mut [u64])) -> Result<f64> {
    let words = bytes as usize / 16;
    together(
        threads,
        rounds,
        || Ok((filled(words, 1u64)?, filled(words, 2u64)?)),
        |(from, to)| {
            copy(from, to);
            std::hint::black_box(&to);
            words as f64 * 16.0
        },
    )
}

fn plainly(from: &[u64], to: &mut [u64]) {
    to.copy_from_slice(from);
}

/// Copies without reading first what is overwritten, where the machine has stores that go past its caches.
fn past_caches(from: &[u64], to: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        let skipped = to.as_ptr().align_offset(16).min(to.len());
        let pairs = (to.len().min(from.len()) - skipped) / 2;
        let (source, target) =
            (from[skipped..].as_ptr().cast::<__m128i>(), to[skipped..].as_mut_ptr().cast::<__m128i>());
        for i in 0..pairs {
            // SAFETY: `pairs` vectors lie in both slices, and those of the target are aligned; every x86-64 has SSE2.
            unsafe { _mm_stream_si128(target.add(i), _mm_loadu_si128(source.add(i))) };
        }
        // SAFETY: as above.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(from);
}

/// `f32` operations in a microsecond of threads that each multiply matrices in their caches.
fn multiplied(threads: u32) -> Result<f64> {
    const N: usize = 512;
    let n = N as i64;
    let matrices = || Ok((filled(N * N, 0.5f32)?, filled(N * N, 0.25f32)?, filled(N * N, 0f32)?));
    together(threads, 8, matrices, |(a, b, acc)| {
        let (a, b, acc) = (a.as_ptr().cast(), b.as_ptr().cast(), acc.as_mut_ptr().cast());
        let (m, k) = (n, n);
        let rows = DotCall {
            m,
            n,
            k,
            acc,
            acc_row: n,
            a,
            a_row: n,
            a_inner: 1,
            b,
            b_inner: n,
            b_column: 1,
            b_outer: std::ptr::null(),
            b_outers: 0,
            vectors: Vectors::widest().word(),
            fresh: 0,
        };
        // SAFETY: three matrices of N times N elements, of which this thread alone holds the accumulator.
        unsafe { crate::gemm::dot_f32(&rows) };
        2.0 * (N * N * N) as f64
    })
}

fn filled<T: Copy>(n: usize, value: T) -> Result<Vec<T>> {
    let mut elements = Vec::new();
    let full = |_| Error::new(ErrorKind::Memory, "memory to measure the machine with could not be allocated");
    elements.try_reserve_exact(n).map_err(full)?;
    elements.resize(n, value);
    Ok(elements)
}

/// The work done in a microsecond by threads that start each round together, each the best of some rounds, added up.
fn together<S>(
    threads: u32,
    rounds: u32,
    prepare: impl Fn() -> Result<S> + Sync,
    work: impl Fn(&mut S) -> f64 + Sync,
) -> Result<f64> {
    let start = Barrier::new(threads as usize);
    let one = || {
        let mut state = prepare();
        let mut best = 0f64;
        for _ in 0..rounds {
            // A thread without memory waits for the others as well.
            start.wait();
            let Ok(state) = &mut state else { continue };
            let begin = Instant::now();
            let done = work(state);
            best = best.max(done / (begin.elapsed().as_secs_f64() * 1e6).max(1e-3));
        }
        state.map(|_| best)
    };
    let rates: Vec<Result<f64>> = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let own = one();
        let panicked = |_| Err(Error::internal("a thread that measured the machine panicked"));
        std::iter::once(own).chain(helpers.into_iter().map(|h| h.join().unwrap_or_else(panicked))).collect()
    });
    rates.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_plausible_and_asked_once() {
        let first = limits().unwrap();
        assert!(first.memory_bytes_per_us > 100.0 && first.cache_bytes_per_us > 100.0, "{first:?}");
        assert!(first.flops_per_us > 10.0, "{first:?}");
        assert_eq!(limits().unwrap().threads, threads() as u32);
    }
}
