//! How far a right evaluator may be off: measured by moving every rounding of the program.
//!
//! A graph runs 17 times in lockstep, node by node: once as [`evaluate`](super::evaluate) does, 16 times with each
//! primitive's float result moved by a random amount within its stated error (see `rounding`). An element's bound is 16 times
//! the spread of the 17 values plus one unit in the last place. Where nothing was moved all runs are the same and the bound
//! is 0: operations that are correctly rounded, movement and integers must agree exactly, until a function with an error of
//! its own or a sum comes in. Bounds grow where the program is ill conditioned and nowhere else, so tests need no tolerances
//! of their own.
//!
//! **Decisions.** Comparing, converting to an integer and choosing an argmax turn small differences into large ones. Where
//! the decision is within the bound of going the other way, the runs are made to decide both ways. The element is then
//! *undetermined*, as is all that elementwise operations and movement make of it; a sum or contraction over it is not,
//! since its runs already spread over both outcomes. What is compared is the difference of both sides within one run, so
//! `eq(x, max(x))` is determined although `x` itself is moved.
//!
//! **Beyond numbers.** At a pole, or where an overflow depends on the order of a sum, a number, either infinity and NaN are
//! neighbours. These runs do not show what many such elements together come to: in each of them the largest of many may be
//! NaN, and none shows that it may be infinite. So these elements are *hidden* too, and what a reduction or a contraction
//! makes of them is undetermined as well.

use super::apply;
use super::check_inputs;
use super::contraction::groups;
use super::dense::{Data, Dense};
use super::indexing::lines;
use super::rounding::{Moved, Nearest, Recorded, spacing};
use crate::{
    BinaryOp, CumulativeOp, DType, Graph, Literal, NodeId, Op, ReduceOp, Result, ScatterOp, Shape, TensorType, UnaryOp,
    float_to_int,
};
use std::rc::Rc;

/// Runs whose roundings are moved: eight pairs, in some of which movements that cancel in others add up (see `rounding`).
pub(super) const MOVED: usize = 16;
/// What a spread is multiplied by: few samples of a distribution rarely reach its ends.
const MARGIN: f64 = 16.0;

/// An output, and how far another evaluator's may be from it.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The reference value.
    pub value: Dense,
    /// For each element the largest allowed difference; 0 for integers and booleans.
    pub slack: Vec<f64>,
    /// For each element whether it hangs on a decision that rounding may turn: it is not compared.
    pub undetermined: Vec<bool>,
}

impl Bounds {
    /// The bounds of a value that must be met exactly (a zero of either sign is a zero, and any NaN a NaN).
    pub fn exact(value: Dense) -> Bounds {
        let n = value.len();
        Bounds { value, slack: vec![0.0; n], undetermined: vec![false; n] }
    }

    fn of(runs: Runs) -> Bounds {
        let mut bounds = Bounds::exact(runs.values[0].clone());
        let dtype = bounds.value.ty().dtype;
        for i in 0..bounds.value.len() {
            let same = runs.values.iter().all(|run| run.same_at(&bounds.value, i));
            let at = runs.at(i);
            if !same && dtype.is_float() && at.iter().all(|v| v.is_finite()) {
                bounds.slack[i] = MARGIN * spread(&at) + spacing(dtype, at[0]);
            } else {
                bounds.undetermined[i] = !same;
            }
            bounds.undetermined[i] |= runs.is_undetermined(i);
        }
        bounds
    }
}

/// The outputs of a graph with their bounds. `seed` picks the random movements: the same seed gives the same bounds.
///
/// # Errors
/// As [`evaluate`](super::evaluate).
pub fn evaluate_bounds(graph: &Graph, inputs: &[Dense], seed: u64) -> Result<Vec<Bounds>> {
    check_inputs(graph, inputs)?;
    let mut movers: Vec<Moved> = (0..MOVED).map(|run| Moved::new(seed, run)).collect();
    let outputs = super::walk(graph, |n, op, operands: &[&Runs]| match op {
        Op::Input { index, .. } => Ok(Runs::exact(inputs[*index].clone())),
        _ => step(op, operands, &graph.node(n).types[0], &mut movers, is_of_bf16(graph, n)),
    })?;
    Ok(outputs.into_iter().map(Bounds::of).collect())
}

