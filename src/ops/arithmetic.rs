//! Arithmetic: where operands meet, `+ - * /`, the sign and the square.

use crate::Tensor;
use crate::operand::{Argument, Number, Operand};
use crate::promotion::{common_shape, float_type, result_type, tensors};
use lazuli_ir::{BinaryOp, DType, ErrorKind, Op, UnaryOp};

/// Brings two operands to one dtype and shape and records what `op` says for the dtype.
#[track_caller]
pub(crate) fn meet(
    name: &'static str,
    a: Argument<'_>,
    b: Argument<'_>,
    op: fn(DType) -> Result<(Op, DType), String>,
) -> Tensor {
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
    match common_shape(&[a, b]) {
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
    meet("sub", a, b, |dtype| {
        if dtype == DType::Bool {
            return Err("booleans cannot be subtracted; use `logical_xor` for exclusive or".to_owned());
        }
        Ok((Op::Binary(BinaryOp::Sub), dtype))
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
    meet("div", a, b, |dtype| Ok((Op::Binary(BinaryOp::Div), float_type(dtype))))
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

    /// The tensor itself, as `+x` in Python.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-2, 3]).positive().to_vec::<i64>()?, [-2, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn positive(&self) -> Tensor {
        if self.dtype() == DType::Bool {
            return Tensor::fail("positive", &[self], ErrorKind::DType, "is not defined for booleans");
        }
        self.clone()
    }

    /// `other - alpha * self`, elementwise, with broadcasting and promotion.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2]).rsub(10, ()).to_vec::<i64>()?, [9, 8]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn rsub(&self, other: impl Operand, options: impl Into<Rsub>) -> Tensor {
        let Rsub { alpha } = options.into();
        let one = alpha == Number::I64(1) || alpha == Number::F64(1.0);
        let x = if one { self.clone() } else { mul(Argument::Tensor(self), Argument::Number(alpha)) };
        sub(other.argument(), Argument::Tensor(&x)).named("rsub", &tensors(&[Argument::Tensor(self), other.argument()]))
    }
}

options! {
    /// What [`Tensor::rsub`] takes besides its operands.
    Rsub {
        /// A factor for the receiver, 1 by default.
        alpha: Number = Number::I64(1),
    }
}
