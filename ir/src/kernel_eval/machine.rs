//! Runs the evaluator's code, one scalar at a time.

use super::code::{Affine, Code, DotCode, KernelCode, LoopCode, Place, ReduceCode, Step};
use super::{KernelBuffer, ThreadOrder};
use crate::kernel::{MachineOp, Memory, ScalarType, Stride};
use crate::philox::{philox, uniform};
use crate::{BinaryOp, CompareOp, DType, Error, ErrorKind, Kernel, Literal, Result, UnaryOp};

/// A parameter's view of its storage.
struct View {
    dims: Vec<i64>,
    strides: Vec<i64>,
}

/// A tile's elements; `None` where nothing was written.
#[derive(Default)]
struct TileState {
    elements: Vec<Option<u64>>,
    dims: Vec<i64>,
    valid: Vec<i64>,
}

/// The state of a running kernel.
pub(super) struct Machine<'a> {
    kernel: &'a Kernel,
    buffers: &'a mut [KernelBuffer],
    views: Vec<View>,
    tiles: Vec<TileState>,
    slots: Vec<u64>,
    vars: Vec<i64>,
    order: ThreadOrder,
    /// The failed check of lowest place: place, site, value.
    failure: Option<(i64, u32, i64)>,
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn f_bits(v: f32) -> u64 {
    u64::from(v.to_bits())
}

/// The number in a slot of a float type.
fn float(ty: ScalarType, bits: u64) -> f64 {
    if ty == ScalarType::F64 { f64::from_bits(bits) } else { f64::from(f(bits)) }
}

/// A number rounded to a float type, as a slot.
fn float_bits(ty: ScalarType, v: f64) -> u64 {
    if ty == ScalarType::F64 { v.to_bits() } else { f_bits(v as f32) }
}

/// An integer wrapped to its type, as a slot: sign-extended, truth values 0 or 1.
fn int_bits(ty: ScalarType, v: i64) -> u64 {
    ty.dtype().wrap(v) as u64
}

