//! Runs one primitive on arrays: the executor behind eager evaluation.
//!
//! Results lie in row-major order, in storage of their own. Each primitive runs one cached kernel (see [`launch`]), except
//! that a pad and a concatenation are copies into views, an iota a view of a range, and what is more than a loop (contractions,
//! indexing by data, accumulations, sorts) or checks its operands a small compiled program: it gives the same bits as in
//! compiled functions.

mod constants;
mod launch;
mod program;

pub(crate) use constants::placed;

use launch::{Reduced, launch};
use lazuli_ir::{DType, Device, DimVec, Error, Layout, Literal, Op, PadDim, ReduceOp, Result, Shape, TensorType};
use lazuli_passes::primitive::{self, Primitive};
use lazuli_runtime::Array;
use smallvec::SmallVec;

/// Bytes of an operand from which on a program is worth its compilation where a loop would walk across memory.
const LARGE: usize = 1 << 20;

/// The value of `op`, of type `ty`, on these operands, computed on a device. Operands that lie elsewhere are copied there.
pub(crate) fn run(op: &Op, ty: &TensorType, operands: &[&Array], device: Device) -> Result<Array> {
    if operands.iter().all(|x| x.device() == device) {
        return run_there(op, ty, operands, device);
    }
    let moved = operands.iter().map(|x| placed(x, device)).collect::<Result<SmallVec<[Array; 3]>>>()?;
    run_there(op, ty, &moved.iter().collect::<SmallVec<[&Array; 3]>>(), device)
}

fn run_there(op: &Op, ty: &TensorType, operands: &[&Array], device: Device) -> Result<Array> {
    if primitive::checks(op, ty.dtype) || walks_across(op, operands) {
        return program::run(op, ty.dtype, operands, device);
    }
    match (op, operands) {
        (Op::Unary(op), [_]) => elementwise(Primitive::Unary(*op), ty, operands, device),
        (Op::Binary(op), [_, _]) => elementwise(Primitive::Binary(*op), ty, operands, device),
        (Op::Compare(op), [_, _]) => elementwise(Primitive::Compare(*op), ty, operands, device),
        (Op::Select, [_, _, _]) => elementwise(Primitive::Select, ty, operands, device),
        (Op::Cast(_), [_]) => elementwise(Primitive::Cast, ty, operands, device),
        (Op::Reshape(shape), [x]) => copy(x)?.with_layout(Layout::contiguous(shape.clone())),
        (Op::Iota { dim, shape }, []) => iota(*dim, shape, device),
        (Op::Random { stream, .. }, [base]) => random(*stream, ty, base, device),
        (Op::Pad(dims), [x, value]) => pad(dims, ty, x, value, device),
        (Op::Reduce { op, dims, .. }, [x]) => reduce(*op, dims, ty, x, device),
        (Op::Concat { dim, .. }, _) => concat(*dim, ty, operands, device),
        (
            Op::Dot { .. }
            | Op::WindowSum { .. }
            | Op::DynamicSlice(_)
            | Op::DynamicUpdateSlice { .. }
            | Op::CheckIndex { .. }
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Cumulative { .. }
            | Op::Sort { .. },
            _,
        ) => program::run(op, ty.dtype, operands, device),
        (
            Op::Input { .. }
            | Op::Constant { .. }
            | Op::Iota { .. }
            | Op::Alias
            | Op::Detach
            | Op::ToDevice { .. }
            | Op::Random { .. }
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Cast(_)
            | Op::Permute(_)
            | Op::Reshape(_)
            | Op::Broadcast { .. }
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Flip(_)
            | Op::Window(_)
            | Op::Reduce { .. },
            _,
        ) => Err(Error::internal(format!("{} of {} operands has no kernel", op.name(), operands.len()))),
    }
}

/// Whether the loop over the last dim, or those reduced, would walk across a large operand's memory: schedules that bring it in by
/// squares or columns are made for known extents.
fn walks_across(op: &Op, operands: &[&Array]) -> bool {
    let across = |x: &&Array| {
        let layout = x.layout();
        let long = |d: &usize| layout.stride(*d) != 0 && !layout.shape.dim(*d).is_one();
        let mut dims = (0..layout.shape.rank()).filter(long);
        let Some(near) = dims.clone().min_by_key(|d| layout.stride(*d).unsigned_abs()) else { return false };
        let walked = match op {
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) | Op::Reshape(_) => {
                dims.next_back() == Some(near)
            }
            Op::Reduce { dims, .. } => dims.contains(&near),
            _ => true,
        };
        !walked && x.ty().bytes() >= LARGE
    };
    operands.iter().any(across)
}

fn elementwise(primitive: Primitive, ty: &TensorType, operands: &[&Array], device: Device) -> Result<Array> {
    let out = Array::uninit_on(ty, device)?;
    let mut layouts: DimVec<&Layout> = operands.iter().map(|a| a.layout()).collect();
    layouts.push(out.layout());
    launch(primitive, &ty.shape, &layouts, Reduced::none(), operands, &out)?;
    drop(layouts);
    Ok(out)
}

