//! The Graph IR as text.
//!
//! ```text
//! graph mlp(%x: f32[64,784], %w: f32[784,10]) -> (%3) {
//!   %1 = dot %x, %w contract=[1;0] : f32[64,10]   // src/main.rs:12:20
//!   %2 = constant 0.0 : f32[64,10]
//!   %3 = max %1, %2 : f32[64,10]
//! }
//! ```
//!
//! A line is `label = operation operands attributes : type`, and the comment at its end lists the user's source lines. What
//! the type tells is not repeated: the dtype of a `cast`, the shape of a `reshape` or `constant`, the accumulator of a `dot`.
//! Inputs are labelled by their names, the second input named `x` is `%x#2`, a name that is not a word stands in quotes; all
//! other nodes are numbered from 1 in node order. An input that was added after an operation stands among them as
//! `%y = input : f32[2]`. The text loses nothing: [`Graph::parse`] gives an equal graph, sources included.

use crate::text::Name;
use crate::{DotDims, Graph, NodeId, Op, PadDim, SliceDim, Sources, Value, WindowDim};
use rustc_hash::FxHashMap;
use std::fmt::{self, Display, Write};

/// The labels of a graph's values, as its text shows them.
#[derive(Clone, Debug)]
pub struct Labels(Vec<String>);

impl Labels {
    /// The label of a value: `%x`, `%3`.
    pub fn of(&self, v: Value) -> impl Display + '_ {
        Label { node: self.0.get(v.node.index()).map_or("%?", String::as_str), result: v.result }
    }
}

struct Label<'a> {
    node: &'a str,
    result: u32,
}

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.node)?;
        if self.result > 0 { write!(f, ".{}", self.result) } else { Ok(()) }
    }
}

impl Graph {
    /// The labels of its values.
    pub fn labels(&self) -> Labels {
        let mut labels = Vec::with_capacity(self.len());
        let mut copies: FxHashMap<&str, u32> = FxHashMap::default();
        let mut number = 0;
        for n in self.nodes() {
            let name = match self.op(n) {
                Op::Input { index, .. } => self.inputs().get(*index).map(|(name, _)| name.as_str()),
                _ => None,
            };
            labels.push(match name {
                Some(name) => {
                    let copy = copies.entry(name).or_default();
                    *copy += 1;
                    if *copy == 1 { format!("%{}", Name(name)) } else { format!("%{}#{copy}", Name(name)) }
                }
                None => {
                    number += 1;
                    format!("%{number}")
                }
            });
        }
        Labels(labels)
    }
}

impl Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels();
        let leading = self.nodes().take_while(|n| matches!(self.op(*n), Op::Input { .. })).count();
        write!(f, "graph {}(", Name(self.name()))?;
        inputs(self, &labels, leading, f)?;
        f.write_str(") -> (")?;
        for (i, v) in self.outputs().iter().enumerate() {
            write!(f, "{}{}", if i > 0 { ", " } else { "" }, labels.of(*v))?;
        }
        f.write_str(") {\n")?;
        for n in self.nodes().skip(leading) {
            statement(self, &labels, n, f)?;
        }
        f.write_str("}\n")
    }
}

/// The inputs on one line; on a line each where they have sources, which are comments.
fn inputs(g: &Graph, labels: &Labels, count: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let tall = g.nodes().take(count).any(|n| !g.node(n).sources.is_empty());
    for (i, n) in g.nodes().take(count).enumerate() {
        let node = g.node(n);
        let separator = match (tall, i) {
            (true, _) => "\n  ",
            (false, 0) => "",
            (false, _) => ", ",
        };
        write!(f, "{separator}{}:", labels.of(n.into()))?;
        types(g, n, f)?;
        if tall {
            f.write_str(",")?;
            comment(&node.sources, f)?;
        }
    }
    if tall { f.write_str("\n") } else { Ok(()) }
}

fn statement(g: &Graph, labels: &Labels, n: NodeId, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let node = g.node(n);
    write!(f, "  {} = {}", labels.of(n.into()), node.op.name())?;
    for (i, v) in g.operands(n).iter().enumerate() {
        write!(f, "{}{}", if i > 0 { ", " } else { " " }, labels.of(*v))?;
    }
    attributes(&node.op, f)?;
    f.write_str(" :")?;
    types(g, n, f)?;
    comment(&node.sources, f)?;
    f.write_str("\n")
}

