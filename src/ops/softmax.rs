//! Softmax and its logarithm, centred by the largest element so that nothing overflows.

use crate::Tensor;
use crate::dims::{Axes, Dims};
use lazuli_ir::ReduceOp;

impl Tensor {
    /// The tensor less its largest element over dims, which counts as a constant to gradients.
    #[track_caller]
    pub(crate) fn centred(&self, name: &'static str, axes: &Axes) -> Tensor {
        let kept = Axes { keep: true, ..axes.clone() };
        self - self.detach().reduce(name, ReduceOp::Max, &kept)
    }

    /// The exponentials over dims, divided by their sum: `e = exp(x - detach(max))`, `e / sum(e)`. A run of only -infinity is
    /// NaN; without elements it stays so.
    ///
    /// # Errors
    /// Carried: a dim out of range; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let p = lazuli::tensor([[1.0, 1.0], [0.0, 1000.0]]).softmax(-1);
    /// assert_eq!(p.to_vec::<f32>()?, [0.5, 0.5, 0.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn softmax(&self, dims: impl Dims) -> Tensor {
        let x = or_failed!(self.floats("softmax"));
        let axes = ok!("softmax", &[self], dims.axes(self.rank()));
        if self.extent_shape().is_empty() {
            return self.clone();
        }
        let e = x.centred("softmax", &axes).exp();
        let sum = e.reduce("softmax", ReduceOp::Sum, &Axes { keep: true, ..axes });
        (e / sum).rounded("softmax", self.dtype(), &[self])
    }

    /// The logarithm of [`softmax`](Self::softmax), without its overflow and cancellation: `s - log(sum(exp(s)))` with
    /// `s = x - detach(max)`.
    ///
    /// # Errors
    /// Carried: a dim out of range; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let p = lazuli::tensor([0.0, 1000.0]).log_softmax(-1);
    /// assert_eq!(p.to_vec::<f32>()?, [-1000.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn log_softmax(&self, dims: impl Dims) -> Tensor {
        let x = or_failed!(self.floats("log_softmax"));
        let axes = ok!("log_softmax", &[self], dims.axes(self.rank()));
        if self.extent_shape().is_empty() {
            return self.clone();
        }
        let s = x.centred("log_softmax", &axes);
        let sum = s.exp().reduce("log_softmax", ReduceOp::Sum, &Axes { keep: true, ..axes });
        (s - sum.log()).rounded("log_softmax", self.dtype(), &[self])
    }
}
