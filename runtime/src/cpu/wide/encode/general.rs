//! Instructions on general registers.

use super::super::allocate::Place;
use super::super::code::{Inst, Op};
use super::{Encoder, FRAME, GENERAL, GENERAL_SCRATCH, Operand, low_byte};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

impl Encoder<'_> {
    pub(super) fn general_inst(&mut self, inst: &Inst) {
        let Some(result) = inst.result else { return };
        let (to, spilled) = match self.place(result) {
            Place::Register(n) => (GENERAL[n as usize], None),
            Place::Stack(offset) => (GENERAL_SCRATCH[0], Some(offset)),
            // Read where it is used.
            Place::Pool(_) | Place::Frame(_) => return,
            Place::Nowhere => (GENERAL_SCRATCH[0], None),
        };
        let to_operand = Operand::Register(to);
        match inst.op {
            Op::Word(word) => {
                let m = MemoryOperand::with_base_displ(FRAME, i64::from(word) * 8);
                self.emit(Code::Mov_r64_rm64, &[to_operand, Operand::Memory(m)], None);
            }
            Op::FrameAddress => self.move_general(to, FRAME),
            Op::PoolAddress(offset) => {
                let m = MemoryOperand::with_base_displ(Register::RIP, i64::from(offset));
                self.emit(Code::Lea_r64_m, &[to_operand, Operand::Memory(m)], None);
            }
            Op::AtLeast(c) => {
                let a = self.general(inst.operands[0], 0);
                self.checked(Instruction::with2(Code::Cmp_rm64_imm32, a, c.min(i64::from(i32::MAX)) as i32));
                // A move leaves the flags as they are.
                self.checked(Instruction::with2(Code::Mov_r64_imm64, to, 0i64));
                self.emit(Code::Setge_rm8, &[Operand::Register(low_byte(to))], None);
            }
            Op::Choose => {
                let flag = self.general(inst.operands[0], 0);
                self.emit(Code::Test_rm64_r64, &[Operand::Register(flag), Operand::Register(flag)], None);
                // Moves leave the flags as they are.
                let (scratch, other) = (GENERAL_SCRATCH[0], self.general(inst.operands[2], 1));
                let first = self.general(inst.operands[1], 0);
                if first != scratch {
                    self.move_general(scratch, first);
                }
                self.emit(Code::Cmove_r64_rm64, &[Operand::Register(scratch), Operand::Register(other)], None);
                if to != scratch {
                    self.move_general(to, scratch);
                }
            }
            Op::Set(v) => self.checked(Instruction::with2(Code::Mov_r64_imm64, to, v)),
            Op::Copy => {
                let from = self.general(inst.operands[0], 0);
                if from != to {
                    self.move_general(to, from);
                }
            }
            Op::Add => {
                let (a, b) = (self.general(inst.operands[0], 0), self.general(inst.operands[1], 1));
                let m = MemoryOperand::with_base_index(a, b);
                self.emit(Code::Lea_r64_m, &[to_operand, Operand::Memory(m)], None);
            }
            Op::AddConst(c) => {
                let a = self.general(inst.operands[0], 0);
                let m = MemoryOperand::with_base_displ(a, c);
                self.emit(Code::Lea_r64_m, &[to_operand, Operand::Memory(m)], None);
            }
            Op::MultiplyConst(c) => {
                let a = self.general(inst.operands[0], 0);
                self.checked(Instruction::with3(Code::Imul_r64_rm64_imm32, to, a, c as i32));
            }
            Op::Subtract | Op::Multiply | Op::Least => {
                let (a, b) = (self.general(inst.operands[0], 0), self.general(inst.operands[1], 1));
                // Computed in the scratch register: the result's may be that of the second operand.
                if a != GENERAL_SCRATCH[0] {
                    self.move_general(GENERAL_SCRATCH[0], a);
                }
                let scratch = Operand::Register(GENERAL_SCRATCH[0]);
                match inst.op {
                    Op::Subtract => self.emit(Code::Sub_r64_rm64, &[scratch, Operand::Register(b)], None),
                    Op::Multiply => self.emit(Code::Imul_r64_rm64, &[scratch, Operand::Register(b)], None),
                    _ => {
                        self.emit(Code::Cmp_r64_rm64, &[Operand::Register(b), scratch], None);
                        self.emit(Code::Cmovl_r64_rm64, &[scratch, Operand::Register(b)], None);
                    }
                }
                if to != GENERAL_SCRATCH[0] {
                    self.move_general(to, GENERAL_SCRATCH[0]);
                }
            }
            Op::Narrow(bytes) => {
                let Some(a) = inst.address else { return };
                let m = self.address(a);
                let code = if bytes == 1 { Code::Movzx_r32_rm8 } else { Code::Movzx_r32_rm16 };
                let low = Register::EAX + (to as u32 - Register::RAX as u32);
                self.emit(code, &[Operand::Register(low), Operand::Memory(m)], None);
            }
            _ => {}
        }
        if let Some(offset) = spilled {
            self.emit(Code::Mov_rm64_r64, &[Operand::Memory(Self::stack(offset)), to_operand], None);
        }
    }
}
