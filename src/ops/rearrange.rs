//! Elements in other places: dims moved, split, repeated, parts taken, channels and pixels exchanged.

use crate::Tensor;
use crate::dims::{self, Sizes};
use lazuli_ir::{Dim, DimVec, Error, ErrorKind, Op, Result, Shape, SliceDim};

/// The permutation that moves dims `from` to places `to`, the others in order around them.
fn moved(from: &[i64], to: &[i64], rank: usize) -> Result<DimVec<usize>> {
    if from.len() != to.len() {
        let message = format!("{} dims cannot go to {} places", from.len(), to.len());
        return Err(Error::new(ErrorKind::Dim, message));
    }
    let mut perm: DimVec<Option<usize>> = (0..rank).map(|_| None).collect();
    let mut taken: DimVec<usize> = DimVec::new();
    for (&from, &to) in from.iter().zip(to) {
        let (source, place) = (dims::axis(from, rank)?, dims::axis(to, rank)?);
        if rank == 0 {
            continue;
        }
        if taken.contains(&source) || perm[place].is_some() {
            return Err(Error::new(ErrorKind::Dim, format!("dim {from} or place {to} is given twice")));
        }
        taken.push(source);
        perm[place] = Some(source);
    }
    let mut rest = (0..rank).filter(|d| !taken.contains(d));
    Ok(perm.into_iter().filter_map(|p| p.or_else(|| rest.next())).collect())
}

impl Tensor {
    /// Part of one dim: `length` indices from `start`, which fit.
    #[track_caller]
    pub(crate) fn part(&self, axis: usize, start: usize, length: usize) -> Tensor {
        self.stepped(axis, SliceDim { start, stop: start + length, step: 1 })
    }

    /// A range of one dim, which fits.
    #[track_caller]
    pub(crate) fn stepped(&self, axis: usize, range: SliceDim) -> Tensor {
        let mut slices: DimVec<SliceDim> =
            self.extent_shape().extents().iter().map(|&n| SliceDim { start: 0, stop: n, step: 1 }).collect();
        match slices.get_mut(axis) {
            Some(slice) if *slice == range => self.clone(),
            Some(slice) => {
                *slice = range;
                Tensor::record("slice", Op::Slice(slices), &[self])
            }
            None => self.clone(),
        }
    }

    /// Dims moved to other places: dim `from[i]` becomes dim `to[i]`, the others keep their order.
    ///
    /// # Errors
    /// Carried: dims out of range or given twice; lists of different lengths.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3, 4]).movedim(0, -1).shape(), [3, 4, 2]);
    /// assert_eq!(Tensor::zeros([2, 3, 4]).movedim([0, 1], [1, 2]).shape(), [4, 2, 3]);
    /// ```
    #[track_caller]
    #[doc(alias = "moveaxis")]
    pub fn movedim(&self, from: impl Sizes, to: impl Sizes) -> Tensor {
        self.permuted("movedim", moved(&from.sizes(), &to.sizes(), self.rank()))
    }

