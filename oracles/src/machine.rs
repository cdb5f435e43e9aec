//! Random programs as machine code: compiled for a random machine with a random pass left out, from inputs in random
//! layouts, run by one thread and by several, with inputs given away; all against the reference evaluator.

use crate::placement::{array, bits, dense, random_layout, repeated};
use crate::program::RandomProgram;
use crate::rng::Rng;
use lazuli_ir::reference::{Dense, Summary, compare, evaluate_bounds};
use lazuli_ir::{Layout, Target};
use lazuli_passes::{Options, Pass, compile, optimize};
use lazuli_runtime::cpu::{host_target, set_num_threads};
use lazuli_runtime::{Argument, Array, Executable};
use std::fmt::Write;

/// How a program is compiled and called.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The machine it is planned for.
    pub target: Target,
    /// The passes that run.
    pub options: Options,
    /// Where each input lies.
    pub layouts: Vec<Layout>,
}

impl Setup {
    /// All passes, this machine, inputs in row-major order.
    pub fn plain(program: &RandomProgram) -> Setup {
        let layouts = program.inputs.iter().map(|x| Layout::contiguous(x.ty().shape.clone())).collect();
        Setup { target: host_target().clone(), options: Options::default(), layouts }
    }

    /// The setup of a seed.
    pub fn random(seed: u64, program: &RandomProgram) -> Setup {
        let mut random = Rng::new(seed ^ 0x5e70);
        let mut setup = Setup::plain(program);
        match random.below(4) {
            0 => {}
            1 => setup.target = target_of_many_chunks(256, 2048, 32),
            2 => setup.target = target_of_many_chunks(2048, 16 << 10, 128),
            _ => setup.target = target_of_many_chunks(32 << 10, 1 << 20, 1000),
        }
        if random.one_in(2) {
            let off = random.pick(Pass::ALL).unwrap_or(Pass::Cse);
            // Nothing runs without kernels.
            if off != Pass::Lower {
                setup.options = setup.options.without(off);
            }
        }
        if random.one_in(2) {
            setup.layouts = program.inputs.iter().map(|x| random_layout(&mut random, &x.ty().shape)).collect();
        }
        setup
    }
}

/// A machine of small caches that finds any work worth other threads.
pub(crate) fn target_of_many_chunks(l1_bytes: u64, l2_bytes: u64, reduce_chunk: u64) -> Target {
    Target { l1_bytes, l2_bytes, reduce_chunk, cores: 4, bytes_per_us: 1, flops_per_us: 1, ..host_target().clone() }
}

/// Compiles and runs a program, and compares every output.
///
/// # Errors
/// What differs, with the graph and the kernels.
pub fn check(program: &RandomProgram, setup: &Setup) -> Result<Summary, String> {
    let inputs: Vec<Dense> = program.inputs.iter().zip(&setup.layouts).map(|(x, l)| repeated(x, l)).collect();
    let bounds = evaluate_bounds(&program.graph, &inputs, 7).map_err(|e| format!("reference: {e}"))?;
    let (graph, _) = optimize(&program.graph, &setup.options).map_err(|e| format!("optimize: {e}"))?;
    let plan = compile(&graph, &setup.layouts, &setup.target, &setup.options);
    let plan = plan.map_err(|e| format!("compile: {e}\n{graph}"))?;
    let text = || {
        let mut text = format!("{graph}\n");
        plan.program.kernels.iter().for_each(|k| _ = writeln!(text, "{k}"));
        _ = writeln!(text, "{:?}\n{:?}", plan.program.buffers, plan.program.outputs);
        plan.program.steps.iter().for_each(|s| _ = writeln!(text, "{s:?}"));
        text
    };
    let executable = Executable::new(plan.program.clone(), &setup.target).map_err(|e| format!("{e}\n{}", text()))?;
    let runs = Runs { executable, inputs, setup };
    let first = runs.run(1, 0).map_err(|e| format!("{e}\n{}", text()))?;
    let actual: Vec<Dense> = first.iter().map(dense).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let summary = compare(&actual, &bounds).map_err(|m| format!("{m}\n{}", text()))?;
    for (threads, donated) in [(2, 0), (1, u64::MAX), (3, 0x5555)] {
        let again = runs.run(threads, donated).map_err(|e| format!("{e}\n{}", text()))?;
        for (i, (a, b)) in first.iter().zip(&again).enumerate() {
            if bits(a).ok() != bits(b).ok() {
                let how = format!("output {i} differs with {threads} threads and donated inputs {donated:x}");
                return Err(format!("{how}\n{a:?}\n{b:?}\n{}", text()));
            }
        }
    }
    Ok(summary)
}

struct Runs<'a> {
    executable: Executable,
    inputs: Vec<Dense>,
    setup: &'a Setup,
}

impl Runs<'_> {
    /// Runs with so many threads, and with those inputs given away whose bits are set. The others must not change.
    fn run(&self, threads: usize, donated: u64) -> Result<Vec<Array>, String> {
        let place = |(x, l): (&Dense, &Layout)| array(x, l).map_err(|e| format!("placement: {e}"));
        let arrays: Vec<Array> = self.inputs.iter().zip(&self.setup.layouts).map(place).collect::<Result<_, _>>()?;
        let mut kept = Vec::new();
        let mut arguments = Vec::new();
        for (i, array) in arrays.into_iter().enumerate() {
            let donated = donated >> i & 1 == 1;
            if !donated {
                kept.push((i, array.clone(), whole(&array)?));
            }
            arguments.push(Argument { array, donated });
        }
        set_num_threads(threads);
        let outputs = self.executable.run(arguments).map_err(|e| format!("run: {e}"))?;
        for (i, array, before) in kept {
            if whole(&array)? != before {
                return Err(format!("input {i} was written"));
            }
        }
        Ok(outputs)
    }
}

/// The bits of all that an array's buffer holds.
fn whole(array: &Array) -> Result<Vec<u64>, String> {
    let n = array.buffer().bytes() / array.dtype().size();
    let all = array.with_layout(Layout::contiguous([n].into())).and_then(|a| bits(&a));
    all.map_err(|e| format!("an input's storage: {e}"))
}
