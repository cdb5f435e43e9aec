//! Functions of each element, and the casts and broadcasts that every operation brings its operands together with.

use crate::Tensor;
use crate::operand::Argument;
use crate::promotion::float_type;
use lazuli_ir::{DType, Op, Shape, UnaryOp};

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

/// Functions of floats: integers and booleans are taken as the default float dtype, as in PyTorch.
macro_rules! float_functions {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// Elementwise; integers and booleans give `f32`.
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                let x = self.cast(stringify!($name), float_type(self.dtype()));
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

    /// `e^x - 1`, elementwise; integers and booleans give `f32`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).expm1().to_vec::<f32>()?, [0.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn expm1(&self) -> Tensor {
        self.exp() - 1.0
    }

    /// `log(1 + x)`, elementwise; integers and booleans give `f32`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).log1p().to_vec::<f32>()?, [0.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn log1p(&self) -> Tensor {
        (self + 1.0).log()
    }
}