impl<'a> Machine<'a> {
    pub fn new(
        kernel: &'a Kernel,
        code: &KernelCode,
        buffers: &'a mut [KernelBuffer],
        order: ThreadOrder,
    ) -> Result<Machine<'a>> {
        let mut views = Vec::new();
        for ((p, b), dims) in kernel.params.iter().zip(buffers.iter()).zip(&code.dims) {
            let mut given = b.strides.iter();
            let strides: Option<Vec<i64>> = p
                .strides
                .iter()
                .map(|s| match s {
                    Stride::Const(c) => Some(*c),
                    Stride::Runtime => given.next().copied(),
                })
                .collect();
            let (Some(strides), None) = (strides, given.next()) else {
                let message = format!("kernel {}: %{} needs one value a run-time stride", kernel.name, p.name);
                return Err(Error::new(ErrorKind::Verify, message));
            };
            views.push(View { dims: dims.clone(), strides });
        }
        Ok(Machine {
            kernel,
            buffers,
            views,
            tiles: kernel.tiles.iter().map(|_| TileState::default()).collect(),
            slots: code.slots.clone(),
            vars: vec![0; kernel.vars.len()],
            order,
            failure: None,
        })
    }

    pub fn run(mut self, code: &KernelCode) -> Result<()> {
        let done = self.block(&code.body).and_then(|()| self.block(&code.finish));
        done.map_err(|e| e.with_sources(self.kernel.sources.clone()))?;
        match self.failure {
            None => Ok(()),
            Some((at, site, value)) => {
                Err(self.error(format_args!("check {site} failed at element {at}, with the value {value}")))
            }
        }
    }

    #[cold]
    fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Index, format!("kernel {}: {message}", self.kernel.name))
    }

    fn block(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            if let Err(e) = self.step(&step.code) {
                return Err(e.with_sources(step.sources.clone()));
            }
        }
        Ok(())
    }

    fn step(&mut self, code: &Code) -> Result<()> {
        let s = &self.slots;
        let (to, value) = match code {
            Code::Index(to, i) => (*to, i.at(&self.vars) as u64),
            Code::Load(to, place) => (*to, self.load(place)?),
            Code::Unary(to, op, ty, a) => (*to, unary(*op, *ty, s[*a])),
            Code::Binary(to, op, ty, a, b) => (*to, binary(*op, *ty, s[*a], s[*b])),
            Code::Compare(to, op, ty, a, b) => (*to, u64::from(compare(*op, *ty, s[*a], s[*b]))),
            Code::Select(to, c, a, b) => (*to, if s[*c] != 0 { s[*a] } else { s[*b] }),
            Code::Convert(to, from, ty, a) => (*to, convert(*from, *ty, s[*a])),
            Code::Machine(to, op, ty, [a, b, c]) => (*to, machine(*op, *ty, s[*a], s[*b], s[*c])),
            Code::Random(to, [a, b, c]) => (*to, f_bits(uniform(philox(s[*a], s[*b], s[*c])))),
            Code::Store(..)
            | Code::Tile(..)
            | Code::Fill(..)
            | Code::Loop(_)
            | Code::Reduce(_)
            | Code::Dot(_)
            | Code::Guard(..)
            | Code::Check { .. }
            | Code::Bind { .. }
            | Code::Barrier => return self.effect(code),
        };
        self.slots[to] = value;
        Ok(())
    }

    /// Steps that give no value of their own.
    fn effect(&mut self, code: &Code) -> Result<()> {
        match code {
            Code::Store(value, place) => self.store(place, self.slots[*value]),
            Code::Tile(t, valid) => {
                self.tile(*t, valid);
                Ok(())
            }
            Code::Fill(t, value) => {
                self.tiles[*t].elements.fill(Some(*value));
                Ok(())
            }
            Code::Loop(l) => self.a_loop(l),
            Code::Reduce(r) => self.reduce(r),
            Code::Dot(d) => self.dot(d),
            Code::Guard(c, body) if self.slots[*c] != 0 => self.block(body),
            Code::Guard(..) | Code::Barrier => Ok(()),
            Code::Check { ok, site, value, at } => {
                if self.slots[*ok] == 0 {
                    let failure = (at.at(&self.vars), *site, self.slots[*value] as i64);
                    self.failure = Some(self.failure.map_or(failure, |f| f.min(failure)));
                }
                Ok(())
            }
            Code::Bind { var, value, extent } => {
                self.vars[*var] = (self.slots[*value] as i64).clamp(0, (*extent - 1).max(0));
                Ok(())
            }
            Code::Index(..)
            | Code::Load(..)
            | Code::Unary(..)
            | Code::Binary(..)
            | Code::Compare(..)
            | Code::Select(..)
            | Code::Convert(..)
            | Code::Machine(..)
            | Code::Random(..) => Ok(()),
        }
    }

    fn tile(&mut self, t: usize, valid: &[Option<Affine>]) {
        let declared = &self.kernel.tiles[t];
        let state = &mut self.tiles[t];
        state.dims = declared.dims.iter().map(|d| *d as i64).collect();
        state.valid.clear();
        for (dim, limit) in state.dims.iter().zip(valid) {
            state.valid.push(limit.as_ref().map_or(*dim, |l| l.at(&self.vars).clamp(0, *dim)));
        }
        state.elements.clear();
        state.elements.resize(declared.dims.iter().product::<u64>() as usize, None);
    }

    #[cold]
    fn out_of_range(&self, what: &str, place: &Place, why: &str) -> Error {
        let name = match place.memory {
            Memory::Param(p) => &self.kernel.params[p.index()].name,
            Memory::Tile(t) => &self.kernel.tiles[t.index()].name,
        };
        let index: Vec<String> = place.index.iter().map(|i| i.at(&self.vars).to_string()).collect();
        self.error(format_args!("{what} %{name}[{}] {why}", index.join(",")))
    }

    /// The element of storage or tile, or `None` out of range.
    fn element(&self, place: &Place) -> Option<usize> {
        let (mut at, dims, strides): (i64, &[i64], Option<&[i64]>) = match place.memory {
            Memory::Param(p) => {
                let view = &self.views[p.index()];
                (i64::try_from(self.buffers[p.index()].offset).ok()?, &view.dims, Some(&view.strides))
            }
            Memory::Tile(t) => (0, &self.tiles[t.index()].valid, None),
        };
        for (d, (i, dim)) in place.index.iter().zip(dims).enumerate() {
            let i = i.at(&self.vars);
            if i < 0 || i >= *dim {
                return None;
            }
            at = match (strides, place.memory) {
                (Some(strides), _) => at.checked_add(i.checked_mul(strides[d])?)?,
                (None, Memory::Tile(t)) => at * self.tiles[t.index()].dims[d] + i,
                (None, Memory::Param(_)) => return None,
            };
        }
        usize::try_from(at).ok()
    }

    fn masked_off(&self, place: &Place) -> bool {
        place.mask.is_some_and(|m| self.slots[m] == 0)
    }

    fn load(&self, place: &Place) -> Result<u64> {
        if self.masked_off(place) {
            return Ok(0);
        }
        let Some(at) = self.element(place) else {
            return Err(self.out_of_range("load", place, "is out of range"));
        };
        match place.memory {
            Memory::Param(p) => self.buffers[p.index()]
                .data
                .get(at)
                .map(|l| l.in_kernel().bits())
                .ok_or_else(|| self.out_of_range("load", place, "is beyond the storage")),
            Memory::Tile(t) => match self.tiles[t.index()].elements.get(at) {
                Some(Some(v)) => Ok(*v),
                Some(None) | None => Err(self.out_of_range("load", place, "reads what nothing wrote")),
            },
        }
    }

    fn store(&mut self, place: &Place, value: u64) -> Result<()> {
        if self.masked_off(place) {
            return Ok(());
        }
        let Some(at) = self.element(place) else {
            return Err(self.out_of_range("store", place, "is out of range"));
        };
        let stored = match place.memory {
            Memory::Param(p) => {
                let data = &mut self.buffers[p.index()].data;
                let held = ScalarType::from(data.dtype()).dtype();
                data.set(at, Literal::from_bits(held, value).cast(data.dtype()))
            }
            Memory::Tile(t) => {
                let dtype = self.kernel.tiles[t.index()].dtype;
                let held = Literal::from_bits(ScalarType::from(dtype).dtype(), value).cast(dtype).in_kernel().bits();
                self.tiles[t.index()].elements.get_mut(at).map(|e| *e = Some(held))
            }
        };
        stored.ok_or_else(|| self.out_of_range("store", place, "is beyond the storage"))
    }

    fn a_loop(&mut self, l: &LoopCode) -> Result<()> {
        let end = l.limit.as_ref().map_or(l.extent, |i| i.at(&self.vars).min(l.extent));
        let count = if end <= 0 { 0 } else { (end - 1) / l.step + 1 };
        let backwards = l.threads && self.order == ThreadOrder::Reversed;
        for i in 0..count {
            self.vars[l.var] = l.step * if backwards { count - 1 - i } else { i };
            self.block(&l.body)?;
        }
        Ok(())
    }

    fn reduce(&mut self, r: &ReduceCode) -> Result<()> {
        let Some(&(_, outer)) = r.vars.first() else { return Err(Error::internal("a reduce has no variable")) };
        let results = match r.chunk {
            None => self.partial(r, 0, outer)?,
            Some(chunk) => {
                let count = if outer <= 0 { 0 } else { (outer - 1) / chunk + 1 };
                let mut partials = vec![Vec::new(); count as usize];
                for i in 0..count {
                    let c = if self.order == ThreadOrder::Reversed { count - 1 - i } else { i };
                    let end = (c + 1).saturating_mul(chunk).min(outer);
                    partials[c as usize] = self.partial(r, c * chunk, end)?;
                }
                self.pairwise(r, partials)?
            }
        };
        for (slot, value) in r.results.iter().zip(results) {
            self.slots[*slot] = value;
        }
        Ok(())
    }

    /// The reduction over a range of its first variable.
    fn partial(&mut self, r: &ReduceCode, begin: i64, end: i64) -> Result<Vec<u64>> {
        let mut acc = r.identity.clone();
        let inner: Vec<(usize, i64)> = r.vars[1..].to_vec();
        if inner.iter().any(|v| v.1 <= 0) {
            return Ok(acc);
        }
        for i in begin..end {
            self.vars[r.vars[0].0] = i;
            inner.iter().for_each(|v| self.vars[v.0] = 0);
            loop {
                self.block(&r.body)?;
                let element: Vec<u64> = r.yields.iter().map(|v| self.slots[*v]).collect();
                acc = self.combine(r, &acc, &element)?;
                if !advance(&mut self.vars, &inner) {
                    break;
                }
            }
        }
        Ok(acc)
    }

    fn combine(&mut self, r: &ReduceCode, acc: &[u64], element: &[u64]) -> Result<Vec<u64>> {
        r.acc.iter().zip(acc).for_each(|(slot, v)| self.slots[*slot] = *v);
        r.element.iter().zip(element).for_each(|(slot, v)| self.slots[*slot] = *v);
        self.block(&r.combine)?;
        Ok(r.combined.iter().map(|slot| self.slots[*slot]).collect())
    }

    /// Combines neighbours until one is left.
    fn pairwise(&mut self, r: &ReduceCode, mut partials: Vec<Vec<u64>>) -> Result<Vec<u64>> {
        while partials.len() > 1 {
            let mut next = Vec::with_capacity(partials.len().div_ceil(2));
            for pair in partials.chunks(2) {
                next.push(match pair {
                    [a, b] => self.combine(r, a, b)?,
                    one => one.concat(),
                });
            }
            partials = next;
        }
        Ok(partials.pop().unwrap_or_else(|| r.identity.clone()))
    }

    fn dot(&mut self, d: &DotCode) -> Result<()> {
        let (rows, columns) = match self.tiles[d.acc].valid.as_slice() {
            [rows, columns] => (*rows, *columns),
            _ => return Err(Error::internal("the accumulator of a dot is not of rank 2")),
        };
        let width = self.tiles[d.acc].dims[1];
        let mut contract = d.contract.clone();
        if let (Some(limit), Some(only)) = (&d.limit, contract.first_mut()) {
            only.1 = only.1.min(limit.at(&self.vars));
        }
        let empty = contract.iter().any(|v| v.1 <= 0);
        for row in 0..rows {
            for column in 0..columns {
                (self.vars[d.row], self.vars[d.column]) = (row, column);
                let sum = if empty { 0 } else { self.contraction(d, &contract)? };
                let at = (row * width + column) as usize;
                let Some(acc) = self.tiles[d.acc].elements[at] else {
                    let name = &self.kernel.tiles[d.acc].name;
                    return Err(self.error(format_args!("dot adds to %{name}[{row},{column}], which nothing wrote")));
                };
                let value = binary(BinaryOp::Add, d.ty, acc, sum);
                self.tiles[d.acc].elements[at] = Some(value);
            }
        }
        Ok(())
    }

    /// The sum over the contraction, in order, of one element.
    fn contraction(&mut self, d: &DotCode, contract: &[(usize, i64)]) -> Result<u64> {
        let mut sum = 0u64;
        contract.iter().for_each(|v| self.vars[v.0] = 0);
        loop {
            let (a, b) = (self.load(&d.a)?, self.load(&d.b)?);
            sum = match d.ty {
                ScalarType::F32 => f_bits(f(a).mul_add(f(b), f(sum))),
                ScalarType::F64 => f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(sum)).to_bits(),
                ty => int_bits(ty, (sum as i64).wrapping_add((a as i64).wrapping_mul(b as i64))),
            };
            if !advance(&mut self.vars, contract) {
                return Ok(sum);
            }
        }
    }
}

