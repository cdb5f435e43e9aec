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

use crate::index_map::{Condition, operand_index};
use crate::layout::Orders;
use lazuli_ir::index::Range;
use lazuli_ir::{DimVec, DotDims, Error, Graph, Index, Literal, NodeId, Op, ReduceOp, Result, ScatterOp, Shape, VarId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

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
    /// The result of the group's contraction.
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
#[derive(Clone, Debug)]
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
    /// All sinks that run before it: reductions it depends on, directly or not, and what it updates.
    pub needs: Vec<SinkId>,
    /// The instances whose values its index contains.
    pub indexed_by: SmallVec<[InstanceId; 1]>,
}

impl Sink {
    /// The instances that it needs.
    pub fn roots(&self) -> impl Iterator<Item = InstanceId> + '_ {
        std::iter::once(self.value).chain(self.indexed_by.iter().copied())
    }
}

/// The contraction of a group.
#[derive(Clone, Debug)]
pub struct DotPlan {
    /// The node.
    pub node: NodeId,
    /// Its dims.
    pub dims: DotDims,
    /// The scope of the row loop (`None`: one row), then of the column loop.
    pub row: Option<VarId>,
    /// The column variable, where there is one.
    pub column: Option<VarId>,
    /// The operands: where they lie, and the index into it at rows, columns and contraction.
    pub operands: [(NodeId, Vec<Index>); 2],
    /// The contraction's variables.
    pub contract: Vec<VarId>,
    /// Stand-ins where there is no row or column loop.
    pub unit: [VarId; 2],
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
    /// The contraction, where there is one.
    pub dot: Option<DotPlan>,
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
        let mut p = Planner {
            group,
            plan: Plan {
                vars: Vec::new(),
                scopes: vec![Scope { parent: None, vars: SmallVec::new(), path: vec![0], iterations: 1 }],
                instances: Vec::new(),
                sinks: Vec::new(),
                tile: Vec::new(),
                dot: None,
            },
            known_scopes: FxHashMap::default(),
            known: FxHashMap::default(),
            bound: FxHashMap::default(),
            pending: BTreeMap::new(),
        };
        p.open_tile();
        p.want_outputs()?;
        while let Some((_, instances)) = p.pending.pop_last() {
            for i in instances {
                p.want_operands(i)?;
            }
        }
        let mut plan = p.plan;
        if plan.dot.is_some() && plan.instances.iter().any(|i| matches!(i.source, Source::Scanned(_))) {
            return Err(Error::internal("what accumulates along a dim cannot run in panels"));
        }
        plan.order_sinks();
        Ok(plan)
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
                SinkKind::Step { .. } | SinkKind::Update { .. } => None,
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
                needs.extend_from_slice(&sinks[r].needs);
            }
            needs.sort_unstable();
            needs.dedup();
            let path = &self.scopes[sinks[s].scope].path;
            let level = |j: usize| {
                let here = |r: &&SinkId| self.scopes[sinks[**r].scope].parent == Some(path[j]);
                needs.iter().filter(here).map(|&r| sinks[r].levels[j] + 1).max().unwrap_or(0)
            };
            let levels = (0..path.len() - 1).map(level).collect();
            sinks[s].levels = levels;
            sinks[s].needs = needs;
        }
        self.sinks = sinks;
    }

    /// The sinks in their order, but each after the steps that it needs, and those steps: a reduction that is wanted at an index
    /// from data waits for the reduction that makes this index, which may be of a later node.
    fn after_what_they_need(&self, sinks: Vec<Sink>) -> (Vec<Sink>, Vec<Vec<SinkId>>) {
        let step = |(i, s): (SinkId, &Sink)| match s.kind {
            SinkKind::Step { result, .. } => Some((result, i)),
            SinkKind::Store { .. } | SinkKind::Update { .. } => None,
        };
        let step_of: FxHashMap<InstanceId, SinkId> = sinks.iter().enumerate().filter_map(step).collect();
        let steps = |s: &Sink| -> Vec<SinkId> {
            let roots: Vec<InstanceId> = s.roots().collect();
            self.cone(&roots, &|_| false).iter().filter_map(|i| step_of.get(i).copied()).collect()
        };
        let mut steps: Vec<Vec<SinkId>> = sinks.iter().map(steps).collect();
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
            | Op::Permute(_)
            | Op::Reshape(_)
            | Op::Broadcast { .. }
            | Op::Slice(_)
            | Op::Flip(_)
            | Op::Window(_)
    )
}

