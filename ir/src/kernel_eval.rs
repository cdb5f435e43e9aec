//! The scalar evaluator of kernels: their executable meaning, and the oracle for both emitters.
//!
//! A kernel is first compiled to slots (`code`), then run one scalar at a time (`machine`). Each operation works at its own
//! precision: `f32` operations round to `f32`; a function that is not expanded is computed in `f64` and rounded once. What
//! compiled code would silently get wrong is an error here: an access out of range (of the logical dims, of a tile's valid
//! part or of the storage) and reading an element of a tile that nothing wrote. Loops that run on threads can be run backwards:
//! a kernel whose result then changes has a race.

mod code;
mod machine;

use crate::{DType, Element, Error, ErrorKind, Kernel, Literal, Result};

/// Elements in memory. Equality is by bits, as that of literals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelData {
    dtype: DType,
    /// The bits of each element, as those of a [`Literal`].
    elements: Vec<u64>,
}

impl KernelData {
    /// `n` zeros.
    pub fn zeros(dtype: DType, n: usize) -> KernelData {
        KernelData { dtype, elements: vec![0; n] }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// An element.
    pub fn get(&self, i: usize) -> Option<Literal> {
        self.elements.get(i).map(|bits| Literal::from_bits(self.dtype, *bits))
    }

    /// Replaces an element, cast to this dtype; `None` out of range.
    pub fn set(&mut self, i: usize, value: Literal) -> Option<()> {
        let element = self.elements.get_mut(i)?;
        *element = value.cast(self.dtype).bits();
        Some(())
    }

    /// The elements as literals.
    pub fn literals(&self) -> impl ExactSizeIterator<Item = Literal> + '_ {
        self.elements.iter().map(|bits| Literal::from_bits(self.dtype, *bits))
    }

    /// The elements, cast to `T`.
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        self.literals().map(T::from_literal).collect()
    }
}

impl<T: Element> From<Vec<T>> for KernelData {
    fn from(data: Vec<T>) -> KernelData {
        KernelData { dtype: T::DTYPE, elements: data.into_iter().map(|v| v.literal().bits()).collect() }
    }
}

/// A buffer passed to a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelBuffer {
    /// The storage.
    pub data: KernelData,
    /// The element of the storage at index 0 of every dim.
    pub offset: usize,
    /// The values of the parameter's run-time strides, in order of its dims; constant strides are the kernel's own.
    pub strides: Vec<i64>,
}

impl KernelBuffer {
    /// Storage that starts at the first element, with constant strides only.
    pub fn new(data: KernelData) -> KernelBuffer {
        KernelBuffer { data, offset: 0, strides: Vec::new() }
    }
}

impl<T: Element> From<Vec<T>> for KernelBuffer {
    fn from(data: Vec<T>) -> KernelBuffer {
        KernelBuffer::new(data.into())
    }
}

/// The order in which the iterations of loops over threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadOrder {
    /// By their number.
    Forward,
    /// From the last to the first.
    Reversed,
}

/// Runs a kernel: body and finish, with one buffer a parameter, and values for its run-time extents and scalars.
///
/// ```
/// use lazuli_ir::kernel_eval::{KernelBuffer, ThreadOrder, evaluate};
/// let kernel = lazuli_ir::Kernel::parse(
///     "kernel twice(%x: f32[n], %y: mut f32[n]) extents(n) {
///        loop %i in n { store %y[%i], mul (load %x[%i]), 2.0 }
///      }",
/// )?;
/// let mut buffers: Vec<KernelBuffer> = vec![vec![1.0f32, 2.0].into(), vec![0.0f32; 2].into()];
/// evaluate(&kernel, &mut buffers, &[2], &[], ThreadOrder::Forward)?;
/// assert_eq!(buffers[1], vec![2.0f32, 4.0].into());
/// # Ok::<(), lazuli_ir::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Verify`] where the kernel or what is passed does not fit, [`ErrorKind::Index`] for an access out of range, an
/// element of a tile that was never written, and a failed `check` (after the kernel has run).
pub fn evaluate(
    kernel: &Kernel,
    buffers: &mut [KernelBuffer],
    extents: &[u64],
    scalars: &[Literal],
    order: ThreadOrder,
) -> Result<()> {
    kernel.verify()?;
    check_arguments(kernel, buffers, extents, scalars)?;
    let code = code::compile(kernel, extents, scalars)?;
    machine::Machine::new(kernel, &code, buffers, order)?.run(&code)
}

fn check_arguments(kernel: &Kernel, buffers: &[KernelBuffer], extents: &[u64], scalars: &[Literal]) -> Result<()> {
    let given = (buffers.len(), extents.len(), scalars.len());
    let expected = (kernel.params.len(), kernel.extents.len(), kernel.scalars.len());
    let buffers_fit = kernel.params.iter().zip(buffers).all(|(p, b)| p.dtype == b.data.dtype());
    let scalars_fit = kernel.scalars.iter().zip(scalars).all(|(p, s)| p.dtype == s.dtype());
    if given == expected && buffers_fit && scalars_fit {
        return Ok(());
    }
    let message = format!(
        "kernel {} takes {} buffers, {} extents and {} scalars, and got {}, {} and {}, or some of another dtype",
        kernel.name, expected.0, expected.1, expected.2, given.0, given.1, given.2
    );
    Err(Error::new(ErrorKind::Verify, message))
}
