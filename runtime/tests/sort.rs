//! Sort steps against a naive stable sort, with NaN, zeros of both signs and ties, in any layout, on one and two threads; and the
//! order in which failed checks of several steps are reported.

#![allow(clippy::panic, clippy::unwrap_used)]

mod support;

use lazuli_ir::kernel_eval::KernelData;
use lazuli_ir::philox::philox;
use lazuli_ir::program::{
    BufferArg, BufferDecl, BufferId, CheckSite, KernelCall, KernelCost, OutputDecl, Place, Requirement, SortCall, Step,
};
use lazuli_ir::{DType, ErrorKind, Kernel, Layout, Literal, Program, Shape, Sources};
use lazuli_runtime::cpu::{host_target, set_num_threads};
use lazuli_runtime::{Argument, Array, Executable};
use std::cmp::Ordering;

/// Few distinct values, so that there are ties, and what is special about floats.
fn values(dtype: DType, n: usize) -> KernelData {
    let special = [f64::NAN, -f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1e-45, -1e300, 3e9, -3e9];
    let value = |i: usize| match philox(5, 1, i as u64) % 40 {
        k @ 0..10 if dtype.is_float() => Literal::F64(special[k as usize]),
        0 if dtype == DType::I64 => Literal::I64(i64::MIN),
        1 if dtype == DType::I64 => Literal::I64(i64::MAX),
        k => Literal::F64(f64::from(k) - 20.5),
    };
    support::cast(dtype, (0..n).map(value))
}

fn order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap(),
        (a, b) => a.cmp(&b),
    }
}

/// The indices that sort each line of a layout, in row-major order.
fn naive(data: &KernelData, layout: &Layout, dim: usize, descending: bool) -> Vec<i64> {
    let literals: Vec<Literal> = data.literals().collect();
    let elements: Vec<Literal> = layout.numbers().map(|i| literals[i as usize]).collect();
    let extents = layout.shape.extents();
    let (n, inner): (usize, usize) = (extents[dim], extents[dim + 1..].iter().product());
    let mut out = vec![0i64; elements.len()];
    for first in (0..elements.len()).filter(|i| n > 0 && i / inner.max(1) % n == 0) {
        let compare = |a: Literal, b: Literal| match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => order(a.as_f64(), b.as_f64()),
        };
        let mut line: Vec<usize> = (0..n).collect();
        line.sort_by(|a, b| {
            let forward = compare(elements[first + a * inner], elements[first + b * inner]);
            if descending { forward.reverse() } else { forward }
        });
        line.iter().enumerate().for_each(|(i, index)| out[first + i * inner] = *index as i64);
    }
    out
}

fn sorted(data: &KernelData, layout: &Layout, dim: usize, descending: bool) -> Vec<i64> {
    first(data, layout, dim, descending, usize::MAX)
}

fn first(data: &KernelData, layout: &Layout, dim: usize, descending: bool, count: usize) -> Vec<i64> {
    let array = support::array(data).with_layout(layout.clone()).unwrap();
    let outputs = program(data, layout, dim, descending, count).run(vec![Argument { array, donated: false }]).unwrap();
    outputs[0].to_vec().unwrap()
}

fn program(data: &KernelData, layout: &Layout, dim: usize, descending: bool, count: usize) -> Executable {
    let elements = layout.shape.elements();
    let mut view = layout.clone();
    view.offset = 0;
    let decl = |dtype, elements, place| BufferDecl { dtype, elements, place };
    let call = SortCall {
        operand: BufferId(0),
        layout: view,
        result: BufferId(1),
        dim,
        descending,
        count,
        cost: KernelCost::default(),
    };
    let program = Program {
        kernels: Vec::new(),
        buffers: vec![
            decl(data.dtype(), layout.span(), Place::Input(0)),
            decl(DType::I64, elements, Place::Output { donor: None }),
        ],
        steps: vec![Step::Sort(call)],
        outputs: vec![OutputDecl {
            buffer: BufferId(1),
            dtype: DType::I64,
            layout: Layout::contiguous(layout.shape.clone()),
        }],
        workspace_bytes: 0,
        inputs: 1,
    };
    Executable::new(program, host_target()).unwrap()
}

#[test]
fn sorts_are_stable_in_every_layout() {
    for dtype in DType::ALL {
        let row = Layout::contiguous([6, 5, 40].into());
        let data = values(dtype, 6 * 5 * 40);
        let flipped = row.flip(&[0, 2]);
        let layouts = [
            row.clone(),
            row.permute(&[2, 0, 1]),
            flipped,
            Layout::contiguous([1200].into()),
            Layout::contiguous([3, 0, 2].into()),
            Layout::contiguous([1, 1].into()),
            Layout::contiguous([7].into()).broadcast(&[4, 7].into(), &[1]),
            Layout { shape: [3, 200].into(), strides: smallvec::smallvec![1, 3], offset: 17 },
        ];
        for layout in &layouts {
            for dim in 0..layout.shape.rank() {
                for descending in [false, true] {
                    let expected = naive(&data, layout, dim, descending);
                    for threads in [1, 2] {
                        set_num_threads(threads);
                        let found = sorted(&data, layout, dim, descending);
                        assert_eq!(found, expected, "{dtype} {layout:?} dim {dim} descending {descending}");
                    }
                }
            }
        }
        set_num_threads(1);
    }
}