type InstanceKey = (Source, Vec<Index>, Option<InstanceId>);

struct Planner<'a, 'g> {
    group: &'a Group<'g>,
    plan: Plan,
    known_scopes: FxHashMap<(ScopeId, Vec<u64>), ScopeId>,
    known: FxHashMap<InstanceKey, InstanceId>,
    /// The variable bound to an instance's value below an extent.
    bound: FxHashMap<(InstanceId, u64), VarId>,
    pending: BTreeMap<NodeId, Vec<InstanceId>>,
}

impl Planner<'_, '_> {
    fn new_var(&mut self, extent: u64, scope: ScopeId) -> VarId {
        const NAMES: [&str; 12] = ["i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
        let n = self.plan.vars.len();
        let name = NAMES.get(n).map_or_else(|| format!("i{n}"), |s| (*s).to_owned());
        self.plan.vars.push(Var { name, extent, scope, bound: None });
        VarId(n as u32)
    }

    /// The variable that stands for the value of an instance, which lies below `extent`.
    fn bind(&mut self, instance: InstanceId, extent: u64) -> VarId {
        if let Some(&v) = self.bound.get(&(instance, extent)) {
            return v;
        }
        let v = self.new_var(extent, self.plan.instances[instance].scope);
        self.plan.vars[v.0 as usize].bound = Some(instance);
        self.bound.insert((instance, extent), v);
        v
    }

    /// The instances whose values indices contain.
    fn indexed_by<'x>(&self, index: impl Iterator<Item = &'x Index>) -> SmallVec<[InstanceId; 1]> {
        let mut out: SmallVec<[InstanceId; 1]> = SmallVec::new();
        for x in index {
            x.for_each_var(&mut |v| {
                if let Some(i) = self.plan.vars[v.0 as usize].bound
                    && !out.contains(&i)
                {
                    out.push(i);
                }
            });
        }
        out
    }

    fn scope(&mut self, parent: ScopeId, extents: Vec<u64>) -> ScopeId {
        if extents.is_empty() {
            return parent;
        }
        if let Some(&s) = self.known_scopes.get(&(parent, extents.clone())) {
            return s;
        }
        let id = self.plan.scopes.len();
        let mut path = self.plan.scopes[parent].path.clone();
        path.push(id);
        let iterations = extents.iter().fold(self.plan.scopes[parent].iterations, |n, e| n.saturating_mul(*e));
        let vars = extents.iter().map(|&e| self.new_var(e, id)).collect();
        self.plan.scopes.push(Scope { parent: Some(parent), vars, path, iterations });
        self.known_scopes.insert((parent, extents), id);
        id
    }

    fn open_tile(&mut self) {
        let extents: Vec<u64> = self.group.frame.tile.iter().map(|&n| n as u64).collect();
        let mut parent = 0;
        if self.group.frame.joined {
            parent = self.scope(parent, extents);
            self.plan.tile.push(parent);
        } else {
            for e in extents {
                parent = self.scope(parent, vec![e]);
                self.plan.tile.push(parent);
            }
        }
    }

