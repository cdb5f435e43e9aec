//! Kernels indexed by data, loops that read what they wrote, reductions and contractions of all types, checks.

#![allow(clippy::panic, clippy::unwrap_used)]

mod support;

use lazuli_ir::kernel_eval::{KernelBuffer, KernelData};
use lazuli_ir::program::{CheckSite, Requirement};
use lazuli_ir::{DType, ErrorKind, Kernel, Literal, Sources};
use lazuli_runtime::cpu::{CompileOptions, LaunchArg, launch};
use support::{array, cast, code, iterations, noise, run, small, truths};

const AXES: [&str; 5] = ["", "parallel", "parallel vector(4)", "vector(4) unroll(4)", "unroll(3)"];

/// Indices, some of them out of range on both sides.
fn indices(n: usize, extent: i64) -> Vec<i64> {
    (0..n as i64)
        .map(|i| {
            if i % 7 == 3 { [-1, extent, i64::MIN, i64::MAX][(i / 7 % 4) as usize] } else { (i * i * 31 + 5) % extent }
        })
        .collect()
}

fn numbers(dtype: DType, n: usize) -> KernelData {
    cast(dtype, noise(n).into_iter().map(|v| Literal::F32(v * 40.0)))
}

#[test]
fn gathers() {
    for dtype in DType::ALL {
        for axis in AXES {
            // Rows of a table by index, and elements of a row by index; positions that mix a bound variable and loops.
            let text = format!(
                "kernel g(%x: {dtype}[9,m] strides(?,1), %at: i64[n], %y: mut {dtype}[n,m], %z: mut {dtype}[n], %w: mut i64[n]) extents(n,m) {{
                   loop %i in n {axis} {{
                     %a = load %at[%i]
                     bind %r = %a in 9
                     store %z[%i], load %x[%r,%i % 5]
                     store %w[%i], index %r*100 + %i
                     loop %k in m vector(4) {{ store %y[%i,%k], load %x[%r,%k] }}
                   }}
                 }}"
            );
            let text = if axis.contains("vector") { text.replace("m vector(4)", "m") } else { text };
            for (n, m) in [(0usize, 5), (1, 5), (13, 6), (50, 17)] {
                let x = KernelBuffer { data: numbers(dtype, 9 * (m + 2)), offset: 0, strides: vec![m as i64 + 2] };
                let out = |n| KernelBuffer::new(KernelData::zeros(dtype, n));
                let buffers = [x, indices(n, 9).into(), out(n * m), out(n), vec![0i64; n].into()];
                run(&text, &buffers, &[n as u64, m as u64], &[], 0.0);
            }
        }
    }
}

#[test]
fn bound_variables_of_an_inner_loop_index_by_lane() {
    for axis in ["", "vector(4)", "vector(4) unroll(2)", "unroll(4)"] {
        let text = format!(
            "kernel g(%x: f32[4,n,8], %at: i64[4,n], %on: bool[n], %y: mut f32[4,n]) extents(n) {{
               loop %i in 4 parallel {{
                 loop %j in n {axis} {{
                   %a = load %at[%i,%j]
                   bind %r = %a in 8
                   %b = sub 7, (index %r)
                   bind %q = %b in n
                   %c = load %on[%j]
                   %v = add (load %x[%i,%j,%r]), (load %x[%i,%q,%r] if %c)
                   guard %c {{ store %y[%i,%j], %v }}
                 }}
               }}
             }}"
        );
        for n in [1usize, 5, 16, 33] {
            let buffers =
                [small(4 * n * 8).into(), indices(4 * n, 8).into(), truths(n).into(), vec![-1f32; 4 * n].into()];
            run(&text, &buffers, &[n as u64], &[], 0.0);
        }
    }
}

#[test]
fn reductions_and_contractions_over_what_data_indexes() {
    for extent in ["9", "m"] {
        for axis in ["", "vector(4)", "vector(4) unroll(2)", "unroll(3)"] {
            let text = format!(
                "kernel r(%x: f64[m,5], %at: i64[n], %k: u8[n], %y: mut f64[5], %z: mut i64[], %s: mut f64[]) extents(n,m) {{
                   loop %c in 5 {axis} {{
                     %t = reduce sum %i in n {{
                       bind %r = (load %at[%i]) in {extent}
                       yield load %x[%r,%c]
                     }}
                     store %y[%c], %t
                   }}
                   %a, %p, %s = reduce (argmax, sum) %j in n {axis} {{
                     bind %q = (load %at[%j]) in {extent}
                     bind %d = (convert i64 (load %k[%j])) in 5
                     %v = load %x[%q,%d]
                     yield %v, (index %j), %v
                   }}
                   store %z[], %p
                   store %s[], add %a, %s
                 }}"
            );
            for n in [0usize, 1, 6, 40] {
                let x = cast(DType::F64, small(45).into_iter().map(Literal::F32)).into_buffer();
                let k: Vec<u8> = (0..n).map(|i| (i * 7 % 6) as u8).collect();
                let out = [vec![0f64; 5].into(), vec![0i64].into(), vec![0f64].into()];
                let [y, z, s] = out;
                run(&text, &[x, indices(n, 9).into(), k.into(), y, z, s], &[n as u64, 9], &[], 0.0);
            }
        }
    }
}

