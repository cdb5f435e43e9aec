//! `LAZULI_CUDA_SYNC=1`: each step is waited for, so that an error names the kernel.

#![allow(clippy::panic, clippy::unwrap_used)]
#![cfg(feature = "cuda")]

#[path = "support/programs.rs"]
#[allow(dead_code)]
mod programs;

use lazuli_ir::Device;
use lazuli_runtime::Executable;
use lazuli_runtime::cuda::driver::FailureKind::Lost;
use lazuli_runtime::cuda::testing::Fake;
use programs::{N, kept, numbers, product, twice_plus};

#[test]
fn cuda_errors_name_the_kernel_where_each_step_is_waited_for() {
    // SAFETY: the only test of this process; nothing else reads the environment yet.
    unsafe { std::env::set_var("LAZULI_CUDA_SYNC", "1") };
    let fake = Fake::default();
    let device = Device::Cuda(fake.install(true).unwrap());
    fake.evaluate();
    let program = Executable::on(twice_plus(), device, "f").unwrap();
    let x = numbers(N).to_device(device).unwrap();
    fake.take_log();
    assert_eq!(program.run(kept(&x)).unwrap()[0].to_vec::<f32>().unwrap()[1], 3.0);
    let log = fake.take_log();
    assert!(!log.iter().any(|l| l.contains("graph") || l.contains("capture")), "{log:?}");
    // The second of two kernels.
    fake.fail("synchronise", 1, Lost);
    let error = program.run(kept(&x)).unwrap_err();
    assert!(error.message().contains("while it ran kernel plus;"), "{error}");
    // A product of matrices, on another device.
    let (first, fake) = (fake, Fake::default());
    assert_eq!(first.misuses(), [""; 0]);
    let device = Device::Cuda(fake.install(true).unwrap());
    let program = Executable::on(product(), device, "f").unwrap();
    let x = numbers(N).to_device(device).unwrap();
    fake.fail("synchronise", 1, Lost);
    let error = program.run(kept(&x)).unwrap_err();
    assert!(error.message().contains("while it ran matmul f32[1,1: 20,50]"), "{error}");
    assert_eq!(fake.misuses(), [""; 0]);
}
