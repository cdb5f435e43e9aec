//! The structure of a tree as data: tokens in preorder, to compare, hash, print, and to name leaves and differences by.

use crate::{Error, ErrorKind};
use std::any::Any;
use std::fmt::{self, Debug, Write};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A value that belongs to a tree's structure: a field marked `#[tree(static)]`, or the key of a map.
///
/// Implemented for everything that is `Debug + Eq + Hash + Send + Sync + 'static`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a `#[tree(static)]` field or a map's key",
    note = "it belongs to the signature, so it needs `Clone + Debug + Eq + Hash + Send + Sync + 'static`"
)]
pub trait StaticValue: Any + Debug + Send + Sync {
    /// Whether the other value has the same type and is equal.
    fn same(&self, other: &dyn Any) -> bool;

    /// Feeds the hash.
    fn feed(&self, state: &mut dyn Hasher);

    /// The value as `Any`.
    fn any(&self) -> &dyn Any;
}

impl<T: Debug + Eq + Hash + Send + Sync + 'static> StaticValue for T {
    fn same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }

    fn feed(&self, mut state: &mut dyn Hasher) {
        self.hash(&mut state);
    }

    fn any(&self) -> &dyn Any {
        self
    }
}

macro_rules! floats {
    ($($(#[$doc:meta])* $name:ident($t:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(pub $t);

        impl PartialEq for $name {
            fn eq(&self, other: &$name) -> bool {
                self.0.to_bits() == other.0.to_bits()
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.to_bits().hash(state);
            }
        }

        impl Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Debug::fmt(&self.0, f)
            }
        }
    )*};
}

floats! {
    /// An `f32` compared by its bits: how the derive macro keeps a static field of this type.
    Float32(f32);
    /// An `f64` compared by its bits: how the derive macro keeps a static field of this type.
    Float64(f64);
}

/// One step of a structure, in preorder.
#[derive(Clone)]
pub(super) enum Token {
    Leaf,
    Tuple(usize),
    List(usize),
    Map(usize),
    None,
    Some,
    Struct(&'static str, usize),
    Field(&'static str),
    Static(Arc<dyn StaticValue>),
}

impl Token {
    pub(super) fn constant(value: impl StaticValue) -> Token {
        Token::Static(Arc::new(value))
    }

    /// The static value, where it has this type.
    pub(super) fn value<T: Clone + 'static>(&self) -> Option<T> {
        match self {
            Token::Static(value) => (**value).any().downcast_ref::<T>().cloned(),
            _ => None,
        }
    }

    /// The number of values that follow inside of it.
    fn children(&self) -> usize {
        match self {
            Token::Tuple(n) | Token::List(n) | Token::Map(n) | Token::Struct(_, n) => *n,
            Token::Leaf | Token::None | Token::Some | Token::Field(_) | Token::Static(_) => 0,
        }
    }

    fn words(&self) -> String {
        match self {
            Token::Leaf => "a tensor".to_owned(),
            Token::Tuple(n) => format!("a tuple of {n}"),
            Token::List(n) => format!("a list of {n}"),
            Token::Map(n) => format!("a map of {n}"),
            Token::None => "None".to_owned(),
            Token::Some => "Some".to_owned(),
            Token::Struct(name, _) => (*name).to_owned(),
            Token::Field(name) => format!("field `{name}`"),
            Token::Static(value) => format!("{value:?}"),
        }
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        match (self, other) {
            (Token::Leaf, Token::Leaf) | (Token::None, Token::None) | (Token::Some, Token::Some) => true,
            (Token::Tuple(a), Token::Tuple(b)) | (Token::List(a), Token::List(b)) | (Token::Map(a), Token::Map(b)) => {
                a == b
            }
            (Token::Struct(a, n), Token::Struct(b, m)) => a == b && n == m,
            (Token::Field(a), Token::Field(b)) => a == b,
            (Token::Static(a), Token::Static(b)) => (**a).same((**b).any()),
            _ => false,
        }
    }
}

impl Eq for Token {}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Token::Leaf | Token::None | Token::Some => {}
            Token::Tuple(n) | Token::List(n) | Token::Map(n) => n.hash(state),
            Token::Struct(name, n) => (name, n).hash(state),
            Token::Field(name) => name.hash(state),
            Token::Static(value) => (**value).feed(state),
        }
    }
}

