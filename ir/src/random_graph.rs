//! Random well-typed programs with inputs: what differential tests run, so that bugs are found which nobody thought of.
//!
//! Two kinds of values. [`Values::SmallIntegers`] draws floats that are small integers and only takes operations that keep
//! every intermediate result, in any order of summation, an integer that `f32` holds: all evaluators must agree bit for bit.
//! [`Values::Special`] takes every operation and mixes in zeros of both signs, subnormals, the largest numbers, infinities
//! and NaN: evaluators must agree within the bounds of [`reference::evaluate_bounds`](crate::reference::evaluate_bounds).
//! Shapes have extents 0 to 5 and rank 0 to 4. Patterns that compilers treat specially (a reduction spread back over its
//! operand, a contraction with bias and activation) are as likely as single operations.

use crate::reference::Dense;
use crate::splitmix::SplitMix;
use crate::{
    BinaryOp, CompareOp, DType, DimVec, DotDims, Graph, Literal, Op, PadDim, ReduceOp, Shape, SliceDim, Source,
    Sources, TensorType, UnaryOp, Value, infer,
};

/// What the elements of a random program are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Floats are small integers, and all results exact.
    SmallIntegers,
    /// Any floats, the special ones among them.
    Special,
}

/// A random program and inputs for it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The program.
    pub graph: Graph,
    /// Its inputs.
    pub inputs: Vec<Dense>,
}

/// Integers up to here, and all integers below in magnitude, are exact in `f32`.
const EXACT: f64 = 16_777_216.0;
/// Tensors stay small, so that many programs run in a second.
const LARGEST: usize = 2048;

/// The random program of a seed, with about `nodes` operations. The same arguments give the same program and inputs.
///
/// ```
/// use lazuli_ir::random_graph::{Values, random_graph};
/// use lazuli_ir::reference::{compare, evaluate, evaluate_bounds};
/// let sample = random_graph(1, 20, Values::Special);
/// let bounds = evaluate_bounds(&sample.graph, &sample.inputs, 0)?;
/// let summary = compare(&evaluate(&sample.graph, &sample.inputs)?, &bounds)?;
/// assert_eq!(summary.worst, 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn random_graph(seed: u64, nodes: usize, values: Values) -> Sample {
    let mut maker = Maker {
        random: SplitMix::new(seed),
        graph: Graph::new("random"),
        inputs: Vec::new(),
        pool: Vec::new(),
        values,
    };
    for _ in 0..3 {
        maker.input();
    }
    // Steps that find nothing to do make no node; the bound ends a search that goes nowhere.
    for _ in 0..nodes * 8 {
        if maker.graph.len() >= nodes + maker.inputs.len() {
            break;
        }
        maker.step();
    }
    maker.outputs();
    Sample { graph: maker.graph, inputs: maker.inputs }
}

struct Maker {
    random: SplitMix,
    graph: Graph,
    inputs: Vec<Dense>,
    /// Values to use, and the largest magnitude that their elements can have.
    pool: Vec<(Value, f64)>,
    values: Values,
}

impl Maker {
    fn exact(&self) -> bool {
        self.values == Values::SmallIntegers
    }

    fn shape(&mut self) -> Shape {
        let rank = self.random.below(4);
        Shape::new((0..rank).map(|_| if self.random.once_in(24) { 0 } else { 1 + self.random.below(5) }))
    }

    fn dtype(&mut self) -> DType {
        match self.random.below(8) {
            0 => DType::Bool,
            1 => DType::I64,
            _ => DType::F32,
        }
    }

    fn literal(&mut self, dtype: DType) -> Literal {
        let small = self.random.below(17) as i64 - 8;
        match (dtype, self.values) {
            (DType::F32, Values::Special) => {
                const SPECIAL: [f32; 12] = [
                    0.0,
                    -0.0,
                    1e-45,
                    f32::MIN_POSITIVE,
                    f32::MAX,
                    f32::MIN,
                    f32::INFINITY,
                    f32::NEG_INFINITY,
                    f32::NAN,
                    16_777_217.0,
                    1.0,
                    -1.0,
                ];
                let special = if self.random.once_in(12) { self.random.pick(&SPECIAL).copied() } else { None };
                Literal::F32(special.unwrap_or((self.random.signed() * 4.0) as f32))
            }
            (DType::I64, Values::Special) if self.random.once_in(12) => {
                Literal::I64(if self.random.once_in(2) { i64::MIN } else { i64::MAX })
            }
            (DType::Bool, _) => Literal::Bool(small > 0),
            (DType::I64 | DType::F32, _) => Literal::from_i64(dtype, small),
        }
    }

