//! The Graph IR in the DOT language, for Graphviz: nodes named as in the text form, in boxes where groups are given.

use crate::{Graph, Labels, NodeId};
use std::fmt::{self, Write};

/// A string of the DOT language, in quotes. Lines stay lines.
///
/// ```
/// use lazuli_ir::DotString;
/// assert_eq!(DotString("a \"b\" \\ c\nd").to_string(), r#""a \"b\" \\ c\nd""#);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DotString<'a>(pub &'a str);

impl fmt::Display for DotString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

impl Graph {
    /// The graph in the DOT language: a statement for each node, named as in the text form, then the edges.
    pub fn to_dot(&self) -> String {
        self.to_dot_in_groups(&[])
    }

    /// As [`to_dot`](Self::to_dot), with a box around each group of nodes, under the group's title. A node of several groups
    /// stands in the first.
    pub fn to_dot_in_groups(&self, groups: &[(String, &[NodeId])]) -> String {
        let mut out = format!("digraph {} {{\n  node [shape=box, fontname=\"monospace\"];\n", DotString(self.name()));
        let labels = self.labels();
        let mut drawn = vec![false; self.len()];
        for (number, (title, members)) in groups.iter().enumerate() {
            let _ = writeln!(out, "  subgraph cluster{number} {{\n    label={};", DotString(title));
            for &n in *members {
                if drawn.get_mut(n.index()).is_some_and(|d| !std::mem::replace(d, true)) {
                    let _ = writeln!(out, "    {}", self.dot_node(&labels, n));
                }
            }
            out.push_str("  }\n");
        }
        for n in self.nodes().filter(|n| !drawn[n.index()]) {
            let _ = writeln!(out, "  {}", self.dot_node(&labels, n));
        }
        for n in self.nodes() {
            let operands = self.operands(n);
            for (position, v) in operands.iter().enumerate() {
                let label = if operands.len() > 1 { format!(" [label=\"{position}\"]") } else { String::new() };
                let _ = writeln!(out, "  n{} -> n{}{label};", v.node.index(), n.index());
            }
        }
        for (i, v) in self.outputs().iter().enumerate() {
            let _ = writeln!(out, "  out{i} [label=\"output {i}\", shape=plaintext];");
            let _ = writeln!(out, "  n{} -> out{i};", v.node.index());
        }
        out.push_str("}\n");
        out
    }

    fn dot_node(&self, labels: &Labels, n: NodeId) -> String {
        let mut text = format!("{} = {}", labels.of(n.into()), self.op(n));
        for ty in &self.node(n).types {
            let _ = write!(text, "\n{ty}");
        }
        if !self.node(n).sources.is_empty() {
            let _ = write!(text, "\n{}", self.node(n).sources);
        }
        format!("n{} [label={}];", n.index(), DotString(&text))
    }
}
