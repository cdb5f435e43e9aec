//! The programs whose kernels both suites without a GPU go over: random ones, single primitives, and what models are made of.

use lazuli_oracles::shim::{GpuCase, KernelSet};

mod models;
#[allow(dead_code, reason = "workloads are traced here, and not run")]
#[path = "../../../benches/workloads/mod.rs"]
pub mod workloads;

pub use models::cases as models;

/// Every case.
pub fn cases() -> Vec<GpuCase> {
    let mut cases = models();
    let good = |what: Result<GpuCase, String>| what.unwrap_or_else(|e| panic!("{e}"));
    cases.extend((40_000..40_070).map(|seed| good(GpuCase::random(seed))));
    cases.extend((41_000..41_040).filter_map(|seed| GpuCase::gradients(seed).unwrap_or_else(|e| panic!("{e}"))));
    cases.extend((42_000..42_080).map(|seed| good(GpuCase::primitive(seed))));
    cases.extend((43_000..43_050).filter_map(|seed| GpuCase::operation(seed).unwrap_or_else(|e| panic!("{e}"))));
    cases.extend((44_000..44_040).map(|seed| good(GpuCase::with_routine(seed))));
    cases
}

/// The distinct kernels of cases, the cases whose kernels are all there, and why others are not.
pub fn kernels(cases: Vec<GpuCase>) -> (KernelSet, Vec<GpuCase>, Vec<String>) {
    let mut set = KernelSet::default();
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    for case in cases {
        let added = case.kernels().iter().find_map(|k| set.add(k).err().map(|e| format!("{}: {e}\n{k}", case.name)));
        match added {
            None => good.push(case),
            Some(e) => failures.push(e),
        }
    }
    (set, good, failures)
}
