//! The memory plan: the order of kernels, which outputs may take over a donated input, and where intermediate values lie.
//!
//! A kernel that reads a value only at the very index at which it writes another of the same type may write *in place*. For a
//! donated input that makes an update free of allocation, as long as every other reader of the old value runs first: the plan
//! adds those orderings where they close no cycle. Intermediate values get offsets in one workspace by first fit over their
//! lifetimes, largest first; a value may also take over, in place, the bytes of one that dies in its kernel.

use lazuli_ir::kernel::{Access, Binding, Kernel, Memory, ParamId, Stmt, StmtKind};
use lazuli_ir::{Index, NodeId, Target, TargetKind, VarId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;

/// What a step of the plan reads and writes.
#[derive(Clone, Debug)]
pub struct StepUse {
    /// The values of the kernel's parameters.
    pub args: Vec<NodeId>,
    /// Pairs (read, written) that the kernel could do in place.
    pub in_place: Vec<(NodeId, NodeId)>,
    /// The values written.
    pub writes: Vec<NodeId>,
}

/// The parameters that a kernel reads only at the index where it writes another, and before it does: pairs (read, written). On a GPU, threads that
/// do the same all read what one of them writes, and blocks run at any time: there, an element must be one thread's.
pub fn in_place_pairs(kernel: &Kernel, target: &Target) -> Vec<(ParamId, ParamId)> {
    let mut accesses = Accesses { gpu: target.kind != TargetKind::Cpu, ..Accesses::default() };
    for block in [&kernel.body, &kernel.finish] {
        accesses.collect(block, &mut Vec::new());
    }
    let Accesses { loads, stores, shared, .. } = accesses;
    let mut pairs = Vec::new();
    let of = |access: Access| {
        kernel.params.iter().enumerate().filter(move |(_, p)| p.access == access).map(|(i, _)| ParamId(i as u32))
    };
    for read in of(Access::Read) {
        for write in of(Access::Write) {
            let (r, w) = (&kernel.params[read.index()], &kernel.params[write.index()]);
            let mut written = stores.iter().filter(|(p, ..)| *p == write);
            let (Some((_, at, stored)), None) = (written.next(), written.next()) else { continue };
            let before = |(_, x, loaded): &(_, Option<&[Index]>, usize)| *x == Some(*at) && loaded < stored;
            let same = loads.iter().filter(|(p, ..)| *p == read).all(before);
            let own = !shared.contains(&read) && !shared.contains(&write);
            if same && own && (r.dtype, &r.dims, &r.strides) == (w.dtype, &w.dims, &w.strides) {
                pairs.push((read, write));
            }
        }
    }
    pairs
}

/// What a kernel reads and writes, and where.
#[derive(Default)]
struct Accesses<'k> {
    gpu: bool,
    /// The statements so far: what is read and written is noted with its own.
    statement: usize,
    loads: Vec<(ParamId, Option<&'k [Index]>, usize)>,
    stores: Vec<(ParamId, &'k [Index], usize)>,
    /// What has elements that several threads of a GPU touch.
    shared: FxHashSet<ParamId>,
}

impl<'k> Accesses<'k> {
    fn collect(&mut self, block: &'k [Stmt], loops: &mut Vec<(VarId, Binding)>) {
        for s in block {
            // A contraction reads more of an operand than one element.
            let one = !matches!(s.kind, StmtKind::Dot(_));
            self.statement += 1;
            for t in s.kind.touches() {
                let Memory::Param(p) = t.memory else { continue };
                match t.access {
                    Access::Read => self.loads.push((p, (one && !t.masked).then_some(t.index), self.statement)),
                    Access::Write | Access::ReadWrite => self.stores.push((p, t.index, self.statement)),
                }
                if self.gpu && !is_of_one_thread(t.index, loops) {
                    self.shared.insert(p);
                }
            }
            let depth = loops.len();
            match &s.kind {
                StmtKind::Loop(l) => loops.push((l.var, l.axis.binding)),
                StmtKind::Reduce(r) => loops.extend(r.vars.iter().map(|v| (v.0, r.axis.binding))),
                _ => {}
            }
            if let Some(body) = s.kind.body() {
                self.collect(body, loops);
            }
            loops.truncate(depth);
        }
    }
}

/// Whether each thread of a GPU has elements of its own, given the loops around an access.
fn is_of_one_thread(index: &[Index], loops: &[(VarId, Binding)]) -> bool {
    let shares = |binding: Binding| loops.iter().any(|l| l.1 == binding);
    let apart = |l: &(VarId, Binding)| l.1 == Binding::Serial || index.iter().any(|x| x.mentions(l.0));
    (shares(Binding::Block) || (shares(Binding::Warp) && shares(Binding::Lane))) && loops.iter().all(apart)
}

/// An order of steps, and the donors it allows.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The steps, in order.
    pub steps: Vec<usize>,
    /// For an output value: the input value whose storage it may take over.
    pub donors: FxHashMap<NodeId, NodeId>,
}

/// Orders steps. `inputs` are values that a call may donate, `outputs` the stored values that leave; a value that leaves
/// through a view of an input is in both, and is not taken over.
pub fn order(steps: &[StepUse], inputs: &[NodeId], outputs: &[NodeId]) -> Order {
    let n = steps.len();
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); n];
    let mut writer: FxHashMap<NodeId, usize> = FxHashMap::default();
    for (i, s) in steps.iter().enumerate() {
        writer.extend(s.writes.iter().map(|w| (*w, i)));
    }
    let mut readers: FxHashMap<NodeId, Vec<usize>> = FxHashMap::default();
    for (i, s) in steps.iter().enumerate() {
        for a in &s.args {
            match writer.get(a) {
                Some(&w) if w == i => {}
                Some(&w) => {
                    after[w].insert(i);
                }
                None => readers.entry(*a).or_default().push(i),
            }
        }
    }
    let mut donors = FxHashMap::default();
    let mut used = FxHashSet::default();
    let leaves: FxHashSet<NodeId> = outputs.iter().copied().collect();
    let inputs: FxHashSet<NodeId> = inputs.iter().copied().collect();
    for (i, s) in steps.iter().enumerate() {
        for &(read, written) in &s.in_place {
            let fits = inputs.contains(&read) && leaves.contains(&written) && !leaves.contains(&read);
            if !fits || donors.contains_key(&written) || used.contains(&read) {
                continue;
            }
            let others: FxHashSet<usize> =
                readers.get(&read).into_iter().flatten().copied().filter(|&j| j != i).collect();
            if reaches(&after, i, &others) {
                continue;
            }
            others.iter().for_each(|&j| {
                after[j].insert(i);
            });
            donors.insert(written, read);
            used.insert(read);
        }
    }
    Order { steps: topological(&after), donors }
}

