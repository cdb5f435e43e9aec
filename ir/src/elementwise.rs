//! The table of elementwise operations: name, dtype rule, meaning, stated accuracy, cost and code of each.
//!
//! A unary operation is a variant of [`UnaryOp`] and its row in [`UnaryOp::row`]; nothing else in `ir`, and nothing in the
//! back ends, lists unary operations. A row's code is one [`NativeUnary`] instruction, a call of its meaning, or an *expansion*:
//! straight-line Kernel IR written once in `expansions` (range reduction and polynomial, with FMA), so that every vector width and
//! target computes the same bits.

mod expansions;

use crate::DType;
use crate::kernel::{Emit, ScalarType, ValueId};
use expansions::SINE_LIMIT;
pub use expansions::scale;

/// Which dtypes an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Floating point only.
    Float,
    /// Integers and floats.
    Numeric,
    /// Integers, without truth values.
    Integer,
    /// Integers and truth values.
    Integral,
    /// Every dtype.
    Any,
}

impl Domain {
    /// Whether `dtype` is in the domain.
    pub fn contains(self, dtype: DType) -> bool {
        match self {
            Domain::Float => dtype.is_float(),
            Domain::Numeric => dtype != DType::Bool,
            Domain::Integer => dtype.is_int(),
            Domain::Integral => !dtype.is_float(),
            Domain::Any => true,
        }
    }

    /// The domain in words, for errors.
    pub fn words(self) -> &'static str {
        match self {
            Domain::Float => "a floating point tensor",
            Domain::Numeric => "an integer or floating point tensor",
            Domain::Integer => "an integer tensor",
            Domain::Integral => "an integer or boolean tensor",
            Domain::Any => "any tensor",
        }
    }
}

/// Unary instructions that every back end has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeUnary {
    /// Negation.
    Neg,
    /// Absolute value.
    Abs,
    /// Bitwise complement, of integers.
    Not,
    /// Rounds up.
    Ceil,
    /// Rounds down.
    Floor,
    /// Rounds towards zero.
    Trunc,
    /// Rounds to nearest, ties to even.
    Round,
    /// Correctly rounded square root.
    Sqrt,
}

/// How a unary operation becomes machine code.
#[derive(Clone, Copy)]
pub enum UnaryCode {
    /// One instruction.
    Native(NativeUnary),
    /// Straight-line Kernel IR for an operand of any type of the domain.
    Expand(fn(&mut dyn Emit, ValueId) -> ValueId),
    /// Straight-line Kernel IR for an `f32` operand; an `f64` is a call.
    ExpandF32(fn(&mut dyn Emit, ValueId) -> ValueId),
    /// Straight-line Kernel IR for an `f32` operand whose magnitude is below a limit (or NaN); others and an `f64` are calls.
    ExpandF32Below(fn(&mut dyn Emit, ValueId) -> ValueId, f32),
    /// A call of the row's meaning on `f64`; an `f32` is widened, and the result rounded once.
    Call,
}

impl UnaryCode {
    /// The code for an operand of this type: [`ExpandF32`](UnaryCode::ExpandF32) is resolved, and a limit stands for `f32` only.
    pub fn of(self, ty: ScalarType) -> UnaryCode {
        match self {
            UnaryCode::ExpandF32(code) if ty == ScalarType::F32 => UnaryCode::Expand(code),
            UnaryCode::ExpandF32Below(..) if ty == ScalarType::F32 => self,
            UnaryCode::ExpandF32(_) | UnaryCode::ExpandF32Below(..) => UnaryCode::Call,
            UnaryCode::Native(_) | UnaryCode::Expand(_) | UnaryCode::Call => self,
        }
    }
}

/// What there is to know of a unary operation.
pub struct UnaryRow {
    /// The name in text, PyTorch's where it has one.
    pub name: &'static str,
    /// Operand (and result) dtypes.
    pub domain: Domain,
    /// The meaning on floats, before rounding to the result's dtype.
    pub float: fn(f64) -> f64,
    /// The meaning on integers, before wrapping to the result's dtype.
    pub int: fn(i64) -> i64,
    /// The largest error of the generated code, in units in the last place of an `f32` or `f64` result.
    pub ulps: f64,
    /// Cost in floating point operations, for estimates.
    pub flops: u32,
    /// The code.
    pub code: UnaryCode,
}

/// Elementwise operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum UnaryOp {
    Neg,
    Abs,
    Sign,
    Not,
    Ceil,
    Floor,
    Trunc,
    Round,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Exp,
    Exp2,
    Expm1,
    Log,
    Log2,
    Log10,
    Log1p,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    Erfc,
    Sigmoid,
}

