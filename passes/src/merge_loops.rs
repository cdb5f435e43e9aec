//! Merging loops: two dims that every access walks as one become one loop.
//!
//! A perfect nest over `i` and `j` merges where each access that mentions either has them as neighbouring dims `[.., i, j, ..]`
//! of a parameter or tile whose strides continue from one to the other. The parameter's dims merge with the loops, so
//! indices stay plain variables. One access that does not fit (a broadcast bias, a transpose) keeps a pair apart.

use lazuli_ir::kernel::{Block, Expr, Extent, Kernel, Memory, Stmt, StmtKind, Stride};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{Index, VarId};
use rustc_hash::FxHashSet;

/// An access: where, and the logical index.
type Access = (Memory, Vec<Index>);

/// Merges loops until nothing merges any more.
pub fn merge_loops(kernel: &mut Kernel) {
    loop {
        let mut pairs = Vec::new();
        collect_pairs(&kernel.body, &mut pairs);
        let mut accesses = Vec::new();
        let mut loose = FxHashSet::default();
        collect_accesses(&kernel.body, &mut accesses, &mut loose);
        collect_accesses(&kernel.finish, &mut accesses, &mut loose);
        // A variable takes part in one merge at a time.
        let mut taken = FxHashSet::default();
        pairs.retain(|p| taken.insert(p.outer) && taken.insert(p.inner));
        let merged = settle(kernel, pairs, &accesses, &loose);
        if merged.is_empty() {
            return;
        }
        apply(kernel, &merged, &accesses);
    }
}

/// Two loop variables in a perfect nest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    outer: VarId,
    inner: VarId,
    extents: (u64, u64),
}

fn collect_pairs(block: &Block, pairs: &mut Vec<Pair>) {
    for_each_statement(block, &mut |kind| match kind {
        StmtKind::Loop(l) => {
            if let [Stmt { kind: StmtKind::Loop(m), .. }] = l.body.as_slice()
                && let (Extent::Const(a), Extent::Const(b)) = (l.extent, m.extent)
                && (l.step, m.step) == (1, 1)
                && l.limit.is_none()
                && m.limit.is_none()
            {
                pairs.push(Pair { outer: l.var, inner: m.var, extents: (a, b) });
            }
        }
        StmtKind::Reduce(r) => {
            for w in r.vars.windows(2) {
                if let [(a, Extent::Const(m)), (b, Extent::Const(n))] = w {
                    pairs.push(Pair { outer: *a, inner: *b, extents: (*m, *n) });
                }
            }
        }
        _ => {}
    });
}

/// Collects accesses, and the variables that occur anywhere else.
fn collect_accesses(block: &Block, accesses: &mut Vec<Access>, loose: &mut FxHashSet<VarId>) {
    let mention = |x: &Index, loose: &mut FxHashSet<VarId>| {
        x.for_each_var(&mut |v| {
            loose.insert(v);
        })
    };
    for s in block {
        match &s.kind {
            StmtKind::Let(_, Expr::Load { from, index, .. }) => accesses.push((*from, index.clone())),
            StmtKind::Let(_, Expr::Index(x)) => mention(x, loose),
            StmtKind::Let(..) | StmtKind::Tile(_) | StmtKind::Fill(..) | StmtKind::Bind { .. } | StmtKind::Barrier => {}
            StmtKind::Store { to, index, .. } => accesses.push((*to, index.clone())),
            StmtKind::Check { at, .. } => mention(at, loose),
            StmtKind::Dot(d) => {
                for x in d.a.index.iter().chain(&d.b.index).chain(&d.limit) {
                    mention(x, loose);
                }
                // A dot fixes the shape of what it touches: none of it may change.
                accesses.push((Memory::Tile(d.acc), Vec::new()));
                accesses.push((d.a.memory, Vec::new()));
                accesses.push((d.b.memory, Vec::new()));
            }
            StmtKind::Loop(l) => {
                l.limit.iter().for_each(|x| mention(x, loose));
                collect_accesses(&l.body, accesses, loose);
            }
            StmtKind::Reduce(r) => collect_accesses(&r.body, accesses, loose),
            StmtKind::Guard(_, body) => collect_accesses(body, accesses, loose),
        }
    }
}

/// Drops pairs until those left agree with every access.
fn settle(kernel: &Kernel, mut pairs: Vec<Pair>, accesses: &[Access], loose: &FxHashSet<VarId>) -> Vec<Pair> {
    pairs.retain(|p| !loose.contains(&p.outer) && !loose.contains(&p.inner));
    loop {
        let fits =
            |p: &Pair| accesses.iter().all(|(memory, index)| access_fits(kernel, p, *memory, index, accesses, &pairs));
        let kept: Vec<Pair> = pairs.iter().copied().filter(fits).collect();
        if kept.len() == pairs.len() {
            return pairs;
        }
        pairs = kept;
    }
}

