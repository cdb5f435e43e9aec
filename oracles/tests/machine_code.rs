//! Machine code against the reference evaluator: random programs, and every primitive of eager evaluation.

#![allow(clippy::panic)]

use lazuli_ir::reference::Summary;
use lazuli_oracles::{Options, PrimitiveCase, Setup, check, check_primitive, random_program};

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
    check(&p, &Setup::random(seed, &p)).map_err(|e| format!("{e}\n{}", p.graph))
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
fn primitives_give_what_the_reference_gives() {
    all(0..400, |seed| check_primitive(&PrimitiveCase::random(seed)));
}
