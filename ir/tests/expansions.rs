//! The expansions of unary functions against double precision, over all of `f32`: the stated accuracy holds, and special
//! values are right.
//!
//! Every 4099th bit pattern is tried, so that all exponents and varying low bits occur; `LAZULI_FUNCTION_STRIDE=1` tries
//! all of them (in a release build, and with patience).

#![allow(clippy::panic, clippy::unwrap_used)]

mod accuracy;

use accuracy::ulps;
use lazuli_ir::kernel::{
    Access, Axis, Emit, Expr, Extent, Loop, Memory, Param, ParamId, ScalarType, Stmt, StmtKind, Stride, ValueId,
};
use lazuli_ir::kernel_eval::{KernelBuffer, ThreadOrder, evaluate};
use lazuli_ir::{DType, ExtentId, Index, Kernel, UnaryCode, UnaryOp};
use smallvec::smallvec;

/// A block under construction.
struct Builder {
    kernel: Kernel,
    block: Vec<Stmt>,
}

impl Emit for Builder {
    fn emit(&mut self, ty: ScalarType, expr: Expr) -> ValueId {
        let v = self.kernel.new_value(ty);
        self.block.push(StmtKind::Let(v, expr).into());
        v
    }

    fn type_of(&self, v: ValueId) -> ScalarType {
        self.kernel.values[v.index()]
    }
}

/// `y[i] = f(x[i])`, with the function expanded.
fn kernel(op: UnaryOp) -> Kernel {
    let mut kernel = Kernel::new(op.name());
    kernel.extents.push("n".into());
    let n = Extent::Runtime(ExtentId(0));
    for (name, access) in [("x", Access::Read), ("y", Access::Write)] {
        let (name, dtype) = (name.to_owned(), DType::F32);
        kernel.params.push(Param { name, dtype, dims: smallvec![n], strides: smallvec![Stride::Const(1)], access });
    }
    let var = kernel.new_var("i");
    let index = vec![Index::var(var)];
    let mut b = Builder { kernel, block: Vec::new() };
    let load = Expr::Load { from: Memory::Param(ParamId(0)), index: index.clone(), mask: None };
    let x = b.emit(ScalarType::F32, load);
    let value = match op.row().code {
        UnaryCode::Expand(expand) | UnaryCode::ExpandBelow(expand, _) => expand(&mut b, x),
        UnaryCode::Native(_) | UnaryCode::Call => panic!("{} is not expanded", op.name()),
    };
    b.block.push(StmtKind::Store { to: Memory::Param(ParamId(1)), index, value, mask: None }.into());
    let axis = Axis::default();
    b.kernel.body.push(StmtKind::Loop(Loop { var, extent: n, step: 1, limit: None, axis, body: b.block }).into());
    b.kernel
}

fn apply(kernel: &Kernel, x: Vec<f32>) -> Vec<f32> {
    let n = x.len();
    let mut buffers: [KernelBuffer; 2] = [x.into(), vec![0.0f32; n].into()];
    evaluate(kernel, &mut buffers, &[n as u64], &[], ThreadOrder::Forward).unwrap();
    buffers[1].data.to_vec()
}

#[test]
fn accuracy_is_as_stated() {
    let stride = std::env::var("LAZULI_FUNCTION_STRIDE").ok().and_then(|s| s.parse().ok()).unwrap_or(4099);
    for op in UnaryOp::ALL.iter().copied() {
        let limit = match op.row().code {
            UnaryCode::Expand(_) => f32::INFINITY,
            UnaryCode::ExpandBelow(_, limit) => limit as f32,
            UnaryCode::Native(_) | UnaryCode::Call => continue,
        };
        let kernel = kernel(op);
        kernel.verify().unwrap();
        let mut worst = (0.0, 0.0);
        let bits: Vec<u32> = (0..=u32::MAX).step_by(stride).collect();
        for chunk in bits.chunks(1 << 16) {
            let x = chunk.iter().map(|b| f32::from_bits(*b));
            let x: Vec<f32> = x.filter(|x| x.abs() < limit || x.is_nan() || limit.is_infinite()).collect();
            for (x, y) in x.iter().zip(apply(&kernel, x.clone())) {
                let error = ulps(y, (op.row().float)(f64::from(*x)));
                if error > worst.0 {
                    worst = (error, *x);
                }
            }
        }
        println!("{}: {:.3} ulps at {:e}", op.name(), worst.0, worst.1);
        let stated = op.row().ulps;
        assert!(worst.0 <= stated, "{}: {} ulps at {:e}, {stated} are stated", op.name(), worst.0, worst.1);
    }
}

#[test]
fn special_values_are_right() {
    let (inf, nan, tiny) = (f32::INFINITY, f32::NAN, 1e-45f32);
    let same = |op: UnaryOp, cases: &[(f32, f32)]| {
        let x: Vec<f32> = cases.iter().map(|c| c.0).collect();
        for ((x, expected), found) in cases.iter().zip(apply(&kernel(op), x)) {
            let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(equal, "{}({x:e}) is {found:e}, expected {expected:e}", op.name());
        }
    };
    same(
        UnaryOp::Exp,
        &[(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (-nan, nan), (tiny, 1.0), (88.73, inf)],
    );
    same(UnaryOp::Exp, &[(-103.3, tiny), (-104.1, 0.0), (-1e30, 0.0), (1e30, inf), (f32::MIN, 0.0), (f32::MAX, inf)]);
    same(
        UnaryOp::Log,
        &[(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (nan, nan), (-tiny, nan), (-1.0, nan)],
    );
    same(UnaryOp::Log, &[(tiny, -103.27893), (f32::MAX, 88.72284)]);
    same(
        UnaryOp::Tanh,
        &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan), (tiny, tiny), (-tiny, -tiny), (20.0, 1.0)],
    );
    same(UnaryOp::Tanh, &[(1e-20, 1e-20), (-30.0, -1.0), (f32::MAX, 1.0), (f32::MIN, -1.0), (-1e-38, -1e-38)]);
    same(
        UnaryOp::Rsqrt,
        &[(1.0, 1.0), (4.0, 0.5), (0.0, inf), (-0.0, -inf), (inf, 0.0), (-1.0, nan), (-inf, nan), (nan, nan)],
    );
}
