//! Panels: how the loops around a contraction are lowered.
//!
//! A contraction replaces its row and column loops by loops over panels. Inside a panel stand a tile, `fill`, `dot`, and
//! loops over the tile in which everything else of the group runs as the epilogue, while the tile is in cache. Of the dims of
//! each side one is cut into panels; those outside of it become plain loops, those inside of it are whole and count the tile's
//! rows (or columns) together with it: so the pixels of several lines of an image are the rows of one multiplication.
//!
//! What is not a matrix where it lies is packed first ([`operand`](crate::operand)). Panel shapes depend on the problem's
//! shape alone.

use crate::lower::Lowering;
use crate::operand::{Packed, read_dtype};
use crate::plan::{DotPlan, Reach, ScopeId, SinkId};
use lazuli_ir::kernel::{Axis, Block, Extent, Loop, Scope, StmtKind, Tile, TileId};
use lazuli_ir::{DType, Index, Literal, Result, Target, TargetKind, VarId};
use smallvec::SmallVec;

/// Rows (or columns) below which a panel reaches over more than one dim.
const ENOUGH: u64 = 64;
/// Panels below which a contraction of some size is cut finer, so that threads can share it.
const FEW: u64 = 4;
/// Panels of one side from which on those loops alone are enough to share.
const MANY: u64 = 8;

/// A tile dim inside a panel.
#[derive(Clone)]
pub(crate) struct Inside {
    /// The plan's variable.
    pub(crate) var: VarId,
    /// What counts it inside the panel.
    pub(crate) count: VarId,
    /// Where the panel starts.
    pub(crate) start: Index,
    /// How much of it a panel has.
    pub(crate) extent: u64,
    /// What is left of the dim, where panels do not divide it.
    pub(crate) limit: Option<Index>,
    /// Rows of the tile between neighbours.
    pub(crate) stride: u64,
}

impl Inside {
    /// A loop over it.
    pub(crate) fn wrap(&self, body: Block) -> Block {
        let (var, extent, limit) = (self.count, Extent::Const(self.extent), self.limit.clone());
        vec![StmtKind::Loop(Loop { var, extent, step: 1, limit, axis: Axis::default(), body }).into()]
    }
}

/// Where the result of a contraction lies while its panel runs.
#[derive(Clone, Debug)]
pub(crate) struct DotTile {
    pub(crate) tile: TileId,
    /// The row of the element that is read; where all rows are in the tile, the result's index says which.
    pub(crate) row: Option<Index>,
    /// Its column; where all of a row is in the tile, the result's index says which.
    pub(crate) column: Option<Index>,
}

/// A loop over a tile dim: its variable, extent and limit.
type Counted = (VarId, u64, Option<Index>);

/// One side of a panel.
#[derive(Clone, Default)]
pub(crate) struct Side {
    /// The loops around it: variable, extent and step.
    pub(crate) loops: Vec<(VarId, Extent, u64)>,
    /// What it consists of, outermost first.
    pub(crate) inside: Vec<Inside>,
}

impl Side {
    /// Rows (or columns) of the tile.
    pub(crate) fn size(&self) -> u64 {
        span(&self.inside)
    }

    /// The element of the tile.
    fn index(&self) -> Index {
        self.inside.iter().fold(Index::default(), |x, i| x.add_scaled(&i.count.into(), i.stride as i64))
    }

    /// The loop around the panel that counts dim number `i` of the side.
    pub(crate) fn outer_index(&self, i: usize) -> Index {
        self.loops.get(i).map_or_else(Index::default, |l| l.0.into())
    }

    /// How much of the tile is valid, where that is not all. Only the outermost dim inside is cut.
    pub(crate) fn valid(&self) -> Option<Index> {
        let (first, rest) = self.inside.split_first()?;
        let last = span(rest) as i64 - first.stride as i64;
        first.limit.as_ref().map(|limit| limit.times(first.stride as i64).add(&Index::constant(last)))
    }
}

/// Rows from the first to the last one.
fn span(inside: &[Inside]) -> u64 {
    if inside.iter().any(|i| i.extent == 0) { 0 } else { inside.iter().fold(1, |n, i| n + (i.extent - 1) * i.stride) }
}

/// Where dims are cut into blocks of about `most` elements: the dim, and how much of it a block has. Dims inside of it are
/// whole; a block reaches over dims until it has `enough` elements.
pub(crate) fn cut(extents: &[u64], most: u64, enough: u64) -> (usize, u64) {
    let (mut at, mut inner) = (extents.len().saturating_sub(1), 1u64);
    while at > 0 && extents[at] <= most / inner && inner * extents[at] < enough {
        inner *= extents[at];
        at -= 1;
    }
    let extent = extents.get(at).copied().unwrap_or(1).max(1);
    // Blocks of one size, as far as that goes.
    let count = extent.div_ceil((most / inner).max(1));
    let even = extent.div_ceil(count);
    let round = if inner == 1 { even.next_multiple_of(16).min(most) } else { even };
    (at, if count == 1 { extent } else { round })
}

