//! The text form of kernels: what is printed is read back as the same kernel, and wrong text is told where it is wrong.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::kernel::{Expr, Memory, ScalarType, Scope, Stmt, StmtKind, Tile, ValueId};
use lazuli_ir::philox::philox;
use lazuli_ir::{DType, ErrorKind, Index, Kernel, VarId};
use smallvec::smallvec;

const TEXTS: [&str; 6] = [
    include_str!("kernels/softmax.txt"),
    include_str!("kernels/linear_relu.txt"),
    include_str!("kernels/column_sum.txt"),
    include_str!("kernels/mean_and_argmax.txt"),
    include_str!("kernels/pad.txt"),
    include_str!("kernels/transpose.txt"),
];

#[test]
fn kernels_print_and_parse_back() {
    for text in TEXTS {
        let kernel = Kernel::parse(text).unwrap();
        let printed = kernel.to_string();
        let again = Kernel::parse(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again, kernel, "\n{printed}\n{again}");
        assert_eq!(again.to_string(), printed);
        assert_eq!(again.sources, kernel.sources);
    }
}

#[test]
fn wrong_text_is_told_where_it_is_wrong() {
    for (text, message) in [
        (
            "kernel k() {\n  loop %i in n { }\n}",
            "line 2, column 14: expected a number or the name of an extent, found `n`",
        ),
        ("kernel k() {\n  %1 = exp %0\n}", "line 2, column 12: %0 is no value defined above"),
        ("kernel k() {\n  %1 = 0.5\n  %1 = 2\n}", "line 3, column 3: %1 is defined twice"),
        ("kernel k() {\n  %1 = sine 0.5\n}", "line 2, column 8: expected an operation, found `sine`"),
        ("kernel k(%x: f32[4]) {\n  store %x[%i], 1.0\n}", "line 2, column 12: %i is no loop variable in scope"),
        ("kernel k() { barrier", "line 1, column 21: expected a statement, found the end"),
        ("kernel k() { %900000 = 1 }", "line 1, column 14: the number %900000 is too large"),
        ("kernel k(%x: f32[4] strides(1,2)) { }", "line 1, column 28: expected 1 strides, one a dim"),
    ] {
        let error = Kernel::parse(text).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Parse, message), "{text}");
    }
}

/// A permutation of `0..n` without a pattern.
fn shuffled(n: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_by_key(|i| philox(seed, 0, u64::from(*i)));
    order
}

/// Other numbers for everything, as passes leave them: out of order and with gaps.
struct Renumber {
    values: Vec<u32>,
    vars: Vec<u32>,
    tiles: Vec<u32>,
}

impl Renumber {
    fn new(kernel: &Kernel, seed: u64) -> Renumber {
        Renumber {
            values: shuffled(kernel.values.len() + 3, seed),
            vars: shuffled(kernel.vars.len() + 2, seed),
            tiles: shuffled(kernel.tiles.len() + 1, seed),
        }
    }

    fn kernel(&self, kernel: &mut Kernel) {
        kernel.values.extend([ScalarType::I32, ScalarType::Bool, ScalarType::F32]);
        kernel.vars.extend(["i".to_owned(), "0 k".to_owned()]);
        let dims = smallvec![8, 3];
        let valid = smallvec![None, Some(Index::constant(2))];
        kernel.tiles.push(Tile { name: "x".into(), dtype: DType::I64, dims, valid, scope: Scope::Block });
        let (values, vars, tiles) = (kernel.values.clone(), kernel.vars.clone(), kernel.tiles.clone());
        (0..values.len()).for_each(|i| kernel.values[self.values[i] as usize] = values[i]);
        (0..vars.len()).for_each(|i| kernel.vars[self.vars[i] as usize] = vars[i].clone());
        for (i, tile) in tiles.into_iter().enumerate() {
            let valid = tile.valid.iter().map(|v| v.as_ref().map(|v| self.index(v))).collect();
            kernel.tiles[self.tiles[i] as usize] = Tile { valid, ..tile };
        }
        self.block(&mut kernel.body);
        self.block(&mut kernel.finish);
    }

    fn value(&self, v: &mut ValueId) {
        v.0 = self.values[v.index()];
    }

