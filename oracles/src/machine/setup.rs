//! How a random program is compiled and called.

use super::placement::{Class, layout_of, random_layout};
use crate::program::RandomProgram;
use crate::rng::Rng;
use lazuli_ir::{Layout, Target};
use lazuli_passes::{Options, Pass};
use lazuli_runtime::cpu::host_target;

/// How a program is compiled and called.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The machine it is planned for.
    pub target: Target,
    /// The passes that run.
    pub options: Options,
    /// Where each input lies.
    pub layouts: Vec<Layout>,
}

impl Setup {
    /// All passes, this machine, inputs in row-major order.
    pub fn plain(program: &RandomProgram) -> Setup {
        let layouts = program.inputs.iter().map(|x| Layout::contiguous(x.ty().shape.clone())).collect();
        Setup { target: host_target().clone(), options: Options::default(), layouts }
    }

    /// The setup of a seed. The first input lies as the next class of layouts says each time its operator and dtype come again;
    /// the others lie as they like.
    pub fn random(seed: u64, program: &RandomProgram) -> Setup {
        let mut random = Rng::new(seed ^ 0x5e70);
        let mut setup = Setup::plain(program);
        match random.below(4) {
            0 => {}
            1 => setup.target = target_of_many_chunks(256, 2048, 32),
            2 => setup.target = target_of_many_chunks(2048, 16 << 10, 128),
            _ => setup.target = target_of_many_chunks(32 << 10, 1 << 20, 1000),
        }
        if random.one_in(2) {
            let off = random.pick(Pass::ALL).unwrap_or(Pass::Cse);
            // Nothing runs without kernels.
            if off != Pass::Lower {
                setup.options = setup.options.without(off);
            }
        }
        let period = 2 * crate::operator::Operator::cells().len() as u64;
        let class = Class::ALL[((seed / period + seed % period) % Class::ALL.len() as u64) as usize];
        let spread = random.one_in(2);
        for (i, (layout, x)) in setup.layouts.iter_mut().zip(&program.inputs).enumerate() {
            if i == 0 {
                *layout = layout_of(&mut random, &x.ty().shape, class);
            } else if spread {
                *layout = random_layout(&mut random, &x.ty().shape);
            }
        }
        setup
    }

    /// What is particular about it, for counts.
    pub fn off(&self) -> &'static str {
        let off = Pass::ALL.iter().find(|p| !self.options.runs(**p));
        match off {
            None => "all passes",
            Some(Pass::Simplify) => "without simplify",
            Some(Pass::Cse) => "without cse",
            Some(Pass::Dce) => "without dce",
            Some(Pass::Split) => "without split",
            Some(Pass::Layout) => "without layout",
            Some(Pass::Fusion) => "without fusion",
            Some(Pass::Lower) => "without lower",
            Some(Pass::Schedule) => "without schedule",
            Some(Pass::Memory) => "without memory",
        }
    }
}

/// A machine of small caches that finds any work worth other threads.
pub(crate) fn target_of_many_chunks(l1_bytes: u64, l2_bytes: u64, reduce_chunk: u64) -> Target {
    Target { l1_bytes, l2_bytes, reduce_chunk, cores: 4, bytes_per_us: 1, flops_per_us: 1, ..host_target().clone() }
}
