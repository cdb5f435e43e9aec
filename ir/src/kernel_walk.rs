//! Walking the statements of a kernel: what each one holds, reads and touches is said here, once.

use crate::index::Index;
use crate::kernel::{Access, Block, Expr, Memory, Stmt, StmtKind, ValueId};
use smallvec::SmallVec;

/// Memory that a statement touches.
#[derive(Clone, Copy, Debug)]
pub struct Touch<'k> {
    /// The memory.
    pub memory: Memory,
    /// The logical index of the element; empty where it is the whole of a tile.
    pub index: &'k [Index],
    /// Whether it touches nothing where a mask is false.
    pub masked: bool,
    /// Whether it is read or written.
    pub access: Access,
}

impl StmtKind {
    /// The statements inside: those of a loop, a reduction or a guard.
    pub fn body(&self) -> Option<&Block> {
        match self {
            StmtKind::Loop(l) => Some(&l.body),
            StmtKind::Reduce(r) => Some(&r.body),
            StmtKind::Guard(_, body) => Some(body),
            StmtKind::Let(..)
            | StmtKind::Store { .. }
            | StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Dot(_)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => None,
        }
    }

    /// The statements inside, to change.
    pub fn body_mut(&mut self) -> Option<&mut Block> {
        match self {
            StmtKind::Loop(l) => Some(&mut l.body),
            StmtKind::Reduce(r) => Some(&mut r.body),
            StmtKind::Guard(_, body) => Some(body),
            StmtKind::Let(..)
            | StmtKind::Store { .. }
            | StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Dot(_)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => None,
        }
    }

    /// The values that the statement itself reads, in the order of its text. Those of statements inside, and what a reduction
    /// yields at the end of its body, are not among them.
    pub fn operands(&self) -> SmallVec<[ValueId; 3]> {
        let mut operands = SmallVec::new();
        match self {
            StmtKind::Let(_, expr) => expr.for_each_operand(&mut |v| operands.push(v)),
            StmtKind::Store { value, mask, .. } => {
                operands.push(*value);
                operands.extend(*mask);
            }
            StmtKind::Guard(c, _) => operands.push(*c),
            StmtKind::Check { ok, value, .. } => operands.extend([*ok, *value]),
            StmtKind::Bind { value, .. } => operands.push(*value),
            StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Loop(_)
            | StmtKind::Reduce(_)
            | StmtKind::Dot(_)
            | StmtKind::Barrier => {}
        }
        operands
    }

    /// The values that the statement itself defines for those after it.
    pub fn defines(&self) -> SmallVec<[ValueId; 2]> {
        match self {
            StmtKind::Let(v, _) => SmallVec::from_slice(&[*v]),
            StmtKind::Reduce(r) => r.results.clone(),
            StmtKind::Store { .. }
            | StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Loop(_)
            | StmtKind::Dot(_)
            | StmtKind::Guard(..)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => SmallVec::new(),
        }
    }

    /// The memory that the statement itself touches.
    pub fn touches(&self) -> SmallVec<[Touch<'_>; 3]> {
        let whole = |tile, access| Touch { memory: Memory::Tile(tile), index: &[], masked: false, access };
        let mut touches = SmallVec::new();
        match self {
            StmtKind::Let(_, Expr::Load { from, index, mask }) => {
                touches.push(Touch { memory: *from, index, masked: mask.is_some(), access: Access::Read });
            }
            StmtKind::Store { to, index, mask, .. } => {
                touches.push(Touch { memory: *to, index, masked: mask.is_some(), access: Access::Write });
            }
            StmtKind::Fill(tile, _) => touches.push(whole(*tile, Access::Write)),
            StmtKind::Dot(d) => {
                for o in [&d.a, &d.b] {
                    touches.push(Touch { memory: o.memory, index: &o.index, masked: false, access: Access::Read });
                }
                touches.push(whole(d.acc, Access::ReadWrite));
            }
            StmtKind::Let(..)
            | StmtKind::Tile(_)
            | StmtKind::Loop(_)
            | StmtKind::Reduce(_)
            | StmtKind::Guard(..)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => {}
        }
        touches
    }
}

/// Calls `f` with every statement of a block, outer ones before those inside them.
pub fn for_each_statement<'k>(block: &'k [Stmt], f: &mut dyn FnMut(&'k StmtKind)) {
    for s in block {
        f(&s.kind);
        if let Some(body) = s.kind.body() {
            for_each_statement(body, f);
        }
    }
}

/// Whether a block holds a contraction, at any depth.
pub fn holds_dot(block: &[Stmt]) -> bool {
    block.iter().any(|s| matches!(s.kind, StmtKind::Dot(_)) || s.kind.body().is_some_and(|b| holds_dot(b)))
}

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
            StmtKind::Dot(d) => d.a.index.iter_mut().chain(&mut d.b.index).chain(&mut d.limit).for_each(&mut *f),
            StmtKind::Check { at, .. } => f(at),
            StmtKind::Let(..) | StmtKind::Tile(_) | StmtKind::Fill(..) | StmtKind::Bind { .. } | StmtKind::Barrier => {}
        }
    }
}
