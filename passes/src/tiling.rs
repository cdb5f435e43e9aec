//! Cutting loops into pieces, so that what neighbouring iterations share stays close: blocks of a GPU, squares of a cache.

use crate::schedule::stride;
use lazuli_ir::kernel::{Axis, Binding, Block, Expr, Extent, Kernel, Loop, Stmt, StmtKind, ValueId};
use lazuli_ir::kernel_walk::for_each_index;
use lazuli_ir::{Index, VarId};
use rustc_hash::FxHashMap;

/// The variables and extents of a perfect nest of plain loops around straight-line code; `None` where there is more.
pub(crate) fn innermost(root: &Stmt) -> Option<Vec<(VarId, u64)>> {
    let mut nest = Vec::new();
    let mut s = root;
    loop {
        let StmtKind::Loop(l) = &s.kind else { return None };
        nest.push((l.var, l.extent.known()?));
        match l.body.as_slice() {
            [inner @ Stmt { kind: StmtKind::Loop(_), .. }] => s = inner,
            body => {
                let straight = |s: &Stmt| matches!(s.kind, StmtKind::Let(..) | StmtKind::Store { .. });
                return body.iter().all(straight).then_some(nest);
            }
        }
    }
}

/// A perfect nest over `loops`, cut into pieces: all loops over pieces outside, all loops inside pieces within. The innermost
/// loop runs `vector` lanes.
pub(crate) fn cut(kernel: &mut Kernel, loops: &[Cut], mut body: Block, vector: u32) -> Block {
    let pieces = open_pieces(kernel, loops);
    substitute(&mut body, &pieces);
    let inside = wrap_inside(&pieces, loops, body, vector);
    wrap_pieces(&pieces, loops, inside)
}

/// A loop to cut: variable, extent, size of a piece, who runs the pieces, who runs inside one.
pub(crate) type Cut = (VarId, Extent, u64, Binding, Binding);

/// One loop cut in two.
pub(crate) struct Piece {
    pub(crate) var: VarId,
    /// Counts pieces, in steps of their size.
    pub(crate) start: VarId,
    /// Counts inside a piece.
    pub(crate) inside: VarId,
    /// What is left of the loop, where pieces do not divide it.
    pub(crate) limit: Option<Index>,
}

pub(crate) fn open_pieces(kernel: &mut Kernel, loops: &[Cut]) -> Vec<Piece> {
    loops
        .iter()
        .map(|&(var, extent, size, ..)| {
            let name = kernel.vars[var.0 as usize].clone();
            let (start, inside) = (kernel.new_var(format!("{name}0")), kernel.new_var(name));
            let divides = extent.known().is_some_and(|n| n.is_multiple_of(size));
            let limit = (!divides).then(|| extent.index().add_scaled(&start.into(), -1));
            Piece { var, start, inside, limit }
        })
        .collect()
}

pub(crate) fn substitute(body: &mut Block, pieces: &[Piece]) {
    let with: FxHashMap<VarId, Index> =
        pieces.iter().map(|p| (p.var, Index::var(p.start).add(&p.inside.into()))).collect();
    // The sum of both has the range of the variable it stands for, so no simplification is lost by an unbounded range.
    let unbounded = |_: VarId| (i64::MIN / 4, i64::MAX / 4);
    for_each_index(body, &mut |x| *x = x.substitute(&|v| with.get(&v).cloned(), &unbounded));
}

pub(crate) fn wrap_inside(pieces: &[Piece], loops: &[Cut], mut body: Block, vector: u32) -> Block {
    for (i, (p, &(_, _, size, _, binding))) in pieces.iter().zip(loops).enumerate().rev() {
        let vector = if i + 1 == pieces.len() { vector } else { 1 };
        let axis = Axis { binding, vector, unroll: 1 };
        let l = Loop { var: p.inside, extent: Extent::Const(size), step: 1, limit: p.limit.clone(), axis, body };
        body = vec![StmtKind::Loop(l).into()];
    }
    body
}

pub(crate) fn wrap_pieces(pieces: &[Piece], loops: &[Cut], mut body: Block) -> Block {
    for (p, &(_, extent, size, binding, _)) in pieces.iter().zip(loops).rev() {
        let axis = Axis { binding, ..Axis::default() };
        let l = Loop { var: p.start, extent, step: size, limit: None, axis, body };
        body = vec![StmtKind::Loop(l).into()];
    }
    body
}

/// The unmasked loads of straight-line code that run along the second innermost loop and across the innermost.
pub(crate) fn strided_loads(kernel: &Kernel, root: &Stmt, nest: &[(VarId, u64)]) -> Vec<ValueId> {
    let mut s = root;
    while let StmtKind::Loop(l) = &s.kind
        && let [inner @ Stmt { kind: StmtKind::Loop(_), .. }] = l.body.as_slice()
    {
        s = inner;
    }
    let (StmtKind::Loop(l), [.., (row, _), (column, _)]) = (&s.kind, nest) else { return Vec::new() };
    let across = |s: &Stmt| match &s.kind {
        StmtKind::Let(v, Expr::Load { from, index, mask: None }) => {
            let (r, c) = (stride(kernel, *from, index, *row), stride(kernel, *from, index, *column));
            (r == Some(1) && c.is_none_or(|c| c.abs() > 1)).then_some(*v)
        }
        _ => None,
    };
    l.body.iter().filter_map(across).collect()
}