fn pair_at(pairs: &[Pair], index: &[Index], d: usize) -> Option<Pair> {
    let (a, b) = (index.get(d)?.as_var()?, index.get(d + 1)?.as_var()?);
    pairs.iter().copied().find(|p| (p.outer, p.inner) == (a, b))
}

/// Whether an access either does not mention the pair, or has it as mergeable neighbours that every other access to the
/// same memory merges as well.
fn access_fits(
    kernel: &Kernel,
    p: &Pair,
    memory: Memory,
    index: &[Index],
    accesses: &[Access],
    pairs: &[Pair],
) -> bool {
    if !index.iter().any(|x| x.mentions(p.outer) || x.mentions(p.inner)) {
        return true;
    }
    let Some(d) = (0..index.len()).find(|&d| pair_at(pairs, index, d) == Some(*p)) else { return false };
    let elsewhere =
        index.iter().enumerate().any(|(e, x)| e != d && e != d + 1 && (x.mentions(p.outer) || x.mentions(p.inner)));
    let same_memory = |(m, _): &&Access| *m == memory;
    !elsewhere
        && continues(kernel, memory, d, p.extents)
        && accesses
            .iter()
            .filter(same_memory)
            .all(|(_, index)| pair_at(pairs, index, d).is_some_and(|q| q.extents == p.extents))
}

/// Whether dims `d` and `d + 1` of a memory have these extents and lie as one.
fn continues(kernel: &Kernel, memory: Memory, d: usize, extents: (u64, u64)) -> bool {
    match memory {
        Memory::Param(p) => {
            let p = &kernel.params[p.index()];
            let dims = (p.dims[d], p.dims[d + 1]) == (Extent::Const(extents.0), Extent::Const(extents.1));
            let strides = match (p.strides[d], p.strides[d + 1]) {
                (Stride::Const(a), Stride::Const(b)) => a == b.wrapping_mul(extents.1 as i64),
                (Stride::Runtime, _) | (_, Stride::Runtime) => false,
            };
            dims && strides
        }
        Memory::Tile(t) => {
            let t = &kernel.tiles[t.index()];
            (t.dims[d], t.dims[d + 1]) == extents && t.valid[d].is_none() && t.valid[d + 1].is_none()
        }
    }
}

fn apply(kernel: &mut Kernel, merged: &[Pair], accesses: &[Access]) {
    let mut done: Vec<Memory> = Vec::new();
    for (memory, index) in accesses {
        if done.contains(memory) {
            continue;
        }
        done.push(*memory);
        for d in (0..index.len().saturating_sub(1)).rev() {
            if let Some(p) = pair_at(merged, index, d) {
                merge_dims(kernel, *memory, d, p.extents.0 * p.extents.1);
            }
        }
    }
    for body in [&mut kernel.body, &mut kernel.finish] {
        rewrite(body, merged);
    }
}

fn merge_dims(kernel: &mut Kernel, memory: Memory, d: usize, extent: u64) {
    match memory {
        Memory::Param(p) => {
            let p = &mut kernel.params[p.index()];
            p.dims.remove(d);
            p.strides.remove(d);
            p.dims[d] = Extent::Const(extent);
        }
        Memory::Tile(t) => {
            let t = &mut kernel.tiles[t.index()];
            t.dims.remove(d);
            t.valid.remove(d);
            t.dims[d] = extent;
        }
    }
}

/// Takes the outer variable out of merged indices and loops; the inner one counts for both.
fn rewrite(block: &mut Block, merged: &[Pair]) {
    let shorten = |index: &mut Vec<Index>| {
        for d in (0..index.len().saturating_sub(1)).rev() {
            if pair_at(merged, index, d).is_some() {
                index.remove(d);
            }
        }
    };
    for s in block {
        match &mut s.kind {
            StmtKind::Let(_, Expr::Load { index, .. }) | StmtKind::Store { index, .. } => shorten(index),
            StmtKind::Loop(l) => {
                if let Some(p) = merged.iter().find(|p| p.outer == l.var)
                    && let Some(Stmt { kind: StmtKind::Loop(inner), .. }) = l.body.pop()
                {
                    *l = inner;
                    l.extent = Extent::Const(p.extents.0 * p.extents.1);
                }
                rewrite(&mut l.body, merged);
            }
            StmtKind::Reduce(r) => {
                while let Some(i) = r.vars.iter().position(|(v, _)| merged.iter().any(|p| p.outer == *v)) {
                    let (outer, _) = r.vars.remove(i);
                    if let Some(p) = merged.iter().find(|p| p.outer == outer) {
                        r.vars[i].1 = Extent::Const(p.extents.0 * p.extents.1);
                    }
                }
                rewrite(&mut r.body, merged);
            }
            StmtKind::Guard(_, body) => rewrite(body, merged),
            StmtKind::Let(..)
            | StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Dot(_)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => {}
        }
    }
}
