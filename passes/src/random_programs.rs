//! Random programs over all primitives: the graph passes must not change what the reference computes, bit for bit.

use crate::{Options, Pass, optimize};
use lazuli_ir::reference::{Dense, evaluate};
use lazuli_ir::{
    BinaryOp, CompareOp, DType, DimVec, DotDims, Graph, Literal, Op, PadDim, ReduceOp, Shape, SliceDim, Sources,
    TensorType, UnaryOp, Value,
};

/// A linear congruential generator: the same programs everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn literal(&mut self, dtype: DType) -> Literal {
        const FLOATS: [f32; 12] =
            [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -7.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40];
        const INTEGERS: [i64; 7] = [0, 1, -1, 2, 5, i64::MIN, i64::MAX];
        match dtype {
            DType::Bool => Literal::Bool(self.below(2) == 1),
            DType::I64 => Literal::I64(self.of(&INTEGERS)),
            DType::F32 => Literal::F32(self.of(&FLOATS)),
        }
    }

    fn dense(&mut self, ty: &TensorType) -> Dense {
        let n = ty.shape.elements();
        let all: Vec<Literal> = (0..n).map(|_| self.literal(ty.dtype)).collect();
        let shape = ty.shape.clone();
        match ty.dtype {
            DType::Bool => Dense::from_vec(all.iter().map(|l| l.bits() == 1).collect(), shape),
            DType::I64 => Dense::from_vec(all.iter().map(|l| l.bits() as i64).collect(), shape),
            DType::F32 => Dense::from_vec(all.iter().map(|l| l.as_f64() as f32).collect(), shape),
        }
        .unwrap()
    }

    /// An operation for operand `x` with random attributes, and its other operands where it takes some.
    fn operation(&mut self, g: &Graph, x: Value, values: &[Value]) -> (Op, Vec<Value>) {
        let ty = g.ty(x).clone();
        let extents = ty.shape.extents();
        let rank = extents.len();
        let alike: Vec<Value> = values.iter().copied().filter(|v| g.ty(*v) == &ty).collect();
        let y = self.of(&alike);
        match self.below(18) {
            0 => (Op::Unary(self.of(UnaryOp::ALL)), vec![x]),
            1..=4 => (Op::Binary(self.of(BinaryOp::ALL)), if self.below(2) == 0 { vec![x, y] } else { vec![y, x] }),
            5 => (Op::Compare(self.of(CompareOp::ALL)), vec![x, y]),
            6 => {
                let condition = TensorType::new(ty.shape.clone(), DType::Bool);
                let conditions: Vec<Value> = values.iter().copied().filter(|v| g.ty(*v) == &condition).collect();
                let c = if conditions.is_empty() { x } else { self.of(&conditions) };
                (Op::Select, vec![c, x, y])
            }
            7 => (Op::Cast(self.of(&DType::ALL)), vec![x]),
            8 => {
                let mut perm: DimVec<usize> = (0..rank).collect();
                (0..rank).for_each(|i| perm.swap(i, self.below(rank)));
                (Op::Permute(perm), vec![x])
            }
            9 => {
                let mut to: Vec<usize> = extents.to_vec();
                match self.below(4) {
                    0 => to = vec![ty.shape.elements()],
                    1 => to.retain(|n| *n != 1),
                    2 => to.insert(self.below(rank + 1), 1),
                    _ => to.reverse(),
                }
                (Op::Reshape(Shape::new(to)), vec![x])
            }
            10 | 11 => {
                let (mut shape, mut dims): (Vec<usize>, DimVec<usize>) = (vec![], DimVec::new());
                for &n in &extents {
                    if rank < 4 && self.below(3) == 0 {
                        shape.push(self.of(&[1, 2]));
                    }
                    dims.push(shape.len());
                    shape.push(if n == 1 { self.of(&[1, 2, 3]) } else { n });
                }
                if rank < 4 && self.below(3) == 0 {
                    shape.push(self.of(&[1, 2]));
                }
                (Op::Broadcast { shape: Shape::new(shape), dims }, vec![x])
            }
            12 => {
                let ranges = extents.iter().map(|&n| {
                    let start = self.below(2).min(n);
                    SliceDim { start, stop: n - self.below(2).min(n - start), step: 1 + self.below(2) }
                });
                (Op::Slice(ranges.collect()), vec![x])
            }
            13 | 14 => {
                let scalar = TensorType::new(Shape::scalar(), ty.dtype);
                let scalars: Vec<Value> = values.iter().copied().filter(|v| g.ty(*v) == &scalar).collect();
                let pads =
                    (0..rank).map(|_| PadDim { low: self.below(2), high: self.below(2), interior: self.below(3) / 2 });
                let pads = Op::Pad(pads.collect());
                (pads, vec![x, if scalars.is_empty() { x } else { self.of(&scalars) }])
            }
            15 => {
                let dims = (0..rank).filter(|_| self.below(2) == 0).collect();
                (Op::Reduce { op: self.of(ReduceOp::ALL), dims, acc: ty.dtype }, vec![x])
            }
            16 => {
                let y = self.of(values);
                let other = g.ty(y).shape.extents();
                let pairs: Vec<(usize, usize)> = (0..rank)
                    .flat_map(|l| (0..other.len()).map(move |r| (l, r)))
                    .filter(|&(l, r)| extents[l] == other[r])
                    .collect();
                let mut dims = DotDims::default();
                if !pairs.is_empty() {
                    dims.contract.push(self.of(&pairs));
                    let batch = self.of(&pairs);
                    if self.below(2) == 0 && batch.0 != dims.contract[0].0 && batch.1 != dims.contract[0].1 {
                        dims.batch.push(batch);
                    }
                }
                (Op::Dot { dims, acc: ty.dtype }, vec![x, y])
            }
            _ => match self.below(3) {
                0 => (Op::Alias, vec![x]),
                1 if rank > 0 => (Op::Iota { dim: self.below(rank), shape: ty.shape }, vec![]),
                _ => (Op::Constant { value: self.literal(ty.dtype), shape: ty.shape }, vec![]),
            },
        }
    }
}

