//! Joining a group to one whose kernel walks the same loops, at the cost of what joins.
//!
//! Planning the union of two groups costs what the union is large, and a chain of ten thousand operations is joined one
//! operation at a time. Mostly nothing has to be planned again: where a small group, planned along the tile dims of a large
//! one, wants the values of the large one at exactly the indices at which these are stored, and the other way round, the
//! kernel of the union is both kernels side by side. No value is computed twice, each reduction runs where it did, and what
//! decides about a merge adds up. [`Summary`] is what adds up; [`join`] says whether this case is at hand. Where it is not,
//! the union is planned as a whole.
//!
//! It only takes groups that are *regular*: all they do stands in the tile, in one pass of the loops around it and at most one
//! scope deep. Rows walked several times, as in a softmax, are regular; what is nested deeper is not.

use crate::frame::{Labels, frame_along};
use crate::layout::Orders;
use crate::legality::{is_epilogue, legal, parallel_iterations, runs_once, short_enough, statements, work};
use crate::plan::{Frame, Group, Plan, SinkKind, Source};
use crate::row_panels::RowPanels;
use lazuli_ir::{DimVec, Graph, Index, NodeId, Result, Target, VarId};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

/// A loop nest by its extents and those around it: a name that all groups share. The root is 0.
type LoopId = usize;

/// The loop around, and the extents.
type LoopKey = (LoopId, SmallVec<[u64; 2]>);

/// The names of loops and their variables.
#[derive(Default)]
pub(crate) struct Loops {
    /// With the first of its variables.
    known: FxHashMap<LoopKey, (LoopId, u32)>,
    vars: u32,
}

/// The shared names of one plan's scopes and variables.
struct Names {
    scopes: Vec<LoopId>,
    vars: Vec<VarId>,
}

impl Loops {
    fn names(&mut self, plan: &Plan) -> Names {
        let mut names = Names { scopes: Vec::new(), vars: vec![VarId(u32::MAX); plan.vars.len()] };
        for s in &plan.scopes {
            let Some(parent) = s.parent else {
                names.scopes.push(0);
                continue;
            };
            let extents: SmallVec<[u64; 2]> = s.vars.iter().map(|v| plan.vars[v.0 as usize].extent).collect();
            let next = (self.known.len() + 1, self.vars);
            let (id, first) = *self.known.entry((names.scopes[parent], extents)).or_insert(next);
            if id == next.0 {
                self.vars += s.vars.len() as u32;
            }
            names.scopes.push(id);
            for (i, v) in s.vars.iter().enumerate() {
                names.vars[v.0 as usize] = VarId(first + i as u32);
            }
        }
        names
    }
}

impl Names {
    fn index(&self, index: &[Index]) -> Vec<Index> {
        // Renaming changes no structure: an unbounded range decides no simplification.
        let unbounded = |_: VarId| (i64::MIN / 4, i64::MAX / 4);
        let named = |v: VarId| Some(Index::var(self.vars[v.0 as usize]));
        index.iter().map(|x| x.substitute(&named, &unbounded)).collect()
    }
}

/// What a value asks of loops that read it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct After {
    /// The earliest pass over a scope inside the tile.
    level: u32,
    /// It is only there after the tile: a reduction over the tile is behind it.
    tile: bool,
}

impl After {
    fn and(&mut self, other: After) {
        self.level = self.level.max(other.level);
        self.tile |= other.tile;
    }
}

/// A value that a group stores.
struct Stored {
    axes: Labels,
    index: Vec<Index>,
    after: After,
    iterations: u64,
}

/// How a regular group walks its loops.
struct Walk {
    tile: DimVec<usize>,
    joined: bool,
    scopes: SmallVec<[LoopId; 4]>,
    vars: DimVec<VarId>,
    epilogue: bool,
    /// Whether it reduces over the tile.
    across: bool,
    /// Whether it contracts whole rows.
    rows: bool,
    /// The loops at the root, with their level.
    passes: FxHashSet<(u32, LoopId)>,
    /// The index at which each value is read; `None` where that is not one.
    loads: FxHashMap<NodeId, Option<Vec<Index>>>,
    stores: FxHashMap<NodeId, Stored>,
}

