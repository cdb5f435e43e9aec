//! A call: arguments to arrays, who may be overwritten, the generator's base, results to tensors.
//!
//! Ownership is donation. An argument that was moved in is dropped here once its value is taken, so its storage then has one
//! owner, this call, unless someone else holds it: a clone of the tensor, pending work that reads it, history that saved it,
//! a view, the same tensor in another place of the arguments, a lent array. Reference counts alone decide, after every
//! argument's handle is gone.

use super::chain::Module;
use super::signature::{LayoutClass, LeafSignature, Signature};
use crate::node::meeting_place;
use crate::tensor::apart;
use crate::trace::{self, TraceId};
use crate::tree::Structure;
use crate::{Compilation, Error, ErrorKind, Report, Result, Tensor, generator};
use lazuli_ir::{Device, Element, Source, with_element};
use lazuli_passes::Options;
use lazuli_runtime::{Argument, Array};
use smallvec::SmallVec;
use std::sync::Arc;

/// Whether a call with these leaves belongs to a trace: it runs inside of one, or its arguments do.
pub(crate) fn is_traced(leaves: &[Tensor]) -> bool {
    trace::current() != TraceId::NONE || leaves.iter().any(|t| t.trace_id() != TraceId::NONE)
}

/// Evaluated arguments.
pub(crate) struct Arguments {
    signature: Signature,
    leaves: Vec<Leaf>,
}

struct Leaf {
    array: Array,
    requires_grad: bool,
    /// Whether the tensor's node had no other owner.
    sole: bool,
}

impl Arguments {
    /// Computes the leaves' values and lets the tensors go.
    pub(crate) fn evaluate(structure: Structure, leaves: Vec<Tensor>, options: Options) -> Result<Arguments> {
        let device = meeting_place(leaves.iter().map(|t| &*t.node)).map_err(|[a, b]| apart(a, b))?;
        let mut evaluated = Vec::with_capacity(leaves.len());
        let mut signatures = Vec::with_capacity(leaves.len());
        for tensor in leaves {
            let (weak, requires_grad) = (tensor.is_weak(), tensor.history.is_some());
            let (array, sole) = tensor.into_array()?;
            let array = materialised(placed(array, device)?)?;
            signatures.push(LeafSignature { ty: array.ty(), weak, layout: LayoutClass::of(array.layout()) });
            evaluated.push(Leaf { array, requires_grad, sole });
        }
        Ok(Arguments { signature: Signature::new(structure, signatures, device, options), leaves: evaluated })
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    pub(crate) fn requires_grad(&self, leaf: usize) -> bool {
        self.leaves.get(leaf).is_some_and(|l| l.requires_grad)
    }

    /// Whether each leaf requires grad.
    pub(crate) fn flags(&self) -> Vec<bool> {
        self.leaves.iter().map(|l| l.requires_grad).collect()
    }
}

/// Why an input's storage was not taken over, or that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Nobody else holds the storage.
    Given,
    /// The tensor is held outside of the call.
    Held,
    /// The storage is shared: a view, another tensor, or another argument.
    Shared,
    /// The storage is not lazuli's to write.
    Lent,
    /// The elements do not fill the storage in row-major order.
    Strided,
}

impl Ownership {
    fn of(leaf: &Leaf) -> Ownership {
        match () {
            () if Arc::strong_count(leaf.array.buffer()) > 1 && !leaf.sole => Ownership::Held,
            () if Arc::strong_count(leaf.array.buffer()) > 1 => Ownership::Shared,
            () if !leaf.array.buffer().is_writable() => Ownership::Lent,
            () if !leaf.array.layout().is_contiguous() => Ownership::Strided,
            () => Ownership::Given,
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Ownership::Given => "given away",
            Ownership::Held => "kept: the tensor is still held outside of the call, or was passed by reference",
            Ownership::Shared => {
                "kept: its storage is shared with a view, a lent array, another tensor or another argument"
            }
            Ownership::Lent => "kept: its storage is lent and not to be written",
            Ownership::Strided => "kept: its elements do not lie in row-major order",
        }
    }
}

/// An argument where the program runs.
fn placed(array: Array, device: Option<Device>) -> Result<Array> {
    match device {
        Some(device) => array.to_device(device),
        None => Ok(array),
    }
}

/// A tensor that is one stored element seen everywhere (`zeros`, `full`) gets storage of its own: as an argument it stands
/// where later calls pass results, which have theirs, and one program should serve both.
fn materialised(array: Array) -> Result<Array> {
    let layout = array.layout();
    if layout.shape.elements() <= 1 || layout.canonical().strides.iter().any(|s| *s != 0) {
        return Ok(array);
    }
    let (n, shape) = (layout.shape.elements(), layout.shape.clone());
    match array.literal_at_first()? {
        None => Ok(array),
        Some(l) => with_element!(l.dtype(), T => Array::from_vec(filled(T::from_literal(l), n)?, &shape))?
            .to_device(array.device()),
    }
}

fn filled<T: Clone>(value: T, n: usize) -> Result<Vec<T>> {
    let mut elements = Vec::new();
    elements
        .try_reserve_exact(n)
        .map_err(|_| Error::new(ErrorKind::Memory, format!("{n} elements of an argument could not be allocated")))?;
    elements.resize(n, value);
    Ok(elements)
}

/// Runs a program on arguments of its signature.
pub(crate) fn run(module: &Module, arguments: Arguments, caller: Source) -> Result<Vec<Tensor>> {
    let recorded = module.recorded();
    let cut = arguments.leaves.iter().any(|l| l.requires_grad);
    let (inputs, ownership) = inputs(module, arguments).map_err(|e| e.with_sources(caller))?;
    module.code.note_ownership(&ownership);
    let results = module.code.run(inputs).map_err(|e| name_lost(e, module, &ownership).with_sources(caller))?;
    let name = recorded.capture.graph.name();
    let wrap = |array: Array| {
        let is_float = array.dtype().is_float();
        let tensor = Tensor::from_value(array, caller);
        if cut && is_float { tensor.cut(name) } else { tensor }
    };
    Ok(results.into_iter().map(wrap).collect())
}

