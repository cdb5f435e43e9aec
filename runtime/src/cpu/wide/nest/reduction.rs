//! Reductions of a strip: accumulators, and their fixed order of combination.
//!
//! Each vector in flight has accumulators of its own, under the mask of the lanes that exist. They are combined part by part as
//! a tree, then lane by lane as one. Sums of floats start anew every so often, as in Cranelift's code.

use super::super::code::{Count, Inst};
use super::super::table::Vector;
use super::{Nest, Regs, Val, known_length, weight};
use lazuli_ir::kernel::{Emit, Extent, Reduce, ScalarType, ValueId};
use lazuli_ir::{ReduceOp, VarId};
use smallvec::SmallVec;

/// Elements that one accumulator adds up before it is flushed.
const BLOCK: i64 = 1024;

impl Nest<'_> {
    /// The results of a reduction over a range of its first variable.
    pub(super) fn reduce_range(&mut self, r: &Reduce, range: (Count, Count), most: Option<i64>) -> Vec<Val> {
        let types: SmallVec<[ScalarType; 2]> = r.reducers.iter().flat_map(|x| x.types()).collect();
        self.unfit |= types.contains(&ScalarType::Bool) || r.vars.is_empty();
        if self.unfit {
            return vec![Val::Undefined; types.len()];
        }
        let lanes = self.running.is_none() && r.axis.vector > 1;
        let last = r.vars.last().map(|v| v.1).and_then(Extent::known).map(|n| n as i64);
        let (length, most) = match r.vars.len() {
            1 => (known_length(range), most.or(last)),
            _ => (last, last),
        };
        let parts = match (lanes, self.running) {
            (true, _) => self.parts(weight(&r.body), length, most, &[(4, 4), (12, 2)]),
            (false, Some(running)) => running.parts,
            (false, None) => 1,
        };
        let plan = Plan::new(r, range, lanes, parts, most, i64::from(self.lanes));
        let accumulators = self.identities(r, &types, parts);
        self.level(&plan, 0, &accumulators);
        for r in accumulators.iter().flatten() {
            self.code.settle(*r);
        }
        if lanes {
            return self.across_lanes(r, &types, accumulators);
        }
        let val = |regs: Regs| if self.running.is_some() { Val::Parts(regs) } else { Val::One(regs[0]) };
        accumulators.into_iter().map(val).collect()
    }

    /// Accumulators: for each type, one a part.
    fn identities(&mut self, r: &Reduce, types: &[ScalarType], parts: u32) -> Vec<Regs> {
        let literals = r.reducers.iter().flat_map(|x| x.identity());
        let mut out = Vec::new();
        for (c, &ty) in literals.zip(types) {
            let identity = self.constant(ty, c);
            let class = self.class(ty);
            let mut regs = Regs::new();
            for _ in 0..parts {
                // Whatever depends on it must stay in the loops that change it.
                let acc = self.code.reg(class, u32::MAX, true);
                self.code.push(Inst::new(self.vector_op(Vector::Move, ty), Some(acc), &[identity]));
                regs.push(acc);
            }
            out.push(regs);
        }
        out
    }

    /// The loop over one variable of a reduction.
    fn level(&mut self, plan: &Plan<'_>, level: usize, accumulators: &[Regs]) {
        let r = plan.reduce;
        let Some(&(var, extent)) = r.vars.get(level) else { return };
        let range = match level {
            0 => plan.range,
            _ => (Count::Const(0), self.extent(extent)),
        };
        if level + 1 == r.vars.len() {
            return self.innermost(plan, var, range, accumulators);
        }
        self.counted(range, 1, true, &mut |e, counter| {
            e.vars.insert(var, counter);
            if plan.flush == Some(level) {
                e.afresh(plan, accumulators, &mut |e, fresh| e.level(plan, level + 1, fresh));
            } else {
                e.level(plan, level + 1, accumulators);
            }
            e.vars.remove(&var);
        });
    }

    /// Runs with accumulators of its own, and adds them up at the end.
    fn afresh(&mut self, plan: &Plan<'_>, accumulators: &[Regs], run: &mut dyn FnMut(&mut Self, &[Regs])) {
        let types: SmallVec<[ScalarType; 2]> = plan.reduce.reducers.iter().flat_map(|x| x.types()).collect();
        let fresh = self.identities(plan.reduce, &types, plan.parts);
        run(self, &fresh);
        let from = self.code.here();
        let elements: Vec<Regs> = fresh.clone();
        self.combine_into(plan.reduce, accumulators, elements, from);
    }

    fn innermost(&mut self, plan: &Plan<'_>, var: VarId, range: (Count, Count), accumulators: &[Regs]) {
        let Some(block) = plan.block else { return self.elements(plan, var, range, accumulators) };
        let (start, end) = range;
        self.counted((start, end), block, true, &mut |e, from| {
            let to = e.add_count(Count::Reg(from), block);
            let to = e.least(to, end);
            e.afresh(plan, accumulators, &mut |e, fresh| e.elements(plan, var, (Count::Reg(from), to), fresh));
        });
    }

    fn elements(&mut self, plan: &Plan<'_>, var: VarId, range: (Count, Count), accumulators: &[Regs]) {
        let r = plan.reduce;
        let element = |e: &mut Self| {
            let from = e.code.here();
            e.block(&r.body);
            if e.unfit || e.too_narrow {
                return;
            }
            let parts = e.running.map_or(1, |l| l.parts);
            let yields: Vec<Regs> = r.yields.iter().map(|v| e.parts_of(*v, parts)).collect();
            let some: Vec<Regs> =
                accumulators.iter().map(|a| a.iter().copied().take(parts as usize).collect()).collect();
            e.combine_into(r, &some, yields, from);
        };
        if plan.lanes {
            self.lane_loop(var, range, plan.parts, &mut |e| element(e));
        } else {
            self.counted(range, 1, true, &mut |e, counter| {
                e.vars.insert(var, counter);
                element(e);
                e.vars.remove(&var);
            });
        }
    }

    /// Combines elements into accumulators, those of lanes that do not exist excepted.
    fn combine_into(&mut self, r: &Reduce, accumulators: &[Regs], elements: Vec<Regs>, from: usize) {
        let results = self.combine(r, accumulators, &elements);
        let tail = self.running.and_then(|l| l.tail);
        let types: SmallVec<[ScalarType; 2]> = r.reducers.iter().flat_map(|x| x.types()).collect();
        for ((accs, new), ty) in accumulators.iter().zip(results).zip(&types) {
            for (acc, new) in accs.iter().zip(new) {
                let new = match tail {
                    // A reduction inside the lanes runs for all of them.
                    Some(tail) if self.reduces_lanes(r) => self.blend(*ty, tail, new, *acc),
                    _ => new,
                };
                if !self.code.retarget(from, new, *acc) {
                    self.code.push(Inst::new(self.vector_op(Vector::Move, *ty), Some(*acc), &[new]));
                }
            }
        }
    }

    /// Whether the lanes that run are those of the reduction's own variable.
    fn reduces_lanes(&self, r: &Reduce) -> bool {
        self.running.is_some_and(|l| r.vars.iter().any(|v| v.0 == l.var))
    }

    fn combine(&mut self, r: &Reduce, a: &[Regs], b: &[Regs]) -> Vec<Regs> {
        let (mut out, mut from) = (Vec::new(), 0);
        for reducer in &r.reducers {
            let temporaries = self.types.len();
            let (mut x, mut y): (SmallVec<[ValueId; 2]>, SmallVec<[ValueId; 2]>) = Default::default();
            for ty in reducer.types() {
                x.push(self.temporary(ty, Val::Parts(a[from].clone())));
                y.push(self.temporary(ty, Val::Parts(b[from].clone())));
                from += 1;
            }
            for v in reducer.combine(self as &mut dyn Emit, &x, &y) {
                let parts = a[0].len() as u32;
                out.push(self.parts_of(v, parts));
            }
            self.types.truncate(temporaries);
            self.values.truncate(temporaries);
        }
        out
    }

    /// The accumulators of all parts and lanes, combined to one number in all lanes.
    fn across_lanes(&mut self, r: &Reduce, types: &[ScalarType], mut accumulators: Vec<Regs>) -> Vec<Val> {
        while accumulators[0].len() > 1 {
            let half = accumulators[0].len().div_ceil(2);
            let pick = |of: &[Regs], even: bool| -> Vec<Regs> {
                let one = |regs: &Regs| {
                    regs.chunks(2).filter(|c| c.len() == 2).map(|c| if even { c[0] } else { c[1] }).collect()
                };
                of.iter().map(one).collect()
            };
            let (even, odd) = (pick(&accumulators, true), pick(&accumulators, false));
            let mut combined = self.combine(r, &even, &odd);
            for (c, all) in combined.iter_mut().zip(&accumulators) {
                if c.len() < half {
                    c.extend(all.last().copied());
                }
            }
            accumulators = combined;
        }
        let mut distance = self.lanes / 2;
        while distance > 0 {
            let turned: Vec<Regs> = accumulators
                .iter()
                .zip(types)
                .map(|(regs, ty)| smallvec::smallvec![self.exchange(*ty, regs[0], distance)])
                .collect();
            accumulators = self.combine(r, &accumulators, &turned);
            distance /= 2;
        }
        // All lanes hold the result, but for the sign of a zero or the bits of a NaN.
        accumulators.iter().zip(types).map(|(regs, ty)| Val::One(self.first_lane(*ty, regs[0]))).collect()
    }
}

