//! The report as text: tables of kernels, arguments, and steps of compiling.

use super::Report;
use crate::Device;
use std::fmt::{self, Display};
use std::time::Duration;

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
        if self.device != Device::Cpu {
            writeln!(f, "\non {}", self.device)?;
            launch_table(self).fmt(f)?;
        }
        if !self.donations.is_empty() {
            writeln!(f, "\narguments")?;
            donation_table(self).fmt(f)?;
        }
        let (workspace, results) = (bytes(self.workspace_bytes as u64), bytes(self.result_bytes as u64));
        let peak = bytes(self.peak_bytes() as u64);
        writeln!(f, "\nmemory\n  {peak} at most: {workspace} of workspace and {results} of results")?;
        if self.tile_bytes > 0 {
            writeln!(f, "  {} of tiles a thread", bytes(self.tile_bytes as u64))?;
        }
        if let Some(peak) = self.measured_peak_bytes {
            writeln!(f, "  {} seen by the allocator", bytes(peak as u64))?;
        }
        if let Some(limits) = &self.limits {
            let threads = if self.device == Device::Cpu { "threads" } else { "multiprocessors" };
            writeln!(f, "\nthis machine does at most, with {} {threads}", limits.threads)?;
            let gigabytes = |per_us: f64| per_us / 1e3;
            let (memory, cache) = (gigabytes(limits.memory_bytes_per_us), gigabytes(limits.cache_bytes_per_us));
            let (inside, gigaflops) = (bytes(limits.cache_bytes), limits.flops_per_us / 1e3);
            writeln!(f, "  {memory:.1} GB/s, up to {inside} {cache:.1} GB/s, {gigaflops:.1} GFLOP/s")?;
        }
        writeln!(f, "\ncompiled in {}", duration(self.compile_time()))?;
        let mut times = Table::new(&["step", "time", "rewrites", "before", "after"], "lrrrr");
        for p in &self.passes {
            let counts = [p.rewrites, p.before, p.after].map(|n| n.to_string());
            let [rewrites, before, after] = counts;
            times.row([p.name.clone(), duration(p.time), rewrites, before, after]);
        }
        times.fmt(f)?;
        if !self.compilations.is_empty() {
            writeln!(f, "\nwhy")?;
        }
        for c in &self.compilations {
            writeln!(f, "  {}. {}", c.number, c.reason)?;
        }
        Ok(())
    }
}

const HEAD: [&str; 12] = [
    "kernel",
    "time",
    "limit",
    "bytes",
    "flops",
    "GB/s",
    "GFLOP/s",
    "lanes",
    "parallel",
    "parts",
    "operations",
    "source",
];

fn kernel_table(report: &Report) -> Table {
    let mut table = Table::new(&HEAD, "lrrrrrrrrrll");
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |r| format!("{r:.1}"));
    for k in &report.kernels {
        table.row([
            k.name.clone(),
            k.time.map_or_else(|| "-".to_owned(), duration),
            k.share_of_limit().map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
            bytes(k.bytes),
            count(k.flops),
            rate(k.gigabytes_per_second()),
            rate(k.gigaflops()),
            k.lanes.to_string(),
            k.parallel_iterations.to_string(),
            k.parts.to_string(),
            k.operations.join(" "),
            places(&k.sources),
        ]);
    }
    table
}

fn launch_table(report: &Report) -> Table {
    let head = ["kernel", "blocks", "threads", "registers", "local", "shared", "resident", "occupancy"];
    let mut table = Table::new(&head, "lrrrrrrr");
    for (k, l) in report.kernels.iter().filter_map(|k| Some((k, k.launch?))) {
        table.row([
            k.name.clone(),
            l.blocks.to_string(),
            l.threads.to_string(),
            l.registers.to_string(),
            bytes(l.local_bytes.into()),
            bytes(l.shared_bytes.into()),
            l.resident_blocks.to_string(),
            format!("{:.0} %", 100.0 * l.occupancy),
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
    use crate::report::tests::{report, report_of_gpu};

    #[test]
    fn places_name_a_file_once() {
        assert_eq!(places("a.rs:1:2, a.rs:3:4, b.rs:5:6"), "a.rs:1:2 3:4, b.rs:5:6");
        assert_eq!(places(""), "");
    }

    #[test]
    fn the_report_of_a_gpu_has_launches() {
        insta::assert_snapshot!(report_of_gpu().to_string());
    }

    #[test]
    fn the_report_is_an_aligned_table() {
        insta::assert_snapshot!(report().to_string());
    }
}
