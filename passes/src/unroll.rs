//! Short loops inside of vectors are written out.
//!
//! A window of a pooling, or the phases of its gradient, are a few elements. Written out, each has its own addresses and
//! conditions as constants, what no element needs is gone, and nothing is carried from one to the next but values.

use crate::pieces::copy_at;
use lazuli_ir::kernel::{Axis, Block, Emit, Expr, Extent, Kernel, Reduce, ScalarType, Stmt, StmtKind, ValueId};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{ReduceOp, VarId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Elements of what is written out, at most.
const MOST_ELEMENTS: u64 = 16;
/// Statements that it becomes, at most.
const MOST_STATEMENTS: u64 = 256;

/// Makes a reduction of its own of the innermost dims of one that are shorter than a vector, where the dim around them is not: then
/// its lanes run along that dim, and what is short is written out.
pub(crate) fn nest_short(kernel: &mut Kernel, block: &mut Block, lanes: u64) {
    for s in block {
        if let StmtKind::Reduce(r) = &mut s.kind {
            let is_short = |(_, n): &(VarId, Extent)| n.known().is_some_and(|n| n < lanes);
            let short = r.vars.iter().rev().take_while(|v| is_short(v)).count();
            let inside: SmallVec<[(VarId, Extent); 2]> = r.vars[r.vars.len() - short..].iter().copied().collect();
            let count: u64 = inside.iter().filter_map(|(_, n)| n.known()).product();
            let types: SmallVec<[ScalarType; 2]> = r.yields.iter().map(|v| kernel.values[v.index()]).collect();
            let folds = r.reducers.iter().flat_map(|r| r.types()).eq(types.iter().copied());
            if short > 0 && short < r.vars.len() && count <= MOST_ELEMENTS && folds {
                r.vars.truncate(r.vars.len() - short);
                let results: SmallVec<[ValueId; 2]> = types.into_iter().map(|t| kernel.new_value(t)).collect();
                let inner = Reduce {
                    reducers: r.reducers.clone(),
                    vars: inside,
                    axis: Axis::default(),
                    chunk: 0,
                    body: std::mem::take(&mut r.body),
                    yields: std::mem::replace(&mut r.yields, results.clone()),
                    results,
                };
                r.body = vec![Stmt { kind: StmtKind::Reduce(inner), sources: s.sources.clone() }];
                continue;
            }
        }
        if let Some(body) = s.kind.body_mut() {
            nest_short(kernel, body, lanes);
        }
    }
}

/// Writes out the short loops inside of vector loops.
pub(crate) fn write_out(kernel: &mut Kernel, block: &mut Block) {
    for s in block {
        let vector = match &s.kind {
            StmtKind::Loop(l) => l.axis.vector > 1,
            StmtKind::Reduce(r) => r.axis.vector > 1,
            _ => false,
        };
        if vector {
            inside(kernel, s);
        } else if let Some(body) = s.kind.body_mut() {
            write_out(kernel, body);
        }
    }
}

/// Writes out what is short inside of a statement.
fn inside(kernel: &mut Kernel, s: &mut Stmt) {
    let Some(body) = s.kind.body_mut() else { return };
    let names = straightened(kernel, body);
    if let StmtKind::Reduce(r) = &mut s.kind {
        r.yields.iter_mut().for_each(|v| *v = names.get(v).copied().unwrap_or(*v));
    }
}

/// Writes out what is short in a block; what its values are called where that changed.
fn straightened(kernel: &mut Kernel, block: &mut Block) -> FxHashMap<ValueId, ValueId> {
    let mut out = Block::with_capacity(block.len());
    for mut s in std::mem::take(block) {
        inside(kernel, &mut s);
        match &s.kind {
            StmtKind::Loop(l) if l.step == 1 && l.limit.is_none() => {
                match points(&[(l.var, l.extent)], &l.body, l.axis) {
                    Some(points) => out.extend(points.iter().flat_map(|at| copy_at(kernel, &l.body, at, &[]).0)),
                    None => out.push(s),
                }
            }
            StmtKind::Reduce(r) => match points(&r.vars, &r.body, r.axis) {
                Some(points) => written(kernel, r, &points, &s, &mut out),
                None => out.push(s),
            },
            _ => out.push(s),
        }
    }
    let straight = |s: &Stmt| matches!(s.kind, StmtKind::Let(..) | StmtKind::Store { .. });
    let names = if out.iter().all(straight) { define_once(&kernel.values, &mut out) } else { FxHashMap::default() };
    *block = out;
    names
}

/// The values of a loop's variables in order, where it is one to be written out.
fn points(vars: &[(VarId, Extent)], body: &Block, axis: Axis) -> Option<Vec<FxHashMap<VarId, i64>>> {
    let (mut statements, mut plain) = (0, true);
    for_each_statement(body, &mut |kind| {
        statements += 1;
        plain &= matches!(kind, StmtKind::Let(..) | StmtKind::Store { .. });
    });
    let extents = vars.iter().map(|(_, e)| e.known()).collect::<Option<Vec<u64>>>()?;
    let count: u64 = extents.iter().product();
    if axis != Axis::default()
        || !plain
        || !(1..=MOST_ELEMENTS).contains(&count)
        || count * statements > MOST_STATEMENTS
    {
        return None;
    }
    let point = |n: u64| {
        let mut rest = n;
        let digits = vars.iter().zip(&extents).rev().map(|((v, _), e)| {
            let digit = rest % e;
            rest /= e;
            (*v, digit as i64)
        });
        digits.collect()
    };
    Some((0..count).map(point).collect())
}

/// A reduction as its elements, one after the other. (For all but sums, the first is what it gives with the identity.)
fn written(kernel: &mut Kernel, r: &Reduce, points: &[FxHashMap<VarId, i64>], s: &Stmt, out: &mut Block) {
    let identity: Vec<_> = r.reducers.iter().flat_map(|reducer| reducer.identity()).collect();
    let mut acc: Vec<ValueId> = Vec::new();
    for (n, at) in points.iter().enumerate() {
        let (body, yields) = copy_at(kernel, &r.body, at, &r.yields);
        out.extend(body);
        let mut e = Lets { kernel, out: &mut *out, of: s };
        let start = e.out.len();
        let (mut from, mut now) = (0, Vec::new());
        for reducer in &r.reducers {
            let to = from + reducer.types().len();
            let with = &yields[from..to];
            let exact = points.len() > 1 && reducer.op != ReduceOp::Sum;
            match acc.get(from..to) {
                Some(acc) => now.extend(reducer.step(&mut e, acc, with)),
                None if exact => now.extend_from_slice(with),
                None => {
                    let nothing: Vec<ValueId> =
                        identity[from..to].iter().map(|c| (&mut e as &mut dyn Emit).constant(*c)).collect();
                    now.extend(reducer.combine(&mut e, &nothing, with));
                }
            }
            from = to;
        }
        acc = now;
        if n + 1 == points.len() {
            let names: FxHashMap<ValueId, ValueId> = acc.iter().copied().zip(r.results.iter().copied()).collect();
            let name = |v: ValueId| names.get(&v).copied().unwrap_or(v);
            for s in &mut out[start..] {
                if let StmtKind::Let(v, expr) = &mut s.kind {
                    (*v, *expr) = (name(*v), expr.map_operands(&mut |o| name(o)));
                }
            }
        }
    }
}

/// Writes straight-line code.
struct Lets<'a> {
    kernel: &'a mut Kernel,
    out: &'a mut Block,
    /// The statement that it is for.
    of: &'a Stmt,
}