#[test]
fn scatters_see_what_earlier_iterations_wrote() {
    for dtype in DType::ALL {
        for op in ["add", "mul", "max", "min", "set"] {
            for axis in ["", "unroll(4)"] {
                let combined = match (op, dtype) {
                    ("set", _) => "%u".to_owned(),
                    ("add" | "mul", DType::Bool) => continue,
                    _ => format!("{op} %o, %u"),
                };
                let rounded = match dtype {
                    DType::F16 => format!("round_f16 ({combined})"),
                    DType::BF16 => format!("round_bf16 ({combined})"),
                    _ => combined,
                };
                let rounded = if op == "set" { "%u".to_owned() } else { rounded };
                let text = format!(
                    "kernel s(%x: inout {dtype}[5,k], %at: i64[n], %up: {dtype}[n,k]) extents(n,k) {{
                       loop %c in k {{
                         loop %j in n {axis} {{
                           %a = load %at[%j]
                           bind %r = %a in 5
                           %o = load %x[%r,%c]
                           %u = load %up[%j,%c]
                           %v = {rounded}
                           store %x[%r,%c], %v
                         }}
                       }}
                     }}"
                );
                let text = text.replace("%v = %u\n", "").replace(", %v", if op == "set" { ", %u" } else { ", %v" });
                for (n, k) in [(0usize, 3usize), (40, 1), (23, 9)] {
                    let buffers = [
                        numbers(dtype, 5 * k).into_buffer(),
                        indices(n, 5).into(),
                        numbers(dtype, n * k).into_buffer(),
                    ];
                    run(&text, &buffers, &[n as u64, k as u64], &[], 0.0);
                }
            }
        }
    }
}

trait IntoBuffer {
    fn into_buffer(self) -> KernelBuffer;
}

impl IntoBuffer for KernelData {
    fn into_buffer(self) -> KernelBuffer {
        KernelBuffer::new(self)
    }
}

#[test]
fn nothing_is_read_of_an_empty_dim() {
    // The evaluator refuses this; machine code must only stay within its buffers.
    let text = "kernel e(%x: f32[m], %at: i64[n], %y: mut f32[n], %z: inout f32[m]) extents(n,m) {
      loop %i in n AXIS {
        %a = load %at[%i]
        bind %r = %a in m
        %v = load %x[%r]
        store %y[%i], %v
        store %z[%r], add %v, (load %z[%r])
      }
      loop %i in n { store %y[%i], add 1.0, (load %x[0] if (lt (index %i), 0)) }
    }";
    for axis in ["", "unroll(3)"] {
        let kernel = Kernel::parse(&text.replace("AXIS", axis).replace("%y: mut", "%y: inout")).unwrap();
        let code = code(&kernel, CompileOptions::default());
        let n = 11;
        let (none, at, y) =
            (array(&Vec::<f32>::new().into()), array(&indices(n, 5).into()), array(&vec![0f32; n].into()));
        let args = [&none, &at, &y, &none].map(|array| LaunchArg { array, strides: &[] });
        launch(&code, &args, &[n as u64, 0], &[], &[], 1, 1).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), vec![1.0; n]);
    }
}

#[test]
fn prefix_sums_run_through_a_tile() {
    for dtype in [DType::U8, DType::I32, DType::I64, DType::F32, DType::F64] {
        let ty = dtype.name();
        for (op, start) in [("add", "0"), ("mul", "1"), ("max", "0"), ("min", "1")] {
            for axis in ["", "unroll(4)"] {
                let start = match dtype {
                    DType::I64 => start.to_owned(),
                    DType::F32 => format!("{start}.0"),
                    DType::F64 => format!("{start}.0f64"),
                    _ => format!("{start}{ty}"),
                };
                let text = format!(
                    "kernel p(%x: {ty}[m,n] strides(?,?), %y: mut {ty}[m,n]) extents(m,n) {{
                       loop %i in m parallel {{
                         tile %t: {ty}[1]
                         fill %t, {start}
                         loop %j in n {axis} {{
                           %v = {op} (load %t[0]), (load %x[%i,%j])
                           store %t[0], %v
                           store %y[%i,%j], %v
                         }}
                       }}
                     }}"
                );
                for (m, n) in [(1usize, 1usize), (3, 20), (7, 9)] {
                    let x = KernelBuffer { data: numbers(dtype, m * n), offset: 0, strides: vec![1, m as i64] };
                    let y = KernelBuffer::new(KernelData::zeros(dtype, m * n));
                    run(&text, &[x, y], &[m as u64, n as u64], &[], 0.0);
                }
            }
        }
    }
}

