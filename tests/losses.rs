//! Losses and activations that no sample file covers: values worked out by hand, gradients against differences, compiled as eager.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli::options::Reduction;
use lazuli::prelude::*;

const STEP: f64 = 1e-6;

/// Numbers away from kinks, of both signs.
fn inputs(rows: usize, columns: usize, shift: usize) -> Tensor {
    let number = |i: usize| (((i + shift) * 37 % 64) as f64 - 31.5) / 22.7;
    Tensor::from_vec((0..rows * columns).map(number).collect(), [rows, columns])
}

/// The gradient of the sum of `f` is what differences say, and a compiled call gives what the eager one does.
fn check(name: &str, x: &Tensor, f: impl Fn(&Tensor) -> Tensor + Send + Sync + 'static) {
    let leaf = x.detach().requires_grad_(true);
    f(&leaf).sum(..).backward().unwrap_or_else(|e| panic!("{name}: {e}"));
    let gradient = leaf.grad().unwrap_or_else(|| panic!("{name}: no gradient")).to_vec::<f64>().unwrap();
    let (values, shape) = (x.to_vec::<f64>().unwrap(), x.shape().to_vec());
    let at = |i: usize, step: f64| {
        let mut moved = values.clone();
        moved[i] += step;
        f(&Tensor::from_vec(moved, shape.clone())).sum(..).item::<f64>().unwrap()
    };
    for (i, &found) in gradient.iter().enumerate() {
        let expected = (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP);
        assert!(
            (found - expected).abs() <= 1e-7 * (1.0 + expected.abs()),
            "{name}, {i}: {found}, by differences {expected}"
        );
    }
    assert!(gradient.iter().any(|g| *g != 0.0), "{name}: all gradients are 0");
    let eager = f(x).to_vec::<f64>().unwrap();
    let compiled = lazuli::compile(move |x: Tensor| f(&x)).call(x).unwrap().to_vec::<f64>().unwrap();
    for (a, b) in eager.iter().zip(&compiled) {
        assert!((a - b).abs() <= 1e-14 * (1.0 + a.abs()), "{name}: eager {a}, compiled {b}");
    }
}

#[test]
fn gradients_are_differences() {
    let (x, other, third) = (inputs(4, 3, 0), inputs(4, 3, 5), inputs(4, 3, 11));
    let signs = lazuli::tensor([1.0, -1.0, -1.0, 1.0]).to(DType::F64);
    let column = signs.unsqueeze(-1);
    let none = Reduction::None;
    check("hardshrink", &x, |x| x.hardshrink(()));
    check("softshrink", &x, |x| x.softshrink(Softshrink { lambd: 0.25 }));
    check("tanhshrink", &x, |x| x.tanhshrink());
    check("threshold", &x, |x| x.threshold(0.1, 7.0));
    check("rrelu", &x, |x| x.rrelu(()));
    let weights = inputs(4, 3, 2);
    check("softmin", &x, move |x| x.softmin(-1) * &weights);
    let (o, s) = (other.clone(), column.clone());
    check("margin_ranking_loss", &x, move |x| {
        x.margin_ranking_loss(&o, &s, MarginRankingLoss { margin: 0.3, reduction: none })
    });
    let s = column.clone();
    check("hinge_embedding_loss", &x, move |x| x.hinge_embedding_loss(&s, ()));
    let (o, s) = (other.clone(), signs.clone());
    check("cosine_embedding_loss", &x, move |x| {
        x.cosine_embedding_loss(&o, &s, CosineEmbeddingLoss { margin: -0.9, ..Default::default() })
    });
    for swap in [false, true] {
        let (o, t) = (other.clone(), third.clone());
        let options = TripletMarginLoss { swap, margin: 2.0, ..Default::default() };
        check("triplet_margin_loss", &x, move |x| x.triplet_margin_loss(&o, &t, options.clone()));
    }
    let o = other.clone();
    check("pairwise_distance", &x, move |x| x.pairwise_distance(&o, PairwiseDistance { p: 3.0, ..Default::default() }));
    let s = column.clone();
    check("soft_margin_loss", &x, move |x| x.soft_margin_loss(&s, ()));
    let y = other.sigmoid();
    let weight = Some(lazuli::tensor([0.5, 2.0, 1.0]));
    let options = MultilabelSoftMarginLoss { weight: weight.clone(), ..Default::default() };
    check("multilabel_soft_margin_loss", &x, move |x| x.multilabel_soft_margin_loss(&y, options.clone()));
    for p in [1, 2] {
        let options = MultiMarginLoss { p, weight: weight.clone(), ..Default::default() };
        check("multi_margin_loss", &x, move |x| x.multi_margin_loss(&lazuli::tensor([0, 2, 1, 1]), options.clone()));
    }
    let labels = lazuli::tensor([[0, -1, 1], [2, 1, -1], [-1, 0, 0], [1, 0, 2]]);
    check("multilabel_margin_loss", &x, move |x| x.multilabel_margin_loss(&labels, ()));
    let (o, v) = (other.clone(), third.abs() + 0.5);
    check("gaussian_nll_loss, means", &x, move |x| {
        x.gaussian_nll_loss(&o, &v, GaussianNllLoss { full: true, ..Default::default() })
    });
    let o = other.clone();
    check("gaussian_nll_loss, variances", &(x.abs() + 0.5), move |v| o.gaussian_nll_loss(0.5, v, ()));
    let counts = lazuli::tensor([[0.0, 1.0, 4.0]]);
    for log_input in [true, false] {
        let (y, x) = (counts.clone(), x.abs() + 0.5);
        let options = PoissonNllLoss { log_input, full: true, ..Default::default() };
        check("poisson_nll_loss", &x, move |x| x.poisson_nll_loss(&y, options.clone()));
    }
}

