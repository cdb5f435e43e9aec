//! Compilation: a function of tensors, traced once per signature, optimised, lowered to machine code, and called.
//!
//! [`compile`] is the everyday form: it keeps one program per signature. The same way in explicit steps is [`trace`], then
//! [`Traced::optimize`], then [`Optimized::compile`]; each step is a value that prints as text and as DOT.
//!
//! ```text
//! call(arguments)
//!   signature.rs  arguments -> structure, types, layouts      what decides about a program
//!   cache.rs      signature -> program                        or the reason, in words, to compile one
//!   chain.rs      function -> Traced -> Optimized -> Executable
//!   call.rs       donation, random base, results
//!   execute.rs    the program itself
//! ```

mod cache;
mod call;
mod chain;
mod execute;
mod signature;

pub use cache::{CacheReport, Compilation};
pub use chain::{Executable, Optimized, Traced, trace};

use crate::stages::Stages;
use crate::tree::{IntoTree, Outcome, Structure, Tree};
use crate::{Error, ErrorKind, Report, Result, Tensor};
use cache::{Cache, Entry};
use call::Arguments;
use chain::Chain;
use lazuli_ir::Source;
use lazuli_passes::{Options, Pass};
use signature::{ArgumentNames, Signature};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use call::Ownership;
pub(crate) use chain::Module;
pub(crate) use execute::Profile;

/// A function compiled for each signature it is called with: what [`compile`] returns.
///
/// It can be cloned, kept in a struct, and called from several threads at once; clones share their programs.
pub struct Compiled<'f, I, R> {
    function: Arc<dyn Fn(I) -> R + Send + Sync + 'f>,
    shared: Arc<Shared>,
    name: Arc<str>,
    names: ArgumentNames,
    options: Options,
    source: Source,
}

struct Shared {
    cache: Cache<Arc<Module>>,
}

/// Compiles a function of tensors.
///
/// The function takes one tree of tensors (a tensor, a tuple, a struct with `#[derive(Tree)]`, ...) and returns a tree, or
/// a `Result` of one. It runs when a call's arguments have a signature that was not seen before: shapes, dtypes, layouts,
/// static fields. What it does is recorded, optimised and compiled; later calls run the program and not the function.
///
/// - Tensors that it captures are evaluated once, when it is traced, and keep the value they had then. What changes between
///   calls must be an argument.
/// - A number passed to a call is an input of the program: another learning rate does not compile again.
/// - Arguments that are passed by value are given away: where nothing else holds their storage, results may take it over.
/// - Random draws differ from call to call, as they do without compilation.
///
/// ```
/// use lazuli::prelude::*;
///
/// let step = lazuli::compile(|(w, x, lr): (Tensor, Tensor, Tensor)| {
///     let (loss, dw) = lazuli::value_and_grad(|w: &Tensor| x.matmul(w).relu().mean(..))(&w);
///     (loss, &w - lr * dw)
/// });
/// let (x, mut w) = (Tensor::randn([8, 4]), Tensor::randn([4, 2]));
/// for rate in [0.1, 0.05, 0.01] {
///     (_, w) = step.call((w, &x, rate))?;
/// }
/// assert_eq!(step.cache().misses, 1);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn compile<'f, I: Tree, R: Outcome, F: Fn(I) -> R + Send + Sync + 'f>(function: F) -> Compiled<'f, I, R> {
    Compiled {
        function: Arc::new(function),
        shared: Arc::new(Shared { cache: Cache::new(cache::CAPACITY) }),
        name: chain::name_of::<F>().into(),
        names: ArgumentNames::default(),
        options: Options::default(),
        source: Source::caller(),
    }
}

impl<I, R> Clone for Compiled<'_, I, R> {
    fn clone(&self) -> Self {
        Compiled {
            function: self.function.clone(),
            shared: self.shared.clone(),
            name: self.name.clone(),
            names: self.names.clone(),
            options: self.options.clone(),
            source: self.source,
        }
    }
}

impl<I, R> fmt::Debug for Compiled<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiled({} at {}: {})", self.name, self.source, self.shared.cache.report())
    }
}

