//! Elementwise operations and comparisons of two operands: names, dtype rules, meanings, stated accuracy, cost and code.

use super::Domain;
use super::expansions::pow;
use crate::DType;
use crate::kernel::{Emit, ScalarType, ValueId};

/// Elementwise operations of two operands of one dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BinaryOp {
    /// The sum.
    Add,
    /// The difference.
    Sub,
    /// The product.
    Mul,
    /// The quotient of floats.
    Div,
    /// The larger; NaN wins.
    Max,
    /// The smaller; NaN wins.
    Min,
    /// The power. Of integers it wraps, and a negative exponent gives the quotient towards zero (0, or 1 and -1 of those bases).
    Pow,
    /// The remainder with the sign of the divisor. An integer divisor of 0 fails.
    Remainder,
    /// The remainder with the sign of the dividend. An integer divisor of 0 fails.
    Fmod,
    /// The quotient rounded down. An integer divisor of 0 fails.
    FloorDiv,
    /// The quotient of integers rounded towards zero. A divisor of 0 fails.
    TruncDiv,
    /// The angle of the point (operand 1, operand 0).
    Atan2,
    /// The length of a vector, without overflow on the way.
    Hypot,
    /// The magnitude of operand 0 with the sign bit of operand 1.
    Copysign,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Shift left; by a negative count or by the width or more, 0.
    ShiftLeft,
    /// Arithmetic shift right; by a negative count or by the width or more, the sign everywhere.
    ShiftRight,
}

/// How a binary operation becomes machine code.
#[derive(Clone, Copy)]
pub enum BinaryCode {
    /// A few instructions that each back end has.
    Native,
    /// Straight-line Kernel IR.
    Expand(fn(&mut dyn Emit, ValueId, ValueId) -> ValueId),
    /// A call of the meaning on `f64` (an `f32` is widened, and the result rounded once), or on `i64`.
    Call,
}