/// The same elements, in row-major order.
fn copy(x: &Array) -> Result<Array> {
    elementwise(Primitive::Copy, &x.ty(), &[x], x.device())
}

/// Writes `x` into a view of another array.
fn copy_into(x: &Array, out: &Array) -> Result<()> {
    launch(Primitive::Copy, x.shape(), &[x.layout(), out.layout()], Reduced::none(), &[x], out)
}

fn iota(dim: usize, shape: &Shape, device: Device) -> Result<Array> {
    let line = Shape::from_dims([shape.dim(dim)]);
    let out = Array::uninit_on(&TensorType { shape: line.clone(), dtype: DType::I64 }, device)?;
    launch(Primitive::Arange, &line, &[out.layout()], Reduced::none(), &[], &out)?;
    out.with_layout(out.layout().broadcast(shape, &[dim]))
}

fn random(stream: u64, ty: &TensorType, base: &Array, device: Device) -> Result<Array> {
    let line = Shape::new([ty.shape.elements()]);
    let base = if stream == 0 && base.layout().is_contiguous() {
        base.clone()
    } else {
        match base.to_vec::<i64>()?.as_slice() {
            [seed, next] => {
                let next = next.wrapping_add(stream as i64);
                Array::from_vec(vec![*seed, next], &Shape::new([2]))?.to_device(device)?
            }
            _ => return Err(Error::internal("a generator's base has two elements")),
        }
    };
    let out = Array::uninit_on(&TensorType { shape: line.clone(), dtype: ty.dtype }, device)?;
    launch(Primitive::Random, &line, &[base.layout(), out.layout()], Reduced::none(), &[&base], &out)?;
    out.with_layout(Layout::contiguous(ty.shape.clone()))
}

fn pad(dims: &[PadDim], ty: &TensorType, x: &Array, value: &Array, device: Device) -> Result<Array> {
    let out = Array::uninit_on(ty, device)?;
    copy_into(&value.with_layout(value.layout().broadcast(&ty.shape, &[]))?, &out)?;
    let mut inside = Layout { shape: x.shape().clone(), ..out.layout().clone() };
    for (d, pad) in dims.iter().enumerate() {
        let stride = out.layout().stride(d);
        inside.offset += stride * pad.low as i64;
        inside.strides[d] = stride * (pad.interior as i64 + 1);
    }
    if !x.shape().is_empty() {
        copy_into(x, &out.with_layout(inside)?)?;
    }
    Ok(out)
}

/// Each operand is copied to its place in the result.
fn concat(dim: usize, ty: &TensorType, operands: &[&Array], device: Device) -> Result<Array> {
    let out = Array::uninit_on(ty, device)?;
    let mut start = 0;
    for x in operands {
        let mut place = Layout { shape: x.shape().clone(), ..out.layout().clone() };
        place.offset += out.layout().stride(dim) * start;
        start += x.shape().extents()[dim] as i64;
        if !x.shape().is_empty() {
            copy_into(x, &out.with_layout(place)?)?;
        }
    }
    Ok(out)
}

fn reduce(op: ReduceOp, dims: &[usize], ty: &TensorType, x: &Array, device: Device) -> Result<Array> {
    if x.shape().is_empty() {
        // Only sums and products have a value without elements; the others have no results then.
        let nothing = if op == ReduceOp::Prod { Literal::one(ty.dtype) } else { Literal::zero(ty.dtype) };
        return Array::full(nothing, &ty.shape)?.to_device(device);
    }
    let out = Array::uninit_on(ty, device)?;
    // Loops run over the kept dims, then over the reduced ones.
    let mut order: DimVec<usize> = (0..x.shape().rank()).filter(|d| !dims.contains(d)).collect();
    let kept = order.len();
    order.extend_from_slice(dims);
    let reduced = Reduced { op: Some(op), kept };
    let result = launch::reduce(&x.with_layout(x.layout().permute(&order))?, reduced, &out)?;
    if !result {
        // The position of a largest element counts along one loop: where strides cannot express that, elements move first.
        let moved = copy(&x.with_layout(x.layout().permute(&order))?)?;
        if !launch::reduce(&moved, reduced, &out)? {
            return Err(Error::internal("dims in row-major order do not merge"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod reference {
    use lazuli_ir::reference::Dense;
    use lazuli_ir::{Result, with_element};
    use lazuli_runtime::Array;

    /// The array as the reference evaluator takes it.
    pub(super) fn dense(array: &Array) -> Result<Dense> {
        let shape = array.shape().clone();
        with_element!(array.dtype(), T => Dense::from_vec(array.to_vec::<T>()?, shape))
    }
}

#[cfg(test)]
mod tests;
