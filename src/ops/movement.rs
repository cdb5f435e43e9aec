//! Other views of the same elements: shapes, orders of dims, stretched dims.

use crate::Tensor;
use crate::dims::{self, Dims, IntoShape, Sizes};
use lazuli_ir::{Dim, DimVec, Error, ErrorKind, Op, Result, Shape};
use std::ops::{Bound, RangeBounds};

/// The shape that `sizes` means for this many elements: at most one may be `-1`.
pub(crate) fn sized(sizes: &[i64], elements: usize) -> Result<Shape> {
    let error = |message: String| Err(Error::new(ErrorKind::Shape, message));
    let mut inferred = None;
    let mut known = 1usize;
    for (i, &size) in sizes.iter().enumerate() {
        match (size, usize::try_from(size)) {
            (-1, _) if inferred.is_none() => inferred = Some(i),
            (-1, _) => return error("only one extent may be -1".to_owned()),
            (_, Ok(n)) => known = known.saturating_mul(n),
            (_, Err(_)) => return error(format!("extent {size} is negative")),
        }
    }
    let mut extents: DimVec<usize> = sizes.iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    if let Some(i) = inferred {
        if known == 0 {
            return error("-1 is ambiguous: another extent is 0".to_owned());
        }
        if !elements.is_multiple_of(known) {
            return error(format!("{elements} elements cannot be divided into {known} for the extent -1"));
        }
        extents[i] = elements / known;
    }
    Ok(Shape::new(extents))
}

impl Tensor {
    #[track_caller]
    pub(crate) fn shaped(&self, name: &'static str, shape: Result<Shape>) -> Tensor {
        match shape {
            Ok(shape) if shape == *self.extent_shape() => self.clone(),
            Ok(shape) => Tensor::record(name, Op::Reshape(shape), &[self]),
            Err(e) => Tensor::fail(name, &[self], e.kind(), e.message()),
        }
    }

    /// The same elements in row-major order under another shape; one extent may be `-1`. Copies are never your concern.
    ///
    /// # Errors
    /// Carried: another number of elements; more than one `-1`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 6]).reshape([3, -1]).shape(), [3, 4]);
    /// ```
    #[track_caller]
    pub fn reshape(&self, sizes: impl Sizes) -> Tensor {
        self.shaped("reshape", sized(&sizes.sizes(), self.numel()))
    }

    /// [`reshape`](Self::reshape) under PyTorch's other name. It fails where PyTorch's would on a contiguous tensor: where
    /// the numbers of elements differ.
    ///
    /// # Errors
    /// Carried, as for `reshape`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([4]).view([2, 2]).shape(), [2, 2]);
    /// ```
    #[track_caller]
    pub fn view(&self, sizes: impl Sizes) -> Tensor {
        self.shaped("view", sized(&sizes.sizes(), self.numel()))
    }

    /// A run of dims as one: `flatten(..)` all of them, `flatten(1..)` all but the first. A 0-d tensor becomes `[1]`.
    ///
    /// # Errors
    /// Carried: dims out of range or in the wrong order.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3, 4]).flatten(1..).shape(), [2, 12]);
    /// assert_eq!(Tensor::zeros([2, 3, 4]).flatten(0..=1).shape(), [6, 4]);
    /// ```
    #[track_caller]
    pub fn flatten(&self, dims: impl RangeBounds<isize>) -> Tensor {
        let rank = self.rank();
        let first = match dims.start_bound() {
            Bound::Included(d) => dims::axis(*d as i64, rank),
            Bound::Excluded(d) => dims::axis(*d as i64 + 1, rank),
            Bound::Unbounded => Ok(0),
        };
        let last = match dims.end_bound() {
            Bound::Included(d) => dims::axis(*d as i64, rank),
            Bound::Excluded(d) => dims::axis(*d as i64 - 1, rank),
            Bound::Unbounded => Ok(rank.max(1) - 1),
        };
        let shape = first.and_then(|first| {
            let last = last?;
            if first > last {
                return Err(Error::new(ErrorKind::Dim, format!("dim {first} lies after dim {last}")));
            }
            let extents = self.extent_shape().extents();
            let run = extents.iter().skip(first).take(last + 1 - first).product();
            let before = extents.iter().take(first).copied();
            let after = extents.iter().skip(last + 1).copied();
            Ok(Shape::new(before.chain([run]).chain(after)))
        });
        self.shaped("flatten", shape)
    }

    #[track_caller]
    pub(crate) fn permuted(&self, name: &'static str, perm: Result<DimVec<usize>>) -> Tensor {
        match perm {
            Ok(perm) if perm.iter().enumerate().all(|(i, p)| i == *p) && perm.len() == self.rank() => self.clone(),
            Ok(perm) => Tensor::record(name, Op::Permute(perm), &[self]),
            Err(e) => Tensor::fail(name, &[self], e.kind(), e.message()),
        }
    }

