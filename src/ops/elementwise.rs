//! Functions of each element, and the casts and broadcasts that every operation brings its operands together with.

use crate::operand::Argument;
use crate::promotion::float_type;
use crate::trace::{self, TraceId};
use crate::{Device, Placement, Tensor};
use lazuli_ir::{DType, ErrorKind, Op, Shape, UnaryOp};

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
    /// 2 to the power of each element.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([3.0, -1.0]).exp2().to_vec::<f32>()?, [8.0, 0.5]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    exp2 Exp2;
    /// `e^x - 1`, exact for small elements.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1e-10]).expm1().to_vec::<f32>()?, [1e-10]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    expm1 Expm1;
    /// The logarithm to base 2: -infinity at 0, NaN below.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([8.0, 0.5]).log2().to_vec::<f32>()?, [3.0, -1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    log2 Log2;
    /// The logarithm to base 10: -infinity at 0, NaN below.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 1000.0]).log10().to_vec::<f32>()?, [0.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    log10 Log10;
    /// `log(1 + x)`, exact for small elements.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1e-10]).log1p().to_vec::<f32>()?, [1e-10]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    log1p Log1p;
    /// The sine of radians.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).sin().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    sin Sin;
    /// The cosine of radians.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).cos().to_vec::<f32>()?, [1.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    cos Cos;
    /// The tangent of radians.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).tan().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    tan Tan;
    /// The inverse sine; NaN outside of -1..=1.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).asin().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    asin Asin;
    /// The inverse cosine; NaN outside of -1..=1.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2]).acos().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    acos Acos;
    /// The inverse tangent.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).atan().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    atan Atan;
    /// The hyperbolic sine.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).sinh().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    sinh Sinh;
    /// The hyperbolic cosine.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).cosh().to_vec::<f32>()?, [1.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    cosh Cosh;
    /// The inverse hyperbolic sine.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).asinh().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    asinh Asinh;
    /// The inverse hyperbolic cosine; NaN below 1.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2]).acosh().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    acosh Acosh;
    /// The inverse hyperbolic tangent; infinite at -1 and 1, NaN outside.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).atanh().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    atanh Atanh;
    /// The error function.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).erf().to_vec::<f32>()?, [0.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    erf Erf;
    /// `1 - erf(x)`, exact for large elements.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).erfc().to_vec::<f32>()?, [1.0; 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    erfc Erfc;
    /// `1 / (1 + e^-x)`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 100.0, -200.0]).sigmoid().to_vec::<f32>()?, [0.5, 1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    sigmoid Sigmoid;
}

/// Functions to whole numbers, which integers are already.
macro_rules! roundings {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// Elementwise; integers stay as they are. No gradient flows: it is 0 everywhere.
            ///
            /// # Errors
            /// Carried: a boolean tensor.
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                if self.dtype().is_int() {
                    return self.clone();
                }
                Tensor::record(stringify!($name), Op::Unary(UnaryOp::$op), &[self])
            }
        )*}
    };
}

roundings! {
    /// The smallest whole number that is not below.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.2, -1.2]).ceil().to_vec::<f32>()?, [2.0, -1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    ceil Ceil;
    /// The largest whole number that is not above.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.2, -1.2]).floor().to_vec::<f32>()?, [1.0, -2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    floor Floor;
    /// The whole part, without the fraction.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.8, -1.8]).trunc().to_vec::<f32>()?, [1.0, -1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    trunc Trunc;
    /// The nearest whole number; halves go to the even one.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.5, 1.5, 2.6]).round().to_vec::<f32>()?, [0.0, 2.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    round Round;
}

options! {
    /// What [`Tensor::round_with`] takes.
    Round {
        /// Digits after the point that stay; negative ones count before it.
        decimals: i32 = 0,
    }
}

impl Tensor {
    /// The tensor in another dtype, on another device, or both.
    ///
    /// Floats become integers by truncation, as x86 and PyTorch on it do that: what does not fit, and NaN, gives the smallest
    /// `i32` or `i64` (for `u8` the low bits of that `i32`). Anything becomes `bool` by `!= 0`. A gradient flows between float
    /// dtypes, and between devices: it comes back to where the tensor was.
    ///
    /// Inside a compiled function everything is on one device, that of its arguments.
    ///
    /// # Errors
    /// Carried: inside a compiled function, another device. What the copy needs and cannot have, such as the device, is an
    /// error when a value is read.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1.7, -1.7]);
    /// assert_eq!(x.to(DType::I64).to_vec::<i64>()?, [1, -1]);
    /// assert_eq!(x.to(Device::Cpu).dtype(), DType::F32);
    /// assert_eq!(x.to((Device::Cpu, DType::F64)).dtype(), DType::F64);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn to(&self, place: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = place.into();
        let cast = match dtype {
            Some(dtype) => self.cast("to", dtype),
            None => self.clone(),
        };
        match device {
            Some(device) => cast.on(device),
            None => cast,
        }
    }

    /// Itself on a device.
    #[track_caller]
    fn on(&self, device: Device) -> Tensor {
        let from = self.device();
        if from == device || self.check().is_err() {
            return self.clone();
        }
        let traced = self.trace_id() != TraceId::NONE || trace::current() != TraceId::NONE;
        if traced && self.node.home.is_some() {
            let message = format!(
                "a program runs on one device, and this one on {from}: move tensors to {device} before the call, or results \
                 after it"
            );
            return Tensor::fail("to", &[self], ErrorKind::Device, message);
        }
        Tensor::record("to", Op::ToDevice { from: from.into(), to: device.into() }, &[self])
    }

    /// Itself where another tensor lives.
    #[track_caller]
    pub(crate) fn beside(&self, other: &Tensor) -> Tensor {
        if other.device() == Device::Cpu { self.clone() } else { self.on(other.device()) }
    }

    /// [`round`](Self::round) to a number of decimals.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.26, 124.0]).round_with(Round { decimals: 1 }).to_vec::<f32>()?, [1.3, 124.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn round_with(&self, options: impl Into<Round>) -> Tensor {
        let Round { decimals } = options.into();
        if decimals == 0 || !self.dtype().is_float() {
            return self.round();
        }
        let (x, power) = (self.as_float("round"), 10f64.powi(decimals.abs()));
        let y = if decimals > 0 { (x * power).round() / power } else { (x / power).round() * power };
        y.rounded("round", self.dtype(), &[self])
    }

    /// The part of each element behind the point, with its sign: `x - trunc(x)`.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.5, -1.25]).frac().to_vec::<f32>()?, [0.5, -0.25]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn frac(&self) -> Tensor {
        let x = or_failed!(self.floats("frac"));
        (&x - x.trunc()).rounded("frac", self.dtype(), &[self])
    }

    /// -1, 0 or 1, as the sign of each element; 0 for NaN. Booleans stay as they are. No gradient flows: it is 0 everywhere.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-3, 0, 7]).sign().to_vec::<i64>()?, [-1, 0, 1]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn sign(&self) -> Tensor {
        if self.dtype() == DType::Bool {
            return self.clone();
        }
        Tensor::record("sign", Op::Unary(UnaryOp::Sign), &[self])
    }

    /// Whether the sign bit of each element is set, as `bool`: below 0, and for -0.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-3.0, -0.0, 7.0]).signbit().to_vec::<bool>()?, [true, true, false]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn signbit(&self) -> Tensor {
        if !self.dtype().is_float() {
            return self.lt(0).named("signbit", &[self]);
        }
        self.ones_like().copysign(self).lt(0.0).named("signbit", &[self])
    }
}
