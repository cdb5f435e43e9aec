//! Random programs as machine code: what the CPU back end computes agrees with the reference, and no run with another
//! number of threads gives other bits.

#![allow(clippy::unwrap_used, clippy::panic)]

use lazuli_ir::reference::{Dense, compare, evaluate_bounds};
use lazuli_ir::{DType, Layout, Target};
use lazuli_oracles::{Options as Draw, RandomProgram, random_program};
use lazuli_passes::{Options, compile, optimize};
use lazuli_runtime::cpu::set_num_threads;
use lazuli_runtime::{Argument, Array, Executable};

fn array(dense: &Dense) -> Array {
    let shape = &dense.ty().shape;
    match dense.ty().dtype {
        DType::Bool => Array::from_vec(dense.to_vec::<bool>().unwrap(), shape).unwrap(),
        DType::I64 => Array::from_vec(dense.to_vec::<i64>().unwrap(), shape).unwrap(),
        DType::F32 => Array::from_vec(dense.to_vec::<f32>().unwrap(), shape).unwrap(),
    }
}

fn dense(array: &Array) -> Dense {
    let shape = array.shape().clone();
    match array.dtype() {
        DType::Bool => Dense::from_vec(array.to_vec::<bool>().unwrap(), shape).unwrap(),
        DType::I64 => Dense::from_vec(array.to_vec::<i64>().unwrap(), shape).unwrap(),
        DType::F32 => Dense::from_vec(array.to_vec::<f32>().unwrap(), shape).unwrap(),
    }
}

fn bits(dense: &Dense) -> Vec<u64> {
    dense.literals().map(|l| l.bits()).collect()
}

/// Compiles and runs a program on one and on two threads. Gives the share of elements that could not be decided.
fn check(p: &RandomProgram, target: &Target) -> Result<f64, String> {
    let options = Options::default();
    let inputs = p.dense_inputs().map_err(|e| e.to_string())?;
    let bounds = evaluate_bounds(&p.graph, &inputs, 7).map_err(|e| format!("reference: {e}"))?;
    let (graph, _) = optimize(&p.graph, &options).map_err(|e| format!("optimize: {e}"))?;
    let layouts: Vec<Layout> = inputs.iter().map(|d| Layout::contiguous(d.ty().shape.clone())).collect();
    let plan = compile(&graph, &layouts, target, &options).map_err(|e| format!("compile: {e}"))?;
    let kernels = plan.program.kernels.iter().map(|k| k.to_string()).collect::<String>();
    let program = Executable::new(plan.program, target).map_err(|e| format!("emit: {e}\n{kernels}"))?;
    let run = |threads: usize, donated: bool| -> Result<Vec<Dense>, String> {
        set_num_threads(threads);
        let arguments = inputs.iter().map(|d| Argument { array: array(d), donated }).collect();
        let outputs = program.run(arguments).map_err(|e| format!("run: {e}\n{kernels}"))?;
        Ok(outputs.iter().map(dense).collect())
    };
    let actual = run(1, false)?;
    let summary = compare(&actual, &bounds).map_err(|m| format!("{m}\n{graph}\n{kernels}"))?;
    for (threads, donated) in [(2, false), (1, true)] {
        let other = run(threads, donated)?;
        if !actual.iter().map(bits).eq(other.iter().map(bits)) {
            return Err(format!("other bits with {threads} threads, donated {donated}\n{graph}\n{kernels}"));
        }
    }
    Ok(summary.undetermined_share())
}

fn run(seeds: std::ops::Range<u64>, target: &Target) {
    // Fresh memory shows what is read before it is written.
    lazuli_runtime::allocator::set_poison(true);
    let mut undetermined = 0.0;
    let count = seeds.clone().count() as f64;
    let mut failures = Vec::new();
    for seed in seeds {
        let draw = Draw { exact: seed % 2 == 0, ..Draw::default() };
        let p = random_program(seed, &draw).unwrap();
        match check(&p, target) {
            Ok(share) => undetermined += share,
            Err(e) => failures.push(format!("seed {seed}: {e}\n{}", p.graph)),
        }
    }
    assert!(failures.is_empty(), "{} failures, the first:\n{}", failures.len(), failures[0]);
    assert!(undetermined / count <= 0.05, "{undetermined} of {count} undetermined");
}

#[test]
fn machine_code_means_what_the_reference_means() {
    let seeds = std::env::var("LAZULI_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(150);
    run(0..seeds, &Target::cpu(2));
    // A machine with tiny caches: contractions in many panels, reductions in many chunks, no room for row tiles.
    let small = Target { l1_bytes: 256, l2_bytes: 2048, reduce_chunk: 32, ..Target::cpu(4) };
    run(20_000..20_000 + seeds, &small);
}
