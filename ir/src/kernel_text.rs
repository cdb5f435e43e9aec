//! The text form of kernels, as DESIGN shows it and `Kernel::parse` reads back.
//!
//! - Values are numbered (`%12`); a value that is used once, by the statement right after it, is nested into that statement
//!   and its number left out. The parser gives a value without a number the one after the value before it in the text,
//!   skipping those that are written out somewhere; the printer nests only where that gives the same number.
//! - Names of loop variables are made unique among those in scope, all other names in the kernel. `vars(..)` and `tiles(..)`
//!   in the head give the order of ids where it is not that of the text, `values(..)` the types of values that nothing
//!   defines.
//! - Strides stand in the text only where they are not those of constant row-major storage.

use crate::index::Atom;
use crate::kernel::{
    Access, Axis, Binding, Block, Const, Dot, DotOperand, Expr, Extent, Loop, MachineOp, Memory, Param, Reduce,
    ScalarType, Scope, Stmt, StmtKind, Stride, TileId, ValueId,
};
use crate::text::Name;
use crate::{DType, DimVec, ExtentId, Index, Kernel, Sources, VarId};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::fmt::{self, Display, Formatter};

/// How deep values are nested into one statement.
const DEPTH: usize = 3;

/// The strides of constant row-major storage: what a parameter has where its text shows none.
pub(crate) fn default_strides(dims: &[Extent]) -> DimVec<Stride> {
    let mut strides: DimVec<Stride> = dims.iter().map(|_| Stride::Runtime).collect();
    let mut step = Some(1i64);
    for (stride, dim) in strides.iter_mut().zip(dims).rev() {
        *stride = step.map_or(Stride::Runtime, Stride::Const);
        step = step.and_then(|s| s.checked_mul(i64::try_from(dim.known()?.max(1)).ok()?));
    }
    strides
}

/// The type of an expression, where it follows from the operands; `None` for conversions.
pub(crate) fn derived_type(kernel: &Kernel, expr: &Expr) -> Option<ScalarType> {
    let of = |v: &ValueId| kernel.values.get(v.index()).copied();
    match expr {
        Expr::Const(c) => Some(c.ty()),
        Expr::Scalar(s) => kernel.scalars.get(s.index()).map(|s| s.dtype.into()),
        Expr::Index(_) => Some(ScalarType::I64),
        Expr::Load { from: Memory::Param(p), .. } => kernel.params.get(p.index()).map(|p| p.dtype.into()),
        Expr::Load { from: Memory::Tile(t), .. } => kernel.tiles.get(t.index()).map(|t| t.ty),
        Expr::Unary(_, a) | Expr::Binary(_, a, _) | Expr::Select(_, a, _) => of(a),
        Expr::Compare(..) => Some(ScalarType::Bool),
        Expr::Convert(_) => None,
        Expr::Machine(op, operands) => match op {
            MachineOp::Fma | MachineOp::F32OfBits => Some(ScalarType::F32),
            MachineOp::BitsOfF32 => Some(ScalarType::I32),
            MachineOp::And
            | MachineOp::Or
            | MachineOp::Xor
            | MachineOp::ShiftLeft
            | MachineOp::ShiftRight
            | MachineOp::ShiftRightLogical => operands.first().and_then(of),
        },
        Expr::Random(..) => Some(ScalarType::F32),
    }
}

/// The values that the statement itself reads, in the order of its text; those of nested blocks are not among them.
pub(crate) fn direct_operands(kind: &StmtKind) -> SmallVec<[ValueId; 3]> {
    let mut operands = SmallVec::new();
    match kind {
        StmtKind::Let(_, expr) => expr.for_each_operand(&mut |v| operands.push(v)),
        StmtKind::Store { value, mask, .. } => {
            operands.push(*value);
            operands.extend(*mask);
        }
        StmtKind::Guard(c, _) => operands.push(*c),
        StmtKind::Check { ok, value, .. } => operands.extend([*ok, *value]),
        StmtKind::Tile(_)
        | StmtKind::Fill(..)
        | StmtKind::Loop(_)
        | StmtKind::Reduce(_)
        | StmtKind::Dot(_)
        | StmtKind::Barrier => {}
    }
    operands
}