/// A value in every run; a single one where no rounding can reach it.
#[derive(Clone)]
struct Runs {
    values: Vec<Dense>,
    undetermined: Marks,
    /// Those undetermined elements of which the runs do not show all that may come out.
    hidden: Marks,
    /// The number of movements in a row behind it.
    depth: u32,
}

/// Some elements of a value.
type Marks = Option<Vec<bool>>;

impl Runs {
    fn exact(value: Dense) -> Runs {
        Runs { values: vec![value], undetermined: None, hidden: None, depth: 0 }
    }

    fn run(&self, r: usize) -> &Dense {
        &self.values[r.min(self.values.len() - 1)]
    }

    /// An element in all runs.
    fn at(&self, i: usize) -> Vec<f64> {
        self.values.iter().map(|v| v.f64_at(i)).collect()
    }

    fn is_undetermined(&self, i: usize) -> bool {
        self.undetermined.as_ref().is_some_and(|u| u[i])
    }

    fn mark(&mut self, i: usize) {
        let n = self.values[0].len();
        self.undetermined.get_or_insert_with(|| vec![false; n])[i] = true;
    }

    fn hide(&mut self, i: usize) {
        let n = self.values[0].len();
        self.hidden.get_or_insert_with(|| vec![false; n])[i] = true;
        self.mark(i);
    }

    /// Hides elements that are not the same number or NaN in all runs, and no number in some.
    fn hide_overflows(&mut self) {
        let floats = self.values.iter().map(|v| match v.data() {
            Data::Float(v) => Some(v.as_slice()),
            Data::Bool(_) | Data::Int(_) => None,
        });
        let Some(runs) = floats.collect::<Option<Vec<&[f64]>>>() else { return };
        let alike = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        let open = |i: &usize| {
            runs.iter().any(|run| !run[*i].is_finite()) && runs.iter().any(|run| !alike(run[*i], runs[0][*i]))
        };
        let open: Vec<usize> = (0..runs[0].len()).filter(open).collect();
        open.into_iter().for_each(|i| self.hide(i));
    }
}

fn spread(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low
}

/// Whether some runs overflow and others do not: anything may come out.
fn overflows_in_some(values: &[f64]) -> bool {
    let alike = |v: &f64| v.to_bits() == values[0].to_bits() || (v.is_nan() && values[0].is_nan());
    values.iter().any(|v| !v.is_finite()) && !values.iter().all(alike)
}

/// Whether two numbers, given in each run, may as well be in the other order. Numbers that overflow in the same runs have the same
/// difference in each, and tell nothing by it.
fn may_trade_places(a: &[f64], b: &[f64]) -> bool {
    let gap: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    overflows_in_some(a) || overflows_in_some(b) || may_cross_zero(&gap)
}

/// Whether a number, given in each run, may as well be on the other side of 0.
fn may_cross_zero(values: &[f64]) -> bool {
    if values.iter().any(|v| !v.is_finite()) {
        return overflows_in_some(values);
    }
    let spread = spread(values);
    spread > 0.0 && values[0].abs() <= MARGIN * spread
}

/// Whether a node contracts what was `bf16`.
fn is_of_bf16(graph: &Graph, n: NodeId) -> bool {
    let widened = |mut at: NodeId| {
        while let Op::Alias
        | Op::Detach
        | Op::Permute(_)
        | Op::Reshape(_)
        | Op::Broadcast { .. }
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Flip(_)
        | Op::Window(_) = graph.op(at)
        {
            at = graph.operands(at)[0].node;
        }
        let ty = |n: NodeId| graph.node(n).types[0].dtype;
        ty(at) == DType::BF16 || graph.op(at) == &Op::Cast(DType::F32) && ty(graph.operands(at)[0].node) == DType::BF16
    };
    matches!(graph.op(n), Op::Dot { .. }) && graph.operands(n).iter().all(|v| widened(v.node))
}

