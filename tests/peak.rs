//! The planned peak is what the allocator sees. Alone in its process, since the allocator counts for all threads.

use lazuli::prelude::*;

#[test]
fn the_planned_peak_is_what_the_allocator_sees() {
    if lazuli_runtime::allocator::fencing().is_some() {
        return;
    }
    let f = lazuli::compile(|(x, w): (Tensor, Tensor)| {
        // What accumulates along rows cannot run in panels of them, so it stands between two kernels.
        let h = x.matmul(&w).softmax(-1).cumsum(0).matmul(w.t());
        (h.matmul(&w).layer_norm([150], ()), x.sum(0))
    });
    for rows in [7, 64, 300] {
        let report = f.profile((Tensor::ones([rows, 200]), Tensor::ones([200, 150]))).unwrap();
        let (planned, seen) = (report.peak_bytes(), report.measured_peak_bytes.unwrap());
        assert!(report.workspace_bytes > 0, "{report}");
        // The allocator rounds each block up, by at most an eighth or a cache line.
        assert!(planned <= seen && seen <= planned + planned / 8 + 4 * 64, "{planned} planned, {seen} seen\n{report}");
    }
}
