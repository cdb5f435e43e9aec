//! The derivative of each primitive: a table of calculus, and what each entry reads.
//!
//! [`gradient`] gives, for the result's cotangent `dy`, the cotangent of one operand. Rules are made of primitives that have
//! rules themselves, so gradients differentiate again. [`reads_for`] declares which operand *values* and whether the result
//! *value* a rule uses (shapes do not count): a caller that keeps history keeps exactly that.
//!
//! Where a function has a kink, its gradient is PyTorch's: `abs` gives 0 at 0, `max` and `min` of two tensors share equally
//! between equal elements, a maximum over dims goes to the first largest element alone.

use crate::expr::{Builder, Expr};
use lazuli_ir::{
    BinaryOp, CompareOp, CumulativeOp, DimVec, DotDims, Literal, Op, PadDim, ReduceOp, ScatterOp, Shape, SliceDim,
    TensorType, UnaryOp, Value,
};
use std::f64::consts::{FRAC_2_SQRT_PI, LN_2, LN_10};

/// What a gradient rule reads of the node it differentiates, besides the cotangent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reads {
    /// Bit `i` is set where the value of operand `i` is read.
    pub operands: u64,
    /// Whether the value of the result is read.
    pub result: bool,
}

impl Reads {
    const NOTHING: Reads = Reads { operands: 0, result: false };
    const RESULT: Reads = Reads { operands: 0, result: true };
    const ALL: Reads = Reads { operands: 0b11, result: true };

    const fn operands(positions: u64) -> Reads {
        Reads { operands: positions, result: false }
    }

    /// What either reads.
    pub fn union(self, other: Reads) -> Reads {
        Reads { operands: self.operands | other.operands, result: self.result || other.result }
    }
}

/// What the gradients of all operands of `op` read.
pub fn vjp_reads(op: &Op) -> Reads {
    (0..op.arity()).map(|i| reads_for(op, i)).fold(Reads::NOTHING, Reads::union)
}

