//! Activations, built from primitives. Each one's form is fixed, and with it its value and gradient at kinks and extremes.

use crate::Tensor;
use crate::dims::{Axes, Dims, keep};
use crate::ops::elementwise::where_;
use lazuli_ir::{DType, ErrorKind, ReduceOp};

impl Tensor {
    /// The tensor if it is of floats, or an error of the operation `name`.
    #[track_caller]
    pub(crate) fn float_only(&self, name: &str) -> Result<(), Tensor> {
        if self.dtype().is_float() {
            return Ok(());
        }
        let message = format!("needs a floating point tensor, not {}; convert with `to(DType::F32)`", self.dtype());
        Err(Tensor::fail(name, &[self], ErrorKind::DType, message))
    }

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
        match self.dtype() {
            DType::Bool => Tensor::fail("relu", &[self], ErrorKind::DType, "booleans have no relu"),
            DType::F32 => where_(self.le(0.0), 0.0, self).named("relu", &[self]),
            DType::I64 => where_(self.le(0), 0, self).named("relu", &[self]),
        }
    }

    /// `1 / (1 + e^-x)`, elementwise, by the exponential of `-|x|`, so that nothing overflows and small results keep their
    /// precision. Integers and booleans give `f32`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 100.0, -200.0]).sigmoid().to_vec::<f32>()?, [0.5, 1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn sigmoid(&self) -> Tensor {
        let x = if self.dtype().is_float() { self.clone() } else { self.cast("sigmoid", DType::F32) };
        let positive = x.ge(0.0);
        let e = where_(&positive, -&x, &x).exp();
        (where_(&positive, 1.0, &e) / (1.0 + &e)).named("sigmoid", &[self])
    }

    /// The Gaussian error linear unit in its tanh form (PyTorch's `approximate="tanh"`), elementwise: `x * sigmoid(2u)` with
    /// `u = sqrt(2/pi) (x + 0.044715 x^3)`.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([0.0, 1.0]).gelu().to_vec::<f32>()?;
    /// assert_eq!(y[0], 0.0);
    /// assert!((y[1] - 0.841192).abs() < 1e-5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        if let Err(failed) = self.float_only("gelu") {
            return failed;
        }
        let double = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
        let u = double * (self + 0.044715 * (self * self * self));
        (self * u.sigmoid()).named("gelu", &[self])
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
        match self.float_only("silu") {
            Ok(()) => (self * self.sigmoid()).named("silu", &[self]),
            Err(failed) => failed,
        }
    }

    /// The tensor less its largest element over dims, which counts as a constant to gradients.
    #[track_caller]
    pub(crate) fn centred(&self, name: &'static str, axes: &Axes) -> Tensor {
        let kept = Axes { keep: true, ..axes.clone() };
        self - self.detach().reduce(name, ReduceOp::Max, &kept)
    }

    /// The exponentials over dims, divided by their sum: `e = exp(x - detach(max))`, `e / sum(e)`. A run of only -infinity is
    /// NaN; without elements it stays so.
    ///
    /// # Errors
    /// Carried: a dim out of range; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let p = lazuli::tensor([[1.0, 1.0], [0.0, 1000.0]]).softmax(-1);
    /// assert_eq!(p.to_vec::<f32>()?, [0.5, 0.5, 0.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn softmax(&self, dims: impl Dims) -> Tensor {
        if let Err(failed) = self.float_only("softmax") {
            return failed;
        }
        match dims.axes(self.rank()) {
            Ok(_) if self.extent_shape().is_empty() => self.clone(),
            Ok(axes) => {
                let e = self.centred("softmax", &axes).exp();
                let sum = e.reduce("softmax", ReduceOp::Sum, &Axes { keep: true, ..axes });
                (e / sum).named("softmax", &[self])
            }
            Err(e) => Tensor::fail("softmax", &[self], e.kind(), e.message()),
        }
    }

    /// The logarithm of [`softmax`](Self::softmax), without its overflow and cancellation: `s - log(sum(exp(s)))` with
    /// `s = x - detach(max)`.
    ///
    /// # Errors
    /// Carried: a dim out of range; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let p = lazuli::tensor([0.0, 1000.0]).log_softmax(-1);
    /// assert_eq!(p.to_vec::<f32>()?, [-1000.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn log_softmax(&self, dims: impl Dims) -> Tensor {
        if let Err(failed) = self.float_only("log_softmax") {
            return failed;
        }
        match dims.axes(self.rank()) {
            Ok(_) if self.extent_shape().is_empty() => self.clone(),
            Ok(axes) => {
                let s = self.centred("log_softmax", &axes);
                let sum = s.exp().reduce("log_softmax", ReduceOp::Sum, &Axes { keep: true, ..axes });
                (s - sum.log()).named("log_softmax", &[self])
            }
            Err(e) => Tensor::fail("log_softmax", &[self], e.kind(), e.message()),
        }
    }
}

