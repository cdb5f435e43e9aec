//! The one set of shape and dtype rules: recording, parsing, passes and the verifier all ask here.

use crate::{
    CumulativeOp, DType, DimVec, Domain, DotDims, Error, ErrorKind, Op, PadDim, ReduceOp, Result, ScatterOp, Shape,
    SliceDim, TensorType, WindowDim,
};

/// The type of the result of `op` on operands of these types, or what is wrong, with operation and operands named.
pub fn infer(op: &Op, operands: &[&TensorType]) -> Result<TensorType> {
    rule(op, operands)
        .and_then(|ty| ty.shape.check(ty.dtype).map(|()| ty))
        .map_err(|e| e.with_operation(op.name(), operands.iter().map(|t| (*t).clone())))
}

fn shape_error<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Shape, message))
}

fn dtype_error<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::DType, message))
}

fn rule(op: &Op, operands: &[&TensorType]) -> Result<TensorType> {
    match (op, operands) {
        (Op::Input { ty, .. }, []) => Ok(ty.clone()),
        (Op::Constant { value, shape }, []) => Ok(TensorType::new(shape.clone(), value.dtype())),
        (Op::Iota { dim, shape }, []) => {
            axis_in_range(*dim, shape.rank())?;
            Ok(TensorType::new(shape.clone(), DType::I64))
        }
        (Op::Alias | Op::Detach | Op::ToDevice { .. }, [x]) => Ok((*x).clone()),
        (Op::Random { shape, .. }, [base]) => {
            if **base != TensorType::new([2], DType::I64) {
                return shape_error(format!("the generator's base is i64[2], not {base}"));
            }
            Ok(TensorType::new(shape.clone(), DType::F32))
        }
        (Op::Unary(op), [x]) => {
            in_domain(op.row().domain, x)?;
            Ok((*x).clone())
        }
        (Op::Binary(op), [a, b]) => {
            alike(a, b)?;
            in_domain(op.domain(), a)?;
            Ok((*a).clone())
        }
        (Op::Compare(_), [a, b]) => {
            alike(a, b)?;
            Ok(TensorType::new(a.shape.clone(), DType::Bool))
        }
        (Op::Select, [c, a, b]) => {
            alike(a, b)?;
            if c.dtype != DType::Bool {
                return dtype_error(format!("the condition must be bool, not {}", c.dtype));
            }
            if !c.shape.same(&a.shape) {
                return shape_error(format!("the condition's shape {} differs from the values' {}", c.shape, a.shape));
            }
            Ok((*a).clone())
        }
        (Op::Cast(dtype), [x]) => Ok(TensorType::new(x.shape.clone(), *dtype)),
        (Op::Permute(perm), [x]) => permute(perm, x),
        (Op::Reshape(shape), [x]) => {
            shape.check(x.dtype)?;
            if shape.elements() != x.shape.elements() {
                return shape_error(format!(
                    "{} elements of {} cannot take the shape {shape}, which has {}",
                    x.shape.elements(),
                    x.shape,
                    shape.elements()
                ));
            }
            Ok(TensorType::new(shape.clone(), x.dtype))
        }
        (Op::Broadcast { shape, dims }, [x]) => broadcast(shape, dims, x),
        (Op::Slice(dims), [x]) => slice(dims, x),
        (Op::Pad(dims), [x, value]) => pad(dims, x, value),
        (Op::Flip(dims), [x]) => {
            increasing(dims, x.shape.rank())?;
            Ok((*x).clone())
        }
        (Op::Concat { dim, count }, operands) if operands.len() == *count && *count > 0 => concat(*dim, operands),
        (Op::Window(dims), [x]) => window(dims, x),
        (Op::WindowSum { dims, shape }, [x]) => {
            let whole = TensorType::new(shape.clone(), x.dtype);
            let windows = window(dims, &whole)?;
            if windows != **x {
                return shape_error(format!("windows of {shape} have the shape {}, not {}", windows.shape, x.shape));
            }
            in_domain(Domain::Numeric, x)?;
            accumulator("window_sum", x.dtype)?;
            Ok(whole)
        }
        (Op::DynamicSlice(sizes), [x, starts @ ..]) => {
            let sizes = Shape::new(sizes.iter().copied());
            dynamic(x, &sizes, starts)?;
            Ok(TensorType::new(sizes, x.dtype))
        }
        (Op::DynamicUpdateSlice { rank }, [x, update, starts @ ..]) => {
            if x.dtype != update.dtype || x.shape.rank() != *rank {
                return dtype_error(format!("operands {x} and {update} differ in dtype or dims"));
            }
            dynamic(x, &update.shape, starts)?;
            Ok((*x).clone())
        }
        (Op::CheckIndex { .. }, [x]) => {
            index_dtype(x)?;
            Ok((*x).clone())
        }
        (Op::Gather { dim }, [x, index]) => {
            indexed(*dim, x, index)?;
            Ok(TensorType::new(index.shape.clone(), x.dtype))
        }
        (Op::Scatter { dim, op }, [x, index, updates]) => {
            indexed(*dim, x, index)?;
            if !updates.shape.same(&index.shape) || updates.dtype != x.dtype {
                return shape_error(format!("updates {updates} for an index {index} into {x}"));
            }
            if matches!(op, ScatterOp::Add | ScatterOp::Mul) {
                in_domain(Domain::Numeric, x)?;
                accumulator(op.name(), x.dtype)?;
            }
            Ok((*x).clone())
        }
        (Op::Cumulative { op, dim, .. }, [x]) => {
            axis_in_range(*dim, x.shape.rank())?;
            if matches!(op, CumulativeOp::Sum | CumulativeOp::Prod) {
                in_domain(Domain::Numeric, x)?;
                accumulator(op.name(), x.dtype)?;
            }
            Ok((*x).clone())
        }
        (Op::Sort { dim, .. }, [x]) => {
            axis_in_range(*dim, x.shape.rank())?;
            Ok(TensorType::new(x.shape.clone(), DType::I64))
        }
        (Op::Reduce { op, dims, acc }, [x]) => reduce(*op, dims, *acc, x),
        (Op::Dot { dims, acc }, [a, b]) => dot(dims, *acc, a, b),
        _ => Err(Error::internal(format!("{} takes {} operands, not {}", op.name(), op.arity(), operands.len()))),
    }
}

