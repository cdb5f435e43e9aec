//! Kernels of single primitives, for eager execution.
//!
//! A key names the operation, the dtypes and the *layout class*: after the caller has permuted and merged dims jointly, each
//! operand's stride along each remaining dim is 0, 1 or something else. Extents and other strides are run-time values, so one
//! kernel serves every shape of its class. Movements need no kernel (they are views), an iota is a view of
//! [`Primitive::Arange`], padding is a fill and a copy into a view. What is more than one loop is a [`program`]
//! of exact types and layouts, lowered as compiled programs are: both modes give the same bits.

use crate::Options;
use crate::compile::compile;
use crate::scalar::{requirement, scalar_operation};
use crate::schedule::schedule_primitive;
use crate::schedule_gpu::{SHORT, WARP_ROW, schedule_gpu_primitive};
use lazuli_ir::kernel::{
    Access, Axis, Block, Emit, Expr, Extent, Kernel, Loop, Memory, Param, ParamId, Reduce, Reducer, ScalarType, Stmt,
    StmtKind, Stride, ValueId,
};
use lazuli_ir::{
    BinaryOp, CompareOp, DType, DimVec, Error, ExtentId, Graph, Index, Layout, Op, Program, ReduceOp, Result, Shape,
    Sources, Target, TargetKind, TensorType, UnaryOp, VarId,
};

/// How an operand lies along one dim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrideClass {
    /// Stride 0: one element for the whole dim.
    Zero,
    /// Stride 1.
    Unit,
    /// Any other stride, given at run time.
    Other,
}

impl StrideClass {
    /// The class of a stride.
    pub fn of(stride: i64) -> StrideClass {
        match stride {
            0 => StrideClass::Zero,
            1 => StrideClass::Unit,
            _ => StrideClass::Other,
        }
    }

    fn stride(self) -> Stride {
        match self {
            StrideClass::Zero => Stride::Const(0),
            StrideClass::Unit => Stride::Const(1),
            StrideClass::Other => Stride::Runtime,
        }
    }
}

/// What a kernel of one primitive computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Primitive {
    /// The operand.
    Copy,
    /// An elementwise operation of one operand.
    Unary(UnaryOp),
    /// An elementwise operation of two operands.
    Binary(BinaryOp),
    /// A comparison.
    Compare(CompareOp),
    /// Condition, value, other value.
    Select,
    /// The operand in the result's dtype.
    Cast,
    /// A reduction over the last `inner` loop dims; for `argmax`, over exactly one.
    Reduce {
        /// The combination.
        op: ReduceOp,
        /// The number of reduced dims.
        inner: usize,
    },
    /// `0, 1, 2, ...` as `i64`, over one dim.
    Arange,
    /// Uniform numbers over one dim; the operand is the base, `i64[2]`, of stride 1. Draw number `base[1]`.
    Random,
}

/// Identifies a kernel of one primitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrimitiveKey {
    /// The operation.
    pub primitive: Primitive,
    /// The dtype of the result.
    pub dtype: DType,
    /// The number of loop dims (with the reduced ones last).
    pub rank: usize,
    /// The operands: dtype, and a class for each loop dim.
    pub operands: DimVec<(DType, DimVec<StrideClass>)>,
    /// The result's class for each loop dim that it has.
    pub result: DimVec<StrideClass>,
    /// How many elements a reduction has, about.
    pub rows: RowLength,
}

/// How many elements of a row a reduction reduces, as far as it decides about the kernel: on a GPU, about who walks a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowLength {
    /// A thread walks a row, as it does where nothing is reduced.
    Thread,
    /// A warp walks a row.
    Warp,
    /// A block walks a row; or a CPU.
    Long,
}

impl RowLength {
    /// The class of rows of so many elements.
    pub fn of(gpu: bool, elements: u64) -> RowLength {
        match gpu {
            true if elements <= SHORT => RowLength::Thread,
            true if elements <= WARP_ROW => RowLength::Warp,
            _ => RowLength::Long,
        }
    }
}

