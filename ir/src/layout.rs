//! Where the elements of a tensor lie in a buffer: strides, and the views that strides can express.
//!
//! A view moves no element: it is another [`Layout`] over the same buffer. Permutations, broadcasts and strided slices always
//! are views; a reshape is one where each run of new dims falls into a run of old dims that could be one loop (PyTorch's
//! rule). The functions here compute layouts alone: whether the arguments fit was settled by [`infer`](crate::infer) before,
//! and an argument that does not fit gives some layout, never a panic.

use crate::{DimVec, Shape, SliceDim, WindowDim};

/// Where the elements of a tensor lie in a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The logical extents.
    pub shape: Shape,
    /// Elements between neighbours along each dim; 0 for a broadcast dim.
    pub strides: DimVec<i64>,
    /// The element number of the first element.
    pub offset: i64,
}

impl Layout {
    /// Row-major without gaps.
    pub fn contiguous(shape: Shape) -> Layout {
        let strides = shape.strides();
        Layout { shape, strides, offset: 0 }
    }

    /// Whether the elements lie in row-major order without gaps (strides of dims of extent 1 do not count).
    pub fn is_contiguous(&self) -> bool {
        self.shape.is_empty()
            || self
                .shape
                .dims()
                .iter()
                .zip(&self.strides)
                .zip(self.shape.strides())
                .all(|((d, s), r)| d.is_one() || *s == r)
    }

    /// The stride of one dim. Out of range is 0, as its extent is 1.
    pub fn stride(&self, axis: usize) -> i64 {
        self.strides.get(axis).copied().unwrap_or(0)
    }

    /// The view whose dim `i` is dim `perm[i]` of this one.
    #[must_use]
    pub fn permute(&self, perm: &[usize]) -> Layout {
        Layout {
            shape: Shape::from_dims(perm.iter().map(|&p| self.shape.dim(p))),
            strides: perm.iter().map(|&p| self.stride(p)).collect(),
            offset: self.offset,
        }
    }

    /// The view of `shape` whose dim `dims[i]` is dim `i` of this one, stretched from 1 or the same; its other dims repeat.
    #[must_use]
    pub fn broadcast(&self, shape: &Shape, dims: &[usize]) -> Layout {
        let mut strides: DimVec<i64> = (0..shape.rank()).map(|_| 0).collect();
        for (i, &d) in dims.iter().enumerate() {
            if let Some(s) = strides.get_mut(d)
                && self.shape.dim(i).same(shape.dim(d))
            {
                *s = self.stride(i);
            }
        }
        Layout { shape: shape.clone(), strides, offset: self.offset }
    }

    /// The view of a strided range of every dim.
    #[must_use]
    pub fn slice(&self, dims: &[SliceDim]) -> Layout {
        let mut offset = self.offset;
        let mut strides = DimVec::new();
        for (axis, s) in dims.iter().enumerate() {
            offset = offset.wrapping_add((s.start as i64).wrapping_mul(self.stride(axis)));
            strides.push(self.stride(axis).wrapping_mul(s.step as i64));
        }
        Layout { shape: Shape::new(dims.iter().map(|s| s.extent())), strides, offset }
    }

    /// The view in reverse order along dims.
    #[must_use]
    pub fn flip(&self, dims: &[usize]) -> Layout {
        let mut view = self.clone();
        for &d in dims {
            let last = self.shape.dim(d).known().unwrap_or(1).saturating_sub(1) as i64;
            view.offset = view.offset.wrapping_add(last.wrapping_mul(self.stride(d)));
            view.strides[d] = self.stride(d).wrapping_neg();
        }
        view
    }

    /// The view of windows that slide along dims: see [`Op::Window`](crate::Op::Window).
    #[must_use]
    pub fn window(&self, dims: &[WindowDim]) -> Layout {
        let (mut extents, mut strides) = (self.shape.extents(), self.strides.clone());
        for w in dims {
            extents[w.dim] = w.count(extents[w.dim]);
            strides[w.dim] = self.stride(w.dim).wrapping_mul(w.stride as i64);
        }
        extents.extend(dims.iter().map(|w| w.size));
        strides.extend(dims.iter().map(|w| self.stride(w.dim).wrapping_mul(w.dilation as i64)));
        Layout { shape: Shape::new(extents), strides, offset: self.offset }
    }

