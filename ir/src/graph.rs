//! The Graph IR: operations on whole tensors, as a directed acyclic graph.
//!
//! A [`Graph`] only grows: passes rebuild old -> new, and [`Graph::add`] hash-conses, so common subexpressions merge by
//! themselves and node order is always topological. Types are inferred when a node is added, by [`infer`]:
//! a graph that exists is well typed. petgraph's types stay inside.

use crate::{Error, Op, Result, Sources, TensorType, infer};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};

/// A node of a graph. Ordered topologically: operands come before their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Its position in node order.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    fn petgraph(self) -> NodeIndex {
        NodeIndex::new(self.index())
    }
}

/// A result of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Which of its results.
    pub result: u32,
}

impl From<NodeId> for Value {
    fn from(node: NodeId) -> Value {
        Value { node, result: 0 }
    }
}

/// A node: an operation, the types of its results, and the source lines it stands for.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// The types of its results.
    pub types: SmallVec<[TensorType; 1]>,
    /// The user's source lines. Outside equality; united when nodes merge.
    pub sources: Sources,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    result: u32,
    position: u32,
}

/// A program on tensors.
#[derive(Clone, Debug)]
pub struct Graph {
    name: String,
    graph: DiGraph<Node, Edge>,
    inputs: Vec<(String, NodeId)>,
    outputs: Vec<Value>,
    known: FxHashMap<u64, SmallVec<[NodeId; 1]>>,
}

/// The operands of a node.
pub type Operands = SmallVec<[Value; 3]>;

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph {
            name: name.into(),
            graph: DiGraph::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            known: FxHashMap::default(),
        }
    }

    /// An empty graph with the name and inputs of another, and those inputs as values: where a rebuild starts.
    pub fn like(other: &Graph) -> (Graph, Vec<Value>) {
        let mut graph = Graph::new(other.name.clone());
        let inputs = other
            .inputs
            .iter()
            .map(|(name, n)| {
                graph.add_input(name.clone(), other.node(*n).types[0].clone(), other.node(*n).sources.clone())
            })
            .collect();
        (graph, inputs)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType, sources: Sources) -> Value {
        let op = Op::Input { index: self.inputs.len(), ty: ty.clone() };
        let node = self.push(op, smallvec::smallvec![ty], sources, &[]);
        self.inputs.push((name.into(), node));
        node.into()
    }

    /// Adds an operation, or finds the equal one that is there; its sources are united then.
    ///
    /// An operation without operands (a constant) keeps the sources it first had: the zeros and ones that a whole program
    /// shares would gather all its lines, in time quadratic in their number.
    ///
    /// An [`Op::Alias`] is always new: its identity is its purpose.
    pub fn add(&mut self, op: Op, operands: &[Value], sources: Sources) -> Result<Value> {
        if matches!(op, Op::Input { .. }) {
            return Err(Error::internal("inputs are added by `add_input`"));
        }
        let ty = {
            let mut types: SmallVec<[&TensorType; 3]> = SmallVec::new();
            for v in operands {
                types.push(self.try_ty(*v)?);
            }
            infer(&op, &types).map_err(|e| e.with_sources(sources.clone()))?
        };
        let key = hash(&op, operands);
        if !matches!(op, Op::Alias) {
            for &n in self.known.get(&key).into_iter().flatten() {
                if self.node(n).op == op && self.operands(n).as_slice() == operands {
                    if !operands.is_empty() {
                        let union = self.node(n).sources.union(&sources);
                        self.graph[n.petgraph()].sources = union;
                    }
                    return Ok(n.into());
                }
            }
        }
        let node = self.push(op, smallvec::smallvec![ty], sources, operands);
        self.known.entry(key).or_default().push(node);
        Ok(node.into())
    }

    fn push(&mut self, op: Op, types: SmallVec<[TensorType; 1]>, sources: Sources, operands: &[Value]) -> NodeId {
        let node = self.graph.add_node(Node { op, types, sources });
        for (position, v) in operands.iter().enumerate() {
            self.graph.add_edge(v.node.petgraph(), node, Edge { result: v.result, position: position as u32 });
        }
        NodeId(node.index() as u32)
    }

    /// Adds a node without a check: how the verifier's tests get graphs to refuse.
    #[cfg(test)]
    pub(crate) fn push_raw(&mut self, op: Op, ty: TensorType, operands: &[(u32, Value)]) {
        let node = self.graph.add_node(Node { op, types: smallvec::smallvec![ty], sources: Sources::none() });
        for &(position, v) in operands {
            self.graph.add_edge(v.node.petgraph(), node, Edge { result: v.result, position });
        }
    }

    /// Adds an output.
    pub fn add_output(&mut self, value: Value) {
        self.outputs.push(value);
    }

    /// Replaces all outputs.
    pub fn set_outputs(&mut self, values: impl IntoIterator<Item = Value>) {
        self.outputs = values.into_iter().collect();
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All nodes, operands before users.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<> {
        (0..self.len() as u32).map(NodeId)
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph[id.petgraph()]
    }

    /// A node's operation.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.node(id).op
    }

    /// The operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> Operands {
        self.operand_positions(id).into_iter().map(|(_, v)| v).collect()
    }

    /// The operands of a node with their positions, in order.
    pub(crate) fn operand_positions(&self, id: NodeId) -> SmallVec<[(u32, Value); 3]> {
        let edges = self.graph.edges_directed(id.petgraph(), Direction::Incoming);
        let mut all: SmallVec<[(u32, Value); 3]> = edges
            .map(|e| {
                (e.weight().position, Value { node: NodeId(e.source().index() as u32), result: e.weight().result })
            })
            .collect();
        all.sort_unstable_by_key(|(position, _)| *position);
        all
    }

    /// The uses of a node's results: (user, operand position), in order of users.
    pub fn uses(&self, id: NodeId) -> SmallVec<[(NodeId, usize); 4]> {
        let edges = self.graph.edges_directed(id.petgraph(), Direction::Outgoing);
        let mut all: SmallVec<[(NodeId, usize); 4]> =
            edges.map(|e| (NodeId(e.target().index() as u32), e.weight().position as usize)).collect();
        all.sort_unstable();
        all
    }

    /// The type of a value.
    pub fn ty(&self, v: Value) -> &TensorType {
        &self.node(v.node).types[v.result as usize]
    }

    fn try_ty(&self, v: Value) -> Result<&TensorType> {
        self.graph
            .node_weight(v.node.petgraph())
            .and_then(|n| n.types.get(v.result as usize))
            .ok_or_else(|| Error::internal(format!("no value {v:?} in graph {}", self.name)))
    }

    /// The inputs: names and nodes.
    pub fn inputs(&self) -> &[(String, NodeId)] {
        &self.inputs
    }

    /// The outputs.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// The graph rebuilt: `rewrite` gets each node that an output needs, with its operands in the new graph, and says what
    /// takes its place there. What it does not want to change it passes to [`Graph::add`]. Dead nodes go away, inputs stay.
    pub fn rebuild(
        &self,
        mut rewrite: impl FnMut(&mut Graph, NodeId, &Node, &[Value]) -> Result<Value>,
    ) -> Result<Graph> {
        let (mut new, inputs) = Graph::like(self);
        let live = self.live();
        let mut map: Vec<Option<Value>> = vec![None; self.len()];
        for ((_, n), v) in self.inputs.iter().zip(inputs) {
            map[n.index()] = Some(v);
        }
        let lookup = |map: &[Option<Value>], v: Value| {
            map[v.node.index()]
                .map(|new| Value { node: new.node, result: new.result + v.result })
                .ok_or_else(|| Error::internal(format!("{v:?} was used before it was rebuilt")))
        };
        for n in self.nodes() {
            if map[n.index()].is_some() || !live[n.index()] {
                continue;
            }
            let mut operands = Operands::new();
            for v in self.operands(n) {
                operands.push(lookup(&map, v)?);
            }
            map[n.index()] = Some(rewrite(&mut new, n, self.node(n), &operands)?);
        }
        for v in &self.outputs {
            let v = lookup(&map, *v)?;
            new.add_output(v);
        }
        Ok(new)
    }

    /// For each node, whether an output depends on it.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.len()];
        for v in &self.outputs {
            live[v.node.index()] = true;
        }
        for n in self.nodes().rev() {
            if live[n.index()] {
                for v in self.graph.neighbors_directed(n.petgraph(), Direction::Incoming) {
                    live[v.index()] = true;
                }
            }
        }
        live
    }
}

