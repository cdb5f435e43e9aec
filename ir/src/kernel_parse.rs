//! Reads the text form of kernels (`kernel_text` tells its rules).
//!
//! What is read is taken as it stands: indices are not simplified and nothing is verified, so that the text of a wrong
//! kernel can be read and shown to the verifier. Values may have names instead of numbers; each name counts from its
//! definition to its next one.

mod index;
mod statement;
mod value;

use crate::kernel::{Access, Extent, Memory, Param, ParamId, ScalarId, ScalarParam, ScalarType, Stride, ValueId};
use crate::kernel_text::default_strides;
use crate::text::Cursor;
use crate::{DimVec, ExtentId, Kernel, Result, VarId};
use rustc_hash::{FxHashMap, FxHashSet};

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
        self.c.require("%")?;
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
        self.c.require("(")?;
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
        self.c.require("{")?;
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
        self.c.require("}")?;
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
                p.c.require(":")?;
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
                p.c.require(":")?;
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
        Ok(true)
    }

    fn param(&mut self) -> Result<()> {
        let name = self.name()?;
        self.c.require(":")?;
        let access = if self.c.eat_word("mut") {
            Access::Write
        } else if self.c.eat_word("inout") {
            Access::ReadWrite
        } else {
            Access::Read
        };
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
        self.c.require("[")?;
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
}
