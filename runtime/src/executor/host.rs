//! A program on the CPU: machine code, the table of arguments, the threads that run the steps.
//!
//! A call leases its workspace from the caching allocator, and a frame: the table of arguments, where checks report, what its
//! threads share. All that does not depend on the call (strides, extents, scalars, addresses of code) stands in a frame already; a call writes
//! the addresses of buffers. Frames are kept for later calls, so those that overlap have one each, and a call allocates nothing for its kernels.

use super::places::{Places, check_arguments, check_call, check_sort, missing};
use super::{Argument, CallReport};
use crate::allocator::{self, Block};
use crate::array::Array;
use crate::buffer::Buffer;
use crate::cpu::dispatch::{self, Call, Step, Steps};
use crate::cpu::sort::{self, SortPlan};
use crate::cpu::{self, KernelCode, Status, abi, template};
use lazuli_ir::program::{self, KernelCall, Program, SortCall};
use lazuli_ir::{Error, Result, Target};
use smallvec::SmallVec;
use std::sync::{Arc, Mutex};

/// A program with its machine code.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) program: Program,
    pub(super) codes: Vec<KernelCode>,
    steps: Steps,
    /// The table of arguments, without addresses of buffers.
    words: Vec<u64>,
    /// Each call takes one whose lock is free.
    frames: [Mutex<Option<Frame>>; FRAMES],
    /// Words that take a buffer's address, and the byte offset from it.
    addresses: Vec<(usize, u32, isize)>,
    /// Words that take the address of partial results, and its offset and bytes in the workspace.
    partials: Vec<(usize, usize, usize)>,
    /// Steps with checks: their number, and the word that takes the address of their status.
    statuses: Vec<(usize, usize)>,
    /// What the steps that are sorts do; their words hold its address.
    sorts: Vec<Arc<SortPlan>>,
    pub(super) workspace_bytes: usize,
}

/// What a call needs beside memory, and the next one can use again.
#[derive(Debug)]
struct Frame {
    call: Arc<Call>,
    /// Of each step with checks.
    statuses: Box<[Status]>,
}

/// Frames kept for later calls: more that overlap make their own.
const FRAMES: usize = 8;

/// Memory that a call holds until it ends: one block for all, or, where blocks are fenced for tests, one for each buffer in
/// it, so that each has its own pages around it.
struct Workspace {
    blocks: SmallVec<[Block; 1]>,
    shared: bool,
}

impl Workspace {
    fn lease(bytes: usize) -> Result<Workspace> {
        let shared = allocator::fencing().is_none();
        let mut blocks = SmallVec::new();
        if shared && bytes > 0 {
            blocks.push(allocator::acquire(bytes)?);
        }
        Ok(Workspace { blocks, shared })
    }

    /// The place of a buffer in it.
    fn place(&mut self, offset: usize, bytes: usize) -> Result<*mut u8> {
        if !self.shared {
            self.blocks.push(allocator::acquire(bytes)?);
            return Ok(self.blocks.last().map_or(std::ptr::null_mut(), |b| b.pointer().as_ptr()));
        }
        Ok(self.blocks.first().map_or(std::ptr::null_mut(), |b| b.pointer().as_ptr().wrapping_add(offset)))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.blocks.drain(..).for_each(allocator::release);
    }
}

impl Host {
    /// Compiles a program for the machine this process runs on.
    pub(super) fn new(program: Program, target: &Target) -> Result<Host> {
        let codes = cpu::compile(&program.kernels, target)?;
        let mut host = Host {
            workspace_bytes: program.workspace_bytes,
            steps: Steps::new(Vec::new(), 0),
            words: Vec::new(),
            frames: Default::default(),
            addresses: Vec::new(),
            partials: Vec::new(),
            statuses: Vec::new(),
            sorts: Vec::new(),
            program,
            codes,
        };
        host.place_steps()?;
        Ok(host)
    }

    fn place_steps(&mut self) -> Result<()> {
        let calls = std::mem::take(&mut self.program.steps);
        let steps = calls.iter().enumerate().map(|(number, step)| match step {
            program::Step::Kernel(call) => self.place_kernel(number, call),
            program::Step::Sort(call) => self.place_sort(call),
            program::Step::Matmul(call) => Err(Error::internal(format!("the CPU has no routine for {call}"))),
        });
        let steps = steps.collect::<Result<Vec<Step>>>()?;
        self.program.steps = calls;
        let tiles = self.codes.iter().map(KernelCode::scratch_bytes);
        let scratch = tiles.chain(self.sorts.iter().map(|s| s.scratch_bytes())).max().unwrap_or(0);
        self.steps = Steps::new(steps, scratch);
        Ok(())
    }

