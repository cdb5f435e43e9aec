//! Kernel IR to Cranelift IR.
//!
//! One function is emitted straight into Cranelift's data flow graph, block after block. A kernel value is either *uniform*
//! (one scalar for all lanes: it stays scalar) or *varying* (a vector a part in flight). Code that does not change in a
//! vector loop is put into the block before it, which therefore stays open until the loop is finished: constants and
//! splats by hand, all pure arithmetic by Cranelift's own loop-invariant code motion.
//!
//! - `value`: kernel values as Cranelift values, constants, splats.
//! - `operation`: arithmetic.
//! - `conversion`: from type to type.
//! - `address`: where elements lie.
//! - `memory`: loads and stores.
//! - `nest`: loops, and the parallel space.
//! - `reduction`: accumulators.
//! - `contraction`: calls of the matrix multiplication.
//! - `strip`: calls of wide strips.

mod address;
mod contraction;
mod conversion;
mod memory;
mod nest;
mod operation;
mod reduction;
#[cfg(target_arch = "x86_64")]
mod strip;
mod value;

use super::abi::{self, Callee};
use super::code::Vectors;
use crate::arguments::Words;
use cranelift_codegen::ir::{
    AbiParam, AliasRegionData, Block, BlockArg, DataFlowGraph, Function, InsertBuilder, Inst, InstBuilder,
    InstInserterBase, MemFlagsData, Signature, StackSlot, Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::CallConv;
use lazuli_ir::half_code::{Half, Origin};
use lazuli_ir::kernel::{Block as Body, Emit, Expr, Kernel, ScalarType, StmtKind, TileId, ValueId};
use lazuli_ir::{Error, Literal, Result, VarId};
use nest::Frame;
pub(super) use reduction::partial_words;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use value::{Bound, Mode, Region, Val, Var};

/// What is known of the machine while emitting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub call_conv: CallConv,
    pub x86: bool,
    /// Fused multiply-add is an instruction.
    pub fma: bool,
    /// Rounding to integers is.
    pub rounds: bool,
    /// The vectors that code is made for; strips have them where they are wider than Cranelift's.
    pub vectors: Vectors,
    /// Strips are wanted as text too.
    #[cfg(target_arch = "x86_64")]
    pub list: bool,
}

/// The vector constants of a kernel; the first bytes are zeros, which masked loads read instead of what is out of range.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    words: Vec<[u32; 4]>,
    known: FxHashMap<[u32; 4], i32>,
    strips: Vec<PlacedStrip>,
}

/// A strip that belongs to a kernel.
#[derive(Debug)]
pub(crate) struct PlacedStrip {
    /// Its constants and code.
    pub bytes: Vec<u8>,
    /// Where in them its function starts.
    pub entry: usize,
    /// Where in the kernel's constants its address stands.
    pub slot: usize,
    /// Its instructions as text, where asked for.
    pub listing: String,
}

/// Vectors of zeros at the start of every pool.
const ZERO_VECTORS: usize = 64;

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool { words: vec![[0; 4]; ZERO_VECTORS], ..Pool::default() }
    }

    fn offset(&mut self, lanes: [u32; 4]) -> i32 {
        let words = &mut self.words;
        *self.known.entry(lanes).or_insert_with(|| {
            words.push(lanes);
            (words.len() as i32 - 1) * 16
        })
    }

    /// The offset of the address of a strip.
    #[cfg(target_arch = "x86_64")]
    fn strip(&mut self, bytes: Vec<u8>, entry: usize, listing: String) -> i32 {
        if let Some(same) = self.strips.iter().find(|s| s.bytes == bytes) {
            return same.slot as i32;
        }
        self.words.push([0; 4]);
        let slot = (self.words.len() - 1) * 16;
        self.strips.push(PlacedStrip { bytes, entry, slot, listing });
        slot as i32
    }

    /// The constants, and the strips whose addresses belong among them.
    pub(crate) fn finish(self) -> (Vec<[u32; 4]>, Vec<PlacedStrip>) {
        (self.words, self.strips)
    }
}