#[test]
fn the_first_few_are_those_of_the_whole_line() {
    for dtype in [DType::F32, DType::F64, DType::U8] {
        let data = values(dtype, 5 * 700);
        let layout = Layout::contiguous([5, 700].into());
        for descending in [false, true] {
            let all = sorted(&data, &layout, 1, descending);
            for count in [1, 2, 63, 64, 65, 400, 699, 700] {
                let few = first(&data, &layout, 1, descending, count);
                for line in 0..5 {
                    let from = line * 700;
                    assert_eq!(few[from..from + count], all[from..from + count], "{dtype} {count} of line {line}");
                }
            }
        }
    }
}

#[test]
fn sorts_that_reach_outside_are_refused() {
    let data = values(DType::F32, 10);
    let call = |layout: Layout, elements| {
        let decl = |dtype, elements, place| BufferDecl { dtype, elements, place };
        let step = SortCall {
            operand: BufferId(0),
            layout,
            result: BufferId(1),
            dim: 0,
            descending: false,
            count: 10,
            cost: KernelCost::default(),
        };
        Program {
            buffers: vec![
                decl(data.dtype(), 10, Place::Input(0)),
                decl(DType::I64, elements, Place::Output { donor: None }),
            ],
            steps: vec![Step::Sort(step)],
            inputs: 1,
            ..Program::default()
        }
    };
    assert!(Executable::new(call(Layout::contiguous([10].into()), 10), host_target()).is_ok());
    assert!(Executable::new(call(Layout::contiguous([10].into()), 9), host_target()).is_err());
    assert!(Executable::new(call(Layout::contiguous([11].into()), 11), host_target()).is_err());
}

#[test]
fn the_first_failed_step_is_the_error() {
    let kernel = Kernel::parse(
        "kernel c(%x: i64[n]) extents(n) {
           loop %i in n parallel vector(4) { %v = load %x[%i]  check (lt %v, 10), site 0, %v at %i }
         }",
    )
    .unwrap();
    let n = 100u64;
    let step = |input: u32, extent| {
        let requirement = Requirement::Index { extent, wrap: false };
        Step::Kernel(KernelCall {
            kernel: 0,
            args: vec![BufferArg { buffer: BufferId(input), offset: 0, strides: Default::default() }],
            extents: vec![n],
            scalars: Vec::new(),
            iterations: n,
            grain: 16,
            checks: vec![CheckSite { operation: "check_index", sources: Sources::none(), requirement }],
            cost: KernelCost::default(),
        })
    };
    let decl = |i| BufferDecl { dtype: DType::I64, elements: n as usize, place: Place::Input(i) };
    let program = Program {
        kernels: vec![kernel],
        buffers: vec![decl(0), decl(1)],
        steps: vec![step(0, 10), step(1, 11)],
        inputs: 2,
        ..Program::default()
    };
    let program = Executable::new(program, host_target()).unwrap();
    let array = |bad: &[usize]| {
        let v: Vec<i64> = (0..n as usize).map(|i| if bad.contains(&i) { 1000 + i as i64 } else { 3 }).collect();
        Argument { array: Array::from_vec(v, &Shape::new([n as usize])).unwrap(), donated: false }
    };
    for threads in [1, 2] {
        set_num_threads(threads);
        assert!(program.run(vec![array(&[]), array(&[])]).is_ok());
        let error = program.run(vec![array(&[90, 40]), array(&[2])]).unwrap_err();
        assert!(error.message().contains("index 1040 is out of range for 10 elements"), "{error}");
        let error = program.run(vec![array(&[]), array(&[99, 7])]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Index);
        assert!(error.message().contains("index 1007 is out of range for 11 elements"), "{error}");
        // The next call is right.
        assert!(program.run(vec![array(&[]), array(&[])]).is_ok());
    }
    set_num_threads(1);
}

#[test]
#[ignore = "a measurement"]
fn times() {
    set_num_threads(1);
    for (dtype, shape) in [(DType::F32, [1, 1 << 20]), (DType::I64, [1, 1 << 20]), (DType::F32, [1 << 14, 64])] {
        let n = shape[0] * shape[1];
        let data = support::cast(dtype, (0..n as u64).map(|i| Literal::I64(i64::from(philox(1, 1, i) >> 8))));
        let layout = Layout::contiguous(shape.into());
        let (program, array) =
            (program(&data, &layout, 1, false, usize::MAX), support::array(&data).with_layout(layout).unwrap());
        for _ in 0..3 {
            let start = std::time::Instant::now();
            program.run(vec![Argument { array: array.clone(), donated: false }]).unwrap();
            println!("{dtype} {shape:?}: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        }
    }
}
