//! The generator of [`philox`](crate::philox) as straight-line Kernel IR, for every back end.
//!
//! Words are kept in the low halves of `i64`s, since that is where a 32 by 32 bit product has room.

use crate::BinaryOp;
use crate::kernel::{Emit, MachineOp, ScalarType, ValueId};
use crate::philox::{KEY_STEPS, MULTIPLIERS, ROUNDS};

/// The uniform `f32` in `[0, 1)` of an element of a draw; all operands are `i64`.
pub fn uniform(e: &mut dyn Emit, seed: ValueId, draw: ValueId, element: ValueId) -> ValueId {
    let (c0, c1) = words(e, element);
    let (c2, c3) = words(e, draw);
    let (mut k0, mut k1) = words(e, seed);
    let mut c = [c0, c1, c2, c3];
    let multipliers = MULTIPLIERS.map(|m| e.i64(i64::from(m)));
    let steps = KEY_STEPS.map(|s| e.i64(i64::from(s)));
    for round in 0..ROUNDS {
        let left = e.mul(c[0], multipliers[0]);
        let right = e.mul(c[2], multipliers[1]);
        let ((left_low, left_high), (right_low, right_high)) = (words(e, left), words(e, right));
        let first = e.binary(BinaryOp::Xor, right_high, c[1]);
        let third = e.binary(BinaryOp::Xor, left_high, c[3]);
        c = [e.binary(BinaryOp::Xor, first, k0), right_low, e.binary(BinaryOp::Xor, third, k1), left_low];
        if round + 1 < ROUNDS {
            k0 = wrapping_add(e, k0, steps[0]);
            k1 = wrapping_add(e, k1, steps[1]);
        }
    }
    let eight = e.i64(8);
    let bits = e.machine(MachineOp::ShiftRightLogical, &[c[0], eight]);
    let bits = e.convert(ScalarType::I32, bits);
    let number = e.convert(ScalarType::F32, bits);
    let scale = e.f32(1.0 / 16_777_216.0);
    e.mul(number, scale)
}

/// The low and the high word of 64 bits.
fn words(e: &mut dyn Emit, v: ValueId) -> (ValueId, ValueId) {
    let (mask, width) = (e.i64(0xffff_ffff), e.i64(32));
    (e.binary(BinaryOp::And, v, mask), e.machine(MachineOp::ShiftRightLogical, &[v, width]))
}

fn wrapping_add(e: &mut dyn Emit, a: ValueId, b: ValueId) -> ValueId {
    let sum = e.add(a, b);
    words(e, sum).0
}
