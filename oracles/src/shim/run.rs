//! A compiled program, kernel by kernel, on the shim: each launch in all schedules, which must agree bit for bit.
//!
//! Buffers that the memory plan puts into the same bytes lie in the same bytes here, so what the plan reuses too early, and what
//! threads of a kernel overwrite before others have read it, is found. Each launch gets just the buffers it names, fenced.

use super::{Arg, Fence, Launch, Memory, Program as Compiled, Schedule};
use lazuli_ir::kernel::{Access, StmtKind};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::program::{KernelCall, MatmulCall, OutputDecl, Place, Program, SortCall, Step};
use lazuli_ir::reference::{Dense, apply};
use lazuli_ir::{DType, Error, Kernel, Layout, Literal, Op, Result, TensorType};
use lazuli_runtime::cuda::source::{CheckStatus, PRELUDE, Source, print};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

/// Distinct kernels of many programs, as CUDA C.
#[derive(Debug, Default)]
pub struct KernelSet {
    sources: Vec<Source>,
    numbers: HashMap<Kernel, usize>,
}

impl KernelSet {
    /// Adds a kernel that is not there yet.
    ///
    /// # Errors
    /// What is not printed.
    pub fn add(&mut self, kernel: &Kernel) -> Result<()> {
        if !self.numbers.contains_key(kernel) {
            let number = self.sources.len();
            self.sources.push(print(kernel, &format!("kernel_{number}"))?);
            self.numbers.insert(kernel.clone(), number);
        }
        Ok(())
    }

    /// The kernels' texts.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Compiles all of them for the CPU.
    ///
    /// # Errors
    /// What g++ does not take.
    pub fn compile(&self) -> Result<Compiled> {
        self.compile_edited(str::to_owned)
    }

    /// The same with changed texts, of the prelude as well: to see that wrong kernels are found.
    ///
    /// # Errors
    /// What g++ does not take.
    pub fn compile_edited(&self, edit: impl Fn(&str) -> String) -> Result<Compiled> {
        let texts: Vec<String> = self.sources.iter().map(|s| edit(&s.text)).collect();
        let named = self.sources.iter().zip(&texts);
        let named: Vec<(&str, &str)> = named.map(|(s, text)| (s.name.as_str(), text.as_str())).collect();
        Compiled::compile(&edit(PRELUDE), &named)
    }

    fn source(&self, kernel: &Kernel) -> Option<&Source> {
        self.numbers.get(kernel).and_then(|n| self.sources.get(*n))
    }

    /// The text of a kernel; nothing where it is not there.
    pub fn text(&self, kernel: &Kernel) -> &str {
        self.source(kernel).map_or("", |s| &s.text)
    }
}

/// Why a run gave no outputs.
#[derive(Debug)]
pub enum Failure {
    /// A check of a kernel, which is what its caller is told.
    Check(Error),
    /// Something that must not happen.
    Wrong(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Check(e) => write!(f, "a check fails: {e}"),
            Failure::Wrong(e) => f.write_str(e),
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Wrong(e.to_string())
    }
}

/// Runs a program. Inputs lie in memory as `layouts` say; outputs take over their storage where `donates`.
///
/// # Errors
/// A check that fails; a fault of a kernel; schedules that do not agree.
pub fn run(
    program: &Program,
    set: &KernelSet,
    code: &Compiled,
    inputs: &[Dense],
    layouts: &[Layout],
    donates: bool,
) -> std::result::Result<Vec<Dense>, Failure> {
    let mut store = Store::new(program, inputs, layouts, donates)?;
    for step in &program.steps {
        match step {
            Step::Kernel(call) => store.launch(call, set, code)?,
            Step::Sort(call) => store.sort(call)?,
            Step::Matmul(call) => store.multiply(call)?,
        }
    }
    Ok(program.outputs.iter().map(|o| store.output(o)).collect::<Result<_>>()?)
}

/// Where a buffer lies.
#[derive(Clone, Debug)]
struct Placed {
    /// Which storage.
    storage: usize,
    /// Its bytes there.
    bytes: Range<usize>,
    /// The byte that its pointer points at.
    pointer: usize,
}

/// The memory of a call.
struct Store<'a> {
    program: &'a Program,
    storages: Vec<Vec<u8>>,
    buffers: Vec<Placed>,
}

