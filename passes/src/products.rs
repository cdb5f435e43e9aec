//! Contractions that a routine of the back end multiplies (cuBLASLt, on a GPU): which it can take, what it does on the way out, and
//! whether it is worth it.
//!
//! A contraction is *plain* where both operands and the result are batches of matrices where they lie: all dims that count rows lie as
//! one, and so do those of columns and of terms; one distance of each matrix is 1. Dims of the batch lie as one, or as two: then the
//! routine is called for each of the fewer. Operands are read from memory through movements and, where both are halves of one type,
//! through the casts that widen them; a reshape that is no view is stored, as it is for loops.
//!
//! What follows a contraction is done by the routine as far as it means the same: a bias along the columns; the tanh form of
//! `gelu`, whose accuracy NVIDIA does not state, where the result is a half or the operands may be rounded to TF32; the rounding to
//! the operands' halves. A rectifier is not: the routine's is `max(x, 0)`, which does not say that NaN passes. Each value on the way has one reader.
//!
//! The choice is one of times. Fusion first groups all contractions as loops; then for each group that holds plain ones only, the
//! loops' time is compared with that of the routine and of a kernel for what the loops did besides. It needs no measurement: rates
//! are those of the [`Target`].

use crate::fusion::PlannedGroup;
use crate::fusion::views::moved;
pub use crate::gpu_time::WAIT_NS;
use crate::gpu_time::work_ns;
use crate::layout::Orders;
use crate::options::Options;
use crate::plan::is_movement;
use crate::row_panels::RowPanels;
use lazuli_ir::matmul::{Activation, MatrixStrides};
use lazuli_ir::{BinaryOp, DType, DotDims, Graph, Layout, Literal, Matmul, MatmulRoutine, NodeId, Op, Target, UnaryOp};
use rustc_hash::{FxHashMap, FxHashSet};

/// A value in memory, and the element at which a matrix begins.
pub type Stored = (NodeId, i64);

/// A contraction that the routine can take.
#[derive(Clone, Debug)]
pub struct Product {
    /// The contraction and what the routine does with it, in order; the last is stored.
    pub members: Vec<NodeId>,
    /// The left operand.
    pub left: Stored,
    /// The right operand.
    pub right: Stored,
    /// The bias.
    pub bias: Option<Stored>,
    /// What is multiplied.
    pub matmul: Matmul,
}

impl Product {
    /// The contraction.
    pub fn dot(&self) -> NodeId {
        self.members.first().copied().unwrap_or(NodeId(u32::MAX))
    }

    /// The value that is stored.
    pub fn output(&self) -> NodeId {
        self.members.last().copied().unwrap_or(NodeId(u32::MAX))
    }

    /// The stored values that it reads.
    pub fn reads(&self) -> impl Iterator<Item = NodeId> {
        [self.left, self.right].into_iter().chain(self.bias).map(|(n, _)| n)
    }
}

/// The contractions of a graph: the product that each is, or why it is none.
pub(crate) type Found = Vec<(NodeId, Result<Product, String>)>;

/// Finds what the target's routine can take.
pub(crate) fn find(graph: &Graph, layouts: &[Layout], orders: &Orders, options: &Options) -> Found {
    let live = graph.live();
    let mut search = Search {
        graph,
        layouts,
        orders,
        tf32: options.allows_tf32(),
        users: vec![Vec::new(); graph.len()],
        is_output: vec![false; graph.len()],
    };
    for n in graph.nodes().filter(|n| live[n.index()]) {
        graph.operands(n).iter().for_each(|v| search.users[v.node.index()].push(n));
    }
    graph.outputs().iter().for_each(|v| search.is_output[v.node.index()] = true);
    let dots = graph.nodes().filter(|n| live[n.index()] && matches!(graph.op(*n), Op::Dot { .. }));
    dots.map(|n| (n, search.product(n))).collect()
}

/// What a routine does after a contraction.
#[derive(Clone, Default)]
struct Epilogue {
    /// The nodes behind the contraction.
    members: Vec<NodeId>,
    /// What is added.
    bias: Option<NodeId>,
    activation: Activation,
}

struct Search<'a> {
    graph: &'a Graph,
    layouts: &'a [Layout],
    orders: &'a Orders,
    tf32: bool,
    /// For each node, its live readers, once for each time they read it.
    users: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
}

/// Calls of the routine that one contraction is worth.
const MOST_CALLS: usize = 64;

