//! Programs as machine code, and what is checked of them.

mod check;
mod counters;
mod faults;
mod gradients;
mod placement;
mod primitives;
mod saved;
mod setup;
mod shrink;

pub use check::Check;
pub use counters::Counters;
pub use gradients::gradients;
pub use placement::Class;
pub(crate) use placement::{array, dense, repeated};
pub(crate) use primitives::single_operation;
pub use primitives::{PrimitiveCase, check_operation, check_primitive};
pub use saved::{load, save};
pub use setup::Setup;
pub use shrink::shrink;
