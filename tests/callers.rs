//! Programs called from many threads at once, more than there are cores: the same bits, and each call's own errors.

use lazuli::prelude::*;
use lazuli::{Compiled, Result};
use std::sync::Barrier;

const CALLERS: usize = 8;

/// Two contractions and a reduction, large enough that threads share them.
fn program() -> Compiled<'static, (Tensor, Tensor), Tensor> {
    lazuli::compile(|(x, w): (Tensor, Tensor)| x.matmul(&w).softmax(-1).cumsum(0).matmul(w.t()))
}

fn arguments(seed: usize) -> (Tensor, Tensor) {
    let number = |i: usize| ((i * 2_654_435_761 + seed) % 1024) as f32 / 1024.0 - 0.5;
    let matrix = |rows, columns| Tensor::from_vec((0..rows * columns).map(number).collect(), [rows, columns]);
    (matrix(256, 192), matrix(192, 160))
}

fn bits(x: &Tensor) -> Result<Vec<u32>> {
    Ok(x.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
}

/// Runs `caller` on threads that start together.
fn together(caller: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let start = Barrier::new(CALLERS);
    let run = |number: usize| {
        start.wait();
        caller(number)
    };
    let run = &run;
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|number| scope.spawn(move || run(number))).collect();
        callers.into_iter().try_for_each(|c| c.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    })
}

#[test]
fn many_callers_of_one_program_and_of_their_own_get_the_same_bits() -> Result<()> {
    let shared = program();
    let expected = (0..CALLERS).map(|n| bits(&shared.call(arguments(n))?)).collect::<Result<Vec<_>>>()?;
    let two = lazuli::get_num_threads().max(2);
    together(|number| {
        let own = program();
        let given = arguments(number);
        for round in 0..30 {
            // The number of threads changes while others run.
            lazuli::set_num_threads(if (round + number) % 5 == 0 { 1 + round % 4 } else { two });
            assert_eq!(bits(&shared.call(&given)?)?, expected[number], "caller {number} of one program");
            assert_eq!(bits(&own.call(&given)?)?, expected[number], "caller {number} of its own");
            let eager = (&given.0 * 2.0).sum(..).item::<f32>()?;
            assert_eq!(eager.to_bits(), (&given.0 * 2.0).sum(..).item::<f32>()?.to_bits());
        }
        Ok(())
    })?;
    lazuli::set_num_threads(two);
    Ok(())
}

#[test]
fn a_call_that_fails_fails_alone() -> Result<()> {
    let chosen = lazuli::compile(|(x, rows): (Tensor, Tensor)| x.index_select(0, &rows).exp());
    let x = Tensor::from_vec((0..4096).map(|i| i as f32 / 4096.0).collect(), [64, 64]);
    x.eval()?;
    together(|number| {
        for round in 0..200i64 {
            let wrong = (round + number as i64) % 3 == 0;
            let rows = Tensor::from_vec(vec![round % 64, if wrong { 64 + round } else { 63 }], [2]);
            match chosen.call((&x, rows)) {
                Ok(_) => assert!(!wrong, "caller {number}, round {round}: an index out of range was taken"),
                Err(error) => {
                    assert!(wrong, "caller {number}, round {round}: {error}");
                    assert!(error.to_string().contains(&(64 + round).to_string()), "{error}");
                }
            }
        }
        Ok(())
    })
}
