//! Kernel values as Cranelift values: uniform scalars, or a vector a part in flight.

use super::Emitter;
use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, Type, Value, types};
use lazuli_ir::kernel::{ScalarType, ValueId};
use lazuli_ir::{Error, Literal, Result};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Lanes of a vector.
pub(super) const LANES: u32 = 4;

/// How many iterations run together: `parts` vectors of `lanes`. Lanes are 4 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub lanes: u32,
    pub parts: u32,
}

impl Mode {
    pub const SCALAR: Mode = Mode { lanes: 1, parts: 1 };

    pub fn total(self) -> u32 {
        self.lanes * self.parts
    }

    pub fn is_scalar(self) -> bool {
        self.total() == 1
    }

    /// Cranelift values that a varying value of a type consists of: 128 bits hold two of the four lanes of a wide type.
    pub fn count(self, ty: ScalarType) -> usize {
        let split = self.lanes > 1 && is_wide(ty);
        self.parts as usize * if split { 2 } else { 1 }
    }

    /// The type of each of them. Truth values are masks of 32 bits in vectors, bytes otherwise; `u8` is an `i32` that is
    /// wrapped after arithmetic.
    pub fn ty(self, ty: ScalarType) -> Type {
        match (self.lanes > 1, ty) {
            (false, _) => scalar_type(ty),
            (true, ScalarType::Bool | ScalarType::U8 | ScalarType::I32) => types::I32X4,
            (true, ScalarType::I64) => types::I64X2,
            (true, ScalarType::F32) => types::F32X4,
            (true, ScalarType::F64) => types::F64X2,
        }
    }
}

/// Whether values take 64 bits.
pub(super) fn is_wide(ty: ScalarType) -> bool {
    matches!(ty, ScalarType::I64 | ScalarType::F64)
}

pub(super) type Parts = SmallVec<[Value; 8]>;

/// A kernel value.
#[derive(Clone, Debug, Default)]
pub(super) enum Val {
    /// Not defined yet.
    #[default]
    Undefined,
    /// A constant.
    Const(Literal),
    /// The same for all iterations that run together.
    Scalar(Value),
    /// Different for each: [`Mode::count`] values.
    Parts(Parts),
}

/// A value and the vector region in which it was defined; 0 outside of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound {
    pub val: Val,
    pub region: u32,
}

/// An index variable.
#[derive(Clone, Debug)]
pub(super) enum Var {
    /// The same for all iterations that run together.
    Uniform { value: Value, depth: u32 },
    /// That of the first; the others follow by one.
    Lanes { first: Value, depth: u32 },
    /// Bound to data: one for each of the iterations that run together.
    Data { lanes: Parts, depth: u32 },
}

impl Var {
    pub fn depth(&self) -> u32 {
        match self {
            Var::Uniform { depth, .. } | Var::Lanes { depth, .. } | Var::Data { depth, .. } => *depth,
        }
    }
}

/// A vector loop, with the open block before it and what was put there.
#[derive(Debug)]
pub(super) struct Region {
    pub id: u32,
    pub before: Block,
    constants: FxHashMap<(Type, [u32; 4]), Value>,
    splats: FxHashMap<Value, Value>,
}

impl Region {
    pub fn new(id: u32, before: Block) -> Region {
        Region { id, before, constants: FxHashMap::default(), splats: FxHashMap::default() }
    }
}

pub(super) fn scalar_type(ty: ScalarType) -> Type {
    match ty {
        ScalarType::Bool => types::I8,
        ScalarType::U8 | ScalarType::I32 => types::I32,
        ScalarType::I64 => types::I64,
        ScalarType::F32 => types::F32,
        ScalarType::F64 => types::F64,
    }
}

/// A 64-bit number in both halves of a vector.
pub(super) fn twice(v: u64) -> [u32; 4] {
    [v as u32, (v >> 32) as u32, v as u32, (v >> 32) as u32]
}

