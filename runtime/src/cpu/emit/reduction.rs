//! Reductions: accumulators, their fixed order of combination, and the partial results of a parallel reduce.
//!
//! A strip's accumulators are those of its vectors in flight, and one more for the elements left over; they are combined
//! vector by vector as a tree, then the lanes as a tree, then the rest. That order depends on the extents and the axis
//! alone. Sums of floats restart their accumulators every so often and add them up at the level above, so that the error
//! grows with the length of a block and the number of blocks, not with their product.

use super::Emitter;
use super::nest::{Int, is_leaf};
use super::value::{Mode, Parts, Val, scalar_type};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, InstBuilder, Value, types};
use lazuli_ir::kernel::{Binding, Emit, Extent, Reduce, Reducer, ScalarType, StmtKind};
use lazuli_ir::{Error, ReduceOp, Result, VarId};
use smallvec::SmallVec;

/// Elements that one accumulator adds up before it is flushed.
const BLOCK: i64 = 1024;

/// What a reduce needs at all of its levels.
struct Plan<'r> {
    reduce: &'r Reduce,
    /// Iterations that run together, largest first; empty inside a vector loop, whose lanes each reduce for themselves.
    stages: SmallVec<[Mode; 3]>,
    /// The range of the first variable.
    first: (Int, Int),
    /// The level in whose iterations accumulators start anew.
    flush: Option<usize>,
    /// Elements of the innermost variable after which accumulators start anew.
    block: Option<i64>,
}

impl Plan<'_> {
    fn modes(&self, outer: Mode) -> SmallVec<[Mode; 2]> {
        match self.stages.first() {
            None => smallvec::smallvec![outer],
            Some(m) if m.is_scalar() => smallvec::smallvec![*m],
            Some(m) => smallvec::smallvec![*m, Mode::SCALAR],
        }
    }
}