impl<'a> Store<'a> {
    fn new(program: &'a Program, inputs: &[Dense], layouts: &[Layout], donates: bool) -> Result<Store<'a>> {
        let mut storages = Vec::new();
        let mut firsts = Vec::new();
        for (x, layout) in inputs.iter().zip(layouts) {
            let (bytes, first) = lay_out(x, layout)?;
            storages.push(bytes);
            firsts.push(first);
        }
        let workspace = storages.len();
        storages.push(vec![0xff; program.workspace_bytes]);
        let mut buffers = Vec::new();
        for b in &program.buffers {
            let whole = |storage: usize, pointer: usize| Placed { storage, bytes: 0..b.bytes(), pointer };
            buffers.push(match b.place {
                Place::Input(i) => whole(i, firsts[i]),
                Place::Output { donor: Some(i) } if donates => whole(i, 0),
                Place::Output { .. } => {
                    storages.push(vec![0xff; b.bytes()]);
                    whole(storages.len() - 1, 0)
                }
                Place::Workspace(at) => Placed { storage: workspace, bytes: at..at + b.bytes(), pointer: at },
            });
        }
        Ok(Store { program, storages, buffers })
    }

    fn launch(&mut self, call: &KernelCall, set: &KernelSet, code: &Compiled) -> std::result::Result<(), Failure> {
        let program = self.program;
        let kernel = program.kernels.get(call.kernel).ok_or_else(|| Error::internal("no such kernel"))?;
        let source = set.source(kernel).ok_or_else(|| Error::internal("a kernel that is not in the set"))?;
        let blocks = source.launch.blocks(&call.extents);
        if blocks == 0 {
            return Ok(());
        }
        let places = self.places(kernel, call);
        let mut memory: Vec<Memory> = places
            .iter()
            .map(|p| Memory { bytes: self.storages[p.storage][p.bytes.clone()].to_vec(), writable: p.written })
            .collect();
        let mut args = Vec::new();
        for (arg, param) in call.args.iter().zip(&kernel.params) {
            let b = &self.buffers[arg.buffer.0 as usize];
            let inside =
                |p: &Part| p.storage == b.storage && p.bytes.start <= b.bytes.start && b.bytes.end <= p.bytes.end;
            let part = places.iter().position(inside).ok_or_else(|| Error::internal("a buffer without memory"))?;
            let at = b.pointer as i64 + arg.offset * param.dtype.size() as i64 - places[part].bytes.start as i64;
            args.push(Arg::Pointer { memory: part, offset: at as u64 });
        }
        args.extend(call.args.iter().flat_map(|a| a.strides.iter().map(|s| Arg::Word(*s as u64))));
        args.extend(call.extents.iter().map(|e| Arg::Word(*e)));
        args.extend(call.scalars.iter().map(|s| Arg::Word(s.in_kernel().bits())));
        let mut extra = |bytes: Vec<u8>| {
            memory.push(Memory { bytes, writable: true });
            args.push(Arg::Pointer { memory: memory.len() - 1, offset: 0 });
            memory.len() - 1
        };
        let status = checks(kernel).then(|| extra(vec![0; size_of::<CheckStatus>()]));
        let ticket = (source.launch.partial_words > 0).then(|| {
            extra(vec![0xff; blocks as usize * source.launch.partial_words as usize * 8]);
            extra(vec![0; 4])
        });
        let name = &kernel.name;
        let wrong = |e: String| Failure::Wrong(format!("{name}: {e}\n{kernel}\n{}", source.text));
        let after = in_all_schedules(source, blocks, &args, &memory, code).map_err(wrong)?;
        if ticket.is_some_and(|t| after[t].bytes != [0; 4]) {
            return Err(wrong("the last block does not put the ticket back to 0".to_owned()));
        }
        if let Some(status) = status
            && let Some((site, value)) = status_of(&after[status].bytes).first()
        {
            let site = call.checks.get(site as usize);
            let site = site.ok_or_else(|| wrong("a check that stands for nothing fails".to_owned()))?;
            return Err(Failure::Check(site.error(value)));
        }
        for (p, m) in places.iter().zip(after) {
            self.storages[p.storage][p.bytes.clone()].copy_from_slice(&m.bytes);
        }
        Ok(())
    }

    /// The memory that a call needs: its buffers, those that overlap as one.
    fn places(&self, kernel: &Kernel, call: &KernelCall) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (arg, param) in call.args.iter().zip(&kernel.params) {
            let b = &self.buffers[arg.buffer.0 as usize];
            let mut part = Part { storage: b.storage, bytes: b.bytes.clone(), written: param.access != Access::Read };
            let overlaps = |p: &Part, q: &Part| {
                p.storage == q.storage
                    && (p.bytes == q.bytes || (p.bytes.start < q.bytes.end && q.bytes.start < p.bytes.end))
            };
            while let Some(i) = parts.iter().position(|p| overlaps(p, &part)) {
                let other = parts.swap_remove(i);
                part.bytes = part.bytes.start.min(other.bytes.start)..part.bytes.end.max(other.bytes.end);
                part.written |= other.written;
            }
            parts.push(part);
        }
        parts
    }

