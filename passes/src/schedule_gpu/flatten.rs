//! Nests as one loop: the variables of a nest are quotients and remainders of one index, innermost fastest.

use lazuli_ir::kernel::{Block, Extent, Kernel, Memory, Stmt, StmtKind, TileId};
use lazuli_ir::kernel_walk::{for_each_index, for_each_statement};
use lazuli_ir::{Index, VarId};
use rustc_hash::FxHashMap;

/// What the variables of a nest stand for, given the number of an iteration, which is below the product of their extents.
pub(super) fn digits(
    nest: &[(VarId, u64)],
    number: &Index,
    range: &dyn Fn(VarId) -> (i64, i64),
) -> FxHashMap<VarId, Index> {
    let mut out = FxHashMap::default();
    let mut rest = number.clone();
    for (i, &(v, n)) in nest.iter().enumerate().rev() {
        let n = n.max(1) as i64;
        out.insert(v, if i == 0 { rest.clone() } else { rest.modulo(n, range) });
        rest = rest.floor_div(n, range);
    }
    out
}

/// The ranges of these variables up to a number; of others, nothing is known.
pub(super) fn below(vars: &[VarId], n: u64) -> impl Fn(VarId) -> (i64, i64) + use<'_> {
    move |v| (0, if vars.contains(&v) { n as i64 } else { i64::MAX / 4 })
}

/// Puts indices for variables. `range` is that of the variables in the indices.
pub(super) fn substitute(block: &mut Block, with: &FxHashMap<VarId, Index>, range: &dyn Fn(VarId) -> (i64, i64)) {
    for_each_index(block, &mut |x| *x = x.substitute(&|v| with.get(&v).cloned(), range));
}

/// A nest that threads share: its variables and extents.
type Nest = Vec<(VarId, u64)>;

/// The nests of straight-line code in a block: perfect nests of loops, and reductions of several variables.
fn nests(block: &Block, out: &mut Vec<Nest>) {
    for s in block {
        match &s.kind {
            StmtKind::Loop(_) => match crate::tiling::innermost(s) {
                Some(nest) => out.push(nest),
                None => s.kind.body().into_iter().for_each(|b| nests(b, out)),
            },
            StmtKind::Reduce(r) => {
                let known: Option<Nest> = r.vars.iter().map(|(v, e)| Some((*v, e.known()?))).collect();
                match known {
                    Some(nest) if !super::rows::has_compounds(&r.body) => out.push(nest),
                    _ => nests(&r.body, out),
                }
            }
            _ => s.kind.body().into_iter().for_each(|b| nests(b, out)),
        }
    }
}

/// Makes each nest of straight-line code in a block one loop. Tiles that all nests index by their variables become rows.
pub(super) fn flatten(kernel: &mut Kernel, block: &mut Block) {
    let mut all = Vec::new();
    nests(block, &mut all);
    all.retain(|nest| nest.len() > 1 && nest.iter().all(|(_, n)| *n > 0));
    if all.is_empty() {
        return;
    }
    let rows = row_tiles(kernel, block, &all);
    for t in &rows {
        let tile = &mut kernel.tiles[t.index()];
        tile.dims = std::iter::once(tile.dims.iter().product()).collect();
        tile.valid = std::iter::once(None).collect();
    }
    let mut ranges: FxHashMap<VarId, i64> = FxHashMap::default();
    let mut with = FxHashMap::default();
    let mut joined: FxHashMap<VarId, (VarId, u64)> = FxHashMap::default();
    for nest in &all {
        let Some(&(last, _)) = nest.last() else { continue };
        let n: u64 = nest.iter().map(|(_, n)| n).product();
        let name = kernel.vars[last.0 as usize].clone();
        let v = kernel.new_var(name);
        ranges.insert(v, n as i64 - 1);
        with.extend(digits(nest, &v.into(), &|_| (0, n as i64 - 1)));
        joined.insert(nest[0].0, (v, n));
    }
    let range = |v: VarId| (0, ranges.get(&v).copied().unwrap_or(i64::MAX / 4));
    collapse(block, &rows, &all, &joined);
    substitute(block, &with, &range);
    join(block, &all, &joined);
}

/// The tiles that are indexed by the variables of whole nests alone.
fn row_tiles(kernel: &Kernel, block: &Block, all: &[Nest]) -> Vec<TileId> {
    let mut accesses: Vec<(TileId, bool)> = Vec::new();
    for_each_statement(block, &mut |kind| {
        for touch in kind.touches() {
            let Memory::Tile(t) = touch.memory else { continue };
            let dims = &kernel.tiles[t.index()].dims;
            let whole = all.iter().any(|nest| {
                nest.len() == dims.len()
                    && nest.len() == touch.index.len()
                    && nest.iter().zip(dims).zip(touch.index).all(|(((v, n), d), x)| n == d && x.as_var() == Some(*v))
            });
            accesses.push((t, whole));
        }
    });
    let mut tiles: Vec<TileId> = accesses.iter().map(|a| a.0).collect();
    tiles.sort_unstable();
    tiles.dedup();
    tiles.retain(|t| kernel.tiles[t.index()].dims.len() > 1 && accesses.iter().all(|(u, whole)| u != t || *whole));
    tiles
}

/// Indexes row tiles by the one variable of a nest.
fn collapse(block: &mut Block, rows: &[TileId], all: &[Nest], joined: &FxHashMap<VarId, (VarId, u64)>) {
    use lazuli_ir::kernel::Expr;
    for s in block {
        let place = match &mut s.kind {
            StmtKind::Let(_, Expr::Load { from, index, .. }) => Some((*from, index)),
            StmtKind::Store { to, index, .. } => Some((*to, index)),
            _ => None,
        };
        if let Some((Memory::Tile(t), index)) = place
            && rows.contains(&t)
            && let Some(first) = index.first().and_then(Index::as_var)
            && let Some(nest) = all.iter().find(|nest| nest[0].0 == first)
            && let Some((v, _)) = joined.get(&nest[0].0)
        {
            *index = vec![(*v).into()];
        }
        if let Some(body) = s.kind.body_mut() {
            collapse(body, rows, all, joined);
        }
    }
}

/// Replaces the loops of each nest by one.
fn join(block: &mut Block, all: &[Nest], joined: &FxHashMap<VarId, (VarId, u64)>) {
    for s in block {
        match &mut s.kind {
            StmtKind::Loop(l) => {
                if let Some((v, n)) = joined.get(&l.var)
                    && let Some(nest) = all.iter().find(|nest| nest[0].0 == l.var)
                {
                    for _ in 1..nest.len() {
                        let Some(Stmt { kind: StmtKind::Loop(inner), .. }) = l.body.pop() else { break };
                        l.body = inner.body;
                    }
                    (l.var, l.extent) = (*v, Extent::Const(*n));
                }
            }
            StmtKind::Reduce(r) => {
                if let Some((v, n)) = r.vars.first().and_then(|(v, _)| joined.get(v)) {
                    r.vars = smallvec::smallvec![(*v, Extent::Const(*n))];
                }
            }
            _ => {}
        }
        if let Some(body) = s.kind.body_mut() {
            join(body, all, joined);
        }
    }
}
