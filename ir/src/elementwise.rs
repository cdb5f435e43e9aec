//! The table of elementwise operations: name, dtype rule, meaning, stated accuracy, cost and code of each.
//!
//! A unary operation is a variant of [`UnaryOp`] and its row in [`UnaryOp::row`]; nothing else in `ir`, and nothing in the
//! back ends, lists unary operations. A row's code is one [`NativeUnary`] instruction, a call of its meaning, or an *expansion*:
//! straight-line Kernel IR written once in `expansions` (range reduction and polynomial, with FMA), so that every vector width and
//! target computes the same bits. Operations of two operands are in `binary`.

mod binary;
mod expansions;

use crate::DType;
use crate::kernel::{Emit, ValueId};
use expansions::SINE_LIMIT;

pub use binary::{BinaryCode, BinaryOp, CompareOp};
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
    /// Straight-line Kernel IR for an operand whose magnitude is below a limit (or NaN); others are calls.
    ExpandBelow(fn(&mut dyn Emit, ValueId) -> ValueId, f64),
    /// A call of the row's meaning on `f64`; an `f32` is widened, and the result rounded once.
    Call,
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
        use UnaryCode::{Call, Expand, ExpandBelow, Native};
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
                code: Expand(expansions::exp),
            },
            UnaryOp::Exp2 => UnaryRow {
                name: "exp2",
                domain: Domain::Float,
                float: libm::exp2,
                int: |x| x,
                ulps: 1.0,
                flops: 16,
                code: Expand(expansions::exp2),
            },
            UnaryOp::Expm1 => UnaryRow {
                name: "expm1",
                domain: Domain::Float,
                float: libm::expm1,
                int: |x| x,
                ulps: 1.5,
                flops: 22,
                code: Expand(expansions::expm1),
            },
            UnaryOp::Log => UnaryRow {
                name: "log",
                domain: Domain::Float,
                float: libm::log,
                int: |x| x,
                ulps: 1.0,
                flops: 22,
                code: Expand(expansions::log),
            },
            UnaryOp::Log2 => UnaryRow {
                name: "log2",
                domain: Domain::Float,
                float: libm::log2,
                int: |x| x,
                ulps: 1.5,
                flops: 26,
                code: Expand(expansions::log2),
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
                code: Expand(expansions::log1p),
            },
            UnaryOp::Sin => UnaryRow {
                name: "sin",
                domain: Domain::Float,
                float: libm::sin,
                int: |x| x,
                ulps: 2.0,
                flops: 26,
                code: ExpandBelow(expansions::sin, SINE_LIMIT),
            },
            UnaryOp::Cos => UnaryRow {
                name: "cos",
                domain: Domain::Float,
                float: libm::cos,
                int: |x| x,
                ulps: 2.0,
                flops: 26,
                code: ExpandBelow(expansions::cos, SINE_LIMIT),
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
                code: Expand(expansions::tanh),
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
                code: Expand(expansions::erf),
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
                float: sigmoid,
                int: |x| x,
                ulps: 2.5,
                flops: 22,
                code: Expand(expansions::sigmoid),
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

/// `1 / (1 + e^-x)`, with all digits where that power overflows.
fn sigmoid(x: f64) -> f64 {
    let power = libm::exp(-x.abs());
    (if x < 0.0 { power } else { 1.0 }) / (1.0 + power)
}

/// -1, 0 or 1; 0 of NaN.
fn sign(x: f64) -> f64 {
    f64::from(i8::from(x > 0.0) - i8::from(x < 0.0))
}
