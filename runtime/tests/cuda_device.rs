//! The CUDA back end on a GPU. Without one these tests say that they were skipped; with `LAZULI_REQUIRE_GPU=1` they fail.

#![allow(clippy::panic, clippy::unwrap_used)]
#![cfg(feature = "cuda")]

#[path = "support/programs.rs"]
#[allow(dead_code)]
mod programs;

use lazuli_ir::{DType, Device, ErrorKind, Layout, Shape, TensorType};
use lazuli_runtime::cuda::{self, Gpu};
use lazuli_runtime::{Array, Executable};
use programs::{N, checked, given, kept, numbers, sort, total, twice_plus};
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
