//! Einstein summation: an equation of letters says which dims meet, which are summed over, and in what order the others come.
//!
//! Operands join from left to right. Of each pair, letters that nobody needs any more are summed over: in one operand before
//! the join, in both by the contraction. Dims of extent 1 broadcast, and so do those under an ellipsis.

use crate::Tensor;
use crate::operand::Argument;
use crate::ops::arithmetic::mul;
use crate::promotion::wide;
use lazuli_ir::{DType, DotDims, Error, ErrorKind, Op, Result};
use std::borrow::Borrow;

/// What a dim is called: a letter, or its place from the end under an ellipsis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Letter(char),
    Ellipsis(usize),
}

/// A parsed equation, with ellipses spelled out.
#[derive(Debug)]
struct Equation {
    operands: Vec<Vec<Label>>,
    result: Vec<Label>,
}

fn error<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Value, message))
}

/// Letters and ellipses of one term for a tensor of `rank` dims; for the result the ellipsis has `wide` dims.
fn labels(term: &str, rank: Option<usize>, wide: usize) -> Result<Vec<Label>> {
    let mut found = Vec::new();
    let (before, after) = match term.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (term, None),
    };
    for c in before.chars().chain(after.unwrap_or("").chars()) {
        if !c.is_ascii_alphabetic() {
            return error(format!("`{c}` in `{term}` is not a letter"));
        }
    }
    found.extend(before.chars().map(Label::Letter));
    let letters = before.len() + after.map_or(0, str::len);
    if let Some(after) = after {
        let dims = match rank {
            Some(rank) => rank.checked_sub(letters),
            None => Some(wide),
        };
        let Some(dims) = dims else {
            return error(format!("`{term}` has {letters} letters for a tensor of fewer dims"));
        };
        found.extend((0..dims).rev().map(Label::Ellipsis));
        found.extend(after.chars().map(Label::Letter));
    }
    match rank {
        Some(rank) if found.len() != rank => {
            error(format!("`{term}` names {} dims of a tensor of {rank}", found.len()))
        }
        _ => Ok(found),
    }
}

