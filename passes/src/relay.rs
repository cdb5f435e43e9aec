//! Relaying: an operand that a contraction would pack again and again is laid out once, before it.
//!
//! A contraction packs what is no matrix panel by panel. The smaller operand of one with many panels (the weight of a
//! convolution, whose channels lie apart) would be packed for each of them; it gets a copy instead, as a `permute` that is a
//! kernel of its own: contraction first, in the order in which the larger operand lies, then the free dims. No other
//! `permute` stands directly before a contraction, since simplification takes them in; so that form is the mark, for fusion
//! as well as for the [layout](crate::layout).

use crate::index_map::operand_index;
use crate::layout::{Orders, contraction_order};
use crate::operand::{LONG, is_matrix};
use crate::plan::is_movement;
use lazuli_ir::{DimVec, DotDims, Graph, Index, Layout, NodeId, Op, Result, Shape, Target, TargetKind, Value, VarId};

/// Times an operand is packed from which on a copy is worth it.
const OFTEN: usize = 4;
/// Rows or columns of a panel, for the estimate of how often that is.
const PANEL: usize = 256;

/// A graph with copies, and for each of its nodes the node that it stands for.
pub(crate) struct Relaid {
    pub(crate) graph: Graph,
    pub(crate) back: Vec<NodeId>,
}

/// The graph with the copies that contractions are better with; `None` where there are none.
pub(crate) fn relay(graph: &Graph, layouts: &[Layout], orders: &Orders, target: &Target) -> Result<Option<Relaid>> {
    if target.kind != TargetKind::Cpu || !graph.nodes().any(|n| matches!(graph.op(n), Op::Dot { .. })) {
        return Ok(None);
    }
    let mut back: Vec<NodeId> = Vec::new();
    let mut copies = 0;
    let new = graph.rebuild(|new, n, node, operands| {
        let mut op = node.op.clone();
        let mut operands: DimVec<Value> = operands.into();
        if let Op::Dot { dims, acc } = &node.op {
            for side in [0, 1] {
                let Op::Dot { dims: now, .. } = &op else { continue };
                let Some(perm) = copied(graph, layouts, orders, n, dims, side)? else { continue };
                let dims = renamed(now, side == 1, &perm);
                operands[side] = new.add(Op::Permute(perm), &[operands[side]], node.sources.clone())?;
                op = Op::Dot { dims, acc: *acc };
                copies += 1;
            }
        }
        let made = new.add(op, &operands, node.sources.clone())?;
        back.resize(new.len().max(back.len()), n);
        Ok(made)
    })?;
    // Inputs come first in both, and in one order.
    for ((_, old), (_, now)) in graph.inputs().iter().zip(new.inputs()) {
        if back.len() <= now.index() {
            back.resize(now.index() + 1, *old);
        }
        back[now.index()] = *old;
    }
    Ok((copies > 0).then_some(Relaid { graph: new, back }))
}

/// A contraction of a permuted operand.
fn renamed(dims: &DotDims, right: bool, perm: &[usize]) -> DotDims {
    let place = |d: usize| perm.iter().position(|p| *p == d).unwrap_or(d);
    let rename = |&(l, r): &(usize, usize)| if right { (l, place(r)) } else { (place(l), r) };
    DotDims { batch: dims.batch.iter().map(rename).collect(), contract: dims.contract.iter().map(rename).collect() }
}

/// The order of dims in which an operand is to be copied, where it is.
fn copied(
    graph: &Graph,
    layouts: &[Layout],
    orders: &Orders,
    n: NodeId,
    dims: &DotDims,
    side: usize,
) -> Result<Option<DimVec<usize>>> {
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
    let Some(strides) = strides(graph, layouts, orders, operands[side])? else { return Ok(None) };
    let long: Vec<(u64, i64)> = contract.iter().map(|&d| (own[d] as u64, strides[d])).filter(|d| d.0 > 1).collect();
    let near = long.last().is_none_or(|d| d.1 == 1) || free.iter().any(|&d| own[d] == 1 || strides[d] == 1);
    if near && is_matrix(&long, LONG) {
        return Ok(None);
    }
    Ok(Some(dims.batch.iter().map(pick).chain(contract).chain(free).collect()))
}

/// The elements between neighbours along each dim of a value that movements make from a stored one.
fn strides(graph: &Graph, layouts: &[Layout], orders: &Orders, n: NodeId) -> Result<Option<Vec<i64>>> {
    let shape = |n: NodeId| -> &Shape { &graph.node(n).types[0].shape };
    let extents = shape(n).extents();
    let ranges = |v: VarId| (0, extents[v.0 as usize] as i64 - 1);
    let mut index: Vec<Index> = (0..extents.len()).map(|d| Index::var(VarId(d as u32))).collect();
    let mut at = n;
    while is_movement(graph.op(at)) {
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
