//! Every primitive on every kind of layout agrees with the reference evaluator.

use super::run;
use crate::executor::launch;
use lazuli_ir::reference::{Dense, apply};
use lazuli_ir::{
    BinaryOp, CompareOp, DType, Device, DotDims, Layout, Literal, Op, PadDim, ReduceOp, Shape, TensorType, UnaryOp,
    infer,
};
use lazuli_runtime::Array;

/// Small floats with ties, signed zeros and special values, or small integers.
fn storage(dtype: DType, n: usize, seed: usize) -> Array {
    let number = |i: usize| (i + seed).wrapping_mul(2_654_435_761) >> 7;
    let float = |i: usize| match number(i) % 61 {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2 => f32::NEG_INFINITY,
        3 => -0.0,
        4 => 0.0,
        k => (k as f32 - 30.0) / 8.0,
    };
    let shape = Shape::new([n]);
    match dtype {
        DType::Bool => Array::from_vec((0..n).map(|i| number(i) % 2 == 0).collect(), &shape),
        DType::I64 => Array::from_vec((0..n).map(|i| number(i) as i64 % 9 - 4).collect(), &shape),
        DType::U8 => Array::from_vec((0..n).map(|i| number(i) as u8).collect(), &shape),
        DType::I32 => Array::from_vec((0..n).map(|i| number(i) as i32).collect(), &shape),
        DType::F16 => Array::from_vec((0..n).map(|i| lazuli_ir::f16::from_f32(float(i))).collect(), &shape),
        DType::BF16 => Array::from_vec((0..n).map(|i| lazuli_ir::bf16::from_f32(float(i))).collect(), &shape),
        DType::F32 => Array::from_vec((0..n).map(float).collect(), &shape),
        DType::F64 => Array::from_vec((0..n).map(|i| f64::from(float(i))).collect(), &shape),
    }
    .unwrap()
}

/// Row-major, reversed dims, dim 0 repeated, steps with an offset, backwards.
fn layouts(shape: &Shape) -> Vec<Layout> {
    let plain = Layout::contiguous(shape.clone());
    let last = shape.elements() as i64;
    let mut reversed: Vec<usize> = (0..shape.rank()).collect();
    reversed.reverse();
    let other = Layout::contiguous(Shape::from_dims(shape.dims().iter().rev().copied()));
    let mut repeated = plain.clone();
    repeated.strides.iter_mut().take(1).for_each(|s| *s = 0);
    let mut stepped = plain.clone();
    stepped.strides.iter_mut().for_each(|s| *s *= 3);
    stepped.offset = 5;
    let mut backwards = plain.clone();
    backwards.strides.iter_mut().for_each(|s| *s = -*s);
    backwards.offset = last + 2;
    vec![plain, other.permute(&reversed), repeated, stepped, backwards]
}

fn arrays(ty: &TensorType, seed: usize) -> Vec<Array> {
    let base = storage(ty.dtype, 4 * ty.shape.elements() + 16, seed);
    layouts(&ty.shape).into_iter().map(|l| base.with_layout(l).unwrap()).collect()
}

/// The distance between 1 and the next number.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::Bool | DType::U8 | DType::I32 | DType::I64 => 0.0,
        DType::F16 => f64::from(lazuli_ir::f16::EPSILON),
        DType::BF16 => f64::from(lazuli_ir::bf16::EPSILON),
        DType::F32 => f64::from(f32::EPSILON),
        DType::F64 => f64::EPSILON,
    }
}

fn same(actual: &Array, expected: &Dense, ulps: f64, what: &str) {
    assert_eq!(&actual.ty(), expected.ty(), "{what}");
    let actual = super::reference::dense(actual).unwrap();
    for (found, wanted) in actual.literals().zip(expected.literals()) {
        let (a, e) = (found.as_f64(), wanted.as_f64());
        let equal = found == wanted || a.is_nan() && e.is_nan();
        let near = a.is_finite() && (a - e).abs() <= ulps * e.abs().max(1e-37) * epsilon(expected.ty().dtype);
        assert!(equal || near, "{what}: {a:e}, not {e:e}");
    }
}