/// What of a kernel is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Iterations of the parallel space.
    Body,
    /// The combination of partials, and the `finish` block.
    Finish,
}

/// Alias regions: what is read, what is written, and what never changes do not overlap.
#[derive(Clone, Copy, Debug)]
struct Flags {
    read: MemFlagsData,
    write: MemFlagsData,
    tile: MemFlagsData,
    fixed: MemFlagsData,
    table: MemFlagsData,
}

pub(crate) struct Emitter<'k> {
    kernel: &'k Kernel,
    machine: Machine,
    /// A tile that holds zeros as far as the kernel can tell, and was not written.
    zeros: Option<TileId>,
    pool: &'k mut Pool,
    func: Function,
    at: Block,
    flags: Flags,
    types: Vec<ScalarType>,
    values: Vec<Bound>,
    vars: Vec<Option<Var>>,
    frames: Vec<Frame>,
    mode: Mode,
    region: Option<Region>,
    regions: u32,
    mask: Option<Val>,
    /// The variable whose values run together.
    lane_var: Option<VarId>,
    /// What a half holds, and of which type: a store to that type need not round again.
    halves: FxHashMap<ValueId, (Half, Origin)>,
    /// Inside a strip, its scalar tail included, where an inner reduce must add in the order of the lanes.
    inside_strip: bool,
    ranges: Vec<(i64, i64)>,
    tiles: Vec<Option<Value>>,
    /// What tiles of one number hold, while a loop keeps it in a register.
    kept: Vec<Option<Value>>,
    scratch_bytes: usize,
    stack_bytes: usize,
    /// Where stores go that must not happen.
    spare: Option<StackSlot>,
    table: Value,
    scratch: Value,
    begin: Value,
    end: Value,
    functions: Value,
    constants: Value,
    partials: Value,
    status: Value,
    params: Vec<Value>,
    strides: Vec<SmallVec<[Option<Value>; 4]>>,
    extents: Vec<Value>,
    scalars: Vec<Value>,
    error: Option<Error>,
}

/// An emitted function, and the bytes of scratch memory it uses.
pub(crate) struct Emitted {
    pub func: Function,
    pub scratch_bytes: usize,
}

/// Emits one entry of a kernel.
pub(crate) fn emit(kernel: &Kernel, part: Part, machine: Machine, pool: &mut Pool, name: u32) -> Result<Emitted> {
    let mut e = Emitter::new(kernel, machine, pool, name);
    match part {
        Part::Body => e.root()?,
        Part::Finish => {
            e.combine_partials()?;
            e.block(&kernel.finish)?;
        }
    }
    e.ins().return_(&[]);
    match e.error {
        Some(error) => Err(error),
        None => Ok(Emitted { func: e.func, scratch_bytes: e.scratch_bytes }),
    }
}

