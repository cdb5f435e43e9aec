//! Elementwise operations: arithmetic, comparisons, functions of one operand, selection, conversion.

use crate::Tensor;
use crate::operand::{Argument, Operand};
use crate::promotion::{broadcast_shapes, result_type};
use lazuli_ir::{BinaryOp, CompareOp, DType, ErrorKind, Op, Shape, UnaryOp};

impl Tensor {
    /// The operand in this dtype and shape, to which it is known to broadcast.
    #[track_caller]
    pub(crate) fn fit(argument: Argument<'_>, dtype: DType, shape: &Shape) -> Tensor {
        match argument {
            Argument::Number(n) => Tensor::splat(n.literal(dtype), shape),
            Argument::Tensor(t) => t.cast("to", dtype).stretch(shape),
        }
    }

    /// Records a cast where the dtype differs.
    #[track_caller]
    pub(crate) fn cast(&self, name: &'static str, dtype: DType) -> Tensor {
        if self.dtype() == dtype { self.clone() } else { Tensor::record(name, Op::Cast(dtype), &[self]) }
    }

    /// Records a broadcast where the shape differs.
    #[track_caller]
    pub(crate) fn stretch(&self, shape: &Shape) -> Tensor {
        if self.extent_shape() == shape {
            return self.clone();
        }
        let dims = (shape.rank().saturating_sub(self.rank())..shape.rank()).collect();
        Tensor::record("broadcast_to", Op::Broadcast { shape: shape.clone(), dims }, &[self])
    }
}

/// The tensors among operands, for errors.
fn tensors<'a>(arguments: &[Argument<'a>]) -> Vec<&'a Tensor> {
    let tensor = |a: &Argument<'a>| match a {
        Argument::Tensor(t) => Some(*t),
        Argument::Number(_) => None,
    };
    arguments.iter().filter_map(tensor).collect()
}

fn shape_of(argument: Argument<'_>) -> Shape {
    match argument {
        Argument::Tensor(t) => t.extent_shape().clone(),
        Argument::Number(_) => Shape::scalar(),
    }
}

/// Brings two operands to one dtype and shape and records what `op` says for the dtype.
#[track_caller]
fn meet(name: &'static str, a: Argument<'_>, b: Argument<'_>, op: fn(DType) -> Result<(Op, DType), String>) -> Tensor {
    let (op, dtype) = match op(result_type(&[a, b])) {
        Ok(found) => found,
        Err(message) => return Tensor::fail(name, &tensors(&[a, b]), ErrorKind::DType, message),
    };
    if let (Argument::Tensor(x), Argument::Tensor(y)) = (a, b)
        && x.node.ty == y.node.ty
        && x.dtype() == dtype
    {
        return Tensor::record(name, op, &[x, y]);
    }
    let shape = match (a, b) {
        (Argument::Tensor(t), Argument::Number(_)) | (Argument::Number(_), Argument::Tensor(t)) => {
            Ok(t.extent_shape().clone())
        }
        (Argument::Tensor(x), Argument::Tensor(y)) => broadcast_shapes(x.extent_shape(), y.extent_shape()),
        (Argument::Number(_), Argument::Number(_)) => Ok(Shape::scalar()),
    };
    match shape {
        Ok(shape) => {
            let (x, y) = (Tensor::fit(a, dtype, &shape), Tensor::fit(b, dtype, &shape));
            let result = Tensor::record(name, op, &[&x, &y]);
            if result.node.error().is_some() { result.named(name, &tensors(&[a, b])) } else { result }
        }
        Err(message) => Tensor::fail(name, &tensors(&[a, b]), ErrorKind::Shape, message),
    }
}

/// `a + b`; on booleans `or`.
#[track_caller]
pub(crate) fn add(a: Argument<'_>, b: Argument<'_>) -> Tensor {
    meet("add", a, b, |dtype| {
        let op = if dtype == DType::Bool { BinaryOp::Max } else { BinaryOp::Add };
        Ok((Op::Binary(op), dtype))
    })
}

