//! Elementwise kernels: all elements in one order, each thread some of them.

use super::flatten::{below, digits, substitute};
use crate::schedule::{sink, stride};
use crate::tiling::{Stage, innermost, strided_loads, through_tiles};
use lazuli_ir::index::Atom;
use lazuli_ir::kernel::{
    Axis, Binding, Block, Expr, Extent, Kernel, Loop, Memory, Scope, Stmt, StmtKind, Stride, ValueId,
};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{Index, Target, VarId};

/// Threads of a block.
const THREADS: u64 = 256;
/// Elements that a thread takes at most where they are no vectors.
const MOST_OWN: u64 = 4;
/// The side of the square through which a transpose goes.
const SQUARE: u64 = 32;
/// Rows and columns from which on a square is worth it.
const LEAST_SIDE: u64 = 16;

/// Operations a row that are done again for each of its elements, at most.
const REPEATED: u32 = 32;

/// Moves what is the same for all of a row into the loop over its elements, where that is all that stands before the loop, and
/// little: the nest is then perfect, and its elements are shared however long rows are.
pub(super) fn make_perfect(block: &mut Block) {
    let [Stmt { kind: StmtKind::Loop(root), .. }] = block.as_mut_slice() else { return };
    make_perfect(&mut root.body);
    let Some((last, before)) = root.body.split_last() else { return };
    let cost = |s: &Stmt| match &s.kind {
        StmtKind::Let(_, Expr::Unary(op, _)) => op.row().flops,
        StmtKind::Let(_, Expr::Binary(op, ..)) => op.flops(),
        StmtKind::Let(_, Expr::Random(..)) => REPEATED + 1,
        _ => 1,
    };
    let lets = before.iter().all(|s| matches!(s.kind, StmtKind::Let(..)));
    if !lets || before.iter().map(cost).sum::<u32>() > REPEATED || innermost(last).is_none() {
        return;
    }
    if let Some(mut inner) = root.body.pop() {
        sink(&mut inner, std::mem::take(&mut root.body));
        root.body.push(inner);
    }
}

/// Binds a perfect nest over straight-line code.
pub(super) fn bind(kernel: &mut Kernel, body: Block, nest: &[(VarId, u64)], target: &Target) -> Block {
    if nest.iter().any(|(_, n)| *n == 0) {
        return nothing(body);
    }
    if let Some((order, loads)) = across(kernel, &body, nest) {
        return through_squares(kernel, body, &order, &loads);
    }
    let all: u64 = nest.iter().map(|(_, n)| n).product();
    let mut inner = body;
    for _ in nest {
        if let Some(Stmt { kind: StmtKind::Loop(l), .. }) = inner.pop() {
            inner = l.body;
        }
    }
    let Some(&(last, columns)) = nest.last() else { return inner };
    let lanes = lanes(kernel, &inner, last, columns);
    let enough = u64::from(target.cores) * THREADS * 8;
    let name = kernel.vars[last.0 as usize].clone();
    let (start, inside) = (kernel.new_var(format!("{name}0")), kernel.new_var(name.clone()));
    // What the loops count: elements, or groups of neighbours, which do not cross the ends of rows.
    let groups = nest.len() > 1 && lanes > 1;
    let own = match lanes {
        1 => (all / enough).clamp(1, MOST_OWN),
        _ if groups => 1,
        lanes => u64::from(lanes),
    };
    let mut counted = nest.to_vec();
    if let Some(last) = counted.last_mut()
        && groups
    {
        last.1 = columns / u64::from(lanes);
    }
    let (count, size) = (counted.iter().map(|c| c.1).product::<u64>(), THREADS * own);
    let own = [start, inside];
    let range = below(&own, count + size);
    let number = Index::var(start).add(&inside.into());
    let mut with = digits(&counted, &number, &range);
    let vector = Axis { vector: lanes, ..Axis::default() };
    if groups {
        let lane = kernel.new_var(name);
        if let Some(x) = with.get_mut(&last) {
            *x = x.times(i64::from(lanes)).add(&lane.into());
        }
        substitute(&mut inner, &with, &range);
        inner = one(lane, Extent::Const(u64::from(lanes)), 1, None, vector, inner);
    } else {
        substitute(&mut inner, &with, &range);
    }
    let limit = (!count.is_multiple_of(size)).then(|| Index::constant(count as i64).add_scaled(&start.into(), -1));
    let axis = Axis { binding: Binding::Block, vector: if groups { 1 } else { lanes }, unroll: 1 };
    let inner = one(inside, Extent::Const(size), 1, limit, axis, inner);
    let grid = Axis { binding: Binding::Grid(0), ..Axis::default() };
    one(start, Extent::Const(count), size, None, grid, inner)
}

