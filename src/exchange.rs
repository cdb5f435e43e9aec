//! Exchange of values with plain Rust: slices copied in, and storage lent out where it lies.
//!
//! A [`Lent`] value owns a reference to the tensor's storage. So it stays valid whatever becomes of the tensor, and it
//! counts as an owner: a compiled call that is given the tensor does not write where someone may still read. With the
//! feature `ndarray`, arrays of that crate are moved in and lent out in the same way.

#[cfg(feature = "ndarray")]
mod ndarray;

use crate::dims::IntoShape;
use crate::{Result, Tensor};
use lazuli_ir::{Element, Error, ErrorKind, Source};
use lazuli_runtime::Array;
use std::fmt;
use std::marker::PhantomData;

/// A tensor's value where it lies in memory, for reading: what [`Tensor::lend`] returns.
///
/// While it lives, the storage is read-only: a compiled call that the tensor was moved into gives its result other storage.
/// Several may be lent at once, and they may outlive the tensor.
#[derive(Clone)]
pub struct Lent<T> {
    array: Array,
    types: PhantomData<T>,
}

impl Tensor {
    /// A tensor of the elements of a slice in row-major order, copied. [`from_vec`](Self::from_vec) takes a vector over
    /// without copying.
    ///
    /// # Errors
    /// Carried: a number of elements that is not the shape's.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::from_slice(&[1i64, 2, 3, 4], [2, 2]);
    /// assert_eq!(x.i((1, ..)).to_vec::<i64>()?, [3, 4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn from_slice<T: Element>(elements: &[T], shape: impl IntoShape) -> Tensor {
        let shape = shape.into_shape();
        Tensor::from_elements("from_slice", Array::from_slice(elements, &shape), shape, T::DTYPE)
    }

    /// Computes the value, and lends it where it lies, without copying: as a slice, or (feature `ndarray`) as an array view.
    /// `T` must be the tensor's dtype. What is lent of a tensor on a GPU is a copy on the CPU.
    ///
    /// # Errors
    /// As for [`eval`](Self::eval); another dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, 2.0], [3.0, 4.0]]) * 2.0;
    /// let lent = x.lend::<f32>()?;
    /// assert_eq!(lent.as_slice(), Some(&[2.0, 4.0, 6.0, 8.0][..]));
    /// // A transposed tensor is a view of the same storage: its elements are there, though not in row-major order.
    /// assert_eq!(x.t().lend::<f32>()?.as_slice(), None);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn lend<T: Element>(&self) -> Result<Lent<T>> {
        let source = Source::caller();
        let fail = |kind, message: String| {
            Error::new(kind, message).with_operation("lend", [self.node.ty.clone()]).with_sources(source)
        };
        let array = self.array()?.to_device(lazuli_ir::Device::Cpu)?;
        if array.dtype() != T::DTYPE {
            return Err(fail(ErrorKind::DType, format!("elements of {} were asked for as {}", array.ty(), T::DTYPE)));
        }
        if array.storage::<T>().is_none() {
            return Err(fail(ErrorKind::Value, format!("the storage holds bytes that are no {}", T::DTYPE)));
        }
        Ok(Lent { array, types: PhantomData })
    }
}

impl<T: Element> Lent<T> {
    /// The extents, outermost first.
    pub fn shape(&self) -> Vec<usize> {
        self.array.shape().extents().to_vec()
    }

    /// Elements from one to the next along each dim: 0 where a dim repeats, negative where it runs backwards.
    pub fn strides(&self) -> Vec<isize> {
        self.array.layout().strides.iter().map(|s| *s as isize).collect()
    }

    /// The elements, where they lie in row-major order without gaps; `None` otherwise.
    pub fn as_slice(&self) -> Option<&[T]> {
        if self.array.layout().is_contiguous() { self.array.storage() } else { None }
    }

    /// The elements in row-major order, copied.
    ///
    /// # Errors
    /// Memory.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.array.to_vec()
    }
}

impl<T: Element> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({}, strides {:?})", self.array.ty(), self.strides())
    }
}
