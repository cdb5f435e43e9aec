//! Runs a compiled program: places its buffers, builds the table of arguments, runs the steps.
//!
//! A call leases its workspace from the caching allocator, and outputs live outside of it, so calls may overlap. All that
//! does not depend on the call (strides, extents, scalars, addresses of code) stands in a template; a call copies it and
//! writes the addresses of buffers.

use crate::allocator::{self, Block};
use crate::array::Array;
use crate::buffer::Buffer;
use crate::cpu::dispatch::{self, Step, Steps};
use crate::cpu::sort::{self, SortPlan};
use crate::cpu::{self, KernelCode, Status, abi, reach, template};
use lazuli_ir::program::{self, BufferDecl, KernelCall, OutputDecl, Place, Program, SortCall};
use lazuli_ir::{DType, Error, ErrorKind, Result, Target};
use smallvec::SmallVec;
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

/// A program with its machine code. Cheap to clone; may be called by several threads at once.
#[derive(Clone, Debug)]
pub struct Executable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: Program,
    codes: Vec<KernelCode>,
    steps: Arc<Steps>,
    /// The table of arguments, without addresses of buffers.
    words: Vec<u64>,
    /// Words that take a buffer's address, and the byte offset from it.
    addresses: Vec<(usize, u32, isize)>,
    /// Words that take the address of partial results, and its offset and bytes in the workspace.
    partials: Vec<(usize, usize, usize)>,
    /// Steps with checks: their number, and the word that takes the address of their status.
    statuses: Vec<(usize, usize)>,
    /// What the steps that are sorts do; their words hold its address.
    sorts: Vec<Arc<SortPlan>>,
    workspace_bytes: usize,
}

impl Executable {
    /// Compiles a program for the machine this process runs on.
    pub fn new(program: Program, target: &Target) -> Result<Executable> {
        let codes = cpu::compile(&program.kernels, target)?;
        let mut inner = Inner {
            workspace_bytes: program.workspace_bytes,
            steps: Arc::new(Steps::new(Vec::new(), Vec::new(), 0)),
            words: Vec::new(),
            addresses: Vec::new(),
            partials: Vec::new(),
            statuses: Vec::new(),
            sorts: Vec::new(),
            program,
            codes,
        };
        inner.place_steps()?;
        Ok(Executable(Arc::new(inner)))
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.0.program
    }

    /// The machine code of the program's kernels.
    pub fn codes(&self) -> &[KernelCode] {
        &self.0.codes
    }

    /// Bytes of workspace that a call leases.
    pub fn workspace_bytes(&self) -> usize {
        self.0.workspace_bytes
    }

    /// Bytes of tiles that each thread keeps for the program's kernels, beyond the workspace.
    pub fn tile_bytes(&self) -> usize {
        self.0.codes.iter().map(KernelCode::scratch_bytes).max().unwrap_or(0)
    }

    /// Runs the program.
    pub fn run(&self, arguments: Vec<Argument>) -> Result<Vec<Array>> {
        self.0.run(arguments, None)
    }

    /// Runs the program, and tells what happened.
    pub fn run_reported(&self, arguments: Vec<Argument>) -> Result<(Vec<Array>, CallReport)> {
        let mut report = CallReport::default();
        let outputs = self.0.run(arguments, Some(&mut report))?;
        Ok((outputs, report))
    }
}

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

/// Storage of an output: new, or taken over from an input (its first element then is that of the input).
enum Storage {
    New(Arc<Buffer>),
    Donor(usize),
}

impl Inner {
    fn place_steps(&mut self) -> Result<()> {
        let calls = std::mem::take(&mut self.program.steps);
        let steps = calls.iter().enumerate().map(|(number, step)| match step {
            program::Step::Kernel(call) => self.place_kernel(number, call),
            program::Step::Sort(call) => self.place_sort(call),
        });
        let steps = steps.collect::<Result<Vec<Step>>>()?;
        self.program.steps = calls;
        let scratch = self.sorts.iter().map(|s| s.scratch_bytes()).max().unwrap_or(0);
        self.steps = Arc::new(Steps::new(steps, self.codes.clone(), scratch));
        Ok(())
    }

