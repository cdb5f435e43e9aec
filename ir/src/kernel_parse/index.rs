//! Indices and the places of memory they point at.

use super::Parser;
use crate::index::Atom;
use crate::kernel::{Memory, TileId};
use crate::{Index, Result, VarId};

impl<'a> Parser<'a> {
    /// `factor * 3 + ...`, taken as it stands.
    pub(super) fn index(&mut self) -> Result<Index> {
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

    pub(super) fn index_term(&mut self) -> Result<Index> {
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
                self.c.require("(")?;
                let inner = self.deeper(Self::index)?;
                self.c.require(")")?;
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

    pub(super) fn divisor(&mut self) -> Result<i64> {
        let at = self.c.position();
        match self.c.number()? {
            d if d > 0 => Ok(d),
            _ => Err(self.c.error_at(at, "expected a divisor above 0")),
        }
    }

    pub(super) fn var(&mut self) -> Result<VarId> {
        let (name, at) = self.name_at()?;
        match self.scope.iter().rev().find(|(n, _)| *n == name) {
            Some((_, v)) => Ok(*v),
            None => Err(self.c.error_at(at, format!("%{name} is no loop variable in scope"))),
        }
    }

    /// A loop's own `%name`, which comes into scope.
    pub(super) fn new_var(&mut self) -> Result<VarId> {
        let name = self.name()?;
        Ok(self.enters(name))
    }

    /// A new variable of this name comes into scope.
    pub(super) fn enters(&mut self, name: &'a str) -> VarId {
        let v = match self.listed_vars.remove(name) {
            Some(v) => v,
            None => self.kernel.new_var(name),
        };
        self.scope.push((name, v));
        v
    }

    pub(super) fn memory_name(&mut self) -> Result<Memory> {
        let (name, at) = self.name_at()?;
        match self.memory.get(name) {
            Some(m) => Ok(*m),
            None => Err(self.c.error_at(at, format!("%{name} is no parameter or tile declared above"))),
        }
    }

    pub(super) fn tile_name(&mut self) -> Result<TileId> {
        let at = self.c.position();
        match self.memory_name()? {
            Memory::Tile(t) => Ok(t),
            Memory::Param(_) => Err(self.c.error_at(at, "expected a tile, found a parameter")),
        }
    }

    /// `%x[index, index]`.
    pub(super) fn place(&mut self) -> Result<(Memory, Vec<Index>)> {
        let memory = self.memory_name()?;
        Ok((memory, self.indices()?))
    }

    pub(super) fn indices(&mut self) -> Result<Vec<Index>> {
        let mut indices = Vec::new();
        self.bracketed(|p| {
            indices.push(p.index()?);
            Ok(())
        })?;
        Ok(indices)
    }
}
