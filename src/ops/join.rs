//! Tensors put together, and taken apart: concatenation, stacking, splitting, grids.

use crate::Tensor;
use crate::dims::{self, Integer};
use crate::operand::{Argument, Operand};
use crate::promotion::{broadcast_shapes, result_type};
use lazuli_ir::{DimVec, Error, ErrorKind, Op, Result, Shape, Source};
use std::borrow::Borrow;

fn given<T: Borrow<Tensor>>(tensors: &[T]) -> Vec<&Tensor> {
    tensors.iter().map(T::borrow).collect()
}

/// An error of an operation that returns a `Result`, with the operation, its operands and the user's line.
#[track_caller]
fn refused<T>(name: &str, tensors: &[&Tensor], kind: ErrorKind, message: String) -> Result<T> {
    tensors.iter().try_for_each(|t| t.check())?;
    let types = tensors.iter().map(|t| t.node.ty.clone());
    Err(Error::new(kind, message).with_operation(name, types).with_sources(Source::caller()))
}

/// Tensors one after the other along a dim, with promotion; all other dims are the same. An empty vector (`[0]`) counts as
/// nothing, whatever the others' dims.
///
/// # Errors
/// Carried: no tensors; 0-d tensors; a dim out of range; other dims that differ.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::cat(&[lazuli::tensor([1, 2]), lazuli::tensor([3])], 0);
/// assert_eq!(x.to_vec::<i64>()?, [1, 2, 3]);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
#[doc(alias = "concat")]
#[doc(alias = "concatenate")]
pub fn cat<T: Borrow<Tensor>>(tensors: &[T], dim: isize) -> Tensor {
    let given = given(tensors);
    let dtype = result_type(&given.iter().map(|t| Argument::Tensor(t)).collect::<Vec<_>>());
    let is_nothing = |t: &&&Tensor| t.rank() == 1 && t.numel() == 0;
    let mut parts: Vec<&Tensor> = given.iter().filter(|t| !is_nothing(t)).copied().collect();
    if parts.is_empty() {
        parts = given.iter().take(1).copied().collect();
    }
    let Some(first) = parts.first() else {
        return Tensor::fail("cat", &given, ErrorKind::Value, "takes at least one tensor");
    };
    if given.iter().any(|t| t.rank() == 0) {
        return Tensor::fail(
            "cat",
            &given,
            ErrorKind::Shape,
            "0-d tensors have no dim to follow one another; use `stack`",
        );
    }
    let axis = ok!("cat", &given, dims::axis(dim as i64, first.rank()));
    joined("cat", &parts, axis, dtype).named("cat", &given)
}

/// The operands, in one dtype, one after the other.
#[track_caller]
pub(crate) fn joined(name: &'static str, parts: &[&Tensor], axis: usize, dtype: lazuli_ir::DType) -> Tensor {
    let mut operands: Vec<Tensor> = Vec::with_capacity(parts.len());
    for part in parts {
        operands.push(part.cast(name, dtype));
    }
    match operands.as_slice() {
        [one] => one.clone(),
        several => {
            let op = Op::Concat { dim: axis, count: several.len() };
            Tensor::record(name, op, &several.iter().collect::<Vec<_>>())
        }
    }
}

/// Tensors of one shape along a new dim, with promotion.
///
/// # Errors
/// Carried: no tensors; a dim out of range; shapes that differ.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::stack(&[lazuli::tensor([1, 2]), lazuli::tensor([3, 4])], 1);
/// assert_eq!(x.to_vec::<i64>()?, [1, 3, 2, 4]);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn stack<T: Borrow<Tensor>>(tensors: &[T], dim: isize) -> Tensor {
    let given = given(tensors);
    let Some(first) = given.first() else {
        return Tensor::fail("stack", &given, ErrorKind::Value, "takes at least one tensor");
    };
    let axis = ok!("stack", &given, dims::axis(dim as i64, first.rank() + 1));
    if given.iter().any(|t| t.extent_shape() != first.extent_shape()) {
        return Tensor::fail("stack", &given, ErrorKind::Shape, "the shapes differ");
    }
    let dtype = result_type(&given.iter().map(|t| Argument::Tensor(t)).collect::<Vec<_>>());
    let mut parts: Vec<Tensor> = Vec::with_capacity(given.len());
    for t in &given {
        parts.push(t.with_dim(axis));
    }
    joined("stack", &parts.iter().collect::<Vec<_>>(), axis, dtype).named("stack", &given)
}

