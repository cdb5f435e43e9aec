//! What estimates take of a GPU (`lazuli_ir::Target`, and `passes/src/gpu_time.rs`), beside what it does: to be run where there is one.
//!
//!     cargo bench -q --bench gpu_rates [-- --size 4096] [--device cpu]
//!
//! One line a number: its name, what is assumed, what was measured. Rates are those of a core (a multiprocessor). `--device cpu` is a
//! trial of the program itself.

#[allow(dead_code, reason = "it asks for no threads")]
mod common;

use common::{Arguments, Times};
use lazuli::{DType, Device, Tensor};
use lazuli_runtime::device;

type Failure = Box<dyn std::error::Error>;

fn line(name: &str, assumed: Option<u64>, measured: f64) {
    let assumed = assumed.map_or_else(|| "-".to_owned(), |n| n.to_string());
    println!("{name:<44} {assumed:>14} {measured:>14.0}");
}

/// Operations in a microsecond of the longest kernel of a program.
fn rate(report: &lazuli::Report, flops: f64) -> f64 {
    let longest = report.kernels.iter().filter_map(|k| k.time).max().unwrap_or_default();
    flops / (longest.as_secs_f64() * 1e6)
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["device", "size"])?;
    let n = arguments.number("size", 4096usize)?;
    let device = match arguments.list("device", &["cuda"]).concat().as_str() {
        "cuda" => Device::cuda(0)?,
        "cpu" => Device::Cpu,
        other => return Err(format!("no device `{other}`; there are cpu and cuda").into()),
    };
    let (target, limits) = (device::target(device.into())?, device::limits(device.into())?);
    let cores = f64::from(target.cores);
    println!("{:<44} {:>14} {:>14}", "", "assumed", "measured");
    line("bytes a core moves in a microsecond", Some(target.bytes_per_us), limits.memory_bytes_per_us / cores);
    line("f32 operations of a core in a microsecond", Some(target.flops_per_us), limits.flops_per_us / cores);

    let routine = target.matmul;
    for (name, dtype, tf32, assumed) in [
        ("f32", DType::F32, false, routine.map(|r| r.f32_flops_per_us)),
        ("tf32", DType::F32, true, routine.map(|r| r.tf32_flops_per_us)),
        ("bf16", DType::BF16, false, routine.map(|r| r.half_flops_per_us)),
        ("f16", DType::F16, false, routine.map(|r| r.half_flops_per_us)),
        ("f64", DType::F64, false, routine.map(|r| r.f64_flops_per_us)),
    ] {
        let x = Tensor::randn([n, n]).to((device, dtype));
        x.eval()?;
        let product = lazuli::compile(|(x, y): (Tensor, Tensor)| x.matmul(&y)).tf32(tf32);
        let measured = rate(&product.profile((&x, &x))?, 2.0 * (n as f64).powi(3)) / cores;
        line(&format!("operations of a core, products of {name}"), assumed, measured);
    }

    // Attention in f32 is a kernel of loops, whatever the routine.
    let (heads, rows, width) = (64, n / 4, 64);
    let q = Tensor::randn([1, heads, rows, width]).to(device);
    q.eval()?;
    let attention = lazuli::compile(|q: Tensor| q.scaled_dot_product_attention(&q, &q, ()));
    let measured = rate(&attention.profile(&q)?, 4.0 * (heads * rows * rows * width) as f64) / cores;
    let share = lazuli_passes::products::LOOP_SHARE * target.flops_per_us as f64;
    line("f32 operations of a core, fused loops", Some(share as u64), measured);

    // Each reads what the one before wrote, and no two are one kernel.
    let x = Tensor::randn([256]).to(device);
    x.eval()?;
    let chain = lazuli::compile(|x: Tensor| (0..100).fold(x, |x, _| x.flip(0).cumsum(0) * 0.01));
    let kernels = {
        chain.call(&x)?.eval()?;
        chain.stages()?.report().kernels.len()
    };
    let wait = || if device == Device::Cpu { Ok(()) } else { lazuli::cuda::synchronize(device) };
    let times = Times::measure(0.5, || chain.call(&x).and_then(|y| wait().map(|()| y)))?;
    let assumed = lazuli_passes::products::WAIT_NS as u64;
    line(&format!("ns from a kernel to the next, of {kernels}"), Some(assumed), times.median() * 1e9 / kernels as f64);
    Ok(())
}
