//! Random programs over every primitive of the Graph IR.
//!
//! A program starts from a few inputs and grows by operations on values that exist: elementwise operations with broadcasts
//! between, chains of movements, reductions, contractions, draws. Shapes are small and hold extents 0 and 1; data holds
//! special values, or, for *exact* programs, small integers on which every operation used is exact, so that all evaluators
//! must agree bit for bit.

use crate::rng::Rng;
use lazuli_ir::graph::Value;
use lazuli_ir::reference::Dense;
use lazuli_ir::{
    BinaryOp, CompareOp, DType, DimVec, DotDims, Element, Error, Graph, Literal, Op, PadDim, ReduceOp, Result, Shape,
    SliceDim, Source, Sources, TensorType, UnaryOp,
};

/// What programs are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Operations, at most.
    pub operations: usize,
    /// Elements a value may have, at most.
    pub elements: usize,
    /// Only operations that are exact on small integers.
    pub exact: bool,
    /// Whether some extents are 0.
    pub empty: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { operations: 14, elements: 2048, exact: false, empty: true }
    }
}

/// A program and the data of its inputs, as row-major literals.
#[derive(Clone, Debug)]
pub struct RandomProgram {
    /// The program.
    pub graph: Graph,
    /// For each input, its elements.
    pub inputs: Vec<Vec<Literal>>,
}

/// The program of a seed.
pub fn random_program(seed: u64, options: &Options) -> Result<RandomProgram> {
    let mut g = Generator {
        rng: Rng::new(seed),
        options: *options,
        graph: Graph::new(format!("random{seed}")),
        values: Vec::new(),
        inputs: Vec::new(),
        base: None,
    };
    let inputs = 1 + g.rng.below(3);
    for _ in 0..inputs {
        let shape = g.shape();
        let dtype = g.dtype();
        g.input(shape, dtype);
    }
    let operations = 1 + g.rng.below(options.operations);
    for _ in 0..operations {
        g.grow()?;
    }
    g.outputs()?;
    Ok(RandomProgram { graph: g.graph, inputs: g.inputs })
}

struct Generator {
    rng: Rng,
    options: Options,
    graph: Graph,
    values: Vec<Value>,
    inputs: Vec<Vec<Literal>>,
    base: Option<Value>,
}

const EXTENTS: [usize; 12] = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64];

impl Generator {
    fn sources(&mut self) -> Sources {
        Source { file: "random.rs", line: self.graph.len() as u32 + 1, column: 1 }.into()
    }

    fn extent(&mut self) -> usize {
        if self.options.empty && self.rng.one_in(60) {
            return 0;
        }
        self.rng.pick(&EXTENTS).unwrap_or(1)
    }

