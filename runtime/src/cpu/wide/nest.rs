//! Loops of a strip, and what lies outside of it.
//!
//! At most one loop at a time runs its iterations as lanes; what is the same for all of them is a vector with one number in all
//! lanes, so that one kind of register holds everything. A loop of lanes runs in two stages: several vectors at a time, then
//! one at a time under a mask of the lanes that are left. Reductions are in `reduction`.

mod reduction;
mod turn;

use super::code::{Class, Code, Condition, Count, Inst, Masking, Op, Reg};
use super::encode::encode;
use super::table::Vector;
use super::{Family, Pool};
use lazuli_ir::half_code::{Half, Origin};
use lazuli_ir::kernel::{
    Block, Expr, Extent, Kernel, Loop, Memory, ParamId, Reduce, ScalarId, ScalarType, StmtKind, TileId, ValueId,
};
use lazuli_ir::{CompareOp, ExtentId, Index, Literal, Result, VarId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use turn::Turn;

/// The nest that becomes a strip.
#[derive(Clone, Copy)]
pub(crate) enum Root<'k> {
    /// A loop, over a range of its variable.
    Loop(&'k Loop),
    /// A reduction, over a range of its first variable.
    Reduce(&'k Reduce),
}

/// A value that is defined outside of the nest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outside {
    /// Not defined outside.
    Unknown,
    /// A constant.
    Const(Literal),
    /// A scalar.
    Scalar,
}

/// A word of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Where the range of the root starts.
    Start,
    /// Where it ends.
    End,
    /// The address of an element, at an index of what is known outside.
    Address(Memory, Vec<Index>),
    /// The run-time stride of a parameter's dim, in bytes.
    Stride(ParamId, usize),
    /// A run-time extent.
    Extent(ExtentId),
    /// An index of what is known outside.
    Index(Index),
    /// A value that is defined outside.
    Value(ValueId),
    /// A run-time scalar.
    Scalar(ScalarId),
    /// The address of what calls functions of lanes.
    CallLanes,
    /// Where a result goes.
    Result(usize),
}

/// A nest as machine code.
pub(crate) struct Strip {
    /// The constants and the function.
    pub bytes: Vec<u8>,
    /// Where in them the function starts.
    pub entry: usize,
    /// The instructions as text, where asked for.
    pub listing: String,
    /// What the caller puts into the frame.
    pub words: Vec<Word>,
    /// The types of the results.
    pub results: SmallVec<[ScalarType; 2]>,
    /// Tiles that are declared in the nest.
    pub tiles: Vec<TileId>,
}

/// The most vectors in flight.
const MOST_PARTS: u32 = 8;

pub(super) type Regs = SmallVec<[Reg; 8]>;

/// A value of the nest.
#[derive(Clone, Debug, Default)]
pub(super) enum Val {
    #[default]
    Undefined,
    Const(Literal),
    /// Defined outside.
    Outside(ValueId),
    /// One number in all lanes.
    One(Reg),
    /// A vector for each part.
    Parts(Regs),
}

/// The loop whose iterations are lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    pub var: VarId,
    /// Vectors that run together.
    pub parts: u32,
    /// The mask of lanes that exist, where not all do.
    pub tail: Option<Reg>,
    /// Iterations of the loop, where they are known.
    pub length: Option<i64>,
}

pub(super) struct Nest<'k> {
    pub kernel: &'k Kernel,
    pub family: Family,
    /// Lanes of a vector.
    pub lanes: u32,
    pub code: Code,
    pub pool: Pool,
    pub types: Vec<ScalarType>,
    pub values: Vec<Val>,
    /// The counters of loops that are open.
    pub vars: FxHashMap<VarId, Reg>,
    pub words: Vec<Word>,
    pub running: Option<Lanes>,
    /// What a half holds, and of which type: a store to that type need not round again.
    pub halves: FxHashMap<ValueId, (Half, Origin)>,
    /// What truth values compare.
    pub compared: FxHashMap<ValueId, (CompareOp, ValueId, ValueId)>,
    /// Its work is more than loads and stores.
    pub heavy: bool,
    /// Bytes of the last cache.
    pub cache_bytes: u64,
    /// What is read as one stream, and asked for ahead of it.
    pub read_ahead: SmallVec<[ParamId; 4]>,
    /// Registers that say whether stores go past the caches.
    pub streaming: SmallVec<[Reg; 2]>,
    /// What masks off stores and loads.
    pub masks: Vec<Val>,
    tiles: Vec<TileId>,
    /// The nest has something that strips do not have.
    pub unfit: bool,
    /// It has numbers of 64 bits, and lanes are as many as those of 32.
    pub too_narrow: bool,
}

