//! The schedule of a kernel on a CPU: which loops merge, which run as vector lanes, which are shared among threads.
//!
//! - A loop that is read digit by digit becomes one loop for each digit (`digits`); dims that every access walks as one become
//!   one loop (`merge_loops`).
//! - What stands before the outermost loop moves into it, so that the loop is the whole body; what stands after it becomes
//!   `finish`. A reduction at the root is cut into chunks whose size depends on shapes alone.
//! - A loop over which conditions change is cut where they do (`pieces`).
//! - Each innermost loop runs as vectors where most of its accesses are unit-stride or uniform. Where they are not, but those of
//!   an enclosing loop all are (the sum of columns), that loop's iterations become the lanes instead.
//! - A transpose walks in squares, and what it reads across memory comes in along it.
//! - The outermost loops are parallel, and the outermost extent becomes a run-time value, so that one kernel serves every
//!   batch size.

use crate::columns::turn_columns;
use crate::digits::take_apart;
use crate::merge_loops::merge_loops;
use crate::pieces::cut_conditions;
use crate::renumber::renumber;
use crate::tiling::{Stage, innermost, strided_loads, through_tiles};
use crate::unroll::{nest_short, write_out};
use lazuli_ir::kernel::{
    Axis, Binding, Block, Expr, Extent, Kernel, Memory, ParamId, Scope, Stmt, StmtKind, Stride, ValueId,
};
use lazuli_ir::kernel_walk::{for_each_statement, holds_dot};
use lazuli_ir::{ExtentId, Index, Target, VarId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Lanes of a vector. Wider machines run several at once.
const LANES: u32 = 4;
/// Elements between lanes up to which they are neither well nor badly placed.
const NEAR: u64 = 4;

/// Schedules a kernel for a CPU. Gives the values of the kernel's run-time extents.
pub fn schedule_cpu(kernel: &mut Kernel, target: &Target) -> Vec<u64> {
    take_apart(kernel);
    merge_loops(kernel);
    split_root(kernel);
    let mut body = std::mem::take(&mut kernel.body);
    cut_conditions(kernel, &mut body);
    if !cut_transposes(kernel, &mut body) {
        turn_columns(kernel, &mut body, target);
        nest_short(kernel, &mut body, u64::from(LANES));
        vectorize(kernel, &mut body);
        write_out(kernel, &mut body);
    }
    kernel.body = body;
    bind_threads(kernel, target);
    let extents = generalise(kernel);
    renumber(kernel);
    extents
}

/// Schedules the kernel of one primitive for a CPU, whose extents are run-time values and whose dims are merged already.
pub fn schedule_primitive(kernel: &mut Kernel, target: &Target) {
    let mut body = std::mem::take(&mut kernel.body);
    vectorize(kernel, &mut body);
    kernel.body = body;
    split_root(kernel);
    bind_threads(kernel, target);
    renumber(kernel);
}

fn is_compound(s: &Stmt) -> bool {
    matches!(s.kind, StmtKind::Loop(_) | StmtKind::Reduce(_))
}

/// Makes the one loop at the root the whole body: what it uses of the statements before moves into it, what stands after (and
/// what that uses of the statements before) becomes `finish`. Bodies with several loops stay as they are.
pub(crate) fn split_root(kernel: &mut Kernel) {
    let compounds = kernel.body.iter().filter(|s| is_compound(s)).count();
    let simple = |s: &Stmt| is_compound(s) || matches!(s.kind, StmtKind::Let(..) | StmtKind::Store { .. });
    if compounds != 1 || !kernel.body.iter().all(|s| simple(s) || binds(s)) {
        return;
    }
    if kernel.body.iter().any(binds) {
        sink_binds(kernel);
        return;
    }
    let body = std::mem::take(&mut kernel.body);
    let (mut before, mut compound, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for s in body {
        if is_compound(&s) {
            compound.push(s);
        } else if compound.is_empty() && matches!(s.kind, StmtKind::Let(..)) {
            before.push(s);
        } else {
            after.push(s);
        }
    }
    let Some(mut root) = compound.pop() else { return };
    let mut finish = needed(&before, &after);
    let into_loop = needed(&before, std::slice::from_ref(&root));
    sink(&mut root, into_loop);
    // Statements that both need are defined in both: `finish` gets values of its own.
    finish.append(&mut after);
    rename_shared(kernel, &root, &mut finish);
    kernel.body = vec![root];
    kernel.finish = finish;
}

fn binds(s: &Stmt) -> bool {
    matches!(s.kind, StmtKind::Bind { .. } | StmtKind::Check { .. })
}

/// Moves indices that are bound (and checked) before the one loop at the root to the start of its iterations, where nothing
/// stands behind it: an iteration of the outermost loop is work enough to look at them again.
fn sink_binds(kernel: &mut Kernel) {
    if !kernel.body.last().is_some_and(|s| matches!(s.kind, StmtKind::Loop(_))) {
        return;
    }
    let Some(mut root) = kernel.body.pop() else { return };
    let mut body = std::mem::take(&mut kernel.body);
    if let StmtKind::Loop(l) = &mut root.kind {
        body.append(&mut l.body);
        l.body = body;
    }
    kernel.body = vec![root];
}

/// Those of `lets` that `users` need, directly or not, in order.
fn needed(lets: &[Stmt], users: &[Stmt]) -> Block {
    let mut used = FxHashSet::default();
    uses(users, &mut used);
    let mut out: Block = Vec::new();
    for s in lets.iter().rev() {
        if let StmtKind::Let(v, expr) = &s.kind
            && used.contains(v)
        {
            expr.for_each_operand(&mut |o| {
                used.insert(o);
            });
            out.push(s.clone());
        }
    }
    out.reverse();
    out
}

fn uses(block: &[Stmt], used: &mut FxHashSet<ValueId>) {
    for_each_statement(block, &mut |kind| {
        used.extend(kind.operands());
        if let StmtKind::Reduce(r) = kind {
            used.extend(r.yields.iter());
        }
    });
}

/// Puts statements at the start of a loop's body: of the innermost loop of a perfect nest, so that the nest stays perfect.
pub(crate) fn sink(root: &mut Stmt, mut lets: Block) {
    let body = match &mut root.kind {
        StmtKind::Loop(l) => {
            if let [Stmt { kind: StmtKind::Loop(_), .. }] = l.body.as_slice() {
                return sink(&mut l.body[0], lets);
            }
            &mut l.body
        }
        StmtKind::Reduce(r) => &mut r.body,
        _ => return,
    };
    lets.append(body);
    *body = lets;
}

fn rename_shared(kernel: &mut Kernel, root: &Stmt, finish: &mut Block) {
    let body = match &root.kind {
        StmtKind::Loop(l) => &l.body,
        StmtKind::Reduce(r) => &r.body,
        _ => return,
    };
    let mut inside = FxHashSet::default();
    defined(body, &mut inside);
    let mut names: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    for s in finish {
        let rename = |v: &ValueId| names.get(v).copied().unwrap_or(*v);
        match &mut s.kind {
            StmtKind::Let(v, expr) => {
                *expr = expr.map_operands(&mut |o| rename(&o));
                if inside.contains(v) {
                    let new = kernel.new_value(kernel.values[v.index()]);
                    names.insert(*v, new);
                    *v = new;
                }
            }
            StmtKind::Store { value, mask, .. } => {
                *value = rename(value);
                *mask = mask.as_ref().map(rename);
            }
            _ => {}
        }
    }
}

fn defined(block: &Block, out: &mut FxHashSet<ValueId>) {
    for_each_statement(block, &mut |kind| out.extend(kind.defines()));
}

/// How the accesses below a loop lie along its variable.
#[derive(Clone, Copy, Default)]
struct Lie {
    /// Unit stride or uniform.
    good: u32,
    /// Strided, or not affine.
    bad: u32,
    /// Stores that do not move with the variable: its iterations cannot be lanes.
    stuck: u32,
}

/// Elements between neighbours of an access along a variable; `None` where that is not one number.
pub(crate) fn stride(kernel: &Kernel, memory: Memory, index: &[Index], v: VarId) -> Option<i64> {
    let mut sum = 0i64;
    let mut step = 1i64;
    for (d, x) in index.iter().enumerate().rev() {
        let c = x.coefficient(v)?;
        let s = match memory {
            Memory::Param(p) => match kernel.params[p.index()].strides[d] {
                Stride::Const(s) => Some(s),
                Stride::Runtime => None,
            },
            Memory::Tile(t) => {
                let s = step;
                step = step.wrapping_mul(kernel.tiles[t.index()].dims[d] as i64);
                Some(s)
            }
        };
        match s {
            Some(s) => sum = sum.wrapping_add(c.wrapping_mul(s)),
            None if c == 0 => {}
            None => return None,
        }
    }
    Some(sum)
}

fn lie(kernel: &Kernel, block: &Block, v: VarId, out: &mut Lie) {
    Along { kernel, v, varying: FxHashSet::default(), jumping: Vec::new() }.block(block, out);
}

/// A walk that knows what differs between iterations of a loop.
struct Along<'a> {
    kernel: &'a Kernel,
    v: VarId,
    /// Values that may differ.
    varying: FxHashSet<ValueId>,
    /// Variables bound to such values: they jump from one iteration to the next.
    jumping: Vec<VarId>,
}

impl Along<'_> {
    fn differs(&self, x: &Index) -> bool {
        x.mentions(self.v) || self.jumping.iter().any(|j| x.mentions(*j))
    }

    fn block(&mut self, block: &Block, out: &mut Lie) {
        for s in block {
            match &s.kind {
                StmtKind::Let(v, expr) => {
                    let mut varies = match expr {
                        Expr::Load { index, .. } => index.iter().any(|x| self.differs(x)),
                        Expr::Index(x) => self.differs(x),
                        _ => false,
                    };
                    expr.for_each_operand(&mut |o| varies |= self.varying.contains(&o));
                    if varies {
                        self.varying.insert(*v);
                    }
                    if let Expr::Load { from, index, .. } = expr {
                        self.access(*from, index, false, out);
                    }
                }
                StmtKind::Store { to, index, .. } => self.access(*to, index, true, out),
                StmtKind::Loop(l) => self.block(&l.body, out),
                StmtKind::Reduce(r) => {
                    self.block(&r.body, out);
                    if r.yields.iter().any(|y| self.varying.contains(y)) {
                        self.varying.extend(r.results.iter());
                    }
                }
                StmtKind::Bind { var, value, .. } if self.varying.contains(value) => self.jumping.push(*var),
                // Local memory would be needed once a lane.
                StmtKind::Tile(_)
                | StmtKind::Dot(_)
                | StmtKind::Guard(..)
                | StmtKind::Check { .. }
                | StmtKind::Barrier => out.stuck += 1,
                StmtKind::Fill(..) | StmtKind::Bind { .. } => {}
            }
        }
    }

    fn access(&self, memory: Memory, index: &[Index], stores: bool, out: &mut Lie) {
        let jumps = index.iter().any(|x| self.jumping.iter().any(|j| x.mentions(*j)));
        match stride(self.kernel, memory, index, self.v) {
            // Two lanes may store to one place.
            _ if jumps && stores => out.stuck += 1,
            _ if jumps => out.bad += 1,
            Some(0) if stores => out.stuck += 1,
            Some(0 | 1) => out.good += 1,
            // Lanes that lie in a few vectors: a window's elements.
            Some(s) if s.unsigned_abs() <= NEAR => {}
            Some(_) | None => out.bad += 1,
        }
    }
}

