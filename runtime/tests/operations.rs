//! Every operation on every dtype it takes, in scalars and vectors, on contiguous, strided and broadcast operands: machine code
//! gives the bits of the evaluator. Functions that are expanded differ from their meaning by what they state.

#![allow(clippy::panic, clippy::unwrap_used)]

mod support;

use half::{bf16, f16};
use lazuli_ir::kernel::ScalarType;
use lazuli_ir::kernel_eval::{KernelBuffer, KernelData, ThreadOrder, evaluate};
use lazuli_ir::{BinaryCode, BinaryOp, CompareOp, DType, Kernel, Literal, UnaryCode, UnaryOp};
use support::{assert_same, cast, generated};

const AXES: [&str; 4] = ["", "parallel vector(4)", "vector(4) unroll(4)", "unroll(3)"];

/// Values at which operations change their minds.
fn values(dtype: DType) -> Vec<Literal> {
    let floats = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.5,
        -3.5,
        7.25,
        1e-45,
        -1e-40,
        6e-8,
        65504.0,
        65520.0,
        -65519.0,
        16_777_217.0,
        2147483648.0,
        -2147483904.0,
        9.3e18,
        3.4e38,
        1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -0.3,
    ];
    let integers = [
        0,
        1,
        -1,
        2,
        -2,
        3,
        -3,
        7,
        -7,
        8,
        31,
        32,
        63,
        64,
        100,
        127,
        128,
        200,
        255,
        i64::from(i32::MAX),
        i64::from(i32::MIN),
        i64::MAX,
        i64::MIN,
        1 << 40,
    ];
    let mut out: Vec<Literal> = match dtype {
        DType::Bool => vec![Literal::Bool(false), Literal::Bool(true)],
        d if d.is_float() => floats.iter().map(|v| Literal::from_f64(d, *v)).collect(),
        d => integers.iter().map(|v| Literal::from_i64(d, *v)).collect(),
    };
    let mut seen = Vec::new();
    out.retain(|v| {
        let new = !seen.contains(v);
        seen.push(*v);
        new
    });
    out
}

/// What an operation's result may be off by.
#[derive(Clone, Copy)]
enum Allowed {
    Nothing,
    Ulps(f64),
}

/// Runs `expr`, an operation on `%a` and `%b` that gives `to`, on pairs of values in three layouts.
fn check(name: &str, from: (DType, DType), to: DType, expr: &str, allowed: Allowed) {
    let (x, y) = (values(from.0), values(from.1));
    let pairs: Vec<(Literal, Literal)> = x.iter().flat_map(|a| y.iter().map(|b| (*a, *b))).collect();
    let n = pairs.len();
    let apart = |v: &mut dyn Iterator<Item = Literal>| v.flat_map(|v| [v, v]).collect::<Vec<_>>();
    let round = match to {
        DType::F16 => "round_f16",
        DType::BF16 => "round_bf16",
        _ => "",
    };
    for axis in AXES {
        let mut body = String::new();
        for (k, (a, b)) in [("%x[%i]", "%y[%i]"), ("%xs[%i]", "%ys[%i]"), ("%x[%i]", "%yb[%i]"), ("%xb[%i]", "%y[%i]")]
            .iter()
            .enumerate()
        {
            let op = expr.replace("%a", &format!("%a{k}")).replace("%b", &format!("%b{k}"));
            body += &format!("%a{k} = load {a}\n %b{k} = load {b}\n");
            body += &match round {
                "" => format!("store %o{k}[%i], {op}\n"),
                _ => format!("store %o{k}[%i], {round} ({op})\n"),
            };
        }
        let (f, g) = (from.0.name(), from.1.name());
        let text = format!(
            "kernel {name}(%x: {f}[n], %y: {g}[n], %xs: {f}[n] strides(?), %ys: {g}[n] strides(2), %xb: {f}[n] strides(0), %yb: {g}[n] strides(0),
               %o0: mut {to}[n], %o1: mut {to}[n] strides(?), %o2: mut {to}[n], %o3: mut {to}[n]) extents(n) {{
               loop %i in n {axis} {{ {body} }}
             }}"
        );
        let kernel = Kernel::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let new = |dtype, v: Vec<Literal>| KernelBuffer::new(cast(dtype, v));
        let step = |b: KernelBuffer| KernelBuffer { strides: vec![2], ..b };
        let out = |n| KernelBuffer::new(KernelData::zeros(to, n));
        let mut buffers = vec![
            new(from.0, pairs.iter().map(|p| p.0).collect()),
            new(from.1, pairs.iter().map(|p| p.1).collect()),
            step(new(from.0, apart(&mut pairs.iter().map(|p| p.0)))),
            new(from.1, apart(&mut pairs.iter().map(|p| p.1))),
            new(from.0, vec![x[x.len() / 2]]),
            new(from.1, vec![y[y.len() / 2]]),
            out(n),
            step(out(2 * n)),
            out(n),
            out(n),
        ];
        let all = generated(&kernel, &buffers, &[n as u64], &[]);
        evaluate(&kernel, &mut buffers, &[n as u64], &[], ThreadOrder::Forward)
            .unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        for (name, found) in all {
            for (number, (found, expected)) in found.iter().zip(&buffers).enumerate() {
                match allowed {
                    Allowed::Nothing => assert_same(found, &expected.data, number, &kernel, &name),
                    Allowed::Ulps(ulps) => assert_near(found, &expected.data, ulps, &kernel),
                }
            }
        }
    }
}

