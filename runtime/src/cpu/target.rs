//! The machine this process runs on.

use lazuli_ir::Target;
use std::sync::LazyLock;

/// The machine this process runs on, as passes see it. The number of cores is `LAZULI_THREADS` where that is set.
pub fn host_target() -> &'static Target {
    static HOST: LazyLock<Target> =
        LazyLock::new(|| Target { fma: has_fma(), ..Target::cpu(super::dispatch::threads() as u32) });
    &HOST
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
