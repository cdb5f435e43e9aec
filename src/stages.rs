//! The stages of one compilation as values that print, and the dump of all of them into files.

mod dot;

use crate::compile::Module;
use crate::{Compilation, Error, ErrorKind, Report, Result};
use lazuli_ir::Device;
use lazuli_ir::program::Step;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every stage of a compiled program, as text: what was recorded, what became of it, and what it costs.
///
/// ```
/// # use lazuli::prelude::*;
/// let f = lazuli::compile(|x: Tensor| (x * 2.0).exp());
/// f.call(Tensor::ones([8]))?;
/// let stages = f.stages()?;
/// println!("{}\n{}\n{}\n{}", stages.graph(), stages.optimized(), stages.kernels(), stages.report());
/// # Ok::<(), lazuli::Error>(())
/// ```
#[derive(Clone)]
pub struct Stages {
    module: Arc<Module>,
    /// Of the function that the program belongs to.
    compilations: Vec<Compilation>,
}

impl Stages {
    pub(crate) fn new(module: Arc<Module>, compilations: Vec<Compilation>) -> Stages {
        Stages { module, compilations }
    }

    /// The program's name.
    pub fn name(&self) -> &str {
        self.module.recorded().capture.graph.name()
    }

    /// The program as it was recorded, as Graph IR.
    pub fn graph(&self) -> impl Display + '_ {
        &self.module.recorded().capture.graph
    }

    /// The program after simplification, as Graph IR.
    pub fn optimized(&self) -> impl Display + '_ {
        &self.module.improved.graph
    }

    /// The values of the optimised graph that do not lie in row-major order, with the order of their dims in memory,
    /// outermost first: a result has the order that most of the bytes have which it is made from.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let f = lazuli::compile(|(x, y): (Tensor, Tensor)| x.t() + y.t());
    /// f.call((Tensor::ones([8, 4]), Tensor::ones([8, 4])))?;
    /// assert!(f.stages()?.layout().to_string().contains("order [1,0]"));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn layout(&self) -> impl Display + '_ {
        self.module.code.orders()
    }

    /// Each decision of fusion: fused or not, and why; on a GPU with cuBLASLt, also how each contraction is computed.
    pub fn fusion(&self) -> impl Display + '_ {
        Fusion(self.report())
    }

    /// The kernels after scheduling, as Kernel IR. Kernels that run several times stand once. What routines multiply follows, a line each.
    pub fn kernels(&self) -> impl Display + '_ {
        Kernels(&self.module)
    }

    /// The machine-independent code that Cranelift was given (CLIF). It is made anew, so it takes a moment.
    ///
    /// # Errors
    /// The program runs on a GPU: see [`cuda`](Self::cuda).
    pub fn clif(&self) -> Result<String> {
        match self.module.code.device() {
            Device::Cpu => self.module.code.clif(),
            device => {
                Err(Error::new(ErrorKind::Device, format!("the program runs on {device}, as CUDA C: see `cuda`")))
            }
        }
    }

    /// The kernels as the CUDA C that a GPU runs, each under a line that says how it is launched and what it takes of the device.
    ///
    /// # Errors
    /// The program runs on the CPU: see [`clif`](Self::clif).
    pub fn cuda(&self) -> Result<String> {
        match self.module.code.device() {
            Device::Cpu => Err(Error::new(ErrorKind::Device, "the program runs on the CPU: see `clif`")),
            _ => self.cuda_text(),
        }
    }

    fn cuda_text(&self) -> Result<String> {
        let (code, mut out) = (&self.module.code, String::new());
        let launches = code.launches();
        for (i, text) in lazuli_runtime::device::text(&code.program().kernels)?.iter().enumerate() {
            let runs = |step: &Step| matches!(step, Step::Kernel(call) if call.kernel == i);
            let step = code.program().steps.iter().position(runs);
            if let Some(l) = step.and_then(|s| launches.get(s).copied().flatten()) {
                let (blocks, threads, registers) = (l.blocks, l.threads, l.registers);
                let (local, shared, resident) = (l.local_bytes, l.shared_bytes, l.resident_blocks);
                let occupancy = 100.0 * l.occupancy;
                out += &format!(
                    "// {blocks} blocks of {threads} threads; a thread takes {registers} registers and {local} bytes of local \
                     memory, a block {shared} bytes of shared memory; {resident} blocks a multiprocessor, {occupancy:.0} % of \
                     its threads\n"
                );
            }
            out += text;
            out.push('\n');
        }
        Ok(out)
    }

    /// The machine code of each kernel's body, in the order of [`kernels`](Self::kernels), for a disassembler. It holds no addresses: the
    /// same program has the same code in every process.
    pub fn machine_code(&self) -> impl Iterator<Item = &[u8]> {
        self.module.code.codes().iter().map(lazuli_runtime::cpu::KernelCode::code)
    }

    /// What the program costs; for times of kernels see [`Compiled::profile`](crate::Compiled::profile).
    pub fn report(&self) -> Report {
        Report::new(&self.module, self.compilations.clone(), None)
    }

    /// The recorded program as DOT, for drawing.
    pub fn graph_to_dot(&self) -> String {
        self.module.recorded().capture.graph.to_dot()
    }

    /// The simplified program as DOT, for drawing.
    pub fn optimized_to_dot(&self) -> String {
        self.module.improved.graph.to_dot()
    }

    /// The simplified program as DOT, with a box around the operations of each kernel, for drawing.
    pub fn fusion_to_dot(&self) -> String {
        dot::fusion(&self.module)
    }

    /// The steps that run, and the buffers between them, as DOT, for drawing.
    pub fn kernels_to_dot(&self) -> String {
        dot::kernels(&self.module)
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stages({})", self.name())
    }
}

