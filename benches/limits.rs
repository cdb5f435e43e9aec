//! How near each workload comes to what this machine can do at most: one JSON line for the machine, then one a workload.
//!
//!     cargo bench -q --bench limits -- [--threads 2] [--seconds 0.5] [--only NAME,..] [--format table] [--peers FILE] [--kernels true]
//!
//! The line of the machine holds `threads`, `memory_gb_s` and `cache_gb_s` (bytes read and written by a copy, in memory and in
//! the threads' own caches), `cache_bytes` and `gflops` (fused multiply-adds). A workload's limit is the longer of two times:
//! that of moving its `bytes` (inputs read once, results written once) and that of the `flops` of its contractions; `bound` says
//! which, or `mixed` where neither is twice the other. `ratio` is `limit_s` over `time_s`, the median of compiled runs.
//!
//! With `--kernels true` a line follows for each kernel of the workload, with its time in a profile.
//!
//! As a table, these are the rows of `docs/performance.md`. A file of lines with `workload`, `engine` and `median_s`, as `peers`
//! prints them for Lazuli, adds the best other engine.

mod common;
mod workloads;

use common::{Arguments, Times};
use lazuli::Tensor;
use lazuli_ir::{Graph, Limits, NodeId, Op};
use serde_json::{Value, json};
use std::collections::HashMap;
use workloads::{NAMES, Workload, workload};

type Failure = Box<dyn std::error::Error>;

/// What a program must do, whoever runs it.
struct Work {
    bytes: u64,
    flops: u64,
}

impl Work {
    fn of(w: &Workload) -> Result<Work, Failure> {
        let graph = Graph::parse(&w.trace()?.optimize()?.to_string())?;
        let read = graph.inputs().iter().map(|(_, n)| graph.node(*n).types[0].bytes() as u64);
        let written = graph.outputs().iter().map(|v| graph.ty(*v).bytes() as u64);
        Ok(Work { bytes: read.chain(written).sum(), flops: graph.nodes().map(|n| contraction(&graph, n)).sum() })
    }
}

/// The multiplications and additions of a contraction.
fn contraction(graph: &Graph, n: NodeId) -> u64 {
    let Op::Dot { dims, .. } = graph.op(n) else { return 0 };
    let left = graph.ty(graph.operands(n)[0]).shape.extents();
    let contracted: usize = dims.contract.iter().map(|(l, _)| left[*l]).product();
    2 * (graph.node(n).types[0].shape.elements() * contracted) as u64
}

fn bound(limits: &Limits, work: &Work) -> &'static str {
    let (moving, computing) = (limits.time(work.bytes, 0), limits.time(0, work.flops));
    match () {
        () if moving >= computing * 2 => "memory",
        () if computing >= moving * 2 => "compute",
        () => "mixed",
    }
}

/// The best time of each workload on an engine that is not Lazuli, and which that is.
fn best_peers(file: &str) -> Result<HashMap<String, (String, f64)>, Failure> {
    let mut best: HashMap<String, (String, f64)> = HashMap::new();
    for line in std::fs::read_to_string(file)?.lines().filter(|l| l.starts_with('{')) {
        let line: Value = serde_json::from_str(line)?;
        let (workload, engine) = (line["workload"].as_str().unwrap_or(""), line["engine"].as_str().unwrap_or(""));
        let Some(time) = line["median_s"].as_f64().filter(|_| !engine.starts_with("lazuli")) else { continue };
        let known = best.entry(workload.to_owned()).or_insert_with(|| (engine.to_owned(), time));
        if time < known.1 {
            *known = (engine.to_owned(), time);
        }
    }
    Ok(best)
}

/// A row of the table.
fn row(line: &Value, peer: Option<&(String, f64)>) -> String {
    let number = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
    let (megabytes, gigaflop) = (number("bytes") / 1e6, number("flops") / 1e9);
    let (limit, time, ratio) = (number("limit_s") * 1e3, number("time_s") * 1e3, number("ratio") * 100.0);
    let name = line["workload"].as_str().unwrap_or("");
    let peer = peer.map_or_else(|| "-".to_owned(), |(engine, time)| format!("{:.3} {engine}", time * 1e3));
    format!("| {name} | {megabytes:.2} | {gigaflop:.3} | {limit:.3} | {time:.3} | {ratio:.0} % | {peer} |")
}

/// The time of each kernel, from the profile in the middle of some.
fn print_kernels(w: &Workload) -> Result<(), Failure> {
    const PROFILES: usize = 21;
    let program = w.compiled();
    let one = || program.profile((&w.data, &w.parameters));
    let mut profiles = std::iter::repeat_with(one).take(PROFILES).collect::<lazuli::Result<Vec<_>>>()?;
    profiles.sort_by_key(|p| p.time());
    for k in &profiles[PROFILES / 2].kernels {
        println!(
            "{}",
            json!({
                "kernel": k.name,
                "time_s": k.time.map(|t| t.as_secs_f64()),
                "gflops": k.gigaflops(),
                "gb_s": k.gigabytes_per_second(),
                "ratio": k.share_of_limit(),
                "sources": k.sources,
            })
        );
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["threads", "seconds", "only", "format", "peers", "kernels"])?;
    let table = arguments.list("format", &["json"]) == ["table"];
    let kernels = arguments.number("kernels", false)?;
    let peers = arguments.list("peers", &[]).first().map(|file| best_peers(file)).transpose()?.unwrap_or_default();
    common::use_threads(arguments.number("threads", common::all_threads())?)?;
    let seconds = arguments.number("seconds", 0.5)?;
    let limits = lazuli_runtime::cpu::limits()?;
    let machine = json!({
        "threads": limits.threads,
        "memory_gb_s": limits.memory_bytes_per_us / 1e3,
        "cache_gb_s": limits.cache_bytes_per_us / 1e3,
        "cache_bytes": limits.cache_bytes,
        "gflops": limits.flops_per_us / 1e3,
    });
    println!("{machine}");
    if table {
        println!(
            "| workload | MB | GFLOP | limit, ms | time, ms | of the limit | best peer, ms |\n|---|---|---|---|---|---|---|"
        );
    }
    for name in arguments.list("only", &NAMES) {
        let w = workload(&name).ok_or_else(|| format!("no workload `{name}`; there are {}", NAMES.join(", ")))?;
        w.data.iter().chain(&w.parameters).try_for_each(Tensor::eval)?;
        let work = Work::of(&w)?;
        let times = Times::measure(seconds, w.runs(w.compiled()))?;
        let (time, limit) = (times.median(), limits.time(work.bytes, work.flops).as_secs_f64());
        let line = json!({
            "workload": name,
            "bound": bound(&limits, &work),
            "time_s": time,
            "min_s": times.least(),
            "limit_s": limit,
            "ratio": limit / time,
            "bytes": work.bytes,
            "flops": work.flops,
        });
        if table {
            println!("{}", row(&line, peers.get(&name)));
        } else {
            println!("{line}");
        }
        if kernels {
            print_kernels(&w)?;
        }
    }
    Ok(())
}
