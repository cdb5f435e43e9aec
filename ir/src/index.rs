//! Index arithmetic of the Kernel IR: affine sums over loop variables and run-time extents, with floor division and
//! remainder by constants where a reshape splits or merges dims.
//!
//! An [`Index`] is kept in one normal form (terms sorted, no zero coefficients, constants folded), so equal expressions
//! compare equal. Division and remainder are simplified when they are built, from the ranges of the variables: a reshape
//! that only regroups loops leaves no division behind. Every variable counts from 0.

use smallvec::SmallVec;
use std::sync::Arc;

/// A loop variable of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId(pub u32);

/// A run-time extent of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtentId(pub u32);

/// What a term of an [`Index`] multiplies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A loop variable.
    Var(VarId),
    /// A run-time extent.
    Extent(ExtentId),
    /// `index / divisor`, rounded down; the divisor is positive.
    Div(Arc<Index>, i64),
    /// `index - index / divisor * divisor`; the divisor is positive.
    Mod(Arc<Index>, i64),
}

/// An index: `constant + sum of coefficient * atom`. Arithmetic wraps; shapes were checked to fit before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    terms: SmallVec<[(Atom, i64); 2]>,
    constant: i64,
}

/// The inclusive range of a variable's values.
pub type Range = (i64, i64);

/// Tells the range of each variable: `0..=extent - 1`.
pub type Ranges<'a> = &'a dyn Fn(VarId) -> Range;

impl Index {
    /// A constant.
    pub fn constant(c: i64) -> Index {
        Index { terms: SmallVec::new(), constant: c }
    }

    /// A loop variable.
    pub fn var(v: VarId) -> Index {
        Index::atom(Atom::Var(v))
    }

    /// A run-time extent.
    pub fn extent(e: ExtentId) -> Index {
        Index::atom(Atom::Extent(e))
    }

    /// An atom as it stands, for the parser: division is not simplified.
    pub(crate) fn from_atom(a: Atom) -> Index {
        Index::atom(a)
    }

    fn atom(a: Atom) -> Index {
        Index { terms: smallvec::smallvec![(a, 1)], constant: 0 }
    }

    /// The terms, sorted by atom.
    pub fn terms(&self) -> &[(Atom, i64)] {
        &self.terms
    }

    /// The constant part.
    pub fn offset(&self) -> i64 {
        self.constant
    }

    /// The value, where there are no terms.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// The variable, where the index is exactly one.
    pub fn as_var(&self) -> Option<VarId> {
        match (self.terms.as_slice(), self.constant) {
            ([(Atom::Var(v), 1)], 0) => Some(*v),
            _ => None,
        }
    }

    /// The sum.
    #[must_use]
    pub fn add(&self, other: &Index) -> Index {
        self.add_scaled(other, 1)
    }

    /// `self + other * factor`.
    #[must_use]
    pub fn add_scaled(&self, other: &Index, factor: i64) -> Index {
        let mut out = self.clone();
        out.constant = out.constant.wrapping_add(other.constant.wrapping_mul(factor));
        for (atom, c) in &other.terms {
            out.add_term(atom.clone(), c.wrapping_mul(factor));
        }
        if out.terms.iter().any(|(a, _)| matches!(a, Atom::Mod(..))) { out.joined() } else { out }
    }

    /// `x / d * d + x mod d` is `x`: both digits of a position, along dims that continue each other.
    fn joined(self) -> Index {
        let digits = self.terms.iter().find_map(|(atom, c)| {
            let Atom::Mod(x, d) = atom else { return None };
            let high = (Atom::Div(x.clone(), *d), c.wrapping_mul(*d));
            self.terms.contains(&high).then(|| (high.0, atom.clone(), x.clone(), *c))
        });
        let Some((high, low, x, c)) = digits else { return self };
        let mut out = self;
        out.terms.retain(|(a, _)| *a != high && *a != low);
        out.add_scaled(&x, c)
    }

