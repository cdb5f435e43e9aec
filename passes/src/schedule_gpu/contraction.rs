//! Contractions: panels are blocks, whose threads share the tile; what else stands in a panel runs along the tile's rows.

use super::is_ordered;
use lazuli_ir::kernel::{Binding, Block, Kernel, Loop, Scope, Stmt, StmtKind};
use lazuli_ir::kernel_walk::holds_dot;

/// Elements of a contraction staged at a time.
const CHUNK: u64 = 32;

/// Binds the loops around and behind contractions.
pub(super) fn bind(kernel: &mut Kernel, mut body: Block) -> Block {
    perfect(&mut body);
    panel(kernel, &mut body, Some(0));
    body
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
    let mut out = Block::new();
    for mut s in std::mem::take(block) {
        let mut after = None;
        match &mut s.kind {
            StmtKind::Loop(l) if holds_dot(&l.body) => {
                l.axis.binding = depth.map_or(Binding::Serial, |d| Binding::Grid(d.min(2)));
                panel(kernel, &mut l.body, depth.map(|d| d + 1));
                if depth.is_none() {
                    // The next iteration writes the tiles that this one reads.
                    l.body.push(StmtKind::Barrier.into());
                }
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
