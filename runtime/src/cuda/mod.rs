//! The CUDA back end: Kernel IR to CUDA C.
//!
//! - `source`: the text of a kernel, and how it is launched.

pub mod source;
