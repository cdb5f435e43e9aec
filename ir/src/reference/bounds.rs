//! How far a right evaluator may be off: measured by moving every rounding of the program.
//!
//! A graph runs seven times in lockstep, node by node: once as [`evaluate`](super::evaluate) does, six times with each
//! primitive's float result moved by a random amount within its stated error (see `rounding`). An element's bound is 16 times
//! the spread of the seven values plus one unit in the last place. Where nothing was moved all runs are the same and the bound
//! is 0: operations that are correctly rounded, movement and integers must agree exactly, until a function with an error of
//! its own or a sum comes in. Bounds grow where the program is ill conditioned and nowhere else, so tests need no tolerances
//! of their own.
//!
//! **Decisions.** Comparing, converting to an integer and choosing an argmax turn small differences into large ones. Where
//! the decision is within the bound of going the other way, the runs are made to decide both ways. The element is then
//! *undetermined*, as is all that elementwise operations and movement make of it; a sum or contraction over it is not,
//! since its runs already spread over both outcomes. What is compared is the difference of both sides within one run, so
//! `eq(x, max(x))` is determined although `x` itself is moved.

use super::apply;
use super::check_inputs;
use super::contraction::groups;
use super::dense::{Data, Dense};
use super::rounding::{Moved, Nearest, Recorded, spacing};
use crate::{BinaryOp, DType, Graph, Literal, Op, ReduceOp, Result, Shape, TensorType};
use std::rc::Rc;

/// Runs whose roundings are moved: three pairs. Movements of two operations in a row may cancel; that they do in all three pairs
/// is rare.
const MOVED: usize = 6;
/// What a spread is multiplied by: seven samples of a distribution rarely reach its ends.
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
        Op::Input { index, .. } => Ok(Runs { values: vec![inputs[*index].clone()], undetermined: None }),
        _ => step(op, operands, &graph.node(n).types[0], &mut movers),
    })?;
    Ok(outputs.into_iter().map(Bounds::of).collect())
}

/// A value in every run; a single one where no rounding can reach it.
#[derive(Clone)]
struct Runs {
    values: Vec<Dense>,
    undetermined: Option<Vec<bool>>,
}

impl Runs {
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
}

fn spread(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low
}

/// Whether a number, given in each run, may as well be on the other side of 0.
fn may_cross_zero(values: &[f64]) -> bool {
    // Where some runs overflow and others do not, anything may come out.
    let alike = |v: &f64| v.to_bits() == values[0].to_bits() || (v.is_nan() && values[0].is_nan());
    if values.iter().any(|v| !v.is_finite()) {
        return !values.iter().all(alike);
    }
    let spread = spread(values);
    spread > 0.0 && values[0].abs() <= MARGIN * spread
}

fn step(op: &Op, operands: &[&Runs], ty: &TensorType, movers: &mut [Moved]) -> Result<Runs> {
    let of_run = |r: usize| -> Vec<&Dense> { operands.iter().map(|x| x.run(r)).collect() };
    let mut nominal = Recorded::default();
    let mut values = vec![apply::run(op, &of_run(0), ty, &mut nominal)?];
    if is_inexact(op, ty.dtype) || operands.iter().any(|x| x.values.len() > 1) {
        let nominal: Rc<[f64]> = nominal.0.into();
        for (r, mover) in movers.iter_mut().enumerate() {
            mover.start(nominal.clone());
            values.push(apply::run(op, &of_run(r + 1), ty, mover)?);
        }
    }
    let mut runs = Runs { values, undetermined: inherited(op, operands, &ty.shape)? };
    if runs.values.len() > 1 {
        decide(op, operands, &mut runs);
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
        Op::Binary(op) => op.ulps() > 0.5,
        // A largest zero may have either sign.
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Max, .. } | Op::Dot { .. } => true,
        Op::Reduce { op: ReduceOp::ArgMax, .. } => false,
        // An integer becomes the nearest float: every evaluator gives the same.
        Op::Cast(_) => false,
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => false,
        Op::Alias | Op::Detach | Op::Compare(_) | Op::Select => false,
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => false,
    };
    inexact && dtype.is_float()
}

