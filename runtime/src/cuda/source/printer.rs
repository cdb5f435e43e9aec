//! The function around a kernel's statements, and the statements in order.

use super::memory::{TileText, Wide};
use super::nest::Place;
use super::types::{Names, c_type, literal, memory_type};
use super::{Launch, Source};
use lazuli_ir::half_code::Half;
use lazuli_ir::kernel::{
    Access, Binding, Block, Emit, Expr, Extent, Kernel, Reduce, ScalarType, Scope, Stmt, StmtKind, Stride, ValueId,
};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{DType, Error, Result, Sources, VarId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;

/// Threads of a block at most where nothing asks for more.
const THREADS: u64 = 256;
/// Bytes of shared memory that a kernel may declare; more is given at the launch.
const STATIC_SHARED: u64 = 48 << 10;

/// Text under construction.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) text: String,
    pub(super) depth: usize,
}

pub(super) struct Printer<'k> {
    pub(super) kernel: &'k Kernel,
    pub(super) lines: Lines,
    pub(super) names: Names,
    pub(super) types: Vec<ScalarType>,
    /// What stands for each value: a name or a constant.
    pub(super) values: Vec<String>,
    pub(super) params: Vec<String>,
    pub(super) strides: Vec<Vec<Option<String>>>,
    pub(super) extents: Vec<String>,
    pub(super) scalars: Vec<String>,
    /// The names of loop variables, while they are in scope.
    pub(super) vars: Vec<String>,
    /// Which of its own iterations a thread runs, for variables of loops over threads.
    pub(super) counters: Vec<Option<String>>,
    pub(super) ranges: Vec<(i64, i64)>,
    /// What values of a variable are multiples of.
    pub(super) steps: Vec<u64>,
    pub(super) tiles: Vec<TileText>,
    pub(super) index_type: &'static str,
    pub(super) functions: Functions,
    pub(super) threads: u64,
    pub(super) place: Place,
    /// The parameters that vectors are read from or written to.
    pub(super) vectors: BTreeSet<usize>,
    /// What was rounded to a half, and to which: a store to that half rounds by itself.
    pub(super) rounded: FxHashMap<ValueId, (Half, ValueId)>,
    /// Bytes of shared memory given at the launch, where the kernel declares none.
    pub(super) dynamic: Option<u64>,
    /// Whether an index stands for an element of nothing: nothing is read or written.
    pub(super) nothing: bool,
    pub(super) error: Option<Error>,
}

/// Functions that the kernel calls and the prelude does not have.
#[derive(Default)]
pub(super) struct Functions {
    pub(super) known: FxHashSet<String>,
    pub(super) text: String,
}

impl Emit for Printer<'_> {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        self.types.push(ty);
        self.values.push(String::new());
        let v = ValueId(self.types.len() as u32 - 1);
        if let Err(e) = self.define(v, &expr) {
            self.error.get_or_insert(e);
        }
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.types[v.index()]
    }
}

/// Prints a kernel.
pub(super) fn print(kernel: &Kernel, name: &str) -> Result<Source> {
    let mut p = Printer::new(kernel)?;
    p.lines.depth = 1;
    let (grid, partial_words) = p.root()?;
    if let Some(e) = p.error.take() {
        return Err(e);
    }
    let checks = holds(kernel, &|s| matches!(s, StmtKind::Check { .. }));
    let mut text = std::mem::take(&mut p.functions.text);
    if !kernel.sources.is_empty() {
        text.push_str(&format!("// {}: {}\n", kernel.name, kernel.sources));
    }
    let arguments = p.arguments(checks, partial_words > 0).join(", ");
    // That one block a multiprocessor will do keeps the compiler from spilling registers for the sake of more.
    text.push_str(&format!(
        "extern \"C\" __global__ void __launch_bounds__({}, 1) {name}({arguments}) {{\n",
        p.threads
    ));
    text.push_str(&p.prologue());
    text.push_str(&p.lines.text);
    text.push_str("}\n");
    let shared_bytes = p.dynamic.unwrap_or(0) as u32;
    let launch = Launch { grid, threads: p.threads as u32, shared_bytes, partial_words };
    Ok(Source { name: name.to_owned(), text, launch })
}

fn holds(kernel: &Kernel, what: &dyn Fn(&StmtKind) -> bool) -> bool {
    let mut found = false;
    for block in [&kernel.body, &kernel.finish] {
        for_each_statement(block, &mut |s| found |= what(s));
    }
    found
}