#[test]
fn reductions_of_all_types() {
    for dtype in DType::ALL {
        for (op, extra) in [
            ("sum", ""),
            ("prod", ""),
            ("max", ""),
            ("min", ""),
            ("amax", ""),
            ("amin", ""),
            ("argmax", "i"),
            ("argmin", "i"),
        ] {
            if dtype == DType::Bool && matches!(op, "sum" | "prod") {
                continue;
            }
            for axis in ["", "vector(4) unroll(4)", "vector(4)", "parallel chunk=16 vector(4)"] {
                let ty = lazuli_ir::kernel::ScalarType::from(dtype).name();
                let (results, yields) = match extra {
                    "" => ("%1", "load %x[%i]".to_owned()),
                    _ => ("%1, %2", "(load %x[%i]), (index %i)".to_owned()),
                };
                let at = if extra.is_empty() { "" } else { "store %at[], %2" };
                let stores = format!("store %y[], %1 {at}");
                let (inside, finish) = if axis.starts_with("parallel") {
                    (String::new(), format!("finish {{ {stores} }}"))
                } else {
                    (stores, String::new())
                };
                let text = format!(
                    "kernel r(%x: {dtype}[n], %y: mut {ty}[], %at: mut i64[]) extents(n) {{
                       {results} = reduce {op} %i in n {axis} {{ yield {yields} }}
                       {inside}
                       {finish}
                     }}"
                );
                for n in [0usize, 1, 5, 37, 200] {
                    let mut values: Vec<Literal> = small(n).into_iter().map(Literal::F32).collect();
                    if op == "prod" && dtype.is_float() {
                        values =
                            values.iter().map(|v| Literal::F32(if v.as_f64() < 0.0 { -1.0 } else { 1.0 })).collect();
                    }
                    for nan in [false, true] {
                        if nan && n > 5 {
                            (values[n / 2], values[n - 2]) = (Literal::F32(f32::NAN), Literal::F32(f32::NAN));
                        }
                        let buffers = [
                            KernelBuffer::new(cast(dtype, values.clone())),
                            KernelBuffer::new(KernelData::zeros(lazuli_ir::kernel::ScalarType::from(dtype).dtype(), 1)),
                            vec![0i64].into(),
                        ];
                        run(&text, &buffers, &[n as u64], &[], 0.0);
                    }
                }
            }
        }
    }
}

#[test]
fn sums_of_noise_are_close_and_rows_reduce_by_lane() {
    for dtype in [DType::F32, DType::F64, DType::F16] {
        let ty = if dtype == DType::F64 { "f64" } else { "f32" };
        for axis in ["", "vector(4)", "vector(4) unroll(2)"] {
            let text = format!(
                "kernel r(%x: {dtype}[m,n], %y: mut {ty}[n], %z: mut {ty}[m]) extents(m,n) {{
                   loop %j in n {axis} {{
                     %s = reduce sum %i in m {{ yield load %x[%i,%j] }}
                     store %y[%j], %s
                   }}
                   loop %i in m {{
                     %p, %q = reduce (sum, prod) %j in n vector(4) unroll(2) {{ yield (load %x[%i,%j]), (load %x[%i,%j]) }}
                     store %z[%i], add %p, %q
                   }}
                 }}"
            );
            for (m, n) in [(3usize, 21usize), (40, 6)] {
                let x = cast(dtype, noise(m * n).into_iter().map(Literal::F32)).into_buffer();
                let out = |n| KernelData::zeros(if ty == "f64" { DType::F64 } else { DType::F32 }, n).into_buffer();
                run(&text, &[x, out(n), out(m)], &[m as u64, n as u64], &[], if ty == "f64" { 1e-13 } else { 1e-5 });
            }
        }
    }
}

