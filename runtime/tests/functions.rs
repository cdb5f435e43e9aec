//! Functions as machine code against their meaning on `f64`, over all of `f32`: what is stated of their accuracy holds.
//!
//! Every 2053rd bit pattern is tried; the ignored test tries every 61st, or as `LAZULI_FUNCTION_STRIDE` says (1: minutes a
//! function, in a release build).
//! Worst errors are printed: `cargo test --release -p lazuli-runtime --test functions -- --ignored --nocapture`.

#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "../../ir/tests/accuracy/mod.rs"]
mod accuracy;
mod support;

use accuracy::ulps;
use lazuli_ir::philox::philox;
use lazuli_ir::{BinaryOp, UnaryCode, UnaryOp};
use support::functions::{apply, codes};

fn expanded() -> impl Iterator<Item = UnaryOp> {
    UnaryOp::ALL.iter().copied().filter(|op| match op.row().code {
        UnaryCode::Expand(_) | UnaryCode::ExpandBelow(..) => true,
        UnaryCode::Native(_) | UnaryCode::Call => false,
    })
}

fn worst(op: UnaryOp, inputs: &mut dyn Iterator<Item = f32>) -> (f64, f32) {
    let (code, row) = (codes("f32", &format!("{} %a", op.name())), op.row());
    let mut worst = (0.0, 0.0);
    loop {
        let x: Vec<f32> = inputs.take(1 << 16).collect();
        if x.is_empty() {
            return worst;
        }
        for (x, y) in x.iter().zip(apply(&code, &x, &x)) {
            let error = ulps(y, (row.float)(f64::from(*x)));
            if error > worst.0 {
                worst = (error, *x);
            }
        }
    }
}

fn every(stride: usize) -> impl Iterator<Item = f32> {
    (0..=u32::MAX).step_by(stride).map(f32::from_bits)
}

#[test]
fn accuracy_is_as_stated() {
    for op in expanded() {
        let (error, at) = worst(op, &mut every(2053));
        let stated = op.row().ulps;
        assert!(error <= stated, "{}: {error} ulps at {at:e}, {stated} are stated", op.name());
    }
}

#[test]
#[ignore = "minutes a function"]
fn accuracy_is_as_stated_everywhere() {
    let stride = std::env::var("LAZULI_FUNCTION_STRIDE").ok().and_then(|s| s.parse().ok()).unwrap_or(61);
    let wanted = std::env::var("LAZULI_FUNCTION").ok();
    for op in expanded().filter(|op| wanted.as_ref().is_none_or(|w| w == op.name())) {
        let start = std::time::Instant::now();
        let (error, at) = worst(op, &mut every(stride));
        println!("{}: {error:.3} ulps at {at:e}, {:.1} s", op.name(), start.elapsed().as_secs_f64());
        assert!(error <= op.row().ulps, "{}: {error} ulps at {at:e}", op.name());
    }
}

/// Numbers whose powers are finite, all kinds of numbers, and what is special.
fn pairs(n: u64) -> (Vec<f32>, Vec<f32>) {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.5,
        -0.5,
        1e-45,
        -1e-45,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        16_777_215.0,
        16_777_217.0,
        -2.5,
        0.999_999_94,
        1.000_000_1,
        -1e10,
    ];
    let (mut x, mut y): (Vec<f32>, Vec<f32>) = special.iter().flat_map(|a| special.iter().map(|b| (*a, *b))).unzip();
    for i in 0..n {
        let (a, b) = (philox(1, 1, i), philox(1, 2, i));
        match i % 4 {
            0 => (x.push(f32::from_bits(a)), y.push(f32::from_bits(b))),
            1 => (x.push(f32::from_bits(a & 0x7fff_ffff)), y.push((b % 9) as f32 - 4.0)),
            _ => {
                // A result of any exponent.
                let base = f32::from_bits(0x3000_0000 + a % 0x2000_0000);
                let result = f64::from(b) / f64::from(u32::MAX) * 300.0 - 160.0;
                (x.push(base), y.push((result / f64::from(base).log2()) as f32))
            }
        };
    }
    (x, y)
}

#[test]
fn powers_are_as_accurate_as_stated() {
    let code = codes("f32", "pow %a, %b");
    let (x, y) = pairs(2_000_000);
    let mut worst = (0.0, 0.0, 0.0);
    for (i, found) in apply(&code, &x, &y).into_iter().enumerate() {
        let error = ulps(found, BinaryOp::Pow.float(f64::from(x[i]), f64::from(y[i])));
        if error > worst.0 {
            worst = (error, x[i], y[i]);
        }
    }
    println!("pow: {:.3} ulps at {:e}, {:e}", worst.0, worst.1, worst.2);
    assert!(worst.0 <= BinaryOp::Pow.ulps(), "{} ulps of {:e} to {:e}", worst.0, worst.1, worst.2);
}
