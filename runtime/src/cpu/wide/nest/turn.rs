//! Squares that are copied across, rows of one tile to columns of another: they turn in registers, so that memory is read and
//! written in whole vectors.

use super::super::Family;
use super::super::code::{Count, Masking, Op, Reg};
use super::super::table::Vector;
use super::{Nest, Regs};
use lazuli_ir::kernel::{Expr, Kernel, Loop, Memory, ScalarType, StmtKind, TileId};
use lazuli_ir::{DType, Index};

/// Two loops that copy a tile's element `[across, along]` to `[along, across]` of another, for all of both.
pub(super) struct Turn<'k> {
    across: &'k Loop,
    along: &'k Loop,
    from: (TileId, &'k [Index]),
    to: (TileId, &'k [Index]),
    ty: ScalarType,
    /// Rows and columns of a block: all lanes of a vector.
    lanes: u32,
}

impl<'k> Turn<'k> {
    /// The square that a loop turns, where it does nothing else.
    pub(super) fn of(kernel: &'k Kernel, l: &'k Loop, family: Family) -> Option<Turn<'k>> {
        let [inner] = l.body.as_slice() else { return None };
        let StmtKind::Loop(m) = &inner.kind else { return None };
        let [first, second] = m.body.as_slice() else { return None };
        let StmtKind::Let(v, Expr::Load { from: Memory::Tile(from), index: read, mask: None }) = &first.kind else {
            return None;
        };
        let StmtKind::Store { to: Memory::Tile(to), index: written, value, mask: None } = &second.kind else {
            return None;
        };
        let (across, along) = (Index::var(l.var), Index::var(m.var));
        let crosswise = read.as_slice() == [across.clone(), along.clone()] && written.as_slice() == [along, across];
        let dtype = kernel.tiles[from.index()].dtype;
        let bytes = match (dtype, family) {
            (DType::F32 | DType::I32, _) => 4,
            (DType::F64 | DType::I64, Family::Avx512) => 8,
            _ => return None,
        };
        let lanes = family.bytes() / bytes;
        let (rows, columns) = (l.extent.known()?, m.extent.known()?);
        // What is left of a loop may be less: then more of both tiles is copied, which nobody reads.
        let whole = |t: TileId, dims: [u64; 2]| {
            let own = &kernel.tiles[t.index()];
            own.dtype == dtype && own.dims.len() == 2 && own.dims.iter().zip(dims).all(|(have, want)| *have >= want)
        };
        let fits = whole(*from, [rows, columns]) && whole(*to, [columns, rows]);
        let blocks = [rows, columns].iter().all(|n| n.is_multiple_of(u64::from(lanes)));
        let steps = l.step == 1 && m.step == 1;
        (v == value && crosswise && fits && blocks && steps).then_some(Turn {
            across: l,
            along: m,
            from: (*from, read),
            to: (*to, written),
            ty: dtype.into(),
            lanes,
        })
    }
}

impl Nest<'_> {
    /// Copies a square, a block at a time.
    pub(super) fn turn(&mut self, turn: &Turn<'_>) {
        self.too_narrow |= turn.lanes < self.lanes;
        self.unfit |= turn.lanes > self.lanes;
        if self.unfit || self.too_narrow {
            return;
        }
        let (lanes, extent) = (i64::from(turn.lanes), |l: &Loop| Count::Const(l.extent.known().unwrap_or(0) as i64));
        let (rows, columns) = ((Count::Const(0), extent(turn.across)), (Count::Const(0), extent(turn.along)));
        self.counted(rows, lanes, false, &mut |e, row| {
            e.vars.insert(turn.across.var, row);
            e.counted(columns, lanes, false, &mut |e, column| {
                e.vars.insert(turn.along.var, column);
                e.turn_block(turn);
                e.vars.remove(&turn.along.var);
            });
            e.vars.remove(&turn.across.var);
        });
    }

    fn turn_block(&mut self, turn: &Turn<'_>) {
        let (bytes, class) = (self.bytes(turn.ty), self.class(turn.ty));
        let size = bytes / turn.lanes;
        let row_bytes = |t: TileId| self.kernel.tiles[t.index()].dims[1] as i32 * size as i32;
        let (from_row, to_row) = (row_bytes(turn.from.0), row_bytes(turn.to.0));
        let places = [turn.from, turn.to].map(|(t, index)| self.access(Memory::Tile(t), index));
        let [Some(from), Some(to)] = places else {
            self.unfit = true;
            return;
        };
        let mut rows = Regs::new();
        for i in 0..turn.lanes as i32 {
            let mut address = from.address;
            address.offset += i * from_row;
            rows.push(self.read(Op::Vector(Vector::Load32, bytes), class, address, Masking::All, false));
        }
        for (i, r) in self.turned(turn.ty, rows, size).into_iter().enumerate() {
            let mut address = to.address;
            address.offset += i as i32 * to_row;
            self.write(Op::Vector(Vector::Store32, bytes), &[r], address, None, None);
        }
    }

    /// Columns of rows, as many as a vector has lanes: within quarters of 16 bytes, then quarters as wholes.
    fn turned(&mut self, ty: ScalarType, mut x: Regs, size: u32) -> Regs {
        // Pairs of neighbours, then pairs of pairs: afterwards a quarter holds a column of `group` rows.
        let group = (16 / size) as usize;
        if size == 4 {
            x = self.paired(ty, &x, [Vector::UnpackLow32, Vector::UnpackHigh32]);
            x = x.chunks(4).flat_map(|c| [c[0], c[2], c[1], c[3]]).collect();
        }
        x = self.paired(ty, &x, [Vector::UnpackLow64, Vector::UnpackHigh64]);
        let count = x.len();
        let mut out: Regs = x.clone();
        for c in 0..group {
            let own: Regs = (c..count).step_by(group).map(|i| x[i]).collect();
            for (q, r) in self.quarters(ty, &own).into_iter().enumerate() {
                out[q * group + c] = r;
            }
        }
        out
    }

    /// What two instructions give of each pair of neighbours.
    fn paired(&mut self, ty: ScalarType, x: &Regs, both: [Vector; 2]) -> Regs {
        x.chunks(2)
            .flat_map(|pair| both.map(|v| (v, [pair[0], pair[1]])))
            .map(|(v, p)| self.op(v, ty, &p, None))
            .collect()
    }

    /// The first quarters of some vectors, their second ones, and so on.
    fn quarters(&mut self, ty: ScalarType, x: &Regs) -> Regs {
        let mut swap = |a: Reg, b: Reg, which: i32| self.op(Vector::SwapQuarters, ty, &[a, b], Some(which));
        match *x.as_slice() {
            [a, b] => [swap(a, b, 0x20), swap(a, b, 0x31)].into_iter().collect(),
            [a, b, c, d] => {
                let (even, even2) = (swap(a, b, 0x88), swap(c, d, 0x88));
                let (odd, odd2) = (swap(a, b, 0xdd), swap(c, d, 0xdd));
                let halves = [(even, even2, 0x88), (odd, odd2, 0x88), (even, even2, 0xdd), (odd, odd2, 0xdd)];
                halves.into_iter().map(|(a, b, which)| swap(a, b, which)).collect()
            }
            // Vectors have two or four quarters.
            _ => x.clone(),
        }
    }
}
