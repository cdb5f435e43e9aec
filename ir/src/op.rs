//! The operations of the Graph IR: one closed enum, so that every analysis is an exhaustive match.

use crate::{BinaryOp, CompareOp, DType, Device, DimVec, Literal, Shape, TensorType, UnaryOp};
use smallvec::SmallVec;

/// How a [`Op::Reduce`] combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReduceOp {
    /// The sum; 0 of nothing.
    Sum,
    /// The product; 1 of nothing.
    Prod,
    /// The largest element; NaN wins. The reduced dims must not be empty.
    Max,
    /// The smallest element; NaN wins. The reduced dims must not be empty.
    Min,
    /// The row-major position, within the reduced dims, of the first largest element (or of the first NaN), as `i64`.
    /// The reduced dims must not be empty.
    ArgMax,
    /// The position of the first smallest element (or of the first NaN).
    ArgMin,
    /// As `max`, but its gradient is shared by all largest elements, where that of `max` goes to the first.
    Amax,
    /// As `min`, but its gradient is shared by all smallest elements.
    Amin,
}

impl ReduceOp {
    /// Every reduction.
    pub const ALL: &'static [ReduceOp] = &[
        ReduceOp::Sum,
        ReduceOp::Prod,
        ReduceOp::Max,
        ReduceOp::Min,
        ReduceOp::ArgMax,
        ReduceOp::ArgMin,
        ReduceOp::Amax,
        ReduceOp::Amin,
    ];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::ArgMax => "argmax",
            ReduceOp::ArgMin => "argmin",
            ReduceOp::Amax => "amax",
            ReduceOp::Amin => "amin",
        }
    }

    /// Whether the result is a position.
    pub fn is_position(self) -> bool {
        matches!(self, ReduceOp::ArgMax | ReduceOp::ArgMin)
    }

    /// Whether the result depends on the order in which floats are combined.
    pub fn rounds(self) -> bool {
        matches!(self, ReduceOp::Sum | ReduceOp::Prod)
    }

    /// The reduction of this name.
    pub fn parse(name: &str) -> Option<ReduceOp> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }
}

/// One dim of a [`Op::Slice`]: `start`, `start + step`, ... below `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SliceDim {
    /// The first index.
    pub start: usize,
    /// The end, exclusive.
    pub stop: usize,
    /// The distance of taken indices, at least 1.
    pub step: usize,
}

impl SliceDim {
    /// The number of indices taken.
    pub fn extent(self) -> usize {
        self.stop.saturating_sub(self.start).div_ceil(self.step.max(1))
    }
}

/// One dim of a [`Op::Pad`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PadDim {
    /// Elements added before.
    pub low: usize,
    /// Elements added after.
    pub high: usize,
    /// Elements added between neighbours.
    pub interior: usize,
}

impl PadDim {
    /// The extent after padding a dim of `extent` elements; `None` where it overflows.
    pub fn extent(self, extent: usize) -> Option<usize> {
        let inner = match extent {
            0 => 0,
            n => (n - 1).checked_mul(self.interior)?.checked_add(n)?,
        };
        inner.checked_add(self.low)?.checked_add(self.high)
    }
}

/// How a [`Op::Scatter`] combines what is there with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScatterOp {
    /// What comes replaces what is there; of several, the last.
    Set,
    /// The sum.
    Add,
    /// The product.
    Mul,
    /// The larger; NaN wins.
    Max,
    /// The smaller; NaN wins.
    Min,
}

impl ScatterOp {
    /// Every combination.
    pub const ALL: &'static [ScatterOp] =
        &[ScatterOp::Set, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            ScatterOp::Set => "set",
            ScatterOp::Add => "add",
            ScatterOp::Mul => "mul",
            ScatterOp::Max => "max",
            ScatterOp::Min => "min",
        }
    }

    /// The combination of this name.
    pub fn parse(name: &str) -> Option<ScatterOp> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// The binary operation that it is; none for `set`.
    pub fn binary(self) -> Option<BinaryOp> {
        match self {
            ScatterOp::Set => None,
            ScatterOp::Add => Some(BinaryOp::Add),
            ScatterOp::Mul => Some(BinaryOp::Mul),
            ScatterOp::Max => Some(BinaryOp::Max),
            ScatterOp::Min => Some(BinaryOp::Min),
        }
    }
}

/// How a [`Op::Cumulative`] combines an element with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CumulativeOp {
    /// The sum so far.
    Sum,
    /// The product so far.
    Prod,
    /// The largest so far; NaN wins.
    Max,
    /// The smallest so far; NaN wins.
    Min,
}

