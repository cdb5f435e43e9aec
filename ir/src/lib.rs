//! What a program is, for [lazuli](https://docs.rs/lazuli): the Graph IR (operations on tensors), the Kernel IR (loops over
//! scalars), their shared vocabulary, and the compiled program as data.
//!
//! Passes and back ends both depend on this crate and not on each other. Nothing here is unsafe, and nothing knows a device.

#![forbid(unsafe_code)]

mod device;
mod dtype;
mod elementwise;
mod emit;
mod error;
pub mod graph;
mod graph_dot;
mod graph_parse;
mod graph_text;
mod graph_verify;
pub mod half_code;
pub mod index;
mod infer;
pub mod kernel;
pub mod kernel_eval;
mod kernel_parse;
mod kernel_text;
mod kernel_verify;
pub mod kernel_walk;
mod layout;
pub mod matmul;
mod op;
pub mod philox;
pub mod philox_code;
pub mod program;
mod reducer;
pub mod reference;
mod shape;
mod source;
mod splitmix;
pub mod target;
mod text;

pub use device::Device;
pub use dtype::{DType, Element, Literal, float_to_int};
pub use elementwise::{BinaryCode, BinaryOp, CompareOp, Domain, NativeUnary, UnaryCode, UnaryOp, UnaryRow, scale};
pub use error::{Error, ErrorKind, Result};
pub use graph::{Graph, NodeId, Value};
pub use graph_dot::DotString;
pub use graph_text::Labels;
pub use half::{bf16, f16};
pub use index::{ExtentId, Index, VarId};
pub use infer::infer;
pub use kernel::Kernel;
pub use layout::{Layout, Numbers};
pub use matmul::Matmul;
pub use op::{CumulativeOp, DotDims, Op, PadDim, ReduceOp, ScatterOp, SliceDim, WindowDim, WindowDims};
pub use program::Program;
pub use shape::{Dim, DimVec, Shape, TensorType};
pub use source::{Source, Sources};
pub use target::{Limits, MatmulRoutine, Target, TargetKind};
