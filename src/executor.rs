//! Runs one primitive on arrays: the executor behind eager evaluation.

use lazuli_ir::reference::{Dense, apply};
use lazuli_ir::{DType, Op, Result, TensorType};
use lazuli_runtime::Array;

/// The value of `op`, of type `ty`, on these operands.
pub(crate) fn run(op: &Op, _ty: &TensorType, operands: &[&Array]) -> Result<Array> {
    let operands = operands.iter().map(|a| dense(a)).collect::<Result<Vec<Dense>>>()?;
    array(&apply(op, &operands.iter().collect::<Vec<_>>())?)
}

fn dense(array: &Array) -> Result<Dense> {
    let shape = array.shape().clone();
    match array.dtype() {
        DType::Bool => Dense::from_vec(array.to_vec::<bool>()?, shape),
        DType::I64 => Dense::from_vec(array.to_vec::<i64>()?, shape),
        DType::F32 => Dense::from_vec(array.to_vec::<f32>()?, shape),
    }
}

fn array(dense: &Dense) -> Result<Array> {
    let TensorType { shape, dtype } = dense.ty();
    match dtype {
        DType::Bool => Array::from_vec(dense.to_vec::<bool>()?, shape),
        DType::I64 => Array::from_vec(dense.to_vec::<i64>()?, shape),
        DType::F32 => Array::from_vec(dense.to_vec::<f32>()?, shape),
    }
}
