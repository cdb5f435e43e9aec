//! Sums over windows that are better off as something else.
//!
//! A `window_sum` gathers: each element asks every window that may hold it.
//!
//! - Windows that do not overlap (the gradient of most pooling) only move elements: the sum is a reshape. That is done before
//!   fusion.
//! - Of a contraction whose one operand has the elements of windows as free dims and the other one their places (the gradient
//!   of a convolution by its input), the sum is a convolution itself: `window_sum(dot(y, w))` is
//!   `dot(window(pad(y)), flip(w))`, so that no value as large as all windows is ever stored. That multiplies zeros, which
//!   infinities show, so it is how a gradient is written, and no rewrite of what somebody wrote. It holds for any stride, but
//!   zeros between the places would cost more than they save; so it is done for strides of 1.

use lazuli_ir::graph::Node;
use lazuli_ir::{
    BinaryOp, DimVec, DotDims, Graph, Literal, NodeId, Op, PadDim, Result, Shape, SliceDim, Sources, Value, WindowDim,
};

/// The graph without such sums, and for each of its nodes the node that it stands for; `None` where there are none.
pub(crate) fn rewrite(graph: &Graph) -> Result<Option<(Graph, Vec<NodeId>)>> {
    if !graph.nodes().any(|n| matches!(graph.op(n), Op::WindowSum { .. })) {
        return Ok(None);
    }
    let mut changes = 0;
    let (new, back) = rebuilt(graph, |new, _, node, operands| match &node.op {
        Op::WindowSum { dims, shape } if dims.iter().all(|w| w.dilation == 1 && w.stride >= w.size) => {
            changes += 1;
            moved(new, node, dims, shape, operands[0])
        }
        op => new.add(op.clone(), operands, node.sources.clone()),
    })?;
    Ok((changes > 0).then_some((new, back)))
}

/// A rebuilt graph, and for each of its nodes the node that it was made for.
pub(crate) fn rebuilt(
    graph: &Graph,
    mut rewrite: impl FnMut(&mut Graph, NodeId, &Node, &[Value]) -> Result<Value>,
) -> Result<(Graph, Vec<NodeId>)> {
    let mut back: Vec<NodeId> = Vec::new();
    let new = graph.rebuild(|new, n, node, operands| {
        let made = rewrite(new, n, node, operands)?;
        back.resize(new.len().max(back.len()), n);
        Ok(made)
    })?;
    back.resize(new.len().max(back.len()), NodeId(0));
    for ((_, old), (_, now)) in graph.inputs().iter().zip(new.inputs()) {
        back[now.index()] = *old;
    }
    Ok((new, back))
}

fn zero(graph: &mut Graph, of: Value, shape: Shape, sources: &Sources) -> Result<Value> {
    let value = Literal::zero(graph.ty(of).dtype);
    graph.add(Op::Constant { value, shape }, &[], sources.clone())
}

/// Windows side by side, as the elements they are. (A sum has no -0.0.)
fn moved(graph: &mut Graph, node: &Node, dims: &[WindowDim], shape: &Shape, x: Value) -> Result<Value> {
    let sources = &node.sources;
    let rank = shape.rank();
    let window = |d: usize| dims.iter().position(|w| w.dim == d);
    let mut y = x;
    if dims.iter().any(|w| w.stride > w.size) {
        let gap = |d: usize| d.checked_sub(rank).map_or(0, |i| dims[i].stride - dims[i].size);
        let gaps = (0..rank + dims.len()).map(|d| PadDim { low: 0, high: gap(d), interior: 0 }).collect();
        let value = zero(graph, x, Shape::scalar(), sources)?;
        y = graph.add(Op::Pad(gaps), &[y, value], sources.clone())?;
    }
    let order = (0..rank).flat_map(|d| std::iter::once(d).chain(window(d).map(|i| rank + i))).collect();
    y = graph.add(Op::Permute(order), &[y], sources.clone())?;
    let counts = graph.ty(x).shape.extents();
    let whole: DimVec<usize> = (0..rank).map(|d| counts[d] * window(d).map_or(1, |i| dims[i].stride)).collect();
    y = graph.add(Op::Reshape(Shape::new(whole.clone())), &[y], sources.clone())?;
    let extents = shape.extents();
    if whole.iter().zip(&extents).any(|(n, m)| n > m) {
        let kept = whole.iter().zip(&extents).map(|(n, m)| SliceDim { start: 0, stop: *n.min(m), step: 1 }).collect();
        y = graph.add(Op::Slice(kept), &[y], sources.clone())?;
    }
    if whole.iter().zip(&extents).any(|(n, m)| n < m) {
        let missing = |(n, m): (&usize, &usize)| PadDim { low: 0, high: m.saturating_sub(*n), interior: 0 };
        let value = zero(graph, x, Shape::scalar(), sources)?;
        let sides = whole.iter().zip(&extents).map(missing).collect();
        y = graph.add(Op::Pad(sides), &[y, value], sources.clone())?;
    }
    if !graph.ty(y).dtype.is_float() {
        return Ok(y);
    }
    let zeros = zero(graph, y, shape.clone(), sources)?;
    graph.add(Op::Binary(BinaryOp::Add), &[y, zeros], sources.clone())
}