    fn want_outputs(&mut self) -> Result<()> {
        let tile_vars: Vec<VarId> =
            self.plan.tile.iter().flat_map(|&s| self.plan.scopes[s].vars.iter().copied()).collect();
        for (output, &node) in self.group.outputs.iter().enumerate() {
            let shape = self.group.graph.node(node).types[0].shape.clone();
            let axes = self.group.frame.outputs[output].clone();
            let whole = |(a, n): (&Option<usize>, usize)| a.is_none_or(|t| self.group.frame.tile[t] == n);
            if !axes.iter().zip(shape.extents()).all(whole) {
                return Err(Error::internal("the loops of the tile do not cover an output"));
            }
            let in_tile = axes.iter().any(|a| a.is_some());
            let parent = if in_tile { self.plan.tile.last().copied().unwrap_or(0) } else { 0 };
            let extents = shape.extents();
            let order = self.group.orders.dims(node, shape.rank());
            let inner: Vec<u64> = order.iter().filter(|d| axes[**d].is_none()).map(|d| extents[*d] as u64).collect();
            let scope = self.scope(parent, inner);
            let mut inner_vars =
                if scope == parent { SmallVec::new() } else { self.plan.scopes[scope].vars.clone() }.into_iter();
            let mut index = vec![Index::default(); shape.rank()];
            for d in order {
                let last = shape.extents()[d] as i64 - 1;
                index[d] = match axes[d] {
                    Some(t) => Index::var(tile_vars[t]),
                    None => match inner_vars.next() {
                        Some(v) if self.group.frame.backward => Index::constant(last).add_scaled(&v.into(), -1),
                        Some(v) => Index::var(v),
                        None => Index::default(),
                    },
                };
            }
            if let Op::Scatter { dim, op } = self.group.graph.op(node) {
                self.want_scatter(output, node, (*dim, *op), index, parent, scope)?;
                continue;
            }
            let value = self.want(node, index.clone(), None)?;
            self.sink(SinkKind::Store { output, index }, value, scope);
        }
        Ok(())
    }

    fn sink(&mut self, kind: SinkKind, value: InstanceId, scope: ScopeId) {
        let indexed_by = match &kind {
            SinkKind::Store { index, .. } | SinkKind::Update { index, .. } => self.indexed_by(index.iter()),
            SinkKind::Step { .. } => SmallVec::new(),
        };
        self.plan.sinks.push(Sink { kind, value, scope, levels: Vec::new(), needs: Vec::new(), indexed_by });
    }

    /// A scatter stores its operand as it is, and then runs along the updates, in order.
    fn want_scatter(
        &mut self,
        output: usize,
        node: NodeId,
        (dim, op): (usize, ScatterOp),
        index: Vec<Index>,
        parent: ScopeId,
        scope: ScopeId,
    ) -> Result<()> {
        let operands = self.group.graph.operands(node);
        let [base, position, updates] = [0, 1, 2].map(|i| operands[i].node);
        if self.group.frame.outputs[output].iter().filter(|a| a.is_none()).count() != 1 || self.group.frame.backward {
            return Err(Error::internal("a scatter runs along another dim than its group"));
        }
        let value = self.want(base, index.clone(), None)?;
        let (count, extent) = (self.shape(updates).extents()[dim] as u64, self.shape(base).extents()[dim] as u64);
        self.sink(SinkKind::Store { output, index: index.clone() }, value, scope);
        if self.shape(updates).is_empty() {
            return Ok(());
        }
        let along = self.scope(parent, vec![count]);
        let mut at = index;
        at[dim] = self.plan.scopes[along].vars.first().map_or_else(Index::default, |v| Index::var(*v));
        let target = self.want(position, at.clone(), None)?;
        let update = self.want(updates, at.clone(), None)?;
        at[dim] = Index::var(self.bind(target, extent));
        self.sink(SinkKind::Update { output, index: at, op }, update, along);
        Ok(())
    }

    fn shape(&self, n: NodeId) -> &Shape {
        &self.group.graph.node(n).types[0].shape
    }

