//! Movement operators of random programs: permutations, ranges, windows, padding, joins.

use crate::operator::Operator;
use crate::program::{Bounded, Maker};
use lazuli_ir::{DType, DimVec, Op, PadDim, Shape, SliceDim, TensorType, Value, WindowDim, WindowDims};

impl Maker {
    pub(crate) fn movement(&mut self, operator: Operator, x: Value, limit: f64) -> Option<Bounded> {
        let shape = self.ty(x).shape;
        let op = match operator {
            Operator::Permute => {
                let mut perm: DimVec<usize> = (0..shape.rank()).collect();
                self.random.shuffle(&mut perm);
                Op::Permute(perm)
            }
            Operator::Reshape => Op::Reshape(self.regrouped(&shape)),
            Operator::Slice => Op::Slice(shape.extents().into_iter().map(|n| self.range(n)).collect()),
            Operator::Flip => Op::Flip((0..shape.rank()).filter(|_| self.random.one_in(2)).collect()),
            _ => self.stretched(&shape),
        };
        self.add(op, &[x], limit)
    }

    /// A range of a dim, not often a short one.
    fn range(&mut self, n: usize) -> SliceDim {
        if self.random.one_in(3) {
            return SliceDim { start: 0, stop: n, step: 1 };
        }
        let start = self.random.below(n + 1).min(self.random.below(n + 1));
        let stop = if self.random.one_in(2) { n } else { start + self.random.below(n - start + 1) };
        SliceDim { start, stop, step: 1 + self.random.below(3) }
    }

    /// A shape of as many elements: the prime factors dealt anew, in order, with dims of extent 1 among them.
    fn regrouped(&mut self, shape: &Shape) -> Shape {
        let mut extents: Vec<usize> = vec![1];
        for factor in shape.extents().into_iter().flat_map(factors) {
            if extents.len() < 4 && self.random.one_in(2) {
                extents.push(1);
            }
            if let Some(last) = extents.last_mut() {
                *last *= factor;
            }
        }
        if extents == [1] && self.random.one_in(2) { Shape::scalar() } else { Shape::new(extents) }
    }

    fn stretched(&mut self, shape: &Shape) -> Op {
        let (mut extents, mut dims): (Vec<usize>, DimVec<usize>) = (Vec::new(), DimVec::new());
        let whole = shape.elements().max(1);
        let mut room = (self.options.elements / whole).max(1);
        let mut extent = |maker: &mut Maker| {
            let n = maker.extent();
            let n = if n > room { 1 + maker.random.below(room.min(3)) } else { n };
            room /= n.max(1);
            n
        };
        for d in shape.extents() {
            if self.random.one_in(3) {
                extents.push(extent(self));
            }
            dims.push(extents.len());
            extents.push(if d == 1 { extent(self) } else { d });
        }
        Op::Broadcast { shape: Shape::new(extents), dims }
    }

    pub(crate) fn pad(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let ty = self.ty(x);
        let (v, other) = self.like(&TensorType { shape: Shape::scalar(), dtype: ty.dtype })?;
        let dims = (0..ty.shape.rank()).map(|_| PadDim {
            low: self.random.below(3),
            high: self.random.below(3),
            interior: self.random.below(6) / 4,
        });
        let op = Op::Pad(dims.collect());
        self.add(op, &[x, v], limit.max(other))
    }

    pub(crate) fn concat(&mut self, x: Value, mut limit: f64) -> Option<Bounded> {
        let ty = self.ty(x);
        let (dim, count) = (self.random.below(ty.shape.rank()), 1 + self.random.below(3));
        let mut operands = vec![x];
        let mut extents = ty.shape.extents();
        let own = *extents.get(dim)?;
        for _ in 1..count {
            extents[dim] = if self.random.one_in(3) { own } else { self.random.below(5) };
            let (y, other) = self.like(&TensorType { shape: Shape::new(extents.clone()), dtype: ty.dtype })?;
            limit = limit.max(other);
            operands.push(y);
        }
        self.random.shuffle(&mut operands);
        self.add(Op::Concat { dim, count }, &operands, limit)
    }

    pub(crate) fn window(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let extents = self.ty(x).shape.extents();
        let mut dims: DimVec<usize> = (0..extents.len()).collect();
        self.random.shuffle(&mut dims);
        dims.truncate(1 + self.random.below(2));
        dims.sort_unstable();
        let window = |dim: usize| {
            let most = if self.random.one_in(8) { 5 } else { extents[dim].clamp(1, 4) };
            let (stride, dilation) = (1 + self.random.below(3), 1 + self.random.below(2));
            WindowDim { dim, size: 1 + self.random.below(most), stride, dilation }
        };
        let op = Op::Window(dims.into_iter().map(window).collect());
        self.add(op, &[x], limit)
    }

    /// The last dims of a value are taken for sizes of windows along some of the others.
    pub(crate) fn window_sum(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let extents = self.ty(x).shape.extents();
        let count = if extents.len() >= 4 { 1 + self.random.below(2) } else { 1 };
        let kept = extents.len().checked_sub(count + 1)? + 1;
        let mut along: DimVec<usize> = (0..kept).collect();
        self.random.shuffle(&mut along);
        along.truncate(count);
        along.sort_unstable();
        let (mut shape, mut dims, mut terms) = (extents[..kept].to_vec(), WindowDims::new(), 1.0);
        for (&dim, &size) in along.iter().zip(&extents[kept..]) {
            let w = WindowDim { dim, size, stride: 1 + self.random.below(3), dilation: 1 + self.random.below(2) };
            let rest = self.random.below(w.stride);
            shape[dim] = match shape[dim] {
                0 => w.span() - 1,
                n => (n - 1) * w.stride + w.span() + rest,
            };
            terms *= size as f64;
            dims.push(w);
        }
        self.add(Op::WindowSum { dims, shape: Shape::new(shape) }, &[x], limit * terms)
    }

    /// Starts of a range: any integers, since they are clamped.
    fn starts(&mut self, operands: &mut Vec<Value>, rank: usize) -> Option<()> {
        for _ in 0..rank {
            operands.push(self.like(&TensorType::new(Shape::scalar(), DType::I64))?.0);
        }
        Some(())
    }

    fn sizes(&mut self, x: Value) -> DimVec<usize> {
        let size = |n: usize| if self.random.one_in(3) { n } else { self.random.below(n + 1).max(n.min(1)) };
        self.graph.ty(x).shape.extents().into_iter().map(size).collect()
    }

    pub(crate) fn dynamic_slice(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let sizes = self.sizes(x);
        let mut operands = vec![x];
        self.starts(&mut operands, sizes.len())?;
        self.add(Op::DynamicSlice(sizes), &operands, limit)
    }

    pub(crate) fn dynamic_update_slice(&mut self, x: Value, limit: f64) -> Option<Bounded> {
        let sizes = self.sizes(x);
        let rank = sizes.len();
        let (update, other) = self.like(&TensorType { shape: Shape::new(sizes), dtype: self.ty(x).dtype })?;
        let mut operands = vec![x, update];
        self.starts(&mut operands, rank)?;
        self.add(Op::DynamicUpdateSlice { rank }, &operands, limit.max(other))
    }
}

/// The prime factors; 0 and 1 are themselves.
fn factors(mut n: usize) -> Vec<usize> {
    let mut out = Vec::new();
    let mut p = 2;
    while p * p <= n {
        while n.is_multiple_of(p) {
            out.push(p);
            n /= p;
        }
        p += 1;
    }
    if n != 1 || out.is_empty() {
        out.push(n);
    }
    out
}
