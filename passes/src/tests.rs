//! Tests of passes together: gradients against differences, random programs before and after.

mod gradient_check;
mod random_programs;
pub(crate) mod samples;
