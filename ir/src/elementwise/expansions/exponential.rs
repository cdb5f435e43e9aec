//! Exponentials: `x = n ln 2 + r`, a polynomial in `r`, scaled by `2^n`.

use super::{Coefficients, at_most, clamp, either, format, integer_of, polynomial, power_of_two};
use crate::kernel::{Emit, MachineOp, ValueId};

/// `(e^r - 1 - r) / r^2` for `r` up to `ln 2 / 2`.
const EXP: Coefficients = Coefficients {
    narrow: &[1.976_424_5e-4, 1.393_234_2e-3, 8.333_543e-3, 4.166_649_3e-2, 1.666_666_6e-1, 0.5],
    wide: &[
        2.502_007_485_057_281_3e-8,
        2.763_090_755_114_223e-7,
        2.755_752_164_644_174e-6,
        2.480_149_103_099_333_7e-5,
        1.984_126_958_119_648_7e-4,
        1.388_888_894_592_105_7e-3,
        8.333_333_333_458_665e-3,
        4.166_666_666_651_975e-2,
        1.666_666_666_666_647_1e-1,
        5.000_000_000_000_012e-1,
    ],
};

/// `(2^r - 1) / r` for `r` up to 1/2.
const EXP2: Coefficients = Coefficients {
    narrow: &[1.532_931e-4, 1.339_097e-3, 9.618_5e-3, 5.550_359_6e-2, 2.402_264_8e-1, 6.931_472e-1],
    wide: &[
        4.449_955_477_539_561e-10,
        7.073_826_046_303_358e-9,
        1.017_808_677_368_769_3e-7,
        1.321_543_500_111_084_8e-6,
        1.525_273_380_550_841_5e-5,
        1.540_353_045_776_501_4e-4,
        1.333_355_814_638_065_8e-3,
        9.618_129_107_593_498e-3,
        5.550_410_866_482_226e-2,
        2.402_265_069_591_013_3e-1,
        std::f64::consts::LN_2,
    ],
};

/// What scales to 0, so far below the smallest number that processors do not stop to look at an underflow: one by a little takes
/// sixty times as long as a product. Whole steps of it are still exact.
const VANISHES: f64 = -1e5;

/// The argument of an exponential that is 0 below `low` and overflows above `high`.
fn exponent_within(e: &mut dyn Emit, x: ValueId, low: ValueId, high: ValueId) -> ValueId {
    let vanishes = e.number(x, VANISHES);
    let below = e.lt(x, low);
    let x = e.select(below, vanishes, x);
    at_most(e, x, high)
}

/// What of `x = n ln 2 + r` is needed.
struct Reduced {
    /// `n` plus the magic number.
    shifted: ValueId,
    n: ValueId,
    r: ValueId,
}

fn reduced_by_ln2(e: &mut dyn Emit, x: ValueId) -> Reduced {
    let magic = format(e, x).magic;
    let (log2e, magic) = (either(e, x, std::f32::consts::LOG2_E, std::f64::consts::LOG2_E), e.number(x, magic));
    let shifted = e.fma(x, log2e, magic);
    let n = e.sub(shifted, magic);
    let ln2_high = either(e, x, -0.693_359_4, -std::f64::consts::LN_2);
    let ln2_low = either(e, x, 2.121_944_4e-4, -2.319_046_813_846_299_6e-17);
    let r = e.fma(n, ln2_high, x);
    Reduced { shifted, n, r: e.fma(n, ln2_low, r) }
}

/// `e^x`: a polynomial in `r`, scaled.
pub(in crate::elementwise) fn exp(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (low, high) = (either(e, x, -104.0, -746.0), either(e, x, 89.0, 710.0));
    let x = exponent_within(e, x, low, high);
    let Reduced { n, r, .. } = reduced_by_ln2(e, x);
    let (p, one) = (polynomial(e, r, &EXP), e.number(x, 1.0));
    let p = e.fma(p, r, one);
    let p = e.fma(p, r, one);
    e.machine(MachineOp::Scale, &[p, n])
}

/// `2^x`: `x = n + r` exactly, a polynomial in `r`, scaled.
pub(in crate::elementwise) fn exp2(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (low, high) = (either(e, x, -151.0, -1076.0), either(e, x, 129.0, 1025.0));
    let x = exponent_within(e, x, low, high);
    let magic = format(e, x).magic;
    let (magic, one) = (e.number(x, magic), e.number(x, 1.0));
    let shifted = e.add(x, magic);
    let n = e.sub(shifted, magic);
    let r = e.sub(x, n);
    let p = polynomial(e, r, &EXP2);
    let p = e.fma(p, r, one);
    e.machine(MachineOp::Scale, &[p, n])
}

/// `e^x - 1` is `2^n (e^r - 1) + (2^n - 1)`, computed at half its size, which overflows where the result does.
pub(in crate::elementwise) fn expm1(e: &mut dyn Emit, argument: ValueId) -> ValueId {
    let (low, high) = (either(e, argument, -20.0, -40.0), either(e, argument, 89.0, 710.0));
    let x = clamp(e, argument, low, high);
    let Reduced { shifted, r, .. } = reduced_by_ln2(e, x);
    let p = polynomial(e, r, &EXP);
    let rr = e.mul(r, r);
    let p = e.mul(p, rr);
    let n = integer_of(e, shifted);
    let one = e.integer(n, 1);
    let below = e.sub(n, one);
    let (scale, half) = (power_of_two(e, below), e.number(x, 0.5));
    // Where they cancel, the sum of these is exact.
    let rest = e.sub(scale, half);
    let rest = e.fma(scale, r, rest);
    let q = e.fma(scale, p, rest);
    let q = e.add(q, q);
    // What is tiny is its own result: zeros keep their sign, subnormals all bits.
    let (size, tiny) = (e.abs(argument), either(e, x, 2.980_232_2e-8, 5.551_115_123_125_783e-17));
    let is_tiny = e.lt(size, tiny);
    e.select(is_tiny, argument, q)
}

/// The code of [`MachineOp::Scale`] where there is no instruction: two exact steps, so that subnormal results and overflow round
/// once.
pub fn scale(e: &mut dyn Emit, a: ValueId, b: ValueId) -> ValueId {
    let format = format(e, a);
    // Twice the least power of a normal number takes anything to 0.
    let least = e.number(b, 2.0 * (1 - format.bias) as f64);
    let below = e.lt(b, least);
    let b = e.select(below, least, b);
    let magic = e.number(b, format.magic);
    let shifted = e.add(b, magic);
    let n = integer_of(e, shifted);
    let one = e.integer(n, 1);
    let half = e.machine(MachineOp::ShiftRight, &[n, one]);
    let rest = e.sub(n, half);
    let power = power_of_two(e, half);
    let a = e.mul(a, power);
    let power = power_of_two(e, rest);
    e.mul(a, power)
}
