//! Where an element lies: the byte distance from a base as a sum of loop variables times strides.
//!
//! The sum is built from the outermost variable inwards, so that all but the last term leave the inner loops. A multiple of
//! the innermost variable is kept as a variable of its own that counts in steps of the stride, unless the machine's
//! addressing has it for free.

use super::Emitter;
use super::nest::Int;
use super::value::{Parts, Val, Var};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use lazuli_ir::index::Atom;
use lazuli_ir::kernel::{Extent, ScalarType, ValueId};
use lazuli_ir::{Error, Index, Result, VarId};
use smallvec::SmallVec;

/// `factor`, times a run-time stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coefficient {
    pub factor: i64,
    pub stride: Option<Value>,
}

/// A distance in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Distance {
    constant: i64,
    /// `None` stands for 1: a constant index along a dim of run-time stride.
    terms: SmallVec<[(Option<Atom>, Coefficient); 4]>,
}

impl Distance {
    /// Adds `index` along a dim whose neighbours lie `stride` bytes apart.
    pub fn add(&mut self, index: &Index, stride: Coefficient) {
        match stride.stride {
            None => self.constant = self.constant.wrapping_add(index.offset().wrapping_mul(stride.factor)),
            Some(_) => self.add_term(None, index.offset(), stride),
        }
        for (atom, c) in index.terms() {
            self.add_term(Some(atom.clone()), *c, stride);
        }
    }

    fn add_term(&mut self, atom: Option<Atom>, c: i64, stride: Coefficient) {
        let factor = stride.factor.wrapping_mul(c);
        match self.terms.iter_mut().find(|(a, k)| *a == atom && k.stride == stride.stride) {
            Some((_, k)) => k.factor = k.factor.wrapping_add(factor),
            None => self.terms.push((atom, Coefficient { factor, stride: stride.stride })),
        }
        self.terms.retain(|(_, k)| k.factor != 0);
    }

    /// Whether one of its variables is such.
    pub fn any_var(&self, is: &dyn Fn(VarId) -> bool) -> bool {
        let mut any = false;
        for (atom, _) in &self.terms {
            match atom {
                Some(Atom::Var(v)) => any |= is(*v),
                Some(Atom::Div(x, _) | Atom::Mod(x, _)) => x.for_each_var(&mut |v| any |= is(v)),
                Some(Atom::Extent(_)) | None => {}
            }
        }
        any
    }

    /// How far the next value of a variable is, as a sum; `None` where that depends on the value.
    pub fn step(&self, v: VarId) -> Option<SmallVec<[Coefficient; 2]>> {
        let mut out = SmallVec::new();
        for (atom, k) in &self.terms {
            match atom {
                Some(Atom::Var(w)) if *w == v => out.push(*k),
                Some(Atom::Div(x, _) | Atom::Mod(x, _)) if x.mentions(v) => return None,
                Some(Atom::Var(_) | Atom::Div(..) | Atom::Mod(..) | Atom::Extent(_)) | None => {}
            }
        }
        Some(out)
    }
}

