//! What lazuli calls of NVIDIA's driver, against a library that takes the driver's place (`cuda_driver/libcuda.cpp`): its functions are
//! declared as the driver's manual has them, check what they are given, and run nothing. Each test runs in a process of its own, which finds that
//! library where it looks for the driver.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli::prelude::*;
use lazuli_oracles::shim::{available, compiler};
use lazuli_runtime::cuda::nvrtc;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The folder with the library; `None` where there is no C++ compiler.
fn library() -> Option<&'static PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = || {
        if !available().unwrap() {
            return None;
        }
        let folder = std::env::temp_dir().join(format!("lazuli-driver-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cuda_driver/libcuda.cpp");
        let built = Command::new(compiler().unwrap())
            .args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
            .args([folder.join("libcuda.so.1"), source])
            .output()
            .unwrap();
        assert!(built.status.success() && built.stderr.is_empty(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(folder)
    };
    FOLDER.get_or_init(built).as_ref()
}

/// Runs one of the functions below in a process that finds the library, in a driver of these settings. What it printed.
fn run(child: &str, settings: &[(&str, &str)]) -> Option<String> {
    let folder = library()?;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env("LAZULI_CACHE", "0");
    let Output { status, stdout, stderr } = command.envs(settings.iter().copied()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    assert!(status.success() && !err.contains("libcuda: "), "{out}\n{err}");
    Some(out)
}

#[test]
fn cuda_drivers_that_cannot_be_used_are_each_an_error_of_its_own() {
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("DRIVER_INIT", "100")], "no GPU that it shows to this process"),
        (&[("DRIVER_INIT", "34")], "is the toolkit's stub and no driver"),
        (&[("DRIVER_INIT", "803")], "the NVIDIA driver does not start"),
        (&[("DRIVER_VERSION", "12080")], "too old: it knows CUDA 12.8, and CUDA 13.0 is needed"),
        (&[("DRIVER_DEVICES", "0")], "no GPU that it shows to this process"),
        (&[("DRIVER_CAPABILITY", "75")], "has compute capability 7.5; 8.0"),
    ];
    for (settings, says) in cases {
        let Some(out) = run("opens", settings) else { return };
        assert!(out.contains(says), "{settings:?}: {out}");
    }
    let Some(out) = run("opens", &[]) else { return };
    assert!(out.contains("1 devices") && out.contains("there is no CUDA device 1: there is 1 CUDA device"), "{out}");
}

#[test]
#[ignore = "runs in a process of its own"]
fn opens() {
    match lazuli::cuda::device_count() {
        Ok(n) => println!("{n} devices"),
        Err(e) => println!("{e}"),
    }
    for ordinal in [0, 1] {
        match lazuli_runtime::device::target(lazuli_ir::Device::Cuda(ordinal)) {
            Ok(target) => println!("{target:?}"),
            Err(e) => println!("{e}"),
        }
    }
}

#[test]
fn cuda_programs_call_the_driver_as_it_is_declared() {
    if let Err(e) = nvrtc::version() {
        assert!(std::env::var_os("LAZULI_REQUIRE_NVRTC").is_none_or(|v| v != "1"), "{e}");
        println!("skipped: {e}");
        return;
    }
    for stepwise in ["0", "1"] {
        let Some(out) = run("computes", &[("LAZULI_CUDA_SYNC", stepwise)]) else { return };
        assert!(out.contains("all was called"), "{out}");
    }
    // What the device could not do is told when a value is read.
    let Some(out) = run("is_lost", &[("DRIVER_SYNC", "700")]) else { return };
    assert!(out.contains("work on CUDA device 0 (A test's device) failed (cuStreamSynchronize: code 700"), "{out}");
    assert!(out.contains("cannot be used any more"), "{out}");
}

#[test]
#[ignore = "runs in a process of its own"]
fn is_lost() {
    let x = Tensor::ones([8]).to(Device::cuda(0).unwrap());
    for _ in 0..2 {
        println!("{}", (&x + 1.0).to_vec::<f32>().unwrap_err());
    }
}

/// Copies, eager kernels, graphs that are made, given other arguments and captured again, events, occupancy, large shared memory, sorts,
/// several threads, and all of it let go. No kernel runs, so that values are zeros.
#[test]
#[ignore = "runs in a process of its own"]
fn computes() {
    let device = Device::cuda(0).unwrap();
    assert_eq!(lazuli::cuda::device_name(device).unwrap(), "A test's device");
    assert_eq!(lazuli::cuda::memory(device).unwrap(), (1 << 31, 1 << 32));
    let x = Tensor::from_vec((0..3_000_000).map(|i| i as f32).collect(), [3000, 1000]);
    let there = x.to(device);
    assert_eq!(there.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
    let too_large = there.i((0..1, ..)) + Tensor::zeros([4_000_000, 1]);
    let message = too_large.eval().unwrap_err().to_string();
    assert!(message.contains("could not be allocated"), "{message}");
    (there.exp().sum(0) + 1.0).sum(..).eval().unwrap();
    there.i(0..7).sort(()).0.eval().unwrap();
    let program =
        lazuli::compile(|x: Tensor| (x.softmax(-1).sum(0), x.sort(()).1, x.index_select(0, &Tensor::arange(0..3))));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let held: Vec<_> = (0..7).map(|_| program.call(&there).unwrap()).collect();
                held.iter().for_each(|y| y.0.eval().unwrap());
                drop(held);
                program.call(&there).unwrap().0.eval().unwrap();
            });
        }
    });
    let report = program.profile(&there).unwrap();
    assert!(report.kernels.iter().all(|k| k.time.is_some() && k.launch.is_none_or(|l| l.registers == 40)), "{report}");
    let attention = lazuli::compile(|q: Tensor| q.scaled_dot_product_attention(&q, &q, ()));
    let q = Tensor::ones([4, 12, 512, 64]).to(device);
    let text = {
        attention.call(&q).unwrap().eval().unwrap();
        attention.stages().unwrap().cuda().unwrap()
    };
    assert!(text.contains("extern __shared__"), "{text}");
    drop((program, attention, there, q));
    lazuli::cuda::synchronize(device).unwrap();
    println!("all was called");
}
