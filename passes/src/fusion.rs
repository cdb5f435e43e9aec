//! Fusion: which nodes become one kernel.
//!
//! There is one kind of group (see [`plan`](crate::plan)) and one question about a pair of groups: does their union plan, and
//! is it worth it? The search starts with every computing node alone and takes the edges between groups in a fixed order,
//! producers first (but before all, those from values that have more elements than what they are made from), merging where the
//! answer is yes, until nothing changes; then it looks once at pairs that only read the
//! same value, and at reductions over values of one kernel. What it needs: a graph after `simplify`. What it guarantees: groups form a directed acyclic graph, and each
//! plans. Every decision is a row of the [`Ledger`].
//!
//! Legality is checked on the union's plan (`legality.rs`); and no path may leave the union and come back, for
//! it would have to run before and after another kernel (`reach.rs`); and a row kernel has rows enough to keep the
//! cores busy, where what it replaces had.
//!
//! Score: bytes no longer moved between kernels, against floating point operations done again because a node is wanted at
//! several index tuples.
//!
//! Cost: judging a merge costs what the smaller group is large, wherever both walk the same loops
//! (`aligned.rs`); such groups are planned once, at the end.

mod groups;
mod planner;
pub(crate) mod views;

use crate::aligned::{Loops, Small, Summary, join};
use crate::gpu_time;
use crate::layout::Orders;
use crate::ledger::{Decision, Ledger};
use crate::legality::{SMALL_WORK, few_phases, parallel_iterations, short_enough, work};
use crate::options::{Options, Pass};
use crate::plan::Plan;
use crate::products::{self, Product};
use groups::{Alone, Groups, Part, Union, Verdict};
pub(crate) use groups::{Twin, Twins};
use lazuli_ir::{DimVec, Error, Graph, Layout, NodeId, Op, Result, Target, TargetKind};
use planner::{Planner, is_bound_to_loops};
use rustc_hash::{FxHashMap, FxHashSet};
use views::Views;

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
    /// The plan; none where a routine of the back end computes it.
    pub plan: Option<Plan>,
    /// That routine.
    pub routine: Option<Routine>,
}

/// What computes a group that is no kernel.
#[derive(Clone, Debug)]
pub enum Routine {
    /// A sort of a stored value, seen through a layout.
    Sort(NodeId, Layout),
    /// Products of matrices.
    Product(Product),
}

/// Why two groups are not merged, or what it brings.
type Judgement = std::result::Result<Verdict, String>;

fn decision(verdict: &Judgement) -> Decision {
    match verdict {
        Ok(v) => {
            let (bytes, flops) = (v.union.bytes_saved, v.flops_repeated);
            let again = if flops == 0 { String::new() } else { format!(" for {flops} operations done again") };
            Decision { fused: true, reason: format!("saves {bytes} bytes{again}"), bytes, flops }
        }
        Err(reason) => Decision { fused: false, reason: reason.clone(), bytes: 0, flops: 0 },
    }
}

/// Floating point operations that starting one kernel less is worth.
const LAUNCH_FLOPS: u64 = 8 << 10;

/// Bytes that a panel reads of the columns of a contraction, which panels before it read, cost so much less than bytes that pass
/// between kernels: a core's share of the last cache has them.
const NEAR: u64 = 4;

/// Values beyond which reductions that only share their loops stay apart: so many streams of memory are slower than two
/// kernels.
const MOST_VALUES: usize = 8;

struct Fusion<'a> {
    graph: &'a Graph,
    orders: &'a Orders,
    target: &'a Target,
    routines: Routines<'a>,
    planner: Planner<'a>,
    groups: Groups<'a>,
    /// See [`expanding`](Fusion::expanding).
    expands: Vec<bool>,
    loops: Loops,
    ledger: Ledger,
}

/// What routines of the back end compute, and no kernel.
struct Routines<'a> {
    graph: &'a Graph,
    products: &'a [Product],
    /// For each member of a product, which.
    product_of: FxHashMap<NodeId, usize>,
}

