//! What a program becomes: graph to graph, graph to kernels, kernels to a plan of memory and steps.

#![forbid(unsafe_code)]

mod aligned;
mod autodiff;
mod columns;
pub mod compile;
mod contraction;
mod cse;
mod digits;
mod driver;
mod expr;
mod fold;
mod frame;
pub mod fusion;
mod gpu_time;
pub mod index_map;
pub mod layout;
pub mod ledger;
mod legality;
pub mod lower;
pub mod memory;
mod merge_loops;
mod operand;
mod options;
mod panels;
mod pieces;
pub mod plan;
pub mod primitive;
pub mod products;
mod reach;
mod recompute;
mod renumber;
mod row_panels;
mod row_tiles;
mod scalar;
pub mod schedule;
mod schedule_gpu;
mod simplify;
mod simplify_algebra;
mod simplify_dot;
mod simplify_movement;
mod softmax;
mod split;
#[cfg(test)]
mod tests;
mod tiling;
mod unroll;
mod vjp_rules;
mod windows;

pub use autodiff::vjp;
pub use compile::{Plan, compile};
pub use driver::{PassRecord, PassReport, optimize};
pub use options::{Observer, Options, Pass};
pub use vjp_rules::{Reads, reads_for, vjp_reads};
