//! Columns: reductions (and whatever else runs) down the columns of memory, walked by rows.
//!
//! `loop j { reduce i { x[i,j] } .. }` with neighbours along `j` reads a piece of each row for a few `j`, and comes back to
//! every row for the next few: each time another page, and nothing for a prefetcher to see. Here the loop over `j` is cut into
//! blocks and moves inside of all that its body runs. What the body keeps for one `j` it then keeps for a block, in tiles:
//!
//! ```text
//! loop j0 step B {                       // blocks of columns, shared among threads
//!   tile acc[B]  fill acc, 0
//!   loop i step R {                      // rows, some at a time to spare the accumulators
//!     loop j in B {                      // contiguous, in vectors
//!       s = reduce r in R { x[i + r, j0 + j] }
//!       acc[j] = acc[j] + s
//!     }
//!   }
//!   loop j in B { out[j0 + j] = acc[j] .. }
//! }
//! ```
//!
//! First each reduction becomes loops around an accumulator in a tile; then statements are dealt out: a loop over the block for
//! each run of straight-line code, loops in between them turned inside out in the same way. A value that one run defines and
//! another uses goes through a tile, or is computed again where that is a load. Sums of floats start anew every so many rows, so
//! that the error grows as in a strip.

use crate::schedule::{badness_inside, stride};
use lazuli_ir::kernel::{
    Access, Axis, Block, Emit, Expr, Extent, Kernel, Loop, Memory, Reduce, Reducer, ScalarType, Scope, Stmt, StmtKind,
    Tile, TileId, ValueId,
};
use lazuli_ir::kernel_walk::{for_each_index, for_each_statement};
use lazuli_ir::{Index, Literal, ReduceOp, Target, VarId};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

/// Rows that are combined before they meet the accumulators, at most.
const ROWS: u64 = 8;
/// Combinations after which the accumulators of a float sum start anew.
const FLUSH: u64 = 512;
/// A block is a multiple of so many columns: cache lines of what is four bytes wide.
const LINE: u64 = 16;
/// Columns of a block, at most: accumulators take half of the first cache.
const MOST_COLUMNS: u64 = 4096;
/// Columns of a block, at least, where more blocks would be work for more threads: a page of single precision, or less where
/// all rows of the block stay in a cache.
const PAGE: u64 = 1024;
const NEAR: u64 = 256;
/// Rows of so many columns that stay in a cache.
const NEAR_ROWS: u64 = 512;
/// Blocks that are work enough for many threads, and for some.
const BLOCKS: u64 = 16;
const FEW: u64 = 4;

/// Columns of a block, at least, that a thread runs down so many rows of.
pub(crate) fn shared_columns(rows: u64) -> u64 {
    if rows <= NEAR_ROWS { NEAR } else { PAGE }
}

/// Turns the loops over columns of a block inside out, where there are such.
pub(crate) fn turn_columns(kernel: &mut Kernel, block: &mut Block, target: &Target) {
    turn_in(kernel, block, target, 1);
}

fn turn_in(kernel: &mut Kernel, block: &mut Block, target: &Target, around: u64) {
    for s in block {
        let StmtKind::Loop(l) = &mut s.kind else { continue };
        if walks_columns(kernel, l) {
            if let Some(turned) = turned(kernel, l, target, around) {
                *l = turned;
            }
        } else {
            turn_in(kernel, &mut l.body, target, around.saturating_mul(l.extent.known().unwrap_or(1)));
        }
    }
}

/// Whether a loop runs along rows while loops inside of it run down columns.
fn walks_columns(kernel: &Kernel, l: &Loop) -> bool {
    let plain = l.step == 1 && l.limit.is_none() && l.axis == Axis::default();
    if !plain || l.extent.known().is_some_and(|n| n < LINE) {
        return false;
    }
    let inner = l.body.iter().any(|s| matches!(s.kind, StmtKind::Loop(_) | StmtKind::Reduce(_)));
    inner && lies_along(kernel, l) && badness_inside(kernel, &l.body) > 0
}

