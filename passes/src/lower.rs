//! Lowering: a planned group becomes Kernel IR, free of schedule.
//!
//! The walk follows the plan's scopes. In each scope the sinks are taken level by level; those of one level share one loop
//! (a `reduce`, where one of them is the step of a reduction). Before a loop is opened, everything it needs from this scope is
//! written; so each value is written once a pass, in the scope where it belongs, or read back from a *row tile*
//! (`row_tiles.rs`).
//!
//! A contraction replaces its row and column loops by panels (`panels.rs`, `row_panels.rs`): a tile, filled by `dot`, and loops
//! over the tile in which everything else of the group runs as the epilogue.

use crate::index_map::Condition;
use crate::panels::{DotTile, Side};
use crate::plan::{InstanceId, Plan, Reach, ScopeId, SinkId, SinkKind, Source};
use crate::row_tiles::RowTile;
use crate::scalar::{check, linear, requirement, scalar_operation};
use lazuli_ir::kernel::{
    Access, Axis, Block, Emit, Expr, Extent, Kernel, Loop, Memory, Param, ParamId, Reduce, Reducer, ScalarType, Scope,
    Stmt, StmtKind, Stride, Tile, TileId, ValueId,
};
use lazuli_ir::program::CheckSite;
use lazuli_ir::{
    BinaryOp, CompareOp, DType, DimVec, Error, Graph, Index, Literal, NodeId, Op, Result, Sources, Target, VarId,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Range;

/// A kernel, and which value each parameter is.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The kernel.
    pub kernel: Kernel,
    /// The value of each parameter, in order: what is read, then what is written.
    pub args: Vec<NodeId>,
    /// What each check of the kernel stands for.
    pub checks: Vec<CheckSite>,
}

/// How a stored value lies in memory.
pub struct Stored {
    /// The dims, outermost first: in this order a kernel has them, so that neighbours in memory are neighbours in its indices.
    pub order: DimVec<usize>,
    /// The stride of each dim, in logical order.
    pub strides: DimVec<i64>,
}

/// Lowers a planned group. `stored` tells how a value lies in memory.
pub fn lower(
    graph: &Graph,
    members: &[NodeId],
    outputs: &[NodeId],
    plan: &Plan,
    stored: &dyn Fn(NodeId) -> Stored,
    target: &Target,
) -> Result<Lowered> {
    let mut l = Lowering {
        graph,
        plan,
        target,
        kernel: Kernel::new(kernel_name(graph, members)),
        args: Vec::new(),
        orders: Vec::new(),
        merged: FxHashMap::default(),
        checks: Vec::new(),
        params: FxHashMap::default(),
        outputs: Vec::new(),
        values: vec![None; plan.instances.len()],
        tiles: FxHashMap::default(),
        substitution: FxHashMap::default(),
        new_extents: FxHashMap::default(),
        used_vars: Default::default(),
        bound: FxHashMap::default(),
        carried: FxHashMap::default(),
        dot_tiles: FxHashMap::default(),
        row_tiles: FxHashMap::default(),
        row_inside: Index::default(),
        current: Block::new(),
        sources: Sources::none(),
    };
    l.kernel.vars = plan.vars.iter().map(|v| v.name.clone()).collect();
    for (number, var) in plan.vars.iter().enumerate() {
        if let Some(i) = var.bound {
            l.bound.entry(i).or_default().push(VarId(number as u32));
        }
    }
    l.declare_params(outputs, stored)?;
    plan.dots.iter().for_each(|dot| l.merge_digits(dot));
    if let Some(dot) = plan.panel_dot() {
        l.merge_lines(dot);
    }
    l.kernel.sources = members.iter().fold(Sources::none(), |s, n| s.union(&graph.node(*n).sources));
    let sinks: Vec<SinkId> = (0..plan.sinks.len()).collect();
    l.kernel.body = l.scope(0, &sinks)?.0;
    Ok(Lowered { kernel: l.kernel, args: l.args, checks: l.checks })
}

