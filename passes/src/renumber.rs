//! Renumbering: values, loop variables and tiles in order of their definitions, and none that are unused.
//!
//! Kernels that do the same become equal this way, whatever numbers lowering and scheduling went through.

use lazuli_ir::index::Range;
use lazuli_ir::kernel::{Block, Expr, Kernel, Memory, Stmt, StmtKind, TileId, ValueId};
use lazuli_ir::{Index, VarId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Renumbers a kernel, dropping pure statements that nothing uses.
pub fn renumber(kernel: &mut Kernel) {
    let mut used = FxHashSet::default();
    let (mut body, mut finish) = (std::mem::take(&mut kernel.body), std::mem::take(&mut kernel.finish));
    sweep(&mut finish, &mut used);
    sweep(&mut body, &mut used);
    let mut r = Renumber::default();
    r.block(&mut body);
    r.block(&mut finish);
    let mut values: Vec<(ValueId, ValueId)> = r.values.into_iter().collect();
    values.sort_unstable_by_key(|(_, new)| *new);
    kernel.values = values.iter().map(|(old, _)| kernel.values[old.index()]).collect();
    let mut vars: Vec<(VarId, VarId)> = r.vars.iter().map(|(a, b)| (*a, *b)).collect();
    vars.sort_unstable_by_key(|(_, new)| *new);
    kernel.vars = vars.iter().map(|(old, _)| kernel.vars[old.0 as usize].clone()).collect();
    let mut tiles: Vec<(TileId, TileId)> = r.tiles.iter().map(|(a, b)| (*a, *b)).collect();
    tiles.sort_unstable_by_key(|(_, new)| *new);
    kernel.tiles = tiles.iter().map(|(old, _)| kernel.tiles[old.index()].clone()).collect();
    for t in &mut kernel.tiles {
        for limit in t.valid.iter_mut().flatten() {
            *limit = rename(limit, &r.vars);
        }
    }
    kernel.body = body;
    kernel.finish = finish;
}

/// Drops definitions of values that nothing uses, from the last statement to the first.
fn sweep(block: &mut Block, used: &mut FxHashSet<ValueId>) {
    let mut kept: Vec<Stmt> = Vec::with_capacity(block.len());
    for mut s in std::mem::take(block).into_iter().rev() {
        if matches!(&s.kind, StmtKind::Let(v, _) if !used.contains(v)) {
            continue;
        }
        used.extend(s.kind.operands());
        if let StmtKind::Reduce(r) = &s.kind {
            used.extend(r.yields.iter());
        }
        if let Some(body) = s.kind.body_mut() {
            sweep(body, used);
        }
        kept.push(s);
    }
    kept.reverse();
    *block = kept;
}

#[derive(Default)]
struct Renumber {
    values: FxHashMap<ValueId, ValueId>,
    vars: FxHashMap<VarId, VarId>,
    tiles: FxHashMap<TileId, TileId>,
}

fn rename(x: &Index, vars: &FxHashMap<VarId, VarId>) -> Index {
    // Renaming changes no structure: ranges decide simplifications, and an unbounded one decides none.
    let unbounded = |_: VarId| -> Range { (i64::MIN / 4, i64::MAX / 4) };
    x.substitute(&|v| vars.get(&v).map(|&w| Index::var(w)), &unbounded)
}

impl Renumber {
    fn value(&mut self, v: &mut ValueId) {
        let next = ValueId(self.values.len() as u32);
        *v = *self.values.entry(*v).or_insert(next);
    }

    fn var(&mut self, v: &mut VarId) {
        let next = VarId(self.vars.len() as u32);
        *v = *self.vars.entry(*v).or_insert(next);
    }

    fn tile(&mut self, t: &mut TileId) {
        let next = TileId(self.tiles.len() as u32);
        *t = *self.tiles.entry(*t).or_insert(next);
    }

    fn memory(&mut self, m: &mut Memory) {
        if let Memory::Tile(t) = m {
            self.tile(t);
        }
    }

    fn indices(&self, index: &mut [Index]) {
        index.iter_mut().for_each(|x| *x = rename(x, &self.vars));
    }

    fn block(&mut self, block: &mut Block) {
        for s in block {
            match &mut s.kind {
                StmtKind::Let(v, expr) => {
                    *expr = expr.map_operands(&mut |mut o| {
                        self.value(&mut o);
                        o
                    });
                    match expr {
                        Expr::Load { from, index, .. } => {
                            self.memory(from);
                            self.indices(index);
                        }
                        Expr::Index(x) => *x = rename(x, &self.vars),
                        Expr::Const(_)
                        | Expr::Scalar(_)
                        | Expr::Unary(..)
                        | Expr::Binary(..)
                        | Expr::Compare(..)
                        | Expr::Select(..)
                        | Expr::Convert(_)
                        | Expr::Machine(..)
                        | Expr::Random(..) => {}
                    }
                    self.value(v);
                }
                StmtKind::Store { to, index, value, mask } => {
                    self.memory(to);
                    self.indices(index);
                    self.value(value);
                    mask.iter_mut().for_each(|m| self.value(m));
                }
                StmtKind::Tile(t) | StmtKind::Fill(t, _) => self.tile(t),
                StmtKind::Loop(l) => {
                    self.var(&mut l.var);
                    l.limit.iter_mut().for_each(|x| *x = rename(x, &self.vars));
                    self.block(&mut l.body);
                }
                StmtKind::Reduce(r) => {
                    r.vars.iter_mut().for_each(|(v, _)| self.var(v));
                    self.block(&mut r.body);
                    r.yields.iter_mut().for_each(|v| self.value(v));
                    r.results.iter_mut().for_each(|v| self.value(v));
                }
                StmtKind::Dot(d) => {
                    self.tile(&mut d.acc);
                    self.var(&mut d.row);
                    self.var(&mut d.column);
                    d.contract.iter_mut().for_each(|(v, _)| self.var(v));
                    d.limit.iter_mut().for_each(|x| *x = rename(x, &self.vars));
                    for o in [&mut d.a, &mut d.b] {
                        self.memory(&mut o.memory);
                        self.indices(&mut o.index);
                    }
                }
                StmtKind::Guard(c, body) => {
                    self.value(c);
                    self.block(body);
                }
                StmtKind::Check { ok, value, at, .. } => {
                    self.value(ok);
                    self.value(value);
                    *at = rename(at, &self.vars);
                }
                StmtKind::Bind { var, value, .. } => {
                    self.value(value);
                    self.var(var);
                }
                StmtKind::Barrier => {}
            }
        }
    }
}