fn axis_in_range(axis: usize, rank: usize) -> Result<()> {
    if axis < rank {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Dim, format!("dim {axis} is out of range for {rank} dims")))
}

fn alike(a: &TensorType, b: &TensorType) -> Result<()> {
    if !a.shape.same(&b.shape) {
        return shape_error(format!("operand shapes {} and {} differ", a.shape, b.shape));
    }
    if a.dtype != b.dtype {
        return dtype_error(format!("operand dtypes {} and {} differ", a.dtype, b.dtype));
    }
    Ok(())
}

fn in_domain(domain: Domain, x: &TensorType) -> Result<()> {
    if domain.contains(x.dtype) {
        return Ok(());
    }
    dtype_error(format!("needs {}, not {}", domain.words(), x.dtype))
}

fn permute(perm: &[usize], x: &TensorType) -> Result<TensorType> {
    let rank = x.shape.rank();
    let mut seen: DimVec<bool> = (0..rank).map(|_| false).collect();
    for &p in perm {
        axis_in_range(p, rank)?;
        if std::mem::replace(&mut seen[p], true) {
            return Err(Error::new(ErrorKind::Dim, format!("dim {p} stands twice in the permutation")));
        }
    }
    if perm.len() != rank {
        return Err(Error::new(ErrorKind::Dim, format!("a permutation of {} dims for a tensor of {rank}", perm.len())));
    }
    Ok(TensorType::new(Shape::from_dims(perm.iter().map(|&p| x.shape.dim(p))), x.dtype))
}

fn broadcast(shape: &Shape, dims: &[usize], x: &TensorType) -> Result<TensorType> {
    if dims.len() != x.shape.rank() || !dims.is_sorted_by(|a, b| a < b) {
        return Err(Error::new(
            ErrorKind::Dim,
            format!("dims {dims:?} must be increasing, one for each of {} dims", x.shape.rank()),
        ));
    }
    for (i, &d) in dims.iter().enumerate() {
        axis_in_range(d, shape.rank())?;
        let (from, to) = (x.shape.dim(i), shape.dim(d));
        if !from.same(to) && !from.is_one() {
            return shape_error(format!(
                "dim {i} of {} has extent {from}, which cannot be stretched to {to} of {shape}",
                x.shape
            ));
        }
    }
    Ok(TensorType::new(shape.clone(), x.dtype))
}

