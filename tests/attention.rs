//! Attention, both products in one kernel: against plain loops in `f64`, at sizes that panels do not divide, under masks of every
//! kind, on any number of threads.

use lazuli::options::Attention;
use lazuli::prelude::*;
use lazuli::{Result, value_and_grad, where_};

/// Batch, heads, queries, keys, features, and features of values.
type Sizes = [usize; 6];

const SIZES: [Sizes; 8] = [
    [1, 1, 1, 2, 2, 2],
    [2, 1, 40, 9, 1, 1],
    [2, 3, 7, 11, 2, 5],
    [1, 2, 131, 67, 13, 13],
    [2, 1, 200, 301, 8, 3],
    [1, 1, 129, 17, 64, 2],
    [3, 2, 17, 129, 33, 65],
    [1, 2, 40, 1031, 16, 16],
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mask {
    None,
    /// The same for all heads.
    Added,
    /// Other for each of a batch.
    AddedEach,
    /// No query sees a later key.
    Causal,
    /// Truth values; the first query sees nothing.
    Blind,
}

const MASKS: [Mask; 5] = [Mask::None, Mask::Added, Mask::AddedEach, Mask::Causal, Mask::Blind];

fn number(i: usize) -> f64 {
    ((i * 7919 + 13) % 1009) as f64 / 400.0 - 1.25
}

fn numbers(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec((0..n).map(|i| number(i) as f32).collect(), shape.to_vec())
}

fn arguments([b, h, q, k, d, v]: Sizes) -> (Tensor, Tensor, Tensor) {
    // Heads of queries and keys are views of what a projection would give.
    let heads = |n: usize, d: usize| numbers(&[b, n, h * d]).reshape([b, n, h, d]).permute([0, 2, 1, 3]);
    (heads(q, d), heads(k, d), numbers(&[b, h, k, v]))
}

fn mask(kind: Mask, [b, _, q, k, ..]: Sizes) -> Tensor {
    match kind {
        Mask::AddedEach => numbers(&[b, 1, q, k]),
        Mask::Blind => {
            let sees = |i: usize| i >= k && !(i * 31).is_multiple_of(7);
            Tensor::from_vec((0..q * k).map(sees).collect(), [q, k])
        }
        Mask::None | Mask::Added | Mask::Causal => numbers(&[q, k]),
    }
}

fn attention(kind: Mask, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Tensor {
    let scores = q.matmul(k.transpose(-1, -2)) * 0.3;
    let scores = match kind {
        Mask::None => scores,
        Mask::Added | Mask::AddedEach => scores + mask,
        Mask::Causal => {
            let (queries, keys) = (scores.size(-2), scores.size(-1));
            let sees = Tensor::arange(0..keys as i64).unsqueeze(0).le(Tensor::arange(0..queries as i64).unsqueeze(1));
            where_(sees, scores, f64::NEG_INFINITY)
        }
        Mask::Blind => where_(mask, scores, f64::NEG_INFINITY),
    };
    scores.softmax(-1).matmul(v)
}

/// The same in plain loops.
fn expected(kind: Mask, [b, h, q, k, d, v]: Sizes) -> Vec<f64> {
    let round = |i: usize| f64::from(number(i) as f32);
    let mut out = Vec::new();
    for (i, j, row) in (0..b).flat_map(|i| (0..h).flat_map(move |j| (0..q).map(move |r| (i, j, r)))) {
        let at = |n: usize, x: usize, f: usize| round(((i * n + x) * h + j) * d + f);
        let score = |key: usize| {
            let s: f64 = (0..d).map(|f| at(q, row, f) * at(k, key, f)).sum::<f64>() * 0.3;
            match kind {
                Mask::None => s,
                Mask::Added => s + round(row * k + key),
                Mask::AddedEach => s + round((i * q + row) * k + key),
                Mask::Causal if key > row => f64::NEG_INFINITY,
                Mask::Blind if row == 0 || ((row * k + key) * 31).is_multiple_of(7) => f64::NEG_INFINITY,
                Mask::Causal | Mask::Blind => s,
            }
        };
        let scores: Vec<f64> = (0..k).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = shares.iter().sum();
        let value = |key: usize, f: usize| round(((i * h + j) * k + key) * v + f);
        out.extend((0..v).map(|f| (0..k).map(|key| shares[key] / sum * value(key, f)).sum::<f64>()));
    }
    out
}

/// `f32` has 24 bits; scores are sums of products, and an error in one is one of the exponential's argument.
fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let near = (f64::from(*a) - b).abs() <= 2e-6 * (1.0 + b.abs());
        assert!(near || (a.is_nan() && b.is_nan()), "{what}: {a} at {i}, expected {b}");
    }
}

