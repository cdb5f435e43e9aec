//! Operands of a contraction: read where they lie, or packed into a tile first.
//!
//! A back end multiplies matrices: along rows, and along each dim of the contraction, an operand has one distance between
//! neighbours. An operand that lies like that in memory is read there, and so are columns that are neighbours, wherever their rows are: windows
//! of an image. Any other is *packed*: loops in the order of its
//! memory write it into a tile, with all that it is computed from (casts, padding, masks, products). Rows that several dims
//! count together, broadcast dims and indices with divisions are so made into a plain matrix. Packed tiles fill at most
//! half of the second-level cache: a longer contraction is cut into chunks that add to one accumulator.
//!
//! A contraction of `bf16` reads and packs `bf16`; one of `f32` that was `bf16` before is another, and packs `f32`.

use crate::lower::Lowering;
use crate::panels::{Side, cut};
use crate::plan::{DotPlan, InstanceId, OperandPlan, Source};
use lazuli_ir::kernel::{
    Axis, Block, Dot, DotOperand, Extent, Loop, Memory, Param, ParamId, Scope, Stmt, StmtKind, Stride, Tile, TileId,
};
use lazuli_ir::{DType, Error, Graph, Index, Result, TargetKind, VarId};
use smallvec::SmallVec;
use std::ops::Range;

/// Elements of the contraction that are worth a multiplication of their own, where an operand's dims do not continue each
/// other.
pub(crate) const LONG: u64 = 32;
/// Iterations from which on the innermost loop of packing is not too short.
const LANES: u64 = 16;
/// The fewest elements of the contraction that a chunk is cut to.
const SHORTEST: u64 = 64;

/// A packed operand.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) tile: TileId,
    /// Whether the contraction runs along the tile's last dim.
    pub(crate) along: bool,
    /// Whether the tile has all of the contraction, and not one chunk of it.
    pub(crate) whole: bool,
}

/// The dtype of what a contraction reads.
pub(crate) fn read_dtype(graph: &Graph, dot: &DotPlan) -> DType {
    graph.operands(dot.node).first().map_or(DType::F32, |v| graph.ty(*v).dtype)
}

/// A loop that packs an operand.
struct PackLoop {
    var: VarId,
    extent: u64,
    limit: Option<Index>,
    /// Elements of memory between neighbours; none where an index divides the variable.
    stride: Option<i64>,
    /// Whether it counts the contraction.
    contracts: bool,
}

/// A part of the contraction's dims: where each begins, and how long it is.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub(crate) dims: Vec<(Index, u64)>,
    /// How much of it there is, where that may be less.
    pub(crate) limit: Option<Index>,
}

impl Chunk {
    fn whole(extents: &[u64]) -> Chunk {
        Chunk { dims: extents.iter().map(|&n| (Index::default(), n)).collect(), limit: None }
    }
}

