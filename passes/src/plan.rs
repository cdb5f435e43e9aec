//! The plan of a kernel: what a group of graph nodes becomes as loops, before any statement is written.
//!
//! A group is a set of member nodes and the outputs it stores. Planning is *pull-based*: each output is wanted at the index
//! tuple of its loops, and every operation passes the wish on to its operands through its index map
//! ([`index_map`](crate::index_map)). A node wanted at an index tuple is an [`Instance`]; the same node wanted at two
//! different tuples is two instances (recomputation, which the cost shows), wanted twice at one tuple it is one. Movement
//! operations, constants and iota never become work of their own: wishes pass through them.
//!
//! Loops form a tree of [`Scope`]s. The *tile dims* come first: a chain of one-variable scopes below the root. A reduction
//! wanted at a tuple opens a scope for the dims it sums over, below the scope where its tuple lives. Scopes are canonical, one
//! for each (parent, extents), so that several reductions over one row, and outputs along it, share their variables:
//! `exp(x[i,k] - m[i])` wanted by a sum and by an output is one instance. Since operations are pure, an instance
//! belongs to the deepest scope whose variables its tuple mentions; loop-invariant code needs no further search. A reduction
//! over whole rows and all of them (the mean of losses) is a reduction in each row and one over the tile.
//!
//! One scope may run several times in sequence: a softmax reads its row to find the maximum, again to sum, again to write.
//! Each [`Sink`] (a store, or the step of a reduction) has a *level* in every scope on its path: one more than those of the
//! reductions it depends on there. Sinks of one level share one loop.
//!
//! A contraction is wanted at tile dims, and its [`Reach`] says at which: at all of them, at all but the one of its columns, or at all but
//! the last one, over which it runs.

mod dots;
mod planner;
mod wants;

use crate::index_map::Condition;
use crate::layout::Orders;
use lazuli_ir::index::Range;
use lazuli_ir::{DimVec, Error, Graph, Index, Literal, NodeId, Op, ReduceOp, Result, ScatterOp, VarId};
use planner::Planner;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Position in [`Plan::scopes`]; 0 is the root.
pub type ScopeId = usize;
/// Position in [`Plan::instances`].
pub type InstanceId = usize;
/// Position in [`Plan::sinks`].
pub type SinkId = usize;

/// Loops that run together.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The enclosing scope; none for the root.
    pub parent: Option<ScopeId>,
    /// Its variables, outermost first.
    pub vars: SmallVec<[VarId; 2]>,
    /// The scopes from the root to this one, both included.
    pub path: Vec<ScopeId>,
    /// The number of times its body runs: the product of all extents on the path.
    pub iterations: u64,
}

/// What an instance is made by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A load of a value that lies in memory.
    Load(NodeId),
    /// A constant.
    Constant(Literal),
    /// The instance's own (single) index, as a number.
    Iota,
    /// The operation of a member, on the operands.
    Compute(NodeId),
    /// The result of a member that reduces.
    Reduced(NodeId),
    /// What one row of the tile contributes to the result of a member that reduces over whole rows.
    Row(NodeId),
    /// The result of a contraction of the group.
    Dot(NodeId),
    /// The result so far of a member that accumulates along the scope's only variable.
    Scanned(NodeId),
    /// Whether conditions hold (and operand 0, where there is one).
    Mask(Vec<Condition>),
    /// The value of an instance where operand 0 holds, else zero.
    Guarded(InstanceId),
}

/// A value wanted at an index tuple.
#[derive(Clone, Debug)]
pub struct Instance {
    /// What makes it.
    pub source: Source,
    /// The index tuple (for a mask, none: its conditions say it).
    pub index: Vec<Index>,
    /// The mask under which the tuple is in range.
    pub mask: Option<InstanceId>,
    /// Where it is computed.
    pub scope: ScopeId,
    /// What it is computed from.
    pub operands: SmallVec<[InstanceId; 3]>,
    /// The instances whose values its index tuple (or conditions) contain.
    pub indexed_by: SmallVec<[InstanceId; 1]>,
}

