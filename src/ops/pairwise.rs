//! Functions of two operands, elementwise, with broadcasting and promotion.

use crate::Tensor;
use crate::operand::{Argument, Operand};
use crate::ops::arithmetic::meet;
use crate::ops::selection::where_;
use crate::promotion::{any_dtype, as_floats, floats_only, gather_operands, shape_of, tensors};
use lazuli_ir::{BinaryOp, ErrorKind, Op};

impl Tensor {
    /// The larger of each pair of elements, with broadcasting and promotion. NaN on either side gives NaN. Where both are
    /// equal, each gets half of the gradient.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 5]).maximum(3).to_vec::<i64>()?, [3, 5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn maximum(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::Max), dtype));
        meet("maximum", Argument::Tensor(self), other.argument(), meeting)
    }

    /// The smaller of each pair of elements, with broadcasting and promotion. NaN on either side gives NaN. Where both are
    /// equal, each gets half of the gradient.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 5]).minimum(3).to_vec::<i64>()?, [1, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn minimum(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::Min), dtype));
        meet("minimum", Argument::Tensor(self), other.argument(), meeting)
    }

    /// The larger of each pair of elements, where a number wins over NaN. Where both are equal, the receiver gets the gradient.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, f64::NAN]).fmax(0.5).to_vec::<f32>()?, [1.0, 0.5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn fmax(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(gather_operands("fmax", given, any_dtype));
        let [x, y] = &meeting.operands;
        where_(x.ge(y).logical_or(y.isnan()), x, y).rounded("fmax", meeting.dtype, &tensors(&given))
    }

    /// The smaller of each pair of elements, where a number wins over NaN. Where both are equal, the receiver gets the gradient.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, f64::NAN]).fmin(0.5).to_vec::<f32>()?, [0.5, 0.5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn fmin(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(gather_operands("fmin", given, any_dtype));
        let [x, y] = &meeting.operands;
        where_(x.le(y).logical_or(y.isnan()), x, y).rounded("fmin", meeting.dtype, &tensors(&given))
    }

    /// The length of the hypotenuse, `sqrt(x^2 + y^2)`, scaled by the larger side so that nothing overflows on the way. An
    /// infinite side gives infinity. The gradient at two zeros is NaN.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; operands that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([3.0, 1e30]).hypot(lazuli::tensor([4.0, 0.0])).to_vec::<f32>()?, [5.0, 1e30]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn hypot(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(gather_operands("hypot", given, floats_only));
        let [x, y] = &meeting.operands;
        // A constant to gradients, so that these are x / h and y / h.
        let scale = x.abs().fmax(y.abs()).detach();
        let (a, b) = (x / &scale, y / &scale);
        let h = &scale * (&a * &a + &b * &b).sqrt();
        // Zero divided by zero and infinity by infinity have no ratio.
        let plain = scale.gt(0.0).logical_and(scale.lt(f64::INFINITY));
        let infinite = scale.eq(f64::INFINITY);
        where_(infinite, f64::INFINITY, where_(plain, h, x.abs() + y.abs())).rounded(
            "hypot",
            meeting.dtype,
            &tensors(&given),
        )
    }

    /// `x * log(y)`, 0 where `x` is 0, even at `y = 0`; NaN where `y` is NaN. Integers and booleans are taken as floats.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 2.0]).xlogy(lazuli::tensor([0.0, 1.0])).to_vec::<f32>()?, [0.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn xlogy(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(gather_operands("xlogy", given, as_floats));
        let [x, y] = &meeting.operands;
        // Where the logarithm has no finite value, zero times it would be NaN.
        let infinite = y.le(0.0).logical_or(y.eq(f64::INFINITY));
        let log = where_(x.eq(0.0).logical_and(infinite), 0.0, y.log());
        (x * log).rounded("xlogy", meeting.dtype, &tensors(&given))
    }

    /// `log(e^x + e^y)` without overflow: the larger, plus `log(1 + e^-|x - y|)`.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; operands that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([0.0, 1000.0]).logaddexp(lazuli::tensor([0.0, 1000.0])).to_vec::<f32>()?;
    /// assert!((y[0] - 2f32.ln()).abs() < 1e-6 && (y[1] - 1000.6931).abs() < 1e-3);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn logaddexp(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(gather_operands("logaddexp", given, floats_only));
        let [x, y] = &meeting.operands;
        // Equal infinities have no distance.
        let distance = where_(x.eq(y), 0.0, (x - y).abs());
        (x.maximum(y) + (-distance).exp().log1p()).rounded("logaddexp", meeting.dtype, &tensors(&given))
    }

    /// The step function: 0 below 0, `values` at 0, 1 above. NaN gives 0. No gradient flows.
    ///
    /// # Errors
    /// Carried: operands of different dtypes; shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([-1.0, 0.0, 2.0]).heaviside(lazuli::tensor(0.5));
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 0.5, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn heaviside(&self, values: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), values.argument()];
        if let Argument::Tensor(v) = given[1]
            && v.dtype() != self.dtype()
        {
            let message = format!("the values have dtype {}, not {}; convert one with `to`", v.dtype(), self.dtype());
            return Tensor::fail("heaviside", &[self, v], ErrorKind::DType, message);
        }
        let step = self.gt(0).cast("heaviside", self.dtype());
        let values = Tensor::fit(given[1], self.dtype(), &shape_of(given[1])).detach();
        where_(self.eq(0), values, step).named("heaviside", &tensors(&given))
    }
}
