//! The CUDA back end: Kernel IR to CUDA C, and the NVIDIA GPUs that run it.
//!
//! - `source`: a kernel as CUDA C, and how it is launched.
//! - `nvrtc`: CUDA C to machine code, by NVIDIA's run-time compiler; `cache` keeps it on disk.
//! - `cublaslt`: products of matrices by NVIDIA's library; `library` finds it, and NVRTC.
//! - `driver`: what is needed of a GPU's driver; `nvidia` is NVIDIA's, `testing` one that records.
//! - `gpu`: a GPU and its queue; `allocator` its memory, `staging` copies, `pending` what is not waited for yet.
//! - `code`: kernels that are loaded; `launch` runs one on arrays.
//! - `executor`: runs a program; `graphs` replays it.
//! - `limits`: what a GPU does at most, for reports.
//!
//! Nothing here needs CUDA to build: the driver, the compiler and the library are looked for when they are first used, and what is
//! missing is an error that says what to install. Without the library for products of matrices programs run all the same.

mod allocator;
pub mod cache;
mod code;
pub mod cublaslt;
pub mod driver;
pub(crate) mod executor;
mod gpu;
mod graphs;
mod launch;
mod library;
pub mod limits;
mod nvidia;
pub mod nvrtc;
mod pending;
pub mod source;
mod staging;
#[doc(hidden)]
pub mod testing;

pub(crate) use allocator::DeviceBlock;
pub use code::{KernelCode, compile, text};
pub use gpu::{Gpu, device_count, gpu};
pub use launch::launch;
