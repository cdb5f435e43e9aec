//! Programs compiled for a GPU, with inputs and what they must give: random ones, single primitives, and any graph.

use super::Program as Compiled;
use super::run::{KernelSet, run};
use crate::machine::{PrimitiveCase, Setup, gradients, single_operation};
use crate::program::{Options as Draw, RandomProgram, random_program};
use lazuli_ir::program::Program;
use lazuli_ir::reference::{Dense, Summary, compare, evaluate, evaluate_bounds};
use lazuli_ir::{Device, Graph, Kernel, Layout, Literal, MatmulRoutine, Target};
use lazuli_passes::{Options, Pass, compile, optimize};
use lazuli_runtime::{Argument, Executable, device};

/// The GPU that programs are compiled for.
fn gpu() -> Target {
    Target::nvidia(90)
}

/// A program for a GPU.
#[derive(Clone, Debug)]
pub struct GpuCase {
    /// What it is called in reports.
    pub name: String,
    /// What it means, with inputs.
    meaning: RandomProgram,
    layouts: Vec<Layout>,
    program: Program,
    /// Whether outputs may take over the storage of inputs.
    donates: bool,
}

impl GpuCase {
    /// A random program, as a seed says: every second one for a GPU that cuts reductions into small chunks.
    ///
    /// # Errors
    /// What a pass refuses.
    pub fn random(seed: u64) -> Result<GpuCase, String> {
        GpuCase::of_random(format!("random program {seed}"), seed, random_program(seed, &Draw::of_seed(seed)))
    }

    /// A random program, compiled without one pass.
    ///
    /// # Errors
    /// What another pass refuses.
    pub fn without(pass: Pass, seed: u64) -> Result<GpuCase, String> {
        let meaning = random_program(seed, &Draw::of_seed(seed));
        let layouts = Setup::plain(&meaning).layouts;
        let name = format!("random program {seed} without {}", pass.name());
        GpuCase::compiled(name, meaning, layouts, &gpu(), &Options::default().without(pass), false)
    }

    /// The gradients of a random program; none where it has none.
    ///
    /// # Errors
    /// What a pass refuses.
    pub fn gradients(seed: u64) -> Result<Option<GpuCase>, String> {
        let program = random_program(seed, &Draw::of_seed(seed));
        let made = gradients(&program, seed).map_err(|e| e.to_string())?;
        made.map(|p| GpuCase::of_random(format!("gradients {seed}"), seed, p)).transpose()
    }

    /// A random program whose contractions are products of a routine, wherever it can take them.
    ///
    /// # Errors
    /// What a pass refuses.
    pub fn with_routine(seed: u64) -> Result<GpuCase, String> {
        let meaning = random_program(seed, &Draw::of_seed(seed));
        let layouts = Setup::random(seed, &meaning).layouts;
        let target = Target { matmul: Some(MatmulRoutine::unbeatable()), ..gpu() };
        let name = format!("random program {seed} with a routine");
        GpuCase::compiled(name, meaning, layouts, &target, &Options::default(), seed % 4 < 2)
    }

    fn of_random(name: String, seed: u64, meaning: RandomProgram) -> Result<GpuCase, String> {
        let setup = Setup::random(seed, &meaning);
        let chunk = if seed.is_multiple_of(2) { setup.target.reduce_chunk } else { gpu().reduce_chunk };
        let target = Target { reduce_chunk: chunk, ..gpu() };
        // Without a schedule a kernel is not for a GPU.
        let options = if setup.options.runs(Pass::Schedule) { setup.options } else { Options::default() };
        GpuCase::compiled(name, meaning, setup.layouts, &target, &options, seed % 4 < 2)
    }

    /// A kernel of eager evaluation.
    ///
    /// # Errors
    /// What a pass refuses.
    pub fn primitive(seed: u64) -> Result<GpuCase, String> {
        let name = format!("primitive {seed}");
        let case = PrimitiveCase::random(seed);
        let (meaning, layouts, program) = case.program(&gpu()).map_err(|e| format!("{name}: {e}"))?;
        Ok(GpuCase { name, meaning, layouts, program, donates: false })
    }

    /// A single operation of a random program, on operands that lie somehow; none where the program has none.
    ///
    /// # Errors
    /// What a pass refuses.
    pub fn operation(seed: u64) -> Result<Option<GpuCase>, String> {
        let name = format!("operation {seed}");
        let Some((meaning, setup)) = single_operation(seed).map_err(|e| format!("{name}: {e}"))? else {
            return Ok(None);
        };
        GpuCase::compiled(name, meaning, setup.layouts, &gpu(), &setup.options, false).map(Some)
    }

    /// A graph with all passes, on inputs in row-major order.
    ///
    /// # Errors
    /// What a pass refuses.
    pub fn of_graph(name: impl Into<String>, graph: Graph, inputs: Vec<Dense>) -> Result<GpuCase, String> {
        let meaning = RandomProgram { graph, inputs, faults: Vec::new() };
        let layouts = Setup::plain(&meaning).layouts;
        GpuCase::compiled(name.into(), meaning, layouts, &gpu(), &Options::default(), true)
    }

