//! Reductions: accumulators of a thread, trees over lanes and warps, and partial results of blocks.

use super::nest::{Iterations, times};
use super::printer::Printer;
use super::types::{c_type, literal};
use lazuli_ir::kernel::{Binding, Extent, Reduce, Reducer, ScalarType, StmtKind, ValueId};
use lazuli_ir::kernel_walk::for_each_statement;
use lazuli_ir::{ReduceOp, Result};

impl<'k> Printer<'k> {
    pub(super) fn reduce(&mut self, r: &Reduce) -> Result<()> {
        match r.axis.binding {
            Binding::Grid(_) | Binding::Parallel => {
                return Err(self.wrong("a reduction that several blocks share is not the whole body"));
            }
            Binding::Warp => return Err(self.wrong("warps share a reduction")),
            Binding::Lane if self.place.lane || self.place.block => {
                return Err(self.wrong("lanes share a reduction in a loop over lanes"));
            }
            Binding::Block if self.place.counts_threads() => {
                return Err(self.wrong("the threads of a block share a reduction in a loop over threads"));
            }
            Binding::Block | Binding::Lane | Binding::Serial => {}
        }
        self.identities(r);
        if r.vars.iter().any(|(_, e)| *e == Extent::Const(0)) {
            return Ok(());
        }
        self.accumulate(r, None)?;
        match r.axis.binding {
            Binding::Lane => self.lane_tree(r),
            Binding::Block => {
                self.lane_tree(r)?;
                self.warp_tree(r)
            }
            Binding::Serial | Binding::Warp | Binding::Parallel | Binding::Grid(_) => Ok(()),
        }
    }

    /// Declares the accumulators.
    fn identities(&mut self, r: &Reduce) {
        let identities = r.reducers.iter().flat_map(|x| x.identity());
        for (v, identity) in r.results.iter().zip(identities) {
            let name = self.names.unique(&format!("v{}", v.0));
            self.line(format!("{} {name} = {};", c_type(self.types[v.index()]), literal(identity.in_kernel())));
            self.values[v.index()] = name;
        }
    }

    /// Prints the loops of a reduction; `chunk` is the part of the first variable that the block takes, as its first value and its
    /// end.
    fn accumulate(&mut self, r: &Reduce, chunk: Option<(&str, &str)>) -> Result<()> {
        let binding = match chunk {
            None => r.axis.binding,
            Some(_) if lanes_share(r) => Binding::Warp,
            Some(_) => Binding::Block,
        };
        match (r.vars.as_slice(), chunk) {
            ([(var, extent)], None) => {
                let one = Iterations {
                    var: *var,
                    extent: *extent,
                    step: 1,
                    limit: None,
                    binding,
                    lanes: r.axis.vector,
                    unroll: r.axis.unroll,
                };
                let wide = self.wide_accesses(*var, r.axis.vector, &r.body);
                self.iterate(&one, &wide, &mut |p| {
                    p.elements(&r.body, &wide)?;
                    p.step(r)
                })
            }
            (_, None) if binding == Binding::Serial => self.serial(r, 0),
            _ => self.shared_space(r, binding, chunk),
        }
    }

    /// Loops over all variables, one inside the other.
    fn serial(&mut self, r: &Reduce, depth: usize) -> Result<()> {
        let Some(&(var, extent)) = r.vars.get(depth) else {
            self.block(&r.body)?;
            return self.step(r);
        };
        let (last, step) = (depth + 1 == r.vars.len(), 1);
        let unroll = if last { r.axis.unroll } else { 1 };
        let one = Iterations { var, extent, step, limit: None, binding: Binding::Serial, lanes: 1, unroll };
        self.iterate(&one, &[], &mut |p| p.serial(r, depth + 1))
    }

