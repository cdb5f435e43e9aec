//! Accumulations along rows: the threads of a block share a row.
//!
//! Each thread walks a part of the row twice. First it accumulates what the part has; from what the parts before its own have it knows
//! where to begin, and walks its part as the one thread would that had the row for itself. So the order of elements is kept, and what is
//! rounded is rounded in an order that depends on the length alone.

use super::columns::rename;
use super::elementwise::one;
use super::flatten::substitute;
use super::rows::has_compounds;
use lazuli_ir::kernel::{
    Axis, Binding, Block, Expr, Extent, Kernel, Loop, Memory, Scope, Stmt, StmtKind, Tile, TileId, ValueId,
};
use lazuli_ir::{BinaryOp, Index, Literal, VarId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Elements of a part, where there are enough.
const PART: u64 = 8;
/// Threads that share a row, at least and at most.
const LEAST: u64 = 32;
const MOST: u64 = 256;
/// Parts that a thread goes over one by one; of more, each so many are accumulated first.
const GROUP: u64 = 16;

/// A row that is one accumulation.
struct Scan<'a> {
    /// What stands before its loop, but for the tile.
    before: Vec<&'a Stmt>,
    walk: &'a Loop,
    length: u64,
    /// The tile of the result so far, and what it begins with.
    tile: TileId,
    first: Literal,
    op: BinaryOp,
    /// The values of an element that accumulating it needs.
    needed: FxHashSet<ValueId>,
}

/// The parts of a row that threads share.
struct Parts {
    threads: u64,
    own: u64,
    length: u64,
}

/// A row whose elements are accumulated by the threads of a block; `None` where it is more than that, or too short.
pub(super) fn scan(kernel: &mut Kernel, row: &Block) -> Option<Block> {
    let scan = Scan::of(row)?;
    let threads = (scan.length / PART).next_power_of_two().clamp(LEAST, MOST);
    if scan.length < 2 * threads {
        return None;
    }
    let parts = Parts { threads, own: scan.length.div_ceil(threads), length: scan.length };
    let dtype = kernel.tiles[scan.tile.index()].dtype;
    let declare = |kernel: &mut Kernel, name: &str, n: u64, scope: Scope| {
        let name = format!("{name}{}", kernel.tiles.len());
        let (dims, valid) = ([n].into_iter().collect(), [None].into_iter().collect());
        kernel.tiles.push(Tile { name, dtype, dims, valid, scope });
        TileId(kernel.tiles.len() as u32 - 1)
    };
    let found = declare(kernel, "found", threads, Scope::Block);
    let grouped = (threads > 4 * GROUP).then(|| declare(kernel, "group", threads / GROUP, Scope::Block));
    let mut block: Block = scan.before.iter().map(|s| (*s).clone()).collect();
    block.extend([found].into_iter().chain(grouped).map(|t| StmtKind::Tile(t).into()));

    // What each part has.
    let own = declare(kernel, "part", 1, Scope::Thread);
    let mut body = scan.accumulated(own);
    rename(kernel, &mut body, &mut FxHashMap::default());
    let v = kernel.new_var("part");
    let mut thread = begin(own, scan.first);
    thread.append(&mut parts.walk(kernel, v, scan.walk.var, body));
    store_so_far(kernel, &mut thread, own, found, v.into());
    block.append(&mut shared(v, threads, thread));
    block.push(StmtKind::Barrier.into());
    if let Some(group) = grouped {
        let all = declare(kernel, "parts", 1, Scope::Thread);
        let (v, w) = (kernel.new_var("group"), kernel.new_var("part"));
        let mut thread = begin(all, scan.first);
        let place = Index::var(v).times(GROUP as i64).add(&w.into());
        thread.append(&mut scan.add_up(kernel, all, (found, place), (w, GROUP, None)));
        store_so_far(kernel, &mut thread, all, group, v.into());
        block.append(&mut shared(v, threads / GROUP, thread));
        block.push(StmtKind::Barrier.into());
    }

    // From what the parts before have on.
    let v = kernel.new_var("part");
    let mut thread = begin(scan.tile, scan.first);
    let mut ahead = Index::var(v);
    let mut start = Index::default();
    if let Some(group) = grouped {
        let range = |u: VarId| (0, if u == v { threads as i64 } else { i64::MAX / 4 });
        let (whole, w) = (Index::var(v).floor_div(GROUP as i64, &range), kernel.new_var("group"));
        start = whole.times(GROUP as i64);
        ahead = ahead.add_scaled(&start, -1);
        thread.append(&mut scan.add_up(kernel, scan.tile, (group, w.into()), (w, threads / GROUP, Some(whole))));
    }
    let w = kernel.new_var("part");
    let most = if grouped.is_some() { GROUP } else { threads };
    thread.append(&mut scan.add_up(kernel, scan.tile, (found, start.add(&w.into())), (w, most, Some(ahead))));
    thread.append(&mut parts.walk(kernel, v, scan.walk.var, scan.walk.body.clone()));
    block.append(&mut shared(v, threads, thread));
    Some(block)
}

