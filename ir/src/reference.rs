//! The reference evaluator: what a graph means, computed with plain scalar loops.
//!
//! Floats are held in `f64` and rounded to their dtype after each operation (a sum or contraction once, at its end); integers
//! are exact and wrap; nothing is fused, reordered or skipped. It is the oracle of every differential test. How far another
//! evaluator may be off is measured, not guessed: [`evaluate_bounds`] runs the graph with its roundings moved, and
//! [`compare`] holds results against that.

mod apply;
mod bounds;
mod compare;
mod contraction;
mod dense;
mod indexing;
mod rounding;

pub use apply::apply;
pub use bounds::{Bounds, evaluate_bounds};
pub use compare::{Mismatch, Summary, compare};
pub use dense::{Data, Dense};

use crate::{Error, ErrorKind, Graph, NodeId, Op, Result};
use rounding::Nearest;

/// The outputs of a graph on these inputs.
///
/// ```
/// use lazuli_ir::{Graph, reference::{Dense, evaluate}};
/// let graph = Graph::parse("graph g(%x: f32[2]) -> (%1) { %1 = mul %x, %x : f32[2] }")?;
/// let y = evaluate(&graph, &[Dense::from_vec(vec![2.0f32, 3.0], [2])?])?;
/// assert_eq!(y[0].to_vec::<f32>()?, [4.0, 9.0]);
/// # Ok::<(), lazuli_ir::Error>(())
/// ```
///
/// # Errors
/// Where the inputs are not as many, or not of the types, that the graph takes.
pub fn evaluate(graph: &Graph, inputs: &[Dense]) -> Result<Vec<Dense>> {
    check_inputs(graph, inputs)?;
    walk(graph, |n, op, operands: &[&Dense]| match op {
        Op::Input { index, .. } => Ok(inputs[*index].clone()),
        _ => apply::run(op, operands, &graph.node(n).types[0], &mut Nearest),
    })
}

/// The outputs as another right evaluator might give them: with errors of its own. For tests of the bounds.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_emulated(graph: &Graph, inputs: &[Dense], seed: u64) -> Result<Vec<Dense>> {
    let mut rounding = rounding::Emulated::new(seed);
    walk(graph, |n, op, operands: &[&Dense]| match op {
        Op::Input { index, .. } => Ok(inputs[*index].clone()),
        _ => apply::run(op, operands, &graph.node(n).types[0], &mut rounding),
    })
}

fn check_inputs(graph: &Graph, inputs: &[Dense]) -> Result<()> {
    let expected = graph.inputs();
    if expected.len() != inputs.len() {
        let message = format!("graph {} takes {} inputs, not {}", graph.name(), expected.len(), inputs.len());
        return Err(Error::new(ErrorKind::Value, message));
    }
    for ((name, n), x) in expected.iter().zip(inputs) {
        let ty = graph.ty((*n).into());
        if ty != x.ty() {
            return Err(Error::new(ErrorKind::Value, format!("input {name} is {ty}, not {}", x.ty())));
        }
    }
    Ok(())
}

/// Computes a value for each node that an output needs, in node order, and returns those of the outputs. A value is dropped
/// after its last user.
fn walk<V: Clone>(graph: &Graph, mut step: impl FnMut(NodeId, &Op, &[&V]) -> Result<V>) -> Result<Vec<V>> {
    let live = graph.live();
    let mut last_user: Vec<usize> = (0..graph.len()).collect();
    for n in graph.nodes().filter(|n| live[n.index()]) {
        for v in graph.operands(n) {
            last_user[v.node.index()] = n.index();
        }
    }
    for v in graph.outputs() {
        last_user[v.node.index()] = usize::MAX;
    }
    let mut values: Vec<Option<V>> = vec![None; graph.len()];
    let missing = |n: NodeId| Error::internal(format!("{n:?} was used before it was computed"));
    for n in graph.nodes().filter(|n| live[n.index()]) {
        let operands = graph.operands(n);
        let mut known: Vec<&V> = Vec::with_capacity(operands.len());
        for v in &operands {
            known.push(values[v.node.index()].as_ref().ok_or_else(|| missing(v.node))?);
        }
        let value = step(n, graph.op(n), &known).map_err(|e| e.with_sources(graph.node(n).sources.clone()))?;
        values[n.index()] = Some(value);
        for v in &operands {
            if last_user[v.node.index()] == n.index() {
                values[v.node.index()] = None;
            }
        }
    }
    graph.outputs().iter().map(|v| values[v.node.index()].clone().ok_or_else(|| missing(v.node))).collect()
}

#[cfg(test)]
mod tests;
