//! Indices and addresses as C has them: 32 bits wide where nothing they are made of can be larger.

use super::printer::Printer;
use lazuli_ir::index::Atom;
use lazuli_ir::kernel::{Memory, Stride, TileId};
use lazuli_ir::{Index, VarId};

/// An index of memory: a sum, and products with run-time strides.
pub(super) struct Address {
    pub(super) sum: Index,
    pub(super) products: Vec<(Index, String)>,
}

impl Printer<'_> {
    /// Where an element of a parameter lies, counted from its pointer.
    pub(super) fn address(&self, p: usize, index: &[Index]) -> Address {
        let mut address = Address { sum: Index::default(), products: Vec::new() };
        for (d, x) in index.iter().enumerate() {
            match (&self.kernel.params[p].strides[d], &self.strides[p][d]) {
                (Stride::Const(c), _) => address.sum = address.sum.add_scaled(x, *c),
                (Stride::Runtime, Some(name)) if x.as_constant() != Some(0) => {
                    address.products.push((x.clone(), name.clone()));
                }
                (Stride::Runtime, _) => {}
            }
        }
        address
    }

    /// Where an element of a tile lies.
    pub(super) fn tile_index(&self, t: TileId, index: &[Index]) -> Index {
        let dims = &self.kernel.tiles[t.index()].dims;
        index.iter().zip(dims).fold(Index::default(), |sum, (x, n)| sum.times(*n as i64).add(x))
    }

    /// Elements between neighbours of memory along a variable, where that is one number.
    pub(super) fn stride_along(&self, memory: Memory, index: &[Index], v: VarId) -> Option<i64> {
        match memory {
            Memory::Param(p) => {
                let address = self.address(p.index(), index);
                let fixed = address.products.iter().all(|(x, _)| !x.mentions(v));
                if fixed { address.sum.coefficient(v) } else { None }
            }
            Memory::Tile(t) => self.tile_index(t, index).coefficient(v),
        }
    }

    pub(super) fn address_text(&self, address: &Address) -> String {
        let wide = self.needs_wide(&address.sum) || !address.products.is_empty();
        let mut text = String::new();
        if address.products.is_empty() || address.sum != Index::default() {
            text = self.sum(&address.sum, wide && self.index_type == "int");
        }
        for (x, stride) in &address.products {
            let x = self.factor(x);
            text.push_str(&format!("{}{x} * {stride}", if text.is_empty() { "" } else { " + " }));
        }
        text
    }

    /// An index in the type of loop variables, or wider where it has to be.
    pub(super) fn index(&self, x: &Index) -> String {
        self.sum(x, self.needs_wide(x) && self.index_type == "int")
    }

    /// An index as a 64-bit number.
    pub(super) fn wide_index(&self, x: &Index) -> String {
        if self.index_type == "int" && !self.needs_wide(x) {
            return match x.as_constant() {
                Some(c) => format!("{c}LL"),
                None => format!("(long long){}", self.factor(x)),
            };
        }
        self.sum(x, self.index_type == "int")
    }

    /// An index that can stand beside an operator that binds closer than a sum.
    fn factor(&self, x: &Index) -> String {
        let text = self.index(x);
        if x.as_var().is_some() || (x.terms().is_empty() && x.offset() >= 0) { text } else { format!("({text})") }
    }

    /// Whether the sums on the way to an index may need more than 32 bits.
    pub(super) fn needs_wide(&self, x: &Index) -> bool {
        self.magnitude(x) >= 1 << 31
    }

    /// What no partial sum of an index is larger than.
    fn magnitude(&self, x: &Index) -> i64 {
        x.terms().iter().fold(x.offset().saturating_abs(), |sum, (atom, c)| {
            let largest = match atom {
                Atom::Var(v) => self.ranges[v.0 as usize].1,
                Atom::Extent(_) => i64::MAX / 4,
                // What is divided is computed first.
                Atom::Div(x, _) | Atom::Mod(x, _) => self.magnitude(x),
            };
            sum.saturating_add(largest.saturating_mul(c.saturating_abs()))
        })
    }

    fn sum(&self, x: &Index, wide: bool) -> String {
        let mut text = String::new();
        let mut put = |negative: bool, part: String| {
            let sign = match (text.is_empty(), negative) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            text.push_str(sign);
            text.push_str(&part);
        };
        // What is added comes first, so that no text begins with a minus that could stand later.
        let (added, taken): (Vec<_>, Vec<_>) = x.terms().iter().partition(|(_, c)| *c > 0);
        let first = added.is_empty() && (x.offset() > 0 || taken.is_empty());
        let constant = |put: &mut dyn FnMut(bool, String)| {
            let suffix = if wide { "LL" } else { "" };
            put(x.offset() < 0, format!("{}{suffix}", x.offset().unsigned_abs()));
        };
        if first {
            constant(&mut put);
        }
        for (atom, c) in added.into_iter().chain(taken) {
            let atom = self.atom(atom, wide);
            put(*c < 0, if c.unsigned_abs() == 1 { atom } else { format!("{atom} * {}", c.unsigned_abs()) });
        }
        if !first && x.offset() != 0 {
            constant(&mut put);
        }
        text
    }

    fn atom(&self, atom: &Atom, wide: bool) -> String {
        let (x, d, operator, function) = match atom {
            Atom::Var(v) if wide => return format!("(long long){}", self.vars[v.0 as usize]),
            Atom::Var(v) => return self.vars[v.0 as usize].clone(),
            Atom::Extent(e) => return self.extents[e.0 as usize].clone(),
            Atom::Div(x, d) => (x, d, '/', "lz_floor_div"),
            Atom::Mod(x, d) => (x, d, '%', "lz_remainder"),
        };
        let text = self.sum(x, wide);
        let (low, _) = x.range(&|v| self.ranges[v.0 as usize]);
        if low >= 0 {
            // One variable or quotient needs no parentheses of its own.
            let one = matches!(x.terms(), [(_, 1)]) && x.offset() == 0;
            return if one { format!("({text} {operator} {d})") } else { format!("(({text}) {operator} {d})") };
        }
        let ty = if wide { "long long" } else { self.index_type };
        format!("{function}<{ty}>({text}, {d})")
    }
}
