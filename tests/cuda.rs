//! Tensors and compiled functions on a GPU whose driver records and runs nothing: where values live, what is refused, what is
//! submitted in which order, and what is told when something fails.

#![cfg(feature = "cuda")]

use lazuli::prelude::*;
use lazuli::{ErrorKind, Result};
use lazuli_runtime::cuda::driver::FailureKind;
use lazuli_runtime::cuda::testing::Fake;

fn gpu() -> (Device, Fake) {
    let fake = Fake::default();
    (Device::cuda(fake.install(true).unwrap()).unwrap(), fake)
}

fn numbers(n: usize) -> Tensor {
    Tensor::from_vec((0..n).map(|i| i as f32).collect(), [n])
}

/// How often each call was made, by the word it begins with.
fn count(log: &[String], call: &str) -> usize {
    log.iter().filter(|line| line.split(' ').next() == Some(call)).count()
}

#[test]
fn cuda_a_tensor_goes_to_a_device_and_comes_back() -> Result<()> {
    let (device, fake) = gpu();
    let x = numbers(6).reshape([2, 3]);
    let y = x.to(device);
    assert_eq!((y.device(), y.shape(), x.device()), (device, vec![2, 3], Device::Cpu));
    assert_eq!(y.to(device).device(), device);
    assert_eq!(y.to_vec::<f32>()?, x.to_vec::<f32>()?);
    // Views stay views.
    assert_eq!(y.t().i((1, ..)).to_vec::<f32>()?, [1.0, 4.0]);
    assert_eq!(y.t().to(Device::Cpu).to_vec::<f32>()?, x.t().to_vec::<f32>()?);
    assert_eq!(y.i((1, 2)).item::<f32>()?, 5.0);
    assert_eq!(y.to((Device::Cpu, DType::F32)).device(), Device::Cpu);
    assert_eq!(count(&fake.take_log(), "launch"), 0);
    assert!(format!("{y}").contains("tensor([[0., 1., 2.],"), "{y}");
    assert_eq!(y.lend::<f32>()?.as_slice(), Some(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]));
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_operations_run_where_their_operands_are() -> Result<()> {
    let (device, fake) = gpu();
    let x = numbers(1000).reshape([10, 100]).to(device);
    x.eval()?;
    fake.take_log();
    let y = (&x * 2.0 + Tensor::ones([100])).exp().sum(-1);
    assert_eq!(y.device(), device);
    y.eval()?;
    let log = fake.take_log();
    assert!(count(&log, "launch") >= 4, "{log:?}");
    // Two numbers went up, and nothing was waited for.
    assert_eq!((count(&log, "copy_up"), count(&log, "copy_down"), count(&log, "synchronise")), (2, 0, 0), "{log:?}");
    // Kernels serve every shape of their class, and numbers stay where they are.
    let z = (numbers(5000).reshape([50, 100]).to(device) * 2.0 + Tensor::ones([100])).exp().sum(-1);
    z.eval()?;
    let log = fake.take_log();
    assert_eq!((count(&log, "load"), count(&log, "copy_up")), (0, 1), "{log:?}");
    // What is more than a loop is a program there: a product of matrices, a gather, a sort on the host.
    let rows = Tensor::from_vec(vec![1i64, 2], [2]).to(device);
    for result in [x.matmul(x.t()), x.index_select(0, &rows), x.cumsum(0)] {
        assert_eq!(result.device(), device);
        result.eval()?;
    }
    let values = numbers(7).flip(0).to(device);
    let (sorted, positions) = values.sort(());
    assert_eq!((sorted.device(), positions.device()), (device, device));
    assert_eq!(positions.to_vec::<i64>()?, [6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_mixing_devices_is_an_error_that_names_both() -> Result<()> {
    let ((a, _), (b, _)) = (gpu(), gpu());
    let (x, y, z) = (numbers(3), numbers(3).to(a), numbers(3).to(b));
    for (mixed, names) in [(&x + &y, ["cpu".to_owned(), a.to_string()]), (&y + &z, [a.to_string(), b.to_string()])] {
        let error = mixed.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(names.iter().all(|n| error.message().contains(n)), "{error}");
        assert!(error.message().contains("`to`") && error.to_string().contains("add("), "{error}");
        assert!(!error.sources().is_empty());
    }
    // Scalars, constants and random numbers go along.
    for fits in
        [&y * lazuli::tensor(2.0), &y + Tensor::zeros([3]), Tensor::rand([3]) * &y, y.relu(), y.rand_like() + &y]
    {
        assert_eq!(fits.device(), a);
        fits.eval()?;
    }
    assert!((&x * lazuli::tensor(2.0).to(a)).check().is_err());
    for like in [y.zeros_like(), y.ones_like(), y.rand_like(), y.full_like(3)] {
        assert_eq!(like.device(), a);
    }
    Ok(())
}

#[test]
fn cuda_gradients_come_back_to_where_the_tensor_was() -> Result<()> {
    let (device, fake) = gpu();
    let w = numbers(4).requires_grad_(true);
    let loss = (w.to(device) * 3.0).sum(..);
    assert_eq!(loss.device(), device);
    loss.backward()?;
    let gradient = w.grad().unwrap();
    assert_eq!(gradient.device(), Device::Cpu);
    gradient.eval()?;
    let v = numbers(4).to(device).requires_grad_(true);
    (&v * &v).mean(..).backward()?;
    assert_eq!(v.grad().unwrap().device(), device);
    v.grad().unwrap().eval()?;
    let (value, gradient) = lazuli::value_and_grad(|x: &Tensor| x.exp().sum(..))(&v.detach());
    assert_eq!((value.device(), gradient.device()), (device, device));
    gradient.eval()?;
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_compiled_functions_run_on_the_device_of_their_arguments() -> Result<()> {
    let (device, fake) = gpu();
    let weight = numbers(64).reshape([8, 8]);
    let step = lazuli::compile(|(w, x, lr): (Tensor, Tensor, Tensor)| {
        let (loss, dw) = lazuli::value_and_grad(|w: &Tensor| x.matmul(w).relu().mean(..))(&w);
        (loss, &w - lr * dw)
    });
    let x = numbers(32).reshape([4, 8]);
    let (_, on_cpu) = step.call((&weight, &x, 0.1))?;
    assert_eq!(on_cpu.device(), Device::Cpu);
    fake.take_log();
    let mut w = weight.to(device);
    let x = x.to(device);
    for rate in [0.1, 0.2, 0.3, 0.4] {
        let loss;
        (loss, w) = step.call((w, &x, rate))?;
        assert_eq!((loss.device(), w.device()), (device, device));
    }
    let log = fake.take_log();
    assert_eq!((count(&log, "load"), count(&log, "synchronise")), (1, 0), "{log:?}");
    assert_eq!(step.cache().misses, 2);
    assert!(step.cache().compilations[1].reason.contains("device: "), "{:?}", step.cache().compilations[1]);
    // The new weights lie where the old ones lay.
    let report = step.stages()?.report();
    assert!(report.to_string().contains("given away"), "{report}");
    assert!(step.stages()?.cuda()?.contains("__global__"));
    assert!(step.stages()?.clif().is_err());
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_programs_are_on_one_device() -> Result<()> {
    let (device, fake) = gpu();
    let (x, y) = (numbers(3), numbers(3).to(device));
    let add = lazuli::compile(|(x, y): (Tensor, Tensor)| x + y);
    let error = add.call((&x, &y)).unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().contains("cpu"), "{error}");
    // What is captured counts too, and what has no place of its own goes along.
    let captured = y.clone();
    let scale = lazuli::compile(move |x: Tensor| x * &captured);
    assert_eq!(scale.call(lazuli::tensor(2.0))?.device(), device);
    assert_eq!(scale.call(Tensor::ones([3]))?.device(), device);
    assert!(scale.call(&x).is_err());
    let noisy = lazuli::compile(|x: Tensor| &x + Tensor::rand([3]) + x.zeros_like() + Tensor::arange(0..3));
    assert_eq!(noisy.call(&y)?.device(), device);
    let moved = lazuli::compile(move |x: Tensor| x.to(device) + 1.0);
    assert_eq!(moved.call(&y)?.device(), device);
    let error = moved.call(&x).unwrap_err();
    assert!(error.message().contains("a program runs on one device"), "{error}");
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_errors_of_the_device_name_the_function() -> Result<()> {
    let (device, fake) = gpu();
    let x = numbers(3).to(device);
    let double = lazuli::compile(|x: Tensor| x * 2.0).named("double");
    double.call(&x)?.eval()?;
    // A call that is refused leaves everything as it was.
    fake.fail("launch", 0, FailureKind::Refused);
    assert_eq!(double.call(&x).unwrap_err().kind(), ErrorKind::Device);
    let y = double.call(&x)?;
    fake.fail("synchronise", 0, FailureKind::Lost);
    let error = y.to_vec::<f32>().unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().contains("`double`"), "{error}");
    assert!(y.to_vec::<f32>().unwrap_err().message().contains("cannot be used any more"));
    assert!((&x + 1.0).eval().is_err());
    assert!(lazuli::cuda::synchronize(device).is_err());
    Ok(())
}

#[test]
fn cuda_devices_are_told_about() -> Result<()> {
    let (device, _) = gpu();
    assert_eq!(lazuli::cuda::device_name(device)?, "Fake");
    let (free, all) = lazuli::cuda::memory(device)?;
    assert!(free <= all && all == 1 << 30);
    let x = numbers(1000).to(device);
    x.eval()?;
    assert_eq!(lazuli::cuda::memory_stats(device)?.in_use, 4096);
    lazuli::cuda::synchronize(device)?;
    assert!(lazuli::cuda::memory(Device::Cpu).is_err());
    if !lazuli::cuda::is_available() {
        let error = Device::cuda(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(error.message().contains("driver"), "{error}");
        assert!(numbers(3).to(Device::Cuda(0)).eval().is_err());
    }
    Ok(())
}