    fn place_kernel(&mut self, number: usize, call: &KernelCall) -> Result<Step> {
        let code = self.codes.get(call.kernel).ok_or_else(missing)?;
        check_call(&self.program, code, call)?;
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

    fn run(&self, mut arguments: Vec<Argument>, report: Option<&mut CallReport>) -> Result<Vec<Array>> {
        self.check_arguments(&arguments)?;
        let mut workspace = Workspace::lease(self.workspace_bytes)?;
        let mut pointers: SmallVec<[*mut u8; 16]> = SmallVec::new();
        let mut storage: SmallVec<[Option<Storage>; 16]> = SmallVec::new();
        for decl in &self.program.buffers {
            let (pointer, own) = match decl.place {
                Place::Input(i) => (arguments[i].array.as_ptr(), None),
                Place::Workspace(offset) => (workspace.place(offset, decl.bytes())?, None),
                Place::Output { donor } => {
                    let (pointer, own) = output(decl, donor, &mut arguments)?;
                    (pointer, Some(own))
                }
            };
            pointers.push(pointer);
            storage.push(own);
        }
        let statuses: SmallVec<[Status; 2]> = self.statuses.iter().map(|_| Status::default()).collect();
        let mut words = self.words.clone();
        for &(word, buffer, offset) in &self.addresses {
            words[word] = pointers[buffer as usize].wrapping_offset(offset) as u64;
        }
        for &(word, offset, bytes) in &self.partials {
            words[word] = workspace.place(offset, bytes)? as u64;
        }
        for (&(_, word), status) in self.statuses.iter().zip(&statuses) {
            words[word] = &raw const *status as u64;
        }
        let mut report = report;
        let times = report.as_deref_mut().map(|r| &mut r.step_nanos);
        // SAFETY: the table was built by each step's own layout; `check_call`, `check_sort` and `check_arguments` have made
        // sure that buffers hold what parameters reach; inputs, outputs and the workspace live until the end of this function.
        unsafe { dispatch::run(&self.steps, words, times)? };
        for (&(number, _), status) in self.statuses.iter().zip(&statuses) {
            if let Some(program::Step::Kernel(call)) = self.program.steps.get(number) {
                status.result(&call.checks)?;
            }
        }
        if let Some(report) = report {
            report.taken_over = vec![false; arguments.len()];
            for own in storage.iter().flatten() {
                if let Storage::Donor(i) = own {
                    report.taken_over[*i] = true;
                }
            }
        }
        self.outputs(&arguments, &storage)
    }

    fn check_arguments(&self, arguments: &[Argument]) -> Result<()> {
        if arguments.len() != self.program.inputs {
            let message = format!("{} arguments for a program of {} inputs", arguments.len(), self.program.inputs);
            return Err(Error::new(ErrorKind::Value, message));
        }
        for decl in &self.program.buffers {
            let Place::Input(i) = decl.place else { continue };
            let fits = arguments
                .get(i)
                .is_some_and(|a| a.array.dtype() == decl.dtype && a.array.layout().span() == decl.elements);
            if !fits {
                return Err(Error::internal(format!("argument {i} is not what the program was compiled for")));
            }
        }
        Ok(())
    }

    fn outputs(&self, arguments: &[Argument], storage: &[Option<Storage>]) -> Result<Vec<Array>> {
        let one = |o: &OutputDecl| {
            let number = o.buffer.0 as usize;
            let wrong = || Error::internal("an output refers to a buffer that does not leave the call");
            let decl = self.program.buffers.get(number).ok_or_else(wrong)?;
            let mut layout = o.layout.clone();
            let buffer = match (&storage[number], &decl.place) {
                (Some(Storage::New(buffer)), _) => buffer.clone(),
                (Some(Storage::Donor(i)), _) | (None, Place::Input(i)) => {
                    layout.offset += arguments[*i].array.layout().offset;
                    arguments[*i].array.buffer().clone()
                }
                (None, Place::Output { .. } | Place::Workspace(_)) => return Err(wrong()),
            };
            Array::new(buffer, o.dtype, layout)
        };
        self.program.outputs.iter().map(one).collect()
    }
}

/// Storage for an output: its donor's, where the call gave it away and nobody else refers to it.
fn output(decl: &BufferDecl, donor: Option<usize>, arguments: &mut [Argument]) -> Result<(*mut u8, Storage)> {
    if let Some(i) = donor
        && let Some(argument) = arguments.get_mut(i)
        && argument.donated
        && argument.array.dtype() == decl.dtype
        && argument.array.layout().is_contiguous()
        && argument.array.shape().elements() >= decl.elements
        && argument.array.is_sole_writable()
    {
        return Ok((argument.array.as_ptr(), Storage::Donor(i)));
    }
    let buffer = Arc::new(Buffer::uninit(decl.bytes())?);
    Ok((buffer.as_ptr(), Storage::New(buffer)))
}

fn missing() -> Error {
    Error::internal("a program refers to a kernel or buffer that does not exist")
}

/// Checks that every buffer holds what the kernel's parameters reach.
fn check_call(program: &Program, code: &KernelCode, call: &KernelCall) -> Result<()> {
    let kernel = code.kernel();
    let wrong = |what: String| Err(Error::internal(format!("a call of kernel {}: {what}", kernel.name)));
    if call.args.len() != kernel.params.len()
        || call.extents.len() != kernel.extents.len()
        || !kernel.scalars.iter().map(|s| s.dtype).eq(call.scalars.iter().map(|s| s.dtype()))
    {
        return wrong("its arguments are not those of the kernel".to_owned());
    }
    for (param, arg) in kernel.params.iter().zip(&call.args) {
        let Some(decl) = program.buffers.get(arg.buffer.0 as usize) else {
            return wrong(format!("{} is no buffer", param.name));
        };
        let Some((low, high)) = reach(param, &arg.strides, &call.extents) else {
            return wrong(format!("the strides of {} are not as many as it takes", param.name));
        };
        let (low, high) = (low.saturating_add(arg.offset), high.saturating_add(arg.offset));
        let elements = decl.elements;
        let inside = lies_inside(program, decl, low, high);
        if low < high && (!inside || param.dtype != decl.dtype) {
            return wrong(format!("{} reaches {low}..{high} in a buffer of {elements} {}", param.name, decl.dtype));
        }
    }
    Ok(())
}

/// Whether a buffer holds the elements `low..high`, counted from its pointer.
fn lies_inside(program: &Program, decl: &BufferDecl, low: i64, high: i64) -> bool {
    let elements = decl.elements as i64;
    match decl.place {
        // The pointer is the view's first element, from where a negative stride goes down.
        Place::Input(_) => high.saturating_sub(low) <= elements,
        Place::Output { .. } => low >= 0 && high <= elements,
        Place::Workspace(offset) => {
            low >= 0 && high <= elements && offset.saturating_add(decl.bytes()) <= program.workspace_bytes
        }
    }
}

/// Checks that the operand and the result of a sort hold what it reaches.
fn check_sort(program: &Program, operand: &BufferDecl, result: &BufferDecl, call: &SortCall) -> Result<()> {
    let (low, high) = call.layout.bounds();
    let elements = call.layout.shape.elements() as i64;
    let fits = low >= high || lies_inside(program, operand, low, high);
    if fits && lies_inside(program, result, 0, elements) && result.dtype == DType::I64 {
        return Ok(());
    }
    Err(Error::internal(format!("a sort of {} does not fit its buffers", call.layout.shape)))
}
