//! Indexing by tensors: indices of several dims that walk together, and the places where a boolean tensor holds.
//!
//! The dims that are indexed come first and are merged to one, whose index is made of theirs; so all of it is one gather, or
//! one scatter.

use crate::Tensor;
use crate::dims::Integer;
use crate::operand::{Argument, Operand};
use crate::ops::index::{IndexItem, Indices, Selection, select};
use crate::ops::selection::where_;
use crate::promotion::{broadcast_shapes, common_shape, result_type, shape_of, tensors};
use lazuli_ir::{DType, DimVec, Error, ErrorKind, Literal, Result, ScatterOp, Shape};

options! {
    /// What [`Tensor::index_put`] takes besides indices and values.
    IndexPut {
        /// Whether values are added to what is there; of booleans, `or`.
        accumulate: bool = false,
    }
}

/// Where tensors index: the dims, in order, and for each an index of one common shape.
pub(crate) struct Places {
    dims: Vec<usize>,
    /// Checked indices, each less than its dim's extent.
    index: Vec<Tensor>,
    /// The common shape of all indices.
    shape: Shape,
    /// Where the dims of that shape come among the other dims.
    at: usize,
}

/// The positions where a tensor of booleans holds, one vector a dim.
#[track_caller]
fn holding(mask: &Tensor) -> Result<Vec<Tensor>> {
    let values = mask.integers_now("use `where_`")?;
    let strides = mask.extent_shape().strides();
    let extents = mask.extent_shape().extents();
    let held: Vec<usize> = (0..values.len()).filter(|&i| values[i] != 0).collect();
    let mut positions = Vec::with_capacity(mask.rank());
    for (&stride, &extent) in strides.iter().zip(&extents) {
        let line = held.iter().map(|i| (*i as i64 / stride) % extent.max(1) as i64).collect();
        positions.push(Tensor::table(line, [held.len()]));
    }
    Ok(positions)
}

impl Places {
    /// The places in a tensor of this shape; each tensor stands at a dim.
    #[track_caller]
    pub(crate) fn new(name: &'static str, tensors: &[(usize, Tensor)], whole: &Shape) -> Result<Places> {
        let error = |message: String| Err(Error::new(ErrorKind::Index, message));
        let (mut dims, mut index) = (Vec::new(), Vec::new());
        for (dim, tensor) in tensors {
            if tensor.dtype() != DType::Bool {
                dims.push(*dim);
                index.push(tensor.clone());
                continue;
            }
            let covered = Shape::from_dims(whole.dims()[*dim..].iter().take(tensor.rank()).copied());
            if tensor.rank() == 0 || !covered.same(tensor.extent_shape()) {
                return error(format!("a mask {} does not fit {covered} at dim {dim}", tensor.extent_shape()));
            }
            for (i, line) in holding(tensor)?.into_iter().enumerate() {
                dims.push(dim + i);
                index.push(line);
            }
        }
        let shapes: Vec<Argument<'_>> = index.iter().map(Argument::Tensor).collect();
        let shape = common_shape(&shapes).map_err(|message| Error::new(ErrorKind::Shape, message))?;
        let extents = whole.extents();
        let mut checked = Vec::with_capacity(index.len());
        for (dim, index) in dims.iter().zip(&index) {
            let index = index.checked_index(name, extents[*dim], true);
            index.check()?;
            checked.push(index.stretch(&shape));
        }
        let adjacent = dims.windows(2).all(|d| d[0] + 1 == d[1]);
        let at = if adjacent { dims.first().copied().unwrap_or(0) } else { 0 };
        Ok(Places { dims, index: checked, shape, at })
    }

    /// The dims of a tensor with those that are indexed first.
    fn order(&self, rank: usize) -> DimVec<usize> {
        self.dims.iter().copied().chain((0..rank).filter(|d| !self.dims.contains(d))).collect()
    }

    /// The tensor as `[indexed, others]`, and the extents of the others.
    #[track_caller]
    fn matrix(&self, name: &'static str, x: &Tensor) -> (Tensor, DimVec<usize>) {
        let extents = x.extent_shape().extents();
        let order = self.order(x.rank());
        let others: DimVec<usize> = order[self.dims.len()..].iter().map(|&d| extents[d]).collect();
        let rows = self.dims.iter().map(|&d| extents[d]).product();
        let merged = Shape::new([rows, others.iter().product()]);
        (x.permuted(name, Ok(order)).shaped(name, Ok(merged)), others)
    }

