//! Contractions take transposed operands as they are: a `permute` of an operand becomes another order of dims.

use crate::simplify::{Candidate, Outer, Step};
use lazuli_ir::{DimVec, DotDims, Op, SliceDim};

/// A rule of this file that fits.
pub(crate) fn rule(c: &Candidate<'_>) -> Option<Step> {
    match c.op {
        Op::Dot { .. } => absorb(c, false).or_else(|| absorb(c, true)),
        Op::Permute(perm) => swap(c, perm),
        Op::Slice(kept) => part(c, kept).or_else(|| part_behind_permute(c, kept)),
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
        Op::Alias
        | Op::Detach
        | Op::ToDevice { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast(_) => None,
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } => None,
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } => None,
        Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => None,
        Op::Reshape(_) | Op::Broadcast { .. } | Op::Pad(_) | Op::Reduce { .. } => None,
    }
}

/// `dot` of a permuted operand is `dot` of that operand with its dims renamed; where its free dims change order, so do those
/// of the result, and a `permute` restores it.
fn absorb(c: &Candidate<'_>, right: bool) -> Option<Step> {
    let Op::Dot { dims, acc } = c.op else { return None };
    let Op::Permute(perm) = c.operand_op(usize::from(right)) else { return None };
    let x = c.inner(usize::from(right))[0];
    let rename = |&(l, r): &(usize, usize)| if right { (l, perm[r]) } else { (perm[l], r) };
    let renamed = DotDims {
        batch: dims.batch.iter().map(rename).collect(),
        contract: dims.contract.iter().map(rename).collect(),
    };
    let (old, new) = (dims.free(right, perm.len()), renamed.free(right, perm.len()));
    // Where each free dim stands among the new result's.
    let mut order: DimVec<usize> = DimVec::new();
    for d in &old {
        order.push(new.iter().position(|n| *n == perm[*d])?);
    }
    let operands = if right { [c.operands[0], x] } else { [x, c.operands[1]] };
    let dot = Op::Dot { dims: renamed, acc: *acc };
    if order.is_sorted() {
        return Step::node(dot, operands);
    }
    let before = dims.batch.len()
        + if right { c.operand_ty(0).shape.rank() - dims.batch.len() - dims.contract.len() } else { 0 };
    let moved = before..before + order.len();
    let restore = (0..c.ty.shape.rank()).map(|d| if moved.contains(&d) { before + order[d - before] } else { d });
    Step::chain(dot, operands, Op::Permute(restore.collect()))
}

/// Some rows (or columns) of a product are the product of some rows. Only where nothing else reads it.
fn part(c: &Candidate<'_>, kept: &[SliceDim]) -> Option<Step> {
    let Op::Dot { dims, acc } = c.operand_op(0) else { return None };
    let operands = c.inner(0);
    let extents = c.operand_ty(0).shape.extents();
    let is_cut = |d: &usize| kept[*d].start != 0 || kept[*d].extent() != extents[*d];
    let shapes = [0, 1].map(|s: usize| c.graph.ty(operands[s]).shape.extents());
    let (batch, left) = (dims.batch.len(), dims.free(false, shapes[0].len()));
    let cut: DimVec<usize> = (0..kept.len()).filter(is_cut).collect();
    let side = usize::from(*cut.first()? >= batch + left.len());
    let first = if side == 0 { batch } else { batch + left.len() };
    let free = dims.free(side == 1, shapes[side].len());
    if !c.sole_use || !cut.iter().all(|d| (first..first + free.len()).contains(d)) {
        return None;
    }
    let mut ranges: DimVec<SliceDim> = shapes[side].iter().map(|&n| SliceDim { start: 0, stop: n, step: 1 }).collect();
    for (place, &d) in free.iter().enumerate() {
        ranges[d] = kept[first + place];
    }
    let others = [operands[1 - side]].into_iter().collect();
    let dot = Outer { op: Op::Dot { dims: dims.clone(), acc: *acc }, others, at: side };
    Some(Step::Chain((Op::Slice(ranges), [operands[side]].into_iter().collect()), Box::new(dot)))
}

/// The same of a product that was permuted.
fn part_behind_permute(c: &Candidate<'_>, kept: &[SliceDim]) -> Option<Step> {
    let Op::Permute(perm) = c.operand_op(0) else { return None };
    let x = c.inner(0)[0];
    if !c.sole_use || !matches!(c.graph.op(x.node), Op::Dot { .. }) {
        return None;
    }
    let mut ranges: DimVec<SliceDim> = kept.into();
    for (&from, s) in perm.iter().zip(kept) {
        ranges[from] = *s;
    }
    Step::chain(Op::Slice(ranges), [x], Op::Permute(perm.clone()))
}

/// The transpose of a product is the product of the operands in the other order: products of elements commute, and are summed
/// in the same order. Only where nothing else reads the product: it would be computed twice.
fn swap(c: &Candidate<'_>, perm: &[usize]) -> Option<Step> {
    let Op::Dot { dims, acc } = c.operand_op(0) else { return None };
    if !c.sole_use {
        return None;
    }
    let operands = c.inner(0);
    let batch = dims.batch.len();
    let left = c.graph.ty(operands[0]).shape.rank() - batch - dims.contract.len();
    let swapped = (0..batch).chain(batch + left..perm.len()).chain(batch..batch + left);
    if !perm.iter().copied().eq(swapped) {
        return None;
    }
    let flip = |&(l, r): &(usize, usize)| (r, l);
    let dims =
        DotDims { batch: dims.batch.iter().map(flip).collect(), contract: dims.contract.iter().map(flip).collect() };
    Step::node(Op::Dot { dims, acc: *acc }, [operands[1], operands[0]])
}