impl Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

pub(super) fn unexpected(wanted: &str, found: Option<&Token>) -> Error {
    let found = found.map_or_else(|| "nothing more".to_owned(), Token::words);
    Error::new(ErrorKind::Value, format!("the tree's structure does not fit: expected {wanted}, found {found}"))
}

/// How the leaves of a tree hang together, static fields included: what two calls must share to share a program.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Structure(Arc<[Token]>);

impl Structure {
    pub(super) fn new(tokens: Vec<Token>) -> Structure {
        Structure(tokens.into())
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.0
    }

    /// The number of leaves.
    pub fn leaves(&self) -> usize {
        self.0.iter().filter(|t| matches!(t, Token::Leaf)).count()
    }

    /// The leaves' names, in order, as one would write them in Rust from a variable of this name:
    /// `model.layers[1].weight`.
    pub fn paths(&self, root: &str) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(root, |path, token| {
            if matches!(token, Token::Leaf) {
                paths.push(path.to_owned());
            }
        });
        paths
    }

    /// The first place where two structures differ, in words; `None` where they are equal.
    pub fn difference(&self, other: &Structure, root: &str) -> Option<String> {
        if self == other {
            return None;
        }
        let at = self.0.iter().zip(&*other.0).take_while(|(a, b)| a == b).count();
        let mut index = 0;
        let mut place = root.to_owned();
        self.walk(root, |path, _| {
            if index <= at {
                path.clone_into(&mut place);
            }
            index += 1;
        });
        let words = |s: &Structure| s.0.get(at).map_or_else(|| "nothing".to_owned(), Token::words);
        Some(format!("`{place}`: {}, was {}", words(other), words(self)))
    }

    pub(super) fn misfit(&self) -> Error {
        Error::new(ErrorKind::Value, format!("the leaves do not fit the tree's structure {self}"))
    }

    /// Calls `visit` with each token and the path to what it describes.
    fn walk(&self, root: &str, mut visit: impl FnMut(&str, &Token)) {
        let mut path = root.to_owned();
        let mut open: Vec<Frame> = Vec::new();
        for token in &*self.0 {
            let is_name = open.last_mut().is_some_and(|frame| frame.enter(token, &mut path));
            visit(&path, token);
            if is_name || matches!(token, Token::Some) {
                continue;
            }
            match token.children() {
                0 => close(&mut open, &mut path, root.len()),
                children => {
                    open.push(Frame { container: token.clone(), children, next: 0, end: path.len(), named: false })
                }
            }
        }
    }
}

/// A container that a walk is inside of.
struct Frame {
    container: Token,
    children: usize,
    next: usize,
    /// Where the container's own path ends.
    end: usize,
    /// Whether the current child's name is on the path already.
    named: bool,
}

impl Frame {
    /// Appends the name of the child that begins at this token. Says whether the token is that name and no more.
    fn enter(&mut self, token: &Token, path: &mut String) -> bool {
        if std::mem::replace(&mut self.named, true) {
            return false;
        }
        let written = match (&self.container, token) {
            (Token::Struct(..), Token::Field(name)) => write!(path, ".{name}"),
            (Token::Map(_), key) => write!(path, "[{}]", key.words()),
            (Token::Tuple(_), _) => write!(path, ".{}", self.next),
            _ => write!(path, "[{}]", self.next),
        };
        written.is_ok() && matches!(self.container, Token::Struct(..) | Token::Map(_))
    }
}

/// A child is complete: the path goes back to its container, and so on outwards where that is complete too.
fn close(open: &mut Vec<Frame>, path: &mut String, root: usize) {
    while let Some(frame) = open.last_mut() {
        frame.next += 1;
        frame.named = false;
        path.truncate(frame.end);
        if frame.next < frame.children {
            return;
        }
        open.pop();
    }
    path.truncate(root);
}

