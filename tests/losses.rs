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
    let program = lazuli::compile(move |x: Tensor| f(&x));
    let compiled = program.call(x).unwrap().to_vec::<f64>().unwrap();
    let graph = program.stages().unwrap().graph().to_string();
    assert!(graph.contains("losses.rs") && !graph.contains("// src/"), "{name} names lines of the library: {graph}");
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
    let z = x.reshape([1, 4, 3]);
    check("local_response_norm", &z, |x| {
        x.local_response_norm(3, LocalResponseNorm { alpha: 0.5, ..Default::default() })
    });
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

/// The negative log likelihood of labels, by trying all paths: each is a class a step, of which equal neighbours count once and
/// blanks not at all.
fn ctc_by_paths(probabilities: &[f64], steps: usize, classes: usize, labels: &[i64], blank: i64) -> f64 {
    let mut total = 0.0;
    for path in 0..classes.pow(steps as u32) {
        let at = |step: usize| path / classes.pow(step as u32) % classes;
        let mut seen: Vec<i64> = (0..steps).map(|s| at(s) as i64).collect();
        let likelihood: f64 = (0..steps).map(|s| probabilities[s * classes + at(s)]).product();
        seen.dedup();
        seen.retain(|c| *c != blank);
        total += if seen == labels { likelihood } else { 0.0 };
    }
    -total.ln()
}

#[test]
fn ctc_loss_is_the_sum_over_all_paths() {
    let (steps, classes) = (5, 3);
    let cases: [(usize, &[i64]); 6] =
        [(5, &[1, 2]), (5, &[1, 1]), (4, &[2]), (3, &[]), (3, &[2, 2, 2]), (5, &[2, 1, 2])];
    let n = cases.len();
    for blank in [0i64, 1] {
        let x = inputs(steps * n, classes, 3).reshape([steps, n, classes]).log_softmax(-1);
        let own = |i: usize| x.narrow(1, i as i64, 1).exp().to_vec::<f64>().unwrap();
        // The labels avoid the blank.
        let labels = |i: usize| -> Vec<i64> { cases[i].1.iter().map(|l| if *l == blank { 0 } else { *l }).collect() };
        let expected: Vec<f64> =
            (0..n).map(|i| ctc_by_paths(&own(i), cases[i].0, classes, &labels(i), blank)).collect();
        let padded = |i: usize| labels(i).into_iter().chain(std::iter::repeat(-7)).take(3).collect::<Vec<i64>>();
        let targets = Tensor::from_vec((0..n).flat_map(padded).collect(), [n, 3]);
        let joined =
            Tensor::from_vec((0..n).flat_map(labels).collect(), [(0..n).map(|i| labels(i).len()).sum::<usize>()]);
        let ends = Tensor::from_vec(cases.iter().map(|c| c.0 as i64).collect(), [n]);
        let counts = Tensor::from_vec(cases.iter().map(|c| c.1.len() as i64).collect(), [n]);
        let options = CtcLoss { blank: blank as usize, reduction: Reduction::None, ..Default::default() };
        for targets in [&targets, &joined] {
            let found = x.ctc_loss(targets, &ends, &counts, options.clone()).to_vec::<f64>().unwrap();
            for (a, b) in found.iter().zip(&expected) {
                assert!(a == b || (a - b).abs() <= 1e-12 * b.abs(), "{found:?}, by paths {expected:?}");
            }
        }
        assert!(expected[4].is_infinite() && expected.iter().filter(|l| l.is_infinite()).count() == 1);
        let single = x.narrow(1, 0, 1).squeeze(1);
        let loss =
            single.ctc_loss(&Tensor::from_vec(labels(0), [2]), &lazuli::tensor(5), &lazuli::tensor(2), options.clone());
        assert!(loss.rank() == 0 && (loss.item::<f64>().unwrap() - expected[0]).abs() < 1e-12);
        let mean: f64 =
            (0..n).filter(|i| *i != 4).map(|i| expected[i] / (cases[i].1.len().max(1) as f64)).sum::<f64>() / n as f64;
        let options = CtcLoss { zero_infinity: true, reduction: Reduction::Mean, ..options };
        check("ctc_loss", &x, move |x| x.log_softmax(-1).ctc_loss(&targets, &ends, &counts, options.clone()) - mean);
    }
}

#[test]
fn random_activations_keep_their_range_and_gradients() {
    lazuli::manual_seed(1).unwrap();
    let x = Tensor::ones([64, 8]).requires_grad_(true);
    let slopes = (-&x).rrelu(Rrelu { training: true, ..Default::default() });
    assert!(slopes.to_vec::<f32>().unwrap().iter().all(|v| (-1.0 / 3.0..=-0.125).contains(v)));
    let kept = x.dropout(Dropout { p: 0.25, ..Default::default() }).to_vec::<f32>().unwrap();
    assert!(kept.contains(&0.0) && kept.iter().all(|v| *v == 0.0 || *v == 1.0 / 0.75));
    near(x.dropout(Dropout { training: false, p: 0.25 }), &[1.0; 512]);
    for (low, high) in [(-3, 5), (-1 << 40, 1 << 40), (i64::MIN / 2, i64::MAX / 2)] {
        let drawn = Tensor::randint(low, high, [1000]).to_vec::<i64>().unwrap();
        assert!(
            drawn.iter().all(|v| (low..high).contains(v))
                && drawn.iter().any(|v| *v < 0)
                && drawn.iter().any(|v| *v > 0)
        );
        let mean = drawn.iter().map(|v| *v as f64).sum::<f64>() / 1000.0;
        assert!(
            (mean - (low as f64 + high as f64 - 1.0) / 2.0).abs() < 0.05 * (high as f64 - low as f64),
            "{low}..{high}: {mean}"
        );
    }
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
        (x.dropout(Dropout { p: 1.5, ..Default::default() }), "between 0 and 1"),
        (x.local_response_norm(2, ()), "3 dims"),
        (x.ctc_loss(&labels, &labels, &lazuli::tensor(1), ()), "lengths"),
        (x.ctc_loss(&labels, &lazuli::tensor(2), &lazuli::tensor(2), ()), "3"),
        (x.ctc_loss(&lazuli::tensor([1, 2]), &lazuli::tensor(3), &lazuli::tensor(2), ()), "3"),
        (
            x.ctc_loss(
                &lazuli::tensor([1, 2]),
                &lazuli::tensor(2),
                &lazuli::tensor(2),
                CtcLoss { blank: 3, ..Default::default() },
            ),
            "blank 3",
        ),
        (Tensor::randint(i64::MIN, i64::MAX, [2]).to(DType::F32), "2^63"),
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
