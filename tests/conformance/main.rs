//! Conformance: samples of PyTorch's operators with the results and gradients that PyTorch computed, run eagerly and compiled.
//!
//! The samples are read from the folder that `LAZULI_CONFORMANCE_DIR` names, else from `tests/data/conformance`. Operators and
//! arguments that Lazuli has not are counted as unsupported; `LAZULI_CONFORMANCE_VERBOSE=1` lists them. `operators.rs` has one
//! row an operator: that is all there is to adding one.

#![allow(clippy::unwrap_used, clippy::panic)]

mod arguments;
mod compare;
mod operators;
mod sample;
mod second_order;

use arguments::{Arguments, Unsupported};
use lazuli::prelude::*;
use lazuli::{Error, ErrorKind};
use operators::{FAMILIES, Operator};
use sample::{Case, Samples};
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Operators whose results have shapes that depend on values, with some arguments: inside of a trace those are refused.
const SHAPED_BY_VALUES: &[&str] = &["__getitem__", "index_put", "nn.functional.one_hot", "repeat_interleave"];

/// Operators that may give the index of any of several equal elements.
const ANY_OF_EQUALS: &[&str] = &["argsort", "median", "sort", "topk"];

/// In which modes a case has passed.
enum Passed {
    Both,
    EagerAlone,
}

/// Why a case has not passed.
enum Outcome {
    Unsupported(String),
    Fail(String),
    /// A trace has refused it.
    Traced(String),
}

impl From<Unsupported> for Outcome {
    fn from(Unsupported(what): Unsupported) -> Outcome {
        Outcome::Unsupported(what)
    }
}

impl From<Error> for Outcome {
    fn from(e: Error) -> Outcome {
        match e.kind() {
            ErrorKind::Trace => Outcome::Traced(e.to_string()),
            _ => Outcome::Fail(e.to_string()),
        }
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
    // Without history, all gradients are 0.
    if total.requires_grad() {
        total.backward()?;
    }
    for (input, _) in &case.grads {
        let leaf = &named[input.as_str()];
        results.push(leaf.grad().unwrap_or_else(|| leaf.zeros_like()));
    }
    Ok(results.iter().map(Tensor::detach).collect())
}

/// Where cases run: the CPU, or what `LAZULI_CONFORMANCE_DEVICE` says: `cuda` is a GPU, `evaluated` a driver that records, and runs
/// kernels by their meaning, `products` the same with every contraction that its routine can take as a product of matrices.
fn device() -> Device {
    match std::env::var("LAZULI_CONFORMANCE_DEVICE").as_deref() {
        #[cfg(feature = "cuda")]
        Ok(evaluated @ ("evaluated" | "products")) => {
            let fake = lazuli_runtime::cuda::testing::Fake::with_memory(1 << 34);
            fake.evaluate();
            fake.set_routine((evaluated == "products").then(lazuli_ir::MatmulRoutine::unbeatable));
            Device::cuda(fake.install(true).unwrap()).unwrap()
        }
        Ok("cuda") => Device::cuda(0).unwrap(),
        Ok(other) => panic!("LAZULI_CONFORMANCE_DEVICE is `{other}`; it may be cuda, evaluated or products"),
        Err(_) => Device::Cpu,
    }
}

/// Runs one case in both modes.
fn run(samples: &Samples, case: &Case, device: Device) -> Result<Passed, Outcome> {
    let Some(operator) = operator(&case.op) else {
        return Err(Outcome::Unsupported("the operator".into()));
    };
    let inputs = case.inputs.iter().map(|name| Ok(samples.tensor(name)?.to(device)));
    let inputs = inputs.collect::<Result<Vec<_>, Outcome>>()?;
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
                .or_else(|message| same_elements(case, &inputs, found, expected).ok_or(message))
                .map_err(|message| Outcome::Fail(format!("{mode}: {}: {message}", what(i))))?;
        }
        Ok(())
    };
    check("eager", &evaluate(case, operator, &inputs)?)?;
    let program = lazuli::compile(|inputs: Vec<Tensor>| {
        evaluate(case, operator, &inputs).map_err(|outcome| match outcome {
            Outcome::Fail(message) | Outcome::Unsupported(message) => Error::new(ErrorKind::Value, message),
            Outcome::Traced(message) => Error::new(ErrorKind::Trace, message),
        })
    });
    match program.call(&inputs) {
        Ok(found) => check("compiled", &found).and_then(|()| names_the_users_lines(&program)).map(|()| Passed::Both),
        Err(e) if e.kind() == ErrorKind::Trace && SHAPED_BY_VALUES.contains(&case.op.as_str()) => {
            Ok(Passed::EagerAlone)
        }
        Err(e) => Err(Outcome::Fail(format!("compiled: {e}"))),
    }
}

