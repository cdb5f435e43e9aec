//! What a compiled program costs, kernel by kernel; who was overwritten; how long compiling took.

use crate::compile::{Module, Ownership};
use lazuli_ir::{Sources, program::Place};
use std::fmt::{self, Display};
use std::time::Duration;

/// What a compiled program costs: [`Stages::report`](crate::Stages::report), or with times
/// [`Compiled::profile`](crate::Compiled::profile).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The program's name.
    pub name: String,
    /// A row for each kernel, in the order they run.
    pub kernels: Vec<KernelRow>,
    /// A row for each decision of fusion.
    pub fusion: Vec<FusionRow>,
    /// For each argument that a result could take over: whether it did in the latest call, and why not.
    pub donations: Vec<Donation>,
    /// Bytes of workspace that a call leases.
    pub workspace_bytes: usize,
    /// Bytes of results that get storage of their own where nothing is given away.
    pub result_bytes: usize,
    /// How long each step of compiling took, in order.
    pub passes: Vec<(String, Duration)>,
}

/// One kernel of a program.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KernelRow {
    /// Its name.
    pub name: String,
    /// The graph operations it computes, in order.
    pub operations: Vec<&'static str>,
    /// The lines of your code that it stands for, separated by commas.
    pub sources: String,
    /// How long it took, where it was measured.
    pub time: Option<Duration>,
    /// Bytes it reads and writes, each buffer once.
    pub bytes: u64,
    /// Floating point operations.
    pub flops: u64,
}

/// One decision of fusion.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FusionRow {
    /// The producer's label in the optimised graph: `%3`.
    pub producer: String,
    /// The consumer's label.
    pub consumer: String,
    /// The names of both operations.
    pub operations: (&'static str, &'static str),
    /// The lines of your code of both.
    pub sources: (String, String),
    /// Whether they are in one kernel.
    pub fused: bool,
    /// Why, or why not.
    pub reason: String,
    /// Bytes that fusing saves.
    pub bytes: u64,
    /// Floating point operations that fusing repeats.
    pub flops: u64,
}

/// What became of an argument whose storage a result can take over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Donation {
    /// The argument's name.
    pub argument: String,
    /// The number of the result that can take its storage over.
    pub result: Option<usize>,
    /// Whether it did, in the latest call.
    pub taken: bool,
    /// Why, or why not.
    pub reason: String,
}

impl KernelRow {
    /// Gigabytes moved in a second, where the kernel was measured.
    pub fn gigabytes_per_second(&self) -> Option<f64> {
        self.time.map(|t| self.bytes as f64 / t.as_secs_f64().max(1e-9) / 1e9)
    }

    /// Billions of floating point operations in a second, where the kernel was measured.
    pub fn gigaflops(&self) -> Option<f64> {
        self.time.map(|t| self.flops as f64 / t.as_secs_f64().max(1e-9) / 1e9)
    }
}

impl Report {
    pub(crate) fn new(module: &Module, times: Option<Vec<Duration>>) -> Report {
        let (recorded, code) = (module.recorded(), &module.code);
        let program = code.program();
        let times = times.unwrap_or_default();
        let kernels = program.steps.iter().enumerate().map(|(i, step)| KernelRow {
            name: program.kernels.get(step.kernel).map_or_else(String::new, |k| k.name.clone()),
            operations: step.cost.operations.clone(),
            sources: step.cost.sources.to_string(),
            time: times.get(i).copied(),
            bytes: step.cost.bytes,
            flops: step.cost.flops,
        });
        let mut passes = vec![("trace".to_owned(), recorded.time)];
        passes.extend(module.improved.passes.iter().cloned());
        passes.extend(code.passes().iter().cloned());
        let result_bytes = program.buffers.iter().filter(|b| matches!(b.place, Place::Output { .. }));
        Report {
            name: recorded.capture.graph.name().to_owned(),
            kernels: kernels.collect(),
            fusion: fusion(module),
            donations: donations(module),
            workspace_bytes: code.workspace_bytes(),
            result_bytes: result_bytes.map(|b| b.bytes()).sum(),
            passes,
        }
    }

