//! What may stand beside a tensor: a tensor, a reference to one, or a number.

use crate::Tensor;
use lazuli_ir::{DType, Literal};

/// A number beside a tensor: it promotes by its kind alone.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Number {
    /// A truth value.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// A floating point number.
    F64(f64),
}

impl Number {
    /// The dtype a tensor of this number has: `bool`, `i64`, or the default `f32`.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Number::Bool(_) => DType::Bool,
            Number::I64(_) => DType::I64,
            Number::F64(_) => DType::F32,
        }
    }

    /// The number in a dtype.
    pub(crate) fn literal(self, dtype: DType) -> Literal {
        match self {
            Number::Bool(v) => Literal::from_i64(dtype, i64::from(v)),
            Number::I64(v) => Literal::from_i64(dtype, v),
            Number::F64(v) => Literal::from_f64(dtype, v),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Tensor {}
    impl<T: Sealed + ?Sized> Sealed for &T {}
}

/// A Rust number that may stand on either side of a tensor: `f64`, `f32`, `i64`, `i32`, `usize`, `bool`.
///
/// ```
/// # use lazuli::prelude::*;
/// fn scale(x: &Tensor, by: impl lazuli::Scalar) -> Tensor {
///     x * by
/// }
/// assert_eq!(scale(&Tensor::ones([2]), 3).to_vec::<f32>()?, [3.0, 3.0]);
/// # Ok::<(), lazuli::Error>(())
/// ```
pub trait Scalar: Copy + sealed::Sealed {
    /// The number, by its kind.
    fn number(self) -> Number;
}

/// An operand, seen as what it is.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A tensor.
    Tensor(&'a Tensor),
    /// A number.
    Number(Number),
}

/// What an operation takes besides its receiver: a tensor, a reference to one, or a number.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::tensor([-1.0, 2.0]);
/// assert_eq!(x.maximum(0.0).to_vec::<f32>()?, [0.0, 2.0]);
/// assert_eq!(x.maximum(&x * 2.0).to_vec::<f32>()?, [-1.0, 4.0]);
/// # Ok::<(), lazuli::Error>(())
/// ```
pub trait Operand: sealed::Sealed {
    /// The operand, seen as what it is.
    fn argument(&self) -> Argument<'_>;
}

impl Operand for Tensor {
    fn argument(&self) -> Argument<'_> {
        Argument::Tensor(self)
    }
}

impl<T: Operand + ?Sized> Operand for &T {
    fn argument(&self) -> Argument<'_> {
        (**self).argument()
    }
}

macro_rules! scalars {
    ($($t:ty => |$v:ident| $number:expr),* $(,)?) => {$(
        impl sealed::Sealed for $t {}
        impl Scalar for $t {
            fn number(self) -> Number {
                let $v = self;
                $number
            }
        }
        impl Operand for $t {
            fn argument(&self) -> Argument<'_> {
                Argument::Number(self.number())
            }
        }
    )*};
}

scalars! {
    f64 => |v| Number::F64(v),
    f32 => |v| Number::F64(f64::from(v)),
    i64 => |v| Number::I64(v),
    i32 => |v| Number::I64(i64::from(v)),
    usize => |v| Number::I64(i64::try_from(v).unwrap_or(i64::MAX)),
    bool => |v| Number::Bool(v),
}

impl<S: Scalar> From<S> for Number {
    fn from(value: S) -> Number {
        value.number()
    }
}