/// The threads of a block that have something to do.
fn threads(kernel: &Kernel) -> u64 {
    let mut most = 32;
    let wanted = |binding: Binding, extent: Option<u64>, vector: u32| match binding {
        Binding::Block => {
            let n = extent.map_or(THREADS, |n| n.div_ceil(u64::from(vector)));
            // Long rows have few blocks: a thread has about eight groups of elements.
            if n > THREADS { (n / 8).next_power_of_two().clamp(THREADS, 4 * THREADS) } else { n }
        }
        Binding::Grid(_) => THREADS,
        Binding::Warp => extent.map_or(THREADS, |n| n.saturating_mul(32)).min(THREADS),
        Binding::Lane | Binding::Serial | Binding::Parallel => 32,
    };
    for block in [&kernel.body, &kernel.finish] {
        for_each_statement(block, &mut |s| match s {
            StmtKind::Loop(l) if !matches!(l.axis.binding, Binding::Grid(_)) => {
                let iterations = l.extent.known().map(|n| n.div_ceil(l.step.max(1)));
                most = most.max(wanted(l.axis.binding, iterations, l.axis.vector));
            }
            StmtKind::Reduce(r) => {
                let all = r.vars.iter().map(|(_, e)| e.known()).try_fold(1u64, |n, e| Some(n.saturating_mul(e?)));
                most = most.max(wanted(r.axis.binding, all, r.axis.vector));
            }
            StmtKind::Dot(_) => most = most.max(THREADS),
            _ => {}
        });
    }
    most.next_multiple_of(32)
}

