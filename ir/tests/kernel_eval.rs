//! The evaluator of kernels against straightforward Rust, in both orders of threads, and its errors.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::kernel_eval::{KernelBuffer, ThreadOrder, evaluate};
use lazuli_ir::philox::{philox, uniform};
use lazuli_ir::{ErrorKind, Kernel, Literal};

/// Numbers without a pattern, in [-2, 2).
fn noise(n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| 4.0 * uniform(philox(7, 1, i)) - 2.0).collect()
}

fn run(text: &str, buffers: &[KernelBuffer], extents: &[u64], scalars: &[Literal]) -> Vec<KernelBuffer> {
    let kernel = Kernel::parse(text).unwrap();
    let [forward, reversed] = [ThreadOrder::Forward, ThreadOrder::Reversed].map(|order| {
        let mut buffers = buffers.to_vec();
        evaluate(&kernel, &mut buffers, extents, scalars, order).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        buffers
    });
    assert_eq!(forward, reversed, "the order of threads shows in\n{kernel}");
    forward
}

fn floats(buffer: &KernelBuffer) -> Vec<f32> {
    buffer.data.to_vec()
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() <= 1e-5 * b.abs().max(1.0), "element {i}: {a}, expected {b}");
    }
}

#[test]
fn softmax_over_rows() {
    let x = noise(3 * 512);
    let buffers = [x.clone().into(), vec![0.0f32; x.len()].into()];
    let out = run(include_str!("kernels/softmax.txt"), &buffers, &[3], &[]);
    let mut expected = Vec::new();
    for row in x.chunks(512) {
        let exps: Vec<f64> = row.iter().map(|v| f64::from(*v).exp()).collect();
        let sum: f64 = exps.iter().sum();
        expected.extend(exps.iter().map(|e| e / sum));
    }
    assert_close(&floats(&out[1]), &expected);
}

#[test]
fn linear_relu_by_panels() {
    let (m, n, k) = (11, 12, 20);
    let (a, b, bias) = (noise(m * k), noise(k * n), noise(n));
    let buffers = [a.clone().into(), b.clone().into(), bias.clone().into(), vec![-1.0f32; m * n].into()];
    let out = run(include_str!("kernels/linear_relu.txt"), &buffers, &[m as u64], &[]);
    let mut expected = Vec::new();
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let sum: f64 = (0..k).map(|k2| f64::from(a[i * k + k2]) * f64::from(b[k2 * n + j])).sum();
        expected.push((sum + f64::from(bias[j])).max(0.0));
    }
    assert_close(&floats(&out[3]), &expected);
}

#[test]
fn column_sums_of_a_strided_view() {
    // Five rows of 6, of a matrix with 9 columns, from its third element.
    let x = noise(60);
    let view = KernelBuffer { data: x.clone().into(), offset: 2, strides: vec![9] };
    let out = run(include_str!("kernels/column_sum.txt"), &[view, vec![0.0f32; 6].into()], &[5], &[Literal::F32(0.5)]);
    let expected: Vec<f64> = (0..6).map(|j| 0.5 * (0..5).map(|i| f64::from(x[2 + 9 * i + j])).sum::<f64>()).collect();
    assert_close(&floats(&out[1]), &expected);
}

#[test]
fn a_parallel_reduce_combines_chunks_and_finishes() {
    let text = include_str!("kernels/mean_and_argmax.txt");
    for n in [1usize, 16, 17, 100] {
        let mut x = noise(n);
        if n == 100 {
            // Of two NaN, the first wins.
            (x[40], x[90]) = (f32::NAN, f32::NAN);
        }
        let buffers = [x.clone().into(), vec![0.0f32].into(), vec![-1i64].into()];
        let out = run(text, &buffers, &[n as u64], &[Literal::F32(1.0 / n as f32)]);
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let position = if n == 100 { 40 } else { x.iter().position(|v| *v == largest).unwrap() as i64 };
        assert_eq!(out[2], vec![position].into());
        match n {
            100 => assert!(floats(&out[1])[0].is_nan()),
            _ => assert_close(&floats(&out[1]), &[x.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64]),
        }
    }
    let out = run(text, &[vec![0.0f32; 0].into(), vec![1.0f32].into(), vec![0i64].into()], &[0], &[Literal::F32(2.0)]);
    assert_eq!((&out[1], &out[2]), (&vec![0.0f32].into(), &vec![i64::MAX].into()));
}

#[test]
fn masked_loads_pad() {
    let x: Vec<i64> = (1..13).collect();
    let out = run(include_str!("kernels/pad.txt"), &[x.into(), vec![0i64; 56].into()], &[], &[]);
    let expected: Vec<i64> = (0..56)
        .map(|at| match (at / 7, at % 7) {
            (i @ 2..5, j @ 1..5) => (i - 2) * 4 + j,
            _ => -1,
        })
        .collect();
    assert_eq!(out[1], expected.into());
}

#[test]
fn integers_wrap_and_conversions_are_those_of_x86() {
    let text = "kernel k(%x: f32[4], %y: mut i64[4], %z: mut bool[4]) {
      loop %i in 4 {
        %v = load %x[%i]
        store %y[%i], add (convert i64 %v), 9223372036854775807
        store %z[%i], convert bool %v
        %n = xor (shl (convert i32 %v), 31i32), (ushr -1i32, 28i32)
        guard (eq %i32_is_wide, true) { store %y[%i], convert i64 %n }
      }
    }"
    .replace("%n = xor", "%i32_is_wide = lt (load %x[%i]), -1e30\n %n = xor");
    let x = vec![1.5, f32::NAN, -0.0, f32::NEG_INFINITY];
    let out = run(&text, &[x.into(), vec![0i64; 4].into(), vec![false; 4].into()], &[], &[]);
    assert_eq!(out[1], vec![i64::MIN, -1, i64::MAX, 15].into());
    assert_eq!(out[2], vec![true, true, false, true].into());
}