/// What the gradient of operand `i` of `op` reads: a caller that needs only some gradients keeps less.
pub fn reads_for(op: &Op, i: usize) -> Reads {
    match op {
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => Reads::NOTHING,
        Op::Alias | Op::Detach | Op::ToDevice { .. } | Op::Compare(_) | Op::Cast(_) => Reads::NOTHING,
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => Reads::NOTHING,
        Op::Unary(op) => match op {
            UnaryOp::Neg | UnaryOp::Sign | UnaryOp::Not => Reads::NOTHING,
            UnaryOp::Ceil | UnaryOp::Floor | UnaryOp::Trunc | UnaryOp::Round => Reads::NOTHING,
            UnaryOp::Abs | UnaryOp::Log | UnaryOp::Log2 | UnaryOp::Log10 | UnaryOp::Log1p => Reads::operands(0b1),
            UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Asin | UnaryOp::Acos | UnaryOp::Atan => Reads::operands(0b1),
            UnaryOp::Sinh | UnaryOp::Cosh | UnaryOp::Asinh | UnaryOp::Acosh | UnaryOp::Atanh => Reads::operands(0b1),
            UnaryOp::Erf | UnaryOp::Erfc => Reads::operands(0b1),
            UnaryOp::Exp | UnaryOp::Exp2 | UnaryOp::Expm1 | UnaryOp::Sqrt | UnaryOp::Rsqrt => Reads::RESULT,
            UnaryOp::Tan | UnaryOp::Tanh | UnaryOp::Sigmoid | UnaryOp::Reciprocal => Reads::RESULT,
        },
        Op::Binary(op) => match (op, i) {
            (BinaryOp::Add | BinaryOp::Sub, _) => Reads::NOTHING,
            (BinaryOp::Mul, 0) => Reads::operands(0b10),
            (BinaryOp::Mul, _) => Reads::operands(0b01),
            (BinaryOp::Div, 0) => Reads::operands(0b10),
            (BinaryOp::Div, _) => Reads { operands: 0b10, result: true },
            (BinaryOp::Max | BinaryOp::Min | BinaryOp::Atan2, _) => Reads::operands(0b11),
            (BinaryOp::Pow, 0) => Reads::operands(0b11),
            (BinaryOp::Pow, _) => Reads::ALL,
            (BinaryOp::Remainder | BinaryOp::Fmod, 0) => Reads::NOTHING,
            (BinaryOp::Remainder | BinaryOp::Fmod, _) => Reads::operands(0b11),
            (BinaryOp::Hypot, 0) => Reads { operands: 0b01, result: true },
            (BinaryOp::Hypot, _) => Reads { operands: 0b10, result: true },
            (BinaryOp::Copysign, 0) => Reads { operands: 0b01, result: true },
            (BinaryOp::Copysign | BinaryOp::FloorDiv | BinaryOp::TruncDiv, _) => Reads::NOTHING,
            (BinaryOp::And | BinaryOp::Or | BinaryOp::Xor, _) => Reads::NOTHING,
            (BinaryOp::ShiftLeft | BinaryOp::ShiftRight, _) => Reads::NOTHING,
        },
        Op::Select if i == 0 => Reads::NOTHING,
        Op::Select => Reads::operands(0b1),
        Op::Reduce { op, .. } => match op {
            ReduceOp::Sum | ReduceOp::ArgMax | ReduceOp::ArgMin => Reads::NOTHING,
            ReduceOp::Prod | ReduceOp::Max | ReduceOp::Min => Reads::operands(0b1),
            ReduceOp::Amax | ReduceOp::Amin => Reads { operands: 0b1, result: true },
        },
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } => Reads::NOTHING,
        Op::CheckIndex { .. } | Op::Sort { .. } => Reads::NOTHING,
        // The starts.
        Op::DynamicSlice(sizes) => Reads::operands(((1 << sizes.len()) - 1) << 1),
        Op::DynamicUpdateSlice { rank } => Reads::operands(((1 << rank) - 1) << 2),
        Op::Gather { .. } => Reads::operands(0b10),
        Op::Scatter { op, .. } => match (op, i) {
            (ScatterOp::Set, _) | (ScatterOp::Add, 1..) => Reads::operands(0b10),
            (ScatterOp::Add, 0) => Reads::NOTHING,
            (ScatterOp::Mul, 0) => Reads::operands(0b110),
            (ScatterOp::Mul, _) => Reads { operands: 0b110, result: true },
            (ScatterOp::Max | ScatterOp::Min, _) => Reads { operands: 0b111, result: true },
        },
        Op::Cumulative { op, .. } => match op {
            CumulativeOp::Sum => Reads::NOTHING,
            CumulativeOp::Prod | CumulativeOp::Max | CumulativeOp::Min => Reads { operands: 0b1, result: true },
        },
        Op::Dot { .. } => Reads::operands(if i == 0 { 0b10 } else { 0b01 }),
    }
}

/// The node that a rule differentiates.
pub(crate) struct Primal<'a> {
    /// Its operation.
    pub(crate) op: &'a Op,
    /// Its operands.
    pub(crate) operands: &'a [Value],
    /// Its result.
    pub(crate) result: Value,
}

