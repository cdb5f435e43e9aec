//! Index maps: which element of an operand an element of the result is made from.
//!
//! Every operation of the Graph IR, read from its result, is an affine-with-division map on indices, sometimes under a
//! condition (padding). Composing these maps along edges is all that fusing movement operations takes: `lower` and
//! `fusion` know no other rule about them.

use lazuli_ir::index::Ranges;
use lazuli_ir::{Dim, Error, Index, Op, Result, Shape};

/// A condition on an index tuple: the index is not negative, or is zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// `index >= 0`.
    NotNegative(Index),
    /// `index == 0`.
    Zero(Index),
}

impl Condition {
    /// Whether the condition certainly holds.
    fn holds(&self, ranges: Ranges<'_>) -> bool {
        match self {
            Condition::NotNegative(x) => x.range(ranges).0 >= 0,
            Condition::Zero(x) => x.as_constant() == Some(0),
        }
    }

    /// The index tested.
    pub fn index(&self) -> &Index {
        match self {
            Condition::NotNegative(x) | Condition::Zero(x) => x,
        }
    }
}

/// The element of an operand, and the conditions under which it exists.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// The operand's index.
    pub index: Vec<Index>,
    /// All must hold, else the index is out of range.
    pub conditions: Vec<Condition>,
}

impl From<Vec<Index>> for Mapped {
    fn from(index: Vec<Index>) -> Mapped {
        Mapped { index, conditions: Vec::new() }
    }
}

fn extent(d: Dim) -> Result<i64> {
    d.known().map(|n| n as i64).ok_or_else(|| Error::internal("an extent is not known"))
}

