//! Functions of two operands, elementwise, with broadcasting and promotion.

use crate::Tensor;
use crate::operand::{Argument, Number, Operand};
use crate::ops::arithmetic::meet;
use crate::ops::selection::where_;
use crate::promotion::{any_dtype, as_floats, floats_only, gather_operands, shape_of, tensors};
use crate::promotion::{float_type, result_type};
use lazuli_ir::{BinaryOp, DType, ErrorKind, Op};

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

    /// The length of the hypotenuse, `sqrt(x^2 + y^2)`, without overflow on the way. An infinite side gives infinity. The
    /// gradient at two zeros is NaN.
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
        let meeting = |dtype: DType| match dtype.is_float() {
            true => Ok((Op::Binary(BinaryOp::Hypot), dtype)),
            false => Err("needs floating point operands; convert with `to(DType::F32)`".to_owned()),
        };
        meet("hypot", Argument::Tensor(self), other.argument(), meeting)
    }

    /// The angle of the point `(other, self)`, in radians between -pi and pi. Integers and booleans are taken as floats.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 0.0]).atan2(lazuli::tensor([1.0, 2.0])).to_vec::<f32>()?, [0.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn atan2(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::Atan2), float_type(dtype)));
        meet("atan2", Argument::Tensor(self), other.argument(), meeting)
    }

    /// The magnitude of each element with the sign of the other, that of zeros included. Integers and booleans are taken as
    /// floats. The gradient at 0 is 0.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 2.0]).copysign(lazuli::tensor([-0.0, 3.0])).to_vec::<f32>()?, [-1.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn copysign(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::Copysign), float_type(dtype)));
        meet("copysign", Argument::Tensor(self), other.argument(), meeting)
    }

    /// Each element to the power of the other, with broadcasting and promotion; `pow(0, 0)` is 1, a negative base with an
    /// exponent that is not whole NaN. Integers wrap, and a negative exponent gives them 0, 1 or -1.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans; integers to the power of a negative number.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([2.0, 9.0]).pow(lazuli::tensor([3.0, 0.5])).to_vec::<f32>()?, [8.0, 3.0]);
    /// assert_eq!(lazuli::tensor([2, 3]).pow(2).to_vec::<i64>()?, [4, 9]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn pow(&self, exponent: impl Operand) -> Tensor {
        let exponent = exponent.argument();
        if let Argument::Number(Number::I64(..0)) = exponent
            && !self.dtype().is_float()
        {
            let message = "integers have no negative powers; convert with `to(DType::F32)`";
            return Tensor::fail("pow", &[self], ErrorKind::Value, message);
        }
        meet("pow", Argument::Tensor(self), exponent, |dtype| Ok((Op::Binary(BinaryOp::Pow), dtype)))
    }

    /// [`pow`](Self::pow) in `f64`.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([2, 3]).float_power(-1).to_vec::<f64>()?, [0.5, 1.0 / 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn float_power(&self, exponent: impl Operand) -> Tensor {
        let (x, given) = (self.cast("float_power", DType::F64), [Argument::Tensor(self), exponent.argument()]);
        let y = match given[1] {
            Argument::Tensor(t) => x.pow(t.cast("float_power", DType::F64)),
            Argument::Number(n) => x.pow(Tensor::fit(Argument::Number(n), DType::F64, &lazuli_ir::Shape::scalar())),
        };
        y.named("float_power", &tensors(&given))
    }

    /// `x - floor(x / y) * y`, elementwise, with broadcasting and promotion: Python's `%`, with the sign of `y`. The operator
    /// `%` is the same.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans. At run time: an integer divided by 0.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([7, -7]).remainder(3).to_vec::<i64>()?, [1, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn remainder(&self, other: impl Operand) -> Tensor {
        remainder(Argument::Tensor(self), other.argument())
    }

    /// `x - trunc(x / y) * y`, elementwise, with broadcasting and promotion: C's `%`, with the sign of `x`.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans. At run time: an integer divided by 0.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([7, -7]).fmod(3).to_vec::<i64>()?, [1, -1]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn fmod(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::Fmod), dtype));
        meet("fmod", Argument::Tensor(self), other.argument(), meeting)
    }

    /// `floor(x / y)`, elementwise, with broadcasting and promotion: Python's `//`. No gradient flows: it is 0 everywhere.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans. At run time: an integer divided by 0.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([7, -7]).floor_divide(2).to_vec::<i64>()?, [3, -4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn floor_divide(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::FloorDiv), dtype));
        meet("floor_divide", Argument::Tensor(self), other.argument(), meeting)
    }

    /// `trunc(x / y)`, elementwise, with broadcasting and promotion: C's division of integers, PyTorch's
    /// `div(rounding_mode="trunc")`. No gradient flows: it is 0 everywhere.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans. At run time: an integer divided by 0.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([7, -7]).trunc_divide(2).to_vec::<i64>()?, [3, -3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn trunc_divide(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        if !result_type(&given).is_float() {
            let meeting = |dtype| Ok((Op::Binary(BinaryOp::TruncDiv), dtype));
            return meet("trunc_divide", given[0], given[1], meeting);
        }
        let meeting = or_failed!(gather_operands("trunc_divide", given, floats_only));
        let [x, y] = &meeting.operands;
        // Without history: a gradient of 0 divided by a divisor of 0 would not be 0.
        (x.detach() / y.detach()).trunc().rounded("trunc_divide", meeting.dtype, &tensors(&given))
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

