//! Kernels of single primitives, as eager evaluation runs them, against the reference: every operation, dtype and class of
//! strides.

use super::check::Check;
use super::placement::{array, bits, dense, random_layout, repeated};
use super::setup::{Setup, target_of_many_chunks};
use crate::data;
use crate::program::{Fault, Options, RandomProgram, Values, random_program};
use crate::rng::Rng;
use lazuli_ir::program::{BufferArg, BufferDecl, BufferId, KernelCall, KernelCost, OutputDecl, Place, Program, Step};
use lazuli_ir::reference::{Dense, Summary, compare, evaluate, evaluate_bounds};
use lazuli_ir::{
    BinaryOp, CompareOp, DType, DimVec, Graph, Layout, Literal, Op, ReduceOp, Result, Shape, Sources, Target,
    TargetKind, TensorType, UnaryOp,
};
use lazuli_passes::compile::iterations;
use lazuli_passes::primitive::{Primitive, PrimitiveKey, RowLength, StrideClass, checks, kernel};
use lazuli_runtime::Array;
use lazuli_runtime::cpu::{LaunchArg, compile, host_target, launch, set_num_threads};
use std::fmt;

/// One operation on operands that lie somehow.
#[derive(Clone)]
pub struct PrimitiveCase {
    op: Op,
    primitive: Primitive,
    inputs: Vec<Dense>,
    layouts: Vec<Layout>,
    /// Where the result lies.
    result: Layout,
    /// The loop extents, reduced dims last.
    extents: Vec<usize>,
    target: Target,
}

impl fmt::Debug for PrimitiveCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PrimitiveCase { op, inputs, layouts, result, extents, .. } = self;
        write!(f, "{op:?} over {extents:?} into {result:?}")?;
        inputs.iter().zip(layouts).try_for_each(|(x, l)| write!(f, "\n  {x}, {l:?}"))
    }
}

const EXTENTS: [usize; 16] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65];
const LONG: [usize; 5] = [1000, 1023, 2049, 4096, 4999];

impl PrimitiveCase {
    /// The case of a seed.
    pub fn random(seed: u64) -> PrimitiveCase {
        let random = &mut Rng::new(seed);
        let rank = random.pick(&[0, 1, 1, 2, 2, 3]).unwrap_or(1);
        let mut extents: Vec<usize> = (0..rank).map(|_| random.pick(&EXTENTS).unwrap_or(1)).collect();
        if extents.iter().product::<usize>() > 20_000 {
            extents[0] = 2;
        }
        if rank > 0 && extents.iter().product::<usize>() < 200 && random.one_in(3) {
            let d = random.below(rank);
            extents = vec![2 + random.below(3); rank];
            extents[d] = random.pick(&LONG).unwrap_or(1000);
        }
        let shape = Shape::new(extents.clone());
        let (op, primitive, types) = operation(random, &shape);
        let values = if random.one_in(2) { Values::SmallIntegers } else { Values::Special };
        let mut inputs: Vec<Dense> = types.iter().map(|ty| data::tensor(random, ty, values)).collect();
        let mut layouts: Vec<Layout> = types.iter().map(|ty| random_layout(random, &ty.shape)).collect();
        if primitive == Primitive::Random {
            layouts = vec![Layout::contiguous(types[0].shape.clone())];
        }
        for (x, l) in inputs.iter_mut().zip(&layouts) {
            *x = repeated(x, l);
        }
        let kept = match primitive {
            Primitive::Reduce { inner, .. } => Shape::new(extents[..rank - inner].to_vec()),
            _ => shape,
        };
        let mut order: Vec<usize> = (0..kept.rank()).collect();
        if random.one_in(3) {
            random.shuffle(&mut order);
        }
        let stored = Layout::contiguous(Shape::new(order.iter().map(|&d| kept.extents()[d])));
        let place = |d| order.iter().position(|o| *o == d).unwrap_or(d);
        let result = stored.permute(&(0..order.len()).map(place).collect::<Vec<_>>());
        let target = if random.one_in(2) { target_of_many_chunks(4096, 1 << 16, 100) } else { host_target().clone() };
        PrimitiveCase { op, primitive, inputs, layouts, result, extents, target }
    }