    fn add_term(&mut self, atom: Atom, c: i64) {
        match self.terms.binary_search_by(|(a, _)| a.cmp(&atom)) {
            Ok(i) => {
                self.terms[i].1 = self.terms[i].1.wrapping_add(c);
                if self.terms[i].1 == 0 {
                    self.terms.remove(i);
                }
            }
            Err(i) if c != 0 => self.terms.insert(i, (atom, c)),
            Err(_) => {}
        }
    }

    /// The index plus a constant.
    #[must_use]
    pub fn plus(&self, c: i64) -> Index {
        let mut out = self.clone();
        out.constant = out.constant.wrapping_add(c);
        out
    }

    /// The index times a constant.
    #[must_use]
    pub fn times(&self, factor: i64) -> Index {
        Index::default().add_scaled(self, factor)
    }

    /// The inclusive range of values, saturated.
    pub fn range(&self, ranges: Ranges<'_>) -> Range {
        let (mut low, mut high) = (self.constant, self.constant);
        for (atom, c) in &self.terms {
            let (l, h) = match atom {
                Atom::Var(v) => ranges(*v),
                Atom::Extent(_) => (0, i64::from(i32::MAX)),
                Atom::Div(x, d) => {
                    let (l, h) = x.range(ranges);
                    (l.div_euclid(*d), h.div_euclid(*d))
                }
                Atom::Mod(_, d) => (0, d - 1),
            };
            let (a, b) = (l.saturating_mul(*c), h.saturating_mul(*c));
            low = low.saturating_add(a.min(b));
            high = high.saturating_add(a.max(b));
        }
        (low, high)
    }

    /// The index split as `divisor * quotient + rest`, taking into the quotient each term whose coefficient the divisor
    /// divides.
    fn split(&self, divisor: i64) -> (Index, Index) {
        let (mut quotient, mut rest) = (Index::default(), Index::default());
        for (atom, c) in &self.terms {
            if c % divisor == 0 {
                quotient.add_term(atom.clone(), c / divisor);
            } else {
                rest.add_term(atom.clone(), *c);
            }
        }
        quotient.constant = self.constant.div_euclid(divisor);
        rest.constant = self.constant.rem_euclid(divisor);
        (quotient, rest)
    }

    /// The index divided by a positive constant, rounded down.
    #[must_use]
    pub fn floor_div(&self, divisor: i64, ranges: Ranges<'_>) -> Index {
        if divisor <= 1 {
            return self.clone();
        }
        let (quotient, rest) = self.split(divisor);
        let (low, high) = rest.range(ranges);
        if low.div_euclid(divisor) == high.div_euclid(divisor) {
            return quotient.plus(low.div_euclid(divisor));
        }
        // (x mod (d e)) / e and (x / a) / b would need more rules than any program here produces; one suffices:
        // (x / a) / b = x / (a b).
        if let ([(Atom::Div(x, inner), 1)], 0) = (rest.terms.as_slice(), rest.constant)
            && let Some(product) = inner.checked_mul(divisor)
        {
            return quotient.add(&x.floor_div(product, ranges));
        }
        quotient.add(&Index::atom(Atom::Div(Arc::new(rest), divisor)))
    }

    /// The remainder of division by a positive constant.
    #[must_use]
    pub fn modulo(&self, divisor: i64, ranges: Ranges<'_>) -> Index {
        if divisor <= 1 {
            return Index::default();
        }
        let (_, rest) = self.split(divisor);
        let (low, high) = rest.range(ranges);
        if low.div_euclid(divisor) == high.div_euclid(divisor) {
            return rest.plus(-low.div_euclid(divisor) * divisor);
        }
        // (x mod (d e)) mod d = x mod d.
        if let ([(Atom::Mod(x, inner), 1)], 0) = (rest.terms.as_slice(), rest.constant)
            && inner % divisor == 0
        {
            return x.modulo(divisor, ranges);
        }
        Index::atom(Atom::Mod(Arc::new(rest), divisor))
    }

    /// The index with variables replaced; `with` gives `None` for those that stay.
    #[must_use]
    pub fn substitute(&self, with: &dyn Fn(VarId) -> Option<Index>, ranges: Ranges<'_>) -> Index {
        let mut out = Index::constant(self.constant);
        for (atom, c) in &self.terms {
            let value = match atom {
                Atom::Var(v) => with(*v).unwrap_or_else(|| Index::var(*v)),
                Atom::Extent(_) => Index::atom(atom.clone()),
                Atom::Div(x, d) => x.substitute(with, ranges).floor_div(*d, ranges),
                Atom::Mod(x, d) => x.substitute(with, ranges).modulo(*d, ranges),
            };
            out = out.add_scaled(&value, *c);
        }
        out
    }

