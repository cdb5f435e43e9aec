//! What a compiled program costs, kernel by kernel; who was overwritten; how long compiling took. A value, which prints as
//! text (`text.rs`) and as JSON (`json.rs`).

mod json;
mod text;

use crate::compile::{Module, Ownership, Profile};
use crate::{Compilation, Device};
use lazuli_ir::program::{Place, Step};
use lazuli_ir::{Limits, Sources};
use lazuli_runtime::GpuLaunch;
use std::time::Duration;

/// What a compiled program costs: [`Stages::report`](crate::Stages::report), or with times
/// [`Compiled::profile`](crate::Compiled::profile).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The program's name.
    pub name: String,
    /// Where it runs.
    pub device: Device,
    /// A row for each kernel, in the order they run.
    pub kernels: Vec<KernelRow>,
    /// A row for each decision of fusion.
    pub fusion: Vec<FusionRow>,
    /// A row for each contraction, where the device has a routine for products of matrices.
    pub contractions: Vec<ContractionRow>,
    /// For each argument that a result could take over: whether it did in the latest call, and why not.
    pub donations: Vec<Donation>,
    /// Bytes of workspace that a call leases.
    pub workspace_bytes: usize,
    /// Bytes of results that get storage of their own where nothing is given away.
    pub result_bytes: usize,
    /// Bytes of tiles that each thread keeps for the kernels, whatever programs it runs.
    pub tile_bytes: usize,
    /// Bytes by which storage grew at most while the program ran, as the allocator saw it, where the program was profiled:
    /// what was planned, rounded up to the allocator's sizes, unless other threads took storage meanwhile.
    pub measured_peak_bytes: Option<usize>,
    /// What each step of compiling did, in order.
    pub passes: Vec<PassRow>,
    /// The latest compilations of the function, with their reasons, oldest first. None where the program comes from
    /// [`trace`](crate::trace()).
    pub compilations: Vec<Compilation>,
    /// What the machine does at most, where the program was profiled.
    pub limits: Option<Limits>,
}

/// One step of compiling.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PassRow {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub time: Duration,
    /// How often one of its rules applied.
    pub rewrites: usize,
    /// How many nodes or kernels there were before it.
    pub before: usize,
    /// How many there were after it.
    pub after: usize,
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
    /// The labels of the values it computes, in the optimised graph.
    pub values: Vec<String>,
    /// Elements that its widest vectors hold; 1 where it is scalar (a matrix product inside of it runs in the vectors of its
    /// library).
    pub lanes: u32,
    /// Iterations that threads can share.
    pub parallel_iterations: u64,
    /// Parts in which threads claim them; 1 where the work is worth one thread only, which then is the calling one.
    pub parts: u64,
    /// How it is launched, and what it takes of the device, where the program runs on a GPU.
    pub launch: Option<GpuLaunch>,
    /// The least time in which the machine could do it, where the program was profiled: the longer of moving its bytes and
    /// doing its operations.
    pub limit: Option<Duration>,
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

/// How a contraction is computed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContractionRow {
    /// Its label in the optimised graph: `%3`.
    pub contraction: String,
    /// The lines of your code.
    pub sources: String,
    /// Whether by the device's routine for products of matrices (cuBLASLt); else by loops that fuse.
    pub routine: bool,
    /// Why.
    pub reason: String,
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

    /// How near the kernel comes to the machine's limit, where it was measured: 1.0 is all the machine can do, by its
    /// bandwidth or by its arithmetic, whichever takes longer.
    pub fn share_of_limit(&self) -> Option<f64> {
        Some(self.limit?.as_secs_f64() / self.time?.as_secs_f64().max(1e-9))
    }

    fn computes(&self, label: &str) -> bool {
        self.values.iter().any(|v| v == label)
    }

    /// Whether it runs in vectors.
    pub fn is_vectorised(&self) -> bool {
        self.lanes > 1
    }
}

