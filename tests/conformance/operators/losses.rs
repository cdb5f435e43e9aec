//! Losses.

use super::{Family, one};
use lazuli::prelude::*;

pub const ROWS: Family = &[
    ("nn.functional.cross_entropy", |a| {
        let (x, y, weight) = (a.tensor("input")?, a.tensor("target")?, a.optional_tensor("weight")?);
        let (ignore_index, reduction) = (a.integer_or("ignore_index", -100)?, a.reduction()?);
        let label_smoothing = a.float("label_smoothing", 0.0)?;
        one(x.cross_entropy_with(y, CrossEntropy { weight, ignore_index, reduction, label_smoothing }))
    }),
    ("nn.functional.nll_loss", |a| {
        let (x, y, weight) = (a.tensor("input")?, a.tensor("target")?, a.optional_tensor("weight")?);
        let (ignore_index, reduction) = (a.integer_or("ignore_index", -100)?, a.reduction()?);
        one(x.nll_loss_with(y, NllLoss { weight, ignore_index, reduction }))
    }),
    ("nn.functional.binary_cross_entropy", |a| {
        let (x, y, weight) = (a.tensor("input")?, a.tensor("target")?, a.optional_tensor("weight")?);
        let reduction = a.reduction()?;
        one(x.binary_cross_entropy_with(y, BinaryCrossEntropy { reduction, weight }))
    }),
    ("nn.functional.binary_cross_entropy_with_logits", |a| {
        let (x, y, weight) = (a.tensor("input")?, a.tensor("target")?, a.optional_tensor("weight")?);
        let (reduction, pos_weight) = (a.reduction()?, a.optional_tensor("pos_weight")?);
        let options = BinaryCrossEntropyWithLogits { reduction, weight, pos_weight };
        one(x.binary_cross_entropy_with_logits_with(y, options))
    }),
    ("nn.functional.huber_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        let delta = a.float("delta", 1.0)?;
        one(x.huber_loss_with(y, HuberLoss { reduction, delta }))
    }),
    ("nn.functional.kl_div", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        let log_target = a.flag("log_target")?;
        one(x.kl_div_with(y, KlDiv { reduction, log_target }))
    }),
    ("nn.functional.l1_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        one(x.l1_loss_with(y, L1Loss { reduction }))
    }),
    ("nn.functional.mse_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        one(x.mse_loss_with(y, MseLoss { reduction }))
    }),
    ("nn.functional.smooth_l1_loss", |a| {
        let (x, y, reduction) = (a.tensor("input")?, a.tensor("target")?, a.reduction()?);
        let beta = a.float("beta", 1.0)?;
        one(x.smooth_l1_loss_with(y, SmoothL1Loss { reduction, beta }))
    }),
];