/// Which values are nested, decided from their uses, places and numbers before anything is printed.
struct Plan<'k> {
    /// Uses of each value.
    uses: Vec<u32>,
    /// The definition of each value that a `Let` defines.
    lets: Vec<Option<&'k Expr>>,
    /// Values that a statement of the text defines.
    defined: Vec<bool>,
    /// Values that must stand with their number.
    pinned: Vec<bool>,
    /// Values that are nested.
    nested: Vec<bool>,
    /// The number after that of the last value of the text.
    next: usize,
    /// Variables in the order in which the text defines them.
    vars: Vec<VarId>,
    /// Tiles in the order in which the text declares them.
    tiles: Vec<TileId>,
}

impl<'k> Plan<'k> {
    fn new(kernel: &'k Kernel) -> Plan<'k> {
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
            direct_operands(&stmt.kind).into_iter().for_each(|v| self.read(v));
            match &stmt.kind {
                StmtKind::Let(v, expr) => self.define(*v, Some(expr)),
                StmtKind::Tile(t) if self.tiles.contains(t) => {}
                StmtKind::Tile(t) => self.tiles.push(*t),
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
                0..8 => self.start_of_group(block, root, &direct_operands(&block[root].kind), 0),
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

/// The names of everything in the text.
struct Names {
    params: Vec<String>,
    scalars: Vec<String>,
    extents: Vec<String>,
    tiles: Vec<String>,
    vars: Vec<String>,
    /// Names with `%` that a variable must not take.
    taken: FxHashSet<String>,
}

/// A name as one word, other than those taken.
fn unique(name: &str, taken: &mut FxHashSet<String>) -> String {
    let mut word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        word.insert(0, '_');
    }
    let mut candidate = word.clone();
    let mut n = 1;
    while !taken.insert(candidate.clone()) {
        candidate = format!("{word}_{n}");
        n += 1;
    }
    candidate
}

impl Names {
    fn new(k: &Kernel) -> Names {
        let mut taken = FxHashSet::default();
        let params = k.params.iter().map(|p| unique(&p.name, &mut taken)).collect();
        let scalars = k.scalars.iter().map(|s| unique(&s.name, &mut taken)).collect();
        let tiles = k.tiles.iter().map(|t| unique(&t.name, &mut taken)).collect();
        let mut words = FxHashSet::default();
        let extents = k.extents.iter().map(|e| unique(e, &mut words)).collect();
        let vars = (0..k.vars.len()).map(|v| format!("_v{v}")).collect();
        Names { params, scalars, extents, tiles, vars, taken }
    }

    fn memory(&self, m: Memory) -> &str {
        match m {
            Memory::Param(p) => self.params.get(p.index()),
            Memory::Tile(t) => self.tiles.get(t.index()),
        }
        .map_or("_missing", String::as_str)
    }

    fn extent(&self, e: Extent) -> String {
        match e {
            Extent::Const(n) => n.to_string(),
            Extent::Runtime(e) => self.runtime_extent(e),
        }
    }

    fn runtime_extent(&self, e: ExtentId) -> String {
        self.extents.get(e.0 as usize).cloned().unwrap_or_else(|| format!("_n{}", e.0))
    }

    fn var(&self, v: VarId) -> String {
        self.vars.get(v.0 as usize).map_or_else(|| format!("%_v{}", v.0), |name| format!("%{name}"))
    }

    fn index(&self, index: &Index) -> String {
        index_text(index, &|v| self.var(v), &|e| self.runtime_extent(e))
    }

    fn place(&self, memory: Memory, index: &[Index]) -> String {
        let index: Vec<String> = index.iter().map(|i| self.index(i)).collect();
        format!("%{}[{}]", self.memory(memory), index.join(","))
    }
}

/// An index in text: positive terms first, `/` and `%` by constants binding as in most languages.
fn index_text(index: &Index, var: &dyn Fn(VarId) -> String, extent: &dyn Fn(ExtentId) -> String) -> String {
    let atom = |a: &Atom| match a {
        Atom::Var(v) => var(*v),
        Atom::Extent(e) => extent(*e),
        Atom::Div(x, d) => format!("{} / {d}", factor_text(x, var, extent)),
        Atom::Mod(x, d) => format!("{} % {d}", factor_text(x, var, extent)),
    };
    let mut text = String::new();
    let mut constant = index.offset();
    if constant > 0 && index.terms().iter().all(|(_, c)| *c < 0) {
        text.push_str(&constant.to_string());
        constant = 0;
    }
    let positive = index.terms().iter().filter(|(_, c)| *c > 0);
    let negative = index.terms().iter().filter(|(_, c)| *c < 0);
    for (a, c) in positive.chain(negative) {
        text.push_str(match (text.is_empty(), *c < 0) {
            (true, false) => "",
            (true, true) => "-",
            (false, false) => " + ",
            (false, true) => " - ",
        });
        text.push_str(&atom(a));
        let times = if matches!(a, Atom::Div(..) | Atom::Mod(..)) { " * " } else { "*" };
        if c.unsigned_abs() != 1 {
            text.push_str(&format!("{times}{}", c.unsigned_abs()));
        }
    }
    match (text.is_empty(), constant) {
        (true, c) => text.push_str(&c.to_string()),
        (false, 0) => {}
        (false, c) => text.push_str(&format!(" {} {}", if c < 0 { '-' } else { '+' }, c.unsigned_abs())),
    }
    text
}

/// An index as a factor: in parentheses unless it is one plain atom.
fn factor_text(index: &Index, var: &dyn Fn(VarId) -> String, extent: &dyn Fn(ExtentId) -> String) -> String {
    let text = index_text(index, var, extent);
    match (index.terms(), index.offset()) {
        ([(Atom::Var(_) | Atom::Extent(_), 1)], 0) => text,
        _ => format!("({text})"),
    }
}

impl Display for Index {
    /// The index by itself: variable 3 is `%v3`, run-time extent 0 is `n0`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&index_text(self, &|v| format!("%v{}", v.0), &|e| format!("n{}", e.0)))
    }
}

impl Display for Const {
    /// A literal as graphs print it, `-3i32` for 32-bit integers.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Const::Literal(l) => write!(f, "{l}"),
            Const::I32(v) => write!(f, "{v}i32"),
        }
    }
}