/// Whether every access to a buffer lies along the loop's variable, and what is stored moves with it.
fn lies_along(kernel: &Kernel, l: &Loop) -> bool {
    let mut along = true;
    for_each_statement(&l.body, &mut |kind| {
        along &= match kind {
            StmtKind::Dot(_)
            | StmtKind::Guard(..)
            | StmtKind::Barrier
            | StmtKind::Bind { .. }
            | StmtKind::Check { .. } => false,
            StmtKind::Let(..) | StmtKind::Store { .. } | StmtKind::Tile(_) | StmtKind::Fill(..) => true,
            StmtKind::Loop(l) => l.limit.is_none() && l.axis == Axis::default(),
            StmtKind::Reduce(r) => r.axis == Axis::default(),
        };
        for t in kind.touches().iter().filter(|t| matches!(t.memory, Memory::Param(_))) {
            along &= match stride(kernel, t.memory, t.index, l.var) {
                Some(0) => t.access == Access::Read,
                Some(1) => true,
                Some(_) | None => false,
            };
        }
    });
    along
}

/// A loop turned inside out, with blocks as wide as the caches allow.
fn turned(kernel: &mut Kernel, l: &Loop, target: &Target, around: u64) -> Option<Loop> {
    // What one column keeps says how many fit.
    let mut trial = kernel.clone();
    Turn::new(&mut trial, l, LINE).run(l)?;
    let bytes: u64 = trial.tiles[kernel.tiles.len()..].iter().map(tile_bytes).sum();
    let own: FxHashSet<TileId> = declared(&l.body);
    let kept: u64 = own.iter().map(|t| tile_bytes(&trial.tiles[t.index()])).sum();
    let rows = rows(kernel, l);
    let again = if rows.passes > 1 { rows.bytes } else { 0 };
    let column = ((bytes + kept) / LINE + again).max(1);
    let fit = (target.l2_bytes / 2 / column).clamp(64, MOST_COLUMNS);
    let n = l.extent.known().unwrap_or(MOST_COLUMNS);
    let share = n.div_ceil(BLOCKS.div_ceil(around.max(1)));
    // Without a few blocks, threads would have nothing to share.
    let least = if n / PAGE * around < FEW { NEAR } else { shared_columns(rows.most) };
    let columns = fit.min(share.max(least)).next_multiple_of(LINE);
    let extent = l.extent.known().unwrap_or(u64::MAX);
    Turn::new(kernel, l, columns.min(extent.next_multiple_of(LINE))).run(l)
}

/// What a loop over columns runs down.
#[derive(Default)]
struct Rows {
    /// The most rows in one pass.
    most: u64,
    /// How often it runs down.
    passes: u32,
    /// Bytes of a column, at most.
    bytes: u64,
}

fn rows(kernel: &Kernel, l: &Loop) -> Rows {
    let mut all = Rows::default();
    for s in &l.body {
        let most = runs(std::slice::from_ref(s));
        let Some(body) = s.kind.body().filter(|_| most > 1) else { continue };
        let mut widest = 0;
        for_each_statement(body, &mut |kind| {
            for t in kind.touches() {
                if let Memory::Param(p) = t.memory {
                    widest = widest.max(kernel.params[p.index()].dtype.size() as u64);
                }
            }
        });
        all.passes += 1;
        all.most = all.most.max(most);
        all.bytes = all.bytes.max(most.saturating_mul(widest));
    }
    all
}

/// How often the innermost statements of a block run, at most.
fn runs(block: &[Stmt]) -> u64 {
    let one = |s: &Stmt| {
        let known = |e: &Extent| e.known().unwrap_or(PAGE);
        let own = match &s.kind {
            StmtKind::Loop(l) => known(&l.extent),
            StmtKind::Reduce(r) => r.vars.iter().fold(1, |n: u64, (_, e)| n.saturating_mul(known(e))),
            _ => 1,
        };
        own.saturating_mul(s.kind.body().map_or(1, |b| runs(b)))
    };
    block.iter().map(one).max().unwrap_or(1)
}

