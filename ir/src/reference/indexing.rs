//! Operations of the reference evaluator that index by data, join, accumulate or sort.

use super::apply::mixed;
use super::dense::{Data, Dense};
use super::rounding::Rounding;
use crate::{CumulativeOp, Error, ErrorKind, Layout, Literal, Result, ScatterOp, Shape, TensorType};
use std::cmp::Ordering;

/// An element as it is held: moved runs hold floats that their dtype does not.
fn with_picked(x: &Dense, picked: &[usize]) -> Data {
    match x.data() {
        Data::Bool(v) => Data::Bool(picked.iter().map(|&i| v[i]).collect()),
        Data::Int(v) => Data::Int(picked.iter().map(|&i| v[i]).collect()),
        Data::Float(v) => Data::Float(picked.iter().map(|&i| v[i]).collect()),
    }
}

fn ints<'a>(x: &'a Dense, what: &str) -> Result<&'a [i64]> {
    match x.data() {
        Data::Int(v) => Ok(v),
        Data::Bool(_) | Data::Float(_) => Err(mixed(what)),
    }
}

/// Operands one after the other along a dim.
pub(super) fn concat(dim: usize, operands: &[&Dense], shape: &Shape) -> Result<Data> {
    let outer: usize = shape.extents()[..dim].iter().product();
    let line = |x: &Dense| x.ty().shape.extents()[dim..].iter().product::<usize>();
    let mut out = match operands[0].data() {
        Data::Bool(_) => Data::Bool(Vec::new()),
        Data::Int(_) => Data::Int(Vec::new()),
        Data::Float(_) => Data::Float(Vec::new()),
    };
    for o in 0..outer {
        for x in operands {
            let range = o * line(x)..(o + 1) * line(x);
            match (&mut out, x.data()) {
                (Data::Bool(out), Data::Bool(v)) => out.extend_from_slice(&v[range]),
                (Data::Int(out), Data::Int(v)) => out.extend_from_slice(&v[range]),
                (Data::Float(out), Data::Float(v)) => out.extend_from_slice(&v[range]),
                (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => return Err(mixed("concat")),
            }
        }
    }
    Ok(out)
}

/// The part of `shape` at run-time starts, as a view of a tensor of shape `whole`.
fn part(whole: &Shape, shape: &Shape, starts: &[&Dense]) -> Result<Layout> {
    let mut view = Layout { shape: shape.clone(), strides: whole.strides(), offset: 0 };
    for (d, start) in starts.iter().enumerate() {
        let room = whole.extents()[d] as i64 - shape.extents()[d] as i64;
        let start = ints(start, "a start")?.first().copied().unwrap_or(0).clamp(0, room.max(0));
        view.offset += start * view.strides[d];
    }
    Ok(view)
}

pub(super) fn dynamic_slice(x: &Dense, shape: &Shape, starts: &[&Dense]) -> Result<Data> {
    Ok(super::apply::gather(x, &part(&x.ty().shape, shape, starts)?))
}

pub(super) fn dynamic_update_slice(x: &Dense, update: &Dense, starts: &[&Dense]) -> Result<Data> {
    let view = part(&x.ty().shape, &update.ty().shape, starts)?;
    let mut data = x.data().clone();
    for (n, i) in view.numbers().enumerate() {
        put(&mut data, i as usize, update.data(), n);
    }
    Ok(data)
}

/// `to[i] = from[n]`, where both are of one kind.
fn put(to: &mut Data, i: usize, from: &Data, n: usize) {
    match (to, from) {
        (Data::Bool(to), Data::Bool(from)) => to[i] = from[n],
        (Data::Int(to), Data::Int(from)) => to[i] = from[n],
        (Data::Float(to), Data::Float(from)) => to[i] = from[n],
        (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => {}
    }
}

pub(super) fn check_index(extent: usize, wrap: bool, x: &Dense) -> Result<Data> {
    let n = extent as i64;
    let mut out = Vec::with_capacity(x.len());
    for (at, &i) in ints(x, "check_index")?.iter().enumerate() {
        if i >= n || i < if wrap { -n } else { 0 } {
            let message = format!("index {i} at element {at} is out of range for {extent} elements");
            return Err(Error::new(ErrorKind::Index, message));
        }
        out.push(if i < 0 { i + n } else { i });
    }
    Ok(Data::Int(out))
}

/// For each element of an index along `dim`: the element of a tensor of shape `whole` that it means.
fn targets(dim: usize, whole: &Shape, index: &Dense) -> Result<Vec<usize>> {
    let (strides, extents) = (whole.strides(), index.ty().shape.extents());
    let last = whole.extents()[dim].saturating_sub(1) as i64;
    let mut at = vec![0usize; extents.len()];
    let mut out = Vec::with_capacity(index.len());
    for &i in ints(index, "an index")? {
        let place = |d: usize| if d == dim { i.clamp(0, last) } else { at[d] as i64 };
        out.push((0..extents.len()).map(|d| place(d) * strides[d]).sum::<i64>() as usize);
        for d in (0..extents.len()).rev() {
            at[d] += 1;
            if at[d] < extents[d] {
                break;
            }
            at[d] = 0;
        }
    }
    Ok(out)
}

pub(super) fn gather_along(dim: usize, x: &Dense, index: &Dense) -> Result<Data> {
    Ok(with_picked(x, &targets(dim, &x.ty().shape, index)?))
}

pub(super) fn scatter(
    dim: usize,
    op: ScatterOp,
    x: &Dense,
    index: &Dense,
    updates: &Dense,
    rounding: &mut dyn Rounding,
) -> Result<Data> {
    let targets = targets(dim, &x.ty().shape, index)?;
    let mut data = x.data().clone();
    let Some(binary) = op.binary() else {
        targets.iter().enumerate().for_each(|(n, &i)| put(&mut data, i, updates.data(), n));
        return Ok(data);
    };
    let dtype = x.ty().dtype;
    match (&mut data, updates.data()) {
        (Data::Float(to), Data::Float(from)) => {
            let mut terms: Vec<Vec<f64>> = to.iter().map(|x| vec![*x]).collect();
            targets.iter().zip(from).for_each(|(&i, u)| terms[i].push(*u));
            for (to, terms) in to.iter_mut().zip(&terms) {
                let mut all = terms.iter().copied();
                *to = match op {
                    ScatterOp::Add => rounding.sum(dtype, &mut all, false),
                    ScatterOp::Mul => rounding.product(dtype, &mut all),
                    ScatterOp::Set | ScatterOp::Max | ScatterOp::Min => {
                        terms[1..].iter().fold(terms[0], |a, b| binary.float(a, *b))
                    }
                };
            }
        }
        (Data::Int(to), Data::Int(from)) => {
            targets.iter().zip(from).for_each(|(&i, u)| to[i] = dtype.wrap(binary.int(dtype, to[i], *u)));
        }
        (Data::Bool(to), Data::Bool(from)) => {
            let combine = |a: bool, b: bool| binary.int(dtype, i64::from(a), i64::from(b)) != 0;
            targets.iter().zip(from).for_each(|(&i, u)| to[i] = combine(to[i], *u));
        }
        (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => return Err(mixed("scatter")),
    }
    Ok(data)
}

/// The elements of each line along `dim`, in order.
pub(super) fn lines(dim: usize, ty: &TensorType) -> Vec<Vec<usize>> {
    let extents = ty.shape.extents();
    let (n, inner): (usize, usize) = (extents[dim], extents[dim + 1..].iter().product());
    let outer: usize = extents[..dim].iter().product();
    let line = |l: usize| (0..n).map(|k| (l / inner.max(1) * n + k) * inner + l % inner.max(1)).collect();
    (0..outer * inner).map(line).collect()
}

pub(super) fn cumulative(
    op: CumulativeOp,
    dim: usize,
    reverse: bool,
    x: &Dense,
    rounding: &mut dyn Rounding,
) -> Result<Data> {
    let (binary, dtype) = (op.binary(), x.ty().dtype);
    let mut data = x.data().clone();
    for mut line in lines(dim, x.ty()) {
        if reverse {
            line.reverse();
        }
        match (&mut data, x.data()) {
            (Data::Float(out), Data::Float(v)) => {
                let terms: Vec<f64> = line.iter().map(|&i| v[i]).collect();
                for (k, &i) in line.iter().enumerate() {
                    let mut so_far = terms[..=k].iter().copied();
                    out[i] = match op {
                        CumulativeOp::Sum => rounding.sum(dtype, &mut so_far, false),
                        CumulativeOp::Prod => rounding.product(dtype, &mut so_far),
                        CumulativeOp::Max | CumulativeOp::Min => {
                            so_far.next().map_or(0.0, |first| so_far.fold(first, |a, b| binary.float(a, b)))
                        }
                    };
                }
            }
            (Data::Int(out), _) => {
                for pair in line.windows(2) {
                    out[pair[1]] = dtype.wrap(binary.int(dtype, out[pair[0]], out[pair[1]]));
                }
            }
            (Data::Bool(out), _) => {
                for pair in line.windows(2) {
                    out[pair[1]] = binary.int(dtype, i64::from(out[pair[0]]), i64::from(out[pair[1]])) != 0;
                }
            }
            (Data::Float(_), Data::Bool(_) | Data::Int(_)) => return Err(mixed("cumulative")),
        }
    }
    Ok(data)
}

/// The indices that sort each line; NaN is the largest.
pub(super) fn sort(dim: usize, descending: bool, x: &Dense) -> Data {
    let literals: Vec<Literal> = x.literals().collect();
    let held = |i: usize| match x.data() {
        Data::Bool(v) => f64::from(u8::from(v[i])),
        Data::Float(v) => v[i],
        Data::Int(_) => 0.0,
    };
    let order = |a: &usize, b: &usize| match (literals[*a].as_i64(), literals[*b].as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (held(*a), held(*b));
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
    };
    let mut out = vec![0i64; x.len()];
    for line in lines(dim, x.ty()) {
        let mut sorted: Vec<usize> = (0..line.len()).collect();
        sorted.sort_by(|a, b| {
            let ordering: Ordering = order(&line[*a], &line[*b]);
            if descending { ordering.reverse() } else { ordering }
        });
        sorted.into_iter().zip(&line).for_each(|(from, &to)| out[to] = from as i64);
    }
    Data::Int(out)
}