    /// The view of the same elements, in row-major order, under another shape; `None` where no strides express it and a copy
    /// is needed.
    ///
    /// Old dims are gathered, from the last, into chunks that one stride walks; each chunk must be a product of new dims. A
    /// dim of extent 1 belongs to any chunk, and without elements every shape is a view.
    pub fn reshape(&self, shape: &Shape) -> Option<Layout> {
        if shape.elements() != self.shape.elements() {
            return None;
        }
        if self.shape.same(shape) {
            return Some(self.clone());
        }
        let mut view = Layout { shape: shape.clone(), strides: shape.strides(), offset: self.offset };
        if shape.is_empty() || self.shape.rank() == 0 {
            return Some(view);
        }
        let (old, new) = (self.shape.extents(), shape.extents());
        let mut left = new.len();
        let (mut chunk_stride, mut chunk) = (self.stride(old.len() - 1), 1usize);
        for d in (0..old.len()).rev() {
            chunk = chunk.saturating_mul(old[d]);
            let goes_on =
                d > 0 && (old[d - 1] == 1 || self.strides[d - 1] == (chunk as i64).wrapping_mul(chunk_stride));
            if goes_on {
                continue;
            }
            let mut taken = 1usize;
            while left > 0 && (taken < chunk || new[left - 1] == 1) {
                left -= 1;
                view.strides[left] = (taken as i64).wrapping_mul(chunk_stride);
                taken = taken.saturating_mul(new[left]);
            }
            if taken != chunk {
                return None;
            }
            if d > 0 {
                (chunk_stride, chunk) = (self.strides[d - 1], 1);
            }
        }
        (left == 0).then_some(view)
    }

    /// The element numbers touched: the lowest, and one past the highest. Both are the offset where there are no elements.
    pub fn bounds(&self) -> (i64, i64) {
        let (mut low, mut high) = (self.offset, self.offset);
        if self.shape.is_empty() {
            return (low, high);
        }
        for (d, s) in self.shape.extents().into_iter().zip(&self.strides) {
            let reach = (d as i64 - 1).saturating_mul(*s);
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        (low, high.saturating_add(1))
    }

    /// Elements of the buffer from the lowest touched to one past the highest, gaps included; 0 where there are none.
    pub fn span(&self) -> usize {
        let (low, high) = self.bounds();
        high.saturating_sub(low) as usize
    }

    /// The layout with the strides that have no effect set to 0: those of dims of extent 1, and all where there are no
    /// elements. Layouts that address the same elements in the same way are equal in this form, so it can be a key.
    #[must_use]
    pub fn canonical(&self) -> Layout {
        let empty = self.shape.is_empty();
        let strides = self.shape.dims().iter().zip(&self.strides);
        Layout {
            shape: self.shape.clone(),
            strides: strides.map(|(d, s)| if empty || d.is_one() { 0 } else { *s }).collect(),
            offset: self.offset,
        }
    }

    /// The element number at a logical index.
    pub fn at(&self, index: &[usize]) -> i64 {
        index.iter().zip(&self.strides).fold(self.offset, |n, (i, s)| n.wrapping_add((*i as i64).wrapping_mul(*s)))
    }

    /// The element numbers of all elements, in row-major order.
    pub fn numbers(&self) -> Numbers<'_> {
        Numbers {
            layout: self,
            index: (0..self.shape.rank()).map(|_| 0).collect(),
            at: self.offset,
            left: self.shape.elements(),
        }
    }
}

/// The element numbers of a [`Layout`] in row-major order.
#[derive(Clone, Debug)]
pub struct Numbers<'a> {
    layout: &'a Layout,
    index: DimVec<usize>,
    at: i64,
    left: usize,
}

