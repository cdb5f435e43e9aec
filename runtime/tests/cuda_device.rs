//! The CUDA back end on a GPU. Without one these tests say that they were skipped; with `LAZULI_REQUIRE_GPU=1` they fail.

#![allow(clippy::panic, clippy::unwrap_used)]
#![cfg(feature = "cuda")]

#[path = "support/programs.rs"]
#[allow(dead_code)]
mod programs;

use lazuli_ir::matmul::{Activation, MatrixStrides};
use lazuli_ir::{DType, Device, Element, ErrorKind, Layout, Literal, Matmul, Shape, TensorType, with_element};
use lazuli_runtime::cuda::{self, Gpu};
use lazuli_runtime::{Array, Executable, cpu};
use programs::{N, checked, given, kept, long_sort, matmul_of, numbers, product, sort, total, twice_plus};
use std::sync::{Mutex, MutexGuard};

/// What failed on a device is told to whoever reads a value next: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn device(test: &str) -> Option<(Device, &'static Gpu, MutexGuard<'static, ()>)> {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = cuda::device_count().and_then(|_| cuda::gpu(0)).and_then(|gpu| cuda::nvrtc::version().map(|_| gpu));
    match found {
        Ok(gpu) => Some((Device::Cuda(0), gpu, turn)),
        Err(error) if std::env::var_os("LAZULI_REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("{error}"),
        Err(error) => {
            println!("{test} was skipped: {}", error.message());
            None
        }
    }
}

#[test]
fn cuda_device_copies_keep_elements_and_strides() {
    let Some((device, gpu, _turn)) = device("cuda_device_copies_keep_elements_and_strides") else { return };
    let base = numbers(9_000_000);
    let views = [
        base.layout().clone(),
        Layout { shape: [3000, 3000].into(), strides: smallvec::smallvec![1, 3000], offset: 0 },
        Layout { shape: [10, 3].into(), strides: smallvec::smallvec![-7, -2], offset: 90 },
        Layout { shape: [4, 100_000].into(), strides: smallvec::smallvec![0, 0], offset: 5 },
        Layout { shape: [0, 3].into(), strides: smallvec::smallvec![3, 1], offset: 100 },
    ];
    for layout in views {
        let x = base.with_layout(layout).unwrap();
        assert_eq!(x.to_device(device).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
    }
    assert!(gpu.properties().sm >= 70 && gpu.memory().unwrap().1 > 1 << 30, "{:?}", gpu.properties());
}

#[test]
fn cuda_device_programs_replay_with_right_values() {
    let Some((device, _, _turn)) = device("cuda_device_programs_replay_with_right_values") else { return };
    let program = Executable::on(twice_plus(), device, "twice_plus").unwrap();
    let expected: Vec<f32> = (0..N).map(|i| 2.0 * i as f32 + 1.0).collect();
    let x = numbers(N).to_device(device).unwrap();
    let mut held = Vec::new();
    for i in 0..50 {
        let y = program.run(kept(&x)).unwrap().remove(0);
        if i % 3 == 0 {
            held.push(y);
        } else {
            assert_eq!(y.to_vec::<f32>().unwrap(), expected, "call {i}");
        }
    }
    for y in &held {
        assert_eq!(y.to_vec::<f32>().unwrap(), expected);
    }
    let mut x = numbers(N).to_device(device).unwrap();
    for _ in 0..10 {
        x = program.run(given(x)).unwrap().remove(0);
    }
    let expected: Vec<f32> = (0..N).map(|i| 1024.0 * i as f32 + 1023.0).collect();
    assert_eq!(x.to_vec::<f32>().unwrap(), expected);
    let (_, report) = program.run_reported(kept(&x)).unwrap();
    assert!(report.step_nanos.len() == 2 && report.step_nanos.iter().all(|t| *t < 1_000_000_000), "{report:?}");
}

#[test]
fn cuda_device_blocks_combine_what_they_found() {
    let Some((device, _, _turn)) = device("cuda_device_blocks_combine_what_they_found") else { return };
    let program = Executable::on(total(), device, "total").unwrap();
    let x = Array::from_vec((0..N).map(|i| (i % 7) as f32).collect(), &Shape::new([N])).unwrap();
    let expected: f32 = x.to_vec::<f32>().unwrap().iter().sum();
    let x = x.to_device(device).unwrap();
    // The ticket is back at 0 after each launch.
    for _ in 0..20 {
        assert_eq!(program.run(kept(&x)).unwrap().remove(0).item::<f32>().unwrap(), expected);
    }
}

#[test]
fn cuda_device_failed_checks_are_told_once() {
    let Some((device, gpu, _turn)) = device("cuda_device_failed_checks_are_told_once") else { return };
    let program = Executable::on(checked(), device, "checked").unwrap();
    let bad = Array::from_vec(vec![-1.0f32; N], &Shape::new([N])).unwrap().to_device(device).unwrap();
    let good = numbers(N).to_device(device).unwrap();
    program.run(kept(&good)).unwrap();
    gpu.synchronise().unwrap();
    program.run(kept(&bad)).unwrap();
    program.run(kept(&good)).unwrap();
    let error = good.to_vec::<f32>().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Index, Some("index_select")));
    assert_eq!(good.to_vec::<f32>().unwrap()[1], 1.0);
}

