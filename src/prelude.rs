//! What most programs need: `use lazuli::prelude::*;`.

pub use crate::{DType, Device, Ellipsis, LayerNorm, NewAxis, StepRange, Tensor, Tree, keep};
