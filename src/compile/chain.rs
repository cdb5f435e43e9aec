//! The explicit chain: a function is [`Traced`], [`Optimized`], [`Executable`]. Each step is a value that prints.
//!
//! The typed steps wrap untyped ones ([`Recorded`], [`Improved`], [`Module`]), which the cache of a compiled function and
//! [`Stages`](crate::Stages) share.

use super::call::{self, Arguments};
use super::execute::Code;
use super::signature::{ArgumentNames, Flags, LayoutClass, LeafSignature, Signature};
use crate::node::meeting_place;
use crate::report::PassRow;
use crate::stages::Stages;
use crate::tensor::apart;
use crate::trace::{self, Capture, InputSpec, Scope};
use crate::tree::{IntoTree, Outcome, Structure, Tree};
use crate::{Error, ErrorKind, Report, Result, Tensor};
use lazuli_ir::{Device, Graph, Layout, Source};
use lazuli_passes::Options;
use lazuli_runtime::Array;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

/// What a trace recorded.
pub(crate) struct Recorded {
    pub(crate) capture: Capture,
    pub(crate) signature: Signature,
    pub(crate) flags: Flags,
    /// The names of the arguments' leaves.
    pub(crate) names: Vec<String>,
    /// The structure of the result.
    pub(crate) result: Structure,
    /// Where the program runs.
    pub(crate) device: Device,
    /// The values of what the function captured.
    pub(crate) captured: Vec<Array>,
    /// What tracing took.
    pub(crate) passes: Vec<PassRow>,
}

impl Recorded {
    /// The layouts of the graph's inputs, in order.
    pub(crate) fn layouts(&self) -> Vec<Layout> {
        let arguments = self.signature.leaves.iter().map(|leaf| leaf.layout.layout(&leaf.ty));
        let captured = self.captured.iter().map(|a| Layout { offset: 0, ..a.layout().clone() });
        let base = self.capture.base.map(|_| Layout::contiguous([2].into()));
        arguments.chain(captured).chain(base).collect()
    }
}

/// A recorded program after the passes that keep it a graph.
#[derive(Clone)]
pub(crate) struct Improved {
    pub(crate) recorded: Arc<Recorded>,
    pub(crate) graph: Graph,
    /// What each pass did.
    pub(crate) passes: Vec<PassRow>,
}

/// A program that runs, and all that is known of it.
pub(crate) struct Module {
    pub(crate) improved: Improved,
    pub(crate) code: Code,
}

impl Module {
    pub(crate) fn recorded(&self) -> &Recorded {
        &self.improved.recorded
    }
}

/// Who is traced: names and place.
pub(crate) struct Chain<'a> {
    pub(crate) name: &'a str,
    pub(crate) names: &'a ArgumentNames,
    pub(crate) source: Source,
}

impl Chain<'_> {
    /// Traces a function for a signature.
    pub(crate) fn trace<I: Tree, R: Outcome>(
        &self,
        function: &dyn Fn(I) -> R,
        signature: Signature,
        requires_grad: &[bool],
    ) -> Result<Recorded> {
        let start = Instant::now();
        let names = self.names.of(&signature.structure);
        let specs: Vec<InputSpec> = signature
            .leaves
            .iter()
            .zip(&names)
            .enumerate()
            .map(|(i, (leaf, name))| InputSpec {
                name: name.clone(),
                ty: leaf.ty.clone(),
                weak: leaf.weak,
                requires_grad: requires_grad.get(i).copied().unwrap_or(false),
                home: signature.device,
            })
            .collect();
        let (scope, arguments) = Scope::begin(self.name, &specs, self.source);
        let outcome = function(I::from_parts(&signature.structure, arguments)?).outcome()?;
        let (result, outputs) = outcome.into_parts();
        let capture = scope.finish(&outputs)?;
        let device = device(signature.device, outputs.iter().chain(&capture.captured))?;
        drop(outputs);
        let captured = capture.captured.iter().map(|t| t.array()?.to_device(device)).collect::<Result<Vec<Array>>>()?;
        let asked = capture.asked.iter().enumerate().filter(|(_, asked)| **asked);
        let flags = Flags(asked.map(|(i, _)| (i, requires_grad.get(i).copied().unwrap_or(false))).collect());
        let time = start.elapsed();
        let (micros, nodes) = (time.as_micros() as u64, capture.graph.len());
        tracing::debug!(target: "lazuli::compile", function = self.name, nodes, micros, "traced");
        let passes = vec![PassRow { name: "trace".to_owned(), time, rewrites: 0, before: 0, after: nodes }];
        Ok(Recorded { capture, signature, flags, names, result, device, captured, passes })
    }
}

