//! Long reductions down columns become two: one over pieces of the rows, which threads share, and one over the pieces.
//!
//! Needs: any graph. Guarantees: the same values, but for the order in which floats are added or multiplied.
//!
//! A reduction that keeps what lies innermost walks rows (see [`columns`](crate::columns)), and its iterations for threads to
//! share are blocks of columns, each of which should be as wide as a page. Where there are few, rows are shared instead: the
//! dim of `n` rows becomes `pieces * (n / pieces)`. That depends on shapes alone.

use crate::driver::Rewritten;
use crate::layout::Orders;
use lazuli_ir::{DType, DimVec, Graph, NodeId, Op, ReduceOp, Result, Shape, Sources, Target, Value};

/// Iterations for threads to share that are enough.
const PIECES: usize = 32;
/// Rows of a piece, at least.
const ROWS: usize = 32;
/// Elements that are worth two kernels.
const ELEMENTS: usize = 1 << 17;
/// Elements of a row that is long enough to be cut into blocks for threads.
const LONG: usize = 4096;

pub(crate) fn split(graph: &Graph) -> Result<Rewritten> {
    let mut rewrites = 0;
    let new = graph.rebuild(|new, _, node, operands| {
        if let (Op::Reduce { op, dims, acc }, [x]) = (&node.op, operands)
            && let order = (0..new.ty(*x).shape.rank()).collect::<DimVec<usize>>()
            && let Some(cut) = Cut::of(&new.ty(*x).shape, &order, *op, dims)
            && is_row_major(new, *x)
        {
            rewrites += 1;
            return cut.apply(new, *x, *op, *acc, &node.sources);
        }
        new.add(node.op.clone(), operands, node.sources.clone())
    })?;
    Ok((rewrites > 0).then_some((new, rewrites)))
}

/// Whether the last dim of a value lies innermost, as far as can be told before values have a place.
fn is_row_major(graph: &Graph, x: Value) -> bool {
    let mut at = x.node;
    let Some(mut dim) = graph.ty(x).shape.rank().checked_sub(1) else { return true };
    loop {
        let op = graph.op(at);
        match op {
            Op::Permute(perm) => dim = perm[dim],
            Op::Unary(_) | Op::Binary(_) | Op::Cast(_) => {}
            _ => return dim + 1 == graph.node(at).types[0].shape.rank(),
        }
        at = graph.operands(at)[0].node;
    }
}

/// Elements that are worth two kernels of a GPU.
const GPU_ELEMENTS: usize = 1 << 20;
/// The fewest elements of such a block's part, and its most parts.
const LEAST_PART: usize = 4096;
const MOST_PARTS: usize = 256;

/// A reduction of few long rows, as a GPU takes it: over parts of the rows, which are blocks, and over the parts. `None` where
/// rows are enough for all multiprocessors, or not long.
pub(crate) fn row_parts(shape: &Shape, op: ReduceOp, dims: &[usize], target: &Target) -> Option<Cut> {
    let extents = shape.extents();
    let &last = dims.last()?;
    let rows: usize = extents.iter().enumerate().filter(|(d, _)| !dims.contains(d)).map(|(_, n)| n).product();
    let inner: usize = extents[last + 1..].iter().product();
    // A reduction of all elements is cut by the schedule.
    let few = (2..target.cores as usize).contains(&rows);
    if op.is_position() || inner != 1 || !few || shape.elements() < GPU_ELEMENTS {
        return None;
    }
    let wanted = (2 * target.cores as usize).div_ceil(rows).min(MOST_PARTS);
    let most = extents[last] / LEAST_PART;
    let least = (target.cores as usize).div_ceil(rows).max(2);
    let parts = (least..=wanted.min(most)).rev().find(|p| extents[last].is_multiple_of(*p))?;
    Some(Cut::new(&extents, dims, last, parts))
}

/// A dim cut into pieces.
pub(crate) struct Cut {
    shape: Shape,
    /// What is reduced first.
    first: DimVec<usize>,
    /// The dim that is reduced then, of the first result.
    then: usize,
}

impl Cut {
    /// The same where a reduction runs down columns because of how its operand lies, which is known later.
    pub(crate) fn lying(graph: &Graph, orders: &Orders, n: NodeId, op: ReduceOp, dims: &[usize]) -> Option<Cut> {
        let x = graph.operands(n)[0];
        let shape = &graph.ty(x).shape;
        let order = orders.dims(x.node, shape.rank());
        (!order.is_sorted()).then(|| Cut::of(shape, &order, op, dims)).flatten()
    }