macro_rules! stackings {
    ($($(#[$doc:meta])* $name:ident $rank:literal |$dims:ident| $axis:expr;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name<T: Borrow<Tensor>>(tensors: &[T]) -> Tensor {
            let given = given(tensors);
            let mut parts: Vec<Tensor> = Vec::with_capacity(given.len());
            for t in &given {
                let mut part = (*t).clone();
                while part.rank() < $rank {
                    part = part.with_dim(0);
                }
                parts.push(part);
            }
            let $dims = parts.first().map_or(0, Tensor::rank);
            cat(&parts, $axis).named(stringify!($name), &given)
        }
    )*};
}

stackings! {
    /// Tensors side by side: vectors along their one dim, others along dim 1.
    ///
    /// # Errors
    /// Carried: no tensors; other dims that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::hstack(&[Tensor::zeros([2, 1]), Tensor::zeros([2, 3])]).shape(), [2, 4]);
    /// ```
    hstack 1 |rank| if rank == 1 { 0 } else { 1 };
    /// Tensors one below the other: vectors as rows, others along dim 0.
    ///
    /// # Errors
    /// Carried: no tensors; other dims that differ.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::vstack(&[Tensor::zeros([3]), Tensor::zeros([3])]).shape(), [2, 3]);
    /// ```
    vstack 2 |_rank| 0;
}

options! {
    /// What [`meshgrid`] takes besides tensors.
    Meshgrid {
        /// The order of the first two dims: that of the tensors by default.
        indexing: Indexing = Indexing::Ij,
    }
}

/// The order of a grid's first two dims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Indexing {
    /// As the tensors come: rows, columns.
    #[default]
    Ij,
    /// The first two swapped: columns, rows.
    Xy,
}

/// A grid of vectors: for each of them its elements along its own dim, stretched along those of all others. A 0-d tensor is a
/// vector of one element.
///
/// # Errors
/// Carried by each result: no tensors, tensors of more dims, dtypes that differ.
///
/// ```
/// # use lazuli::prelude::*;
/// let grid = lazuli::meshgrid(&[lazuli::tensor([1, 2]), lazuli::tensor([3, 4, 5])], ());
/// assert_eq!(grid[0].to_vec::<i64>()?, [1, 1, 1, 2, 2, 2]);
/// assert_eq!(grid[1].to_vec::<i64>()?, [3, 4, 5, 3, 4, 5]);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn meshgrid<T: Borrow<Tensor>>(tensors: &[T], options: impl Into<Meshgrid>) -> Vec<Tensor> {
    let (given, Meshgrid { indexing }) = (given(tensors), options.into());
    let mut extents: DimVec<usize> = given.iter().map(|t| t.numel()).collect();
    let swapped = indexing == Indexing::Xy && extents.len() > 1;
    if swapped {
        extents.swap(0, 1);
    }
    let mut grid = Vec::with_capacity(given.len());
    for (i, t) in given.iter().enumerate() {
        if t.rank() > 1 || t.dtype() != given[0].dtype() {
            let message = "takes vectors of one dtype";
            grid.push(Tensor::fail("meshgrid", &given, ErrorKind::Shape, message));
            continue;
        }
        let axis = if swapped && i < 2 { 1 - i } else { i };
        grid.push(t.along(axis, given.len()).stretch(&Shape::new(extents.iter().copied())).named("meshgrid", &given));
    }
    grid
}

/// How [`Tensor::split`] divides a dim: into parts of one extent, or of these extents.
pub trait Sections {
    /// The extents of the parts of a dim.
    ///
    /// # Errors
    /// Extents that do not add up, a part of no elements for a dim that has some.
    fn sections(&self, extent: usize) -> Result<Vec<usize>>;
}

