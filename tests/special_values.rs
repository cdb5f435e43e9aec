//! Values at the edges, as PyTorch has them: empty reductions, ties and NaN, zero divisors, overflow, indices out of range. The
//! expected values are literal; `NAN` stands for any NaN.

#![allow(clippy::unwrap_used)]

use lazuli::ErrorKind;
use lazuli::prelude::*;

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;
const NEG_INFINITY: f32 = f32::NEG_INFINITY;

/// The values, eagerly and compiled, are these.
#[track_caller]
fn gives(f: impl Fn(&Tensor) -> Tensor + Send + Sync, x: &Tensor, expected: &[f32]) {
    let compiled = lazuli::compile(|x: Tensor| f(&x));
    for found in [f(x), compiled.call(x).unwrap()] {
        let found = found.to(DType::F32).to_vec::<f32>().unwrap();
        let same =
            |(a, b): (&f32, &f32)| a == b && a.is_sign_negative() == b.is_sign_negative() || a.is_nan() && b.is_nan();
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(same), "{found:?}, not {expected:?}");
    }
}

/// The failure, eagerly and compiled, is of this kind and names this operation; the next call is right.
#[track_caller]
fn fails(f: impl Fn(&Tensor) -> Tensor + Send + Sync, x: &Tensor, kind: ErrorKind, operation: &str) {
    let compiled = lazuli::compile(|x: Tensor| f(&x));
    for found in [f(x).eval().err(), compiled.call(x).err()] {
        let error = found.unwrap();
        assert_eq!((error.kind(), error.operation()), (kind, Some(operation)), "{error}");
        assert_eq!((lazuli::tensor([1.0]) + 1.0).to_vec::<f32>().unwrap(), [2.0]);
    }
}

#[test]
fn integers_divided_by_zero_are_errors_and_floats_are_not() {
    let x = lazuli::tensor([7, i64::MIN]);
    fails(|x| x.floor_divide(0), &x, ErrorKind::Value, "floor_divide");
    fails(|x| x.trunc_divide(lazuli::tensor([1, 0])), &x, ErrorKind::Value, "trunc_divide");
    fails(|x| x % 0, &x, ErrorKind::Value, "remainder");
    fails(|x| x.fmod(0), &x, ErrorKind::Value, "fmod");
    assert_eq!((&x % lazuli::tensor(-1)).to_vec::<i64>().unwrap(), [0, 0]);
    assert_eq!(x.floor_divide(-1).to_vec::<i64>().unwrap(), [-7, i64::MIN]);
    let x = lazuli::tensor([1.0, -1.0, 0.0]);
    gives(|x| x / 0.0, &x, &[INF, NEG_INFINITY, NAN]);
    gives(|x| x.floor_divide(0.0), &x, &[INF, NEG_INFINITY, NAN]);
    gives(|x| x % 0.0, &x, &[NAN; 3]);
}

#[test]
fn powers_and_roots() {
    let x = lazuli::tensor([0.0, -2.0, -2.0, INF, 1.0]);
    let e = lazuli::tensor([0.0, 0.5, 3.0, -1.0, NAN]);
    gives(|x| x.pow(&e), &x, &[1.0, NAN, -8.0, 0.0, 1.0]);
    assert_eq!(lazuli::tensor([0, 2, -1]).pow(lazuli::tensor([0, 62, 3])).to_vec::<i64>().unwrap(), [1, 1 << 62, -1]);
    assert!(lazuli::tensor([2]).pow(-1).check().is_err());
    gives(Tensor::sqrt, &lazuli::tensor([-1.0, -0.0, INF]), &[NAN, -0.0, INF]);
    gives(Tensor::rsqrt, &lazuli::tensor([0.0, INF]), &[INF, 0.0]);
    gives(Tensor::log, &lazuli::tensor([0.0, -1.0, INF]), &[NEG_INFINITY, NAN, INF]);
}

#[test]
fn reductions_of_nothing() {
    let x = Tensor::zeros([0, 3]);
    gives(|x| x.sum(0), &x, &[0.0; 3]);
    gives(|x| x.prod(0), &x, &[1.0; 3]);
    gives(|x| x.mean(0), &x, &[NAN; 3]);
    gives(|x| x.var(0, ()), &x, &[NAN; 3]);
    gives(|x| x.logsumexp(0), &x, &[NEG_INFINITY; 3]);
    gives(|x| x.any(0), &x, &[0.0; 3]);
    gives(|x| x.all(0), &x, &[1.0; 3]);
    gives(|x| x.norm(.., ()), &x, &[0.0]);
    gives(|x| x.cumsum(0), &x, &[]);
    gives(|x| x.max(1), &x, &[]);
    for empty in [x.max(0), x.amin(0), x.argmax(0), x.min(..), x.median(0).0] {
        assert_eq!(empty.check().unwrap_err().kind(), ErrorKind::Shape);
    }
    gives(|x| x.softmax(0), &x, &[]);
    gives(|x| x.matmul(Tensor::zeros([3, 0])), &x, &[]);
    gives(|x| x.t().matmul(x), &x, &[0.0; 9]);
    assert!(Tensor::zeros([0]).cumsum(0).to_vec::<f32>().unwrap().is_empty());
}

