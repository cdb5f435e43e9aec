//! The operations of the Graph IR: one closed enum, so that every analysis is an exhaustive match.

use crate::{BinaryOp, CompareOp, DType, DimVec, Literal, Shape, TensorType, UnaryOp};

/// How a [`Op::Reduce`] combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReduceOp {
    /// The sum; 0 of nothing.
    Sum,
    /// The largest element; NaN wins. The reduced dims must not be empty.
    Max,
    /// The row-major position, within the reduced dims, of the first largest element (or of the first NaN), as `i64`.
    /// The reduced dims must not be empty.
    ArgMax,
}

impl ReduceOp {
    /// Every reduction.
    pub const ALL: &'static [ReduceOp] = &[ReduceOp::Sum, ReduceOp::Max, ReduceOp::ArgMax];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Max => "max",
            ReduceOp::ArgMax => "argmax",
        }
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
    /// Conversion to a dtype: floats to integers truncate and saturate (NaN gives 0), anything to `bool` is `!= 0`.
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
    /// A reduction over `dims` (sorted); the result lacks them.
    Reduce {
        /// The combination.
        op: ReduceOp,
        /// The dims reduced.
        dims: DimVec<usize>,
        /// The dtype of the accumulator, and of the result except for `argmax`.
        acc: DType,
    },
    /// A batched general contraction of two operands of one dtype.
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
            Op::Reduce { op: ReduceOp::Sum, .. } => "reduce_sum",
            Op::Reduce { op: ReduceOp::Max, .. } => "reduce_max",
            Op::Reduce { op: ReduceOp::ArgMax, .. } => "reduce_argmax",
            Op::Dot { .. } => "dot",
        }
    }

    /// The number of operands.
    pub fn arity(&self) -> usize {
        match self {
            Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } => 0,
            Op::Alias
            | Op::Detach
            | Op::Random { .. }
            | Op::Unary(_)
            | Op::Cast(_)
            | Op::Permute(_)
            | Op::Reshape(_)
            | Op::Broadcast { .. }
            | Op::Slice(_)
            | Op::Reduce { .. } => 1,
            Op::Binary(_) | Op::Compare(_) | Op::Pad(_) | Op::Dot { .. } => 2,
            Op::Select => 3,
        }
    }

    /// Floating point operations for an element of the result (for reductions and contractions: for an element combined).
    pub fn flops(&self) -> u32 {
        match self {
            Op::Input { .. } | Op::Constant { .. } | Op::Alias | Op::Detach => 0,
            Op::Permute(_) | Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) => 0,
            Op::Iota { .. } | Op::Compare(_) | Op::Select | Op::Cast(_) | Op::Pad(_) | Op::Reduce { .. } => 1,
            Op::Random { .. } => 60,
            Op::Unary(op) => op.row().flops,
            Op::Binary(op) => op.flops(),
            Op::Dot { .. } => 2,
        }
    }
}
