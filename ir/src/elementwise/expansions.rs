//! Functions as straight-line Kernel IR: range reduction, a polynomial, and what is special selected last.
//!
//! Comparisons are written so that NaN takes the side that keeps it. Coefficients of `log` and `tanh` are those of the Cephes
//! library's single precision functions; the others were fitted to the functions for the least relative error, one
//! coefficient after the other rounded to `f32`. `tests/functions.rs` of the runtime states and checks accuracy.

use crate::BinaryOp;
use crate::kernel::{Emit, MachineOp, ScalarType, ValueId};
use crate::{Literal, UnaryOp};

/// Horner's scheme with FMA: `c[0] x^n + ... + c[n]`.
fn polynomial(e: &mut dyn Emit, x: ValueId, coefficients: &[f32]) -> ValueId {
    let mut acc = e.f32(coefficients[0]);
    for &c in &coefficients[1..] {
        let c = e.f32(c);
        acc = e.fma(acc, x, c);
    }
    acc
}

/// Adding this, 1.5 * 2^23, rounds an `f32` to the nearest integer and leaves it in the low bits.
const MAGIC: f32 = 12_582_912.0;
const MAGIC_BITS: i32 = 0x4b40_0000;

/// The low bits of a number that [`MAGIC`] was added to: the integer, as `i32`.
fn integer_of(e: &mut dyn Emit, shifted: ValueId) -> ValueId {
    let (bits, magic_bits) = (e.machine(MachineOp::BitsOfF32, &[shifted]), e.i32(MAGIC_BITS));
    e.sub(bits, magic_bits)
}

/// `x` within `low..=high`; NaN stays.
fn clamp(e: &mut dyn Emit, x: ValueId, low: f64, high: f64) -> ValueId {
    let low = e.number(x, low);
    let below = e.lt(x, low);
    let x = e.select(below, low, x);
    at_most(e, x, high)
}

/// `x`, or `high` where that is less; NaN stays.
fn at_most(e: &mut dyn Emit, x: ValueId, high: f64) -> ValueId {
    let high = e.number(x, high);
    let above = e.lt(high, x);
    e.select(above, high, x)
}

/// What scales to 0, so far below the smallest number that processors do not stop to look at an underflow: one by a little takes
/// sixty times as long as a product. Whole steps of it are still exact.
const VANISHES: f64 = -1e5;

/// The argument of an exponential that is 0 below `low` and overflows above `high`.
fn exponent_within(e: &mut dyn Emit, x: ValueId, low: f64, high: f64) -> ValueId {
    let (low, vanishes) = (e.number(x, low), e.number(x, VANISHES));
    let below = e.lt(x, low);
    let x = e.select(below, vanishes, x);
    at_most(e, x, high)
}

/// What of `x = n ln 2 + r` is needed.
struct Reduced {
    /// `n` plus [`MAGIC`].
    shifted: ValueId,
    n: ValueId,
    r: ValueId,
}

fn reduced_by_ln2(e: &mut dyn Emit, x: ValueId) -> Reduced {
    let (log2e, magic) = (e.f32(std::f32::consts::LOG2_E), e.f32(MAGIC));
    let shifted = e.fma(x, log2e, magic);
    let n = e.sub(shifted, magic);
    let (ln2_high, ln2_low) = (e.f32(-0.693_359_4), e.f32(2.121_944_4e-4));
    let r = e.fma(n, ln2_high, x);
    Reduced { shifted, n, r: e.fma(n, ln2_low, r) }
}

/// `(e^r - 1 - r) / r^2` for `r` up to `ln 2 / 2`.
fn exp_polynomial(e: &mut dyn Emit, r: ValueId) -> ValueId {
    polynomial(e, r, &[1.976_424_5e-4, 1.393_234_2e-3, 8.333_543e-3, 4.166_649_3e-2, 1.666_666_6e-1, 0.5])
}

/// `e^x`: a polynomial in `r`, scaled.
pub(super) fn exp(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let x = exponent_within(e, x, -104.0, 89.0);
    let Reduced { n, r, .. } = reduced_by_ln2(e, x);
    let (p, one) = (exp_polynomial(e, r), e.f32(1.0));
    let p = e.fma(p, r, one);
    let p = e.fma(p, r, one);
    e.machine(MachineOp::Scale, &[p, n])
}