    fn compiled(
        name: String,
        meaning: RandomProgram,
        layouts: Vec<Layout>,
        target: &Target,
        options: &Options,
        donates: bool,
    ) -> Result<GpuCase, String> {
        let said = |e: lazuli_ir::Error| format!("{name}: {e}\n{}", meaning.graph);
        let (graph, _) = optimize(&meaning.graph, options).map_err(said)?;
        let program = compile(&graph, &layouts, target, options).map_err(said)?.program;
        let inputs = meaning.inputs.iter().zip(&layouts);
        let inputs = inputs.map(|(x, l)| crate::machine::repeated(x, l)).collect();
        Ok(GpuCase { name, meaning: RandomProgram { inputs, ..meaning }, layouts, program, donates })
    }

    /// Compiles what it means for a device, runs that, keeping its inputs and giving them away, and compares what it gives with the
    /// reference evaluator, within its bounds.
    ///
    /// # Errors
    /// What a pass or the device refuses; what differs.
    pub fn check_on(&self, device: Device) -> Result<Summary, String> {
        let said = |e: String| format!("{} on {device}: {e}\n{}", self.name, self.meaning.graph);
        self.checked_on(device).map_err(said)
    }

    fn checked_on(&self, device: Device) -> Result<Summary, String> {
        let RandomProgram { graph, inputs, .. } = &self.meaning;
        let words = |e: lazuli_ir::Error| e.to_string();
        let bounds = evaluate_bounds(graph, inputs, 7).map_err(words)?;
        // A copy keeps the elements that a view reaches, and lies as these do.
        let there = |(x, layout)| crate::machine::array(x, layout)?.to_device(device);
        let given =
            || inputs.iter().zip(&self.layouts).map(there).collect::<lazuli_ir::Result<Vec<_>>>().map_err(words);
        let layouts: Vec<Layout> =
            given()?.iter().map(|array| Layout { offset: 0, ..array.layout().clone() }).collect();
        let options = Options::default();
        let (optimized, _) = optimize(graph, &options).map_err(words)?;
        let compiled = |target: &Target| compile(&optimized, &layouts, target, &options);
        let plan = device::plan(device, compiled, |plan| &plan.program).map_err(words)?;
        let executable = Executable::on(plan.program, device, &self.name).map_err(words)?;
        let mut summary = Summary::default();
        for donated in [false, true] {
            let arguments = given()?.into_iter().map(|array| Argument { array, donated }).collect();
            let outputs = executable.run(arguments).map_err(words)?;
            let outputs = outputs.iter().map(|o| crate::machine::dense(&o.to_device(Device::Cpu)?));
            let outputs: Vec<Dense> = outputs.collect::<lazuli_ir::Result<_>>().map_err(words)?;
            summary = compare(&outputs, &bounds).map_err(|m| m.to_string())?;
        }
        Ok(summary)
    }

    /// Its kernels.
    pub fn kernels(&self) -> &[Kernel] {
        &self.program.kernels
    }

    /// Runs it in all schedules and compares what it gives with the reference evaluator, within its bounds. Then runs it with an
    /// input that is an error, where it knows one.
    ///
    /// # Errors
    /// What differs, or a fault of a kernel.
    pub fn check(&self, set: &KernelSet, code: &Compiled) -> Result<Summary, String> {
        let (graph, inputs) = (&self.meaning.graph, &self.meaning.inputs);
        let said = |e: String| format!("{}: {e}", self.name);
        let bounds = evaluate_bounds(graph, inputs, 7).map_err(|e| said(format!("reference: {e}")))?;
        let run = |inputs: &[Dense]| run(&self.program, set, code, inputs, &self.layouts, self.donates);
        let outputs = run(inputs).map_err(|e| said(e.to_string()))?;
        let summary = compare(&outputs, &bounds).map_err(|m| {
            let kernels: Vec<String> = self.kernels().iter().map(|k| format!("{k}\n{}", set.text(k))).collect();
            said(format!("{m}\n{graph}\n{}", kernels.join("\n")))
        })?;
        let Some(fault) = self.meaning.faults.first().filter(|f| !inputs[f.input].is_empty()) else {
            return Ok(summary);
        };
        let mut faulty = inputs.clone();
        let x = &inputs[fault.input];
        let mut elements: Vec<Literal> = x.literals().collect();
        elements[0] = fault.value;
        faulty[fault.input] =
            crate::machine::repeated(&crate::data::of_literals(x.ty(), elements), &self.layouts[fault.input]);
        // What no output needs may be left out.
        if let Err(expected) = evaluate(graph, &faulty) {
            match run(&faulty) {
                Ok(_) => {}
                Err(super::run::Failure::Check(e)) if e.kind() == expected.kind() => {}
                Err(e) => return Err(said(format!("the error is {e}, expected {expected}"))),
            }
        }
        Ok(summary)
    }
}