fn has_loops(block: &Block) -> bool {
    block.iter().any(is_compound)
}

/// The work of one iteration of a block, in scalar statements, loops inside not multiplied.
fn weight(block: &Block) -> u32 {
    block
        .iter()
        .map(|s| match &s.kind {
            StmtKind::Let(_, Expr::Unary(op, _)) => op.row().flops,
            StmtKind::Let(_, Expr::Random(..)) => 100,
            StmtKind::Let(_, Expr::Const(_) | Expr::Scalar(_)) => 0,
            StmtKind::Let(..) | StmtKind::Store { .. } => 1,
            StmtKind::Loop(l) => weight(&l.body),
            StmtKind::Reduce(r) => weight(&r.body),
            _ => 1,
        })
        .sum()
}

/// The largest power of two up to `most` for which `lanes * unroll` fits the extent.
fn unroll(most: u32, extent: Extent) -> u32 {
    let room = extent.known().unwrap_or(u64::MAX) / u64::from(LANES);
    let mut u = most;
    while u > 1 && u64::from(u) > room {
        u /= 2;
    }
    u
}

/// How badly the innermost loops of a block lie along their own variables.
pub(crate) fn badness_inside(kernel: &Kernel, block: &Block) -> u32 {
    block
        .iter()
        .map(|s| {
            let (var, body) = match &s.kind {
                StmtKind::Loop(l) => (Some(l.var), &l.body),
                StmtKind::Reduce(r) => (r.vars.last().map(|v| v.0), &r.body),
                _ => return 0,
            };
            if has_loops(body) {
                return badness_inside(kernel, body);
            }
            let mut l = Lie::default();
            if let Some(v) = var {
                lie(kernel, body, v, &mut l);
            }
            l.bad
        })
        .sum()
}

