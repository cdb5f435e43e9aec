//! Patterns of operations that compilers treat specially: reductions spread back over their operand, layers with activation.

use crate::program::{Bounded, Maker};
use lazuli_ir::{BinaryOp, CompareOp, DType, DimVec, DotDims, Literal, Op, ReduceOp, TensorType, UnaryOp, Value};

impl Maker {
    /// As in softmax and normalisation: a reduction, spread over its operand again, and combined with it.
    pub(crate) fn spread_back(&mut self) -> Option<Bounded> {
        let (r, limit, kept) = self.reduce()?;
        let x = *self.graph.operands(r.node).first()?;
        let ty = self.ty(x);
        let (b, _) = self.add(Op::Broadcast { shape: ty.shape, dims: kept }, &[r], limit)?;
        let (b, _) = self.add(Op::Cast(ty.dtype), &[b], limit)?;
        let (_, x_limit) = *self.pool.iter().find(|(v, _)| *v == x)?;
        let op = if self.random.one_in(2) { BinaryOp::Sub } else { BinaryOp::Max };
        self.add(Op::Binary(op), &[x, b], limit + x_limit)
    }

    fn reduced_over(&mut self, op: ReduceOp, x: Value, dims: &DimVec<usize>, limit: f64) -> Option<Value> {
        let ty = self.ty(x);
        let kept = (0..ty.shape.rank()).filter(|d| !dims.contains(d)).collect();
        let (r, _) = self.add(Op::Reduce { op, dims: dims.clone(), acc: ty.dtype }, &[x], limit)?;
        self.add(Op::Broadcast { shape: ty.shape, dims: kept }, &[r], limit).map(|(v, _)| v)
    }

    /// A softmax over some dims, or the logarithm of one, or a normalisation to unit length.
    pub(crate) fn normalised(&mut self) -> Option<Bounded> {
        if self.exact() {
            return self.spread_back();
        }
        let (x, limit) = self.float()?;
        let rank = self.ty(x).shape.rank();
        let last = self.random.one_in(2);
        let dims: DimVec<usize> =
            (0..rank).filter(|d| if last { d + 1 == rank } else { self.random.one_in(2) }).collect();
        let unary = |op| Op::Unary(op);
        let binary = |op| Op::Binary(op);
        if self.random.one_in(3) {
            let (squares, _) = self.add(binary(BinaryOp::Mul), &[x, x], limit)?;
            let sum = self.reduced_over(ReduceOp::Sum, squares, &dims, limit)?;
            let (scale, _) = self.add(unary(UnaryOp::Rsqrt), &[sum], limit)?;
            return self.add(binary(BinaryOp::Mul), &[x, scale], limit);
        }
        let max = self.reduced_over(ReduceOp::Max, x, &dims, limit)?;
        let (shifted, _) = self.add(binary(BinaryOp::Sub), &[x, max], limit)?;
        let (e, _) = self.add(unary(UnaryOp::Exp), &[shifted], 1.0)?;
        let sum = self.reduced_over(ReduceOp::Sum, e, &dims, limit)?;
        if self.random.one_in(2) {
            return self.add(binary(BinaryOp::Div), &[e, sum], 1.0);
        }
        let (log, _) = self.add(unary(UnaryOp::Log), &[sum], limit)?;
        self.add(binary(BinaryOp::Sub), &[shifted, log], limit)
    }

    /// `relu(x w + bias)`, or without the bias.
    pub(crate) fn linear(&mut self) -> Option<Bounded> {
        let (x, lx) = self.any();
        let ty = self.ty(x);
        let columns = self.extent();
        let rank = ty.shape.rank();
        let k = *ty.shape.extents().last()?;
        let (w, lw) = self.like(&TensorType::new([k, columns], ty.dtype))?;
        let mut dims = DotDims::default();
        dims.contract.push((rank - 1, 0));
        let (mut y, mut limit) = self.add(Op::Dot { dims, acc: ty.dtype }, &[x, w], lx * lw * k as f64)?;
        let out = self.ty(y);
        if self.random.one_in(2) {
            let (bias, lb) = self.like(&TensorType::new([columns], ty.dtype))?;
            let spread = Op::Broadcast { shape: out.shape.clone(), dims: [rank - 1].into_iter().collect() };
            let (bias, _) = self.add(spread, &[bias], lb)?;
            (y, limit) = self.add(Op::Binary(BinaryOp::Add), &[y, bias], limit + lb)?;
        }
        let (zero, _) = self.add(Op::Constant { value: Literal::zero(ty.dtype), shape: out.shape }, &[], 0.0)?;
        let (below, _) = self.add(Op::Compare(CompareOp::Le), &[y, zero], 1.0)?;
        debug_assert_eq!(self.graph.ty(below).dtype, DType::Bool);
        self.add(Op::Select, &[below, zero, y], limit)
    }
}
