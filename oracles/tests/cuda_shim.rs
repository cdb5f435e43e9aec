//! Kernels for GPUs mean what they must: run on the CPU in every order of threads, in fenced memory, against the reference.

#![allow(clippy::panic, clippy::unwrap_used)]

mod cuda_cases;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn kernels_give_what_the_reference_gives() {
    if !lazuli_oracles::shim::available().unwrap() {
        return;
    }
    let (set, cases, failures) = cuda_cases::kernels(cuda_cases::cases());
    let code = set.compile().unwrap();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(failures);
    let counts = Mutex::new((0, 0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                match case.check(&set, &code) {
                    Ok(summary) => {
                        let mut counts = counts.lock().unwrap();
                        *counts = (counts.0 + summary.elements, counts.1 + summary.undetermined);
                    }
                    Err(e) => failures.lock().unwrap().push(e),
                }
            }
        };
        (0..threads).for_each(|_| _ = scope.spawn(work));
    });
    let (elements, undetermined) = counts.into_inner().unwrap();
    println!(
        "{} cases, {} kernels, {elements} elements, {undetermined} undetermined",
        cases.len(),
        set.sources().len()
    );
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), cases.len(), failures.join("\n\n"));
    assert!(set.sources().len() >= 300, "{} kernels", set.sources().len());
    assert!(undetermined * 20 <= elements, "{undetermined} of {elements} undetermined");
}
