//! What makes a planned kernel legal, and what it costs.
//!
//! - A contraction is wanted exactly at the tile, and nothing in the group reduces. Or it takes whole rows, a few of which fit
//!   the second-level cache with all that is made of them; nothing reduces over rows.
//! - A sum of floats is computed once: two copies may add in two orders, and `x - max(x)` would be 0 nowhere.
//! - The loops below the root run once, so that they can be spread over threads; a program small enough for one thread may run
//!   several in sequence.
//! - It is not too long to compile.

use crate::columns;
use crate::plan::{DotPlan, Instance, Plan, Reach, Sink, SinkKind, Source};
use crate::row_panels::RowPanels;
use lazuli_ir::{Graph, NodeId, Op, Target, TargetKind};
use rustc_hash::FxHashSet;

/// Work, in floating point operations, below which a kernel may run loops in sequence on one thread.
pub(crate) const SMALL_WORK: u64 = 1 << 16;
/// Contractions of a kernel at most: one that makes its rows ready for the next is a phase of its own, and a network of many layers would
/// be one kernel, planned again for each operation that joins. What attention and its gradient, or some layers, pass to one
/// another stays in cache.
const MOST_PHASES: usize = 6;
/// Operations beyond which a kernel is not grown.
pub(crate) const MOST_FLOPS: u64 = 2000;

/// Why the kernel of these members is not legal.
pub(crate) fn legal(graph: &Graph, inside: &FxHashSet<NodeId>, plan: &Plan, target: &Target) -> Result<(), String> {
    if plan.panel_dot().is_some() && !is_epilogue(plan) {
        return Err("a reduction does not run on the tile of a contraction".into());
    }
    if plan.row_scope().is_some() {
        whole_rows(graph, plan, target)?;
    }
    if let Some(n) = summed_twice(graph, plan) {
        let name = graph.op(n).name();
        return Err(format!("it would compute {name} twice, in two orders, and the results may differ"));
    }
    let mut passes: Vec<(u32, usize)> = Vec::new();
    for s in &plan.sinks {
        if let (Some(&level), Some(&scope)) = (s.levels.first(), plan.scopes[s.scope].path.get(1)) {
            // Panels of rows run all their phases in one loop.
            let pass = (if plan.row_scope() == Some(scope) { 0 } else { level }, scope);
            if !passes.contains(&pass) {
                passes.push(pass);
            }
        }
    }
    // What one operation takes, it takes.
    if inside.len() <= 1 {
        return Ok(());
    }
    runs_once(passes.len(), work(graph, plan))?;
    short_enough(statements(graph, plan))
}

/// Why a plan does not run in panels of whole rows.
fn whole_rows(graph: &Graph, plan: &Plan, target: &Target) -> Result<(), String> {
    let operands: Vec<usize> = plan.dots.iter().flat_map(|d| d.packed()).map(|o| o.scope).collect();
    let apart = |s: &Sink| {
        plan.scopes[s.scope]
            .path
            .iter()
            .any(|scope| operands.contains(scope) && !plan.scopes[plan.row_scope().unwrap_or(0)].path.contains(scope))
    };
    if plan.sinks.iter().any(apart) {
        return Err("a reduction does not run where an operand of a contraction is packed".into());
    }
    let across = |s: &Sink| match s.kind {
        SinkKind::Step { .. } => plan.tile.contains(&s.scope),
        SinkKind::Update { .. } => true,
        SinkKind::Store { .. } | SinkKind::Row => false,
    };
    if plan.sinks.iter().any(across) {
        return Err("a reduction over rows does not run on panels of them".into());
    }
    if target.kind != TargetKind::Cpu && plan.dots.iter().any(DotPlan::is_across) {
        return Err("blocks of a GPU do not add to one result".into());
    }
    // Phases of a panel pass rows on to each other, so all run in one pass of the loops around it.
    let rows = plan.row_scope().unwrap_or(0);
    let around = plan.scopes[rows].path.len().saturating_sub(2);
    let mut passes =
        plan.sinks.iter().filter(|s| plan.scopes[s.scope].path.contains(&rows)).map(|s| &s.levels[..around]);
    if passes.next().is_some_and(|first| passes.any(|other| other != first)) {
        return Err("panels of rows would run in several passes of the loops around them".into());
    }
    let inside = |s: &Sink| plan.scopes[s.scope].path.len() > plan.tile.len() + 1;
    let stores = |s: &Sink| matches!(s.kind, SinkKind::Store { .. }) && inside(s);
    if plan.dots.iter().any(|d| d.swapped) && plan.sinks.iter().any(stores) {
        return Err("rows that are columns in memory would be stored across it".into());
    }
    if RowPanels::new(graph, plan, target).is_none() {
        return Err(match target.kind {
            TargetKind::Cpu => "a few rows of the contraction do not fit the second-level cache".into(),
            TargetKind::Nvidia(_) => "a few rows of the contraction do not fit the shared memory of a block".into(),
        });
    }
    Ok(())
}