/// `a - b`; refused for booleans, as in PyTorch.
#[track_caller]
pub(crate) fn sub(a: Argument<'_>, b: Argument<'_>) -> Tensor {
    meet("sub", a, b, |dtype| match dtype {
        DType::Bool => Err("booleans cannot be subtracted; use `ne` for exclusive or".to_owned()),
        DType::I64 | DType::F32 => Ok((Op::Binary(BinaryOp::Sub), dtype)),
    })
}

/// `a * b`; on booleans `and`.
#[track_caller]
pub(crate) fn mul(a: Argument<'_>, b: Argument<'_>) -> Tensor {
    meet("mul", a, b, |dtype| {
        let op = if dtype == DType::Bool { BinaryOp::Min } else { BinaryOp::Mul };
        Ok((Op::Binary(op), dtype))
    })
}

/// `a / b`: true division, so integers and booleans give the default float dtype.
#[track_caller]
pub(crate) fn div(a: Argument<'_>, b: Argument<'_>) -> Tensor {
    meet("div", a, b, |dtype| {
        let dtype = if dtype.is_float() { dtype } else { DType::F32 };
        Ok((Op::Binary(BinaryOp::Div), dtype))
    })
}

macro_rules! comparisons {
    ($($name:ident $op:ident $sign:literal $example:literal;)*) => {
        impl Tensor {$(
            #[doc = concat!("`self ", $sign, " other`, elementwise, with broadcasting.")]
            ///
            /// Operands of any dtype meet in their common dtype; the result is `bool`, and no gradient flows. A comparison
            /// with NaN is false, except that `ne` is true.
            ///
            /// # Errors
            /// Carried: shapes that do not broadcast.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            /// let x = lazuli::tensor([1.0, 2.0, 3.0]);
            #[doc = concat!("assert_eq!(x.", stringify!($name), "(2.0).to_vec::<bool>()?, ", $example, ");")]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $name(&self, other: impl Operand) -> Tensor {
                let meeting = |dtype| Ok((Op::Compare(CompareOp::$op), dtype));
                meet(stringify!($name), Argument::Tensor(self), other.argument(), meeting)
            }
        )*}
    };
}

comparisons! {
    eq Eq "==" "[false, true, false]";
    ne Ne "!=" "[true, false, true]";
    lt Lt "<" "[true, false, false]";
    le Le "<=" "[true, true, false]";
    gt Gt ">" "[false, false, true]";
    ge Ge ">=" "[false, true, true]";
}

/// Functions of floats: integers and booleans are taken as the default float dtype, as in PyTorch.
macro_rules! float_functions {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// Elementwise; integers and booleans give `f32`.
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                let x = if self.dtype().is_float() { self.clone() } else { self.cast(stringify!($name), DType::F32) };
                Tensor::record(stringify!($name), Op::Unary(UnaryOp::$op), &[&x])
            }
        )*}
    };
}

float_functions! {
    /// `e` to the power of each element.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).exp().to_vec::<f32>()?, [1.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    exp Exp;
    /// The natural logarithm: -infinity at 0, NaN below.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 0.0]).log().to_vec::<f32>()?, [0.0, f32::NEG_INFINITY]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    log Log;
    /// The square root; NaN below 0. The gradient at 0 is infinite.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([4.0, 9.0]).sqrt().to_vec::<f32>()?, [2.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    sqrt Sqrt;
    /// One over the square root.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([4.0, 1.0]).rsqrt().to_vec::<f32>()?, [0.5, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    rsqrt Rsqrt;
    /// The hyperbolic tangent.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 100.0]).tanh().to_vec::<f32>()?, [0.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    tanh Tanh;
    /// One over each element; infinite at 0.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([4.0, 0.5]).reciprocal().to_vec::<f32>()?, [0.25, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    reciprocal Reciprocal;
}

