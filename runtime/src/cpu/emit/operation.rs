//! Arithmetic: the same meaning bit for bit in scalars and in vectors.
//!
//! What has a vector instruction works on parts; all else ([`Emitter::by_lane`]) takes the lanes out, computes with scalar
//! code and puts them back in.

use super::Emitter;
use super::value::{Parts, Val, is_wide, scalar_type, twice};
use crate::cpu::abi::Callee;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use lazuli_ir::half_code::{self, Half};
use lazuli_ir::kernel::{Emit, Expr, MachineOp, ScalarType, ValueId};
use lazuli_ir::{BinaryCode, BinaryOp, CompareOp, Error, NativeUnary, Result, UnaryCode, UnaryOp};

/// Scalar or vector code for one value of each operand.
type Code<'a, E> = &'a mut dyn FnMut(&mut E, &[Value]) -> Result<Value>;

impl Emitter<'_> {
    /// Emits an expression.
    pub(super) fn expr(&mut self, ty: ScalarType, expr: &Expr) -> Result<Val> {
        match expr {
            Expr::Const(c) => Ok(Val::Const(*c)),
            Expr::Scalar(s) => Ok(Val::Scalar(self.scalars[s.index()])),
            Expr::Index(index) => self.index_value(index),
            Expr::Load { from, index, mask } => self.load(ty, *from, index, *mask),
            Expr::Unary(op, a) => self.unary(*op, ty, *a),
            Expr::Binary(op, a, b) => match op.code(ty) {
                BinaryCode::Native => self.native_binary(*op, ty, *a, *b),
                BinaryCode::Expand(code) => {
                    let result = code(self as &mut dyn Emit, *a, *b);
                    Ok(self.values[result.index()].val.clone())
                }
                BinaryCode::Call => {
                    let op = *op;
                    self.by_lane(ty, &[*a, *b], &mut |e, x| e.call_binary(op, ty, x[0], x[1]))
                }
            },
            Expr::Compare(op, a, b) => self.compare(*op, *a, *b),
            Expr::Select(c, a, b) => self.select(ty, *c, *a, *b),
            Expr::Convert(a) => self.convert(ty, *a),
            Expr::Machine(op, operands) => self.machine_op(ty, *op, operands),
            Expr::Random(seed, draw, element) => {
                let result = lazuli_ir::philox_code::uniform(self as &mut dyn Emit, *seed, *draw, *element);
                Ok(self.values[result.index()].val.clone())
            }
        }
    }

    fn unary(&mut self, op: UnaryOp, ty: ScalarType, a: ValueId) -> Result<Val> {
        match op.row().code {
            UnaryCode::Native(native) if self.machine.rounds || !rounds(native) => self.native(native, ty, a),
            UnaryCode::Expand(code) => {
                let result = code(self as &mut dyn Emit, a);
                Ok(self.values[result.index()].val.clone())
            }
            UnaryCode::ExpandBelow(code, limit) => {
                let result = code(self as &mut dyn Emit, a);
                self.called_from(op, ty, limit, a, result)
            }
            UnaryCode::Native(_) | UnaryCode::Call => self.by_lane(ty, &[a], &mut |e, x| e.call_unary(op, ty, x[0])),
        }
    }

    /// The value of an expansion, replaced by that of a call where the operand's magnitude is not below a limit. The calls
    /// stand behind a branch that no iteration takes where all are.
    fn called_from(&mut self, op: UnaryOp, ty: ScalarType, limit: f64, a: ValueId, expanded: ValueId) -> Result<Val> {
        let e: &mut dyn Emit = self;
        let (size, limit) = (e.abs(a), e.number(a, limit));
        let large = e.le(limit, size);
        let uniform = self.is_uniform(a);
        let values = if uniform { smallvec::smallvec![self.uniform(expanded)?] } else { self.varying(expanded)? };
        let masks = self.values[large.index()].val.clone();
        let any = self.any(&masks)?;
        let (inside, after) = (self.new_block(), self.new_block());
        self.branch(any, inside, &[], after, &values);
        self.enter(inside);
        self.func.layout.set_cold(inside);
        let called = self.by_lane(ty, &[a], &mut |e, x| e.call_unary(op, ty, x[0]))?;
        let called = self.temporary(ty, called);
        let chosen = self.select(ty, large, called, expanded)?;
        let chosen = match chosen {
            Val::Parts(parts) => parts,
            other => smallvec::smallvec![self.lane_of_val(&other, ty, 0)?],
        };
        self.jump(after, &chosen);
        self.enter(after);
        let mut out = Parts::new();
        for v in chosen {
            let ty = self.func.dfg.value_type(v);
            out.push(self.func.dfg.append_block_param(after, ty));
        }
        Ok(if uniform { Val::Scalar(out[0]) } else { Val::Parts(out) })
    }

    /// Applies `f` once where all operands are uniform, else to the values of each part. All operands are of type `from`.
    pub(super) fn lift(
        &mut self,
        to: ScalarType,
        from: ScalarType,
        operands: &[ValueId],
        f: Code<'_, Self>,
    ) -> Result<Val> {
        if operands.iter().all(|v| self.is_uniform(*v)) {
            let scalars = operands.iter().map(|v| self.uniform(*v)).collect::<Result<Parts>>()?;
            return Ok(Val::Scalar(f(self, &scalars)?));
        }
        debug_assert_eq!(self.mode.count(to), self.mode.count(from));
        let parts = operands.iter().map(|v| self.varying(*v)).collect::<Result<Vec<Parts>>>()?;
        let mut out = Parts::new();
        for i in 0..self.mode.count(from) {
            let args: Parts = parts.iter().map(|p| p[i]).collect();
            out.push(f(self, &args)?);
        }
        Ok(Val::Parts(out))
    }

    /// Applies scalar code to each of the iterations that run together; once where all operands are uniform.
    pub(super) fn by_lane(&mut self, to: ScalarType, operands: &[ValueId], f: Code<'_, Self>) -> Result<Val> {
        if operands.iter().all(|v| self.is_uniform(*v)) {
            let scalars = operands.iter().map(|v| self.uniform(*v)).collect::<Result<Parts>>()?;
            return Ok(Val::Scalar(f(self, &scalars)?));
        }
        let mut lanes = Parts::new();
        for lane in 0..self.mode.total() {
            let args = operands.iter().map(|v| self.lane_of(*v, lane)).collect::<Result<Parts>>()?;
            lanes.push(f(self, &args)?);
        }
        Ok(self.gather_lanes(to, &lanes))
    }

    pub(super) fn is_vector(&self, v: Value) -> bool {
        self.func.dfg.value_type(v).is_vector()
    }

    fn type_of_value(&self, v: Value) -> Type {
        self.func.dfg.value_type(v)
    }

    /// The low byte of a `u8` after arithmetic; other types as they are.
    pub(super) fn wrapped(&mut self, ty: ScalarType, v: Value) -> Value {
        if ty != ScalarType::U8 {
            return v;
        }
        if self.is_vector(v) {
            let mask = self.vector_constant(types::I32X4, [0xff; 4]);
            return self.ins().band(v, mask);
        }
        self.ins().band_imm_u(v, 0xff)
    }

    /// A mask of the sign bits of a vector type.
    fn sign_bits(&mut self, ty: ScalarType, inverted: bool) -> Value {
        let (narrow, wide) = (1u32 << 31, 1u64 << 63);
        let (vector, lanes) = match (is_wide(ty), inverted) {
            (false, false) => (types::F32X4, [narrow; 4]),
            (false, true) => (types::F32X4, [!narrow; 4]),
            (true, false) => (types::F64X2, twice(wide)),
            (true, true) => (types::F64X2, twice(!wide)),
        };
        self.vector_constant(vector, lanes)
    }

    fn native(&mut self, op: NativeUnary, ty: ScalarType, a: ValueId) -> Result<Val> {
        self.lift(ty, ty, &[a], &mut |e, x| {
            let a = x[0];
            let float = ty.is_float();
            let v = match op {
                // The sign is flipped or cleared by hand: a vector fneg builds its mask in each iteration.
                NativeUnary::Neg if float && e.is_vector(a) => {
                    let sign = e.sign_bits(ty, false);
                    e.ins().bxor(a, sign)
                }
                NativeUnary::Abs if float && e.is_vector(a) => {
                    let rest = e.sign_bits(ty, true);
                    e.ins().band(a, rest)
                }
                NativeUnary::Neg if float => e.ins().fneg(a),
                NativeUnary::Abs if float => e.ins().fabs(a),
                NativeUnary::Ceil if float => e.ins().ceil(a),
                NativeUnary::Floor if float => e.ins().floor(a),
                NativeUnary::Trunc if float => e.ins().trunc(a),
                NativeUnary::Round if float => e.ins().nearest(a),
                NativeUnary::Sqrt if float => e.ins().sqrt(a),
                NativeUnary::Neg => e.ins().ineg(a),
                NativeUnary::Abs => e.ins().iabs(a),
                NativeUnary::Not => e.ins().bnot(a),
                NativeUnary::Ceil
                | NativeUnary::Floor
                | NativeUnary::Trunc
                | NativeUnary::Round
                | NativeUnary::Sqrt => {
                    return Err(Error::internal(format!("{op:?} of {}", ty.name())));
                }
            };
            Ok(e.wrapped(ty, v))
        })
    }

    /// `c ? a : b` on one value each, `c` being a mask as wide as the operands.
    pub(super) fn blend(&mut self, c: Value, a: Value, b: Value) -> Value {
        let ty = self.func.dfg.value_type(a);
        if !ty.is_vector() {
            return self.ins().select(c, a, b);
        }
        let c = self.cast_bits(ty, c);
        self.ins().bitselect(c, a, b)
    }

    fn native_binary(&mut self, op: BinaryOp, ty: ScalarType, a: ValueId, b: ValueId) -> Result<Val> {
        match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Copysign if ty.is_float() => {
                self.lift(ty, ty, &[a, b], &mut |e, x| e.float_arithmetic(op, ty, x[0], x[1]))
            }
            BinaryOp::Max | BinaryOp::Min => self.lift(ty, ty, &[a, b], &mut |e, x| Ok(e.extremum(op, ty, x[0], x[1]))),
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor
                if !ty.is_float() =>
            {
                self.lift(ty, ty, &[a, b], &mut |e, x| e.integer_arithmetic(op, ty, x[0], x[1]))
            }
            // A count for all lanes is what vector shifts take.
            BinaryOp::ShiftLeft | BinaryOp::ShiftRight if self.is_uniform(b) => {
                let count = self.uniform(b)?;
                self.lift(ty, ty, &[a], &mut |e, x| Ok(e.shift(op, ty, x[0], count)))
            }
            BinaryOp::ShiftLeft | BinaryOp::ShiftRight => {
                self.by_lane(ty, &[a, b], &mut |e, x| Ok(e.shift(op, ty, x[0], x[1])))
            }
            BinaryOp::TruncDiv | BinaryOp::FloorDiv | BinaryOp::Remainder | BinaryOp::Fmod if !ty.is_float() => {
                self.by_lane(ty, &[a, b], &mut |e, x| Ok(e.division(op, ty, x[0], x[1])))
            }
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Copysign => wrong(op, ty),
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::TruncDiv | BinaryOp::FloorDiv => wrong(op, ty),
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Hypot => wrong(op, ty),
        }
    }

    fn float_arithmetic(&mut self, op: BinaryOp, ty: ScalarType, a: Value, b: Value) -> Result<Value> {
        Ok(match op {
            BinaryOp::Add => self.ins().fadd(a, b),
            BinaryOp::Sub => self.ins().fsub(a, b),
            BinaryOp::Mul => self.ins().fmul(a, b),
            BinaryOp::Div => self.ins().fdiv(a, b),
            BinaryOp::Copysign if self.is_vector(a) => {
                let (sign, rest) = (self.sign_bits(ty, false), self.sign_bits(ty, true));
                let (magnitude, sign) = (self.ins().band(a, rest), self.ins().band(b, sign));
                self.ins().bor(magnitude, sign)
            }
            BinaryOp::Copysign => self.ins().fcopysign(a, b),
            _ => return Err(Error::internal(format!("{} as arithmetic", op.name()))),
        })
    }

    fn integer_arithmetic(&mut self, op: BinaryOp, ty: ScalarType, a: Value, b: Value) -> Result<Value> {
        let v = match (op, ty) {
            (BinaryOp::Add, ScalarType::Bool) => self.ins().bor(a, b),
            (BinaryOp::Mul, ScalarType::Bool) => self.ins().band(a, b),
            (BinaryOp::Sub, ScalarType::Bool) => return Err(Error::internal("a difference of truth values")),
            (BinaryOp::Add, _) => self.ins().iadd(a, b),
            (BinaryOp::Sub, _) => self.ins().isub(a, b),
            (BinaryOp::Mul, _) => self.ins().imul(a, b),
            (BinaryOp::And, _) => self.ins().band(a, b),
            (BinaryOp::Or, _) => self.ins().bor(a, b),
            (BinaryOp::Xor, _) => self.ins().bxor(a, b),
            _ => return Err(Error::internal(format!("{} as arithmetic", op.name()))),
        };
        Ok(self.wrapped(ty, v))
    }

    /// The larger or the smaller; of floats one minps or maxps, then the operand's NaN.
    fn extremum(&mut self, op: BinaryOp, ty: ScalarType, a: Value, b: Value) -> Value {
        let larger = op == BinaryOp::Max;
        if ty == ScalarType::Bool {
            return if larger { self.ins().bor(a, b) } else { self.ins().band(a, b) };
        }
        if !ty.is_float() {
            let condition = if larger { IntCC::SignedGreaterThan } else { IntCC::SignedLessThan };
            let first = self.ins().icmp(condition, a, b);
            return self.blend(first, a, b);
        }
        let first = match larger {
            true => self.ins().fcmp(FloatCC::LessThan, b, a),
            false => self.ins().fcmp(FloatCC::LessThan, a, b),
        };
        let m = self.blend(first, a, b);
        let nan = self.ins().fcmp(FloatCC::Unordered, a, a);
        self.blend(nan, a, m)
    }

    /// A shift by a scalar count, of a scalar or a vector.
    fn shift(&mut self, op: BinaryOp, ty: ScalarType, a: Value, count: Value) -> Value {
        let (bits, width) = (scalar_type(ty).bits() as i64, 8 * ty.dtype().size() as i64);
        let inside = self.ins().icmp_imm_u(IntCC::UnsignedLessThan, count, width);
        let of = self.type_of_value(count);
        if op == BinaryOp::ShiftRight {
            let last = self.ins().iconst(of, bits - 1);
            let count = self.ins().select(inside, count, last);
            return self.ins().sshr(a, count);
        }
        let zero = self.ins().iconst(of, 0);
        let count = self.ins().select(inside, count, zero);
        let shifted = self.ins().ishl(a, count);
        let nothing = self.ins().bxor(a, a);
        let shifted = self.ins().select(inside, shifted, nothing);
        self.wrapped(ty, shifted)
    }

    /// A quotient or remainder of integers. Nothing traps: a divisor of 0 gives 0, and the smallest integer over -1 wraps.
    fn division(&mut self, op: BinaryOp, ty: ScalarType, a: Value, b: Value) -> Value {
        let of = scalar_type(ty);
        let (zero, one) = (self.ins().iconst(of, 0), self.ins().iconst(of, 1));
        let by_zero = self.ins().icmp_imm_s(IntCC::Equal, b, 0);
        let by_minus_one = self.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let unsafe_divisor = self.ins().bor(by_zero, by_minus_one);
        let divisor = self.ins().select(unsafe_divisor, one, b);
        let quotient = self.ins().sdiv(a, divisor);
        let negated = self.ins().ineg(a);
        let quotient = self.ins().select(by_minus_one, negated, quotient);
        let quotient = self.ins().select(by_zero, zero, quotient);
        if op == BinaryOp::TruncDiv {
            return quotient;
        }
        let product = self.ins().imul(quotient, b);
        let rest = self.ins().isub(a, product);
        let rest = self.ins().select(by_zero, zero, rest);
        if op == BinaryOp::Fmod {
            return rest;
        }
        // Where the rest has not the sign of the divisor, the quotient was rounded up.
        let signs = self.ins().bxor(rest, b);
        let differ = self.ins().icmp_imm_s(IntCC::SignedLessThan, signs, 0);
        let exists = self.ins().icmp_imm_s(IntCC::NotEqual, rest, 0);
        let up = self.ins().band(differ, exists);
        if op == BinaryOp::FloorDiv {
            let below = self.ins().iadd_imm_s(quotient, -1);
            return self.ins().select(up, below, quotient);
        }
        let moved = self.ins().iadd(rest, b);
        self.ins().select(up, moved, rest)
    }

    /// The operation's meaning on `f64`, by a call.
    fn call_unary(&mut self, op: UnaryOp, ty: ScalarType, a: Value) -> Result<Value> {
        let (op, a) = (self.int(op as i64), self.convert_scalar(ty, ScalarType::F64, a));
        let v = self.call_for(Callee::Unary, types::F64, &[op, a])?;
        Ok(self.convert_scalar(ScalarType::F64, ty, v))
    }

    /// The operation's meaning on `f64` or `i64`, by a call.
    fn call_binary(&mut self, op: BinaryOp, ty: ScalarType, a: Value, b: Value) -> Result<Value> {
        let op = self.int(op as i64);
        let (callee, wide, result) = match ty.is_float() {
            true => (Callee::Binary, ScalarType::F64, types::F64),
            false => (Callee::IntegerBinary, ScalarType::I64, types::I64),
        };
        let (a, b) = (self.convert_scalar(ty, wide, a), self.convert_scalar(ty, wide, b));
        let v = self.call_for(callee, result, &[op, a, b])?;
        Ok(self.convert_scalar(wide, ty, v))
    }

    fn compare(&mut self, op: CompareOp, a: ValueId, b: ValueId) -> Result<Val> {
        let ty = self.types[a.index()];
        let result = self.lift(ty, ty, &[a, b], &mut |e, x| {
            Ok(match ty {
                ScalarType::F32 | ScalarType::F64 => e.ins().fcmp(float_condition(op), x[0], x[1]),
                // Masks are 0 and -1, bytes 0 and 1: unsigned order is that of truth values in both.
                ScalarType::Bool => e.ins().icmp(integer_condition(op, false), x[0], x[1]),
                ScalarType::U8 | ScalarType::I32 | ScalarType::I64 => {
                    e.ins().icmp(integer_condition(op, true), x[0], x[1])
                }
            })
        })?;
        Ok(match result {
            Val::Parts(wide) if is_wide(ty) && self.mode.lanes > 1 => Val::Parts(self.narrow(&wide)),
            other => other,
        })
    }

    fn select(&mut self, ty: ScalarType, c: ValueId, a: ValueId, b: ValueId) -> Result<Val> {
        if self.is_uniform(c) {
            let c = self.uniform(c)?;
            return self.lift(ty, ty, &[a, b], &mut |e, x| Ok(e.ins().select(c, x[0], x[1])));
        }
        let mut mask = self.varying(c)?;
        if is_wide(ty) && self.mode.lanes > 1 {
            mask = self.widen(&mask);
        }
        let (a, b) = (self.varying(a)?, self.varying(b)?);
        let parts = mask.iter().zip(a.iter().zip(&b));
        Ok(Val::Parts(parts.map(|(c, (a, b))| self.blend(*c, *a, *b)).collect()))
    }

    fn machine_op(&mut self, ty: ScalarType, op: MachineOp, operands: &[ValueId]) -> Result<Val> {
        match op {
            MachineOp::Fma if self.machine.fma => {
                self.lift(ty, ty, operands, &mut |e, x| Ok(e.ins().fma(x[0], x[1], x[2])))
            }
            MachineOp::Fma => {
                let callee = if ty == ScalarType::F64 { Callee::FmaF64 } else { Callee::FmaF32 };
                self.by_lane(ty, operands, &mut |e, x| e.call_for(callee, scalar_type(ty), x))
            }
            MachineOp::Scale => {
                let result = lazuli_ir::scale(self as &mut dyn Emit, operands[0], operands[1]);
                Ok(self.values[result.index()].val.clone())
            }
            MachineOp::Bits | MachineOp::OfBits => {
                let from = self.types[operands[0].index()];
                self.lift(ty, from, operands, &mut |e, x| {
                    let to = match (ty, e.is_vector(x[0])) {
                        (ScalarType::F32, true) => types::F32X4,
                        (ScalarType::F64, true) => types::F64X2,
                        (ScalarType::I64, true) => types::I64X2,
                        (_, true) => types::I32X4,
                        (_, false) => scalar_type(ty),
                    };
                    Ok(e.cast_bits(to, x[0]))
                })
            }
            MachineOp::ShiftLeft | MachineOp::ShiftRight | MachineOp::ShiftRightLogical => {
                let count = match self.values[operands[1].index()].val {
                    Val::Const(c) => c.as_i64(),
                    Val::Undefined | Val::Scalar(_) | Val::Parts(_) => None,
                };
                let count = count.ok_or_else(|| Error::internal("a shift count is not a constant"))?;
                self.lift(ty, ty, &operands[..1], &mut |e, x| {
                    let count = e.ins().iconst(types::I32, count);
                    Ok(match op {
                        MachineOp::ShiftLeft => e.ins().ishl(x[0], count),
                        MachineOp::ShiftRight => e.ins().sshr(x[0], count),
                        _ => e.ins().ushr(x[0], count),
                    })
                })
            }
            MachineOp::RoundF16 => self.round(Half::F16, operands[0]),
            MachineOp::RoundBF16 => self.round(Half::BF16, operands[0]),
        }
    }

    fn round(&mut self, half: Half, a: ValueId) -> Result<Val> {
        let result = half_code::round(self as &mut dyn Emit, half, a);
        Ok(self.values[result.index()].val.clone())
    }
}