/// No operation stands for a line of the library: every function between it and the user is `#[track_caller]`, and no closure.
fn names_the_users_lines(
    program: &lazuli::Compiled<'_, Vec<Tensor>, Result<Vec<Tensor>, Error>>,
) -> Result<(), Outcome> {
    let graph = program.stages().map_err(|e| Outcome::Fail(e.to_string()))?.graph().to_string();
    match graph.lines().find(|line| line.contains("// src/") || line.contains(", src/")) {
        Some(line) => Err(Outcome::Fail(format!("a line of the library is named: {line}"))),
        None => Ok(()),
    }
}

/// Whether indices along a dim name equal elements of the first input, each once, where any of them will do.
fn same_elements(case: &Case, inputs: &[Tensor], found: &Tensor, expected: &Tensor) -> Option<()> {
    let stable = case.kwargs.get("stable").and_then(serde_json::Value::as_bool).unwrap_or(false);
    let open = ANY_OF_EQUALS.contains(&case.op.as_str()) && !stable && expected.dtype() == DType::I64;
    if !open || found.shape() != expected.shape() || found.rank() != inputs[0].rank() {
        return None;
    }
    let position = if case.op == "topk" { 2 } else { 1 };
    let dim = case.kwargs.get("dim").or_else(|| case.args.get(position)).and_then(serde_json::Value::as_i64);
    let dim = dim.unwrap_or(-1) as isize;
    // What was expected is the CPU's.
    let (given, found) = (inputs[0].to(Device::Cpu), found.to(Device::Cpu));
    let elements = |index: &Tensor| given.gather(dim, index);
    compare::same(&case.op, &elements(&found), &elements(expected)).ok()?;
    let sorted = found.sort(Sort { dim, ..Default::default() }).0;
    let n = found.size(dim).saturating_sub(1);
    let neighbours = sorted.narrow(dim, 0, n).eq(sorted.narrow(dim, 1, n)).any(..);
    (!neighbours.item::<bool>().ok()?).then_some(())
}

/// A panic is a failure like any other, so that one does not hide what comes after it.
fn run_guarded(samples: &Samples, case: &Case, device: Device) -> Result<Passed, Outcome> {
    catch_unwind(AssertUnwindSafe(|| run(samples, case, device))).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()));
        Err(Outcome::Fail(format!("panicked: {}", text.unwrap_or_default())))
    })
}

/// The files of samples, in order.
fn files() -> Vec<PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/conformance");
    let folder = std::env::var_os("LAZULI_CONFORMANCE_DIR").map_or(own, PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    files
}

/// The operator of a PyTorch name.
fn operator(name: &str) -> Option<Operator> {
    FAMILIES.iter().copied().flatten().find(|(known, _)| *known == name).map(|(_, operator)| *operator)
}

#[test]
fn operators_agree_with_pytorch() {
    all_agree(device());
}

#[test]
#[cfg(feature = "cuda")]
fn cuda_device_operators_agree_with_pytorch() {
    if let Some(device) = lazuli_oracles::gpu("cuda_device_operators_agree_with_pytorch").unwrap() {
        all_agree(device.into());
    }
}

fn all_agree(device: Device) {
    let verbose = std::env::var_os("LAZULI_CONFORMANCE_VERBOSE").is_some();
    let files = files();
    let (mut passed, mut unsupported, mut failures) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    let (mut whole, mut eager_alone) = (Vec::new(), 0);
    for file in &files {
        let samples = Samples::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let before = passed;
        for (number, case) in samples.cases.iter().enumerate() {
            match run_guarded(&samples, case, device) {
                Ok(mode) => {
                    passed += 1;
                    eager_alone += usize::from(matches!(mode, Passed::EagerAlone));
                }
                Err(Outcome::Unsupported(what)) => *unsupported.entry(format!("{}: {what}", case.op)).or_default() += 1,
                Err(Outcome::Fail(message) | Outcome::Traced(message)) => {
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
    report += &format!("{eager_alone} cases pass eagerly alone: the shapes of their results depend on values\n");
    report += &format!("{} of {operators} operators pass with all their cases\n", whole.len());
    report += &format!("{total} cases: {passed} pass, {skipped} unsupported, {failed} fail\n");
    // Not through `print!`, which the test harness keeps to itself.
    std::io::stderr().write_all(report.as_bytes()).unwrap();
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 0, "no case ran");
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
