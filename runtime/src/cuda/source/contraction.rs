//! `dot`: a call of the prelude's product of matrices, which brings both operands through shared memory and keeps the result
//! in registers until it is added to the tile.

use super::printer::Printer;
use super::types::c_type;
use lazuli_ir::Result;
use lazuli_ir::kernel::{Dot, DotOperand, Extent, ScalarType, Scope, StmtKind, TileId};
use lazuli_ir::kernel_walk::for_each_statement;

/// Elements of the result that a thread has in registers, of 32 bits each.
const REGISTERS: u64 = 64;
/// Elements of the contraction that are staged at a time where the kernel does not say.
const CHUNK: u64 = 32;
/// Bytes that the two staged operands may have.
const STAGE_BYTES: u64 = 36 << 10;

/// How a result is shared by the threads of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Rows and columns that all threads make at a time.
    block: [u64; 2],
    /// Those of one thread.
    own: [u64; 2],
    /// Elements of the contraction that are staged.
    chunk: u64,
}

impl Shape {
    /// The shape that wastes least: of threads on what is not there, of reads of shared memory on what is.
    fn of(rows: u64, columns: u64, ty: ScalarType, chunk: u64, threads: u64) -> Shape {
        let size = ty.dtype().size().max(4) as u64;
        let powers = |most: u64| (0..).map(|n| 1u64 << n).take_while(move |n| *n <= most);
        let mut best: Option<(u64, Shape)> = None;
        for (tm, tn, ty) in powers(8)
            .flat_map(|tm| powers(8).map(move |tn| (tm, tn)))
            .flat_map(|(tm, tn)| powers(threads).map(move |ty| (tm, tn, ty)))
        {
            let block = [ty * tm, threads / ty * tn];
            if tm * tn * size > REGISTERS * 4 || (block[0] + block[1] + 8) * 8 * size > STAGE_BYTES {
                continue;
            }
            let made = rows.next_multiple_of(block[0]) * columns.next_multiple_of(block[1]);
            // A multiplication costs one, an element of an operand two, by thread.
            let cost = made * (tm * tn + 2 * (tm + tn)) * 64 / (tm * tn);
            let mut chunk = if chunk == 0 { CHUNK } else { chunk };
            while chunk > 8 && (block[0] + block[1] + 8) * chunk * size > STAGE_BYTES {
                chunk /= 2;
            }
            let shape = Shape { block, own: [tm, tn], chunk };
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, shape));
            }
        }
        best.map_or(Shape { block: [16, threads / 16], own: [1, 1], chunk: 8 }, |b| b.1)
    }

    fn stage_elements(self) -> u64 {
        self.chunk * (self.block[0] + self.block[1] + 8)
    }
}

impl Printer<'_> {
    fn shape(&self, d: &Dot) -> Shape {
        let tile = &self.kernel.tiles[d.acc.index()];
        let dim = |i: usize| tile.dims.get(i).copied().unwrap_or(1).max(1);
        Shape::of(dim(0), dim(1), tile.dtype.into(), d.chunk, self.threads)
    }

    /// Bytes of shared memory through which operands come.
    pub(super) fn stage_bytes(&self) -> u64 {
        let mut most = 0;
        for_each_statement(&self.kernel.body, &mut |s| {
            if let StmtKind::Dot(d) = s {
                let size = self.kernel.tiles[d.acc.index()].dtype.size() as u64;
                most = most.max(self.shape(d).stage_elements() * size);
            }
        });
        most
    }

    pub(super) fn dot(&mut self, d: &Dot) -> Result<()> {
        let tile = &self.kernel.tiles[d.acc.index()];
        if tile.scope != Scope::Block || self.place.counts_threads() {
            return Err(self.wrong("the result of a contraction is not shared by a block"));
        }
        let (ty, size, shape) = (tile.dtype.into(), tile.dims.clone(), self.shape(d));
        if d.limit.is_some() || d.contract.iter().any(|(_, e)| e.known().is_none()) {
            return Err(self.wrong("a contraction is as long as something at run time says"));
        }
        let depth: u64 = d.contract.iter().filter_map(|(_, e)| e.known()).product();
        if depth == 0 {
            return Ok(());
        }
        let rows = self.valid(d.acc, 0);
        let columns = self.valid(d.acc, 1);
        let row = self.open_var(d.row, Extent::Const(size[0]), 1);
        let column = self.open_var(d.column, Extent::Const(size[1]), 1);
        let inner: Vec<String> = d.contract.iter().map(|(v, e)| self.open_var(*v, *e, 1)).collect();
        let linear = if inner.len() == 1 { inner[0].clone() } else { self.names.unique("k") };
        let a = self.operand(&d.a, d, &row, &linear, &inner, false)?;
        let b = self.operand(&d.b, d, &column, &linear, &inner, true)?;
        let along = [&d.a, &d.b]
            .map(|o| d.contract.last().is_some_and(|(v, _)| self.stride_along(o.memory, &o.index, *v) == Some(1)));
        if inner.len() != 1 {
            self.names.release(&linear);
        }
        for v in [d.row, d.column].into_iter().chain(d.contract.iter().map(|c| c.0)) {
            self.close_var(v);
        }
        let acc = self.tiles[d.acc.index()].name.clone();
        let ([bm, bn], [tm, tn], bk) = (shape.block, shape.own, shape.chunk);
        self.line(format!("lz_dot<{}, {bm}, {bn}, {bk}, {tm}, {tn}, {}, {}>(", c_type(ty), along[0], along[1]));
        self.lines.depth += 1;
        self.line(format!("{acc}, {}, {rows}, {columns}, {depth}, ({}*)stage,", size[1], c_type(ty)));
        self.line(format!("{a},"));
        self.line(format!("{b});"));
        self.lines.depth -= 1;
        Ok(())
    }

    /// How much of a tile's dim is valid.
    fn valid(&self, t: TileId, d: usize) -> String {
        let tile = &self.kernel.tiles[t.index()];
        match tile.valid.get(d).and_then(Option::as_ref) {
            None => tile.dims[d].to_string(),
            Some(limit) => format!("(int)lz_min((long long){}, {})", tile.dims[d], self.wide_index(limit)),
        }
    }

    /// An operand as a function of its row or column and of the position in the contraction.
    fn operand(
        &self,
        o: &DotOperand,
        d: &Dot,
        outer: &str,
        linear: &str,
        inner: &[String],
        right: bool,
    ) -> Result<String> {
        let value = self.loaded(o.memory, &self.element(o.memory, &o.index)?);
        let mut parts = String::new();
        if inner.len() > 1 {
            let mut rest = linear.to_owned();
            for (i, (_, extent)) in d.contract.iter().enumerate().rev() {
                let (name, extent) = (&inner[i], self.extent(*extent));
                let value = if i == 0 { rest.clone() } else { format!("{rest} % {extent}") };
                parts.push_str(&format!("const int {name} = {value}; "));
                rest = format!("{rest} / {extent}");
            }
        }
        let arguments = if right { [linear, outer] } else { [outer, linear] };
        Ok(format!("[&](int {}, int {}) {{ {parts}return {value}; }}", arguments[0], arguments[1]))
    }
}
