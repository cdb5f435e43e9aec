//! Long reductions down columns become two: one over pieces of the rows, which threads share, and one over the pieces.
//!
//! Needs: any graph. Guarantees: the same values, but for the order in which floats are added or multiplied.
//!
//! A reduction that keeps what lies innermost walks rows (see [`columns`](crate::columns)), and its iterations for threads to
//! share are blocks of columns, each of which should be as wide as a page. Where there are few, rows are shared instead: the
//! dim of `n` rows becomes `pieces * (n / pieces)`. That depends on shapes alone.

use crate::driver::Rewritten;
use lazuli_ir::{DType, DimVec, Graph, Op, ReduceOp, Result, Shape, Sources, Value};

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
            && let Some(cut) = Cut::of(&new.ty(*x).shape, *op, dims)
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
    let (mut at, mut dim) = (x.node, graph.ty(x).shape.rank().saturating_sub(1));
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

/// A dim cut into pieces.
struct Cut {
    shape: Shape,
    /// What is reduced first.
    first: DimVec<usize>,
    /// The dim that is reduced then, of the first result.
    then: usize,
}

impl Cut {
    fn of(shape: &Shape, op: ReduceOp, dims: &[usize]) -> Option<Cut> {
        let extents = shape.extents();
        let &last = dims.last()?;
        let inner: usize = extents[last + 1..].iter().product();
        let before = extents[..last].iter().enumerate().filter(|(d, _)| !dims.contains(d));
        let outer: usize = before.map(|(_, n)| n).product();
        if op.is_position() || inner <= 1 || shape.elements() < ELEMENTS {
            return None;
        }
        let dim = *dims.iter().max_by_key(|d| (extents[**d], **d))?;
        let reduced: usize = dims.iter().map(|d| extents[*d]).product();
        let wanted = PIECES.div_ceil(outer * inner.div_ceil(LONG));
        let pieces = (wanted.max(2)..=extents[dim] / 2).find(|p| extents[dim].is_multiple_of(*p))?;
        if wanted < 2 || reduced / pieces < ROWS {
            return None;
        }
        let mut shape: DimVec<usize> = extents[..dim].iter().copied().collect();
        shape.extend([pieces, extents[dim] / pieces]);
        shape.extend(extents[dim + 1..].iter().copied());
        let first = dims.iter().map(|&d| if d >= dim { d + 1 } else { d }).collect();
        let then = dim - dims.iter().filter(|d| **d < dim).count();
        Some(Cut { shape: Shape::new(shape), first, then })
    }

    fn apply(self, graph: &mut Graph, x: Value, op: ReduceOp, acc: DType, sources: &Sources) -> Result<Value> {
        let x = graph.add(Op::Reshape(self.shape), &[x], sources.clone())?;
        let x = graph.add(Op::Reduce { op, dims: self.first, acc }, &[x], sources.clone())?;
        graph.add(Op::Reduce { op, dims: smallvec::smallvec![self.then], acc }, &[x], sources.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(extents: &[usize], dims: &[usize]) -> Option<(Vec<usize>, Vec<usize>, usize)> {
        let cut = Cut::of(&Shape::new(extents.iter().copied()), ReduceOp::Sum, dims)?;
        Some((cut.shape.extents().to_vec(), cut.first.to_vec(), cut.then))
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
