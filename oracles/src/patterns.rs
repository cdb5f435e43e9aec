//! Patterns of operations that compilers treat specially: reductions spread back over their operand, layers with activation,
//! products of what a product's rows were made into, rows taken by an index, windows that are reduced, sums of halves in a wider dtype.

use crate::operator::Operator;
use crate::program::{Bounded, Maker};
use lazuli_ir::{
    BinaryOp, CompareOp, DType, DimVec, DotDims, Literal, Op, ReduceOp, ScatterOp, Shape, TensorType, UnaryOp, Value,
};

impl Maker {
    pub(crate) fn pattern(&mut self) -> Option<Bounded> {
        match self.random.below(8) {
            0 => self.spread_back(),
            1 => self.normalised(),
            2 => self.linear(),
            3 => self.rows_by_index(),
            4 => self.pooled(),
            5 => self.triangle(),
            6 => self.attended(),
            _ => self.sum_of_halves(),
        }
    }

    /// A reduction of a value that is there; also gives the dims that it keeps.
    fn any_reduced(&mut self) -> Option<(Value, f64, DimVec<usize>)> {
        let op = self.random.pick(ReduceOp::ALL)?;
        let (x, limit) = self.any_for(Operator::Reduce(op))?;
        self.reduce(op, x, limit)
    }

    /// As in softmax and normalisation: a reduction, spread over its operand again, and combined with it.
    fn spread_back(&mut self) -> Option<Bounded> {
        let (r, limit, kept) = self.any_reduced()?;
        let x = *self.graph.operands(r.node).first()?;
        let ty = self.ty(x);
        let (b, limit) = self.add(Op::Broadcast { shape: ty.shape, dims: kept }, &[r], limit)?;
        let (b, limit) = self.cast(b, limit, ty.dtype)?;
        let (_, other) = *self.pool.iter().find(|(v, _)| *v == x)?;
        let op = if ty.dtype == DType::Bool || self.random.one_in(2) { BinaryOp::Max } else { BinaryOp::Sub };
        let limit = if ty.dtype == DType::U8 { 255.0 } else { limit + other };
        self.add(Op::Binary(op), &[x, b], limit)
    }

    fn reduced_over(&mut self, op: ReduceOp, x: Value, dims: &DimVec<usize>, limit: f64) -> Option<Value> {
        let ty = self.ty(x);
        let kept = (0..ty.shape.rank()).filter(|d| !dims.contains(d)).collect();
        let (r, _) = self.add(Op::Reduce { op, dims: dims.clone(), acc: ty.dtype }, &[x], limit)?;
        self.add(Op::Broadcast { shape: ty.shape, dims: kept }, &[r], limit).map(|(v, _)| v)
    }

    /// A softmax over some dims, or the logarithm of one, or a normalisation to unit length.
    fn normalised(&mut self) -> Option<Bounded> {
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
        let max = self.reduced_over(ReduceOp::Amax, x, &dims, limit)?;
        let (shifted, _) = self.add(binary(BinaryOp::Sub), &[x, max], limit)?;
        if self.random.one_in(2) {
            return self.shares(shifted, &dims);
        }
        let (e, _) = self.add(unary(UnaryOp::Exp), &[shifted], 1.0)?;
        let sum = self.reduced_over(ReduceOp::Sum, e, &dims, limit)?;
        let (log, _) = self.add(unary(UnaryOp::Log), &[sum], limit)?;
        self.add(binary(BinaryOp::Sub), &[shifted, log], limit)
    }

