//! Loops over which conditions change are cut where they do.
//!
//! A concatenation asks at each element which operand it comes from, and padding whether there is one: `j < 1024` selects, and
//! masks a load. Such a condition holds for a range of the loop's variable, so the loop becomes one for each range, in which the
//! condition is known: selections vanish, loads are plain, and what was selected against is not computed. The cost of a
//! concatenation is then that of its operands, each written in place.

use lazuli_ir::kernel::{Axis, Block, Expr, Extent, Kernel, Loop, Stmt, StmtKind, ValueId};
use lazuli_ir::kernel_walk::{for_each_index, for_each_statement};
use lazuli_ir::{BinaryOp, CompareOp, Index, Literal, UnaryOp, VarId};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Pieces of a loop, at most.
const MOST_PIECES: usize = 32;
/// Statements of all pieces, at most.
const MOST_STATEMENTS: usize = 1000;

/// Cuts the loops inside of others: what is outermost stays whole, for threads to share.
pub(crate) fn cut_conditions(kernel: &mut Kernel, block: &mut Block) {
    for s in block {
        if let Some(body) = s.kind.body_mut() {
            cut_in(kernel, body);
        }
    }
}

fn cut_in(kernel: &mut Kernel, block: &mut Block) {
    let mut out = Block::with_capacity(block.len());
    for mut s in std::mem::take(block) {
        if let Some(body) = s.kind.body_mut() {
            cut_in(kernel, body);
        }
        match &s.kind {
            StmtKind::Loop(l) => match pieces(kernel, l) {
                Some(loops) => {
                    out.extend(loops.into_iter().map(|l| Stmt { kind: StmtKind::Loop(l), sources: s.sources.clone() }))
                }
                None => out.push(s),
            },
            _ => out.push(s),
        }
    }
    *block = out;
}

fn pieces(kernel: &mut Kernel, l: &Loop) -> Option<Vec<Loop>> {
    let extent = l.extent.known().and_then(|n| i64::try_from(n).ok())?;
    if l.step != 1 || l.limit.is_some() || l.axis != Axis::default() {
        return None;
    }
    let mut conditions = Conditions::default();
    conditions.note(&l.body, l.var);
    let inside = |at: &i64| (1..extent).contains(at);
    let ends: Vec<i64> = conditions.edges().into_iter().filter(inside).chain([extent]).collect();
    let (mut statements, mut copies) = (0, true);
    for_each_statement(&l.body, &mut |kind| {
        statements += 1;
        // A tile is declared once, and a contraction has variables of its own.
        copies &= !matches!(kind, StmtKind::Tile(_) | StmtKind::Dot(_) | StmtKind::Barrier);
    });
    if !copies || ends.len() < 2 || ends.len() > MOST_PIECES || statements * ends.len() > MOST_STATEMENTS {
        return None;
    }
    let mut start = 0;
    let loops = ends.into_iter().map(|end| {
        let range = (start, end - 1);
        start = end;
        piece(kernel, l, range, &conditions)
    });
    Some(loops.collect())
}

/// One piece of a loop: its own values and variables, and conditions that are known in it.
fn piece(kernel: &mut Kernel, l: &Loop, (first, last): (i64, i64), conditions: &Conditions) -> Loop {
    let mut known: FxHashMap<ValueId, bool> = FxHashMap::default();
    for (value, low, high) in &conditions.found {
        let (holds, fails) = (*low <= first && last <= *high, last < *low || *high < first);
        if holds || fails {
            known.insert(*value, holds);
        }
    }
    let mut own = Own { kernel, known, names: FxHashMap::default(), vars: FxHashMap::default() };
    let body = own.block(&l.body);
    let mut vars = std::mem::take(&mut own.vars);
    let var = kernel.new_var(kernel.vars[l.var.0 as usize].clone());
    vars.insert(l.var, Index::var(var).plus(first));
    let mut body = body;
    for_each_index(&mut body, &mut |x| *x = x.substitute(&|v| vars.get(&v).cloned(), &UNBOUNDED));
    let extent = Extent::Const((last - first + 1) as u64);
    Loop { var, extent, step: 1, limit: None, axis: l.axis, body }
}

