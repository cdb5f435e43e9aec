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
    ("cat", |a| {
        let (parts, dim) = (a.tensors("tensors")?, a.integer_or("dim", 0)?);
        one(lazuli::cat(&parts, dim as isize))
    }),
    ("chunk", |a| {
        let (x, chunks, dim) = (a.tensor("input")?, a.integer("chunks")?, a.integer_or("dim", 0)?);
        several(x.chunk(chunks as usize, dim as isize))
    }),
    ("flip", |a| {
        let (x, dims) = (a.tensor("input")?, a.sizes("dims")?);
        one(x.flip(dims))
    }),
    ("hstack", |a| one(lazuli::hstack(&a.tensors("tensors")?))),
    ("meshgrid", |a| {
        let indexing = match a.named("indexing") {
            Some(Argument::Text(text)) if text == "xy" => Indexing::Xy,
            _ => Indexing::Ij,
        };
        Ok(lazuli::meshgrid(&a.tensors("tensors")?, Meshgrid { indexing }))
    }),
    ("narrow", |a| {
        let (x, dim) = (a.tensor("input")?, a.integer("dim")?);
        let (start, length) = (a.operand("start")?, a.integer("length")?);
        one(with!(start, |s| x.narrow(dim as isize, s, length as usize)))
    }),
    ("nn.functional.pad", |a| {
        let (x, sizes) = (a.tensor("input")?, a.sizes("pad")?);
        let mode = match a.text("mode", "constant")?.as_str() {
            "reflect" => PadMode::Reflect,
            "replicate" => PadMode::Replicate,
            "circular" => PadMode::Circular,
            _ => PadMode::Constant,
        };
        let value = a.float("value", 0.0)?;
        one(x.pad(sizes, Pad { mode, value }))
    }),
    ("nn.functional.unfold", |a| {
        let (x, kernel) = (a.tensor("input")?, a.pair("kernel_size", 1)?);
        let (dilation, padding, stride) = (a.pair("dilation", 1)?, a.pair("padding", 0)?, a.pair("stride", 1)?);
        one(x.im2col(kernel, Im2col { dilation, padding, stride }))
    }),
    ("roll", |a| {
        let (x, shifts, by) = (a.tensor("input")?, dims(a, "shifts")?, dims(a, "dims")?);
        one(x.roll(shifts, by))
    }),
    ("rot90", |a| {
        let (x, k, by) = (a.tensor("input")?, a.integer_or("k", 1)?, dims(a, "dims")?);
        let by = if by.is_empty() { [0, 1] } else { [by[0] as isize, by[1] as isize] };
        one(x.rot90(k, by))
    }),
    ("split", |a| {
        let x = a.tensor("input")?;
        match a.next("split_size_or_sections") {
            Some(Argument::Int(size)) => several(x.split(size, a.integer_or("dim", 0)? as isize)),
            other => {
                let Dims::Several(sizes) = Dims::new(other)? else {
                    return Err(Unsupported("no sizes".into()));
                };
                several(x.split(sizes, a.integer_or("dim", 0)? as isize))
            }
        }
    }),
    ("stack", |a| {
        let (parts, dim) = (a.tensors("tensors")?, a.integer_or("dim", 0)?);
        one(lazuli::stack(&parts, dim as isize))
    }),
    ("unbind", |a| {
        let (x, dim) = (a.tensor("input")?, a.integer_or("dim", 0)?);
        several(x.unbind(dim as isize))
    }),
    ("vstack", |a| one(lazuli::vstack(&a.tensors("tensors")?))),
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
    ("nn.functional.pixel_shuffle", |a| {
        let (x, factor) = (a.tensor("input")?, a.integer("upscale_factor")?);
        one(x.pixel_shuffle(factor as usize))
    }),
    ("nn.functional.pixel_unshuffle", |a| {
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

/// The parts of a tensor; an error as the one tensor that carries it would show it.
fn several(parts: lazuli::Result<Vec<Tensor>>) -> super::Results {
    parts.map_err(|e| Unsupported(format!("an error: {e}")))
}
