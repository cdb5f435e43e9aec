//! Losses of numbers against numbers. Each is computed elementwise, then reduced as asked.

use crate::Tensor;
use crate::operand::{Argument, Operand};
use crate::ops::selection::where_;
use crate::promotion::{floats_only, gather_operands, tensors};
use lazuli_ir::ErrorKind;

/// How a loss of each element becomes the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// Not at all: the losses of all elements.
    None,
    /// Their mean; NaN of nothing.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Their sum divided by the extent of the input's first dim.
    BatchMean,
}

options! {
    /// What [`Tensor::mse_loss_with`] takes besides the target.
    MseLoss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::l1_loss_with`] takes besides the target.
    L1Loss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::smooth_l1_loss_with`] takes besides the target.
    SmoothL1Loss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
        /// The distance below which the loss is quadratic: 1 by default.
        beta: f64 = 1.0,
    }

    /// What [`Tensor::huber_loss_with`] takes besides the target.
    HuberLoss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
        /// The distance below which the loss is quadratic: 1 by default.
        delta: f64 = 1.0,
    }

    /// What [`Tensor::kl_div_with`] takes besides the target.
    KlDiv {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
        /// Whether the target is given as logarithms too.
        log_target: bool = false,
    }

    /// What [`Tensor::binary_cross_entropy_with`] takes besides the target.
    BinaryCrossEntropy {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
        /// A factor for each element's loss.
        weight: Option<Tensor> = None,
    }

    /// What [`Tensor::binary_cross_entropy_with_logits_with`] takes besides the target.
    BinaryCrossEntropyWithLogits {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
        /// A factor for each element's loss.
        weight: Option<Tensor> = None,
        /// A factor for the loss of positive targets.
        pos_weight: Option<Tensor> = None,
    }
}

impl Tensor {
    /// A loss of each element, reduced; `first` is the extent of the input's first dim.
    #[track_caller]
    pub(crate) fn reduced(self, reduction: Reduction, first: usize) -> Tensor {
        match reduction {
            Reduction::None => self,
            Reduction::Mean => self.mean(..),
            Reduction::Sum => self.sum(..),
            Reduction::BatchMean => self.sum(..) / first as f64,
        }
    }
}

/// A loss of pairs: operands brought together, the loss of each element, reduced and rounded.
macro_rules! pair_loss {
    ($name:literal, $input:expr, $target:expr, $reduction:expr, |$x:ident, $y:ident| $loss:expr) => {{
        let given = [Argument::Tensor($input), $target.argument()];
        let meeting = or_failed!(gather_operands($name, given, floats_only));
        let [$x, $y] = &meeting.operands;
        $loss.reduced($reduction, $input.size(0)).rounded($name, meeting.dtype, &tensors(&given))
    }};
}

