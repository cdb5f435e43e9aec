//! The Graph IR from text: the inverse of `graph_text`.
//!
//! A statement becomes an operation, goes through [`Graph::add`], and the type that the operation gives must be the type that
//! stands in the text: what parses is well typed. Labels are free (`%h = exp %x : f32[2]` is fine). Lines that say the same
//! merge, as [`Graph::add`] merges nodes; their labels then mean one node.

use crate::source::intern;
use crate::text::Cursor;
use crate::{
    BinaryOp, CompareOp, CumulativeOp, DType, Device, DimVec, DotDims, Graph, Literal, Op, PadDim, ReduceOp, Result,
    ScatterOp, SliceDim, Sources, TensorType, UnaryOp, Value, WindowDim, WindowDims,
};
use rustc_hash::FxHashMap;
use std::fmt;

/// What stands after `%`: a name with the ordinal of inputs of that name, or a number with the result of that node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Label {
    Named(String, u32),
    Numbered(u32, u32),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Named(name, 1) => write!(f, "%{name}"),
            Label::Named(name, copy) => write!(f, "%{name}#{copy}"),
            Label::Numbered(n, 0) => write!(f, "%{n}"),
            Label::Numbered(n, result) => write!(f, "%{n}.{result}"),
        }
    }
}

impl Graph {
    /// The graph that a text says, as [`Display`](fmt::Display) prints it.
    ///
    /// # Errors
    /// Of kind [`Parse`](crate::ErrorKind::Parse), with line and column, and what would have been right there.
    ///
    /// ```
    /// let text = "graph g(%x: f32[2]) -> (%1) {\n  %1 = add %x, %x : f32[2]\n}\n";
    /// let graph = lazuli_ir::Graph::parse(text)?;
    /// assert_eq!(graph.to_string(), text);
    /// # Ok::<(), lazuli_ir::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Graph> {
        let mut at = Cursor::new(text);
        if !at.eat_word("graph") {
            return Err(at.expected("`graph`"));
        }
        let mut p = Parser { graph: Graph::new(at.name()?), at, values: FxHashMap::default() };
        p.inputs()?;
        p.at.require("->")?;
        let outputs = p.outputs()?;
        p.at.require("{")?;
        while !p.at.eat("}") {
            p.statement()?;
        }
        if p.at.peek().is_some() {
            return Err(p.at.expected("the end"));
        }
        for (position, label) in outputs {
            let v = p.value(position, &label)?;
            p.graph.add_output(v);
        }
        Ok(p.graph)
    }
}

struct Parser<'a> {
    graph: Graph,
    at: Cursor<'a>,
    values: FxHashMap<Label, Value>,
}

/// An attribute's value.
enum Attribute<'a> {
    Number(u64),
    Word(&'a str),
    List(Vec<usize>),
    Pairs(Vec<usize>, Vec<usize>),
}

/// A statement's attributes as written; each operation takes its own out.
#[derive(Default)]
struct Attributes<'a> {
    named: Vec<(usize, &'a str, Attribute<'a>)>,
    ranges: Option<(usize, DimVec<SliceDim>)>,
    literal: Option<(usize, &'a str)>,
}

/// A statement before its operation is known.
struct Statement<'a> {
    name: &'a str,
    start: usize,
    operands: Vec<Value>,
    attributes: Attributes<'a>,
    ty: TensorType,
}

impl<'a> Parser<'a> {
    fn label(&mut self) -> Result<(usize, Label)> {
        let position = self.at.position();
        if !self.at.eat("%") {
            return Err(self.at.expected("a value such as `%1`"));
        }
        if self.at.peek().is_some_and(|c| c.is_ascii_digit()) {
            let number = self.at.number()?;
            let result = if self.at.eat(".") { self.at.number()? } else { 0 };
            return Ok((position, Label::Numbered(number, result)));
        }
        let name = self.at.name()?;
        let copy = if self.at.eat("#") { self.at.number()? } else { 1 };
        Ok((position, Label::Named(name, copy)))
    }

