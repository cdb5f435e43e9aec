//! The table of operators: from the arguments of a PyTorch call to the same call of Lazuli. A row takes its arguments in the
//! order of PyTorch's signature; what it leaves makes the case unsupported.

use crate::arguments::{Argument, Arguments, Dims, Unsupported};
use lazuli::{DType, IndexItem, Indices, LayerNorm, StepRange, Tensor, keep, where_};
use lazuli_ir::DimVec;

type Results = Result<Vec<Tensor>, Unsupported>;

/// A call of an operator.
pub type Operator = fn(&mut Arguments) -> Results;

/// The first operand is a tensor, the second a tensor or a number: `$f` for each.
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

/// A reduction over `dim`, with `keepdim`.
macro_rules! reduction {
    ($method:ident) => {
        |a| {
            let (x, dtype) = (a.tensor("input")?, a.dtype()?);
            let x = dtype.map_or(x.clone(), |d| x.to(d));
            reduce(a, |d| x.$method(d), |d| x.$method(keep(d)), || x.$method(..), || x.$method(keep(..)))
        }
    };
}

/// The operators that Lazuli has.
pub const OPERATORS: &[(&str, Operator)] = &[
    ("__getitem__", |a| {
        let x = a.tensor("input")?;
        one(x.i(Parts(a.index()?)))
    }),
    ("abs", unary!(abs)),
    ("add", |a| {
        let (x, y) = scaled(a)?;
        one(with!(y, |y| x + y))
    }),
    ("arange", arange),
    ("argmax", reduction!(argmax)),
    ("bmm", binary_tensor!(matmul)),
    ("broadcast_to", |a| {
        let (x, shape) = (a.tensor("input")?, a.sizes("size")?);
        one(x.expand(shape))
    }),
    ("div", |a| {
        a.only("rounding_mode", "none")?;
        let x = a.tensor("input")?;
        one(with!(a.operand("other")?, |y| x / y))
    }),
    ("dot", binary_tensor!(matmul)),
    ("eq", binary!(eq)),
    ("exp", unary!(exp)),
    ("expand", |a| {
        let (x, sizes) = (a.tensor("input")?, a.sizes("size")?);
        one(x.expand(sizes))
    }),
    ("flatten", |a| {
        let x = a.tensor("input")?;
        let (start, end) = (a.float("start_dim", 0.0)? as isize, a.float("end_dim", -1.0)? as isize);
        one(x.flatten(start..=end))
    }),
    ("full", |a| {
        let (shape, value, dtype) = (sizes(a.sizes("size")?), a.operand("fill_value")?, a.dtype()?);
        let y = match value {
            Argument::Int(v) => Tensor::full(shape, v),
            Argument::Float(v) => Tensor::full(shape, v),
            Argument::Bool(v) => Tensor::full(shape, v),
            other => return Err(Unsupported(format!("fill value {other:?}"))),
        };
        one(dtype.map_or(y.clone(), |d| y.to(d)))
    }),
    ("ge", binary!(ge)),
    ("gt", binary!(gt)),
    ("le", binary!(le)),
    ("log", unary!(log)),
    ("log_softmax", |a| over_dim(a, |x, d| x.log_softmax(d))),
    ("lt", binary!(lt)),
    ("matmul", binary_tensor!(matmul)),
    ("max", max),
    ("maximum", binary!(maximum)),
    ("mean", reduction!(mean)),
    ("minimum", binary!(minimum)),
    ("mm", binary_tensor!(matmul)),
    ("mul", |a| {
        let x = a.tensor("input")?;
        one(with!(a.operand("other")?, |y| x * y))
    }),
    ("mv", binary_tensor!(matmul)),
    ("ne", binary!(ne)),
    ("neg", unary!(neg)),
    ("nn_functional_cross_entropy", |a| {
        a.only("reduction", "mean")?;
        let (x, y) = (a.tensor("input")?, a.tensor("target")?);
        match y.dtype() {
            DType::I64 => one(x.cross_entropy(y)),
            _ => Err(Unsupported("labels that are probabilities".into())),
        }
    }),
    ("nn_functional_gelu", |a| {
        a.only("approximate", "tanh")?;
        one(a.tensor("input")?.gelu())
    }),
    ("nn_functional_layer_norm", |a| {
        let (x, shape) = (a.tensor("input")?, sizes(a.sizes("normalized_shape")?));
        let (weight, bias) = (a.optional_tensor("weight")?, a.optional_tensor("bias")?);
        one(x.layer_norm(shape, LayerNorm { weight, bias, eps: a.float("eps", 1e-5)? }))
    }),
    ("nn_functional_mse_loss", |a| {
        a.only("reduction", "mean")?;
        let (x, y) = (a.tensor("input")?, a.tensor("target")?);
        one(x.mse_loss(y))
    }),
    ("nn_functional_relu", unary!(relu)),
    ("nn_functional_silu", unary!(silu)),
    ("ones_like", |a| like(a, |x| x.ones_like())),
    ("permute", |a| {
        let (x, dims) = (a.tensor("input")?, a.sizes("dims")?);
        one(x.permute(dims))
    }),
    ("reciprocal", unary!(reciprocal)),
    ("reshape", |a| {
        let (x, shape) = (a.tensor("input")?, a.sizes("shape")?);
        one(x.reshape(shape))
    }),
    ("rsqrt", unary!(rsqrt)),
    ("sigmoid", unary!(sigmoid)),
    ("softmax", |a| over_dim(a, |x, d| x.softmax(d))),
    ("sqrt", unary!(sqrt)),
    ("square", unary!(square)),
    ("squeeze", |a| {
        let x = a.tensor("input")?;
        one(match a.dims("dim")? {
            Dims::All => x.squeeze(..),
            Dims::One(d) => x.squeeze(d),
            Dims::Several(dims) => x.squeeze(dims),
        })
    }),
    ("sub", |a| {
        let (x, y) = scaled(a)?;
        one(with!(y, |y| x - y))
    }),
    ("sum", reduction!(sum)),
    ("t", unary!(t)),
    ("tanh", unary!(tanh)),
    ("transpose", |a| {
        let (x, first, second) = (a.tensor("input")?, a.integer("dim0")?, a.integer("dim1")?);
        one(x.transpose(first as isize, second as isize))
    }),
    ("true_divide", |a| {
        let x = a.tensor("input")?;
        one(with!(a.operand("other")?, |y| x / y))
    }),
    ("unsqueeze", |a| {
        let (x, dim) = (a.tensor("input")?, a.integer("dim")?);
        one(x.unsqueeze(dim as isize))
    }),
    ("view", |a| {
        let (x, shape) = (a.tensor("input")?, a.sizes("shape")?);
        one(x.view(shape))
    }),
    ("where", |a| {
        // The samples give the method's receiver first: `x.where(condition, other)`.
        let (x, condition) = (a.tensor("input")?, a.tensor("condition")?);
        one(with!(a.operand("other")?, |y| where_(condition, x, y)))
    }),
    ("zeros_like", |a| like(a, |x| x.zeros_like())),
];

