//! Where a value came from: the user's source lines, carried through every stage.

use std::collections::HashSet;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, OnceLock};

/// One place in the user's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The file, as the compiler names it.
    pub file: &'static str,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

impl Source {
    /// The caller's place, where every function between it and the user is `#[track_caller]`.
    #[track_caller]
    pub fn caller() -> Source {
        Location::caller().into()
    }

    /// A place given as text (`src/main.rs:12:20`), as the text forms print it.
    pub fn parse(text: &str) -> Option<Source> {
        let mut parts = text.rsplitn(3, ':');
        let column = parts.next()?.parse().ok()?;
        let line = parts.next()?.parse().ok()?;
        Some(Source { file: intern(parts.next()?), line, column })
    }
}

/// File names (and names of operations) of parsed text live as long as the process: there are few, and each is kept once.
pub(crate) fn intern(file: &str) -> &'static str {
    static FILES: OnceLock<Mutex<HashSet<&'static str>>> = OnceLock::new();
    let files = FILES.get_or_init(Mutex::default);
    let mut files = files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match files.get(file) {
        Some(known) => known,
        None => {
            let file: &'static str = Box::leak(file.to_owned().into_boxed_str());
            files.insert(file);
            file
        }
    }
}

impl From<&'static Location<'static>> for Source {
    fn from(l: &'static Location<'static>) -> Source {
        Source { file: l.file(), line: l.line(), column: l.column() }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The set of places that a node or statement stands for, sorted; shared, so that copies are cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Option<Arc<[Source]>>);

impl Sources {
    /// No place.
    pub fn none() -> Sources {
        Sources(None)
    }

    /// The places, sorted.
    pub fn as_slice(&self) -> &[Source] {
        self.0.as_deref().unwrap_or(&[])
    }

    /// The union of both sets. Allocates only where neither contains the other.
    pub fn union(&self, other: &Sources) -> Sources {
        let (a, b) = (self.as_slice(), other.as_slice());
        if b.iter().all(|s| a.binary_search(s).is_ok()) {
            return self.clone();
        }
        if a.iter().all(|s| b.binary_search(s).is_ok()) {
            return other.clone();
        }
        a.iter().chain(b).copied().collect()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl FromIterator<Source> for Sources {
    fn from_iter<I: IntoIterator<Item = Source>>(iter: I) -> Sources {
        let mut all: Vec<Source> = iter.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Sources(if all.is_empty() { None } else { Some(all.into()) })
    }
}

impl From<Source> for Sources {
    fn from(s: Source) -> Sources {
        Sources(Some(Arc::from([s])))
    }
}

impl fmt::Display for Sources {
    /// `a.rs:1:2, b.rs:3:4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, s) in self.as_slice().iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{s}")?;
        }
        Ok(())
    }
}