    fn value(&self, position: usize, label: &Label) -> Result<Value> {
        let known = self.values.get(label).copied();
        known.ok_or_else(|| self.at.error_at(position, format!("{label} is not defined before it is used")))
    }

    fn define(&mut self, position: usize, label: Label, v: Value) -> Result<()> {
        if self.values.contains_key(&label) {
            return Err(self.at.error_at(position, format!("{label} is defined twice")));
        }
        self.values.insert(label, v);
        Ok(())
    }

    fn inputs(&mut self) -> Result<()> {
        self.at.require("(")?;
        while !self.at.eat(")") {
            let (position, label) = self.label()?;
            self.at.require(":")?;
            let ty = self.at.tensor_type()?;
            if !self.at.eat(",") && self.at.peek() != Some(')') {
                return Err(self.at.expected("`,` or `)`"));
            }
            let sources = self.at.sources();
            self.input(position, label, ty, sources)?;
        }
        Ok(())
    }

    fn input(&mut self, position: usize, label: Label, ty: TensorType, sources: Sources) -> Result<()> {
        let Label::Named(name, _) = &label else {
            return Err(self.at.error_at(position, format!("an input needs a name, {label} is a number")));
        };
        let v = self.graph.add_input(name.clone(), ty, sources);
        self.define(position, label, v)
    }

    fn outputs(&mut self) -> Result<Vec<(usize, Label)>> {
        self.at.require("(")?;
        let mut outputs = Vec::new();
        while !self.at.eat(")") {
            outputs.push(self.label()?);
            if !self.at.eat(",") && self.at.peek() != Some(')') {
                return Err(self.at.expected("`,` or `)`"));
            }
        }
        Ok(outputs)
    }

    fn statement(&mut self) -> Result<()> {
        let (position, label) = self.label()?;
        self.at.require("=")?;
        let start = self.at.position();
        let Some(name) = self.at.word() else { return Err(self.at.expected("an operation")) };
        let mut operands = Vec::new();
        while self.at.peek() == Some('%') {
            let (position, label) = self.label()?;
            operands.push(self.value(position, &label)?);
            if !self.at.eat(",") {
                break;
            }
            if self.at.peek() != Some('%') {
                return Err(self.at.expected("an operand"));
            }
        }
        let attributes = self.attributes(name)?;
        self.at.require(":")?;
        let type_position = self.at.position();
        let ty = self.at.tensor_type()?;
        let sources = self.at.sources();
        if name == "input" && operands.is_empty() {
            self.reject_leftovers(name, &attributes)?;
            return self.input(position, label, ty, sources);
        }
        let op = self.operation(Statement { name, start, operands: operands.clone(), attributes, ty: ty.clone() })?;
        let v = self.graph.add(op, &operands, sources).map_err(|e| self.at.error_at(start, e))?;
        if *self.graph.ty(v) != ty {
            let given = self.graph.ty(v);
            return Err(self.at.error_at(type_position, format!("expected {given}, which `{name}` gives, found {ty}")));
        }
        self.define(position, label, v)
    }

