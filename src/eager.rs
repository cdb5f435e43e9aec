//! Eager evaluation: pending nodes in recording order, one primitive at a time.
//!
//! Movement is free where strides can express it: a permuted, broadcast or sliced value shares its operand's storage, and so
//! does a reshaped one where that is possible. Constants are one element with stride 0. Everything else is a kernel. A contraction
//! of halves is recorded as casts to `f32`, a contraction and a cast back: these are one primitive, as far as nobody else
//! holds what is between them, so that halves are multiplied as in compiled programs.

use crate::executor;
use crate::node::{Node, Operands, Role};
use crate::trace::{self, TraceId};
use lazuli_ir::{Error, ErrorKind, Literal, Op, Result, Shape};
use lazuli_runtime::Array;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Pending chains longer than this are evaluated while recording, so that a program which never reads what it accumulates
/// does not accumulate its recording.
const DEPTH_LIMIT: u32 = 1000;

/// Evaluates what was just recorded where its pending history has become long. Never inside a trace.
pub(crate) fn bound_depth(node: &Arc<Node>) {
    // A value that cannot be computed now, for want of memory, is not tried again at each operation after it.
    if node.depth > 0
        && node.depth.is_multiple_of(DEPTH_LIMIT)
        && node.trace == TraceId::NONE
        && trace::current() == TraceId::NONE
    {
        // A failure here shows again, and is reported, when the value is read.
        let _ = value(node);
    }
}

/// The value of a node outside of any trace.
pub(crate) fn value(node: &Arc<Node>) -> Result<Array> {
    if let Some(value) = node.value() {
        return value.clone();
    }
    let step = Step::of(node.clone());
    if step.operands.iter().all(|o| o.value().is_some()) {
        step.compute()?;
    } else {
        for pending in pending(step) {
            pending.compute()?;
        }
    }
    node.value().cloned().ok_or_else(|| Error::internal("an evaluated node without a value"))?
}

/// A node to compute, and what from.
struct Step {
    node: Arc<Node>,
    operands: Operands,
    /// The contraction that a half is rounded from.
    dot: Option<Arc<Node>>,
}

impl Step {
    fn of(node: Arc<Node>) -> Step {
        let mut step = Step { operands: node.operands(), node, dot: None };
        if let Some(Op::Cast(to)) = &step.node.op
            && to.is_half()
            && let [dot] = step.operands.as_slice()
            && matches!(dot.op, Some(Op::Dot { .. }))
            && dot.value().is_none()
            // This handle and that of the node: nobody else waits for the value.
            && Arc::strong_count(dot) == 2
        {
            let operands = dot.operands();
            step.dot = Some(std::mem::replace(&mut step.operands, operands).remove(0));
        }
        if let Some(Op::Dot { .. }) = step.dot.as_ref().unwrap_or(&step.node).op {
            step.operands.iter_mut().for_each(|o| *o = narrow(o));
        }
        step
    }

    /// Computes the node, whose operands are ready. A deterministic error becomes its value; a failed allocation or a lost device
    /// is returned, and the slot stays empty.
    fn compute(self) -> Result<()> {
        let node = &*self.node;
        if node.value().is_some() {
            return Ok(());
        }
        let Some(op) = &self.dot.as_deref().unwrap_or(node).op else {
            debug_assert!(matches!(node.role, Role::Placeholder { .. }));
            return trace::readable(node);
        };
        let mut arrays: SmallVec<[&Array; 3]> = SmallVec::new();
        for operand in &self.operands {
            match operand.value() {
                Some(Ok(array)) => arrays.push(array),
                Some(Err(error)) => {
                    node.fulfil(Err(error.clone()));
                    return Ok(());
                }
                None => {
                    trace::readable(operand)?;
                    return Err(Error::internal("an operand was not evaluated first"));
                }
            }
        }
        match primitive(node, op, &arrays).map_err(|e| e.with_sources(node.source)) {
            Err(error) if matches!(error.kind(), ErrorKind::Memory | ErrorKind::Device) => Err(error),
            value => {
                drop(arrays);
                node.fulfil(value);
                Ok(())
            }
        }
    }
}

