//! A driver for tests: it keeps a log of calls, has host memory behind its addresses, fails where it is told to, and notes
//! misuse.
//!
//! Addresses are real ones of this process that are never handed out twice, so what is launched can be run on the host
//! (see [`Fake::set_launcher`] and [`Fake::evaluate`]), and what still holds an address that was freed shows. By itself the fake runs
//! no kernels; products of matrices it computes, by their meaning.

mod evaluator;

use super::driver::{
    Address, Driver, Event, Failure, FailureKind, Footprint, Function, Graph, GraphExec, Matrices, Meaning, Module,
    Node, Outcome, Properties, Shape,
};
use super::source::SortSource;
use super::{gpu, nvrtc};
use lazuli_ir::program::SortCall;
use lazuli_ir::{DType, Kernel, Matmul, MatmulRoutine, Result};
use std::alloc::Layout;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What runs a launch on the host.
pub type Launcher = Box<dyn Fn(&Launched<'_>) -> std::result::Result<(), String> + Send + Sync>;

/// A launch.
#[derive(Clone, Copy, Debug)]
pub struct Launched<'a> {
    /// The text of the program that the function is in, prelude included.
    pub text: &'a str,
    /// What the function does.
    pub meaning: Meaning<'a>,
    /// The function's name.
    pub function: &'a str,
    /// Blocks and threads.
    pub shape: Shape,
    /// The arguments.
    pub words: &'a [u64],
}

/// A driver that records. Clones are the same device.
#[derive(Clone)]
pub struct Fake(Arc<Inner>);

struct Inner {
    properties: Properties,
    state: Mutex<State>,
    launcher: Mutex<Option<Arc<Launcher>>>,
    /// The routine for products of matrices, as passes see it.
    routine: Mutex<Option<MatmulRoutine>>,
    /// Whether NVRTC must take every text.
    compiled: AtomicBool,
}

/// What was recorded.
#[derive(Clone)]
struct Recorded {
    node: u64,
    work: Submitted,
}

/// What was submitted.
#[derive(Clone)]
enum Submitted {
    /// A launch.
    Launch { function: Function, shape: Shape, words: Vec<u64> },
    /// A product of matrices.
    Matmul { matmul: Matmul, at: Matrices },
}

/// What a function does, as the driver was told.
enum Known {
    Kernel(Kernel),
    Sort(SortCall, DType, SortSource),
}

impl Known {
    fn meaning(&self) -> Meaning<'_> {
        match self {
            Known::Kernel(kernel) => Meaning::Kernel(kernel),
            Known::Sort(call, dtype, source) => Meaning::Sort(call, *dtype, source),
        }
    }
}

#[derive(Default)]
struct State {
    log: Vec<String>,
    misuses: Vec<String>,
    /// Allocations by address: bytes, and whether they live.
    memory: BTreeMap<u64, (usize, bool)>,
    in_use: u64,
    /// Pinned memory by address.
    pinned: BTreeMap<u64, usize>,
    /// What fails next: the call's name, how many of it still work, and as what.
    failures: Vec<(&'static str, usize, FailureKind)>,
    capture: Option<Vec<Recorded>>,
    modules: BTreeMap<u64, Arc<str>>,
    functions: BTreeMap<u64, (u64, Arc<str>)>,
    meanings: BTreeMap<u64, Arc<Known>>,
    graphs: BTreeMap<u64, Vec<Recorded>>,
    /// Executables: the graph each was made of, and its launches.
    execs: BTreeMap<u64, (u64, Vec<Recorded>)>,
    /// The products that ran.
    products: HashSet<Matmul>,
    events: BTreeMap<u64, bool>,
    next: u64,
    lost: bool,
}

impl Default for Fake {
    fn default() -> Fake {
        Fake::with_memory(1 << 30)
    }
}

impl Fake {
    /// A device like an H100 with this much memory.
    pub fn with_memory(memory: u64) -> Fake {
        let properties = Properties {
            name: "Fake".to_owned(),
            sm: 90,
            memory,
            multiprocessors: 132,
            resident_threads: 2048,
            shared_bytes: 227 << 10,
            l2_bytes: 50 << 20,
        };
        Fake(Arc::new(Inner {
            properties,
            state: Mutex::default(),
            launcher: Mutex::default(),
            routine: Mutex::new(Some(MatmulRoutine::cublaslt(90))),
            compiled: AtomicBool::new(false),
        }))
    }

