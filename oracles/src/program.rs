//! Random well-typed programs with inputs: what differential tests run, so that bugs are found which nobody thought of.
//!
//! Two kinds of values. [`Values::SmallIntegers`] draws floats that are small integers and only takes operations that keep
//! every intermediate result, in any order of summation, an integer that `f32` holds: all evaluators must agree bit for bit.
//! [`Values::Special`] takes every operation and mixes in zeros of both signs, subnormals, the largest numbers, infinities
//! and NaN: evaluators must agree within the bounds of [`evaluate_bounds`](lazuli_ir::reference::evaluate_bounds).
//!
//! A program starts from three inputs and grows by operations on values that exist, recent ones likelier, so that it becomes
//! deep; single operations are here, and what compilers treat specially (a softmax, a contraction with bias and activation)
//! is in `patterns`. Extents are those at which loops are cut: 0 to 9, 16, 17, 33, 64, and where asked for thousands.

use crate::data;
use crate::rng::Rng;
use lazuli_ir::reference::Dense;
use lazuli_ir::{
    BinaryOp, CompareOp, DType, DimVec, DotDims, Graph, Op, PadDim, ReduceOp, Shape, SliceDim, Source, Sources,
    TensorType, UnaryOp, Value, infer,
};

/// What the elements of a random program are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Floats are small integers, and all results exact.
    SmallIntegers,
    /// Any floats, the special ones among them.
    Special,
}

/// What programs are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Operations, about.
    pub operations: usize,
    /// Elements a value may have, at most.
    pub elements: usize,
    /// What the elements are.
    pub values: Values,
    /// Extents to draw from; 0 is among them now and then.
    pub extents: &'static [usize],
}

/// Extents around those of vectors, unrolled vectors and small tiles.
const SMALL: [usize; 14] = [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 64];
/// Extents long enough for several chunks, with every length of tail.
const LONG: [usize; 12] = [1, 2, 3, 5, 8, 17, 64, 129, 1000, 1023, 2049, 4999];

impl Options {
    /// Programs on small tensors: many run in a second.
    pub fn small(values: Values) -> Options {
        Options { operations: 20, elements: 2048, values, extents: &SMALL }
    }

    /// Programs on rows of thousands of elements.
    pub fn long(values: Values) -> Options {
        Options { operations: 10, elements: 20_000, values, extents: &LONG }
    }

    /// The kind of program that a seed gets where all kinds are wanted: half exact, an eighth on long rows.
    pub fn of_seed(seed: u64) -> Options {
        let values = if seed.is_multiple_of(2) { Values::SmallIntegers } else { Values::Special };
        if seed % 8 < 7 {
            Options::small(values)
        } else {
            Options::long(if seed % 16 < 8 { Values::SmallIntegers } else { values })
        }
    }
}

/// A random program and inputs for it.
#[derive(Clone, Debug)]
pub struct RandomProgram {
    /// The program.
    pub graph: Graph,
    /// Its inputs.
    pub inputs: Vec<Dense>,
}

/// Integers up to here, and all integers below in magnitude, are exact in `f32`.
pub(crate) const EXACT: f64 = 16_777_216.0;
/// Inputs of a program, at most.
const INPUTS: usize = 8;

/// The random program of a seed. The same arguments give the same program and inputs.
///
/// ```
/// use lazuli_ir::reference::{compare, evaluate, evaluate_bounds};
/// use lazuli_oracles::{Options, Values, random_program};
/// let p = random_program(1, &Options::small(Values::Special));
/// let bounds = evaluate_bounds(&p.graph, &p.inputs, 0)?;
/// let summary = compare(&evaluate(&p.graph, &p.inputs)?, &bounds)?;
/// assert_eq!(summary.worst, 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn random_program(seed: u64, options: &Options) -> RandomProgram {
    let mut maker = Maker {
        random: Rng::new(seed),
        graph: Graph::new("random"),
        inputs: Vec::new(),
        pool: Vec::new(),
        options: *options,
    };
    for _ in 0..3 {
        let ty = TensorType { shape: maker.shape(), dtype: maker.dtype() };
        maker.input(ty);
    }
    // Steps that find nothing to do make no node; the bound ends a search that goes nowhere.
    for _ in 0..options.operations * 8 {
        if maker.graph.len() >= options.operations + maker.inputs.len() {
            break;
        }
        maker.step();
    }
    maker.outputs();
    RandomProgram { graph: maker.graph, inputs: maker.inputs }
}

/// A value, and the largest magnitude that its elements can have.
pub(crate) type Bounded = (Value, f64);