/// The cotangent of operand `i` of `primal`, where `dy` is the cotangent of its result; `None` where it is zero by rule.
pub(crate) fn gradient<'b>(b: &'b Builder, primal: &Primal<'_>, i: usize, dy: Expr<'b>) -> Option<Expr<'b>> {
    let (x, y) = (|i: usize| b.value(primal.operands[i]), b.value(primal.result));
    match primal.op {
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
        Op::Detach | Op::Compare(_) => None,
        Op::Alias => Some(dy),
        Op::ToDevice { from, to } => Some(dy.to_device(*to, *from)),
        Op::Unary(op) => {
            let dtype = dy.ty().dtype;
            let [x, y, dy] = widened([x(0), y, dy], [reads_for(primal.op, i).operands & 1 != 0, true, true]);
            Some(unary(*op, x, y, dy).to(dtype))
        }
        Op::Binary(op) => {
            let (dtype, reads) = (dy.ty().dtype, reads_for(primal.op, i));
            let read = [reads.operands & 1 != 0, reads.operands & 2 != 0, reads.result];
            let [a, b, y] = widened([x(0), x(1), y], read);
            Some(binary(*op, i, a, b, y, dy.wide()).to(dtype))
        }
        Op::Select => match i {
            0 => None,
            1 => Some(x(0).select(dy, dy.zeros())),
            _ => Some(x(0).select(dy.zeros(), dy)),
        },
        Op::Cast(to) => {
            let from = x(0).ty().dtype;
            (from.is_float() && to.is_float()).then(|| dy.cast(from))
        }
        Op::Permute(perm) => Some(dy.permute(inverse(perm))),
        Op::Reshape(_) => Some(dy.reshape(x(0).ty().shape)),
        Op::Broadcast { shape, dims } => Some(unbroadcast(&x(0).ty().shape, shape, dims, dy)),
        Op::Slice(dims) => {
            let padding = dims.iter().zip(x(0).ty().shape.extents()).map(|(s, n)| unslice(*s, n)).collect();
            Some(dy.pad(padding, b.constant(Literal::zero(dy.ty().dtype), Shape::scalar())))
        }
        Op::Pad(dims) => Some(pad(b, dims, x(0).ty(), i, dy)),
        Op::Reduce { op, dims, .. } => match op {
            ReduceOp::Sum => Some(unreduce(&x(0).ty().shape, dims, dy)),
            ReduceOp::Prod => Some(prod(x(0), dims, dy)),
            ReduceOp::Max => Some(winner(ReduceOp::ArgMax, x(0), dims, dy)),
            ReduceOp::Min => Some(winner(ReduceOp::ArgMin, x(0), dims, dy)),
            ReduceOp::Amax | ReduceOp::Amin => Some(shared(x(0), y, dims, dy)),
            ReduceOp::ArgMax | ReduceOp::ArgMin => None,
        },
        Op::Flip(_) => Some(dy.apply(primal.op.clone(), &[])),
        Op::Concat { dim, .. } => {
            let extent = |i: usize| x(i).ty().shape.extents()[*dim];
            let start: usize = (0..i).map(extent).sum();
            let whole = |(d, n): (usize, usize)| match d == *dim {
                true => SliceDim { start, stop: start + extent(i), step: 1 },
                false => SliceDim { start: 0, stop: n, step: 1 },
            };
            Some(dy.slice(dy.ty().shape.extents().into_iter().enumerate().map(whole).collect()))
        }
        Op::Window(dims) => {
            let (dtype, shape) = (dy.ty().dtype, x(0).ty().shape);
            Some(dy.wide().window_sum(dims, shape).to(dtype))
        }
        Op::WindowSum { dims, .. } => Some(dy.apply(Op::Window(dims.clone()), &[])),
        Op::DynamicSlice(_) => {
            let starts: Vec<Expr<'b>> = (1..primal.operands.len()).map(x).collect();
            let others: Vec<Expr<'b>> = std::iter::once(dy).chain(starts).collect();
            let rank = x(0).ty().shape.rank();
            (i == 0).then(|| x(0).zeros().apply(Op::DynamicUpdateSlice { rank }, &others))
        }
        Op::DynamicUpdateSlice { .. } => {
            let starts: Vec<Expr<'b>> = (2..primal.operands.len()).map(x).collect();
            match i {
                0 => {
                    let others: Vec<Expr<'b>> = std::iter::once(x(1).zeros()).chain(starts).collect();
                    Some(dy.apply(primal.op.clone(), &others))
                }
                1 => Some(dy.apply(Op::DynamicSlice(x(1).ty().shape.extents()), &starts)),
                _ => None,
            }
        }
        Op::CheckIndex { .. } | Op::Sort { .. } => None,
        Op::Gather { dim } => (i == 0).then(|| x(0).zeros().scatter(*dim, ScatterOp::Add, x(1), dy)),
        Op::Scatter { dim, op } => match i {
            1 => None,
            _ => Some(scatter(*dim, *op, i, [x(0), x(1), x(2)], y, dy)),
        },
        Op::Cumulative { op, dim, reverse } => Some(cumulative(*op, *dim, *reverse, x(0), y, dy)),
        Op::Dot { dims, .. } => Some(dot(dims, i, x(0), x(1), dy)),
    }
}

