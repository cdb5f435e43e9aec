//! A program on a GPU.
//!
//! All that does not depend on the call stands in a template of words; a call copies it and writes the addresses of buffers.
//! Then its launches go to the device as a CUDA graph (see [`graphs`](super::graphs)); a program of one launch is submitted as such.
//! Nothing is waited for: outputs are arrays whose values will be there before whatever reads them.
//!
//! Products of matrices are the driver's routine. One that never ran is not captured, since a library loads its code then: the
//! first call of a program with such a product is submitted step by step, whatever comes after.

use super::code::{self, Codes, KernelCode, SortCode};
use super::driver::{Address, Event, Footprint, Function, Matrices, Shape};
use super::gpu::{Gpu, Queue};
use super::graphs::{Graphs, Launch};
use super::pending::Work;
use super::source::{CheckStatus, SortSource};
use crate::allocator::ALIGNMENT;
use crate::array::Array;
use crate::buffer::Buffer;
use crate::executor::places::{Places, check_arguments, check_call, check_matmul, check_sort, missing};
use crate::executor::{Argument, CallReport, GpuLaunch};
use lazuli_ir::program::{self, BufferDecl, BufferId, CheckSite, KernelCall, MatmulCall, MatrixArg, Program, SortCall};
use lazuli_ir::{DType, Matmul, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A program, loaded on a GPU.
#[derive(Debug)]
pub(crate) struct CudaExecutable {
    program: Program,
    gpu: &'static Gpu,
    steps: Vec<Step>,
    /// The arguments of all launches, without addresses of buffers.
    words: Vec<u64>,
    /// Words that take a buffer's address, and the byte offset from it.
    addresses: Vec<(usize, u32, isize)>,
    /// Words that take an address in the workspace, and its offset.
    partials: Vec<(usize, usize)>,
    workspace_bytes: usize,
    /// Statuses and tickets, on the device for the executable's life.
    work: Arc<Work>,
    graphs: Mutex<Graphs>,
}

/// A step, ready to be submitted: its launches, none where there is nothing to do.
#[derive(Debug)]
enum Step {
    /// A kernel.
    Kernel { code: KernelCode, launch: Option<Planned> },
    /// A sort.
    Sort { code: SortCode, launches: Vec<Planned> },
    /// Products of matrices.
    Matmul(Product),
}

/// Products of matrices: operands as buffers, and byte offsets from their pointers.
#[derive(Debug)]
struct Product {
    matmul: Matmul,
    left: (BufferId, isize),
    right: (BufferId, isize),
    bias: Option<(BufferId, isize)>,
    result: BufferId,
    scratch: Option<BufferId>,
    scratch_bytes: usize,
    /// What errors of the device call it.
    work: Arc<Work>,
}

/// A launch without its words, which stand in this range of the call's.
#[derive(Debug)]
struct Planned {
    function: Function,
    shape: Shape,
    words: Range<usize>,
}

/// The parts of a program's own memory while it is laid out.
#[derive(Default)]
struct Fixed {
    /// For each status, what its checks stand for, and the word that takes its address.
    statuses: Vec<(Vec<CheckSite>, usize)>,
    /// The words that take the address of a ticket.
    tickets: Vec<usize>,
}

impl CudaExecutable {
    /// Compiles a program, scheduled for this GPU's target, and loads it. Errors call it by `name`.
    pub(crate) fn new(program: Program, gpu: &'static Gpu, name: &str) -> Result<CudaExecutable> {
        if let Some(refused) = gpu.refused_product(&program) {
            return Err(refused.error());
        }
        let Codes { kernels, sorts } = code::compile_program(&program, gpu)?;
        let mut executable = CudaExecutable {
            workspace_bytes: program.workspace_bytes,
            gpu,
            steps: Vec::new(),
            words: Vec::new(),
            addresses: Vec::new(),
            partials: Vec::new(),
            work: Work::new(String::new(), Vec::new(), None),
            graphs: Mutex::new(Graphs::new(gpu)),
            program: Program::default(),
        };
        let mut fixed = Fixed::default();
        let mut sorts = sorts.into_iter();
        for step in &program.steps {
            let step = match step {
                program::Step::Kernel(call) => executable.place_kernel(&program, &kernels, call, &mut fixed)?,
                program::Step::Sort(call) => {
                    executable.place_sort(&program, sorts.next().ok_or_else(missing)?, call)?
                }
                program::Step::Matmul(call) => Step::Matmul(Product::new(&program, call)?),
            };
            executable.steps.push(step);
        }
        let names: Vec<&str> = program.steps.iter().map(|s| program.step_name(s)).collect();
        let name = format!("`{name}` (kernels {})", names.join(", "));
        executable.work = executable.place_fixed(name, fixed)?;
        executable.program = program;
        Ok(executable)
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    pub(crate) fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }

    /// How each step is launched; `None` for what has nothing to do.
    pub(crate) fn launches(&self) -> Result<Vec<Option<GpuLaunch>>> {
        let one = |step: &Step| {
            // What is launched several times is one function, and its first launch the largest.
            let Some(Planned { function, shape, .. }) = step.launches().first() else { return Ok(None) };
            let footprint = self.gpu.driver.footprint(*function, *shape).map_err(|f| f.error())?;
            let Footprint { registers, local_bytes, shared_bytes, resident_blocks } = footprint;
            let held = f64::from(self.gpu.properties().resident_threads.max(1));
            Ok(Some(GpuLaunch {
                blocks: shape.blocks,
                threads: shape.threads,
                registers,
                local_bytes,
                shared_bytes: shared_bytes + shape.shared_bytes,
                resident_blocks,
                occupancy: f64::from(resident_blocks) * f64::from(shape.threads) / held,
            }))
        };
        self.steps.iter().map(one).collect()
    }

    fn place_kernel(
        &mut self,
        program: &Program,
        codes: &[KernelCode],
        call: &KernelCall,
        fixed: &mut Fixed,
    ) -> Result<Step> {
        let code = codes.get(call.kernel).ok_or_else(missing)?;
        check_call(program, code.kernel(), call)?;
        let words = code.words();
        let first = self.words.len();
        self.words.resize(first + words.total, 0);
        let table = &mut self.words[first..];
        words.plain.fill(table, call.args.iter().map(|a| a.strides.as_slice()), &call.extents, &call.scalars);
        for (i, arg) in call.args.iter().enumerate() {
            let decl = program.buffers.get(arg.buffer.0 as usize).ok_or_else(missing)?;
            let offset = arg.offset as isize * decl.dtype.size() as isize;
            self.addresses.push((first + words.plain.params + i, arg.buffer.0, offset));
        }
        if let Some(word) = words.status {
            fixed.statuses.push((call.checks.clone(), first + word));
        }
        if let Some(word) = words.partials {
            let at = self.workspace_bytes.next_multiple_of(ALIGNMENT);
            self.workspace_bytes = at + code.partial_bytes(&call.extents);
            self.partials.push((first + word, at));
            fixed.tickets.push(first + word + 1);
        }
        let words = first..first + words.total;
        let planned = |shape| Planned { function: code.function(), shape, words };
        Ok(Step::Kernel { code: code.clone(), launch: code.shape(&call.extents)?.map(planned) })
    }

    fn place_sort(&mut self, program: &Program, code: SortCode, call: &SortCall) -> Result<Step> {
        let operand = program.buffers.get(call.operand.0 as usize).ok_or_else(missing)?;
        let result = program.buffers.get(call.result.0 as usize).ok_or_else(missing)?;
        check_sort(program, operand, result, call)?;
        let SortSource { blocks, threads, scratch_bytes, runs, .. } = &code.source;
        let scratch = [0, 1].map(|_| {
            let at = self.workspace_bytes.next_multiple_of(ALIGNMENT);
            self.workspace_bytes = at + scratch_bytes;
            at
        });
        let offset = call.layout.offset as isize * operand.dtype.size() as isize;
        let mut launches = Vec::new();
        for (i, run) in runs.iter().enumerate().filter(|_| *blocks > 0) {
            let first = self.words.len();
            self.words.extend([0, 0, 0, 0, *run]);
            self.addresses.push((first, call.operand.0, offset));
            self.addresses.push((first + 1, call.result.0, 0));
            if *scratch_bytes > 0 {
                // What one launch writes, the next one reads.
                let (from, to) = (scratch[(i + 1) % 2], scratch[i % 2]);
                self.partials.extend([(first + 2, from), (first + 3, to)]);
            }
            let shape = Shape { blocks: *blocks, threads: *threads, shared_bytes: 0 };
            launches.push(Planned { function: code.function, shape, words: first..first + 5 });
        }
        Ok(Step::Sort { code, launches })
    }

    /// Statuses and tickets: zeros at first, and whenever no launch is running.
    fn place_fixed(&mut self, name: String, fixed: Fixed) -> Result<Arc<Work>> {
        let statuses = fixed.statuses.len() * size_of::<CheckStatus>();
        let bytes = statuses + fixed.tickets.len() * 8;
        if bytes == 0 {
            return Ok(Work::new(name, Vec::new(), None));
        }
        let mut queue = self.gpu.queue()?;
        let block = queue.acquire(bytes, "the state of a program")?;
        // SAFETY: the block holds so many bytes.
        let cleared = unsafe { self.gpu.driver.fill(block.address(), 0, bytes) };
        queue.check(cleared)?;
        let at = block.address().0;
        for (i, (_, word)) in fixed.statuses.iter().enumerate() {
            self.words[*word] = at + (i * size_of::<CheckStatus>()) as u64;
        }
        for (i, word) in fixed.tickets.iter().enumerate() {
            self.words[*word] = at + (statuses + i * 8) as u64;
        }
        Ok(Work::new(name, fixed.statuses.into_iter().map(|(sites, _)| sites).collect(), Some(block)))
    }

    /// Runs the program on arguments that lie on its device.
    pub(crate) fn run(&self, mut arguments: Vec<Argument>, report: Option<&mut CallReport>) -> Result<Vec<Array>> {
        check_arguments(&self.program, &arguments)?;
        let mut queue = self.gpu.queue()?;
        let workspace = match self.workspace_bytes {
            0 => None,
            bytes => Some(queue.acquire(bytes, "the workspace of a program")?),
        };
        let base = workspace.as_ref().map_or(0, |block| block.address().0);
        let place = |offset: usize, _| Ok((base + offset as u64) as *mut u8);
        let new = |bytes| Ok(Buffer::from_device(queue.acquire(bytes, "a result")?, bytes));
        let places = Places::of(&self.program, &mut arguments, place, new)?;
        let mut words = self.words.clone();
        for &(word, buffer, offset) in &self.addresses {
            words[word] = places.pointers[buffer as usize].wrapping_offset(offset) as u64;
        }
        for &(word, offset) in &self.partials {
            words[word] = base + offset as u64;
        }
        let call = Call { pointers: &places.pointers, words: &words, base };
        // Before anything is submitted, so that whatever fails from here on names this program.
        queue.note(&self.work);
        match report {
            None => self.submit(&mut queue, &call)?,
            Some(report) => {
                report.step_nanos = self.submit_timed(&mut queue, &call)?;
                report.taken_over = places.taken_over(arguments.len());
            }
        }
        // The workspace goes back only now; whoever gets it next is behind this call in the queue.
        drop(workspace);
        places.outputs(&self.program, &arguments)
    }

    fn submit(&self, queue: &mut Queue, call: &Call<'_>) -> Result<()> {
        let all = |queue: &mut Queue| self.steps.iter().try_for_each(|step| self.step(queue, step, call));
        if self.steps.iter().map(Step::submissions).sum::<usize>() < 2 || self.gpu.stepwise {
            return all(queue);
        }
        let mut addresses: Vec<u64> = call.pointers.iter().map(|p| *p as u64).collect();
        addresses.push(call.base);
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |step: &Step| match step {
            Step::Matmul(product) => self.gpu.driver.has_run(&product.matmul, &product.matrices(call)),
            Step::Kernel { .. } | Step::Sort { .. } => true,
        };
        if !graphs.holds(&addresses) && !self.steps.iter().all(known) {
            return all(queue);
        }
        // SAFETY: as for each step; words depend on the addresses and on the program alone.
        unsafe { graphs.run(queue, &addresses, || self.own(call), all) }
    }

    /// The launches of a call, where all are of kernels of ours.
    fn own<'a>(&self, call: &'a Call<'_>) -> Option<Vec<Launch<'a>>> {
        let ours = self.steps.iter().all(|s| !matches!(s, Step::Matmul(_)));
        ours.then(|| self.steps.iter().flat_map(Step::launches).map(|planned| planned.of(call)).collect())
    }

    /// Submits each step between two events, waits, and gives the nanoseconds of each.
    fn submit_timed(&self, queue: &mut Queue, call: &Call<'_>) -> Result<Vec<u64>> {
        let driver = &self.gpu.driver;
        let mut events: Vec<Event> = Vec::new();
        let mut mark = |queue: &mut Queue| {
            let event = driver.create_event();
            let event = queue.check(event)?;
            events.push(event);
            let recorded = driver.record(event);
            queue.check(recorded)
        };
        let mut submitted = mark(queue);
        for step in &self.steps {
            submitted = submitted.and_then(|()| self.step(queue, step, call)).and_then(|()| mark(queue));
        }
        let mut nanos = Vec::new();
        if submitted.is_ok() {
            submitted = queue.settle();
        }
        if submitted.is_ok() {
            for pair in events.windows(2) {
                let us = driver.elapsed_us(pair[0], pair[1]);
                nanos.push((queue.check(us)? * 1e3) as u64);
            }
        }
        for event in events {
            let destroyed = driver.destroy_event(event);
            queue.check(destroyed)?;
        }
        submitted.map(|()| nanos)
    }

    fn step(&self, queue: &mut Queue, step: &Step, call: &Call<'_>) -> Result<()> {
        if self.gpu.stepwise {
            queue.note(step.work());
        }
        if let Step::Matmul(product) = step {
            // SAFETY: `check_matmul` and `check_arguments` have made sure that buffers hold what the product reaches;
            // arguments, results and workspace are reused in the order of the queue.
            let submitted = unsafe { self.gpu.driver.matmul(&product.matmul, &product.matrices(call)) };
            queue.check(submitted)?;
        }
        for planned in step.launches() {
            // SAFETY: the words were laid out for this function; `check_call`, `check_sort` and `check_arguments` have made sure
            // that buffers hold what is reached; arguments, results and workspace are reused in the order of the queue.
            unsafe { planned.of(call).submit(queue)? };
        }
        if self.gpu.stepwise { queue.settle() } else { Ok(()) }
    }
}

impl Step {
    fn launches(&self) -> &[Planned] {
        match self {
            Step::Kernel { launch, .. } => launch.as_slice(),
            Step::Sort { launches, .. } => launches,
            Step::Matmul(_) => &[],
        }
    }

    /// How much is submitted.
    fn submissions(&self) -> usize {
        match self {
            Step::Kernel { .. } | Step::Sort { .. } => self.launches().len(),
            Step::Matmul(_) => 1,
        }
    }

    /// What errors of the device call the step alone.
    fn work(&self) -> &Arc<Work> {
        match self {
            Step::Kernel { code, .. } => code.work(),
            Step::Sort { code, .. } => &code.work,
            Step::Matmul(product) => &product.work,
        }
    }
}

impl Planned {
    /// The launch of a call.
    fn of<'a>(&self, call: &'a Call<'_>) -> Launch<'a> {
        Launch { function: self.function, shape: self.shape, words: &call.words[self.words.clone()] }
    }
}

/// What a call's steps need to know of it.
struct Call<'a> {
    /// Where the buffers lie.
    pointers: &'a [*mut u8],
    words: &'a [u64],
    /// Where the workspace lies.
    base: u64,
}

