//! Loops, and who runs their iterations.
//!
//! A loop over lanes, warps or threads gives each of them every n-th iteration (of a vector loop: every n-th group of neighbours). Where
//! the extent is known, a thread's own iterations are counted by a loop of constant length, which unrolls.

use super::memory::Wide;
use super::printer::Printer;
use lazuli_ir::index::Atom;
use lazuli_ir::kernel::{Access, Binding, Extent, Loop, Memory, Scope};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{Index, Result, VarId};

/// A thread's own iterations that are unrolled without being asked for.
const UNROLLED: u64 = 8;

/// Which numbers of a thread the loops around a statement count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) block: bool,
    pub(super) warp: bool,
    pub(super) lane: bool,
    /// Loops whose iterations follow each other.
    pub(super) serial: u32,
}

impl Place {
    pub(super) fn counts_threads(self) -> bool {
        self.block || self.warp || self.lane
    }

    /// The condition that holds for one of the threads that do the same here; none where each does something else.
    pub(super) fn one(self, threads: u64) -> Option<&'static str> {
        match (self.block || self.warp || threads == 32, self.block || self.lane) {
            (true, true) => None,
            (false, true) => Some("warp == 0"),
            (true, false) => Some("lane == 0"),
            (false, false) => Some("thread == 0"),
        }
    }
}

/// The iterations of a loop over threads.
pub(super) struct Iterations {
    pub(super) var: VarId,
    pub(super) extent: Extent,
    pub(super) step: u64,
    pub(super) limit: Option<Index>,
    pub(super) binding: Binding,
    pub(super) lanes: u32,
    pub(super) unroll: u32,
}

impl Iterations {
    fn of(l: &Loop) -> Iterations {
        let (binding, lanes, unroll) = (l.axis.binding, l.axis.vector, l.axis.unroll);
        Iterations { var: l.var, extent: l.extent, step: l.step, limit: l.limit.clone(), binding, lanes, unroll }
    }
}

/// What is printed for each element of a loop.
pub(super) type Each<'a, 'k> = &'a mut dyn FnMut(&mut Printer<'k>) -> Result<()>;

impl<'k> Printer<'k> {
    /// Takes `blockIdx.x` apart into the variables of the loops over the grid.
    pub(super) fn open_grid(&mut self, grid: &[&Loop]) {
        let ty = self.index_type;
        if grid.len() > 1 {
            self.line("unsigned block = blockIdx.x;");
        }
        for (i, l) in grid.iter().enumerate().rev() {
            let name = self.open_var(l.var, l.extent, l.step);
            let step = l.step.max(1);
            let number = match (grid.len(), i) {
                (1, _) => "blockIdx.x".to_owned(),
                (_, 0) => "block".to_owned(),
                _ => {
                    let count = match l.extent {
                        Extent::Const(n) => format!("{}u", n.div_ceil(step).max(1)),
                        Extent::Runtime(_) => {
                            format!("(unsigned)(({} + {}) / {step})", self.extent(l.extent), step - 1)
                        }
                    };
                    let text = format!("const {ty} {name} = ({ty})(block % {count}){};", times(step));
                    self.line(text);
                    self.line(format!("block /= {count};"));
                    continue;
                }
            };
            self.line(format!("const {ty} {name} = ({ty}){number}{};", times(step)));
        }
    }

    /// The number of a thread among those that share a loop, and how many they are.
    pub(super) fn sharing(&self, binding: Binding) -> Option<(&'static str, u64)> {
        match binding {
            Binding::Block => Some(("thread", self.threads)),
            Binding::Warp => Some(("warp", self.threads / 32)),
            Binding::Lane => Some(("lane", 32)),
            Binding::Serial | Binding::Parallel | Binding::Grid(_) => None,
        }
    }

    /// How many groups of `lanes` iterations out of `extent` a thread has at most.
    pub(super) fn own_iterations(&self, binding: Binding, extent: u64, lanes: u32) -> u64 {
        let count = self.sharing(binding).map_or(1, |s| s.1);
        extent.div_ceil(count * u64::from(lanes.max(1)))
    }

    pub(super) fn a_loop(&mut self, l: &Loop) -> Result<()> {
        let iterations = Iterations::of(l);
        let wide = self.wide_accesses(l.var, l.axis.vector, &l.body);
        self.iterate(&iterations, &wide, &mut |p| p.elements(&l.body, &wide))
    }

