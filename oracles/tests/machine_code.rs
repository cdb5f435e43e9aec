//! Machine code against the reference evaluator: random programs, and every primitive of eager evaluation.

#![allow(clippy::panic)]

use lazuli_ir::reference::Summary;
use lazuli_oracles::{
    Check, Counters, Operator, Options, PrimitiveCase, Setup, check_operation, check_primitive, gradients,
    random_program,
};

/// Runs what each seed gives, in memory that is full of NaN wherever nothing was written. Fails with the first wrong result, or where too much was left undetermined.
fn all(seeds: std::ops::Range<u64>, one: impl Fn(u64) -> Result<Summary, String>) {
    lazuli_runtime::allocator::set_poison(true);
    let (mut elements, mut undetermined) = (0, 0);
    for seed in seeds {
        match one(seed) {
            Ok(summary) => {
                elements += summary.elements;
                undetermined += summary.undetermined;
            }
            Err(e) => panic!("seed {seed}: {e}"),
        }
    }
    assert!(undetermined * 20 <= elements, "{undetermined} of {elements} undetermined");
}

fn program(seed: u64) -> Result<Summary, String> {
    let p = random_program(seed, &Options::of_seed(seed));
    Check::MachineCode.run(&p, &Setup::random(seed, &p)).map_err(|e| format!("{e}\n{}", p.graph))
}

#[test]
fn programs_give_what_the_reference_gives() {
    all(0..200, program);
}

#[test]
fn more_programs_give_what_the_reference_gives() {
    all(1000..1200, program);
}

#[test]
fn gradients_give_what_the_reference_gives() {
    all(2000..2160, |seed| {
        let p = random_program(seed, &Options::of_seed(seed));
        let made = gradients(&p, seed).map_err(|e| format!("{e}\n{}", p.graph))?;
        let Some(p) = made else { return Ok(Summary::default()) };
        Check::MachineCode.run(&p, &Setup::random(seed, &p)).map_err(|e| format!("{e}\n{}", p.graph))
    });
}

#[test]
fn kernels_and_texts_mean_the_same() {
    all(3000..3100, |seed| {
        let p = random_program(seed, &Options::of_seed(seed));
        Check::Evaluator.run(&p, &Setup::random(seed, &p)).map_err(|e| format!("{e}\n{}", p.graph))
    });
}

#[test]
fn primitives_give_what_the_reference_gives() {
    all(0..400, |seed| check_primitive(&PrimitiveCase::random(seed)));
}

#[test]
fn single_operations_give_what_the_reference_gives() {
    all(0..300, check_operation);
}

/// Consecutive seeds reach every operator with every dtype, and after some rounds in every class of layouts.
#[test]
fn seeds_reach_everything() {
    let mut counters = Counters::default();
    for seed in 0..40 * Operator::cells().len() as u64 {
        // Few operations: the first of each program is the one that its seed names.
        let draw = Options { operations: 2, ..Options::of_seed(seed) };
        let p = random_program(seed, &draw);
        counters.program(&p.graph, &Setup::random(seed, &p).layouts);
    }
    let (cells, layouts) = counters.missing();
    assert!(cells.is_empty() && layouts.is_empty(), "{cells:?}, {layouts:?}");
}
