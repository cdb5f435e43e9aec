//! Losses.

use super::{Family, one};
use crate::arguments::Unsupported;
use lazuli::prelude::*;

pub const ROWS: Family = &[
    ("nn_functional_binary_cross_entropy", |a| {
        let (x, y, weight) = (a.tensor("input")?, a.tensor("target")?, a.optional_tensor("weight")?);
        let reduction = a.reduction()?;
        one(x.binary_cross_entropy_with(y, BinaryCrossEntropy { reduction, weight }))
    }),
    ("nn_functional_binary_cross_entropy_with_logits", |a| {
        let (x, y, weight) = (a.tensor("input")?, a.tensor("target")?, a.optional_tensor("weight")?);
        let (reduction, pos_weight) = (a.reduction()?, a.optional_tensor("pos_weight")?);
        let options = BinaryCrossEntropyWithLogits { reduction, weight, pos_weight };
        one(x.binary_cross_entropy_with_logits_with(y, options))
    }),
    ("nn_functional_cross_entropy", |a| {
        a.only("reduction", "mean")?;
        let (x, y) = (a.tensor("input")?, a.tensor("target")?);
        match y.dtype() {
            DType::I64 => one(x.cross_entropy(y)),
            _ => Err(Unsupported("labels that are probabilities".into())),
        }
    }),
    ("nn_functional_huber_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        let delta = a.float("delta", 1.0)?;
        one(x.huber_loss_with(y, HuberLoss { reduction, delta }))
    }),
    ("nn_functional_kl_div", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        let log_target = a.flag("log_target")?;
        one(x.kl_div_with(y, KlDiv { reduction, log_target }))
    }),
    ("nn_functional_l1_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        one(x.l1_loss_with(y, L1Loss { reduction }))
    }),
    ("nn_functional_mse_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        one(x.mse_loss_with(y, MseLoss { reduction }))
    }),
    ("nn_functional_smooth_l1_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        let beta = a.float("beta", 1.0)?;
        one(x.smooth_l1_loss_with(y, SmoothL1Loss { reduction, beta }))
    }),
];
