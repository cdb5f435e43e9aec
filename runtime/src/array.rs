//! A tensor's value: a buffer, a dtype, and the layout that says where the elements lie.
//!
//! An [`Array`] whose layout reaches outside its buffer cannot be built; everything that reads or launches relies on it.

use crate::buffer::Buffer;
use crate::device::transfer;
use half::{bf16, f16};
use lazuli_ir::{
    DType, Device, DimVec, Element, Error, ErrorKind, Layout, Literal, Result, Shape, TensorType, with_element,
};
use std::sync::Arc;

/// A strided tensor value. Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct Array {
    buffer: Arc<Buffer>,
    dtype: DType,
    layout: Layout,
}

impl Array {
    /// A view of a buffer. Fails where the layout reaches outside it, or the buffer is not aligned for the dtype.
    pub fn new(buffer: Arc<Buffer>, dtype: DType, layout: Layout) -> Result<Array> {
        check(&buffer, dtype, &layout)?;
        Ok(Array { buffer, dtype, layout })
    }

    /// A row-major array with arbitrary contents, for a kernel to fill.
    pub fn uninit(ty: &TensorType) -> Result<Array> {
        ty.shape.check(ty.dtype)?;
        let buffer = Arc::new(Buffer::uninit(ty.bytes())?);
        Ok(Array { buffer, dtype: ty.dtype, layout: Layout::contiguous(ty.shape.clone()) })
    }

    /// As [`uninit`](Self::uninit), on a device. Fails where there is no such device, too.
    pub fn uninit_on(ty: &TensorType, device: Device) -> Result<Array> {
        ty.shape.check(ty.dtype)?;
        let buffer = Arc::new(Buffer::uninit_on(ty.bytes(), device)?);
        Ok(Array { buffer, dtype: ty.dtype, layout: Layout::contiguous(ty.shape.clone()) })
    }

    /// The elements of a vector in row-major order, without copying them. Fails where their number is not the shape's.
    pub fn from_vec<T: Element>(elements: Vec<T>, shape: &Shape) -> Result<Array> {
        fills::<T>(elements.len(), shape)?;
        let layout = Layout::contiguous(shape.clone());
        Ok(Array { buffer: Arc::new(Buffer::from_vec(elements)), dtype: T::DTYPE, layout })
    }

    /// The elements of a slice in row-major order, copied to storage of its own. Fails where their number is not the shape's.
    pub fn from_slice<T: Element>(elements: &[T], shape: &Shape) -> Result<Array> {
        fills::<T>(elements.len(), shape)?;
        let array = Array::uninit(&TensorType { shape: shape.clone(), dtype: T::DTYPE })?;
        // SAFETY: the array has room for all elements of its shape, nobody else knows it yet, and elements are plain numbers.
        unsafe { array.as_ptr().cast::<T>().copy_from_nonoverlapping(elements.as_ptr(), elements.len()) };
        Ok(array)
    }

    /// One value everywhere: one stored element, every stride 0.
    pub fn full(value: Literal, shape: &Shape) -> Result<Array> {
        shape.check(value.dtype())?;
        let one = Shape::scalar();
        let scalar = match value {
            Literal::Bool(v) => Array::from_vec(vec![v], &one)?,
            Literal::U8(v) => Array::from_vec(vec![v], &one)?,
            Literal::I32(v) => Array::from_vec(vec![v], &one)?,
            Literal::I64(v) => Array::from_vec(vec![v], &one)?,
            Literal::F16(v) => Array::from_vec(vec![v], &one)?,
            Literal::BF16(v) => Array::from_vec(vec![v], &one)?,
            Literal::F32(v) => Array::from_vec(vec![v], &one)?,
            Literal::F64(v) => Array::from_vec(vec![v], &one)?,
        };
        let layout = scalar.layout.broadcast(shape, &[]);
        Ok(Array { layout, ..scalar })
    }

    /// The storage.
    pub fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// The storage, giving this reference to it up.
    pub fn into_buffer(self) -> Arc<Buffer> {
        self.buffer
    }