/// What ends a chain of computation.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// The group's output of this number is written at this index.
    Store {
        /// Which output.
        output: usize,
        /// Its element.
        index: Vec<Index>,
    },
    /// The group's output of this number is combined with the value at this index, after all of it was stored.
    Update {
        /// Which output.
        output: usize,
        /// Its element.
        index: Vec<Index>,
        /// The combination.
        op: ScatterOp,
    },
    /// One element goes into a reduction.
    Step {
        /// The combination.
        op: ReduceOp,
        /// The instance that is the result.
        result: InstanceId,
    },
    /// One element goes into the tile that contractions of the group read their rows from ([`DotPlan::computed`]).
    Row,
}

/// A store, or the step of a reduction.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Which.
    pub kind: SinkKind,
    /// The value stored or combined.
    pub value: InstanceId,
    /// Where it happens.
    pub scope: ScopeId,
    /// For each scope on the path to `scope`, the pass in which this sink runs there. One shorter than the path.
    pub levels: Vec<u32>,
    /// All sinks that run before it: reductions it depends on, directly or not, what it updates, and the rows of contractions;
    /// not what is behind those, which is done when they are.
    pub needs: Vec<SinkId>,
    /// The instances whose values its index contains.
    pub indexed_by: SmallVec<[InstanceId; 1]>,
    /// The instances of contractions' results that it is computed from.
    pub dots: SmallVec<[InstanceId; 1]>,
}

impl Sink {
    /// The instances that it needs.
    pub fn roots(&self) -> impl Iterator<Item = InstanceId> + '_ {
        std::iter::once(self.value).chain(self.indexed_by.iter().copied())
    }
}

/// How a contraction runs in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All dims of its result are tile dims: it runs in panels of rows and columns.
    Panels,
    /// All but one are, and each row is whole: what else the group does may reduce along it and contract it again.
    Rows {
        /// The dim of its result that is no tile dim.
        column: usize,
    },
    /// It contracts the last tile dim, and all but the last two dims of its result are the others: what each panel of rows gives is
    /// added, and complete after the last panel.
    Across,
}

/// A contraction of a group.
#[derive(Clone, Debug)]
pub struct DotPlan {
    /// The node.
    pub node: NodeId,
    /// The variable of each dim of its result.
    pub result: Vec<VarId>,
    /// How it runs.
    pub reach: Reach,
    /// Whether its rows are dims of the right operand.
    pub swapped: bool,
    /// Whether the group computes an operand into a tile, row by row ([`SinkKind::Row`]).
    pub computed: [bool; 2],
    /// The variables of its rows and of its columns, outermost first.
    pub sides: [Vec<VarId>; 2],
    /// The operand that has the rows, and the one that has the columns.
    pub operands: [OperandPlan; 2],
    /// The extents of the contraction, in the order of [`OperandPlan::contract`].
    pub contract: Vec<u64>,
}

impl DotPlan {
    /// The operands that it reads from memory, with what is computed on the way.
    pub fn packed(&self) -> impl Iterator<Item = &OperandPlan> {
        self.operands.iter().zip(self.computed).filter(|o| !o.1).map(|o| o.0)
    }

    /// The operands that the group computes into tiles, and which they are.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &OperandPlan)> {
        self.operands.iter().enumerate().filter(|(s, _)| self.computed[*s])
    }

    /// Whether it contracts the rows of panels.
    pub fn is_across(&self) -> bool {
        self.reach == Reach::Across
    }
}

/// An operand of a contraction: the value wanted at each of its own elements, in a scope that belongs to it alone. What is
/// computed there runs before the contraction, panel by panel; an operand that merely lies in memory needs none of it.
#[derive(Clone, Debug)]
pub struct OperandPlan {
    /// The element.
    pub value: InstanceId,
    /// The scope of its variables; that of the batch where it has none.
    pub scope: ScopeId,
    /// The variables of its free dims, in the order of [`DotPlan::sides`].
    pub free: Vec<VarId>,
    /// The variables of the contraction.
    pub contract: Vec<VarId>,
}

/// A loop variable.
#[derive(Clone, Debug)]
pub struct Var {
    /// Its name in text.
    pub name: String,
    /// Its extent.
    pub extent: u64,
    /// The scope that owns it.
    pub scope: ScopeId,
    /// The instance whose value it is, where it counts no loop.
    pub bound: Option<InstanceId>,
}

