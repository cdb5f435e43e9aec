//! Functions as straight-line Kernel IR: range reduction, a polynomial, and what is special selected last.
//!
//! One text serves `f32` and `f64`, whose constants and polynomials differ ([`Format`], [`Coefficients`]). Comparisons are written so that NaN takes
//! the side that keeps it. Coefficients of `log` and `tanh` in `f32` are those of the Cephes library's single precision functions; the others
//! were fitted to the functions for the least relative error, one coefficient after the other rounded to the type.
//! `tests/functions.rs` of the runtime states and checks accuracy.

mod error_function;
mod exponential;
mod logarithm;
mod power;
mod sine;

use crate::kernel::{Emit, MachineOp, ScalarType, ValueId};
use crate::{BinaryOp, Literal};
pub(super) use error_function::erf;
pub use exponential::scale;
pub(super) use exponential::{exp, exp2, expm1};
pub(super) use logarithm::{log, log1p, log2};
pub(super) use power::pow;
pub(super) use sine::{SINE_LIMIT, cos, sin};

/// How a type stores numbers.
struct Format {
    /// Bits of the fraction that are stored.
    fraction_bits: i64,
    /// What is added to an exponent in storage; the largest exponent, too.
    bias: i64,
    /// Adding this, 1.5 times the power of two whose spacing is 1, rounds to the nearest integer and leaves it in the low bits.
    magic: f64,
    magic_bits: i64,
    /// The bits of the root of a half.
    sqrt_half_bits: i64,
    smallest_normal: f64,
}

/// The format of a value's type.
fn format(e: &dyn Emit, x: ValueId) -> Format {
    match e.type_of(x) {
        ScalarType::F64 => Format {
            fraction_bits: 52,
            bias: 1023,
            magic: 6_755_399_441_055_744.0,
            magic_bits: 0x4338_0000_0000_0000,
            sqrt_half_bits: 0x3fe6_a09e_667f_3bcd,
            smallest_normal: f64::MIN_POSITIVE,
        },
        _ => Format {
            fraction_bits: 23,
            bias: 127,
            magic: 12_582_912.0,
            magic_bits: 0x4b40_0000,
            sqrt_half_bits: 0x3f35_04f3,
            smallest_normal: f32::MIN_POSITIVE as f64,
        },
    }
}

/// One of two numbers, by the type of a value.
fn either(e: &mut dyn Emit, like: ValueId, narrow: f32, wide: f64) -> ValueId {
    let c = if e.type_of(like) == ScalarType::F64 { Literal::F64(wide) } else { Literal::F32(narrow) };
    e.constant(c)
}

/// The coefficients of a polynomial, that of the highest power first.
struct Coefficients {
    narrow: &'static [f32],
    wide: &'static [f64],
}

/// Horner's scheme with FMA: `c[0] x^n + ... + c[n]`.
fn polynomial(e: &mut dyn Emit, x: ValueId, c: &Coefficients) -> ValueId {
    let literals: Vec<Literal> = match e.type_of(x) {
        ScalarType::F64 => c.wide.iter().copied().map(Literal::F64).collect(),
        _ => c.narrow.iter().copied().map(Literal::F32).collect(),
    };
    let mut acc = e.constant(literals[0]);
    for &c in &literals[1..] {
        let c = e.constant(c);
        acc = e.fma(acc, x, c);
    }
    acc
}

/// The low bits of a number that [`Format::magic`] was added to: the integer, as wide as the number.
fn integer_of(e: &mut dyn Emit, shifted: ValueId) -> ValueId {
    let magic_bits = format(e, shifted).magic_bits;
    let bits = e.machine(MachineOp::Bits, &[shifted]);
    let magic_bits = e.integer(bits, magic_bits);
    e.sub(bits, magic_bits)
}

