//! Logarithms: `x = 2^n m`, a polynomial in `m - 1`.

use super::{Coefficients, either, format, polynomial, power_of_two};
use crate::BinaryOp;
use crate::kernel::{Emit, MachineOp, ValueId};

/// `(ln(1 + f) - f + f^2 / 2) / f^3` for `1 + f` in `[sqrt(1/2), sqrt(2))`.
const LOG: Coefficients = Coefficients {
    narrow: &[
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
    wide: &[
        -2.392_691_910_951_678_2e-2,
        5.656_043_387_207_268_5e-2,
        -6.274_701_736_862_416e-2,
        5.431_281_555_898_262_4e-2,
        -5.330_143_521_109_3e-2,
        5.815_360_775_318_826e-2,
        -6.269_054_886_274_78e-2,
        6.675_362_912_316_894e-2,
        -7.142_077_049_641_41e-2,
        7.691_702_112_174_933e-2,
        -8.333_341_275_641_372e-2,
        9.090_934_026_606_945e-2,
        -1.000_000_053_704_522_3e-1,
        1.111_111_049_912_925_5e-1,
        -1.249_999_997_901_043_3e-1,
        1.428_571_429_422_501_6e-1,
        -1.666_666_666_694_426_6e-1,
        1.999_999_999_994_127e-1,
        -2.499_999_999_999_881_2e-1,
        3.333_333_333_333_347_6e-1,
    ],
};

/// `x = 2^n m` with `m` in `[sqrt(1/2), sqrt(2))`, for positive and finite `x`; both of its type.
pub(super) fn decomposed(e: &mut dyn Emit, x: ValueId) -> (ValueId, ValueId) {
    let format = format(e, x);
    let smallest_normal = e.number(x, format.smallest_normal);
    let subnormal = e.lt(x, smallest_normal);
    let up = e.number(x, (1i64 << format.fraction_bits) as f64);
    let scaled = e.mul(x, up);
    let y = e.select(subnormal, scaled, x);
    let (n, m) = exponent_and_fraction(e, y);
    let n = e.convert(e.type_of(x), n);
    let (zero, down) = (e.number(x, 0.0), e.number(x, -(format.fraction_bits as f64)));
    let correction = e.select(subnormal, down, zero);
    (e.add(n, correction), m)
}

/// As [`decomposed`], for a normal number; `n` is an integer as wide.
fn exponent_and_fraction(e: &mut dyn Emit, x: ValueId) -> (ValueId, ValueId) {
    let format = format(e, x);
    let bits = e.machine(MachineOp::Bits, &[x]);
    let (sqrt_half, shift) = (e.integer(bits, format.sqrt_half_bits), e.integer(bits, format.fraction_bits));
    let above = e.sub(bits, sqrt_half);
    let n = e.machine(MachineOp::ShiftRight, &[above, shift]);
    let exponent = e.machine(MachineOp::ShiftLeft, &[n, shift]);
    let m = e.sub(bits, exponent);
    (n, e.machine(MachineOp::OfBits, &[m]))
}

/// `ln(1 + f) - f + f^2 / 2`, given `f^2`.
fn log_polynomial(e: &mut dyn Emit, f: ValueId, z: ValueId) -> ValueId {
    let p = polynomial(e, f, &LOG);
    let fz = e.mul(f, z);
    e.mul(p, fz)
}

/// `n ln 2 + ln(1 + f)`.
fn log_of(e: &mut dyn Emit, n: ValueId, f: ValueId) -> ValueId {
    let z = e.mul(f, f);
    let p = log_polynomial(e, f, z);
    let ln2_low = either(e, f, -2.121_944_4e-4, 2.319_046_813_846_299_6e-17);
    let (minus_half, ln2_high) = (e.number(f, -0.5), either(e, f, 0.693_359_4, std::f64::consts::LN_2));
    let p = e.fma(n, ln2_low, p);
    let p = e.fma(z, minus_half, p);
    let p = e.add(f, p);
    e.fma(n, ln2_high, p)
}

/// A logarithm of `x` with its special values: NaN below 0 and of NaN, minus infinity at 0, infinity of infinity.
fn log_specials(e: &mut dyn Emit, x: ValueId, p: ValueId) -> ValueId {
    let [infinity, minus_infinity, nan] = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(|v| e.number(x, v));
    let is_infinite = e.eq(x, infinity);
    let p = e.select(is_infinite, infinity, p);
    let zero = e.number(x, 0.0);
    let is_zero = e.eq(x, zero);
    let p = e.select(is_zero, minus_infinity, p);
    let in_domain = e.le(zero, x);
    e.select(in_domain, p, nan)
}

/// `ln x`: a polynomial in `m - 1`.
pub(in crate::elementwise) fn log(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (n, m) = decomposed(e, x);
    let one = e.number(x, 1.0);
    let f = e.sub(m, one);
    let p = log_of(e, n, f);
    log_specials(e, x, p)
}

/// `log2 x`: `ln m` times `log2 e` in two parts.
pub(in crate::elementwise) fn log2(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (n, m) = decomposed(e, x);
    let one = e.number(x, 1.0);
    let f = e.sub(m, one);
    let z = e.mul(f, f);
    let p = log_polynomial(e, f, z);
    let minus_half = e.number(x, -0.5);
    let p = e.fma(z, minus_half, p);
    let log2e = either(e, x, std::f32::consts::LOG2_E, std::f64::consts::LOG2_E);
    let log2e_low = either(e, x, 1.925_963e-8, 2.035_527_374_093_103_3e-17);
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
pub(in crate::elementwise) fn log1p(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let one = e.number(x, 1.0);
    let u = e.add(x, one);
    // The larger of the summands is subtracted first: exact.
    let (from_u, from_x) = (e.sub(u, one), e.sub(u, x));
    let (lost_of_x, lost_of_one) = (e.sub(x, from_u), e.sub(one, from_x));
    let large = e.lt(one, x);
    let lost = e.select(large, lost_of_one, lost_of_x);
    let (n, m) = exponent_and_fraction(e, u);
    let most = format(e, x).bias - 1;
    let (most, zero) = (e.integer(n, most), e.integer(n, 0));
    let bounded = e.binary(BinaryOp::Min, n, most);
    let negated = e.sub(zero, bounded);
    let scale = power_of_two(e, negated);
    let f = e.sub(m, one);
    let f = e.fma(lost, scale, f);
    let n = e.convert(e.type_of(x), n);
    let p = log_of(e, n, f);
    let p = log_specials(e, u, p);
    let zero = e.number(x, 0.0);
    let is_zero = e.eq(x, zero);
    e.select(is_zero, x, p)
}
