//! Time against size and threads for typical kernels: one JSON line for each.
//!
//!     cargo bench -q --bench scaling -- [--seconds 0.1] [--threads 1,2] [--only NAME,..] [--least 1024] [--most 268435456]
//!
//! A line holds `kernel`, `bytes` (read and written), `threads`, `median_s`, `min_s` and `gb_s` (bytes over the median); for
//! matrix products also `gflops`. Matrices have rows of 1024 elements, or are square: a transpose's and those of a product.

mod common;

use common::{Arguments, Times};
use lazuli::options::{Approximate, Gelu};
use lazuli::{Tensor, keep};
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

/// A program of one kernel.
struct Kernel {
    name: &'static str,
    /// The shapes of the inputs, for about so many elements read and written.
    shapes: fn(usize) -> Vec<[usize; 2]>,
    function: fn(&[Tensor]) -> Tensor,
}

const KERNELS: [Kernel; 8] = [
    Kernel { name: "scale_add", shapes: |n| vec![rows(n / 2)], function: |d| &d[0] * 1.5 + 0.5 },
    Kernel { name: "gelu", shapes: |n| vec![rows(n / 2)], function: |d| d[0].gelu_with(TANH) },
    Kernel { name: "softmax_rows", shapes: |n| vec![rows(n / 2)], function: |d| d[0].softmax(-1) },
    Kernel { name: "softmax_columns", shapes: |n| vec![rows(n / 2)], function: |d| d[0].softmax(0) },
    Kernel { name: "sum_rows", shapes: |n| vec![rows(n)], function: |d| d[0].sum(keep(-1)) },
    Kernel { name: "sum_columns", shapes: |n| vec![rows(n)], function: |d| d[0].sum(keep(0)) },
    Kernel { name: "transpose_add", shapes: |n| vec![square(n / 3); 2], function: |d| d[0].t() + &d[1] },
    Kernel { name: "matmul", shapes: |n| vec![square(n / 3); 2], function: |d| d[0].matmul(&d[1]) },
];

const TANH: Gelu = Gelu { approximate: Approximate::Tanh };

/// Products of larger matrices take seconds, and tell nothing new.
const MOST_PRODUCT: usize = 16 << 20;

fn rows(n: usize) -> [usize; 2] {
    let columns = n.clamp(1, 1024).min((n / 8).next_power_of_two().max(16));
    [(n / columns).max(1), columns]
}

fn square(n: usize) -> [usize; 2] {
    [n.isqrt().max(1); 2]
}

fn measure(kernel: &Kernel, bytes: usize, threads: usize, seconds: f64) -> Result<(), Failure> {
    lazuli::set_num_threads(threads);
    let shapes = (kernel.shapes)(bytes / 4);
    let inputs: Vec<Tensor> = shapes.iter().map(|shape| Tensor::rand(*shape)).collect();
    inputs.iter().try_for_each(Tensor::eval)?;
    let function = kernel.function;
    let program = lazuli::compile(move |inputs: Vec<Tensor>| function(&inputs));
    let result = program.call(&inputs)?;
    let moved = 4 * (shapes.iter().map(|[m, n]| m * n).sum::<usize>() + result.numel());
    drop(result);
    let times = Times::measure(seconds, || program.call(&inputs))?;
    let mut line = json!({
        "kernel": kernel.name, "bytes": moved, "threads": threads, "median_s": times.median(), "min_s": times.least(),
        "gb_s": moved as f64 / times.median() / 1e9,
    });
    if kernel.name == "matmul" {
        line["gflops"] = json!(2e-9 * (shapes[0][0] as f64).powi(3) / times.median());
    }
    println!("{line}");
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["seconds", "threads", "only", "least", "most"])?;
    let (least, most): (usize, usize) = (arguments.number("least", 1 << 10)?, arguments.number("most", 256 << 20)?);
    let threads: Vec<usize> =
        arguments.list("threads", &["1", "2"]).iter().map(|t| t.parse()).collect::<Result<_, _>>()?;
    let seconds = arguments.number("seconds", 0.1)?;
    let only = arguments.list("only", &KERNELS.each_ref().map(|k| k.name));
    common::use_threads(threads.iter().copied().max().unwrap_or(1).min(common::all_threads()))?;
    for kernel in KERNELS.iter().filter(|k| only.iter().any(|n| n == k.name)) {
        let most = if kernel.name == "matmul" { most.min(MOST_PRODUCT) } else { most };
        let sizes = std::iter::successors(Some(least), |n: &usize| n.checked_mul(4)).take_while(|n| *n <= most);
        for bytes in sizes {
            threads.iter().try_for_each(|&t| measure(kernel, bytes, t, seconds))?;
        }
    }
    Ok(())
}
