//! Failing cases as files: the graph's text, how it was compiled, and the bits of its inputs, one a line.

use super::check::Check;
use super::setup::Setup;
use crate::data::of_literals;
use crate::program::{Fault, RandomProgram};
use lazuli_ir::{DType, Error, ErrorKind, Graph, Layout, Literal, Result};
use lazuli_passes::Pass;
use std::fmt::Write;

/// The text of a case.
pub fn save(program: &RandomProgram, setup: &Setup, check: Check) -> String {
    let t = &setup.target;
    let off: Vec<&str> = Pass::ALL.iter().filter(|p| !setup.options.runs(**p)).map(|p| p.name()).collect();
    let mut text = format!("{}\ncheck {}\nwithout {}\n", program.graph, check.name(), off.join(" "));
    let numbers = [t.l1_bytes, t.l2_bytes, t.reduce_chunk, u64::from(t.cores), t.bytes_per_us, t.flops_per_us];
    _ = writeln!(text, "target {}", words(numbers));
    for (x, layout) in program.inputs.iter().zip(&setup.layouts) {
        _ = writeln!(text, "layout {} {}", layout.offset, words(layout.strides.iter()));
        _ = writeln!(text, "input {}", words(x.literals().map(|l| format!("{:x}", l.bits()))));
    }
    for fault in &program.faults {
        _ = writeln!(text, "fault {} {} {:x}", fault.input, fault.value.dtype(), fault.value.bits());
    }
    text
}

fn words(all: impl IntoIterator<Item = impl ToString>) -> String {
    all.into_iter().map(|w| w.to_string()).collect::<Vec<_>>().join(" ")
}

/// The case that was saved as this text.
///
/// # Errors
/// Where the text is none.
pub fn load(text: &str) -> Result<(RandomProgram, Setup, Check)> {
    let wrong = |what: &str| Error::new(ErrorKind::Value, format!("a saved case without a right {what}"));
    let (graph, rest) = text.split_once("\ncheck ").ok_or_else(|| wrong("check"))?;
    let graph = Graph::parse(graph)?;
    let mut program = RandomProgram { graph, inputs: Vec::new(), faults: Vec::new() };
    let mut setup = Setup::plain(&program);
    let mut lines = rest.lines();
    let check = match lines.next() {
        Some("evaluator") => Check::Evaluator,
        _ => Check::MachineCode,
    };
    let types: Vec<_> = program.graph.inputs().iter().map(|(_, n)| program.graph.ty((*n).into()).clone()).collect();
    for line in lines {
        let (key, values) = line.split_once(' ').unwrap_or((line, ""));
        let values: Vec<&str> = values.split_whitespace().collect();
        let hex = |w: &&str| u64::from_str_radix(w, 16).map_err(|_| wrong("element"));
        let number = |w: &&str| w.parse::<i64>().map_err(|_| wrong("number"));
        match key {
            "without" => {
                for pass in values {
                    setup.options = setup.options.without(Pass::parse(pass).ok_or_else(|| wrong("pass"))?);
                }
            }
            "target" => {
                let numbers: Vec<i64> = values.iter().map(number).collect::<Result<_>>()?;
                let [l1, l2, chunk, cores, bytes, flops] = numbers[..] else { return Err(wrong("target")) };
                let t = &mut setup.target;
                (t.l1_bytes, t.l2_bytes, t.reduce_chunk) = (l1 as u64, l2 as u64, chunk as u64);
                (t.cores, t.bytes_per_us, t.flops_per_us) = (cores as u32, bytes as u64, flops as u64);
            }
            "layout" => {
                let ty = types.get(setup.layouts.len()).ok_or_else(|| wrong("number of inputs"))?;
                let numbers: Vec<i64> = values.iter().map(number).collect::<Result<_>>()?;
                let (offset, strides) = numbers.split_first().ok_or_else(|| wrong("layout"))?;
                let strides = strides.iter().copied().collect();
                setup.layouts.push(Layout { shape: ty.shape.clone(), strides, offset: *offset });
            }
            "input" => {
                let ty = types.get(program.inputs.len()).ok_or_else(|| wrong("number of inputs"))?;
                let literal = |w| hex(w).map(|bits| Literal::from_bits(ty.dtype, bits));
                let literals: Vec<Literal> = values.iter().map(literal).collect::<Result<_>>()?;
                program.inputs.push(of_literals(ty, literals));
            }
            "fault" => {
                let [input, dtype, bits] = values[..] else { return Err(wrong("fault")) };
                let dtype = DType::parse(dtype).ok_or_else(|| wrong("dtype"))?;
                let value = Literal::from_bits(dtype, hex(&bits)?);
                program.faults.push(Fault { input: number(&input)? as usize, value });
            }
            _ => {}
        }
    }
    if program.inputs.len() != types.len() || setup.layouts.len() != types.len() {
        return Err(wrong("number of inputs"));
    }
    Ok((program, setup, check))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, random_program};

    #[test]
    fn cases_are_read_as_they_were_saved() {
        for seed in 0..100 {
            let program = random_program(seed, &Options::of_seed(seed));
            let setup = Setup::random(seed, &program);
            let text = save(&program, &setup, Check::Evaluator);
            let (read, how, check) = load(&text).unwrap();
            assert_eq!((&read.graph, &read.inputs, &read.faults), (&program.graph, &program.inputs, &program.faults));
            assert_eq!((how.target, how.options, how.layouts), (setup.target, setup.options, setup.layouts));
            assert_eq!(check, Check::Evaluator);
        }
        assert!(load("graph g(%x: f32[2]) -> (%x) {}\ncheck evaluator\n").is_err());
    }
}
