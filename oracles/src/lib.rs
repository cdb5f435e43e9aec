//! Oracles: random programs, and the checks that find wrong results without anyone knowing the right ones.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::panic, clippy::unwrap_used))]

mod contraction;
#[cfg(feature = "machine-code")]
mod counters;
mod data;
mod elementwise;
#[cfg(feature = "machine-code")]
mod faults;
#[cfg(feature = "machine-code")]
mod gradients;
mod indexing;
mod interpret;
#[cfg(feature = "machine-code")]
mod machine;
mod movement;
mod operator;
mod patterns;
#[cfg(feature = "machine-code")]
mod placement;
#[cfg(feature = "machine-code")]
mod primitives;
mod program;
mod rng;
#[cfg(feature = "machine-code")]
mod saved;
#[cfg(feature = "machine-code")]
mod setup;
#[cfg(feature = "machine-code")]
mod shrink;

#[cfg(feature = "machine-code")]
pub use counters::Counters;
#[cfg(feature = "machine-code")]
pub use gradients::gradients;
pub use interpret::interpret;
#[cfg(feature = "machine-code")]
pub use machine::Check;
pub use operator::Operator;
#[cfg(feature = "machine-code")]
pub use placement::Class;
#[cfg(feature = "machine-code")]
pub use primitives::{PrimitiveCase, check_operation, check_primitive};
pub use program::{Fault, Options, RandomProgram, Values, focus, random_program};
pub use rng::Rng;
#[cfg(feature = "machine-code")]
pub use saved::{load, save};
#[cfg(feature = "machine-code")]
pub use setup::Setup;
#[cfg(feature = "machine-code")]
pub use shrink::shrink;
