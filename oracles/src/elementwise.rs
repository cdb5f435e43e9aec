//! Elementwise operators of random programs. Integers are divided by what cannot be 0.

use crate::program::{Bounded, Fault, Maker};
use lazuli_ir::{BinaryOp, CompareOp, DType, Literal, Op, TensorType, UnaryOp, Value};

impl Maker {
    pub(crate) fn draw(&mut self, base: Value) -> Option<Bounded> {
        let base = match self.ty(base) == TensorType::new([2], DType::I64) {
            true => base,
            false => self.like(&TensorType::new([2], DType::I64))?.0,
        };
        let (stream, shape) = (self.random.below(5) as u64, self.shape());
        self.add(Op::Random { stream, shape }, &[base], 1.0)
    }

    pub(crate) fn unary(&mut self, op: UnaryOp, x: Value, limit: f64) -> Option<Bounded> {
        let unsigned = self.ty(x).dtype == DType::U8;
        let limit = match op {
            UnaryOp::Sign => 1.0,
            UnaryOp::Neg | UnaryOp::Not if unsigned => 255.0,
            UnaryOp::Not => limit + 1.0,
            _ => limit,
        };
        self.add(Op::Unary(op), &[x], limit)
    }

    pub(crate) fn binary(&mut self, op: BinaryOp, x: Value, limit: f64) -> Option<Bounded> {
        let ty = self.ty(x);
        if op.divides() && (self.exact() || ty.dtype.is_int()) {
            let (b, lb) = self.divisor(&ty)?;
            let limit = if matches!(op, BinaryOp::Remainder | BinaryOp::Fmod) { lb } else { limit + 1.0 };
            return self.add(Op::Binary(op), &[x, b], limit);
        }
        let (y, other) = self.like(&ty)?;
        let (a, b) = if self.random.one_in(3) { (y, x) } else { (x, y) };
        let largest = limit.max(other);
        let limit = match op {
            BinaryOp::Sub if ty.dtype == DType::U8 => 255.0,
            BinaryOp::Add | BinaryOp::Sub => limit + other,
            BinaryOp::Mul => limit * other,
            BinaryOp::Max | BinaryOp::Min | BinaryOp::Copysign | BinaryOp::ShiftRight => largest,
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => 2.0 * largest + 1.0,
            BinaryOp::Div | BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Hypot | BinaryOp::ShiftLeft => f64::INFINITY,
            BinaryOp::Remainder | BinaryOp::Fmod | BinaryOp::FloorDiv | BinaryOp::TruncDiv => f64::INFINITY,
        };
        self.add(Op::Binary(op), &[a, b], limit)
    }

    /// A value of this type without zeros: of integers one that no rounding elsewhere can make 0.
    fn divisor(&mut self, ty: &TensorType) -> Option<Bounded> {
        let one = Literal::one(ty.dtype);
        let kind = self.random.below(4);
        if kind == 0 && self.may_add_input() && ty.dtype.is_int() {
            let elements = (0..ty.shape.elements()).map(|_| {
                let small = 1 + self.random.below(8) as i64;
                Literal::from_i64(ty.dtype, if ty.dtype != DType::U8 && self.random.one_in(2) { -small } else { small })
            });
            let values = crate::data::of_literals(ty, elements.collect());
            self.faults.push(Fault { input: self.inputs.len(), value: Literal::zero(ty.dtype) });
            return Some(self.input_of(values, 8.0));
        }
        if kind == 1 {
            let value = Literal::from_i64(ty.dtype, 1 + self.random.below(8) as i64);
            return self.splat(value, &ty.shape).map(|v| (v, 8.0));
        }
        let (y, limit) = self.like(ty)?;
        let ones = self.splat(one, &ty.shape)?;
        if ty.dtype.is_int() && kind == 2 {
            return self.add(Op::Binary(BinaryOp::Or), &[y, ones], 2.0 * limit + 1.0);
        }
        let (y, limit) = self.add(Op::Unary(UnaryOp::Abs), &[y], limit)?;
        self.add(Op::Binary(BinaryOp::Max), &[y, ones], limit.max(1.0))
    }

    pub(crate) fn compare(&mut self, op: CompareOp, x: Value) -> Option<Bounded> {
        let (y, _) = self.like(&self.ty(x))?;
        self.add(Op::Compare(op), &[x, y], 1.0)
    }

    pub(crate) fn choice(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let ty = self.ty(x);
        let (y, other) = self.like(&ty)?;
        let compare = Op::Compare(self.random.pick(CompareOp::ALL)?);
        let (c, _) = match self.random.one_in(2) {
            true => self.add(compare, &[x, y], 1.0)?,
            false => self.like(&TensorType { shape: ty.shape, dtype: DType::Bool })?,
        };
        self.add(Op::Select, &[c, x, y], limit.max(other))
    }
}