    /// Prints a loop around what is printed for each element.
    pub(super) fn iterate(&mut self, i: &Iterations, wide: &[Wide], each: Each<'_, 'k>) -> Result<()> {
        if i.extent == Extent::Const(0) {
            return Ok(());
        }
        let outer = self.place;
        match i.binding {
            Binding::Grid(_) => {
                return Err(self.wrong("a loop over the grid is not part of the perfect nest at the root"));
            }
            Binding::Parallel => return Err(self.wrong("a loop is shared by the threads of a CPU")),
            Binding::Serial => self.place.serial += 1,
            Binding::Block => {
                if outer.counts_threads() {
                    return Err(self.wrong("a loop over the threads of a block stands in one over threads"));
                }
                self.place.block = true;
            }
            Binding::Warp => {
                if outer.block || outer.warp {
                    return Err(self.wrong("a loop over warps stands in one over warps"));
                }
                self.place.warp = true;
            }
            Binding::Lane => {
                if outer.block || outer.lane {
                    return Err(self.wrong("a loop over lanes stands in one over lanes"));
                }
                self.place.lane = true;
            }
        }
        let done = self.iterate_here(i, wide, each);
        self.place = outer;
        done
    }

    fn iterate_here(&mut self, i: &Iterations, wide: &[Wide], each: Each<'_, 'k>) -> Result<()> {
        if i.lanes > 1 && i.step > 1 {
            return Err(self.wrong("a vector loop has steps"));
        }
        let ty = self.index_type;
        let own = i.extent.known().map(|n| self.own_iterations(i.binding, n.div_ceil(i.step.max(1)), i.lanes));
        let (number, count) = self.sharing(i.binding).unwrap_or(("", 1));
        let group = count * u64::from(i.lanes) * i.step;
        let name = self.open_var(i.var, i.extent, i.step);
        let limit = i.limit.as_ref().map(|x| self.index(x));
        // The first element of a group, where several are a vector.
        let first = if i.lanes > 1 { self.names.unique(&format!("{name}0")) } else { name.clone() };
        let start =
            if number.is_empty() { "0".into() } else { format!("{number}{}", times(u64::from(i.lanes) * i.step)) };
        let covered = i.extent.known().is_some_and(|n| n == own.unwrap_or(0) * group);
        let mut ends: Vec<String> = Vec::new();
        let mut counter = None;
        match own {
            Some(own) if !number.is_empty() || own == 1 => {
                if !covered {
                    ends.push(format!("{first} < {}", self.extent(i.extent)));
                }
                if let Some(limit) = &limit {
                    ends.push(format!("{first} < {limit}"));
                }
                if own > 1 {
                    let t = self.names.unique("t");
                    match own <= UNROLLED || self.has_registers(i.var) {
                        true => self.pragma("unroll"),
                        false => self.pragma(&format!("unroll {}", i.unroll.max(4))),
                    }
                    self.open(format!("for (int {t} = 0; {t} < {own}; {t}++)"));
                    self.line(format!("const {ty} {first} = {t} * {group} + {start};"));
                    counter = Some(t);
                } else {
                    self.open("");
                    self.line(format!("const {ty} {first} = {start};"));
                }
                if !ends.is_empty() {
                    self.open(format!("if ({})", ends.join(" && ")));
                }
            }
            _ => {
                ends.push(format!("{first} < {}", self.extent(i.extent)));
                if let Some(limit) = &limit {
                    ends.push(format!("{first} < {limit}"));
                }
                if i.unroll > 1 {
                    self.pragma(&format!("unroll {}", i.unroll));
                }
                self.open(format!("for ({ty} {first} = {start}; {}; {first} += {group})", ends.join(" && ")));
                ends.clear();
            }
        }
        let own_count = counter.clone().unwrap_or_else(|| "0".into());
        if i.lanes > 1 {
            self.vector_elements(i, wide, [&first, &name, &own_count], limit.as_deref(), each)?;
        } else {
            self.counters[i.var.0 as usize] = Some(own_count);
            each(self)?;
        }
        self.counters[i.var.0 as usize] = None;
        if !ends.is_empty() {
            self.close();
        }
        self.close();
        if let Some(t) = counter {
            self.names.release(&t);
        }
        if i.lanes > 1 {
            self.names.release(&first);
        }
        self.close_var(i.var);
        if i.binding == Binding::Lane && self.place.warp && self.writes_shared(i.var) {
            // Another lane may read it.
            self.line("__syncwarp(0xffffffffu);");
        }
        Ok(())
    }

