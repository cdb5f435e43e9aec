//! Times the workloads on which Lazuli is compared with its peers, one JSON line a workload and engine.
//!
//!     cargo bench -q --bench peers -- --threads 2 --seconds 1 [--only NAME,..] [--engines lazuli,lazuli-eager]
//!
//! A line holds `workload`, `engine` (`lazuli` is compiled), `threads`, `median_s`, `min_s`, `runs`, `compile_s` (the first run
//! less a steady one) and `checksum` (the mean absolute value of the first run's first result). Inputs are made once; a run is
//! one call. Training workloads feed the updated parameters to the next run.

mod workloads;

use lazuli::{Result, Tensor};
use std::time::{Duration, Instant};
use workloads::{NAMES, Workload, workload};

/// What the command line asks for.
struct Options {
    threads: usize,
    seconds: f64,
    only: Vec<String>,
    engines: Vec<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> std::result::Result<Options, String> {
        let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut options = Options {
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            seconds: 1.0,
            only: NAMES.map(str::to_owned).to_vec(),
            engines: list("lazuli,lazuli-eager".into()),
        };
        while let Some(name) = arguments.next() {
            if name == "--bench" || name == "--test" {
                continue; // Cargo's own.
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = |what: &str| format!("{name} takes {what}, not `{value}`");
            match name.as_str() {
                "--threads" => options.threads = value.parse().map_err(|_| number("a whole number"))?,
                "--seconds" => options.seconds = value.parse().map_err(|_| number("a number"))?,
                "--only" => options.only = list(value),
                "--engines" => options.engines = list(value),
                _ => return Err(format!("{name} is unknown; there are --threads, --seconds, --only and --engines")),
            }
        }
        Ok(options)
    }
}

/// What was measured of one workload on one engine.
struct Measurement {
    times: Vec<Duration>,
    first: Duration,
    checksum: f64,
}

impl Measurement {
    fn line(&mut self, workload: &str, engine: &str, threads: usize) -> String {
        self.times.sort_unstable();
        let seconds = |time: Option<&Duration>| time.map_or(f64::NAN, Duration::as_secs_f64);
        let (n, first) = (self.times.len(), self.first.as_secs_f64());
        let (low, high) = (seconds(self.times.get((n - 1) / 2)), seconds(self.times.get(n / 2)));
        let (median, least) = ((low + high) / 2.0, seconds(self.times.first()));
        serde_json::json!({
            "workload": workload, "engine": engine, "threads": threads, "median_s": median, "min_s": least, "runs": n,
            "compile_s": (first - median).max(0.0), "checksum": self.checksum,
        })
        .to_string()
    }
}

fn measure(seconds: f64, mut run: impl FnMut() -> Result<Tensor>) -> Result<Measurement> {
    let start = Instant::now();
    let output = run()?;
    let first = start.elapsed();
    let elements = output.to_vec::<f32>()?;
    let checksum = elements.iter().map(|&v| f64::from(v).abs()).sum::<f64>() / elements.len() as f64;
    drop((output, elements));
    for _ in 0..3 {
        let _ = run()?;
    }
    let (mut times, end) = (Vec::new(), Instant::now() + Duration::from_secs_f64(seconds));
    while times.len() < 5 || Instant::now() < end {
        let start = Instant::now();
        let _ = run()?;
        times.push(start.elapsed());
    }
    Ok(Measurement { times, first, checksum })
}

fn compiled(w: &Workload, seconds: f64) -> Result<Measurement> {
    let program = w.compiled();
    let mut parameters = w.parameters.clone();
    measure(seconds, || {
        if !w.trains {
            return Ok(program.call((&w.data, &parameters))?.0);
        }
        let (loss, updated) = program.call((&w.data, std::mem::take(&mut parameters)))?;
        parameters = updated;
        Ok(loss)
    })
}

fn eager(w: &Workload, seconds: f64) -> Result<Measurement> {
    let mut parameters = w.parameters.clone();
    measure(seconds, || {
        let given = if w.trains { std::mem::take(&mut parameters) } else { parameters.clone() };
        let (output, updated) = w.run(&w.data, given);
        output.eval()?;
        updated.iter().try_for_each(Tensor::eval)?;
        if w.trains {
            parameters = updated;
        }
        Ok(output)
    })
}

/// Keeps this process on its first processors: peers are measured in the same way.
#[cfg(target_os = "linux")]
fn pin(threads: usize) -> std::io::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let mut chosen = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(threads).for_each(|cpu| chosen.set(cpu));
    Ok(sched_setaffinity(None, &chosen)?)
}

#[cfg(not(target_os = "linux"))]
fn pin(_: usize) -> std::io::Result<()> {
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    pin(options.threads)?;
    lazuli_runtime::cpu::set_num_threads(options.threads);
    for name in &options.only {
        if !NAMES.contains(&name.as_str()) {
            // Who compares may ask every engine for what not all of them have.
            eprintln!("no workload `{name}`; there are {}", NAMES.join(", "));
            continue;
        }
        for engine in &options.engines {
            let w = workload(name).ok_or_else(|| format!("workload `{name}` has a name alone"))?;
            w.data.iter().chain(&w.parameters).try_for_each(Tensor::eval)?;
            let mut measurement = match engine.as_str() {
                "lazuli" => compiled(&w, options.seconds)?,
                "lazuli-eager" => eager(&w, options.seconds)?,
                other => return Err(format!("no engine `{other}`; there are lazuli and lazuli-eager").into()),
            };
            println!("{}", measurement.line(name, engine, options.threads));
        }
    }
    Ok(())
}
