//! Where elements lie, loads and stores.
//!
//! An address is a word of the frame, for all that is known outside of the nest, plus the counters of its loops times strides.
//! What of that sum changes in an outer loop only is computed there.

use super::Family;
use super::code::{Address, Class, Count, Inst, Masking, Op, Reg};
use super::nest::{Nest, Regs, Val, Word};
use super::table::Vector;
use lazuli_ir::half_code::{self, Half, Origin};
use lazuli_ir::index::Atom;
use lazuli_ir::kernel::{Access, Emit, Extent, Memory, ScalarType, Stride, ValueId};
use lazuli_ir::{DType, Index, VarId};
use smallvec::SmallVec;

/// A multiple of a loop's counter, in bytes.
#[derive(Clone, Copy, Debug)]
struct Term {
    var: VarId,
    factor: i64,
    /// A run-time stride, in bytes.
    stride: Option<Reg>,
}

/// Counters and what they are multiplied by.
type Multiples = SmallVec<[(VarId, i64); 2]>;

/// The address of an access, and how it moves along the lanes.
pub struct Reached {
    pub address: Address,
    spread: Spread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    Uniform,
    Unit,
    /// By so many elements a lane.
    Strided(i64),
}

/// Bytes of a cache line.
const LINE: u32 = 64;
/// How far ahead of what a loop reads it asks for lines, in bytes.
const AHEAD: i32 = 1024;
/// Bytes of rows that are worth it.
const LONG_ROW: u32 = 1024;
/// Distances between lanes up to which whole vectors are loaded, and lanes picked from them.
const MOST_PICKED: i64 = 8;