impl Emitter<'_> {
    pub(super) fn reduce(&mut self, r: &Reduce) -> Result<()> {
        let extent = r.vars.first().map(|v| self.extent(v.1)).unwrap_or(Int::Const(1));
        let results = self.reduce_range(r, Int::Const(0), extent)?;
        for (v, val) in r.results.iter().zip(results) {
            self.bind(*v, val);
        }
        Ok(())
    }

    /// The results over a range of the first variable.
    fn reduce_range(&mut self, r: &Reduce, start: Int, end: Int) -> Result<Vec<Val>> {
        #[cfg(target_arch = "x86_64")]
        if let Some(results) = self.reduce_strip(r, start, end)? {
            return Ok(results);
        }
        let plan = self.plan(r, start, end);
        let outer = self.mode;
        let modes = plan.modes(outer);
        let accumulators = self.identities(r, &modes)?;
        let accumulators = self.level(&plan, 0, accumulators)?;
        self.finish_strip(r, &modes, accumulators)
    }

    fn plan<'r>(&self, r: &'r Reduce, start: Int, end: Int) -> Plan<'r> {
        let inner = r.vars.last().map(|v| v.1);
        let whole = r.vars.len() > 1 || matches!(start, Int::Const(0));
        let length = match (start, end, inner) {
            (Int::Const(a), Int::Const(b), _) if r.vars.len() == 1 => Some(b - a),
            (_, _, Some(Extent::Const(n))) if whole || r.vars.len() == 1 => Some(n as i64),
            _ => None,
        };
        // A body with loops or tiles of its own is no strip, unless the schedule says so.
        let strip = !self.inside_strip && (r.axis.vector >= 4 || is_leaf(&r.body));
        let stages = if strip { Self::stages(r.axis, length) } else { SmallVec::new() };
        let group = i64::from(stages.first().map_or(1, |m| m.total()));
        let sums = r.reducers.iter().any(|x| x.op == ReduceOp::Sum && x.ty == ScalarType::F32);
        let (mut flush, mut block) = (None, None);
        if sums {
            let inner = length.unwrap_or(i64::MAX);
            if inner > 4 * BLOCK.saturating_mul(group) {
                block = Some(BLOCK * group);
            } else {
                // The innermost level whose iterations are long enough to pay for a flush.
                let mut inside = inner;
                for level in (0..r.vars.len().saturating_sub(1)).rev() {
                    if inside >= 64 * group {
                        flush = Some(level);
                        break;
                    }
                    inside = inside.saturating_mul(r.vars[level].1.known().map_or(i64::MAX, |n| n as i64));
                }
            }
        }
        Plan { reduce: r, stages, first: (start, end), flush, block }
    }

    /// The loop over one variable of a reduce.
    fn level(&mut self, plan: &Plan<'_>, level: usize, accumulators: Parts) -> Result<Parts> {
        let Some(&(var, extent)) = plan.reduce.vars.get(level) else {
            return self.element(plan, &accumulators);
        };
        let (start, end) = if level == 0 { plan.first } else { (Int::Const(0), self.extent(extent)) };
        if level + 1 == plan.reduce.vars.len() {
            return self.innermost(plan, (var, extent), start, end, accumulators);
        }
        let modes = plan.modes(self.mode);
        let (_, out) = self.counted(Some(var), start, end, 1, accumulators, &mut |e, v, now| {
            e.set_var(var, extent, false, v);
            if plan.flush != Some(level) {
                return e.level(plan, level + 1, now.iter().copied().collect());
            }
            let fresh = e.identities(plan.reduce, &modes)?;
            let inside = e.level(plan, level + 1, fresh)?;
            e.combine_all(plan.reduce, &modes, now, &inside)
        })?;
        Ok(out)
    }

    fn innermost(
        &mut self,
        plan: &Plan<'_>,
        var: (VarId, Extent),
        start: Int,
        end: Int,
        accumulators: Parts,
    ) -> Result<Parts> {
        let Some(block) = plan.block else { return self.strip(plan, var, start, end, accumulators) };
        let modes = plan.modes(self.mode);
        let (_, out) = self.counted(None, start, end, block, accumulators, &mut |e, from, now| {
            let to = e.int_add(Int::Value(from), block);
            let to = e.int_min(to, end);
            let fresh = e.identities(plan.reduce, &modes)?;
            let inside = e.strip(plan, var, Int::Value(from), to, fresh)?;
            e.combine_all(plan.reduce, &modes, now, &inside)
        })?;
        Ok(out)
    }

    /// The stages of the innermost loop. Accumulators are those of the widest stage, then the scalar ones.
    fn strip(
        &mut self,
        plan: &Plan<'_>,
        (var, extent): (VarId, Extent),
        mut start: Int,
        end: Int,
        accumulators: Parts,
    ) -> Result<Parts> {
        if plan.stages.is_empty() {
            let (_, out) = self.counted(Some(var), start, end, 1, accumulators, &mut |e, v, now| {
                e.set_var(var, extent, false, v);
                e.element(plan, now)
            })?;
            return Ok(out);
        }
        let reducers = &plan.reduce.reducers;
        let wide = plan.stages[0];
        let split = if wide.is_scalar() { 0 } else { width(reducers, wide) };
        let mut vectors: Parts = accumulators[..split].iter().copied().collect();
        let mut scalars: Parts = accumulators[split..].iter().copied().collect();
        for &mode in &plan.stages {
            let mut run = |e: &mut Self, now: &[Value]| e.element(plan, now);
            if mode.is_scalar() {
                (start, scalars) = self.stage(mode, (var, extent), start, end, scalars, &mut run)?;
            } else if mode == wide {
                (start, vectors) = self.stage(mode, (var, extent), start, end, vectors, &mut run)?;
            } else {
                let first = select_parts(reducers, wide, &vectors, 0);
                let (next, first) = self.stage(mode, (var, extent), start, end, first, &mut run)?;
                start = next;
                put_parts(reducers, wide, &mut vectors, &first);
            }
        }
        vectors.extend(scalars);
        Ok(vectors)
    }

    /// One group of elements: the body, and the combination of what it yields.
    fn element(&mut self, plan: &Plan<'_>, now: &[Value]) -> Result<Parts> {
        self.block(&plan.reduce.body)?;
        let mut elements = Parts::new();
        for v in &plan.reduce.yields {
            if self.mode.is_scalar() {
                elements.push(self.uniform(*v)?);
            } else {
                elements.extend(self.varying(*v)?);
            }
        }
        self.combine(plan.reduce, self.mode, now, &elements)
    }

    /// The identities of all accumulators, for each of the modes.
    fn identities(&mut self, r: &Reduce, modes: &[Mode]) -> Result<Parts> {
        let mut out = Parts::new();
        for &mode in modes {
            let outer = std::mem::replace(&mut self.mode, mode);
            for reducer in &r.reducers {
                for (c, ty) in reducer.identity().into_iter().zip(reducer.types()) {
                    out.extend(self.varying_val(&Val::Const(c), ty, false)?);
                }
            }
            self.mode = outer;
        }
        Ok(out)
    }

    /// Combines accumulators of several modes, one after the other.
    fn combine_all(&mut self, r: &Reduce, modes: &[Mode], a: &[Value], b: &[Value]) -> Result<Parts> {
        let (mut out, mut from) = (Parts::new(), 0);
        for &mode in modes {
            let to = from + width(&r.reducers, mode);
            let outer = std::mem::replace(&mut self.mode, mode);
            let combined = self.combine(r, mode, &a[from..to], &b[from..to]);
            self.mode = outer;
            out.extend(combined?);
            from = to;
        }
        Ok(out)
    }

    /// Combines accumulators of one mode, which is the current one.
    fn combine(&mut self, r: &Reduce, mode: Mode, a: &[Value], b: &[Value]) -> Result<Parts> {
        let (mut out, mut from) = (Parts::new(), 0);
        for reducer in &r.reducers {
            let temporaries = self.types.len();
            let (mut x, mut y) = (SmallVec::<[_; 2]>::new(), SmallVec::<[_; 2]>::new());
            for ty in reducer.types() {
                let to = from + mode.count(ty);
                let val = |v: &[Value]| match mode.is_scalar() {
                    true => Val::Scalar(v[0]),
                    false => Val::Parts(v.iter().copied().collect()),
                };
                x.push(self.temporary(ty, val(&a[from..to])));
                y.push(self.temporary(ty, val(&b[from..to])));
                from = to;
            }
            let results = reducer.combine(self as &mut dyn Emit, &x, &y);
            for v in results {
                if mode.is_scalar() {
                    out.push(self.uniform(v)?);
                } else {
                    out.extend(self.varying(v)?);
                }
            }
            self.types.truncate(temporaries);
            self.values.truncate(temporaries);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(out),
        }
    }

    /// The accumulators of a strip combined to one result each.
    fn finish_strip(&mut self, r: &Reduce, modes: &[Mode], accumulators: Parts) -> Result<Vec<Val>> {
        let outer = self.mode;
        let &[wide, scalar] = modes else {
            // Lanes of a loop around, or scalars: each accumulator is a result.
            return Ok(self.results(&r.reducers, modes[0], &accumulators));
        };
        let split = width(&r.reducers, wide);
        let mut groups: Vec<Parts> =
            (0..wide.parts).map(|part| select_parts(&r.reducers, wide, &accumulators[..split], part)).collect();
        self.mode = Mode { lanes: wide.lanes, parts: 1 };
        let vector = self.tree(r, &mut groups)?;
        let mut groups: Vec<Parts> = vec![vector];
        if wide.lanes > 1 {
            groups = self.split_lanes(r, &groups[0])?;
        }
        self.mode = scalar;
        let lanes = self.tree(r, &mut groups)?;
        let all = self.combine(r, scalar, &lanes, &accumulators[split..])?;
        self.mode = outer;
        Ok(self.results(&r.reducers, scalar, &all))
    }

    /// Combines groups of accumulators pairwise: `(0 1)(2 3)` and so on.
    fn tree(&mut self, r: &Reduce, groups: &mut Vec<Parts>) -> Result<Parts> {
        while groups.len() > 1 {
            let mut next = Vec::with_capacity(groups.len().div_ceil(2));
            for pair in groups.chunks(2) {
                next.push(match pair {
                    [a, b] => self.combine(r, self.mode, a, b)?,
                    _ => pair[0].clone(),
                });
            }
            *groups = next;
        }
        groups.pop().ok_or_else(|| Error::internal("a reduce without accumulators"))
    }

    /// The scalars of each lane of one vector of accumulators.
    fn split_lanes(&mut self, r: &Reduce, vector: &[Value]) -> Result<Vec<Parts>> {
        let mut out = Vec::new();
        for lane in 0..self.mode.lanes {
            let (mut scalars, mut from) = (Parts::new(), 0);
            for ty in r.reducers.iter().flat_map(|x| x.types()) {
                let to = from + self.mode.count(ty);
                let val = Val::Parts(vector[from..to].iter().copied().collect());
                scalars.push(self.lane_of_val(&val, ty, lane)?);
                from = to;
            }
            out.push(scalars);
        }
        Ok(out)
    }

    fn results(&self, reducers: &[Reducer], mode: Mode, accumulators: &[Value]) -> Vec<Val> {
        let (mut out, mut from) = (Vec::new(), 0);
        for ty in reducers.iter().flat_map(|x| x.types()) {
            let to = from + mode.count(ty);
            out.push(match mode.is_scalar() {
                true => Val::Scalar(accumulators[from]),
                false => Val::Parts(accumulators[from..to].iter().copied().collect()),
            });
            from = to;
        }
        out
    }

    /// The root of a kernel that is a parallel reduce: an iteration is a chunk, whose results go to the partials.
    pub(super) fn partial_reduces(&mut self, r: &Reduce) -> Result<()> {
        let (begin, end) = (Int::Value(self.begin), Int::Value(self.end));
        let chunk = r.chunk.max(1) as i64;
        let extent = r.vars.first().map_or(Extent::Const(1), |v| v.1);
        self.counted(None, begin, end, 1, Parts::new(), &mut |e, n, _| {
            let from = e.int_times(Int::Value(n), chunk);
            let to = e.int_add(from, chunk);
            let extent = e.extent(extent);
            let to = e.int_min(to, extent);
            let results = e.reduce_range(r, from, to)?;
            let at = e.partial(r, n);
            for (i, (val, ty)) in results.iter().zip(r.reducers.iter().flat_map(|x| x.types())).enumerate() {
                let v = e.lane_of_val(val, ty, 0)?;
                let flags = e.flags.tile;
                e.ins().store(flags, v, at, i as i32 * 8);
            }
            Ok(Parts::new())
        })?;
        Ok(())
    }

    /// The address of a chunk's partial results: a word each.
    fn partial(&mut self, r: &Reduce, chunk: Value) -> Value {
        let words = partial_words(r) as i64;
        let distance = self.ins().imul_imm_s(chunk, words * 8);
        let partials = self.partials;
        self.ins().iadd(partials, distance)
    }

    /// Combines the partials of all chunks, `end` in number, pairwise in their order; makes the results known.
    pub(super) fn combine_partials(&mut self) -> Result<()> {
        let kernel = self.kernel;
        let [stmt] = kernel.body.as_slice() else { return Ok(()) };
        let StmtKind::Reduce(r) = &stmt.kind else { return Ok(()) };
        if r.axis.binding != Binding::Parallel {
            return Ok(());
        }
        let chunks = self.end;
        let (none, some) = (self.new_block(), self.new_block());
        let any = self.ins().icmp_imm_s(IntCC::SignedGreaterThan, chunks, 0);
        self.branch(any, some, &[], none, &[]);
        self.enter(none);
        let identities = self.identities(r, &[Mode::SCALAR])?;
        let zero = self.int(0);
        self.store_partial(r, zero, &identities);
        self.jump(some, &[]);
        self.enter(some);

        // for (width = 1; width < chunks; width *= 2) for (i = 0; i + width < chunks; i += 2 width)
        let (outer, inner, next, after) = (self.new_block(), self.new_block(), self.new_block(), self.new_block());
        let width = self.param(outer);
        let i = self.param(inner);
        let one = self.int(1);
        self.jump(outer, &[one]);
        self.enter(outer);
        let goes_on = self.ins().icmp(IntCC::SignedLessThan, width, chunks);
        let first = self.int(0);
        self.branch(goes_on, inner, &[first], after, &[]);
        self.enter(inner);
        let other = self.ins().iadd(i, width);
        let (a, b) = (self.load_partial(r, i), self.load_partial(r, other));
        let combined = self.combine(r, Mode::SCALAR, &a, &b)?;
        self.store_partial(r, i, &combined);
        let i_next = self.ins().iadd(other, width);
        let other_next = self.ins().iadd(i_next, width);
        let more = self.ins().icmp(IntCC::SignedLessThan, other_next, chunks);
        self.branch(more, inner, &[i_next], next, &[]);
        self.enter(next);
        let twice = self.ins().iadd(width, width);
        self.jump(outer, &[twice]);
        self.enter(after);
        let zero = self.int(0);
        let results = self.load_partial(r, zero);
        for (v, value) in r.results.iter().zip(results) {
            self.bind(*v, Val::Scalar(value));
        }
        Ok(())
    }

    fn param(&mut self, block: Block) -> Value {
        self.func.dfg.append_block_param(block, types::I64)
    }

    fn load_partial(&mut self, r: &Reduce, chunk: Value) -> Parts {
        let (at, flags) = (self.partial(r, chunk), self.flags.tile);
        let types = r.reducers.iter().flat_map(|x| x.types());
        types.enumerate().map(|(i, ty)| self.ins().load(scalar_type(ty), flags, at, i as i32 * 8)).collect()
    }

    fn store_partial(&mut self, r: &Reduce, chunk: Value, values: &[Value]) {
        let (at, flags) = (self.partial(r, chunk), self.flags.tile);
        for (i, v) in values.iter().enumerate() {
            self.ins().store(flags, *v, at, i as i32 * 8);
        }
    }
}