/// A name from what the kernel computes: its last operations, most telling first.
fn kernel_name(graph: &Graph, members: &[NodeId]) -> String {
    let names: Vec<&str> = members.iter().map(|n| graph.op(*n).name()).collect();
    let mut parts: Vec<&str> = Vec::new();
    for heavy in ["dot", "reduce_max", "reduce_sum", "reduce_argmax", "exp", "tanh", "log"] {
        if names.contains(&heavy) {
            parts.push(heavy);
        }
    }
    if let Some(last) = names.last()
        && !parts.contains(last)
    {
        parts.push(last);
    }
    parts.truncate(4);
    parts.join("_")
}

pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) plan: &'a Plan,
    pub(crate) target: &'a Target,
    pub(crate) kernel: Kernel,
    args: Vec<NodeId>,
    /// For each parameter, the order of the value's dims.
    orders: Vec<DimVec<usize>>,
    /// Dims, in that order, that are one dim of a parameter, and their extents.
    pub(crate) merged: FxHashMap<ParamId, (Range<usize>, SmallVec<[i64; 4]>)>,
    checks: Vec<CheckSite>,
    pub(crate) params: FxHashMap<NodeId, ParamId>,
    outputs: Vec<ParamId>,
    /// The kernel value of each instance, while it is in scope.
    pub(crate) values: Vec<Option<ValueId>>,
    /// The row tiles of instances, while they are in scope.
    pub(crate) tiles: FxHashMap<InstanceId, RowTile>,
    /// What variables of the plan stand for: their latest loop, or a place in a panel.
    pub(crate) substitution: FxHashMap<VarId, Index>,
    /// The extents of variables that the plan does not have.
    pub(crate) new_extents: FxHashMap<VarId, i64>,
    /// The variables that a loop or a binding has already.
    used_vars: FxHashSet<VarId>,
    /// The variables that stand for the value of an instance.
    bound: FxHashMap<InstanceId, SmallVec<[VarId; 1]>>,
    /// The tiles of one element that hold results so far.
    carried: FxHashMap<InstanceId, TileId>,
    /// The tiles of contractions' results.
    pub(crate) dot_tiles: FxHashMap<NodeId, DotTile>,
    /// The tiles of rows that contractions read, by the value of their elements.
    pub(crate) row_tiles: FxHashMap<InstanceId, TileId>,
    /// The row of a panel that is whole rows.
    pub(crate) row_inside: Index,
    pub(crate) current: Block,
    sources: Sources,
}

impl Emit for Lowering<'_> {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let v = self.kernel.new_value(ty);
        self.current.push(Stmt { kind: StmtKind::Let(v, expr), sources: self.sources.clone() });
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.kernel.values[v.index()]
    }
}