    /// The instance of a node at an index tuple: passes through movements, and registers what is new.
    fn want(&mut self, node: NodeId, index: Vec<Index>, mask: Option<InstanceId>) -> Result<InstanceId> {
        let group = self.group;
        let (node, index) = self.through_movements(node, index, mask, &|n| (group.free)(n) || (group.member)(n))?;
        let graph = self.group.graph;
        let member = (self.group.member)(node);
        let (source, index) = match graph.op(node) {
            // No element of an empty tensor is ever read: whatever stands in for one does.
            _ if self.shape(node).is_empty() => {
                (Source::Constant(Literal::zero(graph.node(node).types[0].dtype)), Vec::new())
            }
            Op::Constant { value, .. } => (Source::Constant(*value), Vec::new()),
            Op::Reduce { dims, .. } if member && dims.is_empty() => (Source::Constant(Literal::I64(0)), Vec::new()),
            Op::Iota { dim, .. } => (Source::Iota, vec![index[*dim].clone()]),
            Op::Reduce { .. } | Op::WindowSum { .. } if member => (Source::Reduced(node), index),
            Op::Cumulative { dim, reverse, .. } if member => {
                self.runs_along(&index, *dim, *reverse, graph.node(node).types[0].shape.extents()[*dim])?;
                (Source::Scanned(node), index)
            }
            Op::Scatter { .. } if member => return Err(Error::internal("the result of a scatter is stored")),
            Op::Dot { .. } if member => (Source::Dot(node), index),
            _ if member => (Source::Compute(node), index),
            _ => (Source::Load(node), index),
        };
        // Only what reads memory (or leads to it) cares about the mask.
        let mask = match source {
            Source::Constant(_) | Source::Iota => None,
            _ => mask,
        };
        let pending = matches!(source, Source::Compute(_) | Source::Reduced(_) | Source::Scanned(_) | Source::Dot(_))
            .then_some(node);
        Ok(self.intern(source, index, mask, pending))
    }

    /// What accumulates along a dim is wanted at a loop that walks it in that order.
    fn runs_along(&self, index: &[Index], dim: usize, reverse: bool, extent: usize) -> Result<()> {
        let forward =
            if reverse { Index::constant(extent as i64 - 1).add_scaled(&index[dim], -1) } else { index[dim].clone() };
        let alone = |v: VarId| {
            let var = &self.plan.vars[v.0 as usize];
            var.bound.is_none() && var.extent == extent as u64 && self.plan.scopes[var.scope].vars.len() == 1
        };
        let others = index.iter().enumerate().filter(|(d, _)| *d != dim);
        let fits = forward.as_var().is_some_and(|v| {
            // The line must stay the same all along: what is bound to data in the loop changes with it.
            let scope = self.plan.vars[v.0 as usize].scope;
            let changes = |x: &Index| {
                let mut changes = false;
                x.for_each_var(&mut |u| changes |= self.plan.vars[u.0 as usize].scope == scope);
                changes
            };
            alone(v) && self.plan.scope_of(index) == scope && !others.clone().any(|(_, x)| changes(x))
        });
        if fits {
            Ok(())
        } else {
            Err(Error::internal("what accumulates along a dim is wanted elsewhere than at its loop"))
        }
    }

    /// Follows movements, as far as they are computed wherever they are wanted. What is indexed by data is a movement too: the
    /// index is the value of an instance.
    fn through_movements(
        &mut self,
        mut node: NodeId,
        mut index: Vec<Index>,
        mask: Option<InstanceId>,
        passes: &dyn Fn(NodeId) -> bool,
    ) -> Result<(NodeId, Vec<Index>)> {
        let graph = self.group.graph;
        loop {
            let op = graph.op(node);
            let moves = match op {
                Op::Gather { .. } | Op::DynamicSlice(_) => !self.shape(node).is_empty(),
                // Of one element, the sum and the maximum are the element.
                Op::Reduce { op, dims, .. } => dims.is_empty() && !op.is_position(),
                _ => is_movement(op),
            };
            if !moves || !passes(node) {
                return Ok((node, index));
            }
            let operands = graph.operands(node);
            let operand = operands[0].node;
            match op {
                Op::Gather { dim } => {
                    let extent = self.shape(operand).extents()[*dim] as u64;
                    let position = self.want(operands[1].node, index.clone(), mask)?;
                    index[*dim] = Index::var(self.bind(position, extent));
                    node = operand;
                    continue;
                }
                Op::DynamicSlice(sizes) => {
                    let extents = self.shape(operand).extents();
                    for (d, size) in sizes.iter().enumerate() {
                        let start = self.want(operands[1 + d].node, Vec::new(), None)?;
                        let v = self.bind(start, (extents[d] - size + 1) as u64);
                        index[d] = index[d].add(&Index::var(v));
                    }
                    node = operand;
                    continue;
                }
                _ => {}
            }
            let ranges = |v: VarId| self.plan.range(v);
            index = operand_index(op, 0, self.shape(operand), self.shape(node), &index, &[], &ranges)?.index;
            node = operand;
        }
    }

