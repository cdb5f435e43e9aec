//! Element types, and single values of them.

use half::{bf16, f16};
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
    /// Unsigned 8-bit integers; arithmetic wraps.
    U8,
    /// 32-bit integers; arithmetic wraps.
    I32,
    /// 64-bit integers; arithmetic wraps.
    I64,
    /// IEEE 754 half precision: 11 bits of significand.
    F16,
    /// The upper half of an `f32`: 8 bits of significand, the range of `f32`.
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl DType {
    /// Every dtype: `bool`, integers, floats, each from narrow to wide.
    pub const ALL: [DType; 8] =
        [DType::Bool, DType::U8, DType::I32, DType::I64, DType::F16, DType::BF16, DType::F32, DType::F64];

    /// The name used in text and by PyTorch's short forms: `bool`, `i64`, `f32`, ...
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// The dtype with this [`name`](Self::name).
    pub fn parse(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes an element takes in memory.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// Whether values are floating point numbers (and so can carry gradients).
    pub fn is_float(self) -> bool {
        match self {
            DType::Bool | DType::U8 | DType::I32 | DType::I64 => false,
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => true,
        }
    }

    /// Whether values are integers; truth values are not.
    pub fn is_int(self) -> bool {
        match self {
            DType::U8 | DType::I32 | DType::I64 => true,
            DType::Bool | DType::F16 | DType::BF16 | DType::F32 | DType::F64 => false,
        }
    }

    /// Whether values are floats of 16 bits, which kernels compute with in `f32`.
    pub fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::BF16)
    }

    /// The distance from 1 to the next number; 1 for integers and truth values.
    pub fn epsilon(self) -> f64 {
        match self {
            DType::Bool | DType::U8 | DType::I32 | DType::I64 => 1.0,
            DType::F16 => f64::from(f16::EPSILON),
            DType::BF16 => f64::from(bf16::EPSILON),
            DType::F32 => f64::from(f32::EPSILON),
            DType::F64 => f64::EPSILON,
        }
    }

    /// The largest finite value, as `f64` (that of `i64` rounds).
    pub fn largest(self) -> f64 {
        match self {
            DType::F16 => f64::from(f16::MAX),
            DType::BF16 => f64::from(bf16::MAX),
            DType::F32 => f64::from(f32::MAX),
            DType::F64 => f64::MAX,
            DType::Bool | DType::U8 | DType::I32 | DType::I64 => Literal::highest(self).as_f64(),
        }
    }

    /// An integer in the range of this dtype: wrapped for integers, `!= 0` for truth values; floats keep it.
    pub fn wrap(self, v: i64) -> i64 {
        match self {
            DType::Bool => i64::from(v != 0),
            DType::U8 => i64::from(v as u8),
            DType::I32 => i64::from(v as i32),
            DType::I64 | DType::F16 | DType::BF16 | DType::F32 | DType::F64 => v,
        }
    }

    /// A number rounded to nearest, to what this dtype holds (to a half through `f32`, as kernels compute); integers and truth
    /// values keep it.
    pub fn round(self, v: f64) -> f64 {
        match self {
            DType::F16 => f64::from(f16::from_f32(v as f32)),
            DType::BF16 => f64::from(bf16::from_f32(v as f32)),
            DType::F32 => f64::from(v as f32),
            DType::Bool | DType::U8 | DType::I32 | DType::I64 | DType::F64 => v,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A float as an integer, as x86 converts it (and PyTorch on it): truncated; what does not fit, and NaN, is the smallest
/// integer. Narrower integers than `i32` are the low bits of the `i32`.
pub fn float_to_int(to: DType, v: f64) -> i64 {
    let inside = |low: f64, high: f64| v > low && v < high;
    match to {
        DType::Bool => i64::from(v != 0.0),
        // The nearest number below -2^63 is far enough away to be excluded by its own comparison.
        DType::I64 => {
            let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&v);
            if fits { v as i64 } else { i64::MIN }
        }
        DType::I32 | DType::U8 | DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
            let wide = if inside(-2_147_483_649.0, 2_147_483_648.0) { v as i32 } else { i32::MIN };
            to.wrap(i64::from(wide))
        }
    }
}

/// One value of a [`DType`]. Equality and hashing are by bits, so a NaN equals itself and `-0.0` differs from `0.0`.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    /// A truth value.
    Bool(bool),
    /// An unsigned 8-bit integer.
    U8(u8),
    /// A 32-bit integer.
    I32(i32),
    /// A 64-bit integer.
    I64(i64),
    /// A half precision number.
    F16(f16),
    /// A `bfloat16` number.
    BF16(bf16),
    /// A single precision number.
    F32(f32),
    /// A double precision number.
    F64(f64),
}

impl Literal {
    /// The dtype of the value.
    pub fn dtype(self) -> DType {
        match self {
            Literal::Bool(_) => DType::Bool,
            Literal::U8(_) => DType::U8,
            Literal::I32(_) => DType::I32,
            Literal::I64(_) => DType::I64,
            Literal::F16(_) => DType::F16,
            Literal::BF16(_) => DType::BF16,
            Literal::F32(_) => DType::F32,
            Literal::F64(_) => DType::F64,
        }
    }

