//! Which dtype operands meet in: PyTorch's `result_type`, by its three ranks.

#![allow(clippy::unwrap_used)]

use lazuli::DType::{Bool, F32, I64};
use lazuli::prelude::*;

#[test]
fn tensors_scalars_and_numbers_promote_as_in_pytorch() {
    let dims = |d: DType| Tensor::ones([2]).to(d);
    let scalar = |d: DType| Tensor::ones(()).to(d);
    let all = [Bool, I64, F32];
    // torch.result_type over (rows, columns) = (bool, int64, float32), for both ranks: the wider of both.
    let table = [[Bool, I64, F32], [I64, I64, F32], [F32, F32, F32]];
    for (i, &a) in all.iter().enumerate() {
        for (j, &b) in all.iter().enumerate() {
            assert_eq!((dims(a) + dims(b)).dtype(), table[i][j]);
            assert_eq!((dims(a) * scalar(b)).dtype(), table[i][j]);
            assert_eq!((scalar(a) * scalar(b)).dtype(), table[i][j]);
            assert_eq!(dims(a).maximum(scalar(b)).dtype(), table[i][j]);
            assert_eq!(dims(a).lt(dims(b)).dtype(), Bool);
            // True division is of floats.
            assert_eq!((dims(a) / dims(b)).dtype(), F32);
        }
        assert_eq!((dims(a) + true).dtype(), a);
        assert_eq!((dims(a) + 1).dtype(), table[i][1]);
        assert_eq!((dims(a) + 1.0).dtype(), F32);
        assert_eq!((2i64 * scalar(a)).dtype(), table[i][1]);
        assert_eq!((2.0 * scalar(a)).dtype(), F32);
        assert_eq!(dims(a).exp().dtype(), F32);
        assert_eq!(dims(a).sum(..).dtype(), if a == F32 { F32 } else { I64 });
    }
}

#[test]
fn integers_divide_truly_and_booleans_are_logic() {
    let (a, b) = (lazuli::tensor([7, 1]), lazuli::tensor([2, 4]));
    assert_eq!((&a / &b).to_vec::<f32>().unwrap(), [3.5, 0.25]);
    let (t, f) = (lazuli::tensor([true, true, false]), lazuli::tensor([true, false, false]));
    assert_eq!((&t + &f).to_vec::<bool>().unwrap(), [true, true, false]);
    assert_eq!((&t * &f).to_vec::<bool>().unwrap(), [true, false, false]);
    assert_eq!(t.sum(..).item::<i64>().unwrap(), 2);
    assert_eq!((lazuli::tensor([i64::MAX]) + 1).to_vec::<i64>().unwrap(), [i64::MIN]);
}

#[test]
fn every_spelling_of_an_operator() {
    let (a, b) = (lazuli::tensor([1.0, 2.0]), lazuli::tensor([3.0, 4.0]));
    let expected = [4.0, 6.0];
    for sum in [a.clone() + b.clone(), a.clone() + &b, &a + b.clone(), &a + &b] {
        assert_eq!(sum.to_vec::<f32>().unwrap(), expected);
    }
    assert_eq!((&b * 2.0).exp().shape(), [2]);
    assert_eq!((2.0 * &a - 1 + true).to_vec::<f32>().unwrap(), [2.0, 4.0]);
    assert_eq!((1 - &a).to_vec::<f32>().unwrap(), [0.0, -1.0]);
    let mut c = a.clone();
    c += &b;
    c -= 1.0;
    c *= 2;
    c /= &a;
    assert_eq!(c.to_vec::<f32>().unwrap(), [6.0, 5.0]);
    assert_eq!(a.to_vec::<f32>().unwrap(), [1.0, 2.0]);
}
