//! Trains a small network on real handwritten digits, twice from the same seed: eagerly and compiled.
//!
//!     cargo run --release --example digits
//!     cargo run --release --example digits -- cuda
//!
//! A 64-128-10 network learns 1,437 images of 8 x 8 pixels by gradient descent with momentum, and is tested on the other 360. Both
//! trainings run one function, `step`; the second one compiles it. A table compares them, and the last line is the same
//! as JSON.

use flate2::read::GzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use lazuli::prelude::*;
use std::io::Read;
use std::time::{Duration, Instant};

const SEED: u64 = 7;
pub(crate) const BATCH: usize = 64;
const EPOCHS: usize = 30;
const LEARNING_RATE: f64 = 0.1;
const MOMENTUM: f64 = 0.9;
pub(crate) const PIXELS: usize = 64;
const HIDDEN: usize = 128;
const CLASSES: usize = 10;

/// The network: two linear layers. Its gradient and its momentum have the same form.
#[derive(Clone, Debug, Tree)]
pub(crate) struct Network {
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
}

impl Network {
    /// Random weights of variance 2 / inputs, biases of zero.
    fn new(device: Device) -> lazuli::Result<Network> {
        let weight = |inputs: usize, outputs: usize| Tensor::randn([inputs, outputs]) * (2.0 / inputs as f64).sqrt();
        let network = Network {
            weight1: weight(PIXELS, HIDDEN),
            bias1: Tensor::zeros([HIDDEN]),
            weight2: weight(HIDDEN, CLASSES),
            bias2: Tensor::zeros([CLASSES]),
        };
        network.map_leaves(|p| p.to(device))
    }

    /// A score for each class, `[n, 10]`, of images `[n, 64]`.
    fn scores(&self, images: &Tensor) -> Tensor {
        let hidden = (images.matmul(&self.weight1) + &self.bias1).relu();
        hidden.matmul(&self.weight2) + &self.bias2
    }

    /// Computes what is pending.
    fn eval(&self) -> lazuli::Result<()> {
        [&self.weight1, &self.bias1, &self.weight2, &self.bias2].into_iter().try_for_each(Tensor::eval)
    }
}

pub(crate) type StepInput = (Network, Network, Tensor, Tensor, Tensor);

/// One step: the loss of a batch, and the network and its momentum afterwards.
fn step((network, momentum, images, labels, rate): StepInput) -> lazuli::Result<(Tensor, Network, Network)> {
    let loss = |network: &Network| network.scores(&images).cross_entropy(&labels);
    let (loss, gradient) = lazuli::value_and_grad(loss)(&network);
    let momentum = momentum.zip_leaves(gradient, |m, g| MOMENTUM * m + g)?;
    let network = network.zip_leaves(momentum.clone(), |p, m| p - &rate * m)?;
    Ok((loss, network, momentum))
}

/// What a training came to.
pub(crate) struct Training {
    pub(crate) losses: Vec<f32>,
    times: Vec<Duration>,
    pub(crate) accuracy: f32,
}

impl Training {
    fn median_us(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6
    }

    /// The mean over the last epoch.
    fn final_loss(&self, epochs: usize) -> f32 {
        let epoch = self.losses.len() / epochs;
        self.losses[self.losses.len() - epoch..].iter().sum::<f32>() / epoch as f32
    }
}

