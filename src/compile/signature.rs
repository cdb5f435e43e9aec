//! What two calls must share to share a program, and how two signatures differ, in words.
//!
//! A signature holds the structure of the arguments (static fields included) and for each leaf its type, whether it is a
//! number, and its layout class. The value of a leaf is never in it. Flags such as `requires_grad` are not in it either: a
//! trace notes which of them it asked for, and only those are compared ([`Flags`]).

use crate::tree::Structure;
use lazuli_ir::{Device, DimVec, Layout, TensorType};
use lazuli_passes::Options;
use rustc_hash::FxHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Where a leaf's elements lie, as far as programs tell them apart: not the offset, and no stride of a dim of extent 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LayoutClass {
    Contiguous,
    Strided(DimVec<i64>),
}

impl LayoutClass {
    pub(crate) fn of(layout: &Layout) -> LayoutClass {
        if layout.is_contiguous() {
            return LayoutClass::Contiguous;
        }
        LayoutClass::Strided(layout.canonical().strides)
    }

    /// The layout that a program for this class is compiled for.
    pub(crate) fn layout(&self, ty: &TensorType) -> Layout {
        let mut layout = Layout::contiguous(ty.shape.clone());
        if let LayoutClass::Strided(strides) = self {
            layout.strides.clone_from(strides);
        }
        layout
    }
}

impl fmt::Display for LayoutClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutClass::Contiguous => f.write_str("contiguous"),
            LayoutClass::Strided(strides) => write!(f, "strides {:?}", strides.as_slice()),
        }
    }
}

/// A leaf of the arguments, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeafSignature {
    pub(crate) ty: TensorType,
    pub(crate) weak: bool,
    pub(crate) layout: LayoutClass,
}

impl fmt::Display for LeafSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.layout, self.weak) {
            (_, true) => write!(f, "{} number", self.ty.dtype),
            (LayoutClass::Contiguous, false) => write!(f, "{}", self.ty),
            (strided, false) => write!(f, "{} ({strided})", self.ty),
        }
    }
}

/// What a program is kept under.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub(crate) structure: Structure,
    pub(crate) leaves: Vec<LeafSignature>,
    /// Where the program runs, where an argument says so. Where none does it is the CPU, unless the function captured what lies
    /// elsewhere; so both count as one, and a call whose arguments lie elsewhere than its program runs is refused.
    pub(crate) device: Option<Device>,
    /// What the program was compiled under.
    pub(crate) options: Options,
    hash: u64,
}

impl Signature {
    pub(crate) fn new(
        structure: Structure,
        leaves: Vec<LeafSignature>,
        device: Option<Device>,
        options: Options,
    ) -> Signature {
        let mut hasher = FxHasher::default();
        (&structure, &leaves, device.unwrap_or_default(), &options).hash(&mut hasher);
        Signature { structure, leaves, device, options, hash: hasher.finish() }
    }

    /// How `self`, the new signature, differs from an earlier one; empty where they are equal.
    pub(crate) fn differences(&self, was: &Signature, names: &ArgumentNames) -> Vec<String> {
        let root = names.root();
        if let Some(difference) = was.structure.difference(&self.structure, root) {
            return vec![names.rename(&difference)];
        }
        let mut words = Vec::new();
        let paths = names.of(&self.structure);
        for ((new, old), name) in self.leaves.iter().zip(&was.leaves).zip(paths) {
            new.differences(old, &name, &mut words);
        }
        let (new, old) = (self.device.unwrap_or_default(), was.device.unwrap_or_default());
        if new != old {
            words.push(format!("device: {new}, was {old}"));
        }
        if self.options != was.options {
            words.push(format!("options: {:?}, was {:?}", self.options, was.options));
        }
        words
    }
}

impl PartialEq for Signature {
    fn eq(&self, other: &Signature) -> bool {
        self.hash == other.hash
            && self.leaves == other.leaves
            && self.structure == other.structure
            && self.device.unwrap_or_default() == other.device.unwrap_or_default()
            && self.options == other.options
    }
}

impl LeafSignature {
    fn differences(&self, was: &LeafSignature, name: &str, words: &mut Vec<String>) {
        if self.weak != was.weak {
            let kind = |weak: bool| if weak { "a number" } else { "a tensor" };
            words.push(format!("`{name}`: {}, was {}", kind(self.weak), kind(was.weak)));
        }
        if self.ty.dtype != was.ty.dtype {
            words.push(format!("dtype of `{name}`: {}, was {}", self.ty.dtype, was.ty.dtype));
        }
        let (new, old) = (&self.ty.shape, &was.ty.shape);
        if new.rank() != old.rank() {
            words.push(format!("rank of `{name}`: {} {new}, was {} {old}", new.rank(), old.rank()));
            return;
        }
        for (i, (n, o)) in new.dims().iter().zip(old.dims()).enumerate() {
            if !n.same(*o) {
                words.push(format!("dim {i} of `{name}`: {n}, was {o}"));
            }
        }
        if new.same(old) && self.layout != was.layout {
            words.push(format!("layout of `{name}`: {}, was {}", self.layout, was.layout));
        }
    }
}