    fn var(&self, v: &mut VarId) {
        v.0 = self.vars[v.0 as usize];
    }

    fn index(&self, index: &Index) -> Index {
        index.substitute(&|v| Some(Index::var(VarId(self.vars[v.0 as usize]))), &|_| (0, 1 << 40))
    }

    fn place(&self, memory: &mut Memory, index: &mut [Index]) {
        if let Memory::Tile(t) = memory {
            t.0 = self.tiles[t.index()];
        }
        index.iter_mut().for_each(|i| *i = self.index(i));
    }

    fn block(&self, block: &mut [Stmt]) {
        for stmt in block {
            match &mut stmt.kind {
                StmtKind::Let(v, expr) => {
                    self.value(v);
                    *expr = expr.map_operands(&mut |v| ValueId(self.values[v.index()]));
                    match expr {
                        Expr::Load { from, index, .. } => self.place(from, index),
                        Expr::Index(i) => *i = self.index(i),
                        _ => {}
                    }
                }
                StmtKind::Store { to, index, value, mask } => {
                    self.place(to, index);
                    self.value(value);
                    mask.iter_mut().for_each(|m| self.value(m));
                }
                StmtKind::Bind { var, value, .. } => {
                    self.value(value);
                    self.var(var);
                }
                StmtKind::Tile(t) | StmtKind::Fill(t, _) => t.0 = self.tiles[t.index()],
                StmtKind::Loop(l) => {
                    self.var(&mut l.var);
                    l.limit.iter_mut().for_each(|i| *i = self.index(i));
                    self.block(&mut l.body);
                }
                StmtKind::Reduce(r) => {
                    r.vars.iter_mut().for_each(|v| self.var(&mut v.0));
                    self.block(&mut r.body);
                    r.yields.iter_mut().chain(&mut r.results).for_each(|v| self.value(v));
                }
                StmtKind::Dot(d) => {
                    d.acc.0 = self.tiles[d.acc.index()];
                    self.var(&mut d.row);
                    self.var(&mut d.column);
                    d.contract.iter_mut().for_each(|v| self.var(&mut v.0));
                    self.place(&mut d.a.memory, &mut d.a.index);
                    self.place(&mut d.b.memory, &mut d.b.index);
                }
                StmtKind::Guard(c, body) => {
                    self.value(c);
                    self.block(body);
                }
                StmtKind::Check { ok, value, at, .. } => {
                    self.value(ok);
                    self.value(value);
                    *at = self.index(at);
                }
                StmtKind::Barrier => {}
            }
        }
    }
}

#[test]
fn numbers_out_of_order_come_back() {
    for (text, seed) in TEXTS.iter().flat_map(|t| (0..40).map(move |s| (t, s))) {
        let mut kernel = Kernel::parse(text).unwrap();
        Renumber::new(&kernel, seed).kernel(&mut kernel);
        let printed = kernel.to_string();
        let again = Kernel::parse(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again, kernel, "\n{printed}\n{again}");
        assert_eq!(again.to_string(), printed);
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    for (text, seed) in TEXTS.iter().flat_map(|t| (0..400).map(move |s| (t, s))) {
        let random = |draw: u64, n: usize| philox(seed, draw, 1) as usize % n;
        let (from, to) = (random(0, text.len()), random(1, text.len()));
        let mut damaged = text.to_string();
        match random(2, 3) {
            0 => damaged.truncate(from),
            1 => damaged.replace_range(from..(from + 1 + random(3, 4)).min(text.len()), ""),
            _ => damaged.insert_str(from, &text[to..(to + 1 + random(3, 8)).min(text.len())]),
        }
        if let Ok(kernel) = Kernel::parse(&damaged) {
            let _ = kernel.verify();
            assert_eq!(Kernel::parse(&kernel.to_string()).unwrap(), kernel, "{damaged}");
        }
    }
    for open in ["(", "load %x[(", "loop %i in 2 {", "guard true {", "exp ("] {
        let text = format!("kernel k(%x: f32[4]) {{ %v = {} }}", open.repeat(100_000));
        assert!(Kernel::parse(&text).is_err());
        assert!(Kernel::parse(&text.replace("%v = ", "")).is_err());
    }
}
