//! Cutting loops into pieces, so that what neighbouring iterations share stays close: blocks of a GPU, squares of a cache.

use crate::schedule::stride;
use lazuli_ir::kernel::{
    Axis, Binding, Block, Expr, Extent, Kernel, Loop, Memory, ScalarType, Scope, Stmt, StmtKind, Tile, TileId, ValueId,
};
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

/// A loop to cut: variable, extent, size of a piece, who runs the pieces, who runs inside one.
pub(crate) type Cut = (VarId, Extent, u64, Binding, Binding);

/// One loop cut in two.
struct Piece {
    var: VarId,
    /// Counts pieces, in steps of their size.
    start: VarId,
    /// Counts inside a piece.
    inside: VarId,
    /// What is left of the loop, where pieces do not divide it.
    limit: Option<Index>,
}

fn open_pieces(kernel: &mut Kernel, loops: &[Cut]) -> Vec<Piece> {
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

fn substitute(body: &mut Block, pieces: &[Piece]) {
    let with: FxHashMap<VarId, Index> =
        pieces.iter().map(|p| (p.var, Index::var(p.start).add(&p.inside.into()))).collect();
    // The sum of both has the range of the variable it stands for, so no simplification is lost by an unbounded range.
    let unbounded = |_: VarId| (i64::MIN / 4, i64::MAX / 4);
    for_each_index(body, &mut |x| *x = x.substitute(&|v| with.get(&v).cloned(), &unbounded));
}

fn wrap_inside(pieces: &[Piece], loops: &[Cut], mut body: Block, vector: u32) -> Block {
    for (i, (p, &(_, _, size, _, binding))) in pieces.iter().zip(loops).enumerate().rev() {
        let vector = if i + 1 == pieces.len() { vector } else { 1 };
        let axis = Axis { binding, vector, unroll: 1 };
        let l = Loop { var: p.inside, extent: Extent::Const(size), step: 1, limit: p.limit.clone(), axis, body };
        body = vec![StmtKind::Loop(l).into()];
    }
    body
}

fn wrap_pieces(pieces: &[Piece], loops: &[Cut], mut body: Block) -> Block {
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

/// How what is read across memory comes in through local memory.
pub(crate) struct Stage {
    /// The second innermost loop: the side of a piece, who runs the pieces, who runs inside one.
    pub(crate) row: (u64, Binding, Binding),
    /// The innermost loop.
    pub(crate) column: (u64, Binding, Binding),
    /// Who runs the loops around both.
    pub(crate) outer: Binding,
    /// Elements between the rows of local memory that nothing uses.
    pub(crate) pad: u64,
    /// Who shares local memory.
    pub(crate) scope: Scope,
    /// The loops that bring a piece in: along memory, and across.
    pub(crate) copy: (Axis, Axis),
    /// Where a copy as it lies comes before the one that turns it: how that runs along memory. It asks for many cache lines
    /// at once, and the turn then finds them near.
    pub(crate) near: Option<Axis>,
    /// Lanes of the innermost loop.
    pub(crate) vector: u32,
}

/// Cuts the two innermost loops of a nest into pieces, and brings the loads that run across memory in along it.
pub(crate) fn through_tiles(
    kernel: &mut Kernel,
    mut block: Block,
    nest: &[(VarId, u64)],
    loads: &[ValueId],
    stage: &Stage,
) -> Block {
    let [outer @ .., (row, rows), (column, columns)] = nest else { return block };
    let mut body = std::mem::take(&mut block);
    for _ in nest {
        if let Some(Stmt { kind: StmtKind::Loop(l), .. }) = body.pop() {
            body = l.body;
        }
    }
    let loops = [
        (*row, Extent::Const(*rows), stage.row.0, stage.row.1, stage.row.2),
        (*column, Extent::Const(*columns), stage.column.0, stage.column.1, stage.column.2),
    ];
    let pieces = open_pieces(kernel, &loops);
    substitute(&mut body, &pieces);
    let mut staged = Block::new();
    for s in &mut body {
        if let StmtKind::Let(v, Expr::Load { from, index, .. }) = &mut s.kind
            && loads.contains(v)
        {
            bring_in(kernel, &pieces, stage, *v, from, index, &mut staged);
        }
    }
    if stage.scope == Scope::Block {
        staged.push(StmtKind::Barrier.into());
    }
    staged.append(&mut wrap_inside(&pieces, &loops, body, stage.vector));
    let mut block = wrap_pieces(&pieces, &loops, staged);
    for &(var, extent) in outer.iter().rev() {
        let axis = Axis { binding: stage.outer, ..Axis::default() };
        let l = Loop { var, extent: Extent::Const(extent), step: 1, limit: None, axis, body: block };
        block = vec![StmtKind::Loop(l).into()];
    }
    block
}

/// Writes the loops that bring one load's piece into local memory, along memory, and makes the load read it there.
fn bring_in(
    kernel: &mut Kernel,
    pieces: &[Piece],
    stage: &Stage,
    v: ValueId,
    from: &mut Memory,
    index: &mut Vec<Index>,
    staged: &mut Block,
) {
    let [r, c] = pieces else { return };
    let (rows, columns, ty) = (stage.row.0, stage.column.0, kernel.values[v.index()]);
    let mut local = |name: &str, dims: [u64; 2]| {
        kernel.tiles.push(Tile {
            name: format!("{name}{}", kernel.tiles.len()),
            dtype: ty.dtype(),
            dims: dims.into_iter().collect(),
            valid: [None, None].into_iter().collect(),
            scope: stage.scope,
        });
        let tile = TileId(kernel.tiles.len() as u32 - 1);
        staged.push(StmtKind::Tile(tile).into());
        Memory::Tile(tile)
    };
    let square = local("square", [rows, columns + stage.pad]);
    let near = stage.near.map(|axis| (local("near", [columns, rows]), axis));
    let mut source = (*from, index.clone());
    if let Some((near, axis)) = near {
        let copy = Copy { rows: r, columns: c, stage, axes: (axis, stage.copy.1), ty };
        source = copy.write(kernel, source, near, true, staged);
    }
    let copy = Copy { rows: r, columns: c, stage, axes: stage.copy, ty };
    (*from, *index) = copy.write(kernel, source, square, false, staged);
}

/// Loops that copy a piece, along memory within.
struct Copy<'a> {
    rows: &'a Piece,
    columns: &'a Piece,
    stage: &'a Stage,
    axes: (Axis, Axis),
    ty: ScalarType,
}

impl Copy<'_> {
    /// Writes them, and gives where an element of the piece lies from then on.
    fn write(
        &self,
        kernel: &mut Kernel,
        (from, index): (Memory, Vec<Index>),
        to: Memory,
        along_first: bool,
        out: &mut Block,
    ) -> (Memory, Vec<Index>) {
        let (along, across) = (kernel.new_var("along"), kernel.new_var("across"));
        let own = [(self.rows.inside, along), (self.columns.inside, across)];
        let with = |w: VarId| own.iter().find(|(inside, _)| *inside == w).map(|(_, own)| Index::var(*own));
        let place = |x: &Index| x.substitute(&with, &|_| (i64::MIN / 4, i64::MAX / 4));
        let order = |mut pair: [VarId; 2]| {
            pair.rotate_left(usize::from(along_first));
            pair.map(Index::var).to_vec()
        };
        let value = kernel.new_value(self.ty);
        let load = Expr::Load { from, index: index.iter().map(place).collect(), mask: None };
        let store = StmtKind::Store { to, index: order([along, across]), value, mask: None };
        let mut body: Block = vec![StmtKind::Let(value, load).into(), store.into()];
        let loops = [
            (along, self.stage.row.0, self.axes.0, &self.rows.limit),
            (across, self.stage.column.0, self.axes.1, &self.columns.limit),
        ];
        for (var, extent, axis, limit) in loops {
            let l = Loop { var, extent: Extent::Const(extent), step: 1, limit: limit.clone(), axis, body };
            body = vec![StmtKind::Loop(l).into()];
        }
        out.append(&mut body);
        (to, order([self.rows.inside, self.columns.inside]))
    }
}