    /// One loop over the elements of all variables together, which threads share, neighbours by neighbours.
    fn shared_space(&mut self, r: &Reduce, binding: Binding, chunk: Option<(&str, &str)>) -> Result<()> {
        let Some((number, count)) = self.sharing(binding) else {
            return Err(self.wrong("a reduction is shared by nobody"));
        };
        let outer = self.place;
        self.place.block |= binding == Binding::Block;
        self.place.warp |= binding == Binding::Warp;
        self.place.lane |= binding == Binding::Lane;
        let ty = self.index_type;
        let inner: Vec<String> = r.vars[1..].iter().map(|(_, e)| self.extent(*e)).collect();
        let inner = inner.join(" * ");
        let element = if inner.is_empty() { String::new() } else { format!(" * {inner}") };
        let (start, end) = match chunk {
            Some((first, end)) => (format!("{first}{element} + {number}"), format!("{end}{element}")),
            None => {
                let all: Vec<String> = r.vars.iter().map(|(_, e)| self.extent(*e)).collect();
                (number.to_owned(), all.join(" * "))
            }
        };
        let single = r.vars.len() == 1;
        let names: Vec<String> = r.vars.iter().map(|(v, e)| self.open_var(*v, *e, 1)).collect();
        let linear = if single { names[0].clone() } else { self.names.unique("element") };
        self.pragma(&format!("unroll {}", r.axis.unroll.max(4)));
        self.open(format!("for ({ty} {linear} = {start}; {linear} < {end}; {linear} += {count})"));
        if !single {
            let mut rest = linear.clone();
            for (i, (_, extent)) in r.vars.iter().enumerate().rev() {
                let (name, extent) = (&names[i], self.extent(*extent));
                match i {
                    0 => self.line(format!("const {ty} {name} = {rest};")),
                    _ => self.line(format!("const {ty} {name} = {rest} % {extent};")),
                }
                rest = format!("{rest} / {extent}");
            }
        }
        self.block(&r.body)?;
        self.step(r)?;
        self.close();
        if !single {
            self.names.release(&linear);
        }
        r.vars.iter().for_each(|(v, _)| self.close_var(*v));
        self.place = outer;
        Ok(())
    }

    /// Combines the accumulators with what an element yields.
    fn step(&mut self, r: &Reduce) -> Result<()> {
        let yields: Vec<String> = r.yields.iter().map(|v| self.value(*v)).collect();
        let accumulators: Vec<String> = r.results.iter().map(|v| self.value(*v)).collect();
        self.combine_into(r, &accumulators, &yields, &accumulators)
    }

    /// `into = combine(a, b)`, for all accumulators of a reduction.
    fn combine_into(&mut self, r: &Reduce, a: &[String], b: &[String], into: &[String]) -> Result<()> {
        let types: Vec<ScalarType> = r.reducers.iter().flat_map(|x| x.types()).collect();
        let (a, b) = (self.given(&types, a), self.given(&types, b));
        let mut at = 0;
        let mut assigned = Vec::new();
        for reducer in &r.reducers {
            let next = at + reducer.types().len();
            match plain(*reducer) {
                Some(operator) => assigned.push(operator(&self.value(a[at]), &self.value(b[at]))),
                None => {
                    let combined = reducer.combine(self, &a[at..next], &b[at..next]);
                    assigned.extend(combined.iter().map(|v| self.value(*v)));
                }
            }
            at = next;
        }
        for (name, text) in into.iter().zip(assigned) {
            self.line(format!("{name} = {text};"));
        }
        Ok(())
    }

    /// Values of these types that stand for these texts.
    fn given(&mut self, types: &[ScalarType], texts: &[String]) -> Vec<ValueId> {
        let first = self.types.len() as u32;
        self.types.extend(types);
        self.values.extend(texts.iter().cloned());
        (first..self.types.len() as u32).map(ValueId).collect()
    }

    /// Combines the accumulators of the lanes of a warp: each has the result.
    fn lane_tree(&mut self, r: &Reduce) -> Result<()> {
        let names: Vec<String> = r.results.iter().map(|v| self.value(*v)).collect();
        self.pragma("unroll");
        self.open("for (int m = 16; m > 0; m /= 2)");
        let others: Vec<String> = names.iter().map(|n| format!("lz_other({n}, m)")).collect();
        let mut received = Vec::new();
        for ((name, other), v) in names.iter().zip(others).zip(&r.results) {
            let own = self.names.unique(&format!("{name}_other"));
            self.line(format!("const {} {own} = {other};", c_type(self.types[v.index()])));
            received.push(own);
        }
        self.combine_into(r, &names, &received, &names)?;
        self.close();
        received.iter().for_each(|n| self.names.release(n));
        // Which of two zeros, or of two NaNs, wins depends on who asks.
        let mut at = 0;
        for reducer in &r.reducers {
            if matches!(reducer.op, ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin)
                && reducer.ty.is_float()
            {
                self.line(format!("{0} = lz_first({0});", names[at]));
            }
            at += reducer.types().len();
        }
        Ok(())
    }

    /// Combines the accumulators of the warps of a block, which all lanes of each have: so has each thread the result.
    fn warp_tree(&mut self, r: &Reduce) -> Result<()> {
        let warps = self.threads / 32;
        if warps == 1 {
            return Ok(());
        }
        let names: Vec<String> = r.results.iter().map(|v| self.value(*v)).collect();
        let shared: Vec<String> = names.iter().map(|n| self.names.unique(&format!("{n}_warps"))).collect();
        for (v, name) in r.results.iter().zip(&shared) {
            let ty = self.types[v.index()];
            self.share(c_type(ty), ty.dtype().size(), name, warps);
        }
        if self.place.serial > 0 {
            // The results of the iteration before have been read.
            self.line("__syncthreads();");
        }
        self.open("if (lane == 0)");
        for (name, shared) in names.iter().zip(&shared) {
            self.line(format!("{shared}[warp] = {name};"));
        }
        self.close();
        self.line("__syncthreads();");
        let identities = r.reducers.iter().flat_map(|x| x.identity());
        for ((name, shared), identity) in names.iter().zip(&shared).zip(identities) {
            let identity = literal(identity.in_kernel());
            self.line(match warps {
                32 => format!("{name} = {shared}[lane];"),
                _ => format!("{name} = lane < {warps} ? {shared}[lane] : {identity};"),
            });
        }
        self.lane_tree(r)
    }