/// What the innermost loops of a block lose as vectors: what lies badly, and everything in one too short for a vector (the
/// elements of a small window).
fn loss_inside(kernel: &Kernel, block: &Block) -> u32 {
    let inner = block.iter().map(|s| {
        let ((var, extent), body) = match &s.kind {
            StmtKind::Loop(l) => ((l.var, l.extent), &l.body),
            StmtKind::Reduce(r) => match r.vars.last() {
                Some(v) => (*v, &r.body),
                None => return 0,
            },
            _ => return 0,
        };
        if has_loops(body) {
            return loss_inside(kernel, body);
        }
        let mut l = Lie::default();
        lie(kernel, body, var, &mut l);
        let short = extent.known().is_some_and(|n| n < u64::from(LANES));
        if short { l.bad + l.good + 1 } else { l.bad }
    });
    inner.sum()
}

fn vectorize(kernel: &Kernel, block: &mut Block) {
    for s in block {
        match &mut s.kind {
            StmtKind::Loop(l) => {
                let mut l_lie = Lie::default();
                lie(kernel, &l.body, l.var, &mut l_lie);
                let wide = l.extent.known().is_none_or(|n| n >= u64::from(LANES)) && l.step == 1;
                let legal = wide && l_lie.stuck == 0;
                let inner = has_loops(&l.body);
                let better = inner && l_lie.bad <= l_lie.good && l_lie.bad < loss_inside(kernel, &l.body);
                if legal && ((!inner && l_lie.bad <= l_lie.good) || better) {
                    l.axis.vector = LANES;
                    let most = match weight(&l.body) {
                        // Columns: each row is another page, so whole cache lines of it, and several, are taken at a time.
                        0..=4 if better => 8,
                        0..=8 => 4,
                        9..=24 => 2,
                        _ => 1,
                    };
                    l.axis.unroll = unroll(most, l.extent);
                } else if inner {
                    vectorize(kernel, &mut l.body);
                }
            }
            StmtKind::Reduce(r) => {
                let Some(&(v, extent)) = r.vars.last() else { continue };
                let mut r_lie = Lie::default();
                lie(kernel, &r.body, v, &mut r_lie);
                let wide = extent.known().is_none_or(|n| n >= u64::from(LANES));
                let inner = has_loops(&r.body);
                let better = r_lie.bad <= r_lie.good && (!inner || r_lie.bad < loss_inside(kernel, &r.body));
                if wide && r_lie.stuck == 0 && better {
                    r.axis.vector = LANES;
                    if inner {
                        continue;
                    }
                    let most = match weight(&r.body) {
                        0..=4 => 8,
                        5..=24 => 4,
                        _ => 2,
                    };
                    r.axis.unroll = unroll(most, extent);
                } else if inner {
                    vectorize(kernel, &mut r.body);
                }
            }
            StmtKind::Guard(_, body) => vectorize(kernel, body),
            StmtKind::Let(..)
            | StmtKind::Store { .. }
            | StmtKind::Tile(_)
            | StmtKind::Fill(..)
            | StmtKind::Dot(_)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => {}
        }
    }
}

