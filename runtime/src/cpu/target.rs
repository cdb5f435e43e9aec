//! The machine this process runs on.

use lazuli_ir::Target;
use std::sync::LazyLock;

/// The machine this process runs on, as passes see it. Its cores are those the process may use, however many threads were
/// asked for: what is fused depends on them, and so may the bits of a sum, which must not depend on threads.
pub fn host_target() -> &'static Target {
    static HOST: LazyLock<Target> = LazyLock::new(|| Target { fma: has_fma(), ..Target::cpu(cores()) });
    &HOST
}

/// The cores that the process may use.
pub(crate) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// Whether fused multiply-add is one instruction.
pub(crate) fn has_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cfg!(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "s390x"))
    }
}

/// Whether rounding to integers is an instruction.
pub(crate) fn has_rounding() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("sse4.1")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cfg!(any(target_arch = "aarch64", target_arch = "s390x"))
    }
}