pub(super) fn one(var: VarId, extent: Extent, step: u64, limit: Option<Index>, axis: Axis, body: Block) -> Block {
    vec![StmtKind::Loop(Loop { var, extent, step, limit, axis, body }).into()]
}

/// A nest of no iterations.
fn nothing(mut body: Block) -> Block {
    if let Some(Stmt { kind: StmtKind::Loop(l), .. }) = body.first_mut() {
        l.axis.binding = Binding::Grid(0);
    }
    body
}

/// How many neighbours along a variable a thread takes together: as many as fill 16 bytes of the widest that is read or written,
/// where most lies along it and rows do not end inside of a group.
pub(super) fn lanes(kernel: &Kernel, body: &Block, v: VarId, extent: u64) -> u32 {
    let (mut good, mut bad, mut size, mut stores) = (0, 0, 1u64, true);
    let mut whole = u64::MAX;
    for_each_statement(body, &mut |kind| {
        for touch in kind.touches() {
            let Memory::Param(p) = touch.memory else { continue };
            let dtype = kernel.params[p.index()].dtype;
            match stride(kernel, touch.memory, touch.index, v) {
                Some(1) if !touch.masked => {
                    good += 1;
                    size = size.max(dtype.size() as u64);
                    whole = whole.min(multiple(kernel, p.index(), touch.index, v));
                }
                Some(0) => {}
                _ => {
                    bad += 1;
                    stores &= matches!(kind, StmtKind::Let(..));
                }
            }
        }
    });
    if good == 0 || bad > good || !stores || !is_straight(body) {
        return 1;
    }
    let mut lanes = (16 / size).clamp(1, 8);
    while lanes > 1 && (!extent.is_multiple_of(lanes) || !whole.is_multiple_of(lanes)) {
        lanes /= 2;
    }
    lanes as u32
}

fn is_straight(body: &Block) -> bool {
    body.iter().all(|s| matches!(s.kind, StmtKind::Let(..) | StmtKind::Store { .. }))
}

/// A power of two that divides where an access starts, whatever the other variables are.
fn multiple(kernel: &Kernel, p: usize, index: &[Index], v: VarId) -> u64 {
    let mut sum = Index::default();
    for (x, s) in index.iter().zip(&kernel.params[p].strides) {
        match s {
            Stride::Const(c) => sum = sum.add_scaled(x, *c),
            Stride::Runtime => return 1,
        }
    }
    let terms = sum.terms().iter().filter(|(a, _)| *a != Atom::Var(v)).map(|(_, c)| *c);
    terms.chain([sum.offset()]).map(|c| 1u64 << c.unsigned_abs().trailing_zeros().min(6)).min().unwrap_or(1)
}

/// Loops from the outermost to the innermost.
type Nest = Vec<(VarId, u64)>;

/// An order of the loops in which something is read across memory, along the second innermost; and what.
fn across(kernel: &Kernel, body: &Block, nest: &[(VarId, u64)]) -> Option<(Nest, Vec<ValueId>)> {
    let root = body.first()?;
    let last = nest.len().checked_sub(1)?;
    (0..last).rev().find_map(|at| {
        let mut order = nest.to_vec();
        let row = order.remove(at);
        order.insert(last - 1, row);
        let [.., (_, rows), (_, columns)] = order.as_slice() else { return None };
        let loads = strided_loads(kernel, root, &order);
        (!loads.is_empty() && (*rows).min(*columns) >= LEAST_SIDE).then_some((order, loads))
    })
}

/// Cuts the two innermost loops into squares, and brings strided loads in through shared memory.
fn through_squares(kernel: &mut Kernel, block: Block, nest: &[(VarId, u64)], loads: &[ValueId]) -> Block {
    let squares = Stage {
        row: (SQUARE, Binding::Grid(1), Binding::Warp),
        column: (SQUARE, Binding::Grid(0), Binding::Lane),
        outer: Binding::Grid(2),
        // One column more than the square: its columns then lie in different banks.
        pad: 1,
        scope: Scope::Block,
        copy: (Axis { binding: Binding::Lane, ..Axis::default() }, Axis { binding: Binding::Warp, ..Axis::default() }),
        near: None,
        vector: 1,
    };
    through_tiles(kernel, block, nest, loads, &squares)
}
