//! Fusion: which nodes become one kernel.
//!
//! There is one kind of group (see [`plan`](crate::plan)) and one question about a pair of groups: does their union plan, and
//! is it worth it? The search starts with every computing node alone and takes the edges between groups in a fixed order,
//! producers first, merging where the answer is yes, until nothing changes; then it looks once at pairs that only read the
//! same value. What it needs: a graph after `simplify`. What it guarantees: groups form a directed acyclic graph, and each
//! plans. Every decision is a row of the [`Ledger`].
//!
//! Legality, checked on the union's plan:
//!
//! - no path leaves the union and comes back (it would have to run before and after another kernel);
//! - a contraction is wanted exactly at the tile, nothing in the group feeds it, and nothing in the group reduces;
//! - the loops below the root run once, so that they can be spread over threads; a program small enough for one thread may run
//!   several in sequence;
//! - a row kernel has rows enough to keep the cores busy, where what it replaces had.
//!
//! Score: bytes no longer moved between kernels, against floating point operations done again because a node is wanted at
//! several index tuples.

use crate::frame::frame;
use crate::ledger::{Decision, Ledger};
use crate::plan::{Frame, Group, Plan, SinkKind, Source};
use lazuli_ir::{DimVec, Graph, Index, Layout, NodeId, Op, ReduceOp, Result, Target, VarId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;

/// The groups of a graph.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// The groups, in an order in which they can run.
    pub groups: Vec<PlannedGroup>,
    /// The decisions.
    pub ledger: Ledger,
    /// For each graph output: the node whose stored value it is a view of, and the view (over that value's own layout).
    pub outputs: Vec<(NodeId, Layout)>,
}

/// A group that plans.
#[derive(Clone, Debug)]
pub struct PlannedGroup {
    /// The members, in order.
    pub members: Vec<NodeId>,
    /// The values stored.
    pub outputs: Vec<NodeId>,
    /// The plan.
    pub plan: Plan,
}

/// What a merge brings.
struct Verdict {
    bytes_saved: u64,
    flops_repeated: u64,
    /// The plan, unless the merge was legal without one.
    plan: Option<Plan>,
}

impl Verdict {
    fn reason(&self) -> String {
        match self.flops_repeated {
            0 => format!("saves {} bytes", self.bytes_saved),
            n => format!("saves {} bytes for {n} operations done again", self.bytes_saved),
        }
    }
}

fn decision(verdict: &std::result::Result<Verdict, String>) -> Decision {
    match verdict {
        Ok(v) => Decision { fused: true, reason: v.reason(), bytes: v.bytes_saved, flops: v.flops_repeated },
        Err(reason) => Decision { fused: false, reason: reason.clone(), bytes: 0, flops: 0 },
    }
}

/// Work, in floating point operations, below which a kernel may run loops in sequence on one thread.
const SMALL_WORK: u64 = 1 << 16;
/// Floating point operations that starting one kernel less is worth.
const LAUNCH_FLOPS: u64 = 8 << 10;
/// Operations beyond which a kernel is not grown.
const MOST_FLOPS: u64 = 2000;

struct Fusion<'a> {
    graph: &'a Graph,
    target: &'a Target,
    free: Vec<bool>,
    /// For each node that computes: the nodes whose stored values it reads, through free nodes.
    reads: Vec<DimVec<NodeId>>,
    users: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
    group_of: Vec<Option<usize>>,
    groups: Vec<Vec<NodeId>>,
    plans: Vec<Option<Plan>>,
    /// For each node, how many groups have members both up to it and after it.
    crossed: Vec<u32>,
    ledger: Ledger,
}

/// Groups the nodes of a graph. `layouts` are those of its inputs; with `merge` off every computing node is a kernel.
pub fn group(graph: &Graph, layouts: &[Layout], target: &Target, merge: bool) -> Result<Grouping> {
    let mut f = Fusion::new(graph, target)?;
    let outputs = f.resolve_outputs(layouts)?;
    f.connect();
    for n in graph.nodes().collect::<Vec<_>>() {
        if f.group_of[n.index()].is_some() && f.plans[f.group_index(n)].is_none() {
            let g = f.group_index(n);
            f.plans[g] = Some(f.plan_alone(n)?);
        }
    }
    if merge {
        f.merge_along_edges()?;
        f.merge_siblings()?;
    }
    f.finish(outputs)
}

