//! Simplification: algebra, constant folding, and movement operations composed and cancelled, in one pass over the graph.
//!
//! Needs: any graph. Guarantees: the values that the reference evaluator gives, bit for bit but for the sign and payload of
//! NaNs; no `alias` and no `detach`, which matter to differentiation alone; no node but inputs and splats without elements; no
//! rule applies to a node of the result. Source lines of a node that vanishes go to the node that stands for it.
//!
//! One rebuild, operands before users. Rules look at the node about to be built and at operands that are final already, and
//! are applied to it again and again until none fits; each makes the expression smaller or moves a movement operation
//! towards the inputs, so that ends, after a number of steps that does not grow with the graph. Rules are in
//! [`fold`](crate::fold) (values known now), [`simplify_algebra`](crate::simplify_algebra) and
//! [`simplify_movement`](crate::simplify_movement); each checks shape, dtype and ties itself and matches constants by their
//! bits.

use crate::driver::Rewritten;
use crate::{fold, simplify_algebra, simplify_dot, simplify_movement};
use lazuli_ir::graph::{Node, Operands};
use lazuli_ir::{Error, Graph, Literal, NodeId, Op, Result, Shape, Sources, TensorType, Value, infer};
use smallvec::SmallVec;

/// What a rule makes of a node.
pub(crate) enum Step {
    /// A value that is there already.
    Use(Value),
    /// Another node.
    Node(Op, Operands),
    /// A node and a second one on it.
    Chain((Op, Operands), Box<Outer>),
}

/// The second node of a [`Step::Chain`]: the first is its operand number `at`, `others` are the rest.
pub(crate) struct Outer {
    pub(crate) op: Op,
    pub(crate) others: Operands,
    pub(crate) at: usize,
}

impl Step {
    /// Another node.
    pub(crate) fn node(op: Op, operands: impl IntoIterator<Item = Value>) -> Option<Step> {
        Some(Step::Node(op, operands.into_iter().collect()))
    }

    /// A splat.
    pub(crate) fn constant(value: Literal, shape: &Shape) -> Option<Step> {
        Step::node(Op::Constant { value, shape: shape.clone() }, [])
    }

    /// `outer` of `inner` of one operand.
    pub(crate) fn chain(inner: Op, operands: impl IntoIterator<Item = Value>, outer: Op) -> Option<Step> {
        let outer = Box::new(Outer { op: outer, others: Operands::new(), at: 0 });
        Some(Step::Chain((inner, operands.into_iter().collect()), outer))
    }
}

/// The node that rules look at, not built yet, with the graph of its operands.
pub(crate) struct Candidate<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) op: &'a Op,
    pub(crate) operands: &'a [Value],
    /// Its type.
    pub(crate) ty: &'a TensorType,
    /// Whether it is certainly the only reader of its first operand, so that a rule may repeat that operand's work.
    pub(crate) sole_use: bool,
}

impl Candidate<'_> {
    /// The type of an operand.
    pub(crate) fn operand_ty(&self, i: usize) -> &TensorType {
        self.graph.ty(self.operands[i])
    }

    /// The operation that makes an operand.
    pub(crate) fn operand_op(&self, i: usize) -> &Op {
        self.graph.op(self.operands[i].node)
    }

    /// The operands of operand `i`.
    pub(crate) fn inner(&self, i: usize) -> Operands {
        self.graph.operands(self.operands[i].node)
    }

    /// The element of an operand that is a splat.
    pub(crate) fn splat(&self, i: usize) -> Option<Literal> {
        splat(self.graph, self.operands[i])
    }
}

/// The element of a value that is a splat.
pub(crate) fn splat(graph: &Graph, v: Value) -> Option<Literal> {
    match graph.op(v.node) {
        Op::Constant { value, .. } => Some(*value),
        _ => None,
    }
}

/// The simplified graph.
pub(crate) fn simplify(graph: &Graph) -> Result<Rewritten> {
    let mut rewrites = 0;
    let uses = uses(graph);
    let new = graph.rebuild(|new, n, node, operands| {
        let sole = sole_readers(graph, &uses, n, new, operands);
        build(new, node, operands, &sole, &mut rewrites)
    })?;
    Ok(Some((new, rewrites)))
}

