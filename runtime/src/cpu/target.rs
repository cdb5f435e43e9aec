//! The machine this process runs on.

use super::Vectors;
#[cfg(target_arch = "x86_64")]
use super::wide::Family;
use lazuli_ir::{Error, ErrorKind, Result, Target};
use std::sync::LazyLock;

/// The machine this process runs on, as passes see it. Its cores are those the process may use, however many threads were
/// asked for: what is fused depends on them, and so may the bits of a sum, which must not depend on threads.
pub fn host_target() -> &'static Target {
    static HOST: LazyLock<Target> = LazyLock::new(|| {
        let plain = Target::cpu(cores());
        // What systems say of caches may be that of a virtual machine: nothing that no machine has.
        let l2_bytes = cache_bytes(2).map_or(plain.l2_bytes, |n| n.clamp(256 << 10, 4 << 20));
        let bf16_products = vectors().is_ok_and(|v| v == Vectors::Amx);
        Target { fma: has_fma(), l2_bytes, bf16_products, ..plain }
    });
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

/// Whether the machine has what strips of these vectors use.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_family(f: Family) -> bool {
    match f {
        Family::Avx2 => {
            std::is_x86_feature_detected!("avx2")
                && std::is_x86_feature_detected!("fma")
                && std::is_x86_feature_detected!("bmi2")
        }
        Family::Avx512 => {
            std::is_x86_feature_detected!("avx512f")
                && std::is_x86_feature_detected!("avx512vl")
                && std::is_x86_feature_detected!("avx512dq")
                && std::is_x86_feature_detected!("avx512bw")
                && std::is_x86_feature_detected!("bmi2")
        }
    }
}

/// Whether the machine multiplies tiles of `bf16`, and the system lets this process do so: what tiles hold is more than threads
/// save by default, so a process asks once.
pub(crate) fn has_amx() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static HAS: LazyLock<bool> = LazyLock::new(|| {
            const REQUEST_PERMISSION: libc::c_long = 0x1023;
            const TILE_DATA: libc::c_long = 18;
            // AMX-BF16 and AMX-TILE.
            const BITS: u32 = 1 << 22 | 1 << 24;
            let leaves = std::arch::x86_64::__cpuid(0).eax;
            let bits = if leaves >= 7 { std::arch::x86_64::__cpuid_count(7, 0).edx } else { 0 };
            // SAFETY: the call only tells the system what the process will use; one that does not know it refuses.
            let allowed = || unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) } == 0;
            has_family(Family::Avx512) && bits & BITS == BITS && allowed()
        });
        *HAS
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

/// The vectors to use: the widest of the machine, or what `LAZULI_CPU` says.
pub(crate) fn vectors() -> Result<Vectors> {
    let Ok(name) = std::env::var("LAZULI_CPU") else { return Ok(Vectors::widest()) };
    let Some(vectors) = Vectors::ALL.into_iter().find(|v| v.name() == name) else {
        let names = Vectors::ALL.map(Vectors::name).join(", ");
        return Err(Error::new(ErrorKind::Device, format!("LAZULI_CPU is `{name}`; it may be one of {names}")));
    };
    if vectors.exist() {
        return Ok(vectors);
    }
    Err(Error::new(ErrorKind::Device, format!("LAZULI_CPU asks for {name}, which this machine does not have")))
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

/// Bytes of the last cache, as far as the system says.
#[cfg(target_arch = "x86_64")]
pub(crate) fn last_cache_bytes() -> u64 {
    static BYTES: LazyLock<u64> = LazyLock::new(|| cache_bytes(3).unwrap_or(32 << 20));
    *BYTES
}

/// Bytes of a core's unified cache of this level, where the system tells.
fn cache_bytes(level: u32) -> Option<u64> {
    let size = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size")).ok()?;
    let size = size.trim();
    let (number, unit) = size.split_at(size.len().saturating_sub(1));
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok().map(|n| n * unit).filter(|n| *n > 0)
}