struct Builder {
    kernel: Kernel,
    block: Block,
}

impl Emit for Builder {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let v = self.kernel.new_value(ty);
        self.block.push(StmtKind::Let(v, expr).into());
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.kernel.values[v.index()]
    }
}

/// The scheduled kernel of a primitive. Its parameters are the operands in order, then the result; its run-time extents are
/// those of the loop dims, in order. A [`Primitive::Random`]'s only operand is its base.
pub fn kernel(key: &PrimitiveKey, target: &Target) -> Result<Kernel> {
    let mut b = Builder { kernel: Kernel::new(name(key)), block: Block::new() };
    let vars: Vec<VarId> = (0..key.rank).map(|d| b.kernel.new_var(format!("i{d}"))).collect();
    b.kernel.extents = (0..key.rank).map(|d| format!("n{d}")).collect();
    let index: Vec<Index> = vars.iter().map(|&v| v.into()).collect();
    let mut loads = Vec::new();
    for (i, (dtype, classes)) in key.operands.iter().enumerate() {
        let random = key.primitive == Primitive::Random;
        let dims = if random { smallvec::smallvec![Extent::Const(2)] } else { runtime_dims(classes.len()) };
        b.kernel.params.push(Param {
            name: format!("x{i}"),
            dtype: *dtype,
            dims,
            strides: classes.iter().map(|c| c.stride()).collect(),
            access: Access::Read,
        });
        let from = Memory::Param(ParamId(i as u32));
        let places =
            if random { vec![vec![Index::constant(0)], vec![Index::constant(1)]] } else { vec![index.clone()] };
        for index in places {
            loads.push(b.emit((*dtype).into(), Expr::Load { from, index, mask: None }));
        }
    }
    let kept = match key.primitive {
        Primitive::Reduce { inner, .. } => key.rank.saturating_sub(inner),
        _ => key.rank,
    };
    b.kernel.params.push(Param {
        name: "out".into(),
        dtype: key.dtype,
        dims: runtime_dims(kept),
        strides: key.result.iter().map(|c| c.stride()).collect(),
        access: Access::Write,
    });
    let out = Memory::Param(ParamId(key.operands.len() as u32));
    let value = match key.primitive {
        Primitive::Copy => *loads.first().ok_or_else(|| Error::internal("a copy of nothing"))?,
        Primitive::Unary(op) => scalar(&mut b, &Op::Unary(op), key, &loads)?,
        Primitive::Binary(op) => scalar(&mut b, &Op::Binary(op), key, &loads)?,
        Primitive::Compare(op) => scalar(&mut b, &Op::Compare(op), key, &loads)?,
        Primitive::Select => scalar(&mut b, &Op::Select, key, &loads)?,
        Primitive::Cast => scalar(&mut b, &Op::Cast(key.dtype), key, &loads)?,
        Primitive::Arange => b.emit(ScalarType::I64, Expr::Index(index[0].clone())),
        Primitive::Random => {
            let shape = Shape::new([1]);
            let op = Op::Random { stream: 0, shape: shape.clone() };
            scalar_operation(&mut b, &op, key.dtype, &loads, &index, &shape)?
        }
        Primitive::Reduce { op, .. } => reduce(&mut b, op, &vars, kept, loads[0])?,
    };
    b.block.push(StmtKind::Store { to: out, index: index[..kept].to_vec(), value, mask: None }.into());
    let mut body = std::mem::take(&mut b.block);
    for (d, &var) in vars[..kept].iter().enumerate().rev() {
        let extent = Extent::Runtime(ExtentId(d as u32));
        body = vec![StmtKind::Loop(Loop { var, extent, step: 1, limit: None, axis: Axis::default(), body }).into()];
    }
    b.kernel.body = body;
    match target.kind {
        TargetKind::Cpu => schedule_primitive(&mut b.kernel, target),
        TargetKind::Nvidia(_) => schedule_gpu_primitive(&mut b.kernel, key.rows),
    }
    Ok(b.kernel)
}