/// Whether everything that a kernel does stands on its tile, and nothing reduces.
pub(crate) fn is_epilogue(plan: &Plan) -> bool {
    let last = plan.tile.last().copied().unwrap_or(0);
    plan.sinks.iter().all(|s| s.scope == last && matches!(s.kind, SinkKind::Store { .. }))
}

/// Why a kernel of this work does not run that many loops in sequence.
pub(crate) fn runs_once(loops: usize, work: u64) -> Result<(), String> {
    if loops > 1 && work > SMALL_WORK {
        return Err("it would run several loops in sequence, which threads cannot share".into());
    }
    Ok(())
}

/// Why a kernel of that many operations is not grown.
pub(crate) fn short_enough(statements: u64) -> Result<(), String> {
    if statements > MOST_FLOPS {
        return Err(format!("the kernel would have {statements} operations, more than {MOST_FLOPS}"));
    }
    Ok(())
}

/// Why a kernel of that many contractions is not grown.
pub(crate) fn few_phases(contractions: usize) -> Result<(), String> {
    if contractions > MOST_PHASES {
        return Err(format!("the kernel would have {contractions} contractions, more than {MOST_PHASES}"));
    }
    Ok(())
}

/// A sum of floats that the kernel would compute twice: at two index tuples, or in two passes over a scope around it.
fn summed_twice(graph: &Graph, plan: &Plan) -> Option<NodeId> {
    let mut seen: FxHashSet<(bool, NodeId)> = FxHashSet::default();
    (0..plan.sinks.len()).find_map(|s| {
        let SinkKind::Step { result, .. } = plan.sinks[s].kind else { return None };
        let (row, n) = match plan.instances[result].source {
            Source::Reduced(n) => (false, n),
            Source::Row(n) => (true, n),
            _ => return None,
        };
        let is_sum = match graph.op(n) {
            Op::Reduce { op, acc, .. } => op.rounds() && acc.is_float(),
            _ => graph.node(n).types[0].dtype.is_float(),
        };
        (is_sum && (!seen.insert((row, n)) || runs_in_two_passes(plan, s))).then_some(n)
    })
}

/// Whether a reduction stands in a scope that runs several times, in sequence, and is needed in more than one of the runs.
fn runs_in_two_passes(plan: &Plan, step: usize) -> bool {
    let path = &plan.scopes[plan.sinks[step].scope].path;
    // The last scope on the path is the reduction's own, the one before it is where its result lives.
    // What is reduced along a row of a panel is kept for the phases that follow.
    let kept = plan.row_scope().is_some_and(|t| path.get(path.len().wrapping_sub(2)) == Some(&t));
    let passes = path.len().saturating_sub(if kept { 3 } else { 2 });
    (0..passes).any(|j| {
        let here = |s: &&Sink| plan.scopes[s.scope].path.get(j + 1) == path.get(j + 1);
        let users = plan.sinks.iter().filter(|s| s.needs.contains(&step)).filter(here);
        users.map(|s| s.levels[j]).any(|level| level != plan.sinks[step].levels[j])
    })
}

/// Floating point operations of one instance.
fn flops(graph: &Graph, source: &Source) -> u64 {
    match source {
        Source::Compute(n) | Source::Reduced(n) | Source::Row(n) | Source::Scanned(n) => {
            u64::from(graph.op(*n).flops())
        }
        Source::Load(_) | Source::Constant(_) | Source::Iota | Source::Dot(_) => 0,
        Source::Guarded(_) => 1,
        Source::Mask(conditions) => 2 * conditions.len() as u64,
    }
}

/// The most rows that a reduction runs down, along columns that are the iterations of a scope; `None` where none does.
fn columns_rows(plan: &Plan, scope: usize) -> Option<u64> {
    let column = *plan.scopes[scope].vars.last()?;
    let below = |i: &&Instance| i.scope != scope && plan.scopes[i.scope].path.contains(&scope);
    let along = |i: &&Instance| {
        matches!(i.source, Source::Load(_)) && i.index.last().is_some_and(|x| x.as_var() == Some(column))
    };
    let runs = |i: &Instance| plan.scopes[i.scope].iterations / plan.scopes[scope].iterations.max(1);
    plan.instances.iter().filter(below).filter(along).map(runs).max()
}

