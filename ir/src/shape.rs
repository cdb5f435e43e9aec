//! Shapes: the extents of a tensor, with sizes multiplied in one place and checked.

use crate::{DType, Error, ErrorKind};
use smallvec::SmallVec;
use std::fmt;

/// A list of dims, axes or the like, short enough to live inline.
pub type DimVec<T> = SmallVec<[T; 6]>;

/// The extent of one dimension. Opaque: constant today, so passes ask it questions instead of reading a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim(usize);

impl Dim {
    /// A dimension of constant extent.
    pub const fn new(extent: usize) -> Dim {
        Dim(extent)
    }

    /// The extent, where it is known.
    pub const fn known(self) -> Option<usize> {
        Some(self.0)
    }

    /// Whether both are certainly the same extent.
    pub fn same(self, other: Dim) -> bool {
        self.0 == other.0
    }

    /// Whether the extent is certainly 0.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether the extent is certainly 1.
    pub fn is_one(self) -> bool {
        self.0 == 1
    }

    /// Whether `self` certainly divides `other`.
    pub fn divides(self, other: Dim) -> bool {
        self.0 != 0 && other.0.is_multiple_of(self.0)
    }
}

impl From<usize> for Dim {
    fn from(extent: usize) -> Dim {
        Dim(extent)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The extents of a tensor, outermost first. A scalar has none.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(DimVec<Dim>);

impl Shape {
    /// The shape of a scalar.
    pub fn scalar() -> Shape {
        Shape::default()
    }

    /// A shape of constant extents.
    pub fn new(extents: impl IntoIterator<Item = usize>) -> Shape {
        Shape(extents.into_iter().map(Dim::new).collect())
    }

    /// A shape of these dims.
    pub fn from_dims(dims: impl IntoIterator<Item = Dim>) -> Shape {
        Shape(dims.into_iter().collect())
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The dims, outermost first.
    pub fn dims(&self) -> &[Dim] {
        &self.0
    }

    /// The extent of one dim. Out of range is extent 1: shape rules check ranks first.
    pub fn dim(&self, axis: usize) -> Dim {
        self.0.get(axis).copied().unwrap_or(Dim(1))
    }

    /// The extents as numbers.
    pub fn extents(&self) -> DimVec<usize> {
        self.0.iter().map(|d| d.0).collect()
    }

    /// Whether some dim is certainly 0, so that there are no elements.
    pub fn is_empty(&self) -> bool {
        self.0.iter().any(|d| d.is_zero())
    }

    /// Whether both have the same rank and certainly the same dims.
    pub fn same(&self, other: &Shape) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.same(*b))
    }

    /// The number of elements. Saturates; a shape that went through [`check`](Self::check) fits.
    pub fn elements(&self) -> usize {
        if self.is_empty() { 0 } else { self.0.iter().fold(1usize, |n, d| n.saturating_mul(d.0)) }
    }

    /// Bytes that elements of `dtype` take. Saturates like [`elements`](Self::elements).
    pub fn bytes(&self, dtype: DType) -> usize {
        self.elements().saturating_mul(dtype.size())
    }

    /// Checks that the elements of this shape in `dtype` can be addressed: their bytes fit `isize`.
    ///
    /// The product of the nonzero extents is what is checked, so `[0, 2^40, 2^40]` is refused as well: its strides would
    /// overflow.
    pub fn check(&self, dtype: DType) -> Result<(), Error> {
        let bytes = self.0.iter().filter(|d| d.0 != 0).try_fold(dtype.size(), |n, d| n.checked_mul(d.0));
        match bytes {
            Some(n) if isize::try_from(n).is_ok() => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Shape,
                format!(
                    "a tensor {dtype}{self} is too large: its size in bytes does not fit a signed {}-bit number",
                    usize::BITS
                ),
            )),
        }
    }

    /// Strides, in elements, of row-major storage. Dims of extent 0 count as 1, so that strides stay distinct.
    pub fn strides(&self) -> DimVec<i64> {
        let mut strides: DimVec<i64> = self.0.iter().map(|_| 0).collect();
        let mut step = 1i64;
        for (s, d) in strides.iter_mut().zip(&self.0).rev() {
            *s = step;
            step = step.saturating_mul(d.0.max(1) as i64);
        }
        strides
    }
}

impl fmt::Display for Shape {
    /// `[2,3]`, and `[]` for a scalar.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Shape {
        Shape::new(extents)
    }
}

impl From<&[usize]> for Shape {
    fn from(extents: &[usize]) -> Shape {
        Shape::new(extents.iter().copied())
    }
}

/// What a value of the Graph IR is: a shape and a dtype. Logical: no strides.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The extents.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
}

impl TensorType {
    /// A type of this shape and dtype.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> TensorType {
        TensorType { shape: shape.into(), dtype }
    }

    /// Bytes its elements take.
    pub fn bytes(&self) -> usize {
        self.shape.bytes(self.dtype)
    }
}

impl fmt::Display for TensorType {
    /// `f32[2,3]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Shape::new([1 << 20, 1 << 20]).check(DType::F32).is_ok());
        assert!(Shape::new([1 << 31, 1 << 32]).check(DType::F32).is_err());
        assert!(Shape::new([usize::MAX, 2]).check(DType::Bool).is_err());
        assert!(Shape::new([0, usize::MAX, 2]).check(DType::Bool).is_err());
        assert_eq!(Shape::new([0, 5]).elements(), 0);
        assert_eq!(Shape::new([2, 3, 4]).strides().as_slice(), [12, 4, 1]);
    }
}