fn step(op: &Op, operands: &[&Runs], ty: &TensorType, movers: &mut [Moved], flushes: bool) -> Result<Runs> {
    let of_run = |r: usize| -> Vec<&Dense> { operands.iter().map(|x| x.run(r)).collect() };
    let moved_before = operands.iter().any(|x| x.values.len() > 1);
    let moves = is_inexact(op, ty.dtype) || matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Cast(_));
    let depth = operands.iter().map(|x| x.depth).max().unwrap_or(0) + u32::from(moves);
    let mut nominal = Recorded::default();
    let mut values = vec![apply::run(op, &of_run(0), ty, &mut nominal)?];
    if is_inexact(op, ty.dtype) || moved_before {
        let nominal: Rc<[f64]> = nominal.0.into();
        for (r, mover) in movers.iter_mut().enumerate() {
            mover.start(nominal.clone(), depth, flushes);
            values.push(apply::run(op, &of_run(r + 1), ty, mover)?);
        }
    }
    let undetermined = inherited(op, operands, |x| &x.undetermined, &ty.shape)?;
    let mut runs = Runs { values, undetermined, hidden: None, depth };
    let hidden = match gathered(op, operands, &ty.shape)? {
        None => inherited(op, operands, |x| &x.hidden, &ty.shape)?,
        hidden => hidden,
    };
    for i in hidden.iter().flatten().enumerate().filter_map(|(i, h)| h.then_some(i)) {
        runs.hide(i);
    }
    if runs.values.len() > 1 {
        decide(op, operands, &mut runs);
        runs.hide_overflows();
    }
    if runs.values.iter().all(|run| *run == runs.values[0]) {
        runs.values.truncate(1);
    }
    Ok(runs)
}

/// Whether right evaluators may differ on float results although the operands are the same.
fn is_inexact(op: &Op, dtype: DType) -> bool {
    let inexact = match op {
        Op::Unary(op) => op.row().ulps > 0.5,
        // The sign of a NaN is nobody's promise.
        Op::Binary(BinaryOp::Copysign) => true,
        Op::Binary(op) => op.ulps() > 0.5,
        // A largest zero may have either sign.
        Op::Reduce { op, .. } => !op.is_position(),
        Op::Dot { .. } | Op::WindowSum { .. } => true,
        Op::Scatter { op, .. } => matches!(op, ScatterOp::Add | ScatterOp::Mul),
        Op::Cumulative { op, .. } => matches!(op, CumulativeOp::Sum | CumulativeOp::Prod),
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } => false,
        Op::CheckIndex { .. } | Op::Gather { .. } | Op::Sort { .. } => false,
        // An integer becomes the nearest float: every evaluator gives the same.
        Op::Cast(_) => false,
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => false,
        Op::Alias | Op::Detach | Op::ToDevice { .. } | Op::Compare(_) | Op::Select => false,
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => false,
    };
    inexact && dtype.is_float()
}

/// Which elements of the result hidden elements of the operands reach in a reduction, a contraction or another sum.
fn gathered(op: &Op, operands: &[&Runs], shape: &Shape) -> Result<Marks> {
    let sums = match op {
        Op::Reduce { dims, .. } => Op::Reduce { op: ReduceOp::Sum, dims: dims.clone(), acc: DType::F64 },
        Op::Dot { dims, .. } => Op::Dot { dims: dims.clone(), acc: DType::F64 },
        Op::WindowSum { .. } => op.clone(),
        Op::Scatter { .. } if operands.iter().any(|x| x.hidden.is_some()) => {
            return Ok(Some(vec![true; shape.elements()]));
        }
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => return Ok(None),
        Op::Alias | Op::Detach | Op::ToDevice { .. } | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select => {
            return Ok(None);
        }
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => return Ok(None),
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::DynamicSlice(_) => return Ok(None),
        Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } | Op::Gather { .. } => return Ok(None),
        Op::Cast(_) | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => return Ok(None),
    };
    let mut all: Marks = None;
    for (at, marks) in operands.iter().enumerate().filter_map(|(at, x)| Some((at, x.hidden.as_ref()?))) {
        // Counts the marked elements behind each element of the result: what they are combined with counts as 1.
        let ones = operands.iter().enumerate().map(|(i, x)| {
            let ty = TensorType { shape: x.values[0].ty().shape.clone(), dtype: DType::F64 };
            let count = |marked: &bool| f64::from(u8::from(*marked));
            if i == at {
                Dense::computed(&ty, Data::Float(marks.iter().map(count).collect()))
            } else {
                Dense::splat(Literal::F64(1.0), &ty.shape)
            }
        });
        let ones: Vec<Dense> = ones.collect();
        let ty = TensorType { shape: shape.clone(), dtype: DType::F64 };
        let counts = apply::run(&sums, &ones.iter().collect::<Vec<_>>(), &ty, &mut Nearest)?;
        let all = all.get_or_insert_with(|| vec![false; shape.elements()]);
        all.iter_mut().enumerate().for_each(|(i, m)| *m |= counts.f64_at(i) > 0.0);
    }
    Ok(all)
}

