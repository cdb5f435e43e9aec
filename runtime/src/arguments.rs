//! What kernels are called with: words of 8 bytes, and how far a parameter reaches.
//!
//! The words are, in this order: a pointer a parameter, the run-time strides of all parameters, the extents, the scalars. What a
//! back end adds stands before or after them.

use crate::array::Array;
use lazuli_ir::kernel::{Extent, Kernel, Param, Stride};
use lazuli_ir::{Device, Error, Literal, Result};

/// Where the words of a kernel stand, by what they hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    pub(crate) params: usize,
    pub(crate) strides: usize,
    pub(crate) extents: usize,
    pub(crate) scalars: usize,
    /// One past the last.
    pub(crate) total: usize,
}

impl Words {
    /// The words of a kernel, whose first parameter stands at `params`.
    pub(crate) fn of(kernel: &Kernel, params: usize) -> Words {
        let runtime = |s: &&Stride| matches!(s, Stride::Runtime);
        let strides: usize = kernel.params.iter().map(|p| p.strides.iter().filter(runtime).count()).sum();
        let first = params + kernel.params.len();
        Words {
            params,
            strides: first,
            extents: first + strides,
            scalars: first + strides + kernel.extents.len(),
            total: first + strides + kernel.extents.len() + kernel.scalars.len(),
        }
    }

    /// Writes what does not depend on where buffers lie.
    pub(crate) fn fill<'s>(
        &self,
        table: &mut [u64],
        strides: impl IntoIterator<Item = &'s [i64]>,
        extents: &[u64],
        scalars: &[Literal],
    ) {
        for (word, s) in table[self.strides..].iter_mut().zip(strides.into_iter().flatten()) {
            *word = *s as u64;
        }
        table[self.extents..self.scalars].copy_from_slice(extents);
        for (word, s) in table[self.scalars..].iter_mut().zip(scalars) {
            *word = s.in_kernel().bits();
        }
    }
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

/// An array passed for a buffer parameter, with the values of the parameter's run-time strides in order of its dims.
#[derive(Clone, Copy, Debug)]
pub struct LaunchArg<'a> {
    /// The array; the kernel's pointer is its first element.
    pub array: &'a Array,
    /// Run-time strides, in elements.
    pub strides: &'a [i64],
}

/// Checks that a kernel is launched with what it takes, and that every access lies within its array, on this device.
pub(crate) fn check(
    kernel: &Kernel,
    device: Device,
    args: &[LaunchArg<'_>],
    extents: &[u64],
    scalars: &[Literal],
) -> Result<()> {
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
        if arg.array.device() != device {
            return wrong("devices");
        }
        if param.dtype != arg.array.dtype() || !reach(param, arg.strides, extents).is_some_and(inside) {
            return wrong("arrays");
        }
    }
    Ok(())
}
