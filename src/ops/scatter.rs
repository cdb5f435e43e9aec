//! Elements put where an index says: the counterparts of what gathers, as new tensors.

use crate::Tensor;
use crate::dims;
use crate::operand::{Argument, Number, Operand};
use crate::ops::selection::{scaled, where_};
use crate::promotion::{shape_of, tensors, wide};
use lazuli_ir::{DType, DimVec, Error, ErrorKind, Literal, Op, PadDim, Result, ScatterOp, Shape, SliceDim};

/// How [`Tensor::scatter_reduce`] combines elements with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScatterReduction {
    /// Their sum.
    Sum,
    /// Their product.
    Prod,
    /// The largest.
    Amax,
    /// The smallest.
    Amin,
}

options! {
    /// What [`Tensor::scatter`] takes besides its operands.
    Scatter {
        /// How elements are combined with what is there; without one they replace it.
        reduce: Option<ScatterReduction> = None,
    }

    /// What [`Tensor::index_add`] takes besides its operands.
    IndexAdd {
        /// A factor for what is added, 1 by default.
        alpha: Number = Number::I64(1),
    }

    /// What [`Tensor::slice_scatter`] takes besides its operands.
    SliceScatter {
        /// The dim: 0 by default.
        dim: isize = 0,
        /// The first index, as Python's slices take it.
        start: Option<i64> = None,
        /// The end, exclusive, as Python's slices take it.
        end: Option<i64> = None,
        /// The distance of indices: 1 by default.
        step: usize = 1,
    }
}

impl ScatterReduction {
    fn op(self, dtype: DType) -> ScatterOp {
        match (self, dtype) {
            (ScatterReduction::Sum, DType::Bool) | (ScatterReduction::Amax, _) => ScatterOp::Max,
            (ScatterReduction::Prod, DType::Bool) | (ScatterReduction::Amin, _) => ScatterOp::Min,
            (ScatterReduction::Sum, _) => ScatterOp::Add,
            (ScatterReduction::Prod, _) => ScatterOp::Mul,
        }
    }
}

/// The sum of a dtype, which for booleans is `or`.
fn sum(dtype: DType) -> ScatterOp {
    ScatterReduction::Sum.op(dtype)
}

impl Tensor {
    /// A scatter by a checked index; what it sums up in halves is kept in `f32` until the end.
    #[track_caller]
    pub(crate) fn placed(
        &self,
        name: &'static str,
        axis: usize,
        op: ScatterOp,
        index: &Tensor,
        updates: &Tensor,
    ) -> Tensor {
        if index.numel() == 0 {
            return self.clone();
        }
        let compute = if op == ScatterOp::Set { self.dtype() } else { wide(self.dtype()) };
        let (x, updates) = (self.cast(name, compute), updates.cast(name, compute));
        Tensor::record(name, Op::Scatter { dim: axis, op }, &[&x, index, &updates]).cast(name, self.dtype())
    }

    /// A region of the tensor replaced by another tensor of the region's shape.
    #[track_caller]
    pub(crate) fn with_region(&self, name: &'static str, region: &[SliceDim], update: &Tensor) -> Tensor {
        let whole = region.iter().zip(self.extent_shape().extents()).all(|(s, n)| s.extent() == n);
        if whole {
            return update.clone();
        }
        if update.numel() == 0 {
            return self.clone();
        }
        let pad = |(s, n): (&SliceDim, usize)| {
            let taken = (s.extent() - 1) * s.step + 1;
            PadDim { low: s.start, high: n - s.start - taken, interior: s.step - 1 }
        };
        let padding: DimVec<PadDim> = region.iter().zip(self.extent_shape().extents()).map(pad).collect();
        let scalar = Shape::scalar();
        let outside = Tensor::splat(Literal::zero(self.dtype()), &scalar);
        let spread = Tensor::record(name, Op::Pad(padding.clone()), &[update, &outside]);
        let (inside, outside) = (Literal::Bool(true), Tensor::splat(Literal::Bool(false), &scalar));
        let region = Tensor::record(name, Op::Pad(padding), &[&Tensor::splat(inside, update.extent_shape()), &outside]);
        where_(region, spread, self)
    }