    /// `relu(x w + bias)`, or without the bias.
    fn linear(&mut self) -> Option<Bounded> {
        let (x, lx) = self.any_for(Operator::Dot)?;
        let ty = self.ty(x);
        let columns = self.extent();
        let rank = ty.shape.rank();
        let k = *ty.shape.extents().last()?;
        let (w, lw) = self.like(&TensorType::new([k, columns], ty.dtype))?;
        let mut dims = DotDims::default();
        dims.contract.push((rank - 1, 0));
        let (mut y, mut limit) = self.contracted(dims, (x, lx), (w, lw), k)?;
        let out = self.ty(y);
        if self.random.one_in(2) {
            let (bias, lb) = self.like(&TensorType::new([columns], ty.dtype))?;
            let spread = Op::Broadcast { shape: out.shape.clone(), dims: [rank - 1].into_iter().collect() };
            let (bias, _) = self.add(spread, &[bias], lb)?;
            (y, limit) = self.add(Op::Binary(BinaryOp::Add), &[y, bias], limit + lb)?;
        }
        let zero = self.splat(Literal::zero(ty.dtype), &out.shape)?;
        let (below, _) = self.add(Op::Compare(CompareOp::Le), &[y, zero], 1.0)?;
        self.add(Op::Select, &[below, zero, y], limit)
    }

    /// As in attention: the rows of a product are scaled, masked and normalised, and multiplied with another matrix.
    fn attended(&mut self) -> Option<Bounded> {
        let (q, lq) = self.any_for(Operator::Dot)?;
        let ty = self.ty(q);
        let extents = ty.shape.extents();
        let batch = extents.len().checked_sub(2)?;
        let (keys, columns) = (self.extent(), self.extent());
        let with =
            |tail: [usize; 2]| TensorType::new(Shape::new(extents[..batch].iter().copied().chain(tail)), ty.dtype);
        let (k, lk) = self.like(&with([keys, extents[batch + 1]]))?;
        let (v, lv) = self.like(&with([keys, columns]))?;
        let mut dims = DotDims { batch: (0..batch).map(|d| (d, d)).collect(), ..DotDims::default() };
        dims.contract.push((batch + 1, batch + 1));
        let (mut scores, mut limit) = self.contracted(dims.clone(), (q, lq), (k, lk), extents[batch + 1])?;
        for _ in 0..self.random.below(3) {
            let (more, lm) = match self.random.one_in(2) {
                true => self.like(&self.ty(scores))?,
                false => self.triangle_of(scores, limit)?,
            };
            let op = Op::Binary(if ty.dtype == DType::Bool { BinaryOp::Max } else { BinaryOp::Add });
            (scores, limit) = self.add(op, &[scores, more], limit + lm)?;
        }
        let over = [batch + 1].into_iter().collect();
        let weights = match self.random.below(4) {
            // The division stands after the product. (In `f64`, bounds do not see how a ratio of two sums of the same terms moves.)
            0 if !self.exact() && ty.dtype == DType::F32 => {
                let (e, le) = self.add(Op::Unary(UnaryOp::Exp), &[scores], limit)?;
                dims.contract[0] = (batch + 1, batch);
                let (y, ly) = self.add(Op::Dot { dims, acc: ty.dtype }, &[e, v], le * lv * keys as f64)?;
                let (sum, ls) = self.add(Op::Reduce { op: ReduceOp::Sum, dims: over, acc: ty.dtype }, &[e], le)?;
                let spread = Op::Broadcast { shape: self.ty(y).shape, dims: (0..=batch).collect() };
                let (sum, _) = self.add(spread, &[sum], ls)?;
                return self.add(Op::Binary(BinaryOp::Div), &[y, sum], ly);
            }
            1 => (scores, limit),
            _ => {
                let max = self.reduced_over(ReduceOp::Amax, scores, &over, limit)?;
                let (shifted, limit) = self.add(Op::Binary(BinaryOp::Sub), &[scores, max], 2.0 * limit)?;
                match self.exact() || !ty.dtype.is_float() || ty.dtype.is_half() {
                    true => (shifted, limit),
                    false => self.shares(shifted, &over)?,
                }
            }
        };
        dims.contract[0] = (batch + 1, batch);
        self.contracted(dims, weights, (v, lv), keys)
    }