    fn intern(
        &mut self,
        source: Source,
        index: Vec<Index>,
        mask: Option<InstanceId>,
        pending: Option<NodeId>,
    ) -> InstanceId {
        let key = (source, index, mask);
        if let Some(&i) = self.known.get(&key) {
            return i;
        }
        let (source, index, mask) = key.clone();
        let mut scope = self.plan.scope_of(&index);
        let mut indexed_by = self.indexed_by(index.iter());
        if let Source::Mask(conditions) = &source {
            for c in conditions {
                scope = self.plan.deepest(scope, self.plan.scope_of(std::slice::from_ref(c.index())));
            }
            indexed_by = self.indexed_by(conditions.iter().map(Condition::index));
        }
        if let Some(m) = mask {
            scope = self.plan.deepest(scope, self.plan.instances[m].scope);
        }
        let id = self.plan.instances.len();
        self.plan.instances.push(Instance { source, index, mask, scope, operands: SmallVec::new(), indexed_by });
        self.known.insert(key, id);
        if let Some(node) = pending {
            self.pending.entry(node).or_default().push(id);
        }
        id
    }

    /// Registers what an instance of a member is computed from.
    fn want_operands(&mut self, i: InstanceId) -> Result<()> {
        let Instance { source, index, mask, scope, .. } = self.plan.instances[i].clone();
        let graph = self.group.graph;
        match source {
            Source::Compute(node) => {
                let op = graph.op(node);
                for (position, operand) in graph.operands(node).into_iter().enumerate() {
                    let ids = self.want_operand(node, op, position, operand.node, &index, mask)?;
                    self.plan.instances[i].operands.extend(ids);
                }
            }
            Source::Reduced(node) => self.want_step(i, node, &index, mask, scope)?,
            Source::Scanned(node) => {
                let value = self.want(graph.operands(node)[0].node, index, mask)?;
                self.plan.instances[i].operands.push(value);
            }
            Source::Dot(node) => self.plan_dot(i, node, &index)?,
            Source::Load(_) | Source::Constant(_) | Source::Iota | Source::Row(_) => {}
            Source::Mask(_) | Source::Guarded(_) => {}
        }
        Ok(())
    }

    fn want_operand(
        &mut self,
        node: NodeId,
        op: &Op,
        position: usize,
        operand: NodeId,
        index: &[Index],
        mask: Option<InstanceId>,
    ) -> Result<SmallVec<[InstanceId; 2]>> {
        if let Op::Random { .. } = op {
            // Seed and draw number: both elements of the base.
            let seed = self.want(operand, vec![Index::constant(0)], None)?;
            let draw = self.want(operand, vec![Index::constant(1)], None)?;
            return Ok(smallvec::smallvec![seed, draw]);
        }
        if let Op::DynamicUpdateSlice { .. } = op {
            return self.want_update(node, position, operand, index, mask);
        }
        let begin: Vec<Index> = match op {
            Op::Concat { dim, .. } => {
                let before = &self.group.graph.operands(node)[..position];
                let begin: usize = before.iter().map(|v| self.shape(v.node).extents()[*dim]).sum();
                vec![Index::constant(begin as i64)]
            }
            _ => Vec::new(),
        };
        let ranges = |v: VarId| self.plan.range(v);
        let mapped = operand_index(op, position, self.shape(operand), self.shape(node), index, &begin, &ranges)?;
        if let Op::Concat { .. } = op {
            // No element of an empty operand is wanted anywhere; every other is wanted under its mask.
            if self.shape(operand).is_empty() {
                return Ok(SmallVec::new());
            }
            let inner = self.intern(Source::Mask(mapped.conditions.clone()), Vec::new(), mask, None);
            let value = self.want(operand, mapped.index, (!mapped.conditions.is_empty()).then_some(inner).or(mask))?;
            return Ok(smallvec::smallvec![inner, value]);
        }
        if mapped.conditions.is_empty() {
            let mask = if mapped.index.is_empty() { None } else { mask };
            return Ok(smallvec::smallvec![self.want(operand, mapped.index, mask)?]);
        }
        let inner = self.intern(Source::Mask(mapped.conditions), Vec::new(), mask, None);
        let value = self.want(operand, mapped.index, Some(inner))?;
        Ok(smallvec::smallvec![inner, value])
    }

