//! Linear algebra beside `matmul`: products of fixed ranks, sums with products, outer and tensor products.

use crate::Tensor;
use crate::operand::{Argument, Number, Operand};
use crate::ops::selection::scaled;
use crate::promotion::{broadcast_shapes, result_type, shape_of, tensors, wide};
use lazuli_ir::{Dim, DimVec, DotDims, Error, ErrorKind, Op, Result, Shape};
use std::borrow::Borrow;

options! {
    /// What [`Tensor::addmm`] and its kin take besides their operands.
    AddProductOf {
        /// A factor for the summand, 1 by default. With 0 the summand does not count, NaN in it neither.
        beta: Number = Number::I64(1),
        /// A factor for the product, 1 by default.
        alpha: Number = Number::I64(1),
    }

    /// What [`Tensor::linear`] takes besides the weight.
    Linear {
        /// A summand for each feature of the result.
        bias: Option<Tensor> = None,
    }
}

fn shape_error<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Shape, message))
}

/// Products of operands whose ranks are fixed: `matmul` under another name.
macro_rules! products {
    ($($(#[$doc:meta])* $name:ident $left:literal $right:literal;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self, other: impl Operand) -> Tensor {
                let b = match other.argument() {
                    Argument::Tensor(b) => b,
                    Argument::Number(n) => {
                        let message = format!("takes a tensor, not the number {n:?}");
                        return Tensor::fail(stringify!($name), &[self], ErrorKind::Shape, message);
                    }
                };
                if (self.rank(), b.rank()) != ($left, $right) {
                    let message = format!(
                        "takes operands of {} and {} dims, not {} and {}; `matmul` takes any",
                        $left, $right, self.rank(), b.rank()
                    );
                    return Tensor::fail(stringify!($name), &[self, b], ErrorKind::Shape, message);
                }
                if $left == 3 && self.size(0) != b.size(0) {
                    let message = format!("batches of {} and {} matrices; `matmul` broadcasts", self.size(0), b.size(0));
                    return Tensor::fail(stringify!($name), &[self, b], ErrorKind::Shape, message);
                }
                self.matmul(b).named(stringify!($name), &[self, b])
            }
        )*}
    };
}

products! {
    /// The product of two matrices.
    ///
    /// # Errors
    /// Carried: operands that are not matrices, inner dims or dtypes that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2, 3]).mm(Tensor::ones([3, 1])).to_vec::<f32>()?, [3.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    mm 2 2;
    /// The products of two batches of matrices.
    ///
    /// # Errors
    /// Carried: operands that are not batches of matrices, batches, inner dims or dtypes that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([5, 2, 3]).bmm(Tensor::ones([5, 3, 4])).shape(), [5, 2, 4]);
    /// ```
    bmm 3 3;
    /// The product of a matrix and a vector.
    ///
    /// # Errors
    /// Carried: operands of other ranks, inner dims or dtypes that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2, 3]).mv(Tensor::ones([3])).to_vec::<f32>()?, [3.0, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    mv 2 1;
    /// The inner product of two vectors.
    ///
    /// # Errors
    /// Carried: operands that are not vectors, extents or dtypes that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([3]).dot(Tensor::ones([3])).item::<f32>()?, 3.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    dot 1 1;
}

/// Sums with products: `beta * self + alpha * (a @ b)`, where the summand broadcasts to the product.
macro_rules! sums_with_products {
    ($($(#[$doc:meta])* $name:ident $product:ident;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self, a: impl Operand, b: impl Operand, options: impl Into<AddProductOf>) -> Tensor {
                let given = [Argument::Tensor(self), a.argument(), b.argument()];
                let all = tensors(&given);
                let [_, Argument::Tensor(a), Argument::Tensor(b)] = given else {
                    let message = "takes tensors, not numbers";
                    return Tensor::fail(stringify!($name), &all, ErrorKind::Shape, message);
                };
                if self.dtype() != a.dtype() || a.dtype() != b.dtype() {
                    let message = "operand dtypes differ; convert them with `to`";
                    return Tensor::fail(stringify!($name), &all, ErrorKind::DType, message);
                }
                let dtype = wide(self.dtype());
                let product = a.cast(stringify!($name), dtype).$product(b.cast(stringify!($name), dtype));
                self.plus_product(stringify!($name), product, options.into()).rounded(stringify!($name), self.dtype(), &all)
            }
        )*}
    };
}

