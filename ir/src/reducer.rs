//! Reducers: how a reduction of the Kernel IR combines elements, declared once for lanes, accumulators, partials and warps.

use crate::kernel::{Emit, ScalarType, ValueId};
use crate::{BinaryOp, CompareOp, Literal, ReduceOp};
use smallvec::SmallVec;

/// How a reduce combines: a declared (identity, step, combine) over a tuple of accumulators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reducer {
    /// The combination.
    pub op: ReduceOp,
    /// The type of the elements.
    pub ty: ScalarType,
}

impl Reducer {
    /// The types of the accumulators, which are also those of what a body yields: the value, and for `argmax` its position.
    pub fn types(self) -> SmallVec<[ScalarType; 2]> {
        match self.op {
            ReduceOp::Sum | ReduceOp::Prod => smallvec::smallvec![self.ty],
            ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin => smallvec::smallvec![self.ty],
            ReduceOp::ArgMax | ReduceOp::ArgMin => smallvec::smallvec![self.ty, ScalarType::I64],
        }
    }

    /// The accumulators of nothing.
    pub fn identity(self) -> SmallVec<[Literal; 2]> {
        let dtype = self.ty.dtype();
        match self.op {
            ReduceOp::Sum => smallvec::smallvec![Literal::zero(dtype)],
            ReduceOp::Prod => smallvec::smallvec![Literal::one(dtype)],
            ReduceOp::Max | ReduceOp::Amax => smallvec::smallvec![Literal::lowest(dtype)],
            ReduceOp::Min | ReduceOp::Amin => smallvec::smallvec![Literal::highest(dtype)],
            ReduceOp::ArgMax => smallvec::smallvec![Literal::lowest(dtype), Literal::I64(i64::MAX)],
            ReduceOp::ArgMin => smallvec::smallvec![Literal::highest(dtype), Literal::I64(i64::MAX)],
        }
    }

    /// Combines two accumulators (or an accumulator and an element: both are the same code). Associative, and for all but
    /// floating point sums and products exactly so; commutative.
    pub fn combine(self, e: &mut dyn Emit, a: &[ValueId], b: &[ValueId]) -> SmallVec<[ValueId; 2]> {
        match self.op {
            ReduceOp::Sum => smallvec::smallvec![e.add(a[0], b[0])],
            ReduceOp::Prod => smallvec::smallvec![e.mul(a[0], b[0])],
            ReduceOp::Max | ReduceOp::Amax => smallvec::smallvec![e.max(a[0], b[0])],
            ReduceOp::Min | ReduceOp::Amin => smallvec::smallvec![e.binary(BinaryOp::Min, a[0], b[0])],
            ReduceOp::ArgMax => extremum(e, CompareOp::Gt, a, b),
            ReduceOp::ArgMin => extremum(e, CompareOp::Lt, a, b),
        }
    }

    /// Combines the accumulators of some elements with those of an element whose position comes later: the same result as
    /// `combine`, for positions with less code.
    pub fn step(self, e: &mut dyn Emit, a: &[ValueId], b: &[ValueId]) -> SmallVec<[ValueId; 2]> {
        let beaten = match self.op {
            ReduceOp::ArgMax => CompareOp::Le,
            ReduceOp::ArgMin => CompareOp::Ge,
            _ => return self.combine(e, a, b),
        };
        // A comparison with NaN does not hold, so `b` is not beaten where it is NaN, nor where `a` is.
        let (stays, number) = (e.compare(beaten, b[0], a[0]), e.eq(a[0], a[0]));
        let truth = e.constant(Literal::Bool(true));
        let wins = e.binary(BinaryOp::Xor, stays, truth);
        let takes = e.binary(BinaryOp::And, wins, number);
        smallvec::smallvec![e.select(takes, b[0], a[0]), e.select(takes, b[1], a[1])]
    }
}

/// The pair (value, position) that wins: NaN beats every number, of equals the first position wins.
fn extremum(e: &mut dyn Emit, beats: CompareOp, a: &[ValueId], b: &[ValueId]) -> SmallVec<[ValueId; 2]> {
    let better = e.compare(beats, b[0], a[0]);
    let equal = e.eq(a[0], b[0]);
    let (a_nan, b_nan) = (e.compare(CompareOp::Ne, a[0], a[0]), e.compare(CompareOp::Ne, b[0], b[0]));
    let both_nan = e.binary(BinaryOp::And, a_nan, b_nan);
    let tie = e.binary(BinaryOp::Or, equal, both_nan);
    let earlier = e.lt(b[1], a[1]);
    let wins_tie = e.binary(BinaryOp::And, tie, earlier);
    let truth = e.constant(Literal::Bool(true));
    let a_number = e.binary(BinaryOp::Xor, a_nan, truth);
    let only_b_nan = e.binary(BinaryOp::And, b_nan, a_number);
    let takes = e.binary(BinaryOp::Or, better, wins_tie);
    let takes = e.binary(BinaryOp::Or, takes, only_b_nan);
    smallvec::smallvec![e.select(takes, b[0], a[0]), e.select(takes, b[1], a[1])]
}
