//! How long compiling takes, pass by pass, and how it grows with the program: one JSON line a measurement.
//!
//!     cargo bench -q --bench compile_time -- [--nodes 10000] [--only NAME,..]
//!
//! A line holds `program`, `nodes` (recorded), `total_s`, `budget_s` where there is one, `passes` (seconds of each, in order;
//! `trace` is recording and capture) and, for chains, `growth`: the total for twice the operations over this total, and
//! `pass_growth`, the same for each pass. Lines of `record` and `vjp` give nanoseconds an operation, that of
//! `call` those of a call of a compiled program, fixed and for each kernel.

#[allow(dead_code, reason = "compiling is timed by each program's report")]
mod common;
#[allow(dead_code, reason = "the programs are compiled here, never run")]
mod workloads;

use common::Arguments;
use lazuli::options::LayerNorm;
use lazuli::prelude::*;
use lazuli::{Result, Stages, Traced, value_and_grad};
use lazuli_ir::{Graph, Literal, NodeId, Op, Shape, Sources};
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::Instant;
use workloads::workload;

/// A program of about `n` operations, compiled.
type Program = fn(usize) -> Result<Compilation>;

/// The chains, and the seconds that one of 10,000 operations may take.
const CHAINS: &[(&str, Program, f64)] = &[
    ("unary", |n| chain(n, |x, _, _, i| if i % 2 == 0 { x.tanh() } else { x.neg() }), 2.0),
    ("two_inputs", |n| chain(n, |x, y, _, i| if i % 2 == 0 { x * y } else { x + y }), 2.0),
    ("broadcasts", |n| chain(n, |x, _, v, i| if i % 10 == 9 { x.t() } else { x + v }), 2.0),
    ("softmax_every_20", |n| chain(n, |x, y, _, i| if i % 20 == 19 { x.softmax(-1) } else { x * y }), 2.0),
    ("sum_every_20", |n| chain(n, |x, _, _, i| if i % 20 == 19 { x - x.sum(keep(-1)) } else { x.sigmoid() }), 2.0),
    ("layers", |n| layers(n / 50), 2.0),
];

/// What compiling one program took.
struct Compilation {
    nodes: usize,
    passes: Vec<(String, f64)>,
}

impl Compilation {
    fn of(nodes: usize, stages: &Stages) -> Compilation {
        let passes = stages.report().passes;
        Compilation { nodes, passes: passes.into_iter().map(|p| (p.name, p.time.as_secs_f64())).collect() }
    }

    fn total(&self) -> f64 {
        self.passes.iter().map(|(_, seconds)| seconds).sum()
    }

    fn line(&self, program: &str, budget: f64) -> Value {
        let passes: Value = self.passes.iter().map(|(name, s)| (name.clone(), json!(round(*s)))).collect();
        json!({
            "program": program,
            "nodes": self.nodes,
            "total_s": round(self.total()),
            "budget_s": budget,
            "passes": passes,
        })
    }
}

fn round(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

/// A program that applies `step` `n` times to a matrix, given another matrix, a vector and the number of the step.
fn chain(n: usize, step: impl Fn(&Tensor, &Tensor, &Tensor, usize) -> Tensor) -> Result<Compilation> {
    let program = |(x, y, v): (Tensor, Tensor, Tensor)| (0..n).fold(x, |x, i| step(&x, &y, &v, i));
    let inputs = (Tensor::zeros([64, 64]), Tensor::zeros([64, 64]), Tensor::zeros([64]));
    let traced = lazuli::trace(program, inputs)?;
    let executable = traced.optimize()?.compile()?;
    Ok(Compilation::of(nodes(&traced), &executable.stages()))
}

/// A training step of a network of `n` layers with layer normalisation.
fn layers(n: usize) -> Result<Compilation> {
    let parameters: Vec<(Tensor, Tensor)> = (0..n).map(|_| (Tensor::zeros([64, 64]), Tensor::zeros([64]))).collect();
    let program = |(x, parameters): (Tensor, Vec<(Tensor, Tensor)>)| {
        let loss = |p: &Vec<(Tensor, Tensor)>| {
            let layer =
                |x: Tensor, (w, b): &(Tensor, Tensor)| (x.matmul(w) + b).layer_norm([64], LayerNorm::default()).relu();
            p.iter().fold(x.clone(), layer).mean(..)
        };
        let (loss, gradients) = value_and_grad(loss)(&parameters);
        let step = |((w, b), (dw, db)): (&(Tensor, Tensor), (Tensor, Tensor))| (w - 0.01 * dw, b - 0.01 * db);
        (loss, parameters.iter().zip(gradients).map(step).collect::<Vec<_>>())
    };
    let traced = lazuli::trace(program, (Tensor::zeros([32, 64]), parameters))?;
    let executable = traced.optimize()?.compile()?;
    Ok(Compilation::of(nodes(&traced), &executable.stages()))
}

/// The nodes of a traced program: lines of its text but the first and the last, and its inputs.
fn nodes<I, R>(traced: &Traced<I, R>) -> usize {
    traced.to_string().lines().count().saturating_sub(2)
}

/// The quickest of some compilations.
fn best(runs: usize, compile: impl Fn() -> Result<Compilation>) -> Result<Compilation> {
    let mut best = compile()?;
    for _ in 1..runs {
        let next = compile()?;
        if next.total() < best.total() {
            best = next;
        }
    }
    Ok(best)
}

fn training_steps(wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    for (name, budget) in [("mlp_train_b64", 0.010), ("transformer_block_train", 0.040)] {
        let Some(w) = workload(name).filter(|_| wanted(name)) else { continue };
        let one = || {
            let traced = w.trace()?;
            Ok(Compilation::of(nodes(&traced), &traced.optimize()?.compile()?.stages()))
        };
        println!("{}", best(10, one)?.line(name, budget));
    }
    Ok(())
}

fn chains(n: usize, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    for (name, program, budget) in CHAINS.iter().filter(|c| wanted(c.0)) {
        let (one, two) = (best(3, || program(n))?, best(2, || program(2 * n))?);
        let mut line = one.line(name, budget * n as f64 / 1e4);
        let growths = one.passes.iter().zip(&two.passes).map(|((pass, a), (_, b))| (pass.clone(), json!(round(b / a))));
        line["growth"] = json!(round(two.total() / one.total()));
        line["nodes_growth"] = json!(round(two.nodes as f64 / one.nodes as f64));
        line["pass_growth"] = growths.collect();
        println!("{line}");
    }
    Ok(())
}

/// Nanoseconds to record one operation, in and outside of a trace.
fn record(wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    const N: usize = 100_000;
    if !wanted("record") {
        return Ok(());
    }
    let x = Tensor::ones([4]);
    let best = |run: &dyn Fn()| {
        let times = (0..7).map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e9 / N as f64
        });
        times.fold(f64::INFINITY, f64::min)
    };
    let eager = best(&|| (0..N).for_each(|_| drop(black_box(black_box(&x) + black_box(&x)))));
    let recorded = |x: Tensor| {
        let nanoseconds = best(&|| (0..N).for_each(|_| drop(black_box(black_box(&x) + black_box(&x)))));
        println!("{}", json!({ "program": "record", "eager_ns": eager, "traced_ns": nanoseconds, "budget_ns": 150 }));
        x
    };
    lazuli::trace(recorded, &x)?;
    Ok(())
}

