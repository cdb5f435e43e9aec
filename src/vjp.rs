//! Gradients of recorded tensors: history becomes a graph, the graph's vjp is recorded onto the tensors that exist.
//!
//! The graph has a node for each history entry that lies between what is differentiated and what it is differentiated by.
//! What a derivative rule reads is already there as a tensor, so the appended nodes reuse its value; hash-consing may find
//! that a rule asks for a forward node nobody kept, which is then recorded again from what is kept.

use crate::history::{self, History, Kind, Saved};
use crate::node::Node;
use crate::tensor::Tensor;
use lazuli_ir::{Error, ErrorKind, Graph, Op, Result, Source, Sources, TensorType, Value};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::sync::Arc;

/// The history entries behind some outputs, in recording order.
pub(crate) struct Region {
    entries: Vec<(Arc<History>, Saved)>,
    /// Whether a gradient could flow further than to what it is taken by: to a leaf, a cut, or an entry outside.
    pub(crate) open: bool,
}

/// Where a region ends.
pub(crate) enum Border<'a> {
    /// Nowhere: all leaves are in it. A cut, or an entry that was freed, is an error.
    Leaves,
    /// At these entries, which were made just before the operations of the region.
    At(&'a [Arc<History>]),
}

impl Region {
    /// The entries behind these.
    pub(crate) fn behind(outputs: &[Arc<History>], border: &Border<'_>) -> Result<Region> {
        let (first, ends): (u64, FxHashSet<*const History>) = match border {
            Border::Leaves => (0, FxHashSet::default()),
            Border::At(ends) => {
                (ends.iter().map(|h| h.order).min().unwrap_or(u64::MAX), ends.iter().map(Arc::as_ptr).collect())
            }
        };
        let mut seen: FxHashSet<*const History> = FxHashSet::default();
        let mut pending: Vec<Arc<History>> = outputs.to_vec();
        let mut region = Region { entries: Vec::new(), open: false };
        while let Some(entry) = pending.pop() {
            let is_end = ends.contains(&Arc::as_ptr(&entry));
            if entry.order < first {
                region.open = true;
                continue;
            }
            if !seen.insert(Arc::as_ptr(&entry)) {
                continue;
            }
            let saved = match &entry.kind {
                Kind::Leaf { .. } => {
                    region.open |= !is_end;
                    Saved::default()
                }
                Kind::Cut { function } => match border {
                    Border::Leaves => return Err(cut(&entry, function)),
                    Border::At(_) => {
                        region.open = true;
                        Saved::default()
                    }
                },
                Kind::Operation(_) => {
                    let saved = entry.saved().ok_or_else(|| freed(&entry))?;
                    let operands = saved.edges.iter().filter_map(|e| e.history.clone());
                    if is_end {
                        region.open |= operands.count() > 0;
                        Saved::default()
                    } else {
                        pending.extend(operands);
                        saved
                    }
                }
            };
            region.entries.push((entry, saved));
        }
        region.entries.sort_unstable_by_key(|(entry, _)| entry.order);
        Ok(region)
    }

    /// The leaves, in recording order.
    pub(crate) fn leaves(&self) -> Vec<Arc<History>> {
        let leaves = self.entries.iter().filter(|(entry, _)| matches!(entry.kind, Kind::Leaf { .. }));
        leaves.map(|(entry, _)| entry.clone()).collect()
    }

    /// Frees what the entries keep.
    pub(crate) fn free(&self) {
        self.entries.iter().for_each(|(entry, _)| entry.free());
    }

    /// The gradients with respect to `wrt`, given those of the outputs. `None`: no differentiable path leads there.
    /// They have history themselves where `create_graph` says so.
    pub(crate) fn vjp(
        &self,
        outputs: &[(Arc<History>, Tensor)],
        wrt: &[Arc<History>],
        create_graph: bool,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut plan = Plan::of(self, wrt)?;
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        for (output, cotangent) in outputs {
            let cotangent = plan.input(&cotangent.node.ty, Some(cotangent.clone()), cotangent.node.source);
            pairs.push((plan.value(output)?, cotangent));
        }
        let mut by: Vec<Value> = Vec::new();
        for entry in wrt {
            // What no output reaches is an input that nothing reads.
            by.push(
                plan.values
                    .get(&Arc::as_ptr(entry))
                    .copied()
                    .unwrap_or_else(|| plan.input(&entry.ty, None, entry.source)),
            );
        }
        let gradients = lazuli_passes::vjp(&mut plan.graph, &pairs, &by)?;
        history::with_history(create_graph, || plan.record(&gradients))
    }
}

#[cold]
fn cut(entry: &History, function: &str) -> Error {
    let message = format!(
        "this gradient would have to flow back into the compiled function `{function}`, which keeps no history: take it \
         inside, `compile(|..| value_and_grad(|w| ..)(&w))`, or call `detach()` on the result if it counts as a constant"
    );
    Error::new(ErrorKind::Autograd, message).with_sources(entry.source)
}

