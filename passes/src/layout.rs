//! The layout pass: in which order the dims of a stored value lie in memory.
//!
//! A side table over the optimised graph, no rewrite: values stay what they are, only where their elements lie changes. By
//! default a value is row-major. It is stored in another order where that makes more bytes contiguous than it makes
//! strided, and the order that a value has decides the order of the loops that write it, so they run along memory.
//!
//! Each value *wishes* an order, with the bytes that are behind the wish:
//!
//! - an input wishes the order of its strides; a contraction has rows before columns, which is how its tile is written, and the
//!   dims of each side as its operand has them;
//! - movement carries a wish along: the wish of a permuted value is permuted, so that `x.t() + y.t()` is stored as `x` and `y`
//!   lie, and both transposes cancel (as strides are preserved in PyTorch);
//! - an elementwise result has the order of the majority of the bytes it is made from. In a tie something is read
//!   across memory anyway, and row-major wins: results keep the layout that the next call expects;
//! - a value that nothing it is made from gives an order (an outer product of vectors, random numbers) takes that of the
//!   values made from it: it is as easily written in one order as in another.
//!
//! Where a stored value has only one reader that reads it across memory, storing it in that reader's order would move the
//! stride from the read to the write and save nothing; so wishes go against the flow only there.

use crate::index_map::reshape_runs;
use lazuli_ir::{DimVec, DotDims, Graph, Layout, NodeId, Op, Shape};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt;

/// Channels that are worth lying innermost.
const MANY_CHANNELS: usize = 16;
/// Places of windows that are worth columns of their own for each image.
const MANY_PLACES: usize = 64;

/// An order of dims in memory, outermost first.
type Order = DimVec<usize>;

/// The physical order of each value that is not row-major.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    orders: FxHashMap<NodeId, Order>,
}

impl Orders {
    /// The dims of a value of this shape as they lie in memory, outermost first.
    pub fn dims(&self, n: NodeId, rank: usize) -> DimVec<usize> {
        self.orders.get(&n).cloned().unwrap_or_else(|| (0..rank).collect())
    }

    /// Some dims of a value, in the order in which they lie in memory.
    pub fn sorted(&self, n: NodeId, dims: &[usize]) -> DimVec<usize> {
        let mut dims: DimVec<usize> = dims.into();
        if let Some(order) = self.orders.get(&n) {
            dims.sort_by_key(|d| order.iter().position(|o| o == d));
        }
        dims
    }

    /// Where the elements of a stored value lie.
    pub fn layout(&self, n: NodeId, shape: &Shape) -> Layout {
        let order = self.dims(n, shape.rank());
        let stored = Shape::from_dims(order.iter().map(|&d| shape.dim(d)));
        let back: DimVec<usize> = (0..order.len()).filter_map(|d| order.iter().position(|o| *o == d)).collect();
        Layout::contiguous(stored).permute(&back)
    }

    /// The same of a graph whose nodes stand for these.
    pub(crate) fn renamed(self, back: &[NodeId]) -> Orders {
        Orders { orders: self.orders.into_iter().map(|(n, order)| (back[n.index()], order)).collect() }
    }

    /// The number of values that are not row-major.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether all values are row-major.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
}

impl fmt::Display for Orders {
    /// A line for each value that is not row-major: `%3 order [1,0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<(&NodeId, &Order)> = self.orders.iter().collect();
        all.sort_unstable();
        for (n, order) in all {
            let dims: Vec<String> = order.iter().map(ToString::to_string).collect();
            writeln!(f, "%{} order [{}]", n.0, dims.join(","))?;
        }
        Ok(())
    }
}

/// A wished order, and the bytes behind it.
#[derive(Clone, Debug)]
struct Wish {
    order: Order,
    bytes: u64,
}

impl Wish {
    /// The wish that long dims lie in this order; the others stay where they are. None, where there is nothing to order.
    fn new(shape: &Shape, dims: impl IntoIterator<Item = usize>, bytes: u64) -> Option<Wish> {
        let dims: DimVec<usize> = dims.into_iter().filter(|&d| !shape.dim(d).is_one()).collect();
        let mut places = dims.clone();
        places.sort_unstable();
        let mut order: Order = (0..shape.rank()).collect();
        for (place, d) in places.into_iter().zip(&dims) {
            order[place] = *d;
        }
        (dims.len() > 1 && !shape.is_empty()).then_some(Wish { order, bytes })
    }

