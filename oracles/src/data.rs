//! The elements of random programs.

use crate::program::Values;
use crate::rng::Rng;
use lazuli_ir::reference::Dense;
use lazuli_ir::{DType, Literal, TensorType};

/// The largest magnitude of a small integer.
pub(crate) const LARGEST: f64 = 8.0;

/// What makes floats of a dtype go wrong: zeros of both signs, the smallest and the largest numbers and what is just beyond,
/// infinities, NaN, the first integer that is not exact.
fn special(dtype: DType) -> [Literal; 14] {
    let of = |v: f64| Literal::from_f64(dtype, v);
    let (largest, inexact) = (dtype.largest(), 2.0 / dtype.epsilon() + 1.0);
    [
        of(0.0),
        of(-0.0),
        Literal::from_bits(dtype, 1),
        of(f64::from(f32::MIN_POSITIVE)),
        of(largest),
        of(-largest),
        of(largest * (1.0 + dtype.epsilon() / 4.0)),
        of(f64::INFINITY),
        of(f64::NEG_INFINITY),
        of(f64::NAN),
        of(inexact),
        of(0.5),
        of(1.0),
        of(-1.0),
    ]
}

/// One element.
pub(crate) fn literal(random: &mut Rng, dtype: DType, values: Values) -> Literal {
    let small = random.below(17) as i64 - LARGEST as i64;
    match (dtype, values) {
        (_, Values::Special) if dtype.is_float() => {
            let special = if random.one_in(12) { random.pick(&special(dtype)) } else { None };
            special.unwrap_or(Literal::from_f64(dtype, f64::from(random.signed() * 4.0)))
        }
        (_, Values::Special) if dtype.is_int() && random.one_in(12) => match random.below(3) {
            0 => Literal::lowest(dtype),
            1 => Literal::highest(dtype),
            _ => Literal::from_i64(dtype, -1),
        },
        (DType::Bool, _) => Literal::Bool(small > 0),
        // Small numbers that wrap would not be small.
        (DType::U8, _) => Literal::from_i64(dtype, small.abs()),
        _ => Literal::from_i64(dtype, small),
    }
}

/// What stands where nothing should be read: a NaN with a payload, or a number that no program makes.
pub(crate) fn garbage(dtype: DType) -> Literal {
    match dtype {
        DType::Bool => Literal::Bool(true),
        DType::U8 => Literal::U8(0xad),
        DType::I32 => Literal::I32(0x5eed_dead),
        DType::I64 => Literal::I64(0x5eed_dead_beef),
        DType::F16 => Literal::from_bits(dtype, 0x7ead),
        DType::BF16 => Literal::from_bits(dtype, 0x7fcd),
        DType::F32 => Literal::from_bits(dtype, 0x7fc0_dead),
        DType::F64 => Literal::from_bits(dtype, 0x7ff8_0000_dead_beef),
    }
}

/// A tensor of random elements. Half of those with special values in principle have none: a single NaN makes most of what
/// follows from it NaN, which hides other mistakes.
pub(crate) fn tensor(random: &mut Rng, ty: &TensorType, values: Values) -> Dense {
    let plain = values == Values::Special && ty.dtype.is_float() && random.one_in(2);
    let mut one = || {
        if plain {
            Literal::from_f64(ty.dtype, f64::from(random.signed() * 4.0))
        } else {
            literal(random, ty.dtype, values)
        }
    };
    of_literals(ty, (0..ty.shape.elements()).map(|_| one()).collect())
}

/// The tensor of these elements, which are as many as the type says.
pub(crate) fn of_literals(ty: &TensorType, literals: Vec<Literal>) -> Dense {
    Dense::of_literals(ty, literals).unwrap_or_else(|_| Dense::splat(Literal::zero(ty.dtype), &ty.shape))
}
