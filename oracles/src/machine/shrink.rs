//! Failing programs made small: as few outputs as fail, and as many nodes as possible replaced by inputs that hold their values.

use super::setup::Setup;
use crate::program::{Fault, RandomProgram};
use lazuli_ir::reference::{Dense, evaluate};
use lazuli_ir::{Error, Graph, Layout, NodeId, Op, Result, Value};

/// A smaller program that still fails, with its setup; the same where nothing smaller does.
pub fn shrink(
    program: &RandomProgram,
    setup: &Setup,
    fails: impl Fn(&RandomProgram, &Setup) -> bool,
) -> (RandomProgram, Setup) {
    let mut best = (program.clone(), setup.clone());
    let outputs = best.0.graph.outputs().to_vec();
    let ends = best.0.graph.nodes().map(Value::from).map(|v| vec![v]).chain(outputs.iter().map(|v| vec![*v]));
    let ends: Vec<Vec<Value>> = ends.collect();
    if let Some(found) = ends.iter().find_map(|e| attempt(&best, e, None, &fails)) {
        best = found;
    }
    loop {
        let outputs = best.0.graph.outputs().to_vec();
        let inner = |n: &NodeId| !matches!(best.0.graph.op(*n), Op::Input { .. } | Op::Constant { .. });
        let nodes: Vec<NodeId> = best.0.graph.nodes().filter(inner).collect();
        let fewer = |i: usize| [&outputs[..i], &outputs[i + 1..]].concat();
        let smaller = (0..outputs.len())
            .filter(|_| outputs.len() > 1)
            .find_map(|i| attempt(&best, &fewer(i), None, &fails))
            .or_else(|| nodes.iter().rev().find_map(|n| attempt(&best, &outputs, Some(*n), &fails)));
        match smaller {
            Some(found) => best = found,
            None => return best,
        }
    }
}

fn attempt(
    from: &(RandomProgram, Setup),
    outputs: &[Value],
    replaced: Option<NodeId>,
    fails: &impl Fn(&RandomProgram, &Setup) -> bool,
) -> Option<(RandomProgram, Setup)> {
    if replaced.is_some_and(|n| outputs.iter().any(|v| v.node == n)) {
        return None;
    }
    let (p, layouts) = cut(&from.0, &from.1.layouts, outputs, replaced).ok()?;
    let setup = Setup { layouts, ..from.1.clone() };
    fails(&p, &setup).then_some((p, setup))
}

/// The part of a program that these outputs need, with one node replaced by an input of its value.
fn cut(
    program: &RandomProgram,
    layouts: &[Layout],
    outputs: &[Value],
    replaced: Option<NodeId>,
) -> Result<(RandomProgram, Vec<Layout>)> {
    let old = &program.graph;
    let needed = |wanted: &[Value]| {
        let mut live = vec![false; old.len()];
        wanted.iter().for_each(|v| live[v.node.index()] = true);
        for n in old.nodes().rev().filter(|n| Some(*n) != replaced) {
            if live[n.index()] {
                old.operands(n).iter().for_each(|v| live[v.node.index()] = true);
            }
        }
        live
    };
    let live = needed(outputs);
    let (mut graph, mut inputs, mut kept) = (Graph::new(old.name()), Vec::<Dense>::new(), Vec::new());
    let mut faults = Vec::new();
    let mut map: Vec<Option<Value>> = vec![None; old.len()];
    for n in old.nodes().filter(|n| live[n.index()]) {
        let ty = old.ty(n.into()).clone();
        let sources = old.node(n).sources.clone();
        let new = match old.op(n) {
            Op::Input { index, .. } => {
                let here = program.faults.iter().filter(|f| f.input == *index);
                faults.extend(here.map(|f| Fault { input: inputs.len(), ..*f }));
                inputs.push(program.inputs[*index].clone());
                kept.push(layouts[*index].clone());
                graph.add_input(format!("x{}", inputs.len()), ty, sources)
            }
            _ if Some(n) == replaced => {
                let mut alone = old.clone();
                alone.set_outputs([n.into()]);
                inputs.extend(evaluate(&alone, &program.inputs)?);
                kept.push(Layout::contiguous(ty.shape.clone()));
                graph.add_input(format!("x{}", inputs.len()), ty, sources)
            }
            op => {
                let operands: Option<Vec<Value>> = old.operands(n).iter().map(|v| map[v.node.index()]).collect();
                let operands = operands.ok_or_else(|| Error::internal("an operand that was not kept"))?;
                graph.add(op.clone(), &operands, sources)?
            }
        };
        map[n.index()] = Some(new);
    }
    graph.set_outputs(outputs.iter().filter_map(|v| map[v.node.index()]));
    Ok((RandomProgram { graph, inputs, faults }, kept))
}