impl CumulativeOp {
    /// Every combination.
    pub const ALL: &'static [CumulativeOp] =
        &[CumulativeOp::Sum, CumulativeOp::Prod, CumulativeOp::Max, CumulativeOp::Min];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            CumulativeOp::Sum => "sum",
            CumulativeOp::Prod => "prod",
            CumulativeOp::Max => "max",
            CumulativeOp::Min => "min",
        }
    }

    /// The combination of this name.
    pub fn parse(name: &str) -> Option<CumulativeOp> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// The binary operation that combines.
    pub fn binary(self) -> BinaryOp {
        match self {
            CumulativeOp::Sum => BinaryOp::Add,
            CumulativeOp::Prod => BinaryOp::Mul,
            CumulativeOp::Max => BinaryOp::Max,
            CumulativeOp::Min => BinaryOp::Min,
        }
    }

    /// What nothing combines to.
    pub fn identity(self, dtype: DType) -> Literal {
        match self {
            CumulativeOp::Sum => Literal::zero(dtype),
            CumulativeOp::Prod => Literal::one(dtype),
            CumulativeOp::Max => Literal::lowest(dtype),
            CumulativeOp::Min => Literal::highest(dtype),
        }
    }
}

/// The windowed dims of an [`Op::Window`]: few operations have them, and every recorded one holds an [`Op`], so more than one
/// lie elsewhere.
pub type WindowDims = SmallVec<[WindowDim; 1]>;

/// One dim of a [`Op::Window`] or [`Op::WindowSum`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowDim {
    /// The dim that windows slide along.
    pub dim: usize,
    /// Elements of a window, at least 1.
    pub size: usize,
    /// The distance between neighbouring windows, at least 1.
    pub stride: usize,
    /// The distance between neighbouring elements of a window, at least 1.
    pub dilation: usize,
}

impl WindowDim {
    /// Elements from the first to the last of a window, both included.
    pub fn span(self) -> usize {
        self.size.saturating_sub(1).saturating_mul(self.dilation).saturating_add(1)
    }

    /// The number of windows in a dim of `extent` elements.
    pub fn count(self, extent: usize) -> usize {
        match extent.checked_sub(self.span()) {
            Some(room) => room / self.stride.max(1) + 1,
            None => 0,
        }
    }
}

/// The dims of a [`Op::Dot`]: a batched general contraction.
///
/// The result's dims are the batch dims in the order given, then the left operand's remaining dims, then the right's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct DotDims {
    /// Pairs (left, right) of dims that run together and stay.
    pub batch: DimVec<(usize, usize)>,
    /// Pairs (left, right) of dims that run together and are summed over.
    pub contract: DimVec<(usize, usize)>,
}

impl DotDims {
    /// The dims of one side that are neither batch nor contracted, in order; `right` picks the side.
    pub fn free(&self, right: bool, rank: usize) -> DimVec<usize> {
        let pick = |&(l, r): &(usize, usize)| if right { r } else { l };
        (0..rank).filter(|d| !self.batch.iter().chain(&self.contract).any(|p| pick(p) == *d)).collect()
    }
}

