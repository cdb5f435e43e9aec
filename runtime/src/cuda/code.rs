//! Kernels as loaded machine code.
//!
//! All kernels of a program are one text, compiled by one call of NVRTC. A text that is loaded already is not loaded again, so
//! programs that share their kernels share them on the device as well.

use super::allocator::size;
use super::driver::{Function, Meaning, Module, Shape};
use super::gpu::{Gpu, Grave, Queue};
use super::pending::Work;
use super::source::{self, Launch, PRELUDE, SORT_PRELUDE, SortSource, Source};
use crate::arguments::Words;
use crate::executor::places::missing;
use lazuli_ir::kernel::{Kernel, StmtKind};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::program::{Program, SortCall, Step};
use lazuli_ir::{DType, Error, ErrorKind, Result};
use std::sync::{Arc, PoisonError};

/// A loaded program, unloaded when its last user is gone and the device is done with it.
#[derive(Debug)]
pub(super) struct Loaded {
    gpu: &'static Gpu,
    module: Module,
    text: Arc<str>,
}

impl Loaded {
    pub(super) fn module(&self) -> Module {
        self.module
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let mut loaded = self.gpu.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have loaded the text again already.
        if loaded.get(&self.text).is_some_and(|l| l.strong_count() == 0) {
            loaded.remove(&self.text);
        }
        self.gpu.bury(Grave::Module(self.module));
    }
}

/// A kernel that can be launched. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KernelCode(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kernel: Kernel,
    source: Source,
    function: Function,
    words: ArgumentWords,
    loaded: Arc<Loaded>,
    /// What errors of the device call it.
    work: Arc<Work>,
}

/// Where the arguments of a kernel stand, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArgumentWords {
    pub(super) plain: Words,
    /// The address of the status, where the kernel checks anything.
    pub(super) status: Option<usize>,
    /// The addresses of the partial results and, next to it, of the ticket.
    pub(super) partials: Option<usize>,
    pub(super) total: usize,
}

impl ArgumentWords {
    fn of(kernel: &Kernel, launch: &Launch) -> ArgumentWords {
        let plain = Words::of(kernel, 0);
        let mut checks = false;
        for block in [&kernel.body, &kernel.finish] {
            for_each_statement(block, &mut |kind| checks |= matches!(kind, StmtKind::Check { .. }));
        }
        let status = checks.then_some(plain.total);
        let next = plain.total + usize::from(checks);
        let partials = (launch.partial_words > 0).then_some(next);
        ArgumentWords { plain, status, partials, total: next + if partials.is_some() { 2 } else { 0 } }
    }
}

impl KernelCode {
    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.0.kernel
    }

    /// Its CUDA C, and how it is launched.
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// The GPU that it is loaded on.
    pub fn gpu(&self) -> &'static Gpu {
        self.0.loaded.gpu
    }

    pub(super) fn words(&self) -> ArgumentWords {
        self.0.words
    }

    /// The kernel alone, as work that was submitted.
    pub(super) fn work(&self) -> &Arc<Work> {
        &self.0.work
    }

    /// Words of partial results of a launch with these extents.
    pub(super) fn partial_bytes(&self, extents: &[u64]) -> usize {
        let launch = &self.0.source.launch;
        (launch.blocks(extents) as usize).saturating_mul(launch.partial_words as usize * 8)
    }

    /// Blocks and threads for these extents; `None` where there is nothing to do.
    pub(super) fn shape(&self, extents: &[u64]) -> Result<Option<Shape>> {
        let launch = &self.0.source.launch;
        let blocks = launch.blocks(extents);
        let wrong = |_| Error::internal(format!("kernel {} is launched in {blocks} blocks", self.0.kernel.name));
        let blocks = i32::try_from(blocks).map_err(wrong)? as u32;
        let shape = Shape { blocks, threads: launch.threads, shared_bytes: launch.shared_bytes };
        Ok((blocks > 0).then_some(shape))
    }

    /// Its function.
    pub(super) fn function(&self) -> Function {
        self.0.function
    }

    /// Submits a launch.
    ///
    /// # Safety
    /// As for [`Driver::launch`](super::driver::Driver::launch).
    pub(super) unsafe fn launch(&self, queue: &mut Queue, shape: Shape, words: &[u64]) -> Result<()> {
        // SAFETY: by the contract.
        let launched = unsafe { queue.gpu().driver.launch(self.0.function, shape, words) };
        queue.check(launched)
    }
}

/// The text of a program of these kernels, prelude included, and each kernel's part.
pub fn text(kernels: &[Kernel]) -> Result<(String, Vec<Source>)> {
    let named = |(i, kernel): (usize, &Kernel)| source::print(kernel, &function_name(&kernel.name, i));
    let sources = kernels.iter().enumerate().map(named).collect::<Result<Vec<Source>>>()?;
    let mut text = PRELUDE.to_owned();
    for source in &sources {
        text.push('\n');
        text.push_str(&source.text);
    }
    Ok((text, sources))
}

/// The loaded functions of a program.
#[derive(Debug)]
pub(super) struct Codes {
    /// Of its kernels.
    pub(super) kernels: Vec<KernelCode>,
    /// Of its sorts, in the order of its steps.
    pub(super) sorts: Vec<SortCode>,
}