    fn input(&mut self) {
        let ty = TensorType { shape: self.shape(), dtype: self.dtype() };
        let literals: Vec<Literal> = (0..ty.shape.elements()).map(|_| self.literal(ty.dtype)).collect();
        let data = crate::reference::collect(ty.dtype, literals.into_iter());
        let line = self.inputs.len() as u32 + 1;
        self.inputs.push(Dense::computed(&ty, data));
        let v = self.graph.add_input(format!("x{line}"), ty, place(line));
        self.pool.push((v, 8.0));
    }

    /// Adds an operation whose elements are at most `limit` in magnitude, unless it does not fit or could be inexact.
    fn add(&mut self, op: Op, operands: &[Value], limit: f64) -> Option<(Value, f64)> {
        let types: Vec<&TensorType> = operands.iter().map(|v| self.graph.ty(*v)).collect();
        let ty = infer(&op, &types).ok()?;
        let inexact = self.exact() && ty.dtype.is_float() && limit > EXACT;
        if inexact || ty.shape.elements() > LARGEST || ty.shape.rank() > 4 {
            return None;
        }
        let v = self.graph.add(op, operands, place(self.graph.len() as u32 + 1)).ok()?;
        self.pool.push((v, limit));
        Some((v, limit))
    }

    fn any(&mut self) -> (Value, f64) {
        // Recent values are likelier: programs become deep.
        let n = self.pool.len();
        let recent = self.random.below(n.min(4));
        if self.random.once_in(2) { self.pool[n - 1 - recent] } else { self.pool[self.random.below(n)] }
    }

    /// Some value of exactly this type: one that is there, or a constant.
    fn like(&mut self, ty: &TensorType) -> Option<(Value, f64)> {
        let same: Vec<(Value, f64)> = self.pool.iter().filter(|(v, _)| self.graph.ty(*v) == ty).copied().collect();
        if !same.is_empty() && !self.random.once_in(5) {
            return self.random.pick(&same).copied();
        }
        let value = self.literal(ty.dtype);
        self.add(Op::Constant { value, shape: ty.shape.clone() }, &[], 8.0)
    }

    fn step(&mut self) {
        // A step that does not fit makes nothing, and the next is tried.
        let _ = match self.random.below(16) {
            0 => self.source(),
            1 | 2 => self.unary(),
            3..=5 => self.binary(),
            6 => self.choice(),
            7 => self.cast(),
            8 | 9 => self.movement(),
            10 => self.pad(),
            11 => self.reduce().map(|(v, limit, _)| (v, limit)),
            12 | 13 => self.spread_back(),
            14 => self.dot(),
            _ => self.linear(),
        };
    }

    fn source(&mut self) -> Option<(Value, f64)> {
        if self.inputs.len() < 6 && self.random.once_in(3) {
            self.input();
            return None;
        }
        let shape = self.shape();
        let dims = shape.rank();
        match self.random.below(4) {
            0 if !self.exact() => {
                let base = self.like(&TensorType::new([2], DType::I64))?;
                self.add(Op::Random { stream: self.graph.len() as u64, shape }, &[base.0], 1.0)
            }
            1 => {
                let (x, limit) = self.any();
                let op = if self.random.once_in(2) { Op::Alias } else { Op::Detach };
                self.add(op, &[x], limit)
            }
            _ => {
                let dim = self.random.below(dims);
                self.add(Op::Iota { dim, shape }, &[], 5.0)
            }
        }
    }

    fn unary(&mut self) -> Option<(Value, f64)> {
        let (x, limit) = self.any();
        let exact = [UnaryOp::Neg, UnaryOp::Abs];
        let op = *self.random.pick(if self.exact() { &exact } else { UnaryOp::ALL })?;
        self.add(Op::Unary(op), &[x], limit)
    }

    fn binary(&mut self) -> Option<(Value, f64)> {
        let (a, la) = self.any();
        let (b, lb) = self.like(&self.graph.ty(a).clone())?;
        let op = *self.random.pick(BinaryOp::ALL)?;
        let limit = match op {
            BinaryOp::Add | BinaryOp::Sub => la + lb,
            BinaryOp::Mul => la * lb,
            BinaryOp::Div => f64::INFINITY,
            BinaryOp::Max | BinaryOp::Min => la.max(lb),
        };
        self.add(Op::Binary(op), &[a, b], limit)
    }

    fn choice(&mut self) -> Option<(Value, f64)> {
        let (a, la) = self.any();
        let ty = self.graph.ty(a).clone();
        let (b, lb) = self.like(&ty)?;
        let compare = Op::Compare(*self.random.pick(CompareOp::ALL)?);
        let (c, _) = match self.random.once_in(2) {
            true => self.add(compare, &[a, b], 1.0)?,
            false => self.like(&TensorType { shape: ty.shape, dtype: DType::Bool })?,
        };
        self.add(Op::Select, &[c, a, b], la.max(lb))
    }

