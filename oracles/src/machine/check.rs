//! Random programs as machine code: compiled for a random machine with a random pass left out, from inputs in random
//! layouts, run by one thread and by several, with inputs given away and with inputs that are errors; and their kernels by the
//! scalar evaluator, through text; all against the reference evaluator.

use super::faults::unchecked;
use super::placement::{array, bits, dense, repeated};
use super::setup::Setup;
use crate::data::of_literals;
use crate::interpret::interpret;
use crate::program::RandomProgram;
use lazuli_ir::kernel_eval::ThreadOrder;
use lazuli_ir::reference::{Dense, Summary, compare, evaluate, evaluate_bounds};
use lazuli_ir::{Graph, Kernel, Layout, Literal};
use lazuli_passes::{compile, optimize};
use lazuli_runtime::cpu::set_num_threads;
use lazuli_runtime::{Argument, Array, Executable};
use std::fmt::Write;

/// Faulty calls that are made of a program, at most.
const FAULTS: usize = 2;

/// What is done with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Machine code, on several numbers of threads, with inputs given away and faulty ones.
    MachineCode,
    /// The kernels' scalar evaluator, with threads in two orders; graph and kernels through text.
    Evaluator,
}

impl Check {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Check::MachineCode => "machine-code",
            Check::Evaluator => "evaluator",
        }
    }

    /// Compiles and runs a program, and compares every output. A panic is a failure as any other.
    ///
    /// # Errors
    /// What differs, with the graph and the kernels.
    pub fn run(self, program: &RandomProgram, setup: &Setup) -> Result<Summary, String> {
        let run = std::panic::AssertUnwindSafe(|| self.unguarded(program, setup));
        std::panic::catch_unwind(run).unwrap_or_else(|payload| {
            let words = payload.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| payload.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", words.unwrap_or("of an unknown kind")))
        })
    }

    fn unguarded(self, program: &RandomProgram, setup: &Setup) -> Result<Summary, String> {
        let inputs: Vec<Dense> = program.inputs.iter().zip(&setup.layouts).map(|(x, l)| repeated(x, l)).collect();
        let bounds = evaluate_bounds(&program.graph, &inputs, 7).map_err(|e| format!("reference: {e}"))?;
        let (graph, _) = optimize(&program.graph, &setup.options).map_err(|e| format!("optimize: {e}"))?;
        let plan = compile(&graph, &setup.layouts, &setup.target, &setup.options);
        let program_made = plan.map_err(|e| format!("compile: {e}\n{graph}"))?.program;
        let text = || {
            let mut text = format!("{graph}\n");
            program_made.kernels.iter().for_each(|k| _ = writeln!(text, "{k}"));
            _ = writeln!(text, "{:?}\n{:?}", program_made.buffers, program_made.outputs);
            program_made.steps.iter().for_each(|s| _ = writeln!(text, "{s:?}"));
            text
        };
        let said = |e: String| format!("{e}\n{}", text());
        if self == Check::Evaluator {
            faithful_text(&program.graph, &graph, &program_made.kernels).map_err(said)?;
            let mut summary = Summary::default();
            for order in [ThreadOrder::Forward, ThreadOrder::Reversed] {
                let actual = interpret(&program_made, &inputs, &setup.layouts, order);
                let actual = actual.map_err(|e| said(format!("interpret: {e}")))?;
                summary = compare(&actual, &bounds).map_err(|m| said(format!("{order:?}: {m}")))?;
            }
            return Ok(summary);
        }
        let executable = Executable::new(program_made.clone(), &setup.target).map_err(|e| said(e.to_string()))?;
        let runs = Runs { executable, setup };
        let first = runs.run(&inputs, 1, 0).map_err(|e| said(format!("run: {e}")))?;
        let actual: Vec<Dense> = first.iter().map(dense).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let summary = compare(&actual, &bounds).map_err(|m| said(m.to_string()))?;
        for (threads, donated) in [(2, 0), (1, u64::MAX), (3, 0x5555)] {
            let how = format!("with {threads} threads and donated inputs {donated:x}");
            let again = runs.run(&inputs, threads, donated).map_err(|e| said(format!("run {how}: {e}")))?;
            same(&first, &again).map_err(|e| said(format!("{e} {how}")))?;
        }
        faulty_calls(program, &inputs, &runs, &first).map_err(said)?;
        Ok(summary)
    }
}

