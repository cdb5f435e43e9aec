//! What most programs need: `use lazuli::prelude::*;`.

pub use crate::{DType, Device, Tensor, Tree};