    /// Why two operations are not in one kernel; `None` where they are, or where nothing joins them.
    ///
    /// An operation is given by its label in the optimised graph (`%3`), its name (`exp`), or the end of its place in your
    /// code (`main.rs:12` or `main.rs:12:20`).
    pub fn why_not_fused(&self, producer: &str, consumer: &str) -> Option<&str> {
        let names = |wanted: &str, label: &str, operation: &str, sources: &str| {
            label == wanted || operation == wanted || sources.split(", ").any(|place| is_place(place, wanted))
        };
        self.fusion
            .iter()
            .filter(|row| !row.fused)
            .find(|row| {
                names(producer, &row.producer, row.operations.0, &row.sources.0)
                    && names(consumer, &row.consumer, row.operations.1, &row.sources.1)
            })
            .map(|row| row.reason.as_str())
    }

    /// Bytes that a call needs at most beyond its arguments.
    pub fn peak_bytes(&self) -> usize {
        self.workspace_bytes.saturating_add(self.result_bytes)
    }

    /// How long compiling took, tracing included.
    pub fn compile_time(&self) -> Duration {
        self.passes.iter().map(|(_, time)| *time).sum()
    }

    /// How long the kernels took, where they were measured.
    pub fn time(&self) -> Option<Duration> {
        self.kernels.iter().map(|k| k.time).sum()
    }
}

/// Whether `wanted` is the end of a place, from a file's name on, with or without the column.
fn is_place(place: &str, wanted: &str) -> bool {
    let ends = |place: &str| {
        place.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('/') || rest.ends_with('\\'))
    };
    wanted.contains(':') && (ends(place) || place.rsplit_once(':').is_some_and(|(line, _)| ends(line)))
}

fn fusion(module: &Module) -> Vec<FusionRow> {
    let labels = module.improved.graph.labels();
    let text = |sources: &Sources| sources.to_string();
    let rows = module.code.ledger().rows.iter().map(|row| FusionRow {
        producer: labels.of(row.producer.into()).to_string(),
        consumer: labels.of(row.consumer.into()).to_string(),
        operations: row.operations,
        sources: (text(&row.sources.0), text(&row.sources.1)),
        fused: row.fused,
        reason: row.reason.clone(),
        bytes: row.bytes,
        flops: row.flops,
    });
    rows.collect()
}

fn donations(module: &Module) -> Vec<Donation> {
    let (recorded, code) = (module.recorded(), &module.code);
    let latest = code.ownership();
    let rows = recorded.names.iter().enumerate().map(|(i, name)| {
        let result = code.taken_over_by(i);
        let ownership = latest.get(i).copied();
        let reason = match (ownership, result) {
            (None, _) => "not called yet",
            (Some(Ownership::Given), None) => "given away, but no result fits its storage",
            (Some(ownership), _) => ownership.words(),
        };
        let taken = result.is_some() && ownership == Some(Ownership::Given);
        Donation { argument: name.clone(), result, taken, reason: reason.to_owned() }
    });
    rows.collect()
}

impl Display for Report {
    /// A table with a row a kernel, then arguments, memory, and times of compiling.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.kernels.len();
        write!(f, "{}: {kernels} kernel{}", self.name, if kernels == 1 { "" } else { "s" })?;
        if let Some(time) = self.time() {
            write!(f, ", {}", duration(time))?;
        }
        writeln!(f)?;
        kernel_table(self).fmt(f)?;
        if !self.donations.is_empty() {
            writeln!(f, "\narguments")?;
            donation_table(self).fmt(f)?;
        }
        let (workspace, results) = (bytes(self.workspace_bytes as u64), bytes(self.result_bytes as u64));
        let peak = bytes(self.peak_bytes() as u64);
        writeln!(f, "\nmemory\n  {peak} at most: {workspace} of workspace and {results} of results")?;
        writeln!(f, "\ncompiled in {}", duration(self.compile_time()))?;
        let mut times = Table::new(&["step", "time"], "lr");
        for (name, time) in &self.passes {
            times.row([name.clone(), duration(*time)]);
        }
        times.fmt(f)
    }
}

fn kernel_table(report: &Report) -> Table {
    let mut table =
        Table::new(&["kernel", "time", "bytes", "flops", "GB/s", "GFLOP/s", "operations", "source"], "lrrrrrll");
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |r| format!("{r:.1}"));
    for k in &report.kernels {
        table.row([
            k.name.clone(),
            k.time.map_or_else(|| "-".to_owned(), duration),
            bytes(k.bytes),
            count(k.flops),
            rate(k.gigabytes_per_second()),
            rate(k.gigaflops()),
            k.operations.join(" "),
            places(&k.sources),
        ]);
    }
    table
}

