//! The passes over the graph, as one flat list, and the one driver that runs them.
//!
//! The driver times each pass, counts what it rewrote, verifies what it made, shows it to the observer and tells `tracing`.

use crate::{Options, Pass, cse, simplify, split};
use lazuli_ir::{Graph, Op, Result};
use std::fmt;
use std::time::{Duration, Instant};

/// A graph, and how many rewrites made it; `None` where there is nothing to rewrite.
pub(crate) type Rewritten = Option<(Graph, usize)>;

/// A pass from graph to graph.
type GraphPass = fn(&Graph) -> Result<Rewritten>;

/// What runs, top to bottom.
const GRAPH_PASSES: &[(Pass, GraphPass)] =
    &[(Pass::Simplify, simplify::simplify), (Pass::Cse, cse::cse), (Pass::Dce, dce), (Pass::Split, split::split)];

/// What one pass did.
#[derive(Clone, Debug)]
pub struct PassRecord {
    /// Which pass.
    pub pass: Pass,
    /// The time it took.
    pub time: Duration,
    /// How often one of its rules applied.
    pub rewrites: usize,
    /// The nodes before it.
    pub before: usize,
    /// The nodes after it.
    pub after: usize,
}

/// What the passes did, in order.
#[derive(Clone, Debug, Default)]
pub struct PassReport {
    /// A record for each pass that ran.
    pub passes: Vec<PassRecord>,
}

impl PassReport {
    /// Runs a pass from one IR to another (`before` and the number in the result count their nodes), and records it.
    pub fn record<T>(
        &mut self,
        pass: Pass,
        before: usize,
        run: impl FnOnce() -> Result<(T, usize, usize)>,
    ) -> Result<T> {
        let start = Instant::now();
        let (made, rewrites, after) = run()?;
        let time = start.elapsed();
        tracing::debug!(
            target: "lazuli::passes",
            pass = pass.name(),
            micros = time.as_micros() as u64,
            rewrites,
            before,
            after
        );
        self.passes.push(PassRecord { pass, time, rewrites, before, after });
        Ok(made)
    }

    /// The time all of them took.
    pub fn time(&self) -> Duration {
        self.passes.iter().map(|p| p.time).sum()
    }
}

impl fmt::Display for PassReport {
    /// One line a pass.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.passes {
            let (name, micros) = (p.pass.name(), p.time.as_secs_f64() * 1e6);
            writeln!(f, "{name:<10} {micros:>9.1} us  {:>6} rewrites  {} -> {} nodes", p.rewrites, p.before, p.after)?;
        }
        Ok(())
    }
}

/// The graph made simple: what fusion starts from. Inputs keep their places, dead ones included.
pub fn optimize(graph: &Graph, options: &Options) -> Result<(Graph, PassReport)> {
    let mut report = PassReport::default();
    let mut current: Option<Graph> = None;
    for (pass, run) in GRAPH_PASSES.iter().filter(|(pass, _)| options.runs(*pass)) {
        let before = current.as_ref().unwrap_or(graph);
        let made = report.record(*pass, before.len(), || {
            let made = run(before)?;
            let (rewrites, after) = made.as_ref().map_or((0, before.len()), |(new, rewrites)| (*rewrites, new.len()));
            Ok((made, rewrites, after))
        })?;
        if let Some((new, _)) = made {
            if options.verify {
                new.verify()?;
            }
            current = Some(new);
        }
        if let Some(observer) = &options.observer {
            observer(*pass, current.as_ref().unwrap_or(graph));
        }
    }
    Ok((current.unwrap_or_else(|| graph.clone()), report))
}

/// Dead code elimination: a rebuild keeps only what an output needs. Inputs stay.
fn dce(graph: &Graph) -> Result<Rewritten> {
    let live = graph.live();
    let dead = graph.nodes().filter(|n| !live[n.index()] && !matches!(graph.op(*n), Op::Input { .. })).count();
    if dead == 0 {
        return Ok(None);
    }
    let new = graph.rebuild(|new, _, node, operands| new.add(node.op.clone(), operands, node.sources.clone()))?;
    Ok(Some((new, dead)))
}
