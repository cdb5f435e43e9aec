//! Programs far longer than a stack is deep: recorded, captured, evaluated, differentiated and dropped on 512 KiB.

#![allow(clippy::unwrap_used)]

use lazuli::prelude::*;
use lazuli::{Result, grad, value_and_grad};

/// Runs on a thread whose stack a recursion over a long graph would overflow.
fn on_a_small_stack(run: impl FnOnce() -> Result<()> + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap();
    thread.join().unwrap().unwrap();
}

/// A chain of `n` operations that stays near its start.
fn chain(x: &Tensor, n: usize) -> Tensor {
    (0..n).fold(x.clone(), |y, i| match i % 4 {
        0 => &y + x,
        1 => y.relu(),
        2 => -y,
        _ => y * 0.5,
    })
}

fn eager(n: usize) {
    on_a_small_stack(move || {
        let x = lazuli::tensor([1.0, -2.0]).requires_grad_(true);
        let y = chain(&x, n);
        assert!(y.to_vec::<f32>()?.iter().all(|v| v.is_finite()));
        y.sum(..).backward()?;
        assert!(x.grad().unwrap().to_vec::<f32>()?.iter().all(|v| v.is_finite()));
        // History that nobody goes through is dropped as well.
        drop(chain(&x, n));
        Ok(())
    });
}

fn traced(n: usize) {
    on_a_small_stack(move || {
        let spec = Tensor::zeros([2]);
        let plain = lazuli::trace(move |x: Tensor| chain(&x, n), &spec)?;
        drop(plain.optimize()?);
        drop(plain);
        let both = lazuli::trace(move |x: Tensor| value_and_grad(|x: &Tensor| chain(x, n).sum(..))(&x), &spec)?;
        drop(both.optimize()?);
        // What a trace recorded and does not return is dropped with it.
        let unused = lazuli::trace(
            move |x: Tensor| {
                drop(chain(&x, n));
                x * 2.0
            },
            &spec,
        )?;
        assert!(unused.to_string().lines().count() < 10);
        Ok(())
    });
}

fn compiled(n: usize) {
    on_a_small_stack(move || {
        let step = lazuli::compile(move |x: Tensor| chain(&x, n));
        let x = lazuli::tensor([1.0, -2.0]);
        let expected = chain(&x, n).to_vec::<f32>()?;
        assert_eq!(step.call(&x)?.to_vec::<f32>()?, expected);
        Ok(())
    });
}

#[test]
fn eager_programs_of_a_hundred_thousand_operations() {
    eager(100_000);
}

#[test]
fn traced_programs_of_a_hundred_thousand_operations() {
    traced(100_000);
}

#[test]
fn compiled_programs_of_ten_thousand_operations() {
    compiled(10_000);
}

#[test]
fn a_closure_inside_a_closure_inside_a_long_program() {
    on_a_small_stack(|| {
        let f = |x: &Tensor| grad(|x: &Tensor| chain(x, 10_000).sum(..))(x);
        let traced = lazuli::trace(move |x: Tensor| f(&x), Tensor::zeros([2]))?;
        assert!(traced.to_string().lines().count() > 10_000);
        Ok(())
    });
}

#[test]
#[ignore = "takes a minute unless it is built for release"]
fn eager_programs_of_a_million_operations() {
    eager(1_000_000);
}

#[test]
#[ignore = "takes a minute unless it is built for release"]
fn traced_programs_of_a_million_operations() {
    traced(1_000_000);
}
