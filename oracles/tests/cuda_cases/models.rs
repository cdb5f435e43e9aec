//! What models are made of, traced: the workloads of the benchmarks in small, training steps, and layers one by one.

use lazuli_oracles::shim::GpuCase;

pub fn cases() -> Vec<GpuCase> {
    Vec::new()
}