    /// The operation as a graph of its own.
    fn graph(&self) -> Result<Graph> {
        let mut graph = Graph::new("primitive");
        let add = |x: &Dense| graph.add_input("x", x.ty().clone(), Sources::none());
        let operands: Vec<_> = self.inputs.iter().map(add).collect();
        let out = graph.add(self.op.clone(), &operands, Sources::none())?;
        graph.add_output(out);
        Ok(graph)
    }

    fn key(&self, graph: &Graph, target: &Target) -> PrimitiveKey {
        let classes = |l: &Layout| -> DimVec<StrideClass> { l.strides.iter().map(|s| StrideClass::of(*s)).collect() };
        PrimitiveKey {
            primitive: self.primitive,
            dtype: graph.ty(graph.outputs()[0]).dtype,
            rank: self.extents.len(),
            operands: self.inputs.iter().zip(&self.layouts).map(|(x, l)| (x.ty().dtype, classes(l))).collect(),
            result: classes(&self.result),
            rows: RowLength::of(target.kind != TargetKind::Cpu, self.reduced()),
        }
    }

    /// Elements that a reduction reduces.
    fn reduced(&self) -> u64 {
        self.extents.iter().skip(self.result.strides.len()).map(|n| *n as u64).product()
    }

    /// The case as a program of one kernel for a target: what it means, how its inputs lie, what runs.
    pub(crate) fn program(&self, target: &Target) -> Result<(RandomProgram, Vec<Layout>, Program)> {
        let graph = self.graph()?;
        let kernel = kernel(&self.key(&graph, target), target)?;
        kernel.verify()?;
        let dtype = graph.ty(graph.outputs()[0]).dtype;
        let mut program = Program { inputs: self.inputs.len(), ..Program::default() };
        for (i, (x, l)) in self.inputs.iter().zip(&self.layouts).enumerate() {
            let (dtype, elements) = (x.ty().dtype, l.span());
            program.buffers.push(BufferDecl { dtype, elements, place: Place::Input(i) });
        }
        let elements = self.result.shape.elements();
        program.buffers.push(BufferDecl { dtype, elements, place: Place::Output { donor: None } });
        let buffers = self.layouts.iter().chain([&self.result]).enumerate();
        let args =
            buffers.map(|(i, l)| BufferArg { buffer: BufferId(i as u32), offset: 0, strides: run_time(l).into() });
        let extents: Vec<u64> = self.extents.iter().map(|n| *n as u64).collect();
        program.steps.push(Step::Kernel(KernelCall {
            kernel: 0,
            args: args.collect(),
            iterations: iterations(&kernel, &extents),
            extents,
            scalars: Vec::new(),
            grain: 1,
            checks: Vec::new(),
            cost: KernelCost::default(),
        }));
        let buffer = BufferId(self.inputs.len() as u32);
        program.outputs.push(OutputDecl { buffer, dtype, layout: self.result.clone() });
        program.kernels.push(kernel);
        let meaning = RandomProgram { graph, inputs: self.inputs.clone(), faults: Vec::new() };
        Ok((meaning, self.layouts.clone(), program))
    }
}

/// The strides that a kernel is told.
fn run_time(l: &Layout) -> Vec<i64> {
    l.strides.iter().copied().filter(|s| StrideClass::of(*s) == StrideClass::Other).collect()
}