/// `2^x`: `x = n + r` exactly, a polynomial in `r`, scaled.
pub(super) fn exp2(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let x = exponent_within(e, x, -151.0, 129.0);
    let (magic, one) = (e.f32(MAGIC), e.f32(1.0));
    let shifted = e.add(x, magic);
    let n = e.sub(shifted, magic);
    let r = e.sub(x, n);
    let coefficients = [1.532_931e-4, 1.339_097e-3, 9.618_5e-3, 5.550_359_6e-2, 2.402_264_8e-1, 6.931_472e-1];
    let p = polynomial(e, r, &coefficients);
    let p = e.fma(p, r, one);
    e.machine(MachineOp::Scale, &[p, n])
}

/// `e^x - 1` is `2^n (e^r - 1) + (2^n - 1)`, computed at half its size, which overflows where the result does.
pub(super) fn expm1(e: &mut dyn Emit, argument: ValueId) -> ValueId {
    let x = clamp(e, argument, -20.0, 89.0);
    let Reduced { shifted, r, .. } = reduced_by_ln2(e, x);
    let p = exp_polynomial(e, r);
    let rr = e.mul(r, r);
    let p = e.fma(p, rr, r);
    let (n, one) = (integer_of(e, shifted), e.i32(1));
    let below = e.sub(n, one);
    let (scale, half) = (power_of_two(e, below), e.f32(0.5));
    let rest = e.sub(scale, half);
    let q = e.fma(scale, p, rest);
    let q = e.add(q, q);
    // What is tiny is its own result: zeros keep their sign, subnormals all bits.
    let (size, tiny) = (e.abs(argument), e.f32(2.980_232_2e-8));
    let is_tiny = e.lt(size, tiny);
    e.select(is_tiny, argument, q)
}

/// The code of [`MachineOp::Scale`] where there is no instruction: two exact steps, so that subnormal results and overflow round
/// once.
pub fn scale(e: &mut dyn Emit, a: ValueId, b: ValueId) -> ValueId {
    // Twice the least power of a normal number takes anything to 0.
    let least = e.f32(-252.0);
    let below = e.lt(b, least);
    let b = e.select(below, least, b);
    let (n, one) = (e.convert(ScalarType::I32, b), e.i32(1));
    let half = e.machine(MachineOp::ShiftRight, &[n, one]);
    let rest = e.sub(n, half);
    let power = power_of_two(e, half);
    let a = e.mul(a, power);
    let power = power_of_two(e, rest);
    e.mul(a, power)
}

/// `2^n` for an `i32` in -126..=127.
fn power_of_two(e: &mut dyn Emit, n: ValueId) -> ValueId {
    let (bias, shift) = (e.i32(127), e.i32(23));
    let n = e.add(n, bias);
    let bits = e.machine(MachineOp::ShiftLeft, &[n, shift]);
    e.machine(MachineOp::F32OfBits, &[bits])
}

/// `x = 2^n m` with `m` in `[sqrt(1/2), sqrt(2))`, for positive and finite `x`; both `f32`.
fn decomposed(e: &mut dyn Emit, x: ValueId) -> (ValueId, ValueId) {
    let smallest_normal = e.f32(f32::MIN_POSITIVE);
    let subnormal = e.lt(x, smallest_normal);
    let two23 = e.f32(8_388_608.0);
    let scaled = e.mul(x, two23);
    let y = e.select(subnormal, scaled, x);
    let (n, m) = exponent_and_fraction(e, y);
    let n = e.convert(ScalarType::F32, n);
    let (zero, minus23) = (e.f32(0.0), e.f32(-23.0));
    let correction = e.select(subnormal, minus23, zero);
    (e.add(n, correction), m)
}

/// As [`decomposed`], for a normal number; `n` is an `i32`.
fn exponent_and_fraction(e: &mut dyn Emit, x: ValueId) -> (ValueId, ValueId) {
    let bits = e.machine(MachineOp::BitsOfF32, &[x]);
    let (sqrt_half, shift) = (e.i32(0x3f35_04f3), e.i32(23));
    let above = e.sub(bits, sqrt_half);
    let n = e.machine(MachineOp::ShiftRight, &[above, shift]);
    let exponent = e.machine(MachineOp::ShiftLeft, &[n, shift]);
    let m = e.sub(bits, exponent);
    (n, e.machine(MachineOp::F32OfBits, &[m]))
}