/// The index of operand `position` of `op` for the element at `index` of its result (whose shape is `result`).
///
/// For a reduction, `inner` are the indices along the reduced dims; for a sum over windows, inside the window; for a
/// concatenation, where the operand begins. Contractions have maps of their own ([`DotDims`](lazuli_ir::DotDims)), as have
/// operations that are indexed by data, and the padding value is a scalar.
pub fn operand_index(
    op: &Op,
    position: usize,
    operand: &Shape,
    result: &Shape,
    index: &[Index],
    inner: &[Index],
    ranges: Ranges<'_>,
) -> Result<Mapped> {
    Ok(match op {
        Op::Input { .. }
        | Op::Constant { .. }
        | Op::Iota { .. }
        | Op::Dot { .. }
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::DynamicSlice(_)
        | Op::DynamicUpdateSlice { .. }
        | Op::Sort { .. } => {
            return Err(Error::internal(format!("{} has no index map", op.name())));
        }
        Op::Alias
        | Op::Detach
        | Op::ToDevice { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast(_) => index.to_vec().into(),
        Op::CheckIndex { .. } | Op::Cumulative { .. } => index.to_vec().into(),
        Op::Random { .. } => Vec::new().into(),
        Op::Flip(dims) => {
            let mut out = index.to_vec();
            for &d in dims {
                out[d] = Index::constant(extent(operand.dim(d))? - 1).add_scaled(&index[d], -1);
            }
            out.into()
        }
        Op::Window(dims) => {
            let rank = operand.rank();
            let mut out = index[..rank].to_vec();
            for (w, inside) in dims.iter().zip(&index[rank..]) {
                out[w.dim] = index[w.dim].times(w.stride as i64).add_scaled(inside, w.dilation as i64);
            }
            out.into()
        }
        Op::WindowSum { dims, .. } => {
            let mut out = Mapped::from(index.to_vec());
            for (w, inside) in dims.iter().zip(inner) {
                let first = index[w.dim].add_scaled(inside, -(w.dilation as i64));
                let (window, stride) = (first.floor_div(w.stride as i64, ranges), w.stride as i64);
                let last = extent(operand.dim(w.dim))? - 1;
                out.conditions.push(Condition::NotNegative(first.clone()));
                out.conditions.push(Condition::NotNegative(Index::constant(last).add_scaled(&window, -1)));
                out.conditions.push(Condition::Zero(first.modulo(stride, ranges)));
                out.index[w.dim] = window;
            }
            out.index.extend(inner.iter().cloned());
            out.conditions.retain(|c| !c.holds(ranges));
            out
        }
        // Where operand `position` begins, `inner` says.
        Op::Concat { dim, .. } => {
            let mut out = Mapped::from(index.to_vec());
            let begin = inner.first().cloned().unwrap_or_default();
            let x = index[*dim].add_scaled(&begin, -1);
            out.conditions.push(Condition::NotNegative(x.clone()));
            out.conditions
                .push(Condition::NotNegative(Index::constant(extent(operand.dim(*dim))? - 1).add_scaled(&x, -1)));
            out.index[*dim] = x;
            out.conditions.retain(|c| !c.holds(ranges));
            out
        }
        Op::Permute(perm) => {
            let mut out = vec![Index::default(); index.len()];
            for (x, &p) in index.iter().zip(perm) {
                out[p] = x.clone();
            }
            out.into()
        }
        Op::Reshape(_) => reshape_index(result, operand, index, ranges)?.into(),
        Op::Broadcast { shape, dims } => {
            let stretched = |i: usize, d: usize| operand.dim(i).is_one() && !shape.dim(d).is_one();
            let pick = |(i, &d): (usize, &usize)| if stretched(i, d) { Index::default() } else { index[d].clone() };
            dims.iter().enumerate().map(pick).collect::<Vec<_>>().into()
        }
        Op::Slice(dims) => {
            let pick = |(x, s): (&Index, &lazuli_ir::SliceDim)| x.times(s.step as i64).plus(s.start as i64);
            index.iter().zip(dims).map(pick).collect::<Vec<_>>().into()
        }
        Op::Pad(_) if position == 1 => Vec::new().into(),
        Op::Pad(dims) => {
            let mut out = Mapped::from(Vec::with_capacity(index.len()));
            for ((x, p), d) in index.iter().zip(dims).zip(operand.dims()) {
                let x = x.plus(-(p.low as i64));
                let step = p.interior as i64 + 1;
                let inner = x.floor_div(step, ranges);
                out.conditions.push(Condition::NotNegative(x.clone()));
                out.conditions.push(Condition::NotNegative(Index::constant(extent(*d)? - 1).add_scaled(&inner, -1)));
                out.conditions.push(Condition::Zero(x.modulo(step, ranges)));
                out.index.push(inner);
            }
            out.conditions.retain(|c| !c.holds(ranges));
            out
        }
        Op::Reduce { dims, .. } => {
            let (mut kept, mut reduced) = (index.iter(), inner.iter());
            let next = |d: usize| if dims.contains(&d) { reduced.next() } else { kept.next() };
            (0..operand.rank()).map(next).map(|x| x.cloned().unwrap_or_default()).collect::<Vec<_>>().into()
        }
    })
}

/// The index into `to` of the element at `index` of `from`, two shapes of the same elements in row-major order.
///
/// Runs of dims with equal products are mapped by themselves, so that dims which a reshape leaves alone stay free of
/// division. The first dim of a run takes all that is left: an index beyond the shape is wanted under a mask that is false.
fn reshape_index(from: &Shape, to: &Shape, index: &[Index], ranges: Ranges<'_>) -> Result<Vec<Index>> {
    let mut out = Vec::with_capacity(to.rank());
    for (f, t) in reshape_runs(from, to)? {
        let mut linear = Index::default();
        for d in f {
            linear = linear.times(extent(from.dim(d))?).add(&index[d]);
        }
        let mut divisor: i64 = 1;
        for d in t.clone() {
            divisor = divisor.saturating_mul(extent(to.dim(d))?);
        }
        for d in t.clone() {
            let n = extent(to.dim(d))?;
            divisor /= n.max(1);
            let digit = linear.floor_div(divisor, ranges);
            out.push(if d == t.start { digit } else { digit.modulo(n, ranges) });
        }
    }
    Ok(out)
}

type Run = std::ops::Range<usize>;

/// Cuts two shapes of equal elements into runs of dims with equal products.
pub fn reshape_runs(from: &Shape, to: &Shape) -> Result<Vec<(Run, Run)>> {
    let mut runs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < from.rank() || j < to.rank() {
        let (start_i, start_j) = (i, j);
        let (mut a, mut b): (i64, i64) = (1, 1);
        // Take at least one dim of each side where there is one, then grow the smaller side.
        if i < from.rank() {
            a = extent(from.dim(i))?;
            i += 1;
        }
        if j < to.rank() {
            b = extent(to.dim(j))?;
            j += 1;
        }
        while a != b {
            if a < b && i < from.rank() {
                a = a.saturating_mul(extent(from.dim(i))?);
                i += 1;
            } else if b < a && j < to.rank() {
                b = b.saturating_mul(extent(to.dim(j))?);
                j += 1;
            } else {
                // Only trailing dims of extent 1 remain on the other side, or the shapes are empty.
                i = from.rank();
                j = to.rank();
                break;
            }
        }
        runs.push((start_i..i, start_j..j));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazuli_ir::{PadDim, VarId};

    fn vars(shape: &Shape) -> (Vec<Index>, impl Fn(VarId) -> (i64, i64)) {
        let extents = shape.extents();
        let index = (0..extents.len()).map(|i| Index::var(VarId(i as u32))).collect();
        (index, move |v: VarId| (0, extents[v.0 as usize] as i64 - 1))
    }

    #[test]
    fn reshapes_map_every_element_to_the_same_linear_position() {
        for (from, to) in [
            (vec![6, 4], vec![24]),
            (vec![24], vec![2, 3, 4]),
            (vec![2, 3, 4], vec![6, 4]),
            (vec![4, 6], vec![6, 4]),
            (vec![2, 1, 12], vec![2, 3, 4, 1]),
            (vec![1, 1], vec![]),
            (vec![], vec![1, 1]),
            (vec![5, 4, 1], vec![5, 2, 2]),
        ] {
            let (from, to) = (Shape::new(from), Shape::new(to));
            let (index, ranges) = vars(&from);
            let mapped = reshape_index(&from, &to, &index, &ranges).unwrap();
            assert_eq!(mapped.len(), to.rank());
            for n in 0..from.elements() as i64 {
                let at = |shape: &Shape, d: usize| n / shape.strides()[d] % shape.extents()[d] as i64;
                let var = |v: VarId| at(&from, v.0 as usize);
                for (d, x) in mapped.iter().enumerate() {
                    assert_eq!(x.evaluate(&var, &|_| 0), at(&to, d), "{from} -> {to}, element {n}, dim {d}");
                }
            }
        }
    }

    #[test]
    fn untouched_dims_stay_free_of_division() {
        let (from, to) = (Shape::new([4, 128, 8, 32]), Shape::new([4, 128, 256]));
        let (index, ranges) = vars(&from);
        let mapped = reshape_index(&from, &to, &index, &ranges).unwrap();
        assert_eq!(mapped[1].as_var(), Some(VarId(1)));
        assert_eq!(mapped[2], Index::var(VarId(2)).times(32).add(&Index::var(VarId(3))));
    }

    #[test]
    fn padding_is_conditional() {
        let op = Op::Pad([PadDim { low: 1, high: 2, interior: 1 }].into_iter().collect());
        let (operand, result) = (Shape::new([3]), Shape::new([8]));
        let (index, ranges) = vars(&result);
        let m = operand_index(&op, 0, &operand, &result, &index, &[], &ranges).unwrap();
        let taken: Vec<i64> = (0..8)
            .filter(|&i| {
                m.conditions.iter().all(|c| {
                    let x = c.index().evaluate(&|_| i, &|_| 0);
                    if matches!(c, Condition::Zero(_)) { x == 0 } else { x >= 0 }
                })
            })
            .map(|i| m.index[0].evaluate(&|_| i, &|_| 0))
            .collect();
        assert_eq!(taken, [0, 1, 2]);
    }
}