    /// The dims in another order: dim `i` of the result is dim `dims[i]`.
    ///
    /// # Errors
    /// Carried: not every dim exactly once.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3, 4]).permute([2, 0, 1]).shape(), [4, 2, 3]);
    /// ```
    #[track_caller]
    pub fn permute(&self, dims: impl Sizes) -> Tensor {
        let perm = dims.sizes().iter().map(|&d| dims::axis(d, self.rank())).collect();
        self.permuted("permute", perm)
    }

    /// Two dims swapped.
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3, 4]).transpose(-1, 0).shape(), [4, 3, 2]);
    /// ```
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        let rank = self.rank();
        let perm = dims::axis(a as i64, rank).and_then(|a| {
            let b = dims::axis(b as i64, rank)?;
            let mut perm: DimVec<usize> = (0..rank).collect();
            if rank > 0 {
                perm.swap(a, b);
            }
            Ok(perm)
        });
        self.permuted("transpose", perm)
    }

    /// A matrix transposed; tensors of fewer dims as they are.
    ///
    /// # Errors
    /// Carried: more than two dims; use [`transpose`](Self::transpose).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).t().shape(), [3, 2]);
    /// ```
    #[track_caller]
    pub fn t(&self) -> Tensor {
        match self.rank() {
            0 | 1 => self.clone(),
            2 => Tensor::record("t", Op::Permute(DimVec::from_slice(&[1, 0])), &[self]),
            n => Tensor::fail("t", &[self], ErrorKind::Dim, format!("takes at most 2 dims, not {n}; use `transpose`")),
        }
    }

    /// Dims of extent 1 removed: those given that have extent 1; `squeeze(..)` removes all of them.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::zeros([1, 3, 1]);
    /// assert_eq!(x.squeeze(..).shape(), [3]);
    /// assert_eq!(x.squeeze(0).shape(), [3, 1]);
    /// ```
    #[track_caller]
    pub fn squeeze(&self, dims: impl Dims) -> Tensor {
        let shape = dims.axes(self.rank()).map(|axes| {
            let kept = self.extent_shape().dims().iter().enumerate();
            Shape::from_dims(kept.filter(|(i, d)| !(d.is_one() && axes.dims.contains(i))).map(|(_, d)| *d))
        });
        self.shaped("squeeze", shape)
    }

    /// A new dim of extent 1 before dim `dim`; `-1` appends one.
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).unsqueeze(0).shape(), [1, 2]);
    /// assert_eq!(Tensor::zeros([2]).unsqueeze(-1).shape(), [2, 1]);
    /// ```
    #[track_caller]
    pub fn unsqueeze(&self, dim: isize) -> Tensor {
        let shape = dims::axis(dim as i64, self.rank() + 1).map(|at| {
            let mut extents = self.extent_shape().extents();
            extents.insert(at, 1);
            Shape::new(extents)
        });
        self.shaped("unsqueeze", shape)
    }

    /// Dims of extent 1 stretched to other extents, without copying; `-1` keeps an extent, and new dims come first.
    ///
    /// # Errors
    /// Carried: a dim whose extent is not 1 and differs.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([3, 1]).expand([2, -1, 4]).shape(), [2, 3, 4]);
    /// ```
    #[track_caller]
    pub fn expand(&self, sizes: impl Sizes) -> Tensor {
        let sizes = sizes.sizes();
        if sizes.len() < self.rank() {
            let message = format!("{} extents for {} dims", sizes.len(), self.rank());
            return Tensor::fail("expand", &[self], ErrorKind::Shape, message);
        }
        let new = sizes.len() - self.rank();
        let mut dims: DimVec<Dim> = DimVec::new();
        for (i, &size) in sizes.iter().enumerate() {
            dims.push(match usize::try_from(size) {
                Ok(n) => Dim::new(n),
                Err(_) if size == -1 && i >= new => self.extent_shape().dim(i - new),
                Err(_) => {
                    let message = format!("extent {size} of dim {i} is not allowed for a new dim");
                    return Tensor::fail("expand", &[self], ErrorKind::Shape, message);
                }
            });
        }
        self.stretched("expand", Shape::from_dims(dims))
    }

    /// Stretched to a shape by the rules of broadcasting, without copying.
    ///
    /// # Errors
    /// Carried: a shape it does not broadcast to.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([3]).broadcast_to([2, 3]).shape(), [2, 3]);
    /// ```
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl IntoShape) -> Tensor {
        self.stretched("broadcast_to", shape.into_shape())
    }

    #[track_caller]
    fn stretched(&self, name: &'static str, shape: Shape) -> Tensor {
        if shape.rank() < self.rank() {
            let message = format!("{} dims cannot be stretched to the {} of {shape}", self.rank(), shape.rank());
            return Tensor::fail(name, &[self], ErrorKind::Shape, message);
        }
        self.stretch(&shape).named(name, &[self])
    }
}
