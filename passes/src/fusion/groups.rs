//! Groups while they grow: what they read, what passes between two of them, and in which order they can run.

use crate::aligned::Summary;
use crate::plan::Plan;
use crate::reach::{Ancestry, Order};
use lazuli_ir::{DimVec, Error, Graph, NodeId, Result};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;

/// A group while it grows.
#[derive(Default)]
pub(super) struct Part {
    /// In no order once it has grown.
    pub(super) members: Vec<NodeId>,
    /// The stored values that it reads.
    pub(super) reads: FxHashSet<NodeId>,
    /// Bytes it moves: each value read or stored, once.
    pub(super) bytes: u64,
    /// `None` before it is first planned.
    pub(super) summary: Option<Summary>,
    /// `None` where it has grown since it was planned.
    pub(super) plan: Option<Plan>,
    /// The twins that its members are.
    pub(super) twins: FxHashSet<Twin>,
}

/// A value that is computed again, by its kernel: either the value or the copy. Both in one kernel would be computed twice for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Twin {
    /// The kernel that made the value, before there were copies.
    pub(crate) home: usize,
    pub(crate) copy: bool,
}

/// The nodes that are copied, and their copies.
pub(crate) type Twins = FxHashMap<NodeId, Twin>;

/// Two groups taken together.
pub(super) struct Union {
    pub(super) small: usize,
    pub(super) large: usize,
    pub(super) bytes_saved: u64,
    /// Values that one stores and the other reads, with the number of its readers there.
    shared: Vec<(NodeId, u32)>,
}

/// What a merge brings.
pub(super) struct Verdict {
    pub(super) union: Union,
    /// The groups between both that must run before.
    pub(super) between: Vec<usize>,
    pub(super) flops_repeated: u64,
    /// The plan of the union; `None` where it is both kernels side by side.
    pub(super) plan: Option<Plan>,
    /// That of the plan, or what the smaller group adds to that of the larger.
    pub(super) summary: Summary,
}

/// The groups of a graph's nodes.
pub(super) struct Groups<'a> {
    graph: &'a Graph,
    /// Empty where they have become part of another.
    pub(super) parts: Vec<Part>,
    group_of: Vec<Option<usize>>,
    /// For each node that computes: the nodes whose stored values it reads.
    reads: Vec<DimVec<NodeId>>,
    users: Vec<Vec<NodeId>>,
    /// For each node, how many of its users are in other groups.
    outside: Vec<u32>,
    is_output: Vec<bool>,
    order: Order,
    ancestry: Ancestry,
}

/// A group before anything was merged: its node that is stored, all its members, and the stored values that it reads.
pub(super) struct Alone {
    pub(super) node: NodeId,
    pub(super) members: Vec<NodeId>,
    pub(super) reads: DimVec<NodeId>,
}

