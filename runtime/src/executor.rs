//! Runs a compiled program on a device: the CPU, or a GPU.
//!
//! Outputs live outside of a call's workspace, so calls may overlap. An argument that lies on another device is copied first.

mod host;
pub(crate) mod places;

use crate::array::Array;
use crate::cpu::{self, KernelCode};
#[cfg(feature = "cuda")]
use crate::cuda::executor::CudaExecutable;
use crate::device::{self, Backend};
use host::Host;
use lazuli_ir::{Device, Program, Result, Target};
use std::sync::Arc;

/// An argument of a call.
#[derive(Clone, Debug)]
pub struct Argument {
    /// The value.
    pub array: Array,
    /// Whether the call may overwrite its storage, where nobody else refers to it.
    pub donated: bool,
}

/// What happened in a call, for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallReport {
    /// Nanoseconds of each step.
    pub step_nanos: Vec<u64>,
    /// For each input: whether an output took its storage over.
    pub taken_over: Vec<bool>,
}

/// How a GPU runs a step: what a launch is, and what it takes of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GpuLaunch {
    /// Blocks of threads.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's own memory outside of registers, such as spilled ones.
    pub local_bytes: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// Blocks that a multiprocessor runs at once.
    pub resident_blocks: u32,
    /// Threads that a multiprocessor then runs at once, as a share of all that it can hold.
    pub occupancy: f64,
}

/// A program with its machine code. Cheap to clone; may be called by several threads at once.
#[derive(Clone, Debug)]
pub struct Executable(Arc<Engine>);

#[derive(Debug)]
enum Engine {
    Host(Box<Host>),
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaExecutable>),
}

impl Executable {
    /// Compiles a program for the machine this process runs on.
    pub fn new(program: Program, target: &Target) -> Result<Executable> {
        Ok(Executable(Arc::new(Engine::Host(Box::new(Host::new(program, target)?)))))
    }

    /// Compiles a program that was scheduled for the device's [target](device::target). Errors call it by `name`.
    ///
    /// # Errors
    /// The device is not there; its compiler is not; memory.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables, reason = "errors of a GPU alone need the name"))]
    pub fn on(program: Program, device: Device, name: &str) -> Result<Executable> {
        match device::backend(device)? {
            Backend::Cpu => Executable::new(program, cpu::host_target()),
            #[cfg(feature = "cuda")]
            Backend::Cuda(gpu) => {
                Ok(Executable(Arc::new(Engine::Cuda(Box::new(CudaExecutable::new(program, gpu, name)?)))))
            }
        }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        match &*self.0 {
            Engine::Host(host) => &host.program,
            #[cfg(feature = "cuda")]
            Engine::Cuda(cuda) => cuda.program(),
        }
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        match &*self.0 {
            Engine::Host(_) => Device::Cpu,
            #[cfg(feature = "cuda")]
            Engine::Cuda(cuda) => Device::Cuda(cuda.gpu().ordinal()),
        }
    }

    /// The machine code of the program's kernels, where it runs on the CPU.
    pub fn codes(&self) -> &[KernelCode] {
        match &*self.0 {
            Engine::Host(host) => &host.codes,
            #[cfg(feature = "cuda")]
            Engine::Cuda(_) => &[],
        }
    }

    /// How each step is launched, where the program runs on a GPU, and the step is a kernel with something to do.
    ///
    /// # Errors
    /// The device does not tell.
    pub fn launches(&self) -> Result<Vec<Option<GpuLaunch>>> {
        match &*self.0 {
            Engine::Host(host) => Ok(vec![None; host.program.steps.len()]),
            #[cfg(feature = "cuda")]
            Engine::Cuda(cuda) => cuda.launches(),
        }
    }

    /// Bytes of workspace that a call leases.
    pub fn workspace_bytes(&self) -> usize {
        match &*self.0 {
            Engine::Host(host) => host.workspace_bytes,
            #[cfg(feature = "cuda")]
            Engine::Cuda(cuda) => cuda.workspace_bytes(),
        }
    }

    /// Bytes of tiles that each thread keeps for the program's kernels, beyond the workspace.
    pub fn tile_bytes(&self) -> usize {
        self.codes().iter().map(KernelCode::scratch_bytes).max().unwrap_or(0)
    }

    /// Runs the program. On a GPU that submits the work and does not wait: what fails there is told when a value is read.
    pub fn run(&self, arguments: Vec<Argument>) -> Result<Vec<Array>> {
        self.call(arguments, None)
    }

    /// Runs the program, waits for it, and tells what happened.
    pub fn run_reported(&self, arguments: Vec<Argument>) -> Result<(Vec<Array>, CallReport)> {
        let mut report = CallReport::default();
        let outputs = self.call(arguments, Some(&mut report))?;
        Ok((outputs, report))
    }

    fn call(&self, mut arguments: Vec<Argument>, report: Option<&mut CallReport>) -> Result<Vec<Array>> {
        for argument in &mut arguments {
            if argument.array.device() != self.device() {
                argument.array = argument.array.to_device(self.device())?;
            }
        }
        match &*self.0 {
            Engine::Host(host) => host.run(arguments, report),
            #[cfg(feature = "cuda")]
            Engine::Cuda(cuda) => cuda.run(arguments, report),
        }
    }
}