    /// Makes it a device of this process, and gives its ordinal. Without `caching` memory goes back to the driver as soon
    /// as its last user is gone, so that whoever still uses it is found.
    pub fn install(&self, caching: bool) -> Result<usize> {
        gpu::install(Box::new(self.clone()), caching)
    }

    /// Runs what is launched from now on.
    pub fn set_launcher(&self, launcher: Launcher) {
        *self.0.launcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(launcher));
    }

    /// Runs what is launched from now on by the meaning of its kernels: see [`evaluator`].
    pub fn evaluate(&self) {
        let fake = Arc::downgrade(&self.0);
        self.set_launcher(Box::new(move |launched| match fake.upgrade() {
            Some(inner) => evaluator::run(&Fake(inner), launched),
            None => Ok(()),
        }));
    }

    /// What passes know of its routine for products of matrices; without one, contractions are loops. Takes effect where it is
    /// [installed](Self::install) later.
    pub fn set_routine(&self, routine: Option<MatmulRoutine>) {
        *self.0.routine.lock().unwrap_or_else(PoisonError::into_inner) = routine;
    }

    /// From now on NVRTC compiles every text as well, and what it does not take is an error.
    pub fn compile(&self) {
        self.0.compiled.store(true, Ordering::Relaxed);
    }

    /// The allocation that an address lies in: where it begins, and its bytes.
    pub fn allocation(&self, at: u64) -> Option<(u64, usize)> {
        self.state().allocation(at).filter(|(_, _, live)| *live).map(|(start, bytes, _)| (start, bytes))
    }

    /// Whether so many bytes from an address on lie in an allocation.
    pub fn holds(&self, at: u64, bytes: usize) -> bool {
        matches!(self.state().allocation(at), Some((start, size, true)) if at + bytes as u64 <= start + size as u64)
    }

    /// After `working` more calls of this name (as in the log), one fails.
    pub fn fail(&self, call: &'static str, working: usize, kind: FailureKind) {
        self.state().failures.push((call, working, kind));
    }

    /// The calls so far, one a line; and forgets them.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// What was done wrong so far.
    pub fn misuses(&self) -> Vec<String> {
        self.state().misuses.clone()
    }

    /// Bytes that are allocated.
    pub fn bytes_in_use(&self) -> u64 {
        self.state().in_use
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call, and fails where it is told to.
    fn call(&self, name: &'static str, details: fmt::Arguments<'_>) -> Outcome<MutexGuard<'_, State>> {
        let mut state = self.state();
        let line = format!("{name} {details}").trim_end().to_owned();
        state.log.push(line);
        let failure = |kind, message: &str| Failure { kind, call: name, message: message.to_owned() };
        if state.lost {
            return Err(failure(FailureKind::Lost, "the fake is lost"));
        }
        if let Some(i) = state.failures.iter().position(|f| f.0 == name) {
            if state.failures[i].1 == 0 {
                let (_, _, kind) = state.failures.remove(i);
                state.lost = kind == FailureKind::Lost;
                return Err(failure(kind, "as it was told"));
            }
            state.failures[i].1 -= 1;
        }
        Ok(state)
    }