/// What a reduction needs at all of its levels.
struct Plan<'r> {
    reduce: &'r Reduce,
    range: (Count, Count),
    lanes: bool,
    parts: u32,
    /// The level in whose iterations accumulators start anew.
    flush: Option<usize>,
    /// Elements of the innermost variable after which they do.
    block: Option<i64>,
}

impl<'r> Plan<'r> {
    fn new(
        reduce: &'r Reduce,
        range: (Count, Count),
        lanes: bool,
        parts: u32,
        most: Option<i64>,
        width: i64,
    ) -> Plan<'r> {
        let mut plan = Plan { reduce, range, lanes, parts, flush: None, block: None };
        let sums = reduce.reducers.iter().any(|x| x.op == ReduceOp::Sum && x.ty == ScalarType::F32);
        if !sums {
            return plan;
        }
        let group = if lanes { width * i64::from(parts) } else { 1 };
        let inner = most.unwrap_or(i64::MAX);
        if inner > 4 * BLOCK.saturating_mul(group) {
            plan.block = Some(BLOCK * group);
            return plan;
        }
        // The innermost level whose iterations are long enough to pay for a flush.
        let mut inside = inner;
        for level in (0..reduce.vars.len().saturating_sub(1)).rev() {
            if inside >= 64 * group {
                plan.flush = Some(level);
                break;
            }
            inside = inside.saturating_mul(reduce.vars[level].1.known().map_or(i64::MAX, |n| n as i64));
        }
        plan
    }
}
