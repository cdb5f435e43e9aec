//! Activations that put a constant in the place of some elements, or draw them towards zero.

use crate::Tensor;
use crate::ops::selection::where_;
use lazuli_ir::{DType, ErrorKind};

options! {
    /// What [`Tensor::hardshrink`] takes.
    Hardshrink {
        /// Elements of at most this magnitude become 0: 0.5 by default.
        lambd: f64 = 0.5,
    }

    /// What [`Tensor::softshrink`] takes.
    Softshrink {
        /// How far elements move towards 0: 0.5 by default.
        lambd: f64 = 0.5,
    }

    /// What [`Tensor::rrelu`] takes.
    Rrelu {
        /// The smallest slope below 0: 1/8 by default.
        lower: f64 = 1.0 / 8.0,
        /// The largest slope below 0: 1/3 by default.
        upper: f64 = 1.0 / 3.0,
        /// Whether each element draws its slope; otherwise all have the middle one.
        training: bool = false,
    }
}

impl Tensor {
    /// `x` where its magnitude exceeds `lambd`, 0 elsewhere, elementwise. NaN passes; no gradient flows where the result is 0.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1.0, 0.5, 0.75]).hardshrink(()).to_vec::<f32>()?, [-1.0, 0.0, 0.75]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn hardshrink(&self, options: impl Into<Hardshrink>) -> Tensor {
        let Hardshrink { lambd } = options.into();
        let x = or_failed!(self.floats("hardshrink"));
        let inside = x.ge(-lambd).logical_and(x.le(lambd));
        where_(inside, 0.0, x).rounded("hardshrink", self.dtype(), &[self])
    }

    /// `x` moved towards 0 by `lambd`, and 0 where it would cross it, elementwise. NaN passes; no gradient flows where the
    /// result is 0.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans; a negative `lambd`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([-1.0, 0.5, 0.75]).softshrink(()).to_vec::<f32>()?, [-0.5, 0.0, 0.25]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn softshrink(&self, options: impl Into<Softshrink>) -> Tensor {
        let Softshrink { lambd } = options.into();
        let x = or_failed!(self.floats("softshrink"));
        if lambd.is_nan() || lambd < 0.0 {
            let message = format!("lambd must not be negative: {lambd}");
            return Tensor::fail("softshrink", &[self], ErrorKind::Value, message);
        }
        let moved = where_(x.gt(0.0), &x - lambd, &x + lambd);
        where_(x.abs().le(lambd), 0.0, moved).rounded("softshrink", self.dtype(), &[self])
    }

    /// `x - tanh(x)`, elementwise.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([0.0, 100.0]).tanhshrink().to_vec::<f32>()?, [0.0, 99.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn tanhshrink(&self) -> Tensor {
        let x = or_failed!(self.floats("tanhshrink"));
        (&x - x.tanh()).rounded("tanhshrink", self.dtype(), &[self])
    }

    /// `x` above a threshold, `value` elsewhere, elementwise. NaN passes; no gradient flows where the result is the value.
    ///
    /// # Errors
    /// Carried: a boolean tensor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 2.0, 3.0]).threshold(2.0, 20.0).to_vec::<f32>()?, [20.0, 20.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn threshold(&self, threshold: f64, value: f64) -> Tensor {
        if self.dtype() == DType::Bool {
            return Tensor::fail("threshold", &[self], ErrorKind::DType, "booleans have no threshold");
        }
        where_(self.le(threshold), value, self).rounded("threshold", self.dtype(), &[self])
    }

    /// `x` from 0 on, and below it `x` times a slope: the middle of `lower..upper`, or in training one drawn for each element.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans; a lower slope above the upper one.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let options = Rrelu { lower: 0.25, upper: 0.75, ..Default::default() };
    /// assert_eq!(lazuli::tensor([-2.0, 3.0]).rrelu(options).to_vec::<f32>()?, [-1.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn rrelu(&self, options: impl Into<Rrelu>) -> Tensor {
        let Rrelu { lower, upper, training } = options.into();
        let x = or_failed!(self.floats("rrelu"));
        if lower.is_nan() || upper.is_nan() || lower > upper {
            let message = format!("the lower slope must not be above the upper one: {lower}, {upper}");
            return Tensor::fail("rrelu", &[self], ErrorKind::Value, message);
        }
        let below = match training {
            true => (x.rand_like() * (upper - lower) + lower) * &x,
            false => &x * ((lower + upper) / 2.0),
        };
        where_(x.ge(0.0), x, below).rounded("rrelu", self.dtype(), &[self])
    }
}