    /// The row of that matrix for each place, spread over its columns.
    #[track_caller]
    fn rows(&self, x: &Tensor, columns: usize) -> Tensor {
        let extents = x.extent_shape().extents();
        let mut row: Option<Tensor> = None;
        for (&dim, index) in self.dims.iter().zip(&self.index) {
            row = Some(match row {
                None => index.clone(),
                Some(row) => row * extents[dim] + index,
            });
        }
        let row = row.unwrap_or_else(|| Tensor::splat(Literal::I64(0), &self.shape));
        let count = self.shape.elements();
        row.shaped("i", Ok(Shape::new([count, 1]))).stretch(&Shape::new([count, columns]))
    }

    /// The shape of what is at the places, the places' dims among the others.
    fn result(&self, others: &[usize]) -> Shape {
        let (before, after) = others.split_at(self.at.min(others.len()));
        let places = self.shape.extents();
        Shape::new(before.iter().copied().chain(places).chain(after.iter().copied()))
    }

    /// The elements of `x` at the places.
    #[track_caller]
    pub(crate) fn take(&self, name: &'static str, x: &Tensor) -> Tensor {
        let (matrix, others) = self.matrix(name, x);
        let rows = self.rows(x, matrix.size(1));
        let taken = matrix.picked(name, 0, &rows);
        let first = self.shape.extents().into_iter().chain(others.iter().copied());
        let taken = taken.shaped(name, Ok(Shape::new(first)));
        // The places' dims go behind the others that stand before them.
        let (n, m, at) = (self.shape.rank(), others.len(), self.at.min(others.len()));
        let order = (n..n + at).chain(0..n).chain(n + at..n + m).collect();
        taken.permuted(name, Ok(order))
    }

    /// `x` with values, in the shape that [`take`](Self::take) gives, at the places.
    #[track_caller]
    fn put(&self, name: &'static str, x: &Tensor, values: &Tensor, op: ScatterOp) -> Tensor {
        let (matrix, others) = self.matrix(name, x);
        let (n, m, at) = (self.shape.rank(), others.len(), self.at.min(others.len()));
        let order = (at..at + n).chain(0..at).chain(at + n..n + m).collect();
        let updates = values.permuted(name, Ok(order));
        let updates = updates.shaped(name, Ok(Shape::new([self.shape.elements(), matrix.size(1)])));
        let rows = self.rows(x, matrix.size(1));
        let placed = matrix.placed(name, 0, op, &rows, &updates);
        let order = self.order(x.rank());
        let extents = x.extent_shape().extents();
        let mut inverse: DimVec<usize> = (0..x.rank()).collect();
        order.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
        placed.shaped(name, Ok(Shape::new(order.iter().map(|&d| extents[d])))).permuted(name, Ok(inverse))
    }
}