/// The first operand of a node, the first one of that, and so on, in the graph that is made, as long as nothing else reads them.
fn sole_readers(graph: &Graph, uses: &[u32], n: NodeId, new: &Graph, operands: &[Value]) -> SmallVec<[Value; 4]> {
    let mut sole: SmallVec<[Value; 4]> = SmallVec::new();
    let (mut old, mut made) = (n, operands.first().copied());
    while let (Some(x), Some(v)) = (graph.operands(old).first().map(|x| x.node), made) {
        if uses[x.index()] != 1 || sole.len() == MOST_READERS {
            break;
        }
        old = x;
        // A reshape to the same shape is gone.
        let same = |y: &Value| matches!(graph.op(x), Op::Reshape(_)) && graph.ty(*y) == graph.ty(x.into());
        if graph.operands(x).first().is_some_and(same) {
            continue;
        }
        sole.push(v);
        // What rules made something else of has other operands.
        made = if new.op(v.node) == graph.op(x) { new.operands(v.node).first().copied() } else { None };
    }
    sole
}

/// How far a rule may pass on what it wants: through the permute, the contraction, the windows and the padding of a convolution.
const MOST_READERS: usize = 4;

/// How often each node is read, by live nodes and as an output.
fn uses(graph: &Graph) -> Vec<u32> {
    let live = graph.live();
    let mut uses = vec![0; graph.len()];
    for n in graph.nodes().filter(|n| live[n.index()]) {
        for v in graph.operands(n) {
            uses[v.node.index()] += 1;
        }
    }
    for v in graph.outputs() {
        uses[v.node.index()] += 1;
    }
    uses
}

/// Far above what rules can do to one node: a cycle of rules is an error, not a hang.
const STEP_LIMIT: usize = 1000;

fn ty(graph: &Graph, op: &Op, operands: &[Value]) -> Result<TensorType> {
    let types: SmallVec<[&TensorType; 3]> = operands.iter().map(|v| graph.ty(*v)).collect();
    infer(op, &types)
}

fn build(graph: &mut Graph, node: &Node, operands: &[Value], sole: &[Value], rewrites: &mut usize) -> Result<Value> {
    let mut op = node.op.clone();
    let mut operands: Operands = operands.into();
    let mut sources = node.sources.clone();
    let mut outer: SmallVec<[Outer; 1]> = SmallVec::new();
    for _ in 0..STEP_LIMIT {
        let ty = ty(graph, &op, &operands)?;
        let sole_use = operands.first().is_some_and(|v| sole.contains(v));
        let step = first_rule(&Candidate { graph, op: &op, operands: &operands, ty: &ty, sole_use });
        *rewrites += usize::from(step.is_some());
        let made = match step {
            Some(Step::Node(next, on)) => {
                sources = inherit(graph, sources, &operands, &on);
                (op, operands) = (next, on);
                continue;
            }
            Some(Step::Chain((next, on), last)) => {
                let after: Operands = on.iter().chain(&last.others).copied().collect();
                sources = inherit(graph, sources, &operands, &after);
                (op, operands) = (next, on);
                outer.push(*last);
                continue;
            }
            Some(Step::Use(v)) => credit(graph, v, &sources)?,
            None => graph.add(op, &operands, sources.clone())?,
        };
        match outer.pop() {
            Some(mut next) => {
                next.others.insert(next.at, made);
                (op, operands) = (next.op, next.others);
            }
            None => return Ok(made),
        }
    }
    Err(Error::internal("simplify does not come to an end").with_operation(node.op.name(), []))
}

fn first_rule(c: &Candidate<'_>) -> Option<Step> {
    fold::rule(c)
        .or_else(|| simplify_algebra::rule(c))
        .or_else(|| simplify_movement::rule(c))
        .or_else(|| simplify_dot::rule(c))
}

/// The sources of a node that takes the place of another: with those of operands it no longer has, which it absorbed.
fn inherit(graph: &Graph, sources: Sources, before: &[Value], after: &[Value]) -> Sources {
    before
        .iter()
        .filter(|v| !after.contains(v) && splat(graph, **v).is_none())
        .fold(sources, |all, v| all.union(&graph.node(v.node).sources))
}

/// Adds sources to a node that now stands for them: adding an equal node unites them.
fn credit(graph: &mut Graph, v: Value, sources: &Sources) -> Result<Value> {
    match graph.op(v.node) {
        Op::Input { .. } | Op::Constant { .. } => Ok(v),
        op => {
            let (op, operands) = (op.clone(), graph.operands(v.node));
            graph.add(op, &operands, sources.clone())
        }
    }
}
