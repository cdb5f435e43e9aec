//! `+ - * / % & | ^ << >>` between tensors, references and numbers in every combination, unary `-` and `!`, and the assigning
//! forms.
//!
//! Numbers on the right are one generic implementation each: with one for every number type, the type of a literal in
//! `(&b * 2.0).exp()` could not be inferred. On the left are exactly `f64` and `i64`. Assigning forms rebind the variable;
//! they write into no tensor.

use super::arithmetic::{add, div, mul, sub};
use super::pairwise::{bitwise_and, bitwise_left_shift, bitwise_or, bitwise_right_shift, bitwise_xor, remainder};
use crate::Tensor;
use crate::operand::{Operand, Scalar};
use std::ops::{
    Add, AddAssign, BitAnd, BitAndAssign, BitOr, BitOrAssign, BitXor, BitXorAssign, Div, DivAssign, Mul, MulAssign,
    Neg, Not, Rem, RemAssign, Shl, ShlAssign, Shr, ShrAssign, Sub, SubAssign,
};

macro_rules! forward {
    ($trait:ident $method:ident $function:ident: $([$($generics:tt)*] $left:ty, $right:ty;)*) => {$(
        impl<$($generics)*> $trait<$right> for $left {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $right) -> Tensor {
                $function(self.argument(), other.argument())
            }
        }
    )*};
}

macro_rules! operators {
    ($($trait:ident $method:ident $assign:ident $assign_method:ident $function:ident;)*) => {$(
        forward! {
            $trait $method $function:
            [] Tensor, Tensor;
            [] Tensor, &Tensor;
            [] &Tensor, Tensor;
            [] &Tensor, &Tensor;
            [] f64, Tensor;
            [] f64, &Tensor;
            [] i64, Tensor;
            [] i64, &Tensor;
        }

        impl<S: Scalar> $trait<S> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: S) -> Tensor {
                $function(self.argument(), crate::operand::Argument::Number(other.number()))
            }
        }

        impl<S: Scalar> $trait<S> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: S) -> Tensor {
                $function(self.argument(), crate::operand::Argument::Number(other.number()))
            }
        }

        impl<T: Operand> $assign<T> for Tensor {
            #[track_caller]
            fn $assign_method(&mut self, other: T) {
                *self = $function(self.argument(), other.argument());
            }
        }
    )*};
}

operators! {
    Add add AddAssign add_assign add;
    Sub sub SubAssign sub_assign sub;
    Mul mul MulAssign mul_assign mul;
    Div div DivAssign div_assign div;
    Rem rem RemAssign rem_assign remainder;
    BitAnd bitand BitAndAssign bitand_assign bitwise_and;
    BitOr bitor BitOrAssign bitor_assign bitwise_or;
    BitXor bitxor BitXorAssign bitxor_assign bitwise_xor;
    Shl shl ShlAssign shl_assign bitwise_left_shift;
    Shr shr ShrAssign shr_assign bitwise_right_shift;
}

impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}

impl Not for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn not(self) -> Tensor {
        self.bitwise_not()
    }
}

impl Not for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn not(self) -> Tensor {
        self.bitwise_not()
    }
}