    fn cast(&mut self) -> Option<(Value, f64)> {
        let (x, limit) = self.any();
        let to = *self.random.pick(&DType::ALL)?;
        self.add(Op::Cast(to), &[x], limit.max(1.0))
    }

    fn movement(&mut self) -> Option<(Value, f64)> {
        let (x, limit) = self.any();
        let shape = self.graph.ty(x).shape.clone();
        let op = match self.random.below(4) {
            0 => {
                let mut perm: DimVec<usize> = (0..shape.rank()).collect();
                self.random.shuffle(&mut perm);
                Op::Permute(perm)
            }
            1 => Op::Reshape(self.regrouped(&shape)),
            2 => {
                let range = |d: usize, random: &mut SplitMix| {
                    let start = random.below(d + 1).min(random.below(d + 1));
                    SliceDim { start, stop: start + random.below(d - start + 1), step: 1 + random.below(3) }
                };
                Op::Slice(shape.extents().into_iter().map(|d| range(d, &mut self.random)).collect())
            }
            _ => self.stretched(&shape),
        };
        self.add(op, &[x], limit)
    }

    /// A shape of as many elements: the prime factors dealt anew, in order, with dims of extent 1 among them.
    fn regrouped(&mut self, shape: &Shape) -> Shape {
        let mut extents: Vec<usize> = vec![1];
        let factors = shape.extents().into_iter().flat_map(|d| match d {
            4 => vec![2, 2],
            d => vec![d],
        });
        for factor in factors {
            if extents.len() < 4 && self.random.once_in(2) {
                extents.push(1);
            }
            if let Some(last) = extents.last_mut() {
                *last *= factor;
            }
        }
        if extents == [1] && self.random.once_in(2) { Shape::scalar() } else { Shape::new(extents) }
    }

    fn stretched(&mut self, shape: &Shape) -> Op {
        let (mut extents, mut dims): (Vec<usize>, DimVec<usize>) = (Vec::new(), DimVec::new());
        for d in shape.extents() {
            if self.random.once_in(3) {
                extents.push(self.random.below(4));
            }
            dims.push(extents.len());
            extents.push(if d == 1 { 1 + self.random.below(4) } else { d });
        }
        Op::Broadcast { shape: Shape::new(extents), dims }
    }

