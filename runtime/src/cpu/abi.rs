//! The calling convention between generated code and the runtime.
//!
//! An entry is `extern "C" fn(args, scratch, begin, end)`: it runs iterations `begin..end` of the kernel's parallel space.
//! `args` is a table of words: four fixed ones, then a pointer a parameter, the run-time strides of all parameters, the
//! extents, the scalars. Generated code holds no address: what it calls and its constants it finds through the table.

use super::code::Vectors;

/// Generated code.
pub(crate) type Entry = unsafe extern "C" fn(args: *const u64, scratch: *mut u8, begin: i64, end: i64);

/// Word of the pointer to the [`Functions`] generated code may call.
pub(crate) const FUNCTIONS: usize = 0;
/// Word of the pointer to the kernel's constants.
pub(crate) const CONSTANTS: usize = 1;
/// Word of the pointer to the partial results of a parallel reduce.
pub(crate) const PARTIALS: usize = 2;
/// Word of the pointer to the call's status.
pub(crate) const STATUS: usize = 3;
/// The first word of the parameters.
pub(crate) const PARAMS: usize = 4;

/// What generated code calls, in the order of the words of the table it reads.
#[repr(C)]
pub(crate) struct Functions {
    /// Contractions of matrices of a type.
    pub dot_f32: unsafe extern "C" fn(*const DotCall),
    pub dot_bf16: unsafe extern "C" fn(*const DotCall),
    pub dot_f64: unsafe extern "C" fn(*const DotCall),
    pub dot_u8: unsafe extern "C" fn(*const DotCall),
    pub dot_i32: unsafe extern "C" fn(*const DotCall),
    pub dot_i64: unsafe extern "C" fn(*const DotCall),
    /// A check failed: status, site, value, linear index.
    pub check_failed: unsafe extern "C" fn(*const super::Status, i64, i64, i64),
    /// An elementwise operation, by number.
    pub unary: extern "C" fn(i64, f64) -> f64,
    pub binary: extern "C" fn(i64, f64, f64) -> f64,
    pub integer_binary: extern "C" fn(i64, i64, i64) -> i64,
    /// Fused multiply-add.
    pub fma_f32: extern "C" fn(f32, f32, f32) -> f32,
    pub fma_f64: extern "C" fn(f64, f64, f64) -> f64,
    /// Functions of lanes, for strips; by a convention of its own.
    #[cfg(target_arch = "x86_64")]
    pub lanes: unsafe extern "C" fn(),
}

/// Where a function stands in [`Functions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    DotF32,
    DotBf16,
    DotF64,
    DotU8,
    DotI32,
    DotI64,
    CheckFailed,
    Unary,
    Binary,
    IntegerBinary,
    FmaF32,
    FmaF64,
    #[cfg(target_arch = "x86_64")]
    Lanes,
}

impl Callee {
    pub(crate) fn offset(self) -> i32 {
        let offset = match self {
            Callee::DotF32 => std::mem::offset_of!(Functions, dot_f32),
            Callee::DotBf16 => std::mem::offset_of!(Functions, dot_bf16),
            Callee::DotF64 => std::mem::offset_of!(Functions, dot_f64),
            Callee::DotU8 => std::mem::offset_of!(Functions, dot_u8),
            Callee::DotI32 => std::mem::offset_of!(Functions, dot_i32),
            Callee::DotI64 => std::mem::offset_of!(Functions, dot_i64),
            Callee::CheckFailed => std::mem::offset_of!(Functions, check_failed),
            Callee::Unary => std::mem::offset_of!(Functions, unary),
            Callee::Binary => std::mem::offset_of!(Functions, binary),
            Callee::IntegerBinary => std::mem::offset_of!(Functions, integer_binary),
            Callee::FmaF32 => std::mem::offset_of!(Functions, fma_f32),
            Callee::FmaF64 => std::mem::offset_of!(Functions, fma_f64),
            #[cfg(target_arch = "x86_64")]
            Callee::Lanes => std::mem::offset_of!(Functions, lanes),
        };
        offset as i32
    }
}

/// `acc[m,n] += a[m,k] b[k,n]`; strides in elements, columns of the accumulator are neighbours. Generated code writes it field by field, each a word.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct DotCall {
    pub m: i64,
    pub n: i64,
    pub k: i64,
    pub acc: *mut u8,
    pub acc_row: i64,
    pub a: *const u8,
    pub a_row: i64,
    pub a_inner: i64,
    pub b: *const u8,
    pub b_inner: i64,
    pub b_column: i64,
    /// The dims that count rows of `b` outside of those that `b_inner` counts, outermost first, and how many there are. Where there
    /// are some, `b_column` is 1.
    pub b_outer: *const Dim,
    pub b_outers: i64,
    /// The vectors that the code was made for (see [`Vectors::word`]).
    pub vectors: i64,
    /// Not 0 where the accumulator's elements are not there yet, and stand for zeros.
    pub fresh: i64,
}

/// A dim that counts rows of a matrix.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dim {
    pub extent: i64,
    /// The distance in elements between neighbours.
    pub stride: i64,
}

impl DotCall {
    /// The dims that count rows of `b` outside of those that `b_inner` counts.
    ///
    /// # Safety
    /// They must be where the call says.
    pub(crate) unsafe fn outer(&self) -> &[Dim] {
        match usize::try_from(self.b_outers) {
            // SAFETY: by the contract.
            Ok(n) if n > 0 => unsafe { std::slice::from_raw_parts(self.b_outer, n) },
            _ => &[],
        }
    }

    /// The vectors that the code was made for.
    pub(crate) fn vectors(&self) -> Vectors {
        Vectors::ALL.into_iter().find(|v| v.word() == self.vectors).unwrap_or(Vectors::Portable)
    }
}

/// Words of a [`DotCall`].
pub(crate) const DOT_WORDS: usize = size_of::<DotCall>() / 8;
/// Words of a [`Dim`].
pub(crate) const DIM_WORDS: usize = size_of::<Dim>() / 8;
