//! Types, constants and names as C has them.

use lazuli_ir::kernel::ScalarType;
use lazuli_ir::{DType, Literal};
use rustc_hash::FxHashSet;

/// The type of a value in registers.
pub(super) fn c_type(ty: ScalarType) -> &'static str {
    match ty {
        ScalarType::Bool => "bool",
        ScalarType::U8 => "unsigned char",
        ScalarType::I32 => "int",
        ScalarType::I64 => "long long",
        ScalarType::F32 => "float",
        ScalarType::F64 => "double",
    }
}

/// The type of an element in memory.
pub(super) fn memory_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool | DType::U8 => "unsigned char",
        DType::I32 => "int",
        DType::I64 => "long long",
        DType::F16 => "lz_f16",
        DType::BF16 => "lz_bf16",
        DType::F32 => "float",
        DType::F64 => "double",
    }
}

/// The type of an element of a tile.
pub(super) fn tile_type(dtype: DType) -> &'static str {
    if dtype.is_half() { memory_type(dtype) } else { c_type(dtype.into()) }
}

/// An element of memory as a value.
pub(super) fn loaded(dtype: DType, element: &str) -> String {
    match dtype {
        DType::Bool => format!("{element} != 0"),
        DType::F16 | DType::BF16 => format!("lz_widen({element})"),
        DType::U8 | DType::I32 | DType::I64 | DType::F32 | DType::F64 => element.to_owned(),
    }
}

/// A value as an element of memory.
pub(super) fn stored(dtype: DType, value: &str) -> String {
    match dtype {
        DType::F16 => format!("lz_narrow_f16({value})"),
        DType::BF16 => format!("lz_narrow_bf16({value})"),
        DType::Bool | DType::U8 | DType::I32 | DType::I64 | DType::F32 | DType::F64 => value.to_owned(),
    }
}

/// A constant; of floats that C has no text for, their bits.
pub(super) fn literal(l: Literal) -> String {
    match l {
        Literal::Bool(v) => v.to_string(),
        Literal::U8(v) => format!("(unsigned char){v}"),
        Literal::I32(i32::MIN) => "(-2147483647 - 1)".into(),
        Literal::I32(v) => v.to_string(),
        Literal::I64(i64::MIN) => "(-9223372036854775807LL - 1)".into(),
        Literal::I64(v) => format!("{v}LL"),
        Literal::F16(v) => literal(Literal::F32(v.to_f32())),
        Literal::BF16(v) => literal(Literal::F32(v.to_f32())),
        Literal::F32(v) if v.is_finite() => format!("{v:?}f"),
        Literal::F32(v) => format!("__int_as_float({:#010x})", v.to_bits() as i32),
        Literal::F64(v) if v.is_finite() => format!("{v:?}"),
        Literal::F64(v) => format!("__longlong_as_double({:#018x})", v.to_bits() as i64),
    }
}

/// Words that mean something in the text already.
const RESERVED: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "asm",
    "auto",
    "aligned",
    "before",
    "bitand",
    "bitor",
    "block",
    "blockDim",
    "blockIdx",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "compl",
    "const",
    "constexpr",
    "continue",
    "count",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "e",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "found",
    "friend",
    "goto",
    "gridDim",
    "if",
    "inline",
    "int",
    "lane",
    "last",
    "long",
    "m",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "nullptr",
    "operator",
    "or",
    "partials",
    "private",
    "protected",
    "public",
    "register",
    "return",
    "short",
    "signed",
    "sizeof",
    "stage",
    "static",
    "status",
    "struct",
    "switch",
    "template",
    "this",
    "thread",
    "threadIdx",
    "throw",
    "ticket",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "warp",
    "warpSize",
    "while",
    "width",
    "xor",
];

/// The names that are taken in a function.
pub(super) struct Names {
    taken: FxHashSet<String>,
}

impl Names {
    pub(super) fn new() -> Names {
        Names { taken: RESERVED.iter().map(|w| (*w).to_owned()).collect() }
    }

    /// A name that is free, like the one wanted.
    pub(super) fn unique(&mut self, wanted: &str) -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let mut name: String = wanted.chars().map(legal).collect();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("lz_") {
            name.insert(0, '_');
        }
        while !self.taken.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// A name is free again.
    pub(super) fn release(&mut self, name: &str) {
        self.taken.remove(name);
    }
}