    fn place_kernel(&mut self, number: usize, call: &KernelCall) -> Result<Step> {
        let code = self.codes.get(call.kernel).ok_or_else(missing)?;
        check_call(&self.program, code.kernel(), call)?;
        let first_word = self.words.len();
        let strides: Vec<&[i64]> = call.args.iter().map(|a| a.strides.as_slice()).collect();
        self.words.extend(template(code, &strides, &call.extents, &call.scalars));
        for (i, arg) in call.args.iter().enumerate() {
            let decl = self.program.buffers.get(arg.buffer.0 as usize).ok_or_else(missing)?;
            let offset = arg.offset as isize * decl.dtype.size() as isize;
            self.addresses.push((first_word + abi::PARAMS + i, arg.buffer.0, offset));
        }
        if !call.checks.is_empty() {
            self.statuses.push((number, first_word + abi::STATUS));
        }
        if code.partial_words() > 0 {
            let at = self.workspace_bytes.next_multiple_of(allocator::ALIGNMENT);
            let bytes = code.partial_words() * 8 * call.iterations.max(1) as usize;
            self.partials.push((first_word + abi::PARTIALS, at, bytes));
            self.workspace_bytes = at + bytes;
        }
        let (iterations, grain) = (call.iterations, call.grain);
        Ok(Step { entry: code.entry(), finish: code.finish(), first_word, iterations, grain })
    }

    fn place_sort(&mut self, call: &SortCall) -> Result<Step> {
        let operand = self.program.buffers.get(call.operand.0 as usize).ok_or_else(missing)?;
        let result = self.program.buffers.get(call.result.0 as usize).ok_or_else(missing)?;
        check_sort(&self.program, operand, result, call)?;
        let plan = Arc::new(SortPlan::new(operand.dtype, &call.layout, call.dim, call.descending, call.count));
        let first_word = self.words.len();
        self.words.resize(first_word + sort::WORDS, 0);
        self.words[first_word + sort::PLAN] = Arc::as_ptr(&plan) as u64;
        self.addresses.push((first_word + sort::OPERAND, call.operand.0, 0));
        self.addresses.push((first_word + sort::RESULT, call.result.0, 0));
        let (iterations, grain) = (plan.lines(), plan.grain());
        self.sorts.push(plan);
        Ok(Step { entry: sort::sort_lines, finish: None, first_word, iterations, grain })
    }

    fn new_frame(&self) -> Frame {
        let call = Call::new(self.steps.clone(), &self.words);
        let statuses: Box<[Status]> = self.statuses.iter().map(|_| Status::default()).collect();
        for (&(_, word), status) in self.statuses.iter().zip(&statuses) {
            call.set(word, &raw const *status as u64);
        }
        Frame { call: Arc::new(call), statuses }
    }

    pub(super) fn run(&self, mut arguments: Vec<Argument>, report: Option<&mut CallReport>) -> Result<Vec<Array>> {
        check_arguments(&self.program, &arguments)?;
        let mut workspace = Workspace::lease(self.workspace_bytes)?;
        let place = |offset, bytes| workspace.place(offset, bytes);
        let places = Places::of(&self.program, &mut arguments, place, Buffer::uninit)?;
        let mut kept = self.frames.iter().find_map(|frame| frame.try_lock().ok());
        let mut own = None;
        let frame = match kept.as_deref_mut().unwrap_or(&mut own) {
            Some(frame) if frame.call.fits() => frame,
            none => none.insert(self.new_frame()),
        };
        for &(word, buffer, offset) in &self.addresses {
            frame.call.set(word, places.pointers[buffer as usize].wrapping_offset(offset) as u64);
        }
        for &(word, offset, bytes) in &self.partials {
            frame.call.set(word, workspace.place(offset, bytes)? as u64);
        }
        let mut report = report;
        let times = report.as_deref_mut().map(|r| &mut r.step_nanos);
        // SAFETY: the table was built by each step's own layout; `check_call`, `check_sort` and `check_arguments` have made
        // sure that buffers hold what parameters reach; inputs, outputs and the workspace live until the end of this function, code and sorts
        // as long as this program. The frame is nobody else's.
        unsafe { dispatch::run(&frame.call, times)? };
        let mut failed = None;
        for (&(number, _), status) in self.statuses.iter().zip(&frame.statuses) {
            if let Some(program::Step::Kernel(call)) = self.program.steps.get(number)
                && let Err(error) = status.take(&call.checks)
            {
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(report) = report {
            report.taken_over = places.taken_over(arguments.len());
        }
        places.outputs(&self.program, &arguments)
    }
}
