//! lazuli

#![forbid(unsafe_code)]

mod eager;
mod executor;
mod generator;
#[allow(dead_code)]
mod history;
mod node;
#[allow(dead_code)]
mod tensor;
#[allow(dead_code)]
mod trace;

pub mod prelude;

pub use generator::manual_seed;
pub use lazuli_ir::{DType, Element, Error, ErrorKind, Result};
pub use tensor::{Device, Tensor};