    fn row_major(shape: &Shape, bytes: u64) -> Option<Wish> {
        Wish::new(shape, 0..shape.rank(), bytes)
    }
}

/// The order that has the majority of bytes; row-major where none has.
fn vote(wishes: &[Wish], limit: u64) -> Option<Wish> {
    let total = wishes.iter().fold(0u64, |n, w| n.saturating_add(w.bytes));
    let behind =
        |order: &Order| wishes.iter().filter(|w| w.order == *order).fold(0u64, |n, w| n.saturating_add(w.bytes));
    let rank = wishes.first()?.order.len();
    let winner = wishes.iter().map(|w| &w.order).find(|o| behind(o) > total / 2);
    let order = winner.cloned().unwrap_or_else(|| (0..rank).collect());
    let bytes = behind(&order).min(limit);
    Some(Wish { order, bytes })
}

/// The orders of a graph's values, whose inputs lie as `layouts` say.
pub fn orders(graph: &Graph, layouts: &[Layout]) -> Orders {
    let mut wishes: Vec<Option<Wish>> = vec![None; graph.len()];
    for n in graph.nodes() {
        wishes[n.index()] = forward(graph, layouts, n, &wishes);
    }
    for n in graph.nodes().rev() {
        if wishes[n.index()].is_none() && has_no_order(graph.op(n)) {
            wishes[n.index()] = backward(graph, n, &wishes);
        }
    }
    // What stands before a contraction to be copied is copied as it says.
    for n in graph.nodes() {
        for v in graph.operands(n).iter().filter(|v| is_relayed(graph, n, v.node)) {
            wishes[v.node.index()] = None;
        }
    }
    let row_major = |w: &Wish| w.order.is_sorted();
    let wished = wishes.into_iter().enumerate().filter_map(|(n, w)| Some((NodeId(n as u32), w?)));
    Orders { orders: wished.filter(|(_, w)| !row_major(w)).map(|(n, w)| (n, w.order)).collect() }
}

/// Whether a contraction reads a copy that is made for it: see [`contraction`](crate::contraction).
pub(crate) fn is_relayed(graph: &Graph, reader: NodeId, operand: NodeId) -> bool {
    matches!((graph.op(reader), graph.op(operand)), (Op::Dot { .. }, Op::Permute(_)))
}

/// The pairs of dims that are contracted, as they lie in the larger operand.
pub(crate) fn contraction_order(
    graph: &Graph,
    orders: &Orders,
    dims: &DotDims,
    operands: [NodeId; 2],
) -> Vec<(usize, usize)> {
    let right = shape(graph, operands[1]).elements() > shape(graph, operands[0]).elements();
    let side = |&(l, r): &(usize, usize)| if right { r } else { l };
    let larger: DimVec<usize> = dims.contract.iter().map(side).collect();
    let sorted = orders.sorted(operands[usize::from(right)], &larger);
    sorted.iter().filter_map(|d| dims.contract.iter().copied().find(|pair| side(pair) == *d)).collect()
}

fn shape(graph: &Graph, n: NodeId) -> &Shape {
    &graph.node(n).types[0].shape
}

fn bytes(graph: &Graph, n: NodeId) -> u64 {
    graph.node(n).types[0].bytes() as u64
}

/// Whether any order serves, because elements are computed one by one or lie where others do.
fn has_no_order(op: &Op) -> bool {
    match op {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) | Op::Random { .. } => true,
        Op::Alias | Op::Detach | Op::ToDevice { .. } | Op::Permute(_) => true,
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } => false,
        Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => false,
        Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } => false,
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } => false,
        Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => false,
        Op::Reduce { .. } | Op::Dot { .. } => false,
    }
}