    /// Where a reduction of a value whose dims lie in this order is cut, if it runs down few columns.
    fn of(shape: &Shape, order: &[usize], op: ReduceOp, dims: &[usize]) -> Option<Cut> {
        let extents = shape.extents();
        let last = order.iter().rposition(|d| dims.contains(d))?;
        let kept =
            |part: &[usize]| -> usize { part.iter().filter(|d| !dims.contains(d)).map(|&d| extents[d]).product() };
        let (outer, inner) = (kept(&order[..last]), kept(&order[last..]));
        if op.is_position() || inner <= 1 || shape.elements() < ELEMENTS {
            return None;
        }
        let dim = *dims.iter().max_by_key(|d| (extents[**d], **d))?;
        let reduced: usize = dims.iter().map(|d| extents[*d]).product();
        let wanted = PIECES.div_ceil(outer * inner.div_ceil(LONG));
        let pieces = (wanted.max(2)..=extents[dim]).find(|p| extents[dim].is_multiple_of(*p))?;
        if wanted < 2 || reduced / pieces < ROWS {
            return None;
        }
        Some(Cut::new(&extents, dims, dim, pieces))
    }

    /// Cuts a dim into pieces.
    fn new(extents: &[usize], dims: &[usize], dim: usize, pieces: usize) -> Cut {
        let mut shape: DimVec<usize> = extents[..dim].iter().copied().collect();
        shape.extend([pieces, extents[dim] / pieces]);
        shape.extend(extents[dim + 1..].iter().copied());
        let first = dims.iter().map(|&d| if d >= dim { d + 1 } else { d }).collect();
        let then = dim - dims.iter().filter(|d| **d < dim).count();
        Cut { shape: Shape::new(shape), first, then }
    }

    pub(crate) fn apply(
        self,
        graph: &mut Graph,
        x: Value,
        op: ReduceOp,
        acc: DType,
        sources: &Sources,
    ) -> Result<Value> {
        let x = graph.add(Op::Reshape(self.shape), &[x], sources.clone())?;
        let x = graph.add(Op::Reduce { op, dims: self.first, acc }, &[x], sources.clone())?;
        graph.add(Op::Reduce { op, dims: smallvec::smallvec![self.then], acc }, &[x], sources.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(extents: &[usize], dims: &[usize]) -> Option<(Vec<usize>, Vec<usize>, usize)> {
        let order: Vec<usize> = (0..extents.len()).collect();
        let cut = Cut::of(&Shape::new(extents.iter().copied()), &order, ReduceOp::Sum, dims)?;
        Some((cut.shape.extents().to_vec(), cut.first.to_vec(), cut.then))
    }

    #[test]
    fn images_with_channels_innermost_are_columns() {
        let of = |order: &[usize]| {
            let cut = Cut::of(&Shape::new([32, 16, 28, 28]), order, ReduceOp::Sum, &[0, 2, 3])?;
            Some((cut.shape.extents().to_vec(), cut.first.to_vec(), cut.then))
        };
        assert_eq!(of(&[0, 1, 2, 3]), None);
        assert_eq!(of(&[0, 2, 3, 1]), Some((vec![32, 1, 16, 28, 28], vec![1, 3, 4], 0)));
    }

    #[test]
    fn few_long_rows_are_several_blocks_of_a_gpu() {
        let parts = |extents: &[usize], dims: &[usize]| {
            let target = Target::nvidia(90);
            row_parts(&Shape::new(extents.iter().copied()), ReduceOp::Sum, dims, &target)
                .map(|c| c.shape.extents().to_vec())
        };
        assert_eq!(parts(&[4, 1 << 20], &[1]), Some(vec![4, 64, 16384]));
        assert_eq!(parts(&[1000, 1 << 20], &[1]), None, "rows enough");
        assert_eq!(parts(&[4, 1000], &[1]), None, "short rows");
        assert_eq!(parts(&[1 << 20], &[0]), None, "a chunk a block");
        assert_eq!(parts(&[1 << 20, 4], &[0]), None, "columns");
    }

    #[test]
    fn rows_are_shared_where_columns_are_few() {
        assert_eq!(cut(&[4096, 1024], &[0]), Some((vec![32, 128, 1024], vec![1], 0)));
        assert_eq!(cut(&[4096, 1024], &[1]), None, "rows are kept");
        assert_eq!(cut(&[64, 64, 1024], &[1]), None, "there are pieces enough");
        assert_eq!(cut(&[64, 4096], &[0]), None, "too few rows");
        assert_eq!(cut(&[2, 1 << 20], &[0]), None, "columns enough");
        assert_eq!(cut(&[64, 64], &[0]), None, "too little work");
        assert_eq!(cut(&[4099, 1024], &[0]), None, "a prime number of rows");
        assert_eq!(cut(&[1 << 20, 3], &[0]), Some((vec![32, 32768, 3], vec![1], 0)));
        assert_eq!(cut(&[8, 4096, 2, 512], &[1, 2]), Some((vec![8, 4, 1024, 2, 512], vec![2, 3], 1)));
    }
}
