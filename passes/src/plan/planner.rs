//! Planning by pulling: outputs are wanted at their loops, wishes pass through movements, and what is new becomes an instance.

use super::{Group, Instance, InstanceId, Plan, Scope, ScopeId, Sink, SinkKind, Source, Var, is_movement};
use crate::index_map::{Condition, operand_index};
use lazuli_ir::{Error, Index, Literal, NodeId, Op, Result, ScatterOp, Shape, VarId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

type InstanceKey = (Source, Vec<Index>, Option<InstanceId>);

pub(super) struct Planner<'a, 'g> {
    pub(super) group: &'a Group<'g>,
    pub(super) plan: Plan,
    pub(super) known_scopes: FxHashMap<(ScopeId, Vec<u64>), ScopeId>,
    pub(super) known: FxHashMap<InstanceKey, InstanceId>,
    /// The variable bound to an instance's value below an extent.
    pub(super) bound: FxHashMap<(InstanceId, u64), VarId>,
    pub(super) pending: BTreeMap<NodeId, Vec<InstanceId>>,
}

impl<'a, 'g> Planner<'a, 'g> {
    /// The plan of a group, its sinks in no order yet.
    pub(super) fn plan(group: &'a Group<'g>) -> Result<Plan> {
        let mut p = Planner {
            group,
            plan: Plan {
                vars: Vec::new(),
                scopes: vec![Scope { parent: None, vars: SmallVec::new(), path: vec![0], iterations: 1 }],
                instances: Vec::new(),
                sinks: Vec::new(),
                tile: Vec::new(),
                dots: Vec::new(),
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
        Ok(p.plan)
    }

    pub(super) fn new_var(&mut self, extent: u64, scope: ScopeId) -> VarId {
        const NAMES: [&str; 12] = ["i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
        let n = self.plan.vars.len();
        let name = NAMES.get(n).map_or_else(|| format!("i{n}"), |s| (*s).to_owned());
        self.plan.vars.push(Var { name, extent, scope, bound: None });
        VarId(n as u32)
    }

    /// The variable that stands for the value of an instance, which lies below `extent`.
    pub(super) fn bind(&mut self, instance: InstanceId, extent: u64) -> VarId {
        if let Some(&v) = self.bound.get(&(instance, extent)) {
            return v;
        }
        let v = self.new_var(extent, self.plan.instances[instance].scope);
        self.plan.vars[v.0 as usize].bound = Some(instance);
        self.bound.insert((instance, extent), v);
        v
    }

    /// The instances whose values indices contain.
    pub(super) fn indexed_by<'x>(&self, index: impl Iterator<Item = &'x Index>) -> SmallVec<[InstanceId; 1]> {
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

    pub(super) fn scope(&mut self, parent: ScopeId, extents: Vec<u64>) -> ScopeId {
        if extents.is_empty() {
            return parent;
        }
        if let Some(&s) = self.known_scopes.get(&(parent, extents.clone())) {
            return s;
        }
        let id = self.own_scope(parent, extents.iter().copied());
        self.known_scopes.insert((parent, extents), id);
        id
    }

    /// A scope that nothing else shares; the parent where there is nothing to count.
    pub(super) fn own_scope(&mut self, parent: ScopeId, extents: impl IntoIterator<Item = u64>) -> ScopeId {
        let extents: Vec<u64> = extents.into_iter().collect();
        if extents.is_empty() {
            return parent;
        }
        let id = self.plan.scopes.len();
        let mut path = self.plan.scopes[parent].path.clone();
        path.push(id);
        let iterations = extents.iter().fold(self.plan.scopes[parent].iterations, |n, e| n.saturating_mul(*e));
        let vars = extents.iter().map(|&e| self.new_var(e, id)).collect();
        self.plan.scopes.push(Scope { parent: Some(parent), vars, path, iterations });
        id
    }

    pub(super) fn open_tile(&mut self) {
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

    pub(super) fn want_outputs(&mut self) -> Result<()> {
        let tile_vars: Vec<VarId> =
            self.plan.tile.iter().flat_map(|&s| self.plan.scopes[s].vars.iter().copied()).collect();
        for (output, &node) in self.group.outputs.iter().enumerate() {
            let shape = self.group.graph.node(node).types[0].shape.clone();
            let axes = self.group.frame.outputs[output].clone();
            let whole = |(a, n): (&Option<usize>, usize)| a.is_none_or(|t| self.group.frame.tile[t] == n);
            if !axes.iter().zip(shape.extents()).all(whole) {
                return Err(Error::internal("the loops of the tile do not cover an output"));
            }
            // Those of all tile dims, of those around the last one, or of none.
            let parent = match axes.iter().flatten().max() {
                Some(last) if self.group.frame.joined => self.plan.tile.last().filter(|_| tile_vars.len() == last + 1),
                Some(last) => self.plan.tile.get(*last),
                None => Some(&0),
            };
            let Some(&parent) = parent else {
                return Err(Error::internal("an output has some of the tile dims, which are one loop"));
            };
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
            let graph = self.group.graph;
            if let Op::Scatter { dim, op } = graph.op(node)
                && !self.shape(graph.operands(node)[2].node).is_empty()
            {
                self.want_scatter(output, node, (*dim, *op), index, parent, scope)?;
                continue;
            }
            let value = self.want(node, index.clone(), None)?;
            self.sink(SinkKind::Store { output, index }, value, scope);
        }
        Ok(())
    }

    pub(super) fn sink(&mut self, kind: SinkKind, value: InstanceId, scope: ScopeId) {
        let indexed_by = match &kind {
            SinkKind::Store { index, .. } | SinkKind::Update { index, .. } => self.indexed_by(index.iter()),
            SinkKind::Step { .. } | SinkKind::Row => SmallVec::new(),
        };
        self.plan.sinks.push(Sink {
            kind,
            value,
            scope,
            levels: Vec::new(),
            needs: Vec::new(),
            indexed_by,
            dots: SmallVec::new(),
        });
    }

    /// A scatter stores its operand as it is, and then runs along the updates, in order.
    pub(super) fn want_scatter(
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
        let along = self.scope(parent, vec![count]);
        let mut at = index;
        at[dim] = self.plan.scopes[along].vars.first().map_or_else(Index::default, |v| Index::var(*v));
        let target = self.want(position, at.clone(), None)?;
        let update = self.want(updates, at.clone(), None)?;
        at[dim] = Index::var(self.bind(target, extent));
        self.sink(SinkKind::Update { output, index: at, op }, update, along);
        Ok(())
    }

    pub(super) fn shape(&self, n: NodeId) -> &Shape {
        &self.group.graph.node(n).types[0].shape
    }

    /// The instance of a node at an index tuple: passes through movements, and registers what is new.
    pub(super) fn want(&mut self, node: NodeId, index: Vec<Index>, mask: Option<InstanceId>) -> Result<InstanceId> {
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
    pub(super) fn runs_along(&self, index: &[Index], dim: usize, reverse: bool, extent: usize) -> Result<()> {
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
    pub(super) fn through_movements(
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
                // Without updates, it is what it was.
                Op::Scatter { .. } => self.shape(graph.operands(node)[2].node).is_empty(),
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
                Op::Scatter { .. } => {
                    node = operand;
                    continue;
                }
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

    pub(super) fn intern(
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
}
