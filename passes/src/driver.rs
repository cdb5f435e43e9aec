//! The passes over the graph, as one flat list, and the one driver that runs them.
//!
//! The driver times each pass, counts what it rewrote, verifies what it made, shows it to the observer and tells `tracing`.

use crate::{Options, Pass, cse, simplify};
use lazuli_ir::{Graph, Result};
use std::fmt;
use std::time::{Duration, Instant};

/// A graph, and how many rewrites made it.
pub(crate) type Rewritten = (Graph, usize);

/// A pass from graph to graph.
type GraphPass = fn(&Graph) -> Result<Rewritten>;

/// What runs, top to bottom.
const GRAPH_PASSES: &[(Pass, GraphPass)] =
    &[(Pass::Simplify, simplify::simplify), (Pass::Cse, cse::cse), (Pass::Dce, dce)];

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
    let mut current = None;
    for (pass, run) in GRAPH_PASSES.iter().filter(|(pass, _)| options.runs(*pass)) {
        let graph = current.as_ref().unwrap_or(graph);
        let made = report.record(*pass, graph.len(), || {
            let (made, rewrites) = run(graph)?;
            let after = made.len();
            Ok((made, rewrites, after))
        })?;
        if options.verify {
            made.verify()?;
        }
        if let Some(observer) = &options.observer {
            observer(*pass, &made);
        }
        current = Some(made);
    }
    Ok((current.unwrap_or_else(|| graph.clone()), report))
}

/// Dead code elimination: a rebuild keeps only what an output needs.
fn dce(graph: &Graph) -> Result<Rewritten> {
    let made = graph.rebuild(|new, _, node, operands| new.add(node.op.clone(), operands, node.sources.clone()))?;
    let removed = graph.len().saturating_sub(made.len());
    Ok((made, removed))
}
