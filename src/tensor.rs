//! The tensor: a cheap handle on a recorded node, and the history a gradient needs.

use crate::history::{History, Kind};
use crate::node::{Node, Operands, Role, meeting_place};
use crate::trace::{self, TraceId};
use crate::{Device, eager};
use lazuli_ir::{DType, Element, Error, ErrorKind, Literal, Op, Result, Shape, Source, TensorType};
use lazuli_runtime::Array;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// Where [`Tensor::to`] takes a tensor, and as what: a dtype, a device, or both as a tuple. What is not given stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The device.
    pub device: Option<Device>,
    /// The dtype.
    pub dtype: Option<DType>,
}

impl From<DType> for Placement {
    fn from(dtype: DType) -> Placement {
        Placement { device: None, dtype: Some(dtype) }
    }
}

impl From<Device> for Placement {
    fn from(device: Device) -> Placement {
        Placement { device: Some(device), dtype: None }
    }
}

impl From<(Device, DType)> for Placement {
    fn from((device, dtype): (Device, DType)) -> Placement {
        Placement { device: Some(device), dtype: Some(dtype) }
    }
}

/// A multi-dimensional array, or the recipe for one: operations record, and reading a value computes what it needs.
///
/// A tensor is a value: immutable, cheap to clone, and free to move between threads. Operations never fail and never
/// panic: one that cannot be done yields a tensor that carries the error, which [`check`](Tensor::check) returns at once
/// and [`item`](Tensor::item), [`to_vec`](Tensor::to_vec) and [`eval`](Tensor::eval) return instead of a value. The first
/// error wins and names the operation, its operands and the line in your code.
///
/// ```
/// use lazuli::prelude::*;
/// let a = lazuli::tensor([[1.0, 2.0], [3.0, 4.0]]);
/// let b = (&a * 2.0 + 1.0).sum(-1);
/// assert_eq!(b.to_vec::<f32>()?, [8.0, 16.0]);
///
/// let wrong = a.matmul(Tensor::zeros([3, 3]));
/// assert!(wrong.check().unwrap_err().to_string().contains("matmul(f32[2,2], f32[3,3])"));
/// # Ok::<(), lazuli::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a tensor that nobody uses computes nothing"]
pub struct Tensor {
    pub(crate) node: Arc<Node>,
    pub(crate) history: Option<Arc<History>>,
}

impl Tensor {
    /// Records an operation on operands that need nothing more: shapes and dtypes are those the Graph IR asks for. What
    /// does not fit is an error under `name`.
    #[track_caller]
    pub(crate) fn record(name: &'static str, op: Op, operands: &[&Tensor]) -> Tensor {
        let types: SmallVec<[&TensorType; 3]> = operands.iter().map(|t| &t.node.ty).collect();
        match lazuli_ir::infer(&op, &types) {
            Ok(ty) => Tensor::record_typed(op, ty, operands, Source::caller()),
            Err(error) => Tensor::fail(name, operands, error.kind(), error.message()),
        }
    }

    /// Records an operation whose result has this type. An operand's error is the result's.
    pub(crate) fn record_typed(op: Op, ty: TensorType, operands: &[&Tensor], source: Source) -> Tensor {
        if let Some(error) = first_error(operands) {
            return Tensor { node: Node::ready(ty, source, Err(error)), history: None };
        }
        if let Err([a, b]) = meeting_place(operands.iter().map(|t| &*t.node))
            && !matches!(op, Op::ToDevice { .. })
        {
            let error = apart(a, b).with_operation(op.name(), operands.iter().map(|t| t.node.ty.clone()));
            return Tensor { node: Node::ready(ty, source, Err(error.with_sources(source))), history: None };
        }
        let nodes: Operands = operands.iter().map(|t| t.node.clone()).collect();
        let node = Node::operation(op, ty, source, nodes);
        let history = History::operation(&node, operands);
        eager::bound_depth(&node);
        Tensor { node, history }
    }

    /// A number everywhere, as an operand of a checked shape. Outside of traces its value is there at once: one element.
    #[track_caller]
    pub(crate) fn splat(value: Literal, shape: &Shape) -> Tensor {
        let op = Op::Constant { value, shape: shape.clone() };
        let ty = TensorType { shape: shape.clone(), dtype: value.dtype() };
        let node = if trace::current() == TraceId::NONE {
            Node::computed(op, ty, Source::caller(), eager::splat(value, shape))
        } else {
            Node::operation(op, ty, Source::caller(), Operands::new())
        };
        Tensor { node, history: None }
    }

    /// A tensor that carries an error of the operation `name` (or that of an operand). Its type is a guess: the first
    /// operand's.
    #[track_caller]
    #[cold]
    pub(crate) fn fail(name: &str, operands: &[&Tensor], kind: ErrorKind, message: impl Into<String>) -> Tensor {
        let ty = operands.first().map_or_else(|| TensorType::new([], DType::F32), |t| t.node.ty.clone());
        Tensor::fail_as(ty, name, operands, kind, message)
    }

