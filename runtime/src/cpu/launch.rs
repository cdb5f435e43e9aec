//! One kernel on arrays: how eager evaluation runs a primitive.

use super::abi;
use super::code::KernelCode;
use super::dispatch::{self, Call, Step, Steps};
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
    status.take(checks)
}

fn run(code: &KernelCode, table: SmallVec<[u64; 32]>, iterations: u64, grain: u64) -> Result<()> {
    let step = Step { entry: code.entry(), finish: code.finish(), first_word: 0, iterations, grain };
    // SAFETY: the table was built by the kernel's own layout, from arrays that were checked to hold all accesses, and nobody else
    // has the call.
    unsafe {
        if grain < iterations && dispatch::threads() > 1 {
            let steps = Steps::new(vec![step], code.scratch_bytes());
            return dispatch::run(&Arc::new(Call::new(steps, &table)), None);
        }
        dispatch::run_one(&step, &table, code.scratch_bytes())
    }
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