impl<'k> Emitter<'k> {
    fn new(kernel: &'k Kernel, machine: Machine, pool: &'k mut Pool, name: u32) -> Emitter<'k> {
        let mut signature = Signature::new(machine.call_conv);
        signature.params.extend([AbiParam::new(types::I64); 4]);
        let mut func = Function::with_name_signature(UserFuncName::user(0, name), signature);
        let mut region = |id: u32, name: &'static str| {
            let region = func.dfg.alias_regions.insert(AliasRegionData { user_id: id, description: name.into() });
            MemFlagsData::new().with_notrap().with_alias_region(Some(region))
        };
        let flags = Flags {
            read: region(0, "read"),
            write: region(1, "written"),
            tile: region(2, "tile"),
            fixed: region(3, "fixed").with_aligned(),
            // What of the table is not used goes away again.
            table: region(4, "table").with_aligned().with_readonly().with_can_move(),
        };
        let at = func.dfg.make_block();
        let entry: SmallVec<[Value; 4]> = (0..4).map(|_| func.dfg.append_block_param(at, types::I64)).collect();
        func.layout.append_block(at);
        let nothing = entry[0];
        let mut e = Emitter {
            kernel,
            machine,
            zeros: None,
            pool,
            func,
            at,
            flags,
            types: kernel.values.clone(),
            values: vec![Bound::default(); kernel.values.len()],
            vars: vec![None; kernel.vars.len()],
            frames: Vec::new(),
            mode: Mode::SCALAR,
            region: None,
            regions: 0,
            mask: None,
            lane_var: None,
            halves: FxHashMap::default(),
            inside_strip: false,
            ranges: vec![(0, i64::from(i32::MAX)); kernel.vars.len()],
            tiles: vec![None; kernel.tiles.len()],
            kept: vec![None; kernel.tiles.len()],
            scratch_bytes: 0,
            stack_bytes: 0,
            spare: None,
            table: entry[0],
            scratch: entry[1],
            begin: entry[2],
            end: entry[3],
            functions: nothing,
            constants: nothing,
            partials: nothing,
            status: nothing,
            params: Vec::new(),
            strides: Vec::new(),
            extents: Vec::new(),
            scalars: Vec::new(),
            error: None,
        };
        e.read_table();
        e
    }

    /// Loads everything the table holds; what is not used goes away again.
    fn read_table(&mut self) {
        let (kernel, words) = (self.kernel, Words::of(self.kernel, abi::PARAMS));
        self.functions = self.word(abi::FUNCTIONS);
        self.constants = self.word(abi::CONSTANTS);
        self.partials = self.word(abi::PARTIALS);
        self.status = self.word(abi::STATUS);
        self.params = (0..kernel.params.len()).map(|i| self.word(abi::PARAMS + i)).collect();
        let mut next = words.strides;
        for p in &kernel.params {
            let mut strides = SmallVec::new();
            for s in &p.strides {
                strides.push(match s {
                    lazuli_ir::kernel::Stride::Const(_) => None,
                    lazuli_ir::kernel::Stride::Runtime => {
                        next += 1;
                        Some(self.word(next - 1))
                    }
                });
            }
            self.strides.push(strides);
        }
        self.extents = (0..kernel.extents.len()).map(|i| self.word(words.extents + i)).collect();
        for (i, s) in kernel.scalars.iter().enumerate() {
            let ty = value::scalar_type(s.dtype.into());
            let (flags, table, offset) = (self.flags.table, self.table, ((words.scalars + i) * 8) as i32);
            let v = self.ins().load(ty, flags, table, offset);
            self.scalars.push(v);
        }
    }

    fn word(&mut self, n: usize) -> Value {
        let (flags, table) = (self.flags.table, self.table);
        self.ins().load(types::I64, flags, table, (n * 8) as i32)
    }

    /// Appends to the current block.
    fn ins(&mut self) -> InsertBuilder<'_, Bottom<'_>> {
        let block = self.at;
        self.ins_at(block)
    }

    /// Appends to a block.
    fn ins_at(&mut self, block: Block) -> InsertBuilder<'_, Bottom<'_>> {
        InsertBuilder::new(Bottom { func: &mut self.func, block })
    }

    fn new_block(&mut self) -> Block {
        self.func.dfg.make_block()
    }

    /// Continues in a block.
    fn enter(&mut self, block: Block) {
        self.func.layout.append_block(block);
        self.at = block;
    }

    fn jump(&mut self, to: Block, args: &[Value]) {
        let args = block_args(args);
        self.ins().jump(to, &args);
    }

    fn branch(&mut self, c: Value, yes: Block, yes_args: &[Value], no: Block, no_args: &[Value]) {
        let (yes_args, no_args) = (block_args(yes_args), block_args(no_args));
        self.ins().brif(c, yes, &yes_args, no, &no_args);
    }

    fn int(&mut self, v: i64) -> Value {
        self.ins().iconst(types::I64, v)
    }

    /// Calls a function of the runtime.
    fn call(&mut self, callee: Callee, args: &[Value]) {
        self.call_inst(callee, &[], args);
    }

    /// Calls a function of the runtime that gives a value.
    fn call_for(&mut self, callee: Callee, result: Type, args: &[Value]) -> Result<Value> {
        let call = self.call_inst(callee, &[result], args);
        self.func.dfg.inst_results(call).first().copied().ok_or_else(|| Error::internal("a call without a result"))
    }

    fn call_inst(&mut self, callee: Callee, results: &[Type], args: &[Value]) -> Inst {
        let mut signature = Signature::new(self.machine.call_conv);
        signature.params.extend(args.iter().map(|v| AbiParam::new(self.func.dfg.value_type(*v))));
        signature.returns.extend(results.iter().map(|ty| AbiParam::new(*ty)));
        let signature = self.func.import_signature(signature);
        let (flags, functions) = (self.flags.fixed, self.functions);
        let target = self.ins().load(types::I64, flags, functions, callee.offset());
        self.ins().call_indirect(signature, target, args)
    }

    /// Emits statements in order. What a bound variable masks off, it does until the end of the block.
    fn block(&mut self, body: &Body) -> Result<()> {
        let mask = self.mask.clone();
        for (n, stmt) in body.iter().enumerate() {
            match &stmt.kind {
                // A contraction that is the first to touch a tile of zeros writes it instead.
                StmtKind::Fill(t, c) if c.bits() == 0 && self.is_written_by_dot(*t, &body[n + 1..]) => {
                    self.zeros = Some(*t);
                }
                kind => self.statement(kind)?,
            }
        }
        self.mask = mask;
        Ok(())
    }

    fn statement(&mut self, kind: &StmtKind) -> Result<()> {
        match kind {
            StmtKind::Let(v, expr) => {
                if let Some(origin) = Origin::of(self.kernel, expr) {
                    self.halves.insert(*v, origin);
                }
                let ty = self.types[v.index()];
                let temporaries = self.types.len();
                let val = self.expr(ty, expr)?;
                self.types.truncate(temporaries);
                self.values.truncate(temporaries);
                self.bind(*v, val);
                match self.error.take() {
                    Some(error) => Err(error),
                    None => Ok(()),
                }
            }
            StmtKind::Store { to, index, value, mask } => self.store(*to, index, *value, *mask),
            StmtKind::Tile(t) => self.declare_tile(*t),
            StmtKind::Fill(t, c) => self.fill(*t, *c),
            StmtKind::Loop(l) => self.serial_loop(l),
            StmtKind::Reduce(r) => self.reduce(r),
            StmtKind::Dot(d) => self.dot(d),
            StmtKind::Guard(c, body) => self.guard(*c, body),
            StmtKind::Check { ok, site, value, at } => self.check(*ok, *site, *value, at),
            StmtKind::Bind { var, value, extent } => self.bind_variable(*var, *value, *extent),
            StmtKind::Barrier => Ok(()),
        }
    }

    /// A uniform condition branches; a varying one becomes the mask of all loads, stores and checks under it.
    fn guard(&mut self, condition: ValueId, body: &Body) -> Result<()> {
        let c = self.values[condition.index()].val.clone();
        if let Val::Parts(_) = c {
            let outer = self.mask.take();
            self.mask = Some(self.both(outer.clone(), Some(c))?.unwrap_or(Val::Undefined));
            let result = self.block(body);
            self.mask = outer;
            return result;
        }
        let c = self.uniform(condition)?;
        let (inside, after) = (self.new_block(), self.new_block());
        self.branch(c, inside, &[], after, &[]);
        self.enter(inside);
        self.block(body)?;
        self.jump(after, &[]);
        self.enter(after);
        Ok(())
    }

    /// One branch for all iterations that run together; behind it, one for each.
    fn check(&mut self, ok: ValueId, site: u32, value: ValueId, at: &lazuli_ir::Index) -> Result<()> {
        let failures = self.failures(ok)?;
        let after = self.new_block();
        if !self.mode.is_scalar() {
            let any = self.any(&failures)?;
            let inside = self.new_block();
            self.branch(any, inside, &[], after, &[]);
            self.enter(inside);
            self.func.layout.set_cold(inside);
        }
        let site = self.int(i64::from(site));
        for lane in 0..self.mode.total() {
            let failed = self.lane_of_val(&failures, ScalarType::Bool, lane)?;
            let (inside, next) = (self.new_block(), self.new_block());
            self.branch(failed, inside, &[], next, &[]);
            self.enter(inside);
            self.func.layout.set_cold(inside);
            let value = self.lane_of(value, lane)?;
            let at = self.index_at(at, lane)?;
            let status = self.status;
            self.call(Callee::CheckFailed, &[status, site, value, at]);
            self.jump(next, &[]);
            self.enter(next);
            if !self.mode.is_scalar() {
                self.func.layout.set_cold(next);
            }
        }
        self.jump(after, &[]);
        self.enter(after);
        Ok(())
    }

    /// Where a condition does not hold, and nothing masks it off.
    fn failures(&mut self, ok: ValueId) -> Result<Val> {
        let truth = self.temporary(ScalarType::Bool, Val::Const(Literal::Bool(true)));
        let failed =
            self.lift(ScalarType::Bool, ScalarType::Bool, &[ok, truth], &mut |e, x| Ok(e.ins().bxor(x[0], x[1])));
        self.types.pop();
        self.values.pop();
        let failed = self.both(self.mask.clone(), Some(failed?))?;
        failed.ok_or_else(|| Error::internal("a check without a condition"))
    }

    /// Whether any of the lanes is true.
    fn any(&mut self, val: &Val) -> Result<Value> {
        let Val::Parts(parts) = val else { return self.lane_of_val(val, ScalarType::Bool, 0) };
        let mut all = parts[0];
        for part in &parts[1..] {
            all = self.ins().bor(all, *part);
        }
        Ok(if self.mode.lanes > 1 { self.ins().vany_true(all) } else { all })
    }

    fn declare_tile(&mut self, t: TileId) -> Result<()> {
        let tile = &self.kernel.tiles[t.index()];
        if self.inside_strip {
            return Err(Error::internal("a tile stands in a vector loop"));
        }
        let elements: u64 = tile.dims.iter().product();
        let base = self.local_memory((elements as usize).saturating_mul(tile.dtype.size()))?;
        self.tiles[t.index()] = Some(base);
        Ok(())
    }

    fn fill(&mut self, t: TileId, c: Literal) -> Result<()> {
        let tile = &self.kernel.tiles[t.index()];
        let base = self.tile(t)?;
        self.fill_memory(base, tile.dims.iter().product::<u64>() as i64, tile.dtype, c)
    }

    fn tile(&self, t: TileId) -> Result<Value> {
        self.tiles[t.index()].ok_or_else(|| Error::internal("a tile is used before it is declared"))
    }

    fn bind(&mut self, v: ValueId, val: Val) {
        let region = self.region.as_ref().map_or(0, |r| r.id);
        self.values[v.index()] = Bound { val, region };
    }

    /// A new temporary value.
    fn temporary(&mut self, ty: ScalarType, val: Val) -> ValueId {
        let id = ValueId(self.types.len() as u32);
        self.types.push(ty);
        self.values.push(Bound::default());
        self.bind(id, val);
        id
    }
}