/// A sum over windows of a contraction, as a contraction over windows; `None` where it is none.
pub(crate) fn convolved(
    graph: &mut Graph,
    dims: &[WindowDim],
    shape: &Shape,
    x: Value,
    sources: &Sources,
) -> Result<Option<Value>> {
    if dims.iter().any(|w| w.stride != 1) || shape.is_empty() {
        return Ok(None);
    }
    // Where each dim of `x` is among the contraction's.
    let mut perm: DimVec<usize> = (0..graph.ty(x).shape.rank()).collect();
    let mut at = x;
    while let Op::Permute(inner) = graph.op(at.node) {
        perm = perm.iter().map(|&p| inner[p]).collect();
        at = graph.operands(at.node)[0];
    }
    let Op::Dot { dims: pairs, acc } = graph.op(at.node).clone() else { return Ok(None) };
    let sources = graph.node(at.node).sources.union(sources);
    let operands = graph.operands(at.node);
    let ranks = [0, 1].map(|s: usize| graph.ty(operands[s]).shape.rank());
    let free = [pairs.free(false, ranks[0]), pairs.free(true, ranks[1])];
    let batch = pairs.batch.len();
    // The side of a result's dim, and which of the operand's it is.
    let axis = |d: usize| -> Option<(usize, usize)> {
        let d = d.checked_sub(batch)?;
        let left = free[0].len();
        Some(if d < left { (0, free[0][d]) } else { (1, *free[1].get(d - left)?) })
    };
    let rank = shape.rank();
    let places: Option<Vec<(usize, usize)>> = dims.iter().map(|w| axis(perm[w.dim])).collect();
    let elements: Option<Vec<(usize, usize)>> = (0..dims.len()).map(|i| axis(perm[rank + i])).collect();
    let (Some(places), Some(elements)) = (places, elements) else { return Ok(None) };
    let Some(side) = places.first().map(|p| p.0) else { return Ok(None) };
    if places.iter().any(|p| p.0 != side) || elements.iter().any(|e| e.0 == side) {
        return Ok(None);
    }
    let (y, w) = (operands[side], operands[1 - side]);
    let own = graph.ty(y).shape.extents();
    let mut padding: DimVec<PadDim> = own.iter().map(|_| PadDim { low: 0, high: 0, interior: 0 }).collect();
    let extents = shape.extents();
    let mut windows = lazuli_ir::WindowDims::new();
    for (window, &(_, d)) in dims.iter().zip(&places) {
        let reach = window.span() - 1;
        padding[d] = PadDim { low: reach, high: extents[window.dim] - own[d], interior: 0 };
        windows.push(WindowDim { dim: d, ..*window });
    }
    let value = zero(graph, y, Shape::scalar(), &sources)?;
    let padded = graph.add(Op::Pad(padding), &[y, value], sources.clone())?;
    let y = graph.add(Op::Window(windows), &[padded], sources.clone())?;
    let w = graph.add(Op::Flip(elements.iter().map(|e| e.1).collect()), &[w], sources.clone())?;
    let mut contract = pairs.contract.clone();
    for (i, &(_, d)) in elements.iter().enumerate() {
        let pair = (ranks[side] + i, d);
        contract.push(if side == 0 { pair } else { (pair.1, pair.0) });
    }
    let dot = Op::Dot { dims: DotDims { batch: pairs.batch.clone(), contract }, acc };
    let made = graph.add(dot, &if side == 0 { [y, w] } else { [w, y] }, sources.clone())?;
    let gone: DimVec<usize> = perm[rank..].into();
    let order = perm[..rank].iter().map(|&d| d - gone.iter().filter(|g| **g < d).count()).collect();
    Ok(Some(graph.add(Op::Permute(order), &[made], sources)?))
}
