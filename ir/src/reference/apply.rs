//! One operation of the Graph IR on values: its meaning, written as plainly as possible.

use super::contraction;
use super::dense::{Data, Dense, collect};
use super::indexing;
use super::rounding::{Nearest, Rounding};
use crate::philox::{philox, uniform};
use crate::{BinaryOp, CompareOp, Error, ErrorKind, Layout, Op, PadDim, Result, Shape, TensorType, UnaryOp, infer};

/// The result of an operation on these operands, rounded to nearest.
///
/// # Errors
/// What [`infer`](crate::infer) says of the operands' types. An [`Op::Input`] has no value of its own.
pub fn apply(op: &Op, operands: &[&Dense]) -> Result<Dense> {
    let types: Vec<&TensorType> = operands.iter().map(|x| x.ty()).collect();
    let ty = infer(op, &types)?;
    run(op, operands, &ty, &mut Nearest)
}

/// The result of an operation, which has type `ty`.
pub(super) fn run(op: &Op, operands: &[&Dense], ty: &TensorType, rounding: &mut dyn Rounding) -> Result<Dense> {
    room_for(ty)?;
    let data = match (op, operands) {
        (Op::Constant { value, shape }, []) => return Ok(Dense::splat(*value, shape)),
        (Op::Iota { dim, shape }, []) => Data::Int(iota(*dim, shape)),
        (Op::Random { stream, .. }, [base]) => random(*stream, base, ty.shape.elements())?,
        (Op::Alias | Op::Detach | Op::ToDevice { .. } | Op::Reshape(_), [x]) => x.data().clone(),
        (Op::Unary(op), [x]) => unary(*op, x, rounding)?,
        (Op::Binary(op), [a, b]) => binary(*op, a, b, rounding)?,
        (Op::Compare(op), [a, b]) => compare(*op, a, b)?,
        (Op::Select, [c, a, b]) => select(c, a, b)?,
        (Op::Cast(to), [x]) if *to == x.ty().dtype => x.data().clone(),
        (Op::Cast(to), [x]) => collect(*to, x.literals().map(|v| v.cast(*to))),
        (Op::Permute(perm), [x]) => gather(x, &layout(x).permute(perm)),
        (Op::Broadcast { shape, dims }, [x]) => gather(x, &layout(x).broadcast(shape, dims)),
        (Op::Slice(dims), [x]) => gather(x, &layout(x).slice(dims)),
        (Op::Pad(dims), [x, value]) => pad(dims, x, value, &ty.shape)?,
        (Op::Flip(dims), [x]) => gather(x, &layout(x).flip(dims)),
        (Op::Concat { dim, .. }, operands) if !operands.is_empty() => indexing::concat(*dim, operands, &ty.shape)?,
        (Op::Window(dims), [x]) => gather(x, &layout(x).window(dims)),
        (Op::WindowSum { dims, .. }, [x]) => contraction::window_sum(dims, x, ty, rounding)?,
        (Op::DynamicSlice(_), [x, starts @ ..]) => indexing::dynamic_slice(x, &ty.shape, starts)?,
        (Op::DynamicUpdateSlice { .. }, [x, update, starts @ ..]) => indexing::dynamic_update_slice(x, update, starts)?,
        (Op::CheckIndex { extent, wrap, .. }, [x]) => indexing::check_index(*extent, *wrap, x)?,
        (Op::Gather { dim }, [x, index]) => indexing::gather_along(*dim, x, index)?,
        (Op::Scatter { dim, op }, [x, index, updates]) => indexing::scatter(*dim, *op, x, index, updates, rounding)?,
        (Op::Cumulative { op, dim, reverse }, [x]) => indexing::cumulative(*op, *dim, *reverse, x, rounding)?,
        (Op::Sort { dim, descending }, [x]) => indexing::sort(*dim, *descending, x),
        (Op::Reduce { op, dims, .. }, [x]) => contraction::reduce(*op, dims, x, ty, rounding),
        (Op::Dot { dims, .. }, [a, b]) => contraction::dot(dims, a, b, ty, rounding)?,
        (Op::Input { index, .. }, _) => return Err(Error::internal(format!("input {index} has no value by itself"))),
        (
            Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } | Op::Alias | Op::Detach | Op::ToDevice { .. },
            _,
        )
        | (Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_), _)
        | (Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_), _)
        | (Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } | Op::DynamicSlice(_), _)
        | (Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } | Op::Gather { .. } | Op::Scatter { .. }, _)
        | (Op::Cumulative { .. } | Op::Sort { .. } | Op::Reduce { .. } | Op::Dot { .. }, _) => {
            return Err(Error::internal(format!("{} on {} operands", op.name(), operands.len())));
        }
    };
    Ok(Dense::computed(ty, data))
}

/// A large result is refused where it cannot be allocated: `Vec` would abort.
fn room_for(ty: &TensorType) -> Result<()> {
    let elements = ty.shape.elements();
    if elements < 1 << 24 || Vec::<f64>::new().try_reserve_exact(elements).is_ok() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Memory, format!("no memory for a tensor {ty}")))
}

#[cold]
pub(super) fn mixed(op: &str) -> Error {
    Error::internal(format!("{op} on elements of kinds that its type rule excludes"))
}

fn layout(x: &Dense) -> Layout {
    Layout::contiguous(x.ty().shape.clone())
}

/// The elements that a view of `x` shows.
pub(super) fn gather(x: &Dense, view: &Layout) -> Data {
    fn pick<T: Copy>(v: &[T], view: &Layout) -> Vec<T> {
        view.numbers().filter_map(|i| v.get(i as usize).copied()).collect()
    }
    match x.data() {
        Data::Bool(v) => Data::Bool(pick(v, view)),
        Data::Int(v) => Data::Int(pick(v, view)),
        Data::Float(v) => Data::Float(pick(v, view)),
    }
}

