//! Memory stays flat: over training steps, over compilations that are dropped, over eager steps.

use lazuli::prelude::*;

/// Pages of memory this process holds, in KiB; `None` where the system does not tell.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Runs `step` often enough to reach a steady state, then `times` more, and fails where memory grew by more than 4 MiB.
fn stays_flat(times: usize, mut step: impl FnMut() -> lazuli::Result<()>) -> lazuli::Result<()> {
    for _ in 0..times / 10 {
        step()?;
    }
    let before = resident_kib();
    for _ in 0..times {
        step()?;
    }
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        assert!(after < before + 4096, "{before} KiB became {after} KiB over {times} steps");
    }
    Ok(())
}

type Parameters = (Tensor, Tensor, Tensor);

fn loss((w1, b1, w2): &Parameters, x: &Tensor, y: &Tensor) -> Tensor {
    (x.matmul(w1) + b1).relu().matmul(w2).cross_entropy(y)
}

fn parameters() -> Parameters {
    (Tensor::randn([8, 16]) * 0.3, Tensor::zeros([16]), Tensor::randn([16, 4]) * 0.3)
}

fn batch() -> lazuli::Result<(Tensor, Tensor)> {
    Ok((Tensor::randn([32, 8]), Tensor::from_vec((0..32).map(|i| i % 4).collect::<Vec<i64>>(), [32])))
}

#[test]
fn ten_thousand_compiled_training_steps() -> lazuli::Result<()> {
    let step = lazuli::compile(|(p, x, y, lr): (Parameters, Tensor, Tensor, Tensor)| {
        let (l, d) = lazuli::value_and_grad(|p: &Parameters| loss(p, &x, &y))(&p);
        (l, (&p.0 - &lr * d.0, &p.1 - &lr * d.1, &p.2 - &lr * d.2))
    });
    let (x, y) = batch()?;
    let mut p = parameters();
    let (mut first, mut last) = (None, 0.0);
    stays_flat(10_000, || {
        let taken = std::mem::replace(&mut p, (Tensor::zeros([0]), Tensor::zeros([0]), Tensor::zeros([0])));
        let (l, next) = step.call((taken, &x, &y, 0.05))?;
        p = next;
        last = l.item::<f32>()?;
        first.get_or_insert(last);
        Ok(())
    })?;
    assert!(last < first.unwrap_or(0.0), "the loss went from {first:?} to {last}");
    Ok(())
}

#[test]
fn eager_training_steps() -> lazuli::Result<()> {
    let (x, y) = batch()?;
    let p = parameters();
    let mut p = [p.0, p.1, p.2].map(|t| t.requires_grad_(true));
    stays_flat(1_000, || {
        loss(&(p[0].clone(), p[1].clone(), p[2].clone()), &x, &y).backward()?;
        for t in &mut p {
            let Some(g) = t.grad() else { continue };
            *t = (t.detach() - g * 0.05).requires_grad_(true);
        }
        Ok(())
    })
}

fn compile_and_drop(times: usize) -> lazuli::Result<()> {
    let x = Tensor::randn([16, 16]);
    stays_flat(times, || {
        let f = lazuli::compile(|x: Tensor| x.softmax(-1).matmul(&x));
        f.call(&x)?.eval()
    })
}

#[test]
fn dropped_compilations() -> lazuli::Result<()> {
    compile_and_drop(200)
}

#[test]
#[ignore = "takes about a minute"]
fn ten_thousand_dropped_compilations() -> lazuli::Result<()> {
    compile_and_drop(10_000)
}