fn is_movement(op: &Op) -> bool {
    matches!(op, Op::Alias | Op::Detach | Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_))
}

impl<'a> Fusion<'a> {
    fn new(graph: &'a Graph, target: &'a Target) -> Result<Fusion<'a>> {
        let live = graph.live();
        let free: Vec<bool> = graph
            .nodes()
            .map(|n| is_movement(graph.op(n)) || matches!(graph.op(n), Op::Constant { .. } | Op::Iota { .. }))
            .collect();
        let n = graph.len();
        let mut f = Fusion {
            graph,
            target,
            free,
            reads: vec![DimVec::new(); n],
            users: vec![Vec::new(); n],
            is_output: vec![false; n],
            group_of: vec![None; n],
            groups: Vec::new(),
            plans: Vec::new(),
            crossed: vec![0; n],
            ledger: Ledger::default(),
        };
        for n in graph.nodes().filter(|n| live[n.index()]) {
            if let Op::Dot { .. } = graph.op(n) {
                for (position, v) in graph.operands(n).into_iter().enumerate() {
                    if !f.reads_affinely(v.node)? {
                        f.free[graph.operands(n)[position].node.index()] = false;
                    }
                }
            }
        }
        Ok(f)
    }

    fn shape(&self, n: NodeId) -> &lazuli_ir::Shape {
        &self.graph.node(n).types[0].shape
    }

    /// The node that a chain of free movements starts from.
    fn base(&self, mut n: NodeId) -> NodeId {
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
        let extents = self.shape(operand).extents();
        let ranges = |v: VarId| (0, extents[v.0 as usize] as i64 - 1);
        let mut index: Vec<Index> = (0..extents.len()).map(|d| Index::var(VarId(d as u32))).collect();
        let mut n = operand;
        while n != base {
            let below = self.graph.operands(n)[0].node;
            let op = self.graph.op(n);
            index =
                crate::index_map::operand_index(op, 0, self.shape(below), self.shape(n), &index, &[], &ranges)?.index;
            n = below;
        }
        Ok(index.iter().all(|x| (0..extents.len()).all(|d| x.coefficient(VarId(d as u32)).is_some())))
    }

    /// Finds for each graph output a stored value that it is a view of; an output that is none is stored itself.
    fn resolve_outputs(&mut self, layouts: &[Layout]) -> Result<Vec<(NodeId, Layout)>> {
        let mut outputs = Vec::new();
        for v in self.graph.outputs() {
            let (node, layout) = match self.view(v.node, layouts) {
                Some(view) => view,
                None => {
                    self.free[v.node.index()] = false;
                    (v.node, Layout::contiguous(self.shape(v.node).clone()))
                }
            };
            self.is_output[node.index()] = true;
            outputs.push((node, layout));
        }
        Ok(outputs)
    }

    fn view(&self, n: NodeId, layouts: &[Layout]) -> Option<(NodeId, Layout)> {
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
            Op::Input { index, .. } => layouts.get(*index)?.clone(),
            _ => Layout::contiguous(self.shape(base).clone()),
        };
        for &n in chain.iter().rev().skip(1) {
            layout = match self.graph.op(n) {
                Op::Alias | Op::Detach => layout,
                Op::Permute(perm) => layout.permute(perm),
                Op::Broadcast { shape, dims } => layout.broadcast(shape, dims),
                Op::Slice(dims) => layout.slice(dims),
                Op::Reshape(shape) => layout.reshape(shape)?,
                _ => return None,
            };
        }
        // A view that repeats elements would hide that an output is larger than what is stored: callers may write to it.
        let repeats = layout.strides.iter().zip(layout.shape.dims()).any(|(s, d)| *s == 0 && !d.is_one());
        (!repeats || matches!(self.graph.op(base), Op::Input { .. })).then_some((base, layout))
    }

    /// Finds readers and users, and puts each computing node into a group of its own.
    fn connect(&mut self) {
        let live = self.graph.live();
        for n in self.graph.nodes().filter(|n| live[n.index()]) {
            if self.free[n.index()] || matches!(self.graph.op(n), Op::Input { .. }) {
                continue;
            }
            self.group_of[n.index()] = Some(self.groups.len());
            self.groups.push(vec![n]);
            self.plans.push(None);
            let mut reads: DimVec<NodeId> = DimVec::new();
            for v in self.graph.operands(n) {
                let base = self.base(v.node);
                if !self.free[base.index()] && !reads.contains(&base) {
                    reads.push(base);
                    self.users[base.index()].push(n);
                }
            }
            self.reads[n.index()] = reads;
        }
    }

    fn group_index(&self, n: NodeId) -> usize {
        self.group_of[n.index()].unwrap_or(usize::MAX)
    }

    fn plan_alone(&self, n: NodeId) -> Result<Plan> {
        let reasons =
            |r: String| lazuli_ir::Error::internal(format!("{} does not plan alone: {r}", self.graph.op(n).name()));
        self.plan_members(&[n], &[n])?.map_err(reasons)
    }

    /// The members whose values are wanted outside the group.
    fn outputs_of(&self, members: &[NodeId]) -> Vec<NodeId> {
        let inside: FxHashSet<NodeId> = members.iter().copied().collect();
        members
            .iter()
            .copied()
            .filter(|n| self.is_output[n.index()] || self.users[n.index()].iter().any(|u| !inside.contains(u)))
            .collect()
    }

    /// Members and the free nodes they read through, in order.
    fn local(&self, members: &[NodeId]) -> Vec<NodeId> {
        let mut local: BTreeSet<NodeId> = members.iter().copied().collect();
        for &m in members {
            for v in self.graph.operands(m) {
                let mut n = v.node;
                while self.free[n.index()] && local.insert(n) && is_movement(self.graph.op(n)) {
                    n = self.graph.operands(n)[0].node;
                }
            }
        }
        local.into_iter().collect()
    }

    /// Plans members as one group under the first frame that is legal, or says why none is.
    fn plan_members(&self, members: &[NodeId], outputs: &[NodeId]) -> Result<std::result::Result<Plan, String>> {
        if members.iter().filter(|n| matches!(self.graph.op(**n), Op::Dot { .. })).count() > 1 {
            return Ok(Err("two contractions do not share a tile".into()));
        }
        let inside: FxHashSet<NodeId> = members.iter().copied().collect();
        let local = self.local(members);
        let mut reason = String::from("its outputs do not share tile dims");
        for anchor in self.anchors(members, outputs) {
            let Some(frame) = frame(self.graph, &local, outputs, anchor)? else { continue };
            match self.plan_framed(&inside, outputs, frame)? {
                Ok(plan) => return Ok(Ok(plan)),
                Err(why) => reason = why,
            }
        }
        Ok(Err(reason))
    }

    fn anchors(&self, members: &[NodeId], outputs: &[NodeId]) -> Vec<NodeId> {
        let dot = members.iter().copied().find(|n| matches!(self.graph.op(*n), Op::Dot { .. }));
        if let Some(dot) = dot {
            return vec![dot];
        }
        let mut anchors: Vec<NodeId> = Vec::new();
        for n in members.iter().copied().filter(|n| matches!(self.graph.op(*n), Op::Reduce { .. })) {
            if anchors.iter().all(|a| !self.shape(*a).same(self.shape(n))) {
                anchors.push(n);
            }
        }
        if anchors.is_empty() {
            let largest = outputs.iter().copied().max_by_key(|n| (self.shape(*n).elements(), std::cmp::Reverse(*n)));
            anchors.extend(largest);
        }
        anchors.truncate(3);
        anchors
    }

    fn plan_framed(
        &self,
        inside: &FxHashSet<NodeId>,
        outputs: &[NodeId],
        frame: Frame,
    ) -> Result<std::result::Result<Plan, String>> {
        let group = Group {
            graph: self.graph,
            member: &|n| inside.contains(&n),
            free: &|n| self.free[n.index()],
            outputs,
            frame,
        };
        let plan = match Plan::new(&group) {
            Ok(plan) => plan,
            // A contraction that is wanted elsewhere than at the tile; anything else plans.
            Err(e) if inside.iter().any(|n| matches!(self.graph.op(*n), Op::Dot { .. })) => {
                return Ok(Err(e.message().to_owned()));
            }
            Err(e) => return Err(e),
        };
        Ok(self.legal(inside, &plan).map(|()| plan))
    }

    fn legal(&self, inside: &FxHashSet<NodeId>, plan: &Plan) -> std::result::Result<(), String> {
        if let Some(dot) = &plan.dot {
            let last = plan.tile.last().copied().unwrap_or(0);
            if dot.operands.iter().any(|(n, _)| inside.contains(n)) {
                return Err("a contraction reads its operands from memory: what makes one is a kernel before it".into());
            }
            if plan.sinks.iter().any(|s| s.scope != last || matches!(s.kind, SinkKind::Step { .. })) {
                return Err("a reduction does not run on the tile of a contraction".into());
            }
        }
        if let Some(n) = self.summed_twice(plan) {
            let name = self.graph.op(n).name();
            return Err(format!("it would compute {name} twice, in two orders, and the results may differ"));
        }
        let work = work(self.graph, plan);
        let mut passes: Vec<(u32, usize)> = Vec::new();
        for s in &plan.sinks {
            if let (Some(&level), Some(&scope)) = (s.levels.first(), plan.scopes[s.scope].path.get(1))
                && !passes.contains(&(level, scope))
            {
                passes.push((level, scope));
            }
        }
        if passes.len() > 1 && work > SMALL_WORK {
            return Err("it would run several loops in sequence, which threads cannot share".into());
        }
        let statements: u64 = plan.instances.iter().map(|i| flops(self.graph, &i.source)).sum();
        if inside.len() > 1 && statements > MOST_FLOPS {
            return Err(format!("the kernel would have {statements} operations, more than {MOST_FLOPS}"));
        }
        Ok(())
    }

    /// A sum of floats that the kernel would compute twice: at two index tuples, or in two passes over a scope around it. Each
    /// may add in another order, and then `x - max(x)` is not 0 anywhere: a value must be one value.
    fn summed_twice(&self, plan: &Plan) -> Option<NodeId> {
        let mut seen: FxHashSet<NodeId> = FxHashSet::default();
        (0..plan.sinks.len()).find_map(|s| {
            let SinkKind::Step { result, .. } = plan.sinks[s].kind else { return None };
            let Source::Reduced(n) = plan.instances[result].source else { return None };
            let is_sum = matches!(self.graph.op(n), Op::Reduce { op: ReduceOp::Sum, acc, .. } if acc.is_float());
            (is_sum && (!seen.insert(n) || runs_in_two_passes(plan, s))).then_some(n)
        })
    }

    /// The node past which no path leads back to group `g`: edges lead to later nodes, and a path that enters a group may go
    /// on from an earlier member of it, but no group has members on both sides of this node.
    fn horizon(&self, g: usize) -> NodeId {
        let mut end = self.groups[g].last().map_or(0, |n| n.index());
        while self.crossed.get(end).is_some_and(|c| *c > 0) {
            end += 1;
        }
        NodeId(end as u32)
    }

    /// Counts a group among those that cross its inner nodes, or no longer.
    fn count_crossed(&mut self, g: usize, there: bool) {
        let (Some(first), Some(last)) = (self.groups[g].first(), self.groups[g].last()) else { return };
        for c in &mut self.crossed[first.index()..last.index()] {
            *c = if there { *c + 1 } else { c.saturating_sub(1) };
        }
    }

    /// Whether some path leaves group `a` and reaches group `b` through another group.
    fn path_around(&self, a: usize, b: usize) -> bool {
        let end = self.horizon(b);
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        let mut stack = vec![a];
        while let Some(g) = stack.pop() {
            for &n in &self.groups[g] {
                for &u in &self.users[n.index()] {
                    let h = self.group_index(u);
                    if h == b && g != a {
                        return true;
                    }
                    if h != a && h != b && self.groups[h][0] <= end && seen.insert(h) {
                        stack.push(h);
                    }
                }
            }
        }
        false
    }

    /// Bytes a group moves: each value read or stored, once.
    fn bytes(&self, members: &[NodeId], outputs: &[NodeId]) -> u64 {
        let inside: FxHashSet<NodeId> = members.iter().copied().collect();
        let mut read: FxHashSet<NodeId> = FxHashSet::default();
        for m in members {
            read.extend(self.reads[m.index()].iter().filter(|r| !inside.contains(r)));
        }
        let size = |n: &NodeId| self.graph.node(*n).types[0].bytes() as u64;
        read.iter().map(size).sum::<u64>() + outputs.iter().map(size).sum::<u64>()
    }

    fn judge(&self, a: usize, b: usize, sibling: bool) -> Result<std::result::Result<Verdict, String>> {
        if self.path_around(a, b) || (sibling && self.path_around(b, a)) {
            return Ok(Err("another kernel must run between them".into()));
        }
        let mut members = [self.groups[a].as_slice(), &self.groups[b]].concat();
        members.sort_unstable();
        let (before_a, before_b) = (self.outputs_of(&self.groups[a]), self.outputs_of(&self.groups[b]));
        let outputs = self.outputs_of(&members);
        let before = self.bytes(&self.groups[a], &before_a) + self.bytes(&self.groups[b], &before_b);
        let bytes_saved = before.saturating_sub(self.bytes(&members, &outputs));
        if let Some(verdict) = self.judge_chain(a, b, &before_a, bytes_saved) {
            return Ok(Ok(verdict));
        }
        let plan = match self.plan_members(&members, &outputs)? {
            Ok(plan) => plan,
            Err(reason) => return Ok(Err(reason)),
        };
        let separate: u64 = [a, b].iter().map(|&g| self.plans[g].as_ref().map_or(0, |p| work(self.graph, p))).sum();
        let flops_repeated = work(self.graph, &plan).saturating_sub(separate);
        let worth = bytes_saved / self.target.bytes_per_us.max(1) * self.target.flops_per_us + LAUNCH_FLOPS;
        if flops_repeated > worth {
            return Ok(Err(format!("it would repeat {flops_repeated} operations to save {bytes_saved} bytes")));
        }
        if let Some(reason) = self.starves(&plan, &[a, b]) {
            return Ok(Err(reason));
        }
        Ok(Ok(Verdict { bytes_saved, flops_repeated, plan: Some(plan) }))
    }

    /// A shortcut for long chains: two groups of elementwise operations where the consumer wants the producer's only output,
    /// which nothing else reads, at one index. Their union always plans.
    fn judge_chain(&self, a: usize, b: usize, outputs: &[NodeId], bytes_saved: u64) -> Option<Verdict> {
        let (pa, pb) = (self.plans[a].as_ref()?, self.plans[b].as_ref()?);
        let plain = |p: &Plan| p.dot.is_none() && p.sinks.iter().all(|s| matches!(s.kind, SinkKind::Store { .. }));
        let [output] = outputs else { return None };
        let inside_b = self.users[output.index()].iter().all(|u| self.group_index(*u) == b);
        let wanted = pb.instances.iter().filter(|i| i.source == Source::Load(*output)).count();
        let small = self.groups[a].len() + self.groups[b].len() < 64;
        if small || !plain(pa) || !plain(pb) || !inside_b || wanted != 1 || self.is_output[output.index()] {
            return None;
        }
        let statements: u64 = [pa, pb].iter().flat_map(|p| &p.instances).map(|i| flops(self.graph, &i.source)).sum();
        (statements <= MOST_FLOPS).then_some(Verdict { bytes_saved, flops_repeated: 0, plan: None })
    }

    /// Whether a row kernel would leave cores idle that its parts keep busy.
    fn starves(&self, plan: &Plan, parts: &[usize]) -> Option<String> {
        let width = |p: &Plan| parallel_iterations(p);
        let cores = u64::from(self.target.cores);
        let large = |p: &Plan| work(self.graph, p) > 8 * SMALL_WORK;
        let starved = parts
            .iter()
            .filter_map(|&g| self.plans[g].as_ref())
            .any(|p| large(p) && width(p) >= cores && width(plan) < cores.min(width(p)));
        starved.then(|| format!("its {} rows would not keep {cores} threads busy", width(plan)))
    }

    fn merge(&mut self, a: usize, b: usize, plan: Option<Plan>) -> Result<()> {
        let (keep, gone) = if a < b { (a, b) } else { (b, a) };
        self.count_crossed(keep, false);
        self.count_crossed(gone, false);
        let moved = std::mem::take(&mut self.groups[gone]);
        for n in &moved {
            self.group_of[n.index()] = Some(keep);
        }
        self.groups[keep].extend(moved);
        self.groups[keep].sort_unstable();
        self.count_crossed(keep, true);
        self.plans[gone] = None;
        let plan = match plan {
            Some(plan) => plan,
            None => {
                let members = self.groups[keep].clone();
                let outputs = self.outputs_of(&members);
                self.plan_members(&members, &outputs)?.map_err(lazuli_ir::Error::internal)?
            }
        };
        self.plans[keep] = Some(plan);
        Ok(())
    }

    fn merge_along_edges(&mut self) -> Result<()> {
        let mut tried: FxHashMap<(usize, usize), (usize, usize)> = FxHashMap::default();
        loop {
            let mut changed = false;
            for p in self.graph.nodes().filter(|n| self.group_of[n.index()].is_some()).collect::<Vec<_>>() {
                for c in self.users[p.index()].clone() {
                    let (a, b) = (self.group_index(p), self.group_index(c));
                    let sizes = (self.groups[a].len(), self.groups[b].len());
                    if a == b || tried.get(&(a, b)) == Some(&sizes) {
                        continue;
                    }
                    let verdict = self.judge(a, b, false)?;
                    self.ledger.record(self.graph, (p, c), decision(&verdict));
                    match verdict {
                        Ok(v) => {
                            self.merge(a, b, v.plan)?;
                            changed = true;
                        }
                        Err(_) => {
                            tried.insert((a, b), sizes);
                        }
                    }
                }
            }
            if !changed {
                return Ok(());
            }
        }
    }

    /// Merges groups that read the same value and have no edge, where that saves a good part of what they move.
    fn merge_siblings(&mut self) -> Result<()> {
        for p in self.graph.nodes().collect::<Vec<_>>() {
            let users = self.users[p.index()].clone();
            for pair in users.windows(2) {
                let (a, b) = (self.group_index(pair[0]), self.group_index(pair[1]));
                if a == b
                    || self.plans[a].as_ref().is_none_or(|p| p.dot.is_some())
                    || self.plans[b].as_ref().is_none_or(|p| p.dot.is_some())
                {
                    continue;
                }
                let shared = self.graph.node(p).types[0].bytes() as u64;
                let least =
                    [a, b].iter().map(|&g| self.bytes(&self.groups[g], &self.outputs_of(&self.groups[g]))).min();
                if shared * 3 < least.unwrap_or(u64::MAX) {
                    continue;
                }
                let verdict = self.judge(a, b, true)?;
                self.ledger.record(self.graph, (pair[0], pair[1]), decision(&verdict));
                if let Ok(v) = verdict {
                    self.merge(a, b, v.plan)?;
                }
            }
        }
        Ok(())
    }

    /// Orders the groups so that producers run first, the one with the earliest node first among those that can run.
    fn finish(mut self, outputs: Vec<(NodeId, Layout)>) -> Result<Grouping> {
        for r in &mut self.ledger.rows {
            if !r.fused && self.group_of[r.producer.index()] == self.group_of[r.consumer.index()] {
                r.fused = true;
                r.reason = "both joined the same kernel along other edges".into();
            }
        }
        let mut waiting: Vec<usize> = vec![0; self.groups.len()];
        let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.groups.len()];
        for (g, members) in self.groups.iter().enumerate() {
            for n in members {
                after[g].extend(self.users[n.index()].iter().map(|u| self.group_index(*u)).filter(|h| *h != g));
            }
        }
        for &h in after.iter().flatten() {
            waiting[h] += 1;
        }
        let start = |f: &Fusion<'_>, g: usize| f.groups[g].first().copied();
        let mut ready: BTreeSet<(NodeId, usize)> =
            (0..self.groups.len()).filter(|&g| waiting[g] == 0).filter_map(|g| Some((start(&self, g)?, g))).collect();
        let mut groups = Vec::new();
        while let Some((_, g)) = ready.pop_first() {
            let members = self.groups[g].clone();
            let stored = self.outputs_of(&members);
            let plan = self.plans[g].take().ok_or_else(|| lazuli_ir::Error::internal("a group without a plan"))?;
            groups.push(PlannedGroup { members, outputs: stored, plan });
            for &h in &after[g] {
                waiting[h] -= 1;
                if waiting[h] == 0 {
                    ready.extend(start(&self, h).map(|n| (n, h)));
                }
            }
        }
        if self.plans.iter().any(Option::is_some) {
            return Err(lazuli_ir::Error::internal("groups wait for each other"));
        }
        Ok(Grouping { groups, ledger: self.ledger, outputs })
    }
}