fn unary<'b>(op: UnaryOp, x: Expr<'b>, y: Expr<'b>, dy: Expr<'b>) -> Expr<'b> {
    match op {
        UnaryOp::Neg => -dy,
        UnaryOp::Abs => dy * x.sign(),
        UnaryOp::Exp => dy * y,
        UnaryOp::Log => dy / x,
        UnaryOp::Sqrt => dy / (y + y),
        UnaryOp::Rsqrt => dy * -0.5 * (y * y * y),
        UnaryOp::Tanh => dy * (1.0 - y * y),
        UnaryOp::Reciprocal => -(dy * (y * y)),
        UnaryOp::Sign | UnaryOp::Not => dy.zeros(),
        UnaryOp::Ceil | UnaryOp::Floor | UnaryOp::Trunc | UnaryOp::Round => dy.zeros(),
        UnaryOp::Exp2 => dy * (y * LN_2),
        UnaryOp::Expm1 => dy * (y + 1.0),
        UnaryOp::Log2 => dy / (x * LN_2),
        UnaryOp::Log10 => dy / (x * LN_10),
        UnaryOp::Log1p => dy / (x + 1.0),
        UnaryOp::Sin => dy * x.unary(UnaryOp::Cos),
        UnaryOp::Cos => -(dy * x.unary(UnaryOp::Sin)),
        UnaryOp::Tan => dy * (y * y + 1.0),
        // Factors, not `1 - x * x`, which loses the digits of what is near 1.
        UnaryOp::Asin => dy * ((1.0 - x) * (x + 1.0)).unary(UnaryOp::Rsqrt),
        UnaryOp::Acos => -(dy * ((1.0 - x) * (x + 1.0)).unary(UnaryOp::Rsqrt)),
        UnaryOp::Atan => dy / (x * x + 1.0),
        UnaryOp::Sinh => dy * x.unary(UnaryOp::Cosh),
        UnaryOp::Cosh => dy * x.unary(UnaryOp::Sinh),
        UnaryOp::Asinh => dy * (x * x + 1.0).unary(UnaryOp::Rsqrt),
        UnaryOp::Acosh => dy * ((x - 1.0) * (x + 1.0)).unary(UnaryOp::Rsqrt),
        UnaryOp::Atanh => dy / ((1.0 - x) * (x + 1.0)),
        UnaryOp::Erf => dy * ((-(x * x)).unary(UnaryOp::Exp) * FRAC_2_SQRT_PI),
        UnaryOp::Erfc => -(dy * ((-(x * x)).unary(UnaryOp::Exp) * FRAC_2_SQRT_PI)),
        UnaryOp::Sigmoid => dy * ((1.0 - y) * y),
    }
}

