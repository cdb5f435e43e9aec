//! How dims are named: one (`-1`), several (`[0, 1]`), all (`..`), and kept with extent 1 (`keep(-1)`).

use lazuli_ir::{DimVec, Error, ErrorKind, Result};
use std::ops::RangeFull;

mod sealed {
    pub trait Sealed {}
}

/// An integer that names a dim, an extent or an index: `i32`, `i64`, `isize` or `usize`.
pub trait Integer: Copy + sealed::Sealed {
    /// The integer, saturated.
    fn integer(self) -> i64;
}

macro_rules! integers {
    ($($t:ty)*) => {$(
        impl sealed::Sealed for $t {}
        impl Integer for $t {
            fn integer(self) -> i64 {
                i64::try_from(self).unwrap_or(i64::MAX)
            }
        }
        impl Dims for $t {
            fn axes(&self, rank: usize) -> Result<Axes> {
                resolve(std::iter::once(*self), rank)
            }
        }
    )*};
}

integers! { i32 i64 isize usize }

/// The dims of a tensor that an operation works on, resolved: sorted, from 0.
#[derive(Clone, Debug)]
pub struct Axes {
    pub(crate) dims: DimVec<usize>,
    pub(crate) keep: bool,
}

/// Dims of a tensor: one (`-1` is the last), several (`[0, 1]`), or all (`..`); [`keep`] keeps them with extent 1.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = Tensor::ones([2, 3, 4]);
/// assert_eq!(x.sum(-1).shape(), [2, 3]);
/// assert_eq!(x.sum([0, 1]).shape(), [4]);
/// assert_eq!(x.sum(..).shape(), []);
/// assert_eq!(x.sum(keep([0, -1])).shape(), [1, 3, 1]);
/// ```
pub trait Dims {
    /// The dims of a tensor of this rank.
    ///
    /// # Errors
    /// A dim out of range, or given twice.
    fn axes(&self, rank: usize) -> Result<Axes>;
}

/// One dim of a tensor of this rank, from 0. A 0-d tensor is taken as having one dim, as PyTorch does.
pub(crate) fn axis(dim: i64, rank: usize) -> Result<usize> {
    let rank = rank.max(1) as i64;
    let resolved = if dim < 0 { dim + rank } else { dim };
    if (0..rank).contains(&resolved) {
        return Ok(resolved as usize);
    }
    let message = format!("dim {dim} is out of range for {rank} dims: it must lie in -{rank}..={}", rank - 1);
    Err(Error::new(ErrorKind::Dim, message))
}

fn resolve<I: Integer>(dims: impl Iterator<Item = I>, rank: usize) -> Result<Axes> {
    let mut axes: DimVec<usize> = DimVec::new();
    for dim in dims {
        let axis = axis(dim.integer(), rank)?;
        if axes.contains(&axis) {
            return Err(Error::new(ErrorKind::Dim, format!("dim {} is given twice", dim.integer())));
        }
        axes.push(axis);
    }
    axes.sort_unstable();
    if rank == 0 {
        axes.clear();
    }
    Ok(Axes { dims: axes, keep: false })
}

impl<I: Integer, const N: usize> Dims for [I; N] {
    fn axes(&self, rank: usize) -> Result<Axes> {
        resolve(self.iter().copied(), rank)
    }
}

impl<I: Integer> Dims for [I] {
    fn axes(&self, rank: usize) -> Result<Axes> {
        resolve(self.iter().copied(), rank)
    }
}

impl<I: Integer> Dims for Vec<I> {
    fn axes(&self, rank: usize) -> Result<Axes> {
        resolve(self.iter().copied(), rank)
    }
}

impl<D: Dims + ?Sized> Dims for &D {
    fn axes(&self, rank: usize) -> Result<Axes> {
        (**self).axes(rank)
    }
}

impl Dims for RangeFull {
    fn axes(&self, rank: usize) -> Result<Axes> {
        Ok(Axes { dims: (0..rank).collect(), keep: false })
    }
}

/// Dims that stay in a reduction's result with extent 1; made by [`keep`].
#[derive(Clone, Copy, Debug)]
pub struct Keep<D>(D);

impl<D: Dims> Dims for Keep<D> {
    fn axes(&self, rank: usize) -> Result<Axes> {
        self.0.axes(rank).map(|axes| Axes { keep: true, ..axes })
    }
}

/// The same dims, kept in the result with extent 1: PyTorch's `keepdim=True`.
///
/// ```
/// # use lazuli::prelude::*;
/// assert_eq!(Tensor::ones([2, 3]).mean(keep(-1)).shape(), [2, 1]);
/// ```
pub fn keep<D: Dims>(dims: D) -> Keep<D> {
    Keep(dims)
}

/// The extents of a tensor to make: an array, a slice, a vector, a single extent, or `()` for a scalar.
///
/// ```
/// # use lazuli::prelude::*;
/// assert_eq!(Tensor::zeros([2, 3]).shape(), [2, 3]);
/// assert_eq!(Tensor::zeros(4).shape(), [4]);
/// assert_eq!(Tensor::zeros(()).shape(), []);
/// ```
pub trait IntoShape {
    /// The shape.
    fn into_shape(self) -> lazuli_ir::Shape;
}

impl<const N: usize> IntoShape for [usize; N] {
    fn into_shape(self) -> lazuli_ir::Shape {
        self.into()
    }
}

impl IntoShape for &[usize] {
    fn into_shape(self) -> lazuli_ir::Shape {
        self.into()
    }
}

impl IntoShape for Vec<usize> {
    fn into_shape(self) -> lazuli_ir::Shape {
        self.as_slice().into()
    }
}

impl IntoShape for &Vec<usize> {
    fn into_shape(self) -> lazuli_ir::Shape {
        self.as_slice().into()
    }
}

impl IntoShape for usize {
    fn into_shape(self) -> lazuli_ir::Shape {
        [self].into()
    }
}

impl IntoShape for () {
    fn into_shape(self) -> lazuli_ir::Shape {
        lazuli_ir::Shape::scalar()
    }
}

/// Extents of which some may be `-1`: an array, a slice, a vector, or a single one.
pub trait Sizes {
    /// The extents.
    fn sizes(&self) -> DimVec<i64>;
}

impl<I: Integer, const N: usize> Sizes for [I; N] {
    fn sizes(&self) -> DimVec<i64> {
        self.iter().map(|i| i.integer()).collect()
    }
}

impl<I: Integer> Sizes for &[I] {
    fn sizes(&self) -> DimVec<i64> {
        self.iter().map(|i| i.integer()).collect()
    }
}

impl<I: Integer> Sizes for Vec<I> {
    fn sizes(&self) -> DimVec<i64> {
        self.iter().map(|i| i.integer()).collect()
    }
}

impl<I: Integer> Sizes for &Vec<I> {
    fn sizes(&self) -> DimVec<i64> {
        self.iter().map(|i| i.integer()).collect()
    }
}

impl<I: Integer> Sizes for I {
    fn sizes(&self) -> DimVec<i64> {
        smallvec::smallvec![self.integer()]
    }
}

impl Sizes for () {
    fn sizes(&self) -> DimVec<i64> {
        DimVec::new()
    }
}
