//! Reverse-mode differentiation as a graph transformation: gradients are nodes of the same graph.
//!
//! The walk goes once over the nodes between `wrt` and the outputs, users before operands, so a node's cotangent is complete
//! when its rule is applied. A node takes part where it depends on `wrt` through floating point values only: integer and
//! boolean paths, and what lies behind `detach`, have zero gradients by rule. Each node's rule is in
//! [`vjp_rules`](crate::vjp_rules); the nodes it adds carry the sources of the node it differentiates.

use crate::expr::{Builder, Expr};
use crate::vjp_rules::{Primal, gradient};
use lazuli_ir::graph::Node;
use lazuli_ir::{Error, ErrorKind, Graph, NodeId, Op, Result, Value};

/// Appends the vector-Jacobian product: for `outputs` as pairs of a value and its cotangent, the cotangents of `wrt`.
///
/// `None` stands for a zero gradient: no differentiable path leads from that value to an output. Outputs may repeat, and
/// values of `wrt` may depend on each other: one that another is computed from also gets what flows through that other.
///
/// An output that is not floating point or whose cotangent has another type is an [`ErrorKind::Autograd`].
pub fn vjp(graph: &mut Graph, outputs: &[(Value, Value)], wrt: &[Value]) -> Result<Vec<Option<Value>>> {
    for &(output, cotangent) in outputs {
        check(graph, output, cotangent)?;
    }
    let varies = varying(graph, wrt);
    let cotangents = Builder::within(graph, |builder| walk(builder, &varies, outputs))?;
    Ok(wrt.iter().map(|v| cotangents.get(v.node.index()).copied().flatten()).collect())
}

/// The cotangent of each node that varies and that an output depends on.
fn walk(builder: &Builder, varies: &[bool], outputs: &[(Value, Value)]) -> Result<Vec<Option<Value>>> {
    let varies = |v: Value| varies.get(v.node.index()) == Some(&true);
    let count = builder.graph().len();
    let mut cotangents: Vec<Option<Value>> = vec![None; count];
    let accumulate = |cotangents: &mut [Option<Value>], v: Value, more: Expr<'_>| {
        let slot = &mut cotangents[v.node.index()];
        *slot = Some(slot.map_or(more, |sum| builder.value(sum) + more).value);
    };
    for &(output, cotangent) in outputs.iter().filter(|(output, _)| varies(*output)) {
        builder.stand_for(builder.graph().node(output.node).sources.clone());
        accumulate(&mut cotangents, output, builder.value(cotangent));
    }
    for n in (0..count as u32).rev().map(NodeId) {
        let Some(dy) = cotangents[n.index()] else { continue };
        let operands = builder.graph().operands(n);
        if !operands.iter().any(|x| varies(*x)) {
            continue;
        }
        let Node { op, sources, .. } = builder.graph().node(n).clone();
        builder.stand_for(sources.clone());
        let primal = Primal { op: &op, operands: &operands, result: n.into() };
        for (i, x) in operands.iter().enumerate().filter(|(_, x)| varies(**x)) {
            if let Some(dx) = gradient(builder, &primal, i, builder.value(dy)) {
                accumulate(&mut cotangents, *x, dx);
            }
        }
        builder.check().map_err(|e| e.with_sources(sources))?;
    }
    builder.check()?;
    Ok(cotangents)
}

/// For each node that exists, whether its value can vary differentiably with one of `wrt`.
fn varying(graph: &Graph, wrt: &[Value]) -> Vec<bool> {
    let mut varies = vec![false; graph.len()];
    for v in wrt {
        varies[v.node.index()] = graph.ty(*v).dtype.is_float();
    }
    for n in graph.nodes() {
        let node = graph.node(n);
        if varies[n.index()] || matches!(node.op, Op::Detach) || !node.types.iter().all(|t| t.dtype.is_float()) {
            continue;
        }
        varies[n.index()] = graph.operands(n).iter().any(|x| varies[x.node.index()]);
    }
    varies
}