fn assert_near(found: &KernelData, expected: &KernelData, ulps: f64, kernel: &Kernel) {
    let (unit, least) = match expected.dtype() {
        DType::F16 => (2f64.powi(-10), 2f64.powi(-24)),
        DType::BF16 => (2f64.powi(-7), 2f64.powi(-133)),
        DType::F64 => (2f64.powi(-52), 5e-324),
        _ => (2f64.powi(-23), 2f64.powi(-149)),
    };
    for (a, b) in found.literals().zip(expected.literals()) {
        let (a, b) = (a.as_f64(), b.as_f64());
        let near = (a - b).abs() <= (ulps + 1.0) * (b.abs() * unit).max(least);
        assert!(a == b || near || (a.is_nan() && b.is_nan()), "{a}, expected {b}\n{kernel}");
    }
}

#[test]
fn unary_operations() {
    for op in UnaryOp::ALL {
        let row = op.row();
        for dtype in DType::ALL.into_iter().filter(|d| row.domain.contains(*d)) {
            let allowed = match row.code {
                UnaryCode::Expand(_) | UnaryCode::ExpandBelow(..) if row.ulps > 0.5 => Allowed::Ulps(row.ulps),
                _ => Allowed::Nothing,
            };
            check(row.name, (dtype, DType::Bool), dtype, &format!("{} %a", row.name), allowed);
        }
    }
}

#[test]
fn binary_operations() {
    for op in BinaryOp::ALL {
        for dtype in DType::ALL.into_iter().filter(|d| op.domain().contains(*d)) {
            let allowed = match op.code(dtype.into()) {
                BinaryCode::Expand(_) => Allowed::Ulps(op.ulps()),
                BinaryCode::Native | BinaryCode::Call => Allowed::Nothing,
            };
            check(op.name(), (dtype, dtype), dtype, &format!("{} %a, %b", op.name()), allowed);
        }
    }
}

#[test]
fn comparisons_and_selection() {
    for dtype in DType::ALL {
        for op in CompareOp::ALL {
            check(op.name(), (dtype, dtype), DType::Bool, &format!("{} %a, %b", op.name()), Allowed::Nothing);
        }
        check("choose", (dtype, dtype), dtype, "select (lt %a, %b), %a, %b", Allowed::Nothing);
    }
}

#[test]
fn conversions() {
    for from in DType::ALL {
        for to in DType::ALL {
            let ty = ScalarType::from(to).name();
            check("convert", (from, DType::Bool), to, &format!("convert {ty} %a"), Allowed::Nothing);
        }
    }
}

/// Runs one kernel over many inputs: all vectors must give the same.
fn map(text: &str, x: KernelData, to: DType) -> KernelData {
    let n = x.len();
    let kernel = Kernel::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let buffers = [KernelBuffer::new(x), KernelBuffer::new(KernelData::zeros(to, n))];
    let mut all = generated(&kernel, &buffers, &[n as u64], &[]);
    let first = all.remove(0).1.remove(1);
    for (name, found) in all {
        assert_same(&found[1], &first, 1, &kernel, &name);
    }
    first
}

/// All `f32` whose upper half any, and whose lower half is around ties of both half types.
fn dense() -> Vec<f32> {
    let lows =
        [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x7fff, 0x8000, 0x8001, 0xefff, 0xf000, 0xf001, 0xffff];
    (0..=u16::MAX).flat_map(|high| lows.map(|low| f32::from_bits(u32::from(high) << 16 | low))).collect()
}

#[test]
fn halves_convert_as_their_crate_does() {
    for axis in ["", "vector(4) unroll(2)"] {
        for dtype in [DType::F16, DType::BF16] {
            let (h, round) = (dtype.name(), if dtype == DType::F16 { "round_f16" } else { "round_bf16" });
            let as_f32 = |bits: u16| {
                if dtype == DType::F16 { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() }
            };
            let all = cast(dtype, (0..=u16::MAX).map(|bits| Literal::from_bits(dtype, u64::from(bits))));
            let widen = format!(
                "kernel w(%x: {h}[n], %y: mut f32[n]) extents(n) {{ loop %i in n {axis} {{ store %y[%i], load %x[%i] }} }}"
            );
            let wide = map(&widen, all, DType::F32).to_vec::<f32>();
            for (bits, found) in (0..=u16::MAX).zip(wide) {
                let expected = as_f32(bits);
                assert!(
                    found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                    "{h} {bits:#x}"
                );
            }
            let x = dense();
            let narrow = format!(
                "kernel n(%x: f32[n], %y: mut {h}[n]) extents(n) {{ loop %i in n {axis} {{ store %y[%i], load %x[%i] }} }}"
            );
            let rounded = format!(
                "kernel r(%x: f32[n], %y: mut f32[n]) extents(n) {{ loop %i in n {axis} {{ store %y[%i], {round} (load %x[%i]) }} }}"
            );
            let narrow = map(&narrow, x.clone().into(), dtype);
            let rounded = map(&rounded, x.clone().into(), DType::F32).to_vec::<f32>();
            for ((x, narrow), rounded) in x.into_iter().zip(narrow.literals()).zip(rounded) {
                let expected = if dtype == DType::F16 { f16::from_f32(x).to_f32() } else { bf16::from_f32(x).to_f32() };
                let found = narrow.as_f64() as f32;
                let same = |v: f32| v.to_bits() == expected.to_bits() || (v.is_nan() && expected.is_nan());
                assert!(
                    same(found) && same(rounded),
                    "{x:e} ({:#x}) as {h}: {found}, {rounded}, {expected}",
                    x.to_bits()
                );
            }
        }
    }
}