/// What decides about merging a group, kept up to date without a plan.
pub(crate) struct Summary {
    /// Operations as they are written.
    pub(crate) statements: u64,
    /// Floating point operations.
    pub(crate) work: u64,
    /// Iterations that threads can share.
    pub(crate) width: u64,
    /// How many contractions it has.
    pub(crate) dots: usize,
    /// Bytes that panels of whole rows read more often than others.
    pub(crate) read_again: u64,
    walk: Option<Walk>,
}

impl Summary {
    /// That of a routine, which is no kernel: nothing joins it.
    pub(crate) fn of_routine() -> Summary {
        Summary { statements: 0, work: 0, width: 1, dots: 0, read_again: 0, walk: None }
    }

    /// That of a planned group.
    pub(crate) fn of(
        graph: &Graph,
        target: &Target,
        plan: &Plan,
        frame: &Frame,
        outputs: &[NodeId],
        loops: &mut Loops,
    ) -> Summary {
        Summary::walking(graph, target, plan, walk(plan, frame, outputs, loops, &|_| None))
    }

    fn walking(graph: &Graph, target: &Target, plan: &Plan, walk: Option<Walk>) -> Summary {
        Summary {
            statements: statements(graph, plan),
            work: work(graph, plan),
            width: parallel_iterations(graph, plan, target),
            dots: plan.dots.len(),
            read_again: RowPanels::new(graph, plan, target).map_or(0, |p| p.read_again),
            walk,
        }
    }

    /// Whether both reduce, in the same loops.
    pub(crate) fn reduces_as(&self, other: &Summary) -> bool {
        let (Some(a), Some(b)) = (&self.walk, &other.walk) else { return false };
        let reduce = !a.epilogue && !b.epilogue && self.dots == 0 && other.dots == 0;
        reduce && a.scopes == b.scopes && a.passes == b.passes
    }

    /// The frame along which a regular group walks.
    pub(crate) fn frame(&self, outputs: &[NodeId]) -> Option<Frame> {
        let walk = self.walk.as_ref()?;
        let axes = outputs.iter().map(|n| Some(walk.stores.get(n)?.axes.clone())).collect::<Option<Vec<_>>>()?;
        Some(Frame { tile: walk.tile.clone(), outputs: axes, joined: walk.joined, backward: false })
    }

    /// Takes in what joins. `unread` are the values that nothing outside of both reads.
    pub(crate) fn extend(&mut self, joined: Summary, unread: &[NodeId]) {
        self.statements += joined.statements;
        self.work = self.work.saturating_add(joined.work);
        self.width = self.width.max(joined.width);
        self.dots += joined.dots;
        let (Some(walk), Some(more)) = (&mut self.walk, joined.walk) else { return };
        for (n, index) in more.loads {
            if walk.stores.contains_key(&n) {
                continue;
            }
            let known = walk.loads.entry(n).or_insert_with(|| index.clone());
            if *known != index {
                *known = None;
            }
        }
        for (n, stored) in more.stores {
            walk.loads.remove(&n);
            walk.stores.insert(n, stored);
        }
        for n in unread {
            if let Some(stored) = walk.stores.remove(n) {
                self.work = self.work.saturating_sub(stored.iterations);
            }
        }
        walk.passes.extend(more.passes);
        walk.epilogue &= more.epilogue;
        walk.across |= more.across;
        walk.rows |= more.rows;
    }
}

