//! Panels of whole rows: contractions whose results the group reduces along their rows, or contracts again.
//!
//! A panel is a number of rows whose columns are all in a tile. It runs in phases: contractions, and a loop over the rows in
//! which everything else runs that has what it needs, reductions along the rows included. What a later contraction reads of
//! the rows is written to a tile, in place of an earlier result that nothing else reads. So `softmax(q k') v` is two phases:
//! scores, their softmax in place; then the product, and the store. What is wide never lies in memory as a whole.
//!
//! A contraction over the rows themselves (the gradient of keys) has its result in a tile around the panels. Each panel adds what its rows
//! contribute, as soon as they are written, and what reads the result runs after the last panel; so panels that belong
//! together run one after the other, and threads share what is outside of them.

use crate::lower::Lowering;
use crate::operand::{Chunk, Packed, read_dtype};
use crate::panels::{DotTile, Side, wrap};
use crate::plan::{DotPlan, InstanceId, Plan, Reach, ScopeId, Sink, SinkId, SinkKind, Source};
use crate::row_tiles::RowTile;
use lazuli_ir::kernel::{Memory, ScalarType, Scope, StmtKind, Tile, TileId};
use lazuli_ir::{DType, Error, Graph, Index, NodeId, Result, Target, TargetKind, VarId};
use smallvec::SmallVec;

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
    /// Panels of the kernel that do not wait for each other.
    pub(crate) panels: u64,
    /// Bytes of columns that are read more often than panels as high as those of plain contractions would.
    pub(crate) read_again: u64,
}

impl RowPanels {
    /// The panels of a plan whose contractions take whole rows; `None` where not even a few rows fit the second-level
    /// cache. They depend on shapes alone.
    pub(crate) fn new(graph: &Graph, plan: &Plan, target: &Target) -> Option<RowPanels> {
        let scope = plan.row_scope()?;
        let extent = |v: &VarId| plan.vars[v.0 as usize].extent;
        let m = plan.scopes[scope].vars.first().map_or(1, extent).max(1);
        let batches = (plan.scopes[scope].iterations / m).max(1);
        let bytes = |n: NodeId| graph.node(n).types[0].dtype.size().max(4) as u64;
        let read = |d: &DotPlan| read_dtype(graph, d).size() as u64;
        let side = |d: &DotPlan, s: usize| d.sides[s].iter().map(extent).product::<u64>();
        let loaded = |d: &DotPlan, s: usize| matches!(plan.instances[d.operands[s].value].source, Source::Load(_));
        let (mut row, mut work, mut columns, mut all_columns) = (0u64, 0u64, 0u64, 0u64);
        for d in &plan.dots {
            let n = side(d, 1);
            let packed = |s: usize| !d.computed[s] && !loaded(d, s);
            let (k, held) = match d.reach {
                // Its result lies beside the panels, and is added to.
                Reach::Across => (side(d, 0), [0, 1].map(|s| if packed(s) { side(d, s) } else { 0 }).iter().sum()),
                Reach::Panels | Reach::Rows { .. } => {
                    let k = d.contract.iter().product();
                    row = row.saturating_add(n.saturating_mul(bytes(d.node)));
                    (k, if packed(0) { k } else { 0 })
                }
            };
            row = row.saturating_add(held.saturating_mul(read(d)));
            work = work.saturating_add(batches.saturating_mul(m).saturating_mul(n).saturating_mul(k));
            all_columns = all_columns.saturating_add(n.saturating_mul(k).saturating_mul(read(d)));
            // What stays in cache from one panel to the next costs nothing.
            let read = n.saturating_mul(k).saturating_mul(if d.is_across() { 2 * bytes(d.node) } else { read(d) });
            columns = columns.saturating_add(if read > target.l2_bytes / 4 { read } else { 0 });
        }
        let taken = takeovers(graph, plan);
        for (s, sink) in plan.sinks.iter().enumerate() {
            let own = !taken.iter().any(|t| t.0 == s);
            let Some(reader) = plan.row_dots(sink).next().filter(|_| own) else { continue };
            let inner = if Some(sink.scope) == plan.row_scope() {
                1
            } else {
                plan.scopes[sink.scope].vars.iter().map(extent).product()
            };
            row = row.saturating_add(inner.saturating_mul(read(reader)));
        }
        let fit = tile_bytes(target, all_columns).checked_div(row).unwrap_or(MOST_ROWS);
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
        // Panels that add to one result run one after the other.
        let apart = if plan.dots.iter().any(DotPlan::is_across) { 1 } else { m.div_ceil(rows) };
        Some(RowPanels { rows, panels: batches.saturating_mul(apart), read_again })
    }
}