/// Nanoseconds a node for the vector-Jacobian product of a graph, and for all that `value_and_grad` does in a trace.
fn vjp(n: usize, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    if !wanted("vjp") {
        return Ok(());
    }
    let mut graph = Graph::new("chain");
    let ty = lazuli_ir::TensorType::new([64], DType::F32);
    let (x, y) = (graph.add_input("x", ty.clone(), Sources::none()), graph.add_input("y", ty, Sources::none()));
    let one = graph.add(Op::Constant { value: Literal::F32(1.0), shape: Shape::new([64]) }, &[], Sources::none())?;
    let mut z = x;
    for i in 0..n {
        let (op, operands) = match i % 3 {
            0 => (Op::Binary(lazuli_ir::BinaryOp::Mul), vec![z, y]),
            1 => (Op::Unary(lazuli_ir::UnaryOp::Tanh), vec![z]),
            _ => (Op::Binary(lazuli_ir::BinaryOp::Add), vec![z, y]),
        };
        z = graph.add(op, &operands, Sources::none())?;
    }
    let mut graph_ns = f64::INFINITY;
    for _ in 0..5 {
        let mut own = graph.clone();
        let start = Instant::now();
        black_box(lazuli_passes::vjp(&mut own, &[(z, one)], &[x, y])?);
        let made = own.len() - NodeId(0).index() - graph.len();
        graph_ns = graph_ns.min(start.elapsed().as_secs_f64() * 1e9 / made as f64);
    }
    let step = |x: Tensor| {
        let f = |x: &Tensor| (0..n).fold(x.clone(), |z, i| if i % 3 == 1 { z.tanh() } else { z * x }).sum(..);
        value_and_grad(f)(&x)
    };
    let (mut total_ns, mut count) = (f64::INFINITY, 0);
    for _ in 0..5 {
        let start = Instant::now();
        let traced = lazuli::trace(step, Tensor::zeros([64]))?;
        let time = start.elapsed().as_secs_f64() * 1e9;
        count = nodes(&traced);
        total_ns = total_ns.min(time / count as f64);
    }
    let line = json!({
        "program": "vjp",
        "graph_ns_a_node_made": graph_ns,
        "trace_of_value_and_grad_ns_a_node": total_ns,
        "nodes": count,
        "budget_ns": 1000,
    });
    println!("{line}");
    Ok(())
}

/// Nanoseconds to call compiled programs of tiny kernels on one thread: what a call costs, and what each kernel adds.
fn call(wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    const KERNELS: [usize; 2] = [1, 41];
    if !wanted("call") {
        return Ok(());
    }
    let x = Tensor::ones([2, 2]);
    let mut times = [0.0; 2];
    for (n, time) in KERNELS.into_iter().zip(&mut times) {
        // Accumulations do not share a kernel.
        let program = lazuli::compile(move |x: Tensor| (0..n as isize).fold(x, |x, i| x.cumsum(i % 2)));
        *time = common::Times::measure(0.2, || program.call(&x))?.median() * 1e9;
        assert_eq!(program.stages()?.report().kernels.len(), n, "each operation is a kernel");
    }
    let kernel = (times[1] - times[0]) / (KERNELS[1] - KERNELS[0]) as f64;
    let fixed = times[0] - kernel;
    let line = json!({
        "program": "call", "fixed_ns": fixed, "kernel_ns": kernel, "budget_fixed_ns": 1000, "budget_kernel_ns": 100,
    });
    println!("{line}");
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::read(&["nodes", "only"])?;
    let (n, only) = (arguments.number("nodes", 10_000)?, arguments.list("only", &[]));
    let wanted = |name: &str| only.is_empty() || only.iter().any(|n| n == name);
    training_steps(&wanted)?;
    record(&wanted)?;
    vjp(n, &wanted)?;
    call(&wanted)?;
    Ok(chains(n, &wanted)?)
}
