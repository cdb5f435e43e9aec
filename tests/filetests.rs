//! Filetests: a compiler stage as text in, text out. The files are in `tests/filetests`.
//!
//! A file holds cases, separated by lines `===`. A case is
//!
//! ```text
//! # Comments: why this case is there.
//! test simplify
//! graph g(%x: f32[2]) -> (%2) {
//!   ...
//! }
//! ---
//! what must come out, exactly
//! ```
//!
//! The `test` line names a command of [`COMMANDS`], with settings as `key=value` (`wrt=[x,y]`, `without=[cse]`); a case
//! without one has that of the case before. An error is expected as its text after `error: `. What is expected is compared
//! exactly; with `LAZULI_BLESS=1` in the environment, files are rewritten with what came out: read the difference before
//! you commit it.

use lazuli_ir::kernel::{Access, Extent, Kernel};
use lazuli_ir::program::Step;
use lazuli_ir::{BinaryOp, Error, ErrorKind, Graph, Layout, Literal, MatmulRoutine, Op, Result, Shape, Target, Value};
use lazuli_passes::{Options, Pass};
use lazuli_runtime::cuda::source::Launch;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What a `test` line may name.
const COMMANDS: &[(&str, Command)] = &[
    ("simplify", simplify),
    ("optimize", optimize),
    ("vjp", vjp),
    ("layout", layout),
    ("fuse", fuse),
    ("counts", counts),
    ("kernels", kernels),
    ("cuda", cuda),
];

/// From settings and the input to what came out, as text.
type Command = fn(&Settings, &str) -> Result<String>;

/// The graph after `simplify` and `dce`.
fn simplify(_: &Settings, input: &str) -> Result<String> {
    let options = Options::default().without(Pass::Cse);
    Ok(lazuli_passes::optimize(&Graph::parse(input)?, &options)?.0.to_string())
}

/// The graph after all graph passes but those in `without=[..]`.
fn optimize(settings: &Settings, input: &str) -> Result<String> {
    Ok(lazuli_passes::optimize(&Graph::parse(input)?, &settings.options()?)?.0.to_string())
}

/// The gradients, by the inputs `wrt=[..]`, of the outputs given their cotangents, new inputs `d0`, `d1`, ...; a gradient that
/// is zero by rule is no output.
fn vjp(settings: &Settings, input: &str) -> Result<String> {
    let mut graph = Graph::parse(input)?;
    differentiate(&mut graph, &settings.list("wrt"))?;
    graph.verify()?;
    let live = graph.rebuild(|new, _, node, operands| new.add(node.op.clone(), operands, node.sources.clone()))?;
    Ok(live.to_string())
}

/// What fusion makes of the optimised graph: the kernels with their operations, products of matrices in full, the edges left between
/// them, and how contractions are computed where there is a choice. With `sgd=[..]`, output 0 is a loss, and one step of gradient
/// descent on these inputs is added first; with `wrt=[..]`, the outputs are the gradients by these inputs instead.
fn fuse(settings: &Settings, input: &str) -> Result<String> {
    let (graph, plan) = plan(settings, input)?;
    fused(&graph, &plan)
}

/// How many kernels the optimised graph is on each back end: one number where they have as many, and else what each has.
fn counts(settings: &Settings, input: &str) -> Result<String> {
    const TARGETS: [&str; 3] = ["cpu", "nvidia90", "nvidia90+cublaslt"];
    let plans = TARGETS.map(|name| plan_for(name, settings, input)).into_iter().collect::<Result<Vec<_>>>()?;
    let steps = plans[0].1.program.steps.len();
    if plans.iter().all(|(_, plan)| plan.program.steps.len() == steps) {
        return Ok(format!("{steps} on {}\n", TARGETS.join(", ")));
    }
    TARGETS.iter().zip(&plans).map(|(name, (graph, plan))| Ok(format!("{name}: {}", fused(graph, plan)?))).collect()
}

fn fused(graph: &Graph, plan: &lazuli_passes::Plan) -> Result<String> {
    let mut out = format!("{} kernels\n", plan.program.steps.len());
    for (step, nodes) in plan.program.steps.iter().zip(&plan.groups) {
        let accesses = plan.program.accesses(step);
        let scratch = if let Step::Matmul(call) = step { call.scratch } else { None };
        let stored = accesses.iter().filter(|(b, access)| *access != Access::Read && Some(*b) != scratch).count();
        let names: Vec<&str> = nodes.iter().map(|n| graph.op(*n).name()).collect();
        writeln!(out, "  {} -> {stored} stored", names.join(" ")).map_err(|e| Error::internal(e.to_string()))?;
        if let Step::Matmul(call) = step {
            writeln!(out, "    {call}").map_err(|e| Error::internal(e.to_string()))?;
        }
    }
    for r in plan.ledger.rows.iter().filter(|r| !r.fused) {
        let line = format!(
            "apart: %{} {} -> %{} {}: {}\n",
            r.producer.0, r.operations.0, r.consumer.0, r.operations.1, r.reason
        );
        out.push_str(&line);
    }
    for r in &plan.ledger.contractions {
        out.push_str(&format!("{}: %{}: {}\n", if r.routine { "routine" } else { "loops" }, r.node.0, r.reason));
    }
    Ok(out)
}

