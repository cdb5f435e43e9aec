//! Values of a growing graph with operators, so that rules which build nodes read like formulas.
//!
//! An [`Expr`] is a value and the [`Builder`] it lives in. Operators add nodes; a node that cannot be added (a bug of the rule)
//! leaves its error in the builder, which [`Builder::check`] returns: formulas need no `?`.

use crate::windows;
use lazuli_ir::{
    BinaryOp, CompareOp, CumulativeOp, DType, Device, DimVec, DotDims, Error, Graph, Literal, NodeId, Op, PadDim,
    ReduceOp, Result, ScatterOp, Shape, SliceDim, Sources, TensorType, UnaryOp, Value, WindowDims,
};
use std::cell::{Cell, Ref, RefCell};
use std::ops;

/// Appends nodes to a graph that it holds meanwhile.
pub(crate) struct Builder {
    graph: RefCell<Graph>,
    sources: RefCell<Sources>,
    error: Cell<Option<Error>>,
}

impl Builder {
    /// Runs `f` with a builder of `graph`.
    pub(crate) fn within<T>(graph: &mut Graph, f: impl FnOnce(&Builder) -> Result<T>) -> Result<T> {
        let name = graph.name().to_owned();
        let builder = Builder {
            graph: RefCell::new(std::mem::replace(graph, Graph::new(name))),
            sources: RefCell::new(Sources::none()),
            error: Cell::new(None),
        };
        let result = f(&builder);
        *graph = builder.graph.into_inner();
        result
    }

    /// The graph as it stands; to be released before the next node is built.
    pub(crate) fn graph(&self) -> Ref<'_, Graph> {
        self.graph.borrow()
    }

    /// What is built from now on stands for `sources`.
    pub(crate) fn stand_for(&self, sources: Sources) {
        self.sources.replace(sources);
    }

    /// A value of the graph.
    pub(crate) fn value(&self, value: Value) -> Expr<'_> {
        Expr { builder: self, value }
    }

    /// A splat of `value`.
    pub(crate) fn constant(&self, value: Literal, shape: Shape) -> Expr<'_> {
        self.node(Op::Constant { value, shape }, &[])
    }

    /// The first error of what was built since the last check.
    pub(crate) fn check(&self) -> Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    fn node(&self, op: Op, operands: &[Value]) -> Expr<'_> {
        let sources = self.sources.borrow().clone();
        let added = self.graph.borrow_mut().add(op, operands, sources);
        let value = added.unwrap_or_else(|e| {
            let first = self.error.take().unwrap_or(e);
            self.error.set(Some(first));
            // What stands in for a failed node is never used: `check` fails.
            operands.first().copied().unwrap_or(NodeId(0).into())
        });
        self.value(value)
    }
}

/// A value of the graph a [`Builder`] appends to.
#[derive(Clone, Copy)]
pub(crate) struct Expr<'b> {
    builder: &'b Builder,
    /// The value.
    pub(crate) value: Value,
}

impl<'b> Expr<'b> {
    /// Its type.
    pub(crate) fn ty(self) -> TensorType {
        self.builder.graph().ty(self.value).clone()
    }

