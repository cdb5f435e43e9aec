//! A program's launches as CUDA graphs.
//!
//! A graph holds the addresses that its launches were given, so it serves every call with the same ones: a training loop that gives its
//! state away alternates between two sets. Up to [`KEPT`] executables are kept by their addresses. A set that is none of them
//! gets an executable that was made before: where all launches are of kernels of ours, they are given their new arguments, one by
//! one, in the executable that was used longest ago; nothing is recorded again. The arguments of a library's launches are its own:
//! with those, the call is captured again, and the executable takes the new graph over. Both are several times faster than making one.

use super::driver::{FailureKind, Function, Graph, GraphExec, Node, Shape};
use super::gpu::{Gpu, Grave, Queue};
use lazuli_ir::{Error, Result};

/// Executables a program keeps.
const KEPT: usize = 4;

/// The executables of a program, the one used last at the end.
#[derive(Debug)]
pub(super) struct Graphs {
    gpu: &'static Gpu,
    kept: Vec<(Vec<u64>, GraphExec)>,
    /// What executables are made of whose launches can be given other arguments. It lives as long as they do.
    recorded: Option<Recorded>,
}

/// A graph of launches of kernels, and each of them in order.
#[derive(Debug)]
struct Recorded {
    graph: Graph,
    nodes: Vec<Node>,
}

/// A launch of a kernel of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch<'a> {
    pub(super) function: Function,
    pub(super) shape: Shape,
    pub(super) words: &'a [u64],
}

impl Launch<'_> {
    /// Submits it.
    ///
    /// # Safety
    /// As for [`Driver::launch`](super::driver::Driver::launch).
    pub(super) unsafe fn submit(&self, queue: &mut Queue) -> Result<()> {
        // SAFETY: by the contract.
        let launched = unsafe { queue.gpu().driver.launch(self.function, self.shape, self.words) };
        queue.check(launched)
    }
}

impl Drop for Graphs {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Graphs {
    pub(super) fn new(gpu: &'static Gpu) -> Graphs {
        Graphs { gpu, kept: Vec::new(), recorded: None }
    }

    /// Whether there is an executable for these addresses.
    pub(super) fn holds(&self, addresses: &[u64]) -> bool {
        self.kept.iter().any(|(a, _)| a == addresses)
    }

    /// Runs a call's launches as a graph: `launches`, or where some are not of kernels of ours, what `submit` launches. `addresses` must
    /// be all that the launches depend on, beside the program.
    ///
    /// # Safety
    /// The launches must be right for as long as the same addresses are given: see
    /// [`Driver::launch`](super::driver::Driver::launch).
    pub(super) unsafe fn run<'a>(
        &mut self,
        queue: &mut Queue,
        addresses: &[u64],
        launches: impl FnOnce() -> Option<Vec<Launch<'a>>>,
        submit: impl FnOnce(&mut Queue) -> Result<()>,
    ) -> Result<()> {
        let exec = match self.kept.iter().position(|(a, _)| a == addresses) {
            Some(i) => self.kept.remove(i).1,
            None => match launches() {
                // SAFETY: by the contract.
                Some(launches) => unsafe { self.with_arguments(queue, &launches)? },
                None => self.captured(queue, submit)?,
            },
        };
        self.kept.push((addresses.to_vec(), exec));
        // SAFETY: by the contract.
        let launched = unsafe { queue.gpu().driver.launch_graph(exec) };
        queue.check(launched)
    }