sums_with_products! {
    /// `beta * self + alpha * (a @ b)` for matrices `a` and `b`; the summand broadcasts.
    ///
    /// # Errors
    /// Carried: operands that are not matrices, inner dims or dtypes that differ, a summand that does not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = Tensor::ones([4]).addmm(Tensor::ones([2, 3]), Tensor::ones([3, 4]), ());
    /// assert_eq!(y.to_vec::<f32>()?, [4.0; 8]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    addmm mm;
    /// `beta * self + alpha * (a @ b)` for a matrix `a` and a vector `b`; the summand broadcasts.
    ///
    /// # Errors
    /// Carried: operands of other ranks, inner dims or dtypes that differ, a summand that does not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let options = AddProductOf { alpha: 2.into(), ..Default::default() };
    /// let y = Tensor::ones([2]).addmv(Tensor::ones([2, 3]), Tensor::ones([3]), options);
    /// assert_eq!(y.to_vec::<f32>()?, [7.0, 7.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    addmv mv;
    /// `beta * self + alpha * (a @ b)` for batches of matrices `a` and `b`; the summand broadcasts.
    ///
    /// # Errors
    /// Carried: operands that are not batches of matrices, batches, inner dims or dtypes that differ, a summand that does not
    /// broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = Tensor::ones([1]).baddbmm(Tensor::ones([5, 2, 3]), Tensor::ones([5, 3, 4]), ());
    /// assert_eq!(y.shape(), [5, 2, 4]);
    /// ```
    baddbmm bmm;
}

impl Tensor {
    #[track_caller]
    fn plus_product(&self, name: &'static str, product: Tensor, options: AddProductOf) -> Tensor {
        let AddProductOf { beta, alpha } = options;
        if product.check().is_err() {
            return product;
        }
        match broadcast_shapes(self.extent_shape(), product.extent_shape()) {
            Ok(shape) if shape == *product.extent_shape() => {}
            _ => {
                let message =
                    format!("{} does not broadcast to the product's {}", self.node.ty, product.extent_shape());
                return Tensor::fail(name, &[self], ErrorKind::Shape, message);
            }
        }
        let product = scaled(&product, alpha);
        if beta == Number::I64(0) || beta == Number::F64(0.0) {
            return product;
        }
        scaled(&self.cast(name, product.dtype()), beta) + product
    }

