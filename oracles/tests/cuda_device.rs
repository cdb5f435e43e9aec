//! Random programs, their gradients and single operations on a GPU, against the reference. The same code runs on a driver that
//! records, which runs kernels by their meaning.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::{Device, MatmulRoutine};
use lazuli_oracles::gpu;
use lazuli_oracles::shim::GpuCase;
use lazuli_runtime::cuda::testing::Fake;

/// Cases of so many seeds on a device; fails with all that is wrong, or where too much was left undetermined.
fn check(device: Device, seeds: u64) {
    let (mut elements, mut undetermined, mut failures) = (0, 0, Vec::new());
    for seed in 50_000..50_000 + seeds {
        let random = GpuCase::random(seed).map(Some);
        for case in [random, GpuCase::gradients(seed), GpuCase::operation(seed)] {
            match case.and_then(|case| case.map(|case| case.check_on(device)).transpose()) {
                Ok(found) => {
                    let found = found.unwrap_or_default();
                    elements += found.elements;
                    undetermined += found.undetermined;
                }
                Err(e) => failures.push(e),
            }
        }
    }
    println!("{elements} elements on {device}, {undetermined} undetermined, {} failures", failures.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
    assert!(elements > 0 && undetermined * 20 <= elements, "{undetermined} of {elements} undetermined");
}

#[test]
fn cuda_device_programs_give_what_the_reference_gives() {
    if let Some(device) = gpu("cuda_device_programs_give_what_the_reference_gives").unwrap() {
        check(device, 500);
    }
}

#[test]
fn cuda_programs_of_a_recording_driver_give_what_the_reference_gives() {
    for routine in [None, Some(MatmulRoutine::unbeatable())] {
        let fake = Fake::default();
        fake.evaluate();
        fake.set_routine(routine);
        check(Device::Cuda(fake.install(true).unwrap()), 20);
        assert_eq!(fake.misuses(), [""; 0]);
    }
}