    /// The exponential of each element over the sum of those of its row.
    fn shares(&mut self, x: Value, dims: &DimVec<usize>) -> Option<Bounded> {
        let (e, limit) = self.add(Op::Unary(UnaryOp::Exp), &[x], 1.0)?;
        let sum = self.reduced_over(ReduceOp::Sum, e, dims, limit)?;
        self.add(Op::Binary(BinaryOp::Div), &[e, sum], 1.0)
    }

    /// An embedding or `index_select`: one index for a whole row or column; or the gradient of one.
    fn rows_by_index(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        let ty = self.ty(x);
        let mut extents = ty.shape.extents();
        let dim = self.random.below(extents.len());
        let n = *extents.get(dim)?;
        if n == 0 {
            return None;
        }
        let count = 1 + self.random.below(9);
        extents[dim] = count;
        let shape = Shape::new(extents);
        if shape.elements() > self.options.elements {
            return None;
        }
        let rows = self.index(&Shape::new([count]), n)?;
        let spread = Op::Broadcast { shape: shape.clone(), dims: [dim].into_iter().collect() };
        let (index, _) = self.add(spread, &[rows], n as f64)?;
        if ty.dtype == DType::Bool || ty.dtype.is_half() || self.random.one_in(2) {
            return self.add(Op::Gather { dim }, &[x, index], limit);
        }
        let (updates, other) = self.like(&TensorType { shape, dtype: ty.dtype })?;
        let zero = self.splat(Literal::zero(ty.dtype), &ty.shape)?;
        let scatter = Op::Scatter { dim, op: ScatterOp::Add };
        self.add(scatter, &[zero, index, updates], count as f64 * other)
    }

    /// A reduction over windows.
    fn pooled(&mut self) -> Option<Bounded> {
        let op = self.random.pick(&[ReduceOp::Sum, ReduceOp::Max, ReduceOp::Amin, ReduceOp::ArgMax])?;
        let (x, limit) = self.any_for(Operator::Reduce(op))?;
        let rank = self.ty(x).shape.rank();
        let (windows, limit) = self.window(x, limit)?;
        let ty = self.ty(windows);
        let dims: DimVec<usize> = (rank..ty.shape.rank()).collect();
        let count: usize = dims.iter().map(|&d| ty.shape.extents()[d]).product();
        let limit = if op == ReduceOp::Sum { limit * count as f64 } else { limit.max(count as f64) };
        self.add(Op::Reduce { op, dims, acc: ty.dtype }, &[windows], limit)
    }

    /// `tril` or `triu`: what lies on one side of a diagonal is replaced.
    fn triangle(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        self.triangle_of(x, limit)
    }

    fn triangle_of(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let ty = self.ty(x);
        let rank = ty.shape.rank();
        let (row, column) = (rank.checked_sub(2)?, rank - 1);
        let largest = self.options.elements as f64;
        let (i, _) = self.add(Op::Iota { dim: row, shape: ty.shape.clone() }, &[], largest)?;
        let (j, _) = self.add(Op::Iota { dim: column, shape: ty.shape.clone() }, &[], largest)?;
        let op = self.random.pick(CompareOp::ALL)?;
        let (mask, _) = self.add(Op::Compare(op), &[i, j], 1.0)?;
        let other = match self.random.one_in(2) && !self.exact() && ty.dtype.is_float() {
            true => Literal::from_f64(ty.dtype, f64::NEG_INFINITY),
            false => Literal::zero(ty.dtype),
        };
        let other = self.splat(other, &ty.shape)?;
        self.add(Op::Select, &[mask, x, other], limit)
    }

    /// A sum of a narrow dtype, accumulated in `f32`.
    fn sum_of_halves(&mut self) -> Option<Bounded> {
        let (x, limit) = self.any();
        let half = self.random.pick(&[DType::F16, DType::BF16])?;
        let (x, limit) = self.cast(x, limit, half)?;
        let (wide, limit) = self.cast(x, limit, DType::F32)?;
        let op = self.random.pick(&[ReduceOp::Sum, ReduceOp::Sum, ReduceOp::Prod])?;
        let (r, limit, _) = self.reduce(op, wide, limit)?;
        self.cast(r, limit, half)
    }
}