fn binary<'b>(op: BinaryOp, i: usize, a: Expr<'b>, b: Expr<'b>, y: Expr<'b>, dy: Expr<'b>) -> Expr<'b> {
    match (op, i) {
        (BinaryOp::Add, _) => dy,
        (BinaryOp::Sub, 0) => dy,
        (BinaryOp::Sub, _) => -dy,
        (BinaryOp::Mul, 0) => dy * b,
        (BinaryOp::Mul, _) => dy * a,
        (BinaryOp::Div, 0) => dy / b,
        (BinaryOp::Div, _) => -(dy / b * y),
        (BinaryOp::Max, 0) => extremum(a, b, CompareOp::Lt, dy),
        (BinaryOp::Max, _) => extremum(a, b, CompareOp::Gt, dy),
        (BinaryOp::Min, 0) => extremum(a, b, CompareOp::Gt, dy),
        (BinaryOp::Min, _) => extremum(a, b, CompareOp::Lt, dy),
        // x^0 is 1 everywhere, at 0 and infinity too.
        (BinaryOp::Pow, 0) => {
            let slope = dy * (b * a.binary(BinaryOp::Pow, b - 1.0));
            b.compare(CompareOp::Eq, b.zeros()).select(dy.zeros(), slope)
        }
        (BinaryOp::Pow, _) => {
            let constant = a.compare(CompareOp::Eq, a.zeros()).and(b.compare(CompareOp::Ge, b.zeros()));
            constant.select(dy.zeros(), dy * (y * a.unary(UnaryOp::Log)))
        }
        (BinaryOp::Remainder | BinaryOp::Fmod, 0) => dy,
        (BinaryOp::Remainder, _) => -(dy * a.binary(BinaryOp::FloorDiv, b)),
        (BinaryOp::Fmod, _) => -(dy * (a / b).unary(UnaryOp::Trunc)),
        (BinaryOp::Atan2, 0) => dy * (b / (a * a + b * b)),
        (BinaryOp::Atan2, _) => -(dy * (a / (a * a + b * b))),
        (BinaryOp::Hypot, 0) => dy * (a / y),
        (BinaryOp::Hypot, _) => dy * (b / y),
        // At 0 neither sign is nearer.
        (BinaryOp::Copysign, 0) => a.compare(CompareOp::Eq, a.zeros()).select(dy.zeros(), dy * (y / a)),
        (BinaryOp::Copysign | BinaryOp::FloorDiv | BinaryOp::TruncDiv, _) => dy.zeros(),
        (BinaryOp::And | BinaryOp::Or | BinaryOp::Xor, _) => dy.zeros(),
        (BinaryOp::ShiftLeft | BinaryOp::ShiftRight, _) => dy.zeros(),
    }
}

/// Those values that a rule reads, halves among them as `f32`.
fn widened<'b>(values: [Expr<'b>; 3], read: [bool; 3]) -> [Expr<'b>; 3] {
    let mut out = values;
    for (v, read) in out.iter_mut().zip(read) {
        if read {
            *v = v.wide();
        }
    }
    out
}

/// The product of all others, each; where one element is 0 only that one has any, where two are, none.
fn prod<'b>(x: Expr<'b>, dims: &DimVec<usize>, dy: Expr<'b>) -> Expr<'b> {
    let shape = x.ty().shape;
    let zero = x.compare(CompareOp::Eq, x.zeros());
    let others = zero.select(x.splat(1.0), x);
    let product = unreduce(&shape, dims, dy * others.reduce(ReduceOp::Prod, dims.clone()));
    let zeros = unreduce(&shape, dims, zero.cast(x.ty().dtype).reduce(ReduceOp::Sum, dims.clone()));
    let single = zeros.compare(CompareOp::Eq, x.splat(1.0)).and(zero);
    let rest = single.select(product, x.zeros());
    zeros.compare(CompareOp::Eq, x.zeros()).select(product / others, rest)
}

/// All elements equal to the result share.
fn shared<'b>(x: Expr<'b>, y: Expr<'b>, dims: &DimVec<usize>, dy: Expr<'b>) -> Expr<'b> {
    let (shape, dtype) = (x.ty().shape, x.ty().dtype);
    let result = unreduce(&shape, dims, y);
    let both_nan = x.compare(CompareOp::Ne, x).and(result.compare(CompareOp::Ne, result));
    let wins = x.compare(CompareOp::Eq, result).or(both_nan);
    let dy = dy.wide();
    let count = wins.cast(dy.ty().dtype).reduce(ReduceOp::Sum, dims.clone());
    let share = unreduce(&shape, dims, dy / count);
    wins.select(share, share.zeros()).to(dtype)
}