/// Whether some way leads from a step to one of others.
fn reaches(after: &[BTreeSet<usize>], from: usize, to: &FxHashSet<usize>) -> bool {
    let mut seen = FxHashSet::default();
    let mut stack = vec![from];
    while let Some(i) = stack.pop() {
        if to.contains(&i) {
            return true;
        }
        if seen.insert(i) {
            stack.extend(&after[i]);
        }
    }
    false
}

fn topological(after: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut waiting = vec![0usize; after.len()];
    after.iter().flatten().for_each(|&j| waiting[j] += 1);
    let mut ready: BTreeSet<usize> = (0..after.len()).filter(|&i| waiting[i] == 0).collect();
    let mut out = Vec::with_capacity(after.len());
    while let Some(i) = ready.pop_first() {
        out.push(i);
        for &j in &after[i] {
            waiting[j] -= 1;
            if waiting[j] == 0 {
                ready.insert(j);
            }
        }
    }
    out
}

/// What has a place in the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Held {
    /// A value.
    Value(NodeId),
    /// What the step of this number uses while it runs.
    Scratch(usize),
}

impl Held {
    /// The alignment of its place.
    fn align(self) -> usize {
        match self {
            Held::Value(_) => ALIGN,
            // What libraries ask for at most.
            Held::Scratch(_) => 256,
        }
    }
}

/// What lives in the workspace: from the step that writes it to the last that reads it.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// What it is.
    pub value: Held,
    /// Its bytes.
    pub bytes: usize,
    /// The position of the step that writes it.
    pub first: usize,
    /// The position of the last step that reads it.
    pub last: usize,
    /// A value that dies where this one is written, and whose bytes it may take.
    pub takes: Option<Held>,
}

/// Alignment of every value.
const ALIGN: usize = 64;

