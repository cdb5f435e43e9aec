//! Products of matrices and tensors, and attention.

use super::{Family, one};
use crate::arguments::{Argument, Arguments, Dims, Unsupported};
use lazuli::prelude::*;

/// `beta * input + alpha * (a @ b)`.
macro_rules! sum_with_product {
    ($method:ident) => {
        |a| {
            let (x, y, z) = (a.tensor("input")?, a.tensor("1")?, a.tensor("2")?);
            let (beta, alpha) = (a.number("beta")?, a.number("alpha")?);
            one(x.$method(y, z, AddProductOf { beta, alpha }))
        }
    };
}

pub const ROWS: Family = &[
    ("cross", |a| {
        let (x, y, dim) = (a.tensor("input")?, a.tensor("other")?, a.next("dim"));
        let dim = match dim {
            Some(Argument::Int(d)) => d as isize,
            // The first dim of extent 3.
            _ => x.shape().iter().position(|n| *n == 3).unwrap_or(0) as isize,
        };
        one(x.cross(&y, dim))
    }),
    ("addmm", sum_with_product!(addmm)),
    ("addmv", sum_with_product!(addmv)),
    ("baddbmm", sum_with_product!(baddbmm)),
    ("bmm", binary_tensor!(bmm)),
    ("dot", binary_tensor!(dot)),
    ("einsum", |a| {
        let (operands, equation) = (a.tensors("operands")?, a.text("equation", "")?);
        one(lazuli::einsum(&equation, &operands.iter().collect::<Vec<_>>()))
    }),
    ("inner", binary_tensor!(inner)),
    ("kron", binary_tensor!(kron)),
    ("linalg.multi_dot", |a| one(lazuli::multi_dot(&a.tensors("tensors")?))),
    ("matmul", binary_tensor!(matmul)),
    ("mm", binary_tensor!(mm)),
    ("mv", binary_tensor!(mv)),
    ("nn.functional.linear", |a| {
        let (x, weight, bias) = (a.tensor("input")?, a.tensor("weight")?, a.optional_tensor("bias")?);
        one(x.linear(weight, Linear { bias }))
    }),
    ("nn.functional.scaled_dot_product_attention", |a| {
        let (q, k, v) = (a.tensor("query")?, a.tensor("key")?, a.tensor("value")?);
        let mask = a.optional_tensor("attn_mask")?;
        if a.float("dropout_p", 0.0)? != 0.0 {
            return Err(Unsupported("dropout".into()));
        }
        let is_causal = a.flag("is_causal")?;
        let (scale, enable_gqa) = (a.optional_float("scale")?, a.flag("enable_gqa")?);
        one(q.scaled_dot_product_attention(&k, &v, Attention { mask, is_causal, scale, enable_gqa }))
    }),
    ("outer", binary_tensor!(outer)),
    ("tensordot", tensordot),
];

fn tensordot(a: &mut Arguments) -> super::Results {
    let (x, y) = (a.tensor("input")?, a.tensor("other")?);
    let pairs = match a.next("dims") {
        Some(Argument::Int(n)) => ((-n..0).collect(), (0..n).collect()),
        Some(Argument::List(mut sides)) if sides.len() == 2 => {
            let (right, left) = (sides.pop(), sides.pop());
            (list(left)?, list(right)?)
        }
        other => return Err(Unsupported(format!("dims {other:?}"))),
    };
    let (left, right): (Vec<i64>, Vec<i64>) = pairs;
    one(x.tensordot(&y, left, right))
}

fn list(side: Option<Argument>) -> Result<Vec<i64>, Unsupported> {
    match Dims::new(side)? {
        Dims::All => Ok(Vec::new()),
        Dims::One(d) => Ok(vec![d]),
        Dims::Several(d) => Ok(d),
    }
}
