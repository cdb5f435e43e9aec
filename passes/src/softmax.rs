//! Divisions of a softmax, where they are least work.
//!
//! A softmax divides exponentials by the sums along their rows, one number a row. What contracts it, or sums its products along
//! rows, may as well contract or sum the exponentials, and divide what comes out, which has fewer elements; or divide the other operand of
//! a contraction, where the rows are contracted. And what divides a contraction's result by such sums (the gradient of a softmax) may
//! divide the operand that has the rows. Exponentials of differences to the largest element are at most 1, and their sums at
//! least 1, so neither order overflows where the other does not.

use crate::contraction::is_with_vector;
use lazuli_ir::{BinaryOp, DType, DimVec, DotDims, Graph, NodeId, Op, ReduceOp, Result, Sources, UnaryOp, Value};
use rustc_hash::{FxHashMap, FxHashSet};

/// A softmax: exponentials, and what divides them.
struct Quotient {
    exponentials: Value,
    sums: Value,
    /// The dims along which they were summed.
    over: DimVec<usize>,
}

impl Quotient {
    fn of(graph: &Graph, x: Value) -> Option<Quotient> {
        let (Op::Binary(BinaryOp::Div), ratio) = (graph.op(x.node), graph.operands(x.node)) else { return None };
        let (sums, kept) = broadcast(graph, ratio[1])?;
        let (summed, over) = summed(graph, sums)?;
        let rest = (0..graph.ty(x).shape.rank()).filter(|d| !over.contains(d));
        (summed == ratio[0] && rest.eq(kept.iter().copied())).then_some(Quotient { exponentials: ratio[0], sums, over })
    }
}

/// What is broadcast, and which dims of the result its dims are.
fn broadcast(graph: &Graph, x: Value) -> Option<(Value, &DimVec<usize>)> {
    match graph.op(x.node) {
        Op::Broadcast { dims, .. } => Some((graph.operands(x.node)[0], dims)),
        _ => None,
    }
}

/// The exponentials whose sums these are, and the dims they are summed over.
fn summed(graph: &Graph, sums: Value) -> Option<(Value, DimVec<usize>)> {
    let reduce = |v: Value, wanted: ReduceOp| match graph.op(v.node) {
        Op::Reduce { op, dims, .. } if *op == wanted => Some((graph.operands(v.node)[0], dims.clone())),
        _ => None,
    };
    let (exponentials, over) = reduce(sums, ReduceOp::Sum)?;
    let (Op::Unary(UnaryOp::Exp), below) = (graph.op(exponentials.node), graph.operands(exponentials.node)) else {
        return None;
    };
    let (Op::Binary(BinaryOp::Sub), difference) = (graph.op(below[0].node), graph.operands(below[0].node)) else {
        return None;
    };
    let (largest, compared) = reduce(broadcast(graph, difference[1])?.0, ReduceOp::Max)?;
    let float = matches!(graph.ty(sums).dtype, DType::F32 | DType::F64);
    (largest == difference[0] && over == compared && float).then_some((exponentials, over))
}

/// Where a contraction divides instead of reading a softmax.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// What it gives: it runs over the dims that were summed.
    Result,
    /// The other operand: it keeps those dims.
    Other,
}

fn place(graph: &Graph, dims: &DotDims, operands: &[Value], side: usize, softmax: &Quotient) -> Option<Place> {
    if is_with_vector(dims, operands, graph) {
        return None;
    }
    let rank = |s: usize| graph.ty(operands[s]).shape.rank();
    let is_over = |of: &[usize]| of.len() == softmax.over.len() && of.iter().all(|d| softmax.over.contains(d));
    let own = |pair: &(usize, usize)| if side == 0 { pair.0 } else { pair.1 };
    let contract: DimVec<usize> = dims.contract.iter().map(own).collect();
    let free = dims.free(side == 1, rank(side));
    let count = |s: usize, of: &[usize]| -> usize {
        let extents = graph.ty(operands[s]).shape.extents();
        of.iter().map(|&d| extents[d]).product()
    };
    let others = count(1 - side, &dims.free(side == 0, rank(1 - side)));
    if others > count(side, &softmax.over) {
        return None;
    }
    if is_over(&contract) {
        let ordered = side == 0 && dims.batch.iter().map(own).chain(free).is_sorted();
        return ordered.then_some(Place::Result);
    }
    is_over(&free).then_some(Place::Other)
}

