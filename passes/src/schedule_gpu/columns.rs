//! Few long columns: the warps of a block share them, and combine what they found by way of shared memory.

use super::elementwise::one;
use super::flatten::{below, digits, substitute};
use super::rows::{SHORT, THREADS, WARPS, elements, unroll};
use lazuli_ir::kernel::{
    Axis, Binding, Block, Expr, Extent, Kernel, Memory, Reduce, Scope, Stmt, StmtKind, Tile, TileId, ValueId,
};
use lazuli_ir::{Index, Target, VarId};
use rustc_hash::FxHashMap;

/// Few long columns: each warp of a block walks a part of all columns of a group, and what the warps found is combined by way of
/// shared memory. `None` where a row is more than one reduction and what is made of it, or there is enough to do without.
pub(super) fn column_warps(
    kernel: &mut Kernel,
    outer: &[(VarId, u64)],
    row: &Block,
    rows: u64,
    target: &Target,
) -> Option<Block> {
    let at = row.iter().position(|s| matches!(s.kind, StmtKind::Reduce(_)))?;
    let alone =
        row.iter().enumerate().all(|(i, s)| i == at || matches!(s.kind, StmtKind::Let(..) | StmtKind::Store { .. }));
    let StmtKind::Reduce(r) = &row[at].kind else { return None };
    let (var, extent) = *r.vars.first()?;
    let n = extent.known()?;
    let warps = (0..=WARPS.ilog2()).rev().map(|p| 1 << p).find(|w| n.is_multiple_of(*w)).filter(|w| *w > 1)?;
    let enough = u64::from(target.cores) * THREADS * 4;
    if !alone || rows >= enough || elements(&row[at]) < 64 {
        return None;
    }
    let (before, after) = (&row[..at], &row[at + 1..]);
    // Values before the reduction are made twice: for its elements, and for what follows.
    let mut first: Block = before.to_vec();
    let mut second: Block = before.iter().chain(after).cloned().collect();
    let name = outer.last().map_or_else(|| "column".to_owned(), |o| kernel.vars[o.0.0 as usize].clone());
    let start = kernel.new_var(format!("{name}0"));
    let [column, again] = [0, 1].map(|_| kernel.new_var(name.clone()));
    let (warp, part, found) =
        (kernel.new_var("warp"), kernel.new_var(kernel.vars[var.0 as usize].clone()), kernel.new_var("warp"));
    let types: Vec<_> = r.reducers.iter().flat_map(|x| x.types()).collect();
    let mut partial = r.clone();
    let own = n / warps;
    partial.vars[0] = (part, Extent::Const(own));
    partial.axis.unroll = if own <= SHORT && partial.vars.len() == 1 { own as u32 } else { 4 };
    unroll(&mut partial.body);
    partial.results = types.iter().map(|ty| kernel.new_value(*ty)).collect();
    let place = Index::var(warp).times(own as i64).add(&part.into());
    let wide = |_: VarId| (0, i64::MAX / 4);
    substitute(&mut partial.body, &FxHashMap::from_iter([(var, place)]), &wide);
    let mut body = Block::new();
    let mut tiles = Vec::new();
    for ty in &types {
        let dims = [warps, 32];
        let name = format!("found{}", kernel.tiles.len());
        let (dims, valid) = (dims.into_iter().collect(), [None, None].into_iter().collect());
        kernel.tiles.push(Tile { name, ty: *ty, dims, valid, scope: Scope::Block });
        tiles.push(TileId(kernel.tiles.len() as u32 - 1));
        body.push(StmtKind::Tile(TileId(kernel.tiles.len() as u32 - 1)).into());
    }
    let results = partial.results.clone();
    first.push(Stmt { kind: StmtKind::Reduce(partial), sources: row[at].sources.clone() });
    for (t, value) in tiles.iter().zip(&results) {
        let index = vec![warp.into(), column.into()];
        first.push(StmtKind::Store { to: Memory::Tile(*t), index, value: *value, mask: None }.into());
    }
    let mut gather = Block::new();
    let mut yields = smallvec::SmallVec::new();
    for (t, ty) in tiles.iter().zip(&types) {
        let v = kernel.new_value(*ty);
        let index = vec![found.into(), again.into()];
        gather.push(StmtKind::Let(v, Expr::Load { from: Memory::Tile(*t), index, mask: None }).into());
        yields.push(v);
    }
    let combined = Reduce {
        vars: smallvec::smallvec![(found, Extent::Const(warps))],
        reducers: r.reducers.clone(),
        axis: Axis { unroll: warps as u32, ..Axis::default() },
        chunk: 0,
        body: gather,
        yields,
        results: r.results.clone(),
    };
    rename(kernel, &mut second);
    second.insert(0, Stmt { kind: StmtKind::Reduce(combined), sources: row[at].sources.clone() });
    let counted = [start, column, again];
    let range = below(&counted, rows + 32);
    let limit = (!rows.is_multiple_of(32)).then(|| Index::constant(rows as i64).add_scaled(&start.into(), -1));
    for (block, own) in [(&mut first, column), (&mut second, again)] {
        let number = Index::var(start).add(&own.into());
        substitute(block, &digits(outer, &number, &range), &range);
    }
    let axis = |binding| Axis { binding, ..Axis::default() };
    let columns = one(column, Extent::Const(32), 1, limit.clone(), axis(Binding::Lane), first);
    body.append(&mut one(warp, Extent::Const(warps), 1, None, axis(Binding::Warp), columns));
    body.push(StmtKind::Barrier.into());
    body.append(&mut one(again, Extent::Const(32), 1, limit, axis(Binding::Lane), second));
    Some(one(start, Extent::Const(rows), 32, None, axis(Binding::Grid(0)), body))
}

/// Gives the values that straight-line code defines new numbers.
fn rename(kernel: &mut Kernel, block: &mut Block) {
    let mut names: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    for s in block {
        let of = |v: ValueId| names.get(&v).copied().unwrap_or(v);
        match &mut s.kind {
            StmtKind::Let(v, expr) => {
                *expr = expr.map_operands(&mut |o| of(o));
                let new = kernel.new_value(kernel.values[v.index()]);
                names.insert(*v, new);
                *v = new;
            }
            StmtKind::Store { value, mask, .. } => {
                *value = of(*value);
                *mask = mask.map(of);
            }
            _ => {}
        }
    }
}