    /// The tensor with elements of `src` at the places an index says: `y[i][index[i][j][k]][k] = src[i][j][k]` for `dim` 1. Where
    /// places meet, the last one stays; or elements are combined, where `reduce` says how. The index may be smaller than both.
    ///
    /// # Errors
    /// Carried: dims or dtypes that do not fit; an index not of integers. At run time: an index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::zeros([2, 2]).scatter(1, &lazuli::tensor([[1], [0]]), 5.0, ());
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 5.0, 5.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn scatter(&self, dim: isize, index: &Tensor, src: impl Operand, options: impl Into<Scatter>) -> Tensor {
        let op = options.into().reduce.map_or(ScatterOp::Set, |r| r.op(self.dtype()));
        self.scattered("scatter", dim, index, src.argument(), op)
    }

    /// The tensor with elements of `src` added at the places an index says; of booleans, `or`.
    ///
    /// # Errors
    /// Carried, as for [`scatter`](Self::scatter).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::zeros([2]).scatter_add(0, &lazuli::tensor([1, 1]), lazuli::tensor([2.0, 3.0]));
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 5.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn scatter_add(&self, dim: isize, index: &Tensor, src: impl Operand) -> Tensor {
        self.scattered("scatter_add", dim, index, src.argument(), sum(self.dtype()))
    }

    /// The tensor with elements of `src` combined with what is there, at the places an index says.
    ///
    /// # Errors
    /// Carried, as for [`scatter`](Self::scatter).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let index = lazuli::tensor([1, 1]);
    /// let x = Tensor::ones([2]).scatter_reduce(0, &index, lazuli::tensor([2.0, 3.0]), ScatterReduction::Amax);
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn scatter_reduce(&self, dim: isize, index: &Tensor, src: impl Operand, reduce: ScatterReduction) -> Tensor {
        self.scattered("scatter_reduce", dim, index, src.argument(), reduce.op(self.dtype()))
    }

    #[track_caller]
    fn scattered(&self, name: &'static str, dim: isize, index: &Tensor, src: Argument<'_>, op: ScatterOp) -> Tensor {
        let given = tensors(&[Argument::Tensor(self), Argument::Tensor(index), src]);
        let axis = ok!(name, &given, dims::axis(dim as i64, self.rank()));
        if index.numel() == 0 {
            return self.clone();
        }
        let (x, positions) = (self.at_least_1d(), index.at_least_1d());
        let src = match src {
            Argument::Number(_) => Tensor::fit(src, self.dtype(), positions.extent_shape()),
            Argument::Tensor(src) => src.at_least_1d(),
        };
        ok!(name, &given, x.takes(&positions, &src, axis));
        let mut updates = src;
        let mut region: DimVec<SliceDim> = DimVec::new();
        for d in 0..x.rank() {
            let n = positions.size(d as isize);
            updates = updates.part(d, 0, n);
            let stop = if d == axis { x.size(d as isize) } else { n };
            region.push(SliceDim { start: 0, stop, step: 1 });
        }
        let mut part = x.clone();
        for (d, s) in region.iter().enumerate() {
            part = part.stepped(d, *s);
        }
        let positions = positions.checked_index(name, x.size(axis as isize), false);
        let part = part.placed(name, axis, op, &positions, &updates);
        let y = x.with_region(name, &region, &part);
        if self.rank() == 0 { y.reshape(()).named(name, &given) } else { y.named(name, &given) }
    }