#[test]
fn ties_and_nan_in_extremes_and_orders() {
    let x = lazuli::tensor([1.0, 3.0, NAN, 3.0, NAN, -1.0]);
    gives(|x| x.argmax(0), &x, &[2.0]);
    gives(|x| x.argmin(0), &x, &[2.0]);
    gives(|x| x.max(..), &x, &[NAN]);
    gives(|x| x.sort(()).0, &x, &[-1.0, 1.0, 3.0, 3.0, NAN, NAN]);
    gives(|x| x.argsort(()), &x, &[5.0, 0.0, 1.0, 3.0, 2.0, 4.0]);
    let descending = || Sort { descending: true, ..Default::default() };
    gives(|x| x.argsort(descending()), &x, &[2.0, 4.0, 1.0, 3.0, 0.0, 5.0]);
    gives(|x| x.topk(3, ()).0, &x, &[NAN, NAN, 3.0]);
    gives(|x| x.median(..).0, &x, &[NAN]);
    gives(|x| x.cummax(0).1, &x, &[0.0, 1.0, 2.0, 2.0, 4.0, 4.0]);
    gives(|x| x.maximum(2.0), &x, &[2.0, 3.0, NAN, 3.0, NAN, 2.0]);
    gives(|x| x.fmax(2.0), &x, &[2.0, 3.0, 2.0, 3.0, 2.0, 2.0]);
    gives(|x| x.clamp(0.0, 2.0), &x, &[1.0, 2.0, NAN, 2.0, NAN, 0.0]);
    gives(Tensor::relu, &x, &[1.0, 3.0, NAN, 3.0, NAN, 0.0]);
    let ties = lazuli::tensor([2.0, 5.0, 5.0]);
    gives(|x| x.argmax(..), &ties, &[1.0]);
    let gradient = |f: fn(&Tensor) -> Tensor| lazuli::grad(f)(&ties).to_vec::<f32>().unwrap();
    assert_eq!(gradient(|x| x.max(0)), [0.0, 1.0, 0.0]);
    assert_eq!(gradient(|x| x.amax(0)), [0.0, 0.5, 0.5]);
}

#[test]
fn softmax_variance_and_norms_at_extremes() {
    gives(|x| x.softmax(-1), &lazuli::tensor([NEG_INFINITY, NEG_INFINITY]), &[NAN, NAN]);
    gives(|x| x.log_softmax(-1), &lazuli::tensor([1e30, 0.0]), &[0.0, -1e30]);
    gives(|x| x.softmax(-1), &lazuli::tensor([INF, 0.0]), &[NAN, NAN]);
    gives(|x| x.logsumexp(-1), &lazuli::tensor([NEG_INFINITY, NEG_INFINITY]), &[NEG_INFINITY]);
    gives(|x| x.logsumexp(-1), &lazuli::tensor([INF, 0.0]), &[INF]);
    gives(|x| x.var(-1, ()), &lazuli::tensor([5.0]), &[NAN]);
    gives(|x| x.var(-1, Var { correction: 0.0 }), &lazuli::tensor([5.0]), &[0.0]);
    gives(|x| x.hypot(lazuli::tensor([NAN, 3e38])), &lazuli::tensor([INF, 0.0]), &[INF, 3e38]);
    gives(|x| x.logaddexp(x), &lazuli::tensor([NEG_INFINITY, INF]), &[NEG_INFINITY, INF]);
    gives(|x| x.xlogy(lazuli::tensor([0.0, NAN, INF])), &lazuli::tensor([0.0, 0.0, 0.0]), &[0.0, NAN, 0.0]);
    gives(|x| x.nan_to_num(()), &lazuli::tensor([NAN, INF, NEG_INFINITY]), &[0.0, f32::MAX, f32::MIN]);
    gives(Tensor::sign, &lazuli::tensor([NAN, -0.0]), &[0.0, 0.0]);
    gives(Tensor::round, &lazuli::tensor([0.5, 1.5, 2.5, -0.5]), &[0.0, 2.0, 2.0, -0.0]);
}