    /// The root of a kernel that is a reduction over the grid: a block takes a chunk of the first variable, and the block that is
    /// done last combines what all found, pairwise in their order, and runs `finish`. Gives the grid and the words of a result.
    pub(super) fn partial_reduce(&mut self, r: &Reduce) -> Result<(Vec<(Extent, u64)>, u32)> {
        let Some(&(_, extent)) = r.vars.first() else { return Err(self.wrong("a reduction has no variable")) };
        let (ty, chunk, end) = (self.index_type, r.chunk.max(1), self.extent(extent));
        let (first, last) = (self.names.unique("first"), self.names.unique("end"));
        self.line(format!("const {ty} {first} = ({ty})blockIdx.x{};", times(chunk)));
        self.line(format!("const {ty} {last} = lz_min(({ty})({first} + {chunk}), ({ty}){end});"));
        self.identities(r);
        self.accumulate(r, Some((&first, &last)))?;
        if !lanes_share(r) {
            self.lane_tree(r)?;
        }
        self.warp_tree(r)?;
        let words = Self::partial_words(r);
        let names: Vec<String> = r.results.iter().map(|v| self.value(*v)).collect();
        self.open("if (thread == 0)");
        for (i, name) in names.iter().enumerate() {
            self.line(format!("partials[blockIdx.x{}{}] = lz_word({name});", times(u64::from(words)), plus(i)));
        }
        self.close();
        self.line("// The block that is done last combines what all found.");
        self.line("__threadfence();");
        self.share("unsigned", 4, "before", 1);
        self.line("__syncthreads();");
        self.line("if (thread == 0) before[0] = atomicAdd(ticket, 1u);");
        self.line("__syncthreads();");
        self.line("if (before[0] + 1u != gridDim.x) return;");
        self.line("__threadfence();");
        self.line("volatile unsigned long long* const found = partials;");
        self.open("for (unsigned width = 1; width < gridDim.x; width *= 2)");
        self.open(format!(
            "for (unsigned n = 2 * width * thread; n + width < gridDim.x; n += 2 * width * {})",
            self.threads
        ));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for (i, v) in r.results.iter().enumerate() {
            let ty = c_type(self.types[v.index()]);
            let at = |n: &str| format!("lz_of_word<{ty}>::value(found[{n}{}{}])", times(u64::from(words)), plus(i));
            let (left, right) = (self.names.unique(&format!("a{i}")), self.names.unique(&format!("b{i}")));
            self.line(format!("{ty} {left} = {};", at("n")));
            self.line(format!("const {ty} {right} = {};", at("(n + width)")));
            a.push(left);
            b.push(right);
        }
        self.combine_into(r, &a, &b, &a)?;
        for (i, name) in a.iter().enumerate() {
            self.line(format!("found[n{}{}] = lz_word({name});", times(u64::from(words)), plus(i)));
        }
        self.close();
        self.line("__syncthreads();");
        self.close();
        for (i, (name, v)) in names.iter().zip(&r.results).enumerate() {
            let ty = c_type(self.types[v.index()]);
            self.line(format!("{name} = lz_of_word<{ty}>::value(found[{i}]);"));
        }
        self.line("if (thread == 0) *ticket = 0u;");
        self.block(&self.kernel.finish)?;
        Ok((vec![(extent, chunk)], words))
    }
}

/// Whether the lanes of a warp share what a reduction does for one element.
fn lanes_share(r: &Reduce) -> bool {
    let mut found = false;
    for_each_statement(&r.body, &mut |s| match s {
        StmtKind::Loop(l) => found |= l.axis.binding == Binding::Lane,
        StmtKind::Reduce(inner) => found |= inner.axis.binding == Binding::Lane,
        _ => {}
    });
    found
}

/// The sum or product of floats as an operator.
fn plain(r: Reducer) -> Option<fn(&str, &str) -> String> {
    match r.op {
        ReduceOp::Sum if r.ty.is_float() => Some(|a, b| format!("{a} + {b}")),
        ReduceOp::Prod if r.ty.is_float() => Some(|a, b| format!("{a} * {b}")),
        _ => None,
    }
}

fn plus(i: usize) -> String {
    if i == 0 { String::new() } else { format!(" + {i}") }
}