/// A result's elements, each as good as the expected one in `f32`.
fn near(found: Tensor, expected: &[f32]) {
    let found = found.to_vec::<f32>().unwrap();
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!(
            a == b || (a - b).abs() <= 1e-6 * b.abs() || (a.is_nan() && b.is_nan()),
            "{found:?}, expected {expected:?}"
        );
    }
}

#[test]
fn values_are_those_worked_out_by_hand() {
    let (nan, ln2) = (f32::NAN, std::f32::consts::LN_2);
    let x = lazuli::tensor([f32::NEG_INFINITY, -0.5, 0.0, 0.5, f32::INFINITY, nan]);
    near(x.hardshrink(()), &[f32::NEG_INFINITY, 0.0, 0.0, 0.0, f32::INFINITY, nan]);
    near(x.softshrink(()), &[f32::NEG_INFINITY, 0.0, 0.0, 0.0, f32::INFINITY, nan]);
    near(x.threshold(0.0, 3.0), &[3.0, 3.0, 3.0, 0.5, f32::INFINITY, nan]);
    near(lazuli::tensor([0.0]).soft_margin_loss(lazuli::tensor([1.0]), ()), &[ln2]);
    // Label 2 of three: (1 - 3 + 1)+ and (1 - 3 + 2.5)+, over three classes, times the label's weight.
    let options = MultiMarginLoss { weight: Some(lazuli::tensor([1.0, 1.0, 6.0])), ..Default::default() };
    near(lazuli::tensor([1.0, 2.5, 3.0]).multi_margin_loss(&lazuli::tensor(2), options), &[1.0]);
    // Labels 3 and 0, no others: 1 - x[3] + x[1], 1 - x[3] + x[2], 1 - x[0] + x[1], 1 - x[0] + x[2], over 4.
    let (x, y) = (lazuli::tensor([[0.1, 0.2, 0.4, 0.8]]), lazuli::tensor([[3, 0, -1, 1]]));
    near(x.multilabel_margin_loss(&y, ()), &[0.85]);
    // A log normalised distribution has log(var) = 0 at var 1, and half a square.
    near(lazuli::tensor([3.0]).gaussian_nll_loss(1.0, lazuli::tensor([1.0]), ()), &[2.0]);
    near(lazuli::tensor([3.0]).gaussian_nll_loss(1.0, lazuli::tensor([-1.0]), ()), &[nan]);
    near(
        lazuli::tensor([[1.0, 2.0]])
            .poisson_nll_loss(lazuli::tensor([[0.0, 1.0]]), PoissonNllLoss { log_input: false, ..Default::default() }),
        &[0.5 * (3.0 - ln2)],
    );
}

#[test]
fn random_activations_keep_their_range_and_gradients() {
    let x = Tensor::ones([64, 8]).requires_grad_(true);
    let slopes = (-&x).rrelu(Rrelu { training: true, ..Default::default() });
    assert!(slopes.to_vec::<f32>().unwrap().iter().all(|v| (-1.0 / 3.0..=-0.125).contains(v)));
    let hard = x.gumbel_softmax(GumbelSoftmax { hard: true, ..Default::default() });
    near(hard.sum(-1), &[1.0; 64]);
    assert!(hard.to_vec::<f32>().unwrap().iter().all(|v| v.abs() < 1e-6 || (v - 1.0).abs() < 1e-6));
    (hard * Tensor::arange(0..8)).sum(..).backward().unwrap();
    assert!(x.grad().unwrap().to_vec::<f32>().unwrap().iter().any(|g| *g != 0.0));
}

#[test]
fn wrong_input_is_an_error() {
    let x = Tensor::ones([2, 3]);
    let labels = lazuli::tensor([0, 3]);
    for (failed, part) in [
        (x.multi_margin_loss(&labels, ()), "3"),
        (x.multi_margin_loss(&lazuli::tensor([0, 1, 2]), ()), "label"),
        (x.multi_margin_loss(&lazuli::tensor([0, 1]), MultiMarginLoss { p: 3, ..Default::default() }), "p is 1 or 2"),
        (x.multilabel_margin_loss(&lazuli::tensor([[5, -1, 0], [0, 1, 2]]), ()), "5"),
        (x.gaussian_nll_loss(0.0, Tensor::ones([2, 2]), ()), "variances"),
        (x.softshrink(Softshrink { lambd: -1.0 }), "negative"),
        (x.gumbel_softmax(GumbelSoftmax { tau: 0.0, ..Default::default() }), "positive"),
        (Tensor::ones([2]).to(DType::I64).tanhshrink(), "floating point"),
        (x.triplet_margin_loss(Tensor::ones([2, 4]), &x, ()), "4"),
    ] {
        let error = failed.to_vec::<f32>().unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("losses.rs"), "{error}");
    }
}

#[test]
fn a_tensor_goes_to_a_device_and_a_dtype() {
    let x = lazuli::tensor([1.5]).requires_grad_(true);
    let y = x.to((Device::Cpu, DType::F64)).to(Device::Cpu);
    assert_eq!((y.dtype(), y.device()), (DType::F64, Device::Cpu));
    y.sum(..).backward().unwrap();
    assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [1.0]);
    for like in [y.empty_like(), y.randint_like(0, 3)] {
        assert_eq!((like.dtype(), like.shape(), like.device()), (DType::F64, y.shape(), y.device()));
    }
}