/// Which elements of the result are marked because elements of the operands are.
fn inherited(op: &Op, operands: &[&Runs], of: fn(&Runs) -> &Marks, shape: &Shape) -> Result<Marks> {
    if operands.iter().all(|x| of(x).is_none()) {
        return Ok(None);
    }
    let is_marked = |x: &Runs, i: usize| of(x).as_ref().is_some_and(|m| m[i]);
    match op {
        Op::Alias
        | Op::Detach
        | Op::ToDevice { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast(_) => Ok(Some((0..shape.elements()).map(|i| operands.iter().any(|x| is_marked(x, i))).collect())),
        Op::CheckIndex { .. } => Ok(operands.first().and_then(|x| of(x).clone())),
        // Indices that may differ, and lines that may sort otherwise: nothing of the result is compared.
        Op::Gather { .. } | Op::Scatter { .. } | Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. }
            if operands.iter().any(|x| of(x).is_some() && x.values[0].ty().dtype == DType::I64) =>
        {
            Ok(Some(vec![true; shape.elements()]))
        }
        Op::Sort { .. } | Op::Cumulative { .. } => Ok(Some(vec![true; shape.elements()])),
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) | Op::Flip(_) => {
            moved_marks(op, operands, of, shape).map(Some)
        }
        Op::Concat { .. } | Op::Window(_) | Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } => {
            moved_marks(op, operands, of, shape).map(Some)
        }
        Op::Gather { .. } => moved_marks(op, operands, of, shape).map(Some),
        Op::Scatter { op: ScatterOp::Set | ScatterOp::Max | ScatterOp::Min, .. } => {
            Ok(Some(vec![true; shape.elements()]))
        }
        Op::Scatter { op: ScatterOp::Add | ScatterOp::Mul, .. } | Op::WindowSum { .. } => Ok(None),
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => Ok(None),
        Op::Reduce { .. } | Op::Dot { .. } => Ok(None),
    }
}

/// Where a movement puts the marks of its operands; operands that are indices stay as they are.
fn moved_marks(op: &Op, operands: &[&Runs], of: fn(&Runs) -> &Marks, shape: &Shape) -> Result<Vec<bool>> {
    let mask = |(i, x): (usize, &&Runs)| {
        let value = &x.values[0];
        let ty = TensorType { shape: value.ty().shape.clone(), dtype: DType::Bool };
        let is_index = value.ty().dtype == DType::I64 && i > 0;
        match (of(x), op) {
            (_, Op::Gather { .. } | Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. }) if is_index => value.clone(),
            (Some(marks), _) => Dense::computed(&ty, Data::Bool(marks.clone())),
            (None, _) => Dense::splat(Literal::Bool(false), &ty.shape),
        }
    };
    let masks: Vec<Dense> = operands.iter().enumerate().map(mask).collect();
    let ty = TensorType { shape: shape.clone(), dtype: DType::Bool };
    let moved = apply::run(op, &masks.iter().collect::<Vec<_>>(), &ty, &mut Nearest)?;
    moved.to_vec()
}