/// `ln(1 + f) - f + f^2 / 2` for `1 + f` in `[sqrt(1/2), sqrt(2))`, given `f^2`.
fn log_polynomial(e: &mut dyn Emit, f: ValueId, z: ValueId) -> ValueId {
    let p = polynomial(
        e,
        f,
        &[
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_7e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let fz = e.mul(f, z);
    e.mul(p, fz)
}

/// `n ln 2 + ln(1 + f)`.
fn log_of(e: &mut dyn Emit, n: ValueId, f: ValueId) -> ValueId {
    let z = e.mul(f, f);
    let p = log_polynomial(e, f, z);
    let (ln2_low, minus_half, ln2_high) = (e.f32(-2.121_944_4e-4), e.f32(-0.5), e.f32(0.693_359_4));
    let p = e.fma(n, ln2_low, p);
    let p = e.fma(z, minus_half, p);
    let p = e.add(f, p);
    e.fma(n, ln2_high, p)
}

/// A logarithm of `x` with its special values: NaN below 0 and of NaN, minus infinity at 0, infinity of infinity.
fn log_specials(e: &mut dyn Emit, x: ValueId, p: ValueId) -> ValueId {
    let (infinity, minus_infinity, nan) = (e.f32(f32::INFINITY), e.f32(f32::NEG_INFINITY), e.f32(f32::NAN));
    let is_infinite = e.eq(x, infinity);
    let p = e.select(is_infinite, infinity, p);
    let zero = e.f32(0.0);
    let is_zero = e.eq(x, zero);
    let p = e.select(is_zero, minus_infinity, p);
    let in_domain = e.le(zero, x);
    e.select(in_domain, p, nan)
}

/// `ln x`: a polynomial in `m - 1`.
pub(super) fn log(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (n, m) = decomposed(e, x);
    let one = e.f32(1.0);
    let f = e.sub(m, one);
    let p = log_of(e, n, f);
    log_specials(e, x, p)
}

/// `log2 x`: `ln m` times `log2 e` in two parts.
pub(super) fn log2(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (n, m) = decomposed(e, x);
    let one = e.f32(1.0);
    let f = e.sub(m, one);
    let z = e.mul(f, f);
    let p = log_polynomial(e, f, z);
    let minus_half = e.f32(-0.5);
    let p = e.fma(z, minus_half, p);
    let (log2e, log2e_low) = (e.f32(std::f32::consts::LOG2_E), e.f32(1.925_963e-8));
    let main = e.mul(f, log2e);
    let negated = e.neg(main);
    let rest = e.fma(f, log2e, negated);
    let rest = e.fma(f, log2e_low, rest);
    let rest = e.fma(p, log2e, rest);
    let p = e.add(main, rest);
    let p = e.add(n, p);
    log_specials(e, x, p)
}

/// `ln(1 + x)`: what rounding `1 + x` lost is added to the fraction again, so near 0 it is `x` itself.
pub(super) fn log1p(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let one = e.f32(1.0);
    let u = e.add(x, one);
    // The larger of the summands is subtracted first: exact.
    let (from_u, from_x) = (e.sub(u, one), e.sub(u, x));
    let (lost_of_x, lost_of_one) = (e.sub(x, from_u), e.sub(one, from_x));
    let large = e.lt(one, x);
    let lost = e.select(large, lost_of_one, lost_of_x);
    let (n, m) = exponent_and_fraction(e, u);
    let (most, zero) = (e.i32(126), e.i32(0));
    let bounded = e.binary(BinaryOp::Min, n, most);
    let negated = e.sub(zero, bounded);
    let scale = power_of_two(e, negated);
    let f = e.sub(m, one);
    let f = e.fma(lost, scale, f);
    let n = e.convert(ScalarType::F32, n);
    let p = log_of(e, n, f);
    let p = log_specials(e, u, p);
    let zero = e.f32(0.0);
    let is_zero = e.eq(x, zero);
    e.select(is_zero, x, p)
}

/// Arguments of this size and beyond are not reduced well enough by [`reduced_by_half_pi`].
pub(super) const SINE_LIMIT: f32 = 1e5;

/// `x = k pi/2 + r`: `k` as `i32`, and `r`. The first part of `pi/2` leaves an exact difference, by FMA.
fn reduced_by_half_pi(e: &mut dyn Emit, x: ValueId) -> (ValueId, ValueId) {
    let (two_over_pi, magic) = (e.f32(std::f32::consts::FRAC_2_PI), e.f32(MAGIC));
    let shifted = e.fma(x, two_over_pi, magic);
    let k = e.sub(shifted, magic);
    let mut r = x;
    for part in [0x3fc9_0fdb, 0xb33b_bd2e, 0xa6f7_2ced] {
        let part = e.f32(-f32::from_bits(part));
        r = e.fma(k, part, r);
    }
    (integer_of(e, shifted), r)
}

/// The sine or cosine of `r`, as a quarter turn says, with its sign: `sin(r + quarter pi/2)`.
fn sine_of(e: &mut dyn Emit, quarter: ValueId, r: ValueId) -> ValueId {
    let z = e.mul(r, r);
    let p = polynomial(e, z, &[2.833_043_7e-6, -1.985_309e-4, 8.333_379e-3, -1.666_666_7e-1]);
    let rz = e.mul(r, z);
    let sine = e.fma(p, rz, r);
    let p = polynomial(e, z, &[-2.888_121_5e-7, 2.482_202_2e-5, -1.388_898e-3, 4.166_666_8e-2]);
    let (minus_half, one) = (e.f32(-0.5), e.f32(1.0));
    let zz = e.mul(z, z);
    let cosine = e.fma(z, minus_half, one);
    let cosine = e.fma(p, zz, cosine);
    let (odd_bit, zero) = (e.i32(1), e.i32(0));
    let odd = e.binary(BinaryOp::And, quarter, odd_bit);
    let is_even = e.eq(odd, zero);
    let value = e.select(is_even, sine, cosine);
    let (two, thirty) = (e.i32(2), e.i32(30));
    let sign = e.binary(BinaryOp::And, quarter, two);
    let sign = e.machine(MachineOp::ShiftLeft, &[sign, thirty]);
    let bits = e.machine(MachineOp::BitsOfF32, &[value]);
    let bits = e.binary(BinaryOp::Xor, bits, sign);
    e.machine(MachineOp::F32OfBits, &[bits])
}

/// `sin x` below [`SINE_LIMIT`].
pub(super) fn sin(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (k, r) = reduced_by_half_pi(e, x);
    let value = sine_of(e, k, r);
    let zero = e.f32(0.0);
    let is_zero = e.eq(x, zero);
    e.select(is_zero, x, value)
}

/// `cos x` below [`SINE_LIMIT`].
pub(super) fn cos(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (k, r) = reduced_by_half_pi(e, x);
    let one = e.i32(1);
    let k = e.add(k, one);
    sine_of(e, k, r)
}

/// `erf x`, on the magnitude `t`: an odd polynomial below 0.92, `1 - e^-q(t)` above. From 4 on it is 1.
pub(super) fn erf(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (magnitude, four) = (e.abs(x), e.f32(4.0));
    let beyond = e.lt(four, magnitude);
    let t = e.select(beyond, four, magnitude);
    let s = e.mul(t, t);
    let p = polynomial(
        e,
        s,
        &[7.991_272e-5, -8.048_883e-4, 5.192_359e-3, -2.685_572_4e-2, 1.128_362_6e-1, -3.761_263e-1, 1.283_791_7e-1],
    );
    let small = e.fma(p, t, t);
    let q = polynomial(
        e,
        t,
        &[
            5.298_297e-6,
            -4.995_329e-5,
            -2.738_353_2e-5,
            2.869_012_8e-3,
            -2.257_549_2e-2,
            1.051_694_2e-1,
            6.356_732e-1,
            1.285_414_4e-1,
        ],
    );
    let q = e.fma(q, t, t);
    let q = e.neg(q);
    let (power, one) = (exp(e, q), e.f32(1.0));
    let large = e.sub(one, power);
    let limit = e.f32(0.92);
    let is_small = e.lt(t, limit);
    let value = e.select(is_small, small, large);
    e.binary(BinaryOp::Copysign, value, x)
}

/// Horner's scheme in `f64`.
fn wide_polynomial(e: &mut dyn Emit, x: ValueId, coefficients: &[f64]) -> ValueId {
    let mut acc = e.constant(Literal::F64(coefficients[0]));
    for &c in &coefficients[1..] {
        let c = e.constant(Literal::F64(c));
        acc = e.mul(acc, x);
        acc = e.add(acc, c);
    }
    acc
}

/// `log2 x` of a magnitude, in `f64`.
fn wide_log2(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (n, m) = decomposed(e, x);
    let (n, m) = (e.convert(ScalarType::F64, n), e.convert(ScalarType::F64, m));
    let one = e.number(m, 1.0);
    let (below, above) = (e.sub(m, one), e.add(m, one));
    let s = e.div(below, above);
    let z = e.mul(s, s);
    let p = wide_polynomial(
        e,
        z,
        &[
            0.246_682_085_743_090_42,
            0.261_101_341_053_032_3,
            0.320_628_084_547_269_76,
            0.412_198_218_931_367_6,
            0.577_078_018_515_821_5,
            0.961_796_693_921_197_9,
            2.885_390_081_777_928,
        ],
    );
    let p = e.mul(p, s);
    let p = e.add(p, n);
    // Zero, infinity and NaN stand for themselves, the first as its logarithm.
    let (zero, infinity, minus_infinity) = (e.f32(0.0), e.f32(f32::INFINITY), e.f32(f32::NEG_INFINITY));
    let (positive, finite) = (e.lt(zero, x), e.lt(x, infinity));
    let normal = e.binary(BinaryOp::And, positive, finite);
    let is_zero = e.eq(x, zero);
    let special = e.select(is_zero, minus_infinity, x);
    let special = e.convert(ScalarType::F64, special);
    e.select(normal, p, special)
}

/// `2^t` of an `f64` as an `f32`, rounded once.
fn narrowed_exp2(e: &mut dyn Emit, t: ValueId) -> ValueId {
    let t = clamp(e, t, -200.0, 200.0);
    // As [`MAGIC`], for `f64`.
    let magic = e.number(t, 6_755_399_441_055_744.0);
    let shifted = e.add(t, magic);
    let k = e.sub(shifted, magic);
    let r = e.sub(t, k);
    let p = wide_polynomial(
        e,
        r,
        &[
            1.317_893_365_172_877e-6,
            1.530_915_640_928_228_7e-5,
            1.540_382_546_243_286_3e-4,
            1.333_345_485_922_963_4e-3,
            9.618_128_616_119_215e-3,
            5.550_410_935_267_81e-2,
            2.402_265_069_811_062e-1,
            6.931_471_805_482_118e-1,
            1.0,
        ],
    );
    let k = e.convert(ScalarType::F32, k);
    let (k, one) = (e.convert(ScalarType::I32, k), e.i32(1));
    let half = e.machine(MachineOp::ShiftRight, &[k, one]);
    let rest = e.sub(k, half);
    let mut value = p;
    for n in [half, rest] {
        let scale = power_of_two(e, n);
        let scale = e.convert(ScalarType::F64, scale);
        value = e.mul(value, scale);
    }
    e.convert(ScalarType::F32, value)
}

/// `x^y` as `2^(y log2 |x|)` in `f64`, with the sign of an odd power.
pub(super) fn pow(e: &mut dyn Emit, x: ValueId, y: ValueId) -> ValueId {
    let magnitude = e.abs(x);
    let log = wide_log2(e, magnitude);
    let exponent = e.convert(ScalarType::F64, y);
    let t = e.mul(exponent, log);
    let power = narrowed_exp2(e, t);

    // Integers are their own floor; odd ones are not twice an integer.
    let (zero, half, one) = (e.f32(0.0), e.f32(0.5), e.f32(1.0));
    let (infinity, minus_infinity, nan) = (e.f32(f32::INFINITY), e.f32(f32::NEG_INFINITY), e.f32(f32::NAN));
    let floor = e.unary(UnaryOp::Floor, y);
    let is_integer = e.eq(floor, y);
    let halved = e.mul(y, half);
    let floor = e.unary(UnaryOp::Floor, halved);
    let below = e.lt(floor, halved);
    let is_odd = e.binary(BinaryOp::And, is_integer, below);
    let signed = e.binary(BinaryOp::Copysign, power, x);
    let power = e.select(is_odd, signed, power);

    let (negative, finite) = (e.lt(x, zero), e.lt(minus_infinity, x));
    let negative = e.binary(BinaryOp::And, negative, finite);
    let power_or_nan = e.select(is_integer, power, nan);
    let power = e.select(negative, power_or_nan, power);

    let (by_zero, of_one) = (e.eq(y, zero), e.eq(x, one));
    let size = e.abs(y);
    let (of_unit, by_infinity) = (e.eq(magnitude, one), e.eq(size, infinity));
    let unit = e.binary(BinaryOp::And, of_unit, by_infinity);
    let is_one = e.binary(BinaryOp::Or, by_zero, of_one);
    let is_one = e.binary(BinaryOp::Or, is_one, unit);
    e.select(is_one, one, power)
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
    let (zero, one) = (e.f32(0.0), e.f32(1.0));
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

/// `tanh x`, on the magnitude: an odd polynomial below 0.625, `1 - 2 / (e^(2|x|) + 1)` above. The sign bit is that of `x`,
/// so that zeros keep theirs.
pub(super) fn tanh(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let magnitude = e.abs(x);
    let z = e.mul(x, x);
    let p = polynomial(e, z, &[-5.704_988_6e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let p = e.mul(p, z);
    let small = e.fma(p, magnitude, magnitude);
    let double = e.add(magnitude, magnitude);
    let power = exp(e, double);
    let (one, two, limit) = (e.f32(1.0), e.f32(2.0), e.f32(0.625));
    let denominator = e.add(power, one);
    let q = e.div(two, denominator);
    let large = e.sub(one, q);
    let is_small = e.lt(magnitude, limit);
    let value = e.select(is_small, small, large);
    e.binary(BinaryOp::Copysign, value, x)
}
