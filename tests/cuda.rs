//! Tensors and compiled functions on a GPU whose driver records, and runs kernels by their meaning: where values live, what they
//! are, what is refused, what is submitted in which order, and what is told when something fails.

#![allow(clippy::panic, clippy::unwrap_used)]
#![cfg(feature = "cuda")]

use lazuli::prelude::*;
use lazuli::{ErrorKind, Result};
use lazuli_runtime::cuda::driver::FailureKind;
use lazuli_runtime::cuda::testing::Fake;

#[allow(dead_code)]
#[path = "../examples/digits.rs"]
mod digits;

fn gpu() -> (Device, Fake) {
    let fake = Fake::default();
    fake.evaluate();
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
    assert!(format!("{y}").contains("tensor([[0., 1., 2.],") && format!("{y}").contains("device=cuda:"), "{y}");
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
    // What is more than a loop is a program there: a product of matrices, a gather, a sort.
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
    let profile = step.profile((w, &x, 0.1))?;
    assert!(profile.kernels.iter().all(|k| k.time.is_some() && k.share_of_limit().is_some()), "{profile}");
    let launch = profile.kernels[0].launch.unwrap();
    assert_eq!((launch.registers, launch.resident_blocks), (40, 65_536 / 40 / launch.threads), "{profile}");
    assert!(profile.to_string().contains("occupancy") && profile.limits.unwrap().flops_per_us > 0.0, "{profile}");
    let text = step.stages()?.cuda()?;
    assert!(text.contains("__global__") && text.contains("takes 40 registers"), "{text}");
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

/// The same function of tensors on the CPU and on the device: the same bits, or (`close`) nearly so.
fn agrees(name: &str, close: bool, inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor + Send + Sync) {
    let (device, fake) = gpu();
    if nvrtc() {
        fake.compile();
    }
    agrees_on(device, name, close, inputs, &f);
    assert_eq!(fake.misuses(), [""; 0], "{name}");
    if let Ok(device) = Device::cuda(0) {
        agrees_on(device, name, close, inputs, &f);
    }
}

/// Whether NVRTC is there, where it need not be.
fn nvrtc() -> bool {
    match lazuli_runtime::cuda::nvrtc::version() {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var_os("LAZULI_REQUIRE_NVRTC").is_none_or(|v| v != "1"), "{error}");
            println!("CUDA C is not compiled: {}", error.message());
            false
        }
    }
}

fn agrees_on(
    device: Device,
    name: &str,
    close: bool,
    inputs: &[&Tensor],
    f: &(impl Fn(&[Tensor]) -> Tensor + Send + Sync),
) {
    let there: Vec<Tensor> = inputs.iter().map(|x| x.to(device)).collect();
    let compiled = lazuli::compile(|inputs: Vec<Tensor>| f(&inputs));
    let expected = f(&inputs.iter().map(|x| (*x).clone()).collect::<Vec<_>>());
    for (mode, got) in
        [("eager", f(&there)), ("compiled", compiled.call(there.clone()).unwrap_or_else(|e| panic!("{name}: {e}")))]
    {
        assert_eq!(
            (got.device(), got.shape(), got.dtype()),
            (device, expected.shape(), expected.dtype()),
            "{name}, {mode}"
        );
        let read = |t: &Tensor| t.to(DType::F64).to_vec::<f64>().unwrap_or_else(|e| panic!("{name}, {mode}: {e}"));
        let (got, expected) = (read(&got.to(Device::Cpu)), read(&expected));
        for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
            let near = close && (g - e).abs() <= 1e-5 * e.abs().max(1.0);
            assert!(
                g.to_bits() == e.to_bits() || g.is_nan() && e.is_nan() || near,
                "{name}, {mode}: {g}, not {e}, at {i}"
            );
        }
    }
}

