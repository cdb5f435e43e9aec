//! Loops: counted loops, strips of vectors, and the parallel space at the root of a kernel.
//!
//! A strip runs in up to three stages, all from the same statements: several vectors at a time, one vector at a time, one
//! element at a time. Stages that a constant extent rules out are not emitted.

use super::Emitter;
use super::address::Coefficient;
use super::value::{LANES, Mode, Parts, Region, Var};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, InstBuilder, Value, types};
use lazuli_ir::kernel::{Access, Axis, Binding, Block as Body, Expr, Extent, Loop, Memory, Stmt, StmtKind, TileId};
use lazuli_ir::kernel_walk::{for_each_statement, holds_dot};
use lazuli_ir::{Result, VarId};
use smallvec::SmallVec;

/// A loop that is being emitted.
#[derive(Debug)]
pub(super) struct Frame {
    pub var: Option<VarId>,
    pub header: Block,
    /// Multiples of the variable that are loop variables of their own.
    pub counters: Vec<(Coefficient, Value)>,
}

/// An integer that may be known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Int {
    Const(i64),
    Value(Value),
}

/// The most vectors a strip keeps in flight.
pub(super) const MOST_PARTS: u32 = 16;

/// Emits one iteration: gets its variable and the carried values, gives the next carried ones.
pub(super) type Iteration<'a, E> = &'a mut dyn FnMut(&mut E, Value, &[Value]) -> Result<Parts>;

impl<'k> Emitter<'k> {
    pub(super) fn int_value(&mut self, i: Int) -> Value {
        match i {
            Int::Const(c) => self.int(c),
            Int::Value(v) => v,
        }
    }

    pub(super) fn int_add(&mut self, a: Int, c: i64) -> Int {
        match a {
            Int::Const(a) => Int::Const(a.wrapping_add(c)),
            Int::Value(v) if c == 0 => Int::Value(v),
            Int::Value(v) => Int::Value(self.ins().iadd_imm_s(v, c)),
        }
    }

    pub(super) fn int_times(&mut self, a: Int, c: i64) -> Int {
        match a {
            Int::Const(a) => Int::Const(a.wrapping_mul(c)),
            Int::Value(v) if c == 1 => Int::Value(v),
            Int::Value(v) => {
                let c = self.int(c);
                Int::Value(self.ins().imul(v, c))
            }
        }
    }

    pub(super) fn int_min(&mut self, a: Int, b: Int) -> Int {
        if let (Int::Const(a), Int::Const(b)) = (a, b) {
            return Int::Const(a.min(b));
        }
        let (a, b) = (self.int_value(a), self.int_value(b));
        let less = self.ins().icmp(IntCC::SignedLessThan, a, b);
        Int::Value(self.ins().select(less, a, b))
    }

    pub(super) fn extent(&self, e: Extent) -> Int {
        match e {
            Extent::Const(n) => Int::Const(n as i64),
            Extent::Runtime(e) => Int::Value(self.extents[e.0 as usize]),
        }
    }

    /// Makes a loop variable known.
    pub(super) fn set_var(&mut self, v: VarId, extent: Extent, lanes: bool, value: Value) {
        let depth = self.frames.len() as u32 + 1;
        self.ranges[v.0 as usize] = (0, extent.known().map_or(i64::from(i32::MAX), |n| n as i64 - 1));
        self.vars[v.0 as usize] = Some(match lanes {
            true => Var::Lanes { first: value, depth },
            false => Var::Uniform { value, depth },
        });
    }

