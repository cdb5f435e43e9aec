//! Connectionist temporal classification (Graves et al., 2006): the loss of a sequence of labels whose alignment is not known.

use crate::Tensor;
use crate::ops::join::stack;
use crate::ops::loss::Reduction;
use crate::ops::pad::Pad;
use crate::ops::selection::where_;
use lazuli_ir::{DType, Error, ErrorKind, Result};

options! {
    /// What [`Tensor::ctc_loss`] takes besides its operands.
    CtcLoss {
        /// The class that stands for no label: 0 by default.
        blank: usize = 0,
        /// The reduction: by default the mean of losses, each divided by its number of labels.
        reduction: Reduction = Reduction::Mean,
        /// Whether an infinite loss, of a sequence too short for its labels, counts as 0 and has no gradient.
        zero_infinity: bool = false,
    }
}

/// The logarithm of a sum of exponentials along dim 0. It is minus infinity, without a gradient, where all are.
#[track_caller]
fn log_sum(x: &Tensor) -> Tensor {
    let largest = x.detach().amax(0);
    let dead = largest.eq(f64::NEG_INFINITY);
    let largest = where_(&dead, 0.0, largest);
    let sum = (x - &largest).exp().sum(0);
    where_(&dead, f64::NEG_INFINITY, where_(&dead, 1.0, sum).log() + largest)
}

impl Tensor {
    /// The negative log likelihood of labels, summed over all ways to spread them, with blanks between, over the steps of a
    /// sequence.
    ///
    /// The tensor holds logarithms of probabilities, `[steps, n, classes]` or `[steps, classes]`. Targets are `[n, longest]` (what
    /// lies beyond a length does not count), one after the other in a vector, or for one sequence a vector. Lengths are `[n]`
    /// or 0-d, integers. The gradient is that of the formula; PyTorch's assumes that the input comes from `log_softmax`, where
    /// both give the same in the end.
    ///
    /// # Errors
    /// Carried: shapes or dtypes that do not fit. At run time: a label outside of `0..classes`, a length beyond what there is.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// // Two steps, one label: it comes first, last or twice, of which each has the probability 1/9.
    /// let x = Tensor::zeros([2, 3]).log_softmax(-1);
    /// let loss = x.ctc_loss(&lazuli::tensor([1]), &lazuli::tensor(2), &lazuli::tensor(1), ());
    /// assert!((loss.item::<f32>()? - 3f32.ln()).abs() < 1e-6);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn ctc_loss(
        &self,
        targets: &Tensor,
        input_lengths: &Tensor,
        target_lengths: &Tensor,
        options: impl Into<CtcLoss>,
    ) -> Tensor {
        const NAME: &str = "ctc_loss";
        let CtcLoss { blank, reduction, zero_infinity } = options.into();
        let given = [self, targets, input_lengths, target_lengths];
        let x = or_failed!(self.floats(NAME));
        ok!(NAME, &given, fits(given, blank));
        let single = self.rank() == 2;
        let x = if single { x.unsqueeze(1) } else { x };
        let (steps, n, classes) = (x.size(0), x.size(1), x.size(2));
        let longest = targets.size(-1);
        let ends = input_lengths.reshape([n, 1]).checked_index(NAME, steps + 1, false);
        let counts = target_lengths.reshape([n, 1]).checked_index(NAME, longest + 1, false);
        let place = Tensor::arange(0..longest as i64);
        let targets = if targets.rank() == 2 || single {
            targets.reshape([n, longest])
        } else {
            let begin = counts.cumsum(0) - &counts;
            let at = (&begin + &place).clamp_max(longest.saturating_sub(1) as i64);
            targets.index_select(0, &at.flatten(..)).reshape([n, longest])
        };
        let labels = where_(place.lt(&counts), targets.cast(NAME, DType::I64), blank as i64);
        let labels = labels.checked_index(NAME, classes, false);
        // A blank before, between and after labels; what counts of it are 2 counts + 1 states.
        let blanks = labels.full_like(blank as i64);
        let states =
            stack(&[&blanks, &labels], -1).flatten(-2..).pad([0, 1], Pad { value: blank as f64, ..Pad::default() });
        let scores = x.gather(-1, &states.unsqueeze(0).expand([steps, n, 2 * longest + 1]));
        let none = Pad { value: f64::NEG_INFINITY, ..Pad::default() };
        let earlier = states.pad([2, -2], Pad { value: blank as f64, ..Pad::default() });
        let skips = states.ne(blank as i64).logical_and(states.ne(earlier));
        let state = Tensor::arange(0..2 * longest as i64 + 1);
        let zero = Tensor::zeros(states.shape()).to(x.dtype());
        // Before the first step all lies in a state before the first one, from which the first two are reached.
        let mut alpha = where_(state.le(0), zero, f64::NEG_INFINITY);
        for step in 0..steps {
            let score = scores.narrow(0, step as i64, 1).squeeze(0);
            let moved = alpha.pad([1, -1], none.clone());
            let skipped = where_(&skips, alpha.pad([2, -2], none.clone()), f64::NEG_INFINITY);
            let next = if step == 0 {
                where_(state.le(1), score, f64::NEG_INFINITY)
            } else {
                log_sum(&stack(&[&alpha, &moved, &skipped], 0)) + score
            };
            alpha = where_(ends.gt(step as i64), next, alpha);
        }
        let last = state.eq(&counts * 2).logical_or(state.eq(&counts * 2 - 1));
        let likelihood = where_(last, alpha, f64::NEG_INFINITY).transpose(0, 1);
        let mut loss = -log_sum(&likelihood);
        if zero_infinity {
            loss = where_(loss.eq(f64::INFINITY), 0.0, loss);
        }
        if reduction == Reduction::Mean {
            loss /= counts.squeeze(-1).clamp_min(1);
        }
        let loss = if single && reduction == Reduction::None { loss.squeeze(0) } else { loss };
        loss.reduced(reduction, n).rounded(NAME, self.dtype(), &given)
    }
}

fn fits([x, targets, input_lengths, target_lengths]: [&Tensor; 4], blank: usize) -> Result<()> {
    let error = |kind, message: String| Err(Error::new(kind, message));
    let classes = match *x.shape() {
        [_, n, classes] => {
            let lengths = input_lengths.shape() == [n] && target_lengths.shape() == [n];
            let fit = lengths && (targets.rank() == 1 || matches!(*targets.shape(), [rows, _] if rows == n));
            fit.then_some(classes)
        }
        [_, classes] => {
            let lengths = input_lengths.numel() == 1 && target_lengths.numel() == 1;
            (lengths && targets.rank() == 1).then_some(classes)
        }
        _ => None,
    };
    let Some(classes) = classes else {
        let message =
            "takes [steps, n, classes] or [steps, classes], targets [n, longest] or a vector, and n lengths of each";
        return error(ErrorKind::Shape, message.to_owned());
    };
    if blank >= classes {
        return error(ErrorKind::Index, format!("blank {blank} is not one of {classes} classes"));
    }
    match [targets, input_lengths, target_lengths].iter().find(|t| !t.dtype().is_int()) {
        Some(t) => error(ErrorKind::DType, format!("labels and lengths are integers, not {}", t.dtype())),
        None => Ok(()),
    }
}
