//! Searches for programs whose machine code gives wrong results.

#![forbid(unsafe_code)]

use clap::Parser;
use lazuli_oracles::{Options, PrimitiveCase, RandomProgram, Setup, check, check_primitive, random_program, shrink};
use std::process::ExitCode;

/// Runs random programs as machine code and compares their results with the reference evaluator's.
#[derive(Parser)]
struct Arguments {
    /// How many programs to run.
    #[arg(long, default_value_t = 10_000)]
    programs: u64,
    /// The seed of the first program.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many failures to look for before giving up.
    #[arg(long, default_value_t = 3)]
    failures: u64,
    /// Run single primitives of eager evaluation in place of programs.
    #[arg(long)]
    primitives: bool,
    /// Print each seed before it runs, so that a crash can be told.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut failures, mut elements, mut undetermined, mut worst) = (0, 0usize, 0usize, 0.0f64);
    for (number, seed) in (arguments.seed..arguments.seed + arguments.programs).enumerate() {
        if arguments.verbose {
            eprintln!("seed {seed}");
        }
        let result = if arguments.primitives { check_primitive(&PrimitiveCase::random(seed)) } else { run(seed) };
        match result {
            Ok(summary) => {
                elements += summary.elements;
                undetermined += summary.undetermined;
                worst = worst.max(summary.worst);
            }
            Err(e) => {
                failures += 1;
                println!("seed {seed} fails: {e}");
            }
        }
        let done = number as u64 + 1;
        if done.is_multiple_of(1000) || done == arguments.programs || failures >= arguments.failures {
            let share = 100.0 * undetermined as f64 / elements.max(1) as f64;
            println!(
                "{done} run, {failures} failed, {elements} elements compared, {share:.2} % undetermined, \
                 largest difference {worst:.3} of its bound"
            );
        }
        if failures >= arguments.failures {
            break;
        }
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks the program of a seed; a failure is made small before it is reported.
fn run(seed: u64) -> Result<lazuli_ir::reference::Summary, String> {
    let program = random_program(seed, &Options::of_seed(seed));
    let setup = Setup::random(seed, &program);
    check(&program, &setup).map_err(|original| {
        let fails = |p: &RandomProgram, s: &Setup| check(p, s).is_err();
        let (small, setup) = shrink(&program, &setup, fails);
        let message = check(&small, &setup).err().unwrap_or(original);
        format!("{}\n{:?}\n{:?}\n{message}", small.graph, setup, inputs(&small))
    })
}

/// Inputs, where they are short.
fn inputs(program: &RandomProgram) -> Vec<String> {
    program.inputs.iter().map(ToString::to_string).collect()
}
