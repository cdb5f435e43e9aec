//! Diagonals and triangles of matrices.
//!
//! A diagonal is a view: the square around it as one run of elements, of which every `extent + 1`st is taken; a matrix of a
//! diagonal is the transpose of that, elements padded apart.

use crate::Tensor;
use crate::dims;
use crate::ops::selection::where_;
use lazuli_ir::{DimVec, Error, ErrorKind, Literal, Op, PadDim, Result, Shape, SliceDim};

options! {
    /// What [`Tensor::diagonal`] takes.
    Diagonal {
        /// Which diagonal: 0 is the main one, positive ones lie above, negative ones below.
        offset: isize = 0,
        /// The dim of the rows: 0 by default.
        dim1: isize = 0,
        /// The dim of the columns: 1 by default.
        dim2: isize = 1,
    }

    /// What [`Tensor::diag_embed`] takes.
    DiagEmbed {
        /// Which diagonal: 0 is the main one, positive ones lie above, negative ones below.
        offset: isize = 0,
        /// The dim of the rows in the result: -2 by default.
        dim1: isize = -2,
        /// The dim of the columns in the result: -1 by default.
        dim2: isize = -1,
    }
}

/// Two different dims of a tensor.
fn pair(dim1: isize, dim2: isize, rank: usize) -> Result<(usize, usize)> {
    let (a, b) = (dims::axis(dim1 as i64, rank)?, dims::axis(dim2 as i64, rank)?);
    if rank < 2 || a == b {
        return Err(Error::new(ErrorKind::Dim, format!("dims {dim1} and {dim2} of {rank} dims are not two dims")));
    }
    Ok((a, b))
}

/// The dims of a tensor with these two at the end.
fn last(a: usize, b: usize, rank: usize) -> DimVec<usize> {
    (0..rank).filter(|d| *d != a && *d != b).chain([a, b]).collect()
}

