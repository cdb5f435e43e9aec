//! Gradients: against finite differences, at kinks, of second order, and what is refused.

#![allow(clippy::unwrap_used)]

use lazuli::prelude::*;
use lazuli::{ErrorKind, grad, value_and_grad};

/// A smooth function of a tensor, to differentiate.
type Function = Box<dyn Fn(&Tensor) -> Tensor>;

fn values(shape: [usize; 2], seed: usize) -> Tensor {
    let n = shape[0] * shape[1];
    Tensor::from_vec((0..n).map(|i| ((i * 37 + seed * 11) % 17) as f32 / 6.0 - 1.3).collect(), shape)
}

fn functions() -> Vec<(&'static str, Function)> {
    let w = values([4, 2], 3);
    let y = lazuli::tensor([1, 3, 0]);
    let other = values([3, 4], 5);
    let batch = values([6, 4], 7).reshape([2, 3, 4]);
    let (gain, shift) = (values([1, 4], 2).flatten(..), values([1, 4], 9).flatten(..));
    vec![
        ("arithmetic", Box::new(|x: &Tensor| (x * x - 2.0 * x) / (x * x + 1.5) + 3.0 / (x - 5.0))),
        (
            "functions",
            Box::new(|x: &Tensor| x.exp() + (x * x + 0.5).log() + (x + 4.0).sqrt() + (x + 4.0).rsqrt() + x.tanh()),
        ),
        (
            "activations",
            Box::new(|x: &Tensor| x.sigmoid() + x.gelu() + x.silu() + (x - 0.013).relu() + (x + 0.017).abs()),
        ),
        ("broadcast", Box::new(move |x: &Tensor| x.i((.., 0..1)) * &other + x.i(1))),
        (
            "views",
            Box::new(|x: &Tensor| {
                let turned = x.t().reshape([2, 6]).i((.., (0..6).step(2))).unsqueeze(1).expand([2, 2, 3]);
                turned.permute([2, 0, 1]) * x.i((.., 1..3)).reshape([3, 2, 1])
            }),
        ),
        ("reductions", Box::new(|x: &Tensor| x.sum(0) * x.mean(keep(1)) + x.max(keep(0)))),
        ("matmul", Box::new(move |x: &Tensor| x.matmul(&w).t().matmul(x))),
        ("batched", Box::new(move |x: &Tensor| batch.matmul(x.t()) + x.matmul(x.i(0)))),
        ("softmax", Box::new(|x: &Tensor| x.softmax(-1) * x.log_softmax(0))),
        (
            "layer_norm",
            Box::new(move |x: &Tensor| {
                let options = LayerNorm { weight: Some(gain.clone()), bias: Some(shift.clone()), ..Default::default() };
                x.layer_norm([4], options)
            }),
        ),
        ("cross_entropy", Box::new(move |x: &Tensor| x.cross_entropy(&y))),
        ("where", Box::new(|x: &Tensor| lazuli::where_(x.gt(0.1), x * x, 1.0 - x).maximum(x * 0.3).minimum(1.1))),
        ("mse", Box::new(|x: &Tensor| x.mse_loss(0.25))),
    ]
}

/// A number that weighs each element differently.
fn weighed(y: Tensor) -> Tensor {
    let n = y.numel();
    let weights = Tensor::from_vec((0..n).map(|i| 0.3 + (i % 5) as f32 * 0.2).collect(), [n]);
    (y.reshape([-1]) * weights).sum(..)
}