fn scalar(b: &mut Builder, op: &Op, key: &PrimitiveKey, loads: &[ValueId]) -> Result<ValueId> {
    scalar_operation(b, op, key.dtype, loads, &[], &Shape::scalar())
}

fn name(key: &PrimitiveKey) -> &'static str {
    match key.primitive {
        Primitive::Copy => "copy",
        Primitive::Unary(op) => op.name(),
        Primitive::Binary(op) => op.name(),
        Primitive::Compare(op) => op.name(),
        Primitive::Select => "select",
        Primitive::Cast => "cast",
        Primitive::Reduce { op, .. } => op.name(),
        Primitive::Arange => "arange",
        Primitive::Random => "random",
    }
}

fn runtime_dims(rank: usize) -> DimVec<Extent> {
    (0..rank).map(|d| Extent::Runtime(ExtentId(d as u32))).collect()
}

/// Wraps what was written so far into a reduction over the inner variables. Gives its result.
fn reduce(b: &mut Builder, op: ReduceOp, vars: &[VarId], kept: usize, value: ValueId) -> Result<ValueId> {
    let reducer = Reducer { op, ty: b.type_of(value) };
    let inner: smallvec::SmallVec<[(VarId, Extent); 2]> =
        vars.iter().enumerate().skip(kept).map(|(d, &v)| (v, Extent::Runtime(ExtentId(d as u32)))).collect();
    let mut yields = smallvec::smallvec![value];
    if op.is_position() {
        let [(v, _)] = inner.as_slice() else {
            return Err(Error::internal("argmax over several dims needs one merged dim"));
        };
        yields.push(b.emit(ScalarType::I64, Expr::Index((*v).into())));
    }
    let body = std::mem::take(&mut b.block);
    let results: smallvec::SmallVec<[ValueId; 2]> =
        reducer.types().into_iter().map(|ty| b.kernel.new_value(ty)).collect();
    let last = results.last().copied().ok_or_else(|| Error::internal("a reduction without results"))?;
    let reduce = Reduce {
        vars: inner,
        reducers: smallvec::smallvec![reducer],
        axis: Axis::default(),
        chunk: 0,
        body,
        yields,
        results,
    };
    b.block.push(Stmt::from(StmtKind::Reduce(reduce)));
    Ok(last)
}

/// Whether an operation checks its operands' values, so that it runs as a [`program`] and not as a kernel of its class.
pub fn checks(op: &Op, dtype: DType) -> bool {
    requirement(op, dtype).is_some()
}

/// The program of one operation on operands that lie as the layouts say. A contraction may be of halves: it is one in `f32`, and its
/// result a half again where that is wanted.
pub fn program(op: &Op, operands: &[(DType, Layout)], result: DType, target: &Target) -> Result<Program> {
    let mut g = Graph::new(op.name());
    let mut inputs = Vec::new();
    for (i, (dtype, layout)) in operands.iter().enumerate() {
        let ty = TensorType { shape: layout.shape.clone(), dtype: *dtype };
        let mut x = g.add_input(format!("x{i}"), ty, Sources::none());
        if let Op::Dot { acc, .. } = op
            && dtype != acc
        {
            x = g.add(Op::Cast(*acc), &[x], Sources::none())?;
        }
        inputs.push(x);
    }
    let mut out = g.add(op.clone(), &inputs, Sources::none())?;
    if g.ty(out).dtype != result {
        out = g.add(Op::Cast(result), &[out], Sources::none())?;
    }
    g.add_output(out);
    let layouts: Vec<Layout> = operands.iter().map(|(_, layout)| layout.clone()).collect();
    Ok(compile(&g, &layouts, target, &Options::default())?.program)
}