    fn shape(&mut self) -> Shape {
        let rank = self.rng.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4]).unwrap_or(1);
        let mut extents: Vec<usize> = Vec::new();
        for _ in 0..rank {
            let n = self.extent();
            let so_far: usize = extents.iter().map(|n| (*n).max(1)).product();
            extents.push(if so_far * n.max(1) > self.options.elements { 1 } else { n });
        }
        Shape::new(extents)
    }

    fn dtype(&mut self) -> DType {
        self.rng.pick(&[DType::F32, DType::F32, DType::F32, DType::F32, DType::I64, DType::Bool]).unwrap_or(DType::F32)
    }

    fn literal(&mut self, dtype: DType) -> Literal {
        const SPECIAL: [f32; 10] =
            [0.0, -0.0, 1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45, 16_777_217.0, -1.5];
        match dtype {
            DType::Bool => Literal::Bool(self.rng.one_in(2)),
            DType::I64 => Literal::I64(self.rng.below(9) as i64 - 4),
            DType::F32 if self.options.exact => Literal::F32(self.rng.below(7) as f32 - 3.0),
            DType::F32 if self.rng.one_in(24) => Literal::F32(self.rng.pick(&SPECIAL).unwrap_or(0.0)),
            DType::F32 => Literal::F32(self.rng.unit() * 3.0),
        }
    }

    fn input(&mut self, shape: Shape, dtype: DType) -> Value {
        let elements = shape.elements();
        let data = (0..elements).map(|_| self.literal(dtype)).collect();
        self.inputs.push(data);
        let sources = self.sources();
        let v = self.graph.add_input(format!("x{}", self.inputs.len()), TensorType { shape, dtype }, sources);
        self.values.push(v);
        v
    }

    fn ty(&self, v: Value) -> TensorType {
        self.graph.ty(v).clone()
    }

    fn add(&mut self, op: Op, operands: &[Value]) -> Result<Value> {
        let sources = self.sources();
        let v = self.graph.add(op, operands, sources)?;
        self.values.push(v);
        Ok(v)
    }

    fn any(&mut self) -> Result<Value> {
        // Recent values are likelier, so that programs grow deep.
        let n = self.values.len();
        let i = if self.rng.one_in(2) { n - 1 - self.rng.below(n.min(3)) } else { self.rng.below(n) };
        self.values.get(i).copied().ok_or_else(|| Error::internal("no value to draw from"))
    }

    /// A value as `dtype`.
    fn cast(&mut self, v: Value, dtype: DType) -> Result<Value> {
        if self.ty(v).dtype == dtype {
            return Ok(v);
        }
        // Casting huge floats to integers saturates, which is not what exact programs are about.
        self.add(Op::Cast(dtype), &[v])
    }

    fn float(&mut self) -> Result<Value> {
        let v = self.any()?;
        self.cast(v, DType::F32)
    }

    /// A value of exactly this type: one that is there, a broadcast of one that fits, or a constant.
    fn like(&mut self, ty: &TensorType) -> Result<Value> {
        for _ in 0..4 {
            let v = self.any()?;
            let v = if self.ty(v).dtype == ty.dtype { v } else { continue };
            let shape = self.ty(v).shape;
            if shape.same(&ty.shape) {
                return Ok(v);
            }
            if let Some(dims) = align(&shape, &ty.shape) {
                return self.add(Op::Broadcast { shape: ty.shape.clone(), dims }, &[v]);
            }
        }
        match self.rng.below(4) {
            0 if ty.dtype == DType::I64 && ty.shape.rank() > 0 => {
                let dim = self.rng.below(ty.shape.rank());
                self.add(Op::Iota { dim, shape: ty.shape.clone() }, &[])
            }
            1 | 2 if ty.shape.rank() > 0 => {
                let keep: Vec<usize> = (0..ty.shape.rank()).filter(|_| self.rng.one_in(2)).collect();
                let extents = ty.shape.extents();
                let v = self.input(Shape::new(keep.iter().map(|&d| extents[d])), ty.dtype);
                self.add(Op::Broadcast { shape: ty.shape.clone(), dims: keep.into_iter().collect() }, &[v])
            }
            _ => {
                let value = self.literal(ty.dtype);
                self.add(Op::Constant { value, shape: ty.shape.clone() }, &[])
            }
        }
    }

    fn grow(&mut self) -> Result<()> {
        match self.rng.below(16) {
            0 | 1 => self.unary()?,
            2..=4 => self.binary()?,
            5 => self.compare()?,
            6 => self.select()?,
            7..=10 => self.movement()?,
            11..=13 => self.reduce()?,
            14 => self.dot()?,
            _ => self.draw()?,
        };
        Ok(())
    }

    fn unary(&mut self) -> Result<Value> {
        let exact = [UnaryOp::Neg, UnaryOp::Abs];
        let op = if self.options.exact { self.rng.pick(&exact) } else { self.rng.pick(UnaryOp::ALL) };
        let op = op.unwrap_or(UnaryOp::Neg);
        let v = self.float()?;
        self.add(Op::Unary(op), &[v])
    }

    fn binary(&mut self) -> Result<Value> {
        let exact = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Max, BinaryOp::Min];
        let op = if self.options.exact { self.rng.pick(&exact) } else { self.rng.pick(BinaryOp::ALL) };
        let op = op.unwrap_or(BinaryOp::Add);
        let mut a = self.any()?;
        if !op.domain().contains(self.ty(a).dtype) {
            a = self.cast(a, DType::F32)?;
        }
        let b = self.like(&self.ty(a))?;
        self.add(Op::Binary(op), &[a, b])
    }

    fn compare(&mut self) -> Result<Value> {
        let a = self.any()?;
        let b = self.like(&self.ty(a))?;
        let op = self.rng.pick(CompareOp::ALL).unwrap_or(CompareOp::Lt);
        self.add(Op::Compare(op), &[a, b])
    }

    fn select(&mut self) -> Result<Value> {
        let a = self.any()?;
        let ty = self.ty(a);
        let b = self.like(&ty)?;
        let c = self.like(&TensorType { shape: ty.shape, dtype: DType::Bool })?;
        self.add(Op::Select, &[c, a, b])
    }

    fn movement(&mut self) -> Result<Value> {
        let v = self.any()?;
        let shape = self.ty(v).shape;
        let extents = shape.extents();
        match self.rng.below(6) {
            0 => {
                let mut perm: DimVec<usize> = (0..shape.rank()).collect();
                for i in (1..perm.len()).rev() {
                    let j = self.rng.below(i + 1);
                    perm.swap(i, j);
                }
                self.add(Op::Permute(perm), &[v])
            }
            1 => {
                let to = self.regroup(&extents);
                self.add(Op::Reshape(Shape::new(to)), &[v])
            }
            2 => self.broadcast(v, &extents),
            3 => {
                let dims = extents.iter().map(|&n| self.slice_dim(n)).collect();
                self.add(Op::Slice(dims), &[v])
            }
            4 => self.pad(v, &extents),
            _ => {
                let op = if self.rng.one_in(2) { Op::Alias } else { Op::Detach };
                self.add(op, &[v])
            }
        }
    }

    fn slice_dim(&mut self, n: usize) -> SliceDim {
        let start = self.rng.below(n + 1);
        let stop = start + self.rng.below(n - start + 1);
        let step = 1 + self.rng.below(3);
        if n > 1 && self.rng.one_in(2) { SliceDim { start, stop: n, step } } else { SliceDim { start, stop, step } }
    }

    /// Another shape of as many elements: all factors, grouped anew.
    fn regroup(&mut self, extents: &[usize]) -> Vec<usize> {
        if extents.contains(&0) {
            return vec![0, 1 + self.rng.below(3)];
        }
        let mut n: usize = extents.iter().product();
        let mut out = Vec::new();
        while n > 1 && out.len() < 3 {
            let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
            let d = self.rng.pick(&divisors).unwrap_or(1);
            out.push(d);
            n /= d;
        }
        out.push(n);
        if self.rng.one_in(3) {
            out.push(1);
        }
        out
    }

    fn broadcast(&mut self, v: Value, extents: &[usize]) -> Result<Value> {
        let (mut shape, mut dims) = (Vec::new(), DimVec::new());
        let mut elements: usize = extents.iter().product();
        for &n in extents {
            if self.rng.one_in(3) {
                let new = self.extent();
                let new = if elements.max(1) * new.max(1) > self.options.elements { 1 } else { new };
                elements *= new;
                shape.push(new);
            }
            dims.push(shape.len());
            let stretched = self.extent();
            let fits = elements.max(1) * stretched.max(1) <= self.options.elements;
            shape.push(if n == 1 && fits { stretched } else { n });
            elements = elements / n.max(1) * shape.last().copied().unwrap_or(1);
        }
        self.add(Op::Broadcast { shape: Shape::new(shape), dims }, &[v])
    }

    fn pad(&mut self, v: Value, extents: &[usize]) -> Result<Value> {
        let mut dims: DimVec<PadDim> = DimVec::new();
        let mut elements: usize = 1;
        for &n in extents {
            let mut p = PadDim {
                low: self.rng.below(3),
                high: self.rng.below(3),
                interior: self.rng.pick(&[0, 0, 1, 2]).unwrap_or(0),
            };
            if p.extent(n).is_none_or(|m| elements * m.max(1) > 2 * self.options.elements) {
                p = PadDim { low: 0, high: 0, interior: 0 };
            }
            elements *= p.extent(n).unwrap_or(1).max(1);
            dims.push(p);
        }
        let dtype = self.ty(v).dtype;
        let value = self.literal(dtype);
        let value = self.add(Op::Constant { value, shape: Shape::scalar() }, &[])?;
        self.add(Op::Pad(dims), &[v, value])
    }

    fn reduce(&mut self) -> Result<Value> {
        let v = self.any()?;
        let ty = self.ty(v);
        let dims: DimVec<usize> = (0..ty.shape.rank()).filter(|_| self.rng.one_in(2)).collect();
        let op = self.rng.pick(ReduceOp::ALL).unwrap_or(ReduceOp::Sum);
        let empty = dims.iter().any(|&d| ty.shape.dim(d).is_zero());
        match op {
            ReduceOp::Sum if ty.dtype != DType::Bool => self.add(Op::Reduce { op, dims, acc: ty.dtype }, &[v]),
            ReduceOp::Max | ReduceOp::ArgMax if !empty => self.add(Op::Reduce { op, dims, acc: ty.dtype }, &[v]),
            _ => Ok(v),
        }
    }

    fn dot(&mut self) -> Result<Value> {
        let a = self.float()?;
        let left = self.ty(a).shape.extents();
        if left.is_empty() || left.len() > 3 {
            return Ok(a);
        }
        let k = self.rng.below(left.len());
        let batch: Vec<usize> = (0..left.len()).filter(|d| *d != k && self.rng.one_in(3)).collect();
        let columns = self.extent();
        let rows: usize = left.iter().enumerate().filter(|(d, _)| *d != k).map(|(_, n)| *n).product();
        let columns = if rows * columns > self.options.elements { 1 } else { columns };
        let mut right: Vec<usize> = batch.iter().map(|&d| left[d]).collect();
        right.push(left[k]);
        if self.rng.one_in(6) {
            // A vector on the right.
        } else {
            right.push(columns);
        }
        let b = self.input(Shape::new(right), DType::F32);
        let mut dims = DotDims::default();
        dims.batch.extend(batch.iter().enumerate().map(|(r, &l)| (l, r)));
        dims.contract.push((k, batch.len()));
        self.add(Op::Dot { dims, acc: DType::F32 }, &[a, b])
    }

    fn draw(&mut self) -> Result<Value> {
        if self.options.exact {
            return self.any();
        }
        let base = match self.base {
            Some(base) => base,
            None => {
                let seed = self.rng.bits() as i64;
                self.inputs.push(vec![Literal::I64(seed), Literal::I64(self.rng.below(1000) as i64)]);
                let sources = self.sources();
                let base = self.graph.add_input("base", TensorType::new([2], DType::I64), sources);
                self.base = Some(base);
                base
            }
        };
        let stream = self.rng.below(5) as u64;
        let shape = self.shape();
        self.add(Op::Random { stream, shape }, &[base])
    }

    fn outputs(&mut self) -> Result<()> {
        let last = self.values.last().copied().ok_or_else(|| Error::internal("a program without values"))?;
        self.graph.add_output(last);
        for _ in 0..self.rng.below(3) {
            let v = self.any()?;
            self.graph.add_output(v);
        }
        Ok(())
    }
}

/// The dims along which a shape broadcasts to another: aligned at the end, as NumPy does.
fn align(from: &Shape, to: &Shape) -> Option<DimVec<usize>> {
    let offset = to.rank().checked_sub(from.rank())?;
    let fits = |i: usize| from.dim(i).same(to.dim(offset + i)) || from.dim(i).is_one();
    (0..from.rank()).all(fits).then(|| (0..from.rank()).map(|i| offset + i).collect())
}

impl RandomProgram {
    /// The inputs as the reference evaluator takes them.
    pub fn dense_inputs(&self) -> Result<Vec<Dense>> {
        let mut all = Vec::new();
        for ((_, n), data) in self.graph.inputs().iter().zip(&self.inputs) {
            let TensorType { shape, dtype } = self.graph.node(*n).types[0].clone();
            all.push(match dtype {
                DType::F32 => Dense::from_vec(data.iter().map(|l| f32::from_literal(*l)).collect(), shape)?,
                DType::I64 => Dense::from_vec(data.iter().map(|l| i64::from_literal(*l)).collect(), shape)?,
                DType::Bool => Dense::from_vec(data.iter().map(|l| bool::from_literal(*l)).collect(), shape)?,
            });
        }
        Ok(all)
    }
}