    fn attributes(&mut self, operation: &str) -> Result<Attributes<'a>> {
        let mut attributes = Attributes::default();
        if operation == "constant" {
            attributes.literal = Some(self.literal());
        }
        while self.at.peek().is_some_and(|c| c != ':') {
            let position = self.at.position();
            if self.at.peek() == Some('[') && attributes.ranges.is_none() {
                attributes.ranges = Some((position, self.at.list(range)?.into_iter().collect()));
                continue;
            }
            let Some(name) = self.at.word() else { return Err(self.at.expected("`:` and a type")) };
            self.at.require("=")?;
            let value = match self.at.peek() {
                Some('[') => self.list()?,
                Some(c) if c.is_ascii_digit() => Attribute::Number(self.at.number()?),
                _ => Attribute::Word(self.at.word().ok_or_else(|| self.at.expected("a number, a list or a word"))?),
            };
            attributes.named.push((position, name, value));
        }
        Ok(attributes)
    }

    fn literal(&mut self) -> (usize, &'a str) {
        let start = self.at.position();
        let mut whole = self.at;
        let token = self.at.run(is_literal);
        // The bits of a NaN are written `bits:0x7fc00001`: only there a colon is part of a literal.
        if token == "bits" && self.at.eat(":") {
            let bits = self.at.run(is_literal);
            return (start, whole.run(|c| is_literal(c) || (c == ':' && !bits.is_empty())));
        }
        (start, token)
    }

    fn list(&mut self) -> Result<Attribute<'a>> {
        self.at.require("[")?;
        let (mut left, mut right, mut second) = (Vec::new(), Vec::new(), false);
        while !self.at.eat("]") {
            if !second && self.at.eat(";") {
                second = true;
                continue;
            }
            if second { &mut right } else { &mut left }.push(self.at.number()?);
            if !self.at.eat(",") && !matches!(self.at.peek(), Some(']' | ';')) {
                return Err(self.at.expected("`,`, `;` or `]`"));
            }
        }
        Ok(if second { Attribute::Pairs(left, right) } else { Attribute::List(left) })
    }

    /// The operation that a statement names, with its attributes.
    fn operation(&mut self, s: Statement<'a>) -> Result<Op> {
        let (name, start) = (s.name, s.start);
        let mut taken = Taken { at: self.at, name, start, left: s.attributes };
        let TensorType { shape, dtype } = s.ty;
        let op = match name {
            "constant" => Op::Constant { value: taken.literal(dtype)?, shape },
            "iota" => Op::Iota { dim: taken.number("dim")? as usize, shape },
            "alias" => Op::Alias,
            "detach" => Op::Detach,
            "to_device" => Op::ToDevice { from: taken.device("from")?, to: taken.device("to")? },
            "random" => Op::Random { stream: taken.number("stream")?, shape },
            "select" => Op::Select,
            "cast" => Op::Cast(dtype),
            "permute" => Op::Permute(taken.list("perm")?),
            "reshape" => Op::Reshape(shape),
            "broadcast" => Op::Broadcast { shape, dims: taken.list("dims")? },
            "slice" => Op::Slice(taken.ranges()?),
            "pad" => Op::Pad(taken.pad()?),
            "flip" => Op::Flip(taken.list("dims")?),
            "concat" => Op::Concat { dim: taken.number("dim")? as usize, count: s.operands.len() },
            "window" => Op::Window(taken.window()?),
            "window_sum" => Op::WindowSum { dims: taken.window()?, shape },
            "dynamic_slice" => Op::DynamicSlice(taken.list("sizes")?),
            "dynamic_update_slice" => Op::DynamicUpdateSlice { rank: shape.rank() },
            "check_index" => Op::CheckIndex {
                extent: taken.number("extent")? as usize,
                wrap: taken.flag("wrap")?,
                operation: taken.name("of")?,
            },
            "gather" => Op::Gather { dim: taken.number("dim")? as usize },
            "sort" => Op::Sort { dim: taken.number("dim")? as usize, descending: taken.flag("descending")? },
            "dot" => {
                let contract = taken.pairs("contract")?;
                Op::Dot { dims: DotDims { batch: taken.pairs("batch")?, contract }, acc: dtype }
            }
            _ => {
                let reduction = name.strip_prefix("reduce_").and_then(ReduceOp::parse);
                if let Some(op) = name.strip_prefix("scatter_").and_then(ScatterOp::parse) {
                    let op = Op::Scatter { dim: taken.number("dim")? as usize, op };
                    self.reject_leftovers(name, &taken.left)?;
                    return Ok(op);
                }
                if let Some(op) = name.strip_prefix("cumulative_").and_then(CumulativeOp::parse) {
                    let (dim, reverse) = (taken.number("dim")? as usize, taken.flag("reverse")?);
                    self.reject_leftovers(name, &taken.left)?;
                    return Ok(Op::Cumulative { op, dim, reverse });
                }
                let unary = UnaryOp::parse(name).map(Op::Unary);
                let elementwise = unary
                    .or_else(|| BinaryOp::parse(name).map(Op::Binary))
                    .or_else(|| CompareOp::parse(name).map(Op::Compare));
                match (reduction, elementwise) {
                    (Some(op), _) => {
                        let operand = s.operands.first().map_or(dtype, |v| self.graph.ty(*v).dtype);
                        Op::Reduce { op, dims: taken.list("dims")?, acc: taken.dtype("acc", operand)? }
                    }
                    (None, Some(op)) => op,
                    (None, None) => return Err(self.at.error_at(start, format!("`{name}` is not an operation"))),
                }
            }
        };
        self.reject_leftovers(name, &taken.left)?;
        Ok(op)
    }

    fn reject_leftovers(&self, name: &str, left: &Attributes<'_>) -> Result<()> {
        let attribute = left.named.first().map(|(position, attribute, _)| (*position, *attribute));
        let ranges = left.ranges.as_ref().map(|(position, _)| (*position, "[..]"));
        match attribute.or(ranges).or(left.literal) {
            Some((at, what)) => Err(self.at.error_at(at, format!("`{name}` has no attribute `{what}`"))),
            None => Ok(()),
        }
    }
}

