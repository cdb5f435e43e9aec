//! Norms of vectors, and what is made of them: normalised vectors, cosines.

use crate::Tensor;
use crate::dims::{self, Axes, Dims};
use crate::operand::{Argument, Operand};
use crate::ops::selection::where_;
use crate::promotion::{floats_only, gather_operands, tensors};
use lazuli_ir::{DType, ErrorKind, ReduceOp};

options! {
    /// What [`Tensor::norm`] takes besides dims.
    Norm {
        /// The order: 2 by default; 0 counts nonzero elements, infinity is the largest magnitude, -infinity the smallest.
        p: f64 = 2.0,
    }

    /// What [`Tensor::normalize`] takes.
    Normalize {
        /// The order of the norm: 2 by default.
        p: f64 = 2.0,
        /// The dim of the vectors: 1 by default.
        dim: isize = 1,
        /// The smallest divisor: 1e-12 by default.
        eps: f64 = 1e-12,
    }

    /// What [`Tensor::cosine_similarity`] takes besides its operands.
    CosineSimilarity {
        /// The dim of the vectors: 1 by default.
        dim: isize = 1,
        /// The smallest norm to divide by: 1e-8 by default.
        eps: f64 = 1e-8,
    }
}

impl Tensor {
    /// The norm of vectors over dims: `(sum |x|^p)^(1/p)`, with `p = 2` by default (PyTorch's `linalg.vector_norm`, and
    /// `torch.norm` with a number).
    ///
    /// The gradient at a vector of zeros is 0. For the norms of infinite order, elements of equal magnitude share the gradient.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice; a tensor of integers or booleans; an infinite norm of nothing.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[3.0, -4.0], [0.0, 0.0]]);
    /// assert_eq!(x.norm(-1, ()).to_vec::<f32>()?, [5.0, 0.0]);
    /// assert_eq!(x.norm(-1, Norm { p: 1.0 }).to_vec::<f32>()?, [7.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn norm(&self, dims: impl Dims, options: impl Into<Norm>) -> Tensor {
        let x = or_failed!(self.floats("norm"));
        let axes = ok!("norm", &[self], dims.axes(self.rank()));
        x.vector_norm(&axes, options.into().p).rounded("norm", self.dtype(), &[self])
    }

    #[track_caller]
    pub(crate) fn vector_norm(&self, axes: &Axes, p: f64) -> Tensor {
        let sum = ReduceOp::Sum;
        if p == 0.0 {
            return self.ne(0.0).cast("norm", self.dtype()).reduce("norm", sum, axes);
        }
        let magnitude = self.abs();
        if p == 1.0 {
            return magnitude.reduce("norm", sum, axes);
        }
        if p == 2.0 {
            return (self * self).reduce("norm", sum, axes).root();
        }
        if p.is_infinite() {
            let op = if p > 0.0 { ReduceOp::Amax } else { ReduceOp::Amin };
            return magnitude.reduce("norm", op, axes);
        }
        // A power of 0 would have an infinite or undefined gradient.
        let zero = magnitude.eq(0.0);
        let at_zero = if p > 0.0 { 0.0 } else { f64::INFINITY };
        let powers = where_(&zero, at_zero, where_(&zero, 1.0, magnitude).pow(p));
        let total = powers.reduce("norm", sum, axes);
        let bottom = total.eq(at_zero);
        where_(&bottom, 0.0, where_(&bottom, 1.0, total).pow(1.0 / p))
    }

    /// The nuclear norm of the matrices in two dims: the sum of their singular values, `torch.norm`'s order `"nuc"`.
    ///
    /// It is the product of the matrix with its polar factor, summed up; that factor comes from 48 Newton-Schulz steps in `f64`, which
    /// reach every singular value down to about 1e-8 of the largest. The factor is the gradient, and a constant to further ones.
    ///
    /// # Errors
    /// Carried: other than two dims; a dim out of range or given twice; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[3.0, 0.0], [0.0, -4.0]]).nuclear_norm(..).item::<f32>()?, 7.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn nuclear_norm(&self, dims: impl Dims) -> Tensor {
        let x = or_failed!(self.floats("nuclear_norm")).cast("nuclear_norm", DType::F64);
        let axes = ok!("nuclear_norm", &[self], dims.axes(self.rank()));
        let &[rows, columns] = axes.dims.as_slice() else {
            let message = format!("takes the two dims of matrices, not {}", axes.dims.len());
            return Tensor::fail("nuclear_norm", &[self], ErrorKind::Dim, message);
        };
        let (rank, tall) = (self.rank(), self.size(rows as isize) > self.size(columns as isize));
        // Matrices that are no taller than wide, so that the squares below are small ones.
        let last = if tall { [columns, rows] } else { [rows, columns] };
        let order = (0..rank).filter(|d| !last.contains(d)).chain(last).collect();
        let matrix = x.permuted("nuclear_norm", Ok(order));
        let both = |keep| Axes { dims: smallvec::smallvec![rank - 2, rank - 1], keep };
        let plain = matrix.detach();
        let size = (&plain * &plain).reduce("nuclear_norm", ReduceOp::Sum, &both(true)).sqrt();
        let mut factor = &plain / where_(size.eq(0.0), 1.0, &size);
        for _ in 0..48 {
            let square = factor.matmul(factor.transpose(-1, -2));
            factor = &factor * 1.5 - square.matmul(&factor) * 0.5;
        }
        let norm = (matrix * factor).reduce("nuclear_norm", ReduceOp::Sum, &both(false));
        let norm = if axes.keep { norm.with_dim(rows).with_dim(columns) } else { norm };
        norm.rounded("nuclear_norm", self.dtype(), &[self])
    }

    /// Vectors divided by their norm, or by `eps` where that is smaller.
    ///
    /// # Errors
    /// Carried: a dim out of range; a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[3.0, 4.0]]).normalize(()).to_vec::<f32>()?, [0.6, 0.8]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn normalize(&self, options: impl Into<Normalize>) -> Tensor {
        let Normalize { p, dim, eps } = options.into();
        let x = or_failed!(self.floats("normalize"));
        let axes = ok!("normalize", &[self], dims::keep(dim).axes(self.rank()));
        (&x / x.vector_norm(&axes, p).clamp_min(eps)).rounded("normalize", self.dtype(), &[self])
    }

    /// The cosine of the angle between vectors of two tensors, with broadcasting and promotion; the norms are at least `eps`.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; a dim out of range; operands that are not floats.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 0.0], [0.0, 2.0]]);
    /// assert_eq!(x.cosine_similarity(lazuli::tensor([0.0, 1.0]), ()).to_vec::<f32>()?, [0.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cosine_similarity(&self, other: impl Operand, options: impl Into<CosineSimilarity>) -> Tensor {
        let CosineSimilarity { dim, eps } = options.into();
        let given = [Argument::Tensor(self), other.argument()];
        let meeting = or_failed!(gather_operands("cosine_similarity", given, floats_only));
        let [x, y] = &meeting.operands;
        let all = tensors(&given);
        let axes = ok!("cosine_similarity", &all, dims::keep(dim).axes(x.rank()));
        let (a, b) = (x.vector_norm(&axes, 2.0).clamp_min(eps), y.vector_norm(&axes, 2.0).clamp_min(eps));
        let products = (x / a) * (y / b);
        let axes = Axes { keep: false, ..axes };
        products.reduce("cosine_similarity", ReduceOp::Sum, &axes).rounded("cosine_similarity", meeting.dtype, &all)
    }
}