    /// Whether an index and what it places fit the tensor.
    fn takes(&self, index: &Tensor, src: &Tensor, axis: usize) -> Result<()> {
        if src.dtype() != self.dtype() {
            let message =
                format!("elements of {} for a tensor of {}; convert one with `to`", src.dtype(), self.dtype());
            return Err(Error::new(ErrorKind::DType, message));
        }
        let rank = self.rank();
        let within = |t: &Tensor, d: usize| index.size(d as isize) <= t.size(d as isize);
        let fits = index.rank() == rank
            && src.rank() == rank
            && (0..rank).all(|d| within(src, d) && (d == axis || within(self, d)));
        if fits {
            return Ok(());
        }
        let (x, index, src) = (self.extent_shape(), index.extent_shape(), src.extent_shape());
        Err(Error::new(ErrorKind::Shape, format!("an index {index} does not fit into {src}, or in dim {axis} of {x}")))
    }

    /// Whole indices of a dim, by a vector of indices, combined with those of a source.
    #[track_caller]
    fn indexed_lines(&self, name: &'static str, dim: isize, index: &Tensor, source: &Tensor, op: ScatterOp) -> Tensor {
        let given = [self, index, source];
        let axis = ok!(name, &given, dims::axis(dim as i64, self.rank()));
        let (x, index) = (self.at_least_1d(), index.at_least_1d());
        let source = if source.rank() == 0 { source.with_dim(0) } else { source.clone() };
        let mut extents = x.extent_shape().extents();
        extents[axis] = index.numel();
        if index.rank() != 1 || *source.extent_shape() != Shape::new(extents) || source.dtype() != x.dtype() {
            let message = format!("{} indices of dim {axis} take {}", index.numel(), source.node.ty);
            return Tensor::fail(name, &given, ErrorKind::Shape, message);
        }
        let checked = index.checked_index(name, x.size(axis as isize), false);
        let spread = checked.along(axis, x.rank()).stretch(source.extent_shape());
        let y = x.placed(name, axis, op, &spread, &source);
        if self.rank() == 0 { y.reshape(()).named(name, &given) } else { y.named(name, &given) }
    }

    /// The tensor with `alpha * source` added to indices of a dim, by a vector of indices; of booleans, `or`.
    ///
    /// # Errors
    /// Carried: a source that does not have the tensor's shape with one index for each; dtypes that differ. At run time: an
    /// index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::ones([3]).index_add(0, &lazuli::tensor([2, 2]), &lazuli::tensor([1.0, 2.0]), ());
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 1.0, 4.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn index_add(&self, dim: isize, index: &Tensor, source: &Tensor, options: impl Into<IndexAdd>) -> Tensor {
        let IndexAdd { alpha } = options.into();
        let source = scaled_logically(source, alpha);
        self.indexed_lines("index_add", dim, index, &source, sum(self.dtype()))
    }

