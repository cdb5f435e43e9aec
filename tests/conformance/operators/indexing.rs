//! Indexing, and what picks elements by index.

use super::{Family, one};
use lazuli::{IndexItem, Indices};
use lazuli_ir::DimVec;

pub const ROWS: Family = &[
    ("__getitem__", |a| {
        let x = a.tensor("input")?;
        one(x.i(Parts(a.index()?)))
    }),
    ("select", |a| {
        let (x, dim, index) = (a.tensor("input")?, a.integer("dim")?, a.integer("index")?);
        one(x.select(dim as isize, index as isize))
    }),
];

/// An index made of parts.
struct Parts(Vec<IndexItem>);

impl Indices for Parts {
    fn items(self) -> DimVec<IndexItem> {
        self.0.into_iter().collect()
    }
}
