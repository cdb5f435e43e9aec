//! What passes know of a machine, and the limits that kernels are compared with: plain data, so that tests can pin it.

use std::time::Duration;

/// The family of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// A CPU.
    Cpu,
    /// An NVIDIA GPU of this compute capability (`90` is sm_90).
    Nvidia(u32),
}

/// A machine that programs are compiled for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The family.
    pub kind: TargetKind,
    /// Bytes of a vector register (a GPU: of one vector load).
    pub vector_bytes: u32,
    /// Whether fused multiply-add is one instruction.
    pub fma: bool,
    /// Bytes of first-level data cache (a GPU: of shared memory a block may use).
    pub l1_bytes: u64,
    /// Bytes of second-level cache a core has.
    pub l2_bytes: u64,
    /// Elements that one partial result of a reduction shared by threads stands for, at least: results do not depend on the
    /// number of threads, but on this.
    pub reduce_chunk: u64,
    /// Threads that run at once on a CPU, multiprocessors of a GPU.
    pub cores: u32,
    /// Bytes a core moves in a microsecond, from a middle cache: for estimates of how much work is worth a thread.
    pub bytes_per_us: u64,
    /// Floating point operations a core does in a microsecond, in vector code: for the same estimates.
    pub flops_per_us: u64,
    /// Whether matrices of `bf16` are multiplied as such, with sums in `f32`, and not as `f32`.
    pub bf16_products: bool,
    /// The back end's routine for products of matrices, where it has one.
    pub matmul: Option<MatmulRoutine>,
}

/// A routine that multiplies matrices, as estimates see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatmulRoutine {
    /// Bytes of memory that a call may use beside its operands.
    pub scratch_bytes: usize,
    /// Nanoseconds that a call takes, however little it multiplies.
    pub call_ns: u64,
    /// Floating point operations a core does in a microsecond on `f32`.
    pub f32_flops_per_us: u64,
    /// The same where `f32` may be rounded to TF32.
    pub tf32_flops_per_us: u64,
    /// The same on halves, with sums in `f32`.
    pub half_flops_per_us: u64,
    /// The same on `f64`.
    pub f64_flops_per_us: u64,
}

impl MatmulRoutine {
    /// cuBLASLt on a GPU of this compute capability: four fifths of what data sheets give for its cores. Not measured:
    /// `cargo bench --bench gpu_rates` prints these numbers beside those of a GPU.
    pub fn cublaslt(sm: u32) -> MatmulRoutine {
        // Scratch as NVIDIA recommends: 32 MiB from Hopper on, 4 MiB before.
        let scratch_mib = if sm >= 90 { 32 } else { 4 };
        let [f32, tf32, half, f64] = match sm {
            80 => [144, 1_150, 2_300, 144],
            90 => [400, 3_000, 6_000, 400],
            100..=110 => [420, 6_000, 12_000, 210],
            _ => [360, 360, 720, 6],
        }
        .map(|thousands| thousands * 1000);
        MatmulRoutine {
            scratch_bytes: scratch_mib << 20,
            call_ns: 4_500,
            f32_flops_per_us: f32,
            tf32_flops_per_us: tf32,
            half_flops_per_us: half,
            f64_flops_per_us: f64,
        }
    }

    /// One that no loop is faster than, so that every contraction it can take is its: for tests.
    pub fn unbeatable() -> MatmulRoutine {
        let all = u64::MAX;
        MatmulRoutine {
            scratch_bytes: 1 << 10,
            call_ns: 0,
            f32_flops_per_us: all,
            tf32_flops_per_us: all,
            half_flops_per_us: all,
            f64_flops_per_us: all,
        }
    }
}

impl Target {
    /// A plain CPU with 128-bit vectors: what tests pin.
    pub fn cpu(cores: u32) -> Target {
        Target {
            kind: TargetKind::Cpu,
            vector_bytes: 16,
            fma: true,
            l1_bytes: 32 << 10,
            l2_bytes: 1 << 20,
            reduce_chunk: 16 << 10,
            cores,
            bytes_per_us: 20_000,
            flops_per_us: 20_000,
            bf16_products: false,
            matmul: None,
        }
    }

    /// An NVIDIA GPU of this compute capability, without cuBLASLt. Rates are those of an H100's data sheet, by multiprocessor;
    /// `cargo bench --bench gpu_rates` measures them.
    pub fn nvidia(sm: u32) -> Target {
        Target {
            kind: TargetKind::Nvidia(sm),
            vector_bytes: 16,
            fma: true,
            l1_bytes: shared_bytes(sm),
            l2_bytes: 50 << 20,
            reduce_chunk: 16 << 10,
            cores: 132,
            bytes_per_us: 25_000,
            flops_per_us: 400_000,
            bf16_products: false,
            matmul: None,
        }
    }
}

/// Bytes of shared memory that a block of this compute capability may use.
fn shared_bytes(sm: u32) -> u64 {
    let kib = match sm {
        80 | 87 => 163,
        90 | 100..=110 => 227,
        // What the smaller devices of each family have.
        75.. => 99,
        _ => 48,
    };
    kib << 10
}

/// What a machine does at most, as measured: what the times of kernels are compared with. No pass sees it, so programs do
/// not depend on it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// The threads that were measured together.
    pub threads: u32,
    /// Bytes read and written in a microsecond, from and to memory.
    pub memory_bytes_per_us: f64,
    /// The same within the threads' own caches.
    pub cache_bytes_per_us: f64,
    /// Bytes that stay in the threads' own caches.
    pub cache_bytes: u64,
    /// `f32` operations in a microsecond, as fused multiply-adds of a matrix product.
    pub flops_per_us: f64,
}

impl Limits {
    /// Limits of `threads` threads.
    pub fn new(threads: u32, memory: f64, cache: f64, cache_bytes: u64, flops: f64) -> Limits {
        Limits { threads, memory_bytes_per_us: memory, cache_bytes_per_us: cache, cache_bytes, flops_per_us: flops }
    }

    /// The least time in which the machine can move so many bytes and do so many operations: the longer of the two.
    pub fn time(&self, bytes: u64, flops: u64) -> Duration {
        let in_cache = bytes <= self.cache_bytes;
        let bandwidth = if in_cache { self.cache_bytes_per_us } else { self.memory_bytes_per_us };
        let us = (bytes as f64 / bandwidth).max(flops as f64 / self.flops_per_us);
        Duration::try_from_secs_f64(us / 1e6).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_longer_of_moving_and_computing() {
        let limits = Limits::new(2, 40_000.0, 200_000.0, 1 << 20, 100_000.0);
        assert_eq!(limits.time(40_000_000, 0), Duration::from_millis(1));
        assert_eq!(limits.time(200_000, 0), Duration::from_micros(1));
        assert_eq!(limits.time(200_000, 1_000_000), Duration::from_micros(10));
        assert_eq!(limits.time(0, 0), Duration::ZERO);
        assert_eq!(Limits::new(1, 0.0, 0.0, 0, 0.0).time(1, 1), Duration::ZERO);
    }
}
