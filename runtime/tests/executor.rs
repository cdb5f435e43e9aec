//! The executor: placement, donation, overlapping calls, threads, reports, errors.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::program::{BufferArg, BufferDecl, BufferId, KernelCall, KernelCost, OutputDecl, Place, Step};
use lazuli_ir::{DType, ErrorKind, Kernel, Layout, Literal, Program, Shape};
use lazuli_runtime::cpu::{host_target, set_num_threads};
use lazuli_runtime::{Argument, Array, Executable};
use std::sync::Mutex;

/// The number of threads is the process's: tests that set it take turns.
static THREADS: Mutex<()> = Mutex::new(());

const N: usize = 10_000;

fn call(kernel: usize, args: &[(u32, i64)], iterations: u64, grain: u64) -> KernelCall {
    KernelCall {
        kernel,
        args: args
            .iter()
            .map(|&(buffer, offset)| BufferArg { buffer: BufferId(buffer), offset, strides: Default::default() })
            .collect(),
        extents: vec![N as u64],
        scalars: Vec::new(),
        iterations,
        grain,
        checks: Vec::new(),
        cost: KernelCost::default(),
    }
}

/// `y = 2 x` through the workspace, `z = y + 1`, `s = sum z`; `y` may take the storage of input 0 over.
fn program(grain: u64) -> Program {
    let kernels = [
        "kernel twice(%x: f32[n], %y: mut f32[n]) extents(n) { loop %i in n parallel vector(4) unroll(2) { store %y[%i], mul (load %x[%i]), 2.0 } }",
        "kernel plus(%x: f32[n], %y: mut f32[n]) extents(n) { loop %i in n parallel vector(4) { store %y[%i], add (load %x[%i]), 0.1 } }",
        "kernel sum(%x: f32[n], %s: mut f32[]) extents(n) {
           %v = reduce sum %i in n parallel chunk=512 vector(4) unroll(4) { yield load %x[%i] }
           finish { store %s[], %v }
         }",
    ];
    let decl = |elements, place| BufferDecl { dtype: DType::F32, elements, place };
    let output = |buffer, layout| OutputDecl { buffer: BufferId(buffer), dtype: DType::F32, layout };
    let n = N as u64;
    let row = Layout::contiguous(Shape::new([N]));
    Program {
        kernels: kernels.iter().map(|k| Kernel::parse(k).unwrap()).collect(),
        buffers: vec![
            decl(N, Place::Input(0)),
            decl(N, Place::Workspace(64)),
            decl(N, Place::Output { donor: Some(0) }),
            decl(1, Place::Output { donor: None }),
        ],
        steps: vec![
            Step::Kernel(call(0, &[(0, 0), (1, 0)], n, grain)),
            Step::Kernel(call(1, &[(1, 0), (2, 0)], n, grain)),
            Step::Kernel(call(2, &[(2, 0), (3, 0)], n.div_ceil(512), 1)),
        ],
        outputs: vec![
            output(2, row.clone()),
            output(3, Layout::contiguous(Shape::scalar())),
            output(0, Layout { shape: Shape::new([N / 2]), strides: smallvec::smallvec![2], offset: 1 }),
        ],
        workspace_bytes: 64 + N * 4,
        inputs: 1,
    }
}

fn input() -> Array {
    Array::from_vec((0..N).map(|i| (i % 1013) as f32 * 0.37).collect(), &Shape::new([N])).unwrap()
}

