//! Reductions over dims.

use super::{Family, Results, one};
use crate::arguments::{Argument, Arguments, Over, Unsupported};
use lazuli::prelude::*;

/// A variance or standard deviation.
macro_rules! spread {
    ($method:ident) => {
        |a| {
            let x = a.tensor("input")?;
            let (over, options) = variance(a)?;
            one(x.$method(over, options))
        }
    };
}

/// A variance or standard deviation with the mean.
macro_rules! spread_and_mean {
    ($method:ident) => {
        |a| {
            let x = a.tensor("input")?;
            let (over, options) = variance(a)?;
            let (spread, mean) = x.$method(over, options);
            Ok(vec![spread, mean])
        }
    };
}

pub const ROWS: Family = &[
    ("amax", reduction!(amax)),
    ("amin", reduction!(amin)),
    ("aminmax", |a| {
        let x = a.tensor("input")?;
        let (min, max) = x.aminmax(a.over()?);
        Ok(vec![min, max])
    }),
    ("argmin", reduction!(argmin)),
    ("min", min),
    ("prod", reduction!(prod)),
    ("median", |a| {
        let x = a.tensor("input")?;
        let over = a.over()?;
        let (values, indices) = x.median(&over);
        Ok(if over.dims.is_none() { vec![values] } else { vec![values, indices] })
    }),
    ("cumsum", |a| along(a, |x, d| vec![x.cumsum(d)])),
    ("cumprod", |a| along(a, |x, d| vec![x.cumprod(d)])),
    ("cummax", |a| along(a, |x, d| pair(x.cummax(d)))),
    ("sort", |a| {
        let (x, options) = (a.tensor("input")?, sorting(a)?);
        Ok(pair(x.sort(options)))
    }),
    ("argsort", |a| {
        let (x, options) = (a.tensor("input")?, sorting(a)?);
        one(x.argsort(options))
    }),
    ("topk", |a| {
        let (x, k, dim) = (a.tensor("input")?, a.integer("k")?, a.integer_or("dim", -1)?);
        let largest = a.integer_or("largest", 1)? != 0;
        a.integer_or("sorted", 1)?;
        Ok(pair(x.topk(k as usize, TopK { dim: dim as isize, largest })))
    }),
    ("all", reduction!(all)),
    ("any", reduction!(any)),
    ("argmax", reduction!(argmax)),
    ("count_nonzero", reduction!(count_nonzero)),
    ("linalg.vector_norm", |a| {
        let (x, p, dtype) = (a.tensor("input")?, a.float("ord", 2.0)?, a.dtype()?);
        let x = dtype.map_or(x.clone(), |d| x.to(d));
        one(x.norm(a.over()?, Norm { p }))
    }),
    ("logsumexp", reduction!(logsumexp)),
    ("max", max),
    ("mean", reduction!(mean)),
    ("nansum", reduction!(nansum)),
    ("norm", |a| {
        let (x, p) = (a.tensor("input")?, a.next("p"));
        let p = match p {
            None => 2.0,
            Some(Argument::Text(name)) if name == "fro" => 2.0,
            Some(Argument::Text(name)) if name == "nuc" => return one(x.nuclear_norm(a.over()?)),
            Some(Argument::Float(p)) => p,
            Some(Argument::Int(p)) => p as f64,
            other => return Err(Unsupported(format!("order {other:?}"))),
        };
        one(x.norm(a.over()?, Norm { p }))
    }),
    ("std", spread!(std)),
    ("std_mean", spread_and_mean!(std_mean)),
    ("sum", reduction!(sum)),
    ("var", spread!(var)),
    ("var_mean", spread_and_mean!(var_mean)),
];

/// Dims and correction, which older forms call `unbiased`.
fn variance(a: &mut Arguments) -> Result<(Over, Var), Unsupported> {
    if let Some(&Argument::Bool(unbiased)) = a.peek() {
        a.next("unbiased");
        let over = Over { dims: None, keep: a.flag("keepdim")? };
        return Ok((over, Var { correction: f64::from(u8::from(unbiased)) }));
    }
    let unbiased = a.named("unbiased").map(|u| matches!(u, Argument::Bool(true)));
    let over = a.over()?;
    let correction = a.float("correction", 1.0)?;
    let correction = unbiased.map_or(correction, |u| f64::from(u8::from(u)));
    Ok((over, Var { correction }))
}

/// Three functions under one name: the larger of two tensors, the largest element, and the largest along a dim with its index.
fn max(a: &mut Arguments) -> Results {
    let x = a.tensor("input")?;
    match a.peek() {
        None => one(x.max(..)),
        Some(Argument::Tensor(_)) => one(x.maximum(a.tensor("other")?)),
        Some(_) => {
            let over = a.over()?;
            Ok(vec![x.max(&over), x.argmax(&over)])
        }
    }
}

/// As `max`, for the smallest.
fn min(a: &mut Arguments) -> Results {
    let x = a.tensor("input")?;
    match a.peek() {
        None => one(x.min(..)),
        Some(Argument::Tensor(_)) => one(x.minimum(a.tensor("other")?)),
        Some(_) => {
            let over = a.over()?;
            Ok(vec![x.min(&over), x.argmin(&over)])
        }
    }
}

/// A function along a dim, on the tensor as another dtype where the call asks for one.
fn along(a: &mut Arguments, f: fn(&Tensor, isize) -> Vec<Tensor>) -> Results {
    let (x, dtype) = (a.tensor("input")?, a.dtype()?);
    let x = dtype.map_or(x.clone(), |d| x.to(d));
    let dim = a.integer("dim")?;
    Ok(f(&x, dim as isize))
}

/// The order of a sort; Lazuli's are all stable.
fn sorting(a: &mut Arguments) -> Result<Sort, Unsupported> {
    let (dim, descending) = (a.integer_or("dim", -1)?, a.flag("descending")?);
    a.named("stable");
    Ok(Sort { dim: dim as isize, descending })
}

fn pair((values, indices): (Tensor, Tensor)) -> Vec<Tensor> {
    vec![values, indices]
}
