//! Second derivatives of every operator that has gradients, against differences of its first ones, in f64.
//!
//! For a case with inputs `x` and cotangents the first gradients are weighed and summed to one number `s(x)`. The gradient of `s` is
//! compared with `(s(x + h) - s(x - h)) / 2h` at some elements of each input. The difference is taken term by term: a term near a pole of
//! another element is the same on both sides, but as part of a sum it would round away what the moved element changes. An operator passes
//! where its first case with gradients in f32 does.

use crate::arguments::Arguments;
use crate::operators::Operator;
use crate::sample::{Case, Samples};
use crate::{files, operator};
use lazuli::prelude::*;
use lazuli::{DType, Result, Tensor};
use std::collections::BTreeMap;

/// The step of the differences.
const STEP: f64 = 1e-5;
/// Elements of an input at which a difference is taken.
const ELEMENTS: usize = 4;

/// A fixed weight for each element, so that every element of a gradient counts differently.
fn weights(like: &Tensor) -> Result<Tensor> {
    let weight = |i: usize| ((i * 37 % 64) as f64 - 31.5) / 32.0;
    let weights = Tensor::from_vec((0..like.numel()).map(weight).collect(), like.shape());
    weights.check().map(|()| weights)
}

/// The inputs that gradients are taken by, as leaves, and the terms of `s`: the weighed gradients that depend on them.
struct First {
    leaves: Vec<Tensor>,
    terms: Vec<Tensor>,
}

/// `s` at these inputs. `None`: not a case for this test.
fn first(case: &Case, operator: Operator, inputs: &[Tensor]) -> Option<Result<First>> {
    let mut named: BTreeMap<&str, Tensor> = BTreeMap::new();
    for (name, tensor) in case.inputs.iter().zip(inputs) {
        let leaf = case.grads.iter().any(|(input, _)| input == name);
        named.insert(name, if leaf { tensor.requires_grad_(true) } else { tensor.clone() });
    }
    let mut arguments = Arguments::new(case, &named).ok()?;
    let results = operator(&mut arguments).ok()?;
    let mut total = Tensor::zeros(()).to(DType::F64);
    for (output, name) in &case.cotangents {
        total += (results.get(*output)? * named.get(name.as_str())?).sum(..);
    }
    let leaves: Vec<Tensor> = case.grads.iter().map(|(input, _)| named[input.as_str()].clone()).collect();
    Some(weighed(&total, leaves))
}

fn weighed(total: &Tensor, leaves: Vec<Tensor>) -> Result<First> {
    total.backward_with(Backward { create_graph: true, ..Default::default() })?;
    let mut terms = Vec::new();
    for leaf in &leaves {
        if let Some(gradient) = leaf.grad().filter(Tensor::requires_grad) {
            terms.push(&gradient * weights(&gradient)?);
        }
        leaf.zero_grad();
    }
    Ok(First { leaves, terms })
}

/// The terms of `s` as numbers.
fn numbers(first: &First) -> Result<Vec<f64>> {
    Ok(first.terms.iter().map(Tensor::to_vec::<f64>).collect::<Result<Vec<_>>>()?.concat())
}

/// The input with one element moved.
fn moved(x: &Tensor, element: usize, by: f64) -> Result<Tensor> {
    let mut elements = x.to_vec::<f64>()?;
    elements[element] += by;
    Ok(Tensor::from_vec(elements, x.shape()))
}

/// What differs, for one case, and whether any second derivative is not 0.
fn differences(case: &Case, operator: Operator, inputs: &[Tensor]) -> Option<Result<(Vec<String>, bool)>> {
    let at = match first(case, operator, inputs)? {
        Ok(at) => at,
        Err(e) => return Some(Err(e)),
    };
    Some(compare(case, operator, inputs, &at))
}

fn compare(case: &Case, operator: Operator, inputs: &[Tensor], at: &First) -> Result<(Vec<String>, bool)> {
    if let Some(s) = at.terms.iter().map(|terms| terms.sum(..)).reduce(|s, more| s + more) {
        s.backward()?;
    }
    let (mut wrong, mut curved) = (Vec::new(), false);
    for ((name, _), leaf) in case.grads.iter().zip(&at.leaves) {
        let exact = leaf.grad().unwrap_or_else(|| leaf.zeros_like()).to_vec::<f64>()?;
        let position = case.inputs.iter().position(|n| n == name).unwrap_or(0);
        for k in 0..ELEMENTS.min(exact.len()) {
            let element = k * (exact.len() - 1) / (ELEMENTS - 1).max(1);
            let mut ends = [Vec::new(), Vec::new()];
            for (end, by) in ends.iter_mut().zip([STEP, -STEP]) {
                let mut there = inputs.to_vec();
                there[position] = moved(&inputs[position], element, by)?;
                match first(case, operator, &there) {
                    Some(first) => *end = numbers(&first?)?,
                    None => return Ok((vec![format!("{name}: refused beside the inputs")], curved)),
                }
            }
            let difference: f64 = ends[0].iter().zip(&ends[1]).map(|(up, down)| up - down).sum();
            let (estimate, exact) = (difference / (2.0 * STEP), exact[element]);
            curved |= estimate.abs() > 1e-3;
            if !((exact - estimate).abs() <= 1e-4 * (1.0 + exact.abs()) || exact.is_nan() && estimate.is_nan()) {
                wrong.push(format!("{name}[{element}]: {exact}, by differences {estimate}"));
            }
        }
    }
    Ok((wrong, curved))
}

/// The inputs in f64.
fn widened(samples: &Samples, case: &Case) -> Option<Vec<Tensor>> {
    let wide = |name: &String| {
        let x = samples.tensor(name).ok()?;
        Some(if x.dtype() == DType::F32 { x.to(DType::F64) } else { x })
    };
    case.inputs.iter().map(wide).collect()
}

#[test]
fn second_derivatives_are_those_of_differences() {
    let (mut passed, mut curved, mut failures) = (0, 0, Vec::new());
    for file in files() {
        let samples = Samples::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let is_smooth = |case: &&Case| {
            let differentiable = !case.grads.is_empty() && case.dtype == "f32";
            differentiable && case.grads.iter().all(|(x, _)| samples.tensor(x).is_ok_and(|x| x.numel() > 0))
        };
        let Some(case) = samples.cases.iter().find(is_smooth) else { continue };
        let (Some(operator), Some(inputs)) = (operator(&case.op), widened(&samples, case)) else { continue };
        match differences(case, operator, &inputs) {
            None => {}
            Some(Ok((wrong, is_curved))) if wrong.is_empty() => {
                passed += 1;
                curved += usize::from(is_curved);
            }
            Some(Ok((wrong, _))) => failures.push(format!("{} {}: {}", case.op, case.call, wrong.join("; "))),
            Some(Err(e)) => failures.push(format!("{} {}: {e}", case.op, case.call)),
        }
    }
    let total = passed + failures.len();
    let report =
        format!("second derivatives of {passed} of {total} operators agree with differences; {curved} are not 0\n");
    std::io::Write::write_all(&mut std::io::stderr(), report.as_bytes()).unwrap();
    assert!(passed > 0 && failures.is_empty(), "{report}{}", failures.join("\n"));
}