/// What a value wishes because of what it is made from.
fn forward(graph: &Graph, layouts: &[Layout], n: NodeId, wishes: &[Option<Wish>]) -> Option<Wish> {
    let (to, operands) = (shape(graph, n), graph.operands(n));
    let first = operands.first().map(|v| v.node);
    let wish = first.and_then(|x| wishes[x.index()].as_ref());
    let from = first.map(|x| shape(graph, x));
    match graph.op(n) {
        Op::Input { index, .. } => {
            let strides = &layouts.get(*index)?.strides;
            let mut dims: DimVec<usize> = (0..to.rank()).filter(|&d| strides[d] != 0).collect();
            dims.sort_by_key(|&d| (to.dim(d).is_one(), std::cmp::Reverse(strides[d].unsigned_abs())));
            Wish::new(to, dims, bytes(graph, n))
        }
        Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
        Op::Alias | Op::Detach | Op::ToDevice { .. } => wish.cloned(),
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) => {
            let wishes: Vec<Wish> = operands.iter().filter_map(|v| wishes[v.node.index()].clone()).collect();
            // A truth value is small, what it is made from need not be.
            let size = operands.iter().map(|v| graph.ty(*v).bytes() as u64).max();
            vote(&wishes, bytes(graph, n).max(size.unwrap_or(0)))
        }
        Op::Permute(perm) => {
            let order = wish?.order.iter().filter_map(|d| perm.iter().position(|p| p == d));
            Wish::new(to, order, wish?.bytes)
        }
        Op::Broadcast { dims, .. } => {
            let (wish, from) = (wish?, from?);
            let kept = wish.order.iter().filter(|&&d| from.dim(d).same(to.dim(dims[d]))).map(|&d| dims[d]);
            let mut order: DimVec<usize> = kept.filter(|&d| !to.dim(d).is_one()).collect();
            // What is next to each other in memory stays so: dims that are new stand before the last one.
            if let Some(&last) = order.last()
                && !order.is_sorted()
            {
                let new = (0..to.rank()).filter(|d| !order.contains(d)).collect::<DimVec<usize>>();
                order.pop();
                order.extend(new);
                order.push(last);
            }
            Wish::new(to, order, wish.bytes)
        }
        Op::Pad(_) if let Some(order) = padded_order(graph, n, wish) => Wish::new(to, order, bytes(graph, n)),
        Op::Slice(_) | Op::Pad(_) | Op::Flip(_) => Wish::new(to, wish?.order.iter().copied(), wish?.bytes),
        Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } => {
            Wish::new(to, wish?.order.iter().copied(), wish?.bytes)
        }
        Op::Reshape(_) => {
            let (wish, from) = (wish?, from?);
            Wish::new(to, reshaped(&wish.order, from, to)?, wish.bytes)
        }
        Op::Reduce { dims, .. } => {
            let wish = wish?;
            let kept = wish.order.iter().filter(|d| !dims.contains(d));
            Wish::new(to, kept.map(|&d| d - dims.iter().filter(|r| **r < d).count()), wish.bytes)
        }
        Op::Window(dims) => {
            // The elements of windows lie beside their places.
            let inside = |d: usize| dims.iter().position(|w| w.dim == d).map(|i| from.map_or(0, Shape::rank) + i);
            let order = wish?.order.iter().flat_map(|&d| std::iter::once(d).chain(inside(d)));
            Wish::new(to, order, wish?.bytes)
        }
        Op::WindowSum { .. } => Wish::new(to, wish?.order.iter().copied().filter(|d| *d < to.rank()), wish?.bytes),
        // Each side as its operand lies: what is made from a convolution lies as the image.
        Op::Dot { dims, .. } => {
            let batch = dims.batch.len();
            let mut order: Order = (0..batch).collect();
            let elements = window_elements(graph, n);
            for (right, v) in [false, true].into_iter().zip(&operands) {
                let free = dims.free(right, shape(graph, v.node).rank());
                let base = order.len();
                let mut own: DimVec<usize> = (0..free.len()).collect();
                if let Some(wish) = &wishes[v.node.index()] {
                    own.sort_by_key(|&i| wish.order.iter().position(|d| *d == free[i]));
                }
                // Elements of windows that are summed have what they belong to inside of them.
                own.sort_by_key(|&i| !elements.contains(&(base + i)));
                order.extend(own.into_iter().map(|i| base + i));
            }
            let order = image_order(graph, n, dims, wishes).unwrap_or(order);
            Wish::new(to, order, bytes(graph, n))
        }
        // What joins, indexes by data or runs along a dim is written row by row.
        Op::Concat { .. } | Op::Gather { .. } | Op::Scatter { .. } => Wish::row_major(to, bytes(graph, n)),
        Op::Cumulative { .. } | Op::Sort { .. } => Wish::row_major(to, bytes(graph, n)),
    }
}

