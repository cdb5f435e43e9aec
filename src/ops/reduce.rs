//! Reductions over dims.

use crate::Tensor;
use crate::dims::{Axes, Dims};
use crate::operand::{Argument, Number};
use crate::ops::arithmetic::div;
use crate::ops::selection::where_;
use crate::promotion::{float_type, wide};
use lazuli_ir::{DType, Dim, DimVec, ErrorKind, Op, ReduceOp, Shape};

impl Tensor {
    /// Records a reduction, and puts kept dims back. Sums and products of halves are accumulated in `f32` and rounded at the end.
    #[track_caller]
    pub(crate) fn reduce(&self, name: &'static str, op: ReduceOp, axes: &Axes) -> Tensor {
        let reduced = if axes.dims.is_empty() && !op.is_position() {
            self.clone()
        } else {
            let x = if op.rounds() { self.cast(name, wide(self.dtype())) } else { self.clone() };
            let y = Tensor::record(name, Op::Reduce { op, dims: axes.dims.clone(), acc: x.dtype() }, &[&x]);
            if op.rounds() { y.cast(name, self.dtype()) } else { y }
        };
        if axes.keep { reduced.put_back(self.extent_shape(), &axes.dims) } else { reduced }
    }

    /// The number of elements that are reduced to one.
    pub(crate) fn count(&self, axes: &Axes) -> f64 {
        axes.dims.iter().map(|&d| self.extent_shape().extents()[d] as f64).product()
    }

    /// A reduction's result with the reduced dims of `shape` put back, with extent 1.
    #[track_caller]
    fn put_back(&self, shape: &Shape, dims: &[usize]) -> Tensor {
        let kept = (0..shape.rank()).map(|d| if dims.contains(&d) { Dim::new(1) } else { shape.dim(d) });
        let places: DimVec<usize> = (0..shape.rank()).filter(|d| !dims.contains(d)).collect();
        Tensor::record("keep", Op::Broadcast { shape: Shape::from_dims(kept), dims: places }, &[self])
    }