    /// Whether this is the one reference to storage that may be written.
    pub(crate) fn is_sole_writable(&mut self) -> bool {
        Arc::get_mut(&mut self.buffer).is_some_and(|b| b.is_writable())
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        self.buffer.device()
    }

    /// The same elements on a device: this array where it lies there, else a copy with the same strides (without gaps, where
    /// most of what it spans is gaps). A copy from a GPU waits for all work on it, and tells what failed there.
    ///
    /// # Errors
    /// There is no such device; memory; work on the device failed.
    pub fn to_device(&self, device: Device) -> Result<Array> {
        if self.device() == device {
            return Ok(self.clone());
        }
        let host = self.device() == Device::Cpu;
        if host && self.layout.span() > self.layout.shape.elements().saturating_mul(2) {
            let dense = with_element!(self.dtype, T => Array::from_vec(self.to_vec::<T>()?, self.shape()))?;
            return dense.to_device(device);
        }
        let size = self.dtype.size();
        let lowest = self.layout.bounds().0;
        let (offset, bytes) = (lowest.max(0) as usize * size, self.layout.span() * size);
        let buffer = Arc::new(transfer(&self.buffer, offset, bytes, device)?);
        let mut layout = self.layout.clone();
        layout.offset -= lowest;
        Array::new(buffer, self.dtype, layout)
    }

    /// The first element alone, on the host. Fails where there is none.
    fn first(&self) -> Result<Array> {
        let one = Layout { shape: Shape::scalar(), strides: DimVec::new(), offset: self.layout.offset };
        self.with_layout(one)?.to_device(Device::Cpu)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the elements lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The extents.
    pub fn shape(&self) -> &Shape {
        &self.layout.shape
    }

    /// The logical type.
    pub fn ty(&self) -> TensorType {
        TensorType { shape: self.layout.shape.clone(), dtype: self.dtype }
    }

    /// Another view of the same storage. Fails where it reaches outside.
    pub fn with_layout(&self, layout: Layout) -> Result<Array> {
        Array::new(self.buffer.clone(), self.dtype, layout)
    }

    /// The address of the first element. Not to be read where there are no elements.
    pub fn as_ptr(&self) -> *mut u8 {
        self.buffer.as_ptr().wrapping_offset(self.layout.offset as isize * self.dtype.size() as isize)
    }

    /// The elements where they lie, for arrays in row-major order without gaps, on the host.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        if self.layout.is_contiguous() { self.storage() } else { None }
    }

    /// All elements of the storage that the layout spans, from the lowest address on, gaps included. `None` where `T` is not
    /// the dtype, bytes there are no `T`, or the array lies on another device.
    pub fn storage<T: Element>(&self) -> Option<&[T]> {
        if T::DTYPE != self.dtype || self.device() != Device::Cpu {
            return None;
        }
        let n = self.layout.span();
        if n == 0 {
            return Some(&[]);
        }
        let lowest = self.buffer.as_ptr().wrapping_offset(self.layout.bounds().0 as isize * self.dtype.size() as isize);
        // SAFETY: the layout was checked to lie within the buffer, whose bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(lowest, n * self.dtype.size()) };
        if T::DTYPE == DType::Bool && bytes.iter().any(|b| *b > 1) {
            return None;
        }
        // SAFETY: as above; the buffer is aligned for the dtype, T is its storage type, and bytes of booleans were checked to
        // be 0 or 1.
        Some(unsafe { std::slice::from_raw_parts(lowest.cast::<T>(), n) })
    }