#[test]
fn cuda_values_are_those_of_the_cpu() {
    let x = (numbers(60) * 0.37 - 9.0).reshape([3, 4, 5]);
    let special = Tensor::from_vec(vec![f32::NAN, -0.0, f32::INFINITY, -1.0, 1e-45], [5]);
    let (integers, rows) = (numbers(60).to(DType::I64).reshape([12, 5]) - 20, Tensor::from_vec(vec![2i64, 0], [2]));
    let half = x.to(DType::F16);
    let both = [&x, &special];
    agrees("arithmetic", false, &both, |t| (&t[0] * 2.0 + &t[1]).maximum(&t[0] - 1.0) / 3.0);
    agrees("functions", true, &both, |t| t[0].sin().exp() + t[1].abs().sqrt().tanh());
    agrees("comparison", false, &both, |t| t[0].gt(&t[1]));
    agrees("integers", false, &[&integers], |t| (&t[0] * 7 + 3) % 5);
    agrees("halves", false, &[&half], |t| &t[0] * 3.0 + &t[0]);
    agrees("casts", false, &[&x], |t| t[0].to(DType::I64).to(DType::BF16));
    agrees("movement", false, &[&x], |t| t[0].permute([2, 0, 1]).flip(1).reshape([15, 4]).i((.., 1..3)));
    agrees("transposed", false, &[&x], |t| t[0].transpose(0, 2) + 1.0);
    agrees("padding", false, &[&x], |t| lazuli::cat(&[&t[0], &(&t[0] + 1.0)], 1));
    agrees("sum", true, &[&x], |t| t[0].sum([0, 2]));
    agrees("sum of all", true, &[&x], |t| t[0].sum(..));
    agrees("columns", true, &[&integers], |t| t[0].sum(0));
    agrees("argmax", false, &[&integers], |t| t[0].argmax(-1));
    agrees("empty", false, &[&x.i((0..0, .., ..))], |t| t[0].sum(0));
    agrees("softmax", true, &[&x], |t| t[0].softmax(-1));
    agrees("layer_norm", true, &[&x], |t| t[0].layer_norm([5], ()));
    agrees("gather", false, &[&integers, &rows], |t| t[0].index_select(0, &t[1]));
    agrees("cumulative", true, &[&x], |t| t[0].cumsum(1));
    agrees("sort", false, &[&x], |t| t[0].sin().sort(()).1);
    agrees("product", true, &[&x.reshape([12, 5]), &integers.to(DType::F32)], |t| t[0].matmul(t[1].t()));
}

/// A device that multiplies whatever it can by its routine for products.
fn multiplying_gpu() -> (Device, Fake) {
    let fake = Fake::default();
    fake.evaluate();
    fake.set_routine(Some(lazuli_ir::MatmulRoutine::unbeatable()));
    (Device::cuda(fake.install(true).unwrap()).unwrap(), fake)
}

/// As [`agrees`], where the routine computes so many products, eagerly and compiled.
fn multiplies(name: &str, products: [usize; 2], inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor + Send + Sync) {
    let (device, fake) = multiplying_gpu();
    let there: Vec<Tensor> = inputs.iter().map(|x| x.to(device)).collect();
    f(&there).eval().unwrap_or_else(|e| panic!("{name}: {e}"));
    let eager = count(&fake.take_log(), "matmul");
    let compiled = lazuli::compile(|inputs: Vec<Tensor>| f(&inputs));
    compiled.call(there).unwrap_or_else(|e| panic!("{name}: {e}")).eval().unwrap();
    assert_eq!([eager, count(&fake.take_log(), "matmul")], products, "{name}");
    agrees_on(device, name, true, inputs, &f);
    assert_eq!(fake.misuses(), [""; 0], "{name}");
}

