//! Kernels for GPUs mean what they must: run on the CPU in every order of threads, in fenced memory, against the reference.

#![allow(clippy::panic, clippy::unwrap_used)]

mod cuda_cases;

use lazuli_oracles::shim::{GpuCase, KernelSet, Program, available};
use lazuli_passes::Pass;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What checking cases came to.
struct Outcome {
    cases: usize,
    elements: usize,
    undetermined: usize,
    failures: Vec<String>,
}

/// Checks cases, as many at once as there are cores.
fn check(cases: &[GpuCase], set: &KernelSet, code: &Program) -> Outcome {
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Outcome { cases: cases.len(), elements: 0, undetermined: 0, failures: Vec::new() });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = case.check(set, code);
                let mut outcome = outcome.lock().unwrap();
                match result {
                    Ok(summary) => {
                        outcome.elements += summary.elements;
                        outcome.undetermined += summary.undetermined;
                    }
                    Err(e) => outcome.failures.push(e),
                }
            }
        };
        (0..threads).for_each(|_| _ = scope.spawn(work));
    });
    outcome.into_inner().unwrap()
}

/// Compiles and checks cases; what cannot be printed or compiled is a failure as well. The number of their kernels.
fn run(cases: Vec<GpuCase>) -> (Outcome, usize) {
    let (set, cases, failures) = cuda_cases::kernels(cases);
    let mut outcome = match set.compile() {
        Ok(code) => check(&cases, &set, &code),
        Err(e) => Outcome { cases: cases.len(), elements: 0, undetermined: 0, failures: vec![e.to_string()] },
    };
    outcome.failures.extend(failures);
    let (kernels, Outcome { cases, elements, undetermined, failures }) = (set.sources().len(), &outcome);
    let failed = failures.len();
    println!("{cases} cases, {kernels} kernels, {elements} elements, {undetermined} undetermined, {failed} failures");
    (outcome, kernels)
}

#[test]
fn kernels_give_what_the_reference_gives() {
    if !available().unwrap() {
        return;
    }
    let (Outcome { cases, elements, undetermined, failures }, kernels) = run(cuda_cases::cases());
    assert!(failures.is_empty(), "{} failures of {cases} cases:\n{}", failures.len(), failures.join("\n\n"));
    assert!(undetermined * 20 <= elements, "{undetermined} of {elements} undetermined");
    assert!(kernels >= 300, "{kernels} kernels");
}

/// The same for seeds `LAZULI_SEEDS`, as `1000..2000`.
#[test]
#[ignore = "a search, not a test: takes as long as it is told"]
fn random_kernels_give_what_the_reference_gives() {
    let seeds = std::env::var("LAZULI_SEEDS").unwrap_or_else(|_| "0..100".to_owned());
    let (from, to) = seeds.split_once("..").unwrap();
    let seeds: Vec<u64> = (from.parse().unwrap()..to.parse().unwrap()).collect();
    let mut failures = Vec::new();
    for some in seeds.chunks(100) {
        let mut cases = Vec::new();
        for &seed in some {
            let primitive = GpuCase::primitive(seed).map(Some);
            let random = GpuCase::random(seed).map(Some);
            for case in [random, GpuCase::gradients(seed), primitive, GpuCase::operation(seed)] {
                match case {
                    Ok(case) => cases.extend(case),
                    Err(e) => failures.push(e),
                }
            }
        }
        let found = run(cases).0.failures;
        found.iter().for_each(|e| println!("{e}"));
        failures.extend(found);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
}

/// Programs mean the same without a schedule, contractions included.
#[test]
fn kernels_without_a_schedule_give_what_the_reference_gives() {
    if available().unwrap() {
        let cases = (40_030..40_060).map(|seed| GpuCase::without(Pass::Schedule, seed).unwrap()).collect();
        let failures = run(cases).0.failures;
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
    }
}

/// Whether the suite sees what it is for: without their barriers most kernels that have some give something else.
#[test]
fn kernels_without_barriers_are_found() {
    if !available().unwrap() {
        return;
    }
    let (set, cases, _) = cuda_cases::kernels(cuda_cases::models());
    let with: Vec<GpuCase> =
        cases.into_iter().filter(|c| c.kernels().iter().any(|k| set.text(k).contains("__syncthreads()"))).collect();
    let code = set.compile_edited(|text| text.replace("__syncthreads();", ";")).unwrap();
    let outcome = check(&with, &set, &code);
    let same = |c: &&GpuCase| !outcome.failures.iter().any(|f| f.starts_with(&c.name));
    let same: Vec<&str> = with.iter().filter(same).map(|c| c.name.as_str()).collect();
    println!("{} of {} cases fail without barriers; not {same:?}", outcome.failures.len(), outcome.cases);
    assert!(outcome.failures.len() * 10 >= outcome.cases * 8, "{} of {}", outcome.failures.len(), outcome.cases);
}

/// The same for the other faults that kernels may have: each edit makes every kernel that it reaches wrong, and says so.
#[test]
fn kernels_with_faults_are_found() {
    if !available().unwrap() {
        return;
    }
    let faults = [
        ("__syncthreads();", "__syncthreads();", "if (threadIdx.x < 40) __syncthreads();", "__syncthreads"),
        ("lz_other(", "0xffffffffu, v, m", "0x7fffffffu, v, m", "mask"),
        ("lz_write<", "*(lz_vector<T, N>*)to = v;", "((lz_vector<T, N>*)to)[1 << 20] = v;", ": writes "),
    ];
    for (reaches, right, wrong, says) in faults {
        let (all, cases, _) = cuda_cases::kernels(cuda_cases::models());
        let reached = |c: &GpuCase| c.kernels().iter().any(|k| all.text(k).contains(reaches));
        let (set, cases, _) = cuda_cases::kernels(cases.into_iter().filter(reached).take(8).collect());
        let code = set.compile_edited(|text| text.replace(right, wrong)).unwrap();
        let outcome = check(&cases, &set, &code);
        println!("{} of {} cases fail with `{wrong}`", outcome.failures.len(), outcome.cases);
        assert!(outcome.cases >= 5 && outcome.failures.len() == outcome.cases, "{wrong}: {:?}", outcome.failures);
        assert!(outcome.failures.iter().all(|f| f.contains(says)), "{wrong}: {:?}", outcome.failures);
    }
}
