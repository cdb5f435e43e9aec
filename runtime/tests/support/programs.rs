//! Programs for tests of GPUs: small, and right on a real one.

use lazuli_ir::matmul::{Activation, MatrixStrides};
use lazuli_ir::program::{
    BufferArg, BufferDecl, BufferId, CheckSite, KernelCall, KernelCost, MatmulCall, MatrixArg, OutputDecl, Place,
    Requirement, SortCall, Step,
};
use lazuli_ir::{DType, Kernel, Layout, Matmul, Program, Shape, Sources};
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
    sort_of(layout, 1, false)
}

/// Two columns of so many elements, largest first.
pub fn long_sort(n: usize) -> Program {
    sort_of(Layout::contiguous([n, 2].into()), 0, true)
}

fn sort_of(layout: Layout, dim: usize, descending: bool) -> Program {
    let shape = layout.shape.clone();
    let decl = |dtype, place| BufferDecl { dtype, elements: shape.elements(), place };
    let count = shape.extents()[dim];
    let (operand, result) = (BufferId(0), BufferId(1));
    let sort = SortCall { operand, layout, result, dim, descending, count, cost: KernelCost::default() };
    Program {
        buffers: vec![decl(DType::F32, Place::Input(0)), decl(DType::I64, Place::Output { donor: None })],
        steps: vec![Step::Sort(sort)],
        outputs: vec![OutputDecl { buffer: result, dtype: DType::I64, layout: Layout::contiguous(shape) }],
        inputs: 1,
        ..Program::default()
    }
}

/// `y y' + z` of `y = 2 x` as a matrix of 20 rows, where `z` are the first numbers of `x`.
pub fn product() -> Program {
    let matmul = Matmul {
        outer: 1,
        batch: 1,
        rows: 20,
        columns: 20,
        terms: 50,
        operands: DType::F32,
        result: DType::F32,
        acc: DType::F32,
        left: MatrixStrides { outer: 0, batch: 0, row: 50, column: 1 },
        right: MatrixStrides { outer: 0, batch: 0, row: 1, column: 50 },
        out: MatrixStrides { outer: 0, batch: 0, row: 20, column: 1 },
        bias: true,
        activation: Activation::Identity,
        tf32: false,
    };
    let at = |buffer| MatrixArg { buffer: BufferId(buffer), offset: 0 };
    let step = MatmulCall {
        matmul,
        left: at(1),
        right: at(1),
        bias: Some(at(0)),
        result: BufferId(2),
        scratch: Some(BufferId(3)),
        cost: KernelCost::default(),
    };
    let mut program = program(&[TWICE], Place::Output { donor: None }, vec![call(0, 0, 1), Step::Matmul(step)]);
    program.buffers[2].elements = 400;
    program.buffers.push(BufferDecl { dtype: DType::U8, elements: 256, place: Place::Workspace(4096) });
    program.workspace_bytes = 4096 + 256;
    program.outputs[0].layout = Layout::contiguous([20, 20].into());
    program
}

/// A product of its first two arguments, which lie without gaps; the third is the bias.
pub fn matmul_of(m: &Matmul) -> Program {
    let spans = m.reaches().map(|(low, high)| (high - low) as usize);
    let decl = |dtype, elements, place| BufferDecl { dtype, elements, place };
    let at = |buffer| MatrixArg { buffer: BufferId(buffer), offset: 0 };
    let step = MatmulCall {
        matmul: m.clone(),
        left: at(0),
        right: at(1),
        bias: m.bias.then(|| at(2)),
        result: BufferId(3),
        scratch: Some(BufferId(4)),
        cost: KernelCost::default(),
    };
    Program {
        buffers: vec![
            decl(m.operands, spans[0], Place::Input(0)),
            decl(m.operands, spans[1], Place::Input(1)),
            decl(m.result, m.columns, Place::Input(2)),
            decl(m.result, spans[2], Place::Output { donor: None }),
            decl(DType::U8, 4 << 20, Place::Workspace(0)),
        ],
        steps: vec![Step::Matmul(step)],
        outputs: vec![OutputDecl {
            buffer: BufferId(3),
            dtype: m.result,
            layout: Layout::contiguous([spans[2]].into()),
        }],
        workspace_bytes: 4 << 20,
        inputs: 3,
        ..Program::default()
    }
}
