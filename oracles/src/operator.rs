//! The operators that programs are drawn from: every primitive, with the dtypes it takes.

use lazuli_ir::{
    BinaryOp, CompareOp, CumulativeOp, DType, Domain, Graph, NodeId, Op, ReduceOp, ScatterOp, TensorType, UnaryOp,
};

/// A primitive without its dims, extents and operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Operator {
    Constant,
    Iota,
    Random,
    Alias,
    Detach,
    Unary(UnaryOp),
    Binary(BinaryOp),
    Compare(CompareOp),
    Select,
    Cast(DType),
    Permute,
    Reshape,
    Broadcast,
    Slice,
    Pad,
    Flip,
    Concat,
    Window,
    WindowSum,
    DynamicSlice,
    DynamicUpdateSlice,
    CheckIndex,
    Gather,
    Scatter(ScatterOp),
    Cumulative(CumulativeOp),
    Sort,
    Reduce(ReduceOp),
    Dot,
}

impl Operator {
    /// Every operator.
    pub fn all() -> Vec<Operator> {
        use Operator::*;
        let mut all = vec![Constant, Iota, Random, Alias, Detach, Select, Permute, Reshape, Broadcast, Slice, Pad];
        all.extend([Flip, Concat, Window, WindowSum, DynamicSlice, DynamicUpdateSlice, CheckIndex, Gather, Sort, Dot]);
        all.extend(UnaryOp::ALL.iter().map(|op| Unary(*op)));
        all.extend(BinaryOp::ALL.iter().map(|op| Binary(*op)));
        all.extend(CompareOp::ALL.iter().map(|op| Compare(*op)));
        all.extend(DType::ALL.iter().map(|to| Cast(*to)));
        all.extend(ScatterOp::ALL.iter().map(|op| Scatter(*op)));
        all.extend(CumulativeOp::ALL.iter().map(|op| Cumulative(*op)));
        all.extend(ReduceOp::ALL.iter().map(|op| Reduce(*op)));
        all
    }

    /// That of a node of a graph; an input has none, nor what moves a value between programs.
    pub fn of(op: &Op) -> Option<Operator> {
        Some(match op {
            Op::Input { .. } | Op::ToDevice { .. } => return None,
            Op::Constant { .. } => Operator::Constant,
            Op::Iota { .. } => Operator::Iota,
            Op::Alias => Operator::Alias,
            Op::Detach => Operator::Detach,
            Op::Random { .. } => Operator::Random,
            Op::Unary(op) => Operator::Unary(*op),
            Op::Binary(op) => Operator::Binary(*op),
            Op::Compare(op) => Operator::Compare(*op),
            Op::Select => Operator::Select,
            Op::Cast(to) => Operator::Cast(*to),
            Op::Permute(_) => Operator::Permute,
            Op::Reshape(_) => Operator::Reshape,
            Op::Broadcast { .. } => Operator::Broadcast,
            Op::Slice(_) => Operator::Slice,
            Op::Pad(_) => Operator::Pad,
            Op::Flip(_) => Operator::Flip,
            Op::Concat { .. } => Operator::Concat,
            Op::Window(_) => Operator::Window,
            Op::WindowSum { .. } => Operator::WindowSum,
            Op::DynamicSlice(_) => Operator::DynamicSlice,
            Op::DynamicUpdateSlice { .. } => Operator::DynamicUpdateSlice,
            Op::CheckIndex { .. } => Operator::CheckIndex,
            Op::Gather { .. } => Operator::Gather,
            Op::Scatter { op, .. } => Operator::Scatter(*op),
            Op::Cumulative { op, .. } => Operator::Cumulative(*op),
            Op::Sort { .. } => Operator::Sort,
            Op::Reduce { op, .. } => Operator::Reduce(*op),
            Op::Dot { .. } => Operator::Dot,
        })
    }

    /// The name in tables.
    pub fn name(self) -> String {
        match self {
            Operator::Unary(op) => op.name().into(),
            Operator::Binary(op) => op.name().into(),
            Operator::Compare(op) => op.name().into(),
            Operator::Cast(to) => format!("cast_{to}"),
            Operator::Scatter(op) => format!("scatter_{}", op.name()),
            Operator::Cumulative(op) => format!("cumulative_{}", op.name()),
            Operator::Reduce(op) => format!("reduce_{}", op.name()),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// Whether it takes (or, without operands, makes) elements of this dtype.
    pub fn takes(self, dtype: DType) -> bool {
        let accumulates = dtype != DType::Bool && !dtype.is_half();
        match self {
            Operator::Iota | Operator::Random | Operator::CheckIndex => dtype == DType::I64,
            Operator::Unary(op) => op.row().domain.contains(dtype),
            Operator::Binary(op) => op.domain().contains(dtype),
            Operator::Scatter(ScatterOp::Add | ScatterOp::Mul) => accumulates,
            Operator::Cumulative(CumulativeOp::Sum | CumulativeOp::Prod) => accumulates,
            Operator::Reduce(ReduceOp::Sum | ReduceOp::Prod) | Operator::Dot | Operator::WindowSum => accumulates,
            Operator::Scatter(_) | Operator::Cumulative(_) | Operator::Reduce(_) | Operator::Sort => true,
            Operator::Constant | Operator::Alias | Operator::Detach | Operator::Compare(_) | Operator::Select => true,
            Operator::Cast(_) | Operator::Permute | Operator::Reshape | Operator::Broadcast => true,
            Operator::Slice | Operator::Pad | Operator::Flip | Operator::Concat | Operator::Window => true,
            Operator::DynamicSlice | Operator::DynamicUpdateSlice | Operator::Gather => true,
        }
    }

    /// Whether it has operands.
    pub fn has_operands(self) -> bool {
        !matches!(self, Operator::Constant | Operator::Iota)
    }

    /// Whether its result on small integers is a small integer of the same kind, exactly.
    pub fn is_exact(self, dtype: DType) -> bool {
        match self {
            Operator::Random => false,
            Operator::Unary(op) => op.row().domain != Domain::Float || op.row().ulps == 0.0,
            Operator::Binary(op) => {
                !dtype.is_float() || !matches!(op, BinaryOp::Div | BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::Hypot)
            }
            _ => true,
        }
    }

    /// The operand whose dtype and layout are meant where one is spoken of.
    pub fn subject(self) -> usize {
        if self == Operator::Select { 1 } else { 0 }
    }

    /// The operator of a node and the type it is counted under: its subject's, or its own.
    pub fn counted(graph: &Graph, n: NodeId) -> Option<(Operator, TensorType)> {
        let operator = Operator::of(graph.op(n))?;
        let subject = graph.operands(n).get(operator.subject()).copied();
        Some((operator, graph.ty(subject.unwrap_or(n.into())).clone()))
    }

    /// Every operator with every dtype that it takes.
    pub fn cells() -> Vec<(Operator, DType)> {
        let of = |op: Operator| DType::ALL.into_iter().filter(move |d| op.takes(*d)).map(move |d| (op, d));
        Operator::all().into_iter().flat_map(of).collect()
    }
}