/// The scheduled kernels of the optimised graph, for `target=cpu` (two cores, the default), `target=nvidia90`, or
/// `target=nvidia90+cublaslt`, which has the routine for products of matrices.
fn kernels(settings: &Settings, input: &str) -> Result<String> {
    let (_, plan) = plan(settings, input)?;
    let texts: Vec<String> = plan.program.kernels.iter().map(ToString::to_string).collect();
    Ok(texts.join("\n"))
}

/// The scheduled kernels of the optimised graph as CUDA C, each with what it is launched with. With `from=kernels`, the input is
/// scheduled kernels.
fn cuda(settings: &Settings, input: &str) -> Result<String> {
    let kernels = match settings.list("from").first() {
        Some(_) => vec![Kernel::parse(input)?],
        None => plan(settings, input)?.1.program.kernels,
    };
    let mut out = String::new();
    for (i, kernel) in kernels.iter().enumerate() {
        kernel.verify()?;
        let source = lazuli_runtime::cuda::source::print(kernel, &format!("kernel{i}"))?;
        let Launch { grid, threads, shared_bytes, partial_words } = &source.launch;
        let grid: Vec<String> = grid
            .iter()
            .map(|(extent, step)| match extent {
                Extent::Const(n) => format!("{n}/{step}"),
                Extent::Runtime(e) => format!("{}/{step}", kernel.extents[e.0 as usize]),
            })
            .collect();
        out.push_str(&format!(
            "// grid [{}], {threads} threads, {shared_bytes} bytes, {partial_words} words\n{}\n",
            grid.join(", "),
            source.text
        ));
    }
    Ok(out)
}

/// The optimised graph's values that are not row-major, the strides of the outputs, and the scheduled kernels.
fn layout(settings: &Settings, input: &str) -> Result<String> {
    let (_, plan) = plan(settings, input)?;
    let mut out = plan.orders.to_string();
    for (i, o) in plan.program.outputs.iter().enumerate() {
        out.push_str(&format!("output {i} strides {:?}\n", o.layout.strides.as_slice()));
    }
    let texts: Vec<String> = plan.program.kernels.iter().map(ToString::to_string).collect();
    Ok(out + "\n" + &texts.join("\n"))
}

fn plan(settings: &Settings, input: &str) -> Result<(Graph, lazuli_passes::Plan)> {
    plan_for(settings.list("target").first().map_or("cpu", String::as_str), settings, input)
}

fn plan_for(target: &str, settings: &Settings, input: &str) -> Result<(Graph, lazuli_passes::Plan)> {
    let mut graph = Graph::parse(input)?;
    let wrt = settings.list("wrt");
    if !wrt.is_empty() {
        differentiate(&mut graph, &wrt)?;
    }
    descend(&mut graph, &settings.list("sgd"))?;
    let options = settings.options()?;
    let (graph, _) = lazuli_passes::optimize(&graph, &options)?;
    let layouts: Vec<Layout> =
        graph.inputs().iter().map(|(_, n)| Layout::contiguous(graph.node(*n).types[0].shape.clone())).collect();
    let target = match target {
        "cpu" => Target::cpu(2),
        "cpu+bf16" => Target { bf16_products: true, ..Target::cpu(2) },
        name => {
            let plain = name.strip_suffix("+cublaslt").unwrap_or(name);
            let sm = plain.strip_prefix("nvidia").and_then(|sm| sm.parse().ok());
            let sm = sm.ok_or_else(|| unknown("target", name))?;
            let matmul = (plain != name).then(|| MatmulRoutine::cublaslt(sm));
            Target { matmul, ..Target::nvidia(sm) }
        }
    };
    let plan = lazuli_passes::compile(&graph, &layouts, &target, &options)?;
    Ok((graph, plan))
}

/// Replaces the outputs by their gradients by the named inputs; cotangents are new inputs `d0`, `d1`, ...
fn differentiate(graph: &mut Graph, names: &[String]) -> Result<()> {
    let wrt = inputs(graph, names)?;
    let mut outputs = Vec::new();
    for (i, y) in graph.outputs().to_vec().into_iter().enumerate() {
        let ty = graph.ty(y).clone();
        outputs.push((y, graph.add_input(format!("d{i}"), ty, lazuli_ir::Sources::none())));
    }
    let gradients = lazuli_passes::vjp(graph, &outputs, &wrt)?;
    graph.set_outputs(gradients.into_iter().flatten());
    Ok(())
}

