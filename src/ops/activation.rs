//! Activations, built from primitives. Each one's form is fixed, and with it its value and gradient at kinks and extremes.

use crate::Tensor;
use crate::dims;
use crate::operand::Argument;
use crate::ops::selection::where_;
use crate::promotion::{float_type, floats_only, gather_operands, tensors};
use lazuli_ir::{DType, Error, ErrorKind, Shape};

options! {
    /// What [`Tensor::leaky_relu_with`] takes.
    LeakyRelu {
        /// The slope below 0: 0.01 by default.
        negative_slope: f64 = 0.01,
    }

    /// What [`Tensor::elu_with`] and [`Tensor::celu_with`] take.
    Elu {
        /// The value that large negative elements approach, negated: 1 by default.
        alpha: f64 = 1.0,
    }

    /// What [`Tensor::hardtanh_with`] takes.
    Hardtanh {
        /// The lower bound: -1 by default.
        min: f64 = -1.0,
        /// The upper bound: 1 by default.
        max: f64 = 1.0,
    }

    /// What [`Tensor::softplus_with`] takes.
    Softplus {
        /// How sharp the bend is: 1 by default.
        beta: f64 = 1.0,
        /// Where `beta * x` is above it, the function is the identity: 20 by default.
        threshold: f64 = 20.0,
    }
}

/// How [`Tensor::gelu_with`] computes the distribution function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Approximate {
    /// Exactly, by the error function.
    #[default]
    None,
    /// By the hyperbolic tangent of a polynomial.
    Tanh,
}

options! {
    /// What [`Tensor::gelu_with`] takes.
    Gelu {
        /// The approximation: none by default.
        approximate: Approximate = Approximate::None,
    }
}