/// Runs an operation on all pairings of its operands' layouts with the first operand's.
fn check(op: &Op, types: &[TensorType], ulps: f64) {
    let refs: Vec<&TensorType> = types.iter().collect();
    let Ok(ty) = infer(op, &refs) else { panic!("{op:?} on {types:?}") };
    let all: Vec<Vec<Array>> = types.iter().enumerate().map(|(i, t)| arrays(t, i * 101)).collect();
    let variants = all.first().map_or(1, Vec::len);
    for (i, j) in (0..variants).flat_map(|i| (0..variants).map(move |j| (i, j))) {
        let operands: Vec<&Array> = all
            .iter()
            .enumerate()
            .map(|(n, arrays)| &arrays[if n == 0 { i } else { (j + n - 1) % variants }])
            .collect();
        let dense: Vec<Dense> = operands.iter().map(|a| super::reference::dense(a).unwrap()).collect();
        let layouts: Vec<&Layout> = operands.iter().map(|a| a.layout()).collect();
        let what = format!("{op:?} on {types:?} in {layouts:?}");
        match (apply(op, &dense.iter().collect::<Vec<_>>()), run(op, &ty, &operands, Device::Cpu)) {
            (Ok(expected), Ok(actual)) => same(&actual, &expected, ulps, &what),
            // A division by zero, in both.
            (Err(expected), Err(actual)) => assert_eq!(expected.kind(), actual.kind(), "{what}"),
            (expected, actual) => panic!("{what}: {actual:?}, not {expected:?}"),
        }
        if types.len() < 2 && j > 0 {
            break;
        }
    }
}

fn shapes() -> Vec<Shape> {
    vec![
        Shape::scalar(),
        [1].into(),
        [7].into(),
        [0, 3].into(),
        [1, 5, 1].into(),
        [6, 37].into(),
        [3, 4, 5].into(),
        [2, 1, 3, 4].into(),
    ]
}

#[test]
fn elementwise_operations() {
    for shape in shapes() {
        let ty = |dtype| TensorType { shape: shape.clone(), dtype };
        for dtype in DType::ALL {
            for op in UnaryOp::ALL.iter().filter(|op| op.row().domain.contains(dtype)) {
                check(&Op::Unary(*op), &[ty(dtype)], op.row().ulps * 4.0);
            }
            for op in BinaryOp::ALL.iter().filter(|op| op.domain().contains(dtype)) {
                // What is rounded correctly has these bits.
                let ulps = if op.ulps() <= 0.5 { 0.0 } else { op.ulps() * 4.0 };
                check(&Op::Binary(*op), &[ty(dtype), ty(dtype)], ulps);
            }
            for op in CompareOp::ALL {
                check(&Op::Compare(*op), &[ty(dtype), ty(dtype)], 0.0);
            }
            for to in DType::ALL {
                check(&Op::Cast(to), &[ty(dtype)], 0.0);
            }
            check(&Op::Select, &[ty(DType::Bool), ty(dtype), ty(dtype)], 0.0);
            check(&Op::Reshape([shape.elements()].into()), &[ty(dtype)], 0.0);
            let pad = PadDim { low: 2, high: 1, interior: 1 };
            let dims = shape.dims().iter().map(|_| pad).collect();
            check(&Op::Pad(dims), &[ty(dtype), TensorType::new([], dtype)], 0.0);
        }
    }
}