/// Floating point operations as they are written in a kernel, loops not multiplied.
pub(crate) fn statements(graph: &Graph, plan: &Plan) -> u64 {
    plan.instances.iter().map(|i| flops(graph, &i.source)).sum()
}

/// Floating point operations of a planned kernel.
pub fn work(graph: &Graph, plan: &Plan) -> u64 {
    let elementwise = plan.instances.iter().map(|i| {
        let once = match i.source {
            Source::Reduced(_) | Source::Row(_) => 0,
            _ => flops(graph, &i.source),
        };
        once.saturating_mul(plan.scopes[i.scope].iterations).saturating_mul(repeats(plan, i.scope))
    });
    let packed = plan.dots.iter().flat_map(|d| d.packed()).map(|o| match plan.instances[o.value].source {
        Source::Load(_) => 0,
        _ => plan.scopes[o.scope].iterations.saturating_mul(repeats(plan, o.scope)).saturating_mul(PACK_FLOPS),
    });
    let ends = plan.sinks.iter().map(|s| plan.scopes[s.scope].iterations);
    let dots = plan.dots.iter().map(|d| {
        let side = |s: usize| d.sides[s].iter().map(|v| plan.vars[v.0 as usize].extent).product::<u64>();
        let (columns, k) = match d.reach {
            Reach::Panels => (1, d.contract.iter().product()),
            Reach::Rows { .. } => (side(1), d.contract.iter().product()),
            // The tile counts what is contracted.
            Reach::Across => (side(1), side(0)),
        };
        let tile = plan.tile.last().map_or(1, |&s| plan.scopes[s].iterations);
        [columns, k, 2].into_iter().fold(tile, u64::saturating_mul)
    });
    elementwise.chain(packed).chain(ends).chain(dots).fold(0, u64::saturating_add)
}

/// Operations that an element costs which is written to a tile before a contraction reads it.
const PACK_FLOPS: u64 = 2;
/// Rows or columns of a panel, for the estimate of how often the other operand is packed.
const PANEL: u64 = 256;

/// How often what stands in a scope runs beyond its iterations: an operand of a contraction is packed for each panel of the
/// other side.
fn repeats(plan: &Plan, scope: usize) -> u64 {
    let other = |(dot, side): (&DotPlan, usize)| -> u64 {
        let extents = dot.sides[1 - side].iter().map(|v| plan.vars[v.0 as usize].extent);
        extents.fold(1, u64::saturating_mul).div_ceil(PANEL)
    };
    let sides = plan.dots.iter().filter(|d| !d.is_across()).flat_map(|d| [(d, 0), (d, 1)]);
    let packs = |(d, s): &(&DotPlan, usize)| {
        !d.computed[*s] && d.operands[*s].scope == scope && !d.operands[*s].contract.is_empty()
    };
    sides.into_iter().find(packs).map_or(1, other)
}

/// Columns that a block of a GPU takes at least: a thread each, neighbours beside each other.
const GPU_COLUMNS: u64 = 32;

/// Iterations of the loops that threads can share: those of the outermost scope, where there is one alone. Columns count by
/// the block: of a CPU's threads (see [`columns`](crate::columns)), or of a GPU.
pub(crate) fn parallel_iterations(graph: &Graph, plan: &Plan, target: &Target) -> u64 {
    if let Some(cut) = RowPanels::new(graph, plan, target) {
        return cut.panels;
    }
    match plan.tile.last() {
        Some(&s) => {
            let all = plan.scopes[s].iterations;
            let column = plan.scopes[s].vars.last().map(|v| plan.vars[v.0 as usize].extent.max(1));
            match (columns_rows(plan, s), column) {
                (Some(rows), Some(n)) => {
                    let block = match target.kind {
                        TargetKind::Cpu => columns::shared_columns(rows),
                        TargetKind::Nvidia(_) => GPU_COLUMNS,
                    };
                    all / n * n.div_ceil(block)
                }
                _ => all,
            }
        }
        None => plan
            .sinks
            .iter()
            .map(|s| plan.scopes[s.scope].path.get(1).map_or(1, |&c| plan.scopes[c].iterations))
            .max()
            .unwrap_or(1),
    }
}
