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

use crate::aligned::{Loops, Small, Summary, join};
use crate::frame::frame;
use crate::layout::Orders;
use crate::ledger::{Decision, Ledger};
use crate::legality::{SMALL_WORK, few_phases, legal, parallel_iterations, short_enough, work};
use crate::options::{Options, Pass};
use crate::plan::{DotPlan, Frame, Group, Plan, Source, is_movement};
use crate::products::{self, Product};
use crate::reach::{Ancestry, Order};
use lazuli_ir::{DimVec, Graph, Index, Layout, NodeId, Op, Result, Target, TargetKind, VarId};
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

/// What a merge brings.
struct Verdict {
    union: Union,
    /// The groups between both that must run before.
    between: Vec<usize>,
    flops_repeated: u64,
    /// The plan of the union; `None` where it is both kernels side by side.
    plan: Option<Plan>,
    /// That of the plan, or what the smaller group adds to that of the larger.
    summary: Summary,
}

impl Verdict {
    fn reason(&self) -> String {
        match self.flops_repeated {
            0 => format!("saves {} bytes", self.union.bytes_saved),
            n => format!("saves {} bytes for {n} operations done again", self.union.bytes_saved),
        }
    }
}

/// Why two groups are not merged, or what it brings.
type Judgement = std::result::Result<Verdict, String>;

fn decision(verdict: &Judgement) -> Decision {
    match verdict {
        Ok(v) => Decision { fused: true, reason: v.reason(), bytes: v.union.bytes_saved, flops: v.flops_repeated },
        Err(reason) => Decision { fused: false, reason: reason.clone(), bytes: 0, flops: 0 },
    }
}

/// Floating point operations that starting one kernel less is worth.
const LAUNCH_FLOPS: u64 = 8 << 10;

/// Nanoseconds that a GPU takes from one kernel to the next, which reads what it wrote.
const GPU_LAUNCH_NS: u64 = 4000;

/// Bytes that a panel reads of the columns of a contraction, which panels before it read, cost so much less than bytes that pass
/// between kernels: a core's share of the last cache has them.
const NEAR: u64 = 4;

/// Values beyond which reductions that only share their loops stay apart: so many streams of memory are slower than two
/// kernels.
const MOST_VALUES: usize = 8;

/// A group while it grows.
struct Part {
    /// In no order once it has grown.
    members: Vec<NodeId>,
    /// The stored values that it reads.
    reads: FxHashSet<NodeId>,
    /// Bytes it moves: each value read or stored, once.
    bytes: u64,
    /// `None` before it is first planned.
    summary: Option<Summary>,
    /// `None` where it has grown since it was planned.
    plan: Option<Plan>,
}

/// Two groups taken together.
struct Union {
    small: usize,
    large: usize,
    bytes_saved: u64,
    /// Values that one stores and the other reads, with the number of its readers there.
    shared: Vec<(NodeId, u32)>,
}

struct Fusion<'a> {
    graph: &'a Graph,
    orders: &'a Orders,
    target: &'a Target,
    /// The contractions that are no loops.
    products: &'a [Product],
    /// For each member of a product, which.
    product_of: FxHashMap<NodeId, usize>,
    live: Vec<bool>,
    free: Vec<bool>,
    /// For each node that computes: the nodes whose stored values it reads, through free nodes.
    reads: Vec<DimVec<NodeId>>,
    users: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
    group_of: Vec<Option<usize>>,
    /// For each node, how many of its users are in other groups.
    outside: Vec<u32>,
    groups: Vec<Part>,
    order: Order,
    ancestry: Ancestry,
    loops: Loops,
    ledger: Ledger,
}

