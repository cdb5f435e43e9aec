//! The schedule of a kernel on an NVIDIA GPU: grid, blocks, warps and lanes.
//!
//! - Elementwise (`elementwise`): one loop over all elements, cut into blocks, whose threads take neighbouring elements, as vectors
//!   where those lie so. What is read across memory (a transpose) goes through a square of shared memory.
//! - Rows (`rows`): a short row is a warp's, a longer one a block's, which walk along it; a row tile lies in their registers,
//!   since every pass gives an element to the same thread. Rows that are columns of memory, rows that are walked in order by more than an
//!   accumulation, and the shortest ones are a thread's: neighbouring threads then read neighbouring elements.
//! - A reduction at the root: blocks take chunks, and what they find is combined by the last one (`chunks`). Few long columns,
//!   normalisations among them, are shared by the warps of a block (`columns`).
//! - Accumulations along rows (`scans`): a row is a block's, whose threads each walk a part.
//! - Contractions (`contraction`): panels are blocks, their tile is shared by the block, and the contraction is staged in chunks.
//! - What is several loops in sequence runs in one block, which meets between them.
//!
//! - Kernels of single primitives (`primitive`) have run-time extents.
//!
//! A nest that threads share is one loop first (`flatten`): its variables are quotients and remainders of one number.

mod chunks;
mod columns;
mod contraction;
mod elementwise;
mod flatten;
mod primitive;
mod rows;
mod scans;

pub(crate) use primitive::schedule_gpu_primitive;
pub(crate) use rows::{SHORT, WARP_ROW};

use crate::merge_loops::merge_loops;
use crate::renumber::renumber;
use crate::schedule::split_root;
use crate::tiling::innermost;
use lazuli_ir::kernel::{Access, Binding, Block, Kernel, Loop, Memory, Reduce, Scope, Stmt, StmtKind, TileId};
use lazuli_ir::kernel_walk::{for_each_statement, holds_dot};
use lazuli_ir::{Target, VarId};

/// Schedules a kernel for an NVIDIA GPU.
pub fn schedule_gpu(kernel: &mut Kernel, target: &Target) {
    merge_loops(kernel);
    split_root(kernel);
    let mut body = std::mem::take(&mut kernel.body);
    elementwise::make_perfect(&mut body);
    let nest = match body.as_slice() {
        [root] => innermost(root),
        _ => None,
    };
    kernel.body = match nest {
        _ if holds_dot(&body) => contraction::bind(kernel, body),
        Some(nest) => elementwise::bind(kernel, body, &nest, target),
        None => rows::bind(kernel, body, target),
    };
    let several_blocks = match kernel.body.as_slice() {
        [Stmt { kind: StmtKind::Reduce(r), .. }] => matches!(r.axis.binding, Binding::Grid(_)),
        [Stmt { kind: StmtKind::Loop(_), .. }] => true,
        _ => false,
    };
    if !several_blocks {
        kernel.body.append(&mut kernel.finish);
    }
    renumber(kernel);
}

/// What a kernel needs on a GPU where it is not scheduled: it is one block, whose threads do everything alike, and one of them stores it; so
/// they wait for each other where one reads what another wrote, and share the results of contractions.
pub fn place_gpu(kernel: &mut Kernel) {
    if holds_dot(&kernel.body) {
        let mut body = std::mem::take(&mut kernel.body);
        contraction::share_results(kernel, &mut body);
        wait(kernel, &mut body);
        kernel.body = body;
    }
}

/// Puts barriers into a block and all those inside of it, also before the next iteration of a loop.
fn wait(kernel: &Kernel, block: &mut Block) {
    for s in block.iter_mut() {
        // No barrier stands under a guard.
        let (StmtKind::Loop(Loop { body, .. }) | StmtKind::Reduce(Reduce { body, .. })) = &mut s.kind else { continue };
        wait(kernel, body);
        if body.iter().any(|s| body.iter().any(|t| conflict(kernel, s, t))) {
            body.push(StmtKind::Barrier.into());
        }
    }
    *block = meet(kernel, std::mem::take(block));
}

/// Whether iterations of a loop must run one after the other: they may store to one place, which does not move with its variable
/// (the updates of a scatter, a result so far).
fn is_ordered(l: &Loop) -> bool {
    stores_in_order(&l.body, l.var)
}

/// Whether elements of a reduction must come one after the other.
fn reduces_in_order(r: &Reduce) -> bool {
    r.vars.iter().any(|(v, _)| stores_in_order(&r.body, *v))
}

fn stores_in_order(body: &Block, var: VarId) -> bool {
    let mut own: Vec<TileId> = Vec::new();
    let mut ordered = false;
    for_each_statement(body, &mut |kind| match kind {
        StmtKind::Tile(t) => own.push(*t),
        StmtKind::Store { to, index, .. } => {
            let private = matches!(to, Memory::Tile(t) if own.contains(t));
            ordered |= !private && !index.iter().any(|x| x.mentions(var));
        }
        StmtKind::Fill(t, _) => ordered |= !own.contains(t),
        _ => {}
    });
    ordered
}

/// Whether one of two statements writes what the other touches, in memory that several threads see.
fn conflict(kernel: &Kernel, a: &Stmt, b: &Stmt) -> bool {
    let touched = |s: &Stmt| {
        let mut out: Vec<(Memory, bool)> = Vec::new();
        for_each_statement(std::slice::from_ref(s), &mut |kind| {
            out.extend(kind.touches().iter().map(|t| (t.memory, t.access != Access::Read)));
        });
        out.retain(|(m, _)| match m {
            Memory::Param(_) => true,
            Memory::Tile(t) => kernel.tiles[t.index()].scope == Scope::Block,
        });
        out
    };
    let (a, b) = (touched(a), touched(b));
    a.iter().any(|(m, writes)| b.iter().any(|(n, also)| m == n && (*writes || *also)))
}

/// Puts barriers between statements of a block of which one writes what the other touches.
fn meet(kernel: &Kernel, block: Block) -> Block {
    let mut out = Block::new();
    // Where the last barrier stands.
    let mut since = 0;
    for s in block {
        if out[since..].iter().any(|before| conflict(kernel, before, &s)) {
            out.push(StmtKind::Barrier.into());
            since = out.len();
        }
        out.push(s);
    }
    out
}
