//! Oracles: random programs, and the checks that find wrong results without anyone knowing the right ones.

#![forbid(unsafe_code)]

mod interpret;
mod program;
mod rng;

pub use interpret::interpret;
pub use program::{Options, RandomProgram, random_program};
pub use rng::Rng;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_follow_from_their_seeds() {
        for seed in 0..300 {
            let exact = seed % 2 == 0;
            let options = Options { exact, ..Options::default() };
            let p = random_program(seed, &options).unwrap();
            let q = random_program(seed, &options).unwrap();
            assert_eq!(p.graph, q.graph, "seed {seed}");
            assert_eq!(p.graph.inputs().len(), p.inputs.len());
        }
    }
}
