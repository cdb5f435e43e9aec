//! What a contraction wants: where it runs, and its operands.

use super::planner::Planner;
use super::{DotPlan, InstanceId, OperandPlan, Reach, ScopeId, SinkKind, Source, is_movement};
use crate::layout::contraction_order;
use lazuli_ir::{DimVec, DotDims, Error, Index, NodeId, Op, Result, VarId};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

/// One side of a contraction: an operand, and which of its free dims are rows (or columns).
struct Side {
    right: bool,
    /// Positions among the operand's free dims, in the order of the tile.
    own: Vec<usize>,
}

/// A contraction and the variables of its result.
struct Wanted<'a> {
    node: NodeId,
    dims: &'a DotDims,
    operands: DimVec<NodeId>,
    free: [DimVec<usize>; 2],
    /// The variable of each dim of the result.
    vars: Vec<VarId>,
    /// The pairs of dims that are contracted, in order.
    contract: Vec<(usize, usize)>,
}

impl Wanted<'_> {
    /// The place among the result's dims of a side's first free dim.
    fn first(&self, right: bool) -> usize {
        self.dims.batch.len() + if right { self.free[0].len() } else { 0 }
    }

    /// The free dim of an operand that a dim of the result is: which operand, and which of its free dims.
    fn side_of(&self, dim: usize) -> Option<(bool, usize)> {
        let right = dim >= self.first(true);
        dim.checked_sub(self.first(right)).map(|place| (right, place))
    }

    /// The index into an operand, with these variables for some of its free dims and for the contraction.
    fn index(&self, side: &Side, own: &[VarId], contract: &[VarId]) -> Vec<Index> {
        let pick = |&(l, r): &(usize, usize)| if side.right { r } else { l };
        let free = &self.free[usize::from(side.right)];
        let mut at = vec![Index::default(); free.len() + self.dims.batch.len() + self.contract.len()];
        for (b, pair) in self.dims.batch.iter().enumerate() {
            at[pick(pair)] = self.vars[b].into();
        }
        for (place, &d) in free.iter().enumerate() {
            let counted = side.own.iter().position(|p| *p == place).and_then(|p| own.get(p));
            at[d] = counted.copied().unwrap_or(self.vars[self.first(side.right) + place]).into();
        }
        for (pair, v) in self.contract.iter().zip(contract) {
            at[pick(pair)] = (*v).into();
        }
        at
    }
}

/// The dim of a result that is wanted elsewhere than at the tile's variables, when all others are at them: `Some(None)` where
/// all are.
fn whole_dim(index: &[Index], tile: &[VarId]) -> Option<Option<usize>> {
    let fits = |but: Option<usize>| {
        let others: Vec<Option<VarId>> =
            index.iter().enumerate().filter(|(d, _)| Some(*d) != but).map(|(_, x)| x.as_var()).collect();
        tile.len() == others.len() && tile.iter().all(|v| others.contains(&Some(*v)))
    };
    if fits(None) {
        return Some(None);
    }
    let mut dims = (0..index.len()).map(Some).filter(|d| fits(*d));
    match (dims.next(), dims.next()) {
        (Some(dim), None) => Some(dim),
        _ => None,
    }
}

fn elsewhere() -> Error {
    Error::internal("a contraction is wanted elsewhere than at the group's tile")
}

impl Planner<'_, '_> {
    pub(super) fn plan_dot(&mut self, i: InstanceId, node: NodeId, index: &[Index]) -> Result<()> {
        let tile: Vec<VarId> = self.plan.tile.iter().flat_map(|&s| self.plan.scopes[s].vars.iter().copied()).collect();
        let reach = match whole_dim(index, &tile) {
            Some(None) => Reach::Panels,
            Some(Some(column)) => Reach::Rows { column },
            None if self.is_across(node, index, &tile) => Reach::Across,
            None => return Err(elsewhere()),
        };
        let whole = if let Reach::Rows { column } = reach { Some(column) } else { None };
        if let Some(known) = self.plan.dots.iter().find(|d| d.node == node) {
            let same = |d: usize| Some(d) == whole || index[d].as_var() == Some(known.result[d]);
            if reach == Reach::Panels || known.reach != reach || !(0..index.len()).all(same) {
                return Err(elsewhere());
            }
            let read: SmallVec<[InstanceId; 2]> = known.packed().map(|o| o.value).collect();
            self.plan.instances[i].operands.extend(read);
            return Ok(());
        }
        let fits = match reach {
            // One contraction runs in panels of rows and columns, and alone.
            Reach::Panels => self.plan.dots.is_empty() && self.plan.instances[i].mask.is_none(),
            Reach::Rows { .. } | Reach::Across => self.plan.panel_dot().is_none() && self.plan.tile.len() == tile.len(),
        };
        let graph = self.group.graph;
        let (Op::Dot { dims, .. }, true) = (graph.op(node), fits) else { return Err(elsewhere()) };
        let operands: DimVec<NodeId> = graph.operands(node).iter().map(|v| v.node).collect();
        let rank = |right: usize| self.shape(operands[right]).rank();
        let free = [dims.free(false, rank(0)), dims.free(true, rank(1))];
        let contract = contraction_order(graph, self.group.orders, dims, [operands[0], operands[1]]);
        let mut vars: Vec<VarId> = Vec::with_capacity(index.len());
        for (d, x) in index.iter().enumerate() {
            vars.push(match x.as_var() {
                Some(v) if whole != Some(d) => v,
                _ => self.new_var(self.shape(node).extents()[d] as u64, 0),
            });
        }
        let wanted = Wanted { node, dims, operands, free, vars, contract };
        let (sides, parent) = match reach {
            Reach::Panels => self.panel_sides(&wanted, &tile)?,
            Reach::Rows { column } => self.row_sides(&wanted, &tile, column)?,
            Reach::Across => ([false, true].map(|right| Side { right, own: vec![0] }), self.around()),
        };
        self.want_sides(i, &wanted, sides, parent, reach)
    }

