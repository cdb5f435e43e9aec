//! Indexing: `x.i((0, .., 1..3))`. Integers and ranges are slices and reshapes; what indexes by tensors is left to
//! `advanced.rs`.

use crate::Tensor;
use crate::dims::Integer;
use crate::operand::{Number, Scalar};
use crate::ops::advanced::Places;
use lazuli_ir::{DType, Dim, DimVec, Error, ErrorKind, Op, Result, Shape, SliceDim};
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// In an index, stands for as many whole dims as are left: Python's `...`.
///
/// ```
/// # use lazuli::prelude::*;
/// assert_eq!(Tensor::zeros([2, 3, 4]).i((Ellipsis, 0)).shape(), [2, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ellipsis;

/// In an index, stands for a new dim of extent 1: Python's `None`.
///
/// ```
/// # use lazuli::prelude::*;
/// assert_eq!(Tensor::zeros([2, 3]).i((.., NewAxis)).shape(), [2, 1, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewAxis;

/// A range that takes steps; made by [`StepRange::step`].
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped<R> {
    pub(crate) range: R,
    pub(crate) step: Number,
}

/// Steps for ranges: `(1..9).step(2)`.
///
/// ```
/// # use lazuli::prelude::*;
/// assert_eq!(Tensor::arange(0..9).i((1..8).step(3)).to_vec::<i64>()?, [1, 4, 7]);
/// # Ok::<(), lazuli::Error>(())
/// ```
pub trait StepRange: Sized {
    /// The range, taking every `step`th.
    fn step(self, step: impl Scalar) -> Stepped<Self> {
        Stepped { range: self, step: step.number() }
    }
}

impl<T> StepRange for Range<T> {}
impl<T> StepRange for RangeFrom<T> {}
impl<T> StepRange for RangeTo<T> {}
impl<T> StepRange for RangeInclusive<T> {}
impl StepRange for RangeFull {}

/// One part of an index.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IndexItem {
    /// One index; the dim goes away.
    At(i64),
    /// A range, end exclusive, with bounds as Python's slices take them.
    Range {
        /// The first index.
        start: Option<i64>,
        /// The end, exclusive.
        end: Option<i64>,
        /// The distance of taken indices.
        step: i64,
    },
    /// As many whole dims as are left.
    Ellipsis,
    /// A new dim of extent 1.
    NewAxis,
    /// An index for each element of a tensor of integers (negative ones count from the end), or the places where a boolean
    /// tensor holds, which takes the place of as many dims as it has.
    Tensor(Tensor),
}

/// What may stand at one place of an index: an integer (negative ones count from the end), a range, `..`, [`Ellipsis`],
/// [`NewAxis`], a tensor of integers or booleans, an array or vector of integers.
pub trait Index {
    /// The part.
    #[track_caller]
    fn item(self) -> IndexItem;
}

impl<I: Integer> Index for I {
    fn item(self) -> IndexItem {
        IndexItem::At(self.integer())
    }
}

impl Index for IndexItem {
    fn item(self) -> IndexItem {
        self
    }
}

impl Index for Tensor {
    fn item(self) -> IndexItem {
        IndexItem::Tensor(self)
    }
}

impl Index for &Tensor {
    fn item(self) -> IndexItem {
        IndexItem::Tensor(self.clone())
    }
}

/// Integers as a vector to index by.
#[track_caller]
fn list<I: Integer>(integers: &[I]) -> IndexItem {
    let integers: Vec<i64> = integers.iter().map(|i| i.integer()).collect();
    let n = integers.len();
    IndexItem::Tensor(Tensor::table(integers, [n]))
}

impl<I: Integer, const N: usize> Index for [I; N] {
    #[track_caller]
    fn item(self) -> IndexItem {
        list(&self)
    }
}

impl<I: Integer> Index for Vec<I> {
    #[track_caller]
    fn item(self) -> IndexItem {
        list(&self)
    }
}

impl<I: Integer> Index for &[I] {
    #[track_caller]
    fn item(self) -> IndexItem {
        list(self)
    }
}

impl Index for Ellipsis {
    fn item(self) -> IndexItem {
        IndexItem::Ellipsis
    }
}

impl Index for NewAxis {
    fn item(self) -> IndexItem {
        IndexItem::NewAxis
    }
}

