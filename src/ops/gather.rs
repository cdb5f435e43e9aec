//! Elements picked by index: one dim by an index tensor of the result's shape, or by a vector for all lines alike.
//!
//! Whoever indexes by data checks first: an index that is out of range is an error when the program runs, whose place and
//! value it names.

use crate::Tensor;
use crate::dims;
use crate::operand::{Argument, Number, Operand};
use crate::ops::selection::where_;
use crate::promotion::{broadcast_shapes, tensors};
use crate::trace::{self, TraceId};
use lazuli_ir::{DType, Dim, Error, ErrorKind, Op, Result, Shape};

options! {
    /// What [`Tensor::repeat_interleave`] takes besides the numbers.
    RepeatInterleave {
        /// The dim repeated along; without one the elements of the whole tensor are.
        dim: Option<isize> = None,
        /// The extent of the result: needed inside of traces, where the numbers of repetitions have no value.
        output_size: Option<usize> = None,
    }

    /// What [`Tensor::embedding`] takes besides the table.
    Embedding {
        /// A row that gets no gradient; negative ones count from the end.
        padding_idx: Option<isize> = None,
        /// Rows whose norm is larger are scaled to it. The scale is a constant to gradients.
        max_norm: Option<f64> = None,
        /// The order of that norm: 2 by default.
        norm_type: f64 = 2.0,
        /// Whether a row's gradient is divided by how often it is looked up.
        scale_grad_by_freq: bool = false,
    }

    /// What [`Tensor::one_hot`] takes.
    OneHot {
        /// The number of classes; without one it is the largest label and one, which must have a value.
        num_classes: Option<usize> = None,
    }
}

impl Tensor {
    /// The index as `i64`, checked when it runs: `0..extent`, or with `wrap` from `-extent` on, counted from the end.
    #[track_caller]
    pub(crate) fn checked_index(&self, name: &'static str, extent: usize, wrap: bool) -> Tensor {
        if !self.dtype().is_int() {
            let message = format!("an index is a tensor of integers, not of {}", self.dtype());
            return Tensor::fail(name, &[self], ErrorKind::DType, message);
        }
        if extent == 0 && self.numel() > 0 {
            let message = format!("{} indices into a dim of extent 0", self.numel());
            return Tensor::fail(name, &[self], ErrorKind::Index, message);
        }
        let index = self.cast(name, DType::I64);
        if self.numel() == 0 {
            return index;
        }
        Tensor::record(name, Op::CheckIndex { extent, wrap, operation: name }, &[&index])
    }

    /// One dim of the tensor, taken as having one where it has none.
    #[track_caller]
    pub(crate) fn at_least_1d(&self) -> Tensor {
        if self.rank() == 0 { self.with_dim(0) } else { self.clone() }
    }