    fn pad(&mut self) -> Option<(Value, f64)> {
        let (x, la) = self.any();
        let ty = self.graph.ty(x).clone();
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
    fn reduce(&mut self) -> Option<(Value, f64, DimVec<usize>)> {
        let (x, limit) = self.any();
        let ty = self.graph.ty(x).clone();
        let dims: DimVec<usize> = (0..ty.shape.rank()).filter(|_| self.random.once_in(2)).collect();
        let kept = (0..ty.shape.rank()).filter(|d| !dims.contains(d)).collect();
        let count: usize = dims.iter().map(|&d| ty.shape.extents()[d]).product();
        let op = *self.random.pick(ReduceOp::ALL)?;
        let limit = match op {
            ReduceOp::Sum => limit * count as f64,
            ReduceOp::Max => limit,
            ReduceOp::ArgMax => count as f64,
        };
        let (v, limit) = self.add(Op::Reduce { op, dims, acc: ty.dtype }, &[x], limit)?;
        Some((v, limit, kept))
    }

    /// As in softmax and normalisation: a reduction, spread over its operand again, and combined with it.
    fn spread_back(&mut self) -> Option<(Value, f64)> {
        let (r, limit, kept) = self.reduce()?;
        let x = *self.graph.operands(r.node).first()?;
        let ty = self.graph.ty(x).clone();
        let (b, _) = self.add(Op::Broadcast { shape: ty.shape, dims: kept }, &[r], limit)?;
        let (b, _) = self.add(Op::Cast(ty.dtype), &[b], limit)?;
        let (_, x_limit) = *self.pool.iter().find(|(v, _)| *v == x)?;
        let op = if self.random.once_in(2) { BinaryOp::Sub } else { BinaryOp::Max };
        self.add(Op::Binary(op), &[x, b], limit + x_limit)
    }

    fn dot(&mut self) -> Option<(Value, f64)> {
        let (a, la) = self.any();
        let (b, lb) = self.any();
        let (left, right) = (self.graph.ty(a).shape.extents(), self.graph.ty(b).shape.extents());
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
        let acc = self.graph.ty(a).dtype;
        self.add(Op::Dot { dims, acc }, &[a, b], la * lb * count as f64)
    }

    /// `relu(x w + bias)`, or without one of both.
    fn linear(&mut self) -> Option<(Value, f64)> {
        let (x, lx) = self.any();
        let ty = self.graph.ty(x).clone();
        let columns = 1 + self.random.below(5);
        let rank = ty.shape.rank();
        let k = *ty.shape.extents().last()?;
        let (w, lw) = self.like(&TensorType::new([k, columns], ty.dtype))?;
        let dims = DotDims { batch: DimVec::new(), contract: smallvec::smallvec![(rank - 1, 0)] };
        let (mut y, mut limit) = self.add(Op::Dot { dims, acc: ty.dtype }, &[x, w], lx * lw * k as f64)?;
        let out = self.graph.ty(y).clone();
        if self.random.once_in(2) {
            let (bias, lb) = self.like(&TensorType::new([columns], ty.dtype))?;
            let spread = Op::Broadcast { shape: out.shape.clone(), dims: smallvec::smallvec![rank - 1] };
            let (bias, _) = self.add(spread, &[bias], lb)?;
            (y, limit) = self.add(Op::Binary(BinaryOp::Add), &[y, bias], limit + lb)?;
        }
        let (zero, _) = self.add(Op::Constant { value: Literal::zero(ty.dtype), shape: out.shape }, &[], 0.0)?;
        let (below, _) = self.add(Op::Compare(CompareOp::Le), &[y, zero], 1.0)?;
        self.add(Op::Select, &[below, zero, y], limit)
    }

    /// What nothing uses is an output, and some of what is used.
    fn outputs(&mut self) {
        for n in self.graph.nodes() {
            let is_input = matches!(self.graph.op(n), Op::Input { .. });
            if self.graph.uses(n).is_empty() && !is_input || self.random.once_in(12) {
                self.graph.add_output(n.into());
            }
        }
    }
}

fn place(line: u32) -> Sources {
    Source { file: "random.rs", line, column: 1 }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 300;

    use crate::reference::{compare, evaluate, evaluate_bounds, evaluate_emulated};

    #[test]
    fn programs_are_well_formed_and_their_text_is_faithful() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let values = if seed % 2 == 0 { Values::SmallIntegers } else { Values::Special };
            let Sample { graph, inputs } = random_graph(seed, 25, values);
            graph.verify().unwrap_or_else(|e| panic!("seed {seed}: {e}\n{graph}"));
            assert_eq!(Graph::parse(&graph.to_string()).unwrap(), graph, "seed {seed}");
            assert!(!graph.outputs().is_empty() && graph.len() > 20, "seed {seed}: {graph}");
            assert_eq!(random_graph(seed, 25, values).graph, graph);
            evaluate(&graph, &inputs).unwrap();
            seen.extend(graph.nodes().map(|n| graph.op(n).name()));
        }
        let all =
            ["constant", "iota", "alias", "detach", "random", "select", "cast", "permute", "reshape", "broadcast"];
        let rest = ["slice", "pad", "dot", "reduce_sum", "reduce_max", "reduce_argmax", "tanh", "rsqrt", "div", "ge"];
        assert!(all.iter().chain(&rest).all(|name| seen.contains(name)), "{seen:?}");
    }

    #[test]
    fn small_integers_are_exact_however_they_are_rounded() {
        for seed in 0..200 {
            let Sample { graph, inputs } = random_graph(seed, 25, Values::SmallIntegers);
            for y in evaluate(&graph, &inputs).unwrap() {
                if y.ty().dtype.is_float() {
                    assert!(y.to_vec::<f32>().unwrap().iter().all(|v| v.fract() == 0.0 && v.abs() <= EXACT as f32));
                }
            }
        }
    }

    #[test]
    fn bounds_admit_what_other_roundings_give() {
        let (mut elements, mut undetermined) = (0, 0);
        for seed in 0..SEEDS {
            let Sample { graph, inputs } = random_graph(seed, 25, Values::Special);
            let bounds = evaluate_bounds(&graph, &inputs, seed).unwrap();
            let summary = compare(&evaluate(&graph, &inputs).unwrap(), &bounds).unwrap();
            assert_eq!(summary.worst, 0.0);
            elements += summary.elements;
            undetermined += summary.undetermined;
            let again = evaluate_bounds(&graph, &inputs, seed).unwrap();
            assert!(bounds.iter().zip(&again).all(|(a, b)| a.slack == b.slack && a.undetermined == b.undetermined));
            for other in 0..20 {
                let emulated = evaluate_emulated(&graph, &inputs, (seed << 8) + other).unwrap();
                if let Err(m) = compare(&emulated, &bounds) {
                    panic!("seed {seed}: {m}\n{graph}");
                }
            }
        }
        assert!(undetermined * 100 < elements, "{undetermined} of {elements}");
    }
}
