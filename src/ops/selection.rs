//! Selection by conditions and bounds: `where`, masks, clamping, and interpolation between two tensors.

use crate::Tensor;
use crate::operand::{Argument, Number, Operand};
use crate::promotion::{common_shape, floats_only, gather_operands, no_booleans, result_type, tensors};
use lazuli_ir::{DType, ErrorKind, Op};

impl Tensor {
    /// The elements of `self` where `condition` holds, of `other` elsewhere: PyTorch's `x.where(condition, other)`. See
    /// [`where_`].
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1.0, -2.0]);
    /// assert_eq!(x.where_(x.gt(0.0), 0.0).to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn where_(&self, condition: impl Operand, other: impl Operand) -> Tensor {
        where_(condition, self, other)
    }

    /// `value` where `mask` holds, the tensor's own elements elsewhere. Both broadcast; the dtype stays the tensor's. The value
    /// is a number or a 0-d tensor, which gets the sum of the masked gradients.
    ///
    /// # Errors
    /// Carried: a mask that is not `bool`; a value with dims, or of a higher kind (a float for integers).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1.0, -2.0]);
    /// assert_eq!(x.masked_fill(x.lt(0.0), 0.0).to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn masked_fill(&self, mask: impl Operand, value: impl Operand) -> Tensor {
        let (mask, value) = (mask.argument(), value.argument());
        let given = tensors(&[Argument::Tensor(self), mask, value]);
        if let Argument::Tensor(v) = value
            && v.rank() > 0
        {
            let message = format!("the value is a number or a 0-d tensor, not {}", v.node.ty);
            return Tensor::fail("masked_fill", &given, ErrorKind::Shape, message);
        }
        let whole = matches!(value, Argument::Number(Number::I64(_) | Number::Bool(_)));
        if !whole && result_type(&[Argument::Tensor(self), value]) != self.dtype() {
            let message = format!("the value does not fit {}; convert the tensor with `to`", self.dtype());
            return Tensor::fail("masked_fill", &given, ErrorKind::DType, message);
        }
        let value = Tensor::fit(value, self.dtype(), &lazuli_ir::Shape::scalar());
        choose("masked_fill", mask, Argument::Tensor(&value), Argument::Tensor(self), self.dtype())
    }

    /// Elements kept between `min` and `max`, with broadcasting and promotion of all three; where `min > max` the result is
    /// `max`. NaN passes, and a NaN bound gives NaN. The gradient goes to the tensor where it lies between the bounds
    /// (inclusive), else to the bound.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1.0, 0.5, 2.0]).clamp(0.0, 1.0).to_vec::<f32>()?, [0.0, 0.5, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    #[doc(alias = "clip")]
    pub fn clamp(&self, min: impl Operand, max: impl Operand) -> Tensor {
        self.clamped(Some(min.argument()), Some(max.argument()))
    }

    /// [`clamp`](Self::clamp) with a lower bound alone.
    ///
    /// # Errors
    /// Carried, as for `clamp`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1, 2]).clamp_min(0).to_vec::<i64>()?, [0, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn clamp_min(&self, min: impl Operand) -> Tensor {
        self.clamped(Some(min.argument()), None)
    }

    /// [`clamp`](Self::clamp) with an upper bound alone.
    ///
    /// # Errors
    /// Carried, as for `clamp`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1, 2]).clamp_max(0).to_vec::<i64>()?, [-1, 0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn clamp_max(&self, max: impl Operand) -> Tensor {
        self.clamped(None, Some(max.argument()))
    }

    #[track_caller]
    fn clamped(&self, min: Option<Argument<'_>>, max: Option<Argument<'_>>) -> Tensor {
        let x = Argument::Tensor(self);
        let all: Vec<Argument<'_>> = [x].into_iter().chain(min).chain(max).collect();
        let dtype = result_type(&all);
        let given = tensors(&all);
        if dtype == DType::Bool {
            return Tensor::fail("clamp", &given, ErrorKind::DType, "is not defined for booleans");
        }
        let shape = match common_shape(&all) {
            Ok(shape) => shape,
            Err(message) => return Tensor::fail("clamp", &given, ErrorKind::Shape, message),
        };
        let mut y = Tensor::fit(x, dtype, &shape);
        if let Some(min) = min {
            let bound = Tensor::fit(min, dtype, &shape);
            y = where_(outside(&bound, &y, min), &bound, &y);
        }
        if let Some(max) = max {
            let bound = Tensor::fit(max, dtype, &shape);
            y = where_(outside(&y, &bound, max), &bound, &y);
        }
        y.named("clamp", &given)
    }

    /// `self + weight * (end - self)`, elementwise, with broadcasting of all three; the weight is a number or a tensor. For
    /// weights of 1/2 and more it is computed from the end, so that both ends are exact.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; operands that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 10.0]).lerp(lazuli::tensor([4.0, 20.0]), 0.25).to_vec::<f32>()?, [1.0, 12.5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn lerp(&self, end: impl Operand, weight: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), end.argument(), weight.argument()];
        let meeting = or_failed!(gather_operands("lerp", given, floats_only));
        let [start, end, w] = &meeting.operands;
        let distance = end - start;
        let y = where_(w.abs().lt(0.5), start + w * &distance, end - distance * (1.0 - w));
        y.rounded("lerp", meeting.dtype, &tensors(&given))
    }

    /// `self + value * a * b`, elementwise, with broadcasting and promotion.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1.0, 2.0]);
    /// assert_eq!(x.addcmul(&x, 3.0, ()).to_vec::<f32>()?, [4.0, 8.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn addcmul(&self, a: impl Operand, b: impl Operand, options: impl Into<AddProduct>) -> Tensor {
        let AddProduct { value } = options.into();
        let given = [Argument::Tensor(self), a.argument(), b.argument()];
        let meeting = or_failed!(gather_operands("addcmul", given, no_booleans));
        let [x, a, b] = &meeting.operands;
        (x + scaled(a, value) * b).rounded("addcmul", meeting.dtype, &tensors(&given))
    }

    /// `self + value * a / b`, elementwise, with broadcasting and promotion.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; operands that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1.0, 2.0]);
    /// assert_eq!(x.addcdiv(&x, 2.0, ()).to_vec::<f32>()?, [1.5, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn addcdiv(&self, a: impl Operand, b: impl Operand, options: impl Into<AddProduct>) -> Tensor {
        let AddProduct { value } = options.into();
        let given = [Argument::Tensor(self), a.argument(), b.argument()];
        let meeting = or_failed!(gather_operands("addcdiv", given, floats_only));
        let [x, a, b] = &meeting.operands;
        (x + scaled(a, value) / b).rounded("addcdiv", meeting.dtype, &tensors(&given))
    }

    /// NaN and infinities replaced: by default NaN by 0, infinities by the dtype's largest and smallest finite number. What was
    /// replaced gets no gradient.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([f64::NAN, f64::INFINITY, 1.0]).nan_to_num(());
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, f32::MAX, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn nan_to_num(&self, options: impl Into<NanToNum>) -> Tensor {
        if !self.dtype().is_float() {
            return self.clone();
        }
        let options = options.into();
        let largest = largest(self.dtype());
        let y = where_(self.isnan(), options.nan, self);
        let y = where_(self.eq(f64::INFINITY), options.posinf.unwrap_or(largest), y);
        where_(self.eq(f64::NEG_INFINITY), options.neginf.unwrap_or(-largest), y).named("nan_to_num", &[self])
    }
}

