//! Programs for tests of GPUs: small, and right on a real one.

use lazuli_ir::program::{
    BufferArg, BufferDecl, BufferId, CheckSite, KernelCall, KernelCost, OutputDecl, Place, Requirement, SortCall, Step,
};
use lazuli_ir::{DType, Kernel, Layout, Program, Shape, Sources};
use lazuli_runtime::{Argument, Array};

pub const N: usize = 1000;

pub fn numbers(n: usize) -> Array {
    Array::from_vec((0..n).map(|i| i as f32).collect(), &Shape::new([n])).unwrap()
}

pub fn given(array: Array) -> Vec<Argument> {
    vec![Argument { array, donated: true }]
}

pub fn kept(array: &Array) -> Vec<Argument> {
    vec![Argument { array: array.clone(), donated: false }]
}

pub fn call(kernel: usize, from: u32, to: u32) -> Step {
    let arg = |buffer| BufferArg { buffer: BufferId(buffer), offset: 0, strides: Default::default() };
    Step::Kernel(KernelCall {
        kernel,
        args: vec![arg(from), arg(to)],
        extents: vec![N as u64],
        scalars: Vec::new(),
        iterations: 1,
        grain: 1,
        checks: Vec::new(),
        cost: KernelCost::default(),
    })
}

pub fn program(kernels: &[&str], place: Place, steps: Vec<Step>) -> Program {
    let decl = |place| BufferDecl { dtype: DType::F32, elements: N, place };
    Program {
        kernels: kernels.iter().map(|k| Kernel::parse(k).unwrap()).collect(),
        buffers: vec![decl(Place::Input(0)), decl(Place::Workspace(64)), decl(place)],
        steps,
        outputs: vec![OutputDecl { buffer: BufferId(2), dtype: DType::F32, layout: Layout::contiguous([N].into()) }],
        workspace_bytes: 64 + N * 4,
        inputs: 1,
    }
}

pub const TWICE: &str = "kernel twice(%x: f32[n], %y: mut f32[n]) extents(n) {
    loop %i in n grid.x { store %y[%i], mul (load %x[%i]), 2.0 }
}";
pub const PLUS: &str = "kernel plus(%x: f32[n], %y: mut f32[n]) extents(n) {
    loop %i in n grid.x { store %y[%i], add (load %x[%i]), 1.0 }
}";
pub const CHECKED: &str = "kernel checked(%x: f32[n], %y: mut f32[n]) extents(n) {
    loop %i in n grid.x {
        %v = load %x[%i]
        check (le 0.0, %v), site 0, -3 at %i
        store %y[%i], %v
    }
}";

/// `2 x + 1` through the workspace; the result may take the input's storage over.
pub fn twice_plus() -> Program {
    program(&[TWICE, PLUS], Place::Output { donor: Some(0) }, vec![call(0, 0, 1), call(1, 1, 2)])
}

/// The sum of all, as blocks find it together.
pub fn total() -> Program {
    const TOTAL: &str = "kernel total(%x: f32[n], %y: mut f32[]) extents(n) {
        %v = reduce sum %i in n grid.x chunk=256 { yield load %x[%i] }
        finish { store %y[], %v }
    }";
    let mut program = program(&[TOTAL], Place::Output { donor: None }, vec![call(0, 0, 2)]);
    program.buffers[2].elements = 1;
    program.outputs[0].layout = Layout::contiguous(Shape::scalar());
    program
}

/// Rows of a check: it stands for an index of this line.
pub fn checked() -> Program {
    let mut step = call(0, 0, 2);
    if let Step::Kernel(call) = &mut step {
        let requirement = Requirement::Index { extent: 5, wrap: false };
        call.checks = vec![CheckSite { operation: "index_select", sources: Sources::none(), requirement }];
    }
    program(&[CHECKED], Place::Output { donor: None }, vec![step])
}

/// The indices that sort two lines of six numbers, which run backwards through memory.
pub fn sort() -> Program {
    let layout = Layout { shape: [2, 3].into(), strides: smallvec::smallvec![-3, -1], offset: 5 };
    let decl = |dtype, place| BufferDecl { dtype, elements: 6, place };
    let sort = SortCall {
        operand: BufferId(0),
        layout,
        result: BufferId(1),
        dim: 1,
        descending: false,
        cost: KernelCost::default(),
    };
    Program {
        buffers: vec![decl(DType::F32, Place::Input(0)), decl(DType::I64, Place::Output { donor: None })],
        steps: vec![Step::Sort(sort)],
        outputs: vec![OutputDecl { buffer: BufferId(1), dtype: DType::I64, layout: Layout::contiguous([2, 3].into()) }],
        inputs: 1,
        ..Program::default()
    }
}