#[test]
fn one_kernel_gives_what_plain_loops_give() -> Result<()> {
    for (sizes, kind) in SIZES.iter().flat_map(|s| MASKS.map(|m| (*s, m))) {
        let f = lazuli::compile(move |(q, k, v, m): (Tensor, Tensor, Tensor, Tensor)| attention(kind, &q, &k, &v, &m));
        let (q, k, v) = arguments(sizes);
        let y = f.call((q, k, v, mask(kind, sizes)))?.to_vec::<f32>()?;
        let what = format!("{sizes:?} {kind:?}");
        assert_close(&y, &expected(kind, sizes), &what);
        // Of one query, or one feature, scores are no product of matrices.
        let [_, _, queries, _, features, of_values] = sizes;
        if queries.min(features).min(of_values) == 1 {
            continue;
        }
        let kernels = f.stages()?.kernels().to_string();
        let dots = |kernel: &str| kernel.lines().filter(|l| l.trim_start().starts_with("dot %")).count();
        let dots: Vec<usize> = kernels.split("\nkernel ").map(dots).filter(|n| *n > 0).collect();
        assert_eq!(dots, [2], "{what}: {kernels}");
    }
    Ok(())
}

#[test]
fn a_query_that_sees_nothing_gives_nan_and_no_other_does() -> Result<()> {
    let sizes = [2, 1, 200, 30, 8, 3];
    let f = lazuli::compile(|(q, k, v, m): (Tensor, Tensor, Tensor, Tensor)| attention(Mask::Blind, &q, &k, &v, &m));
    let (q, k, v) = arguments(sizes);
    let y = f.call((q, k, v, mask(Mask::Blind, sizes)))?.to_vec::<f32>()?;
    let blind = |i: usize| (i / 3).is_multiple_of(200);
    assert!(y.iter().enumerate().all(|(i, v)| v.is_nan() == blind(i)));
    Ok(())
}

#[test]
fn heads_masks_and_scales_of_the_library_s_attention_agree_with_eager() -> Result<()> {
    for (is_causal, masked) in [(false, false), (true, false), (false, true)] {
        let sizes = [2, 3, 130, 70, 16, 8];
        let run = move |(q, k, v, m): (Tensor, Tensor, Tensor, Tensor)| {
            let options = Attention { is_causal, mask: masked.then_some(m), ..Default::default() };
            q.scaled_dot_product_attention(&k, &v, options)
        };
        let given = || {
            let (q, k, v) = arguments(sizes);
            (q, k, v, mask(Mask::Blind, sizes))
        };
        let expected: Vec<f64> = run(given()).to_vec::<f32>()?.into_iter().map(f64::from).collect();
        assert_close(
            &lazuli::compile(run).call(given())?.to_vec::<f32>()?,
            &expected,
            &format!("{is_causal} {masked}"),
        );
    }
    Ok(())
}

#[test]
fn bits_do_not_depend_on_threads() -> Result<()> {
    let before = lazuli::get_num_threads();
    let bits = |threads: usize| -> Result<Vec<u32>> {
        lazuli::set_num_threads(threads);
        let f = lazuli::compile(|(q, k, v): (Tensor, Tensor, Tensor)| {
            let y = attention(Mask::None, &q, &k, &v, &q);
            (y.tanh().matmul(v.transpose(-1, -2)).log_softmax(-1), y)
        });
        let (p, y) = f.call(arguments([4, 2, 260, 100, 32, 32]))?;
        Ok([p.to_vec::<f32>()?, y.to_vec::<f32>()?].concat().into_iter().map(f32::to_bits).collect())
    };
    let (one, two, three) = (bits(1)?, bits(2)?, bits(3)?);
    lazuli::set_num_threads(before);
    assert!(one == two && one == three);
    Ok(())
}

/// Whether tensors of `f32` are those of `f64`, up to a share of the largest element.
fn assert_near(found: &[Tensor], expected: &[Tensor], share: f64, what: &str) -> Result<()> {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let (a, b) = (a.to_vec::<f32>()?, b.to_vec::<f64>()?);
        let most = b.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let far = a.iter().zip(&b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        // A gradient that is zero has no largest element.
        assert!(far <= share * most.max(1e-3), "{what}: result {i} is off by {far} of {most}");
    }
    Ok(())
}

/// The gradients of a loss of each element by itself, which come with the result; or of one that depends on all of the result at once,
/// so that they come from a kernel of their own.
fn gradients(kind: Mask, apart: bool, given: [Tensor; 4]) -> Vec<Tensor> {
    let loss = move |(x, mask): &(Vec<Tensor>, Tensor)| {
        let y = attention(kind, &x[0], &x[1], &x[2], mask);
        let weights = (&y * 3.0).sin();
        let weights = if apart { weights.sum(keep(-2)) * 0.01 } else { weights };
        (&y * weights).sum(..)
    };
    let [q, k, v, m] = given;
    let m = m.detach();
    value_and_grad(move |x: &Vec<Tensor>| loss(&(x.clone(), m.clone())))(&vec![q, k, v]).1
}