    /// `x @ weight.t() + bias` over the last dim: a weight is `[outputs, inputs]`, or `[inputs]` for one output without a dim.
    ///
    /// # Errors
    /// Carried: a last dim that is not the weight's; dtypes that differ; a bias that does not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = Tensor::ones([2, 3]).linear(Tensor::ones([4, 3]), Linear { bias: Some(Tensor::ones([4])) });
    /// assert_eq!(y.to_vec::<f32>()?, [4.0; 8]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn linear(&self, weight: impl Operand, options: impl Into<Linear>) -> Tensor {
        let Linear { bias } = options.into();
        let Argument::Tensor(weight) = weight.argument() else {
            return Tensor::fail("linear", &[self], ErrorKind::Shape, "the weight is a tensor, not a number");
        };
        let all: Vec<&Tensor> = [self, weight].into_iter().chain(&bias).collect();
        if weight.rank() > 2 {
            let message = format!("the weight is a matrix or a vector, not {} dims", weight.rank());
            return Tensor::fail("linear", &all, ErrorKind::Shape, message);
        }
        if all.iter().any(|t| t.dtype() != self.dtype()) {
            let message = "operand dtypes differ; convert them with `to`";
            return Tensor::fail("linear", &all, ErrorKind::DType, message);
        }
        let dtype = wide(self.dtype());
        let y = self.cast("linear", dtype).matmul(weight.t().cast("linear", dtype));
        let y = match &bias {
            Some(bias) => y + bias.cast("linear", dtype),
            None => y,
        };
        y.rounded("linear", self.dtype(), &all)
    }

    /// The products of all pairs of elements of two vectors, as a matrix, with promotion.
    ///
    /// # Errors
    /// Carried: operands that are not vectors.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2]).outer(lazuli::tensor([3, 4])).to_vec::<i64>()?, [3, 4, 6, 8]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn outer(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let all = tensors(&given);
        match given[1] {
            Argument::Tensor(b) if self.rank() == 1 && b.rank() == 1 => {
                (self.with_dim(1) * b.with_dim(0)).named("outer", &all)
            }
            _ => Tensor::fail("outer", &all, ErrorKind::Shape, "takes two vectors"),
        }
    }

    /// The sums of products over the last dims of two tensors; the other dims of both follow one another. A 0-d operand scales.
    ///
    /// # Errors
    /// Carried: last dims or dtypes that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2, 3]).inner(Tensor::ones([4, 3])).shape(), [2, 4]);
    /// ```
    #[track_caller]
    pub fn inner(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let all = tensors(&given);
        match given[1] {
            Argument::Tensor(b) if self.rank() > 0 && b.rank() > 0 => {
                let pair = (self.rank() - 1, b.rank() - 1);
                self.contracted("inner", b, &[pair]).named("inner", &all)
            }
            _ => crate::ops::arithmetic::mul(given[0], given[1]).named("inner", &all),
        }
    }

    /// The contraction of two tensors over pairs of dims, which fit.
    #[track_caller]
    pub(crate) fn contracted(&self, name: &'static str, b: &Tensor, pairs: &[(usize, usize)]) -> Tensor {
        let all = [self, b];
        if self.dtype() != b.dtype() {
            let message = format!("operand dtypes {} and {} differ; convert one with `to`", self.dtype(), b.dtype());
            return Tensor::fail(name, &all, ErrorKind::DType, message);
        }
        for &(left, right) in pairs {
            let (p, q) = (self.extent_shape().dim(left), b.extent_shape().dim(right));
            if !p.same(q) {
                let message = format!("dim {left} of extent {p} meets dim {right} of extent {q}; they must be equal");
                return Tensor::fail(name, &all, ErrorKind::Shape, message);
            }
        }
        let acc = wide(self.dtype());
        let dims = DotDims { contract: pairs.into(), ..DotDims::default() };
        let (x, y) = (self.cast(name, acc), b.cast(name, acc));
        Tensor::record(name, Op::Dot { dims, acc }, &[&x, &y]).cast(name, self.dtype())
    }

    /// The contraction of dims `left[i]` of this tensor with dims `right[i]` of the other; the other dims of both follow one
    /// another. Extents of 1 broadcast. PyTorch's `dims=n` are the last `n` dims and the first `n`.
    ///
    /// # Errors
    /// Carried: dims out of range or given twice; lists of different lengths; extents or dtypes that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (a, b) = (Tensor::ones([2, 3, 4]), Tensor::ones([4, 3, 5]));
    /// assert_eq!(a.tensordot(&b, [1, 2], [1, 0]).shape(), [2, 5]);
    /// ```
    #[track_caller]
    pub fn tensordot(&self, other: &Tensor, left: impl crate::Sizes, right: impl crate::Sizes) -> Tensor {
        let given = [self, other];
        let (left, right) = (left.sizes(), right.sizes());
        let pairs = ok!("tensordot", &given, dim_pairs(&left, &right, self.rank(), other.rank()));
        // A dim of extent 1 stretches: the sum over it counts its element once for each of the other's.
        let (mut a, mut b) = (self.clone(), other.clone());
        for &(l, r) in &pairs {
            let (p, q) = (self.extent_shape().dim(l), other.extent_shape().dim(r));
            if p.is_one() && !q.is_one() {
                b = b.summed_dim(r);
            } else if q.is_one() && !p.is_one() {
                a = a.summed_dim(l);
            }
        }
        a.contracted("tensordot", &b, &pairs).named("tensordot", &given)
    }

    /// The sum over a dim, kept, in the tensor's own dtype.
    #[track_caller]
    fn summed_dim(&self, axis: usize) -> Tensor {
        let axes = crate::Axes { dims: smallvec::smallvec![axis], keep: true };
        self.reduce("tensordot", lazuli_ir::ReduceOp::Sum, &axes)
    }

    /// The Kronecker product: each element of this tensor times the whole other one, with promotion; missing dims come first.
    ///
    /// # Errors
    /// Carried: a result too large.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let y = lazuli::tensor([1, 10]).kron(lazuli::tensor([1, 2]));
    /// assert_eq!(y.to_vec::<i64>()?, [1, 2, 10, 20]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn kron(&self, other: impl Operand) -> Tensor {
        let given = [Argument::Tensor(self), other.argument()];
        let all = tensors(&given);
        let b = Tensor::fit(given[1], result_type(&given), &shape_of(given[1]));
        let rank = self.rank().max(b.rank());
        let padded = |t: &Tensor| -> DimVec<Dim> {
            let ones = std::iter::repeat_n(Dim::new(1), rank - t.rank());
            ones.chain(t.extent_shape().dims().iter().copied()).collect()
        };
        let (left, right) = (padded(self), padded(&b));
        let one = Dim::new(1);
        let a = self.shaped("kron", Ok(Shape::from_dims(left.iter().flat_map(|&d| [d, one]))));
        let b = b.shaped("kron", Ok(Shape::from_dims(right.iter().flat_map(|&d| [one, d]))));
        let products = a * b;
        let pairs = products.extent_shape().extents();
        let merged = pairs.chunks(2).map(|p| p[0].saturating_mul(p[1]));
        products.shaped("kron", Ok(Shape::new(merged))).named("kron", &all)
    }
}

