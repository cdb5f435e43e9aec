//! Arithmetic: the same meaning bit for bit in scalars and in vectors.

use super::Emitter;
use super::value::{Parts, Val};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use lazuli_ir::kernel::{Const, Emit, Expr, MachineOp, ScalarType, ValueId};
use lazuli_ir::{BinaryOp, CompareOp, Error, Literal, NativeUnary, Result, UnaryCode};

impl Emitter<'_> {
    /// Emits an expression.
    pub(super) fn expr(&mut self, ty: ScalarType, expr: &Expr) -> Result<Val> {
        match expr {
            Expr::Const(c) => Ok(Val::Const(*c)),
            Expr::Scalar(s) => Ok(Val::Scalar(self.scalars[s.index()])),
            Expr::Index(index) => self.index_value(index),
            Expr::Load { from, index, mask } => self.load(ty, *from, index, *mask),
            Expr::Unary(op, a) => match op.row().code {
                UnaryCode::Native(native) => self.native(native, ty, *a),
                UnaryCode::Expand(code) if ty == ScalarType::F32 => {
                    let result = code(self as &mut dyn Emit, *a);
                    Ok(self.values[result.index()].val.clone())
                }
                UnaryCode::Expand(_) => Err(Error::internal(format!("{} of {}", op.name(), ty.name()))),
            },
            Expr::Binary(op, a, b) => {
                let op = *op;
                self.lift(ty, ty, &[*a, *b], &mut |e, x| e.binary(op, ty, x[0], x[1]))
            }
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

    /// Applies `f` once where all operands are uniform, else to the values of each part. All operands are of type `from`.
    fn lift(
        &mut self,
        to: ScalarType,
        from: ScalarType,
        operands: &[ValueId],
        f: &mut dyn FnMut(&mut Self, &[Value]) -> Result<Value>,
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

    fn is_vector(&self, v: Value) -> bool {
        self.func.dfg.value_type(v).is_vector()
    }

    fn native(&mut self, op: NativeUnary, ty: ScalarType, a: ValueId) -> Result<Val> {
        self.lift(ty, ty, &[a], &mut |e, x| {
            let a = x[0];
            Ok(match (op, ty) {
                // The sign is flipped or cleared by hand: a vector fneg builds its mask in each iteration.
                (NativeUnary::Neg, ScalarType::F32) if e.is_vector(a) => {
                    let sign = e.vector_constant(types::F32X4, [1 << 31; 4]);
                    e.ins().bxor(a, sign)
                }
                (NativeUnary::Abs, ScalarType::F32) if e.is_vector(a) => {
                    let rest = e.vector_constant(types::F32X4, [!(1 << 31); 4]);
                    e.ins().band(a, rest)
                }
                (NativeUnary::Neg, ScalarType::F32) => e.ins().fneg(a),
                (NativeUnary::Abs, ScalarType::F32) => e.ins().fabs(a),
                (NativeUnary::Sqrt, ScalarType::F32) => e.ins().sqrt(a),
                (NativeUnary::Neg, ScalarType::I32 | ScalarType::I64) => e.ins().ineg(a),
                (NativeUnary::Abs, ScalarType::I32 | ScalarType::I64) => e.ins().iabs(a),
                (NativeUnary::Neg | NativeUnary::Abs | NativeUnary::Sqrt, _) => {
                    return Err(Error::internal(format!("{op:?} of {}", ty.name())));
                }
            })
        })
    }

    /// `c ? a : b` on one value each, `c` being a mask as wide as the operands.
    fn blend(&mut self, c: Value, a: Value, b: Value) -> Value {
        let ty = self.func.dfg.value_type(a);
        if !ty.is_vector() {
            return self.ins().select(c, a, b);
        }
        let c = self.cast_bits(ty, c);
        self.ins().bitselect(c, a, b)
    }

    fn binary(&mut self, op: BinaryOp, ty: ScalarType, a: Value, b: Value) -> Result<Value> {
        Ok(match (op, ty) {
            (BinaryOp::Add, ScalarType::F32) => self.ins().fadd(a, b),
            (BinaryOp::Sub, ScalarType::F32) => self.ins().fsub(a, b),
            (BinaryOp::Mul, ScalarType::F32) => self.ins().fmul(a, b),
            (BinaryOp::Div, ScalarType::F32) => self.ins().fdiv(a, b),
            // One minps or maxps, then the operand's NaN.
            (BinaryOp::Max, ScalarType::F32) => {
                let less = self.ins().fcmp(FloatCC::LessThan, b, a);
                let m = self.blend(less, a, b);
                let nan = self.ins().fcmp(FloatCC::Unordered, a, a);
                self.blend(nan, a, m)
            }
            (BinaryOp::Min, ScalarType::F32) => {
                let less = self.ins().fcmp(FloatCC::LessThan, a, b);
                let m = self.blend(less, a, b);
                let nan = self.ins().fcmp(FloatCC::Unordered, a, a);
                self.blend(nan, a, m)
            }
            (BinaryOp::Add, ScalarType::I32 | ScalarType::I64) => self.ins().iadd(a, b),
            (BinaryOp::Sub, ScalarType::I32 | ScalarType::I64) => self.ins().isub(a, b),
            (BinaryOp::Mul, ScalarType::I32 | ScalarType::I64) => self.ins().imul(a, b),
            (BinaryOp::Max, ScalarType::I32 | ScalarType::I64) => {
                let greater = self.ins().icmp(IntCC::SignedGreaterThan, a, b);
                self.blend(greater, a, b)
            }
            (BinaryOp::Min, ScalarType::I32 | ScalarType::I64) => {
                let less = self.ins().icmp(IntCC::SignedLessThan, a, b);
                self.blend(less, a, b)
            }
            (BinaryOp::Max | BinaryOp::Add, ScalarType::Bool) => self.ins().bor(a, b),
            (BinaryOp::Min | BinaryOp::Mul, ScalarType::Bool) => self.ins().band(a, b),
            (BinaryOp::Sub, ScalarType::Bool)
            | (BinaryOp::Div, ScalarType::Bool | ScalarType::I32 | ScalarType::I64) => {
                return Err(Error::internal(format!("{} of {}", op.name(), ty.name())));
            }
        })
    }

    fn compare(&mut self, op: CompareOp, a: ValueId, b: ValueId) -> Result<Val> {
        let ty = self.types[a.index()];
        let compare = |e: &mut Self, x: &[Value]| {
            Ok(match ty {
                ScalarType::F32 => e.ins().fcmp(float_condition(op), x[0], x[1]),
                // Masks are 0 and -1, bytes 0 and 1: unsigned order is that of truth values in both.
                ScalarType::Bool => e.ins().icmp(integer_condition(op, false), x[0], x[1]),
                ScalarType::I32 | ScalarType::I64 => e.ins().icmp(integer_condition(op, true), x[0], x[1]),
            })
        };
        let result = self.lift(ty, ty, &[a, b], &mut { compare })?;
        Ok(match result {
            Val::Parts(wide) if ty == ScalarType::I64 && self.mode.lanes > 1 => Val::Parts(self.narrow(&wide)),
            other => other,
        })
    }

    /// Pairs of vectors of two 64-bit lanes as vectors of the low halves of four.
    fn narrow(&mut self, wide: &[Value]) -> Parts {
        let halves = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27u8];
        let mut out = Parts::new();
        for pair in wide.chunks(2) {
            let low = self.cast_bits(types::I8X16, pair[0]);
            let high = self.cast_bits(types::I8X16, pair[1]);
            let mask = self.func.dfg.immediates.push(halves.as_slice().into());
            let bytes = self.ins().shuffle(low, high, mask);
            out.push(self.cast_bits(types::I32X4, bytes));
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

    fn select(&mut self, ty: ScalarType, c: ValueId, a: ValueId, b: ValueId) -> Result<Val> {
        if self.is_uniform(c) {
            let c = self.uniform(c)?;
            return self.lift(ty, ty, &[a, b], &mut |e, x| Ok(e.ins().select(c, x[0], x[1])));
        }
        let mut mask = self.varying(c)?;
        if ty == ScalarType::I64 && self.mode.lanes > 1 {
            mask = self.widen(&mask);
        }
        let (a, b) = (self.varying(a)?, self.varying(b)?);
        let parts = mask.iter().zip(a.iter().zip(&b));
        Ok(Val::Parts(parts.map(|(c, (a, b))| self.blend(*c, *a, *b)).collect()))
    }

    fn convert(&mut self, to: ScalarType, a: ValueId) -> Result<Val> {
        let from = self.types[a.index()];
        if from == to {
            return Ok(self.values[a.index()].val.clone());
        }
        if self.is_uniform(a) || self.mode.lanes == 1 {
            return self.lift(to, from, &[a], &mut |e, x| Ok(e.convert_scalar(from, to, x[0])));
        }
        let a = self.varying(a)?;
        Ok(Val::Parts(match (from, to) {
            (ScalarType::Bool, ScalarType::F32) => {
                let one = self.vector_constant(types::F32X4, [1f32.to_bits(); 4]);
                let mut out = Parts::new();
                for v in a {
                    let v = self.cast_bits(types::F32X4, v);
                    out.push(self.ins().band(v, one));
                }
                out
            }
            (ScalarType::Bool, ScalarType::I32 | ScalarType::I64) => {
                let ones: Parts = a.iter().map(|v| self.ins().ineg(*v)).collect();
                if to == ScalarType::I64 { self.widen(&ones) } else { ones }
            }
            (ScalarType::I32, ScalarType::I64) => self.widen(&a),
            (ScalarType::I64, ScalarType::I32) => self.narrow(&a),
            (ScalarType::I32, ScalarType::F32) => {
                a.iter().map(|v| self.ins().fcvt_from_sint(types::F32X4, *v)).collect()
            }
            (ScalarType::F32, ScalarType::I32) => {
                a.iter().map(|v| self.ins().fcvt_to_sint_sat(types::I32X4, *v)).collect()
            }
            (ScalarType::F32, ScalarType::Bool) => {
                let zero = self.vector_constant(types::F32X4, [0; 4]);
                a.iter().map(|v| self.ins().fcmp(FloatCC::NotEqual, *v, zero)).collect()
            }
            (ScalarType::I32 | ScalarType::I64, ScalarType::Bool) => {
                let zero = self.vector_constant(self.mode.ty(from), [0; 4]);
                let wide: Parts = a.iter().map(|v| self.ins().icmp(IntCC::NotEqual, *v, zero)).collect();
                if from == ScalarType::I64 { self.narrow(&wide) } else { wide }
            }
            (ScalarType::I64, ScalarType::F32) | (ScalarType::F32, ScalarType::I64) => {
                return self.convert_lanes(from, to, &Val::Parts(a));
            }
            (ScalarType::Bool, ScalarType::Bool)
            | (ScalarType::I32, ScalarType::I32)
            | (ScalarType::I64, ScalarType::I64)
            | (ScalarType::F32, ScalarType::F32) => a,
        }))
    }

    fn convert_lanes(&mut self, from: ScalarType, to: ScalarType, a: &Val) -> Result<Val> {
        let mut lanes = Parts::new();
        for lane in 0..self.mode.total() {
            let v = self.lane_of_val(a, from, lane)?;
            lanes.push(self.convert_scalar(from, to, v));
        }
        Ok(self.gather_lanes(to, &lanes))
    }

    fn convert_scalar(&mut self, from: ScalarType, to: ScalarType, a: Value) -> Value {
        match (from, to) {
            (ScalarType::Bool, ScalarType::F32) => {
                let wide = self.ins().uextend(types::I32, a);
                self.ins().fcvt_from_sint(types::F32, wide)
            }
            (ScalarType::Bool, ScalarType::I32) => self.ins().uextend(types::I32, a),
            (ScalarType::Bool, ScalarType::I64) => self.ins().uextend(types::I64, a),
            (ScalarType::I32, ScalarType::I64) => self.ins().sextend(types::I64, a),
            (ScalarType::I64, ScalarType::I32) => self.ins().ireduce(types::I32, a),
            (ScalarType::I32 | ScalarType::I64, ScalarType::F32) => self.ins().fcvt_from_sint(types::F32, a),
            (ScalarType::F32, ScalarType::I32) => self.ins().fcvt_to_sint_sat(types::I32, a),
            (ScalarType::F32, ScalarType::I64) => self.ins().fcvt_to_sint_sat(types::I64, a),
            (ScalarType::I32 | ScalarType::I64, ScalarType::Bool) => self.ins().icmp_imm_s(IntCC::NotEqual, a, 0),
            (ScalarType::F32, ScalarType::Bool) => {
                let zero = self.ins().f32const(0.0);
                self.ins().fcmp(FloatCC::NotEqual, a, zero)
            }
            (ScalarType::Bool, ScalarType::Bool)
            | (ScalarType::I32, ScalarType::I32)
            | (ScalarType::I64, ScalarType::I64)
            | (ScalarType::F32, ScalarType::F32) => a,
        }
    }

    fn machine_op(&mut self, ty: ScalarType, op: MachineOp, operands: &[ValueId]) -> Result<Val> {
        let fused = self.machine.fma;
        match op {
            MachineOp::Fma => self.lift(ty, ty, operands, &mut |e, x| {
                if fused {
                    return Ok(e.ins().fma(x[0], x[1], x[2]));
                }
                let product = e.ins().fmul(x[0], x[1]);
                Ok(e.ins().fadd(product, x[2]))
            }),
            MachineOp::BitsOfF32 | MachineOp::F32OfBits => {
                let from = self.types[operands[0].index()];
                self.lift(ty, from, operands, &mut |e, x| {
                    let vector = e.is_vector(x[0]);
                    let to = match (ty, vector) {
                        (ScalarType::F32, true) => types::F32X4,
                        (ScalarType::F32, false) => types::F32,
                        (_, true) => types::I32X4,
                        (_, false) => types::I32,
                    };
                    Ok(e.cast_bits(to, x[0]))
                })
            }
            MachineOp::And => self.lift(ty, ty, operands, &mut |e, x| Ok(e.ins().band(x[0], x[1]))),
            MachineOp::Or => self.lift(ty, ty, operands, &mut |e, x| Ok(e.ins().bor(x[0], x[1]))),
            MachineOp::Xor => self.lift(ty, ty, operands, &mut |e, x| Ok(e.ins().bxor(x[0], x[1]))),
            MachineOp::ShiftLeft | MachineOp::ShiftRight | MachineOp::ShiftRightLogical => {
                let count = match self.values[operands[1].index()].val {
                    Val::Const(Const::I32(c)) => i64::from(c),
                    Val::Const(Const::Literal(Literal::I64(c))) => c,
                    _ => return Err(Error::internal("a shift count is not a constant")),
                };
                self.lift(ty, ty, &operands[..1], &mut |e, x| {
                    let count = e.ins().iconst(types::I32, count);
                    Ok(match op {
                        MachineOp::ShiftLeft => e.ins().ishl(x[0], count),
                        MachineOp::ShiftRight => e.ins().sshr(x[0], count),
                        _ => e.ins().ushr(x[0], count),
                    })
                })
            }
        }
    }
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