/// Runs a program on copies of nothing: no argument is given away, and each kernel is timed.
pub(crate) fn profile(module: &Module, mut arguments: Arguments, compilations: Vec<Compilation>) -> Result<Report> {
    let keep: Vec<Array> = arguments.leaves.iter().map(|l| l.array.clone()).collect();
    for leaf in &mut arguments.leaves {
        leaf.sole = false;
    }
    let (inputs, _) = inputs(module, arguments)?;
    let profile = module.code.profile(inputs)?;
    drop(keep);
    Ok(Report::new(module, compilations, Some(profile)))
}

/// What became of the arguments of a call.
pub(crate) type Owned = SmallVec<[Ownership; 8]>;

/// The program's inputs (arguments, captured values, the generator's base), and what becomes of each argument.
fn inputs(module: &Module, arguments: Arguments) -> Result<(Vec<Argument>, Owned)> {
    let recorded = module.recorded();
    if let Some(device) = arguments.signature.device
        && device != recorded.device
    {
        return Err(apart(device, recorded.device));
    }
    let ownership: Owned = arguments.leaves.iter().map(Ownership::of).collect();
    let mut inputs = Vec::with_capacity(ownership.len() + recorded.captured.len() + 1);
    let given = ownership.iter().map(|o| *o == Ownership::Given);
    inputs
        .extend(arguments.leaves.into_iter().zip(given).map(|(leaf, donated)| Argument { array: leaf.array, donated }));
    inputs.extend(recorded.captured.iter().map(|array| Argument { array: array.clone(), donated: false }));
    if recorded.capture.base.is_some() {
        inputs.push(Argument { array: generator::base(recorded.capture.draws)?, donated: false });
    }
    Ok((inputs, ownership))
}

/// The error of a program that ran: it may have written into what it was given, which is gone in any case.
#[cold]
fn name_lost(error: Error, module: &Module, ownership: &[Ownership]) -> Error {
    let names = module.recorded().names.iter().zip(ownership);
    let lost: Vec<&str> = names.filter(|(_, o)| **o == Ownership::Given).map(|(name, _)| name.as_str()).collect();
    if lost.is_empty() {
        return error;
    }
    error.note(format!("what was given away to the call is lost: {}", lost.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(tensor: &Tensor) -> usize {
        tensor.array().unwrap().as_ptr().addr()
    }

    #[test]
    fn a_result_lies_where_the_argument_lay_that_was_given_away() {
        let step = crate::compile(|(w, g): (Tensor, Tensor)| w - g * 0.5);
        let mut w = Tensor::from_vec((0..4096).map(|i| i as f32).collect(), [64, 64]);
        let g = Tensor::from_vec(vec![2.0f32; 4096], [64, 64]);
        let at = address(&w);
        for _ in 0..3 {
            w = step.call((w, &g)).unwrap();
            assert_eq!(address(&w), at);
        }
        assert_eq!(w.to_vec::<f32>().unwrap()[..2], [-3.0, -2.0]);
        let kept = step.call((&w, &g)).unwrap();
        assert_ne!(address(&kept), at);
        assert_eq!(w.to_vec::<f32>().unwrap()[..2], [-3.0, -2.0]);
    }

    #[test]
    fn an_error_names_what_is_lost() {
        let step = crate::compile(|(w, g): (Tensor, Tensor)| w - g).arguments(["w", "g"]);
        step.call((Tensor::ones([2]), Tensor::ones([2]))).unwrap().eval().unwrap();
        let module = step.shared.cache.latest().unwrap().program.clone();
        let error = Error::new(ErrorKind::Memory, "no memory");
        let named = name_lost(error.clone(), &module, &[Ownership::Given, Ownership::Held]);
        assert_eq!(named.to_string(), "no memory; what was given away to the call is lost: w");
        assert_eq!(name_lost(error, &module, &[Ownership::Held, Ownership::Lent]).to_string(), "no memory");
    }

    #[test]
    fn a_value_that_is_read_after_its_successor_is_written_survives() {
        // Both results want the storage of `w`, and each reads it: at most one may have it, and after the last read.
        let swap = crate::compile(|(a, b): (Tensor, Tensor)| (&a + &b, &a - &b, a * b));
        for _ in 0..2 {
            let a = Tensor::from_vec((0..1000).map(|i| i as f32).collect(), [1000]);
            let b = Tensor::from_vec(vec![2.0f32; 1000], [1000]);
            let (sum, difference, product) = swap.call((a, b)).unwrap();
            assert_eq!(sum.to_vec::<f32>().unwrap()[999], 1001.0);
            assert_eq!(difference.to_vec::<f32>().unwrap()[999], 997.0);
            assert_eq!(product.to_vec::<f32>().unwrap()[999], 1998.0);
        }
    }

    #[test]
    fn an_argument_that_is_returned_shares_its_storage_and_is_not_overwritten() {
        let both = crate::compile(|x: Tensor| (x.clone(), x.t(), &x + 1.0));
        let x = Tensor::from_vec((0..6).map(|i| i as f32).collect(), [2, 3]);
        let (same, view, next) = both.call(x).unwrap();
        assert_eq!(same.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(view.to_vec::<f32>().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(next.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        // A later call that is given one of them must not write under the other.
        let add = crate::compile(|x: Tensor| x + 10.0);
        let _ = add.call(same).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(view.to_vec::<f32>().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}
