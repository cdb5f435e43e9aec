//! Instructions on vectors and masks: operands in registers, in memory, or passing through scratch registers.

use super::super::Family;
use super::super::allocate::Place;
use super::super::code::{Class, Inst, Masking, Reg};
use super::super::table::Vector;
use super::{Encoder, GENERAL, GENERAL_SCRATCH, Operand, low_lanes};
use iced_x86::{Code, MemoryOperand, Register};
use smallvec::SmallVec;

impl Encoder<'_> {
    pub(super) fn vector_inst(&mut self, inst: &Inst, v: Vector, bytes: u32) {
        let code = self.code(v, bytes);
        let mask = match inst.masking {
            Masking::All => None,
            Masking::Zero(m) => Some((self.mask(m, 1), true)),
            Masking::Merge(m) => Some((self.mask(m, 1), false)),
        };
        // Where the result goes.
        let (mut result, mut spilled) = (None, None);
        if let Some(r) = inst.result {
            let (register, offset) = match (self.known[r.0 as usize].class, self.place(r)) {
                (Class::Mask, _) => self.mask_result(r),
                (Class::General, Place::Register(n)) => (GENERAL[n as usize], None),
                (Class::General, Place::Stack(offset)) => (GENERAL_SCRATCH[0], Some(offset)),
                (Class::General, _) => (GENERAL_SCRATCH[0], None),
                (Class::Vector(_), Place::Register(n)) => (self.vector(n, self.bytes(r)), None),
                (Class::Vector(_), Place::Stack(offset)) => (self.scratch(0, self.bytes(r)), Some(offset)),
                (Class::Vector(_), _) => (self.scratch(0, self.bytes(r)), None),
            };
            result = Some(register);
            spilled = offset;
        }
        let tied = inst.is_tied();
        let mut operands: SmallVec<[Operand; 4]> = SmallVec::new();
        let mut sources = inst.operands.as_slice();
        if tied && let (Some(to), Some((first, rest))) = (result, sources.split_first()) {
            sources = rest;
            match self.place(*first) {
                Place::Register(n) => {
                    let from = self.vector(n, self.bytes(*first));
                    if from != to {
                        let code = self.code(Vector::Move, self.bytes(*first));
                        self.emit(code, &[Operand::Register(to), Operand::Register(from)], None);
                    }
                }
                _ => self.load_vector(*first, to),
            }
        }
        let count = sources.len();
        let mut registers: SmallVec<[Operand; 4]> = SmallVec::new();
        for (n, &r) in sources.iter().enumerate() {
            registers.push(match self.known[r.0 as usize].class {
                Class::Mask => Operand::Register(self.mask(r, n as u32)),
                Class::General => {
                    let g = self.general(r, 1);
                    let narrow =
                        matches!(v, Vector::BroadcastGeneral32 | Vector::MaskOfGeneral | Vector::GeneralToLane);
                    let g = if narrow { Register::EAX + (g as u32 - Register::RAX as u32) } else { g };
                    Operand::Register(g)
                }
                Class::Vector(_) => {
                    let last = n + 1 == count && inst.address.is_none() && self.folds(v);
                    match self.memory(r).filter(|m| last && self.may_fold(r, v, m)) {
                        Some(m) => Operand::Memory(m),
                        None => Operand::Register(self.vector_of(r, if tied { n + 1 } else { n })),
                    }
                }
            });
        }
        if reads_lane(v) {
            for o in &mut registers {
                if let Operand::Register(r) = o
                    && (*r as u32) >= Register::XMM0 as u32
                {
                    *r = low_lanes(*r);
                }
            }
        }
        let stores = inst.result.is_none();
        if let Some(a) = inst.address.filter(|_| stores) {
            operands.push(Operand::Memory(self.address(a)));
        }
        if let Some(to) = result {
            let to = match v {
                Vector::LaneToGeneral | Vector::GeneralOfMask => Register::EAX + (to as u32 - Register::RAX as u32),
                Vector::GeneralToLane => low_lanes(to),
                _ => to,
            };
            operands.push(Operand::Register(to));
        }
        operands.extend(registers);
        if let Some(a) = inst.address.filter(|_| !stores) {
            operands.push(Operand::Memory(self.address(a)));
        }
        self.emit_masked(code, &operands, inst.immediate, mask);
        let (Some(offset), Some(r), Some(from)) = (spilled, inst.result, result) else { return };
        match self.known[r.0 as usize].class {
            Class::Mask => self.keep_mask(from, Some(offset)),
            Class::General => {
                self.emit(Code::Mov_rm64_r64, &[Operand::Memory(Self::stack(offset)), Operand::Register(from)], None);
            }
            Class::Vector(_) => self.store_vector(from, self.bytes(r), offset),
        }
    }

    /// Whether the last operand may lie in memory.
    pub(super) fn folds(&self, v: Vector) -> bool {
        let shifts = matches!(
            v,
            Vector::ShiftLeftI32 | Vector::ShiftRightI32 | Vector::ShiftRightLogicalI32 | Vector::ShiftLeftI64
        );
        let never = matches!(
            v,
            Vector::I64ToI32
                | Vector::StoreF16
                | Vector::Store16
                | Vector::Store8
                | Vector::Store32
                | Vector::Store64
                | Vector::StoreStreaming
                | Vector::StoreLane32
                | Vector::StoreLane64
                | Vector::LaneToGeneral
                | Vector::GeneralOfMask
                | Vector::BroadcastLane32
                | Vector::Broadcast32
                | Vector::Broadcast64
                | Vector::LoadF16
                | Vector::BlendMask
                | Vector::MaskStore32
                | Vector::Move
        );
        !(never || shifts && self.family == Family::Avx2)
    }

    /// Whether memory holds the value as the instruction reads it: whole, or spread by its element.
    pub(super) fn may_fold(&self, r: Reg, v: Vector, m: &MemoryOperand) -> bool {
        !m.is_broadcast || self.element(r) == v.element()
    }
}

/// Instructions that read the lowest lanes of a vector as a 128-bit register.
fn reads_lane(v: Vector) -> bool {
    matches!(
        v,
        Vector::BroadcastLane32
            | Vector::Broadcast64
            | Vector::StoreLane32
            | Vector::StoreLane64
            | Vector::LaneToGeneral
    )
}
