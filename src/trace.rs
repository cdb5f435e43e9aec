//! A trace is a scope: what is recorded inside belongs to a program, what comes from outside is a captured input.
//!
//! ```text
//! let (scope, arguments) = Scope::begin("mlp", &specs, line);   // placeholders, one a spec
//! let outputs = user_function(arguments);
//! let capture = scope.finish(&outputs)?;                    // the graph, and what it captured
//! let results = splice(&capture.graph, &inputs)?;           // the inverse: records a graph's nodes onto tensors
//! ```
//!
//! The graph's inputs are the specs in order, then the captured tensors in recording order, then, where the program
//! draws random numbers, the generator's base `i64[2]` (seed, number of draws so far).
//!
//! Scopes nest on a thread; dropping one ends it. Nothing is locked while the user's function runs.

use crate::history::History;
use crate::node::{Node, Role};
use crate::tensor::Tensor;
use lazuli_ir::{DType, Device, Error, ErrorKind, Graph, Op, Result, Source, TensorType, Value};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The identity of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TraceId(u64);

impl TraceId {
    /// Outside of any trace.
    pub(crate) const NONE: TraceId = TraceId(0);
}

/// An argument of a function to be traced.
#[derive(Clone, Debug)]
pub(crate) struct InputSpec {
    /// Its name in the graph: the path of the leaf, such as `0.weight`.
    pub(crate) name: String,
    /// Its type.
    pub(crate) ty: TensorType,
    /// Whether it stands for a number, and so promotes as one.
    pub(crate) weak: bool,
    /// Whether the tensor passed for it requires grad.
    pub(crate) requires_grad: bool,
    /// Where the program runs, where its arguments say so.
    pub(crate) home: Option<Device>,
}

/// A traced program.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The program.
    pub(crate) graph: Graph,
    /// The tensors from outside, in order of the inputs that follow the specs'.
    pub(crate) captured: Vec<Tensor>,
    /// The number of random draws a call makes, those whose result is unused included.
    pub(crate) draws: u64,
    /// The input that is the generator's base, where the program draws.
    pub(crate) base: Option<usize>,
    /// For each spec, whether the program asked if it requires grad or is a leaf.
    pub(crate) asked: Vec<bool>,
}

/// What a scope knows; reachable from other threads by its id.
struct State {
    id: TraceId,
    name: String,
    names: Vec<String>,
    placeholders: Vec<Arc<Node>>,
    base: Arc<Node>,
    draws: AtomicU64,
    asked: Vec<AtomicBool>,
}

thread_local! {
    static CURRENT: Cell<TraceId> = const { Cell::new(TraceId::NONE) };
    static SCOPES: RefCell<Vec<Arc<State>>> = const { RefCell::new(Vec::new()) };
}

/// Live traces by id, for flags and names asked from other threads; looked up by key only.
static LIVE: Mutex<Vec<(TraceId, Weak<State>)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The trace this thread records into.
pub(crate) fn current() -> TraceId {
    CURRENT.get()
}

fn state(id: TraceId) -> Option<Arc<State>> {
    lock(&LIVE).iter().find(|(t, _)| *t == id).and_then(|(_, s)| s.upgrade())
}

/// A running trace of this thread. Dropping it ends it.
#[must_use]
pub(crate) struct Scope {
    state: Arc<State>,
    /// Scopes belong to their thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Scope {
    /// Begins a trace on this thread: returns a placeholder for each input, which stands for this line.
    pub(crate) fn begin(name: impl Into<String>, inputs: &[InputSpec], source: Source) -> (Scope, Vec<Tensor>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = TraceId(NEXT.fetch_add(1, Ordering::Relaxed));
        let placeholders: Vec<Arc<Node>> =
            inputs.iter().map(|i| Node::placeholder(i.ty.clone(), source, id, i.weak, i.home)).collect();
        let tensors = inputs.iter().zip(&placeholders).map(|(spec, node)| Tensor {
            node: node.clone(),
            history: spec.requires_grad.then(|| History::leaf(spec.ty.clone(), source, id)),
        });
        let tensors = tensors.collect();
        let state = Arc::new(State {
            id,
            name: name.into(),
            names: inputs.iter().map(|i| i.name.clone()).collect(),
            base: Node::placeholder(TensorType::new([2], DType::I64), source, id, false, None),
            draws: AtomicU64::new(0),
            asked: placeholders.iter().map(|_| AtomicBool::new(false)).collect(),
            placeholders,
        });
        lock(&LIVE).push((id, Arc::downgrade(&state)));
        SCOPES.with_borrow_mut(|s| s.push(state.clone()));
        CURRENT.set(id);
        (Scope { state, _thread: std::marker::PhantomData }, tensors)
    }