fn program(seed: u64) -> (Graph, Vec<Dense>) {
    let mut random = Random(seed);
    // Neighbouring seeds part after a few steps.
    for _ in 0..8 {
        random.below(2);
    }
    let mut g = Graph::new("g");
    let mut inputs = Vec::new();
    for (dtype, extents) in [
        (DType::F32, &[2, 3][..]),
        (DType::F32, &[2, 3]),
        (DType::F32, &[]),
        (DType::F32, &[1, 3]),
        (DType::I64, &[2, 3]),
        (DType::Bool, &[2, 3]),
        (DType::F32, &[3, 0]),
        (DType::F32, &[9]),
        (DType::F32, &[5, 3]),
    ] {
        let ty = TensorType::new(extents, dtype);
        inputs.push(random.dense(&ty));
        g.add_input("x", ty, Sources::none());
    }
    let mut values: Vec<Value> = g.nodes().map(Value::from).collect();
    for _ in 0..200 {
        // Recent values more often, so that chains arise.
        let recent = if random.below(2) == 0 { values.len().saturating_sub(3) } else { 0 };
        let x = values[recent + random.below(values.len() - recent)];
        let (op, operands) = random.operation(&g, x, &values);
        if let Ok(v) = g.add(op, &operands, Sources::none())
            && g.ty(v).shape.elements() <= 200
            && g.ty(v).shape.rank() <= 5
        {
            values.push(v);
        }
        if values.len() == 25 {
            break;
        }
    }
    // Some rules look at who else reads a value: not all of them are outputs.
    values.retain(|v| g.uses(v.node).is_empty() || random.below(4) == 0);
    g.set_outputs(values);
    (g, inputs)
}

/// The values' bits, every NaN alike.
fn bits(x: &Dense) -> Vec<u64> {
    let bits = |l: Literal| match l {
        Literal::F32(v) if v.is_nan() => u64::MAX,
        Literal::Bool(_) | Literal::I64(_) | Literal::F32(_) => l.bits(),
    };
    match x.ty().dtype {
        DType::Bool => x.to_vec::<bool>().unwrap().into_iter().map(|v| bits(Literal::Bool(v))).collect(),
        DType::I64 => x.to_vec::<i64>().unwrap().into_iter().map(|v| bits(Literal::I64(v))).collect(),
        DType::F32 => x.to_vec::<f32>().unwrap().into_iter().map(|v| bits(Literal::F32(v))).collect(),
    }
}

#[test]
fn graph_passes_keep_every_bit() {
    let mut every = Options::default();
    every.verify = true;
    for seed in 0..3000 {
        let (graph, inputs) = program(seed);
        let expected = evaluate(&graph, &inputs).unwrap();
        for options in [every.clone(), every.clone().without(Pass::Cse), every.clone().without(Pass::Simplify)] {
            let (made, _) = optimize(&graph, &options).unwrap();
            let came = evaluate(&made, &inputs).unwrap();
            for (i, (a, b)) in expected.iter().zip(&came).enumerate() {
                let same = a.ty() == b.ty() && bits(a) == bits(b);
                assert!(same, "seed {seed}, output {i}, {options:?}:\n{graph}\n{made}\n{a:?}\n{b:?}");
            }
        }
    }
}

#[test]
fn simplify_reaches_a_fixed_point() {
    for seed in 0..1000 {
        let (graph, _) = program(seed);
        let once = optimize(&graph, &Options::default()).unwrap().0;
        let (twice, report) = optimize(&once, &Options::default()).unwrap();
        assert_eq!(once, twice, "seed {seed}:\n{graph}");
        assert_eq!(report.passes.iter().map(|p| p.rewrites).sum::<usize>(), 0, "seed {seed}:\n{once}");
    }
}
