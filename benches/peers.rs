//! Times the workloads on which Lazuli is compared with its peers, one JSON line a workload and engine.
//!
//!     cargo bench -q --bench peers -- --threads 2 --seconds 1 [--only NAME,..] [--engines lazuli,lazuli-eager]
//!
//! A line holds `workload`, `engine` (`lazuli` is compiled), `threads`, `median_s`, `min_s`, `runs`, `compile_s` (the first run
//! less a steady one) and `checksum` (the mean absolute value of the first run's first result). Inputs are made once; a run is
//! one call. Training workloads feed the updated parameters to the next run.

mod common;
mod workloads;

use common::{Arguments, Times};
use lazuli::{Result, Tensor};
use std::time::Instant;
use workloads::{NAMES, Workload, workload};

/// What was measured of one workload on one engine.
struct Measurement {
    times: Times,
    first: f64,
    checksum: f64,
}

impl Measurement {
    fn line(&self, workload: &str, engine: &str, threads: usize) -> String {
        let median = self.times.median();
        serde_json::json!({
            "workload": workload, "engine": engine, "threads": threads, "median_s": median,
            "min_s": self.times.least(), "runs": self.times.len(), "compile_s": (self.first - median).max(0.0),
            "checksum": self.checksum,
        })
        .to_string()
    }
}

fn measure(seconds: f64, mut run: impl FnMut() -> Result<Tensor>) -> Result<Measurement> {
    let start = Instant::now();
    let output = run()?;
    let first = start.elapsed().as_secs_f64();
    let elements = output.to_vec::<f32>()?;
    let checksum = elements.iter().map(|&v| f64::from(v).abs()).sum::<f64>() / elements.len() as f64;
    drop((output, elements));
    Ok(Measurement { times: Times::measure(seconds, run)?, first, checksum })
}

fn eager(w: &Workload) -> impl FnMut() -> Result<Tensor> {
    let mut parameters = w.parameters.clone();
    move || {
        let given = if w.trains { std::mem::take(&mut parameters) } else { parameters.clone() };
        let (output, updated) = w.run(&w.data, given);
        output.eval()?;
        updated.iter().try_for_each(Tensor::eval)?;
        if w.trains {
            parameters = updated;
        }
        Ok(output)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::read(&["threads", "seconds", "only", "engines"])?;
    let (threads, seconds) = (arguments.number("threads", common::all_threads())?, arguments.number("seconds", 1.0)?);
    common::use_threads(threads)?;
    for name in arguments.list("only", &NAMES) {
        if !NAMES.contains(&name.as_str()) {
            // Who compares may ask every engine for what not all of them have.
            eprintln!("no workload `{name}`; there are {}", NAMES.join(", "));
            continue;
        }
        for engine in arguments.list("engines", &["lazuli", "lazuli-eager"]) {
            let w = workload(&name).ok_or_else(|| format!("workload `{name}` has a name alone"))?;
            w.data.iter().chain(&w.parameters).try_for_each(Tensor::eval)?;
            let measurement = match engine.as_str() {
                "lazuli" => measure(seconds, w.runs())?,
                "lazuli-eager" => measure(seconds, eager(&w))?,
                other => return Err(format!("no engine `{other}`; there are lazuli and lazuli-eager").into()),
            };
            println!("{}", measurement.line(&name, &engine, threads));
        }
    }
    Ok(())
}