impl Tensor {
    /// `max(x, 0)`, elementwise: `where_(x <= 0, 0, x)`. NaN passes; the gradient at 0 is 0.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1.0, 0.0, 2.0]).relu().to_vec::<f32>()?, [0.0, 0.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        if self.dtype() == DType::Bool {
            return Tensor::fail("relu", &[self], ErrorKind::DType, "booleans have no relu");
        }
        where_(self.le(0), 0, self).named("relu", &[self])
    }

    /// `min(max(x, 0), 6)`, elementwise. NaN passes; the gradient at 0 and 6 is 0.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1.0, 3.0, 9.0]).relu6().to_vec::<f32>()?, [0.0, 3.0, 6.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn relu6(&self) -> Tensor {
        if self.dtype() == DType::Bool {
            return Tensor::fail("relu6", &[self], ErrorKind::DType, "booleans have no relu");
        }
        where_(self.le(0), 0, where_(self.ge(6), 6, self)).named("relu6", &[self])
    }

    /// `x` above 0 and `0.01 x` below, elementwise. The gradient at 0 is 0.01.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1.0, 2.0]).leaky_relu().to_vec::<f32>()?, [-0.01, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn leaky_relu(&self) -> Tensor {
        self.leaky_relu_with(())
    }

    /// [`leaky_relu`](Self::leaky_relu) with another slope.
    ///
    /// # Errors
    /// Carried, as for `leaky_relu`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([-1.0, 2.0]).leaky_relu_with(LeakyRelu { negative_slope: 0.5 });
    /// assert_eq!(y.to_vec::<f32>()?, [-0.5, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn leaky_relu_with(&self, options: impl Into<LeakyRelu>) -> Tensor {
        let x = or_failed!(self.floats("leaky_relu"));
        let LeakyRelu { negative_slope } = options.into();
        where_(x.gt(0.0), &x, &x * negative_slope).rounded("leaky_relu", self.dtype(), &[self])
    }

    /// `x` above 0 and `weight * x` below, elementwise, with one weight, or one for each index of dim 1 (of dim 0 for a vector).
    ///
    /// # Errors
    /// Carried: a number of weights that is neither 1 nor the extent of that dim; other tensors than of floats of one dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[-1.0, -2.0], [1.0, 2.0]]);
    /// assert_eq!(x.prelu(lazuli::tensor([0.5, 0.25])).to_vec::<f32>()?, [-0.5, -0.5, 1.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn prelu(&self, weight: impl crate::Operand) -> Tensor {
        let given = [Argument::Tensor(self), weight.argument()];
        let mut weight = Tensor::fit(given[1], self.dtype(), &crate::promotion::shape_of(given[1]));
        if weight.numel() != 1 {
            let axis = usize::from(self.rank() > 1);
            if weight.rank() != 1 || self.rank() == 0 || weight.size(0) != self.size(axis as isize) {
                let message = format!("{} weights for {}", weight.numel(), self.node.ty);
                return Tensor::fail("prelu", &tensors(&given), ErrorKind::Shape, message);
            }
            weight = weight.along(axis, self.rank());
        } else {
            weight = weight.reshape(());
        }
        let meeting =
            or_failed!(gather_operands("prelu", [Argument::Tensor(self), Argument::Tensor(&weight)], floats_only));
        let [x, w] = &meeting.operands;
        where_(x.gt(0.0), x, w * x).rounded("prelu", meeting.dtype, &tensors(&given))
    }

    /// A vector as one that lies along dim `axis` of a tensor of `rank` dims.
    #[track_caller]
    pub(crate) fn along(&self, axis: usize, rank: usize) -> Tensor {
        let mut sizes = vec![1; rank];
        if let Some(size) = sizes.get_mut(axis) {
            *size = self.numel();
        }
        self.reshape(sizes)
    }

    /// `log(sigmoid(x))`, elementwise: `min(x, 0) - log(1 + e^-|x|)`, which never overflows.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1000.0, 1000.0]).logsigmoid().to_vec::<f32>()?, [-1000.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn logsigmoid(&self) -> Tensor {
        let x = or_failed!(self.floats("logsigmoid"));
        (x.minimum(0.0) - (-x.abs()).exp().log1p()).rounded("logsigmoid", self.dtype(), &[self])
    }

    /// `min(max(x + 3, 0), 6) / 6`, elementwise. The gradient at the kinks is 0.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-4.0, 0.0, 4.0]).hardsigmoid().to_vec::<f32>()?, [0.0, 0.5, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn hardsigmoid(&self) -> Tensor {
        let x = or_failed!(self.floats("hardsigmoid"));
        ((x + 3.0).relu6() / 6.0).rounded("hardsigmoid", self.dtype(), &[self])
    }

    /// `x * hardsigmoid(x)`, elementwise: 0 below -3 and `x` above 3.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-4.0, 0.0, 4.0]).hardswish().to_vec::<f32>()?, [0.0, 0.0, 4.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn hardswish(&self) -> Tensor {
        let x = or_failed!(self.floats("hardswish"));
        (&x * (&x + 3.0).relu6() / 6.0).rounded("hardswish", self.dtype(), &[self])
    }

    /// Elements kept between -1 and 1. NaN passes; the gradient at both bounds is 0.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-4.0, 0.5, 4.0]).hardtanh().to_vec::<f32>()?, [-1.0, 0.5, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn hardtanh(&self) -> Tensor {
        self.hardtanh_with(())
    }

    /// [`hardtanh`](Self::hardtanh) with other bounds.
    ///
    /// # Errors
    /// Carried: a boolean tensor; `min > max`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([-4.0, 0.5]).hardtanh_with(Hardtanh { min: 0.0, max: 0.25 });
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 0.25]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn hardtanh_with(&self, options: impl Into<Hardtanh>) -> Tensor {
        let Hardtanh { min, max } = options.into();
        if self.dtype() == DType::Bool {
            return Tensor::fail("hardtanh", &[self], ErrorKind::DType, "booleans have no hardtanh");
        }
        if min > max {
            let message = format!("the lower bound {min} lies above the upper bound {max}");
            return Tensor::fail("hardtanh", &[self], ErrorKind::Value, message);
        }
        // Bounds in the tensor's own dtype, and within it: integers stay integers, and nothing is below 0 of `u8`.
        let scalar = Shape::scalar();
        let lowest = if self.dtype() == DType::U8 { 0.0 } else { f64::NEG_INFINITY };
        let number = |v: f64| crate::Number::F64(v.max(lowest)).literal(self.dtype());
        let (low, high) = (Tensor::splat(number(min), &scalar), Tensor::splat(number(max), &scalar));
        where_(self.le(&low), &low, where_(self.ge(&high), &high, self)).named("hardtanh", &[self])
    }

    /// `x` above 0 and `e^x - 1` below, elementwise.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-100.0, 2.0]).elu().to_vec::<f32>()?, [-1.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn elu(&self) -> Tensor {
        self.elu_with(())
    }

    /// [`elu`](Self::elu) with a factor: `alpha * (e^x - 1)` below 0.
    ///
    /// # Errors
    /// Carried, as for `elu`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-100.0, 2.0]).elu_with(Elu { alpha: 3.0 }).to_vec::<f32>()?, [-3.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn elu_with(&self, options: impl Into<Elu>) -> Tensor {
        let x = or_failed!(self.floats("elu"));
        let Elu { alpha } = options.into();
        x.exponential_below("elu", alpha, 1.0, 1.0).rounded("elu", self.dtype(), &[self])
    }

    /// `x` above 0 and `e^x - 1` below, elementwise: [`elu`](Self::elu), whose general forms differ.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-100.0, 2.0]).celu().to_vec::<f32>()?, [-1.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn celu(&self) -> Tensor {
        self.celu_with(())
    }

    /// [`celu`](Self::celu) with `alpha * (e^(x / alpha) - 1)` below 0, whose slope at 0 is 1.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans; an `alpha` of 0.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-100.0, 2.0]).celu_with(Elu { alpha: 0.5 }).to_vec::<f32>()?, [-0.5, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn celu_with(&self, options: impl Into<Elu>) -> Tensor {
        let x = or_failed!(self.floats("celu"));
        let Elu { alpha } = options.into();
        if alpha == 0.0 {
            return Tensor::fail("celu", &[self], ErrorKind::Value, "alpha must not be 0");
        }
        x.exponential_below("celu", alpha, 1.0, 1.0 / alpha).rounded("celu", self.dtype(), &[self])
    }

    /// The self-normalising exponential unit: `s x` above 0 and `s a (e^x - 1)` below, with `s = 1.0507...` and `a = 1.6732...`.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 1.0]).selu().to_vec::<f32>()?, [0.0, 1.050701]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn selu(&self) -> Tensor {
        const ALPHA: f64 = 1.673_263_242_354_377_2;
        const SCALE: f64 = 1.050_700_987_355_480_5;
        let x = or_failed!(self.floats("selu"));
        x.exponential_below("selu", ALPHA * SCALE, SCALE, 1.0).rounded("selu", self.dtype(), &[self])
    }

    /// `scale * x` above 0, `factor * (e^(rate * x) - 1)` below. Elements above 0 count as 0 to the exponential, so that it
    /// never overflows, in gradients neither.
    #[track_caller]
    fn exponential_below(&self, name: &'static str, factor: f64, scale: f64, rate: f64) -> Tensor {
        let positive = self.gt(0.0);
        let below = where_(&positive, 0.0, self * rate).expm1() * factor;
        where_(positive, self * scale, below).named(name, &[self])
    }

    /// The Gaussian error linear unit, elementwise: `x * (1 + erf(x / sqrt(2))) / 2`. [`gelu_with`](Self::gelu_with) has the
    /// tanh form.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([0.0, 1.0]).gelu().to_vec::<f32>()?;
    /// assert_eq!(y[0], 0.0);
    /// assert!((y[1] - 0.841345).abs() < 1e-5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        self.gelu_with(())
    }

    /// [`gelu`](Self::gelu) in its tanh form, where asked: `x * sigmoid(2u)` with `u = sqrt(2/pi) (x + 0.044715 x^3)`.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([0.0, 1.0]).gelu_with(Gelu { approximate: Approximate::Tanh }).to_vec::<f32>()?;
    /// assert_eq!(y[0], 0.0);
    /// assert!((y[1] - 0.841192).abs() < 1e-5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn gelu_with(&self, options: impl Into<Gelu>) -> Tensor {
        let x = or_failed!(self.floats("gelu"));
        let Gelu { approximate } = options.into();
        let y = match approximate {
            Approximate::None => &x * ((&x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
            Approximate::Tanh => {
                let double = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
                let u = double * (&x + 0.044715 * (&x * &x * &x));
                &x * u.sigmoid()
            }
        };
        y.rounded("gelu", self.dtype(), &[self])
    }

    /// `x * sigmoid(x)`, elementwise.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 100.0]).silu().to_vec::<f32>()?, [0.0, 100.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        let x = or_failed!(self.floats("silu"));
        (&x * x.sigmoid()).rounded("silu", self.dtype(), &[self])
    }

    /// `x * tanh(softplus(x))`, elementwise.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 100.0]).mish().to_vec::<f32>()?, [0.0, 100.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn mish(&self) -> Tensor {
        let x = or_failed!(self.floats("mish"));
        (&x * x.softplus().tanh()).rounded("mish", self.dtype(), &[self])
    }

    /// `log(1 + e^x)`, elementwise; `x` itself above 20.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-200.0, 100.0]).softplus().to_vec::<f32>()?, [0.0, 100.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn softplus(&self) -> Tensor {
        self.softplus_with(())
    }

    /// [`softplus`](Self::softplus) with its arguments: `log(1 + e^(beta * x)) / beta`, and `x` where `beta * x` is above the
    /// threshold.
    ///
    /// # Errors
    /// Carried, as for `softplus`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([1.0]).softplus_with(Softplus { beta: 2.0, threshold: 1.0 });
    /// assert_eq!(y.to_vec::<f32>()?, [1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn softplus_with(&self, options: impl Into<Softplus>) -> Tensor {
        let x = or_failed!(self.floats("softplus"));
        let Softplus { beta, threshold } = options.into();
        let scaled = &x * beta;
        let linear = scaled.gt(threshold);
        // Where it is linear the exponential is of 0, so that it never overflows, in gradients neither.
        let bend = where_(&linear, 0.0, scaled).exp().log1p() / beta;
        where_(linear, &x, bend).rounded("softplus", self.dtype(), &[self])
    }

    /// `x / (1 + |x|)`, elementwise. Integers and booleans give `f32`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1.0, 3.0]).softsign().to_vec::<f32>()?, [-0.5, 0.75]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn softsign(&self) -> Tensor {
        let x = self.as_float("softsign");
        (&x / (1.0 + x.abs())).rounded("softsign", float_type(self.dtype()), &[self])
    }

    /// The gated linear unit: the first half of a dim times the sigmoid of the second half.
    ///
    /// # Errors
    /// Carried: a dim out of range, or of odd extent; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[2.0, 4.0, 0.0, 100.0]]).glu(-1).to_vec::<f32>()?, [1.0, 4.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn glu(&self, dim: isize) -> Tensor {
        let x = or_failed!(self.floats("glu"));
        let axis = ok!("glu", &[self], dims::axis(dim as i64, self.rank()));
        let extent = self.size(axis as isize);
        let even = if self.rank() > 0 && extent.is_multiple_of(2) {
            Ok(extent / 2)
        } else {
            Err(Error::new(ErrorKind::Shape, format!("dim {axis} of {} cannot be halved", self.node.ty)))
        };
        let half = ok!("glu", &[self], even);
        let (value, gate) = (x.part(axis, 0, half), x.part(axis, half, half));
        (value * gate.sigmoid()).rounded("glu", self.dtype(), &[self])
    }
}