impl<I, R> Compiled<'_, I, R> {
    /// Names the program, as graphs, dumps and reports show it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Names the arguments, as reports and reasons show them: `["w", "x", "lr"]` for a tuple of three. Without names they
    /// are `arg0`, `arg1`, ..., and a single argument is `x`.
    #[must_use]
    pub fn arguments<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.names = ArgumentNames(names.map(str::to_owned).to_vec());
        self
    }

    /// Keeps at most this many programs (64 if not set); the least recently used goes first. Programs compiled so far are
    /// dropped.
    #[must_use]
    pub fn capacity(mut self, programs: usize) -> Self {
        self.shared = Arc::new(Shared { cache: Cache::new(programs) });
        self
    }

    /// Compiles without one pass. Programs mean the same without it: what finds a wrong pass is the same program with that
    /// pass off.
    ///
    /// ```
    /// # use lazuli::{Pass, prelude::*};
    /// let f = |x: Tensor| (x * 2.0).exp();
    /// let (fused, apart) = (lazuli::compile(f), lazuli::compile(f).without(Pass::Fusion));
    /// let x = Tensor::randn([8]);
    /// assert_eq!(fused.call(&x)?.to_vec::<f32>()?, apart.call(&x)?.to_vec::<f32>()?);
    /// assert_eq!(apart.stages()?.report().kernels.len(), 2);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[must_use]
    pub fn without(mut self, pass: Pass) -> Self {
        self.options = self.options.without(pass);
        self
    }

    /// Lets products of `f32` matrices round their operands to TF32, 11 significant bits, where the device multiplies that faster: a GPU's
    /// tensor cores do, by cuBLASLt. Sums stay in `f32`. By default `f32` is multiplied in full.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let product = lazuli::compile(|(x, w): (Tensor, Tensor)| x.matmul(w)).tf32(true);
    /// assert_eq!(product.call((Tensor::ones([4, 8]), Tensor::ones([8, 4])))?.to_vec::<f32>()?, [8.0; 16]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[must_use]
    pub fn tf32(mut self, allowed: bool) -> Self {
        self.options = self.options.tf32(allowed);
        self
    }

    /// What the cache holds, how often it was hit and missed, and each compilation with its reason in words.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let double = lazuli::compile(|x: Tensor| x * 2.0);
    /// double.call(Tensor::ones([64]))?;
    /// double.call(Tensor::ones([32]))?;
    /// assert_eq!(double.cache().reason(), "dim 0 of `x`: 32, was 64");
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn cache(&self) -> CacheReport {
        self.shared.cache.report()
    }

    /// Why the latest program was compiled, in words.
    pub fn explain(&self) -> String {
        self.cache().reason().to_owned()
    }

    /// The stages of the program used last: its graphs, kernels, fusion ledger and report. Fails before the first call.
    pub fn stages(&self) -> Result<Stages> {
        match self.shared.cache.latest() {
            Some(entry) => Ok(Stages::new(entry.program.clone(), self.cache().compilations)),
            None => Err(Error::new(
                ErrorKind::Value,
                format!("{} has no stages before its first call: call it, or use `lazuli::trace`", self.name),
            )),
        }
    }
}

impl<I: Tree, R: Outcome> Compiled<'_, I, R> {
    /// Runs the function on these arguments: compiles it first where their signature is new.
    ///
    /// What is passed by value is given away: `call((model, ..))`; what is passed by reference is kept: `call((&model, ..))`.
    /// Results have no history: where an argument requires grad, take gradients inside of the function.
    ///
    /// # Errors
    /// What the function returned or recorded as an error, with the line where it happened; what a value broke at run time
    /// (a label out of range); memory. After a run-time error, arguments that were given away are lost, and the error names
    /// them.
    #[track_caller]
    pub fn call(&self, arguments: impl IntoTree<I>) -> Result<R::Tree> {
        let caller = Source::caller();
        let (structure, leaves) = arguments.into_tree().into_parts();
        if call::is_traced(&leaves) {
            return (self.function)(I::from_parts(&structure, leaves)?).outcome();
        }
        let arguments = self.evaluate(structure, leaves, caller)?;
        let entry = self.entry(&arguments)?;
        let results = call::run(&entry.program, arguments, caller)?;
        R::Tree::from_parts(&entry.program.recorded().result, results)
    }

    /// Runs the program of [`call`](Self::call) some times on copies of the arguments, and measures each kernel. The report
    /// then also says how near each comes to what this machine does at most, which is measured at the first profile of a
    /// process, in some tenths of a second, and how far storage grew.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let double = lazuli::compile(|x: Tensor| x * 2.0);
    /// let report = double.profile(&Tensor::ones([64]))?;
    /// assert!(report.kernels[0].share_of_limit().is_some());
    /// println!("{report}");
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn profile(&self, arguments: impl IntoTree<I>) -> Result<Report> {
        let caller = Source::caller();
        let (structure, leaves) = arguments.into_tree().into_parts();
        let arguments = self.evaluate(structure, leaves, caller)?;
        let entry = self.entry(&arguments)?;
        call::profile(&entry.program, arguments, self.cache().compilations)
    }

    fn evaluate(&self, structure: Structure, leaves: Vec<Tensor>, caller: Source) -> Result<Arguments> {
        Arguments::evaluate(structure, leaves, self.options.clone()).map_err(|e| e.with_sources(caller))
    }

    /// The program for these arguments, compiled where there is none.
    fn entry(&self, arguments: &Arguments) -> Result<Arc<Entry<Arc<Module>>>> {
        let cache = &self.shared.cache;
        let signature = arguments.signature();
        let flag = |leaf: usize| arguments.requires_grad(leaf);
        if let Some(entry) = cache.find(signature, flag) {
            tracing::trace!(target: "lazuli::cache", function = &*self.name, "hit");
            return Ok(entry);
        }
        let reason = cache.reason(signature, flag, &self.names);
        tracing::debug!(target: "lazuli::cache", function = &*self.name, reason = reason.as_str(), "miss");
        let start = Instant::now();
        let module = self.compile_for(signature.clone(), arguments.flags())?;
        let flags = module.recorded().flags.clone();
        let entry = Entry { signature: signature.clone(), flags, program: module };
        Ok(cache.insert(entry, reason, start.elapsed(), &self.names))
    }

    fn compile_for(&self, signature: Signature, requires_grad: Vec<bool>) -> Result<Arc<Module>> {
        let chain = Chain { name: &self.name, names: &self.names, source: self.source };
        let recorded = chain.trace(&*self.function, signature, &requires_grad)?;
        chain::assemble(chain::optimize(Arc::new(recorded))?)
    }
}
