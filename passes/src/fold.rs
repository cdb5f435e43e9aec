//! Values known at compile time: operations on splats, and values without elements, become splats.
//!
//! Arithmetic is the reference's: floats in `f64`, rounded once to the dtype; integers exactly. A sum of a splat stays where
//! its rounding would depend on the order of summation.

use crate::simplify::{Candidate, Step};
use lazuli_ir::{BinaryOp, CompareOp, Literal, Op, ReduceOp, UnaryOp};

/// A rule of this file that fits.
pub(crate) fn rule(c: &Candidate<'_>) -> Option<Step> {
    if c.ty.shape.is_empty() && !matches!(c.op, Op::Constant { .. }) {
        return Step::constant(Literal::zero(c.ty.dtype), &c.ty.shape);
    }
    let shape = &c.ty.shape;
    match c.op {
        Op::Input { .. } | Op::Constant { .. } | Op::Random { .. } => None,
        Op::Iota { dim, .. } if shape.dim(*dim).is_one() => Step::constant(Literal::I64(0), shape),
        Op::Iota { .. } => None,
        Op::Alias | Op::Detach => Some(Step::Use(c.operands[0])),
        Op::Unary(op) => Step::constant(unary(*op, c.splat(0)?), shape),
        Op::Binary(op) => Step::constant(binary(*op, c.splat(0)?, c.splat(1)?), shape),
        Op::Compare(op) => Step::constant(Literal::Bool(compare(*op, c.splat(0)?, c.splat(1)?)), shape),
        Op::Select => Some(Step::Use(if c.splat(0)? == Literal::Bool(true) { c.operands[1] } else { c.operands[2] })),
        Op::Cast(dtype) => Step::constant(c.splat(0)?.cast(*dtype), shape),
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) => Step::constant(c.splat(0)?, shape),
        Op::Pad(_) if c.operand_ty(0).shape.is_empty() => {
            Step::node(Op::Broadcast { shape: shape.clone(), dims: [].into_iter().collect() }, [c.operands[1]])
        }
        Op::Pad(_) => {
            let value = c.splat(0)?;
            if c.splat(1)? == value { Step::constant(value, shape) } else { None }
        }
        Op::Reduce { op, .. } => reduce(c, *op),
        Op::Dot { dims, .. } => {
            let nothing = dims.contract.iter().any(|&(l, _)| c.operand_ty(0).shape.dim(l).is_zero());
            if nothing { Step::constant(Literal::zero(c.ty.dtype), shape) } else { None }
        }
    }
}

fn reduce(c: &Candidate<'_>, op: ReduceOp) -> Option<Step> {
    let (shape, operand) = (&c.ty.shape, &c.operand_ty(0).shape);
    match op {
        ReduceOp::Sum if operand.is_empty() => Step::constant(Literal::zero(c.ty.dtype), shape),
        ReduceOp::Sum => match c.splat(0)? {
            Literal::I64(v) => {
                let count = (operand.elements() / shape.elements()) as i64;
                Step::constant(Literal::I64(v.wrapping_mul(count)), shape)
            }
            zero if zero == Literal::zero(c.ty.dtype) => Step::constant(zero, shape),
            Literal::F32(_) | Literal::Bool(_) => None,
        },
        ReduceOp::Max => Step::constant(c.splat(0)?, shape),
        ReduceOp::ArgMax => c.splat(0).and_then(|_| Step::constant(Literal::I64(0), shape)),
    }
}

fn unary(op: UnaryOp, x: Literal) -> Literal {
    let row = op.row();
    match x {
        Literal::F32(v) => float((row.float)(f64::from(v))),
        Literal::I64(v) => Literal::I64((row.int)(v)),
        // No unary operation takes booleans; the meaning on integers 0 and 1 is what one would have.
        Literal::Bool(v) => Literal::Bool((row.int)(i64::from(v)) != 0),
    }
}

fn binary(op: BinaryOp, a: Literal, b: Literal) -> Literal {
    match (a, b) {
        (Literal::F32(a), Literal::F32(b)) => float(op.float(f64::from(a), f64::from(b))),
        (a, b) => Literal::from_i64(a.dtype(), op.int(integer(a), integer(b))),
    }
}

/// Rounded once. A NaN loses sign and payload, which differ between machines.
fn float(v: f64) -> Literal {
    Literal::F32(if v.is_nan() { f32::NAN } else { v as f32 })
}

fn compare(op: CompareOp, a: Literal, b: Literal) -> bool {
    match (a, b) {
        (Literal::F32(a), Literal::F32(b)) => op.holds(a, b),
        (a, b) => op.holds(integer(a), integer(b)),
    }
}

fn integer(x: Literal) -> i64 {
    match x {
        Literal::Bool(v) => i64::from(v),
        Literal::I64(v) => v,
        Literal::F32(v) => v as i64,
    }
}
