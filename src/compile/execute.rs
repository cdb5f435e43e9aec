//! The program itself: what runs when a compiled function is called.

use super::call::{Input, Ownership};
use crate::Result;
use lazuli_ir::program::{Place, Program};
use lazuli_ir::{Graph, Layout};
use lazuli_passes::Options;
use lazuli_passes::ledger::Ledger;
use lazuli_runtime::{Argument, Array, CallReport, Executable, cpu};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A program for inputs of given layouts, and what is known of how it was made.
pub(crate) struct Code {
    executable: Executable,
    ledger: Ledger,
    /// How long each step took that made the program from the optimised graph.
    passes: Vec<(String, Duration)>,
    /// For each input, the result that may take its storage over.
    takers: Vec<Option<usize>>,
    /// What became of each argument in the latest call.
    ownership: Mutex<Vec<Ownership>>,
}

impl Code {
    /// Compiles an optimised graph.
    pub(crate) fn new(graph: &Graph, layouts: &[Layout], options: &Options) -> Result<Code> {
        let target = cpu::host_target();
        let plan = lazuli_passes::compile(graph, layouts, target, options)?;
        let mut passes: Vec<(String, Duration)> =
            plan.report.passes.iter().map(|p| (p.pass.name().to_owned(), p.time)).collect();
        let takers = takers(&plan.program);
        let start = Instant::now();
        let executable = Executable::new(plan.program, target)?;
        passes.push(("machine code".to_owned(), start.elapsed()));
        Ok(Code { executable, ledger: plan.ledger, passes, takers, ownership: Mutex::default() })
    }

    /// Runs the program.
    pub(crate) fn run(&self, inputs: Vec<Input>) -> Result<Vec<Array>> {
        self.executable.run(arguments(inputs))
    }

    /// Runs the program and measures each kernel: the best of several runs, after one to warm up.
    pub(crate) fn profile(&self, inputs: Vec<Input>) -> Result<Vec<Duration>> {
        const RUNS: usize = 10;
        let arguments = arguments(inputs);
        let mut best: Vec<u64> = vec![u64::MAX; self.program().steps.len()];
        for run in 0..=RUNS {
            let (_, CallReport { step_nanos, .. }) = self.executable.run_reported(arguments.clone())?;
            if run > 0 {
                best.iter_mut().zip(step_nanos).for_each(|(best, now)| *best = now.min(*best));
            }
        }
        Ok(best.into_iter().map(Duration::from_nanos).collect())
    }

    /// The program as data.
    pub(crate) fn program(&self) -> &Program {
        self.executable.program()
    }

    /// The decisions of fusion.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How long each step took that made the program from the optimised graph.
    pub(crate) fn passes(&self) -> &[(String, Duration)] {
        &self.passes
    }

    /// Bytes of workspace that a call leases.
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.executable.workspace_bytes()
    }

    /// What Cranelift was given, made anew.
    pub(crate) fn clif(&self) -> Result<String> {
        let options = cpu::CompileOptions { keep_clif: true };
        let codes = cpu::compile_with(&self.program().kernels, cpu::host_target(), options)?;
        Ok(codes.iter().map(|code| format!("; {}\n{}", code.kernel().name, code.clif())).collect::<Vec<_>>().join("\n"))
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

fn arguments(inputs: Vec<Input>) -> Vec<Argument> {
    inputs.into_iter().map(|i| Argument { array: i.array, donated: i.donated }).collect()
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
