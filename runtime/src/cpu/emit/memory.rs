//! Loads, stores and tiles.
//!
//! How an access spreads over the iterations that run together decides its code: one scalar where it does not move, vectors
//! where neighbours are neighbours, lane by lane elsewhere. An access that must not happen goes to a place of no
//! consequence instead: a load to the zeros at the start of the constants, a store to a spare slot; so there are no branches.

use super::Emitter;
use super::address::{Coefficient, Distance};
use super::nest::{Int, MOST_PARTS};
use super::value::{LANES, Parts, Val, scalar_type, twice};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Value, types};
use lazuli_ir::half_code::{self, Half, Origin};
use lazuli_ir::kernel::{Access, Emit, Memory, ScalarType, Stride, TileId, ValueId};
use lazuli_ir::{DType, Error, Index, Literal, Result};
use smallvec::SmallVec;

/// Local memory of a kernel beyond this size comes from the thread's scratch memory: generated code does not probe the stack.
const STACK_LIMIT: usize = 8 << 10;

/// What a register holds between memory and the conversion of halves: their bits, as integers.
fn raw_type(dtype: DType) -> ScalarType {
    if dtype.is_half() { ScalarType::I32 } else { dtype.into() }
}

/// A buffer or a tile.
pub(super) struct Place {
    pub base: Value,
    pub strides: SmallVec<[Coefficient; 4]>,
    pub dtype: DType,
    pub flags: MemFlagsData,
    /// Nothing writes it in this kernel.
    pub constant: bool,
}

