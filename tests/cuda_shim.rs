//! The whole way of a tensor to a GPU and back, without one: kernels are printed as CUDA C, compiled by a C++ compiler against a
//! header that has CUDA's built-ins, and run on the memory of a driver that records.

#![allow(clippy::panic, clippy::unwrap_used)]
#![cfg(feature = "cuda")]

use lazuli::Result;
use lazuli::options::Sort;
use lazuli::prelude::*;
use lazuli_oracles::shim::{self, Arg, Fence, Launch, Memory, Program, Schedule};
use lazuli_runtime::cuda::source::PRELUDE;
use lazuli_runtime::cuda::testing::{Fake, Launched};
use std::collections::HashMap;
use std::sync::Mutex;

/// A device whose kernels run on the shim; `None` where there is no C++ compiler.
fn gpu() -> Option<(Device, Fake)> {
    if !shim::available().unwrap() {
        return None;
    }
    let fake = Fake::default();
    let (memory, programs) = (fake.clone(), Mutex::new(HashMap::new()));
    fake.set_launcher(Box::new(move |launched| {
        let mut programs = programs.lock().unwrap();
        if !programs.contains_key(launched.text) {
            programs.insert(launched.text.to_owned(), program(launched.text)?);
        }
        run(&programs[launched.text], &memory, launched)
    }));
    Some((Device::cuda(fake.install(true).unwrap()).unwrap(), fake))
}

/// The kernels of a text, each of which begins with its name after its launch bounds.
fn program(text: &str) -> std::result::Result<Program, String> {
    let kernels = text.strip_prefix(PRELUDE).ok_or("a text without the prelude")?;
    let names = kernels.split("__launch_bounds__(").skip(1).filter_map(|k| k.split_once(") ")?.1.split_once('('));
    let mut parts: Vec<(&str, &str)> = names.map(|(name, _)| (name, "")).collect();
    parts.first_mut().ok_or("a text without kernels")?.1 = kernels;
    Program::compile(PRELUDE, &parts).map_err(|e| e.to_string())
}

/// Runs a launch on copies of the allocations that its words point to.
fn run(program: &Program, memory: &Fake, launched: &Launched<'_>) -> std::result::Result<(), String> {
    let mut allocations: Vec<(u64, usize)> = Vec::new();
    let args = launched.words.iter().map(|word| match memory.allocation(*word) {
        None => Arg::Word(*word),
        Some((start, bytes)) => {
            let known = allocations.iter().position(|a| a.0 == start);
            let number = known.unwrap_or_else(|| {
                allocations.push((start, bytes));
                allocations.len() - 1
            });
            Arg::Pointer { memory: number, offset: word - start }
        }
    });
    let args: Vec<Arg> = args.collect();
    // SAFETY: allocations of the fake are memory of this process, initialised and never given back.
    let bytes = |&(start, bytes): &(u64, usize)| unsafe { std::slice::from_raw_parts_mut(start as *mut u8, bytes) };
    let mut copies: Vec<Memory> =
        allocations.iter().map(|a| Memory { bytes: bytes(a).to_vec(), writable: true }).collect();
    let launch = Launch {
        kernel: launched.function,
        blocks: launched.shape.blocks.into(),
        threads: launched.shape.threads,
        shared_bytes: launched.shape.shared_bytes,
        args: &args,
        schedule: Schedule::Fair,
        fence: Fence::End,
    };
    program.launch(&launch, &mut copies).map_err(|fault| fault.to_string())?;
    allocations.iter().zip(&copies).for_each(|(a, copy)| bytes(a).copy_from_slice(&copy.bytes));
    Ok(())
}

fn numbers(n: usize) -> Tensor {
    Tensor::from_vec((0..n).map(|i| i as f32 * 0.37 - 9.0).collect(), [n])
}

fn same(name: &str, got: &Tensor, expected: &Tensor) {
    let read = |t: &Tensor| t.to((Device::Cpu, DType::F64)).to_vec::<f64>().unwrap_or_else(|e| panic!("{name}: {e}"));
    for (i, (g, e)) in read(got).iter().zip(&read(expected)).enumerate() {
        let near = (g - e).abs() <= 1e-5 * e.abs().max(1.0) || g.is_nan() && e.is_nan();
        assert!(near, "{name}: {g}, not {e}, at {i}");
    }
}

