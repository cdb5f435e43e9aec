//! Values that are computed again by the kernels that read them, instead of being stored: the scores of attention.
//!
//! A contraction over few terms gives more elements than it reads. Where its result (or what is made of it element by element) passes
//! between kernels and no cache holds it, making it again costs no more than moving it, and no memory. What fusion would store
//! decides, so the graph is grouped first; then readers in other kernels get a copy of their own, made from stored values and from
//! reductions, which are small. Copies begin with an `alias` of what they read: equal nodes would be one. The
//! graph is grouped again, value and copy in different kernels, and taken if that stores less.

use crate::fusion::{Grouping, Twin, Twins};
use crate::plan::is_movement;
use crate::windows::rebuilt;
use lazuli_ir::{DimVec, Error, Graph, NodeId, Op, Result, Target, TargetKind, Value};
use rustc_hash::{FxHashMap, FxHashSet};

/// Multiply-adds for an element up to which it is computed again. Writing and reading 4 bytes moves 12, at about 10 GB/s a core; in that time
/// a core does 170.
const MOST_TERMS: usize = 192;

/// A graph with copies.
struct Copied {
    graph: Graph,
    /// For each of its nodes the node that it was made for.
    back: Vec<NodeId>,
    twins: Twins,
}

/// The graph with copies, and for each of its nodes the node that it was made for, where its grouping stores less than the one that is
/// given, and takes its place.
pub(crate) fn regroup(
    graph: &Graph,
    grouping: &mut Grouping,
    target: &Target,
    group: &dyn Fn(&Graph, &Twins) -> Result<Grouping>,
) -> Result<Option<(Graph, Vec<NodeId>)>> {
    let Some(Copied { graph: copied, back, twins }) = rewrite(graph, grouping, target)? else { return Ok(None) };
    let new = group(&copied, &twins)?;
    if stored_bytes(&copied, &new) >= stored_bytes(graph, grouping) {
        return Ok(None);
    }
    *grouping = new;
    Ok(Some((copied, back)))
}

/// The graph with copies of what is worth computing again; `None` where there is no such value.
fn rewrite(graph: &Graph, grouping: &Grouping, target: &Target) -> Result<Option<Copied>> {
    if target.kind != TargetKind::Cpu {
        return Ok(None);
    }
    let mut group_of: Vec<Option<usize>> = vec![None; graph.len()];
    for (g, group) in grouping.groups.iter().enumerate() {
        group.members.iter().for_each(|m| group_of[m.index()] = Some(g));
    }
    let least = target.l2_bytes;
    let large = |n: &NodeId| graph.node(*n).types[0].bytes() as u64 > least;
    let stored = grouping.groups.iter().flat_map(|g| g.outputs.iter().copied()).filter(large);
    let leaves = |n: &NodeId| grouping.outputs.iter().any(|o| o.0 == *n);
    let again = Again { graph, group_of: &group_of };
    let values: Vec<NodeId> = stored.filter(|n| !leaves(n) && again.is_worth(*n)).collect();
    if values.is_empty() {
        return Ok(None);
    }
    // What is one of these values, or a view of one.
    let mut views: Vec<Option<usize>> = vec![None; graph.len()];
    for n in graph.nodes() {
        views[n.index()] = match group_of[n.index()] {
            home if values.contains(&n) => home,
            None if is_movement(graph.op(n)) => views[graph.operands(n)[0].node.index()],
            _ => None,
        };
    }
    let mut map: FxHashMap<NodeId, Value> = FxHashMap::default();
    let mut copies: FxHashMap<NodeId, Value> = FxHashMap::default();
    let (made, back) = rebuilt(graph, |new, n, node, operands| {
        if map.is_empty() {
            let inputs = graph.inputs().iter().zip(new.inputs()).map(|((_, old), (_, now))| (*old, Value::from(*now)));
            map.extend(inputs);
        }
        let mut operands: DimVec<Value> = operands.iter().copied().collect();
        if let Some(own) = group_of[n.index()] {
            for (at, v) in graph.operands(n).into_iter().enumerate() {
                if let Some(home) = views[v.node.index()].filter(|home| *home != own) {
                    operands[at] = again.copy(new, (v.node, home), &map, &mut copies)?;
                }
            }
        }
        let value = new.add(node.op.clone(), &operands, node.sources.clone())?;
        map.insert(n, value);
        Ok(value)
    })?;
    let mut twins = Twins::default();
    for (n, copy) in copies {
        // What is computed nowhere in particular is no twin of itself.
        if let (Some(home), Some(value)) = (group_of[n.index()], map.get(&n).filter(|v| **v != copy)) {
            twins.insert(value.node, Twin { home, copy: false });
            twins.insert(copy.node, Twin { home, copy: true });
        }
    }
    Ok(Some(Copied { graph: made, back, twins }))
}