fn types(g: &Graph, n: NodeId, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, ty) in g.node(n).types.iter().enumerate() {
        write!(f, "{} {ty}", if i > 0 { "," } else { "" })?;
    }
    Ok(())
}

fn comment(sources: &Sources, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if sources.is_empty() { Ok(()) } else { write!(f, "   // {sources}") }
}

/// What an operation says beyond its name, operands and type.
fn attributes(op: &Op, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match op {
        Op::Input { .. } | Op::Alias | Op::Detach | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) => Ok(()),
        Op::Select | Op::Cast(_) | Op::Reshape(_) | Op::DynamicUpdateSlice { .. } => Ok(()),
        Op::Constant { value, .. } => write!(f, " {value}"),
        Op::ToDevice { from, to } => write!(f, " from={} to={}", from.word(), to.word()),
        Op::Iota { dim, .. } => write!(f, " dim={dim}"),
        Op::Random { stream, .. } => write!(f, " stream={stream}"),
        Op::Permute(perm) => write!(f, " perm={}", List(perm)),
        Op::Broadcast { dims, .. } => write!(f, " dims={}", List(dims)),
        Op::Slice(dims) => slice(dims, f),
        Op::Flip(dims) => write!(f, " dims={}", List(dims)),
        Op::Concat { dim, .. } | Op::Gather { dim } | Op::Scatter { dim, .. } => write!(f, " dim={dim}"),
        Op::Window(dims) | Op::WindowSum { dims, .. } => window(dims, f),
        Op::DynamicSlice(sizes) => write!(f, " sizes={}", List(sizes)),
        Op::CheckIndex { extent, wrap, operation } => {
            write!(f, " extent={extent}{}", if *wrap { " wrap=true" } else { "" })?;
            if *operation == op.name() { Ok(()) } else { write!(f, " of={operation}") }
        }
        Op::Cumulative { dim, reverse, .. } => write!(f, " dim={dim}{}", if *reverse { " reverse=true" } else { "" }),
        Op::Sort { dim, descending } => write!(f, " dim={dim}{}", if *descending { " descending=true" } else { "" }),
        Op::Pad(dims) => pad(dims, f),
        Op::Reduce { dims, acc, .. } => write!(f, " dims={} acc={acc}", List(dims)),
        Op::Dot { dims: DotDims { batch, contract }, .. } => {
            if !contract.is_empty() {
                write!(f, " contract={}", Pairs(contract))?;
            }
            if !batch.is_empty() {
                write!(f, " batch={}", Pairs(batch))?;
            }
            Ok(())
        }
    }
}

fn slice(dims: &[SliceDim], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(" [")?;
    for (i, s) in dims.iter().enumerate() {
        write!(f, "{}{}..{}", if i > 0 { ", " } else { "" }, s.start, s.stop)?;
        if s.step != 1 {
            write!(f, " step {}", s.step)?;
        }
    }
    f.write_str("]")
}

fn window(dims: &[WindowDim], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let of = |part: fn(&WindowDim) -> usize| dims.iter().map(part).collect::<Vec<_>>();
    write!(f, " dims={} size={} stride={}", List(&of(|w| w.dim)), List(&of(|w| w.size)), List(&of(|w| w.stride)))?;
    write!(f, " dilation={}", List(&of(|w| w.dilation)))
}

fn pad(dims: &[PadDim], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let of = |part: fn(&PadDim) -> usize| dims.iter().map(part).collect::<Vec<_>>();
    write!(f, " low={} high={}", List(&of(|p| p.low)), List(&of(|p| p.high)))?;
    let interior = of(|p| p.interior);
    if interior.iter().all(|&n| n == 0) { Ok(()) } else { write!(f, " interior={}", List(&interior)) }
}

/// The name and the attributes: `permute perm=[1,0]`.
impl Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        attributes(self, f)
    }
}

/// `[1,0]`.
struct List<'a>(&'a [usize]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        numbers(self.0.iter().copied(), f)?;
        f.write_char(']')
    }
}

/// `[1,2;0,1]`: the left operand's dims, then the right's that they meet.
struct Pairs<'a>(&'a [(usize, usize)]);

impl Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        numbers(self.0.iter().map(|p| p.0), f)?;
        f.write_char(';')?;
        numbers(self.0.iter().map(|p| p.1), f)?;
        f.write_char(']')
    }
}

fn numbers(all: impl Iterator<Item = usize>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, n) in all.enumerate() {
        write!(f, "{}{n}", if i > 0 { "," } else { "" })?;
    }
    Ok(())
}
