//! Reducers: how a reduction of the Kernel IR combines elements, declared once for lanes, accumulators, partials and warps.

use crate::kernel::{Const, Emit, MachineOp, ScalarType, ValueId};
use crate::{CompareOp, Literal, ReduceOp};
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
            ReduceOp::Sum | ReduceOp::Max => smallvec::smallvec![self.ty],
            ReduceOp::ArgMax => smallvec::smallvec![self.ty, ScalarType::I64],
        }
    }

    /// The accumulators of nothing.
    pub fn identity(self) -> SmallVec<[Const; 2]> {
        let least = match self.ty {
            ScalarType::Bool => Const::Literal(Literal::Bool(false)),
            ScalarType::I32 => Const::I32(i32::MIN),
            ScalarType::I64 => Const::Literal(Literal::I64(i64::MIN)),
            ScalarType::F32 => Const::Literal(Literal::F32(f32::NEG_INFINITY)),
        };
        let zero = match self.ty {
            ScalarType::Bool => Const::Literal(Literal::Bool(false)),
            ScalarType::I32 => Const::I32(0),
            ScalarType::I64 => Const::Literal(Literal::I64(0)),
            ScalarType::F32 => Const::Literal(Literal::F32(0.0)),
        };
        match self.op {
            ReduceOp::Sum => smallvec::smallvec![zero],
            ReduceOp::Max => smallvec::smallvec![least],
            ReduceOp::ArgMax => smallvec::smallvec![least, Const::Literal(Literal::I64(i64::MAX))],
        }
    }

    /// Combines two accumulators (or an accumulator and an element: both are the same code). Associative, and for all but
    /// floating point sums exactly so; commutative.
    pub fn combine(self, e: &mut dyn Emit, a: &[ValueId], b: &[ValueId]) -> SmallVec<[ValueId; 2]> {
        match self.op {
            ReduceOp::Sum => smallvec::smallvec![e.add(a[0], b[0])],
            ReduceOp::Max => smallvec::smallvec![e.max(a[0], b[0])],
            ReduceOp::ArgMax => {
                // NaN is the largest; of equals the first position wins.
                let greater = e.compare(CompareOp::Gt, b[0], a[0]);
                let equal = e.eq(a[0], b[0]);
                let (a_nan, b_nan) = (e.compare(CompareOp::Ne, a[0], a[0]), e.compare(CompareOp::Ne, b[0], b[0]));
                let both_nan = e.machine(MachineOp::And, &[a_nan, b_nan]);
                let tie = e.machine(MachineOp::Or, &[equal, both_nan]);
                let earlier = e.lt(b[1], a[1]);
                let wins_tie = e.machine(MachineOp::And, &[tie, earlier]);
                let truth = e.constant(Const::Literal(Literal::Bool(true)));
                let a_number = e.machine(MachineOp::Xor, &[a_nan, truth]);
                let only_b_nan = e.machine(MachineOp::And, &[b_nan, a_number]);
                let takes = e.machine(MachineOp::Or, &[greater, wins_tie]);
                let takes = e.machine(MachineOp::Or, &[takes, only_b_nan]);
                smallvec::smallvec![e.select(takes, b[0], a[0]), e.select(takes, b[1], a[1])]
            }
        }
    }
}