/// A sort that can be launched.
#[derive(Clone, Debug)]
pub(super) struct SortCode {
    pub(super) function: Function,
    pub(super) source: SortSource,
    /// What errors of the device call it.
    pub(super) work: Arc<Work>,
    _loaded: Arc<Loaded>,
}

/// Compiles the kernels and sorts of a program for a GPU, as one text, and loads them.
pub(super) fn compile_program(program: &Program, gpu: &'static Gpu) -> Result<Codes> {
    let mut sorts = Vec::new();
    for step in &program.steps {
        if let Step::Sort(call) = step {
            let dtype = program.buffers.get(call.operand.0 as usize).ok_or_else(missing)?.dtype;
            let source = source::print_sort(call, dtype, &format!("lz_sort_{}", sorts.len()))?;
            sorts.push((call, dtype, source));
        }
    }
    if program.kernels.is_empty() && sorts.is_empty() {
        return Ok(Codes { kernels: Vec::new(), sorts: Vec::new() });
    }
    let (mut text, sources) = text(&program.kernels)?;
    let prelude = (!sorts.is_empty()).then_some(SORT_PRELUDE);
    for part in prelude.into_iter().chain(sorts.iter().map(|s| s.2.text.as_str())) {
        text.push('\n');
        text.push_str(part);
    }
    fits(&sources, gpu)?;
    let loaded = load(gpu, text)?;
    let kernels = functions(&program.kernels, sources, &loaded)?;
    let mut queue = gpu.queue()?;
    let code = |(call, dtype, source): (&SortCall, DType, SortSource)| {
        let function = gpu.driver.function(loaded.module, &source.name, 0);
        let function = queue.check(function)?;
        gpu.driver.introduce(function, Meaning::Sort(call, dtype, &source));
        Ok(SortCode {
            function,
            source,
            work: Work::new("a sort".to_owned(), Vec::new(), None),
            _loaded: loaded.clone(),
        })
    };
    let sorts = sorts.into_iter().map(code).collect::<Result<_>>()?;
    Ok(Codes { kernels, sorts })
}

/// A name that C takes, and that nothing else has.
fn function_name(kernel: &str, number: usize) -> String {
    const LONGEST: usize = 80;
    let plain = kernel.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    format!(
        "{}_{number}",
        plain.take(LONGEST).fold("lz_kernel_".to_owned(), |name, c| name + c.encode_utf8(&mut [0; 4]))
    )
}

/// Compiles scheduled kernels for a GPU and loads them.
pub fn compile(kernels: &[Kernel], gpu: &'static Gpu) -> Result<Vec<KernelCode>> {
    if kernels.is_empty() {
        return Ok(Vec::new());
    }
    let (text, sources) = text(kernels)?;
    fits(&sources, gpu)?;
    functions(kernels, sources, &load(gpu, text)?)
}

/// Fails where a kernel needs more shared memory than a block has.
fn fits(sources: &[Source], gpu: &Gpu) -> Result<()> {
    for source in sources {
        let (asked, has) = (u64::from(source.launch.shared_bytes), gpu.properties().shared_bytes);
        if asked > has {
            let (asked, has) = (size(asked as usize), size(has as usize));
            let message =
                format!("kernel {} needs {asked} of shared memory; {} has {has}", source.name, gpu.describe());
            return Err(Error::new(ErrorKind::Device, message));
        }
    }
    Ok(())
}

/// The functions of kernels in a loaded program.
fn functions(kernels: &[Kernel], sources: Vec<Source>, loaded: &Arc<Loaded>) -> Result<Vec<KernelCode>> {
    let gpu = loaded.gpu;
    let mut queue = gpu.queue()?;
    let code = |(kernel, source): (&Kernel, Source)| {
        let function = gpu.driver.function(loaded.module, &source.name, source.launch.shared_bytes);
        let function = queue.check(function)?;
        gpu.driver.introduce(function, Meaning::Kernel(kernel));
        let words = ArgumentWords::of(kernel, &source.launch);
        let work = Work::new(format!("kernel {}", kernel.name), Vec::new(), None);
        let (kernel, loaded) = (kernel.clone(), loaded.clone());
        Ok(KernelCode(Arc::new(Inner { kernel, source, function, words, loaded, work })))
    };
    kernels.iter().zip(sources).map(code).collect()
}

/// Compiles a program's text and loads it, unless it is loaded.
pub(super) fn load(gpu: &'static Gpu, text: String) -> Result<Arc<Loaded>> {
    let found = |text: &str| {
        let loaded = gpu.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.get(text).and_then(std::sync::Weak::upgrade)
    };
    if let Some(loaded) = found(&text) {
        return Ok(loaded);
    }
    // Without any lock, since compiling takes long; where two threads compile one text, both results serve.
    let cubin = gpu.driver.assemble(&text)?;
    let mut queue = gpu.queue()?;
    let module = gpu.driver.load(&cubin);
    let module = queue.check(module)?;
    let text: Arc<str> = text.into();
    let loaded = Arc::new(Loaded { gpu, module, text: text.clone() });
    gpu.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(text, Arc::downgrade(&loaded));
    Ok(loaded)
}
