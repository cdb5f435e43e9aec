//! What the back end needs of a GPU's driver: memory, copies, modules, launches, graphs, events.
//!
//! A [`Driver`] is one opened device with one stream of its own, on which everything is ordered: what is submitted later runs
//! later. It has two implementations: NVIDIA's, and one for tests that records its calls.
//!
//! Calls may come from any thread; those that submit work must not overlap, which the callers see to.

use super::source::SortSource;
use super::{cache, nvrtc};
use lazuli_ir::program::SortCall;
use lazuli_ir::{DType, Error, ErrorKind, Kernel, Matmul, MatmulRoutine, Result};
use std::fmt;

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);
    )*};
}

handles!(
    /// An address in a device's memory.
    Address,
    /// Loaded machine code.
    Module,
    /// A function of a module.
    Function,
    /// A recorded sequence of work.
    Graph,
    /// A launch in a recorded sequence.
    Node,
    /// A graph that can be launched.
    GraphExec,
    /// A moment in the stream.
    Event,
);

/// What a device is.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties {
    /// Its name.
    pub name: String,
    /// Its compute capability: `90` is sm_90.
    pub sm: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// The number of multiprocessors.
    pub multiprocessors: u32,
    /// Threads that a multiprocessor holds at once at most.
    pub resident_threads: u32,
    /// Bytes of shared memory that a block may ask for.
    pub shared_bytes: u64,
    /// Bytes of second-level cache.
    pub l2_bytes: u64,
}

/// What a function takes of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's own memory outside of registers, such as spilled ones.
    pub local_bytes: u32,
    /// Bytes of shared memory of a block that the code itself declares.
    pub shared_bytes: u32,
    /// Blocks that a multiprocessor runs at once.
    pub resident_blocks: u32,
}

/// What a failure means for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// There is not enough memory; the device is as it was.
    OutOfMemory,
    /// Work that was running failed; the device can do nothing more in this process.
    Lost,
    /// The call failed; the device is as it was.
    Refused,
}

/// A call of the driver that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// What was called, as the driver names it.
    pub call: &'static str,
    /// What the driver says.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.message)
    }
}

impl Failure {
    /// As an error. Not by `From`: a second type that becomes an [`Error`] by `?` would leave users' closures without a type.
    pub fn error(&self) -> Error {
        let kind = match self.kind {
            FailureKind::OutOfMemory => ErrorKind::Memory,
            FailureKind::Lost | FailureKind::Refused => ErrorKind::Device,
        };
        Error::new(kind, format!("the CUDA driver failed: {self}"))
    }
}

/// The result of a driver's call.
pub type Outcome<T = ()> = std::result::Result<T, Failure>;

/// How a function is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Blocks.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// What a function does.
#[derive(Clone, Copy, Debug)]
pub enum Meaning<'a> {
    /// It is a kernel.
    Kernel(&'a Kernel),
    /// It is launched several times, and then has sorted elements of a type; see [`SortSource`].
    Sort(&'a SortCall, DType, &'a SortSource),
}

/// Where the matrices of a product lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrices {
    /// The first element of the left operand.
    pub left: Address,
    /// The first element of the right operand.
    pub right: Address,
    /// The bias, where there is one.
    pub bias: Option<Address>,
    /// The first element of the result.
    pub result: Address,
    /// Memory that the routine may use.
    pub scratch: Address,
    /// How much of it.
    pub scratch_bytes: usize,
}

/// An opened device with its stream.
pub trait Driver: Send + Sync + fmt::Debug {
    /// What the device is.
    fn properties(&self) -> &Properties;

    /// Fails where kernels cannot be compiled.
    fn ready(&self) -> Result<()> {
        nvrtc::version().map(drop)
    }

    /// Machine code of CUDA C for this device.
    fn assemble(&self, text: &str) -> Result<Vec<u8>> {
        cache::compile(text, self.properties().sm)
    }

    /// Bytes of free memory, and of all.
    fn memory(&self) -> Outcome<(u64, u64)>;

    /// Memory with arbitrary contents, in the order of the stream.
    fn allocate(&self, bytes: usize) -> Outcome<Address>;

    /// Gives memory back once the stream has come here.
    fn free(&self, at: Address) -> Outcome;

    /// Host memory that copies take part in without waiting.
    fn allocate_pinned(&self, bytes: usize) -> Outcome<*mut u8>;

