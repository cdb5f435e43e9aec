//! Constants on devices: a number that eager code uses again and again is copied there once.

use lazuli_ir::{Device, Literal, Result, Shape};
use lazuli_runtime::Array;
use rustc_hash::FxHashMap;
use std::cell::RefCell;

/// Constants kept by a thread; beyond it all are dropped.
const CAPACITY: usize = 256;

thread_local! {
    static COPIES: RefCell<FxHashMap<(Device, Literal), Array>> = RefCell::default();
}

/// An array on a device. A copy of one stored element, whatever its shape, is shared by all arrays of that number.
pub(crate) fn placed(x: &Array, device: Device) -> Result<Array> {
    if x.device() != Device::Cpu || device == Device::Cpu || x.layout().span() != 1 {
        return x.to_device(device);
    }
    let Some(number) = x.literal_at_first()? else { return x.to_device(device) };
    let scalar = COPIES.with_borrow_mut(|copies| -> Result<Array> {
        if let Some(copy) = copies.get(&(device, number)) {
            return Ok(copy.clone());
        }
        if copies.len() >= CAPACITY {
            copies.clear();
        }
        let copy = Array::full(number, &Shape::scalar())?.to_device(device)?;
        copies.insert((device, number), copy.clone());
        Ok(copy)
    })?;
    scalar.with_layout(scalar.layout().broadcast(x.shape(), &[]))
}
