//! What takes several instructions: calls, gathers and streaming stores.

use super::super::allocate::Place;
use super::super::call;
use super::super::code::Inst;
use super::super::table::Vector;
use super::{Encoder, FRAME, GENERAL_SCRATCH, Operand};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

impl Encoder<'_> {
    /// Streaming stores go to whole vectors of memory at their own alignment.
    pub(super) fn store_streaming(&mut self, inst: &Inst, bytes: u32) {
        let Some(address) = inst.address else { return };
        let value = Operand::Register(self.vector_of(inst.operands[0], 0));
        let (plain, done) = (self.local_label(), self.local_label());
        let m = self.address(address);
        let at = GENERAL_SCRATCH[0];
        self.emit(Code::Lea_r64_m, &[Operand::Register(at), Operand::Memory(m)], None);
        let m = Operand::Memory(MemoryOperand::with_base(at));
        self.unless(inst.operands[1], plain);
        self.checked(Instruction::with2(Code::Test_rm8_imm8, Register::AL, bytes as i32 - 1));
        self.jump(Code::Jne_rel32_64, plain);
        self.emit(self.code(Vector::StoreStreaming, bytes), &[m, value], None);
        self.jump(Code::Jmp_rel32_64, done);
        self.set_label(plain);
        self.emit(self.code(Vector::Store32, bytes), &[m, value], None);
        self.set_label(done);
    }

    /// A call where any lane is wanted: arguments and results pass through the stack.
    pub(super) fn call(&mut self, inst: &Inst, number: u32, size: u32, word: u32) {
        let Some(result) = inst.result else { return };
        let bytes = self.bytes(result);
        let area = i64::from(self.places.stack_bytes - call::BYTES);
        let at = |offset: i64| Operand::Memory(MemoryOperand::with_base_displ(Register::RSP, area + offset));
        let (store, load) = (self.code(Vector::Store32, bytes), self.code(Vector::Load32, bytes));
        let in_register = match self.place(result) {
            Place::Register(n) => Some(self.vector(n, bytes)),
            _ => None,
        };
        let to = Operand::Register(in_register.unwrap_or(self.scratch(0, bytes)));
        let before = Operand::Register(self.vector_of(inst.operands[0], 0));
        self.emit(self.code(Vector::Move, bytes), &[to, before], None);
        let wanted = Operand::Register(self.mask(inst.operands[2], 0));
        let done = self.local_label();
        self.emit(Code::VEX_Kortestw_kr_kr, &[wanted, wanted], None);
        self.jump(Code::Je_rel32_64, done);
        let argument = Operand::Register(self.vector_of(inst.operands[1], 1));
        self.emit(store, &[at(0), argument], None);
        self.emit(store, &[at(call::RESULTS), to], None);
        let eax = Operand::Register(Register::EAX);
        self.emit(Code::VEX_Kmovw_r32_kr, &[eax, wanted], None);
        self.emit(Code::Mov_rm32_r32, &[at(call::WANTED), eax], None);
        self.checked(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, number as i32));
        self.emit(Code::Mov_rm32_r32, &[at(call::OPERATION), eax], None);
        self.checked(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, size as i32));
        self.emit(Code::Mov_rm32_r32, &[at(call::SIZE), eax], None);
        self.emit(Code::Lea_r64_m, &[Operand::Register(Register::RAX), at(0)], None);
        let caller = MemoryOperand::with_base_displ(FRAME, i64::from(word) * 8);
        self.emit(Code::Call_rm64, &[Operand::Memory(caller)], None);
        self.emit(load, &[to, at(call::RESULTS)], None);
        self.set_label(done);
        if let (None, Place::Stack(offset)) = (in_register, self.place(result)) {
            let scratch = self.scratch(0, bytes);
            self.store_vector(scratch, bytes, offset);
        }
    }

    /// A gather clears its mask as it goes: it gets a copy. Its result may not be the register of its distances.
    pub(super) fn gather(&mut self, inst: &Inst, bytes: u32) {
        let (Some(result), Some(address)) = (inst.result, inst.address) else { return };
        let distances = self.vector_of(inst.operands[1], 1);
        let mask = self.mask(inst.operands[2], 0);
        let (copy, to) = (Register::K7, self.scratch(0, bytes));
        self.emit(Code::VEX_Kmovw_kr_km16, &[Operand::Register(copy), Operand::Register(mask)], None);
        match self.place(inst.operands[0]) {
            Place::Register(n) => {
                let from = Operand::Register(self.vector(n, bytes));
                self.emit(self.code(Vector::Move, bytes), &[Operand::Register(to), from], None);
            }
            _ => self.load_vector(inst.operands[0], to),
        }
        let base = self.general(address.base, 0);
        let m = MemoryOperand::with_base_index_scale_displ_size(base, distances, 4, i64::from(address.offset), 1);
        let operands = [Operand::Register(to), Operand::Memory(m)];
        self.emit_masked(self.code(Vector::Gather32, bytes), &operands, None, Some((copy, false)));
        match self.place(result) {
            Place::Register(n) => {
                let into = Operand::Register(self.vector(n, bytes));
                self.emit(self.code(Vector::Move, bytes), &[into, Operand::Register(to)], None);
            }
            Place::Stack(offset) => self.store_vector(to, bytes, offset),
            Place::Pool(_) | Place::Frame(_) | Place::Nowhere => {}
        }
    }
}