#[test]
fn cuda_products_are_those_of_the_cpu() {
    let (a, b) = ((numbers(48) * 0.1 - 2.0).reshape([8, 6]), (numbers(60) * 0.05 - 1.0).reshape([6, 10]));
    let (many, bias) = ((numbers(96) * 0.02).reshape([2, 8, 6]), numbers(10) * 0.5);
    let halves = [a.to(DType::BF16), b.to(DType::BF16), bias.to(DType::BF16)];
    let halves: Vec<&Tensor> = halves.iter().collect();
    let tanh = || Gelu { approximate: lazuli::options::Approximate::Tanh };
    multiplies("plain", [1, 1], &[&a, &b], |t| t[0].matmul(&t[1]));
    multiplies("transposed", [1, 1], &[&a, &b.t()], |t| t[0].matmul(t[1].t()));
    multiplies("rows of two dims", [1, 1], &[&many, &b], |t| t[0].matmul(&t[1]));
    multiplies("batch", [1, 1], &[&many, &many], |t| t[0].matmul(t[1].transpose(-1, -2)));
    multiplies("slices", [1, 1], &[&many, &b], |t| t[0].i((1, 2.., ..)).matmul(t[1].i((.., 3..))));
    multiplies("columns that lie apart", [0, 0], &[&a, &b], |t| t[0].matmul(t[1].i((.., (0..10).step(2)))));
    multiplies("bias", [1, 1], &[&a, &b, &bias], |t| t[0].matmul(&t[1]) + &t[2]);
    multiplies("rows as bias", [1, 1], &[&a, &b, &bias], |t| (t[0].matmul(&t[1]) + &t[2]).t() * 2.0);
    multiplies("rectifier", [1, 1], &[&a, &b], |t| t[0].matmul(&t[1]).relu());
    multiplies("halves", [1, 1], &halves, |t| t[0].matmul(&t[1]));
    multiplies("halves with a bias", [1, 1], &halves, |t| t[0].matmul(&t[1]) + &t[2]);
    multiplies("halves rounded once", [1, 1], &halves, move |t| {
        let [x, w, b] = [0, 1, 2].map(|i| t[i].to(DType::F32));
        (x.matmul(w) + b).gelu_with(tanh()).to(DType::BF16)
    });
    // Both contractions are one kernel of loops, which products with a kernel between do not beat.
    multiplies("a chain", [2, 0], &[&a, &b], |t| t[0].matmul(&t[1]).exp().matmul(t[1].t()));
    multiplies("f64", [1, 1], &[&a.to(DType::F64), &b.to(DType::F64)], |t| t[0].matmul(&t[1]));
    multiplies("integers", [0, 0], &[&a.to(DType::I64), &b.to(DType::I64)], |t| t[0].matmul(&t[1]));
    multiplies("empty", [0, 0], &[&a.i((0..0, ..)), &b], |t| t[0].matmul(&t[1]));
}

#[test]
fn cuda_contractions_are_chosen_by_time_and_the_report_says_why() -> Result<()> {
    let of = |fake: &Fake, rows: usize, terms: usize| {
        let device = Device::cuda(fake.install(true)?)?;
        let layer = lazuli::compile(|(x, w): (Tensor, Tensor)| x.matmul(&w) + 1.0);
        // What is launched is not run, but for products.
        layer.call((Tensor::ones([rows, terms]).to(device), Tensor::ones([terms, rows]).to(device)))?.eval()?;
        layer.stages()
    };
    let fake = Fake::default();
    let large = of(&fake, 64, 512)?;
    let report = large.report();
    assert!(report.contractions.len() == 1 && report.contractions[0].routine, "{}", large.fusion());
    assert!(report.contractions[0].sources.contains("tests/cuda.rs"), "{report:?}");
    assert!(
        large.fusion().to_string().contains("routine  %1: the routine, with what remains takes "),
        "{}",
        large.fusion()
    );
    assert!(large.kernels().to_string().contains("// step 1: matmul f32[1,1: 64,512]"), "{}", large.kernels());
    assert!(report.why_not_fused("dot", "add").is_some_and(|why| why.contains("products of matrices")));
    assert!(report.workspace_bytes >= 32 << 20, "{report}");
    let small = of(&fake, 4, 4)?;
    assert!(
        !small.report().contractions[0].routine && small.kernels().to_string().contains("dot"),
        "{}",
        small.fusion()
    );
    // Without the library there is no choice.
    let without = Fake::default();
    without.set_routine(None);
    let loops = of(&without, 64, 512)?;
    assert!(
        loops.report().contractions.is_empty() && loops.kernels().to_string().contains("dot"),
        "{}",
        loops.kernels()
    );
    assert_eq!(count(&without.take_log(), "matmul"), 0);
    Ok(())
}