#[test]
fn indices_out_of_range_on_both_sides() {
    let x = lazuli::tensor([10.0, 20.0, 30.0]);
    let at = |i: i64| lazuli::tensor([i]);
    for i in [3, -1] {
        fails(move |x| x.gather(0, &at(i)), &x, ErrorKind::Index, "gather");
        fails(move |x| x.index_select(0, &at(i)), &x, ErrorKind::Index, "index_select");
        fails(move |x| x.scatter(0, &at(i), 1.0, ()), &x, ErrorKind::Index, "scatter");
        fails(move |x| x.index_add(0, &at(i), &x.i(0..1), ()), &x, ErrorKind::Index, "index_add");
    }
    for i in [3, -4] {
        fails(move |x| x.i(at(i)), &x, ErrorKind::Index, "i");
        fails(move |x| x.index_put(at(i), 0.0, ()), &x, ErrorKind::Index, "index_put");
        fails(move |x| x.index_fill(0, &at(i), 0.0), &x, ErrorKind::Index, "index_fill");
    }
    gives(|x| x.i([-1, 0]), &x, &[30.0, 10.0]);
    fails(|x| x.narrow(0, lazuli::tensor(2), 2), &x, ErrorKind::Index, "narrow");
    let labels = lazuli::tensor([2]);
    fails(|x| x.reshape([1, 3]).narrow(1, 0, 2).cross_entropy(&labels), &x, ErrorKind::Index, "cross_entropy");
    fails(|x| x.to(DType::I64).one_hot(OneHot { num_classes: Some(30) }), &x, ErrorKind::Index, "one_hot");
}

#[test]
fn equal_indices_and_empty_ones() {
    let x = Tensor::zeros([3]);
    let twice = lazuli::tensor([1, 1]);
    gives(|x| x.scatter(0, &twice, lazuli::tensor([5.0, 6.0]), ()), &x, &[0.0, 6.0, 0.0]);
    gives(|x| x.scatter_add(0, &twice, lazuli::tensor([5.0, 6.0])), &x, &[0.0, 11.0, 0.0]);
    gives(|x| x.index_put([1, 1], 2.0, IndexPut { accumulate: true }), &x, &[0.0, 4.0, 0.0]);
    let none = Tensor::from_vec(Vec::<i64>::new(), [0]);
    gives(|x| x.index_select(0, &none), &x, &[]);
    gives(|x| x.i(&none), &x, &[]);
    assert_eq!(x.i(x.gt(1.0)).shape(), [0]);
    assert_eq!(x.nonzero().unwrap().shape(), [0, 1]);
}

#[test]
fn halves_round_once_and_overflow_to_infinity() {
    let large = lazuli::tensor([65504.0, 65520.0]).to(DType::F16);
    gives(|x| x.to(DType::F32), &large, &[65504.0, INF]);
    gives(|x| x + 32.0, &large, &[INF, INF]);
    // 2048 + 1 is not a half, but the sum of 2048 ones and 2048 is.
    let ones = Tensor::ones([4096]).to(DType::F16);
    gives(|x| x.sum(..), &ones, &[4096.0]);
    gives(|x| x.mean(..), &ones, &[1.0]);
    assert_eq!((Tensor::ones([1]).to(DType::F16) + Tensor::ones([1]).to(DType::BF16)).dtype(), DType::F32);
}

#[test]
fn windows_larger_than_the_input_and_other_misfits() {
    let x = Tensor::ones([1, 1, 3]);
    let shape = |t: Tensor| t.check().unwrap_err().kind();
    assert_eq!(shape(x.conv1d(&Tensor::ones([1, 1, 4]), ())), ErrorKind::Shape);
    assert_eq!(shape(x.conv1d(&Tensor::ones([1, 2, 1]), ())), ErrorKind::Shape);
    assert_eq!(shape(x.max_pool1d(4, ())), ErrorKind::Shape);
    assert_eq!(shape(x.avg_pool1d(2, AvgPool { padding: [2], ..Default::default() })), ErrorKind::Value);
    assert_eq!(shape(x.unfold(2, 4, 1)), ErrorKind::Value);
    assert_eq!(shape(x.pad([3, 0], Pad { mode: PadMode::Reflect, ..Default::default() })), ErrorKind::Shape);
    assert_eq!(shape(x.topk(4, ()).0), ErrorKind::Value);
    assert!(x.split([1, 1], 2).is_err());
    assert!(x.chunk(0, 2).is_err());
}