    /// The scope around the last tile dim.
    fn around(&self) -> ScopeId {
        self.plan.tile.last().and_then(|&t| self.plan.scopes[t].parent).unwrap_or(0)
    }

    /// Whether a contraction over the last tile dim is wanted at the other ones, and the group makes an operand from rows of another.
    fn is_across(&self, node: NodeId, index: &[Index], tile: &[VarId]) -> bool {
        let graph = self.group.graph;
        let (Op::Dot { dims, .. }, Some((row, outer))) = (graph.op(node), tile.split_last()) else { return false };
        let operands = graph.operands(node);
        let shapes = [0, 1].map(|s| self.shape(operands[s].node));
        let (&[(contracted, _)], Some((batch, free))) =
            (dims.contract.as_slice(), index.split_at_checked(dims.batch.len()))
        else {
            return false;
        };
        [false, true].iter().all(|right| dims.free(*right, shapes[usize::from(*right)].rank()).len() == 1)
            && self.plan.tile.len() == tile.len()
            && shapes[0].extents()[contracted] as u64 == self.plan.vars[row.0 as usize].extent
            && batch.len() == outer.len()
            && outer.iter().all(|v| batch.iter().any(|x| x.as_var() == Some(*v)))
            && free.iter().all(|x| x.as_var().is_some_and(|v| !tile.contains(&v)))
            && operands.iter().any(|v| self.is_made_of_rows(v.node))
    }

    /// Whether the group makes a value from a contraction's result.
    fn is_made_of_rows(&self, n: NodeId) -> bool {
        let graph = self.group.graph;
        let mut seen: FxHashSet<NodeId> = FxHashSet::default();
        let mut stack = vec![n];
        while let Some(n) = stack.pop() {
            let passes = (self.group.member)(n) || (self.group.free)(n) && is_movement(graph.op(n));
            if !passes || !seen.insert(n) {
                continue;
            }
            if matches!(graph.op(n), Op::Dot { .. }) {
                return true;
            }
            stack.extend(graph.operands(n).iter().map(|v| v.node));
        }
        false
    }

    /// The tile's innermost dims of one operand as columns, those of the other one before them as rows; the batch and what else
    /// stands outside are loops.
    fn panel_sides(&self, wanted: &Wanted<'_>, tile: &[VarId]) -> Result<([Side; 2], ScopeId)> {
        let dim = |v: &VarId| wanted.vars.iter().position(|w| w == v);
        let dims: Vec<usize> = tile.iter().map_while(dim).collect();
        if dims.len() != wanted.vars.len() || dims.len() != tile.len() {
            return Err(elsewhere());
        }
        let free: Vec<Option<(bool, usize)>> = dims.into_iter().map(|d| wanted.side_of(d)).collect();
        let right = free.last().copied().flatten().is_none_or(|(right, _)| right);
        let of = |right: bool| move |f: &Option<(bool, usize)>| f.is_some_and(|(r, _)| r == right);
        let own = |right: bool, end: usize| {
            let run = free[..end].iter().rev().take_while(|f| of(right)(f)).count();
            (Side { right, own: free[end - run..end].iter().flatten().map(|f| f.1).collect() }, end - run)
        };
        let (columns, end) = own(right, free.len());
        let (rows, end) = own(!right, end);
        // Rows that are all outside leave products of a matrix and a vector.
        if [&rows, &columns].into_iter().any(|s| s.own.is_empty() && !wanted.free[usize::from(s.right)].is_empty()) {
            return Err(elsewhere());
        }
        let parent = end.checked_sub(1).and_then(|b| self.plan.tile.get(b)).copied().unwrap_or(0);
        Ok(([rows, columns], parent))
    }

