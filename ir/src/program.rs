//! A compiled program as data: what `passes` produce and `runtime` executes.

use crate::kernel::Access;
use crate::{DType, DimVec, Error, ErrorKind, Kernel, Layout, Literal, Matmul, Sources};
use std::fmt;

/// A buffer of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Where a buffer's storage comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The call's input of this number: its storage, pointer at the view's first element.
    Input(usize),
    /// Storage of its own that leaves the call with an output.
    Output {
        /// An input whose storage it may take over where the call donates it.
        donor: Option<usize>,
    },
    /// Bytes of the call's workspace from this offset.
    Workspace(usize),
}

/// A buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferDecl {
    /// The element type.
    pub dtype: DType,
    /// The number of elements (of an input: that its view spans).
    pub elements: usize,
    /// Where it comes from.
    pub place: Place,
}

impl BufferDecl {
    /// Bytes of its elements.
    pub fn bytes(&self) -> usize {
        self.elements.saturating_mul(self.dtype.size())
    }
}

/// A buffer passed to a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferArg {
    /// Which.
    pub buffer: BufferId,
    /// The element its pointer points at.
    pub offset: i64,
    /// The values of the parameter's run-time strides, in order of its dims.
    pub strides: DimVec<i64>,
}

/// A kernel to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCall {
    /// Which of the program's kernels.
    pub kernel: usize,
    /// Its buffers, one a parameter.
    pub args: Vec<BufferArg>,
    /// Its run-time extents.
    pub extents: Vec<u64>,
    /// Its run-time scalars.
    pub scalars: Vec<Literal>,
    /// Iterations of the kernel's parallel space: the product of its extents, each divided by its step and rounded up.
    /// 1 where it has none.
    pub iterations: u64,
    /// Iterations that are worth one claim by a thread; `iterations` where the whole is worth one thread only. For a
    /// parallel reduce it is 1: chunks are fixed.
    pub grain: u64,
    /// What each of the kernel's checks stands for.
    pub checks: Vec<CheckSite>,
    /// What it stands for.
    pub cost: KernelCost,
}

/// What a check of a kernel requires, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSite {
    /// The operation as graphs name it.
    pub operation: &'static str,
    /// The user's source lines.
    pub sources: Sources,
    /// What must hold of the checked value.
    pub requirement: Requirement,
}

/// What must hold of a checked value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// It is an index into `extent` elements; with `wrap`, negative ones count from the end.
    Index {
        /// What it stays below.
        extent: usize,
        /// Whether `-extent..0` is allowed.
        wrap: bool,
    },
    /// It is not 0: it divides.
    Divisor,
}

impl CheckSite {
    /// The error for a value that fails the check.
    pub fn error(&self, value: i64) -> Error {
        let error = match self.requirement {
            Requirement::Index { extent, wrap } => {
                let low = if wrap { format!("-{extent}") } else { "0".to_owned() };
                let message =
                    format!("index {value} is out of range for {extent} elements: it must lie in {low}..{extent}");
                Error::new(ErrorKind::Index, message)
            }
            Requirement::Divisor => Error::new(ErrorKind::Value, "an integer is divided by zero"),
        };
        error.with_operation(self.operation, []).with_sources(self.sources.clone())
    }
}

/// A sort to run: the indices that sort lines of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortCall {
    /// The buffer that is sorted.
    pub operand: BufferId,
    /// How the operand lies in it.
    pub layout: Layout,
    /// Where the indices go: `i64`, in row-major order.
    pub result: BufferId,
    /// The dim along which lines run.
    pub dim: usize,
    /// Largest first.
    pub descending: bool,
    /// How many of a line are wanted: those behind them are not written.
    pub count: usize,
    /// What it stands for.
    pub cost: KernelCost,
}

/// A matrix operand: where its first element lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixArg {
    /// In which buffer.
    pub buffer: BufferId,
    /// Which element, counted from the buffer's pointer.
    pub offset: i64,
}