/// An operation whose result (before reduction) has this shape, and the types of its operands.
fn operation(random: &mut Rng, shape: &Shape) -> (Op, Primitive, Vec<TensorType>) {
    let dtype = if random.one_in(3) { DType::F32 } else { random.pick(&DType::ALL).unwrap_or(DType::F32) };
    let ty = TensorType { shape: shape.clone(), dtype };
    let fitting = |random: &mut Rng, takes: &dyn Fn(DType) -> bool| {
        let all: Vec<DType> = DType::ALL.into_iter().filter(|d| takes(*d)).collect();
        let dtype = if takes(dtype) { dtype } else { random.pick(&all).unwrap_or(DType::F32) };
        TensorType { shape: shape.clone(), dtype }
    };
    let rank = shape.rank();
    match random.below(10) {
        0 | 1 => {
            let op = random.pick(UnaryOp::ALL).unwrap_or(UnaryOp::Neg);
            let ty = fitting(random, &|d| op.row().domain.contains(d));
            (Op::Unary(op), Primitive::Unary(op), vec![ty])
        }
        2 | 3 => {
            let op = random.pick(BinaryOp::ALL).unwrap_or(BinaryOp::Add);
            // What checks its operands runs as a program.
            let op = if op == BinaryOp::TruncDiv { BinaryOp::Add } else { op };
            let ty = fitting(random, &|d| op.domain().contains(d) && !checks(&Op::Binary(op), d));
            (Op::Binary(op), Primitive::Binary(op), vec![ty.clone(), ty])
        }
        4 => {
            let op = random.pick(CompareOp::ALL).unwrap_or(CompareOp::Lt);
            (Op::Compare(op), Primitive::Compare(op), vec![ty.clone(), ty])
        }
        5 => {
            let condition = TensorType { dtype: DType::Bool, ..ty.clone() };
            (Op::Select, Primitive::Select, vec![condition, ty.clone(), ty])
        }
        6 => (Op::Cast(random.pick(&DType::ALL).unwrap_or(DType::F32)), Primitive::Cast, vec![ty]),
        7 if rank == 1 && random.one_in(2) => {
            let shape = shape.clone();
            (Op::Random { stream: 0, shape }, Primitive::Random, vec![TensorType::new([2], DType::I64)])
        }
        7 if rank == 1 => (Op::Iota { dim: 0, shape: shape.clone() }, Primitive::Arange, vec![]),
        7 => (Op::Alias, Primitive::Copy, vec![ty]),
        _ => {
            let op = random.pick(ReduceOp::ALL).unwrap_or(ReduceOp::Sum);
            let ty = fitting(random, &|d| crate::operator::Operator::Reduce(op).takes(d));
            let inner = if op.is_position() { 1.min(rank) } else { random.below(rank + 1) };
            let empty = shape.extents()[rank - inner..].contains(&0);
            if inner == 0 || (empty && !op.rounds()) {
                return (Op::Alias, Primitive::Copy, vec![ty]);
            }
            let dims = (rank - inner..rank).collect();
            (Op::Reduce { op, dims, acc: ty.dtype }, Primitive::Reduce { op, inner }, vec![ty])
        }
    }
}

