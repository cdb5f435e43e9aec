//! NVIDIA GPUs: which there are, and how they are doing.
//!
//! Nothing of CUDA is needed to build or to start a program that uses this module. What a GPU needs at run time is NVIDIA's
//! driver, version 580 or newer, and NVRTC 13, the compiler that comes with the CUDA toolkit, or by itself with
//! `pip install nvidia-cuda-nvrtc==13.0.*` (then `LAZULI_NVRTC` names the folder of its library). Large products of matrices are
//! cuBLASLt's, where its version 13 is found: it comes with the toolkit, or with `pip install nvidia-cublas==13.*` (then
//! `LAZULI_CUBLASLT` names the folder). Without it they are loops that Lazuli compiles.
//!
//! Work on a GPU is submitted and not waited for. Reading a value waits, and tells what failed on the device until then:
//! an index out of range in a program that ran before, too. [`synchronize`] does the same without a value.

use crate::{Device, Result};
use lazuli_runtime::device;

pub use lazuli_runtime::MemoryStats;

/// Whether there is a GPU that can be used: a driver that shows one, and the compiler for it.
///
/// ```
/// use lazuli::prelude::*;
/// let device = if lazuli::cuda::is_available() { Device::cuda(0)? } else { Device::Cpu };
/// # Ok::<(), lazuli::Error>(())
/// ```
pub fn is_available() -> bool {
    device::cuda_is_available()
}

/// The number of GPUs that this process may use.
///
/// # Errors
/// There is no driver, it is too old, or it shows no GPU.
pub fn device_count() -> Result<usize> {
    device::cuda_count()
}

/// The name of a device, such as `NVIDIA H100 80GB HBM3`.
///
/// # Errors
/// There is no such device.
pub fn device_name(device: Device) -> Result<String> {
    device::name(device.into())
}

/// Bytes of a GPU's memory that are free, and all.
///
/// # Errors
/// There is no such device, or it is the CPU.
pub fn memory(device: Device) -> Result<(u64, u64)> {
    device::memory(device.into())
}

/// Bytes of a device's memory that Lazuli holds: by tensors, at most so far, and kept for reuse.
///
/// # Errors
/// There is no such device.
pub fn memory_stats(device: Device) -> Result<MemoryStats> {
    device::memory_stats(device.into())
}

/// Waits until all work on a device is done.
///
/// # Errors
/// There is no such device; what failed on it since a value was last read.
pub fn synchronize(device: Device) -> Result<()> {
    device::synchronise(device.into())
}