    /// The tensor with indices of a dim replaced by those of a source, by a vector of indices; of equal ones the last stays.
    ///
    /// # Errors
    /// Carried, as for [`index_add`](Self::index_add).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::zeros([3]).index_copy(0, &lazuli::tensor([2, 0]), &lazuli::tensor([1.0, 2.0]));
    /// assert_eq!(x.to_vec::<f32>()?, [2.0, 0.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn index_copy(&self, dim: isize, index: &Tensor, source: &Tensor) -> Tensor {
        self.indexed_lines("index_copy", dim, index, source, ScatterOp::Set)
    }

    /// The tensor with indices of a dim filled with a value, by a vector of indices; negative ones count from the end.
    ///
    /// # Errors
    /// Carried: a value with dims. At run time: an index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([3]).index_fill(0, &lazuli::tensor([-1]), 7.0).to_vec::<f32>()?, [0.0, 0.0, 7.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn index_fill(&self, dim: isize, index: &Tensor, value: impl Operand) -> Tensor {
        let value = value.argument();
        let given = tensors(&[Argument::Tensor(self), Argument::Tensor(index), value]);
        let axis = ok!("index_fill", &given, dims::axis(dim as i64, self.rank()));
        if shape_of(value).rank() > 0 || index.rank() > 1 {
            let message = "takes a vector of indices, and a number or a 0-d tensor as value";
            return Tensor::fail("index_fill", &given, ErrorKind::Shape, message);
        }
        let (x, index) = (self.at_least_1d(), index.at_least_1d());
        let extent = x.size(axis as isize);
        let checked = index.checked_index("index_fill", extent, true);
        // Which indices are filled: the value counts once for each, however often it is named.
        let none = Tensor::splat(Literal::Bool(false), &Shape::new([extent]));
        let named = Tensor::splat(Literal::Bool(true), checked.extent_shape());
        let filled = none.placed("index_fill", 0, ScatterOp::Set, &checked, &named).along(axis, x.rank());
        let value = Tensor::fit(value, x.dtype(), &Shape::scalar());
        let y = where_(filled, value, x);
        if self.rank() == 0 { y.reshape(()).named("index_fill", &given) } else { y.named("index_fill", &given) }
    }

    /// The tensor with one index of a dim replaced.
    ///
    /// # Errors
    /// Carried: a dim or index out of range; a source of another shape or dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::zeros([2, 2]).select_scatter(&lazuli::tensor([1.0, 2.0]), 1, -1);
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 1.0, 0.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn select_scatter(&self, src: &Tensor, dim: isize, index: isize) -> Tensor {
        let given = [self, src];
        let part = self.select(dim, index);
        if let Err(e) = part.check() {
            return Tensor::fail("select_scatter", &given, e.kind(), e.message());
        }
        if part.node.ty != src.node.ty {
            let message = format!("{} cannot replace {}", src.node.ty, part.node.ty);
            return Tensor::fail("select_scatter", &given, ErrorKind::Shape, message);
        }
        let axis = ok!("select_scatter", &given, dims::axis(dim as i64, self.rank()));
        let start = if index < 0 { index + self.size(axis as isize) as isize } else { index } as usize;
        let mut region = self.whole();
        region[axis] = SliceDim { start, stop: start + 1, step: 1 };
        self.with_region("select_scatter", &region, &src.with_dim(axis)).named("select_scatter", &given)
    }

    /// The tensor with a range of a dim replaced.
    ///
    /// # Errors
    /// Carried: a dim out of range; a step of 0; a source of another shape or dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let options = SliceScatter { start: Some(1), step: 2, ..Default::default() };
    /// let x = Tensor::zeros([4]).slice_scatter(&lazuli::tensor([1.0, 2.0]), options);
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 1.0, 0.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn slice_scatter(&self, src: &Tensor, options: impl Into<SliceScatter>) -> Tensor {
        let SliceScatter { dim, start, end, step } = options.into();
        let given = [self, src];
        let axis = ok!("slice_scatter", &given, dims::axis(dim as i64, self.rank()));
        let extent = self.size(axis as isize);
        let range = super::index::ranged(start, end, step as i64, axis, extent);
        let range = ok!("slice_scatter", &given, range);
        let mut region = self.whole();
        let mut extents = self.extent_shape().extents();
        if self.rank() == 0 {
            return Tensor::fail("slice_scatter", &given, ErrorKind::Dim, "a 0-d tensor has no ranges");
        }
        region[axis] = range;
        extents[axis] = range.extent();
        if *src.extent_shape() != Shape::new(extents) || src.dtype() != self.dtype() {
            let message = format!("{} cannot replace {} indices of dim {axis}", src.node.ty, range.extent());
            return Tensor::fail("slice_scatter", &given, ErrorKind::Shape, message);
        }
        self.with_region("slice_scatter", &region, src).named("slice_scatter", &given)
    }

    /// The range of every dim that is all of it.
    fn whole(&self) -> DimVec<SliceDim> {
        self.extent_shape().extents().iter().map(|&n| SliceDim { start: 0, stop: n, step: 1 }).collect()
    }
}

/// `x * factor`; of booleans, whether both hold.
#[track_caller]
fn scaled_logically(x: &Tensor, factor: Number) -> Tensor {
    if x.dtype() == DType::Bool {
        return x.logical_and(Tensor::fit(Argument::Number(factor), DType::Bool, &Shape::scalar()));
    }
    scaled(x, factor)
}
