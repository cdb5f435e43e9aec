//! Gradients against finite differences, first and second order, for every primitive, in the reference's arithmetic.

use super::samples;
use crate::vjp;
use lazuli_ir::reference::{Data, Dense, evaluate};
use lazuli_ir::{BinaryOp, DType, Graph, Literal, Op, Sources, TensorType, UnaryOp, Value};

/// The step of the finite differences; exact in `f32`, as are the points it leads to.
const STEP: f64 = 1.0 / 64.0;

fn floats(x: &Dense) -> &[f64] {
    match x.data() {
        Data::Float(v) => v,
        other => panic!("not floats: {other:?}"),
    }
}

/// Distinct magnitudes, farther from each other and from 0 than a difference reaches, in mixed order; signs alternate.
fn points(count: usize, positive: bool) -> Vec<f64> {
    let stride = [7, 11, 13].into_iter().find(|s| !count.is_multiple_of(*s)).unwrap_or(1);
    let point = |k: usize| {
        let magnitude = 0.4 + (k * stride % count) as f64 / count.max(1) as f64;
        let rounded = (magnitude * 1024.0).round() / 1024.0;
        if positive || k.is_multiple_of(2) { rounded } else { -rounded }
    };
    (0..count).map(point).collect()
}

/// A fixed weight for each element, so that every element of a result counts differently.
fn weight(i: usize) -> f64 {
    ((i * 37 % 64) as f64 - 31.5) / 32.0
}

/// The scale and offset by which cubes of points lie where operand `i` of an operation is smooth.
fn place(op: &Op, i: usize) -> (f64, f64) {
    match op {
        Op::Unary(UnaryOp::Log1p | UnaryOp::Tan | UnaryOp::Asin | UnaryOp::Acos | UnaryOp::Atanh) => (0.25, 0.0),
        Op::Unary(UnaryOp::Acosh) => (1.0, 1.25),
        Op::Unary(UnaryOp::Ceil | UnaryOp::Floor | UnaryOp::Trunc | UnaryOp::Round) => (0.125, 0.0),
        Op::Binary(BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv) => (0.125, 3.0 * i as f64),
        _ => (1.0, 0.0),
    }
}

struct Program {
    /// Its outputs are what is differentiated; its inputs are float tensors and, at the end, the cotangents.
    graph: Graph,
    wrt: Vec<Value>,
    inputs: Vec<Dense>,
}

impl Program {
    /// The operation on the cubes of its operands, so that even linear operations have second derivatives.
    fn of(op: &Op, types: &[TensorType]) -> Program {
        let positive = match op {
            Op::Unary(op) => matches!(
                op,
                UnaryOp::Log | UnaryOp::Log2 | UnaryOp::Log10 | UnaryOp::Sqrt | UnaryOp::Rsqrt | UnaryOp::Acosh
            ),
            Op::Binary(op) => matches!(op, BinaryOp::Pow),
            _ => false,
        };
        let total = types.iter().filter(|t| t.dtype.is_float()).map(|t| t.shape.elements()).sum();
        let mut points = points(total, positive).into_iter();
        let mut program = Program { graph: Graph::new("g"), wrt: Vec::new(), inputs: Vec::new() };
        let mut operands = Vec::new();
        for ty in types {
            let x = program.graph.add_input("x", ty.clone(), Sources::none());
            let n = ty.shape.elements();
            let data = match ty.dtype {
                DType::Bool => Data::Bool((0..n).map(|i| i % 3 == 0).collect()),
                // Indices below 2, some of them twice.
                _ if ty.dtype.is_int() => Data::Int((0..n as i64).map(|i| i * 5 % 7 % 2).collect()),
                _ => Data::Float(points.by_ref().take(n).collect()),
            };
            program.inputs.push(Dense::new(ty.clone(), data).unwrap());
            operands.push(if ty.dtype.is_float() {
                program.wrt.push(x);
                let square = program.binary(BinaryOp::Mul, x, x);
                let cube = program.binary(BinaryOp::Mul, square, x);
                let (scale, offset) = place(op, operands.len());
                let scaled = program.with_number(BinaryOp::Mul, cube, scale);
                program.with_number(BinaryOp::Add, scaled, offset)
            } else {
                x
            });
        }
        let y = program.graph.add(op.clone(), &operands, Sources::none()).unwrap();
        program.graph.set_outputs([y]);
        program
    }

    fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Value {
        self.graph.add(Op::Binary(op), &[a, b], Sources::none()).unwrap()
    }

    fn with_number(&mut self, op: BinaryOp, a: Value, number: f64) -> Value {
        let ty = self.graph.ty(a).clone();
        let value = Literal::from_f64(ty.dtype, number);
        let splat = self.graph.add(Op::Constant { value, shape: ty.shape }, &[], Sources::none()).unwrap();
        self.binary(op, a, splat)
    }

    /// The program of its gradients, with a cotangent of fixed weights for each output; `None` where all are zero.
    fn gradient(mut self) -> Option<Program> {
        let mut pairs = Vec::new();
        for y in self.graph.outputs().to_vec() {
            let ty = self.graph.ty(y).clone();
            pairs.push((y, self.graph.add_input("d", ty.clone(), Sources::none())));
            let weights = (0..ty.shape.elements()).map(weight).collect();
            self.inputs.push(Dense::new(ty, Data::Float(weights)).unwrap());
        }
        let gradients = vjp(&mut self.graph, &pairs, &self.wrt).unwrap();
        self.graph.verify().unwrap();
        let mut known = Vec::new();
        for (dx, x) in gradients.into_iter().zip(std::mem::take(&mut self.wrt)) {
            if let Some(dx) = dx {
                self.wrt.push(x);
                known.push(dx);
            }
        }
        self.graph.set_outputs(known);
        (!self.wrt.is_empty()).then_some(self)
    }

    /// The weighted sum of all outputs.
    fn loss(&self, inputs: &[Dense]) -> f64 {
        let outputs = evaluate(&self.graph, inputs).unwrap();
        outputs.iter().flat_map(|y| floats(y).iter().enumerate()).map(|(i, v)| v * weight(i)).sum()
    }

    fn input_number(&self, x: Value) -> usize {
        self.graph.inputs().iter().position(|(_, n)| *n == x.node).unwrap()
    }

    /// `loss` with one element moved.
    fn moved(&self, input: usize, element: usize, by: f64) -> f64 {
        let mut inputs = self.inputs.clone();
        let mut values = floats(&inputs[input]).to_vec();
        values[element] += by;
        inputs[input] = Dense::new(inputs[input].ty().clone(), Data::Float(values)).unwrap();
        self.loss(&inputs)
    }

    /// Checks `gradient`, the gradient program of `self`, by the five point rule.
    fn check(&self, gradient: &Program, what: &str, failures: &mut Vec<String>) {
        let outputs = evaluate(&gradient.graph, &gradient.inputs).unwrap();
        for (x, dx) in gradient.wrt.iter().zip(outputs) {
            let input = self.input_number(*x);
            for (i, &exact) in floats(&dx).iter().enumerate() {
                let at = |k: f64| self.moved(input, i, k * STEP);
                let estimate = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP);
                let close = (exact - estimate).abs() <= 2e-3 * (1.0 + exact.abs());
                if !close {
                    failures.push(format!("{what}, input {input}, element {i}: {exact} is not {estimate}"));
                }
            }
        }
    }
}

#[test]
fn every_primitive_first_and_second_order() {
    let (mut checked, mut failures) = (0, Vec::new());
    for (op, types) in samples::operations() {
        let program = Program::of(&op, &types);
        // Halves are too coarse for differences.
        let smooth = |d: DType| d.is_float() && !d.is_half();
        let float = program.graph.outputs().iter().all(|y| smooth(program.graph.ty(*y).dtype));
        if !float || program.wrt.is_empty() {
            continue;
        }
        let Some(first) = Program::of(&op, &types).gradient() else { continue };
        program.check(&first, &format!("{op:?}"), &mut failures);
        let Some(second) = Program::of(&op, &types).gradient().and_then(Program::gradient) else { continue };
        first.check(&second, &format!("{op:?}, second order"), &mut failures);
        checked += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked >= UnaryOp::ALL.len() + BinaryOp::ALL.len() + 16, "{checked}");
}