fn bits(a: &Array) -> Vec<u32> {
    a.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn results_do_not_depend_on_threads_or_grain() {
    let _turn = THREADS.lock().unwrap();
    let mut results = Vec::new();
    for (threads, grain) in [(1, N as u64), (1, 100), (2, 100), (4, 7), (2, 1000)] {
        set_num_threads(threads);
        let program = Executable::new(program(grain), host_target()).unwrap();
        for _ in 0..20 {
            let outputs = program.run(vec![Argument { array: input(), donated: false }]).unwrap();
            results.push(outputs.iter().map(bits).collect::<Vec<_>>());
        }
    }
    for r in &results {
        assert_eq!(r, &results[0]);
    }
    let x = input().to_vec::<f32>().unwrap();
    assert_eq!(f32::from_bits(results[0][0][77]), x[77] * 2.0 + 0.1);
    assert_eq!(f32::from_bits(results[0][2][5]), x[11]);
    set_num_threads(1);
}

#[test]
fn storage_is_taken_over_only_from_its_sole_owner() {
    let mut plain = program(N as u64);
    plain.outputs.truncate(2);
    let program = Executable::new(plain, host_target()).unwrap();
    let expected = program.run(vec![Argument { array: input(), donated: false }]).unwrap();

    let array = input();
    let at = array.as_ptr();
    let (outputs, report) = program.run_reported(vec![Argument { array, donated: true }]).unwrap();
    assert_eq!(report.taken_over, [true]);
    assert_eq!(report.step_nanos.len(), 3);
    assert_eq!(outputs[0].as_ptr(), at);
    assert_eq!(bits(&outputs[0]), bits(&expected[0]));

    let array = input();
    let other = array.clone();
    let (outputs, report) = program.run_reported(vec![Argument { array, donated: true }]).unwrap();
    assert_eq!(report.taken_over, [false]);
    assert_eq!(bits(&other), bits(&input()));
    assert_eq!(bits(&outputs[1]), bits(&expected[1]));
}

#[test]
fn calls_overlap() {
    let _turn = THREADS.lock().unwrap();
    set_num_threads(2);
    let program = Executable::new(program(500), host_target()).unwrap();
    let expected: Vec<Vec<u32>> =
        program.run(vec![Argument { array: input(), donated: false }]).unwrap().iter().map(bits).collect();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..200 {
                    let outputs = program.run(vec![Argument { array: input(), donated: true }]).unwrap();
                    assert_eq!(outputs.iter().take(2).map(bits).collect::<Vec<_>>(), expected[..2]);
                }
            });
        }
    });
    set_num_threads(1);
}

#[test]
fn wrong_programs_and_arguments_are_refused() {
    let program_ok = Executable::new(program(N as u64), host_target()).unwrap();
    assert_eq!(program_ok.run(Vec::new()).unwrap_err().kind(), ErrorKind::Value);
    let short = Array::full(Literal::F32(1.0), &Shape::new([3])).unwrap();
    assert!(program_ok.run(vec![Argument { array: short, donated: false }]).is_err());
    let mut wrong = program(N as u64);
    let mut plus = call(1, &[(1, 0), (2, 0)], N as u64, N as u64);
    plus.args[1].offset = 1;
    wrong.steps[1] = Step::Kernel(plus);
    assert_eq!(Executable::new(wrong, host_target()).unwrap_err().kind(), ErrorKind::Internal);
    let mut wrong = program(N as u64);
    wrong.workspace_bytes = 100;
    assert!(Executable::new(wrong, host_target()).is_err());
}

#[test]
#[ignore = "a measurement"]
fn call_overhead() {
    let text = "kernel twice(%x: f32[n], %y: mut f32[n]) extents(n) { loop %i in n parallel vector(4) { store %y[%i], mul (load %x[%i]), 2.0 } }";
    for kernels in [1usize, 10, 100] {
        let decl = |place| BufferDecl { dtype: DType::F32, elements: N, place };
        let mut step = call(0, &[(0, 0), (1, 0)], 8, 8);
        step.extents = vec![8];
        let program = Program {
            kernels: vec![Kernel::parse(text).unwrap()],
            buffers: vec![decl(Place::Input(0)), decl(Place::Output { donor: None })],
            steps: vec![Step::Kernel(step); kernels],
            outputs: vec![OutputDecl {
                buffer: BufferId(1),
                dtype: DType::F32,
                layout: Layout::contiguous(Shape::new([N])),
            }],
            workspace_bytes: 0,
            inputs: 1,
        };
        let program = Executable::new(program, host_target()).unwrap();
        let array = input();
        let rounds = 20_000;
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                program.run(vec![Argument { array: array.clone(), donated: false }]).unwrap();
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(rounds));
        }
        println!("{kernels} kernels: {best:.0} ns a call");
    }
}
