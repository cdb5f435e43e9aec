//! Generated code against the evaluator of kernels: loops, layouts, reductions, tiles, awkward extents, several chunkings.

#![allow(clippy::panic, clippy::unwrap_used)]

mod support;

use half::{bf16, f16};
use lazuli_ir::kernel_eval::KernelBuffer;
use lazuli_ir::philox::{philox, uniform};
use lazuli_ir::program::{CheckSite, Requirement};
use lazuli_ir::{ErrorKind, Kernel, Layout, Literal, Shape, Sources};
use lazuli_runtime::cpu::{CompileOptions, LaunchArg, Vectors, compile_with, host_target, launch};
use support::{array, code, generated, integers, noise, run, small, specials, truths};

const EXTENTS: [u64; 9] = [0, 1, 3, 4, 5, 15, 16, 37, 130];
const AXES: [&str; 6] =
    ["", "parallel", "parallel vector(4)", "vector(4) unroll(4)", "parallel vector(4) unroll(2)", "unroll(3)"];

#[test]
fn elementwise_floats_with_special_values() {
    for (n, axis) in EXTENTS.iter().flat_map(|n| AXES.map(|a| (*n as usize, a))) {
        let text = format!(
            "kernel e(%x: f32[n], %y: f32[n], %out: mut f32[n], %b: mut bool[n], %k: mut i64[n]) extents(n) scalars(%s: f32) {{
               loop %i in n {axis} {{
                 %v = load %x[%i]
                 %w = load %y[%i]
                 %m = max (mul %v, %w), (sub %v, %s)
                 %q = min (div %m, %w), (neg %v)
                 %c = lt %v, %w
                 %z = select %c, (abs %q), (sqrt %q)
                 store %out[%i], add %z, %s
                 store %b[%i], or (ge %v, %s), (ne %w, %w)
                 store %k[%i], convert i64 %v
               }}
             }}"
        );
        let mut y = specials(n);
        y.reverse();
        let buffers: [KernelBuffer; 5] =
            [specials(n).into(), y.into(), vec![0.5f32; n].into(), vec![false; n].into(), vec![7i64; n].into()];
        run(&text, &buffers, &[n as u64], &[Literal::F32(0.75)], 0.0);
    }
}

#[test]
fn integers_and_truth_values() {
    for (n, axis) in EXTENTS.iter().flat_map(|n| AXES.map(|a| (*n as usize, a))) {
        let text = format!(
            "kernel e(%x: i64[n], %y: i64[n], %b: bool[n], %out: mut i64[n], %o: mut bool[n], %f: mut f32[n]) extents(n) {{
               loop %i in n {axis} {{
                 %v = load %x[%i]
                 %w = load %y[%i]
                 %c = load %b[%i]
                 %m = max (mul %v, %w), (sub %v, (index 3*%i + 2))
                 %q = min %m, (neg (abs %w))
                 %z = select %c, %q, (add %v, (convert i64 %c))
                 store %out[%i], %z
                 %d = max (le %v, %w), (min %c, (eq %v, 7))
                 store %o[%i], xor %d, (convert bool %v)
                 store %f[%i], add (convert f32 %z), (convert f32 %d)
               }}
             }}"
        );
        let text = text.replace("3*%i", "%i*3");
        let mut y = integers(n);
        y.reverse();
        let mut x = integers(n);
        if let [a, .., b] = x.as_mut_slice() {
            (*a, *b) = (i64::MIN, i64::MAX);
        }
        let buffers: [KernelBuffer; 6] =
            [x.into(), y.into(), truths(n).into(), vec![0i64; n].into(), vec![false; n].into(), vec![0f32; n].into()];
        run(&text, &buffers, &[n as u64], &[], 0.0);
    }
}

#[test]
fn random_numbers_are_those_of_the_generator() {
    let text = "kernel r(%base: i64[2], %y: mut f32[n]) extents(n) {
      loop %i in n parallel vector(4) unroll(2) {
        %seed = load %base[0]
        %draw = load %base[1]
        store %y[%i], random %seed, %draw, (index %i)
      }
    }";
    run(text, &[vec![-5i64, 42].into(), vec![0f32; 67].into()], &[67], &[], 0.0);
}