#[test]
fn cuda_device_sorts_and_memory_that_is_not_there() {
    let Some((device, gpu, _turn)) = device("cuda_device_sorts_and_memory_that_is_not_there") else { return };
    let program = Executable::on(sort(), device, "sort").unwrap();
    let x = Array::from_vec(vec![3.0f32, 1.0, 2.0, 9.0, 7.0, 8.0], &Shape::new([6])).unwrap();
    let indices = program.run(kept(&x.to_device(device).unwrap())).unwrap().remove(0);
    assert_eq!(indices.to_vec::<i64>().unwrap(), [1, 0, 2, 1, 0, 2]);
    let everything = gpu.memory().unwrap().1 as usize;
    let error = Array::uninit_on(&TensorType::new([2 * everything], DType::U8), device).unwrap_err();
    assert!(error.kind() == ErrorKind::Memory && error.message().contains("could not be allocated"), "{error}");
    assert_eq!(x.to_device(device).unwrap().to_vec::<f32>().unwrap()[0], 3.0);
}

#[test]
fn cuda_device_calls_from_threads_do_not_mix() {
    let Some((device, _, _turn)) = device("cuda_device_calls_from_threads_do_not_mix") else { return };
    let program = Executable::on(twice_plus(), device, "twice_plus").unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..100 {
                    let x = numbers(N).to_device(device).unwrap();
                    let y = program.run(given(x)).unwrap().remove(0);
                    assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
                }
            });
        }
    });
}

/// Products of every kind that passes ask for: types, transposes, batches, biases, sizes that align to nothing.
fn products() -> Vec<Matmul> {
    let rows = |batch, row| MatrixStrides { outer: 0, batch, row, column: 1 };
    let plain = Matmul {
        outer: 1,
        batch: 1,
        rows: 128,
        columns: 64,
        terms: 256,
        operands: DType::F32,
        result: DType::F32,
        acc: DType::F32,
        left: rows(0, 256),
        right: rows(0, 64),
        out: rows(0, 64),
        bias: false,
        activation: Activation::Identity,
        tf32: false,
    };
    let transposed = Matmul { left: rows(0, 128).transposed(), right: rows(0, 256).transposed(), ..plain.clone() };
    let batch =
        Matmul { batch: 3, left: rows(128 * 256, 256), right: rows(0, 64), out: rows(128 * 64, 64), ..plain.clone() };
    let outer = Matmul {
        outer: 2,
        left: MatrixStrides { outer: 3 * 128 * 256, ..batch.left },
        out: MatrixStrides { outer: 3 * 128 * 64, ..batch.out },
        ..batch.clone()
    };
    let odd = Matmul {
        rows: 33,
        columns: 7,
        terms: 129,
        left: rows(0, 131),
        right: rows(0, 9),
        out: rows(0, 7),
        ..plain.clone()
    };
    let of = |m: &Matmul, operands, result| Matmul { operands, result, ..m.clone() };
    let mut all = Vec::new();
    for m in [&plain, &transposed, &batch, &outer, &odd] {
        for (operands, result) in
            [(DType::F32, DType::F32), (DType::BF16, DType::F32), (DType::BF16, DType::BF16), (DType::F16, DType::F16)]
        {
            all.push(of(m, operands, result));
            all.push(Matmul { bias: true, ..of(m, operands, result) });
        }
        all.push(Matmul { bias: true, activation: Activation::Gelu, ..of(m, DType::BF16, DType::BF16) });
        all.push(Matmul { tf32: true, bias: true, activation: Activation::Gelu, ..m.clone() });
        all.push(Matmul { acc: DType::F64, ..of(m, DType::F64, DType::F64) });
    }
    all
}

