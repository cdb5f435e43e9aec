//! New tensors.

use super::{Family, Results, one, sizes};
use crate::arguments::{Argument, Arguments, Unsupported};
use lazuli::prelude::*;

pub const ROWS: Family = &[
    ("eye", |a| {
        let (rows, columns, dtype) = (a.integer("n")?, a.next("m"), a.dtype()?);
        let columns = if let Some(Argument::Int(m)) = columns { m } else { rows };
        let y = Tensor::eye(rows as usize, columns as usize);
        one(dtype.map_or(y.clone(), |d| y.to(d)))
    }),
    ("full_like", |a| {
        let (x, value, dtype) = (a.tensor("input")?, a.operand("fill_value")?, a.dtype()?);
        let x = dtype.map_or(x.clone(), |d| x.to(d));
        one(match value {
            Argument::Int(v) => x.full_like(v),
            Argument::Float(v) => x.full_like(v),
            Argument::Bool(v) => x.full_like(v),
            other => return Err(Unsupported(format!("fill value {other:?}"))),
        })
    }),
    ("linspace", |a| {
        let (start, end) = (a.operand("start")?, a.operand("end")?);
        let (steps, dtype) = (a.integer("steps")?, a.dtype()?);
        // PyTorch computes in the dtype of the result, integers in f64.
        let compute = dtype.filter(|d| !d.is_float() || *d == DType::F64).map(|_| DType::F64);
        let bound = |b: Argument| match (b, compute) {
            (Argument::Int(v), Some(d)) => Argument::Tensor(Tensor::full((), v).to(d)),
            (Argument::Float(v), Some(d)) => Argument::Tensor(Tensor::full((), 0).to(d) + v),
            (Argument::Tensor(t), Some(d)) => Argument::Tensor(t.to(d)),
            (b, _) => b,
        };
        let y = with!(bound(start), |s| with!(bound(end), |e| Tensor::linspace(s, e, steps as usize)));
        one(dtype.map_or(y.clone(), |d| y.to(d)))
    }),
    ("arange", arange),
    ("full", |a| {
        let (shape, value, dtype) = (sizes(a.sizes("size")?), a.operand("fill_value")?, a.dtype()?);
        let y = match value {
            Argument::Int(v) => Tensor::full(shape, v),
            Argument::Float(v) => Tensor::full(shape, v),
            Argument::Bool(v) => Tensor::full(shape, v),
            other => return Err(Unsupported(format!("fill value {other:?}"))),
        };
        one(dtype.map_or(y.clone(), |d| y.to(d)))
    }),
    ("ones_like", |a| like(a, |x| x.ones_like())),
    ("zeros_like", |a| like(a, |x| x.zeros_like())),
];

/// A tensor of one value like another one.
fn like(a: &mut Arguments, f: fn(&Tensor) -> Tensor) -> Results {
    let (x, dtype) = (a.tensor("input")?, a.dtype()?);
    let y = f(&x);
    one(dtype.map_or(y.clone(), |d| y.to(d)))
}

fn arange(a: &mut Arguments) -> Results {
    let dtype = a.dtype()?;
    let mut bounds = Vec::new();
    for name in ["start", "end", "step"] {
        match a.next(name) {
            Some(bound @ (Argument::Int(_) | Argument::Float(_))) => bounds.push(bound),
            Some(Argument::Bool(b)) => bounds.push(Argument::Int(b.into())),
            None => {}
            other => return Err(Unsupported(format!("bound {other:?}"))),
        }
    }
    if bounds.len() == 1 {
        bounds.insert(0, Argument::Int(0));
    }
    let integer = |b: &Argument| if let Argument::Int(i) = b { Some(*i) } else { None };
    let number = |b: &Argument| if let Argument::Float(f) = b { *f } else { integer(b).unwrap_or(0) as f64 };
    let whole: Option<Vec<i64>> = bounds.iter().map(integer).collect();
    let y = match whole.as_deref() {
        Some([start, end]) => Tensor::arange(*start..*end),
        Some([start, end, step]) => Tensor::arange((*start..*end).step(*step)),
        _ => {
            let bounds: Vec<f64> = bounds.iter().map(number).collect();
            let step = bounds.get(2).copied().unwrap_or(1.0);
            let y = Tensor::arange((bounds[0]..bounds[1]).step(step));
            match dtype {
                // PyTorch counts in floats, but steps in the integers that bounds become.
                Some(d) if !d.is_float() => Tensor::arange(0..y.numel()) * (step as i64) + bounds[0] as i64,
                _ => y,
            }
        }
    };
    one(dtype.map_or(y.clone(), |d| y.to(d)))
}
