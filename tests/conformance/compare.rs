//! Equality of tensors within PyTorch's tolerances, with a message that says where they differ.

use lazuli::{DType, Tensor};

/// Operators that need more than `f32`'s own tolerance: names, relative, absolute, and why.
const LOOSER: &[(&[&str], f64, f64, &str)] = &[
    (
        &["pow"],
        5e-6,
        1e-5,
        "gradients take the exponent less one, whose rounding in f32 the logarithm of the base multiplies",
    ),
    (CONTRACTIONS, 1.3e-6, 5e-5, "sums of products near 80 that cancel, in f32"),
    (
        &["nn.functional.scaled_dot_product_attention"],
        5e-6,
        5e-5,
        "scores near 100; PyTorch's own f32 gradients are off by 1.3e-4",
    ),
];

const CONTRACTIONS: &[&str] = &[
    "addmm",
    "addmv",
    "baddbmm",
    "bmm",
    "dot",
    "einsum",
    "inner",
    "linalg.multi_dot",
    "matmul",
    "mm",
    "mv",
    "nn.functional.conv1d",
    "nn.functional.conv2d",
    "nn.functional.conv3d",
    "nn.functional.conv_transpose1d",
    "nn.functional.conv_transpose2d",
    "nn.functional.linear",
    "tensordot",
];

/// The relative and absolute tolerance: those of `torch.testing.assert_close`.
fn tolerance(op: &str, dtype: DType) -> (f64, f64) {
    match (LOOSER.iter().find(|(names, ..)| names.contains(&op)), dtype) {
        (_, DType::Bool | DType::U8 | DType::I32 | DType::I64) => (0.0, 0.0),
        (Some((_, relative, absolute, _)), DType::F32) => (*relative, *absolute),
        (_, DType::F16) => (1e-3, 1e-5),
        (_, DType::BF16) => (1.6e-2, 1e-5),
        (None, DType::F32) => (1.3e-6, 1e-5),
        (_, DType::F64) => (1e-7, 1e-7),
    }
}

/// Whether the shapes, dtypes and values agree; NaN equals NaN.
pub fn same(op: &str, found: &Tensor, expected: &Tensor) -> Result<(), String> {
    found.check().map_err(|e| e.to_string())?;
    let ty = |t: &Tensor| format!("{}{:?}", t.dtype(), t.shape());
    if ty(found) != ty(expected) {
        return Err(format!("{}, expected {}", ty(found), ty(expected)));
    }
    let (relative, absolute) = tolerance(op, expected.dtype());
    let differs = |(a, b): (f64, f64)| {
        let close = a.is_finite() && b.is_finite() && (a - b).abs() <= absolute + relative * b.abs();
        !(close || a == b || a.is_nan() && b.is_nan())
    };
    let (a, b) = (values(found)?, values(expected)?);
    let different: Vec<usize> = (0..a.len()).filter(|&i| differs((a[i], b[i]))).collect();
    match different.first() {
        None => Ok(()),
        Some(&i) => Err(format!(
            "{} of {} elements differ, the first at {:?}: {}, expected {}",
            different.len(),
            a.len(),
            position(i, &expected.shape()),
            a[i],
            b[i]
        )),
    }
}

/// The elements, exactly: integers of the samples are far below 2^53.
fn values(t: &Tensor) -> Result<Vec<f64>, String> {
    t.to(DType::F64).to_vec::<f64>().map_err(|e| e.to_string())
}

/// The index of the `i`th element.
fn position(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (at, &extent) in index.iter_mut().zip(shape).rev() {
        *at = i % extent.max(1);
        i /= extent.max(1);
    }
    index
}
