//! The elements of random programs.

use crate::program::Values;
use crate::rng::Rng;
use lazuli_ir::reference::{Data, Dense};
use lazuli_ir::{DType, Element, Literal, TensorType};

/// The largest magnitude of a small integer.
pub(crate) const LARGEST: f64 = 8.0;

/// One element.
pub(crate) fn literal(random: &mut Rng, dtype: DType, values: Values) -> Literal {
    const SPECIAL: [f32; 12] = [
        0.0,
        -0.0,
        1e-45,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        16_777_217.0,
        1.0,
        -1.0,
    ];
    let small = random.below(17) as i64 - LARGEST as i64;
    match (dtype, values) {
        (DType::F32, Values::Special) => {
            let special = if random.one_in(12) { random.pick(&SPECIAL) } else { None };
            Literal::F32(special.unwrap_or(random.signed() * 4.0))
        }
        (DType::I64, Values::Special) if random.one_in(12) => {
            Literal::I64(if random.one_in(2) { i64::MIN } else { i64::MAX })
        }
        (DType::Bool, _) => Literal::Bool(small > 0),
        (DType::I64 | DType::F32, _) => Literal::from_i64(dtype, small),
    }
}

/// A tensor of random elements. Half of those with special values in principle have none: a single NaN makes most of what
/// follows from it NaN, which hides other mistakes.
pub(crate) fn tensor(random: &mut Rng, ty: &TensorType, values: Values) -> Dense {
    let plain = values == Values::Special && ty.dtype.is_float() && random.one_in(2);
    let mut one = || if plain { Literal::F32(random.signed() * 4.0) } else { literal(random, ty.dtype, values) };
    of_literals(ty, (0..ty.shape.elements()).map(|_| one()).collect())
}

/// The tensor of these elements, which are as many as the type says.
pub(crate) fn of_literals(ty: &TensorType, literals: Vec<Literal>) -> Dense {
    let literals = literals.into_iter();
    let data = match ty.dtype {
        DType::Bool => Data::Bool(literals.map(bool::from_literal).collect()),
        DType::I64 => Data::Int(literals.map(i64::from_literal).collect()),
        DType::F32 => Data::Float(literals.map(Literal::as_f64).collect()),
    };
    Dense::new(ty.clone(), data).unwrap_or_else(|_| Dense::splat(Literal::zero(ty.dtype), &ty.shape))
}
