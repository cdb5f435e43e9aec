//! How a program runs: storage of tensors, the CPU back end, and the executor.
//!
//! - [`Buffer`] and [`Array`]: a tensor's value, on the caching [`allocator`].
//! - `cpu`: Kernel IR to machine code, and the threads that run it.
//! - `cuda`: Kernel IR to CUDA C, and the NVIDIA GPUs that run it.
//! - `device`: which of them runs what.
//! - `executor`: runs a compiled program.

pub mod allocator;
mod arguments;
mod array;
mod buffer;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod device;
mod executor;
mod gemm;

pub use allocator::{MemoryStats, memory_stats, reset_peak};
pub use arguments::LaunchArg;
pub use array::Array;
pub use buffer::Buffer;
pub use executor::{Argument, CallReport, Executable, GpuLaunch};