/// Whether what was printed is read again as the same.
fn faithful_text(graph: &Graph, optimised: &Graph, kernels: &[Kernel]) -> Result<(), String> {
    for g in [graph, optimised] {
        match Graph::parse(&g.to_string()) {
            Ok(read) if read == *g => {}
            Ok(read) => return Err(format!("the graph is read as another:\n{g}\n{read}")),
            Err(e) => return Err(format!("the graph's text: {e}\n{g}")),
        }
    }
    for k in kernels {
        match Kernel::parse(&k.to_string()) {
            Ok(read) if read == *k => {}
            Ok(read) => return Err(format!("a kernel is read as another:\n{k}\n{read}")),
            Err(e) => return Err(format!("a kernel's text: {e}\n{k}")),
        }
    }
    Ok(())
}

fn same(first: &[Array], again: &[Array]) -> Result<(), String> {
    for (i, (a, b)) in first.iter().zip(again).enumerate() {
        if bits(a).ok() != bits(b).ok() {
            return Err(format!("output {i} differs:\n{a:?}\n{b:?}\n"));
        }
    }
    Ok(())
}

/// Calls with an index out of range or a divisor of 0 are errors of the reference's kind, and the next call is right. What no
/// output depends on need not be checked: where there is no error, the outputs are those for any good value in its place.
fn faulty_calls(program: &RandomProgram, inputs: &[Dense], runs: &Runs<'_>, first: &[Array]) -> Result<(), String> {
    let start = program.graph.len() % program.faults.len().max(1);
    for (number, fault) in program.faults.iter().skip(start).take(FAULTS).enumerate() {
        let x = &inputs[fault.input];
        if x.is_empty() {
            continue;
        }
        let mut elements: Vec<Literal> = x.literals().collect();
        let at = number * (x.len() - 1);
        elements[at] = fault.value;
        let mut faulty = inputs.to_vec();
        faulty[fault.input] = repeated(&of_literals(x.ty(), elements), &runs.setup.layouts[fault.input]);
        // What no output needs may be left out.
        let Err(expected) = evaluate(&program.graph, &faulty) else { continue };
        let what = format!("input {} with {} at element {at}", fault.input, fault.value);
        match runs.run(&faulty, 1 + number, 0) {
            Err(Failure::Run(e)) if e.kind() == expected.kind() && e.operation().is_some() => {}
            Err(e) => return Err(format!("{what}: the error is {e}, expected {expected}")),
            Ok(outputs) => {
                let actual: Vec<Dense> =
                    outputs.iter().map(dense).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
                for last in [false, true] {
                    let bounds = unchecked(&program.graph, last).and_then(|g| evaluate_bounds(&g, &faulty, 7));
                    let bounds = bounds.map_err(|e| format!("{what}, unchecked: {e}"))?;
                    compare(&actual, &bounds).map_err(|m| format!("{what}: no error, but {m}, expected {expected}"))?;
                }
            }
        }
        let again = runs.run(inputs, 2, 0).map_err(|e| format!("after a failed call: {e}"))?;
        same(first, &again).map_err(|e| format!("after a failed call: {e}"))?;
    }
    Ok(())
}

/// Why a run gave nothing to compare.
enum Failure {
    Run(lazuli_ir::Error),
    Harm(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Run(e) => write!(f, "{e}"),
            Failure::Harm(e) => f.write_str(e),
        }
    }
}

struct Runs<'a> {
    executable: Executable,
    setup: &'a Setup,
}

impl Runs<'_> {
    /// Runs with so many threads, and with those inputs given away whose bits are set. The others must not change.
    fn run(&self, inputs: &[Dense], threads: usize, donated: u64) -> Result<Vec<Array>, Failure> {
        let place = |(x, l): (&Dense, &Layout)| array(x, l).map_err(|e| Failure::Harm(format!("placement: {e}")));
        let arrays: Vec<Array> = inputs.iter().zip(&self.setup.layouts).map(place).collect::<Result<_, _>>()?;
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
        let outputs = self.executable.run(arguments);
        for (i, array, before) in kept {
            if whole(&array)? != before {
                return Err(Failure::Harm(format!("input {i} was written")));
            }
        }
        outputs.map_err(Failure::Run)
    }
}

/// The bits of all that an array's buffer holds.
fn whole(array: &Array) -> Result<Vec<u64>, Failure> {
    let n = array.buffer().bytes() / array.dtype().size();
    let all = array.with_layout(Layout::contiguous([n].into())).and_then(|a| bits(&a));
    all.map_err(|e| Failure::Harm(format!("an input's storage: {e}")))
}
