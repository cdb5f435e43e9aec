//! Operations that are more than a loop, as small compiled programs: each combination of shapes and layouts has its own.

use lazuli_ir::{DType, Device, Error, Layout, Op, Result};
use lazuli_passes::primitive;
use lazuli_runtime::{Argument, Array, Executable, device};
use rustc_hash::FxHashMap;
use std::sync::{Mutex, PoisonError};

/// Programs kept; beyond it all are dropped, and those in use compiled again.
const CAPACITY: usize = 1024;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    device: Device,
    op: Op,
    operands: Vec<(DType, Layout)>,
    result: DType,
}

static PROGRAMS: Mutex<Option<FxHashMap<Key, Executable>>> = Mutex::new(None);

/// A layout without what does not change a program.
fn class(array: &Array) -> Layout {
    Layout { offset: 0, ..array.layout().canonical() }
}

/// The result of one operation on arrays of a device, in this dtype.
pub(super) fn run(op: &Op, result: DType, operands: &[&Array], device: Device) -> Result<Array> {
    let operands_of = operands.iter().map(|a| (a.dtype(), class(a)));
    let key = Key { device, op: op.clone(), operands: operands_of.collect(), result };
    let program = program(key)?;
    let arguments = operands.iter().map(|array| Argument { array: (*array).clone(), donated: false }).collect();
    let mut results = program.run(arguments)?;
    results.pop().ok_or_else(|| Error::internal("an operation without a result"))
}

fn program(key: Key) -> Result<Executable> {
    let programs = || PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = programs().get_or_insert_default().get(&key) {
        return Ok(program.clone());
    }
    // Without the lock: for a GPU that takes long. Of two threads the first result stays.
    let plan = |target: &_| primitive::program(&key.op, &key.operands, key.result, target);
    let program = device::plan(key.device, plan, |program| program)?;
    let program = Executable::on(program, key.device, key.op.name())?;
    let mut programs = programs();
    let programs = programs.get_or_insert_default();
    if programs.len() >= CAPACITY {
        programs.clear();
    }
    Ok(programs.entry(key).or_insert(program).clone())
}