fn range<I: Integer>(start: Option<I>, end: Option<I>) -> IndexItem {
    IndexItem::Range { start: start.map(I::integer), end: end.map(I::integer), step: 1 }
}

/// An end that belongs to the range; `-1` is the last element, so nothing ends the range then.
fn inclusive<I: Integer>(start: Option<I>, last: I) -> IndexItem {
    let end = Some(last.integer().saturating_add(1)).filter(|end| *end != 0);
    IndexItem::Range { start: start.map(I::integer), end, step: 1 }
}

impl Index for RangeFull {
    fn item(self) -> IndexItem {
        IndexItem::Range { start: None, end: None, step: 1 }
    }
}

impl<I: Integer> Index for Range<I> {
    fn item(self) -> IndexItem {
        range(Some(self.start), Some(self.end))
    }
}

impl<I: Integer> Index for RangeFrom<I> {
    fn item(self) -> IndexItem {
        range(Some(self.start), None)
    }
}

impl<I: Integer> Index for RangeTo<I> {
    fn item(self) -> IndexItem {
        range(None, Some(self.end))
    }
}

impl<I: Integer> Index for RangeInclusive<I> {
    fn item(self) -> IndexItem {
        inclusive(Some(*self.start()), *self.end())
    }
}

impl<I: Integer> Index for RangeToInclusive<I> {
    fn item(self) -> IndexItem {
        inclusive(None, self.end)
    }
}

impl<R: Index> Index for Stepped<R> {
    fn item(self) -> IndexItem {
        let by = match self.step {
            Number::I64(step) => step,
            // No step at all: refused with the index that has it.
            Number::Bool(_) | Number::F64(_) => 0,
        };
        match self.range.item() {
            IndexItem::Range { start, end, .. } => IndexItem::Range { start, end, step: by },
            item => item,
        }
    }
}

/// An index: one part, or a tuple of parts, for the dims from the first; dims that are not named stay whole.
pub trait Indices {
    /// The parts.
    #[track_caller]
    fn items(self) -> DimVec<IndexItem>;
}

impl<I: Index> Indices for I {
    #[track_caller]
    fn items(self) -> DimVec<IndexItem> {
        smallvec::smallvec![self.item()]
    }
}

impl Indices for &[IndexItem] {
    fn items(self) -> DimVec<IndexItem> {
        self.iter().cloned().collect()
    }
}

macro_rules! tuples {
    ($(($($name:ident)+))*) => {$(
        impl<$($name: Index),+> Indices for ($($name,)+) {
            #[allow(non_snake_case)]
            #[track_caller]
            fn items(self) -> DimVec<IndexItem> {
                let ($($name,)+) = self;
                smallvec::smallvec![$($name.item()),+]
            }
        }
    )*};
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) }

/// What an index does: a range of every dim, the shape of that part without the dims that go away, and the tensors that index
/// dims of it.
pub(crate) struct Selection {
    pub(crate) slices: DimVec<SliceDim>,
    pub(crate) shape: Shape,
    pub(crate) tensors: Vec<(usize, Tensor)>,
}

/// The number of dims that a part of an index stands for; an ellipsis for those that are left.
fn consumed(item: &IndexItem) -> usize {
    match item {
        IndexItem::At(_) | IndexItem::Range { .. } => 1,
        IndexItem::Ellipsis | IndexItem::NewAxis => 0,
        IndexItem::Tensor(t) if t.dtype() == DType::Bool => t.rank(),
        IndexItem::Tensor(_) => 1,
    }
}

pub(crate) fn select(items: &[IndexItem], shape: &Shape) -> Result<Selection> {
    let named: usize = items.iter().map(consumed).sum();
    if named > shape.rank() {
        let message = format!("{named} indices for {} dims", shape.rank());
        return Err(Error::new(ErrorKind::Index, message));
    }
    if items.iter().filter(|i| matches!(i, IndexItem::Ellipsis)).count() > 1 {
        return Err(Error::new(ErrorKind::Index, "an index takes one Ellipsis at most"));
    }
    let whole = |n: usize| SliceDim { start: 0, stop: n, step: 1 };
    let extents = shape.extents();
    let (mut slices, mut dims): (DimVec<SliceDim>, DimVec<Dim>) = (DimVec::new(), DimVec::new());
    let mut tensors = Vec::new();
    for item in items {
        let axis = slices.len();
        match *item {
            IndexItem::Tensor(ref t) => {
                t.check()?;
                tensors.push((dims.len(), t.clone()));
                for &n in &extents[axis..axis + consumed(item)] {
                    slices.push(whole(n));
                    dims.push(Dim::new(n));
                }
            }
            IndexItem::NewAxis => dims.push(Dim::new(1)),
            IndexItem::Ellipsis => {
                for &n in &extents[axis..axis + shape.rank() - named] {
                    slices.push(whole(n));
                    dims.push(Dim::new(n));
                }
            }
            IndexItem::At(i) => slices.push(at(i, axis, extents[axis])?),
            IndexItem::Range { start, end, step } => {
                let slice = ranged(start, end, step, axis, extents[axis])?;
                dims.push(Dim::new(slice.extent()));
                slices.push(slice);
            }
        }
    }
    for &n in &extents[slices.len()..] {
        slices.push(whole(n));
        dims.push(Dim::new(n));
    }
    Ok(Selection { slices, shape: Shape::from_dims(dims), tensors })
}

