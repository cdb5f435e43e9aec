//! Algebra of elementwise operations that IEEE 754 keeps exactly.
//!
//! What looks right and is not stays away: `x + 0.0` turns -0.0 to 0.0, `x * 0.0` is NaN at infinity, `x - x` and `x / x` are
//! NaN at NaN and infinity, `x == x` is false at NaN, `0.0 - x` is 0.0 at 0.0 where `-x` is -0.0. Integers wrap, so for them
//! those hold.

use crate::simplify::{Candidate, Outer, Step};
use lazuli_ir::graph::Operands;
use lazuli_ir::{BinaryOp, CompareOp, DType, Literal, Op, UnaryOp, Value};

/// A rule of this file that fits.
pub(crate) fn rule(c: &Candidate<'_>) -> Option<Step> {
    match c.op {
        Op::Unary(op) => unary(c, *op),
        Op::Binary(op) => identity(c, *op).or_else(|| signs(c, *op)),
        Op::Compare(op) => compare(c, *op),
        Op::Select => select(c),
        Op::Cast(to) => cast(c, *to),
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
        Op::Alias
        | Op::Detach
        | Op::ToDevice { .. }
        | Op::Permute(_)
        | Op::Reshape(_)
        | Op::Broadcast { .. }
        | Op::Slice(_) => None,
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } => None,
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } => None,
        Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => None,
        Op::Pad(_) | Op::Reduce { .. } | Op::Dot { .. } => None,
    }
}

fn unary(c: &Candidate<'_>, op: UnaryOp) -> Option<Step> {
    let Op::Unary(inner) = c.operand_op(0) else { return None };
    match (op, inner) {
        (UnaryOp::Neg, UnaryOp::Neg) => Some(Step::Use(c.inner(0)[0])),
        (UnaryOp::Abs, UnaryOp::Abs) => Some(Step::Use(c.operands[0])),
        // Without a sign, the negative of a number is another magnitude.
        (UnaryOp::Abs, UnaryOp::Neg) if c.ty.dtype != DType::U8 => Step::node(Op::Unary(UnaryOp::Abs), [c.inner(0)[0]]),
        _ => None,
    }
}

/// A constant as an operand of a binary operation.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    /// What adds nothing: -0.0, or the integer 0.
    Nothing,
    /// 0.0, the float that is not [`Known::Nothing`].
    Zero,
    One,
    MinusOne,
    /// Below everything: -inf, the smallest integer, `false`.
    Lowest,
    /// Above everything.
    Highest,
    Other,
}

fn known(literal: Option<Literal>) -> Known {
    let Some(literal) = literal else { return Known::Other };
    let dtype = literal.dtype();
    if literal == Literal::lowest(dtype) && dtype != DType::U8 {
        return Known::Lowest;
    }
    if literal == Literal::highest(dtype) {
        return Known::Highest;
    }
    match (literal.as_i64(), literal.as_f64()) {
        (Some(0), _) => Known::Nothing,
        (None, v) if v == 0.0 && v.is_sign_negative() => Known::Nothing,
        (None, 0.0) => Known::Zero,
        (_, 1.0) => Known::One,
        (_, -1.0) => Known::MinusOne,
        _ => Known::Other,
    }
}

/// Operations with a neutral, absorbing or equal operand.
fn identity(c: &Candidate<'_>, op: BinaryOp) -> Option<Step> {
    let (a, b) = (c.operands[0], c.operands[1]);
    let (left, right) = (known(c.splat(0)), known(c.splat(1)));
    let integer = !c.ty.dtype.is_float();
    let neg = |x: Value| Step::node(Op::Unary(UnaryOp::Neg), [x]);
    match (op, left, right) {
        (BinaryOp::Add | BinaryOp::Sub, _, Known::Nothing) if op == BinaryOp::Add || integer => Some(Step::Use(a)),
        (BinaryOp::Add, Known::Nothing, _) => Some(Step::Use(b)),
        (BinaryOp::Sub, _, Known::Zero) => Some(Step::Use(a)),
        (BinaryOp::Sub, Known::Nothing, _) => neg(b),
        (BinaryOp::Sub, ..) if integer && a == b => Step::constant(Literal::zero(c.ty.dtype), &c.ty.shape),
        (BinaryOp::Mul | BinaryOp::Div, _, Known::One) => Some(Step::Use(a)),
        (BinaryOp::Mul, Known::One, _) => Some(Step::Use(b)),
        (BinaryOp::Mul | BinaryOp::Div, _, Known::MinusOne) => neg(a),
        (BinaryOp::Mul, Known::MinusOne, _) => neg(b),
        (BinaryOp::Mul, _, Known::Nothing) if integer => Some(Step::Use(b)),
        (BinaryOp::Mul, Known::Nothing, _) if integer => Some(Step::Use(a)),
        (BinaryOp::Div, ..) => reciprocal(c),
        (BinaryOp::Max | BinaryOp::Min, ..) if a == b => Some(Step::Use(a)),
        (BinaryOp::Max, _, Known::Lowest) | (BinaryOp::Min, _, Known::Highest) => Some(Step::Use(a)),
        (BinaryOp::Max, Known::Lowest, _) | (BinaryOp::Min, Known::Highest, _) => Some(Step::Use(b)),
        (BinaryOp::Max, _, Known::Highest) | (BinaryOp::Min, _, Known::Lowest) if integer => Some(Step::Use(b)),
        (BinaryOp::Max, Known::Highest, _) | (BinaryOp::Min, Known::Lowest, _) if integer => Some(Step::Use(a)),
        (BinaryOp::And | BinaryOp::Or, ..) if a == b => Some(Step::Use(a)),
        (BinaryOp::Pow, _, Known::One) => Some(Step::Use(a)),
        (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min, ..) => None,
        (BinaryOp::Pow | BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv | BinaryOp::TruncDiv, ..) => None,
        (BinaryOp::Atan2 | BinaryOp::Hypot | BinaryOp::Copysign | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor, ..) => {
            None
        }
        (BinaryOp::ShiftLeft | BinaryOp::ShiftRight, ..) => None,
    }
}