    /// The elements in row-major order, copied from where they lie. Fails where `T` is not the array's dtype, and as
    /// [`to_device`](Self::to_device) does.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            let message = format!("elements of {} were asked for as {}", self.ty(), T::DTYPE);
            return Err(Error::new(ErrorKind::DType, message));
        }
        if self.device() != Device::Cpu {
            return self.to_device(Device::Cpu)?.to_vec();
        }
        if let Some(slice) = self.as_slice::<T>() {
            let mut out = reserve::<T>(slice.len())?;
            out.extend_from_slice(slice);
            return Ok(out);
        }
        let mut out = reserve::<T>(self.layout.shape.elements())?;
        // SAFETY: the layout was checked to lie within the buffer, whose elements are of type T.
        unsafe { gather(self.buffer.as_ptr(), &self.layout, &mut out) };
        Ok(out)
    }

    /// The one element. Fails where there are more or none, or `T` is not the dtype, and as [`to_device`](Self::to_device) does.
    pub fn item<T: Element>(&self) -> Result<T> {
        let n = self.layout.shape.elements();
        match self.literal_at_first()? {
            Some(v) if n == 1 && v.dtype() == T::DTYPE => Ok(T::from_literal(v)),
            Some(_) if n == 1 => {
                Err(Error::new(ErrorKind::DType, format!("the element of {} was asked for as {}", self.ty(), T::DTYPE)))
            }
            _ => Err(Error::new(ErrorKind::Shape, format!("{} has {n} elements; item() takes exactly one", self.ty()))),
        }
    }

    /// The first element; `None` where there is none. Fails as [`to_device`](Self::to_device) does.
    pub fn literal_at_first(&self) -> Result<Option<Literal>> {
        if self.layout.shape.is_empty() {
            return Ok(None);
        }
        if self.device() != Device::Cpu {
            return self.first()?.literal_at_first();
        }
        let at = self.as_ptr();
        // SAFETY: there is an element, and it lies within the buffer, in the host's memory.
        Ok(Some(unsafe {
            match self.dtype {
                DType::Bool => read::<bool>(at).literal(),
                DType::U8 => read::<u8>(at).literal(),
                DType::I32 => read::<i32>(at).literal(),
                DType::I64 => read::<i64>(at).literal(),
                DType::F16 => read::<f16>(at).literal(),
                DType::BF16 => read::<bf16>(at).literal(),
                DType::F32 => read::<f32>(at).literal(),
                DType::F64 => read::<f64>(at).literal(),
            }
        }))
    }
}

fn check(buffer: &Buffer, dtype: DType, layout: &Layout) -> Result<()> {
    layout.shape.check(dtype)?;
    let (low, high) = layout.bounds();
    let elements = (buffer.bytes() / dtype.size()) as i64;
    let outside = !layout.shape.is_empty() && (low < 0 || low >= high || high > elements);
    if outside || layout.strides.len() != layout.shape.rank() {
        let message = format!("a view of elements {low}..{high} does not lie in a buffer of {elements}");
        return Err(Error::internal(message));
    }
    if !buffer.as_ptr().addr().is_multiple_of(dtype.size()) {
        return Err(Error::internal(format!("a buffer is not aligned for {dtype}")));
    }
    Ok(())
}

fn reserve<T>(n: usize) -> Result<Vec<T>> {
    let mut out = Vec::new();
    out.try_reserve_exact(n).map_err(|_| {
        let bytes = n.saturating_mul(size_of::<T>());
        Error::new(ErrorKind::Memory, format!("{bytes} bytes of memory for a vector could not be allocated"))
    })?;
    Ok(out)
}

/// Reads an element; any byte but 0 is a true boolean.
///
/// # Safety
/// `pointer` must be valid for reads of a `T`, and aligned.
unsafe fn read<T: Element>(pointer: *const u8) -> T {
    if T::DTYPE == DType::Bool {
        // SAFETY: by the contract.
        return T::from_literal(Literal::Bool(unsafe { pointer.read() } != 0));
    }
    // SAFETY: by the contract.
    unsafe { pointer.cast::<T>().read() }
}

/// Appends the elements of a layout in row-major order: neighbouring dims that one stride walks are one loop, and the
/// innermost runs without index arithmetic.
///
/// # Safety
/// All elements of the layout must lie within initialised, aligned storage of `T`s that starts at `base`.
unsafe fn gather<T: Element>(base: *const u8, layout: &Layout, out: &mut Vec<T>) {
    if layout.shape.is_empty() {
        return;
    }
    let (extents, strides) = merged(layout);
    let outer = extents.len().saturating_sub(1);
    let (n, step) = (extents.last().copied().unwrap_or(1), strides.last().copied().unwrap_or(0));
    let mut index = vec![0usize; outer];
    let mut at = layout.offset;
    loop {
        for k in 0..n as i64 {
            let element = (at + k * step) as isize * size_of::<T>() as isize;
            // SAFETY: by the contract.
            out.push(unsafe { read::<T>(base.offset(element)) });
        }
        let mut axis = outer;
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < extents[axis] {
                break;
            }
            at -= strides[axis] * extents[axis] as i64;
            index[axis] = 0;
        }
    }
}