/// The largest finite number of a float dtype.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::BF16 => 255.0 * (2f64).powi(120),
        DType::F32 => f64::from(f32::MAX),
        DType::Bool | DType::U8 | DType::I32 | DType::I64 | DType::F64 => f64::MAX,
    }
}

/// Where `low > high`, or where `bound` (one of both) is NaN.
#[track_caller]
fn outside(low: &Tensor, high: &Tensor, bound: Argument<'_>) -> Tensor {
    let above = low.gt(high);
    match bound {
        Argument::Number(Number::F64(v)) if v.is_nan() => low.eq(low).logical_or(low.ne(low)),
        Argument::Number(_) => above,
        Argument::Tensor(t) if t.dtype().is_float() => above.logical_or(t.isnan()),
        Argument::Tensor(_) => above,
    }
}

/// `x * factor`, where the factor is not 1. It is taken in the dtype of `x`: integers truncate it, as in PyTorch.
#[track_caller]
pub(crate) fn scaled(x: &Tensor, factor: Number) -> Tensor {
    if factor == Number::I64(1) || factor == Number::F64(1.0) {
        return x.clone();
    }
    x * Tensor::fit(Argument::Number(factor), x.dtype(), &lazuli_ir::Shape::scalar())
}

options! {
    /// What [`Tensor::addcmul`] and [`Tensor::addcdiv`] take besides their operands.
    AddProduct {
        /// A factor for the product or quotient, 1 by default.
        value: Number = Number::I64(1),
    }

    /// What [`Tensor::nan_to_num`] puts in the place of NaN and infinities.
    NanToNum {
        /// For NaN: 0 by default.
        nan: f64 = 0.0,
        /// For infinity: the largest finite number by default.
        posinf: Option<f64> = None,
        /// For negative infinity: the smallest finite number by default.
        neginf: Option<f64> = None,
    }
}

/// `a` where `condition` holds, `b` elsewhere, in a dtype and the common shape of all.
#[track_caller]
fn choose(name: &'static str, condition: Argument<'_>, a: Argument<'_>, b: Argument<'_>, dtype: DType) -> Tensor {
    let given = tensors(&[condition, a, b]);
    let is_bool = match condition {
        Argument::Tensor(t) => t.dtype() == DType::Bool,
        Argument::Number(n) => n.dtype() == DType::Bool,
    };
    if !is_bool {
        let message = "the condition must be bool; compare with something first";
        return Tensor::fail(name, &given, ErrorKind::DType, message);
    }
    let shape = match common_shape(&[condition, a, b]) {
        Ok(shape) => shape,
        Err(message) => return Tensor::fail(name, &given, ErrorKind::Shape, message),
    };
    let c = Tensor::fit(condition, DType::Bool, &shape);
    let (a, b) = (Tensor::fit(a, dtype, &shape), Tensor::fit(b, dtype, &shape));
    Tensor::record(name, Op::Select, &[&c, &a, &b]).named(name, &given)
}

/// The elements of `a` where `condition` holds, of `b` elsewhere, with broadcasting of all three and promotion of `a` and
/// `b`. The gradient goes to the side that was taken; no NaN of the other side gets into the value.
///
/// # Errors
/// Carried: a condition that is not `bool`; shapes that do not broadcast.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::tensor([1.0, -2.0]);
/// assert_eq!(lazuli::where_(x.gt(0.0), &x, &x * 0.1).to_vec::<f32>()?, [1.0, -0.2]);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn where_(condition: impl Operand, a: impl Operand, b: impl Operand) -> Tensor {
    let (a, b) = (a.argument(), b.argument());
    choose("where_", condition.argument(), a, b, result_type(&[a, b]))
}
