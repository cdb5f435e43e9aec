//! Searches for programs whose machine code gives wrong results.

#![forbid(unsafe_code)]

use clap::Parser;
use lazuli_ir::reference::Summary;
use lazuli_oracles::{
    Check, Counters, Operator, Options, PrimitiveCase, RandomProgram, Rng, Setup, check_operation, check_primitive,
    gradients, load, random_program, save, shrink,
};
use lazuli_passes::Pass;
use std::path::PathBuf;
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
    /// Run single operations, as eager evaluation does, in place of programs.
    #[arg(long)]
    primitives: bool,
    /// Run each program with each pass left out in turn, in place of one of them.
    #[arg(long)]
    every_pass: bool,
    /// Print how often each operator was tested with each dtype and class of layouts.
    #[arg(long)]
    table: bool,
    /// Save each failing program, made small, into this folder.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Run a program that was saved.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Print each seed before it runs, so that a crash can be told.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic is reported with its program, once that is small.
    std::panic::set_hook(Box::new(|info| {
        eprintln!("panic at {}", info.location().map_or(String::new(), |l| l.to_string()))
    }));
    if let Some(path) = &arguments.replay {
        return replay(path);
    }
    let mut counters = Counters::default();
    let (mut failures, mut elements, mut undetermined, mut worst) = (0, 0usize, 0usize, 0.0f64);
    for (number, seed) in (arguments.seed..arguments.seed + arguments.programs).enumerate() {
        if arguments.verbose {
            eprintln!("seed {seed}");
        }
        let result = match arguments.primitives {
            true if seed % 2 == 0 => check_primitive(&PrimitiveCase::random(seed)),
            true => check_operation(seed),
            false => run(seed, &arguments, &mut counters),
        };
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
            return ExitCode::FAILURE;
        }
    }
    if arguments.table {
        println!("{counters}");
    }
    let covered = arguments.primitives || covered(&counters, arguments.programs);
    if failures == 0 && covered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all was tested that so many programs must reach: after one round of seeds each operator with each dtype, after one
/// round for each class of layouts (and some, since not every shape can lie in every way) each of them.
fn covered(counters: &Counters, programs: u64) -> bool {
    let round = 2 * Operator::cells().len() as u64;
    let (cells, layouts) = counters.missing();
    println!("{} operators and dtypes, {} with a class of layouts not reached", cells.len(), layouts.len());
    let all = (programs < round || cells.is_empty()) && (programs < 15 * round || layouts.is_empty());
    if !all {
        println!("not reached: {}; {}", cells.join(", "), layouts.join(", "));
    }
    all
}

/// Checks the program of a seed, or its gradients, as machine code and now and then by the evaluator.
fn run(seed: u64, arguments: &Arguments, counters: &mut Counters) -> Result<Summary, String> {
    let random = &mut Rng::new(seed ^ 0x0dd5);
    let mut program = random_program(seed, &Options::of_seed(seed));
    if random.one_in(5) {
        match gradients(&program, seed) {
            Ok(Some(made)) => {
                counters.mode("gradients");
                program = made;
            }
            Ok(None) => counters.mode("without gradients"),
            Err(e) => return Err(format!("{e}\n{}", program.graph)),
        }
    }
    let mut setup = Setup::random(seed, &program);
    if !program.faults.is_empty() {
        counters.mode("faulty calls");
    }
    counters.program(&program.graph, &setup.layouts);
    let mut checks = vec![(Check::MachineCode, setup.clone())];
    if random.one_in(8) {
        checks.push((Check::Evaluator, setup.clone()));
    }
    if arguments.every_pass {
        setup.options = lazuli_passes::Options::default();
        let off = Pass::ALL.iter().filter(|p| **p != Pass::Lower);
        checks.extend(off.map(|p| {
            let options = setup.options.clone().without(*p);
            (Check::MachineCode, Setup { options, ..setup.clone() })
        }));
    }
    let mut summary = Summary::default();
    for (check, setup) in checks {
        counters.mode(check.name());
        counters.mode(setup.off());
        summary = check.run(&program, &setup).map_err(|e| report(seed, &program, &setup, check, e, arguments))?;
    }
    Ok(summary)
}

/// A failure made small, saved, in words.
fn report(
    seed: u64,
    program: &RandomProgram,
    setup: &Setup,
    check: Check,
    original: String,
    arguments: &Arguments,
) -> String {
    let fails = |p: &RandomProgram, s: &Setup| {
        check.run(p, s).is_err_and(|e| !e.starts_with("reference") || original.starts_with("reference"))
    };
    let (small, setup) = shrink(program, setup, fails);
    let mut message = check.run(&small, &setup).err().unwrap_or(original);
    if let Some(folder) = &arguments.save {
        let path = folder.join(format!("{seed}.txt"));
        let saved = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, save(&small, &setup, check)));
        message = match saved {
            Ok(()) => format!("{message}\nsaved as {}", path.display()),
            Err(e) => format!("{message}\nnot saved as {}: {e}", path.display()),
        };
    }
    let inputs: Vec<String> = small.inputs.iter().map(ToString::to_string).collect();
    format!("{}\n{:?}\n{:?}\n{message}", small.graph, setup, inputs)
}

fn replay(path: &PathBuf) -> ExitCode {
    let case = std::fs::read_to_string(path).map_err(|e| e.to_string());
    let result = case.and_then(|text| {
        let (program, setup, check) = load(&text).map_err(|e| e.to_string())?;
        check.run(&program, &setup)
    });
    match result {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}
