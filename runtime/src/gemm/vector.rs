//! The vectors of x86-64 that matrices are multiplied with.

use std::arch::x86_64::*;

/// Some numbers that one instruction handles.
///
/// # Safety
/// Functions may be called where the type's instruction set is there, from code that is compiled for it; memory must be
/// valid for all lanes that are read or written.
pub(super) trait Vector: Copy {
    /// What it holds.
    type Element: Copy + Default + std::ops::Add<Output = Self::Element> + 'static;
    /// The first lanes of a vector.
    type Part: Copy;
    /// Numbers in a vector.
    const LANES: usize = size_of::<Self>() / size_of::<Self::Element>();
    /// Rows of two vectors of results that registers hold, beside what they are made from.
    const ROWS: usize;
    /// Rows and columns of a square that [`turn`](Vector::turn) copies.
    const SQUARE: usize;

    unsafe fn splat(x: Self::Element) -> Self;
    unsafe fn part(lanes: usize) -> Self::Part;
    unsafe fn load(from: *const Self::Element) -> Self;
    /// Lanes outside of the part are zero.
    unsafe fn load_part(from: *const Self::Element, part: Self::Part) -> Self;
    unsafe fn store(to: *mut Self::Element, x: Self);
    unsafe fn store_part(to: *mut Self::Element, part: Self::Part, x: Self);
    unsafe fn add(a: Self, b: Self) -> Self;
    /// `a * b + sum`, rounded once.
    unsafe fn mul_add(a: Self, b: Self, sum: Self) -> Self;
    /// Asks for the line of memory at an address, which may be any, to be brought to the second-level cache.
    #[inline(always)]
    unsafe fn ask(address: *const Self::Element) {
        // SAFETY: the instruction reads nothing.
        unsafe { _mm_prefetch(address.cast(), _MM_HINT_T1) }
    }
    /// The sum of all lanes.
    unsafe fn sum(x: Self) -> Self::Element;
    /// Copies a square, rows to columns.
    unsafe fn turn(from: *const Self::Element, row: isize, to: *mut Self::Element, to_row: usize);
}

/// Each function is one instruction, or a few.
macro_rules! vector {
    ($vector:ty: $element:ty, $part:ty, $rows:literal rows, squares of $square:literal;
     $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $value:expr;)*) => {
        impl Vector for $vector {
            type Element = $element;
            type Part = $part;
            const ROWS: usize = $rows;
            const SQUARE: usize = $square;
            $(
                #[inline(always)]
                #[allow(unused_unsafe, reason = "some are plain expressions")]
                unsafe fn $name($($argument: $type),*) $(-> $result)? {
                    // SAFETY: by the contract of the trait.
                    unsafe { $value }
                }
            )*
        }
    };
}

vector! {
    __m512: f32, __mmask16, 14 rows, squares of 8;
    splat(x: f32) -> Self = _mm512_set1_ps(x);
    part(lanes: usize) -> __mmask16 = ((1u32 << lanes) - 1) as __mmask16;
    load(from: *const f32) -> Self = _mm512_loadu_ps(from);
    load_part(from: *const f32, part: __mmask16) -> Self = _mm512_maskz_loadu_ps(part, from);
    store(to: *mut f32, x: Self) = _mm512_storeu_ps(to, x);
    store_part(to: *mut f32, part: __mmask16, x: Self) = _mm512_mask_storeu_ps(to, part, x);
    add(a: Self, b: Self) -> Self = _mm512_add_ps(a, b);
    mul_add(a: Self, b: Self, sum: Self) -> Self = _mm512_fmadd_ps(a, b, sum);
    sum(x: Self) -> f32 = _mm512_reduce_add_ps(x);
    turn(from: *const f32, row: isize, to: *mut f32, to_row: usize) = turn_f32(from, row, to, to_row);
}

vector! {
    __m512d: f64, __mmask8, 14 rows, squares of 4;
    splat(x: f64) -> Self = _mm512_set1_pd(x);
    part(lanes: usize) -> __mmask8 = ((1u32 << lanes) - 1) as __mmask8;
    load(from: *const f64) -> Self = _mm512_loadu_pd(from);
    load_part(from: *const f64, part: __mmask8) -> Self = _mm512_maskz_loadu_pd(part, from);
    store(to: *mut f64, x: Self) = _mm512_storeu_pd(to, x);
    store_part(to: *mut f64, part: __mmask8, x: Self) = _mm512_mask_storeu_pd(to, part, x);
    add(a: Self, b: Self) -> Self = _mm512_add_pd(a, b);
    mul_add(a: Self, b: Self, sum: Self) -> Self = _mm512_fmadd_pd(a, b, sum);
    sum(x: Self) -> f64 = _mm512_reduce_add_pd(x);
    turn(from: *const f64, row: isize, to: *mut f64, to_row: usize) = turn_f64(from, row, to, to_row);
}

