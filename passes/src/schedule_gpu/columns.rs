//! Few long columns: the warps of a block share them. Each walks a part of all columns of a group; what the warps found is combined by way of
//! shared memory, by every warp that needs it, and what a column keeps from one walk to the next lies there as well.

use super::elementwise::one;
use super::flatten::{below, digits, substitute};
use super::meet;
use super::rows::{SHORT, THREADS, WARPS, elements, has_compounds, is_simple, must_follow};
use lazuli_ir::kernel::{
    Axis, Binding, Block, Expr, Extent, Kernel, Loop, Memory, Reduce, Scope, Stmt, StmtKind, Tile, TileId, ValueId,
};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{Index, Target, VarId};
use rustc_hash::FxHashMap;

/// Columns of a block: a lane each.
const COLUMNS: u64 = 32;
/// Bytes of shared memory for what columns keep.
const KEPT_BYTES: u64 = 48 << 10;
/// Elements of a column that are worth sharing.
const LONG: u64 = 64;

/// Few long columns, shared by warps. `None` where a column is more than walks, and what is made of their results; where columns are
/// short; or where there are enough of them for all multiprocessors.
pub(super) fn column_warps(
    kernel: &mut Kernel,
    outer: &[(VarId, u64)],
    row: &Block,
    rows: u64,
    target: &Target,
) -> Option<Block> {
    let enough = u64::from(target.cores) * THREADS * 4;
    let lengths: Vec<u64> = row.iter().filter_map(|s| walked(s).map(|w| w.1)).collect();
    if lengths.contains(&0) {
        return None;
    }
    let warps = (1..=WARPS.ilog2()).rev().map(|p| 1 << p).find(|w| lengths.iter().all(|n| n.is_multiple_of(*w)))?;
    let long = row.iter().map(elements).max().is_some_and(|n| n >= LONG);
    if rows >= enough || !long || !fits(kernel, row) {
        return None;
    }
    let mut columns = Columns { warps, rows, outer: outer.to_vec(), known: Block::new(), found: FxHashMap::default() };
    let (start, mut body, mut phases) = (kernel.new_var(columns.name(kernel, "0")), Block::new(), Block::new());
    let mut last = Block::new();
    for s in row {
        match &s.kind {
            StmtKind::Tile(t) => {
                let tile = &mut kernel.tiles[t.index()];
                tile.scope = Scope::Block;
                tile.dims.push(COLUMNS);
                tile.valid.push(None);
                body.push(s.clone());
            }
            StmtKind::Let(..) => columns.known.push(s.clone()),
            StmtKind::Reduce(r) => {
                body.append(&mut columns.declare(kernel, r));
                phases.append(&mut columns.walk(kernel, start, s));
                columns.known.push(s.clone());
            }
            StmtKind::Loop(_) => phases.append(&mut columns.walk(kernel, start, s)),
            _ => last.push(s.clone()),
        }
    }
    if !last.is_empty() {
        let lane = kernel.new_var(columns.name(kernel, ""));
        let mut block = columns.known(kernel, lane);
        block.append(&mut last);
        phases.append(&mut columns.along_lanes(kernel, (start, lane), block));
    }
    body.append(&mut phases);
    let body = meet(kernel, body);
    let axis = Axis { binding: Binding::Grid(0), ..Axis::default() };
    Some(one(start, Extent::Const(rows), COLUMNS, None, axis, body))
}

/// The variable that a statement walks a column by, and how far; `None` for what is no walk.
fn walked(s: &Stmt) -> Option<(VarId, u64)> {
    match &s.kind {
        StmtKind::Loop(l) => Some((l.var, l.extent.known().unwrap_or(0))),
        StmtKind::Reduce(r) => r.vars.first().map(|(v, e)| (*v, e.known().unwrap_or(0))),
        _ => None,
    }
}