/// `0..4` or `2..8 step 2`.
fn range(at: &mut Cursor<'_>) -> Result<SliceDim> {
    let start = at.number()?;
    at.require("..")?;
    let stop = at.number()?;
    Ok(SliceDim { start, stop, step: if at.eat_word("step") { at.number()? } else { 1 } })
}

fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_')
}

/// The attributes of a statement while its operation takes them.
struct Taken<'a> {
    at: Cursor<'a>,
    name: &'a str,
    start: usize,
    left: Attributes<'a>,
}

impl<'a> Taken<'a> {
    fn take(&mut self, name: &str) -> Option<(usize, Attribute<'a>)> {
        let i = self.left.named.iter().position(|(_, n, _)| *n == name)?;
        let (position, _, value) = self.left.named.remove(i);
        Some((position, value))
    }

    fn wrong<T>(&self, position: Option<usize>, what: &str) -> Result<T> {
        Err(self.at.error_at(position.unwrap_or(self.start), format!("`{}` needs {what}", self.name)))
    }

    fn number(&mut self, name: &str) -> Result<u64> {
        match self.take(name) {
            Some((_, Attribute::Number(n))) => Ok(n),
            other => self.wrong(other.map(|o| o.0), &format!("`{name}=0`, a number")),
        }
    }

