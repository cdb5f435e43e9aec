//! Halves in `f32` registers, as straight-line Kernel IR for every back end: the conversions of loads and stores, and the
//! rounding after operations. All in arithmetic on the bits, so that vectors run the same code.

use crate::kernel::{Emit, Expr, Kernel, MachineOp, Memory, ValueId};
use crate::{BinaryOp, CompareOp};

/// A float type of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// `f16`.
    F16,
    /// `bf16`.
    BF16,
}

impl Half {
    /// The half type that a dtype is.
    pub fn of(dtype: crate::DType) -> Option<Half> {
        match dtype {
            crate::DType::F16 => Some(Half::F16),
            crate::DType::BF16 => Some(Half::BF16),
            _ => None,
        }
    }
}

const MAGNITUDE: i32 = i32::MAX;
/// The bits of 2^-14, the smallest normal `f16`.
const SMALLEST_NORMAL: i32 = 0x3880_0000;
/// What the exponent of an `f32` is larger by than that of an `f16`, in place.
const REBIAS: i32 = (127 - 15) << 23;

/// The `f32` of a half, whose bits are the low ones of an `i32` that has no others.
pub fn widen(e: &mut dyn Emit, half: Half, bits: ValueId) -> ValueId {
    match half {
        Half::BF16 => {
            let sixteen = e.i32(16);
            let bits = e.machine(MachineOp::ShiftLeft, &[bits, sixteen]);
            of_bits(e, bits)
        }
        Half::F16 => {
            let (magnitude, sixteen, thirteen) = (e.i32(0x7fff), e.i32(16), e.i32(13));
            let magnitude = e.binary(BinaryOp::And, bits, magnitude);
            let sign = e.binary(BinaryOp::Xor, bits, magnitude);
            let sign = e.machine(MachineOp::ShiftLeft, &[sign, sixteen]);
            // The product with 2^112 moves the exponent, exactly, and makes subnormals normal.
            let shifted = e.machine(MachineOp::ShiftLeft, &[magnitude, thirteen]);
            let (number, scale) = (of_bits(e, shifted), e.f32(5.192_297e33));
            let number = e.mul(number, scale);
            let number = bits_of(e, number);
            let (infinity, exponent) = (e.i32(0x7c00), e.i32(0x7f80_0000));
            let finite = e.lt(magnitude, infinity);
            let special = e.binary(BinaryOp::Or, number, exponent);
            let number = e.select(finite, number, special);
            let number = e.binary(BinaryOp::Or, number, sign);
            of_bits(e, number)
        }
    }
}

/// How a number came to be one that a half holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This one was rounded.
    Rounded(ValueId),
    /// It was read from memory of halves.
    Read,
}

impl Origin {
    /// The origin of what an expression gives, where it is a half of some type.
    pub fn of(kernel: &Kernel, expr: &Expr) -> Option<(Half, Origin)> {
        match expr {
            Expr::Machine(MachineOp::RoundF16, operands) => Some((Half::F16, Origin::Rounded(operands[0]))),
            Expr::Machine(MachineOp::RoundBF16, operands) => Some((Half::BF16, Origin::Rounded(operands[0]))),
            Expr::Load { from, .. } => {
                let dtype = match from {
                    Memory::Param(p) => kernel.params.get(p.index())?.dtype,
                    Memory::Tile(t) => kernel.tiles.get(t.index())?.dtype,
                };
                Half::of(dtype).map(|half| (half, Origin::Read))
            }
            _ => None,
        }
    }
}

/// The bits of an `f32` that a half holds.
pub fn bits_of_exact(e: &mut dyn Emit, half: Half, x: ValueId) -> ValueId {
    match half {
        Half::BF16 => {
            let (bits, sixteen) = (bits_of(e, x), e.i32(16));
            e.machine(MachineOp::ShiftRightLogical, &[bits, sixteen])
        }
        Half::F16 => narrow(e, half, x),
    }
}

