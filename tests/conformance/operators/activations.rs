//! Activations and softmax.

use super::{Family, one, over_dim};
use crate::arguments::{Argument, Unsupported};
use lazuli::prelude::*;

pub const ROWS: Family = &[
    ("nn.functional.gelu", |a| {
        let x = a.tensor("input")?;
        let approximate = match a.text("approximate", "none")?.as_str() {
            "tanh" => Approximate::Tanh,
            _ => Approximate::None,
        };
        one(x.gelu_with(Gelu { approximate }))
    }),
    ("log_softmax", |a| over_dim(a, |x, d| x.log_softmax(d))),
    ("nn.functional.celu", |a| {
        let (x, alpha) = (a.tensor("input")?, a.float("alpha", 1.0)?);
        one(x.celu_with(Elu { alpha }))
    }),
    ("nn.functional.elu", |a| {
        let (x, alpha) = (a.tensor("input")?, a.float("alpha", 1.0)?);
        one(x.elu_with(Elu { alpha }))
    }),
    ("nn.functional.glu", |a| {
        let (x, dim) = (a.tensor("input")?, a.integer_or("dim", -1)?);
        one(x.glu(dim as isize))
    }),
    ("nn.functional.hardsigmoid", unary!(hardsigmoid)),
    ("nn.functional.hardswish", unary!(hardswish)),
    ("nn.functional.hardtanh", |a| {
        let x = a.tensor("input")?;
        let (min, max) = (a.float("min_val", -1.0)?, a.float("max_val", 1.0)?);
        one(x.hardtanh_with(Hardtanh { min, max }))
    }),
    ("nn.functional.leaky_relu", |a| {
        let (x, negative_slope) = (a.tensor("input")?, a.float("negative_slope", 0.01)?);
        one(x.leaky_relu_with(LeakyRelu { negative_slope }))
    }),
    ("nn.functional.logsigmoid", unary!(logsigmoid)),
    ("nn.functional.mish", unary!(mish)),
    ("nn.functional.prelu", |a| {
        let x = a.tensor("input")?;
        one(with!(a.operand("weight")?, |w| x.prelu(w)))
    }),
    ("nn.functional.relu", unary!(relu)),
    ("nn.functional.relu6", unary!(relu6)),
    ("nn.functional.selu", unary!(selu)),
    ("nn.functional.silu", unary!(silu)),
    ("nn.functional.softplus", |a| {
        let x = a.tensor("input")?;
        let (beta, threshold) = (a.float("beta", 1.0)?, a.float("threshold", 20.0)?);
        one(x.softplus_with(Softplus { beta, threshold }))
    }),
    ("nn.functional.softsign", unary!(softsign)),
    ("sigmoid", unary!(sigmoid)),
    ("softmax", |a| over_dim(a, |x, d| x.softmax(d))),
];