impl Report {
    pub(crate) fn new(module: &Module, compilations: Vec<Compilation>, profile: Option<Profile>) -> Report {
        let (recorded, code) = (module.recorded(), &module.code);
        let results = code.program().buffers.iter().filter(|b| matches!(b.place, Place::Output { .. }));
        Report {
            name: recorded.capture.graph.name().to_owned(),
            device: code.device().into(),
            kernels: kernels(module, profile.as_ref()),
            fusion: fusion(module),
            contractions: contractions(module),
            donations: donations(module),
            workspace_bytes: code.workspace_bytes(),
            result_bytes: results.map(|b| b.bytes()).sum(),
            tile_bytes: code.tile_bytes(),
            measured_peak_bytes: profile.as_ref().map(|p| p.peak_bytes),
            passes: [&recorded.passes, &module.improved.passes, code.passes()].into_iter().flatten().cloned().collect(),
            compilations,
            limits: profile.map(|p| p.limits),
        }
    }

    /// Why two operations are not in one kernel; `None` where they are, or where nothing joins them.
    ///
    /// An operation is given by its label in the optimised graph (`%3`), its name (`exp`), the end of its place in your code
    /// (`main.rs:12` or `main.rs:12:20`), or the name of the kernel that it is in.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let f = lazuli::compile(|x: Tensor| x.matmul(x.t()).matmul(&x));
    /// f.call(Tensor::randn([64, 64]))?;
    /// let report = f.stages()?.report();
    /// println!("{}", report.why_not_fused("dot", "dot").unwrap_or("they are in one kernel"));
    /// # assert!(report.why_not_fused(&report.kernels[0].name, &report.kernels[1].name).is_some());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn why_not_fused(&self, producer: &str, consumer: &str) -> Option<&str> {
        let names = |wanted: &str, label: &str, operation: &str, sources: &str| {
            label == wanted
                || operation == wanted
                || sources.split(", ").any(|place| is_place(place, wanted))
                || self.kernels.iter().any(|k| k.name == wanted && k.computes(label))
        };
        // What was apart at first may have met later, by way of others.
        let together =
            |row: &FusionRow| self.kernels.iter().any(|k| k.computes(&row.producer) && k.computes(&row.consumer));
        let asked = |row: &&FusionRow| {
            names(producer, &row.producer, row.operations.0, &row.sources.0)
                && names(consumer, &row.consumer, row.operations.1, &row.sources.1)
        };
        self.fusion
            .iter()
            .filter(|row| !row.fused)
            .find(|row| asked(row) && !together(row))
            .map(|row| row.reason.as_str())
    }

    /// Bytes that a call needs at most beyond its arguments, as planned: its workspace and its results.
    pub fn peak_bytes(&self) -> usize {
        self.workspace_bytes.saturating_add(self.result_bytes)
    }

    /// How long compiling took, tracing included.
    pub fn compile_time(&self) -> Duration {
        self.passes.iter().map(|pass| pass.time).sum()
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

impl From<&lazuli_passes::PassRecord> for PassRow {
    fn from(p: &lazuli_passes::PassRecord) -> PassRow {
        PassRow { name: p.pass.name().to_owned(), time: p.time, rewrites: p.rewrites, before: p.before, after: p.after }
    }
}

fn kernels(module: &Module, profile: Option<&Profile>) -> Vec<KernelRow> {
    let (program, labels) = (module.code.program(), module.improved.graph.labels());
    let launches = module.code.launches();
    let row = |(i, step): (usize, &Step)| {
        let call = match step {
            Step::Kernel(call) => Some(call),
            Step::Sort(_) | Step::Matmul(_) => None,
        };
        let kernel = call.and_then(|call| program.kernels.get(call.kernel));
        let cost = step.cost();
        let values = module.code.groups().get(i).map_or(&[][..], Vec::as_slice);
        KernelRow {
            name: program.step_name(step).to_owned(),
            operations: cost.operations.clone(),
            sources: cost.sources.to_string(),
            time: profile.and_then(|p| p.times.get(i).copied()),
            bytes: cost.bytes,
            flops: cost.flops,
            values: values.iter().map(|n| labels.of((*n).into()).to_string()).collect(),
            lanes: kernel.map_or(1, lazuli_ir::Kernel::lanes),
            parallel_iterations: call.map_or(1, |call| call.iterations),
            parts: call.map_or(1, |call| call.iterations.div_ceil(call.grain.max(1))),
            launch: launches.get(i).copied().flatten(),
            limit: profile.map(|p| p.limits.time(cost.bytes, cost.flops)),
        }
    };
    program.steps.iter().enumerate().map(row).collect()
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

fn contractions(module: &Module) -> Vec<ContractionRow> {
    let labels = module.improved.graph.labels();
    let row = |row: &lazuli_passes::ledger::ContractionRow| ContractionRow {
        contraction: labels.of(row.node.into()).to_string(),
        sources: row.sources.to_string(),
        routine: row.routine,
        reason: row.reason.clone(),
    };
    module.code.ledger().contractions.iter().map(row).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A report with something of everything.
    pub(super) fn report() -> Report {
        Report {
            name: "step".to_owned(),
            device: Device::Cpu,
            kernels: vec![KernelRow {
                name: "softmax".to_owned(),
                operations: vec!["sub", "exp"],
                sources: "src/main.rs:12:20".to_owned(),
                time: Some(Duration::from_micros(10)),
                bytes: 1_000_000,
                flops: 20_000,
                values: vec!["%2".to_owned(), "%3".to_owned()],
                lanes: 8,
                parallel_iterations: 64,
                parts: 4,
                launch: None,
                limit: Some(Duration::from_micros(8)),
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
            contractions: vec![ContractionRow {
                contraction: "%1".to_owned(),
                sources: "src/main.rs:12:20".to_owned(),
                routine: true,
                reason: "faster".to_owned(),
            }],
            donations: vec![Donation {
                argument: "w".to_owned(),
                result: Some(1),
                taken: true,
                reason: "given away".to_owned(),
            }],
            workspace_bytes: 128,
            result_bytes: 64,
            tile_bytes: 0,
            measured_peak_bytes: Some(256),
            passes: vec![PassRow {
                name: "trace".to_owned(),
                time: Duration::from_micros(1500),
                rewrites: 0,
                before: 0,
                after: 4,
            }],
            compilations: vec![Compilation {
                number: 1,
                reason: "first call".to_owned(),
                arguments: "f32[8]".to_owned(),
                time: Duration::from_millis(3),
            }],
            limits: Some(Limits::new(2, 40_000.0, 125_000.0, 2 << 20, 200_000.0)),
        }
    }

    /// The same on a GPU.
    pub(super) fn report_of_gpu() -> Report {
        let mut report = report();
        let mut launch = GpuLaunch::default();
        (launch.blocks, launch.threads, launch.registers) = (512, 256, 40);
        (launch.local_bytes, launch.shared_bytes, launch.resident_blocks) = (16, 32 << 10, 6);
        launch.occupancy = 0.75;
        report.device = Device::Cuda(0);
        report.kernels[0].launch = Some(launch);
        report
    }

    #[test]
    fn operations_are_found_by_label_name_and_place() {
        let report = report();
        for (a, b) in [
            ("%1", "%2"),
            ("dot", "reduce_sum"),
            ("main.rs:12", "main.rs:13:5"),
            ("src/main.rs:12:20", "%2"),
            ("%1", "softmax"),
        ] {
            assert_eq!(report.why_not_fused(a, b), Some("reduces"), "{a} {b}");
        }
        for (a, b) in [("%2", "%1"), ("dot", "exp"), ("ain.rs:12", "%2"), ("main.rs:1", "%2")] {
            assert_eq!(report.why_not_fused(a, b), None, "{a} {b}");
        }
    }
}
