//! Sine and cosine: `x = k pi/2 + r`, a polynomial in `r` for each, chosen and signed by `k`.

use super::{Coefficients, either, format, integer_of, polynomial};
use crate::kernel::{Emit, MachineOp, ScalarType, ValueId};
use crate::{BinaryOp, Literal};

/// Arguments of this size and beyond are not reduced well enough by [`reduced_by_half_pi`].
pub(in crate::elementwise) const SINE_LIMIT: f64 = 1e5;

/// `(sin r - r) / r^3` in `r^2`, for `r` up to `pi / 4`.
const SINE: Coefficients = Coefficients {
    narrow: &[2.833_043_7e-6, -1.985_309e-4, 8.333_379e-3, -1.666_666_7e-1],
    wide: &[
        1.589_618_977_343_222e-10,
        -2.505_074_645_334_885_4e-8,
        2.755_731_360_706_727_4e-6,
        -1.984_126_982_952_069_2e-4,
        8.333_333_333_321_973e-3,
        -1.666_666_666_666_663e-1,
    ],
};

/// `(cos r - 1 + r^2 / 2) / r^4` in `r^2`.
const COSINE: Coefficients = Coefficients {
    narrow: &[-2.888_121_5e-7, 2.482_202_2e-5, -1.388_898e-3, 4.166_666_8e-2],
    wide: &[
        -1.135_908_731_008_471_1e-11,
        2.087_571_154_221_163_5e-9,
        -2.755_731_425_770_238e-7,
        2.480_158_728_911_735_7e-5,
        -1.388_888_888_887_346e-3,
        4.166_666_666_666_659_5e-2,
    ],
};

/// `x = k pi/2 + r + low`.
struct Reduced {
    k: ValueId,
    r: ValueId,
    /// What `r` lacks, of `f64`: an `f64` may be so near a multiple of `pi/2` that its own digits do not tell `r`.
    low: Option<ValueId>,
}

/// The first part of `pi/2` leaves an exact difference, by FMA.
fn reduced_by_half_pi(e: &mut dyn Emit, x: ValueId) -> Reduced {
    let magic = format(e, x).magic;
    let two_over_pi = either(e, x, std::f32::consts::FRAC_2_PI, std::f64::consts::FRAC_2_PI);
    let magic = e.number(x, magic);
    let shifted = e.fma(x, two_over_pi, magic);
    let k = e.sub(shifted, magic);
    let whole = integer_of(e, shifted);
    if e.type_of(x) != ScalarType::F64 {
        let mut r = x;
        for part in [0x3fc9_0fdb, 0xb33b_bd2e, 0xa6f7_2ced] {
            let part = e.f32(-f32::from_bits(part));
            r = e.fma(k, part, r);
        }
        return Reduced { k: whole, r, low: None };
    }
    let parts = [0x3ff9_21fb_5444_2d18, 0x3c91_a626_3314_5c07, 0xb91f_1976_b7ed_8fbc];
    let parts = parts.map(|bits| e.constant(Literal::F64(f64::from_bits(bits))));
    let minus = parts.map(|p| e.neg(p));
    let first = e.fma(k, minus[0], x);
    // The second product and its difference, with what each lost.
    let product = e.mul(k, minus[1]);
    let negated = e.neg(product);
    let lost = e.fma(k, minus[1], negated);
    let r = e.add(first, product);
    let of_product = e.sub(r, first);
    let of_first = e.sub(r, of_product);
    let (a, b) = (e.sub(first, of_first), e.sub(product, of_product));
    let low = e.add(a, b);
    let low = e.add(low, lost);
    Reduced { k: whole, r, low: Some(e.fma(k, minus[2], low)) }
}

/// The sine or cosine of `r`, as a quarter turn says, with its sign: `sin(r + quarter pi/2)`.
fn sine_of(e: &mut dyn Emit, quarter: ValueId, r: ValueId, low: Option<ValueId>) -> ValueId {
    let z = e.mul(r, r);
    let p = polynomial(e, z, &SINE);
    let rz = e.mul(r, z);
    let (minus_half, one) = (e.number(r, -0.5), e.number(r, 1.0));
    let cosine = e.fma(z, minus_half, one);
    let sine = match low {
        None => e.fma(p, rz, r),
        Some(low) => {
            // `sin(r + low)` is `sin r + low cos r`.
            let turned = e.mul(low, cosine);
            let rest = e.fma(p, rz, turned);
            e.add(r, rest)
        }
    };
    let p = polynomial(e, z, &COSINE);
    let zz = e.mul(z, z);
    let cosine = match low {
        None => e.fma(p, zz, cosine),
        Some(low) => {
            // `cos(r + low)` is `cos r - low sin r`, and the sum of 1 and `-z/2` lost some digits, too.
            let below = e.sub(cosine, one);
            let negated = e.neg(below);
            let lost = e.fma(z, minus_half, negated);
            let minus_r = e.neg(r);
            let rest = e.fma(minus_r, low, lost);
            let rest = e.fma(p, zz, rest);
            e.add(cosine, rest)
        }
    };
    let (odd_bit, zero) = (e.integer(quarter, 1), e.integer(quarter, 0));
    let odd = e.binary(BinaryOp::And, quarter, odd_bit);
    let is_even = e.eq(odd, zero);
    let value = e.select(is_even, sine, cosine);
    // The second bit of the quarter moves to the sign.
    let (two, places) = (e.integer(quarter, 2), if e.type_of(r) == ScalarType::F64 { 62 } else { 30 });
    let places = e.integer(quarter, places);
    let sign = e.binary(BinaryOp::And, quarter, two);
    let sign = e.machine(MachineOp::ShiftLeft, &[sign, places]);
    let bits = e.machine(MachineOp::Bits, &[value]);
    let bits = e.binary(BinaryOp::Xor, bits, sign);
    e.machine(MachineOp::OfBits, &[bits])
}

/// `sin x` below [`SINE_LIMIT`].
pub(in crate::elementwise) fn sin(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let Reduced { k, r, low } = reduced_by_half_pi(e, x);
    let value = sine_of(e, k, r, low);
    let zero = e.number(x, 0.0);
    let is_zero = e.eq(x, zero);
    e.select(is_zero, x, value)
}

/// `cos x` below [`SINE_LIMIT`].
pub(in crate::elementwise) fn cos(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let Reduced { k, r, low } = reduced_by_half_pi(e, x);
    let one = e.integer(k, 1);
    let k = e.add(k, one);
    sine_of(e, k, r, low)
}