/// Graphs are equal where they have the same nodes in the same order, inputs' names and outputs included; sources are not
/// compared.
impl PartialEq for Graph {
    fn eq(&self, other: &Graph) -> bool {
        self.name == other.name
            && self.inputs == other.inputs
            && self.outputs == other.outputs
            && self.len() == other.len()
            && self.nodes().all(|n| self.op(n) == other.op(n) && self.operands(n) == other.operands(n))
    }
}

fn hash(op: &Op, operands: &[Value]) -> u64 {
    let mut hasher = FxHasher::default();
    op.hash(&mut hasher);
    operands.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BinaryOp, DType};

    #[test]
    fn equal_nodes_merge_and_operands_keep_their_order() {
        let mut g = Graph::new("g");
        let ty = TensorType::new([2], DType::F32);
        let x = g.add_input("x", ty.clone(), Sources::none());
        let y = g.add_input("y", ty, Sources::none());
        let a = g.add(Op::Binary(BinaryOp::Sub), &[x, y], Sources::none()).unwrap();
        let b = g.add(Op::Binary(BinaryOp::Sub), &[x, y], Sources::none()).unwrap();
        let c = g.add(Op::Binary(BinaryOp::Sub), &[y, x], Sources::none()).unwrap();
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(g.operands(c.node).as_slice(), [y, x]);
        let same = g.add(Op::Binary(BinaryOp::Sub), &[x, x], Sources::none()).unwrap();
        assert_eq!(g.operands(same.node).as_slice(), [x, x]);
        let alias = g.add(Op::Alias, &[x], Sources::none()).unwrap();
        assert_ne!(alias, g.add(Op::Alias, &[x], Sources::none()).unwrap());
    }
}