    /// As [`call`](Self::call), for what must not happen while a stream is captured.
    fn outside(&self, name: &'static str, details: fmt::Arguments<'_>) -> Outcome<MutexGuard<'_, State>> {
        let mut state = self.call(name, details)?;
        if state.capture.is_some() {
            state.misuses.push(format!("{name} during a capture"));
        }
        Ok(state)
    }

    fn run(&self, nodes: &[Recorded]) -> Outcome {
        let launcher = self.0.launcher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost = |call| move |message| Failure { kind: FailureKind::Lost, call, message };
        for node in nodes {
            match &node.work {
                Submitted::Launch { function, shape, words } => {
                    let (text, name, known) = {
                        let mut state = self.state();
                        state.check_launch(*function, *shape, words);
                        let Some((module, name)) = state.functions.get(&function.0).cloned() else { continue };
                        let text = state.modules.get(&module).cloned();
                        let (Some(text), Some(known)) = (text, state.meanings.get(&function.0).cloned()) else {
                            continue;
                        };
                        (text, name, known)
                    };
                    if let Some(launcher) = &launcher {
                        let (meaning, function, shape) = (known.meaning(), &*name, *shape);
                        let launched = Launched { text: &text, meaning, function, shape, words };
                        launcher(&launched).map_err(lost("launch"))?;
                    }
                }
                Submitted::Matmul { matmul, at } => {
                    evaluator::multiply(self, matmul, at).map_err(lost("matmul"))?;
                    self.state().products.insert(matmul.clone());
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn new_handle(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The allocation that an address lies in: its start, its bytes, and whether it lives.
    fn allocation(&self, at: u64) -> Option<(u64, usize, bool)> {
        let (start, (bytes, live)) = self.memory.range(..=at).next_back()?;
        (at < start + *bytes as u64).then_some((*start, *bytes, *live))
    }

    fn check_range(&mut self, what: &str, at: Address, bytes: usize) -> bool {
        let fits = match self.allocation(at.0) {
            Some((start, size, true)) => at.0 + bytes as u64 <= start + size as u64,
            _ => bytes == 0,
        };
        if !fits {
            self.misuses.push(format!("{what} of {bytes} bytes outside of any allocation"));
        }
        fits
    }

    fn check_pinned(&mut self, what: &str, at: u64, bytes: usize) -> bool {
        let pinned = self.pinned.range(..=at).next_back();
        let fits = pinned.is_some_and(|(start, size)| at + bytes as u64 <= start + *size as u64);
        if !fits {
            self.misuses.push(format!("{what} from or to memory that is not pinned"));
        }
        fits
    }

    fn check_launch(&mut self, function: Function, shape: Shape, words: &[u64]) {
        let loaded = |(module, name): &(u64, Arc<str>)| self.modules.contains_key(module).then(|| name.clone());
        let Some(name) = self.functions.get(&function.0).and_then(loaded) else {
            self.misuses.push("a launch of a function of no loaded module".to_owned());
            return;
        };
        let stale = words.iter().filter(|w| matches!(self.allocation(**w), Some((_, _, false)))).count();
        if stale > 0 {
            self.misuses.push(format!("a launch of {name} with {stale} freed addresses"));
        }
        if shape.blocks == 0 || shape.threads == 0 || shape.threads > 1024 {
            self.misuses.push(format!("a launch of {name} as {shape:?}"));
        }
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), 256).ok()
}

/// Memory of the process that is never given back, so that no address means two things.
fn host_memory(bytes: usize) -> Option<u64> {
    // SAFETY: the layout's size is not 0.
    let pointer = unsafe { std::alloc::alloc(layout(bytes)?) };
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the memory was just allocated with this size.
    unsafe { pointer.write_bytes(0xFF, bytes) };
    Some(pointer as u64)
}

impl Driver for Fake {
    fn properties(&self) -> &Properties {
        &self.0.properties
    }

    fn ready(&self) -> Result<()> {
        Ok(())
    }

    fn assemble(&self, text: &str) -> Result<Vec<u8>> {
        if self.0.compiled.load(Ordering::Relaxed) {
            nvrtc::compile(text, self.0.properties.sm)?;
        }
        Ok(text.as_bytes().to_vec())
    }

    fn memory(&self) -> Outcome<(u64, u64)> {
        let state = self.call("memory", format_args!(""))?;
        Ok((self.0.properties.memory - state.in_use, self.0.properties.memory))
    }

    fn allocate(&self, bytes: usize) -> Outcome<Address> {
        let mut state = self.outside("allocate", format_args!("{bytes}"))?;
        let full = state.in_use + bytes as u64 > self.0.properties.memory;
        let address = if full { None } else { host_memory(bytes) };
        let Some(address) = address else {
            let message = "the fake's memory is full".to_owned();
            return Err(Failure { kind: FailureKind::OutOfMemory, call: "allocate", message });
        };
        state.in_use += bytes as u64;
        state.memory.insert(address, (bytes, true));
        Ok(Address(address))
    }

    fn free(&self, at: Address) -> Outcome {
        let mut state = self.outside("free", format_args!(""))?;
        match state.memory.get_mut(&at.0) {
            Some((bytes, live)) if *live => {
                *live = false;
                let bytes = *bytes as u64;
                state.in_use -= bytes;
            }
            _ => state.misuses.push("a free of what is not allocated".to_owned()),
        }
        Ok(())
    }

    fn allocate_pinned(&self, bytes: usize) -> Outcome<*mut u8> {
        let mut state = self.outside("allocate_pinned", format_args!("{bytes}"))?;
        let message = "no host memory".to_owned();
        let address =
            host_memory(bytes).ok_or(Failure { kind: FailureKind::OutOfMemory, call: "allocate_pinned", message })?;
        state.pinned.insert(address, bytes);
        Ok(address as *mut u8)
    }

    unsafe fn copy_up(&self, to: Address, from: *const u8, bytes: usize) -> Outcome {
        let mut state = self.outside("copy_up", format_args!("{bytes}"))?;
        if state.check_range("a copy up", to, bytes) & state.check_pinned("a copy up", from as u64, bytes) {
            // SAFETY: both ranges were checked to lie in memory of the fake.
            unsafe { (to.0 as *mut u8).copy_from(from, bytes) };
        }
        Ok(())
    }

    unsafe fn copy_down(&self, to: *mut u8, from: Address, bytes: usize) -> Outcome {
        let mut state = self.outside("copy_down", format_args!("{bytes}"))?;
        if state.check_range("a copy down", from, bytes) & state.check_pinned("a copy down", to as u64, bytes) {
            // SAFETY: both ranges were checked to lie in memory of the fake.
            unsafe { to.copy_from(from.0 as *const u8, bytes) };
        }
        Ok(())
    }

    unsafe fn fill(&self, at: Address, byte: u8, bytes: usize) -> Outcome {
        let mut state = self.outside("fill", format_args!("{byte} {bytes}"))?;
        if state.check_range("a fill", at, bytes) {
            // SAFETY: the range was checked to lie in memory of the fake.
            unsafe { (at.0 as *mut u8).write_bytes(byte, bytes) };
        }
        Ok(())
    }

    fn load(&self, cubin: &[u8]) -> Outcome<Module> {
        let mut state = self.outside("load", format_args!(""))?;
        let module = state.new_handle();
        state.modules.insert(module, String::from_utf8_lossy(cubin).into());
        Ok(Module(module))
    }

    fn unload(&self, module: Module) -> Outcome {
        let mut state = self.outside("unload", format_args!(""))?;
        if state.modules.remove(&module.0).is_none() {
            state.misuses.push("an unload of what is not loaded".to_owned());
        }
        let of_module = |recorded: &Recorded| match &recorded.work {
            Submitted::Launch { function, .. } => state.functions.get(&function.0).is_some_and(|f| f.0 == module.0),
            Submitted::Matmul { .. } => false,
        };
        if state.execs.values().any(|(_, launches)| launches.iter().any(of_module)) {
            state.misuses.push("an unload of what an executable launches".to_owned());
        }
        Ok(())
    }

    fn function(&self, module: Module, name: &str, _shared_bytes: u32) -> Outcome<Function> {
        let mut state = self.call("function", format_args!("{name}"))?;
        let function = state.new_handle();
        state.functions.insert(function, (module.0, name.into()));
        Ok(Function(function))
    }

    /// Planted numbers: 40 registers a thread, and as many blocks as these and the threads leave room for.
    fn footprint(&self, function: Function, shape: Shape) -> Outcome<Footprint> {
        const REGISTERS: u32 = 40;
        let mut state = self.call("footprint", format_args!("{}", shape.threads))?;
        if !state.functions.contains_key(&function.0) {
            state.misuses.push("the footprint of no function".to_owned());
        }
        let threads = shape.threads.max(1);
        let resident_blocks = (self.0.properties.resident_threads / threads).min((64 << 10) / (REGISTERS * threads));
        Ok(Footprint { registers: REGISTERS, local_bytes: 0, shared_bytes: 0, resident_blocks })
    }

    fn introduce(&self, function: Function, meaning: Meaning<'_>) {
        let known = match meaning {
            Meaning::Kernel(kernel) => Known::Kernel(kernel.clone()),
            Meaning::Sort(call, dtype, source) => Known::Sort(call.clone(), dtype, source.clone()),
        };
        self.state().meanings.insert(function.0, Arc::new(known));
    }

    unsafe fn launch(&self, function: Function, shape: Shape, words: &[u64]) -> Outcome {
        let name = self.state().functions.get(&function.0).map_or("?".into(), |f| f.1.clone());
        let mut state = self.call("launch", format_args!("{name} {}x{}", shape.blocks, shape.threads))?;
        let work = Submitted::Launch { function, shape, words: words.to_vec() };
        let node = Recorded { node: state.new_handle(), work };
        if let Some(nodes) = &mut state.capture {
            nodes.push(node);
            return Ok(());
        }
        drop(state);
        self.run(&[node])
    }

    fn matmul_routine(&self) -> Option<MatmulRoutine> {
        *self.0.routine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_matmul(&self, matmul: &Matmul, _scratch_bytes: usize) -> Outcome {
        self.outside("check_matmul", format_args!("{matmul}")).map(drop)
    }

    fn has_run(&self, matmul: &Matmul, _at: &Matrices) -> bool {
        self.state().products.contains(matmul)
    }

    unsafe fn matmul(&self, matmul: &Matmul, at: &Matrices) -> Outcome {
        let mut state = self.call("matmul", format_args!("{matmul}"))?;
        let work = Submitted::Matmul { matmul: matmul.clone(), at: *at };
        let node = Recorded { node: state.new_handle(), work };
        let known = state.products.contains(matmul);
        if let Some(nodes) = &mut state.capture {
            nodes.push(node);
            if !known {
                state.misuses.push(format!("{matmul} is captured, and never ran"));
            }
            return Ok(());
        }
        drop(state);
        self.run(&[node])
    }

    fn begin_capture(&self) -> Outcome {
        let mut state = self.outside("begin_capture", format_args!(""))?;
        state.capture = Some(Vec::new());
        Ok(())
    }

    fn captured(&self) -> Outcome<Node> {
        let mut state = self.call("captured", format_args!(""))?;
        let last = state.capture.as_ref().and_then(|nodes| nodes.last()).map(|n| n.node);
        if last.is_none() {
            state.misuses.push("no launch was captured".to_owned());
        }
        Ok(Node(last.unwrap_or_default()))
    }

    fn end_capture(&self) -> Outcome<Graph> {
        let nodes = self.state().capture.take();
        let mut state = self.call("end_capture", format_args!(""))?;
        if nodes.is_none() {
            state.misuses.push("the end of no capture".to_owned());
        }
        let graph = state.new_handle();
        state.graphs.insert(graph, nodes.unwrap_or_default());
        Ok(Graph(graph))
    }

    fn instantiate(&self, graph: Graph) -> Outcome<GraphExec> {
        let mut state = self.outside("instantiate", format_args!(""))?;
        let exec = state.new_handle();
        let nodes = state.graphs.get(&graph.0).cloned().unwrap_or_default();
        state.execs.insert(exec, (graph.0, nodes));
        Ok(GraphExec(exec))
    }

    fn update(&self, exec: GraphExec, graph: Graph) -> Outcome<bool> {
        let mut state = self.outside("update", format_args!(""))?;
        let nodes = state.graphs.get(&graph.0).cloned().unwrap_or_default();
        let alike = state.execs.get(&exec.0).is_some_and(|(_, old)| old.len() == nodes.len());
        if alike {
            state.execs.insert(exec.0, (graph.0, nodes));
        }
        Ok(alike)
    }

    unsafe fn give(&self, exec: GraphExec, node: Node, function: Function, shape: Shape, words: &[u64]) -> Outcome {
        let mut state = self.outside("give", format_args!(""))?;
        let State { execs, graphs, misuses, .. } = &mut *state;
        let Some((graph, nodes)) = execs.get_mut(&exec.0) else {
            misuses.push("arguments for no executable".to_owned());
            return Ok(());
        };
        if !graphs.contains_key(graph) {
            misuses.push("arguments for an executable whose graph is gone".to_owned());
        }
        match nodes.iter_mut().find(|n| n.node == node.0).map(|n| &mut n.work) {
            Some(Submitted::Launch { function: own, shape: old, words: given })
                if (*own, given.len()) == (function, words.len()) =>
            {
                (*old, *given) = (shape, words.to_vec());
            }
            Some(_) => misuses.push("arguments of another function".to_owned()),
            None => misuses.push("arguments for a launch that is not in the graph".to_owned()),
        }
        Ok(())
    }

    fn destroy_graph(&self, graph: Graph) -> Outcome {
        let mut state = self.call("destroy_graph", format_args!(""))?;
        if state.graphs.remove(&graph.0).is_none() {
            state.misuses.push("no such graph is destroyed".to_owned());
        }
        Ok(())
    }

    fn destroy_exec(&self, exec: GraphExec) -> Outcome {
        let mut state = self.call("destroy_exec", format_args!(""))?;
        if state.execs.remove(&exec.0).is_none() {
            state.misuses.push("no such executable is destroyed".to_owned());
        }
        Ok(())
    }

    unsafe fn launch_graph(&self, exec: GraphExec) -> Outcome {
        let state = self.outside("launch_graph", format_args!(""))?;
        let nodes = state.execs.get(&exec.0).map(|(_, nodes)| nodes.clone());
        drop(state);
        match nodes {
            Some(nodes) => self.run(&nodes),
            None => {
                self.state().misuses.push("a launch of no graph".to_owned());
                Ok(())
            }
        }
    }

    fn create_event(&self) -> Outcome<Event> {
        let mut state = self.call("create_event", format_args!(""))?;
        let event = state.new_handle();
        state.events.insert(event, false);
        Ok(Event(event))
    }

    fn record(&self, event: Event) -> Outcome {
        let mut state = self.outside("record", format_args!(""))?;
        if state.events.insert(event.0, true).is_none() {
            state.misuses.push("a record of no event".to_owned());
        }
        Ok(())
    }

    fn wait(&self, _event: Event) -> Outcome {
        self.outside("wait", format_args!("")).map(drop)
    }

    fn elapsed_us(&self, _from: Event, _to: Event) -> Outcome<f64> {
        self.call("elapsed", format_args!("")).map(|_| 1.0)
    }

    fn destroy_event(&self, event: Event) -> Outcome {
        let mut state = self.call("destroy_event", format_args!(""))?;
        state.events.remove(&event.0);
        Ok(())
    }

    fn synchronise(&self) -> Outcome {
        self.outside("synchronise", format_args!("")).map(drop)
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}