    fn sort(&mut self, call: &SortCall) -> Result<()> {
        let keys = self.gather(call.operand.0, &call.layout)?;
        let sorted = apply(&Op::Sort { dim: call.dim, descending: call.descending }, &[&keys])?;
        let (bytes, _) = lay_out(&sorted, &Layout::contiguous(sorted.ty().shape.clone()))?;
        let result = self.buffers[call.result.0 as usize].clone();
        self.storages[result.storage][result.pointer..result.pointer + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    fn multiply(&mut self, call: &MatmulCall) -> Result<()> {
        let reaches = call.matmul.reaches();
        let columns = (0, call.matmul.columns as i64);
        let operands = [(call.left, reaches[0]), (call.right, reaches[1]), (call.bias.unwrap_or(call.left), columns)];
        let used = 2 + usize::from(call.bias.is_some());
        let mut read: Vec<(i64, Vec<Literal>)> = Vec::new();
        for (arg, (low, high)) in operands.into_iter().take(used) {
            let line = Layout { offset: arg.offset + low, ..Layout::contiguous([(high - low) as usize].into()) };
            read.push((low, self.gather(arg.buffer.0, &line)?.literals().collect()));
        }
        let element = |operand: usize| {
            let (low, elements) = &read[operand.min(used - 1)];
            move |i: i64| elements[(i - low) as usize]
        };
        if let Some(scratch) = call.scratch {
            let b = self.buffers[scratch.0 as usize].clone();
            self.storages[b.storage][b.bytes].fill(0xff);
        }
        let (result, size) = (self.buffers[call.result.0 as usize].clone(), call.matmul.result.size());
        let out = &mut self.storages[result.storage];
        call.matmul.evaluate(&element(0), &element(1), &element(2), &mut |i, value| {
            let at = (result.pointer as i64 + i * size as i64) as usize;
            out[at..at + size].copy_from_slice(&value.bits().to_le_bytes()[..size]);
        });
        Ok(())
    }

    fn output(&self, output: &OutputDecl) -> Result<Dense> {
        self.gather(output.buffer.0, &output.layout)
    }

    fn gather(&self, buffer: u32, layout: &Layout) -> Result<Dense> {
        let (decl, placed) = (&self.program.buffers[buffer as usize], &self.buffers[buffer as usize]);
        let size = decl.dtype.size();
        let element = |n: i64| {
            let at = (placed.pointer as i64 + n * size as i64) as usize;
            self.storages[placed.storage].get(at..at + size).map(|b| literal(decl.dtype, b))
        };
        let elements: Option<Vec<Literal>> = layout.numbers().map(element).collect();
        let elements = elements.ok_or_else(|| Error::internal("an element beyond its storage"))?;
        Dense::of_literals(&TensorType { shape: layout.shape.clone(), dtype: decl.dtype }, elements)
    }
}

/// Part of a storage that a launch gets.
struct Part {
    storage: usize,
    bytes: Range<usize>,
    written: bool,
}

/// Launches from the same memory in every schedule. What is in memory afterwards must be the same.
fn in_all_schedules(
    source: &Source,
    blocks: u64,
    args: &[Arg],
    memory: &[Memory],
    code: &Compiled,
) -> std::result::Result<Vec<Memory>, String> {
    let (threads, shared_bytes) = (source.launch.threads, source.launch.shared_bytes);
    let mut first: Option<Vec<Memory>> = None;
    for schedule in Schedule::ALL {
        let fence = match schedule {
            Schedule::Fair | Schedule::EvenAhead => Fence::End,
            Schedule::Reversed | Schedule::OddAhead => Fence::Start,
        };
        let launch = Launch { kernel: &source.name, blocks, threads, shared_bytes, args, schedule, fence };
        let mut after = memory.to_vec();
        code.launch(&launch, &mut after).map_err(|f| format!("{schedule:?}: {f}"))?;
        match &first {
            None => first = Some(after),
            Some(first) => {
                let differs = first.iter().zip(&after).position(|(a, b)| a != b);
                if let Some(i) = differs {
                    let byte = first[i].bytes.iter().zip(&after[i].bytes).position(|(a, b)| a != b).unwrap_or(0);
                    return Err(format!("a race: {schedule:?} gives another byte {byte} of buffer {i}"));
                }
            }
        }
    }
    Ok(first.unwrap_or_default())
}

fn checks(kernel: &Kernel) -> bool {
    let mut any = false;
    for block in [&kernel.body, &kernel.finish] {
        for_each_statement(block, &mut |kind| any |= matches!(kind, StmtKind::Check { .. }));
    }
    any
}

fn status_of(bytes: &[u8]) -> CheckStatus {
    let word = |i: usize| bytes.get(8 * i..8 * i + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    CheckStatus { key: word(0), value: word(1) as i64, lock: word(2) }
}

fn literal(dtype: DType, bytes: &[u8]) -> Literal {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    Literal::from_bits(dtype, u64::from_le_bytes(word))
}

/// The storage in which a view's elements are these, and the byte at which the first one is. What lies between is garbage.
fn lay_out(value: &Dense, layout: &Layout) -> Result<(Vec<u8>, usize)> {
    let (low, high) = layout.bounds();
    let dtype = value.ty().dtype;
    let size = dtype.size();
    let between = crate::data::garbage(dtype).bits().to_le_bytes();
    let mut bytes: Vec<u8> = between[..size].repeat((high - low).max(0) as usize);
    for (n, l) in layout.numbers().zip(value.literals()) {
        let at = (n - low) as usize * size;
        let element = bytes.get_mut(at..at + size).ok_or_else(|| Error::internal("an element beyond its storage"))?;
        element.copy_from_slice(&l.bits().to_le_bytes()[..size]);
    }
    Ok((bytes, (layout.offset - low) as usize * size))
}
