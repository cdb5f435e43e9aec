//! Names in the text, and indices by them.

use crate::index::Atom;
use crate::kernel::{Extent, Memory, ScalarType};
use crate::{ExtentId, Index, Kernel, Literal, VarId};
use rustc_hash::FxHashSet;
use std::fmt::{self, Display, Formatter};

/// The names of everything in the text.
pub(super) struct Names {
    pub(super) params: Vec<String>,
    pub(super) scalars: Vec<String>,
    pub(super) extents: Vec<String>,
    pub(super) tiles: Vec<String>,
    pub(super) vars: Vec<String>,
    /// Names with `%` that a variable must not take.
    pub(super) taken: FxHashSet<String>,
}

/// A name as one word, other than those taken.
pub(super) fn unique(name: &str, taken: &mut FxHashSet<String>) -> String {
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
    pub(super) fn new(k: &Kernel) -> Names {
        let mut taken = FxHashSet::default();
        let params = k.params.iter().map(|p| unique(&p.name, &mut taken)).collect();
        let scalars = k.scalars.iter().map(|s| unique(&s.name, &mut taken)).collect();
        let tiles = k.tiles.iter().map(|t| unique(&t.name, &mut taken)).collect();
        let mut words = FxHashSet::default();
        let extents = k.extents.iter().map(|e| unique(e, &mut words)).collect();
        let vars = (0..k.vars.len()).map(|v| format!("_v{v}")).collect();
        Names { params, scalars, extents, tiles, vars, taken }
    }

    pub(super) fn memory(&self, m: Memory) -> &str {
        match m {
            Memory::Param(p) => self.params.get(p.index()),
            Memory::Tile(t) => self.tiles.get(t.index()),
        }
        .map_or("_missing", String::as_str)
    }

    pub(super) fn extent(&self, e: Extent) -> String {
        match e {
            Extent::Const(n) => n.to_string(),
            Extent::Runtime(e) => self.runtime_extent(e),
        }
    }

    pub(super) fn runtime_extent(&self, e: ExtentId) -> String {
        self.extents.get(e.0 as usize).cloned().unwrap_or_else(|| format!("_n{}", e.0))
    }

    pub(super) fn var(&self, v: VarId) -> String {
        self.vars.get(v.0 as usize).map_or_else(|| format!("%_v{}", v.0), |name| format!("%{name}"))
    }

    pub(super) fn index(&self, index: &Index) -> String {
        index_text(index, &|v| self.var(v), &|e| self.runtime_extent(e))
    }

    pub(super) fn place(&self, memory: Memory, index: &[Index]) -> String {
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

/// A constant of a kernel: an `i64` and an `f32` as graphs print them, others with their type behind: `-3i32`, `0.5f64`.
pub(crate) fn constant_text(c: Literal) -> String {
    match c.scalar_type() {
        ScalarType::Bool | ScalarType::I64 | ScalarType::F32 => c.to_string(),
        ScalarType::F64 if c.is_nan() && c.to_string().starts_with("bits:") => c.to_string(),
        ScalarType::U8 | ScalarType::I32 | ScalarType::F64 => format!("{c}{}", c.scalar_type().name()),
    }
}