/// Products of matrices to run, by a routine of the back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatmulCall {
    /// What is multiplied.
    pub matmul: Matmul,
    /// The left operand.
    pub left: MatrixArg,
    /// The right operand.
    pub right: MatrixArg,
    /// The bias, where there is one.
    pub bias: Option<MatrixArg>,
    /// Where the result goes.
    pub result: BufferId,
    /// Memory that the routine may use while it runs.
    pub scratch: Option<BufferId>,
    /// What it stands for.
    pub cost: KernelCost,
}

impl fmt::Display for MatmulCall {
    /// The product, then the buffers it reads and writes: `matmul .. of buffers 0+64, 1, 2 to 3 scratch 4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of buffers ", self.matmul)?;
        for (i, arg) in [self.left, self.right].into_iter().chain(self.bias).enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, arg.buffer.0)?;
            if arg.offset != 0 {
                write!(f, "+{}", arg.offset)?;
            }
        }
        write!(f, " to {}", self.result.0)?;
        self.scratch.map_or(Ok(()), |scratch| write!(f, " scratch {}", scratch.0))
    }
}

/// One step of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A kernel.
    Kernel(KernelCall),
    /// A sort, by a routine of the runtime.
    Sort(SortCall),
    /// Products of matrices, by a routine of the back end.
    Matmul(MatmulCall),
}

impl Step {
    /// What it stands for.
    pub fn cost(&self) -> &KernelCost {
        match self {
            Step::Kernel(call) => &call.cost,
            Step::Sort(call) => &call.cost,
            Step::Matmul(call) => &call.cost,
        }
    }
}

/// What a kernel call is for, and what it should cost: a row of the report.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KernelCost {
    /// The graph operations it computes, in order.
    pub operations: Vec<&'static str>,
    /// The user's source lines.
    pub sources: Sources,
    /// Bytes it must read and write, each buffer once.
    pub bytes: u64,
    /// Floating point operations.
    pub flops: u64,
}

/// An output of a program: a view of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputDecl {
    /// The buffer it lies in (an input's, where the program returns a view of an input).
    pub buffer: BufferId,
    /// Its element type.
    pub dtype: DType,
    /// Where in the buffer.
    pub layout: Layout,
}

/// A compiled program, before machine code.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The distinct kernels.
    pub kernels: Vec<Kernel>,
    /// The buffers.
    pub buffers: Vec<BufferDecl>,
    /// What runs, in order.
    pub steps: Vec<Step>,
    /// The outputs, in order.
    pub outputs: Vec<OutputDecl>,
    /// Bytes of workspace a call needs.
    pub workspace_bytes: usize,
    /// The number of inputs.
    pub inputs: usize,
}

impl Program {
    /// What runs in a step: the kernel's name, `sort`, or `matmul`.
    pub fn step_name(&self, step: &Step) -> &str {
        match step {
            Step::Kernel(call) => self.kernels.get(call.kernel).map_or("", |k| k.name.as_str()),
            Step::Sort(_) => "sort",
            Step::Matmul(_) => "matmul",
        }
    }

    /// The buffers that a step reads and writes, in order of its arguments.
    pub fn accesses(&self, step: &Step) -> Vec<(BufferId, Access)> {
        match step {
            Step::Kernel(call) => {
                let params = self.kernels.get(call.kernel).map_or(&[][..], |k| &k.params);
                call.args.iter().zip(params).map(|(a, p)| (a.buffer, p.access)).collect()
            }
            Step::Sort(call) => vec![(call.operand, Access::Read), (call.result, Access::Write)],
            Step::Matmul(call) => {
                let read = [call.left, call.right].into_iter().chain(call.bias).map(|m| (m.buffer, Access::Read));
                let written = std::iter::once(call.result).chain(call.scratch).map(|b| (b, Access::Write));
                read.chain(written).collect()
            }
        }
    }
}
