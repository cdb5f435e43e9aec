//! Which dtype operands meet in: PyTorch's `result_type` with its three ranks, and which shape, by broadcasting.
//!
//! Tensors with dims outrank 0-d tensors, which outrank numbers. A lower rank decides only by *kind* (boolean, integer,
//! float): it raises the result where its kind is higher, and never widens within a kind.

use crate::operand::Argument;
use lazuli_ir::{DType, Dim, DimVec, Shape};

/// The dtype in which these operands meet.
pub(crate) fn result_type(arguments: &[Argument<'_>]) -> DType {
    let (mut dims, mut scalars, mut numbers) = (None, None, None);
    for argument in arguments {
        let (rank, dtype) = match argument {
            Argument::Tensor(t) if t.is_weak() => (&mut numbers, t.dtype()),
            Argument::Tensor(t) if t.rank() == 0 => (&mut scalars, t.dtype()),
            Argument::Tensor(t) => (&mut dims, t.dtype()),
            Argument::Number(n) => (&mut numbers, n.dtype()),
        };
        *rank = Some(rank.map_or(dtype, |d| wider(d, dtype)));
    }
    outranked(outranked(dims, scalars), numbers).unwrap_or(DType::F32)
}

/// The dtype that holds both.
fn wider(a: DType, b: DType) -> DType {
    a.max(b)
}

fn outranked(high: Option<DType>, low: Option<DType>) -> Option<DType> {
    match (high, low) {
        (Some(h), Some(l)) => Some(if kind(l) > kind(h) { l } else { h }),
        (one, None) | (None, one) => one,
    }
}

fn kind(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        DType::I64 => 1,
        DType::F32 => 2,
    }
}

/// The shape to which both broadcast, or what does not fit, in words.
pub(crate) fn broadcast_shapes(a: &Shape, b: &Shape) -> Result<Shape, String> {
    let rank = a.rank().max(b.rank());
    let dim = |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map_or(Dim::new(1), |i| s.dim(i));
    let mut dims: DimVec<Dim> = DimVec::new();
    for i in 0..rank {
        let (m, n) = (dim(a, i), dim(b, i));
        if m.same(n) || n.is_one() {
            dims.push(m);
        } else if m.is_one() {
            dims.push(n);
        } else {
            return Err(format!(
                "shapes {a} and {b} cannot be broadcast: dim -{} has extents {m} and {n}, which must be equal or 1",
                rank - i
            ));
        }
    }
    Ok(Shape::from_dims(dims))
}