fn inputs(graph: &Graph, names: &[String]) -> Result<Vec<Value>> {
    let named = |name: &String| graph.inputs().iter().find(|(n, _)| n == name).ok_or_else(|| unknown("input", name));
    names.iter().map(|name| Ok(Value::from(named(name)?.1))).collect()
}

/// Adds `p - 0.01 * d loss / d p` for each of the named inputs, as outputs after the others.
fn descend(graph: &mut Graph, names: &[String]) -> Result<()> {
    let Some(&loss) = graph.outputs().first().filter(|_| !names.is_empty()) else { return Ok(()) };
    let parameters = inputs(graph, names)?;
    let none = lazuli_ir::Sources::none;
    let one = Op::Constant { value: Literal::F32(1.0), shape: Shape::scalar() };
    let one = graph.add(one, &[], none())?;
    let gradients = lazuli_passes::vjp(graph, &[(loss, one)], &parameters)?;
    for (p, d) in parameters.into_iter().zip(gradients) {
        let Some(d) = d else { continue };
        let rate = Op::Constant { value: Literal::F32(0.01), shape: graph.ty(p).shape.clone() };
        let rate = graph.add(rate, &[], none())?;
        let step = graph.add(Op::Binary(BinaryOp::Mul), &[d, rate], none())?;
        let next = graph.add(Op::Binary(BinaryOp::Sub), &[p, step], none())?;
        graph.add_output(next);
    }
    Ok(())
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(ErrorKind::Value, format!("there is no {what} `{name}`"))
}

/// The `key=value` pairs of a `test` line.
struct Settings(Vec<(String, String)>);

impl Settings {
    /// All passes but those in `without=[..]`; with `tf32=[on]`, in TF32.
    fn options(&self) -> Result<Options> {
        let plain = Options::default().tf32(!self.list("tf32").is_empty());
        self.list("without").iter().try_fold(plain, |options, name| {
            Ok(options.without(Pass::parse(name).ok_or_else(|| unknown("pass", name))?))
        })
    }

    fn list(&self, key: &str) -> Vec<String> {
        let value = self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
        let items = value.trim_start_matches('[').trim_end_matches(']').split(',');
        items.filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }
}

struct Case {
    /// All lines before `---`, as they stand.
    head: String,
    expected: String,
}

impl Case {
    fn parse_all(text: &str) -> Vec<Case> {
        let cases = text.split_inclusive('\n').fold(vec![String::new()], |mut cases, line| {
            match (line.trim_end(), cases.last_mut()) {
                ("===", _) | (_, None) => cases.push(String::new()),
                (_, Some(case)) => case.push_str(line),
            }
            cases
        });
        let parts = cases.iter().map(|c| c.split_once("---\n").unwrap_or((c, "")));
        parts.map(|(head, expected)| Case { head: head.to_owned(), expected: expected.to_owned() }).collect()
    }

    fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace().skip(1);
        let name = words.next().unwrap_or("");
        let settings = Settings(words.filter_map(|w| w.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect());
        let known = COMMANDS.iter().find(|(n, _)| *n == name).ok_or_else(|| unknown("command", name))?;
        let input = self.head.lines().filter(|l| !l.starts_with('#') && !l.starts_with("test "));
        known.1(&settings, &input.fold(String::new(), |all, l| all + l + "\n"))
    }
}

/// The failures of a file; with `bless`, the file rewritten instead.
fn run_file(path: &Path, bless: bool, failures: &mut String) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let mut cases = Case::parse_all(&text);
    let mut test = String::new();
    for case in &mut cases {
        if let Some(line) = case.head.lines().find(|l| l.starts_with("test ")) {
            test = line.to_owned();
        }
        let mut came = case.run(&test).unwrap_or_else(|e| format!("error: {e}\n"));
        if !came.ends_with('\n') {
            came.push('\n');
        }
        if came == case.expected {
            continue;
        }
        if bless {
            case.expected = came;
        } else {
            let Case { head, expected } = case;
            let _ = write!(failures, "\n{}:\n{head}--- expected\n{expected}--- came\n{came}", path.display());
        }
    }
    if bless {
        let cases: Vec<String> = cases.iter().map(|c| format!("{}---\n{}", c.head, c.expected)).collect();
        fs::write(path, cases.join("===\n"))?;
    }
    Ok(())
}

/// The files in a folder and those below it, in order.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    entries.sort();
    let mut all = Vec::new();
    for path in entries {
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

#[test]
fn filetests() {
    let bless = std::env::var_os("LAZULI_BLESS").is_some_and(|v| v == "1");
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests")).unwrap();
    assert!(!files.is_empty());
    let mut failures = String::new();
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "txt")) {
        run_file(path, bless, &mut failures).unwrap();
    }
    assert!(failures.is_empty(), "{failures}\nLAZULI_BLESS=1 rewrites what is expected");
}
