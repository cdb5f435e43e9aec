//! What a user asks of gradients: `requires_grad_`, `backward`, `grad`, and the functional `grad` and `value_and_grad`.

use crate::history::{self, History, Kind};
use crate::node::Node;
use crate::tensor::Tensor;
use crate::trace::{self, TraceId};
use crate::tree::Tree;
use crate::vjp::{Border, Region};
use lazuli_ir::{Error, ErrorKind, Literal, Op, Result, Source};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f` without keeping history on this thread: its results do not require grad.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = Tensor::ones([2]).requires_grad_(true);
/// let y = lazuli::no_grad(|| &x * 2.0);
/// assert!(!y.requires_grad());
/// ```
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    history::with_history(false, f)
}

/// What [`Tensor::backward_with`] takes; a tensor stands for its `gradient`.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::tensor(3.0).requires_grad_(true);
/// let y = &x * &x;
/// y.backward_with(Backward { retain_graph: true, ..Default::default() })?;
/// y.backward()?;
/// assert_eq!(x.grad().unwrap().item::<f32>()?, 12.0);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Backward {
    /// The gradient of the tensor itself, of its shape; 1 where it is missing, for a tensor of one element.
    pub gradient: Option<Tensor>,
    /// Whether history stays, so that it can be gone through again.
    pub retain_graph: bool,
    /// Whether the gradients have history themselves, for second derivatives; history stays then.
    pub create_graph: bool,
}

impl From<Tensor> for Backward {
    fn from(gradient: Tensor) -> Backward {
        Backward { gradient: Some(gradient), ..Backward::default() }
    }
}

impl From<&Tensor> for Backward {
    fn from(gradient: &Tensor) -> Backward {
        gradient.clone().into()
    }
}

/// The trace whose flags are asked when a tensor's are.
fn asking(tensor: &Tensor) -> TraceId {
    if tensor.node.trace == TraceId::NONE { trace::current() } else { tensor.node.trace }
}

/// Notes that a traced program depends on a flag of its inputs.
fn ask(tensor: &Tensor) {
    let trace = asking(tensor);
    if trace == TraceId::NONE {
        return;
    }
    match trace::input_number(trace, &tensor.node) {
        Some(input) => trace::ask(trace, Some(input)),
        None => trace::ask(trace, None),
    }
}