impl Tensor {
    /// The tensor with values at the places that an index says, whose parts are as for [`i`](Self::i): tensors of integers or
    /// booleans, `..` for whole dims. Values broadcast; of equal places the last value stays, or all are added.
    ///
    /// A boolean tensor alone may be without a value, and so stand in a trace, where the values broadcast without its dims.
    ///
    /// # Errors
    /// Carried: what [`i`](Self::i) refuses; ranges and integers, which [`slice_scatter`](Self::slice_scatter) and
    /// [`select_scatter`](Self::select_scatter) take; values of another dtype, or that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::zeros([3]).index_put([0, 2], lazuli::tensor([1.0, 2.0]), ());
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 0.0, 2.0]);
    /// let x = x.index_put([0, 0], 5.0, IndexPut { accumulate: true });
    /// assert_eq!(x.to_vec::<f32>()?, [11.0, 0.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn index_put(&self, index: impl Indices, values: impl Operand, options: impl Into<IndexPut>) -> Tensor {
        const NAME: &str = "index_put";
        let IndexPut { accumulate } = options.into();
        let values = values.argument();
        let given = tensors(&[Argument::Tensor(self), values]);
        if let Argument::Tensor(t) = values
            && t.dtype() != self.dtype()
        {
            let message = format!("values of {} for a tensor of {}; convert one with `to`", t.dtype(), self.dtype());
            return Tensor::fail(NAME, &given, ErrorKind::DType, message);
        }
        let items = index.items();
        if let [IndexItem::Tensor(mask)] = items.as_slice()
            && let Some(y) = self.put_where(mask, values, accumulate)
        {
            return y.named(NAME, &given);
        }
        let Selection { shape, tensors, .. } = ok!(NAME, &given, select(&items, self.extent_shape()));
        if shape != *self.extent_shape() || tensors.is_empty() {
            let message =
                "takes tensors and whole dims; ranges and integers belong to `slice_scatter` and `select_scatter`";
            return Tensor::fail(NAME, &given, ErrorKind::Index, message);
        }
        let places = ok!(NAME, &given, Places::new(NAME, &tensors, self.extent_shape()));
        let others: Vec<usize> = places.order(self.rank())[places.dims.len()..].to_vec();
        let extents = self.extent_shape().extents();
        let target = places.result(&others.iter().map(|&d| extents[d]).collect::<Vec<_>>());
        match broadcast_shapes(&shape_of(values), &target) {
            Ok(shape) if shape == target => {}
            _ => {
                let message = format!("values {} do not broadcast to {target}", shape_of(values));
                return Tensor::fail(NAME, &given, ErrorKind::Shape, message);
            }
        }
        let values = Tensor::fit(values, self.dtype(), &target);
        let op = match (accumulate, self.dtype()) {
            (false, _) => ScatterOp::Set,
            (true, DType::Bool) => ScatterOp::Max,
            (true, _) => ScatterOp::Add,
        };
        places.put(NAME, self, &values, op).named(NAME, &given)
    }

    /// Values that are the same at all places of a mask need no places.
    #[track_caller]
    fn put_where(&self, mask: &Tensor, values: Argument<'_>, accumulate: bool) -> Option<Tensor> {
        let (rank, extents) = (mask.rank(), self.extent_shape().extents());
        if mask.dtype() != DType::Bool || rank == 0 || rank > self.rank() || mask.shape() != extents[..rank] {
            return None;
        }
        // Without the dim of places, or with one of extent 1 before the others'.
        let shape = shape_of(values);
        let alike =
            shape.rank() <= self.rank() - rank || (shape.rank() == self.rank() - rank + 1 && shape.dim(0).is_one());
        if !alike || result_type(&[Argument::Tensor(self), values]) != self.dtype() {
            return None;
        }
        let mut values = Tensor::fit(values, self.dtype(), &shape);
        if shape.rank() > self.rank() - rank {
            values = values.squeeze(0usize);
        }
        let mut condition = mask.clone();
        for d in rank..self.rank() {
            condition = condition.with_dim(d);
        }
        let values = if accumulate { self + values } else { values };
        Some(where_(condition, values, self))
    }

    /// The elements where a mask holds, as a vector; both broadcast.
    ///
    /// # Errors
    /// Carried: shapes that do not broadcast; a mask that is not `bool`, or has no value, as inside of a trace.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1, 5, 3]);
    /// assert_eq!(x.masked_select(&x.gt(2)).to_vec::<i64>()?, [5, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn masked_select(&self, mask: &Tensor) -> Tensor {
        let given = [self, mask];
        if mask.dtype() != DType::Bool {
            return Tensor::fail("masked_select", &given, ErrorKind::DType, "the mask must be bool");
        }
        match broadcast_shapes(self.extent_shape(), mask.extent_shape()) {
            Ok(shape) => {
                let (x, mask) = (self.stretch(&shape).at_least_1d(), mask.stretch(&shape).at_least_1d());
                x.i(mask).named("masked_select", &given)
            }
            Err(message) => Tensor::fail("masked_select", &given, ErrorKind::Shape, message),
        }
    }

    /// The positions of nonzero elements, `i64[n, dims]`, in row-major order.
    ///
    /// # Errors
    /// The error that the tensor carries; a tensor without a value, as inside of a trace: use [`where_`](crate::where_).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[0, 1], [2, 0]]).nonzero()?.to_vec::<i64>()?, [0, 1, 1, 0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn nonzero(&self) -> Result<Tensor> {
        let place =
            |e: Error| e.with_operation("nonzero", [self.node.ty.clone()]).with_sources(lazuli_ir::Source::caller());
        let lines = holding(&self.cast("nonzero", DType::Bool)).map_err(place)?;
        let count = if self.rank() == 0 { usize::from(self.ne(0).item::<bool>()?) } else { 0 };
        Ok(if lines.is_empty() {
            Tensor::splat(Literal::I64(0), &Shape::new([count, 0]))
        } else {
            super::join::stack(&lines, 1)
        })
    }
}

/// An index that was built part by part.
impl<I: Integer> From<I> for IndexItem {
    fn from(at: I) -> IndexItem {
        IndexItem::At(at.integer())
    }
}