/// Shares the outermost loops among threads.
fn bind_threads(kernel: &mut Kernel, target: &Target) {
    let mut body = std::mem::take(&mut kernel.body);
    if let [root] = body.as_mut_slice() {
        match &mut root.kind {
            StmtKind::Loop(_) => bind_nest(root, 1),
            StmtKind::Reduce(r) => {
                let inner: u64 = r.vars.iter().skip(1).filter_map(|(_, e)| e.known()).product();
                let per_iteration = inner.saturating_mul(elements(&r.body)).max(1);
                let extent = r.vars.first().and_then(|(_, e)| e.known()).unwrap_or(u64::MAX);
                let lanes = u64::from(r.axis.vector * r.axis.unroll);
                let chunk = target.reduce_chunk.div_ceil(per_iteration).next_multiple_of(if r.vars.len() == 1 {
                    lanes
                } else {
                    1
                });
                if chunk < extent {
                    r.axis.binding = Binding::Parallel;
                    r.chunk = chunk;
                }
            }
            _ => {}
        }
    }
    if !kernel.finish.is_empty()
        && !body.iter().any(|s| {
            matches!(&s.kind, StmtKind::Reduce(r) if r.axis.binding == Binding::Parallel)
                || matches!(s.kind, StmtKind::Loop(_))
        })
    {
        body.append(&mut kernel.finish);
    }
    kernel.body = body;
}

/// The side of the squares in which a transpose walks.
const SQUARE: u64 = 64;
/// Elements of a plane that are worth three loops.
const WORTH_TURNING: u64 = 512;