    /// The coefficient of a variable, or `None` where it also stands under a division, so that the index is not affine in it.
    pub fn coefficient(&self, v: VarId) -> Option<i64> {
        let mut coefficient = 0;
        for (atom, c) in &self.terms {
            match atom {
                Atom::Var(w) if *w == v => coefficient = *c,
                Atom::Var(_) | Atom::Extent(_) => {}
                Atom::Div(x, _) | Atom::Mod(x, _) if x.mentions(v) => return None,
                Atom::Div(..) | Atom::Mod(..) => {}
            }
        }
        Some(coefficient)
    }

    /// Whether a variable occurs.
    pub fn mentions(&self, v: VarId) -> bool {
        self.terms.iter().any(|(atom, _)| match atom {
            Atom::Var(w) => *w == v,
            Atom::Extent(_) => false,
            Atom::Div(x, _) | Atom::Mod(x, _) => x.mentions(v),
        })
    }

    /// Calls `f` with each variable that occurs.
    pub fn for_each_var(&self, f: &mut dyn FnMut(VarId)) {
        for (atom, _) in &self.terms {
            match atom {
                Atom::Var(v) => f(*v),
                Atom::Extent(_) => {}
                Atom::Div(x, _) | Atom::Mod(x, _) => x.for_each_var(f),
            }
        }
    }

    /// The value, given those of variables and extents.
    pub fn evaluate(&self, var: &dyn Fn(VarId) -> i64, extent: &dyn Fn(ExtentId) -> i64) -> i64 {
        self.terms.iter().fold(self.constant, |sum, (atom, c)| {
            let value = match atom {
                Atom::Var(v) => var(*v),
                Atom::Extent(e) => extent(*e),
                Atom::Div(x, d) => x.evaluate(var, extent).div_euclid(*d),
                Atom::Mod(x, d) => x.evaluate(var, extent).rem_euclid(*d),
            };
            sum.wrapping_add(value.wrapping_mul(*c))
        })
    }
}

impl From<VarId> for Index {
    fn from(v: VarId) -> Index {
        Index::var(v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_that_regroups_loops_leaves_no_division() {
        let (i, j) = (VarId(0), VarId(1));
        let ranges = |v: VarId| if v == i { (0, 9) } else { (0, 31) };
        let linear = Index::var(i).times(32).add(&j.into());
        assert_eq!(linear.floor_div(32, &ranges), i.into());
        assert_eq!(linear.modulo(32, &ranges), j.into());
        assert_eq!(linear.floor_div(64, &ranges).terms().len(), 1);
        assert_eq!(linear.coefficient(i), Some(32));
        assert_eq!(linear.floor_div(64, &ranges).coefficient(i), None);
        assert_eq!(linear.modulo(16, &ranges), Index::from(j).modulo(16, &ranges));
        assert_eq!(linear.floor_div(4, &ranges).floor_div(8, &ranges), i.into());
    }

    #[test]
    fn evaluation_agrees_with_construction() {
        let (i, j) = (VarId(0), VarId(1));
        let ranges = |v: VarId| if v == i { (0, 6) } else { (0, 10) };
        for (d, c) in [(3, 2), (4, -5), (7, 0), (11, 13)] {
            let x = Index::var(i).times(11).add_scaled(&j.into(), 2).plus(c);
            for (a, b) in (0..7).flat_map(|a| (0..11).map(move |b| (a, b))) {
                let var = |v: VarId| if v == i { a } else { b };
                let at = |x: &Index| x.evaluate(&var, &|_| 0);
                assert_eq!(at(&x.floor_div(d, &ranges)), (11 * a + 2 * b + c).div_euclid(d));
                assert_eq!(at(&x.modulo(d, &ranges)), (11 * a + 2 * b + c).rem_euclid(d));
            }
        }
    }
}
