//! Gradients together with compiled functions: a training loop compiles once, and no gradient is lost at the border.

#![allow(clippy::unwrap_used, clippy::panic)]

use lazuli::ErrorKind;
use lazuli::prelude::*;

fn close(a: &Tensor, b: &Tensor) {
    let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(&b) {
        assert!(
            (x - y).abs() <= 1e-5 * (1.0 + x.abs()) || (x.is_nan() && y.is_nan()),
            "{x} and {y} in {a:?} and {b:?}"
        );
    }
}

fn range(shape: [usize; 2]) -> Tensor {
    Tensor::arange(0..(shape[0] * shape[1]) as i64).to(DType::F32).reshape(shape) / 7.0 - 1.0
}

fn train_step((w, x, y, rate): (Tensor, Tensor, Tensor, Tensor)) -> (Tensor, Tensor) {
    let (loss, dw) = lazuli::value_and_grad(|w: &Tensor| x.matmul(w).cross_entropy(&y))(&w);
    (loss, &w - rate * dw)
}

#[test]
fn a_training_loop_compiles_once_and_learns() {
    let step = lazuli::compile(train_step).arguments(["w", "x", "y", "rate"]);
    let (x, y) = (range([8, 4]), Tensor::arange(0..8));
    let mut w = Tensor::zeros([4, 8]);
    let mut eager = Tensor::zeros([4, 8]);
    let mut losses = Vec::new();
    for i in 0..5 {
        let rate = 0.1 / (i + 1) as f64;
        let (loss, next) = step.call((w, &x, &y, rate)).unwrap();
        w = next;
        losses.push(loss.item::<f32>().unwrap());
        let (_, next) = train_step((eager, x.clone(), y.clone(), lazuli::tensor(rate)));
        eager = next;
    }
    close(&w, &eager);
    assert!(losses[4] < losses[0], "{losses:?}");
    let cache = step.cache();
    assert_eq!((cache.programs, cache.hits, cache.misses), (1, 4, 1), "{cache}");
    assert_eq!(cache.reason(), "first call");
}

#[test]
fn another_shape_compiles_again_and_says_why() {
    let step = lazuli::compile(train_step).arguments(["w", "x", "y", "rate"]);
    let call = |rows: usize| {
        let _ = step.call((Tensor::zeros([4, 8]), range([rows, 4]), Tensor::arange(0..rows as i64), 0.1)).unwrap();
    };
    call(8);
    call(6);
    call(8);
    let cache = step.cache();
    assert_eq!((cache.programs, cache.hits, cache.misses), (2, 1, 2));
    assert_eq!(step.explain(), "dim 0 of `x`: 6, was 8; dim 0 of `y`: 6, was 8");
    assert!(step.call((Tensor::zeros([4, 8]), range([8, 4]), Tensor::arange(0..8), Tensor::full((), 0.1))).is_ok());
    assert_eq!(step.explain(), "`rate`: a tensor, was a number");
}

#[test]
fn a_gradient_through_a_compiled_function_in_a_trace() {
    let inner = lazuli::compile(|x: Tensor| x.exp());
    let x = range([2, 2]);
    let (_, gradient) = lazuli::value_and_grad(|x: &Tensor| outer_loss(&inner, x))(&x);
    close(&gradient, &x.exp());
}

fn outer_loss(inner: &lazuli::Compiled<'_, Tensor, Tensor>, x: &Tensor) -> lazuli::Result<Tensor> {
    let traced = lazuli::compile(|x: Tensor| {
        let (_, g) = lazuli::value_and_grad(|x: &Tensor| inner.call(x).map(|y| y.sum(..)))(&x);
        g
    });
    let g = traced.call(x.detach())?;
    Ok((x * g).sum(..))
}

#[test]
fn gradients_do_not_get_lost_at_the_border() {
    let loss = lazuli::compile(|(w, x): (Tensor, Tensor)| (w * x).sum(..)).named("loss_of");
    let w = Tensor::ones([3]).requires_grad_(true);
    let result = loss.call((&w, Tensor::ones([3]))).unwrap();
    assert_eq!(result.item::<f32>().unwrap(), 3.0);
    let error = result.backward().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Autograd);
    assert!(error.to_string().contains("loss_of"), "{error}");
    assert!(result.detach().backward().unwrap_err().to_string() != error.to_string());

    // backward inside of the function, for a tensor of the trace.
    let inside = lazuli::compile(|(w, x): (Tensor, Tensor)| {
        let w = w.detach().requires_grad_(true);
        (&w * x).sum(..).backward()?;
        w.grad().ok_or_else(|| lazuli::Error::new(ErrorKind::Autograd, "no gradient"))
    });
    let gradient = inside.call((&w, lazuli::tensor([1.0, 2.0, 3.0]))).unwrap();
    assert_eq!(gradient.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
}
