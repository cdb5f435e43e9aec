//! Oracles: random programs, and the checks that find wrong results without anyone knowing the right ones.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::panic, clippy::unwrap_used))]

mod contraction;
mod data;
mod elementwise;
#[cfg(feature = "machine-code")]
mod gpu;
mod indexing;
mod interpret;
#[cfg(feature = "machine-code")]
mod machine;
mod movement;
mod operator;
mod patterns;
mod program;
mod rng;
pub mod shim;

#[cfg(feature = "machine-code")]
pub use gpu::gpu;
pub use interpret::interpret;
#[cfg(feature = "machine-code")]
pub use machine::{
    Check, Class, Counters, PrimitiveCase, Setup, check_operation, check_primitive, gradients, load, save, shrink,
};
pub use operator::Operator;
pub use program::{Fault, Options, RandomProgram, Values, focus, random_program};
pub use rng::Rng;