#[test]
fn cuda_shim_a_tensor_goes_to_the_device_and_comes_back_changed() -> Result<()> {
    let Some((device, fake)) = gpu() else {
        return Ok(());
    };
    let x = numbers(60).reshape([12, 5]);
    let there = x.to(device);
    same("exp", &there.exp().to(Device::Cpu), &x.exp());
    same("sum", &(there.t() * 2.0).sum(0), &(x.t() * 2.0).sum(0));
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_shim_a_compiled_function_gives_what_it_gives_on_the_cpu() -> Result<()> {
    let Some((device, fake)) = gpu() else {
        return Ok(());
    };
    let f = lazuli::compile(|(x, w, i, s): (Tensor, Tensor, Tensor, Tensor)| {
        let y = x.matmul(&w).relu();
        let chosen = x.index_select(0, &i) * &s;
        vec![y.softmax(-1), y.sum(..), y.sum(0), x.cumsum(0), chosen, x.t() + 1.0, x.layer_norm([5], ()), y.argmax(-1)]
    });
    let (x, w) = (numbers(60).reshape([12, 5]), (numbers(35) * 0.1).reshape([5, 7]));
    let rows = Tensor::from_vec(vec![11i64, 0, 3], [3]);
    let expected = f.call((&x, &w, &rows, 0.5))?;
    let (x, w, there) = (x.to(device), w.to(device), rows.to(device));
    for _ in 0..2 {
        for (i, (got, expected)) in f.call((&x, &w, &there, 0.5))?.iter().zip(&expected).enumerate() {
            same(&format!("result {i}"), got, expected);
        }
    }
    let wrong = Tensor::from_vec(vec![11i64, 12, -1], [3]).to(device);
    let error = f.call((&x, &w, &wrong, 0.5))?[4].to_vec::<f32>().unwrap_err();
    assert!(error.message().contains("index 12 is out of range for 12 elements"), "{error}");
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_shim_a_training_step_gives_what_it_gives_on_the_cpu() -> Result<()> {
    let Some((device, fake)) = gpu() else { return Ok(()) };
    let step = lazuli::compile(|(w, x, y, lr): (Tensor, Tensor, Tensor, Tensor)| {
        let (loss, dw) = lazuli::value_and_grad(|w: &Tensor| x.matmul(w).tanh().cross_entropy(&y))(&w);
        (loss, &w - lr * dw)
    });
    let (x, y) = ((numbers(32) * 0.1).reshape([8, 4]), Tensor::from_vec((0..8).collect::<Vec<i64>>(), [8]));
    let (there, labels) = (x.to(device), y.to(device));
    let (mut a, mut b) = (Tensor::zeros([4, 8]), Tensor::zeros([4, 8]).to(device));
    for rate in [0.5, 0.25, 0.1] {
        let (loss_a, next_a) = step.call((a, &x, &y, rate))?;
        let (loss_b, next_b) = step.call((b, &there, &labels, rate))?;
        same("loss", &loss_b, &loss_a);
        (a, b) = (next_a, next_b);
    }
    same("weights", &b, &a);
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_shim_sorts_and_rows_of_every_length_give_what_they_give_on_the_cpu() -> Result<()> {
    let Some((device, fake)) = gpu() else { return Ok(()) };
    let f = lazuli::compile(|x: Tensor| {
        let (sorted, positions) = x.sort(Sort { descending: true, ..Default::default() });
        let (first, places) = x.topk(3, ());
        vec![sorted, positions, first, places, x.cumsum(1)]
    });
    for (rows, length) in [(40, 9), (9, 300), (2, 2500)] {
        // With ties, and in no order.
        let x = (numbers(rows * length) * 37.3).sin().maximum(-0.5).reshape([rows, length]);
        let there = x.to(device);
        for (i, (got, expected)) in f.call(&there)?.iter().zip(f.call(&x)?).enumerate() {
            same(&format!("result {i} of {length}"), got, &expected);
        }
        same("argsort", &there.argsort(()), &x.argsort(()));
        same("sums", &there.sum(1), &x.sum(1));
        same("largest", &there.argmax(1), &x.argmax(1));
        same("sums of columns", &there.sum(0), &x.sum(0));
        same("of a view", &there.i((.., 1..)).flip(1).sum(1), &x.i((.., 1..)).sum(1));
    }
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}
