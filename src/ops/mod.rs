//! Operations on tensors, by family.
//!
//! Two kinds stand here. *Primitives* bring their operands to one dtype and shape (`promotion.rs`) and record one operation of
//! the Graph IR. *Composites* are built from those and cost no other layer anything; each fixes its form, and says its
//! gradient at kinks. A composite of floats computes halves in `f32` and rounds once, at the end.

/// The value of a `Result`, or return from the method a tensor that carries the error under the operation's name.
macro_rules! ok {
    ($name:expr, $given:expr, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(e) => return $crate::Tensor::fail($name, $given, e.kind(), e.message()),
        }
    };
}

/// The value of a `Result`, or return from the method the tensor that failed.
macro_rules! or_failed {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(failed) => return failed,
        }
    };
}

/// A struct of an operation's optional arguments: PyTorch's defaults, which `()` stands for.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $t:ty = $default:expr,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[$about])* pub $field: $t,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default),* }
            }
        }

        impl From<()> for $name {
            fn from((): ()) -> $name {
                $name::default()
            }
        }
    )*};
}

pub(crate) mod activation;
pub(crate) mod advanced;
pub(crate) mod arithmetic;
pub(crate) mod attention;
pub(crate) mod classification;
pub(crate) mod comparison;
pub(crate) mod contraction;
pub(crate) mod convolution;
pub(crate) mod creation;
pub(crate) mod ctc;
pub(crate) mod diagonal;
pub(crate) mod dropout;
pub(crate) mod einsum;
pub(crate) mod elementwise;
pub(crate) mod gather;
pub(crate) mod index;
pub(crate) mod interpolate;
pub(crate) mod join;
pub(crate) mod linear;
#[macro_use]
pub(crate) mod loss;
pub(crate) mod likelihood;
pub(crate) mod margin;
pub(crate) mod movement;
pub(crate) mod norm;
pub(crate) mod normalization;
pub(crate) mod operators;
pub(crate) mod order;
pub(crate) mod pad;
pub(crate) mod pairwise;
pub(crate) mod pooling;
pub(crate) mod rearrange;
pub(crate) mod reduce;
pub(crate) mod scatter;
pub(crate) mod selection;
pub(crate) mod shrink;
pub(crate) mod softmax;
pub(crate) mod statistics;
