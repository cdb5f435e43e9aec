//! One kernel on arrays: how eager evaluation runs a primitive.

use super::abi;
use super::code::KernelCode;
use super::dispatch::{self, Step, Steps};
use super::status::Status;
use crate::allocator;
use crate::arguments::{LaunchArg, check};
use lazuli_ir::program::CheckSite;
use lazuli_ir::{Device, Literal, Result};
use smallvec::SmallVec;
use std::sync::Arc;

/// Runs a kernel: `iterations` of its parallel space in chunks of `grain`, then its `finish`. `checks` says what each of the
/// kernel's checks stands for; the first that fails is the error.
///
/// Buffers that the kernel writes must be referenced by nobody who reads or writes them meanwhile. That every access lies
/// within its array is checked from the parameters' extents.
#[allow(clippy::too_many_arguments)]
pub fn launch(
    code: &KernelCode,
    args: &[LaunchArg<'_>],
    extents: &[u64],
    scalars: &[Literal],
    checks: &[CheckSite],
    iterations: u64,
    grain: u64,
) -> Result<()> {
    let kernel = code.kernel();
    check(kernel, Device::Cpu, args, extents, scalars)?;
    let words = code.words();
    let status = Status::default();
    let mut table: SmallVec<[u64; 32]> = smallvec::smallvec![0; words.total];
    table[abi::FUNCTIONS] = &raw const super::FUNCTIONS as u64;
    table[abi::CONSTANTS] = code.constants() as u64;
    table[abi::STATUS] = &raw const status as u64;
    for (i, arg) in args.iter().enumerate() {
        table[words.params + i] = arg.array.as_ptr() as u64;
    }
    words.fill(&mut table, args.iter().map(|a| a.strides), extents, scalars);
    let partial_bytes = code.partial_words() * 8 * iterations.max(1) as usize;
    let partials = if partial_bytes > 0 { Some(allocator::acquire(partial_bytes)?) } else { None };
    if let Some(block) = &partials {
        table[abi::PARTIALS] = block.pointer().as_ptr() as u64;
    }
    let result = run(code, table, iterations, grain);
    if let Some(block) = partials {
        allocator::release(block);
    }
    result?;
    status.result(checks)
}

fn run(code: &KernelCode, table: SmallVec<[u64; 32]>, iterations: u64, grain: u64) -> Result<()> {
    if grain < iterations && dispatch::threads() > 1 {
        let step = Step { entry: code.entry(), finish: code.finish(), first_word: 0, iterations, grain };
        let steps = Arc::new(Steps::new(vec![step], vec![code.clone()], 0));
        // SAFETY: the table was built by the kernel's own layout, from arrays that were checked to hold all accesses.
        return unsafe { dispatch::run(&steps, table.into_vec(), None) };
    }
    let scratch = dispatch::scratch(code.scratch_bytes())?;
    // SAFETY: as above.
    unsafe {
        if iterations > 0 {
            (code.entry())(table.as_ptr(), scratch, 0, iterations as i64);
        }
        if let Some(finish) = code.finish() {
            finish(table.as_ptr(), scratch, 0, iterations as i64);
        }
    }
    Ok(())
}

/// The words of a kernel's table that do not depend on the call.
pub(crate) fn template(code: &KernelCode, strides: &[&[i64]], extents: &[u64], scalars: &[Literal]) -> Vec<u64> {
    let words = code.words();
    let mut table = vec![0; words.total];
    table[abi::FUNCTIONS] = &raw const super::FUNCTIONS as u64;
    table[abi::CONSTANTS] = code.constants() as u64;
    words.fill(&mut table, strides.iter().copied(), extents, scalars);
    table
}
