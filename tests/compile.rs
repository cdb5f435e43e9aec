//! Compiled functions: they compute what eager code computes, compile when they must and say why, and overwrite only what
//! they were given.

#![allow(clippy::unwrap_used, clippy::panic)]

use lazuli::prelude::*;
use lazuli::{ErrorKind, Report};

fn close(a: &Tensor, b: &Tensor) {
    let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(&b) {
        assert!(
            (x - y).abs() <= 1e-5 * (1.0 + x.abs()) || (x.is_nan() && y.is_nan()),
            "{x} and {y} in {a:?} and {b:?}"
        );
    }
}

fn range(shape: [usize; 2]) -> Tensor {
    Tensor::arange(0..(shape[0] * shape[1]) as i64).to(DType::F32).reshape(shape) / 7.0 - 1.0
}

#[test]
fn compiled_equals_eager_in_several_layouts() {
    let programs: [fn((Tensor, Tensor)) -> Tensor; 6] = [
        |(x, y)| (&x + &y * 2.0).relu() - 0.5,
        |(x, y)| x.matmul(y.t()).gelu().sum(-1),
        |(x, _)| x.softmax(-1),
        |(x, y)| (x.exp() - y.sigmoid()).mean(0),
        |(x, y)| x.t().matmul(&y).log_softmax(0),
        |(x, y)| (x.i((1.., ..)) * y.i((..-1, ..))).max(-1),
    ];
    let (x, y) = (range([4, 6]), range([4, 6]).exp());
    let views = [
        (x.clone(), y.clone()),
        (range([6, 4]).t(), y.clone()),
        (range([1, 6]).expand([4, 6]), range([8, 6]).i((.., ..)).i(((0..8).step(2), ..))),
        (range([6, 6]).i((2.., ..)), range([4, 1]).expand([4, 6])),
    ];
    for (i, program) in programs.into_iter().enumerate() {
        let compiled = lazuli::compile(program);
        for (x, y) in &views {
            let result = compiled.call((x, y)).unwrap_or_else(|e| panic!("program {i}: {e}"));
            close(&result, &program((x.clone(), y.clone())));
        }
    }
}

#[test]
fn addition_after_addition_of_a_transpose_is_right() {
    let add = lazuli::compile(|(x, y): (Tensor, Tensor)| x + y);
    let (x, y) = (range([3, 3]), range([3, 3]));
    close(&add.call((&x, &y)).unwrap(), &(&x + &y));
    close(&add.call((&x, y.t())).unwrap(), &(&x + y.t()));
    assert_eq!(add.cache().reason(), "layout of `arg1`: strides [1, 3], was contiguous");
}

#[derive(Clone, Tree)]
struct Scaled {
    weight: Tensor,
    #[tree(static)]
    factor: f64,
}

#[test]
fn static_fields_belong_to_the_signature() {
    let apply = lazuli::compile(|(m, x): (Scaled, Tensor)| (x * &m.weight * m.factor, m));
    let model = |factor| Scaled { weight: Tensor::ones([2]), factor };
    let (y, back) = apply.call((model(2.0), Tensor::ones([2]))).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [2.0, 2.0]);
    assert_eq!(back.factor, 2.0);
    let (y, back) = apply.call((&model(3.0), Tensor::ones([2]))).unwrap();
    assert_eq!((y.to_vec::<f32>().unwrap(), back.factor), (vec![3.0, 3.0], 3.0));
    assert_eq!(apply.explain(), "`arg0.factor`: 3.0, was 2.0");
}

#[test]
fn captured_tensors_keep_the_value_of_the_trace() {
    let mut offset = lazuli::tensor([1.0, 2.0]);
    let captured = offset.clone();
    let add = lazuli::compile(|x: Tensor| x + &captured);
    assert_eq!(add.call(Tensor::zeros([2])).unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0]);
    offset += 5.0;
    assert_eq!(add.call(Tensor::ones([2])).unwrap().to_vec::<f32>().unwrap(), [2.0, 3.0]);
    // A hidden input and no constant: the graph does not hold its value.
    assert!(add.stages().unwrap().graph().to_string().contains("%captured0: f32[2]"));
    drop(offset);
}

