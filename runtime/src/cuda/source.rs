//! Kernel IR to CUDA C.
//!
//! A kernel becomes one `__global__` function. What stands outside of loops over threads is run by all threads of a block
//! alike, so that each of them has every value; what it stores, one thread stores. A loop over lanes, warps or threads of a
//! block gives each of them every n-th iteration. The loops over the grid are one linear `blockIdx.x`. A reduction over lanes
//! ends in a butterfly of shuffles, one over a block goes through shared memory: every thread has the result. So the
//! text follows the kernel statement by statement, and needs no analysis but that of indices.
//!
//! - `printer`: the function around the statements, and the statements in order.
//! - `operation`: arithmetic; functions that are expansions of Kernel IR are printed once and called.
//! - `index`: indices and addresses.
//! - `memory`: loads, stores and tiles.
//! - `nest`: loops, and who runs their iterations.
//! - `reduction`: accumulators, trees of threads, partial results of blocks.
//! - `contraction`: products of matrices through shared memory.
//! - `sort`: sorts of lines, which are no kernels of the Kernel IR.
//! - `types`: types and constants as C has them, and names.

mod contraction;
mod index;
mod memory;
mod nest;
mod operation;
mod printer;
mod reduction;
mod sort;
mod types;

pub use sort::{SORT_PRELUDE, SortSource, print_sort};

use lazuli_ir::Result;
use lazuli_ir::kernel::{Extent, Kernel};

/// CUDA C of a kernel, without the prelude, and how it is launched.
///
/// The function's arguments are words of 8 bytes, in this order: a pointer for each parameter; each run-time stride, by
/// parameter and dim; each run-time extent; each run-time scalar, in the low bytes of its word, halves as `f32`; the address of
/// a [`CheckStatus`], where the kernel has checks; the address of the partial results and that of the ticket, a 32-bit counter, where it has
/// partial results. Status and ticket are zeros at the launch; the last block leaves the ticket at 0.
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
    /// Blocks: the product over these of extent divided by step, rounded up. The kernel takes `blockIdx.x` apart itself; y and z
    /// are 1. Empty: one block.
    pub grid: Vec<(Extent, u64)>,
    /// Threads of a block (one dimension).
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Words of 8 bytes that each block writes as its partial results; 0 where the kernel has none.
    pub partial_words: u32,
}

impl Launch {
    /// The number of blocks; 0 where there is nothing to do.
    pub fn blocks(&self, extents: &[u64]) -> u64 {
        let one = |(extent, step): &(Extent, u64)| {
            let n = match extent {
                Extent::Const(n) => *n,
                Extent::Runtime(e) => extents.get(e.0 as usize).copied().unwrap_or(0),
            };
            n.div_ceil((*step).max(1))
        };
        let blocks = self.grid.iter().map(one).fold(1, u64::saturating_mul);
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

/// Prints a scheduled kernel. `name` is unique in its program.
///
/// # Errors
/// What a schedule for a GPU does not leave in a kernel, such as loops over the threads of a CPU.
pub fn print(kernel: &Kernel, name: &str) -> Result<Source> {
    printer::print(kernel, name)
}

/// What every program's text begins with: types, conversions, functions. Needs no header.
pub const PRELUDE: &str = include_str!("source/prelude.cuh");

#[cfg(test)]
mod tests {
    use super::*;
    use lazuli_ir::ExtentId;

    #[test]
    fn blocks_are_the_product_of_pieces() {
        let grid = vec![(Extent::Const(100), 32), (Extent::Runtime(ExtentId(0)), 1)];
        let launch = Launch { grid, threads: 32, shared_bytes: 0, partial_words: 0 };
        assert_eq!(launch.blocks(&[3]), 12);
        assert_eq!(launch.blocks(&[0]), 0);
        assert_eq!(Launch { partial_words: 1, ..launch }.blocks(&[0]), 1, "the sum of nothing is stored");
    }

    #[test]
    fn the_first_failure_is_that_of_lowest_site() {
        let key = |site: u64, at: u64| !((site << 44) | at);
        assert_eq!(CheckStatus::default().first(), None);
        assert_eq!(CheckStatus { key: key(3, 17), value: -5, lock: 0 }.first(), Some((3, -5)));
        assert!(key(0, 1 << 40) > key(1, 0) && key(1, 2) > key(1, 3), "the larger key is the earlier failure");
    }
}
