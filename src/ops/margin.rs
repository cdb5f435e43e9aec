//! Losses that ask for a margin between scores or distances.

use crate::Tensor;
use crate::dims::{Axes, keep};
use crate::operand::{Argument, Operand};
use crate::ops::loss::Reduction;
use crate::ops::selection::where_;
use crate::promotion::{floats_only, gather_operands, tensors};
use lazuli_ir::{DType, ErrorKind, ReduceOp};

options! {
    /// What [`Tensor::margin_ranking_loss`] takes besides its operands.
    MarginRankingLoss {
        /// By how much the right one must be larger: 0 by default.
        margin: f64 = 0.0,
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::hinge_embedding_loss`] takes besides the target.
    HingeEmbeddingLoss {
        /// The distance that unlike pairs must have: 1 by default.
        margin: f64 = 1.0,
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::cosine_embedding_loss`] takes besides its operands.
    CosineEmbeddingLoss {
        /// The cosine that unlike pairs may have: 0 by default.
        margin: f64 = 0.0,
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::pairwise_distance`] takes besides the other vectors.
    PairwiseDistance {
        /// The order of the norm: 2 by default.
        p: f64 = 2.0,
        /// What is added to each difference: 1e-6 by default.
        eps: f64 = 1e-6,
        /// Whether the last dim stays, with extent 1.
        keepdim: bool = false,
    }

    /// What [`Tensor::triplet_margin_loss`] takes besides its operands.
    TripletMarginLoss {
        /// By how much the negative must be farther away: 1 by default.
        margin: f64 = 1.0,
        /// The order of the norm: 2 by default.
        p: f64 = 2.0,
        /// What is added to each difference: 1e-6 by default.
        eps: f64 = 1e-6,
        /// Whether the distance of positive and negative counts where it is the smaller one.
        swap: bool = false,
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::soft_margin_loss`] takes besides the target.
    SoftMarginLoss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::multilabel_soft_margin_loss`] takes besides the target.
    MultilabelSoftMarginLoss {
        /// A factor for each class.
        weight: Option<Tensor> = None,
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }
}

options! {
    /// What [`Tensor::multi_margin_loss`] takes besides the labels.
    MultiMarginLoss {
        /// The power that a missing margin is raised to, 1 or 2: 1 by default.
        p: u32 = 1,
        /// By how much the score of the label must exceed the others: 1 by default.
        margin: f64 = 1.0,
        /// A factor for each class.
        weight: Option<Tensor> = None,
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }

    /// What [`Tensor::multilabel_margin_loss`] takes besides the labels.
    MultilabelMarginLoss {
        /// The reduction: the mean by default.
        reduction: Reduction = Reduction::Mean,
    }
}

/// The axes of the last dim.
fn last(rank: usize, keep: bool) -> Axes {
    Axes { dims: rank.checked_sub(1).into_iter().collect(), keep }
}

impl Tensor {
    /// The loss of pairs of scores, where the first must be the larger one if `y` is 1, the second if `y` is -1:
    /// `max(0, margin - y (x - other))`, reduced.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; scores that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([2.0, 2.0]);
    /// assert_eq!(x.margin_ranking_loss(1.0, lazuli::tensor([1.0, -1.0]), ()).item::<f32>()?, 0.5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn margin_ranking_loss(
        &self,
        other: impl Operand,
        y: impl Operand,
        options: impl Into<MarginRankingLoss>,
    ) -> Tensor {
        let MarginRankingLoss { margin, reduction } = options.into();
        let given = [Argument::Tensor(self), other.argument(), y.argument()];
        let meeting = or_failed!(gather_operands("margin_ranking_loss", given, floats_only));
        let [a, b, y] = &meeting.operands;
        let loss = (margin - y * (a - b)).clamp_min(0.0);
        loss.reduced(reduction, a.size(0)).rounded("margin_ranking_loss", meeting.dtype, &tensors(&given))
    }

    /// The loss of distances: `x` itself where the target is 1, `max(0, margin - x)` where it is -1, reduced.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; distances that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([0.5, 0.25]);
    /// assert_eq!(x.hinge_embedding_loss(lazuli::tensor([1.0, -1.0]), ()).item::<f32>()?, 0.625);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn hinge_embedding_loss(&self, target: impl Operand, options: impl Into<HingeEmbeddingLoss>) -> Tensor {
        let HingeEmbeddingLoss { margin, reduction } = options.into();
        pair_loss!("hinge_embedding_loss", self, target, reduction, |x, y| {
            where_(y.ne(1.0), (margin - x).clamp_min(0.0), 0.0) + where_(y.ne(-1.0), x, 0.0)
        })
    }

    /// The loss of pairs of vectors along the last dim: `1 - cos` where the target is 1, `max(0, cos - margin)` where it is -1,
    /// reduced. The cosine is that of squared lengths with 1e-12 added.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; scalars; vectors that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (a, b) = (lazuli::tensor([[1.0, 0.0], [1.0, 0.0]]), lazuli::tensor([[1.0, 0.0], [0.0, 1.0]]));
    /// let loss = a.cosine_embedding_loss(b, lazuli::tensor([1.0, 1.0]), ());
    /// assert_eq!(loss.item::<f32>()?, 0.5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cosine_embedding_loss(
        &self,
        other: impl Operand,
        target: impl Operand,
        options: impl Into<CosineEmbeddingLoss>,
    ) -> Tensor {
        const NAME: &str = "cosine_embedding_loss";
        let CosineEmbeddingLoss { margin, reduction } = options.into();
        let (pair, target) = ([Argument::Tensor(self), other.argument()], target.argument());
        let meeting = or_failed!(gather_operands(NAME, pair, floats_only));
        let [a, b] = &meeting.operands;
        let axes = last(a.rank(), false);
        if a.rank() == 0 {
            return Tensor::fail(NAME, &tensors(&pair), ErrorKind::Shape, "takes vectors, not scalars");
        }
        let (aa, bb) = ((a * a).reduce(NAME, ReduceOp::Sum, &axes), (b * b).reduce(NAME, ReduceOp::Sum, &axes));
        let cosine = (a * b).reduce(NAME, ReduceOp::Sum, &axes) / ((aa + 1e-12) * (bb + 1e-12)).sqrt();
        let all = tensors(&[pair[0], pair[1], target]);
        let signs = or_failed!(gather_operands(NAME, [Argument::Tensor(&cosine), target], floats_only));
        let [cosine, y] = &signs.operands;
        let loss = where_(y.eq(1.0), 1.0 - cosine, 0.0) + where_(y.eq(-1.0), (cosine - margin).clamp_min(0.0), 0.0);
        loss.reduced(reduction, cosine.size(0)).rounded(NAME, meeting.dtype, &all)
    }

    /// The distance of vectors along the last dim: the norm of order `p` of `x - other + eps`.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; vectors that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let d = lazuli::tensor([3.0, 4.0]).pairwise_distance(0.0, PairwiseDistance { eps: 0.0, ..Default::default() });
    /// assert_eq!(d.item::<f32>()?, 5.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn pairwise_distance(&self, other: impl Operand, options: impl Into<PairwiseDistance>) -> Tensor {
        let PairwiseDistance { p, eps, keepdim } = options.into();
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(gather_operands("pairwise_distance", given, floats_only));
        let [x, y] = &meeting.operands;
        let distance = (x - y + eps).vector_norm(&last(x.rank(), keepdim), p);
        distance.rounded("pairwise_distance", meeting.dtype, &tensors(&given))
    }

    /// The loss of an anchor's distances to a vector that is to be near, and to one that is to be far:
    /// `max(0, margin + d(x, positive) - d(x, negative))` with [`pairwise_distance`](Self::pairwise_distance), reduced.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; vectors that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let anchor = lazuli::tensor([[0.0, 0.0]]);
    /// let options = TripletMarginLoss { eps: 0.0, ..Default::default() };
    /// let loss = anchor.triplet_margin_loss(lazuli::tensor([[0.0, 2.0]]), lazuli::tensor([[1.5, 0.0]]), options);
    /// assert_eq!(loss.item::<f32>()?, 1.5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn triplet_margin_loss(
        &self,
        positive: impl Operand,
        negative: impl Operand,
        options: impl Into<TripletMarginLoss>,
    ) -> Tensor {
        let TripletMarginLoss { margin, p, eps, swap, reduction } = options.into();
        let given = [Argument::Tensor(self), positive.argument(), negative.argument()];
        let meeting = or_failed!(gather_operands("triplet_margin_loss", given, floats_only));
        let [anchor, positive, negative] = &meeting.operands;
        let options = PairwiseDistance { p, eps, keepdim: false };
        let mut far = anchor.pairwise_distance(negative, options.clone());
        if swap {
            far = far.minimum(positive.pairwise_distance(negative, options.clone()));
        }
        let loss = (anchor.pairwise_distance(positive, options) - far + margin).clamp_min(0.0);
        let first = loss.size(0);
        loss.reduced(reduction, first).rounded("triplet_margin_loss", meeting.dtype, &tensors(&given))
    }

    /// The loss of scores and targets of 1 and -1: `log(1 + e^(-target x))`, without overflow, reduced.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; scores that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let loss = lazuli::tensor([1000.0, 1000.0]).soft_margin_loss(lazuli::tensor([1.0, -1.0]), ());
    /// assert_eq!(loss.item::<f32>()?, 500.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn soft_margin_loss(&self, target: impl Operand, options: impl Into<SoftMarginLoss>) -> Tensor {
        let SoftMarginLoss { reduction } = options.into();
        pair_loss!("soft_margin_loss", self, target, reduction, |x, y| -(x * y).logsigmoid())
    }

    /// The loss of scores of classes, of which any number may be right: the mean over the last dim of
    /// `-target log(sigmoid(x)) - (1 - target) log(sigmoid(-x))`, times a weight for each class, reduced.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; scores that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let loss = lazuli::tensor([[1000.0, 1000.0]]).multilabel_soft_margin_loss(lazuli::tensor([[1.0, 0.0]]), ());
    /// assert_eq!(loss.item::<f32>()?, 500.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn multilabel_soft_margin_loss(
        &self,
        target: impl Operand,
        options: impl Into<MultilabelSoftMarginLoss>,
    ) -> Tensor {
        const NAME: &str = "multilabel_soft_margin_loss";
        let MultilabelSoftMarginLoss { weight, reduction } = options.into();
        let given = [Argument::Tensor(self), target.argument()];
        let meeting = or_failed!(gather_operands(NAME, given, floats_only));
        let [x, y] = &meeting.operands;
        let mut all = tensors(&given);
        all.extend(&weight);
        let mut loss = -(y * x.logsigmoid() + (1.0 - y) * (-x).logsigmoid());
        if let Some(weight) = &weight {
            loss *= weight.cast(NAME, x.dtype());
        }
        let loss = loss.mean(-1);
        let first = loss.size(0);
        loss.reduced(reduction, first).rounded(NAME, meeting.dtype, &all)
    }

    /// The loss of scores `[classes]` or `[n, classes]` and one label each: the mean over classes of
    /// `max(0, margin - x[label] + x[class])^p`, without the label's own, times the label's weight, reduced.
    ///
    /// # Errors
    /// Carried: shapes that do not fit; labels that are not integers; a `p` other than 1 and 2. At run time: a label outside
    /// of `0..classes`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[0.5, 0.0, 2.0]]);
    /// assert_eq!(x.multi_margin_loss(&lazuli::tensor([0]), ()).item::<f32>()?, 1.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn multi_margin_loss(&self, labels: &Tensor, options: impl Into<MultiMarginLoss>) -> Tensor {
        const NAME: &str = "multi_margin_loss";
        let MultiMarginLoss { p, margin, weight, reduction } = options.into();
        let mut all = vec![self, labels];
        all.extend(&weight);
        let x = or_failed!(self.floats(NAME));
        if !(1..=2).contains(&p) {
            return Tensor::fail(NAME, &all, ErrorKind::Value, format!("p is 1 or 2, not {p}"));
        }
        let but_last = self.shape().split_last().map(|(_, rest)| rest.to_vec());
        if !matches!(self.rank(), 1 | 2) || but_last.as_deref() != Some(&labels.shape()[..]) {
            let message = format!(
                "scores are [classes] or [n, classes], with a label each: {}, {}",
                self.node.ty, labels.node.ty
            );
            return Tensor::fail(NAME, &all, ErrorKind::Shape, message);
        }
        let classes = self.size(-1);
        let index = labels.unsqueeze(-1);
        let own = x.gather(-1, &index);
        let missing = (margin - own + &x).clamp_min(0.0);
        let mut loss = if p == 1 { missing } else { missing.square() };
        if let Some(weight) = &weight {
            if weight.shape() != [classes] {
                let message = format!("a weight {} for {classes} classes", weight.extent_shape());
                return Tensor::fail(NAME, &all, ErrorKind::Shape, message);
            }
            loss *= weight.cast(NAME, x.dtype()).index_select(0, &index.flatten(..)).reshape(index.shape());
        }
        let is_own = Tensor::arange(0..classes as i64).eq(&index);
        let loss = where_(is_own, 0.0, loss).mean(-1);
        loss.reduced(reduction, self.size(0)).rounded(NAME, self.dtype(), &all)
    }

    /// The loss of scores `[classes]` or `[n, classes]` and a list of labels each, which ends at the first -1: the sum of
    /// `max(0, 1 - x[label] + x[class])` over all labels and all classes that are none, divided by the number of classes,
    /// reduced.
    ///
    /// # Errors
    /// Carried: labels of another shape than the scores, or that are not integers. At run time: a label outside of
    /// `0..classes` before the end of the list.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, y) = (lazuli::tensor([0.0, 2.0, 1.0]), lazuli::tensor([1, -1, 0]));
    /// assert_eq!(x.multilabel_margin_loss(&y, ()).to_vec::<f32>()?, [0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn multilabel_margin_loss(&self, labels: &Tensor, options: impl Into<MultilabelMarginLoss>) -> Tensor {
        const NAME: &str = "multilabel_margin_loss";
        let MultilabelMarginLoss { reduction } = options.into();
        let all = [self, labels];
        let x = or_failed!(self.floats(NAME));
        if !matches!(self.rank(), 1 | 2) || labels.shape() != self.shape() {
            let message =
                format!("scores are [classes] or [n, classes], labels likewise: {}, {}", self.node.ty, labels.node.ty);
            return Tensor::fail(NAME, &all, ErrorKind::Shape, message);
        }
        if labels.dtype().is_float() {
            return Tensor::fail(NAME, &all, ErrorKind::DType, format!("labels are integers, not {}", labels.dtype()));
        }
        let classes = self.size(-1);
        let counts = labels.lt(0).cast(NAME, DType::I64).cumsum(-1).eq(0);
        let labels = where_(&counts, labels, 0);
        // [.., labels, classes]
        let is_label = Tensor::arange(0..classes as i64).eq(labels.unsqueeze(-1)).logical_and(counts.unsqueeze(-1));
        let others = is_label.any(keep(-2)).logical_not();
        let missing = (1.0 - x.gather(-1, &labels).unsqueeze(-1) + x.unsqueeze(-2)).clamp_min(0.0);
        let missing = where_(others.logical_and(counts.unsqueeze(-1)), missing, 0.0);
        let loss = missing.sum([-2, -1]) / classes as f64;
        let first = loss.size(0);
        loss.reduced(reduction, first).rounded(NAME, self.dtype(), &all)
    }
}
