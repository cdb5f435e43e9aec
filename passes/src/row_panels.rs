//! Panels of whole rows: contractions whose results the group reduces along their rows, or contracts again.
//!
//! A panel is a number of rows whose columns are all in a tile. It runs in phases: contractions, and a loop over the rows in
//! which everything else runs that has what it needs, reductions along the rows included. What a later contraction reads of
//! the rows is written to a tile, in place of an earlier result that nothing else reads. So `softmax(q k') v` is two phases:
//! scores, their softmax in place; then the product, and the store. What is wide never lies in memory as a whole.

use crate::lower::Lowering;
use crate::operand::{Packed, position, read_dtype};
use crate::panels::{Side, wrap};
use crate::plan::{DotPlan, InstanceId, Plan, ScopeId, Sink, SinkId, SinkKind, Source};
use crate::row_tiles::RowTile;
use lazuli_ir::kernel::{Memory, ScalarType, Scope, StmtKind, Tile, TileId};
use lazuli_ir::{Error, Graph, Index, NodeId, Result, Target, TargetKind, VarId};

/// Rows of a panel at most.
const MOST_ROWS: u64 = 128;
/// Rows of a panel at most that is a block of a GPU.
const BLOCK_ROWS: u64 = 64;
/// Rows without which a contraction is slower than what a panel saves.
const LEAST_ROWS: u64 = 16;
/// Bytes of shared memory that a panel leaves to the operands of contractions, and to reductions.
const STAGE_BYTES: u64 = 40 << 10;
/// Multiplications that are worth sharing among threads.
const SHARED_WORK: u64 = 1 << 20;
/// Panels that such work should have.
const LEAST_PANELS: u64 = 4;

/// How the rows of a plan are cut.
pub(crate) struct RowPanels {
    /// Rows of a panel.
    pub(crate) rows: u64,
    /// All panels of the kernel.
    pub(crate) panels: u64,
    /// Bytes of columns that are read more often than panels as high as those of plain contractions would.
    pub(crate) read_again: u64,
}

impl RowPanels {
    /// The panels of a plan whose contractions take whole rows; `None` where not even a few rows fit half of the second-level
    /// cache. They depend on shapes alone.
    pub(crate) fn new(graph: &Graph, plan: &Plan, target: &Target) -> Option<RowPanels> {
        let scope = plan.row_scope()?;
        let extent = |v: &VarId| plan.vars[v.0 as usize].extent;
        let m = plan.scopes[scope].vars.first().map_or(1, extent).max(1);
        let batches = (plan.scopes[scope].iterations / m).max(1);
        let bytes = |n: NodeId| graph.node(n).types[0].dtype.size().max(4) as u64;
        let read = |d: &DotPlan| read_dtype(graph, d).size() as u64;
        let (mut row, mut work, mut columns) = (0u64, 0u64, 0u64);
        for d in &plan.dots {
            let (n, k) = (d.sides[1].iter().map(extent).product::<u64>(), d.contract.iter().product::<u64>());
            row = row.saturating_add(n.saturating_mul(bytes(d.node)));
            let loaded = matches!(plan.instances[d.operands[0].value].source, Source::Load(_));
            if (d.computed || !loaded) && takes_over(graph, plan, d).is_none() {
                row = row.saturating_add(k.saturating_mul(read(d)));
            }
            work = work.saturating_add(batches.saturating_mul(m).saturating_mul(n).saturating_mul(k));
            // What stays in cache from one panel to the next costs nothing.
            let read = n.saturating_mul(k).saturating_mul(read(d));
            columns = columns.saturating_add(if read > target.l2_bytes / 4 { read } else { 0 });
        }
        let fit = tile_bytes(target).checked_div(row).unwrap_or(MOST_ROWS);
        if fit < m.min(LEAST_ROWS) {
            return None;
        }
        // Panels of one height, as far as whole vectors allow.
        let even = |panels: u64| m.div_ceil(panels).next_multiple_of(LEAST_ROWS).min(m);
        let (most, least_panels) = match target.kind {
            TargetKind::Cpu => (MOST_ROWS, LEAST_PANELS),
            TargetKind::Nvidia(_) => (BLOCK_ROWS, u64::from(target.cores)),
        };
        let mut panels = m.div_ceil(fit.min(most));
        while even(panels) > fit || (work > SHARED_WORK && batches.saturating_mul(panels) < least_panels) {
            if even(panels) <= LEAST_ROWS {
                break;
            }
            panels += 1;
        }
        let rows = even(panels);
        let again = m.div_ceil(rows) - m.div_ceil(most);
        let read_again = columns.saturating_mul(again).saturating_mul(batches);
        Some(RowPanels { rows, panels: batches.saturating_mul(m.div_ceil(rows)), read_again })
    }
}

