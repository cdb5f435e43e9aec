//! What a gradient needs: the operations behind a tensor, and of their values exactly what derivative rules read.
//!
//! A history entry hangs on a tensor's handle. It links to the histories of the operands, never to their values, unless
//! the operation's derivative reads them ([`lazuli_passes::reads_for`]). `backward` frees what was kept.

use crate::node::{self, Node};
use crate::tensor::Tensor;
use crate::trace::TraceId;
use lazuli_ir::{Op, Source, TensorType};
use lazuli_passes::Reads;
use smallvec::SmallVec;
use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One entry of history.
pub(crate) struct History {
    /// What it stands for.
    pub(crate) kind: Kind,
    /// The type of the tensor it belongs to.
    pub(crate) ty: TensorType,
    /// Recording order.
    pub(crate) order: u64,
    /// The user's line.
    pub(crate) source: Source,
    saved: Mutex<Option<Saved>>,
}

/// What an entry stands for.
pub(crate) enum Kind {
    /// A tensor that gradients are asked for.
    Leaf {
        /// The gradient accumulated so far.
        grad: Mutex<Option<Tensor>>,
        /// The trace it belongs to.
        trace: TraceId,
    },
    /// The result of a compiled call with an input that required grad: the way to it is cut.
    Cut {
        /// What was called.
        function: Arc<str>,
    },
    /// An operation.
    Operation(Op),
}

/// What an operation's entry keeps until `backward` frees it.
#[derive(Clone, Default)]
pub(crate) struct Saved {
    /// The operands.
    pub(crate) edges: SmallVec<[Edge; 2]>,
    /// The result's node, where the derivative reads it.
    pub(crate) result: Option<Arc<Node>>,
}

/// An operand, as history keeps it.
#[derive(Clone)]
pub(crate) struct Edge {
    /// Its history, where a gradient flows to it.
    pub(crate) history: Option<Arc<History>>,
    /// Its node, where the derivative reads it.
    pub(crate) node: Option<Arc<Node>>,
    /// Its type.
    pub(crate) ty: TensorType,
}

thread_local! {
    static ENABLED: Cell<bool> = const { Cell::new(true) };
}

/// Whether operations on this thread keep history.
pub(crate) fn enabled() -> bool {
    ENABLED.get()
}

/// Runs `f` with history on or off on this thread.
pub(crate) fn with_history<R>(on: bool, f: impl FnOnce() -> R) -> R {
    /// Restores the setting, on unwinding too.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ENABLED.set(self.0);
        }
    }
    let _restore = Restore(ENABLED.replace(on));
    f()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    /// A new leaf.
    pub(crate) fn leaf(ty: TensorType, source: Source, trace: TraceId) -> Arc<History> {
        History::new(Kind::Leaf { grad: Mutex::new(None), trace }, ty, source, None)
    }

    /// The entry of an alias: there even where nothing before it has history.
    pub(crate) fn alias(node: &Arc<Node>, operand: &Tensor) -> Arc<History> {
        let edge = Edge { history: operand.history.clone(), node: None, ty: node.ty.clone() };
        let saved = Saved { edges: smallvec::smallvec![edge], result: None };
        History::new(Kind::Operation(Op::Alias), node.ty.clone(), node.source, Some(saved))
    }

    /// The operation's name.
    pub(crate) fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Leaf { .. } => "requires_grad_",
            Kind::Cut { .. } => "call",
            Kind::Operation(op) => op.name(),
        }
    }

    /// Whether it is a leaf made in this trace.
    pub(crate) fn is_leaf_of(&self, here: TraceId) -> bool {
        matches!(self.kind, Kind::Leaf { trace, .. } if trace == here)
    }

    /// The mark of a result whose history stays inside a compiled call.
    pub(crate) fn cut(ty: TensorType, source: Source, function: &str) -> Arc<History> {
        History::new(Kind::Cut { function: function.into() }, ty, source, None)
    }

    /// The entry of an operation, where gradients flow through it.
    pub(crate) fn operation(node: &Arc<Node>, operands: &[&Tensor]) -> Option<Arc<History>> {
        let op = node.op.as_ref()?;
        let reached = operands.iter().any(|t| t.history.is_some());
        if !reached || !enabled() || !node.ty.dtype.is_float() || matches!(op, Op::Detach) {
            return None;
        }
        let mut reads = Reads { operands: 0, result: false };
        for (i, _) in operands.iter().enumerate().filter(|(_, t)| t.history.is_some()) {
            reads = reads.union(lazuli_passes::reads_for(op, i));
        }
        let edges = operands.iter().enumerate().map(|(i, t)| Edge {
            history: t.history.clone(),
            node: (reads.operands >> i & 1 == 1).then(|| t.node.clone()),
            ty: t.node.ty.clone(),
        });
        let saved = Saved { edges: edges.collect(), result: reads.result.then(|| node.clone()) };
        Some(History::new(Kind::Operation(op.clone()), node.ty.clone(), node.source, Some(saved)))
    }

    fn new(kind: Kind, ty: TensorType, source: Source, saved: Option<Saved>) -> Arc<History> {
        Arc::new(History { kind, ty, order: node::next_order(), source, saved: Mutex::new(saved) })
    }

    /// What is kept; `None` once `backward` has freed it (and for leaves and cuts).
    pub(crate) fn saved(&self) -> Option<Saved> {
        lock(&self.saved).clone()
    }

    /// Frees what is kept.
    pub(crate) fn free(&self) {
        let saved = lock(&self.saved).take();
        drop(saved);
    }
}

impl Drop for History {
    /// As for nodes, without recursion.
    fn drop(&mut self) {
        let mut pending: Vec<Edge> = Vec::new();
        let take = |history: &mut History, pending: &mut Vec<Edge>| {
            if let Some(saved) = history.saved.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
                pending.extend(saved.edges);
            }
        };
        take(self, &mut pending);
        while let Some(edge) = pending.pop() {
            if let Some(mut history) = edge.history.and_then(Arc::into_inner) {
                take(&mut history, &mut pending);
            }
        }
    }
}
