//! Random programs over all primitives, and their gradients: the graph passes must not change what the reference computes,
//! bit for bit.

use crate::{Options, Pass, optimize, vjp};
use lazuli_ir::reference::{Dense, evaluate};
use lazuli_ir::{Graph, Literal, Op, Sources, Value};
use lazuli_oracles::{Options as Draw, RandomProgram, Values, random_program};

fn program(seed: u64) -> (Graph, Vec<Dense>) {
    let values = if seed.is_multiple_of(4) { Values::SmallIntegers } else { Values::Special };
    // Small tensors suffice for graph passes: operations matter, not elements.
    let draw = Draw { elements: 256, ..Draw::small(values) };
    let RandomProgram { graph, inputs, .. } = random_program(seed, &draw);
    (graph, inputs)
}

/// A random program with the gradients of its outputs among them.
fn gradient_program(seed: u64) -> (Graph, Vec<Dense>) {
    let (mut graph, inputs) = program(seed);
    let wrt: Vec<Value> = graph.inputs().iter().map(|(_, n)| (*n).into()).collect();
    let mut outputs = graph.outputs().to_vec();
    let mut pairs = Vec::new();
    for &y in &outputs {
        if graph.ty(y).dtype.is_float() {
            let (ty, one) = (graph.ty(y).clone(), Literal::one(graph.ty(y).dtype));
            let seed = Op::Constant { value: one, shape: ty.shape };
            pairs.push((y, graph.add(seed, &[], Sources::none()).unwrap()));
        }
    }
    outputs.extend(vjp(&mut graph, &pairs, &wrt).unwrap().into_iter().flatten());
    graph.set_outputs(outputs);
    graph.verify().unwrap();
    (graph, inputs)
}

/// The values' bits, every NaN alike.
fn bits(x: &Dense) -> Vec<u64> {
    x.literals().map(|l| if l.is_nan() { u64::MAX } else { l.bits() }).collect()
}

#[test]
fn graph_passes_keep_every_bit() {
    let mut every = Options::default();
    every.verify = true;
    for seed in 0..3000 {
        let (graph, inputs) = gradient_program(seed);
        let expected = evaluate(&graph, &inputs).unwrap();
        for options in [every.clone(), every.clone().without(Pass::Cse), every.clone().without(Pass::Simplify)] {
            let (made, _) = optimize(&graph, &options).unwrap();
            let came = evaluate(&made, &inputs).unwrap();
            for (i, (a, b)) in expected.iter().zip(&came).enumerate() {
                let same = a.ty() == b.ty() && bits(a) == bits(b);
                assert!(same, "seed {seed}, output {i}, {options:?}:\n{graph}\n{made}\n{a:?}\n{b:?}");
            }
        }
    }
}

#[test]
fn simplify_reaches_a_fixed_point() {
    for seed in 0..1000 {
        let (graph, _) = gradient_program(seed);
        let once = optimize(&graph, &Options::default()).unwrap().0;
        let (twice, report) = optimize(&once, &Options::default()).unwrap();
        assert_eq!(once, twice, "seed {seed}:\n{graph}");
        assert_eq!(report.passes.iter().map(|p| p.rewrites).sum::<usize>(), 0, "seed {seed}:\n{once}");
    }
}