fn slice(dims: &[SliceDim], x: &TensorType) -> Result<TensorType> {
    if dims.len() != x.shape.rank() {
        return Err(Error::new(ErrorKind::Dim, format!("{} ranges for {} dims", dims.len(), x.shape.rank())));
    }
    for (i, (s, d)) in dims.iter().zip(x.shape.dims()).enumerate() {
        let fits = d.known().is_some_and(|n| s.stop <= n);
        if s.step == 0 || s.start > s.stop || !fits {
            return Err(Error::new(
                ErrorKind::Index,
                format!("range {}..{} step {} does not fit dim {i} of extent {d}", s.start, s.stop, s.step),
            ));
        }
    }
    Ok(TensorType::new(Shape::new(dims.iter().map(|s| s.extent())), x.dtype))
}

fn pad(dims: &[PadDim], x: &TensorType, value: &TensorType) -> Result<TensorType> {
    if dims.len() != x.shape.rank() {
        return Err(Error::new(ErrorKind::Dim, format!("{} paddings for {} dims", dims.len(), x.shape.rank())));
    }
    if value.shape.rank() != 0 || value.dtype != x.dtype {
        return dtype_error(format!("the padding is a scalar {}, not {value}", x.dtype));
    }
    let mut extents: DimVec<usize> = DimVec::new();
    for (p, d) in dims.iter().zip(x.shape.dims()) {
        match d.known().and_then(|n| p.extent(n)) {
            Some(n) => extents.push(n),
            None => {
                return shape_error(format!("padding {}, {} of a dim of extent {d} overflows", p.low, p.high));
            }
        }
    }
    Ok(TensorType::new(Shape::new(extents), x.dtype))
}

/// Sums and products are not kept in a half.
fn accumulator(name: &str, dtype: DType) -> Result<()> {
    if dtype.is_half() {
        return dtype_error(format!("{name} accumulates in f32 or wider, so the operand must be cast, not be {dtype}"));
    }
    Ok(())
}

fn increasing(dims: &[usize], rank: usize) -> Result<()> {
    if !dims.is_sorted_by(|a, b| a < b) {
        return Err(Error::new(ErrorKind::Dim, format!("dims {dims:?} must be increasing")));
    }
    dims.iter().try_for_each(|&d| axis_in_range(d, rank))
}

fn concat(dim: usize, operands: &[&TensorType]) -> Result<TensorType> {
    let first = operands[0];
    axis_in_range(dim, first.shape.rank())?;
    let mut extents = first.shape.extents();
    let mut total = 0usize;
    for x in operands {
        let others = |d: usize| d == dim || x.shape.dim(d).same(first.shape.dim(d));
        if x.dtype != first.dtype || x.shape.rank() != first.shape.rank() || !(0..x.shape.rank()).all(others) {
            return shape_error(format!("{x} cannot follow {first} along dim {dim}"));
        }
        match total.checked_add(x.shape.extents()[dim]) {
            Some(sum) => total = sum,
            None => return shape_error(format!("the extents along dim {dim} overflow")),
        }
    }
    extents[dim] = total;
    Ok(TensorType::new(Shape::new(extents), first.dtype))
}

fn window(dims: &[WindowDim], x: &TensorType) -> Result<TensorType> {
    increasing(&dims.iter().map(|w| w.dim).collect::<DimVec<usize>>(), x.shape.rank())?;
    if dims.is_empty() {
        return Err(Error::new(ErrorKind::Dim, "windows slide along at least one dim"));
    }
    let mut extents = x.shape.extents();
    for w in dims {
        if w.size == 0 || w.stride == 0 || w.dilation == 0 {
            return shape_error(format!("window {w:?} needs size, stride and dilation of at least 1"));
        }
        extents[w.dim] = w.count(extents[w.dim]);
    }
    extents.extend(dims.iter().map(|w| w.size));
    Ok(TensorType::new(Shape::new(extents), x.dtype))
}

/// A range of these sizes that starts at run-time indices of `x`.
fn dynamic(x: &TensorType, sizes: &Shape, starts: &[&TensorType]) -> Result<()> {
    let rank = x.shape.rank();
    if sizes.rank() != rank || starts.len() != rank {
        return Err(Error::new(
            ErrorKind::Dim,
            format!("{} sizes and {} starts for {rank} dims", sizes.rank(), starts.len()),
        ));
    }
    for s in starts {
        if **s != TensorType::new(Shape::scalar(), DType::I64) {
            return dtype_error(format!("a start is i64[], not {s}"));
        }
    }
    for (d, (size, extent)) in sizes.extents().into_iter().zip(x.shape.extents()).enumerate() {
        if size > extent {
            return shape_error(format!("{size} elements of dim {d}, which has {extent}"));
        }
    }
    Ok(())
}