/// A copy of statements for one value of some variables, with what the copy calls values that are asked for.
pub(crate) fn copy_at(
    kernel: &mut Kernel,
    block: &Block,
    at: &FxHashMap<VarId, i64>,
    asked: &[ValueId],
) -> (Block, Vec<ValueId>) {
    let mut known: FxHashMap<ValueId, bool> = FxHashMap::default();
    let fixed = |v: VarId| at.get(&v).map(|c| Index::constant(*c));
    for_each_bound(block, &mut |value, x, c| {
        if let Some(x) = x.substitute(&fixed, &UNBOUNDED).as_constant() {
            known.insert(value, x >= c);
        }
    });
    let mut own = Own { kernel, known, names: FxHashMap::default(), vars: FxHashMap::default() };
    let mut body = own.block(block);
    let asked = asked.iter().map(|v| own.name(*v)).collect();
    let vars = std::mem::take(&mut own.vars);
    let with = |v: VarId| fixed(v).or_else(|| vars.get(&v).cloned());
    for_each_index(&mut body, &mut |x| *x = x.substitute(&with, &UNBOUNDED));
    (body, asked)
}

const UNBOUNDED: fn(VarId) -> (i64, i64) = |_| (i64::MIN / 4, i64::MAX / 4);

/// Calls `f` with each comparison `index >= constant`.
fn for_each_bound(block: &Block, f: &mut dyn FnMut(ValueId, &Index, i64)) {
    let mut indices: FxHashMap<ValueId, Index> = FxHashMap::default();
    let mut constants: FxHashMap<ValueId, i64> = FxHashMap::default();
    for_each_statement(block, &mut |kind| match kind {
        StmtKind::Let(v, Expr::Index(x)) => {
            indices.insert(*v, x.clone());
        }
        StmtKind::Let(v, Expr::Const(Literal::I64(c))) => {
            constants.insert(*v, *c);
        }
        StmtKind::Let(v, Expr::Compare(CompareOp::Ge, a, b)) => {
            if let (Some(x), Some(c)) = (indices.get(a), constants.get(b)) {
                f(*v, x, *c);
            }
        }
        _ => {}
    });
}

/// Comparisons that hold for a range of a variable, both ends included.
#[derive(Default)]
struct Conditions {
    found: Vec<(ValueId, i64, i64)>,
}

impl Conditions {
    fn note(&mut self, block: &Block, var: VarId) {
        for_each_bound(block, &mut |v, x, c| {
            if let [(_, factor)] = x.terms()
                && x.coefficient(var) == Some(*factor)
            {
                // factor * v + offset >= c
                let least = c - x.offset();
                match factor {
                    1 => self.found.push((v, least, i64::MAX)),
                    -1 => self.found.push((v, i64::MIN, -least)),
                    _ => {}
                }
            }
        });
    }

    /// Where something changes.
    fn edges(&self) -> BTreeSet<i64> {
        self.found.iter().flat_map(|(_, low, high)| [*low, high.saturating_add(1)]).collect()
    }
}

/// A copy of statements with values and variables of its own.
struct Own<'k> {
    kernel: &'k mut Kernel,
    known: FxHashMap<ValueId, bool>,
    /// What stands for a value of the original.
    names: FxHashMap<ValueId, ValueId>,
    vars: FxHashMap<VarId, Index>,
}

