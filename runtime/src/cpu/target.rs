//! The machine this process runs on.

#[cfg(target_arch = "x86_64")]
use super::wide::Family;
use lazuli_ir::Target;
#[cfg(target_arch = "x86_64")]
use lazuli_ir::{Error, ErrorKind, Result};
use std::sync::LazyLock;

/// The machine this process runs on, as passes see it. Its cores are those the process may use, however many threads were
/// asked for: what is fused depends on them, and so may the bits of a sum, which must not depend on threads.
pub fn host_target() -> &'static Target {
    static HOST: LazyLock<Target> = LazyLock::new(|| {
        let plain = Target::cpu(cores());
        // What systems say of caches may be that of a virtual machine: nothing that no machine has.
        let l2_bytes = cache_bytes(2).map_or(plain.l2_bytes, |n| n.clamp(256 << 10, 4 << 20));
        Target { fma: has_fma(), l2_bytes, ..plain }
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

/// The widest vectors to use: those of the machine, or what `LAZULI_CPU` says (`portable`, `avx2`, `avx512`).
#[cfg(target_arch = "x86_64")]
pub(crate) fn family() -> Result<Option<Family>> {
    let forced = |f: Family, name: &str| match has_family(f) {
        true => Ok(Some(f)),
        false => {
            Err(Error::new(ErrorKind::Device, format!("LAZULI_CPU asks for {name}, which this machine does not have")))
        }
    };
    match std::env::var("LAZULI_CPU").ok().as_deref() {
        None => Ok([Family::Avx512, Family::Avx2].into_iter().find(|f| has_family(*f))),
        Some("portable") => Ok(None),
        Some("avx2") => forced(Family::Avx2, "avx2"),
        Some("avx512") => forced(Family::Avx512, "avx512"),
        Some(other) => {
            let message = format!("LAZULI_CPU is `{other}`; it may be portable, avx2 or avx512");
            Err(Error::new(ErrorKind::Device, message))
        }
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
