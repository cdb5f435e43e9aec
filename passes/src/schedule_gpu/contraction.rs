//! Contractions: panels are blocks, whose threads share the tile; what else stands in a panel runs along the tile's rows.

use super::is_ordered;
use lazuli_ir::kernel::{Binding, Block, Kernel, Loop, Scope, Stmt, StmtKind};
use lazuli_ir::kernel_walk::holds_dot;

/// Elements of a contraction staged at a time.
const CHUNK: u64 = 32;

/// Binds the loops around and behind contractions.
pub(super) fn bind(kernel: &mut Kernel, mut body: Block) -> Block {
    panel(kernel, &mut body, 0);
    body
}

fn panel(kernel: &mut Kernel, block: &mut Block, depth: u8) {
    let root = block.len() == 1;
    let mut out = Block::new();
    for mut s in std::mem::take(block) {
        let mut after = None;
        match &mut s.kind {
            StmtKind::Loop(l) if holds_dot(&l.body) => {
                let grid = root && depth < u8::MAX;
                l.axis.binding = if grid { Binding::Grid(depth.min(2)) } else { Binding::Serial };
                panel(kernel, &mut l.body, if grid { depth + 1 } else { u8::MAX });
            }
            StmtKind::Loop(l) => epilogue(l),
            StmtKind::Tile(t) => kernel.tiles[t.index()].scope = Scope::Block,
            StmtKind::Dot(d) => {
                d.chunk = CHUNK;
                after = Some(StmtKind::Barrier.into());
            }
            _ => {}
        }
        out.push(s);
        out.extend(after);
    }
    *block = out;
}

/// Rows of the tile are those of warps, columns those of lanes; what is one loop is that of all threads.
fn epilogue(l: &mut Loop) {
    if is_ordered(l) {
        l.body.iter_mut().for_each(inside);
        return;
    }
    let columns = l.body.iter().any(|s| matches!(&s.kind, StmtKind::Loop(inner) if !is_ordered(inner)));
    l.axis.binding = if columns { Binding::Warp } else { Binding::Block };
    for s in &mut l.body {
        if let StmtKind::Loop(inner) = &mut s.kind
            && columns
            && !is_ordered(inner)
        {
            inner.axis.binding = Binding::Lane;
        }
    }
}

fn inside(s: &mut Stmt) {
    if let StmtKind::Loop(l) = &mut s.kind {
        epilogue(l);
    }
}
