//! Order along a dim: sorting, the largest few, the median, and what accumulates from one element to the next.

use crate::Tensor;
use crate::dims::{self, Dims};
use crate::ops::selection::where_;
use crate::promotion::wide;
use lazuli_ir::{CumulativeOp, DType, Error, ErrorKind, Op, ReduceOp, Shape, SliceDim};

options! {
    /// What [`Tensor::sort`] and [`Tensor::argsort`] take. Sorting is always stable.
    Sort {
        /// The dim: the last by default.
        dim: isize = -1,
        /// Largest first.
        descending: bool = false,
    }

    /// What [`Tensor::topk`] takes besides the number.
    TopK {
        /// The dim: the last by default.
        dim: isize = -1,
        /// The largest, or else the smallest elements.
        largest: bool = true,
    }
}

impl Tensor {
    /// The indices that sort a dim of a tensor of at least one dim.
    #[track_caller]
    fn sorting(&self, name: &'static str, axis: usize, descending: bool) -> Tensor {
        Tensor::record(name, Op::Sort { dim: axis, descending }, &[&self.detach()])
    }

    /// The elements of each line along a dim in order, and where they were, as `i64`. Equal elements keep their order; NaN is the
    /// largest. The gradient goes to where elements were.
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (values, indices) = lazuli::tensor([3, 1, 2]).sort(());
    /// assert_eq!(values.to_vec::<i64>()?, [1, 2, 3]);
    /// assert_eq!(indices.to_vec::<i64>()?, [1, 2, 0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn sort(&self, options: impl Into<Sort>) -> (Tensor, Tensor) {
        let Sort { dim, descending } = options.into();
        let axis = match dims::axis(dim as i64, self.rank()) {
            Ok(axis) => axis,
            Err(e) => {
                let failed = Tensor::fail("sort", &[self], e.kind(), e.message());
                return (failed.clone(), failed);
            }
        };
        if self.rank() == 0 {
            return (self.clone(), Tensor::splat(lazuli_ir::Literal::I64(0), &Shape::scalar()));
        }
        let index = self.sorting("sort", axis, descending);
        (self.picked("sort", axis, &index), index)
    }

    /// Where the elements of each line along a dim are in order, as `i64`; see [`sort`](Self::sort).
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let options = Sort { descending: true, ..Default::default() };
    /// assert_eq!(lazuli::tensor([3, 1, 2]).argsort(options).to_vec::<i64>()?, [0, 2, 1]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn argsort(&self, options: impl Into<Sort>) -> Tensor {
        self.sort(options).1.named("argsort", &[self])
    }

    /// The largest (or smallest) `k` elements of each line along a dim, in order, and where they were; NaN is the largest.
    ///
    /// # Errors
    /// Carried: a dim out of range; more elements than the dim has.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (values, indices) = lazuli::tensor([3, 1, 2]).topk(2, ());
    /// assert_eq!(values.to_vec::<i64>()?, [3, 2]);
    /// assert_eq!(indices.to_vec::<i64>()?, [0, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn topk(&self, k: usize, options: impl Into<TopK>) -> (Tensor, Tensor) {
        let TopK { dim, largest } = options.into();
        let fits = dims::axis(dim as i64, self.rank()).and_then(|axis| {
            let extent = self.size(axis as isize);
            let message = format!("{k} elements of dim {axis} of extent {extent}");
            if k <= extent { Ok(axis) } else { Err(Error::new(ErrorKind::Value, message)) }
        });
        let axis = match fits {
            Ok(axis) => axis,
            Err(e) => {
                let failed = Tensor::fail("topk", &[self], e.kind(), e.message());
                return (failed.clone(), failed);
            }
        };
        if self.rank() == 0 {
            return (self.clone(), Tensor::splat(lazuli_ir::Literal::I64(0), &Shape::scalar()));
        }
        let index = self.sorting("topk", axis, largest).stepped(axis, SliceDim { start: 0, stop: k, step: 1 });
        (self.picked("topk", axis, &index), index)
    }

    /// The median over dims (of an even number of elements the lower one of the middle), and where it is: its row-major position
    /// within the dims. A NaN is the median of all it is among.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (median, index) = lazuli::tensor([[5, 1, 3], [4, 9, 8]]).median(-1);
    /// assert_eq!(median.to_vec::<i64>()?, [3, 8]);
    /// assert_eq!(index.to_vec::<i64>()?, [2, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn median(&self, dims: impl Dims) -> (Tensor, Tensor) {
        let axes = match dims.axes(self.rank()) {
            Ok(axes) => axes,
            Err(e) => {
                let failed = Tensor::fail("median", &[self], e.kind(), e.message());
                return (failed.clone(), failed);
            }
        };
        // The dims in one line at the end.
        let kept: Vec<usize> = (0..self.rank()).filter(|d| !axes.dims.contains(d)).collect();
        let order = kept.iter().chain(&axes.dims).copied().collect();
        let extents = self.extent_shape().extents();
        let n: usize = axes.dims.iter().map(|&d| extents[d]).product();
        if n == 0 {
            let failed = Tensor::fail("median", &[self], ErrorKind::Shape, "the median of nothing is not defined");
            return (failed.clone(), failed);
        }
        let lines = Shape::new(kept.iter().map(|&d| extents[d]).chain([n]));
        let x = self.permuted("median", Ok(order)).shaped("median", Ok(lines));
        let axis = kept.len();
        let middle = SliceDim { start: (n - 1) / 2, stop: (n - 1) / 2 + 1, step: 1 };
        let mut index = x.sorting("median", axis, false).stepped(axis, middle);
        if self.dtype().is_float() {
            let line = crate::Axes { dims: smallvec::smallvec![axis], keep: true };
            let undefined = x.isnan().reduce("median", ReduceOp::Max, &line);
            index = where_(undefined, x.detach().reduce("median", ReduceOp::ArgMax, &line), index);
        }
        let shape = |d: usize| match (axes.dims.contains(&d), axes.keep) {
            (false, _) => Some(extents[d]),
            (true, true) => Some(1),
            (true, false) => None,
        };
        let shape = Shape::new((0..self.rank()).filter_map(shape));
        let values = x.picked("median", axis, &index).shaped("median", Ok(shape.clone()));
        (values.named("median", &[self]), index.shaped("median", Ok(shape)).named("median", &[self]))
    }

    /// An accumulation along a dim, in the dtype that sums of this tensor have.
    #[track_caller]
    fn accumulated(&self, name: &'static str, dim: isize, op: CumulativeOp) -> Tensor {
        let axis = ok!(name, &[self], dims::axis(dim as i64, self.rank()));
        let dtype = if self.dtype().is_float() { self.dtype() } else { DType::I64 };
        let x = self.cast(name, wide(dtype));
        if self.rank() == 0 {
            return x.cast(name, dtype);
        }
        Tensor::record(name, Op::Cumulative { op, dim: axis, reverse: false }, &[&x]).cast(name, dtype)
    }

    /// The sums of the elements up to each one along a dim. Integers and booleans sum to `i64` (wrapping).
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2, 3]).cumsum(0).to_vec::<i64>()?, [1, 3, 6]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cumsum(&self, dim: isize) -> Tensor {
        self.accumulated("cumsum", dim, CumulativeOp::Sum)
    }

    /// The products of the elements up to each one along a dim. Integers and booleans multiply to `i64` (wrapping).
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2, 3]).cumprod(0).to_vec::<i64>()?, [1, 2, 6]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cumprod(&self, dim: isize) -> Tensor {
        self.accumulated("cumprod", dim, CumulativeOp::Prod)
    }

    /// The largest of the elements up to each one along a dim, and where it is: the last of several. NaN is the largest. The
    /// gradient goes to where it is.
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (values, indices) = lazuli::tensor([1, 3, 2, 3]).cummax(0);
    /// assert_eq!(values.to_vec::<i64>()?, [1, 3, 3, 3]);
    /// assert_eq!(indices.to_vec::<i64>()?, [0, 1, 1, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cummax(&self, dim: isize) -> (Tensor, Tensor) {
        self.extreme_so_far("cummax", dim, CumulativeOp::Max)
    }

    /// The smallest of the elements up to each one along a dim, and where it is: the last of several. NaN is the smallest. The
    /// gradient goes to where it is.
    ///
    /// # Errors
    /// Carried: a dim out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([2, 3, 1]).cummin(0).0.to_vec::<i64>()?, [2, 2, 1]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cummin(&self, dim: isize) -> (Tensor, Tensor) {
        self.extreme_so_far("cummin", dim, CumulativeOp::Min)
    }

    #[track_caller]
    fn extreme_so_far(&self, name: &'static str, dim: isize, op: CumulativeOp) -> (Tensor, Tensor) {
        let axis = match dims::axis(dim as i64, self.rank()) {
            Ok(axis) => axis,
            Err(e) => {
                let failed = Tensor::fail(name, &[self], e.kind(), e.message());
                return (failed.clone(), failed);
            }
        };
        if self.rank() == 0 || self.numel() == 0 {
            return (self.clone(), Tensor::splat(lazuli_ir::Literal::I64(0), self.extent_shape()));
        }
        let x = self.detach();
        let extremes = Tensor::record(name, Op::Cumulative { op, dim: axis, reverse: false }, &[&x]);
        // An element that is the extreme so far is where it was reached last.
        let reached = x.eq(&extremes).logical_or(x.isnan());
        let place = Tensor::record(name, Op::Iota { dim: axis, shape: self.extent_shape().clone() }, &[]);
        let place = where_(reached, place, 0);
        let last = Op::Cumulative { op: CumulativeOp::Max, dim: axis, reverse: false };
        let index = Tensor::record(name, last, &[&place]);
        (self.picked(name, axis, &index), index)
    }
}
