//! Contractions, as small compiled programs: panels depend on shapes, so each shape and layout has its own.

use lazuli_ir::{DType, DotDims, Error, Layout, Result, TensorType};
use lazuli_passes::primitive;
use lazuli_runtime::{Argument, Array, Executable, cpu};
use rustc_hash::FxHashMap;
use std::sync::{Mutex, PoisonError};

/// Programs kept; beyond it all are dropped, and those in use compiled again.
const CAPACITY: usize = 1024;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    dims: DotDims,
    dtype: DType,
    left: Layout,
    right: Layout,
}

static PROGRAMS: Mutex<Option<FxHashMap<Key, Executable>>> = Mutex::new(None);

/// A layout without what does not change a program.
fn class(array: &Array) -> Layout {
    Layout { offset: 0, ..array.layout().canonical() }
}

/// The contraction of two arrays.
pub(super) fn run(dims: &DotDims, ty: &TensorType, left: &Array, right: &Array) -> Result<Array> {
    let key = Key { dims: dims.clone(), dtype: ty.dtype, left: class(left), right: class(right) };
    let program = program(key)?;
    let argument = |array: &Array| Argument { array: array.clone(), donated: false };
    let mut results = program.run(vec![argument(left), argument(right)])?;
    results.pop().ok_or_else(|| Error::internal("a contraction without a result"))
}

fn program(key: Key) -> Result<Executable> {
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let programs = programs.get_or_insert_default();
    if let Some(program) = programs.get(&key) {
        return Ok(program.clone());
    }
    let target = cpu::host_target();
    let program = Executable::new(primitive::dot(&key.dims, key.dtype, &key.left, &key.right, target)?, target)?;
    if programs.len() >= CAPACITY {
        programs.clear();
    }
    programs.insert(key, program.clone());
    Ok(program)
}
