//! Sums over windows that are better off as something else.
//!
//! A `window_sum` gathers: each element asks every window that may hold it.
//!
//! - Windows that do not overlap (the gradient of most pooling) only move elements: the sum is a reshape. That is done before
//!   fusion.
//! - Windows at a stride of `s` that do overlap are `s` sums over windows at a stride of 1, one for the elements of each *phase*,
//!   `i % s`: element `q s + r` is the sum over `t` of element `t s + r` of the window at `q - t`. So no index is divided.
//! - Of a contraction whose one operand has the elements of windows as free dims and the other one their places (the gradient
//!   of a convolution by its input), the sum is a convolution itself: `window_sum(dot(y, w))` is
//!   `dot(window(pad(y)), flip(w))`, so that no value as large as all windows is ever stored; with a stride, the phases are
//!   columns of it. That multiplies zeros, which infinities show, so it is how a gradient is written, and no rewrite of what
//!   somebody wrote.

use lazuli_ir::graph::Node;
use lazuli_ir::{
    BinaryOp, DimVec, DotDims, Graph, Literal, NodeId, Op, PadDim, Result, Shape, SliceDim, Sources, Value, WindowDim,
};
use rustc_hash::FxHashMap;

/// The graph without such sums, and for each of its nodes the node that it stands for; `None` where there are none.
pub(crate) fn rewrite(graph: &Graph) -> Result<Option<(Graph, Vec<NodeId>)>> {
    if !graph.nodes().any(|n| matches!(graph.op(n), Op::WindowSum { .. })) {
        return Ok(None);
    }
    let mut changes = 0;
    // The windows of sums that have phases, in the new graph.
    let mut windows: FxHashMap<NodeId, Value> = FxHashMap::default();
    let (new, back) = rebuilt(graph, |new, n, node, operands| match &node.op {
        Op::WindowSum { dims, shape } if dims.iter().all(|w| w.dilation == 1 && w.stride >= w.size) => {
            changes += 1;
            moved(new, node, dims, shape, operands[0])
        }
        Op::WindowSum { dims, shape } if has_phases(dims) => {
            changes += 1;
            windows.insert(n, operands[0]);
            let kept: DimVec<SliceDim> =
                shape.extents().iter().map(|&n| SliceDim { start: 0, stop: n, step: 1 }).collect();
            by_phases(new, dims, &kept, operands[0], &node.sources)
        }
        // What padded the operand of a convolution or a pooling cuts the sum of its gradient; phases begin there.
        Op::Slice(kept) if kept.iter().all(|s| s.step == 1) => {
            let sum = graph.operands(n)[0].node;
            match (graph.op(sum), windows.get(&sum)) {
                (Op::WindowSum { dims, .. }, Some(&x)) => {
                    by_phases(new, dims, kept, x, &node.sources.union(&graph.node(sum).sources))
                }
                _ => new.add(node.op.clone(), operands, node.sources.clone()),
            }
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
    let whole = (0..rank).map(|d| counts[d] * window(d).map_or(1, |i| dims[i].stride)).collect();
    y = fitted(graph, y, whole, shape, sources)?;
    if !graph.ty(y).dtype.is_float() {
        return Ok(y);
    }
    let zeros = zero(graph, y, shape.clone(), sources)?;
    graph.add(Op::Binary(BinaryOp::Add), &[y, zeros], sources.clone())
}

/// The elements of `x` as a value of extents `whole`, cut or filled with zeros at the end of each dim to a shape.
fn fitted(graph: &mut Graph, x: Value, whole: DimVec<usize>, shape: &Shape, sources: &Sources) -> Result<Value> {
    let extents = shape.extents();
    let mut y = graph.add(Op::Reshape(Shape::new(whole.clone())), &[x], sources.clone())?;
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
    Ok(y)
}

/// Whether windows overlap at a stride, and phases are what they are made of.
fn has_phases(dims: &[WindowDim]) -> bool {
    dims.iter().any(|w| w.stride > 1) && dims.iter().all(|w| w.stride == 1 || w.dilation == 1)
}

/// The window in each phase, at a stride of 1, where `low` zeros stand before its elements.
fn in_phase(w: &WindowDim, low: usize) -> WindowDim {
    WindowDim { size: (w.size + low).div_ceil(w.stride), stride: 1, ..*w }
}

/// The elements of windows in some dims of a value, with zeros before them and filled up with zeros, apart by phases: where dim
/// `d` of `elements` was, there are two, the window of a phase and the phase. Gives the new dims of the old ones (the first of
/// two) as well.
fn apart(
    graph: &mut Graph,
    x: Value,
    dims: &[WindowDim],
    elements: &[usize],
    low: &[usize],
    sources: &Sources,
) -> Result<(Value, DimVec<usize>)> {
    let shape = graph.ty(x).shape.extents();
    let window = |d: usize| elements.iter().position(|e| *e == d).filter(|&i| dims[i].stride > 1);
    let side = |d: usize| {
        let (low, high) = window(d).map_or((0, 0), |i| {
            let filled = in_phase(&dims[i], low[i]).size * dims[i].stride;
            (low[i], filled - low[i] - dims[i].size)
        });
        PadDim { low, high, interior: 0 }
    };
    let sides: DimVec<PadDim> = (0..shape.len()).map(side).collect();
    let mut y = x;
    if sides.iter().any(|p| p.low + p.high > 0) {
        let value = zero(graph, x, Shape::scalar(), sources)?;
        y = graph.add(Op::Pad(sides), &[y, value], sources.clone())?;
    }
    let (mut split, mut places) = (DimVec::new(), DimVec::new());
    for (d, &n) in shape.iter().enumerate() {
        places.push(split.len());
        match window(d) {
            Some(i) => split.extend([in_phase(&dims[i], low[i]).size, dims[i].stride]),
            None => split.push(n),
        }
    }
    Ok((graph.add(Op::Reshape(Shape::new(split)), &[y], sources.clone())?, places))
}

/// A part of a sum over windows at a stride, phase by phase.
fn by_phases(graph: &mut Graph, dims: &[WindowDim], kept: &[SliceDim], x: Value, sources: &Sources) -> Result<Value> {
    let rank = kept.len();
    let elements: DimVec<usize> = (rank..rank + dims.len()).collect();
    let counts = graph.ty(x).shape.extents();
    // Zeros before the elements of windows move the part to where phases begin.
    let low: DimVec<usize> = dims.iter().map(|w| (w.stride - kept[w.dim].start % w.stride) % w.stride).collect();
    let (y, places) = apart(graph, x, dims, &elements, &low, sources)?;
    // The phases become dims like any others; where there is one only, it needs none.
    let phased: DimVec<usize> = (0..dims.len()).filter(|i| dims[*i].stride > 1).collect();
    let order =
        (0..rank).chain(phased.iter().map(|&i| places[rank + i] + 1)).chain(elements.iter().map(|&d| places[d]));
    let y = graph.add(Op::Permute(order.collect()), &[y], sources.clone())?;
    let inner: lazuli_ir::WindowDims = dims.iter().zip(&low).map(|(w, low)| in_phase(w, *low)).collect();
    let mut sum: DimVec<usize> = counts[..rank].into();
    for w in &inner {
        sum[w.dim] += w.span() - 1;
    }
    let phases = phased.iter().map(|&i| dims[i].stride);
    sum.extend(phases.clone());
    let y = graph.add(Op::WindowSum { dims: inner, shape: Shape::new(sum.clone()) }, &[y], sources.clone())?;
    let mut part: DimVec<SliceDim> = kept.into();
    for (w, low) in dims.iter().zip(&low) {
        let start = (kept[w.dim].start + low) / w.stride;
        let stop = start + (kept[w.dim].stop - kept[w.dim].start).div_ceil(w.stride);
        part[w.dim] = SliceDim { start: start.min(sum[w.dim]), stop: stop.min(sum[w.dim]), step: 1 };
    }
    let mut whole: DimVec<usize> = part.iter().map(|s| s.stop - s.start).collect();
    part.extend(phases.map(|n| SliceDim { start: 0, stop: n, step: 1 }));
    let y = graph.add(Op::Slice(part), &[y], sources.clone())?;
    let phase = |d: usize| phased.iter().position(|&i| dims[i].dim == d);
    let order = (0..rank).flat_map(|d| std::iter::once(d).chain(phase(d).map(|p| rank + p))).collect();
    let y = graph.add(Op::Permute(order), &[y], sources.clone())?;
    for &i in &phased {
        whole[dims[i].dim] *= dims[i].stride;
    }
    let shape = Shape::new(kept.iter().map(|s| s.stop - s.start));
    fitted(graph, y, whole, &shape, sources)
}

/// A sum over windows of a contraction, as a contraction over windows; `None` where it is none.
pub(crate) fn convolved(
    graph: &mut Graph,
    dims: &[WindowDim],
    shape: &Shape,
    x: Value,
    sources: &Sources,
) -> Result<Option<Value>> {
    let strided = dims.iter().any(|w| w.stride > 1);
    if (strided && !has_phases(dims)) || dims.iter().all(|w| w.stride >= w.size && w.dilation == 1) || shape.is_empty()
    {
        return Ok(None);
    }
    if let Op::Reshape(_) = graph.op(x.node)
        && !matches!(graph.op(graph.operands(x.node)[0].node), Op::Reshape(_))
    {
        return convolved_behind(graph, dims, shape, x, sources);
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
    let mut whole = graph.ty(x).shape.extents()[..rank].iter().copied().collect::<DimVec<usize>>();
    let mut windows = lazuli_ir::WindowDims::new();
    for (window, &(_, d)) in dims.iter().zip(&places) {
        let inner = in_phase(window, 0);
        let reach = inner.span() - 1;
        padding[d] = PadDim { low: reach, high: reach, interior: 0 };
        whole[window.dim] = (own[d] + reach) * window.stride;
        windows.push(WindowDim { dim: d, ..inner });
    }
    let value = zero(graph, y, Shape::scalar(), &sources)?;
    let padded = graph.add(Op::Pad(padding), &[y, value], sources.clone())?;
    let y = graph.add(Op::Window(windows), &[padded], sources.clone())?;
    let elements: DimVec<usize> = elements.iter().map(|e| e.1).collect();
    let low: DimVec<usize> = dims.iter().map(|_| 0).collect();
    let (w, now) = apart(graph, w, dims, &elements, &low, &sources)?;
    let w = graph.add(Op::Flip(elements.iter().map(|&d| now[d]).collect()), &[w], sources.clone())?;
    let pair = |of_y: usize, of_w: usize| if side == 0 { (of_y, of_w) } else { (of_w, of_y) };
    let moved = |&(a, b): &(usize, usize)| if side == 0 { (a, now[b]) } else { (now[a], b) };
    let contract = pairs.contract.iter().map(moved);
    let contract = contract.chain(elements.iter().enumerate().map(|(i, &d)| pair(ranks[side] + i, now[d]))).collect();
    let dot = Op::Dot { dims: DotDims { batch: pairs.batch.iter().map(moved).collect(), contract }, acc };
    let made = graph.add(dot, &if side == 0 { [y, w] } else { [w, y] }, sources.clone())?;
    // What was an element of windows is the phase now, or gone where there is one only.
    let gone: DimVec<usize> = (0..dims.len()).filter(|i| dims[*i].stride == 1).map(|i| perm[rank + i]).collect();
    let kept = |d: usize| d - gone.iter().filter(|g| **g < d).count();
    let phase = |d: usize| dims.iter().position(|w| w.dim == d && w.stride > 1).map(|i| kept(perm[rank + i]));
    let order = (0..rank).flat_map(|d| std::iter::once(kept(perm[d])).chain(phase(d))).collect();
    let made = graph.add(Op::Permute(order), &[made], sources.clone())?;
    fitted(graph, made, whole, shape, &sources).map(Some)
}

/// The same behind a reshape that leaves the dims of windows as they are (and, say, brings groups and channels together).
fn convolved_behind(
    graph: &mut Graph,
    dims: &[WindowDim],
    shape: &Shape,
    x: Value,
    sources: &Sources,
) -> Result<Option<Value>> {
    let inner = graph.operands(x.node)[0];
    let (outside, inside) = (graph.ty(x).shape.extents(), graph.ty(inner).shape.extents());
    let Some(first) = dims.iter().map(|w| w.dim).min() else { return Ok(None) };
    let kept = outside.len() - first;
    let Some(before) = inside.len().checked_sub(kept).filter(|b| inside[*b..] == outside[first..]) else {
        return Ok(None);
    };
    let dims: DimVec<WindowDim> = dims.iter().map(|w| WindowDim { dim: w.dim - first + before, ..*w }).collect();
    let extents = shape.extents();
    let whole = Shape::new(inside[..before].iter().chain(&extents[first..]).copied());
    let sources = graph.node(x.node).sources.union(sources);
    let Some(made) = convolved(graph, &dims, &whole, inner, &sources)? else { return Ok(None) };
    graph.add(Op::Reshape(shape.clone()), &[made], sources).map(Some)
}
