//! Functions that generated code calls where no instructions stand for an operation: its meaning, as the table of operations
//! has it.

use lazuli_ir::{BinaryOp, DType, UnaryOp};

/// A unary operation on `f64`; `op` is its number.
pub(crate) extern "C" fn unary(op: i64, x: f64) -> f64 {
    UnaryOp::ALL.get(op as usize).map_or(f64::NAN, |op| (op.row().float)(x))
}

/// A binary operation on `f64`.
pub(crate) extern "C" fn binary(op: i64, a: f64, b: f64) -> f64 {
    BinaryOp::ALL.get(op as usize).map_or(f64::NAN, |op| op.float(a, b))
}

/// A binary operation on integers of any type, before wrapping.
pub(crate) extern "C" fn integer_binary(op: i64, a: i64, b: i64) -> i64 {
    BinaryOp::ALL.get(op as usize).map_or(0, |op| op.int(DType::I64, a, b))
}

/// `a * b + c`, rounded once, for machines without the instruction.
pub(crate) extern "C" fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// As [`fma_f32`].
pub(crate) extern "C" fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    a.mul_add(b, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_numbered_as_listed() {
        assert!(UnaryOp::ALL.iter().enumerate().all(|(i, op)| *op as usize == i));
        assert!(BinaryOp::ALL.iter().enumerate().all(|(i, op)| *op as usize == i));
    }
}
