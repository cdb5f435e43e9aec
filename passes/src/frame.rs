//! Frames: which dims of a group are its tile dims, and where they lie in each output.
//!
//! The tile dims are those of an *anchor*: the contraction, else a reduction's result (its row index), else an output.
//! From the anchor they spread along edges, forwards and backwards, wherever an operation keeps a dim as it is. The result
//! is a proposal: planning follows exact index maps, and what does not fit the frame shows there.

use crate::index_map::reshape_runs;
use crate::layout::Orders;
use crate::plan::Frame;
use lazuli_ir::{DimVec, Graph, NodeId, Op, Result, Shape};
use rustc_hash::FxHashMap;

/// What spreads: for each dim of a node, its tile dim.
pub(crate) type Labels = DimVec<Option<usize>>;

/// The frame of a group of nodes (`local`: members and the free nodes between them, in order) whose tile dims are the dims
/// of `anchor`'s result, except for one where that is said, in the order in which they lie in memory. `None` where an output has
/// only some of the tile dims; but where a contraction runs over the last one, an output may have the others.
pub(crate) fn frame(
    graph: &Graph,
    orders: &Orders,
    local: &[NodeId],
    outputs: &[NodeId],
    (anchor, but): (NodeId, Option<usize>),
) -> Result<Option<Frame>> {
    // What runs along a dim in order has all other dims outside of it.
    let along = match graph.op(anchor) {
        Op::Cumulative { dim, .. } | Op::Scatter { dim, .. } => Some(*dim),
        _ => but,
    };
    let shape = &graph.node(anchor).types[0].shape;
    let order: DimVec<usize> = orders.dims(anchor, shape.rank()).into_iter().filter(|d| Some(*d) != along).collect();
    let extents = shape.extents();
    let tile = order.iter().map(|&d| extents[d]).collect();
    let labels = (0..shape.rank()).map(|d| order.iter().position(|o| *o == d)).collect();
    frame_along(graph, orders, local, outputs, tile, FxHashMap::from_iter([(anchor, labels)]))
}

/// The frame of a group with these tile dims, where of some nodes it is known how they lie along them.
pub(crate) fn frame_along(
    graph: &Graph,
    orders: &Orders,
    local: &[NodeId],
    outputs: &[NodeId],
    tile: DimVec<usize>,
    mut labels: FxHashMap<NodeId, Labels>,
) -> Result<Option<Frame>> {
    let shape = |n: NodeId| &graph.node(n).types[0].shape;
    let mut changed = true;
    while changed {
        changed = false;
        for &n in local {
            changed |= spread(graph, n, &mut labels)?;
        }
        for &n in local.iter().rev() {
            changed |= spread(graph, n, &mut labels)?;
        }
    }
    let backward = local.iter().any(|n| matches!(graph.op(*n), Op::Cumulative { reverse: true, .. }));
    let mut frame = Frame { tile, outputs: Vec::new(), joined: false, backward };
    let last = frame.tile.len().checked_sub(1);
    let contracts_last = || {
        local.iter().any(|n| match graph.op(*n) {
            Op::Dot { dims, .. } => {
                let side = |s: usize, at: usize| labels.get(&graph.operands(*n)[s].node).and_then(|l| l[at]);
                dims.contract.iter().any(|&(l, r)| [side(0, l), side(1, r)].iter().any(|t| t.is_some() && *t == last))
            }
            _ => false,
        })
    };
    for &o in outputs {
        let axes = labels.get(&o).cloned().unwrap_or_else(|| shape(o).dims().iter().map(|_| None).collect());
        let count = axes.iter().flatten().count();
        let distinct = (0..frame.tile.len()).all(|t| axes.iter().flatten().filter(|a| **a == t).count() == 1);
        // What a contraction gives over all rows has the dims around them.
        let around = (0..count).all(|t| axes.contains(&Some(t))) && count + 1 == frame.tile.len();
        if count != 0 && !(distinct && count == frame.tile.len()) && !(around && contracts_last()) {
            return Ok(None);
        }
        frame.outputs.push(axes);
    }
    let reduces_tile = |n: &NodeId| match graph.op(*n) {
        Op::Reduce { dims, .. } => labels.get(&graph.operands(*n)[0].node).is_some_and(|l| {
            let dims = orders.sorted(graph.operands(*n)[0].node, dims);
            // All of the tile, and then perhaps what lies inside of it.
            let (rows, rest) = dims.split_at_checked(frame.tile.len()).unwrap_or((&dims, &[]));
            rows.iter().map(|&d| l[d]).eq((0..frame.tile.len()).map(Some)) && rest.iter().all(|&d| l[d].is_none())
        }),
        _ => false,
    };
    frame.joined = frame.tile.len() > 1 && local.iter().any(reduces_tile);
    Ok(Some(frame))
}