struct Kernels<'a>(&'a Module);

impl Display for Kernels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, kernel) in self.0.code.program().kernels.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{kernel}")?;
        }
        for (i, step) in self.0.code.program().steps.iter().enumerate() {
            if let Step::Matmul(call) = step {
                writeln!(f, "// step {}: {call}", i + 1)?;
            }
        }
        Ok(())
    }
}

struct Fusion(Report);

impl Display for Fusion {
    /// A line for each decision, then one for each contraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0.fusion {
            let mark = if row.fused { "fused" } else { "apart" };
            let (from, to) = row.operations;
            writeln!(f, "{mark}  {} {from} -> {} {to}: {}", row.producer, row.consumer, row.reason)?;
        }
        for row in &self.0.contractions {
            let how = if row.routine { "routine" } else { "loops" };
            writeln!(f, "{how}  {}: {}", row.contraction, row.reason)?;
        }
        Ok(())
    }
}

/// The variable that names the folder for dumps.
const DUMP: &str = "LAZULI_DUMP";

/// Writes every stage of a compilation into numbered files, where the environment names a folder for them. A folder that
/// cannot be written is an event and no error: the program is not at fault.
pub(crate) fn dump(module: &Arc<Module>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let Some(folder) = std::env::var_os(DUMP).filter(|folder| !folder.is_empty()) else { return };
    let stages = Stages::new(module.clone(), Vec::new());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = PathBuf::from(folder).join(format!("{number:04}-{}", file_name(stages.name())));
    if let Err(error) = write_all(&folder, &stages) {
        tracing::warn!(target: "lazuli::compile", folder = %folder.display(), %error, "the dump could not be written");
    }
}

/// A name without what file systems refuse.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}

fn write_all(folder: &Path, stages: &Stages) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let machine = match stages.module.code.device() {
        Device::Cpu => ("5-machine.clif", stages.clif()),
        _ => ("5-machine.cu", stages.cuda()),
    };
    let machine = (machine.0, machine.1.unwrap_or_else(|e| e.to_string()));
    let files = [
        ("1-recorded.graph", stages.graph().to_string()),
        ("1-recorded.dot", stages.graph_to_dot()),
        ("2-optimized.graph", stages.optimized().to_string()),
        ("2-optimized.dot", stages.optimized_to_dot()),
        ("3-layout.txt", stages.layout().to_string()),
        ("3-fusion.txt", stages.fusion().to_string()),
        ("3-fusion.dot", stages.fusion_to_dot()),
        ("4-kernels.kernel", stages.kernels().to_string()),
        ("4-kernels.dot", stages.kernels_to_dot()),
        machine,
        ("6-report.txt", stages.report().to_string()),
        ("6-report.json", stages.report().to_json()),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
