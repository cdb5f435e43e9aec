//! What most programs need: `use lazuli::prelude::*;`.

pub use crate::options::*;
pub use crate::{Backward, DType, Device, Ellipsis, NewAxis, StepRange, Tensor, Tree, keep};