impl Product {
    fn new(program: &Program, call: &MatmulCall) -> Result<Product> {
        check_matmul(program, call)?;
        let at = |arg: MatrixArg, dtype: DType| (arg.buffer, arg.offset as isize * dtype.size() as isize);
        let scratch = call.scratch.map(|b| program.buffers.get(b.0 as usize).ok_or_else(missing)).transpose()?;
        let scratch_bytes = scratch.map_or(0, BufferDecl::bytes);
        Ok(Product {
            left: at(call.left, call.matmul.operands),
            right: at(call.right, call.matmul.operands),
            bias: call.bias.map(|b| at(b, call.matmul.result)),
            result: call.result,
            scratch: call.scratch,
            scratch_bytes,
            work: Work::new(call.matmul.to_string(), Vec::new(), None),
            matmul: call.matmul.clone(),
        })
    }

    /// Where the matrices of a call lie.
    fn matrices(&self, call: &Call<'_>) -> Matrices {
        let at = |(buffer, offset): (BufferId, isize)| {
            Address(call.pointers[buffer.0 as usize].wrapping_offset(offset) as u64)
        };
        Matrices {
            left: at(self.left),
            right: at(self.right),
            bias: self.bias.map(at),
            result: at((self.result, 0)),
            scratch: self.scratch.map_or(Address(0), |b| at((b, 0))),
            scratch_bytes: self.scratch_bytes,
        }
    }
}