/// An operation of the Graph IR. Operands are edges of the graph; what is here is static.
///
/// Elementwise operations take operands of one shape: broadcasting is explicit, and so is every cast.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The graph's input number `index`.
    Input {
        /// Position among the graph's inputs.
        index: usize,
        /// Its type.
        ty: TensorType,
    },
    /// A tensor whose elements are all `value`. Dense data is always an input.
    Constant {
        /// The element.
        value: Literal,
        /// The shape.
        shape: Shape,
    },
    /// The index along `dim`, as `i64`.
    Iota {
        /// The dim counted along.
        dim: usize,
        /// The shape.
        shape: Shape,
    },
    /// Its operand, under another identity: what a transformation differentiates by.
    Alias,
    /// Its operand, as a constant to differentiation.
    Detach,
    /// Its operand on another device: a copy. A program runs on one device, where it is its operand.
    ToDevice {
        /// Where the operand lies.
        from: Device,
        /// Where the result lies.
        to: Device,
    },
    /// Uniform `f32` in `[0, 1)`: 24 bits of Philox 4x32-10 with key `base[0]` and counter (row-major element number,
    /// `base[1] + stream`). The operand is the generator's base, `i64[2]`: seed and number of draws so far.
    Random {
        /// The ordinal of the draw in its trace.
        stream: u64,
        /// The shape drawn.
        shape: Shape,
    },
    /// An elementwise operation of one operand.
    Unary(UnaryOp),
    /// An elementwise operation of two operands of one dtype.
    Binary(BinaryOp),
    /// An elementwise comparison; the result is `bool`.
    Compare(CompareOp),
    /// `operand 0 ? operand 1 : operand 2`, elementwise; operand 0 is `bool`.
    Select,
    /// Conversion to a dtype. Floats round to nearest (to a half through `f32`), integers wrap, anything to `bool` is `!= 0`;
    /// floats become integers as [`float_to_int`](crate::float_to_int) says.
    Cast(DType),
    /// Dim `i` of the result is dim `perm[i]` of the operand.
    Permute(DimVec<usize>),
    /// The same elements in row-major order under another shape.
    Reshape(Shape),
    /// Dim `i` of the operand is dim `dims[i]` (strictly increasing) of the result, of the same extent or stretched from 1;
    /// the result's other dims are new.
    Broadcast {
        /// The result's shape.
        shape: Shape,
        /// Where each dim of the operand goes.
        dims: DimVec<usize>,
    },
    /// A strided range of every dim.
    Slice(DimVec<SliceDim>),
    /// Elements added around and between those of operand 0; operand 1 is the scalar they hold.
    Pad(DimVec<PadDim>),
    /// The elements in reverse order along each of `dims` (sorted).
    Flip(DimVec<usize>),
    /// Operands one after the other along `dim`; all other dims are the same.
    Concat {
        /// The dim that grows.
        dim: usize,
        /// The number of operands.
        count: usize,
    },
    /// Windows that slide along dims (sorted): each such dim becomes the number of windows, and the sizes of windows are new last
    /// dims, in order.
    Window(WindowDims),
    /// The transpose of a [`Op::Window`] of a tensor of this shape: each element is the sum of its places in all windows.
    WindowSum {
        /// The windows.
        dims: WindowDims,
        /// The result's shape.
        shape: Shape,
    },
    /// A range of every dim of operand 0 that starts at run-time indices: operand `1 + i`, a 0-d `i64`, for dim `i`, clamped so
    /// that the range lies inside.
    DynamicSlice(DimVec<usize>),
    /// Operand 0 with a range of every dim replaced by operand 1; operand `2 + i` is the start along dim `i`, clamped likewise.
    DynamicUpdateSlice {
        /// The number of dims.
        rank: usize,
    },
    /// An `i64` index that must lie in `0..extent`, or with `wrap` in `-extent..extent`, where negative ones count from the end:
    /// elements that do not are an error, and clamped.
    /// A compiled program checks what its outputs need: an index into what is nowhere read is not looked at.
    CheckIndex {
        /// What indices stay below.
        extent: usize,
        /// Whether negative indices count from the end.
        wrap: bool,
        /// What the user called, for errors.
        operation: &'static str,
    },
    /// `result[i, j, k] = operand 0[i, operand 1[i, j, k], k]` for `dim` 1: operand 1 is an `i64` index of the result's shape, which
    /// is that of operand 0 but for `dim`. Indices are clamped.
    Gather {
        /// The dim indexed.
        dim: usize,
    },
    /// Operand 0, where `[i, operand 1[i, j, k], k]` is combined with operand 2 at `[i, j, k]`, in order of `j`, for `dim` 1:
    /// operands 1 and 2 have the shape of operand 0 but for `dim`. Indices are clamped.
    Scatter {
        /// The dim indexed.
        dim: usize,
        /// The combination.
        op: ScatterOp,
    },
    /// For each element the combination of those up to it along `dim`, itself included.
    Cumulative {
        /// The combination.
        op: CumulativeOp,
        /// The dim.
        dim: usize,
        /// From the last element to the first.
        reverse: bool,
    },
    /// The indices, `i64`, that sort each line along `dim`; equal elements keep their order, and NaN is the largest.
    Sort {
        /// The dim.
        dim: usize,
        /// Largest first.
        descending: bool,
    },
    /// A reduction over `dims` (sorted); the result lacks them.
    Reduce {
        /// The combination.
        op: ReduceOp,
        /// The dims reduced.
        dims: DimVec<usize>,
        /// The dtype of the accumulator, and of the result except for `argmax`.
        acc: DType,
    },
    /// A batched general contraction of two operands of one dtype: that of the accumulator, or `bf16` where that is `f32`. (Subnormal
    /// operands and sums of `bf16` may count as zeros.)
    Dot {
        /// Which dims meet.
        dims: DotDims,
        /// The dtype of the accumulator and the result.
        acc: DType,
    },
}