fn at(index: i64, axis: usize, extent: usize) -> Result<SliceDim> {
    let n = extent as i64;
    let resolved = if index < 0 { index.saturating_add(n) } else { index };
    if !(0..n).contains(&resolved) {
        let message = format!("index {index} is out of range for dim {axis} of extent {extent}");
        return Err(Error::new(ErrorKind::Index, message));
    }
    let start = resolved as usize;
    Ok(SliceDim { start, stop: start + 1, step: 1 })
}

/// Bounds as Python takes them: negative ones count from the end, and all are clamped to the dim.
pub(crate) fn ranged(start: Option<i64>, end: Option<i64>, step: i64, axis: usize, extent: usize) -> Result<SliceDim> {
    let Some(step) = usize::try_from(step).ok().filter(|s| *s > 0) else {
        let message = format!("the step of the range of dim {axis} must be an integer of at least 1");
        return Err(Error::new(ErrorKind::Value, message));
    };
    let n = extent as i64;
    let clamp = |b: i64| (if b < 0 { b.saturating_add(n) } else { b }).clamp(0, n) as usize;
    let start = start.map_or(0, clamp);
    let stop = end.map_or(extent, clamp).max(start);
    Ok(SliceDim { start, stop, step })
}

impl Tensor {
    /// Part of the tensor: integers take one index of a dim (and the dim away), ranges take several, `..` a whole dim,
    /// [`Ellipsis`] all that are left; [`NewAxis`] adds a dim. Negative numbers count from the end; the bounds of ranges are
    /// clamped, as in Python. None of this copies.
    ///
    /// Tensors of integers (and arrays and vectors) take an index of a dim for each of their elements. Several of them broadcast
    /// and walk together; their dims come where the first one stands, or first of all where others stand between them. A
    /// boolean tensor stands for the places where it holds, in as many dims as it has: since the result's shape depends on it,
    /// it must have a value; inside of a trace use [`where_`](crate::where_).
    ///
    /// # Errors
    /// Carried: an index out of range; more indices than dims; a step below 1; tensors that do not broadcast; a boolean tensor
    /// of another shape, or without a value. At run time: an index of a tensor out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::arange(0..12).reshape([3, 4]);
    /// assert_eq!(x.i(1).to_vec::<i64>()?, [4, 5, 6, 7]);
    /// assert_eq!(x.i((-1, 1..3)).to_vec::<i64>()?, [9, 10]);
    /// assert_eq!(x.i((.., (0..4).step(2))).shape(), [3, 2]);
    /// assert_eq!(x.i(([0, 2], [1, -1])).to_vec::<i64>()?, [1, 11]);
    /// assert_eq!(x.i(x.gt(8)).to_vec::<i64>()?, [9, 10, 11]);
    /// assert!(x.i(3).check().is_err());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn i(&self, index: impl Indices) -> Tensor {
        let Selection { slices, shape, tensors } = ok!("i", &[self], select(&index.items(), self.extent_shape()));
        let whole = slices.iter().zip(self.extent_shape().extents()).all(|(s, n)| s.extent() == n);
        let part = if whole { self.clone() } else { Tensor::record("i", Op::Slice(slices), &[self]) };
        let part = part.shaped("i", Ok(shape));
        if tensors.is_empty() {
            return part;
        }
        let places = ok!("i", &[self], Places::new("i", &tensors, part.extent_shape()));
        places.take("i", &part).named("i", &[self])
    }
}
