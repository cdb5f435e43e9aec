//! The one set of shape and dtype rules: recording, parsing, passes and the verifier all ask here.

use crate::{
    DType, DimVec, Domain, DotDims, Error, ErrorKind, Op, PadDim, ReduceOp, Result, Shape, SliceDim, TensorType,
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
        (Op::Alias | Op::Detach, [x]) => Ok((*x).clone()),
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

fn reduce(op: ReduceOp, dims: &[usize], acc: DType, x: &TensorType) -> Result<TensorType> {
    if !dims.is_sorted_by(|a, b| a < b) {
        return Err(Error::new(ErrorKind::Dim, format!("dims {dims:?} must be increasing")));
    }
    for &d in dims {
        axis_in_range(d, x.shape.rank())?;
    }
    let dtype = match op {
        ReduceOp::Sum => {
            in_domain(Domain::Numeric, x)?;
            acc
        }
        ReduceOp::Max | ReduceOp::ArgMax => {
            let kept_is_empty = (0..x.shape.rank()).any(|d| !dims.contains(&d) && x.shape.dim(d).is_zero());
            if !kept_is_empty && dims.iter().any(|&d| x.shape.dim(d).is_zero()) {
                return shape_error(format!(
                    "{} of an empty dim has no value: {} over dims {dims:?}",
                    op.name(),
                    x.shape
                ));
            }
            match op {
                ReduceOp::ArgMax => DType::I64,
                ReduceOp::Sum | ReduceOp::Max => acc,
            }
        }
    };
    if acc != x.dtype {
        return dtype_error(format!("accumulates in {acc}, so the operand must be cast to it, not be {}", x.dtype));
    }
    let kept = (0..x.shape.rank()).filter(|d| !dims.contains(d)).map(|d| x.shape.dim(d));
    Ok(TensorType::new(Shape::from_dims(kept), dtype))
}

fn dot(dims: &DotDims, acc: DType, a: &TensorType, b: &TensorType) -> Result<TensorType> {
    if a.dtype != b.dtype || a.dtype != acc {
        return dtype_error(format!(
            "operands and accumulator must have one dtype, not {}, {} and {acc}",
            a.dtype, b.dtype
        ));
    }
    in_domain(Domain::Numeric, a)?;
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