/// Moves variables to their next values, the last fastest; false where they were the last.
fn advance(vars: &mut [i64], counted: &[(usize, i64)]) -> bool {
    for &(v, extent) in counted.iter().rev() {
        vars[v] += 1;
        if vars[v] < extent {
            return true;
        }
        vars[v] = 0;
    }
    false
}

fn unary(op: UnaryOp, ty: ScalarType, a: u64) -> u64 {
    let row = op.row();
    if ty.is_float() { float_bits(ty, (row.float)(float(ty, a))) } else { int_bits(ty, (row.int)(a as i64)) }
}

fn binary(op: BinaryOp, ty: ScalarType, a: u64, b: u64) -> u64 {
    if ty.is_float() {
        float_bits(ty, op.float(float(ty, a), float(ty, b)))
    } else {
        int_bits(ty, op.int(ty.dtype(), a as i64, b as i64))
    }
}

fn compare(op: CompareOp, ty: ScalarType, a: u64, b: u64) -> bool {
    if ty.is_float() { op.holds(float(ty, a), float(ty, b)) } else { op.holds(a as i64, b as i64) }
}

fn convert(from: ScalarType, to: ScalarType, v: u64) -> u64 {
    Literal::from_bits(from.dtype(), v).cast(to.dtype()).bits()
}