impl fmt::Display for Structure {
    /// `(Linear { weight: *, bias: None, name: "first" }, [*, *])`: a `*` for each leaf.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut closers: Vec<(&'static str, usize)> = Vec::new();
        for token in &*self.0 {
            match token {
                Token::Field(name) => {
                    write!(f, "{name}: ")?;
                    continue;
                }
                Token::Static(key) if closers.last().is_some_and(|(end, left)| *end == "}" && left % 2 == 0) => {
                    write!(f, "{key:?}: ")?;
                    if let Some((_, left)) = closers.last_mut() {
                        *left -= 1;
                    }
                    continue;
                }
                Token::Leaf => f.write_str("*")?,
                Token::None => f.write_str("None")?,
                Token::Some => continue,
                Token::Static(value) => write!(f, "{value:?}")?,
                Token::Tuple(n) => open_bracket(f, &mut closers, "(", (")", *n))?,
                Token::List(n) => open_bracket(f, &mut closers, "[", ("]", *n))?,
                Token::Map(n) => open_bracket(f, &mut closers, "{", ("}", 2 * n))?,
                Token::Struct(name, n) => {
                    write!(f, "{name} ")?;
                    open_bracket(f, &mut closers, "{ ", (" }", *n))?;
                }
            }
            if token.children() > 0 {
                continue;
            }
            while let Some((end, left)) = closers.last_mut() {
                *left -= 1;
                if *left > 0 {
                    f.write_str(", ")?;
                    break;
                }
                f.write_str(end)?;
                closers.pop();
            }
        }
        Ok(())
    }
}

/// Writes an opening bracket, and the closing one at once where nothing stands between.
fn open_bracket(
    f: &mut fmt::Formatter<'_>,
    closers: &mut Vec<(&'static str, usize)>,
    open: &str,
    close: (&'static str, usize),
) -> fmt::Result {
    f.write_str(open)?;
    if close.1 == 0 {
        return f.write_str(close.0);
    }
    closers.push(close);
    Ok(())
}

impl Debug for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(tokens: Vec<Token>) -> Structure {
        Structure::new(tokens)
    }

    fn model(width: usize) -> Structure {
        structure(vec![
            Token::Tuple(3),
            Token::Struct("Model", 3),
            Token::Field("layers"),
            Token::List(2),
            Token::Struct("Linear", 1),
            Token::Field("weight"),
            Token::Leaf,
            Token::Some,
            Token::Tuple(2),
            Token::Leaf,
            Token::List(0),
            Token::Field("width"),
            Token::constant(width),
            Token::Field("bias"),
            Token::None,
            Token::Map(1),
            Token::constant("mean"),
            Token::Leaf,
            Token::Leaf,
        ])
    }

    #[test]
    fn leaves_are_named_as_one_would_write_them() {
        let paths = model(3).paths("x");
        assert_eq!(paths, ["x.0.layers[0].weight", "x.0.layers[1].0", "x.1[\"mean\"]", "x.2"]);
    }

    #[test]
    fn structures_print() {
        let text = model(3).to_string();
        assert_eq!(text, "(Model { layers: [Linear { weight: * }, (*, [])], width: 3, bias: None }, {\"mean\": *}, *)");
    }

    #[test]
    fn static_values_are_part_of_equality_and_differences_are_named() {
        use std::hash::BuildHasher;
        let hasher = rustc_hash::FxBuildHasher;
        assert_eq!(model(3), model(3));
        assert_eq!(hasher.hash_one(model(3)), hasher.hash_one(model(3)));
        assert_eq!(model(3).difference(&model(4), "x").unwrap(), "`x.0.width`: 4, was 3");
        assert_eq!(Float64(f64::NAN), Float64(f64::NAN));
        assert_ne!(Token::constant(Float64(0.0)), Token::constant(Float64(-0.0)));
        assert_ne!(Token::constant(1i32), Token::constant(1i64));
    }
}
