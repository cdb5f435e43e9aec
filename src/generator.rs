//! The process generator: a seed and the number of draws so far. Both modes draw the same numbers from it.

use lazuli_ir::{Error, ErrorKind, Result, Shape};
use lazuli_runtime::Array;
use std::sync::{Mutex, PoisonError};

/// Seed and number of draws so far.
static STATE: Mutex<(i64, i64)> = Mutex::new((0, 0));

/// Reserves draws: the seed and the number of draws before them.
pub(crate) fn reserve(count: u64) -> (i64, i64) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let reserved = *state;
    state.1 = state.1.wrapping_add(count as i64);
    reserved
}

/// Reserves draws: what a program takes as its generator's base.
pub(crate) fn base(count: u64) -> Result<Array> {
    let (seed, next) = reserve(count);
    Array::from_vec(vec![seed, next], &Shape::new([2]))
}

/// Starts the random numbers of the process again from a seed: the same seed and program give the same numbers, eager or
/// compiled, on any number of threads. A process starts with seed 0.
///
/// # Errors
/// Inside a trace: a program's numbers depend on the seed at the time of each call, so seed before the call.
///
/// ```
/// # use lazuli::prelude::*;
/// lazuli::manual_seed(7)?;
/// let a = Tensor::rand([3]).to_vec::<f32>()?;
/// lazuli::manual_seed(7)?;
/// assert_eq!(Tensor::rand([3]).to_vec::<f32>()?, a);
/// # Ok::<(), lazuli::Error>(())
/// ```
pub fn manual_seed(seed: u64) -> Result<()> {
    if let Some(name) = crate::trace::name() {
        return Err(Error::new(
            ErrorKind::Trace,
            format!(
                "manual_seed inside the trace of `{name}` would run once and not at each call; seed before the call"
            ),
        ));
    }
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) = (seed as i64, 0);
    Ok(())
}