fn machine(op: MachineOp, ty: ScalarType, a: u64, b: u64, c: u64) -> u64 {
    let (narrow, wide) = (ty == ScalarType::I32, ty == ScalarType::F64);
    let d = f64::from_bits;
    let i_bits = |narrow: bool, v: i64| int_bits(if narrow { ScalarType::I32 } else { ScalarType::I64 }, v);
    // Counts are constants below the width; the mask only keeps Rust's shift from panicking.
    let count = (b & if narrow { 31 } else { 63 }) as u32;
    match op {
        MachineOp::Fma if wide => d(a).mul_add(d(b), d(c)).to_bits(),
        MachineOp::Fma => f_bits(f(a).mul_add(f(b), f(c))),
        MachineOp::Scale if wide => libm::scalbn(d(a), d(b).max(-4096.0) as i32).to_bits(),
        // Exact in `f64`, so rounded once.
        MachineOp::Scale => f_bits((f64::from(f(a)) * f64::from(f(b)).exp2()) as f32),
        // An `f64` and an `i64` are their bits.
        MachineOp::Bits | MachineOp::OfBits if wide || ty == ScalarType::I64 => a,
        MachineOp::Bits => i_bits(true, i64::from(a as u32 as i32)),
        MachineOp::OfBits => u64::from(a as u32),
        MachineOp::ShiftLeft => i_bits(narrow, (a << count) as i64),
        MachineOp::ShiftRight => i_bits(narrow, a as i64 >> count),
        MachineOp::ShiftRightLogical if narrow => i_bits(true, i64::from(((a as u32) >> count) as i32)),
        MachineOp::ShiftRightLogical => a >> count,
        MachineOp::RoundF16 => f_bits(DType::F16.round(f64::from(f(a))) as f32),
        MachineOp::RoundBF16 => f_bits(DType::BF16.round(f64::from(f(a))) as f32),
    }
}