fn donation_table(report: &Report) -> Table {
    let mut table = Table::new(&["argument", "result", "why"], "lll");
    for d in &report.donations {
        let result = match (d.result, d.taken) {
            (Some(n), true) => format!("is overwritten by {n}"),
            (Some(n), false) => format!("could hold {n}"),
            (None, _) => "-".to_owned(),
        };
        table.row([d.argument.clone(), result, d.reason.clone()]);
    }
    table
}

/// Places with each file's name once: `src/main.rs:12:20 13:5`.
fn places(sources: &str) -> String {
    let mut short = String::new();
    let mut last = "";
    for place in sources.split(", ") {
        let mut parts = place.rmatch_indices(':');
        let end = parts.nth(1).map_or(0, |(at, _)| at);
        let (file, position) = place.split_at(end);
        if file != last || short.is_empty() {
            short.push_str(if short.is_empty() { "" } else { ", " });
            short.push_str(place);
        } else {
            short.push(' ');
            short.push_str(position.trim_start_matches(':'));
        }
        last = file;
    }
    short
}

/// Rows of text in aligned columns: `l`eft or `r`ight.
struct Table {
    align: &'static str,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str], align: &'static str) -> Table {
        Table { align, rows: vec![head.iter().map(|&h| h.to_owned()).collect()] }
    }

    fn row<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.to_vec());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..self.align.len()).map(|c| width(c).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for ((cell, &width), align) in row.iter().zip(&widths).zip(self.align.chars()) {
                let cell = if align == 'r' { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn duration(time: Duration) -> String {
    format!("{time:.1?}")
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / 1024.0 / 1024.0),
    }
}

fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.1} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            name: "step".to_owned(),
            kernels: vec![KernelRow {
                name: "softmax".to_owned(),
                operations: vec!["sub", "exp"],
                sources: "src/main.rs:12:20".to_owned(),
                time: Some(Duration::from_micros(10)),
                bytes: 1_000_000,
                flops: 20_000,
            }],
            fusion: vec![FusionRow {
                producer: "%1".to_owned(),
                consumer: "%2".to_owned(),
                operations: ("dot", "reduce_sum"),
                sources: ("src/main.rs:12:20".to_owned(), "a.rs:3:4, src/main.rs:13:5".to_owned()),
                fused: false,
                reason: "reduces".to_owned(),
                bytes: 0,
                flops: 0,
            }],
            donations: vec![Donation {
                argument: "w".to_owned(),
                result: Some(1),
                taken: true,
                reason: "given away".to_owned(),
            }],
            workspace_bytes: 128,
            result_bytes: 64,
            passes: vec![("trace".to_owned(), Duration::from_micros(1500))],
        }
    }

    #[test]
    fn operations_are_found_by_label_name_and_place() {
        let report = report();
        for (a, b) in [("%1", "%2"), ("dot", "reduce_sum"), ("main.rs:12", "main.rs:13:5"), ("src/main.rs:12:20", "%2")]
        {
            assert_eq!(report.why_not_fused(a, b), Some("reduces"), "{a} {b}");
        }
        for (a, b) in [("%2", "%1"), ("dot", "exp"), ("ain.rs:12", "%2"), ("main.rs:1", "%2")] {
            assert_eq!(report.why_not_fused(a, b), None, "{a} {b}");
        }
    }

    #[test]
    fn places_name_a_file_once() {
        assert_eq!(places("a.rs:1:2, a.rs:3:4, b.rs:5:6"), "a.rs:1:2 3:4, b.rs:5:6");
        assert_eq!(places(""), "");
    }

    #[test]
    fn the_report_is_an_aligned_table() {
        let text = report().to_string();
        let expected = "\
step: 1 kernel, 10.0µs
  kernel     time      bytes   flops   GB/s  GFLOP/s  operations  source
  softmax  10.0µs  976.6 KiB  20.0 k  100.0      2.0  sub exp     src/main.rs:12:20

arguments
  argument  result               why
  w         is overwritten by 1  given away

memory
  192 B at most: 128 B of workspace and 64 B of results

compiled in 1.5ms
  step    time
  trace  1.5ms
";
        assert_eq!(text, expected);
    }
}
