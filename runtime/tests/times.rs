//! Times of generated kernels on one thread, printed: `cargo test -p lazuli-runtime --test times -- --ignored --nocapture`.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::{Kernel, Literal, Shape};
use lazuli_runtime::Array;
use lazuli_runtime::cpu::{CompileOptions, KernelCode, LaunchArg, compile_with, host_target, launch};
use std::time::Instant;

fn code(text: &str) -> KernelCode {
    let kernel = Kernel::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let options = CompileOptions { keep_clif: true, ..CompileOptions::default() };
    let start = Instant::now();
    let code = compile_with(&[kernel], host_target(), options).unwrap().remove(0);
    let micros = start.elapsed().as_micros();
    println!("{:<24} {micros} us to compile, {} bytes", code.kernel().name, code.code_bytes());
    if let Some(dir) = std::env::var_os("LAZULI_TEST_DUMP") {
        let path = std::path::Path::new(&dir).join(&code.kernel().name);
        std::fs::write(path.with_extension("bin"), code.code()).unwrap();
        std::fs::write(path.with_extension("clif"), code.clif()).unwrap();
    }
    code
}

fn time(code: &KernelCode, sizes: &[usize], extents: &[u64], iterations: u64) {
    let arrays: Vec<Array> = sizes
        .iter()
        .map(|n| Array::from_vec((0..*n).map(|i| (i % 97) as f32 / 97.0).collect(), &Shape::new([*n])).unwrap())
        .collect();
    let strides: Vec<Vec<i64>> = code
        .kernel()
        .params
        .iter()
        .map(|p| {
            let run_time = p.strides.iter().filter(|s| matches!(s, lazuli_ir::kernel::Stride::Runtime)).count();
            vec![*extents.last().unwrap_or(&1) as i64; run_time]
        })
        .collect();
    let args: Vec<LaunchArg<'_>> =
        arrays.iter().zip(&strides).map(|(array, s)| LaunchArg { array, strides: s }).collect();
    let scalars = vec![Literal::F32(0.5); code.kernel().scalars.len()];
    let run = || launch(code, &args, extents, &scalars, &[], iterations, iterations.max(1)).unwrap();
    let elements = sizes.iter().copied().max().unwrap_or(1);
    // Short windows: the best of many is one that no other process interrupted.
    let rounds = (200_000 / elements).clamp(1, 2000);
    let mut best = f64::MAX;
    for _ in 0..60 {
        let start = Instant::now();
        (0..rounds).for_each(|_| run());
        best = best.min(start.elapsed().as_nanos() as f64 / rounds as f64);
    }
    println!(
        "{:<24} {elements:>9} elements {:>9.3} us {:>8.4} ns/element",
        code.kernel().name,
        best / 1e3,
        best / elements as f64
    );
}