/// `2^n` as a float, for an integer as wide that is an exponent of normal numbers.
fn power_of_two(e: &mut dyn Emit, n: ValueId) -> ValueId {
    let (bias, shift) = if e.type_of(n) == ScalarType::I64 { (1023, 52) } else { (127, 23) };
    let (bias, shift) = (e.integer(n, bias), e.integer(n, shift));
    let n = e.add(n, bias);
    let bits = e.machine(MachineOp::ShiftLeft, &[n, shift]);
    e.machine(MachineOp::OfBits, &[bits])
}

/// `x` within `low..=high`; NaN stays.
fn clamp(e: &mut dyn Emit, x: ValueId, low: ValueId, high: ValueId) -> ValueId {
    let below = e.lt(x, low);
    let x = e.select(below, low, x);
    at_most(e, x, high)
}

/// `x`, or `high` where that is less; NaN stays.
fn at_most(e: &mut dyn Emit, x: ValueId, high: ValueId) -> ValueId {
    let above = e.lt(high, x);
    e.select(above, high, x)
}

/// -1, 0 or 1; 0 of NaN.
pub(super) fn sign_code(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (zero, one, minus_one) = (e.number(x, 0.0), e.number(x, 1.0), e.number(x, -1.0));
    let (positive, negative) = (e.lt(zero, x), e.lt(x, zero));
    let below = e.select(negative, minus_one, zero);
    e.select(positive, one, below)
}

/// `1 / (1 + e^-x)`, as `e^x / (1 + e^x)` below 0, where the power would overflow before the result is 0.
pub(super) fn sigmoid(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let magnitude = e.abs(x);
    let negated = e.neg(magnitude);
    let power = exp(e, negated);
    let (zero, one) = (e.number(x, 0.0), e.number(x, 1.0));
    let negative = e.lt(x, zero);
    let numerator = e.select(negative, power, one);
    let sum = e.add(one, power);
    e.div(numerator, sum)
}

/// `1 / x`, correctly rounded.
pub(super) fn reciprocal(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let one = e.number(x, 1.0);
    e.div(one, x)
}

/// `1 / sqrt(x)`, with both operations correctly rounded.
pub(super) fn rsqrt(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let root = e.sqrt(x);
    let one = e.number(x, 1.0);
    e.div(one, root)
}

/// `(tanh x - x) / x^3` in `x^2`, up to the limit of [`tanh`].
const TANH: Coefficients = Coefficients {
    narrow: &[-5.704_988_6e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1],
    wide: &[
        2.110_392_292_081_869e-8,
        -2.313_779_720_379_906e-7,
        1.265_310_845_245_686_4e-6,
        -4.744_798_300_697_322e-6,
        1.426_058_168_312_805e-5,
        -3.804_415_289_336_243e-5,
        9.621_332_719_846_447e-5,
        -2.388_254_254_545_882e-4,
        5.899_285_290_540_691e-4,
        -1.455_810_523_872_368e-3,
        3.592_123_877_462_969_5e-3,
        -8.863_235_025_466_543e-3,
        2.186_948_849_593_282e-2,
        -5.396_825_396_632_846e-2,
        1.333_333_333_332_862_6e-1,
        -3.333_333_333_333_329e-1,
    ],
};

/// `tanh x`, on the magnitude: an odd polynomial below a limit, `1 - 2 / (e^(2|x|) + 1)` above. The sign bit is that of `x`,
/// so that zeros keep theirs.
pub(super) fn tanh(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let magnitude = e.abs(x);
    let z = e.mul(x, x);
    let p = polynomial(e, z, &TANH);
    let p = e.mul(p, z);
    let small = e.fma(p, magnitude, magnitude);
    let double = e.add(magnitude, magnitude);
    let power = exp(e, double);
    let (one, two, limit) = (e.number(x, 1.0), e.number(x, 2.0), either(e, x, 0.625, 1.0));
    let denominator = e.add(power, one);
    let q = e.div(two, denominator);
    let large = e.sub(one, q);
    let is_small = e.lt(magnitude, limit);
    let value = e.select(is_small, small, large);
    e.binary(BinaryOp::Copysign, value, x)
}
