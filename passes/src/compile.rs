//! From an optimised graph to a program: fusion, lowering, schedule and memory plan, in this order.

use crate::contraction::prepare;
use crate::fusion::{self, PlannedGroup, Routine, Twins};
use crate::layout::{self, Orders};
use crate::ledger::Ledger;
use crate::legality::work;
use crate::lower::{Lowered, Stored, lower};
use crate::memory::{self, Held, Lifetime, StepUse};
use crate::products::{Product, Stored as StoredMatrix};
use crate::recompute;
use crate::schedule::schedule_cpu;
use crate::schedule_gpu::{place_gpu, schedule_gpu};
use crate::windows;
use crate::{Options, Pass, PassReport};
use lazuli_ir::kernel::{Binding, Kernel, Stmt, StmtKind};
use lazuli_ir::program::{
    BufferArg, BufferDecl, BufferId, CheckSite, KernelCall, KernelCost, MatmulCall, MatrixArg, OutputDecl, Place,
    Program, SortCall, Step,
};
use lazuli_ir::{DType, DimVec, Error, Graph, Layout, NodeId, Op, Result, Sources, Target, TargetKind};
use rustc_hash::{FxHashMap, FxHashSet};

/// A compiled graph, before machine code.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What runs.
    pub program: Program,
    /// How stored values lie in memory.
    pub orders: Orders,
    /// Every decision of fusion.
    pub ledger: Ledger,
    /// The nodes of each step, in order of steps.
    pub groups: Vec<Vec<NodeId>>,
    /// What each pass did.
    pub report: PassReport,
}

/// What a group became, and what it costs.
struct GroupStep {
    work: Work,
    cost: KernelCost,
    uses: StepUse,
    members: Vec<NodeId>,
}

/// What runs a group.
enum Work {
    /// A kernel, with its arguments.
    Kernel { kernel: usize, args: Vec<NodeId>, extents: Vec<u64>, checks: Vec<CheckSite> },
    /// A sort of a stored value, seen through a layout.
    Sort { operand: NodeId, layout: Layout, dim: usize, descending: bool, count: usize },
    /// Products of matrices, and the bytes that the routine may use beside.
    Product { product: Product, scratch_bytes: usize },
}

/// Compiles an optimised graph whose inputs lie in memory as `layouts` say (offsets do not count).
pub fn compile(graph: &Graph, layouts: &[Layout], target: &Target, options: &Options) -> Result<Plan> {
    if layouts.len() != graph.inputs().len() {
        return Err(Error::internal(format!("{} layouts for {} inputs", layouts.len(), graph.inputs().len())));
    }
    let mut report = PassReport::default();
    let mut orders = Orders::default();
    if options.runs(Pass::Layout) {
        orders = report.record(Pass::Layout, graph.len(), || {
            let orders = layout::orders(graph, layouts);
            let count = orders.len();
            Ok((orders, count, graph.len()))
        })?;
    }
    let given = graph;
    let ordered = |graph: &Graph| match options.runs(Pass::Layout) {
        true => layout::orders(graph, layouts),
        false => Orders::default(),
    };
    let mut rewritten: Vec<(Graph, Vec<NodeId>)> = Vec::new();
    if let Some(made) = windows::rewrite(given)? {
        orders = ordered(&made.0);
        rewritten.push(made);
    }
    let graph = rewritten.last().map_or(given, |r| &r.0);
    if let Some(made) = prepare(graph, layouts, &orders, target)? {
        orders = ordered(&made.0);
        rewritten.push(made);
    }
    let graph = rewritten.last().map_or(given, |r| &r.0);
    let (grouping, again) = report.record(Pass::Fusion, graph.len(), || {
        let group = |graph: &Graph, orders: &Orders, twins: &Twins| {
            fusion::group(graph, layouts, orders, target, options, twins)
        };
        let mut grouping = group(graph, &orders, &Twins::default())?;
        let again = match options.runs(Pass::Fusion) {
            true => {
                recompute::regroup(graph, &mut grouping, target, &|graph, twins| group(graph, &ordered(graph), twins))?
            }
            false => None,
        };
        let (fused, groups) = (grouping.ledger.rows.iter().filter(|r| r.fused).count(), grouping.groups.len());
        Ok(((grouping, again), fused, groups))
    })?;
    if let Some(made) = again {
        orders = ordered(&made.0);
        rewritten.push(made);
    }
    let graph = rewritten.last().map_or(given, |r| &r.0);
    let groups = grouping.groups.len();
    let mut lowered = report.record(Pass::Lower, groups, || {
        Ok((lower_all(graph, &grouping.groups, layouts, &orders, target)?, 0, groups))
    })?;
    check_kernels(&lowered, options)?;
    let (kernels, steps) = report.record(Pass::Schedule, groups, || {
        let extents = schedule_all(&mut lowered, target, options);
        let (kernels, steps) = collect(graph, lowered, extents, &grouping.groups, target, options)?;
        let count = kernels.len();
        Ok(((kernels, steps), groups - count, count))
    })?;
    if options.verify {
        kernels.iter().try_for_each(Kernel::verify)?;
    }
    let (program, groups) = report.record(Pass::Memory, groups, || {
        let made = assemble(graph, layouts, target, kernels, steps, &grouping.outputs, options)?;
        let donors = made.0.buffers.iter().filter(|b| matches!(b.place, Place::Output { donor: Some(_) })).count();
        Ok((made, donors, groups))
    })?;
    let plan = Plan { program, orders, ledger: grouping.ledger, groups, report };
    let befores: Vec<&Graph> = std::iter::once(given).chain(rewritten.iter().map(|r| &r.0)).collect();
    Ok(rewritten.iter().zip(befores).rev().fold(plan, |plan, ((_, back), before)| plan.renamed(before, back)))
}