#[test]
fn layouts_gather_and_scatter() {
    // Transposed, reversed, broadcast and stepped operands; run-time and constant strides; division in an index.
    let text = "kernel l(%x: f32[m,n] strides(?,?), %r: f32[n] strides(0), %c: f32[12,10] strides(1,12), %y: mut f32[m,n], %z: mut f32[n,m] strides(?,1), %w: mut i64[m,n])
      extents(m,n) {
      loop %i in m parallel {
        loop %j in n parallel AXIS {
          %v = add (load %x[%i,%j]), (load %r[%j])
          %q = add %v, (load %c[%i,%j])
          store %y[%i,%j], %q
          store %z[%j,%i], %v
          store %w[%i,%j], index (%i*10 + %j) / 7 + (%j + %i*3) % 5
        }
      }
    }";
    for axis in AXES {
        let text = text.replace("AXIS", axis.strip_prefix("parallel").unwrap_or(axis));
        for (m, n) in [(0, 3), (1, 10), (12, 10), (7, 5), (5, 9)] {
            let x = KernelBuffer { data: noise(400).into(), offset: 399, strides: vec![-1, -13] };
            let z = KernelBuffer { data: vec![0f32; 200].into(), offset: 0, strides: vec![m as i64 + 1] };
            let buffers =
                [x, vec![3f32].into(), noise(120).into(), vec![0f32; m * n].into(), z, vec![0i64; m * n].into()];
            run_loose(&text, &buffers, &[m as u64, n as u64]);
        }
    }
}

/// Parameters with run-time inner extents have run-time strides; the text leaves them to the reader.
fn run_loose(text: &str, buffers: &[KernelBuffer], extents: &[u64]) {
    let text = text.replace("%y: mut f32[m,n],", "%y: mut f32[m,n] strides(?,1),");
    let text = text.replace("%w: mut i64[m,n])", "%w: mut i64[m,n] strides(?,1))");
    let mut buffers = buffers.to_vec();
    for k in [3, 5] {
        buffers[k].strides = vec![extents[1] as i64];
    }
    run(&text, &buffers, extents, &[], 0.0);
}

#[test]
fn pads_are_masked() {
    for axis in AXES {
        for body in ["select %inside, (load %x[%i - 2,%j - 1] if %inside), -1", "load %x[%i - 2,%j - 1] if %inside"] {
            let text = format!(
                "kernel pad(%x: i64[3,4], %y: mut i64[8,7], %b: bool[3,4], %c: mut bool[8,7]) {{
                   loop %i in 8 parallel {{ loop %j in 7 {axis} {{
                     %row = index %i - 2
                     %column = index %j - 1
                     %rows = and (ge %row, 0), (lt %row, 3)
                     %columns = and (ge %column, 0), (lt %column, 4)
                     %inside = and %rows, %columns
                     store %y[%i,%j], {body}
                     %t = load %b[%i - 2,%j - 1] if %inside
                     store %c[%i,%j], %t if %inside
                     guard %columns {{ store %c[%i,%j], ne %t, %rows }}
                   }} }}
                 }}"
            );
            let buffers = [integers(12).into(), vec![9i64; 56].into(), truths(12).into(), vec![true; 56].into()];
            run(&text, &buffers, &[], &[], 0.0);
        }
    }
}

/// Lanes that lie apart, in rows of which some do not exist: what is outside of the buffer must not be read.
#[test]
fn steps_along_rows_that_are_masked() {
    for (n, step) in [1, 5, 16, 37, 130].into_iter().flat_map(|n| [2, 3, 8, 20, -1, -8, -20].map(|step| (n, step))) {
        let width = (n - 1) * i64::abs(step) + 1;
        let first = if step < 0 { width - 1 } else { 0 };
        let load = format!("load %x[%i - 2,%j*{step} + {first}]");
        for body in [
            format!("store %y[%i,%j], mul 2.0, ({load} if %row)"),
            format!("store %y[%i,%j], exp ({load} if %row)"),
            format!("guard %row {{ store %y[%i,%j], exp ({load}) }}"),
        ] {
            let text = format!(
                "kernel s(%x: f32[2,{width}], %y: mut f32[5,{n}]) {{
                   loop %i in 5 parallel {{ loop %j in {n} vector(4) {{
                     %above = index %i - 2
                     %row = and (ge %above, 0), (lt %above, 2)
                     {body}
                   }} }}
                 }}"
            );
            let buffers = [noise(2 * width as usize).into(), vec![9f32; 5 * n as usize].into()];
            run(&text, &buffers, &[], &[], 1e-6);
        }
    }
}

