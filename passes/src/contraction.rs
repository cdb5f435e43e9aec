//! What becomes of contractions before fusion looks at them, by how their operands lie; of reductions whose operand has few columns because it
//! lies so; and on a GPU of reductions of few long rows.
//!
//! - A product with a vector is no multiplication of matrices: each element is read once, or a few times (a depthwise
//!   convolution), and memory is all it takes. It becomes products and their sum, which run as any reduction does, with
//!   whatever fuses to it.
//! - A contraction of few results over many elements is cut into pieces that threads share, and their results are added.
//! - Divisions of a softmax move to where they are least work ([`softmax`](crate::softmax)).
//! - A reshape that makes one dim of several, to contract over it, is taken apart where these do not lie as one.
//! - A contraction whose operands were widened from `bf16` for it is one of `bf16`, where the target multiplies that: products are
//!   exact in `f32` either way, and what is read, packed or stored before it has half of the bytes.
//! - An operand that a contraction would pack again and again is laid out once, before it. What is no matrix is packed
//!   panel by panel; the smaller operand of a contraction with many panels (the weight of a convolution, whose channels lie
//!   apart) would be packed for each of them. It gets a copy instead, as a `permute` that is a kernel of its own: contraction
//!   first, in the order in which the larger operand lies, then the free dims. No other `permute` stands directly before a
//!   contraction, since simplification takes them in; so that form is the mark, for fusion as well as for the
//!   [layout](crate::layout).

use crate::index_map::{operand_index, reshape_runs};
use crate::layout::{Orders, contraction_order};
use crate::operand::{LONG, is_matrix};
use crate::plan::is_movement;
use crate::softmax::Divisions;
use crate::split::{Cut, row_parts};
use crate::windows::rebuilt;
use lazuli_ir::graph::Node;
use lazuli_ir::{
    BinaryOp, DType, DimVec, DotDims, Graph, Index, Layout, NodeId, Op, ReduceOp, Result, Shape, Sources, Target,
    TargetKind, Value, VarId,
};
use smallvec::SmallVec;

/// Times an operand is packed from which on a copy is worth it.
const OFTEN: usize = 8;
/// Times columns are turned to rows from which on a copy is worth it.
const TURNS: usize = 6;
/// Results up to which a contraction is cut into pieces.
const FEW_RESULTS: usize = 1 << 12;
/// Elements of a piece of the contraction, at least.
const LEAST_PIECE: usize = 1 << 10;
/// Pieces at most.
const MOST_PIECES: usize = 16;
/// Rows or columns of a panel, for the estimate of how often that is.
const PANEL: usize = 128;

/// The graph that fusion starts from; `None` where it is this one.
pub(crate) fn prepare(
    graph: &Graph,
    layouts: &[Layout],
    orders: &Orders,
    target: &Target,
) -> Result<Option<(Graph, Vec<NodeId>)>> {
    let gpu = target.kind != TargetKind::Cpu;
    if !gpu && orders.is_empty() && !graph.nodes().any(|n| matches!(graph.op(n), Op::Dot { .. })) {
        return Ok(None);
    }
    let mut changes = 0;
    let mut reads = vec![0u32; graph.len()];
    let operands = graph.nodes().flat_map(|n| graph.operands(n).to_vec());
    operands.chain(graph.outputs().iter().copied()).for_each(|v| reads[v.node.index()] += 1);
    let mut divisions = Divisions::find(graph);
    let (new, back) = rebuilt(graph, |new, n, node, operands| {
        let (operands, moved) = divisions.operands(graph, new, n, operands)?;
        let operands = operands.as_slice();
        changes += usize::from(moved);
        if let Some(made) = divisions.apply(graph, new, n, operands)? {
            changes += 1;
            return Ok(made);
        }
        let made = match &node.op {
            Op::Reduce { op, dims, acc }
                if gpu && let Some(cut) = row_parts(&new.ty(operands[0]).shape, *op, dims, target) =>
            {
                changes += 1;
                cut.apply(new, operands[0], *op, *acc, &node.sources)?
            }
            Op::Reduce { op, dims, acc } if !gpu && let Some(cut) = Cut::lying(graph, orders, n, *op, dims) => {
                changes += 1;
                cut.apply(new, operands[0], *op, *acc, &node.sources)?
            }
            Op::Dot { dims, acc } if is_with_vector(dims, operands, new) => {
                changes += 1;
                summed(new, node, dims, *acc, operands)?
            }
            Op::Dot { dims, acc } if !gpu && let Some(pieces) = Pieces::of(graph, orders, n, dims) => {
                changes += 1;
                let (operands, _) = narrowed(new, operands, target)?;
                pieces.apply(new, &operands, dims, *acc, &node.sources)?
            }
            // A GPU reads operands where they lie.
            Op::Dot { dims, acc } if !gpu => {
                let mut dims = dims.clone();
                let (mut operands, narrow) = narrowed(new, operands, target)?;
                changes += usize::from(narrow);
                let whole = split(graph, layouts, orders, n, new, &mut dims, &mut operands)?;
                changes += usize::from(!whole);
                for side in [0, 1] {
                    if whole && let Some(perm) = copied(graph, layouts, orders, n, side, narrow)? {
                        dims = renamed(&dims, side == 1, &perm);
                        operands[side] = new.add(Op::Permute(perm), &[operands[side]], node.sources.clone())?;
                        changes += 1;
                    }
                }
                new.add(Op::Dot { dims, acc: *acc }, &operands, node.sources.clone())?
            }
            op => new.add(op.clone(), operands, node.sources.clone())?,
        };
        divisions.keep(n, made);
        Ok(made)
    })?;
    Ok((changes > 0).then_some((new, back)))
}