    /// The value's bits, widened (integers by their sign): what equality and hashing look at.
    pub fn bits(self) -> u64 {
        match self {
            Literal::Bool(v) => u64::from(v),
            Literal::U8(v) => u64::from(v),
            Literal::I32(v) => i64::from(v) as u64,
            Literal::I64(v) => v as u64,
            Literal::F16(v) => u64::from(v.to_bits()),
            Literal::BF16(v) => u64::from(v.to_bits()),
            Literal::F32(v) => u64::from(v.to_bits()),
            Literal::F64(v) => v.to_bits(),
        }
    }

    /// The value of a dtype with these [`bits`](Self::bits); those beyond its width do not count.
    pub fn from_bits(dtype: DType, bits: u64) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(bits & 1 != 0),
            DType::U8 => Literal::U8(bits as u8),
            DType::I32 => Literal::I32(bits as i32),
            DType::I64 => Literal::I64(bits as i64),
            DType::F16 => Literal::F16(f16::from_bits(bits as u16)),
            DType::BF16 => Literal::BF16(bf16::from_bits(bits as u16)),
            DType::F32 => Literal::F32(f32::from_bits(bits as u32)),
            DType::F64 => Literal::F64(f64::from_bits(bits)),
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

    /// The smallest value of a dtype: minus infinity for floats.
    pub fn lowest(dtype: DType) -> Literal {
        match dtype {
            DType::Bool | DType::U8 => Literal::zero(dtype),
            DType::I32 => Literal::I32(i32::MIN),
            DType::I64 => Literal::I64(i64::MIN),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Literal::from_f64(dtype, f64::NEG_INFINITY),
        }
    }

    /// The largest value of a dtype: infinity for floats.
    pub fn highest(dtype: DType) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(true),
            DType::U8 => Literal::U8(u8::MAX),
            DType::I32 => Literal::I32(i32::MAX),
            DType::I64 => Literal::I64(i64::MAX),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Literal::from_f64(dtype, f64::INFINITY),
        }
    }

    /// An integer in a dtype: rounded for floats, wrapped for integers, `!= 0` for booleans.
    pub fn from_i64(dtype: DType, v: i64) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(v != 0),
            DType::U8 => Literal::U8(v as u8),
            DType::I32 => Literal::I32(v as i32),
            DType::I64 => Literal::I64(v),
            // Through `f32`, as PyTorch does and kernels do.
            DType::F16 => Literal::F16(f16::from_f32(v as f32)),
            DType::BF16 => Literal::BF16(bf16::from_f32(v as f32)),
            DType::F32 => Literal::F32(v as f32),
            DType::F64 => Literal::F64(v as f64),
        }
    }

    /// A float in a dtype: rounded for floats (to a half through `f32`), as [`float_to_int`] for integers, `!= 0` for booleans.
    pub fn from_f64(dtype: DType, v: f64) -> Literal {
        match dtype {
            DType::Bool => Literal::Bool(v != 0.0),
            DType::U8 => Literal::U8(float_to_int(dtype, v) as u8),
            DType::I32 => Literal::I32(float_to_int(dtype, v) as i32),
            DType::I64 => Literal::I64(float_to_int(dtype, v)),
            DType::F16 => Literal::F16(f16::from_f32(v as f32)),
            DType::BF16 => Literal::BF16(bf16::from_f32(v as f32)),
            DType::F32 => Literal::F32(v as f32),
            DType::F64 => Literal::F64(v),
        }
    }

    /// The value as `f64` (an integer beyond 2^53 rounds).
    pub fn as_f64(self) -> f64 {
        match self {
            Literal::Bool(v) => f64::from(u8::from(v)),
            Literal::U8(v) => f64::from(v),
            Literal::I32(v) => f64::from(v),
            Literal::I64(v) => v as f64,
            Literal::F16(v) => f64::from(v),
            Literal::BF16(v) => f64::from(v),
            Literal::F32(v) => f64::from(v),
            Literal::F64(v) => v,
        }
    }

    /// The value as an integer, where its dtype has integers or truth values.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Literal::Bool(v) => Some(i64::from(v)),
            Literal::U8(v) => Some(i64::from(v)),
            Literal::I32(v) => Some(i64::from(v)),
            Literal::I64(v) => Some(v),
            Literal::F16(_) | Literal::BF16(_) | Literal::F32(_) | Literal::F64(_) => None,
        }
    }

    /// The value in another dtype, by the meaning of the `cast` operation.
    pub fn cast(self, to: DType) -> Literal {
        match self.as_i64() {
            Some(v) => Literal::from_i64(to, v),
            None => Literal::from_f64(to, self.as_f64()),
        }
    }

    /// Whether the value is a NaN.
    pub fn is_nan(self) -> bool {
        self.dtype().is_float() && self.as_f64().is_nan()
    }

    /// Parses what `Display` prints, for a known dtype.
    pub fn parse(dtype: DType, text: &str) -> Option<Literal> {
        if let Some(hex) = text.strip_prefix("bits:0x") {
            let bits = u64::from_str_radix(hex, 16).ok()?;
            return dtype.is_float().then(|| Literal::from_bits(dtype, bits));
        }
        match dtype {
            DType::Bool => text.parse().ok().map(Literal::Bool),
            DType::U8 => text.parse().ok().map(Literal::U8),
            DType::I32 => text.parse().ok().map(Literal::I32),
            DType::I64 => text.parse().ok().map(Literal::I64),
            DType::F16 => text.parse().ok().map(|v| Literal::F16(f16::from_f32(v))),
            DType::BF16 => text.parse().ok().map(|v| Literal::BF16(bf16::from_f32(v))),
            DType::F32 => text.parse().ok().map(Literal::F32),
            DType::F64 => text.parse().ok().map(Literal::F64),
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
    /// A text that parses back to the same bits: floats always show a point, an exponent or a word, and a NaN other than the
    /// canonical one its bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let canonical = Literal::from_f64(self.dtype(), f64::NAN);
        if self.is_nan() && *self != canonical {
            return write!(f, "bits:{:#0width$x}", self.bits(), width = 2 + 2 * self.dtype().size());
        }
        match self {
            Literal::Bool(v) => write!(f, "{v}"),
            Literal::U8(v) => write!(f, "{v}"),
            Literal::I32(v) => write!(f, "{v}"),
            Literal::I64(v) => write!(f, "{v}"),
            Literal::F16(v) => write!(f, "{:?}", v.to_f32()),
            Literal::BF16(v) => write!(f, "{:?}", v.to_f32()),
            Literal::F32(v) => write!(f, "{v:?}"),
            Literal::F64(v) => write!(f, "{v:?}"),
        }
    }
}