#[test]
fn reductions_of_every_kind_and_length() {
    for n in [0, 1, 5, 16, 17, 63, 64, 1000, 40_000] {
        for axis in ["", "vector(4)", "vector(4) unroll(4)", "unroll(4)", "vector(8) unroll(3)"] {
            let text = format!(
                "kernel r(%x: f32[n], %k: i64[n], %s: mut f32[], %m: mut f32[], %p: mut i64[], %t: mut i64[], %a: mut bool[]) extents(n) {{
                   %sum, %most, %best, %at, %total, %any = reduce (sum, max, argmax, sum, max) %i in n {axis} {{
                     %v = load %x[%i]
                     %k2 = load %k[%i]
                     %c = gt %v, 3.0
                     yield %v, %v, %v, (index %i), %k2, %c
                   }}
                   store %s[], %sum
                   store %m[], %most
                   store %p[], %at
                   store %t[], %total
                   store %a[], %any
                 }}"
            );
            let outs = |b: &mut Vec<KernelBuffer>| {
                b.extend([
                    vec![0f32].into(),
                    vec![0f32].into(),
                    vec![0i64].into(),
                    vec![0i64].into(),
                    vec![false].into(),
                ]);
            };
            let mut buffers: Vec<KernelBuffer> = vec![small(n).into(), integers(n).into()];
            outs(&mut buffers);
            run(&text, &buffers, &[n as u64], &[], 0.0);
            let mut x = small(n);
            if n > 7 {
                (x[n / 2], x[n - 2]) = (f32::NAN, f32::INFINITY);
            }
            let mut buffers: Vec<KernelBuffer> = vec![x.into(), integers(n).into()];
            outs(&mut buffers);
            run(&text, &buffers, &[n as u64], &[], 0.0);
        }
    }
}

#[test]
fn nested_reductions_and_column_sums() {
    for axis in ["", "vector(4)", "parallel vector(4) unroll(2)", "parallel"] {
        let text = format!(
            "kernel c(%x: f32[n,m,k] strides(?,?,1), %y: mut f32[k], %z: mut f32[k]) extents(n,m,k) {{
               loop %j in k {axis} {{
                 %1, %2 = reduce (sum, max) %i in n, %l in m {{ yield (load %x[%i,%l,%j]), (load %x[%i,%l,%j]) }}
                 store %y[%j], %1
                 store %z[%j], %2
               }}
             }}"
        );
        for (n, m, k) in [(3u64, 5, 13), (1, 700, 4), (0, 2, 3), (9, 1, 21)] {
            let x = small((n * m * k) as usize);
            let x = KernelBuffer { data: x.into(), offset: 0, strides: vec![(m * k) as i64, k as i64] };
            let out = vec![0f32; k as usize];
            run(&text, &[x, out.clone().into(), out.into()], &[n, m, k], &[], 0.0);
        }
    }
    let text = "kernel n(%x: f32[n,3000], %y: mut f32[n]) extents(n) {
      loop %i in n parallel {
        %1 = reduce sum %a in 3, %b in 1000 vector(4) unroll(4) { yield load %x[%i,%a*1000 + %b] }
        store %y[%i], %1
      }
    }";
    run(text, &[small(4 * 3000).into(), vec![0f32; 4].into()], &[4], &[], 0.0);
}

#[test]
fn parallel_reductions_finish() {
    let text = include_str!("../../ir/tests/kernels/mean_and_argmax.txt");
    for n in [0, 1, 15, 16, 17, 100, 333] {
        let buffers = [small(n).into(), vec![0f32].into(), vec![0i64].into()];
        run(text, &buffers, &[n as u64], &[Literal::F32(0.25)], 0.0);
    }
}

