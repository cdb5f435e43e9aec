//! Matrix multiplication, as one batched contraction.

use crate::Tensor;
use crate::operand::{Argument, Operand};
use crate::promotion::{broadcast_shapes, wide};
use lazuli_ir::{DotDims, ErrorKind, Op, Shape};

impl Tensor {
    /// The matrix product, as `torch.matmul`:
    ///
    /// - `[k]` and `[k]`: the inner product, 0-d
    /// - `[m,k]` and `[k,n]`: `[m,n]`
    /// - `[k]` and `[..,k,n]`: `[..,n]`; `[..,m,k]` and `[k]`: `[..,m]`
    /// - `[..,m,k]` and `[..,k,n]`: `[..,m,n]`, where the leading dims broadcast
    ///
    /// With `k = 0` the result is 0.
    ///
    /// # Errors
    /// Carried: dims that meet and differ; a 0-d operand; operands of different dtypes, or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let a = lazuli::tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// assert_eq!(a.matmul(&a).to_vec::<f32>()?, [7.0, 10.0, 15.0, 22.0]);
    /// assert_eq!(Tensor::ones([5, 1, 2, 3]).matmul(Tensor::ones([4, 3, 6])).shape(), [5, 4, 2, 6]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: impl Operand) -> Tensor {
        let b = match other.argument() {
            Argument::Tensor(b) => b,
            Argument::Number(n) => {
                let message = format!("takes a tensor of at least one dim, not the number {n:?}; use `*` to scale");
                return Tensor::fail("matmul", &[self], ErrorKind::Shape, message);
            }
        };
        match (self.rank(), b.rank()) {
            (0, _) | (_, 0) => {
                let message = "takes tensors of at least one dim; use `*` to scale";
                Tensor::fail("matmul", &[self, b], ErrorKind::Shape, message)
            }
            (m, n) => self.contract(b, m, n),
        }
    }

    #[track_caller]
    fn contract(&self, b: &Tensor, m: usize, n: usize) -> Tensor {
        let given = [self, b];
        if self.dtype() != b.dtype() {
            let message = format!("operand dtypes {} and {} differ; convert one with `to`", self.dtype(), b.dtype());
            return Tensor::fail("matmul", &given, ErrorKind::DType, message);
        }
        let (left, right) = (m - 1, n.saturating_sub(2));
        let (p, q) = (self.extent_shape().dim(left), b.extent_shape().dim(right));
        if !p.same(q) {
            let message = format!(
                "the last dim of the left operand has extent {p}, dim {right} of the right one {q}; they must be equal"
            );
            return Tensor::fail("matmul", &given, ErrorKind::Shape, message);
        }
        let acc = wide(self.dtype());
        let (a, b) = (self.cast("matmul", acc), b.cast("matmul", acc));
        // Where one side has no batch dims, one contraction with more free dims does without broadcasting. A vector on the
        // left of a batch of matrices is contracted from the right, so that the batch dims come first.
        if n <= 2 || m == 1 {
            let (operands, pair) = if n <= 2 { ([&a, &b], (left, right)) } else { ([&b, &a], (right, left)) };
            let dims = DotDims { contract: smallvec::smallvec![pair], ..DotDims::default() };
            let product = Tensor::record("matmul", Op::Dot { dims, acc }, &operands);
            return product.rounded("matmul", self.dtype(), &given);
        }
        let batch = |s: &Shape| Shape::from_dims(s.dims()[..s.rank() - 2].iter().copied());
        let (sa, sb) = (a.extent_shape(), b.extent_shape());
        let shape = match broadcast_shapes(&batch(sa), &batch(sb)) {
            Ok(shape) => shape,
            Err(message) => return Tensor::fail("matmul", &given, ErrorKind::Shape, format!("batch dims: {message}")),
        };
        let full = |s: &Shape| {
            let matrix = &s.dims()[s.rank() - 2..];
            Shape::from_dims(shape.dims().iter().chain(matrix).copied())
        };
        let (a, b) = (a.stretch(&full(sa)), b.stretch(&full(sb)));
        let rank = shape.rank();
        let dims =
            DotDims { batch: (0..rank).map(|d| (d, d)).collect(), contract: smallvec::smallvec![(rank + 1, rank)] };
        Tensor::record("matmul", Op::Dot { dims, acc }, &[&a, &b]).rounded("matmul", self.dtype(), &given)
    }
}
