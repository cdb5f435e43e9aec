//! The table of operators, by family: from the arguments of a PyTorch call to the same call of Lazuli. A row takes its
//! arguments in the order of PyTorch's signature; what it leaves makes the case unsupported.

use crate::arguments::{Arguments, Unsupported};
use lazuli::Tensor;

pub type Results = Result<Vec<Tensor>, Unsupported>;

/// A call of an operator.
pub type Operator = fn(&mut Arguments) -> Results;

/// Rows of a family: PyTorch's name and the call.
pub type Family = &'static [(&'static str, Operator)];

/// An operand is a tensor or a number: `$f` for each.
macro_rules! with {
    ($operand:expr, |$y:ident| $f:expr) => {
        match $operand {
            Argument::Tensor($y) => $f,
            Argument::Int($y) => $f,
            Argument::Float($y) => $f,
            Argument::Bool($y) => $f,
            other => return Err(Unsupported(format!("operand {other:?}"))),
        }
    };
}

macro_rules! unary {
    ($method:ident) => {
        |a| one(a.tensor("input")?.$method())
    };
}

macro_rules! binary {
    ($method:ident) => {
        |a| {
            let x = a.tensor("input")?;
            one(with!(a.operand("other")?, |y| x.$method(y)))
        }
    };
}

/// The second operand is a tensor too.
macro_rules! binary_tensor {
    ($method:ident) => {
        |a| {
            let (x, y) = (a.tensor("input")?, a.tensor("other")?);
            one(x.$method(y))
        }
    };
}

/// A reduction over `dim`, with `keepdim`, on the tensor as another dtype where the call asks for one.
macro_rules! reduction {
    ($method:ident) => {
        |a| {
            let (x, dtype) = (a.tensor("input")?, a.dtype()?);
            let x = dtype.map_or(x.clone(), |d| x.to(d));
            let y = x.$method(a.over()?);
            one(dtype.map_or(y.clone(), |d| y.to(d)))
        }
    };
}

mod activations;
mod creation;
mod elementwise;
mod indexing;
mod linear;
mod losses;
mod movement;
mod normalization;
mod reductions;
mod windows;

/// The operators that Lazuli has.
pub const FAMILIES: &[Family] = &[
    activations::ROWS,
    creation::ROWS,
    elementwise::ROWS,
    indexing::ROWS,
    linear::ROWS,
    losses::ROWS,
    movement::ROWS,
    normalization::ROWS,
    reductions::ROWS,
    windows::ROWS,
];

fn one(y: Tensor) -> Results {
    Ok(vec![y])
}

/// Sizes that are not negative.
fn sizes(sizes: Vec<i64>) -> Vec<usize> {
    sizes.into_iter().map(|s| s as usize).collect()
}

/// A function along one dim, on the tensor as another dtype where the call asks for one.
fn over_dim(a: &mut Arguments, f: fn(&Tensor, i64) -> Tensor) -> Results {
    let (x, dtype) = (a.tensor("input")?, a.dtype()?);
    let x = dtype.map_or(x.clone(), |d| x.to(d));
    let dim = a.integer("dim")?;
    one(f(&x, dim))
}
