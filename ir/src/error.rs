//! The one error type: what was given, where, and what would be right.

use crate::{Source, Sources, TensorType};
use std::fmt;
use std::sync::Arc;

/// `Result` with lazuli's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Shapes do not fit the operation, or each other.
    Shape,
    /// A dtype does not fit the operation.
    DType,
    /// A dim is out of range or given twice.
    Dim,
    /// An index or label is out of range.
    Index,
    /// A value (a number, a length, a seed) is not allowed.
    Value,
    /// A value was read inside a trace, or a traced tensor outside it.
    Trace,
    /// Gradients: no history, freed history, a non-scalar loss, a cut.
    Autograd,
    /// A device is missing, or devices were mixed.
    Device,
    /// Memory could not be allocated.
    Memory,
    /// Text did not parse.
    Parse,
    /// An IR violates an invariant.
    Verify,
    /// Lazuli itself is wrong: a bug worth reporting.
    Internal,
}

/// An error: the operation, its operands, the user's source line, and what would be right.
///
/// Cheap to clone: a tensor whose recording failed carries it, and so does everything computed from it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<String>,
    operands: Vec<TensorType>,
    sources: Sources,
}

impl Error {
    /// An error with a message that says what was given and what would be right.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            operands: Vec::new(),
            sources: Sources::none(),
        }))
    }

    /// A broken invariant of lazuli itself.
    #[cold]
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    fn edit(mut self, f: impl FnOnce(&mut Inner)) -> Error {
        match Arc::get_mut(&mut self.0) {
            Some(inner) => f(inner),
            None => {
                let mut inner = (*self.0).clone();
                f(&mut inner);
                self = Error(Arc::new(inner));
            }
        }
        self
    }

    /// Names the operation and its operands, unless an inner one is named already.
    pub fn with_operation(self, name: &str, operands: impl IntoIterator<Item = TensorType>) -> Error {
        if self.0.operation.is_some() {
            return self;
        }
        self.edit(|e| {
            e.operation = Some(name.to_owned());
            e.operands = operands.into_iter().collect();
        })
    }

    /// Names the user's source lines, unless they are named already.
    pub fn with_sources(self, sources: impl Into<Sources>) -> Error {
        let sources = sources.into();
        if !self.0.sources.is_empty() || sources.is_empty() {
            return self;
        }
        self.edit(|e| e.sources = sources)
    }

    /// Adds to the message what else the user must know.
    pub fn note(self, text: impl fmt::Display) -> Error {
        self.edit(|e| e.message.push_str(&format!("; {text}")))
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without operation, operands and place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed, where there is one.
    pub fn operation(&self) -> Option<&str> {
        self.0.operation.as_deref()
    }

    /// The shapes and dtypes of the operation's operands.
    pub fn operands(&self) -> &[TensorType] {
        &self.0.operands
    }

    /// The user's source lines.
    pub fn sources(&self) -> &[Source] {
        self.0.sources.as_slice()
    }
}

impl fmt::Display for Error {
    /// `matmul(f32[2,3], f32[4,5]): message` and, on a second line, the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(op) = &self.0.operation {
            write!(f, "{op}(")?;
            for (i, t) in self.0.operands.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{t}")?;
            }
            f.write_str("): ")?;
        }
        f.write_str(&self.0.message)?;
        if !self.0.sources.is_empty() {
            write!(f, "\n  at {}", self.0.sources)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}