/// The strip of a nest; `None` where it is none. `most`: the most iterations of the root, where known.
pub(crate) fn strip(
    kernel: &Kernel,
    root: Root<'_>,
    outside: &dyn Fn(ValueId) -> Outside,
    range: (Option<i64>, Option<i64>),
    most: Option<i64>,
    family: Family,
    list: bool,
) -> Result<Option<Strip>> {
    let worth = match root {
        Root::Loop(l) => l.axis.vector > 1 || has_vectors(&l.body) || Turn::of(kernel, l, family).is_some(),
        Root::Reduce(r) => r.axis.vector > 1 || has_vectors(&r.body),
    };
    if !worth {
        return Ok(None);
    }
    let work = match root {
        Root::Loop(l) => weight(&l.body),
        Root::Reduce(r) => weight(&r.body),
    };
    let mut lanes = family.bytes() / 4;
    loop {
        let mut nest = Nest::new(kernel, outside, family, lanes);
        nest.heavy = work >= 16;
        let results = nest.root(root, range, most);
        if nest.too_narrow && family == Family::Avx512 && lanes == 16 {
            lanes = 8;
            continue;
        }
        if nest.unfit || nest.too_narrow {
            return Ok(None);
        }
        let (insts, known) = nest.code.finish();
        let encoded = encode(insts, &known, family, &nest.pool, list)?;
        let (words, tiles) = (nest.words, nest.tiles);
        return Ok(Some(Strip {
            bytes: encoded.bytes,
            entry: encoded.entry,
            listing: encoded.listing,
            words,
            results,
            tiles,
        }));
    }
}

fn has_vectors(block: &Block) -> bool {
    block.iter().any(|s| match &s.kind {
        StmtKind::Loop(l) => l.axis.vector > 1 || has_vectors(&l.body),
        StmtKind::Reduce(r) => r.axis.vector > 1 || has_vectors(&r.body),
        _ => false,
    })
}

/// The work of one iteration, in instructions, about.
fn weight(block: &Block) -> u32 {
    let one = |s: &lazuli_ir::kernel::Stmt| match &s.kind {
        StmtKind::Let(_, Expr::Unary(op, _)) => op.row().flops,
        StmtKind::Let(_, Expr::Const(_) | Expr::Scalar(_)) => 0,
        StmtKind::Let(..) | StmtKind::Store { .. } => 1,
        StmtKind::Loop(l) => weight(&l.body),
        StmtKind::Reduce(r) => weight(&r.body),
        StmtKind::Guard(_, body) => weight(body),
        _ => 1,
    };
    block.iter().map(one).sum()
}