impl Tensor {
    /// The absolute value, elementwise, of integers (the smallest wraps to itself) or floats. The gradient at 0 is 0.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-2, 3]).abs().to_vec::<i64>()?, [2, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn abs(&self) -> Tensor {
        Tensor::record("abs", Op::Unary(UnaryOp::Abs), &[self])
    }

    /// The negative, elementwise, of integers (wrapping) or floats; the same as `-x`.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!((-lazuli::tensor([-2, 3])).to_vec::<i64>()?, [2, -3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn neg(&self) -> Tensor {
        Tensor::record("neg", Op::Unary(UnaryOp::Neg), &[self])
    }

    /// `x * x`, elementwise; booleans are taken as `i64`, as in PyTorch.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([2, -3]).square().to_vec::<i64>()?, [4, 9]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn square(&self) -> Tensor {
        let x = if self.dtype() == DType::Bool { self.cast("square", DType::I64) } else { self.clone() };
        mul(Argument::Tensor(&x), Argument::Tensor(&x)).named("square", &[self])
    }

    /// The larger of each pair of elements, with broadcasting and promotion. NaN on either side gives NaN. Where both are
    /// equal, each gets half of the gradient.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 5]).maximum(3).to_vec::<i64>()?, [3, 5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn maximum(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::Max), dtype));
        meet("maximum", Argument::Tensor(self), other.argument(), meeting)
    }

    /// The smaller of each pair of elements, with broadcasting and promotion. NaN on either side gives NaN. Where both are
    /// equal, each gets half of the gradient.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 5]).minimum(3).to_vec::<i64>()?, [1, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn minimum(&self, other: impl Operand) -> Tensor {
        let meeting = |dtype| Ok((Op::Binary(BinaryOp::Min), dtype));
        meet("minimum", Argument::Tensor(self), other.argument(), meeting)
    }

    /// The elements in another dtype: floats become integers by truncation (saturating; NaN gives 0), and anything becomes
    /// `bool` by `!= 0`. A gradient flows between float dtypes only.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.7, -1.7]).to(DType::I64).to_vec::<i64>()?, [1, -1]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn to(&self, dtype: DType) -> Tensor {
        self.cast("to", dtype)
    }

    /// The elements of `self` where `condition` holds, of `other` elsewhere: PyTorch's `x.where(condition, other)`. See
    /// [`where_`].
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1.0, -2.0]);
    /// assert_eq!(x.where_(x.gt(0.0), 0.0).to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn where_(&self, condition: impl Operand, other: impl Operand) -> Tensor {
        where_(condition, self, other)
    }
}

/// The elements of `a` where `condition` holds, of `b` elsewhere, with broadcasting of all three and promotion of `a` and
/// `b`. The gradient goes to the side that was taken; no NaN of the other side gets into the value.
///
/// # Errors
/// Carried: a condition that is not `bool`; shapes that do not broadcast.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::tensor([1.0, -2.0]);
/// assert_eq!(lazuli::where_(x.gt(0.0), &x, &x * 0.1).to_vec::<f32>()?, [1.0, -0.2]);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn where_(condition: impl Operand, a: impl Operand, b: impl Operand) -> Tensor {
    let (c, a, b) = (condition.argument(), a.argument(), b.argument());
    let dtype = result_type(&[a, b]);
    let given = tensors(&[c, a, b]);
    let is_bool = match c {
        Argument::Tensor(t) => t.dtype() == DType::Bool,
        Argument::Number(n) => n.dtype() == DType::Bool,
    };
    if !is_bool {
        return Tensor::fail(
            "where_",
            &given,
            ErrorKind::DType,
            "the condition must be bool; compare with something first",
        );
    }
    let shape = broadcast_shapes(&shape_of(a), &shape_of(b)).and_then(|s| broadcast_shapes(&shape_of(c), &s));
    let shape = match shape {
        Ok(shape) => shape,
        Err(message) => return Tensor::fail("where_", &given, ErrorKind::Shape, message),
    };
    let c = Tensor::fit(c, DType::Bool, &shape);
    let (a, b) = (Tensor::fit(a, dtype, &shape), Tensor::fit(b, dtype, &shape));
    Tensor::record("where_", Op::Select, &[&c, &a, &b]).named("where_", &given)
}