#[test]
fn gradients_agree_with_finite_differences() {
    for (name, f) in functions() {
        let x = values([3, 4], 1);
        let gradient = grad(|x: &Tensor| weighed(f(x)))(&x).to_vec::<f32>().unwrap();
        let base = x.to_vec::<f32>().unwrap();
        let h = 1e-2;
        for i in 0..base.len() {
            let at = |step: f32| {
                let mut moved = base.clone();
                moved[i] += step;
                weighed(f(&Tensor::from_vec(moved, [3, 4]))).item::<f32>().unwrap()
            };
            let difference = (at(h) - at(-h)) / (2.0 * h);
            let bound = 2e-2 * difference.abs().max(1.0);
            assert!((gradient[i] - difference).abs() < bound, "{name}[{i}]: {} and {difference}", gradient[i]);
        }
        // `backward` takes the same gradient.
        let leaf = x.requires_grad_(true);
        weighed(f(&leaf)).backward().unwrap();
        assert_eq!(leaf.grad().unwrap().to_vec::<f32>().unwrap(), gradient, "{name}");
    }
}

#[test]
fn second_derivatives_agree_with_differences_of_gradients() {
    for (name, f) in functions() {
        let first = grad(|x: &Tensor| weighed(f(x)));
        let x = values([3, 4], 1);
        let second = grad(|x: &Tensor| weighed(first(x)))(&x).to_vec::<f32>().unwrap();
        let base = x.to_vec::<f32>().unwrap();
        let h = 1e-2;
        for i in [0, 5, 11] {
            let at = |step: f32| {
                let mut moved = base.clone();
                moved[i] += step;
                weighed(first(&Tensor::from_vec(moved, [3, 4]))).item::<f32>().unwrap()
            };
            let difference = (at(h) - at(-h)) / (2.0 * h);
            let bound = 5e-2 * difference.abs().max(1.0);
            assert!((second[i] - difference).abs() < bound, "{name}[{i}]: {} and {difference}", second[i]);
        }
    }
}

#[test]
fn gradients_at_kinks_are_those_documented() {
    let at = |f: &dyn Fn(&Tensor) -> Tensor, x: f32| grad(f)(&lazuli::tensor(x)).item::<f32>().unwrap();
    assert_eq!(at(&|x| x.relu(), 0.0), 0.0);
    assert_eq!(at(&|x| x.abs(), 0.0), 0.0);
    assert_eq!(at(&|x| x.maximum(0.0), 0.0), 0.5);
    assert_eq!(at(&|x| x.minimum(0.0), 0.0), 0.5);
    assert_eq!(at(&|x| x.sigmoid(), 0.0), 0.25);
    assert_eq!(at(&|x| x.sigmoid(), -200.0), 0.0);
    let ties = grad(|x: &Tensor| x.max(..))(&lazuli::tensor([1.0, 2.0, 2.0]));
    assert_eq!(ties.to_vec::<f32>().unwrap(), [0.0, 1.0, 0.0]);
    let nan = grad(|x: &Tensor| lazuli::where_(x.gt(0.0), x.log(), 0.0).sum(..))(&lazuli::tensor([2.0, 4.0]));
    assert_eq!(nan.to_vec::<f32>().unwrap(), [0.5, 0.25]);
}

#[test]
fn leaves_accumulate_and_history_is_freed() {
    let w = lazuli::tensor([1.0, 2.0]).requires_grad_(true);
    let loss = (&w * &w).sum(..);
    loss.backward().unwrap();
    let e = loss.backward().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Autograd);
    assert!(e.to_string().contains("retain_graph"), "{e}");
    (&w * 3.0).sum(..).backward().unwrap();
    assert_eq!(w.grad().unwrap().to_vec::<f32>().unwrap(), [5.0, 7.0]);
    assert_eq!(w.clone().grad().unwrap().to_vec::<f32>().unwrap(), [5.0, 7.0]);
    w.zero_grad();
    assert!(w.grad().is_none());
    // A new leaf is another one.
    let v = w.requires_grad_(true);
    (&v + &w).sum(..).backward().unwrap();
    assert_eq!(v.grad().unwrap().to_vec::<f32>().unwrap(), [1.0, 1.0]);
    assert!(!w.grad().unwrap().requires_grad());
}

