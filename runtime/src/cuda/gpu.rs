//! A GPU of this process: its driver, its memory, and its queue.
//!
//! Every GPU has one stream. Whoever submits work holds the [`Queue`], so that a capture holds one program's launches only and
//! memory is reused in the order of submission. Nothing waits for the device until a value is read; then what went
//! wrong since the last time becomes known: a check of a kernel that failed, or work that the device could not finish. After
//! the latter the device is lost: NVIDIA's driver does nothing more with it in this process.

use super::allocator::{self, DeviceBlock, Pool};
use super::code::Loaded;
use super::driver::{Address, Driver, Failure, FailureKind, Graph, GraphExec, Module, Outcome, Properties};
use super::limits;
use super::nvidia::{self, Nvidia};
use super::pending::{Pending, Work};
use super::staging::Staging;
use crate::allocator::MemoryStats;
use lazuli_ir::program::{BufferDecl, MatmulCall, Program, Step};
use lazuli_ir::{Error, ErrorKind, Limits, Result, Target};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A GPU.
pub struct Gpu {
    ordinal: usize,
    target: Target,
    pub(super) driver: Box<dyn Driver>,
    pub(super) pool: Pool,
    /// Loaded programs that are in use, by their text.
    pub(super) loaded: Mutex<FxHashMap<Arc<str>, Weak<Loaded>>>,
    /// What nobody uses any more, but the device still may.
    graves: Mutex<Vec<Grave>>,
    queue: Mutex<State>,
    /// What it does at most, once that was measured.
    limits: Mutex<Option<Limits>>,
    /// Whether each step is waited for, so that an error names the kernel: `LAZULI_CUDA_SYNC=1`.
    pub(super) stepwise: bool,
}

/// What is let go when the device is done with it.
pub(super) enum Grave {
    Module(Module),
    Exec(GraphExec),
    Graph(Graph),
}

#[derive(Default)]
struct State {
    staging: Staging,
    pending: Pending,
    lost: Option<Error>,
}

/// The right to submit work.
pub(crate) struct Queue {
    gpu: &'static Gpu,
    state: MutexGuard<'static, State>,
}

/// The GPUs that were opened, by ordinal. They stay open.
static GPUS: Mutex<BTreeMap<usize, &'static Gpu>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of GPUs that this process may use. Fails where there is no driver, or none that is new enough.
pub fn device_count() -> Result<usize> {
    nvidia::probe()
}

/// The GPU of this ordinal, opened at its first use.
///
/// # Errors
/// There is no driver, or it is too old; there is no such device; it cannot be opened.
pub fn gpu(ordinal: usize) -> Result<&'static Gpu> {
    let mut gpus = lock(&GPUS);
    if let Some(gpu) = gpus.get(&ordinal) {
        return Ok(gpu);
    }
    let count = nvidia::probe()?;
    if ordinal >= count {
        let devices =
            if count == 1 { "there is 1 CUDA device".to_owned() } else { format!("there are {count} CUDA devices") };
        let message = format!("there is no CUDA device {ordinal}: {devices}, counted from 0");
        return Err(Error::new(ErrorKind::Device, message));
    }
    let driver = Nvidia::open(ordinal).map_err(|f| f.error())?;
    supported(driver.properties())?;
    let gpu = Gpu::open(ordinal, Box::new(driver), true);
    gpus.insert(ordinal, gpu);
    Ok(gpu)
}

/// Fails for devices that are too old for the code that kernels become.
fn supported(properties: &Properties) -> Result<()> {
    /// The first with conversions of bf16.
    const OLDEST: u32 = 80;
    let version = |sm: u32| format!("{}.{}", sm / 10, sm % 10);
    if properties.sm >= OLDEST {
        return Ok(());
    }
    let (name, has, needs) = (&properties.name, version(properties.sm), version(OLDEST));
    let message = format!("{name} has compute capability {has}; {needs} (Ampere) or newer is needed");
    Err(Error::new(ErrorKind::Device, message))
}

/// Makes a driver a device of this process, and gives its ordinal: for tests.
pub(super) fn install(driver: Box<dyn Driver>, caching: bool) -> Result<usize> {
    /// No machine has as many devices.
    const FIRST: usize = 1000;
    let mut gpus = lock(&GPUS);
    let ordinal = gpus.last_key_value().map_or(FIRST, |(last, _)| FIRST.max(last + 1));
    gpus.insert(ordinal, Gpu::open(ordinal, driver, caching));
    Ok(ordinal)
}

