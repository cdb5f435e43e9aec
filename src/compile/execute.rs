//! The program itself: what runs when a compiled function is called.

use super::call::{Input, Ownership};
use crate::{Error, Result};
use lazuli_ir::{Graph, Layout};
use lazuli_runtime::Array;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A program for inputs of given layouts.
pub(crate) struct Code {
    graph: Graph,
    /// What became of each argument in the latest call.
    ownership: Mutex<Vec<Ownership>>,
}

impl Code {
    pub(crate) fn new(graph: &Graph, layouts: &[Layout]) -> Result<Code> {
        if layouts.len() != graph.inputs().len() {
            return Err(Error::internal("a program needs a layout for each of its inputs"));
        }
        Ok(Code { graph: graph.clone(), ownership: Mutex::default() })
    }

    /// Runs the program.
    pub(crate) fn run(&self, inputs: Vec<Input>) -> Result<Vec<Array>> {
        let _ = (&self.graph, inputs.first().map(|i| (&i.array, i.donated)));
        Err(Error::internal("not yet"))
    }

    /// Runs the program and measures each kernel.
    pub(crate) fn profile(&self, inputs: Vec<Input>) -> Result<Vec<Duration>> {
        self.run(inputs).map(|_| Vec::new())
    }

    /// Whether an output may take over the storage of this input.
    pub(crate) fn takes_over(&self, _input: usize) -> bool {
        false
    }

    pub(crate) fn note_ownership(&self, ownership: Vec<Ownership>) {
        *self.ownership.lock().unwrap_or_else(PoisonError::into_inner) = ownership;
    }

    pub(crate) fn ownership(&self) -> Vec<Ownership> {
        self.ownership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
