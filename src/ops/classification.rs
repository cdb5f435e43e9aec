//! Losses of class scores against labels or probabilities.
//!
//! A label picks its class by comparison along the dim of classes, so that the whole loss is one pass over the scores. Labels are
//! checked when the loss runs.

use crate::Tensor;
use crate::dims::Axes;
use crate::operand::{Argument, Operand};
use crate::ops::loss::Reduction;
use crate::ops::selection::where_;
use lazuli_ir::{DType, Error, ErrorKind, Op, ReduceOp, Result, Shape};

options! {
    /// What [`Tensor::cross_entropy_with`] takes besides labels.
    CrossEntropy {
        /// A factor for each class.
        weight: Option<Tensor> = None,
        /// A label that does not count: -100 by default.
        ignore_index: i64 = -100,
        /// The reduction: the mean by default, weighted by the factors of labels.
        reduction: Reduction = Reduction::Mean,
        /// The share of the target that is spread evenly over all classes: none by default.
        label_smoothing: f64 = 0.0,
    }

    /// What [`Tensor::nll_loss_with`] takes besides labels.
    NllLoss {
        /// A factor for each class.
        weight: Option<Tensor> = None,
        /// A label that does not count: -100 by default.
        ignore_index: i64 = -100,
        /// The reduction: the mean by default, weighted by the factors of labels.
        reduction: Reduction = Reduction::Mean,
    }
}

/// Scores `[classes]`, `[n, classes]` or `[n, classes, ..]` and labels for them.
struct Labelled<'a> {
    name: &'static str,
    /// The scores, in the dtype that composites compute in.
    scores: Tensor,
    /// The dim of classes.
    axis: usize,
    weight: Option<Tensor>,
    /// Whether a label counts.
    counts: Tensor,
    /// Where the class is the label's.
    picked: Tensor,
    given: Vec<&'a Tensor>,
}

impl<'a> Labelled<'a> {
    #[track_caller]
    fn new(
        name: &'static str,
        scores: Tensor,
        labels: &Tensor,
        weight: &Option<Tensor>,
        ignore_index: i64,
        given: Vec<&'a Tensor>,
    ) -> Result<Labelled<'a>> {
        let axis = usize::from(scores.rank() > 1);
        let classes = scores.size(axis as isize);
        let mut expected = scores.extent_shape().extents();
        if scores.rank() > 0 {
            expected.remove(axis);
        }
        let expected = Shape::new(expected);
        if scores.rank() == 0 || expected != *labels.extent_shape() {
            let message =
                format!("scores {} need labels of shape {expected}, without the dim of classes", scores.extent_shape());
            return Err(Error::new(ErrorKind::Shape, message));
        }
        let weight = class_weight(name, weight, classes, &scores)?;
        let counts = labels.ne(ignore_index);
        let labels = where_(&counts, labels, 0).checked_index(name, classes, false);
        labels.check()?;
        let shape = scores.extent_shape().clone();
        let places = Tensor::record(name, Op::Iota { dim: axis, shape: shape.clone() }, &[]);
        let picked = places.eq(labels.with_dim(axis).stretch(&shape));
        Ok(Labelled { name, scores, axis, weight, counts, picked, given })
    }

    fn axes(&self) -> Axes {
        Axes { dims: smallvec::smallvec![self.axis], keep: false }
    }

    /// For each label the element of its class.
    #[track_caller]
    fn pick(&self, x: &Tensor) -> Tensor {
        where_(&self.picked, x, 0.0).reduce(self.name, ReduceOp::Sum, &self.axes())
    }

    /// The weight of each label, 0 where it does not count.
    #[track_caller]
    fn weights(&self) -> Tensor {
        let one = self.counts.cast(self.name, self.scores.dtype());
        match &self.weight {
            Some(weight) => {
                one * self.pick(&weight.along(self.axis, self.scores.rank()).stretch(self.scores.extent_shape()))
            }
            None => one,
        }
    }

    /// Losses of labels, of which those that do not count are 0, reduced.
    #[track_caller]
    fn reduce(&self, loss: Tensor, reduction: Reduction) -> Tensor {
        let loss = where_(&self.counts, loss, 0.0);
        match reduction {
            Reduction::Mean => loss.sum(..) / self.weights().sum(..),
            other => loss.reduced(other, self.scores.size(0)),
        }
    }
}