/// What a group of nodes becomes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The loop variables.
    pub vars: Vec<Var>,
    /// The loops.
    pub scopes: Vec<Scope>,
    /// The values.
    pub instances: Vec<Instance>,
    /// The sinks: steps in order of their reductions, then stores.
    pub sinks: Vec<Sink>,
    /// The scopes of the tile dims, outermost first.
    pub tile: Vec<ScopeId>,
    /// The contractions, each after those it reads. Where rows are not whole, there is one at most.
    pub dots: Vec<DotPlan>,
}

/// A group of nodes: members, and which of them (or views of them) it stores.
pub struct Group<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// How values lie in memory: loops run along it.
    pub orders: &'a Orders,
    /// Whether a node is a member.
    pub member: &'a dyn Fn(NodeId) -> bool,
    /// Whether a node is free: a movement, a constant or an iota that is computed wherever it is wanted.
    pub free: &'a dyn Fn(NodeId) -> bool,
    /// The values stored.
    pub outputs: &'a [NodeId],
    /// The tile dims and, for each output's dims, which tile dim it is.
    pub frame: Frame,
}

/// The tile dims of a group, and how the outputs lie along them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The extents of the tile dims.
    pub tile: DimVec<usize>,
    /// For each output and each of its dims: the tile dim, or `None` for a dim inside the tile.
    pub outputs: Vec<DimVec<Option<usize>>>,
    /// The tile dims form one scope, because the group also reduces over all of them.
    pub joined: bool,
    /// Dims inside the tile are walked from their last element to the first.
    pub backward: bool,
}

impl Plan {
    /// The range of each variable, for index arithmetic.
    pub fn range(&self, v: VarId) -> Range {
        (0, self.vars.get(v.0 as usize).map_or(0, |v| v.extent as i64 - 1))
    }

    /// Plans a group.
    pub fn new(group: &Group<'_>) -> Result<Plan> {
        let mut plan = Planner::plan(group)?;
        if !plan.dots.is_empty() && plan.instances.iter().any(|i| matches!(i.source, Source::Scanned(_))) {
            return Err(Error::internal("what accumulates along a dim cannot run in panels"));
        }
        plan.dots.sort_unstable_by_key(|d| d.node);
        plan.order_sinks();
        let across = |i: &InstanceId| {
            plan.dots.iter().any(|d| d.is_across() && plan.instances[*i].source == Source::Dot(d.node))
        };
        let after = |s: &Sink| s.dots.iter().any(across);
        let early = |s: &Sink| {
            plan.phase(s).is_some() && plan.row_scope().is_some_and(|r| plan.scopes[s.scope].path.contains(&r))
        };
        if plan.sinks.iter().any(|s| early(s) && (after(s) || s.needs.iter().any(|n| after(&plan.sinks[*n])))) {
            return Err(Error::internal("what is contracted over all rows is wanted in each of them"));
        }
        Ok(plan)
    }

    /// The contraction that runs in panels of rows and columns.
    pub fn panel_dot(&self) -> Option<&DotPlan> {
        self.dots.iter().find(|d| d.reach == Reach::Panels)
    }

    /// The scope of the rows, where contractions run in panels of whole rows.
    pub fn row_scope(&self) -> Option<ScopeId> {
        self.dots.iter().any(|d| d.reach != Reach::Panels).then(|| self.tile.last().copied()).flatten()
    }

    /// The phase of a panel of rows in which a sink runs.
    pub fn phase(&self, sink: &Sink) -> Option<u32> {
        sink.levels.get(self.scopes[self.row_scope()?].path.len().checked_sub(2)?).copied()
    }

    /// The scope in whose body the result of a sink is complete: rows of contractions are after the panel, whatever runs in it.
    pub fn completes(&self, sink: &Sink) -> Option<ScopeId> {
        match sink.kind {
            SinkKind::Row => self.scopes[self.row_scope()?].parent,
            SinkKind::Step { .. } | SinkKind::Store { .. } | SinkKind::Update { .. } => self.scopes[sink.scope].parent,
        }
    }

