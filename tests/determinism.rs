//! The same program is the same text and the same machine code in every process, and gives the same bits on any number of
//! threads, eagerly and compiled.

use lazuli::prelude::*;
use lazuli::{Result, Stages};
use std::fmt::Write;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The process generator: draws of both tests come from it.
static GENERATOR: Mutex<()> = Mutex::new(());

fn numbers(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec((0..n).map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 300.0).collect(), shape.to_vec())
}

fn labels(n: usize, classes: usize) -> Tensor {
    Tensor::from_vec((0..n).map(|i| (i * 31 % classes) as i64).collect(), [n])
}

/// Matrix products with epilogues, a softmax, sums that threads share, transposes, a draw.
fn forward((x, w): (Tensor, Tensor)) -> (Tensor, Tensor, Tensor) {
    let h = (x.matmul(&w) + 1.0).gelu();
    let scores = (h.matmul(h.t()) * 0.05).softmax(-1);
    let noise = Tensor::randn([x.size(0), 8]);
    ((scores.matmul(&x) + x.exp().sum(0)).layer_norm([x.size(1)], ()), x.square().sum(..), noise.sum(0) + x.max(..))
}

type Step = (Tensor, Tensor, Tensor, Tensor, Tensor);

/// A training step of a small classifier.
fn train((w1, b1, w2, x, y): Step) -> (Tensor, (Tensor, Tensor, Tensor)) {
    let loss = |p: &(Tensor, Tensor, Tensor)| (x.matmul(&p.0) + &p.1).relu().matmul(&p.2).cross_entropy(&y);
    let p = (w1, b1, w2);
    let (l, d) = lazuli::value_and_grad(loss)(&p);
    (l, (&p.0 - d.0 * 0.1, &p.1 - d.1 * 0.1, &p.2 - d.2 * 0.1))
}

/// Indexing by data and its gradient, which adds up what was taken several times; sums along a dim, a sort, halves.
fn indexing((table, index): (Tensor, Tensor)) -> (Tensor, Tensor, Tensor, Tensor) {
    let loss = |table: &Tensor| (table.index_select(0, &index).tanh() * 0.5).square().sum(..);
    let (l, d) = lazuli::value_and_grad(loss)(&table);
    let (sorted, _) = table.sort(());
    let half = table.to(DType::BF16).softmax(-1).sum(0).to(DType::F32);
    (d + l, table.cumsum(0), lazuli::cat(&[sorted, table.flip(0)], 1), half)
}

/// Products of halves, whose sums are `f32`, and the gradient of one.
fn halves((x, w): (Tensor, Tensor)) -> (Tensor, Tensor, Tensor) {
    let product = |w: &Tensor, half: DType| x.to(half).matmul(w.to(half)).to(DType::F32);
    let (_, d) = lazuli::value_and_grad(|w: &Tensor| (product(w, DType::BF16) * 0.01).square().sum(..))(&w);
    (product(&w, DType::BF16), product(&w, DType::F16), d)
}

fn indexing_arguments() -> (Tensor, Tensor) {
    (numbers(&[400, 120]), labels(3000, 397))
}

fn forward_arguments() -> (Tensor, Tensor) {
    (numbers(&[300, 160]), numbers(&[160, 200]))
}

fn train_arguments() -> Step {
    (numbers(&[160, 96]), numbers(&[96]), numbers(&[96, 10]), numbers(&[300, 160]), labels(300, 10))
}

/// All that can be seen of a compiled program, but for times.
fn all_of(stages: &Stages) -> Result<String> {
    let mut text = format!(
        "{}\n{}\n{}\n{}\n{}\n",
        stages.graph(),
        stages.optimized(),
        stages.fusion(),
        stages.kernels(),
        stages.clif()?
    );
    for dot in [stages.graph_to_dot(), stages.optimized_to_dot(), stages.fusion_to_dot(), stages.kernels_to_dot()] {
        text.push_str(&dot);
    }
    for code in stages.machine_code() {
        let hash =
            code.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        let _ = writeln!(text, "{} bytes of code, {hash:016x}", code.len());
    }
    Ok(text)
}