/// Expansions and combinations of reducers are written straight into the function.
impl Emit for Emitter<'_> {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let val = match self.expr(ty, &expr) {
            Ok(val) => val,
            Err(error) => {
                self.error.get_or_insert(error);
                // Any value of the type lets emission go on to where the error is returned.
                Val::Const(Literal::zero(ty.dtype()))
            }
        };
        self.temporary(ty, val)
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.types[v.index()]
    }
}

/// Inserts at the end of a block.
struct Bottom<'f> {
    func: &'f mut Function,
    block: Block,
}

impl<'f> InstInserterBase<'f> for Bottom<'f> {
    fn data_flow_graph(&self) -> &DataFlowGraph {
        &self.func.dfg
    }

    fn data_flow_graph_mut(&mut self) -> &mut DataFlowGraph {
        &mut self.func.dfg
    }

    fn insert_built_inst(mut self, inst: Inst) -> &'f mut DataFlowGraph {
        self.insert_aux_inst(inst);
        &mut self.func.dfg
    }

    fn insert_aux_inst(&mut self, inst: Inst) {
        self.func.layout.append_inst(inst, self.block);
    }
}

fn block_args(args: &[Value]) -> SmallVec<[BlockArg; 8]> {
    args.iter().map(|v| BlockArg::Value(*v)).collect()
}