/// Bytes that the tiles of a panel may have: half of a core's second-level cache; on a GPU, the shared memory of a block, less
/// what operands come through.
fn tile_bytes(target: &Target) -> u64 {
    match target.kind {
        TargetKind::Cpu => target.l2_bytes / 2,
        TargetKind::Nvidia(_) => target.l1_bytes.saturating_sub(STAGE_BYTES),
    }
}

/// The contraction whose result the rows of a later one take the place of, element by element: one that nothing reads after.
fn takes_over(graph: &Graph, plan: &Plan, later: &DotPlan) -> Option<NodeId> {
    let scope = plan.row_scope()?;
    let rows = rows_read(plan, later).filter(|rows| !rows.dots.is_empty())?;
    let &[k] = plan.scopes[rows.scope].vars.as_slice() else { return None };
    if rows.scope == scope {
        return None;
    }
    let ty = |n: NodeId| graph.node(n).types[0].dtype;
    let dtype = read_dtype(graph, later);
    let candidates = plan.dots.iter().filter(|d| reads(plan, rows, d).next().is_some() && ty(d.node) == dtype);
    let extent = |v: VarId| plan.vars[v.0 as usize].extent;
    let mut free = candidates.filter(|d| d.sides[1].iter().map(|c| extent(*c)).eq([extent(k)]));
    free.find(|d| {
        // Where several contractions would take its place, the first does.
        let first = plan.dots.iter().find(|e| rows_read(plan, e).is_some_and(|s| reads(plan, s, d).next().is_some()));
        first.is_some_and(|e| e.node == later.node) && unread_after(plan, d, rows, Index::var(k))
    })
    .map(|d| d.node)
}

/// The sink that makes the rows of a contraction.
fn rows_read<'p>(plan: &'p Plan, dot: &DotPlan) -> Option<&'p Sink> {
    plan.sinks.iter().find(|s| matches!(s.kind, SinkKind::Row { dot: n } if n == dot.node))
}

/// The instances of a contraction's result that a sink is computed from.
fn reads<'p>(plan: &'p Plan, sink: &'p Sink, dot: &DotPlan) -> impl Iterator<Item = InstanceId> + use<'p> {
    let node = dot.node;
    sink.dots.iter().copied().filter(move |&i| plan.instances[i].source == Source::Dot(node))
}

/// Whether every sink that reads a contraction's result runs before `rows` does, or with it at the same element.
fn unread_after(plan: &Plan, dot: &DotPlan, rows: &Sink, column: Index) -> bool {
    let Some(depth) = plan.row_scope().map(|t| plan.scopes[t].path.len() - 1) else { return false };
    (0..plan.sinks.len()).all(|s| {
        let sink = &plan.sinks[s];
        let mut elements = reads(plan, sink, dot).peekable();
        if elements.peek().is_none() {
            return true;
        }
        // What is not kept for later phases runs again in each that needs it.
        let again = matches!(sink.kind, SinkKind::Step { .. }) && plan.completes(sink) != plan.row_scope();
        let now = |u: &Sink| plan.phase(u) == plan.phase(rows);
        let in_phase = now(sink) && !(again && plan.sinks.iter().any(|u| u.needs.contains(&s) && !now(u)));
        let same = sink.scope == rows.scope && sink.levels == rows.levels;
        let at = |i: InstanceId| dot.whole.map(|d| &plan.instances[i].index[d]) == Some(&column);
        let before =
            sink.scope != plan.scopes[rows.scope].path[depth] && sink.levels.get(depth) < rows.levels.get(depth);
        in_phase && if same { elements.all(at) } else { before }
    })
}