impl Tensor {
    /// The same value as a new leaf: with `true`, operations on it keep history and `backward` fills its
    /// [`grad`](Self::grad). This tensor itself stays as it is.
    ///
    /// # Errors
    /// Carried: a tensor that is not of floats cannot require grad.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let w = lazuli::tensor([1.0, 2.0]).requires_grad_(true);
    /// (&w * &w).sum(..).backward()?;
    /// assert_eq!(w.grad().unwrap().to_vec::<f32>()?, [2.0, 4.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn requires_grad_(&self, requires_grad: bool) -> Tensor {
        if !requires_grad || self.check().is_err() {
            return Tensor { node: self.node.clone(), history: None };
        }
        if !self.dtype().is_float() {
            let message = format!("only floating point tensors can require grad, not {}", self.dtype());
            return Tensor::fail("requires_grad_", &[self], ErrorKind::Autograd, message);
        }
        let leaf = History::leaf(self.node.ty.clone(), Source::caller(), asking(self));
        Tensor { node: self.node.clone(), history: Some(leaf) }
    }

    /// Whether gradients flow to it: a leaf made by [`requires_grad_`](Self::requires_grad_), or computed from one.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let w = Tensor::ones([2]).requires_grad_(true);
    /// assert!((&w + 1.0).requires_grad());
    /// assert!(!Tensor::ones([2]).requires_grad());
    /// ```
    pub fn requires_grad(&self) -> bool {
        ask(self);
        self.history.is_some()
    }

    /// Whether it is no result of an operation that keeps history.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let w = Tensor::ones([2]).requires_grad_(true);
    /// assert!(w.is_leaf());
    /// assert!(!(&w + 1.0).is_leaf());
    /// ```
    pub fn is_leaf(&self) -> bool {
        ask(self);
        match self.history.as_deref().map(|h| &h.kind) {
            None | Some(Kind::Leaf { .. }) => true,
            Some(Kind::Cut { .. } | Kind::Operation(_)) => false,
        }
    }

    /// The gradient that `backward` has accumulated so far: of this leaf and its clones.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let w = lazuli::tensor(2.0).requires_grad_(true);
    /// assert!(w.grad().is_none());
    /// (&w * 3.0).backward()?;
    /// (&w * 3.0).backward()?;
    /// assert_eq!(w.grad().unwrap().item::<f32>()?, 6.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn grad(&self) -> Option<Tensor> {
        match self.history.as_deref().map(|h| &h.kind) {
            Some(Kind::Leaf { grad, .. }) => lock(grad).clone(),
            None | Some(Kind::Cut { .. } | Kind::Operation(_)) => None,
        }
    }

    /// Forgets the gradient: [`grad`](Self::grad) is `None` again.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let w = lazuli::tensor(2.0).requires_grad_(true);
    /// (&w * 3.0).backward()?;
    /// w.zero_grad();
    /// assert!(w.grad().is_none());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn zero_grad(&self) {
        if let Some(Kind::Leaf { grad, .. }) = self.history.as_deref().map(|h| &h.kind) {
            let old = lock(grad).take();
            drop(old);
        }
    }

    /// Computes the gradient of this tensor, which has one element, with respect to all leaves that require grad and adds it
    /// to their [`grad`](Self::grad). It frees the history it went through. Like every operation it records: what the
    /// gradients need is computed when they are read.
    ///
    /// # Errors
    /// The error that the tensor carries; more than one element, or a tensor that does not require grad; history that an
    /// earlier `backward` has freed; the result of a compiled call on the way to a leaf; inside a trace, a leaf from outside.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let w = lazuli::tensor([1.0, -2.0]).requires_grad_(true);
    /// w.relu().sum(..).backward()?;
    /// assert_eq!(w.grad().unwrap().to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn backward(&self) -> Result<()> {
        self.backward_with(Backward::default())
    }

    /// [`backward`](Self::backward) with the gradient of this tensor, of its shape and dtype, or with more options.
    ///
    /// # Errors
    /// As for `backward`; a gradient of another shape or dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let w = lazuli::tensor([1.0, 2.0]).requires_grad_(true);
    /// (&w * &w).backward_with(lazuli::tensor([1.0, 10.0]))?;
    /// assert_eq!(w.grad().unwrap().to_vec::<f32>()?, [2.0, 40.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn backward_with(&self, options: impl Into<Backward>) -> Result<()> {
        let source = Source::caller();
        self.run_backward(options.into())
            .map_err(|e| e.with_operation("backward", [self.node.ty.clone()]).with_sources(source))
    }

    #[track_caller]
    fn run_backward(&self, options: Backward) -> Result<()> {
        self.check()?;
        ask(self);
        let refuse = |message: &str| Err(Error::new(ErrorKind::Autograd, message));
        let Some(history) = &self.history else {
            return refuse(
                "the tensor does not require grad: no leaf made by `requires_grad_(true)` leads to it, or it was computed \
                 under `no_grad`",
            );
        };
        let gradient = match options.gradient {
            Some(gradient) => gradient,
            None if self.numel() == 1 => {
                let op = Op::Constant { value: Literal::one(self.dtype()), shape: self.extent_shape().clone() };
                Tensor::record("ones_like", op, &[]).beside(self)
            }
            None => {
                return refuse("only a tensor of one element has a gradient by itself; pass one to `backward_with`");
            }
        };
        gradient.check()?;
        let region = Region::behind(std::slice::from_ref(history), &Border::Leaves)?;
        let leaves = region.leaves();
        let here = asking(self);
        if let Some(leaf) = leaves.iter().find(|l| !l.is_leaf_of(here)) {
            let message = format!(
                "`backward` inside a trace reaches a leaf {} from outside, whose grad it cannot fill at each call; pass the \
                 tensor as an argument",
                leaf.ty
            );
            return Err(Error::new(ErrorKind::Autograd, message).with_sources(leaf.source));
        }
        let gradients = region.vjp(&[(history.clone(), gradient)], &leaves, options.create_graph)?;
        for (leaf, gradient) in leaves.iter().zip(gradients) {
            if let (Kind::Leaf { grad, .. }, Some(gradient)) = (&leaf.kind, gradient) {
                accumulate(grad, gradient, options.create_graph);
            }
        }
        if !options.retain_graph && !options.create_graph {
            region.free();
        }
        Ok(())
    }
}

