//! What most programs need: `use lazuli::prelude::*;`.

pub use crate::{Backward, DType, Device, Ellipsis, LayerNorm, NewAxis, StepRange, Tensor, Tree, keep};