/// A dim of a contraction: its extent, and its strides in the matrices that have it.
type Dim<const N: usize> = (usize, [i64; N]);

impl Search<'_> {
    fn product(&self, dot: NodeId) -> Result<Product, String> {
        let Op::Dot { dims, acc } = self.graph.op(dot) else { return Err("it is no contraction".into()) };
        let operands = self.graph.operands(dot);
        let through = |cast: bool| Some((self.view(operands[0].node, cast)?, self.view(operands[1].node, cast)?));
        let halves = |(l, r): &((NodeId, Layout), (NodeId, Layout))| {
            let (l, r) = (self.dtype(l.0), self.dtype(r.0));
            l == r && l.is_half()
        };
        let views = through(true).filter(halves).or_else(|| through(false));
        let ((left, l), (right, r)) = views.ok_or("an operand does not lie in memory as a view of what is stored")?;
        let dtype = self.dtype(left);
        if !(matches!(acc, DType::F32) && (dtype == DType::F32 || dtype.is_half())
            || (*acc, dtype) == (DType::F64, DType::F64))
        {
            return Err(format!("the routine has no products of {dtype} with sums in {acc}"));
        }
        let mut reason = String::new();
        for epilogue in self.epilogues(dot, dtype) {
            let output = epilogue.members.last().copied().unwrap_or(dot);
            let o = self.orders.layout(output, &self.graph.node(output).types[0].shape);
            match self.fit(dims, [&l, &r, &o], &epilogue, (dtype, *acc, self.dtype(output))) {
                Ok((matmul, swapped, bias)) => {
                    let (left, right) = ((left, l.offset), (right, r.offset));
                    let (left, right) = if swapped { (right, left) } else { (left, right) };
                    let members = [&[dot], epilogue.members.as_slice()].concat();
                    return Ok(Product { members, left, right, bias, matmul });
                }
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    fn dtype(&self, n: NodeId) -> DType {
        self.graph.node(n).types[0].dtype
    }

    /// The stored value that a node is a view of, and the view; with `cast`, through one cast that widens a half.
    fn view(&self, n: NodeId, cast: bool) -> Option<(NodeId, Layout)> {
        let mut chain = Vec::new();
        let (mut base, mut casts) = (n, usize::from(cast));
        loop {
            let op = self.graph.op(base);
            let below = || self.graph.operands(base)[0].node;
            if matches!(op, Op::Cast(DType::F32)) && casts > 0 && self.dtype(below()).is_half() {
                casts -= 1;
            } else if !is_movement(op) {
                break;
            }
            chain.push(base);
            base = below();
        }
        let mut layout = match self.graph.op(base) {
            Op::Input { index, .. } => Layout { offset: 0, ..self.layouts.get(*index)?.clone() },
            Op::Constant { .. } | Op::Iota { .. } => return None,
            _ => self.orders.layout(base, &self.graph.node(base).types[0].shape),
        };
        for &n in chain.iter().rev() {
            layout = match self.graph.op(n) {
                Op::Cast(_) => layout,
                // What is no view of what is stored is stored itself.
                Op::Reshape(shape) if layout.reshape(shape).is_none() => {
                    base = n;
                    self.orders.layout(n, shape)
                }
                op => moved(op, &layout)?,
            };
        }
        Some((base, layout))
    }

    /// What may follow a contraction, the longest first; nothing comes last.
    fn epilogues(&self, dot: NodeId, operands: DType) -> Vec<Epilogue> {
        let mut all = vec![Epilogue::default()];
        let mut last = Epilogue::default();
        let mut at = dot;
        if let Some(sum) = self.only_user(at)
            && matches!(self.graph.op(sum), Op::Binary(BinaryOp::Add))
            && let Some(other) = self.graph.operands(sum).iter().find(|v| v.node != at)
        {
            last.members.push(sum);
            last.bias = Some(other.node);
            at = sum;
            all.push(last.clone());
        }
        if let Some(nodes) = self.gelu_of(at)
            && let Some(&end) = nodes.last()
        {
            last.members.extend(nodes);
            last.activation = Activation::Gelu;
            at = end;
            all.push(last.clone());
        }
        if let Some(cast) = self.only_user(at)
            && operands.is_half()
            && matches!(self.graph.op(cast), Op::Cast(to) if *to == operands)
        {
            last.members.push(cast);
            all.push(last);
        }
        all.reverse();
        all
    }

    fn only_user(&self, n: NodeId) -> Option<NodeId> {
        match self.users[n.index()].as_slice() {
            [user] if !self.is_output[n.index()] => Some(*user),
            _ => None,
        }
    }

    /// The nodes of the tanh form of `gelu` of a value that nothing else reads, in order.
    fn gelu_of(&self, x: NodeId) -> Option<Vec<NodeId>> {
        let end = self.users[x.index()].iter().copied().max()?;
        let twice_root = 2.0 * std::f64::consts::FRAC_2_PI.sqrt();
        let (sigmoid, _) = self.product_with(end, |n| n == x)?;
        let Op::Unary(UnaryOp::Sigmoid) = self.graph.op(sigmoid) else { return None };
        let argument = self.graph.operands(sigmoid)[0].node;
        let (sum, _) = self.product_with(argument, |n| self.is_number(n, twice_root))?;
        let Op::Binary(BinaryOp::Add) = self.graph.op(sum) else { return None };
        let scaled = self.graph.operands(sum).iter().find(|v| v.node != x)?.node;
        let (cube, _) = self.product_with(scaled, |n| self.is_number(n, 0.044715))?;
        let (square, _) = self.product_with(cube, |n| n == x)?;
        let is_square = matches!(self.graph.op(square), Op::Binary(BinaryOp::Mul))
            && self.graph.operands(square).iter().all(|v| v.node == x)
            && self.graph.operands(sum).iter().any(|v| v.node == x);
        let mut nodes = vec![square, cube, scaled, sum, argument, sigmoid, end];
        nodes.sort_unstable();
        let inner = || std::iter::once(x).chain(nodes[..nodes.len() - 1].iter().copied());
        let closed =
            inner().all(|n| !self.is_output[n.index()] && self.users[n.index()].iter().all(|u| nodes.contains(u)));
        (is_square && closed && nodes.last() == Some(&end)).then_some(nodes)
    }

    /// For a product of two values of which one is as asked: the other, and that one.
    fn product_with(&self, n: NodeId, is: impl Fn(NodeId) -> bool) -> Option<(NodeId, NodeId)> {
        let Op::Binary(BinaryOp::Mul) = self.graph.op(n) else { return None };
        let operands = self.graph.operands(n);
        let (a, b) = (operands[0].node, operands[1].node);
        if is(b) { Some((a, b)) } else { is(a).then_some((b, a)) }
    }

    fn is_number(&self, n: NodeId, x: f64) -> bool {
        matches!(self.graph.op(n), Op::Constant { value, .. } if *value == Literal::F64(x).cast(value.dtype()))
    }

    /// The product of operands and a result that lie so, whether its sides are swapped, and its bias.
    fn fit(
        &self,
        dims: &DotDims,
        [l, r, o]: [&Layout; 3],
        epilogue: &Epilogue,
        (operands, acc, result): (DType, DType, DType),
    ) -> Result<(Matmul, bool, Option<Stored>), String> {
        let (extents, others) = (l.shape.extents(), r.shape.extents());
        let free = [dims.free(false, extents.len()), dims.free(true, others.len())];
        let (batches, left_dims) = (dims.batch.len(), free[0].len());
        let along = |d: usize| o.stride(d);
        let batch =
            dims.batch.iter().enumerate().map(|(i, &(a, b))| (extents[a], [along(i), l.stride(a), r.stride(b)]));
        let rows = free[0].iter().enumerate().map(|(i, &d)| (extents[d], [along(batches + i), l.stride(d)]));
        let columns =
            free[1].iter().enumerate().map(|(i, &d)| (others[d], [along(batches + left_dims + i), r.stride(d)]));
        let terms = dims.contract.iter().map(|&(a, b)| (extents[a], [l.stride(a), r.stride(b)]));
        let apart = |what: &str| format!("its {what} lie in several dims that are not one in memory");
        let (outer, batch) = match groups(batch).as_slice() {
            [] => ((1, [0; 3]), (1, [0; 3])),
            [one] => ((1, [0; 3]), *one),
            // The routine is called for each of the fewer ones.
            [a, b] if a.0 < b.0 => (*a, *b),
            [a, b] => (*b, *a),
            _ => return Err(apart("batches")),
        };
        let ((outer, [outer_o, outer_l, outer_r]), (batch, [batch_o, batch_l, batch_r])) = (outer, batch);
        if outer > MOST_CALLS {
            return Err(apart("batches"));
        }
        let (rows, [row_o, row_l]) = merged(rows).ok_or_else(|| apart("rows"))?;
        let (columns, [column_o, column_r]) = merged(columns).ok_or_else(|| apart("columns"))?;
        let (terms, [term_l, term_r]) = merged(terms).ok_or_else(|| apart("terms"))?;
        if [outer, batch, rows, columns, terms].iter().any(|n| *n == 0 || *n > i32::MAX as usize) {
            return Err("it is empty, or larger than the routine counts".into());
        }
        let strided =
            "an operand or the result is no matrix: neither its rows nor its columns are neighbours in memory";
        let matrix = |[outer, batch, row, column]: [i64; 4], rows, columns| {
            matrix(MatrixStrides { outer, batch, row, column }, rows, columns).ok_or(strided)
        };
        let mut matmul = Matmul {
            outer,
            batch,
            rows,
            columns,
            terms,
            operands,
            result,
            acc,
            left: matrix([outer_l, batch_l, row_l, term_l], rows, terms)?,
            right: matrix([outer_r, batch_r, term_r, column_r], terms, columns)?,
            out: matrix([outer_o, batch_o, row_o, column_o], rows, columns)?,
            bias: epilogue.bias.is_some(),
            activation: epilogue.activation,
            tf32: self.tf32 && operands == DType::F32,
        };
        let swapped = matmul.out.column != 1;
        if swapped {
            let Matmul { rows, columns, left, right, out, .. } = matmul;
            matmul = Matmul {
                rows: columns,
                columns: rows,
                left: right.transposed(),
                right: left.transposed(),
                out: out.transposed(),
                ..matmul
            };
        }
        if matmul.activation != Activation::Identity && !(result.is_half() || matmul.tf32) {
            return Err("the routine does not state how exact its gelu is".into());
        }
        if operands == DType::F64 && !epilogue.members.is_empty() {
            return Err("the routine does nothing else to f64".into());
        }
        let along = if swapped { batches..batches + left_dims } else { batches + left_dims..o.shape.rank() };
        let bias = epilogue.bias.map(|n| self.bias(n, along, o, result)).transpose()?;
        Ok((matmul, swapped, bias))
    }

    /// A summand that has a number for each of the columns, which are these dims of the result.
    fn bias(&self, n: NodeId, columns: std::ops::Range<usize>, o: &Layout, result: DType) -> Result<Stored, String> {
        let wrong = || "what is added is not one number for each column, one after the other in memory".to_owned();
        let (base, layout) = self.view(n, result.is_half()).ok_or_else(wrong)?;
        let extents = o.shape.extents();
        let fixed = (0..extents.len()).all(|d| columns.contains(&d) || extents[d] == 1 || layout.stride(d) == 0);
        let counted = merged(columns.map(|d| (extents[d], [o.stride(d), layout.stride(d)])));
        match counted {
            Some((n, [_, stride])) if fixed && (n == 1 || stride == 1) && self.dtype(base) == result => {
                Ok((base, layout.offset))
            }
            _ => Err(wrong()),
        }
    }
}

/// Dims, those that lie as one in all matrices that have them merged: extents and strides, the innermost first. The first matrix says in
/// which order they lie.
fn groups<const N: usize>(dims: impl Iterator<Item = Dim<N>>) -> Vec<Dim<N>> {
    let mut dims: Vec<Dim<N>> = dims.filter(|d| d.0 != 1).collect();
    dims.sort_by_key(|d| d.1[0]);
    let mut groups: Vec<Dim<N>> = Vec::new();
    for (n, next) in dims {
        match groups.last_mut() {
            Some((extent, strides)) if (0..N).all(|i| next[i] == strides[i].saturating_mul(*extent as i64)) => {
                *extent = extent.saturating_mul(n);
            }
            _ => groups.push((n, next)),
        }
    }
    groups
}

/// Dims that lie as one.
fn merged<const N: usize>(dims: impl Iterator<Item = Dim<N>>) -> Option<Dim<N>> {
    match groups(dims).as_slice() {
        [] => Some((1, [0; N])),
        [one] => Some(*one),
        _ => None,
    }
}

/// Strides of a matrix whose rows or columns are neighbours; those of a single row or column do not count.
fn matrix(s: MatrixStrides, rows: usize, columns: usize) -> Option<MatrixStrides> {
    let (m, n) = (rows as i64, columns as i64);
    let s = match (rows, columns) {
        (1, 1) => MatrixStrides { row: 1, column: 1, ..s },
        (1, _) if s.column == 1 => MatrixStrides { row: n, ..s },
        (1, _) => MatrixStrides { row: 1, ..s },
        (_, 1) if s.row == 1 => MatrixStrides { column: 1.max(m), ..s },
        (_, 1) => MatrixStrides { column: 1, ..s },
        _ => s,
    };
    let near = |neighbour: i64, far: i64, extent: i64| neighbour == 1 && far >= extent;
    let fits = near(s.column, s.row, n) || near(s.row, s.column, m);
    let counted = s.row.max(s.column) <= i64::from(i32::MAX);
    (fits && counted && s.batch >= 0 && s.outer >= 0).then_some(s)
}

/// How a contraction is computed, and why: a line of the ledger.
pub(crate) struct Choice {
    pub(crate) dot: NodeId,
    pub(crate) routine: bool,
    pub(crate) reason: String,
}

/// Rows and columns that a block of either computes.
const BLOCK: usize = 64;
/// Terms from which on the routine shares a sum among blocks.
const SHARED_TERMS: usize = 1024;
/// The part of the arithmetic units' rate that loops of fused multiply-adds over shared memory reach.
pub const LOOP_SHARE: f64 = 0.3;

/// Chooses, for each contraction of a graph that was grouped as loops, between these and the routine.
pub(crate) fn choose(graph: &Graph, found: &Found, groups: &[PlannedGroup], target: &Target) -> Vec<Choice> {
    let Some(routine) = target.matmul else { return Vec::new() };
    let plain: FxHashMap<NodeId, &Product> = found.iter().filter_map(|(n, p)| Some((*n, p.as_ref().ok()?))).collect();
    let mut choices: Vec<Choice> = Vec::new();
    for (dot, product) in found {
        if let Err(reason) = product {
            choices.push(Choice { dot: *dot, routine: false, reason: reason.clone() });
        }
    }
    for g in groups {
        let dots: Vec<NodeId> = g.members.iter().copied().filter(|n| matches!(graph.op(*n), Op::Dot { .. })).collect();
        let products: Vec<&Product> = dots.iter().filter_map(|n| plain.get(n).copied()).collect();
        if products.is_empty() {
            continue;
        }
        let (by_routine, reason) = if products.len() < dots.len() {
            (false, "it shares a kernel with one that the routine cannot take".to_owned())
        } else if keeps_scores(graph, g, &products) {
            (false, "its rows are reduced and contracted again where they are, and never stored".to_owned())
        } else {
            let (loops, others) =
                (loops_ns(graph, g, &products, target), routine_ns(graph, g, &products, target, &routine));
            let us = |ns: f64| format!("{:.1} us", ns / 1e3);
            let (fast, slow) = if others < loops { (others, loops) } else { (loops, others) };
            let who = if others < loops { "the routine, with what remains" } else { "a fused loop" };
            let other = if others < loops { "a fused loop" } else { "the routine, with what remains" };
            (others < loops, format!("{who} takes {}, {other} {}", us(fast), us(slow)))
        };
        choices.extend(dots.iter().filter(|n| plain.contains_key(n)).map(|dot| Choice {
            dot: *dot,
            routine: by_routine,
            reason: reason.clone(),
        }));
    }
    choices.sort_by_key(|c| c.dot);
    choices
}

/// Whether a group is attention in full `f32`: rows of one contraction are reduced and contracted again, all within a kernel. What the
/// routine multiplies faster, storing the scores loses in memory.
fn keeps_scores(graph: &Graph, g: &PlannedGroup, products: &[&Product]) -> bool {
    let inside = |n: &NodeId| g.members.binary_search(n).is_ok();
    let full = products.iter().all(|p| p.matmul.operands == DType::F32 && !p.matmul.tf32);
    full && g.members.iter().any(|n| matches!(graph.op(*n), Op::Reduce { .. }))
        && products.iter().any(|p| p.reads().any(|n| inside(&n)))
}

fn bytes(graph: &Graph, n: NodeId) -> f64 {
    graph.node(n).types[0].bytes() as f64
}

/// Blocks of rows and columns.
fn blocks(m: &Matmul) -> usize {
    m.outer.saturating_mul(m.batch).saturating_mul(m.rows.div_ceil(BLOCK)).saturating_mul(m.columns.div_ceil(BLOCK))
}

/// The longer of computing, by as many multiprocessors as there are blocks, and moving, which those that compute do not bound: what one
/// block reads of an operand, others read as well.
fn product_ns(target: &Target, bytes: f64, us: f64, blocks: usize) -> f64 {
    work_ns(target, bytes, 0.0, u64::MAX).max(work_ns(target, 0.0, us, blocks as u64))
}

fn loops_ns(graph: &Graph, g: &PlannedGroup, products: &[&Product], target: &Target) -> f64 {
    let flops: f64 = products.iter().map(|p| p.matmul.flops() as f64).sum();
    let rows = g.plan.as_ref().and_then(|plan| RowPanels::new(graph, plan, target)).map(|cut| cut.panels as usize);
    let blocks = rows.unwrap_or_else(|| products.iter().map(|p| blocks(&p.matmul)).max().unwrap_or(1));
    let inside = |n: &NodeId| g.members.binary_search(n).is_ok();
    let read: f64 = products.iter().flat_map(|p| p.reads()).filter(|n| !inside(n)).map(|n| bytes(graph, n)).sum();
    let stored: f64 = g.outputs.iter().map(|n| bytes(graph, *n)).sum();
    let us = flops / (LOOP_SHARE * target.flops_per_us as f64).max(1.0);
    WAIT_NS + product_ns(target, read + stored, us, blocks)
}

fn routine_ns(graph: &Graph, g: &PlannedGroup, products: &[&Product], target: &Target, routine: &MatmulRoutine) -> f64 {
    let rest = remaining(graph, g, products);
    let one = |p: &&Product| {
        let m = &p.matmul;
        let moved: f64 = p.reads().chain([p.output()]).map(|n| bytes(graph, n)).sum();
        let blocks = blocks(m).saturating_mul(m.terms.div_ceil(SHARED_TERMS));
        let us = m.flops() as f64 / rate(m, routine).max(1) as f64;
        let alone = routine.call_ns as f64 + product_ns(target, moved, us, blocks);
        if rest.is_empty() {
            return alone;
        }
        // A kernel for the rest writes what this one reads, or reads what it writes.
        let passed: f64 = p.reads().filter(|n| rest.contains(n)).chain([p.output()]).map(|n| bytes(graph, n)).sum();
        alone + WAIT_NS + product_ns(target, passed, 0.0, 1)
    };
    products.iter().map(one).sum()
}

/// The members of a group that kernels compute where these products are the routine's. What a product reads through, such as a cast that
/// widens a half, is none.
fn remaining(graph: &Graph, g: &PlannedGroup, products: &[&Product]) -> FxHashSet<NodeId> {
    let mut rest = FxHashSet::default();
    let mut stack = g.outputs.clone();
    while let Some(n) = stack.pop() {
        let below = || graph.operands(n).into_iter().map(|v| v.node);
        match products.iter().find(|p| p.output() == n) {
            _ if g.members.binary_search(&n).is_err() => stack.extend(below().filter(|_| is_movement(graph.op(n)))),
            Some(p) => stack.extend(p.reads()),
            None if rest.insert(n) => stack.extend(below()),
            None => {}
        }
    }
    rest
}

/// Operations that a core does in a microsecond.
fn rate(m: &Matmul, routine: &MatmulRoutine) -> u64 {
    match m.operands {
        DType::F64 => routine.f64_flops_per_us,
        d if d.is_half() => routine.half_flops_per_us,
        _ if m.tf32 => routine.tf32_flops_per_us,
        _ => routine.f32_flops_per_us,
    }
}

/// The nodes that a program computes where these products are the routine's: from the outputs down, what a product reads through is
/// not needed for it.
pub(crate) fn live(graph: &Graph, products: &[Product]) -> Vec<bool> {
    let by_output: FxHashMap<NodeId, &Product> = products.iter().map(|p| (p.output(), p)).collect();
    let mut live = vec![false; graph.len()];
    let mut stack: Vec<NodeId> = graph.outputs().iter().map(|v| v.node).collect();
    while let Some(n) = stack.pop() {
        if std::mem::replace(&mut live[n.index()], true) {
            continue;
        }
        match by_output.get(&n) {
            Some(p) => {
                p.members.iter().for_each(|m| live[m.index()] = true);
                stack.extend(p.reads());
            }
            None => stack.extend(graph.operands(n).iter().map(|v| v.node)),
        }
    }
    live
}