#[test]
fn create_graph_gives_gradients_with_history() {
    let x = lazuli::tensor(3.0).requires_grad_(true);
    (&x * &x * &x).backward_with(Backward { create_graph: true, ..Default::default() }).unwrap();
    let first = x.grad().unwrap();
    assert_eq!(first.item::<f32>().unwrap(), 27.0);
    x.zero_grad();
    first.backward().unwrap();
    assert_eq!(x.grad().unwrap().item::<f32>().unwrap(), 18.0);
}

#[test]
fn what_is_detached_is_a_constant() {
    let x = lazuli::tensor(3.0).requires_grad_(true);
    (&x * x.detach()).backward().unwrap();
    assert_eq!(x.grad().unwrap().item::<f32>().unwrap(), 3.0);
    assert!(!lazuli::no_grad(|| &x * 2.0).requires_grad());
    assert!(!x.to(DType::I64).requires_grad());
    assert!(!x.gt(1.0).requires_grad());
    assert!(!x.requires_grad_(false).requires_grad());
    // A gradient is taken inside `no_grad` too, and has no history then.
    let g = lazuli::no_grad(|| grad(|x: &Tensor| x * x)(&x));
    assert_eq!(g.item::<f32>().unwrap(), 6.0);
    assert!(!g.requires_grad());
}

#[test]
fn what_cannot_be_differentiated_is_refused() {
    let x = lazuli::tensor([1.0, 2.0]).requires_grad_(true);
    let e = (&x * 2.0).backward().unwrap_err();
    assert!(e.to_string().contains("backward_with"), "{e}");
    assert_eq!(lazuli::tensor(1.0).backward().unwrap_err().kind(), ErrorKind::Autograd);
    assert_eq!((&x * 2.0).backward_with(lazuli::tensor(1.0)).unwrap_err().kind(), ErrorKind::Autograd);
    let (_, g) = value_and_grad(|x: &Tensor| x * 2.0)(&x);
    assert_eq!(g.check().unwrap_err().kind(), ErrorKind::Autograd);
    let (_, g) = value_and_grad(|x: &Tensor| x.matmul(Tensor::zeros([3])))(&x);
    assert_eq!(g.check().unwrap_err().operation(), Some("matmul"));
}

#[test]
fn captured_tensors_are_constants_to_the_inner_gradient_only() {
    let a = lazuli::tensor(2.0).requires_grad_(true);
    let (value, g) = value_and_grad(|x: &Tensor| x * x * &a)(&lazuli::tensor(3.0));
    assert_eq!((value.item::<f32>().unwrap(), g.item::<f32>().unwrap()), (18.0, 12.0));
    g.backward().unwrap();
    assert_eq!(a.grad().unwrap().item::<f32>().unwrap(), 6.0);
    // Where nothing outside is differentiated, results keep no history.
    let (value, g) = value_and_grad(|x: &Tensor| x * x)(&lazuli::tensor(3.0));
    assert!(!value.requires_grad() && !g.requires_grad());
    // Leaves that the loss does not depend on get zeros, and so do integers.
    let unused = grad(|(x, _, _): &(Tensor, Tensor, Tensor)| x * 2.0);
    let (dx, dy, dz) = unused(&(lazuli::tensor(1.0), lazuli::tensor([1.0, 1.0]), lazuli::tensor(4)));
    assert_eq!(dx.item::<f32>().unwrap(), 2.0);
    assert_eq!(dy.to_vec::<f32>().unwrap(), [0.0, 0.0]);
    assert_eq!(dz.item::<i64>().unwrap(), 0);
}

#[test]
fn auxiliary_results_come_along() {
    let ((loss, logits), g) = value_and_grad(|w: &Tensor| {
        let logits = w * 2.0;
        (logits.sum(..), logits)
    })(&lazuli::tensor([1.0, 2.0]));
    assert_eq!(loss.item::<f32>().unwrap(), 6.0);
    assert_eq!(logits.to_vec::<f32>().unwrap(), [2.0, 4.0]);
    assert_eq!(g.to_vec::<f32>().unwrap(), [2.0, 2.0]);
}
