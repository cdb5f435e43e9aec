//! The Kernel IR: a tree of loops over SSA statements, shared by every back end.
//!
//! A [`Kernel`] reads and writes buffer parameters through *logical* indices; where an element lies is the parameter's own
//! affair (one stride a dim, constant or given at run time; the pointer passed already includes the view's offset). Values
//! are scalars in SSA form, numbered in one arena. `lower` makes kernels free of schedule; `schedule` sets [`Axis`]
//! attributes, splits and merges loops; the emitters and the evaluator read the same tree.
//!
//! Meaning, in order of statements:
//!
//! - [`Loop`]: the body for each value of its variable below `extent` (and below `limit`), in any order where the axis is
//!   bound to threads, and counting by `step`.
//! - [`Reduce`]: the body for every combination of its variables; what it yields is combined by [`Reducer`]s from their
//!   identities. Emitters may keep several accumulators and combine them; the order is fixed by shape and axis alone.
//!   A reduce that is the whole body and whose axis is [`Binding::Parallel`], or the grid's, is cut into chunks of `chunk`
//!   iterations of its first variable; their partial results are combined pairwise in chunk order, and `finish` sees the results.
//!   Of a reduce of several variables that threads share, they share all elements together.
//! - [`StmtKind::Tile`]: declares local memory, undefined until written. [`Dot`] adds a contraction to a tile.
//! - A masked load whose mask is false reads nothing and gives zero; a masked store writes nothing.
//!
//! `finish` runs once, after all of the body.

use crate::kernel_walk::for_each_statement;
use crate::{BinaryOp, CompareOp, DType, DimVec, ExtentId, Index, Literal, Sources, UnaryOp, VarId};
use smallvec::SmallVec;

pub use crate::emit::Emit;
pub use crate::reducer::Reducer;

/// The type of a scalar value in a kernel.
///
/// A half is an `f32` that the half's type can hold: loads widen, stores narrow, to buffers and tiles of halves alike, and
/// [`MachineOp::RoundF16`] or [`MachineOp::RoundBF16`] stands after each operation whose result is a half. Constants of
/// kernels are never halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScalarType {
    /// A truth value.
    Bool,
    /// An unsigned 8-bit integer; wraps.
    U8,
    /// A 32-bit integer; wraps.
    I32,
    /// A 64-bit integer; wraps.
    I64,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl ScalarType {
    /// Every type.
    pub const ALL: [ScalarType; 6] =
        [ScalarType::Bool, ScalarType::U8, ScalarType::I32, ScalarType::I64, ScalarType::F32, ScalarType::F64];

    /// The name in text.
    pub fn name(self) -> &'static str {
        self.dtype().name()
    }

    /// The type of this name.
    pub fn parse(name: &str) -> Option<ScalarType> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The dtype that has exactly these values.
    pub fn dtype(self) -> DType {
        match self {
            ScalarType::Bool => DType::Bool,
            ScalarType::U8 => DType::U8,
            ScalarType::I32 => DType::I32,
            ScalarType::I64 => DType::I64,
            ScalarType::F32 => DType::F32,
            ScalarType::F64 => DType::F64,
        }
    }

    /// Whether values are floats.
    pub fn is_float(self) -> bool {
        self.dtype().is_float()
    }
}

impl From<DType> for ScalarType {
    fn from(d: DType) -> ScalarType {
        match d {
            DType::Bool => ScalarType::Bool,
            DType::U8 => ScalarType::U8,
            DType::I32 => ScalarType::I32,
            DType::I64 => ScalarType::I64,
            DType::F16 | DType::BF16 | DType::F32 => ScalarType::F32,
            DType::F64 => ScalarType::F64,
        }
    }
}

impl Literal {
    /// The type of the value in a kernel.
    pub fn scalar_type(self) -> ScalarType {
        self.dtype().into()
    }

    /// The value as kernels hold it: halves become `f32`.
    pub fn in_kernel(self) -> Literal {
        self.cast(self.scalar_type().dtype())
    }
}

macro_rules! entity {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// Its position in the kernel's list.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

entity!(
    /// A scalar SSA value.
    ValueId,
    /// A buffer parameter.
    ParamId,
    /// A run-time scalar parameter.
    ScalarId,
    /// A tile.
    TileId
);

/// An extent: constant, or given at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// A constant.
    Const(u64),
    /// Given at run time.
    Runtime(ExtentId),
}

impl Extent {
    /// The extent as an index.
    pub fn index(self) -> Index {
        match self {
            Extent::Const(n) => Index::constant(n as i64),
            Extent::Runtime(e) => Index::extent(e),
        }
    }

