//! Replay of a program: its launches as a CUDA graph, captured once for each set of addresses.
//!
//! A graph holds the addresses of what it was captured with. A loop that gives its arguments away alternates between two sets,
//! one that drops its results uses one; so up to [`KEPT`] graphs are kept by their addresses. A set that is none of them is
//! captured again, and takes over the executable that was used longest ago, which is several times faster than making one.

use super::driver::{Graph, GraphExec};
use super::gpu::{Gpu, Grave, Queue};
use lazuli_ir::Result;

/// Executables a program keeps.
const KEPT: usize = 4;

/// The executables of a program, the one used last at the end.
#[derive(Debug)]
pub(super) struct Graphs {
    gpu: &'static Gpu,
    kept: Vec<(Vec<u64>, GraphExec)>,
}

impl Drop for Graphs {
    fn drop(&mut self) {
        for (_, exec) in self.kept.drain(..) {
            self.gpu.bury(Grave::Exec(exec));
        }
    }
}

impl Graphs {
    pub(super) fn new(gpu: &'static Gpu) -> Graphs {
        Graphs { gpu, kept: Vec::new() }
    }

    /// Whether there is an executable for these addresses.
    pub(super) fn holds(&self, addresses: &[u64]) -> bool {
        self.kept.iter().any(|(a, _)| a == addresses)
    }

    /// Runs what `submit` launches, as a graph. `addresses` must be all that what is launched depends on.
    ///
    /// # Safety
    /// What `submit` launches must be right for as long as the same addresses are given: see
    /// [`Driver::launch`](super::driver::Driver::launch).
    pub(super) unsafe fn run(
        &mut self,
        queue: &mut Queue,
        addresses: &[u64],
        submit: impl FnOnce(&mut Queue) -> Result<()>,
    ) -> Result<()> {
        let exec = match self.kept.iter().position(|(a, _)| a == addresses) {
            Some(i) => {
                let found = self.kept.remove(i);
                let exec = found.1;
                self.kept.push(found);
                exec
            }
            None => {
                let graph = capture(queue, submit)?;
                let exec = self.executable(queue, graph);
                let destroyed = queue.gpu().driver.destroy_graph(graph);
                let exec = exec?;
                self.kept.push((addresses.to_vec(), exec));
                queue.check(destroyed)?;
                exec
            }
        };
        // SAFETY: by the contract.
        let launched = unsafe { queue.gpu().driver.launch_graph(exec) };
        queue.check(launched)
    }

    /// An executable of a graph: a new one, or the one used longest ago, updated.
    fn executable(&mut self, queue: &mut Queue, graph: Graph) -> Result<GraphExec> {
        let driver = &queue.gpu().driver;
        if self.kept.len() >= KEPT {
            let (_, oldest) = self.kept.remove(0);
            let updated = driver.update(oldest, graph);
            if matches!(updated, Ok(true)) {
                return Ok(oldest);
            }
            self.gpu.bury(Grave::Exec(oldest));
            queue.check(updated)?;
        }
        let made = driver.instantiate(graph);
        queue.check(made)
    }
}

/// What `submit` launches, recorded.
fn capture(queue: &mut Queue, submit: impl FnOnce(&mut Queue) -> Result<()>) -> Result<Graph> {
    let begun = queue.gpu().driver.begin_capture();
    queue.check(begun)?;
    let submitted = submit(queue);
    // Also after a failure: until then the stream takes no other work.
    let graph = queue.gpu().driver.end_capture();
    match (submitted, graph) {
        (Ok(()), graph) => queue.check(graph),
        (Err(error), graph) => {
            if let Ok(graph) = graph {
                let destroyed = queue.gpu().driver.destroy_graph(graph);
                queue.check(destroyed)?;
            }
            Err(error)
        }
    }
}
