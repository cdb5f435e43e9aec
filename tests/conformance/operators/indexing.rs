//! Indexing, and what picks elements by index.

use super::{Family, one};
use crate::arguments::{Argument, Unsupported};
use lazuli::prelude::*;

pub const ROWS: Family = &[
    ("gather", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.tensor("index")?);
        one(x.gather(dim as isize, &index))
    }),
    ("index_add", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.tensor("index")?);
        let (source, alpha) = (a.tensor("source")?, a.number("alpha")?);
        one(x.index_add(dim as isize, &index, &source, IndexAdd { alpha }))
    }),
    ("index_copy", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.tensor("index")?);
        one(x.index_copy(dim as isize, &index, &a.tensor("source")?))
    }),
    ("index_fill", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.tensor("index")?);
        one(with!(a.operand("value")?, |v| x.index_fill(dim as isize, &index, v)))
    }),
    ("index_put", |a| {
        let (x, index) = (a.tensor("input")?, a.index()?);
        let (values, accumulate) = (a.tensor("values")?, a.flag("accumulate")?);
        one(x.index_put(index.as_slice(), values, IndexPut { accumulate }))
    }),
    ("index_select", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.tensor("index")?);
        one(x.index_select(dim as isize, &index))
    }),
    ("nn.functional.embedding", |a| {
        let (weight, index) = (a.tensor("weight")?, a.tensor("input")?);
        let padding_idx = a.optional_float("padding_idx")?.map(|i| i as isize);
        let (max_norm, norm_type) = (a.optional_float("max_norm")?, a.float("norm_type", 2.0)?);
        let scale_grad_by_freq = a.flag("scale_grad_by_freq")?;
        a.named("sparse");
        one(index.embedding(&weight, Embedding { padding_idx, max_norm, norm_type, scale_grad_by_freq }))
    }),
    ("nn.functional.one_hot", |a| {
        let (x, classes) = (a.tensor("input")?, a.integer_or("num_classes", -1)?);
        one(x.one_hot(OneHot { num_classes: usize::try_from(classes).ok() }))
    }),
    ("repeat_interleave", |a| {
        let (x, repeats) = (a.tensor("input")?, a.operand("repeats")?);
        let dim = a.optional_float("dim")?.map(|d| d as isize);
        let output_size = a.optional_float("output_size")?.map(|n| n as usize);
        one(with!(repeats, |r| x.repeat_interleave(r, RepeatInterleave { dim, output_size })))
    }),
    ("scatter", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.tensor("index")?);
        let src = a.operand("src")?;
        let reduce = match a.named("reduce") {
            Some(Argument::Text(text)) if text == "add" => Some(ScatterReduction::Sum),
            Some(Argument::Text(_)) => Some(ScatterReduction::Prod),
            _ => None,
        };
        one(with!(src, |src| x.scatter(dim as isize, &index, src, Scatter { reduce })))
    }),
    ("scatter_add", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.tensor("index")?);
        one(x.scatter_add(dim as isize, &index, a.tensor("src")?))
    }),
    ("select_scatter", |a| {
        let (x, src) = (a.tensor("input")?, a.tensor("src")?);
        let (dim, index) = (a.integer("dim")?, a.integer("index")?);
        one(x.select_scatter(&src, dim as isize, index as isize))
    }),
    ("slice_scatter", |a| {
        let (x, src, dim) = (a.tensor("input")?, a.tensor("src")?, a.integer_or("dim", 0)?);
        let (start, end) = (a.optional_float("start")?.map(|i| i as i64), a.optional_float("end")?.map(|i| i as i64));
        let step = a.integer_or("step", 1)? as usize;
        one(x.slice_scatter(&src, SliceScatter { dim: dim as isize, start, end, step }))
    }),
    ("take_along_dim", |a| {
        let (x, index, dim) = (a.tensor("input")?, a.tensor("indices")?, a.optional_float("dim")?);
        one(x.take_along_dim(&index, dim.map(|d| d as isize)))
    }),
    ("__getitem__", |a| {
        let x = a.tensor("input")?;
        one(x.i(a.index()?.as_slice()))
    }),
    ("select", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.integer("index")?);
        one(x.select(dim as isize, index as isize))
    }),
];