/// The gradients of the inputs, where every cotangent is 1.
fn gradients(text: &str, inputs: &[Dense]) -> Vec<Vec<f64>> {
    let mut graph = Graph::parse(text).unwrap();
    let wrt: Vec<Value> = graph.inputs().iter().map(|(_, n)| (*n).into()).collect();
    let y = graph.outputs()[0];
    let one = Op::Constant { value: Literal::F32(1.0), shape: graph.ty(y).shape.clone() };
    let dy = graph.add(one, &[], Sources::none()).unwrap();
    let found = vjp(&mut graph, &[(y, dy)], &wrt).unwrap();
    graph.set_outputs(found.into_iter().flatten());
    evaluate(&graph, inputs).unwrap().iter().map(|d| floats(d).to_vec()).collect()
}

#[test]
fn kinks_follow_pytorch() {
    let f = |v: &[f32]| Dense::from_vec(v.to_vec(), [v.len()]).unwrap();
    let nan = f32::NAN;
    let (x, y) = (f(&[1.0, 2.0, 3.0, nan]), f(&[1.0, 3.0, 2.0, 1.0]));
    let max =
        gradients("graph g(%x: f32[4], %y: f32[4]) -> (%1) { %1 = max %x, %y : f32[4] }", &[x.clone(), y.clone()]);
    assert_eq!(max, [[0.5, 0.0, 1.0, 1.0], [0.5, 1.0, 0.0, 1.0]]);
    let min = gradients("graph g(%x: f32[4], %y: f32[4]) -> (%1) { %1 = min %x, %y : f32[4] }", &[x, y]);
    assert_eq!(min, [[0.5, 1.0, 0.0, 1.0], [0.5, 0.0, 1.0, 1.0]]);
    let abs = gradients("graph g(%x: f32[4]) -> (%1) { %1 = abs %x : f32[4] }", &[f(&[-2.0, 0.0, -0.0, nan])]);
    assert_eq!(abs, [[-1.0, 0.0, 0.0, 0.0]]);
    let amax = "graph g(%x: f32[4]) -> (%1) { %1 = reduce_max %x dims=[0] acc=f32 : f32[] }";
    assert_eq!(gradients(amax, &[f(&[1.0, 2.0, 2.0, 0.0])]), [[0.0, 1.0, 0.0, 0.0]]);
    assert_eq!(gradients(amax, &[f(&[1.0, nan, 2.0, nan])]), [[0.0, 1.0, 0.0, 0.0]]);
    let over_two = "graph g(%x: f32[2,3]) -> (%1) { %1 = reduce_max %x dims=[0,1] acc=f32 : f32[] }";
    let x = Dense::from_vec(vec![0.0f32, 5.0, 1.0, 5.0, 5.0, 2.0], [2, 3]).unwrap();
    assert_eq!(gradients(over_two, &[x]), [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]);
}

#[test]
fn empty_values_have_empty_gradients() {
    let x = Dense::from_vec::<f32>(vec![], [0, 3]).unwrap();
    let sum = "graph g(%x: f32[0,3]) -> (%1) { %1 = reduce_sum %x dims=[0] acc=f32 : f32[3] }";
    assert_eq!(gradients(sum, std::slice::from_ref(&x)), [[0.0; 0]]);
    let dot = "graph g(%x: f32[0,3]) -> (%1) { %1 = dot %x, %x contract=[0;0] : f32[3,3] }";
    assert_eq!(gradients(dot, std::slice::from_ref(&x)), [[0.0; 0]]);
    let slice = "graph g(%x: f32[4]) -> (%1) { %1 = slice %x [2..2] : f32[0] }";
    assert_eq!(gradients(slice, &[Dense::from_vec(vec![1.0f32; 4], [4]).unwrap()]), [[0.0; 4]]);
}