    /// The sum over dims; 0 of nothing. Integers and booleans sum to `i64` (wrapping).
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1, 2], [3, 4]]);
    /// assert_eq!(x.sum(0).to_vec::<i64>()?, [4, 6]);
    /// assert_eq!(x.sum(..).item::<i64>()?, 10);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn sum(&self, dims: impl Dims) -> Tensor {
        match dims.axes(self.rank()) {
            Ok(axes) => {
                let x = if self.dtype().is_float() { self.clone() } else { self.cast("sum", DType::I64) };
                x.reduce("sum", ReduceOp::Sum, &axes)
            }
            Err(e) => Tensor::fail("sum", &[self], e.kind(), e.message()),
        }
    }

    /// The mean over dims: the sum divided by the number of elements, NaN of nothing.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; a tensor of integers or booleans, which need `to(DType::F32)` first, as
    /// in PyTorch.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// assert_eq!(x.mean(keep(-1)).to_vec::<f32>()?, [1.5, 3.5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn mean(&self, dims: impl Dims) -> Tensor {
        if !self.dtype().is_float() {
            let message = format!("the mean of {} is not defined; convert with `to(DType::F32)` first", self.dtype());
            return Tensor::fail("mean", &[self], ErrorKind::DType, message);
        }
        let axes = ok!("mean", &[self], dims.axes(self.rank()));
        let sum = self.cast("mean", wide(self.dtype())).reduce("mean", ReduceOp::Sum, &axes);
        div(Argument::Tensor(&sum), Argument::Number(Number::F64(self.count(&axes)))).rounded(
            "mean",
            self.dtype(),
            &[self],
        )
    }

    /// The largest element over dims; NaN wins. Over one dim the gradient goes to
    /// the first of several, over more it is shared, as in PyTorch. [`argmax`](Self::argmax) says where the element is.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim, of which there is no largest element.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 5.0], [3.0, 4.0]]);
    /// assert_eq!(x.max(-1).to_vec::<f32>()?, [5.0, 4.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn max(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("max", &[self], dims.axes(self.rank()));
        let op = if axes.dims.len() > 1 { ReduceOp::Amax } else { ReduceOp::Max };
        self.reduce("max", op, &axes)
    }

    /// The smallest element over dims; NaN wins. Over one dim the gradient goes to
    /// the first of several, over more it is shared, as in PyTorch. [`argmin`](Self::argmin) says where the element is.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim, of which there is no smallest element.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 5.0], [3.0, 4.0]]);
    /// assert_eq!(x.min(-1).to_vec::<f32>()?, [1.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn min(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("min", &[self], dims.axes(self.rank()));
        let op = if axes.dims.len() > 1 { ReduceOp::Amin } else { ReduceOp::Min };
        self.reduce("min", op, &axes)
    }

    /// The largest element over dims; NaN wins. The gradient is shared by all
    /// largest elements.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim, of which there is no largest element.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 5.0], [3.0, 4.0]]);
    /// assert_eq!(x.amax(-1).to_vec::<f32>()?, [5.0, 4.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn amax(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("amax", &[self], dims.axes(self.rank()));
        self.reduce("amax", ReduceOp::Amax, &axes)
    }

    /// The smallest element over dims; NaN wins. The gradient is shared by all
    /// smallest elements.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim, of which there is no smallest element.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 5.0], [3.0, 4.0]]);
    /// assert_eq!(x.amin(-1).to_vec::<f32>()?, [1.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn amin(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("amin", &[self], dims.axes(self.rank()));
        self.reduce("amin", ReduceOp::Amin, &axes)
    }

    /// The smallest and the largest element over dims; NaN wins. Equal elements share the gradient.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (min, max) = lazuli::tensor([3, 1, 2]).aminmax(..);
    /// assert_eq!((min.item::<i64>()?, max.item::<i64>()?), (1, 3));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn aminmax(&self, dims: impl Dims) -> (Tensor, Tensor) {
        (self.amin(&dims).named("aminmax", &[self]), self.amax(&dims).named("aminmax", &[self]))
    }

    /// Where the largest element over dims is, as `i64`: the first of several, or the first NaN. Over several dims it is the
    /// row-major position within them.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 5.0], [3.0, 2.0]]);
    /// assert_eq!(x.argmax(-1).to_vec::<i64>()?, [1, 0]);
    /// assert_eq!(x.argmax(..).item::<i64>()?, 1);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn argmax(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("argmax", &[self], dims.axes(self.rank()));
        self.reduce("argmax", ReduceOp::ArgMax, &axes)
    }

    /// Where the smallest element over dims is, as `i64`: the first of several, or the first NaN. Over several dims it is the
    /// row-major position within them.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; an empty dim.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 5.0], [3.0, 2.0]]);
    /// assert_eq!(x.argmin(-1).to_vec::<i64>()?, [0, 1]);
    /// assert_eq!(x.argmin(..).item::<i64>()?, 0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn argmin(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("argmin", &[self], dims.axes(self.rank()));
        self.reduce("argmin", ReduceOp::ArgMin, &axes)
    }

    /// The product over dims; 1 of nothing. Integers and booleans multiply to `i64` (wrapping).
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[1, 2], [3, 4]]).prod(-1).to_vec::<i64>()?, [2, 12]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn prod(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("prod", &[self], dims.axes(self.rank()));
        let x = if self.dtype().is_float() { self.clone() } else { self.cast("prod", DType::I64) };
        x.reduce("prod", ReduceOp::Prod, &axes)
    }

    /// Whether an element over dims is nonzero (NaN is), as `bool` (of `u8` as `u8`, as in PyTorch); false of nothing.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[0, 0], [0, 2]]).any(-1).to_vec::<bool>()?, [false, true]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn any(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("any", &[self], dims.axes(self.rank()));
        self.cast("any", DType::Bool).some("any", &axes).rounded("any", truth_type(self.dtype()), &[self])
    }

    /// Whether all elements over dims are nonzero (NaN is), as `bool` (of `u8` as `u8`, as in PyTorch); true of nothing.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[1, 0], [3, 2]]).all(-1).to_vec::<bool>()?, [false, true]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn all(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("all", &[self], dims.axes(self.rank()));
        self.eq(0).some("all", &axes).logical_not().rounded("all", truth_type(self.dtype()), &[self])
    }

    /// Whether one of the booleans holds; the largest of nothing is not defined, but `any` is.
    #[track_caller]
    fn some(&self, name: &'static str, axes: &Axes) -> Tensor {
        if self.count(axes) == 0.0 {
            return self.cast(name, DType::I64).reduce(name, ReduceOp::Sum, axes).cast(name, DType::Bool);
        }
        self.reduce(name, ReduceOp::Max, axes)
    }

    /// The number of nonzero elements over dims (NaN counts), as `i64`.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[0.0, 1.0], [2.0, 3.0]]).count_nonzero(-1).to_vec::<i64>()?, [1, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn count_nonzero(&self, dims: impl Dims) -> Tensor {
        self.cast("count_nonzero", DType::Bool).sum(dims).named("count_nonzero", &[self])
    }

    /// The sum over dims, with NaN taken as 0. Integers and booleans sum to `i64`.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, f64::NAN]).nansum(..).item::<f32>()?, 1.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn nansum(&self, dims: impl Dims) -> Tensor {
        if !self.dtype().is_float() {
            return self.sum(dims).named("nansum", &[self]);
        }
        where_(self.isnan(), 0.0, self).sum(dims).named("nansum", &[self])
    }

    /// `log(sum(exp(x)))` over dims, without overflow: the largest element is taken out of the sum, and counts as a constant to
    /// gradients. Integers and booleans are taken as floats; nothing gives -infinity.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1000.0, 1000.0]).logsumexp(..).item::<f32>()?, 1000.6932);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn logsumexp(&self, dims: impl Dims) -> Tensor {
        let axes = ok!("logsumexp", &[self], dims.axes(self.rank()));
        let (x, dtype) = (self.as_float("logsumexp"), float_type(self.dtype()));
        if self.count(&axes) == 0.0 {
            return x.exp().reduce("logsumexp", ReduceOp::Sum, &axes).log().rounded("logsumexp", dtype, &[self]);
        }
        let kept = Axes { keep: true, ..axes.clone() };
        let largest = x.detach().reduce("logsumexp", ReduceOp::Max, &kept);
        // Infinities would meet as a difference.
        let largest = where_(largest.abs().eq(f64::INFINITY), 0.0, &largest);
        let sum = (&x - &largest).exp().reduce("logsumexp", ReduceOp::Sum, &axes);
        let largest = if axes.keep { largest } else { largest.squeeze(axes.dims.to_vec()) };
        (sum.log() + largest).rounded("logsumexp", dtype, &[self])
    }
}

/// The dtype of a truth value about elements.
fn truth_type(dtype: DType) -> DType {
    if dtype == DType::U8 { DType::U8 } else { DType::Bool }
}
