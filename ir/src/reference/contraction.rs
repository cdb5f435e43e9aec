//! Reductions and contractions of the reference evaluator: sums in `f64`, rounded once.

use super::apply::{gather, mixed};
use super::dense::{Data, Dense};
use super::rounding::{Lost, Rounding};
use crate::{BinaryOp, CompareOp, DimVec, DotDims, Layout, ReduceOp, Result, TensorType, WindowDim};

/// The operand's elements with the reduced dims last, and how many there are for each element of the result.
pub(super) fn groups(dims: &[usize], x: &Dense) -> (Data, usize) {
    let shape = &x.ty().shape;
    let kept = (0..shape.rank()).filter(|d| !dims.contains(d));
    let order: DimVec<usize> = kept.chain(dims.iter().copied()).collect();
    let count = dims.iter().map(|&d| shape.dim(d).known().unwrap_or(1)).product();
    (gather(x, &Layout::contiguous(shape.clone()).permute(&order)), count)
}

/// `op` over `dims` of `x`; `ty` is the result's type.
pub(super) fn reduce(op: ReduceOp, dims: &[usize], x: &Dense, ty: &TensorType, rounding: &mut dyn Rounding) -> Data {
    let (data, count) = groups(dims, x);
    let n = ty.shape.elements();
    // Of nothing, only the sum has a value: the type rule refuses the others, unless there is no result either.
    let group = |i: usize| i * count..(i + 1) * count;
    match op {
        ReduceOp::Sum => match data {
            Data::Float(v) => {
                Data::Float((0..n).map(|i| rounding.sum(ty.dtype, &mut v[group(i)].iter().copied(), false)).collect())
            }
            Data::Int(v) => {
                let sum = |i: usize| v[group(i)].iter().fold(0i64, |a, b| a.wrapping_add(*b));
                Data::Int((0..n).map(|i| ty.dtype.wrap(sum(i))).collect())
            }
            Data::Bool(v) => Data::Int((0..n).map(|i| v[group(i)].iter().filter(|b| **b).count() as i64).collect()),
        },
        ReduceOp::Prod => match data {
            Data::Float(v) => {
                Data::Float((0..n).map(|i| rounding.product(ty.dtype, &mut v[group(i)].iter().copied())).collect())
            }
            Data::Int(v) => {
                let product = |i: usize| v[group(i)].iter().fold(1i64, |a, b| a.wrapping_mul(*b));
                Data::Int((0..n).map(|i| ty.dtype.wrap(product(i))).collect())
            }
            Data::Bool(v) => Data::Int((0..n).map(|i| i64::from(v[group(i)].iter().all(|b| *b))).collect()),
        },
        ReduceOp::Max | ReduceOp::Amax => match data {
            Data::Float(v) => Data::Float((0..n).map(|i| extreme(BinaryOp::Max, &v[group(i)], rounding)).collect()),
            Data::Int(v) => Data::Int((0..n).map(|i| v[group(i)].iter().copied().max().unwrap_or(i64::MIN)).collect()),
            Data::Bool(v) => Data::Bool((0..n).map(|i| v[group(i)].contains(&true)).collect()),
        },
        ReduceOp::Min | ReduceOp::Amin => match data {
            Data::Float(v) => Data::Float((0..n).map(|i| extreme(BinaryOp::Min, &v[group(i)], rounding)).collect()),
            Data::Int(v) => Data::Int((0..n).map(|i| v[group(i)].iter().copied().min().unwrap_or(i64::MAX)).collect()),
            Data::Bool(v) => Data::Bool((0..n).map(|i| !v[group(i)].contains(&false)).collect()),
        },
        ReduceOp::ArgMax | ReduceOp::ArgMin => {
            let beats = if op == ReduceOp::ArgMax { CompareOp::Gt } else { CompareOp::Lt };
            Data::Int(match data {
                Data::Float(v) => (0..n).map(|i| first(beats, &v[group(i)])).collect(),
                Data::Int(v) => (0..n).map(|i| first(beats, &v[group(i)])).collect(),
                Data::Bool(v) => (0..n).map(|i| first(beats, &v[group(i)])).collect(),
            })
        }
    }
}

