//! Writing straight-line kernel code: one interface for builders of kernels and for emitters, so that an expansion is written
//! once and becomes statements or machine code alike.

use crate::kernel::{Expr, MachineOp, ScalarType, ValueId};
use crate::{BinaryOp, CompareOp, Literal, UnaryOp};

/// Something that straight-line code can be written to: a block under construction, or an emitter.
pub trait Emit {
    /// Defines a value of a type.
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId;

    /// The type of a value.
    fn type_of(&self, v: ValueId) -> ScalarType;
}

#[allow(missing_docs)]
impl dyn Emit + '_ {
    pub fn constant(&mut self, c: Literal) -> ValueId {
        self.emit(c.scalar_type(), Expr::Const(c))
    }
    pub fn f32(&mut self, v: f32) -> ValueId {
        self.constant(Literal::F32(v))
    }
    pub fn number(&mut self, like: ValueId, v: f64) -> ValueId {
        self.constant(Literal::from_f64(self.type_of(like).dtype(), v))
    }
    pub fn i32(&mut self, v: i32) -> ValueId {
        self.constant(Literal::I32(v))
    }
    pub fn i64(&mut self, v: i64) -> ValueId {
        self.constant(Literal::I64(v))
    }
    /// An integer of the type of a value.
    pub fn integer(&mut self, like: ValueId, v: i64) -> ValueId {
        self.constant(if self.type_of(like) == ScalarType::I64 { Literal::I64(v) } else { Literal::I32(v as i32) })
    }
    pub fn unary(&mut self, op: UnaryOp, a: ValueId) -> ValueId {
        self.emit(self.type_of(a), Expr::Unary(op, a))
    }
    pub fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        match (self.type_of(a), op) {
            (ScalarType::Bool, BinaryOp::Max) => self.emit(ScalarType::Bool, Expr::Binary(BinaryOp::Or, a, b)),
            (ScalarType::Bool, BinaryOp::Min) => self.emit(ScalarType::Bool, Expr::Binary(BinaryOp::And, a, b)),
            (ty, _) => self.emit(ty, Expr::Binary(op, a, b)),
        }
    }
    pub fn compare(&mut self, op: CompareOp, a: ValueId, b: ValueId) -> ValueId {
        self.emit(ScalarType::Bool, Expr::Compare(op, a, b))
    }
    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(BinaryOp::Add, a, b)
    }
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(BinaryOp::Sub, a, b)
    }
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(BinaryOp::Mul, a, b)
    }
    pub fn div(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(BinaryOp::Div, a, b)
    }
    pub fn max(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(BinaryOp::Max, a, b)
    }
    pub fn neg(&mut self, a: ValueId) -> ValueId {
        self.unary(UnaryOp::Neg, a)
    }
    pub fn abs(&mut self, a: ValueId) -> ValueId {
        self.unary(UnaryOp::Abs, a)
    }
    pub fn sqrt(&mut self, a: ValueId) -> ValueId {
        self.unary(UnaryOp::Sqrt, a)
    }
    pub fn eq(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.compare(CompareOp::Eq, a, b)
    }
    pub fn lt(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.compare(CompareOp::Lt, a, b)
    }
    pub fn le(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.compare(CompareOp::Le, a, b)
    }
    pub fn select(&mut self, c: ValueId, a: ValueId, b: ValueId) -> ValueId {
        self.emit(self.type_of(a), Expr::Select(c, a, b))
    }
    pub fn convert(&mut self, to: ScalarType, a: ValueId) -> ValueId {
        self.emit(to, Expr::Convert(a))
    }
    pub fn fma(&mut self, a: ValueId, b: ValueId, c: ValueId) -> ValueId {
        self.machine(MachineOp::Fma, &[a, b, c])
    }
    pub fn machine(&mut self, op: MachineOp, operands: &[ValueId]) -> ValueId {
        let ty = op.result(self.type_of(operands[0]));
        self.emit(ty, Expr::Machine(op, operands.iter().copied().collect()))
    }
}
