//! At least one instance of every primitive with operand types it takes, for tests that must not forget one.

use lazuli_ir::{
    BinaryOp, CompareOp, CumulativeOp, DType, Device, Domain, DotDims, Op, PadDim, ReduceOp, ScatterOp, Shape,
    SliceDim, TensorType, UnaryOp, WindowDim, WindowDims,
};
use smallvec::smallvec;

/// Every primitive that has operands, where it can in `f32`.
pub(crate) fn operations() -> Vec<(Op, Vec<TensorType>)> {
    let f = |extents: &[usize]| TensorType::new(extents, DType::F32);
    let condition = TensorType::new([2, 3], DType::Bool);
    let mut all: Vec<(Op, Vec<TensorType>)> = vec![
        (Op::Alias, vec![f(&[2, 3])]),
        (Op::Detach, vec![f(&[2, 3])]),
        (Op::ToDevice { from: Device::Cpu, to: Device::Cuda(0) }, vec![f(&[2, 3])]),
        (Op::Select, vec![condition, f(&[2, 3]), f(&[2, 3])]),
        (Op::Permute(smallvec![2, 0, 1]), vec![f(&[2, 3, 4])]),
        (Op::Reshape(Shape::new([6])), vec![f(&[2, 3])]),
        (Op::Broadcast { shape: Shape::new([4, 2, 3]), dims: smallvec![1, 2] }, vec![f(&[1, 3])]),
        (Op::Slice(smallvec![slice(1, 6, 2), slice(0, 3, 1), slice(2, 2, 3)]), vec![f(&[7, 3, 5])]),
        (Op::Pad(smallvec![pad(1, 0, 2), pad(0, 2, 0)]), vec![f(&[3, 2]), f(&[])]),
        (Op::Random { stream: 0, shape: Shape::new([3]) }, vec![TensorType::new([2], DType::I64)]),
    ];
    all.extend(DType::ALL.map(|d| (Op::Cast(d), vec![f(&[2])])));
    let taken = |domain: Domain| if domain.contains(DType::F32) { DType::F32 } else { DType::I64 };
    for op in UnaryOp::ALL {
        all.push((Op::Unary(*op), vec![TensorType::new([2, 3], taken(op.row().domain))]));
    }
    for op in BinaryOp::ALL {
        let ty = TensorType::new([2, 3], taken(op.domain()));
        all.push((Op::Binary(*op), vec![ty.clone(), ty]));
    }
    let index = |extents: &[usize]| TensorType::new(extents, DType::I64);
    let windows: WindowDims = smallvec![window(0, 2, 1, 1), window(2, 2, 2, 2)];
    all.push((Op::Flip(smallvec![0, 2]), vec![f(&[2, 3, 4])]));
    all.push((Op::Concat { dim: 1, count: 3 }, vec![f(&[2, 1]), f(&[2, 3]), f(&[2, 2])]));
    all.push((Op::Window(windows.clone()), vec![f(&[3, 2, 5])]));
    all.push((Op::WindowSum { dims: windows, shape: Shape::new([3, 2, 5]) }, vec![f(&[2, 2, 2, 2, 2])]));
    all.push((Op::DynamicSlice(smallvec![1, 2]), vec![f(&[2, 3]), index(&[]), index(&[])]));
    all.push((Op::DynamicUpdateSlice { rank: 2 }, vec![f(&[2, 3]), f(&[1, 2]), index(&[]), index(&[])]));
    all.push((Op::CheckIndex { extent: 2, wrap: true, operation: "i" }, vec![index(&[2, 3])]));
    all.push((Op::Gather { dim: 1 }, vec![f(&[2, 3]), index(&[2, 4])]));
    for op in ScatterOp::ALL {
        // Of several that are set at one place all have its gradient, as in PyTorch: no difference shows that.
        let rows = if *op == ScatterOp::Set { 1 } else { 4 };
        all.push((Op::Scatter { dim: 0, op: *op }, vec![f(&[3, 2]), index(&[rows, 2]), f(&[rows, 2])]));
    }
    for op in CumulativeOp::ALL {
        for reverse in [false, true] {
            all.push((Op::Cumulative { op: *op, dim: 1, reverse }, vec![f(&[2, 4, 2])]));
        }
    }
    all.push((Op::Sort { dim: 1, descending: false }, vec![f(&[2, 3])]));
    all.extend(CompareOp::ALL.iter().map(|op| (Op::Compare(*op), vec![f(&[2, 3]), f(&[2, 3])])));
    for op in ReduceOp::ALL {
        for dims in [&[1][..], &[0, 2], &[0, 1, 2]] {
            all.push((Op::Reduce { op: *op, dims: dims.into(), acc: DType::F32 }, vec![f(&[3, 2, 4])]));
        }
    }
    let mut dot = |batch: &[(usize, usize)], contract: &[(usize, usize)], a: &[usize], b: &[usize]| {
        let dims = DotDims { batch: batch.into(), contract: contract.into() };
        all.push((Op::Dot { dims, acc: DType::F32 }, vec![f(a), f(b)]));
    };
    dot(&[], &[(1, 0)], &[2, 3], &[3, 4]);
    dot(&[], &[(0, 0)], &[3], &[3]);
    dot(&[(0, 1), (3, 0)], &[(2, 3), (1, 2)], &[2, 3, 4, 5], &[5, 2, 3, 4, 2]);
    dot(&[(1, 0)], &[], &[2, 3], &[3, 2]);
    all
}

fn slice(start: usize, stop: usize, step: usize) -> SliceDim {
    SliceDim { start, stop, step }
}

fn window(dim: usize, size: usize, stride: usize, dilation: usize) -> WindowDim {
    WindowDim { dim, size, stride, dilation }
}

fn pad(low: usize, high: usize, interior: usize) -> PadDim {
    PadDim { low, high, interior }
}

#[test]
fn every_variant_has_a_sample() {
    let variants: std::collections::BTreeSet<&str> = operations().iter().map(|(op, _)| op.name()).collect();
    let elementwise = UnaryOp::ALL.len() + BinaryOp::ALL.len() + CompareOp::ALL.len();
    let indexed = ReduceOp::ALL.len() + ScatterOp::ALL.len() + CumulativeOp::ALL.len();
    assert_eq!(variants.len(), elementwise + indexed + 21);
}