/// Whether a column is made of walks that each may be taken apart, and keeps by their positions alone what fits shared memory.
fn fits(kernel: &Kernel, row: &Block) -> bool {
    let simple = |s: &Stmt| match &s.kind {
        StmtKind::Loop(l) => !has_compounds(&l.body) && l.step == 1 && l.limit.is_none(),
        StmtKind::Reduce(r) => !has_compounds(&r.body),
        StmtKind::Let(..) | StmtKind::Tile(_) | StmtKind::Store { .. } => true,
        _ => false,
    };
    let bound = |s: &Stmt| {
        let mut found = false;
        for_each_statement(std::slice::from_ref(s), &mut |kind| found |= matches!(kind, StmtKind::Bind { .. }));
        found
    };
    // What is stored for the column alone comes last.
    let walks = row.iter().rposition(|s| walked(s).is_some()).unwrap_or(0);
    let early = row[..walks].iter().any(|s| matches!(s.kind, StmtKind::Store { .. }));
    if early || !row.iter().all(simple) || !is_simple(kernel, row) || row.iter().any(|s| must_follow(s) || bound(s)) {
        return false;
    }
    let mut bytes = 0u64;
    let mut alike = true;
    for s in row {
        if let StmtKind::Tile(t) = s.kind {
            let tile = &kernel.tiles[t.index()];
            let size = tile.dtype.size().max(1) as u64;
            bytes = bytes.saturating_add(tile.dims.iter().product::<u64>().saturating_mul(COLUMNS * size));
        }
        let walk = walked(s);
        for_each_statement(std::slice::from_ref(s), &mut |kind| {
            for touch in kind.touches() {
                let Memory::Tile(t) = touch.memory else { continue };
                let own = walk.is_some_and(|(v, n)| {
                    kernel.tiles[t.index()].dims.as_slice() == [n]
                        && touch.index.len() == 1
                        && touch.index[0].as_var() == Some(v)
                });
                alike &= own;
            }
        });
    }
    alike && bytes <= KEPT_BYTES
}

/// Columns while they are scheduled.
struct Columns {
    warps: u64,
    rows: u64,
    outer: Vec<(VarId, u64)>,
    /// What was computed for a column so far.
    known: Block,
    /// Where the warps leave what a reduction found, by its first result.
    found: FxHashMap<ValueId, Vec<TileId>>,
}

impl Columns {
    fn name(&self, kernel: &Kernel, end: &str) -> String {
        let name = self.outer.last().map_or("column", |o| kernel.vars[o.0.0 as usize].as_str());
        format!("{name}{end}")
    }

    /// Declares where warps leave what a reduction found.
    fn declare(&mut self, kernel: &mut Kernel, r: &Reduce) -> Block {
        let mut tiles = Vec::new();
        for ty in r.reducers.iter().flat_map(|x| x.types()) {
            let name = format!("found{}", kernel.tiles.len());
            let (dims, valid) = ([self.warps, COLUMNS].into_iter().collect(), [None, None].into_iter().collect());
            kernel.tiles.push(Tile { name, dtype: ty.dtype(), dims, valid, scope: Scope::Block });
            tiles.push(TileId(kernel.tiles.len() as u32 - 1));
        }
        let declared = tiles.iter().map(|t| StmtKind::Tile(*t).into()).collect();
        if let Some(first) = r.results.first() {
            self.found.insert(*first, tiles);
        }
        declared
    }

    /// What is known of a column, for a lane to compute again: of reductions, from what warps found.
    fn known(&self, kernel: &mut Kernel, lane: VarId) -> Block {
        let mut block = Block::new();
        for s in &self.known {
            let kind = match &s.kind {
                StmtKind::Reduce(r) => StmtKind::Reduce(self.combined(kernel, r, lane)),
                kind => kind.clone(),
            };
            block.push(Stmt { kind, sources: s.sources.clone() });
        }
        block
    }

    /// A reduction of what warps found.
    fn combined(&self, kernel: &mut Kernel, r: &Reduce, lane: VarId) -> Reduce {
        let warp = kernel.new_var("warp");
        let mut body = Block::new();
        let mut yields = smallvec::SmallVec::new();
        for t in r.results.first().and_then(|v| self.found.get(v)).into_iter().flatten() {
            let v = kernel.new_value(kernel.tiles[t.index()].dtype.into());
            let index = vec![warp.into(), lane.into()];
            body.push(StmtKind::Let(v, Expr::Load { from: Memory::Tile(*t), index, mask: None }).into());
            yields.push(v);
        }
        Reduce {
            vars: smallvec::smallvec![(warp, Extent::Const(self.warps))],
            reducers: r.reducers.clone(),
            axis: Axis { unroll: self.warps as u32, ..Axis::default() },
            chunk: 0,
            body,
            yields,
            results: r.results.clone(),
        }
    }

