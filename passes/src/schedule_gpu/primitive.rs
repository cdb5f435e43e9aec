//! Kernels of single primitives, whose extents are run-time values: no loop can be taken apart into another's variables, so blocks
//! are pieces of the two innermost dims, and all other dims are the grid's.

use super::elementwise::one;
use super::flatten::substitute;
use super::rows::{lie_across, unroll};
use crate::primitive::RowLength;
use crate::renumber::renumber;
use crate::schedule::{split_root, stride};
use lazuli_ir::kernel::{Axis, Binding, Block, Extent, Kernel, Loop, Memory, Stmt, StmtKind};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{Index, VarId};
use rustc_hash::FxHashMap;

/// Elements of the innermost dim that a block takes, where it is the only one.
const PIECE: u64 = 1024;
/// Elements of the innermost dim that a warp takes, and rows that a block takes, where there are more.
const WARP_PIECE: u64 = 128;
const ROWS: u64 = 8;
/// Columns that a block reduces.
const COLUMNS: u64 = 64;
/// Elements of a reduction at the root that a block takes.
const CHUNK: u64 = 8192;

/// Schedules the kernel of one primitive, whose reductions have rows of about this length.
pub(crate) fn schedule_gpu_primitive(kernel: &mut Kernel, length: RowLength) {
    split_root(kernel);
    let mut body = std::mem::take(&mut kernel.body);
    let mut nest: Vec<(VarId, Extent)> = Vec::new();
    while let [Stmt { kind: StmtKind::Loop(Loop { var, extent, body: inner, .. }), .. }] = body.as_mut_slice() {
        nest.push((*var, *extent));
        body = std::mem::take(inner);
    }
    let reduces = body.iter().any(|s| matches!(s.kind, StmtKind::Reduce(_)));
    kernel.body = match (nest.pop(), reduces) {
        (None, true) => at_root(body),
        (None, false) => body,
        (Some(last), true) => rows(kernel, &nest, last, body, length),
        (Some(last), false) => elements(kernel, nest, last, body),
    };
    let shared = matches!(kernel.body.as_slice(), [Stmt { kind: StmtKind::Reduce(_), .. }]);
    if !shared && nest_is_empty(&kernel.body) {
        kernel.body.append(&mut kernel.finish);
    }
    renumber(kernel);
}

fn nest_is_empty(body: &Block) -> bool {
    !matches!(body.as_slice(), [Stmt { kind: StmtKind::Loop(_), .. }])
}

fn axis(binding: Binding, vector: u32) -> Axis {
    Axis { binding, vector, unroll: 1 }
}

/// A reduction of all elements: in chunks of the first dim.
fn at_root(mut body: Block) -> Block {
    if let [Stmt { kind: StmtKind::Reduce(r), .. }] = body.as_mut_slice() {
        r.axis.binding = Binding::Grid(0);
        r.chunk = if r.vars.len() == 1 { CHUNK } else { ROWS };
    }
    body
}

/// Cuts a loop into pieces of the grid.
fn cut(kernel: &mut Kernel, (v, extent): (VarId, Extent), size: u64, inside: Axis, mut body: Block) -> (VarId, Block) {
    let name = kernel.vars[v.0 as usize].clone();
    let (start, own) = (kernel.new_var(format!("{name}0")), kernel.new_var(name));
    let number = Index::var(start).add(&own.into());
    substitute(&mut body, &FxHashMap::from_iter([(v, number)]), &|_| (0, i64::MAX / 4));
    let limit = Some(extent.index().add_scaled(&start.into(), -1));
    (start, one(own, Extent::Const(size), 1, limit, inside, body))
}

fn grid(outer: &[(VarId, Extent)], mut body: Block) -> Block {
    for &(v, n) in outer.iter().rev() {
        body = one(v, n, 1, None, axis(Binding::Grid(2), 1), body);
    }
    body
}

fn elements(kernel: &mut Kernel, mut outer: Vec<(VarId, Extent)>, last: (VarId, Extent), body: Block) -> Block {
    let Some(row) = outer.pop() else {
        let lanes = if lies_along(kernel, &body, last.0) { 4 } else { 1 };
        let (start, body) = cut(kernel, last, PIECE, axis(Binding::Block, lanes), body);
        return one(start, last.1, PIECE, None, axis(Binding::Grid(0), 1), body);
    };
    let (start, body) = cut(kernel, last, WARP_PIECE, axis(Binding::Lane, 1), body);
    let (first, body) = cut(kernel, row, ROWS, axis(Binding::Warp, 1), body);
    let body = one(start, last.1, WARP_PIECE, None, axis(Binding::Grid(0), 1), body);
    grid(&outer, one(first, row.1, ROWS, None, axis(Binding::Grid(1), 1), body))
}

/// Whether all that is read and written lies along a variable, or is one element.
fn lies_along(kernel: &Kernel, body: &Block, v: VarId) -> bool {
    let mut all = true;
    for_each_statement(body, &mut |kind| {
        for t in kind.touches() {
            if let Memory::Param(_) = t.memory {
                all &= matches!(stride(kernel, t.memory, t.index, v), Some(0 | 1));
            }
        }
    });
    all
}

/// Reductions: of columns and of the shortest rows, one a thread; else, a row a warp or, if it is long, a block.
fn rows(
    kernel: &mut Kernel,
    outer: &[(VarId, Extent)],
    last: (VarId, Extent),
    mut body: Block,
    length: RowLength,
) -> Block {
    if length == RowLength::Thread || lie_across(kernel, &body, last.0) {
        unroll(&mut body);
        let (start, body) = cut(kernel, last, COLUMNS, axis(Binding::Block, 1), body);
        return grid(outer, one(start, last.1, COLUMNS, None, axis(Binding::Grid(0), 1), body));
    }
    let together = if length == RowLength::Warp { Binding::Lane } else { Binding::Block };
    for s in &mut body {
        if let StmtKind::Reduce(r) = &mut s.kind {
            r.axis.binding = together;
        }
    }
    if length == RowLength::Warp {
        let (start, body) = cut(kernel, last, ROWS, axis(Binding::Warp, 1), body);
        return grid(outer, one(start, last.1, ROWS, None, axis(Binding::Grid(0), 1), body));
    }
    grid(outer, one(last.0, last.1, 1, None, axis(Binding::Grid(0), 1), body))
}