fn check(graph: &Graph, output: Value, cotangent: Value) -> Result<()> {
    let (ty, given) = (graph.ty(output), graph.ty(cotangent));
    let problem = if !ty.dtype.is_float() {
        format!("only floating point values have gradients, not {ty}")
    } else if ty != given {
        format!("the gradient of a {ty} has that type, not {given}")
    } else {
        return Ok(());
    };
    let node = graph.node(output.node);
    let operands = graph.operands(output.node).into_iter().map(|v| graph.ty(v).clone()).collect::<Vec<_>>();
    let error = Error::new(ErrorKind::Autograd, problem).with_operation(node.op.name(), operands);
    Err(error.with_sources(node.sources.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::samples;
    use crate::vjp_rules::reads_for;
    use lazuli_ir::{BinaryOp, DType, Sources, TensorType};

    #[test]
    fn rules_read_what_they_declare_and_no_more() {
        for (op, types) in samples::operations() {
            for i in (0..types.len()).filter(|&i| types[i].dtype.is_float()) {
                let mut g = Graph::new("g");
                let none = Sources::none;
                let operands: Vec<Value> = types.iter().map(|t| g.add_input("x", t.clone(), none())).collect();
                let y = g.add(op.clone(), &operands, none()).unwrap();
                if !g.ty(y).dtype.is_float() {
                    continue;
                }
                let dy = g.add_input("dy", g.ty(y).clone(), none());
                let dx = vjp(&mut g, &[(y, dy)], &operands[i..=i]).unwrap();
                assert_eq!(dx[0].is_none(), matches!(op, Op::Detach), "{op:?}");
                let Some(dx) = dx[0] else { continue };
                assert_eq!(g.ty(dx), &types[i], "{op:?}");
                let mut read = (0u64, false);
                for n in g.nodes().filter(|n| *n > dy.node) {
                    for v in g.operands(n) {
                        read.1 |= v == y;
                        for (bit, x) in operands.iter().enumerate() {
                            read.0 |= u64::from(v == *x) << bit;
                        }
                    }
                }
                let declared = reads_for(&op, i);
                assert_eq!(read, (declared.operands, declared.result), "{op:?}, operand {i}");
            }
        }
    }

    #[test]
    fn gradients_stop_where_they_must_and_errors_say_why() {
        let mut g = Graph::new("g");
        let ty = TensorType::new([2], DType::F32);
        let x = g.add_input("x", ty.clone(), Sources::none());
        let stopped = g.add(Op::Detach, &[x], Sources::none()).unwrap();
        let y = g.add(Op::Binary(BinaryOp::Mul), &[x, stopped], Sources::none()).unwrap();
        let int = g.add(Op::Cast(DType::I64), &[x], Sources::none()).unwrap();
        let back = g.add(Op::Cast(DType::F32), &[int], Sources::none()).unwrap();
        assert_eq!(vjp(&mut g, &[(back, x)], &[x, y]).unwrap(), [None, None]);
        let d = vjp(&mut g, &[(y, x), (y, x)], &[x, stopped, y]).unwrap();
        let twice = g.add(Op::Binary(BinaryOp::Add), &[x, x], Sources::none()).unwrap();
        assert_eq!(d[2], Some(twice));
        let scaled = g.add(Op::Binary(BinaryOp::Mul), &[twice, stopped], Sources::none()).unwrap();
        assert_eq!(d[0], Some(scaled));
        let by_factor = g.add(Op::Binary(BinaryOp::Mul), &[twice, x], Sources::none()).unwrap();
        assert_eq!(d[1], Some(by_factor));
        assert_eq!(vjp(&mut g, &[(int, int)], &[x]).unwrap_err().kind(), ErrorKind::Autograd);
        assert_eq!(vjp(&mut g, &[(y, int)], &[x]).unwrap_err().kind(), ErrorKind::Autograd);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::new([1], DType::F32), Sources::none());
        let mut y = x;
        for _ in 0..100_000 {
            y = g.add(Op::Binary(BinaryOp::Add), &[y, x], Sources::none()).unwrap();
        }
        assert!(vjp(&mut g, &[(y, x)], &[x]).unwrap()[0].is_some());
    }
}
