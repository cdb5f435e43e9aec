//! A call of a compiled program takes a fixed number of blocks from the system, however many kernels it runs. Alone in its
//! process, since the allocator counts for all threads.

use lazuli::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static SYSTEM: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLS: usize = 500;

/// Allocations of a warm call of a program of so many kernels.
fn allocations(kernels: usize, extent: usize) -> lazuli::Result<f64> {
    let x = Tensor::ones([extent, extent]);
    // Accumulations do not share a kernel.
    let program = lazuli::compile(move |x: Tensor| (0..kernels as isize).fold(x, |x, i| x.cumsum(i % 2)));
    for _ in 0..20 {
        let _ = program.call(&x)?;
    }
    assert_eq!(program.stages()?.report().kernels.len(), kernels, "each operation is a kernel");
    let region = Region::new(SYSTEM);
    for _ in 0..CALLS {
        let _ = program.call(&x)?;
    }
    let change = region.change();
    Ok((change.allocations + change.reallocations) as f64 / CALLS as f64)
}

#[test]
fn kernels_allocate_nothing() -> lazuli::Result<()> {
    if lazuli_runtime::allocator::fencing().is_some() {
        return Ok(());
    }
    lazuli::set_num_threads(2);
    for extent in [4, 512] {
        let (few, many) = (allocations(33, extent)?, allocations(83, extent)?);
        println!("{extent}: {few} allocations a call of 33 kernels, {many} of 83");
        // A helper that has lost its core, or finds nothing to do for a while, is asked for again, more often in a longer call and on a busy
        // machine. One allocation a kernel would be 50 more.
        let most = if extent == 4 { few } else { few + 25.0 };
        assert!(many <= most, "{few} allocations a call of 33 kernels of {extent} rows, {many} of 83");
    }
    Ok(())
}
