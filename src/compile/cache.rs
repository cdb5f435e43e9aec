//! The programs of one compiled function, least recently used last, and why each was compiled, in words.
//!
//! A lookup holds the lock for a comparison of hashes; nothing is traced or compiled under it. Two threads may therefore
//! compile one signature at a time: the first to finish wins, and the other's program is dropped.

use super::signature::{ArgumentNames, Flags, Signature};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Programs that a compiled function keeps unless told otherwise.
pub(crate) const CAPACITY: usize = 64;

/// Compilations whose reasons are remembered.
const REMEMBERED: usize = 64;

/// A program and what it is kept under.
pub(crate) struct Entry<P> {
    pub(crate) signature: Signature,
    pub(crate) flags: Flags,
    pub(crate) program: P,
}

/// The cache.
pub(crate) struct Cache<P> {
    state: Mutex<State<P>>,
}

struct State<P> {
    capacity: usize,
    /// The most recently used first.
    entries: Vec<Arc<Entry<P>>>,
    /// Every signature and flags seen of late, evicted ones too: what a new one is compared with.
    seen: VecDeque<(Signature, Flags)>,
    compilations: VecDeque<Compilation>,
    hits: u64,
    misses: u64,
}

/// One compilation of a function, and why it happened.
#[derive(Clone, Debug)]
pub struct Compilation {
    /// Its number, from 1.
    pub number: u64,
    /// Why: `first call`, or how the arguments differ from the call before that was most alike.
    pub reason: String,
    /// The arguments' types.
    pub arguments: String,
    /// How long tracing and compiling took.
    pub time: Duration,
}

/// What a compiled function's cache holds and did: [`Compiled::cache`](crate::Compiled::cache).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheReport {
    /// Programs kept now.
    pub programs: usize,
    /// Programs kept at most.
    pub capacity: usize,
    /// Calls that found their program.
    pub hits: u64,
    /// Calls that did not.
    pub misses: u64,
    /// The latest compilations, oldest first.
    pub compilations: Vec<Compilation>,
}