/// The weight of each class, in the scores' dtype.
#[track_caller]
fn class_weight(
    name: &'static str,
    weight: &Option<Tensor>,
    classes: usize,
    scores: &Tensor,
) -> Result<Option<Tensor>> {
    match weight {
        Some(w) if w.rank() != 1 || w.size(0) != classes => {
            let message = format!("a weight {} for {classes} classes", w.extent_shape());
            Err(Error::new(ErrorKind::Shape, message))
        }
        Some(w) => Ok(Some(w.cast(name, scores.dtype()))),
        None => Ok(None),
    }
}

/// A tensor of labels, or why it is none.
fn labels<'a>(argument: Argument<'a>) -> Result<&'a Tensor> {
    match argument {
        Argument::Tensor(y) => Ok(y),
        Argument::Number(n) => Err(Error::new(ErrorKind::DType, format!("labels are a tensor, not the number {n:?}"))),
    }
}

impl Tensor {
    /// The mean cross entropy of class scores (logits) and labels.
    ///
    /// Scores are `[classes]`, `[n, classes]` or `[n, classes, ..]`, of floats. Labels are integers, of the same shape without
    /// the dim of classes; or probabilities of each class, floats of the scores' shape. For each label `y` the loss is
    /// `log(sum(exp(s))) - s[y]` with `s = x - detach(max(x))`. The label -100 does not count. No labels give NaN, as the mean
    /// of nothing.
    ///
    /// # Errors
    /// Carried: shapes or dtypes that do not fit. At run time: a label outside of `0..classes`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let scores = lazuli::tensor([[0.0, 0.0], [0.0, 1000.0]]);
    /// let loss = scores.cross_entropy(lazuli::tensor([0, 1]));
    /// assert!((loss.item::<f32>()? - 0.5 * 2f32.ln()).abs() < 1e-6);
    /// assert!(scores.cross_entropy(lazuli::tensor([0, 2])).eval().is_err());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cross_entropy(&self, labels: impl Operand) -> Tensor {
        self.cross_entropy_with(labels, ())
    }

    /// [`cross_entropy`](Self::cross_entropy) with its arguments.
    ///
    /// # Errors
    /// Carried, as for `cross_entropy`; a weight that has not one element a class.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let scores = lazuli::tensor([[0.0, 0.0], [0.0, 1000.0]]);
    /// let options = CrossEntropy { reduction: Reduction::None, ..Default::default() };
    /// assert_eq!(scores.cross_entropy_with(lazuli::tensor([-100, 1]), options).to_vec::<f32>()?, [0.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cross_entropy_with(&self, target: impl Operand, options: impl Into<CrossEntropy>) -> Tensor {
        const NAME: &str = "cross_entropy";
        let options = options.into();
        let target = ok!(NAME, &[self], labels(target.argument()));
        let given: Vec<&Tensor> = [self, target].into_iter().chain(&options.weight).collect();
        let x = or_failed!(self.floats(NAME));
        if target.dtype().is_float() {
            return x.cross_entropy_of_probabilities(target, &options, &given).rounded(NAME, self.dtype(), &given);
        }
        if target.dtype() == DType::Bool {
            return Tensor::fail(NAME, &given, ErrorKind::DType, "labels are integers or probabilities, not booleans");
        }
        let (weight, ignored) = (&options.weight, options.ignore_index);
        let labelled = ok!(NAME, &given, Labelled::new(NAME, x, target, weight, ignored, given.clone()));
        let axes = labelled.axes();
        let s = labelled.scores.centred(NAME, &axes);
        let sum = s.exp().reduce(NAME, ReduceOp::Sum, &axes).log();
        let mut loss = &sum - labelled.pick(&s);
        if labelled.weight.is_some() {
            loss *= labelled.weights();
        }
        let smoothing = options.label_smoothing;
        if smoothing != 0.0 {
            let classes = self.size(labelled.axis as isize) as f64;
            let even = match &labelled.weight {
                Some(w) => {
                    let spread = w.along(labelled.axis, self.rank());
                    sum * w.sum(..) - (&s * spread).reduce(NAME, ReduceOp::Sum, &axes)
                }
                None => sum * classes - s.reduce(NAME, ReduceOp::Sum, &axes),
            };
            loss = loss * (1.0 - smoothing) + even * (smoothing / classes);
        }
        labelled.reduce(loss, options.reduction).rounded(NAME, self.dtype(), &labelled.given)
    }

    /// The cross entropy with probabilities of each class.
    #[track_caller]
    fn cross_entropy_of_probabilities(&self, target: &Tensor, options: &CrossEntropy, given: &[&Tensor]) -> Tensor {
        const NAME: &str = "cross_entropy";
        if target.extent_shape() != self.extent_shape() || self.rank() == 0 {
            let message = format!("scores {} need as many probabilities", self.extent_shape());
            return Tensor::fail(NAME, given, ErrorKind::Shape, message);
        }
        let axis = usize::from(self.rank() > 1);
        let classes = self.size(axis as isize);
        let weight = ok!(NAME, given, class_weight(NAME, &options.weight, classes, self));
        let smoothing = options.label_smoothing;
        let mut target = target.cast(NAME, self.dtype());
        if smoothing != 0.0 {
            target = target * (1.0 - smoothing) + smoothing / classes as f64;
        }
        if let Some(weight) = weight {
            target *= weight.along(axis, self.rank());
        }
        let axes = Axes { dims: smallvec::smallvec![axis], keep: false };
        let loss = -(self.log_softmax(axis) * target).reduce(NAME, ReduceOp::Sum, &axes);
        loss.reduced(options.reduction, self.size(0))
    }

    /// The mean negative log likelihood of labels: `-x[y]`, where `x` has the logarithms of probabilities, as
    /// [`log_softmax`](Self::log_softmax) gives them; shapes are as for [`cross_entropy`](Self::cross_entropy).
    ///
    /// # Errors
    /// Carried: shapes or dtypes that do not fit. At run time: a label outside of `0..classes`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([[-1.0, -2.0], [-3.0, -4.0]]).nll_loss(lazuli::tensor([0, 1]));
    /// assert_eq!(y.item::<f32>()?, 2.5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn nll_loss(&self, labels: impl Operand) -> Tensor {
        self.nll_loss_with(labels, ())
    }

    /// [`nll_loss`](Self::nll_loss) with its arguments.
    ///
    /// # Errors
    /// Carried, as for `nll_loss`; a weight that has not one element a class.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[-1.0, -2.0], [-3.0, -4.0]]);
    /// let options = NllLoss { ignore_index: 1, reduction: Reduction::Sum, ..Default::default() };
    /// assert_eq!(x.nll_loss_with(lazuli::tensor([0, 1]), options).item::<f32>()?, 1.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn nll_loss_with(&self, target: impl Operand, options: impl Into<NllLoss>) -> Tensor {
        const NAME: &str = "nll_loss";
        let NllLoss { weight, ignore_index, reduction } = options.into();
        let target = ok!(NAME, &[self], labels(target.argument()));
        let given: Vec<&Tensor> = [self, target].into_iter().chain(&weight).collect();
        let x = or_failed!(self.floats(NAME));
        if !target.dtype().is_int() {
            let message = format!("labels are integers, not {}", target.dtype());
            return Tensor::fail(NAME, &given, ErrorKind::DType, message);
        }
        let labelled = ok!(NAME, &given, Labelled::new(NAME, x, target, &weight, ignore_index, given.clone()));
        let mut loss = -labelled.pick(&labelled.scores);
        if labelled.weight.is_some() {
            loss *= labelled.weights();
        }
        labelled.reduce(loss, reduction).rounded(NAME, self.dtype(), &labelled.given)
    }
}
