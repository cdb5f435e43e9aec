//! Reductions and accumulations along dims that are not innermost, compiled, against plain loops in double precision: block
//! edges, prime numbers of rows, and rows enough for sums to start anew.

use lazuli::prelude::*;
use lazuli::{Result, keep};

/// Shapes as (outer, rows, columns): the middle dim is reduced.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 16),
    (1, 7, 33),
    (3, 64, 17),
    (1, 4099, 20),
    (1, 20000, 18),
    (2, 5000, 100),
    (1, 97, 1030),
    (1, 256, 1024),
    (40, 12, 130),
];

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i.wrapping_mul(2_654_435_761) >> 7) % 1000) as f32 / 1000.0 + 0.25).collect()
}

/// Each column of the middle dim as a function of its elements.
fn expected(x: &[f32], (outer, rows, columns): (usize, usize, usize), f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let column = |o: usize, c: usize| (0..rows).map(|r| f64::from(x[(o * rows + r) * columns + c])).collect::<Vec<_>>();
    (0..outer).flat_map(|o| (0..columns).map(move |c| (o, c))).map(|(o, c)| f(&column(o, c))).collect()
}

fn close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*a) - b).abs() <= tolerance * b.abs().max(1e-3), "{what} at {i}: {a} for {b}");
    }
}

fn mean(c: &[f64]) -> f64 {
    c.iter().sum::<f64>() / c.len() as f64
}

#[test]
fn columns_are_reduced_as_by_plain_loops() -> Result<()> {
    for shape in SHAPES {
        let (outer, rows, columns) = shape;
        let x = numbers(outer * rows * columns);
        let tensor = Tensor::from_vec(x.clone(), [outer, rows, columns]);
        let reduced = lazuli::compile(|x: Tensor| {
            (x.sum(1), x.amax(1), x.argmax(1), ((&x - x.mean(keep(1))).square() * 2.0).sum(1), x.exp().amin(1))
        });
        let (sum, max, position, spread, least) = reduced.call(&tensor)?;
        close(&format!("sum {shape:?}"), &sum.to_vec::<f32>()?, &expected(&x, shape, |c| c.iter().sum()), 1e-6);
        let largest = |c: &[f64]| c.iter().copied().fold(f64::MIN, f64::max);
        close(&format!("max {shape:?}"), &max.to_vec::<f32>()?, &expected(&x, shape, largest), 0.0);
        let first = |c: &[f64]| {
            let most = largest(c);
            c.iter().position(|v| *v == most).map_or(-1.0, |p| p as f64)
        };
        let positions: Vec<f32> = position.to_vec::<i64>()?.into_iter().map(|p| p as f32).collect();
        close(&format!("argmax {shape:?}"), &positions, &expected(&x, shape, first), 0.0);
        let variance = |c: &[f64]| {
            let mean = mean(c);
            c.iter().map(|v| (v - mean).powi(2) * 2.0).sum()
        };
        close(&format!("spread {shape:?}"), &spread.to_vec::<f32>()?, &expected(&x, shape, variance), 1e-5);
        let smallest = |c: &[f64]| c.iter().copied().fold(f64::MAX, f64::min).exp();
        close(&format!("least {shape:?}"), &least.to_vec::<f32>()?, &expected(&x, shape, smallest), 1e-6);
    }
    Ok(())
}

#[test]
fn columns_are_normalised_and_accumulated_as_by_plain_loops() -> Result<()> {
    for shape in SHAPES {
        let (outer, rows, columns) = shape;
        let x = numbers(outer * rows * columns);
        let tensor = Tensor::from_vec(x.clone(), [outer, rows, columns]);
        let row = rows / 2;
        let along = lazuli::compile(move |x: Tensor| (x.softmax(1), x.cumsum(1)));
        let (softmax, sums) = along.call(&tensor)?;
        let share = |c: &[f64]| c[row].exp() / c.iter().map(|v| v.exp()).sum::<f64>();
        let softmax = softmax.i((.., row, ..)).to_vec::<f32>()?;
        close(&format!("softmax {shape:?}"), &softmax, &expected(&x, shape, share), 1e-5);
        let so_far = |c: &[f64]| c[..=row].iter().sum();
        let sums = sums.i((.., row, ..)).to_vec::<f32>()?;
        close(&format!("cumsum {shape:?}"), &sums, &expected(&x, shape, so_far), 1e-3);
    }
    Ok(())
}

#[test]
fn threads_do_not_change_bits() -> Result<()> {
    let x = Tensor::from_vec(numbers(3000 * 200), [3000, 200]);
    let program = lazuli::compile(|x: Tensor| (x.sum(0), x.softmax(0), x.var(0, lazuli::options::Var::default())));
    let mut all = Vec::new();
    for threads in [1, 2, 5] {
        lazuli::set_num_threads(threads);
        let (a, b, c) = program.call(&x)?;
        let bits = |t: &Tensor| Ok(t.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        all.push([bits(&a)?, bits(&b)?, bits(&c)?]);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    Ok(())
}
