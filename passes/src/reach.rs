//! Paths between groups: whether two may become one kernel without another that must run between them.
//!
//! Groups form a directed acyclic graph, which merging two of them keeps acyclic iff no path leads from one to the other
//! through a third. [`Order`] keeps a topological order of the groups, and each merge repairs it where it touches it; so a
//! search for a path looks only at what stands between the two. [`Ancestry`] answers the common yes at once: where a node
//! reads two values of which one is made from the other, the way over the other is a path around.

use lazuli_ir::{DimVec, NodeId};
use std::collections::BTreeMap;

/// A topological order of groups, as labels that grow along every edge.
pub(crate) struct Order {
    label: Vec<u64>,
    at: BTreeMap<u64, usize>,
}

/// The distance of labels that nothing stands between.
const GAP: u64 = 1 << 24;

impl Order {
    /// Groups in the order of their numbers.
    pub(crate) fn new(groups: usize) -> Order {
        let label: Vec<u64> = (1..=groups as u64).map(|i| i * GAP).collect();
        let at = label.iter().enumerate().map(|(g, l)| (*l, g)).collect();
        Order { label, at }
    }

    /// Whether `a` stands before `b`.
    pub(crate) fn before(&self, a: usize, b: usize) -> bool {
        self.label[a] < self.label[b]
    }

    /// Two groups, the first before the second, became `kept`, one of them. `between` are those groups between them
    /// that lead to the second: they move before the first, in their order.
    pub(crate) fn join(&mut self, first: usize, second: usize, kept: usize, mut between: Vec<usize>) {
        between.sort_unstable_by_key(|g| self.label[*g]);
        let mut end = self.label[first];
        for g in between.iter().chain([&second]) {
            self.at.remove(&self.label[*g]);
        }
        let room = between.len() as u64 + 1;
        let mut start = self.at.range(..end).next_back().map_or(0, |(l, _)| *l);
        if end - start < room {
            self.spread(room);
            end = self.label[first];
            start = self.at.range(..end).next_back().map_or(0, |(l, _)| *l);
        }
        self.at.remove(&end);
        let step = (end - start) / room;
        for (i, g) in between.into_iter().enumerate() {
            self.place(g, start + step * (i as u64 + 1));
        }
        self.place(kept, end);
    }

    fn place(&mut self, g: usize, label: u64) {
        self.label[g] = label;
        self.at.insert(label, g);
    }

    /// New labels with room for `room` between neighbours.
    fn spread(&mut self, room: u64) {
        let groups: Vec<usize> = self.at.values().copied().collect();
        self.at.clear();
        for (i, g) in groups.into_iter().enumerate() {
            self.place(g, (i as u64 + 1) * GAP.max(room));
        }
    }
}

/// A tree over the nodes: each hangs below the latest node that it reads.
pub(crate) struct Ancestry {
    enter: Vec<u32>,
    leave: Vec<u32>,
}

impl Ancestry {
    /// The tree, given what each node reads.
    pub(crate) fn new(reads: &[DimVec<NodeId>]) -> Ancestry {
        let parent = |n: usize| reads[n].iter().map(|r| r.index()).max();
        // The size of each subtree, children before parents; then places, parents before children.
        let mut size = vec![1u32; reads.len()];
        for n in (0..reads.len()).rev() {
            if let Some(p) = parent(n) {
                size[p] += size[n];
            }
        }
        let mut next = vec![0u32; reads.len()];
        let (mut enter, mut leave) = (vec![0; reads.len()], vec![0; reads.len()]);
        let mut root = 0;
        for n in 0..reads.len() {
            let slot = parent(n).map_or(&mut root, |p| &mut next[p]);
            enter[n] = *slot;
            *slot += size[n];
            leave[n] = enter[n] + size[n];
            next[n] = enter[n] + 1;
        }
        Ancestry { enter, leave }
    }

    /// Whether `a` is `n`, or `n` hangs below it: then `n` is computed from it.
    pub(crate) fn leads(&self, a: NodeId, n: NodeId) -> bool {
        self.enter[a.index()] <= self.enter[n.index()] && self.enter[n.index()] < self.leave[a.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_groups_stand_after_what_leads_to_them_and_before_what_they_lead_to() {
        let mut o = Order::new(6);
        // 0 -> 2, 1 -> 3, 3 -> 4: 0 and 4 join, so 1 and 3 come before them.
        o.join(0, 4, 4, vec![3, 1]);
        assert!(o.before(1, 3) && o.before(3, 4) && o.before(4, 2) && o.before(2, 5));
    }

    #[test]
    fn labels_never_run_out() {
        let mut o = Order::new(200);
        for k in (2..200).step_by(2) {
            o.join(0, k, 0, vec![k - 1]);
        }
        let order: Vec<usize> = o.at.values().copied().collect();
        assert_eq!(order, (1..200).step_by(2).filter(|k| *k < 199).chain([0, 199]).collect::<Vec<_>>());
    }

    #[test]
    fn the_latest_operand_is_the_parent() {
        let n = NodeId;
        let reads: Vec<DimVec<NodeId>> =
            [&[][..], &[n(0)], &[n(0)], &[n(1), n(2)], &[], &[n(3), n(4)]].map(|r| r.iter().copied().collect()).into();
        let a = Ancestry::new(&reads);
        for (up, down) in [(0, 0), (0, 3), (2, 3), (4, 5)] {
            assert!(a.leads(n(up), n(down)), "{up} {down}");
        }
        for (up, down) in [(1, 3), (3, 0), (1, 2), (0, 5), (2, 4)] {
            assert!(!a.leads(n(up), n(down)), "{up} {down}");
        }
    }
}