    /// A walk, a part for each warp.
    fn walk(&self, kernel: &mut Kernel, start: VarId, s: &Stmt) -> Block {
        let Some((var, n)) = walked(s) else { return Block::new() };
        let name = kernel.vars[var.0 as usize].clone();
        let (warp, part) = (kernel.new_var("warp"), kernel.new_var(name));
        let lane = kernel.new_var(self.name(kernel, ""));
        let own = n / self.warps;
        let mut block = self.known(kernel, lane);
        let mut walk = s.clone();
        let mut stores = Block::new();
        match &mut walk.kind {
            StmtKind::Loop(l) => {
                (l.var, l.extent, l.axis.unroll) = (part, Extent::Const(own), unrolled(own, 1));
                index_by(&mut l.body, lane);
            }
            StmtKind::Reduce(r) => {
                r.vars[0] = (part, Extent::Const(own));
                r.axis.unroll = unrolled(own, r.vars.len());
                index_by(&mut r.body, lane);
                let tiles = r.results.first().and_then(|v| self.found.get(v)).into_iter().flatten();
                for (t, value) in tiles.zip(&r.results) {
                    let index = vec![warp.into(), lane.into()];
                    stores.push(StmtKind::Store { to: Memory::Tile(*t), index, value: *value, mask: None }.into());
                }
            }
            _ => {}
        }
        block.push(walk);
        block.append(&mut stores);
        let place = Index::var(warp).times(own as i64).add(&part.into());
        substitute(&mut block, &FxHashMap::from_iter([(var, place)]), &|_| (0, i64::MAX / 4));
        let lanes = self.along_lanes(kernel, (start, lane), block);
        let axis = Axis { binding: Binding::Warp, ..Axis::default() };
        one(warp, Extent::Const(self.warps), 1, None, axis, lanes)
    }

    /// A loop over the columns of a block, with values of its own.
    fn along_lanes(&self, kernel: &mut Kernel, (start, lane): (VarId, VarId), mut block: Block) -> Block {
        rename(kernel, &mut block, &mut FxHashMap::default());
        let counted = [start, lane];
        let range = below(&counted, self.rows + COLUMNS);
        let number = Index::var(start).add(&lane.into());
        substitute(&mut block, &digits(&self.outer, &number, &range), &range);
        let whole = self.rows.is_multiple_of(COLUMNS);
        let limit = (!whole).then(|| Index::constant(self.rows as i64).add_scaled(&start.into(), -1));
        let axis = Axis { binding: Binding::Lane, ..Axis::default() };
        one(lane, Extent::Const(COLUMNS), 1, limit, axis, block)
    }
}

/// How often a walk of so many elements is written out.
fn unrolled(own: u64, vars: usize) -> u32 {
    if own <= SHORT && vars == 1 { own as u32 } else { 4 }
}

/// Lets accesses to tiles be those of a column.
fn index_by(block: &mut Block, lane: VarId) {
    for s in block {
        match &mut s.kind {
            StmtKind::Let(_, Expr::Load { from: Memory::Tile(_), index, .. })
            | StmtKind::Store { to: Memory::Tile(_), index, .. } => index.push(lane.into()),
            _ => {}
        }
    }
}

/// Gives the values that a block defines new numbers.
pub(super) fn rename(kernel: &mut Kernel, block: &mut Block, names: &mut FxHashMap<ValueId, ValueId>) {
    for s in block {
        let define = |kernel: &mut Kernel, names: &mut FxHashMap<ValueId, ValueId>, v: &mut ValueId| {
            let new = kernel.new_value(kernel.values[v.index()]);
            names.insert(*v, new);
            *v = new;
        };
        let of = |names: &FxHashMap<ValueId, ValueId>, v: &mut ValueId| *v = names.get(v).copied().unwrap_or(*v);
        match &mut s.kind {
            StmtKind::Let(v, expr) => {
                *expr = expr.map_operands(&mut |mut o| {
                    of(names, &mut o);
                    o
                });
                define(kernel, names, v);
            }
            StmtKind::Store { value, mask, .. } => {
                of(names, value);
                mask.iter_mut().for_each(|m| of(names, m));
            }
            StmtKind::Check { ok, value, .. } => [ok, value].into_iter().for_each(|v| of(names, v)),
            StmtKind::Loop(Loop { body, .. }) => rename(kernel, body, names),
            StmtKind::Reduce(r) => {
                rename(kernel, &mut r.body, names);
                r.yields.iter_mut().for_each(|v| of(names, v));
                r.results.iter_mut().for_each(|v| define(kernel, names, v));
            }
            _ => {}
        }
    }
}
