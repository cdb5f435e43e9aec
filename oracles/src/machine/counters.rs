//! What was tested, counted: operator, dtype, how its subject lies in memory, and the kinds of checks that ran.

use super::placement::{Class, classes};
use crate::operator::Operator;
use lazuli_ir::{DType, Graph, Layout, Op};
use std::collections::BTreeMap;
use std::fmt;

/// How a subject lies in memory: as an input of a class, or as something computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lies {
    Input(Class),
    Computed,
}

/// Counts of what was tested.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    cells: BTreeMap<(Operator, DType, Lies), u64>,
    modes: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Counts the operations of a program whose inputs lie like this.
    pub fn program(&mut self, graph: &Graph, layouts: &[Layout]) {
        for n in graph.nodes() {
            let Some((operator, ty)) = Operator::counted(graph, n) else { continue };
            let subject = graph.operands(n).get(operator.subject()).copied();
            let input = subject.and_then(|v| match graph.op(v.node) {
                Op::Input { index, .. } => layouts.get(*index),
                _ => None,
            });
            match input {
                Some(layout) => classes(layout).into_iter().for_each(|c| self.add(operator, ty.dtype, Lies::Input(c))),
                None => self.add(operator, ty.dtype, Lies::Computed),
            }
        }
    }

    fn add(&mut self, operator: Operator, dtype: DType, lies: Lies) {
        *self.cells.entry((operator, dtype, lies)).or_default() += 1;
    }

    /// Counts a check of some kind.
    pub fn mode(&mut self, name: &'static str) {
        *self.modes.entry(name).or_default() += 1;
    }

    fn count(&self, operator: Operator, dtype: DType, lies: Lies) -> u64 {
        self.cells.get(&(operator, dtype, lies)).copied().unwrap_or(0)
    }

    /// Operators and dtypes that were not tested at all, and those with operands that were not tested in some class of layouts.
    pub fn missing(&self) -> (Vec<String>, Vec<String>) {
        let (mut cells, mut layouts) = (Vec::new(), Vec::new());
        for (operator, dtype) in Operator::cells() {
            let of = |class: &Class| self.count(operator, dtype, Lies::Input(*class));
            let total = Class::ALL.iter().map(of).sum::<u64>() + self.count(operator, dtype, Lies::Computed);
            if total == 0 {
                cells.push(format!("{} {dtype}", operator.name()));
            }
            // The base of a draw has one dim.
            let possible = |c: &Class| operator != Operator::Random || *c != Class::Transposed;
            if operator.has_operands() {
                let none = Class::ALL.iter().filter(|c| possible(c) && of(c) == 0);
                layouts.extend(none.map(|c| format!("{} {dtype} {}", operator.name(), c.name())));
            }
        }
        (cells, layouts)
    }
}

impl fmt::Display for Counters {
    /// A row for each operator and dtype, a column for each class, then the kinds of checks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24} {:5}", "operator", "dtype")?;
        Class::ALL.iter().try_for_each(|c| write!(f, " {:>10}", c.name()))?;
        writeln!(f, " {:>10}", "computed")?;
        for (operator, dtype) in Operator::cells() {
            write!(f, "{:24} {:5}", operator.name(), dtype.name())?;
            let lies = Class::ALL.iter().map(|c| Lies::Input(*c)).chain([Lies::Computed]);
            lies.into_iter().try_for_each(|l| write!(f, " {:>10}", self.count(operator, dtype, l)))?;
            writeln!(f)?;
        }
        self.modes.iter().try_for_each(|(name, n)| writeln!(f, "{name:30} {n:>10}"))
    }
}
