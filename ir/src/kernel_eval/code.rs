//! Kernels as code for the evaluator: values are slots of 64 bits, extents and scalars numbers, operations chosen by type.

use crate::index::Atom;
use crate::kernel::{
    Binding, Block, Dot, DotOperand, Emit, Expr, Extent, MachineOp, Memory, Reduce, Reducer, ScalarType, StmtKind,
    ValueId,
};
use crate::{BinaryOp, CompareOp, Error, ExtentId, Index, Kernel, Literal, Result, Sources, UnaryOp};

/// Where a value lies.
pub(super) type Slot = usize;

/// An index: `constant + sum of slot * coefficient + sum of coefficient * (x / d or x % d)`.
pub(super) struct Affine {
    pub constant: i64,
    pub vars: Vec<(usize, i64)>,
    pub divisions: Vec<Division>,
}

/// A division or remainder in an index.
pub(super) struct Division {
    pub of: Affine,
    pub divisor: i64,
    pub remainder: bool,
    pub coefficient: i64,
}

impl Affine {
    pub fn at(&self, vars: &[i64]) -> i64 {
        let mut sum = self.constant;
        for &(v, c) in &self.vars {
            sum = sum.wrapping_add(vars[v].wrapping_mul(c));
        }
        for d in &self.divisions {
            let x = d.of.at(vars);
            let value = if d.remainder { x.rem_euclid(d.divisor) } else { x.div_euclid(d.divisor) };
            sum = sum.wrapping_add(value.wrapping_mul(d.coefficient));
        }
        sum
    }
}

/// A place in memory.
pub(super) struct Place {
    pub memory: Memory,
    pub index: Vec<Affine>,
    pub mask: Option<Slot>,
}

/// One step of the evaluator.
pub(super) enum Code {
    Index(Slot, Affine),
    Load(Slot, Place),
    Store(Slot, Place),
    Unary(Slot, UnaryOp, ScalarType, Slot),
    Binary(Slot, BinaryOp, ScalarType, Slot, Slot),
    Compare(Slot, CompareOp, ScalarType, Slot, Slot),
    Select(Slot, Slot, Slot, Slot),
    Convert(Slot, ScalarType, ScalarType, Slot),
    Machine(Slot, MachineOp, ScalarType, [Slot; 3]),
    Random(Slot, [Slot; 3]),
    Tile(usize, Vec<Option<Affine>>),
    Fill(usize, u64),
    Loop(LoopCode),
    Reduce(Box<ReduceCode>),
    Dot(Box<DotCode>),
    Guard(Slot, Vec<Step>),
    Check { ok: Slot, site: u32, value: Slot, at: Affine },
    Bind { var: usize, value: Slot, extent: i64 },
    Barrier,
}

/// A step, and the user's source lines for its errors.
pub(super) struct Step {
    pub code: Code,
    pub sources: Sources,
}

/// A loop.
pub(super) struct LoopCode {
    pub var: usize,
    pub extent: i64,
    pub step: i64,
    pub limit: Option<Affine>,
    /// Runs on threads, so in either order.
    pub threads: bool,
    pub body: Vec<Step>,
}

/// A reduction: accumulators and elements are combined into new accumulators by straight-line code.
pub(super) struct ReduceCode {
    pub vars: Vec<(usize, i64)>,
    /// Where cores or blocks share it: iterations of the first variable a partial result.
    pub chunk: Option<i64>,
    pub body: Vec<Step>,
    pub yields: Vec<Slot>,
    pub identity: Vec<u64>,
    pub acc: Vec<Slot>,
    pub element: Vec<Slot>,
    pub combine: Vec<Step>,
    pub combined: Vec<Slot>,
    pub results: Vec<Slot>,
}

/// A contraction.
pub(super) struct DotCode {
    pub acc: usize,
    pub row: usize,
    pub column: usize,
    pub contract: Vec<(usize, i64)>,
    pub limit: Option<Affine>,
    pub a: Place,
    pub b: Place,
    pub ty: ScalarType,
}

/// A kernel as code.
pub(super) struct KernelCode {
    /// The values of the slots before anything runs: constants and scalars.
    pub slots: Vec<u64>,
    /// The extents of each parameter.
    pub dims: Vec<Vec<i64>>,
    pub body: Vec<Step>,
    pub finish: Vec<Step>,
}

