//! The recorded node: one operation, immutable, with a slot for its value.
//!
//! Three kinds of links are kept apart. *Operands* are what computing the value needs; they are dropped once the value is
//! ready, so that the last handle frees what nobody pending needs. *History* (see [`crate::history`]) is what a gradient
//! needs and hangs on the handle, not on the node: a detached tensor is the same node without it. The *value* lives as
//! long as the node.

use crate::trace::{self, TraceId};
use lazuli_ir::{Device, Error, Op, Result, Source, TensorType};
use lazuli_runtime::Array;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The operands of a node.
pub(crate) type Operands = SmallVec<[Arc<Node>; 2]>;

/// How a node came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An operation on operands.
    Operation,
    /// Data, or an error: its value is there from the start.
    Data,
    /// A number that was passed where a tensor is expected: data that promotes as a number does.
    Number,
    /// An argument of the function being traced: it never has a value. A weak one stands for a number.
    Placeholder {
        /// Whether it promotes as a number does.
        weak: bool,
    },
}

/// A recorded operation.
pub(crate) struct Node {
    /// The operation; `None` where there is none (data, placeholders).
    pub(crate) op: Option<Op>,
    /// The type of the result; for a node that carries an error, the best guess.
    pub(crate) ty: TensorType,
    /// The user's line.
    pub(crate) source: Source,
    /// Recording order, process-wide: operands come before their users.
    pub(crate) order: u64,
    /// The trace it belongs to.
    pub(crate) trace: TraceId,
    /// How it came to be.
    pub(crate) role: Role,
    /// Where it is computed, or its value lies; `None` where that is left to whoever uses it: constants, random numbers, and what is
    /// computed from them and from 0-d tensors of the CPU alone. Read as it is, such a value is the CPU's.
    pub(crate) home: Option<Device>,
    /// The longest chain of operands that were pending when this was recorded.
    pub(crate) depth: u32,
    operands: Mutex<Operands>,
    value: OnceLock<Result<Array>>,
}

/// Where operands meet: the device of those that have one. A 0-d tensor of the CPU goes wherever it is used. Operands of two
/// devices do not meet.
pub(crate) fn meeting_place<'n>(operands: impl IntoIterator<Item = &'n Node>) -> Result<Option<Device>, [Device; 2]> {
    let mut place = None;
    for operand in operands {
        let home = operand.home.filter(|device| *device != Device::Cpu || operand.ty.shape.rank() > 0);
        match (place, home) {
            (Some(a), Some(b)) if a != b => return Err([a, b]),
            (None, Some(device)) => place = Some(device),
            _ => {}
        }
    }
    Ok(place)
}

/// The next number in recording order.
pub(crate) fn next_order() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// An operation on operands that fit it and meet: `ty` is what [`lazuli_ir::infer`] says.
    pub(crate) fn operation(op: Op, ty: TensorType, source: Source, operands: Operands) -> Arc<Node> {
        let home = match op {
            Op::ToDevice { to, .. } => Some(to),
            _ => meeting_place(operands.iter().map(|o| &**o)).unwrap_or_else(|[first, _]| Some(first)),
        };
        let mut trace = trace::current();
        let mut depth = 0;
        for operand in &operands {
            if trace == TraceId::NONE {
                trace = operand.trace;
            }
            if operand.value.get().is_none() {
                depth = depth.max(operand.depth);
            }
        }
        Arc::new(Node {
            op: Some(op),
            ty,
            source,
            order: next_order(),
            trace,
            role: Role::Operation,
            home,
            depth: depth + 1,
            operands: Mutex::new(operands),
            value: OnceLock::new(),
        })
    }

    /// An operation without operands that was computed at once. A failure leaves the slot empty.
    pub(crate) fn computed(op: Op, ty: TensorType, source: Source, value: Result<Array>) -> Arc<Node> {
        Arc::new(Node {
            op: Some(op),
            ty,
            source,
            order: next_order(),
            trace: TraceId::NONE,
            role: Role::Operation,
            home: None,
            depth: 0,
            operands: Mutex::default(),
            value: value.map_or_else(|_| OnceLock::new(), |array| OnceLock::from(Ok(array))),
        })
    }

    /// A node whose value is there: data or a carried error. It belongs to no trace.
    pub(crate) fn ready(ty: TensorType, source: Source, value: Result<Array>) -> Arc<Node> {
        let home = value.as_ref().ok().map(Array::device);
        Node::data(Role::Data, ty, source, value, home)
    }

    /// As [`ready`](Self::ready), of data that may be used on any device.
    pub(crate) fn anywhere(ty: TensorType, source: Source, value: Result<Array>) -> Arc<Node> {
        Node::data(Role::Data, ty, source, value, None)
    }

    /// A number as a node: data that promotes as a number does.
    pub(crate) fn number(ty: TensorType, source: Source, value: Result<Array>) -> Arc<Node> {
        Node::data(Role::Number, ty, source, value, None)
    }

    fn data(role: Role, ty: TensorType, source: Source, value: Result<Array>, home: Option<Device>) -> Arc<Node> {
        Arc::new(Node {
            op: None,
            ty,
            source,
            order: next_order(),
            trace: TraceId::NONE,
            role,
            home,
            depth: 0,
            operands: Mutex::default(),
            value: OnceLock::from(value),
        })
    }

    /// An argument of a function being traced.
    pub(crate) fn placeholder(
        ty: TensorType,
        source: Source,
        trace: TraceId,
        weak: bool,
        home: Option<Device>,
    ) -> Arc<Node> {
        Arc::new(Node {
            op: None,
            ty,
            source,
            order: next_order(),
            trace,
            role: Role::Placeholder { weak },
            home,
            depth: 0,
            operands: Mutex::default(),
            value: OnceLock::new(),
        })
    }

    /// The value or deterministic error, where it is known.
    pub(crate) fn value(&self) -> Option<&Result<Array>> {
        self.value.get()
    }

    /// The error it is known to carry.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.value.get().and_then(|v| v.as_ref().err())
    }

    /// The operands as they are now: none once the value is ready.
    pub(crate) fn operands(&self) -> Operands {
        lock(&self.operands).clone()
    }

    /// Stores the value and lets the operands go. Where another thread was first, its value stays.
    pub(crate) fn fulfil(&self, value: Result<Array>) {
        let _ = self.value.set(value);
        let operands = std::mem::take(&mut *lock(&self.operands));
        drop(operands);
    }

    /// The value of a node that nobody else holds: for donation.
    pub(crate) fn into_value(mut self) -> Option<Result<Array>> {
        self.value.take()
    }
}

impl Drop for Node {
    /// Chains of any length go without recursion: whoever holds the last reference to an operand empties it first.
    fn drop(&mut self) {
        let mut pending = std::mem::take(self.operands.get_mut().unwrap_or_else(PoisonError::into_inner));
        while let Some(operand) = pending.pop() {
            if let Some(mut node) = Arc::into_inner(operand) {
                pending.append(node.operands.get_mut().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}
