//! The schedule of a kernel on an NVIDIA GPU: grid, blocks, warps and lanes.
//!
//! - Elementwise: the merged loop is cut into pieces of a block, whose threads take neighbouring elements.
//! - Rows: a row is one step of the grid; the lanes of a warp (of a long row, the threads of a block) walk along it, and a row
//!   tile lies in their registers, since every pass gives an element to the same lane.
//! - Contractions: panels are blocks, their tile is shared by the block, and the contraction is staged in chunks.
//! - A load that runs across memory where the store runs along it (a transpose) goes through a square of shared memory.

use crate::merge_loops::merge_loops;
use crate::renumber::renumber;
use crate::schedule::split_root;
use crate::tiling::{Stage, cut, innermost, strided_loads, through_tiles};
use lazuli_ir::VarId;
use lazuli_ir::kernel::{Axis, Binding, Block, Extent, Kernel, Loop, Scope, Stmt, StmtKind, ValueId};
use lazuli_ir::kernel_walk::{for_each_statement, holds_dot};

/// Elements of a merged elementwise loop that a block takes: 256 threads with a vector of 4 each.
const BLOCK_ELEMENTS: u64 = 1024;
/// Rows longer than this are walked by a block instead of a warp.
const WARP_ROW: u64 = 1024;
/// The side of the square through which a transpose goes.
const SQUARE: u64 = 32;
/// Elements of a contraction staged at a time.
const DOT_CHUNK: u64 = 32;

/// Schedules a kernel for an NVIDIA GPU.
pub fn schedule_gpu(kernel: &mut Kernel) {
    merge_loops(kernel);
    split_root(kernel);
    let mut body = std::mem::take(&mut kernel.body);
    if holds_dot(&body) {
        bind_contraction(kernel, &mut body, 0);
    } else if let [root] = body.as_mut_slice() {
        match innermost(root) {
            None => bind_rows(kernel, root, 0),
            Some(nest) if nest.len() >= 2 && !strided_loads(kernel, root, &nest).is_empty() => {
                let loads = strided_loads(kernel, root, &nest);
                body = through_squares(kernel, body, &nest, &loads);
            }
            Some(nest) => {
                bind_outer(root, nest.len(), 0);
                body = cut_innermost(kernel, body);
            }
        }
    }
    kernel.body = body;
    renumber(kernel);
}

fn bind_contraction(kernel: &mut Kernel, block: &mut Block, depth: u8) {
    let mut out = Block::new();
    for mut s in std::mem::take(block) {
        let mut after = None;
        match &mut s.kind {
            StmtKind::Loop(l) if holds_dot(&l.body) => {
                l.axis.binding = if depth < 3 { Binding::Grid(depth) } else { Binding::Serial };
                bind_contraction(kernel, &mut l.body, depth + 1);
            }
            StmtKind::Loop(l) => bind_epilogue(l, Binding::Warp),
            StmtKind::Tile(t) => kernel.tiles[t.index()].scope = Scope::Block,
            StmtKind::Dot(d) => {
                d.chunk = DOT_CHUNK;
                after = Some(StmtKind::Barrier.into());
            }
            _ => {}
        }
        out.push(s);
        out.extend(after);
    }
    *block = out;
}

/// Whether iterations of a loop must run one after the other: they may store to one place, which does not move with its variable
/// (the updates of a scatter, a result so far).
fn is_ordered(l: &Loop) -> bool {
    let mut ordered = false;
    for_each_statement(&l.body, &mut |kind| {
        if let StmtKind::Store { index, .. } = kind {
            ordered |= !index.iter().any(|x| x.mentions(l.var));
        }
    });
    ordered
}

fn bind_epilogue(l: &mut Loop, binding: Binding) {
    if !is_ordered(l) {
        l.axis.binding = binding;
    }
    for s in &mut l.body {
        if let StmtKind::Loop(inner) = &mut s.kind {
            bind_epilogue(inner, Binding::Lane);
        }
    }
}

/// Gives rows to the grid, and what walks along a row to lanes.
fn bind_rows(kernel: &mut Kernel, s: &mut Stmt, depth: u8) {
    match &mut s.kind {
        StmtKind::Loop(l) => {
            l.axis.binding = if depth < 3 { Binding::Grid(depth) } else { Binding::Serial };
            if let [inner @ Stmt { kind: StmtKind::Loop(_), .. }] = l.body.as_mut_slice() {
                if innermost(inner).is_none() {
                    bind_rows(kernel, inner, depth + 1);
                } else {
                    bind_row(kernel, &mut l.body);
                }
            } else {
                bind_row(kernel, &mut l.body);
            }
        }
        _ => bind_row(kernel, std::slice::from_mut(s)),
    }
}

fn bind_row(kernel: &mut Kernel, row: &mut [Stmt]) {
    let lanes = |extent: Extent| match extent.known() {
        Some(n) if n <= WARP_ROW => Binding::Lane,
        _ => Binding::Block,
    };
    // A row that is walked in order is walked by one thread, and its tiles are that thread's.
    if row.iter().any(|s| matches!(&s.kind, StmtKind::Loop(l) if is_ordered(l))) {
        return;
    }
    for s in row {
        match &mut s.kind {
            StmtKind::Loop(l) => l.axis.binding = lanes(l.extent),
            StmtKind::Reduce(r) => {
                if let Some((_, extent)) = r.vars.last() {
                    r.axis.binding = lanes(*extent);
                }
            }
            StmtKind::Tile(t) => kernel.tiles[t.index()].scope = Scope::Register,
            _ => {}
        }
    }
}

/// Gives all but the innermost of `count` loops to the grid.
fn bind_outer(s: &mut Stmt, count: usize, depth: u8) {
    if count <= 1 {
        return;
    }
    if let StmtKind::Loop(l) = &mut s.kind {
        l.axis.binding = if depth < 2 { Binding::Grid(depth + 1) } else { Binding::Serial };
        if let Some(inner) = l.body.first_mut() {
            bind_outer(inner, count - 1, depth + 1);
        }
    }
}

/// Cuts the innermost loop of a perfect nest into blocks.
fn cut_innermost(kernel: &mut Kernel, mut nest: Block) -> Block {
    for s in &mut nest {
        let StmtKind::Loop(l) = &mut s.kind else { continue };
        let body = std::mem::take(&mut l.body);
        if let Some(Stmt { kind: StmtKind::Loop(_), .. }) = body.first() {
            l.body = cut_innermost(kernel, body);
        } else {
            let piece = (l.var, l.extent, BLOCK_ELEMENTS, Binding::Grid(0), Binding::Block);
            return cut(kernel, &[piece], body, 4);
        }
    }
    nest
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