impl Display for Kernel {
    /// The text that [`Kernel::parse`] reads back.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plan = Plan::new(self);
        let mut names = Names::new(self);
        let in_order = |ids: &mut dyn Iterator<Item = usize>| ids.enumerate().all(|(i, id)| i == id);
        let vars_in_order = in_order(&mut plan.vars.iter().map(|v| v.0 as usize));
        let tiles_in_order =
            in_order(&mut plan.tiles.iter().map(|t| t.index())) && plan.tiles.len() == self.tiles.len();
        if !vars_in_order || !tiles_in_order {
            let mut taken = names.taken.clone();
            names.vars = self.vars.iter().map(|v| unique(v, &mut taken)).collect();
        }
        let mut printer = Printer {
            kernel: self,
            plan,
            names,
            global_vars: !vars_in_order || !tiles_in_order,
            indent: 1,
            declared: vec![false; self.tiles.len()],
            f,
        };
        printer.head()?;
        printer.block(&self.body)?;
        if !self.finish.is_empty() {
            printer.line("finish {", &Sources::none())?;
            printer.nested(|p| p.block(&self.finish))?;
            printer.line("}", &Sources::none())?;
        }
        printer.f.write_str("}\n")
    }
}

struct Printer<'k, 'f, 'a> {
    kernel: &'k Kernel,
    plan: Plan<'k>,
    names: Names,
    /// Whether names of variables are unique in the kernel, because the head lists them.
    global_vars: bool,
    indent: usize,
    /// Tiles whose declaration was printed.
    declared: Vec<bool>,
    f: &'f mut Formatter<'a>,
}

impl<'k> Printer<'k, '_, '_> {
    fn head(&mut self) -> fmt::Result {
        let k = self.kernel;
        let params: Vec<String> = k.params.iter().zip(&self.names.params).map(|(p, n)| self.param(p, n)).collect();
        let mut head = format!("kernel {}({})", Name(&k.name), params.join(", "));
        let mut clause = |word: &str, items: Vec<String>| {
            if !items.is_empty() {
                head.push_str(&format!(" {word}({})", items.join(", ")));
            }
        };
        clause("extents", self.names.extents.clone());
        clause("scalars", scalar_list(&self.names.scalars, k.scalars.iter().map(|s| s.dtype)));
        if self.global_vars {
            clause("vars", self.names.vars.iter().map(|v| format!("%{v}")).collect());
            clause("tiles", (0..k.tiles.len()).map(|t| self.tile_in_head(TileId(t as u32))).collect());
        }
        let undefined = (0..k.values.len()).filter(|v| !self.plan.defined[*v]);
        clause("values", undefined.map(|v| format!("%{v}: {}", k.values[v].name())).collect());
        head.push_str(" {");
        self.f.write_str(&head)?;
        self.comment(&k.sources)
    }