/// Where a program runs: the device of its arguments, and of what else has one.
fn device<'t>(arguments: Option<Device>, tensors: impl Iterator<Item = &'t Tensor>) -> Result<Device> {
    match (arguments, meeting_place(tensors.map(|t| &*t.node)).map_err(|[a, b]| apart(a, b))?) {
        (Some(a), Some(b)) if a != b => Err(apart(a, b)),
        (a, b) => Ok(a.or(b).unwrap_or_default()),
    }
}

/// Runs the passes that keep the program a graph.
pub(crate) fn optimize(recorded: Arc<Recorded>) -> Result<Improved> {
    let (graph, report) = lazuli_passes::optimize(&recorded.capture.graph, &recorded.signature.options)?;
    let passes = report.passes.iter().map(PassRow::from).collect();
    Ok(Improved { recorded, graph, passes })
}

/// Makes machine code.
pub(crate) fn assemble(improved: Improved) -> Result<Arc<Module>> {
    let start = Instant::now();
    let recorded = &improved.recorded;
    let (layouts, options) = (recorded.layouts(), &recorded.signature.options);
    let code = Code::new(&improved.graph, &layouts, options, recorded.device)?;
    let module = Arc::new(Module { improved, code });
    let (function, kernels) = (module.recorded().capture.graph.name(), module.code.program().kernels.len());
    let micros = start.elapsed().as_micros() as u64;
    tracing::debug!(target: "lazuli::compile", function, kernels, micros, "compiled");
    crate::stages::dump(&module);
    Ok(module)
}

/// The name of a function: its own, or that of the function a closure stands in.
pub(crate) fn name_of<F>() -> String {
    let path = std::any::type_name::<F>();
    let plain = path.split('<').next().unwrap_or(path);
    let words = plain.split("::").filter(|w| !w.starts_with('{') && !w.starts_with('&'));
    words.last().unwrap_or("function").to_owned()
}

/// Traces a function for arguments of these types: the first step of the explicit chain.
///
/// Of the `specs` only types count, so lazy tensors such as `Tensor::zeros([64, 10])` will do: they are never computed. The
/// program takes row-major arguments of exactly these shapes.
///
/// # Errors
/// What the function returned or recorded as an error.
///
/// ```
/// use lazuli::prelude::*;
/// let traced = lazuli::trace(|x: Tensor| x.relu() * 2.0, Tensor::zeros([2, 3]))?;
/// println!("{traced}");
/// let optimized = traced.optimize()?;
/// let double = optimized.compile()?;
/// assert_eq!(double.call(Tensor::ones([2, 3]))?.to_vec::<f32>()?, [2.0; 6]);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn trace<I: Tree, R: Outcome, F: Fn(I) -> R>(function: F, specs: impl IntoTree<I>) -> Result<Traced<I, R>> {
    let (structure, leaves) = specs.into_tree().into_parts();
    for leaf in &leaves {
        leaf.check()?;
    }
    let requires_grad: Vec<bool> = leaves.iter().map(|t| t.history.is_some()).collect();
    let device = meeting_place(leaves.iter().map(|t| &*t.node)).map_err(|[a, b]| apart(a, b))?;
    let leaves = leaves.iter().map(|t| LeafSignature {
        ty: t.node.ty.clone(),
        weak: t.is_weak(),
        layout: LayoutClass::Contiguous,
    });
    let signature = Signature::new(structure, leaves.collect(), device, Options::default());
    let name = name_of::<F>();
    let chain = Chain { name: &name, names: &ArgumentNames::default(), source: Source::caller() };
    let recorded = chain.trace(&function, signature, &requires_grad)?;
    Ok(Traced { recorded: Arc::new(recorded), types: PhantomData })
}

macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $ty:ty, $graph:expr })*) => {$(
        $(#[$doc])*
        pub struct $name<I, R> {
            $field: $ty,
            types: PhantomData<fn(I) -> R>,
        }

        impl<I, R> Clone for $name<I, R> {
            fn clone(&self) -> Self {
                $name { $field: self.$field.clone(), types: PhantomData }
            }
        }

        impl<I, R> fmt::Debug for $name<I, R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let graph: fn(&Self) -> &Graph = $graph;
                write!(f, "{}({}, {} nodes)", stringify!($name), graph(self).name(), graph(self).len())
            }
        }
    )*};
}

typed! {
    /// A traced function: the program as it was recorded. Its text is the Graph IR.
    Traced { recorded: Arc<Recorded>, |t| &t.recorded.capture.graph }
    /// A traced function after simplification. Its text is the Graph IR.
    Optimized { improved: Improved, |o| &o.improved.graph }
    /// A compiled program for one signature. Its text is the Kernel IR.
    Executable { module: Arc<Module>, |e| &e.module.improved.graph }
}

impl<I, R> Traced<I, R> {
    /// The program as DOT, for drawing.
    pub fn to_dot(&self) -> String {
        self.recorded.capture.graph.to_dot()
    }