#[test]
fn random_numbers_are_philox() {
    let text = "kernel k(%seed: i64[2], %y: mut f32[5]) {
      loop %i in 5 parallel {
        store %y[%i], random (load %seed[0]), (load %seed[1]), (index %i)
      }
    }";
    let out = run(text, &[vec![42i64, 3].into(), vec![0.0f32; 5].into()], &[], &[]);
    assert_eq!(floats(&out[1]), (0..5).map(|i| uniform(philox(42, 3, i))).collect::<Vec<_>>());
}

#[test]
fn tiles_of_halves_hold_halves() {
    let text = "kernel k(%x: f32[2,2], %y: mut f32[2,2]) {
      tile %h: bf16[2,2]
      loop %i in 2 { loop %j in 2 { store %h[%i,%j], load %x[%i,%j] } }
      tile %t: f32[2,2]
      fill %t, 0.0
      dot %t[%r,%c], %h[%r,%k], %h[%k,%c] over %k in 2
      loop %i in 2 { loop %j in 2 { store %y[%i,%j], load %t[%i,%j] } }
    }";
    // Of 257, nine bits, bf16 holds eight: 256. And 3 * 2^-9 beside 1 is 2^-7.
    let out = run(text, &[vec![257.0f32, 0.0, 0.0, 1.0 + 3.0 / 512.0].into(), vec![0.0f32; 4].into()], &[], &[]);
    assert_eq!(floats(&out[1]), [65536.0, 0.0, 0.0, (1.0f32 + 1.0 / 128.0) * (1.0 + 1.0 / 128.0)]);
}

#[test]
fn what_compiled_code_would_get_wrong_is_an_error() {
    for (body, message) in [
        ("loop %i in n { store %y[%i], load %x[%i + 1] }", "load %x[4] is out of range"),
        ("loop %i in n { store %y[0 - %i], 1.0 }", "store %y[-1] is out of range"),
        ("tile %t: f32[4] store %y[0], load %t[1]", "load %t[1] reads what nothing wrote"),
        ("tile %t: f32[4] valid(n - 1) loop %i in n { store %t[%i], 1.0 }", "store %t[3] is out of range"),
        (
            "tile %t: f32[1,1] tile %u: f32[1,1] fill %u, 1.0 dot %t[%r,%c], %u[%r,%k], %u[%k,%c] over %k in 1",
            "dot adds to %t[0,0], which nothing wrote",
        ),
        (
            "loop %i in n { check (lt (index %i), 2), site 5, (index %i*10) at %i }",
            "check 5 failed at element 2, with the value 20",
        ),
    ] {
        let text = format!("kernel k(%x: f32[n], %y: mut f32[n]) extents(n) {{ {body} }}");
        let kernel = Kernel::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut buffers = [vec![0.0f32; 4].into(), vec![0.0f32; 4].into()];
        let error = evaluate(&kernel, &mut buffers, &[4], &[], ThreadOrder::Forward).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Index, format!("kernel k: {message}").as_str()));
    }
    let kernel = Kernel::parse("kernel k(%x: f32[4], %y: mut f32[4]) { store %y[3], load %x[3] }").unwrap();
    let mut short = [vec![0.0f32; 3].into(), vec![0.0f32; 4].into()];
    let error = evaluate(&kernel, &mut short, &[], &[], ThreadOrder::Forward).unwrap_err();
    assert_eq!(error.message(), "kernel k: load %x[3] is beyond the storage");
}

#[test]
fn schedules_for_a_grid_run_as_those_for_threads() {
    let cpu = include_str!("kernels/softmax.txt");
    // One warp a row, the row in registers.
    let gpu = cpu
        .replace("parallel", "grid.x")
        .replace("f32[512]\n", "f32[512] scope=register\n")
        .replace("vector(4) unroll(4)", "lane unroll(16)")
        .replace("vector(4)", "lane unroll(16)");
    let buffers = [noise(2 * 512).into(), vec![0.0f32; 2 * 512].into()];
    assert_eq!(run(&gpu, &buffers, &[2], &[]), run(cpu, &buffers, &[2], &[]));

    let transpose = "kernel transpose(%x: f32[8,4], %y: mut f32[4,8]) {
      loop %p in 2 grid.x {
        tile %t: f32[4,5] scope=block
        loop %a in 4 block, %b in 4 { store %t[%a,%b], load %x[%p*4 + %a,%b] }
        barrier
        loop %c in 4 block, %d in 4 { store %y[%c,%p*4 + %d], load %t[%d,%c] }
      }
    }";
    let x = noise(32);
    let out = run(transpose, &[x.clone().into(), vec![0.0f32; 32].into()], &[], &[]);
    assert_eq!(floats(&out[1]), (0..32).map(|i| x[i % 8 * 4 + i / 8]).collect::<Vec<_>>());
}

#[test]
fn a_race_shows_in_the_other_order() {
    let text = "kernel race(%y: mut i64[1]) {
      tile %t: i64[1] scope=block
      loop %a in 4 block { store %t[0], index %a }
      barrier
      store %y[0], load %t[0]
    }";
    let kernel = Kernel::parse(text).unwrap();
    let [forward, reversed] = [ThreadOrder::Forward, ThreadOrder::Reversed].map(|order| {
        let mut buffers = [vec![-1i64].into()];
        evaluate(&kernel, &mut buffers, &[], &[], order).unwrap();
        buffers
    });
    assert_eq!((forward, reversed), ([vec![3i64].into()], [vec![0i64].into()]));
}