/// The gradient of operand `i`, 0 or 2, of a scatter.
fn scatter<'b>(dim: usize, op: ScatterOp, i: usize, x: [Expr<'b>; 3], y: Expr<'b>, dy: Expr<'b>) -> Expr<'b> {
    let [base, index, updates] = x;
    match (op, i) {
        (ScatterOp::Set, 0) => dy.scatter(dim, ScatterOp::Set, index, dy.zeros().gather(dim, index)),
        (ScatterOp::Set | ScatterOp::Add, _) if i == 2 => dy.gather(dim, index),
        (ScatterOp::Set | ScatterOp::Add, _) => dy,
        (ScatterOp::Mul, 0) => dy * dy.splat(1.0).scatter(dim, ScatterOp::Mul, index, updates),
        (ScatterOp::Mul, _) => (dy * y).gather(dim, index) / updates,
        (ScatterOp::Max | ScatterOp::Min, _) => {
            let ones = |mask: Expr<'b>| mask.cast(dy.ty().dtype);
            let kept = ones(base.compare(CompareOp::Eq, y));
            let came = ones(updates.compare(CompareOp::Eq, y.gather(dim, index)));
            let share = dy / kept.scatter(dim, ScatterOp::Add, index, came);
            if i == 0 { share * kept } else { share.gather(dim, index) * came }
        }
    }
}

/// Each element counts in all results from it on.
fn cumulative<'b>(op: CumulativeOp, dim: usize, reverse: bool, x: Expr<'b>, y: Expr<'b>, dy: Expr<'b>) -> Expr<'b> {
    let back = |v: Expr<'b>| v.cumulative(CumulativeOp::Sum, dim, !reverse);
    match op {
        CumulativeOp::Sum => back(dy),
        CumulativeOp::Prod => {
            // Up to the first 0 the others' product is the result over the element; at it, the product without it; from there on
            // results are 0 whatever an element is.
            let zero = x.compare(CompareOp::Eq, x.zeros());
            let zeros = zero.cast(x.ty().dtype).cumulative(CumulativeOp::Sum, dim, reverse);
            let first = zeros.compare(CompareOp::Eq, x.splat(1.0)).and(zero);
            let without = first.select(x.splat(1.0), x).cumulative(CumulativeOp::Prod, dim, reverse);
            let before = zeros.compare(CompareOp::Eq, x.zeros());
            before.select(back(dy * y) / x, first.select(back(dy * without), dy.zeros()))
        }
        // The last element that equals the result so far has it all.
        CumulativeOp::Max | CumulativeOp::Min => {
            let both_nan = x.compare(CompareOp::Ne, x).and(y.compare(CompareOp::Ne, y));
            let leads = x.compare(CompareOp::Eq, y).or(both_nan);
            let position = x.iota(dim);
            let (nowhere, latest) = if reverse {
                (position.splat((1i64 << 53) as f64), CumulativeOp::Min)
            } else {
                (position.zeros(), CumulativeOp::Max)
            };
            let leader = leads.select(position, nowhere).cumulative(latest, dim, reverse);
            dy.zeros().scatter(dim, ScatterOp::Add, leader, dy)
        }
    }
}

/// Nothing where this operand `loses`, half where both are equal, all otherwise.
fn extremum<'b>(a: Expr<'b>, b: Expr<'b>, loses: CompareOp, dy: Expr<'b>) -> Expr<'b> {
    let shared = a.compare(CompareOp::Eq, b).select(dy * 0.5, dy);
    a.compare(loses, b).select(dy.zeros(), shared)
}

fn inverse(perm: &[usize]) -> DimVec<usize> {
    let mut inverse: DimVec<usize> = perm.iter().map(|_| 0).collect();
    for (i, &p) in perm.iter().enumerate() {
        inverse[p] = i;
    }
    inverse
}

/// The dims of `0..rank` not among `dims`.
fn others(rank: usize, dims: &[usize]) -> DimVec<usize> {
    (0..rank).filter(|d| !dims.contains(d)).collect()
}

