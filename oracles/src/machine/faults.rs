//! Calls that are errors: an index out of range, an integer divided by 0.

use lazuli_ir::{BinaryOp, CompareOp, Graph, Literal, Op, Result, Shape, Sources, Value};

/// The graph without checks: where an index is out of range, it is the first or (`last`) the last in range; where a divisor is 0, it
/// is 1 or 2. What is the same for both does not depend on what a check refuses.
pub(crate) fn unchecked(old: &Graph, last: bool) -> Result<Graph> {
    let mut graph = Graph::new(old.name());
    let mut map: Vec<Value> = Vec::with_capacity(old.len());
    let (mut inputs, names) = (0, old.inputs());
    for n in old.nodes() {
        let mut operands: Vec<Value> = old.operands(n).iter().map(|v| map[v.node.index()]).collect();
        let ty = old.ty(n.into()).clone();
        map.push(match old.op(n) {
            Op::Input { .. } => {
                inputs += 1;
                graph.add_input(names[inputs - 1].0.clone(), ty, Sources::none())
            }
            Op::CheckIndex { extent, wrap, .. } => {
                let (x, n) = (operands[0], *extent as i64);
                let low = if *wrap { -n } else { 0 };
                let inside = within(&mut graph, x, low, n, &ty.shape)?;
                let instead = splat(&mut graph, Literal::I64(if last { n - 1 } else { 0 }), &ty.shape)?;
                let x = add(&mut graph, Op::Select, &[inside, x, instead])?;
                let many = splat(&mut graph, Literal::I64(n.max(1)), &ty.shape)?;
                add(&mut graph, Op::Binary(BinaryOp::Remainder), &[x, many])?
            }
            op @ Op::Binary(b) if b.divides() && ty.dtype.is_int() => {
                let zero = splat(&mut graph, Literal::zero(ty.dtype), &ty.shape)?;
                let instead = splat(&mut graph, Literal::from_i64(ty.dtype, 1 + i64::from(last)), &ty.shape)?;
                let is_zero = add(&mut graph, Op::Compare(CompareOp::Eq), &[operands[1], zero])?;
                operands[1] = add(&mut graph, Op::Select, &[is_zero, instead, operands[1]])?;
                add(&mut graph, op.clone(), &operands)?
            }
            op => add(&mut graph, op.clone(), &operands)?,
        });
    }
    graph.set_outputs(old.outputs().iter().map(|v| map[v.node.index()]));
    Ok(graph)
}

fn add(graph: &mut Graph, op: Op, operands: &[Value]) -> Result<Value> {
    graph.add(op, operands, Sources::none())
}

fn splat(graph: &mut Graph, value: Literal, shape: &Shape) -> Result<Value> {
    add(graph, Op::Constant { value, shape: shape.clone() }, &[])
}

fn within(graph: &mut Graph, x: Value, low: i64, end: i64, shape: &Shape) -> Result<Value> {
    let (low, end) = (splat(graph, Literal::I64(low), shape)?, splat(graph, Literal::I64(end), shape)?);
    let above = add(graph, Op::Compare(CompareOp::Ge), &[x, low])?;
    let below = add(graph, Op::Compare(CompareOp::Lt), &[x, end])?;
    add(graph, Op::Binary(BinaryOp::And), &[above, below])
}
