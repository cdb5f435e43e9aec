//! Reductions and contractions of random programs.

use crate::program::{Bounded, Maker};
use lazuli_ir::{DType, DimVec, DotDims, Op, ReduceOp, Shape, TensorType, Value};

impl Maker {
    /// A reduction; also gives the dims that it keeps.
    pub(crate) fn reduce(&mut self, op: ReduceOp, x: Value, limit: f64) -> Option<(Value, f64, DimVec<usize>)> {
        let rank = self.ty(x).shape.rank();
        let dims: DimVec<usize> = (0..rank).filter(|_| self.random.one_in(2)).collect();
        self.reduce_over(op, x, limit, dims)
    }

    fn reduce_over(
        &mut self,
        op: ReduceOp,
        x: Value,
        limit: f64,
        dims: DimVec<usize>,
    ) -> Option<(Value, f64, DimVec<usize>)> {
        let ty = self.ty(x);
        let kept = (0..ty.shape.rank()).filter(|d| !dims.contains(d)).collect();
        let count: usize = dims.iter().map(|&d| ty.shape.extents()[d]).product();
        let (x, limit) = match op {
            ReduceOp::Prod => self.factor(x, limit, count as f64)?,
            _ => (x, limit),
        };
        let limit = match op {
            ReduceOp::Sum => limit * count as f64,
            ReduceOp::Prod => limit.max(1.0).powf(count as f64),
            ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin => limit,
            ReduceOp::ArgMax | ReduceOp::ArgMin => count as f64,
        };
        let (v, limit) = self.add(Op::Reduce { op, dims, acc: ty.dtype }, &[x], limit)?;
        Some((v, limit, kept))
    }

    /// A contraction with another value that is there, over dims that happen to have the same extents.
    pub(crate) fn dot(&mut self, a: Value, la: f64) -> Option<Bounded> {
        let acc = self.ty(a).dtype;
        let same: Vec<Bounded> = self.pool.iter().filter(|(v, _)| self.graph.ty(*v).dtype == acc).copied().collect();
        let (b, lb) = self.random.pick(&same)?;
        let (left, right) = (self.ty(a).shape.extents(), self.ty(b).shape.extents());
        let (mut dims, mut count) = (DotDims::default(), 1);
        for (i, m) in left.iter().enumerate() {
            let used = |j: usize, dims: &DotDims| dims.batch.iter().chain(&dims.contract).any(|p| p.1 == j);
            let partner = right.iter().enumerate().find(|(j, n)| *n == m && !used(*j, &dims)).map(|(j, _)| j);
            match (partner, self.random.below(4)) {
                (Some(j), 0) => dims.batch.push((i, j)),
                (Some(j), 1 | 2) => {
                    dims.contract.push((i, j));
                    count *= m;
                }
                _ => {}
            }
        }
        self.add(Op::Dot { dims, acc }, &[a, b], la * lb * count as f64)
    }

    /// A contraction with a right side made for it: over one dim or two, some others as batch, rows in any order.
    pub(crate) fn product(&mut self, a: Value, la: f64) -> Option<Bounded> {
        let TensorType { shape, dtype } = self.ty(a);
        let left = shape.extents();
        let mut contracted: DimVec<usize> = (0..left.len()).collect();
        self.random.shuffle(&mut contracted);
        contracted.truncate(if self.random.one_in(4) { 2 } else { 1 });
        let count: usize = contracted.iter().map(|&d| left[d]).product();
        let mut right: Vec<(usize, Option<usize>)> = contracted.iter().map(|&d| (left[d], Some(d))).collect();
        let others = (0..left.len()).filter(|d| !contracted.contains(d) && self.random.one_in(3));
        right.extend(others.map(|d| (left[d], Some(d))));
        for _ in 0..self.random.pick(&[0, 1, 1, 1, 2]).unwrap_or(1) {
            right.push((self.extent(), None));
        }
        self.random.shuffle(&mut right);
        let ty = TensorType::new(Shape::new(right.iter().map(|p| p.0)), dtype);
        if ty.shape.elements() > self.options.elements {
            return None;
        }
        let (b, lb) = self.like(&ty)?;
        let mut dims = DotDims::default();
        for (r, l) in right.iter().enumerate().filter_map(|(r, p)| p.1.map(|l| (r, l))) {
            if contracted.contains(&l) { dims.contract.push((l, r)) } else { dims.batch.push((l, r)) }
        }
        self.contracted(dims, (a, la), (b, lb), count)
    }

    /// A contraction of `count` products; that of `f32` sometimes of what was a half, which is how halves are contracted.
    pub(crate) fn contracted(&mut self, dims: DotDims, a: Bounded, b: Bounded, count: usize) -> Option<Bounded> {
        let acc = self.ty(a.0).dtype;
        let mut operands = [a, b];
        if acc == DType::F32 && self.random.one_in(3) {
            let half = self.random.pick(&[DType::BF16, DType::BF16, DType::F16])?;
            for x in &mut operands {
                let (narrow, limit) = self.cast(x.0, x.1, half)?;
                *x = self.cast(narrow, limit, acc)?;
            }
        }
        let [(a, la), (b, lb)] = operands;
        self.add(Op::Dot { dims, acc }, &[a, b], la * lb * count as f64)
    }
}
