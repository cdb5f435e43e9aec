//! The stages of one compilation as values that print.

use crate::Report;
use crate::compile::Module;
use std::fmt::Display;
use std::sync::Arc;

/// Every stage of a compiled program.
#[derive(Clone)]
pub struct Stages {
    module: Arc<Module>,
}

impl Stages {
    pub(crate) fn new(module: Arc<Module>) -> Stages {
        Stages { module }
    }

    /// The program as it was recorded.
    pub fn graph(&self) -> impl Display + '_ {
        &self.module.recorded().capture.graph
    }

    /// The program after simplification.
    pub fn optimized(&self) -> impl Display + '_ {
        &self.module.improved.graph
    }

    /// The kernels.
    pub fn kernels(&self) -> impl Display + '_ {
        String::new()
    }

    pub(crate) fn kernels_to_dot(&self) -> String {
        String::new()
    }

    /// What the program costs.
    pub fn report(&self) -> Report {
        Report::new(&self.module, None)
    }
}

pub(crate) fn dump(_: &Module) {}