    /// A splat of its type.
    pub(crate) fn splat(self, value: f64) -> Expr<'b> {
        let ty = self.ty();
        self.builder.constant(Literal::from_f64(ty.dtype, value), ty.shape)
    }

    /// A splat of zeros of its type.
    pub(crate) fn zeros(self) -> Expr<'b> {
        let ty = self.ty();
        self.builder.constant(Literal::zero(ty.dtype), ty.shape)
    }

    /// The sign: -1, 0 or 1; 0 of NaN.
    pub(crate) fn sign(self) -> Expr<'b> {
        let (zero, one) = (self.zeros(), self.splat(1.0));
        let negative = self.compare(CompareOp::Lt, zero).select(self.splat(-1.0), zero);
        self.compare(CompareOp::Gt, zero).select(one, negative)
    }

    pub(crate) fn unary(self, op: UnaryOp) -> Expr<'b> {
        self.builder.node(Op::Unary(op), &[self.value])
    }

    pub(crate) fn binary(self, op: BinaryOp, other: Expr<'b>) -> Expr<'b> {
        self.builder.node(Op::Binary(op), &[self.value, other.value])
    }

    pub(crate) fn compare(self, op: CompareOp, other: Expr<'b>) -> Expr<'b> {
        self.builder.node(Op::Compare(op), &[self.value, other.value])
    }

    /// Whether both hold.
    pub(crate) fn and(self, other: Expr<'b>) -> Expr<'b> {
        self.binary(BinaryOp::And, other)
    }

    /// Whether one of both holds.
    pub(crate) fn or(self, other: Expr<'b>) -> Expr<'b> {
        self.binary(BinaryOp::Or, other)
    }

    /// `self ? a : b`.
    pub(crate) fn select(self, a: Expr<'b>, b: Expr<'b>) -> Expr<'b> {
        self.builder.node(Op::Select, &[self.value, a.value, b.value])
    }

    pub(crate) fn cast(self, dtype: DType) -> Expr<'b> {
        self.builder.node(Op::Cast(dtype), &[self.value])
    }

    /// The sum over windows in a value of this shape.
    pub(crate) fn window_sum(self, dims: &WindowDims, shape: Shape) -> Expr<'b> {
        let sources = self.builder.sources.borrow().clone();
        let made = windows::convolved(&mut self.builder.graph.borrow_mut(), dims, &shape, self.value, &sources);
        match made {
            Ok(Some(made)) => self.builder.value(made),
            Ok(None) => self.apply(Op::WindowSum { dims: dims.clone(), shape }, &[]),
            Err(e) => {
                self.builder.error.set(Some(e));
                self
            }
        }
    }

    /// Itself where the permutation changes nothing.
    pub(crate) fn permute(self, perm: DimVec<usize>) -> Expr<'b> {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return self;
        }
        self.builder.node(Op::Permute(perm), &[self.value])
    }

    /// Itself where it has that shape.
    pub(crate) fn reshape(self, shape: Shape) -> Expr<'b> {
        if self.ty().shape.same(&shape) {
            return self;
        }
        self.builder.node(Op::Reshape(shape), &[self.value])
    }

    pub(crate) fn broadcast(self, shape: Shape, dims: DimVec<usize>) -> Expr<'b> {
        self.builder.node(Op::Broadcast { shape, dims }, &[self.value])
    }

    pub(crate) fn slice(self, dims: DimVec<SliceDim>) -> Expr<'b> {
        self.builder.node(Op::Slice(dims), &[self.value])
    }

    /// A half as `f32`, in which rules compute.
    pub(crate) fn wide(self) -> Expr<'b> {
        if self.ty().dtype.is_half() { self.cast(DType::F32) } else { self }
    }

    /// Itself where it has that dtype.
    pub(crate) fn to(self, dtype: DType) -> Expr<'b> {
        if self.ty().dtype == dtype { self } else { self.cast(dtype) }
    }

    /// Itself on another device.
    pub(crate) fn to_device(self, from: Device, to: Device) -> Expr<'b> {
        self.apply(Op::ToDevice { from, to }, &[])
    }

    /// An operation on this and other operands.
    pub(crate) fn apply(self, op: Op, others: &[Expr<'b>]) -> Expr<'b> {
        let operands: Vec<Value> = std::iter::once(self.value).chain(others.iter().map(|e| e.value)).collect();
        self.builder.node(op, &operands)
    }

    /// The elements along `dim` at an index of the result's shape.
    pub(crate) fn gather(self, dim: usize, index: Expr<'b>) -> Expr<'b> {
        self.apply(Op::Gather { dim }, &[index])
    }

    /// Updates combined into this along `dim`; halves are summed in `f32`.
    pub(crate) fn scatter(self, dim: usize, op: ScatterOp, index: Expr<'b>, updates: Expr<'b>) -> Expr<'b> {
        let dtype = self.ty().dtype;
        self.wide().apply(Op::Scatter { dim, op }, &[index, updates.wide()]).to(dtype)
    }

    /// The combination of the elements so far along `dim`.
    pub(crate) fn cumulative(self, op: CumulativeOp, dim: usize, reverse: bool) -> Expr<'b> {
        self.apply(Op::Cumulative { op, dim, reverse }, &[])
    }

    /// The index along `dim`, as `i64`.
    pub(crate) fn iota(self, dim: usize) -> Expr<'b> {
        self.builder.node(Op::Iota { dim, shape: self.ty().shape }, &[])
    }

    pub(crate) fn pad(self, dims: DimVec<PadDim>, value: Expr<'b>) -> Expr<'b> {
        self.builder.node(Op::Pad(dims), &[self.value, value.value])
    }

    /// A reduction in its own dtype.
    pub(crate) fn reduce(self, op: ReduceOp, dims: DimVec<usize>) -> Expr<'b> {
        let acc = self.ty().dtype;
        self.builder.node(Op::Reduce { op, dims, acc }, &[self.value])
    }

    /// The sum over `dims`; itself over none. Halves are summed in `f32`.
    pub(crate) fn sum(self, dims: DimVec<usize>) -> Expr<'b> {
        let dtype = self.ty().dtype;
        if dims.is_empty() { self } else { self.wide().reduce(ReduceOp::Sum, dims).to(dtype) }
    }

    pub(crate) fn dot(self, other: Expr<'b>, dims: DotDims) -> Expr<'b> {
        let dtype = self.ty().dtype;
        let (a, b) = (self.wide(), other.wide());
        let acc = a.ty().dtype;
        self.builder.node(Op::Dot { dims, acc }, &[a.value, b.value]).to(dtype)
    }

    /// For each element, its row-major position within `dims`.
    pub(crate) fn position(self, dims: &[usize]) -> Expr<'b> {
        let shape = self.ty().shape;
        let splat = |v: usize| self.builder.constant(Literal::I64(v as i64), shape.clone());
        let extents = shape.extents();
        dims.iter()
            .map(|&dim| (self.builder.node(Op::Iota { dim, shape: shape.clone() }, &[]), extents[dim]))
            .reduce(|(position, n), (iota, extent)| (position * splat(extent) + iota, n))
            .map_or_else(|| splat(0), |(position, _)| position)
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident),*) => {$(
        impl<'b> ops::$trait for Expr<'b> {
            type Output = Expr<'b>;
            fn $method(self, other: Expr<'b>) -> Expr<'b> {
                self.binary(BinaryOp::$op, other)
            }
        }
        impl<'b> ops::$trait<f64> for Expr<'b> {
            type Output = Expr<'b>;
            fn $method(self, other: f64) -> Expr<'b> {
                self.binary(BinaryOp::$op, self.splat(other))
            }
        }
        impl<'b> ops::$trait<Expr<'b>> for f64 {
            type Output = Expr<'b>;
            fn $method(self, other: Expr<'b>) -> Expr<'b> {
                other.splat(self).binary(BinaryOp::$op, other)
            }
        }
    )*};
}
operators!(Add add Add, Sub sub Sub, Mul mul Mul, Div div Div);

impl<'b> ops::Neg for Expr<'b> {
    type Output = Expr<'b>;
    fn neg(self) -> Expr<'b> {
        self.unary(UnaryOp::Neg)
    }
}
