//! The same program run eagerly and compiled, and what it costs to record and to compile it.
//!
//!     cargo bench --bench eager_vs_compiled

mod workloads;

use criterion::{Criterion, criterion_group, criterion_main};
use lazuli::Tensor;
use std::hint::black_box;
use workloads::{Workload, workload};

/// Small programs, where the cost of an operation shows, and larger ones, where that of memory does.
const NAMES: [&str; 6] = [
    "gelu_residual_64k",
    "softmax_4096x1024",
    "layernorm_4096x1024",
    "sum_rows_4096x4096",
    "mlp_forward_b64",
    "mlp_train_b64",
];

fn eager(w: &Workload) -> lazuli::Result<()> {
    let (output, updated) = w.run(&w.data, w.parameters.clone());
    output.eval()?;
    updated.iter().try_for_each(Tensor::eval)
}

fn both_modes(c: &mut Criterion) {
    for name in NAMES {
        let Some(w) = workload(name) else { continue };
        let program = w.compiled();
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        group.bench_function("eager", |b| b.iter(|| eager(black_box(&w))));
        group.bench_function("compiled", |b| b.iter(|| program.call(black_box((&w.data, &w.parameters)))));
        group.finish();
    }
}

fn compile_time(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for name in ["softmax_4096x1024", "mlp_train_b64", "transformer_block_train"] {
        let Some(w) = workload(name) else { continue };
        group.bench_function(name, |b| b.iter(|| w.trace().and_then(|t| t.optimize()?.compile())));
    }
    group.finish();
}

fn record(c: &mut Criterion) {
    let x = Tensor::ones([4]);
    c.bench_function("record one operation", |b| b.iter(|| black_box(&x) + black_box(&x)));
}

criterion_group!(benches, both_modes, compile_time, record);
criterion_main!(benches);