impl Plan {
    /// The same in the nodes of the graph that was given: what was added goes by the node it was added for.
    fn renamed(self, given: &Graph, back: &[NodeId]) -> Plan {
        let groups = self.groups.into_iter().map(|g| g.into_iter().map(|n| back[n.index()]).collect()).collect();
        Plan { orders: self.orders.renamed(back), ledger: self.ledger.renamed(given, back), groups, ..self }
    }
}

/// The kernel of each group; none for a routine.
fn lower_all(
    graph: &Graph,
    groups: &[PlannedGroup],
    layouts: &[Layout],
    orders: &Orders,
    target: &Target,
) -> Result<Vec<Option<Lowered>>> {
    let stored = |n: NodeId| {
        let layout = match graph.op(n) {
            Op::Input { index, .. } => layouts[*index].clone(),
            _ => orders.layout(n, &graph.node(n).types[0].shape),
        };
        Stored { order: orders.dims(n, layout.strides.len()), strides: layout.strides }
    };
    let one = |g: &PlannedGroup| {
        g.plan.as_ref().map(|plan| lower(graph, &g.members, &g.outputs, plan, &stored, target)).transpose()
    };
    groups.iter().map(one).collect()
}

fn check_kernels(lowered: &[Option<Lowered>], options: &Options) -> Result<()> {
    if options.verify { lowered.iter().flatten().try_for_each(|l| l.kernel.verify()) } else { Ok(()) }
}

fn schedule_all(lowered: &mut [Option<Lowered>], target: &Target, options: &Options) -> Vec<Vec<u64>> {
    let one = |l: &mut Lowered| match target.kind {
        TargetKind::Cpu if options.runs(Pass::Schedule) => schedule_cpu(&mut l.kernel, target),
        TargetKind::Cpu => Vec::new(),
        TargetKind::Nvidia(_) => {
            match options.runs(Pass::Schedule) {
                true => schedule_gpu(&mut l.kernel, target),
                false => place_gpu(&mut l.kernel),
            }
            Vec::new()
        }
    };
    lowered.iter_mut().map(|l| l.as_mut().map_or_else(Vec::new, one)).collect()
}

