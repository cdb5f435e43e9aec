//! Kernels in the DOT language: which operations each computes, and what flows between them.

use crate::compile::Module;
use lazuli_ir::kernel::Access;
use lazuli_ir::program::{BufferDecl, Place};
use lazuli_ir::{DotString, NodeId};
use std::fmt::Write;

/// The optimised graph with a box around the operations of each step.
pub(super) fn fusion(module: &Module) -> String {
    let program = module.code.program();
    let name = |step: usize| {
        let kernel = program.steps.get(step).and_then(|s| program.kernels.get(s.kernel));
        format!("{}. {}", step + 1, kernel.map_or("", |k| &k.name))
    };
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
        let kernel = program.kernels.get(step.kernel);
        let name = kernel.map_or("", |k| &k.name);
        let label = format!("{}. {name}\n{}\n{}", i + 1, step.cost.operations.join(" "), step.cost.sources);
        let _ = writeln!(dot, "  step{i} [label={}];", DotString(label.trim_end()));
        for (arg, param) in step.args.iter().zip(kernel.map_or(&[][..], |k| &k.params)) {
            let _ = match param.access {
                Access::Write => writeln!(dot, "  step{i} -> buffer{};", arg.buffer.0),
                Access::Read => writeln!(dot, "  buffer{} -> step{i};", arg.buffer.0),
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
