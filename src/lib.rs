//! A lazy tensor library and compiler: PyTorch's vocabulary in Rust, fused kernels compiled in milliseconds.
//!
//! Operations on a [`Tensor`] record; reading a value runs what it needs, one primitive at a time. [`compile()`] traces the
//! same code once for each signature and turns it into a few fused kernels of machine code. Gradients are a transformation
//! of the recorded program: [`Tensor::backward`], [`grad`], [`value_and_grad`]. Every stage can be printed.
//!
//! ```
//! use lazuli::prelude::*;
//!
//! # fn main() -> lazuli::Result<()> {
//! // Eager: what was recorded runs when a value is read.
//! let x = Tensor::randn([64, 64]);
//! let w = Tensor::randn([64, 10]).requires_grad_(true);
//! let loss = x.matmul(&w).relu().mean(..);
//! loss.backward()?;
//! println!("{} {:?}", loss.item::<f32>()?, w.grad());
//!
//! // Compiled: a function of tensors and numbers, traced once, optimised, run as machine code.
//! let step = lazuli::compile(|(w, x, y, lr): (Tensor, Tensor, Tensor, Tensor)| {
//!     let (loss, dw) = lazuli::value_and_grad(|w: &Tensor| x.matmul(w).cross_entropy(&y))(&w);
//!     (loss, &w - lr * dw)
//! });
//! let y = Tensor::from_vec((0..64).map(|i| i % 10).collect::<Vec<i64>>(), [64]);
//! let (loss, w) = step.call((w.detach(), x, y, 0.1))?;
//! println!("{loss} {:?}", w.shape());
//! # Ok(())
//! # }
//! ```
//!
//! # How it fails
//!
//! Recording never fails and never panics: a wrong shape, dtype or dim yields a tensor that carries an [`Error`] with the
//! operation, its operands and your line. It comes back from [`Tensor::check`], or from whatever reads the value.
//!
//! # How it differs from PyTorch
//!
//! Tensors are values: nothing is changed in place, `+=` rebinds the variable, and [`Tensor::requires_grad_`] returns a new
//! leaf. Optional arguments are structs named after the operation ([`options`]), and `()` stands for PyTorch's defaults;
//! losses and activations have a plain form, and one named `.._with` that takes them. Dims of reductions are `-1`,
//! `[0, 1]` or `..`, and [`keep`] keeps them; `x.max(dim)` gives the values, and [`Tensor::argmax`] their positions. Indexing is `x.i((0, .., 1..3))`.

#![forbid(unsafe_code)]

extern crate self as lazuli;

mod autograd;
mod compile;
mod device;
mod dims;
mod display;
mod eager;
mod exchange;
mod executor;
mod generator;
mod history;
mod node;
mod operand;
mod ops;
mod promotion;
mod report;
mod stages;
mod tensor;
mod threads;
mod trace;

pub mod cuda;
pub mod options;
pub mod prelude;
pub mod tree;
mod vjp;

pub use autograd::{Backward, Loss, grad, no_grad, value_and_grad};
pub use compile::{CacheReport, Compilation, Compiled, Executable, Optimized, Traced, compile, trace};
pub use device::Device;
pub use dims::{Axes, Dims, Integer, IntoShape, Keep, Sizes, keep};
pub use exchange::Lent;
pub use generator::manual_seed;
pub use lazuli_derive::Tree;
pub use lazuli_ir::{DType, Element, Error, ErrorKind, Limits, Result, bf16, f16};
pub use lazuli_passes::Pass;
pub use lazuli_runtime::GpuLaunch;
pub use operand::{Argument, Number, Operand, Scalar};
pub use ops::creation::{Counting, TensorData, tensor};
pub use ops::einsum::einsum;
pub use ops::index::{Ellipsis, Index, IndexItem, Indices, NewAxis, StepRange, Stepped};
pub use ops::join::{Sections, cat, hstack, meshgrid, stack, vstack};
pub use ops::linear::multi_dot;
pub use ops::selection::where_;
pub use report::{ContractionRow, Donation, FusionRow, KernelRow, PassRow, Report};
pub use stages::Stages;
pub use tensor::{Placement, Tensor};
pub use threads::{get_num_threads, set_num_threads};
pub use tree::{IntoTree, Outcome, Tree};

/// The README's program is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
