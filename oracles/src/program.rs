//! Random well-typed programs with inputs: what differential tests run, so that bugs are found which nobody thought of.
//!
//! Two kinds of values. [`Values::SmallIntegers`] draws floats that are small integers and only takes operations that keep
//! every intermediate result, in any order of summation, an integer that its dtype holds: all evaluators must agree bit for
//! bit. [`Values::Special`] takes every operation and mixes in zeros of both signs, subnormals, the largest numbers,
//! infinities and NaN: evaluators must agree within the bounds of [`evaluate_bounds`](lazuli_ir::reference::evaluate_bounds).
//!
//! A program starts with one operator on an input of one dtype, which its seed names, so that consecutive seeds reach every
//! pair ([`Operator::cells`]). Then it grows by operations on values that exist, recent ones likelier, so that it becomes
//! deep. Single operators are in `elementwise`, `movement`, `indexing` and `contraction`, and what compilers treat specially (a
//! softmax, a contraction with bias and activation, an embedding) is in `patterns`. Extents are those at which loops are cut: 0
//! to 9, 16, 17, 33, 64, and where asked for thousands.

use crate::data;
use crate::operator::Operator;
use crate::rng::Rng;
use lazuli_ir::reference::Dense;
use lazuli_ir::{
    BinaryOp, CompareOp, CumulativeOp, DType, DimVec, Graph, Literal, Op, ReduceOp, ScatterOp, Shape, Source, Sources,
    TensorType, UnaryOp, Value, infer,
};

/// What the elements of a random program are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Floats are small integers, and all results exact.
    SmallIntegers,
    /// Any numbers, the special ones among them.
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
    /// What would make a call an error: an element of an input with this value. All are integers that are checked.
    pub faults: Vec<Fault>,
}

/// A value of an input's elements that is an error: an index out of range, a divisor of 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Which input.
    pub input: usize,
    /// The value.
    pub value: Literal,
}

/// Inputs of a program, at most.
const INPUTS: usize = 10;

/// The operator and dtype with which the program of a seed starts. A pair comes once with each kind of values before the next.
pub fn focus(seed: u64) -> (Operator, DType) {
    let cells = Operator::cells();
    cells[(seed / 2 % cells.len() as u64) as usize]
}

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
        faults: Vec::new(),
        pool: Vec::new(),
        options: *options,
    };
    maker.start(focus(seed));
    for _ in 0..2 {
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
    RandomProgram { graph: maker.graph, inputs: maker.inputs, faults: maker.faults }
}

/// A value, and the largest magnitude that its elements can have.
pub(crate) type Bounded = (Value, f64);

pub(crate) struct Maker {
    pub(crate) random: Rng,
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<Dense>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) pool: Vec<Bounded>,
    pub(crate) options: Options,
}

/// The largest magnitude of elements of a dtype whose magnitude would be this if they did not wrap.
fn wrapped(dtype: DType, limit: f64) -> f64 {
    match dtype {
        DType::Bool => 1.0,
        DType::U8 => limit.min(255.0),
        DType::I32 => limit.min(2_147_483_648.0),
        DType::I64 => limit.min(9_223_372_036_854_775_808.0),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => limit,
    }
}