impl<P> Cache<P> {
    pub(crate) fn new(capacity: usize) -> Cache<P> {
        Cache {
            state: Mutex::new(State {
                capacity: capacity.max(1),
                entries: Vec::new(),
                seen: VecDeque::new(),
                compilations: VecDeque::new(),
                hits: 0,
                misses: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program for this signature and these flags of its leaves.
    pub(crate) fn find(&self, signature: &Signature, flag: impl Fn(usize) -> bool) -> Option<Arc<Entry<P>>> {
        let mut state = self.lock();
        match state.position(signature, flag) {
            Some(at) => {
                state.hits += 1;
                state.entries[..=at].rotate_right(1);
                state.entries.first().cloned()
            }
            None => {
                state.misses += 1;
                None
            }
        }
    }

    /// The most recently used entry.
    pub(crate) fn latest(&self) -> Option<Arc<Entry<P>>> {
        self.lock().entries.first().cloned()
    }

    /// Why a program must be compiled for this signature, in words.
    pub(crate) fn reason(&self, new: &Signature, flag: impl Fn(usize) -> bool, names: &ArgumentNames) -> String {
        let state = self.lock();
        let differences = |(was, flags): &(Signature, Flags)| {
            let mut words = new.differences(was, names);
            if words.is_empty() {
                words.extend(flags.difference(&flag, &names.of(&new.structure)));
            }
            words
        };
        match state.seen.iter().map(differences).min_by_key(Vec::len) {
            None => "first call".to_owned(),
            Some(words) if words.is_empty() => {
                format!("was compiled before, but only {} programs are kept", state.capacity)
            }
            Some(words) => words.join("; "),
        }
    }

    /// Keeps a program, unless another thread was first: its entry is what is returned then.
    pub(crate) fn insert(
        &self,
        entry: Entry<P>,
        reason: String,
        time: Duration,
        names: &ArgumentNames,
    ) -> Arc<Entry<P>> {
        let mut evicted = None;
        let mut state = self.lock();
        let flags = &entry.flags;
        let twin = state.entries.iter().find(|e| e.signature == entry.signature && e.flags == *flags).cloned();
        if let Some(first) = twin {
            return first;
        }
        let number = state.compilations.back().map_or(0, |c| c.number) + 1;
        let arguments = arguments(&entry.signature, names);
        remember(&mut state.compilations, Compilation { number, reason, arguments, time });
        let entry = Arc::new(entry);
        state.seen.retain(|(s, f)| *s != entry.signature || *f != entry.flags);
        // The latest first: of equally different signatures it is the one to compare with.
        state.seen.push_front((entry.signature.clone(), entry.flags.clone()));
        state.seen.truncate(REMEMBERED);
        state.entries.insert(0, entry.clone());
        if state.entries.len() > state.capacity {
            evicted = state.entries.pop();
        }
        drop(state);
        drop(evicted);
        entry
    }

    pub(crate) fn report(&self) -> CacheReport {
        let state = self.lock();
        CacheReport {
            programs: state.entries.len(),
            capacity: state.capacity,
            hits: state.hits,
            misses: state.misses,
            compilations: state.compilations.iter().cloned().collect(),
        }
    }
}

impl<P> State<P> {
    fn position(&self, signature: &Signature, flag: impl Fn(usize) -> bool) -> Option<usize> {
        self.entries.iter().position(|e| e.signature == *signature && e.flags.hold(&flag))
    }
}

fn remember(compilations: &mut VecDeque<Compilation>, new: Compilation) {
    compilations.push_back(new);
    if compilations.len() > REMEMBERED {
        compilations.pop_front();
    }
}

fn arguments(signature: &Signature, names: &ArgumentNames) -> String {
    let leaves = names.of(&signature.structure).into_iter().zip(&signature.leaves);
    leaves.map(|(name, leaf)| format!("{name}: {leaf}")).collect::<Vec<_>>().join(", ")
}

impl CacheReport {
    /// Why the latest program was compiled.
    pub fn reason(&self) -> &str {
        self.compilations.last().map_or("never compiled", |c| &c.reason)
    }
}

impl fmt::Display for CacheReport {
    /// A line for the counts, and one for each compilation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} programs, {} hits, {} misses", self.programs, self.capacity, self.hits, self.misses)?;
        for c in &self.compilations {
            write!(f, "\n  {}: {} ({}), {:.2?}", c.number, c.reason, c.arguments, c.time)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::signature::{LayoutClass, LeafSignature};
    use super::*;
    use crate::tree::{IntoTree, Tree};
    use lazuli_ir::{DType, TensorType};

    fn signature(rows: usize) -> Signature {
        let tensor: crate::Tensor = 0.0.into_tree();
        let ty = TensorType::new([rows], DType::F32);
        Signature::new(
            tensor.into_parts().0,
            vec![LeafSignature { ty, weak: false, layout: LayoutClass::Contiguous }],
            None,
            Default::default(),
        )
    }

    fn insert(cache: &Cache<usize>, rows: usize, flags: Flags) -> Arc<Entry<usize>> {
        let names = ArgumentNames::default();
        let flag = flags.0.first().is_some_and(|f| f.1);
        let reason = cache.reason(&signature(rows), |_| flag, &names);
        cache.insert(Entry { signature: signature(rows), flags, program: rows }, reason, Duration::ZERO, &names)
    }

    #[test]
    fn the_least_recently_used_program_goes_and_reasons_are_told() {
        let cache = Cache::new(2);
        for rows in [1, 2] {
            insert(&cache, rows, Flags::default());
        }
        assert_eq!(cache.find(&signature(1), |_| false).unwrap().program, 1);
        insert(&cache, 3, Flags::default());
        assert!(cache.find(&signature(2), |_| false).is_none());
        insert(&cache, 2, Flags::default());
        let report = cache.report();
        assert_eq!((report.programs, report.hits, report.misses), (2, 1, 1));
        let reasons: Vec<_> = report.compilations.iter().map(|c| c.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "first call",
                "dim 0 of `x`: 2, was 1",
                "dim 0 of `x`: 3, was 2",
                "was compiled before, but only 2 programs are kept"
            ]
        );
    }

    #[test]
    fn only_flags_that_a_trace_asked_for_count() {
        let cache = Cache::new(8);
        insert(&cache, 1, Flags(vec![(0, false)]));
        assert!(cache.find(&signature(1), |_| true).is_none());
        assert_eq!(
            cache.reason(&signature(1), |_| true, &ArgumentNames::default()),
            "requires_grad of `x`: true, was false"
        );
        insert(&cache, 2, Flags::default());
        assert!(cache.find(&signature(2), |_| true).is_some());
    }

    #[test]
    fn the_first_of_two_equal_programs_wins() {
        let cache = Cache::new(8);
        let first = insert(&cache, 1, Flags::default());
        let second = insert(&cache, 1, Flags::default());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(cache.report().compilations.len(), 1);
    }
}