    /// `true` or `false`; absent is false.
    fn flag(&mut self, name: &str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some((_, Attribute::Word("true"))) => Ok(true),
            Some((_, Attribute::Word("false"))) => Ok(false),
            Some((position, _)) => self.wrong(Some(position), &format!("`{name}=true` or `{name}=false`")),
        }
    }

    fn device(&mut self, name: &str) -> Result<Device> {
        let taken = self.take(name);
        if let Some((_, Attribute::Word(word))) = &taken
            && let Some(device) = Device::of_word(word)
        {
            return Ok(device);
        }
        self.wrong(taken.map(|t| t.0), &format!("`{name}=cpu` or `{name}=cuda.0`"))
    }

    /// A word that stays; absent is the operation's own name.
    fn name(&mut self, name: &str) -> Result<&'static str> {
        match self.take(name) {
            None => Ok(intern(self.name)),
            Some((_, Attribute::Word(word))) => Ok(intern(word)),
            Some((position, _)) => self.wrong(Some(position), &format!("`{name}=gather` or another name")),
        }
    }

    fn window(&mut self) -> Result<WindowDims> {
        let (dims, sizes) = (self.list("dims")?, self.list("size")?);
        let (strides, dilations) = (self.list("stride")?, self.list("dilation")?);
        if [&sizes, &strides, &dilations].iter().any(|l| l.len() != dims.len()) {
            return self.wrong(None, "`dims`, `size`, `stride` and `dilation` of one length");
        }
        let parts = dims.into_iter().zip(sizes).zip(strides).zip(dilations);
        Ok(parts.map(|(((dim, size), stride), dilation)| WindowDim { dim, size, stride, dilation }).collect())
    }

    fn list(&mut self, name: &str) -> Result<DimVec<usize>> {
        match self.take(name) {
            Some((_, Attribute::List(list))) => Ok(list.into_iter().collect()),
            other => self.wrong(other.map(|o| o.0), &format!("`{name}=[..]`, a list of numbers")),
        }
    }

    fn pairs(&mut self, name: &str) -> Result<DimVec<(usize, usize)>> {
        match self.take(name) {
            Some((_, Attribute::Pairs(l, r))) if l.len() == r.len() => Ok(l.into_iter().zip(r).collect()),
            None => Ok(DimVec::new()),
            other => self.wrong(other.map(|o| o.0), &format!("`{name}=[..;..]`, as many left dims as right ones")),
        }
    }

    fn dtype(&mut self, name: &str, default: DType) -> Result<DType> {
        let Some((position, value)) = self.take(name) else { return Ok(default) };
        match value {
            Attribute::Word(word) => match DType::parse(word) {
                Some(dtype) => Ok(dtype),
                None => self.wrong(Some(position), &format!("`{name}=f32` or another dtype")),
            },
            Attribute::Number(_) | Attribute::List(_) | Attribute::Pairs(..) => {
                self.wrong(Some(position), &format!("`{name}=f32` or another dtype"))
            }
        }
    }

    fn literal(&mut self, dtype: DType) -> Result<Literal> {
        let (position, text) = self.left.literal.take().unwrap_or((self.start, ""));
        match Literal::parse(dtype, text) {
            Some(literal) => Ok(literal),
            None => Err(self.at.error_at(position, format!("expected a value of {dtype}, found `{text}`"))),
        }
    }

    fn ranges(&mut self) -> Result<DimVec<SliceDim>> {
        match self.left.ranges.take() {
            Some((_, ranges)) => Ok(ranges),
            None => self.wrong(None, "`[0..2, 1..5 step 2]`, a range for each dim"),
        }
    }

    fn pad(&mut self) -> Result<DimVec<PadDim>> {
        let (low, high) = (self.list("low")?, self.list("high")?);
        let interior = match self.left.named.iter().any(|(_, n, _)| *n == "interior") {
            true => self.list("interior")?,
            false => low.iter().map(|_| 0).collect(),
        };
        if low.len() != high.len() || low.len() != interior.len() {
            return self.wrong(None, "`low`, `high` and `interior` of one length");
        }
        let dims = low.into_iter().zip(high).zip(interior);
        Ok(dims.map(|((low, high), interior)| PadDim { low, high, interior }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Shape, Source};

    fn round_trip(g: &Graph) -> String {
        let text = g.to_string();
        let back = Graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(&back, g, "{text}");
        assert_eq!(back.to_string(), text);
        for n in g.nodes() {
            assert_eq!(back.node(n).sources, g.node(n).sources, "{text}");
        }
        g.verify().unwrap();
        text
    }

    fn failure(text: &str) -> String {
        let e = Graph::parse(text).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Parse, "{e}");
        e.to_string()
    }

    #[test]
    fn every_operation_prints_and_parses_back() {
        let text = "\
graph all(%x: f32[2,3], %c: bool[2,3], %base: i64[2]) -> (%9, %x, %18) {
  %1 = constant -0.0 : f32[]   // src/main.rs:12:20, src/nn.rs:1:2
  %2 = iota dim=1 : i64[2,3]
  %3 = random %base stream=3 : f32[2,3]
  %4 = alias %x : f32[2,3]
  %5 = alias %x : f32[2,3]
  %6 = detach %4 : f32[2,3]
  %7 = rsqrt %6 : f32[2,3]
  %8 = div %x, %7 : f32[2,3]
  %9 = le %x, %8 : bool[2,3]
  %10 = select %c, %8, %3 : f32[2,3]
  %11 = cast %2 : f32[2,3]
  %12 = permute %11 perm=[1,0] : f32[3,2]
  %13 = reshape %12 : f32[6,1]
  %14 = broadcast %13 dims=[0,2] : f32[6,2,5]
  %15 = slice %14 [0..4, 1..2, 0..5 step 2] : f32[4,1,3]
  %16 = pad %x, %1 low=[1,0] high=[0,2] : f32[3,5]
  %17 = pad %x, %1 low=[0,0] high=[0,0] interior=[1,0] : f32[3,3]
  %18 = reduce_sum %10 dims=[0,1] acc=f32 : f32[]
  %19 = reduce_max %10 dims=[] acc=f32 : f32[2,3]
  %20 = reduce_argmax %10 dims=[1] acc=f32 : i64[2]
  %21 = dot %16, %17 contract=[0;0] : f32[5,3]
  %22 = dot %14, %14 contract=[1,2;1,2] batch=[0;0] : f32[6]
  %23 = dot %1, %1 : f32[]
  %24 = flip %x dims=[0,1] : f32[2,3]
  %25 = concat %x, %x, %24 dim=1 : f32[2,9]
  %26 = window %25 dims=[1] size=[3] stride=[2] dilation=[1] : f32[2,4,3]
  %27 = window_sum %26 dims=[1] size=[3] stride=[2] dilation=[1] : f32[2,9]
  %28 = check_index %2 extent=3 wrap=true : i64[2,3]
  %29 = check_index %2 extent=3 : i64[2,3]
  %30 = gather %x, %28 dim=1 : f32[2,3]
  %31 = scatter_add %x, %28, %30 dim=1 : f32[2,3]
  %32 = cumulative_sum %x dim=1 : f32[2,3]
  %33 = cumulative_max %x dim=0 reverse=true : f32[2,3]
  %34 = sort %x dim=1 descending=true : i64[2,3]
  %35 = constant 1 : i64[]
  %36 = dynamic_slice %x, %35, %35 sizes=[1,2] : f32[1,2]
  %37 = dynamic_update_slice %x, %36, %35, %35 : f32[2,3]
  %38 = constant 0.5 : bf16[2]
  %late = input : f32[0]
  %39 = neg %late : f32[0]
}
";
        let g = Graph::parse(text).unwrap();
        assert_eq!(round_trip(&g), text);
        assert!(g.to_dot().contains("n3 [label=\"%1 = constant -0.0\\nf32[]\\nsrc/main.rs:12:20, src/nn.rs:1:2\"]"));
        for op in UnaryOp::ALL {
            let (name, dtype) = (op.name(), if op.row().domain.contains(DType::F32) { "f32" } else { "u8" });
            let text = format!("graph u(%x: {dtype}[]) -> (%1) {{ %1 = {name} %x : {dtype}[] }}");
            round_trip(&Graph::parse(&text).unwrap());
        }
    }

    #[test]
    fn literals_names_and_sources_survive() {
        let mut g = Graph::new("a graph");
        let line = |l| Sources::from(Source { file: "src/a b.rs", line: l, column: 1 });
        for name in ["x", "x", "x#2", "", "1", "layers.0.w", "a \"b\"\\\n\u{1}\u{e9}%", "_"] {
            g.add_input(name, TensorType::new([1], DType::F32), line(1));
        }
        let floats = [0.0, -0.0, 1.0, 1e-45, f32::MAX, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0xffc0_0001)];
        for value in floats.map(Literal::F32).into_iter().chain([Literal::I64(i64::MIN), Literal::Bool(true)]) {
            let v = g.add(Op::Constant { value, shape: Shape::scalar() }, &[], line(2).union(&line(3))).unwrap();
            g.add_output(v);
        }
        let text = round_trip(&g);
        assert!(text.contains("%x#2: f32[1],   // src/a b.rs:1:1\n"), "{text}");
        assert!(text.contains("%\"layers.0.w\"") || text.contains("%layers.0.w:"), "{text}");
        assert!(text.contains("constant bits:0xffc00001 : f32[]"), "{text}");
        round_trip(&Graph::new(""));
    }

    #[test]
    fn equal_lines_merge_and_labels_are_free() {
        let text = "// a comment\ngraph g(%x: f32[2],) -> (%b) {\n  %a = exp %x : f32[2] // a.rs:1:1\n
            %c = exp %x : f32[2] // b.rs:2:2\n %b = add %a, %c : f32[2] // not: a source\n}";
        let g = Graph::parse(text).unwrap();
        let expected = "graph g(%x: f32[2]) -> (%2) {\n  %1 = exp %x : f32[2]   // a.rs:1:1, b.rs:2:2\n";
        assert_eq!(round_trip(&g), format!("{expected}  %2 = add %1, %1 : f32[2]\n}}\n"));
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        let body = |line: &str| failure(&format!("graph g(%x: f32[2]) -> () {{\n  {line}\n}}"));
        assert_eq!(body("%1 = exp %y : f32[2]"), "line 2, column 12: %y is not defined before it is used");
        assert_eq!(body("%1 = frob %x : f32[2]"), "line 2, column 8: `frob` is not an operation");
        assert_eq!(body("%1 = exp %x : f32[3]"), "line 2, column 17: expected f32[2], which `exp` gives, found f32[3]");
        assert_eq!(
            body("%1 = exp %x : f65[3]"),
            "line 2, column 17: expected a dtype (bool, u8, i32, i64, f16, bf16, f32, f64), found `f65`"
        );
        assert_eq!(body("%1 = exp %x f32[2]"), "line 2, column 18: expected `=`, found `[`");
        assert_eq!(body("%1 = exp %x dim=1 : f32[2]"), "line 2, column 15: `exp` has no attribute `dim`");
        assert_eq!(body("%1 = iota : i64[2]"), "line 2, column 8: `iota` needs `dim=0`, a number");
        assert_eq!(body("%1 = constant 1.5 : i64[2]"), "line 2, column 17: expected a value of i64, found `1.5`");
        assert_eq!(body("%x = exp %x : f32[2]"), "line 2, column 3: %x is defined twice");
        assert!(body("%1 = add %x : f32[2]").contains("add takes 2 operands, not 1"));
        assert!(body("%1 = exp %x.7 : f32[2]").starts_with("line 2, column 12: "));
        assert!(body("%1 = constant 1.0 : f32[99999999999, 99999999999]").contains("too large"));
        assert!(body("%1 = constant 1.0 : f32[99999999999999999999]").contains("too large"));
        assert_eq!(
            failure("graph g(%x: f32[2]) -> ("),
            "line 1, column 25: expected a value such as `%1`, found the end"
        );
        assert_eq!(failure(""), "line 1, column 1: expected `graph`, found the end");
        assert!(failure("graph \"g").contains("has no end"));
    }

    #[test]
    fn no_prefix_or_edit_of_a_text_panics() {
        let text = "graph \"g\\u{e9}\"(%x: f32[2,3]) -> (%2) {\n %1 = constant bits:0xffc00001 : f32[] // a.rs:1:2
            %2 = pad %x, %1 low=[1,0] high=[0,2] interior=[1,0] : f32[4,5]\n}";
        assert!(Graph::parse(text).is_ok());
        for (i, _) in text.char_indices() {
            let _ = Graph::parse(&text[..i]);
            for c in ["é", "%", "[", "9", "\"", " "] {
                let _ = Graph::parse(&format!("{}{c}{}", &text[..i], &text[i..]));
            }
        }
    }
}