/// Each element of the result as the sum of its places in all windows.
pub(super) fn window_sum(dims: &[WindowDim], x: &Dense, ty: &TensorType, rounding: &mut dyn Rounding) -> Result<Data> {
    // Where each element of a window comes from.
    let from: Vec<i64> = Layout::contiguous(ty.shape.clone()).window(dims).numbers().collect();
    let n = ty.shape.elements();
    match x.data() {
        Data::Float(v) => {
            let mut terms: Vec<Vec<f64>> = vec![Vec::new(); n];
            from.iter().zip(v).for_each(|(i, x)| terms[*i as usize].push(*x));
            let sums = terms.iter().map(|t| rounding.sum(ty.dtype, &mut t.iter().copied(), false));
            Ok(Data::Float(sums.collect()))
        }
        Data::Int(v) => {
            let mut sums = vec![0i64; n];
            from.iter().zip(v).for_each(|(i, x)| sums[*i as usize] = sums[*i as usize].wrapping_add(*x));
            Ok(Data::Int(sums.into_iter().map(|s| ty.dtype.wrap(s)).collect()))
        }
        Data::Bool(_) => Err(mixed("window_sum")),
    }
}

/// The largest (or smallest) of floats. Of zeros of both signs either may come out: which is met first depends on the order.
fn extreme(op: BinaryOp, v: &[f64], rounding: &mut dyn Rounding) -> f64 {
    let nothing = if op == BinaryOp::Max { f64::NEG_INFINITY } else { f64::INFINITY };
    let result = v.iter().fold(nothing, |a, &b| op.float(a, b));
    let other = |x: &f64| *x == 0.0 && x.is_sign_negative() != result.is_sign_negative();
    if result == 0.0 && v.iter().any(other) { rounding.either(result, -result) } else { result }
}

/// The position of the first element that none beats, or of the first that does not equal itself.
fn first<T: PartialOrd + Copy>(beats: CompareOp, v: &[T]) -> i64 {
    let is_nan = |x: T| CompareOp::Ne.holds(x, x);
    let mut best = 0;
    for (i, &x) in v.iter().enumerate().skip(1) {
        if !is_nan(v[best]) && (beats.holds(x, v[best]) || is_nan(x)) {
            best = i;
        }
    }
    best as i64
}

/// One operand of a contraction with its dims ordered (batch, free, contracted), and the extents of these three.
fn operand(dims: &DotDims, x: &Dense, right: bool) -> (Data, [usize; 3]) {
    let pick = |&(l, r): &(usize, usize)| if right { r } else { l };
    let shape = &x.ty().shape;
    let parts: [DimVec<usize>; 3] = [
        dims.batch.iter().map(pick).collect(),
        dims.free(right, shape.rank()),
        dims.contract.iter().map(pick).collect(),
    ];
    let extents = [0, 1, 2].map(|k| parts[k].iter().map(|&d| shape.dim(d).known().unwrap_or(1)).product());
    let order: DimVec<usize> = parts.into_iter().flatten().collect();
    (gather(x, &Layout::contiguous(shape.clone()).permute(&order)), extents)
}

/// A product, exact for operands of at most 32 bits. One of finite numbers that is beyond the range of `f64` is two of the largest:
/// they sum to the infinity, and tell it from that of an operand, since a fused multiply-add would not overflow.
fn product(a: f64, b: f64, lost: Lost) -> impl Iterator<Item = f64> {
    let exact = lost.product(a, b);
    let overflows = exact.is_infinite() && a.is_finite() && b.is_finite();
    let term = if overflows { f64::MAX.copysign(exact) } else { exact };
    std::iter::repeat_n(term, if overflows { 2 } else { 1 })
}

/// A batched contraction; `ty` is the result's type.
pub(super) fn dot(dims: &DotDims, a: &Dense, b: &Dense, ty: &TensorType, rounding: &mut dyn Rounding) -> Result<Data> {
    let (a, [batch, rows, k]) = operand(dims, a, false);
    let (b, [_, columns, _]) = operand(dims, b, true);
    let mut cells = Vec::with_capacity(ty.shape.elements());
    for z in 0..batch {
        for i in 0..rows {
            cells.extend((0..columns).map(|j| ((z * rows + i) * k, (z * columns + j) * k)));
        }
    }
    match (&a, &b) {
        (Data::Float(a), Data::Float(b)) => {
            let lost = rounding.lost();
            let cell = |&(l, r): &(usize, usize)| {
                let mut terms = a[l..l + k].iter().zip(&b[r..r + k]).flat_map(|(a, b)| product(*a, *b, lost));
                rounding.sum(ty.dtype, &mut terms, true)
            };
            Ok(Data::Float(cells.iter().map(cell).collect()))
        }
        (Data::Int(a), Data::Int(b)) => {
            let cell = |&(l, r): &(usize, usize)| {
                let terms = a[l..l + k].iter().zip(&b[r..r + k]);
                ty.dtype.wrap(terms.fold(0i64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b))))
            };
            Ok(Data::Int(cells.iter().map(cell).collect()))
        }
        (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => Err(mixed("dot")),
    }
}
