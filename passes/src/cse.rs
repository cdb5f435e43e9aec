//! Common subexpression elimination: nodes that say the same become one.
//!
//! [`Graph::add`] merges equal nodes wherever a graph is built. What is left are those that differ in the order of operands
//! only: `a + b` and `b + a`, `a < b` and `b > a`. The first of them stays as it was written. `max` and `min` of floats are
//! not among them (their result's sign of zero follows the order), two draws of [`Op::Random`] never merge.

use crate::driver::Rewritten;
use lazuli_ir::{BinaryOp, CompareOp, Graph, Op, Result, Value};
use rustc_hash::FxHashSet;

/// The graph with such nodes merged.
pub(crate) fn cse(graph: &Graph) -> Result<Rewritten> {
    // Merging makes new pairs only behind a first one.
    let mut written = Written::default();
    if !graph.nodes().any(|n| written.says_mirrored(graph, graph.op(n), &graph.operands(n))) {
        return Ok(None);
    }
    let (mut written, mut merged) = (Written::default(), 0);
    let new = graph.rebuild(|new, _, node, operands| match mirrored(&node.op, new, operands) {
        Some(mirror) if written.says_mirrored(new, &node.op, operands) => {
            merged += 1;
            new.add(mirror, &[operands[1], operands[0]], node.sources.clone())
        }
        _ => new.add(node.op.clone(), operands, node.sources.clone()),
    })?;
    Ok(Some((new, merged)))
}

/// The operations with a mirror, as they were written first: the name tells all that such an operation is.
#[derive(Default)]
struct Written(FxHashSet<(&'static str, Value, Value)>);

impl Written {
    /// Whether the mirror of an operation was written before it; otherwise notes the operation.
    fn says_mirrored(&mut self, graph: &Graph, op: &Op, operands: &[Value]) -> bool {
        let Some(mirror) = mirrored(op, graph, operands) else { return false };
        let found = operands[0] != operands[1] && self.0.contains(&(mirror.name(), operands[1], operands[0]));
        if !found {
            self.0.insert((op.name(), operands[0], operands[1]));
        }
        found
    }
}

/// The operation that means the same on swapped operands, where there is one.
fn mirrored(op: &Op, graph: &Graph, operands: &[Value]) -> Option<Op> {
    match op {
        Op::Binary(BinaryOp::Add | BinaryOp::Mul) => Some(op.clone()),
        Op::Binary(BinaryOp::And | BinaryOp::Or | BinaryOp::Xor) => Some(op.clone()),
        Op::Binary(BinaryOp::Max | BinaryOp::Min) => {
            if graph.ty(operands[0]).dtype.is_float() {
                None
            } else {
                Some(op.clone())
            }
        }
        Op::Binary(BinaryOp::Sub | BinaryOp::Div | BinaryOp::Pow | BinaryOp::Remainder | BinaryOp::Fmod) => None,
        Op::Binary(BinaryOp::FloorDiv | BinaryOp::TruncDiv | BinaryOp::Atan2 | BinaryOp::Hypot) => None,
        Op::Binary(BinaryOp::Copysign | BinaryOp::ShiftLeft | BinaryOp::ShiftRight) => None,
        Op::Compare(op) => Some(Op::Compare(match op {
            CompareOp::Eq => CompareOp::Eq,
            CompareOp::Ne => CompareOp::Ne,
            CompareOp::Lt => CompareOp::Gt,
            CompareOp::Le => CompareOp::Ge,
            CompareOp::Gt => CompareOp::Lt,
            CompareOp::Ge => CompareOp::Le,
        })),
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
        Op::Alias | Op::Detach | Op::ToDevice { .. } | Op::Unary(_) | Op::Select | Op::Cast(_) => None,
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => None,
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } => None,
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } => None,
        Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => None,
        Op::Reduce { .. } | Op::Dot { .. } => None,
    }
}
