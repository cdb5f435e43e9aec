//! Panels: how the loops around a contraction are lowered.
//!
//! A contraction replaces its row and column loops by loops over panels. Inside a panel stand a tile, `fill`, `dot`, and
//! loops over the tile in which everything else of the group runs as the epilogue, while the tile is in cache. The free dims
//! beyond the last of each side become plain loops outside. Panel shapes depend on the problem's shape alone.

use crate::lower::Lowering;
use crate::plan::{DotPlan, ScopeId, SinkId};
use lazuli_ir::kernel::{Axis, Block, Dot, DotOperand, Extent, Loop, Memory, ScalarType, Scope, Stmt, StmtKind, Tile};
use lazuli_ir::{Error, Index, Literal, NodeId, Result, Target, TargetKind, VarId};

/// One side of a panel.
pub(crate) struct Panel {
    /// Counts inside the panel.
    inside: VarId,
    /// Where the panel starts.
    start: Index,
    size: u64,
    /// What is left of the dim, where panels do not divide it.
    limit: Option<Index>,
}

/// The shape of a contraction's panels: at most 128 rows and 256 columns, so that a tile is a quarter of a common second-level
/// cache, and narrower where that would leave too few panels to share. It depends on the problem's shape alone.
fn panel_shape(m: u64, n: u64, k: u64, target: &Target) -> (u64, u64) {
    let (most_rows, most_columns) = match target.kind {
        TargetKind::Cpu => (128, 256),
        // The tile is shared memory of a block.
        TargetKind::Nvidia(_) => (64, 64),
    };
    let mut rows = m.min(most_rows);
    let fits = (target.l2_bytes / 2 / 4 / rows.max(1)).max(16);
    let mut columns = n.min(most_columns).min(fits);
    let work = m.saturating_mul(n).saturating_mul(k);
    while work > (1 << 20) && m.div_ceil(rows.max(1)) * n.div_ceil(columns.max(1)) < 4 {
        if columns >= 128 {
            columns = columns.div_ceil(2).next_multiple_of(64);
        } else if rows >= 64 {
            rows = rows.div_ceil(2).next_multiple_of(32);
        } else {
            break;
        }
    }
    (rows.max(1), columns.max(1))
}

