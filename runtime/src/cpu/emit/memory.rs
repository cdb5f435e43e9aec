//! Loads, stores and tiles.
//!
//! How an access spreads over the iterations that run together decides its code: one scalar where it does not move, vectors
//! where neighbours are neighbours, lane by lane elsewhere. An access that must not happen goes to a place of no
//! consequence instead: a load to the zeros at the start of the constants, a store to a spare slot; so there are no branches.

use super::Emitter;
use super::address::{Coefficient, Distance};
use super::nest::Int;
use super::value::{Parts, Val, scalar_type};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Value, types};
use lazuli_ir::kernel::{Const, Memory, ScalarType, Stride, ValueId};
use lazuli_ir::{Error, Index, Literal, Result};
use smallvec::SmallVec;

/// Local memory of a kernel beyond this size comes from the thread's scratch memory: generated code does not probe the stack.
const STACK_LIMIT: usize = 8 << 10;

/// Bytes of an element in memory.
pub(super) fn size(ty: ScalarType) -> usize {
    match ty {
        ScalarType::Bool => 1,
        ScalarType::I32 | ScalarType::F32 => 4,
        ScalarType::I64 => 8,
    }
}

/// A buffer or a tile.
pub(super) struct Place {
    pub base: Value,
    pub strides: SmallVec<[Coefficient; 4]>,
    pub ty: ScalarType,
    pub flags: MemFlagsData,
    /// Nothing writes it in this kernel.
    pub constant: bool,
}

/// How an access moves over the iterations that run together.
enum Spread {
    /// Not at all.
    Uniform,
    /// Neighbours are neighbours in memory.
    Unit,
    /// By a fixed distance in bytes.
    Strided(SmallVec<[Coefficient; 2]>),
    /// Somehow.
    Lanes,
}