    /// The element of each line along `dim` that an index says: `out[i][j][k] = x[i][index[i][j][k]][k]` for `dim` 1. Other dims
    /// of the index may be smaller than the tensor's. Equal indices add up in the gradient.
    ///
    /// # Errors
    /// Carried: an index of other dims, or larger in another dim, or not of integers. At run time: an index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1, 2], [3, 4]]);
    /// assert_eq!(x.gather(1, &lazuli::tensor([[1], [0]])).to_vec::<i64>()?, [2, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn gather(&self, dim: isize, index: &Tensor) -> Tensor {
        self.gathered("gather", dim, index, false)
    }

    /// [`gather`](Self::gather), where negative indices may count from the end.
    #[track_caller]
    fn gathered(&self, name: &'static str, dim: isize, index: &Tensor, wrap: bool) -> Tensor {
        let given = [self, index];
        let axis = ok!(name, &given, dims::axis(dim as i64, self.rank()));
        if index.numel() == 0 {
            // Nothing is picked, whatever the index's dims.
            let nothing = self.flatten(..).part(0, 0, 0);
            return nothing.shaped(name, Ok(index.extent_shape().clone())).named(name, &given);
        }
        let (x, positions) = (self.at_least_1d(), index.at_least_1d());
        let x = ok!(name, &given, x.over_index(&positions, axis));
        let y = x.picked(name, axis, &positions.checked_index(name, x.size(axis as isize), wrap));
        if index.rank() == 0 { y.reshape(()).named(name, &given) } else { y.named(name, &given) }
    }

    /// The part of the tensor that an index covers in all dims but `axis`.
    #[track_caller]
    fn over_index(&self, index: &Tensor, axis: usize) -> Result<Tensor> {
        let fits = index.rank() == self.rank()
            && (0..self.rank()).all(|d| d == axis || index.size(d as isize) <= self.size(d as isize));
        if !fits {
            let message = format!("an index {} into dim {axis} of {}", index.extent_shape(), self.extent_shape());
            return Err(Error::new(ErrorKind::Shape, message));
        }
        let mut part = self.clone();
        for d in (0..self.rank()).filter(|d| *d != axis) {
            part = part.part(d, 0, index.size(d as isize));
        }
        Ok(part)
    }

    /// A gather by a checked index of the result's shape.
    #[track_caller]
    pub(crate) fn picked(&self, name: &'static str, axis: usize, index: &Tensor) -> Tensor {
        if index.numel() == 0 {
            // Nothing is picked, maybe from a dim without elements.
            let mut empty = self.clone();
            for d in 0..self.rank() {
                empty = empty.part(d, 0, index.size(d as isize).min(self.size(d as isize)));
            }
            return empty.shaped(name, Ok(index.extent_shape().clone()));
        }
        Tensor::record(name, Op::Gather { dim: axis }, &[self, index])
    }

    /// Lines of a dim by a checked vector of indices, which all lines share.
    #[track_caller]
    pub(crate) fn lines(&self, name: &'static str, axis: usize, index: &Tensor) -> Tensor {
        let mut extents = self.extent_shape().extents();
        extents[axis] = index.numel();
        let spread = index.along(axis, self.rank()).stretch(&Shape::new(extents));
        self.picked(name, axis, &spread)
    }

    /// Indices of a dim, by a vector (or a 0-d tensor) of indices.
    ///
    /// # Errors
    /// Carried: a dim out of range; an index of more dims, or not of integers. At run time: an index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1, 2], [3, 4]]);
    /// assert_eq!(x.index_select(0, &lazuli::tensor([1, 1])).to_vec::<i64>()?, [3, 4, 3, 4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Tensor {
        let given = [self, index];
        let axis = ok!("index_select", &given, dims::axis(dim as i64, self.rank()));
        if index.rank() > 1 {
            let message = format!("the index is a vector, not of {} dims", index.rank());
            return Tensor::fail("index_select", &given, ErrorKind::Shape, message);
        }
        let x = self.at_least_1d();
        let index = index.at_least_1d().checked_index("index_select", x.size(axis as isize), false);
        let y = x.lines("index_select", axis, &index);
        if self.rank() == 0 { y.reshape(()).named("index_select", &given) } else { y.named("index_select", &given) }
    }

    /// The element of each line along `dim` that an index says, as [`gather`](Self::gather), with broadcasting of both in all
    /// other dims; without a dim, elements of the tensor as one run. Negative indices count from the end. It takes what
    /// `argsort` gives.
    ///
    /// # Errors
    /// Carried: other dims that do not broadcast; an index not of integers. At run time: an index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1, 2], [3, 4]]);
    /// assert_eq!(x.take_along_dim(&lazuli::tensor([[1, 0]]), Some(1)).to_vec::<i64>()?, [2, 1, 4, 3]);
    /// assert_eq!(x.take_along_dim(&lazuli::tensor([3]), None).to_vec::<i64>()?, [4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn take_along_dim(&self, index: &Tensor, dim: Option<isize>) -> Tensor {
        let given = [self, index];
        let Some(dim) = dim else {
            return self.flatten(..).gathered("take_along_dim", 0, &index.flatten(..), true);
        };
        let axis = ok!("take_along_dim", &given, dims::axis(dim as i64, self.rank()));
        if index.rank() != self.rank() {
            let message = format!("the index has {} dims, not {}", index.rank(), self.rank());
            return Tensor::fail("take_along_dim", &given, ErrorKind::Shape, message);
        }
        let without = |t: &Tensor| {
            let dims = t.extent_shape().dims().iter().enumerate();
            Shape::from_dims(dims.map(|(d, n)| if d == axis { Dim::new(1) } else { *n }))
        };
        let shape = match broadcast_shapes(&without(self), &without(index)) {
            Ok(shape) => shape,
            Err(message) => return Tensor::fail("take_along_dim", &given, ErrorKind::Shape, message),
        };
        let with = |t: &Tensor| {
            let dims = shape.dims().iter().enumerate();
            Shape::from_dims(dims.map(|(d, n)| if d == axis { t.extent_shape().dim(d) } else { *n }))
        };
        let (x, index) = (self.stretch(&with(self)), index.stretch(&with(index)));
        x.gathered("take_along_dim", axis as isize, &index, true).named("take_along_dim", &given)
    }

    /// Elements repeated, each beside itself: along a dim, or those of the whole tensor as a vector. The numbers of repetitions
    /// are one number, or a vector of one for each index of the dim, which decides the result's shape and so must have a
    /// value, unless `output_size` says what it comes to.
    ///
    /// # Errors
    /// Carried: a dim out of range; a vector of another extent; negative numbers; numbers without a value inside of a trace.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([1, 2]);
    /// assert_eq!(x.repeat_interleave(2, ()).to_vec::<i64>()?, [1, 1, 2, 2]);
    /// assert_eq!(x.repeat_interleave(lazuli::tensor([1, 2]), ()).to_vec::<i64>()?, [1, 2, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn repeat_interleave(&self, repeats: impl Operand, options: impl Into<RepeatInterleave>) -> Tensor {
        const NAME: &str = "repeat_interleave";
        let RepeatInterleave { dim, output_size } = options.into();
        let repeats = repeats.argument();
        let given = tensors(&[Argument::Tensor(self), repeats]);
        let x = if dim.is_none() { self.flatten(..) } else { self.at_least_1d() };
        let axis = ok!(NAME, &given, dims::axis(dim.unwrap_or(0) as i64, x.rank()));
        let extent = x.size(axis as isize);
        match repeats {
            Argument::Number(Number::I64(n @ 0..)) => {
                let mut extents = x.extent_shape().extents();
                extents.insert(axis + 1, n as usize);
                let mut merged = x.extent_shape().extents();
                merged[axis] = extent.saturating_mul(n as usize);
                let copies = x.with_dim(axis + 1).stretch(&Shape::new(extents));
                copies.shaped(NAME, Ok(Shape::new(merged))).named(NAME, &given)
            }
            Argument::Tensor(t) if t.dtype().is_int() && t.rank() <= 1 && (t.numel() == extent || t.numel() == 1) => {
                let times = t.at_least_1d().cast(NAME, DType::I64).stretch(&Shape::new([extent]));
                let index = ok!(NAME, &given, interleaved(&times, extent, output_size));
                x.lines(NAME, axis, &index).named(NAME, &given)
            }
            _ => {
                let message = format!("takes a number of at least 0, or integers for {extent} indices");
                Tensor::fail(NAME, &given, ErrorKind::Value, message)
            }
        }
    }

    /// Rows of a table by index: the receiver holds the indices, the result has a row for each.
    ///
    /// # Errors
    /// Carried: a table that is no matrix; indices not of integers. At run time: an index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let table = lazuli::tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// assert_eq!(lazuli::tensor([1, 0, 1]).embedding(&table, ()).shape(), [3, 2]);
    /// ```
    #[track_caller]
    pub fn embedding(&self, weight: &Tensor, options: impl Into<Embedding>) -> Tensor {
        let Embedding { padding_idx, max_norm, norm_type, scale_grad_by_freq } = options.into();
        let given = [self, weight];
        if weight.rank() != 2 {
            let message = format!("the table is a matrix, not of {} dims", weight.rank());
            return Tensor::fail("embedding", &given, ErrorKind::Shape, message);
        }
        let index = self.flatten(..).checked_index("embedding", weight.size(0), false);
        let dtype = weight.dtype();
        let mut rows = weight.lines("embedding", 0, &index);
        if let Some(largest) = max_norm {
            let axes = crate::Axes { dims: smallvec::smallvec![1], keep: true };
            let x = rows.as_float("embedding").detach();
            let norm = x.vector_norm(&axes, norm_type);
            let scaled = (&x * where_(norm.gt(largest), largest / (&norm + 1e-7), 1.0)).cast("embedding", dtype);
            // The new values, and the gradient of the old ones.
            rows = scaled + (&rows - rows.detach());
        }
        if scale_grad_by_freq {
            let counts = index.with_dim(1).eq(index.with_dim(0)).sum(1).with_dim(1);
            let share = 1.0 / counts.to(dtype);
            rows = rows.detach() + (&rows - rows.detach()) * share;
        }
        if let Some(row) = padding_idx {
            let row = if row < 0 { row + weight.size(0) as isize } else { row };
            rows = where_(index.with_dim(1).eq(row as i64), rows.detach(), &rows);
        }
        let mut extents = self.extent_shape().extents();
        extents.push(weight.size(1));
        rows.shaped("embedding", Ok(Shape::new(extents))).named("embedding", &given)
    }

    /// Labels as vectors of `i64` in a new last dim: 1 at the label's place, 0 elsewhere.
    ///
    /// # Errors
    /// Carried: labels that are not integers; no number of classes inside of a trace, or for no labels. At run time: a label
    /// out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 0]).one_hot(()).to_vec::<i64>()?, [0, 1, 1, 0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn one_hot(&self, options: impl Into<OneHot>) -> Tensor {
        let classes = match options.into().num_classes {
            Some(classes) => classes,
            None => {
                let values = ok!("one_hot", &[self], self.integers_now("give `num_classes`"));
                let largest = values.iter().max().and_then(|m| usize::try_from(*m).ok());
                let none =
                    || Error::new(ErrorKind::Value, "there is no largest label of 0 or more; give `num_classes`");
                ok!("one_hot", &[self], largest.ok_or_else(none)) + 1
            }
        };
        let labels = self.checked_index("one_hot", classes, false);
        let mut extents = self.extent_shape().extents();
        extents.push(classes);
        let shape = Shape::new(extents);
        let places = Tensor::record("one_hot", Op::Iota { dim: self.rank(), shape: shape.clone() }, &[]);
        let labels = labels.with_dim(self.rank()).stretch(&shape);
        labels.eq(places).cast("one_hot", DType::I64).named("one_hot", &[self])
    }

    /// The integers of a tensor, which decide a shape and so must be known now.
    pub(crate) fn integers_now(&self, advice: &str) -> Result<Vec<i64>> {
        self.check()?;
        if self.trace_id() != TraceId::NONE || trace::current() != TraceId::NONE {
            let message = format!("the result's shape depends on values, which a trace does not have; {advice}");
            return Err(Error::new(ErrorKind::Trace, message));
        }
        if self.dtype().is_float() {
            return Err(Error::new(ErrorKind::DType, format!("needs integers, not {}", self.dtype())));
        }
        self.cast("to", DType::I64).array()?.to_vec::<i64>()
    }
}

/// For each place of the result the index repeated there.
#[track_caller]
fn interleaved(times: &Tensor, extent: usize, output_size: Option<usize>) -> Result<Tensor> {
    if let Some(size) = output_size.filter(|_| trace::current() != TraceId::NONE) {
        // The number of indices whose repetitions all lie before.
        let ends = times.cumsum(0);
        let place = Tensor::record("repeat_interleave", Op::Iota { dim: 0, shape: Shape::new([size, extent]) }, &[]);
        let index = ends.with_dim(0).le(place).sum(1);
        return Ok(index.checked_index("repeat_interleave", extent, false));
    }
    let times = times.integers_now("give `output_size`")?;
    let mut index: Vec<i64> = Vec::new();
    for (i, &n) in times.iter().enumerate() {
        let n =
            usize::try_from(n).map_err(|_| Error::new(ErrorKind::Value, format!("{n} repetitions of index {i}")))?;
        index.extend(std::iter::repeat_n(i as i64, n));
    }
    if let Some(size) = output_size.filter(|s| *s != index.len()) {
        let message = format!("the repetitions come to {}, not to the output size {size}", index.len());
        return Err(Error::new(ErrorKind::Value, message));
    }
    let n = index.len();
    Ok(Tensor::table(index, [n]))
}