/// Adds to a leaf's gradient. Nothing is locked while recording; another thread's addition in between is not lost.
#[track_caller]
fn accumulate(slot: &Mutex<Option<Tensor>>, mut gradient: Tensor, create_graph: bool) {
    loop {
        let old = {
            let mut slot = lock(slot);
            match slot.take() {
                None => {
                    *slot = Some(gradient);
                    return;
                }
                Some(old) => old,
            }
        };
        gradient = history::with_history(create_graph, || old + gradient);
    }
}

/// What a function to differentiate returns: a loss, a loss and anything else, `(loss, aux)`, or a `Result` of a loss, whose
/// error the loss then carries. The loss is a tensor of one element.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a loss",
    note = "return a `Tensor` of one element, `(loss, anything else)`, or a `lazuli::Result<Tensor>`"
)]
pub trait Loss {
    /// The loss, and what comes with it: a tree whose first leaf is the loss.
    type Value: Tree;

    /// The value.
    fn value(self) -> Self::Value;
}

impl Loss for Tensor {
    type Value = Tensor;

    fn value(self) -> Tensor {
        self
    }
}

impl<A: Tree> Loss for (Tensor, A) {
    type Value = (Tensor, A);

    fn value(self) -> (Tensor, A) {
        self
    }
}

impl Loss for Result<Tensor> {
    type Value = Tensor;

    #[track_caller]
    fn value(self) -> Tensor {
        self.unwrap_or_else(|error| Tensor::from_array(Err(error)))
    }
}

/// The function that computes the gradient of `f` with respect to its argument, a tree of tensors: a tree of the same
/// structure. It nests, for higher derivatives, and works inside compiled functions.
///
/// Leaves that the loss does not depend on, and leaves that are not of floats, get zeros. See [`value_and_grad`] for errors.
///
/// ```
/// # use lazuli::prelude::*;
/// let cube = |x: &Tensor| x * x * x;
/// let x = lazuli::tensor(2.0);
/// assert_eq!(lazuli::grad(cube)(&x).item::<f32>()?, 12.0);
/// assert_eq!(lazuli::grad(lazuli::grad(cube))(&x).item::<f32>()?, 12.0);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn grad<T: Tree + Clone, L: Loss, F: Fn(&T) -> L>(f: F) -> impl Fn(&T) -> T {
    let source = Source::caller();
    move |argument| differentiate(&f, argument, source).1
}

/// The function that computes `f` and its gradient with respect to its argument, a tree of tensors: `(value, gradient)`,
/// where the gradient has the argument's structure. `f` returns a loss, or `(loss, aux)`.
///
/// What `f` captures counts as a constant, unless an outer `grad` or `backward` differentiates by it.
///
/// # Panics
/// Where a `Tree` written by hand does not unflatten what it flattened.
///
/// # Errors
/// Carried by the gradient's leaves: what the loss carries; a loss of more than one element or not of floats.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::tensor([[1.0, 2.0]]);
/// let w = (lazuli::tensor([[1.0], [1.0]]), lazuli::tensor(0.5));
/// let loss = |(w, b): &(Tensor, Tensor)| (x.matmul(w) + b).sum(..);
/// let (value, (dw, db)) = lazuli::value_and_grad(loss)(&w);
/// assert_eq!(value.item::<f32>()?, 3.5);
/// assert_eq!(dw.to_vec::<f32>()?, [1.0, 2.0]);
/// assert_eq!(db.item::<f32>()?, 1.0);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn value_and_grad<T: Tree + Clone, L: Loss, F: Fn(&T) -> L>(f: F) -> impl Fn(&T) -> (L::Value, T) {
    let source = Source::caller();
    move |argument| differentiate(&f, argument, source)
}

