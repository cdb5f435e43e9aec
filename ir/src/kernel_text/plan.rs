//! Which values are nested into the statement that uses them.

use super::derived_type;
use crate::kernel::{Block, Expr, Stmt, StmtKind, TileId, ValueId};
use crate::{Kernel, VarId};
use smallvec::SmallVec;

/// How deep values are nested into one statement.
const DEPTH: usize = 3;

/// Which values are nested, decided from their uses, places and numbers before anything is printed.
pub(super) struct Plan<'k> {
    /// Uses of each value.
    uses: Vec<u32>,
    /// The definition of each value that a `Let` defines.
    pub(super) lets: Vec<Option<&'k Expr>>,
    /// Values that a statement of the text defines.
    pub(super) defined: Vec<bool>,
    /// Values that must stand with their number.
    pinned: Vec<bool>,
    /// Values that are nested.
    pub(super) nested: Vec<bool>,
    /// The number after that of the last value of the text.
    next: usize,
    /// Variables in the order in which the text defines them.
    pub(super) vars: Vec<VarId>,
    /// Tiles in the order in which the text declares them.
    pub(super) tiles: Vec<TileId>,
}

impl<'k> Plan<'k> {
    pub(super) fn new(kernel: &'k Kernel) -> Plan<'k> {
        let n = kernel.values.len();
        let mut plan = Plan {
            uses: vec![0; n],
            lets: vec![None; n],
            defined: vec![false; n],
            pinned: vec![false; n],
            nested: vec![false; n],
            next: 0,
            vars: Vec::new(),
            tiles: Vec::new(),
        };
        plan.survey(&kernel.body);
        plan.survey(&kernel.finish);
        for v in 0..n {
            let exact = plan.lets[v].is_some_and(|e| derived_type(kernel, e).is_none_or(|t| t == kernel.values[v]));
            plan.pinned[v] = !exact || plan.uses[v] != 1;
        }
        plan.block(&kernel.body, &[]);
        plan.block(&kernel.finish, &[]);
        plan
    }

    fn read(&mut self, v: ValueId) {
        if let Some(uses) = self.uses.get_mut(v.index()) {
            *uses += 1;
        }
    }

    fn define(&mut self, v: ValueId, expr: Option<&'k Expr>) {
        if v.index() < self.lets.len() {
            // A value defined twice is never nested: the verifier's error shall show both.
            self.uses[v.index()] += u32::from(self.defined[v.index()]) * 2;
            self.defined[v.index()] = true;
            self.lets[v.index()] = expr;
        }
    }

    fn survey(&mut self, block: &'k Block) {
        for stmt in block {
            stmt.kind.operands().into_iter().for_each(|v| self.read(v));
            match &stmt.kind {
                StmtKind::Let(v, expr) => self.define(*v, Some(expr)),
                StmtKind::Tile(t) if self.tiles.contains(t) => {}
                StmtKind::Tile(t) => self.tiles.push(*t),
                StmtKind::Bind { var, .. } => self.vars.push(*var),
                StmtKind::Loop(l) => {
                    self.vars.push(l.var);
                    self.survey(&l.body);
                }
                StmtKind::Reduce(r) => {
                    self.vars.extend(r.vars.iter().map(|v| v.0));
                    self.survey(&r.body);
                    r.yields.iter().for_each(|v| self.read(*v));
                    r.results.iter().for_each(|v| self.define(*v, None));
                }
                StmtKind::Dot(d) => {
                    self.vars.extend([d.row, d.column]);
                    self.vars.extend(d.contract.iter().map(|v| v.0));
                }
                StmtKind::Guard(_, body) => self.survey(body),
                StmtKind::Store { .. } | StmtKind::Fill(..) | StmtKind::Check { .. } | StmtKind::Barrier => {}
            }
        }
    }

    fn block(&mut self, block: &'k [Stmt], yields: &[ValueId]) {
        self.range(block, yields, 0);
    }

    /// Plans the statements of one block (or a part of one) and what follows them; recursion ends because each round pins
    /// one more value, and is flat after a few.
    fn range(&mut self, block: &'k [Stmt], tail: &[ValueId], round: usize) {
        let mut groups: Vec<(usize, usize)> = Vec::new();
        let mut end = block.len();
        if !tail.is_empty() {
            let start = self.start_of_group(block, end, tail, 0);
            groups.push((start, end));
            end = start;
        }
        while end > 0 {
            let root = end - 1;
            let start = match round {
                0..8 => self.start_of_group(block, root, &block[root].kind.operands(), 0),
                _ => root,
            };
            groups.push((start, root));
            end = start;
        }
        for &(start, root) in groups.iter().rev() {
            if let Some(v) = self.first_misnumbered(&block[start..root]) {
                self.pinned[v] = true;
                match block.get(root) {
                    Some(_) => self.range(&block[start..=root], &[], round + 1),
                    None => self.range(&block[start..root], tail, round + 1),
                }
                continue;
            }
            for stmt in &block[start..root] {
                if let StmtKind::Let(v, _) = &stmt.kind {
                    self.nested[v.index()] = true;
                    self.next = v.index() + 1;
                }
            }
            if let Some(stmt) = block.get(root) {
                self.root(stmt);
            }
        }
    }

    fn root(&mut self, stmt: &'k Stmt) {
        match &stmt.kind {
            StmtKind::Let(v, _) => {
                self.next = v.index() + 1;
                if let Some(pinned) = self.pinned.get_mut(v.index()) {
                    *pinned = true;
                }
            }
            StmtKind::Loop(l) => self.block(&l.body, &[]),
            StmtKind::Guard(_, body) => self.block(body, &[]),
            StmtKind::Reduce(r) => {
                self.block(&r.body, &r.yields);
                if let Some(v) = r.results.last() {
                    self.next = v.index() + 1;
                }
            }
            StmtKind::Store { .. }
            | StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Dot(_)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => {}
        }
    }

    /// The first of the statements right before `end` that can be nested into one there: those that compute its operands,
    /// in the order in which a parser would define them.
    fn start_of_group(&self, block: &'k [Stmt], end: usize, operands: &[ValueId], depth: usize) -> usize {
        let mut start = end;
        for operand in operands.iter().rev() {
            let Some(Stmt { kind: StmtKind::Let(v, expr), .. }) = start.checked_sub(1).and_then(|i| block.get(i))
            else {
                break;
            };
            let leaf = matches!(expr, Expr::Const(_) | Expr::Scalar(_));
            if v != operand || self.pinned.get(v.index()).is_none_or(|p| *p) || !(leaf || depth < DEPTH) {
                continue;
            }
            let mut inner: SmallVec<[ValueId; 3]> = SmallVec::new();
            expr.for_each_operand(&mut |v| inner.push(v));
            start = self.start_of_group(block, start - 1, &inner, depth + 1);
        }
        start
    }

    /// The first value of a group whose number is not the one that a parser would give it.
    fn first_misnumbered(&self, group: &[Stmt]) -> Option<usize> {
        let mut next = self.next;
        for stmt in group {
            let StmtKind::Let(v, _) = &stmt.kind else { continue };
            while next < v.index() && self.pinned[next] {
                next += 1;
            }
            if next != v.index() {
                return Some(v.index());
            }
            next += 1;
        }
        None
    }
}