impl UnaryOp {
    /// Every unary operation.
    pub const ALL: &'static [UnaryOp] = &[
        UnaryOp::Neg,
        UnaryOp::Abs,
        UnaryOp::Sign,
        UnaryOp::Not,
        UnaryOp::Ceil,
        UnaryOp::Floor,
        UnaryOp::Trunc,
        UnaryOp::Round,
        UnaryOp::Sqrt,
        UnaryOp::Rsqrt,
        UnaryOp::Reciprocal,
        UnaryOp::Exp,
        UnaryOp::Exp2,
        UnaryOp::Expm1,
        UnaryOp::Log,
        UnaryOp::Log2,
        UnaryOp::Log10,
        UnaryOp::Log1p,
        UnaryOp::Sin,
        UnaryOp::Cos,
        UnaryOp::Tan,
        UnaryOp::Asin,
        UnaryOp::Acos,
        UnaryOp::Atan,
        UnaryOp::Sinh,
        UnaryOp::Cosh,
        UnaryOp::Tanh,
        UnaryOp::Asinh,
        UnaryOp::Acosh,
        UnaryOp::Atanh,
        UnaryOp::Erf,
        UnaryOp::Erfc,
        UnaryOp::Sigmoid,
    ];

    /// The operation's row.
    pub const fn row(self) -> UnaryRow {
        use UnaryCode::{Call, Expand, ExpandF32, ExpandF32Below, Native};
        match self {
            UnaryOp::Neg => UnaryRow {
                name: "neg",
                domain: Domain::Numeric,
                float: |x| -x,
                int: i64::wrapping_neg,
                ulps: 0.0,
                flops: 1,
                code: Native(NativeUnary::Neg),
            },
            UnaryOp::Abs => UnaryRow {
                name: "abs",
                domain: Domain::Numeric,
                float: f64::abs,
                int: i64::wrapping_abs,
                ulps: 0.0,
                flops: 1,
                code: Native(NativeUnary::Abs),
            },
            UnaryOp::Sign => UnaryRow {
                name: "sign",
                domain: Domain::Numeric,
                float: sign,
                int: i64::signum,
                ulps: 0.0,
                flops: 2,
                code: Expand(expansions::sign_code),
            },
            UnaryOp::Not => UnaryRow {
                name: "not",
                domain: Domain::Integer,
                float: |x| x,
                int: |x| !x,
                ulps: 0.0,
                flops: 1,
                code: Native(NativeUnary::Not),
            },
            UnaryOp::Ceil => UnaryRow {
                name: "ceil",
                domain: Domain::Float,
                float: f64::ceil,
                int: |x| x,
                ulps: 0.0,
                flops: 1,
                code: Native(NativeUnary::Ceil),
            },
            UnaryOp::Floor => UnaryRow {
                name: "floor",
                domain: Domain::Float,
                float: f64::floor,
                int: |x| x,
                ulps: 0.0,
                flops: 1,
                code: Native(NativeUnary::Floor),
            },
            UnaryOp::Trunc => UnaryRow {
                name: "trunc",
                domain: Domain::Float,
                float: f64::trunc,
                int: |x| x,
                ulps: 0.0,
                flops: 1,
                code: Native(NativeUnary::Trunc),
            },
            UnaryOp::Round => UnaryRow {
                name: "round",
                domain: Domain::Float,
                float: f64::round_ties_even,
                int: |x| x,
                ulps: 0.0,
                flops: 1,
                code: Native(NativeUnary::Round),
            },
            UnaryOp::Sqrt => UnaryRow {
                name: "sqrt",
                domain: Domain::Float,
                float: f64::sqrt,
                int: |x| x,
                ulps: 0.5,
                flops: 4,
                code: Native(NativeUnary::Sqrt),
            },
            UnaryOp::Rsqrt => UnaryRow {
                name: "rsqrt",
                domain: Domain::Float,
                float: |x| 1.0 / x.sqrt(),
                int: |x| x,
                ulps: 1.5,
                flops: 8,
                code: Expand(expansions::rsqrt),
            },
            UnaryOp::Reciprocal => UnaryRow {
                name: "reciprocal",
                domain: Domain::Float,
                float: |x| 1.0 / x,
                int: |x| x,
                ulps: 0.5,
                flops: 4,
                code: Expand(expansions::reciprocal),
            },
            UnaryOp::Exp => UnaryRow {
                name: "exp",
                domain: Domain::Float,
                float: libm::exp,
                int: |x| x,
                ulps: 1.0,
                flops: 16,
                code: ExpandF32(expansions::exp),
            },
            UnaryOp::Exp2 => UnaryRow {
                name: "exp2",
                domain: Domain::Float,
                float: libm::exp2,
                int: |x| x,
                ulps: 1.0,
                flops: 16,
                code: ExpandF32(expansions::exp2),
            },
            UnaryOp::Expm1 => UnaryRow {
                name: "expm1",
                domain: Domain::Float,
                float: libm::expm1,
                int: |x| x,
                ulps: 1.5,
                flops: 22,
                code: ExpandF32(expansions::expm1),
            },
            UnaryOp::Log => UnaryRow {
                name: "log",
                domain: Domain::Float,
                float: libm::log,
                int: |x| x,
                ulps: 1.0,
                flops: 22,
                code: ExpandF32(expansions::log),
            },
            UnaryOp::Log2 => UnaryRow {
                name: "log2",
                domain: Domain::Float,
                float: libm::log2,
                int: |x| x,
                ulps: 1.5,
                flops: 26,
                code: ExpandF32(expansions::log2),
            },
            UnaryOp::Log10 => UnaryRow {
                name: "log10",
                domain: Domain::Float,
                float: libm::log10,
                int: |x| x,
                ulps: 1.0,
                flops: 40,
                code: Call,
            },
            UnaryOp::Log1p => UnaryRow {
                name: "log1p",
                domain: Domain::Float,
                float: libm::log1p,
                int: |x| x,
                ulps: 1.5,
                flops: 32,
                code: ExpandF32(expansions::log1p),
            },
            UnaryOp::Sin => UnaryRow {
                name: "sin",
                domain: Domain::Float,
                float: libm::sin,
                int: |x| x,
                ulps: 2.0,
                flops: 26,
                code: ExpandF32Below(expansions::sin, SINE_LIMIT),
            },
            UnaryOp::Cos => UnaryRow {
                name: "cos",
                domain: Domain::Float,
                float: libm::cos,
                int: |x| x,
                ulps: 2.0,
                flops: 26,
                code: ExpandF32Below(expansions::cos, SINE_LIMIT),
            },
            UnaryOp::Tan => UnaryRow {
                name: "tan",
                domain: Domain::Float,
                float: libm::tan,
                int: |x| x,
                ulps: 1.0,
                flops: 60,
                code: Call,
            },
            UnaryOp::Asin => UnaryRow {
                name: "asin",
                domain: Domain::Float,
                float: libm::asin,
                int: |x| x,
                ulps: 1.0,
                flops: 40,
                code: Call,
            },
            UnaryOp::Acos => UnaryRow {
                name: "acos",
                domain: Domain::Float,
                float: libm::acos,
                int: |x| x,
                ulps: 1.0,
                flops: 40,
                code: Call,
            },
            UnaryOp::Atan => UnaryRow {
                name: "atan",
                domain: Domain::Float,
                float: libm::atan,
                int: |x| x,
                ulps: 1.0,
                flops: 40,
                code: Call,
            },
            UnaryOp::Sinh => UnaryRow {
                name: "sinh",
                domain: Domain::Float,
                float: libm::sinh,
                int: |x| x,
                ulps: 1.0,
                flops: 60,
                code: Call,
            },
            UnaryOp::Cosh => UnaryRow {
                name: "cosh",
                domain: Domain::Float,
                float: libm::cosh,
                int: |x| x,
                ulps: 1.0,
                flops: 60,
                code: Call,
            },
            UnaryOp::Tanh => UnaryRow {
                name: "tanh",
                domain: Domain::Float,
                float: libm::tanh,
                int: |x| x,
                ulps: 2.0,
                flops: 34,
                code: ExpandF32(expansions::tanh),
            },
            UnaryOp::Asinh => UnaryRow {
                name: "asinh",
                domain: Domain::Float,
                float: libm::asinh,
                int: |x| x,
                ulps: 1.0,
                flops: 60,
                code: Call,
            },
            UnaryOp::Acosh => UnaryRow {
                name: "acosh",
                domain: Domain::Float,
                // The library's result below -2 is a number.
                float: |x| if x < 1.0 { f64::NAN } else { libm::acosh(x) },
                int: |x| x,
                ulps: 1.0,
                flops: 60,
                code: Call,
            },
            UnaryOp::Atanh => UnaryRow {
                name: "atanh",
                domain: Domain::Float,
                float: libm::atanh,
                int: |x| x,
                ulps: 1.0,
                flops: 60,
                code: Call,
            },
            UnaryOp::Erf => UnaryRow {
                name: "erf",
                domain: Domain::Float,
                float: libm::erf,
                int: |x| x,
                ulps: 1.5,
                flops: 44,
                code: ExpandF32(expansions::erf),
            },
            UnaryOp::Erfc => UnaryRow {
                name: "erfc",
                domain: Domain::Float,
                float: libm::erfc,
                int: |x| x,
                ulps: 1.0,
                flops: 60,
                code: Call,
            },
            UnaryOp::Sigmoid => UnaryRow {
                name: "sigmoid",
                domain: Domain::Float,
                float: |x| 1.0 / (1.0 + libm::exp(-x)),
                int: |x| x,
                ulps: 2.5,
                flops: 22,
                code: ExpandF32(expansions::sigmoid),
            },
        }
    }

    /// The name in text.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The operation of this name.
    pub fn parse(name: &str) -> Option<UnaryOp> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }
}

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
            BinaryOp::Pow if ty == ScalarType::F32 => BinaryCode::Expand(expansions::pow),
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

/// -1, 0 or 1; 0 of NaN.
fn sign(x: f64) -> f64 {
    f64::from(i8::from(x > 0.0) - i8::from(x < 0.0))
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