    /// The constant, where it is one.
    pub fn known(self) -> Option<u64> {
        match self {
            Extent::Const(n) => Some(n),
            Extent::Runtime(_) => None,
        }
    }
}

/// The distance, in elements, between neighbours along a dim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stride {
    /// A constant; 0 is a broadcast dim.
    Const(i64),
    /// Given at run time, neither 0 nor 1.
    Runtime,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Loads only.
    Read,
    /// Stores only. (`mut` in text.)
    Write,
    /// Loads and stores: what one iteration stores, later ones of a serial loop see. (`inout` in text.)
    ReadWrite,
}

/// A buffer parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Param {
    /// The name in text, without `%`.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The logical extents.
    pub dims: DimVec<Extent>,
    /// A stride for each dim.
    pub strides: DimVec<Stride>,
    /// Read or written.
    pub access: Access,
}

/// A run-time scalar parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScalarParam {
    /// The name in text, without `%`.
    pub name: String,
    /// Its dtype.
    pub dtype: DType,
}

/// Who shares a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One thread, in registers: every index must be constant after unrolling.
    Register,
    /// One thread, in memory.
    Thread,
    /// The threads of a block.
    Block,
}

impl Scope {
    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Register => "register",
            Scope::Thread => "thread",
            Scope::Block => "block",
        }
    }
}

/// Local memory of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// The name in text, without `%`.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The constant extents.
    pub dims: DimVec<u64>,
    /// How much of each dim is valid, where that is less at an edge: `min(dim, limit)`. `None`: all of it.
    pub valid: DimVec<Option<Index>>,
    /// Who shares it.
    pub scope: Scope,
}

/// Where a load reads or a store writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// A buffer parameter.
    Param(ParamId),
    /// A tile.
    Tile(TileId),
}

/// Scalar operations that exist in kernels only, for expansions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineOp {
    /// `a * b + c` on floats, rounded once.
    Fma,
    /// `a * 2^b` on floats, rounded once; `b` is a whole number up to twice the largest exponent, or NaN where `a` is. Below twice the
    /// smallest one of a normal number the result is 0.
    Scale,
    /// The bits of a float as an integer as wide.
    Bits,
    /// The float of these bits.
    OfBits,
    /// Shift left; the count, operand 1, is a constant below the width.
    ShiftLeft,
    /// Arithmetic shift right; the count is a constant below the width.
    ShiftRight,
    /// Logical shift right; the count is a constant below the width.
    ShiftRightLogical,
    /// An `f32` rounded to what an `f16` holds.
    RoundF16,
    /// An `f32` rounded to what a `bf16` holds.
    RoundBF16,
}

impl MachineOp {
    /// Every such operation.
    pub const ALL: &'static [MachineOp] = &[
        MachineOp::Fma,
        MachineOp::Scale,
        MachineOp::Bits,
        MachineOp::OfBits,
        MachineOp::ShiftLeft,
        MachineOp::ShiftRight,
        MachineOp::ShiftRightLogical,
        MachineOp::RoundF16,
        MachineOp::RoundBF16,
    ];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            MachineOp::Fma => "fma",
            MachineOp::Scale => "scale",
            MachineOp::Bits => "bits",
            MachineOp::OfBits => "of_bits",
            MachineOp::ShiftLeft => "shl",
            MachineOp::ShiftRight => "shr",
            MachineOp::ShiftRightLogical => "ushr",
            MachineOp::RoundF16 => "round_f16",
            MachineOp::RoundBF16 => "round_bf16",
        }
    }

    /// The number of operands.
    pub fn arity(self) -> usize {
        match self {
            MachineOp::Fma => 3,
            MachineOp::Bits | MachineOp::OfBits | MachineOp::RoundF16 | MachineOp::RoundBF16 => 1,
            MachineOp::Scale | MachineOp::ShiftLeft | MachineOp::ShiftRight | MachineOp::ShiftRightLogical => 2,
        }
    }

    /// The type of the result, given that of the first operand.
    pub fn result(self, operand: ScalarType) -> ScalarType {
        match (self, operand) {
            (MachineOp::Bits, ScalarType::F64) => ScalarType::I64,
            (MachineOp::Bits, _) => ScalarType::I32,
            (MachineOp::OfBits, ScalarType::I64) => ScalarType::F64,
            (MachineOp::OfBits, _) => ScalarType::F32,
            (MachineOp::Fma | MachineOp::Scale | MachineOp::RoundF16 | MachineOp::RoundBF16, of) => of,
            (MachineOp::ShiftLeft | MachineOp::ShiftRight | MachineOp::ShiftRightLogical, of) => of,
        }
    }
}

