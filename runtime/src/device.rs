//! The back end of a device: the one place that chooses between them.

use crate::allocator::{self, MemoryStats};
use crate::arguments::LaunchArg;
use crate::buffer::Buffer;
use crate::cpu;
#[cfg(feature = "cuda")]
use crate::cuda::{self, Gpu};
use lazuli_ir::kernel::Kernel;
use lazuli_ir::program::Program;
use lazuli_ir::{Device, Error, ErrorKind, Limits, Result, Target};

/// What runs on a device.
pub(crate) enum Backend {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(&'static Gpu),
}

/// The back end of a device. Fails where there is no such device.
pub(crate) fn backend(device: Device) -> Result<Backend> {
    match device {
        Device::Cpu => Ok(Backend::Cpu),
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => cuda::gpu(ordinal).map(Backend::Cuda),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => {
            let message = format!("there is no device {device}: lazuli was built without its feature `cuda`");
            Err(Error::new(ErrorKind::Device, message))
        }
    }
}

/// What passes know of a device.
///
/// # Errors
/// There is no such device.
pub fn target(device: Device) -> Result<&'static Target> {
    match backend(device)? {
        Backend::Cpu => Ok(cpu::host_target()),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => Ok(gpu.target()),
    }
}

/// A plan for a device: by its target; where the device's routine for products of matrices has no algorithm for one of the plan, by its
/// target without that routine. `program` is a plan's program.
///
/// # Errors
/// There is no such device; what `plan` says.
pub fn plan<P>(device: Device, plan: impl Fn(&Target) -> Result<P>, program: impl Fn(&P) -> &Program) -> Result<P> {
    let target = target(device)?;
    let planned = plan(target)?;
    #[cfg(feature = "cuda")]
    if let Backend::Cuda(gpu) = backend(device)?
        && let Some(refused) = gpu.refused_product(program(&planned))
    {
        tracing::warn!(target: "lazuli::cuda", %refused, "contractions are loops");
        return plan(&Target { matmul: None, ..target.clone() });
    }
    #[cfg(not(feature = "cuda"))]
    let _ = program;
    Ok(planned)
}

/// Gets a device ready.
///
/// # Errors
/// There is no such device, or no compiler for it.
pub fn open(device: Device) -> Result<()> {
    match backend(device)? {
        Backend::Cpu => Ok(()),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => gpu.ready(),
    }
}

/// Whether there is a GPU, and a compiler for it. Opens none.
pub fn cuda_is_available() -> bool {
    #[cfg(feature = "cuda")]
    {
        cuda::device_count().is_ok() && cuda::nvrtc::version().is_ok()
    }
    #[cfg(not(feature = "cuda"))]
    {
        false
    }
}

/// The number of GPUs. Fails where there is no driver, or none that is new enough.
pub fn cuda_count() -> Result<usize> {
    #[cfg(feature = "cuda")]
    {
        cuda::device_count()
    }
    #[cfg(not(feature = "cuda"))]
    {
        backend(Device::Cuda(0)).map(|_| 0)
    }
}

/// A device's name.
pub fn name(device: Device) -> Result<String> {
    match backend(device)? {
        Backend::Cpu => Ok("CPU".to_owned()),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => Ok(gpu.properties().name.clone()),
    }
}

/// Bytes of a GPU's memory that are free, and all.
pub fn memory(device: Device) -> Result<(u64, u64)> {
    match backend(device)? {
        Backend::Cpu => Err(Error::new(ErrorKind::Device, "the CPU's memory is the system's; ask for that of a GPU")),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => gpu.memory(),
    }
}

/// Waits until all work on a device is done, and tells what failed on it.
pub fn synchronise(device: Device) -> Result<()> {
    match backend(device)? {
        Backend::Cpu => Ok(()),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => gpu.synchronise(),
    }
}

/// What lazuli holds of a device's memory, in bytes.
pub fn memory_stats(device: Device) -> Result<MemoryStats> {
    match backend(device)? {
        Backend::Cpu => Ok(allocator::memory_stats()),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => Ok(gpu.memory_stats()),
    }
}

