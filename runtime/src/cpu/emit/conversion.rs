//! Conversions between types, in scalars and in vectors. Integers and truth values convert in vectors, floats where x86 and
//! Cranelift have the instruction; the rest goes lane by lane.

use super::Emitter;
use super::value::{Parts, Val, scalar_type, twice};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use lazuli_ir::Result;
use lazuli_ir::kernel::{ScalarType, ValueId};

impl Emitter<'_> {
    pub(super) fn convert(&mut self, to: ScalarType, a: ValueId) -> Result<Val> {
        let from = self.types[a.index()];
        if from == to {
            return Ok(self.values[a.index()].val.clone());
        }
        if self.is_uniform(a) || self.mode.lanes == 1 {
            return self.lift(to, from, &[a], &mut |e, x| Ok(e.convert_scalar(from, to, x[0])));
        }
        let parts = self.varying(a)?;
        use ScalarType::{Bool, F32, F64, I32, I64, U8};
        Ok(Val::Parts(match (from, to) {
            (Bool, U8 | I32) => self.ones(&parts),
            (Bool, I64) => {
                let ones = self.ones(&parts);
                self.widen(&ones)
            }
            (Bool, F32) => {
                let one = self.vector_constant(types::F32X4, [1f32.to_bits(); 4]);
                self.each(&parts, |e, v| {
                    let v = e.cast_bits(types::F32X4, v);
                    e.ins().band(v, one)
                })
            }
            (Bool, F64) => {
                let one = self.vector_constant(types::F64X2, twice(1f64.to_bits()));
                let wide = self.widen(&parts);
                self.each(&wide, |e, v| {
                    let v = e.cast_bits(types::F64X2, v);
                    e.ins().band(v, one)
                })
            }
            (U8, I32) => parts,
            (I32, U8) => self.each(&parts, |e, v| e.wrapped(U8, v)),
            (U8 | I32, I64) => self.widen(&parts),
            (I64, I32) => self.narrow(&parts),
            (I64, U8) => {
                let narrow = self.narrow(&parts);
                self.each(&narrow, |e, v| e.wrapped(U8, v))
            }
            (U8 | I32, F32) => self.each(&parts, |e, v| e.ins().fcvt_from_sint(types::F32X4, v)),
            (U8 | I32, F64) => self.halves(&parts, |e, v| {
                let wide = e.ins().swiden_low(v);
                e.ins().fcvt_from_sint(types::F64X2, wide)
            }),
            (F32, F64) => self.halves(&parts, |e, v| e.ins().fvpromote_low(v)),
            (F64, F32) => {
                let narrow = self.each(&parts, |e, v| e.ins().fvdemote(v));
                let mut out = Parts::new();
                for pair in narrow.chunks(2) {
                    let v = self.pick_words(pair[0], pair[1], [0, 1, 4, 5]);
                    out.push(self.cast_bits(types::F32X4, v));
                }
                out
            }
            (F32, U8 | I32) => self.each(&parts, |e, v| {
                let v = e.truncated(v);
                e.wrapped(to, v)
            }),
            (F32, Bool) => {
                let zero = self.vector_constant(types::F32X4, [0; 4]);
                self.each(&parts, |e, v| e.ins().fcmp(FloatCC::NotEqual, v, zero))
            }
            (F64, Bool) => {
                let zero = self.vector_constant(types::F64X2, [0; 4]);
                let wide = self.each(&parts, |e, v| e.ins().fcmp(FloatCC::NotEqual, v, zero));
                self.narrow(&wide)
            }
            (U8 | I32, Bool) => {
                let zero = self.vector_constant(types::I32X4, [0; 4]);
                self.each(&parts, |e, v| e.ins().icmp(IntCC::NotEqual, v, zero))
            }
            (I64, Bool) => {
                let zero = self.vector_constant(types::I64X2, [0; 4]);
                let wide = self.each(&parts, |e, v| e.ins().icmp(IntCC::NotEqual, v, zero));
                self.narrow(&wide)
            }
            (I64, F32 | F64) | (F32, I64) | (F64, U8 | I32 | I64) => {
                return self.by_lane(to, &[a], &mut |e, x| Ok(e.convert_scalar(from, to, x[0])));
            }
            (Bool, Bool) | (U8, U8) | (I32, I32) | (I64, I64) | (F32, F32) | (F64, F64) => parts,
        }))
    }

    fn each(&mut self, parts: &[Value], mut f: impl FnMut(&mut Self, Value) -> Value) -> Parts {
        parts.iter().map(|v| f(self, *v)).collect()
    }

    /// Masks as ones.
    fn ones(&mut self, masks: &[Value]) -> Parts {
        self.each(masks, |e, v| e.ins().ineg(v))
    }

    /// Applies what widens the lower two lanes of a vector to both halves of each.
    fn halves(&mut self, parts: &[Value], mut f: impl FnMut(&mut Self, Value) -> Value) -> Parts {
        let mut out = Parts::new();
        for &v in parts {
            let ty = self.func.dfg.value_type(v);
            out.push(f(self, v));
            let upper = self.pick_words(v, v, [2, 3, 2, 3]);
            let upper = self.cast_bits(ty, upper);
            out.push(f(self, upper));
        }
        out
    }

    /// Four of the eight words of 32 bits of two vectors, as bytes.
    fn pick_words(&mut self, a: Value, b: Value, words: [u8; 4]) -> Value {
        let bytes: Vec<u8> = words.iter().flat_map(|w| (0..4).map(move |k| w * 4 + k)).collect();
        let (a, b) = (self.cast_bits(types::I8X16, a), self.cast_bits(types::I8X16, b));
        let mask = self.func.dfg.immediates.push(bytes.as_slice().into());
        self.ins().shuffle(a, b, mask)
    }

    /// Pairs of vectors of two 64-bit lanes as vectors of the low halves of four.
    pub(super) fn narrow(&mut self, wide: &[Value]) -> Parts {
        let mut out = Parts::new();
        for pair in wide.chunks(2) {
            let words = self.pick_words(pair[0], pair[1], [0, 2, 4, 6]);
            out.push(self.cast_bits(types::I32X4, words));
        }
        out
    }

    /// Vectors of four lanes, sign-extended to pairs of two.
    pub(super) fn widen(&mut self, narrow: &[Value]) -> Parts {
        let mut out = Parts::new();
        for &v in narrow {
            out.push(self.ins().swiden_low(v));
            out.push(self.ins().swiden_high(v));
        }
        out
    }

    /// A vector of `f32` truncated to `i32`; what does not fit, and NaN, is the smallest.
    fn truncated(&mut self, v: Value) -> Value {
        if self.machine.x86 {
            return self.ins().x86_cvtt2dq(types::I32X4, v);
        }
        let limit = self.vector_constant(types::F32X4, [2_147_483_648f32.to_bits(); 4]);
        let smallest = self.vector_constant(types::I32X4, [1 << 31; 4]);
        let number = self.ins().fcvt_to_sint_sat(types::I32X4, v);
        let fits = self.ins().fcmp(FloatCC::LessThan, v, limit);
        self.blend(fits, number, smallest)
    }

    pub(super) fn convert_scalar(&mut self, from: ScalarType, to: ScalarType, a: Value) -> Value {
        use ScalarType::{Bool, F32, F64, I32, I64, U8};
        match (from, to) {
            (Bool, U8 | I32) => self.ins().uextend(types::I32, a),
            (Bool, I64) => self.ins().uextend(types::I64, a),
            (Bool, F32 | F64) => {
                let wide = self.ins().uextend(types::I32, a);
                self.ins().fcvt_from_sint(scalar_type(to), wide)
            }
            (U8, I32) => a,
            (I32, U8) => self.wrapped(U8, a),
            (U8 | I32, I64) => self.ins().sextend(types::I64, a),
            (I64, I32) => self.ins().ireduce(types::I32, a),
            (I64, U8) => {
                let low = self.ins().ireduce(types::I32, a);
                self.wrapped(U8, low)
            }
            (U8 | I32 | I64, F32 | F64) => self.ins().fcvt_from_sint(scalar_type(to), a),
            (U8 | I32 | I64, Bool) => self.ins().icmp_imm_s(IntCC::NotEqual, a, 0),
            (F32, F64) => self.ins().fpromote(types::F64, a),
            (F64, F32) => self.ins().fdemote(types::F32, a),
            (F32 | F64, Bool) => {
                let zero = self.float_constant(from, 0.0);
                self.ins().fcmp(FloatCC::NotEqual, a, zero)
            }
            (F32 | F64, U8 | I32 | I64) => {
                let (ty, limit, smallest) = match to {
                    I64 => (types::I64, 9_223_372_036_854_775_808.0, i64::MIN),
                    _ => (types::I32, 2_147_483_648.0, 1 << 31),
                };
                let number = self.ins().fcvt_to_sint_sat(ty, a);
                let limit = self.float_constant(from, limit);
                let fits = self.ins().fcmp(FloatCC::LessThan, a, limit);
                let smallest = self.ins().iconst(ty, smallest);
                let number = self.ins().select(fits, number, smallest);
                self.wrapped(to, number)
            }
            (Bool, Bool) | (U8, U8) | (I32, I32) | (I64, I64) | (F32, F32) | (F64, F64) => a,
        }
    }

    fn float_constant(&mut self, ty: ScalarType, v: f64) -> Value {
        match ty {
            ScalarType::F64 => self.ins().f64const(v),
            _ => self.ins().f32const(v as f32),
        }
    }
}