    /// One index of a dim, which goes away; a negative index counts from the end.
    ///
    /// # Errors
    /// Carried: a dim or an index out of range.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([[1, 2], [3, 4]]).select(1, -1).to_vec::<i64>()?, [2, 4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn select(&self, dim: isize, index: isize) -> Tensor {
        if self.rank() == 0 {
            return Tensor::fail("select", &[self], ErrorKind::Index, "a 0-d tensor has no index to select");
        }
        let axis = ok!("select", &[self], dims::axis(dim as i64, self.rank()));
        let extent = self.size(axis as isize);
        let at = if index < 0 { index + extent as isize } else { index };
        let at = match usize::try_from(at) {
            Ok(at) if at < extent => at,
            _ => {
                let message = format!("index {index} is out of range for dim {axis} of extent {extent}");
                return Tensor::fail("select", &[self], ErrorKind::Index, message);
            }
        };
        self.part(axis, at, 1).squeeze(axis)
    }

    /// One dim as several: their extents, one of which may be `-1`.
    ///
    /// # Errors
    /// Carried: a dim out of range; extents whose product is not the dim's.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 12]).unflatten(1, [3, -1]).shape(), [2, 3, 4]);
    /// ```
    #[track_caller]
    pub fn unflatten(&self, dim: isize, sizes: impl Sizes) -> Tensor {
        let axis = ok!("unflatten", &[self], dims::axis(dim as i64, self.rank()));
        let extents = self.extent_shape().extents();
        let split = super::movement::sized(&sizes.sizes(), self.size(axis as isize));
        let split = ok!("unflatten", &[self], split);
        if split.elements() != self.size(axis as isize) || self.rank() == 0 {
            let message = format!("extent {} of dim {axis} cannot be split into {split}", self.size(axis as isize));
            return Tensor::fail("unflatten", &[self], ErrorKind::Shape, message);
        }
        let (before, after) = (extents[..axis].iter().copied(), extents[axis + 1..].iter().copied());
        self.shaped("unflatten", Ok(Shape::new(before.chain(split.extents()).chain(after))))
    }

    /// The tensor `sizes[i]` times along each dim `i`, new dims first.
    ///
    /// # Errors
    /// Carried: fewer numbers than dims, negative numbers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2]).repeat([2, 2]).to_vec::<i64>()?, [1, 2, 1, 2, 1, 2, 1, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn repeat(&self, sizes: impl Sizes) -> Tensor {
        self.repeated("repeat", &sizes.sizes())
    }

    /// [`repeat`](Self::repeat), where numbers that are missing for the first dims are 1.
    ///
    /// # Errors
    /// Carried: negative numbers.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).tile([2]).shape(), [2, 6]);
    /// ```
    #[track_caller]
    pub fn tile(&self, sizes: impl Sizes) -> Tensor {
        let sizes = sizes.sizes();
        let missing = self.rank().saturating_sub(sizes.len());
        let padded: DimVec<i64> = std::iter::repeat_n(1, missing).chain(sizes).collect();
        self.repeated("tile", &padded)
    }

    /// A copy of the tensor beside itself in new dims, which are then merged with those they repeat.
    #[track_caller]
    fn repeated(&self, name: &'static str, sizes: &[i64]) -> Tensor {
        let times: Option<DimVec<usize>> = sizes.iter().map(|&s| usize::try_from(s).ok()).collect();
        let times = match times {
            Some(times) if times.len() >= self.rank() => times,
            Some(_) => {
                let message = format!("{} numbers of repetitions for {} dims", sizes.len(), self.rank());
                return Tensor::fail(name, &[self], ErrorKind::Shape, message);
            }
            None => {
                let message = format!("a number of repetitions is negative: {sizes:?}");
                return Tensor::fail(name, &[self], ErrorKind::Value, message);
            }
        };
        let new = times.len() - self.rank();
        let extents = self.extent_shape().extents();
        let extent = |i: usize| if i < new { 1 } else { extents[i - new] };
        let spread = Shape::new(times.iter().enumerate().flat_map(|(i, &n)| [n, extent(i)]));
        let places = (0..self.rank()).map(|i| 2 * (new + i) + 1).collect();
        let merged = times.iter().enumerate().map(|(i, &n)| n.checked_mul(extent(i)));
        let Some(merged) = merged.collect::<Option<DimVec<usize>>>() else {
            return Tensor::fail(name, &[self], ErrorKind::Shape, "an extent does not fit any number");
        };
        let copies = Tensor::record(name, Op::Broadcast { shape: spread, dims: places }, &[self]);
        copies.shaped(name, Ok(Shape::new(merged))).named(name, &[self])
    }

    /// Channels as pixels: `[.., c * r * r, h, w]` becomes `[.., c, h * r, w * r]`.
    ///
    /// # Errors
    /// Carried: fewer than 3 dims; a factor below 1; channels that are no multiple of the factor squared.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::arange(0..4).reshape([4, 1, 1]);
    /// assert_eq!(x.pixel_shuffle(2).to_vec::<i64>()?, [0, 1, 2, 3]);
    /// assert_eq!(x.pixel_shuffle(2).shape(), [1, 2, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn pixel_shuffle(&self, factor: usize) -> Tensor {
        let extents = self.extent_shape().extents();
        let [batch @ .., channels, height, width] = extents.as_slice() else {
            return self.pixels_failed("pixel_shuffle", factor);
        };
        if factor == 0 || channels % (factor * factor) != 0 {
            return self.pixels_failed("pixel_shuffle", factor);
        }
        let (b, c) = (batch.len(), channels / (factor * factor));
        let split = batch.iter().copied().chain([c, factor, factor, *height, *width]);
        let order = (0..b).chain([b, b + 3, b + 1, b + 4, b + 2]).collect();
        let merged = batch.iter().copied().chain([c, height * factor, width * factor]);
        let x = self.shaped("pixel_shuffle", Ok(Shape::new(split))).permuted("pixel_shuffle", Ok(order));
        x.shaped("pixel_shuffle", Ok(Shape::new(merged)))
    }

    /// Pixels as channels, the inverse of [`pixel_shuffle`](Self::pixel_shuffle): `[.., c, h * r, w * r]` becomes
    /// `[.., c * r * r, h, w]`.
    ///
    /// # Errors
    /// Carried: fewer than 3 dims; a factor below 1; a height or width that is no multiple of the factor.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([1, 6, 6]).pixel_unshuffle(3).shape(), [9, 2, 2]);
    /// ```
    #[track_caller]
    pub fn pixel_unshuffle(&self, factor: usize) -> Tensor {
        let extents = self.extent_shape().extents();
        let [batch @ .., channels, height, width] = extents.as_slice() else {
            return self.pixels_failed("pixel_unshuffle", factor);
        };
        if factor == 0 || height % factor != 0 || width % factor != 0 {
            return self.pixels_failed("pixel_unshuffle", factor);
        }
        let (b, h, w) = (batch.len(), height / factor, width / factor);
        let split = batch.iter().copied().chain([*channels, h, factor, w, factor]);
        let order = (0..b).chain([b, b + 2, b + 4, b + 1, b + 3]).collect();
        let merged = batch.iter().copied().chain([channels * factor * factor, h, w]);
        let x = self.shaped("pixel_unshuffle", Ok(Shape::new(split))).permuted("pixel_unshuffle", Ok(order));
        x.shaped("pixel_unshuffle", Ok(Shape::new(merged)))
    }

    #[track_caller]
    fn pixels_failed(&self, name: &'static str, factor: usize) -> Tensor {
        let message = format!("{} has no [.., channels, height, width] that the factor {factor} divides", self.node.ty);
        Tensor::fail(name, &[self], ErrorKind::Shape, message)
    }

    /// A new dim of extent 1 at this place, which is in range.
    #[track_caller]
    pub(crate) fn with_dim(&self, axis: usize) -> Tensor {
        let mut dims: DimVec<Dim> = self.extent_shape().dims().into();
        dims.insert(axis.min(dims.len()), Dim::new(1));
        self.shaped("unsqueeze", Ok(Shape::from_dims(dims)))
    }
}
