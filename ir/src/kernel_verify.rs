//! The invariants of a kernel, checked.
//!
//! Parameters and indices
//! - A parameter has one stride a dim; a written one does not have stride 0 along a dim known to be longer than 1.
//! - Every id (value, variable, extent, scalar, parameter, tile) is one of the kernel's.
//! - A parameter that is read is never stored to, one that is written never loaded from.
//! - An index has one entry a dim. Where nothing masks or guards it, and the extents involved are constants, it is in range.
//!
//! SSA
//! - A value is defined once, and used after that in the same block or one inside it.
//! - A variable is bound by one loop, reduce or dot, and used inside it.
//! - A tile is used after a declaration in the same block or an enclosing one.
//!
//! Types
//! - Operands have the types their operation takes; a value has the type its expression gives.
//! - Masks and guards are `bool`; the count of a shift is a constant below the width.
//! - A reduce yields and gives what its reducers say, and there is at least one reducer and one variable.
//!
//! Schedule
//! - Steps, vectors and unrolls are at least 1, vectors powers of two; inside a vector loop there is no other vector loop,
//!   no dot, tile or barrier.
//! - Parallel loops are the perfect nest at the root; a reduce that is parallel, or the grid's, is the whole body and has a chunk.
//! - Iterations that run at once (threads, lanes) write apart: the place of a store to a parameter that nothing masks depends
//!   on the variable of each such loop around it. A thread's tile is declared inside the loops over threads of its use.
//! - All loads from and stores to a register tile index it alike: by the same expression of loops of the same form.
//! - A barrier stands between loops over threads of a block, not inside one, nor under a guard or in a loop whose end depends on a thread.
//!
//! Contractions
//! - The accumulator is a tile of rank 2 and of the operands' dtype, or of `f32` where both are `bf16`, and no operand.
//! - An operand's index is affine in rows, columns and contraction; the left one's does not depend on the column, the right
//!   one's not on the row.
//!
//! Finish
//! - Of the body's values it sees the results of the root's parallel reduce alone, and no variable. It has no parallel loop.

mod expr;

use crate::index::Atom;
use crate::kernel::{
    Access, Axis, Binding, Dot, Expr, Extent, Loop, Memory, Reduce, ScalarType, Scope, Stmt, StmtKind, Stride, TileId,
    ValueId,
};
use crate::kernel_text::derived_type;
use crate::{DType, Error, ErrorKind, Index, Kernel, Literal, Result, VarId};

impl Kernel {
    /// Checks every invariant of the Kernel IR.
    ///
    /// # Errors
    /// [`ErrorKind::Verify`], naming the kernel and what is wrong, with the statement's source lines.
    pub fn verify(&self) -> Result<()> {
        Verifier::new(self).kernel().map_err(|e| e.with_sources(self.sources.clone()))
    }
}

/// A loop variable in scope.
#[derive(Clone)]
struct Bound {
    var: VarId,
    extent: Extent,
    step: u64,
    axis: Axis,
    /// The end is less than the extent says.
    limited: bool,
    /// Its end depends on a thread's number.
    divergent: bool,
}

/// The form of an index: variables by order of appearance, and what their loops look like.
type IndexForm = (Vec<Index>, Vec<(Extent, u64, Axis)>);

struct Verifier<'k> {
    kernel: &'k Kernel,
    /// Where each value is visible: the number of the definition's block, while that is open.
    visible: Vec<bool>,
    defined: Vec<bool>,
    bound: Vec<bool>,
    constants: Vec<Option<Literal>>,
    loops: Vec<Bound>,
    /// Tiles declared in open blocks, with the depth of loops there.
    tiles: Vec<(TileId, usize)>,
    /// Guards around the statement.
    guards: usize,
    /// How each register tile is indexed.
    register: Vec<Option<IndexForm>>,
    in_finish: bool,
    /// Parallel loops not yet entered that form the parallel space.
    space: Vec<VarId>,
}

fn is_thread(b: Binding) -> bool {
    matches!(b, Binding::Block | Binding::Warp | Binding::Lane)
}