vector! {
    __m256: f32, __m256i, 6 rows, squares of 8;
    splat(x: f32) -> Self = _mm256_set1_ps(x);
    part(lanes: usize) -> __m256i = _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    load(from: *const f32) -> Self = _mm256_loadu_ps(from);
    load_part(from: *const f32, part: __m256i) -> Self = _mm256_maskload_ps(from, part);
    store(to: *mut f32, x: Self) = _mm256_storeu_ps(to, x);
    store_part(to: *mut f32, part: __m256i, x: Self) = _mm256_maskstore_ps(to, part, x);
    add(a: Self, b: Self) -> Self = _mm256_add_ps(a, b);
    mul_add(a: Self, b: Self, sum: Self) -> Self = _mm256_fmadd_ps(a, b, sum);
    sum(x: Self) -> f32 = __m128::sum(_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
    turn(from: *const f32, row: isize, to: *mut f32, to_row: usize) = turn_f32(from, row, to, to_row);
}

vector! {
    __m256d: f64, __m256i, 6 rows, squares of 4;
    splat(x: f64) -> Self = _mm256_set1_pd(x);
    part(lanes: usize) -> __m256i = _mm256_cmpgt_epi64(_mm256_set1_epi64x(lanes as i64), _mm256_setr_epi64x(0, 1, 2, 3));
    load(from: *const f64) -> Self = _mm256_loadu_pd(from);
    load_part(from: *const f64, part: __m256i) -> Self = _mm256_maskload_pd(from, part);
    store(to: *mut f64, x: Self) = _mm256_storeu_pd(to, x);
    store_part(to: *mut f64, part: __m256i, x: Self) = _mm256_maskstore_pd(to, part, x);
    add(a: Self, b: Self) -> Self = _mm256_add_pd(a, b);
    mul_add(a: Self, b: Self, sum: Self) -> Self = _mm256_fmadd_pd(a, b, sum);
    sum(x: Self) -> f64 = __m128d::sum(_mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1)));
    turn(from: *const f64, row: isize, to: *mut f64, to_row: usize) = turn_f64(from, row, to, to_row);
}

vector! {
    __m128: f32, usize, 6 rows, squares of 4;
    splat(x: f32) -> Self = _mm_set1_ps(x);
    part(lanes: usize) -> usize = lanes;
    load(from: *const f32) -> Self = _mm_loadu_ps(from);
    load_part(from: *const f32, part: usize) -> Self = {
        let mut lanes = [0f32; 4];
        (0..part).for_each(|i| lanes[i] = *from.add(i));
        Self::load(lanes.as_ptr())
    };
    store(to: *mut f32, x: Self) = _mm_storeu_ps(to, x);
    store_part(to: *mut f32, part: usize, x: Self) = {
        let mut lanes = [0f32; 4];
        Self::store(lanes.as_mut_ptr(), x);
        (0..part).for_each(|i| *to.add(i) = lanes[i]);
    };
    add(a: Self, b: Self) -> Self = _mm_add_ps(a, b);
    mul_add(a: Self, b: Self, sum: Self) -> Self = _mm_add_ps(_mm_mul_ps(a, b), sum);
    sum(x: Self) -> f32 = {
        let pairs = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)))
    };
    turn(from: *const f32, row: isize, to: *mut f32, to_row: usize) = {
        let at = |i: isize| Self::load(from.offset(i * row));
        let (mut a, mut b, mut c, mut d) = (at(0), at(1), at(2), at(3));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        [a, b, c, d].into_iter().enumerate().for_each(|(i, x)| Self::store(to.add(i * to_row), x));
    };
}

vector! {
    __m128d: f64, usize, 6 rows, squares of 2;
    splat(x: f64) -> Self = _mm_set1_pd(x);
    part(lanes: usize) -> usize = lanes;
    load(from: *const f64) -> Self = _mm_loadu_pd(from);
    load_part(from: *const f64, part: usize) -> Self = match part {
        0 => _mm_setzero_pd(),
        1 => _mm_load_sd(from),
        _ => Self::load(from),
    };
    store(to: *mut f64, x: Self) = _mm_storeu_pd(to, x);
    store_part(to: *mut f64, part: usize, x: Self) = if part == 2 { Self::store(to, x) } else { _mm_store_sd(to, x) };
    add(a: Self, b: Self) -> Self = _mm_add_pd(a, b);
    mul_add(a: Self, b: Self, sum: Self) -> Self = _mm_add_pd(_mm_mul_pd(a, b), sum);
    sum(x: Self) -> f64 = _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)));
    turn(from: *const f64, row: isize, to: *mut f64, to_row: usize) = {
        let (a, b) = (Self::load(from), Self::load(from.offset(row)));
        Self::store(to, _mm_unpacklo_pd(a, b));
        Self::store(to.add(to_row), _mm_unpackhi_pd(a, b));
    };
}

/// Eight rows of eight: halves of rows that are four apart meet in one vector, and each half turns by itself.
#[inline(always)]
unsafe fn turn_f32(from: *const f32, row: isize, to: *mut f32, to_row: usize) {
    // SAFETY: by the contract of `turn`.
    unsafe {
        for half in 0..2 {
            let at = |i: isize| {
                let from = from.offset(i * row + 4 * half);
                _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from.offset(4 * row)), 1)
            };
            let (a, b, c, d) = (at(0), at(1), at(2), at(3));
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (low2, high2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let to = to.add(4 * half as usize * to_row);
            _mm256_storeu_ps(to, _mm256_shuffle_ps(low, low2, 0x44));
            _mm256_storeu_ps(to.add(to_row), _mm256_shuffle_ps(low, low2, 0xee));
            _mm256_storeu_ps(to.add(2 * to_row), _mm256_shuffle_ps(high, high2, 0x44));
            _mm256_storeu_ps(to.add(3 * to_row), _mm256_shuffle_ps(high, high2, 0xee));
        }
    }
}

/// Four rows of four, in the same way.
#[inline(always)]
unsafe fn turn_f64(from: *const f64, row: isize, to: *mut f64, to_row: usize) {
    // SAFETY: by the contract of `turn`.
    unsafe {
        for half in 0..2 {
            let at = |i: isize| {
                let from = from.offset(i * row + 2 * half);
                _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(from)), _mm_loadu_pd(from.offset(2 * row)), 1)
            };
            let (a, b) = (at(0), at(1));
            let to = to.add(2 * half as usize * to_row);
            _mm256_storeu_pd(to, _mm256_unpacklo_pd(a, b));
            _mm256_storeu_pd(to.add(to_row), _mm256_unpackhi_pd(a, b));
        }
    }
}
