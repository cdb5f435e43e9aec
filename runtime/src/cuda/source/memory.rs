//! Loads, stores and tiles.
//!
//! A tile of one thread is an array of it; one of the block lies in shared memory. A register tile is indexed by a loop over
//! threads: each thread has an array of its own elements alone, which its own count of iterations indexes, so that it stays in
//! registers once those loops are unrolled.

use super::printer::Printer;
use super::types::{literal, loaded, memory_type, stored, tile_type};
use lazuli_ir::half_code::Half;
use lazuli_ir::kernel::{
    Access, Binding, Block, Expr, Loop, Memory, ParamId, Reduce, ScalarType, Scope, StmtKind, TileId, ValueId,
};
use lazuli_ir::{DType, Index, Literal, Result, VarId};

/// A tile in the text.
#[derive(Clone, Debug, Default)]
pub(super) struct TileText {
    pub(super) name: String,
    /// Of a register tile, the elements that a thread has.
    pub(super) own: u64,
}

/// A load or store of neighbouring elements by neighbouring iterations of a vector loop.
pub(super) struct Wide {
    /// Which statement of the loop's body.
    pub(super) statement: usize,
    pub(super) param: usize,
    pub(super) index: Vec<Index>,
    pub(super) stores: bool,
    /// The vector's name.
    pub(super) name: String,
}