/// Pairs of dims that meet.
fn dim_pairs(left: &[i64], right: &[i64], m: usize, n: usize) -> Result<Vec<(usize, usize)>> {
    if left.len() != right.len() {
        return shape_error(format!("{} dims meet {}", left.len(), right.len()));
    }
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (&l, &r) in left.iter().zip(right) {
        let pair = (crate::dims::axis(l, m)?, crate::dims::axis(r, n)?);
        if m == 0 || n == 0 {
            return shape_error("a 0-d tensor has no dim to contract".to_owned());
        }
        if pairs.iter().any(|p| p.0 == pair.0 || p.1 == pair.1) {
            return Err(Error::new(ErrorKind::Dim, format!("dim {l} or {r} is given twice")));
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// The product of several matrices, in the order of multiplications that costs least; the first and the last may be vectors.
///
/// # Errors
/// Carried: fewer than 2 tensors; inner dims or dtypes that differ; other ranks.
///
/// ```
/// # use lazuli::prelude::*;
/// let (a, b, c) = (Tensor::ones([10, 100]), Tensor::ones([100, 5]), Tensor::ones([5, 50]));
/// assert_eq!(lazuli::multi_dot(&[a, b, c]).shape(), [10, 50]);
/// ```
#[track_caller]
pub fn multi_dot<T: Borrow<Tensor>>(tensors: &[T]) -> Tensor {
    let given: Vec<&Tensor> = tensors.iter().map(T::borrow).collect();
    let (first, last) = match given.as_slice() {
        [first, .., last] => (*first, *last),
        _ => return Tensor::fail("multi_dot", &given, ErrorKind::Value, "takes at least 2 tensors"),
    };
    let ranks = ok!("multi_dot", &given, chain_ranks(&given));
    if given.iter().any(|t| t.dtype() != first.dtype()) {
        return Tensor::fail("multi_dot", &given, ErrorKind::DType, "operand dtypes differ; convert them with `to`");
    }
    let acc = wide(first.dtype());
    let mut matrices: Vec<Tensor> = Vec::new();
    for t in &given {
        matrices.push(t.cast("multi_dot", acc));
    }
    if ranks.0 {
        matrices[0] = matrices[0].with_dim(0);
    }
    if ranks.1 {
        let end = matrices.len() - 1;
        matrices[end] = matrices[end].with_dim(1);
    }
    let columns = if ranks.1 { 1 } else { last.size(-1) };
    let sizes: Vec<f64> = matrices.iter().map(|m| m.size(0) as f64).chain([columns as f64]).collect();
    for (left, right) in cheapest_order(&sizes) {
        let product = matrices[left].mm(&matrices[right]);
        matrices[left] = product;
    }
    let mut product = matrices.swap_remove(0);
    if ranks.1 {
        product = product.squeeze(1);
    }
    if ranks.0 {
        product = product.squeeze(0);
    }
    product.rounded("multi_dot", first.dtype(), &given)
}

/// Whether the first and the last are vectors; all others are matrices whose inner dims fit.
fn chain_ranks(tensors: &[&Tensor]) -> Result<(bool, bool)> {
    let n = tensors.len();
    let mut ends = (false, false);
    let mut inner: Option<usize> = None;
    for (i, t) in tensors.iter().enumerate() {
        let (rows, columns) = match *t.shape().as_slice() {
            [m, k] => (m, k),
            [k] if i == 0 => {
                ends.0 = true;
                (1, k)
            }
            [k] if i + 1 == n => {
                ends.1 = true;
                (k, 1)
            }
            _ => return shape_error(format!("tensor {i} is {}; all but the ends are matrices", t.node.ty)),
        };
        if let Some(k) = inner.filter(|k| *k != rows) {
            return shape_error(format!("tensor {i} has {rows} rows, but the one before {k} columns"));
        }
        inner = Some(columns);
    }
    Ok(ends)
}

/// The multiplications of a chain of matrices with these rows (and the last one's columns), in order: each joins the run of
/// matrices that begins at the first number with the one that begins at the second.
fn cheapest_order(sizes: &[f64]) -> Vec<(usize, usize)> {
    let n = sizes.len() - 1;
    let mut cost = vec![vec![0.0f64; n]; n];
    let mut split = vec![vec![0usize; n]; n];
    for length in 1..n {
        for i in 0..n - length {
            let j = i + length;
            cost[i][j] = f64::INFINITY;
            for k in i..j {
                let c = cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1];
                if c < cost[i][j] {
                    (cost[i][j], split[i][j]) = (c, k);
                }
            }
        }
    }
    // From the last multiplication to the first, then turned around.
    let mut runs = vec![(0, n - 1)];
    let mut joins = Vec::new();
    while let Some((i, j)) = runs.pop() {
        if i < j {
            let k = split[i][j];
            joins.push((i, k + 1));
            runs.push((i, k));
            runs.push((k + 1, j));
        }
    }
    joins.reverse();
    joins
}

#[cfg(test)]
mod tests {
    use super::cheapest_order;

    #[test]
    fn chains_are_multiplied_in_the_cheapest_order() {
        // (10 x 100) (100 x 5) (5 x 50): the first pair first.
        assert_eq!(cheapest_order(&[10.0, 100.0, 5.0, 50.0]), [(0, 1), (0, 2)]);
        // (50 x 5) (5 x 100) (100 x 10): the last pair first.
        assert_eq!(cheapest_order(&[50.0, 5.0, 100.0, 10.0]), [(1, 2), (0, 1)]);
    }
}
