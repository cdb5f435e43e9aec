//! Times the workloads on which Lazuli is compared with its peers, one JSON line a workload and engine.
//!
//!     cargo bench -q --bench peers -- --threads 2 --seconds 1 [--only NAME,..] [--engines lazuli,lazuli-eager] [--device cuda] [--tf32 true]
//!
//! A line holds `workload`, `engine` (`lazuli` is compiled), `device`, `threads`, `median_s`, `min_s`, `runs`, `queued_s` (the time of a
//! run in a row of [`IN_A_ROW`], after which the device is waited for once), `compile_s` (the first run less a steady one) and `checksum`
//! (the mean absolute value of the first run's first result). Inputs are made once; a run is one call, and on a GPU a wait for it.
//! Training workloads feed the updated parameters to the next run. `benches/cuda_peers.py` runs it beside peers on a GPU.

mod common;
mod workloads;

use common::{Arguments, Times};
use lazuli::{DType, Device, Result, Tensor};
use std::time::Instant;
use workloads::{NAMES, Workload, workload};

/// Runs between two waits for the device.
const IN_A_ROW: u32 = 20;

/// What was measured of one workload on one engine.
struct Measurement {
    times: Times,
    queued: f64,
    first: f64,
    checksum: f64,
}

impl Measurement {
    fn line(&self, workload: &str, engine: &str, device: Device, threads: usize) -> String {
        let median = self.times.median();
        serde_json::json!({
            "workload": workload, "engine": engine, "device": device.to_string(), "threads": threads, "median_s": median,
            "min_s": self.times.least(), "runs": self.times.len(), "queued_s": self.queued, "compile_s": (self.first - median).max(0.0),
            "checksum": self.checksum,
        })
        .to_string()
    }
}

fn measure(seconds: f64, device: Device, mut run: impl FnMut() -> Result<Tensor>) -> Result<Measurement> {
    let wait = || if device == Device::Cpu { Ok(()) } else { lazuli::cuda::synchronize(device) };
    let start = Instant::now();
    let output = run()?;
    wait()?;
    let first = start.elapsed().as_secs_f64();
    let elements = output.to((Device::Cpu, DType::F32)).to_vec::<f32>()?;
    let checksum = elements.iter().map(|&v| f64::from(v).abs()).sum::<f64>() / elements.len() as f64;
    drop((output, elements));
    let times = Times::measure(seconds, || run().and_then(|output| wait().map(|()| output)))?;
    let start = Instant::now();
    for _ in 0..IN_A_ROW {
        let _ = run()?;
    }
    wait()?;
    Ok(Measurement { times, queued: start.elapsed().as_secs_f64() / f64::from(IN_A_ROW), first, checksum })
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
    let arguments = Arguments::read(&["threads", "seconds", "only", "engines", "device", "tf32"])?;
    let (name, tf32) = (arguments.list("device", &["cpu"]).concat(), arguments.number("tf32", false)?);
    let device = match name.as_str() {
        "cpu" => Device::Cpu,
        "cuda" => Device::cuda(0)?,
        other => return Err(format!("no device `{other}`; there are cpu and cuda").into()),
    };
    let (threads, seconds) = (arguments.number("threads", common::all_threads())?, arguments.number("seconds", 1.0)?);
    common::use_threads(threads)?;
    for name in arguments.list("only", &NAMES) {
        for engine in arguments.list("engines", &["lazuli", "lazuli-eager"]) {
            let Some(w) = workload(&name) else {
                // Who compares may ask every engine for what not all of them have.
                eprintln!("no workload `{name}`; there are {}, and those of other sizes", NAMES.join(", "));
                continue;
            };
            let w = w.on(device);
            w.data.iter().chain(&w.parameters).try_for_each(Tensor::eval)?;
            let measurement = match engine.as_str() {
                "lazuli" => measure(seconds, device, w.runs(w.compiled().tf32(tf32)))?,
                "lazuli-eager" => measure(seconds, device, eager(&w))?,
                other => return Err(format!("no engine `{other}`; there are lazuli and lazuli-eager").into()),
            };
            println!("{}", measurement.line(&name, &engine, device, threads));
        }
    }
    Ok(())
}