    /// An executable of these launches: a new one, or the one used longest ago, with their arguments.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn with_arguments(&mut self, queue: &mut Queue, launches: &[Launch<'_>]) -> Result<GraphExec> {
        let driver = &self.gpu.driver;
        let Some(Recorded { graph, nodes }) = &self.recorded else {
            // SAFETY: by the contract.
            let recorded = self.recorded.insert(unsafe { record(queue, launches)? });
            let made = driver.instantiate(recorded.graph);
            return queue.check(made);
        };
        if nodes.len() != launches.len() {
            let (recorded, now) = (nodes.len(), launches.len());
            return Err(Error::internal(format!("{recorded} launches were recorded of a program that has {now}")));
        }
        let exec = if self.kept.len() < KEPT {
            let made = driver.instantiate(*graph);
            queue.check(made)?
        } else {
            self.kept.remove(0).1
        };
        let mut given = nodes.iter().zip(launches).map(|(node, launch)| {
            // SAFETY: by the contract; the executable was made of the graph that the node is in.
            unsafe { driver.give(exec, *node, launch.function, launch.shape, launch.words) }
        });
        match given.find_map(std::result::Result::err) {
            None => Ok(exec),
            Some(failure) => {
                // Some launches may have new arguments, and some old ones.
                self.gpu.bury(Grave::Exec(exec));
                if failure.kind != FailureKind::Refused {
                    return queue.check(Err(failure));
                }
                tracing::debug!(target: "lazuli::cuda", %failure, "a graph is recorded again");
                self.forget();
                // SAFETY: by the contract. Nothing is recorded now, so this does not come here again.
                unsafe { self.with_arguments(queue, launches) }
            }
        }
    }

    /// An executable of what `submit` launches: a new one, or the one used longest ago, updated.
    fn captured(&mut self, queue: &mut Queue, submit: impl FnOnce(&mut Queue) -> Result<()>) -> Result<GraphExec> {
        let (graph, ()) = capture(queue, submit)?;
        let exec = self.updated(queue, graph);
        let destroyed = queue.gpu().driver.destroy_graph(graph);
        let exec = exec?;
        if let Err(error) = queue.check(destroyed) {
            self.gpu.bury(Grave::Exec(exec));
            return Err(error);
        }
        Ok(exec)
    }

    fn updated(&mut self, queue: &mut Queue, graph: Graph) -> Result<GraphExec> {
        let driver = &self.gpu.driver;
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

    /// Lets all go, once the device is done with it.
    fn forget(&mut self) {
        for (_, exec) in self.kept.drain(..) {
            self.gpu.bury(Grave::Exec(exec));
        }
        if let Some(recorded) = self.recorded.take() {
            self.gpu.bury(Grave::Graph(recorded.graph));
        }
    }
}

/// Launches, recorded.
///
/// # Safety
/// As for [`Graphs::run`].
unsafe fn record(queue: &mut Queue, launches: &[Launch<'_>]) -> Result<Recorded> {
    let (graph, nodes) = capture(queue, |queue| {
        let one = |launch: &Launch<'_>| {
            // SAFETY: by the contract.
            unsafe { launch.submit(queue)? };
            let node = queue.gpu().driver.captured();
            queue.check(node)
        };
        launches.iter().map(one).collect::<Result<Vec<Node>>>()
    })?;
    Ok(Recorded { graph, nodes })
}

/// What `submit` launches, recorded, and what it gave.
fn capture<T>(queue: &mut Queue, submit: impl FnOnce(&mut Queue) -> Result<T>) -> Result<(Graph, T)> {
    let begun = queue.gpu().driver.begin_capture();
    queue.check(begun)?;
    let submitted = submit(queue);
    // Also after a failure: until then the stream takes no other work.
    let graph = queue.gpu().driver.end_capture();
    match (submitted, graph) {
        (Ok(gave), graph) => Ok((queue.check(graph)?, gave)),
        (Err(error), graph) => {
            if let Ok(graph) = graph {
                let destroyed = queue.gpu().driver.destroy_graph(graph);
                queue.check(destroyed)?;
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::testing::Fake;
    use crate::cuda::{code, gpu};
    use lazuli_ir::Kernel;

    #[test]
    fn what_is_not_ours_alone_is_captured_again_and_the_oldest_updated() {
        let fake = Fake::default();
        let gpu = gpu::gpu(fake.install(true).unwrap()).unwrap();
        let kernel = Kernel::parse("kernel one(%y: mut f32[]) { store %y[], 1.0 }").unwrap();
        let code = code::compile(&[kernel], gpu).unwrap().pop().unwrap();
        let shape = code.shape(&[]).unwrap().unwrap();
        let mut queue = gpu.queue().unwrap();
        let block = queue.acquire(4, "a test").unwrap();
        let mut graphs = Graphs::new(gpu);
        let mut run = |address: u64| {
            fake.take_log();
            // SAFETY: the word is the address of an element.
            let submit = |queue: &mut Queue| unsafe { code.launch(queue, shape, &[block.address().0]) };
            // SAFETY: as above.
            let ran = unsafe { graphs.run(&mut queue, &[address], || None, submit) };
            let log = fake.take_log();
            let count = |call: &str| log.iter().filter(|l| l.split(' ').next() == Some(call)).count();
            assert_eq!(count("destroy_graph"), count("begin_capture"));
            ran.map(|()| (count("begin_capture"), count("instantiate"), count("update")))
        };
        let ran: Vec<_> = (0..6).map(|address| run(address).unwrap()).collect();
        assert_eq!(ran, [[(1, 1, 0); 4].as_slice(), &[(1, 0, 1); 2]].concat());
        assert_eq!(run(5).unwrap(), (0, 0, 0));
        // An update that fails is told, and what is left serves as before.
        fake.fail("update", 0, FailureKind::Refused);
        assert!(run(6).is_err());
        assert_eq!(run(7).unwrap(), (1, 1, 0));
        drop((graphs, block, queue));
        gpu.synchronise().unwrap();
        assert_eq!(fake.misuses(), [""; 0]);
    }
}
