//! Functions of `f64` as machine code against numbers of 160 bits: what is stated of their accuracy holds.
//!
//! Inputs are numbers of all exponents, and ones where a function is neither constant nor its argument. The ignored test tries more of
//! them: `LAZULI_FUNCTION_INPUTS` a function, or a million.

#![allow(clippy::panic, clippy::unwrap_used)]

mod support;

use dashu_float::FBig;
use lazuli_ir::philox::philox;
use lazuli_ir::{UnaryCode, UnaryOp};
use support::functions::{apply, codes};

const BITS: usize = 160;

fn big(x: f64) -> FBig {
    FBig::try_from(x).unwrap().with_precision(BITS).value()
}

/// `2/sqrt(pi) e^-x^2 x (1 + 2x^2/3 (1 + 2x^2/5 (..)))`, all terms positive.
fn erf(x: &FBig) -> FBig {
    let square = x * x;
    let (mut term, mut sum) = (x.clone(), x.clone());
    for n in 1..400 {
        term = term * &square * big(2.0) / big(f64::from(2 * n + 1));
        sum += &term;
    }
    let power = (-square).exp();
    big(2.0) / FBig::pi(BITS).sqrt() * power * sum
}

/// The exact result; `None` where the result on `f64` is.
fn exact(op: UnaryOp, x: f64) -> Option<FBig> {
    let (v, one) = (big(x), big(1.0));
    Some(match op {
        UnaryOp::Exp if x.abs() < 800.0 => v.exp(),
        UnaryOp::Exp2 if x.abs() < 1100.0 => (v * big(2.0).ln()).exp(),
        UnaryOp::Expm1 if x.abs() < 800.0 && x != 0.0 => v.exp_m1(),
        UnaryOp::Log if x > 0.0 => v.ln(),
        UnaryOp::Log2 if x > 0.0 => v.ln() / big(2.0).ln(),
        UnaryOp::Log1p if x > -1.0 && x != 0.0 => v.ln_1p(),
        UnaryOp::Sin if x != 0.0 => v.sin(),
        UnaryOp::Cos => v.cos(),
        UnaryOp::Tanh if x.abs() < 40.0 && x != 0.0 => {
            let double = (&v + &v).exp_m1();
            &double / (&double + big(2.0))
        }
        UnaryOp::Erf if x.abs() < 7.0 && x != 0.0 => erf(&v),
        UnaryOp::Sigmoid if x.abs() < 800.0 => &one / (&one + (-v).exp()),
        UnaryOp::Rsqrt if x > 0.0 => &one / v.sqrt(),
        UnaryOp::Reciprocal if x != 0.0 => &one / v,
        _ => return None,
    })
}

/// The distance in units in the last place of the exact result; infinity counts as 2^1024.
fn ulps(op: UnaryOp, x: f64, found: f64) -> f64 {
    let meaning = (op.row().float)(x);
    let exact = if x.is_finite() { exact(op, x) } else { None };
    let Some(exact) = exact else {
        let same = found.to_bits() == meaning.to_bits() || (found.is_nan() && meaning.is_nan());
        return if same { 0.0 } else { f64::INFINITY };
    };
    if found.is_nan() || (found != 0.0 && found.is_sign_negative() != meaning.is_sign_negative()) {
        return f64::INFINITY;
    }
    let (two, zero) = (big(2.0), big(0.0));
    let (most, exact) = (two.powi(1024.into()), if exact < zero { -exact } else { exact });
    let exact = if exact > most { most.clone() } else { exact };
    let exponent = (exact.to_f64().value().to_bits() >> 52) as i32 - 1023;
    let unit = two.powi((exponent.clamp(-1022, 1023) - 52).into());
    let found = if found.is_infinite() { most } else { big(found.abs()) };
    ((found - exact) / unit).to_f64().value().abs()
}

/// Numbers of all exponents, around the bounds of functions, and special ones.
fn inputs(n: u64) -> Vec<f64> {
    let mut x = vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX, f64::MIN, 5e-324, -5e-324];
    x.extend([
        f64::MIN_POSITIVE,
        -f64::MIN_POSITIVE,
        1.0,
        -1.0,
        0.5,
        2.0,
        1.0 - f64::EPSILON / 2.0,
        1.0 + f64::EPSILON,
    ]);
    x.extend([
        709.782_712_893_384,
        709.782_712_893_385,
        -745.133_219_101_941,
        -745.133_219_101_942,
        -708.4,
        1024.0,
        -1074.0,
    ]);
    x.extend([-1075.0, -1075.5, 1_023.999_999_999, 5.92, 5.95, 19.06, 37.4, -37.4, 710.0, -746.0, 1e5, 99_999.999]);
    // The multiples of pi/2 next to a number, below the limit of sines and beyond.
    x.extend([
        std::f64::consts::FRAC_PI_2,
        6_381_956_970_095_103.0,
        5_319_372_648_326_541.0,
        37_362.951_033_213_7,
        33.0,
    ]);
    x.extend((1..200).map(|k| f64::from(k * k) * std::f64::consts::FRAC_PI_2));
    for i in 0..n {
        let word = |draw| u64::from(philox(9, draw, i));
        let (bits, unit) = (word(0) << 32 | word(1), word(2) as f64 / f64::from(u32::MAX) * 2.0 - 1.0);
        let low = f64::from(word(3) as u32) * 1e-14;
        x.push(match i % 8 {
            0 => f64::from_bits(bits),
            1 => f64::from_bits((bits & 0x800f_ffff_ffff_ffff) | (1003 + word(3) % 30) << 52),
            2 => unit * 750.0 + low,
            3 => unit * 40.0 + low,
            4 => unit * 6.0 + low,
            5 => unit + low,
            6 => 1.0 + unit * 0.5 + low,
            _ => unit * 1e5 + low,
        });
    }
    x
}

fn check(n: u64) {
    let wanted = std::env::var("LAZULI_FUNCTION").ok();
    let x = inputs(n);
    for op in UnaryOp::ALL.iter().filter(|op| wanted.as_ref().is_none_or(|w| w == op.name())) {
        let row = op.row();
        if !matches!(row.code, UnaryCode::Expand(_) | UnaryCode::ExpandBelow(..)) || row.ulps == 0.0 {
            continue;
        }
        let found = apply(&codes("f64", &format!("{} %a", row.name)), &x, &x);
        let errors = x.iter().zip(&found).map(|(x, y)| (ulps(*op, *x, *y), *x, *y));
        let (worst, at, result) = errors.fold((0.0, 0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        println!("{}: {worst:.3} ulps at {at:e} ({result:e})", row.name);
        assert!(worst <= row.ulps, "{}: {worst} ulps at {at:e} ({result:e}), {} are stated", row.name, row.ulps);
    }
}

#[test]
fn accuracy_is_as_stated() {
    check(4_000);
}

#[test]
#[ignore = "minutes a function"]
fn accuracy_is_as_stated_of_many() {
    check(std::env::var("LAZULI_FUNCTION_INPUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000));
}