impl Op {
    /// The name in text. It tells the variant, and for elementwise operations and reductions which one.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Constant { .. } => "constant",
            Op::Iota { .. } => "iota",
            Op::Alias => "alias",
            Op::Detach => "detach",
            Op::ToDevice { .. } => "to_device",
            Op::Random { .. } => "random",
            Op::Unary(op) => op.name(),
            Op::Binary(op) => op.name(),
            Op::Compare(op) => op.name(),
            Op::Select => "select",
            Op::Cast(_) => "cast",
            Op::Permute(_) => "permute",
            Op::Reshape(_) => "reshape",
            Op::Broadcast { .. } => "broadcast",
            Op::Slice(_) => "slice",
            Op::Pad(_) => "pad",
            Op::Reduce { op, .. } => match op {
                ReduceOp::Sum => "reduce_sum",
                ReduceOp::Prod => "reduce_prod",
                ReduceOp::Max => "reduce_max",
                ReduceOp::Min => "reduce_min",
                ReduceOp::ArgMax => "reduce_argmax",
                ReduceOp::ArgMin => "reduce_argmin",
                ReduceOp::Amax => "reduce_amax",
                ReduceOp::Amin => "reduce_amin",
            },
            Op::Dot { .. } => "dot",
            Op::Flip(_) => "flip",
            Op::Concat { .. } => "concat",
            Op::Window(_) => "window",
            Op::WindowSum { .. } => "window_sum",
            Op::DynamicSlice(_) => "dynamic_slice",
            Op::DynamicUpdateSlice { .. } => "dynamic_update_slice",
            Op::CheckIndex { .. } => "check_index",
            Op::Gather { .. } => "gather",
            Op::Scatter { op, .. } => match op {
                ScatterOp::Set => "scatter_set",
                ScatterOp::Add => "scatter_add",
                ScatterOp::Mul => "scatter_mul",
                ScatterOp::Max => "scatter_max",
                ScatterOp::Min => "scatter_min",
            },
            Op::Cumulative { op, .. } => match op {
                CumulativeOp::Sum => "cumulative_sum",
                CumulativeOp::Prod => "cumulative_prod",
                CumulativeOp::Max => "cumulative_max",
                CumulativeOp::Min => "cumulative_min",
            },
            Op::Sort { .. } => "sort",
        }
    }

    /// What the user called, where the operation knows it, else its name.
    pub fn operation(&self) -> &'static str {
        match self {
            Op::CheckIndex { operation, .. } => operation,
            Op::Binary(BinaryOp::FloorDiv) => "floor_divide",
            Op::Binary(BinaryOp::TruncDiv) => "trunc_divide",
            op => op.name(),
        }
    }

    /// The number of operands.
    pub fn arity(&self) -> usize {
        match self {
            Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } => 0,
            Op::Alias
            | Op::Detach
            | Op::ToDevice { .. }
            | Op::Random { .. }
            | Op::Unary(_)
            | Op::Cast(_)
            | Op::Permute(_)
            | Op::Reshape(_)
            | Op::Broadcast { .. }
            | Op::Slice(_)
            | Op::Flip(_)
            | Op::Window(_)
            | Op::WindowSum { .. }
            | Op::CheckIndex { .. }
            | Op::Cumulative { .. }
            | Op::Sort { .. }
            | Op::Reduce { .. } => 1,
            Op::Binary(_) | Op::Compare(_) | Op::Pad(_) | Op::Dot { .. } | Op::Gather { .. } => 2,
            Op::Select | Op::Scatter { .. } => 3,
            Op::Concat { count, .. } => *count,
            Op::DynamicSlice(sizes) => 1 + sizes.len(),
            Op::DynamicUpdateSlice { rank } => 2 + rank,
        }
    }

    /// Floating point operations for an element of the result (for reductions and contractions: for an element combined).
    pub fn flops(&self) -> u32 {
        match self {
            Op::Input { .. } | Op::Constant { .. } | Op::Alias | Op::Detach | Op::ToDevice { .. } => 0,
            Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) => 0,
            Op::Flip(_) | Op::Window(_) | Op::DynamicSlice(_) => 0,
            Op::WindowSum { dims, .. } => dims.iter().map(|w| w.size.div_ceil(w.stride.max(1)) as u32).product(),
            Op::Concat { count, .. } => *count as u32,
            Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::DynamicUpdateSlice { .. } => 2,
            Op::CheckIndex { .. } => 4,
            Op::Sort { .. } => 20,
            Op::Iota { .. } | Op::Compare(_) | Op::Select | Op::Cast(_) | Op::Pad(_) | Op::Reduce { .. } => 1,
            Op::Random { .. } => 60,
            Op::Unary(op) => op.row().flops,
            Op::Binary(op) => op.flops(),
            Op::Dot { .. } => 2,
        }
    }
}
