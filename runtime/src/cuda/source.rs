//! CUDA C of a kernel, and how it is launched.

use lazuli_ir::kernel::{Extent, Kernel};
use lazuli_ir::{Error, Result};

/// CUDA C of a kernel, without the prelude, and how it is launched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The `extern "C" __global__` function's name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// How it is launched.
    pub launch: Launch,
}

/// How a kernel is launched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// Blocks: the product over these of `ceil(extent / step)`. The kernel decodes `blockIdx.x` itself; y and z are 1. Empty:
    /// one block.
    pub grid: Vec<(Extent, u64)>,
    /// Threads of a block (one dimension).
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Words of 8 bytes that each block writes as its partial results; 0 where the kernel has none.
    pub partial_words: u32,
}

impl Launch {
    /// Blocks of a launch with these run-time extents.
    pub fn blocks(&self, extents: &[u64]) -> u64 {
        let of = |extent: &Extent| match extent {
            Extent::Const(n) => *n,
            Extent::Runtime(e) => extents.get(e.0 as usize).copied().unwrap_or(0),
        };
        let blocks: u64 = self.grid.iter().map(|(extent, step)| of(extent).div_ceil((*step).max(1))).product();
        // The results of a reduction of nothing are stored as well.
        if self.partial_words > 0 { blocks.max(1) } else { blocks }
    }
}

/// What the checks of a launch found, as it lies in device memory: zeros where none failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckStatus {
    /// Larger for a lower site, and there for a lower linear index; 0 where no check failed.
    pub key: u64,
    /// The value that failed.
    pub value: i64,
    /// Held by the thread that writes the value.
    pub lock: u64,
}

impl CheckStatus {
    /// The site of the check that failed first, and the value that failed.
    pub fn first(&self) -> Option<(u32, i64)> {
        (self.key != 0).then_some(((!self.key >> 44) as u32, self.value))
    }
}

/// What every program's text begins with: types, conversions, functions. Needs no header.
pub const PRELUDE: &str = "";

/// Prints a scheduled kernel. `name` is unique in its program.
pub fn print(kernel: &Kernel, name: &str) -> Result<Source> {
    Err(Error::internal(format!("kernel {} cannot be printed as {name}", kernel.name)))
}