/// The bits of a vector with a constant in all lanes.
fn splat_bits(c: Literal) -> [u32; 4] {
    match c {
        Literal::Bool(v) => [if v { u32::MAX } else { 0 }; 4],
        Literal::U8(v) => [u32::from(v); 4],
        Literal::I32(v) => [v as u32; 4],
        Literal::I64(v) => twice(v as u64),
        Literal::F16(_) | Literal::BF16(_) => splat_bits(c.in_kernel()),
        Literal::F32(v) => [v.to_bits(); 4],
        Literal::F64(v) => twice(v.to_bits()),
    }
}

impl Emitter<'_> {
    /// A vector constant, loaded from the pool before the vector loop: an immediate would be made again in each iteration.
    pub(super) fn vector_constant(&mut self, ty: Type, lanes: [u32; 4]) -> Value {
        if let Some(v) = self.region.as_ref().and_then(|r| r.constants.get(&(ty, lanes))) {
            return *v;
        }
        let offset = self.pool.offset(lanes);
        let (flags, pool) = (self.flags.fixed, self.constants);
        let block = self.region.as_ref().map_or(self.at, |r| r.before);
        let v = self.ins_at(block).load(ty, flags, pool, offset);
        if let Some(region) = &mut self.region {
            region.constants.insert((ty, lanes), v);
        }
        v
    }

    pub(super) fn scalar_constant(&mut self, c: Literal) -> Value {
        match c {
            Literal::Bool(v) => self.ins().iconst(types::I8, i64::from(v)),
            Literal::U8(v) => self.ins().iconst(types::I32, i64::from(v)),
            Literal::I64(v) => self.int(v),
            // Bits beyond the type must be zeros.
            Literal::I32(v) => self.ins().iconst(types::I32, i64::from(v as u32)),
            Literal::F16(_) | Literal::BF16(_) => self.scalar_constant(c.in_kernel()),
            Literal::F32(v) if self.region.is_none() || v.to_bits() == 0 => self.ins().f32const(v),
            Literal::F32(v) => self.vector_constant(types::F32, [v.to_bits(); 4]),
            Literal::F64(v) if self.region.is_none() || v.to_bits() == 0 => self.ins().f64const(v),
            Literal::F64(v) => self.vector_constant(types::F64, twice(v.to_bits())),
        }
    }

    /// The scalar of a uniform value.
    pub(super) fn uniform(&mut self, v: ValueId) -> Result<Value> {
        match self.values[v.index()].val {
            Val::Const(c) => Ok(self.scalar_constant(c)),
            Val::Scalar(s) => Ok(s),
            Val::Parts(_) => Err(Error::internal("a value that differs by lane stands where one for all is needed")),
            Val::Undefined => Err(Error::internal(format!("value {} is used before it is defined", v.0))),
        }
    }

    pub(super) fn is_uniform(&self, v: ValueId) -> bool {
        !matches!(self.values[v.index()].val, Val::Parts(_))
    }

    /// A value for each part.
    pub(super) fn varying(&mut self, v: ValueId) -> Result<Parts> {
        let Bound { val, region } = self.values[v.index()].clone();
        let ty = self.types[v.index()];
        let outside = self.region.as_ref().is_some_and(|r| r.id != region);
        self.varying_val(&val, ty, outside)
    }

    /// A value for each part; `outside`: it was defined before the vector loop, so that a splat may be put there.
    pub(super) fn varying_val(&mut self, val: &Val, ty: ScalarType, outside: bool) -> Result<Parts> {
        let (mode, count) = (self.mode, self.mode.count(ty));
        let one = match val {
            Val::Parts(parts) => return Ok(parts.clone()),
            Val::Undefined => return Err(Error::internal("a value is used before it is defined")),
            Val::Const(c) if mode.lanes > 1 => self.vector_constant(mode.ty(ty), splat_bits(*c)),
            Val::Const(c) => self.scalar_constant(*c),
            Val::Scalar(s) if mode.lanes > 1 => self.splat(*s, ty, outside),
            Val::Scalar(s) => *s,
        };
        Ok(std::iter::repeat_n(one, count).collect())
    }

    fn splat(&mut self, s: Value, ty: ScalarType, outside: bool) -> Value {
        if let Some(v) = self.region.as_ref().and_then(|r| r.splats.get(&s)).filter(|_| outside) {
            return *v;
        }
        let block = self.region.as_ref().filter(|_| outside).map_or(self.at, |r| r.before);
        let lane = match ty {
            ScalarType::Bool => self.ins_at(block).bmask(types::I32, s),
            ScalarType::U8 | ScalarType::I32 | ScalarType::I64 | ScalarType::F32 | ScalarType::F64 => s,
        };
        let vector = self.mode.ty(ty);
        let v = self.ins_at(block).splat(vector, lane);
        if outside && let Some(region) = &mut self.region {
            region.splats.insert(s, v);
        }
        v
    }

    /// The scalar of one of the iterations that run together.
    pub(super) fn lane_of(&mut self, v: ValueId, lane: u32) -> Result<Value> {
        let val = self.values[v.index()].val.clone();
        self.lane_of_val(&val, self.types[v.index()], lane)
    }

    pub(super) fn lane_of_val(&mut self, val: &Val, ty: ScalarType, lane: u32) -> Result<Value> {
        let parts = match val {
            Val::Undefined => return Err(Error::internal("a value is used before it is defined")),
            Val::Const(c) => return Ok(self.scalar_constant(*c)),
            Val::Scalar(s) => return Ok(*s),
            Val::Parts(parts) => parts,
        };
        if self.mode.lanes == 1 {
            return Ok(parts[lane as usize]);
        }
        let width = if is_wide(ty) { 2 } else { 4 };
        let (part, within) = ((lane / width) as usize, (lane % width) as u8);
        let element = self.ins().extractlane(parts[part], within);
        Ok(match ty {
            ScalarType::Bool => {
                let byte = self.ins().ireduce(types::I8, element);
                self.ins().band_imm_u(byte, 1)
            }
            ScalarType::U8 | ScalarType::I32 | ScalarType::I64 | ScalarType::F32 | ScalarType::F64 => element,
        })
    }

    /// A varying value from the scalars of all iterations.
    pub(super) fn gather_lanes(&mut self, ty: ScalarType, lanes: &[Value]) -> Val {
        if self.mode.is_scalar() {
            return Val::Scalar(lanes[0]);
        }
        if self.mode.lanes == 1 {
            return Val::Parts(lanes.iter().copied().collect());
        }
        let width = if is_wide(ty) { 2 } else { 4 };
        let vector = self.mode.ty(ty);
        let mut parts = Parts::new();
        for group in lanes.chunks(width) {
            let mut v = None;
            for (i, &lane) in group.iter().enumerate() {
                let lane = match ty {
                    ScalarType::Bool => self.ins().bmask(types::I32, lane),
                    ScalarType::U8 | ScalarType::I32 | ScalarType::I64 | ScalarType::F32 | ScalarType::F64 => lane,
                };
                v = Some(match v {
                    None => self.ins().scalar_to_vector(vector, lane),
                    Some(v) => self.ins().insertlane(v, lane, i as u8),
                });
            }
            parts.extend(v);
        }
        Val::Parts(parts)
    }

    /// Bits as another vector type.
    pub(super) fn cast_bits(&mut self, to: Type, v: Value) -> Value {
        if self.func.dfg.value_type(v) == to {
            return v;
        }
        let flags = if to.is_vector() {
            MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little)
        } else {
            MemFlagsData::new()
        };
        self.ins().bitcast(to, flags, v)
    }

    /// The conjunction of two masks.
    pub(super) fn both(&mut self, a: Option<Val>, b: Option<Val>) -> Result<Option<Val>> {
        let (a, b) = match (a, b) {
            (a, None) => return Ok(a),
            (None, b) => return Ok(b),
            (Some(a), Some(b)) => (a, b),
        };
        if let (Val::Parts(_), _) | (_, Val::Parts(_)) = (&a, &b) {
            let (a, b) =
                (self.varying_val(&a, ScalarType::Bool, false)?, self.varying_val(&b, ScalarType::Bool, false)?);
            return Ok(Some(Val::Parts(a.iter().zip(&b).map(|(x, y)| self.ins().band(*x, *y)).collect())));
        }
        let (a, b) = (self.lane_of_val(&a, ScalarType::Bool, 0)?, self.lane_of_val(&b, ScalarType::Bool, 0)?);
        Ok(Some(Val::Scalar(self.ins().band(a, b))))
    }
}