/// Up to here all integers are exact in a dtype.
pub(crate) fn exact_up_to(dtype: DType) -> f64 {
    if dtype.is_float() { 2.0 / dtype.epsilon() } else { f64::INFINITY }
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

    pub(crate) fn shape(&mut self) -> Shape {
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

    pub(crate) fn dtype(&mut self) -> DType {
        if self.random.one_in(2) { DType::F32 } else { self.random.pick(&DType::ALL).unwrap_or(DType::F32) }
    }

    /// The first input and the first operation. The input has several dims of several elements, so that it can lie in memory in
    /// every way.
    fn start(&mut self, (operator, dtype): (Operator, DType)) {
        let few: &[usize] = &[2, 3, 4, 5, 7, 8];
        let mut extents: Vec<usize> = (0..2 + self.random.below(2)).filter_map(|_| self.random.pick(few)).collect();
        if self.random.one_in(3) {
            let d = self.random.below(extents.len());
            extents[d] = self.random.pick(&[16, 17, 33, 64]).unwrap_or(16);
        }
        let shape = if operator == Operator::Random { Shape::new([2]) } else { Shape::new(extents) };
        let x = self.input(TensorType { shape, dtype });
        self.apply(operator, x);
    }

    pub(crate) fn input(&mut self, ty: TensorType) -> Bounded {
        let values = data::tensor(&mut self.random, &ty, self.options.values);
        let special = !self.exact() && ty.dtype.is_int();
        self.input_of(values, if special { wrapped(ty.dtype, f64::INFINITY) } else { data::LARGEST })
    }

    /// An input of these values, which have a magnitude of at most `limit`.
    pub(crate) fn input_of(&mut self, values: Dense, limit: f64) -> Bounded {
        let line = self.inputs.len() as u32 + 1;
        let ty = values.ty().clone();
        self.inputs.push(values);
        let v = self.graph.add_input(format!("x{line}"), ty, place(line));
        self.pool.push((v, limit));
        (v, limit)
    }

    pub(crate) fn may_add_input(&self) -> bool {
        self.inputs.len() < INPUTS
    }

    /// Adds an operation whose elements would be at most `limit` in magnitude if they did not wrap, unless it does not fit or could
    /// be inexact.
    pub(crate) fn add(&mut self, op: Op, operands: &[Value], limit: f64) -> Option<Bounded> {
        let types: Vec<&TensorType> = operands.iter().map(|v| self.graph.ty(*v)).collect();
        let ty = infer(&op, &types).ok()?;
        let limit = wrapped(ty.dtype, limit);
        let inexact = self.exact() && limit > exact_up_to(ty.dtype);
        if inexact || ty.shape.elements() > self.options.elements || ty.shape.rank() > 6 {
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

    /// Some value of a dtype that an operator takes.
    pub(crate) fn any_for(&mut self, operator: Operator) -> Option<Bounded> {
        let (x, limit) = self.any();
        if operator.takes(self.graph.ty(x).dtype) {
            return Some((x, limit));
        }
        let taken: Vec<DType> = DType::ALL.into_iter().filter(|d| operator.takes(*d)).collect();
        let to = self.random.pick(&taken)?;
        self.cast(x, limit, to)
    }

    /// Some value that is a float of at least 32 bits.
    pub(crate) fn float(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        let dtype = self.graph.ty(x).dtype;
        if dtype.is_float() && !dtype.is_half() { Some((x, limit)) } else { self.cast(x, limit, DType::F32) }
    }

    pub(crate) fn cast(&mut self, x: Value, limit: f64, to: DType) -> Option<Bounded> {
        // What is negative becomes large where there is no sign.
        let limit = if to == DType::U8 && self.graph.ty(x).dtype != DType::Bool { 255.0 } else { limit.max(1.0) };
        let special = !self.exact() && self.graph.ty(x).dtype.is_float();
        self.add(Op::Cast(to), &[x], if special { f64::INFINITY } else { limit })
    }

    pub(crate) fn splat(&mut self, value: Literal, shape: &Shape) -> Option<Value> {
        self.add(Op::Constant { value, shape: shape.clone() }, &[], value.as_f64().abs()).map(|(v, _)| v)
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
        if self.may_add_input() && self.random.one_in(3) {
            let keep: DimVec<usize> = (0..ty.shape.rank()).filter(|_| !self.random.one_in(3)).collect();
            let shape = Shape::from_dims(keep.iter().map(|&d| ty.shape.dim(d)));
            let (v, limit) = self.input(TensorType { shape, dtype: ty.dtype });
            return self.add(Op::Broadcast { shape: ty.shape.clone(), dims: keep }, &[v], limit);
        }
        let value = data::literal(&mut self.random, ty.dtype, self.options.values);
        let limit = if self.exact() { data::LARGEST } else { f64::INFINITY };
        self.add(Op::Constant { value, shape: ty.shape.clone() }, &[], limit)
    }

    fn step(&mut self) {
        use Operator::*;
        let r = &mut self.random;
        let operator = match r.below(32) {
            0 => r.pick(&[Constant, Iota, Random, Alias, Detach]),
            1..=3 => r.pick(if r.clone().one_in(2) { TAME } else { UnaryOp::ALL }).map(Unary),
            4..=7 => r.pick(BinaryOp::ALL).map(Binary),
            8 => r.pick(CompareOp::ALL).map(Compare),
            9 => Some(Select),
            10 | 11 => r.pick(&DType::ALL).map(Cast),
            12..=15 => r.pick(&[Permute, Reshape, Broadcast, Slice, Flip]),
            16 => r.pick(&[Pad, Concat]),
            17 => r.pick(&[DynamicSlice, DynamicUpdateSlice]),
            18 => r.pick(&[Window, WindowSum]),
            19 => r.pick(ScatterOp::ALL).map(Scatter),
            20 => r.pick(&[CheckIndex, Gather, Gather]),
            21 => Some(Sort),
            22 => r.pick(CumulativeOp::ALL).map(Cumulative),
            23 | 24 => r.pick(ReduceOp::ALL).map(Reduce),
            25 => Some(Dot),
            _ => None,
        };
        // A step that does not fit makes nothing, and the next is tried.
        let _ = match operator {
            Some(operator) => self.any_for(operator).and_then(|x| self.apply(operator, x)),
            None => self.pattern(),
        };
    }

    /// An operator on a value of a dtype that it takes, with whatever else it needs.
    pub(crate) fn apply(&mut self, operator: Operator, (x, limit): Bounded) -> Option<Bounded> {
        if self.exact() && !operator.is_exact(self.graph.ty(x).dtype) {
            return None;
        }
        match operator {
            Operator::Constant => {
                let ty = TensorType { shape: self.shape(), dtype: self.ty(x).dtype };
                let value = data::literal(&mut self.random, ty.dtype, self.options.values);
                let limit = if self.exact() { data::LARGEST } else { f64::INFINITY };
                self.add(Op::Constant { value, shape: ty.shape }, &[], limit)
            }
            Operator::Iota => {
                let shape = self.shape();
                let dim = self.random.below(shape.rank());
                let limit = shape.extents().get(dim).map_or(1.0, |n| *n as f64);
                self.add(Op::Iota { dim, shape }, &[], limit)
            }
            Operator::Random => self.draw(x),
            Operator::Alias => self.add(Op::Alias, &[x], limit),
            Operator::Detach => self.add(Op::Detach, &[x], limit),
            Operator::Unary(op) => self.unary(op, x, limit),
            Operator::Binary(op) => self.binary(op, x, limit),
            Operator::Compare(op) => self.compare(op, x),
            Operator::Select => self.choice(x, limit),
            Operator::Cast(to) => self.cast(x, limit, to),
            Operator::Permute | Operator::Reshape | Operator::Broadcast | Operator::Slice | Operator::Flip => {
                self.movement(operator, x, limit)
            }
            Operator::Pad => self.pad(x, limit),
            Operator::Concat => self.concat(x, limit),
            Operator::Window => self.window(x, limit),
            Operator::WindowSum => self.window_sum(x, limit),
            Operator::DynamicSlice => self.dynamic_slice(x, limit),
            Operator::DynamicUpdateSlice => self.dynamic_update_slice(x, limit),
            Operator::CheckIndex => self.check_index(x, limit),
            Operator::Gather => self.gather(x, limit),
            Operator::Scatter(op) => self.scatter(op, x, limit),
            Operator::Cumulative(op) => self.cumulative(op, x, limit),
            Operator::Sort => self.sort(x, limit),
            Operator::Reduce(op) => self.reduce(op, x, limit).map(|(v, limit, _)| (v, limit)),
            Operator::Dot if self.random.one_in(2) => self.dot(x, limit),
            Operator::Dot => self.product(x, limit),
        }
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

/// Functions that are defined everywhere and rarely give infinities: half of those drawn, so that numbers remain.
const TAME: &[UnaryOp] = &[
    UnaryOp::Neg,
    UnaryOp::Abs,
    UnaryOp::Exp,
    UnaryOp::Tanh,
    UnaryOp::Sigmoid,
    UnaryOp::Sin,
    UnaryOp::Cos,
    UnaryOp::Atan,
    UnaryOp::Asinh,
    UnaryOp::Erf,
    UnaryOp::Erfc,
    UnaryOp::Floor,
    UnaryOp::Sign,
];

/// The dims along which a shape broadcasts to another: aligned at the end, as NumPy does.
fn align(from: &Shape, to: &Shape) -> Option<DimVec<usize>> {
    let offset = to.rank().checked_sub(from.rank())?;
    let fits = |i: usize| from.dim(i).same(to.dim(offset + i)) || from.dim(i).is_one();
    (0..from.rank()).all(fits).then(|| (0..from.rank()).map(|i| offset + i).collect())
}

pub(crate) fn place(line: u32) -> Sources {
    Source { file: "random.rs", line, column: 1 }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazuli_ir::reference::{compare, evaluate, evaluate_bounds};
    use std::collections::BTreeSet;

    #[test]
    fn programs_follow_from_their_seeds_and_their_text_is_faithful() {
        let mut seen = BTreeSet::new();
        let cells = Operator::cells();
        for seed in 0..2 * cells.len() as u64 {
            let options = Options::of_seed(seed);
            let RandomProgram { graph, inputs, .. } = random_program(seed, &options);
            graph.verify().unwrap_or_else(|e| panic!("seed {seed}: {e}\n{graph}"));
            assert_eq!(Graph::parse(&graph.to_string()).unwrap(), graph, "seed {seed}");
            assert!(!graph.outputs().is_empty() && graph.len() >= 3, "seed {seed}: {graph}");
            assert_eq!(random_program(seed, &options).graph, graph);
            assert_eq!(random_program(seed, &options).inputs, inputs);
            seen.extend(graph.nodes().filter_map(|n| Operator::counted(&graph, n)).map(|(o, ty)| (o, ty.dtype)));
        }
        let missing: Vec<_> = cells.into_iter().filter(|c| !seen.contains(c)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn small_integers_are_exact() {
        for seed in 0..300 {
            let p = random_program(seed, &Options::small(Values::SmallIntegers));
            for y in evaluate(&p.graph, &p.inputs).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", p.graph)) {
                let largest = exact_up_to(y.ty().dtype);
                if y.ty().dtype.is_float() {
                    let whole = |v: f64| v.fract() == 0.0 && v.abs() <= largest;
                    assert!(y.literals().all(|v| whole(v.as_f64())), "seed {seed}: {y}\n{}", p.graph);
                }
            }
        }
    }

    #[test]
    fn bounds_admit_what_other_roundings_give() {
        let (mut elements, mut undetermined) = (0, 0);
        for seed in 0..150 {
            let RandomProgram { graph, inputs, .. } = random_program(seed, &Options::small(Values::Special));
            let bounds = evaluate_bounds(&graph, &inputs, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{graph}"));
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