/// How a value is computed. The result's type stands in the kernel's arena.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A constant.
    Const(Literal),
    /// A run-time scalar.
    Scalar(ScalarId),
    /// An index, as `i64`.
    Index(Index),
    /// An element.
    Load {
        /// From where.
        from: Memory,
        /// The logical index.
        index: Vec<Index>,
        /// Reads only where true; gives zero elsewhere, and the index may then be out of range.
        mask: Option<ValueId>,
    },
    /// An elementwise operation of the Graph IR. Until `expand` has run, any; after it, native ones only.
    Unary(UnaryOp, ValueId),
    /// An elementwise operation of the Graph IR.
    Binary(BinaryOp, ValueId, ValueId),
    /// A comparison.
    Compare(CompareOp, ValueId, ValueId),
    /// `c ? a : b`.
    Select(ValueId, ValueId, ValueId),
    /// Conversion to the result's type, by the meaning of the graph's `cast`; between integers by sign extension or
    /// truncation.
    Convert(ValueId),
    /// An operation of expansions.
    Machine(MachineOp, SmallVec<[ValueId; 3]>),
    /// The uniform number of one element of a draw (see `Op::Random`): seed, draw number, element number, all `i64`.
    /// Until `expand` has run.
    Random(ValueId, ValueId, ValueId),
}

impl Expr {
    /// Calls `f` with each operand.
    pub fn for_each_operand(&self, f: &mut dyn FnMut(ValueId)) {
        match self {
            Expr::Const(_) | Expr::Scalar(_) | Expr::Index(_) => {}
            Expr::Load { mask, .. } => mask.iter().copied().for_each(f),
            Expr::Unary(_, a) | Expr::Convert(a) => f(*a),
            Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => {
                f(*a);
                f(*b);
            }
            Expr::Select(a, b, c) | Expr::Random(a, b, c) => {
                f(*a);
                f(*b);
                f(*c);
            }
            Expr::Machine(_, operands) => operands.iter().copied().for_each(f),
        }
    }

    /// The expression with operands replaced.
    #[must_use]
    pub fn map_operands(&self, f: &mut dyn FnMut(ValueId) -> ValueId) -> Expr {
        match self {
            Expr::Const(_) | Expr::Scalar(_) | Expr::Index(_) => self.clone(),
            Expr::Load { from, index, mask } => Expr::Load { from: *from, index: index.clone(), mask: mask.map(f) },
            Expr::Unary(op, a) => Expr::Unary(*op, f(*a)),
            Expr::Convert(a) => Expr::Convert(f(*a)),
            Expr::Binary(op, a, b) => Expr::Binary(*op, f(*a), f(*b)),
            Expr::Compare(op, a, b) => Expr::Compare(*op, f(*a), f(*b)),
            Expr::Select(a, b, c) => Expr::Select(f(*a), f(*b), f(*c)),
            Expr::Random(a, b, c) => Expr::Random(f(*a), f(*b), f(*c)),
            Expr::Machine(op, operands) => Expr::Machine(*op, operands.iter().map(|v| f(*v)).collect()),
        }
    }
}

/// What runs the iterations of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Binding {
    /// One after the other.
    #[default]
    Serial,
    /// The CPU's threads. The perfect nest of parallel loops at the root of a kernel is one space of iterations.
    Parallel,
    /// The grid's axis 0, 1 or 2.
    Grid(u8),
    /// The threads of a block.
    Block,
    /// The warps of a block.
    Warp,
    /// The lanes of a warp.
    Lane,
}

impl Binding {
    /// Every binding.
    pub const ALL: &'static [Binding] = &[
        Binding::Serial,
        Binding::Parallel,
        Binding::Grid(0),
        Binding::Grid(1),
        Binding::Grid(2),
        Binding::Block,
        Binding::Warp,
        Binding::Lane,
    ];

    /// The name in text; nothing for `Serial`.
    pub fn name(self) -> &'static str {
        match self {
            Binding::Serial => "",
            Binding::Parallel => "parallel",
            Binding::Grid(0) => "grid.x",
            Binding::Grid(1) => "grid.y",
            Binding::Grid(_) => "grid.z",
            Binding::Block => "block",
            Binding::Warp => "warp",
            Binding::Lane => "lane",
        }
    }
}