    /// `for v in start..end step by step`, with carried values. Gives the first value not run, and the carried ones.
    ///
    /// The block before the loop stays open until the loop is emitted: what does not change in the loop goes there.
    pub(super) fn counted(
        &mut self,
        var: Option<VarId>,
        start: Int,
        end: Int,
        step: i64,
        carried: Parts,
        iteration: Iteration<'_, Self>,
    ) -> Result<(Int, Parts)> {
        let trips = match (start, end) {
            (Int::Const(a), Int::Const(b)) => Some((b.saturating_sub(a).max(0) as u64).div_ceil(step as u64)),
            _ => None,
        };
        match trips {
            Some(0) => Ok((start, carried)),
            Some(1) => {
                let first = self.int_value(start);
                let (before, inside) = (self.at, self.new_block());
                self.enter(inside);
                let carried = iteration(self, first, &carried)?;
                let after = std::mem::replace(&mut self.at, before);
                self.jump(inside, &[]);
                self.at = after;
                Ok((self.int_add(start, step), carried))
            }
            _ => {
                let (exit, carried) = self.rolled(var, start, end, step, carried, iteration, trips.is_some())?;
                // A known number of iterations makes known where the next stage starts, and whether there is one.
                let known = match (start, trips) {
                    (Int::Const(a), Some(n)) => Int::Const(a + n as i64 * step),
                    _ => exit,
                };
                Ok((known, carried))
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn rolled(
        &mut self,
        var: Option<VarId>,
        start: Int,
        end: Int,
        step: i64,
        carried: Parts,
        iteration: Iteration<'_, Self>,
        runs: bool,
    ) -> Result<(Int, Parts)> {
        let (first, last) = (self.int_value(start), self.int_value(end));
        let (before, header, after) = (self.at, self.new_block(), self.new_block());
        let v = self.func.dfg.append_block_param(header, types::I64);
        let exit = self.func.dfg.append_block_param(after, types::I64);
        let (mut inside, mut outside) = (Parts::new(), Parts::new());
        for c in &carried {
            let ty = self.func.dfg.value_type(*c);
            inside.push(self.func.dfg.append_block_param(header, ty));
            outside.push(self.func.dfg.append_block_param(after, ty));
        }
        self.enter(header);
        self.frames.push(Frame { var, header, counters: Vec::new() });
        let next = iteration(self, v, &inside)?;
        let counters = self.frames.pop().map(|f| f.counters).unwrap_or_default();

        let next_v = self.ins().iadd_imm_s(v, step);
        let mut back: Parts = std::iter::once(next_v).chain(next.iter().copied()).collect();
        let out = back.clone();
        let mut enter: Parts = std::iter::once(first).chain(carried.iter().copied()).collect();
        for (k, counter) in counters {
            let (start, step) = self.counter_steps(before, k, first, step);
            enter.push(start);
            back.push(self.ins().iadd(counter, step));
        }
        let more = self.ins().icmp(IntCC::SignedLessThan, next_v, last);
        self.branch(more, header, &back, after, &out);

        self.at = before;
        if runs {
            self.jump(header, &enter);
        } else {
            let any = self.ins().icmp(IntCC::SignedLessThan, first, last);
            let skip: Parts = std::iter::once(first).chain(carried.iter().copied()).collect();
            self.branch(any, header, &enter, after, &skip);
        }
        self.enter(after);
        Ok((Int::Value(exit), outside))
    }

    /// The first value and the step of a multiple of a loop's variable, computed before the loop.
    fn counter_steps(&mut self, before: Block, k: Coefficient, first: Value, step: i64) -> (Value, Value) {
        let factor = self.ins_at(before).iconst(types::I64, k.factor);
        let unit = match k.stride {
            Some(stride) => self.ins_at(before).imul(stride, factor),
            None => factor,
        };
        let start = self.ins_at(before).imul(first, unit);
        let step = self.ins_at(before).iconst(types::I64, step);
        (start, self.ins_at(before).imul(unit, step))
    }

    /// Runs `iteration` with all that the body needs to run `mode` iterations together, as far as whole groups go.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn stage(
        &mut self,
        mode: Mode,
        (var, extent): (VarId, Extent),
        start: Int,
        end: Int,
        carried: Parts,
        iteration: &mut dyn FnMut(&mut Self, &[Value]) -> Result<Parts>,
    ) -> Result<(Int, Parts)> {
        let group = i64::from(mode.total());
        let whole = match (start, end) {
            (Int::Const(a), Int::Const(b)) => Int::Const(a + (b - a).max(0) / group * group),
            _ => self.int_add(end, 1 - group),
        };
        let outer = (self.mode, self.region.take(), self.lane_var, self.inside_strip);
        let before = self.at;
        self.regions += 1;
        let region = self.regions;
        self.region = Some(Region::new(region, before));
        self.mode = mode;
        self.lane_var = (!mode.is_scalar()).then_some(var);
        self.inside_strip = true;
        let result = self.counted(Some(var), start, whole, group, carried, &mut |e, v, carried| {
            e.set_var(var, extent, !mode.is_scalar(), v);
            iteration(e, carried)
        });
        (self.mode, self.region, self.lane_var, self.inside_strip) = outer;
        result
    }

    /// The stages of a strip.
    pub(super) fn stages(axis: Axis, length: Option<i64>) -> SmallVec<[Mode; 3]> {
        let lanes = if axis.vector >= LANES { LANES } else { 1 };
        let mut parts = (axis.vector.max(1) / lanes).max(1).saturating_mul(axis.unroll.max(1)).min(MOST_PARTS);
        while let Some(n) = length
            && parts > 1
            && i64::from(parts * lanes) > n
        {
            parts /= 2;
        }
        let mut stages: SmallVec<[Mode; 3]> = smallvec::smallvec![Mode { lanes, parts }];
        if parts > 1 && lanes > 1 {
            stages.push(Mode { lanes, parts: 1 });
        }
        if !stages.iter().any(|m| m.is_scalar()) {
            stages.push(Mode::SCALAR);
        }
        stages
    }

    pub(super) fn serial_loop(&mut self, l: &Loop) -> Result<()> {
        let end = self.loop_end(l)?;
        self.range_loop(l, Int::Const(0), end)
    }

    /// Where a loop ends: at its extent or its limit.
    fn loop_end(&mut self, l: &Loop) -> Result<Int> {
        let end = self.extent(l.extent);
        let Some(limit) = &l.limit else { return Ok(end) };
        let limit = match limit.as_constant() {
            Some(c) => Int::Const(c),
            None => Int::Value(self.index_at(limit, 0)?),
        };
        Ok(self.int_min(end, limit))
    }

    /// The iterations of a loop whose variable lies in `start..end`.
    fn range_loop(&mut self, l: &Loop, mut start: Int, end: Int) -> Result<()> {
        #[cfg(target_arch = "x86_64")]
        if self.loop_strip(l, start, end)? {
            return Ok(());
        }
        let leaf = is_leaf(&l.body);
        let vector = l.axis.vector >= 4 && !holds_dot(&l.body);
        if self.mode.is_scalar() && l.step == 1 && (vector || leaf) {
            // What one iteration stores the next may load: bodies in flight must not mix them.
            let axis = if !vector && reuses(&l.body) { Axis::default() } else { l.axis };
            let kept = if axis == Axis::default() { self.kept(&l.body) } else { SmallVec::new() };
            let mut carried = Parts::new();
            for t in &kept {
                carried.push(self.load_tile(*t)?);
            }
            let length = match (start, end) {
                (Int::Const(a), Int::Const(b)) => Some(b - a),
                _ => l.extent.known().map(|n| n as i64),
            };
            for mode in Self::stages(axis, length) {
                let run = &mut |e: &mut Self, carried: &[Value]| {
                    kept.iter().zip(carried).for_each(|(t, v)| e.kept[t.index()] = Some(*v));
                    e.block(&l.body)?;
                    Ok(kept.iter().filter_map(|t| e.kept[t.index()].take()).collect())
                };
                (start, carried) = self.stage(mode, (l.var, l.extent), start, end, carried, run)?;
            }
            for (t, v) in kept.iter().zip(carried) {
                self.store_tile(*t, v)?;
            }
            return Ok(());
        }
        self.counted(Some(l.var), start, end, l.step as i64, Parts::new(), &mut |e, v, _| {
            e.set_var(l.var, l.extent, false, v);
            e.block(&l.body).map(|()| Parts::new())
        })?;
        Ok(())
    }

    /// The tiles of one number that a body stores to: from one iteration to the next they stay in a register. Not under masks.
    fn kept(&self, body: &Body) -> SmallVec<[TileId; 2]> {
        let mut kept: SmallVec<[TileId; 2]> = SmallVec::new();
        let plain = |s: &Stmt| match &s.kind {
            StmtKind::Let(_, Expr::Load { mask, .. }) | StmtKind::Store { mask, .. } => mask.is_none(),
            kind => matches!(kind, StmtKind::Let(..)),
        };
        if self.mask.is_some() || !body.iter().all(plain) {
            return kept;
        }
        for stmt in body {
            if let StmtKind::Store { to: Memory::Tile(t), .. } = stmt.kind
                && let tile = &self.kernel.tiles[t.index()]
                && tile.dims.iter().all(|d| *d == 1)
                && tile.dtype.size() >= 4
                && !kept.contains(&t)
            {
                kept.push(t);
            }
        }
        kept
    }

    /// The body of a kernel: the given iterations of its parallel space.
    pub(super) fn root(&mut self) -> Result<()> {
        let kernel = self.kernel;
        if let [stmt] = kernel.body.as_slice()
            && let StmtKind::Reduce(r) = &stmt.kind
            && r.axis.binding == Binding::Parallel
        {
            return self.partial_reduces(r);
        }
        let mut nest: SmallVec<[&Loop; 3]> = SmallVec::new();
        let mut body = &kernel.body;
        while let [stmt] = body.as_slice()
            && let StmtKind::Loop(l) = &stmt.kind
            && l.axis.binding == Binding::Parallel
        {
            nest.push(l);
            body = &l.body;
        }
        let (begin, end) = (Int::Value(self.begin), Int::Value(self.end));
        match nest.split_last() {
            None => self.block(&kernel.body),
            Some((inner, [])) => self.space_range(inner, begin, end),
            Some((inner, outer)) => self.space(outer, inner),
        }
    }

    /// The iterations `start..end` of a parallel loop, counted in steps.
    fn space_range(&mut self, l: &Loop, start: Int, end: Int) -> Result<()> {
        let start = self.int_times(start, l.step as i64);
        let end = self.int_times(end, l.step as i64);
        let bound = self.loop_end(l)?;
        let end = if l.step == 1 && l.limit.is_none() { end } else { self.int_min(end, bound) };
        self.range_loop(l, start, end)
    }

    /// A collapsed nest: the variables of the first iteration by division once, from then on by carrying.
    fn space(&mut self, outer: &[&Loop], inner: &Loop) -> Result<()> {
        let mut counts = Parts::new();
        for l in outer.iter().chain([&inner]) {
            let extent = self.extent(l.extent);
            let rounded = self.int_add(extent, l.step as i64 - 1);
            let extent = self.int_value(rounded);
            let step = self.int(l.step as i64);
            counts.push(if l.step == 1 { extent } else { self.ins().udiv(extent, step) });
        }
        let (mut rest, mut at) = (self.begin, Parts::new());
        for count in counts.iter().skip(1).rev() {
            at.push(self.ins().urem(rest, *count));
            rest = self.ins().udiv(rest, *count);
        }
        at.push(rest);
        at.reverse();
        let (begin, end) = (self.begin, self.end);
        let left = self.ins().isub(end, begin);

        let (before, header, after) = (self.at, self.new_block(), self.new_block());
        let params: Parts = (0..at.len() + 1).map(|_| self.func.dfg.append_block_param(header, types::I64)).collect();
        self.enter(header);
        self.frames.push(Frame { var: None, header, counters: Vec::new() });
        let (left_now, now) = (params[0], &params[1..]);
        for (l, v) in outer.iter().zip(now) {
            let v = self.int_times(Int::Value(*v), l.step as i64);
            let v = self.int_value(v);
            self.set_var(l.var, l.extent, false, v);
        }
        let inner_count = counts[outer.len()];
        let first = now[outer.len()];
        let to_end = self.ins().isub(inner_count, first);
        let run = self.int_min(Int::Value(to_end), Int::Value(left_now));
        let run = self.int_value(run);
        let last = self.ins().iadd(first, run);
        let skip = self.new_block();
        for l in outer {
            let Some(limit) = &l.limit else { continue };
            let (limit, v) = (self.index_at(limit, 0)?, self.variable(l.var, 0)?);
            let inside = self.ins().icmp(IntCC::SignedLessThan, v, limit);
            let next = self.new_block();
            self.branch(inside, next, &[], skip, &[]);
            self.enter(next);
        }
        self.space_range(inner, Int::Value(first), Int::Value(last))?;
        self.jump(skip, &[]);
        self.enter(skip);
        self.frames.pop();

        let left_next = self.ins().isub(left_now, run);
        let mut next: Parts = smallvec::smallvec![self.int(0)];
        let mut carry = self.int(1);
        for i in (0..outer.len()).rev() {
            let sum = self.ins().iadd(now[i], carry);
            let wraps = self.ins().icmp(IntCC::Equal, sum, counts[i]);
            let zero = self.int(0);
            next.push(self.ins().select(wraps, zero, sum));
            carry = self.ins().uextend(types::I64, wraps);
        }
        next.push(left_next);
        next.reverse();
        let more = self.ins().icmp_imm_s(IntCC::SignedGreaterThan, left_next, 0);
        self.branch(more, header, &next, after, &[]);
        self.at = before;
        let enter: Parts = std::iter::once(left).chain(at).collect();
        self.jump(header, &enter);
        self.enter(after);
        Ok(())
    }
}

/// Whether a body holds no loop.
pub(super) fn is_leaf(body: &Body) -> bool {
    body.iter().all(|s| match &s.kind {
        StmtKind::Let(..) | StmtKind::Store { .. } | StmtKind::Check { .. } | StmtKind::Bind { .. } => true,
        StmtKind::Guard(_, body) => is_leaf(body),
        StmtKind::Tile(_)
        | StmtKind::Fill(..)
        | StmtKind::Loop(_)
        | StmtKind::Reduce(_)
        | StmtKind::Dot(_)
        | StmtKind::Barrier => false,
    })
}

/// Whether a body loads from memory that it stores to.
fn reuses(body: &Body) -> bool {
    let (mut loads, mut stores) = (Vec::new(), Vec::new());
    for_each_statement(body, &mut |kind| {
        for t in kind.touches() {
            match t.access {
                Access::Read => loads.push(t.memory),
                Access::Write | Access::ReadWrite => stores.push(t.memory),
            }
        }
    });
    loads.iter().any(|m| stores.contains(m))
}