impl Gpu {
    fn open(ordinal: usize, driver: Box<dyn Driver>, caching: bool) -> &'static Gpu {
        let properties = driver.properties();
        let plain = Target::nvidia(properties.sm);
        let target = Target {
            cores: properties.multiprocessors,
            l1_bytes: plain.l1_bytes.min(properties.shared_bytes),
            l2_bytes: properties.l2_bytes,
            matmul: driver.matmul_routine(),
            ..plain
        };
        tracing::debug!(target: "lazuli::cuda", ordinal, name = properties.name, sm = properties.sm, "opened");
        Box::leak(Box::new(Gpu {
            ordinal,
            target,
            driver,
            pool: Pool::new(caching),
            loaded: Mutex::default(),
            graves: Mutex::default(),
            queue: Mutex::default(),
            limits: Mutex::default(),
            stepwise: std::env::var_os("LAZULI_CUDA_SYNC").is_some_and(|v| v == "1"),
        }))
    }

    /// Fails where kernels cannot be compiled for it.
    pub fn ready(&self) -> Result<()> {
        self.driver.ready()
    }

    /// Its number among the GPUs of this process.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// What it is.
    pub fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    /// What passes know of it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What it does at most. The first question takes some tenths of a second, in which it copies memory and multiplies; later
    /// ones know the answer.
    ///
    /// # Errors
    /// Memory; its compiler; the device.
    pub fn limits(&'static self) -> Result<Limits> {
        let mut known = lock(&self.limits);
        match *known {
            Some(limits) => Ok(limits),
            None => Ok(*known.insert(limits::measure(self)?)),
        }
    }

    /// Bytes of its memory that are free, and all.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.driver.memory().map_err(|f| f.error())
    }

    /// What lazuli holds of its memory.
    pub fn memory_stats(&self) -> MemoryStats {
        self.pool.stats()
    }

    /// Starts a new measurement of the peak.
    pub fn reset_peak(&self) {
        self.pool.reset_peak();
    }

    /// Waits until all that was submitted is done, and tells what went wrong since the last time.
    pub fn synchronise(&'static self) -> Result<()> {
        self.queue()?.settle()
    }

    /// Why the routine for products of matrices does not take one of a program's; `None` where it takes all.
    pub(crate) fn refused_product(&self, program: &Program) -> Option<Failure> {
        let calls = program.steps.iter().filter_map(|step| match step {
            Step::Matmul(call) => Some(call),
            Step::Kernel(_) | Step::Sort(_) => None,
        });
        let scratch_bytes = |call: &MatmulCall| {
            call.scratch.and_then(|b| program.buffers.get(b.0 as usize)).map_or(0, BufferDecl::bytes)
        };
        calls.into_iter().find_map(|call| self.driver.check_matmul(&call.matmul, scratch_bytes(call)).err())
    }

    /// Its name in errors.
    pub(super) fn describe(&self) -> String {
        format!("CUDA device {} ({})", self.ordinal, self.properties().name)
    }

    /// The right to submit work. Fails where the device is lost.
    pub(crate) fn queue(&'static self) -> Result<Queue> {
        let state = lock(&self.queue);
        match &state.lost {
            None => Ok(Queue { gpu: self, state }),
            Some(error) => {
                let message = format!(
                    "{} cannot be used any more in this process, since work on it failed earlier: {}",
                    self.describe(),
                    error.message()
                );
                Err(Error::new(ErrorKind::Device, message))
            }
        }
    }

    pub(super) fn bury(&self, grave: Grave) {
        lock(&self.graves).push(grave);
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Queue {
    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    /// A block of memory; `purpose` is what an error of memory calls it.
    pub(crate) fn acquire(&mut self, bytes: usize, purpose: &'static str) -> Result<DeviceBlock> {
        allocator::acquire(self, bytes, purpose)
    }

    /// The result of a driver's call. A failure that loses the device becomes an error that names what was running.
    pub(super) fn check<T>(&mut self, outcome: Outcome<T>) -> Result<T> {
        outcome.map_err(|failure| match failure.kind {
            FailureKind::Lost => self.lose(&failure),
            FailureKind::OutOfMemory | FailureKind::Refused => failure.error(),
        })
    }

    #[cold]
    fn lose(&mut self, failure: &Failure) -> Error {
        let running = self.state.pending.running();
        let advice = if self.gpu.stepwise { "" } else { "; with LAZULI_CUDA_SYNC=1 the error names the kernel" };
        let message = format!(
            "work on {} failed ({failure}){running}; the device cannot be used any more in this process, and what its tensors \
             held is lost{advice}",
            self.gpu.describe()
        );
        let error = Error::new(ErrorKind::Device, message);
        self.state.lost = Some(error.clone());
        self.state.pending.forget();
        error
    }

    /// Notes work that was submitted: its failures become known later.
    pub(super) fn note(&mut self, work: &Arc<Work>) {
        self.state.pending.note(work);
    }

    /// Copies from host memory, which may be used again at once, to the beginning of a block.
    pub(crate) fn copy_up(&mut self, to: &DeviceBlock, bytes: &[u8]) -> Result<()> {
        to.holds(0, bytes.len())?;
        // SAFETY: the block holds the bytes.
        unsafe { self.copy_up_at(to.address(), bytes) }
    }

    /// Copies bytes of a block to host memory, and tells what went wrong on the device since the last time.
    pub(crate) fn copy_down(&mut self, from: &DeviceBlock, offset: usize, bytes: &mut [u8]) -> Result<()> {
        from.holds(offset, bytes.len())?;
        // SAFETY: the block holds the bytes.
        unsafe { self.copy_down_at(Address(from.address().0 + offset as u64), bytes) }
    }

    /// As [`copy_up`](Self::copy_up), to an address.
    ///
    /// # Safety
    /// The address must be one of the device's, from where on there are so many bytes.
    pub(super) unsafe fn copy_up_at(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        let gpu = self.gpu;
        // SAFETY: by the contract.
        let copied = unsafe { self.state.staging.copy_up(&*gpu.driver, to, bytes) };
        self.check(copied)
    }

    /// As [`copy_down`](Self::copy_down), from an address.
    ///
    /// # Safety
    /// As for [`copy_up_at`](Self::copy_up_at).
    pub(super) unsafe fn copy_down_at(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let gpu = self.gpu;
        // SAFETY: by the contract.
        let copied = unsafe { self.state.staging.copy_down(&*gpu.driver, bytes, from) };
        self.check(copied)?;
        self.settle()
    }

    /// Waits until all that was submitted is done, and tells what went wrong since the last time.
    pub(super) fn settle(&mut self) -> Result<()> {
        let gpu = self.gpu;
        let done = gpu.driver.synchronise();
        self.check(done)?;
        let mut graves = std::mem::take(&mut *lock(&gpu.graves));
        // Code goes after the graphs that launch it.
        graves.sort_by_key(|grave| matches!(grave, Grave::Module(_)));
        for grave in graves {
            let gone = match grave {
                Grave::Module(module) => gpu.driver.unload(module),
                Grave::Exec(exec) => gpu.driver.destroy_exec(exec),
                Grave::Graph(graph) => gpu.driver.destroy_graph(graph),
            };
            self.check(gone)?;
        }
        let mut first = Ok(());
        for work in self.state.pending.take() {
            let found = self.failed_check(&work);
            if first.is_ok() {
                first = found;
            }
        }
        first
    }

    /// The check of this work that failed first, if any; from then on none has.
    fn failed_check(&mut self, work: &Work) -> Result<()> {
        let Some((block, bytes)) = work.statuses() else { return Ok(()) };
        let gpu = self.gpu;
        let mut statuses = vec![0u8; bytes];
        // SAFETY: the block holds the statuses.
        let copied = unsafe { self.state.staging.copy_down(&*gpu.driver, &mut statuses, block.address()) };
        self.check(copied)?;
        let Err(error) = work.result(&statuses) else { return Ok(()) };
        // SAFETY: the block holds the statuses.
        let cleared = unsafe { gpu.driver.fill(block.address(), 0, bytes) };
        self.check(cleared)?;
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::testing::Fake;

    #[test]
    fn cuda_devices_that_are_too_old_are_refused() {
        let new = Fake::default().properties().clone();
        assert!(supported(&new).is_ok());
        let error = supported(&Properties { sm: 75, ..new }).unwrap_err();
        assert!(error.message().contains("has compute capability 7.5; 8.0"), "{error}");
    }
}