impl Emit for Lets<'_> {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let v = self.kernel.new_value(ty);
        self.out.push(Stmt { kind: StmtKind::Let(v, expr), sources: self.of.sources.clone() });
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.kernel.values[v.index()]
    }
}

/// Defines each value once: copies repeat what does not differ between them. A store ends what loads are known to give.
fn define_once(types: &[ScalarType], block: &mut Block) -> FxHashMap<ValueId, ValueId> {
    let mut known: FxHashMap<(ScalarType, Expr), ValueId> = FxHashMap::default();
    let mut names: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    let mut kept = Block::with_capacity(block.len());
    for mut s in std::mem::take(block) {
        let name = |v: &ValueId| names.get(v).copied().unwrap_or(*v);
        match &mut s.kind {
            StmtKind::Let(v, expr) => {
                *expr = expr.map_operands(&mut |o| name(&o));
                let key = (types[v.index()], expr.clone());
                if let Some(first) = known.get(&key) {
                    names.insert(*v, *first);
                    continue;
                }
                known.insert(key, *v);
            }
            StmtKind::Store { value, mask, .. } => {
                *value = name(value);
                *mask = mask.as_ref().map(name);
                known.retain(|(_, e), _| !matches!(e, Expr::Load { .. }));
            }
            _ => {}
        }
        kept.push(s);
    }
    *block = kept;
    names
}