fn whole(size: i64) -> Result<usize> {
    usize::try_from(size).map_err(|_| Error::new(ErrorKind::Value, format!("the extent {size} of a part is negative")))
}

impl<I: Integer> Sections for I {
    fn sections(&self, extent: usize) -> Result<Vec<usize>> {
        let size = whole(self.integer())?;
        if size == 0 {
            let message = format!("parts of extent 0 do not make up a dim of extent {extent}");
            return if extent == 0 { Ok(vec![0]) } else { Err(Error::new(ErrorKind::Value, message)) };
        }
        let count = extent.div_ceil(size).max(1);
        Ok((0..count).map(|i| size.min(extent - i * size)).collect())
    }
}

fn listed<I: Integer>(sizes: &[I], extent: usize) -> Result<Vec<usize>> {
    let parts = sizes.iter().map(|s| whole(s.integer())).collect::<Result<Vec<usize>>>()?;
    let total = parts.iter().fold(0usize, |n, p| n.saturating_add(*p));
    if total != extent {
        return Err(Error::new(
            ErrorKind::Shape,
            format!("parts of {parts:?} do not make up a dim of extent {extent}"),
        ));
    }
    Ok(parts)
}

impl<I: Integer, const N: usize> Sections for [I; N] {
    fn sections(&self, extent: usize) -> Result<Vec<usize>> {
        listed(self, extent)
    }
}

impl<I: Integer> Sections for Vec<I> {
    fn sections(&self, extent: usize) -> Result<Vec<usize>> {
        listed(self, extent)
    }
}

impl<I: Integer> Sections for &[I] {
    fn sections(&self, extent: usize) -> Result<Vec<usize>> {
        listed(self, extent)
    }
}