impl<'a> Scan<'a> {
    fn of(row: &'a Block) -> Option<Scan<'a>> {
        let (last, rest) = row.split_last()?;
        let StmtKind::Loop(walk) = &last.kind else { return None };
        let straight = |s: &Stmt| matches!(s.kind, StmtKind::Let(..) | StmtKind::Store { .. } | StmtKind::Check { .. });
        if has_compounds(&walk.body) || !walk.body.iter().all(straight) || walk.step != 1 || walk.limit.is_some() {
            return None;
        }
        let (mut tile, mut first, mut before) = (None, None, Vec::new());
        for s in rest {
            match &s.kind {
                StmtKind::Tile(t) if tile.is_none() => tile = Some(*t),
                StmtKind::Fill(t, value) if tile == Some(*t) && first.is_none() => first = Some(*value),
                StmtKind::Let(..) => before.push(s),
                _ => return None,
            }
        }
        let (tile, first) = (tile?, first?);
        let mut values: FxHashMap<ValueId, &Expr> = FxHashMap::default();
        let (mut so_far, mut result) = (None, None);
        for s in &walk.body {
            match &s.kind {
                StmtKind::Let(v, expr) => {
                    if let Expr::Load { from: Memory::Tile(_), .. } = expr {
                        // The result so far, once, before it changes.
                        if so_far.replace(*v).is_some() || result.is_some() {
                            return None;
                        }
                    }
                    values.insert(*v, expr);
                }
                StmtKind::Store { to: Memory::Tile(_), value, mask: None, .. } => {
                    if result.replace(*value).is_some() {
                        return None;
                    }
                }
                StmtKind::Store { to: Memory::Param(_), index, .. } => {
                    if !index.iter().any(|x| x.mentions(walk.var)) {
                        return None;
                    }
                }
                StmtKind::Check { .. } => {}
                _ => return None,
            }
        }
        let (so_far, result) = (so_far?, result?);
        let Expr::Binary(op, a, b) = values.get(&result)? else { return None };
        let associative = matches!(op, BinaryOp::Add | BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min);
        let element = if *a == so_far { *b } else { *a };
        if !associative || ![a, b].contains(&&so_far) {
            return None;
        }
        // What an element needs, of what its iteration computes.
        let mut needed = FxHashSet::default();
        let mut open = vec![element];
        while let Some(v) = open.pop() {
            if let Some(expr) = values.get(&v)
                && needed.insert(v)
            {
                expr.for_each_operand(&mut |o| open.push(o));
            }
        }
        if needed.contains(&so_far) || needed.contains(&result) {
            return None;
        }
        needed.extend([so_far, result]);
        Some(Scan { before, walk, length: walk.extent.known()?, tile, first, op: *op, needed })
    }

    /// The body of the loop as far as it accumulates, into another tile.
    fn accumulated(&self, own: TileId) -> Block {
        let mut body = Block::new();
        for s in &self.walk.body {
            let kind = match &s.kind {
                StmtKind::Let(v, Expr::Load { from: Memory::Tile(_), index, mask }) => {
                    StmtKind::Let(*v, Expr::Load { from: Memory::Tile(own), index: index.clone(), mask: *mask })
                }
                StmtKind::Let(v, expr) if self.needed.contains(v) => StmtKind::Let(*v, expr.clone()),
                StmtKind::Store { to: Memory::Tile(_), index, value, mask } => {
                    StmtKind::Store { to: Memory::Tile(own), index: index.clone(), value: *value, mask: *mask }
                }
                _ => continue,
            };
            body.push(Stmt { kind, sources: s.sources.clone() });
        }
        body
    }

    /// A loop that accumulates elements of a tile into another.
    fn add_up(
        &self,
        kernel: &mut Kernel,
        into: TileId,
        (from, place): (TileId, Index),
        (var, most, limit): (VarId, u64, Option<Index>),
    ) -> Block {
        let ty = kernel.tiles[into.index()].dtype.into();
        let [so_far, part, sum] = [0; 3].map(|_| kernel.new_value(ty));
        let load = |from: TileId, index: Index| Expr::Load { from: Memory::Tile(from), index: vec![index], mask: None };
        let body = [
            StmtKind::Let(so_far, load(into, Index::default())),
            StmtKind::Let(part, load(from, place)),
            StmtKind::Let(sum, Expr::Binary(self.op, so_far, part)),
            StmtKind::Store { to: Memory::Tile(into), index: vec![Index::default()], value: sum, mask: None },
        ];
        let body = body.into_iter().map(Stmt::from).collect();
        one(var, Extent::Const(most), 1, limit, Axis { unroll: 4, ..Axis::default() }, body)
    }
}

impl Parts {
    /// The loop over a thread's own part.
    fn walk(&self, kernel: &mut Kernel, thread: VarId, along: VarId, mut body: Block) -> Block {
        let inside = kernel.new_var(kernel.vars[along.0 as usize].clone());
        let start = Index::var(thread).times(self.own as i64);
        let wide = |_: VarId| (0, i64::MAX / 4);
        substitute(&mut body, &FxHashMap::from_iter([(along, start.add(&inside.into()))]), &wide);
        let whole = self.own * self.threads == self.length;
        let limit = (!whole).then(|| Index::constant(self.length as i64).add_scaled(&start, -1));
        one(inside, Extent::Const(self.own), 1, limit, Axis { unroll: 4, ..Axis::default() }, body)
    }
}

/// A loop that the threads of a block share.
fn shared(v: VarId, threads: u64, body: Block) -> Block {
    one(v, Extent::Const(threads), 1, None, Axis { binding: Binding::Block, ..Axis::default() }, body)
}

fn begin(tile: TileId, first: Literal) -> Block {
    vec![StmtKind::Tile(tile).into(), StmtKind::Fill(tile, first).into()]
}

/// Stores what a thread's tile has into an element of another.
fn store_so_far(kernel: &mut Kernel, block: &mut Block, own: TileId, to: TileId, place: Index) {
    let v = kernel.new_value(kernel.tiles[own.index()].dtype.into());
    let load = Expr::Load { from: Memory::Tile(own), index: vec![Index::default()], mask: None };
    block.push(StmtKind::Let(v, load).into());
    block.push(StmtKind::Store { to: Memory::Tile(to), index: vec![place], value: v, mask: None }.into());
}