/// A leaf under another identity, to differentiate by.
fn alias(x: &Tensor) -> Tensor {
    let node = Node::operation(Op::Alias, x.node.ty.clone(), x.node.source, smallvec::smallvec![x.node.clone()]);
    let history = History::alias(&node, x);
    Tensor { node, history: Some(history) }
}

/// The tree of these leaves. A structure always fits the leaves it was taken apart into, unless a `Tree` written by hand
/// breaks its law; that is reported as a panic, as there is no tensor to carry the error.
#[allow(clippy::panic, reason = "a broken trait law is the implementer's bug, and nothing here can carry an error")]
fn rebuild<T: Tree>(structure: &crate::tree::Structure, leaves: Vec<Tensor>) -> T {
    T::from_parts(structure, leaves)
        .unwrap_or_else(|e| std::panic::panic_any(format!("a `Tree` does not unflatten what it flattened: {e}")))
}

fn differentiate<T: Tree + Clone, L: Loss>(f: impl Fn(&T) -> L, argument: &T, source: Source) -> (L::Value, T) {
    let keeps_history = history::enabled();
    let (structure, leaves) = argument.clone().into_parts();
    let by = |x: &Tensor| x.dtype().is_float() && x.check().is_ok();
    let aliases: Vec<Tensor> = leaves.iter().map(|x| if by(x) { alias(x) } else { x.clone() }).collect();
    let inside: T = rebuild(&structure, aliases.clone());
    let (result_structure, mut results) = history::with_history(true, || f(&inside).value()).into_parts();
    drop(inside);
    let gradients = match pull_back(&results, &leaves, &aliases, keeps_history) {
        Ok((gradients, is_open)) => {
            if !is_open {
                results.iter_mut().for_each(|t| t.history = None);
            }
            gradients
        }
        Err(error) => {
            let operands = results.first().map(|loss| loss.node.ty.clone());
            let error = error.with_operation("value_and_grad", operands).with_sources(source);
            leaves.iter().map(|x| Tensor::failed(x.node.ty.clone(), source, error.clone())).collect()
        }
    };
    (rebuild(&result_structure, results), rebuild(&structure, gradients))
}

/// The gradients of the first result by the aliases, one a leaf, and whether an outer differentiation reaches the results.
fn pull_back(
    results: &[Tensor],
    leaves: &[Tensor],
    aliases: &[Tensor],
    keeps_history: bool,
) -> Result<(Vec<Tensor>, bool)> {
    let loss = results.first().ok_or_else(|| Error::internal("a loss without a tensor"))?;
    loss.check()?;
    if loss.numel() != 1 || !loss.dtype().is_float() {
        let message = format!("the loss must be one floating point number, not {}", loss.node.ty);
        return Err(Error::new(ErrorKind::Autograd, message));
    }
    if let Some(error) = leaves.iter().find_map(|x| x.node.error()) {
        return Err(error.clone());
    }
    let wrt: Vec<Arc<History>> = aliases
        .iter()
        .zip(leaves)
        .filter(|(a, x)| !Arc::ptr_eq(&a.node, &x.node))
        .filter_map(|(a, _)| a.history.clone())
        .collect();
    let behind: Vec<Arc<History>> = results.iter().filter_map(|t| t.history.clone()).collect();
    let region = Region::behind(&behind, &Border::At(&wrt))?;
    let found = match &loss.history {
        Some(history) => {
            let op = Op::Constant { value: Literal::one(loss.dtype()), shape: loss.extent_shape().clone() };
            let one = Tensor::record("ones_like", op, &[]).beside(loss);
            region.vjp(&[(history.clone(), one)], &wrt, region.open && keeps_history)?
        }
        None => vec![None; wrt.len()],
    };
    let mut found = found.into_iter();
    let gradients = aliases.iter().zip(leaves).map(|(alias, leaf)| {
        let differentiated = !Arc::ptr_eq(&alias.node, &leaf.node);
        let gradient = if differentiated { found.next().flatten() } else { None };
        gradient.unwrap_or_else(|| leaf.zeros_like())
    });
    Ok((gradients.collect(), region.open))
}
