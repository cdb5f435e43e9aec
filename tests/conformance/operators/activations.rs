//! Activations and softmax.

use super::{Family, one, over_dim};
use crate::arguments::{Argument, Unsupported};
use lazuli::prelude::*;

pub const ROWS: Family = &[
    ("log_softmax", |a| over_dim(a, |x, d| x.log_softmax(d))),
    ("nn_functional_celu", |a| {
        let (x, alpha) = (a.tensor("input")?, a.float("alpha", 1.0)?);
        one(x.celu_with(Elu { alpha }))
    }),
    ("nn_functional_elu", |a| {
        let (x, alpha) = (a.tensor("input")?, a.float("alpha", 1.0)?);
        one(x.elu_with(Elu { alpha }))
    }),
    ("nn_functional_gelu", |a| {
        a.only("approximate", "tanh")?;
        one(a.tensor("input")?.gelu())
    }),
    ("nn_functional_glu", |a| {
        let (x, dim) = (a.tensor("input")?, a.integer_or("dim", -1)?);
        one(x.glu(dim as isize))
    }),
    ("nn_functional_hardsigmoid", unary!(hardsigmoid)),
    ("nn_functional_hardswish", unary!(hardswish)),
    ("nn_functional_hardtanh", |a| {
        let x = a.tensor("input")?;
        let (min, max) = (a.float("min_val", -1.0)?, a.float("max_val", 1.0)?);
        one(x.hardtanh_with(Hardtanh { min, max }))
    }),
    ("nn_functional_leaky_relu", |a| {
        let (x, negative_slope) = (a.tensor("input")?, a.float("negative_slope", 0.01)?);
        one(x.leaky_relu_with(LeakyRelu { negative_slope }))
    }),
    ("nn_functional_logsigmoid", unary!(logsigmoid)),
    ("nn_functional_mish", unary!(mish)),
    ("nn_functional_prelu", |a| {
        let x = a.tensor("input")?;
        one(with!(a.operand("weight")?, |w| x.prelu(w)))
    }),
    ("nn_functional_relu", unary!(relu)),
    ("nn_functional_relu6", unary!(relu6)),
    ("nn_functional_selu", unary!(selu)),
    ("nn_functional_silu", unary!(silu)),
    ("nn_functional_softplus", |a| {
        let x = a.tensor("input")?;
        let (beta, threshold) = (a.float("beta", 1.0)?, a.float("threshold", 20.0)?);
        one(x.softplus_with(Softplus { beta, threshold }))
    }),
    ("nn_functional_softsign", unary!(softsign)),
    ("sigmoid", unary!(sigmoid)),
    ("softmax", |a| over_dim(a, |x, d| x.softmax(d))),
];
