//! The CUDA back end: Kernel IR to CUDA C, and the device that runs it.
//!
//! - `source`: a kernel as CUDA C, and how it is launched.
//! - `nvrtc`: CUDA C to machine code, by NVIDIA's run-time compiler.
//!
//! Nothing here needs CUDA to build: the driver and the compiler are looked for when they are first used, and what is
//! missing is an error that says what to install.

pub mod nvrtc;
pub mod source;