/// The dims of a contraction's other operand that stand for the dims of one (of that rank) but these, which are its free ones.
fn dims_of_other(dims: &DotDims, but: &[usize], rank: usize, side: usize) -> DimVec<usize> {
    let other = |d: usize| {
        let pairs = dims.batch.iter().chain(&dims.contract);
        pairs.map(|&(l, r)| if side == 0 { (l, r) } else { (r, l) }).find(|p| p.0 == d).map(|p| p.1)
    };
    (0..rank).filter(|d| !but.contains(d)).filter_map(other).collect()
}

/// Which divisions of a graph move, and the values of its rebuilt form that this needs.
pub(crate) struct Divisions {
    /// The softmaxes that nothing needs divided.
    undivided: FxHashSet<NodeId>,
    /// Sums along rows of products with such a softmax.
    sums: FxHashMap<NodeId, NodeId>,
    /// Contractions whose results are divided by sums, and by which.
    divided: FxHashMap<NodeId, NodeId>,
    /// Those divisions.
    quotients: FxHashSet<NodeId>,
    wanted: FxHashSet<NodeId>,
    made: FxHashMap<NodeId, Value>,
}

impl Divisions {
    pub(crate) fn find(graph: &Graph) -> Divisions {
        let mut d = Divisions {
            undivided: FxHashSet::default(),
            sums: FxHashMap::default(),
            divided: FxHashMap::default(),
            quotients: FxHashSet::default(),
            wanted: FxHashSet::default(),
            made: FxHashMap::default(),
        };
        let softmaxes: Vec<(NodeId, Quotient)> =
            graph.nodes().filter_map(|n| Quotient::of(graph, n.into()).map(|q| (n, q))).collect();
        if softmaxes.is_empty() {
            return d;
        }
        let mut readers: Vec<Vec<NodeId>> = vec![Vec::new(); graph.len()];
        for n in graph.nodes() {
            graph.operands(n).iter().for_each(|v| readers[v.node.index()].push(n));
        }
        // What leaves the program is read by something that needs it as it is.
        graph.outputs().iter().for_each(|v| readers[v.node.index()].push(v.node));
        for (n, softmax) in &softmaxes {
            let mut sums = Vec::new();
            let needless = readers[n.index()].iter().all(|&user| match graph.op(user) {
                Op::Dot { dims, .. } => {
                    let operands = graph.operands(user);
                    let side = usize::from(operands[1].node == *n);
                    operands[0] != operands[1] && place(graph, dims, &operands, side, softmax).is_some()
                }
                Op::Binary(BinaryOp::Mul) if user != *n => match row_sum(graph, &readers, user, softmax) {
                    Some(sum) => {
                        sums.push(sum);
                        true
                    }
                    None => false,
                },
                _ => false,
            });
            if needless {
                d.undivided.insert(*n);
                d.sums.extend(sums.into_iter().map(|sum| (sum, *n)));
                d.wanted.insert(*n);
            }
        }
        for n in graph.nodes() {
            d.divided_contraction(graph, &readers, n);
        }
        d
    }

    /// Notes a contraction whose result is divided by the sums of a softmax that come before it, where one operand has fewer elements.
    fn divided_contraction(&mut self, graph: &Graph, readers: &[Vec<NodeId>], n: NodeId) {
        let (Op::Binary(BinaryOp::Div), operands) = (graph.op(n), graph.operands(n)) else { return };
        let dot = operands[0].node;
        let Some((sums, kept)) = broadcast(graph, operands[1]) else { return };
        let Op::Dot { dims, .. } = graph.op(dot) else { return };
        let (left, right) = (graph.ty(graph.operands(dot)[0]), graph.ty(graph.operands(dot)[1]));
        let free = [dims.free(false, left.shape.rank()), dims.free(true, right.shape.rank())];
        let rows = dims.batch.len() + free[0].len();
        let count = |of: &[usize], extents: &[usize]| of.iter().map(|d| extents[*d]).product::<usize>();
        let contract: DimVec<usize> = dims.contract.iter().map(|p| p.0).collect();
        let fewer = count(&contract, &left.shape.extents()) < count(&free[1], &right.shape.extents());
        let fits = readers[dot.index()] == [n] && kept.iter().copied().eq(0..rows) && fewer && sums.node < dot;
        if fits && summed(graph, sums).is_some() {
            self.divided.insert(dot, sums.node);
            self.quotients.insert(n);
            self.wanted.insert(sums.node);
        }
    }

    /// Keeps what a node became, where that is needed later.
    pub(crate) fn keep(&mut self, n: NodeId, made: Value) {
        if self.wanted.contains(&n) {
            self.made.insert(n, made);
        }
    }