impl Lowering<'_> {
    /// Writes the contraction of a panel: all of it, or chunks that fit the cache.
    pub(crate) fn contract(
        &mut self,
        dot: &DotPlan,
        sides: &[Side; 2],
        acc: TileId,
        ready: [Option<Packed>; 2],
    ) -> Result<()> {
        if dot.contract.contains(&0) || sides.iter().any(|s| s.size() == 0) {
            return Ok(());
        }
        let (at, step) = self.chunk(dot, sides);
        let all = Chunk::whole(&dot.contract);
        let outer = std::mem::take(&mut self.current);
        let mut loops: Vec<(VarId, u64, u64)> = Vec::new();
        let mut chunk = all.clone();
        let mut counted = |l: &mut Self, i: usize, extent: u64, step: u64| {
            let v = l.kernel.new_var("c");
            l.new_extents.insert(v, extent as i64);
            loops.push((v, extent, step));
            chunk.dims[i] = (v.into(), step);
        };
        for i in 0..at {
            counted(self, i, dot.contract[i], 1);
        }
        let whole = dot.contract.get(at).map_or(0, |n| n / step * step);
        if at < dot.contract.len() && step < dot.contract[at] {
            counted(self, at, whole, step);
        }
        self.multiply(dot, sides, acc, &chunk, ready)?;
        let innermost = if loops.len() > at { loops.pop() } else { None };
        let mut body = std::mem::take(&mut self.current);
        if let Some((var, extent, step)) = innermost {
            body = vec![serial(var, extent, step, body)];
            // What is left of the dim that is cut.
            if whole < dot.contract[at] {
                chunk.dims[at] = (Index::constant(whole as i64), dot.contract[at] - whole);
                self.multiply(dot, sides, acc, &chunk, ready)?;
                body.append(&mut self.current);
            }
        }
        for (var, extent, step) in loops.into_iter().rev() {
            body = vec![serial(var, extent, step, body)];
        }
        self.current = outer;
        self.current.append(&mut body);
        Ok(())
    }

    /// Packs an operand for the whole contraction, where it has to be packed and that fits.
    pub(crate) fn packed_whole(&mut self, dot: &DotPlan, side: usize, sides: &[Side; 2]) -> Result<Option<Packed>> {
        if self.reads_in_place(dot, side, &sides[side])
            || dot.contract.contains(&0)
            || self.chunk(dot, sides) != (0, dot.contract.first().copied().unwrap_or(1))
        {
            return Ok(None);
        }
        let all = Chunk::whole(&dot.contract);
        let packed = self.pack(&dot.operands[side], &sides[side], &all)?;
        Ok(Some(Packed { whole: true, ..packed }))
    }

    /// Where the contraction's dims are cut so that packed tiles fit half of the second-level cache: the dim, and the step.
    fn chunk(&self, dot: &DotPlan, sides: &[Side; 2]) -> (usize, u64) {
        let packed: u64 = (0..2)
            .filter(|&s| !dot.computed[s] && !self.reads_in_place(dot, s, &sides[s]))
            .map(|s| sides[s].size() * self.instance_type(dot.operands[s].value).size() as u64)
            .sum();
        let k: u64 = dot.contract.iter().product();
        let most = (self.target.l2_bytes / 2).checked_div(packed).map_or(k, |n| n.max(SHORTEST));
        if k <= most { (0, dot.contract.first().copied().unwrap_or(1)) } else { cut(&dot.contract, most, u64::MAX) }
    }

    /// One multiplication, with what is packed before it.
    pub(crate) fn multiply(
        &mut self,
        dot: &DotPlan,
        sides: &[Side; 2],
        acc: TileId,
        chunk: &Chunk,
        ready: [Option<Packed>; 2],
    ) -> Result<()> {
        let mut packed: [Option<Packed>; 2] = [None, None];
        for s in [0, 1] {
            packed[s] = match ready[s] {
                Some(tile) => Some(tile),
                None if self.reads_in_place(dot, s, &sides[s]) => None,
                None => Some(self.pack(&dot.operands[s], &sides[s], chunk)?),
            };
        }
        // The dot counts rows, columns and contraction with variables of its own.
        let (row, column) = (self.kernel.new_var("row"), self.kernel.new_var("col"));
        let mut contract: SmallVec<[(VarId, Extent); 1]> = SmallVec::new();
        let mut inner: Vec<Index> = Vec::new();
        for (start, n) in &chunk.dims {
            let v = self.kernel.new_var("k");
            self.new_extents.insert(v, *n as i64);
            contract.push((v, Extent::Const(*n)));
            inner.push(start.add(&v.into()));
        }
        let counts: Vec<VarId> = contract.iter().map(|c| c.0).collect();
        let mut operands: SmallVec<[DotOperand; 2]> = SmallVec::new();
        for (s, own) in [(0, row), (1, column)] {
            self.new_extents.insert(own, sides[s].size() as i64);
            operands.push(match packed[s] {
                Some(Packed { tile, along, whole }) => {
                    let k = if whole { position(&inner, &dot.contract) } else { linear(&counts, chunk) };
                    let index = if along { vec![own.into(), k] } else { vec![k, own.into()] };
                    DotOperand { memory: Memory::Tile(tile), index }
                }
                None => self.in_place(&dot.operands[s], &sides[s], own, &inner)?,
            });
        }
        let sources = self.graph.node(dot.node).sources.clone();
        let [a, b] = operands.as_slice() else { return Err(Error::internal("a contraction has two operands")) };
        let (a, b, limit) = (a.clone(), b.clone(), chunk.limit.clone());
        let kind = StmtKind::Dot(Dot { acc, row, column, contract, limit, a, b, chunk: 0 });
        self.current.push(Stmt { kind, sources });
        Ok(())
    }

    /// The elements between neighbours along each of an operand's variables, free ones first, where it is read as it lies.
    fn strides(&self, i: InstanceId, vars: impl Iterator<Item = VarId>) -> Option<Vec<i64>> {
        let instance = &self.plan.instances[i];
        let Source::Load(n) = instance.source else { return None };
        // What is indexed by data jumps.
        if !instance.indexed_by.is_empty() {
            return None;
        }
        let param = *self.params.get(&n)?;
        let index = self.element(param, instance.index.clone());
        let strides = &self.kernel.params[param.index()].strides;
        let along = |v: VarId| {
            index.iter().zip(strides).try_fold(0i64, |sum, (x, s)| match s {
                Stride::Const(s) => Some(sum.wrapping_add(x.coefficient(v)?.wrapping_mul(*s))),
                Stride::Runtime => None,
            })
        };
        vars.map(along).collect()
    }

    /// Whether an operand is read where it lies, by these rows (or columns) of the tile.
    fn reads_in_place(&self, dot: &DotPlan, s: usize, side: &Side) -> bool {
        let extents: SmallVec<[u64; 4]> = side.inside.iter().map(|i| i.extent).collect();
        let lies = self.lies(dot, s, &extents);
        self.target.kind != TargetKind::Cpu
            && matches!(self.plan.instances[dot.operands[s].value].source, Source::Load(_))
            || lies.is_some_and(|strides| strides.iter().eq(side.inside.iter().map(|i| &i.stride)))
    }

    /// The rows (or columns) of the tile between neighbours along the dims inside a panel, of these extents, so that an operand is a
    /// matrix where it lies: with rows between that nobody reads, where lines of an image are longer than what is read of them. `None`
    /// where it has to be packed; this is the one place that decides that.
    pub(crate) fn lies(&self, dot: &DotPlan, s: usize, extents: &[u64]) -> Option<SmallVec<[u64; 4]>> {
        let o = &dot.operands[s];
        let Source::Load(n) = self.plan.instances[o.value].source else { return None };
        if self.target.kind != TargetKind::Cpu {
            return None;
        }
        let free = self.strides(o.value, o.free.iter().copied())?;
        let contract = self.strides(o.value, o.contract.iter().copied())?;
        let outside = o.free.len().checked_sub(extents.len())?;
        let mut rows: SmallVec<[u64; 4]> = SmallVec::new();
        let (mut near, mut span) = (None, 1u64);
        for (&extent, &stride) in extents.iter().zip(&free[outside..]).rev() {
            let row = match near {
                _ if extent <= 1 => span,
                None => {
                    near = Some(u64::try_from(stride).ok().filter(|s| *s > 0)?);
                    span
                }
                Some(near) => u64::try_from(stride).ok().filter(|s| s.is_multiple_of(near))? / near,
            };
            if row < span {
                return None;
            }
            rows.push(row);
            span += extent.saturating_sub(1) * row;
        }
        rows.reverse();
        let several = extents.iter().filter(|n| **n > 1).count() > 1;
        if several && (span > extents.iter().product::<u64>() / 4 * 5 || self.line(o, outside).is_none()) {
            return None;
        }
        let dims: Vec<(u64, i64)> = o.contract.iter().map(|&v| self.extent(v)).zip(contract).collect();
        let long: Vec<(u64, i64)> = dims.into_iter().filter(|d| d.0 > 1).collect();
        // Rows that floats stand in may be anywhere; those of halves are told by one distance.
        let anywhere = !self.graph.node(n).types[0].dtype.is_half()
            && s == 1
            && near.is_none_or(|n| n == 1)
            && long.iter().all(|d| d.1 > 0);
        (anywhere || is_matrix(&long, LONG)).then_some(rows)
    }

    /// The dims of an operand's parameter that its free dims from one on run along, where these are one dim in memory.
    fn line(&self, o: &OperandPlan, outside: usize) -> Option<(ParamId, Range<usize>)> {
        let instance = &self.plan.instances[o.value];
        let Source::Load(n) = instance.source else { return None };
        let param = *self.params.get(&n)?;
        let index = self.element(param, instance.index.clone());
        let own = o.free[outside..].iter().filter(|v| self.extent(**v) > 1);
        let dims = own.flat_map(|v| (0..index.len()).filter(|d| index[*d].coefficient(*v) != Some(0)));
        let (first, end) = dims.fold((index.len(), 0), |(first, end), d| (first.min(d), end.max(d + 1)));
        let Param { dims, strides, .. } = &self.kernel.params[param.index()];
        let one = || (first..end.max(1) - 1).all(|d| continues(dims, strides, d));
        let merges = end == first + 1 || !self.merged.contains_key(&param) && one();
        (first < end && merges).then_some((param, first..end))
    }

    /// Makes one dim of those of a parameter that a variable of the contraction counts by digits: rows that were reshaped.
    pub(crate) fn merge_digits(&mut self, dot: &DotPlan) {
        for o in &dot.operands {
            let instance = &self.plan.instances[o.value];
            let Source::Load(n) = instance.source else { continue };
            let Some(param) = self.params.get(&n).copied().filter(|p| !self.merged.contains_key(p)) else { continue };
            let index = self.element(param, instance.index.clone());
            let affine = |x: &Index| o.free.iter().chain(&o.contract).all(|v| x.coefficient(*v).is_some());
            let Param { dims, strides, .. } = &self.kernel.params[param.index()];
            let Some(first) = index.iter().position(|x| !affine(x)) else { continue };
            let one = |end: usize| {
                let extents = dims[first..end].iter().zip(&index[first..end]);
                extents.fold(Index::default(), |x, (n, at)| x.times(n.known().unwrap_or(0) as i64).add(at))
            };
            let run = (first + 1..dims.len()).take_while(|d| continues(dims, strides, d - 1)).map(|d| d + 1);
            if let Some(end) = run.into_iter().find(|end| affine(&one(*end))) {
                self.merge(param, first..end);
            }
        }
    }

    /// Makes one dim of those of a parameter that a panel of the contraction runs along.
    pub(crate) fn merge_lines(&mut self, dot: &DotPlan) {
        let (_, cuts) = self.cuts(dot);
        for (s, (at, step)) in cuts.into_iter().enumerate() {
            let own = dot.sides[s].iter().enumerate().skip(at);
            let extents: SmallVec<[u64; 4]> = own.map(|(i, &v)| if i == at { step } else { self.extent(v) }).collect();
            let several = extents.iter().filter(|n| **n > 1).count() > 1;
            if several
                && self.lies(dot, s, &extents).is_some()
                && let Some((param, dims)) = self.line(&dot.operands[s], at)
                && dims.len() > 1
            {
                self.merge(param, dims);
            }
        }
    }

    /// An operand that is read as it lies.
    fn in_place(&self, o: &OperandPlan, side: &Side, own: VarId, inner: &[Index]) -> Result<DotOperand> {
        let instance = &self.plan.instances[o.value];
        let Source::Load(n) = instance.source else {
            return Err(Error::internal("a contraction reads in place what is computed"));
        };
        let param = *self.params.get(&n).ok_or_else(|| Error::internal("a contraction reads no parameter"))?;
        // The nearest neighbours count all rows: others begin some of them later.
        let near = side.inside.iter().rposition(|i| i.extent > 1).or(side.inside.len().checked_sub(1));
        let counted = |i: usize| if Some(i) == near { Some(own.into()) } else { None };
        let places = self.places(o, side, &counted, inner);
        let index = instance.index.iter().map(|x| self.at(x, &places)).collect();
        Ok(DotOperand { memory: Memory::Param(param), index: self.element(param, index) })
    }

    /// What an operand's variables stand for: in a panel, with `counted` for what is inside of it, and along the contraction.
    fn places(
        &self,
        o: &OperandPlan,
        side: &Side,
        counted: &dyn Fn(usize) -> Option<Index>,
        inner: &[Index],
    ) -> Vec<(VarId, Index)> {
        let outer = o.free.len() - side.inside.len().min(o.free.len());
        let mut places: Vec<(VarId, Index)> = Vec::new();
        for (i, &v) in o.free.iter().enumerate() {
            let place = match i.checked_sub(outer) {
                None => side.outer_index(i),
                Some(at) => {
                    let start = &side.inside[at].start;
                    counted(at).map_or_else(|| start.clone(), |c| start.add(&c))
                }
            };
            places.push((v, place));
        }
        places.extend(o.contract.iter().copied().zip(inner.iter().cloned()));
        places
    }

    /// An index of the plan with an operand's variables in their places.
    fn at(&self, x: &Index, places: &[(VarId, Index)]) -> Index {
        let with = |v: VarId| {
            let own = places.iter().find(|p| p.0 == v).map(|p| p.1.clone());
            own.or_else(|| self.substitution.get(&v).cloned())
        };
        x.substitute(&with, &|v| self.range(v))
    }

    /// Writes a chunk of an operand into a tile of its own, in loops that run along its memory.
    fn pack(&mut self, o: &OperandPlan, side: &Side, chunk: &Chunk) -> Result<Packed> {
        let before: Vec<bool> = self.values.iter().map(Option::is_some).collect();
        let outer = o.free.len() - side.inside.len().min(o.free.len());
        let own = self.plan.cone(&[o.value], &|i| self.values[i].is_some());
        let vars = || o.free.iter().chain(&o.contract).copied();
        // Elements between neighbours; none along what an index divides.
        let lies = own.iter().map(|&i| -> Vec<Option<i64>> {
            vars().map(|v| self.strides(i, std::iter::once(v)).map(|s| s[0])).collect()
        });
        let lie = lies.filter(|lie| lie.iter().any(Option::is_some)).min_by_key(|lie| {
            let inner = lie.iter().skip(outer).flatten().filter(|s| **s != 0).map(|s| s.unsigned_abs()).min();
            (lie.iter().any(Option::is_none), inner.unwrap_or(u64::MAX))
        });
        let lie = lie.unwrap_or_else(|| vec![Some(0); o.free.len() + o.contract.len()]);
        let mut loops: Vec<PackLoop> = Vec::new();
        let mut rows: Vec<VarId> = Vec::new();
        for (at, i) in side.inside.iter().enumerate() {
            let v = self.kernel.new_var(self.kernel.vars[i.var.0 as usize].clone());
            self.new_extents.insert(v, i.extent as i64);
            rows.push(v);
            let (limit, stride) = (i.limit.clone(), lie[outer + at]);
            loops.push(PackLoop { var: v, extent: i.extent, limit, stride, contracts: false });
        }
        let mut inner: Vec<VarId> = Vec::new();
        for (at, (_, n)) in chunk.dims.iter().enumerate() {
            let v = self.kernel.new_var("k");
            self.new_extents.insert(v, *n as i64);
            inner.push(v);
            let (limit, stride) = (chunk.limit.clone(), lie[o.free.len() + at]);
            loops.push(PackLoop { var: v, extent: *n, limit, stride, contracts: true });
        }
        // What is the same for all neighbours, and what is far apart, is outside; of two that lie alike, the shorter one. A short loop
        // is as good as one over as many elements that are farther apart.
        let apart = |l: &PackLoop| match l.stride {
            None | Some(0) => u64::MAX,
            Some(stride) => stride.unsigned_abs().saturating_mul(LANES) / l.extent.clamp(1, LANES),
        };
        loops.sort_by_key(|l| (std::cmp::Reverse(apart(l)), l.extent));
        let along = loops.iter().rfind(|l| l.extent > 1).is_none_or(|l| l.contracts);
        let (m, k) = (side.size(), chunk.dims.iter().map(|c| c.1).product());
        let dims = if along { [m, k] } else { [k, m] };
        let tile = self.declare_tile(Tile {
            name: format!("packed{}", self.kernel.tiles.len()),
            dtype: self.instance_type(o.value),
            dims: dims.into_iter().collect(),
            valid: [None, None].into_iter().collect(),
            scope: Scope::Thread,
        });
        let counted = |i: usize| Some(rows[i].into());
        let starts: Vec<Index> = chunk.dims.iter().zip(&inner).map(|((start, _), v)| start.add(&(*v).into())).collect();
        let places = self.places(o, side, &counted, &starts);
        self.substitution.extend(places);
        let row = side.inside.iter().zip(&rows);
        let row = row.fold(Index::default(), |x, (i, v)| x.add_scaled(&(*v).into(), i.stride as i64));
        let k = linear(&inner, chunk);
        let outside = std::mem::take(&mut self.current);
        self.write_roots(&[o.value], o.scope)?;
        let value = self.value(o.value)?;
        let index = if along { vec![row, k] } else { vec![k, row] };
        self.push(StmtKind::Store { to: Memory::Tile(tile), index, value, mask: None });
        let mut body = std::mem::replace(&mut self.current, outside);
        for PackLoop { var, extent, limit, .. } in loops.into_iter().rev() {
            let extent = Extent::Const(extent);
            body = vec![StmtKind::Loop(Loop { var, extent, step: 1, limit, axis: Axis::default(), body }).into()];
        }
        self.current.append(&mut body);
        self.forget(&before);
        Ok(Packed { tile, along, whole: false })
    }
}