impl Lowering<'_> {
    fn declare_params(&mut self, outputs: &[NodeId], stored: &dyn Fn(NodeId) -> Stored) -> Result<()> {
        let mut read: Vec<NodeId> = self
            .plan
            .instances
            .iter()
            .filter_map(|i| match i.source {
                Source::Load(n) => Some(n),
                _ => None,
            })
            .collect();
        read.sort_unstable();
        read.dedup();
        for n in read {
            let id = self.declare(n, Access::Read, stored(n));
            self.params.insert(n, id);
        }
        for &n in outputs {
            let updated = matches!(self.graph.op(n), Op::Scatter { .. });
            let id = self.declare(n, if updated { Access::ReadWrite } else { Access::Write }, stored(n));
            self.outputs.push(id);
        }
        Ok(())
    }

    fn declare(&mut self, n: NodeId, access: Access, stored: Stored) -> ParamId {
        let node = self.graph.node(n);
        let extents = node.types[0].shape.extents();
        let name = match node.op {
            Op::Input { index, .. } => self.graph.inputs()[index].0.clone(),
            _ => n.0.to_string(),
        };
        self.kernel.params.push(Param {
            name: if access == Access::Read { name } else { format!("out{name}") },
            dtype: node.types[0].dtype,
            dims: stored.order.iter().map(|&d| Extent::Const(extents[d] as u64)).collect(),
            strides: stored.order.iter().map(|&d| Stride::Const(stored.strides[d])).collect(),
            access,
        });
        self.args.push(n);
        self.orders.push(stored.order);
        ParamId(self.kernel.params.len() as u32 - 1)
    }

    fn depth(&self, s: ScopeId) -> usize {
        self.plan.scopes[s].path.len() - 1
    }

    /// Writes what these sinks do in a scope: loops below it, then its own stores. Gives the block, and the values that
    /// the reductions stepping in this scope combine.
    pub(crate) fn scope(&mut self, scope: ScopeId, sinks: &[SinkId]) -> Result<(Block, Vec<SinkId>)> {
        let outer = std::mem::take(&mut self.current);
        let depth = self.depth(scope);
        let mut passes: BTreeMap<(u32, ScopeId), Vec<SinkId>> = BTreeMap::new();
        let mut here: Vec<SinkId> = Vec::new();
        for &s in sinks {
            let sink = &self.plan.sinks[s];
            if sink.scope == scope {
                here.push(s);
            } else {
                passes.entry((sink.levels[depth], self.plan.scopes[sink.scope].path[depth + 1])).or_default().push(s);
            }
        }
        if let Some(dot) = self.plan.panel_dot()
            && dot.sides.iter().all(Vec::is_empty)
            && self.plan.tile.last().copied().unwrap_or(0) == scope
        {
            // A product of vectors: no loop of the tile is a panel.
            self.write_roots(&[dot.operands[0].value, dot.operands[1].value], scope)?;
            self.write_dot(dot, &[Side::default(), Side::default()], [None, None])?;
        }
        let kept = self.choose_tiles(&passes);
        let mut phases: Vec<Vec<SinkId>> = Vec::new();
        let last = passes.keys().rev().find(|(_, child)| self.plan.row_scope() == Some(*child)).copied();
        // What reads contractions over all rows runs when these are complete.
        let (after, before): (Vec<_>, Vec<_>) = passes.iter().partition(|(_, group)| self.reads_across(group));
        for (&pass, group) in before.into_iter().chain(after) {
            let child = pass.1;
            let group = self.close(group, child);
            if self.plan.row_scope() == Some(child) {
                // All passes over panels of rows are one loop over the panels.
                phases.push(group);
                if last == Some(pass) {
                    let all = phases.concat();
                    self.write_values(&all, scope)?;
                    self.row_panels(child, &phases)?;
                }
                continue;
            }
            self.write_values(&group, scope)?;
            self.pass(child, &group)?;
        }
        self.write_values(&here, scope)?;
        for &s in &here {
            let (output, index, combine) = match &self.plan.sinks[s].kind {
                SinkKind::Store { output, index } => (*output, index, None),
                SinkKind::Update { output, index, op } => (*output, index, op.binary()),
                SinkKind::Row => {
                    self.store_row(s)?;
                    continue;
                }
                SinkKind::Step { .. } => continue,
            };
            let mut value = self.value(self.plan.sinks[s].value)?;
            let param = self.outputs[output];
            let index = self.element(param, self.indices(index));
            let to = Memory::Param(param);
            if let Some(op) = combine {
                let ty = self.type_of(value);
                let held = self.emit(ty, Expr::Load { from: to, index: index.clone(), mask: None });
                let e: &mut dyn Emit = self;
                value = e.binary(op, held, value);
            }
            self.push(StmtKind::Store { to, index, value, mask: None });
        }
        for i in kept {
            self.tiles.remove(&i);
        }
        Ok((std::mem::replace(&mut self.current, outer), here))
    }

    /// Whether sinks are computed from contractions over all rows, which are complete after the last panel.
    fn reads_across(&self, sinks: &[SinkId]) -> bool {
        let across = |n: &NodeId| self.plan.dots.iter().any(|d| d.node == *n && d.is_across());
        let reads = |s: &SinkId| {
            self.plan.sinks[*s]
                .dots
                .iter()
                .any(|&i| matches!(&self.plan.instances[i].source, Source::Dot(n) if across(n)))
        };
        sinks.iter().any(|s| reads(s) || self.plan.sinks[*s].needs.iter().any(reads))
    }

    /// Adds the reductions that a pass over `child` must run itself because they live inside it. Along rows of panels, what an
    /// earlier phase reduced is kept.
    pub(crate) fn close(&self, group: &[SinkId], child: ScopeId) -> Vec<SinkId> {
        let inside = |r: &SinkId| {
            let sink = &self.plan.sinks[*r];
            let parent = self.plan.completes(sink);
            let kept = parent == self.plan.row_scope()
                && group.first().is_some_and(|s| self.plan.phase(sink) < self.plan.phase(&self.plan.sinks[*s]));
            !kept && parent.is_some_and(|p| self.plan.scopes[p].path.contains(&child))
        };
        let mut all: Vec<SinkId> = group.to_vec();
        all.extend(group.iter().flat_map(|s| self.plan.sinks[*s].needs.iter().copied().filter(inside)));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Writes one pass over a scope, as a reduce or as loops.
    fn pass(&mut self, child: ScopeId, group: &[SinkId]) -> Result<()> {
        if let Some(dot) = self.plan.panel_dot()
            && self.is_panel(dot, child)
        {
            return self.panels(dot, child, group);
        }
        let before: Vec<bool> = self.values.iter().map(Option::is_some).collect();
        self.declare_carried(child, group);
        let vars = self.open_vars(child);
        let (mut body, here) = self.scope(child, group)?;
        let steps: Vec<SinkId> =
            here.into_iter().filter(|&s| matches!(self.plan.sinks[s].kind, SinkKind::Step { .. })).collect();
        if steps.is_empty() {
            self.forget(&before);
            for &(var, extent) in vars.iter().rev() {
                body = vec![
                    StmtKind::Loop(Loop { var, extent, step: 1, limit: None, axis: Axis::default(), body }).into(),
                ];
            }
            self.current.append(&mut body);
            return Ok(());
        }
        let mut reducers: SmallVec<[Reducer; 1]> = SmallVec::new();
        let (mut yields, mut results) = (SmallVec::new(), SmallVec::new());
        let mut finals: Vec<(InstanceId, ValueId)> = Vec::new();
        let mut sources = Sources::none();
        let position =
            vars.iter().fold(Index::default(), |p, (v, e)| p.times(e.known().unwrap_or(1) as i64).add(&Index::var(*v)));
        let outer = std::mem::replace(&mut self.current, body);
        for s in steps {
            let SinkKind::Step { op, result } = self.plan.sinks[s].kind else { continue };
            let value = self.value(self.plan.sinks[s].value)?;
            let reducer = Reducer { op, ty: self.type_of(value) };
            yields.push(value);
            if op.is_position() {
                yields.push(self.emit(ScalarType::I64, Expr::Index(position.clone())));
            }
            for ty in reducer.types() {
                results.push(self.kernel.new_value(ty));
            }
            finals.extend(results.last().map(|v| (result, *v)));
            reducers.push(reducer);
            if let Source::Reduced(n) | Source::Row(n) = self.plan.instances[result].source {
                sources = sources.union(&self.graph.node(n).sources);
            }
        }
        let body = std::mem::replace(&mut self.current, outer);
        self.forget(&before);
        let reduce = Reduce { vars, reducers, axis: Axis::default(), chunk: 0, body, yields, results };
        self.current.push(Stmt { kind: StmtKind::Reduce(reduce), sources });
        for (i, v) in finals {
            self.values[i] = Some(v);
            self.store_in_tile(i, v);
            self.bind(i)?;
        }
        Ok(())
    }

    /// Declares, before the loop over a scope, what runs along it.
    fn declare_carried(&mut self, child: ScopeId, group: &[SinkId]) {
        let roots: Vec<InstanceId> = group.iter().flat_map(|&s| self.plan.sinks[s].roots()).collect();
        for i in self.plan.cone(&roots, &|_| false) {
            let instance = &self.plan.instances[i];
            let Source::Scanned(n) = instance.source else { continue };
            let Op::Cumulative { op, .. } = self.graph.op(n) else { continue };
            if instance.scope != child || self.tiles_hold(i) {
                continue;
            }
            let ty: ScalarType = self.instance_type(i).into();
            let tile = Tile {
                name: format!("so_far{}", self.kernel.tiles.len()),
                dtype: ty.dtype(),
                dims: [1].into_iter().collect(),
                valid: [None].into_iter().collect(),
                scope: Scope::Thread,
            };
            let id = self.declare_tile(tile);
            self.push(StmtKind::Fill(id, op.identity(ty.dtype())));
            self.carried.insert(i, id);
        }
    }

    /// The variables of a loop over a scope.
    fn open_vars(&mut self, scope: ScopeId) -> SmallVec<[(VarId, Extent); 2]> {
        let mut vars = SmallVec::new();
        for &v in &self.plan.scopes[scope].vars {
            let extent = Extent::Const(self.extent(v));
            vars.push((self.own_var(v), extent));
        }
        vars
    }

    /// Drops the values that were written since: their loop is closed.
    pub(crate) fn forget(&mut self, before: &[bool]) {
        for (v, kept) in self.values.iter_mut().zip(before) {
            if !kept {
                *v = None;
            }
        }
    }

    pub(crate) fn push(&mut self, kind: StmtKind) {
        self.current.push(Stmt { kind, sources: self.sources.clone() });
    }

    /// Writes those values that the sinks need and that belong to `scope`, operands first.
    pub(crate) fn write_values(&mut self, sinks: &[SinkId], scope: ScopeId) -> Result<()> {
        let roots: Vec<InstanceId> = sinks.iter().flat_map(|&s| self.plan.sinks[s].roots()).collect();
        self.write_roots(&roots, scope)
    }

    /// Writes what belongs to `scope` of these values and what they are made from.
    pub(crate) fn write_roots(&mut self, roots: &[InstanceId], scope: ScopeId) -> Result<()> {
        let held: std::cell::RefCell<Vec<InstanceId>> = Default::default();
        let cone = self.plan.cone(roots, &|i| {
            let in_tile = self.values[i].is_none() && self.tiles_hold(i);
            if in_tile {
                held.borrow_mut().push(i);
            }
            in_tile || self.values[i].is_some()
        });
        let mut held = held.into_inner();
        held.sort_unstable();
        held.dedup();
        for i in held.into_iter().chain(cone) {
            if self.plan.instances[i].scope == scope && self.values[i].is_none() {
                self.write(i)?;
            }
        }
        Ok(())
    }

    /// The value of an instance, written before.
    pub(crate) fn value(&mut self, i: InstanceId) -> Result<ValueId> {
        self.values[i].ok_or_else(|| {
            Error::internal(format!(
                "{:?} at {:?} was needed before it was written",
                self.plan.instances[i].source, self.plan.instances[i].index
            ))
        })
    }

    /// A plan index in the variables of the kernel's loops.
    pub(crate) fn index(&self, x: &Index) -> Index {
        if self.substitution.is_empty() {
            return x.clone();
        }
        x.substitute(&|v| self.substitution.get(&v).cloned(), &|v| self.range(v))
    }

    /// The range of a variable of the plan, or of one that lowering added.
    pub(crate) fn range(&self, v: VarId) -> (i64, i64) {
        self.new_extents.get(&v).map_or_else(|| self.plan.range(v), |n| (0, *n - 1))
    }

    pub(crate) fn indices(&self, index: &[Index]) -> Vec<Index> {
        index.iter().map(|x| self.index(x)).collect()
    }

    /// The index into a parameter of a value's element.
    pub(crate) fn element(&self, param: ParamId, index: Vec<Index>) -> Vec<Index> {
        let order = &self.orders[param.index()];
        let mut index: Vec<Index> =
            if order.is_sorted() { index } else { order.iter().map(|&d| index[d].clone()).collect() };
        if let Some((dims, extents)) = self.merged.get(&param) {
            let inside = index[dims.clone()].iter().zip(extents);
            let one = inside.fold(Index::default(), |x, (at, n)| x.times(*n).add(at));
            index.splice(dims.clone(), [one]);
        }
        index
    }

    /// Makes one dim of several of a parameter that nothing has read yet and that continue each other.
    pub(crate) fn merge(&mut self, param: ParamId, dims: Range<usize>) {
        let p = &mut self.kernel.params[param.index()];
        let extents: SmallVec<[i64; 4]> =
            p.dims[dims.clone()].iter().map(|n| if let Extent::Const(n) = *n { n as i64 } else { 1 }).collect();
        let all = extents.iter().product::<i64>() as u64;
        p.dims.drain(dims.start + 1..dims.end);
        p.dims[dims.start] = Extent::Const(all);
        p.strides.drain(dims.start..dims.end - 1);
        self.merged.insert(param, (dims, extents));
    }

    /// Writes the value of one instance, and binds the variables that stand for it.
    fn write(&mut self, i: InstanceId) -> Result<()> {
        self.write_value(i)?;
        self.bind(i)
    }

    /// Binds the variables that stand for an instance's value, which is written.
    fn bind(&mut self, i: InstanceId) -> Result<()> {
        for v in self.bound.get(&i).cloned().unwrap_or_default() {
            let extent = self.plan.vars[v.0 as usize].extent;
            let own = self.own_var(v);
            let value = self.value(i)?;
            self.push(StmtKind::Bind { var: own, value, extent: Extent::Const(extent) });
        }
        Ok(())
    }

    /// The variable itself the first time, a fresh one after: each loop, and each binding, has its own.
    fn own_var(&mut self, v: VarId) -> VarId {
        if self.used_vars.insert(v) {
            return v;
        }
        let own = self.kernel.new_var(self.kernel.vars[v.0 as usize].clone());
        self.new_extents.insert(own, self.extent(v) as i64);
        self.substitution.insert(v, own.into());
        own
    }

    fn write_value(&mut self, i: InstanceId) -> Result<()> {
        let instance = self.plan.instances[i].clone();
        if let Some(tile) = self.tiles.get(&i).copied()
            && tile.written
        {
            let index = self.tile_index(tile, instance.scope);
            let ty = self.kernel.tiles[tile.id.index()].dtype.into();
            self.values[i] = Some(self.emit(ty, Expr::Load { from: Memory::Tile(tile.id), index, mask: None }));
            return Ok(());
        }
        let mask = instance.mask.map(|m| self.value(m)).transpose()?;
        let value = match &instance.source {
            Source::Load(n) => {
                let param = *self.params.get(n).ok_or_else(|| Error::internal("a load of no parameter"))?;
                let from = Memory::Param(param);
                let index = self.element(param, self.indices(&instance.index));
                self.emit(self.graph.node(*n).types[0].dtype.into(), Expr::Load { from, index, mask })
            }
            Source::Constant(l) => self.emit(l.scalar_type(), Expr::Const(l.in_kernel())),
            Source::Iota => {
                let index = self.index(&instance.index[0]);
                self.emit(ScalarType::I64, Expr::Index(index))
            }
            Source::Mask(conditions) => self.conditions(conditions, mask)?,
            Source::Compute(n) => {
                self.sources = self.graph.node(*n).sources.clone();
                let mut operands: SmallVec<[ValueId; 3]> = SmallVec::new();
                for &o in &instance.operands {
                    operands.push(self.value(o)?);
                }
                let value = self.compute(*n, &operands, &instance.index, mask);
                self.sources = Sources::none();
                value?
            }
            Source::Guarded(_) => {
                let (inside, value) = (self.value(instance.operands[0])?, self.value(instance.operands[1])?);
                let e: &mut dyn Emit = self;
                let zero = e.number(value, 0.0);
                e.select(inside, value, zero)
            }
            Source::Scanned(n) => {
                let Op::Cumulative { op, .. } = self.graph.op(*n) else {
                    return Err(Error::internal("what runs along a loop is no accumulation"));
                };
                let tile =
                    self.carried.get(&i).copied().ok_or_else(|| Error::internal("a result so far without a tile"))?;
                let (memory, at) = (Memory::Tile(tile), vec![Index::default()]);
                let value = self.value(instance.operands[0])?;
                self.sources = self.graph.node(*n).sources.clone();
                let so_far = self.emit(self.type_of(value), Expr::Load { from: memory, index: at.clone(), mask: None });
                let e: &mut dyn Emit = self;
                let value = e.binary(op.binary(), so_far, value);
                self.push(StmtKind::Store { to: memory, index: at, value, mask: None });
                self.sources = Sources::none();
                value
            }
            Source::Dot(n) => {
                let DotTile { tile, row, column } =
                    self.dot_tiles.get(n).cloned().ok_or_else(|| Error::internal("a contraction without a tile"))?;
                let dims = self.plan.dots.iter().find(|d| d.node == *n).map(|d| match d.reach {
                    Reach::Panels => [None, None],
                    Reach::Rows { column } => [None, Some(column)],
                    Reach::Across => [2, 1].map(|back| instance.index.len().checked_sub(back)),
                });
                let [own_row, own_column] = dims.unwrap_or_default();
                let at = |own: Option<usize>| own.map(|d| self.index(&instance.index[d])).unwrap_or_default();
                let (row, column) = (row.unwrap_or_else(|| at(own_row)), column.unwrap_or_else(|| at(own_column)));
                let ty = self.kernel.tiles[tile.index()].dtype.into();
                self.emit(ty, Expr::Load { from: Memory::Tile(tile), index: vec![row, column], mask })
            }
            Source::Reduced(_) | Source::Row(_) => {
                return Err(Error::internal("a reduction was needed before its loop"));
            }
        };
        self.values[i] = Some(value);
        self.store_in_tile(i, value);
        Ok(())
    }

    /// Whether all conditions hold, and the mask around them.
    fn conditions(&mut self, conditions: &[Condition], outer: Option<ValueId>) -> Result<ValueId> {
        let mut all = outer;
        for c in conditions {
            let index = self.index(c.index());
            let e: &mut dyn Emit = self;
            let x = e.emit(ScalarType::I64, Expr::Index(index));
            let zero = e.i64(0);
            let op = match c {
                Condition::NotNegative(_) => CompareOp::Ge,
                Condition::Zero(_) => CompareOp::Eq,
            };
            let holds = e.compare(op, x, zero);
            all = Some(match all {
                Some(before) => e.binary(BinaryOp::And, before, holds),
                None => holds,
            });
        }
        Ok(all.unwrap_or_else(|| self.emit(ScalarType::Bool, Expr::Const(Literal::Bool(true)))))
    }

    /// The operation of a member on operands that are written, and the check of what it requires of them.
    fn compute(&mut self, n: NodeId, operands: &[ValueId], index: &[Index], mask: Option<ValueId>) -> Result<ValueId> {
        let node = self.graph.node(n);
        let index = self.indices(index);
        if let Some((requirement, position)) = requirement(&node.op, node.types[0].dtype) {
            let at = linear(&index, &node.types[0].shape);
            let (ok, value) = check(self, requirement, operands[position], mask);
            let site = self.checks.len() as u32;
            let operation = node.op.operation();
            self.checks.push(CheckSite { operation, sources: node.sources.clone(), requirement });
            self.push(StmtKind::Check { ok, site, value, at });
        }
        scalar_operation(self, &node.op, node.types[0].dtype, operands, &index, &node.types[0].shape)
    }

    pub(crate) fn instance_type(&self, i: InstanceId) -> DType {
        match &self.plan.instances[i].source {
            Source::Load(n) | Source::Compute(n) | Source::Reduced(n) | Source::Row(n) => {
                self.graph.node(*n).types[0].dtype
            }
            Source::Scanned(n) | Source::Dot(n) => self.graph.node(*n).types[0].dtype,
            Source::Guarded(v) => self.instance_type(*v),
            Source::Constant(l) => l.dtype(),
            Source::Iota => DType::I64,
            Source::Mask(_) => DType::Bool,
        }
    }

    pub(crate) fn declare_tile(&mut self, tile: Tile) -> TileId {
        self.kernel.tiles.push(tile);
        let id = TileId(self.kernel.tiles.len() as u32 - 1);
        self.push(StmtKind::Tile(id));
        id
    }

    pub(crate) fn extent(&self, v: VarId) -> u64 {
        self.plan.vars[v.0 as usize].extent
    }
}
