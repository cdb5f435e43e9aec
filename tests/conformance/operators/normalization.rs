//! Normalisation.

use super::{Family, one, sizes};
use lazuli::prelude::*;

pub const ROWS: Family = &[
    ("nn.functional.batch_norm", |a| {
        let x = a.tensor("input")?;
        let (running_mean, running_var) = (a.optional_tensor("running_mean")?, a.optional_tensor("running_var")?);
        let (weight, bias) = (a.optional_tensor("weight")?, a.optional_tensor("bias")?);
        let training = a.flag("training")?;
        // It tells how running statistics go on, which are values here.
        a.float("momentum", 0.1)?;
        let eps = a.float("eps", 1e-5)?;
        one(x.batch_norm(BatchNorm { running_mean, running_var, weight, bias, training, eps }))
    }),
    ("nn.functional.cosine_similarity", |a| {
        let (x, y) = (a.tensor("x1")?, a.tensor("x2")?);
        let (dim, eps) = (a.integer_or("dim", 1)?, a.float("eps", 1e-8)?);
        one(x.cosine_similarity(y, CosineSimilarity { dim: dim as isize, eps }))
    }),
    ("nn.functional.group_norm", |a| {
        let (x, groups) = (a.tensor("input")?, a.integer("num_groups")?);
        let (weight, bias) = (a.optional_tensor("weight")?, a.optional_tensor("bias")?);
        let eps = a.float("eps", 1e-5)?;
        one(x.group_norm(groups as usize, GroupNorm { weight, bias, eps }))
    }),
    ("nn.functional.instance_norm", |a| {
        let x = a.tensor("input")?;
        let (running_mean, running_var) = (a.optional_tensor("running_mean")?, a.optional_tensor("running_var")?);
        let (weight, bias) = (a.optional_tensor("weight")?, a.optional_tensor("bias")?);
        let use_input_stats = a.integer_or("use_input_stats", 1)? != 0;
        a.float("momentum", 0.1)?;
        let eps = a.float("eps", 1e-5)?;
        one(x.instance_norm(InstanceNorm { running_mean, running_var, weight, bias, use_input_stats, eps }))
    }),
    ("nn.functional.layer_norm", |a| {
        let (x, shape) = (a.tensor("input")?, sizes(a.sizes("normalized_shape")?));
        let (weight, bias) = (a.optional_tensor("weight")?, a.optional_tensor("bias")?);
        one(x.layer_norm(shape, LayerNorm { weight, bias, eps: a.float("eps", 1e-5)? }))
    }),
    ("nn.functional.normalize", |a| {
        let x = a.tensor("input")?;
        let (p, dim) = (a.float("p", 2.0)?, a.integer_or("dim", 1)?);
        let eps = a.float("eps", 1e-12)?;
        one(x.normalize(Normalize { p, dim: dim as isize, eps }))
    }),
    ("nn.functional.rms_norm", |a| {
        let (x, shape) = (a.tensor("input")?, sizes(a.sizes("normalized_shape")?));
        let (weight, eps) = (a.optional_tensor("weight")?, a.optional_float("eps")?);
        one(x.rms_norm(shape, RmsNorm { weight, eps }))
    }),
];