    /// The scope of one of these scopes that lies deepest.
    fn deepest(&self, a: ScopeId, b: ScopeId) -> ScopeId {
        if self.scopes[a].path.len() >= self.scopes[b].path.len() { a } else { b }
    }

    fn scope_of(&self, index: &[Index]) -> ScopeId {
        let mut scope = 0;
        for x in index {
            x.for_each_var(&mut |v| scope = self.deepest(scope, self.vars[v.0 as usize].scope));
        }
        scope
    }

    /// Puts steps first, in order of their nodes, and sets levels and needs.
    fn order_sinks(&mut self) {
        let node = |plan: &Plan, s: &Sink| match s.kind {
            SinkKind::Step { result, .. } => match plan.instances[result].source {
                Source::Row(n) => (0, n.0, 0),
                Source::Reduced(n) => (0, n.0, result + 1),
                _ => (0, 0, result),
            },
            SinkKind::Row => (0, plan.row_dots(s).map(|d| d.node.0).min().unwrap_or(0), 0),
            SinkKind::Store { output, .. } => (1, output as u32, 0),
            SinkKind::Update { output, .. } => (2, output as u32, 0),
        };
        let mut sinks = std::mem::take(&mut self.sinks);
        sinks.sort_by_key(|s| node(self, s));
        let (mut sinks, steps) = self.after_what_they_need(sinks);
        let stores: Vec<(usize, SinkId)> = sinks
            .iter()
            .enumerate()
            .filter_map(|(i, s)| match s.kind {
                SinkKind::Store { output, .. } => Some((output, i)),
                SinkKind::Step { .. } | SinkKind::Update { .. } | SinkKind::Row => None,
            })
            .collect();
        for s in 0..sinks.len() {
            let mut needs: Vec<SinkId> = Vec::new();
            if let SinkKind::Update { output, .. } = sinks[s].kind {
                for (_, store) in stores.iter().filter(|(o, _)| *o == output) {
                    needs.push(*store);
                    needs.extend_from_slice(&sinks[*store].needs);
                }
            }
            for &r in &steps[s] {
                needs.push(r);
                if sinks[r].kind != SinkKind::Row {
                    needs.extend_from_slice(&sinks[r].needs);
                }
            }
            needs.sort_unstable();
            needs.dedup();
            let path = &self.scopes[sinks[s].scope].path;
            let level = |j: usize| {
                let after = |r: &SinkId| {
                    let sink = &sinks[*r];
                    match self.completes(sink) {
                        Some(scope) if scope == path[j] => sink.levels[j] + 1,
                        // What is behind the rows of a contraction is behind it in the loops around as well.
                        Some(scope) if self.row_scope().is_some() && self.scopes[scope].path.contains(&path[j]) => {
                            sink.levels[j]
                        }
                        _ => 0,
                    }
                };
                needs.iter().map(after).max().unwrap_or(0)
            };
            let levels = (0..path.len() - 1).map(level).collect();
            sinks[s].levels = levels;
            sinks[s].needs = needs;
        }
        self.sinks = sinks;
        self.delay_rows();
    }

    /// Writes rows in the last pass over them that uses the same values: nothing of the panel waits for them, and what they are made
    /// from is not needed after, so that they may take its place.
    fn delay_rows(&mut self) {
        for r in 0..self.sinks.len() {
            let row = &self.sinks[r];
            if row.kind != SinkKind::Row {
                continue;
            }
            let beside = |s: &&Sink| {
                s.scope == row.scope
                    && s.levels > row.levels
                    && s.levels.split_last().map(|l| l.1) == row.levels.split_last().map(|l| l.1)
            };
            let uses = |s: &&Sink| self.cone(&[s.value], &|_| false).contains(&row.value);
            let last = self.sinks.iter().filter(beside).filter(uses).map(|s| &s.levels).max();
            if let Some(levels) = last.cloned() {
                self.sinks[r].levels = levels;
            }
        }
    }