/// What a contraction reads in place of an operand that is a half in `f32`: the half.
fn narrow(operand: &Arc<Node>) -> Arc<Node> {
    match (&operand.op, operand.operands().as_slice()) {
        (Some(Op::Cast(_)), [half]) if half.ty.dtype.is_half() && operand.value().is_none() => half.clone(),
        _ => operand.clone(),
    }
}

/// The steps to nodes without values that one needs, itself last.
fn pending(step: Step) -> Vec<Step> {
    let mut seen: FxHashSet<*const Node> = FxHashSet::default();
    seen.insert(Arc::as_ptr(&step.node));
    let mut found = vec![step];
    let mut next = 0;
    while let Some(step) = found.get(next) {
        next += 1;
        let mut new: SmallVec<[Step; 3]> = SmallVec::new();
        for operand in &step.operands {
            if operand.value().is_none() && seen.insert(Arc::as_ptr(operand)) {
                new.push(Step::of(operand.clone()));
            }
        }
        found.extend(new);
    }
    found.sort_unstable_by_key(|s| s.node.order);
    found
}

thread_local! {
    /// The one stored element of constants that were used lately.
    static SPLATS: RefCell<FxHashMap<Literal, Array>> = RefCell::default();
}

/// One value everywhere: a view of one element.
pub(crate) fn splat(value: Literal, shape: &Shape) -> Result<Array> {
    SPLATS.with_borrow_mut(|splats| {
        if splats.len() >= 64 {
            splats.clear();
        }
        let scalar = match splats.entry(value) {
            Entry::Occupied(scalar) => scalar.into_mut(),
            Entry::Vacant(slot) => slot.insert(Array::full(value, &Shape::scalar())?),
        };
        scalar.with_layout(scalar.layout().broadcast(shape, &[]))
    })
}

/// The value of one operation: a view where strides can express it, a kernel's result otherwise.
fn primitive(node: &Node, op: &Op, operands: &[&Array]) -> Result<Array> {
    let device = node.home.unwrap_or_default();
    match (op, operands) {
        (Op::Constant { value, shape }, []) => splat(*value, shape),
        (Op::Alias | Op::Detach, [x]) => Ok((*x).clone()),
        (Op::ToDevice { to, .. }, [x]) => executor::placed(x, *to),
        (Op::Permute(perm), [x]) => x.with_layout(x.layout().permute(perm)),
        (Op::Broadcast { shape, dims }, [x]) => x.with_layout(x.layout().broadcast(shape, dims)),
        (Op::Slice(dims), [x]) => x.with_layout(x.layout().slice(dims)),
        (Op::Flip(dims), [x]) => x.with_layout(x.layout().flip(dims)),
        (Op::Window(dims), [x]) => x.with_layout(x.layout().window(dims)),
        (Op::Reshape(shape), [x]) => match x.layout().reshape(shape) {
            Some(layout) => x.with_layout(layout),
            None => executor::run(op, &node.ty, operands, device),
        },
        (
            Op::Input { .. }
            | Op::Constant { .. }
            | Op::Iota { .. }
            | Op::Alias
            | Op::Detach
            | Op::ToDevice { .. }
            | Op::Random { .. }
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Cast(_)
            | Op::Permute(_)
            | Op::Reshape(_)
            | Op::Broadcast { .. }
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Flip(_)
            | Op::Concat { .. }
            | Op::Window(_)
            | Op::WindowSum { .. }
            | Op::DynamicSlice(_)
            | Op::DynamicUpdateSlice { .. }
            | Op::CheckIndex { .. }
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Cumulative { .. }
            | Op::Sort { .. }
            | Op::Reduce { .. }
            | Op::Dot { .. },
            _,
        ) => executor::run(op, &node.ty, operands, device),
    }
}