impl Nest<'_> {
    fn dtype(&self, memory: Memory) -> DType {
        match memory {
            Memory::Param(p) => self.kernel.params[p.index()].dtype,
            Memory::Tile(t) => self.kernel.tiles[t.index()].dtype,
        }
    }

    /// Whether an index mentions a counter of the nest.
    fn inside(&self, x: &Index) -> bool {
        let mut any = false;
        x.for_each_var(&mut |v| any |= self.vars.contains_key(&v));
        any
    }

    /// The counters' multiples of an index, and what is left of it.
    fn split(&mut self, x: &Index) -> Option<(Multiples, Index)> {
        let (mut terms, mut rest) = (Multiples::new(), Index::constant(x.offset()));
        for (atom, c) in x.terms() {
            match atom {
                Atom::Var(v) if self.vars.contains_key(v) => terms.push((*v, *c)),
                Atom::Var(v) => rest = rest.add_scaled(&Index::var(*v), *c),
                Atom::Extent(e) => rest = rest.add_scaled(&Index::extent(*e), *c),
                Atom::Div(inner, d) => {
                    if self.inside(inner) {
                        return None;
                    }
                    rest = rest.add_scaled(&inner.floor_div(*d, &|_| (i64::MIN / 4, i64::MAX / 4)), *c);
                }
                Atom::Mod(inner, d) => {
                    if self.inside(inner) {
                        return None;
                    }
                    rest = rest.add_scaled(&inner.modulo(*d, &|_| (i64::MIN / 4, i64::MAX / 4)), *c);
                }
            }
        }
        Some((terms, rest))
    }

    /// The value of an index at the first of the lanes.
    pub fn index_count(&mut self, x: &Index) -> Count {
        if let Some(c) = x.as_constant() {
            return Count::Const(c);
        }
        let Some((terms, rest)) = self.split(x) else {
            self.unfit = true;
            return Count::Const(0);
        };
        let mut sum = match rest.as_constant() {
            Some(0) => None,
            Some(c) => Some(self.count_reg(Count::Const(c))),
            None => Some(self.word_reg(Word::Index(rest))),
        };
        for (v, c) in terms {
            let term = self.times(v, c);
            sum = Some(match sum {
                None => term,
                Some(sum) => self.code.pure(Op::Add, Class::General, &[sum, term], None),
            });
        }
        Count::Reg(match sum {
            Some(r) => r,
            None => self.count_reg(Count::Const(0)),
        })
    }

    fn times(&mut self, v: VarId, c: i64) -> Reg {
        let counter = self.vars[&v];
        if c == 1 {
            return counter;
        }
        self.unfit |= i32::try_from(c).is_err();
        self.code.pure(Op::MultiplyConst(c), Class::General, &[counter], None)
    }

    /// The counters that an address is made of, the word with the rest, and a constant distance.
    fn terms(&mut self, memory: Memory, index: &[Index]) -> Option<(SmallVec<[Term; 4]>, Word, i64)> {
        let size = self.dtype(memory).size() as i64;
        let mut terms: SmallVec<[Term; 4]> = SmallVec::new();
        let (mut outside, mut constant) = (Vec::with_capacity(index.len()), 0i64);
        let mut step = size;
        let mut strides: SmallVec<[Stride; 4]> = SmallVec::new();
        match memory {
            Memory::Param(p) => strides.extend(self.kernel.params[p.index()].strides.iter().copied()),
            Memory::Tile(t) => {
                for d in self.kernel.tiles[t.index()].dims.iter().rev() {
                    strides.push(Stride::Const(step / size));
                    step = step.checked_mul(*d as i64)?;
                }
                strides.reverse();
            }
        }
        for (d, (x, stride)) in index.iter().zip(&strides).enumerate() {
            let (own, rest) = self.split(x)?;
            let (factor, run_time) = match (stride, memory) {
                (Stride::Const(s), _) => (s.checked_mul(size)?, None),
                (Stride::Runtime, Memory::Param(p)) if !own.is_empty() => (1, Some(self.word_reg(Word::Stride(p, d)))),
                (Stride::Runtime, _) => (1, None),
            };
            for (var, c) in own {
                let factor = factor.checked_mul(c)?;
                match terms.iter_mut().find(|t| t.var == var && t.stride == run_time) {
                    Some(t) => t.factor = t.factor.checked_add(factor)?,
                    None => terms.push(Term { var, factor, stride: run_time }),
                }
            }
            let moved = match stride {
                Stride::Const(_) => rest.offset(),
                Stride::Runtime => 0,
            };
            constant = constant.checked_add(moved.checked_mul(factor)?)?;
            outside.push(rest.plus(-moved));
        }
        terms.retain(|t| t.factor != 0);
        Some((terms, Word::Address(memory, outside), constant))
    }

    /// The address of the first part's first lane.
    pub fn access(&mut self, memory: Memory, index: &[Index]) -> Option<Reached> {
        let size = self.dtype(memory).size() as i64;
        let (mut terms, word, constant) = self.terms(memory, index)?;
        let spread = match self.running {
            None => Spread::Uniform,
            Some(lanes) => {
                let mut own = terms.iter().filter(|t| t.var == lanes.var);
                match (own.next(), own.next()) {
                    (None, _) => Spread::Uniform,
                    (Some(t), None) if t.stride.is_none() && t.factor == size => Spread::Unit,
                    (Some(t), None) if t.stride.is_none() && t.factor % size == 0 => {
                        Spread::Strided(i32::try_from(t.factor / size).ok()?.into())
                    }
                    _ => return None,
                }
            }
        };
        let depth = |e: &Self, t: &Term| e.code.regs[e.vars[&t.var].0 as usize].depth;
        terms.sort_by_key(|t| depth(self, t));
        // The innermost counter is part of the address, where it needs no multiplication.
        let free = |t: &Term| t.stride.is_none() && matches!(t.factor, 1 | 2 | 4 | 8);
        let scaled = terms.last().copied().filter(free);
        if scaled.is_some() {
            terms.pop();
        }
        let mut base = self.word_reg(word);
        for t in terms {
            let term = match t.stride {
                None => self.times(t.var, t.factor),
                Some(stride) => {
                    let counter = self.times(t.var, t.factor);
                    self.code.pure(Op::Multiply, Class::General, &[counter, stride], None)
                }
            };
            base = self.code.pure(Op::Add, Class::General, &[base, term], None);
        }
        let mut offset = constant;
        if constant.unsigned_abs() >= 1 << 28 {
            let distance = self.count_reg(Count::Const(constant));
            base = self.code.pure(Op::Add, Class::General, &[base, distance], None);
            offset = 0;
        }
        let index = scaled.map(|t| (self.vars[&t.var], t.factor as u32));
        Some(Reached { address: Address { base, index, offset: offset as i32 }, spread })
    }

    /// The mask of an access for a part: its own, those of guards, and that of the lanes which exist.
    fn access_mask(&mut self, own: Option<&Val>, part: usize, unit: bool) -> Option<Reg> {
        let mut masks: SmallVec<[Reg; 3]> = SmallVec::new();
        let vals: SmallVec<[Val; 3]> = own.into_iter().chain(&self.masks).cloned().collect();
        for val in &vals {
            let r = match val {
                Val::Parts(parts) => parts[part.min(parts.len() - 1)],
                other => self.one(other, ScalarType::Bool),
            };
            masks.push(r);
        }
        if unit {
            masks.extend(self.running.and_then(|l| l.tail));
        }
        let mut all: Option<Reg> = None;
        for m in masks {
            all = Some(match all {
                None => m,
                Some(a) => self.and_masks(a, m),
            });
        }
        all
    }

    pub fn load(&mut self, ty: ScalarType, memory: Memory, index: &[Index], mask: Option<ValueId>) -> Val {
        let Some(access) = self.access(memory, index) else { return self.give_up() };
        let constant = match memory {
            Memory::Param(p) => self.kernel.params[p.index()].access == Access::Read,
            Memory::Tile(_) => false,
        };
        let dtype = self.dtype(memory);
        let own = mask.map(|m| self.values[m.index()].clone());
        let varies = own.iter().chain(&self.masks).any(|m| matches!(m, Val::Parts(_)));
        let masked = own.is_some() || !self.masks.is_empty();
        let constant = constant && !masked;
        // The same for all lanes: one other address, where a masked load of what is far out of range would be slow.
        let shared = if masked && !varies { self.access_mask(own.as_ref(), 0, false) } else { None };
        let own = own.filter(|_| varies);
        if let Spread::Strided(step) = access.spread {
            if self.family == Family::Avx2 || dtype.size() != 4 {
                return self.give_up();
            }
            return self.load_strided(ty, access.address, step, own.as_ref(), shared);
        }
        let unit = access.spread == Spread::Unit;
        let address = match shared {
            Some(m) => self.or_zeros(access.address, m),
            None => access.address,
        };
        if !unit && !varies {
            return Val::One(self.load_one(ty, dtype, address, constant, Masking::All));
        }
        let tail = self.running.and_then(|l| l.tail);
        let parts = self.running.map_or(1, |l| l.parts);
        let ahead = self.begins_stream(memory, index);
        let mut out = Regs::new();
        for part in 0..parts {
            let mask = if varies { self.access_mask(own.as_ref(), part as usize, unit) } else { tail.filter(|_| unit) };
            if !unit && (!matches!(dtype.size(), 4 | 8) || self.family == Family::Avx2) {
                return self.give_up();
            }
            if !unit {
                out.push(self.load_one(ty, dtype, address, false, self.masking(mask)));
                continue;
            }
            let mut address = address;
            let distance = part * self.lanes * dtype.size() as u32;
            address.offset += distance as i32;
            if ahead && distance.is_multiple_of(LINE) {
                let mut inst = Inst::new(Op::Prefetch, None, &[]);
                inst.address = Some(Address { offset: address.offset + AHEAD, ..address });
                self.code.push(inst);
            }
            out.push(self.load_vector(ty, dtype, address, mask, constant));
        }
        Val::Parts(out)
    }

    /// Whether a load is the first of those that walk a parameter as it lies: rows from end to end, one after the other. The
    /// hardware sees that too, but only after a while and in each page again.
    fn begins_stream(&mut self, memory: Memory, index: &[Index]) -> bool {
        let (Memory::Param(p), Some(lanes)) = (memory, self.running) else { return false };
        let param = &self.kernel.params[p.index()];
        let whole = match (param.dims.as_slice(), lanes.length) {
            ([Extent::Runtime(_)], None) => true,
            ([.., Extent::Const(n)], Some(length)) => {
                *n as i64 == length && *n * param.dtype.size() as u64 >= u64::from(LONG_ROW)
            }
            _ => false,
        };
        let begins = whole && index.last() == Some(&Index::var(lanes.var)) && !self.read_ahead.contains(&p);
        if begins {
            self.read_ahead.push(p);
        }
        begins
    }

    /// Lanes that lie apart, where their own masks and the one that they share let them be read.
    fn load_strided(
        &mut self,
        ty: ScalarType,
        address: Address,
        step: i64,
        own: Option<&Val>,
        shared: Option<Reg>,
    ) -> Val {
        let (parts, lanes) = (self.running.map_or(1, |l| l.parts), i64::from(self.lanes));
        let mut out = Regs::new();
        for part in 0..parts {
            let Ok(ahead) = i32::try_from(i64::from(part) * lanes * step * 4) else { return self.give_up() };
            let mut address = address;
            let Some(offset) = address.offset.checked_add(ahead) else { return self.give_up() };
            address.offset = offset;
            let mask = match shared {
                Some(_) => self.running.and_then(|l| l.tail),
                None => self.access_mask(own, part as usize, true),
            };
            out.push(match (mask, shared) {
                (None, _) if step.abs() <= MOST_PICKED => self.pick(ty, address, step, shared),
                // Gathering costs more than loading lane by lane, so the rest must gain it back.
                (None, _) if !self.heavy => return self.give_up(),
                (Some(mask), Some(shared)) => {
                    let mask = self.and_masks(mask, shared);
                    self.gather(ty, address, step, Some(mask))
                }
                (mask, shared) => self.gather(ty, address, step, mask.or(shared)),
            });
        }
        Val::Parts(out)
    }

    /// Whole vectors from the first lane's element to the last one's, and from each of them its lanes; zeros where a mask that
    /// all lanes share is false.
    fn pick(&mut self, ty: ScalarType, mut address: Address, step: i64, shared: Option<Reg>) -> Reg {
        let (lanes, bytes) = (i64::from(self.lanes), self.bytes(ty));
        let lowest = step.min(0) * (lanes - 1);
        let element = |lane: i64| step * lane - lowest;
        address.offset += lowest as i32 * 4;
        if let Some(mask) = shared {
            address = self.or_zeros(address, mask);
        }
        let count = (step.abs() * (lanes - 1)) / lanes + 1;
        let mut all: Option<Reg> = None;
        for n in 0..count {
            let mut at = address;
            at.offset += (n * lanes * 4) as i32;
            // Nothing behind the last element is read.
            let inside = (step.abs() * (lanes - 1) + 1 - n * lanes).min(lanes);
            let masking = match inside == lanes {
                true => Masking::All,
                false => {
                    let bits = self.count_reg(Count::Const((1 << inside) - 1));
                    let op = Op::Vector(Vector::MaskOfGeneral, 64);
                    Masking::Zero(self.code.pure(op, Class::Mask, &[bits], None))
                }
            };
            let vector = self.read(Op::Vector(Vector::Load32, bytes), self.class(ty), at, masking, false);
            let from = |lane: i64| element(lane) / lanes;
            let index = |lane: i64| match from(lane) {
                m if m == n => {
                    if n == 0 {
                        element(lane)
                    } else {
                        lanes + element(lane) % lanes
                    }
                }
                // The first permutation also takes the lanes of the first vector.
                0 if n <= 1 => element(lane),
                _ => lane,
            };
            let table: Vec<u8> = (0..lanes).flat_map(|lane| (index(lane) as i32).to_le_bytes()).collect();
            all = Some(match all {
                None if count > 1 => vector,
                first => {
                    let offset = self.pool.vector(&table, 64);
                    let index = self.code.pure(Op::Table(offset), Class::Vector(bytes), &[], None);
                    let first = first.unwrap_or(vector);
                    let op = Op::Vector(Vector::PermuteTwo32, bytes);
                    self.code.pure(op, self.class(ty), &[first, index, vector], None)
                }
            });
        }
        match all {
            Some(r) => r,
            None => self.constant(ty, lazuli_ir::Literal::zero(ty.dtype())),
        }
    }

    fn gather(&mut self, ty: ScalarType, address: Address, step: i64, mask: Option<Reg>) -> Reg {
        let bytes = self.bytes(ty);
        let mut base = address.base;
        if let Some((index, scale)) = address.index {
            let index = match scale {
                1 => index,
                _ => self.code.pure(Op::MultiplyConst(i64::from(scale)), Class::General, &[index], None),
            };
            base = self.code.pure(Op::Add, Class::General, &[base, index], None);
        }
        let distances = self.lane_numbers(ScalarType::I32, step);
        let mask = match mask {
            Some(m) => m,
            None => {
                let all = self.count_reg(Count::Const(0xffff));
                self.code.pure(Op::Vector(Vector::MaskOfGeneral, 64), Class::Mask, &[all], None)
            }
        };
        let zero = self.constant(ty, lazuli_ir::Literal::zero(ty.dtype()));
        let result = self.code.reg(self.class(ty), self.code.depth(), false);
        let mut inst = Inst::new(Op::Gather(bytes), Some(result), &[zero, distances, mask]);
        inst.address = Some(Address { base, index: None, offset: address.offset });
        self.code.push(inst);
        result
    }

    /// The address, or that of zeros where a mask that all lanes share is false: as many as all parts of neighbours are, or the
    /// vectors that lanes of one part are picked from.
    fn or_zeros(&mut self, address: Address, mask: Reg) -> Address {
        let bytes = self.lanes * 4;
        let flag = self.code.pure(Op::Vector(Vector::GeneralOfMask, bytes), Class::General, &[mask], None);
        let zeros = self.pool.zeros();
        let zeros = self.code.pure(Op::PoolAddress(zeros), Class::General, &[], None);
        let mut at = address.base;
        if let Some((index, scale)) = address.index {
            let index = match scale {
                1 => index,
                _ => self.code.pure(Op::MultiplyConst(i64::from(scale)), Class::General, &[index], None),
            };
            at = self.code.pure(Op::Add, Class::General, &[at, index], None);
        }
        at = self.code.pure(Op::AddConst(i64::from(address.offset)), Class::General, &[at], None);
        let base = self.code.pure(Op::Choose, Class::General, &[flag, at, zeros], None);
        Address { base, index: None, offset: 0 }
    }

    pub fn give_up(&mut self) -> Val {
        self.unfit = true;
        Val::Undefined
    }

    /// A load at whose end stands a register of a class.
    pub fn read(&mut self, op: Op, class: Class, address: Address, masking: Masking, constant: bool) -> Reg {
        let mut inst = Inst::new(op, None, &[]);
        (inst.address, inst.masking) = (Some(address), masking);
        if constant {
            return self.code.constant_load(inst, class);
        }
        let result = self.code.reg(class, self.code.depth(), false);
        inst.result = Some(result);
        self.code.push(inst);
        result
    }

    /// One element in all lanes.
    fn load_one(&mut self, ty: ScalarType, dtype: DType, address: Address, constant: bool, masking: Masking) -> Reg {
        let (class, bytes) = (self.class(ty), self.bytes(ty));
        match dtype {
            DType::F32 | DType::I32 => {
                self.read(Op::Vector(Vector::Broadcast32, bytes), class, address, masking, constant)
            }
            DType::F64 | DType::I64 => {
                self.read(Op::Vector(Vector::Broadcast64, bytes), class, address, masking, constant)
            }
            DType::Bool | DType::U8 | DType::F16 | DType::BF16 => {
                let narrow = Op::Narrow(dtype.size() as u32);
                let number = self.read(narrow, Class::General, address, Masking::All, constant);
                let numbers = self.spread_general(number, ScalarType::I32);
                match dtype {
                    DType::Bool => self.truth(numbers, ScalarType::I32),
                    DType::U8 => numbers,
                    DType::F16 => self.widened(Half::F16, numbers),
                    _ => self.widened(Half::BF16, numbers),
                }
            }
        }
    }

    /// Halves, whose bits stand in vectors of 32, as numbers.
    fn widened(&mut self, half: Half, bits: Reg) -> Reg {
        self.expanded(ScalarType::I32, bits, ScalarType::F32, &|e, bits| half_code::widen(e, half, bits))
    }

    /// The bits of a number rounded to a half, or as one that holds it exactly.
    fn narrowed(&mut self, half: Half, r: Reg, exact: bool) -> Reg {
        let narrow = if exact { half_code::bits_of_exact } else { half_code::narrow };
        self.expanded(ScalarType::F32, r, ScalarType::I32, &|e, number| narrow(e, half, number))
    }

    /// What an expansion makes of a register.
    fn expanded(
        &mut self,
        from: ScalarType,
        r: Reg,
        to: ScalarType,
        code: &dyn Fn(&mut dyn Emit, ValueId) -> ValueId,
    ) -> Reg {
        let temporaries = self.types.len();
        let operand = self.temporary(from, Val::One(r));
        let result = code(self as &mut dyn Emit, operand);
        let val = self.values[result.index()].clone();
        self.types.truncate(temporaries);
        self.values.truncate(temporaries);
        self.one(&val, to)
    }

    fn load_vector(
        &mut self,
        ty: ScalarType,
        dtype: DType,
        address: Address,
        mask: Option<Reg>,
        constant: bool,
    ) -> Reg {
        let (class, bytes) = (self.class(ty), self.bytes(ty));
        if self.family == Family::Avx2 {
            if dtype.size() != 4 {
                self.unfit = true;
            }
            let Some(mask) = mask else {
                return self.read(Op::Vector(Vector::Load32, bytes), class, address, Masking::All, constant);
            };
            let result = self.code.reg(class, self.code.depth(), false);
            let mut inst = Inst::new(Op::Vector(Vector::MaskLoad32, bytes), Some(result), &[mask]);
            inst.address = Some(address);
            self.code.push(inst);
            return result;
        }
        let masking = self.masking(mask);
        let small = Class::Vector(self.lanes * 4);
        let (op, class) = match dtype {
            DType::F32 | DType::I32 => (Vector::Load32, class),
            DType::F64 | DType::I64 => (Vector::Load64, class),
            DType::F16 => (Vector::LoadF16, class),
            DType::BF16 => (Vector::Load16, small),
            DType::Bool | DType::U8 => (Vector::Load8, small),
        };
        let bytes = if dtype.size() == 8 { bytes } else { self.lanes * 4 };
        let loaded = self.read(Op::Vector(op, bytes), class, address, masking, constant);
        match dtype {
            DType::Bool => self.truth(loaded, ScalarType::I32),
            DType::BF16 => {
                let op = Op::Vector(Vector::ShiftLeftI32, bytes);
                self.code.pure(op, Class::Vector(bytes), &[loaded], Some(16))
            }
            _ => loaded,
        }
    }

    pub fn store(&mut self, memory: Memory, index: &[Index], value: ValueId, mask: Option<ValueId>) {
        let Some(access) = self.access(memory, index) else {
            self.unfit = true;
            return;
        };
        let dtype = self.dtype(memory);
        let origin = self.halves.get(&value).filter(|(of, _)| Half::of(dtype) == Some(*of)).map(|(_, origin)| *origin);
        let (value, exact) = match origin {
            Some(Origin::Rounded(unrounded)) => (unrounded, false),
            Some(Origin::Read) => (value, true),
            None => (value, false),
        };
        let ty = self.types[value.index()];
        let own = mask.map(|m| self.values[m.index()].clone());
        if access.spread == Spread::Uniform {
            let varies = matches!(self.values[value.index()], Val::Parts(_))
                || own.iter().chain(&self.masks).any(|m| matches!(m, Val::Parts(_)));
            let mask = self.access_mask(own.as_ref(), 0, false);
            if varies || (mask.is_some() && (self.family == Family::Avx2 || !matches!(dtype.size(), 4 | 8))) {
                self.unfit = true;
                return;
            }
            let val = self.values[value.index()].clone();
            let r = self.one(&val, ty);
            self.store_one(r, ty, (dtype, exact), access.address, mask);
            return;
        }
        if access.spread != Spread::Unit {
            self.unfit = true;
            return;
        }
        let parts = self.running.map_or(1, |l| l.parts);
        for (part, r) in self.parts_of(value, parts).into_iter().enumerate() {
            let mask = self.access_mask(own.as_ref(), part, true);
            let mut address = access.address;
            address.offset += (part as u32 * self.lanes * dtype.size() as u32) as i32;
            match self.streams(memory).filter(|_| mask.is_none()) {
                Some(flag) => self.write(Op::StoreStreaming(self.bytes(ty)), &[r, flag], address, None, None),
                None => self.store_vector(r, ty, (dtype, exact), address, mask),
            }
        }
    }

    /// Whether stores to memory go past the caches, as a number: where what is written would take more than half of the last one,
    /// and so push out what it is made from. `None` where it certainly does not, or where single vectors are written: two
    /// neighbours at a time stream, one alone waits for memory.
    fn streams(&mut self, memory: Memory) -> Option<Reg> {
        let Memory::Param(p) = memory else { return None };
        let param = &self.kernel.params[p.index()];
        let few = self.running.is_none_or(|l| l.parts < 2);
        if few || self.family != Family::Avx512 || param.access != Access::Write || !matches!(param.dtype.size(), 4 | 8)
        {
            return None;
        }
        let mut known = param.dtype.size() as u64;
        let mut run_time: SmallVec<[_; 2]> = SmallVec::new();
        for d in &param.dims {
            match d {
                Extent::Const(n) => known = known.saturating_mul(*n),
                Extent::Runtime(e) => run_time.push(*e),
            }
        }
        let most = (self.cache_bytes / 2).div_ceil(known.max(1)) as i64;
        let mut count = match run_time.is_empty() {
            true if most > 1 => return None,
            true => self.count_reg(Count::Const(1)),
            false => self.word_reg(Word::Extent(run_time[0])),
        };
        for e in run_time.iter().skip(1) {
            let factor = self.word_reg(Word::Extent(*e));
            count = self.code.pure(Op::Multiply, Class::General, &[count, factor], None);
        }
        let flag = self.code.pure(Op::AtLeast(most), Class::General, &[count], None);
        if !self.streaming.contains(&flag) {
            self.streaming.push(flag);
        }
        Some(flag)
    }

    pub fn write(&mut self, op: Op, operands: &[Reg], address: Address, mask: Option<Reg>, immediate: Option<i32>) {
        let mut inst = Inst::new(op, None, operands);
        inst.address = Some(address);
        inst.masking = mask.map_or(Masking::All, Masking::Merge);
        inst.immediate = immediate;
        self.code.push(inst);
    }

    /// Stores a vector; a half may hold it exactly.
    fn store_vector(
        &mut self,
        r: Reg,
        ty: ScalarType,
        (dtype, exact): (DType, bool),
        address: Address,
        mask: Option<Reg>,
    ) {
        let bytes = self.bytes(ty);
        if self.family == Family::Avx2 {
            self.unfit |= dtype.size() != 4;
            match mask {
                None => self.write(Op::Vector(Vector::Store32, bytes), &[r], address, None, None),
                Some(m) => self.write(Op::Vector(Vector::MaskStore32, bytes), &[m, r], address, None, None),
            }
            return;
        }
        match dtype {
            DType::F32 | DType::I32 => self.write(Op::Vector(Vector::Store32, bytes), &[r], address, mask, None),
            DType::F64 | DType::I64 => self.write(Op::Vector(Vector::Store64, bytes), &[r], address, mask, None),
            DType::F16 => self.write(Op::Vector(Vector::StoreF16, bytes), &[r], address, mask, Some(0)),
            DType::BF16 => {
                let bits = self.narrowed(Half::BF16, r, exact);
                self.write(Op::Vector(Vector::Store16, bytes), &[bits], address, mask, None);
            }
            DType::U8 => self.write(Op::Vector(Vector::Store8, bytes), &[r], address, mask, None),
            DType::Bool => {
                let ones = self.ones(r);
                self.write(Op::Vector(Vector::Store8, self.lanes * 4), &[ones], address, mask, None);
            }
        }
    }

    /// Stores the number that all lanes hold; a half may hold it exactly.
    fn store_one(
        &mut self,
        r: Reg,
        ty: ScalarType,
        (dtype, exact): (DType, bool),
        address: Address,
        mask: Option<Reg>,
    ) {
        let bytes = self.bytes(ty);
        match dtype {
            DType::F32 | DType::I32 => self.write(Op::Vector(Vector::StoreLane32, bytes), &[r], address, mask, None),
            DType::F64 | DType::I64 => self.write(Op::Vector(Vector::StoreLane64, bytes), &[r], address, mask, None),
            DType::F16 | DType::BF16 => {
                let half = if dtype == DType::F16 { Half::F16 } else { Half::BF16 };
                let bits = self.narrowed(half, r, exact);
                self.store_low(bits, 2, address);
            }
            DType::U8 => self.store_low(r, 1, address),
            DType::Bool => {
                let ones = self.ones(r);
                self.store_low(ones, 1, address);
            }
        }
    }

    /// Stores the low bytes of the first lane.
    fn store_low(&mut self, r: Reg, bytes: u32, address: Address) {
        let low = self.code.pure(Op::Vector(Vector::LaneToGeneral, 32), Class::General, &[r], None);
        let mut base = address.base;
        if let Some((index, scale)) = address.index {
            let scaled = match scale {
                1 => index,
                _ => self.code.pure(Op::MultiplyConst(i64::from(scale)), Class::General, &[index], None),
            };
            base = self.code.pure(Op::Add, Class::General, &[base, scaled], None);
        }
        self.write(Op::StoreNarrow(bytes), &[low], Address { base, index: None, offset: address.offset }, None, None);
    }

    /// Stores a result into a word of the frame.
    pub fn store_result(&mut self, val: &Val, ty: ScalarType, word: u32) {
        let r = self.one(val, ty);
        let frame = self.code.pure(Op::FrameAddress, Class::General, &[], None);
        let address = Address { base: frame, index: None, offset: word as i32 * 8 };
        let dtype = ty.dtype();
        let dtype = if dtype == DType::U8 { DType::I32 } else { dtype };
        self.store_one(r, ty, (dtype, false), address, None);
    }
}