#[cold]
fn freed(entry: &History) -> Error {
    let message = "the history of this tensor was freed by an earlier `backward`; pass \
                   `Backward { retain_graph: true, .. }` to the first one to go through it again";
    Error::new(ErrorKind::Autograd, message).with_operation(entry.name(), [entry.ty.clone()]).with_sources(entry.source)
}

/// A region as a graph, with the tensors that are known for its values.
struct Plan {
    graph: Graph,
    values: FxHashMap<*const History, Value>,
    constants: FxHashMap<*const Node, Value>,
    known: Vec<Option<Tensor>>,
}

impl Plan {
    fn of(region: &Region, wrt: &[Arc<History>]) -> Result<Plan> {
        let mut plan = Plan {
            graph: Graph::new("backward"),
            values: FxHashMap::default(),
            constants: FxHashMap::default(),
            known: Vec::new(),
        };
        let ends: FxHashSet<*const History> = wrt.iter().map(Arc::as_ptr).collect();
        for (entry, saved) in &region.entries {
            let value = match &entry.kind {
                Kind::Operation(op) if !ends.contains(&Arc::as_ptr(entry)) => plan.operation(entry, op, saved)?,
                Kind::Operation(_) | Kind::Leaf { .. } | Kind::Cut { .. } => plan.input(&entry.ty, None, entry.source),
            };
            plan.values.insert(Arc::as_ptr(entry), value);
        }
        Ok(plan)
    }

    fn value(&self, entry: &Arc<History>) -> Result<Value> {
        let value = self.values.get(&Arc::as_ptr(entry)).copied();
        value.ok_or_else(|| Error::internal("an output outside of the region that was built from it"))
    }

    fn input(&mut self, ty: &TensorType, known: Option<Tensor>, source: Source) -> Value {
        let value = self.graph.add_input(String::new(), ty.clone(), source.into());
        self.learn(value, known);
        value
    }

    fn learn(&mut self, value: Value, tensor: Option<Tensor>) {
        if self.known.len() <= value.node.index() {
            self.known.resize(value.node.index() + 1, None);
        }
        if let Some(tensor) = tensor {
            self.known[value.node.index()].get_or_insert(tensor);
        }
    }

    fn operation(&mut self, entry: &Arc<History>, op: &Op, saved: &Saved) -> Result<Value> {
        let mut operands: SmallVec<[Value; 3]> = SmallVec::new();
        for edge in &saved.edges {
            let tensor = edge.node.clone().map(|node| Tensor { node, history: edge.history.clone() });
            let inside = edge.history.as_ref().and_then(|h| self.values.get(&Arc::as_ptr(h)).copied());
            operands.push(match (inside, tensor) {
                (Some(value), tensor) => {
                    self.learn(value, tensor);
                    value
                }
                (None, Some(tensor)) => self.constant(tensor),
                (None, None) => self.input(&edge.ty, None, entry.source),
            });
        }
        let value = self.graph.add(op.clone(), &operands, Sources::from(entry.source))?;
        let result = saved.result.clone().map(|node| Tensor { node, history: Some(entry.clone()) });
        self.learn(value, result);
        Ok(value)
    }

    /// A tensor that no gradient flows to.
    fn constant(&mut self, tensor: Tensor) -> Value {
        let at = Arc::as_ptr(&tensor.node);
        if let Some(value) = self.constants.get(&at) {
            return *value;
        }
        let (ty, source) = (tensor.node.ty.clone(), tensor.node.source);
        let value = self.input(&ty, Some(tensor), source);
        self.constants.insert(at, value);
        value
    }

    /// Records what the gradients need and nobody has.
    fn record(&mut self, gradients: &[Option<Value>]) -> Result<Vec<Option<Tensor>>> {
        self.known.resize(self.graph.len(), None);
        let mut needed = vec![false; self.graph.len()];
        let mut pending: Vec<Value> = gradients.iter().flatten().copied().collect();
        while let Some(value) = pending.pop() {
            let i = value.node.index();
            if self.known[i].is_none() && !std::mem::replace(&mut needed[i], true) {
                pending.extend(self.graph.operands(value.node));
            }
        }
        for id in self.graph.nodes().filter(|n| needed[n.index()]) {
            let node = self.graph.node(id);
            if matches!(node.op, Op::Input { .. }) {
                return Err(Error::internal("a derivative rule reads a value that history does not keep")
                    .with_sources(node.sources.clone()));
            }
            let operands = self.graph.operands(id);
            let mut tensors: SmallVec<[&Tensor; 3]> = SmallVec::new();
            for v in &operands {
                let tensor = self.known[v.node.index()].as_ref();
                tensors.push(tensor.ok_or_else(|| Error::internal("a gradient's operand was not recorded"))?);
            }
            let source = node.sources.as_slice().first().copied().unwrap_or_else(Source::caller);
            let tensor = Tensor::record_typed(node.op.clone(), node.types[0].clone(), &tensors, source);
            drop(tensors);
            self.known[id.index()] = Some(tensor);
        }
        Ok(gradients.iter().map(|g| g.and_then(|v| self.known[v.node.index()].clone())).collect())
    }
}
