//! Tensor values of the reference evaluator: row-major, floats held in `f64`.

use crate::{DType, Element, Error, ErrorKind, Literal, Result, Shape, TensorType};
use std::fmt;

/// The elements of a [`Dense`], in row-major order.
#[derive(Clone, Debug)]
pub enum Data {
    /// Truth values.
    Bool(Vec<bool>),
    /// Integers of any width.
    Int(Vec<i64>),
    /// Floats of any width. Each is a value that the dtype can hold, but in the runs that measure bounds.
    Float(Vec<f64>),
}

impl Data {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::Bool(v) => v.len(),
            Data::Int(v) => v.len(),
            Data::Float(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn holds(&self, dtype: DType) -> bool {
        match self {
            Data::Bool(_) => dtype == DType::Bool,
            Data::Int(_) => dtype.is_int(),
            Data::Float(_) => dtype.is_float(),
        }
    }
}

/// A tensor value.
///
/// Equality is by type and value, where a NaN equals a NaN and `-0.0` differs from `0.0`.
#[derive(Clone, Debug)]
pub struct Dense {
    ty: TensorType,
    data: Data,
}

impl Dense {
    /// A tensor of this type and these elements.
    ///
    /// # Errors
    /// Where the number of elements is not the shape's, or they are of another kind than the dtype.
    pub fn new(ty: TensorType, data: Data) -> Result<Dense> {
        ty.shape.check(ty.dtype)?;
        if !data.holds(ty.dtype) {
            return Err(Error::new(ErrorKind::DType, format!("these elements are not of dtype {}", ty.dtype)));
        }
        if data.len() != ty.shape.elements() {
            let n = ty.shape.elements();
            return Err(Error::new(ErrorKind::Value, format!("{ty} has {n} elements, not {}", data.len())));
        }
        Ok(Dense { ty, data })
    }

    /// A tensor of these elements in row-major order.
    ///
    /// ```
    /// use lazuli_ir::reference::Dense;
    /// let x = Dense::from_vec(vec![1.0f32, 2.0], [2])?;
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0]);
    /// # Ok::<(), lazuli_ir::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the number of elements is not the shape's.
    pub fn from_vec<T: Element>(elements: Vec<T>, shape: impl Into<Shape>) -> Result<Dense> {
        let data = collect(T::DTYPE, elements.into_iter().map(T::literal));
        Dense::new(TensorType::new(shape, T::DTYPE), data)
    }

    /// A tensor of a type with these elements, each of its dtype, in row-major order.
    ///
    /// # Errors
    /// Where the number of elements is not the shape's.
    pub fn of_literals(ty: &TensorType, elements: impl IntoIterator<Item = Literal>) -> Result<Dense> {
        Dense::new(ty.clone(), collect(ty.dtype, elements.into_iter()))
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// Where the dtype is not that of `T`.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.ty.dtype != T::DTYPE {
            return Err(Error::new(ErrorKind::DType, format!("the elements are {}, not {}", self.ty.dtype, T::DTYPE)));
        }
        Ok(self.literals().map(T::from_literal).collect())
    }

    /// A tensor whose elements are all the same.
    pub fn splat(value: Literal, shape: &Shape) -> Dense {
        let ty = TensorType { shape: shape.clone(), dtype: value.dtype() };
        let data = collect(ty.dtype, std::iter::repeat_n(value, shape.elements()));
        Dense { ty, data }
    }

    /// The type.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements as literals, in row-major order.
    pub fn literals(&self) -> impl ExactSizeIterator<Item = Literal> + '_ {
        (0..self.len()).map(|i| match &self.data {
            Data::Bool(v) => Literal::Bool(v[i]),
            Data::Int(v) => Literal::from_i64(self.ty.dtype, v[i]),
            Data::Float(v) => Literal::from_f64(self.ty.dtype, v[i]),
        })
    }

    /// An element as `f64`, for comparing; an integer beyond 2^53 rounds. Out of range is NaN.
    pub(crate) fn f64_at(&self, i: usize) -> f64 {
        let element = match &self.data {
            Data::Bool(v) => v.get(i).map(|b| f64::from(u8::from(*b))),
            Data::Int(v) => v.get(i).map(|n| *n as f64),
            Data::Float(v) => v.get(i).copied(),
        };
        element.unwrap_or(f64::NAN)
    }

    /// Whether an element is the same in both, a NaN the same as any NaN.
    pub(crate) fn same_at(&self, other: &Dense, i: usize) -> bool {
        match (&self.data, &other.data) {
            (Data::Bool(a), Data::Bool(b)) => a.get(i) == b.get(i),
            (Data::Int(a), Data::Int(b)) => a.get(i) == b.get(i),
            (Data::Float(_), Data::Float(_)) => {
                let (a, b) = (self.f64_at(i), other.f64_at(i));
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Data::Bool(_) | Data::Int(_) | Data::Float(_), _) => false,
        }
    }

    /// A tensor of a type that was inferred and of elements computed for it.
    pub(crate) fn computed(ty: &TensorType, data: Data) -> Dense {
        debug_assert!(data.holds(ty.dtype) && data.len() == ty.shape.elements(), "{ty}: {} elements", data.len());
        Dense { ty: ty.clone(), data }
    }

    pub(crate) fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }
}

/// The data of literals of one dtype.
pub(crate) fn collect(dtype: DType, literals: impl Iterator<Item = Literal>) -> Data {
    if dtype == DType::Bool {
        Data::Bool(literals.map(bool::from_literal).collect())
    } else if dtype.is_int() {
        Data::Int(literals.map(i64::from_literal).collect())
    } else {
        Data::Float(literals.map(Literal::as_f64).collect())
    }
}

impl PartialEq for Dense {
    fn eq(&self, other: &Dense) -> bool {
        self.ty == other.ty && (0..self.len()).all(|i| self.same_at(other, i))
    }
}

impl fmt::Display for Dense {
    /// `f32[2] {1.0, 2.0}`, with at most 16 elements.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {{", self.ty)?;
        for (i, element) in self.literals().take(16).enumerate() {
            write!(f, "{}{element}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str(if self.len() > 16 { ", ...}" } else { "}" })
    }
}