impl Lowering<'_> {
    /// Writes panels of rows: contractions and a loop over the rows, phase after phase.
    pub(crate) fn row_panels(&mut self, scope: ScopeId, phases: &[Vec<SinkId>]) -> Result<()> {
        let cut = RowPanels::new(self.graph, self.plan, self.target)
            .ok_or_else(|| Error::internal("a row of a contraction that fits no tile"))?;
        let Some(&row) = self.plan.scopes[scope].vars.first() else {
            return Err(Error::internal("rows without a loop"));
        };
        let before: Vec<bool> = self.values.iter().map(Option::is_some).collect();
        let outer = std::mem::take(&mut self.current);
        let mut panel = self.side(&[row], (0, cut.rows), "q");
        for (number, group) in phases.iter().enumerate() {
            if number > 0 {
                self.same_rows(row, &mut panel);
            }
            self.row_inside = panel.inside.first().map_or_else(Index::default, |i| i.count.into());
            self.write_dots(group, &panel)?;
            self.declare_rows(group, &panel)?;
            self.keep_results(group, &phases[number + 1..], &panel);
            let (body, _) = self.scope(scope, group)?;
            self.current.extend(panel.inside.iter().fold(body, |body, i| i.wrap(body)));
            self.forget(&before);
        }
        let body = std::mem::replace(&mut self.current, outer);
        self.dot_tiles.clear();
        let plan = self.plan;
        self.tiles.retain(|i, _| plan.instances[*i].scope != scope);
        self.current.append(&mut wrap(panel.loops, body));
        Ok(())
    }

    /// The same rows again, under a variable of their own.
    fn same_rows(&mut self, row: VarId, panel: &mut Side) {
        for inside in &mut panel.inside {
            inside.count = self.kernel.new_var(self.kernel.vars[row.0 as usize].clone());
            self.new_extents.insert(inside.count, inside.extent as i64);
            self.substitution.insert(row, inside.start.add(&inside.count.into()));
            self.dot_tiles.values_mut().for_each(|t| t.row = inside.count.into());
        }
    }

    /// Writes the contractions that these sinks read and that are not there yet.
    fn write_dots(&mut self, group: &[SinkId], panel: &Side) -> Result<()> {
        let plan = self.plan;
        for dot in &plan.dots {
            let read = group.iter().any(|s| reads(plan, &plan.sinks[*s], dot).next().is_some());
            if !read || self.dot_tiles.contains_key(&dot.node) {
                continue;
            }
            let n = dot.sides[1].first().map_or(1, |v| self.extent(*v));
            let sides = [panel.clone(), self.side(&dot.sides[1], (0, n), "p")];
            let rows = self.row_tiles.get(&dot.node).map(|tile| (0, Packed { tile: *tile, along: true }));
            self.write_dot(dot, &sides, rows)?;
        }
        Ok(())
    }

    /// Declares the tiles of rows that these sinks write.
    fn declare_rows(&mut self, group: &[SinkId], panel: &Side) -> Result<()> {
        let plan = self.plan;
        for &s in group {
            let SinkKind::Row { dot } = plan.sinks[s].kind else { continue };
            let Some(later) = plan.dots.iter().find(|d| d.node == dot) else { continue };
            let taken = takes_over(self.graph, plan, later).and_then(|n| self.dot_tiles.get(&n)).map(|t| t.tile);
            let tile = match taken {
                Some(tile) => tile,
                None => self.declare_row(later, panel),
            };
            self.row_tiles.insert(dot, tile);
        }
        Ok(())
    }

    /// Declares tiles for what reductions along the rows give these sinks and later phases read.
    fn keep_results(&mut self, group: &[SinkId], later: &[Vec<SinkId>], panel: &Side) {
        let plan = self.plan;
        let roots: Vec<InstanceId> = later.iter().flatten().flat_map(|s| plan.sinks[*s].roots()).collect();
        let read = plan.cone(&roots, &|_| false);
        for &s in group {
            let SinkKind::Step { result, .. } = plan.sinks[s].kind else { continue };
            if plan.completes(&plan.sinks[s]) == plan.row_scope() && read.contains(&result) {
                let name = format!("kept{}", self.kernel.tiles.len());
                let dtype = ScalarType::from(self.instance_type(result)).dtype();
                let dims = std::iter::once(panel.size()).collect();
                let valid = std::iter::once(panel.valid()).collect();
                let id = self.declare_tile(Tile { name, dtype, dims, valid, scope: Scope::Thread });
                self.tiles.insert(result, RowTile { id, written: false });
            }
        }
    }

    fn declare_row(&mut self, dot: &DotPlan, panel: &Side) -> TileId {
        let dims = [panel.size(), dot.contract.iter().product()].into_iter().collect();
        let valid = [panel.valid(), None].into_iter().collect();
        let name = format!("rows{}", self.kernel.tiles.len());
        let dtype = read_dtype(self.graph, dot);
        self.declare_tile(Tile { name, dtype, dims, valid, scope: Scope::Thread })
    }

    /// Stores an element of the rows that a contraction reads.
    pub(crate) fn store_row(&mut self, dot: NodeId, s: SinkId) -> Result<()> {
        let tile = *self.row_tiles.get(&dot).ok_or_else(|| Error::internal("rows without a tile"))?;
        let sink = &self.plan.sinks[s];
        let value = self.value(sink.value)?;
        let Some(plan) = self.plan.dots.iter().find(|d| d.node == dot) else {
            return Err(Error::internal("rows of no contraction"));
        };
        let along: Vec<Index> = plan.operands[0].contract.iter().map(|&v| self.index(&v.into())).collect();
        let index = vec![self.row_inside.clone(), position(&along, &plan.contract)];
        self.push(StmtKind::Store { to: Memory::Tile(tile), index, value, mask: None });
        Ok(())
    }
}
