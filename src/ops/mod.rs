//! Operations on tensors, by kind.

pub(crate) mod activation;
pub(crate) mod contraction;
pub(crate) mod creation;
pub(crate) mod elementwise;
pub(crate) mod index;
pub(crate) mod loss;
pub(crate) mod movement;
pub(crate) mod operators;
pub(crate) mod reduce;