/// Makes the runs decide both ways where rounding may turn a decision, and marks what differs.
fn decide(op: &Op, operands: &[&Runs], result: &mut Runs) {
    match op {
        Op::Compare(_) => {
            let [a, b] = operands else { return };
            decide_each(result, |i, runs| {
                let of = |x: &Runs| -> Vec<f64> { (0..runs).map(|r| x.run(r).f64_at(i)).collect() };
                may_trade_places(&of(a), &of(b)).then_some([0, 1])
            });
        }
        Op::Cast(to) => {
            let [x] = operands else { return };
            if x.values[0].ty().dtype.is_float() && !to.is_float() {
                let ends = |i: usize| {
                    let at = x.at(i);
                    let slack = MARGIN * spread(&at);
                    [at[0] - slack, at[0] + slack].map(|v| float_to_int(DType::I64, v))
                };
                decide_each(result, |i, _| match (to, ends(i)) {
                    (DType::Bool, _) => may_cross_zero(&x.at(i)).then_some([0, 1]),
                    (_, ends) => (ends[0] != ends[1]).then(|| ends.map(|v| to.wrap(v))),
                });
                // Of many integers, which may wrap as well, the runs show two.
                let many = |ends: [i64; 2]| ends[1].checked_sub(ends[0]).is_none_or(|n| n > 1);
                mark_where(result, |i| *to != DType::Bool && many(ends(i)));
            }
        }
        Op::Reduce { op: op @ (ReduceOp::ArgMax | ReduceOp::ArgMin), dims, .. } => {
            let [x] = operands else { return };
            let by_group: Vec<(Data, usize)> = x.values.iter().map(|run| groups(dims, run)).collect();
            let sign = if *op == ReduceOp::ArgMax { 1.0 } else { -1.0 };
            decide_each(result, |i, _| rival(&by_group, i, sign));
        }
        // The runs sort for themselves: positions that differ, or keys so close that they might, are not compared.
        Op::Sort { dim, .. } => {
            let [x] = operands else { return };
            let close = close_lines(*dim, x);
            mark_where(result, |i| close[i]);
        }
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => {}
        Op::Unary(op) => {
            let [x] = operands else { return };
            unary_steps(*op, x, result);
        }
        Op::Binary(op) => {
            let [a, b] = operands else { return };
            binary_steps(*op, a, b, result);
        }
        Op::Alias | Op::Detach | Op::ToDevice { .. } | Op::Select => {}
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => {}
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } => {}
        Op::CheckIndex { .. } | Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } => {}
        Op::WindowSum { .. } | Op::Dot { .. } => {}
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Prod, .. } => {}
        Op::Reduce { op: ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin, .. } => {}
    }
}

/// Marks where a function of one number has a step, a pole or the end of its domain within the bound of its operand.
fn unary_steps(op: UnaryOp, x: &Runs, result: &mut Runs) {
    if !result.values[0].ty().dtype.is_float() {
        return;
    }
    let crosses = |i: usize, at: f64| may_cross_zero(&x.at(i).iter().map(|v| v - at).collect::<Vec<_>>());
    match op {
        UnaryOp::Ceil | UnaryOp::Floor | UnaryOp::Trunc => {
            mark_where(result, |i| crosses(i, x.at(i)[0].round()));
        }
        UnaryOp::Round => mark_where(result, |i| {
            let v = x.at(i)[0];
            crosses(i, v.floor() + 0.5) || crosses(i, v.floor() - 0.5) || crosses(i, v.floor() + 1.5)
        }),
        UnaryOp::Sign => mark_where(result, |i| crosses(i, 0.0)),
        UnaryOp::Log1p => mark_where(result, |i| crosses(i, -1.0)),
        UnaryOp::Asin | UnaryOp::Acos | UnaryOp::Atanh => {
            mark_where(result, |i| crosses(i, 1.0) || crosses(i, -1.0));
        }
        UnaryOp::Acosh => mark_where(result, |i| crosses(i, 1.0)),
        UnaryOp::Tan => mark_where(result, |i| {
            let at = x.at(i);
            let period = (at[0] / std::f64::consts::PI - 0.5).round() + 0.5;
            crosses(i, period * std::f64::consts::PI)
        }),
        UnaryOp::Log | UnaryOp::Log2 | UnaryOp::Log10 | UnaryOp::Sqrt | UnaryOp::Rsqrt | UnaryOp::Reciprocal => {
            mark_where(result, |i| crosses(i, 0.0));
        }
        UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Not => {}
        UnaryOp::Exp | UnaryOp::Exp2 | UnaryOp::Expm1 | UnaryOp::Sigmoid | UnaryOp::Sin | UnaryOp::Cos => {}
        UnaryOp::Atan | UnaryOp::Sinh | UnaryOp::Cosh | UnaryOp::Tanh | UnaryOp::Asinh => {}
        UnaryOp::Erf | UnaryOp::Erfc => {}
    }
}

