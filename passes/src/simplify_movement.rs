//! Movement operations: what does nothing goes away, two of a kind become one, and a canonical form lets equal values meet.
//!
//! The canonical order, from the result towards the operand: `permute` of `broadcast` is a broadcast, a `slice` goes below a
//! broadcast, dims of extent 1 come and go in broadcasts where there is one. All rules move elements only, so they are exact
//! for every dtype.

use crate::simplify::{Candidate, Outer, Step};
use lazuli_ir::graph::Operands;
use lazuli_ir::{BinaryOp, DimVec, Literal, Op, PadDim, ReduceOp, Shape, SliceDim, WindowDim};

/// A rule of this file that fits.
pub(crate) fn rule(c: &Candidate<'_>) -> Option<Step> {
    match c.op {
        Op::Permute(perm) => permute(c, perm),
        Op::Reshape(shape) => reshape(c, shape),
        Op::Broadcast { shape, dims } => broadcast(c, shape, dims),
        Op::Slice(dims) => slice(c, dims),
        Op::Pad(dims) => pad(c, dims),
        Op::Reduce { op, dims, .. } => reduce(c, *op, dims),
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
        Op::Alias
        | Op::Detach
        | Op::ToDevice { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast(_) => None,
        Op::Flip(dims) => flip(c, dims),
        Op::Concat { count: 1, .. } => Some(Step::Use(c.operands[0])),
        Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } => None,
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } => None,
        Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => None,
        Op::Dot { .. } => None,
    }
}

/// Dims of one element have no order, and two flips of a dim cancel.
fn flip(c: &Candidate<'_>, dims: &[usize]) -> Option<Step> {
    let shape = &c.ty.shape;
    let long: DimVec<usize> = dims.iter().copied().filter(|&d| !shape.dim(d).is_one()).collect();
    if long.is_empty() {
        return Some(Step::Use(c.operands[0]));
    }
    if long.len() < dims.len() {
        return Step::node(Op::Flip(long), [c.operands[0]]);
    }
    let Op::Flip(inner) = c.operand_op(0) else { return None };
    let once = (0..shape.rank()).filter(|d| dims.contains(d) != inner.contains(d)).collect();
    Step::node(Op::Flip(once), c.inner(0))
}

fn permute(c: &Candidate<'_>, perm: &[usize]) -> Option<Step> {
    if perm.is_sorted() {
        return Some(Step::Use(c.operands[0]));
    }
    // Dims of extent 1 may go anywhere: the row-major order does not see them.
    let long = perm.iter().filter(|&&p| !c.operand_ty(0).shape.dim(p).is_one());
    if long.is_sorted() {
        return Step::node(Op::Reshape(c.ty.shape.clone()), [c.operands[0]]);
    }
    match c.operand_op(0) {
        Op::Permute(inner) => Step::node(Op::Permute(perm.iter().map(|&p| inner[p]).collect()), c.inner(0)),
        Op::Iota { dim, .. } => {
            let dim = perm.iter().position(|p| p == dim)?;
            Step::node(Op::Iota { dim, shape: c.ty.shape.clone() }, [])
        }
        Op::Broadcast { dims, .. } => {
            // Where each of the operand's dims ends up; the operand is permuted to have them in that order.
            let mut target: DimVec<(usize, usize)> = DimVec::new();
            for (i, d) in dims.iter().enumerate() {
                target.push((perm.iter().position(|p| p == d)?, i));
            }
            target.sort_unstable();
            let outer = Op::Broadcast { shape: c.ty.shape.clone(), dims: target.iter().map(|t| t.0).collect() };
            Step::chain(Op::Permute(target.iter().map(|t| t.1).collect()), c.inner(0), outer)
        }
        _ => None,
    }
}

/// For two shapes that differ by dims of extent 1 alone: the pairs of their other dims.
fn same_but_ones(a: &Shape, b: &Shape) -> Option<DimVec<(usize, usize)>> {
    let long = |s: &Shape| -> DimVec<usize> { (0..s.rank()).filter(|&d| !s.dim(d).is_one()).collect() };
    let (x, y) = (long(a), long(b));
    let fits = x.len() == y.len() && x.iter().zip(&y).all(|(&i, &j)| a.dim(i).same(b.dim(j)));
    fits.then(|| x.into_iter().zip(y).collect())
}