    /// The operands of a node with divisions moved, and whether that changed them.
    pub(crate) fn operands(
        &self,
        old: &Graph,
        new: &mut Graph,
        n: NodeId,
        operands: &[Value],
    ) -> Result<(DimVec<Value>, bool)> {
        let mut own: DimVec<Value> = operands.iter().copied().collect();
        let sources = &old.node(n).sources;
        if let (Op::Dot { dims, .. }, Some(sums)) = (old.op(n), self.divided.get(&n).and_then(|l| self.made.get(l))) {
            let kept = rows_of_left(dims, &dims.free(false, new.ty(own[0]).shape.rank()));
            own[0] = divide(new, own[0], *sums, kept, sources)?;
        }
        if let Op::Binary(BinaryOp::Mul) = old.op(n) {
            let reads = old.operands(n);
            for at in (0..2).filter(|at| self.undivided.contains(&reads[*at].node)) {
                own[at] = Quotient::of(new, own[at]).map_or(own[at], |q| q.exponentials);
            }
        }
        let changed = own.as_slice() != operands;
        Ok((own, changed))
    }

    /// What a node becomes whose divisions move; `None` where that is what it was, with its operands.
    pub(crate) fn apply(&self, old: &Graph, new: &mut Graph, n: NodeId, operands: &[Value]) -> Result<Option<Value>> {
        let node = old.node(n);
        let sources = &node.sources;
        Ok(match &node.op {
            Op::Binary(BinaryOp::Div) if self.quotients.contains(&n) => Some(operands[0]),
            Op::Reduce { .. } => {
                let softmax = self.sums.get(&n).and_then(|p| self.made.get(p)).and_then(|p| Quotient::of(new, *p));
                let Some(softmax) = softmax else { return Ok(None) };
                let sum = new.add(node.op.clone(), operands, sources.clone())?;
                Some(new.add(Op::Binary(BinaryOp::Div), &[sum, softmax.sums], sources.clone())?)
            }
            Op::Dot { dims, acc } => {
                let reads = old.operands(n);
                let Some(side) = (0..2).find(|s| self.undivided.contains(&reads[*s].node)) else { return Ok(None) };
                let Some(softmax) = Quotient::of(new, operands[side]) else { return Ok(None) };
                let Some(place) = place(new, dims, operands, side, &softmax) else { return Ok(None) };
                let rank = new.ty(operands[side]).shape.rank();
                let free = dims.free(side == 1, rank);
                let mut operands: DimVec<Value> = operands.iter().copied().collect();
                operands[side] = softmax.exponentials;
                if place == Place::Other {
                    let kept = dims_of_other(dims, &free, rank, side);
                    operands[1 - side] = divide(new, operands[1 - side], softmax.sums, kept, sources)?;
                }
                let dot = new.add(Op::Dot { dims: dims.clone(), acc: *acc }, &operands, sources.clone())?;
                Some(match place {
                    Place::Other => dot,
                    Place::Result => {
                        let kept = (0..dims.batch.len() + free.len()).collect();
                        divide(new, dot, softmax.sums, kept, sources)?
                    }
                })
            }
            _ => None,
        })
    }
}

/// The dims of the left operand that are the first dims of a contraction's result.
fn rows_of_left(dims: &DotDims, free: &[usize]) -> DimVec<usize> {
    dims.batch.iter().map(|p| p.0).chain(free.iter().copied()).collect()
}

/// A value divided by sums that have these dims of it, in any order.
fn divide(graph: &mut Graph, x: Value, mut sums: Value, mut kept: DimVec<usize>, sources: &Sources) -> Result<Value> {
    if !kept.is_sorted() {
        let mut order: DimVec<usize> = (0..kept.len()).collect();
        order.sort_by_key(|d| kept[*d]);
        sums = graph.add(Op::Permute(order), &[sums], sources.clone())?;
        kept.sort_unstable();
    }
    let shape = graph.ty(x).shape.clone();
    let sums = graph.add(Op::Broadcast { shape, dims: kept }, &[sums], sources.clone())?;
    graph.add(Op::Binary(BinaryOp::Div), &[x, sums], sources.clone())
}

/// The sum along a softmax's rows of a product with it, where that is all that becomes of the product: with its sign changed, perhaps.
fn row_sum(graph: &Graph, readers: &[Vec<NodeId>], product: NodeId, softmax: &Quotient) -> Option<NodeId> {
    let [first, second] = graph.operands(product)[..] else { return None };
    let mut at = product;
    while let [only] = readers[at.index()][..] {
        match graph.op(only) {
            Op::Unary(UnaryOp::Neg) if only != at => at = only,
            Op::Reduce { op: ReduceOp::Sum, dims, .. } => {
                return (only != at && *dims == softmax.over && first != second).then_some(only);
            }
            _ => return None,
        }
    }
    None
}