impl Tensor {
    /// The mean over all elements of `(x - target)^2`, with broadcasting.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 2.0]).mse_loss(lazuli::tensor([1.0, 4.0])).item::<f32>()?, 2.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn mse_loss(&self, target: impl Operand) -> Tensor {
        self.mse_loss_with(target, ())
    }

    /// [`mse_loss`](Self::mse_loss) with another reduction.
    ///
    /// # Errors
    /// Carried, as for `mse_loss`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([1.0, 2.0]).mse_loss_with(4.0, MseLoss { reduction: Reduction::None });
    /// assert_eq!(y.to_vec::<f32>()?, [9.0, 4.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn mse_loss_with(&self, target: impl Operand, options: impl Into<MseLoss>) -> Tensor {
        let MseLoss { reduction } = options.into();
        pair_loss!("mse_loss", self, target, reduction, |x, y| (x - y).square())
    }

    /// The mean over all elements of `|x - target|`, with broadcasting. The gradient at 0 is 0.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 2.0]).l1_loss(lazuli::tensor([1.0, 4.0])).item::<f32>()?, 1.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn l1_loss(&self, target: impl Operand) -> Tensor {
        self.l1_loss_with(target, ())
    }

    /// [`l1_loss`](Self::l1_loss) with another reduction.
    ///
    /// # Errors
    /// Carried, as for `l1_loss`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([1.0, 2.0]).l1_loss_with(4.0, L1Loss { reduction: Reduction::Sum });
    /// assert_eq!(y.item::<f32>()?, 5.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn l1_loss_with(&self, target: impl Operand, options: impl Into<L1Loss>) -> Tensor {
        let L1Loss { reduction } = options.into();
        pair_loss!("l1_loss", self, target, reduction, |x, y| (x - y).abs())
    }

    /// The mean of a loss that is quadratic for distances below 1 and linear beyond: `d^2 / 2`, and `|d| - 1/2`.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([1.0, 3.0]).smooth_l1_loss(lazuli::tensor([0.0, 0.0]));
    /// assert_eq!(y.item::<f32>()?, 1.5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn smooth_l1_loss(&self, target: impl Operand) -> Tensor {
        self.smooth_l1_loss_with(target, ())
    }

    /// [`smooth_l1_loss`](Self::smooth_l1_loss) with its arguments: `d^2 / (2 beta)` for distances below beta, `|d| - beta / 2`
    /// beyond. With a beta of 0 it is [`l1_loss`](Self::l1_loss).
    ///
    /// # Errors
    /// Carried, as for `smooth_l1_loss`; a negative beta.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([3.0]).smooth_l1_loss_with(0.0, SmoothL1Loss { beta: 4.0, ..Default::default() });
    /// assert_eq!(y.item::<f32>()?, 1.125);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn smooth_l1_loss_with(&self, target: impl Operand, options: impl Into<SmoothL1Loss>) -> Tensor {
        let SmoothL1Loss { reduction, beta } = options.into();
        if beta < 0.0 {
            let message = format!("beta must not be negative: {beta}");
            return Tensor::fail("smooth_l1_loss", &[self], ErrorKind::Value, message);
        }
        if beta == 0.0 {
            return self.l1_loss_with(target, L1Loss { reduction });
        }
        pair_loss!("smooth_l1_loss", self, target, reduction, |x, y| {
            let d = (x - y).abs();
            where_(d.lt(beta), &d * &d * (0.5 / beta), &d - 0.5 * beta)
        })
    }

    /// The mean of a loss that is quadratic for distances below 1 and linear beyond: `d^2 / 2`, and `|d| - 1/2`. Its general
    /// form differs from [`smooth_l1_loss`](Self::smooth_l1_loss).
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 3.0]).huber_loss(0.0).item::<f32>()?, 1.5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn huber_loss(&self, target: impl Operand) -> Tensor {
        self.huber_loss_with(target, ())
    }

    /// [`huber_loss`](Self::huber_loss) with its arguments: `d^2 / 2` for distances up to delta, `delta (|d| - delta / 2)`
    /// beyond.
    ///
    /// # Errors
    /// Carried, as for `huber_loss`; a delta that is not positive.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([3.0]).huber_loss_with(0.0, HuberLoss { delta: 2.0, ..Default::default() });
    /// assert_eq!(y.item::<f32>()?, 4.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn huber_loss_with(&self, target: impl Operand, options: impl Into<HuberLoss>) -> Tensor {
        let HuberLoss { reduction, delta } = options.into();
        if delta <= 0.0 {
            let message = format!("delta must be positive: {delta}");
            return Tensor::fail("huber_loss", &[self], ErrorKind::Value, message);
        }
        pair_loss!("huber_loss", self, target, reduction, |x, y| {
            let d = (x - y).abs();
            where_(d.le(delta), &d * &d * 0.5, (&d - 0.5 * delta) * delta)
        })
    }

    /// The mean of the Kullback-Leibler divergence of each element: `target * (log(target) - x)`, where `x` is a logarithm, and
    /// 0 where the target is 0.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([0.5, 0.5]).log().kl_div(lazuli::tensor([0.5, 0.5]));
    /// assert_eq!(y.item::<f32>()?, 0.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn kl_div(&self, target: impl Operand) -> Tensor {
        self.kl_div_with(target, ())
    }

    /// [`kl_div`](Self::kl_div) with its arguments.
    ///
    /// # Errors
    /// Carried, as for `kl_div`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([0.5, 0.5]).log();
    /// let y = x.kl_div_with(&x, KlDiv { log_target: true, reduction: Reduction::BatchMean });
    /// assert_eq!(y.item::<f32>()?, 0.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn kl_div_with(&self, target: impl Operand, options: impl Into<KlDiv>) -> Tensor {
        let KlDiv { reduction, log_target } = options.into();
        if log_target {
            return pair_loss!("kl_div", self, target, reduction, |x, y| y.exp() * (y - x));
        }
        pair_loss!("kl_div", self, target, reduction, |x, y| y.xlogy(y) - y * x)
    }

    /// The logarithm, at least -100, which gets no gradient there.
    #[track_caller]
    fn bounded_log(&self) -> Tensor {
        let zero = self.le(0.0);
        where_(&zero, -100.0, where_(&zero, 1.0, self).log().clamp_min(-100.0))
    }

    /// The mean of `-(y log(x) + (1 - y) log(1 - x))` for probabilities `x` and targets `y`; logarithms are at least -100.
    ///
    /// # Errors
    /// Carried: shapes that differ; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([0.0, 1.0]).binary_cross_entropy(lazuli::tensor([0.0, 0.0]));
    /// assert_eq!(y.item::<f32>()?, 50.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn binary_cross_entropy(&self, target: impl Operand) -> Tensor {
        self.binary_cross_entropy_with(target, ())
    }

    /// [`binary_cross_entropy`](Self::binary_cross_entropy) with its arguments.
    ///
    /// # Errors
    /// Carried, as for `binary_cross_entropy`; a weight that does not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let options = BinaryCrossEntropy { reduction: Reduction::Sum, ..Default::default() };
    /// let y = lazuli::tensor([0.0, 1.0]).binary_cross_entropy_with(lazuli::tensor([0.0, 0.0]), options);
    /// assert_eq!(y.item::<f32>()?, 100.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn binary_cross_entropy_with(&self, target: impl Operand, options: impl Into<BinaryCrossEntropy>) -> Tensor {
        let BinaryCrossEntropy { reduction, weight } = options.into();
        let given = [Argument::Tensor(self), target.argument()];
        let meeting = or_failed!(gather_operands("binary_cross_entropy", given, floats_only));
        let [x, y] = &meeting.operands;
        let mut all = tensors(&given);
        if let Argument::Tensor(t) = given[1]
            && t.extent_shape() != self.extent_shape()
        {
            let message = format!("the target has shape {}, not {}", t.extent_shape(), self.extent_shape());
            return Tensor::fail("binary_cross_entropy", &all, ErrorKind::Shape, message);
        }
        all.extend(&weight);
        let mut loss = (y - 1.0) * (1.0 - x).bounded_log() - y * x.bounded_log();
        if let Some(weight) = &weight {
            loss *= weight.cast("binary_cross_entropy", x.dtype());
        }
        loss.reduced(reduction, self.size(0)).rounded("binary_cross_entropy", meeting.dtype, &all)
    }

    /// [`binary_cross_entropy`](Self::binary_cross_entropy) of `sigmoid(x)`, without its overflow:
    /// `(1 - y) x + log(1 + e^-|x|) + max(-x, 0)`.
    ///
    /// # Errors
    /// Carried: shapes that differ; tensors of integers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([1000.0, -1000.0]).binary_cross_entropy_with_logits(lazuli::tensor([1.0, 0.0]));
    /// assert_eq!(y.item::<f32>()?, 0.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn binary_cross_entropy_with_logits(&self, target: impl Operand) -> Tensor {
        self.binary_cross_entropy_with_logits_with(target, ())
    }

    /// [`binary_cross_entropy_with_logits`](Self::binary_cross_entropy_with_logits) with its arguments.
    ///
    /// # Errors
    /// Carried, as there; weights that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let options = BinaryCrossEntropyWithLogits { pos_weight: Some(lazuli::tensor([2.0])), ..Default::default() };
    /// let y = lazuli::tensor([0.0]).binary_cross_entropy_with_logits_with(lazuli::tensor([1.0]), options);
    /// assert!((y.item::<f32>()? - 2.0 * 2f32.ln()).abs() < 1e-6);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn binary_cross_entropy_with_logits_with(
        &self,
        target: impl Operand,
        options: impl Into<BinaryCrossEntropyWithLogits>,
    ) -> Tensor {
        const NAME: &str = "binary_cross_entropy_with_logits";
        let BinaryCrossEntropyWithLogits { reduction, weight, pos_weight } = options.into();
        let given = [Argument::Tensor(self), target.argument()];
        let meeting = or_failed!(gather_operands(NAME, given, floats_only));
        let [x, y] = &meeting.operands;
        let mut all = tensors(&given);
        if let Argument::Tensor(t) = given[1]
            && t.extent_shape() != self.extent_shape()
        {
            let message = format!("the target has shape {}, not {}", t.extent_shape(), self.extent_shape());
            return Tensor::fail(NAME, &all, ErrorKind::Shape, message);
        }
        all.extend(weight.iter().chain(&pos_weight));
        // -log(sigmoid(x)), which counts for positive targets.
        let bend = -x.logsigmoid();
        let mut loss = match &pos_weight {
            Some(positive) => (1.0 - y) * x + ((positive.cast(NAME, x.dtype()) - 1.0) * y + 1.0) * bend,
            None => (1.0 - y) * x + bend,
        };
        if let Some(weight) = &weight {
            loss *= weight.cast(NAME, x.dtype());
        }
        loss.reduced(reduction, self.size(0)).rounded(NAME, meeting.dtype, &all)
    }
}
