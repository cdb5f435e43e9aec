//! Losses that are negative log likelihoods of distributions.

use crate::Tensor;
use crate::operand::{Argument, Operand};
use crate::ops::loss::Reduction;
use crate::ops::selection::where_;
use crate::promotion::{floats_only, gather_operands, tensors};
use lazuli_ir::ErrorKind;
use std::f64::consts::TAU;

options! {
    /// What [`Tensor::gaussian_nll_loss`] takes besides its operands.
    GaussianNllLoss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
        /// Whether the constant `log(2 pi) / 2` is added.
        full: bool = false,
        /// The smallest variance: 1e-6 by default.
        eps: f64 = 1e-6,
    }

    /// What [`Tensor::poisson_nll_loss`] takes besides the target.
    PoissonNllLoss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
        /// Whether the input is the logarithm of the rate: it is by default.
        log_input: bool = true,
        /// Whether Stirling's approximation of `log(target!)` is added for targets above 1.
        full: bool = false,
        /// What is added to a rate before its logarithm is taken: 1e-8 by default.
        eps: f64 = 1e-8,
    }
}

impl Tensor {
    /// The loss of means, targets and variances of normal distributions: `(log(var) + (x - target)^2 / var) / 2`, reduced.
    ///
    /// A variance is at least `eps`, through which its gradient passes; a negative one gives NaN. The variances have the
    /// shape of the input, or that with a last dim of 1, or without the last dim.
    ///
    /// # Errors
    /// Carried: variances of another shape; an `eps` that is not positive; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let loss = lazuli::tensor([1.0, 2.0]).gaussian_nll_loss(lazuli::tensor([1.0, 4.0]), lazuli::tensor([1.0, 1.0]), ());
    /// assert_eq!(loss.item::<f32>()?, 1.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn gaussian_nll_loss(
        &self,
        target: impl Operand,
        var: impl Operand,
        options: impl Into<GaussianNllLoss>,
    ) -> Tensor {
        const NAME: &str = "gaussian_nll_loss";
        let GaussianNllLoss { reduction, full, eps } = options.into();
        let (target, var) = (target.argument(), var.argument());
        let given = [Argument::Tensor(self), target, var];
        let all = tensors(&given);
        if eps.is_nan() || eps <= 0.0 {
            return Tensor::fail(NAME, &all, ErrorKind::Value, format!("eps must be positive: {eps}"));
        }
        let mut raised = None;
        if let Argument::Tensor(v) = var {
            let (shape, sizes) = (v.shape(), self.shape());
            let but_last = sizes.get(..sizes.len().saturating_sub(1)).unwrap_or(&[]);
            if shape == but_last && shape != sizes {
                raised = Some(v.unsqueeze(-1));
            } else if shape != sizes
                && !(shape.len() == sizes.len() && shape.ends_with(&[1]) && shape.starts_with(but_last))
            {
                let message = format!("variances {} for {}", v.extent_shape(), self.extent_shape());
                return Tensor::fail(NAME, &all, ErrorKind::Shape, message);
            }
        }
        let var = raised.as_ref().map_or(var, Argument::Tensor);
        let meeting = or_failed!(gather_operands(NAME, [Argument::Tensor(self), target, var], floats_only));
        let [x, y, v] = &meeting.operands;
        let plain = v.detach();
        let v = v + where_(plain.lt(0.0), f64::NAN, plain.clamp_min(eps) - &plain);
        let mut loss = (v.log() + (x - y).square() / v) * 0.5;
        if full {
            loss += 0.5 * TAU.ln();
        }
        loss.reduced(reduction, x.size(0)).rounded(NAME, meeting.dtype, &all)
    }

    /// The loss of logarithms of rates (or rates) and counts: `e^x - target x` (or `x - target log(x + eps)`), reduced.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 0.0]).poisson_nll_loss(lazuli::tensor([3.0, 5.0]), ()).item::<f32>()?, 1.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn poisson_nll_loss(&self, target: impl Operand, options: impl Into<PoissonNllLoss>) -> Tensor {
        let PoissonNllLoss { reduction, log_input, full, eps } = options.into();
        pair_loss!("poisson_nll_loss", self, target, reduction, |x, y| {
            let mut loss = if log_input { x.exp() - y * x } else { x - y * (x + eps).log() };
            if full {
                let large = y.gt(1.0);
                let y = where_(&large, y, 1.0);
                loss += where_(large, &y * y.log() - &y + (&y * TAU).log() * 0.5, 0.0);
            }
            loss
        })
    }
}
