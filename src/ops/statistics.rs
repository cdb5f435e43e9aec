//! Variance and standard deviation over dims.

use crate::Tensor;
use crate::dims::{Axes, Dims};
use crate::ops::selection::where_;
use lazuli_ir::ReduceOp;

options! {
    /// What the variance and standard deviation take besides dims.
    Var {
        /// Subtracted from the number of elements: 1 by default (Bessel's correction), 0 for the population's variance.
        correction: f64 = 1.0,
    }
}

impl Tensor {
    /// The variance over dims: the sum of squared distances from the mean, divided by the number of elements less the
    /// correction (1 by default). NaN where that is 0 or less and all elements are equal, as for a single element.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 3.0], [2.0, 2.0]]);
    /// assert_eq!(x.var(-1, ()).to_vec::<f32>()?, [2.0, 0.0]);
    /// assert_eq!(x.var(-1, Var { correction: 0.0 }).to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn var(&self, dims: impl Dims, options: impl Into<Var>) -> Tensor {
        let x = or_failed!(self.floats("var"));
        let axes = ok!("var", &[self], dims.axes(self.rank()));
        x.variance("var", &axes, options.into()).rounded("var", self.dtype(), &[self])
    }

    /// The standard deviation over dims: the root of [`var`](Self::var). Its gradient is 0 where it is 0.
    ///
    /// # Errors
    /// Carried, as for `var`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 3.0]).std(.., Var { correction: 0.0 }).item::<f32>()?, 1.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn std(&self, dims: impl Dims, options: impl Into<Var>) -> Tensor {
        let x = or_failed!(self.floats("std"));
        let axes = ok!("std", &[self], dims.axes(self.rank()));
        x.variance("std", &axes, options.into()).root().rounded("std", self.dtype(), &[self])
    }

    /// The [variance](Self::var) and the mean over dims.
    ///
    /// # Errors
    /// Carried, as for `var`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (var, mean) = lazuli::tensor([1.0, 3.0]).var_mean(.., ());
    /// assert_eq!((var.item::<f32>()?, mean.item::<f32>()?), (2.0, 2.0));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn var_mean(&self, dims: impl Dims, options: impl Into<Var>) -> (Tensor, Tensor) {
        (self.var(&dims, options).named("var_mean", &[self]), self.mean(&dims).named("var_mean", &[self]))
    }

    /// The [standard deviation](Self::std) and the mean over dims.
    ///
    /// # Errors
    /// Carried, as for `var`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (std, mean) = lazuli::tensor([1.0, 3.0]).std_mean(.., Var { correction: 0.0 });
    /// assert_eq!((std.item::<f32>()?, mean.item::<f32>()?), (1.0, 2.0));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn std_mean(&self, dims: impl Dims, options: impl Into<Var>) -> (Tensor, Tensor) {
        (self.std(&dims, options).named("std_mean", &[self]), self.mean(&dims).named("std_mean", &[self]))
    }

    /// The variance in this tensor's own dtype.
    #[track_caller]
    pub(crate) fn variance(&self, name: &'static str, axes: &Axes, options: Var) -> Tensor {
        let count = self.count(axes);
        let kept = Axes { keep: true, ..axes.clone() };
        let distance = self - self.reduce(name, ReduceOp::Sum, &kept) / count;
        (&distance * &distance).reduce(name, ReduceOp::Sum, axes) / (count - options.correction).max(0.0)
    }

    /// The square root, whose gradient at 0 is 0.
    #[track_caller]
    pub(crate) fn root(&self) -> Tensor {
        let zero = self.eq(0.0);
        where_(&zero, 0.0, where_(&zero, 1.0, self).sqrt())
    }
}
