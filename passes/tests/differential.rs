//! Random programs: what compilation made of them, run by the kernels' evaluator, agrees with the reference evaluator.

#![allow(clippy::unwrap_used, clippy::panic)]

use lazuli_ir::kernel_eval::ThreadOrder;
use lazuli_ir::reference::{compare, evaluate_bounds};
use lazuli_ir::{Layout, MatmulRoutine, Target};
use lazuli_oracles::{Options as Draw, RandomProgram, Values, interpret, random_program};
use lazuli_passes::{Options, Pass, compile, optimize};

/// Compiles and runs a program, and compares every output. Gives the share of elements that could not be decided.
fn check(p: &RandomProgram, target: &Target, options: &Options, order: ThreadOrder) -> Result<f64, String> {
    let inputs = &p.inputs;
    let bounds = evaluate_bounds(&p.graph, inputs, 7).map_err(|e| format!("reference: {e}"))?;
    let (graph, _) = optimize(&p.graph, options).map_err(|e| format!("optimize: {e}"))?;
    let layouts: Vec<Layout> = inputs.iter().map(|d| Layout::contiguous(d.ty().shape.clone())).collect();
    let plan = compile(&graph, &layouts, target, options).map_err(|e| format!("compile: {e}"))?;
    let kernels = || plan.program.kernels.iter().map(|k| k.to_string()).collect::<String>();
    let actual = interpret(&plan.program, inputs, &layouts, order).map_err(|e| format!("run: {e}\n{}", kernels()))?;
    let summary = compare(&actual, &bounds).map_err(|m| format!("{m}\n{graph}\n{}", kernels()))?;
    Ok(summary.undetermined_share())
}

fn run(seeds: std::ops::Range<u64>, target: &Target, options: &Options, order: ThreadOrder) {
    let mut undetermined = 0.0;
    let count = seeds.clone().count() as f64;
    for seed in seeds {
        let values = if seed % 2 == 0 { Values::SmallIntegers } else { Values::Special };
        let p = random_program(seed, &Draw::small(values));
        match check(&p, target, options, order) {
            Ok(share) => undetermined += share,
            Err(e) => panic!("seed {seed}: {e}\n{}", p.graph),
        }
    }
    assert!(undetermined / count <= 0.05, "{undetermined} of {count} undetermined");
}

#[test]
fn compiled_programs_mean_what_the_reference_means() {
    let seeds = std::env::var("LAZULI_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(400);
    run(0..seeds, &Target::cpu(2), &Options::default(), ThreadOrder::Forward);
}

#[test]
fn each_pass_may_be_left_out() {
    for (i, pass) in Pass::ALL.iter().enumerate() {
        let start = 10_000 + 1000 * i as u64;
        run(start..start + 60, &Target::cpu(2), &Options::default().without(*pass), ThreadOrder::Reversed);
    }
}

/// A machine with tiny caches: contractions in many panels, reductions in many chunks, no room for row tiles. It multiplies
/// matrices of halves.
#[test]
fn small_machines_cut_more() {
    let target = Target { l1_bytes: 256, l2_bytes: 2048, reduce_chunk: 32, bf16_products: true, ..Target::cpu(4) };
    run(20_000..20_300, &target, &Options::default(), ThreadOrder::Reversed);
}

/// The schedule for a GPU, run by the same evaluator: no loop over threads depends on their order.
#[test]
fn kernels_for_a_gpu_mean_the_same() {
    let target = Target::nvidia(90);
    run(30_000..30_200, &target, &Options::default(), ThreadOrder::Forward);
    run(30_200..30_400, &target, &Options::default(), ThreadOrder::Reversed);
}

/// Contractions as products of a routine, wherever it can take them.
#[test]
fn products_of_a_routine_mean_the_same() {
    let target = Target { matmul: Some(MatmulRoutine::unbeatable()), ..Target::nvidia(90) };
    run(31_000..31_300, &target, &Options::default(), ThreadOrder::Forward);
    run(31_300..31_400, &target, &Options::default().without(Pass::Memory), ThreadOrder::Forward);
    run(31_400..31_500, &target, &Options::default().without(Pass::Fusion), ThreadOrder::Forward);
}