impl<'a> Routines<'a> {
    fn new(graph: &'a Graph, products: &'a [Product]) -> Routines<'a> {
        let members = products.iter().enumerate().flat_map(|(i, p)| p.members.iter().map(move |m| (*m, i)));
        Routines { graph, products, product_of: members.collect() }
    }

    /// The product that a node belongs to.
    fn product(&self, n: NodeId) -> Option<&'a Product> {
        self.product_of.get(&n).map(|p| &self.products[*p])
    }

    fn compute(&self, n: NodeId) -> bool {
        matches!(self.graph.op(n), Op::Sort { .. }) || self.product(n).is_some()
    }
}

/// Groups the nodes of a graph, whose inputs lie in memory as `layouts` say. Without the pass, every computing node is a kernel.
///
/// Where the target has a routine for products of matrices, all contractions are grouped as loops first; where some are better
/// off with the routine, the graph is grouped again without them. No group has a value and its copy, as `twins` say.
pub(crate) fn group(
    graph: &Graph,
    layouts: &[Layout],
    orders: &Orders,
    target: &Target,
    options: &Options,
    twins: &Twins,
) -> Result<Grouping> {
    let merge = options.runs(Pass::Fusion);
    let loops = group_with(graph, layouts, orders, target, &[], merge, twins)?;
    if target.matmul.is_none() {
        return Ok(loops);
    }
    let found = products::find(graph, layouts, orders, options);
    let choices = products::choose(graph, &found, &loops.groups, target);
    let chosen = |n: &NodeId| choices.iter().any(|c| c.dot == *n && c.routine);
    let taken: Vec<Product> = found.into_iter().filter(|(n, _)| chosen(n)).filter_map(|(_, p)| p.ok()).collect();
    let mut grouping = match taken.as_slice() {
        [] => loops,
        taken => group_with(graph, layouts, orders, target, taken, merge, twins)?,
    };
    for c in choices {
        grouping.ledger.choose(graph, c.dot, c.routine, c.reason);
    }
    Ok(grouping)
}

fn group_with(
    graph: &Graph,
    layouts: &[Layout],
    orders: &Orders,
    target: &Target,
    products: &[Product],
    merge: bool,
    twins: &Twins,
) -> Result<Grouping> {
    let routines = Routines::new(graph, products);
    let live = products::live(graph, products);
    let mut views = Views::new(graph, layouts, orders);
    // What a product reads is stored.
    products.iter().flat_map(Product::reads).for_each(|read| views.store(read));
    for n in graph.nodes().filter(|n| live[n.index()] && routines.product(*n).is_none()) {
        views.store_operands(n, target)?;
    }
    let outputs = views.resolve_outputs();
    let groups = Groups::new(graph, alone(&live, &views, &routines), twins, outputs.iter().map(|o| o.0));
    let planner = Planner { graph, orders, target, views };
    let mut f = Fusion {
        graph,
        orders,
        target,
        routines,
        planner,
        groups,
        expands: Vec::new(),
        loops: Loops::default(),
        ledger: Ledger::default(),
    };
    f.expands = f.expanding();
    f.plan_alone()?;
    if merge {
        f.merge_along_edges()?;
        f.merge_siblings()?;
        f.merge_reductions()?;
    }
    f.finish(outputs)
}

/// Each computing node as a group of its own.
fn alone(live: &[bool], views: &Views<'_>, routines: &Routines<'_>) -> Vec<Alone> {
    let graph = routines.graph;
    let mut alone = Vec::new();
    for node in graph.nodes() {
        if !live[node.index()] || views.is_free(node) || matches!(graph.op(node), Op::Input { .. }) {
            continue;
        }
        // A product stands where its result does.
        let product = routines.product(node);
        if product.is_some_and(|p| p.output() != node) {
            continue;
        }
        let read: DimVec<NodeId> = match product {
            Some(p) => p.reads().collect(),
            None => graph.operands(node).iter().map(|v| views.base(v.node)).collect(),
        };
        let mut reads: DimVec<NodeId> = DimVec::new();
        for base in read {
            if !views.is_free(base) && !reads.contains(&base) {
                reads.push(base);
            }
        }
        alone.push(Alone { node, members: product.map_or_else(|| vec![node], |p| p.members.clone()), reads });
    }
    alone
}