    /// As [`fail`](Self::fail), with a better guess of the type.
    #[track_caller]
    #[cold]
    pub(crate) fn fail_as(
        guess: TensorType,
        name: &str,
        operands: &[&Tensor],
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Tensor {
        let source = Source::caller();
        let error = first_error(operands).unwrap_or_else(|| {
            Error::new(kind, message)
                .with_operation(name, operands.iter().map(|t| t.node.ty.clone()))
                .with_sources(source)
        });
        Tensor { node: Node::ready(guess, source, Err(error)), history: None }
    }

    /// A tensor of this type that carries an error.
    #[cold]
    pub(crate) fn failed(guess: TensorType, source: Source, error: Error) -> Tensor {
        Tensor { node: Node::ready(guess, source, Err(error)), history: None }
    }

    /// A composite's result under the composite's name: an error that none of its operands brought in names the composite
    /// and these operands.
    #[track_caller]
    pub(crate) fn named(self, name: &str, operands: &[&Tensor]) -> Tensor {
        match self.node.error() {
            Some(error) if first_error(operands).is_none() => {
                let (kind, message) = (error.kind(), error.message().to_owned());
                Tensor::fail_as(self.node.ty.clone(), name, operands, kind, message)
            }
            _ => self,
        }
    }

    /// A tensor of a value that is there, or of the error that there is instead.
    #[track_caller]
    pub(crate) fn from_array(array: Result<Array>) -> Tensor {
        let source = Source::caller();
        let ty = array.as_ref().map_or_else(|_| TensorType::new([], DType::F32), Array::ty);
        let array = array.map_err(|e| e.with_sources(source));
        Tensor { node: Node::ready(ty, source, array), history: None }
    }

    /// Numbers that belong to an operation, such as positions it works out itself, as a tensor for any device.
    #[track_caller]
    pub(crate) fn table<T: Element>(elements: Vec<T>, shape: impl Into<Shape>) -> Tensor {
        Tensor::anywhere(Array::from_vec(elements, &shape.into()))
    }

    /// As [`from_array`](Self::from_array), of a value that may be used on any device.
    #[track_caller]
    pub(crate) fn anywhere(array: Result<Array>) -> Tensor {
        let source = Source::caller();
        let ty = array.as_ref().map_or_else(|_| TensorType::new([], DType::F32), Array::ty);
        Tensor { node: Node::anywhere(ty, source, array.map_err(|e| e.with_sources(source))), history: None }
    }

    /// A tensor of a value that is there, for the user's line.
    pub(crate) fn from_value(array: Array, source: Source) -> Tensor {
        Tensor { node: Node::ready(array.ty(), source, Ok(array)), history: None }
    }

    /// A number as a weak 0-d tensor.
    #[track_caller]
    pub(crate) fn number(number: Literal) -> Tensor {
        let source = Source::caller();
        let ty = TensorType::new([], number.dtype());
        Tensor { node: Node::number(ty, source, Array::full(number, &Shape::scalar())), history: None }
    }

    /// The value, computed where it is not there yet.
    pub(crate) fn array(&self) -> Result<Array> {
        trace::readable(&self.node)?;
        eager::value(&self.node)
    }

    /// The value, and whether this was the last handle on it: then the array's storage has no owner but the array and
    /// its views, and may be reused by whoever holds the buffer alone.
    pub(crate) fn into_array(self) -> Result<(Array, bool)> {
        let array = self.array()?;
        drop(self.history);
        match Arc::into_inner(self.node).and_then(Node::into_value) {
            Some(value) => {
                drop(array);
                value.map(|array| (array, true))
            }
            None => Ok((array, false)),
        }
    }

    /// Marks a result of a compiled call as cut from the history of the call's inputs.
    pub(crate) fn cut(self, function: &str) -> Tensor {
        let history = History::cut(self.node.ty.clone(), self.node.source, function);
        Tensor { node: self.node, history: Some(history) }
    }

    /// Whether it stands for a number, and so promotes as one.
    pub(crate) fn is_weak(&self) -> bool {
        matches!(self.node.role, Role::Placeholder { weak: true } | Role::Number)
    }

    /// The extents, outermost first. For a tensor that carries an error it is the best guess; [`dims`](Self::dims) is
    /// the checked form.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).shape(), [2, 3]);
    /// ```
    pub fn shape(&self) -> Vec<usize> {
        self.node.ty.shape.extents().to_vec()
    }

    /// The extents of a tensor of `N` dims.
    ///
    /// # Errors
    /// The error that the tensor carries, or a number of dims other than `N`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let [rows, columns] = Tensor::zeros([2, 3]).dims()?;
    /// assert_eq!((rows, columns), (2, 3));
    /// assert!(Tensor::zeros([2, 3]).dims::<1>().is_err());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn dims<const N: usize>(&self) -> Result<[usize; N]> {
        self.check()?;
        <[usize; N]>::try_from(self.node.ty.shape.extents().as_slice()).map_err(|_| {
            Error::new(ErrorKind::Shape, format!("has {} dims, not {N}", self.rank()))
                .with_operation("dims", [self.node.ty.clone()])
                .with_sources(Source::caller())
        })
    }