impl<'a> Groups<'a> {
    /// Groups in an order in which they can run; `outputs` are stored whoever reads them.
    pub(super) fn new(
        graph: &'a Graph,
        alone: Vec<Alone>,
        twins: &Twins,
        outputs: impl Iterator<Item = NodeId>,
    ) -> Groups<'a> {
        let n = graph.len();
        let mut reads = vec![DimVec::new(); n];
        for group in &alone {
            reads[group.node.index()] = group.reads.clone();
        }
        let mut groups = Groups {
            graph,
            parts: Vec::new(),
            group_of: vec![None; n],
            ancestry: Ancestry::new(&reads),
            reads,
            users: vec![Vec::new(); n],
            outside: vec![0; n],
            is_output: vec![false; n],
            order: Order::new(alone.len()),
        };
        for output in outputs {
            groups.is_output[output.index()] = true;
        }
        for (g, Alone { node, members, reads }) in alone.into_iter().enumerate() {
            for m in &members {
                groups.group_of[m.index()] = Some(g);
            }
            for read in &reads {
                groups.users[read.index()].push(node);
                groups.outside[read.index()] += 1;
            }
            let bytes = reads.iter().chain([&node]).map(|r| groups.size(*r)).sum();
            let reads = reads.into_iter().collect();
            let twins = members.iter().filter_map(|m| twins.get(m).copied()).collect();
            groups.parts.push(Part { members, reads, bytes, summary: None, plan: None, twins });
        }
        groups
    }

    /// Whether a node belongs to a group, and is not read through.
    pub(super) fn has(&self, n: NodeId) -> bool {
        self.group_of[n.index()].is_some()
    }

    /// The group of a node that has one.
    pub(super) fn of(&self, n: NodeId) -> usize {
        self.group_of[n.index()].unwrap_or(usize::MAX)
    }

    /// The nodes that read a value, in order.
    pub(super) fn users(&self, n: NodeId) -> &[NodeId] {
        &self.users[n.index()]
    }

    /// The stored values that a node reads.
    pub(super) fn reads(&self, n: NodeId) -> &[NodeId] {
        &self.reads[n.index()]
    }

    /// The bytes of a value.
    pub(super) fn size(&self, n: NodeId) -> u64 {
        self.graph.node(n).types[0].bytes() as u64
    }

    pub(super) fn summary(&self, g: usize) -> Result<&Summary> {
        self.parts[g].summary.as_ref().ok_or_else(|| Error::internal("a group without a summary"))
    }

    /// Two groups, the one that can run first before the other.
    fn in_order(&self, a: usize, b: usize) -> (usize, usize) {
        if self.order.before(b, a) { (b, a) } else { (a, b) }
    }

    /// What passes between two groups, and what their union saves.
    pub(super) fn unite(&self, a: usize, b: usize) -> Union {
        let (first, second) = self.in_order(a, b);
        let by_size = self.parts[first].members.len() <= self.parts[second].members.len();
        let (small, large) = if by_size { (first, second) } else { (second, first) };
        let (s, l) = (&self.parts[small], &self.parts[large]);
        let mut shared: Vec<(NodeId, u32)> = Vec::new();
        for m in &s.members {
            let from_large = |r: &&NodeId| self.group_of[r.index()] == Some(large);
            shared.extend(self.reads[m.index()].iter().filter(from_large).map(|r| (*r, 1)));
            if self.outside[m.index()] > 0 && l.reads.contains(m) {
                shared.push((*m, self.readers(*m, large)));
            }
        }
        shared.sort_unstable();
        shared.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0 };
            same
        });
        let twice: u64 = s.reads.iter().filter(|r| l.reads.contains(r)).map(|r| self.size(*r)).sum();
        let passed: u64 = shared.iter().map(|v| self.size(v.0) * if self.is_read_after(v) { 1 } else { 2 }).sum();
        Union { small, large, bytes_saved: twice + passed, shared }
    }

    /// Whether one group has a value of which the other has the copy.
    pub(super) fn are_twins(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.parts[a].twins, &self.parts[b].twins);
        a.iter().any(|t| b.contains(&Twin { copy: !t.copy, ..*t }))
    }

    /// Whether a value that passes between two groups is stored by their union.
    fn is_read_after(&self, &(n, readers): &(NodeId, u32)) -> bool {
        self.is_output[n.index()] || self.outside[n.index()] > readers
    }

    /// Whether a union stores a value that one of both passes to the other.
    pub(super) fn stores(&self, union: &Union, n: NodeId) -> bool {
        union.shared.iter().any(|v| v.0 == n && self.is_read_after(v))
    }

    /// How many members of a group read a value.
    fn readers(&self, n: NodeId, g: usize) -> u32 {
        let (users, members) = (&self.users[n.index()], &self.parts[g].members);
        let count = if users.len() <= members.len() {
            users.iter().filter(|u| self.group_of[u.index()] == Some(g)).count()
        } else {
            members.iter().filter(|m| self.reads[m.index()].contains(&n)).count()
        };
        count as u32
    }

    /// The members whose values are wanted outside of their group.
    pub(super) fn stored(&self, members: &[NodeId]) -> Vec<NodeId> {
        members.iter().copied().filter(|n| self.is_read_after(&(*n, 0))).collect()
    }

    /// The members of a union, in order, and those whose values are wanted outside of it.
    pub(super) fn united(&self, union: &Union) -> (Vec<NodeId>, Vec<NodeId>) {
        let mut members = [union.small, union.large].map(|g| self.parts[g].members.as_slice()).concat();
        members.sort_unstable();
        let readers = |n: &NodeId| union.shared.binary_search_by_key(n, |v| v.0).map_or(0, |at| union.shared[at].1);
        let outputs = members.iter().copied().filter(|n| self.is_read_after(&(*n, readers(n)))).collect();
        (members, outputs)
    }

    /// The groups between those of two nodes, a value and its reader or readers of the same, that must run before the later one; `None` where
    /// some path leads from the earlier to the later through one.
    pub(super) fn between(&self, first: NodeId, second: NodeId) -> Option<Vec<usize>> {
        if self.reads_around(first, second) {
            return None;
        }
        let (a, b) = self.in_order(self.of(first), self.of(second));
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        let mut found = vec![b];
        let mut next = 0;
        while let Some(&g) = found.get(next) {
            next += 1;
            let sources = self.parts[g].reads.iter().filter_map(|r| self.group_of[r.index()]);
            for h in sources {
                if h == a && g != b {
                    return None;
                }
                if h != a && self.order.before(a, h) && seen.insert(h) {
                    found.push(h);
                }
            }
        }
        found.remove(0);
        Some(found)
    }

    /// Whether a reader of `p` also reads something outside of both groups that is made from `p`.
    fn reads_around(&self, p: NodeId, c: NodeId) -> bool {
        let (a, b) = (self.group_of[p.index()], self.group_of[c.index()]);
        let outside = |r: &NodeId| {
            let g = self.group_of[r.index()];
            g.is_some() && g != a && g != b && self.ancestry.leads(p, *r)
        };
        self.reads[c.index()].iter().any(outside)
    }

    /// The smaller group becomes part of the larger.
    pub(super) fn merge(&mut self, verdict: Verdict) {
        let Verdict { union, between, plan, summary, .. } = verdict;
        let Union { small, large, bytes_saved, shared } = union;
        let (first, second) = self.in_order(small, large);
        self.order.join(first, second, large, between);
        let unread: Vec<NodeId> = shared.iter().filter(|v| !self.is_read_after(v)).map(|v| v.0).collect();
        for (n, readers) in &shared {
            self.outside[n.index()] -= readers;
        }
        let moved = std::mem::take(&mut self.parts[small]);
        for n in &moved.members {
            self.group_of[n.index()] = Some(large);
        }
        let kept = &mut self.parts[large];
        kept.members.extend(moved.members);
        kept.reads.extend(moved.reads);
        kept.twins.extend(moved.twins);
        for (n, _) in &shared {
            kept.reads.remove(n);
        }
        kept.bytes = (kept.bytes + moved.bytes).saturating_sub(bytes_saved);
        match (&plan, &mut kept.summary) {
            (None, Some(kept)) => kept.extend(summary, &unread),
            (_, kept) => *kept = Some(summary),
        }
        kept.plan = plan;
    }

    /// The groups that are left, producers first; among those that can run, the one with the earliest node.
    pub(super) fn run_order(&self) -> Result<Vec<usize>> {
        let mut waiting: Vec<usize> = vec![0; self.parts.len()];
        let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.parts.len()];
        for (g, part) in self.parts.iter().enumerate() {
            for n in &part.members {
                after[g].extend(self.users(*n).iter().map(|u| self.of(*u)).filter(|h| *h != g));
            }
        }
        for &h in after.iter().flatten() {
            waiting[h] += 1;
        }
        let start = |g: usize| Some((*self.parts[g].members.iter().min()?, g));
        let mut ready: BTreeSet<(NodeId, usize)> =
            (0..self.parts.len()).filter(|&g| waiting[g] == 0).filter_map(start).collect();
        let mut order = Vec::new();
        while let Some((_, g)) = ready.pop_first() {
            order.push(g);
            for &h in &after[g] {
                waiting[h] -= 1;
                if waiting[h] == 0 {
                    ready.extend(start(h));
                }
            }
        }
        if order.len() < self.parts.iter().filter(|p| !p.members.is_empty()).count() {
            return Err(Error::internal("groups wait for each other"));
        }
        Ok(order)
    }
}