    fn comment(&mut self, sources: &Sources) -> fmt::Result {
        if sources.is_empty() { self.f.write_str("\n") } else { writeln!(self.f, "   // {sources}") }
    }

    fn param(&self, p: &Param, name: &str) -> String {
        let dims: Vec<String> = p.dims.iter().map(|d| self.names.extent(*d)).collect();
        let access = match p.access {
            Access::Read => "",
            Access::Write => "mut ",
        };
        let mut text = format!("%{name}: {access}{}[{}]", p.dtype, dims.join(","));
        if p.strides != default_strides(&p.dims) {
            let strides: Vec<String> = p
                .strides
                .iter()
                .map(|s| match s {
                    Stride::Const(c) => c.to_string(),
                    Stride::Runtime => "?".to_owned(),
                })
                .collect();
            text.push_str(&format!(" strides({})", strides.join(",")));
        }
        text
    }

    /// A tile in the head's list: its name, and what else there is to say where no statement declares it.
    fn tile_in_head(&self, t: TileId) -> String {
        match self.plan.tiles.contains(&t) {
            true => format!("%{}", self.names.tiles[t.index()]),
            false => self.tile(t),
        }
    }

    fn tile(&self, t: TileId) -> String {
        let Some(tile) = self.kernel.tiles.get(t.index()) else { return "%_missing".to_owned() };
        let dims: Vec<String> = tile.dims.iter().map(u64::to_string).collect();
        let mut text = format!("%{}: {}[{}]", self.names.tiles[t.index()], tile.ty.name(), dims.join(","));
        if tile.scope != Scope::Thread {
            text.push_str(&format!(" scope={}", tile.scope.name()));
        }
        if tile.valid.iter().any(Option::is_some) {
            let valid: Vec<String> =
                tile.valid.iter().map(|v| v.as_ref().map_or("_".to_owned(), |v| self.names.index(v))).collect();
            text.push_str(&format!(" valid({})", valid.join(", ")));
        }
        text
    }

    fn line(&mut self, text: &str, sources: &Sources) -> fmt::Result {
        write!(self.f, "{:width$}{text}", "", width = 2 * self.indent)?;
        self.comment(sources)
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> fmt::Result) -> fmt::Result {
        self.indent += 1;
        inner(self)?;
        self.indent -= 1;
        Ok(())
    }

    /// Names variables for the time of `inner`.
    fn scoped(&mut self, vars: &[VarId], inner: impl FnOnce(&mut Self) -> fmt::Result) -> fmt::Result {
        if self.global_vars {
            return inner(self);
        }
        for v in vars {
            let name = self.kernel.vars.get(v.0 as usize).map_or("v", String::as_str);
            let name = unique(name, &mut self.names.taken);
            if let Some(slot) = self.names.vars.get_mut(v.0 as usize) {
                *slot = name;
            }
        }
        inner(self)?;
        for v in vars {
            if let Some(name) = self.names.vars.get(v.0 as usize) {
                self.names.taken.remove(name);
            }
        }
        Ok(())
    }

    fn block(&mut self, block: &'k [Stmt]) -> fmt::Result {
        let mut sources = Sources::none();
        for stmt in block {
            sources = sources.union(&stmt.sources);
            if let StmtKind::Let(v, _) = &stmt.kind
                && self.plan.nested.get(v.index()).is_some_and(|n| *n)
            {
                continue;
            }
            self.statement(stmt, &sources)?;
            sources = Sources::none();
        }
        Ok(())
    }