    /// Operands of a slice that is replaced: the element as it was; whether it lies in the slice, and the new one.
    fn want_update(
        &mut self,
        node: NodeId,
        position: usize,
        operand: NodeId,
        index: &[Index],
        mask: Option<InstanceId>,
    ) -> Result<SmallVec<[InstanceId; 2]>> {
        match position {
            0 => return Ok(smallvec::smallvec![self.want(operand, index.to_vec(), mask)?]),
            1 => {}
            _ => return Ok(SmallVec::new()),
        }
        let (whole, part) = (self.shape(node).extents(), self.shape(operand).extents());
        if self.shape(operand).is_empty() {
            return Ok(SmallVec::new());
        }
        let starts = self.group.graph.operands(node);
        let (mut inside, mut conditions) = (Vec::new(), Vec::new());
        for (d, x) in index.iter().enumerate() {
            let start = self.want(starts[2 + d].node, Vec::new(), None)?;
            let v = self.bind(start, (whole[d] - part[d] + 1) as u64);
            let x = x.add_scaled(&Index::var(v), -1);
            if part[d] != whole[d] {
                conditions.push(Condition::NotNegative(x.clone()));
                conditions.push(Condition::NotNegative(Index::constant(part[d] as i64 - 1).add_scaled(&x, -1)));
            }
            inside.push(x);
        }
        let covered = self.intern(Source::Mask(conditions.clone()), Vec::new(), mask, None);
        let value = self.want(operand, inside, (!conditions.is_empty()).then_some(covered).or(mask))?;
        Ok(smallvec::smallvec![covered, value])
    }

    fn want_step(
        &mut self,
        result: InstanceId,
        node: NodeId,
        index: &[Index],
        mask: Option<InstanceId>,
        parent: ScopeId,
    ) -> Result<()> {
        let graph = self.group.graph;
        let operand = graph.operands(node)[0].node;
        let op = graph.op(node);
        let extents = self.shape(operand).extents();
        // The position of a largest element counts in logical order; anything else is combined as it lies.
        let (reduce, dims, order): (ReduceOp, DimVec<usize>, DimVec<usize>) = match op {
            Op::Reduce { op, dims, .. } if op.is_position() => (*op, dims.clone(), dims.clone()),
            Op::Reduce { op, dims, .. } => (*op, dims.clone(), self.group.orders.sorted(operand, dims)),
            Op::WindowSum { dims, .. } => {
                let inside: DimVec<usize> = (extents.len() - dims.len()..extents.len()).collect();
                (ReduceOp::Sum, inside.clone(), inside)
            }
            _ => return Err(Error::internal(format!("{} is no reduction", op.name()))),
        };
        let mut over: Vec<u64> = order.iter().map(|&d| extents[d] as u64).collect();
        let mut scopes: SmallVec<[ScopeId; 2]> = SmallVec::new();
        let whole = matches!(op, Op::Reduce { .. }) && !reduce.is_position();
        if let Some((tile, rows)) = self.row_scope(parent, &over).filter(|_| whole) {
            over.drain(..rows);
            scopes.push(tile);
        }
        scopes.push(self.scope(scopes.last().copied().unwrap_or(parent), over));
        let vars: DimVec<VarId> = scopes.iter().flat_map(|s| self.plan.scopes[*s].vars.iter().copied()).collect();
        let at = |d: &usize| order.iter().position(|o| o == d).and_then(|i| vars.get(i));
        let inner: Vec<Index> = dims.iter().map(|d| at(d).map_or_else(Index::default, |&v| v.into())).collect();
        let ranges = |v: VarId| self.plan.range(v);
        let mapped = operand_index(op, 0, self.shape(operand), self.shape(node), index, &inner, &ranges)?;
        let mut value = if mapped.conditions.is_empty() {
            self.want(operand, mapped.index, mask)?
        } else {
            let inside = self.intern(Source::Mask(mapped.conditions), Vec::new(), mask, None);
            let value = self.want(operand, mapped.index.clone(), Some(inside))?;
            let guarded = self.intern(Source::Guarded(value), mapped.index, Some(inside), None);
            self.plan.instances[guarded].operands = smallvec::smallvec![inside, value];
            let scope = self.plan.deepest(self.plan.instances[guarded].scope, self.plan.instances[value].scope);
            self.plan.instances[guarded].scope = scope;
            guarded
        };
        while let Some(scope) = scopes.pop() {
            let row = |&tile: &ScopeId| self.plan.scopes[tile].vars.iter().map(|&v| v.into()).collect();
            let result = match scopes.last().map(row) {
                Some(row) => self.intern(Source::Row(node), row, None, None),
                None => result,
            };
            self.sink(SinkKind::Step { op: reduce, result }, value, scope);
            value = result;
        }
        Ok(())
    }

