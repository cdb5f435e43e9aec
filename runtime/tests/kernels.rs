//! Generated code against the evaluator of kernels: every feature, awkward extents and strides, several chunkings.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::kernel::Extent;
use lazuli_ir::kernel_eval::{KernelBuffer, KernelData, ThreadOrder, evaluate};
use lazuli_ir::philox::{philox, uniform};
use lazuli_ir::{DType, Kernel, Layout, Literal, Shape, UnaryOp};
use lazuli_runtime::Array;
use lazuli_runtime::cpu::{CompileOptions, LaunchArg, compile_with, host_target, launch};

/// Numbers without a pattern, in [-2, 2), with special values among them where asked for.
fn noise(n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| 4.0 * uniform(philox(7, 1, i)) - 2.0).collect()
}

fn specials(n: usize) -> Vec<f32> {
    let special =
        [0.0, -0.0, 1e-45, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, 16_777_217.0, -1e30];
    noise(n).into_iter().enumerate().map(|(i, v)| if i % 3 == 0 { special[i / 3 % special.len()] } else { v }).collect()
}

/// Small integers: sums and products of them are exact in any order.
fn small(n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (philox(3, 1, i) % 9) as f32 - 4.0).collect()
}

fn integers(n: usize) -> Vec<i64> {
    (0..n as u64).map(|i| i64::from(philox(3, 2, i) % 101) - 50).collect()
}

fn truths(n: usize) -> Vec<bool> {
    (0..n as u64).map(|i| philox(3, 3, i) % 3 == 0).collect()
}

fn array(data: &KernelData) -> Array {
    let shape = Shape::new([data.len()]);
    match data {
        KernelData::F32(v) => Array::from_vec(v.clone(), &shape).unwrap(),
        KernelData::I64(v) => Array::from_vec(v.clone(), &shape).unwrap(),
        KernelData::Bool(v) => Array::from_vec(v.clone(), &shape).unwrap(),
    }
}

fn data(array: &Array) -> KernelData {
    let n = array.buffer().bytes() / array.dtype().size();
    let whole = array.with_layout(Layout::contiguous(Shape::new([n]))).unwrap();
    match array.dtype() {
        DType::F32 => KernelData::F32(whole.to_vec().unwrap()),
        DType::I64 => KernelData::I64(whole.to_vec().unwrap()),
        DType::Bool => KernelData::Bool(whole.to_vec().unwrap()),
    }
}

fn iterations(kernel: &Kernel, extents: &[u64]) -> u64 {
    let of = |e: Extent| match e {
        Extent::Const(n) => n,
        Extent::Runtime(e) => extents[e.0 as usize],
    };
    kernel.parallel_space().iter().map(|(_, e, step)| of(*e).div_ceil(*step)).product()
}

/// Runs generated code whole and in chunks: all must give the same bits.
fn generated(kernel: &Kernel, buffers: &[KernelBuffer], extents: &[u64], scalars: &[Literal]) -> Vec<KernelData> {
    let options = CompileOptions { keep_clif: true };
    let code = compile_with(std::slice::from_ref(kernel), host_target(), options);
    let code = code.unwrap_or_else(|e| panic!("{e}\n{kernel}")).remove(0);
    let n = iterations(kernel, extents);
    let mut results = Vec::new();
    for grain in [n.max(1), 1, 3, 7] {
        let arrays: Vec<Array> = buffers.iter().map(|b| array(&b.data)).collect();
        let views: Vec<Array> = arrays
            .iter()
            .zip(buffers)
            .map(|(a, b)| {
                a.with_layout(Layout { shape: Shape::scalar(), strides: Default::default(), offset: b.offset as i64 })
                    .unwrap_or_else(|_| a.clone())
            })
            .collect();
        let args: Vec<LaunchArg<'_>> =
            views.iter().zip(buffers).map(|(array, b)| LaunchArg { array, strides: &b.strides }).collect();
        launch(&code, &args, extents, scalars, n, grain).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        results.push(arrays.iter().map(data).collect::<Vec<_>>());
    }
    for (i, r) in results.iter().enumerate() {
        assert_eq!(r, &results[0], "chunking {i} of\n{kernel}\n{}", code.clif());
    }
    results.remove(0)
}

fn run(text: &str, buffers: &[KernelBuffer], extents: &[u64], scalars: &[Literal], tolerance: f32) -> Vec<KernelData> {
    let kernel = Kernel::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut expected = buffers.to_vec();
    evaluate(&kernel, &mut expected, extents, scalars, ThreadOrder::Forward)
        .unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    let found = generated(&kernel, buffers, extents, scalars);
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        if tolerance == 0.0 {
            assert_same(found, &expected.data, number, &kernel);
            continue;
        }
        let (KernelData::F32(a), KernelData::F32(b)) = (found, &expected.data) else {
            assert_eq!(found, &expected.data, "buffer {number} of\n{kernel}");
            continue;
        };
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            let close = (a - b).abs() <= tolerance * b.abs().max(1.0);
            assert!(
                close || a == b || (a.is_nan() && b.is_nan()),
                "element {i} of buffer {number}: {a}, expected {b}\n{kernel}"
            );
        }
    }
    found
}

/// Equal bits, but for those of NaNs, whose sign and payload no operation promises.
fn assert_same(found: &KernelData, expected: &KernelData, number: usize, kernel: &Kernel) {
    if let (KernelData::F32(a), KernelData::F32(b)) = (found, expected) {
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(same, "element {i} of buffer {number}: {a}, expected {b}\n{kernel}");
        }
        return;
    }
    assert_eq!(found, expected, "buffer {number} of\n{kernel}");
}

const EXTENTS: [u64; 9] = [0, 1, 3, 4, 5, 15, 16, 37, 130];
const AXES: [&str; 6] =
    ["", "parallel", "parallel vector(4)", "vector(4) unroll(4)", "parallel vector(4) unroll(2)", "unroll(3)"];

#[test]
fn elementwise_floats_with_special_values() {
    for (n, axis) in EXTENTS.iter().flat_map(|n| AXES.map(|a| (*n as usize, a))) {
        let text = format!(
            "kernel e(%x: f32[n], %y: f32[n], %out: mut f32[n], %b: mut bool[n], %k: mut i64[n]) extents(n) scalars(%s: f32) {{
               loop %i in n {axis} {{
                 %v = load %x[%i]
                 %w = load %y[%i]
                 %m = max (mul %v, %w), (sub %v, %s)
                 %q = min (div %m, %w), (neg %v)
                 %c = lt %v, %w
                 %z = select %c, (abs %q), (sqrt %q)
                 store %out[%i], add %z, %s
                 store %b[%i], or (ge %v, %s), (ne %w, %w)
                 store %k[%i], convert i64 %v
               }}
             }}"
        );
        let mut y = specials(n);
        y.reverse();
        let buffers: [KernelBuffer; 5] =
            [specials(n).into(), y.into(), vec![0.5f32; n].into(), vec![false; n].into(), vec![7i64; n].into()];
        run(&text, &buffers, &[n as u64], &[Literal::F32(0.75)], 0.0);
    }
}
