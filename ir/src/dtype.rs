//! Element types, and single values of them.

use std::fmt;
use std::hash::{Hash, Hasher};

/// The element type of a tensor.
///
/// ```
/// use lazuli_ir::DType;
/// assert_eq!(DType::F32.size(), 4);
/// assert_eq!(DType::parse("i64"), Some(DType::I64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// Truth values, stored as one byte that is 0 or 1.
    Bool,
    /// 64-bit signed integers; arithmetic wraps.
    I64,
    /// IEEE 754 single precision.
    F32,
}

impl DType {
    /// Every dtype, in promotion order.
    pub const ALL: [DType; 3] = [DType::Bool, DType::I64, DType::F32];

    /// The name used in text and by PyTorch's short forms: `bool`, `i64`, `f32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I64 => "i64",
            DType::F32 => "f32",
        }
    }

    /// The dtype with this [`name`](Self::name).
    pub fn parse(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes an element takes in memory.
    pub fn size(self) -> usize {
        match self {
            DType::Bool => 1,
            DType::I64 => 8,
            DType::F32 => 4,
        }
    }

    /// Whether values are floating point numbers (and so can carry gradients).
    pub fn is_float(self) -> bool {
        match self {
            DType::Bool | DType::I64 => false,
            DType::F32 => true,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value of a [`DType`]. Equality and hashing are by bits, so a NaN equals itself and `-0.0` differs from `0.0`.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    /// A truth value.
    Bool(bool),
    /// A 64-bit integer.
    I64(i64),
    /// A single precision number.
    F32(f32),
}

impl Literal {
    /// The dtype of the value.
    pub fn dtype(self) -> DType {
        match self {
            Literal::Bool(_) => DType::Bool,
            Literal::I64(_) => DType::I64,
            Literal::F32(_) => DType::F32,
        }
    }

    /// The value's bits, widened: what equality and hashing look at.
    pub fn bits(self) -> u64 {
        match self {
            Literal::Bool(v) => u64::from(v),
            Literal::I64(v) => v as u64,
            Literal::F32(v) => u64::from(v.to_bits()),
        }
    }

    /// Zero (or `false`) of a dtype.
    pub fn zero(dtype: DType) -> Literal {
        Literal::from_i64(dtype, 0)
    }

    /// One (or `true`) of a dtype.
    pub fn one(dtype: DType) -> Literal {
        Literal::from_i64(dtype, 1)
    }

    /// An integer in a dtype: rounded for floats, `!= 0` for booleans.
    pub fn from_i64(dtype: DType, v: i64) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(v != 0),
            DType::I64 => Literal::I64(v),
            DType::F32 => Literal::F32(v as f32),
        }
    }

    /// A float in a dtype: rounded for floats, saturated and truncated for integers (NaN gives 0), `!= 0` for booleans.
    pub fn from_f64(dtype: DType, v: f64) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(v != 0.0),
            DType::I64 => Literal::I64(v as i64),
            DType::F32 => Literal::F32(v as f32),
        }
    }

    /// The value as `f64` (an integer beyond 2^53 rounds).
    pub fn as_f64(self) -> f64 {
        match self {
            Literal::Bool(v) => f64::from(u8::from(v)),
            Literal::I64(v) => v as f64,
            Literal::F32(v) => f64::from(v),
        }
    }

    /// The value in another dtype, by the meaning of the `cast` operation.
    pub fn cast(self, to: DType) -> Literal {
        match self {
            Literal::Bool(v) => Literal::from_i64(to, i64::from(v)),
            Literal::I64(v) => Literal::from_i64(to, v),
            Literal::F32(v) => Literal::from_f64(to, f64::from(v)),
        }
    }

    /// Parses what `Display` prints, for a known dtype.
    pub fn parse(dtype: DType, text: &str) -> Option<Literal> {
        match dtype {
            DType::Bool => text.parse().ok().map(Literal::Bool),
            DType::I64 => text.parse().ok().map(Literal::I64),
            DType::F32 => match text.strip_prefix("bits:0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok().map(|b| Literal::F32(f32::from_bits(b))),
                None => text.parse().ok().map(Literal::F32),
            },
        }
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        self.dtype() == other.dtype() && self.bits() == other.bits()
    }
}

impl Eq for Literal {}

impl Hash for Literal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.dtype().hash(state);
        self.bits().hash(state);
    }
}

impl fmt::Display for Literal {
    /// The shortest text that parses back to the same bits: floats always show a point, an exponent or a word, and a NaN
    /// other than the canonical one its bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Bool(v) => write!(f, "{v}"),
            Literal::I64(v) => write!(f, "{v}"),
            Literal::F32(v) if v.is_nan() && v.to_bits() != f32::NAN.to_bits() => {
                write!(f, "bits:{:#010x}", v.to_bits())
            }
            Literal::F32(v) => write!(f, "{v:?}"),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for i64 {}
    impl Sealed for bool {}
}

/// A Rust type that is the storage of a [`DType`].
pub trait Element: Copy + Send + Sync + fmt::Debug + PartialEq + sealed::Sealed + 'static {
    /// Its dtype.
    const DTYPE: DType;

    /// The value as a [`Literal`].
    fn literal(self) -> Literal;

    /// A literal in this type, by the meaning of the `cast` operation.
    fn from_literal(literal: Literal) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn literal(self) -> Literal {
        Literal::F32(self)
    }
    fn from_literal(literal: Literal) -> f32 {
        match literal {
            Literal::Bool(v) => f32::from(u8::from(v)),
            Literal::I64(v) => v as f32,
            Literal::F32(v) => v,
        }
    }
}

impl Element for i64 {
    const DTYPE: DType = DType::I64;
    fn literal(self) -> Literal {
        Literal::I64(self)
    }
    fn from_literal(literal: Literal) -> i64 {
        match literal {
            Literal::Bool(v) => i64::from(v),
            Literal::I64(v) => v,
            Literal::F32(v) => v as i64,
        }
    }
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn literal(self) -> Literal {
        Literal::Bool(self)
    }
    fn from_literal(literal: Literal) -> bool {
        match literal {
            Literal::Bool(v) => v,
            Literal::I64(v) => v != 0,
            Literal::F32(v) => v != 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_print_and_parse_back() {
        let nan = f32::from_bits(0xffc0_0001);
        for v in [0.0, -0.0, 1.0, 1e-45, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, nan, 0.1] {
            let l = Literal::F32(v);
            assert_eq!(Literal::parse(DType::F32, &l.to_string()), Some(l), "{l}");
        }
        assert_eq!(Literal::parse(DType::I64, "-3"), Some(Literal::I64(-3)));
        assert_eq!(Literal::parse(DType::Bool, "true"), Some(Literal::Bool(true)));
    }
}
