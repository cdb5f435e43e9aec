//! The code of a nest before registers are assigned: instructions on virtual registers, in lists that loops nest.
//!
//! Every loop that is open has a list of its own. What does not change in a loop is appended to the list around it, which stays
//! open until the loop is finished; an instruction that is there already is not written again.

use super::table::Vector;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// A virtual register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Reg(pub u32);

/// What holds a virtual register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// A vector register, of so many bytes.
    Vector(u32),
    /// A mask register.
    Mask,
    /// A general register.
    General,
}

/// A condition of a jump, of signed integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    Less,
    GreaterEqual,
}

/// A constant or a general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Count {
    Const(i64),
    Reg(Reg),
}

/// A place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Label(pub u32);

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// A vector instruction at a width in bytes: that of its wider side.
    Vector(Vector, u32),
    /// `a * b + c` of vectors; which form is chosen when it is known who dies.
    Fma(u32, bool),
    /// A constant in all lanes, from this offset of the pool.
    Constant(u32),
    /// A vector of the pool.
    Table(u32),
    /// A number of the frame's word in all lanes.
    Spread(u32),
    /// A word of the frame.
    Word(u32),
    /// The address of the frame.
    FrameAddress,
    /// A general register as another.
    Copy,
    /// A constant.
    Set(i64),
    Add,
    Subtract,
    Multiply,
    AddConst(i64),
    MultiplyConst(i64),
    Least,
    /// The second operand where the first is not zero, else the third.
    Choose,
    /// The function of this number of the second operand's lanes that the third one selects; the first gives the others. The address of
    /// what calls it is this word of the frame.
    Call {
        number: u32,
        /// Bytes of a lane.
        size: u32,
        word: u32,
    },
    /// Numbers of 32 bits from an address plus a vector of distances, in the lanes of a mask: the first operand gives the others.
    Gather(u32),
    /// 1 where the operand is at least a constant, else 0.
    AtLeast(i64),
    /// Writes a vector past the caches, where the second operand is not zero and the address allows it.
    StoreStreaming(u32),
    /// Waits for such writes, where the operand is not zero.
    Fence,
    /// Asks for the cache line of an address.
    Prefetch,
    /// The address of bytes of the pool.
    PoolAddress(u32),
    /// A byte or two bytes of memory, without sign.
    Narrow(u32),
    /// Writes the low bytes of a general register.
    StoreNarrow(u32),
    /// A mask of the lanes below a count.
    Below,
    Label(Label),
    /// Compares two general registers, or one with a constant, and jumps.
    Branch(Condition, Option<i64>, Label),
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub base: Reg,
    pub index: Option<(Reg, u32)>,
    pub offset: i32,
}

/// Which lanes an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Masking {
    All,
    /// Others become zero.
    Zero(Reg),
    /// Others stay; a store leaves memory as it is.
    Merge(Reg),
}

/// An instruction.
#[derive(Clone, Debug)]
pub(super) struct Inst {
    pub op: Op,
    pub result: Option<Reg>,
    pub operands: SmallVec<[Reg; 3]>,
    /// The last operand of a load; where a store writes.
    pub address: Option<Address>,
    pub masking: Masking,
    pub immediate: Option<i32>,
}

impl Inst {
    pub fn new(op: Op, result: Option<Reg>, operands: &[Reg]) -> Inst {
        let operands = operands.iter().copied().collect();
        Inst { op, result, operands, address: None, masking: Masking::All, immediate: None }
    }

    /// Whether the register of the result holds the first operand before.
    pub fn is_tied(&self) -> bool {
        let fma = matches!(
            self.op,
            Op::Vector(Vector::Fma213F32 | Vector::Fma231F32 | Vector::Fma213F64 | Vector::Fma231F64, _)
        );
        let permutes = matches!(self.op, Op::Vector(Vector::PermuteTwo32, _));
        let blends = matches!(self.op, Op::Vector(Vector::BlendI32 | Vector::BlendI64, _));
        fma || permutes
            || matches!(self.op, Op::Call { .. })
            || (!blends && self.result.is_some() && matches!(self.masking, Masking::Merge(_)))
    }

    /// All registers that it reads.
    pub fn reads(&self) -> impl Iterator<Item = Reg> + '_ {
        let address = self.address.iter().flat_map(|a| [Some(a.base), a.index.map(|i| i.0)]).flatten();
        let mask = match self.masking {
            Masking::All => None,
            Masking::Zero(m) | Masking::Merge(m) => Some(m),
        };
        self.operands.iter().copied().chain(address).chain(mask)
    }
}

/// What is known of a virtual register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub class: Class,
    /// The list at whose end it is defined: the number of loops around it.
    pub depth: u32,
    /// Written more than once.
    pub changes: bool,
    /// A constant, or a number of the frame.
    pub given: bool,
}

type Key = (Op, SmallVec<[Reg; 3]>, Option<i32>, Class, Masking);

/// An open loop.
#[derive(Debug, Default)]
struct List {
    insts: Vec<Inst>,
    seen: FxHashMap<Key, Reg>,
    /// It may run no iteration: what could fault must not leave it.
    may_skip: bool,
}

/// Code under construction.
#[derive(Debug, Default)]
pub(super) struct Code {
    lists: Vec<List>,
    pub regs: Vec<Known>,
    labels: u32,
}

impl Code {
    pub fn new() -> Code {
        Code { lists: vec![List::default()], ..Code::default() }
    }

