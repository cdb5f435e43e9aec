//! Statements: tiles, loops, reduces, dots and what they contain.

use super::Parser;
use crate::kernel::{
    Axis, Binding, Block, Dot, DotOperand, Extent, Loop, Memory, Reduce, Reducer, ScalarType, Scope, Stmt, StmtKind,
    Tile, TileId, ValueId,
};
use crate::{DType, DimVec, Index, ReduceOp, Result, Sources, VarId};
use smallvec::SmallVec;

impl<'a> Parser<'a> {
    pub(super) fn braced(&mut self) -> Result<Block> {
        self.c.require("{")?;
        let (mut block, scope) = (Block::new(), self.scope.len());
        while !self.c.eat("}") {
            self.deeper(|p| p.statement(&mut block))?;
        }
        self.scope.truncate(scope);
        Ok(block)
    }

    /// One statement, after those that compute what is nested in it; all get the sources of its line.
    pub(super) fn statement(&mut self, block: &mut Block) -> Result<()> {
        let first = block.len();
        let mut sources = Sources::none();
        let kind = if self.c.peek() == Some('%') {
            self.definition(block, &mut sources)?
        } else {
            let mut ahead = self.c;
            let word = ahead.word().unwrap_or("");
            let start = std::mem::replace(&mut self.c, ahead);
            match self.named_statement(word, block, &mut sources)? {
                Some(kind) => kind,
                None => {
                    self.c = start;
                    return Err(self.c.expected("a statement"));
                }
            }
        };
        block.push(kind.into());
        if sources.is_empty() {
            sources = self.c.sources();
        }
        for stmt in &mut block[first..] {
            stmt.sources = sources.clone();
        }
        Ok(())
    }

    pub(super) fn named_statement(
        &mut self,
        word: &str,
        block: &mut Block,
        sources: &mut Sources,
    ) -> Result<Option<StmtKind>> {
        let kind = match word {
            "store" => {
                let (to, index) = self.place()?;
                self.c.require(",")?;
                let value = self.root_operand(block)?;
                let mask = if self.c.eat_word("if") { Some(self.operand(block)?) } else { None };
                StmtKind::Store { to, index, value, mask }
            }
            "tile" => StmtKind::Tile(self.tile()?),
            "fill" => {
                let tile = self.tile_name()?;
                self.c.require(",")?;
                match self.constant()? {
                    Some(c) => StmtKind::Fill(tile, c),
                    None => return Err(self.c.expected("a constant")),
                }
            }
            "loop" => self.loop_nest(sources)?,
            "dot" => self.dot()?,
            "guard" => {
                let c = self.operand(block)?;
                *sources = self.sources_of_block();
                StmtKind::Guard(c, self.braced()?)
            }
            "check" => {
                let ok = self.operand(block)?;
                self.c.require(",")?;
                if !self.c.eat_word("site") {
                    return Err(self.c.expected("`site`"));
                }
                let site = self.c.number()?;
                self.c.require(",")?;
                let value = self.operand(block)?;
                if !self.c.eat_word("at") {
                    return Err(self.c.expected("`at`"));
                }
                StmtKind::Check { ok, site, value, at: self.index()? }
            }
            "bind" => {
                let name = self.name_at()?;
                self.c.require("=")?;
                let value = self.operand(block)?;
                if !self.c.eat_word("in") {
                    return Err(self.c.expected("`in`"));
                }
                let extent = self.extent()?;
                StmtKind::Bind { var: self.enters(name.0), value, extent }
            }
            "barrier" => StmtKind::Barrier,
            _ => return Ok(None),
        };
        Ok(Some(kind))
    }

    /// The sources in the comment after a `{` that comes next.
    pub(super) fn sources_of_block(&mut self) -> Sources {
        let mut ahead = self.c;
        if ahead.eat("{") { ahead.sources() } else { Sources::none() }
    }

    /// `%v = expr` or `%a, %b = reduce ..`.
    pub(super) fn definition(&mut self, block: &mut Block, sources: &mut Sources) -> Result<StmtKind> {
        let mut names = vec![self.name_at()?];
        while self.c.eat(",") {
            names.push(self.name_at()?);
        }
        let ty = if self.c.eat(":") { Some(self.scalar_type()?) } else { None };
        self.c.require("=")?;
        if self.c.eat_word("reduce") {
            return self.reduce(&names, sources);
        }
        let (derived, expr) = self.expr(block)?;
        match names.as_slice() {
            [(name, at)] => Ok(StmtKind::Let(self.define(name, *at, ty.unwrap_or(derived))?, expr)),
            _ => Err(self.c.error_at(names[1].1, "only a reduce gives more than one value")),
        }
    }

    pub(super) fn tile_in_head(&mut self) -> Result<()> {
        self.tile().map(drop)
    }

