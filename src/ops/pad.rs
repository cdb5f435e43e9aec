//! Padding: constants around a tensor, or its own elements mirrored, repeated, or from the other side.

use crate::Tensor;
use crate::dims::Sizes;
use crate::ops::join::joined;
use lazuli_ir::{DimVec, Error, ErrorKind, Op, PadDim, Result, Shape};

/// What the padding of [`Tensor::pad`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PadMode {
    /// One value.
    #[default]
    Constant,
    /// The elements mirrored at the first and the last, which are not repeated.
    Reflect,
    /// The first and the last element.
    Replicate,
    /// The elements of the other side.
    Circular,
}

options! {
    /// What [`Tensor::pad`] takes besides the extents.
    Pad {
        /// What the padding holds: a constant by default.
        mode: PadMode = PadMode::Constant,
        /// The constant: 0 by default.
        value: f64 = 0.0,
    }
}

impl Tensor {
    /// Elements added before and after dims, in pairs from the last dim backwards: `[left, right, top, bottom, ..]`. A negative
    /// number takes elements away.
    ///
    /// # Errors
    /// Carried: an odd number of numbers, more pairs than dims; more taken away than there is; a mirrored padding as long as
    /// the dim, or a circular one that is longer.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1, 2, 3]);
    /// assert_eq!(x.pad([1, 2], ()).to_vec::<i64>()?, [0, 1, 2, 3, 0, 0]);
    /// let mirrored = Pad { mode: PadMode::Reflect, ..Default::default() };
    /// assert_eq!(x.pad([2, 1], mirrored).to_vec::<i64>()?, [3, 2, 1, 2, 3, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn pad(&self, sizes: impl Sizes, options: impl Into<Pad>) -> Tensor {
        let Pad { mode, value } = options.into();
        let sizes = ok!("pad", &[self], self.padding(&sizes.sizes()));
        if mode == PadMode::Constant {
            let value = crate::Number::F64(value).literal(self.dtype());
            return self.padded("pad", &sizes, value);
        }
        let mut x = self.clone();
        for (axis, &(low, high)) in sizes.iter().enumerate() {
            ok!("pad", &[self], x.side_fits(axis, low.max(high), mode));
            let (start, end) = ((-low).max(0) as usize, (-high).max(0) as usize);
            let (low, high) = (low.max(0) as usize, high.max(0) as usize);
            // What is taken away goes first from a circle, but last from what mirrors or repeats the whole dim.
            if mode == PadMode::Circular {
                x = x.part(axis, start, x.size(axis as isize) - start - end);
                ok!("pad", &[self], x.side_fits(axis, low.max(high) as i64, mode));
                x = x.padded_by_itself(axis, low, high, mode);
            } else {
                x = x.padded_by_itself(axis, low, high, mode);
                x = x.part(axis, start, x.size(axis as isize) - start - end);
            }
        }
        x.named("pad", &[self])
    }

    /// What is added before and after each dim.
    fn padding(&self, sizes: &[i64]) -> Result<DimVec<(i64, i64)>> {
        let error = |message: String| Err(Error::new(ErrorKind::Shape, message));
        if !sizes.len().is_multiple_of(2) || sizes.len() / 2 > self.rank() {
            return error(format!("{} numbers are not pairs for the last of {} dims", sizes.len(), self.rank()));
        }
        let mut padding: DimVec<(i64, i64)> = (0..self.rank()).map(|_| (0, 0)).collect();
        for (i, pair) in sizes.chunks_exact(2).enumerate() {
            let axis = self.rank() - 1 - i;
            let extent = self.size(axis as isize) as i64;
            let total = extent.checked_add(pair[0]).and_then(|n| n.checked_add(pair[1]));
            if total.is_none_or(|n| n < 0) || pair.iter().any(|p| *p < -extent) {
                return error(format!("padding {pair:?} of dim {axis} of extent {extent} leaves less than nothing"));
            }
            padding[axis] = (pair[0], pair[1]);
        }
        Ok(padding)
    }

    /// A constant before and after each dim; negative numbers take elements away.
    #[track_caller]
    pub(crate) fn padded(&self, name: &'static str, sizes: &[(i64, i64)], value: lazuli_ir::Literal) -> Tensor {
        let mut x = self.clone();
        for (axis, &(low, high)) in sizes.iter().enumerate() {
            let (start, end) = ((-low).max(0) as usize, (-high).max(0) as usize);
            let extent = x.size(axis as isize);
            // What one side takes may be what the other added: then there is nothing left of the elements.
            x = x.part(axis, start.min(extent), extent.saturating_sub(start + end).min(extent));
        }
        let pad =
            |&(low, high): &(i64, i64)| PadDim { low: low.max(0) as usize, high: high.max(0) as usize, interior: 0 };
        if sizes.iter().all(|(low, high)| *low <= 0 && *high <= 0) {
            return x;
        }
        let value = Tensor::splat(value, &Shape::scalar());
        Tensor::record(name, Op::Pad(sizes.iter().map(pad).collect()), &[&x, &value]).named(name, &[self])
    }

    fn side_fits(&self, axis: usize, longest: i64, mode: PadMode) -> Result<()> {
        let extent = self.size(axis as isize) as i64;
        let fits = match mode {
            PadMode::Constant => true,
            PadMode::Reflect => longest < extent.max(1),
            PadMode::Replicate => extent > 0 || longest <= 0,
            PadMode::Circular => longest <= extent,
        };
        if fits {
            return Ok(());
        }
        let message = format!("{mode:?} padding of {longest} elements is too long for dim {axis} of extent {extent}");
        Err(Error::new(ErrorKind::Shape, message))
    }

    /// Elements of a dim before and after it.
    #[track_caller]
    fn padded_by_itself(&self, axis: usize, low: usize, high: usize, mode: PadMode) -> Tensor {
        let n = self.size(axis as isize);
        let mut parts: Vec<Tensor> = Vec::with_capacity(3);
        if low > 0 {
            parts.push(match mode {
                PadMode::Reflect => self.part(axis, 1, low).flip(axis),
                PadMode::Replicate => self.repeated_line(axis, 0, low),
                PadMode::Circular | PadMode::Constant => self.part(axis, n - low, low),
            });
        }
        parts.push(self.clone());
        if high > 0 {
            parts.push(match mode {
                PadMode::Reflect => self.part(axis, n - 1 - high, high).flip(axis),
                PadMode::Replicate => self.repeated_line(axis, n - 1, high),
                PadMode::Circular | PadMode::Constant => self.part(axis, 0, high),
            });
        }
        joined("pad", &parts.iter().collect::<Vec<_>>(), axis, self.dtype())
    }

    /// One index of a dim, several times.
    #[track_caller]
    fn repeated_line(&self, axis: usize, index: usize, times: usize) -> Tensor {
        let mut extents = self.extent_shape().extents();
        extents[axis] = times;
        self.part(axis, index, 1).stretch(&Shape::new(extents))
    }
}