impl<'k> Printer<'k> {
    fn new(kernel: &'k Kernel) -> Result<Printer<'k>> {
        let mut names = Names::new();
        let params: Vec<String> = kernel.params.iter().map(|p| names.unique(&p.name)).collect();
        let mut strides = Vec::new();
        for (p, name) in kernel.params.iter().zip(&params) {
            let one = |(d, s): (usize, &Stride)| match s {
                Stride::Const(_) => None,
                Stride::Runtime => Some(names.unique(&format!("{name}_stride{d}"))),
            };
            strides.push(p.strides.iter().enumerate().map(one).collect());
        }
        let extents = kernel.extents.iter().map(|e| names.unique(e)).collect();
        let scalars = kernel.scalars.iter().map(|s| names.unique(&s.name)).collect();
        let small = |e: &Extent| e.known().is_some_and(|n| n < 1 << 31);
        let mut narrow = kernel.params.iter().all(|p| p.dims.iter().all(small));
        for block in [&kernel.body, &kernel.finish] {
            for_each_statement(block, &mut |s| match s {
                StmtKind::Loop(l) => narrow &= small(&l.extent),
                StmtKind::Reduce(r) => narrow &= r.vars.iter().all(|(_, e)| small(e)),
                _ => {}
            });
        }
        let n = kernel.vars.len();
        let mut p = Printer {
            kernel,
            lines: Lines::default(),
            names,
            types: kernel.values.clone(),
            values: vec![String::new(); kernel.values.len()],
            params,
            strides,
            extents,
            scalars,
            vars: vec![String::new(); n],
            counters: vec![None; n],
            ranges: vec![(0, 0); n],
            steps: vec![1; n],
            tiles: Vec::new(),
            index_type: if narrow { "int" } else { "long long" },
            functions: Functions::default(),
            threads: threads(kernel),
            place: Place::default(),
            vectors: BTreeSet::new(),
            rounded: FxHashMap::default(),
            dynamic: None,
            nothing: false,
            error: None,
        };
        p.tiles = p.tile_texts()?;
        if p.shared_bytes() > STATIC_SHARED {
            p.dynamic = Some(0);
        }
        Ok(p)
    }

    /// Bytes of shared memory of tiles and contractions.
    fn shared_bytes(&self) -> u64 {
        let kernel = self.kernel;
        let tiles = kernel.tiles.iter().filter(|t| t.scope == Scope::Block);
        let tiles: u64 = tiles.map(|t| t.dims.iter().product::<u64>() * t.dtype.size() as u64).sum();
        tiles + self.stage_bytes()
    }

    fn arguments(&self, checks: bool, partials: bool) -> Vec<String> {
        let mut out = Vec::new();
        for (p, name) in self.kernel.params.iter().zip(&self.params) {
            let constant = if p.access == Access::Read { "const " } else { "" };
            out.push(format!("{constant}{}* {name}", memory_type(p.dtype)));
        }
        out.extend(self.strides.iter().flatten().flatten().map(|s| format!("long long {s}")));
        out.extend(self.extents.iter().map(|e| format!("long long {e}")));
        let scalars = self.kernel.scalars.iter().zip(&self.scalars);
        out.extend(scalars.map(|(s, name)| format!("{} {name}", c_type(s.dtype.into()))));
        if checks {
            out.push("lz_status* status".into());
        }
        if partials {
            out.extend(["unsigned long long* partials".into(), "unsigned* ticket".into()]);
        }
        out
    }

    /// What stands before the statements: the numbers of the thread, and whether vectors may be read.
    fn prologue(&self) -> String {
        let mut out = String::new();
        let uses = |word: &str| mentions(&self.lines.text, word);
        if uses("thread") {
            out.push_str("    const int thread = (int)threadIdx.x;\n");
        }
        if uses("lane") {
            out.push_str("    const int lane = (int)threadIdx.x % 32;\n");
        }
        if uses("warp") {
            out.push_str("    const int warp = (int)threadIdx.x / 32;\n");
        }
        if !self.vectors.is_empty() {
            let all: Vec<String> = self.vectors.iter().map(|p| format!("lz_aligned({})", self.params[*p])).collect();
            out.push_str(&format!("    const bool aligned = {};\n", all.join(" && ")));
        }
        if self.dynamic.is_some() {
            out.push_str("    extern __shared__ __align__(16) unsigned char lz_shared[];\n");
        }
        out
    }

    /// Prints body and finish. Gives the grid and the words of a partial result.
    fn root(&mut self) -> Result<(Vec<(Extent, u64)>, u32)> {
        let kernel = self.kernel;
        match self.stage_bytes() {
            0 => {}
            bytes => self.shared(DType::U8, "stage", bytes),
        }
        if let [Stmt { kind: StmtKind::Reduce(r), sources }] = kernel.body.as_slice()
            && matches!(r.axis.binding, Binding::Grid(_))
        {
            self.comment(sources);
            return self.partial_reduce(r);
        }
        let mut grid = Vec::new();
        let mut block = &kernel.body;
        while let [Stmt { kind: StmtKind::Loop(l), .. }] = block.as_slice()
            && matches!(l.axis.binding, Binding::Grid(_))
            && l.limit.is_none()
        {
            grid.push(l);
            block = &l.body;
        }
        self.open_grid(&grid);
        self.block(block)?;
        if !kernel.finish.is_empty() {
            // Nothing in it depends on the body: any block can run it.
            if !grid.is_empty() {
                self.open("if (blockIdx.x == 0)");
            }
            self.block(&kernel.finish)?;
            if !grid.is_empty() {
                self.close();
            }
        }
        Ok((grid.iter().map(|l| (l.extent, l.step)).collect(), 0))
    }

    pub(super) fn line(&mut self, text: impl AsRef<str>) {
        let indent = 4 * self.lines.depth;
        let text = text.as_ref();
        self.lines.text.push_str(&format!("{:indent$}{text}\n", ""));
    }

    /// A line as it stands at the margin.
    pub(super) fn pragma(&mut self, text: &str) {
        self.lines.text.push_str(&format!("#pragma {text}\n"));
    }

    /// Opens a block behind a head, which may be empty.
    pub(super) fn open(&mut self, head: impl AsRef<str>) {
        match head.as_ref() {
            "" => self.line("{"),
            head => self.line(format!("{head} {{")),
        }
        self.lines.depth += 1;
    }

    pub(super) fn close(&mut self) {
        self.lines.depth -= 1;
        self.line("}");
    }

    fn comment(&mut self, sources: &Sources) {
        if !sources.is_empty() {
            self.line(format!("// {sources}"));
        }
    }

    /// Prints statements in order; what they bind goes out of scope.
    pub(super) fn block(&mut self, block: &Block) -> Result<()> {
        self.elements(block, &[])
    }

    /// Prints statements in order. Those that are part of a vector read and write their element of it.
    pub(super) fn elements(&mut self, block: &Block, wide: &[Wide]) -> Result<()> {
        let nothing = self.nothing;
        let mut bound = Vec::new();
        let mut last = Sources::none();
        for (n, s) in block.iter().enumerate() {
            if s.sources != last {
                self.comment(&s.sources);
                last = s.sources.clone();
            }
            match (&s.kind, wide.iter().find(|w| w.statement == n)) {
                (StmtKind::Let(v, _), Some(w)) => self.define_part(*v, w),
                (StmtKind::Store { value, .. }, Some(w)) => self.store_part(*value, w),
                (StmtKind::Bind { var, value, extent }, _) => {
                    bound.push(*var);
                    self.bind(*var, *value, *extent)?;
                }
                (kind, _) => self.statement(kind)?,
            }
        }
        bound.iter().for_each(|v| self.close_var(*v));
        self.nothing = nothing;
        Ok(())
    }

    pub(super) fn statement(&mut self, kind: &StmtKind) -> Result<()> {
        match kind {
            StmtKind::Let(v, expr) => self.define(*v, expr),
            StmtKind::Store { to, index, value, mask } => self.store(*to, index, *value, *mask),
            StmtKind::Tile(t) => self.declare_tile(*t),
            StmtKind::Fill(t, c) => self.fill(*t, *c),
            StmtKind::Loop(l) => self.a_loop(l),
            StmtKind::Reduce(r) => self.reduce(r),
            StmtKind::Dot(d) => self.dot(d),
            StmtKind::Guard(c, body) => {
                let head = format!("if ({})", self.value(*c));
                self.open(head);
                self.block(body)?;
                self.close();
                Ok(())
            }
            StmtKind::Check { ok, site, value, at } => {
                let (ok, value, at) = (self.value(*ok), self.value(*value), self.wide_index(at));
                self.line(format!("if (!{ok}) lz_check_failed(status, {site}, {at}, {value});"));
                Ok(())
            }
            StmtKind::Bind { var, value, extent } => self.bind(*var, *value, *extent),
            StmtKind::Barrier => {
                if self.place.counts_threads() {
                    return Err(self.wrong("a barrier stands in a loop over threads"));
                }
                self.line("__syncthreads();");
                Ok(())
            }
        }
    }

    fn bind(&mut self, var: VarId, value: ValueId, extent: Extent) -> Result<()> {
        self.nothing |= extent == Extent::Const(0);
        let (value, end) = (self.value(value), self.extent(extent));
        let name = self.open_var(var, extent, 1);
        let ty = self.index_type;
        self.line(format!("const {ty} {name} = ({ty})lz_clamp({value}, {end});"));
        Ok(())
    }

    /// Names a variable, from here to where it is closed.
    pub(super) fn open_var(&mut self, v: VarId, extent: Extent, step: u64) -> String {
        let i = v.0 as usize;
        self.vars[i] = self.names.unique(&self.kernel.vars[i]);
        self.ranges[i] = (0, extent.known().map_or(i64::MAX / 4, |n| n.max(1) as i64 - 1));
        self.steps[i] = step;
        self.vars[i].clone()
    }

    pub(super) fn close_var(&mut self, v: VarId) {
        let name = std::mem::take(&mut self.vars[v.0 as usize]);
        self.names.release(&name);
    }

    pub(super) fn extent(&self, e: Extent) -> String {
        match e {
            Extent::Const(n) => n.to_string(),
            Extent::Runtime(e) => self.extents[e.0 as usize].clone(),
        }
    }

    pub(super) fn value(&self, v: ValueId) -> String {
        self.values[v.index()].clone()
    }

    /// Defines a value.
    pub(super) fn define(&mut self, v: ValueId, expr: &Expr) -> Result<()> {
        let ty = self.types[v.index()];
        let text = match expr {
            Expr::Const(c) => {
                self.values[v.index()] = literal(c.in_kernel());
                return Ok(());
            }
            Expr::Scalar(s) => {
                self.values[v.index()] = self.scalars[s.index()].clone();
                return Ok(());
            }
            Expr::Load { from, index, mask } => self.load(ty, *from, index, *mask)?,
            _ => self.expr(v, ty, expr)?,
        };
        self.define_as(v, &text);
        Ok(())
    }

    /// Defines a value as that of an expression.
    pub(super) fn define_as(&mut self, v: ValueId, text: &str) {
        let name = self.names.unique(&format!("v{}", v.0));
        self.line(format!("const {} {name} = {text};", c_type(self.types[v.index()])));
        self.values[v.index()] = name;
    }

    /// The words that partial results of a reduction take.
    pub(super) fn partial_words(r: &Reduce) -> u32 {
        r.reducers.iter().map(|x| x.types().len() as u32).sum()
    }

    #[cold]
    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::internal(format!("kernel {} cannot be printed for a GPU: {what}", self.kernel.name))
    }
}

/// Whether a text has a word.
fn mentions(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(part)
            && !text[at + word.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    })
}