/// Spreads labels over one node, from result to operands and back. Tells whether anything is new.
fn spread(graph: &Graph, n: NodeId, labels: &mut FxHashMap<NodeId, Labels>) -> Result<bool> {
    let shape = |n: NodeId| &graph.node(n).types[0].shape;
    let mut changed = false;
    for (position, operand) in graph.operands(n).into_iter().enumerate() {
        for (from, to) in kept_dims(graph.op(n), position, shape(operand.node), shape(n))? {
            let down = label(labels, n, to);
            let up = label(labels, operand.node, from);
            changed |= match (down, up) {
                (Some(t), None) => set(labels, operand.node, shape(operand.node), from, t),
                (None, Some(t)) => set(labels, n, shape(n), to, t),
                _ => false,
            };
        }
    }
    Ok(changed)
}

fn label(labels: &FxHashMap<NodeId, Labels>, n: NodeId, dim: usize) -> Option<usize> {
    labels.get(&n).and_then(|l| l[dim])
}

/// Labels a dim, where no other dim of the value has that label: of what is both operands of a contraction, one dim is rows and columns.
fn set(labels: &mut FxHashMap<NodeId, Labels>, n: NodeId, shape: &Shape, dim: usize, t: usize) -> bool {
    let l = labels.entry(n).or_insert_with(|| shape.dims().iter().map(|_| None).collect());
    let new = !l.contains(&Some(t));
    if new {
        l[dim] = Some(t);
    }
    new
}

/// The pairs (operand dim, result dim) along which an operation keeps elements in place.
fn kept_dims(op: &Op, position: usize, operand: &Shape, result: &Shape) -> Result<Vec<(usize, usize)>> {
    let same = |&(a, b): &(usize, usize)| operand.dim(a).same(result.dim(b));
    Ok(match op {
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => Vec::new(),
        Op::Alias
        | Op::Detach
        | Op::ToDevice { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast(_) => (0..result.rank()).map(|d| (d, d)).collect(),
        Op::CheckIndex { .. } | Op::Cumulative { .. } => (0..result.rank()).map(|d| (d, d)).collect(),
        Op::Flip(dims) => (0..result.rank()).filter(|d| !dims.contains(d)).map(|d| (d, d)).collect(),
        Op::Gather { dim } | Op::Scatter { dim, .. } | Op::Sort { dim, .. } if position == 0 => {
            (0..result.rank()).filter(|d| d != dim).map(|d| (d, d)).collect()
        }
        Op::Gather { .. } => (0..result.rank()).map(|d| (d, d)).collect(),
        Op::Scatter { dim, .. } | Op::Concat { dim, .. } | Op::Sort { dim, .. } => {
            (0..result.rank()).filter(|d| d != dim).map(|d| (d, d)).collect()
        }
        Op::Window(dims) => (0..operand.rank()).filter(|d| !dims.iter().any(|w| w.dim == *d)).map(|d| (d, d)).collect(),
        Op::WindowSum { dims, .. } => {
            (0..result.rank()).filter(|d| !dims.iter().any(|w| w.dim == *d)).map(|d| (d, d)).collect()
        }
        Op::DynamicSlice(_) if position == 0 => (0..result.rank()).map(|d| (d, d)).filter(same).collect(),
        Op::DynamicUpdateSlice { .. } if position == 0 => (0..result.rank()).map(|d| (d, d)).collect(),
        Op::DynamicUpdateSlice { .. } if position == 1 => (0..result.rank()).map(|d| (d, d)).filter(same).collect(),
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } => Vec::new(),
        Op::Permute(perm) => perm.iter().enumerate().map(|(to, &from)| (from, to)).collect(),
        Op::Broadcast { dims, .. } => dims.iter().copied().enumerate().filter(same).collect(),
        Op::Slice(_) => (0..result.rank()).map(|d| (d, d)).filter(same).collect(),
        Op::Pad(_) if position == 1 => Vec::new(),
        Op::Pad(_) => (0..result.rank()).map(|d| (d, d)).filter(same).collect(),
        Op::Reshape(_) => {
            let long = |s: &Shape, run: std::ops::Range<usize>| -> Vec<usize> {
                run.filter(|&d| !s.dim(d).is_one()).collect()
            };
            let mut pairs = Vec::new();
            for (f, t) in reshape_runs(operand, result)? {
                if let ([f], [t]) = (long(operand, f).as_slice(), long(result, t).as_slice()) {
                    pairs.push((*f, *t));
                }
            }
            pairs
        }
        Op::Reduce { dims, .. } => {
            (0..operand.rank()).filter(|d| !dims.contains(d)).enumerate().map(|(to, from)| (from, to)).collect()
        }
        Op::Dot { dims, .. } => {
            let right = position == 1;
            let side = |&(l, r): &(usize, usize)| if right { r } else { l };
            let batch = dims.batch.iter().map(side).enumerate().map(|(to, from)| (from, to));
            let base = if right { result.rank() - dims.free(true, operand.rank()).len() } else { dims.batch.len() };
            let free = dims.free(right, operand.rank()).into_iter().enumerate().map(|(i, from)| (from, base + i));
            batch.chain(free).collect()
        }
    })
}