/// Keeps each distinct kernel once, and describes each step.
fn collect(
    graph: &Graph,
    lowered: Vec<Option<Lowered>>,
    extents: Vec<Vec<u64>>,
    groups: &[PlannedGroup],
    target: &Target,
    options: &Options,
) -> Result<(Vec<Kernel>, Vec<GroupStep>)> {
    let mut kernels: Vec<Kernel> = Vec::new();
    let mut known: FxHashMap<Kernel, usize> = FxHashMap::default();
    let mut steps = Vec::new();
    for ((lowered, extents), g) in lowered.into_iter().zip(extents).zip(groups) {
        let Some(Lowered { kernel, args, checks }) = lowered else {
            steps.push(routine_step(graph, g, target)?);
            continue;
        };
        let pairs = memory::in_place_pairs(&kernel, target);
        let in_place = if options.runs(Pass::Memory) { pairs } else { Vec::new() };
        let in_place = in_place.into_iter().map(|(r, w)| (args[r.index()], args[w.index()])).collect();
        let index = *known.entry(kernel).or_insert_with_key(|kernel| {
            kernels.push(kernel.clone());
            kernels.len() - 1
        });
        let uses = StepUse { args: args.clone(), in_place, writes: g.outputs.clone() };
        let cost = cost(graph, g, &args);
        let work = Work::Kernel { kernel: index, args, extents, checks };
        steps.push(GroupStep { work, cost, uses, members: g.members.clone() });
    }
    Ok((kernels, steps))
}

/// The step of a routine.
fn routine_step(graph: &Graph, g: &PlannedGroup, target: &Target) -> Result<GroupStep> {
    let nothing = || Error::internal("a group without a kernel or a routine");
    let members = g.members.clone();
    let step = |work: Work, args: Vec<NodeId>, cost: KernelCost| {
        let uses = StepUse { args, in_place: Vec::new(), writes: g.outputs.clone() };
        GroupStep { work, cost, uses, members: members.clone() }
    };
    match g.routine.as_ref().ok_or_else(nothing)? {
        Routine::Sort(operand, layout) => {
            let n = *g.members.first().ok_or_else(nothing)?;
            let Op::Sort { dim, descending } = *graph.op(n) else {
                return Err(Error::internal(format!("{} is no sort", graph.op(n).name())));
            };
            let args = vec![*operand, n];
            let cost = cost(graph, g, &args);
            let (operand, layout, count) = (*operand, layout.clone(), wanted(graph, n, dim));
            Ok(step(Work::Sort { operand, layout, dim, descending, count }, args, cost))
        }
        Routine::Product(product) => {
            let args: Vec<NodeId> = product.reads().chain([product.output()]).collect();
            let cost = KernelCost { flops: product.matmul.flops(), ..cost(graph, g, &args) };
            let scratch_bytes = target.matmul.map_or(0, |routine| routine.scratch_bytes);
            Ok(step(Work::Product { product: product.clone(), scratch_bytes }, args, cost))
        }
    }
}

/// How many elements along a dim, from the first, are read of a value: all, or as many as slices of it reach.
fn wanted(graph: &Graph, n: NodeId, dim: usize) -> usize {
    let all = graph.node(n).types[0].shape.extents()[dim];
    let live = graph.live();
    let mut most = 0;
    let reads = |user: NodeId| graph.operands(user).iter().any(|v| v.node == n);
    for user in graph.nodes().filter(|u| live[u.index()] && reads(*u)) {
        match graph.op(user) {
            Op::Slice(kept) => most = most.max(kept[dim].stop),
            _ => return all,
        }
    }
    if graph.outputs().iter().any(|v| v.node == n) { all } else { most.min(all) }
}

fn cost(graph: &Graph, g: &PlannedGroup, args: &[NodeId]) -> KernelCost {
    let mut sources = Sources::none();
    for n in &g.members {
        sources = sources.union(&graph.node(*n).sources);
    }
    KernelCost {
        operations: g.members.iter().map(|n| graph.op(*n).name()).collect(),
        sources,
        bytes: args.iter().map(|n| graph.node(*n).types[0].bytes() as u64).sum(),
        flops: g.plan.as_ref().map_or(0, |plan| work(graph, plan)),
    }
}

