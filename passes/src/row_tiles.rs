//! Row tiles: what one pass over a row computes and a later pass reads back.
//!
//! A value that two passes over the same loop need is kept where computing it again would cost more than reading it back, and
//! the row is small enough. Along panels of rows, what is reduced in one phase is kept for later ones (`row_panels.rs`).

use crate::lower::Lowering;
use crate::operand::position;
use crate::plan::{InstanceId, ScopeId, SinkId, Source};
use lazuli_ir::kernel::{Memory, ScalarType, Scope, StmtKind, Tile, TileId, ValueId};
use lazuli_ir::{DimVec, Index};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// Recomputing a value that costs this many operations or more is worth a row tile.
const TILE_FLOPS: u64 = 6;

/// Where a value of a row is kept between passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTile {
    pub(crate) id: TileId,
    /// Whether a pass has stored it.
    pub(crate) written: bool,
    /// Whether it has all rows of a panel, for later phases.
    pub(crate) of_panel: bool,
}

impl Lowering<'_> {
    /// Chooses what passes over the same scope keep in row tiles, and declares those. Gives the instances kept.
    pub(crate) fn choose_tiles(&mut self, passes: &BTreeMap<(u32, ScopeId), Vec<SinkId>>) -> Vec<InstanceId> {
        let mut kept: FxHashSet<InstanceId> = FxHashSet::default();
        let mut budget = self.target.l1_bytes / 2;
        let mut computed: FxHashMap<ScopeId, FxHashSet<InstanceId>> = FxHashMap::default();
        for (&(_, child), group) in passes {
            // A tile that outlives a panel would be shared by the threads that run panels.
            if self.plan.row_scope() == Some(child) {
                continue;
            }
            let group = self.close(group, child);
            let again = computed.entry(child).or_default();
            let mut seen = FxHashSet::default();
            let mut stack: Vec<InstanceId> = group.iter().flat_map(|&s| self.plan.sinks[s].roots()).collect();
            while let Some(i) = stack.pop() {
                if self.values[i].is_some() || self.tiles_hold(i) || kept.contains(&i) || !seen.insert(i) {
                    continue;
                }
                let instance = &self.plan.instances[i];
                if instance.scope == child && again.contains(&i) && self.is_worth_a_tile(i) {
                    let bytes = self.row_bytes(i);
                    if bytes <= budget {
                        budget -= bytes;
                        kept.insert(i);
                        continue;
                    }
                }
                let before = instance.operands.iter().chain(&instance.mask).chain(&instance.indexed_by);
                stack.extend(before.copied());
            }
            again.extend(seen);
        }
        let mut kept: Vec<InstanceId> = kept.into_iter().collect();
        kept.sort_unstable();
        for &i in &kept {
            self.declare_row_tile(i);
        }
        kept
    }

    /// Whether computing an instance again, as far as that happens in its scope, costs more than reading it back.
    fn is_worth_a_tile(&self, i: InstanceId) -> bool {
        let scope = self.plan.instances[i].scope;
        let mut seen = FxHashSet::default();
        let mut stack = vec![i];
        let mut flops = 0;
        while let Some(j) = stack.pop() {
            let instance = &self.plan.instances[j];
            if instance.scope != scope || !seen.insert(j) {
                continue;
            }
            if let Source::Compute(n) = instance.source {
                flops += u64::from(self.graph.op(n).flops());
            }
            if flops >= TILE_FLOPS {
                return true;
            }
            stack.extend(instance.operands.iter().chain(&instance.mask));
        }
        false
    }

    fn row_extents(&self, i: InstanceId) -> DimVec<u64> {
        let scope = &self.plan.scopes[self.plan.instances[i].scope];
        scope.vars.iter().map(|v| self.plan.vars[v.0 as usize].extent).collect()
    }

    fn row_bytes(&self, i: InstanceId) -> u64 {
        let size = self.instance_type(i).size() as u64;
        self.row_extents(i).iter().fold(size, |n, e| n.saturating_mul(*e))
    }

    fn declare_row_tile(&mut self, i: InstanceId) {
        let dims = self.row_extents(i);
        let tile = Tile {
            name: format!("row{}", self.kernel.tiles.len()),
            dtype: ScalarType::from(self.instance_type(i)).dtype(),
            valid: dims.iter().map(|_| None).collect(),
            dims,
            scope: Scope::Thread,
        };
        let id = self.declare_tile(tile);
        self.tiles.insert(i, RowTile { id, written: false, of_panel: false });
    }

    /// Whether a pass has stored a value in its tile.
    pub(crate) fn tiles_hold(&self, i: InstanceId) -> bool {
        self.tiles.get(&i).is_some_and(|t| t.written)
    }

    /// Keeps a value for those that read it later, where it has a row tile.
    pub(crate) fn store_in_tile(&mut self, i: InstanceId, value: ValueId) {
        if let Some(tile) = self.tiles.get_mut(&i) {
            tile.written = true;
            let tile = *tile;
            let to = Memory::Tile(tile.id);
            let index = self.tile_index(tile, self.plan.instances[i].scope);
            self.push(StmtKind::Store { to, index, value, mask: None });
        }
    }

    /// Where the element of a scope's loops lies in its row tile.
    pub(crate) fn tile_index(&self, tile: RowTile, scope: ScopeId) -> Vec<Index> {
        let vars = if tile.of_panel && self.plan.row_scope() == Some(scope) {
            &[]
        } else {
            self.plan.scopes[scope].vars.as_slice()
        };
        let mut at: Vec<Index> = vars.iter().map(|&v| self.index(&v.into())).collect();
        if !tile.of_panel {
            return at;
        }
        if self.kernel.tiles[tile.id.index()].dims.len() > 1 {
            let extents: Vec<u64> = vars.iter().map(|v| self.extent(*v)).collect();
            at = vec![position(&at, &extents)];
        }
        at.insert(0, self.row_inside.clone());
        at
    }
}
