//! Which values are stored, and which are views of those.
//!
//! Movement, constants and counters are *free*: whoever reads them reads through, down to a stored value, until something needs them
//! in memory: a contraction that packs them once for all its panels, one of a GPU, which reads operands where they lie, a sort, an
//! output of the graph that is no view of what is stored.

use crate::index_map::operand_index;
use crate::layout::{Orders, is_relayed};
use crate::plan::is_movement;
use lazuli_ir::{Graph, Index, Layout, NodeId, Op, Result, Target, TargetKind, VarId};
use std::collections::BTreeSet;

/// What a movement makes of a value that lies so; `None` where that is no view of it.
pub(crate) fn moved(op: &Op, layout: &Layout) -> Option<Layout> {
    match op {
        Op::Alias | Op::Detach | Op::ToDevice { .. } => Some(layout.clone()),
        Op::Permute(perm) => Some(layout.permute(perm)),
        Op::Broadcast { shape, dims } => Some(layout.broadcast(shape, dims)),
        Op::Slice(dims) => Some(layout.slice(dims)),
        Op::Flip(dims) => Some(layout.flip(dims)),
        Op::Reshape(shape) => layout.reshape(shape),
        _ => None,
    }
}

/// The views of a graph.
pub(super) struct Views<'a> {
    graph: &'a Graph,
    orders: &'a Orders,
    /// How inputs lie.
    layouts: &'a [Layout],
    free: Vec<bool>,
}

impl<'a> Views<'a> {
    /// Those of a graph of which nothing has to be stored that is free.
    pub(super) fn new(graph: &'a Graph, layouts: &'a [Layout], orders: &'a Orders) -> Views<'a> {
        let free = |n| is_movement(graph.op(n)) || matches!(graph.op(n), Op::Constant { .. } | Op::Iota { .. });
        Views { graph, orders, layouts, free: graph.nodes().map(free).collect() }
    }

    /// Whether a value is read through.
    pub(super) fn is_free(&self, n: NodeId) -> bool {
        self.free[n.index()]
    }

    /// From now on a value is stored.
    pub(super) fn store(&mut self, n: NodeId) {
        self.free[n.index()] = false;
    }

    /// Stores the operands that a node needs in memory.
    pub(super) fn store_operands(&mut self, n: NodeId, target: &Target) -> Result<()> {
        let operands = self.graph.operands(n);
        if let Op::Dot { .. } = self.graph.op(n) {
            for v in operands.iter().filter(|v| is_relayed(self.graph, n, v.node)) {
                self.store(v.node);
            }
        }
        // A GPU's contraction reads its operands where they lie; elsewhere what is no matrix is packed on the way.
        if let (Op::Dot { .. }, TargetKind::Nvidia(_)) = (self.graph.op(n), target.kind) {
            for v in &operands {
                if !self.reads_affinely(v.node)? {
                    self.store(v.node);
                }
            }
        }
        // What is sorted lies in memory, in any layout.
        if let (Op::Sort { .. }, Some(v)) = (self.graph.op(n), operands.first())
            && self.view(v.node).is_none()
        {
            self.store(v.node);
        }
        Ok(())
    }

    /// The node that a chain of free movements starts from.
    pub(super) fn base(&self, mut n: NodeId) -> NodeId {
        while self.free[n.index()] && is_movement(self.graph.op(n)) {
            n = self.graph.operands(n)[0].node;
        }
        n
    }

    /// Whether a contraction can read this operand where it lies: through movements that stay affine, from memory.
    fn reads_affinely(&self, operand: NodeId) -> Result<bool> {
        let base = self.base(operand);
        if self.free[base.index()] {
            return Ok(false);
        }
        let shape = |n: NodeId| &self.graph.node(n).types[0].shape;
        let extents = shape(operand).extents();
        let ranges = |v: VarId| (0, extents[v.0 as usize] as i64 - 1);
        let mut index: Vec<Index> = (0..extents.len()).map(|d| Index::var(VarId(d as u32))).collect();
        let mut n = operand;
        while n != base {
            let below = self.graph.operands(n)[0].node;
            index = operand_index(self.graph.op(n), 0, shape(below), shape(n), &index, &[], &ranges)?.index;
            n = below;
        }
        Ok(index.iter().all(|x| (0..extents.len()).all(|d| x.coefficient(VarId(d as u32)).is_some())))
    }

    /// The stored value that a node is a view of, and the view over that value's own layout.
    pub(super) fn view(&self, n: NodeId) -> Option<(NodeId, Layout)> {
        let base = self.base(n);
        if self.free[base.index()] {
            return None;
        }
        let mut chain = vec![n];
        while let Some(&last) = chain.last()
            && last != base
        {
            chain.push(self.graph.operands(last)[0].node);
        }
        let mut layout = match self.graph.op(base) {
            Op::Input { index, .. } => self.layouts.get(*index)?.clone(),
            _ => self.stored_layout(base),
        };
        for &n in chain.iter().rev().skip(1) {
            layout = moved(self.graph.op(n), &layout)?;
        }
        // A view that repeats elements would hide that an output is larger than what is stored: callers may write to it.
        let repeats = layout.strides.iter().zip(layout.shape.dims()).any(|(s, d)| *s == 0 && !d.is_one());
        (!repeats || matches!(self.graph.op(base), Op::Input { .. })).then_some((base, layout))
    }

    fn stored_layout(&self, n: NodeId) -> Layout {
        self.orders.layout(n, &self.graph.node(n).types[0].shape)
    }

    /// For each graph output, a stored value that it is a view of; one that is none is stored itself.
    pub(super) fn resolve_outputs(&mut self) -> Vec<(NodeId, Layout)> {
        let mut outputs = Vec::new();
        for v in self.graph.outputs() {
            outputs.push(self.view(v.node).unwrap_or_else(|| {
                self.store(v.node);
                (v.node, self.stored_layout(v.node))
            }));
        }
        outputs
    }

    /// Nodes and the free ones that they read through, in order.
    pub(super) fn with_free(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let mut all: BTreeSet<NodeId> = nodes.iter().copied().collect();
        for &m in nodes {
            for v in self.graph.operands(m) {
                let mut n = v.node;
                while self.free[n.index()] && all.insert(n) && is_movement(self.graph.op(n)) {
                    n = self.graph.operands(n)[0].node;
                }
            }
        }
        all.into_iter().collect()
    }
}