/// A contraction of few results over many elements, cut into pieces that threads share, whose results are added.
struct Pieces {
    /// The dims that are cut, of the left and the right operand.
    dims: (usize, usize),
    extent: usize,
    pieces: usize,
}

impl Pieces {
    fn of(graph: &Graph, orders: &Orders, n: NodeId, dims: &DotDims) -> Option<Pieces> {
        let ty = &graph.node(n).types[0];
        let [left, right] = graph.operands(n)[..] else { return None };
        let extents = graph.ty(left).shape.extents();
        let all: usize = dims.contract.iter().map(|p| extents[p.0]).product();
        if !ty.dtype.is_float() || ty.shape.elements() > FEW_RESULTS || all < 2 * LEAST_PIECE {
            return None;
        }
        let order = contraction_order(graph, orders, dims, [left.node, right.node]);
        let dims = *order.iter().find(|p| extents[p.0] > 1)?;
        let extent = extents[dims.0];
        let fits = |p: &usize| extent.is_multiple_of(*p) && all / p >= LEAST_PIECE;
        (2..=MOST_PIECES).rev().find(fits).map(|pieces| Pieces { dims, extent, pieces })
    }

    fn apply(
        &self,
        graph: &mut Graph,
        operands: &[Value],
        dims: &DotDims,
        acc: DType,
        sources: &Sources,
    ) -> Result<Value> {
        let mut parts: DimVec<Value> = DimVec::new();
        for (x, at) in operands.iter().zip([self.dims.0, self.dims.1]) {
            let mut extents = graph.ty(*x).shape.extents();
            extents[at] = self.extent / self.pieces;
            extents.insert(at, self.pieces);
            parts.push(graph.add(Op::Reshape(Shape::new(extents)), &[*x], sources.clone())?);
        }
        // The dims that count pieces stand before those that are cut.
        let moved = |&(l, r): &(usize, usize)| (l + usize::from(l >= self.dims.0), r + usize::from(r >= self.dims.1));
        let batch = std::iter::once(self.dims).chain(dims.batch.iter().map(moved)).collect();
        let dims = DotDims { batch, contract: dims.contract.iter().map(moved).collect() };
        let dot = graph.add(Op::Dot { dims, acc }, &parts, sources.clone())?;
        let dims = std::iter::once(0).collect();
        graph.add(Op::Reduce { op: ReduceOp::Sum, dims, acc }, &[dot], sources.clone())
    }
}

/// Whether one side has a single row (or column).
pub(crate) fn is_with_vector(dims: &DotDims, operands: &[Value], graph: &Graph) -> bool {
    [false, true].into_iter().zip(operands).any(|(right, v)| {
        let extents = graph.ty(*v).shape.extents();
        dims.free(right, extents.len()).iter().all(|&d| extents[d] == 1)
    })
}

