//! What a program becomes: graph to graph, graph to kernels, kernels to a plan of memory and steps.

#![forbid(unsafe_code)]

mod frame;
pub mod fusion;
pub mod index_map;
pub mod plan;
