//! Kernels as machine code: compiled function by function, placed together, freed with the last kernel that uses them.

use super::abi::{self, Entry};
use super::arena::{Arena, Link};
use super::emit::{self, Machine, Part, PlacedStrip, Pool};
use crate::arguments::Words;
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use lazuli_ir::kernel::{Binding, Kernel, StmtKind};
use lazuli_ir::{Error, ErrorKind, Result, Target};
use rayon::prelude::*;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// How to compile.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompileOptions {
    /// Only use instructions that every machine of this architecture has.
    pub baseline: bool,
    /// The vectors to use; `None`: the widest there are, or what `LAZULI_CPU` says.
    pub vectors: Option<Vectors>,
    /// Keep the text of Cranelift's IR, for inspection.
    pub keep_clif: bool,
}

/// Which vectors code uses. Results are the same bit for bit but for the order in which reductions of floats add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// Those of 128 bits that Cranelift has on every architecture.
    Portable,
    /// 256 bits.
    Avx2,
    /// 512 bits.
    Avx512,
    /// 512 bits, and tiles for products of `bf16`.
    Amx,
}

impl Vectors {
    pub(crate) const ALL: [Vectors; 4] = [Vectors::Portable, Vectors::Avx2, Vectors::Avx512, Vectors::Amx];

    /// Those that this machine has, narrow ones first.
    pub fn available() -> Vec<Vectors> {
        Vectors::ALL.into_iter().filter(|v| v.exist()).collect()
    }

    /// The widest that this machine has.
    pub(crate) fn widest() -> Vectors {
        Vectors::ALL.into_iter().rfind(|v| v.exist()).unwrap_or(Vectors::Portable)
    }

    /// How generated code names them.
    pub(crate) fn word(self) -> i64 {
        self as i64
    }

    /// The name by which they are asked for.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Vectors::Portable => "portable",
            Vectors::Avx2 => "avx2",
            Vectors::Avx512 => "avx512",
            Vectors::Amx => "amx",
        }
    }

    pub(crate) fn exist(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let exist = match self {
            Vectors::Amx => super::target::has_amx(),
            Vectors::Portable | Vectors::Avx2 | Vectors::Avx512 => self.family().is_none_or(super::target::has_family),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let exist = self == Vectors::Portable;
        exist
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn family(self) -> Option<super::wide::Family> {
        match self {
            Vectors::Portable => None,
            Vectors::Avx2 => Some(super::wide::Family::Avx2),
            Vectors::Avx512 | Vectors::Amx => Some(super::wide::Family::Avx512),
        }
    }
}

/// Compiled kernels that share their memory.
struct Module {
    _arena: Arena,
    kernels: Vec<Compiled>,
}

struct Compiled {
    entry: Entry,
    finish: Option<Entry>,
    constants: *const u8,
    scratch_bytes: usize,
    partial_words: usize,
    code_bytes: usize,
    words: Words,
    clif: String,
    kernel: Kernel,
}

// SAFETY: the pointers lead into the module's arena, which is never written again.
unsafe impl Send for Compiled {}
// SAFETY: as above.
unsafe impl Sync for Compiled {}

/// A kernel's machine code. Cloning is cheap; the code lives as long as any kernel of its module.
#[derive(Clone)]
pub struct KernelCode {
    module: Arc<Module>,
    number: usize,
}

impl fmt::Debug for KernelCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelCode({}, {} bytes)", self.compiled().kernel.name, self.code_bytes())
    }
}

impl KernelCode {
    fn compiled(&self) -> &Compiled {
        &self.module.kernels[self.number]
    }

    /// The kernel this is the code of.
    pub fn kernel(&self) -> &Kernel {
        &self.compiled().kernel
    }

    /// Cranelift's IR, before optimisation, and the instructions of the strips that it calls; empty unless asked for.
    pub fn clif(&self) -> &str {
        &self.compiled().clif
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.compiled().code_bytes
    }