/// Extents and strides with dims merged that one stride walks.
fn merged(layout: &Layout) -> (Vec<usize>, Vec<i64>) {
    let (mut extents, mut strides) = (Vec::new(), Vec::new());
    for (d, &s) in layout.shape.extents().into_iter().zip(&layout.strides) {
        match (extents.last_mut(), strides.last_mut()) {
            _ if d == 1 => {}
            (Some(e), Some(t)) if *t == s * d as i64 => {
                *e *= d;
                *t = s;
            }
            _ => {
                extents.push(d);
                strides.push(s);
            }
        }
    }
    (extents, strides)
}

/// Whether so many elements fill a shape.
fn fills<T: Element>(elements: usize, shape: &Shape) -> Result<()> {
    shape.check(T::DTYPE)?;
    if elements == shape.elements() {
        return Ok(());
    }
    let message = format!("{elements} elements do not fill shape {shape}, which has {}", shape.elements());
    Err(Error::new(ErrorKind::Shape, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(shape: &Shape) -> Array {
        Array::from_vec((0..shape.elements() as i64).collect(), shape).unwrap()
    }

    #[test]
    fn every_layout_reads_in_row_major_order() {
        let base = range(&[4, 3, 5].into());
        let views = [
            base.layout().clone(),
            base.layout().permute(&[2, 0, 1]),
            base.layout().permute(&[1, 0, 2]),
            base.layout().broadcast(&[2, 4, 3, 5].into(), &[1, 2, 3]),
            Layout { shape: [2, 3].into(), strides: smallvec::smallvec![-30, -2], offset: 59 },
            Layout { shape: Shape::scalar(), strides: smallvec::smallvec![], offset: 7 },
            Layout { shape: [0, 3].into(), strides: smallvec::smallvec![3, 1], offset: 100 },
        ];
        for v in views {
            let expected: Vec<i64> = v.numbers().collect();
            assert_eq!(base.with_layout(v).unwrap().to_vec::<i64>().unwrap(), expected);
        }
    }

    #[test]
    fn views_outside_and_wrong_lengths_are_refused() {
        let base = range(&[4].into());
        let outside = |offset, stride| Layout { shape: [2].into(), strides: smallvec::smallvec![stride], offset };
        assert!(base.with_layout(outside(3, 1)).is_err());
        assert!(base.with_layout(outside(0, -1)).is_err());
        assert!(base.with_layout(outside(i64::MAX, 1)).is_err());
        assert!(base.with_layout(outside(3, -3)).is_ok());
        assert!(Array::from_vec(vec![1.0f32], &[2].into()).is_err());
        assert!(base.to_vec::<f32>().is_err());
        assert!(Array::uninit(&TensorType::new([1 << 40, 1 << 10], DType::I64)).is_err());
    }

    #[test]
    fn a_vector_moves_in_without_a_copy() {
        if crate::allocator::fencing().is_some() {
            return;
        }
        let v = vec![1.0f32, 2.0];
        let at = v.as_ptr().cast::<u8>();
        let a = Array::from_vec(v, &[2].into()).unwrap();
        assert_eq!(a.as_ptr().cast_const(), at);
        assert_eq!(a.as_slice::<f32>(), Some(&[1.0, 2.0][..]));
    }

    #[test]
    fn fills_and_items() {
        let a = Array::full(Literal::Bool(true), &[2, 3].into()).unwrap();
        assert_eq!(a.to_vec::<bool>().unwrap(), [true; 6]);
        assert_eq!(Array::full(Literal::F32(2.5), &Shape::scalar()).unwrap().item::<f32>().unwrap(), 2.5);
        assert!(a.item::<bool>().is_err());
        let none = Array::uninit(&TensorType::new([0, 3], DType::F32)).unwrap();
        assert_eq!(none.to_vec::<f32>().unwrap(), [0.0f32; 0]);
    }
}
