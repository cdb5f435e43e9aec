//! Trees: values whose leaves are tensors, taken apart into leaves and a structure and put together again.
//!
//! What enters and leaves a compiled function or a gradient is a [`Tree`]: a tensor, a tuple, an array, a `Vec`, an
//! `Option`, a `BTreeMap`, or a struct with `#[derive(Tree)]`. A tree falls into its leaves, in order, and a [`Structure`]:
//! a flat list of tokens that says how the leaves hang together, which can be compared, hashed and printed. It holds the
//! fields marked `#[tree(static)]` too, so two models that differ in such a field have different structures.

mod into;
mod structure;

pub use into::IntoTree;
pub use structure::{Float32, Float64, StaticValue, Structure};

use crate::{Result, Tensor};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use structure::Token;

/// A value whose leaves are tensors.
///
/// Derive it for structs: every field is a tree, or is marked `#[tree(static)]` and then belongs to the structure (it
/// needs `Clone + Debug + Eq + Hash + Send + Sync + 'static`; an `f32` or `f64` is compared by its bits).
///
/// ```
/// use lazuli::prelude::*;
///
/// #[derive(Clone, Debug, Tree)]
/// struct Linear {
///     weight: Tensor,
///     bias: Option<Tensor>,
///     #[tree(static)]
///     name: String,
/// }
///
/// let layer = Linear { weight: Tensor::ones([2, 3]), bias: None, name: "first".into() };
/// let (structure, leaves) = layer.into_parts();
/// assert_eq!(leaves.len(), 1);
/// assert_eq!(structure.paths("layer"), ["layer.weight"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tree of tensors",
    label = "neither a tensor nor made of tensors",
    note = "derive it for your own structs: `#[derive(Clone, Tree)]`",
    note = "a field that holds no tensors is marked `#[tree(static)]`"
)]
pub trait Tree: Sized {
    /// Takes the tree apart: gives its leaves and the tokens of its structure to `parts`, in order.
    fn flatten_into(self, parts: &mut Flatten);

    /// Puts a tree together from what [`flatten_into`](Self::flatten_into) gave.
    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self>;

    /// The structure and the leaves, in order.
    fn into_parts(self) -> (Structure, Vec<Tensor>) {
        let mut parts = Flatten::default();
        self.flatten_into(&mut parts);
        (Structure::new(parts.tokens), parts.leaves)
    }

    /// The tree of this structure with these leaves; an error where they do not fit.
    fn from_parts(structure: &Structure, leaves: impl IntoIterator<Item = Tensor>) -> Result<Self> {
        let mut parts =
            Unflatten { tokens: structure.tokens().iter(), leaves: leaves.into_iter().collect::<Vec<_>>().into_iter() };
        let tree = Self::unflatten_from(&mut parts)?;
        match (parts.tokens.next(), parts.leaves.next()) {
            (None, None) => Ok(tree),
            _ => Err(structure.misfit()),
        }
    }

    /// The tree with each leaf replaced by what `f` makes of it.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (a, b) = (Tensor::ones([2]), Tensor::ones([3])).map_leaves(|t| &t * 2.0)?;
    /// assert_eq!(b.to_vec::<f32>()?, [2.0; 3]);
    /// # let _ = a;
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    fn map_leaves(self, f: impl FnMut(Tensor) -> Tensor) -> Result<Self> {
        let (structure, leaves) = self.into_parts();
        Self::from_parts(&structure, leaves.into_iter().map(f))
    }

    /// The tree with each leaf replaced by what `f` makes of it and its counterpart in `other`, a tree of the same
    /// structure. This is how an optimizer walks parameters and gradients.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (model, gradient) = (vec![Tensor::ones([2])], vec![Tensor::ones([2])]);
    /// let model = model.zip_leaves(gradient, |p, g| p - 0.5 * g)?;
    /// assert_eq!(model[0].to_vec::<f32>()?, [0.5, 0.5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    fn zip_leaves(self, other: Self, mut f: impl FnMut(Tensor, Tensor) -> Tensor) -> Result<Self> {
        let (structure, leaves) = self.into_parts();
        let (other_structure, others) = other.into_parts();
        if let Some(difference) = structure.difference(&other_structure, "tree") {
            return Err(crate::Error::new(
                crate::ErrorKind::Value,
                format!("the trees have different structures: {difference}"),
            ));
        }
        Self::from_parts(&structure, leaves.into_iter().zip(others).map(|(a, b)| f(a, b)))
    }
}

