//! The report as JSON, for programs. Written here, in a page: a JSON crate as a dependency adds implementations of
//! `PartialEq` for numbers, after which `assert_eq!(x.shape(), [])` no longer compiles in users' code.

use super::{ContractionRow, Donation, FusionRow, KernelRow, PassRow, Report};
use crate::Compilation;
use lazuli_ir::Limits;
use lazuli_runtime::GpuLaunch;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// A JSON value.
enum Json<'a> {
    Null,
    Bool(bool),
    Integer(u64),
    Float(f64),
    Text(&'a str),
    List(Vec<Json<'a>>),
    Object(Vec<(&'static str, Json<'a>)>),
}

impl Json<'_> {
    fn write(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(v) => write!(f, "{v}"),
            Json::Integer(v) => write!(f, "{v}"),
            // JSON has no other numbers.
            Json::Float(v) if v.is_finite() => write!(f, "{v:?}"),
            Json::Float(_) => f.write_str("null"),
            Json::Text(text) => quoted(f, text),
            Json::List(items) => {
                let lines = items.iter().any(|i| matches!(i, Json::Object(_)));
                enclosed(f, ('[', ']'), indent, lines, items, |f, item| item.write(f, indent + 2))
            }
            Json::Object(fields) => enclosed(f, ('{', '}'), indent, true, fields, |f, (key, value)| {
                quoted(f, key)?;
                f.write_str(": ")?;
                value.write(f, indent + 2)
            }),
        }
    }
}

impl Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// Items between brackets: each on its line, or all on one.
fn enclosed<T>(
    f: &mut fmt::Formatter<'_>,
    (open, close): (char, char),
    indent: usize,
    lines: bool,
    items: &[T],
    item: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    let lines = lines & !items.is_empty();
    let inner = indent + 2;
    f.write_char(open)?;
    for (i, one) in items.iter().enumerate() {
        match (i, lines) {
            (0, true) => write!(f, "\n{:inner$}", "")?,
            (_, true) => write!(f, ",\n{:inner$}", "")?,
            (0, false) => {}
            (_, false) => f.write_str(", ")?,
        }
        item(f, one)?;
    }
    if lines {
        write!(f, "\n{:indent$}", "")?;
    }
    f.write_char(close)
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            c if c.is_control() => write!(f, "\\u{:04x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

impl From<bool> for Json<'_> {
    fn from(v: bool) -> Self {
        Json::Bool(v)
    }
}

impl From<u64> for Json<'_> {
    fn from(v: u64) -> Self {
        Json::Integer(v)
    }
}

impl From<u32> for Json<'_> {
    fn from(v: u32) -> Self {
        Json::Integer(u64::from(v))
    }
}

impl From<usize> for Json<'_> {
    fn from(v: usize) -> Self {
        Json::Integer(v as u64)
    }
}

impl From<f64> for Json<'_> {
    fn from(v: f64) -> Self {
        Json::Float(v)
    }
}

impl From<Duration> for Json<'_> {
    /// In nanoseconds.
    fn from(v: Duration) -> Self {
        Json::Integer(u64::try_from(v.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl<'a> From<&'a str> for Json<'a> {
    fn from(v: &'a str) -> Self {
        Json::Text(v)
    }
}

impl<'a> From<&'a String> for Json<'a> {
    fn from(v: &'a String) -> Self {
        Json::Text(v)
    }
}

impl<'a, T: Into<Json<'a>>> From<Option<T>> for Json<'a> {
    fn from(v: Option<T>) -> Self {
        v.map_or(Json::Null, T::into)
    }
}

impl<'a, T: Into<Json<'a>>> FromIterator<T> for Json<'a> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Json::List(items.into_iter().map(T::into).collect())
    }
}

/// An object of fields in the order given.
macro_rules! object {
    ($($key:literal: $value:expr),* $(,)?) => {
        Json::Object(vec![$(($key, Json::from($value))),*])
    };
}

impl Report {
    /// The report as JSON: an object with `kernels`, `fusion`, `contractions`, `arguments`, `memory`, `passes`, `compilations` and `limits`, each
    /// with the fields of the type here. Times are in nanoseconds; what was not measured is `null`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let double = lazuli::compile(|x: Tensor| x * 2.0).named("double");
    /// let text = double.profile(&Tensor::ones([64]))?.to_json();
    /// assert!(text.starts_with('{') & text.contains("\"share_of_limit\""));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let device = self.device.to_string();
        let value = object! {
            "name": &self.name,
            "device": &device,
            "kernels": self.kernels.iter().map(kernel).collect::<Json<'_>>(),
            "fusion": self.fusion.iter().map(fusion).collect::<Json<'_>>(),
            "contractions": self.contractions.iter().map(contraction).collect::<Json<'_>>(),
            "arguments": self.donations.iter().map(donation).collect::<Json<'_>>(),
            "memory": object! {
                "workspace_bytes": self.workspace_bytes,
                "result_bytes": self.result_bytes,
                "tile_bytes": self.tile_bytes,
                "peak_bytes": self.peak_bytes(),
                "measured_peak_bytes": self.measured_peak_bytes,
            },
            "passes": self.passes.iter().map(pass).collect::<Json<'_>>(),
            "compile_time": self.compile_time(),
            "compilations": self.compilations.iter().map(compilation).collect::<Json<'_>>(),
            "time": self.time(),
            "limits": self.limits.as_ref().map(limits),
        };
        value.to_string()
    }
}

