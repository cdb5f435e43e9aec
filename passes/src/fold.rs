//! Values known at compile time: operations on splats, and values without elements, become splats.
//!
//! Arithmetic is the reference's: floats in `f64`, rounded once to the dtype; integers exactly. A sum of a splat stays where
//! its rounding would depend on the order of summation.

use crate::simplify::{Candidate, Step};
use lazuli_ir::{BinaryOp, CompareOp, DType, Literal, Op, ReduceOp, UnaryOp};

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
        Op::Alias | Op::Detach | Op::ToDevice { .. } => Some(Step::Use(c.operands[0])),
        Op::Unary(op) => Step::constant(unary(*op, c.splat(0)?), shape),
        Op::Binary(op) => Step::constant(binary(*op, c.splat(0)?, c.splat(1)?)?, shape),
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
        Op::Flip(_) | Op::Window(_) => Step::constant(c.splat(0)?, shape),
        Op::Concat { .. } => {
            let value = c.splat(0)?;
            let same = (1..c.operands.len()).all(|i| c.splat(i) == Some(value));
            if same { Step::constant(value, shape) } else { None }
        }
        Op::WindowSum { .. } => {
            let zero = Literal::zero(c.ty.dtype);
            let nothing = c.operand_ty(0).shape.is_empty() || c.splat(0)? == zero;
            if nothing { Step::constant(zero, shape) } else { None }
        }
        Op::Scatter { .. } if c.operand_ty(1).shape.is_empty() => Some(Step::Use(c.operands[0])),
        Op::DynamicUpdateSlice { .. } if c.operand_ty(1).shape.is_empty() => Some(Step::Use(c.operands[0])),
        Op::CheckIndex { extent, wrap, .. } => checked_index(c, *extent, *wrap),
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } => None,
        // What indexes may fail, even where every element is the same.
        Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => None,
        Op::Reduce { op, .. } => reduce(c, *op),
        Op::Dot { dims, .. } => {
            let nothing = dims.contract.iter().any(|&(l, _)| c.operand_ty(0).shape.dim(l).is_zero());
            if nothing { Step::constant(Literal::zero(c.ty.dtype), shape) } else { None }
        }
    }
}

fn reduce(c: &Candidate<'_>, op: ReduceOp) -> Option<Step> {
    let (shape, operand) = (&c.ty.shape, &c.operand_ty(0).shape);
    let (zero, one) = (Literal::zero(c.ty.dtype), Literal::one(c.ty.dtype));
    match op {
        ReduceOp::Sum if operand.is_empty() => Step::constant(zero, shape),
        ReduceOp::Prod if operand.is_empty() => Step::constant(one, shape),
        ReduceOp::Sum => {
            let (splat, count) = (c.splat(0)?, (operand.elements() / shape.elements()) as i64);
            match splat.as_i64() {
                Some(v) => Step::constant(Literal::from_i64(c.ty.dtype, v.wrapping_mul(count)), shape),
                None if splat == zero => Step::constant(zero, shape),
                None => None,
            }
        }
        ReduceOp::Prod => {
            if c.splat(0)? == one {
                Step::constant(one, shape)
            } else {
                None
            }
        }
        ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin => Step::constant(c.splat(0)?, shape),
        ReduceOp::ArgMax | ReduceOp::ArgMin => c.splat(0).and_then(|_| Step::constant(Literal::I64(0), shape)),
    }
}

fn unary(op: UnaryOp, x: Literal) -> Literal {
    let row = op.row();
    match x.as_i64() {
        Some(v) => Literal::from_i64(x.dtype(), (row.int)(v)),
        None => float(x.dtype(), (row.float)(x.as_f64())),
    }
}

/// `None` where an integer is divided by zero: that is an error of the call.
fn binary(op: BinaryOp, a: Literal, b: Literal) -> Option<Literal> {
    let dtype = a.dtype();
    Some(match (a.as_i64(), b.as_i64()) {
        (Some(_), Some(0)) if op.divides() => return None,
        (Some(a), Some(b)) => Literal::from_i64(dtype, op.int(dtype, a, b)),
        _ => float(dtype, op.float(a.as_f64(), b.as_f64())),
    })
}

/// Rounded once. A NaN loses sign and payload, which differ between machines.
fn float(dtype: DType, v: f64) -> Literal {
    Literal::from_f64(dtype, if v.is_nan() { f64::NAN } else { dtype.round(v) })
}

fn compare(op: CompareOp, a: Literal, b: Literal) -> bool {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => op.holds(a, b),
        _ => op.holds(a.as_f64(), b.as_f64()),
    }
}

/// An index that is known and in range needs no check.
fn checked_index(c: &Candidate<'_>, extent: usize, wrap: bool) -> Option<Step> {
    let (i, n) = (c.splat(0)?.as_i64()?, extent as i64);
    let low = if wrap { -n } else { 0 };
    if !(low..n).contains(&i) {
        return None;
    }
    Step::constant(Literal::I64(if i < 0 { i + n } else { i }), &c.ty.shape)
}