#[test]
fn errors_surface_with_the_line_in_the_function() {
    let wrong = lazuli::compile(|(x, y): (Tensor, Tensor)| {
        let z = x.matmul(&y); // the line to name
        z.relu()
    });
    let error = wrong.call((range([2, 3]), range([2, 3]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    let text = error.to_string();
    assert!(text.contains("matmul(f32[2,3], f32[2,3])"), "{text}");
    let line = include_str!("compile.rs").lines().position(|l| l.contains("the line to name")).unwrap() + 1;
    assert!(text.contains(&format!("compile.rs:{line}:")), "{text}");
    // The next call is not poisoned by it.
    assert!(wrong.call((range([2, 3]), range([3, 2]))).is_ok());

    let fallible = lazuli::compile(|x: Tensor| {
        let [rows] = x.dims()?;
        lazuli::Result::Ok(x * rows as f64)
    });
    assert!(fallible.call(range([2, 2])).is_err());
    assert_eq!(fallible.call(Tensor::ones([2])).unwrap().to_vec::<f32>().unwrap(), [2.0, 2.0]);
}

#[test]
fn values_cannot_be_read_while_tracing() {
    let read = lazuli::compile(|x: Tensor| {
        x.item::<f32>()?;
        lazuli::Result::Ok(x)
    })
    .named("reader");
    let error = read.call(Tensor::ones([1])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Trace);
    assert!(error.to_string().contains("reader"), "{error}");
}

#[test]
fn labels_are_checked_where_the_program_uses_them() {
    let loss = lazuli::compile(|(x, y): (Tensor, Tensor)| x.cross_entropy(&y));
    let x = range([2, 3]);
    assert!(loss.call((&x, lazuli::tensor([0, 2]))).is_ok());
    let error = loss.call((&x, lazuli::tensor([0, 3]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Index);
    assert!(error.to_string().contains("index 3 is out of range for 3"), "{error}");
}

#[test]
fn both_modes_draw_the_same_numbers() {
    let noisy = |x: Tensor| (&x + Tensor::rand([5]), x * Tensor::randn([5]));
    let compiled = lazuli::compile(noisy);
    let run = |call: &dyn Fn(Tensor) -> (Tensor, Tensor)| {
        let pairs = [call(Tensor::zeros([5])), call(Tensor::ones([5]))];
        pairs.map(|(a, b)| (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap()))
    };
    // Other tests draw from the same process generator: the seed is set until no one came between.
    for _ in 0..50 {
        lazuli::manual_seed(3).unwrap();
        let eager = run(&noisy);
        lazuli::manual_seed(3).unwrap();
        let drawn = run(&|x| compiled.call(x).unwrap());
        assert_ne!(drawn[0].0, drawn[1].0);
        if eager == drawn {
            return;
        }
    }
    panic!("compiled and eager draws differ");
}

#[test]
fn a_compiled_function_inside_another_becomes_part_of_it() {
    let inner = lazuli::compile(|x: Tensor| x.exp());
    let outer = lazuli::compile(|x: Tensor| inner.call(&x * 2.0).map(|y| y + 1.0));
    let x = range([2, 2]);
    close(&outer.call(&x).unwrap(), &((&x * 2.0).exp() + 1.0));
    assert_eq!(inner.cache().programs, 0);
}

#[test]
fn two_threads_call_one_program_at_once() {
    let step = lazuli::compile(|(x, k): (Tensor, Tensor)| (x.matmul(x.t()) * k).sum(-1));
    let x = range([5, 7]);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (step, x) = (&step, &x);
            scope.spawn(move || {
                for i in 0..20 {
                    let k = f64::from(t * 100 + i);
                    close(&step.call((x, k)).unwrap(), &(x.matmul(x.t()) * k).sum(-1));
                }
            });
        }
    });
    assert_eq!(step.cache().programs, 1);
}

#[test]
fn the_cache_keeps_as_many_programs_as_it_may() {
    let double = lazuli::compile(|x: Tensor| x * 2.0).capacity(2);
    for n in [1, 2, 3, 1] {
        double.call(Tensor::ones([n])).unwrap().eval().unwrap();
    }
    let cache = double.cache();
    assert_eq!((cache.programs, cache.misses), (2, 4));
    assert_eq!(cache.reason(), "was compiled before, but only 2 programs are kept");
}

#[test]
fn the_explicit_chain_checks_its_arguments() {
    let traced = lazuli::trace(|(x, k): (Tensor, Tensor)| x.relu() * k, (Tensor::zeros([2, 3]), 1.0)).unwrap();
    assert!(traced.to_string().contains("f32[2,3]") && traced.to_dot().contains("digraph"));
    let optimized = traced.optimize().unwrap();
    assert!(!optimized.to_string().is_empty() && !optimized.to_dot().is_empty());
    let program = optimized.compile().unwrap();
    let x = range([2, 3]);
    close(&program.call((&x, 3.0)).unwrap(), &(x.relu() * 3.0));
    let error = program.call((range([3, 3]), 3.0)).unwrap_err();
    assert!(error.to_string().contains("dim 0 of `arg0`: 3, was 2"), "{error}");
    let outer = lazuli::compile(|x: Tensor| program.call((x, 2.0)));
    close(&outer.call(&x).unwrap(), &(x.relu() * 2.0));
}

/// Whether the first argument was overwritten in the latest call, and the words for it.
fn donated(report: &Report) -> (bool, &str) {
    (report.donations[0].taken, &report.donations[0].reason)
}

#[test]
fn what_is_given_away_is_overwritten_and_nothing_else_is() {
    let step = lazuli::compile(|(w, g): (Tensor, Tensor)| w - g * 0.1).arguments(["w", "g"]);
    let report = || step.stages().unwrap().report();
    let fresh = || {
        let w = range([16, 16]);
        w.eval().unwrap();
        w
    };
    let g = Tensor::ones([16, 16]);
    let expected = fresh() - 0.1;

    close(&step.call((fresh(), &g)).unwrap(), &expected);
    assert_eq!(donated(&report()), (true, "given away"));

    let w = fresh();
    close(&step.call((&w, &g)).unwrap(), &expected);
    assert!(!donated(&report()).0 && donated(&report()).1.contains("held outside"));
    close(&w, &fresh());

    let view = w.t();
    view.eval().unwrap();
    close(&step.call((w, &g)).unwrap(), &expected);
    assert!(!donated(&report()).0 && donated(&report()).1.contains("shared with a view"));
    close(&view.t(), &fresh());

    let w = fresh();
    close(&step.call((w.clone(), w)).unwrap(), &(fresh() * 0.9));
    assert!(!donated(&report()).0);

    let w = fresh();
    let pending = &w * 2.0;
    close(&step.call((w, &g)).unwrap(), &expected);
    assert!(!donated(&report()).0);
    close(&pending, &(fresh() * 2.0));
}

#[test]
fn every_stage_prints_and_can_be_dumped() {
    const CHILD: &str = "LAZULI_TEST_DUMPS";
    if std::env::var_os(CHILD).is_some() {
        let f = lazuli::compile(|x: Tensor| (x * 2.0).softmax(-1)).named("dumped");
        let _ = f.call(range([4, 4])).unwrap();
        return;
    }
    let folder = std::env::temp_dir().join(format!("lazuli-dump-{}", std::process::id()));
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "every_stage_prints_and_can_be_dumped"])
        .env(CHILD, "1")
        .env("LAZULI_DUMP", &folder)
        .output()
        .unwrap();
    assert!(status.status.success());
    let read = |name: &str| std::fs::read_to_string(folder.join("0001-dumped").join(name)).unwrap();
    for name in [
        "1-recorded.graph",
        "2-optimized.graph",
        "1-recorded.dot",
        "3-fusion.dot",
        "4-kernels.dot",
        "4-kernels.kernel",
        "6-report.json",
    ] {
        assert!(!read(name).is_empty(), "{name}");
    }
    assert!(read("1-recorded.graph").starts_with("graph dumped("));
    assert!(read("6-report.txt").contains("tests/compile.rs:"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_profile_has_a_time_for_each_kernel() {
    let f = lazuli::compile(|x: Tensor| x.matmul(x.t()).softmax(-1));
    let report = f.profile(range([32, 32])).unwrap();
    assert!(!report.kernels.is_empty());
    assert!(report.kernels.iter().all(|k| k.time.is_some() && k.bytes > 0), "{report}");
    assert!(report.passes.iter().any(|pass| pass.name == "trace"));
}

#[test]
fn a_position_that_one_kernel_finds_is_an_index_in_it() {
    let f = |x: Tensor| {
        let at = x.argmax(keep(-1));
        let picked = (&x * 2.0).gather(-1, &at);
        let first = Tensor::arange(0..5).eq(&at).to(DType::F32);
        (picked, first)
    };
    let x = lazuli::tensor([[1.0, 5.0, 2.0, 5.0, 0.0], [3.0, 1.0, 2.0, 0.0, 1.0]]);
    let (picked, first) = lazuli::compile(f).call(&x).unwrap();
    assert_eq!(picked.to_vec::<f32>().unwrap(), [10.0, 6.0]);
    assert_eq!(first.to_vec::<f32>().unwrap(), f(x).1.to_vec::<f32>().unwrap());
}