#[test]
fn contractions_of_all_types() {
    // Halves are widened where they are packed.
    for dtype in [DType::U8, DType::I32, DType::I64, DType::F32, DType::F64] {
        let ty = lazuli_ir::kernel::ScalarType::from(dtype).name();
        let zero = match dtype {
            DType::I64 => "0".to_owned(),
            DType::F32 => "0.0".to_owned(),
            DType::F64 => "0.0f64".to_owned(),
            _ => format!("0{ty}"),
        };
        let text = format!(
            "kernel d(%a: {dtype}[m,k], %b: {dtype}[24,k], %y: mut {ty}[m,24]) extents(m,k) {{
               loop %q in m step 16 parallel {{
                 tile %t: {ty}[16,24] valid(m - %q,_)
                 fill %t, {zero}
                 dot %t[%r,%c], %a[%q + %r,%l], %b[%c,%l] over %l in k
                 loop %i in 16 below m - %q {{ loop %j in 24 vector(4) {{ store %y[%q + %i,%j], load %t[%i,%j] }} }}
               }}
             }}"
        );
        let kernel = Kernel::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert!(iterations(&kernel, &[20, 1]) == 2);
        for (m, k) in [(1usize, 3usize), (20, 0), (16, 33), (37, 40)] {
            for random in [false, true] {
                let values = |n| -> KernelData {
                    let v = if random { noise(n) } else { small(n) };
                    cast(dtype, v.into_iter().map(Literal::F32))
                };
                let buffers = [
                    values(m * k).into_buffer(),
                    values(24 * k).into_buffer(),
                    KernelData::zeros(dtype, m * 24).into_buffer(),
                ];
                let tolerance = match (dtype, random) {
                    (DType::F64, true) => 1e-13,
                    (_, true) => 2e-5,
                    (_, false) => 0.0,
                };
                run(&text, &buffers, &[m as u64, k as u64], &[], tolerance);
            }
        }
    }
}

#[test]
fn the_first_check_that_fails_is_the_error() {
    let text = "kernel c(%x: i64[n], %d: i32[n], %y: mut i64[n], %q: mut i32[n]) extents(n) {
      loop %i in n AXIS {
        %v = load %x[%i]
        %w = load %d[%i]
        check (ne %w, 0i32), site 1, (convert i64 %w) at %i
        check (lt %v, 10), site 0, %v at %i
        bind %r = %v in 10
        store %y[%i], index %r
        store %q[%i], floor_div %w, %w
      }
    }";
    let requirement = Requirement::Index { extent: 10, wrap: true };
    let sites = [
        CheckSite { operation: "check_index", sources: Sources::none(), requirement },
        CheckSite { operation: "floor_div", sources: Sources::none(), requirement: Requirement::Divisor },
    ];
    for axis in ["", "parallel vector(4)", "vector(4) unroll(4)", "unroll(3)"] {
        let kernel = Kernel::parse(&text.replace("AXIS", axis)).unwrap();
        let code = code(&kernel, CompileOptions::default());
        let n = 61;
        let good = |i: usize| (i % 10) as i64;
        let call = |x: &[i64], d: &[i32]| {
            let arrays = [
                array(&x.to_vec().into()),
                array(&d.to_vec().into()),
                array(&vec![0i64; n].into()),
                array(&vec![0i32; n].into()),
            ];
            let args: Vec<LaunchArg<'_>> = arrays.iter().map(|array| LaunchArg { array, strides: &[] }).collect();
            let result = launch(&code, &args, &[n as u64], &[], &sites, iterations(&kernel, &[n as u64]), 7);
            result.map(|()| (arrays[2].to_vec::<i64>().unwrap(), arrays[3].to_vec::<i32>().unwrap()))
        };
        let (mut x, mut d): (Vec<i64>, Vec<i32>) = ((0..n).map(good).collect(), vec![3; n]);
        let (y, q) = call(&x, &d).unwrap();
        assert_eq!((y, q), (x.clone(), vec![1; n]));
        d[5] = 0;
        let error = call(&x, &d).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Value);
        assert!(error.to_string().contains("floor_div"), "{error}");
        (x[40], x[60]) = (77, 78);
        let error = call(&x, &d).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Index);
        assert!(
            error.to_string().contains("index 77 is out of range for 10") && error.to_string().contains("check_index"),
            "{error}"
        );
    }
}

#[test]
fn scalars_of_all_types() {
    for dtype in DType::ALL {
        let ty = lazuli_ir::kernel::ScalarType::from(dtype);
        let text = format!(
            "kernel s(%y: mut {dtype}[n]) extents(n) scalars(%s: {dtype}) {{ loop %i in n vector(4) {{ store %y[%i], %s }} }}"
        );
        for v in [Literal::F64(1.7), Literal::F64(-3.0), Literal::I64(1)] {
            let v = v.cast(dtype);
            let found = run(&text, &[KernelData::zeros(dtype, 6).into_buffer()], &[6], &[v], 0.0);
            assert!(found[0].literals().all(|l| l == v), "{ty:?}");
        }
    }
}
