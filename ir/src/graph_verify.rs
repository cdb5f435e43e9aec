//! The verifier of the Graph IR. What holds of every graph, after every pass:
//!
//! Structure
//! - A node has as many operands as its operation takes, at positions 0, 1, 2, ...
//! - Operands come before their users in node order, and are results that exist.
//!
//! Types
//! - A node has one result type, and it is the one that [`infer`](crate::infer) gives for the operation on the operands'
//!   types; so shapes fit, dtypes are in the operation's domain, and sizes in bytes fit `isize`.
//!
//! Inputs
//! - The listed inputs are the `input` nodes, numbered from 0 in node order.
//!
//! Identity
//! - No two nodes have the same operation and operands, except `alias`: hash-consing merged them.
//!
//! Outputs
//! - Each output is a result that exists.
//!
//! The code checks in this order; the first violation is the error, which names the node as the text form does.

use crate::{Error, ErrorKind, Graph, NodeId, Op, Result, TensorType, Value, infer};
use rustc_hash::FxHashMap;

impl Graph {
    /// Checks every invariant of the Graph IR.
    ///
    /// # Errors
    /// Of kind [`Verify`](ErrorKind::Verify), naming the node and the invariant.
    pub fn verify(&self) -> Result<()> {
        for n in self.nodes() {
            operands(self, n)?;
            types(self, n)?;
        }
        inputs(self)?;
        identity(self)?;
        for (i, v) in self.outputs().iter().enumerate() {
            if !exists(self, *v) {
                return Err(violation(format!("output {i} is {v:?}, which does not exist")));
            }
        }
        Ok(())
    }
}

#[cold]
fn violation(message: String) -> Error {
    Error::new(ErrorKind::Verify, message)
}

#[cold]
fn at(g: &Graph, n: NodeId, message: &str) -> Error {
    violation(format!("{} = {}: {message}", g.labels().of(n.into()), g.op(n))).with_sources(g.node(n).sources.clone())
}

fn exists(g: &Graph, v: Value) -> bool {
    v.node.index() < g.len() && (v.result as usize) < g.node(v.node).types.len()
}

fn operands(g: &Graph, n: NodeId) -> Result<()> {
    let edges = g.operand_positions(n);
    if edges.len() != g.op(n).arity() {
        return Err(at(g, n, &format!("takes {} operands, has {}", g.op(n).arity(), edges.len())));
    }
    if !edges.iter().map(|e| e.0 as usize).eq(0..edges.len()) {
        return Err(at(g, n, "operand positions are not 0, 1, 2, ..."));
    }
    for (position, v) in edges {
        if v.node >= n {
            return Err(at(g, n, &format!("operand {position} comes after its user in node order")));
        }
        if !exists(g, v) {
            return Err(at(g, n, &format!("operand {position} is result {} of a node without it", v.result)));
        }
    }
    Ok(())
}

fn types(g: &Graph, n: NodeId) -> Result<()> {
    let operands = g.operands(n);
    let operand_types: Vec<&TensorType> = operands.iter().map(|v| g.ty(*v)).collect();
    let inferred = infer(g.op(n), &operand_types).map_err(|e| at(g, n, &e.to_string()))?;
    match g.node(n).types.as_slice() {
        [ty] if *ty == inferred => Ok(()),
        [ty] => Err(at(g, n, &format!("its type is {inferred}, not {ty}"))),
        all => Err(at(g, n, &format!("has {} result types, not 1", all.len()))),
    }
}

fn inputs(g: &Graph) -> Result<()> {
    let mut listed = g.inputs().iter().map(|(_, n)| *n);
    let mut expected = 0;
    for n in g.nodes() {
        let Op::Input { index, .. } = g.op(n) else { continue };
        if *index != expected || listed.next() != Some(n) {
            return Err(at(g, n, &format!("is input {index}, but the listed one here is number {expected}")));
        }
        expected += 1;
    }
    match listed.next() {
        Some(n) => Err(violation(format!("input {expected} is listed as {n:?}, which is no input node"))),
        None => Ok(()),
    }
}

fn identity(g: &Graph) -> Result<()> {
    let mut seen = FxHashMap::default();
    for n in g.nodes() {
        if matches!(g.op(n), Op::Alias) {
            continue;
        }
        if let Some(first) = seen.insert((g.op(n), g.operands(n)), n) {
            return Err(at(g, n, &format!("is the same as {}", g.labels().of(first.into()))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BinaryOp, DType, Literal, Shape, Sources, UnaryOp};

    fn graph() -> (Graph, Value, Value) {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::new([2], DType::F32), Sources::none());
        let e = g.add(Op::Unary(UnaryOp::Exp), &[x], Sources::none()).unwrap();
        g.add_output(e);
        g.verify().unwrap();
        (g, x, e)
    }

    fn message(g: &Graph) -> String {
        let e = g.verify().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Verify);
        e.to_string()
    }

    #[test]
    fn each_violation_is_found_and_named() {
        let f2 = TensorType::new([2], DType::F32);

        let (mut g, x, _) = graph();
        g.push_raw(Op::Binary(BinaryOp::Add), f2.clone(), &[(0, x)]);
        assert_eq!(message(&g), "%2 = add: takes 2 operands, has 1");

        let (mut g, x, e) = graph();
        g.push_raw(Op::Binary(BinaryOp::Add), f2.clone(), &[(0, x), (2, e)]);
        assert_eq!(message(&g), "%2 = add: operand positions are not 0, 1, 2, ...");

        let (mut g, ..) = graph();
        g.push_raw(Op::Unary(UnaryOp::Neg), f2.clone(), &[(0, Value { node: NodeId(2), result: 0 })]);
        assert_eq!(message(&g), "%2 = neg: operand 0 comes after its user in node order");

        let (mut g, x, _) = graph();
        g.push_raw(Op::Unary(UnaryOp::Neg), f2.clone(), &[(0, Value { node: x.node, result: 1 })]);
        assert_eq!(message(&g), "%2 = neg: operand 0 is result 1 of a node without it");

        let (mut g, x, _) = graph();
        g.push_raw(Op::Unary(UnaryOp::Neg), TensorType::new([3], DType::F32), &[(0, x)]);
        assert_eq!(message(&g), "%2 = neg: its type is f32[2], not f32[3]");

        let (mut g, x, _) = graph();
        g.push_raw(Op::Permute(smallvec::smallvec![1]), f2.clone(), &[(0, x)]);
        assert!(message(&g).contains("dim 1 is out of range"), "{}", message(&g));

        let (mut g, ..) = graph();
        let huge = Shape::new([usize::MAX, 2]);
        g.push_raw(
            Op::Constant { value: Literal::I64(0), shape: huge.clone() },
            TensorType::new(huge, DType::I64),
            &[],
        );
        assert!(message(&g).contains("too large"));

        let (mut g, ..) = graph();
        g.push_raw(Op::Input { index: 1, ty: f2.clone() }, f2.clone(), &[]);
        assert!(message(&g).contains("is input 1, but the listed one here is number 1"), "{}", message(&g));

        let (mut g, x, _) = graph();
        g.push_raw(Op::Unary(UnaryOp::Exp), f2, &[(0, x)]);
        assert_eq!(message(&g), "%2 = exp: is the same as %1");

        let (mut g, ..) = graph();
        g.add_output(Value { node: NodeId(9), result: 0 });
        assert!(message(&g).starts_with("output 1 is"));
    }
}
