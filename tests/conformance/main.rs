//! Conformance: samples of PyTorch's operators with the results and gradients that PyTorch computed, run eagerly and compiled.
//!
//! The samples are read from the folder that `LAZULI_CONFORMANCE_DIR` names, else from `tests/data/conformance`. Operators and
//! arguments that Lazuli has not are counted as unsupported; `LAZULI_CONFORMANCE_VERBOSE=1` lists them. `operators.rs` has one
//! row an operator: that is all there is to adding one.

mod arguments;
mod compare;
mod operators;
mod sample;

use arguments::{Arguments, Unsupported};
use lazuli::{DType, Error, Tensor};
use operators::{FAMILIES, Operator};
use sample::{Case, Samples};
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Why a case has not passed.
enum Outcome {
    Unsupported(String),
    Fail(String),
}

impl From<Unsupported> for Outcome {
    fn from(Unsupported(what): Unsupported) -> Outcome {
        Outcome::Unsupported(what)
    }
}

impl From<Error> for Outcome {
    fn from(e: Error) -> Outcome {
        Outcome::Fail(e.to_string())
    }
}

/// The results of a case on these inputs, and the gradients of what `grads` names, each an input of the case.
///
/// A gradient is that of `sum_i(<output_i, cotangent_i>)`, as the samples define it.
fn evaluate(case: &Case, operator: Operator, inputs: &[Tensor]) -> Result<Vec<Tensor>, Outcome> {
    let mut named: BTreeMap<&str, Tensor> = BTreeMap::new();
    for (name, tensor) in case.inputs.iter().zip(inputs) {
        let leaf = case.grads.iter().any(|(input, _)| input == name);
        named.insert(name, if leaf { tensor.requires_grad_(true) } else { tensor.clone() });
    }
    let mut arguments = Arguments::new(case, &named)?;
    let mut results = operator(&mut arguments)?;
    arguments.finish()?;
    if case.grads.is_empty() {
        return Ok(results);
    }
    let mut total = Tensor::zeros(());
    for (output, name) in &case.cotangents {
        let (Some(result), Some(cotangent)) = (results.get(*output), named.get(name.as_str())) else {
            return Err(Outcome::Fail(format!("there is no output {output}")));
        };
        total += (result * cotangent).sum(..);
    }
    total.backward()?;
    for (input, _) in &case.grads {
        let leaf = &named[input.as_str()];
        results.push(leaf.grad().unwrap_or_else(|| leaf.zeros_like()));
    }
    Ok(results.iter().map(Tensor::detach).collect())
}

/// Runs one case in both modes.
fn run(samples: &Samples, case: &Case) -> Result<(), Outcome> {
    let Some(&(_, operator)) = FAMILIES.iter().copied().flatten().find(|(name, _)| *name == case.op) else {
        return Err(Outcome::Unsupported("the operator".into()));
    };
    let inputs = case.inputs.iter().map(|name| samples.tensor(name)).collect::<Result<Vec<_>, _>>()?;
    let names = case.outputs.iter().chain(case.grads.iter().map(|(_, grad)| grad));
    let expected = names.map(|name| samples.tensor(name)).collect::<Result<Vec<_>, _>>()?;
    let what = |i: usize| match i.checked_sub(case.outputs.len()) {
        None => format!("output {i}"),
        Some(grad) => format!("gradient by {}", case.grads[grad].0),
    };
    let check = |mode: &str, found: &[Tensor]| {
        if found.len() != expected.len() {
            return Err(Outcome::Fail(format!("{mode}: {} results, expected {}", found.len(), expected.len())));
        }
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            compare::same(&case.op, found, expected)
                .map_err(|message| Outcome::Fail(format!("{mode}: {}: {message}", what(i))))?;
        }
        Ok(())
    };
    check("eager", &evaluate(case, operator, &inputs)?)?;
    let program = lazuli::compile(|inputs: Vec<Tensor>| match evaluate(case, operator, &inputs) {
        Ok(results) => Ok(results),
        Err(Outcome::Fail(message) | Outcome::Unsupported(message)) => {
            Err(Error::new(lazuli::ErrorKind::Value, message))
        }
    });
    let found = program.call(&inputs).map_err(|e| Outcome::Fail(format!("compiled: {e}")))?;
    check("compiled", &found)
}

/// A panic is a failure like any other, so that one does not hide what comes after it.
fn run_guarded(samples: &Samples, case: &Case) -> Result<(), Outcome> {
    catch_unwind(AssertUnwindSafe(|| run(samples, case))).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()));
        Err(Outcome::Fail(format!("panicked: {}", text.unwrap_or_default())))
    })
}

#[test]
fn operators_agree_with_pytorch() {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/conformance");
    let folder = std::env::var_os("LAZULI_CONFORMANCE_DIR").map_or(own, PathBuf::from);
    let verbose = std::env::var_os("LAZULI_CONFORMANCE_VERBOSE").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    let (mut passed, mut unsupported, mut failures) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    let mut whole = Vec::new();
    for file in &files {
        let samples = Samples::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let before = passed;
        for (number, case) in samples.cases.iter().enumerate() {
            match run_guarded(&samples, case) {
                Ok(()) => passed += 1,
                Err(Outcome::Unsupported(what)) => *unsupported.entry(format!("{}: {what}", case.op)).or_default() += 1,
                Err(Outcome::Fail(message)) => {
                    failures.push(format!("{} #{number} {}\n    {message}", case.op, case.call))
                }
            }
        }
        if passed - before == samples.cases.len() {
            whole.push(file.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    let skipped: usize = unsupported.values().sum();
    let total = passed + skipped + failures.len();
    let mut report = String::new();
    if verbose {
        unsupported.iter().for_each(|(what, n)| report += &format!("unsupported {n:4} {what}\n"));
    }
    let (operators, failed) = (files.len(), failures.len());
    report += &format!("{} of {operators} operators pass with all their cases\n", whole.len());
    report += &format!("{total} cases: {passed} pass, {skipped} unsupported, {failed} fail\n");
    // Not through `print!`, which the test harness keeps to itself.
    std::io::stderr().write_all(report.as_bytes()).unwrap();
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 0, "no case ran in {}", folder.display());
}

/// Comparisons that must fail do: else every case would pass.
#[test]
fn differences_are_seen() {
    let x = lazuli::tensor([1.0, f64::NAN]);
    let same = |a: &Tensor, b: &Tensor| compare::same("add", a, b).is_ok();
    assert!(same(&x, &lazuli::tensor([1.0 + 1e-7, f64::NAN])));
    assert!(!same(&x, &lazuli::tensor([1.0001, f64::NAN])));
    assert!(!same(&x, &lazuli::tensor([1.0, 0.0])));
    assert!(!same(&x, &lazuli::tensor([[1.0, f64::NAN]])));
    assert!(!same(&lazuli::tensor([1, 2]), &lazuli::tensor([1, 3])));
    assert!(!same(&lazuli::tensor([1, 2]), &lazuli::tensor([1, 2]).to(DType::F32)));
    assert!(!same(&lazuli::tensor([f64::INFINITY]), &lazuli::tensor([f64::NEG_INFINITY])));
}