impl Place {
    fn bytes(&self) -> i64 {
        self.dtype.size() as i64
    }
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
                let bytes = param.dtype.size() as i64;
                let strides = param.strides.iter().zip(&self.strides[p.index()]).map(|(s, run_time)| match s {
                    Stride::Const(c) => Coefficient { factor: c * bytes, stride: None },
                    Stride::Runtime => Coefficient { factor: bytes, stride: *run_time },
                });
                let constant = param.access == Access::Read;
                let flags = if constant { self.flags.read } else { self.flags.write };
                let (base, dtype) = (self.params[p.index()], param.dtype);
                Ok(Place { base, strides: strides.collect(), dtype, flags, constant })
            }
            Memory::Tile(t) => {
                let (tile, base) = (&self.kernel.tiles[t.index()], self.tile(t)?);
                let mut step = tile.dtype.size() as i64;
                let mut strides: SmallVec<[Coefficient; 4]> = SmallVec::new();
                for d in tile.dims.iter().rev() {
                    strides.push(Coefficient { factor: step, stride: None });
                    step *= *d as i64;
                }
                strides.reverse();
                Ok(Place { base, strides, dtype: tile.dtype, flags: self.flags.tile, constant: false })
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
        if distance.any_var(&|w| self.is_data(w)) {
            return Spread::Lanes;
        }
        match distance.step(v).as_deref() {
            None => Spread::Lanes,
            Some([]) => Spread::Uniform,
            Some([k]) if *k == (Coefficient { factor: place.bytes(), stride: None }) => Spread::Unit,
            Some(steps) => Spread::Strided(steps.iter().copied().collect()),
        }
    }

    /// What a tile of one number holds.
    pub(super) fn load_tile(&mut self, t: TileId) -> Result<Value> {
        let place = self.place(Memory::Tile(t))?;
        Ok(self.load_scalar(&place, place.base, 0))
    }

    /// Makes a tile of one number hold a value.
    pub(super) fn store_tile(&mut self, t: TileId, v: Value) -> Result<()> {
        let place = self.place(Memory::Tile(t))?;
        self.store_scalar(place.dtype, place.flags, v, place.base, 0);
        Ok(())
    }

    pub(super) fn load(&mut self, ty: ScalarType, from: Memory, index: &[Index], mask: Option<ValueId>) -> Result<Val> {
        if let Memory::Tile(t) = from
            && let Some(kept) = self.kept[t.index()]
        {
            return Ok(Val::Scalar(kept));
        }
        let place = self.place(from)?;
        if ScalarType::from(place.dtype) != ty {
            return Err(Error::internal("a load's type is not that of the memory"));
        }
        let half = Half::of(place.dtype);
        let raw = self.load_raw(place, index, mask)?;
        let Some(half) = half else { return Ok(raw) };
        let bits = self.temporary(ScalarType::I32, raw);
        let number = half_code::widen(self as &mut dyn Emit, half, bits);
        Ok(self.values[number.index()].val.clone())
    }

    /// Loads what memory holds: numbers, and the bits of halves.
    fn load_raw(&mut self, mut place: Place, index: &[Index], mask: Option<ValueId>) -> Result<Val> {
        let distance = self.distance(&place, index)?;
        let mask = mask.map(|m| self.values[m.index()].val.clone());
        let mask = self.both(self.mask.clone(), mask)?;
        let varying_mask = matches!(mask, Some(Val::Parts(_)));
        let spread = self.spread(&place, &distance);
        if self.mode.is_scalar() || (matches!(spread, Spread::Uniform) && !varying_mask) {
            let moves = self.frames.last().and_then(|f| f.var).is_none_or(|v| distance.any_var(&|w| w == v));
            if place.constant && mask.is_none() && !moves {
                // The same in each iteration of the loop around: it may leave the loop.
                place.flags = place.flags.with_readonly().with_can_move();
            }
            let (at, offset) = self.address(place.base, &distance, 0)?;
            let (at, offset) = self.masked(at, offset, mask.as_ref(), 0)?;
            return Ok(Val::Scalar(self.load_scalar(&place, at, offset)));
        }
        if matches!(spread, Spread::Unit) && !varying_mask {
            let (at, offset) = self.address(place.base, &distance, 0)?;
            let (at, offset) = self.masked(at, offset, mask.as_ref(), 0)?;
            let (parts, bytes) = self.part_bytes(place.dtype);
            return Ok(Val::Parts((0..parts).map(|part| self.load_part(&place, at, offset + part * bytes)).collect()));
        }
        let mut lanes = Parts::new();
        for (lane, (at, offset)) in self.lane_addresses(&place, &distance, &spread)?.into_iter().enumerate() {
            let (at, offset) = self.masked(at, offset, mask.as_ref(), lane as u32)?;
            lanes.push(self.load_scalar(&place, at, offset));
        }
        Ok(self.gather_lanes(raw_type(place.dtype), &lanes))
    }

    fn load_scalar(&mut self, place: &Place, at: Value, offset: i32) -> Value {
        let ty = match place.dtype {
            DType::U8 => types::I8,
            DType::F16 | DType::BF16 => types::I16,
            DType::Bool | DType::I32 | DType::I64 | DType::F32 | DType::F64 => {
                return self.ins().load(scalar_type(place.dtype.into()), place.flags, at, offset);
            }
        };
        let narrow = self.ins().load(ty, place.flags, at, offset);
        self.ins().uextend(types::I32, narrow)
    }

    pub(super) fn store_scalar(&mut self, dtype: DType, flags: MemFlagsData, v: Value, at: Value, offset: i32) {
        let v = match dtype {
            DType::U8 => self.ins().ireduce(types::I8, v),
            DType::F16 | DType::BF16 => self.ins().ireduce(types::I16, v),
            DType::Bool | DType::I32 | DType::I64 | DType::F32 | DType::F64 => v,
        };
        self.ins().store(flags, v, at, offset);
    }

    /// The address, or that of zeros where the mask is false.
    fn masked(&mut self, at: Value, offset: i32, mask: Option<&Val>, lane: u32) -> Result<(Value, i32)> {
        let Some(mask) = mask else { return Ok((at, offset)) };
        let allowed = self.lane_of_val(mask, ScalarType::Bool, lane)?;
        let at = self.ins().iadd_imm_s(at, i64::from(offset));
        let zeros = self.constants;
        Ok((self.ins().select(allowed, at, zeros), 0))
    }

    /// Values a varying value consists of as it lies in memory, and the bytes each takes there.
    fn part_bytes(&self, dtype: DType) -> (i32, i32) {
        let count = self.mode.count(raw_type(dtype)) as i32;
        (count, self.mode.total() as i32 * dtype.size() as i32 / count)
    }

    fn load_part(&mut self, place: &Place, at: Value, offset: i32) -> Value {
        if self.mode.lanes == 1 {
            return self.load_scalar(place, at, offset);
        }
        match place.dtype {
            DType::Bool | DType::U8 => {
                let bytes = self.ins().load(types::I32, place.flags, at, offset);
                let bytes = self.ins().scalar_to_vector(types::I32X4, bytes);
                let bytes = self.cast_bits(types::I8X16, bytes);
                let halves = self.ins().uwiden_low(bytes);
                let numbers = self.ins().uwiden_low(halves);
                if place.dtype == DType::Bool { self.ins().ineg(numbers) } else { numbers }
            }
            DType::F16 | DType::BF16 => self.ins().uload16x4(place.flags, at, offset),
            DType::I32 | DType::I64 | DType::F32 | DType::F64 => {
                let ty = self.mode.ty(place.dtype.into());
                self.ins().load(ty, place.flags, at, offset)
            }
        }
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
                let step = if matches!(spread, Spread::Unit) { place.bytes() as i32 } else { 0 };
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
        if let Memory::Tile(t) = to
            && self.kept[t.index()].is_some()
        {
            self.kept[t.index()] = Some(self.uniform(value)?);
            return Ok(());
        }
        let place = self.place(to)?;
        let Some(half) = Half::of(place.dtype) else { return self.store_raw(&place, index, value, mask) };
        let origin = self.halves.get(&value).filter(|(of, _)| *of == half).map(|(_, origin)| *origin);
        let temporaries = self.types.len();
        let e = self as &mut dyn Emit;
        let bits = match origin {
            Some(Origin::Rounded(unrounded)) => half_code::narrow(e, half, unrounded),
            Some(Origin::Read) => half_code::bits_of_exact(e, half, value),
            None => half_code::narrow(e, half, value),
        };
        let result = self.store_raw(&place, index, bits, mask);
        self.types.truncate(temporaries);
        self.values.truncate(temporaries);
        result.and_then(|()| self.error.take().map_or(Ok(()), Err))
    }

    /// Stores what memory holds: numbers, and the bits of halves.
    fn store_raw(&mut self, place: &Place, index: &[Index], value: ValueId, mask: Option<ValueId>) -> Result<()> {
        let distance = self.distance(place, index)?;
        let mask = mask.map(|m| self.values[m.index()].val.clone());
        let mask = self.both(self.mask.clone(), mask)?;
        let varying_mask = matches!(mask, Some(Val::Parts(_)));
        let spread = self.spread(place, &distance);
        let uniform = matches!(spread, Spread::Uniform) && !varying_mask && self.is_uniform(value);
        if self.mode.is_scalar() || uniform {
            let (at, offset) = self.address(place.base, &distance, 0)?;
            let (at, offset) = self.spared(at, offset, mask.as_ref(), 0)?;
            let v = self.uniform(value)?;
            self.store_scalar(place.dtype, place.flags, v, at, offset);
            return Ok(());
        }
        if matches!(spread, Spread::Unit) && !varying_mask {
            let (at, offset) = self.address(place.base, &distance, 0)?;
            let (at, offset) = self.spared(at, offset, mask.as_ref(), 0)?;
            let parts = self.varying(value)?;
            self.store_unit(place, at, offset, &parts);
            return Ok(());
        }
        for (lane, (at, offset)) in self.lane_addresses(place, &distance, &spread)?.into_iter().enumerate() {
            let (at, offset) = self.spared(at, offset, mask.as_ref(), lane as u32)?;
            let v = self.lane_of(value, lane as u32)?;
            self.store_scalar(place.dtype, place.flags, v, at, offset);
        }
        Ok(())
    }

    /// The address, or that of a spare slot where the mask is false.
    fn spared(&mut self, at: Value, offset: i32, mask: Option<&Val>, lane: u32) -> Result<(Value, i32)> {
        let Some(mask) = mask else { return Ok((at, offset)) };
        let allowed = self.lane_of_val(mask, ScalarType::Bool, lane)?;
        // One slot for all: nobody reads it.
        let bytes = 8 * LANES * MOST_PARTS;
        let slot = match self.spare {
            Some(slot) => slot,
            None => self.func.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4)),
        };
        self.spare = Some(slot);
        let spare = self.ins().stack_addr(types::I64, slot, 0);
        let at = self.ins().iadd_imm_s(at, i64::from(offset));
        Ok((self.ins().select(allowed, at, spare), 0))
    }

    fn store_unit(&mut self, place: &Place, at: Value, offset: i32, parts: &[Value]) {
        let (_, bytes) = self.part_bytes(place.dtype);
        let offset_of = |i: usize| offset + i as i32 * bytes;
        let group = match place.dtype {
            DType::Bool | DType::U8 if self.mode.lanes > 1 => 4,
            DType::F16 | DType::BF16 if self.mode.lanes > 1 => 2,
            _ => {
                for (i, v) in parts.iter().enumerate() {
                    self.store_scalar(place.dtype, place.flags, *v, at, offset_of(i));
                }
                return;
            }
        };
        for (i, parts) in parts.chunks(group).enumerate() {
            let (packed, offset) = (self.packed(place.dtype, parts), offset_of(i * group));
            if parts.len() == group {
                self.ins().store(place.flags, packed, at, offset);
                continue;
            }
            let word = if group == 4 { types::I32X4 } else { types::I64X2 };
            let words = self.cast_bits(word, packed);
            for k in 0..parts.len() {
                let word = self.ins().extractlane(words, k as u8);
                self.ins().store(place.flags, word, at, offset + k as i32 * bytes);
            }
        }
    }

    /// Up to four vectors of bytes, or two of halves, in one.
    fn packed(&mut self, dtype: DType, parts: &[Value]) -> Value {
        let pick = |k: usize| parts.get(k).copied().unwrap_or(parts[0]);
        if dtype.is_half() {
            // Signed narrowing saturates: the sign bit of the half is extended first.
            let sixteen = self.ins().iconst(types::I32, 16);
            let (low, high) = (self.ins().ishl(pick(0), sixteen), self.ins().ishl(pick(1), sixteen));
            let (low, high) = (self.ins().sshr(low, sixteen), self.ins().sshr(high, sixteen));
            return self.ins().snarrow(low, high);
        }
        let low = self.ins().snarrow(pick(0), pick(1));
        let high = self.ins().snarrow(pick(2), pick(3));
        if dtype == DType::U8 {
            return self.ins().unarrow(low, high);
        }
        let packed = self.ins().snarrow(low, high);
        let one = self.vector_constant(types::I8X16, [0x0101_0101; 4]);
        self.ins().band(packed, one)
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
    pub(super) fn fill_memory(&mut self, base: Value, elements: i64, dtype: DType, c: Literal) -> Result<()> {
        let bytes = elements * dtype.size() as i64;
        let held = c.cast(dtype);
        let word = match held {
            Literal::Bool(v) => [u32::from(v) * 0x0101_0101; 4],
            Literal::U8(v) => [u32::from(v) * 0x0101_0101; 4],
            Literal::I64(v) => twice(v as u64),
            Literal::F64(v) => twice(v.to_bits()),
            Literal::F16(_) | Literal::BF16(_) => [held.bits() as u32 * 0x0001_0001; 4],
            Literal::I32(_) | Literal::F32(_) => [held.bits() as u32; 4],
        };
        let vector = self.vector_constant(types::I32X4, word);
        let (flags, whole) = (self.flags.tile, bytes / 16 * 16);
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
        for at in (whole..bytes).step_by(dtype.size()) {
            let v = match dtype.is_half() {
                true => self.ins().iconst(types::I32, held.bits() as i64),
                false => self.scalar_constant(held),
            };
            self.store_scalar(dtype, flags, v, base, at as i32);
        }
        Ok(())
    }
}
