//! Normalisation layers: to mean 0 and variance 1 over some dims, then scaled and shifted.

use crate::Tensor;
use crate::dims::{Axes, IntoShape};
use crate::promotion::wide;
use lazuli_ir::{DType, DimVec, ErrorKind, Literal, ReduceOp, Shape};

options! {
    /// What [`Tensor::layer_norm`] takes besides the shape; `()` is its default.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let norm = LayerNorm { weight: Some(Tensor::ones([4])), ..Default::default() };
    /// assert_eq!(Tensor::randn([2, 4]).layer_norm([4], norm).shape(), [2, 4]);
    /// ```
    LayerNorm {
        /// A factor for each normalised element.
        weight: Option<Tensor> = None,
        /// A summand for each normalised element.
        bias: Option<Tensor> = None,
        /// Added to the variance; 1e-5 by default.
        eps: f64 = 1e-5,
    }

    /// What [`Tensor::rms_norm`] takes besides the shape.
    RmsNorm {
        /// A factor for each normalised element.
        weight: Option<Tensor> = None,
        /// Added to the mean square; by default the distance from 1 to the next number of the dtype.
        eps: Option<f64> = None,
    }

    /// What [`Tensor::group_norm`] takes besides the number of groups.
    GroupNorm {
        /// A factor for each channel.
        weight: Option<Tensor> = None,
        /// A summand for each channel.
        bias: Option<Tensor> = None,
        /// Added to the variance; 1e-5 by default.
        eps: f64 = 1e-5,
    }

    /// What [`Tensor::batch_norm`] takes.
    BatchNorm {
        /// The mean of each channel, where it is not taken from the input.
        running_mean: Option<Tensor> = None,
        /// The variance of each channel, where it is not taken from the input.
        running_var: Option<Tensor> = None,
        /// A factor for each channel.
        weight: Option<Tensor> = None,
        /// A summand for each channel.
        bias: Option<Tensor> = None,
        /// Whether mean and variance are those of the input.
        training: bool = false,
        /// Added to the variance; 1e-5 by default.
        eps: f64 = 1e-5,
    }

    /// What [`Tensor::local_response_norm`] takes besides the number of channels.
    LocalResponseNorm {
        /// The factor of the mean square: 1e-4 by default.
        alpha: f64 = 1e-4,
        /// The exponent: 0.75 by default.
        beta: f64 = 0.75,
        /// What is added to it: 1 by default.
        k: f64 = 1.0,
    }

    /// What [`Tensor::instance_norm`] takes.
    InstanceNorm {
        /// The mean of each channel, where it is not taken from the input.
        running_mean: Option<Tensor> = None,
        /// The variance of each channel, where it is not taken from the input.
        running_var: Option<Tensor> = None,
        /// A factor for each channel.
        weight: Option<Tensor> = None,
        /// A summand for each channel.
        bias: Option<Tensor> = None,
        /// Whether mean and variance are those of the input: true by default.
        use_input_stats: bool = true,
        /// Added to the variance; 1e-5 by default.
        eps: f64 = 1e-5,
    }
}

/// What scales and shifts, and how.
struct Affine<'a> {
    weight: &'a Option<Tensor>,
    bias: &'a Option<Tensor>,
}

impl Affine<'_> {
    /// Its tensors.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.weight.iter().chain(self.bias)
    }

    /// `y * weight + bias`, where both are vectors along dim 1 of `y`.
    #[track_caller]
    fn channels(&self, name: &'static str, y: Tensor) -> Tensor {
        let (rank, mut y) = (y.rank(), y);
        if let Some(weight) = self.weight {
            y *= weight.cast(name, y.dtype()).along(1, rank);
        }
        if let Some(bias) = self.bias {
            y += bias.cast(name, y.dtype()).along(1, rank);
        }
        y
    }
}

impl Tensor {
    /// `d * rsqrt(mean(d * d) + eps)` with `d = x - mean(x)`, over dims.
    #[track_caller]
    fn standardised(&self, name: &'static str, axes: &Axes, eps: f64) -> Tensor {
        let count = self.count(axes);
        let d = self - self.reduce(name, ReduceOp::Sum, axes) / count;
        let variance = (&d * &d).reduce(name, ReduceOp::Sum, axes) / count;
        d * (variance + eps).rsqrt()
    }