#[test]
fn cuda_tf32_is_asked_for() -> Result<()> {
    let (device, fake) = multiplying_gpu();
    // 12 bits: one more than TF32 keeps.
    let x = Tensor::full([2, 2], 1.0 + 1.0 / 2048.0).to(device);
    let square = |x: Tensor| x.matmul(&x);
    let (full, rounded) = (lazuli::compile(square), lazuli::compile(square).tf32(true));
    let exact = 2.0 * (1.0 + 1.0 / 2048.0f32).powi(2);
    assert_eq!(full.call(&x)?.to_vec::<f32>()?, [exact; 4]);
    assert_eq!(rounded.call(&x)?.to_vec::<f32>()?, [2.0; 4]);
    assert_eq!(x.matmul(&x).to_vec::<f32>()?, [exact; 4]);
    assert!(rounded.stages()?.kernels().to_string().contains("tf32"));
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

/// Eight samples of four features, and their labels.
fn samples() -> (Tensor, Tensor) {
    ((numbers(32) * 0.1).reshape([8, 4]), Tensor::arange(0..8))
}

/// A step of training: of weights, samples, labels and a rate, to the loss and the next weights.
type Training = lazuli::Compiled<'static, (Tensor, Tensor, Tensor, Tensor), (Tensor, Tensor)>;

/// Trains on both devices, checks that losses and weights agree, and gives the program that ran on the GPU.
fn trains_alike(device: Device) -> Result<Training> {
    let train = |(w, x, y, lr): (Tensor, Tensor, Tensor, Tensor)| {
        let (loss, dw) = lazuli::value_and_grad(|w: &Tensor| x.matmul(w).tanh().cross_entropy(&y))(&w);
        (loss, &w - lr * dw)
    };
    let (x, y) = samples();
    let (cpu, gpu) = (lazuli::compile(train), lazuli::compile(train));
    let (mut a, mut b) = (Tensor::zeros([4, 8]), Tensor::zeros([4, 8]).to(device));
    let (there, labels) = (x.to(device), y.to(device));
    for rate in [0.5, 0.4, 0.3, 0.2, 0.1] {
        let (loss_a, next_a) = cpu.call((a, &x, &y, rate))?;
        let (loss_b, next_b) = gpu.call((b, &there, &labels, rate))?;
        (a, b) = (next_a, next_b);
        let (p, q) = (loss_a.item::<f32>()?, loss_b.item::<f32>()?);
        assert!((p - q).abs() < 1e-5, "{p} {q}");
    }
    for (p, q) in a.to_vec::<f32>()?.iter().zip(b.to_vec::<f32>()?) {
        assert!((p - q).abs() < 1e-5, "{p} {q}");
    }
    Ok(gpu)
}

#[test]
fn cuda_products_train_as_the_cpu_does() -> Result<()> {
    let (device, fake) = multiplying_gpu();
    let gpu = trains_alike(device)?;
    let report = gpu.stages()?.report();
    assert!(report.contractions.len() == 2 && report.contractions.iter().all(|c| c.routine), "{report:?}");
    assert!(gpu.stages()?.kernels().to_string().contains(": matmul f32["));
    assert!(count(&fake.take_log(), "matmul") >= 4);
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_training_is_that_of_the_cpu() -> Result<()> {
    let (device, fake) = gpu();
    let gpu = trains_alike(device)?;
    assert_eq!(gpu.cache().misses, 1);
    // Eagerly, with history.
    let (x, y) = samples();
    let (there, labels) = (x.to(device), y.to(device));
    let w = Tensor::zeros([4, 8]).to(device).requires_grad_(true);
    there.matmul(&w).tanh().cross_entropy(&labels).backward()?;
    let v = Tensor::zeros([4, 8]).requires_grad_(true);
    x.matmul(&v).tanh().cross_entropy(&y).backward()?;
    let (p, q) = (w.grad().unwrap().to_vec::<f32>()?, v.grad().unwrap().to_vec::<f32>()?);
    assert!(p.iter().zip(&q).all(|(p, q)| (p - q).abs() < 1e-5), "{p:?} {q:?}");
    // Random numbers depend on the seed alone.
    let noise = lazuli::compile(|x: Tensor| x + Tensor::rand([3]));
    lazuli::manual_seed(3)?;
    let a = noise.call(numbers(3))?.to_vec::<f32>()?;
    lazuli::manual_seed(3)?;
    assert_eq!(noise.call(numbers(3).to(device))?.to_vec::<f32>()?, a);
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_wrong_indices_are_told_when_a_value_is_read() -> Result<()> {
    let (device, fake) = gpu();
    let table = numbers(10).to(device);
    let look_up = lazuli::compile(|(t, i): (Tensor, Tensor)| t.index_select(0, &i) * 2.0);
    let (right, wrong) =
        (Tensor::from_vec(vec![1i64, 9], [2]).to(device), Tensor::from_vec(vec![1i64, 10], [2]).to(device));
    assert_eq!(look_up.call((&table, &right))?.to_vec::<f32>()?, [2.0, 18.0]);
    let result = look_up.call((&table, &wrong))?;
    let error = result.to_vec::<f32>().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Index, Some("index_select")));
    assert!(error.message().contains("index 10 is out of range for 10 elements"), "{error}");
    assert!(error.to_string().contains("tests/cuda.rs"), "{error}");
    assert_eq!(look_up.call((&table, &right))?.to_vec::<f32>()?, [2.0, 18.0]);
    let eager = table.index_select(0, &wrong);
    assert_eq!(eager.to_vec::<f32>().unwrap_err().kind(), ErrorKind::Index);
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

/// The example's training on a device against that on the CPU.
fn digits_train_alike(device: Device, epochs: usize, batches: usize) {
    let of = |device| {
        let mut digits = digits::Digits::load(device).unwrap();
        digits.pixels.truncate(batches * digits::BATCH * digits::PIXELS);
        digits.labels.truncate(batches * digits::BATCH);
        digits
    };
    let here = digits::train_eagerly(&of(Device::Cpu), epochs).unwrap();
    let there = of(device);
    let eager = digits::train_eagerly(&there, epochs).unwrap();
    let (compiled, program) = digits::train_compiled(&there, epochs).unwrap();
    assert_eq!(program.cache().misses, 1);
    for losses in [&eager.losses, &compiled.losses] {
        assert_eq!(losses.len(), here.losses.len());
        // What differs by a rounding grows from step to step.
        for (i, (p, q)) in losses.iter().zip(&here.losses).enumerate() {
            assert!((p - q).abs() <= 1e-5 * (1.0 + i as f32), "step {i}: {p}, not {q}");
        }
    }
    assert!((compiled.accuracy - here.accuracy).abs() <= 0.01, "{} {}", compiled.accuracy, here.accuracy);
    compiles_everywhere(&program.stages().unwrap().cuda().unwrap());
}

/// Kernels compile for every architecture, without spills.
fn compiles_everywhere(kernels: &str) {
    if !nvrtc() {
        return;
    }
    let text = format!("{}\n{kernels}", lazuli_runtime::cuda::source::PRELUDE);
    for sm in [80, 90, 100] {
        let compiled = lazuli_runtime::cuda::nvrtc::compile(&text, sm).unwrap();
        assert!(
            !compiled.functions.is_empty() && compiled.functions.iter().all(|f| f.spill_bytes == 0),
            "{compiled:?}"
        );
    }
}

#[test]
fn cuda_digits_train_as_on_the_cpu() {
    let (device, fake) = gpu();
    digits_train_alike(device, 1, 2);
    assert_eq!(fake.misuses(), [""; 0]);
}

#[test]
fn cuda_device_digits_train_as_on_the_cpu() {
    if let Some(device) = lazuli_oracles::gpu("cuda_device_digits_train_as_on_the_cpu").unwrap() {
        digits_train_alike(device.into(), 3, 22);
    }
}

/// What the other examples compile.
#[test]
fn cuda_examples_compile_for_every_architecture() -> Result<()> {
    let (device, fake) = gpu();
    let classify =
        lazuli::compile(|(x, weight, bias): (Tensor, Tensor, Tensor)| (x.matmul(&weight) + bias).relu().softmax(-1));
    let (x, weight, bias) = (Tensor::randn([256, 64]), Tensor::randn([64, 10]), Tensor::zeros([10]));
    classify.call((x.to(device), weight.to(device), bias.to(device)))?.eval()?;
    compiles_everywhere(&classify.stages()?.cuda()?);
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}

#[test]
fn cuda_products_that_the_library_refuses_are_loops() -> Result<()> {
    let (device, fake) = multiplying_gpu();
    let (x, w) = (numbers(64).reshape([8, 8]).to(device), numbers(64).reshape([8, 8]).to(device));
    let expected = x.to(Device::Cpu).matmul(w.to(Device::Cpu)).to_vec::<f32>()?;
    let product = lazuli::compile(|(x, w): (Tensor, Tensor)| x.matmul(&w));
    // Eagerly and compiled.
    fake.fail("check_matmul", 0, FailureKind::Refused);
    assert_eq!(x.matmul(&w).to_vec::<f32>()?, expected);
    fake.fail("check_matmul", 0, FailureKind::Refused);
    assert_eq!(product.call((&x, &w))?.to_vec::<f32>()?, expected);
    assert!(!product.stages()?.kernels().to_string().contains("matmul"), "{}", product.stages()?.kernels());
    assert_eq!(count(&fake.take_log(), "matmul"), 0);
    assert_eq!(fake.misuses(), [""; 0]);
    Ok(())
}
