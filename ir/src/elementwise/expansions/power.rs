//! Powers of `f32`: `2^(y log2 |x|)` in `f64`.

use super::logarithm::decomposed;
use super::{clamp, format, power_of_two};
use crate::kernel::{Emit, MachineOp, ScalarType, ValueId};
use crate::{BinaryOp, Literal, UnaryOp};

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
    let (low, high) = (e.number(t, -200.0), e.number(t, 200.0));
    let t = clamp(e, t, low, high);
    let magic = format(e, t).magic;
    let magic = e.number(t, magic);
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
pub(in crate::elementwise) fn pow(e: &mut dyn Emit, x: ValueId, y: ValueId) -> ValueId {
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