impl Lowering<'_> {
    /// Whether a scope is where the panels of the contraction begin: the row loop, or the column loop of a single row.
    pub(crate) fn is_panel(&self, dot: &DotPlan, scope: ScopeId) -> bool {
        let owns = |v: Option<VarId>| v.is_some_and(|v| self.plan.vars[v.0 as usize].scope == scope);
        owns(dot.row) || (dot.row.is_none() && owns(dot.column))
    }

    /// Writes the panels of the contraction: plain loops over free dims beyond the last of each side, then row and column
    /// panels, and inside them tile, `dot` and epilogue.
    pub(crate) fn panels(&mut self, dot: &DotPlan, first: ScopeId, group: &[SinkId]) -> Result<()> {
        let start = self.plan.tile.iter().position(|&s| s == first).unwrap_or(0);
        let chain: Vec<ScopeId> = self.plan.tile[start..].to_vec();
        let before: Vec<bool> = self.values.iter().map(Option::is_some).collect();
        let (m, n) = (dot.row.map_or(1, |v| self.extent(v)), dot.column.map_or(1, |v| self.extent(v)));
        let k: u64 = dot.contract.iter().map(|&v| self.extent(v)).product();
        let (rows, columns) = panel_shape(m, n, k, self.target);
        let mut loops: Vec<(VarId, Extent, u64)> = Vec::new();
        for &s in &chain {
            let own = self.plan.scopes[s].vars.iter().copied();
            let plain = own.filter(|&v| Some(v) != dot.row && Some(v) != dot.column);
            loops.extend(plain.map(|v| (v, Extent::Const(self.extent(v)), 1)));
        }
        let row = dot.row.map(|v| self.panel(v, "q", rows, &mut loops));
        let column = dot.column.map(|v| self.panel(v, "p", columns, &mut loops));
        let outer = std::mem::take(&mut self.current);
        self.write_dot(dot, [&row, &column], [(m, rows), (n, columns)])?;
        let epilogue = self.epilogue(&chain, group, [&row, &column])?;
        self.current.extend(epilogue);
        let mut body = std::mem::replace(&mut self.current, outer);
        self.forget(&before);
        self.dot_tile = None;
        for (var, extent, step) in loops.into_iter().rev() {
            body = vec![StmtKind::Loop(Loop { var, extent, step, limit: None, axis: Axis::default(), body }).into()];
        }
        self.current.append(&mut body);
        Ok(())
    }

    /// Opens a panel loop over a tile dim; a panel that is the whole dim needs none.
    fn panel(&mut self, v: VarId, name: &str, size: u64, loops: &mut Vec<(VarId, Extent, u64)>) -> Panel {
        let extent = self.extent(v);
        let inside = self.kernel.new_var(self.kernel.vars[v.0 as usize].clone());
        self.new_extents.insert(inside, size as i64);
        let mut start = Index::default();
        if size < extent {
            let outside = self.kernel.new_var(name);
            self.new_extents.insert(outside, extent as i64);
            loops.push((outside, Extent::Const(extent), size));
            start = outside.into();
        }
        self.substitution.insert(v, start.add(&inside.into()));
        let rest = Index::constant(extent as i64).add_scaled(&start, -1);
        Panel { inside, start, size, limit: (!extent.is_multiple_of(size)).then_some(rest) }
    }

    pub(crate) fn write_dot(
        &mut self,
        dot: &DotPlan,
        panels: [&Option<Panel>; 2],
        sizes: [(u64, u64); 2],
    ) -> Result<()> {
        let node = self.graph.node(dot.node);
        let ty: ScalarType = node.types[0].dtype.into();
        let tile = Tile {
            name: format!("tile{}", self.kernel.tiles.len()),
            ty,
            dims: sizes.iter().map(|s| s.1).collect(),
            valid: panels.iter().map(|p| p.as_ref().and_then(|p| p.limit.clone())).collect(),
            scope: Scope::Thread,
        };
        let acc = self.declare_tile(tile);
        self.push(StmtKind::Fill(acc, Literal::zero(node.types[0].dtype)));
        // The dot counts rows and columns with variables of its own.
        let (row, column) = (self.kernel.new_var("row"), self.kernel.new_var("col"));
        let operand = |l: &Self, (n, index): &(NodeId, Vec<Index>)| -> Result<DotOperand> {
            let with = |v: VarId| -> Option<Index> {
                let side = |p: &Option<Panel>, own: VarId| p.as_ref().map(|p| p.start.add(&own.into()));
                if Some(v) == dot.row {
                    side(panels[0], row)
                } else if Some(v) == dot.column {
                    side(panels[1], column)
                } else {
                    None
                }
            };
            let index = index.iter().map(|x| x.substitute(&with, &|v| l.plan.range(v))).collect();
            let param = l.params.get(n).ok_or_else(|| Error::internal("a contraction reads no parameter"))?;
            Ok(DotOperand { memory: Memory::Param(*param), index: l.element(*param, index) })
        };
        let (a, b) = (operand(self, &dot.operands[0])?, operand(self, &dot.operands[1])?);
        let contract = dot.contract.iter().map(|&v| (v, Extent::Const(self.extent(v)))).collect();
        let kind = StmtKind::Dot(Dot { acc, row, column, contract, a, b, chunk: 0 });
        self.current.push(Stmt { kind, sources: node.sources.clone() });
        let inside = panels.map(|p| p.as_ref().map_or_else(Index::default, |p| p.inside.into()));
        self.dot_tile = Some((acc, inside));
        Ok(())
    }

    /// The loops over the tile, with everything else of the group inside.
    fn epilogue(&mut self, chain: &[ScopeId], group: &[SinkId], panels: [&Option<Panel>; 2]) -> Result<Block> {
        let last = chain.last().copied().unwrap_or(0);
        let rest = if panels[1].is_some() { &chain[..chain.len() - 1] } else { &[] };
        let outer = std::mem::take(&mut self.current);
        for &s in rest {
            self.write_values(group, s)?;
        }
        let rows = std::mem::take(&mut self.current);
        if rest.is_empty() {
            for &s in &chain[..chain.len() - 1] {
                self.write_values(group, s)?;
            }
        }
        let mut inner = std::mem::replace(&mut self.current, outer);
        inner.extend(self.scope(last, group)?.0);
        let wrap = |p: &Option<Panel>, body: Block| match p {
            None => body,
            Some(p) => {
                let extent = Extent::Const(p.size);
                let limit = p.limit.clone();
                vec![StmtKind::Loop(Loop { var: p.inside, extent, step: 1, limit, axis: Axis::default(), body }).into()]
            }
        };
        let mut body = rows;
        body.extend(wrap(panels[1], inner));
        Ok(wrap(panels[0], body))
    }
}