/// Whether an instruction rounds to an integer: x86 has these from SSE4.1 on.
fn rounds(op: NativeUnary) -> bool {
    match op {
        NativeUnary::Ceil | NativeUnary::Floor | NativeUnary::Trunc | NativeUnary::Round => true,
        NativeUnary::Neg | NativeUnary::Abs | NativeUnary::Not | NativeUnary::Sqrt => false,
    }
}

fn wrong(op: BinaryOp, ty: ScalarType) -> Result<Val> {
    Err(Error::internal(format!("{} of {}", op.name(), ty.name())))
}

fn float_condition(op: CompareOp) -> FloatCC {
    match op {
        CompareOp::Eq => FloatCC::Equal,
        CompareOp::Ne => FloatCC::NotEqual,
        CompareOp::Lt => FloatCC::LessThan,
        CompareOp::Le => FloatCC::LessThanOrEqual,
        CompareOp::Gt => FloatCC::GreaterThan,
        CompareOp::Ge => FloatCC::GreaterThanOrEqual,
    }
}

fn integer_condition(op: CompareOp, signed: bool) -> IntCC {
    match (op, signed) {
        (CompareOp::Eq, _) => IntCC::Equal,
        (CompareOp::Ne, _) => IntCC::NotEqual,
        (CompareOp::Lt, true) => IntCC::SignedLessThan,
        (CompareOp::Le, true) => IntCC::SignedLessThanOrEqual,
        (CompareOp::Gt, true) => IntCC::SignedGreaterThan,
        (CompareOp::Ge, true) => IntCC::SignedGreaterThanOrEqual,
        (CompareOp::Lt, false) => IntCC::UnsignedLessThan,
        (CompareOp::Le, false) => IntCC::UnsignedLessThanOrEqual,
        (CompareOp::Gt, false) => IntCC::UnsignedGreaterThan,
        (CompareOp::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
    }
}
