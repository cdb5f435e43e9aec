//! The scalar meaning of graph operations in Kernel IR: written once, for fused kernels and for those of single primitives.

use lazuli_ir::kernel::{Emit, Expr, MachineOp, ScalarType, ValueId};
use lazuli_ir::program::Requirement;
use lazuli_ir::{BinaryOp, CompareOp, DType, Error, Index, Literal, Op, Result, Shape, UnaryOp};

/// The linear index of an element of `shape`.
pub(crate) fn linear(index: &[Index], shape: &Shape) -> Index {
    index.iter().zip(shape.strides()).fold(Index::default(), |l, (x, s)| l.add_scaled(x, s))
}

/// What an operation requires of one of its operands, and which; `dtype` is that of its result.
pub(crate) fn requirement(op: &Op, dtype: DType) -> Option<(Requirement, usize)> {
    match op {
        Op::Binary(op) if op.divides() && dtype.is_int() => Some((Requirement::Divisor, 1)),
        Op::CheckIndex { extent, wrap, .. } => Some((Requirement::Index { extent: *extent, wrap: *wrap }, 0)),
        _ => None,
    }
}

/// Writes whether a value meets a requirement (or is masked off), and the value as `i64`.
pub(crate) fn check(
    e: &mut dyn Emit,
    requirement: Requirement,
    value: ValueId,
    mask: Option<ValueId>,
) -> (ValueId, ValueId) {
    let mut ok = match requirement {
        Requirement::Divisor => {
            let zero = e.number(value, 0.0);
            e.compare(CompareOp::Ne, value, zero)
        }
        Requirement::Index { extent, wrap } => {
            let n = extent as i64;
            let (low, high) = (e.i64(if wrap { -n } else { 0 }), e.i64(n));
            let (above, below) = (e.compare(CompareOp::Ge, value, low), e.lt(value, high));
            e.binary(BinaryOp::And, above, below)
        }
    };
    if let Some(mask) = mask {
        let truth = e.constant(Literal::Bool(true));
        let off = e.binary(BinaryOp::Xor, mask, truth);
        ok = e.binary(BinaryOp::Or, ok, off);
    }
    let value = if e.type_of(value) == ScalarType::I64 { value } else { e.convert(ScalarType::I64, value) };
    (ok, value)
}

/// A result as its dtype holds it: halves are rounded.
pub(crate) fn rounded(e: &mut dyn Emit, dtype: DType, value: ValueId) -> ValueId {
    match dtype {
        DType::F16 => e.machine(MachineOp::RoundF16, &[value]),
        DType::BF16 => e.machine(MachineOp::RoundBF16, &[value]),
        DType::Bool | DType::U8 | DType::I32 | DType::I64 | DType::F32 | DType::F64 => value,
    }
}

/// Whether an operation on halves gives a value that its `f32` form has already.
fn is_exact(op: &Op) -> bool {
    match op {
        Op::Unary(op) => matches!(
            op,
            UnaryOp::Neg
                | UnaryOp::Abs
                | UnaryOp::Sign
                | UnaryOp::Ceil
                | UnaryOp::Floor
                | UnaryOp::Trunc
                | UnaryOp::Round
        ),
        Op::Binary(op) => matches!(op, BinaryOp::Max | BinaryOp::Min | BinaryOp::Copysign),
        Op::Cast(_) | Op::Random { .. } => false,
        _ => true,
    }
}

/// Writes an elementwise operation on scalars: the one meaning of graph operations in Kernel IR. `index` is the element's
/// index in the result, of `shape`.
pub(crate) fn scalar_operation(
    e: &mut dyn Emit,
    op: &Op,
    dtype: DType,
    operands: &[ValueId],
    index: &[Index],
    shape: &Shape,
) -> Result<ValueId> {
    let ty: ScalarType = dtype.into();
    let value = match (op, operands) {
        (Op::Unary(op), [a]) => e.unary(*op, *a),
        (Op::Binary(op), [a, b]) => e.binary(*op, *a, *b),
        (Op::Compare(op), [a, b]) => e.compare(*op, *a, *b),
        (Op::Select, [c, a, b]) => e.select(*c, *a, *b),
        (Op::Cast(_), [a]) if e.type_of(*a) == ty => *a,
        // To a half through `f32`, whatever comes.
        (Op::Cast(_), [a]) => e.convert(ty, *a),
        // Padding that turned out to be nothing.
        (Op::Pad(_), [x, _]) => *x,
        (Op::Pad(_), [inside, x, value]) => e.select(*inside, *x, *value),
        (Op::Concat { .. }, [.., last]) => {
            let mut value = *last;
            for pair in operands.chunks_exact(2).rev().skip(1) {
                value = e.select(pair[0], pair[1], value);
            }
            value
        }
        (Op::DynamicUpdateSlice { .. }, [x]) => *x,
        (Op::DynamicUpdateSlice { .. }, [x, covered, update]) => e.select(*covered, *update, *x),
        (Op::CheckIndex { extent, wrap, .. }, [x]) => checked_index(e, *extent as i64, *wrap, *x),
        (Op::Random { stream, .. }, [seed, draws]) => {
            let stream = e.i64(*stream as i64);
            let draw = e.add(*draws, stream);
            let element = e.emit(ScalarType::I64, Expr::Index(linear(index, shape)));
            e.emit(ScalarType::F32, Expr::Random(*seed, draw, element))
        }
        _ => {
            return Err(Error::internal(format!(
                "{} of {} operands is no scalar operation",
                op.name(),
                operands.len()
            )));
        }
    };
    Ok(if is_exact(op) { value } else { rounded(e, dtype, value) })
}

/// An index that is in range: wrapped, and where the check fails clamped.
fn checked_index(e: &mut dyn Emit, extent: i64, wrap: bool, x: ValueId) -> ValueId {
    let (zero, n, last) = (e.i64(0), e.i64(extent), e.i64((extent - 1).max(0)));
    let mut value = x;
    if wrap {
        let negative = e.lt(x, zero);
        let wrapped = e.add(x, n);
        value = e.select(negative, wrapped, x);
    }
    let below = e.lt(value, zero);
    value = e.select(below, zero, value);
    let above = e.lt(last, value);
    e.select(above, last, value)
}