#[test]
fn reductions() {
    for shape in shapes() {
        for mask in 0..1usize << shape.rank() {
            let dims: lazuli_ir::DimVec<usize> = (0..shape.rank()).filter(|d| mask >> d & 1 == 1).collect();
            for op in ReduceOp::ALL {
                for dtype in DType::ALL {
                    let op = Op::Reduce { op: *op, dims: dims.clone(), acc: dtype };
                    let ty = TensorType { shape: shape.clone(), dtype };
                    if infer(&op, &[&ty]).is_ok() {
                        check(&op, &[ty], 40.0);
                    }
                }
            }
        }
    }
}

#[test]
fn sources() {
    for shape in shapes() {
        for dim in 0..shape.rank() {
            check(&Op::Iota { dim, shape: shape.clone() }, &[], 0.0);
        }
        for stream in [0, 3] {
            check(&Op::Random { stream, shape: shape.clone() }, &[TensorType::new([2], DType::I64)], 0.0);
        }
    }
}

#[test]
fn contractions() {
    let f32s = |shape: Shape| TensorType { shape, dtype: DType::F32 };
    type Dims = &'static [usize];
    type Pairs = &'static [(usize, usize)];
    let cases: [(Dims, Dims, Pairs, Pairs); 5] = [
        (&[5, 7], &[7, 3], &[], &[(1, 0)]),
        (&[7], &[7], &[], &[(0, 0)]),
        (&[2, 4, 3], &[2, 3, 5], &[(0, 0)], &[(2, 1)]),
        (&[4, 0], &[0, 3], &[], &[(1, 0)]),
        (&[3, 4], &[5, 4], &[], &[(1, 1)]),
    ];
    for (left, right, batch, contract) in cases {
        let dims = DotDims { batch: batch.iter().copied().collect(), contract: contract.iter().copied().collect() };
        let op = Op::Dot { dims, acc: DType::F32 };
        let types = [f32s(left.into()), f32s(right.into())];
        let ty = infer(&op, &[&types[0], &types[1]]).unwrap();
        for l in layouts(&types[0].shape) {
            for r in layouts(&types[1].shape) {
                let plain = |n: usize| {
                    Array::from_vec((0..n).map(|i| (i * 7 % 11) as f32 - 5.0).collect(), &[n].into()).unwrap()
                };
                let (a, b) = (plain(400).with_layout(l.clone()).unwrap(), plain(400).with_layout(r).unwrap());
                let dense = [super::reference::dense(&a).unwrap(), super::reference::dense(&b).unwrap()];
                let expected = apply(&op, &[&dense[0], &dense[1]]).unwrap();
                same(&run(&op, &ty, &[&a, &b], Device::Cpu).unwrap(), &expected, 0.0, &format!("{op:?} {l:?}"));
            }
        }
    }
}

#[test]
fn a_sum_and_its_transposed_sum_use_different_kernels() {
    let x = Array::from_vec((0..6).map(|i| i as f32).collect(), &[2, 3].into()).unwrap();
    let y = Array::from_vec((0..6).map(|i| 10.0 * i as f32).collect(), &[3, 2].into()).unwrap();
    let (plain, turned) = (
        y.with_layout(Layout::contiguous([2, 3].into())).unwrap(),
        y.with_layout(y.layout().permute(&[1, 0])).unwrap(),
    );
    let ty = TensorType::new([2, 3], DType::F32);
    let add = Op::Binary(BinaryOp::Add);
    assert_eq!(
        run(&add, &ty, &[&x, &plain], Device::Cpu).unwrap().to_vec::<f32>().unwrap(),
        [0.0, 11.0, 22.0, 33.0, 44.0, 55.0]
    );
    assert_eq!(
        run(&add, &ty, &[&x, &turned], Device::Cpu).unwrap().to_vec::<f32>().unwrap(),
        [0.0, 21.0, 42.0, 13.0, 34.0, 55.0]
    );
    assert!(launch::kernels() >= 2);
    let one = Array::full(Literal::F32(1.0), &[2, 3].into()).unwrap();
    assert_eq!(
        run(&add, &ty, &[&x, &one], Device::Cpu).unwrap().to_vec::<f32>().unwrap(),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    );
}