mod sealed {
    pub trait Sealed {}
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

macro_rules! elements {
    ($($t:ty, $variant:ident, $zero:expr;)*) => {$(
        impl sealed::Sealed for $t {}

        impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn literal(self) -> Literal {
                Literal::$variant(self)
            }
            fn from_literal(literal: Literal) -> $t {
                match literal.cast(DType::$variant) {
                    Literal::$variant(v) => v,
                    // A cast gives the dtype asked for.
                    _ => $zero,
                }
            }
        }
    )*};
}

elements! {
    bool, Bool, false;
    u8, U8, 0;
    i32, I32, 0;
    i64, I64, 0;
    f16, F16, f16::ZERO;
    bf16, BF16, bf16::ZERO;
    f32, F32, 0.0;
    f64, F64, 0.0;
}

/// Runs an expression with `T` as the element type of a dtype: `with_element!(dtype, T => array.to_vec::<T>())`.
#[macro_export]
macro_rules! with_element {
    ($dtype:expr, $t:ident => $body:expr) => {{
        macro_rules! with {
            ($e:ty) => {{
                type $t = $e;
                $body
            }};
        }
        match $dtype {
            $crate::DType::Bool => with!(bool),
            $crate::DType::U8 => with!(u8),
            $crate::DType::I32 => with!(i32),
            $crate::DType::I64 => with!(i64),
            $crate::DType::F16 => with!($crate::f16),
            $crate::DType::BF16 => with!($crate::bf16),
            $crate::DType::F32 => with!(f32),
            $crate::DType::F64 => with!(f64),
        }
    }};
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
        for dtype in DType::ALL {
            for v in [0.0, 1.0, -0.1, 3e38, f64::NAN, -f64::NAN, f64::INFINITY, 1e-7] {
                let l = Literal::from_f64(dtype, v);
                assert_eq!(Literal::parse(dtype, &l.to_string()), Some(l), "{dtype} {l}");
                assert_eq!(Literal::from_bits(dtype, l.bits()), l, "{dtype} {l}");
            }
        }
        assert_eq!(Literal::parse(DType::I64, "-3"), Some(Literal::I64(-3)));
        assert_eq!(Literal::parse(DType::Bool, "true"), Some(Literal::Bool(true)));
    }

    #[test]
    fn floats_become_integers_as_x86_converts_them() {
        let cast = |to, v: f64| Literal::F64(v).cast(to).as_i64();
        for v in [f64::NAN, f64::INFINITY, -1e20, 3e9] {
            assert_eq!(cast(DType::I32, v), Some(i64::from(i32::MIN)), "{v}");
            assert_eq!(cast(DType::U8, v), Some(0), "{v}");
        }
        assert_eq!(cast(DType::I64, 9.3e18), Some(i64::MIN));
        assert_eq!(cast(DType::I64, -3e9), Some(-3_000_000_000));
        assert_eq!(cast(DType::I32, -2_147_483_648.9), Some(i64::from(i32::MIN)));
        assert_eq!((cast(DType::U8, 300.7), cast(DType::U8, -1.5)), (Some(44), Some(255)));
    }
}
