//! Reads the text form of kernels (`kernel_text` tells its rules).
//!
//! What is read is taken as it stands: indices are not simplified and nothing is verified, so that the text of a wrong
//! kernel can be read and shown to the verifier. Values may have names instead of numbers; each name counts from its
//! definition to its next one.

use crate::index::Atom;
use crate::kernel::{
    Access, Axis, Binding, Block, Const, Dot, DotOperand, Expr, Extent, Loop, MachineOp, Memory, Param, ParamId,
    Reduce, Reducer, ScalarId, ScalarParam, ScalarType, Scope, Stmt, StmtKind, Stride, Tile, TileId, ValueId,
};
use crate::kernel_text::{default_strides, derived_type};
use crate::text::Cursor;
use crate::{
    BinaryOp, CompareOp, DType, DimVec, ExtentId, Index, Kernel, Literal, ReduceOp, Result, Sources, UnaryOp, VarId,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

impl Kernel {
    /// Reads the text that `Display` prints.
    ///
    /// ```
    /// let text = "kernel twice(%x: f32[n], %y: mut f32[n]) extents(n) {
    ///   loop %i in n { store %y[%i], mul (load %x[%i]), 2.0 }
    /// }";
    /// let kernel = lazuli_ir::Kernel::parse(text)?;
    /// assert_eq!(lazuli_ir::Kernel::parse(&kernel.to_string())?, kernel);
    /// # Ok::<(), lazuli_ir::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Parse`](crate::ErrorKind::Parse), with line and column, where the text has another form.
    pub fn parse(text: &str) -> Result<Kernel> {
        let mut parser = Parser {
            c: Cursor::new(text),
            limit: text.len(),
            kernel: Kernel::new(""),
            types: Vec::new(),
            numbers: FxHashSet::default(),
            next: 0,
            values: FxHashMap::default(),
            memory: FxHashMap::default(),
            scalars: FxHashMap::default(),
            scope: Vec::new(),
            listed_vars: FxHashMap::default(),
            declared: Vec::new(),
            depth: 0,
        };
        parser.kernel()?;
        let Parser { mut kernel, types, .. } = parser;
        kernel.values = types.into_iter().map(|t| t.unwrap_or(ScalarType::Bool)).collect();
        Ok(kernel)
    }
}

struct Parser<'a> {
    c: Cursor<'a>,
    /// More than any sensible number of a value.
    limit: usize,
    kernel: Kernel,
    /// The types of the values defined so far.
    types: Vec<Option<ScalarType>>,
    /// Numbers of values that are written out anywhere.
    numbers: FxHashSet<u32>,
    /// The number after that of the last value defined.
    next: u32,
    values: FxHashMap<&'a str, ValueId>,
    memory: FxHashMap<&'a str, Memory>,
    scalars: FxHashMap<&'a str, ScalarId>,
    /// Loop variables in scope, innermost last.
    scope: Vec<(&'a str, VarId)>,
    /// Variables that the head lists, until their loop comes.
    listed_vars: FxHashMap<&'a str, VarId>,
    /// Which tiles have a declaration.
    declared: Vec<bool>,
    /// Open parentheses and blocks.
    depth: usize,
}

/// Parentheses and blocks in one another: more would exhaust the stack, and no kernel has them.
const MAX_DEPTH: usize = 100;

impl<'a> Parser<'a> {
    /// `%name`.
    fn name(&mut self) -> Result<&'a str> {
        self.c.expect("%")?;
        let name = self.c.run(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() { Err(self.c.expected("a name")) } else { Ok(name) }
    }

    /// What stands inside a parenthesis or block.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            let at = self.c.position();
            return Err(self.c.error_at(at, format!("more than {MAX_DEPTH} parentheses and blocks in one another")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// `%name`, and where it starts.
    fn name_at(&mut self) -> Result<(&'a str, usize)> {
        let at = self.c.position();
        Ok((self.name()?, at))
    }

    /// `(item, item)`.
    fn items(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.c.expect("(")?;
        while !self.c.eat(")") {
            item(self)?;
            if !self.c.eat(",") && self.c.peek() != Some(')') {
                return Err(self.c.expected("`,` or `)`"));
            }
        }
        Ok(())
    }

    fn kernel(&mut self) -> Result<()> {
        if !self.c.eat_word("kernel") {
            return Err(self.c.expected("`kernel`"));
        }
        self.kernel.name = self.c.name()?;
        self.find_numbers();
        // The names of extents stand after the parameters that use them.
        let params = self.c;
        self.skip_parentheses()?;
        while self.c.peek() != Some('{') {
            if !self.head_clause()? {
                return Err(self.c.expected("extents(..), scalars(..), vars(..), tiles(..), values(..) or `{`"));
            }
        }
        let body = std::mem::replace(&mut self.c, params);
        self.items(Self::param)?;
        self.c = body;
        self.c.expect("{")?;
        self.kernel.sources = self.c.sources();
        while self.c.peek() != Some('}') {
            if self.c.eat_word("finish") {
                self.kernel.finish = self.braced()?;
                break;
            }
            let mut block = std::mem::take(&mut self.kernel.body);
            self.statement(&mut block)?;
            self.kernel.body = block;
        }
        self.c.expect("}")?;
        match self.c.peek() {
            None => Ok(()),
            Some(_) => Err(self.c.expected("the end")),
        }
    }

    /// Notes each `%12` outside comments.
    fn find_numbers(&mut self) {
        let mut ahead = self.c;
        while ahead.peek().is_some() {
            if ahead.eat("% ") {
                // The remainder in an index.
            } else if ahead.eat("%") {
                if let Ok(number) = ahead.run(|c| c.is_ascii_alphanumeric() || c == '_').parse() {
                    self.numbers.insert(number);
                }
            } else if ahead.word().is_none() {
                ahead.eat_char();
            }
        }
    }

    fn skip_parentheses(&mut self) -> Result<()> {
        let mut depth = 0;
        loop {
            match self.c.peek() {
                Some('(') => depth += 1,
                Some(')') if depth <= 1 => {
                    self.c.eat(")");
                    return Ok(());
                }
                Some(')') => depth -= 1,
                Some(_) if depth > 0 => {}
                _ => return Err(self.c.expected("the parameters in parentheses")),
            }
            self.c.eat_char();
        }
    }

    fn head_clause(&mut self) -> Result<bool> {
        let mut ahead = self.c;
        let Some(word) = ahead.word() else { return Ok(false) };
        let clause: fn(&mut Self) -> Result<()> = match word {
            "extents" => |p| match p.c.word() {
                Some(name) => {
                    p.kernel.extents.push(name.to_owned());
                    Ok(())
                }
                None => Err(p.c.expected("the name of an extent")),
            },
            "scalars" => |p| {
                let name = p.name()?;
                p.c.expect(":")?;
                let dtype = p.c.dtype()?;
                p.scalars.insert(name, ScalarId(p.kernel.scalars.len() as u32));
                p.kernel.scalars.push(ScalarParam { name: name.to_owned(), dtype });
                Ok(())
            },
            "vars" => |p| {
                let name = p.name()?;
                let v = p.kernel.new_var(name);
                p.listed_vars.insert(name, v);
                p.scope.push((name, v));
                Ok(())
            },
            "tiles" => Self::tile_in_head,
            "values" => |p| {
                let (name, at) = p.name_at()?;
                p.c.expect(":")?;
                let ty = p.scalar_type()?;
                p.define(name, at, ty).map(drop)
            },
            _ => return Ok(false),
        };
        self.c = ahead;
        self.items(clause)?;
        if word == "values" {
            self.next = 0;
        }
        if word == "vars" {
            return Ok(true);
        }
        Ok(true)
    }

    fn param(&mut self) -> Result<()> {
        let name = self.name()?;
        self.c.expect(":")?;
        let access = if self.c.eat_word("mut") { Access::Write } else { Access::Read };
        let dtype = self.c.dtype()?;
        let mut dims: DimVec<Extent> = DimVec::new();
        self.bracketed(|p| {
            dims.push(p.extent()?);
            Ok(())
        })?;
        let mut strides = default_strides(&dims);
        if self.c.eat_word("strides") {
            let at = self.c.position();
            strides.clear();
            self.items(|p| {
                let stride = if p.c.eat("?") { Stride::Runtime } else { Stride::Const(p.integer()?) };
                strides.push(stride);
                Ok(())
            })?;
            if strides.len() != dims.len() {
                return Err(self.c.error_at(at, format!("expected {} strides, one a dim", dims.len())));
            }
        }
        self.memory.insert(name, Memory::Param(ParamId(self.kernel.params.len() as u32)));
        self.kernel.params.push(Param { name: name.to_owned(), dtype, dims, strides, access });
        Ok(())
    }

    fn bracketed(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.c.expect("[")?;
        while !self.c.eat("]") {
            item(self)?;
            if !self.c.eat(",") && self.c.peek() != Some(']') {
                return Err(self.c.expected("`,` or `]`"));
            }
        }
        Ok(())
    }

    fn integer(&mut self) -> Result<i64> {
        let negative = self.c.eat("-");
        let at = self.c.position();
        let magnitude: u64 = self.c.number()?;
        match i64::try_from(magnitude) {
            Ok(v) if negative => Ok(-v),
            Ok(v) => Ok(v),
            Err(_) if negative && magnitude == i64::MIN.unsigned_abs() => Ok(i64::MIN),
            Err(_) => Err(self.c.error_at(at, format!("the number {magnitude} is too large"))),
        }
    }

    fn scalar_type(&mut self) -> Result<ScalarType> {
        let mut ahead = self.c;
        match ahead.word().and_then(ScalarType::parse) {
            Some(ty) => {
                self.c = ahead;
                Ok(ty)
            }
            None => Err(self.c.expected("a type (bool, i32, i64, f32)")),
        }
    }

    fn runtime_extent(&mut self) -> Result<ExtentId> {
        let mut ahead = self.c;
        let name = ahead.word();
        match self.kernel.extents.iter().position(|e| Some(e.as_str()) == name) {
            Some(e) => {
                self.c = ahead;
                Ok(ExtentId(e as u32))
            }
            None => Err(self.c.expected("a number or the name of an extent")),
        }
    }

    fn extent(&mut self) -> Result<Extent> {
        match self.c.peek() {
            Some('0'..='9') => Ok(Extent::Const(self.c.number()?)),
            _ => Ok(Extent::Runtime(self.runtime_extent()?)),
        }
    }

    /// `factor * 3 + ...`, taken as it stands.
    fn index(&mut self) -> Result<Index> {
        let mut sum = Index::default();
        let mut sign = if self.c.eat("-") { -1 } else { 1 };
        loop {
            sum = sum.add_scaled(&self.index_term()?, sign);
            sign = match self.c.peek() {
                Some('+') => 1,
                Some('-') => -1,
                _ => return Ok(sum),
            };
            self.c.eat_char();
        }
    }

    fn index_term(&mut self) -> Result<Index> {
        let mut factor = match self.c.peek() {
            Some('0'..='9') => {
                let at = self.c.position();
                let c: u64 = self.c.number()?;
                // The magnitude of the least i64 is read as itself and negated by the sign before it.
                match c <= i64::MIN.unsigned_abs() {
                    true => Index::constant(c as i64),
                    false => return Err(self.c.error_at(at, format!("the number {c} is too large"))),
                }
            }
            Some('(') => {
                self.c.expect("(")?;
                let inner = self.deeper(Self::index)?;
                self.c.expect(")")?;
                inner
            }
            Some('%') => Index::var(self.var()?),
            _ => Index::extent(self.runtime_extent()?),
        };
        loop {
            if self.c.eat("*") {
                let at = self.c.position();
                let negative = self.c.eat("-");
                let c: u64 = self.c.number()?;
                if c > i64::MIN.unsigned_abs() {
                    return Err(self.c.error_at(at, format!("the number {c} is too large")));
                }
                let c = c as i64;
                factor = factor.times(if negative { c.wrapping_neg() } else { c });
            } else if self.c.eat("/") {
                factor = Index::from_atom(Atom::Div(factor.into(), self.divisor()?));
            } else if self.c.eat("% ") {
                factor = Index::from_atom(Atom::Mod(factor.into(), self.divisor()?));
            } else {
                return Ok(factor);
            }
        }
    }

    fn divisor(&mut self) -> Result<i64> {
        let at = self.c.position();
        match self.c.number()? {
            d if d > 0 => Ok(d),
            _ => Err(self.c.error_at(at, "expected a divisor above 0")),
        }
    }

    fn var(&mut self) -> Result<VarId> {
        let (name, at) = self.name_at()?;
        match self.scope.iter().rev().find(|(n, _)| *n == name) {
            Some((_, v)) => Ok(*v),
            None => Err(self.c.error_at(at, format!("%{name} is no loop variable in scope"))),
        }
    }

    /// A loop's own `%name`, which comes into scope.
    fn new_var(&mut self) -> Result<VarId> {
        let name = self.name()?;
        let v = match self.listed_vars.remove(name) {
            Some(v) => v,
            None => self.kernel.new_var(name),
        };
        self.scope.push((name, v));
        Ok(v)
    }

    fn memory_name(&mut self) -> Result<Memory> {
        let (name, at) = self.name_at()?;
        match self.memory.get(name) {
            Some(m) => Ok(*m),
            None => Err(self.c.error_at(at, format!("%{name} is no parameter or tile declared above"))),
        }
    }

    fn tile_name(&mut self) -> Result<TileId> {
        let at = self.c.position();
        match self.memory_name()? {
            Memory::Tile(t) => Ok(t),
            Memory::Param(_) => Err(self.c.error_at(at, "expected a tile, found a parameter")),
        }
    }

    /// `%x[index, index]`.
    fn place(&mut self) -> Result<(Memory, Vec<Index>)> {
        let memory = self.memory_name()?;
        Ok((memory, self.indices()?))
    }

    fn indices(&mut self) -> Result<Vec<Index>> {
        let mut indices = Vec::new();
        self.bracketed(|p| {
            indices.push(p.index()?);
            Ok(())
        })?;
        Ok(indices)
    }

    /// The next value's number, where the text gives none.
    fn next_value(&mut self) -> ValueId {
        while self.numbers.contains(&self.next) {
            self.next += 1;
        }
        ValueId(self.next)
    }

    /// Gives a value its type, once.
    fn set_type(&mut self, v: ValueId, at: usize, ty: ScalarType) -> Result<()> {
        if v.index() >= self.types.len() {
            self.types.resize(v.index() + 1, None);
            self.kernel.values.resize(v.index() + 1, ScalarType::Bool);
        }
        if self.types[v.index()].is_some() {
            return Err(self.c.error_at(at, format!("%{} is defined twice", v.0)));
        }
        self.types[v.index()] = Some(ty);
        self.kernel.values[v.index()] = ty;
        self.next = v.0 + 1;
        Ok(())
    }

    /// Defines a value of a name or number.
    fn define(&mut self, name: &'a str, at: usize, ty: ScalarType) -> Result<ValueId> {
        let v = match name.parse::<u32>() {
            Ok(n) if (n as usize) < self.limit => ValueId(n),
            Ok(n) => return Err(self.c.error_at(at, format!("the number %{n} is too large"))),
            Err(_) => self.next_value(),
        };
        self.set_type(v, at, ty)?;
        self.values.insert(name, v);
        Ok(v)
    }

    fn emit(&mut self, block: &mut Block, at: usize, (ty, expr): (ScalarType, Expr)) -> Result<ValueId> {
        let v = self.next_value();
        self.set_type(v, at, ty)?;
        block.push(StmtKind::Let(v, expr).into());
        Ok(v)
    }

    /// `%v`, a constant, or an expression in parentheses.
    fn operand(&mut self, block: &mut Block) -> Result<ValueId> {
        let at = self.c.position();
        match self.c.peek() {
            Some('(') => {
                self.c.expect("(")?;
                let computed = self.deeper(|p| p.expr(block))?;
                self.c.expect(")")?;
                self.emit(block, at, computed)
            }
            Some('%') => {
                let name = self.name()?;
                match (self.values.get(name), self.scalars.get(name)) {
                    (Some(v), _) => Ok(*v),
                    (None, Some(&s)) => {
                        let ty = self.kernel.scalars[s.index()].dtype.into();
                        self.emit(block, at, (ty, Expr::Scalar(s)))
                    }
                    (None, None) => Err(self.c.error_at(at, format!("%{name} is no value defined above"))),
                }
            }
            _ => match self.constant()? {
                Some(c) => self.emit(block, at, (c.ty(), Expr::Const(c))),
                None => Err(self.c.expected("a value: %name, a constant, or an expression in parentheses")),
            },
        }
    }

    /// An operand whose expression needs no parentheses.
    fn root_operand(&mut self, block: &mut Block) -> Result<ValueId> {
        let at = self.c.position();
        let constant = { self.c }.word().is_none() || self.constant_ahead();
        if constant {
            return self.operand(block);
        }
        let computed = self.expr(block)?;
        self.emit(block, at, computed)
    }

    fn constant_ahead(&self) -> bool {
        let mut ahead = self.c;
        let text = ahead.run(is_constant);
        parse_constant(text).is_some()
    }

    fn constant(&mut self) -> Result<Option<Const>> {
        let mut ahead = self.c;
        match parse_constant(ahead.run(is_constant)) {
            Some(c) => {
                self.c = ahead;
                Ok(Some(c))
            }
            None => Ok(None),
        }
    }

    fn operands<const N: usize>(&mut self, block: &mut Block) -> Result<[ValueId; N]> {
        let mut operands = [ValueId(0); N];
        for (i, operand) in operands.iter_mut().enumerate() {
            if i > 0 {
                self.c.expect(",")?;
            }
            *operand = self.operand(block)?;
        }
        Ok(operands)
    }

    /// An expression and its type.
    fn expr(&mut self, block: &mut Block) -> Result<(ScalarType, Expr)> {
        let at = self.c.position();
        if let Some(c) = self.constant()? {
            return Ok((c.ty(), Expr::Const(c)));
        }
        let mut ahead = self.c;
        let word = ahead.word().unwrap_or("");
        let start = std::mem::replace(&mut self.c, ahead);
        if word == "convert" {
            let ty = self.scalar_type()?;
            return Ok((ty, Expr::Convert(self.operand(block)?)));
        }
        let expr = match self.named_expr(word, block)? {
            Some(expr) => expr,
            None => {
                self.c = start;
                return Err(self.c.expected("an operation"));
            }
        };
        match derived_type(&self.kernel, &expr) {
            Some(ty) => Ok((ty, expr)),
            None => Err(self.c.error_at(at, "an operation whose type is unknown")),
        }
    }

    fn named_expr(&mut self, word: &str, block: &mut Block) -> Result<Option<Expr>> {
        let expr = match word {
            "scalar" => {
                let (name, at) = self.name_at()?;
                match self.scalars.get(name) {
                    Some(s) => Expr::Scalar(*s),
                    None => return Err(self.c.error_at(at, format!("%{name} is no scalar parameter"))),
                }
            }
            "index" => Expr::Index(self.index()?),
            "load" => {
                let (from, index) = self.place()?;
                let mask = if self.c.eat_word("if") { Some(self.operand(block)?) } else { None };
                Expr::Load { from, index, mask }
            }
            "select" => {
                let [c, a, b] = self.operands(block)?;
                Expr::Select(c, a, b)
            }
            "random" => {
                let [a, b, c] = self.operands(block)?;
                Expr::Random(a, b, c)
            }
            _ => return self.operation(word, block),
        };
        Ok(Some(expr))
    }

    fn operation(&mut self, word: &str, block: &mut Block) -> Result<Option<Expr>> {
        if let Some(op) = UnaryOp::parse(word) {
            return Ok(Some(Expr::Unary(op, self.operand(block)?)));
        }
        if let Some(op) = BinaryOp::parse(word) {
            let [a, b] = self.operands(block)?;
            return Ok(Some(Expr::Binary(op, a, b)));
        }
        if let Some(op) = CompareOp::parse(word) {
            let [a, b] = self.operands(block)?;
            return Ok(Some(Expr::Compare(op, a, b)));
        }
        let Some(op) = MachineOp::ALL.iter().copied().find(|op| op.name() == word) else { return Ok(None) };
        let mut operands = SmallVec::new();
        for i in 0..op.arity() {
            if i > 0 {
                self.c.expect(",")?;
            }
            operands.push(self.operand(block)?);
        }
        Ok(Some(Expr::Machine(op, operands)))
    }

    fn braced(&mut self) -> Result<Block> {
        self.c.expect("{")?;
        let mut block = Block::new();
        while !self.c.eat("}") {
            self.deeper(|p| p.statement(&mut block))?;
        }
        Ok(block)
    }

    /// One statement, after those that compute what is nested in it; all get the sources of its line.
    fn statement(&mut self, block: &mut Block) -> Result<()> {
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

    fn named_statement(&mut self, word: &str, block: &mut Block, sources: &mut Sources) -> Result<Option<StmtKind>> {
        let kind = match word {
            "store" => {
                let (to, index) = self.place()?;
                self.c.expect(",")?;
                let value = self.root_operand(block)?;
                let mask = if self.c.eat_word("if") { Some(self.operand(block)?) } else { None };
                StmtKind::Store { to, index, value, mask }
            }
            "tile" => StmtKind::Tile(self.tile()?),
            "fill" => {
                let tile = self.tile_name()?;
                self.c.expect(",")?;
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
                self.c.expect(",")?;
                if !self.c.eat_word("site") {
                    return Err(self.c.expected("`site`"));
                }
                let site = self.c.number()?;
                self.c.expect(",")?;
                let value = self.operand(block)?;
                if !self.c.eat_word("at") {
                    return Err(self.c.expected("`at`"));
                }
                StmtKind::Check { ok, site, value, at: self.index()? }
            }
            "barrier" => StmtKind::Barrier,
            _ => return Ok(None),
        };
        Ok(Some(kind))
    }

    /// The sources in the comment after a `{` that comes next.
    fn sources_of_block(&mut self) -> Sources {
        let mut ahead = self.c;
        if ahead.eat("{") { ahead.sources() } else { Sources::none() }
    }

    /// `%v = expr` or `%a, %b = reduce ..`.
    fn definition(&mut self, block: &mut Block, sources: &mut Sources) -> Result<StmtKind> {
        let mut names = vec![self.name_at()?];
        while self.c.eat(",") {
            names.push(self.name_at()?);
        }
        let ty = if self.c.eat(":") { Some(self.scalar_type()?) } else { None };
        self.c.expect("=")?;
        if self.c.eat_word("reduce") {
            return self.reduce(&names, sources);
        }
        let (derived, expr) = self.expr(block)?;
        match names.as_slice() {
            [(name, at)] => Ok(StmtKind::Let(self.define(name, *at, ty.unwrap_or(derived))?, expr)),
            _ => Err(self.c.error_at(names[1].1, "only a reduce gives more than one value")),
        }
    }

    fn tile_in_head(&mut self) -> Result<()> {
        self.tile().map(drop)
    }

    /// `%r: f32[512] scope=block valid(n - %q, _)`; only the name where the tile is known in full.
    fn tile(&mut self) -> Result<TileId> {
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
                ty: ScalarType::F32,
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

    fn tile_type(&mut self, name: &str) -> Result<Tile> {
        let ty = self.scalar_type()?;
        let mut dims: DimVec<u64> = DimVec::new();
        self.bracketed(|p| {
            dims.push(p.c.number()?);
            Ok(())
        })?;
        let mut scope = Scope::Thread;
        if self.c.eat_word("scope") {
            self.c.expect("=")?;
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
        Ok(Tile { name: name.to_owned(), ty, dims, valid, scope })
    }

    /// `%i in n step 128 below m parallel vector(4), %j in ..  { .. }`: each loop is the body of the one before.
    fn loop_nest(&mut self, sources: &mut Sources) -> Result<StmtKind> {
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

    fn counted(&mut self) -> Result<(VarId, Extent)> {
        let var = self.new_var()?;
        if !self.c.eat_word("in") {
            return Err(self.c.expected("`in`"));
        }
        Ok((var, self.extent()?))
    }

    fn loop_head(&mut self) -> Result<Loop> {
        let (var, extent) = self.counted()?;
        let step = if self.c.eat_word("step") { self.c.number()? } else { 1 };
        let limit = if self.c.eat_word("below") { Some(self.index()?) } else { None };
        let (axis, _) = self.axis(false)?;
        Ok(Loop { var, extent, step, limit, axis, body: Block::new() })
    }

    /// `parallel chunk=64 vector(4) unroll(4)`.
    fn axis(&mut self, with_chunk: bool) -> Result<(Axis, u64)> {
        let mut axis = Axis::default();
        let mut chunk = 0;
        for binding in Binding::ALL {
            if *binding != Binding::Serial && self.c.eat_word(binding.name()) {
                axis.binding = *binding;
            }
        }
        if with_chunk && self.c.eat_word("chunk") {
            self.c.expect("=")?;
            chunk = self.c.number()?;
        }
        for (word, count) in [("vector", &mut axis.vector), ("unroll", &mut axis.unroll)] {
            if self.c.eat_word(word) {
                self.c.expect("(")?;
                *count = self.c.number()?;
                self.c.expect(")")?;
            }
        }
        Ok((axis, chunk))
    }

    fn reducer(&mut self) -> Result<(ReduceOp, Option<ScalarType>)> {
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

    fn reduce(&mut self, names: &[(&'a str, usize)], sources: &mut Sources) -> Result<StmtKind> {
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
    fn yielding_block(&mut self) -> Result<(Block, SmallVec<[ValueId; 2]>)> {
        self.c.expect("{")?;
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
        self.c.expect("}")?;
        Ok((body, yields))
    }

    /// `%t[%row,%col], %a[%q + %row,%k], %b[%k,%col] over %k in 784 chunk=16`.
    fn dot(&mut self) -> Result<StmtKind> {
        let scope = self.scope.len();
        let acc = self.tile_name()?;
        self.c.expect("[")?;
        let row = self.new_var()?;
        self.c.expect(",")?;
        let column = self.new_var()?;
        self.c.expect("]")?;
        self.c.expect(",")?;
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
            self.c.expect(")")?;
        } else {
            loop {
                contract.push(self.counted()?);
                if !self.c.eat(",") {
                    break;
                }
            }
        }
        let mut chunk = 0;
        if self.c.eat_word("chunk") {
            self.c.expect("=")?;
            chunk = self.c.number()?;
        }
        let end = std::mem::replace(&mut self.c, operands);
        let (memory, index) = self.place()?;
        let a = DotOperand { memory, index };
        self.c.expect(",")?;
        let (memory, index) = self.place()?;
        let b = DotOperand { memory, index };
        self.scope.truncate(scope);
        self.c = end;
        Ok(StmtKind::Dot(Dot { acc, row, column, contract, a, b, chunk }))
    }

    /// Whether the cursor may still be among the operands of a dot.
    fn in_dot(&mut self) -> bool {
        !matches!(self.c.peek(), None | Some('{' | '}' | '='))
    }
}

fn is_constant(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | ':')
}

/// `3` is an i64, `3i32` an i32; a float shows a point, an exponent or a word.
fn parse_constant(text: &str) -> Option<Const> {
    if let Some(number) = text.strip_suffix("i32") {
        return number.parse().ok().map(Const::I32);
    }
    let dtype = match text {
        "true" | "false" => DType::Bool,
        "inf" | "-inf" | "NaN" => DType::F32,
        _ if text.starts_with("bits:") => DType::F32,
        _ if !text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) => return None,
        _ if text.contains(['.', 'e']) => DType::F32,
        _ => DType::I64,
    };
    Literal::parse(dtype, text).map(Const::Literal)
}
