//! How members would be computed as one group: a plan, and the frame it walks.

use super::views::Views;
use crate::frame::frame;
use crate::layout::{Orders, is_relayed};
use crate::legality::legal;
use crate::plan::{DotPlan, Frame, Group, Plan, Source};
use lazuli_ir::{Graph, Index, NodeId, Op, Result, Shape, Target, TargetKind};
use rustc_hash::FxHashSet;

/// Makes plans of groups of a graph.
pub(super) struct Planner<'a> {
    pub(super) graph: &'a Graph,
    pub(super) orders: &'a Orders,
    pub(super) target: &'a Target,
    pub(super) views: Views<'a>,
}

/// A plan and its frame, or why there is none.
pub(super) type Planned = std::result::Result<(Plan, Frame), String>;

impl Planner<'_> {
    /// Plans members as one group under the first frame that is legal, or says why none is.
    pub(super) fn plan(&self, members: &[NodeId], outputs: &[NodeId]) -> Result<Planned> {
        let inside: FxHashSet<NodeId> = members.iter().copied().collect();
        let local = self.views.with_free(members);
        let mut reason = String::from("its outputs do not share tile dims");
        for anchor in self.anchors(members, outputs) {
            let Some(frame) = frame(self.graph, self.orders, &local, outputs, anchor)? else { continue };
            match self.plan_framed(&inside, outputs, &frame)? {
                Ok(plan) => return Ok(Ok((plan, frame))),
                Err(why) => reason = why,
            }
        }
        Ok(Err(reason))
    }

    /// The nodes whose results' dims may be the tile dims, all or without one of them.
    fn anchors(&self, members: &[NodeId], outputs: &[NodeId]) -> Vec<(NodeId, Option<usize>)> {
        let is_dot = |n: &NodeId| matches!(self.graph.op(*n), Op::Dot { .. });
        let dots: Vec<NodeId> = members.iter().copied().filter(is_dot).collect();
        let mut anchors: Vec<(NodeId, Option<usize>)> = Vec::new();
        match members.iter().copied().find(|n| is_bound_to_loops(self.graph, *n)) {
            Some(leader) if dots.is_empty() => return vec![(leader, None)],
            Some(_) if dots.len() == 1 => anchors.push((dots[0], None)),
            _ => {}
        }
        for n in members.iter().copied().filter(|n| matches!(self.graph.op(*n), Op::Reduce { .. })) {
            let same = |a: &NodeId| shape(self.graph, *a).same(shape(self.graph, n)) && !is_dot(a);
            if !anchors.iter().any(|(a, _)| same(a)) {
                anchors.push((n, None));
            }
        }
        // Whole rows of a contraction, where something is made from them that it does not suffice to have in pieces.
        let fed = |d: &&NodeId| {
            self.graph.operands(**d).iter().any(|v| members.binary_search(&self.views.base(v.node)).is_ok())
        };
        anchors.extend(dots.iter().filter(fed).map(|d| (*d, shape(self.graph, *d).rank().checked_sub(1))));
        if anchors.is_empty() {
            let largest =
                outputs.iter().copied().max_by_key(|n| (shape(self.graph, *n).elements(), std::cmp::Reverse(*n)));
            anchors.extend(largest.map(|n| (n, None)));
        }
        anchors.truncate(3);
        anchors
    }

    /// Plans members as one group under this frame, or says why that is not legal.
    pub(super) fn plan_framed(
        &self,
        inside: &FxHashSet<NodeId>,
        outputs: &[NodeId],
        frame: &Frame,
    ) -> Result<std::result::Result<Plan, String>> {
        let group = Group {
            graph: self.graph,
            orders: self.orders,
            member: &|n| inside.contains(&n),
            free: &|n| self.views.is_free(n),
            outputs,
            frame: frame.clone(),
        };
        let plan = match Plan::new(&group) {
            Ok(plan) => plan,
            // A contraction that is wanted elsewhere than at the tile, or what runs along a dim and is wanted elsewhere than at
            // its loop; anything else plans.
            Err(e) if inside.iter().any(|n| is_bound_to_loops(self.graph, *n)) => {
                return Ok(Err(e.message().to_owned()));
            }
            Err(e) => return Err(e),
        };
        let operand = |dot: &DotPlan| {
            self.graph
                .operands(dot.node)
                .iter()
                .any(|v| inside.contains(&v.node) && is_relayed(self.graph, dot.node, v.node))
        };
        if plan.dots.iter().any(operand) {
            return Ok(Err("it is laid out once, for all panels of the contraction".into()));
        }
        // What the group computes, masks, divides or finds by data is no operand that lies in memory.
        let feeds = |dot: &DotPlan| {
            dot.packed().any(|o| {
                let i = &plan.instances[o.value];
                let affine = |x: &Index| o.free.iter().chain(&o.contract).all(|v| x.coefficient(*v).is_some());
                let loaded = matches!(i.source, Source::Load(_)) && i.mask.is_none() && i.indexed_by.is_empty();
                !loaded || !i.index.iter().all(affine)
            })
        };
        if matches!(self.target.kind, TargetKind::Nvidia(_)) && plan.dots.iter().any(feeds) {
            return Ok(Err("a GPU's contraction reads its operands from memory".into()));
        }
        Ok(legal(self.graph, inside, &plan, self.target).map(|()| plan))
    }
}

/// Whether a node computes along loops of its own: a contraction, or what runs along a dim.
pub(super) fn is_bound_to_loops(graph: &Graph, n: NodeId) -> bool {
    matches!(graph.op(n), Op::Dot { .. } | Op::Cumulative { .. } | Op::Scatter { .. })
}

fn shape(graph: &Graph, n: NodeId) -> &Shape {
    &graph.node(n).types[0].shape
}
