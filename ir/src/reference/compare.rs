//! Holding another evaluator's results against the reference's bounds.

use super::bounds::Bounds;
use super::dense::{Data, Dense};
use std::fmt;

/// What a comparison that held has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Elements in all outputs.
    pub elements: usize,
    /// Elements not compared: they hang on a decision that rounding may turn.
    pub undetermined: usize,
    /// The largest difference, in parts of the element's bound: at most 1.
    pub worst: f64,
}

impl Summary {
    /// The share of elements that were not compared.
    pub fn undetermined_share(&self) -> f64 {
        self.undetermined as f64 / self.elements.max(1) as f64
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { elements, undetermined, worst } = self;
        write!(f, "{elements} elements, {undetermined} undetermined, largest difference {worst:.3} of its bound")
    }
}

/// The first place where results differ from the reference by more than the bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// Which output.
    pub output: usize,
    /// The logical index of the first element that differs; empty where whole tensors do not fit.
    pub index: Vec<usize>,
    /// How many elements of the output differ.
    pub wrong: usize,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "output {}: {}", self.output, self.message)
    }
}

impl std::error::Error for Mismatch {}

/// Compares results with the reference: each element must be within its bound, a NaN where the reference has one, integers
/// and booleans equal; undetermined elements are counted.
///
/// # Errors
/// The first output that does not fit, with its first wrong element.
pub fn compare(actual: &[Dense], bounds: &[Bounds]) -> Result<Summary, Mismatch> {
    let whole = |output, message| Mismatch { output, index: Vec::new(), wrong: 0, message };
    if actual.len() != bounds.len() {
        return Err(whole(0, format!("{} outputs, expected {}", actual.len(), bounds.len())));
    }
    let mut summary = Summary::default();
    for (output, (a, b)) in actual.iter().zip(bounds).enumerate() {
        if a.ty() != b.value.ty() {
            return Err(whole(output, format!("{}, expected {}", a.ty(), b.value.ty())));
        }
        let mut wrong = (0, None);
        for i in 0..a.len() {
            summary.elements += 1;
            if b.undetermined[i] {
                summary.undetermined += 1;
                continue;
            }
            match distance(a, b, i) {
                Some(distance) => summary.worst = summary.worst.max(distance),
                None => wrong = (wrong.0 + 1, wrong.1.or(Some(i))),
            }
        }
        if let (count, Some(first)) = wrong {
            return Err(mismatch(output, a, b, count, first));
        }
    }
    Ok(summary)
}

/// How far an element is off in parts of its bound; `None` where that is too far.
fn distance(actual: &Dense, bounds: &Bounds, i: usize) -> Option<f64> {
    if actual.same_at(&bounds.value, i) {
        return Some(0.0);
    }
    match actual.data() {
        Data::Bool(_) | Data::Int(_) => None,
        Data::Float(_) => {
            let difference = (actual.f64_at(i) - bounds.value.f64_at(i)).abs();
            match (difference, bounds.slack[i]) {
                (0.0, _) => Some(0.0),
                (d, slack) if d <= slack && d.is_finite() => Some(d / slack),
                _ => None,
            }
        }
    }
}

#[cold]
fn mismatch(output: usize, actual: &Dense, bounds: &Bounds, wrong: usize, first: usize) -> Mismatch {
    let mut index = vec![0; actual.ty().shape.rank()];
    let mut rest = first;
    for (at, extent) in index.iter_mut().zip(actual.ty().shape.extents()).rev() {
        *at = rest % extent;
        rest /= extent;
    }
    let element = |x: &Dense| x.literals().nth(first).map_or(String::new(), |v| v.to_string());
    let within = match actual.data() {
        Data::Float(_) => {
            let difference = (actual.f64_at(first) - bounds.value.f64_at(first)).abs();
            format!(" within {:.3e} (off by {difference:.3e})", bounds.slack[first])
        }
        Data::Bool(_) | Data::Int(_) => String::new(),
    };
    let message = format!(
        "{wrong} of {} elements of {} differ, first at {index:?}: {}, expected {}{within}",
        actual.len(),
        actual.ty(),
        element(actual),
        element(&bounds.value),
    );
    Mismatch { output, index, wrong, message }
}