fn tile_bytes(t: &Tile) -> u64 {
    t.dims.iter().fold(t.dtype.size() as u64, |n, d| n.saturating_mul(*d))
}

fn declared(block: &Block) -> FxHashSet<TileId> {
    let mut out = FxHashSet::default();
    for_each_statement(block, &mut |kind| {
        if let StmtKind::Tile(t) = kind {
            out.insert(*t);
        }
    });
    out
}

/// The statements that one loop over columns becomes.
struct Turn<'k> {
    kernel: &'k mut Kernel,
    /// The variable of the loop, and the new one that counts blocks.
    column: VarId,
    start: VarId,
    /// Columns of a block.
    width: u64,
    /// What is left of the loop, where blocks may not divide it.
    limit: Option<Index>,
    /// Values that differ between columns.
    varying: FxHashSet<ValueId>,
    /// Tiles that hold something for each column.
    own: FxHashSet<TileId>,
    /// Tiles of results: nothing writes them between their reduction and what uses it.
    settled: FxHashSet<TileId>,
    /// The variables of loops over a block.
    lanes: FxHashSet<VarId>,
    /// The tiles of values that one such loop defines and another uses.
    crossing: FxHashMap<ValueId, TileId>,
    declarations: Block,
}

impl<'k> Turn<'k> {
    fn new(kernel: &'k mut Kernel, l: &Loop, width: u64) -> Turn<'k> {
        let start = kernel.new_var(format!("{}0", kernel.vars[l.var.0 as usize]));
        let divides = l.extent.known().is_some_and(|n| n.is_multiple_of(width));
        let limit = (!divides).then(|| l.extent.index().add_scaled(&start.into(), -1));
        Turn {
            kernel,
            column: l.var,
            start,
            width,
            limit,
            varying: FxHashSet::default(),
            own: declared(&l.body),
            settled: FxHashSet::default(),
            lanes: FxHashSet::default(),
            crossing: FxHashMap::default(),
            declarations: Block::new(),
        }
    }

    fn run(mut self, l: &Loop) -> Option<Loop> {
        self.mark(&l.body)?;
        let body = self.reductions(l.body.clone());
        let mut body = self.deal(body)?;
        self.cross(&mut body);
        self.settle_places(&mut body);
        for t in &self.own {
            let tile = &mut self.kernel.tiles[t.index()];
            tile.dims.push(self.width);
            tile.valid.push(None);
        }
        let mut all = std::mem::take(&mut self.declarations);
        all.append(&mut body);
        Some(Loop { var: self.start, extent: l.extent, step: self.width, limit: None, axis: l.axis, body: all })
    }

    /// Notes which values differ between columns. `None` where what the columns share is written.
    fn mark(&mut self, block: &[Stmt]) -> Option<bool> {
        let mut any = false;
        for s in block {
            let kind = &s.kind;
            let mut varies = kind.operands().iter().any(|v| self.varying.contains(v));
            for t in kind.touches() {
                varies |= match t.memory {
                    Memory::Tile(t) if !self.own.contains(&t) => return None,
                    Memory::Tile(_) => true,
                    Memory::Param(p) => self.kernel.params[p.index()].access != Access::Read,
                };
                varies |= t.index.iter().any(|x| x.mentions(self.column));
            }
            if let Some(body) = kind.body() {
                varies |= self.mark(body)?;
            }
            varies |= match kind {
                StmtKind::Let(_, expr) => matches!(expr, Expr::Index(x) if x.mentions(self.column)),
                StmtKind::Reduce(r) => r.yields.iter().any(|v| self.varying.contains(v)),
                StmtKind::Tile(_) => true,
                StmtKind::Store { .. }
                | StmtKind::Fill(..)
                | StmtKind::Loop(_)
                | StmtKind::Dot(_)
                | StmtKind::Guard(..)
                | StmtKind::Check { .. }
                | StmtKind::Bind { .. }
                | StmtKind::Barrier => false,
            };
            if varies {
                self.varying.extend(kind.defines());
            }
            any |= varies;
        }
        Some(any)
    }

    /// The block with loops in place of reductions that differ between columns.
    fn reductions(&mut self, block: Block) -> Block {
        let mut out = Block::new();
        for mut s in block {
            match s.kind {
                StmtKind::Reduce(r) if r.results.iter().any(|v| self.varying.contains(v)) => {
                    out.extend(self.reduction(r).into_iter().map(|made| Stmt { sources: s.sources.clone(), ..made }));
                }
                StmtKind::Loop(mut l) => {
                    l.body = self.reductions(l.body);
                    out.push(Stmt { kind: StmtKind::Loop(l), sources: s.sources });
                }
                kind => {
                    s.kind = kind;
                    out.push(s);
                }
            }
        }
        out
    }

    fn reduction(&mut self, mut r: Reduce) -> Block {
        r.body = self.reductions(r.body);
        let Some(&(_, extent)) = r.vars.last() else { return vec![StmtKind::Reduce(r).into()] };
        let straight = r.body.iter().all(|s| matches!(s.kind, StmtKind::Let(..) | StmtKind::Store { .. }));
        let rows = if straight { extent.known().map_or(1, divisor) } else { 1 };
        let depth = Depth::of(&r, rows);
        let mut out = Block::new();
        let acc = self.accumulators(&r.reducers, &mut out);
        let total = if depth == Depth::Flat { acc.clone() } else { self.accumulators(&r.reducers, &mut out) };
        let accumulate = Accumulate { depth, rows, acc, total };
        let (vars, reducers, results) = (r.vars.clone(), r.reducers.clone(), r.results.clone());
        let body = self.rows(r, rows, &accumulate.acc);
        out.append(&mut self.nest(&vars, &reducers, &accumulate, body));
        for (v, t) in results.iter().zip(&accumulate.total) {
            let load = Expr::Load { from: Memory::Tile(*t), index: Vec::new(), mask: None };
            out.push(StmtKind::Let(*v, load).into());
        }
        self.settled.extend(accumulate.total);
        out
    }

    /// A tile for each accumulator, filled.
    fn accumulators(&mut self, reducers: &[Reducer], out: &mut Block) -> Vec<TileId> {
        let parts = reducers.iter().flat_map(|x| x.types().into_iter().zip(x.identity()));
        let tiles: Vec<_> = parts.map(|(ty, identity)| (self.tile("acc", ty), identity)).collect();
        out.extend(tiles.iter().map(|(t, identity)| StmtKind::Fill(*t, *identity).into()));
        tiles.into_iter().map(|(t, _)| t).collect()
    }

    /// A new tile of one element a column.
    fn tile(&mut self, name: &str, ty: ScalarType) -> TileId {
        let id = TileId(self.kernel.tiles.len() as u32);
        let name = format!("{name}{}", id.0);
        let (dtype, dims, valid) = (ty.dtype(), SmallVec::new(), SmallVec::new());
        self.kernel.tiles.push(Tile { name, dtype, dims, valid, scope: Scope::Thread });
        self.own.insert(id);
        self.declarations.push(StmtKind::Tile(id).into());
        id
    }

    /// The body of a reduction, some rows at a time, and the accumulators' next values.
    fn rows(&mut self, r: Reduce, rows: u64, acc: &[TileId]) -> Block {
        let Some(&(last, _)) = r.vars.last() else { return Block::new() };
        let (reducers, yields, mut body) = (r.reducers, r.yields, r.body);
        if rows == 1 {
            self.combine(&reducers, acc, &yields, &mut body);
            return body;
        }
        let row = self.kernel.new_var("row");
        replace(&mut body, last, &Index::var(last).add(&row.into()));
        let types = reducers.iter().flat_map(|x| x.types());
        let results: SmallVec<[ValueId; 2]> = types.map(|ty| self.kernel.new_value(ty)).collect();
        self.varying.extend(results.iter());
        let (vars, axis) = (smallvec::smallvec![(row, Extent::Const(rows))], Axis::default());
        let few = Reduce { vars, reducers: reducers.clone(), axis, chunk: 0, body, yields, results: results.clone() };
        let mut out: Block = vec![StmtKind::Reduce(few).into()];
        self.combine(&reducers, acc, &results, &mut out);
        out
    }

    /// `acc = combine(acc, with)`.
    fn combine(&mut self, reducers: &[Reducer], acc: &[TileId], with: &[ValueId], out: &mut Block) {
        let mut e = Straight { turn: self, block: out };
        let mut from = 0;
        for reducer in reducers {
            let types = reducer.types();
            let tiles = &acc[from..from + types.len()];
            let place = |t: TileId| (Memory::Tile(t), Vec::new());
            let now: SmallVec<[ValueId; 2]> = types
                .iter()
                .zip(tiles)
                .map(|(ty, t)| {
                    let (from, index) = place(*t);
                    e.emit(*ty, Expr::Load { from, index, mask: None })
                })
                .collect();
            let next = reducer.combine(&mut e, &now, &with[from..from + types.len()]);
            for (value, t) in next.into_iter().zip(tiles) {
                let (to, index) = place(*t);
                e.block.push(StmtKind::Store { to, index, value, mask: None }.into());
            }
            from += types.len();
        }
    }

    /// The loops of a reduction around its body.
    fn nest(&mut self, vars: &[(VarId, Extent)], reducers: &[Reducer], accumulate: &Accumulate, body: Block) -> Block {
        let (mut body, depth) = (body, accumulate.depth);
        for (level, &(var, extent)) in vars.iter().enumerate().rev() {
            let inmost = level + 1 == vars.len();
            let step = if inmost { accumulate.rows } else { 1 };
            if depth == Depth::Pieces && inmost {
                let (piece, size) = (self.kernel.new_var("piece"), FLUSH * step);
                replace(&mut body, var, &Index::var(piece).add(&var.into()));
                let limit = Some(extent.index().add_scaled(&piece.into(), -1));
                let inside = Loop { var, extent: Extent::Const(size), step, limit, axis: Axis::default(), body };
                let anew = self.anew(reducers, accumulate, vec![StmtKind::Loop(inside).into()]);
                body = vec![plain(piece, extent, size, anew)];
                continue;
            }
            if depth == Depth::Level(level) {
                body = self.anew(reducers, accumulate, body);
            }
            body = vec![plain(var, extent, step, body)];
        }
        body
    }

    /// Accumulators that start anew before some loops, and are added up after them.
    fn anew(&mut self, reducers: &[Reducer], accumulate: &Accumulate, mut loops: Block) -> Block {
        let identities = reducers.iter().flat_map(|x| x.identity());
        let fill = |(t, identity): (&TileId, Literal)| StmtKind::Fill(*t, identity).into();
        let mut out: Block = accumulate.acc.iter().zip(identities).map(fill).collect();
        out.append(&mut loops);
        let types = reducers.iter().flat_map(|x| x.types());
        let mut parts: SmallVec<[ValueId; 2]> = SmallVec::new();
        for (t, ty) in accumulate.acc.iter().zip(types) {
            let load = Expr::Load { from: Memory::Tile(*t), index: Vec::new(), mask: None };
            parts.push(Straight { turn: self, block: &mut out }.emit(ty, load));
        }
        self.combine(reducers, &accumulate.total, &parts, &mut out);
        out
    }

    /// Deals statements out to loops over a block of columns: one for each run of straight-line code that differs between
    /// columns. `None` where a statement has no place.
    fn deal(&mut self, block: Block) -> Option<Block> {
        let (mut out, mut open) = (Block::new(), Block::new());
        for mut s in block {
            match &mut s.kind {
                StmtKind::Let(v, _) if !self.varying.contains(v) => out.push(s),
                StmtKind::Reduce(r) if !r.results.iter().any(|v| self.varying.contains(v)) => out.push(s),
                StmtKind::Let(..) | StmtKind::Store { .. } | StmtKind::Reduce(_) => open.push(s),
                StmtKind::Tile(_) => self.declarations.push(s),
                StmtKind::Fill(..) | StmtKind::Loop(_) => {
                    self.close(&mut open, &mut out);
                    if let StmtKind::Loop(l) = &mut s.kind {
                        l.body = self.deal(std::mem::take(&mut l.body))?;
                    }
                    out.push(s);
                }
                StmtKind::Dot(_)
                | StmtKind::Guard(..)
                | StmtKind::Check { .. }
                | StmtKind::Bind { .. }
                | StmtKind::Barrier => return None,
            }
        }
        self.close(&mut open, &mut out);
        Some(out)
    }

    fn close(&mut self, open: &mut Block, out: &mut Block) {
        if open.is_empty() {
            return;
        }
        let var = self.kernel.new_var(self.kernel.vars[self.column.0 as usize].clone());
        self.lanes.insert(var);
        let (body, extent) = (std::mem::take(open), Extent::Const(self.width));
        let l = Loop { var, extent, step: 1, limit: self.limit.clone(), axis: Axis::default(), body };
        out.push(StmtKind::Loop(l).into());
    }

    /// Brings values from the loops over a block that define them to those that use them.
    fn cross(&mut self, block: &mut Block) {
        let mut definitions = FxHashMap::default();
        for_each_statement(block, &mut |kind| {
            if let StmtKind::Let(v, expr) = kind
                && self.varying.contains(v)
            {
                definitions.insert(*v, expr.clone());
            }
        });
        self.bring(block, &definitions);
        self.leave(block);
    }

    /// Gives each loop over a block its own of the values that it uses and others define.
    fn bring(&mut self, block: &mut Block, definitions: &FxHashMap<ValueId, Expr>) {
        for s in block {
            let StmtKind::Loop(l) = &mut s.kind else { continue };
            if !self.lanes.contains(&l.var) {
                self.bring(&mut l.body, definitions);
                continue;
            }
            let mut inside = FxHashSet::default();
            let mut names: FxHashMap<ValueId, ValueId> = FxHashMap::default();
            let mut before = Block::new();
            for_each_statement(&l.body, &mut |kind| inside.extend(kind.defines()));
            rename(&mut l.body, &mut |v| {
                if inside.contains(&v) || !self.varying.contains(&v) {
                    return v;
                }
                *names.entry(v).or_insert_with(|| {
                    let expr = match definitions.get(&v) {
                        Some(expr) if self.is_load(expr) => expr.clone(),
                        _ => Expr::Load { from: Memory::Tile(self.crossing(v)), index: Vec::new(), mask: None },
                    };
                    let ty = self.kernel.values[v.index()];
                    Straight { turn: self, block: &mut before }.emit(ty, expr)
                })
            });
            before.append(&mut l.body);
            l.body = before;
        }
    }

    /// Whether a value is read again rather than kept.
    fn is_load(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Load { from: Memory::Param(p), mask: None, .. } => {
                self.kernel.params[p.index()].access == Access::Read
            }
            Expr::Load { from: Memory::Tile(t), mask: None, .. } => self.settled.contains(t),
            Expr::Index(_) => true,
            _ => false,
        }
    }

