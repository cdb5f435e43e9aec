//! How long a kernel takes on a GPU, as far as choices between kernels need to know.
//!
//! It waits for the one before, whose results it reads; then it moves bytes and computes, and the longer of both counts. As many
//! multiprocessors do so as it has parts that can run beside each other. Rates are those of the [`Target`]; none was measured yet, nor was the
//! wait: `cargo bench --bench gpu_rates` prints both beside what a GPU does.

use lazuli_ir::Target;

/// Nanoseconds from the end of a kernel to the work of the next, which reads what it wrote.
pub const WAIT_NS: f64 = 4_000.0;

/// Nanoseconds of a kernel of so many parts, the wait before it counted.
pub(crate) fn kernel_ns(target: &Target, bytes: u64, flops: u64, parts: u64) -> f64 {
    WAIT_NS + work_ns(target, bytes as f64, flops as f64 / target.flops_per_us.max(1) as f64, parts)
}

/// Nanoseconds that so many parts move bytes and compute; `us` is how long one multiprocessor computes alone.
pub(crate) fn work_ns(target: &Target, bytes: f64, us: f64, parts: u64) -> f64 {
    let busy = parts.clamp(1, u64::from(target.cores.max(1))) as f64;
    1e3 * (bytes / target.bytes_per_us.max(1) as f64).max(us) / busy
}
