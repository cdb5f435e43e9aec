//! Calls of wide strips: a nest that can be one becomes a call with a frame of words on the stack.

use super::Emitter;
use super::nest::Int;
use super::value::{Val, scalar_type};
use crate::cpu::abi::Callee;
use crate::cpu::wide::{self, Outside, Root, Word};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, StackSlotData, StackSlotKind, Value, types};
use lazuli_ir::Result;
use lazuli_ir::kernel::{Loop, Reduce, ScalarType, ValueId};

impl Emitter<'_> {
    /// Runs a range of a loop as a strip. Tells whether it does.
    pub(super) fn loop_strip(&mut self, l: &Loop, start: Int, end: Int) -> Result<bool> {
        let most = l.extent.known().map(|n| n as i64);
        Ok(self.nest_strip(Root::Loop(l), start, end, most)?.is_some())
    }

    /// Runs a range of a reduction's first variable as a strip, and gives its results.
    pub(super) fn reduce_strip(&mut self, r: &Reduce, start: Int, end: Int) -> Result<Option<Vec<Val>>> {
        let most = if r.axis.binding == lazuli_ir::kernel::Binding::Parallel {
            Some(r.chunk as i64)
        } else {
            r.vars.first().and_then(|v| v.1.known()).map(|n| n as i64)
        };
        self.nest_strip(Root::Reduce(r), start, end, most)
    }

    fn nest_strip(&mut self, root: Root<'_>, start: Int, end: Int, most: Option<i64>) -> Result<Option<Vec<Val>>> {
        let Some(family) = self.machine.vectors.family() else { return Ok(None) };
        if !self.mode.is_scalar() || self.inside_strip || self.mask.is_some() {
            return Ok(None);
        }
        let known = |i: Int| match i {
            Int::Const(c) => Some(c),
            Int::Value(_) => None,
        };
        let values = &self.values;
        let outside = |v: ValueId| match &values[v.index()].val {
            Val::Undefined | Val::Parts(_) => Outside::Unknown,
            Val::Const(c) => Outside::Const(*c),
            Val::Scalar(_) => Outside::Scalar,
        };
        let range = (known(start), known(end));
        let Some(strip) = wide::strip(self.kernel, root, &outside, range, most, family, self.machine.list)? else {
            return Ok(None);
        };
        for t in strip.tiles {
            self.declare_tile(t)?;
        }
        let after = self.new_block();
        if let (Root::Loop(_), false) = (root, matches!(range, (Some(a), Some(b)) if a < b)) {
            // What a strip reads in all its iterations, it reads before the first.
            let (first, last) = (self.int_value(start), self.int_value(end));
            let any = self.ins().icmp(IntCC::SignedLessThan, first, last);
            let inside = self.new_block();
            self.branch(any, inside, &[], after, &[]);
            self.enter(inside);
        }
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, strip.words.len() as u32 * 8, 3);
        let slot = self.func.create_sized_stack_slot(slot);
        let flags = self.flags.tile;
        let frame = self.ins().stack_addr(types::I64, slot, 0);
        for (n, word) in strip.words.iter().enumerate() {
            if let Some(value) = self.frame_word(word, start, end)? {
                self.ins().store(flags, value, frame, n as i32 * 8);
            }
        }
        let address = self.pool.strip(strip.bytes, strip.entry, strip.listing);
        let (fixed, constants) = (self.flags.fixed, self.constants);
        let target = self.ins().load(types::I64, fixed, constants, address);
        let mut signature = Signature::new(self.machine.call_conv);
        signature.params.push(AbiParam::new(types::I64));
        let signature = self.func.import_signature(signature);
        self.ins().call_indirect(signature, target, &[frame]);
        let mut results = Vec::new();
        for (n, ty) in strip.results.iter().enumerate() {
            let at = strip.words.iter().position(|w| *w == Word::Result(n)).unwrap_or(0);
            results.push(Val::Scalar(self.ins().load(scalar_type(*ty), flags, frame, at as i32 * 8)));
        }
        self.jump(after, &[]);
        self.enter(after);
        Ok(Some(results))
    }

    /// What the caller puts into a word; nothing where a result goes.
    fn frame_word(&mut self, word: &Word, start: Int, end: Int) -> Result<Option<Value>> {
        Ok(Some(match word {
            Word::Start => self.int_value(start),
            Word::End => self.int_value(end),
            Word::Address(memory, index) => {
                let place = self.place(*memory)?;
                let distance = self.distance(&place, index)?;
                let (at, offset) = self.address(place.base, &distance, 0)?;
                self.ins().iadd_imm_s(at, i64::from(offset))
            }
            Word::Stride(param, dim) => {
                let bytes = self.kernel.params[param.index()].dtype.size() as i64;
                let stride = self.strides[param.index()][*dim];
                let stride = match stride {
                    Some(stride) => stride,
                    None => self.int(0),
                };
                self.ins().imul_imm_s(stride, bytes)
            }
            Word::Extent(e) => self.extents[e.0 as usize],
            Word::Index(x) => self.index_at(x, 0)?,
            Word::Value(v) => {
                let value = self.uniform(*v)?;
                self.whole_word(self.types[v.index()], value)
            }
            Word::Scalar(s) => {
                let value = self.scalars[s.index()];
                self.whole_word(self.kernel.scalars[s.index()].dtype.into(), value)
            }
            Word::CallLanes => {
                let (fixed, functions) = (self.flags.fixed, self.functions);
                self.ins().load(types::I64, fixed, functions, Callee::Lanes.offset())
            }
            Word::Result(_) => return Ok(None),
        }))
    }

    /// A truth value fills its word.
    fn whole_word(&mut self, ty: ScalarType, value: Value) -> Value {
        if ty == ScalarType::Bool { self.ins().uextend(types::I64, value) } else { value }
    }
}
