//! Loops whose variable is read digit by digit become one loop for each digit.
//!
//! A reshape merges dims that lie apart: the loop over `i` then reads `x[i / 64, i % 64]`. Where every division of `i` is by
//! numbers of which each divides the next, `i` is `a * 64 + b`, and loops over `a` and `b` walk both dims plainly: in vectors, and
//! as a transpose where that is what it is. What needs no digits merges again ([`merge_loops`](crate::merge_loops)).

use lazuli_ir::index::Atom;
use lazuli_ir::kernel::{Axis, Block, Extent, Kernel, Loop, Stmt, StmtKind};
use lazuli_ir::kernel_walk::{for_each_index, for_each_statement};
use lazuli_ir::{Index, VarId};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::collections::BTreeSet;

/// Takes loops apart.
pub(crate) fn take_apart(kernel: &mut Kernel) {
    let mut found = Divisions::default();
    for body in [&mut kernel.body, &mut kernel.finish] {
        for_each_index(body, &mut |x| found.note(x));
    }
    if found.cuts.is_empty() {
        return;
    }
    let mut extents = FxHashMap::default();
    for_each_statement(&kernel.body, &mut |kind| match kind {
        StmtKind::Loop(l) if l.step == 1 && l.limit.is_none() => {
            extents.insert(l.var, l.extent);
        }
        StmtKind::Reduce(r) => extents.extend(r.vars.iter().copied()),
        _ => {}
    });
    let mut digits: FxHashMap<VarId, Digits> = FxHashMap::default();
    for (var, cuts) in found.cuts.iter().filter(|(v, _)| !found.stuck.contains(v)) {
        let Some(n) = extents.get(var).and_then(|e| e.known()) else { continue };
        if let Some(own) = Digits::new(kernel, *var, cuts, n) {
            digits.insert(*var, own);
        }
    }
    replace(kernel, &digits, &extents);
    let mut body = std::mem::take(&mut kernel.body);
    open(&mut body, &digits);
    kernel.body = body;
}

/// By what each variable is divided.
#[derive(Default)]
struct Divisions {
    cuts: Vec<(VarId, BTreeSet<u64>)>,
    /// Variables that are divided together with others.
    stuck: FxHashSet<VarId>,
}

impl Divisions {
    fn note(&mut self, x: &Index) {
        for (atom, _) in x.terms() {
            match atom {
                Atom::Var(_) | Atom::Extent(_) => {}
                Atom::Div(x, d) => self.division(x, *d as u64, 1),
                Atom::Mod(x, d) => match x.terms() {
                    // The digit between both.
                    [(Atom::Div(inner, low), 1)] if x.offset() == 0 => {
                        self.division(inner, *low as u64, 1);
                        self.division(inner, *low as u64, *d as u64);
                    }
                    _ => self.division(x, *d as u64, 1),
                },
            }
        }
    }

    fn division(&mut self, x: &Index, by: u64, times: u64) {
        match (x.as_var(), by.checked_mul(times)) {
            (Some(v), Some(cut)) => match self.cuts.iter_mut().find(|(w, _)| *w == v) {
                Some((_, cuts)) => {
                    cuts.insert(cut);
                }
                None => self.cuts.push((v, BTreeSet::from([cut]))),
            },
            _ => x.for_each_var(&mut |v| {
                self.stuck.insert(v);
            }),
        }
    }
}

/// The variables that stand for one, outermost first, with their extents and what a step of each is worth.
struct Digits(SmallVec<[(VarId, u64, u64); 4]>);

impl Digits {
    /// `None` where the cuts do not divide each other and the extent.
    fn new(kernel: &mut Kernel, var: VarId, cuts: &BTreeSet<u64>, extent: u64) -> Option<Digits> {
        let inside: SmallVec<[u64; 4]> = cuts.iter().copied().filter(|c| *c > 1 && *c < extent).collect();
        let mut ends = inside.clone();
        ends.push(extent);
        let starts: SmallVec<[u64; 4]> = std::iter::once(1).chain(inside).collect();
        if ends.len() < 2 || starts.iter().zip(&ends).any(|(a, b)| !b.is_multiple_of(*a)) {
            return None;
        }
        let name = kernel.vars[var.0 as usize].clone();
        let one = |(a, b): (&u64, &u64)| (kernel.new_var(name.clone()), b / a, *a);
        let mut digits: SmallVec<[(VarId, u64, u64); 4]> = starts.iter().zip(&ends).map(one).collect();
        digits.reverse();
        Some(Digits(digits))
    }

    fn index(&self) -> Index {
        self.0.iter().fold(Index::default(), |x, (v, _, step)| x.add_scaled(&Index::var(*v), *step as i64))
    }
}

fn replace(kernel: &mut Kernel, digits: &FxHashMap<VarId, Digits>, extents: &FxHashMap<VarId, Extent>) {
    let mut own: FxHashMap<VarId, u64> = FxHashMap::default();
    own.extend(digits.values().flat_map(|d| d.0.iter().map(|(v, n, _)| (*v, *n))));
    let range = |v: VarId| {
        let known = own.get(&v).copied().or_else(|| extents.get(&v).and_then(|e| e.known()));
        (0, known.map_or(i64::MAX / 4, |n| n as i64 - 1))
    };
    let with = |v: VarId| digits.get(&v).map(Digits::index);
    for_each_index(&mut kernel.body, &mut |x| *x = x.substitute(&with, &range));
}

fn open(block: &mut Block, digits: &FxHashMap<VarId, Digits>) {
    for s in block {
        if let StmtKind::Reduce(r) = &mut s.kind {
            let vars = std::mem::take(&mut r.vars);
            for (v, e) in vars {
                match digits.get(&v) {
                    Some(d) => r.vars.extend(d.0.iter().map(|(v, n, _)| (*v, Extent::Const(*n)))),
                    None => r.vars.push((v, e)),
                }
            }
        }
        if let Some(body) = s.kind.body_mut() {
            open(body, digits);
        }
        let StmtKind::Loop(l) = &mut s.kind else { continue };
        let Some(d) = digits.get(&l.var) else { continue };
        let mut body = std::mem::take(&mut l.body);
        for (i, &(var, n, _)) in d.0.iter().enumerate().rev() {
            let extent = Extent::Const(n);
            let own = Loop { var, extent, step: 1, limit: None, axis: Axis::default(), body };
            if i == 0 {
                *l = own;
                break;
            }
            body = vec![Stmt { kind: StmtKind::Loop(own), sources: s.sources.clone() }];
        }
    }
}
