//! A random program's gradients, as a program: what compiled and eager differentiation run.

use crate::program::RandomProgram;
use crate::rng::Rng;
use lazuli_ir::{Literal, Op, Sources, Value};
use lazuli_passes::vjp;

/// The program whose outputs are the gradients of some outputs by all inputs, and one of the outputs; none where no gradient
/// arrives anywhere.
///
/// # Errors
/// What differentiation says; a primitive without a derivative is one.
pub fn gradients(program: &RandomProgram, seed: u64) -> lazuli_ir::Result<Option<RandomProgram>> {
    let random = &mut Rng::new(seed ^ 0x6ad);
    let mut graph = program.graph.clone();
    let wrt: Vec<Value> = graph.inputs().iter().map(|(_, n)| (*n).into()).collect();
    let floats = |v: &&Value| graph.ty(**v).dtype.is_float();
    let outputs: Vec<Value> = graph.outputs().iter().filter(floats).copied().collect();
    let mut pairs = Vec::new();
    for &y in outputs.iter().filter(|_| outputs.len() < 2 || random.one_in(2)) {
        let ty = graph.ty(y).clone();
        let cotangent = Op::Constant { value: Literal::one(ty.dtype), shape: ty.shape };
        pairs.push((y, graph.add(cotangent, &[], Sources::none())?));
    }
    let gradients: Vec<Value> = vjp(&mut graph, &pairs, &wrt)?.into_iter().flatten().collect();
    if gradients.is_empty() {
        return Ok(None);
    }
    graph.set_outputs(gradients.into_iter().chain(outputs.first().copied()));
    Ok(Some(RandomProgram { graph, inputs: program.inputs.clone(), faults: Vec::new() }))
}