/// What a tree is taken apart into.
#[derive(Debug, Default)]
pub struct Flatten {
    tokens: Vec<Token>,
    leaves: Vec<Tensor>,
}

impl Flatten {
    /// A leaf.
    pub fn leaf(&mut self, leaf: Tensor) {
        self.tokens.push(Token::Leaf);
        self.leaves.push(leaf);
    }

    /// A struct of this name and number of fields, which follow. An all-digit field name is a tuple struct's.
    pub fn open(&mut self, name: &'static str, fields: usize) {
        self.tokens.push(Token::Struct(name, fields));
    }

    /// The next field's name.
    pub fn field(&mut self, name: &'static str) {
        self.tokens.push(Token::Field(name));
    }

    /// A value that belongs to the structure.
    pub fn constant(&mut self, value: impl StaticValue) {
        self.tokens.push(Token::constant(value));
    }
}

/// What a tree is put together from.
#[derive(Debug)]
pub struct Unflatten<'a> {
    tokens: std::slice::Iter<'a, Token>,
    leaves: std::vec::IntoIter<Tensor>,
}

impl Unflatten<'_> {
    /// The next leaf.
    pub fn leaf(&mut self) -> Result<Tensor> {
        match (self.tokens.next(), self.leaves.next()) {
            (Some(Token::Leaf), Some(leaf)) => Ok(leaf),
            (found, _) => Err(structure::unexpected("a tensor", found)),
        }
    }

    /// Enters a struct.
    pub fn open(&mut self, name: &'static str, fields: usize) -> Result<()> {
        self.expect(name, |t| matches!(t, Token::Struct(n, f) if *n == name && *f == fields))
    }

    /// Enters a field.
    pub fn field(&mut self, name: &'static str) -> Result<()> {
        self.expect(name, |t| matches!(t, Token::Field(n) if *n == name))
    }

    /// The next value of the structure.
    pub fn constant<T: StaticValue + Clone>(&mut self) -> Result<T> {
        let found = self.tokens.next();
        found.and_then(|t| t.value::<T>()).ok_or_else(|| structure::unexpected(std::any::type_name::<T>(), found))
    }

    fn expect(&mut self, wanted: &str, fits: impl FnOnce(&Token) -> bool) -> Result<()> {
        match self.tokens.next() {
            Some(t) if fits(t) => Ok(()),
            found => Err(structure::unexpected(wanted, found)),
        }
    }

    fn length(&mut self, wanted: &str, length: impl FnOnce(&Token) -> Option<usize>) -> Result<usize> {
        let found = self.tokens.next();
        found.and_then(length).ok_or_else(|| structure::unexpected(wanted, found))
    }
}

impl Tree for Tensor {
    fn flatten_into(self, parts: &mut Flatten) {
        parts.leaf(self);
    }

    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
        parts.leaf()
    }
}

macro_rules! tuples {
    ($($n:literal: $($t:ident $i:tt),*;)*) => {$(
        impl<$($t: Tree),*> Tree for ($($t,)*) {
            fn flatten_into(self, parts: &mut Flatten) {
                parts.tokens.push(Token::Tuple($n));
                $(self.$i.flatten_into(parts);)*
            }

            fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
                parts.expect("a tuple", |t| matches!(t, Token::Tuple($n)))?;
                Ok(($($t::unflatten_from(parts)?,)*))
            }
        }
    )*};
}

tuples! {
    0: ;
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}

impl<T: Tree> Tree for Vec<T> {
    fn flatten_into(self, parts: &mut Flatten) {
        parts.tokens.push(Token::List(self.len()));
        for item in self {
            item.flatten_into(parts);
        }
    }

    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
        let length = parts.length("a list", |t| match t {
            Token::List(n) => Some(*n),
            _ => None,
        })?;
        (0..length).map(|_| T::unflatten_from(parts)).collect()
    }
}

impl<T: Tree, const N: usize> Tree for [T; N] {
    fn flatten_into(self, parts: &mut Flatten) {
        parts.tokens.push(Token::List(N));
        for item in self {
            item.flatten_into(parts);
        }
    }

    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
        let items = Vec::<T>::unflatten_from(parts)?;
        let found = items.len();
        items.try_into().map_err(|_| structure::unexpected(&format!("a list of {N}"), Some(&Token::List(found))))
    }
}

