//! Buffers between inaccessible pages, fresh memory full of NaN: random programs and primitives give what they give without.
//! An access outside of a buffer ends this process.

#![allow(clippy::panic)]

use lazuli_oracles::{Check, Options, PrimitiveCase, Setup, check_operation, check_primitive, random_program};
use lazuli_runtime::allocator::{Fencing, set_fencing};

#[test]
fn no_kernel_reaches_beyond_its_buffers() {
    for place in [Fencing::End, Fencing::Start] {
        set_fencing(Some(place));
        for seed in 20_000..20_150 {
            let p = random_program(seed, &Options::of_seed(seed));
            if let Err(e) = Check::MachineCode.run(&p, &Setup::random(seed, &p)) {
                panic!("{place:?}, seed {seed}: {e}\n{}", p.graph);
            }
        }
        for seed in 20_000..20_200 {
            if let Err(e) = check_primitive(&PrimitiveCase::random(seed)) {
                panic!("{place:?}, primitive {seed}: {e}");
            }
            if let Err(e) = check_operation(seed) {
                panic!("{place:?}, operation {seed}: {e}");
            }
        }
    }
}
