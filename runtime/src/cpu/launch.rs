//! One kernel on arrays: how eager evaluation runs a primitive.

use super::abi::{self, Words};
use super::code::KernelCode;
use super::dispatch::{self, Step, Steps};
use super::status::Status;
use crate::allocator;
use crate::array::Array;
use lazuli_ir::kernel::{Extent, Kernel, Param, Stride};
use lazuli_ir::program::CheckSite;
use lazuli_ir::{Error, Literal, Result};
use smallvec::SmallVec;
use std::sync::Arc;

/// An array passed for a buffer parameter, with the values of the parameter's run-time strides in order of its dims.
#[derive(Clone, Copy, Debug)]
pub struct LaunchArg<'a> {
    /// The array; the kernel's pointer is its first element.
    pub array: &'a Array,
    /// Run-time strides, in elements.
    pub strides: &'a [i64],
}

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
    check(kernel, args, extents, scalars)?;
    let words = code.words();
    let status = Status::default();
    let mut table: SmallVec<[u64; 32]> = smallvec::smallvec![0; words.total];
    table[abi::FUNCTIONS] = &raw const super::FUNCTIONS as u64;
    table[abi::CONSTANTS] = code.constants() as u64;
    table[abi::STATUS] = &raw const status as u64;
    let mut stride = words.strides;
    for (i, arg) in args.iter().enumerate() {
        table[abi::PARAMS + i] = arg.array.as_ptr() as u64;
        for s in arg.strides {
            table[stride] = *s as u64;
            stride += 1;
        }
    }
    table[words.extents..words.scalars].copy_from_slice(extents);
    for (word, s) in table[words.scalars..].iter_mut().zip(scalars) {
        *word = s.in_kernel().bits();
    }
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

fn check(kernel: &Kernel, args: &[LaunchArg<'_>], extents: &[u64], scalars: &[Literal]) -> Result<()> {
    let wrong = |what: &str| Err(Error::internal(format!("kernel {} is launched with wrong {what}", kernel.name)));
    if args.len() != kernel.params.len() || extents.len() != kernel.extents.len() {
        return wrong("arguments");
    }
    if !kernel.scalars.iter().map(|s| s.dtype).eq(scalars.iter().map(|s| s.dtype())) {
        return wrong("scalars");
    }
    for (param, arg) in kernel.params.iter().zip(args) {
        let elements = (arg.array.buffer().bytes() / param.dtype.size()) as i64;
        let offset = arg.array.layout().offset;
        let inside = |(low, high): (i64, i64)| {
            low == high || (offset.saturating_add(low) >= 0 && offset.saturating_add(high) <= elements)
        };
        if param.dtype != arg.array.dtype() || !reach(param, arg.strides, extents).is_some_and(inside) {
            return wrong("arrays");
        }
    }
    Ok(())
}

/// The elements a parameter's accesses lie in, counted from its pointer: the lowest, and one past the highest. `None` where
/// the run-time strides are not as many as the parameter has.
pub(crate) fn reach(param: &Param, strides: &[i64], extents: &[u64]) -> Option<(i64, i64)> {
    let (mut low, mut high) = (0i64, 0i64);
    let mut next = strides.iter();
    let mut empty = false;
    for (dim, stride) in param.dims.iter().zip(&param.strides) {
        let stride = match stride {
            Stride::Const(c) => *c,
            Stride::Runtime => *next.next()?,
        };
        let extent = match dim {
            Extent::Const(n) => *n,
            Extent::Runtime(e) => *extents.get(e.0 as usize)?,
        };
        empty |= extent == 0;
        let far = (extent.saturating_sub(1) as i64).saturating_mul(stride);
        low = low.saturating_add(far.min(0));
        high = high.saturating_add(far.max(0));
    }
    if next.next().is_some() {
        return None;
    }
    Some(if empty { (0, 0) } else { (low, high.saturating_add(1)) })
}

/// The words of a kernel's table that do not depend on the call.
pub(crate) fn template(code: &KernelCode, strides: &[&[i64]], extents: &[u64], scalars: &[Literal]) -> Vec<u64> {
    let words: Words = code.words();
    let mut table = vec![0; words.total];
    table[abi::FUNCTIONS] = &raw const super::FUNCTIONS as u64;
    table[abi::CONSTANTS] = code.constants() as u64;
    for (word, s) in table[words.strides..].iter_mut().zip(strides.iter().copied().flatten()) {
        *word = *s as u64;
    }
    table[words.extents..words.scalars].copy_from_slice(extents);
    for (word, s) in table[words.scalars..].iter_mut().zip(scalars) {
        *word = s.in_kernel().bits();
    }
    table
}