    /// Copies to the device, in the order of the stream.
    ///
    /// # Safety
    /// `from` must be pinned, hold `bytes` bytes, and stay untouched until the stream has come here; `to` must be an
    /// allocation of the device that holds them.
    unsafe fn copy_up(&self, to: Address, from: *const u8, bytes: usize) -> Outcome;

    /// Copies to the host, in the order of the stream.
    ///
    /// # Safety
    /// As for [`copy_up`](Self::copy_up), the other way.
    unsafe fn copy_down(&self, to: *mut u8, from: Address, bytes: usize) -> Outcome;

    /// Sets bytes of the device's memory, in the order of the stream.
    ///
    /// # Safety
    /// `at` must be an allocation of the device that holds `bytes` bytes.
    unsafe fn fill(&self, at: Address, byte: u8, bytes: usize) -> Outcome;

    /// Loads machine code.
    fn load(&self, cubin: &[u8]) -> Outcome<Module>;

    /// Unloads it; none of its functions may be running or launched again.
    fn unload(&self, module: Module) -> Outcome;

    /// A function that may be launched with up to this much dynamic shared memory.
    fn function(&self, module: Module, name: &str, shared_bytes: u32) -> Outcome<Function>;

    /// What a function takes that is launched like this.
    fn footprint(&self, function: Function, shape: Shape) -> Outcome<Footprint>;

    /// Tells what a function does, for drivers that run functions by other means than their machine code.
    fn introduce(&self, _function: Function, _meaning: Meaning<'_>) {}

    /// Launches a function; `words` are its arguments.
    ///
    /// # Safety
    /// The words must be what the function takes, and its accesses must lie within allocations that are not freed before.
    unsafe fn launch(&self, function: Function, shape: Shape, words: &[u64]) -> Outcome;

    /// The routine for products of matrices, as passes see it; `None` where there is none.
    fn matmul_routine(&self) -> Option<MatmulRoutine>;

    /// Fails where the routine cannot compute such products.
    fn check_matmul(&self, matmul: &Matmul, scratch_bytes: usize) -> Outcome;

    /// Whether such a product ran before, on matrices that are aligned alike: one that did not must not be captured, since a
    /// library loads its code when that runs first.
    fn has_run(&self, matmul: &Matmul, at: &Matrices) -> bool;

    /// Multiplies, in the order of the stream.
    ///
    /// # Safety
    /// What is read, written and used must lie within allocations that are not freed before.
    unsafe fn matmul(&self, matmul: &Matmul, at: &Matrices) -> Outcome;

    /// From now on launches, products included, are recorded and do not run.
    fn begin_capture(&self) -> Outcome;

    /// The launch that was recorded last, in the capture that goes on.
    fn captured(&self) -> Outcome<Node>;

    /// What was recorded. The stream takes work again, also where this fails.
    fn end_capture(&self) -> Outcome<Graph>;

    /// Makes a graph ready to be launched.
    fn instantiate(&self, graph: Graph) -> Outcome<GraphExec>;

    /// Gives an executable the arguments of a graph of the same form; `false` where its form differs.
    fn update(&self, exec: GraphExec, graph: Graph) -> Outcome<bool>;

    /// Gives a launch of an executable other arguments, for when it is launched next. The graph that the executable was made of, and the
    /// launch is in, must not have been let go.
    ///
    /// # Safety
    /// As for [`launch`](Self::launch), whenever the executable is launched.
    unsafe fn give(&self, exec: GraphExec, node: Node, function: Function, shape: Shape, words: &[u64]) -> Outcome;

    /// Lets a recorded graph go.
    fn destroy_graph(&self, graph: Graph) -> Outcome;

    /// Lets an executable go, once the stream has come here.
    fn destroy_exec(&self, exec: GraphExec) -> Outcome;

    /// Runs a graph.
    ///
    /// # Safety
    /// As for [`launch`](Self::launch), for each launch that was recorded.
    unsafe fn launch_graph(&self, exec: GraphExec) -> Outcome;

    /// A new event.
    fn create_event(&self) -> Outcome<Event>;

    /// Lets an event happen when the stream has come here.
    fn record(&self, event: Event) -> Outcome;

    /// Waits until an event has happened; one that was never recorded has.
    fn wait(&self, event: Event) -> Outcome;

    /// Microseconds between two events that have happened.
    fn elapsed_us(&self, from: Event, to: Event) -> Outcome<f64>;

    /// Lets an event go.
    fn destroy_event(&self, event: Event) -> Outcome;

    /// Waits until the stream is done.
    fn synchronise(&self) -> Outcome;
}
