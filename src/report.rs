//! What a compiled program costs, kernel by kernel.
use crate::compile::Module;
use std::time::Duration;
/// x
pub struct Report;
impl Report {
    pub(crate) fn new(_: &Module, _: Option<Vec<Duration>>) -> Report {
        Report
    }
}
impl std::fmt::Display for Report {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