#[test]
#[ignore = "a measurement"]
fn kernels() {
    let elementwise = |name: &str, axis: &str, body: &str| {
        let text = format!(
            "kernel {name}(%x: f32[n], %z: f32[n], %y: mut f32[n]) extents(n) scalars(%a: f32) {{ loop %i in n parallel {axis} {{ %v = load %x[%i]\n {body} }} }}"
        );
        let code = code(&text);
        for n in [1usize, 2048, 65_536, 1 << 20] {
            time(&code, &[n, n, n], &[n as u64], n as u64);
        }
    };
    elementwise("axpb", "vector(4) unroll(4)", "store %y[%i], add (mul %v, %a), 1.5");
    elementwise("add", "vector(4) unroll(4)", "store %y[%i], add %v, (load %z[%i])");
    elementwise("add_scalar", "", "store %y[%i], add %v, (load %z[%i])");
    let gelu = "%c = mul (mul %v, %v), 0.044715\n %u = mul (mul %v, (add %c, 1.0)), 0.7978845608
        %s = div 1.0, (add (exp (mul %u, -2.0)), 1.0)\n store %y[%i], mul %v, %s";
    elementwise("gelu_u1", "vector(4)", gelu);
    elementwise("gelu_u2", "vector(4) unroll(2)", gelu);
    elementwise("gelu_u4", "vector(4) unroll(4)", gelu);
    elementwise("exp_u1", "vector(4)", "store %y[%i], exp %v");
    elementwise("exp_u2", "vector(4) unroll(2)", "store %y[%i], exp %v");
    elementwise("exp_u4", "vector(4) unroll(4)", "store %y[%i], exp %v");
    elementwise("tanh_u2", "vector(4) unroll(2)", "store %y[%i], tanh %v");
    let softmax = code(include_str!("../../ir/tests/kernels/softmax.txt"));
    for rows in [8usize, 128, 2048] {
        time(&softmax, &[rows * 512, rows * 512], &[rows as u64], rows as u64);
    }
    for unroll in [1, 2, 4, 8] {
        let text = format!(
            "kernel sum_u{unroll}(%x: f32[n], %y: mut f32[]) extents(n) {{
               %s = reduce sum %i in n vector(4) unroll({unroll}) {{ yield load %x[%i] }}
               store %y[], %s }}"
        );
        let sum = code(&text);
        for n in [2048usize, 65_536, 1 << 20] {
            time(&sum, &[n, 1], &[n as u64], 1);
        }
    }
    for unroll in [1, 2, 4] {
        let text = format!(
            "kernel column_sum_u{unroll}(%x: f32[n,512], %y: mut f32[512]) extents(n) {{
               loop %j in 512 parallel vector(4) unroll({unroll}) {{
                 %s = reduce sum %i in n {{ yield load %x[%i,%j] }}
                 store %y[%j], %s }} }}"
        );
        let columns = code(&text);
        for n in [128usize, 2048] {
            time(&columns, &[n * 512, 512], &[n as u64], 512);
        }
    }
    for axis in ["", "vector(4)", "vector(4) unroll(2)"] {
        let text = format!(
            "kernel transposed_add(%x: f32[512,512], %z: f32[512,512] strides(1,512), %y: mut f32[512,512]) {{
               loop %i in 512 parallel {{ loop %j in 512 parallel {axis} {{
                 store %y[%i,%j], add (load %x[%i,%j]), (load %z[%i,%j]) }} }} }}"
        );
        let transposed = code(&text);
        time(&transposed, &[512 * 512; 3], &[], 512 * 512);
    }
    for (rows, columns) in [(128, 256), (512, 128), (64, 512)] {
        let text = format!(
            "kernel linear_relu_{rows}x{columns}(%a: f32[512,784], %b: f32[784,512], %bias: f32[512], %y: mut f32[512,512]) {{
               loop %q in 512 step {rows} parallel {{ loop %p in 512 step {columns} parallel {{
                 tile %t: f32[{rows},{columns}]
                 fill %t, 0.0
                 dot %t[%row,%col], %a[%q + %row,%k], %b[%k,%p + %col] over %k in 784
                 loop %i in {rows} {{ loop %j in {columns} vector(4) unroll(4) {{
                   %z = add (load %t[%i,%j]), (load %bias[%p + %j])
                   store %y[%q + %i,%p + %j], select (le %z, 0.0), 0.0, %z
                 }} }} }} }} }}"
        );
        let linear = code(&text);
        time(&linear, &[512 * 784, 784 * 512, 512, 512 * 512], &[], (512 / rows * (512 / columns)) as u64);
    }
}

#[test]
#[ignore = "a measurement"]
fn functions() {
    let n = 16_384usize;
    for (name, expr) in [
        ("sin", "sin %v"),
        ("sin_by_call", "convert f32 (sin (convert f64 %v))"),
        ("erf", "erf %v"),
        ("log1p", "log1p %v"),
        ("expm1", "expm1 %v"),
        ("pow", "pow %v, %z"),
        ("pow_by_call", "convert f32 (pow (convert f64 %v), (convert f64 %z))"),
        ("atan_by_call", "atan %v"),
        ("round_f16", "round_f16 %v"),
        ("floor_div", "convert f32 (floor_div (convert i32 %v), (convert i32 %z))"),
        ("u8", "convert f32 (add (convert u8 %v), (convert u8 %z))"),
    ] {
        let text = format!(
            "kernel {name}(%x: f32[n], %w: f32[n], %y: mut f32[n]) extents(n) {{
               loop %i in n parallel vector(4) unroll(2) {{ %v = load %x[%i]  %z = load %w[%i]  store %y[%i], {expr} }}
             }}"
        );
        time(&code(&text), &[n, n, n], &[n as u64], n as u64);
    }
}
