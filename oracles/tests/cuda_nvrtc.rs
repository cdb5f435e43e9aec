//! Kernels for GPUs compile for every architecture, without errors and without registers that spill to memory.

#![allow(clippy::panic, clippy::unwrap_used)]

mod cuda_cases;

use cuda_cases::workloads;
use lazuli_ir::{Graph, Kernel, Layout, Target};
use lazuli_passes::{Options, compile as plan, optimize};
use lazuli_runtime::cuda::nvrtc;
use lazuli_runtime::cuda::source::{PRELUDE, Source};
use std::sync::Mutex;

/// Kernels that are compiled together.
const UNIT: usize = 50;

#[test]
fn kernels_compile_without_spills() {
    if let Err(e) = nvrtc::version() {
        assert!(std::env::var_os("LAZULI_REQUIRE_NVRTC").is_none_or(|v| v != "1"), "{e}");
        eprintln!("skipped: {e}");
        return;
    }
    let (mut set, _, mut failures) = cuda_cases::kernels(cuda_cases::cases());
    let measure = lazuli_runtime::cuda::limits::kernels().unwrap();
    for kernel in workloads::NAMES.into_iter().flat_map(of_workload).chain(measure).chain(edges()) {
        failures.extend(set.add(&kernel).err().map(|e| format!("{e}\n{kernel}")));
    }
    let units = set.sources().chunks(UNIT).flat_map(|unit| [80, 90, 100].map(|sm| (unit, sm)));
    let queue = Mutex::new(units.collect::<Vec<_>>().into_iter());
    let found = Mutex::new((Vec::new(), 0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            while let Some((unit, sm)) = { queue.lock().unwrap().next() } {
                let (said, functions) = compile(unit, sm);
                let mut found = found.lock().unwrap();
                found.0.extend(said);
                found.1 += functions;
            }
        };
        (0..threads).for_each(|_| _ = scope.spawn(work));
    });
    let (said, functions) = found.into_inner().unwrap();
    failures.extend(said);
    println!("{} kernels compile, {functions} times", set.sources().len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
    assert_eq!(functions, 3 * set.sources().len());
}

/// The kernels of a workload with its own extents.
fn of_workload(name: &str) -> Vec<Kernel> {
    let traced = workloads::workload(name).unwrap().trace().unwrap();
    let options = Options::default();
    let (graph, _) = optimize(&Graph::parse(&traced.to_string()).unwrap(), &options).unwrap();
    let shape = |n| graph.node(n).types[0].shape.clone();
    let layouts: Vec<Layout> = graph.inputs().iter().map(|(_, n)| Layout::contiguous(shape(*n))).collect();
    plan(&graph, &layouts, &Target::nvidia(90), &options).unwrap().program.kernels
}

/// Kernels whose tiles alone are all the shared memory that a kernel may declare, and that need some more.
fn edges() -> Vec<Kernel> {
    let text = "kernel edge(%x: f32[12288], %y: mut f32[12288]) {
      tile %t: f32[12288] scope=block
      loop %i in 12288 block { store %t[%i], load %x[%i] }
      barrier
      %0 = reduce sum %k in 12288 block { yield load %t[%k] }
      loop %j in 12288 block { store %y[%j], %0 }
    }";
    vec![Kernel::parse(text).unwrap()]
}

/// Whether the suite sees what it is for: wrong kernels, made from right ones, are refused.
#[test]
fn kernels_with_faults_are_refused() {
    if let Err(e) = nvrtc::version() {
        assert!(std::env::var_os("LAZULI_REQUIRE_NVRTC").is_none_or(|v| v != "1"), "{e}");
        eprintln!("skipped: {e}");
        return;
    }
    let (set, _, _) = cuda_cases::kernels(cuda_cases::models());
    let unit =
        |of: &str| set.sources().iter().filter(|s| s.text.contains(of)).take(3).cloned().collect::<Vec<Source>>();
    // In kernels that have some words, others take the place of some; what is said of it.
    let faults = [
        // Half of the registers that 1024 threads leave, for sums of 64 elements.
        ("spills", "lz_dot<", "__launch_bounds__(256, 1)", "__launch_bounds__(1024, 2)", "spills"),
        ("a shuffle without a mask", "lz_other(", "lz_other(", "__shfl_xor(", "__shfl_xor"),
        ("a barrier of nobody", "__syncthreads();", "__syncthreads();", "__syncthreads(1, 2);", "__syncthreads"),
        ("too much shared memory", "_warps[8];", "_warps[8];", "_warps[12289];", "shared"),
    ];
    for (what, of, right, wrong, says) in faults {
        let edited = |s: Source| Source { text: s.text.replace(right, wrong), ..s };
        let edited: Vec<Source> = unit(of).into_iter().map(edited).collect();
        assert!(!edited.is_empty(), "no kernel has `{of}`");
        for sm in [80, 90, 100] {
            let (said, _) = compile(&edited, sm);
            assert!(said.iter().any(|s| s.contains(says)), "{what} is not found on sm_{sm}: {said:?}");
        }
    }
}

/// What is wrong with a unit's kernels on an architecture, and how many were compiled.
fn compile(unit: &[Source], sm: u32) -> (Vec<String>, usize) {
    let texts: Vec<&str> = [PRELUDE].into_iter().chain(unit.iter().map(|s| s.text.as_str())).collect();
    let compiled = match nvrtc::compile(&texts.join("\n"), sm) {
        Ok(compiled) => compiled,
        Err(e) => return (vec![format!("sm_{sm}: {e}")], 0),
    };
    let text = |name: &str| unit.iter().find(|s| s.name == name).map_or("", |s| &s.text);
    let spills = compiled.functions.iter().filter(|f| f.spill_bytes > 0);
    let say = |f: &nvrtc::FunctionInfo| {
        let (name, registers, bytes) = (&f.name, f.registers, f.spill_bytes);
        format!("sm_{sm}: {name} spills {bytes} bytes beside {registers} registers:\n{}", text(name))
    };
    (spills.map(say).collect(), compiled.functions.len())
}