fn parse(equation: &str, ranks: &[usize]) -> Result<Equation> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, result) = match text.split_once("->") {
        Some((inputs, result)) => (inputs, Some(result)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != ranks.len() {
        return error(format!("the equation has {} terms for {} tensors", terms.len(), ranks.len()));
    }
    let operands = terms.iter().zip(ranks).map(|(t, r)| labels(t, Some(*r), 0)).collect::<Result<Vec<_>>>()?;
    let is_ellipsis = |l: &&Label| matches!(l, Label::Ellipsis(_));
    let wide = operands.iter().map(|o| o.iter().filter(is_ellipsis).count()).max().unwrap_or(0);
    let all: Vec<Label> = operands.iter().flatten().copied().collect();
    let result = match result {
        Some(term) => labels(term, None, wide)?,
        None => {
            // Ellipsis dims first, then the letters that stand once, in alphabetical order.
            let mut once: Vec<char> = all
                .iter()
                .filter_map(|l| if let Label::Letter(c) = l { Some(*c) } else { None })
                .filter(|c| all.iter().filter(|l| **l == Label::Letter(*c)).count() == 1)
                .collect();
            once.sort_unstable();
            (0..wide).rev().map(Label::Ellipsis).chain(once.into_iter().map(Label::Letter)).collect()
        }
    };
    for (i, label) in result.iter().enumerate() {
        if result[..i].contains(label) {
            return error("the result names a dim twice".to_owned());
        }
        if let Label::Letter(c) = label
            && !all.contains(label)
        {
            return error(format!("the result's `{c}` stands in no operand"));
        }
    }
    Ok(Equation { operands, result })
}

/// A tensor whose dims are called by labels, each once.
struct Labelled {
    tensor: Tensor,
    labels: Vec<Label>,
}

impl Labelled {
    /// Takes the diagonal where one label names two dims.
    #[track_caller]
    fn new(tensor: Tensor, labels: &[Label]) -> Labelled {
        let mut it = Labelled { tensor, labels: labels.to_vec() };
        let mut i = 0;
        while i < it.labels.len() {
            match it.labels[..i].iter().position(|l| *l == it.labels[i]) {
                Some(first) => {
                    let label = it.labels.remove(i);
                    it.labels.remove(first);
                    it.labels.push(label);
                    let (dim1, dim2) = (first as isize, i as isize);
                    it.tensor = it.tensor.diagonal(super::diagonal::Diagonal { offset: 0, dim1, dim2 });
                    i = 0;
                }
                None => i += 1,
            }
        }
        it
    }

    fn extent(&self, label: Label) -> Option<usize> {
        self.labels.iter().position(|l| *l == label).map(|i| self.tensor.size(i as isize))
    }

    /// Sums over labels that `keep` does not name.
    #[track_caller]
    fn without(mut self, keep: impl Fn(Label) -> bool) -> Labelled {
        let dims: Vec<usize> = (0..self.labels.len()).filter(|&i| !keep(self.labels[i])).collect();
        if !dims.is_empty() {
            let axes = crate::Axes { dims: dims.into(), keep: false };
            self.tensor = self.tensor.reduce("einsum", lazuli_ir::ReduceOp::Sum, &axes);
            self.labels.retain(|l| keep(*l));
        }
        self
    }

    /// Dims of extent 1 that the other one has longer are dropped: they broadcast.
    #[track_caller]
    fn dropped(mut self, other: &Labelled) -> Labelled {
        let drop: Vec<usize> = (0..self.labels.len())
            .filter(|&i| self.tensor.size(i as isize) == 1 && other.extent(self.labels[i]).is_some_and(|n| n != 1))
            .collect();
        if !drop.is_empty() {
            self.tensor = self.tensor.squeeze(drop.clone());
            for &i in drop.iter().rev() {
                self.labels.remove(i);
            }
        }
        self
    }

    /// The product with another one, summed over labels that `keep` does not name.
    #[track_caller]
    fn join(self, other: Labelled, keep: impl Fn(Label) -> bool) -> Labelled {
        let shared_later = |l: Label, rest: &Labelled| keep(l) || rest.labels.contains(&l);
        let a = self.dropped(&other);
        let b = other.dropped(&a);
        let a_labels = a.labels.clone();
        let a = a.without(|l| shared_later(l, &b));
        let b = b.without(|l| keep(l) || a_labels.contains(&l));
        let at = |t: &Labelled, l: Label| t.labels.iter().position(|x| *x == l).unwrap_or(0);
        let common: Vec<Label> = a.labels.iter().copied().filter(|l| b.labels.contains(l)).collect();
        let pair = |l: &Label| (at(&a, *l), at(&b, *l));
        let (batch, summed): (Vec<Label>, Vec<Label>) = common.iter().copied().partition(|l| keep(*l));
        let dims = DotDims { batch: batch.iter().map(pair).collect(), contract: summed.iter().map(pair).collect() };
        let free = |t: &Labelled| t.labels.iter().copied().filter(|l| !common.contains(l)).collect::<Vec<Label>>();
        let labels = [batch.clone(), free(&a), free(&b)].concat();
        let tensor = if summed.is_empty() {
            let (x, y) = (a.laid_out(&labels), b.laid_out(&labels));
            mul(Argument::Tensor(&x), Argument::Tensor(&y))
        } else {
            let acc = a.tensor.dtype();
            Tensor::record("einsum", Op::Dot { dims, acc }, &[&a.tensor, &b.tensor])
        };
        Labelled { tensor, labels }
    }

    /// The dims in the order of `labels`, with extent 1 for those it has not.
    #[track_caller]
    fn laid_out(&self, labels: &[Label]) -> Tensor {
        let order: Vec<usize> = labels.iter().filter_map(|l| self.labels.iter().position(|x| x == l)).collect();
        let mut tensor = self.tensor.permute(order);
        for (i, label) in labels.iter().enumerate() {
            if !self.labels.contains(label) {
                tensor = tensor.with_dim(i);
            }
        }
        tensor
    }
}

/// Sums of products by an equation, as `torch.einsum`: `"ij,jk->ik"` is a matrix product.
///
/// Letters name dims, `...` stands for those that are left; a letter twice in one term takes the diagonal; letters that the
/// result does not name are summed over. Without `->` the result has the letters that stand once, in alphabetical order.
///
/// # Errors
/// Carried: an equation that does not fit the tensors; dims of one letter that differ and are not 1; dtypes that differ.
///
/// ```
/// # use lazuli::prelude::*;
/// let (a, b) = (Tensor::ones([5, 2, 3]), Tensor::ones([5, 3, 4]));
/// assert_eq!(lazuli::einsum("bij,bjk->bik", &[&a, &b]).shape(), [5, 2, 4]);
/// assert_eq!(lazuli::einsum("bij->j", &[&a]).to_vec::<f32>()?, [10.0; 3]);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn einsum<T: Borrow<Tensor>>(equation: &str, tensors: &[T]) -> Tensor {
    let tensors: &[&Tensor] = &tensors.iter().map(T::borrow).collect::<Vec<_>>();
    let ranks: Vec<usize> = tensors.iter().map(|t| t.rank()).collect();
    let Some(first) = tensors.first() else {
        return Tensor::fail("einsum", tensors, ErrorKind::Value, "takes at least one tensor");
    };
    let Equation { operands, result } = ok!("einsum", tensors, parse(equation, &ranks));
    ok!("einsum", tensors, check_extents(&operands, tensors));
    if tensors.iter().any(|t| t.dtype() != first.dtype()) {
        return Tensor::fail("einsum", tensors, ErrorKind::DType, "operand dtypes differ; convert them with `to`");
    }
    // Integers that a sum alone takes away sum to `i64`, as sums do.
    let lone =
        |i: usize, l: &Label| !result.contains(l) && !operands.iter().enumerate().any(|(j, o)| j != i && o.contains(l));
    let sums = operands.iter().enumerate().any(|(i, o)| o.iter().any(|l| lone(i, l)));
    let dtype = if sums && !first.dtype().is_float() { DType::I64 } else { first.dtype() };
    let acc = wide(dtype);
    let mut sum: Option<Labelled> = None;
    for (i, tensor) in tensors.iter().enumerate() {
        let next = Labelled::new(tensor.cast("einsum", acc), &operands[i]);
        let keep = |l: Label| result.contains(&l) || operands[i + 1..].iter().any(|o| o.contains(&l));
        sum = Some(match sum {
            None => next.without(keep),
            Some(sum) => sum.join(next, keep),
        });
    }
    match sum {
        Some(sum) => sum.laid_out(&result).rounded("einsum", dtype, tensors),
        None => (*first).clone(),
    }
}

/// That dims of one label have one extent, or 1.
fn check_extents(operands: &[Vec<Label>], tensors: &[&Tensor]) -> Result<()> {
    let mut seen: Vec<(Label, usize)> = Vec::new();
    for (labels, tensor) in operands.iter().zip(tensors) {
        for (&label, n) in labels.iter().zip(tensor.shape()) {
            match seen.iter_mut().find(|(l, _)| *l == label) {
                Some((_, m)) if *m == n || n == 1 => {}
                Some((_, m)) if *m == 1 => *m = n,
                Some((_, m)) => return error(format!("{label:?} has extents {m} and {n}")),
                None => seen.push((label, n)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Label, parse};

    #[test]
    fn equations_are_read() {
        let e = parse("...ij, jk", &[4, 2]).unwrap();
        assert_eq!(e.operands[0][..2], [Label::Ellipsis(1), Label::Ellipsis(0)]);
        assert_eq!(e.result[2..], [Label::Letter('i'), Label::Letter('k')]);
        assert!(parse("ij->ik", &[2]).is_err());
        assert!(parse("ij", &[3]).is_err());
        assert!(parse("i1", &[2]).is_err());
        assert!(parse("ij->ii", &[2]).is_err());
    }
}