/// The bits of an `f32` rounded to a half, in the low half of an `i32` that has no others.
pub fn narrow(e: &mut dyn Emit, half: Half, x: ValueId) -> ValueId {
    let (bits, sixteen) = (bits_of(e, x), e.i32(16));
    let is_nan = e.compare(CompareOp::Ne, x, x);
    match half {
        Half::BF16 => {
            let rounded = rounded(e, bits, 16);
            let quiet = e.i32(0x0040_0000);
            let nan = e.binary(BinaryOp::Or, bits, quiet);
            let bits = e.select(is_nan, nan, rounded);
            e.machine(MachineOp::ShiftRightLogical, &[bits, sixteen])
        }
        Half::F16 => {
            let (magnitude, thirteen) = (e.i32(MAGNITUDE), e.i32(13));
            let magnitude = e.binary(BinaryOp::And, bits, magnitude);
            let sign = e.binary(BinaryOp::Xor, bits, magnitude);
            let sign = e.machine(MachineOp::ShiftRightLogical, &[sign, sixteen]);
            let normal = rounded(e, magnitude, 13);
            let rebias = e.i32(REBIAS);
            let normal = e.sub(normal, rebias);
            let normal = e.machine(MachineOp::ShiftRightLogical, &[normal, thirteen]);
            let infinity = e.i32(0x7c00);
            let normal = e.binary(BinaryOp::Min, normal, infinity);
            let half_bits = e.i32(0x3f00_0000);
            let subnormal = on_subnormal_grid(e, magnitude);
            let subnormal = bits_of(e, subnormal);
            let subnormal = e.sub(subnormal, half_bits);
            let (smallest, nan) = (e.i32(SMALLEST_NORMAL), e.i32(0x7e00));
            let is_subnormal = e.lt(magnitude, smallest);
            let number = e.select(is_subnormal, subnormal, normal);
            let number = e.select(is_nan, nan, number);
            e.binary(BinaryOp::Or, number, sign)
        }
    }
}

/// An `f32` rounded to what a half holds.
pub fn round(e: &mut dyn Emit, half: Half, x: ValueId) -> ValueId {
    let bits = bits_of(e, x);
    let is_nan = e.compare(CompareOp::Ne, x, x);
    let number = match half {
        Half::BF16 => {
            let (rounded, upper) = (rounded(e, bits, 16), e.i32(!0xffff));
            let bits = e.binary(BinaryOp::And, rounded, upper);
            of_bits(e, bits)
        }
        Half::F16 => {
            let magnitude = e.i32(MAGNITUDE);
            let magnitude = e.binary(BinaryOp::And, bits, magnitude);
            let sign = e.binary(BinaryOp::Xor, bits, magnitude);
            let (normal, upper) = (rounded(e, magnitude, 13), e.i32(!0x1fff));
            let normal = e.binary(BinaryOp::And, normal, upper);
            let (beyond, infinity) = (e.i32(0x4780_0000), e.i32(0x7f80_0000));
            let fits = e.lt(normal, beyond);
            let normal = e.select(fits, normal, infinity);
            let (subnormal, half) = (on_subnormal_grid(e, magnitude), e.f32(0.5));
            let subnormal = e.sub(subnormal, half);
            let subnormal = bits_of(e, subnormal);
            let smallest = e.i32(SMALLEST_NORMAL);
            let is_subnormal = e.lt(magnitude, smallest);
            let number = e.select(is_subnormal, subnormal, normal);
            let number = e.binary(BinaryOp::Or, number, sign);
            of_bits(e, number)
        }
    };
    e.select(is_nan, x, number)
}

/// Bits plus what carries into bit `dropped` where the bits below it round up, ties to even.
fn rounded(e: &mut dyn Emit, bits: ValueId, dropped: i32) -> ValueId {
    let (count, one, below_half) = (e.i32(dropped), e.i32(1), e.i32((1 << (dropped - 1)) - 1));
    let odd = e.machine(MachineOp::ShiftRightLogical, &[bits, count]);
    let odd = e.binary(BinaryOp::And, odd, one);
    let sum = e.add(bits, below_half);
    e.add(sum, odd)
}

/// A small magnitude plus 1/2, whose last place is that of subnormal `f16`s: the addition rounds.
fn on_subnormal_grid(e: &mut dyn Emit, magnitude: ValueId) -> ValueId {
    let (number, half) = (of_bits(e, magnitude), e.f32(0.5));
    e.add(number, half)
}

fn bits_of(e: &mut dyn Emit, x: ValueId) -> ValueId {
    e.machine(MachineOp::Bits, &[x])
}

fn of_bits(e: &mut dyn Emit, x: ValueId) -> ValueId {
    e.machine(MachineOp::OfBits, &[x])
}
