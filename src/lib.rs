//! lazuli

#![forbid(unsafe_code)]

extern crate self as lazuli;

mod autograd;
mod compile;
mod dims;
mod display;
mod eager;
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
mod trace;

pub mod prelude;
pub mod tree;
mod vjp;

pub use autograd::{Backward, Loss, grad, no_grad, value_and_grad};
pub use compile::{CacheReport, Compilation, Compiled, Executable, Optimized, Traced, compile, trace};
pub use dims::{Axes, Dims, Integer, IntoShape, Keep, Sizes, keep};
pub use generator::manual_seed;
pub use lazuli_derive::Tree;
pub use lazuli_ir::{DType, Element, Error, ErrorKind, Result};
pub use lazuli_passes::Pass;
pub use operand::{Argument, Number, Operand, Scalar};
pub use ops::activation::LayerNorm;
pub use ops::creation::{Counting, TensorData, tensor};
pub use ops::elementwise::where_;
pub use ops::index::{Ellipsis, Index, IndexItem, Indices, NewAxis, StepRange, Stepped};
pub use report::{Donation, FusionRow, KernelRow, Report};
pub use stages::Stages;
pub use tensor::{Device, Tensor};
pub use tree::{IntoTree, Outcome, Tree};