/// Which elements of the result are undetermined because elements of the operands are.
fn inherited(op: &Op, operands: &[&Runs], shape: &Shape) -> Result<Option<Vec<bool>>> {
    if operands.iter().all(|x| x.undetermined.is_none()) {
        return Ok(None);
    }
    match op {
        Op::Alias | Op::Detach | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) => {
            Ok(Some((0..shape.elements()).map(|i| operands.iter().any(|x| x.is_undetermined(i))).collect()))
        }
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => {
            let Some(mask) = operands.first().and_then(|x| x.undetermined.clone()) else { return Ok(None) };
            let ty = TensorType { shape: operands[0].values[0].ty().shape.clone(), dtype: DType::Bool };
            let mask = Dense::computed(&ty, Data::Bool(mask));
            let around = Dense::splat(Literal::Bool(false), &Shape::scalar());
            let all = [&mask, &around];
            let ty = TensorType { shape: shape.clone(), dtype: DType::Bool };
            let moved = apply::run(op, &all[..op.arity()], &ty, &mut Nearest)?;
            Ok(Some(moved.to_vec()?))
        }
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => Ok(None),
        Op::Reduce { .. } | Op::Dot { .. } => Ok(None),
    }
}

/// Makes the runs decide both ways where rounding may turn a decision, and marks what differs.
fn decide(op: &Op, operands: &[&Runs], result: &mut Runs) {
    match op {
        Op::Compare(_) => {
            let [a, b] = operands else { return };
            decide_each(result, |i, runs| {
                let differences: Vec<f64> = (0..runs).map(|r| a.run(r).f64_at(i) - b.run(r).f64_at(i)).collect();
                may_cross_zero(&differences).then_some([0, 1])
            });
        }
        Op::Cast(to) => {
            let [x] = operands else { return };
            if x.values[0].ty().dtype.is_float() && !to.is_float() {
                decide_each(result, |i, _| {
                    let at = x.at(i);
                    let slack = MARGIN * spread(&at);
                    let ends = [at[0] - slack, at[0] + slack].map(|v| Literal::from_f64(DType::I64, v));
                    match (to, ends) {
                        (DType::Bool, _) => may_cross_zero(&at).then_some([0, 1]),
                        (_, [Literal::I64(low), Literal::I64(high)]) if low != high => Some([low, high]),
                        _ => None,
                    }
                });
            }
        }
        Op::Reduce { op: ReduceOp::ArgMax, dims, .. } => {
            let [x] = operands else { return };
            let by_group: Vec<(Data, usize)> = x.values.iter().map(|run| groups(dims, run)).collect();
            decide_each(result, |i, _| rival(&by_group, i));
        }
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => {}
        Op::Unary(op) => {
            let [x] = operands else { return };
            let pole = |v: f64| !(op.row().float)(v).is_finite();
            // At a pole, or the end of a domain, infinity, NaN and numbers are neighbours.
            if result.values[0].ty().dtype.is_float() && (pole(0.0) || pole(-f64::MIN_POSITIVE)) {
                mark_where(result, |i| may_cross_zero(&x.at(i)));
            }
        }
        Op::Binary(BinaryOp::Div) => {
            let [_, b] = operands else { return };
            mark_where(result, |i| may_cross_zero(&b.at(i)));
        }
        Op::Alias | Op::Detach | Op::Select => {}
        Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min) => {}
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => {}
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Max, .. } | Op::Dot { .. } => {}
    }
}

/// Marks elements where the runs cannot show all that may come out.
fn mark_where(result: &mut Runs, is_open: impl Fn(usize) -> bool) {
    for i in 0..result.values[0].len() {
        if is_open(i) {
            result.mark(i);
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

/// The positions of the largest element of group `i` and of the first other one that rounding may make larger.
fn rival(runs: &[(Data, usize)], i: usize) -> Option<[i64; 2]> {
    let count = runs[0].1;
    let at = |r: usize, k: usize| match &runs[r].0 {
        Data::Float(v) => v[i * count + k],
        Data::Bool(_) | Data::Int(_) => f64::NAN,
    };
    let best = (1..count).fold(0, |best, k| if at(0, k) > at(0, best) { k } else { best });
    let rivals = |k: &usize| {
        let lead: Vec<f64> = (0..runs.len()).map(|r| at(r, best) - at(r, *k)).collect();
        may_cross_zero(&lead)
    };
    (0..count).filter(|k| *k != best).find(rivals).map(|k| [best as i64, k as i64])
}