    /// `%r: f32[512] scope=block valid(n - %q, _)`; only the name where the tile is known in full.
    pub(super) fn tile(&mut self) -> Result<TileId> {
        let (name, at) = self.name_at()?;
        let known = self.memory.get(name).copied();
        if !self.c.eat(":") {
            if let Some(Memory::Tile(t)) = known {
                return Ok(t);
            }
            let t = TileId(self.kernel.tiles.len() as u32);
            self.memory.insert(name, Memory::Tile(t));
            self.kernel.tiles.push(Tile {
                name: name.to_owned(),
                dtype: DType::F32,
                dims: DimVec::new(),
                valid: DimVec::new(),
                scope: Scope::Thread,
            });
            self.declared.push(false);
            return Ok(t);
        }
        let tile = self.tile_type(name)?;
        match known {
            Some(Memory::Tile(t)) if !self.declared[t.index()] => {
                self.declared[t.index()] = true;
                self.kernel.tiles[t.index()] = tile;
                Ok(t)
            }
            None => {
                let t = TileId(self.kernel.tiles.len() as u32);
                self.memory.insert(name, Memory::Tile(t));
                self.kernel.tiles.push(tile);
                self.declared.push(true);
                Ok(t)
            }
            Some(_) => Err(self.c.error_at(at, format!("%{name} is declared twice"))),
        }
    }

    pub(super) fn tile_type(&mut self, name: &str) -> Result<Tile> {
        let dtype = self.c.dtype()?;
        let mut dims: DimVec<u64> = DimVec::new();
        self.bracketed(|p| {
            dims.push(p.c.number()?);
            Ok(())
        })?;
        let mut scope = Scope::Thread;
        if self.c.eat_word("scope") {
            self.c.require("=")?;
            let mut ahead = self.c;
            let word = ahead.word();
            scope = match [Scope::Register, Scope::Thread, Scope::Block].into_iter().find(|s| Some(s.name()) == word) {
                Some(scope) => scope,
                None => return Err(self.c.expected("register, thread or block")),
            };
            self.c = ahead;
        }
        let mut valid: DimVec<Option<Index>> = dims.iter().map(|_| None).collect();
        if self.c.eat_word("valid") {
            let at = self.c.position();
            valid.clear();
            self.items(|p| {
                let limit = if p.c.eat_word("_") { None } else { Some(p.index()?) };
                valid.push(limit);
                Ok(())
            })?;
            if valid.len() != dims.len() {
                return Err(self.c.error_at(at, format!("expected {} valid extents, one a dim", dims.len())));
            }
        }
        Ok(Tile { name: name.to_owned(), dtype, dims, valid, scope })
    }

    /// `%i in n step 128 below m parallel vector(4), %j in ..  { .. }`: each loop is the body of the one before.
    pub(super) fn loop_nest(&mut self, sources: &mut Sources) -> Result<StmtKind> {
        let scope = self.scope.len();
        let mut heads = Vec::new();
        loop {
            heads.push(self.loop_head()?);
            if !self.c.eat(",") {
                break;
            }
        }
        *sources = self.sources_of_block();
        let mut body = self.braced()?;
        self.scope.truncate(scope);
        while let Some(mut head) = heads.pop() {
            head.body = body;
            if heads.is_empty() {
                return Ok(StmtKind::Loop(head));
            }
            body = vec![Stmt { kind: StmtKind::Loop(head), sources: sources.clone() }];
        }
        Err(self.c.expected("a loop"))
    }

    pub(super) fn counted(&mut self) -> Result<(VarId, Extent)> {
        let var = self.new_var()?;
        if !self.c.eat_word("in") {
            return Err(self.c.expected("`in`"));
        }
        Ok((var, self.extent()?))
    }

    pub(super) fn loop_head(&mut self) -> Result<Loop> {
        let (var, extent) = self.counted()?;
        let step = if self.c.eat_word("step") { self.c.number()? } else { 1 };
        let limit = if self.c.eat_word("below") { Some(self.index()?) } else { None };
        let (axis, _) = self.axis(false)?;
        Ok(Loop { var, extent, step, limit, axis, body: Block::new() })
    }

    /// `parallel chunk=64 vector(4) unroll(4)`.
    pub(super) fn axis(&mut self, with_chunk: bool) -> Result<(Axis, u64)> {
        let mut axis = Axis::default();
        let mut chunk = 0;
        for binding in Binding::ALL {
            if *binding != Binding::Serial && self.c.eat_word(binding.name()) {
                axis.binding = *binding;
            }
        }
        if with_chunk && self.c.eat_word("chunk") {
            self.c.require("=")?;
            chunk = self.c.number()?;
        }
        for (word, count) in [("vector", &mut axis.vector), ("unroll", &mut axis.unroll)] {
            if self.c.eat_word(word) {
                self.c.require("(")?;
                *count = self.c.number()?;
                self.c.require(")")?;
            }
        }
        Ok((axis, chunk))
    }