    fn crossing(&mut self, v: ValueId) -> TileId {
        if let Some(t) = self.crossing.get(&v) {
            return *t;
        }
        let t = self.tile("kept", self.kernel.values[v.index()]);
        self.crossing.insert(v, t);
        t
    }

    /// Stores what crosses where it is defined, and drops loops that then have nothing to do.
    fn leave(&self, block: &mut Block) {
        block.retain_mut(|s| {
            let StmtKind::Loop(l) = &mut s.kind else { return true };
            if !self.lanes.contains(&l.var) {
                self.leave(&mut l.body);
                return true;
            }
            let mut inside = Vec::new();
            l.body.iter().for_each(|s| inside.extend(s.kind.defines()));
            for value in inside {
                if let Some(t) = self.crossing.get(&value) {
                    let (to, index) = (Memory::Tile(*t), Vec::new());
                    l.body.push(StmtKind::Store { to, index, value, mask: None }.into());
                }
            }
            let mut stores = false;
            for_each_statement(&l.body, &mut |kind| stores |= matches!(kind, StmtKind::Store { .. }));
            stores
        });
    }

    /// Puts the column's place into every index: in a buffer, and in a tile of a block.
    fn settle_places(&self, block: &mut Block) {
        for s in block {
            let StmtKind::Loop(l) = &mut s.kind else { continue };
            if self.lanes.contains(&l.var) {
                replace(&mut l.body, self.column, &Index::var(self.start).add(&l.var.into()));
                self.extend_indices(&mut l.body, l.var);
            } else {
                self.settle_places(&mut l.body);
            }
        }
    }