impl<'k> Nest<'k> {
    fn new(kernel: &'k Kernel, outside: &dyn Fn(ValueId) -> Outside, family: Family, lanes: u32) -> Nest<'k> {
        let values = (0..kernel.values.len() as u32).map(ValueId).map(|v| match outside(v) {
            Outside::Unknown => Val::Undefined,
            Outside::Const(c) => Val::Const(c),
            Outside::Scalar => Val::Outside(v),
        });
        Nest {
            kernel,
            family,
            lanes,
            code: Code::new(),
            pool: Pool::new(family, lanes),
            types: kernel.values.clone(),
            halves: FxHashMap::default(),
            values: values.collect(),
            vars: FxHashMap::default(),
            words: Vec::new(),
            running: None,
            compared: FxHashMap::default(),
            heavy: false,
            cache_bytes: crate::cpu::target::last_cache_bytes(),
            read_ahead: SmallVec::new(),
            streaming: SmallVec::new(),
            masks: Vec::new(),
            tiles: Vec::new(),
            unfit: false,
            too_narrow: false,
        }
    }

    fn root(
        &mut self,
        root: Root<'_>,
        (start, end): (Option<i64>, Option<i64>),
        most: Option<i64>,
    ) -> SmallVec<[ScalarType; 2]> {
        let range = (self.bound(start, Word::Start), self.bound(end, Word::End));
        let results = match root {
            Root::Loop(l) => {
                self.range_loop(l, range, most, false);
                SmallVec::new()
            }
            Root::Reduce(r) => {
                let results = self.reduce_range(r, range, most);
                let types: SmallVec<[ScalarType; 2]> = r.reducers.iter().flat_map(|x| x.types()).collect();
                for (n, (val, ty)) in results.into_iter().zip(&types).enumerate() {
                    let word = self.word(Word::Result(n));
                    self.store_result(&val, *ty, word);
                }
                types
            }
        };
        for flag in std::mem::take(&mut self.streaming) {
            self.code.push(Inst::new(Op::Fence, None, &[flag]));
        }
        results
    }

    fn bound(&mut self, known: Option<i64>, word: Word) -> Count {
        match known {
            Some(n) => Count::Const(n),
            None => Count::Reg(self.word_reg(word)),
        }
    }

    /// The position of a word in the frame.
    pub fn word(&mut self, word: Word) -> u32 {
        match self.words.iter().position(|w| *w == word) {
            Some(n) => n as u32,
            None => {
                self.words.push(word);
                self.words.len() as u32 - 1
            }
        }
    }

    /// A word in a general register.
    pub fn word_reg(&mut self, word: Word) -> Reg {
        let n = self.word(word);
        self.code.pure(Op::Word(n), Class::General, &[], None)
    }

    fn extent(&mut self, e: Extent) -> Count {
        match e {
            Extent::Const(n) => Count::Const(n as i64),
            Extent::Runtime(id) => Count::Reg(self.word_reg(Word::Extent(id))),
        }
    }

    pub fn count_reg(&mut self, c: Count) -> Reg {
        match c {
            Count::Const(n) => self.code.pure(Op::Set(n), Class::General, &[], None),
            Count::Reg(r) => r,
        }
    }

    fn add_count(&mut self, c: Count, n: i64) -> Count {
        match c {
            Count::Const(c) => Count::Const(c + n),
            Count::Reg(r) => Count::Reg(self.code.pure(Op::AddConst(n), Class::General, &[r], None)),
        }
    }

    fn least(&mut self, a: Count, b: Count) -> Count {
        if let (Count::Const(a), Count::Const(b)) = (a, b) {
            return Count::Const(a.min(b));
        }
        let (a, b) = (self.count_reg(a), self.count_reg(b));
        Count::Reg(self.code.pure(Op::Least, Class::General, &[a, b], None))
    }

    pub fn block(&mut self, block: &Block) {
        for s in block {
            if self.unfit || self.too_narrow {
                return;
            }
            self.statement(&s.kind);
        }
    }

    fn statement(&mut self, kind: &StmtKind) {
        match kind {
            StmtKind::Let(v, expr) => {
                if let Some(origin) = Origin::of(self.kernel, expr) {
                    self.halves.insert(*v, origin);
                }
                let temporaries = self.types.len();
                let val = self.expr(self.types[v.index()], expr);
                self.types.truncate(temporaries);
                self.values.truncate(temporaries);
                self.values[v.index()] = val;
                self.note_comparison(*v, expr);
            }
            StmtKind::Store { to, index, value, mask } => self.store(*to, index, *value, *mask),
            StmtKind::Loop(l) => {
                let end = self.extent(l.extent);
                let end = match &l.limit {
                    None => end,
                    Some(limit) => {
                        let limit = self.index_count(limit);
                        self.least(end, limit)
                    }
                };
                let most = l.extent.known().map(|n| n as i64);
                self.range_loop(l, (Count::Const(0), end), most, true);
            }
            StmtKind::Reduce(r) => {
                let end = r.vars.first().map_or(Count::Const(1), |v| self.extent(v.1));
                let results = self.reduce_range(r, (Count::Const(0), end), None);
                for (v, val) in r.results.iter().zip(results) {
                    self.values[v.index()] = val;
                }
            }
            StmtKind::Tile(t) => {
                self.unfit |= self.running.is_some();
                self.tiles.push(*t);
            }
            StmtKind::Guard(c, body) => self.guard(*c, body),
            StmtKind::Fill(..)
            | StmtKind::Dot(_)
            | StmtKind::Check { .. }
            | StmtKind::Bind { .. }
            | StmtKind::Barrier => self.unfit = true,
        }
    }

    fn guard(&mut self, c: ValueId, body: &Block) {
        let mask = self.values[c.index()].clone();
        self.masks.push(mask);
        self.block(body);
        self.masks.pop();
    }

    /// A loop that is no lane loop: its counter, and the body for each value.
    fn counted(
        &mut self,
        (start, end): (Count, Count),
        step: i64,
        may_skip: bool,
        body: &mut dyn FnMut(&mut Self, Reg),
    ) {
        let runs = matches!((start, end), (Count::Const(a), Count::Const(b)) if a < b);
        self.code.open(may_skip && !runs);
        let counter = self.counter(start);
        let (top, exit) = (self.code.label(), self.code.label());
        if !runs {
            self.branch(Condition::GreaterEqual, counter, end, exit);
        }
        self.code.push(Inst::new(Op::Label(top), None, &[]));
        body(self, counter);
        self.advance(counter, step);
        self.branch(Condition::Less, counter, end, top);
        self.code.push(Inst::new(Op::Label(exit), None, &[]));
        self.code.close();
    }

    fn counter(&mut self, start: Count) -> Reg {
        let counter = self.code.reg(Class::General, self.code.depth(), false);
        let inst = match start {
            Count::Const(c) => Inst::new(Op::Set(c), Some(counter), &[]),
            Count::Reg(r) => Inst::new(Op::Copy, Some(counter), &[r]),
        };
        self.code.push(inst);
        counter
    }

    fn advance(&mut self, counter: Reg, step: i64) {
        self.code.push(Inst::new(Op::AddConst(step), Some(counter), &[counter]));
    }

    fn branch(&mut self, condition: Condition, a: Reg, b: Count, to: super::code::Label) {
        let inst = match b {
            Count::Const(c) => {
                self.unfit |= i32::try_from(c).is_err();
                Inst::new(Op::Branch(condition, Some(c), to), None, &[a])
            }
            Count::Reg(b) => Inst::new(Op::Branch(condition, None, to), None, &[a, b]),
        };
        self.code.push(inst);
    }

    /// The iterations of a loop in a range. `may_skip`: it may be empty.
    fn range_loop(&mut self, l: &Loop, range: (Count, Count), most: Option<i64>, may_skip: bool) {
        self.unfit |= l.step != 1;
        if self.running.is_none()
            && let Some(turn) = Turn::of(self.kernel, l, self.family)
        {
            return self.turn(&turn);
        }
        if self.running.is_some() || l.axis.vector <= 1 {
            self.counted(range, 1, may_skip, &mut |e, counter| {
                e.vars.insert(l.var, counter);
                e.block(&l.body);
                e.vars.remove(&l.var);
            });
            return;
        }
        let parts = self.parts(weight(&l.body), known_length(range), most, &[(4, 4), (64, 2)]);
        self.lane_loop(l.var, range, parts, &mut |e| e.block(&l.body));
    }

    /// Vectors in flight, by the work of one; as many as divide a known length where that costs little.
    fn parts(&self, weight: u32, length: Option<i64>, most: Option<i64>, steps: &[(u32, u32)]) -> u32 {
        let mut parts = steps.iter().find(|(w, _)| weight <= *w).map_or(1, |s| s.1).min(MOST_PARTS);
        let lanes = i64::from(self.lanes);
        while parts > 1 && length.or(most).is_some_and(|n| n < i64::from(parts) * lanes) {
            parts /= 2;
        }
        if let Some(n) = length {
            let mut p = parts;
            while p > 1 && n % (i64::from(p) * lanes) >= lanes {
                p /= 2;
            }
            // Halving once is cheaper than a second stage of whole vectors.
            if 2 * p >= parts {
                parts = p;
            }
        }
        parts
    }

    /// A loop whose iterations are lanes, `parts` vectors at a time and then one at a time.
    fn lane_loop(&mut self, var: VarId, (start, end): (Count, Count), parts: u32, body: &mut dyn FnMut(&mut Self)) {
        let (lanes, group) = (i64::from(self.lanes), i64::from(self.lanes * parts));
        let length = known_length((start, end));
        let mut counter = None;
        if length.is_none_or(|n| n >= group) {
            let limit = self.add_count(end, 1 - group);
            self.code.open(length.is_none());
            let c = self.counter(start);
            counter = Some(c);
            let (top, exit) = (self.code.label(), self.code.label());
            if length.is_none() {
                self.branch(Condition::GreaterEqual, c, limit, exit);
            }
            self.code.push(Inst::new(Op::Label(top), None, &[]));
            self.lane_body(Lanes { var, parts, tail: None, length }, c, body);
            self.advance(c, group);
            self.branch(Condition::Less, c, limit, top);
            self.code.push(Inst::new(Op::Label(exit), None, &[]));
            self.code.close();
        }
        let rest = length.map(|n| n % group);
        if rest == Some(0) {
            return;
        }
        self.code.open(rest.is_none());
        let c = match counter {
            Some(c) => c,
            None => self.counter(start),
        };
        let (top, exit) = (self.code.label(), self.code.label());
        if rest.is_none() {
            self.branch(Condition::GreaterEqual, c, end, exit);
        }
        self.code.push(Inst::new(Op::Label(top), None, &[]));
        let tail = rest.is_none_or(|n| n % lanes != 0).then(|| self.tail_mask(c, end));
        self.lane_body(Lanes { var, parts: 1, tail, length }, c, body);
        self.advance(c, lanes);
        self.branch(Condition::Less, c, end, top);
        self.code.push(Inst::new(Op::Label(exit), None, &[]));
        self.code.close();
    }

    fn lane_body(&mut self, lanes: Lanes, counter: Reg, body: &mut dyn FnMut(&mut Self)) {
        self.running = Some(lanes);
        self.vars.insert(lanes.var, counter);
        body(self);
        self.vars.remove(&lanes.var);
        self.running = None;
    }

    /// The mask of the lanes from the counter to the end.
    fn tail_mask(&mut self, counter: Reg, end: Count) -> Reg {
        let end = self.count_reg(end);
        let left = self.code.pure(Op::Subtract, Class::General, &[end, counter], None);
        if self.family == Family::Avx512 {
            return self.code.pure(Op::Below, Class::Mask, &[left], None);
        }
        let bytes = self.lanes * 4;
        let lane = Vector::GeneralToLane;
        let low = self.code.pure(Op::Vector(lane, bytes), Class::Vector(bytes), &[left], None);
        let all = self.code.pure(Op::Vector(Vector::BroadcastLane32, bytes), Class::Vector(bytes), &[low], None);
        let numbers = self.lane_numbers(ScalarType::I32, 1);
        self.code.pure(Op::Vector(Vector::GreaterMaskI32, bytes), Class::Vector(bytes), &[all, numbers], None)
    }

    /// The number of each lane times a step.
    pub fn lane_numbers(&mut self, ty: ScalarType, step: i64) -> Reg {
        let size = ty.dtype().size() as u32;
        let number = |lane: u32| (i64::from(lane) * step).to_le_bytes()[..size as usize].to_vec();
        let bytes: Vec<u8> = (0..self.lanes).flat_map(number).collect();
        let offset = self.pool.vector(&bytes, 64);
        self.code.pure(Op::Table(offset), Class::Vector(self.lanes * size), &[], None)
    }

    /// Whether only what certainly exists may be read: loads under the lanes' mask.
    pub fn masking(&self, mask: Option<Reg>) -> Masking {
        mask.map_or(Masking::All, Masking::Zero)
    }

    pub fn temporary(&mut self, ty: ScalarType, val: Val) -> ValueId {
        self.types.push(ty);
        self.values.push(val);
        ValueId(self.types.len() as u32 - 1)
    }
}

fn known_length((start, end): (Count, Count)) -> Option<i64> {
    match (start, end) {
        (Count::Const(a), Count::Const(b)) => Some((b - a).max(0)),
        _ => None,
    }
}