fn index_dtype(index: &TensorType) -> Result<()> {
    if index.dtype == DType::I64 {
        return Ok(());
    }
    dtype_error(format!("an index is i64, not {}", index.dtype))
}

fn indexed(dim: usize, x: &TensorType, index: &TensorType) -> Result<()> {
    index_dtype(index)?;
    axis_in_range(dim, x.shape.rank())?;
    let rank = x.shape.rank();
    let fits = index.shape.rank() == rank
        && (0..rank).all(|d| d == dim || index.shape.dim(d).same(x.shape.dim(d)))
        && (!x.shape.dim(dim).is_zero() || index.shape.is_empty());
    if fits {
        return Ok(());
    }
    shape_error(format!("an index {} into dim {dim} of {}: all other dims are the same", index.shape, x.shape))
}

fn reduce(op: ReduceOp, dims: &[usize], acc: DType, x: &TensorType) -> Result<TensorType> {
    increasing(dims, x.shape.rank())?;
    let dtype = match op {
        ReduceOp::Sum | ReduceOp::Prod => {
            in_domain(Domain::Numeric, x)?;
            accumulator(op.name(), acc)?;
            acc
        }
        ReduceOp::Max | ReduceOp::Min | ReduceOp::Amax | ReduceOp::Amin | ReduceOp::ArgMax | ReduceOp::ArgMin => {
            let kept_is_empty = (0..x.shape.rank()).any(|d| !dims.contains(&d) && x.shape.dim(d).is_zero());
            if !kept_is_empty && dims.iter().any(|&d| x.shape.dim(d).is_zero()) {
                return shape_error(format!(
                    "{} of an empty dim has no value: {} over dims {dims:?}",
                    op.name(),
                    x.shape
                ));
            }
            if op.is_position() { DType::I64 } else { acc }
        }
    };
    if acc != x.dtype {
        return dtype_error(format!("accumulates in {acc}, so the operand must be cast to it, not be {}", x.dtype));
    }
    let kept = (0..x.shape.rank()).filter(|d| !dims.contains(d)).map(|d| x.shape.dim(d));
    Ok(TensorType::new(Shape::from_dims(kept), dtype))
}

fn dot(dims: &DotDims, acc: DType, a: &TensorType, b: &TensorType) -> Result<TensorType> {
    let narrow = (a.dtype, b.dtype, acc) == (DType::BF16, DType::BF16, DType::F32);
    if !narrow && (a.dtype != b.dtype || a.dtype != acc) {
        return dtype_error(format!(
            "operands and accumulator must have one dtype, or be bf16 with sums in f32, not {}, {} and {acc}",
            a.dtype, b.dtype
        ));
    }
    in_domain(Domain::Numeric, a)?;
    accumulator("dot", acc)?;
    let (mut left, mut right): (DimVec<bool>, DimVec<bool>) =
        ((0..a.shape.rank()).map(|_| false).collect(), (0..b.shape.rank()).map(|_| false).collect());
    for &(l, r) in dims.batch.iter().chain(&dims.contract) {
        axis_in_range(l, a.shape.rank())?;
        axis_in_range(r, b.shape.rank())?;
        if std::mem::replace(&mut left[l], true) || std::mem::replace(&mut right[r], true) {
            return Err(Error::new(
                ErrorKind::Dim,
                format!("dims {l} and {r} meet, but one of them meets another already"),
            ));
        }
        let (m, n) = (a.shape.dim(l), b.shape.dim(r));
        if !m.same(n) {
            return shape_error(format!(
                "dim {l} of {} and dim {r} of {} meet, but have extents {m} and {n}",
                a.shape, b.shape
            ));
        }
    }
    let batch = dims.batch.iter().map(|&(l, _)| a.shape.dim(l));
    let rows = dims.free(false, a.shape.rank()).into_iter().map(|d| a.shape.dim(d));
    let columns = dims.free(true, b.shape.rank()).into_iter().map(|d| b.shape.dim(d));
    Ok(TensorType::new(Shape::from_dims(batch.chain(rows).chain(columns)), acc))
}
