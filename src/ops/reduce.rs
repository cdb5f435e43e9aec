//! Reductions over dims.

use crate::Tensor;
use crate::dims::{Axes, Dims};
use crate::operand::{Argument, Number};
use crate::ops::elementwise::div;
use lazuli_ir::{DType, Dim, DimVec, ErrorKind, Op, ReduceOp, Shape};

impl Tensor {
    /// Records a reduction, and puts kept dims back.
    #[track_caller]
    pub(crate) fn reduce(&self, name: &'static str, op: ReduceOp, axes: &Axes) -> Tensor {
        let reduced = if axes.dims.is_empty() && op != ReduceOp::ArgMax {
            self.clone()
        } else {
            Tensor::record(name, Op::Reduce { op, dims: axes.dims.clone(), acc: self.dtype() }, &[self])
        };
        if axes.keep { reduced.put_back(self.extent_shape(), &axes.dims) } else { reduced }
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
        match dims.axes(self.rank()) {
            Ok(axes) => {
                let count: f64 = axes.dims.iter().map(|&d| self.extent_shape().extents()[d] as f64).product();
                let sum = self.reduce("mean", ReduceOp::Sum, &axes);
                div(Argument::Tensor(&sum), Argument::Number(Number::F64(count))).named("mean", &[self])
            }
            Err(e) => Tensor::fail("mean", &[self], e.kind(), e.message()),
        }
    }

    /// The largest element over dims; NaN wins. [`argmax`](Self::argmax) says where it is. Where several are largest, the
    /// first gets the gradient.
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
        match dims.axes(self.rank()) {
            Ok(axes) => self.reduce("max", ReduceOp::Max, &axes),
            Err(e) => Tensor::fail("max", &[self], e.kind(), e.message()),
        }
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
        match dims.axes(self.rank()) {
            Ok(axes) => self.reduce("argmax", ReduceOp::ArgMax, &axes),
            Err(e) => Tensor::fail("argmax", &[self], e.kind(), e.message()),
        }
    }
}
