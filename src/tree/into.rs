//! What may be passed where a tree is expected: the tree, a reference to it, or the same shape of either; numbers for tensors.

use super::{StaticValue, Tree};
use crate::Tensor;
use lazuli_ir::Literal;
use std::collections::BTreeMap;

/// A value that can be passed where the tree `T` is expected.
///
/// A tree by value is given away: a compiled program may write its results into that storage. A tree by reference is kept.
/// A number becomes a weak 0-d tensor. Tuples, arrays, `Vec`, `Option` and maps of these follow: `(&model, x, 0.1)` is an
/// `IntoTree<(Model, Tensor, Tensor)>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed where `{T}` is expected",
    note = "a tensor is passed by value, by reference, or as a number; tuples, arrays and `Vec` hold these",
    note = "`#[derive(Tree)]` makes a struct passable by value, and with `Clone` by reference"
)]
pub trait IntoTree<T> {
    /// The tree.
    fn into_tree(self) -> T;
}

impl<T: Tree + Clone> IntoTree<T> for &T {
    fn into_tree(self) -> T {
        self.clone()
    }
}

impl IntoTree<Tensor> for Tensor {
    fn into_tree(self) -> Tensor {
        self
    }
}

macro_rules! numbers {
    ($($t:ty => $literal:expr),*) => {$(
        impl IntoTree<Tensor> for $t {
            #[track_caller]
            fn into_tree(self) -> Tensor {
                let literal: fn($t) -> Literal = $literal;
                Tensor::number(literal(self))
            }
        }
    )*};
}

// A float is of the default dtype, as in `torch.tensor(0.1)`.
numbers! {
    f64 => |v| Literal::F32(v as f32),
    f32 => Literal::F32,
    i64 => Literal::I64,
    i32 => |v| Literal::I64(v.into()),
    bool => Literal::Bool
}

macro_rules! tuples {
    ($($($a:ident $t:ident $i:tt),*;)*) => {$(
        impl<$($a: IntoTree<$t>, $t),*> IntoTree<($($t,)*)> for ($($a,)*) {
            #[allow(clippy::unused_unit)]
            fn into_tree(self) -> ($($t,)*) {
                ($(self.$i.into_tree(),)*)
            }
        }
    )*};
}

tuples! {
    ;
    A T 0;
    A T 0, B U 1;
    A T 0, B U 1, C V 2;
    A T 0, B U 1, C V 2, D W 3;
    A T 0, B U 1, C V 2, D W 3, E X 4;
    A T 0, B U 1, C V 2, D W 3, E X 4, F Y 5;
    A T 0, B U 1, C V 2, D W 3, E X 4, F Y 5, G Z 6;
    A T 0, B U 1, C V 2, D W 3, E X 4, F Y 5, G Z 6, H S 7;
}

impl<A: IntoTree<T>, T> IntoTree<Vec<T>> for Vec<A> {
    fn into_tree(self) -> Vec<T> {
        self.into_iter().map(A::into_tree).collect()
    }
}

impl<A: IntoTree<T>, T, const N: usize> IntoTree<[T; N]> for [A; N] {
    fn into_tree(self) -> [T; N] {
        self.map(A::into_tree)
    }
}

impl<A: IntoTree<T>, T> IntoTree<Option<T>> for Option<A> {
    fn into_tree(self) -> Option<T> {
        self.map(A::into_tree)
    }
}

impl<K: StaticValue + Ord, A: IntoTree<T>, T> IntoTree<BTreeMap<K, T>> for BTreeMap<K, A> {
    fn into_tree(self) -> BTreeMap<K, T> {
        self.into_iter().map(|(k, a)| (k, a.into_tree())).collect()
    }
}

impl<A: IntoTree<T>, T> IntoTree<Box<T>> for Box<A> {
    fn into_tree(self) -> Box<T> {
        Box::new((*self).into_tree())
    }
}