/// Runs a primitive's kernel, whole and in chunks, and compares its result.
///
/// # Errors
/// What differs, with the kernel.
pub fn check_primitive(case: &PrimitiveCase) -> Result<Summary, String> {
    let said = |e: lazuli_ir::Error| format!("{e}\n{case:?}");
    let graph = case.graph().map_err(said)?;
    let bounds = evaluate_bounds(&graph, &case.inputs, 3).map_err(said)?;
    let key = case.key(&graph, &case.target);
    let kernel = kernel(&key, &case.target).map_err(said)?;
    let said = |e: lazuli_ir::Error| format!("{e}\n{key:?}\n{kernel}");
    kernel.verify().map_err(said)?;
    let code = compile(std::slice::from_ref(&kernel), &case.target).map_err(said)?.remove(0);
    let extents: Vec<u64> = case.extents.iter().map(|n| *n as u64).collect();
    let n = iterations(&kernel, &extents);
    let mut arrays = Vec::new();
    for (x, l) in case.inputs.iter().zip(&case.layouts) {
        arrays.push(array(x, l).map_err(said)?);
    }
    let strides: Vec<Vec<i64>> = case.layouts.iter().chain([&case.result]).map(run_time).collect();
    let run = |threads: usize, grain: u64| -> Result<Array, String> {
        set_num_threads(threads);
        let storage = TensorType { shape: Shape::new([case.result.shape.elements()]), dtype: key.dtype };
        let out = Array::uninit(&storage).and_then(|a| a.with_layout(case.result.clone())).map_err(said)?;
        let all = arrays.iter().chain([&out]).zip(&strides);
        let args: Vec<LaunchArg<'_>> = all.map(|(array, strides)| LaunchArg { array, strides }).collect();
        launch(&code, &args, &extents, &[], &[], n, grain).map_err(said)?;
        Ok(out)
    };
    let first = run(1, n.max(1))?;
    let summary = compare(&[dense(&first).map_err(said)?], &bounds).map_err(|m| format!("{m}\n{case:?}\n{kernel}"))?;
    for (threads, grain) in [(1, 1), (2, 1), (2, n / 7 + 1)] {
        if bits(&first).ok() != bits(&run(threads, grain)?).ok() {
            return Err(format!("{threads} threads in chunks of {grain} give other bits\n{case:?}\n{kernel}"));
        }
    }
    Ok(summary)
}

/// One operation of a random program by itself, on operands that lie somehow: what eager evaluation runs as a program.
///
/// # Errors
/// What differs, with the kernels.
pub fn check_operation(seed: u64) -> Result<Summary, String> {
    let Some((program, setup)) = single_operation(seed).map_err(|e| e.to_string())? else {
        return Ok(Summary::default());
    };
    Check::MachineCode
        .run(&program, &setup)
        .map_err(|e| format!("{e}\n{}\n{setup:?}\n{:?}", program.graph, texts(&program)))
}

/// One operation of a random program by itself, and how its operands lie; none where the program has none.
pub(crate) fn single_operation(seed: u64) -> Result<Option<(RandomProgram, Setup)>> {
    let random = &mut Rng::new(seed ^ 0x09e);
    let whole = random_program(seed, &Options::of_seed(seed));
    let nodes: Vec<_> = whole.graph.nodes().filter(|n| !whole.graph.operands(*n).is_empty()).collect();
    // The operation that a seed names comes first.
    let picked = if random.one_in(2) { nodes.first().copied() } else { random.pick(&nodes) };
    let Some(n) = picked else { return Ok(None) };
    let operands = whole.graph.operands(n);
    let mut before = whole.graph.clone();
    before.set_outputs(operands.iter().copied());
    let inputs = evaluate(&before, &whole.inputs)?;
    let mut graph = Graph::new("operation");
    let add = |(i, x): (usize, &Dense)| graph.add_input(format!("x{i}"), x.ty().clone(), Sources::none());
    let values: Vec<_> = inputs.iter().enumerate().map(add).collect();
    let op = whole.graph.op(n).clone();
    let last = values.last().map_or(0, |_| values.len() - 1);
    let value = match &op {
        Op::CheckIndex { extent, .. } => Some(Literal::I64(*extent as i64)),
        Op::Binary(b) if b.divides() && inputs[last].ty().dtype.is_int() => {
            Some(Literal::zero(inputs[last].ty().dtype))
        }
        _ => None,
    };
    let out = graph.add(op, &values, Sources::none())?;
    graph.add_output(out);
    let faults = value.into_iter().map(|value| Fault { input: last, value }).collect();
    let program = RandomProgram { graph, inputs, faults };
    let mut setup = Setup::plain(&program);
    // An index in range may not be in range once elements are repeated, but what repeats is one of them.
    setup.layouts = program.inputs.iter().map(|x| random_layout(random, &x.ty().shape)).collect();
    Ok(Some((program, setup)))
}

fn texts(program: &RandomProgram) -> Vec<String> {
    program.inputs.iter().map(ToString::to_string).collect()
}