fn reshape(c: &Candidate<'_>, shape: &Shape) -> Option<Step> {
    let from = &c.operand_ty(0).shape;
    if from.same(shape) {
        return Some(Step::Use(c.operands[0]));
    }
    match c.operand_op(0) {
        Op::Reshape(_) => Step::node(c.op.clone(), c.inner(0)),
        Op::Iota { dim, .. } => {
            let pairs = same_but_ones(from, shape)?;
            let dim = pairs.iter().find(|(d, _)| d == dim)?.1;
            Step::node(Op::Iota { dim, shape: shape.clone() }, [])
        }
        Op::Broadcast { dims, .. } => {
            let inner = c.graph.ty(c.inner(0)[0]).shape.clone();
            if inner.dims().iter().all(|d| d.is_one()) {
                let outer = Op::Broadcast { shape: shape.clone(), dims: DimVec::new() };
                return Step::chain(Op::Reshape(Shape::scalar()), c.inner(0), outer);
            }
            // The operand keeps the dims that are still there; those that vanish have extent 1.
            let pairs = same_but_ones(from, shape)?;
            let moved = |d: &usize| pairs.iter().find(|(from, _)| from == d).map(|p| p.1);
            let kept = (0..dims.len()).filter(|&i| moved(&dims[i]).is_some()).map(|i| inner.dim(i));
            let outer = Op::Broadcast { shape: shape.clone(), dims: dims.iter().filter_map(moved).collect() };
            Step::chain(Op::Reshape(Shape::from_dims(kept)), c.inner(0), outer)
        }
        _ => None,
    }
}

fn broadcast(c: &Candidate<'_>, shape: &Shape, dims: &[usize]) -> Option<Step> {
    let from = &c.operand_ty(0).shape;
    if from.same(shape) {
        return Some(Step::Use(c.operands[0]));
    }
    let stretches = |d: usize| match dims.iter().position(|&x| x == d) {
        Some(i) => !from.dim(i).same(shape.dim(d)),
        None => !shape.dim(d).is_one(),
    };
    if !(0..shape.rank()).any(stretches) {
        return Step::node(Op::Reshape(shape.clone()), [c.operands[0]]);
    }
    match c.operand_op(0) {
        Op::Broadcast { dims: inner, .. } => {
            let dims = inner.iter().map(|&d| dims[d]).collect();
            Step::node(Op::Broadcast { shape: shape.clone(), dims }, c.inner(0))
        }
        Op::Iota { dim, .. } if from.dim(*dim).same(shape.dim(dims[*dim])) => {
            Step::node(Op::Iota { dim: dims[*dim], shape: shape.clone() }, [])
        }
        Op::Reshape(_) => {
            let inner = &c.graph.ty(c.inner(0)[0]).shape;
            let pairs = same_but_ones(inner, from)?;
            let dims = place(inner, shape.rank(), |i| pairs.iter().find(|p| p.0 == i).map(|p| dims[p.1]))?;
            Step::node(Op::Broadcast { shape: shape.clone(), dims }, c.inner(0))
        }
        _ => None,
    }
}

/// Increasing dims for a broadcast of `from` to `rank` dims, where `fixed` says the place of each dim but those of extent 1,
/// which may go anywhere; `None` where they do not fit between.
fn place(from: &Shape, rank: usize, fixed: impl Fn(usize) -> Option<usize>) -> Option<DimVec<usize>> {
    let mut places: DimVec<usize> = DimVec::new();
    let mut next = 0;
    for i in 0..from.rank() {
        let at = fixed(i).unwrap_or(next);
        if at < next || at >= rank {
            return None;
        }
        places.push(at);
        next = at + 1;
    }
    Some(places)
}