/// What a grouping stores in all.
fn stored_bytes(graph: &Graph, grouping: &Grouping) -> u64 {
    let outputs = grouping.groups.iter().flat_map(|g| &g.outputs);
    outputs.map(|n| graph.node(*n).types[0].bytes() as u64).sum()
}

struct Again<'a> {
    graph: &'a Graph,
    group_of: &'a [Option<usize>],
}

impl Again<'_> {
    /// Whether a node is copied where what is made of it is, and not read: it is computed element by element in the kernel of that, or a
    /// contraction there.
    fn is_part(&self, n: NodeId, home: Option<usize>) -> bool {
        let own = self.group_of[n.index()];
        match self.graph.op(n) {
            Op::Dot { .. } | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) => own == home,
            Op::Random { .. } => own == home,
            Op::Constant { .. } | Op::Iota { .. } => true,
            op => is_movement(op) && (own.is_none() || own == home),
        }
    }

    /// The nodes that a copy of a value consists of, operands first, and what it reads.
    fn parts(&self, n: NodeId, home: Option<usize>) -> (Vec<NodeId>, Vec<NodeId>) {
        let (mut parts, mut read) = (Vec::new(), Vec::new());
        let mut seen: FxHashSet<NodeId> = FxHashSet::default();
        let mut stack = vec![n];
        while let Some(n) = stack.pop() {
            if !seen.insert(n) {
                continue;
            }
            if !self.is_part(n, home) {
                read.push(n);
                continue;
            }
            parts.push(n);
            let below = self.graph.operands(n).into_iter().map(|v| v.node);
            match self.graph.op(n) {
                Op::Dot { .. } => read.extend(below),
                _ => stack.extend(below),
            }
        }
        parts.sort_unstable();
        (parts, read)
    }

    /// Whether a value is made by elements of contractions over few terms, which read less than that.
    fn is_worth(&self, n: NodeId) -> bool {
        let (graph, home) = (self.graph, self.group_of[n.index()]);
        let elements = |n: &NodeId| graph.node(*n).types[0].shape.elements();
        let (parts, read) = self.parts(n, home);
        let terms = |n: &NodeId| match graph.op(*n) {
            Op::Dot { dims, .. } => {
                let extents = graph.ty(graph.operands(*n)[0]).shape.extents();
                Some(dims.contract.iter().map(|p| extents[p.0]).product::<usize>())
            }
            _ => None,
        };
        // What this kernel makes for a contraction lies nowhere; what it reduces can be stored.
        let lies = |n: &NodeId| {
            let mut base = *n;
            while self.group_of[base.index()].is_none() && is_movement(graph.op(base)) {
                base = graph.operands(base)[0].node;
            }
            self.group_of[base.index()] != home || matches!(graph.op(base), Op::Reduce { .. })
        };
        let terms: Vec<usize> = parts.iter().filter_map(terms).collect();
        let few = !terms.is_empty() && terms.iter().sum::<usize>() <= MOST_TERMS;
        few && read.iter().all(lies) && read.iter().map(elements).fold(0, usize::saturating_add) <= elements(&n)
    }

    /// A copy of a value, or of a view of it.
    fn copy(
        &self,
        new: &mut Graph,
        (n, home): (NodeId, usize),
        map: &FxHashMap<NodeId, Value>,
        copies: &mut FxHashMap<NodeId, Value>,
    ) -> Result<Value> {
        let missing = || Error::internal("a value was copied before it was rebuilt");
        for part in self.parts(n, Some(home)).0 {
            if copies.contains_key(&part) {
                continue;
            }
            let node = self.graph.node(part);
            let own = self.graph.operands(part);
            let found = own.iter().map(|v| {
                let reads = matches!(node.op, Op::Dot { .. });
                copies.get(&v.node).filter(|_| !reads).or_else(|| map.get(&v.node)).copied().ok_or_else(missing)
            });
            let mut operands: DimVec<Value> = found.collect::<Result<_>>()?;
            let free = is_movement(&node.op) || operands.is_empty();
            if !free && own.iter().zip(&operands).all(|(v, now)| map.get(&v.node) == Some(now)) {
                operands[0] = new.add(Op::Alias, &[operands[0]], node.sources.clone())?;
            }
            let value = new.add(node.op.clone(), &operands, node.sources.clone())?;
            copies.insert(part, value);
        }
        copies.get(&n).or_else(|| map.get(&n)).copied().ok_or_else(missing)
    }
}
