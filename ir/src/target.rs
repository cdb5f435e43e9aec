//! What passes know of a machine: plain data, so that tests can pin it.

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
        }
    }

    /// An NVIDIA GPU of this compute capability.
    pub fn nvidia(sm: u32) -> Target {
        Target {
            kind: TargetKind::Nvidia(sm),
            vector_bytes: 16,
            fma: true,
            l1_bytes: 48 << 10,
            l2_bytes: 50 << 20,
            reduce_chunk: 16 << 10,
            cores: 132,
            bytes_per_us: 25_000,
            flops_per_us: 400_000,
        }
    }
}