/// Bytes that the tiles of a panel may have: half of a core's second-level cache, or all of it where the columns of its contractions fill
/// that anyway, and are read again for each panel; on a GPU, the shared memory of a block, less what operands come through.
fn tile_bytes(target: &Target, columns: u64) -> u64 {
    match target.kind {
        TargetKind::Cpu => {
            if columns < target.l2_bytes {
                target.l2_bytes / 2
            } else {
                target.l2_bytes
            }
        }
        TargetKind::Nvidia(_) => target.l1_bytes.saturating_sub(STAGE_BYTES),
    }
}

/// The rows that take the place of a contraction's result, element by element: one that nothing reads after. What few results could
/// give way to chooses first.
fn takeovers(graph: &Graph, plan: &Plan) -> Vec<(SinkId, NodeId)> {
    let ty = |n: NodeId| graph.node(n).types[0].dtype;
    let extent = |v: &VarId| plan.vars[v.0 as usize].extent;
    let candidates = |s: SinkId| -> SmallVec<[NodeId; 4]> {
        let rows = &plan.sinks[s];
        let Some(reader) = plan.row_dots(rows).next() else { return SmallVec::new() };
        let &[k] = plan.scopes[rows.scope].vars.as_slice() else { return SmallVec::new() };
        if plan.row_scope() == Some(rows.scope) {
            return SmallVec::new();
        }
        let fits = |d: &&DotPlan| {
            ty(d.node) == read_dtype(graph, reader)
                && !d.is_across()
                && d.sides[1].iter().map(extent).eq([extent(&k)])
                && reads(plan, rows, d).next().is_some()
                && unread_after(plan, d, rows, Index::var(k))
        };
        plan.dots.iter().filter(fits).map(|d| d.node).collect()
    };
    let mut rows: Vec<(SinkId, SmallVec<[NodeId; 4]>)> =
        (0..plan.sinks.len()).map(|s| (s, candidates(s))).filter(|(_, c)| !c.is_empty()).collect();
    rows.sort_by_key(|(_, c)| c.len());
    let mut taken: Vec<(SinkId, NodeId)> = Vec::new();
    for (s, candidates) in rows {
        taken.extend(candidates.into_iter().find(|n| !taken.iter().any(|t| t.1 == *n)).map(|n| (s, n)));
    }
    taken
}

/// The instances of a contraction's result that a sink is computed from, as far as that is not kept as rows of earlier phases.
fn reads<'p>(plan: &'p Plan, sink: &'p Sink, dot: &DotPlan) -> impl Iterator<Item = InstanceId> + use<'p> {
    let node = dot.node;
    let is_own = move |i: &InstanceId| plan.instances[*i].source == Source::Dot(node);
    let cone = if sink.dots.iter().any(is_own) {
        let roots: SmallVec<[InstanceId; 2]> = sink.roots().collect();
        plan.cone(&roots, &|i| is_kept(plan, sink, i))
    } else {
        Vec::new()
    };
    cone.into_iter().filter(is_own)
}

