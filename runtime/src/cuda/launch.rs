//! One kernel on arrays of a GPU: how eager evaluation runs a primitive there.

use super::code::{ArgumentWords, KernelCode};
use super::gpu::Queue;
use crate::arguments::{LaunchArg, check};
use lazuli_ir::{Device, Error, Result};
use smallvec::SmallVec;

/// Submits a kernel, which checks nothing and has no run-time scalars.
///
/// Buffers that the kernel writes must be referenced by nobody who reads or writes them meanwhile. That every access lies
/// within its array is checked from the parameters' extents.
pub fn launch(code: &KernelCode, args: &[LaunchArg<'_>], extents: &[u64]) -> Result<()> {
    check(code.kernel(), Device::Cuda(code.gpu().ordinal()), args, extents, &[])?;
    let ArgumentWords { plain, status, partials, total } = code.words();
    if status.is_some() {
        return Err(Error::internal(format!("kernel {} checks values, and is launched without", code.kernel().name)));
    }
    let Some(shape) = code.shape(extents)? else { return Ok(()) };
    let mut words: SmallVec<[u64; 32]> = smallvec::smallvec![0; total];
    for (i, arg) in args.iter().enumerate() {
        words[plain.params + i] = arg.array.as_ptr() as u64;
    }
    plain.fill(&mut words, args.iter().map(|a| a.strides), extents, &[]);
    let mut queue: Queue = code.gpu().queue()?;
    // The ticket stands before the partial results, which begin at a word of their own.
    let scratch = match partials {
        None => None,
        Some(word) => {
            let block = queue.acquire(8 + code.partial_bytes(extents), "partial results")?;
            words[word] = block.address().0 + 8;
            words[word + 1] = block.address().0;
            // SAFETY: the block begins with the ticket.
            let cleared = unsafe { queue.gpu().driver.fill(block.address(), 0, 8) };
            queue.check(cleared)?;
            Some(block)
        }
    };
    // SAFETY: the words are what the kernel takes, from arrays that were checked to hold all accesses; their memory, and the
    // scratch, are reused in the order of the queue only.
    unsafe { code.launch(&mut queue, shape, &words)? };
    queue.note(code.work());
    if queue.gpu().stepwise {
        queue.settle()?;
    }
    drop(scratch);
    Ok(())
}
