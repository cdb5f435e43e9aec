//! Arithmetic of a strip: each operation as the instructions that give the bits of the scalar meaning.

use super::Family;
use super::code::{Class, Count, Masking, Op, Reg};
use super::nest::{Nest, Regs, Val, Word};
use super::table::Vector;
use lazuli_ir::half_code::{self, Half};
use lazuli_ir::kernel::{Emit, Expr, MachineOp, ScalarType, ValueId};
use lazuli_ir::{BinaryCode, BinaryOp, CompareOp, Literal, NativeUnary, UnaryCode};
use smallvec::SmallVec;

/// What applies to a register of each operand.
type Apply<'a, E> = &'a mut dyn FnMut(&mut E, &[Reg]) -> Reg;

impl Emit for Nest<'_> {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let val = self.expr(ty, &expr);
        let v = self.temporary(ty, val);
        self.note_comparison(v, &expr);
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.types[v.index()]
    }
}

/// Bytes of a type in a register's lane.
fn size(ty: ScalarType) -> u32 {
    match ty {
        ScalarType::I64 | ScalarType::F64 => 8,
        ScalarType::Bool | ScalarType::U8 | ScalarType::I32 | ScalarType::F32 => 4,
    }
}

impl Nest<'_> {
    /// Remembers which operands a truth value compares: selecting between them may be one instruction.
    pub fn note_comparison(&mut self, v: ValueId, expr: &Expr) {
        match expr {
            Expr::Compare(op, a, b) => self.compared.insert(v, (*op, *a, *b)),
            _ => self.compared.remove(&v),
        };
    }

    /// The bytes of a register of a type.
    pub fn bytes(&self, ty: ScalarType) -> u32 {
        self.lanes * size(ty)
    }

    /// Whether a register holds all lanes of a type; if not, the nest is built again with fewer.
    fn fits(&mut self, ty: ScalarType) -> bool {
        let fits = self.bytes(ty) <= self.family.bytes();
        self.too_narrow |= !fits;
        fits
    }

    pub fn class(&self, ty: ScalarType) -> Class {
        match ty {
            ScalarType::Bool if self.family == Family::Avx512 => Class::Mask,
            _ => Class::Vector(self.bytes(ty)),
        }
    }

    pub fn vector_op(&self, v: Vector, ty: ScalarType) -> Op {
        Op::Vector(v, self.bytes(ty))
    }

    pub fn op(&mut self, v: Vector, ty: ScalarType, operands: &[Reg], immediate: Option<i32>) -> Reg {
        let (op, class) = (self.vector_op(v, ty), self.class(ty));
        self.code.pure(op, class, operands, immediate)
    }

    pub fn constant(&mut self, ty: ScalarType, c: Literal) -> Reg {
        self.fits(ty);
        let bits = match c.in_kernel() {
            Literal::Bool(v) if self.family == Family::Avx512 => {
                let all = self.count_reg(Count::Const(if v { 0xffff } else { 0 }));
                let op = Op::Vector(Vector::MaskOfGeneral, 64);
                return self.code.pure(op, Class::Mask, &[all], None);
            }
            Literal::Bool(v) => u64::from(if v { u32::MAX } else { 0 }),
            other => other.bits(),
        };
        let offset = self.pool.number(bits, size(ty));
        let class = self.class(ty);
        self.code.pure(Op::Constant(offset), class, &[], None)
    }

    /// The register of a value that all lanes share.
    pub fn one(&mut self, val: &Val, ty: ScalarType) -> Reg {
        match val {
            Val::Const(c) => self.constant(ty, *c),
            Val::Outside(v) => self.spread_word(Word::Value(*v), ty),
            Val::One(r) => *r,
            Val::Parts(_) | Val::Undefined => {
                self.unfit = true;
                self.constant(ty, Literal::zero(ty.dtype()))
            }
        }
    }

    fn spread_word(&mut self, word: Word, ty: ScalarType) -> Reg {
        self.fits(ty);
        if ty == ScalarType::Bool {
            let number = self.word_reg(word);
            let numbers = self.spread_general(number, ScalarType::I32);
            return self.truth(numbers, ScalarType::I32);
        }
        let (word, class) = (self.word(word), self.class(ty));
        self.code.pure(Op::Spread(word), class, &[], None)
    }

    /// A general register's number in all lanes.
    pub fn spread_general(&mut self, r: Reg, ty: ScalarType) -> Reg {
        match (self.family, ty) {
            (Family::Avx512, ScalarType::I64) => self.op(Vector::BroadcastGeneral64, ty, &[r], None),
            (Family::Avx512, _) => self.op(Vector::BroadcastGeneral32, ty, &[r], None),
            (Family::Avx2, _) => {
                let low = self.op(Vector::GeneralToLane, ty, &[r], None);
                self.op(Vector::BroadcastLane32, ty, &[low], None)
            }
        }
    }

    /// The register of each part of a value.
    pub fn parts_of(&mut self, v: ValueId, parts: u32) -> Regs {
        let (val, ty) = (self.values[v.index()].clone(), self.types[v.index()]);
        match val {
            Val::Parts(regs) => regs,
            other => {
                let r = self.one(&other, ty);
                std::iter::repeat_n(r, parts as usize).collect()
            }
        }
    }

    /// Applies to one register of each operand where all lanes share them, else part by part.
    fn lift(&mut self, operands: &[ValueId], f: Apply<'_, Self>) -> Val {
        let parts = operands.iter().filter_map(|v| match &self.values[v.index()] {
            Val::Parts(regs) => Some(regs.len()),
            _ => None,
        });
        match parts.max() {
            None => {
                let mut regs: SmallVec<[Reg; 3]> = SmallVec::new();
                for v in operands {
                    let (val, ty) = (self.values[v.index()].clone(), self.types[v.index()]);
                    regs.push(self.one(&val, ty));
                }
                Val::One(f(self, &regs))
            }
            Some(n) => {
                let all: SmallVec<[Regs; 3]> = operands.iter().map(|v| self.parts_of(*v, n as u32)).collect();
                let part =
                    |i: usize| -> SmallVec<[Reg; 3]> { all.iter().map(|regs| regs[i.min(regs.len() - 1)]).collect() };
                Val::Parts((0..n).map(|i| f(self, &part(i))).collect())
            }
        }
    }

    pub fn expr(&mut self, ty: ScalarType, expr: &Expr) -> Val {
        if self.unfit || self.too_narrow {
            return Val::Undefined;
        }
        if !matches!(expr, Expr::Const(_)) && !self.fits(ty) {
            return Val::Undefined;
        }
        match expr {
            Expr::Const(c) => Val::Const(*c),
            Expr::Scalar(s) => Val::One(self.spread_word(Word::Scalar(*s), ty)),
            Expr::Index(x) => self.index_value(x),
            Expr::Load { from, index, mask } => self.load(ty, *from, index, *mask),
            Expr::Unary(op, a) => match op.row().code {
                UnaryCode::Native(native) => self.native(native, ty, *a),
                UnaryCode::Expand(code) => {
                    let result = code(self as &mut dyn Emit, *a);
                    self.values[result.index()].clone()
                }
                UnaryCode::ExpandBelow(code, limit) if self.family == Family::Avx512 => {
                    let e: &mut dyn Emit = self;
                    let expanded = code(e, *a);
                    let (size, limit) = (e.abs(*a), e.number(*a, limit));
                    let large = e.le(limit, size);
                    self.called(*op, ty, &[expanded, *a, large])
                }
                UnaryCode::Call if self.family == Family::Avx512 => {
                    let all = self.temporary(ScalarType::Bool, Val::Const(Literal::Bool(true)));
                    self.called(*op, ty, &[*a, *a, all])
                }
                UnaryCode::ExpandBelow(..) | UnaryCode::Call => self.give_up(),
            },
            Expr::Binary(op, a, b) => match op.code(ty) {
                BinaryCode::Native => self.native_binary(*op, ty, *a, *b),
                BinaryCode::Expand(code) => {
                    let result = code(self as &mut dyn Emit, *a, *b);
                    self.values[result.index()].clone()
                }
                BinaryCode::Call => self.give_up(),
            },
            Expr::Compare(op, a, b) => {
                let ty = self.types[a.index()];
                let op = *op;
                self.lift(&[*a, *b], &mut |e, x| e.compare(op, ty, x[0], x[1]))
            }
            Expr::Select(c, a, b) => match self.as_extremum(ty, *c, *a, *b) {
                Some(v) => self.lift(&[*a, *b], &mut |e, x| e.op(v, ty, x, None)),
                None => self.lift(&[*c, *a, *b], &mut |e, x| e.blend(ty, x[0], x[1], x[2])),
            },
            Expr::Convert(a) => self.convert(ty, *a),
            Expr::Machine(op, operands) => self.machine(ty, *op, operands),
            Expr::Random(seed, draw, element) => {
                let result = lazuli_ir::philox_code::uniform(self as &mut dyn Emit, *seed, *draw, *element);
                self.values[result.index()].clone()
            }
        }
    }

    /// The first operand, but the operation's meaning on the second where the third is true.
    fn called(&mut self, op: lazuli_ir::UnaryOp, ty: ScalarType, operands: &[ValueId]) -> Val {
        let (word, class) = (self.word(Word::CallLanes), self.class(ty));
        let op = Op::Call { number: op as u32, size: size(ty), word };
        self.lift(operands, &mut |e, x| e.code.pure(op, class, x, None))
    }

    /// The instruction that `c ? a : b` is, where `c` compares `a` with `b`: max gives its first operand where that is larger, min
    /// where it is smaller, and both the second one otherwise, NaN and zeros included.
    fn as_extremum(&self, ty: ScalarType, c: ValueId, a: ValueId, b: ValueId) -> Option<Vector> {
        let (op, x, y) = *self.compared.get(&c)?;
        let first_is_larger = match op {
            CompareOp::Gt => (x, y) == (a, b),
            CompareOp::Lt => (x, y) == (b, a),
            _ => return None,
        };
        let first_is_smaller = match op {
            CompareOp::Gt => (x, y) == (b, a),
            _ => (x, y) == (a, b),
        };
        match (ty, first_is_larger, first_is_smaller) {
            (ScalarType::F32, true, _) => Some(Vector::MaxF32),
            (ScalarType::F32, _, true) => Some(Vector::MinF32),
            (ScalarType::F64, true, _) => Some(Vector::MaxF64),
            (ScalarType::F64, _, true) => Some(Vector::MinF64),
            _ => None,
        }
    }

    /// An index as numbers.
    fn index_value(&mut self, x: &lazuli_ir::Index) -> Val {
        let first = self.index_count(x);
        if self.unfit {
            return Val::Undefined;
        }
        let step = self.running.map_or(Some(0), |l| x.coefficient(l.var));
        let (Some(step), Family::Avx512) = (step, self.family) else { return self.give_up() };
        if let (Count::Const(c), 0) = (first, step) {
            return Val::Const(Literal::I64(c));
        }
        let first = self.count_reg(first);
        let all = self.spread_general(first, ScalarType::I64);
        if step == 0 {
            return Val::One(all);
        }
        let ahead = self.lane_numbers(ScalarType::I64, step);
        let mut at = self.op(Vector::AddI64, ScalarType::I64, &[all, ahead], None);
        let mut parts: Regs = smallvec::smallvec![at];
        let next = self.constant(ScalarType::I64, Literal::I64(step * i64::from(self.lanes)));
        for _ in 1..self.running.map_or(1, |l| l.parts) {
            at = self.op(Vector::AddI64, ScalarType::I64, &[at, next], None);
            parts.push(at);
        }
        Val::Parts(parts)
    }

    /// Where numbers are not zero.
    pub fn truth(&mut self, r: Reg, ty: ScalarType) -> Reg {
        match (self.family, size(ty)) {
            (Family::Avx512, 8) => self.op_mask(Vector::TestI64, ty, &[r, r], None),
            (Family::Avx512, _) => self.op_mask(Vector::TestI32, ty, &[r, r], None),
            (Family::Avx2, _) => {
                let zero = self.constant(ScalarType::I32, Literal::I32(0));
                self.compare(CompareOp::Ne, ScalarType::I32, r, zero)
            }
        }
    }

    /// Ones where true, in lanes of 32 bits.
    pub fn ones(&mut self, mask: Reg) -> Reg {
        self.selected(mask, ScalarType::I32, Literal::I32(1))
    }

    /// A constant where true, else zero.
    fn selected(&mut self, mask: Reg, ty: ScalarType, c: Literal) -> Reg {
        let (number, zero) = (self.constant(ty, c), self.constant(ty, Literal::zero(ty.dtype())));
        self.blend(ty, mask, number, zero)
    }

    /// An instruction whose result is a mask.
    fn op_mask(&mut self, v: Vector, of: ScalarType, operands: &[Reg], immediate: Option<i32>) -> Reg {
        let op = self.vector_op(v, of);
        self.code.pure(op, Class::Mask, operands, immediate)
    }

    fn mask_op(&mut self, v: Vector, operands: &[Reg]) -> Reg {
        self.code.pure(Op::Vector(v, 64), Class::Mask, operands, None)
    }

    pub fn and_masks(&mut self, a: Reg, b: Reg) -> Reg {
        self.logic(BinaryOp::And, a, b)
    }

    /// A connection of truth values.
    fn logic(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Reg {
        let (masks, vectors) = match op {
            BinaryOp::And => (Vector::AndMask, Vector::AndI32),
            BinaryOp::Or => (Vector::OrMask, Vector::OrI32),
            _ => (Vector::XorMask, Vector::XorI32),
        };
        match self.family {
            Family::Avx512 => self.mask_op(masks, &[a, b]),
            Family::Avx2 => self.op(vectors, ScalarType::I32, &[a, b], None),
        }
    }

    fn not(&mut self, a: Reg) -> Reg {
        match self.family {
            Family::Avx512 => self.mask_op(Vector::NotMask, &[a]),
            Family::Avx2 => {
                let all = self.constant(ScalarType::I32, Literal::I32(-1));
                self.op(Vector::XorI32, ScalarType::I32, &[a, all], None)
            }
        }
    }

    /// `c ? a : b`.
    pub fn blend(&mut self, ty: ScalarType, c: Reg, a: Reg, b: Reg) -> Reg {
        match (self.family, ty) {
            (Family::Avx512, ScalarType::Bool) => {
                let yes = self.mask_op(Vector::AndMask, &[c, a]);
                let no = self.mask_op(Vector::AndnMask, &[c, b]);
                self.mask_op(Vector::OrMask, &[yes, no])
            }
            (Family::Avx512, _) => {
                let v = if size(ty) == 8 { Vector::BlendI64 } else { Vector::BlendI32 };
                let (op, class) = (self.vector_op(v, ty), self.class(ty));
                self.code.masked(op, class, &[b, a], Masking::Merge(c))
            }
            (Family::Avx2, _) => self.op(Vector::BlendMask, ty, &[b, a, c], None),
        }
    }

    fn compare(&mut self, op: CompareOp, ty: ScalarType, a: Reg, b: Reg) -> Reg {
        if ty == ScalarType::Bool {
            return match op {
                CompareOp::Ne => self.logic(BinaryOp::Xor, a, b),
                CompareOp::Eq => {
                    let differ = self.logic(BinaryOp::Xor, a, b);
                    self.not(differ)
                }
                CompareOp::Lt => {
                    let not = self.not(a);
                    self.logic(BinaryOp::And, not, b)
                }
                CompareOp::Gt => {
                    let not = self.not(b);
                    self.logic(BinaryOp::And, a, not)
                }
                CompareOp::Le => {
                    let not = self.not(a);
                    self.logic(BinaryOp::Or, not, b)
                }
                CompareOp::Ge => {
                    let not = self.not(b);
                    self.logic(BinaryOp::Or, a, not)
                }
            };
        }
        if ty.is_float() {
            let predicate = match op {
                CompareOp::Eq => 0,
                CompareOp::Lt => 1,
                CompareOp::Le => 2,
                CompareOp::Ne => 4,
                CompareOp::Ge => 13,
                CompareOp::Gt => 14,
            };
            return match (self.family, ty) {
                (Family::Avx512, ScalarType::F64) => self.op_mask(Vector::CompareF64, ty, &[a, b], Some(predicate)),
                (Family::Avx512, _) => self.op_mask(Vector::CompareF32, ty, &[a, b], Some(predicate)),
                (Family::Avx2, _) => self.op(Vector::CompareMaskF32, ty, &[a, b], Some(predicate)),
            };
        }
        if self.family == Family::Avx512 {
            let predicate = match op {
                CompareOp::Eq => 0,
                CompareOp::Lt => 1,
                CompareOp::Le => 2,
                CompareOp::Ne => 4,
                CompareOp::Ge => 5,
                CompareOp::Gt => 6,
            };
            let v = if ty == ScalarType::I64 { Vector::CompareI64 } else { Vector::CompareI32 };
            return self.op_mask(v, ty, &[a, b], Some(predicate));
        }
        let (v, x, y, not) = match op {
            CompareOp::Eq => (Vector::EqualMaskI32, a, b, false),
            CompareOp::Ne => (Vector::EqualMaskI32, a, b, true),
            CompareOp::Gt => (Vector::GreaterMaskI32, a, b, false),
            CompareOp::Le => (Vector::GreaterMaskI32, a, b, true),
            CompareOp::Lt => (Vector::GreaterMaskI32, b, a, false),
            CompareOp::Ge => (Vector::GreaterMaskI32, b, a, true),
        };
        let mask = self.op(v, ScalarType::I32, &[x, y], None);
        if not { self.not(mask) } else { mask }
    }

    /// The low byte of a `u8` after arithmetic; other types as they are.
    fn wrapped(&mut self, ty: ScalarType, r: Reg) -> Reg {
        if ty != ScalarType::U8 {
            return r;
        }
        let byte = self.constant(ScalarType::I32, Literal::I32(0xff));
        self.op(Vector::AndI32, ScalarType::I32, &[r, byte], None)
    }

    /// An instruction in the form of a type: of floats of either size, of integers of either size.
    fn typed(&mut self, forms: [Vector; 4], ty: ScalarType, operands: &[Reg]) -> Reg {
        let v = match ty {
            ScalarType::F32 => forms[0],
            ScalarType::F64 => forms[1],
            ScalarType::I64 => forms[3],
            ScalarType::Bool | ScalarType::U8 | ScalarType::I32 => forms[2],
        };
        let r = self.op(v, ty, operands, None);
        self.wrapped(ty, r)
    }

    fn sign_mask(&mut self, ty: ScalarType, rest: bool) -> Reg {
        let c = match (ty, rest) {
            (ScalarType::F64, false) => Literal::I64(i64::MIN),
            (ScalarType::F64, true) => Literal::I64(i64::MAX),
            (_, false) => Literal::I32(i32::MIN),
            (_, true) => Literal::I32(i32::MAX),
        };
        self.constant(c.scalar_type(), c)
    }

    fn native(&mut self, op: NativeUnary, ty: ScalarType, a: ValueId) -> Val {
        use Vector::{
            AbsI32, AbsI64, AndI32, AndI64, RoundF32, RoundF64, SqrtF32, SqrtF64, SubI32, SubI64, XorI32, XorI64,
        };
        if ty == ScalarType::Bool {
            return self.give_up();
        }
        let float = ty.is_float();
        self.lift(&[a], &mut |e, x| {
            let a = x[0];
            match op {
                NativeUnary::Neg if float => {
                    let sign = e.sign_mask(ty, false);
                    e.typed([XorI32, XorI64, XorI32, XorI64], ty, &[a, sign])
                }
                NativeUnary::Abs if float => {
                    let rest = e.sign_mask(ty, true);
                    e.typed([AndI32, AndI64, AndI32, AndI64], ty, &[a, rest])
                }
                NativeUnary::Neg => {
                    let zero = e.constant(ty, Literal::zero(ty.dtype()));
                    e.typed([SubI32, SubI64, SubI32, SubI64], ty, &[zero, a])
                }
                NativeUnary::Abs => e.typed([AbsI32, AbsI64, AbsI32, AbsI64], ty, &[a]),
                NativeUnary::Not => {
                    let all = e.constant(ty, if ty == ScalarType::I64 { Literal::I64(-1) } else { Literal::I32(-1) });
                    e.typed([XorI32, XorI64, XorI32, XorI64], ty, &[a, all])
                }
                NativeUnary::Sqrt => e.typed([SqrtF32, SqrtF64, SqrtF32, SqrtF64], ty, &[a]),
                NativeUnary::Round | NativeUnary::Floor | NativeUnary::Ceil | NativeUnary::Trunc => {
                    let mode = match op {
                        NativeUnary::Floor => 9,
                        NativeUnary::Ceil => 10,
                        NativeUnary::Trunc => 11,
                        _ => 8,
                    };
                    e.op(if ty == ScalarType::F64 { RoundF64 } else { RoundF32 }, ty, &[a], Some(mode))
                }
            }
        })
    }

    fn native_binary(&mut self, op: BinaryOp, ty: ScalarType, a: ValueId, b: ValueId) -> Val {
        use Vector::{
            AddF32, AddF64, AddI32, AddI64, AndI32, AndI64, DivF32, DivF64, MulF32, MulF64, MulI32, MulI64, OrI32,
            OrI64, SubF32, SubF64, SubI32, SubI64, XorI32, XorI64,
        };
        let float = ty.is_float();
        if ty == ScalarType::Bool {
            let op = match op {
                BinaryOp::Add | BinaryOp::Max | BinaryOp::Or => BinaryOp::Or,
                BinaryOp::Mul | BinaryOp::Min | BinaryOp::And => BinaryOp::And,
                BinaryOp::Xor => BinaryOp::Xor,
                _ => return self.give_up(),
            };
            return self.lift(&[a, b], &mut |e, x| e.logic(op, x[0], x[1]));
        }
        let forms = match op {
            BinaryOp::Add => [AddF32, AddF64, AddI32, AddI64],
            BinaryOp::Sub => [SubF32, SubF64, SubI32, SubI64],
            BinaryOp::Mul => [MulF32, MulF64, MulI32, MulI64],
            BinaryOp::Div if float => [DivF32, DivF64, DivF32, DivF64],
            BinaryOp::And if !float => [AndI32, AndI64, AndI32, AndI64],
            BinaryOp::Or if !float => [OrI32, OrI64, OrI32, OrI64],
            BinaryOp::Xor if !float => [XorI32, XorI64, XorI32, XorI64],
            BinaryOp::Max | BinaryOp::Min => {
                return self.lift(&[a, b], &mut |e, x| e.extremum(op, ty, x[0], x[1]));
            }
            BinaryOp::Copysign if float => {
                return self.lift(&[a, b], &mut |e, x| {
                    let (sign, rest) = (e.sign_mask(ty, false), e.sign_mask(ty, true));
                    let forms = [AndI32, AndI64, AndI32, AndI64];
                    let (size, sign) = (e.typed(forms, ty, &[x[0], rest]), e.typed(forms, ty, &[x[1], sign]));
                    e.typed([OrI32, OrI64, OrI32, OrI64], ty, &[size, sign])
                });
            }
            _ => return self.give_up(),
        };
        let commutes = !matches!(op, BinaryOp::Sub | BinaryOp::Div);
        self.lift(&[a, b], &mut |e, x| {
            // What may be read from memory stands last.
            let (a, b) = if commutes && e.code.is_given(x[0]) { (x[1], x[0]) } else { (x[0], x[1]) };
            e.typed(forms, ty, &[a, b])
        })
    }

    /// The larger or the smaller; of floats one max or min, then the first operand's NaN.
    fn extremum(&mut self, op: BinaryOp, ty: ScalarType, a: Reg, b: Reg) -> Reg {
        use Vector::{MaxF32, MaxF64, MaxI32, MaxI64, MinF32, MinF64, MinI32, MinI64};
        let forms = match op {
            BinaryOp::Max => [MaxF32, MaxF64, MaxI32, MaxI64],
            _ => [MinF32, MinF64, MinI32, MinI64],
        };
        let m = self.typed(forms, ty, &[a, b]);
        if !ty.is_float() {
            return m;
        }
        let nan = match (self.family, ty) {
            (Family::Avx512, ScalarType::F64) => self.op_mask(Vector::CompareF64, ty, &[a, a], Some(3)),
            (Family::Avx512, _) => self.op_mask(Vector::CompareF32, ty, &[a, a], Some(3)),
            (Family::Avx2, _) => self.op(Vector::CompareMaskF32, ty, &[a, a], Some(3)),
        };
        self.blend(ty, nan, a, m)
    }

    fn convert(&mut self, to: ScalarType, a: ValueId) -> Val {
        use ScalarType::{Bool, F32, F64, I32, I64, U8};
        let from = self.types[a.index()];
        if from == to {
            return self.values[a.index()].clone();
        }
        if !self.fits(from) {
            return Val::Undefined;
        }
        let wide = self.lanes * size(from).max(size(to));
        let class = self.class(to);
        self.lift(&[a], &mut |e, x| {
            let v = match (from, to) {
                (Bool, _) => return e.selected(x[0], to, Literal::one(to.dtype())),
                (F32 | F64, Bool) => {
                    let zero = e.constant(from, Literal::zero(from.dtype()));
                    return e.compare(CompareOp::Ne, from, x[0], zero);
                }
                (_, Bool) => return e.truth(x[0], from),
                (U8, I32) => return x[0],
                (I32, U8) => return e.wrapped(U8, x[0]),
                (U8 | I32, I64) => Vector::I32ToI64,
                (I64, I32 | U8) => Vector::I64ToI32,
                (U8 | I32, F32) => Vector::I32ToF32,
                (U8 | I32, F64) => Vector::I32ToF64,
                (F32, I32 | U8) => Vector::F32ToI32,
                (F32, F64) => Vector::F32ToF64,
                (F32, I64) => Vector::F32ToI64,
                (F64, F32) => Vector::F64ToF32,
                (F64, I32 | U8) => Vector::F64ToI32,
                (F64, I64) => Vector::F64ToI64,
                (I64, F32) => Vector::I64ToF32,
                (I64, F64) => Vector::I64ToF64,
                (U8, U8) | (I32, I32) | (I64, I64) | (F32, F32) | (F64, F64) => return x[0],
            };
            let r = e.code.pure(Op::Vector(v, wide), class, x, None);
            e.wrapped(to, r)
        })
    }

    fn machine(&mut self, ty: ScalarType, op: MachineOp, operands: &[ValueId]) -> Val {
        match op {
            MachineOp::Fma => {
                let bytes = self.bytes(ty);
                let class = self.class(ty);
                self.lift(operands, &mut |e, x| e.code.pure(Op::Fma(bytes, ty == ScalarType::F64), class, x, None))
            }
            MachineOp::Scale if self.family == Family::Avx512 => {
                let v = if ty == ScalarType::F64 { Vector::ScaleF64 } else { Vector::ScaleF32 };
                self.lift(operands, &mut |e, x| e.op(v, ty, x, None))
            }
            MachineOp::Scale => {
                let result = lazuli_ir::scale(self as &mut dyn Emit, operands[0], operands[1]);
                self.values[result.index()].clone()
            }
            MachineOp::Bits | MachineOp::OfBits => match &self.values[operands[0].index()] {
                Val::Const(c) => Val::Const(Literal::from_bits(ty.dtype(), c.bits())),
                Val::Outside(_) => self.lift(&operands[..1], &mut |_, x| x[0]),
                other => other.clone(),
            },
            MachineOp::ShiftLeft | MachineOp::ShiftRight | MachineOp::ShiftRightLogical => {
                let count = match self.values[operands[1].index()] {
                    Val::Const(c) => c.as_i64(),
                    _ => None,
                };
                let Some(count) = count else { return self.give_up() };
                use Vector::{
                    ShiftLeftI32, ShiftLeftI64, ShiftRightI32, ShiftRightI64, ShiftRightLogicalI32,
                    ShiftRightLogicalI64,
                };
                let (narrow, wide) = match op {
                    MachineOp::ShiftLeft => (ShiftLeftI32, ShiftLeftI64),
                    MachineOp::ShiftRight => (ShiftRightI32, ShiftRightI64),
                    _ => (ShiftRightLogicalI32, ShiftRightLogicalI64),
                };
                let v = if ty == ScalarType::I64 { wide } else { narrow };
                self.lift(&operands[..1], &mut |e, x| e.op(v, ty, x, Some(count as i32)))
            }
            MachineOp::RoundF16 if self.family == Family::Avx512 => {
                let (bytes, half) = (self.bytes(ty), Class::Vector(self.lanes * 2));
                self.lift(operands, &mut |e, x| {
                    let narrow = e.code.pure(Op::Vector(Vector::StoreF16, bytes), half, x, Some(0));
                    e.op(Vector::LoadF16, ty, &[narrow], None)
                })
            }
            MachineOp::RoundF16 => self.round(Half::F16, operands[0]),
            MachineOp::RoundBF16 => self.round(Half::BF16, operands[0]),
        }
    }

    fn round(&mut self, half: Half, a: ValueId) -> Val {
        let result = half_code::round(self as &mut dyn Emit, half, a);
        self.values[result.index()].clone()
    }

    /// The vector whose lane `i` is lane `i ^ distance`.
    pub fn exchange(&mut self, ty: ScalarType, r: Reg, distance: u32) -> Reg {
        let bytes = distance * size(ty);
        match (bytes, self.bytes(ty)) {
            (32, _) => self.op(Vector::SwapQuarters, ty, &[r, r], Some(0x4e)),
            (16, 64) => self.op(Vector::SwapQuarters, ty, &[r, r], Some(0xb1)),
            (16, _) => self.op(Vector::SwapQuarters, ty, &[r, r], Some(1)),
            (8, _) => self.op(Vector::Permute32, ty, &[r], Some(0x4e)),
            _ => self.op(Vector::Permute32, ty, &[r], Some(0xb1)),
        }
    }

    /// The first lane in all lanes.
    pub fn first_lane(&mut self, ty: ScalarType, r: Reg) -> Reg {
        let v = if size(ty) == 8 { Vector::Broadcast64 } else { Vector::BroadcastLane32 };
        self.op(v, ty, &[r], None)
    }
}
