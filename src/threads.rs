//! How many threads work on a kernel.

use lazuli_runtime::cpu;

/// Sets how many threads work on a kernel, the calling one included; 0 counts as 1. It holds for the process from the next
/// kernel on, in eager evaluation and in compiled programs alike, those compiled before included. The environment variable
/// `LAZULI_THREADS` sets it from the start; without it, it is the number of cores that the process may use.
///
/// Results do not depend on it, bit for bit.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = Tensor::randn([256, 256]);
/// lazuli::set_num_threads(1);
/// let one = x.matmul(x.t()).sum(..).item::<f32>()?;
/// lazuli::set_num_threads(2);
/// assert_eq!(x.matmul(x.t()).sum(..).item::<f32>()?.to_bits(), one.to_bits());
/// # Ok::<(), lazuli::Error>(())
/// ```
pub fn set_num_threads(threads: usize) {
    cpu::set_num_threads(threads);
}

/// How many threads work on a kernel.
///
/// ```
/// lazuli::set_num_threads(2);
/// assert_eq!(lazuli::get_num_threads(), 2);
/// ```
#[must_use]
pub fn get_num_threads() -> usize {
    cpu::threads()
}