/// What the sinks of a plan ask of their loops, given what the values ask that it reads.
fn requirements(plan: &Plan, inherited: &dyn Fn(NodeId) -> Option<After>) -> Vec<After> {
    let base = plan.tile.last().copied().unwrap_or(0);
    let mut results: FxHashMap<usize, After> = FxHashMap::default();
    let mut all = Vec::with_capacity(plan.sinks.len());
    for s in &plan.sinks {
        let mut need = After::default();
        for i in plan.cone(&[s.value], &|_| false) {
            match plan.instances[i].source {
                Source::Load(n) => inherited(n).into_iter().for_each(|a| need.and(a)),
                Source::Reduced(_) | Source::Row(_) => results.get(&i).into_iter().for_each(|a| need.and(*a)),
                Source::Constant(_) | Source::Iota | Source::Compute(_) | Source::Dot(_) | Source::Mask(_) => {}
                Source::Scanned(_) | Source::Guarded(_) => {}
            }
        }
        if let SinkKind::Step { result, .. } = s.kind {
            let inside = plan.scopes[s.scope].parent == Some(base);
            let level = need.level + u32::from(inside);
            results.insert(result, After { level, tile: need.tile || !inside });
        }
        all.push(need);
    }
    all
}

/// How a planned group walks its loops; `None` where it is not regular.
fn walk(
    plan: &Plan,
    frame: &Frame,
    outputs: &[NodeId],
    loops: &mut Loops,
    inherited: &dyn Fn(NodeId) -> Option<After>,
) -> Option<Walk> {
    // What is indexed by data, or runs along a loop in order, is planned as a whole; and whose rows are columns in memory.
    if plan.dots.iter().any(|d| d.swapped) {
        return None;
    }
    let scans = plan.instances.iter().any(|i| matches!(i.source, Source::Scanned(_)));
    if scans || frame.backward || plan.vars.iter().any(|v| v.bound.is_some()) {
        return None;
    }
    let names = loops.names(plan);
    let depth = plan.tile.len();
    let tile_vars = plan.tile.iter().flat_map(|s| &plan.scopes[*s].vars);
    let mut walk = Walk {
        tile: frame.tile.clone(),
        joined: frame.joined,
        scopes: plan.tile.iter().map(|s| names.scopes[*s]).collect(),
        vars: tile_vars.map(|v| names.vars[v.0 as usize]).collect(),
        epilogue: is_epilogue(plan),
        across: plan.sinks.iter().any(|s| plan.tile.contains(&s.scope) && matches!(s.kind, SinkKind::Step { .. })),
        rows: plan.row_scope().is_some(),
        passes: FxHashSet::default(),
        loads: FxHashMap::default(),
        stores: FxHashMap::default(),
    };
    for (s, need) in plan.sinks.iter().zip(requirements(plan, inherited)) {
        let path = &plan.scopes[s.scope].path;
        let in_tile = path.get(1..=depth) == Some(plan.tile.as_slice()) && path.len() <= depth + 2;
        let one_pass = s.levels.iter().take(depth).all(|l| *l == 0) && !need.tile;
        if path.len() > 1 && !(in_tile && one_pass) {
            return None;
        }
        if let Some(first) = path.get(1) {
            walk.passes.insert((if depth == 0 { need.level } else { 0 }, names.scopes[*first]));
        }
        if let SinkKind::Store { output, index } = &s.kind {
            let (axes, index) = (frame.outputs[*output].clone(), names.index(index));
            let iterations = plan.scopes[s.scope].iterations;
            walk.stores.insert(outputs[*output], Stored { axes, index, after: need, iterations });
        }
    }
    for i in &plan.instances {
        if let Source::Load(n) = i.source {
            let index = i.mask.is_none().then(|| names.index(&i.index));
            let known = walk.loads.entry(n).or_insert_with(|| index.clone());
            if *known != index {
                *known = None;
            }
        }
    }
    // What a contraction's operands read is read in panels.
    let operands: Vec<usize> = plan.dots.iter().flat_map(|d| d.packed()).map(|o| o.value).collect();
    for i in plan.cone(&operands, &|_| false) {
        if let Source::Load(n) = plan.instances[i].source {
            walk.loads.insert(n, None);
        }
    }
    Some(walk)
}

