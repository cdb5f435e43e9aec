//! What each operation wants of its operands, once it is wanted itself.

use super::planner::Planner;
use super::{Instance, InstanceId, ScopeId, SinkKind, Source};
use crate::index_map::{Condition, operand_index};
use lazuli_ir::{DimVec, Error, Index, NodeId, Op, ReduceOp, Result, VarId};
use smallvec::SmallVec;

impl Planner<'_, '_> {
    /// Registers what an instance of a member is computed from.
    pub(super) fn want_operands(&mut self, i: InstanceId) -> Result<()> {
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
            // What a row gives differs by the row, and by the element of the result.
            let row = |&tile: &ScopeId| {
                let vars = self.plan.scopes[tile].vars.iter().map(|&v| v.into());
                vars.chain(index.iter().cloned()).collect()
            };
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
}
