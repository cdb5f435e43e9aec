//! Transposes large enough to walk in squares, alone and within other operations, against plain loops: every order of dims, edges
//! of squares, and results whose dims a reshape merges.

use lazuli::Result;
use lazuli::prelude::*;

const SHAPES: [[usize; 3]; 6] = [[3, 65, 70], [64, 2, 128], [33, 40, 8], [8, 64, 64], [130, 9, 32], [5, 1, 600]];
const ORDERS: [[usize; 3]; 5] = [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The elements of a row-major array in another order of dims.
fn permuted(x: &[f32], shape: [usize; 3], order: [usize; 3]) -> Vec<f32> {
    let strides = [shape[1] * shape[2], shape[2], 1];
    let (n, s) = (order.map(|d| shape[d]), order.map(|d| strides[d]));
    let at = |i: usize, j: usize, k: usize| x[i * s[0] + j * s[1] + k * s[2]];
    let rows = (0..n[0]).flat_map(|i| (0..n[1]).map(move |j| (i, j)));
    rows.flat_map(|(i, j)| (0..n[2]).map(move |k| at(i, j, k))).collect()
}

#[test]
fn dims_change_their_order() -> Result<()> {
    for shape in SHAPES {
        let n = shape.iter().product::<usize>();
        let x: Vec<f32> = (0..n).map(|i| (i % 8191) as f32).collect();
        let tensor = Tensor::from_vec(x.clone(), shape);
        for order in ORDERS {
            let want = permuted(&x, shape, order);
            let turned = order.map(|d| shape[d]);
            let y = Tensor::from_vec((0..n).map(|i| (i % 61) as f32).collect(), turned);
            let program = lazuli::compile(move |(x, y): (Tensor, Tensor)| {
                let turned = x.permute(order);
                let half = turned.to(DType::BF16).to(DType::F32);
                (turned.reshape([-1]), &turned * 2.0 + &y, turned.reshape([-1, 2]).sum(-1), half)
            });
            let (flat, added, pairs, half) = program.call((&tensor, &y))?;
            let what = format!("{shape:?} as {order:?}");
            assert_eq!(flat.to_vec::<f32>()?, want, "{what}");
            let sums: Vec<f32> = want.iter().enumerate().map(|(i, v)| v * 2.0 + (i % 61) as f32).collect();
            assert_eq!(added.to_vec::<f32>()?, sums, "{what}, with another operand");
            let twos: Vec<f32> = want.chunks(2).map(|p| p.iter().sum()).collect();
            assert_eq!(pairs.to_vec::<f32>()?, twos, "{what}, merged and summed");
            for dtype in [DType::F64, DType::I64, DType::I32, DType::U8] {
                let program = lazuli::compile(move |x: Tensor| x.permute(order).reshape([-1]));
                let got = program.call(tensor.to(dtype))?.to(DType::F64).to_vec::<f64>()?;
                let same = tensor.to(dtype).to(DType::F64).to(DType::F32).to_vec::<f32>()?;
                let want: Vec<f64> = permuted(&same, shape, order).into_iter().map(f64::from).collect();
                assert_eq!(got, want, "{what} of {dtype}");
            }
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= b / 256.0;
            assert!(half.to_vec::<f32>()?.iter().zip(&want).all(near), "{what}, as a half");
        }
    }
    Ok(())
}

/// Large operands that lie across what an operation walks run as programs made for their shapes, eagerly too.
#[test]
fn large_operands_are_walked_across_eagerly() -> Result<()> {
    let (rows, columns) = (610, 701);
    let x: Vec<f32> = (0..rows * columns).map(|i| (i % 997) as f32).collect();
    let tensor = Tensor::from_vec(x.clone(), [rows, columns]);
    let turned = permuted(&x, [1, rows, columns], [0, 2, 1]);
    assert_eq!(tensor.t().reshape([-1]).to_vec::<f32>()?, turned);
    let y = Tensor::arange(0..columns as i64).to(DType::F32).reshape([columns, 1]);
    let sum = tensor.t() * 2.0 + &y;
    let want: Vec<f32> = turned.iter().enumerate().map(|(i, v)| v * 2.0 + (i / rows) as f32).collect();
    assert_eq!(sum.to_vec::<f32>()?, want);
    let whole = tensor.t().to(DType::I64);
    assert_eq!(whole.to_vec::<i64>()?, turned.iter().map(|v| *v as i64).collect::<Vec<_>>());
    let columns_of = |j: usize| turned[j * rows..(j + 1) * rows].iter();
    let sums: Vec<f32> = (0..columns).map(|j| columns_of(j).sum()).collect();
    assert_eq!(tensor.sum(0).to_vec::<f32>()?, sums);
    assert_eq!(tensor.t().sum(1).to_vec::<f32>()?, sums);
    let largest: Vec<f32> = (0..columns).map(|j| columns_of(j).copied().fold(0.0, f32::max)).collect();
    assert_eq!(tensor.amax(0).to_vec::<f32>()?, largest);
    Ok(())
}