    /// Ends the trace and lays out what the outputs need as a graph, in recording order.
    ///
    /// An output that carries an error is the error.
    pub(crate) fn finish(self, outputs: &[Tensor]) -> Result<Capture> {
        let state = self.state.clone();
        drop(self);
        capture(&state, outputs)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let id = self.state.id;
        lock(&LIVE).retain(|(t, _)| *t != id);
        let outer = SCOPES.with_borrow_mut(|s| {
            s.retain(|s| s.id != id);
            s.last().map_or(TraceId::NONE, |s| s.id)
        });
        CURRENT.set(outer);
    }
}

/// Reserves random draws: the base to record them on, and the number of the first.
///
/// In a trace the base is the program's hidden input and the number counts the draws before; outside it is the process
/// generator's state, which advances.
#[track_caller]
pub(crate) fn draws(count: u64) -> (Tensor, u64) {
    let scope = SCOPES.with_borrow(|s| s.last().cloned());
    match scope {
        Some(state) => {
            let first = state.draws.fetch_add(count, Ordering::Relaxed);
            (Tensor { node: state.base.clone(), history: None }, first)
        }
        None => (Tensor::anywhere(crate::generator::base(count)), 0),
    }
}

/// The number of the input that this node is the placeholder of.
pub(crate) fn input_number(trace: TraceId, node: &Arc<Node>) -> Option<usize> {
    state(trace)?.placeholders.iter().position(|p| Arc::ptr_eq(p, node))
}