/// The places of a list that stands as text.
fn places(sources: &str) -> Json<'_> {
    sources.split(", ").filter(|s| !s.is_empty()).collect()
}

fn kernel(k: &KernelRow) -> Json<'_> {
    object! {
        "name": &k.name,
        "operations": k.operations.iter().copied().collect::<Json<'_>>(),
        "values": k.values.iter().collect::<Json<'_>>(),
        "sources": places(&k.sources),
        "bytes": k.bytes,
        "flops": k.flops,
        "lanes": k.lanes,
        "vectorised": k.is_vectorised(),
        "parallel_iterations": k.parallel_iterations,
        "parts": k.parts,
        "launch": k.launch.as_ref().map(launch),
        "time": k.time,
        "limit": k.limit,
        "share_of_limit": k.share_of_limit(),
        "gigabytes_per_second": k.gigabytes_per_second(),
        "gigaflops": k.gigaflops(),
    }
}

fn contraction(row: &ContractionRow) -> Json<'_> {
    object! {
        "contraction": &row.contraction,
        "sources": places(&row.sources),
        "routine": row.routine,
        "reason": &row.reason,
    }
}

fn launch(l: &GpuLaunch) -> Json<'_> {
    object! {
        "blocks": l.blocks,
        "threads": l.threads,
        "registers": l.registers,
        "local_bytes": l.local_bytes,
        "shared_bytes": l.shared_bytes,
        "resident_blocks": l.resident_blocks,
        "occupancy": l.occupancy,
    }
}

fn fusion(row: &FusionRow) -> Json<'_> {
    object! {
        "producer": &row.producer,
        "consumer": &row.consumer,
        "operations": [row.operations.0, row.operations.1].into_iter().collect::<Json<'_>>(),
        "sources": [places(&row.sources.0), places(&row.sources.1)].into_iter().collect::<Json<'_>>(),
        "fused": row.fused,
        "reason": &row.reason,
        "bytes": row.bytes,
        "flops": row.flops,
    }
}

fn donation(d: &Donation) -> Json<'_> {
    object! { "argument": &d.argument, "result": d.result, "taken": d.taken, "reason": &d.reason }
}

fn pass(p: &PassRow) -> Json<'_> {
    object! { "name": &p.name, "time": p.time, "rewrites": p.rewrites, "before": p.before, "after": p.after }
}

fn compilation(c: &Compilation) -> Json<'_> {
    object! { "number": c.number, "reason": &c.reason, "arguments": &c.arguments, "time": c.time }
}

fn limits(l: &Limits) -> Json<'_> {
    object! {
        "threads": l.threads,
        "memory_bytes_per_us": l.memory_bytes_per_us,
        "cache_bytes_per_us": l.cache_bytes_per_us,
        "cache_bytes": l.cache_bytes,
        "flops_per_us": l.flops_per_us,
    }
}

#[cfg(test)]
mod tests {
    use crate::report::tests::{report, report_of_gpu};

    #[test]
    fn the_report_as_json() {
        insta::assert_snapshot!(report().to_json());
    }

    #[test]
    fn launches_on_a_gpu_are_objects() {
        let value: serde_json::Value = serde_json::from_str(&report_of_gpu().to_json()).unwrap();
        assert_eq!(value["device"], "cuda:0");
        let launch = &value["kernels"][0]["launch"];
        assert_eq!((&launch["registers"], &launch["occupancy"]), (&40.into(), &0.75.into()));
        assert_eq!(launch["shared_bytes"], 32 << 10);
    }

    #[test]
    fn names_are_escaped() {
        let mut report = report();
        report.name = "a \"b\" \\ \n \u{7f} \u{1f600}".to_owned();
        report.donations.clear();
        report.kernels[0].time = Some(std::time::Duration::ZERO);
        let value: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(value["name"], report.name);
        assert_eq!(value["arguments"], serde_json::json!([]));
        assert_eq!(value["kernels"][0]["lanes"], 8);
    }
}
