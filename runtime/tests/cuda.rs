//! The CUDA back end on a driver that records: the sequence of its calls, memory, donation, graphs, and what it says when
//! something fails. What a launch computes is told to the driver by the tests.

#![allow(clippy::panic, clippy::unwrap_used)]
#![cfg(feature = "cuda")]

#[path = "support/programs.rs"]
#[allow(dead_code)]
mod programs;

use lazuli_ir::{DType, Device, ErrorKind, Layout, Shape, TensorType};
use lazuli_runtime::cuda::driver::FailureKind::{Lost, OutOfMemory, Refused};
use lazuli_runtime::cuda::source::CheckStatus;
use lazuli_runtime::cuda::testing::{Fake, Launched};
use lazuli_runtime::cuda::{self, Gpu};
use lazuli_runtime::{Array, Executable, cpu};
use programs::{N, checked, given, kept, long_sort, numbers, product, sort, total, twice_plus};

fn device(fake: &Fake, caching: bool) -> (Device, &'static Gpu) {
    let ordinal = fake.install(caching).unwrap();
    (Device::Cuda(ordinal), cuda::gpu(ordinal).unwrap())
}

/// The names of the calls, in order.
fn calls(fake: &Fake) -> Vec<String> {
    fake.take_log().iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

fn count(log: &[String], call: &str) -> usize {
    log.iter().filter(|l| *l == call).count()
}

/// Runs the kernels of the programs below, which are recognised by their names.
fn run(launched: &Launched<'_>) -> Result<(), String> {
    let word = |i: usize| launched.words[i];
    // SAFETY: the words of these kernels are the addresses of so many elements of the fake's memory.
    let elements = |i: usize| unsafe { std::slice::from_raw_parts_mut(word(i) as *mut f32, N) };
    match launched.function {
        name if name.contains("twice") => {
            assert_eq!(word(2), N as u64);
            elements(1).iter_mut().zip(elements(0)).for_each(|(y, x)| *y = *x * 2.0);
        }
        name if name.contains("plus") => elements(1).iter_mut().zip(elements(0)).for_each(|(y, x)| *y = *x + 1.0),
        name if name.contains("checked") => {
            // SAFETY: the word is the address of the status.
            let status = unsafe { &mut *(word(3) as *mut CheckStatus) };
            assert_eq!(status.lock, 0);
            if elements(0)[0] < 0.0 {
                *status = CheckStatus { key: !7, value: -3, lock: 0 };
            }
        }
        name => return Err(format!("{name} is none of these kernels")),
    }
    Ok(())
}

fn fake() -> Fake {
    let fake = Fake::default();
    fake.set_launcher(Box::new(run));
    fake
}

#[test]
fn cuda_copies_keep_elements_and_strides() {
    let fake = Fake::default();
    let (device, gpu) = device(&fake, true);
    let base = numbers(3_000_000);
    let views = [
        base.layout().clone(),
        Layout { shape: [1500, 2000].into(), strides: smallvec::smallvec![1, 1500], offset: 0 },
        Layout { shape: [10, 3].into(), strides: smallvec::smallvec![-7, -2], offset: 90 },
        Layout { shape: [4, 100_000].into(), strides: smallvec::smallvec![0, 0], offset: 5 },
        Layout { shape: [3, 4].into(), strides: smallvec::smallvec![900_000, 200_000], offset: 17 },
        Layout { shape: [0, 3].into(), strides: smallvec::smallvec![3, 1], offset: 100 },
        Layout { shape: Shape::scalar(), strides: smallvec::smallvec![], offset: 2_999_999 },
    ];
    for layout in views {
        let x = base.with_layout(layout).unwrap();
        let up = x.to_device(device).unwrap();
        assert_eq!(up.device(), device);
        assert!(up.storage::<f32>().is_none() || up.shape().is_empty());
        assert_eq!(up.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        let down = up.to_device(Device::Cpu).unwrap();
        assert_eq!((down.device(), down.shape()), (Device::Cpu, x.shape()));
        assert_eq!(up.literal_at_first().unwrap(), x.literal_at_first().unwrap());
    }
    // A broadcast stays one element, and what is mostly gaps is copied without them.
    assert!(gpu.memory_stats().peak <= 12_000_000 + 12_000_000 / 8 + 4096, "{:?}", gpu.memory_stats());
    assert_eq!(gpu.memory_stats().in_use, 0);
    let item = Array::full(lazuli_ir::Literal::I64(7), &Shape::scalar()).unwrap().to_device(device).unwrap();
    assert_eq!(item.item::<i64>().unwrap(), 7);
    assert!(item.item::<f32>().is_err());
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_memory_is_reused_and_its_end_is_an_error_that_names_who_holds_it() {
    let fake = Fake::with_memory(10 << 20);
    let (device, gpu) = device(&fake, true);
    let of = |mib: usize| Array::uninit_on(&TensorType::new([mib << 20], DType::U8), device);
    let address = of(2).unwrap().as_ptr();
    assert_eq!(of(2).unwrap().as_ptr(), address);
    assert_eq!(count(&calls(&fake), "allocate"), 1);
    // What is cached makes room for another size.
    let held = [of(3).unwrap(), of(4).unwrap(), of(1).unwrap()];
    let error = of(5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Memory);
    for part in ["a tensor of 5.0 MiB", "CUDA device", "8.0 MiB are in use by 3 buffers", "a tensor of 4.0 MiB"] {
        assert!(error.message().contains(part), "{error}");
    }
    drop(held);
    assert_eq!(of(9).unwrap().buffer().bytes(), 9 << 20);
    assert_eq!(gpu.memory_stats().in_use, 0);
    let error = Array::uninit_on(&TensorType::new([1 << 40, 1 << 20], DType::U8), device).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Memory);
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_programs_replay_as_graphs_and_nothing_waits_before_a_value_is_read() {
    let fake = fake();
    let (device, _) = device(&fake, true);
    let program = Executable::on(twice_plus(), device, "f").unwrap();
    let log = calls(&fake);
    assert_eq!((count(&log, "load"), count(&log, "function")), (1, 2));
    let x = numbers(N).to_device(device).unwrap();
    calls(&fake);
    let y = program.run(kept(&x)).unwrap().remove(0);
    let log = calls(&fake);
    let first = [
        "allocate",
        "begin_capture",
        "launch",
        "captured",
        "launch",
        "captured",
        "end_capture",
        "instantiate",
        "launch_graph",
    ];
    assert_eq!(log.iter().filter(|l| *l != "allocate").collect::<Vec<_>>(), first[1..].iter().collect::<Vec<_>>());
    assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
    assert!(calls(&fake).contains(&"synchronise".to_owned()));
    // The same addresses: a launch and nothing else. (From the second call on blocks are taken in the order of their addresses.)
    drop(y);
    program.run(kept(&x)).unwrap();
    let made = 1 + count(&calls(&fake), "instantiate");
    for _ in 0..3 {
        program.run(kept(&x)).unwrap();
        assert_eq!(calls(&fake), ["launch_graph"]);
    }
    // Ever new addresses: executables until there are four, then those used longest ago; each is given the arguments of both launches.
    let mut held = vec![program.run(kept(&x)).unwrap()];
    for _ in 0..6 {
        held.push(program.run(kept(&x)).unwrap());
    }
    let log = calls(&fake);
    assert_eq!((count(&log, "instantiate"), count(&log, "give"), count(&log, "launch_graph")), (4 - made, 12, 7));
    assert_eq!((count(&log, "begin_capture"), count(&log, "update")), (0, 0));
    for y in held.iter().flatten() {
        assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
    }
    // Executables and code are let go when the device is known to be done.
    calls(&fake);
    drop(program);
    assert_eq!(calls(&fake), [""; 0]);
    x.to_vec::<f32>().unwrap();
    let log = calls(&fake);
    assert_eq!((count(&log, "destroy_exec"), count(&log, "destroy_graph"), count(&log, "unload")), (4, 1, 1));
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_donated_storage_is_taken_over_and_a_loop_alternates_between_two_graphs() {
    let fake = fake();
    let (device, gpu) = device(&fake, true);
    let program = Executable::on(twice_plus(), device, "f").unwrap();
    let mut x = numbers(N).to_device(device).unwrap();
    let at = x.as_ptr();
    let (mut out, report) = program.run_reported(given(x)).unwrap();
    assert_eq!((report.taken_over, report.step_nanos.len()), (vec![true], 2));
    x = out.remove(0);
    assert_eq!(x.as_ptr(), at);
    calls(&fake);
    for _ in 0..10 {
        x = program.run(given(x)).unwrap().remove(0);
    }
    let log = calls(&fake);
    assert_eq!((count(&log, "instantiate"), count(&log, "launch_graph"), count(&log, "allocate")), (1, 10, 0));
    let y = program.run(kept(&x)).unwrap().remove(0);
    assert_ne!(y.as_ptr(), x.as_ptr());
    assert_eq!(x.to_vec::<f32>().unwrap()[0], 2047.0);
    assert_eq!(y.to_vec::<f32>().unwrap()[0], 4095.0);
    assert!(gpu.memory_stats().in_use > 0);
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_arguments_from_elsewhere_are_copied_first() {
    let fake = fake();
    let (device, _) = device(&fake, true);
    let program = Executable::on(twice_plus(), device, "f").unwrap();
    let y = program.run(kept(&numbers(N))).unwrap().remove(0);
    assert_eq!(y.device(), device);
    assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
    assert_eq!(program.run(Vec::new()).unwrap_err().kind(), ErrorKind::Value);
    assert!(program.run(kept(&numbers(3))).is_err());
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_graphs_never_hold_addresses_that_were_freed() {
    let fake = fake();
    let (device, _) = device(&fake, false);
    let program = Executable::on(twice_plus(), device, "f").unwrap();
    let mut held = Vec::new();
    for i in 0..60 {
        let x = numbers(N).to_device(device).unwrap();
        let y = program.run(if i % 3 == 0 { given(x) } else { kept(&x) }).unwrap().remove(0);
        assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
        if i % 4 == 0 {
            held.push(y);
        }
    }
    drop((held, program));
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_failed_calls_leave_the_device_usable() {
    let fake = fake();
    let (device, _) = device(&fake, true);
    let x = numbers(N).to_device(device).unwrap();
    let program = Executable::on(twice_plus(), device, "f").unwrap();
    let names = ["launch", "begin_capture", "captured", "end_capture", "instantiate", "launch_graph", "allocate"];
    for name in names {
        for kind in [Refused, OutOfMemory] {
            if (name, kind) == ("allocate", OutOfMemory) {
                continue;
            }
            let other = numbers(N).to_device(device).unwrap();
            let mut held = vec![other.clone()];
            // What is recorded once is recorded by a program of its own.
            let program = Executable::on(twice_plus(), device, "f").unwrap();
            fake.fail(name, usize::from(name == "launch"), kind);
            let error = loop {
                // Ever new addresses, until the call fails.
                match program.run(kept(&other)) {
                    Ok(y) => held.extend(y),
                    Err(error) => break error,
                }
            };
            let expected = if kind == Refused { ErrorKind::Device } else { ErrorKind::Memory };
            assert_eq!(error.kind(), expected, "{name}: {error}");
            assert!(error.message().contains(name), "{error}");
            let y = program.run(kept(&x)).unwrap().remove(0);
            assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
        }
    }
    // Where a launch does not take other arguments, the first or a later one, the program is recorded again.
    for working in [0, 1] {
        let held: Vec<_> = (0..6).map(|_| program.run(kept(&x)).unwrap()).collect();
        // What others left is gone.
        x.to_vec::<f32>().unwrap();
        calls(&fake);
        fake.fail("give", working, Refused);
        let y = program.run(kept(&x)).unwrap().remove(0);
        let log = calls(&fake);
        assert_eq!((count(&log, "begin_capture"), count(&log, "instantiate"), count(&log, "launch_graph")), (1, 1, 1));
        assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
        let log = calls(&fake);
        assert_eq!((count(&log, "destroy_exec"), count(&log, "destroy_graph")), (4, 1));
        drop(held);
    }
    fake.fail("give", 0, OutOfMemory);
    let held: Vec<_> = (0..3).map(|_| program.run(kept(&x))).collect();
    assert_eq!(held.iter().filter(|y| y.is_err()).count(), 1);
    assert!(program.run(kept(&x)).is_ok());
    drop(held);
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_work_that_fails_later_is_told_once_with_its_program_and_the_device_says_that_it_is_lost() {
    let fake = fake();
    let (device, _) = device(&fake, true);
    let x = numbers(N).to_device(device).unwrap();
    let program = Executable::on(twice_plus(), device, "train").unwrap();
    let y = program.run(kept(&x)).unwrap().remove(0);
    fake.fail("copy_down", 0, Lost);
    let error = y.to_vec::<f32>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    for part in ["CUDA device", "`train` (kernels twice, plus)", "cannot be used any more", "LAZULI_CUDA_SYNC=1"] {
        assert!(error.message().contains(part), "{error}");
    }
    for error in [x.to_vec::<f32>().unwrap_err(), program.run(kept(&x)).unwrap_err()] {
        assert!(error.message().contains("since work on it failed earlier"), "{error}");
    }
    assert!(numbers(3).to_device(device).is_err());
    drop((x, y, program));
}

#[test]
fn cuda_failed_checks_are_told_when_a_value_is_read_and_only_once() {
    let fake = fake();
    let (device, gpu) = device(&fake, true);
    let program = Executable::on(checked(), device, "look_up").unwrap();
    let bad = Array::from_vec(vec![-1.0f32; N], &Shape::new([N])).unwrap().to_device(device).unwrap();
    let good = numbers(N).to_device(device).unwrap();
    calls(&fake);
    // A program of one launch needs no graph.
    program.run(kept(&good)).unwrap();
    assert_eq!(count(&calls(&fake), "launch_graph"), 0);
    gpu.synchronise().unwrap();
    // A later call that fails nothing does not hide an earlier failure.
    program.run(kept(&bad)).unwrap();
    program.run(kept(&good)).unwrap();
    let error = good.to_vec::<f32>().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Index, Some("index_select")));
    assert!(error.message().contains("index -3 is out of range for 5 elements"), "{error}");
    assert_eq!(good.to_vec::<f32>().unwrap()[1], 1.0);
    program.run(kept(&good)).unwrap();
    gpu.synchronise().unwrap();
    program.run(kept(&bad)).unwrap();
    assert!(gpu.synchronise().is_err());
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_sorts_are_launches_as_kernels_are() {
    let fake = Fake::default();
    fake.evaluate();
    let (device, _) = device(&fake, true);
    let program = Executable::on(sort(), device, "sort").unwrap();
    let x = Array::from_vec(vec![3.0f32, 1.0, 2.0, 9.0, 7.0, 8.0], &Shape::new([6])).unwrap();
    let x = x.to_device(device).unwrap();
    calls(&fake);
    // The operand's lines run backwards through memory: 8 7 9 and 2 1 3. They are one launch together.
    let indices = program.run(kept(&x)).unwrap().remove(0);
    let log = calls(&fake);
    assert_eq!((count(&log, "launch"), count(&log, "copy_down"), count(&log, "synchronise")), (1, 0, 0), "{log:?}");
    assert_eq!(indices.device(), device);
    assert_eq!(indices.to_vec::<i64>().unwrap(), [1, 0, 2, 1, 0, 2]);
    // Lines longer than a tile are merged, as a graph.
    let program = Executable::on(long_sort(10_000), device, "long").unwrap();
    let x = Array::from_vec((0..20_000).map(|i| (i * 7919 % 10_007) as f32).collect(), &Shape::new([20_000])).unwrap();
    let expected = Executable::new(long_sort(10_000), cpu::host_target()).unwrap().run(kept(&x)).unwrap().remove(0);
    let x = x.to_device(device).unwrap();
    calls(&fake);
    let indices = program.run(kept(&x)).unwrap().remove(0);
    let log = calls(&fake);
    assert_eq!((count(&log, "launch"), count(&log, "launch_graph")), (4, 1), "{log:?}");
    assert_eq!(indices.to_vec::<i64>().unwrap(), expected.to_vec::<i64>().unwrap());
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_calls_from_threads_do_not_mix() {
    let fake = fake();
    let (device, _) = device(&fake, true);
    let program = Executable::on(twice_plus(), device, "f").unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..50 {
                    let x = numbers(N).to_device(device).unwrap();
                    let y = program.run(given(x)).unwrap().remove(0);
                    assert_eq!(y.to_vec::<f32>().unwrap()[..3], [1.0, 3.0, 5.0]);
                }
            });
        }
    });
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_partial_results_and_tickets_are_the_last_arguments() {
    let fake = Fake::default();
    let (device, _) = device(&fake, true);
    let launcher = fake.clone();
    fake.set_launcher(Box::new(move |launched| {
        let &[x, y, n, partials, ticket] = launched.words else { return Err(format!("{:?}", launched.words)) };
        // SAFETY: the words are the addresses of the elements, the result and the ticket.
        let (x, y, ticket) = unsafe {
            let x = std::slice::from_raw_parts(x as *const f32, N);
            (x, &mut *(y as *mut f32), *(ticket as *const u32))
        };
        let bytes = launched.shape.blocks as usize * 8;
        if n != N as u64 || ticket != 0 || !launcher.holds(partials, bytes) || !partials.is_multiple_of(8) {
            return Err(format!("{launched:?}"));
        }
        *y = x.iter().sum();
        Ok(())
    }));
    let program = Executable::on(total(), device, "total").unwrap();
    for _ in 0..3 {
        let y = program.run(kept(&numbers(N))).unwrap().remove(0);
        assert_eq!(y.item::<f32>().unwrap(), (N * (N - 1) / 2) as f32);
    }
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_programs_with_one_text_are_loaded_once() {
    let fake = fake();
    let (device, _) = device(&fake, true);
    let a = Executable::on(twice_plus(), device, "a").unwrap();
    let b = Executable::on(twice_plus(), device, "b").unwrap();
    assert_eq!(count(&calls(&fake), "load"), 1);
    drop((a, b));
    Executable::on(twice_plus(), device, "c").unwrap();
    assert_eq!(count(&calls(&fake), "load"), 1);
}

#[test]
fn cuda_devices_that_are_not_there_are_errors_that_say_what_to_do() {
    let Err(error) = cuda::device_count() else { return };
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.message().contains("install") || error.message().contains("nvidia-smi"), "{error}");
    assert_eq!(numbers(3).to_device(Device::Cuda(0)).unwrap_err().kind(), ErrorKind::Device);
}

/// An element of what the program with a product gives for 0, 1, 2, ...
fn element(i: usize, j: usize) -> f32 {
    (0..50).map(|k| 4.0 * ((i * 50 + k) * (j * 50 + k)) as f32).sum::<f32>() + j as f32
}

#[test]
fn cuda_products_run_once_before_they_are_captured() {
    let fake = fake();
    let (device, gpu) = device(&fake, true);
    assert!(gpu.target().matmul.is_some());
    let program = Executable::on(product(), device, "f").unwrap();
    assert_eq!(count(&calls(&fake), "check_matmul"), 1);
    let x = numbers(N).to_device(device).unwrap();
    calls(&fake);
    let submitted = |held: &mut Vec<Array>| {
        held.extend(program.run(kept(&x)).unwrap());
        calls(&fake).into_iter().filter(|l| l != "allocate").collect::<Vec<_>>()
    };
    let mut held = Vec::new();
    assert_eq!(submitted(&mut held), ["launch", "matmul"]);
    let captured = submitted(&mut held);
    let all = ["begin_capture", "launch", "matmul", "end_capture", "instantiate", "destroy_graph", "launch_graph"];
    assert_eq!(captured, all);
    held.pop();
    assert_eq!(submitted(&mut held), ["launch_graph"]);
    let (_, report) = program.run_reported(kept(&x)).unwrap();
    assert_eq!(report.step_nanos.len(), 2);
    for y in held {
        let y = y.to_vec::<f32>().unwrap();
        for (i, j) in [(0, 0), (3, 4), (19, 0), (19, 19)] {
            assert!((y[20 * i + j] - element(i, j)).abs() <= 1e-6 * element(i, j), "{i} {j}");
        }
    }
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_products_that_fail_say_so() {
    let fake = fake();
    let (device, _) = device(&fake, true);
    // What the library cannot multiply is an error of the compilation.
    fake.fail("check_matmul", 0, Refused);
    let error = Executable::on(product(), device, "f").unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().contains("check_matmul"), "{error}");
    // So is one that does not fit its buffers.
    let mut wrong = product();
    wrong.buffers[1].elements = 999;
    wrong.steps.remove(0);
    let error = Executable::on(wrong, device, "f").unwrap_err();
    assert!(error.message().contains("does not fit its buffers"), "{error}");
    let program = Executable::on(product(), device, "f").unwrap();
    let x = numbers(N).to_device(device).unwrap();
    // A product that is refused, on its own and in a capture, leaves all as it was.
    for _ in 0..2 {
        fake.fail("matmul", 0, Refused);
        assert_eq!(program.run(kept(&x)).unwrap_err().kind(), ErrorKind::Device);
        program.run(kept(&x)).unwrap()[0].to_vec::<f32>().unwrap();
    }
    fake.fail("matmul", 0, OutOfMemory);
    let other = numbers(N).to_device(device).unwrap();
    assert_eq!(program.run(kept(&other)).unwrap_err().kind(), ErrorKind::Memory);
    let y = program.run(kept(&x)).unwrap().remove(0);
    fake.fail("synchronise", 0, Lost);
    let error = y.to_vec::<f32>().unwrap_err();
    assert!(error.message().contains("while it ran `f` (kernels twice, matmul)"), "{error}");
    assert!(program.run(kept(&x)).unwrap_err().message().contains("cannot be used any more"));
    assert_eq!(fake.misuses(), [""; 0]);
}