impl Fusion<'_> {
    /// Plans each group before anything is merged.
    fn plan_alone(&mut self) -> Result<()> {
        for part in &mut self.groups.parts {
            let n = part.members[0];
            if self.routines.compute(n) {
                part.summary = Some(Summary::of_routine());
                continue;
            }
            let reasons = |r: String| Error::internal(format!("{} does not plan alone: {r}", self.graph.op(n).name()));
            let (plan, frame) = self.planner.plan(&[n], &[n])?.map_err(reasons)?;
            part.summary = Some(Summary::of(self.graph, self.target, &plan, &frame, &[n], &mut self.loops));
            part.plan = Some(plan);
        }
        Ok(())
    }

    /// Whether to merge the groups of two nodes: a value and its reader, or readers of the same.
    fn judge(&mut self, first: NodeId, second: NodeId) -> Result<Judgement> {
        if self.routines.compute(first) || self.routines.compute(second) {
            let product = self.routines.product(first).or(self.routines.product(second)).is_some();
            let what = if product { "the products of matrices are" } else { "a sort is" };
            return Ok(Err(format!("{what} a routine of its own")));
        }
        let Some(between) = self.groups.between(first, second) else {
            return Ok(Err("another kernel must run between them".into()));
        };
        let (a, b) = (self.groups.of(first), self.groups.of(second));
        if self.groups.are_twins(a, b) {
            return Ok(Err("one computes again what the other would store".into()));
        }
        let union = self.groups.unite(a, b);
        let elements = |n: NodeId| self.graph.node(n).types[0].shape.elements();
        if self.expands[first.index()] && elements(first) < elements(second) && self.groups.stores(&union, first) {
            return Ok(Err("other kernels read it, and it has other dims than what is made of it here".into()));
        }
        let (statements, contractions, separate) = {
            let (a, b) = (self.groups.summary(a)?, self.groups.summary(b)?);
            (a.statements + b.statements, a.dots + b.dots, a.work.saturating_add(b.work))
        };
        if let Err(reason) = short_enough(statements).and_then(|()| few_phases(contractions)) {
            return Ok(Err(reason));
        }
        if let Some(added) = self.extension(&union)? {
            let flops_repeated = added.work.saturating_sub(self.groups.summary(union.small)?.work);
            let width = self.groups.summary(union.large)?.width.max(added.width);
            if self.worth(&union, flops_repeated) && self.starves(width, &union)?.is_none() {
                return Ok(Ok(Verdict { union, between, flops_repeated, plan: None, summary: added }));
            }
        }
        let (members, outputs) = self.groups.united(&union);
        let (plan, frame) = match self.planner.plan(&members, &outputs)? {
            Ok(planned) => planned,
            Err(reason) => return Ok(Err(reason)),
        };
        let flops_repeated = work(self.graph, &plan).saturating_sub(separate);
        if !self.worth(&union, flops_repeated) {
            let saved = union.bytes_saved;
            return Ok(Err(format!("it would repeat {flops_repeated} operations to save {saved} bytes")));
        }
        if let Some(reason) = self.starves(parallel_iterations(self.graph, &plan, self.target), &union)? {
            return Ok(Err(reason));
        }
        let summary = Summary::of(self.graph, self.target, &plan, &frame, &outputs, &mut self.loops);
        let before = [a, b].into_iter().map(|g| Ok(self.groups.summary(g)?.read_again)).sum::<Result<u64>>()?;
        let read_again = summary.read_again.saturating_sub(before) / NEAR;
        if read_again > union.bytes_saved {
            let saved = union.bytes_saved;
            return Ok(Err(format!("panels of few rows would read {read_again} bytes more to save {saved}")));
        }
        Ok(Ok(Verdict { union, between, flops_repeated, plan: Some(plan), summary }))
    }

    fn worth(&self, union: &Union, flops_repeated: u64) -> bool {
        let saved = union.bytes_saved / self.target.bytes_per_us.max(1) * self.target.flops_per_us;
        flops_repeated <= saved + LAUNCH_FLOPS
    }

    /// What the smaller group adds to the larger, where both walk the same loops.
    fn extension(&mut self, union: &Union) -> Result<Option<Summary>> {
        let small = &self.groups.parts[union.small];
        let mut members = small.members.clone();
        members.sort_unstable();
        let outputs = self.groups.stored(&members);
        let mut reads: Vec<NodeId> = small.reads.iter().copied().collect();
        reads.sort_unstable();
        let views = &self.planner.views;
        let local = views.with_free(&members);
        let small = Small {
            graph: self.graph,
            orders: self.orders,
            target: self.target,
            members: &members,
            local: &local,
            outputs: &outputs,
            reads: &reads,
            free: &|n| views.is_free(n),
        };
        let Some(large) = &self.groups.parts[union.large].summary else { return Ok(None) };
        join(large, &small, &mut self.loops)
    }

    /// Whether a row kernel would leave cores idle that its parts keep busy.
    fn starves(&self, width: u64, union: &Union) -> Result<Option<String>> {
        let cores = u64::from(self.target.cores);
        let starved = match self.target.kind {
            TargetKind::Cpu => {
                let parts = [self.groups.summary(union.small)?, self.groups.summary(union.large)?];
                let busy = |p: &&Summary| p.work > 8 * SMALL_WORK && p.width >= cores;
                parts.into_iter().filter(busy).any(|p| width < cores.min(p.width))
            }
            TargetKind::Nvidia(_) => width < cores && self.takes_longer(width, union)?,
        };
        Ok(starved.then(|| format!("its {width} rows or panels would not keep {cores} threads busy")))
    }

    /// Whether two groups take longer as one kernel of so many parts than one after the other.
    fn takes_longer(&self, width: u64, union: &Union) -> Result<bool> {
        let (mut bytes, mut work, mut apart) = (0u64, 0u64, 0.0);
        for g in [union.small, union.large] {
            let (p, moved) = (self.groups.summary(g)?, self.groups.parts[g].bytes);
            apart += gpu_time::kernel_ns(self.target, moved, p.work, p.width);
            (bytes, work) = (bytes.saturating_add(moved), work.saturating_add(p.work));
        }
        Ok(gpu_time::kernel_ns(self.target, bytes.saturating_sub(union.bytes_saved), work, width) > apart)
    }

    /// Which values are computed element by element, and from nothing that has as many elements: their readers had better
    /// make them than their producers store them.
    fn expanding(&self) -> Vec<bool> {
        let elements = |n: NodeId| self.graph.node(n).types[0].shape.elements();
        let mut expands = vec![false; self.graph.len()];
        for n in self.graph.nodes().filter(|n| self.groups.has(*n)) {
            let loops = matches!(self.graph.op(n), Op::Reduce { .. } | Op::WindowSum { .. });
            let by_element = !loops && !self.routines.compute(n) && !is_bound_to_loops(self.graph, n);
            let smaller = |r: &NodeId| expands[r.index()] || elements(*r) < elements(n);
            expands[n.index()] = by_element && self.groups.reads(n).iter().all(smaller);
        }
        expands
    }

    fn merge_along_edges(&mut self) -> Result<()> {
        let producers: Vec<NodeId> = self.graph.nodes().filter(|n| self.groups.has(*n)).collect();
        let expanding: Vec<NodeId> = producers.iter().copied().filter(|n| self.expands[n.index()]).collect();
        self.merge_edges_of(&expanding)?;
        self.merge_edges_of(&producers)
    }

    fn merge_edges_of(&mut self, producers: &[NodeId]) -> Result<()> {
        let mut tried: FxHashMap<(usize, usize), (usize, usize)> = FxHashMap::default();
        loop {
            let mut changed = false;
            for &p in producers {
                for c in self.groups.users(p).to_vec() {
                    let (a, b) = (self.groups.of(p), self.groups.of(c));
                    let sizes = (self.groups.parts[a].members.len(), self.groups.parts[b].members.len());
                    if a == b || tried.get(&(a, b)) == Some(&sizes) {
                        continue;
                    }
                    let verdict = self.judge(p, c)?;
                    self.ledger.record(self.graph, (p, c), decision(&verdict));
                    match verdict {
                        Ok(v) => {
                            self.groups.merge(v);
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
            let users = self.groups.users(p).to_vec();
            for pair in users.windows(2) {
                let (a, b) = (self.groups.of(pair[0]), self.groups.of(pair[1]));
                let routine = pair.iter().any(|n| self.routines.compute(*n));
                if a == b || routine || self.groups.summary(a)?.dots > 0 || self.groups.summary(b)?.dots > 0 {
                    continue;
                }
                let least = self.groups.parts[a].bytes.min(self.groups.parts[b].bytes);
                if self.groups.size(p) * 3 < least {
                    continue;
                }
                let verdict = self.judge(pair[0], pair[1])?;
                self.ledger.record(self.graph, (pair[0], pair[1]), decision(&verdict));
                if let Ok(v) = verdict {
                    self.groups.merge(v);
                }
            }
        }
        Ok(())
    }

    /// Merges reductions that read values which one kernel stores, in the same loops: the sums across rows of several
    /// gradients.
    fn merge_reductions(&mut self) -> Result<()> {
        let mut latest: FxHashMap<usize, NodeId> = FxHashMap::default();
        for p in self.graph.nodes().filter(|n| self.groups.has(*n)).collect::<Vec<_>>() {
            for u in self.groups.users(p).to_vec() {
                let (producer, b) = (self.groups.of(p), self.groups.of(u));
                if b == producer || !self.groups.summary(b)?.reduces_as(self.groups.summary(b)?) {
                    continue;
                }
                let Some(other) = latest.insert(producer, u) else { continue };
                let a = self.groups.of(other);
                let values = [a, b].map(|g| self.groups.parts[g].reads.len() + 1).iter().sum::<usize>();
                if a == b || values > MOST_VALUES || !self.groups.summary(a)?.reduces_as(self.groups.summary(b)?) {
                    continue;
                }
                let verdict = self.judge(other, u)?;
                self.ledger.record(self.graph, (other, u), decision(&verdict));
                if let Ok(v) = verdict {
                    self.groups.merge(v);
                }
            }
        }
        Ok(())
    }

    /// The plan of a group that is complete: what its members would be planned as by themselves, unless the frame along which
    /// they joined is better.
    fn complete(&self, members: &[NodeId], outputs: &[NodeId], part: Part) -> Result<Plan> {
        if let Some(plan) = part.plan {
            return Ok(plan);
        }
        let summary = part.summary.ok_or_else(|| Error::internal("a group without a summary"))?;
        let planned = self.planner.plan(members, outputs)?;
        if let Ok((plan, _)) = planned
            && work(self.graph, &plan) <= summary.work
        {
            return Ok(plan);
        }
        let frame = summary.frame(outputs).ok_or_else(|| Error::internal("a group without a frame"))?;
        let inside: FxHashSet<NodeId> = members.iter().copied().collect();
        self.planner.plan_framed(&inside, outputs, &frame)?.map_err(Error::internal)
    }

    /// The groups as they are, in the order in which they run.
    fn finish(mut self, outputs: Vec<(NodeId, Layout)>) -> Result<Grouping> {
        for r in &mut self.ledger.rows {
            if !r.fused && self.groups.of(r.producer) == self.groups.of(r.consumer) {
                r.fused = true;
                r.reason = "both joined the same kernel along other edges".into();
            }
        }
        let mut groups = Vec::new();
        for g in self.groups.run_order()? {
            let mut part = std::mem::take(&mut self.groups.parts[g]);
            let mut members = std::mem::take(&mut part.members);
            members.sort_unstable();
            let outputs = self.groups.stored(&members);
            let routine = members.iter().copied().find(|n| self.routines.compute(*n)).and_then(|n| self.routine(n));
            let plan = if routine.is_some() { None } else { Some(self.complete(&members, &outputs, part)?) };
            groups.push(PlannedGroup { members, outputs, plan, routine });
        }
        Ok(Grouping { groups, ledger: self.ledger, outputs })
    }

    /// The routine that computes a node.
    fn routine(&self, n: NodeId) -> Option<Routine> {
        match self.routines.product(n) {
            Some(product) => Some(Routine::Product(product.clone())),
            None => {
                let operand = self.graph.operands(n)[0].node;
                self.planner.views.view(operand).map(|(n, layout)| Routine::Sort(n, layout))
            }
        }
    }
}