/// The order of a contraction over windows whose channels lie outside of their places, as PyTorch's images have them, and whose result
/// leaves the program: its own channels lie there as well, so that nobody turns the image. Few places are not worth that. Inside of a
/// program channels lie innermost, where whatever comes after (pooling, sums over places) has them in lanes.
fn image_order(graph: &Graph, n: NodeId, dims: &DotDims, wishes: &[Option<Wish>]) -> Option<Order> {
    let operands = graph.operands(n);
    let right = operands.iter().position(|v| is_of_windows(graph, v.node))? == 1;
    if !leaves(graph, n) {
        return None;
    }
    let own = operands[usize::from(right)].node;
    let free = |right: bool| dims.free(right, shape(graph, operands[usize::from(right)].node).rank());
    let (batch, first) = (dims.batch.len(), dims.batch.len() + free(false).len());
    let base = |right: bool| if right { first } else { batch };
    let contracted = |d: &usize| dims.contract.iter().any(|&(l, r)| *d == if right { r } else { l });
    let order = &wishes[own.index()].as_ref()?.order;
    let at = order.iter().position(contracted)?;
    let place = |part: &[usize]| -> Order {
        part.iter().filter_map(|d| free(right).iter().position(|f| f == d)).map(|i| base(right) + i).collect()
    };
    let (outside, inside) = (place(&order[..at]), place(&order[at..]));
    let extents = shape(graph, n).extents();
    let places: usize = inside.iter().map(|&d| extents[d]).product();
    let others = base(!right)..base(!right) + free(!right).len();
    (places >= MANY_PLACES).then(|| (0..batch).chain(outside).chain(others).chain(inside).collect())
}

/// The order of an image that is padded for a contraction over windows which stays inside of the program: channels lie innermost, so
/// that windows are rows where they lie, for their gradients too. Few channels are not worth that.
fn padded_order(graph: &Graph, n: NodeId, wish: Option<&Wish>) -> Option<Order> {
    let own = shape(graph, n);
    let windows = graph.uses(n).into_iter().map(|u| u.0).filter(|u| matches!(graph.op(*u), Op::Window(_)));
    let mut dots = windows.flat_map(|w| graph.uses(w));
    let channels = dots.find_map(|(dot, position)| {
        let Op::Dot { dims, .. } = graph.op(dot) else { return None };
        let contracted = dims.contract.iter().map(|&(l, r)| if position == 0 { l } else { r });
        let channels: DimVec<usize> = contracted.filter(|d| *d < own.rank()).collect();
        let window = graph.operands(dot)[position].node;
        let Op::Window(windows) = graph.op(window) else { return None };
        let places = windows.iter().any(|w| channels.contains(&w.dim));
        (!places && !leaves(graph, dot)).then_some(channels)
    })?;
    let extents = own.extents();
    let count: usize = channels.iter().map(|&d| extents[d]).product();
    let all = wish.map_or_else(|| (0..own.rank()).collect(), |w| w.order.clone());
    let outside = all.iter().copied().filter(|d| !channels.contains(d));
    (count >= MANY_CHANNELS).then(|| outside.chain(channels.iter().copied()).collect())
}

/// Whether a value, or what is moved or made from it element by element, is a result of the program.
fn leaves(graph: &Graph, n: NodeId) -> bool {
    let mut pending: Vec<NodeId> = vec![n];
    let mut seen: FxHashSet<NodeId> = FxHashSet::default();
    while let Some(n) = pending.pop() {
        if graph.outputs().iter().any(|v| v.node == n) {
            return true;
        }
        let moves = |op: &Op| matches!(op, Op::Reshape(_) | Op::Slice(_) | Op::Pad(_));
        let alike = |u: &NodeId| has_no_order(graph.op(*u)) || moves(graph.op(*u));
        pending.extend(graph.uses(n).into_iter().map(|u| u.0).filter(|u| alike(u) && seen.insert(*u)));
    }
    false
}

/// Whether a value is a view of windows.
fn is_of_windows(graph: &Graph, mut n: NodeId) -> bool {
    while let Op::Permute(_) | Op::Reshape(_) = graph.op(n) {
        n = graph.operands(n)[0].node;
    }
    matches!(graph.op(n), Op::Window(_))
}

