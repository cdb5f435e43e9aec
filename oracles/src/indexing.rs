//! Operators of random programs that index by data, accumulate or sort. Indices are made as users make them: drawn in range,
//! wrapped by a remainder, clamped, counted; each is checked before it is used.

use crate::program::{Bounded, Fault, Maker};
use lazuli_ir::{BinaryOp, CumulativeOp, DType, Literal, Op, ScatterOp, Shape, TensorType, UnaryOp, Value};

/// An index into more elements than this is clamped before it is checked.
const CHECKED: f64 = 4096.0;

fn checked(extent: usize, wrap: bool) -> Op {
    Op::CheckIndex { extent, wrap, operation: "gather" }
}

impl Maker {
    /// An index of this shape into `extent` elements, of which there is at least one.
    pub(crate) fn index(&mut self, shape: &Shape, extent: usize) -> Option<Value> {
        let ty = TensorType::new(shape.clone(), DType::I64);
        let n = extent as i64;
        let kind = self.random.below(5);
        if kind < 2 && self.may_add_input() {
            let wrap = self.random.one_in(2);
            let low = if wrap { -n } else { 0 };
            let one = |_| Literal::I64(low + self.random.below((n - low) as usize) as i64);
            let values = crate::data::of_literals(&ty, (0..shape.elements()).map(one).collect());
            for value in [n, low - 1, i64::MAX, i64::MIN] {
                self.faults.push(Fault { input: self.inputs.len(), value: Literal::I64(value) });
            }
            let (x, limit) = self.input_of(values, n as f64);
            return self.add(checked(extent, wrap), &[x], limit).map(|(v, _)| v);
        }
        if kind == 2 {
            let dim = self.random.below(shape.rank());
            let counts = *shape.extents().get(dim)? as f64;
            let (counted, _) = self.add(Op::Iota { dim, shape: shape.clone() }, &[], counts)?;
            let many = self.splat(Literal::I64(n), shape)?;
            return self.add(Op::Binary(BinaryOp::Remainder), &[counted, many], n as f64).map(|(v, _)| v);
        }
        let (x, _) = self.like(&ty)?;
        if kind == 3 {
            return self.clamped(x, extent).map(|(v, _)| v);
        }
        let many = self.splat(Literal::I64(n), shape)?;
        let (x, limit) = self.add(Op::Binary(BinaryOp::Remainder), &[x, many], n as f64)?;
        self.add(checked(extent, false), &[x], limit).map(|(v, _)| v)
    }

    /// A value clamped to what indexes `extent` elements from either end, and checked.
    fn clamped(&mut self, x: Value, extent: usize) -> Option<Bounded> {
        let (n, shape) = (extent as i64, self.ty(x).shape);
        let (low, high) = (self.splat(Literal::I64(-n), &shape)?, self.splat(Literal::I64(n - 1), &shape)?);
        let (x, _) = self.add(Op::Binary(BinaryOp::Max), &[x, low], f64::INFINITY)?;
        let (x, _) = self.add(Op::Binary(BinaryOp::Min), &[x, high], n as f64)?;
        self.add(checked(extent, true), &[x], n as f64)
    }

    pub(crate) fn check_index(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        if limit > CHECKED {
            let extent = 1 + self.random.below(16);
            return self.clamped(x, extent);
        }
        self.add(checked(limit as usize + 1, true), &[x], limit + 1.0)
    }

    /// A dim, and an index along it into a value.
    fn along(&mut self, x: Value) -> Option<(usize, Value)> {
        let mut extents = self.ty(x).shape.extents();
        let dim = self.random.below(extents.len());
        let n = *extents.get(dim)?;
        extents[dim] = match self.random.below(4) {
            _ if n == 0 => 0,
            0 => n,
            1 => self.extent(),
            _ => 1 + self.random.below(2 * n + 2),
        };
        let shape = Shape::new(extents);
        if shape.elements() > self.options.elements {
            return None;
        }
        let index = self.index(&shape, n.max(1))?;
        Some((dim, index))
    }

    pub(crate) fn gather(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let (dim, index) = self.along(x)?;
        self.add(Op::Gather { dim }, &[x, index], limit)
    }

    pub(crate) fn scatter(&mut self, op: ScatterOp, x: Value, limit: f64) -> Option<Bounded> {
        let (dim, index) = self.along(x)?;
        let ty = TensorType { shape: self.ty(index).shape, dtype: self.ty(x).dtype };
        let count = ty.shape.extents()[dim] as f64;
        let (updates, other) = self.like(&ty)?;
        let scatter = Op::Scatter { dim, op };
        match op {
            ScatterOp::Set | ScatterOp::Max | ScatterOp::Min => {
                self.add(scatter, &[x, index, updates], limit.max(other))
            }
            ScatterOp::Add => self.add(scatter, &[x, index, updates], limit + count * other),
            ScatterOp::Mul => {
                let (updates, other) = self.factor(updates, other, count)?;
                self.add(scatter, &[x, index, updates], limit * other.max(1.0).powf(count))
            }
        }
    }

    /// Where a product of so many would not be exact: the signs.
    pub(crate) fn factor(&mut self, x: Value, limit: f64, count: f64) -> Option<Bounded> {
        let large = limit.powf(count) > crate::program::exact_up_to(self.ty(x).dtype);
        if self.exact() && large { self.add(Op::Unary(UnaryOp::Sign), &[x], 1.0) } else { Some((x, limit)) }
    }

    pub(crate) fn cumulative(&mut self, op: CumulativeOp, x: Value, limit: f64) -> Option<Bounded> {
        let extents = self.ty(x).shape.extents();
        let dim = self.random.below(extents.len());
        let count = *extents.get(dim)? as f64;
        let cumulative = Op::Cumulative { op, dim, reverse: self.random.one_in(2) };
        match op {
            CumulativeOp::Max | CumulativeOp::Min => self.add(cumulative, &[x], limit),
            CumulativeOp::Sum => self.add(cumulative, &[x], limit * count.max(1.0)),
            CumulativeOp::Prod => {
                let (x, limit) = self.factor(x, limit, count)?;
                self.add(cumulative, &[x], limit.max(1.0).powf(count.max(1.0)))
            }
        }
    }

    /// The order of elements, and often the elements in this order.
    pub(crate) fn sort(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let extents = self.ty(x).shape.extents();
        let dim = self.random.below(extents.len());
        let count = *extents.get(dim)? as f64;
        let sort = Op::Sort { dim, descending: self.random.one_in(2) };
        let (order, bound) = self.add(sort, &[x], count)?;
        if self.random.one_in(2) { self.add(Op::Gather { dim }, &[x, order], limit) } else { Some((order, bound)) }
    }
}
