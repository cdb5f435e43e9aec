//! Which dtype operands meet in: PyTorch's `result_type` with its three ranks, and which shape, by broadcasting.
//!
//! Tensors with dims outrank 0-d tensors, which outrank numbers. A lower rank decides only by *kind* (boolean, integer,
//! float): it raises the result where its kind is higher, and never widens within a kind.

use crate::Tensor;
use crate::operand::Argument;
use lazuli_ir::{DType, Dim, DimVec, ErrorKind, Shape};

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

/// The dtype of two of one rank: the higher kind, and within it the wider; halves of different form meet in `f32`.
fn wider(a: DType, b: DType) -> DType {
    match (a, b) {
        (DType::F16, DType::BF16) | (DType::BF16, DType::F16) => DType::F32,
        _ => a.max(b),
    }
}

fn outranked(high: Option<DType>, low: Option<DType>) -> Option<DType> {
    match (high, low) {
        (Some(h), Some(l)) => Some(if kind(l) > kind(h) { wider(h, l) } else { h }),
        (one, None) | (None, one) => one,
    }
}

fn kind(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 0,
        DType::U8 | DType::I32 | DType::I64 => 1,
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => 2,
    }
}

/// The dtype in which functions of floats take a dtype: integers and booleans are taken as the default float dtype.
pub(crate) fn float_type(dtype: DType) -> DType {
    if dtype.is_float() { dtype } else { DType::F32 }
}

/// The dtype in which composites of floats compute: that of `f32` for halves, which are rounded once, at the end.
pub(crate) fn wide(dtype: DType) -> DType {
    if dtype.is_half() { DType::F32 } else { dtype }
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

/// The tensors among operands, for errors.
pub(crate) fn tensors<'a>(arguments: &[Argument<'a>]) -> Vec<&'a Tensor> {
    let tensor = |a: &Argument<'a>| match a {
        Argument::Tensor(t) => Some(*t),
        Argument::Number(_) => None,
    };
    arguments.iter().filter_map(tensor).collect()
}

/// The shape of an operand.
pub(crate) fn shape_of(argument: Argument<'_>) -> Shape {
    match argument {
        Argument::Tensor(t) => t.extent_shape().clone(),
        Argument::Number(_) => Shape::scalar(),
    }
}

/// The shape to which all operands broadcast.
pub(crate) fn common_shape(arguments: &[Argument<'_>]) -> Result<Shape, String> {
    let mut shape = Shape::scalar();
    for argument in arguments {
        if let Argument::Tensor(t) = argument {
            shape = broadcast_shapes(&shape, t.extent_shape())?;
        }
    }
    Ok(shape)
}

/// Operands of a composite, brought to one shape and to the dtype in which it computes.
pub(crate) struct Meeting<const N: usize> {
    /// The operands.
    pub(crate) operands: [Tensor; N],
    /// The dtype of the result.
    pub(crate) dtype: DType,
}

/// Brings operands of a composite together: in the `wide` form of their common dtype, which `rule` may change or refuse.
#[track_caller]
pub(crate) fn gather_operands<const N: usize>(
    name: &'static str,
    arguments: [Argument<'_>; N],
    rule: fn(DType) -> Result<DType, &'static str>,
) -> Result<Meeting<N>, Tensor> {
    let dtype = match rule(result_type(&arguments)) {
        Ok(dtype) => dtype,
        Err(message) => return Err(Tensor::fail(name, &tensors(&arguments), ErrorKind::DType, message)),
    };
    let shape = match common_shape(&arguments) {
        Ok(shape) => shape,
        Err(message) => return Err(Tensor::fail(name, &tensors(&arguments), ErrorKind::Shape, message)),
    };
    let mut fitted: DimVec<Tensor> = DimVec::new();
    for argument in arguments {
        fitted.push(Tensor::fit(argument, wide(dtype), &shape));
    }
    match <[Tensor; N]>::try_from(fitted.into_vec()) {
        Ok(operands) => Ok(Meeting { operands, dtype }),
        Err(_) => Err(Tensor::fail(name, &tensors(&arguments), ErrorKind::Internal, "operands were lost")),
    }
}

/// Integers and booleans as the default float dtype.
pub(crate) fn as_floats(dtype: DType) -> Result<DType, &'static str> {
    Ok(float_type(dtype))
}

/// Floats only.
pub(crate) fn floats_only(dtype: DType) -> Result<DType, &'static str> {
    if dtype.is_float() { Ok(dtype) } else { Err("needs floating point operands; convert with `to(DType::F32)`") }
}

/// Integers and floats.
pub(crate) fn no_booleans(dtype: DType) -> Result<DType, &'static str> {
    if dtype == DType::Bool { Err("is not defined for booleans") } else { Ok(dtype) }
}

/// Any dtype.
pub(crate) fn any_dtype(dtype: DType) -> Result<DType, &'static str> {
    Ok(dtype)
}

impl Tensor {
    /// The tensor in the dtype in which a composite named `name` computes: integers and booleans as floats.
    #[track_caller]
    pub(crate) fn as_float(&self, name: &'static str) -> Tensor {
        self.cast(name, wide(float_type(self.dtype())))
    }

    /// The tensor of floats in the dtype in which a composite named `name` computes, or an error of it.
    #[track_caller]
    pub(crate) fn floats(&self, name: &'static str) -> Result<Tensor, Tensor> {
        if self.dtype().is_float() {
            return Ok(self.cast(name, wide(self.dtype())));
        }
        let message = format!("needs a floating point tensor, not {}; convert with `to(DType::F32)`", self.dtype());
        Err(Tensor::fail(name, &[self], ErrorKind::DType, message))
    }

    /// A composite's result: rounded to its dtype, and under the composite's name.
    #[track_caller]
    pub(crate) fn rounded(self, name: &'static str, dtype: DType, operands: &[&Tensor]) -> Tensor {
        self.cast(name, dtype).named(name, operands)
    }
}
