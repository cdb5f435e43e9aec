//! A small program with every stage of its compilation printed, and a fusion that the compiler refused, with its reason.
//!
//!     cargo run --release --example inspect

use lazuli::prelude::*;

fn main() -> lazuli::Result<()> {
    let classify = lazuli::compile(|(x, weight, bias): (Tensor, Tensor, Tensor)| {
        let scores = x.matmul(&weight) + bias;
        scores.relu().softmax(-1)
    })
    .named("classify")
    .arguments(["x", "weight", "bias"]);

    let (x, weight, bias) = (Tensor::randn([256, 64]), Tensor::randn([64, 10]), Tensor::zeros([10]));
    let probabilities = classify.call((&x, &weight, &bias))?;
    println!("the first row: {:?}", probabilities.i(0).to_vec::<f32>()?);

    let stages = classify.stages()?;
    heading("Recorded: what the function did");
    println!("{}", stages.graph());
    heading("Optimised: what is left of it");
    println!("{}", stages.optimized());
    heading("Fusion: which operations share a kernel, and why not");
    println!("{}", stages.fusion());
    heading("Kernels: loops over elements");
    println!("{}", stages.kernels());
    heading("Report: what each kernel costs, measured");
    println!("{}", classify.profile((&x, &weight, &bias))?);

    heading("A fusion that was refused");
    let report = stages.report();
    match report.fusion.iter().find(|row| !row.fused) {
        Some(row) => {
            let (from, to) = row.operations;
            let reason = report.why_not_fused(&row.producer, &row.consumer).unwrap_or("they are in one kernel");
            println!("why are {} ({from}) and {} ({to}) not one kernel? {reason}", row.producer, row.consumer);
        }
        None => println!("none: the whole program is one kernel"),
    }

    heading("Why it compiled again");
    let more = classify.call((Tensor::randn([32, 64]), &weight, &bias))?;
    println!("{:?}: {}", more.shape(), classify.explain());
    println!("{}", classify.cache());
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text} ==\n");
}