/// A group that may join a larger one.
pub(crate) struct Small<'a> {
    /// The graph.
    pub(crate) graph: &'a Graph,
    /// How values lie in memory.
    pub(crate) orders: &'a Orders,
    /// The machine.
    pub(crate) target: &'a Target,
    /// Its members, in order.
    pub(crate) members: &'a [NodeId],
    /// Its members and the free nodes between, in order.
    pub(crate) local: &'a [NodeId],
    /// The values it stores while it is alone.
    pub(crate) outputs: &'a [NodeId],
    /// The stored values it reads, in order.
    pub(crate) reads: &'a [NodeId],
    /// Whether a node is free.
    pub(crate) free: &'a dyn Fn(NodeId) -> bool,
}

/// What a small group adds to a large one, where the kernel of their union is both side by side and legal.
pub(crate) fn join(large: &Summary, small: &Small<'_>, loops: &mut Loops) -> Result<Option<Summary>> {
    let Some(along) = &large.walk else { return Ok(None) };
    let seeds = seeds(along, small);
    let Some(mut frame) =
        frame_along(small.graph, small.orders, small.local, small.outputs, along.tile.clone(), seeds)?
    else {
        return Ok(None);
    };
    if frame.joined && !along.joined {
        return Ok(None);
    }
    frame.joined = along.joined;
    let inside: FxHashSet<NodeId> = small.members.iter().copied().collect();
    let group = Group {
        graph: small.graph,
        orders: small.orders,
        member: &|n| inside.contains(&n),
        free: small.free,
        outputs: small.outputs,
        frame: frame.clone(),
    };
    // A contraction that is wanted elsewhere than at the tile.
    let Ok(plan) = Plan::new(&group) else { return Ok(None) };
    if legal(small.graph, &inside, &plan, small.target).is_err() {
        return Ok(None);
    }
    let inherited = |n: NodeId| along.stores.get(&n).map(|s| s.after);
    let Some(walk) = walk(&plan, &frame, small.outputs, loops, &inherited) else { return Ok(None) };
    let added = Summary::walking(small.graph, small.target, &plan, None);
    let contracts = match (large.dots > 0, added.dots > 0) {
        (false, false) => true,
        (true, true) => false,
        _ if along.rows || walk.rows => !along.across && !walk.across,
        _ => along.epilogue && walk.epilogue,
    };
    let passes = along.passes.union(&walk.passes).count();
    let fits = walk.scopes == along.scopes
        && side_by_side(along, &walk)
        && contracts
        && runs_once(passes, large.work.saturating_add(added.work)).is_ok()
        && short_enough(large.statements + added.statements).is_ok();
    Ok(fits.then_some(Summary { walk: Some(walk), ..added }))
}

/// Whether what each reads of the other it reads where that is stored; and the large one need not wait for the small one.
fn side_by_side(large: &Walk, small: &Walk) -> bool {
    let stored_there = |n: &NodeId, index: &Option<Vec<Index>>, by: &Walk| {
        by.stores.get(n).is_none_or(|s| index.as_ref() == Some(&s.index))
    };
    small.loads.iter().all(|(n, index)| stored_there(n, index, large))
        && small.stores.iter().all(|(n, stored)| match large.loads.get(n) {
            Some(index) => stored_there(n, index, small) && stored.after == After::default(),
            None => true,
        })
}

/// How values that both groups know lie along the tile: those that pass between them, else those that both read.
fn seeds(large: &Walk, small: &Small<'_>) -> FxHashMap<NodeId, Labels> {
    // A dim of which only a part is read is not the tile's.
    let axis = |x: &Index, extent: usize| {
        let v = x.as_var()?;
        large.vars.iter().zip(&large.tile).position(|(t, n)| *t == v && *n == extent)
    };
    let read = |n: &NodeId| {
        let index = large.loads.get(n)?.as_ref()?;
        let extents = small.graph.node(*n).types[0].shape.extents();
        Some((*n, index.iter().zip(extents).map(|(x, extent)| axis(x, extent)).collect()))
    };
    let mut seeds: FxHashMap<NodeId, Labels> =
        small.reads.iter().filter_map(|n| Some((*n, large.stores.get(n)?.axes.clone()))).collect();
    seeds.extend(small.outputs.iter().filter_map(read));
    if seeds.is_empty() {
        seeds.extend(small.reads.iter().filter_map(read));
    }
    seeds
}