impl Own<'_> {
    fn name(&self, v: ValueId) -> ValueId {
        self.names.get(&v).copied().unwrap_or(v)
    }

    fn define(&mut self, v: ValueId) -> ValueId {
        let new = self.kernel.new_value(self.kernel.values[v.index()]);
        self.names.insert(v, new);
        new
    }

    fn var(&mut self, v: VarId) -> VarId {
        let new = self.kernel.new_var(self.kernel.vars[v.0 as usize].clone());
        self.vars.insert(v, new.into());
        new
    }

    fn block(&mut self, block: &Block) -> Block {
        block.iter().filter_map(|s| Some(Stmt { kind: self.statement(&s.kind)?, sources: s.sources.clone() })).collect()
    }

    /// A mask that may be known: `None` where it never holds.
    fn mask(&self, mask: Option<ValueId>) -> Option<Option<ValueId>> {
        match mask.map(|m| (m, self.known.get(&m))) {
            None | Some((_, Some(true))) => Some(None),
            Some((_, Some(false))) => None,
            Some((m, None)) => Some(Some(self.name(m))),
        }
    }

    fn statement(&mut self, kind: &StmtKind) -> Option<StmtKind> {
        Some(match kind {
            StmtKind::Let(v, expr) => return self.definition(*v, expr),
            StmtKind::Store { to, index, value, mask } => {
                let mask = self.mask(*mask)?;
                StmtKind::Store { to: *to, index: index.clone(), value: self.name(*value), mask }
            }
            StmtKind::Loop(l) => {
                let (var, body) = (self.var(l.var), self.block(&l.body));
                StmtKind::Loop(Loop { var, body, ..l.clone() })
            }
            StmtKind::Reduce(r) => {
                let mut own = r.clone();
                own.vars.iter_mut().for_each(|(v, _)| *v = self.var(*v));
                own.body = self.block(&r.body);
                own.yields.iter_mut().for_each(|v| *v = self.name(*v));
                own.results.iter_mut().for_each(|v| *v = self.define(*v));
                StmtKind::Reduce(own)
            }
            StmtKind::Guard(c, body) => match self.known.get(c) {
                Some(false) => return None,
                Some(true) | None => {
                    // What always holds stays a guard: it costs a branch.
                    StmtKind::Guard(self.name(*c), self.block(body))
                }
            },
            StmtKind::Check { ok, site, value, at } => {
                StmtKind::Check { ok: self.name(*ok), site: *site, value: self.name(*value), at: at.clone() }
            }
            StmtKind::Bind { var, value, extent } => {
                StmtKind::Bind { var: self.var(*var), value: self.name(*value), extent: *extent }
            }
            StmtKind::Tile(_) | StmtKind::Fill(..) | StmtKind::Dot(_) | StmtKind::Barrier => kind.clone(),
        })
    }

    fn definition(&mut self, v: ValueId, expr: &Expr) -> Option<StmtKind> {
        let truth = |x: &ValueId| self.known.get(x).copied();
        let value = match expr {
            Expr::Binary(BinaryOp::And, a, b) => match (truth(a), truth(b)) {
                (Some(false), _) | (_, Some(false)) => Known::Truth(false),
                (Some(true), Some(true)) => Known::Truth(true),
                (Some(true), None) => Known::Same(*b),
                (None, Some(true)) => Known::Same(*a),
                (None, None) => Known::Nothing,
            },
            Expr::Binary(BinaryOp::Or, a, b) => match (truth(a), truth(b)) {
                (Some(true), _) | (_, Some(true)) => Known::Truth(true),
                (Some(false), Some(false)) => Known::Truth(false),
                (Some(false), None) => Known::Same(*b),
                (None, Some(false)) => Known::Same(*a),
                (None, None) => Known::Nothing,
            },
            Expr::Unary(UnaryOp::Not, a) => truth(a).map_or(Known::Nothing, |t| Known::Truth(!t)),
            Expr::Select(c, a, b) => truth(c).map_or(Known::Nothing, |t| Known::Same(if t { *a } else { *b })),
            _ => truth(&v).map_or(Known::Nothing, Known::Truth),
        };
        match value {
            Known::Same(w) => {
                let w = self.name(w);
                self.names.insert(v, w);
                None
            }
            Known::Truth(t) => {
                self.known.insert(v, t);
                Some(StmtKind::Let(self.define(v), Expr::Const(Literal::Bool(t))))
            }
            Known::Nothing => {
                let expr = match expr {
                    Expr::Load { from, index, mask } => match self.mask(*mask) {
                        Some(mask) => Expr::Load { from: *from, index: index.clone(), mask },
                        None => Expr::Const(Literal::zero(self.kernel.values[v.index()].dtype())),
                    },
                    _ => expr.map_operands(&mut |o| self.name(o)),
                };
                Some(StmtKind::Let(self.define(v), expr))
            }
        }
    }
}

/// What is known of a value in a piece.
enum Known {
    Nothing,
    Truth(bool),
    Same(ValueId),
}
