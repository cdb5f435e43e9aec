//! `dot`: a call of the runtime's matrix multiplication, with strides read off the operands' index maps.

use super::Emitter;
use super::address::{Coefficient, Distance};
use super::nest::Int;
use super::value::Parts;
use crate::cpu::abi::{Callee, DIM_WORDS, DOT_WORDS};
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, Value, types};
use lazuli_ir::kernel::{Dot, DotOperand, Extent, Memory, Stmt, StmtKind, TileId};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{DType, Error, Result, VarId};
use smallvec::SmallVec;

/// The dims that count rows of a right operand in a call: extents, and distances in bytes.
type Rows = SmallVec<[(i64, i64); 4]>;

impl Emitter<'_> {
    pub(super) fn dot(&mut self, d: &Dot) -> Result<()> {
        let acc = self.tile(d.acc)?;
        if !self.mode.is_scalar() {
            return Err(Error::internal("a dot inside a vector loop"));
        }
        let tile = &self.kernel.tiles[d.acc.index()];
        let &[_, columns] = tile.dims.as_slice() else {
            return Err(Error::internal("a dot's accumulator is not a matrix"));
        };
        let operands = [&d.a, &d.b].map(|o| self.place(o.memory).map(|place| place.dtype));
        let [Ok(a), Ok(b)] = operands else { return Err(Error::internal("a dot of what is not there")) };
        let callee = match (a, b, tile.dtype) {
            (DType::F32, DType::F32, DType::F32) => Callee::DotF32,
            (DType::BF16, DType::BF16, DType::F32) => Callee::DotBf16,
            (DType::F64, DType::F64, DType::F64) => Callee::DotF64,
            (DType::U8, DType::U8, DType::U8) => Callee::DotU8,
            (DType::I32, DType::I32, DType::I32) => Callee::DotI32,
            (DType::I64, DType::I64, DType::I64) => Callee::DotI64,
            _ => return Err(Error::internal(format!("a dot of {} and {}", a.name(), b.name()))),
        };
        let (m, n) = (self.valid(d.acc, 0)?, self.valid(d.acc, 1)?);
        let zero = self.int(0);
        for v in [d.row, d.column].into_iter().chain(d.contract.iter().map(|c| c.0)) {
            self.set_var(v, Extent::Const(1), false, zero);
        }
        let (outer, rows) = self.calls(d)?;
        self.contract(d, 0, (outer, &rows), callee, [m, n, acc], columns as i64)
    }

    /// Whether a contraction of floats that runs as one call is the first of these statements that touches the tile.
    pub(super) fn is_written_by_dot(&mut self, t: TileId, rest: &[Stmt]) -> bool {
        let touches = |s: &&Stmt| {
            let mut any = false;
            for_each_statement(std::slice::from_ref(*s), &mut |kind| {
                any |= kind.touches().iter().any(|touch| touch.memory == Memory::Tile(t));
            });
            any
        };
        let Some(Stmt { kind: StmtKind::Dot(d), .. }) = rest.iter().find(touches) else { return false };
        let float = matches!(self.kernel.tiles[t.index()].dtype, DType::F32 | DType::F64);
        let reads = [&d.a, &d.b].iter().any(|o| o.memory == Memory::Tile(t));
        float && d.acc == t && !reads && self.mode.is_scalar() && self.calls(d).is_ok_and(|(outer, _)| outer == 0)
    }

    /// How many of the contraction's dims one call does not run over, and those that it is told of. In the left operand the dims of a call lie as one; in the right one too, but
    /// where they are those of floats in rows, whose places the call may be told.
    fn calls(&mut self, d: &Dot) -> Result<(usize, Rows)> {
        let place = self.place(d.a.memory)?;
        let a = self.distance(&place, &d.a.index)?;
        let place = self.place(d.b.memory)?;
        let (b, bytes) = (self.distance(&place, &d.b.index)?, place.dtype.size() as i64);
        let stride = |x: &Distance, v: VarId| match x.step(v).as_deref() {
            Some([]) => Some(0),
            Some([Coefficient { factor, stride: None }]) => Some(*factor),
            Some(_) | None => None,
        };
        let listed = matches!(place.dtype, DType::F32 | DType::F64) && stride(&b, d.column) == Some(bytes);
        let mut outer = d.contract.len().saturating_sub(1);
        let mut rows: Rows = SmallVec::new();
        let mut inner =
            d.contract.last().map_or(Some(1), |(_, n)| if let Extent::Const(n) = n { Some(*n as i64) } else { None });
        while let Some(i) = outer.checked_sub(1) {
            let ((v, Extent::Const(m)), (w, Extent::Const(n))) = (d.contract[i], d.contract[outer]) else { break };
            let continues = |x: &Distance| match (stride(x, v), stride(x, w)) {
                (Some(far), Some(near)) => far == near.wrapping_mul(n as i64),
                _ => false,
            };
            let (Some(far), Some(extent)) = (stride(&b, v), inner) else { break };
            if !continues(&a) {
                break;
            }
            if rows.is_empty() && continues(&b) {
                inner = Some(extent * m as i64);
            } else if listed {
                rows.insert(0, (m as i64, far));
            } else {
                break;
            }
            outer = i;
        }
        Ok((outer, rows))
    }

    /// The valid extent of a tile's dim.
    fn valid(&mut self, t: TileId, axis: usize) -> Result<Value> {
        let tile = &self.kernel.tiles[t.index()];
        let dim = Int::Const(tile.dims[axis] as i64);
        let valid = match tile.valid.get(axis).and_then(Option::as_ref) {
            None => dim,
            Some(limit) => {
                let limit = Int::Value(self.index_at(limit, 0)?);
                self.int_min(dim, limit)
            }
        };
        Ok(self.int_value(valid))
    }

    /// Loops over the outer contraction variables; the library runs over the others, which lie as one.
    fn contract(
        &mut self,
        d: &Dot,
        level: usize,
        (outer, rows): (usize, &[(i64, i64)]),
        callee: Callee,
        acc: [Value; 3],
        columns: i64,
    ) -> Result<()> {
        match d.contract.get(level) {
            Some(&(var, extent)) if level < outer => {
                let end = self.extent(extent);
                self.counted(Some(var), Int::Const(0), end, 1, Parts::new(), &mut |e, v, _| {
                    e.set_var(var, extent, false, v);
                    e.contract(d, level + 1, (outer, rows), callee, acc, columns).map(|()| Parts::new())
                })?;
                Ok(())
            }
            Some(_) | None => {
                let mut k = self.int(1);
                for &(_, extent) in &d.contract[level..] {
                    let extent = self.extent(extent);
                    let extent = self.int_value(extent);
                    k = self.ins().imul(k, extent);
                }
                if let Some(limit) = &d.limit {
                    let limit = Int::Value(self.index_at(limit, 0)?);
                    let least = self.int_min(Int::Value(k), limit);
                    k = self.int_value(least);
                }
                self.call_dot(d, (k, rows), callee, acc, columns)
            }
        }
    }

    fn call_dot(
        &mut self,
        d: &Dot,
        (k, rows): (Value, &[(i64, i64)]),
        callee: Callee,
        [m, n, base]: [Value; 3],
        columns: i64,
    ) -> Result<()> {
        let inner = d.contract.last().map(|c| c.0);
        let (row, vectors) = (self.int(columns), self.int(self.machine.vectors.word()));
        let (a, a_row, a_inner) = self.operand(&d.a, d.row, inner)?;
        let (b, b_column, b_inner) = self.operand(&d.b, d.column, inner)?;
        let fresh = self.zeros.take_if(|t| *t == d.acc).is_some();
        let fresh = self.int(i64::from(fresh));
        // Dims of rows stand behind the call.
        let words = DOT_WORDS + DIM_WORDS * rows.len();
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, words as u32 * 8, 3);
        let slot = self.func.create_sized_stack_slot(slot);
        let at = self.ins().stack_addr(types::I64, slot, 0);
        let b_outer = self.ins().stack_addr(types::I64, slot, DOT_WORDS as i32 * 8);
        let b_outers = self.int(rows.len() as i64);
        let bytes = self.place(d.b.memory)?.dtype.size() as i64;
        let dims: Vec<Value> = rows.iter().flat_map(|(n, far)| [*n, far / bytes]).map(|x| self.int(x)).collect();
        let words = [m, n, k, base, row, a, a_row, a_inner, b, b_inner, b_column, b_outer, b_outers, vectors, fresh];
        let flags = self.flags.tile;
        for (i, word) in words.into_iter().chain(dims).enumerate() {
            self.ins().store(flags, word, at, i as i32 * 8);
        }
        self.call(callee, &[at]);
        Ok(())
    }

    /// An operand's first element, and the distances in elements along its outer and the contraction variable.
    fn operand(&mut self, o: &DotOperand, outer: VarId, inner: Option<VarId>) -> Result<(Value, Value, Value)> {
        let place = self.place(o.memory)?;
        let distance = self.distance(&place, &o.index)?;
        let (at, offset) = self.address(place.base, &distance, 0)?;
        let at = self.ins().iadd_imm_s(at, i64::from(offset));
        let bytes = place.dtype.size() as i64;
        let outer = self.step(&distance, Some(outer), bytes)?;
        let inner = self.step(&distance, inner, bytes)?;
        Ok((at, outer, inner))
    }

    fn step(&mut self, distance: &Distance, v: Option<VarId>, bytes: i64) -> Result<Value> {
        let Some(v) = v else { return Ok(self.int(0)) };
        let steps = distance.step(v).ok_or_else(|| Error::internal("a dot's operand is not affine"))?;
        let mut sum = self.int(0);
        for Coefficient { factor, stride } in steps {
            let mut term = self.int(factor / bytes);
            if let Some(stride) = stride {
                term = self.ins().imul(stride, term);
            }
            sum = self.ins().iadd(sum, term);
        }
        Ok(sum)
    }
}
