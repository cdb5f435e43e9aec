//! What users see of a compiled program: DOT of every stage, the report, and that both are the same in every process.

use lazuli::Report;
use lazuli::prelude::*;
use std::collections::BTreeSet;

fn attention((x, w): (Tensor, Tensor)) -> Tensor {
    let scores = (x.matmul(&w).matmul(x.t()) * 0.25).softmax(-1);
    scores.matmul(&x).layer_norm([32], ()) + x.sum(..)
}

fn arguments() -> (Tensor, Tensor) {
    let numbers = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect::<Vec<f32>>();
    (Tensor::from_vec(numbers(48 * 32), [48, 32]), Tensor::from_vec(numbers(32 * 32), [32, 32]))
}

/// The names that statements of a DOT text define, outside of edges and attributes.
fn defined(dot: &str) -> Vec<&str> {
    let statement =
        |line: &&str| line.contains(" [") && !line.contains(" -> ") && !line.trim_start().starts_with("node ");
    dot.lines().filter(statement).filter_map(|line| line.trim_start().split(' ').next()).collect()
}

/// The names that edges of a DOT text join.
fn joined(dot: &str) -> BTreeSet<&str> {
    let edges = dot.lines().filter_map(|line| line.split_once(" -> "));
    edges.flat_map(|(a, b)| [a.trim(), b.split([' ', ';']).next().unwrap_or(b)]).collect()
}

/// Braces outside of strings, opened and closed; `None` where a string does not end on its line.
fn braces(dot: &str) -> Option<(usize, usize)> {
    let (mut open, mut closed, mut quoted, mut escaped) = (0, 0, false, false);
    for c in dot.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '\n' if quoted => return None,
            '{' if !quoted => open += 1,
            '}' if !quoted => closed += 1,
            _ => {}
        }
    }
    (!quoted).then_some((open, closed))
}

/// Every stage of a program with hostile names as DOT, and its report.
fn drawn() -> lazuli::Result<([String; 4], Report)> {
    let f = lazuli::compile(attention).arguments(["a \"quoted\" \\ name {", "w"]).named("the \"{program\\");
    f.call(arguments())?.eval()?;
    let s = f.stages()?;
    Ok(([s.graph_to_dot(), s.optimized_to_dot(), s.fusion_to_dot(), s.kernels_to_dot()], s.report()))
}

#[test]
fn each_stage_is_dot_with_every_node_once() {
    let (all, report) = drawn().unwrap();
    for dot in &all {
        let (open, closed) = braces(dot).unwrap();
        assert_eq!(open, closed, "{dot}");
        let names = defined(dot);
        let once: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(once.len(), names.len(), "{dot}");
        assert!(joined(dot).is_subset(&once), "{dot}");
    }
    let [_, optimized, fusion, kernels] = &all;
    assert_eq!(fusion.matches("subgraph cluster").count(), report.kernels.len());
    assert_eq!(defined(fusion).len(), defined(optimized).len());
    let steps = defined(kernels).iter().filter(|name| name.starts_with("step")).count();
    assert_eq!(steps, report.kernels.len());
    assert!(all == drawn().unwrap().0, "a second compilation is drawn in another way");
}

#[test]
fn the_report_says_what_the_program_is() {
    let f = lazuli::compile(attention).arguments(["x", "w"]);
    let report = f.profile(arguments()).unwrap();
    assert_eq!(report.compilations.len(), 1);
    assert_eq!(report.compilations[0].reason, "first call");
    assert!(report.kernels.iter().any(|k| k.is_vectorised()), "{report}");
    assert!(
        report.kernels.iter().all(|k| k.share_of_limit().is_some_and(|s| s > 0.0) && !k.values.is_empty()),
        "{report}"
    );
    assert!(report.passes.iter().any(|p| p.name == "fusion" && p.before > 0 && p.after == report.kernels.len()));
    let limits = report.limits.unwrap();
    assert_eq!(report.kernels[0].limit.unwrap(), limits.time(report.kernels[0].bytes, report.kernels[0].flops));

    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["kernels"].as_array().unwrap().len(), report.kernels.len());
    assert_eq!(json["memory"]["peak_bytes"], report.peak_bytes());
    assert_eq!(json["kernels"][0]["name"], report.kernels[0].name);

    let [first, second] = [&report.kernels[0].name, &report.kernels[1].name];
    let reason = report.why_not_fused(first, second);
    let row = report.fusion.iter().find(|row| !row.fused).unwrap();
    let by_name = report.why_not_fused(row.operations.0, row.operations.1);
    assert!(reason.is_some() && by_name.is_some(), "{report}");
    assert!(report.why_not_fused(second, second).is_none());

    let _ = f.call((arguments().0.i((..16, ..)), arguments().1)).unwrap().eval();
    let report = f.stages().unwrap().report();
    assert_eq!(report.compilations[1].reason, "dim 0 of `x`: 16, was 48");
    assert!(report.limits.is_none() && report.measured_peak_bytes.is_none());
}