pub(crate) struct Maker {
    pub(crate) random: Rng,
    pub(crate) graph: Graph,
    inputs: Vec<Dense>,
    pub(crate) pool: Vec<Bounded>,
    options: Options,
}

impl Maker {
    pub(crate) fn exact(&self) -> bool {
        self.options.values == Values::SmallIntegers
    }

    pub(crate) fn ty(&self, v: Value) -> TensorType {
        self.graph.ty(v).clone()
    }

    pub(crate) fn extent(&mut self) -> usize {
        if self.random.one_in(48) { 0 } else { self.random.pick(self.options.extents).unwrap_or(1) }
    }

    fn shape(&mut self) -> Shape {
        let rank = self.random.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4]).unwrap_or(1);
        let (mut extents, mut elements) = (Vec::new(), 1);
        for _ in 0..rank {
            let n = self.extent();
            let n = if elements * n.max(1) > self.options.elements { 1 + self.random.below(2) } else { n };
            elements *= n.max(1);
            extents.push(n);
        }
        Shape::new(extents)
    }

    fn dtype(&mut self) -> DType {
        match self.random.below(8) {
            0 => DType::Bool,
            1 => DType::I64,
            _ => DType::F32,
        }
    }

    fn input(&mut self, ty: TensorType) -> Bounded {
        let line = self.inputs.len() as u32 + 1;
        self.inputs.push(data::tensor(&mut self.random, &ty, self.options.values));
        let v = self.graph.add_input(format!("x{line}"), ty, place(line));
        self.pool.push((v, data::LARGEST));
        (v, data::LARGEST)
    }

    /// Adds an operation whose elements are at most `limit` in magnitude, unless it does not fit or could be inexact.
    pub(crate) fn add(&mut self, op: Op, operands: &[Value], limit: f64) -> Option<Bounded> {
        let types: Vec<&TensorType> = operands.iter().map(|v| self.graph.ty(*v)).collect();
        let ty = infer(&op, &types).ok()?;
        let inexact = self.exact() && ty.dtype.is_float() && limit > EXACT;
        if inexact || ty.shape.elements() > self.options.elements || ty.shape.rank() > 5 {
            return None;
        }
        let v = self.graph.add(op, operands, place(self.graph.len() as u32 + 1)).ok()?;
        self.pool.push((v, limit));
        Some((v, limit))
    }

    pub(crate) fn any(&mut self) -> Bounded {
        let n = self.pool.len();
        let recent = self.random.below(n.min(4));
        if self.random.one_in(2) { self.pool[n - 1 - recent] } else { self.pool[self.random.below(n)] }
    }

    /// Some value that is a float.
    pub(crate) fn float(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        if self.graph.ty(x).dtype.is_float() { Some((x, limit)) } else { self.add(Op::Cast(DType::F32), &[x], limit) }
    }

    /// Some value of exactly this type: one that is there, a broadcast of one that fits, or something new.
    pub(crate) fn like(&mut self, ty: &TensorType) -> Option<Bounded> {
        let same: Vec<Bounded> = self.pool.iter().filter(|(v, _)| self.graph.ty(*v) == ty).copied().collect();
        if !same.is_empty() && self.random.one_in(2) {
            return self.random.pick(&same);
        }
        let fits = |v: Value| self.graph.ty(v).dtype == ty.dtype && align(&self.graph.ty(v).shape, &ty.shape).is_some();
        let fitting: Vec<Bounded> = self.pool.iter().filter(|(v, _)| fits(*v)).copied().collect();
        if !fitting.is_empty() && !self.random.one_in(4) {
            let (v, limit) = self.random.pick(&fitting)?;
            let dims = align(&self.graph.ty(v).shape, &ty.shape)?;
            return self.add(Op::Broadcast { shape: ty.shape.clone(), dims }, &[v], limit);
        }
        if self.inputs.len() < INPUTS && self.random.one_in(3) {
            let keep: DimVec<usize> = (0..ty.shape.rank()).filter(|_| !self.random.one_in(3)).collect();
            let shape = Shape::from_dims(keep.iter().map(|&d| ty.shape.dim(d)));
            let (v, limit) = self.input(TensorType { shape, dtype: ty.dtype });
            return self.add(Op::Broadcast { shape: ty.shape.clone(), dims: keep }, &[v], limit);
        }
        let value = data::literal(&mut self.random, ty.dtype, self.options.values);
        self.add(Op::Constant { value, shape: ty.shape.clone() }, &[], data::LARGEST)
    }

    fn step(&mut self) {
        // A step that does not fit makes nothing, and the next is tried.
        let _ = match self.random.below(20) {
            0 => self.source(),
            1 | 2 => self.unary(),
            3..=5 => self.binary(),
            6 => self.choice(),
            7 => self.cast(),
            8..=11 => self.movement(),
            12 => self.pad(),
            13 | 14 => self.reduce().map(|(v, limit, _)| (v, limit)),
            15 => self.spread_back(),
            16 => self.normalised(),
            17 => self.dot(),
            18 => self.product(),
            _ => self.linear(),
        };
    }

    fn source(&mut self) -> Option<Bounded> {
        if self.inputs.len() < INPUTS && self.random.one_in(3) {
            let ty = TensorType { shape: self.shape(), dtype: self.dtype() };
            return Some(self.input(ty));
        }
        let shape = self.shape();
        match self.random.below(4) {
            0 if !self.exact() => {
                let base = self.like(&TensorType::new([2], DType::I64))?;
                let stream = self.random.below(5) as u64;
                self.add(Op::Random { stream, shape }, &[base.0], 1.0)
            }
            1 => {
                let (x, limit) = self.any();
                let op = if self.random.one_in(2) { Op::Alias } else { Op::Detach };
                self.add(op, &[x], limit)
            }
            _ => {
                let dim = self.random.below(shape.rank());
                let limit = shape.extents().get(dim).map_or(1.0, |n| *n as f64);
                self.add(Op::Iota { dim, shape }, &[], limit)
            }
        }
    }

    fn unary(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        let exact = [UnaryOp::Neg, UnaryOp::Abs];
        let op = self.random.pick(if self.exact() { &exact } else { UnaryOp::ALL })?;
        self.add(Op::Unary(op), &[x], limit)
    }

    fn binary(&mut self) -> Option<Bounded> {
        let (a, la) = self.any();
        let (b, lb) = self.like(&self.ty(a))?;
        let op = self.random.pick(BinaryOp::ALL)?;
        let limit = match op {
            BinaryOp::Add | BinaryOp::Sub => la + lb,
            BinaryOp::Mul => la * lb,
            BinaryOp::Div => f64::INFINITY,
            BinaryOp::Max | BinaryOp::Min => la.max(lb),
            BinaryOp::Copysign => la,
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::ShiftLeft | BinaryOp::ShiftRight => f64::INFINITY,
            BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Hypot => f64::INFINITY,
            // A divisor may be 0.
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv if self.ty(a).dtype.is_float() => f64::INFINITY,
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv | BinaryOp::TruncDiv => return None,
        };
        let (a, b) = if self.random.one_in(3) { (b, a) } else { (a, b) };
        self.add(Op::Binary(op), &[a, b], limit)
    }

    fn choice(&mut self) -> Option<Bounded> {
        let (a, la) = self.any();
        let ty = self.ty(a);
        let (b, lb) = self.like(&ty)?;
        let compare = Op::Compare(self.random.pick(CompareOp::ALL)?);
        let (c, _) = match self.random.one_in(2) {
            true => self.add(compare, &[a, b], 1.0)?,
            false => self.like(&TensorType { shape: ty.shape, dtype: DType::Bool })?,
        };
        self.add(Op::Select, &[c, a, b], la.max(lb))
    }

    fn cast(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        let to = self.random.pick(&DType::ALL)?;
        self.add(Op::Cast(to), &[x], limit.max(1.0))
    }

    fn movement(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        let shape = self.ty(x).shape;
        let op = match self.random.below(4) {
            0 => {
                let mut perm: DimVec<usize> = (0..shape.rank()).collect();
                self.random.shuffle(&mut perm);
                Op::Permute(perm)
            }
            1 => Op::Reshape(self.regrouped(&shape)),
            2 => Op::Slice(shape.extents().into_iter().map(|n| self.range(n)).collect()),
            _ => self.stretched(&shape),
        };
        self.add(op, &[x], limit)
    }

    /// A range of a dim, not often a short one.
    fn range(&mut self, n: usize) -> SliceDim {
        if self.random.one_in(3) {
            return SliceDim { start: 0, stop: n, step: 1 };
        }
        let start = self.random.below(n + 1).min(self.random.below(n + 1));
        let stop = if self.random.one_in(2) { n } else { start + self.random.below(n - start + 1) };
        SliceDim { start, stop, step: 1 + self.random.below(3) }
    }

    /// A shape of as many elements: the prime factors dealt anew, in order, with dims of extent 1 among them.
    fn regrouped(&mut self, shape: &Shape) -> Shape {
        let mut extents: Vec<usize> = vec![1];
        for factor in shape.extents().into_iter().flat_map(factors) {
            if extents.len() < 4 && self.random.one_in(2) {
                extents.push(1);
            }
            if let Some(last) = extents.last_mut() {
                *last *= factor;
            }
        }
        if extents == [1] && self.random.one_in(2) { Shape::scalar() } else { Shape::new(extents) }
    }

    fn stretched(&mut self, shape: &Shape) -> Op {
        let (mut extents, mut dims): (Vec<usize>, DimVec<usize>) = (Vec::new(), DimVec::new());
        for d in shape.extents() {
            if self.random.one_in(3) {
                extents.push(self.extent());
            }
            dims.push(extents.len());
            extents.push(if d == 1 { self.extent() } else { d });
        }
        Op::Broadcast { shape: Shape::new(extents), dims }
    }

    fn pad(&mut self) -> Option<Bounded> {
        let (x, la) = self.any();
        let ty = self.ty(x);
        let (v, lb) = self.like(&TensorType { shape: Shape::scalar(), dtype: ty.dtype })?;
        let dims = (0..ty.shape.rank()).map(|_| PadDim {
            low: self.random.below(3),
            high: self.random.below(3),
            interior: self.random.below(6) / 4,
        });
        let op = Op::Pad(dims.collect());
        self.add(op, &[x, v], la.max(lb))
    }

    /// A reduction; also gives the dims that it keeps.
    pub(crate) fn reduce(&mut self) -> Option<(Value, f64, DimVec<usize>)> {
        let (x, limit) = self.any();
        let ty = self.ty(x);
        let dims: DimVec<usize> = (0..ty.shape.rank()).filter(|_| self.random.one_in(2)).collect();
        let kept = (0..ty.shape.rank()).filter(|d| !dims.contains(d)).collect();
        let count: usize = dims.iter().map(|&d| ty.shape.extents()[d]).product();
        let op = self.random.pick(ReduceOp::ALL)?;
        let limit = match op {
            ReduceOp::Sum => limit * count as f64,
            ReduceOp::Prod => limit.max(1.0).powf(count as f64),
            ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin => limit,
            ReduceOp::ArgMax | ReduceOp::ArgMin => count as f64,
        };
        let (v, limit) = self.add(Op::Reduce { op, dims, acc: ty.dtype }, &[x], limit)?;
        Some((v, limit, kept))
    }

    /// A contraction of two values that are there, over dims that happen to have the same extents.
    fn dot(&mut self) -> Option<Bounded> {
        let (a, la) = self.any();
        let (b, lb) = self.any();
        let (left, right) = (self.ty(a).shape.extents(), self.ty(b).shape.extents());
        let (mut dims, mut count) = (DotDims::default(), 1);
        for (i, m) in left.iter().enumerate() {
            let used = |j: usize, dims: &DotDims| dims.batch.iter().chain(&dims.contract).any(|p| p.1 == j);
            let partner = right.iter().enumerate().find(|(j, n)| *n == m && !used(*j, &dims)).map(|(j, _)| j);
            match (partner, self.random.below(4)) {
                (Some(j), 0) => dims.batch.push((i, j)),
                (Some(j), 1 | 2) => {
                    dims.contract.push((i, j));
                    count *= m;
                }
                _ => {}
            }
        }
        let acc = self.ty(a).dtype;
        self.add(Op::Dot { dims, acc }, &[a, b], la * lb * count as f64)
    }

    /// A contraction with a right side made for it: over one dim, some others as batch, rows in any order.
    fn product(&mut self) -> Option<Bounded> {
        let (a, la) = self.float()?;
        let left = self.ty(a).shape.extents();
        let k = self.random.below(left.len());
        let count = *left.get(k)?;
        let mut right: Vec<(usize, Option<usize>)> = vec![(count, Some(k))];
        right.extend((0..left.len()).filter(|d| *d != k && self.random.one_in(3)).map(|d| (left[d], Some(d))));
        for _ in 0..self.random.pick(&[0, 1, 1, 1, 2]).unwrap_or(1) {
            right.push((self.extent(), None));
        }
        self.random.shuffle(&mut right);
        let ty = TensorType::new(Shape::new(right.iter().map(|p| p.0)), DType::F32);
        if ty.shape.elements() > self.options.elements {
            return None;
        }
        let (b, lb) = self.like(&ty)?;
        let mut dims = DotDims::default();
        for (r, l) in right.iter().enumerate().filter_map(|(r, p)| p.1.map(|l| (r, l))) {
            if l == k { dims.contract.push((l, r)) } else { dims.batch.push((l, r)) }
        }
        self.add(Op::Dot { dims, acc: DType::F32 }, &[a, b], la * lb * count as f64)
    }

    /// What nothing uses is an output, and some of what is used, inputs included; now and then one value is two outputs.
    fn outputs(&mut self) {
        for n in self.graph.nodes() {
            let is_input = matches!(self.graph.op(n), Op::Input { .. });
            if self.graph.uses(n).is_empty() && !is_input || self.random.one_in(12) {
                self.graph.add_output(n.into());
                if self.random.one_in(24) {
                    self.graph.add_output(n.into());
                }
            }
        }
        if self.graph.outputs().is_empty()
            && let Some((v, _)) = self.pool.last()
        {
            self.graph.add_output(*v);
        }
    }
}