/// What [`Tensor::layer_norm`] takes besides the shape; `()` is its default.
///
/// ```
/// # use lazuli::prelude::*;
/// let norm = LayerNorm { weight: Some(Tensor::ones([4])), ..Default::default() };
/// assert_eq!(Tensor::randn([2, 4]).layer_norm([4], norm).shape(), [2, 4]);
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// A factor for each normalised element.
    pub weight: Option<Tensor>,
    /// A summand for each normalised element.
    pub bias: Option<Tensor>,
    /// Added to the variance; 1e-5 by default.
    pub eps: f64,
}

impl Default for LayerNorm {
    fn default() -> LayerNorm {
        LayerNorm { weight: None, bias: None, eps: 1e-5 }
    }
}

impl From<()> for LayerNorm {
    fn from((): ()) -> LayerNorm {
        LayerNorm::default()
    }
}

impl Tensor {
    /// Normalised over the last dims, which are `shape`, to mean 0 and variance 1, then scaled and shifted:
    /// `d = x - mean(x)`, `d * rsqrt(mean(d * d) + eps) * weight + bias`.
    ///
    /// # Errors
    /// Carried: last dims that are not `shape`; a weight or bias of another shape; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([[1.0, 3.0], [5.0, 5.0]]).layer_norm([2], ()).to_vec::<f32>()?;
    /// assert!((y[0] + 1.0).abs() < 1e-4 && (y[1] - 1.0).abs() < 1e-4);
    /// assert_eq!(&y[2..], [0.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn layer_norm(&self, shape: impl crate::dims::IntoShape, options: impl Into<LayerNorm>) -> Tensor {
        if let Err(failed) = self.float_only("layer_norm") {
            return failed;
        }
        let (shape, options) = (shape.into_shape(), options.into());
        let mut given = vec![self];
        given.extend(options.weight.iter().chain(&options.bias));
        let first = self.rank().checked_sub(shape.rank()).filter(|_| shape.rank() > 0);
        let fits = first.is_some_and(|f| self.extent_shape().dims()[f..] == *shape.dims());
        if !fits {
            let message = format!("the last dims of {} are not the normalised shape {shape}", self.extent_shape());
            return Tensor::fail("layer_norm", &given, ErrorKind::Shape, message);
        }
        if let Some(other) = given[1..].iter().find(|t| *t.extent_shape() != shape) {
            let message = format!("weight and bias have the normalised shape {shape}, not {}", other.extent_shape());
            return Tensor::fail("layer_norm", &given, ErrorKind::Shape, message);
        }
        let dims: Vec<usize> = (first.unwrap_or(0)..self.rank()).collect();
        let d = self - self.mean(keep(dims.clone()));
        let mut y = &d * ((&d * &d).mean(keep(dims)) + options.eps).rsqrt();
        if let Some(weight) = &options.weight {
            y *= weight;
        }
        if let Some(bias) = &options.bias {
            y += bias;
        }
        y.named("layer_norm", &given)
    }
}