    /// The extent of one dim; negative dims count from the last. 1 where there is no such dim (see [`dims`](Self::dims)).
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).size(-1), 3);
    /// ```
    pub fn size(&self, dim: isize) -> usize {
        let rank = self.rank() as isize;
        let dim = if dim < 0 { dim + rank } else { dim };
        usize::try_from(dim).ok().and_then(|d| self.node.ty.shape.extents().get(d).copied()).unwrap_or(1)
    }

    /// The number of dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).rank(), 2);
    /// ```
    pub fn rank(&self) -> usize {
        self.node.ty.shape.rank()
    }

    /// The number of elements.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).numel(), 6);
    /// ```
    pub fn numel(&self) -> usize {
        self.node.ty.shape.elements()
    }

    /// The element type.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::arange(0..3).dtype(), DType::I64);
    /// ```
    pub fn dtype(&self) -> DType {
        self.node.ty.dtype
    }

    /// Where it lives. Constants and random numbers live nowhere in particular until they are used: they say the CPU, and are
    /// computed where the tensors are that they meet.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).device(), Device::Cpu);
    /// ```
    pub fn device(&self) -> Device {
        self.node.home.unwrap_or_default().into()
    }

    /// The error that the tensor carries, if any, without computing anything.
    ///
    /// # Errors
    /// The first error among the operations that lead here.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let sum = Tensor::zeros([2]) + Tensor::zeros([3]);
    /// assert!(sum.check().is_err());
    /// assert!((sum * 2.0).check().is_err());
    /// ```
    pub fn check(&self) -> Result<()> {
        self.node.error().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Computes the value now and keeps it.
    ///
    /// # Errors
    /// The error that the tensor carries, a failure at run time, or a trace: inside one there are no values.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// Tensor::ones([2]).eval()?;
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    pub fn eval(&self) -> Result<()> {
        self.array().map(drop)
    }

    /// The one element of a tensor, of any rank, as `T`: the type must be the tensor's dtype.
    ///
    /// # Errors
    /// As for [`eval`](Self::eval); more or less than one element; another dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2, 2]).sum(..).item::<f32>()?, 4.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn item<T: Element>(&self) -> Result<T> {
        let source = Source::caller();
        self.array()?.item::<T>().map_err(|e| e.with_operation("item", [self.node.ty.clone()]).with_sources(source))
    }

    /// The elements in row-major order: the type must be the tensor's dtype.
    ///
    /// # Errors
    /// As for [`eval`](Self::eval); another dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::arange(0..3).to_vec::<i64>()?, [0, 1, 2]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let source = Source::caller();
        self.array()?.to_vec::<T>().map_err(|e| e.with_operation("to_vec", [self.node.ty.clone()]).with_sources(source))
    }

    /// The same value without history: gradients take it for a constant, and no mark of a compiled call is left.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::ones([2]).requires_grad_(true);
    /// assert!(!(&x * 2.0).detach().requires_grad());
    /// ```
    #[track_caller]
    pub fn detach(&self) -> Tensor {
        if self.node.trace != TraceId::NONE || trace::current() != TraceId::NONE {
            // A transformation of the traced program must see that gradients stop here.
            return Tensor::record("detach", Op::Detach, &[self]);
        }
        Tensor { node: self.node.clone(), history: None }
    }

    /// The shape, as the IR has it.
    pub(crate) fn extent_shape(&self) -> &Shape {
        &self.node.ty.shape
    }

    /// The trace it belongs to.
    pub(crate) fn trace_id(&self) -> TraceId {
        self.node.trace
    }
}

/// The error of operands that lie on two devices.
#[cold]
pub(crate) fn apart(a: lazuli_ir::Device, b: lazuli_ir::Device) -> Error {
    let message = format!("operands lie on {a} and on {b}; move them to one device with `to`");
    Error::new(ErrorKind::Device, message)
}

fn first_error(operands: &[&Tensor]) -> Option<Error> {
    operands.iter().find_map(|t| t.node.error().cloned())
}

impl fmt::Debug for Tensor {
    /// Type and state; never computes anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}", self.node.ty)?;
        match self.node.value() {
            Some(Ok(_)) => f.write_str(", ready")?,
            Some(Err(e)) => write!(f, ", error: {}", e.message())?,
            None => match &self.node.op {
                Some(op) => write!(f, ", {} pending", op.name())?,
                None => f.write_str(", traced")?,
            },
        }
        match self.history.as_deref().map(|h| &h.kind) {
            Some(Kind::Leaf { .. }) => f.write_str(", leaf")?,
            Some(Kind::Cut { .. }) => f.write_str(", cut")?,
            Some(Kind::Operation(_)) => f.write_str(", history")?,
            None => {}
        }
        f.write_str(")")
    }
}