/// Assigns offsets in one workspace. Gives them, and the workspace's size.
pub fn assign(lifetimes: &[Lifetime]) -> (FxHashMap<Held, usize>, usize) {
    let mut offsets: FxHashMap<Held, usize> = FxHashMap::default();
    let by_value: FxHashMap<Held, &Lifetime> = lifetimes.iter().map(|l| (l.value, l)).collect();
    // A chain of values in place is one block that lives from its first to its last.
    let mut root: FxHashMap<Held, Held> = FxHashMap::default();
    let mut blocks: FxHashMap<Held, (usize, usize, usize)> = FxHashMap::default();
    let mut taken = FxHashSet::default();
    for l in lifetimes {
        let from = l
            .takes
            .filter(|t| by_value.get(t).is_some_and(|d| d.last == l.first && d.bytes == l.bytes) && taken.insert(*t));
        let r = from.and_then(|t| root.get(&t).copied()).unwrap_or(l.value);
        root.insert(l.value, r);
        let block = blocks.entry(r).or_insert((l.bytes, l.first, l.last));
        block.2 = block.2.max(l.last);
    }
    let mut order: Vec<(Held, (usize, usize, usize))> = blocks.into_iter().collect();
    order.sort_unstable_by_key(|(v, b)| (std::cmp::Reverse(b.0), *v));
    // In order of offsets: start, end, and the first and last step of each block.
    let mut placed: Vec<(usize, usize, usize, usize)> = Vec::new();
    let mut total = 0;
    for (v, (bytes, first, last)) in order {
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let mut offset = 0;
        for (start, end, ..) in placed.iter().filter(|p| p.2 <= last && first <= p.3) {
            if offset + bytes <= *start {
                break;
            }
            offset = offset.max(end.next_multiple_of(v.align()));
        }
        let at = placed.partition_point(|p| p.0 < offset);
        placed.insert(at, (offset, offset + bytes, first, last));
        total = total.max(offset + bytes);
        offsets.insert(v, offset);
    }
    let all = root.iter().filter_map(|(v, r)| Some((*v, *offsets.get(r)?))).collect();
    (all, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(value: u32, bytes: usize, first: usize, last: usize, takes: Option<u32>) -> Lifetime {
        Lifetime { value: Held::Value(NodeId(value)), bytes, first, last, takes: takes.map(|n| Held::Value(NodeId(n))) }
    }

    #[test]
    fn values_that_live_together_do_not_overlap() {
        let all =
            [life(0, 100, 0, 2, None), life(1, 200, 1, 3, None), life(2, 64, 3, 4, None), life(3, 200, 3, 4, Some(1))];
        let (offsets, total) = assign(&all);
        let (second, last) = (Held::Value(NodeId(1)), Held::Value(NodeId(3)));
        assert_eq!(offsets[&second], offsets[&last], "in place");
        for a in &all {
            for b in &all {
                let in_place = [(a.value, b.value), (b.value, a.value)].contains(&(second, last));
                if a.value != b.value && a.first <= b.last && b.first <= a.last && !in_place {
                    let (x, y) = (offsets[&a.value], offsets[&b.value]);
                    assert!(x + a.bytes <= y || y + b.bytes <= x, "{a:?} at {x} and {b:?} at {y}");
                }
            }
        }
        assert_eq!(total, 256 + 128);
    }

    #[test]
    fn what_a_step_uses_while_it_runs_lies_beside_what_lives_then() {
        let scratch = |step| Lifetime { value: Held::Scratch(step), ..life(0, 1000, step, step, None) };
        let (offsets, total) = assign(&[life(0, 2100, 0, 1, None), scratch(0), scratch(1), life(1, 100, 1, 2, None)]);
        assert_eq!(offsets[&Held::Scratch(0)], 2304);
        assert_eq!(offsets[&Held::Scratch(1)], 2304);
        assert!(offsets.values().all(|at| at.is_multiple_of(64)) && total == 2304 + 1024, "{offsets:?} {total}");
    }

    #[test]
    fn the_last_reader_runs_before_an_update_in_place() {
        let (w, new, h) = (NodeId(0), NodeId(1), NodeId(2));
        let update = StepUse { args: vec![w, new], in_place: vec![(w, new)], writes: vec![new] };
        let reader = StepUse { args: vec![w, h], in_place: vec![], writes: vec![h] };
        let o = order(&[update, reader], &[w], &[new, h]);
        assert_eq!(o.steps, [1, 0]);
        assert_eq!(o.donors.get(&new), Some(&w));
    }
}