/// Groups the nodes of a graph, whose inputs lie in memory as `layouts` say. Without the pass, every computing node is a kernel.
///
/// Where the target has a routine for products of matrices, all contractions are grouped as loops first; where some are better
/// off with the routine, the graph is grouped again without them.
pub fn group(
    graph: &Graph,
    layouts: &[Layout],
    orders: &Orders,
    target: &Target,
    options: &Options,
) -> Result<Grouping> {
    let merge = options.runs(Pass::Fusion);
    let loops = group_with(graph, layouts, orders, target, &[], merge)?;
    if target.matmul.is_none() {
        return Ok(loops);
    }
    let found = products::find(graph, layouts, orders, options);
    let choices = products::choose(graph, &found, &loops.groups, target);
    let chosen = |n: &NodeId| choices.iter().any(|c| c.dot == *n && c.routine);
    let taken: Vec<Product> = found.into_iter().filter(|(n, _)| chosen(n)).filter_map(|(_, p)| p.ok()).collect();
    let mut grouping = match taken.as_slice() {
        [] => loops,
        taken => group_with(graph, layouts, orders, target, taken, merge)?,
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
) -> Result<Grouping> {
    let mut f = Fusion::new(graph, layouts, orders, target, products)?;
    let outputs = f.resolve_outputs(layouts)?;
    f.connect()?;
    if merge {
        f.merge_along_edges()?;
        f.merge_siblings()?;
        f.merge_reductions()?;
    }
    f.finish(outputs, layouts)
}

impl<'a> Fusion<'a> {
    fn new(
        graph: &'a Graph,
        layouts: &[Layout],
        orders: &'a Orders,
        target: &'a Target,
        products: &'a [Product],
    ) -> Result<Fusion<'a>> {
        let members = products.iter().enumerate().flat_map(|(i, p)| p.members.iter().map(move |m| (*m, i)));
        let live = if products.is_empty() { graph.live() } else { products::live(graph, products) };
        let free: Vec<bool> = graph
            .nodes()
            .map(|n| is_movement(graph.op(n)) || matches!(graph.op(n), Op::Constant { .. } | Op::Iota { .. }))
            .collect();
        let n = graph.len();
        let mut f = Fusion {
            graph,
            orders,
            target,
            products,
            product_of: members.collect(),
            live,
            free,
            reads: vec![DimVec::new(); n],
            users: vec![Vec::new(); n],
            is_output: vec![false; n],
            group_of: vec![None; n],
            outside: vec![0; n],
            groups: Vec::new(),
            order: Order::new(0),
            ancestry: Ancestry::new(&[]),
            loops: Loops::default(),
            ledger: Ledger::default(),
        };
        // What a product reads is stored.
        for read in products.iter().flat_map(Product::reads) {
            f.free[read.index()] = false;
        }
        for n in graph.nodes() {
            if !f.live[n.index()] || f.product_of.contains_key(&n) {
                continue;
            }
            if let Op::Dot { .. } = graph.op(n) {
                for v in graph.operands(n).iter().filter(|v| crate::layout::is_relayed(graph, n, v.node)) {
                    f.free[v.node.index()] = false;
                }
            }
            // A GPU's contraction reads its operands where they lie; elsewhere what is no matrix is packed on the way.
            if let (Op::Dot { .. }, TargetKind::Nvidia(_)) = (graph.op(n), target.kind) {
                for (position, v) in graph.operands(n).into_iter().enumerate() {
                    if !f.reads_affinely(v.node)? {
                        f.free[graph.operands(n)[position].node.index()] = false;
                    }
                }
            }
            // What is sorted lies in memory, in any layout.
            if let Op::Sort { .. } = graph.op(n) {
                let operand = graph.operands(n)[0].node;
                if f.view(operand, layouts).is_none() {
                    f.free[operand.index()] = false;
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
                    (v.node, self.orders.layout(v.node, self.shape(v.node)))
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
            _ => self.orders.layout(base, self.shape(base)),
        };
        for &n in chain.iter().rev().skip(1) {
            layout = match self.graph.op(n) {
                Op::Alias | Op::Detach | Op::ToDevice { .. } => layout,
                Op::Permute(perm) => layout.permute(perm),
                Op::Broadcast { shape, dims } => layout.broadcast(shape, dims),
                Op::Slice(dims) => layout.slice(dims),
                Op::Flip(dims) => layout.flip(dims),
                Op::Reshape(shape) => layout.reshape(shape)?,
                _ => return None,
            };
        }
        // A view that repeats elements would hide that an output is larger than what is stored: callers may write to it.
        let repeats = layout.strides.iter().zip(layout.shape.dims()).any(|(s, d)| *s == 0 && !d.is_one());
        (!repeats || matches!(self.graph.op(base), Op::Input { .. })).then_some((base, layout))
    }

    /// Finds readers and users, and puts each computing node into a group of its own.
    fn connect(&mut self) -> Result<()> {
        let mut alone = Vec::new();
        for n in self.graph.nodes() {
            if !self.live[n.index()] || self.free[n.index()] || matches!(self.graph.op(n), Op::Input { .. }) {
                continue;
            }
            // A product stands where its result does.
            let product = self.product(n);
            if product.is_some_and(|p| p.output() != n) {
                continue;
            }
            for m in product.map_or(&[n][..], |p| &p.members) {
                self.group_of[m.index()] = Some(alone.len());
            }
            alone.push(n);
            let mut reads: DimVec<NodeId> = DimVec::new();
            let read: DimVec<NodeId> = match product {
                Some(p) => p.reads().collect(),
                None => self.graph.operands(n).iter().map(|v| self.base(v.node)).collect(),
            };
            for base in read {
                if !self.free[base.index()] && !reads.contains(&base) {
                    reads.push(base);
                    self.users[base.index()].push(n);
                    self.outside[base.index()] += 1;
                }
            }
            self.reads[n.index()] = reads;
        }
        self.order = Order::new(alone.len());
        self.ancestry = Ancestry::new(&self.reads);
        for n in alone {
            let reads: FxHashSet<NodeId> = self.reads[n.index()].iter().copied().collect();
            let bytes = reads.iter().chain([&n]).map(|r| self.size(*r)).sum();
            let reasons =
                |r: String| lazuli_ir::Error::internal(format!("{} does not plan alone: {r}", self.graph.op(n).name()));
            let (mut summary, mut plan) = (Some(Summary::of_routine()), None);
            if !self.is_routine(n) {
                let (planned, frame) = self.plan_members(&[n], &[n])?.map_err(reasons)?;
                summary = Some(Summary::of(self.graph, self.target, &planned, &frame, &[n], &mut self.loops));
                plan = Some(planned);
            }
            let members = self.product(n).map_or_else(|| vec![n], |p| p.members.clone());
            self.groups.push(Part { members, reads, bytes, summary, plan });
        }
        Ok(())
    }

    /// The product that a node belongs to.
    fn product(&self, n: NodeId) -> Option<&'a Product> {
        self.product_of.get(&n).map(|p| &self.products[*p])
    }

    /// Whether a node is no kernel, but a routine of the back end.
    fn is_routine(&self, n: NodeId) -> bool {
        matches!(self.graph.op(n), Op::Sort { .. }) || self.product_of.contains_key(&n)
    }

    fn group_index(&self, n: NodeId) -> usize {
        self.group_of[n.index()].unwrap_or(usize::MAX)
    }

    fn size(&self, n: NodeId) -> u64 {
        self.graph.node(n).types[0].bytes() as u64
    }

    fn summary(&self, g: usize) -> Result<&Summary> {
        self.groups[g].summary.as_ref().ok_or_else(|| lazuli_ir::Error::internal("a group without a summary"))
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
    fn plan_members(
        &self,
        members: &[NodeId],
        outputs: &[NodeId],
    ) -> Result<std::result::Result<(Plan, Frame), String>> {
        let inside: FxHashSet<NodeId> = members.iter().copied().collect();
        let local = self.local(members);
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
        match members.iter().copied().find(|n| self.is_bound_to_loops(*n)) {
            Some(leader) if dots.is_empty() => return vec![(leader, None)],
            Some(_) if dots.len() == 1 => anchors.push((dots[0], None)),
            _ => {}
        }
        for n in members.iter().copied().filter(|n| matches!(self.graph.op(*n), Op::Reduce { .. })) {
            let same = |a: &NodeId| self.shape(*a).same(self.shape(n)) && !is_dot(a);
            if !anchors.iter().any(|(a, _)| same(a)) {
                anchors.push((n, None));
            }
        }
        // Whole rows of a contraction, where something is made from them that it does not suffice to have in pieces.
        let fed = |d: &&NodeId| self.reads[d.index()].iter().any(|r| members.binary_search(r).is_ok());
        anchors.extend(dots.iter().filter(fed).map(|d| (*d, self.shape(*d).rank().checked_sub(1))));
        if anchors.is_empty() {
            let largest = outputs.iter().copied().max_by_key(|n| (self.shape(*n).elements(), std::cmp::Reverse(*n)));
            anchors.extend(largest.map(|n| (n, None)));
        }
        anchors.truncate(3);
        anchors
    }

    fn plan_framed(
        &self,
        inside: &FxHashSet<NodeId>,
        outputs: &[NodeId],
        frame: &Frame,
    ) -> Result<std::result::Result<Plan, String>> {
        let group = Group {
            graph: self.graph,
            orders: self.orders,
            member: &|n| inside.contains(&n),
            free: &|n| self.free[n.index()],
            outputs,
            frame: frame.clone(),
        };
        let plan = match Plan::new(&group) {
            Ok(plan) => plan,
            // A contraction that is wanted elsewhere than at the tile, or what runs along a dim and is wanted elsewhere than at
            // its loop; anything else plans.
            Err(e) if inside.iter().any(|n| self.is_bound_to_loops(*n)) => return Ok(Err(e.message().to_owned())),
            Err(e) => return Err(e),
        };
        let operand = |dot: &DotPlan| {
            self.graph
                .operands(dot.node)
                .iter()
                .any(|v| inside.contains(&v.node) && crate::layout::is_relayed(self.graph, dot.node, v.node))
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

    fn is_bound_to_loops(&self, n: NodeId) -> bool {
        matches!(self.graph.op(n), Op::Dot { .. } | Op::Cumulative { .. } | Op::Scatter { .. })
    }

    /// What passes between two groups, and what their union saves.
    fn unite(&self, a: usize, b: usize) -> Union {
        let by_size = self.groups[a].members.len() <= self.groups[b].members.len();
        let (small, large) = if by_size { (a, b) } else { (b, a) };
        let (s, l) = (&self.groups[small], &self.groups[large]);
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

    /// Whether a value that passes between two groups is stored by their union.
    fn is_read_after(&self, &(n, readers): &(NodeId, u32)) -> bool {
        self.is_output[n.index()] || self.outside[n.index()] > readers
    }

    /// How many members of a group read a value.
    fn readers(&self, n: NodeId, g: usize) -> u32 {
        let (users, members) = (&self.users[n.index()], &self.groups[g].members);
        let count = if users.len() <= members.len() {
            users.iter().filter(|u| self.group_of[u.index()] == Some(g)).count()
        } else {
            members.iter().filter(|m| self.reads[m.index()].contains(&n)).count()
        };
        count as u32
    }

    /// The groups between `a` and a later `b` that lead to `b`; `None` where some path leads from `a` to `b` through one.
    fn between(&self, a: usize, b: usize) -> Option<Vec<usize>> {
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        let mut found = vec![b];
        let mut next = 0;
        while let Some(&g) = found.get(next) {
            next += 1;
            let sources = self.groups[g].reads.iter().filter_map(|r| self.group_of[r.index()]);
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

    /// Whether to merge the groups of two nodes: a value and its reader, or readers of the same.
    fn judge(&mut self, first: NodeId, second: NodeId) -> Result<Judgement> {
        if self.is_routine(first) || self.is_routine(second) {
            let product = self.product(first).or(self.product(second)).is_some();
            let what = if product { "the products of matrices are" } else { "a sort is" };
            return Ok(Err(format!("{what} a routine of its own")));
        }
        let (mut a, mut b) = (self.group_index(first), self.group_index(second));
        if self.order.before(b, a) {
            (a, b) = (b, a);
        }
        let around = self.reads_around(first, second);
        let Some(between) = (if around { None } else { self.between(a, b) }) else {
            return Ok(Err("another kernel must run between them".into()));
        };
        let union = self.unite(a, b);
        let (statements, contractions, separate) = {
            let (a, b) = (self.summary(a)?, self.summary(b)?);
            (a.statements + b.statements, a.dots + b.dots, a.work.saturating_add(b.work))
        };
        if let Err(reason) = short_enough(statements).and_then(|()| few_phases(contractions)) {
            return Ok(Err(reason));
        }
        if let Some(added) = self.extension(&union)? {
            let flops_repeated = added.work.saturating_sub(self.summary(union.small)?.work);
            let width = self.summary(union.large)?.width.max(added.width);
            if self.worth(&union, flops_repeated) && self.starves(width, &union)?.is_none() {
                return Ok(Ok(Verdict { union, between, flops_repeated, plan: None, summary: added }));
            }
        }
        let mut members = [self.groups[a].members.as_slice(), &self.groups[b].members].concat();
        members.sort_unstable();
        let outputs = self.outputs_of(&members, &union);
        let (plan, frame) = match self.plan_members(&members, &outputs)? {
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
        let before = [a, b].into_iter().map(|g| Ok(self.summary(g)?.read_again)).sum::<Result<u64>>()?;
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
        let mut members = self.groups[union.small].members.clone();
        members.sort_unstable();
        let stored = |n: &NodeId| self.is_output[n.index()] || self.outside[n.index()] > 0;
        let outputs: Vec<NodeId> = members.iter().copied().filter(stored).collect();
        let mut reads: Vec<NodeId> = self.groups[union.small].reads.iter().copied().collect();
        reads.sort_unstable();
        let local = self.local(&members);
        let small = Small {
            graph: self.graph,
            orders: self.orders,
            target: self.target,
            members: &members,
            local: &local,
            outputs: &outputs,
            reads: &reads,
            free: &|n| self.free[n.index()],
        };
        let Some(large) = &self.groups[union.large].summary else { return Ok(None) };
        join(large, &small, &mut self.loops)
    }

    /// The members whose values are wanted outside of a union.
    fn outputs_of(&self, members: &[NodeId], union: &Union) -> Vec<NodeId> {
        let readers = |n: &NodeId| union.shared.binary_search_by_key(n, |v| v.0).map_or(0, |at| union.shared[at].1);
        members.iter().copied().filter(|n| self.is_read_after(&(*n, readers(n)))).collect()
    }

    /// Whether a row kernel would leave cores idle that its parts keep busy.
    fn starves(&self, width: u64, union: &Union) -> Result<Option<String>> {
        let cores = u64::from(self.target.cores);
        let starved = match self.target.kind {
            TargetKind::Cpu => {
                let parts = [self.summary(union.small)?, self.summary(union.large)?];
                let busy = |p: &&Summary| p.work > 8 * SMALL_WORK && p.width >= cores;
                parts.into_iter().filter(busy).any(|p| width < cores.min(p.width))
            }
            TargetKind::Nvidia(_) => width < cores && self.takes_longer(width, union)?,
        };
        Ok(starved.then(|| format!("its {width} rows or panels would not keep {cores} threads busy")))
    }

    /// Whether two groups take longer as one kernel of so many parts than one after the other, the wait between them counted.
    fn takes_longer(&self, width: u64, union: &Union) -> Result<bool> {
        let ns = |bytes: u64, work: u64, width: u64| {
            let cores = width.min(self.target.cores.into());
            let one = |n: u64, per_us: u64| n.saturating_mul(1000) / per_us.saturating_mul(cores).max(1);
            one(bytes, self.target.bytes_per_us).max(one(work, self.target.flops_per_us))
        };
        let (mut bytes, mut work, mut apart) = (0u64, 0u64, GPU_LAUNCH_NS);
        for g in [union.small, union.large] {
            let (p, moved) = (self.summary(g)?, self.groups[g].bytes);
            apart = apart.saturating_add(ns(moved, p.work, p.width));
            (bytes, work) = (bytes.saturating_add(moved), work.saturating_add(p.work));
        }
        Ok(ns(bytes.saturating_sub(union.bytes_saved), work, width) > apart)
    }

    /// The smaller group becomes part of the larger.
    fn merge(&mut self, verdict: Verdict) -> Result<()> {
        let Verdict { union, between, plan, summary, .. } = verdict;
        let Union { small, large, bytes_saved, shared } = union;
        let (first, second) = if self.order.before(small, large) { (small, large) } else { (large, small) };
        self.order.join(first, second, large, between);
        let unread: Vec<NodeId> = shared.iter().filter(|v| !self.is_read_after(v)).map(|v| v.0).collect();
        for (n, readers) in &shared {
            self.outside[n.index()] -= readers;
        }
        let empty = Part { members: Vec::new(), reads: FxHashSet::default(), bytes: 0, summary: None, plan: None };
        let moved = std::mem::replace(&mut self.groups[small], empty);
        for n in &moved.members {
            self.group_of[n.index()] = Some(large);
        }
        let kept = &mut self.groups[large];
        kept.members.extend(moved.members);
        kept.reads.extend(moved.reads);
        for (n, _) in &shared {
            kept.reads.remove(n);
        }
        kept.bytes = (kept.bytes + moved.bytes).saturating_sub(bytes_saved);
        match (&plan, &mut kept.summary) {
            (None, Some(kept)) => kept.extend(summary, &unread),
            (_, kept) => *kept = Some(summary),
        }
        kept.plan = plan;
        Ok(())
    }

    /// The values that are computed element by element, and from nothing that has as many elements: their readers had better
    /// make them than their producers store them.
    fn expanding(&self) -> Vec<NodeId> {
        let elements = |n: NodeId| self.shape(n).elements();
        let mut expands = vec![false; self.graph.len()];
        for n in self.graph.nodes().filter(|n| self.group_of[n.index()].is_some()) {
            let loops = matches!(self.graph.op(n), Op::Reduce { .. } | Op::WindowSum { .. });
            let by_element = !loops && !self.is_routine(n) && !self.is_bound_to_loops(n);
            let smaller = |r: &NodeId| expands[r.index()] || elements(*r) < elements(n);
            expands[n.index()] = by_element && self.reads[n.index()].iter().all(smaller);
        }
        self.graph.nodes().filter(|n| expands[n.index()]).collect()
    }

    fn merge_along_edges(&mut self) -> Result<()> {
        let producers: Vec<NodeId> = self.graph.nodes().filter(|n| self.group_of[n.index()].is_some()).collect();
        self.merge_edges_of(&self.expanding())?;
        self.merge_edges_of(&producers)
    }

    fn merge_edges_of(&mut self, producers: &[NodeId]) -> Result<()> {
        let mut tried: FxHashMap<(usize, usize), (usize, usize)> = FxHashMap::default();
        loop {
            let mut changed = false;
            for &p in producers {
                for c in self.users[p.index()].clone() {
                    let (a, b) = (self.group_index(p), self.group_index(c));
                    let sizes = (self.groups[a].members.len(), self.groups[b].members.len());
                    if a == b || tried.get(&(a, b)) == Some(&sizes) {
                        continue;
                    }
                    let verdict = self.judge(p, c)?;
                    self.ledger.record(self.graph, (p, c), decision(&verdict));
                    match verdict {
                        Ok(v) => {
                            self.merge(v)?;
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
                let routine = pair.iter().any(|n| self.is_routine(*n));
                if a == b || routine || self.summary(a)?.dots > 0 || self.summary(b)?.dots > 0 {
                    continue;
                }
                let least = self.groups[a].bytes.min(self.groups[b].bytes);
                if self.size(p) * 3 < least {
                    continue;
                }
                let verdict = self.judge(pair[0], pair[1])?;
                self.ledger.record(self.graph, (pair[0], pair[1]), decision(&verdict));
                if let Ok(v) = verdict {
                    self.merge(v)?;
                }
            }
        }
        Ok(())
    }

    /// Merges reductions that read values which one kernel stores, in the same loops: the sums across rows of several
    /// gradients.
    fn merge_reductions(&mut self) -> Result<()> {
        let mut latest: FxHashMap<usize, NodeId> = FxHashMap::default();
        for p in self.graph.nodes().filter(|n| self.group_of[n.index()].is_some()).collect::<Vec<_>>() {
            for u in self.users[p.index()].clone() {
                let (producer, b) = (self.group_index(p), self.group_index(u));
                if b == producer || !self.summary(b)?.reduces_as(self.summary(b)?) {
                    continue;
                }
                let Some(other) = latest.insert(producer, u) else { continue };
                let a = self.group_index(other);
                let values = [a, b].map(|g| self.groups[g].reads.len() + 1).iter().sum::<usize>();
                if a == b || values > MOST_VALUES || !self.summary(a)?.reduces_as(self.summary(b)?) {
                    continue;
                }
                let verdict = self.judge(other, u)?;
                self.ledger.record(self.graph, (other, u), decision(&verdict));
                if let Ok(v) = verdict {
                    self.merge(v)?;
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
        let summary = part.summary.ok_or_else(|| lazuli_ir::Error::internal("a group without a summary"))?;
        let planned = self.plan_members(members, outputs)?;
        if let Ok((plan, _)) = planned
            && work(self.graph, &plan) <= summary.work
        {
            return Ok(plan);
        }
        let frame = summary.frame(outputs).ok_or_else(|| lazuli_ir::Error::internal("a group without a frame"))?;
        let inside: FxHashSet<NodeId> = members.iter().copied().collect();
        self.plan_framed(&inside, outputs, &frame)?.map_err(lazuli_ir::Error::internal)
    }

    /// Orders the groups so that producers run first, the one with the earliest node first among those that can run.
    fn finish(mut self, outputs: Vec<(NodeId, Layout)>, layouts: &[Layout]) -> Result<Grouping> {
        for r in &mut self.ledger.rows {
            if !r.fused && self.group_of[r.producer.index()] == self.group_of[r.consumer.index()] {
                r.fused = true;
                r.reason = "both joined the same kernel along other edges".into();
            }
        }
        let mut parts = std::mem::take(&mut self.groups);
        parts.iter_mut().for_each(|p| p.members.sort_unstable());
        let mut waiting: Vec<usize> = vec![0; parts.len()];
        let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); parts.len()];
        for (g, part) in parts.iter().enumerate() {
            for n in &part.members {
                after[g].extend(self.users[n.index()].iter().map(|u| self.group_index(*u)).filter(|h| *h != g));
            }
        }
        for &h in after.iter().flatten() {
            waiting[h] += 1;
        }
        let start: Vec<Option<NodeId>> = parts.iter().map(|p| p.members.first().copied()).collect();
        let mut ready: BTreeSet<(NodeId, usize)> =
            (0..parts.len()).filter(|&g| waiting[g] == 0).filter_map(|g| Some((start[g]?, g))).collect();
        let mut parts: Vec<Option<Part>> = parts.into_iter().map(Some).collect();
        let mut groups = Vec::new();
        while let Some((_, g)) = ready.pop_first() {
            let Some(mut part) = parts[g].take() else { continue };
            let members = std::mem::take(&mut part.members);
            let stored = |n: &NodeId| self.is_output[n.index()] || self.outside[n.index()] > 0;
            let outputs: Vec<NodeId> = members.iter().copied().filter(stored).collect();
            let routine = match members.iter().copied().find(|n| self.is_routine(*n)) {
                Some(n) => match self.product(n) {
                    Some(product) => Some(Routine::Product(product.clone())),
                    None => self.view(self.graph.operands(n)[0].node, layouts).map(|(n, l)| Routine::Sort(n, l)),
                },
                None => None,
            };
            let plan = if routine.is_some() { None } else { Some(self.complete(&members, &outputs, part)?) };
            groups.push(PlannedGroup { members, outputs, plan, routine });
            for &h in &after[g] {
                waiting[h] -= 1;
                if waiting[h] == 0 {
                    ready.extend(start[h].map(|n| (n, h)));
                }
            }
        }
        if parts.iter().flatten().any(|p| !p.members.is_empty()) {
            return Err(lazuli_ir::Error::internal("groups wait for each other"));
        }
        Ok(Grouping { groups, ledger: self.ledger, outputs })
    }
}