#[test]
fn gradients_are_those_of_f64() -> Result<()> {
    // Few heads, many; panels that do not divide the queries; scores beyond a core's second cache, which are computed again.
    let sizes = [[1, 1, 40, 33, 8, 8], [2, 3, 197, 65, 16, 16], [2, 4, 333, 450, 16, 24], [4, 2, 128, 600, 32, 32]];
    // Not the last mask: a query that sees nothing gives NaN, which has a test of its own.
    let cases = sizes.iter().flat_map(|s| MASKS[..4].iter().flat_map(move |m| [(*s, *m, false), (*s, *m, true)]));
    for (sizes, kind, apart) in cases {
        let (q, k, v) = arguments(sizes);
        let given = [q, k, v, mask(kind, sizes)];
        let wide = given.clone().map(|x| x.to(DType::F64));
        let f = lazuli::compile(move |x: [Tensor; 4]| gradients(kind, apart, x));
        let found = f.call(given)?;
        // Sums of some hundred terms, each of which was rounded a few times.
        assert_near(&found, &gradients(kind, apart, wide), 2e-5, &format!("{sizes:?} {kind:?} {apart}"))?;
    }
    Ok(())
}

/// The gradient of a softmax as it is written by hand: its rows are read by a contraction, by the sums along them, and again.
fn by_hand(q: &Tensor, k: &Tensor, v: &Tensor) -> Vec<Tensor> {
    let p = q.matmul(k.transpose(-1, -2)).softmax(-1);
    let y = p.matmul(v);
    let dp = y.matmul(v.transpose(-1, -2));
    let ds = (&dp - (&dp * &p).sum(keep(-1))) * &p;
    vec![ds.matmul(k), ds.transpose(-1, -2).matmul(q), p.transpose(-1, -2).matmul(&y)]
}

#[test]
fn rows_are_kept_for_all_that_reads_them() -> Result<()> {
    for sizes in [[2, 3, 40, 33, 8, 8], [2, 4, 197, 300, 16, 8]] {
        let (q, k, v) = arguments(sizes);
        let expected = by_hand(&q.to(DType::F64), &k.to(DType::F64), &v.to(DType::F64));
        let f = lazuli::compile(|(q, k, v): (Tensor, Tensor, Tensor)| by_hand(&q, &k, &v));
        assert_near(&f.call((q, k, v))?, &expected, 2e-5, &format!("{sizes:?}"))?;
    }
    Ok(())
}

/// A small generator of numbers.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A program of contractions between queries, keys and scores, of functions of scores and sums along their rows, by a seed. All values
/// stay near 1.
fn program(seed: u64, q: &Tensor, k: &Tensor, v: &Tensor) -> Vec<Tensor> {
    let mut draws = Draws(seed);
    let (queries, keys) = (q.size(-2) as f64, k.size(-2) as f64);
    let (mut by_query, mut by_key) = (vec![q.clone()], vec![k.clone(), v.clone()]);
    let mut scores = vec![q.matmul(k.transpose(-1, -2)) * 0.3];
    let pick = |draws: &mut Draws, of: &[Tensor]| of[draws.below(of.len())].clone();
    for _ in 0..4 + draws.below(6) {
        let s = pick(&mut draws, &scores);
        match draws.below(9) {
            8 => {
                // The gradient of a softmax by hand, whose rows a contraction, sums along them and a product read.
                let (p, keyed) = (s.softmax(-1), pick(&mut draws, &by_key));
                let y = p.matmul(&keyed);
                let dp = y.matmul(keyed.transpose(-1, -2));
                let ds = (&dp - (&dp * &p).sum(keep(-1))) * &p * keys;
                by_query.push((ds.matmul(&keyed) * (1.0 / keys)).tanh());
                by_key.push((p.transpose(-1, -2).matmul(&y) * (1.0 / queries)).tanh());
            }
            0 => scores.push((pick(&mut draws, &by_query)).matmul(pick(&mut draws, &by_key).transpose(-1, -2)) * 0.3),
            1 => scores.push(s.softmax(-1) * keys),
            2 => scores.push((&s * pick(&mut draws, &scores)).tanh()),
            3 => scores.push(&s - (&s * pick(&mut draws, &scores)).mean(keep(-1)).tanh()),
            4 | 5 => by_query.push((s.matmul(pick(&mut draws, &by_key)) * (1.0 / keys)).tanh()),
            _ => {
                let rows = pick(&mut draws, &by_query);
                by_key.push((s.transpose(-1, -2).matmul(rows) * (1.0 / queries)).tanh());
            }
        }
    }
    let mut results: Vec<Tensor> = [&by_query, &by_key].iter().filter_map(|of| of.last().cloned()).collect();
    if draws.below(3) == 0 {
        results.push(pick(&mut draws, &scores));
    }
    results
}

#[test]
fn random_programs_of_attention_agree_with_f64() -> Result<()> {
    let count = std::env::var("LAZULI_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..count {
        let [queries, keys] = [[40, 33], [197, 70], [64, 64], [130, 300]][seed as usize % 4];
        let (q, k, v) = arguments([2, 3, queries, keys, 8, 8]);
        let expected = program(seed, &q.to(DType::F64), &k.to(DType::F64), &v.to(DType::F64));
        let f = lazuli::compile(move |(q, k, v): (Tensor, Tensor, Tensor)| program(seed, &q, &k, &v));
        // A softmax times the number of keys carries errors on.
        assert_near(&f.call((q, k, v))?, &expected, 1e-3, &format!("seed {seed}"))?;
    }
    Ok(())
}