impl Tensor {
    /// The parts of a dim: of one extent (the last may be smaller), or of the extents given.
    ///
    /// # Errors
    /// A dim out of range; extents that do not add up to the dim's; the error that the tensor carries.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::arange(0..5);
    /// assert_eq!(x.split(2, 0)?[2].to_vec::<i64>()?, [4]);
    /// assert_eq!(x.split([1, 4], 0)?[1].to_vec::<i64>()?, [1, 2, 3, 4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn split(&self, sections: impl Sections, dim: isize) -> Result<Vec<Tensor>> {
        let axis = self.splittable("split", dim)?;
        match sections.sections(self.size(axis as isize)) {
            Ok(sizes) => Ok(self.parts(axis, &sizes)),
            Err(e) => refused("split", &[self], e.kind(), e.message().to_owned()),
        }
    }

    /// A dim in this many parts, all but the last of one extent; fewer where the extent does not suffice.
    ///
    /// # Errors
    /// A dim out of range; 0 parts; the error that the tensor carries.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let parts = Tensor::arange(0..5).chunk(2, 0)?;
    /// assert_eq!((parts[0].shape(), parts[1].shape()), (vec![3], vec![2]));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn chunk(&self, chunks: usize, dim: isize) -> Result<Vec<Tensor>> {
        let axis = self.splittable("chunk", dim)?;
        if chunks == 0 {
            return refused("chunk", &[self], ErrorKind::Value, "takes at least 1 part".to_owned());
        }
        let extent = self.size(axis as isize);
        let sizes = match extent {
            0 => vec![0; chunks],
            _ => {
                let size = extent.div_ceil(chunks);
                (0..extent.div_ceil(size)).map(|i| size.min(extent - i * size)).collect()
            }
        };
        Ok(self.parts(axis, &sizes))
    }

    /// All indices of a dim, each without it.
    ///
    /// # Errors
    /// A dim out of range; the error that the tensor carries.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let rows = lazuli::tensor([[1, 2], [3, 4]]).unbind(0)?;
    /// assert_eq!(rows[1].to_vec::<i64>()?, [3, 4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn unbind(&self, dim: isize) -> Result<Vec<Tensor>> {
        let axis = self.splittable("unbind", dim)?;
        let mut parts = Vec::with_capacity(self.size(axis as isize));
        for i in 0..self.size(axis as isize) {
            parts.push(self.part(axis, i, 1).squeeze(axis));
        }
        Ok(parts)
    }

    #[track_caller]
    fn splittable(&self, name: &str, dim: isize) -> Result<usize> {
        self.check()?;
        if self.rank() == 0 {
            return refused(name, &[self], ErrorKind::Dim, "a 0-d tensor has no dim to divide".to_owned());
        }
        match dims::axis(dim as i64, self.rank()) {
            Ok(axis) => Ok(axis),
            Err(e) => refused(name, &[self], e.kind(), e.message().to_owned()),
        }
    }

    #[track_caller]
    fn parts(&self, axis: usize, sizes: &[usize]) -> Vec<Tensor> {
        let (mut start, mut parts) = (0, Vec::with_capacity(sizes.len()));
        for &size in sizes {
            parts.push(self.part(axis, start, size));
            start += size;
        }
        parts
    }

    /// The elements in reverse order along dims.
    ///
    /// # Errors
    /// Carried: a dim out of range or given twice.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2, 3]).flip(0).to_vec::<i64>()?, [3, 2, 1]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn flip(&self, dims: impl dims::Dims) -> Tensor {
        let axes = ok!("flip", &[self], dims.axes(self.rank()));
        if axes.dims.is_empty() {
            return self.clone();
        }
        Tensor::record("flip", Op::Flip(axes.dims), &[self])
    }

    /// The elements moved along dims by these shifts, what leaves at one end coming back at the other. Without dims, `()`, the
    /// tensor is rolled as one run of elements.
    ///
    /// # Errors
    /// Carried: a dim out of range; other numbers of shifts than of dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2, 3]).roll(1, 0).to_vec::<i64>()?, [3, 1, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn roll(&self, shifts: impl dims::Sizes, dims: impl dims::Sizes) -> Tensor {
        let (shifts, dims) = (shifts.sizes(), dims.sizes());
        if dims.is_empty() && shifts.len() == 1 {
            let run = self.reshape(self.numel()).rolled(0, shifts[0]);
            return run.shaped("roll", Ok(self.extent_shape().clone())).named("roll", &[self]);
        }
        if dims.len() != shifts.len() || dims.is_empty() {
            let message = format!("{} shifts for {} dims", shifts.len(), dims.len());
            return Tensor::fail("roll", &[self], ErrorKind::Dim, message);
        }
        let mut x = self.clone();
        for (&shift, &dim) in shifts.iter().zip(&dims) {
            let axis = ok!("roll", &[self], dims::axis(dim, self.rank()));
            x = x.rolled(axis, shift);
        }
        x.named("roll", &[self])
    }

    #[track_caller]
    fn rolled(&self, axis: usize, shift: i64) -> Tensor {
        let extent = self.size(axis as isize);
        if self.rank() == 0 || extent == 0 {
            return self.clone();
        }
        let cut = extent - shift.rem_euclid(extent as i64) as usize;
        if cut == extent {
            return self.clone();
        }
        let (head, tail) = (self.part(axis, 0, cut), self.part(axis, cut, extent - cut));
        joined("roll", &[&tail, &head], axis, self.dtype())
    }

    /// Turned by `k` quarters from the first of two dims towards the second.
    ///
    /// # Errors
    /// Carried: not two different dims in range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[1, 2], [3, 4]]).rot90(1, [0, 1]).to_vec::<i64>()?, [2, 4, 1, 3]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn rot90(&self, k: i64, dims: [isize; 2]) -> Tensor {
        let a = ok!("rot90", &[self], dims::axis(dims[0] as i64, self.rank()));
        let b = ok!("rot90", &[self], dims::axis(dims[1] as i64, self.rank()));
        if a == b {
            let message = format!("dims {} and {} are the same", dims[0], dims[1]);
            return Tensor::fail("rot90", &[self], ErrorKind::Dim, message);
        }
        let turned = match k.rem_euclid(4) {
            1 => self.flip(b).transpose(a as isize, b as isize),
            2 => self.flip([a, b]),
            3 => self.flip(a).transpose(a as isize, b as isize),
            _ => self.clone(),
        };
        turned.named("rot90", &[self])
    }

    /// Part of a dim: `length` indices from `start`, which is a number (negative ones count from the end) or a 0-d integer
    /// tensor, so that it may depend on data.
    ///
    /// # Errors
    /// Carried: a dim out of range; a part that does not lie in the dim (for a start from data: when it runs).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::arange(0..5).narrow(0, 1, 2).to_vec::<i64>()?, [1, 2]);
    /// assert_eq!(Tensor::arange(0..5).narrow(0, lazuli::tensor(3), 2).to_vec::<i64>()?, [3, 4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn narrow(&self, dim: isize, start: impl Operand, length: usize) -> Tensor {
        let argument = start.argument();
        let given = crate::promotion::tensors(&[Argument::Tensor(self), argument]);
        if self.rank() == 0 {
            return Tensor::fail("narrow", &given, ErrorKind::Dim, "a 0-d tensor has no dim to narrow");
        }
        let axis = ok!("narrow", &given, dims::axis(dim as i64, self.rank()));
        let extent = self.size(axis as isize);
        let wrong = |start: i64| {
            Error::new(
                ErrorKind::Index,
                format!("{length} indices from {start} do not lie in a dim of extent {extent}"),
            )
        };
        match argument {
            Argument::Number(crate::Number::I64(start)) => {
                let at = usize::try_from(if start < 0 { start.saturating_add(extent as i64) } else { start }).ok();
                let at = at.filter(|at| at.checked_add(length).is_some_and(|end| end <= extent));
                self.part(axis, ok!("narrow", &given, at.ok_or_else(|| wrong(start))), length)
            }
            Argument::Tensor(start) if start.numel() == 1 && start.dtype().is_int() && length <= extent => {
                // A start may be as large as leaves room for the part.
                let start = start.reshape(()).cast("narrow", lazuli_ir::DType::I64);
                let start = crate::where_(start.lt(0), &start + extent, &start);
                let room = extent - length;
                let start = Tensor::record(
                    "narrow",
                    Op::CheckIndex { extent: room + 1, wrap: false, operation: "narrow" },
                    &[&start],
                );
                let zero = Tensor::splat(lazuli_ir::Literal::I64(0), &Shape::scalar());
                let mut sizes = self.extent_shape().extents();
                sizes[axis] = length;
                let mut operands = vec![self];
                operands.extend((0..self.rank()).map(|d| if d == axis { &start } else { &zero }));
                Tensor::record("narrow", Op::DynamicSlice(sizes), &operands).named("narrow", &given)
            }
            _ => {
                let message =
                    "the start is an integer or an integer tensor of one element, and the part lies in the dim";
                Tensor::fail("narrow", &given, ErrorKind::Value, message)
            }
        }
    }

    /// The vector product of vectors of 3 elements along a dim, with broadcasting and promotion.
    ///
    /// # Errors
    /// Carried: a dim whose extent is not 3; shapes that do not broadcast.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, y) = (lazuli::tensor([1, 0, 0]), lazuli::tensor([0, 1, 0]));
    /// assert_eq!(x.cross(&y, -1).to_vec::<i64>()?, [0, 0, 1]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn cross(&self, other: &Tensor, dim: isize) -> Tensor {
        let given = [self, other];
        let shape = match broadcast_shapes(self.extent_shape(), other.extent_shape()) {
            Ok(shape) => shape,
            Err(message) => return Tensor::fail("cross", &given, ErrorKind::Shape, message),
        };
        let axis = ok!("cross", &given, dims::axis(dim as i64, shape.rank()));
        if shape.rank() == 0 || shape.extents()[axis] != 3 {
            return Tensor::fail("cross", &given, ErrorKind::Shape, format!("dim {axis} of {shape} has not extent 3"));
        }
        let dtype = result_type(&[Argument::Tensor(self), Argument::Tensor(other)]);
        let compute = crate::promotion::wide(dtype);
        let (x, y) = (self.cast("cross", compute).stretch(&shape), other.cast("cross", compute).stretch(&shape));
        let product = x.rolled(axis, -1) * y.rolled(axis, -2) - x.rolled(axis, -2) * y.rolled(axis, -1);
        product.rounded("cross", dtype, &given)
    }
}
