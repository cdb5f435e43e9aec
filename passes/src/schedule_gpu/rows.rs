//! Rows: what reduces, accumulates, or runs several loops for each of the iterations around it.
//!
//! Who walks a row depends on how long it is, and how it lies:
//!
//! - a thread, where rows are columns of memory, must be walked in order, or are shorter than is worth sharing. Few long columns
//!   are cut among the warps of a block, which combine what they found in shared memory;
//! - a warp, where a row has about as many elements as lanes can hold in registers, and nothing but reductions and loops over them;
//! - a block, where it is longer, or keeps what is not indexed alike by all that use it: that lies in shared memory, and the block
//!   meets between loops.
//!
//! A body without loops around it is one row: a reduction of its own is cut into chunks for the grid, anything else is a block's.

use super::chunks::chunks;
use super::columns::column_warps;
use super::elementwise::{lanes, one};
use super::flatten::{below, digits, flatten, substitute};
use super::scans::scan;
use super::{is_ordered, meet, reduces_in_order};
use crate::schedule::stride;
use crate::tiling::innermost;
use lazuli_ir::kernel::{Axis, Binding, Block, Extent, Kernel, Memory, Scope, Stmt, StmtKind, TileId};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{Index, Target, VarId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Elements of a row that are not worth sharing.
pub(crate) const SHORT: u64 = 16;
/// Elements of the longest row that a warp walks.
pub(crate) const WARP_ROW: u64 = 1024;
/// Warps of a block that walk rows at most.
pub(super) const WARPS: u64 = 8;
/// Elements of a row that a thread may have in registers.
const REGISTERS: u64 = 64;
/// Threads of a block.
pub(super) const THREADS: u64 = 256;

/// Binds a kernel that is no perfect nest over straight-line code.
pub(super) fn bind(kernel: &mut Kernel, body: Block, target: &Target) -> Block {
    let (outer, mut row) = descend(body);
    let last = outer.last().map(|o| o.0);
    let rows: u64 = outer.iter().map(|o| o.1).product();
    // Columns for all multiprocessors are a thread's, since neighbours read neighbours.
    let across = last.is_some_and(|v| lie_across(kernel, &row, v));
    if (!across || rows < 32 * u64::from(target.cores))
        && rows > 0
        && let Some(row) = scan(kernel, &row)
    {
        return wrap(&outer, row);
    }
    if outer.is_empty() {
        if let [Stmt { kind: StmtKind::Reduce(r), .. }] = row.as_mut_slice()
            && chunks(kernel, r)
        {
            return row;
        }
        return block_row(kernel, row);
    }
    if rows == 0 {
        return wrap(&outer, row);
    }
    let length = row.iter().map(elements).max().unwrap_or(0);
    if length <= SHORT || row.iter().any(must_follow) || across {
        return thread_rows(kernel, &outer, row, target);
    }
    if length <= WARP_ROW && is_simple(kernel, &row) {
        flatten(kernel, &mut row);
        if registers(kernel, &row, Binding::Lane) {
            return warp_rows(kernel, &outer, row, target);
        }
    }
    let row = block_row(kernel, row);
    wrap(&outer, row)
}

/// The loops around rows, and a row.
fn descend(mut body: Block) -> (Vec<(VarId, u64)>, Block) {
    let mut outer = Vec::new();
    loop {
        match body.as_mut_slice() {
            [Stmt { kind: StmtKind::Loop(l), .. }]
                if l.limit.is_none() && l.step == 1 && !is_ordered(l) && l.extent.known().is_some() =>
            {
                outer.push((l.var, l.extent.known().unwrap_or(0)));
                body = std::mem::take(&mut l.body);
            }
            _ => return (outer, body),
        }
    }
}

/// Loops of the grid around a row.
fn wrap(outer: &[(VarId, u64)], mut row: Block) -> Block {
    for (depth, &(v, n)) in outer.iter().enumerate().rev() {
        let axis = Axis { binding: Binding::Grid(depth.min(2) as u8), ..Axis::default() };
        row = one(v, Extent::Const(n), 1, None, axis, row);
    }
    row
}

/// Whether a block holds loops or reductions.
pub(super) fn has_compounds(block: &Block) -> bool {
    block.iter().any(|s| match &s.kind {
        StmtKind::Loop(_) | StmtKind::Reduce(_) => true,
        StmtKind::Guard(_, body) => has_compounds(body),
        _ => false,
    })
}

/// Elements that a statement walks.
pub(super) fn elements(s: &Stmt) -> u64 {
    let inside = |b: &Block| b.iter().map(elements).max().unwrap_or(0).max(1);
    match &s.kind {
        StmtKind::Loop(l) => l.extent.known().unwrap_or(u64::MAX).saturating_mul(inside(&l.body)),
        StmtKind::Reduce(r) => {
            let own = r.vars.iter().map(|(_, e)| e.known().unwrap_or(u64::MAX)).fold(1, u64::saturating_mul);
            own.saturating_mul(inside(&r.body))
        }
        StmtKind::Guard(_, body) => inside(body),
        _ => 0,
    }
}

/// Whether a statement holds a loop whose iterations follow each other.
pub(super) fn must_follow(s: &Stmt) -> bool {
    let mut found = false;
    for_each_statement(std::slice::from_ref(s), &mut |kind| {
        found |= match kind {
            StmtKind::Loop(l) => is_ordered(l),
            StmtKind::Reduce(r) => reduces_in_order(r),
            _ => false,
        };
    });
    found
}

/// Whether most of what a row reads lies along the loop around it, and not along the row.
pub(super) fn lie_across(kernel: &Kernel, row: &Block, around: VarId) -> bool {
    fn count(kernel: &Kernel, block: &Block, around: VarId, own: &mut Vec<VarId>, found: &mut (u32, u32)) {
        for s in block {
            let depth = own.len();
            match &s.kind {
                StmtKind::Loop(l) => own.push(l.var),
                StmtKind::Reduce(r) => own.extend(r.vars.iter().map(|v| v.0)),
                _ => {}
            }
            for touch in s.kind.touches() {
                if matches!(touch.memory, Memory::Tile(_)) || own.is_empty() {
                    continue;
                }
                let along = |v: VarId| stride(kernel, touch.memory, touch.index, v);
                if own.iter().any(|v| along(*v) == Some(1)) {
                    found.1 += 1;
                } else if along(around) == Some(1) && own.iter().any(|v| along(*v) != Some(0)) {
                    found.0 += 1;
                }
            }
            if let Some(body) = s.kind.body() {
                count(kernel, body, around, own, found);
            }
            own.truncate(depth);
        }
    }
    let mut found = (0, 0);
    count(kernel, row, around, &mut Vec::new(), &mut found);
    found.0 > found.1
}

/// Whether a row is reductions and loops over straight-line code, none of which waits for another by way of memory.
pub(super) fn is_simple(kernel: &Kernel, row: &Block) -> bool {
    let straight = |s: &Stmt| match &s.kind {
        StmtKind::Loop(_) => innermost(s).is_some(),
        StmtKind::Reduce(r) => !has_compounds(&r.body),
        StmtKind::Guard(..) => false,
        _ => true,
    };
    let waits = |i: usize| row[..i].iter().any(|before| shares_params(kernel, before, &row[i]));
    row.iter().all(straight) && !(0..row.len()).any(waits)
}

/// Whether one of two statements writes a parameter that the other touches.
fn shares_params(kernel: &Kernel, a: &Stmt, b: &Stmt) -> bool {
    let compounds = [a, b].iter().all(|s| matches!(s.kind, StmtKind::Loop(_) | StmtKind::Reduce(_)));
    compounds && super::conflict(kernel, a, b)
}

/// One of the rows at a time for each thread.
fn thread_rows(kernel: &mut Kernel, outer: &[(VarId, u64)], mut row: Block, target: &Target) -> Block {
    let rows: u64 = outer.iter().map(|o| o.1).product();
    if let Some(block) = column_warps(kernel, outer, &row, rows, target) {
        return block;
    }
    unroll(&mut row);
    // Small blocks, where there are few rows, so that all multiprocessors have some.
    let size = (rows / u64::from(target.cores.max(1))).next_power_of_two().clamp(32, THREADS);
    share_rows(kernel, outer, row, size, Binding::Block)
}

/// Loops over groups of rows, which are blocks, and over the rows of one.
fn share_rows(kernel: &mut Kernel, outer: &[(VarId, u64)], mut row: Block, size: u64, binding: Binding) -> Block {
    let rows: u64 = outer.iter().map(|o| o.1).product();
    let name = outer.last().map_or_else(|| "row".to_owned(), |o| kernel.vars[o.0.0 as usize].clone());
    let (start, inside) = (kernel.new_var(format!("{name}0")), kernel.new_var(name));
    let own = [start, inside];
    let range = below(&own, rows + size);
    let number = Index::var(start).add(&inside.into());
    substitute(&mut row, &digits(outer, &number, &range), &range);
    let limit = (!rows.is_multiple_of(size)).then(|| Index::constant(rows as i64).add_scaled(&start.into(), -1));
    let axis = |binding| Axis { binding, ..Axis::default() };
    let row = one(inside, Extent::Const(size), 1, limit, axis(binding), row);
    one(start, Extent::Const(rows), size, None, axis(Binding::Grid(0)), row)
}

/// Several elements in flight; short loops are no loops at all, so that what they keep stays in registers.
pub(super) fn unroll(block: &mut Block) {
    for s in block {
        let (extent, axis) = match &mut s.kind {
            StmtKind::Loop(l) => (l.extent, &mut l.axis),
            StmtKind::Reduce(r) => (r.vars.last().map_or(Extent::Const(1), |v| v.1), &mut r.axis),
            _ => continue,
        };
        axis.unroll = match extent.known() {
            Some(n) if n <= SHORT => n.max(1) as u32,
            _ => 4,
        };
        if let Some(body) = s.kind.body_mut() {
            unroll(body);
        }
    }
}

/// A row is a warp's; several warps are a block.
fn warp_rows(kernel: &mut Kernel, outer: &[(VarId, u64)], mut row: Block, target: &Target) -> Block {
    share(kernel, &mut row, Binding::Lane);
    let rows: u64 = outer.iter().map(|o| o.1).product();
    let warps = (rows / (2 * u64::from(target.cores.max(1)))).clamp(1, WARPS);
    match 1 << warps.ilog2() {
        1 => wrap(outer, row),
        warps => share_rows(kernel, outer, row, warps, Binding::Warp),
    }
}

/// A row is a block's.
fn block_row(kernel: &mut Kernel, mut row: Block) -> Block {
    let length = row.iter().map(elements).max().unwrap_or(0);
    if length <= SHORT {
        // One thread does it sooner than several that have to meet.
        unroll(&mut row);
        return row;
    }
    flatten(kernel, &mut row);
    registers(kernel, &row, Binding::Block);
    share(kernel, &mut row, Binding::Block);
    meet(kernel, row)
}

/// Who walks what stands in a row.
pub(super) fn share(kernel: &mut Kernel, row: &mut Block, binding: Binding) {
    let lanes =
        if row.iter().any(|s| matches!(s.kind, StmtKind::Tile(_))) { alike(kernel, row, binding) } else { None };
    for s in row {
        share_one(kernel, s, binding, lanes);
    }
}

fn share_one(kernel: &mut Kernel, s: &mut Stmt, binding: Binding, lanes: Option<u32>) {
    match &mut s.kind {
        StmtKind::Loop(l) if has_compounds(&l.body) && (is_ordered(l) || is_few(l.extent, &l.body)) => {
            inside(kernel, &mut l.body, binding);
        }
        StmtKind::Loop(l) if !is_ordered(l) => {
            l.axis.binding = binding;
            l.axis.vector = lanes.unwrap_or_else(|| vector(kernel, &l.body, l.var, l.extent, binding));
        }
        StmtKind::Reduce(r) => {
            let all = r.vars.iter().map(|(_, e)| e.known()).try_fold(1u64, |n, e| Some(n.saturating_mul(e?)));
            let ordered = reduces_in_order(r);
            if has_compounds(&r.body) && (ordered || is_few(all.map_or(r.vars[0].1, Extent::Const), &r.body)) {
                inside(kernel, &mut r.body, binding);
                return;
            }
            if ordered {
                return;
            }
            r.axis.binding = binding;
            if let ([(v, extent)], false) = (r.vars.as_slice(), has_compounds(&r.body)) {
                r.axis.vector = lanes.unwrap_or_else(|| vector(kernel, &r.body, *v, *extent, binding));
            }
        }
        StmtKind::Guard(_, body) => {
            for s in body {
                share_one(kernel, s, binding, lanes);
            }
        }
        _ => {}
    }
}

/// Shares what stands in a loop that all threads walk together.
fn inside(kernel: &mut Kernel, body: &mut Block, binding: Binding) {
    registers(kernel, body, binding);
    for s in body.iter_mut() {
        share_one(kernel, s, binding, Some(1));
    }
    if binding == Binding::Block {
        let mut met = meet(kernel, std::mem::take(body));
        // The next iteration writes what this one reads.
        let again = met.iter().any(|s| met.iter().any(|t| super::conflict(kernel, s, t)));
        met.extend(again.then(|| StmtKind::Barrier.into()));
        *body = met;
    }
}

/// Whether threads should rather share the loops inside of one than its iterations.
fn is_few(extent: Extent, body: &Block) -> bool {
    let inside = body.iter().map(elements).max().unwrap_or(0);
    extent.known().is_some_and(|n| n < 32 && inside >= 2 * n.max(SHORT))
}

/// The lanes of a vector of a loop that threads share, each of whom should have one.
fn vector(kernel: &Kernel, body: &Block, v: VarId, extent: Extent, binding: Binding) -> u32 {
    let Some(n) = extent.known() else { return 1 };
    let mut lanes = lanes(kernel, body, v, n);
    let threads = if binding == Binding::Lane { 32 } else { 128 };
    while lanes > 1 && n < threads * u64::from(lanes) {
        lanes /= 2;
    }
    lanes
}

/// The lanes that fit all loops of a row that keeps elements in registers.
fn alike(kernel: &Kernel, row: &Block, binding: Binding) -> Option<u32> {
    let widths = row.iter().filter_map(|s| match &s.kind {
        StmtKind::Loop(l) => Some(vector(kernel, &l.body, l.var, l.extent, binding)),
        StmtKind::Reduce(r) => r.vars.last().map(|(v, e)| vector(kernel, &r.body, *v, *e, binding)),
        _ => None,
    });
    widths.min()
}

/// Decides where the tiles of a row lie: in registers, where all that use one index it by loops of one form that threads share.
/// The others are the block's. Tells whether all are in registers.
pub(super) fn registers(kernel: &mut Kernel, row: &Block, binding: Binding) -> bool {
    let mut declared = Vec::new();
    for s in row {
        if let StmtKind::Tile(t) = s.kind {
            declared.push(t);
        }
    }
    let mut forms: FxHashMap<TileId, Vec<Option<u64>>> = FxHashMap::default();
    // What only walks in order touch, each thread has for itself.
    let mut shared: FxHashSet<TileId> = FxHashSet::default();
    for s in row {
        let nest = match &s.kind {
            StmtKind::Loop(l) if !has_compounds(&l.body) && !is_ordered(l) => Some((l.var, l.extent.known())),
            StmtKind::Reduce(r) if !has_compounds(&r.body) && !reduces_in_order(r) => match r.vars.as_slice() {
                [(v, e)] => Some((*v, e.known())),
                _ => None,
            },
            _ => None,
        };
        for_each_statement(std::slice::from_ref(s), &mut |kind| {
            for touch in kind.touches() {
                let Memory::Tile(t) = touch.memory else { continue };
                let own =
                    nest.and_then(|(v, n)| n.filter(|_| touch.index.len() == 1 && touch.index[0].as_var() == Some(v)));
                forms.entry(t).or_default().push(own);
                if is_shared(s) {
                    shared.insert(t);
                }
            }
        });
    }
    let threads = if binding == Binding::Lane { 32 } else { THREADS * 4 };
    let mut all = true;
    for t in declared {
        if !shared.contains(&t) {
            continue;
        }
        let n: u64 = kernel.tiles[t.index()].dims.iter().product();
        let alike = forms.get(&t).is_none_or(|f| f.iter().all(|own| *own == Some(n)));
        let fits = n <= threads * REGISTERS;
        kernel.tiles[t.index()].scope = if alike && fits { Scope::Register } else { Scope::Block };
        all &= alike && fits;
    }
    all
}

/// Whether threads share (some of) a statement.
fn is_shared(s: &Stmt) -> bool {
    match &s.kind {
        StmtKind::Loop(l) => !is_ordered(l) || has_compounds(&l.body),
        StmtKind::Reduce(r) => !reduces_in_order(r) || has_compounds(&r.body),
        StmtKind::Guard(..) => true,
        _ => false,
    }
}
