//! Arrays of the `ndarray` crate: moved in with their allocation and strides, lent out as views, copied where wanted.

use super::Lent;
use crate::{Result, Tensor};
use lazuli_ir::{Element, Error, ErrorKind, Layout, Shape, Source};
use lazuli_runtime::{Array, Buffer};
use ndarray::{
    ArrayBase, ArrayD, ArrayView, ArrayViewD, CowArray, Data, Dimension, Ix0, IxDyn, OwnedRepr, ShapeBuilder,
};
use std::sync::Arc;

impl Tensor {
    /// A tensor of an array's elements. An owned array is taken over without copying, in whatever order its elements lie:
    /// the allocation becomes the tensor's storage, and row-major, column-major, sliced or reversed strides its layout. A
    /// view or a shared array is copied.
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// use ndarray::{Array, ShapeBuilder};
    /// let columns = Array::from_shape_vec((2, 3).f(), vec![1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0]).unwrap();
    /// let x = Tensor::from_ndarray(columns);
    /// assert_eq!(x.shape(), [2, 3]);
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn from_ndarray<T: Element, S: Data<Elem = T>, D: Dimension>(array: ArrayBase<S, D>) -> Tensor {
        let source = Source::caller();
        let shape = Shape::new(array.shape().iter().copied());
        match owned(array.into_owned(), shape.clone()) {
            Ok(array) => Tensor::from_value(array, source),
            Err(e) => {
                let guess = lazuli_ir::TensorType { shape, dtype: T::DTYPE };
                Tensor::fail_as(guess, "from_ndarray", &[], e.kind(), e.message())
            }
        }
    }

    /// Computes the value, and copies it into an array of its own, in row-major order. [`lend`](Self::lend) gives a view
    /// without copying. `T` must be the tensor's dtype.
    ///
    /// # Errors
    /// As for [`eval`](Self::eval); another dtype; memory.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let mut a = (Tensor::arange(0..6).reshape([2, 3]) * 10).to_ndarray::<i64>()?;
    /// a[[1, 2]] = 7;
    /// assert_eq!(a, ndarray::array![[0, 10, 20], [30, 40, 7]].into_dyn());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>> {
        let source = Source::caller();
        let fail = |e: Error| e.with_operation("to_ndarray", [self.node.ty.clone()]).with_sources(source);
        let elements = self.array()?.to_vec::<T>().map_err(fail)?;
        ArrayD::from_shape_vec(IxDyn(&self.shape()), elements).map_err(|e| fail(refused(&e)))
    }
}

/// Any owned array converts; views and shared arrays are copied. See [`Tensor::from_ndarray`].
impl<T: Element, S: Data<Elem = T>, D: Dimension> From<ArrayBase<S, D>> for Tensor {
    #[track_caller]
    fn from(array: ArrayBase<S, D>) -> Tensor {
        Tensor::from_ndarray(array)
    }
}

/// The allocation and the strides of an array, as they are.
fn owned<T: Element, D: Dimension>(array: ArrayBase<OwnedRepr<T>, D>, shape: Shape) -> Result<Array> {
    let strides = array.strides().iter().map(|s| *s as i64).collect();
    let (elements, first) = array.into_raw_vec_and_offset();
    let layout = Layout { strides, offset: first.unwrap_or(0) as i64, shape };
    Array::new(Arc::new(Buffer::from_vec(elements)), T::DTYPE, layout.canonical())
}

fn refused(error: &ndarray::ShapeError) -> Error {
    Error::new(ErrorKind::Shape, format!("ndarray does not take this shape: {error}"))
}

impl<T: Element> Lent<T> {
    /// The elements where they lie, as a view of any number of dims.
    ///
    /// # Errors
    /// A shape beyond what `ndarray` counts (it has no elements, and an extent near 2^63).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::arange(0..6).reshape([2, 3]).t();
    /// let lent = x.lend::<i64>()?;
    /// let view = lent.view()?;
    /// assert_eq!((view.shape(), view[[2, 1]]), (&[3, 2][..], 5));
    /// assert_eq!(view.sum(), 15);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn view(&self) -> Result<ArrayViewD<'_, T>> {
        let layout = self.array.layout().canonical();
        let storage = self.array.storage::<T>().ok_or_else(|| Error::internal("lent storage that cannot be read"))?;
        let extents = layout.shape.extents();
        if extents.is_empty() {
            // Without dims there are no strides to give.
            let view = ArrayView::from_shape(Ix0(), storage).map_err(|e| refused(&e))?;
            return Ok(view.into_dyn());
        }
        // `ndarray` keeps strides as `usize`, a negative one by its bits.
        let strides: Vec<usize> = layout.strides.iter().map(|s| *s as usize).collect();
        ArrayView::from_shape(IxDyn(&extents).strides(IxDyn(&strides)), storage).map_err(|e| refused(&e))
    }

    /// The elements where they lie, as a view of a known number of dims: `view_of::<Ix2>()`.
    ///
    /// # Errors
    /// As for [`view`](Self::view); another number of dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// use ndarray::{Ix1, Ix2};
    /// let lent = lazuli::tensor([[1.0, 2.0], [3.0, 4.0]]).lend::<f32>()?;
    /// let [a, b] = [lent.view_of::<Ix2>()?, lent.view_of::<Ix2>()?];
    /// assert_eq!(a.dot(&b)[(1, 0)], 15.0);
    /// assert!(lent.view_of::<Ix1>().is_err());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn view_of<D: Dimension>(&self) -> Result<ArrayView<'_, T, D>> {
        let source = Source::caller();
        self.view()?.into_dimensionality::<D>().map_err(|_| {
            let message = format!("{} was lent as a view of another number of dims", self.array.ty());
            Error::new(ErrorKind::Shape, message).with_sources(source)
        })
    }

    /// The elements in row-major order: lent where they lie so, copied otherwise. For what needs them as one slice.
    ///
    /// # Errors
    /// As for [`view`](Self::view); memory.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1, 2], [3, 4]]);
    /// assert!(x.lend::<i64>()?.standard()?.is_view());
    /// assert_eq!(x.t().lend::<i64>()?.standard()?.as_slice(), Some(&[1, 3, 2, 4][..]));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn standard(&self) -> Result<CowArray<'_, T, IxDyn>> {
        if self.array.layout().is_contiguous() {
            return Ok(CowArray::from(self.view()?));
        }
        let shape = IxDyn(&self.array.shape().extents());
        ArrayD::from_shape_vec(shape, self.to_vec()?).map(CowArray::from).map_err(|e| refused(&e))
    }
}
