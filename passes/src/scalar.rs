//! The scalar meaning of graph operations in Kernel IR: written once, for fused kernels and for those of single primitives.

use lazuli_ir::kernel::{Emit, Expr, ScalarType, ValueId};
use lazuli_ir::{DType, Error, Index, Op, Result, Shape};

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
    Ok(match (op, operands) {
        (Op::Unary(op), [a]) => e.unary(*op, *a),
        (Op::Binary(op), [a, b]) => e.binary(*op, *a, *b),
        (Op::Compare(op), [a, b]) => e.compare(*op, *a, *b),
        (Op::Select, [c, a, b]) => e.select(*c, *a, *b),
        (Op::Cast(_), [a]) if e.type_of(*a) == ty => *a,
        (Op::Cast(_), [a]) => e.convert(ty, *a),
        // Padding that turned out to be nothing.
        (Op::Pad(_), [x, _]) => *x,
        (Op::Pad(_), [inside, x, value]) => e.select(*inside, *x, *value),
        (Op::Random { stream, .. }, [seed, draws]) => {
            let stream = e.i64(*stream as i64);
            let draw = e.add(*draws, stream);
            let element = index.iter().zip(shape.strides()).fold(Index::default(), |l, (x, s)| l.add_scaled(x, s));
            let element = e.emit(ScalarType::I64, Expr::Index(element));
            e.emit(ScalarType::F32, Expr::Random(*seed, draw, element))
        }
        _ => {
            return Err(Error::internal(format!(
                "{} of {} operands is no scalar operation",
                op.name(),
                operands.len()
            )));
        }
    })
}