/// Notes that a program asked a flag of an input (`None`: of a tensor computed from any of them).
pub(crate) fn ask(trace: TraceId, input: Option<usize>) {
    if trace == TraceId::NONE {
        return;
    }
    if let Some(state) = state(trace) {
        for (i, asked) in state.asked.iter().enumerate() {
            if input.is_none_or(|n| n == i) {
                asked.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// What is wrong with reading the value of this node here and now, if anything.
pub(crate) fn readable(node: &Node) -> Result<()> {
    let inside = current();
    if inside == TraceId::NONE && node.trace == TraceId::NONE {
        return Ok(());
    }
    let name =
        |id| state(id).map_or_else(|| "a trace that has ended".to_owned(), |s| format!("the trace of `{}`", s.name));
    let message = if node.trace != TraceId::NONE {
        format!(
            "{} has no value: it was recorded in {}, where operations only describe a program; return it from the \
             traced function to get its value",
            node.ty,
            name(node.trace)
        )
    } else {
        format!(
            "the value of {} cannot be read inside {}: the program must not depend on values; read it before, or use \
             `where_` instead of a branch",
            node.ty,
            name(inside)
        )
    };
    Err(Error::new(ErrorKind::Trace, message).with_sources(node.source))
}

/// The nodes of a trace that outputs need, operands first.
struct Reachable {
    inside: Vec<Arc<Node>>,
    /// What they take from outside.
    outside: Vec<Arc<Node>>,
}

fn reachable(state: &State, outputs: &[Tensor]) -> Result<Reachable> {
    let mut inside: FxHashMap<*const Node, Arc<Node>> = FxHashMap::default();
    let mut outside: FxHashMap<*const Node, Arc<Node>> = FxHashMap::default();
    let mut pending: Vec<Arc<Node>> = outputs.iter().map(|t| t.node.clone()).collect();
    while let Some(node) = pending.pop() {
        if let Some(error) = node.error() {
            return Err(error.clone());
        }
        let at = Arc::as_ptr(&node);
        if node.trace != state.id {
            outside.insert(at, node);
        } else if node.role == Role::Operation && !inside.contains_key(&at) {
            pending.extend(node.operands());
            inside.insert(at, node);
        }
    }
    let sorted = |nodes: FxHashMap<*const Node, Arc<Node>>| {
        let mut nodes: Vec<Arc<Node>> = nodes.into_values().collect();
        nodes.sort_unstable_by_key(|n| n.order);
        nodes
    };
    Ok(Reachable { inside: sorted(inside), outside: sorted(outside) })
}

fn capture(state: &State, outputs: &[Tensor]) -> Result<Capture> {
    let Reachable { inside: nodes, outside: captured } = reachable(state, outputs)?;
    let draws = state.draws.load(Ordering::Relaxed);
    let mut graph = Graph::new(state.name.clone());
    let mut values: FxHashMap<*const Node, Value> = FxHashMap::default();
    let mut inputs: Vec<Arc<Node>> = state.placeholders.clone();
    inputs.extend(captured.iter().cloned());
    let base = (draws > 0).then_some(inputs.len());
    if base.is_some() {
        inputs.push(state.base.clone());
    }
    for (i, node) in inputs.iter().enumerate() {
        let name = match state.names.get(i) {
            Some(name) => name.clone(),
            None if Some(i) == base => "rng".to_owned(),
            None => format!("captured{}", i - state.names.len()),
        };
        values.insert(Arc::as_ptr(node), graph.add_input(name, node.ty.clone(), node.source.into()));
    }
    for node in &nodes {
        let mut operands: SmallVec<[Value; 3]> = SmallVec::new();
        for operand in node.operands() {
            operands.push(lookup(&values, &operand)?);
        }
        let op = node.op.clone().ok_or_else(|| Error::internal("an operation node without an operation"))?;
        values.insert(Arc::as_ptr(node), graph.add(op, &operands, node.source.into())?);
    }
    for output in outputs {
        graph.add_output(lookup(&values, &output.node)?);
    }
    Ok(Capture {
        graph,
        captured: captured.into_iter().map(|node| Tensor { node, history: None }).collect(),
        draws,
        base,
        asked: state.asked.iter().map(|a| a.load(Ordering::Relaxed)).collect(),
    })
}

fn lookup(values: &FxHashMap<*const Node, Value>, node: &Arc<Node>) -> Result<Value> {
    values
        .get(&Arc::as_ptr(node))
        .copied()
        .ok_or_else(|| Error::internal(format!("{:?} was used before it was captured", node.op)))
}

/// Records the nodes of a graph onto existing tensors, one an input, and returns its outputs: the inverse of a capture.
///
/// Each node keeps its source line; what is recorded has history as if the user had written it. The graph's draws are
/// numbered from `first_draw`, as [`draws`] gave it together with the base to pass in.
#[track_caller]
pub(crate) fn splice(graph: &Graph, inputs: &[Tensor], first_draw: u64) -> Result<Vec<Tensor>> {
    let caller = Source::caller();
    let live = graph.live();
    let mut tensors: Vec<Option<Tensor>> = vec![None; graph.len()];
    for (i, (_, node)) in graph.inputs().iter().enumerate() {
        tensors[node.index()] = inputs.get(i).cloned();
    }
    for id in graph.nodes().filter(|n| live[n.index()]) {
        let node = graph.node(id);
        if tensors[id.index()].is_some() {
            continue;
        }
        let mut operands: SmallVec<[Tensor; 3]> = SmallVec::new();
        for v in graph.operands(id) {
            operands.push(spliced(&tensors, v)?);
        }
        let operands: SmallVec<[&Tensor; 3]> = operands.iter().collect();
        let source = node.sources.as_slice().first().copied().unwrap_or(caller);
        let op = match &node.op {
            Op::Random { stream, shape } => Op::Random { stream: stream + first_draw, shape: shape.clone() },
            op => op.clone(),
        };
        tensors[id.index()] = Some(Tensor::record_typed(op, node.types[0].clone(), &operands, source));
    }
    graph.outputs().iter().map(|v| spliced(&tensors, *v)).collect()
}

fn spliced(tensors: &[Option<Tensor>], value: Value) -> Result<Tensor> {
    tensors[value.node.index()]
        .clone()
        .ok_or_else(|| Error::internal(format!("input {value:?} of the spliced graph was not given")))
}

/// The name of the trace this thread records into.
pub(crate) fn name() -> Option<String> {
    SCOPES.with_borrow(|s| s.last().map(|s| s.name.clone()))
}