    /// The machine code of the body's entry; that of `finish` is not shown.
    pub fn code(&self) -> &[u8] {
        let c = self.compiled();
        // SAFETY: the body's code starts at the entry and lies in the arena, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts(c.entry as *const u8, c.code_bytes) }
    }

    /// Bytes of scratch memory a thread needs to run it.
    pub fn scratch_bytes(&self) -> usize {
        self.compiled().scratch_bytes
    }

    /// Words of partial results a chunk leaves; 0 where the kernel is no parallel reduce.
    pub(crate) fn partial_words(&self) -> usize {
        self.compiled().partial_words
    }

    pub(crate) fn entry(&self) -> Entry {
        self.compiled().entry
    }

    pub(crate) fn finish(&self) -> Option<Entry> {
        self.compiled().finish
    }

    pub(crate) fn constants(&self) -> *const u8 {
        self.compiled().constants
    }

    pub(crate) fn words(&self) -> Words {
        self.compiled().words
    }
}

struct Host {
    isa: OwnedTargetIsa,
    machine: Machine,
}

static HOST: LazyLock<Result<Host>> = LazyLock::new(|| host(true));
static BASELINE: LazyLock<Result<Host>> = LazyLock::new(|| host(false));

fn host(detect: bool) -> Result<Host> {
    let failed = |what: String| Error::new(ErrorKind::Device, format!("this CPU cannot be compiled for: {what}"));
    let mut flags = settings::builder();
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    let settings = [
        ("opt_level", "speed"),
        ("enable_verifier", verify),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
        ("is_pic", "false"),
    ];
    for (name, value) in settings {
        flags.set(name, value).map_err(|e| failed(e.to_string()))?;
    }
    let isa = cranelift_native::builder_with_options(detect).map_err(|e| failed(e.to_owned()))?;
    let isa = isa.finish(settings::Flags::new(flags)).map_err(|e| failed(e.to_string()))?;
    let x86 = cfg!(target_arch = "x86_64");
    let machine = Machine {
        call_conv: isa.default_call_conv(),
        x86,
        fma: super::target::has_fma() && (detect || !x86),
        rounds: super::target::has_rounding() && (detect || !x86),
        vectors: if detect { super::target::vectors()? } else { Vectors::Portable },
        #[cfg(target_arch = "x86_64")]
        list: false,
    };
    Ok(Host { isa, machine })
}

/// Compiles kernels into one module.
pub fn compile(kernels: &[Kernel], target: &Target) -> Result<Vec<KernelCode>> {
    compile_with(kernels, target, CompileOptions::default())
}

/// Compiles kernels into one module.
pub fn compile_with(kernels: &[Kernel], _target: &Target, options: CompileOptions) -> Result<Vec<KernelCode>> {
    let host = if options.baseline { &BASELINE } else { &HOST };
    let host = host.as_ref().map_err(Clone::clone)?;
    let mut machine = host.machine;
    #[cfg(target_arch = "x86_64")]
    {
        machine.list = options.keep_clif;
    }
    if let Some(vectors) = options.vectors {
        if !vectors.exist() {
            return Err(Error::new(ErrorKind::Device, format!("this machine has no {vectors:?} vectors")));
        }
        if !options.baseline {
            machine.vectors = vectors;
        }
    }
    let one = |k: &Kernel| functions(k, &*host.isa, machine, options).map_err(|e| e.with_sources(k.sources.clone()));
    // A kernel costs a fraction of a millisecond: a few are done before other threads would be awake.
    let functions: Vec<Functions> = if kernels.len() >= 4 {
        kernels.par_iter().map(one).collect::<Result<_>>()?
    } else {
        kernels.iter().map(one).collect::<Result<_>>()?
    };
    let mut pieces: Vec<&[u8]> = Vec::with_capacity(functions.len() * 3);
    let (mut firsts, mut links) = (Vec::with_capacity(functions.len()), Vec::new());
    for f in &functions {
        let first = pieces.len();
        firsts.push(first);
        pieces.extend([f.body.as_slice(), f.finish.as_slice(), bytemuck::cast_slice(&f.constants)]);
        for (n, strip) in f.strips.iter().enumerate() {
            links.push(Link { from: (first + 2, strip.slot), to: (first + 3 + n, strip.entry) });
        }
        pieces.extend(f.strips.iter().map(|s| s.bytes.as_slice()));
    }
    let (arena, offsets) = Arena::build(&pieces, &links)?;
    let mut compiled = Vec::with_capacity(kernels.len());
    for ((f, kernel), first) in functions.into_iter().zip(kernels).zip(firsts) {
        let at = &offsets[first..first + 3];
        // SAFETY: the piece is a whole function with this signature, in executable memory.
        let entry = |offset: usize| unsafe { std::mem::transmute::<*const u8, Entry>(arena.at(offset)) };
        compiled.push(Compiled {
            entry: entry(at[0]),
            finish: (!f.finish.is_empty()).then(|| entry(at[1])),
            constants: arena.at(at[2]),
            scratch_bytes: f.scratch_bytes,
            partial_words: f.partial_words,
            code_bytes: f.body.len(),
            words: Words::of(kernel, abi::PARAMS),
            clif: f.clif,
            kernel: kernel.clone(),
        });
    }
    let module = Arc::new(Module { _arena: arena, kernels: compiled });
    Ok((0..kernels.len()).map(|number| KernelCode { module: module.clone(), number }).collect())
}