fn assemble(
    graph: &Graph,
    layouts: &[Layout],
    target: &Target,
    kernels: Vec<Kernel>,
    steps: Vec<GroupStep>,
    outputs: &[(NodeId, Layout)],
    options: &Options,
) -> Result<(Program, Vec<Vec<NodeId>>)> {
    let uses: Vec<StepUse> = steps.iter().map(|s| s.uses.clone()).collect();
    let inputs: Vec<NodeId> = graph.inputs().iter().map(|(_, n)| *n).collect();
    let donatable: Vec<NodeId> =
        inputs.iter().zip(layouts).filter(|(_, l)| l.is_contiguous()).map(|(n, _)| *n).collect();
    let leaving: Vec<NodeId> = outputs.iter().map(|(n, _)| *n).collect();
    let order = memory::order(&uses, &donatable, &leaving);
    let leaving: FxHashSet<NodeId> = leaving.into_iter().collect();
    let mut lifetimes = lifetimes(graph, &steps, &order.steps, &leaving);
    if !options.runs(Pass::Memory) {
        lifetimes.iter_mut().for_each(|l| (l.first, l.last, l.takes) = (0, usize::MAX, None));
    }
    let (offsets, workspace_bytes) = memory::assign(&lifetimes);

    let mut buffers: Vec<BufferDecl> = Vec::new();
    let mut buffer_of: FxHashMap<NodeId, BufferId> = FxHashMap::default();
    let mut declare = |n: NodeId, elements: usize, place: Place| {
        let dtype = graph.node(n).types[0].dtype;
        buffers.push(BufferDecl { dtype, elements, place });
        buffer_of.insert(n, BufferId(buffers.len() as u32 - 1));
    };
    let input_number: FxHashMap<NodeId, usize> = inputs.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    for (i, n) in inputs.iter().enumerate() {
        declare(*n, layouts[i].span(), Place::Input(i));
    }
    for s in order.steps.iter().map(|&i| &uses[i]) {
        for &n in &s.writes {
            let place = if leaving.contains(&n) {
                Place::Output { donor: order.donors.get(&n).and_then(|d| input_number.get(d).copied()) }
            } else {
                let offset = offsets.get(&Held::Value(n)).copied();
                Place::Workspace(offset.ok_or_else(|| Error::internal("a value without a place in the workspace"))?)
            };
            declare(n, graph.node(n).types[0].shape.elements(), place);
        }
    }
    let mut scratch_of: FxHashMap<usize, BufferId> = FxHashMap::default();
    for &i in &order.steps {
        if let (Work::Product { scratch_bytes, .. }, Some(&offset)) = (&steps[i].work, offsets.get(&Held::Scratch(i))) {
            buffers.push(BufferDecl { dtype: DType::U8, elements: *scratch_bytes, place: Place::Workspace(offset) });
            scratch_of.insert(i, BufferId(buffers.len() as u32 - 1));
        }
    }
    let buffer = |n: NodeId| {
        buffer_of.get(&n).copied().ok_or_else(|| Error::internal(format!("value %{} is not stored anywhere", n.0)))
    };
    let mut calls = Vec::new();
    let mut groups = Vec::new();
    for &i in &order.steps {
        let s = &steps[i];
        groups.push(s.members.clone());
        let cost = s.cost.clone();
        let (kernel, args, extents, checks) = match &s.work {
            Work::Kernel { kernel, args, extents, checks } => (*kernel, args, extents, checks),
            Work::Sort { operand, layout, dim, descending, count } => {
                // The views of inputs are relative to the pointer a call passes, which is at the first element already.
                let offset = match graph.op(*operand) {
                    Op::Input { index, .. } => layout.offset - layouts[*index].offset,
                    _ => layout.offset,
                };
                let layout = Layout { offset, ..layout.clone() };
                let result = *s.uses.writes.first().ok_or_else(|| Error::internal("a sort that nobody reads"))?;
                let (operand, result) = (buffer(*operand)?, buffer(result)?);
                let (dim, descending, count) = (*dim, *descending, *count);
                calls.push(Step::Sort(SortCall { operand, layout, result, dim, descending, count, cost }));
                continue;
            }
            Work::Product { product, .. } => {
                let at = |(n, offset): StoredMatrix| Ok::<_, Error>(MatrixArg { buffer: buffer(n)?, offset });
                calls.push(Step::Matmul(MatmulCall {
                    matmul: product.matmul.clone(),
                    left: at(product.left)?,
                    right: at(product.right)?,
                    bias: product.bias.map(at).transpose()?,
                    result: buffer(product.output())?,
                    scratch: scratch_of.get(&i).copied(),
                    cost,
                }));
                continue;
            }
        };
        let mut bound = Vec::new();
        for &n in args {
            bound.push(BufferArg { buffer: buffer(n)?, offset: 0, strides: DimVec::new() });
        }
        let iterations = iterations(&kernels[kernel], extents);
        calls.push(Step::Kernel(KernelCall {
            kernel,
            args: bound,
            extents: extents.clone(),
            scalars: Vec::new(),
            iterations,
            grain: grain(&kernels[kernel], iterations, cost.bytes, cost.flops, target),
            checks: checks.clone(),
            cost,
        }));
    }
    let mut declared = Vec::new();
    for ((n, layout), v) in outputs.iter().zip(graph.outputs()) {
        // The views of inputs are relative to the pointer a call passes, which is at the first element already.
        let offset = match graph.op(*n) {
            Op::Input { index, .. } => layout.offset - layouts[*index].offset,
            _ => layout.offset,
        };
        let layout = Layout { offset, ..layout.clone() };
        declared.push(OutputDecl { buffer: buffer(*n)?, dtype: graph.ty(*v).dtype, layout });
    }
    let inputs = graph.inputs().len();
    Ok((Program { kernels, buffers, steps: calls, outputs: declared, workspace_bytes, inputs }, groups))
}

