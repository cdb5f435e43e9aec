//! Values: their numbers, operands, expressions and constants.

use super::Parser;
use crate::kernel::{Block, Expr, MachineOp, ScalarType, StmtKind, ValueId};
use crate::kernel_text::derived_type;
use crate::{BinaryOp, CompareOp, DType, Literal, Result, UnaryOp};
use smallvec::SmallVec;

impl<'a> Parser<'a> {
    /// The next value's number, where the text gives none.
    pub(super) fn next_value(&mut self) -> ValueId {
        while self.numbers.contains(&self.next) {
            self.next += 1;
        }
        ValueId(self.next)
    }

    /// Gives a value its type, once.
    pub(super) fn set_type(&mut self, v: ValueId, at: usize, ty: ScalarType) -> Result<()> {
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
    pub(super) fn define(&mut self, name: &'a str, at: usize, ty: ScalarType) -> Result<ValueId> {
        let v = match name.parse::<u32>() {
            Ok(n) if (n as usize) < self.limit => ValueId(n),
            Ok(n) => return Err(self.c.error_at(at, format!("the number %{n} is too large"))),
            Err(_) => self.next_value(),
        };
        self.set_type(v, at, ty)?;
        self.values.insert(name, v);
        Ok(v)
    }

    pub(super) fn emit(&mut self, block: &mut Block, at: usize, (ty, expr): (ScalarType, Expr)) -> Result<ValueId> {
        let v = self.next_value();
        self.set_type(v, at, ty)?;
        block.push(StmtKind::Let(v, expr).into());
        Ok(v)
    }

    /// `%v`, a constant, or an expression in parentheses.
    pub(super) fn operand(&mut self, block: &mut Block) -> Result<ValueId> {
        let at = self.c.position();
        match self.c.peek() {
            Some('(') => {
                self.c.require("(")?;
                let computed = self.deeper(|p| p.expr(block))?;
                self.c.require(")")?;
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
                Some(c) => self.emit(block, at, (c.scalar_type(), Expr::Const(c))),
                None => Err(self.c.expected("a value: %name, a constant, or an expression in parentheses")),
            },
        }
    }

    /// An operand whose expression needs no parentheses.
    pub(super) fn root_operand(&mut self, block: &mut Block) -> Result<ValueId> {
        let at = self.c.position();
        let constant = { self.c }.word().is_none() || self.constant_ahead();
        if constant {
            return self.operand(block);
        }
        let computed = self.expr(block)?;
        self.emit(block, at, computed)
    }

    pub(super) fn constant_ahead(&self) -> bool {
        let mut ahead = self.c;
        let text = ahead.run(is_constant);
        parse_constant(text).is_some()
    }

    pub(super) fn constant(&mut self) -> Result<Option<Literal>> {
        let mut ahead = self.c;
        match parse_constant(ahead.run(is_constant)) {
            Some(c) => {
                self.c = ahead;
                Ok(Some(c))
            }
            None => Ok(None),
        }
    }

    pub(super) fn operands<const N: usize>(&mut self, block: &mut Block) -> Result<[ValueId; N]> {
        let mut operands = [ValueId(0); N];
        for (i, operand) in operands.iter_mut().enumerate() {
            if i > 0 {
                self.c.require(",")?;
            }
            *operand = self.operand(block)?;
        }
        Ok(operands)
    }

    /// An expression and its type.
    pub(super) fn expr(&mut self, block: &mut Block) -> Result<(ScalarType, Expr)> {
        let at = self.c.position();
        if let Some(c) = self.constant()? {
            return Ok((c.scalar_type(), Expr::Const(c)));
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

    pub(super) fn named_expr(&mut self, word: &str, block: &mut Block) -> Result<Option<Expr>> {
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

    pub(super) fn operation(&mut self, word: &str, block: &mut Block) -> Result<Option<Expr>> {
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
                self.c.require(",")?;
            }
            operands.push(self.operand(block)?);
        }
        Ok(Some(Expr::Machine(op, operands)))
    }
}

fn is_constant(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | ':')
}

/// `3` is an i64, `3i32` an i32, `0.5` an f32, `0.5f64` an f64; a float shows a point, an exponent or a word.
fn parse_constant(text: &str) -> Option<Literal> {
    if let Some(digits) = text.strip_prefix("bits:0x") {
        return Literal::parse(if digits.len() > 8 { DType::F64 } else { DType::F32 }, text);
    }
    for dtype in [DType::U8, DType::I32, DType::F64] {
        if let Some(number) = text.strip_suffix(dtype.name()) {
            return Literal::parse(dtype, number);
        }
    }
    let dtype = match text {
        "true" | "false" => DType::Bool,
        "inf" | "-inf" | "NaN" => DType::F32,
        _ if !text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) => return None,
        _ if text.contains(['.', 'e']) => DType::F32,
        _ => DType::I64,
    };
    Literal::parse(dtype, text)
}
