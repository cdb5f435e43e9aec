//! The same elements elsewhere.

use super::{Family, one, sizes};
use crate::arguments::{Argument, Arguments, Dims, Unsupported};
use lazuli::prelude::*;

/// A method that takes an integer, 0 where it is absent.
macro_rules! diagonal {
    ($method:ident) => {
        |a| {
            let (x, diagonal) = (a.tensor("input")?, a.integer_or("diagonal", 0)?);
            one(x.$method(diagonal as isize))
        }
    };
}

/// A method that takes sizes.
macro_rules! sized {
    ($method:ident) => {
        |a| {
            let (x, sizes) = (a.tensor("input")?, a.sizes("size")?);
            one(x.$method(sizes))
        }
    };
}

pub const ROWS: Family = &[
    ("broadcast_to", |a| {
        let (x, shape) = (a.tensor("input")?, sizes(a.sizes("size")?));
        one(x.broadcast_to(shape))
    }),
    ("diag", diagonal!(diag)),
    ("diag_embed", |a| {
        let x = a.tensor("input")?;
        let (offset, dim1, dim2) = (a.integer_or("offset", 0)?, a.integer_or("dim1", -2)?, a.integer_or("dim2", -1)?);
        one(x.diag_embed(DiagEmbed { offset: offset as isize, dim1: dim1 as isize, dim2: dim2 as isize }))
    }),
    ("diagonal", |a| {
        let x = a.tensor("input")?;
        let (offset, dim1, dim2) = (a.integer_or("offset", 0)?, a.integer_or("dim1", 0)?, a.integer_or("dim2", 1)?);
        one(x.diagonal(Diagonal { offset: offset as isize, dim1: dim1 as isize, dim2: dim2 as isize }))
    }),
    ("expand", sized!(expand)),
    ("flatten", |a| {
        let x = a.tensor("input")?;
        let (start, end) = (a.integer_or("start_dim", 0)? as isize, a.integer_or("end_dim", -1)? as isize);
        one(x.flatten(start..=end))
    }),
    ("movedim", |a| {
        let (x, from, to) = (a.tensor("input")?, dims(a, "source")?, dims(a, "destination")?);
        one(x.movedim(from, to))
    }),
    ("nn_functional_pixel_shuffle", |a| {
        let (x, factor) = (a.tensor("input")?, a.integer("upscale_factor")?);
        one(x.pixel_shuffle(factor as usize))
    }),
    ("nn_functional_pixel_unshuffle", |a| {
        let (x, factor) = (a.tensor("input")?, a.integer("downscale_factor")?);
        one(x.pixel_unshuffle(factor as usize))
    }),
    ("permute", sized!(permute)),
    ("repeat", sized!(repeat)),
    ("reshape", sized!(reshape)),
    ("squeeze", |a| {
        let x = a.tensor("input")?;
        one(match a.dims("dim")? {
            Dims::All => x.squeeze(..),
            Dims::One(d) => x.squeeze(d),
            Dims::Several(dims) => x.squeeze(dims),
        })
    }),
    ("t", unary!(t)),
    ("tile", sized!(tile)),
    ("trace", unary!(trace)),
    ("transpose", |a| {
        let (x, first, second) = (a.tensor("input")?, a.integer("dim0")?, a.integer("dim1")?);
        one(x.transpose(first as isize, second as isize))
    }),
    ("tril", diagonal!(tril)),
    ("triu", diagonal!(triu)),
    ("unflatten", |a| {
        let (x, dim, sizes) = (a.tensor("input")?, a.integer("dim")?, a.sizes("sizes")?);
        one(x.unflatten(dim as isize, sizes))
    }),
    ("unsqueeze", |a| {
        let (x, dim) = (a.tensor("input")?, a.integer("dim")?);
        one(x.unsqueeze(dim as isize))
    }),
    ("view", sized!(view)),
];

/// One dim or several, as a list.
fn dims(a: &mut Arguments, name: &str) -> Result<Vec<i64>, Unsupported> {
    match a.next(name) {
        Some(Argument::Int(d)) => Ok(vec![d]),
        other => match Dims::new(other)? {
            Dims::Several(d) => Ok(d),
            Dims::One(d) => Ok(vec![d]),
            Dims::All => Ok(Vec::new()),
        },
    }
}
