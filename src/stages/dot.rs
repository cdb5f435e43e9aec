//! Kernels in the DOT language: which operations each computes, and what flows between them.

use crate::compile::Module;
use lazuli_ir::kernel::Access;
use lazuli_ir::program::{BufferDecl, Place};
use lazuli_ir::{DotString, NodeId};
use std::fmt::Write;

/// The optimised graph with a box around the operations of each step.
pub(super) fn fusion(module: &Module) -> String {
    let program = module.code.program();
    let name = |step: usize| format!("{}. {}", step + 1, program.steps.get(step).map_or("", |s| program.step_name(s)));
    let groups = module.code.groups().iter().enumerate();
    let groups: Vec<(String, &[NodeId])> = groups.map(|(step, nodes)| (name(step), nodes.as_slice())).collect();
    module.improved.graph.to_dot_in_groups(&groups)
}

/// The steps of the program in boxes, its buffers in ellipses, and an edge for each that a step reads or writes.
pub(super) fn kernels(module: &Module) -> String {
    let program = module.code.program();
    let mut dot = String::from("digraph kernels {\n  node [shape=box, fontname=\"monospace\"];\n");
    for (i, buffer) in program.buffers.iter().enumerate() {
        let label = describe(module, buffer);
        let _ = writeln!(dot, "  buffer{i} [shape=ellipse, label={}];", DotString(&label));
    }
    for (i, step) in program.steps.iter().enumerate() {
        let (name, cost) = (program.step_name(step), step.cost());
        let label = format!("{}. {name}\n{}\n{}", i + 1, cost.operations.join(" "), cost.sources);
        let _ = writeln!(dot, "  step{i} [label={}];", DotString(label.trim_end()));
        for (buffer, access) in program.accesses(step) {
            let _ = match access {
                Access::Write | Access::ReadWrite => writeln!(dot, "  step{i} -> buffer{};", buffer.0),
                Access::Read => writeln!(dot, "  buffer{} -> step{i};", buffer.0),
            };
        }
    }
    dot.push_str("}\n");
    dot
}

/// A buffer's name or place, and its size.
fn describe(module: &Module, buffer: &BufferDecl) -> String {
    let inputs = module.improved.graph.inputs();
    let place = match buffer.place {
        Place::Input(i) => inputs.get(i).map_or_else(|| format!("input {i}"), |(name, _)| name.clone()),
        Place::Output { donor: None } => "result".to_owned(),
        Place::Output { donor: Some(i) } => {
            format!("result, may overwrite {}", inputs.get(i).map_or("an input", |(name, _)| name))
        }
        Place::Workspace(offset) => format!("workspace at {offset}"),
    };
    format!("{place}\n{} {}", buffer.elements, buffer.dtype)
}