impl Emitter<'_> {
    pub(super) fn place(&self, memory: Memory) -> Result<Place> {
        match memory {
            Memory::Param(p) => {
                let param = &self.kernel.params[p.index()];
                let ty: ScalarType = param.dtype.into();
                let bytes = size(ty) as i64;
                let strides = param.strides.iter().zip(&self.strides[p.index()]).map(|(s, run_time)| match s {
                    Stride::Const(c) => Coefficient { factor: c * bytes, stride: None },
                    Stride::Runtime => Coefficient { factor: bytes, stride: *run_time },
                });
                let constant = param.access == lazuli_ir::kernel::Access::Read;
                let flags = if constant { self.flags.read } else { self.flags.write };
                Ok(Place { base: self.params[p.index()], strides: strides.collect(), ty, flags, constant })
            }
            Memory::Tile(t) => {
                let (tile, base) = (&self.kernel.tiles[t.index()], self.tile(t)?);
                let mut step = size(tile.ty) as i64;
                let mut strides: SmallVec<[Coefficient; 4]> = SmallVec::new();
                for d in tile.dims.iter().rev() {
                    strides.push(Coefficient { factor: step, stride: None });
                    step *= *d as i64;
                }
                strides.reverse();
                Ok(Place { base, strides, ty: tile.ty, flags: self.flags.tile, constant: false })
            }
        }
    }

    pub(super) fn distance(&self, place: &Place, index: &[Index]) -> Result<Distance> {
        if index.len() != place.strides.len() {
            return Err(Error::internal("an index does not have the rank of what it indexes"));
        }
        let mut distance = Distance::default();
        for (i, s) in index.iter().zip(&place.strides) {
            distance.add(i, *s);
        }
        Ok(distance)
    }

    fn spread(&self, place: &Place, distance: &Distance) -> Spread {
        let Some(v) = self.lane_var.filter(|_| !self.mode.is_scalar()) else { return Spread::Uniform };
        match distance.step(v).as_deref() {
            None => Spread::Lanes,
            Some([]) => Spread::Uniform,
            Some([k]) if *k == (Coefficient { factor: size(place.ty) as i64, stride: None }) => Spread::Unit,
            Some(steps) => Spread::Strided(steps.iter().copied().collect()),
        }
    }

    pub(super) fn load(&mut self, ty: ScalarType, from: Memory, index: &[Index], mask: Option<ValueId>) -> Result<Val> {
        let mut place = self.place(from)?;
        if place.ty != ty {
            return Err(Error::internal("a load's type is not that of the memory"));
        }
        let distance = self.distance(&place, index)?;
        let mask = mask.map(|m| self.values[m.index()].val.clone());
        let mask = self.both(self.mask.clone(), mask)?;
        let varying_mask = matches!(mask, Some(Val::Parts(_)));
        let spread = self.spread(&place, &distance);
        if self.mode.is_scalar() || (matches!(spread, Spread::Uniform) && !varying_mask) {
            let moves = self.frames.last().and_then(|f| f.var).is_none_or(|v| distance.mentions(v));
            if place.constant && mask.is_none() && !moves {
                // The same in each iteration of the loop around: it may leave the loop.
                place.flags = place.flags.with_readonly().with_can_move();
            }
            let (at, offset) = self.address(place.base, &distance, 0)?;
            let (at, offset) = self.masked(at, offset, mask.as_ref(), 0)?;
            return Ok(Val::Scalar(self.ins().load(scalar_type(ty), place.flags, at, offset)));
        }
        if matches!(spread, Spread::Unit) {
            return self.load_unit(&place, &distance, mask);
        }
        let mut lanes = Parts::new();
        for (lane, (at, offset)) in self.lane_addresses(&place, &distance, &spread)?.into_iter().enumerate() {
            let (at, offset) = self.masked(at, offset, mask.as_ref(), lane as u32)?;
            lanes.push(self.ins().load(scalar_type(ty), place.flags, at, offset));
        }
        Ok(self.gather_lanes(ty, &lanes))
    }

    /// The address, or that of zeros where the mask is false.
    fn masked(&mut self, at: Value, offset: i32, mask: Option<&Val>, lane: u32) -> Result<(Value, i32)> {
        let Some(mask) = mask else { return Ok((at, offset)) };
        let allowed = self.lane_of_val(mask, ScalarType::Bool, lane)?;
        let at = self.ins().iadd_imm_s(at, i64::from(offset));
        let zeros = self.constants;
        Ok((self.ins().select(allowed, at, zeros), 0))
    }

    fn load_unit(&mut self, place: &Place, distance: &Distance, mask: Option<Val>) -> Result<Val> {
        let (at, offset) = self.address(place.base, distance, 0)?;
        let Some(Val::Parts(masks)) = mask else {
            let (at, offset) = self.masked(at, offset, mask.as_ref(), 0)?;
            let (parts, bytes) = self.part_bytes(place.ty);
            let mut out = Parts::new();
            for part in 0..parts {
                out.push(self.load_part(place, at, offset + part * bytes));
            }
            return Ok(Val::Parts(out));
        };
        let mut lanes = Parts::new();
        let step = size(place.ty) as i32;
        for lane in 0..self.mode.total() {
            let mask = Val::Parts(masks.clone());
            let (at, offset) = self.masked(at, offset + lane as i32 * step, Some(&mask), lane)?;
            lanes.push(self.ins().load(scalar_type(place.ty), place.flags, at, offset));
        }
        Ok(self.gather_lanes(place.ty, &lanes))
    }

    /// Values a varying value consists of, and the bytes each takes in memory.
    fn part_bytes(&self, ty: ScalarType) -> (i32, i32) {
        let count = self.mode.count(ty) as i32;
        (count, self.mode.total() as i32 * size(ty) as i32 / count)
    }

    fn load_part(&mut self, place: &Place, at: Value, offset: i32) -> Value {
        let ty = self.mode.ty(place.ty);
        if place.ty == ScalarType::Bool && self.mode.lanes > 1 {
            let bytes = self.ins().load(types::I32, place.flags, at, offset);
            let bytes = self.ins().scalar_to_vector(types::I32X4, bytes);
            let bytes = self.cast_bits(types::I8X16, bytes);
            let halves = self.ins().uwiden_low(bytes);
            let ones = self.ins().uwiden_low(halves);
            return self.ins().ineg(ones);
        }
        self.ins().load(ty, place.flags, at, offset)
    }

    /// The address of each iteration's element.
    fn lane_addresses(
        &mut self,
        place: &Place,
        distance: &Distance,
        spread: &Spread,
    ) -> Result<SmallVec<[(Value, i32); 16]>> {
        let lanes = self.mode.total();
        let mut out = SmallVec::new();
        match spread {
            Spread::Uniform | Spread::Unit => {
                let (at, offset) = self.address(place.base, distance, 0)?;
                let step = if matches!(spread, Spread::Unit) { size(place.ty) as i32 } else { 0 };
                out.extend((0..lanes as i32).map(|lane| (at, offset + lane * step)));
            }
            Spread::Strided(steps) => {
                let (mut at, mut offset) = self.address(place.base, distance, 0)?;
                let fixed: i64 = steps.iter().filter(|k| k.stride.is_none()).map(|k| k.factor).sum();
                for lane in 0..lanes {
                    out.push((at, offset));
                    if lane + 1 == lanes {
                        break;
                    }
                    match i32::try_from(fixed) {
                        Ok(fixed) if fixed.unsigned_abs() < 1 << 22 => offset += fixed,
                        _ => at = self.ins().iadd_imm_s(at, fixed),
                    }
                    for k in steps {
                        if let Some(stride) = k.stride {
                            let f = self.int(k.factor);
                            let step = self.ins().imul(stride, f);
                            at = self.ins().iadd(at, step);
                        }
                    }
                }
            }
            Spread::Lanes => {
                for lane in 0..lanes {
                    out.push(self.address(place.base, distance, lane)?);
                }
            }
        }
        Ok(out)
    }

    pub(super) fn store(&mut self, to: Memory, index: &[Index], value: ValueId, mask: Option<ValueId>) -> Result<()> {
        let place = self.place(to)?;
        let distance = self.distance(&place, index)?;
        let mask = mask.map(|m| self.values[m.index()].val.clone());
        let mask = self.both(self.mask.clone(), mask)?;
        let varying_mask = matches!(mask, Some(Val::Parts(_)));
        let spread = self.spread(&place, &distance);
        let uniform = matches!(spread, Spread::Uniform) && !varying_mask && self.is_uniform(value);
        if self.mode.is_scalar() || uniform {
            let (at, offset) = self.address(place.base, &distance, 0)?;
            let (at, offset) = self.spared(at, offset, mask.as_ref(), 0)?;
            let v = self.uniform(value)?;
            self.ins().store(place.flags, v, at, offset);
            return Ok(());
        }
        if matches!(spread, Spread::Unit) && !varying_mask {
            let (at, offset) = self.address(place.base, &distance, 0)?;
            let (at, offset) = self.spared(at, offset, mask.as_ref(), 0)?;
            let parts = self.varying(value)?;
            return self.store_unit(&place, at, offset, &parts);
        }
        for (lane, (at, offset)) in self.lane_addresses(&place, &distance, &spread)?.into_iter().enumerate() {
            let (at, offset) = self.spared(at, offset, mask.as_ref(), lane as u32)?;
            let v = self.lane_of(value, lane as u32)?;
            self.ins().store(place.flags, v, at, offset);
        }
        Ok(())
    }

    /// The address, or that of a spare slot where the mask is false.
    fn spared(&mut self, at: Value, offset: i32, mask: Option<&Val>, lane: u32) -> Result<(Value, i32)> {
        let Some(mask) = mask else { return Ok((at, offset)) };
        let allowed = self.lane_of_val(mask, ScalarType::Bool, lane)?;
        let bytes = self.mode.total() * 8;
        let slot = self.func.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4));
        let spare = self.ins().stack_addr(types::I64, slot, 0);
        let at = self.ins().iadd_imm_s(at, i64::from(offset));
        Ok((self.ins().select(allowed, at, spare), 0))
    }

    fn store_unit(&mut self, place: &Place, at: Value, offset: i32, parts: &[Value]) -> Result<()> {
        let (_, bytes) = self.part_bytes(place.ty);
        if place.ty != ScalarType::Bool || self.mode.lanes == 1 {
            for (i, v) in parts.iter().enumerate() {
                self.ins().store(place.flags, *v, at, offset + i as i32 * bytes);
            }
            return Ok(());
        }
        let one = self.vector_constant(types::I8X16, [0x0101_0101; 4]);
        for (i, four) in parts.chunks(4).enumerate() {
            let pick = |k: usize| four.get(k).copied().unwrap_or(four[0]);
            let low = self.ins().snarrow(pick(0), pick(1));
            let high = self.ins().snarrow(pick(2), pick(3));
            let packed = self.ins().snarrow(low, high);
            let packed = self.ins().band(packed, one);
            let offset = offset + i as i32 * 16;
            if four.len() == 4 {
                self.ins().store(place.flags, packed, at, offset);
                continue;
            }
            let words = self.cast_bits(types::I32X4, packed);
            for k in 0..four.len() {
                let word = self.ins().extractlane(words, k as u8);
                self.ins().store(place.flags, word, at, offset + k as i32 * 4);
            }
        }
        Ok(())
    }

    /// Local memory: on the stack where little, in the thread's scratch memory elsewhere.
    pub(super) fn local_memory(&mut self, bytes: usize) -> Result<Value> {
        if self.stack_bytes.saturating_add(bytes) <= STACK_LIMIT {
            self.stack_bytes += bytes;
            let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 4);
            let slot = self.func.create_sized_stack_slot(slot);
            return Ok(self.ins().stack_addr(types::I64, slot, 0));
        }
        let offset = self.scratch_bytes;
        self.scratch_bytes = offset
            .checked_add(bytes)
            .and_then(|n| n.checked_next_multiple_of(64))
            .filter(|n| *n < 1 << 31)
            .ok_or_else(|| Error::internal(format!("a kernel's tiles take {bytes} bytes")))?;
        let scratch = self.scratch;
        Ok(self.ins().iadd_imm_s(scratch, offset as i64))
    }

    /// Sets `elements` of local memory.
    pub(super) fn fill_memory(&mut self, base: Value, elements: i64, c: Const) -> Result<()> {
        let bytes = elements * size(c.ty()) as i64;
        let (word, lanes) = match c {
            Const::Literal(Literal::Bool(v)) => ([u32::from(v) * 0x0101_0101; 4], 16),
            Const::Literal(Literal::I64(v)) => ([v as u32, (v >> 32) as u32, v as u32, (v >> 32) as u32], 2),
            Const::Literal(Literal::F32(v)) => ([v.to_bits(); 4], 4),
            Const::I32(v) => ([v as u32; 4], 4),
        };
        let vector = self.vector_constant(types::I32X4, word);
        let (flags, whole) = (self.flags.tile, elements / lanes * 16);
        self.counted(None, Int::Const(0), Int::Const(whole - whole % 64), 64, Parts::new(), &mut |e, at, _| {
            let at = e.ins().iadd(base, at);
            for k in 0..4 {
                e.ins().store(flags, vector, at, k * 16);
            }
            Ok(Parts::new())
        })?;
        for at in (whole - whole % 64..whole).step_by(16) {
            self.ins().store(flags, vector, base, at as i32);
        }
        let step = size(c.ty());
        for at in (whole..bytes).step_by(step) {
            let v = self.scalar_constant(c);
            self.ins().store(flags, v, base, at as i32);
        }
        Ok(())
    }
}