fn slice(c: &Candidate<'_>, dims: &[SliceDim]) -> Option<Step> {
    let from = c.operand_ty(0).shape.extents();
    let whole = |(s, n): (&SliceDim, &usize)| s.start == 0 && s.extent() == *n;
    if dims.iter().zip(&from).all(whole) {
        return Some(Step::Use(c.operands[0]));
    }
    let canonical: DimVec<SliceDim> = dims.iter().map(|s| tight(s.start, s.extent(), s.step)).collect();
    if canonical.as_slice() != dims {
        return Step::node(Op::Slice(canonical), [c.operands[0]]);
    }
    match c.operand_op(0) {
        Op::Slice(inner) => {
            let both = inner.iter().zip(dims);
            let dims = both.map(|(i, s)| tight(i.start + s.start * i.step, s.extent(), s.step * i.step)).collect();
            Step::node(Op::Slice(dims), c.inner(0))
        }
        Op::Broadcast { dims: inner, .. } => {
            let x = c.inner(0)[0];
            let ranges = inner
                .iter()
                .zip(c.graph.ty(x).shape.extents())
                .map(|(&d, n)| if n == from[d] { dims[d] } else { tight(0, n, 1) });
            let outer = Op::Broadcast { shape: c.ty.shape.clone(), dims: inner.clone() };
            Step::chain(Op::Slice(ranges.collect()), [x], outer)
        }
        Op::Iota { dim, .. } if whole((&dims[*dim], &from[*dim])) => {
            Step::node(Op::Iota { dim: *dim, shape: c.ty.shape.clone() }, [])
        }
        Op::Pad(padding) => slice_of_pad(c, dims, padding).or_else(|| slice_below_pad(c, dims, padding)),
        Op::Window(windows) => slice_of_window(c, dims, windows),
        _ => None,
    }
}

/// What is cut off padding need not be padded. Only where nothing else reads the padded value.
fn slice_below_pad(c: &Candidate<'_>, dims: &[SliceDim], padding: &[PadDim]) -> Option<Step> {
    let operands = c.inner(0);
    let extents = c.graph.ty(operands[0]).shape.extents();
    let (mut kept, mut sides) = (DimVec::new(), DimVec::new());
    for ((s, p), n) in dims.iter().zip(padding).zip(extents) {
        if s.start == 0 && p.extent(n) == Some(s.extent()) {
            kept.push(tight(0, n, 1));
            sides.push(*p);
            continue;
        }
        let (start, stop) = (s.start.saturating_sub(p.low), s.stop.saturating_sub(p.low).min(n));
        if s.step != 1 || p.interior != 0 || start >= stop {
            return None;
        }
        kept.push(tight(start, stop - start, 1));
        let (low, high) = (p.low.saturating_sub(s.start), s.stop.saturating_sub(p.low + n));
        sides.push(PadDim { low, high, interior: 0 });
    }
    let pad = Outer { op: Op::Pad(sides), others: [operands[1]].into_iter().collect(), at: 0 };
    c.sole_use.then(|| Step::Chain((Op::Slice(kept), [operands[0]].into_iter().collect()), Box::new(pad)))
}

/// Some of the places of windows are windows over what they see.
fn slice_of_window(c: &Candidate<'_>, dims: &[SliceDim], windows: &[WindowDim]) -> Option<Step> {
    let x = c.inner(0)[0];
    let extents = c.graph.ty(x).shape.extents();
    let (places, elements) = dims.split_at_checked(extents.len())?;
    let uncut = |(s, w): (&SliceDim, &WindowDim)| s.start == 0 && s.step == 1 && s.stop == w.size;
    let seen = |(d, s): (usize, &SliceDim)| match windows.iter().find(|w| w.dim == d) {
        Some(w) if s.step == 1 => Some(tight(s.start * w.stride, (s.extent() - 1) * w.stride + w.span(), 1)),
        Some(_) => None,
        None => Some(*s),
    };
    let seen: DimVec<SliceDim> = places.iter().enumerate().map(seen).collect::<Option<_>>()?;
    let whole = seen.iter().zip(&extents).all(|(s, n)| s.start == 0 && s.extent() == *n);
    let fits = elements.iter().zip(windows).all(uncut) && !whole;
    fits.then(|| Step::chain(Op::Slice(seen), [x], Op::Window(windows.iter().copied().collect())))?
}

/// The range of `extent` elements whose end is the last one taken.
fn tight(start: usize, extent: usize, step: usize) -> SliceDim {
    match extent {
        0 => SliceDim { start, stop: start, step: 1 },
        1 => SliceDim { start, stop: start + 1, step: 1 },
        n => SliceDim { start, stop: start + (n - 1) * step + 1, step },
    }
}

