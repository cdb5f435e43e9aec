//! How much two threads that call compiled programs at once slow each other down: one JSON line for each size of program.
//!
//!     cargo bench -q --bench callers -- [--threads N] [--seconds 0.5] [--only NAME,..]
//!
//! `alone_1_us` is one caller on one thread, `alone_us` one caller on all threads. `two` are two callers with a program each, `shared`
//! two callers of one program, `beside_tiny` one beside a caller of a tiny program, `crowd` four callers a thread, each on all threads: times over
//! `alone_1_us`, and in a crowd over four times that. With as many cores as callers, cores force nothing upon a caller that has one to itself: 1 or less is what
//! should be seen.

#[allow(dead_code, reason = "not all of it is used here")]
mod common;

use common::{Arguments, all_threads, use_threads};
use lazuli::prelude::*;
use lazuli::{Compiled, Result};
use serde_json::json;
use std::sync::Barrier;
use std::time::Instant;

/// Programs by name: rows and columns of a network of so many layers.
const SIZES: &[(&str, usize, usize, usize)] =
    &[("tiny", 4, 32, 2), ("small", 64, 128, 2), ("medium", 64, 256, 8), ("large", 256, 1024, 4)];

type Network = (Tensor, Vec<Tensor>);

fn program() -> Compiled<'static, Network, Tensor> {
    lazuli::compile(|(x, weights): Network| weights.iter().fold(x, |x, w| x.matmul(w).relu()))
}

fn arguments(rows: usize, columns: usize, layers: usize) -> Result<Network> {
    let weight = |_| Tensor::randn([columns, columns]) / (columns as f64).sqrt();
    let network: Network = (Tensor::randn([rows, columns]), (0..layers).map(weight).collect());
    network.0.eval()?;
    network.1.iter().try_for_each(Tensor::eval)?;
    Ok(network)
}

/// Microseconds a call, in a time in which calls follow one another: what the system takes from a caller for others counts.
fn microseconds<T>(seconds: f64, mut call: impl FnMut() -> Result<T>) -> Result<f64> {
    let (start, mut calls) = (Instant::now(), 0);
    while calls < 5 || start.elapsed().as_secs_f64() < seconds {
        let _ = call()?;
        calls += 1;
    }
    Ok((start.elapsed().as_secs_f64() / f64::from(calls) * 1e8).round() / 100.0)
}

/// The times of callers that start together.
fn together(calls: &[(&Compiled<'static, Network, Tensor>, &Network)], seconds: f64) -> Result<Vec<f64>> {
    let start = Barrier::new(calls.len());
    let run = |f: &Compiled<'static, Network, Tensor>, network: &Network| -> Result<f64> {
        let _ = f.call(network)?;
        start.wait();
        microseconds(seconds, || f.call(network))
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = calls.iter().map(|(f, network)| scope.spawn(|| run(f, network))).collect();
        callers.into_iter().map(|c| c.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let given = Arguments::read(&["threads", "seconds", "only"])?;
    let threads = given.number("threads", all_threads())?;
    let (seconds, only) = (given.number("seconds", 0.5)?, given.list("only", &[]));
    use_threads(threads)?;
    let (tiny, little) = (program(), arguments(4, 32, 2)?);
    for (name, rows, columns, layers) in SIZES.iter().filter(|s| only.is_empty() || only.iter().any(|n| n == s.0)) {
        let (one, other) = (program(), program());
        let (mine, yours) = (arguments(*rows, *columns, *layers)?, arguments(*rows, *columns, *layers)?);
        lazuli::set_num_threads(1);
        let alone_1 = together(&[(&one, &mine)], seconds)?[0];
        lazuli::set_num_threads(threads);
        let alone = together(&[(&one, &mine)], seconds)?[0];
        let over = |times: Vec<f64>, callers: f64| -> Vec<f64> {
            times.iter().map(|t| (t / (alone_1 * callers) * 100.0).round() / 100.0).collect()
        };
        let two = over(together(&[(&one, &mine), (&other, &yours)], seconds)?, 1.0);
        let shared = over(together(&[(&one, &mine), (&one, &mine)], seconds)?, 1.0);
        let beside_tiny = over(together(&[(&one, &mine), (&tiny, &little)], seconds)?, 1.0)[0];
        let crowd = over(together(&vec![(&one, &mine); 4 * threads], seconds)?, 4.0);
        let most = crowd.into_iter().fold(0.0, f64::max);
        let line = json!({
            "program": name, "threads": threads, "alone_1_us": alone_1, "alone_us": alone, "two": two, "shared": shared,
            "beside_tiny": beside_tiny, "crowd": most,
        });
        println!("{line}");
    }
    Ok(())
}