/// Cuts the two innermost loops of a large elementwise nest that reads across memory into squares. What it reads so comes in
/// along memory, row by row of the square, and is read from there: each cache line and page is touched once, and rows whose
/// distance is a power of two do not push each other out. Tells whether it did.
fn cut_transposes(kernel: &mut Kernel, body: &mut Block) -> bool {
    let [root] = body.as_slice() else { return false };
    let Some(nest) = innermost(root) else { return false };
    // The loop along which something is read moves next to the innermost one: the order of iterations is free.
    let Some(last) = nest.len().checked_sub(1) else { return false };
    let across = |at: usize| {
        let mut order = nest.clone();
        let row = order.remove(at);
        order.insert(last - 1, row);
        let loads = strided_loads(kernel, root, &order);
        (!loads.is_empty()).then_some((order, loads))
    };
    let Some((nest, loads)) = (0..last).rev().find_map(across) else { return false };
    let [.., (_, rows), (_, columns)] = nest.as_slice() else { return false };
    if rows * columns < WORTH_TURNING || (*rows).min(*columns) < u64::from(2 * LANES) {
        return false;
    }
    let squares = Stage {
        row: (SQUARE.min(*rows), Binding::Parallel, Binding::Serial),
        column: (SQUARE.min(*columns), Binding::Parallel, Binding::Serial),
        outer: Binding::Serial,
        // A cache line: neighbours along a column of the square lie in different sets.
        pad: 16,
        scope: Scope::Thread,
        near: Some(Axis { vector: LANES, unroll: 4, ..Axis::default() }),
        copy: (Axis { unroll: 8, ..Axis::default() }, Axis::default()),
        vector: LANES,
    };
    *body = through_tiles(kernel, std::mem::take(body), &nest, &loads, &squares);
    true
}

/// Elements that the loops of a block walk.
fn elements(block: &Block) -> u64 {
    block
        .iter()
        .map(|s| match &s.kind {
            StmtKind::Loop(l) => l.extent.known().unwrap_or(1).saturating_mul(elements(&l.body)),
            StmtKind::Reduce(r) => {
                let n: u64 = r.vars.iter().filter_map(|(_, e)| e.known()).product();
                n.saturating_mul(elements(&r.body))
            }
            _ => 0,
        })
        .sum::<u64>()
        .max(1)
}

/// Marks a perfect nest parallel from the outside in, until it has iterations enough for many cores.
fn bind_nest(s: &mut Stmt, iterations: u64) {
    let StmtKind::Loop(l) = &mut s.kind else { return };
    l.axis.binding = Binding::Parallel;
    let own = l.extent.known().unwrap_or(1).div_ceil(l.step.max(1));
    let iterations = iterations.saturating_mul(own);
    let pieces = l.step > 1;
    let [inner] = l.body.as_mut_slice() else { return };
    let StmtKind::Loop(m) = &inner.kind else { return };
    // The panels of a contraction are work enough, each of them.
    if m.step > 1 || holds_dot(&m.body) || (!pieces && ((m.axis.vector == 1 && iterations < 256) || iterations < 16)) {
        bind_nest(inner, iterations);
    }
}

/// Makes the extent of the outermost parallel loop a run-time value, where it is the extent of whole dims.
fn generalise(kernel: &mut Kernel) -> Vec<u64> {
    let id = ExtentId(kernel.extents.len() as u32);
    let (var, extent) = match kernel.body.as_mut_slice() {
        [Stmt { kind: StmtKind::Loop(l), .. }]
            if l.axis.binding == Binding::Parallel && l.limit.is_none() && l.step == 1 =>
        {
            (l.var, &mut l.extent)
        }
        [Stmt { kind: StmtKind::Reduce(r), .. }] if r.axis.binding == Binding::Parallel => match r.vars.first_mut() {
            Some((v, e)) => (*v, e),
            None => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    let Extent::Const(n) = *extent else { return Vec::new() };
    *extent = Extent::Runtime(id);
    kernel.extents.push("n".into());
    let mut accesses = Vec::new();
    for_each_statement(&kernel.body, &mut |kind| {
        accesses.extend(kind.touches().iter().map(|t| (t.memory, t.index.to_vec())));
    });
    for (i, p) in kernel.params.iter_mut().enumerate() {
        for d in 0..p.dims.len() {
            let mut own = accesses.iter().filter(|(m, _)| *m == Memory::Param(ParamId(i as u32))).peekable();
            if p.dims[d] == Extent::Const(n)
                && own.peek().is_some()
                && own.all(|(_, index)| index[d].as_var() == Some(var))
            {
                p.dims[d] = Extent::Runtime(id);
            }
        }
    }
    vec![n]
}