    fn statement(&mut self, stmt: &'k Stmt, sources: &Sources) -> fmt::Result {
        match &stmt.kind {
            StmtKind::Let(v, expr) => {
                let fits =
                    derived_type(self.kernel, expr).is_none_or(|t| Some(&t) == self.kernel.values.get(v.index()));
                let ty = match self.kernel.values.get(v.index()) {
                    Some(ty) if !fits => format!(": {}", ty.name()),
                    _ => String::new(),
                };
                self.line(&format!("%{}{ty} = {}", v.0, self.expr(*v, expr)), sources)
            }
            StmtKind::Store { to, index, value, mask } => {
                let place = self.names.place(*to, index);
                let text = match mask {
                    None => format!("store {place}, {}", self.root_operand(*value)),
                    Some(m) => format!("store {place}, {} if {}", self.operand(*value), self.operand(*m)),
                };
                self.line(&text, sources)
            }
            StmtKind::Tile(t) => {
                let first = self.declared.get_mut(t.index()).is_some_and(|d| !std::mem::replace(d, true));
                let text = if first { self.tile(*t) } else { format!("%{}", self.names.memory(Memory::Tile(*t))) };
                self.line(&format!("tile {text}"), sources)
            }
            StmtKind::Fill(t, c) => self.line(&format!("fill %{}, {c}", self.names.memory(Memory::Tile(*t))), sources),
            StmtKind::Loop(l) => self.loop_nest(l, sources),
            StmtKind::Reduce(r) => self.reduce(r, sources),
            StmtKind::Dot(d) => self.dot(d, sources),
            StmtKind::Guard(c, body) => {
                self.line(&format!("guard {} {{", self.operand(*c)), sources)?;
                self.nested(|p| p.block(body))?;
                self.line("}", &Sources::none())
            }
            StmtKind::Check { ok, site, value, at } => {
                let (ok, value) = (self.operand(*ok), self.operand(*value));
                self.line(&format!("check {ok}, site {site}, {value} at {}", self.names.index(at)), sources)
            }
            StmtKind::Barrier => self.line("barrier", sources),
        }
    }

    /// Loops that are each the whole body of the one before, in one line.
    fn loop_nest(&mut self, outer: &'k Loop, sources: &Sources) -> fmt::Result {
        let mut loops = vec![outer];
        let mut block = &outer.body;
        while let [Stmt { kind: StmtKind::Loop(inner), sources: s }] = block.as_slice()
            && (s.is_empty() || s == sources)
        {
            loops.push(inner);
            block = &inner.body;
        }
        let vars: Vec<VarId> = loops.iter().map(|l| l.var).collect();
        self.scoped(&vars, |p| {
            let heads: Vec<String> = loops.iter().map(|l| p.loop_head(l)).collect();
            p.line(&format!("loop {} {{", heads.join(", ")), sources)?;
            p.nested(|p| p.block(block))?;
            p.line("}", &Sources::none())
        })
    }

    fn loop_head(&self, l: &Loop) -> String {
        let mut text = format!("{} in {}", self.names.var(l.var), self.names.extent(l.extent));
        if l.step != 1 {
            text.push_str(&format!(" step {}", l.step));
        }
        if let Some(limit) = &l.limit {
            text.push_str(&format!(" below {}", self.names.index(limit)));
        }
        text + &axis(l.axis, 0)
    }

    fn vars(&self, vars: &[(VarId, Extent)]) -> String {
        let vars: Vec<String> =
            vars.iter().map(|(v, e)| format!("{} in {}", self.names.var(*v), self.names.extent(*e))).collect();
        vars.join(", ")
    }

    fn reduce(&mut self, r: &'k Reduce, sources: &Sources) -> fmt::Result {
        let mut yields = r.yields.iter();
        let reducers: Vec<String> = r
            .reducers
            .iter()
            .map(|reducer| {
                let given = yields.next().and_then(|v| self.kernel.values.get(v.index()));
                yields.by_ref().take(reducer.types().len() - 1).for_each(drop);
                let ty = if given == Some(&reducer.ty) { String::new() } else { format!(" {}", reducer.ty.name()) };
                format!("{}{ty}", reducer.op.name())
            })
            .collect();
        let reducers = match reducers.as_slice() {
            [one] => one.clone(),
            many => format!("({})", many.join(", ")),
        };
        let results: Vec<String> = r.results.iter().map(|v| format!("%{}", v.0)).collect();
        let vars: Vec<VarId> = r.vars.iter().map(|v| v.0).collect();
        self.scoped(&vars, |p| {
            let head =
                format!("{} = reduce {reducers} {}{}", results.join(", "), p.vars(&r.vars), axis(r.axis, r.chunk));
            p.line(&format!("{head} {{"), sources)?;
            p.nested(|p| {
                p.block(&r.body)?;
                let yields: Vec<String> = match r.yields.as_slice() {
                    [one] => vec![p.root_operand(*one)],
                    many => many.iter().map(|v| p.operand(*v)).collect(),
                };
                p.line(&format!("yield {}", yields.join(", ")), &Sources::none())
            })?;
            p.line("}", &Sources::none())
        })
    }