/// A slice that sees padding alone, or none of it.
fn slice_of_pad(c: &Candidate<'_>, dims: &[SliceDim], padding: &[PadDim]) -> Option<Step> {
    let operands = c.inner(0);
    let (x, value) = (operands[0], operands[1]);
    let extents = c.graph.ty(x).shape.extents();
    let mut inside: DimVec<SliceDim> = DimVec::new();
    for ((s, p), n) in dims.iter().zip(padding).zip(extents) {
        // No dim is empty here, neither of the slice nor of the padded value.
        let (pitch, last) = (p.interior + 1, s.stop - 1);
        let end = p.low + (n - 1) * pitch;
        if last < p.low || s.start > end {
            return Step::node(Op::Broadcast { shape: c.ty.shape.clone(), dims: DimVec::new() }, [value]);
        }
        let aligned = s.start >= p.low && (s.start - p.low).is_multiple_of(pitch);
        let in_step = s.extent() == 1 || s.step.is_multiple_of(pitch);
        if aligned && in_step && last <= end {
            inside.push(tight((s.start - p.low) / pitch, s.extent(), (s.step / pitch).max(1)));
        }
    }
    if inside.len() == dims.len() { Step::node(Op::Slice(inside), [x]) } else { None }
}

fn pad(c: &Candidate<'_>, dims: &[PadDim]) -> Option<Step> {
    let extents = c.operand_ty(0).shape.extents();
    if dims.iter().zip(&extents).all(|(p, n)| p.extent(*n) == Some(*n)) {
        return Some(Step::Use(c.operands[0]));
    }
    // One element has no neighbour.
    if dims.iter().zip(&extents).any(|(p, n)| *n == 1 && p.interior > 0) {
        let dims =
            dims.iter().zip(&extents).map(|(p, n)| PadDim { interior: if *n == 1 { 0 } else { p.interior }, ..*p });
        return Step::node(Op::Pad(dims.collect()), c.operands.iter().copied());
    }
    let Op::Pad(inner) = c.operand_op(0) else { return None };
    let operands = c.inner(0);
    if operands[1] != c.operands[1] {
        return None;
    }
    let mut both: DimVec<PadDim> = DimVec::new();
    for (i, o) in inner.iter().zip(dims) {
        let pitch = o.interior.checked_add(1)?;
        both.push(PadDim {
            low: i.low.checked_mul(pitch)?.checked_add(o.low)?,
            high: i.high.checked_mul(pitch)?.checked_add(o.high)?,
            interior: i.interior.checked_add(1)?.checked_mul(pitch)? - 1,
        });
    }
    Step::node(Op::Pad(both), operands)
}

/// A reduction over nothing, or over dims of one element, moves elements only, but that a sum of floats starts at 0.0 and so has
/// no -0.0: that is `x + 0.0`.
fn reduce(c: &Candidate<'_>, op: ReduceOp, dims: &[usize]) -> Option<Step> {
    if !dims.iter().all(|&d| c.operand_ty(0).shape.dim(d).is_one()) {
        return None;
    }
    let shape = &c.ty.shape;
    match op {
        ReduceOp::Sum if c.ty.dtype.is_float() && dims.is_empty() => {
            let zero = Op::Constant { value: Literal::zero(c.ty.dtype), shape: shape.clone() };
            let others = [c.operands[0]].into_iter().collect();
            let sum = Outer { op: Op::Binary(BinaryOp::Add), others, at: 1 };
            Some(Step::Chain((zero, Operands::new()), Box::new(sum)))
        }
        ReduceOp::Sum if c.ty.dtype.is_float() => {
            let sum = Op::Reduce { op, dims: DimVec::new(), acc: c.ty.dtype };
            Step::chain(Op::Reshape(shape.clone()), [c.operands[0]], sum)
        }
        ReduceOp::Sum | ReduceOp::Prod | ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin => {
            Step::node(Op::Reshape(shape.clone()), [c.operands[0]])
        }
        ReduceOp::ArgMax | ReduceOp::ArgMin => Step::constant(Literal::I64(0), shape),
    }
}