#[test]
fn sums_stay_accurate() {
    let n = 1 << 22;
    let text = "kernel s(%x: f32[n], %y: mut f32[]) extents(n) {
      %1 = reduce sum %i in n AXIS { yield load %x[%i] }
      finish { store %y[], %1 }
    }";
    let whole = text.replace("finish { store %y[], %1 }", "store %y[], %1");
    let cases =
        [(&whole, "vector(4) unroll(4)"), (&whole, ""), (&text.to_owned(), "parallel chunk=65536 vector(4) unroll(4)")];
    for (text, axis) in cases {
        let kernel = Kernel::parse(&text.replace("AXIS", axis)).unwrap();
        let x: Vec<f32> = (0..n as u64).map(|i| uniform(philox(7, 1, i))).collect();
        let exact: f64 = x.iter().map(|v| f64::from(*v)).sum();
        for (name, found) in generated(&kernel, &[x.into(), vec![0f32].into()], &[n as u64], &[]) {
            let found: Vec<f32> = found[1].to_vec();
            let error = (f64::from(found[0]) - exact).abs() / exact;
            assert!(error < 4e-7, "{axis}, {name}: {error}");
        }
    }
}

#[test]
fn rows_with_tiles() {
    let softmax = include_str!("../../ir/tests/kernels/softmax.txt");
    run(softmax, &[noise(3 * 512).into(), vec![0f32; 3 * 512].into()], &[3], &[], 1e-6);
    // A tile of strided elements, and one too large for the stack.
    let text = "kernel t(%x: f32[5,n] strides(?,1), %y: mut f32[5,n] strides(?,1)) extents(n) {
      loop %j in n AXIS {
        tile %t: f32[5]
        %m = reduce max %i in 5 { %v = load %x[%i,%j]  store %t[%i], %v  yield %v }
        loop %i in 5 { store %y[%i,%j], sub (load %t[%i]), %m }
      }
    }";
    for axis in ["", "parallel"] {
        for n in [1, 4, 11, 40] {
            let x = KernelBuffer { data: noise(5 * n).into(), offset: 0, strides: vec![n as i64] };
            let y = KernelBuffer { data: vec![0f32; 5 * n].into(), offset: 0, strides: vec![n as i64] };
            run(&text.replace("AXIS", axis), &[x, y], &[n as u64], &[], 0.0);
        }
    }
    let text = "kernel b(%x: f32[n,5000], %y: mut f32[n,5000]) extents(n) {
      loop %i in n parallel {
        tile %t: f32[5000]
        fill %t, 1.5
        loop %k in 4999 vector(4) unroll(2) { store %t[%k], add (load %x[%i,%k]), (load %t[%k + 1]) }
        loop %k in 5000 vector(4) { store %y[%i,%k], load %t[%k] }
      }
    }";
    run(text, &[small(15_000).into(), vec![0f32; 15_000].into()], &[3], &[], 0.0);
}

#[test]
fn panels_of_a_contraction() {
    let text = include_str!("../../ir/tests/kernels/linear_relu.txt");
    for m in [1, 8, 11, 16] {
        let buffers = [small(m * 20).into(), small(20 * 12).into(), small(12).into(), vec![-1f32; m * 12].into()];
        run(text, &buffers, &[m as u64], &[], 0.0);
    }
    // Integers, two contraction dims, a transposed operand.
    let text = "kernel d(%a: i64[3,4,5], %b: i64[6,4,5], %y: mut i64[3,6]) {
      tile %t: i64[3,6]
      fill %t, 2
      dot %t[%r,%c], %a[%r,%k,%l], %b[%c,%k,%l] over %k in 4, %l in 5
      loop %i in 3 { loop %j in 6 vector(4) { store %y[%i,%j], load %t[%i,%j] } }
    }";
    run(text, &[integers(60).into(), integers(120).into(), vec![0i64; 18].into()], &[], &[], 0.0);
}

/// Tiles of halves hold what was rounded when it was stored; matrices of `bf16` are multiplied where they lie and in tiles.
#[test]
fn panels_of_halves() {
    let text = "kernel d(%a: bf16[n,40], %b: f32[24,40], %y: mut f32[n,24], %z: mut f16[n,24]) extents(n) {
      loop %q in n step 8 parallel {
        tile %t: f32[8,24] valid(n - %q, _)
        fill %t, 0.5
        tile %p: bf16[40,24]
        loop %k in 40 { loop %j in 24 vector(4) { store %p[%k,%j], mul (load %b[%j,%k]), 0.3 } }
        dot %t[%r,%c], %a[%q + %r,%k], %p[%k,%c] over %k in 40
        tile %h: f16[24]
        loop %i in 8 below n - %q {
          fill %h, 0.1
          loop %j in 12 vector(4) { store %h[%j], mul (load %t[%i,%j]), 0.3 }
          loop %j in 24 vector(4) {
            store %y[%q + %i,%j], load %h[%j]
            store %z[%q + %i,%j], load %h[%j]
          }
        }
      }
    }";
    for n in [1, 8, 37] {
        let a: Vec<bf16> = small(n * 40).into_iter().map(bf16::from_f32).collect();
        let halves = vec![f16::ZERO; n * 24];
        run(
            text,
            &[a.into(), small(24 * 40).into(), vec![-1f32; n * 24].into(), halves.into()],
            &[n as u64],
            &[],
            1e-5,
        );
    }
}