    fn dot(&mut self, d: &'k Dot, sources: &Sources) -> fmt::Result {
        let mut vars = vec![d.row, d.column];
        vars.extend(d.contract.iter().map(|v| v.0));
        self.scoped(&vars, |p| {
            let acc = p.names.place(Memory::Tile(d.acc), &[d.row.into(), d.column.into()]);
            let operand = |o: &DotOperand| p.names.place(o.memory, &o.index);
            let chunk = if d.chunk == 0 { String::new() } else { format!(" chunk={}", d.chunk) };
            let over = if d.contract.is_empty() { "()".to_owned() } else { p.vars(&d.contract) };
            p.line(&format!("dot {acc}, {}, {} over {over}{chunk}", operand(&d.a), operand(&d.b)), sources)
        })
    }

    fn is_nested(&self, v: ValueId) -> Option<&'k Expr> {
        self.plan.lets.get(v.index()).copied().flatten().filter(|_| self.plan.nested[v.index()])
    }

    /// An operand: a number, a constant or scalar as itself, another nested value in parentheses.
    fn operand(&self, v: ValueId) -> String {
        match self.is_nested(v) {
            None => format!("%{}", v.0),
            Some(Expr::Const(c)) => c.to_string(),
            Some(Expr::Scalar(s)) => format!("%{}", self.names.scalars[s.index()]),
            Some(expr) => format!("({})", self.expr(v, expr)),
        }
    }

    /// An operand that ends the statement, so that it needs no parentheses.
    fn root_operand(&self, v: ValueId) -> String {
        match self.is_nested(v) {
            None | Some(Expr::Const(_) | Expr::Scalar(_)) => self.operand(v),
            Some(expr) => self.expr(v, expr),
        }
    }

    fn expr(&self, v: ValueId, expr: &Expr) -> String {
        let list = |name: &str, operands: &[ValueId]| {
            let operands: Vec<String> = operands.iter().map(|v| self.operand(*v)).collect();
            format!("{name} {}", operands.join(", "))
        };
        match expr {
            Expr::Const(c) => c.to_string(),
            Expr::Scalar(s) => {
                format!("scalar %{}", self.names.scalars.get(s.index()).map_or("_missing", String::as_str))
            }
            Expr::Index(i) => format!("index {}", self.names.index(i)),
            Expr::Load { from, index, mask } => {
                let place = self.names.place(*from, index);
                match mask {
                    None => format!("load {place}"),
                    Some(m) => format!("load {place} if {}", self.operand(*m)),
                }
            }
            Expr::Unary(op, a) => list(op.name(), &[*a]),
            Expr::Binary(op, a, b) => list(op.name(), &[*a, *b]),
            Expr::Compare(op, a, b) => list(op.name(), &[*a, *b]),
            Expr::Select(c, a, b) => list("select", &[*c, *a, *b]),
            Expr::Convert(a) => {
                let ty = self.kernel.values.get(v.index()).map_or("?", |t| t.name());
                format!("convert {ty} {}", self.operand(*a))
            }
            Expr::Machine(op, operands) => list(op.name(), operands),
            Expr::Random(a, b, c) => list("random", &[*a, *b, *c]),
        }
    }
}

fn scalar_list(names: &[String], types: impl Iterator<Item = DType>) -> Vec<String> {
    names.iter().zip(types).map(|(n, t)| format!("%{n}: {t}")).collect()
}

/// The attributes of a loop or reduce, each after a space.
fn axis(a: Axis, chunk: u64) -> String {
    let mut text = String::new();
    if a.binding != Binding::Serial {
        text.push_str(&format!(" {}", a.binding.name()));
    }
    if chunk != 0 {
        text.push_str(&format!(" chunk={chunk}"));
    }
    if a.vector != 1 {
        text.push_str(&format!(" vector({})", a.vector));
    }
    if a.unroll != 1 {
        text.push_str(&format!(" unroll({})", a.unroll));
    }
    text
}
