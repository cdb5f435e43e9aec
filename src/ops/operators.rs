//! `+ - * /` between tensors, references and numbers in every combination, unary `-`, and the assigning forms.
//!
//! Numbers on the right are one generic implementation each: with one for every number type, the type of a literal in
//! `(&b * 2.0).exp()` could not be inferred. On the left are exactly `f64` and `i64`. Assigning forms rebind the variable;
//! they write into no tensor.

use super::arithmetic::{add, div, mul, sub};
use crate::Tensor;
use crate::operand::{Operand, Scalar};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

macro_rules! forward {
    ($trait:ident $method:ident: $([$($generics:tt)*] $left:ty, $right:ty;)*) => {$(
        impl<$($generics)*> $trait<$right> for $left {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $right) -> Tensor {
                $method(self.argument(), other.argument())
            }
        }
    )*};
}

macro_rules! operators {
    ($($trait:ident $method:ident $assign:ident $assign_method:ident;)*) => {$(
        forward! {
            $trait $method:
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
                $method(self.argument(), crate::operand::Argument::Number(other.number()))
            }
        }

        impl<S: Scalar> $trait<S> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: S) -> Tensor {
                $method(self.argument(), crate::operand::Argument::Number(other.number()))
            }
        }

        impl<T: Operand> $assign<T> for Tensor {
            #[track_caller]
            fn $assign_method(&mut self, other: T) {
                *self = $method(self.argument(), other.argument());
            }
        }
    )*};
}

operators! {
    Add add AddAssign add_assign;
    Sub sub SubAssign sub_assign;
    Mul mul MulAssign mul_assign;
    Div div DivAssign div_assign;
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