/// An index made of parts.
struct Parts(Vec<IndexItem>);

impl Indices for Parts {
    fn items(self) -> DimVec<IndexItem> {
        self.0.into_iter().collect()
    }
}

fn one(y: Tensor) -> Results {
    Ok(vec![y])
}

/// Sizes that are not negative.
fn sizes(sizes: Vec<i64>) -> Vec<usize> {
    sizes.into_iter().map(|s| s as usize).collect()
}

fn reduce(
    a: &mut Arguments,
    dropped: impl Fn(Vec<i64>) -> Tensor,
    kept: impl Fn(Vec<i64>) -> Tensor,
    all: impl Fn() -> Tensor,
    all_kept: impl Fn() -> Tensor,
) -> Results {
    let (dims, keepdim) = (a.dims("dim")?, a.flag("keepdim")?);
    one(match (dims, keepdim) {
        (Dims::All, false) => all(),
        (Dims::All, true) => all_kept(),
        (Dims::One(d), false) => dropped(vec![d]),
        (Dims::One(d), true) => kept(vec![d]),
        // An empty list means all dims to PyTorch's reductions.
        (Dims::Several(d), false) if d.is_empty() => all(),
        (Dims::Several(d), true) if d.is_empty() => all_kept(),
        (Dims::Several(d), false) => dropped(d),
        (Dims::Several(d), true) => kept(d),
    })
}