    fn extend_indices(&self, block: &mut Block, place: VarId) {
        for s in block {
            match &mut s.kind {
                StmtKind::Let(_, Expr::Load { from: memory, index, .. })
                | StmtKind::Store { to: memory, index, .. } => {
                    if matches!(memory, Memory::Tile(t) if self.own.contains(t)) {
                        index.push(place.into());
                    }
                }
                kind => {
                    if let Some(body) = kind.body_mut() {
                        self.extend_indices(body, place);
                    }
                }
            }
        }
    }
}

/// What a reduction accumulates into.
struct Accumulate {
    depth: Depth,
    /// Rows that are combined before they meet the accumulators.
    rows: u64,
    acc: Vec<TileId>,
    /// Where accumulators that start anew are added up; else the same.
    total: Vec<TileId>,
}

/// Where accumulators start anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Nowhere.
    Flat,
    /// Every so many rows of the innermost variable.
    Pieces,
    /// In each iteration of the variable of this number.
    Level(usize),
}

impl Depth {
    fn of(r: &Reduce, rows: u64) -> Depth {
        let sums = r.reducers.iter().any(|x| x.op == ReduceOp::Sum && x.ty == ScalarType::F32);
        let Some((_, last)) = r.vars.last().filter(|_| sums) else { return Depth::Flat };
        let mut inside = last.known().map_or(u64::MAX, |n| n / rows);
        if inside > 4 * FLUSH {
            return Depth::Pieces;
        }
        for (level, (_, extent)) in r.vars.iter().enumerate().rev().skip(1) {
            let more = inside.saturating_mul(extent.known().unwrap_or(u64::MAX));
            // A restart costs as much as one more row.
            if more > 4 * FLUSH && inside >= 16 {
                return Depth::Level(level);
            }
            inside = more;
        }
        Depth::Flat
    }
}