/// The schedule of a loop, as attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// What runs the iterations.
    pub binding: Binding,
    /// Iterations that run as lanes of one vector; 1 is scalar. Loops inside a vector loop run all its lanes together.
    pub vector: u32,
    /// Vectors (or iterations) in flight: bodies of a loop, accumulators of a reduce.
    pub unroll: u32,
}

impl Default for Axis {
    fn default() -> Axis {
        Axis { binding: Binding::Serial, vector: 1, unroll: 1 }
    }
}

/// A loop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// Its variable, unique in the kernel.
    pub var: VarId,
    /// Where it ends.
    pub extent: Extent,
    /// The distance between values of the variable; more than 1 for panels.
    pub step: u64,
    /// A second end: the loop also stops at this index. For the edges of tiles.
    pub limit: Option<Index>,
    /// Its schedule.
    pub axis: Axis,
    /// What runs.
    pub body: Block,
}

/// A reduction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// Its variables and extents, outermost first.
    pub vars: SmallVec<[(VarId, Extent); 2]>,
    /// What combines the yielded values; several where reductions share one loop.
    pub reducers: SmallVec<[Reducer; 1]>,
    /// Its schedule. `vector` is of the last variable, `binding` of the first.
    pub axis: Axis,
    /// Where `binding` is parallel or the grid's: iterations of the first variable a partial result.
    pub chunk: u64,
    /// What runs for each element.
    pub body: Block,
    /// What each element gives: the reducers' types, in order.
    pub yields: SmallVec<[ValueId; 2]>,
    /// The results, in the same order.
    pub results: SmallVec<[ValueId; 2]>,
}

/// An operand of a [`Dot`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DotOperand {
    /// Where it lies.
    pub memory: Memory,
    /// The index of the element at rows, columns and contraction variables of the dot: affine in them.
    pub index: Vec<Index>,
}

/// `acc[row, column] += sum over k of a * b`, for all rows and columns of the (valid part of the) tile.
///
/// Both operands lie in memory of the accumulator's dtype; or both of `bf16`, where the accumulator is `f32`. Products of `bf16`
/// are exact in `f32` and so are rounded by the sum alone, but subnormal operands and sums may count as zeros: that is
/// what machines do that multiply matrices of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dot {
    /// The accumulator, of rank 2.
    pub acc: TileId,
    /// The variable that counts the tile's rows.
    pub row: VarId,
    /// The variable that counts the tile's columns.
    pub column: VarId,
    /// The contraction's variables and extents.
    pub contract: SmallVec<[(VarId, Extent); 1]>,
    /// Where the contraction ends, if that is before its extent: rows of a panel that runs beyond a dim. There is one variable then.
    pub limit: Option<Index>,
    /// The left operand: depends on rows and contraction.
    pub a: DotOperand,
    /// The right operand: depends on contraction and columns.
    pub b: DotOperand,
    /// Elements of the contraction that are staged at a time (a GPU's shared memory); 0: the back end's choice.
    pub chunk: u64,
}

/// Statements in order.
pub type Block = Vec<Stmt>;

/// A statement, and the user's source lines it stands for.
#[derive(Clone, Debug)]
pub struct Stmt {
    /// What it does.
    pub kind: StmtKind,
    /// For whom. Outside equality and hashing: identical kernels from different lines are one.
    pub sources: Sources,
}

