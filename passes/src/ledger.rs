//! The fusion ledger: every decision of fusion, as data that tests assert on and users can ask.

use lazuli_ir::{Graph, NodeId, Sources};
use rustc_hash::FxHashMap;
use std::fmt;

/// One decision of fusion: a candidate edge, and what became of it.
#[derive(Clone, Debug)]
pub struct LedgerRow {
    /// The producing node.
    pub producer: NodeId,
    /// The consuming node; for siblings that read one value, the other reader.
    pub consumer: NodeId,
    /// The names of both operations.
    pub operations: (&'static str, &'static str),
    /// The user's source lines of both.
    pub sources: (Sources, Sources),
    /// Whether they are in one kernel.
    pub fused: bool,
    /// Why, or why not.
    pub reason: String,
    /// Bytes that fusing saves.
    pub bytes: u64,
    /// Floating point operations that fusing repeats.
    pub flops: u64,
}

/// How a contraction is computed, where the target has a routine for products of matrices.
#[derive(Clone, Debug)]
pub struct ContractionRow {
    /// The contraction.
    pub node: NodeId,
    /// The user's source lines.
    pub sources: Sources,
    /// Whether by the routine; else by loops that fuse.
    pub routine: bool,
    /// Why.
    pub reason: String,
}

/// Every decision of fusion, in the order taken.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The decisions. Of an edge that was looked at again, the last counts.
    pub rows: Vec<LedgerRow>,
    /// A row for each contraction, where there is a choice.
    pub contractions: Vec<ContractionRow>,
    /// The latest row of each edge.
    latest: FxHashMap<(NodeId, NodeId), usize>,
}

impl Ledger {
    /// Why two nodes are not in one kernel: the reason, or `None` where they are, or no edge joins them.
    pub fn why_not_fused(&self, producer: NodeId, consumer: NodeId) -> Option<&str> {
        let row = &self.rows[*self.latest.get(&(producer, consumer))?];
        (!row.fused).then_some(row.reason.as_str())
    }

    /// The same in the nodes that those of the graph stand for.
    pub(crate) fn renamed(self, graph: &Graph, back: &[NodeId]) -> Ledger {
        let mut renamed = Ledger::default();
        for r in self.rows {
            let edge = (back[r.producer.index()], back[r.consumer.index()]);
            let LedgerRow { fused, reason, bytes, flops, .. } = r;
            if edge.0 != edge.1 {
                renamed.record(graph, edge, Decision { fused, reason, bytes, flops });
            }
        }
        for r in self.contractions {
            renamed.choose(graph, back[r.node.index()], r.routine, r.reason);
        }
        renamed
    }

    /// Notes how a contraction is computed.
    pub(crate) fn choose(&mut self, graph: &Graph, node: NodeId, routine: bool, reason: String) {
        let sources = graph.node(node).sources.clone();
        self.contractions.push(ContractionRow { node, sources, routine, reason });
    }

    pub(crate) fn record(&mut self, graph: &Graph, edge: (NodeId, NodeId), decision: Decision) {
        let Decision { fused, reason, bytes, flops } = decision;
        let (p, c) = (graph.node(edge.0), graph.node(edge.1));
        let row = LedgerRow {
            producer: edge.0,
            consumer: edge.1,
            operations: (p.op.name(), c.op.name()),
            sources: (p.sources.clone(), c.sources.clone()),
            fused,
            reason,
            bytes,
            flops,
        };
        match self.latest.get(&edge) {
            Some(&at) if !self.rows[at].fused => self.rows[at] = row,
            _ => {
                self.latest.insert(edge, self.rows.len());
                self.rows.push(row);
            }
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for r in &self.rows {
            let mark = if r.fused { "fused" } else { "apart" };
            write!(
                f,
                "{mark}  %{} {} -> %{} {}: {}",
                r.producer.0, r.operations.0, r.consumer.0, r.operations.1, r.reason
            )?;
            if !r.sources.1.is_empty() {
                write!(f, "   // {}", r.sources.1)?;
            }
            writeln!(f)?;
        }
        for r in &self.contractions {
            let how = if r.routine { "routine" } else { "loops" };
            writeln!(f, "{how}  %{}: {}", r.node.0, r.reason)?;
        }
        Ok(())
    }
}

/// What became of an edge.
pub(crate) struct Decision {
    pub(crate) fused: bool,
    pub(crate) reason: String,
    pub(crate) bytes: u64,
    pub(crate) flops: u64,
}