impl<T: Tree> Tree for Option<T> {
    fn flatten_into(self, parts: &mut Flatten) {
        match self {
            Some(tree) => {
                parts.tokens.push(Token::Some);
                tree.flatten_into(parts);
            }
            None => parts.tokens.push(Token::None),
        }
    }

    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
        match parts.tokens.next() {
            Some(Token::Some) => T::unflatten_from(parts).map(Some),
            Some(Token::None) => Ok(None),
            found => Err(structure::unexpected("an optional tree", found)),
        }
    }
}

impl<K: StaticValue + Clone + Ord, T: Tree> Tree for BTreeMap<K, T> {
    fn flatten_into(self, parts: &mut Flatten) {
        parts.tokens.push(Token::Map(self.len()));
        for (key, tree) in self {
            parts.constant(key);
            tree.flatten_into(parts);
        }
    }

    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
        let length = parts.length("a map", |t| match t {
            Token::Map(n) => Some(*n),
            _ => None,
        })?;
        (0..length).map(|_| Ok((parts.constant()?, T::unflatten_from(parts)?))).collect()
    }
}

impl<T: Tree> Tree for Box<T> {
    fn flatten_into(self, parts: &mut Flatten) {
        (*self).flatten_into(parts);
    }

    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
        T::unflatten_from(parts).map(Box::new)
    }
}

impl<T> Tree for PhantomData<T> {
    fn flatten_into(self, parts: &mut Flatten) {
        parts.tokens.push(Token::Tuple(0));
    }

    fn unflatten_from(parts: &mut Unflatten<'_>) -> Result<Self> {
        <()>::unflatten_from(parts).map(|()| PhantomData)
    }
}

/// What a traced function returns: a tree, or a `Result` of one.
pub trait Outcome {
    /// The tree.
    type Tree: Tree;

    /// The tree, or what went wrong.
    fn outcome(self) -> Result<Self::Tree>;
}

impl<T: Tree> Outcome for T {
    type Tree = T;

    fn outcome(self) -> Result<T> {
        Ok(self)
    }
}

impl<T: Tree> Outcome for Result<T> {
    type Tree = T;

    fn outcome(self) -> Result<T> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tree;

    #[derive(Clone, Tree)]
    struct Linear {
        weight: Tensor,
        bias: Option<Tensor>,
        #[tree(static)]
        dropout: f64,
    }

    #[derive(Clone, Tree)]
    struct Stack<T, const N: usize>(Vec<T>, [Tensor; N], #[tree(static)] &'static str);

    #[derive(Clone, Tree)]
    struct Nothing;

    fn linear(bias: bool, dropout: f64) -> Linear {
        Linear { weight: 1.0.into_tree(), bias: bias.then(|| 2.0.into_tree()), dropout }
    }

    #[test]
    fn a_derived_struct_comes_apart_and_together() {
        let stack = Stack(vec![linear(true, 0.5), linear(false, 0.25)], [3.0.into_tree()], "relu");
        let (structure, leaves) = (stack, Nothing).into_parts();
        assert_eq!(structure.paths("m"), ["m.0.0[0].weight", "m.0.0[0].bias", "m.0.0[1].weight", "m.0.1[0]"]);
        let (back, _) = <(Stack<Linear, 1>, Nothing)>::from_parts(&structure, leaves).unwrap();
        assert_eq!((back.2, back.0[0].dropout, back.0[1].dropout), ("relu", 0.5, 0.25));
        assert!(back.0[0].bias.is_some() && back.0[1].bias.is_none());
        assert!(Linear::from_parts(&structure, []).is_err());
    }

    #[test]
    fn a_static_field_changes_the_structure() {
        let (a, _) = linear(true, 0.5).into_parts();
        let (b, _) = linear(true, 0.1).into_parts();
        let (c, _) = linear(false, 0.5).into_parts();
        assert_eq!(a.difference(&b, "x").unwrap(), "`x.dropout`: 0.1, was 0.5");
        assert_eq!(a.difference(&c, "x").unwrap(), "`x.bias`: None, was Some");
    }
}