/// The dims of a value that are elements of windows which its reader sums.
fn window_elements(graph: &Graph, n: NodeId) -> DimVec<usize> {
    let rank = shape(graph, n).rank();
    let (mut perm, mut at): (DimVec<usize>, NodeId) = ((0..rank).collect(), n);
    while let [(user, _)] = graph.uses(at).as_slice() {
        match graph.op(*user) {
            Op::Permute(next) => perm = next.iter().map(|&p| perm[p]).collect(),
            Op::WindowSum { dims, .. } => return perm[rank - dims.len()..].into(),
            _ => break,
        }
        at = *user;
    }
    DimVec::new()
}

/// The order after a reshape: what becomes of dims lies where the innermost of them does.
fn reshaped(order: &[usize], from: &Shape, to: &Shape) -> Option<Order> {
    let runs = reshape_runs(from, to).ok()?;
    let mut out = Order::new();
    // From the innermost: where a run is interrupted, its innermost dim decides.
    for d in order.iter().rev().filter(|d| !from.dim(**d).is_one()) {
        let (_, t) = runs.iter().find(|(f, _)| f.contains(d))?;
        if !out.contains(&t.start) {
            out.extend(t.clone().rev());
        }
    }
    out.reverse();
    Some(out)
}

/// What a value wishes because of what is made from it.
fn backward(graph: &Graph, n: NodeId, wishes: &[Option<Wish>]) -> Option<Wish> {
    let own = shape(graph, n);
    let wished = graph.uses(n).into_iter().filter_map(|(user, _)| {
        let wish = wishes[user.index()].as_ref()?;
        match graph.op(user) {
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Cast(_)
            | Op::Alias
            | Op::Detach
            | Op::ToDevice { .. } => Some(wish.clone()),
            Op::Permute(perm) => Wish::new(own, wish.order.iter().map(|&d| perm[d]), wish.bytes),
            Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Random { .. } => None,
            Op::Reshape(_) | Op::Broadcast { .. } | Op::Slice(_) | Op::Pad(_) => None,
            Op::Flip(_) | Op::Concat { .. } | Op::Window(_) | Op::WindowSum { .. } => None,
            Op::DynamicSlice(_) | Op::DynamicUpdateSlice { .. } | Op::CheckIndex { .. } => None,
            Op::Gather { .. } | Op::Scatter { .. } | Op::Cumulative { .. } | Op::Sort { .. } => None,
            Op::Reduce { .. } | Op::Dot { .. } => None,
        }
    });
    vote(&wished.collect::<Vec<_>>(), bytes(graph, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_keeps_the_order_of_its_runs() {
        let order = |order: &[usize], from: &[usize], to: &[usize]| {
            reshaped(order, &Shape::new(from.iter().copied()), &Shape::new(to.iter().copied())).map(|o| o.to_vec())
        };
        assert_eq!(order(&[1, 0], &[4, 6], &[4, 2, 3]), Some(vec![1, 2, 0]));
        assert_eq!(order(&[1, 2, 0], &[4, 2, 3], &[4, 6]), Some(vec![1, 0]));
        assert_eq!(order(&[2, 1, 0], &[4, 2, 3], &[4, 6]), Some(vec![1, 0]));
        assert_eq!(order(&[0, 1, 3, 2], &[5, 4, 3, 7], &[5, 12, 7]), Some(vec![0, 2, 1]));
        assert_eq!(order(&[1, 0], &[4, 6], &[24]), Some(vec![0]));
    }

    #[test]
    fn layouts_follow_orders() {
        let orders = Orders { orders: FxHashMap::from_iter([(NodeId(3), [2, 0, 1].into_iter().collect())]) };
        let shape = Shape::new([2, 3, 5]);
        assert_eq!(orders.layout(NodeId(3), &shape).strides.as_slice(), [3, 1, 6]);
        assert_eq!(orders.layout(NodeId(4), &shape), Layout::contiguous(shape.clone()));
        assert_eq!(orders.sorted(NodeId(3), &[0, 1, 2]).as_slice(), [2, 0, 1]);
        assert_eq!(orders.to_string(), "%3 order [2,0,1]\n");
    }
}
