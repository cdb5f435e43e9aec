//! Losses of class scores against labels.

use crate::Tensor;
use crate::dims::Axes;
use crate::node::Role;
use crate::operand::{Argument, Operand};
use crate::ops::selection::where_;
use crate::trace::{self, TraceId};
use lazuli_ir::{DType, ErrorKind, Op, ReduceOp, Shape, Source};

impl Tensor {
    /// The mean cross entropy of class scores (logits) and labels.
    ///
    /// Scores are `[classes]`, `[n, classes]` or `[n, classes, ..]`, of floats; labels are `i64`, of the same shape without
    /// the dim of classes. For each label `y` the loss is `log(sum(exp(s))) - s[y]` with `s = x - detach(max(x))`. No labels
    /// give NaN, as the mean of nothing.
    ///
    /// # Errors
    /// Carried: shapes or dtypes that do not fit; a label outside of `0..classes`. To find one, labels that are pending are
    /// computed when the loss is recorded; inside a trace, labels that are arguments of the compiled function are checked
    /// before each call, and a label computed inside that is out of range makes the loss NaN.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let scores = lazuli::tensor([[0.0, 0.0], [0.0, 1000.0]]);
    /// let loss = scores.cross_entropy(lazuli::tensor([0, 1]));
    /// assert!((loss.item::<f32>()? - 0.5 * 2f32.ln()).abs() < 1e-6);
    /// assert!(scores.cross_entropy(lazuli::tensor([0, 2])).check().is_err());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cross_entropy(&self, labels: impl Operand) -> Tensor {
        let y = match labels.argument() {
            Argument::Tensor(y) => y,
            Argument::Number(n) => {
                let message = format!("labels are a tensor of i64, not the number {n:?}");
                return Tensor::fail("cross_entropy", &[self], ErrorKind::DType, message);
            }
        };
        let x = or_failed!(self.floats("cross_entropy"));
        let given = [self, y];
        if y.dtype() != DType::I64 {
            let message = format!("labels are i64, not {}", y.dtype());
            return Tensor::fail("cross_entropy", &given, ErrorKind::DType, message);
        }
        let axis = usize::from(self.rank() > 1);
        let mut expected = self.extent_shape().extents();
        if self.rank() == 0
            || Shape::new({
                expected.remove(axis);
                expected.clone()
            }) != *y.extent_shape()
        {
            let message = format!(
                "scores {} need labels of shape {}, without the dim of classes",
                self.extent_shape(),
                Shape::new(expected)
            );
            return Tensor::fail("cross_entropy", &given, ErrorKind::Shape, message);
        }
        let checked = match check_labels(y, self.size(axis as isize)) {
            Ok(checked) => checked,
            Err((kind, message)) => return Tensor::fail("cross_entropy", &given, kind, message),
        };
        if self.extent_shape().is_empty() {
            return Tensor::full((), f64::NAN) + self.sum(..);
        }
        x.class_loss(y, axis, checked).mean(..).rounded("cross_entropy", self.dtype(), &given)
    }

    /// The loss of each label; NaN where it is out of range, unless labels are checked elsewhere.
    #[track_caller]
    fn class_loss(&self, y: &Tensor, axis: usize, checked: bool) -> Tensor {
        let axes = Axes { dims: smallvec::smallvec![axis], keep: false };
        let s = self.centred("cross_entropy", &axes);
        let classes = Tensor::record("cross_entropy", Op::Iota { dim: axis, shape: self.extent_shape().clone() }, &[]);
        let is_label = classes.eq(y.unsqueeze(axis as isize));
        let picked = where_(is_label, &s, 0.0).reduce("cross_entropy", ReduceOp::Sum, &axes);
        let loss = s.exp().reduce("cross_entropy", ReduceOp::Sum, &axes).log() - picked;
        if checked {
            return loss;
        }
        let classes = self.size(axis as isize);
        where_(y.ge(0) * y.lt(classes), loss, f64::NAN)
    }
}

/// Checks labels that have a value, and notes those of a trace for its callers. Whether that covers them.
#[track_caller]
fn check_labels(y: &Tensor, classes: usize) -> Result<bool, (ErrorKind, String)> {
    if trace::current() == TraceId::NONE && y.trace_id() == TraceId::NONE {
        if y.check().is_err() {
            return Ok(true);
        }
        let array = y.array().map_err(|e| (e.kind(), e.message().to_owned()))?;
        let labels = array.to_vec::<i64>().map_err(|e| (e.kind(), e.message().to_owned()))?;
        return match labels.iter().find(|l| usize::try_from(**l).map_or(true, |l| l >= classes)) {
            Some(label) => Err((ErrorKind::Index, format!("label {label} is not in 0..{classes}"))),
            None => Ok(true),
        };
    }
    let is_input = y.trace_id() == TraceId::NONE || matches!(y.node.role, Role::Placeholder { .. });
    if is_input && trace::current() != TraceId::NONE {
        trace::check_labels(y, classes, Source::caller());
        return Ok(true);
    }
    Ok(false)
}
