//! The program itself: what runs when a compiled function is called.

use super::call::Owned;
use crate::Result;
use crate::report::PassRow;
use lazuli_ir::program::{Place, Program};
use lazuli_ir::{Device, Graph, Layout, Limits, NodeId, Target};
use lazuli_passes::Options;
use lazuli_passes::layout::Orders;
use lazuli_passes::ledger::Ledger;
use lazuli_runtime::{Argument, Array, CallReport, Executable, GpuLaunch, cpu, device};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What profiling measured.
pub(crate) struct Profile {
    /// Of each step.
    pub(crate) times: Vec<Duration>,
    /// By how much storage grew at most during a run.
    pub(crate) peak_bytes: usize,
    /// What the machine does at most.
    pub(crate) limits: Limits,
}

/// A program for inputs of given layouts, and what is known of how it was made.
pub(crate) struct Code {
    executable: Executable,
    orders: Orders,
    ledger: Ledger,
    /// What each step did that made the program from the optimised graph.
    passes: Vec<PassRow>,
    /// The nodes of each step of the program.
    groups: Vec<Vec<NodeId>>,
    /// For each input, the result that may take its storage over.
    takers: Vec<Option<usize>>,
    /// What became of each argument in the latest call.
    ownership: Mutex<Owned>,
}

impl Code {
    /// Compiles an optimised graph.
    pub(crate) fn new(graph: &Graph, layouts: &[Layout], options: &Options, device: Device) -> Result<Code> {
        let compiled = |target: &Target| lazuli_passes::compile(graph, layouts, target, options);
        let plan = device::plan(device, compiled, |plan| &plan.program)?;
        let mut passes: Vec<PassRow> = plan.report.passes.iter().map(PassRow::from).collect();
        let takers = takers(&plan.program);
        let start = Instant::now();
        let executable = Executable::on(plan.program, device, graph.name())?;
        let kernels = executable.program().kernels.len();
        let (name, time) = ("machine code".to_owned(), start.elapsed());
        passes.push(PassRow { name, time, rewrites: 0, before: kernels, after: kernels });
        let (orders, ledger, groups) = (plan.orders, plan.ledger, plan.groups);
        Ok(Code { executable, orders, ledger, passes, groups, takers, ownership: Mutex::default() })
    }

    /// Runs the program.
    pub(crate) fn run(&self, inputs: Vec<Argument>) -> Result<Vec<Array>> {
        self.executable.run(inputs)
    }

    /// Runs the program and measures each kernel: the best of several runs, after one to warm up.
    pub(crate) fn profile(&self, arguments: Vec<Argument>) -> Result<Profile> {
        const RUNS: usize = 10;
        let device = self.executable.device();
        let limits = device::limits(device)?;
        let mut best: Vec<u64> = vec![u64::MAX; self.program().steps.len()];
        let mut peak_bytes = usize::MAX;
        for run in 0..=RUNS {
            let arguments = arguments.clone();
            let before = device::memory_stats(device)?.in_use;
            device::reset_peak(device)?;
            let (_, CallReport { step_nanos, .. }) = self.executable.run_reported(arguments)?;
            if run > 0 {
                peak_bytes = peak_bytes.min(device::memory_stats(device)?.peak.saturating_sub(before));
                best.iter_mut().zip(step_nanos).for_each(|(best, now)| *best = now.min(*best));
            }
        }
        Ok(Profile { times: best.into_iter().map(Duration::from_nanos).collect(), peak_bytes, limits })
    }

    /// How each step is launched on a GPU; nothing is known of a device that does not tell.
    pub(crate) fn launches(&self) -> Vec<Option<GpuLaunch>> {
        self.executable.launches().unwrap_or_else(|error| {
            tracing::debug!(target: "lazuli::cuda", %error, "the report has no launches");
            Vec::new()
        })
    }

    /// The program as data.
    pub(crate) fn program(&self) -> &Program {
        self.executable.program()
    }

    /// How values lie in memory.
    pub(crate) fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The decisions of fusion.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What each step did that made the program from the optimised graph.
    pub(crate) fn passes(&self) -> &Vec<PassRow> {
        &self.passes
    }

    /// The nodes of the optimised graph that each step of the program computes.
    pub(crate) fn groups(&self) -> &[Vec<NodeId>] {
        &self.groups
    }

    /// The machine code of the program's kernels.
    pub(crate) fn codes(&self) -> &[cpu::KernelCode] {
        self.executable.codes()
    }

    /// Bytes of tiles that each thread keeps.
    pub(crate) fn tile_bytes(&self) -> usize {
        self.executable.tile_bytes()
    }

    /// Bytes of workspace that a call leases.
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.executable.workspace_bytes()
    }

    /// Where it runs.
    pub(crate) fn device(&self) -> Device {
        self.executable.device()
    }

    /// What Cranelift was given, made anew.
    pub(crate) fn clif(&self) -> Result<String> {
        let options = cpu::CompileOptions { keep_clif: true, ..Default::default() };
        let codes = cpu::compile_with(&self.program().kernels, cpu::host_target(), options)?;
        Ok(codes.iter().map(|code| format!("; {}\n{}", code.kernel().name, code.clif())).collect::<Vec<_>>().join("\n"))
    }

    /// The result that may take over the storage of this input.
    pub(crate) fn taken_over_by(&self, input: usize) -> Option<usize> {
        self.takers.get(input).copied().flatten()
    }

    /// Notes what became of the arguments of a call.
    pub(crate) fn note_ownership(&self, ownership: &Owned) {
        self.ownership.lock().unwrap_or_else(PoisonError::into_inner).clone_from(ownership);
    }

    /// What became of the arguments of the latest call; empty before the first.
    pub(crate) fn ownership(&self) -> Owned {
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