fn iota(dim: usize, shape: &Shape) -> Vec<i64> {
    let mut counting = Layout { shape: shape.clone(), strides: shape.strides(), offset: 0 };
    for (axis, s) in counting.strides.iter_mut().enumerate() {
        *s = i64::from(axis == dim);
    }
    counting.numbers().collect()
}

fn random(stream: u64, base: &Dense, elements: usize) -> Result<Data> {
    let Data::Int(base) = base.data() else { return Err(mixed("random")) };
    let [seed, drawn] = base[..] else { return Err(mixed("random")) };
    let draw = (drawn as u64).wrapping_add(stream);
    let number = |i: usize| f64::from(uniform(philox(seed as u64, draw, i as u64)));
    Ok(Data::Float((0..elements).map(number).collect()))
}

fn unary(op: UnaryOp, x: &Dense, rounding: &mut dyn Rounding) -> Result<Data> {
    let (row, dtype) = (op.row(), x.ty().dtype);
    match x.data() {
        Data::Float(v) => {
            Ok(Data::Float(v.iter().map(|&x| rounding.rounded(dtype, (row.float)(x), row.ulps)).collect()))
        }
        Data::Int(v) => Ok(Data::Int(v.iter().map(|&x| dtype.wrap((row.int)(x))).collect())),
        Data::Bool(_) => Err(mixed(row.name)),
    }
}

fn binary(op: BinaryOp, a: &Dense, b: &Dense, rounding: &mut dyn Rounding) -> Result<Data> {
    let dtype = a.ty().dtype;
    match (a.data(), b.data()) {
        (Data::Float(a), Data::Float(b)) => {
            let exact = a.iter().zip(b).map(|(&a, &b)| op.float(a, b));
            Ok(Data::Float(exact.map(|v| rounding.rounded(dtype, v, op.ulps())).collect()))
        }
        (Data::Int(_), Data::Int(b)) if op.divides() && b.contains(&0) => {
            let at = b.iter().position(|b| *b == 0).unwrap_or(0);
            Err(Error::new(ErrorKind::Value, format!("{}: the divisor at element {at} is 0", op.name())))
        }
        (Data::Int(a), Data::Int(b)) => {
            Ok(Data::Int(a.iter().zip(b).map(|(&a, &b)| dtype.wrap(op.int(dtype, a, b))).collect()))
        }
        (Data::Bool(a), Data::Bool(b)) => {
            Ok(Data::Bool(a.iter().zip(b).map(|(&a, &b)| op.int(dtype, i64::from(a), i64::from(b)) != 0).collect()))
        }
        (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => Err(mixed(op.name())),
    }
}

fn compare(op: CompareOp, a: &Dense, b: &Dense) -> Result<Data> {
    fn zip<T: PartialOrd + Copy>(op: CompareOp, a: &[T], b: &[T]) -> Data {
        Data::Bool(a.iter().zip(b).map(|(&a, &b)| op.holds(a, b)).collect())
    }
    match (a.data(), b.data()) {
        (Data::Float(a), Data::Float(b)) => Ok(zip(op, a, b)),
        (Data::Int(a), Data::Int(b)) => Ok(zip(op, a, b)),
        (Data::Bool(a), Data::Bool(b)) => Ok(zip(op, a, b)),
        (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => Err(mixed(op.name())),
    }
}

fn select(c: &Dense, a: &Dense, b: &Dense) -> Result<Data> {
    fn pick<T: Copy>(c: &[bool], a: &[T], b: &[T]) -> Vec<T> {
        c.iter().zip(a.iter().zip(b)).map(|(&c, (&a, &b))| if c { a } else { b }).collect()
    }
    let Data::Bool(c) = c.data() else { return Err(mixed("select")) };
    match (a.data(), b.data()) {
        (Data::Float(a), Data::Float(b)) => Ok(Data::Float(pick(c, a, b))),
        (Data::Int(a), Data::Int(b)) => Ok(Data::Int(pick(c, a, b))),
        (Data::Bool(a), Data::Bool(b)) => Ok(Data::Bool(pick(c, a, b))),
        (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => Err(mixed("select")),
    }
}

fn pad(dims: &[PadDim], x: &Dense, value: &Dense, shape: &Shape) -> Result<Data> {
    fn place<T: Copy>(x: &[T], value: &[T], at: &Layout, elements: usize) -> Result<Vec<T>> {
        let [value] = value[..] else { return Err(mixed("pad")) };
        let mut out = vec![value; elements];
        for (n, &x) in at.numbers().zip(x) {
            if let Some(element) = out.get_mut(n as usize) {
                *element = x;
            }
        }
        Ok(out)
    }
    // Where the operand's elements lie in the result.
    let mut at = Layout { shape: x.ty().shape.clone(), strides: shape.strides(), offset: 0 };
    for (p, s) in dims.iter().zip(at.strides.iter_mut()) {
        at.offset += p.low as i64 * *s;
        *s *= p.interior as i64 + 1;
    }
    let n = shape.elements();
    match (x.data(), value.data()) {
        (Data::Float(x), Data::Float(v)) => Ok(Data::Float(place(x, v, &at, n)?)),
        (Data::Int(x), Data::Int(v)) => Ok(Data::Int(place(x, v, &at, n)?)),
        (Data::Bool(x), Data::Bool(v)) => Ok(Data::Bool(place(x, v, &at, n)?)),
        (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => Err(mixed("pad")),
    }
}