impl Printer<'_> {
    /// What is known of tiles before anything is printed: how many elements of a register tile a thread has.
    pub(super) fn tile_texts(&mut self) -> Result<Vec<TileText>> {
        let kernel = self.kernel;
        let mut texts = vec![TileText::default(); kernel.tiles.len()];
        let mut loops = Vec::new();
        for block in [&kernel.body, &kernel.finish] {
            self.own_elements(block, &mut loops, &mut texts)?;
        }
        Ok(texts)
    }

    fn own_elements(
        &self,
        block: &Block,
        loops: &mut Vec<(VarId, Binding, u64, u32)>,
        texts: &mut [TileText],
    ) -> Result<()> {
        for s in block {
            for touch in s.kind.touches() {
                let Memory::Tile(t) = touch.memory else { continue };
                if self.kernel.tiles[t.index()].scope != Scope::Register {
                    continue;
                }
                let var = match touch.index {
                    [x] => x.as_var(),
                    _ => None,
                };
                let Some(l) = var.and_then(|v| loops.iter().find(|l| l.0 == v)) else {
                    return Err(self.wrong("a register tile is not indexed by one loop over threads"));
                };
                texts[t.index()].own = self.own_iterations(l.1, l.2, l.3) * u64::from(l.3);
            }
            let depth = loops.len();
            match &s.kind {
                StmtKind::Loop(Loop { var, extent, axis, .. }) => {
                    loops.push((*var, axis.binding, extent.known().unwrap_or(0), axis.vector));
                }
                StmtKind::Reduce(Reduce { vars, axis, .. }) => {
                    let [(var, extent)] = vars.as_slice() else { continue };
                    loops.push((*var, axis.binding, extent.known().unwrap_or(0), axis.vector));
                }
                _ => {}
            }
            if let Some(body) = s.kind.body() {
                self.own_elements(body, loops, texts)?;
            }
            loops.truncate(depth);
        }
        Ok(())
    }

    pub(super) fn declare_tile(&mut self, t: TileId) -> Result<()> {
        let tile = &self.kernel.tiles[t.index()];
        let name = self.names.unique(&tile.name);
        self.tiles[t.index()].name.clone_from(&name);
        let (ty, n) = (tile_type(tile.dtype), tile.dims.iter().product::<u64>());
        match tile.scope {
            Scope::Register => {
                let own = self.tiles[t.index()].own.max(1);
                self.line(format!("{ty} {name}[{own}];"));
            }
            Scope::Thread => self.line(format!("{ty} {name}[{}];", n.max(1))),
            Scope::Block => self.share(ty, tile.dtype.size(), &name, n),
        }
        Ok(())
    }

    /// Declares an array in shared memory, of elements of a C type.
    pub(super) fn share(&mut self, ty: &str, size: usize, name: &str, n: u64) {
        let (offset, n) = (self.shared, n.max(1));
        self.shared += (n * size as u64).next_multiple_of(16);
        self.line(match self.dynamic {
            false => format!("__shared__ __align__(16) {ty} {name}[{n}];"),
            true => format!("{ty}* const {name} = ({ty}*)(lz_shared + {offset});"),
        });
    }

    pub(super) fn fill(&mut self, t: TileId, c: Literal) -> Result<()> {
        let tile = &self.kernel.tiles[t.index()];
        let (name, value) = (self.tiles[t.index()].name.clone(), stored(tile.dtype, &literal(c.in_kernel())));
        let n: u64 = tile.dims.iter().product();
        let (start, end, step) = match tile.scope {
            Scope::Register => (String::from("0"), self.tiles[t.index()].own, 1),
            Scope::Thread => (String::from("0"), n, 1),
            Scope::Block if self.place.counts_threads() => {
                return Err(self.wrong("a loop over threads fills what they share"));
            }
            Scope::Block => (String::from("thread"), n, self.threads),
        };
        if tile.scope == Scope::Register {
            self.pragma("unroll");
        }
        self.line(format!("for (int n = {start}; n < {end}; n += {step}) {name}[n] = {value};"));
        Ok(())
    }

    /// An element of a tile.
    pub(super) fn tile_element(&self, t: TileId, index: &[Index]) -> Result<String> {
        let name = &self.tiles[t.index()].name;
        if self.kernel.tiles[t.index()].scope == Scope::Register {
            let own = index.first().and_then(Index::as_var).and_then(|v| self.counters[v.0 as usize].clone());
            return match own {
                Some(own) => Ok(format!("{name}[{own}]")),
                None => Err(self.wrong("a register tile is indexed by no loop over threads")),
            };
        }
        Ok(format!("{name}[{}]", self.index(&self.tile_index(t, index))))
    }

    /// An element of memory, as C names it.
    pub(super) fn element(&self, memory: Memory, index: &[Index]) -> Result<String> {
        match memory {
            Memory::Param(p) => {
                let address = self.address(p.index(), index);
                Ok(format!("{}[{}]", self.params[p.index()], self.address_text(&address)))
            }
            Memory::Tile(t) => self.tile_element(t, index),
        }
    }

    /// A value read from memory.
    pub(super) fn load(&self, ty: ScalarType, from: Memory, index: &[Index], mask: Option<ValueId>) -> Result<String> {
        if self.nothing {
            return Ok(literal(Literal::zero(ty.dtype())));
        }
        let value = self.loaded(from, &self.element(from, index)?);
        Ok(match mask {
            None => value,
            Some(m) => format!("{} ? {value} : {}", self.value(m), literal(Literal::zero(ty.dtype()))),
        })
    }

    /// An element as a value.
    pub(super) fn loaded(&self, from: Memory, element: &str) -> String {
        match from {
            Memory::Param(p) => loaded(self.kernel.params[p.index()].dtype, element),
            // Truth values are such in tiles.
            Memory::Tile(t) if self.kernel.tiles[t.index()].dtype == DType::Bool => element.to_owned(),
            Memory::Tile(t) => loaded(self.kernel.tiles[t.index()].dtype, element),
        }
    }

    /// A value as it is written to memory.
    pub(super) fn stored(&self, to: Memory, value: ValueId) -> String {
        let dtype = match to {
            Memory::Param(p) => self.kernel.params[p.index()].dtype,
            Memory::Tile(t) => self.kernel.tiles[t.index()].dtype,
        };
        let exact = self.rounded.get(&value).filter(|(half, _)| Half::of(dtype) == Some(*half)).map(|r| r.1);
        stored(dtype, &self.value(exact.unwrap_or(value)))
    }

    pub(super) fn store(&mut self, to: Memory, index: &[Index], value: ValueId, mask: Option<ValueId>) -> Result<()> {
        if self.nothing {
            return Ok(());
        }
        let element = self.element(to, index)?;
        let text = self.stored(to, value);
        let own = matches!(to, Memory::Tile(t) if self.kernel.tiles[t.index()].scope != Scope::Block);
        // What every thread has, one thread stores; what is a thread's own, it stores itself.
        let one = if own { None } else { self.place.one(self.threads) };
        let mask = mask.map(|m| self.value(m));
        let conditions: Vec<&str> = one.into_iter().chain(mask.as_deref()).collect();
        match conditions.is_empty() {
            true => self.line(format!("{element} = {text};")),
            false => self.line(format!("if ({}) {element} = {text};", conditions.join(" && "))),
        }
        Ok(())
    }

    /// The statements of a vector loop over `v` that read or write neighbours together.
    pub(super) fn wide_accesses(&mut self, v: VarId, lanes: u32, body: &Block) -> Vec<Wide> {
        let mut wide = Vec::new();
        if lanes == 1 || self.nothing {
            return wide;
        }
        for (statement, s) in body.iter().enumerate() {
            let (memory, index, stores) = match &s.kind {
                StmtKind::Let(_, Expr::Load { from, index, mask: None }) => (*from, index, false),
                StmtKind::Store { to, index, mask: None, .. } => (*to, index, true),
                _ => continue,
            };
            let Memory::Param(p) = memory else { continue };
            let param = p.index();
            if self.kernel.params[param].access == Access::ReadWrite || !self.is_wide(param, index, v, lanes) {
                continue;
            }
            let name = self.names.unique(&format!("{}_{lanes}", self.params[param]));
            self.vectors.insert(param);
            wide.push(Wide { statement, param, index: index.clone(), stores, name });
        }
        wide
    }

    /// Whether neighbours along a variable are neighbours in memory, and each group of them starts at a whole one.
    fn is_wide(&self, param: usize, index: &[Index], v: VarId, lanes: u32) -> bool {
        let address = self.address(param, index);
        let start = address.sum.add_scaled(&v.into(), -1);
        address.products.is_empty() && !start.mentions(v) && self.is_multiple(&start, lanes)
    }

    /// Reads the vectors of a loop, or declares those that are written; `first` is the first of the elements.
    pub(super) fn open_wide(&mut self, wide: &[Wide], lanes: u32, whole: &str, count: &str) {
        for w in wide {
            let ty = memory_type(self.kernel.params[w.param].dtype);
            let name = &w.name;
            if w.stores {
                self.line(format!("lz_vector<{ty}, {lanes}> {name};"));
                continue;
            }
            let (from, at) = (&self.params[w.param], self.address_text(&self.address(w.param, &w.index)));
            let text =
                format!("const lz_vector<{ty}, {lanes}> {name} = lz_read<{lanes}>(&{from}[{at}], {whole}, {count});");
            self.line(text);
        }
    }

    /// Defines a value as its element of a vector.
    pub(super) fn define_part(&mut self, v: ValueId, w: &Wide) {
        let text = loaded(self.kernel.params[w.param].dtype, &format!("{}.at[e]", w.name));
        self.define_as(v, &text);
    }

    /// Puts a value into a vector.
    pub(super) fn store_part(&mut self, value: ValueId, w: &Wide) {
        let text = self.stored(Memory::Param(ParamId(w.param as u32)), value);
        self.line(format!("{}.at[e] = {text};", w.name));
    }

    /// Writes the vectors of a loop.
    pub(super) fn close_wide(&mut self, wide: &[Wide], lanes: u32, whole: &str, count: &str) {
        for w in wide.iter().filter(|w| w.stores) {
            let (to, name) = (&self.params[w.param], &w.name);
            let at = self.address_text(&self.address(w.param, &w.index));
            self.line(format!("lz_write<{lanes}>(&{to}[{at}], {name}, {whole}, {count});"));
        }
        for w in wide {
            self.names.release(&w.name);
        }
    }
}