impl PartialEq for Stmt {
    fn eq(&self, other: &Stmt) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Stmt {}

impl std::hash::Hash for Stmt {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

impl From<StmtKind> for Stmt {
    fn from(kind: StmtKind) -> Stmt {
        Stmt { kind, sources: Sources::none() }
    }
}

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StmtKind {
    /// Defines a value.
    Let(ValueId, Expr),
    /// Writes an element.
    Store {
        /// Where to.
        to: Memory,
        /// The logical index.
        index: Vec<Index>,
        /// The value.
        value: ValueId,
        /// Writes only where true.
        mask: Option<ValueId>,
    },
    /// Declares a tile; what it held before is gone.
    Tile(TileId),
    /// Sets every element of a tile.
    Fill(TileId, Literal),
    /// A loop.
    Loop(Loop),
    /// A reduction.
    Reduce(Reduce),
    /// A contraction.
    Dot(Dot),
    /// Runs the body where the value is true.
    Guard(ValueId, Block),
    /// Notes a failure at a site, with the offending `i64`, where the first value is false. The kernel goes on.
    Check {
        /// Holds.
        ok: ValueId,
        /// Which check of the kernel this is; each call of the kernel says what it stands for.
        site: u32,
        /// The value to report.
        value: ValueId,
        /// The linear index of the element: the failure of lowest index is reported.
        at: Index,
    },
    /// Defines an index variable from an `i64`, clamped into `0..extent`: loads and stores that follow in this block (and
    /// inside it) may be indexed by data.
    Bind {
        /// The variable, unique in the kernel as those of loops are.
        var: VarId,
        /// Its value.
        value: ValueId,
        /// What it stays below.
        extent: Extent,
    },
    /// All threads of a block meet.
    Barrier,
}

/// A kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The name, for people: not part of the kernel's identity.
    pub name: String,
    /// The buffers.
    pub params: Vec<Param>,
    /// The names of the run-time extents.
    pub extents: Vec<String>,
    /// The run-time scalars.
    pub scalars: Vec<ScalarParam>,
    /// The names of the loop variables.
    pub vars: Vec<String>,
    /// The types of the values.
    pub values: Vec<ScalarType>,
    /// The tiles.
    pub tiles: Vec<Tile>,
    /// What runs.
    pub body: Block,
    /// What runs once, after all of the body. It sees the results of the body's parallel reduce, where there is one.
    pub finish: Block,
    /// The user's source lines.
    pub sources: Sources,
}

impl Kernel {
    /// An empty kernel.
    pub fn new(name: impl Into<String>) -> Kernel {
        Kernel {
            name: name.into(),
            params: Vec::new(),
            extents: Vec::new(),
            scalars: Vec::new(),
            vars: Vec::new(),
            values: Vec::new(),
            tiles: Vec::new(),
            body: Block::new(),
            finish: Block::new(),
            sources: Sources::none(),
        }
    }

    /// A new value of a type.
    pub fn new_value(&mut self, ty: ScalarType) -> ValueId {
        self.values.push(ty);
        ValueId(self.values.len() as u32 - 1)
    }

    /// A new loop variable.
    pub fn new_var(&mut self, name: impl Into<String>) -> VarId {
        self.vars.push(name.into());
        VarId(self.vars.len() as u32 - 1)
    }

    /// The lanes of its widest vector loop or reduction; 1 where all of it is scalar.
    pub fn lanes(&self) -> u32 {
        let mut widest = 1;
        for block in [&self.body, &self.finish] {
            for_each_statement(block, &mut |kind| match kind {
                StmtKind::Loop(l) => widest = widest.max(l.axis.vector),
                StmtKind::Reduce(r) => widest = widest.max(r.axis.vector),
                _ => {}
            });
        }
        widest
    }

    /// The loops and the reduce that form the kernel's *parallel space*, outermost first: the perfect nest of parallel loops
    /// that is the whole body, or the parallel reduce that is. Empty where the kernel runs on one thread.
    pub fn parallel_space(&self) -> SmallVec<[(VarId, Extent, u64); 3]> {
        let mut space = SmallVec::new();
        let mut block = &self.body;
        while let [Stmt { kind, .. }] = block.as_slice() {
            match kind {
                StmtKind::Loop(l) if l.axis.binding == Binding::Parallel => {
                    space.push((l.var, l.extent, l.step));
                    block = &l.body;
                }
                StmtKind::Reduce(r) if r.axis.binding == Binding::Parallel && space.is_empty() => {
                    space.extend(r.vars.first().map(|&(v, e)| (v, e, r.chunk)));
                    break;
                }
                _ => break,
            }
        }
        space
    }
}

/// Two kernels are equal where they do the same: names of loop variables, of the kernel and source lines do not count.
impl PartialEq for Kernel {
    fn eq(&self, other: &Kernel) -> bool {
        self.params.len() == other.params.len()
            && self
                .params
                .iter()
                .zip(&other.params)
                .all(|(a, b)| (a.dtype, &a.dims, &a.strides, a.access) == (b.dtype, &b.dims, &b.strides, b.access))
            && self.extents.len() == other.extents.len()
            && self.scalars.iter().map(|s| s.dtype).eq(other.scalars.iter().map(|s| s.dtype))
            && self.values == other.values
            && self.tiles.len() == other.tiles.len()
            && self
                .tiles
                .iter()
                .zip(&other.tiles)
                .all(|(a, b)| (a.dtype, &a.dims, &a.valid, a.scope) == (b.dtype, &b.dims, &b.valid, b.scope))
            && self.body == other.body
            && self.finish == other.finish
    }
}

impl Eq for Kernel {}

impl std::hash::Hash for Kernel {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for p in &self.params {
            (p.dtype, &p.dims, &p.strides, p.access).hash(state);
        }
        self.values.hash(state);
        self.body.hash(state);
        self.finish.hash(state);
    }
}