/// Trains a network from the seed for some epochs. `step` is the function itself, or the function compiled.
fn train(
    name: &'static str,
    (digits, epochs): (&Digits, usize),
    mut step: impl FnMut(Network, Network, &Tensor, &Tensor) -> lazuli::Result<(Tensor, Network, Network)>,
) -> lazuli::Result<Training> {
    lazuli::manual_seed(SEED)?;
    let mut network = Network::new(digits.device)?;
    let mut momentum = network.clone().map_leaves(|p| p.zeros_like())?;
    network.eval()?;
    momentum.eval()?;
    let (mut losses, mut times) = (Vec::new(), Vec::new());
    let bar = progress(name, epochs);
    for epoch in 0..epochs {
        for (images, labels) in digits.batches(epoch) {
            let start = Instant::now();
            let loss;
            (loss, network, momentum) = step(network, momentum, &images, &labels)?;
            losses.push(loss.item::<f32>()?);
            times.push(start.elapsed());
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (images, labels) = &digits.test;
    let right = network.scores(images).argmax(-1).eq(labels);
    let accuracy = right.to(DType::F32).mean(..).item::<f32>()?;
    Ok(Training { losses, times, accuracy })
}

/// A bar on a terminal, and nothing elsewhere.
fn progress(name: &'static str, epochs: usize) -> ProgressBar {
    let bar = ProgressBar::new(epochs as u64).with_prefix(name);
    match ProgressStyle::with_template("{prefix:>9} {wide_bar} epoch {pos}/{len}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The images and labels, shuffled once and split: four fifths for training, the rest for the test.
pub(crate) struct Digits {
    /// Where tensors of them are.
    device: Device,
    pub(crate) pixels: Vec<f32>,
    pub(crate) labels: Vec<i64>,
    test: (Tensor, Tensor),
}

impl Digits {
    pub(crate) fn load(device: Device) -> Result<Digits, Box<dyn std::error::Error>> {
        let mut text = String::new();
        GzDecoder::new(&include_bytes!("data/digits.csv.gz")[..]).read_to_string(&mut text)?;
        let mut rows = Vec::new();
        for line in text.lines() {
            let row: Vec<u8> = line.split(',').map(str::parse).collect::<Result<_, _>>()?;
            if row.len() != PIXELS + 1 {
                return Err(format!("a line of {} numbers, not {}", row.len(), PIXELS + 1).into());
            }
            rows.push(row);
        }
        shuffle(&mut rows, SEED);
        let (training, test) = rows.split_at(rows.len() * 4 / 5);
        let pixels = |rows: &[Vec<u8>]| rows.iter().flat_map(|r| &r[..PIXELS]).map(|&p| f32::from(p) / 16.0).collect();
        let labels = |rows: &[Vec<u8>]| rows.iter().map(|r| i64::from(r[PIXELS])).collect();
        let images = Tensor::from_vec(pixels(test), [test.len(), PIXELS]).to(device);
        let test = (images, Tensor::from_vec(labels(test), [test.len()]).to(device));
        Ok(Digits { device, pixels: pixels(training), labels: labels(training), test })
    }

    /// The full batches of one epoch, in an order that the epoch alone decides.
    fn batches(&self, epoch: usize) -> Vec<(Tensor, Tensor)> {
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        shuffle(&mut order, SEED + 1 + epoch as u64);
        let batch = |rows: &[usize]| {
            let pixels = rows.iter().flat_map(|&r| &self.pixels[r * PIXELS..(r + 1) * PIXELS]).copied().collect();
            let labels = rows.iter().map(|&r| self.labels[r]).collect();
            let images = Tensor::from_vec::<f32>(pixels, [BATCH, PIXELS]).to(self.device);
            (images, Tensor::from_vec::<i64>(labels, [BATCH]).to(self.device))
        };
        order.chunks_exact(BATCH).map(batch).collect()
    }
}

/// Fisher and Yates' shuffle by the numbers of splitmix64.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for i in (1..items.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        items.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
}

/// Trains by the function itself, operation by operation.
pub(crate) fn train_eagerly(digits: &Digits, epochs: usize) -> lazuli::Result<Training> {
    train("eager", (digits, epochs), |network, momentum, images, labels| {
        let rate = lazuli::tensor(LEARNING_RATE);
        let (loss, network, momentum) = step((network, momentum, images.clone(), labels.clone(), rate))?;
        network.eval()?;
        momentum.eval()?;
        Ok((loss, network, momentum))
    })
}

/// A step, compiled.
pub(crate) type Program = lazuli::Compiled<'static, StepInput, lazuli::Result<(Tensor, Network, Network)>>;

/// Trains by the function compiled, and gives that too.
pub(crate) fn train_compiled(digits: &Digits, epochs: usize) -> lazuli::Result<(Training, Program)> {
    let program = lazuli::compile(step).named("step").arguments(["network", "momentum", "images", "labels", "rate"]);
    let training = train("compiled", (digits, epochs), |network, momentum, images, labels| {
        program.call((network, momentum, images, labels, LEARNING_RATE))
    })?;
    Ok((training, program))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = match std::env::args().nth(1).as_deref() {
        None | Some("cpu") => Device::Cpu,
        Some("cuda") => Device::cuda(0)?,
        Some(other) => return Err(format!("there is no device `{other}`; it may be cpu or cuda").into()),
    };
    let digits = Digits::load(device)?;
    let eager = train_eagerly(&digits, EPOCHS)?;
    let (compiled, program) = train_compiled(&digits, EPOCHS)?;

    let stages = program.stages()?;
    let report = stages.report();
    // A line of the recorded graph for each result: what eager mode runs one by one, but for constants.
    let graph = stages.graph().to_string();
    let operations = graph.lines().filter(|l| l.contains(" = ") && !l.contains(" = constant")).count();
    let compile_ms = program.cache().compilations.iter().map(|c| c.time.as_secs_f64() * 1e3).sum::<f64>();
    let difference = eager.losses.iter().zip(&compiled.losses).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let per_operation = eager.median_us() / operations.max(1) as f64;
    let (eager_us, compiled_us) = (eager.median_us(), compiled.median_us());

    println!("{} steps of {BATCH} images, {EPOCHS} epochs, {operations} operations a step\n", eager.losses.len());
    println!("{:<28} {:>12} {:>12}", "", "eager", "compiled");
    println!("{:<28} {:>12.4} {:>12.4}", "test accuracy", eager.accuracy, compiled.accuracy);
    println!(
        "{:<28} {:>12.6} {:>12.6}",
        "loss of the last epoch",
        eager.final_loss(EPOCHS),
        compiled.final_loss(EPOCHS)
    );
    println!("{:<28} {:>12.1} {:>12.1}", "time of a step, us (median)", eager_us, compiled_us);
    println!("{:<28} {:>12.2} {:>12}", "time of an operation, us", per_operation, "-");
    println!("{:<28} {:>12} {:>12}", "kernels of a step", operations, report.kernels.len());
    println!("{:<28} {:>12} {:>12.1}", "compile time, ms", "-", compile_ms);
    println!("{:<28} {:>12} {:>12}", "programs compiled", "-", program.cache().misses);
    println!("{:<28} {:>12} {:>12}", "peak bytes of a step", "-", report.peak_bytes());
    println!(
        "\nlosses differ by at most {difference:e}; the compiled step is {:.1} times faster\n",
        eager_us / compiled_us
    );
    println!(
        "{{\"example\":\"digits\",\"test_accuracy\":{:.4},\"eager_step_us\":{eager_us:.1},\"eager_us_per_op\":{per_operation:.3},\
         \"compiled_step_us\":{compiled_us:.1},\"compile_ms\":{compile_ms:.2},\"max_loss_difference\":{difference:e}}}",
        compiled.accuracy
    );
    Ok(())
}