/// A contraction with a vector, as a sum of products.
fn summed(graph: &mut Graph, node: &Node, dims: &DotDims, acc: DType, operands: &[Value]) -> Result<Value> {
    let rank = |graph: &Graph, side: usize| graph.ty(operands[side]).shape.rank();
    let free = [dims.free(false, rank(graph, 0)), dims.free(true, rank(graph, 1))];
    let (batch, contract) = (dims.batch.len(), dims.contract.len());
    let rows = batch..batch + free[0].len();
    let columns = rows.end..rows.end + free[1].len();
    // Both as [batch, rows, columns, contraction].
    let mut shape = node.types[0].shape.extents();
    let pick = |side: usize| move |&(l, r): &(usize, usize)| if side == 0 { l } else { r };
    let left = graph.ty(operands[0]).shape.extents();
    shape.extend(dims.contract.iter().map(|&(l, _)| left[l]));
    let shape = Shape::new(shape);
    let mut factors: SmallVec<[Value; 2]> = SmallVec::new();
    for (side, own) in [(0, rows), (1, columns)] {
        let order = dims.batch.iter().map(pick(side)).chain(free[side].iter().copied());
        let perm: DimVec<usize> = order.chain(dims.contract.iter().map(pick(side))).collect();
        let mut moved = operands[side];
        if graph.ty(moved).dtype != acc {
            moved = graph.add(Op::Cast(acc), &[moved], node.sources.clone())?;
        }
        if !perm.is_sorted() {
            moved = graph.add(Op::Permute(perm), &[moved], node.sources.clone())?;
        }
        let last = shape.rank() - contract..shape.rank();
        let dims = (0..batch).chain(own).chain(last).collect();
        factors.push(graph.add(Op::Broadcast { shape: shape.clone(), dims }, &[moved], node.sources.clone())?);
    }
    let product = graph.add(Op::Binary(BinaryOp::Mul), &factors, node.sources.clone())?;
    let dims = (shape.rank() - contract..shape.rank()).collect();
    graph.add(Op::Reduce { op: ReduceOp::Sum, dims, acc }, &[product], node.sources.clone())
}

/// Contracts over the dims that a reshape makes one of, where they do not lie as one: then they need not be brought together.
/// Tells whether there is no such reshape.
fn split(
    old: &Graph,
    layouts: &[Layout],
    orders: &Orders,
    n: NodeId,
    graph: &mut Graph,
    dims: &mut DotDims,
    operands: &mut [Value],
) -> Result<bool> {
    for side in [0, 1] {
        let read = old.operands(n)[side].node;
        let (Op::Reshape(_), Op::Reshape(_)) = (old.op(read), graph.op(operands[side].node)) else { continue };
        if strides(old, layouts, orders, read, false)?.is_some() {
            continue;
        }
        let below = graph.operands(operands[side].node)[0];
        let (from, to) = (graph.ty(below).shape.clone(), graph.ty(operands[side]).shape.clone());
        let pick = |&(l, r): &(usize, usize)| if side == 0 { [l, r] } else { [r, l] };
        let mut merged = None;
        for (f, t) in reshape_runs(&from, &to)? {
            match (f.len(), t.len()) {
                (1, 1) => {}
                (_, 1) if merged.is_none() => merged = Some((f, t.start)),
                _ => return Ok(true),
            }
        }
        let Some((run, d)) = merged else { continue };
        let Some([_, e]) = dims.contract.iter().map(pick).find(|pair| pair[0] == d) else { continue };
        let own: DimVec<usize> = from.extents()[run].into();
        let mut other = graph.ty(operands[1 - side]).shape.extents();
        other.remove(e);
        own.iter().rev().for_each(|n| other.insert(e, *n));
        let sources = old.node(n).sources.clone();
        operands[1 - side] = graph.add(Op::Reshape(Shape::new(other)), &[operands[1 - side]], sources)?;
        operands[side] = below;
        let moved = |x: usize, at: usize| if x > at { x + own.len() - 1 } else { x };
        let place = |pair: &(usize, usize), i: usize| {
            let [mine, others] = pick(pair);
            let (mine, others) = (moved(mine, d) + i, moved(others, e) + i);
            if side == 0 { (mine, others) } else { (others, mine) }
        };
        let parts = |pair: &(usize, usize)| if pick(pair)[0] == d { own.len() } else { 1 };
        let contract = dims.contract.iter().flat_map(|pair| (0..parts(pair)).map(move |i| place(pair, i)));
        *dims = DotDims { contract: contract.collect(), batch: dims.batch.iter().map(|p| place(p, 0)).collect() };
        return Ok(false);
    }
    Ok(true)
}

/// A contraction of a permuted operand.
fn renamed(dims: &DotDims, right: bool, perm: &[usize]) -> DotDims {
    let place = |d: usize| perm.iter().position(|p| *p == d).unwrap_or(d);
    let rename = |&(l, r): &(usize, usize)| if right { (l, place(r)) } else { (place(l), r) };
    DotDims { batch: dims.batch.iter().map(rename).collect(), contract: dims.contract.iter().map(rename).collect() }
}

