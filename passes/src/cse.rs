//! Common subexpression elimination: nodes that say the same become one.
//!
//! [`Graph::add`] merges equal nodes wherever a graph is built. What is left are those that differ in the order of operands
//! only: `a + b` and `b + a`, `a < b` and `b > a`. The first of them stays as it was written. `max` and `min` of floats are
//! not among them (their result's sign of zero follows the order), two draws of [`Op::Random`] never merge.

use crate::driver::Rewritten;
use lazuli_ir::graph::Operands;
use lazuli_ir::{BinaryOp, CompareOp, DType, Graph, Op, Result, Value};
use rustc_hash::FxHashSet;

/// The graph with such nodes merged.
pub(crate) fn cse(graph: &Graph) -> Result<Rewritten> {
    let mut first: FxHashSet<(Op, Operands)> = FxHashSet::default();
    let mut merged = 0;
    let new = graph.rebuild(|new, _, node, operands| {
        let mut chosen = (node.op.clone(), Operands::from(operands));
        if let Some(mirror) = mirrored(&node.op, new, operands) {
            let swapped: Operands = [operands[1], operands[0]].into_iter().collect();
            let mirror = (mirror, swapped);
            if first.contains(&mirror) {
                merged += 1;
                chosen = mirror;
            } else {
                first.insert(chosen.clone());
            }
        }
        new.add(chosen.0, &chosen.1, node.sources.clone())
    })?;
    Ok((new, merged))
}

/// The operation that means the same on swapped operands, where there is one.
fn mirrored(op: &Op, graph: &Graph, operands: &[Value]) -> Option<Op> {
    match op {
        Op::Binary(BinaryOp::Add | BinaryOp::Mul) => Some(op.clone()),
        Op::Binary(BinaryOp::Max | BinaryOp::Min) => match graph.ty(operands[0]).dtype {
            DType::Bool | DType::I64 => Some(op.clone()),
            DType::F32 => None,
        },
        Op::Binary(BinaryOp::Sub | BinaryOp::Div) => None,
        Op::Compare(op) => Some(Op::Compare(match op {
            CompareOp::Eq => CompareOp::Eq,
            CompareOp::Ne => CompareOp::Ne,
            CompareOp::Lt => CompareOp::Gt,
            CompareOp::Le => CompareOp::Ge,
            CompareOp::Gt => CompareOp::Lt,
            CompareOp::Ge => CompareOp::Le,
        })),
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
        Op::Alias | Op::Detach | Op::Unary(_) | Op::Select | Op::Cast(_) => None,
        Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => None,
        Op::Reduce { .. } | Op::Dot { .. } => None,
    }
}