fn lifetimes(graph: &Graph, steps: &[GroupStep], order: &[usize], leaving: &FxHashSet<NodeId>) -> Vec<Lifetime> {
    let mut last: FxHashMap<NodeId, usize> = FxHashMap::default();
    for (position, &i) in order.iter().enumerate() {
        last.extend(steps[i].uses.args.iter().map(|n| (*n, position)));
    }
    let mut out = Vec::new();
    for (position, &i) in order.iter().enumerate() {
        let uses = &steps[i].uses;
        for &n in uses.writes.iter().filter(|n| !leaving.contains(n)) {
            let takes = uses.in_place.iter().find(|(r, w)| *w == n && last.get(r) == Some(&position)).map(|p| p.0);
            out.push(Lifetime {
                value: Held::Value(n),
                bytes: graph.node(n).types[0].bytes(),
                first: position,
                last: last.get(&n).copied().unwrap_or(position),
                takes: takes.map(Held::Value),
            });
        }
        if let Work::Product { scratch_bytes, .. } = steps[i].work
            && scratch_bytes > 0
        {
            let (first, last) = (position, position);
            out.push(Lifetime { value: Held::Scratch(i), bytes: scratch_bytes, first, last, takes: None });
        }
    }
    out
}

/// The iterations of a kernel's parallel space.
pub fn iterations(kernel: &Kernel, extents: &[u64]) -> u64 {
    kernel
        .parallel_space()
        .iter()
        .map(|(_, extent, step)| {
            let n = match extent {
                lazuli_ir::kernel::Extent::Const(n) => *n,
                lazuli_ir::kernel::Extent::Runtime(e) => extents.get(e.0 as usize).copied().unwrap_or(0),
            };
            n.div_ceil((*step).max(1))
        })
        .product()
}

/// Iterations of a kernel's parallel space that belong together: where its loop runs as vectors, whole groups of them.
fn strip(kernel: &Kernel) -> u64 {
    let mut block = &kernel.body;
    while let [Stmt { kind: StmtKind::Loop(l), .. }] = block.as_slice() {
        if l.axis.vector > 1 {
            return if l.axis.binding == Binding::Parallel { u64::from(l.axis.vector * l.axis.unroll) } else { 1 };
        }
        block = &l.body;
    }
    1
}

/// Microseconds of work that are worth waking another thread for.
const WORTH_A_THREAD_US: u64 = 20;
/// Microseconds of work that a thread claims at a time.
const CLAIM_US: u64 = 10;

/// How many iterations a thread should claim at once; all of them where the work is worth one thread only.
pub fn grain(kernel: &Kernel, iterations: u64, bytes: u64, flops: u64, target: &Target) -> u64 {
    let time_us = (bytes / target.bytes_per_us.max(1)).max(flops / target.flops_per_us.max(1));
    if target.cores <= 1 || time_us < WORTH_A_THREAD_US || iterations <= 1 {
        return iterations.max(1);
    }
    let claims = (time_us / CLAIM_US).max(2);
    // Vectors stay whole: a claim of a few columns would be all tail.
    iterations.div_ceil(claims).max(1).next_multiple_of(strip(kernel))
}