/// Writes straight-line code whose values differ between columns.
struct Straight<'a, 'k> {
    turn: &'a mut Turn<'k>,
    block: &'a mut Block,
}

impl Emit for Straight<'_, '_> {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let v = self.turn.kernel.new_value(ty);
        self.turn.varying.insert(v);
        self.block.push(StmtKind::Let(v, expr).into());
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.turn.kernel.values[v.index()]
    }
}

/// The largest divisor that is no more than [`ROWS`].
fn divisor(n: u64) -> u64 {
    (1..=ROWS).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

fn plain(var: VarId, extent: Extent, step: u64, body: Block) -> Stmt {
    StmtKind::Loop(Loop { var, extent, step, limit: None, axis: Axis::default(), body }).into()
}

fn replace(block: &mut Block, var: VarId, with: &Index) {
    // What stands for the variable has its range, so no simplification is lost by an unbounded one.
    let unbounded = |_: VarId| (i64::MIN / 4, i64::MAX / 4);
    for_each_index(block, &mut |x| *x = x.substitute(&|v| (v == var).then(|| with.clone()), &unbounded));
}

/// Replaces the values that straight-line code and reductions in it read.
fn rename(block: &mut Block, f: &mut dyn FnMut(ValueId) -> ValueId) {
    for s in block {
        match &mut s.kind {
            StmtKind::Let(_, expr) => *expr = expr.map_operands(f),
            StmtKind::Store { value, mask, .. } => {
                *value = f(*value);
                *mask = mask.map(&mut *f);
            }
            StmtKind::Reduce(r) => {
                rename(&mut r.body, f);
                r.yields.iter_mut().for_each(|v| *v = f(*v));
            }
            StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Loop(_)
            | StmtKind::Dot(_)
            | StmtKind::Guard(..)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => {}
        }
    }
}