/// The number of blocks that a cut makes.
fn blocks(extents: &[u64], (at, step): (usize, u64)) -> u64 {
    extents.iter().take(at).product::<u64>() * extents.get(at).map_or(1, |n| n.div_ceil(step))
}

/// A contraction's extents.
pub(crate) struct Problem {
    pub(crate) batch: u64,
    pub(crate) sides: [Vec<u64>; 2],
    pub(crate) k: u64,
    /// Whether matrices of `bf16` are multiplied.
    pub(crate) narrow: bool,
}

/// How the sides of a contraction are cut: a panel has about 128 rows and 256 columns at most (or 64 and 512), so that a tile is a
/// quarter of a common second-level cache, and fewer where that would leave too few panels to share. Of `bf16` it has twice the
/// rows: columns are packed for each panel, which takes longer beside so fast a multiplication. It depends on the problem's shape
/// alone.
fn panel_cuts(p: &Problem, target: &Target) -> [(usize, u64); 2] {
    let [m, n] = [0, 1].map(|s| p.sides[s].iter().product::<u64>());
    let TargetKind::Cpu = target.kind else {
        // The tile is shared memory of a block.
        return [0, 1].map(|s| cut(&p.sides[s], 64, 1));
    };
    let reach = |s: usize, most: u64| match p.sides[s].last() {
        // Several dims together make panels of uneven sizes: a larger one is closer to what is wanted.
        Some(&last) if last < ENOUGH => cut(&p.sides[s], most.max(256), ENOUGH),
        _ => cut(&p.sides[s], most, ENOUGH),
    };
    let mut rows = m.min(if p.narrow { 256 } else { 128 });
    let fits = (target.l2_bytes / 2 / 4 / rows.max(1)).max(16);
    let mut columns = n.min(if rows <= 64 { 512 } else { 256 }).min(fits);
    let work = m.saturating_mul(n).saturating_mul(p.k).saturating_mul(p.batch);
    loop {
        let cuts = [reach(0, rows), reach(1, columns)];
        let pieces = p.batch * blocks(&p.sides[0], cuts[0]) * blocks(&p.sides[1], cuts[1]);
        if work <= (1 << 20) || pieces >= FEW {
            return cuts;
        }
        if columns >= 128 {
            columns = columns.div_ceil(2).next_multiple_of(64);
        } else if rows >= 64 {
            rows = rows.div_ceil(2).next_multiple_of(32);
        } else {
            return cuts;
        }
    }
}

/// A block inside loops.
pub(crate) fn wrap(loops: Vec<(VarId, Extent, u64)>, mut body: Block) -> Block {
    for (var, extent, step) in loops.into_iter().rev() {
        body = vec![StmtKind::Loop(Loop { var, extent, step, limit: None, axis: Axis::default(), body }).into()];
    }
    body
}

