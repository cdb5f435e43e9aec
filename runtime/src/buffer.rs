//! Storage of tensors: a run of bytes with one owner, shared by reference count.
//!
//! A [`Buffer`] is either a block of the caching allocator or memory that some Rust value owns (a `Vec` handed over without
//! copying, an array of another library), or a block of a GPU's memory, which the host only knows the address of. Its bytes are written by kernels while the call that fills it is the only holder,
//! and read-only from then on; a call that was given the last reference may write it again (donation).

use crate::allocator::{self, Block};
#[cfg(feature = "cuda")]
use crate::cuda::DeviceBlock;
use crate::device::{self, Backend};
use lazuli_ir::{Device, Element, Result};
use std::any::Any;
use std::fmt;
use std::ptr::NonNull;

enum Owner {
    /// A block of the caching allocator.
    Pool(Option<Block>),
    /// A value that nobody else can reach.
    Exclusive { _owner: Box<dyn Any + Send + Sync> },
    /// A value that others may read as well.
    Lent { _owner: Box<dyn Any + Send + Sync> },
    /// Memory of a GPU.
    #[cfg(feature = "cuda")]
    Device(DeviceBlock),
}

/// Storage of tensors. Pointers to it stay valid while it lives; without elements too.
pub struct Buffer {
    pointer: NonNull<u8>,
    bytes: usize,
    owner: Owner,
}

// SAFETY: the bytes are plain data, and the owner is `Send + Sync`; writes happen only under the rule above, that the writer
// is the one holder.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Storage of this size with arbitrary contents, aligned to a cache line. Fails where memory is exhausted.
    pub fn uninit(bytes: usize) -> Result<Buffer> {
        let block = allocator::acquire(bytes)?;
        Ok(Buffer { pointer: block.pointer(), bytes, owner: Owner::Pool(Some(block)) })
    }

    /// As [`uninit`](Self::uninit), on a device. Fails where there is no such device, too.
    pub fn uninit_on(bytes: usize, device: Device) -> Result<Buffer> {
        match device::backend(device)? {
            Backend::Cpu => Buffer::uninit(bytes),
            #[cfg(feature = "cuda")]
            Backend::Cuda(gpu) => Ok(Buffer::from_device(gpu.queue()?.acquire(bytes, "a tensor")?, bytes)),
        }
    }

    /// The first bytes of a block of a GPU's memory.
    #[cfg(feature = "cuda")]
    pub(crate) fn from_device(block: DeviceBlock, bytes: usize) -> Buffer {
        let pointer = NonNull::new(block.address().0 as *mut u8).unwrap_or(NonNull::dangling());
        Buffer { pointer, bytes, owner: Owner::Device(block) }
    }

    /// The block of a GPU's memory that it lies in.
    #[cfg(feature = "cuda")]
    pub(crate) fn device_block(&self) -> Option<&DeviceBlock> {
        match &self.owner {
            Owner::Device(block) => Some(block),
            Owner::Pool(_) | Owner::Exclusive { .. } | Owner::Lent { .. } => None,
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        match &self.owner {
            Owner::Pool(_) | Owner::Exclusive { .. } | Owner::Lent { .. } => Device::Cpu,
            #[cfg(feature = "cuda")]
            Owner::Device(block) => Device::Cuda(block.gpu().ordinal()),
        }
    }

    /// The elements of a vector, without copying them (but where buffers are fenced for tests, see [`allocator`]).
    pub fn from_vec<T: Element>(mut elements: Vec<T>) -> Buffer {
        // By a mutable reference, since the storage may be written through this pointer.
        let pointer = NonNull::from(elements.as_mut_slice()).cast::<u8>();
        let bytes = std::mem::size_of_val(elements.as_slice());
        if allocator::fencing().is_some()
            && let Ok(fenced) = Buffer::uninit(bytes)
        {
            // SAFETY: the new buffer is as large as the vector's elements, and nobody else holds it.
            unsafe { fenced.pointer.copy_from_nonoverlapping(pointer, bytes) };
            return fenced;
        }
        Buffer { pointer, bytes, owner: Owner::Exclusive { _owner: Box::new(elements) } }
    }

    /// Memory that `owner` keeps alive and that is never written through this buffer.
    ///
    /// # Safety
    /// `pointer` must be valid for reads of `bytes` bytes, initialised, and not written by anyone while `owner` lives; it
    /// must be aligned for the element type it is used with, and moving `owner` must not invalidate it.
    pub unsafe fn from_owner(pointer: NonNull<u8>, bytes: usize, owner: Box<dyn Any + Send + Sync>) -> Buffer {
        Buffer { pointer, bytes, owner: Owner::Lent { _owner: owner } }
    }

    /// The address of the first byte, in the memory of its [device](Self::device).
    pub fn as_ptr(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// The number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether its sole holder may write it: false for memory that others can read.
    pub fn is_writable(&self) -> bool {
        match self.owner {
            Owner::Pool(_) | Owner::Exclusive { .. } => true,
            Owner::Lent { .. } => false,
            #[cfg(feature = "cuda")]
            Owner::Device(_) => true,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match &mut self.owner {
            Owner::Pool(block) => {
                if let Some(block) = block.take() {
                    allocator::release(block);
                }
            }
            Owner::Exclusive { .. } | Owner::Lent { .. } => {}
            #[cfg(feature = "cuda")]
            Owner::Device(_) => {}
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}