/// A kernel's functions as bytes.
struct Functions {
    body: Vec<u8>,
    finish: Vec<u8>,
    constants: Vec<[u32; 4]>,
    strips: Vec<PlacedStrip>,
    scratch_bytes: usize,
    partial_words: usize,
    clif: String,
}

fn functions(kernel: &Kernel, isa: &dyn TargetIsa, machine: Machine, options: CompileOptions) -> Result<Functions> {
    let reduce = match kernel.body.as_slice() {
        [stmt] => match &stmt.kind {
            StmtKind::Reduce(r) if r.axis.binding == Binding::Parallel => Some(r),
            _ => None,
        },
        _ => None,
    };
    let mut pool = Pool::new();
    let mut clif = String::new();
    let body = emit::emit(kernel, Part::Body, machine, &mut pool, 0)?;
    let mut scratch_bytes = body.scratch_bytes;
    let body = assemble(body.func, kernel, isa, options, &mut clif)?;
    let mut finish = Vec::new();
    if reduce.is_some() || !kernel.finish.is_empty() {
        let emitted = emit::emit(kernel, Part::Finish, machine, &mut pool, 1)?;
        scratch_bytes = scratch_bytes.max(emitted.scratch_bytes);
        finish = assemble(emitted.func, kernel, isa, options, &mut clif)?;
    }
    let partial_words = reduce.map_or(0, emit::partial_words);
    let (constants, strips) = pool.finish();
    for s in strips.iter().filter(|_| options.keep_clif) {
        clif.push_str(&format!("strip, called by the address at {} of the constants:\n{}", s.slot, s.listing));
    }
    Ok(Functions { body, finish, constants, strips, scratch_bytes, partial_words, clif })
}

fn assemble(
    func: cranelift_codegen::ir::Function,
    kernel: &Kernel,
    isa: &dyn TargetIsa,
    options: CompileOptions,
    clif: &mut String,
) -> Result<Vec<u8>> {
    if options.keep_clif {
        clif.push_str(&func.display().to_string());
    }
    let mut context = Context::for_function(func);
    let code = context.compile(isa, &mut ControlPlane::default()).map_err(|e| {
        let what = format!("{}\n{}", cranelift_codegen::print_errors::pretty_error(e.func, e.inner), e.func.display());
        Error::internal(format!("kernel {} does not compile: {what}", kernel.name))
    })?;
    if !code.buffer.relocs().is_empty() {
        return Err(Error::internal(format!("the code of kernel {} refers to an address", kernel.name)));
    }
    Ok(code.buffer.data().to_vec())
}
