//! Dropout.

use crate::Tensor;
use crate::ops::selection::where_;
use lazuli_ir::ErrorKind;

options! {
    /// What [`Tensor::dropout`] takes.
    Dropout {
        /// The probability of an element to become 0: 0.5 by default.
        p: f64 = 0.5,
        /// Without it the tensor stays as it is.
        training: bool = true,
    }
}

impl Tensor {
    /// Each element 0 with probability `p`, and divided by `1 - p` otherwise, by the next numbers of the process generator; see
    /// [`manual_seed`](crate::manual_seed).
    ///
    /// # Errors
    /// Carried: a probability outside of 0 to 1; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = Tensor::ones([100]).dropout(Dropout { p: 0.75, ..Default::default() });
    /// assert!(y.to_vec::<f32>()?.iter().all(|v| [0.0, 4.0].contains(v)));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn dropout(&self, options: impl Into<Dropout>) -> Tensor {
        let Dropout { p, training } = options.into();
        let x = or_failed!(self.floats("dropout"));
        if !(0.0..=1.0).contains(&p) {
            let message = format!("a probability lies between 0 and 1: {p}");
            return Tensor::fail("dropout", &[self], ErrorKind::Value, message);
        }
        if !training || p == 0.0 {
            return self.clone();
        }
        let stays = Tensor::rand(self.shape()).ge(p);
        let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
        where_(stays, x * scale, 0.0).rounded("dropout", self.dtype(), &[self])
    }
}
