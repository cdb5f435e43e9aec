//! The CPU back end: Kernel IR to machine code, and the threads that run it.
//!
//! - `emit`: Kernel IR to Cranelift IR.
//! - `code`: compilation, and the life of the code.
//! - `abi`: the convention between generated code and the runtime.
//! - `wide`: loop nests as wider vector code than Cranelift's.
//! - `dispatch`: kernels over threads.
//! - `launch`: one kernel on arrays, for eager evaluation.
//! - `limits`: what the machine does at most.
//! - `library`: what generated code calls.
//! - `sort`: the steps that are no kernels.

pub(crate) mod abi;
mod arena;
mod code;
pub(crate) mod dispatch;
mod emit;
mod launch;
mod library;
mod limits;
pub(crate) mod sort;
mod status;
mod target;
#[cfg(target_arch = "x86_64")]
mod wide;

pub use crate::arguments::LaunchArg;
pub use code::{CompileOptions, KernelCode, Vectors, compile, compile_with};
pub use dispatch::{set_num_threads, threads};
pub use launch::launch;
pub use limits::limits;
pub use target::host_target;

pub(crate) use abi::{Dim, DotCall};
pub(crate) use launch::template;
pub(crate) use status::Status;

/// What generated code may call.
static FUNCTIONS: abi::Functions = abi::Functions {
    dot_f32: crate::gemm::dot_f32,
    dot_bf16: crate::gemm::dot_bf16,
    dot_f64: crate::gemm::dot_f64,
    dot_u8: crate::gemm::dot_u8,
    dot_i32: crate::gemm::dot_i32,
    dot_i64: crate::gemm::dot_i64,
    check_failed: status::check_failed,
    unary: library::unary,
    binary: library::binary,
    integer_binary: library::integer_binary,
    fma_f32: library::fma_f32,
    fma_f64: library::fma_f64,
    #[cfg(target_arch = "x86_64")]
    lanes: wide::call_lanes,
};
