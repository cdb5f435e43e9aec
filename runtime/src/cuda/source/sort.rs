//! A sort of lines as CUDA C: what stands for the sort's shape is printed, what it does is a text of its own (`sort.cuh`).
//!
//! One launch sorts tiles; a line that is one tile is done then. Else as many more launches merge, each making runs twice as long. All are
//! of one function.

use super::types::memory_type;
use lazuli_ir::program::SortCall;
use lazuli_ir::{DType, Error, ErrorKind, Result};
use std::fmt::Write;

/// What the text of a program with sorts begins with, after the prelude.
pub const SORT_PRELUDE: &str = include_str!("sort.cuh");

/// Pairs of a tile, at most: they and a merge's registers leave room for several blocks.
const TILE: usize = 2048;
/// Pairs of a tile that holds several lines.
const SHARED_TILE: usize = 512;
/// Threads of a block.
const THREADS: usize = 256;

/// CUDA C of a sort, without the preludes, and how it is launched.
///
/// The function takes the operand's first element, the result's, two pieces of scratch memory, of which a launch reads the first and writes the
/// second, and the length of the runs that the launch merges, 0 for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortSource {
    /// The function's name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Blocks of each launch; 0 where there is nothing to do.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of each of the two pieces of scratch memory.
    pub scratch_bytes: usize,
    /// The length of the runs that each launch merges: 0, and then every run of a tile and up.
    pub runs: Vec<u64>,
}

/// Prints a sort of elements of a type.
///
/// # Errors
/// A sort of more lines than a grid has blocks, or of more elements than memory has bytes.
pub fn print_sort(call: &SortCall, dtype: DType, name: &str) -> Result<SortSource> {
    let (extents, strides) = (call.layout.shape.extents(), call.layout.shape.strides());
    let dims = extents.iter().zip(call.layout.strides.iter().zip(&strides)).map(|(n, (s, r))| (*n, *s, *r));
    let mut outer: Vec<(usize, i64, i64)> = dims.collect();
    let (length, stride, result_stride) = if call.dim < outer.len() { outer.remove(call.dim) } else { (1, 0, 0) };
    let count = call.count.min(length);
    let lines: usize = outer.iter().map(|d| d.0).product();
    let own = length.max(1).checked_next_power_of_two().unwrap_or(TILE).min(TILE);
    let together = (SHARED_TILE / own).max(1);
    let threads = (own * together / 2).clamp(32, THREADS);
    let tiles = length.div_ceil(own);
    let narrow = dtype.size() <= 4 && u32::try_from(length).is_ok_and(|n| n < u32::MAX);
    let (pair, pair_bytes) = if narrow { ("unsigned long long", 8) } else { ("lz_wide_pair", 16) };

    let too_large = || {
        let shape = &call.layout.shape;
        Error::new(ErrorKind::Device, format!("a sort of {shape} along dim {} is too large for a GPU", call.dim))
    };
    let blocks = lines.div_ceil(together).checked_mul(tiles).filter(|_| count > 0 && length > 0);
    let blocks = if lines == 0 || count == 0 { 0 } else { blocks.ok_or_else(too_large)? };
    let blocks = i32::try_from(blocks).map_err(|_| too_large())? as u32;
    let mut runs = vec![0];
    runs.extend(
        std::iter::successors(Some(own), |run| Some(run * 2)).take_while(|run| *run < tiles * own).map(|r| r as u64),
    );
    let scratch = if tiles > 1 { lines.checked_mul(tiles * own * pair_bytes).ok_or_else(too_large)? } else { 0 };

    let mut text = String::new();
    let element = memory_type(dtype);
    // Writing to a string cannot fail.
    _ = write!(
        text,
        "struct {name}_shape {{
    typedef {element} Element;
    typedef {pair} Pair;
    static constexpr long long lines = {lines}, length = {length}, count = {count};
    static constexpr long long stride = {stride}, result_stride = {result_stride};
    static constexpr int own = {own}, together = {together}, threads = {threads};
    static constexpr bool descending = {};
{}{}}};
",
        call.descending,
        place("from", outer.iter().map(|d| (d.0, d.1))),
        place("to", outer.iter().map(|d| (d.0, d.2))),
    );
    _ = write!(
        text,
        "extern \"C\" __global__ void __launch_bounds__({threads}, 1) {name}(const {element}* operand, long long* result, \
         const {pair}* from, {pair}* to, long long run) {{
    __shared__ __align__(16) {pair} tile[{}];
    lz_sort<{name}_shape>(operand, result, from, to, run, tile);
}}
",
        own * together,
    );
    let (name, threads) = (name.to_owned(), threads as u32);
    Ok(SortSource { name, text, blocks, threads, scratch_bytes: scratch, runs })
}

/// The function that gives where a line begins, from its number and the extents and strides of the dims around lines.
fn place(name: &str, dims: impl DoubleEndedIterator<Item = (usize, i64)>) -> String {
    let mut text = format!(
        "    static __device__ __forceinline__ long long {name}(long long line) {{\n        long long at = 0;\n"
    );
    for (n, stride) in dims.rev() {
        // Writing to a string cannot fail.
        _ = writeln!(text, "        at += line % {n} * {stride};\n        line /= {n};");
    }
    text + "        return at;\n    }\n"
}