#[test]
fn a_failed_check_is_the_error_of_lowest_index() {
    let text = "kernel c(%x: i64[n], %y: mut i64[n]) extents(n) {
      loop %i in n parallel vector(4) {
        %v = load %x[%i]
        check (lt %v, 10), site 0, %v at %i
        store %y[%i], %v
      }
    }";
    let kernel = Kernel::parse(text).unwrap();
    let code = compile_with(&[kernel], host_target(), CompileOptions::default()).unwrap().remove(0);
    let n = 50;
    let mut x: Vec<i64> = vec![1; n];
    (x[13], x[7], x[49]) = (11, 12, 13);
    let (x, y) = (array(&x.into()), array(&vec![0i64; n].into()));
    let args = [LaunchArg { array: &x, strides: &[] }, LaunchArg { array: &y, strides: &[] }];
    let requirement = Requirement::Index { extent: 10, wrap: false };
    let sites = [CheckSite { operation: "check_index", sources: Sources::none(), requirement }];
    for grain in [4, 50] {
        let error = launch(&code, &args, &[n as u64], &[], &sites, n as u64, grain).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Index);
        assert!(error.message().contains("index 12 is out of range for 10"), "{error}");
    }
    // An array that is too short is refused before anything runs.
    assert!(launch(&code, &args, &[n as u64 + 1], &[], &sites, n as u64 + 1, 4).is_err());
}

#[test]
fn code_is_freed() {
    let text =
        "kernel f(%x: f32[n], %y: mut f32[n]) extents(n) { loop %i in n vector(4) { store %y[%i], load %x[%i] } }";
    let kernel = Kernel::parse(text).unwrap();
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        pages.split(' ').nth(1).and_then(|p| p.parse::<u64>().ok()).unwrap_or(0)
    };
    let cycle = || drop(compile_with(std::slice::from_ref(&kernel), host_target(), CompileOptions::default()).unwrap());
    (0..100).for_each(|_| cycle());
    let before = resident();
    let cycles = std::env::var("LAZULI_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    (0..cycles).for_each(|_: u32| cycle());
    assert!(resident() < before + 1000, "{} pages grew to {}", before, resident());
}

/// An output that no cache holds is written past the caches, from any address, and beyond it nothing is.
#[test]
fn large_outputs_are_written_whole() {
    let text = "kernel s(%x: f32[n], %y: mut f32[n]) extents(n) {
      loop %i in n parallel vector(4) unroll(4) { store %y[%i], add (load %x[%i]), 1.0 }
    }";
    let kernel = Kernel::parse(text).unwrap();
    let n = 9 << 20;
    let x: Vec<f32> = (0..n).map(|i| (i % 1021) as f32).collect();
    for vectors in Vectors::available() {
        let code = code(&kernel, CompileOptions { vectors: Some(vectors), ..CompileOptions::default() });
        for offset in [0, 3] {
            let extent = n - 64 + offset;
            let arrays = [array(&x.clone().into()), array(&vec![0f32; n].into())];
            let views = arrays.each_ref().map(|a| {
                a.with_layout(Layout { shape: Shape::scalar(), strides: Default::default(), offset: offset as i64 })
                    .unwrap()
            });
            let args = views.each_ref().map(|array| LaunchArg { array, strides: &[] });
            launch(&code, &args, &[extent as u64], &[], &[], extent as u64, 100_001).unwrap();
            let found: Vec<f32> = arrays[1].to_vec().unwrap();
            for (i, v) in found.iter().enumerate() {
                let inside = (offset..offset + extent).contains(&i);
                let expected = if inside { x[i] + 1.0 } else { 0.0 };
                assert_eq!(*v, expected, "element {i} from {offset}, {vectors:?}");
            }
        }
    }
}