/// Whether a reduction stands in a scope that runs several times, in sequence, and is needed in more than one of the runs.
fn runs_in_two_passes(plan: &Plan, step: usize) -> bool {
    let path = &plan.scopes[plan.sinks[step].scope].path;
    // The last scope on the path is the reduction's own, the one before it is where its result lives.
    (0..path.len().saturating_sub(2)).any(|j| {
        let here = |s: &&crate::plan::Sink| plan.scopes[s.scope].path.get(j + 1) == path.get(j + 1);
        let users = plan.sinks.iter().filter(|s| s.needs.contains(&step)).filter(here);
        users.map(|s| s.levels[j]).any(|level| level != plan.sinks[step].levels[j])
    })
}

/// Floating point operations of one instance.
fn flops(graph: &Graph, source: &Source) -> u64 {
    match source {
        Source::Compute(n) | Source::Reduced(n) => u64::from(graph.op(*n).flops()),
        Source::Load(_) | Source::Constant(_) | Source::Iota | Source::Dot(_) => 0,
        Source::Mask(conditions) => 2 * conditions.len() as u64,
    }
}

/// Floating point operations of a planned kernel.
pub fn work(graph: &Graph, plan: &Plan) -> u64 {
    let elementwise = plan.instances.iter().map(|i| {
        let once = match i.source {
            Source::Reduced(_) => 0,
            _ => flops(graph, &i.source),
        };
        once.saturating_mul(plan.scopes[i.scope].iterations)
    });
    let ends = plan.sinks.iter().map(|s| plan.scopes[s.scope].iterations);
    let dot = plan.dot.iter().map(|d| {
        let k: u64 = d.contract.iter().map(|v| plan.vars[v.0 as usize].extent).product();
        let tile = plan.tile.last().map_or(1, |&s| plan.scopes[s].iterations);
        tile.saturating_mul(k).saturating_mul(2)
    });
    elementwise.chain(ends).chain(dot).fold(0, u64::saturating_add)
}

/// Iterations of the loops that threads can share: those of the outermost scope, where there is one alone.
fn parallel_iterations(plan: &Plan) -> u64 {
    match plan.tile.last() {
        Some(&s) => plan.scopes[s].iterations,
        None => plan
            .sinks
            .iter()
            .map(|s| plan.scopes[s.scope].path.get(1).map_or(1, |&c| plan.scopes[c].iterations))
            .max()
            .unwrap_or(1),
    }
}