#[test]
fn cuda_device_products_are_what_they_mean() {
    let Some((device, gpu, _turn)) = device("cuda_device_products_are_what_they_mean") else { return };
    if gpu.target().matmul.is_none() {
        let error = cuda::cublaslt::version().err();
        assert!(std::env::var_os("LAZULI_REQUIRE_GPU").is_none_or(|v| v != "1"), "{error:?}");
        println!("products were skipped: {error:?}");
        return;
    }
    for m in products() {
        let spans = m.reaches().map(|(low, high)| (high - low) as usize);
        let number = |i: i64, seed: i64, dtype| {
            Literal::F64(((i * 7919 + seed * 104_729) % 2003) as f64 / 2003.0 - 0.5).cast(dtype)
        };
        let array = |elements: usize, seed: i64, dtype: DType| {
            with_element!(dtype, T => {
                let all: Vec<T> = (0..elements).map(|i| T::from_literal(number(i as i64, seed, dtype))).collect();
                Array::from_vec(all, &Shape::new([elements])).unwrap()
            })
        };
        let inputs = [(spans[0], 1, m.operands), (spans[1], 2, m.operands), (m.columns, 3, m.result)];
        let arguments = inputs.map(|(n, seed, dtype)| kept(&array(n, seed, dtype).to_device(device).unwrap())).concat();
        let program = Executable::on(matmul_of(&m), device, "product").unwrap();
        let y = program.run(arguments).unwrap().remove(0).to_device(Device::Cpu).unwrap();
        let got: Vec<f64> =
            with_element!(m.result, T => y.to_vec::<T>().unwrap().into_iter().map(|v| v.literal().as_f64()).collect());
        let mut worst = 0.0f64;
        m.evaluate(
            &|i| number(i, 1, m.operands),
            &|i| number(i, 2, m.operands),
            &|i| number(i, 3, m.result),
            &mut |i, v| {
                worst = worst.max((got[i as usize] - v.as_f64()).abs());
            },
        );
        // Sums of about 256 terms below a quarter: of some units, whose last places are these.
        let bound = match m.result {
            DType::BF16 => 0.06,
            DType::F16 => 0.01,
            DType::F64 => 1e-12,
            _ if m.tf32 => 0.02,
            _ => 1e-4,
        };
        assert!(worst <= bound, "{m}: {worst}");
    }
}

#[test]
fn cuda_device_products_replay_as_graphs() {
    let Some((device, gpu, _turn)) = device("cuda_device_products_replay_as_graphs") else { return };
    if gpu.target().matmul.is_none() {
        return;
    }
    let program = Executable::on(product(), device, "f").unwrap();
    let x = numbers(N).to_device(device).unwrap();
    let first = program.run(kept(&x)).unwrap()[0].to_vec::<f32>().unwrap();
    for _ in 0..3 {
        assert_eq!(program.run(kept(&x)).unwrap()[0].to_vec::<f32>().unwrap(), first);
    }
}

#[test]
fn cuda_device_long_lines_are_merged() {
    let Some((device, _, _turn)) = device("cuda_device_long_lines_are_merged") else { return };
    for n in [2048, 2049, 100_000, 1_000_003] {
        let elements = (0..2 * n).map(|i| (i * 7919 % 100_003) as f32).collect();
        let x = Array::from_vec(elements, &Shape::new([2 * n])).unwrap();
        let [on_cpu, on_gpu] =
            [Executable::new(long_sort(n), cpu::host_target()), Executable::on(long_sort(n), device, "long_sort")]
                .map(|program| program.unwrap().run(kept(&x)).unwrap().remove(0).to_vec::<i64>().unwrap());
        assert!(on_cpu == on_gpu, "{n}");
    }
}

#[test]
fn cuda_device_limits_and_launches_are_told() {
    let Some((device, gpu, _turn)) = device("cuda_device_limits_and_launches_are_told") else { return };
    let limits = gpu.limits().unwrap();
    println!("{limits:?}");
    assert!(limits.memory_bytes_per_us > 1e5 && limits.cache_bytes_per_us > limits.memory_bytes_per_us, "{limits:?}");
    assert!(limits.flops_per_us > 1e6, "{limits:?}");
    let program = Executable::on(twice_plus(), device, "twice_plus").unwrap();
    for launch in program.launches().unwrap() {
        let launch = launch.unwrap();
        assert!(launch.registers > 0 && launch.occupancy > 0.0 && launch.occupancy <= 1.0, "{launch:?}");
    }
    // Ever new addresses: the launches of four graphs are given other arguments.
    let held: Vec<Array> = (0..20)
        .map(|i| {
            let x = Array::from_vec(vec![i as f32; N], &Shape::new([N])).unwrap().to_device(device).unwrap();
            program.run(kept(&x)).unwrap().remove(0)
        })
        .collect();
    for (i, y) in held.iter().enumerate() {
        assert_eq!(y.to_vec::<f32>().unwrap(), [i as f32 * 2.0 + 1.0; N]);
    }
}