/// The names of the arguments: given by the user, or `arg0`, `arg1`, ... (`x` for a single one).
#[derive(Clone, Debug, Default)]
pub(crate) struct ArgumentNames(pub(crate) Vec<String>);

/// A root that no user would write, so that renaming cannot hit anything else.
const ROOT: &str = "\u{1}";

impl ArgumentNames {
    fn root(&self) -> &'static str {
        ROOT
    }

    /// The names of the leaves of the arguments.
    pub(crate) fn of(&self, structure: &Structure) -> Vec<String> {
        structure.paths(self.root()).iter().map(|path| self.rename(path)).collect()
    }

    /// Replaces the root, and the number of the argument under it, by the argument's name.
    fn rename(&self, text: &str) -> String {
        let mut parts = text.split(ROOT);
        let mut renamed = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let after_dot = part.strip_prefix('.').unwrap_or("");
            let digits = after_dot.len() - after_dot.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = after_dot.split_at(digits);
            match number.parse::<usize>() {
                Ok(index) => {
                    match self.0.get(index) {
                        Some(name) => renamed.push_str(name),
                        None => renamed.push_str(&format!("arg{index}")),
                    }
                    renamed.push_str(rest);
                }
                Err(_) => {
                    renamed.push_str(self.0.first().map_or("x", String::as_str));
                    renamed.push_str(part);
                }
            }
        }
        renamed
    }
}

/// The flags of input leaves that a trace asked for, and the answers it got: (leaf, `requires_grad`), sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) Vec<(usize, bool)>);

impl Flags {
    /// Whether leaves with these flags would have given the trace the same answers.
    pub(crate) fn hold(&self, flag: impl Fn(usize) -> bool) -> bool {
        self.0.iter().all(|&(leaf, answer)| flag(leaf) == answer)
    }

    /// The first answer that would differ, in words.
    pub(crate) fn difference(&self, flag: impl Fn(usize) -> bool, names: &[String]) -> Option<String> {
        let &(leaf, was) = self.0.iter().find(|&&(leaf, answer)| flag(leaf) != answer)?;
        let name = names.get(leaf).map_or("?", String::as_str);
        Some(format!("requires_grad of `{name}`: {}, was {was}", !was))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::tree::{IntoTree, Tree};
    use lazuli_ir::DType;

    fn leaf(shape: &[usize]) -> LeafSignature {
        LeafSignature { ty: TensorType::new(shape, DType::F32), weak: false, layout: LayoutClass::Contiguous }
    }

    fn signature(leaves: Vec<LeafSignature>) -> Signature {
        let tensor = || -> Tensor { 0.0.into_tree() };
        let (structure, _) = (vec![tensor()], tensor()).into_parts();
        Signature::new(structure, leaves, None, Options::default())
    }

    #[test]
    fn differences_are_told_in_words() {
        let names = ArgumentNames(vec!["w".into(), "x".into()]);
        let was = signature(vec![leaf(&[2]), leaf(&[64, 3])]);
        let new = signature(vec![leaf(&[2]), leaf(&[32, 3])]);
        assert_eq!(new.differences(&was, &names), ["dim 0 of `x`: 32, was 64"]);
        let strided = LeafSignature { layout: LayoutClass::Strided([1, 64].into_iter().collect()), ..leaf(&[64, 3]) };
        let new = signature(vec![LeafSignature { weak: true, ..leaf(&[]) }, strided]);
        let unnamed = ArgumentNames::default();
        assert_eq!(
            new.differences(&was, &unnamed),
            [
                "`arg0[0]`: a number, was a tensor",
                "rank of `arg0[0]`: 0 [], was 1 [2]",
                "layout of `arg1`: strides [1, 64], was contiguous"
            ]
        );
        assert!(new.differences(&new, &unnamed).is_empty());
    }

    #[test]
    fn the_layout_class_ignores_offset_and_dims_of_extent_one() {
        let mut layout = Layout::contiguous([4, 1, 3].into());
        layout.offset = 7;
        layout.strides[1] = 99;
        assert_eq!(LayoutClass::of(&layout), LayoutClass::Contiguous);
    }
}