/// Sums over what a broadcast of `from` made: new dims and stretched ones.
fn unbroadcast<'b>(from: &Shape, to: &Shape, dims: &[usize], dy: Expr<'b>) -> Expr<'b> {
    let made = |d: usize| match dims.iter().position(|&x| x == d) {
        Some(i) => !from.dim(i).same(to.dim(d)),
        None => !to.dim(d).is_one(),
    };
    dy.sum((0..to.rank()).filter(|&d| made(d)).collect()).reshape(from.clone())
}

/// A reduction's result repeated over the reduced dims.
fn unreduce<'b>(shape: &Shape, dims: &[usize], dy: Expr<'b>) -> Expr<'b> {
    dy.broadcast(shape.clone(), others(shape.rank(), dims))
}

/// The padding that puts a slice back in its place in a dim of `n` elements.
fn unslice(s: SliceDim, n: usize) -> PadDim {
    let taken = match s.extent() {
        0 => 0,
        extent => (extent - 1) * s.step + 1,
    };
    PadDim { low: s.start, high: n - s.start - taken, interior: s.step - 1 }
}

/// Operand 0 has the elements between the padding, the padding's value the sum of all others.
fn pad<'b>(b: &'b Builder, dims: &[PadDim], x: TensorType, i: usize, dy: Expr<'b>) -> Expr<'b> {
    if i == 0 {
        let inner = |(p, n): (&PadDim, usize)| SliceDim {
            start: p.low,
            stop: p.low + if n == 0 { 0 } else { (n - 1) * (p.interior + 1) + 1 },
            step: p.interior + 1,
        };
        return dy.slice(dims.iter().zip(x.shape.extents()).map(inner).collect());
    }
    let (inside, outside) = (Literal::Bool(false), Literal::Bool(true));
    let padding = b.constant(inside, x.shape).pad(dims.into(), b.constant(outside, Shape::scalar()));
    padding.select(dy, dy.zeros()).sum((0..dims.len()).collect())
}

/// The first largest (or smallest) element, or the first NaN, has it all.
fn winner<'b>(position: ReduceOp, x: Expr<'b>, dims: &DimVec<usize>, dy: Expr<'b>) -> Expr<'b> {
    let shape = x.ty().shape;
    let winner = unreduce(&shape, dims, x.reduce(position, dims.clone()));
    let dy = unreduce(&shape, dims, dy);
    x.position(dims).compare(CompareOp::Eq, winner).select(dy, dy.zeros())
}

/// The cotangent contracted with the other operand over that one's free dims, and the dims put back in order.
fn dot<'b>(dims: &DotDims, i: usize, left: Expr<'b>, right: Expr<'b>, dy: Expr<'b>) -> Expr<'b> {
    let (left_rank, right_rank) = (left.ty().shape.rank(), right.ty().shape.rank());
    let (left_free, right_free) = (dims.free(false, left_rank), dims.free(true, right_rank));
    // dy's dims are: batch, left_free, right_free.
    let batch = dims.batch.len();
    let mut contracted = dims.contract.clone();
    if i == 0 {
        let meet = right_free.iter().enumerate().map(|(n, &r)| (batch + left_free.len() + n, r)).collect();
        let same = dims.batch.iter().enumerate().map(|(n, &(_, r))| (n, r)).collect();
        contracted.sort_unstable_by_key(|&(_, r)| r);
        let order: DimVec<usize> =
            dims.batch.iter().map(|p| p.0).chain(left_free).chain(contracted.iter().map(|p| p.0)).collect();
        dy.dot(right, DotDims { batch: same, contract: meet }).permute(inverse(&order))
    } else {
        let meet = left_free.iter().enumerate().map(|(n, &l)| (l, batch + n)).collect();
        let same = dims.batch.iter().enumerate().map(|(n, &(l, _))| (l, n)).collect();
        contracted.sort_unstable_by_key(|&(l, _)| l);
        let order: DimVec<usize> =
            dims.batch.iter().map(|p| p.1).chain(contracted.iter().map(|p| p.1)).chain(right_free).collect();
        left.dot(dy, DotDims { batch: same, contract: meet }).permute(inverse(&order))
    }
}