impl<'k> Verifier<'k> {
    fn new(kernel: &'k Kernel) -> Verifier<'k> {
        let n = kernel.values.len();
        Verifier {
            kernel,
            visible: vec![false; n],
            defined: vec![false; n],
            bound: vec![false; kernel.vars.len()],
            constants: vec![None; n],
            loops: Vec::new(),
            tiles: Vec::new(),
            guards: 0,
            register: vec![None; kernel.tiles.len()],
            in_finish: false,
            space: kernel.parallel_space().iter().map(|s| s.0).collect(),
        }
    }

    #[cold]
    fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Verify, format!("kernel {}: {message}", self.kernel.name))
    }

    fn check(&self, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { Err(self.error(message())) }
    }

    fn kernel(&mut self) -> Result<()> {
        for p in &self.kernel.params {
            self.check(p.dims.len() == p.strides.len(), || format!("%{} has not one stride a dim", p.name))?;
            for (dim, stride) in p.dims.iter().zip(&p.strides) {
                self.extent(*dim)?;
                let overlaps = *stride == Stride::Const(0) && dim.known().is_some_and(|n| n > 1);
                self.check(p.access == Access::Read || !overlaps, || {
                    format!("%{} is written and has stride 0", p.name)
                })?;
            }
        }
        for t in &self.kernel.tiles {
            self.check(t.dims.len() == t.valid.len(), || format!("%{} has not one valid extent a dim", t.name))?;
        }
        let body = &self.kernel.body;
        body.iter().try_for_each(|s| self.statement(s))?;
        self.visible.fill(false);
        self.tiles.clear();
        if let [Stmt { kind: StmtKind::Reduce(r), .. }] = body.as_slice() {
            r.results.iter().for_each(|v| self.visible[v.index()] = true);
        }
        self.in_finish = true;
        self.kernel.finish.iter().try_for_each(|s| self.statement(s))
    }

    fn extent(&self, e: Extent) -> Result<()> {
        match e {
            Extent::Const(n) => {
                self.check(i64::try_from(n).is_ok(), || format!("the extent {n} does not fit a signed 64-bit number"))
            }
            Extent::Runtime(e) => self
                .check((e.0 as usize) < self.kernel.extents.len(), || format!("there is no run-time extent {}", e.0)),
        }
    }

    fn type_of(&self, v: ValueId) -> Result<ScalarType> {
        match self.kernel.values.get(v.index()) {
            Some(ty) => Ok(*ty),
            None => Err(self.error(format_args!("there is no value %{}", v.0))),
        }
    }

    /// A value that is read: visible, and of what type.
    fn read(&self, v: ValueId) -> Result<ScalarType> {
        let ty = self.type_of(v)?;
        self.check(self.visible[v.index()], || match (self.defined[v.index()], self.in_finish) {
            (true, true) => format!("%{} is used in finish, and is no result of the body's parallel reduce", v.0),
            (true, false) => format!("%{} is used outside the block that defines it", v.0),
            (false, _) => format!("%{} is used before it is defined", v.0),
        })?;
        Ok(ty)
    }

    fn read_as(&self, v: ValueId, ty: ScalarType, what: &str) -> Result<()> {
        let found = self.read(v)?;
        self.check(found == ty, || format!("{what} %{} is {}, and must be {}", v.0, found.name(), ty.name()))
    }

    fn define(&mut self, v: ValueId, ty: ScalarType) -> Result<()> {
        let declared = self.type_of(v)?;
        self.check(declared == ty, || {
            format!("%{} is {}, and what defines it gives {}", v.0, declared.name(), ty.name())
        })?;
        self.check(!self.defined[v.index()], || format!("%{} is defined twice", v.0))?;
        self.defined[v.index()] = true;
        self.visible[v.index()] = true;
        Ok(())
    }

    /// A block of its own: what it defines is invisible after it.
    fn block(&mut self, block: &[Stmt], inner: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (tiles, loops) = (self.tiles.len(), self.loops.len());
        block.iter().try_for_each(|s| self.statement(s))?;
        inner(self)?;
        self.tiles.truncate(tiles);
        self.loops.truncate(loops);
        self.hide(block);
        Ok(())
    }

    fn hide(&mut self, block: &[Stmt]) {
        for v in block.iter().flat_map(|s| s.kind.defines()) {
            self.visible[v.index()] = false;
        }
    }

    fn statement(&mut self, stmt: &Stmt) -> Result<()> {
        self.kind(&stmt.kind).map_err(|e| e.with_sources(stmt.sources.clone()))
    }

    fn kind(&mut self, kind: &StmtKind) -> Result<()> {
        for v in kind.operands() {
            self.read(v)?;
        }
        match kind {
            StmtKind::Let(v, expr) => {
                let ty = match (self.expr(expr)?, derived_type(self.kernel, expr)) {
                    ((), Some(ty)) => ty,
                    ((), None) => self.type_of(*v)?,
                };
                self.define(*v, ty)?;
                if let Expr::Const(c) = expr {
                    self.constants[v.index()] = Some(*c);
                }
                Ok(())
            }
            StmtKind::Store { to, index, value, mask } => self.store(*to, index, *value, *mask),
            StmtKind::Tile(t) => self.tile(*t),
            StmtKind::Fill(t, c) => {
                let ty = self.memory(Memory::Tile(*t))?.0;
                self.check(c.scalar_type() == ty, || {
                    format!("%{} is filled with {}", self.name(Memory::Tile(*t)), c.scalar_type().name())
                })
            }
            StmtKind::Loop(l) => self.a_loop(l),
            StmtKind::Reduce(r) => self.reduce(r),
            StmtKind::Dot(d) => self.dot(d),
            StmtKind::Guard(c, body) => {
                self.read_as(*c, ScalarType::Bool, "a guard")?;
                self.guards += 1;
                self.block(body, |_| Ok(()))?;
                self.guards -= 1;
                Ok(())
            }
            StmtKind::Check { ok, value, at, .. } => {
                self.read_as(*ok, ScalarType::Bool, "a check")?;
                self.read_as(*value, ScalarType::I64, "a checked value")?;
                self.index(at)
            }
            StmtKind::Bind { var, value, extent } => {
                self.read_as(*value, ScalarType::I64, "a bound value")?;
                let axis = Axis::default();
                self.bind(Bound { var: *var, extent: *extent, step: 1, axis, limited: false, divergent: false })
            }
            StmtKind::Barrier => {
                let inside = self.loops.iter().any(|l| is_thread(l.axis.binding) || l.divergent);
                self.check(self.guards == 0, || "a barrier stands under a guard".into())?;
                self.check(!inside, || {
                    "a barrier stands in a loop over threads, or one whose end depends on a thread".into()
                })?;
                self.outside_vectors("a barrier")
            }
        }
    }

    fn outside_vectors(&self, what: &str) -> Result<()> {
        self.check(self.loops.iter().all(|l| l.axis.vector <= 1), || format!("{what} stands in a vector loop"))
    }

    fn name(&self, m: Memory) -> &str {
        match m {
            Memory::Param(p) => self.kernel.params.get(p.index()).map(|p| p.name.as_str()),
            Memory::Tile(t) => self.kernel.tiles.get(t.index()).map(|t| t.name.as_str()),
        }
        .unwrap_or("?")
    }

    /// The element type and the known extents of memory that is in scope.
    fn memory(&self, m: Memory) -> Result<(ScalarType, Vec<Option<u64>>)> {
        match m {
            Memory::Param(p) => match self.kernel.params.get(p.index()) {
                Some(p) => Ok((p.dtype.into(), p.dims.iter().map(|d| d.known()).collect())),
                None => Err(self.error(format_args!("there is no parameter {}", p.0))),
            },
            Memory::Tile(t) => {
                let Some(tile) = self.kernel.tiles.get(t.index()) else {
                    return Err(self.error(format_args!("there is no tile {}", t.0)));
                };
                let Some((_, depth)) = self.tiles.iter().rev().find(|d| d.0 == t) else {
                    return Err(self.error(format_args!("tile %{} is used where it is not declared", tile.name)));
                };
                let shared = self.loops[*depth..].iter().any(|l| is_thread(l.axis.binding));
                self.check(tile.scope != Scope::Thread || !shared, || {
                    format!("%{} belongs to a thread, and threads share it here", tile.name)
                })?;
                Ok((tile.dtype.into(), tile.dims.iter().map(|d| Some(*d)).collect()))
            }
        }
    }

    fn index(&self, index: &Index) -> Result<()> {
        let mut unknown = None;
        index.for_each_var(&mut |v| {
            if !self.loops.iter().any(|l| l.var == v) {
                unknown = Some(v);
            }
        });
        if let Some(v) = unknown {
            let name = self.kernel.vars.get(v.0 as usize).map_or("?", String::as_str);
            return Err(self.error(format_args!("variable %{name} is used outside its loop")));
        }
        self.extents_of(index)
    }

    fn extents_of(&self, index: &Index) -> Result<()> {
        index.terms().iter().try_for_each(|(atom, _)| match atom {
            Atom::Var(_) => Ok(()),
            Atom::Extent(e) => self.extent(Extent::Runtime(*e)),
            Atom::Div(x, _) | Atom::Mod(x, _) => self.extents_of(x),
        })
    }

    /// A place in memory that is in scope; gives the element type.
    fn place(&self, m: Memory, index: &[Index], masked: bool) -> Result<ScalarType> {
        let (ty, dims) = self.memory(m)?;
        self.check(index.len() == dims.len(), || {
            format!("%{} of rank {} is indexed with {} indices", self.name(m), dims.len(), index.len())
        })?;
        for (i, dim) in index.iter().zip(&dims) {
            self.index(i)?;
            let (Some(dim), Some((low, high))) = (dim, self.exact_range(i)) else { continue };
            let fits = masked || self.guards > 0 || (low >= 0 && i128::from(high) < i128::from(*dim));
            self.check(fits, || format!("an index of %{} runs from {low} to {high}, the dim has {dim}", self.name(m)))?;
        }
        Ok(ty)
    }

    /// The range of an index where it is exact: constant extents, no limits, each variable once; `None` elsewhere, and where
    /// the code never runs.
    fn exact_range(&self, index: &Index) -> Option<(i64, i64)> {
        let mut seen: Vec<VarId> = Vec::new();
        let mut exact = index.terms().iter().all(|(a, _)| !matches!(a, Atom::Extent(_)));
        index.for_each_var(&mut |v| {
            exact &= !seen.contains(&v);
            seen.push(v);
        });
        exact &= self.loops.iter().all(|l| l.extent != Extent::Const(0));
        exact &= self.loops.iter().filter(|l| seen.contains(&l.var)).all(|l| !l.limited && l.extent.known().is_some());
        exact.then(|| {
            index.range(&|v| {
                let l = self.loops.iter().find(|l| l.var == v);
                let last = l.and_then(|l| Some((l.extent.known()?.max(1) - 1) / l.step.max(1) * l.step.max(1)));
                (0, last.map_or(0, |n| n as i64))
            })
        })
    }

    fn tile(&mut self, t: TileId) -> Result<()> {
        self.outside_vectors("a tile")?;
        let Some(tile) = self.kernel.tiles.get(t.index()) else {
            return Err(self.error(format_args!("there is no tile {}", t.0)));
        };
        for valid in tile.valid.iter().flatten() {
            self.index(valid)?;
        }
        self.tiles.push((t, self.loops.len()));
        Ok(())
    }

    fn store(&mut self, to: Memory, index: &[Index], value: ValueId, mask: Option<ValueId>) -> Result<()> {
        let ty = self.place(to, index, mask.is_some())?;
        self.read_as(value, ty, "a stored value")?;
        if let Some(m) = mask {
            self.read_as(m, ScalarType::Bool, "a mask")?;
        }
        let Memory::Param(p) = to else { return self.indexed_alike(to, index) };
        let p = &self.kernel.params[p.index()];
        self.check(p.access != Access::Read, || format!("%{} is stored to, and is not mut", p.name))?;
        for l in &self.loops {
            let at_once = l.axis.binding != Binding::Serial || l.axis.vector > 1;
            let apart = index.iter().any(|i| i.mentions(l.var)) || matches!(l.extent, Extent::Const(0 | 1));
            self.check(!at_once || apart || mask.is_some() || self.guards > 0, || {
                let var = self.kernel.vars.get(l.var.0 as usize).map_or("?", String::as_str);
                format!("iterations of %{var} run at once and store to the same place of %{}", p.name)
            })?;
        }
        Ok(())
    }

    /// Register tiles: every access has the form of the first.
    fn indexed_alike(&mut self, m: Memory, index: &[Index]) -> Result<()> {
        let Memory::Tile(t) = m else { return Ok(()) };
        if self.kernel.tiles[t.index()].scope != Scope::Register {
            return Ok(());
        }
        let mut vars: Vec<VarId> = Vec::new();
        for i in index {
            i.for_each_var(&mut |v| {
                if !vars.contains(&v) {
                    vars.push(v);
                }
            });
        }
        let position = |v: VarId| vars.iter().position(|w| *w == v).map(|p| Index::var(VarId(p as u32)));
        let wide = |_| (i64::MIN / 4, i64::MAX / 4);
        let form = index.iter().map(|i| i.substitute(&position, &wide)).collect();
        let loops = vars.iter().filter_map(|v| self.loops.iter().find(|l| l.var == *v));
        let form = (form, loops.map(|l| (l.extent, l.step, l.axis)).collect());
        let same = self.register[t.index()].as_ref().is_none_or(|first| *first == form);
        self.check(same, || format!("register tile %{} is not indexed alike by all its accesses", self.name(m)))?;
        self.register[t.index()] = Some(form);
        Ok(())
    }

    fn bind(&mut self, bound: Bound) -> Result<()> {
        self.extent(bound.extent)?;
        let name = self.kernel.vars.get(bound.var.0 as usize).map_or("?", String::as_str);
        let Some(seen) = self.bound.get(bound.var.0 as usize) else {
            return Err(self.error(format_args!("there is no variable {}", bound.var.0)));
        };
        self.check(!seen, || format!("%{name} is the variable of two loops"))?;
        self.bound[bound.var.0 as usize] = true;
        let axis = bound.axis;
        self.check(bound.step > 0 && axis.unroll > 0, || format!("loop %{name} has a step or unroll of 0"))?;
        self.check(axis.vector.is_power_of_two(), || format!("loop %{name} has a vector that is no power of two"))?;
        if axis.vector > 1 {
            self.outside_vectors("a vector loop")?;
        }
        self.loops.push(bound);
        Ok(())
    }

    fn parallel_at_root(&self, binding: Binding, var: VarId) -> Result<()> {
        let legal = binding != Binding::Parallel || (!self.in_finish && self.space.contains(&var));
        self.check(legal, || "a parallel loop or reduce is not part of the perfect nest at the root".into())
    }

    fn depends_on_thread(&self, index: &Index) -> bool {
        self.loops.iter().any(|l| is_thread(l.axis.binding) && index.mentions(l.var))
    }

    fn a_loop(&mut self, l: &Loop) -> Result<()> {
        self.parallel_at_root(l.axis.binding, l.var)?;
        if let Some(limit) = &l.limit {
            self.index(limit)?;
        }
        self.bind(Bound {
            var: l.var,
            extent: l.extent,
            step: l.step,
            axis: l.axis,
            limited: l.limit.is_some(),
            divergent: l.limit.as_ref().is_some_and(|i| self.depends_on_thread(i)),
        })?;
        self.block(&l.body, |_| Ok(()))?;
        self.loops.pop();
        Ok(())
    }

    fn reduce(&mut self, r: &Reduce) -> Result<()> {
        let Some((first, _)) = r.vars.first() else { return Err(self.error("a reduce has no variable")) };
        self.parallel_at_root(r.axis.binding, *first)?;
        let in_chunks = matches!(r.axis.binding, Binding::Parallel | Binding::Grid(_));
        self.check(!in_chunks || r.chunk > 0, || "a reduce that cores or blocks share has no chunk".into())?;
        let root = matches!(self.kernel.body.as_slice(), [Stmt { kind: StmtKind::Reduce(root), .. }] if root == r);
        self.check(!in_chunks || root, || "a reduce that cores or blocks share is not the whole body".into())?;
        let depth = self.loops.len();
        let last = r.vars.len() - 1;
        for (i, (var, extent)) in r.vars.iter().enumerate() {
            let axis = Axis {
                binding: if i == 0 { r.axis.binding } else { Binding::Serial },
                vector: if i == last { r.axis.vector } else { 1 },
                unroll: r.axis.unroll,
            };
            self.bind(Bound { var: *var, extent: *extent, step: 1, axis, limited: false, divergent: false })?;
        }
        let types: Vec<ScalarType> = r.reducers.iter().flat_map(|x| x.types()).collect();
        self.check(!types.is_empty(), || "a reduce has no reducer".into())?;
        for reducer in &r.reducers {
            let legal = !reducer.op.rounds() || reducer.ty != ScalarType::Bool;
            self.check(legal, || format!("a {} of bool does not exist", reducer.op.name()))?;
        }
        self.check(types.len() == r.yields.len() && types.len() == r.results.len(), || {
            let (y, g) = (r.yields.len(), r.results.len());
            format!("a reduce yields {y} values and gives {g}, its reducers take {}", types.len())
        })?;
        self.block(&r.body, |s| {
            r.yields.iter().zip(&types).try_for_each(|(v, ty)| s.read_as(*v, *ty, "a yielded value"))
        })?;
        self.loops.truncate(depth);
        r.results.iter().zip(&types).try_for_each(|(v, ty)| self.define(*v, *ty))
    }

    fn dot(&mut self, d: &Dot) -> Result<()> {
        self.outside_vectors("a dot")?;
        let acc = Memory::Tile(d.acc);
        let (ty, dims) = self.memory(acc)?;
        let name = self.name(acc).to_owned();
        let [rows, columns] = dims.as_slice() else {
            return Err(self.error(format_args!("the accumulator %{name} of a dot is not of rank 2")));
        };
        let number = ty != ScalarType::Bool;
        self.check(number, || format!("a dot cannot add to {}", ty.name()))?;
        let depth = self.loops.len();
        let tile = &self.kernel.tiles[d.acc.index()];
        let of = |m: Memory| match m {
            Memory::Param(p) => self.kernel.params.get(p.index()).map(|p| p.dtype),
            Memory::Tile(t) => self.kernel.tiles.get(t.index()).map(|t| t.dtype),
        };
        if let (Some(a), Some(b)) = (of(d.a.memory), of(d.b.memory)) {
            let (sum, bf16) = (tile.dtype, (DType::BF16, DType::BF16, DType::F32));
            let legal = (a, b) == (sum, sum) && !sum.is_half() || (a, b, sum) == bf16;
            self.check(legal, || format!("a dot of {} and {} adds to {}", a.name(), b.name(), sum.name()))?;
        }
        if let Some(limit) = &d.limit {
            self.index(limit)?;
            self.check(d.contract.len() == 1, || "a dot with a limit runs over one variable".into())?;
        }
        let count = |extent: &Option<u64>| Extent::Const(extent.unwrap_or(0));
        let mut vars =
            vec![(d.row, count(rows), tile.valid[0].is_some()), (d.column, count(columns), tile.valid[1].is_some())];
        vars.extend(d.contract.iter().map(|(v, e)| (*v, *e, d.limit.is_some())));
        for &(var, extent, limited) in &vars {
            self.bind(Bound { var, extent, step: 1, axis: Axis::default(), limited, divergent: false })?;
        }
        for (operand, foreign, side) in [(&d.a, d.column, "left"), (&d.b, d.row, "right")] {
            self.check(operand.memory != acc, || format!("%{name} is accumulator and operand of a dot"))?;
            self.place(operand.memory, &operand.index, false)?;
            self.readable(operand.memory)?;
            let affine = operand.index.iter().all(|i| vars.iter().all(|(v, ..)| i.coefficient(*v).is_some()));
            self.check(affine, || format!("the {side} operand of a dot is not affine"))?;
            let own = !operand.index.iter().any(|i| i.mentions(foreign));
            self.check(own, || format!("the {side} operand of a dot depends on the other's variable"))?;
        }
        self.loops.truncate(depth);
        Ok(())
    }
}