/// Words of a chunk's partial results.
pub(in crate::cpu) fn partial_words(r: &Reduce) -> usize {
    r.reducers.iter().map(|x| x.types().len()).sum()
}

/// Values that the accumulators of a mode consist of.
fn width(reducers: &[Reducer], mode: Mode) -> usize {
    reducers.iter().flat_map(|x| x.types()).map(|ty| mode.count(ty)).sum()
}

/// The accumulators of one vector of those in flight.
fn select_parts(reducers: &[Reducer], wide: Mode, all: &[Value], part: u32) -> Parts {
    let (mut out, mut from) = (Parts::new(), 0);
    for ty in reducers.iter().flat_map(|x| x.types()) {
        let (count, each) = (wide.count(ty), wide.count(ty) / wide.parts as usize);
        let at = from + part as usize * each;
        out.extend(all[at..at + each].iter().copied());
        from += count;
    }
    out
}

/// Puts the accumulators of the first vector in flight back.
fn put_parts(reducers: &[Reducer], wide: Mode, all: &mut Parts, first: &[Value]) {
    let (mut from, mut taken) = (0, 0);
    for ty in reducers.iter().flat_map(|x| x.types()) {
        let (count, each) = (wide.count(ty), wide.count(ty) / wide.parts as usize);
        for k in 0..each {
            all[from + k] = first[taken + k];
        }
        from += count;
        taken += each;
    }
}