    /// The contractions that read the rows which a sink writes.
    pub fn row_dots<'p>(&'p self, sink: &Sink) -> impl Iterator<Item = &'p DotPlan> + use<'p> {
        let (row, value) = (sink.kind == SinkKind::Row, sink.value);
        self.dots.iter().filter(move |d| row && d.rows().any(|(_, o)| o.value == value))
    }

    /// The sinks in their order, but each after the steps that it needs, and those steps: a reduction that is wanted at an index
    /// from data waits for the reduction that makes this index, which may be of a later node.
    fn after_what_they_need(&self, mut sinks: Vec<Sink>) -> (Vec<Sink>, Vec<Vec<SinkId>>) {
        let mut step_of: FxHashMap<InstanceId, SinkId> = FxHashMap::default();
        let mut rows_of: FxHashMap<NodeId, SinkId> = FxHashMap::default();
        for (i, s) in sinks.iter().enumerate() {
            match s.kind {
                SinkKind::Step { result, .. } => drop(step_of.insert(result, i)),
                SinkKind::Row => rows_of.extend(self.row_dots(s).map(|d| (d.node, i))),
                SinkKind::Store { .. } | SinkKind::Update { .. } => {}
            }
        }
        let before = |i: &InstanceId| match self.instances[*i].source {
            Source::Dot(n) => rows_of.get(&n).copied(),
            _ => step_of.get(i).copied(),
        };
        let mut steps: Vec<Vec<SinkId>> = Vec::with_capacity(sinks.len());
        for s in &mut sinks {
            let roots: Vec<InstanceId> = s.roots().collect();
            let cone = self.cone(&roots, &|_| false);
            let is_dot = |i: &InstanceId| matches!(self.instances[*i].source, Source::Dot(_));
            s.dots = cone.iter().copied().filter(is_dot).collect();
            steps.push(cone.iter().filter_map(before).collect());
        }
        let mut place: Vec<Option<SinkId>> = vec![None; sinks.len()];
        let mut order = Vec::with_capacity(sinks.len());
        let mut stack: Vec<(SinkId, bool)> = (0..sinks.len()).rev().map(|s| (s, false)).collect();
        while let Some((s, ready)) = stack.pop() {
            if place[s].is_some() {
                continue;
            }
            if ready {
                place[s] = Some(order.len());
                order.push(s);
                continue;
            }
            stack.push((s, true));
            stack.extend(steps[s].iter().rev().filter(|r| place[**r].is_none()).map(|r| (*r, false)));
        }
        let mut sinks: Vec<Option<Sink>> = sinks.into_iter().map(Some).collect();
        let moved = |of: Vec<SinkId>| of.into_iter().filter_map(|r| place[r]).collect();
        let steps = order.iter().map(|&s| moved(std::mem::take(&mut steps[s]))).collect();
        (order.iter().filter_map(|&s| sinks[s].take()).collect(), steps)
    }

    /// The instances that these are computed from, themselves included, in an order that puts operands first; not past
    /// those at which `stop` holds (they are left out), nor past results of reductions (they are in).
    pub fn cone(&self, roots: &[InstanceId], stop: &dyn Fn(InstanceId) -> bool) -> Vec<InstanceId> {
        let mut seen: rustc_hash::FxHashSet<InstanceId> = Default::default();
        let mut out = Vec::new();
        let mut stack: Vec<(InstanceId, bool)> = roots.iter().rev().map(|&r| (r, false)).collect();
        while let Some((i, done)) = stack.pop() {
            if done {
                out.push(i);
                continue;
            }
            if stop(i) || !seen.insert(i) {
                continue;
            }
            stack.push((i, true));
            let instance = &self.instances[i];
            let before = instance.indexed_by.iter().chain(&instance.operands).chain(&instance.mask);
            stack.extend(before.copied().collect::<SmallVec<[InstanceId; 4]>>().into_iter().rev().map(|o| (o, false)));
        }
        out
    }
}

/// Whether an operation only says where elements lie, so that it is computed wherever it is wanted.
pub fn is_movement(op: &Op) -> bool {
    matches!(
        op,
        Op::Alias
            | Op::Detach
            | Op::ToDevice { .. }
            | Op::Permute(_)
            | Op::Reshape(_)
            | Op::Broadcast { .. }
            | Op::Slice(_)
            | Op::Flip(_)
            | Op::Window(_)
    )
}