/// `a - floor(a / b) * b`.
#[track_caller]
pub(crate) fn remainder(a: Argument<'_>, b: Argument<'_>) -> Tensor {
    meet("remainder", a, b, |dtype| Ok((Op::Binary(BinaryOp::Remainder), dtype)))
}

macro_rules! bitwise {
    ($($(#[$doc:meta])* $name:ident $op:ident $example:literal;)*) => {
        $(
            #[track_caller]
            pub(crate) fn $name(a: Argument<'_>, b: Argument<'_>) -> Tensor {
                meet(stringify!($name), a, b, |dtype| Ok((Op::Binary(BinaryOp::$op), dtype)))
            }
        )*

        impl Tensor {$(
            $(#[$doc])*
            ///
            /// Elementwise, with broadcasting and promotion.
            ///
            /// # Errors
            /// Carried: shapes that do not broadcast; operands of floats.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            #[doc = concat!("assert_eq!(lazuli::tensor([6, -2]).", stringify!($name), "(3).to_vec::<i64>()?, ", $example, ");")]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $name(&self, other: impl Operand) -> Tensor {
                $name(Argument::Tensor(self), other.argument())
            }
        )*}
    };
}

bitwise! {
    /// The bits that both have; of booleans, whether both hold. The operator `&` is the same.
    bitwise_and And "[2, 2]";
    /// The bits that one or both have; of booleans, whether one holds. The operator `|` is the same.
    bitwise_or Or "[7, -1]";
    /// The bits that exactly one has; of booleans, whether exactly one holds. The operator `^` is the same.
    bitwise_xor Xor "[5, -3]";
    /// Bits moved up; 0 where the distance is negative or not below the number of bits. The operator `<<` is the same.
    bitwise_left_shift ShiftLeft "[48, -16]";
    /// Bits moved down, with copies of the sign; a distance that is negative or not below the number of bits moves all out.
    /// The operator `>>` is the same.
    bitwise_right_shift ShiftRight "[0, -1]";
}

impl Tensor {
    /// All bits turned over; of booleans, whether each does not hold. The operator `!` is the same.
    ///
    /// # Errors
    /// Carried: a tensor of floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!((!lazuli::tensor([0, -3])).to_vec::<i64>()?, [-1, 2]);
    /// assert_eq!((!lazuli::tensor([true, false])).to_vec::<bool>()?, [false, true]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn bitwise_not(&self) -> Tensor {
        if self.dtype() == DType::Bool {
            return self.logical_not().named("bitwise_not", &[self]);
        }
        Tensor::record("bitwise_not", Op::Unary(lazuli_ir::UnaryOp::Not), &[self])
    }
}