    /// The number of open loops.
    pub fn depth(&self) -> u32 {
        self.lists.len() as u32 - 1
    }

    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }

    pub fn reg(&mut self, class: Class, depth: u32, changes: bool) -> Reg {
        self.regs.push(Known { class, depth, changes, given: false });
        Reg(self.regs.len() as u32 - 1)
    }

    /// Opens the list of a loop.
    pub fn open(&mut self, may_skip: bool) {
        self.lists.push(List { may_skip, ..List::default() });
    }

    /// Appends the list of the innermost loop to that around it.
    pub fn close(&mut self) {
        if let Some(list) = self.lists.pop()
            && let Some(outer) = self.lists.last_mut()
        {
            outer.insts.extend(list.insts);
        }
    }

    pub fn finish(mut self) -> (Vec<Inst>, Vec<Known>) {
        while self.lists.len() > 1 {
            self.close();
        }
        let insts = self.lists.pop().map(|l| l.insts).unwrap_or_default();
        (without_dead(insts, self.regs.len()), self.regs)
    }

    /// Appends to the innermost list.
    pub fn push(&mut self, inst: Inst) {
        if let Some(list) = self.lists.last_mut() {
            list.insts.push(inst);
        }
    }

    /// A new register with the result of an instruction that only depends on its operands: written where these are known.
    pub fn pure(&mut self, op: Op, class: Class, operands: &[Reg], immediate: Option<i32>) -> Reg {
        let mut inst = Inst::new(op, None, operands);
        inst.immediate = immediate;
        self.pure_inst(inst, class)
    }

    /// As `pure`, of the lanes that a mask selects.
    pub fn masked(&mut self, op: Op, class: Class, operands: &[Reg], masking: Masking) -> Reg {
        let mut inst = Inst::new(op, None, operands);
        inst.masking = masking;
        self.pure_inst(inst, class)
    }

    fn pure_inst(&mut self, mut inst: Inst, class: Class) -> Reg {
        let depth = self.deepest(inst.reads());
        // Operands that change may have other values later.
        let once = inst.reads().all(|r| !self.regs[r.0 as usize].changes);
        let key: Key = (inst.op, inst.operands.clone(), inst.immediate, class, inst.masking);
        if once && let Some(r) = self.lists[depth as usize].seen.get(&key) {
            return *r;
        }
        let result = self.reg(class, depth, false);
        self.regs[result.0 as usize].given = matches!(inst.op, Op::Constant(_) | Op::Spread(_));
        inst.result = Some(result);
        let list = &mut self.lists[depth as usize];
        list.insts.push(inst);
        if once {
            list.seen.insert(key, result);
        }
        result
    }

    /// Whether a register holds what lies in memory from the start.
    pub fn is_given(&self, r: Reg) -> bool {
        self.regs[r.0 as usize].given
    }

    /// A load of what nothing writes: written as far out as its address is known and it certainly happens.
    pub fn constant_load(&mut self, mut inst: Inst, class: Class) -> Reg {
        let mut depth = self.deepest(inst.reads());
        for (i, list) in self.lists.iter().enumerate() {
            if list.may_skip {
                depth = depth.max(i as u32);
            }
        }
        let result = self.reg(class, depth, false);
        inst.result = Some(result);
        self.lists[depth as usize].insts.push(inst);
        result
    }

    fn deepest(&self, regs: impl Iterator<Item = Reg>) -> u32 {
        regs.map(|r| self.regs[r.0 as usize].depth).max().unwrap_or(0).min(self.depth())
    }

    /// A register that changed in loops changes no more.
    pub fn settle(&mut self, r: Reg) {
        let depth = self.depth();
        self.regs[r.0 as usize] = Known { depth, changes: false, ..self.regs[r.0 as usize] };
    }

    /// Makes the instruction that gives `from`, one of the innermost list after `start`, give `to` instead, whose old value
    /// nothing reads after it. Tells whether it did.
    pub fn retarget(&mut self, start: usize, from: Reg, to: Reg) -> bool {
        let Some(list) = self.lists.last_mut() else { return false };
        let Some(n) = list.insts.iter().rposition(|i| i.result == Some(from)).filter(|n| *n >= start) else {
            return false;
        };
        let late = |i: &Inst| i.reads().any(|r| r == from || r == to);
        if list.insts[n + 1..].iter().any(late) {
            return false;
        }
        list.insts[n].result = Some(to);
        list.seen.retain(|_, r| *r != from);
        true
    }

    pub fn here(&self) -> usize {
        self.lists.last().map_or(0, |l| l.insts.len())
    }
}

/// The instructions without those whose results nobody reads.
fn without_dead(mut insts: Vec<Inst>, regs: usize) -> Vec<Inst> {
    let mut reads = vec![0u32; regs];
    for r in insts.iter().flat_map(Inst::reads) {
        reads[r.0 as usize] += 1;
    }
    // From the end: what only fed a dead instruction is dead when its turn comes.
    let mut keep = vec![true; insts.len()];
    for (n, inst) in insts.iter().enumerate().rev() {
        let Some(result) = inst.result else { continue };
        if reads[result.0 as usize] == 0 {
            keep[n] = false;
            for r in inst.reads() {
                reads[r.0 as usize] -= 1;
            }
        }
    }
    let mut keep = keep.into_iter();
    insts.retain(|_| keep.next().unwrap_or(true));
    insts
}