impl Emitter<'_> {
    /// `base` plus the distance, for one of the iterations that run together: an address and a constant offset.
    pub(super) fn address(&mut self, base: Value, distance: &Distance, lane: u32) -> Result<(Value, i32)> {
        let mut terms: SmallVec<[(u32, &Option<Atom>, Coefficient); 4]> =
            distance.terms.iter().map(|(atom, k)| (self.depth(atom), atom, *k)).collect();
        terms.sort_by_key(|(depth, ..)| *depth);
        let mut at = base;
        for (_, atom, k) in terms {
            let term = match atom {
                None => self.times(None, k)?,
                Some(Atom::Var(v)) => self.variable_times(*v, k, lane)?,
                Some(atom) => {
                    let value = self.atom(atom, lane)?;
                    self.times(Some(value), k)?
                }
            };
            at = self.ins().iadd(at, term);
        }
        match i32::try_from(distance.constant) {
            // Offsets of parts and lanes are added to it.
            Ok(offset) if offset.unsigned_abs() < 1 << 28 => Ok((at, offset)),
            _ => {
                let constant = self.int(distance.constant);
                Ok((self.ins().iadd(at, constant), 0))
            }
        }
    }

    /// The loop depth at which an atom changes.
    fn depth(&self, atom: &Option<Atom>) -> u32 {
        let mut depth = 0;
        let mut note = |v: VarId| depth = depth.max(self.vars[v.0 as usize].as_ref().map_or(0, Var::depth));
        match atom {
            Some(Atom::Var(v)) => note(*v),
            Some(Atom::Div(x, _) | Atom::Mod(x, _)) => x.for_each_var(&mut note),
            Some(Atom::Extent(_)) | None => {}
        }
        depth
    }

    /// A value times a coefficient.
    fn times(&mut self, value: Option<Value>, k: Coefficient) -> Result<Value> {
        let mut product = value;
        if let Some(stride) = k.stride {
            product = Some(match product {
                Some(v) => self.ins().imul(v, stride),
                None => stride,
            });
        }
        let Some(product) = product else { return Ok(self.int(k.factor)) };
        Ok(match k.factor {
            1 => product,
            f if f > 0 && f.count_ones() == 1 => self.ins().ishl_imm_u(product, i64::from(f.trailing_zeros())),
            f => {
                let f = self.int(f);
                self.ins().imul(product, f)
            }
        })
    }

    fn variable_times(&mut self, v: VarId, k: Coefficient, lane: u32) -> Result<Value> {
        let free = k.stride.is_none() && matches!(k.factor, 1 | 2 | 4 | 8);
        let innermost = self.frames.last().is_some_and(|f| f.var == Some(v));
        if innermost && !free && lane == 0 {
            return Ok(self.counter(k));
        }
        let value = self.variable(v, lane)?;
        self.times(Some(value), k)
    }

    /// The innermost loop's variable times a coefficient, as a variable of that loop.
    fn counter(&mut self, k: Coefficient) -> Value {
        let Some(frame) = self.frames.last() else { return self.begin };
        if let Some((_, v)) = frame.counters.iter().find(|(c, _)| *c == k) {
            return *v;
        }
        let header = frame.header;
        let v = self.func.dfg.append_block_param(header, types::I64);
        if let Some(frame) = self.frames.last_mut() {
            frame.counters.push((k, v));
        }
        v
    }

    /// A loop variable, for one of the iterations that run together.
    pub(super) fn variable(&mut self, v: VarId, lane: u32) -> Result<Value> {
        match &self.vars[v.0 as usize] {
            None => Err(Error::internal(format!("variable {} is used outside its loop", v.0))),
            Some(Var::Uniform { value, .. }) => Ok(*value),
            Some(Var::Lanes { first, .. }) if lane == 0 => Ok(*first),
            Some(Var::Lanes { first, .. }) => {
                let first = *first;
                Ok(self.ins().iadd_imm_s(first, i64::from(lane)))
            }
            Some(Var::Data { lanes, .. }) => {
                let value = lanes.get(lane as usize).copied();
                value.ok_or_else(|| Error::internal("a variable bound to data is used by more lanes than it has"))
            }
        }
    }

    /// Whether a variable is bound to data that differs by lane.
    pub(super) fn is_data(&self, v: VarId) -> bool {
        matches!(self.vars[v.0 as usize], Some(Var::Data { .. }))
    }

    /// Binds a variable to a value, clamped into `0..extent`. Where that is empty, nothing can be indexed: what follows in
    /// the block is masked off.
    pub(super) fn bind_variable(&mut self, var: VarId, value: ValueId, extent: Extent) -> Result<()> {
        let last = match self.extent(extent) {
            Int::Const(n) => self.int((n - 1).max(0)),
            Int::Value(n) => {
                let last = self.ins().iadd_imm_s(n, -1);
                let zero = self.int(0);
                self.ins().smax(last, zero)
            }
        };
        if extent.known().is_none_or(|n| n == 0) {
            let n = self.extent(extent);
            let n = self.int_value(n);
            let some = self.ins().icmp_imm_s(IntCC::SignedGreaterThan, n, 0);
            self.mask = self.both(self.mask.clone(), Some(Val::Scalar(some)))?;
        }
        // Computed where it stands, so after all that loops around give.
        let depth = self.frames.len() as u32 + 2;
        self.ranges[var.0 as usize] = (0, extent.known().map_or(i64::from(i32::MAX), |n| (n as i64 - 1).max(0)));
        let bound = if self.is_uniform(value) {
            let v = self.uniform(value)?;
            Var::Uniform { value: self.clamped(v, last), depth }
        } else {
            let mut lanes = Parts::new();
            for lane in 0..self.mode.total() {
                let v = self.lane_of(value, lane)?;
                lanes.push(self.clamped(v, last));
            }
            Var::Data { lanes, depth }
        };
        self.vars[var.0 as usize] = Some(bound);
        Ok(())
    }

    fn clamped(&mut self, v: Value, last: Value) -> Value {
        let zero = self.int(0);
        let v = self.ins().smax(v, zero);
        self.ins().smin(v, last)
    }

    fn atom(&mut self, atom: &Atom, lane: u32) -> Result<Value> {
        match atom {
            Atom::Var(v) => self.variable(*v, lane),
            Atom::Extent(e) => Ok(self.extents[e.0 as usize]),
            Atom::Div(x, d) => {
                let value = self.index_at(x, lane)?;
                Ok(self.floor_div(x, value, *d))
            }
            Atom::Mod(x, d) => {
                let value = self.index_at(x, lane)?;
                if d.count_ones() == 1 {
                    return Ok(self.ins().band_imm_s(value, d - 1));
                }
                let quotient = self.floor_div(x, value, *d);
                let d = self.int(*d);
                let product = self.ins().imul(quotient, d);
                Ok(self.ins().isub(value, product))
            }
        }
    }

    /// Division rounded down, by a positive constant.
    fn floor_div(&mut self, x: &Index, value: Value, d: i64) -> Value {
        if d.count_ones() == 1 {
            return self.ins().sshr_imm_u(value, i64::from(d.trailing_zeros()));
        }
        let ranges = &self.ranges;
        let (low, _) = x.range(&|v| ranges.get(v.0 as usize).copied().unwrap_or((0, i64::from(i32::MAX))));
        let divisor = self.int(d);
        if low >= 0 {
            return self.ins().udiv(value, divisor);
        }
        let quotient = self.ins().sdiv(value, divisor);
        let product = self.ins().imul(quotient, divisor);
        let above = self.ins().icmp(IntCC::SignedGreaterThan, product, value);
        let one = self.ins().uextend(types::I64, above);
        self.ins().isub(quotient, one)
    }

    /// An index, for one of the iterations that run together.
    pub(super) fn index_at(&mut self, index: &Index, lane: u32) -> Result<Value> {
        let mut sum = None;
        for (atom, c) in index.terms() {
            let value = self.atom(atom, lane)?;
            let term = self.times(Some(value), Coefficient { factor: *c, stride: None })?;
            sum = Some(match sum {
                None => term,
                Some(sum) => self.ins().iadd(sum, term),
            });
        }
        Ok(match sum {
            None => self.int(index.offset()),
            Some(sum) if index.offset() == 0 => sum,
            Some(sum) => self.ins().iadd_imm_s(sum, index.offset()),
        })
    }

    /// An index as a kernel value.
    pub(super) fn index_value(&mut self, index: &Index) -> Result<Val> {
        let mut data = false;
        index.for_each_var(&mut |v| data |= self.is_data(v));
        let varies = data || self.lane_var.is_some_and(|v| index.mentions(v));
        if self.mode.is_scalar() || !varies {
            return Ok(Val::Scalar(self.index_at(index, 0)?));
        }
        let step = self.lane_var.filter(|_| !data).and_then(|v| index.coefficient(v));
        let (4, Some(step)) = (self.mode.lanes, step) else {
            let lanes = (0..self.mode.total()).map(|lane| self.index_at(index, lane)).collect::<Result<Parts>>()?;
            return Ok(self.gather_lanes(ScalarType::I64, &lanes));
        };
        let first = self.index_at(index, 0)?;
        let first = self.ins().splat(types::I64X2, first);
        let mut parts = Parts::new();
        for pair in 0..self.mode.count(ScalarType::I64) as i64 {
            let (a, b) = (step.wrapping_mul(2 * pair), step.wrapping_mul(2 * pair + 1));
            let lanes = [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
            let ahead = self.vector_constant(types::I64X2, lanes);
            parts.push(self.ins().iadd(first, ahead));
        }
        Ok(Val::Parts(parts))
    }
}