    /// The last dims, which are to be `shape`, kept; or why they are not.
    fn normalised_dims(&self, shape: &Shape, affine: &Affine<'_>) -> Result<Axes, lazuli_ir::Error> {
        let error = |message: String| Err(lazuli_ir::Error::new(ErrorKind::Shape, message));
        let first = self.rank().checked_sub(shape.rank()).filter(|_| shape.rank() > 0);
        let Some(first) = first.filter(|&f| self.extent_shape().dims()[f..] == *shape.dims()) else {
            return error(format!("the last dims of {} are not the normalised shape {shape}", self.extent_shape()));
        };
        if let Some(other) = affine.tensors().find(|t| *t.extent_shape() != *shape) {
            let message = format!("weight and bias have the normalised shape {shape}, not {}", other.extent_shape());
            return error(message);
        }
        Ok(Axes { dims: (first..self.rank()).collect(), keep: true })
    }

    /// That tensors are vectors of one element a channel, which dim 1 has.
    fn check_channels<'a>(&self, tensors: impl Iterator<Item = &'a Tensor>) -> Result<usize, lazuli_ir::Error> {
        let error = |message: String| Err(lazuli_ir::Error::new(ErrorKind::Shape, message));
        // A vector has as many channels as elements.
        let channels = if self.rank() == 1 { self.size(0) } else { self.size(1) };
        if self.rank() == 0 {
            return error("takes at least 1 dim".to_owned());
        }
        let mut tensors = tensors;
        match tensors.find(|t| t.rank() != 1 || t.size(0) != channels) {
            Some(t) => error(format!("{} does not have one element for each of {channels} channels", t.node.ty)),
            None => Ok(channels),
        }
    }

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
    pub fn layer_norm(&self, shape: impl IntoShape, options: impl Into<LayerNorm>) -> Tensor {
        let (shape, LayerNorm { weight, bias, eps }) = (shape.into_shape(), options.into());
        let affine = Affine { weight: &weight, bias: &bias };
        let given: Vec<&Tensor> = [self].into_iter().chain(affine.tensors()).collect();
        let x = or_failed!(self.floats("layer_norm"));
        let axes = ok!("layer_norm", &given, self.normalised_dims(&shape, &affine));
        let mut y = x.standardised("layer_norm", &axes, eps);
        if let Some(weight) = &weight {
            y *= weight.cast("layer_norm", x.dtype());
        }
        if let Some(bias) = &bias {
            y += bias.cast("layer_norm", x.dtype());
        }
        y.rounded("layer_norm", self.dtype(), &given)
    }

    /// Divided by the root of the mean square over the last dims, which are `shape`, then scaled:
    /// `x * rsqrt(mean(x * x) + eps) * weight`.
    ///
    /// # Errors
    /// Carried: last dims that are not `shape`; a weight of another shape; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([[3.0, 4.0, 5.0]]).rms_norm([3], ()).square().mean(..).item::<f32>()?;
    /// assert!((y - 1.0).abs() < 1e-5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn rms_norm(&self, shape: impl IntoShape, options: impl Into<RmsNorm>) -> Tensor {
        let (shape, RmsNorm { weight, eps }) = (shape.into_shape(), options.into());
        let affine = Affine { weight: &weight, bias: &None };
        let given: Vec<&Tensor> = [self].into_iter().chain(affine.tensors()).collect();
        let x = or_failed!(self.floats("rms_norm"));
        let axes = ok!("rms_norm", &given, self.normalised_dims(&shape, &affine));
        let mean = (&x * &x).reduce("rms_norm", ReduceOp::Sum, &axes) / x.count(&axes);
        let mut y = &x * (mean + eps.unwrap_or(epsilon(wide(self.dtype())))).rsqrt();
        if let Some(weight) = &weight {
            y *= weight.cast("rms_norm", x.dtype());
        }
        y.rounded("rms_norm", self.dtype(), &given)
    }

    /// Channels (dim 1) in groups, each normalised with all that lies behind it to mean 0 and variance 1, then scaled and
    /// shifted a channel.
    ///
    /// # Errors
    /// Carried: fewer than 2 dims; channels that the groups do not divide; a weight or bias that has not one element a
    /// channel; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([[1.0, 3.0, 5.0, 5.0]]).group_norm(2, ()).to_vec::<f32>()?;
    /// assert!((y[0] + 1.0).abs() < 1e-4 && (y[1] - 1.0).abs() < 1e-4 && y[2] == 0.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn group_norm(&self, groups: usize, options: impl Into<GroupNorm>) -> Tensor {
        let GroupNorm { weight, bias, eps } = options.into();
        let affine = Affine { weight: &weight, bias: &bias };
        let given: Vec<&Tensor> = [self].into_iter().chain(affine.tensors()).collect();
        let x = or_failed!(self.floats("group_norm"));
        let channels = ok!("group_norm", &given, self.check_channels(affine.tensors()));
        if self.rank() < 2 || groups == 0 || channels % groups != 0 {
            let message = format!("{} cannot be divided into {groups} groups of channels", self.node.ty);
            return Tensor::fail("group_norm", &given, ErrorKind::Shape, message);
        }
        let extents = self.extent_shape().extents();
        let grouped = [extents[0], groups, channels / groups].into_iter().chain(extents[2..].iter().copied());
        let grouped = x.shaped("group_norm", Ok(Shape::new(grouped)));
        let axes = Axes { dims: (2..grouped.rank()).collect(), keep: true };
        let y = grouped.standardised("group_norm", &axes, eps).shaped("group_norm", Ok(self.extent_shape().clone()));
        affine.channels("group_norm", y).rounded("group_norm", self.dtype(), &given)
    }

    /// Each channel (dim 1) normalised to mean 0 and variance 1 over all other dims, then scaled and shifted: in training by
    /// its own mean and variance, else by those given.
    ///
    /// Tensors are values, so running statistics are not updated here; compute new ones from [`var_mean`](Self::var_mean).
    ///
    /// # Errors
    /// Carried: statistics, weight or bias that have not one element a channel; no statistics outside of training; one value a
    /// channel in training; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 5.0], [3.0, 5.0]]);
    /// let y = x.batch_norm(BatchNorm { training: true, ..Default::default() }).to_vec::<f32>()?;
    /// assert!((y[0] + 1.0).abs() < 1e-4 && (y[2] - 1.0).abs() < 1e-4 && y[1] == 0.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn batch_norm(&self, options: impl Into<BatchNorm>) -> Tensor {
        let BatchNorm { running_mean, running_var, weight, bias, training, eps } = options.into();
        let affine = Affine { weight: &weight, bias: &bias };
        let statistics = running_mean.iter().chain(&running_var);
        let given: Vec<&Tensor> = [self].into_iter().chain(statistics.clone()).chain(affine.tensors()).collect();
        let x = or_failed!(self.floats("batch_norm"));
        ok!("batch_norm", &given, self.check_channels(statistics.chain(affine.tensors())));
        // A vector is one value for each channel.
        let x = if self.rank() == 1 { x.with_dim(0) } else { x };
        let y = match (training, &running_mean, &running_var) {
            (true, _, _) => {
                let axes = Axes { dims: (0..x.rank()).filter(|d| *d != 1).collect(), keep: true };
                x.standardised("batch_norm", &axes, eps)
            }
            (false, Some(mean), Some(var)) => x.by_statistics("batch_norm", mean, var, eps),
            (false, _, _) => {
                let message = "needs `running_mean` and `running_var`, or `training`";
                return Tensor::fail("batch_norm", &given, ErrorKind::Value, message);
            }
        };
        let y = affine.channels("batch_norm", y).shaped("batch_norm", Ok(self.extent_shape().clone()));
        y.rounded("batch_norm", self.dtype(), &given)
    }

    /// Each channel (dim 1) of each element of the batch (dim 0) normalised to mean 0 and variance 1 over the dims behind it,
    /// then scaled and shifted a channel; without `use_input_stats` by the statistics given.
    ///
    /// # Errors
    /// Carried: fewer than 3 dims; statistics, weight or bias that have not one element a channel; a tensor of integers or
    /// booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([[[1.0, 3.0], [5.0, 5.0]]]).instance_norm(()).to_vec::<f32>()?;
    /// assert!((y[0] + 1.0).abs() < 1e-4 && y[2] == 0.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn instance_norm(&self, options: impl Into<InstanceNorm>) -> Tensor {
        let InstanceNorm { running_mean, running_var, weight, bias, use_input_stats, eps } = options.into();
        let affine = Affine { weight: &weight, bias: &bias };
        let statistics = running_mean.iter().chain(&running_var);
        let given: Vec<&Tensor> = [self].into_iter().chain(statistics.clone()).chain(affine.tensors()).collect();
        let x = or_failed!(self.floats("instance_norm"));
        ok!("instance_norm", &given, self.check_channels(statistics.chain(affine.tensors())));
        if self.rank() < 3 {
            let message = format!("takes [batch, channels, ..] of at least 3 dims, not {}", self.node.ty);
            return Tensor::fail("instance_norm", &given, ErrorKind::Shape, message);
        }
        let y = match (use_input_stats, &running_mean, &running_var) {
            (true, _, _) => {
                let axes = Axes { dims: (2..self.rank()).collect(), keep: true };
                x.standardised("instance_norm", &axes, eps)
            }
            (false, Some(mean), Some(var)) => x.by_statistics("instance_norm", mean, var, eps),
            (false, _, _) => {
                let message = "needs `running_mean` and `running_var`, or `use_input_stats`";
                return Tensor::fail("instance_norm", &given, ErrorKind::Value, message);
            }
        };
        affine.channels("instance_norm", y).rounded("instance_norm", self.dtype(), &given)
    }

    /// Each element of `[batch, channels, ..]` divided by `(k + alpha m)^beta`, where `m` is the mean square of `size` channels
    /// around its own; channels beyond the ends count as 0.
    ///
    /// # Errors
    /// Carried: fewer than 3 dims; a size of 0; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let options = LocalResponseNorm { alpha: 2.0, beta: 1.0, k: 1.0 };
    /// let y = lazuli::tensor([[[1.0], [1.0], [3.0]]]).local_response_norm(2, options);
    /// assert_eq!(y.to_vec::<f32>()?, [0.5, 1.0 / 3.0, 3.0 / 11.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn local_response_norm(&self, size: usize, options: impl Into<LocalResponseNorm>) -> Tensor {
        const NAME: &str = "local_response_norm";
        let LocalResponseNorm { alpha, beta, k } = options.into();
        let x = or_failed!(self.floats(NAME));
        if self.rank() < 3 || size == 0 {
            let message =
                format!("takes [batch, channels, ..] of at least 3 dims and a size above 0: {}, {size}", self.node.ty);
            return Tensor::fail(NAME, &[self], ErrorKind::Shape, message);
        }
        let mut sides: DimVec<(i64, i64)> = (0..self.rank()).map(|_| (0, 0)).collect();
        sides[1] = ((size / 2) as i64, ((size - 1) / 2) as i64);
        let squares = x.square().padded(NAME, &sides, Literal::zero(x.dtype()));
        let mean = squares.unfold(1, size, 1).mean(-1);
        (x / (mean * alpha + k).pow(beta)).rounded(NAME, self.dtype(), &[self])
    }

    /// `(x - mean) * rsqrt(var + eps)`, where both are vectors along dim 1.
    #[track_caller]
    fn by_statistics(&self, name: &'static str, mean: &Tensor, var: &Tensor, eps: f64) -> Tensor {
        let (mean, var) = (mean.cast(name, self.dtype()), var.cast(name, self.dtype()));
        (self - mean.along(1, self.rank())) * (var + eps).rsqrt().along(1, self.rank())
    }
}

/// The distance from 1 to the next number of a float dtype.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => (2f64).powi(-10),
        DType::BF16 => (2f64).powi(-7),
        DType::F32 => f64::from(f32::EPSILON),
        DType::Bool | DType::U8 | DType::I32 | DType::I64 | DType::F64 => f64::EPSILON,
    }
}
