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
    BinaryOp, CompareOp, DimVec, DotDims, Literal, Op, PadDim, ReduceOp, Shape, SliceDim, TensorType, UnaryOp, Value,
};

/// What a gradient rule reads of the node it differentiates, besides the cotangent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reads {
    /// Bit `i` is set where the value of operand `i` is read.
    pub operands: u8,
    /// Whether the value of the result is read.
    pub result: bool,
}

impl Reads {
    const NOTHING: Reads = Reads { operands: 0, result: false };
    const RESULT: Reads = Reads { operands: 0, result: true };

    const fn operands(positions: u8) -> Reads {
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
        Op::Alias | Op::Detach | Op::Compare(_) | Op::Cast(_) => Reads::NOTHING,
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => Reads::NOTHING,
        Op::Unary(op) => match op {
            UnaryOp::Neg => Reads::NOTHING,
            UnaryOp::Abs | UnaryOp::Log => Reads::operands(0b1),
            UnaryOp::Exp | UnaryOp::Sqrt | UnaryOp::Rsqrt | UnaryOp::Tanh | UnaryOp::Reciprocal => Reads::RESULT,
        },
        Op::Binary(op) => match (op, i) {
            (BinaryOp::Add | BinaryOp::Sub, _) => Reads::NOTHING,
            (BinaryOp::Mul, 0) => Reads::operands(0b10),
            (BinaryOp::Mul, _) => Reads::operands(0b01),
            (BinaryOp::Div, 0) => Reads::operands(0b10),
            (BinaryOp::Div, _) => Reads { operands: 0b10, result: true },
            (BinaryOp::Max | BinaryOp::Min, _) => Reads::operands(0b11),
        },
        Op::Select if i == 0 => Reads::NOTHING,
        Op::Select => Reads::operands(0b1),
        Op::Reduce { op, .. } => match op {
            ReduceOp::Sum | ReduceOp::ArgMax => Reads::NOTHING,
            ReduceOp::Max => Reads::operands(0b1),
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
        Op::Unary(op) => Some(unary(*op, x(0), y, dy)),
        Op::Binary(op) => Some(binary(*op, i, x(0), x(1), y, dy)),
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
            ReduceOp::Max => Some(max(x(0), dims, dy)),
            ReduceOp::ArgMax => None,
        },
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

/// The first largest element (or the first NaN) has it all.
fn max<'b>(x: Expr<'b>, dims: &DimVec<usize>, dy: Expr<'b>) -> Expr<'b> {
    let shape = x.ty().shape;
    let winner = unreduce(&shape, dims, x.reduce(ReduceOp::ArgMax, dims.clone()));
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