/// Whether a dim of a parameter and the next one lie as one.
fn continues(dims: &[Extent], strides: &[Stride], d: usize) -> bool {
    match (strides[d], dims[d + 1], strides[d + 1]) {
        (Stride::Const(far), Extent::Const(n), Stride::Const(near)) => far == near.wrapping_mul(n as i64),
        _ => false,
    }
}

/// Whether a contraction runs along these dims (extents and distances) as along one, or nearly so: at least `enough` elements
/// at a time.
pub(crate) fn is_matrix(dims: &[(u64, i64)], enough: u64) -> bool {
    let mut run = dims.last().map_or(1, |d| d.0);
    let mut whole = true;
    for pair in dims.windows(2).rev() {
        whole &= pair[0].1 == pair[1].1.wrapping_mul(pair[1].0 as i64);
        run *= if whole { pair[0].0 } else { 1 };
    }
    dims.iter().all(|d| d.1 > 0) && (whole || run >= enough)
}

/// The position in all of a contraction.
pub(crate) fn position(at: &[Index], extents: &[u64]) -> Index {
    at.iter().zip(extents).fold(Index::default(), |x, (at, n)| x.times(*n as i64).add(at))
}

/// The position in a chunk that variables count.
fn linear(vars: &[VarId], chunk: &Chunk) -> Index {
    vars.iter().zip(&chunk.dims).fold(Index::default(), |x, (v, (_, n))| x.times(*n as i64).add(&(*v).into()))
}

fn serial(var: VarId, extent: u64, step: u64, body: Block) -> Stmt {
    StmtKind::Loop(Loop { var, extent: Extent::Const(extent), step, limit: None, axis: Axis::default(), body }).into()
}
