//! Oracles: random programs, and the checks that find wrong results without anyone knowing the right ones.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::panic, clippy::unwrap_used))]

mod data;
mod interpret;
#[cfg(feature = "machine-code")]
mod machine;
mod patterns;
#[cfg(feature = "machine-code")]
mod placement;
#[cfg(feature = "machine-code")]
mod primitives;
mod program;
mod rng;
#[cfg(feature = "machine-code")]
mod shrink;

pub use interpret::interpret;
#[cfg(feature = "machine-code")]
pub use machine::{Setup, check};
#[cfg(feature = "machine-code")]
pub use primitives::{PrimitiveCase, check_primitive};
pub use program::{Options, RandomProgram, Values, random_program};
pub use rng::Rng;
#[cfg(feature = "machine-code")]
pub use shrink::shrink;