/// Starts a new measurement of [`MemoryStats::peak`].
pub fn reset_peak(device: Device) -> Result<()> {
    match backend(device)? {
        Backend::Cpu => allocator::reset_peak(),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => gpu.reset_peak(),
    }
    Ok(())
}

/// What a device does at most, as measured at the first question.
///
/// # Errors
/// There is no such device; memory.
pub fn limits(device: Device) -> Result<Limits> {
    match backend(device)? {
        Backend::Cpu => cpu::limits(),
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => gpu.limits(),
    }
}

/// CUDA C of each of these kernels, which were scheduled for a GPU, without the prelude.
pub fn text(kernels: &[Kernel]) -> Result<Vec<String>> {
    #[cfg(feature = "cuda")]
    {
        let (_, sources) = cuda::text(kernels)?;
        Ok(sources.into_iter().map(|s| s.text).collect())
    }
    #[cfg(not(feature = "cuda"))]
    {
        let message = format!("no CUDA C for {} kernels: lazuli was built without its feature `cuda`", kernels.len());
        Err(Error::new(ErrorKind::Device, message))
    }
}

/// A copy of some bytes of a buffer on another device.
pub(crate) fn transfer(from: &Buffer, offset: usize, bytes: usize, to: Device) -> Result<Buffer> {
    if offset.checked_add(bytes).is_none_or(|end| end > from.bytes()) {
        return Err(Error::internal(format!("{bytes} bytes from {offset} on of a buffer of {}", from.bytes())));
    }
    match backend(to)? {
        Backend::Cpu => {
            let copy = Buffer::uninit(bytes)?;
            #[cfg(feature = "cuda")]
            if let Some(block) = from.device_block() {
                // SAFETY: the copy holds so many bytes, which are initialised, and nobody else knows it yet.
                let bytes = unsafe { std::slice::from_raw_parts_mut(copy.as_ptr(), bytes) };
                block.gpu().queue()?.copy_down(block, offset, bytes)?;
            }
            Ok(copy)
        }
        #[cfg(feature = "cuda")]
        Backend::Cuda(gpu) => {
            if from.device_block().is_some() {
                let host = transfer(from, offset, bytes, Device::Cpu)?;
                return transfer(&host, 0, bytes, to);
            }
            // SAFETY: the range was checked to lie in the buffer, whose bytes are the host's and initialised.
            let source = unsafe { std::slice::from_raw_parts(from.as_ptr().add(offset), bytes) };
            let mut queue = gpu.queue()?;
            let block = queue.acquire(bytes, "a copy of host data")?;
            queue.copy_up(&block, source)?;
            Ok(Buffer::from_device(block, bytes))
        }
    }
}

/// A kernel that runs on a device: for eager evaluation. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Launcher {
    /// On the CPU.
    Cpu(cpu::KernelCode),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(cuda::KernelCode),
}

impl Launcher {
    /// Compiles a kernel that was scheduled for the device's [`target`].
    pub fn new(kernel: Kernel, device: Device) -> Result<Launcher> {
        let none = || Error::internal("a kernel without code");
        Ok(match backend(device)? {
            Backend::Cpu => Launcher::Cpu(cpu::compile(&[kernel], cpu::host_target())?.pop().ok_or_else(none)?),
            #[cfg(feature = "cuda")]
            Backend::Cuda(gpu) => Launcher::Cuda(cuda::compile(&[kernel], gpu)?.pop().ok_or_else(none)?),
        })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        match self {
            Launcher::Cpu(code) => code.kernel(),
            #[cfg(feature = "cuda")]
            Launcher::Cuda(code) => code.kernel(),
        }
    }

    /// Runs the kernel, which checks nothing and has no run-time scalars: see [`cpu::launch`]. A GPU goes by the kernel's own
    /// grid, and not by `iterations` and `grain`.
    pub fn launch(&self, args: &[LaunchArg<'_>], extents: &[u64], iterations: u64, grain: u64) -> Result<()> {
        match self {
            Launcher::Cpu(code) => cpu::launch(code, args, extents, &[], &[], iterations, grain),
            #[cfg(feature = "cuda")]
            Launcher::Cuda(code) => cuda::launch(code, args, extents),
        }
    }
}