/// The operands of `x + alpha * y` and `x - alpha * y`, the second one scaled.
fn scaled(a: &mut Arguments) -> Result<(Tensor, Argument), Unsupported> {
    let (x, y) = (a.tensor("input")?, a.operand("other")?);
    let y = match (y, a.next("alpha")) {
        (y, None | Some(Argument::Int(1))) => y,
        (Argument::Tensor(y), Some(alpha)) => Argument::Tensor(with!(alpha, |alpha| y * alpha)),
        (y, alpha) => return Err(Unsupported(format!("operand {y:?} scaled by {alpha:?}"))),
    };
    Ok((x, y))
}

/// A function along one dim, on the tensor as another dtype where the call asks for one.
fn over_dim(a: &mut Arguments, f: fn(&Tensor, i64) -> Tensor) -> Results {
    let (x, dtype) = (a.tensor("input")?, a.dtype()?);
    let x = dtype.map_or(x.clone(), |d| x.to(d));
    let dim = a.integer("dim")?;
    one(f(&x, dim))
}

/// A tensor of one value like another one.
fn like(a: &mut Arguments, f: fn(&Tensor) -> Tensor) -> Results {
    let (x, dtype) = (a.tensor("input")?, a.dtype()?);
    let y = f(&x);
    one(dtype.map_or(y.clone(), |d| y.to(d)))
}

/// Three functions under one name: the larger of two tensors, the largest element, and the largest along a dim with its index.
fn max(a: &mut Arguments) -> Results {
    let x = a.tensor("input")?;
    match a.peek() {
        None => one(x.max(..)),
        Some(Argument::Tensor(_)) => one(x.maximum(a.tensor("other")?)),
        Some(_) => {
            let (dim, keepdim) = (a.integer("dim")?, a.flag("keepdim")?);
            match keepdim {
                true => Ok(vec![x.max(keep(dim)), x.argmax(keep(dim))]),
                false => Ok(vec![x.max(dim), x.argmax(dim)]),
            }
        }
    }
}

fn arange(a: &mut Arguments) -> Results {
    let dtype = a.dtype()?;
    let mut bounds = Vec::new();
    for name in ["start", "end", "step"] {
        match a.next(name) {
            Some(bound @ (Argument::Int(_) | Argument::Float(_))) => bounds.push(bound),
            Some(Argument::Bool(b)) => bounds.push(Argument::Int(b.into())),
            None => {}
            other => return Err(Unsupported(format!("bound {other:?}"))),
        }
    }
    if bounds.len() == 1 {
        bounds.insert(0, Argument::Int(0));
    }
    let integer = |b: &Argument| if let Argument::Int(i) = b { Some(*i) } else { None };
    let number = |b: &Argument| if let Argument::Float(f) = b { *f } else { integer(b).unwrap_or(0) as f64 };
    let whole: Option<Vec<i64>> = bounds.iter().map(integer).collect();
    let y = match whole.as_deref() {
        Some([start, end]) => Tensor::arange(*start..*end),
        Some([start, end, step]) => Tensor::arange((*start..*end).step(*step)),
        _ => {
            let bounds: Vec<f64> = bounds.iter().map(number).collect();
            let step = bounds.get(2).copied().unwrap_or(1.0);
            Tensor::arange((bounds[0]..bounds[1]).step(step))
        }
    };
    one(dtype.map_or(y.clone(), |d| y.to(d)))
}