impl Iterator for Numbers<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        for axis in (0..self.index.len()).rev() {
            let (extent, stride) = (self.layout.shape.dim(axis).known().unwrap_or(1), self.layout.strides[axis]);
            self.index[axis] += 1;
            self.at = self.at.wrapping_add(stride);
            if self.index[axis] < extent {
                break;
            }
            self.index[axis] = 0;
            self.at = self.at.wrapping_sub(stride.wrapping_mul(extent as i64));
        }
        Some(at)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Numbers<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(l: &Layout) -> Vec<i64> {
        l.numbers().collect()
    }

    fn layout<const N: usize>(shape: [usize; N], strides: [i64; N], offset: i64) -> Layout {
        Layout { shape: shape.into(), strides: strides.into_iter().collect(), offset }
    }

    /// Every index of a shape, row-major.
    fn indices(shape: &Shape) -> Vec<Vec<usize>> {
        shape.extents().iter().fold(vec![vec![]], |all, &d| {
            all.iter().flat_map(|i| (0..d).map(move |k| i.iter().copied().chain([k]).collect())).collect()
        })
    }

    /// Layouts of every kind over shapes with extents 0, 1, 2 and 3.
    fn layouts() -> Vec<Layout> {
        let mut all = vec![Layout::contiguous(Shape::scalar()), layout([], [], 7)];
        for code in 0..64usize {
            let shape = Shape::new([code % 4, code / 4 % 4, code / 16]);
            let plain = Layout::contiguous(shape);
            all.push(plain.permute(&[2, 0, 1]));
            all.push(Layout { strides: smallvec::smallvec![-4, 0, 1], offset: 20, ..plain.clone() });
            all.push(plain);
        }
        all
    }

    #[test]
    fn views_agree_with_enumeration() {
        for l in layouts() {
            let expected: Vec<i64> = indices(&l.shape).iter().map(|i| l.at(i)).collect();
            assert_eq!(numbers(&l), expected, "{l:?}");
            let (low, high) = l.bounds();
            match (expected.iter().min(), expected.iter().max()) {
                (Some(a), Some(b)) => assert_eq!((low, high), (*a, b + 1), "{l:?}"),
                _ => assert_eq!(l.span(), 0, "{l:?}"),
            }
            assert_eq!(l.span(), (high - low) as usize);
            assert_eq!(numbers(&l.canonical()), expected);
            if l.is_contiguous() {
                assert!(expected.iter().zip(l.offset..).all(|(a, b)| *a == b), "{l:?}");
            }
            if l.shape.rank() == 3 {
                let p = l.permute(&[1, 2, 0]);
                let by_index: Vec<i64> = indices(&p.shape).iter().map(|i| l.at(&[i[2], i[0], i[1]])).collect();
                assert_eq!(numbers(&p), by_index);
                let halves: Vec<SliceDim> =
                    l.shape.extents().iter().map(|&d| SliceDim { start: d / 2, stop: d, step: 2 }).collect();
                let s = l.slice(&halves);
                let start = |k: usize, i: usize| halves[k].start + 2 * i;
                let by_index: Vec<i64> =
                    indices(&s.shape).iter().map(|i| l.at(&[start(0, i[0]), start(1, i[1]), start(2, i[2])])).collect();
                assert_eq!(numbers(&s), by_index);
            }
        }
    }

    #[test]
    fn broadcast_repeats() {
        let l = layout([2, 1], [1, 9], 3);
        let b = l.broadcast(&Shape::new([2, 2, 3]), &[1, 2]);
        assert_eq!(b.strides.as_slice(), [0, 1, 0]);
        assert_eq!(numbers(&b), [3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4]);
        assert_eq!(numbers(&Layout::contiguous(Shape::scalar()).broadcast(&Shape::new([3]), &[])), [0, 0, 0]);
        assert_eq!(numbers(&Layout::contiguous(Shape::new([1])).broadcast(&Shape::new([0]), &[0])), [0i64; 0]);
    }

    /// Whether some strides give these numbers: decided by looking at each dim's first step alone.
    fn expressible(shape: &Shape, numbers: &[i64]) -> bool {
        let all = indices(shape);
        let (Some(&first), rank) = (numbers.first(), shape.rank()) else { return true };
        let step = |axis: usize| {
            let unit = all.iter().position(|i| i.iter().enumerate().all(|(k, &v)| v == usize::from(k == axis)));
            unit.map_or(0, |p| numbers[p] - first)
        };
        let strides: Vec<i64> = (0..rank).map(step).collect();
        all.iter()
            .zip(numbers)
            .all(|(i, n)| first + i.iter().zip(&strides).map(|(a, b)| *a as i64 * b).sum::<i64>() == *n)
    }

    #[test]
    fn reshape_is_a_view_exactly_where_strides_express_it() {
        let mut views = 0;
        for l in layouts() {
            let n = l.shape.elements();
            for code in 0..7 * 7 * 7usize {
                let shape = Shape::new([code % 7, code / 7 % 7, code / 49]);
                if shape.elements() != n {
                    assert_eq!(l.reshape(&shape), None);
                    continue;
                }
                match l.reshape(&shape) {
                    Some(v) => {
                        assert_eq!(numbers(&v), numbers(&l), "{l:?} as {shape}");
                        views += 1;
                    }
                    None => assert!(!expressible(&shape, &numbers(&l)), "{l:?} as {shape}"),
                }
            }
        }
        assert!(views > 500, "{views}");
    }

    #[test]
    fn reshape_follows_pytorch_at_the_edges() {
        let l = layout([2, 1, 3], [3, 100, 1], 5);
        assert_eq!(l.reshape(&Shape::new([6])), Some(layout([6], [1], 5)));
        assert_eq!(l.reshape(&Shape::new([1, 6, 1])), Some(layout([1, 6, 1], [6, 1, 1], 5)));
        assert_eq!(layout([2, 3], [1, 2], 0).reshape(&Shape::new([6])), None);
        assert_eq!(layout([2, 0], [9, 9], 4).reshape(&Shape::new([3, 0, 2])), Some(layout([3, 0, 2], [2, 2, 1], 4)));
        assert_eq!(layout([], [], 4).reshape(&Shape::new([1, 1])), Some(layout([1, 1], [1, 1], 4)));
        assert_eq!(layout([1], [7], 4).reshape(&Shape::scalar()), Some(layout([], [], 4)));
        let expanded = layout([2, 3], [0, 1], 0);
        assert_eq!(expanded.reshape(&Shape::new([2, 3, 1])), Some(layout([2, 3, 1], [0, 1, 1], 0)));
        assert_eq!(expanded.reshape(&Shape::new([6])), None);
        assert_eq!(layout([2, 3], [0, 0], 0).reshape(&Shape::new([3, 2])), Some(layout([3, 2], [0, 0], 0)));
    }

    #[test]
    fn canonical_forgets_what_has_no_effect() {
        assert_eq!(layout([2, 1], [1, 9], 0).canonical(), layout([2, 1], [1, 2], 0).canonical());
        assert_eq!(layout([0, 3], [9, 4], 0).canonical(), layout([0, 3], [3, 1], 0).canonical());
        assert_ne!(layout([2, 1], [1, 9], 0).canonical(), layout([2, 1], [2, 9], 0).canonical());
    }
}
