//! Comparisons, and logic on what is zero and what is not.

use crate::Tensor;
use crate::operand::{Argument, Operand};
use crate::ops::arithmetic::{meet, mul};
use crate::promotion::tensors;
use lazuli_ir::{BinaryOp, CompareOp, DType, Op};

macro_rules! comparisons {
    ($($name:ident $op:ident $sign:literal $example:literal;)*) => {
        impl Tensor {$(
            #[doc = concat!("`self ", $sign, " other`, elementwise, with broadcasting.")]
            ///
            /// Operands of any dtype meet in their common dtype; the result is `bool`, and no gradient flows. A comparison
            /// with NaN is false, except that `ne` is true.
            ///
            /// # Errors
            /// Carried: shapes that do not broadcast.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            /// let x = lazuli::tensor([1.0, 2.0, 3.0]);
            #[doc = concat!("assert_eq!(x.", stringify!($name), "(2.0).to_vec::<bool>()?, ", $example, ");")]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $name(&self, other: impl Operand) -> Tensor {
                let meeting = |dtype| Ok((Op::Compare(CompareOp::$op), dtype));
                meet(stringify!($name), Argument::Tensor(self), other.argument(), meeting)
            }
        )*}
    };
}

comparisons! {
    eq Eq "==" "[false, true, false]";
    ne Ne "!=" "[true, false, true]";
    lt Lt "<" "[true, false, false]";
    le Le "<=" "[true, true, false]";
    gt Gt ">" "[false, false, true]";
    ge Ge ">=" "[false, true, true]";
}

/// Whether elements are not zero; NaN is not.
#[track_caller]
fn truth(argument: Argument<'_>) -> Tensor {
    match argument {
        Argument::Tensor(t) => t.cast("to", DType::Bool),
        Argument::Number(n) => Tensor::splat(n.literal(DType::Bool), &lazuli_ir::Shape::scalar()),
    }
}

macro_rules! logic {
    ($($name:ident $op:expr, $words:literal $example:literal;)*) => {
        impl Tensor {$(
            #[doc = concat!("Whether ", $words, " nonzero, elementwise, with broadcasting; NaN is nonzero.")]
            ///
            /// Operands of any dtype; the result is `bool`, and no gradient flows.
            ///
            /// # Errors
            /// Carried: shapes that do not broadcast.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            /// let x = lazuli::tensor([0.0, 1.0, 2.0]);
            #[doc = concat!("let y = x.", stringify!($name), "(lazuli::tensor([0, 0, 3]));")]
            #[doc = concat!("assert_eq!(y.to_vec::<bool>()?, ", $example, ");")]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $name(&self, other: impl Operand) -> Tensor {
                let given = [Argument::Tensor(self), other.argument()];
                let (a, b) = (truth(given[0]), truth(given[1]));
                let logic = |dtype| Ok(($op, dtype));
                meet(stringify!($name), Argument::Tensor(&a), Argument::Tensor(&b), logic)
                    .named(stringify!($name), &tensors(&given))
            }
        )*}
    };
}

logic! {
    logical_and Op::Binary(BinaryOp::Min), "both are" "[false, false, true]";
    logical_or Op::Binary(BinaryOp::Max), "one or both are" "[false, true, true]";
    logical_xor Op::Compare(CompareOp::Ne), "exactly one is" "[false, true, false]";
}

impl Tensor {
    /// Whether elements are zero, as `bool`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0, 3]).logical_not().to_vec::<bool>()?, [true, false]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn logical_not(&self) -> Tensor {
        self.eq(0).named("logical_not", &[self])
    }

    /// Whether elements are NaN, as `bool`; integers and booleans never are.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([f64::NAN, 1.0]).isnan().to_vec::<bool>()?, [true, false]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn isnan(&self) -> Tensor {
        self.ne(self).named("isnan", &[self])
    }

    /// Whether elements are infinite, as `bool`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-f64::INFINITY, f64::NAN]).isinf().to_vec::<bool>()?, [true, false]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn isinf(&self) -> Tensor {
        if !self.dtype().is_float() {
            return self.ne(self).named("isinf", &[self]);
        }
        self.abs().eq(f64::INFINITY).named("isinf", &[self])
    }

    /// Whether elements are neither infinite nor NaN, as `bool`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, f64::NAN]).isfinite().to_vec::<bool>()?, [true, false]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn isfinite(&self) -> Tensor {
        if !self.dtype().is_float() {
            return self.eq(self).named("isfinite", &[self]);
        }
        self.abs().lt(f64::INFINITY).named("isfinite", &[self])
    }

    /// Whether elements are near those of `other`: `|x - other| <= atol + rtol * |other|`, as `bool`, with broadcasting. Equal
    /// infinities are near; NaN is near nothing unless `equal_nan`.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1.0, 2.0]);
    /// assert_eq!(x.isclose(lazuli::tensor([1.0 + 1e-7, 2.1]), ()).to_vec::<bool>()?, [true, false]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn isclose(&self, other: impl Operand, options: impl Into<IsClose>) -> Tensor {
        let IsClose { rtol, atol, equal_nan } = options.into();
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(crate::promotion::gather_operands("isclose", given, crate::promotion::no_booleans));
        let [x, y] = &meeting.operands;
        let near = (x - y).abs().le(y.abs() * rtol + atol);
        // The distance of infinities is infinite or NaN, and so is the bound.
        let mut close = mul(Argument::Tensor(&near), Argument::Tensor(&y.isfinite())).logical_or(x.eq(y));
        if equal_nan {
            close = close.logical_or(x.isnan().logical_and(y.isnan()));
        }
        close.named("isclose", &tensors(&given))
    }
}

options! {
    /// What [`Tensor::isclose`] takes besides its operands.
    IsClose {
        /// The tolerance relative to `other`: 1e-5 by default.
        rtol: f64 = 1e-5,
        /// The absolute tolerance: 1e-8 by default.
        atol: f64 = 1e-8,
        /// Whether NaN is near NaN.
        equal_nan: bool = false,
    }
}
