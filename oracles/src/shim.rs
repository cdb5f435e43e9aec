//! CUDA C on the CPU: kernels compiled by g++ against a header that has CUDA's built-ins, each CUDA thread a fiber.
//!
//! A [`Program`] is a set of kernels. They run in processes of their own (`shim/host.cpp`), which place memory against
//! inaccessible pages, so that a wrong kernel ends a process and not the test. What a launch finds is a [`Fault`]: an access
//! outside of a buffer, a barrier that not all threads reach, a shuffle whose mask is not who comes. What no single run
//! can find, a race, shows as a difference between [`Schedule`]s: threads run until they wait, in another order in each.

mod build;
#[cfg(feature = "machine-code")]
mod case;
#[cfg(feature = "machine-code")]
mod run;
#[cfg(test)]
mod tests;
mod worker;

use lazuli_ir::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use build::Folder;
pub use build::{available, compiler};
#[cfg(feature = "machine-code")]
pub use case::GpuCase;
#[cfg(feature = "machine-code")]
pub use run::{Failure, KernelSet, run};
use worker::Worker;

/// The order in which the threads of a block run. Those of a warp run until they wait for others, in order of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// Warps in turn, up to their next wait.
    Fair,
    /// The same from the last to the first: lanes, warps and blocks.
    Reversed,
    /// Warps of even number as far as they can, and only then those of odd number.
    EvenAhead,
    /// Warps of odd number as far as they can, and only then those of even number.
    OddAhead,
}

impl Schedule {
    /// Every schedule.
    pub const ALL: [Schedule; 4] = [Schedule::Fair, Schedule::Reversed, Schedule::EvenAhead, Schedule::OddAhead];
}

/// Where memory lies between its inaccessible pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// At the end of its pages, as closely as an alignment of 16 bytes allows; what is written in between is found after the
    /// launch.
    End,
    /// At the start of its pages.
    Start,
}

/// Memory that a launch reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether kernels may write it.
    pub writable: bool,
}

/// An argument of a kernel: a word of 8 bytes, of which it reads as many as its parameter has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number.
    Word(u64),
    /// A pointer: to a byte of the launch's memory of this number.
    Pointer {
        /// Which.
        memory: usize,
        /// The byte.
        offset: u64,
    },
}

/// A launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// Blocks of the grid.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Its arguments, in order.
    pub args: &'a [Arg],
    /// In which order threads run.
    pub schedule: Schedule,
    /// Where memory lies.
    pub fence: Fence,
}

/// What kind of fault was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access outside of memory, or a write to what is only read.
    Memory,
    /// A barrier that some threads of the block do not reach.
    Barrier,
    /// Lanes of a warp that do not come together as a mask says.
    Warp,
    /// An instruction that CPUs do not take, or a launch that no device takes.
    Trap,
    /// A launch that does not end.
    Endless,
    /// The process died, or was never there.
    Process,
}

/// What is wrong with a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: FaultKind,
    /// The kernel, block and thread, and what happened.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Kernels of one executable, at most. Compiling a text has a fixed cost, and both cores should have work.
const UNIT: usize = 50;

/// Compiled kernels.
#[derive(Debug)]
pub struct Program {
    folder: Folder,
    /// The unit of each kernel, and its number there.
    kernels: HashMap<String, (usize, usize)>,
    /// Processes of each unit that wait for a launch.
    idle: Vec<Mutex<Vec<Worker>>>,
}

impl Program {
    /// Compiles kernels, each a name and its text, after a text that all of them share. `CXX` names the compiler.
    ///
    /// # Errors
    /// What the compiler says, and where there is none.
    pub fn compile(prelude: &str, kernels: &[(&str, &str)]) -> Result<Program> {
        let units = kernels.len().div_ceil(UNIT);
        let size = kernels.len().div_ceil(units.max(1)).max(1);
        let folder = Folder::new()?;
        let units: Vec<&[(&str, &str)]> = kernels.chunks(size).collect();
        build::build(&folder, prelude, &units)?;
        let mut numbers = HashMap::new();
        for (u, unit) in units.iter().enumerate() {
            for (k, (name, _)) in unit.iter().enumerate() {
                if numbers.insert((*name).to_owned(), (u, k)).is_some() {
                    return Err(Error::internal(format!("two kernels of a program are named {name}")));
                }
            }
        }
        Ok(Program { folder, kernels: numbers, idle: units.iter().map(|_| Mutex::default()).collect() })
    }

    /// Runs a kernel. What it writes is in `memory` afterwards; where a fault is found, `memory` is as before.
    ///
    /// # Errors
    /// What is wrong with the kernel.
    pub fn launch(&self, launch: &Launch<'_>, memory: &mut [Memory]) -> std::result::Result<(), Fault> {
        let &(unit, number) = self.kernels.get(launch.kernel).ok_or_else(|| Fault {
            kind: FaultKind::Process,
            message: format!("no kernel is named {}", launch.kernel),
        })?;
        let waiting = || self.idle[unit].lock().unwrap_or_else(PoisonError::into_inner);
        let taken = waiting().pop();
        let mut worker = match taken {
            Some(worker) => worker,
            None => Worker::start(&self.folder.unit(unit))?,
        };
        worker.launch(number, launch, memory)?;
        waiting().push(worker);
        Ok(())
    }
}
