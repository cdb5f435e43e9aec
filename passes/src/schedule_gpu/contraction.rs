//! Contractions: panels are blocks, whose threads share the tile; what else stands in a panel runs along the tile's rows.

use super::flatten::flatten;
use super::rows::registers;
use super::{is_ordered, meet, reduces_in_order};
use lazuli_ir::kernel::{Binding, Block, Kernel, Loop, Scope, Stmt, StmtKind};
use lazuli_ir::kernel_walk::{for_each_statement, holds_dot};

/// Elements of a contraction staged at a time.
const CHUNK: u64 = 32;

/// Binds the loops around and behind contractions.
pub(super) fn bind(kernel: &mut Kernel, mut body: Block) -> Block {
    perfect(&mut body);
    panel(kernel, &mut body, Some(0));
    body
}

/// Lets the block share the tiles around contractions.
pub(super) fn share_results(kernel: &mut Kernel, block: &mut Block) {
    for s in block {
        match &mut s.kind {
            StmtKind::Tile(t) => kernel.tiles[t.index()].scope = Scope::Block,
            kind => {
                if let Some(body) = kind.body_mut().filter(|body| holds_dot(body)) {
                    share_results(kernel, body);
                }
            }
        }
    }
}

/// Moves what stands before the one loop with contractions into it, and so on inside.
fn perfect(block: &mut Block) {
    let Some((last, before)) = block.split_last() else { return };
    let moves = |s: &Stmt| matches!(s.kind, StmtKind::Let(..) | StmtKind::Bind { .. } | StmtKind::Check { .. });
    if !holds_dot(std::slice::from_ref(last)) || !before.iter().all(moves) {
        return;
    }
    let Some(mut root) = block.pop() else { return };
    if let StmtKind::Loop(l) = &mut root.kind {
        let mut inner = std::mem::take(block);
        inner.append(&mut l.body);
        l.body = inner;
        perfect(&mut l.body);
    }
    block.push(root);
}

/// Binds what stands in a block; `depth` counts loops of the perfect nest at the root.
fn panel(kernel: &mut Kernel, block: &mut Block, depth: Option<u8>) {
    let depth = depth.filter(|_| block.len() == 1);
    for s in block.iter_mut() {
        match &mut s.kind {
            StmtKind::Loop(l) if holds_dot(&l.body) => {
                l.axis.binding = depth.map_or(Binding::Serial, |d| Binding::Grid(d.min(2)));
                panel(kernel, &mut l.body, depth.map(|d| d + 1));
                if depth.is_none() {
                    // The next iteration writes the tiles that this one reads.
                    l.body.push(StmtKind::Barrier.into());
                }
            }
            StmtKind::Loop(l) => along_rows(kernel, l),
            StmtKind::Reduce(r) if !reduces_in_order(r) => r.axis.binding = Binding::Block,
            StmtKind::Tile(t) => kernel.tiles[t.index()].scope = Scope::Block,
            StmtKind::Dot(d) => d.chunk = CHUNK,
            _ => {}
        }
    }
    *block = meet(kernel, std::mem::take(block));
}

/// Rows of the tile are those of warps, and what runs along them those of lanes; what is one loop is that of all threads, and so is
/// one whose iterations keep what lanes could not have in registers.
fn along_rows(kernel: &mut Kernel, l: &mut Loop) {
    if is_ordered(l) {
        for s in &mut l.body {
            if let StmtKind::Loop(inner) = &mut s.kind {
                along_rows(kernel, inner);
            }
        }
        return;
    }
    let shared = |s: &Stmt| match &s.kind {
        StmtKind::Loop(inner) => !is_ordered(inner),
        StmtKind::Reduce(r) => !reduces_in_order(r),
        _ => false,
    };
    if !l.body.iter().any(shared) || !lanes_keep(kernel, &mut l.body) {
        l.axis.binding = Binding::Block;
        return;
    }
    l.axis.binding = Binding::Warp;
    for s in l.body.iter_mut().filter(|s| shared(s)) {
        match &mut s.kind {
            StmtKind::Loop(inner) => inner.axis.binding = Binding::Lane,
            StmtKind::Reduce(r) => r.axis.binding = Binding::Lane,
            _ => {}
        }
    }
}

/// Puts the tiles of a row into the registers of lanes; where some do not fit there, all stay those of one thread.
fn lanes_keep(kernel: &mut Kernel, row: &mut Block) -> bool {
    flatten(kernel, row);
    let keep = registers(kernel, row, Binding::Lane);
    if !keep {
        for_each_statement(row, &mut |s| {
            if let StmtKind::Tile(t) = s {
                kernel.tiles[t.index()].scope = Scope::Thread;
            }
        });
    }
    keep
}
