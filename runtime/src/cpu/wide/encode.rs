//! Machine code from instructions whose registers have places: what lies in memory is read where it is used, or through scratch
//! registers.
//!
//! - `general`: instructions on general registers.
//! - `vector`: instructions on vectors and masks.
//! - `special`: what takes several instructions: calls, gathers, streaming stores.

mod general;
mod special;
mod vector;

use super::allocate::{Files, Place, Places, allocate};
use super::code::{Address, Class, Condition, Inst, Known, Label, Op, Reg};
use super::table::Vector;
use super::{Family, Pool, call};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, FastFormatter, Instruction, InstructionBlock, MemoryOperand, OpKind,
    Register, SymbolResolver, SymbolResult,
};
use lazuli_ir::{Error, Result};
use smallvec::SmallVec;

/// The general registers a scan gives out: first those that a function may overwrite.
const GENERAL: [Register; 12] = [
    Register::RDX,
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
/// Of these, the first that must be kept.
const FIRST_KEPT: u32 = 6;
/// The frame's address.
const FRAME: Register = Register::RDI;
const GENERAL_SCRATCH: [Register; 2] = [Register::RAX, Register::RCX];

const VECTORS_512: [u32; 29] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28];
const VECTORS_256: [u32; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const MASKS: [u32; 5] = [1, 2, 3, 4, 5];
const GENERALS: [u32; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Labels are addresses that no data has.
const LABELS: u64 = 1 << 40;

/// The machine code: the pool of constants, then the function at the given offset.
pub(super) struct Encoded {
    pub bytes: Vec<u8>,
    pub entry: usize,
    /// The instructions as text, where asked for.
    pub listing: String,
}

pub(super) fn encode(
    mut insts: Vec<Inst>,
    known: &[Known],
    family: Family,
    pool: &Pool,
    list: bool,
) -> Result<Encoded> {
    let files = Files {
        vector: if family == Family::Avx512 { &VECTORS_512 } else { &VECTORS_256 },
        mask: &MASKS,
        general: &GENERALS,
    };
    let mut places = allocate(&mut insts, known, files, family == Family::Avx512);
    if insts.iter().any(|i| matches!(i.op, Op::Call { .. })) {
        places.stack_bytes += call::BYTES;
    }
    let mut e = Encoder { known, places, family, pool, out: Vec::new(), label: None, local_labels: 0, error: None };
    e.function(&insts);
    if let Some(error) = e.error {
        return Err(error);
    }
    let entry = pool.bytes.len().next_multiple_of(64);
    let block = InstructionBlock::new(&e.out, entry as u64);
    let failed = |what: iced_x86::IcedError| Error::internal(format!("a nest has no machine code: {what}"));
    let code = BlockEncoder::encode(64, block, BlockEncoderOptions::NONE).map_err(failed)?;
    let mut bytes = pool.bytes.clone();
    bytes.resize(entry, 0);
    bytes.extend(code.code_buffer);
    let listing = if list { listing(&e.out) } else { String::new() };
    Ok(Encoded { bytes, entry, listing })
}

/// Labels and constants by name.
struct Names;

impl SymbolResolver for Names {
    fn symbol(&mut self, _: &Instruction, _: u32, _: Option<u32>, address: u64, _: u32) -> Option<SymbolResult<'_>> {
        let name = match address.checked_sub(LABELS) {
            Some(label) => format!("L{label}"),
            None => return None,
        };
        Some(SymbolResult::with_string(address, name))
    }
}

/// The instructions as text: an offset from `rip` is one of the constants.
fn listing(instructions: &[Instruction]) -> String {
    let names: Box<dyn SymbolResolver> = Box::new(Names);
    let Ok(mut formatter) = FastFormatter::try_with_options(Some(names)) else { return String::new() };
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut text = String::new();
    for i in instructions {
        if let Some(label) = i.ip().checked_sub(LABELS) {
            text.push_str(&format!("L{label}:\n"));
        }
        text.push_str("    ");
        formatter.format(i, &mut text);
        text.push('\n');
    }
    text
}

struct Encoder<'a> {
    known: &'a [Known],
    places: Places,
    family: Family,
    pool: &'a Pool,
    out: Vec<Instruction>,
    /// The label of the next instruction.
    label: Option<Label>,
    local_labels: u32,
    error: Option<Error>,
}