    /// Runs the passes that keep the program a graph: simplify, common subexpressions, dead code.
    pub fn optimize(&self) -> Result<Optimized<I, R>> {
        Ok(Optimized { improved: optimize(self.recorded.clone())?, types: PhantomData })
    }
}

impl<I, R> fmt::Display for Traced<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.recorded.capture.graph, f)
    }
}

impl<I, R> Optimized<I, R> {
    /// The program as DOT, for drawing.
    pub fn to_dot(&self) -> String {
        self.improved.graph.to_dot()
    }

    /// Fuses, lowers, schedules, and makes machine code.
    pub fn compile(&self) -> Result<Executable<I, R>> {
        Ok(Executable { module: assemble(self.improved.clone())?, types: PhantomData })
    }
}

impl<I, R> fmt::Display for Optimized<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.improved.graph, f)
    }
}

impl<I, R> Executable<I, R> {
    /// Every stage of the program, for reading.
    pub fn stages(&self) -> Stages {
        Stages::new(self.module.clone(), Vec::new())
    }

    /// The kernels of the program and what flows between them as DOT, for drawing.
    pub fn to_dot(&self) -> String {
        self.stages().kernels_to_dot()
    }
}

impl<I: Tree, R: Outcome> Executable<I, R> {
    /// Runs the program. Ownership of arguments is as in [`Compiled::call`](crate::Compiled::call).
    ///
    /// # Errors
    /// Arguments of another signature; what a value broke at run time; memory.
    #[track_caller]
    pub fn call(&self, arguments: impl IntoTree<I>) -> Result<R::Tree> {
        let caller = Source::caller();
        let (structure, leaves) = arguments.into_tree().into_parts();
        let recorded = self.module.recorded();
        let results = if call::is_traced(&leaves) {
            self.splice(structure, leaves)?
        } else {
            let options = recorded.signature.options.clone();
            let arguments = Arguments::evaluate(structure, leaves, options).map_err(|e| e.with_sources(caller))?;
            self.fits(arguments.signature())?;
            self.answers(|leaf| arguments.requires_grad(leaf))?;
            call::run(&self.module, arguments, caller)?
        };
        R::Tree::from_parts(&recorded.result, results)
    }

    /// Runs the program on copies of the arguments, and measures each kernel: see [`Compiled::profile`](crate::Compiled::profile).
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    #[track_caller]
    pub fn profile(&self, arguments: impl IntoTree<I>) -> Result<Report> {
        let caller = Source::caller();
        let (structure, leaves) = arguments.into_tree().into_parts();
        let options = self.module.recorded().signature.options.clone();
        let arguments = Arguments::evaluate(structure, leaves, options).map_err(|e| e.with_sources(caller))?;
        self.fits(arguments.signature())?;
        self.answers(|leaf| arguments.requires_grad(leaf))?;
        call::profile(&self.module, arguments, Vec::new())
    }

    /// Records the program into the trace that its arguments belong to.
    #[track_caller]
    fn splice(&self, structure: Structure, leaves: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let recorded = self.module.recorded();
        let signatures = leaves
            .iter()
            .zip(&recorded.signature.leaves)
            .map(|(t, expected)| LeafSignature { ty: t.node.ty.clone(), ..expected.clone() });
        let (device, options) = (recorded.signature.device, recorded.signature.options.clone());
        self.fits(&Signature::new(structure, signatures.collect(), device, options))?;
        let mut inputs = leaves;
        inputs.extend(recorded.capture.captured.iter().cloned());
        let mut first_draw = 0;
        if recorded.capture.base.is_some() {
            let (base, first) = trace::draws(recorded.capture.draws);
            inputs.push(base);
            first_draw = first;
        }
        trace::splice(&recorded.capture.graph, &inputs, first_draw)
    }

    /// Whether arguments with these flags would have given the trace the same answers.
    fn answers(&self, requires_grad: impl Fn(usize) -> bool) -> Result<()> {
        let recorded = self.module.recorded();
        match recorded.flags.difference(requires_grad, &recorded.names) {
            None => Ok(()),
            Some(difference) => Err(other_arguments(&difference)),
        }
    }

    fn fits(&self, signature: &Signature) -> Result<()> {
        let expected = &self.module.recorded().signature;
        let differences = signature.differences(expected, &ArgumentNames::default());
        if differences.is_empty() {
            return Ok(());
        }
        Err(other_arguments(&differences.join("; ")))
    }
}

#[cold]
fn other_arguments(differences: &str) -> Error {
    Error::new(ErrorKind::Shape, format!("the program was compiled for other arguments: {differences}"))
}

impl<I, R> fmt::Display for Executable<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stages().kernels().fmt(f)
    }
}