/// Marks where a function of two numbers has a step or a pole within the bound of its operands.
fn binary_steps(op: BinaryOp, a: &Runs, b: &Runs, result: &mut Runs) {
    if !result.values[0].ty().dtype.is_float() {
        return;
    }
    let runs = result.values.len();
    let ratio = |i: usize| -> Vec<f64> { (0..runs).map(|r| a.run(r).f64_at(i) / b.run(r).f64_at(i)).collect() };
    match op {
        BinaryOp::Div => mark_where(result, |i| may_cross_zero(&b.at(i))),
        BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv => mark_where(result, |i| {
            let ratio = ratio(i);
            let step = ratio[0].round();
            may_cross_zero(&b.at(i)) || may_cross_zero(&ratio.iter().map(|q| q - step).collect::<Vec<_>>())
        }),
        BinaryOp::Pow => mark_where(result, |i| {
            let exponent = b.at(i);
            let whole = exponent[0].round();
            may_cross_zero(&a.at(i)) || may_cross_zero(&exponent.iter().map(|v| v - whole).collect::<Vec<_>>())
        }),
        // The angle jumps where y changes its sign, for negative x.
        BinaryOp::Atan2 => mark_where(result, |i| may_cross_zero(&a.at(i))),
        BinaryOp::Copysign => mark_where(result, |i| {
            let sign = b.at(i);
            may_cross_zero(&sign) || sign.iter().any(|v| v.is_nan())
        }),
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min | BinaryOp::Hypot => {}
        BinaryOp::TruncDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => {}
        BinaryOp::ShiftLeft | BinaryOp::ShiftRight => {}
    }
}

/// For each element whether its line along `dim` has two elements that rounding may put in another order.
fn close_lines(dim: usize, x: &Runs) -> Vec<bool> {
    let mut close = vec![false; x.values[0].len()];
    for line in lines(dim, x.values[0].ty()) {
        let mut sorted = line.clone();
        let key = |i: &usize| x.values[0].f64_at(*i);
        sorted.sort_by(|a, b| key(a).total_cmp(&key(b)));
        let turned = sorted.windows(2).any(|pair| may_trade_places(&x.at(pair[0]), &x.at(pair[1])));
        line.iter().for_each(|&i| close[i] = turned);
    }
    close
}

/// Hides elements where the runs cannot show all that may come out.
fn mark_where(result: &mut Runs, is_open: impl Fn(usize) -> bool) {
    for i in 0..result.values[0].len() {
        if is_open(i) {
            result.hide(i);
        }
    }
}

/// For each element: the moved runs alternate between both outcomes, where `outcomes` says there are two. The first pair of runs
/// takes the lower and the higher one everywhere, so that a largest or smallest over many open decisions shows its ends.
fn decide_each(result: &mut Runs, outcomes: impl Fn(usize, usize) -> Option<[i64; 2]>) {
    for i in 0..result.values[0].len() {
        if let Some(both) = outcomes(i, result.values.len()) {
            let ends = [both[0].min(both[1]), both[0].max(both[1])];
            for (r, run) in result.values.iter_mut().enumerate().skip(1) {
                let both = if r <= 2 { ends } else { both };
                match run.data_mut() {
                    Data::Bool(v) => v[i] = both[r % 2] != 0,
                    Data::Int(v) => v[i] = both[r % 2],
                    Data::Float(v) => v[i] = both[r % 2] as f64,
                }
            }
        }
        if !result.values.iter().all(|run| run.same_at(&result.values[0], i)) {
            result.mark(i);
        }
    }
}

/// The positions of the largest element (times `sign`) of group `i` and of the first other one that rounding may make larger.
fn rival(runs: &[(Data, usize)], i: usize, sign: f64) -> Option<[i64; 2]> {
    let count = runs[0].1;
    let at = |r: usize, k: usize| match &runs[r].0 {
        Data::Float(v) => sign * v[i * count + k],
        Data::Bool(_) | Data::Int(_) => f64::NAN,
    };
    let best = (1..count).fold(0, |best, k| if at(0, k) > at(0, best) { k } else { best });
    let rivals = |k: &usize| {
        let of = |k: usize| -> Vec<f64> { (0..runs.len()).map(|r| at(r, k)).collect() };
        may_trade_places(&of(best), &of(*k))
    };
    (0..count).filter(|k| *k != best).find(rivals).map(|k| [best as i64, k as i64])
}