fn programs() -> Result<String> {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let (f, step, taken) = (lazuli::compile(forward), lazuli::compile(train), lazuli::compile(indexing));
    let narrow = lazuli::compile(halves);
    let _ = f.call(forward_arguments())?;
    let _ = step.call(train_arguments())?;
    let _ = taken.call(indexing_arguments())?;
    let _ = narrow.call(forward_arguments())?;
    [f.stages()?, step.stages()?, taken.stages()?, narrow.stages()?].iter().map(all_of).collect()
}

#[test]
fn two_processes_make_the_same_text_and_machine_code() {
    const CHILD: &str = "LAZULI_TEST_PROGRAMS";
    if let Some(file) = std::env::var_os(CHILD) {
        std::fs::write(file, programs().unwrap()).unwrap();
        return;
    }
    // The processes differ in what must not matter: threads, and what else was compiled before.
    let run = |number: u32, threads: &str| {
        let file = std::env::temp_dir().join(format!("lazuli-programs-{}-{number}", std::process::id()));
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "two_processes_make_the_same_text_and_machine_code"]);
        let output = child.env(CHILD, &file).env("LAZULI_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        text
    };
    let (first, second) = (run(1, "1"), run(2, "2"));
    assert!(first.contains("bytes of code") && first.contains("parallel"), "{first}");
    for (number, (a, b)) in first.lines().zip(second.lines()).enumerate() {
        assert_eq!(a, b, "line {number}");
    }
    assert!(first == second && first == programs().unwrap());
}

/// The bits of all results of the programs, eagerly or compiled.
fn bits(compiled: bool) -> Result<Vec<Vec<u32>>> {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    lazuli::manual_seed(7)?;
    let (a, b, c, d, e, f, g, h, i, j, k, l, m, n);
    if compiled {
        (a, b, c) = lazuli::compile(forward).call(forward_arguments())?;
        (d, (e, f, g)) = lazuli::compile(train).call(train_arguments())?;
        (h, i, j, k) = lazuli::compile(indexing).call(indexing_arguments())?;
        (l, m, n) = lazuli::compile(halves).call(forward_arguments())?;
    } else {
        (a, b, c) = forward(forward_arguments());
        (d, (e, f, g)) = train(train_arguments());
        (h, i, j, k) = indexing(indexing_arguments());
        (l, m, n) = halves(forward_arguments());
    }
    let bits = |t: &Tensor| Ok(t.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n].iter().map(bits).collect()
}

#[test]
fn results_have_the_same_bits_on_any_number_of_threads() {
    let before = lazuli::get_num_threads();
    for compiled in [false, true] {
        lazuli::set_num_threads(1);
        let one = bits(compiled).unwrap();
        for threads in [2, 3, 2] {
            lazuli::set_num_threads(threads);
            assert_eq!(lazuli::get_num_threads(), threads);
            let more = bits(compiled).unwrap();
            for (i, (a, b)) in one.iter().zip(&more).enumerate() {
                assert!(a == b, "result {i} differs on {threads} threads, compiled: {compiled}");
            }
        }
    }
    lazuli::set_num_threads(before);
}

/// Eager code multiplies halves as compiled programs do: the bits are the same.
#[test]
fn products_of_halves_are_the_same_eagerly_and_compiled() {
    for half in [DType::BF16, DType::F16] {
        for (m, k, n) in [(300, 160, 200), (64, 64, 64), (3, 33, 50)] {
            let (x, w) = (numbers(&[m, k]).to(half), numbers(&[k, n]).to(half));
            let compiled = lazuli::compile(|(x, w): (Tensor, Tensor)| x.matmul(&w)).call((&x, &w)).unwrap();
            let bits = |t: Tensor| t.to(DType::F32).to_vec::<f32>().unwrap();
            assert!(bits(x.matmul(&w)) == bits(compiled), "{m}x{k}x{n} of {half:?}");
        }
    }
}