impl Lowering<'_> {
    /// Whether a scope is where the panels of the contraction begin: the outermost row loop, or column loop of a single row.
    pub(crate) fn is_panel(&self, dot: &DotPlan, scope: ScopeId) -> bool {
        let first = dot.sides[0].first().or(dot.sides[1].first());
        first.is_some_and(|v| self.plan.vars[v.0 as usize].scope == scope)
    }

    /// Writes the panels of the contraction: loops over panels, and inside them tile, `dot` and epilogue.
    pub(crate) fn panels(&mut self, dot: &DotPlan, first: ScopeId, group: &[SinkId]) -> Result<()> {
        let start = self.plan.tile.iter().position(|&s| s == first).unwrap_or(0);
        let chain: Vec<ScopeId> = self.plan.tile[start..].to_vec();
        let before: Vec<bool> = self.values.iter().map(Option::is_some).collect();
        let (problem, cuts) = self.cuts(dot);
        let mut sides = [Side::default(), Side::default()];
        for s in [0, 1] {
            sides[s] = self.side(&dot.sides[s], cuts[s], ["q", "p"][s]);
            let extents: SmallVec<[u64; 4]> = sides[s].inside.iter().map(|i| i.extent).collect();
            for (inside, rows) in sides[s].inside.iter_mut().zip(self.lies(dot, s, &extents).unwrap_or_default()) {
                inside.stride = rows;
            }
        }
        let pieces = [0, 1].map(|s| blocks(&problem.sides[s], cuts[s]));
        let outer = std::mem::take(&mut self.current);
        // An operand that is packed once for all panels of the other side: then the loops over its own panels are outside.
        let mut ready = [None, None];
        for s in [0, 1] {
            if ready[0].is_none() && pieces[1 - s] > 1 && pieces[s] * problem.batch >= MANY {
                ready[s] = self.packed_whole(dot, s, &sides)?;
            }
        }
        let once = ready[1].is_some();
        let packing = std::mem::take(&mut self.current);
        self.write_dot(dot, &sides, ready)?;
        let epilogue = self.epilogue(&chain, group, &sides)?;
        self.current.extend(epilogue);
        let body = std::mem::replace(&mut self.current, outer);
        self.forget(&before);
        self.dot_tiles.clear();
        let [rows, columns] = sides.map(|s| s.loops);
        let (around, within) = if once { (columns, rows) } else { (rows, columns) };
        let mut body = wrap(within, body);
        if !packing.is_empty() {
            body.splice(0..0, packing);
        }
        self.current.append(&mut wrap(around, body));
        Ok(())
    }

    /// The contraction's extents, and how its sides are cut.
    pub(crate) fn cuts(&self, dot: &DotPlan) -> (Problem, [(usize, u64); 2]) {
        let outside = self.plan.tile.len() - dot.sides.iter().map(Vec::len).sum::<usize>().min(self.plan.tile.len());
        let problem = Problem {
            batch: self.plan.tile[..outside].last().map_or(1, |&s| self.plan.scopes[s].iterations),
            sides: [0, 1].map(|s| dot.sides[s].iter().map(|&v| self.extent(v)).collect()),
            k: dot.contract.iter().product(),
            narrow: read_dtype(self.graph, dot) == DType::BF16,
        };
        let cuts = panel_cuts(&problem, self.target);
        (problem, cuts)
    }

    /// Cuts one side: plain loops, the loop over panels (none for a panel that is the whole dim), and what is inside.
    pub(crate) fn side(&mut self, vars: &[VarId], (at, step): (usize, u64), name: &str) -> Side {
        let mut side = Side::default();
        let mut stride = 1;
        for (i, &v) in vars.iter().enumerate().rev() {
            let extent = self.extent(v);
            if i < at {
                side.loops.push((v, Extent::Const(extent), 1));
                continue;
            }
            let size = if i == at { step } else { extent };
            let count = self.kernel.new_var(self.kernel.vars[v.0 as usize].clone());
            self.new_extents.insert(count, size as i64);
            let mut start = Index::default();
            if size < extent {
                let outside = self.kernel.new_var(name);
                self.new_extents.insert(outside, extent as i64);
                side.loops.push((outside, Extent::Const(extent), size));
                start = outside.into();
            }
            self.substitution.insert(v, start.add(&count.into()));
            let rest = Index::constant(extent as i64).add_scaled(&start, -1);
            let limit = (!extent.is_multiple_of(size)).then_some(rest);
            side.inside.push(Inside { var: v, count, start, extent: size, limit, stride });
            stride *= size;
        }
        side.loops.reverse();
        side.inside.reverse();
        side
    }

    /// Writes the tile of a panel, filled and contracted into. `ready` are operands that are packed already.
    pub(crate) fn write_dot(&mut self, dot: &DotPlan, sides: &[Side; 2], ready: [Option<Packed>; 2]) -> Result<()> {
        let acc = self.declare_result(dot, sides);
        self.contract(dot, sides, acc, ready)?;
        let [row, column] = [0, 1].map(|s| sides[s].index());
        let column = (dot.reach == Reach::Panels).then_some(column);
        self.dot_tiles.insert(dot.node, DotTile { tile: acc, row: Some(row), column });
        Ok(())
    }

    /// A tile of zeros for a contraction's result.
    pub(crate) fn declare_result(&mut self, dot: &DotPlan, sides: &[Side; 2]) -> TileId {
        let dtype = self.graph.node(dot.node).types[0].dtype;
        let tile = Tile {
            name: format!("tile{}", self.kernel.tiles.len()),
            dtype,
            dims: sides.iter().map(Side::size).collect(),
            valid: sides.iter().map(Side::valid).collect(),
            scope: Scope::Thread,
        };
        let acc = self.declare_tile(tile);
        self.push(StmtKind::Fill(acc, Literal::zero(dtype)));
        acc
    }

    /// The loops over the tile, with everything else of the group inside.
    fn epilogue(&mut self, chain: &[ScopeId], group: &[SinkId], sides: &[Side; 2]) -> Result<Block> {
        let inside = |s: ScopeId| {
            let own = |i: &&Inside| self.plan.vars[i.var.0 as usize].scope == s;
            sides.iter().flat_map(|side| &side.inside).find(own)
        };
        let loops: Vec<Option<Counted>> =
            chain.iter().map(|&s| inside(s).map(|i| (i.count, i.extent, i.limit.clone()))).collect();
        let outer = std::mem::take(&mut self.current);
        // What each loop holds before the next one opens.
        let mut levels: Vec<(Option<Counted>, Block)> = vec![(None, Block::new())];
        for (i, (&s, own)) in chain.iter().zip(loops).enumerate() {
            if own.is_some() {
                levels.push((own, Block::new()));
            }
            if i + 1 == chain.len() {
                self.current = self.scope(s, group)?.0;
            } else {
                self.write_values(group, s)?;
            }
            if let Some((_, block)) = levels.last_mut() {
                block.append(&mut self.current);
            }
        }
        self.current = outer;
        let mut body = Block::new();
        for (own, mut block) in levels.into_iter().rev() {
            block.append(&mut body);
            body = match own {
                None => block,
                Some((var, extent, limit)) => {
                    let (extent, axis) = (Extent::Const(extent), Axis::default());
                    vec![StmtKind::Loop(Loop { var, extent, step: 1, limit, axis, body: block }).into()]
                }
            };
        }
        Ok(body)
    }
}