    /// The innermost tile dim as rows, and `whole` as columns; the other dims are loops outside.
    fn row_sides(&self, wanted: &Wanted<'_>, tile: &[VarId], whole: usize) -> Result<([Side; 2], ScopeId)> {
        let row = tile.last().and_then(|row| wanted.vars.iter().position(|v| v == row));
        let sides = row.and_then(|row| Some((wanted.side_of(row)?, wanted.side_of(whole)?)));
        let Some((row, column)) = sides.filter(|(row, column)| row.0 != column.0) else { return Err(elsewhere()) };
        Ok(([row, column].map(|(right, place)| Side { right, own: vec![place] }), self.around()))
    }

    /// Wants the operands, each in a scope of its own, at variables of its own; rows that the group computes, in the loops over
    /// its rows.
    fn want_sides(
        &mut self,
        i: InstanceId,
        wanted: &Wanted<'_>,
        sides: [Side; 2],
        parent: ScopeId,
        reach: Reach,
    ) -> Result<()> {
        let extents = self.shape(wanted.operands[0]).extents();
        let counts: Vec<u64> = wanted.contract.iter().map(|&(l, _)| extents[l] as u64).collect();
        let made = [0, 1].map(|s: usize| self.is_computed(wanted.operands[usize::from(sides[s].right)]));
        let computed = match reach {
            Reach::Panels => [false; 2],
            Reach::Rows { .. } => [made[0], false],
            Reach::Across => made,
        };
        let mut vars: [Vec<VarId>; 2] = Default::default();
        let mut plans: SmallVec<[OperandPlan; 2]> = SmallVec::new();
        for (s, side) in sides.iter().enumerate() {
            let first = wanted.first(side.right);
            vars[s] = side.own.iter().map(|p| wanted.vars[first + p]).collect();
            let operand = wanted.operands[usize::from(side.right)];
            if computed[s] {
                let base = self.plan.tile.last().copied().unwrap_or(0);
                let extent = |v: &VarId| self.plan.vars[v.0 as usize].extent;
                let across = reach == Reach::Across;
                let along: Vec<u64> = if across { vars[s].iter().map(extent).collect() } else { counts.clone() };
                let scope = self.scope(base, along);
                let along = if scope == base { Vec::new() } else { self.plan.scopes[scope].vars.to_vec() };
                let rows = || self.plan.scopes[base].vars.last().copied().into_iter().collect();
                let (free, contract) = if across { (along, rows()) } else { (vars[s].clone(), along) };
                let value = self.want(operand, wanted.index(side, &free, &contract), None)?;
                // Several contractions may read the same rows.
                if !self.plan.sinks.iter().any(|s| s.kind == SinkKind::Row && s.value == value) {
                    self.sink(SinkKind::Row, value, scope);
                }
                plans.push(OperandPlan { value, scope, free, contract });
                continue;
            }
            let own = vars[s].iter().map(|v| self.plan.vars[v.0 as usize].extent);
            let scope = self.own_scope(parent, own.chain(counts.iter().copied()).collect::<Vec<_>>());
            let scoped = if scope == parent { SmallVec::new() } else { self.plan.scopes[scope].vars.clone() };
            let (free, contract) = scoped.split_at(vars[s].len().min(scoped.len()));
            let at = wanted.index(side, free, contract);
            // What a kernel before this one writes is read, whatever it is.
            let stored = !(self.group.free)(operand) && !(self.group.member)(operand);
            let value =
                if stored { self.intern(Source::Load(operand), at, None, None) } else { self.want(operand, at, None)? };
            plans.push(OperandPlan { value, scope, free: free.to_vec(), contract: contract.to_vec() });
            self.plan.instances[i].operands.push(value);
        }
        let Ok(operands) = <[OperandPlan; 2]>::try_from(plans.into_vec()) else {
            return Err(Error::internal("a contraction has two operands"));
        };
        let swapped = matches!(reach, Reach::Rows { .. }) && sides[0].right;
        let (node, result, sides, contract) = (wanted.node, wanted.vars.clone(), vars, counts);
        self.plan.dots.push(DotPlan { node, result, reach, swapped, computed, sides, operands, contract });
        Ok(())
    }

    /// Whether a member of the group makes a value, behind movements.
    fn is_computed(&self, mut n: NodeId) -> bool {
        let graph = self.group.graph;
        while (self.group.free)(n) && is_movement(graph.op(n)) {
            n = graph.operands(n)[0].node;
        }
        (self.group.member)(n)
    }
}
