//! What a program becomes: graph to graph, graph to kernels, kernels to a plan of memory and steps.

#![forbid(unsafe_code)]

mod autodiff;
pub mod compile;
mod expr;
mod frame;
pub mod fusion;
pub mod index_map;
pub mod lower;
pub mod memory;
mod merge_loops;
pub mod plan;
pub mod primitive;
mod renumber;
#[cfg(test)]
mod samples;
pub mod schedule;
mod vjp_rules;

pub use autodiff::vjp;
pub use compile::{CompileOptions, Plan, compile};
pub use vjp_rules::{Reads, reads_for, vjp_reads};