/// What both operands of a contraction were before they were widened from `bf16` for it, behind movements, and true; the operands where that
/// does not hold or the target does not multiply such.
fn narrowed(graph: &mut Graph, operands: &[Value], target: &Target) -> Result<(DimVec<Value>, bool)> {
    let same = (operands.into(), false);
    let mut narrow: DimVec<Value> = operands.into();
    if !target.bf16_products {
        return Ok(same);
    }
    for x in &mut narrow {
        let mut moves: Vec<NodeId> = Vec::new();
        let mut at = x.node;
        while is_movement(graph.op(at)) {
            moves.push(at);
            at = graph.operands(at)[0].node;
        }
        let Op::Cast(DType::F32) = graph.op(at) else { return Ok(same) };
        *x = graph.operands(at)[0];
        if graph.ty(*x).dtype != DType::BF16 {
            return Ok(same);
        }
        for n in moves.into_iter().rev() {
            let node = graph.node(n).clone();
            *x = graph.add(node.op, &[*x], node.sources)?;
        }
    }
    Ok((narrow, true))
}

/// The order of dims in which an operand is to be copied, where it is.
fn copied(
    graph: &Graph,
    layouts: &[Layout],
    orders: &Orders,
    n: NodeId,
    side: usize,
    narrow: bool,
) -> Result<Option<DimVec<usize>>> {
    let Op::Dot { dims, .. } = graph.op(n) else { return Ok(None) };
    let right = side == 1;
    let operands: DimVec<NodeId> = graph.operands(n).iter().map(|v| v.node).collect();
    let shape = |n: NodeId| &graph.node(n).types[0].shape;
    let own = shape(operands[side]).extents();
    let other = shape(operands[1 - side]).extents();
    let panels = dims.free(!right, other.len()).iter().map(|&d| other[d]).product::<usize>().div_ceil(PANEL);
    if panels < OFTEN || shape(operands[side]).is_empty() {
        return Ok(None);
    }
    let pick = |&(l, r): &(usize, usize)| if right { r } else { l };
    let contract: DimVec<usize> =
        contraction_order(graph, orders, dims, [operands[0], operands[1]]).iter().map(pick).collect();
    let free = dims.free(right, own.len());
    let Some(strides) = strides(graph, layouts, orders, operands[side], narrow)? else { return Ok(None) };
    let long: Vec<(u64, i64)> = contract.iter().map(|&d| (own[d] as u64, strides[d])).filter(|d| d.0 > 1).collect();
    let along = long.last().is_none_or(|d| d.1 == 1);
    let across = free.iter().any(|&d| own[d] == 1 || strides[d] == 1);
    // Columns that lie as such are turned to rows, panel by panel; those of `bf16` as fast as rows are paired. They are dims of the result that lie innermost.
    let last = orders.dims(n, shape(n).rank()).last().copied();
    let first = shape(n).rank() - dims.free(true, shape(operands[1]).rank()).len();
    let columns = right == last.is_none_or(|d| d >= first);
    let near = across || along && (narrow || !(columns && panels >= TURNS));
    if near && is_matrix(&long, LONG) || columns && across {
        return Ok(None);
    }
    Ok(Some(dims.batch.iter().map(pick).chain(contract).chain(free).collect()))
}

/// The elements between neighbours along each dim of a value that movements make from a stored one, which was widened where it
/// is read before that.
fn strides(graph: &Graph, layouts: &[Layout], orders: &Orders, n: NodeId, narrow: bool) -> Result<Option<Vec<i64>>> {
    let shape = |n: NodeId| -> &Shape { &graph.node(n).types[0].shape };
    let extents = shape(n).extents();
    let ranges = |v: VarId| (0, extents[v.0 as usize] as i64 - 1);
    let mut index: Vec<Index> = (0..extents.len()).map(|d| Index::var(VarId(d as u32))).collect();
    let mut at = n;
    while is_movement(graph.op(at)) || narrow && matches!(graph.op(at), Op::Cast(DType::F32)) {
        let below = graph.operands(at)[0].node;
        index = operand_index(graph.op(at), 0, shape(below), shape(at), &index, &[], &ranges)?.index;
        at = below;
    }
    let layout = match graph.op(at) {
        Op::Input { index, .. } => layouts[*index].clone(),
        Op::Constant { .. } | Op::Iota { .. } => return Ok(None),
        _ => orders.layout(at, shape(at)),
    };
    let along = |d: usize| {
        index.iter().zip(&layout.strides).try_fold(0i64, |sum, (x, s)| Some(sum + x.coefficient(VarId(d as u32))? * s))
    };
    Ok((0..extents.len()).map(along).collect())
}
