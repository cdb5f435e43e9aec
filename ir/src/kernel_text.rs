//! The text form of kernels, as DESIGN shows it and `Kernel::parse` reads back.
//!
//! - Values are numbered (`%12`); a value that is used once, by the statement right after it, is nested into that statement
//!   and its number left out. The parser gives a value without a number the one after the value before it in the text,
//!   skipping those that are written out somewhere; the printer nests only where that gives the same number.
//! - Names of loop variables are made unique among those in scope, all other names in the kernel. `vars(..)` and `tiles(..)`
//!   in the head give the order of ids where it is not that of the text, `values(..)` the types of values that nothing
//!   defines.
//! - Strides stand in the text only where they are not those of constant row-major storage.

mod names;
mod plan;

use crate::kernel::{
    Access, Axis, Binding, Dot, DotOperand, Expr, Extent, Loop, Memory, Param, Reduce, ScalarType, Scope, Stmt,
    StmtKind, Stride, TileId, ValueId,
};
use crate::text::Name;
use crate::{DType, DimVec, Kernel, Sources, VarId};
use names::{Names, constant_text, unique};
use plan::Plan;
use std::fmt::{self, Display, Formatter};

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
        Expr::Const(c) => Some(c.scalar_type()),
        Expr::Scalar(s) => kernel.scalars.get(s.index()).map(|s| s.dtype.into()),
        Expr::Index(_) => Some(ScalarType::I64),
        Expr::Load { from: Memory::Param(p), .. } => kernel.params.get(p.index()).map(|p| p.dtype.into()),
        Expr::Load { from: Memory::Tile(t), .. } => kernel.tiles.get(t.index()).map(|t| t.dtype.into()),
        Expr::Unary(_, a) | Expr::Binary(_, a, _) | Expr::Select(_, a, _) => of(a),
        Expr::Compare(..) => Some(ScalarType::Bool),
        Expr::Convert(_) => None,
        Expr::Machine(op, operands) => operands.first().and_then(of).map(|of| op.result(of)),
        Expr::Random(..) => Some(ScalarType::F32),
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
            Access::ReadWrite => "inout ",
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
        let mut text = format!("%{}: {}[{}]", self.names.tiles[t.index()], tile.dtype.name(), dims.join(","));
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
        vars.iter().for_each(|v| self.name(*v));
        inner(self)?;
        self.release(vars);
        Ok(())
    }

    fn name(&mut self, v: VarId) {
        if self.global_vars {
            return;
        }
        let name = self.kernel.vars.get(v.0 as usize).map_or("v", String::as_str);
        let name = unique(name, &mut self.names.taken);
        if let Some(slot) = self.names.vars.get_mut(v.0 as usize) {
            *slot = name;
        }
    }

    /// Names that other variables may have from now on.
    fn release(&mut self, vars: &[VarId]) {
        if self.global_vars {
            return;
        }
        for v in vars {
            if let Some(name) = self.names.vars.get(v.0 as usize) {
                self.names.taken.remove(name);
            }
        }
    }

    fn block(&mut self, block: &'k [Stmt]) -> fmt::Result {
        let mut sources = Sources::none();
        let mut bound: Vec<VarId> = Vec::new();
        for stmt in block {
            sources = sources.union(&stmt.sources);
            if let StmtKind::Bind { var, .. } = &stmt.kind {
                self.name(*var);
                bound.push(*var);
            }
            if let StmtKind::Let(v, _) = &stmt.kind
                && self.plan.nested.get(v.index()).is_some_and(|n| *n)
            {
                continue;
            }
            self.statement(stmt, &sources)?;
            sources = Sources::none();
        }
        self.release(&bound);
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
            StmtKind::Fill(t, c) => {
                let tile = self.names.memory(Memory::Tile(*t));
                self.line(&format!("fill %{tile}, {}", constant_text(*c)), sources)
            }
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
            StmtKind::Bind { var, value, extent } => {
                let (var, extent) = (self.names.var(*var), self.names.extent(*extent));
                self.line(&format!("bind {var} = {} in {extent}", self.operand(*value)), sources)
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
            let mut over = if d.contract.is_empty() { "()".to_owned() } else { p.vars(&d.contract) };
            if let Some(limit) = &d.limit {
                over.push_str(&format!(" below {}", p.names.index(limit)));
            }
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
            Some(Expr::Const(c)) => constant_text(*c),
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
            Expr::Const(c) => constant_text(*c),
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