/// An operand as it is encoded.
#[derive(Clone, Copy)]
enum Operand {
    Register(Register),
    Memory(MemoryOperand),
}

impl Encoder<'_> {
    fn emit(&mut self, code: Code, operands: &[Operand], immediate: Option<i32>) {
        if code == Code::INVALID {
            self.error = Some(Error::internal("a nest uses an instruction that the machine does not have"));
            return;
        }
        let mut i = Instruction::new();
        i.set_code(code);
        let mut n = 0;
        for operand in operands {
            match operand {
                Operand::Register(r) => {
                    i.set_op_kind(n, OpKind::Register);
                    i.set_op_register(n, *r);
                }
                Operand::Memory(m) => {
                    i.set_op_kind(n, OpKind::Memory);
                    i.set_memory_base(m.base);
                    i.set_memory_index(m.index);
                    i.set_memory_index_scale(m.scale);
                    i.set_memory_displacement64(m.displacement as u64);
                    i.set_memory_displ_size(m.displ_size);
                    i.set_is_broadcast(m.is_broadcast);
                }
            }
            n += 1;
        }
        if let Some(v) = immediate {
            i.set_op_kind(n, OpKind::Immediate8);
            i.set_immediate8(v as u8);
        }
        self.push(i);
    }

    fn emit_masked(
        &mut self,
        code: Code,
        operands: &[Operand],
        immediate: Option<i32>,
        mask: Option<(Register, bool)>,
    ) {
        self.emit(code, operands, immediate);
        if let (Some((k, zero)), Some(i)) = (mask, self.out.last_mut()) {
            i.set_op_mask(k);
            i.set_zeroing_masking(zero);
        }
    }

    fn push(&mut self, mut i: Instruction) {
        if let Some(Label(l)) = self.label.take() {
            i.set_ip(LABELS + u64::from(l));
        }
        self.out.push(i);
    }

    fn checked(&mut self, i: std::result::Result<Instruction, iced_x86::IcedError>) {
        match i {
            Ok(i) => self.push(i),
            Err(e) => self.error = Some(Error::internal(format!("a nest has no machine code: {e}"))),
        }
    }

    fn set_label(&mut self, l: Label) {
        if self.label.is_some() {
            self.emit(Code::Nopd, &[], None);
        }
        self.label = Some(l);
    }

    /// A label that no instruction of the nest knows.
    fn local_label(&mut self) -> Label {
        self.local_labels += 1;
        Label((1 << 30) + self.local_labels)
    }

    fn jump(&mut self, code: Code, Label(l): Label) {
        self.checked(Instruction::with_branch(code, LABELS + u64::from(l)));
    }

    /// Jumps where a general register is zero.
    fn unless(&mut self, flag: Reg, to: Label) {
        let flag = Operand::Register(self.general(flag, 1));
        self.emit(Code::Test_rm64_r64, &[flag, flag], None);
        self.jump(Code::Je_rel32_64, to);
    }

    fn function(&mut self, insts: &[Inst]) {
        let used = |n: u32| self.places.of.contains(&Place::Register(n));
        let general = |r: &Known| r.class == Class::General;
        let mut kept: SmallVec<[Register; 6]> = SmallVec::new();
        for n in FIRST_KEPT..GENERAL.len() as u32 {
            let taken =
                used(n) && self.known.iter().zip(&self.places.of).any(|(k, p)| general(k) && *p == Place::Register(n));
            if taken {
                kept.push(GENERAL[n as usize]);
            }
        }
        for r in &kept {
            self.emit(Code::Push_r64, &[Operand::Register(*r)], None);
        }
        let stack = self.places.stack_bytes;
        if stack > 0 {
            // Whole vectors at their own alignment; the old stack pointer above them.
            self.move_general(Register::RAX, Register::RSP);
            self.checked(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, stack as i32 + 64));
            self.checked(Instruction::with2(Code::And_rm64_imm8, Register::RSP, -64));
            let old = MemoryOperand::with_base_displ(Register::RSP, i64::from(stack));
            self.emit(Code::Mov_rm64_r64, &[Operand::Memory(old), Operand::Register(Register::RAX)], None);
        }
        for inst in insts {
            self.inst(inst);
        }
        if stack > 0 {
            let old = MemoryOperand::with_base_displ(Register::RSP, i64::from(stack));
            self.emit(Code::Mov_r64_rm64, &[Operand::Register(Register::RSP), Operand::Memory(old)], None);
        }
        for r in kept.iter().rev() {
            self.emit(Code::Pop_r64, &[Operand::Register(*r)], None);
        }
        self.emit(Code::VEX_Vzeroupper, &[], None);
        self.emit(Code::Retnq, &[], None);
    }

    fn place(&self, r: Reg) -> Place {
        self.places.of[r.0 as usize]
    }

    fn code(&self, v: Vector, bytes: u32) -> Code {
        let width = (bytes / 16).trailing_zeros() as usize;
        let codes = v.codes();
        let n = if self.family == Family::Avx512 { 2 + width } else { width };
        codes.get(n).copied().unwrap_or(Code::INVALID)
    }

    fn vector(&self, n: u32, bytes: u32) -> Register {
        match bytes {
            64 => Register::ZMM0 + n,
            32 => Register::YMM0 + n,
            _ => Register::XMM0 + n,
        }
    }

    fn bytes(&self, r: Reg) -> u32 {
        match self.known[r.0 as usize].class {
            Class::Vector(bytes) => bytes.max(16),
            Class::Mask | Class::General => 8,
        }
    }

    /// The registers that spilled vectors pass through.
    fn scratch(&self, n: usize, bytes: u32) -> Register {
        let first = if self.family == Family::Avx512 { 29 } else { 13 };
        self.vector(first + n as u32, bytes)
    }

    fn stack(offset: u32) -> MemoryOperand {
        MemoryOperand::with_base_displ(Register::RSP, i64::from(offset))
    }

    /// Where a value lies that has no register, as an operand of its own width.
    fn memory(&self, r: Reg) -> Option<MemoryOperand> {
        let spread = self.family == Family::Avx512;
        match self.place(r) {
            Place::Stack(offset) => Some(Self::stack(offset)),
            Place::Pool(offset) => {
                let mut m = MemoryOperand::with_base_displ(Register::RIP, i64::from(offset));
                m.is_broadcast = spread;
                Some(m)
            }
            Place::Frame(word) => {
                let mut m = MemoryOperand::with_base_displ(FRAME, i64::from(word) * 8);
                m.is_broadcast = spread && matches!(self.known[r.0 as usize].class, Class::Vector(_));
                Some(m)
            }
            Place::Register(_) | Place::Nowhere => None,
        }
    }

    fn move_general(&mut self, to: Register, from: Register) {
        self.emit(Code::Mov_r64_rm64, &[Operand::Register(to), Operand::Register(from)], None);
    }

    /// A general register with the value.
    fn general(&mut self, r: Reg, scratch: usize) -> Register {
        match self.place(r) {
            Place::Register(n) => GENERAL[n as usize],
            _ => {
                let to = GENERAL_SCRATCH[scratch];
                if let Some(m) = self.memory(r) {
                    self.emit(Code::Mov_r64_rm64, &[Operand::Register(to), Operand::Memory(m)], None);
                }
                to
            }
        }
    }

    fn mask(&mut self, r: Reg, scratch: u32) -> Register {
        match self.place(r) {
            Place::Register(n) => Register::K0 + n,
            _ => {
                let to = Register::K0 + 6 + scratch;
                if let Some(m) = self.memory(r) {
                    self.emit(Code::VEX_Kmovw_kr_km16, &[Operand::Register(to), Operand::Memory(m)], None);
                }
                to
            }
        }
    }

    /// A vector register with the value.
    fn vector_of(&mut self, r: Reg, scratch: usize) -> Register {
        let bytes = self.bytes(r);
        match self.place(r) {
            Place::Register(n) => self.vector(n, bytes),
            _ => {
                let to = self.scratch(scratch, bytes);
                self.load_vector(r, to);
                to
            }
        }
    }

    fn load_vector(&mut self, r: Reg, to: Register) {
        let bytes = self.bytes(r);
        let Some(mut m) = self.memory(r) else { return };
        let spread = std::mem::replace(&mut m.is_broadcast, false);
        let code = match (spread, self.element(r)) {
            (false, _) => self.code(Vector::Load32, bytes),
            (true, 8) => self.code(Vector::Broadcast64, bytes),
            (true, _) => self.code(Vector::Broadcast32, bytes),
        };
        self.emit(code, &[Operand::Register(to), Operand::Memory(m)], None);
    }

    /// Bytes of an element of a constant, or of a number of the frame.
    fn element(&self, r: Reg) -> u32 {
        match self.known[r.0 as usize].class {
            Class::Vector(bytes) => bytes / self.pool.lanes,
            Class::Mask | Class::General => 8,
        }
    }

    fn address(&mut self, a: Address) -> MemoryOperand {
        let base = self.general(a.base, 0);
        let offset = i64::from(a.offset);
        match a.index {
            None => MemoryOperand::with_base_displ(base, offset),
            Some((index, scale)) => {
                let index = self.general(index, 1);
                MemoryOperand::with_base_index_scale_displ_size(base, index, scale, offset, 1)
            }
        }
    }

    fn inst(&mut self, inst: &Inst) {
        match inst.op {
            Op::Vector(v, bytes) => self.vector_inst(inst, v, bytes),
            Op::Fma(..) => self.error = Some(Error::internal("a multiply-add without a form")),
            Op::Constant(_) | Op::Spread(_) | Op::Table(_) => {
                if let Some(r) = inst.result
                    && let Place::Register(n) | Place::Stack(n) = self.place(r)
                {
                    self.materialise(inst.op, r, n);
                }
            }
            Op::Label(l) => self.set_label(l),
            Op::Branch(condition, constant, Label(l)) => {
                let a = self.general(inst.operands[0], 0);
                match constant {
                    Some(c) => self.checked(Instruction::with2(Code::Cmp_rm64_imm32, a, c as i32)),
                    None => {
                        let b = self.general(inst.operands[1], 1);
                        self.emit(Code::Cmp_r64_rm64, &[Operand::Register(a), Operand::Register(b)], None);
                    }
                }
                let code = match condition {
                    Condition::Less => Code::Jl_rel32_64,
                    Condition::GreaterEqual => Code::Jge_rel32_64,
                };
                self.jump(code, Label(l));
            }
            Op::Below => self.below(inst),
            Op::StoreStreaming(bytes) => self.store_streaming(inst, bytes),
            Op::Gather(bytes) => self.gather(inst, bytes),
            Op::Call { number, size, word } => self.call(inst, number, size, word),
            Op::Fence => {
                let skip = self.local_label();
                self.unless(inst.operands[0], skip);
                self.emit(Code::Sfence, &[], None);
                self.set_label(skip);
            }
            Op::Prefetch => {
                let Some(address) = inst.address else { return };
                let m = self.address(address);
                self.emit(Code::Prefetcht0_m8, &[Operand::Memory(m)], None);
            }
            Op::StoreNarrow(bytes) => {
                let v = self.general(inst.operands[0], 0);
                // The value may be in the first scratch register: the address takes the second only.
                let Some(a) = inst.address else { return };
                let base = self.general(a.base, 1);
                let m = MemoryOperand::with_base_displ(base, i64::from(a.offset));
                let (code, v) = match bytes {
                    1 => (Code::Mov_rm8_r8, low_byte(v)),
                    _ => (Code::Mov_rm16_r16, low_word(v)),
                };
                self.emit(code, &[Operand::Memory(m), Operand::Register(v)], None);
            }
            Op::Word(_)
            | Op::FrameAddress
            | Op::Copy
            | Op::Set(_)
            | Op::Add
            | Op::Subtract
            | Op::Multiply
            | Op::AddConst(_)
            | Op::MultiplyConst(_)
            | Op::Least
            | Op::Choose
            | Op::AtLeast(_)
            | Op::PoolAddress(_)
            | Op::Narrow(_) => self.general_inst(inst),
        }
    }

    /// A constant or a number of the frame in its register.
    fn materialise(&mut self, op: Op, r: Reg, n: u32) {
        let bytes = self.bytes(r);
        let spread = match op {
            Op::Table(_) => false,
            Op::Spread(_) => true,
            _ => self.family == Family::Avx512,
        };
        let code = match (spread, self.element(r)) {
            (false, _) => self.code(Vector::Load32, bytes),
            (true, 8) => self.code(Vector::Broadcast64, bytes),
            (true, _) => self.code(Vector::Broadcast32, bytes),
        };
        let from = match op {
            Op::Constant(offset) | Op::Table(offset) => {
                MemoryOperand::with_base_displ(Register::RIP, i64::from(offset))
            }
            Op::Spread(word) => MemoryOperand::with_base_displ(FRAME, i64::from(word) * 8),
            _ => return,
        };
        let in_register = matches!(self.place(r), Place::Register(_));
        let to = if in_register { self.vector(n, bytes) } else { self.scratch(0, bytes) };
        self.emit(code, &[Operand::Register(to), Operand::Memory(from)], None);
        if !in_register {
            self.store_vector(to, bytes, n);
        }
    }

    fn store_vector(&mut self, from: Register, bytes: u32, offset: u32) {
        let code = self.code(Vector::Store32, bytes);
        self.emit(code, &[Operand::Memory(Self::stack(offset)), Operand::Register(from)], None);
    }

    /// A mask of the lanes below a count.
    fn below(&mut self, inst: &Inst) {
        let Some(result) = inst.result else { return };
        let count = self.general(inst.operands[0], 0);
        self.checked(Instruction::with2(Code::Mov_r32_imm32, Register::ECX, -1i32));
        let count = Register::EAX + (count as u32 - Register::RAX as u32);
        self.emit(
            Code::VEX_Bzhi_r32_rm32_r32,
            &[Operand::Register(Register::ECX), Operand::Register(Register::ECX), Operand::Register(count)],
            None,
        );
        let (k, spilled) = self.mask_result(result);
        self.emit(Code::VEX_Kmovw_kr_r32, &[Operand::Register(k), Operand::Register(Register::ECX)], None);
        self.keep_mask(k, spilled);
    }

    fn mask_result(&mut self, r: Reg) -> (Register, Option<u32>) {
        match self.place(r) {
            Place::Register(n) => (Register::K0 + n, None),
            Place::Stack(offset) => (Register::K6, Some(offset)),
            Place::Pool(_) | Place::Frame(_) | Place::Nowhere => (Register::K6, None),
        }
    }

    fn keep_mask(&mut self, k: Register, spilled: Option<u32>) {
        if let Some(offset) = spilled {
            self.emit(Code::VEX_Kmovw_m16_kr, &[Operand::Memory(Self::stack(offset)), Operand::Register(k)], None);
        }
    }
}

/// The low 128 bits of a vector register: 32 registers of each width follow one another.
fn low_lanes(r: Register) -> Register {
    Register::XMM0 + (r as u32 - Register::XMM0 as u32) % 32
}

fn low_byte(r: Register) -> Register {
    match r {
        Register::RAX => Register::AL,
        Register::RCX => Register::CL,
        Register::RDX => Register::DL,
        Register::RBX => Register::BL,
        Register::RBP => Register::BPL,
        Register::RSI => Register::SIL,
        Register::RDI => Register::DIL,
        other => Register::R8L + (other as u32 - Register::R8 as u32),
    }
}

fn low_word(r: Register) -> Register {
    Register::AX + (r as u32 - Register::RAX as u32)
}
