//! Softmax and its logarithm, centred by the largest element so that nothing overflows.

use crate::Tensor;
use crate::dims::{Axes, Dims};
use lazuli_ir::{ErrorKind, Op, ReduceOp};

options! {
    /// What [`Tensor::gumbel_softmax`] takes.
    GumbelSoftmax {
        /// The temperature: 1 by default.
        tau: f64 = 1.0,
        /// Whether the result is exactly 0 and 1.
        hard: bool = false,
        /// The dim of classes: the last by default.
        dim: isize = -1,
    }
}

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

    /// The [`softmax`](Self::softmax) of the negated elements: large for the smallest.
    ///
    /// # Errors
    /// Carried, as for `softmax`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 1000.0]).softmin(-1).to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn softmin(&self, dims: impl Dims) -> Tensor {
        let x = or_failed!(self.floats("softmin"));
        (-x).softmax(dims).rounded("softmin", self.dtype(), &[self])
    }

    /// A random class as a distribution that a gradient flows through: the softmax of `(x + g) / tau`, where `g` are draws from
    /// the Gumbel distribution. A hard one is exactly 1 at one class and 0 elsewhere, with the gradient of the soft one.
    ///
    /// # Errors
    /// Carried: a dim out of range; a `tau` that is not positive; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([0.0, 1000.0]).gumbel_softmax(GumbelSoftmax { hard: true, ..Default::default() });
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn gumbel_softmax(&self, options: impl Into<GumbelSoftmax>) -> Tensor {
        const NAME: &str = "gumbel_softmax";
        let GumbelSoftmax { tau, hard, dim } = options.into();
        let x = or_failed!(self.floats(NAME));
        if tau.is_nan() || tau <= 0.0 {
            return Tensor::fail(NAME, &[self], ErrorKind::Value, format!("tau must be positive: {tau}"));
        }
        // Draws are multiples of 2^-24 below 1; half of one stands for 0, whose logarithm is not finite.
        let draws = x.rand_like().clamp_min(2f64.powi(-25));
        let soft = ((x - (-draws.log()).log()) / tau).softmax(dim);
        if !hard || self.extent_shape().is_empty() {
            return soft.rounded(NAME, self.dtype(), &[self]);
        }
        let axes = ok!(NAME, &[self], dim.axes(self.rank()));
        let axis = axes.dims.first().copied().unwrap_or(0);
        let places = Tensor::record(NAME, Op::Iota { dim: axis, shape: soft.extent_shape().clone() }, &[]);
        let one = places.eq(soft.argmax(crate::keep(dim))).cast(NAME, soft.dtype());
        (one - soft.detach() + &soft).rounded(NAME, self.dtype(), &[self])
    }
}