impl BinaryOp {
    /// Every binary operation.
    pub const ALL: &'static [BinaryOp] = &[
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Max,
        BinaryOp::Min,
        BinaryOp::Pow,
        BinaryOp::Remainder,
        BinaryOp::Fmod,
        BinaryOp::FloorDiv,
        BinaryOp::TruncDiv,
        BinaryOp::Atan2,
        BinaryOp::Hypot,
        BinaryOp::Copysign,
        BinaryOp::And,
        BinaryOp::Or,
        BinaryOp::Xor,
        BinaryOp::ShiftLeft,
        BinaryOp::ShiftRight,
    ];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Max => "max",
            BinaryOp::Min => "min",
            BinaryOp::Pow => "pow",
            BinaryOp::Remainder => "remainder",
            BinaryOp::Fmod => "fmod",
            BinaryOp::FloorDiv => "floor_div",
            BinaryOp::TruncDiv => "trunc_div",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Hypot => "hypot",
            BinaryOp::Copysign => "copysign",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Xor => "xor",
            BinaryOp::ShiftLeft => "shift_left",
            BinaryOp::ShiftRight => "shift_right",
        }
    }

    /// The operation of this name.
    pub fn parse(name: &str) -> Option<BinaryOp> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// Operand (and result) dtypes.
    pub fn domain(self) -> Domain {
        match self {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Pow => Domain::Numeric,
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv => Domain::Numeric,
            BinaryOp::Div | BinaryOp::Atan2 | BinaryOp::Hypot | BinaryOp::Copysign => Domain::Float,
            BinaryOp::Max | BinaryOp::Min => Domain::Any,
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => Domain::Integral,
            BinaryOp::TruncDiv | BinaryOp::ShiftLeft | BinaryOp::ShiftRight => Domain::Integer,
        }
    }

    /// Whether an integer divisor of 0 is an error.
    pub fn divides(self) -> bool {
        matches!(self, BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv | BinaryOp::TruncDiv)
    }

    /// The code for operands of this type.
    pub fn code(self, ty: ScalarType) -> BinaryCode {
        match self {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Max | BinaryOp::Min => {
                BinaryCode::Native
            }
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Copysign => BinaryCode::Native,
            BinaryOp::ShiftLeft | BinaryOp::ShiftRight | BinaryOp::TruncDiv => BinaryCode::Native,
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv if !ty.is_float() => BinaryCode::Native,
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv => BinaryCode::Call,
            BinaryOp::Pow if ty == ScalarType::F32 => BinaryCode::Expand(pow),
            BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Hypot => BinaryCode::Call,
        }
    }

    /// The meaning on floats, before rounding to the result's dtype.
    ///
    /// `max` is `a > b || a is NaN ? a : b`, so a NaN on either side propagates; `min` likewise.
    pub fn float(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::Max => {
                if a > b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            BinaryOp::Min => {
                if a < b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            BinaryOp::Pow => libm::pow(a, b),
            BinaryOp::Remainder => {
                let rest = libm::fmod(a, b);
                if rest != 0.0 && (b < 0.0) != (rest < 0.0) { rest + b } else { rest }
            }
            BinaryOp::Fmod => libm::fmod(a, b),
            BinaryOp::FloorDiv => floor_div(a, b),
            BinaryOp::Atan2 => libm::atan2(a, b),
            BinaryOp::Hypot => libm::hypot(a, b),
            BinaryOp::Copysign => a.copysign(b),
            // No operation on floats.
            BinaryOp::TruncDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => f64::NAN,
            BinaryOp::ShiftLeft | BinaryOp::ShiftRight => f64::NAN,
        }
    }

    /// The meaning on integers of a dtype, before wrapping to it; 0 where a divisor is 0. Booleans are 0 and 1.
    pub fn int(self, dtype: DType, a: i64, b: i64) -> i64 {
        let width = 8 * dtype.size() as i64;
        match self {
            BinaryOp::Add => a.wrapping_add(b),
            BinaryOp::Sub => a.wrapping_sub(b),
            BinaryOp::Mul => a.wrapping_mul(b),
            BinaryOp::Max => a.max(b),
            BinaryOp::Min => a.min(b),
            BinaryOp::Pow => int_pow(a, b),
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv | BinaryOp::TruncDiv if b == 0 => 0,
            BinaryOp::Remainder => {
                let rest = a.wrapping_rem(b);
                if rest != 0 && (rest < 0) != (b < 0) { rest.wrapping_add(b) } else { rest }
            }
            BinaryOp::Fmod => a.wrapping_rem(b),
            BinaryOp::FloorDiv => {
                let (quotient, rest) = (a.wrapping_div(b), a.wrapping_rem(b));
                if rest != 0 && (rest < 0) != (b < 0) { quotient.wrapping_sub(1) } else { quotient }
            }
            BinaryOp::TruncDiv => a.wrapping_div(b),
            BinaryOp::And => a & b,
            BinaryOp::Or => a | b,
            BinaryOp::Xor => a ^ b,
            BinaryOp::ShiftLeft => {
                if (0..width).contains(&b) {
                    a.wrapping_shl(b as u32)
                } else {
                    0
                }
            }
            BinaryOp::ShiftRight => a >> if (0..width).contains(&b) { b } else { 63 },
            // No operations on integers.
            BinaryOp::Div | BinaryOp::Atan2 | BinaryOp::Hypot | BinaryOp::Copysign => 0,
        }
    }

    /// The largest error of the generated code on floats, in units in the last place of an `f32` or `f64` result.
    pub fn ulps(self) -> f64 {
        match self {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::FloorDiv => 0.5,
            BinaryOp::Remainder => 0.5,
            BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Hypot => 1.0,
            BinaryOp::Max | BinaryOp::Min | BinaryOp::Fmod | BinaryOp::Copysign => 0.0,
            BinaryOp::TruncDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => 0.0,
            BinaryOp::ShiftLeft | BinaryOp::ShiftRight => 0.0,
        }
    }

    /// Cost in floating point operations, for estimates.
    pub fn flops(self) -> u32 {
        match self {
            BinaryOp::Div => 4,
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min => 1,
            BinaryOp::Copysign | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => 1,
            BinaryOp::ShiftLeft | BinaryOp::ShiftRight => 2,
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv | BinaryOp::TruncDiv => 30,
            BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Hypot => 60,
        }
    }
}

/// The quotient of floats rounded down, as Python and PyTorch define it: consistent with the remainder, with the sign of
/// the quotient where it is 0.
fn floor_div(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return a / b;
    }
    let rest = libm::fmod(a, b);
    let mut quotient = (a - rest) / b;
    if rest != 0.0 && (b < 0.0) != (rest < 0.0) {
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return 0f64.copysign(a / b);
    }
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

/// The power of integers by squaring; wraps.
fn int_pow(base: i64, exponent: i64) -> i64 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 => 1 - 2 * (exponent & 1),
            _ => 0,
        };
    }
    let (mut result, mut square, mut rest) = (1i64, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    result
}

/// Elementwise comparisons of two operands of one dtype; the result is `bool`. A comparison with NaN is false, `ne` true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl CompareOp {
    /// Every comparison.
    pub const ALL: &'static [CompareOp] =
        &[CompareOp::Eq, CompareOp::Ne, CompareOp::Lt, CompareOp::Le, CompareOp::Gt, CompareOp::Ge];

    /// The name in text, PyTorch's.
    pub fn name(self) -> &'static str {
        match self {
            CompareOp::Eq => "eq",
            CompareOp::Ne => "ne",
            CompareOp::Lt => "lt",
            CompareOp::Le => "le",
            CompareOp::Gt => "gt",
            CompareOp::Ge => "ge",
        }
    }

    /// The comparison of this name.
    pub fn parse(name: &str) -> Option<CompareOp> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// The meaning, on any ordered type.
    pub fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            CompareOp::Eq => a == b,
            CompareOp::Ne => a != b,
            CompareOp::Lt => a < b,
            CompareOp::Le => a <= b,
            CompareOp::Gt => a > b,
            CompareOp::Ge => a >= b,
        }
    }
}
