//! Walking the statements of a kernel.

use lazuli_ir::Index;
use lazuli_ir::kernel::{Block, Expr, StmtKind};

/// Calls `f` with every index of a block, loops inside included.
pub fn for_each_index(block: &mut Block, f: &mut dyn FnMut(&mut Index)) {
    for s in block {
        match &mut s.kind {
            StmtKind::Let(_, Expr::Load { index, .. }) | StmtKind::Store { index, .. } => {
                index.iter_mut().for_each(&mut *f)
            }
            StmtKind::Let(_, Expr::Index(x)) => f(x),
            StmtKind::Loop(l) => {
                l.limit.iter_mut().for_each(&mut *f);
                for_each_index(&mut l.body, f);
            }
            StmtKind::Reduce(r) => for_each_index(&mut r.body, f),
            StmtKind::Guard(_, body) => for_each_index(body, f),
            StmtKind::Dot(d) => d.a.index.iter_mut().chain(&mut d.b.index).for_each(&mut *f),
            StmtKind::Check { at, .. } => f(at),
            StmtKind::Let(..) | StmtKind::Tile(_) | StmtKind::Fill(..) | StmtKind::Bind { .. } | StmtKind::Barrier => {}
        }
    }
}