/// The prime factors; 0 and 1 are themselves.
fn factors(mut n: usize) -> Vec<usize> {
    let mut out = Vec::new();
    let mut p = 2;
    while p * p <= n {
        while n.is_multiple_of(p) {
            out.push(p);
            n /= p;
        }
        p += 1;
    }
    if n != 1 || out.is_empty() {
        out.push(n);
    }
    out
}

/// The dims along which a shape broadcasts to another: aligned at the end, as NumPy does.
fn align(from: &Shape, to: &Shape) -> Option<DimVec<usize>> {
    let offset = to.rank().checked_sub(from.rank())?;
    let fits = |i: usize| from.dim(i).same(to.dim(offset + i)) || from.dim(i).is_one();
    (0..from.rank()).all(fits).then(|| (0..from.rank()).map(|i| offset + i).collect())
}

fn place(line: u32) -> Sources {
    Source { file: "random.rs", line, column: 1 }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazuli_ir::reference::{compare, evaluate, evaluate_bounds};

    #[test]
    fn programs_follow_from_their_seeds_and_their_text_is_faithful() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let options = Options::of_seed(seed);
            let RandomProgram { graph, inputs } = random_program(seed, &options);
            graph.verify().unwrap_or_else(|e| panic!("seed {seed}: {e}\n{graph}"));
            assert_eq!(Graph::parse(&graph.to_string()).unwrap(), graph, "seed {seed}");
            assert!(!graph.outputs().is_empty() && graph.len() >= 3, "seed {seed}: {graph}");
            assert_eq!(random_program(seed, &options).graph, graph);
            assert_eq!(random_program(seed, &options).inputs, inputs);
            seen.extend(graph.nodes().map(|n| graph.op(n).name()));
        }
        let all =
            ["constant", "iota", "alias", "detach", "random", "select", "cast", "permute", "reshape", "broadcast"];
        let rest = ["slice", "pad", "dot", "reduce_sum", "reduce_max", "reduce_argmax", "tanh", "rsqrt", "div", "ge"];
        assert!(all.iter().chain(&rest).all(|name| seen.contains(name)), "{seen:?}");
    }

    #[test]
    fn small_integers_are_exact() {
        for seed in 0..150 {
            let p = random_program(seed, &Options::small(Values::SmallIntegers));
            for y in evaluate(&p.graph, &p.inputs).unwrap() {
                if y.ty().dtype.is_float() {
                    assert!(y.to_vec::<f32>().unwrap().iter().all(|v| v.fract() == 0.0 && v.abs() <= EXACT as f32));
                }
            }
        }
    }

    #[test]
    fn bounds_admit_what_other_roundings_give() {
        let (mut elements, mut undetermined) = (0, 0);
        for seed in 0..150 {
            let RandomProgram { graph, inputs } = random_program(seed, &Options::small(Values::Special));
            let bounds = evaluate_bounds(&graph, &inputs, seed).unwrap();
            let summary = compare(&evaluate(&graph, &inputs).unwrap(), &bounds).unwrap();
            assert_eq!(summary.worst, 0.0);
            elements += summary.elements;
            undetermined += summary.undetermined;
            let again = evaluate_bounds(&graph, &inputs, seed).unwrap();
            assert!(bounds.iter().zip(&again).all(|(a, b)| a.slack == b.slack && a.undetermined == b.undetermined));
            for other in 0..10 {
                let emulated = lazuli_ir::reference::evaluate_emulated(&graph, &inputs, (seed << 8) + other).unwrap();
                if let Err(m) = compare(&emulated, &bounds) {
                    panic!("seed {seed}: {m}\n{graph}");
                }
            }
        }
        assert!(undetermined * 20 < elements, "{undetermined} of {elements}");
    }
}
