//! Runs kernels as machine code and in the evaluator, and compares.

#![allow(dead_code)]

pub mod functions;

use lazuli_ir::kernel::{Extent, Stride};
use lazuli_ir::kernel_eval::{KernelBuffer, KernelData, ThreadOrder, evaluate};
use lazuli_ir::philox::{philox, uniform};
use lazuli_ir::{DType, Element, Kernel, Layout, Literal, Shape, with_element};
use lazuli_runtime::Array;
use lazuli_runtime::cpu::{CompileOptions, KernelCode, LaunchArg, Vectors, compile_with, host_target, launch};

/// Numbers without a pattern, in [-2, 2).
pub fn noise(n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| 4.0 * uniform(philox(7, 1, i)) - 2.0).collect()
}

/// Noise with special values among it.
pub fn specials(n: usize) -> Vec<f32> {
    let special =
        [0.0, -0.0, 1e-45, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, 16_777_217.0, -1e30];
    noise(n).into_iter().enumerate().map(|(i, v)| if i % 3 == 0 { special[i / 3 % special.len()] } else { v }).collect()
}

/// Small integers: sums and products of them are exact in any order.
pub fn small(n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (philox(3, 1, i) % 9) as f32 - 4.0).collect()
}

pub fn integers(n: usize) -> Vec<i64> {
    (0..n as u64).map(|i| i64::from(philox(3, 2, i) % 101) - 50).collect()
}

pub fn truths(n: usize) -> Vec<bool> {
    (0..n as u64).map(|i| philox(3, 3, i).is_multiple_of(3)).collect()
}

pub fn array(data: &KernelData) -> Array {
    let shape = Shape::new([data.len()]);
    with_element!(data.dtype(), T => Array::from_vec(data.to_vec::<T>(), &shape).unwrap())
}

pub fn data(array: &Array) -> KernelData {
    let n = array.buffer().bytes() / array.dtype().size();
    let whole = array.with_layout(Layout::contiguous(Shape::new([n]))).unwrap();
    with_element!(array.dtype(), T => whole.to_vec::<T>().unwrap().into())
}

/// Elements of a dtype from literals of any.
pub fn cast(dtype: DType, values: impl IntoIterator<Item = Literal>) -> KernelData {
    with_element!(dtype, T => values.into_iter().map(T::from_literal).collect::<Vec<T>>().into())
}

pub fn iterations(kernel: &Kernel, extents: &[u64]) -> u64 {
    kernel.parallel_space().iter().map(|(_, e, step)| extent(*e, extents).div_ceil(*step)).product()
}

fn extent(e: Extent, extents: &[u64]) -> u64 {
    match e {
        Extent::Const(n) => n,
        Extent::Runtime(e) => extents[e.0 as usize],
    }
}

pub fn code(kernel: &Kernel, options: CompileOptions) -> KernelCode {
    let options = CompileOptions { keep_clif: true, ..options };
    let code = compile_with(std::slice::from_ref(kernel), host_target(), options);
    code.unwrap_or_else(|e| panic!("{e}\n{kernel}")).remove(0)
}

/// Runs generated code on all vectors of this machine, and for any machine: whole and in chunks, which must give the same bits.
/// Gives the results of each.
pub fn generated(
    kernel: &Kernel,
    buffers: &[KernelBuffer],
    extents: &[u64],
    scalars: &[Literal],
) -> Vec<(String, Vec<KernelData>)> {
    let n = iterations(kernel, extents);
    let any = CompileOptions { baseline: true, ..CompileOptions::default() };
    let own =
        Vectors::available().into_iter().map(|v| CompileOptions { vectors: Some(v), ..CompileOptions::default() });
    let mut results = Vec::new();
    for options in own.chain([any]) {
        let (code, name) = (code(kernel, options), format!("{options:?}"));
        let mut whole: Option<Vec<KernelData>> = None;
        for grain in [n.max(1), 1, 3, 7] {
            let arrays: Vec<Array> = buffers.iter().map(|b| array(&b.data)).collect();
            let views: Vec<Array> = arrays
                .iter()
                .zip(buffers)
                .map(|(a, b)| {
                    let (shape, offset) = (Shape::scalar(), b.offset as i64);
                    a.with_layout(Layout { shape, strides: Default::default(), offset }).unwrap_or_else(|_| a.clone())
                })
                .collect();
            let args: Vec<LaunchArg<'_>> =
                views.iter().zip(buffers).map(|(array, b)| LaunchArg { array, strides: &b.strides }).collect();
            launch(&code, &args, extents, scalars, &[], n, grain).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
            let found = arrays.iter().map(data).collect::<Vec<_>>();
            let Some(first) = &whole else {
                whole = Some(found);
                continue;
            };
            for (number, (found, expected)) in found.iter().zip(first).enumerate() {
                assert_same(found, expected, number, kernel, &format!("{name}, chunks of {grain}\n{}", code.clif()));
            }
        }
        results.extend(whole.map(|r| (name, r)));
    }
    results
}

/// The buffers with run-time strides; where none are given, those of rows one after the other.
fn row_major(kernel: &Kernel, buffers: &[KernelBuffer], extents: &[u64]) -> Vec<KernelBuffer> {
    let mut buffers = buffers.to_vec();
    for (p, b) in kernel.params.iter().zip(&mut buffers).filter(|(_, b)| b.strides.is_empty()) {
        let mut step = 1;
        for (stride, dim) in p.strides.iter().zip(&p.dims).rev() {
            if *stride == Stride::Runtime {
                b.strides.insert(0, step);
            }
            step *= extent(*dim, extents) as i64;
        }
    }
    buffers
}

/// Runs a kernel both ways. With a tolerance above 0, floats may differ by that much of their magnitude (at least of 1).
pub fn run(
    text: &str,
    buffers: &[KernelBuffer],
    extents: &[u64],
    scalars: &[Literal],
    tolerance: f64,
) -> Vec<KernelData> {
    let kernel = Kernel::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let buffers = &row_major(&kernel, buffers, extents);
    let mut expected = buffers.to_vec();
    evaluate(&kernel, &mut expected, extents, scalars, ThreadOrder::Forward)
        .unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    let mut found = generated(&kernel, buffers, extents, scalars);
    for (name, found) in &found {
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            if tolerance == 0.0 || !found.dtype().is_float() {
                assert_same(found, &expected.data, number, &kernel, name);
                continue;
            }
            for (i, (a, b)) in found.literals().zip(expected.data.literals()).enumerate() {
                let (a, b) = (a.as_f64(), b.as_f64());
                let close = (a - b).abs() <= tolerance * b.abs().max(1.0);
                assert!(
                    close || a == b || (a.is_nan() && b.is_nan()),
                    "element {i} of buffer {number}: {a}, expected {b}\n{kernel}\n{name}"
                );
            }
        }
    }
    found.remove(0).1
}

/// Equal bits, but for those of NaNs, whose sign and payload no operation promises.
pub fn assert_same(found: &KernelData, expected: &KernelData, number: usize, kernel: &Kernel, what: &str) {
    assert_eq!((found.dtype(), found.len()), (expected.dtype(), expected.len()));
    for (i, (a, b)) in found.literals().zip(expected.literals()).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan());
        assert!(same, "element {i} of buffer {number}: {a}, expected {b}\n{kernel}\n{what}");
    }
}