    pub(super) fn reducer(&mut self) -> Result<(ReduceOp, Option<ScalarType>)> {
        let mut ahead = self.c;
        let Some(op) = ahead.word().and_then(ReduceOp::parse) else {
            return Err(self.c.expected("a reduction (sum, max, argmax)"));
        };
        self.c = ahead;
        let ty = if self.c.peek() == Some('%') || self.c.peek() == Some(',') || self.c.peek() == Some(')') {
            None
        } else {
            Some(self.scalar_type()?)
        };
        Ok((op, ty))
    }

    pub(super) fn reduce(&mut self, names: &[(&'a str, usize)], sources: &mut Sources) -> Result<StmtKind> {
        let scope = self.scope.len();
        let mut ops = Vec::new();
        if self.c.peek() == Some('(') {
            self.items(|p| {
                ops.push(p.reducer()?);
                Ok(())
            })?;
        } else {
            ops.push(self.reducer()?);
        }
        let mut vars = SmallVec::new();
        loop {
            vars.push(self.counted()?);
            if !self.c.eat(",") {
                break;
            }
        }
        let (axis, chunk) = self.axis(true)?;
        *sources = self.sources_of_block();
        let (body, yields) = self.yielding_block()?;
        self.scope.truncate(scope);
        let mut given = yields.iter();
        let mut reducers: SmallVec<[Reducer; 1]> = SmallVec::new();
        let mut results = SmallVec::new();
        let mut names = names.iter();
        for (op, ty) in ops {
            let first = given.next().and_then(|v| self.types.get(v.index()).copied().flatten());
            let reducer = Reducer { op, ty: ty.or(first).unwrap_or(ScalarType::F32) };
            given.by_ref().take(reducer.types().len() - 1).for_each(drop);
            for ty in reducer.types() {
                if let Some((name, at)) = names.next() {
                    results.push(self.define(name, *at, ty)?);
                }
            }
            reducers.push(reducer);
        }
        match names.next() {
            None => Ok(StmtKind::Reduce(Reduce { vars, reducers, axis, chunk, body, yields, results })),
            Some((name, at)) => Err(self.c.error_at(*at, format!("the reduce gives no value for %{name}"))),
        }
    }

    /// `{ .. yield a, b }`.
    pub(super) fn yielding_block(&mut self) -> Result<(Block, SmallVec<[ValueId; 2]>)> {
        self.c.require("{")?;
        let mut body = Block::new();
        let mut yields = SmallVec::new();
        loop {
            if self.c.peek() == Some('}') {
                return Err(self.c.expected("`yield` with what each element gives"));
            }
            if self.c.eat_word("yield") {
                break;
            }
            self.deeper(|p| p.statement(&mut body))?;
        }
        loop {
            yields.push(self.root_operand(&mut body)?);
            if !self.c.eat(",") {
                break;
            }
        }
        self.c.require("}")?;
        Ok((body, yields))
    }

    /// `%t[%row,%col], %a[%q + %row,%k], %b[%k,%col] over %k in 784 chunk=16`.
    pub(super) fn dot(&mut self) -> Result<StmtKind> {
        let scope = self.scope.len();
        let acc = self.tile_name()?;
        self.c.require("[")?;
        let row = self.new_var()?;
        self.c.require(",")?;
        let column = self.new_var()?;
        self.c.require("]")?;
        self.c.require(",")?;
        // The operands use the variables that stand after them.
        let operands = self.c;
        while !{ self.c }.eat_word("over") && self.in_dot() {
            if self.c.word().is_none() {
                self.c.eat_char();
            }
        }
        let mut contract = SmallVec::new();
        if !self.c.eat_word("over") {
            return Err(self.c.expected("`over` and the contraction's variables"));
        }
        if self.c.eat("(") {
            self.c.require(")")?;
        } else {
            loop {
                contract.push(self.counted()?);
                if !self.c.eat(",") {
                    break;
                }
            }
        }
        let limit = if self.c.eat_word("below") { Some(self.index()?) } else { None };
        let mut chunk = 0;
        if self.c.eat_word("chunk") {
            self.c.require("=")?;
            chunk = self.c.number()?;
        }
        let end = std::mem::replace(&mut self.c, operands);
        let (memory, index) = self.place()?;
        let a = DotOperand { memory, index };
        self.c.require(",")?;
        let (memory, index) = self.place()?;
        let b = DotOperand { memory, index };
        self.scope.truncate(scope);
        self.c = end;
        Ok(StmtKind::Dot(Dot { acc, row, column, contract, limit, a, b, chunk }))
    }

    /// Whether the cursor may still be among the operands of a dot.
    pub(super) fn in_dot(&mut self) -> bool {
        !matches!(self.c.peek(), None | Some('{' | '}' | '='))
    }
}