/// Compiles a verified kernel.
pub(super) fn compile(kernel: &Kernel, extents: &[u64], scalars: &[Literal]) -> Result<KernelCode> {
    let mut compiler = Compiler {
        extents,
        scalars,
        kernel,
        types: kernel.values.clone(),
        slots: vec![0; kernel.values.len()],
        steps: Vec::new(),
    };
    let body = compiler.block(&kernel.body)?;
    let finish = compiler.block(&kernel.finish)?;
    let dims =
        kernel.params.iter().map(|p| p.dims.iter().map(|d| compiler.extent(*d)).collect()).collect::<Result<_>>()?;
    Ok(KernelCode { slots: compiler.slots, dims, body, finish })
}

struct Compiler<'a> {
    kernel: &'a Kernel,
    extents: &'a [u64],
    scalars: &'a [Literal],
    types: Vec<ScalarType>,
    slots: Vec<u64>,
    /// The block under construction.
    steps: Vec<Step>,
}

impl Emit for Compiler<'_> {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let v = self.new_slot(ty);
        self.define(v.index(), &expr, &Sources::none());
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.types[v.index()]
    }
}

impl Compiler<'_> {
    fn new_slot(&mut self, ty: ScalarType) -> ValueId {
        self.types.push(ty);
        self.slots.push(0);
        ValueId(self.types.len() as u32 - 1)
    }

    fn extent(&self, e: Extent) -> Result<i64> {
        let n = match e {
            Extent::Const(n) => n,
            Extent::Runtime(e) => self.extents[e.0 as usize],
        };
        i64::try_from(n).map_err(|_| Error::internal("an extent does not fit a signed 64-bit number"))
    }

    fn affine(&self, index: &Index) -> Affine {
        let mut out = Affine { constant: index.offset(), vars: Vec::new(), divisions: Vec::new() };
        for (atom, c) in index.terms() {
            let division = |x: &Index, divisor: i64, remainder: bool| Division {
                of: self.affine(x),
                divisor,
                remainder,
                coefficient: *c,
            };
            match atom {
                Atom::Var(v) => out.vars.push((v.0 as usize, *c)),
                Atom::Extent(ExtentId(e)) => {
                    out.constant = out.constant.wrapping_add((self.extents[*e as usize] as i64).wrapping_mul(*c));
                }
                Atom::Div(x, d) => out.divisions.push(division(x, *d, false)),
                Atom::Mod(x, d) => out.divisions.push(division(x, *d, true)),
            }
        }
        out
    }

    fn place(&self, memory: Memory, index: &[Index], mask: Option<ValueId>) -> Place {
        let index = index.iter().map(|i| self.affine(i)).collect();
        Place { memory, index, mask: mask.map(ValueId::index) }
    }

    fn push(&mut self, code: Code, sources: &Sources) {
        self.steps.push(Step { code, sources: sources.clone() });
    }

    fn block(&mut self, block: &Block) -> Result<Vec<Step>> {
        let outer = std::mem::take(&mut self.steps);
        for stmt in block {
            self.statement(&stmt.kind, &stmt.sources)?;
        }
        Ok(std::mem::replace(&mut self.steps, outer))
    }

    fn statement(&mut self, kind: &StmtKind, sources: &Sources) -> Result<()> {
        let code = match kind {
            StmtKind::Let(v, expr) => {
                self.define(v.index(), expr, sources);
                return Ok(());
            }
            StmtKind::Store { to, index, value, mask } => Code::Store(value.index(), self.place(*to, index, *mask)),
            StmtKind::Tile(t) => {
                let valid = &self.kernel.tiles[t.index()].valid;
                Code::Tile(t.index(), valid.iter().map(|v| v.as_ref().map(|v| self.affine(v))).collect())
            }
            StmtKind::Fill(t, c) => {
                let held = c.cast(self.kernel.tiles[t.index()].dtype).in_kernel();
                Code::Fill(t.index(), held.bits())
            }
            StmtKind::Loop(l) => Code::Loop(LoopCode {
                var: l.var.0 as usize,
                extent: self.extent(l.extent)?,
                step: l.step as i64,
                limit: l.limit.as_ref().map(|i| self.affine(i)),
                threads: l.axis.binding != Binding::Serial,
                body: self.block(&l.body)?,
            }),
            StmtKind::Reduce(r) => Code::Reduce(Box::new(self.reduce(r)?)),
            StmtKind::Dot(d) => Code::Dot(Box::new(self.dot(d)?)),
            StmtKind::Guard(c, body) => Code::Guard(c.index(), self.block(body)?),
            StmtKind::Check { ok, site, value, at } => {
                Code::Check { ok: ok.index(), site: *site, value: value.index(), at: self.affine(at) }
            }
            StmtKind::Bind { var, value, extent } => {
                Code::Bind { var: var.0 as usize, value: value.index(), extent: self.extent(*extent)? }
            }
            StmtKind::Barrier => Code::Barrier,
        };
        self.push(code, sources);
        Ok(())
    }

    fn define(&mut self, to: Slot, expr: &Expr, sources: &Sources) {
        let ty = |s: &Self, v: &ValueId| s.types[v.index()];
        let code = match expr {
            Expr::Const(c) => {
                self.slots[to] = c.bits();
                return;
            }
            Expr::Scalar(s) => {
                self.slots[to] = self.scalars[s.index()].in_kernel().bits();
                return;
            }
            Expr::Index(i) => Code::Index(to, self.affine(i)),
            Expr::Load { from, index, mask } => Code::Load(to, self.place(*from, index, *mask)),
            Expr::Unary(op, a) => Code::Unary(to, *op, ty(self, a), a.index()),
            Expr::Binary(op, a, b) => Code::Binary(to, *op, ty(self, a), a.index(), b.index()),
            Expr::Compare(op, a, b) => Code::Compare(to, *op, ty(self, a), a.index(), b.index()),
            Expr::Select(c, a, b) => Code::Select(to, c.index(), a.index(), b.index()),
            Expr::Convert(a) => Code::Convert(to, ty(self, a), self.types[to], a.index()),
            Expr::Machine(op, operands) => {
                let mut slots = [0; 3];
                slots.iter_mut().zip(operands).for_each(|(s, v)| *s = v.index());
                Code::Machine(to, *op, ty(self, &operands[0]), slots)
            }
            Expr::Random(a, b, c) => Code::Random(to, [a.index(), b.index(), c.index()]),
        };
        self.push(code, sources);
    }

    fn vars(&self, vars: &[(crate::VarId, Extent)]) -> Result<Vec<(usize, i64)>> {
        vars.iter().map(|(v, e)| Ok((v.0 as usize, self.extent(*e)?))).collect()
    }

    fn reduce(&mut self, r: &Reduce) -> Result<ReduceCode> {
        let vars = self.vars(&r.vars)?;
        let body = self.block(&r.body)?;
        let types: Vec<ScalarType> = r.reducers.iter().flat_map(|x| x.types()).collect();
        let acc: Vec<ValueId> = types.iter().map(|t| self.new_slot(*t)).collect();
        let element: Vec<ValueId> = types.iter().map(|t| self.new_slot(*t)).collect();
        let outer = std::mem::take(&mut self.steps);
        let combined = self.combine(&r.reducers, &acc, &element);
        let combine = std::mem::replace(&mut self.steps, outer);
        let slots = |values: &[ValueId]| values.iter().map(|v| v.index()).collect();
        Ok(ReduceCode {
            vars,
            chunk: matches!(r.axis.binding, Binding::Parallel | Binding::Grid(_)).then_some(r.chunk as i64),
            body,
            yields: slots(&r.yields),
            identity: r.reducers.iter().flat_map(|x| x.identity()).map(Literal::bits).collect(),
            acc: slots(&acc),
            element: slots(&element),
            combine,
            combined: slots(&combined),
            results: slots(&r.results),
        })
    }

    fn combine(&mut self, reducers: &[Reducer], acc: &[ValueId], element: &[ValueId]) -> Vec<ValueId> {
        let (mut combined, mut at) = (Vec::new(), 0);
        for reducer in reducers {
            let next = at + reducer.types().len();
            combined.extend(reducer.combine(self, &acc[at..next], &element[at..next]));
            at = next;
        }
        combined
    }

    fn dot(&mut self, d: &Dot) -> Result<DotCode> {
        let operand = |o: &DotOperand| self.place(o.memory, &o.index, None);
        Ok(DotCode {
            acc: d.acc.index(),
            row: d.row.0 as usize,
            column: d.column.0 as usize,
            contract: self.vars(&d.contract)?,
            limit: d.limit.as_ref().map(|i| self.affine(i)),
            a: operand(&d.a),
            b: operand(&d.b),
            ty: self.kernel.tiles[d.acc.index()].dtype.into(),
        })
    }
}
