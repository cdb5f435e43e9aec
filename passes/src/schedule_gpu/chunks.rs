//! A reduction at the root: blocks take chunks of it.

use super::flatten::flatten;
use super::reduces_in_order;
use super::rows::{SHORT, elements, has_compounds, is_simple, must_follow, registers, share, unroll};
use lazuli_ir::kernel::{Binding, Kernel, Reduce};

/// Elements of a reduction at the root that are worth a block of their own.
const CHUNK: u64 = 8192;
/// Blocks that share a reduction at the root at most.
const MOST_CHUNKS: u64 = 1024;

/// Cuts a reduction at the root into chunks for the grid, where it is long enough.
pub(super) fn chunks(kernel: &mut Kernel, r: &mut Reduce) -> bool {
    let known: Option<Vec<u64>> = r.vars.iter().map(|(_, e)| e.known()).collect();
    let Some(extents) = known else { return false };
    let [first, inner @ ..] = extents.as_slice() else { return false };
    let inner: u64 = inner.iter().product();
    let own = r.body.iter().map(elements).max().unwrap_or(0).max(1);
    let all = first.saturating_mul(inner).saturating_mul(own);
    if all <= CHUNK || inner == 0 || reduces_in_order(r) {
        return false;
    }
    let wanted = CHUNK.max(all / MOST_CHUNKS);
    let chunk = wanted.div_ceil(inner.saturating_mul(own)).max(1);
    if chunk >= *first {
        return false;
    }
    if has_compounds(&r.body) && !walk_rows(kernel, r) {
        return false;
    }
    r.axis.binding = Binding::Grid(0);
    r.chunk = chunk;
    true
}

/// Binds what stands in the body of a reduction whose elements are rows: each is a warp's where it is worth that, and else a
/// thread's.
fn walk_rows(kernel: &mut Kernel, r: &mut Reduce) -> bool {
    let length = r.body.iter().map(elements).max().unwrap_or(0);
    if length <= SHORT || r.body.iter().any(must_follow) {
        unroll(&mut r.body);
        return true;
    }
    if !is_simple(kernel, &r.body) {
        return false;
    }
    flatten(kernel, &mut r.body);
    if !registers(kernel, &r.body, Binding::Lane) {
        return false;
    }
    share(kernel, &mut r.body, Binding::Lane);
    true
}