/// Whether an earlier phase than that of a sink wrote a value as the element of rows.
fn is_kept(plan: &Plan, sink: &Sink, i: InstanceId) -> bool {
    let phase = plan.phase(sink);
    plan.sinks.iter().any(|s| s.kind == SinkKind::Row && s.value == i && plan.phase(s) < phase)
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
        let at = |i: InstanceId| match dot.reach {
            Reach::Rows { column: d } => plan.instances[i].index[d] == column,
            Reach::Panels | Reach::Across => false,
        };
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
        // What contractions over all rows pack is made from values that stand before the panels, too.
        let packed = self.plan.dots.iter().filter(|d| d.is_across()).flat_map(DotPlan::packed);
        let packed: Vec<InstanceId> = packed.map(|o| o.value).collect();
        self.write_roots(&packed, self.plan.scopes[scope].parent.unwrap_or(0))?;
        let before: Vec<bool> = self.values.iter().map(Option::is_some).collect();
        let across = self.declare_across();
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
            self.add_across(group, &across, &panel)?;
            self.keep_rows(group);
        }
        let body = std::mem::replace(&mut self.current, outer);
        self.dot_tiles.clear();
        self.row_tiles.clear();
        let results = across.into_iter().map(|(n, _, tile)| (n, DotTile { tile, row: None, column: None }));
        self.dot_tiles.extend(results);
        let plan = self.plan;
        self.tiles.retain(|i, tile| plan.instances[*i].scope != scope && !tile.of_panel);
        self.current.append(&mut wrap(panel.loops, body));
        Ok(())
    }

    /// Declares the results of contractions over all rows.
    fn declare_across(&mut self) -> Vec<(NodeId, [Side; 2], TileId)> {
        let plan = self.plan;
        let mut declared = Vec::new();
        for dot in plan.dots.iter().filter(|d| d.is_across()) {
            let sides = [0, 1].map(|s| {
                let whole = dot.sides[s].first().map_or(1, |v| self.extent(*v));
                self.side(&dot.sides[s], (0, whole), "p")
            });
            // Its loops are outside of the panels.
            dot.sides.iter().flatten().for_each(|v| drop(self.substitution.remove(v)));
            let tile = self.declare_result(dot, &sides);
            declared.push((dot.node, sides, tile));
        }
        declared
    }

    /// Adds what the rows that these sinks wrote contribute to contractions over all rows.
    fn add_across(&mut self, group: &[SinkId], across: &[(NodeId, [Side; 2], TileId)], panel: &Side) -> Result<()> {
        let plan = self.plan;
        let Some(rows) = panel.inside.first() else { return Ok(()) };
        let chunk = Chunk { dims: vec![(rows.start.clone(), rows.extent)], limit: rows.limit.clone() };
        for (n, sides, tile) in across {
            let Some(dot) = plan.dots.iter().find(|d| d.node == *n) else { continue };
            let written = |value: InstanceId| {
                group.iter().any(|s| plan.sinks[*s].kind == SinkKind::Row && plan.sinks[*s].value == value)
            };
            let mut ready = [None, None];
            for (s, o) in dot.rows() {
                let rows = self.row_tiles.get(&o.value);
                ready[s] = rows.map(|tile| Packed { tile: *tile, along: false, whole: false });
            }
            // In the phase that writes the last of its operands.
            if dot.rows().all(|(s, _)| ready[s].is_some()) && dot.rows().any(|(_, o)| written(o.value)) {
                self.multiply(dot, sides, *tile, &chunk, ready)?;
            }
        }
        Ok(())
    }

    /// The same rows again, under a variable of their own.
    fn same_rows(&mut self, row: VarId, panel: &mut Side) {
        for inside in &mut panel.inside {
            inside.count = self.kernel.new_var(self.kernel.vars[row.0 as usize].clone());
            self.new_extents.insert(inside.count, inside.extent as i64);
            self.substitution.insert(row, inside.start.add(&inside.count.into()));
            self.dot_tiles.values_mut().for_each(|t| t.row = Some(inside.count.into()));
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
            let rows = self.row_tiles.get(&dot.operands[0].value).filter(|_| dot.computed[0]);
            let rows = rows.map(|tile| Packed { tile: *tile, along: true, whole: true });
            self.write_dot(dot, &sides, [rows, None])?;
        }
        Ok(())
    }

    /// Declares the tiles of rows that these sinks write.
    fn declare_rows(&mut self, group: &[SinkId], panel: &Side) -> Result<()> {
        let plan = self.plan;
        let taken = takeovers(self.graph, plan);
        for &s in group {
            let sink = &plan.sinks[s];
            let Some(reader) = plan.row_dots(sink).next() else { continue };
            let place = taken.iter().find(|t| t.0 == s).and_then(|t| self.dot_tiles.get(&t.1)).map(|t| t.tile);
            let tile = match place {
                Some(tile) => tile,
                None => self.declare_row(sink, read_dtype(self.graph, reader), panel),
            };
            self.row_tiles.insert(sink.value, tile);
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
                self.tiles.insert(result, RowTile { id, written: false, of_panel: true });
            }
        }
    }

    fn declare_row(&mut self, sink: &Sink, dtype: DType, panel: &Side) -> TileId {
        let columns = self.along_row(sink).iter().map(|v| self.extent(*v)).product();
        let dims = [panel.size(), columns].into_iter().collect();
        let valid = [panel.valid(), None].into_iter().collect();
        let name = format!("rows{}", self.kernel.tiles.len());
        self.declare_tile(Tile { name, dtype, dims, valid, scope: Scope::Thread })
    }

    /// Keeps the elements of rows that these sinks wrote for later phases.
    fn keep_rows(&mut self, group: &[SinkId]) {
        let plan = self.plan;
        for value in group.iter().filter(|s| plan.sinks[**s].kind == SinkKind::Row).map(|s| plan.sinks[*s].value) {
            if let Some(&id) = self.row_tiles.get(&value) {
                self.tiles.insert(value, RowTile { id, written: true, of_panel: true });
            }
        }
    }

    /// The variables that count a row which contractions read.
    fn along_row(&self, sink: &Sink) -> &[VarId] {
        if Some(sink.scope) == self.plan.row_scope() { &[] } else { &self.plan.scopes[sink.scope].vars }
    }

    /// Stores an element of the rows that contractions read.
    pub(crate) fn store_row(&mut self, s: SinkId) -> Result<()> {
        let sink = &self.plan.sinks[s];
        let tile = *self.row_tiles.get(&sink.value).ok_or_else(|| Error::internal("rows without a tile"))?;
        let value = self.value(sink.value)?;
        let index = self.tile_index(RowTile { id: tile, written: false, of_panel: true }, sink.scope);
        self.push(StmtKind::Store { to: Memory::Tile(tile), index, value, mask: None });
        Ok(())
    }
}