    /// The tile and the number of its dims, where a reduction over these extents goes over it row by row: then it runs in
    /// the loops that everything else of the rows runs in.
    fn row_scope(&self, parent: ScopeId, extents: &[u64]) -> Option<(ScopeId, usize)> {
        let &[tile] = self.plan.tile.as_slice() else { return None };
        let vars = &self.plan.scopes[tile].vars;
        let rows = vars.iter().map(|v| self.plan.vars[v.0 as usize].extent);
        (parent == 0 && vars.len() < extents.len() && rows.eq(extents[..vars.len()].iter().copied()))
            .then_some((tile, vars.len()))
    }

    fn plan_dot(&mut self, i: InstanceId, node: NodeId, index: &[Index]) -> Result<()> {
        let tile: Vec<VarId> = self.plan.tile.iter().flat_map(|&s| self.plan.scopes[s].vars.iter().copied()).collect();
        let plain: Option<Vec<VarId>> = index.iter().map(Index::as_var).collect();
        if self.plan.dot.is_some() || plain.as_deref() != Some(tile.as_slice()) || self.plan.instances[i].mask.is_some()
        {
            return Err(Error::internal("a contraction is wanted elsewhere than at the group's tile"));
        }
        let graph = self.group.graph;
        let Op::Dot { dims, .. } = graph.op(node) else {
            return Err(Error::internal("no contraction"));
        };
        let operands = graph.operands(node);
        let (a, b) = (operands[0].node, operands[1].node);
        let (left, right) = (self.shape(a).clone(), self.shape(b).clone());
        let (rows, columns) = (dims.free(false, left.rank()), dims.free(true, right.rank()));
        let batch = dims.batch.len();
        let row = rows.last().map(|_| tile[batch + rows.len() - 1]);
        let column = columns.last().map(|_| tile[batch + rows.len() + columns.len() - 1]);
        let contract: Vec<VarId> =
            dims.contract.iter().map(|&(l, _)| self.new_var(left.extents()[l] as u64, 0)).collect();
        let unit = [self.new_var(1, 0), self.new_var(1, 0)];
        let place = |right_side: bool, rank: usize, free: &[usize], base: usize| -> Vec<Index> {
            let side = |&(l, r): &(usize, usize)| if right_side { r } else { l };
            (0..rank)
                .map(|d| {
                    let v = if let Some(p) = dims.batch.iter().position(|x| side(x) == d) {
                        tile.get(p)
                    } else if let Some(p) = dims.contract.iter().position(|x| side(x) == d) {
                        contract.get(p)
                    } else {
                        free.iter().position(|&f| f == d).and_then(|p| tile.get(base + p))
                    };
                    v.map_or_else(Index::default, |&v| Index::var(v))
                })
                .collect()
        };
        let left_index = place(false, left.rank(), &rows, batch);
        let right_index = place(true, right.rank(), &columns, batch + rows.len());
        let group = self.group;
        let a = self.through_movements(a, left_index, None, &|n| (group.free)(n))?;
        let b = self.through_movements(b, right_index, None, &|n| (group.free)(n))?;
        self.plan.dot = Some(DotPlan { node, dims: dims.clone(), row, column, operands: [a, b], contract, unit });
        Ok(())
    }
}