/// Division by a power of two whose reciprocal is a normal number is multiplication by that: both round the same number.
fn reciprocal(c: &Candidate<'_>) -> Option<Step> {
    let Some(Literal::F32(divisor)) = c.splat(1) else { return None };
    let factor = divisor.recip();
    let mantissa = |v: f32| v.to_bits() & 0x007f_ffff;
    if !divisor.is_normal() || !factor.is_normal() || mantissa(divisor) != 0 {
        return None;
    }
    let factor = Op::Constant { value: Literal::F32(factor), shape: c.ty.shape.clone() };
    let others = [c.operands[0]].into_iter().collect();
    let product = Outer { op: Op::Binary(BinaryOp::Mul), others, at: 1 };
    Some(Step::Chain((factor, Operands::new()), Box::new(product)))
}

/// Signs move to where they cost nothing.
fn signs(c: &Candidate<'_>, op: BinaryOp) -> Option<Step> {
    let negated = |i: usize| match c.operand_op(i) {
        Op::Unary(UnaryOp::Neg) => Some(c.inner(i)[0]),
        _ => None,
    };
    let (a, b) = (c.operands[0], c.operands[1]);
    match (op, negated(0), negated(1)) {
        (BinaryOp::Mul | BinaryOp::Div, Some(x), Some(y)) => Step::node(c.op.clone(), [x, y]),
        (BinaryOp::Add, _, Some(y)) => Step::node(Op::Binary(BinaryOp::Sub), [a, y]),
        (BinaryOp::Add, Some(x), None) => Step::node(Op::Binary(BinaryOp::Sub), [b, x]),
        (BinaryOp::Sub, _, Some(y)) => Step::node(Op::Binary(BinaryOp::Add), [a, y]),
        _ => None,
    }
}

fn compare(c: &Candidate<'_>, op: CompareOp) -> Option<Step> {
    let boolean = c.operand_ty(0).dtype == DType::Bool;
    match (op, c.splat(1)) {
        (CompareOp::Ne, Some(Literal::Bool(false))) | (CompareOp::Eq, Some(Literal::Bool(true))) if boolean => {
            return Some(Step::Use(c.operands[0]));
        }
        _ if c.operands[0] != c.operands[1] => return None,
        _ => {}
    }
    let ordered = !c.operand_ty(0).dtype.is_float();
    match op {
        CompareOp::Lt | CompareOp::Gt => Step::constant(Literal::Bool(false), &c.ty.shape),
        CompareOp::Ne if ordered => Step::constant(Literal::Bool(false), &c.ty.shape),
        CompareOp::Eq | CompareOp::Le | CompareOp::Ge if ordered => Step::constant(Literal::Bool(true), &c.ty.shape),
        CompareOp::Ne | CompareOp::Eq | CompareOp::Le | CompareOp::Ge => None,
    }
}

fn select(c: &Candidate<'_>) -> Option<Step> {
    let (condition, yes, no) = (c.operands[0], c.operands[1], c.operands[2]);
    if yes == no {
        return Some(Step::Use(yes));
    }
    if c.splat(1) == Some(Literal::Bool(true)) && c.splat(2) == Some(Literal::Bool(false)) {
        return Some(Step::Use(condition));
    }
    let same_condition = |i: usize| matches!(c.operand_op(i), Op::Select) && c.inner(i)[0] == condition;
    if same_condition(1) {
        return Step::node(Op::Select, [condition, c.inner(1)[1], no]);
    }
    if same_condition(2) {
        return Step::node(Op::Select, [condition, yes, c.inner(2)[2]]);
    }
    None
}

/// A cast to the same dtype, and a cast of a cast where the first loses nothing that the second keeps.
fn cast(c: &Candidate<'_>, to: DType) -> Option<Step> {
    let via = c.operand_ty(0).dtype;
    if via == to {
        return Some(Step::Use(c.operands[0]));
    }
    let Op::Cast(_) = c.operand_op(0) else { return None };
    let x = c.inner(0)[0];
    let from = c.graph.ty(x).dtype;
    // No integer but 0 rounds to 0.0.
    let truth = from.is_int() && via.is_float() && to == DType::Bool;
    if truth || holds_all(via, from) { Step::node(Op::Cast(to), [x]) } else { None }
}

/// Whether `wide` has every value of `narrow`.
fn holds_all(wide: DType, narrow: DType) -> bool {
    match narrow {
        DType::Bool => true,
        DType::U8 => !matches!(wide, DType::Bool),
        DType::I32 => matches!(wide, DType::I32 | DType::I64 | DType::F64),
        DType::I64 => wide == DType::I64,
        DType::F16 => matches!(wide, DType::F16 | DType::F32 | DType::F64),
        DType::BF16 => matches!(wide, DType::BF16 | DType::F32 | DType::F64),
        DType::F32 => matches!(wide, DType::F32 | DType::F64),
        DType::F64 => wide == DType::F64,
    }
}