impl Tensor {
    /// A diagonal of the matrices in two dims, as the last dim of the result.
    ///
    /// # Errors
    /// Carried: fewer than 2 dims; a dim out of range, or twice the same.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1, 2, 3], [4, 5, 6]]);
    /// assert_eq!(x.diagonal(()).to_vec::<i64>()?, [1, 5]);
    /// assert_eq!(x.diagonal(Diagonal { offset: 1, ..Default::default() }).to_vec::<i64>()?, [2, 6]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn diagonal(&self, options: impl Into<Diagonal>) -> Tensor {
        let Diagonal { offset, dim1, dim2 } = options.into();
        let (a, b) = ok!("diagonal", &[self], pair(dim1, dim2, self.rank()));
        self.permuted("diagonal", Ok(last(a, b, self.rank()))).last_diagonal(offset).named("diagonal", &[self])
    }

    /// A diagonal of the last two dims.
    #[track_caller]
    fn last_diagonal(&self, offset: isize) -> Tensor {
        let (rows, columns) = (self.rank() - 2, self.rank() - 1);
        let (row, column) = ((-offset).max(0) as usize, offset.max(0) as usize);
        let height = self.size(rows as isize).saturating_sub(row);
        let width = self.size(columns as isize).saturating_sub(column);
        let n = height.min(width);
        let square = if n == 0 {
            self.part(rows, 0, 0).part(columns, 0, 0)
        } else {
            self.part(rows, row, n).part(columns, column, n)
        };
        let batch: DimVec<usize> = self.extent_shape().extents()[..rows].into();
        let run = square.shaped("diagonal", Ok(Shape::new(batch.into_iter().chain([n * n]))));
        run.stepped(rows, SliceDim { start: 0, stop: n * n, step: n + 1 })
    }

    /// Matrices with the last dim on a diagonal, and 0 elsewhere.
    ///
    /// # Errors
    /// Carried: a 0-d tensor; a dim out of range, or twice the same.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2]).diag_embed(()).to_vec::<i64>()?, [1, 0, 0, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn diag_embed(&self, options: impl Into<DiagEmbed>) -> Tensor {
        let DiagEmbed { offset, dim1, dim2 } = options.into();
        if self.rank() == 0 {
            return Tensor::fail("diag_embed", &[self], ErrorKind::Dim, "a 0-d tensor has no diagonal");
        }
        let rank = self.rank() + 1;
        let (a, b) = ok!("diag_embed", &[self], pair(dim1, dim2, rank));
        let mut inverse: DimVec<usize> = (0..rank).collect();
        last(a, b, rank).iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
        self.spread(offset).permuted("diag_embed", Ok(inverse)).named("diag_embed", &[self])
    }

    /// Matrices in the last two dims with the last dim on a diagonal.
    #[track_caller]
    fn spread(&self, offset: isize) -> Tensor {
        let axis = self.rank() - 1;
        let (length, shift) = (self.size(axis as isize), offset.unsigned_abs());
        let Some((n, total)) = length.checked_add(shift).and_then(|n| Some((n, n.checked_mul(n)?))) else {
            return Tensor::fail("diag_embed", &[self], ErrorKind::Shape, "the matrix is too large");
        };
        let low = if offset < 0 { shift * n } else { shift };
        let taken = if length == 0 { 0 } else { (length - 1) * (n + 1) + 1 };
        // Without elements, all is padding: the run has to begin somewhere.
        let low = low.min(total - taken);
        let mut padding: DimVec<PadDim> = (0..axis).map(|_| PadDim { low: 0, high: 0, interior: 0 }).collect();
        padding.push(PadDim { low, high: total - taken - low, interior: n });
        let zero = Tensor::splat(Literal::zero(self.dtype()), &Shape::scalar());
        let run = Tensor::record("diag_embed", Op::Pad(padding), &[self, &zero]);
        let batch: DimVec<usize> = self.extent_shape().extents()[..axis].into();
        run.shaped("diag_embed", Ok(Shape::new(batch.into_iter().chain([n, n]))))
    }

    /// The diagonal of a matrix, or the matrix of a diagonal: a vector gives a matrix, a matrix a vector.
    ///
    /// # Errors
    /// Carried: other than 1 or 2 dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2]).diag(0).to_vec::<i64>()?, [1, 0, 0, 2]);
    /// assert_eq!(lazuli::tensor([[1, 2], [3, 4]]).diag(1).to_vec::<i64>()?, [2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn diag(&self, offset: isize) -> Tensor {
        match self.rank() {
            1 => self.spread(offset).named("diag", &[self]),
            2 => self.last_diagonal(offset).named("diag", &[self]),
            n => Tensor::fail("diag", &[self], ErrorKind::Dim, format!("takes a vector or a matrix, not {n} dims")),
        }
    }

    /// The sum of a matrix's diagonal; integers and booleans sum to `i64`.
    ///
    /// # Errors
    /// Carried: other than 2 dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[1, 2], [3, 4]]).trace().item::<i64>()?, 5);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn trace(&self) -> Tensor {
        if self.rank() != 2 {
            let message = format!("takes a matrix, not {} dims", self.rank());
            return Tensor::fail("trace", &[self], ErrorKind::Dim, message);
        }
        self.last_diagonal(0).sum(..).named("trace", &[self])
    }

    /// The lower triangle of the matrices in the last two dims: 0 above a diagonal (0 is the main one, positive ones lie
    /// above).
    ///
    /// # Errors
    /// Carried: fewer than 2 dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2, 2]).tril(0).to_vec::<f32>()?, [1.0, 0.0, 1.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn tril(&self, diagonal: isize) -> Tensor {
        self.triangle("tril", diagonal, false)
    }

    /// The upper triangle of the matrices in the last two dims: 0 below a diagonal (0 is the main one, positive ones lie
    /// above).
    ///
    /// # Errors
    /// Carried: fewer than 2 dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2, 2]).triu(1).to_vec::<f32>()?, [0.0, 1.0, 0.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn triu(&self, diagonal: isize) -> Tensor {
        self.triangle("triu", diagonal, true)
    }

    #[track_caller]
    fn triangle(&self, name: &'static str, diagonal: isize, upper: bool) -> Tensor {
        let Some(rows) = self.rank().checked_sub(2) else {
            let message = format!("takes matrices, not {} dims", self.rank());
            return Tensor::fail(name, &[self], ErrorKind::Dim, message);
        };
        let matrix = Shape::from_dims(self.extent_shape().dims()[rows..].iter().copied());
        let row = Tensor::record(name, Op::Iota { dim: 0, shape: matrix.clone() }, &[]);
        let column = Tensor::record(name, Op::Iota { dim: 1, shape: matrix }, &[]);
        let distance = column - row;
        let kept = if upper { distance.ge(diagonal as i64) } else { distance.le(diagonal as i64) };
        let zero = Tensor::splat(Literal::zero(self.dtype()), &Shape::scalar());
        where_(kept, self, zero).named(name, &[self])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;

    #[test]
    fn the_embedding_of_a_diagonal_has_it() {
        for offset in -3..=3 {
            for n in [0, 1, 3] {
                let x = Tensor::arange(1..n + 1);
                let matrix = x.diag(offset);
                let size = n as usize + offset.unsigned_abs();
                assert_eq!(matrix.shape(), [size, size]);
                assert_eq!(matrix.diag(offset).to_vec::<i64>().ok(), x.to_vec::<i64>().ok(), "{offset} {n}");
                assert_eq!(matrix.sum(..).item::<i64>().ok(), Some(n * (n + 1) / 2));
            }
        }
    }
}