    /// Prints the elements of one group of neighbours: vectors are read, elements computed, vectors written.
    fn vector_elements(
        &mut self,
        i: &Iterations,
        wide: &[Wide],
        [first, name, counter]: [&str; 3],
        limit: Option<&str>,
        each: Each<'_, 'k>,
    ) -> Result<()> {
        let (ty, lanes) = (self.index_type, i.lanes);
        let whole_groups = i.extent.known().is_some_and(|n| n.is_multiple_of(u64::from(lanes)))
            && i.limit.as_ref().is_none_or(|x| self.is_multiple(x, lanes));
        let var = i.var.0 as usize;
        let (whole, count) = if whole_groups {
            ("aligned".to_owned(), lanes.to_string())
        } else {
            let end = |e: &str| format!("const int count = (int)lz_min(({ty}){lanes}, ({ty})({e} - {first}));");
            let (extent, divides) =
                (self.extent(i.extent), i.extent.known().is_some_and(|n| n.is_multiple_of(u64::from(lanes))));
            match limit {
                Some(limit) if divides => self.line(end(&format!("({limit})"))),
                Some(limit) => self.line(end(&format!("lz_min(({ty}){extent}, ({ty})({limit}))"))),
                None => self.line(end(&extent)),
            }
            (format!("aligned && count == {lanes}"), "count".to_owned())
        };
        self.vars[var] = first.to_owned();
        self.open_wide(wide, lanes, &whole, &count);
        self.vars[var] = name.to_owned();
        self.counters[var] = Some(if counter == "0" { "e".into() } else { format!("{counter} * {lanes} + e") });
        self.pragma("unroll");
        self.open(format!("for (int e = 0; e < {lanes}; e++)"));
        if !whole_groups {
            self.open("if (e < count)");
        }
        self.line(format!("const {ty} {name} = {first} + e;"));
        each(self)?;
        if !whole_groups {
            self.close();
        }
        self.close();
        self.vars[var] = first.to_owned();
        self.close_wide(wide, lanes, &whole, &count);
        self.vars[var] = name.to_owned();
        Ok(())
    }

    /// Whether an index is a multiple of a number wherever it is computed.
    pub(super) fn is_multiple(&self, x: &Index, of: u32) -> bool {
        let n = i64::from(of);
        x.offset() % n == 0
            && x.terms().iter().all(|(atom, c)| match atom {
                Atom::Var(v) => c.wrapping_mul(self.steps[v.0 as usize] as i64) % n == 0,
                Atom::Mod(x, d) => c % n == 0 || (d % n == 0 && self.is_multiple(x, of)),
                Atom::Extent(_) | Atom::Div(..) => c % n == 0,
            })
    }

    /// Whether a loop indexes a register tile.
    fn has_registers(&self, v: VarId) -> bool {
        self.touches_tile(v, Scope::Register, &|_| true)
    }

    /// Whether a loop writes what a block shares.
    fn writes_shared(&self, v: VarId) -> bool {
        self.touches_tile(v, Scope::Block, &|access| access != Access::Read)
    }

    /// Whether tiles of a scope are touched at an index of a loop.
    fn touches_tile(&self, v: VarId, scope: Scope, how: &dyn Fn(Access) -> bool) -> bool {
        let mut found = false;
        for block in [&self.kernel.body, &self.kernel.finish] {
            for_each_statement(block, &mut |s| {
                found |= s.touches().iter().any(|t| match t.memory {
                    Memory::Tile(tile) => {
                        let own = self.kernel.tiles[tile.index()].scope == scope;
                        own && how(t.access) && t.index.iter().any(|x| x.mentions(v))
                    }
                    Memory::Param(_) => false,
                });
            });
        }
        found
    }
}

/// A factor of a product, where it is not 1.
pub(super) fn times(n: u64) -> String {
    if n == 1 { String::new() } else { format!(" * {n}") }
}
