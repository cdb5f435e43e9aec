//! Multiplication of matrices: the panels of contractions, on one thread.
//!
//! On x86-64 floats are multiplied in blocks (`blocks`) of vectors (`vector`), with kernels for each instruction set (`x86`);
//! elsewhere by the `gemm` crate. Any distances between rows and columns will do, so operands are not copied to be transposed.
//! Matrices of `bf16` are multiplied in tiles (`amx`) where the machine has them, and widened elsewhere.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::cpu::DotCall;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Vectors;
use half::bf16;

/// `acc += a b` of `f32` matrices, or `acc = a b` where the accumulator is fresh.
///
/// # Safety
/// All elements that the extents and strides reach must lie in valid memory, the accumulator's apart from the operands'.
pub(crate) unsafe extern "C" fn dot_f32(call: *const DotCall) {
    // SAFETY: by the contract.
    unsafe { dot::<f32>(&*call) }
}

/// `acc += a b` of `bf16` matrices with sums in `f32`, or `acc = a b` where the accumulator is fresh.
///
/// # Safety
/// As for [`dot_f32`].
pub(crate) unsafe extern "C" fn dot_bf16(call: *const DotCall) {
    // SAFETY: by the contract, as all here.
    unsafe {
        let c = &*call;
        #[cfg(target_arch = "x86_64")]
        if c.vectors() == Vectors::Amx {
            return in_tiles(c);
        }
        widened(c);
    }
}

/// `acc += a b` of `f64` matrices, or `acc = a b` where the accumulator is fresh.
///
/// # Safety
/// As for [`dot_f32`].
pub(crate) unsafe extern "C" fn dot_f64(call: *const DotCall) {
    // SAFETY: by the contract.
    unsafe { dot::<f64>(&*call) }
}

/// A product of `bf16` matrices in tiles.
#[cfg(target_arch = "x86_64")]
unsafe fn in_tiles(c: &DotCall) {
    let (Ok(m), Ok(n), Ok(k)) = (usize::try_from(c.m), usize::try_from(c.n), usize::try_from(c.k)) else { return };
    let a = blocks::Matrix { data: c.a.cast(), row: c.a_row as isize, column: c.a_inner as isize };
    let b = blocks::Matrix { data: c.b.cast(), row: c.b_inner as isize, column: c.b_column as isize };
    let (acc, c_row, fresh) = (c.acc.cast(), c.acc_row as isize, c.fresh != 0);
    if k == 0 && fresh {
        // SAFETY: by the caller's contract.
        unsafe { clear::<f32>(c) };
    }
    if m > 0 && n > 0 && k > 0 {
        // SAFETY: by the caller's contract; generated code for these vectors is made where they are.
        unsafe { amx::multiply(&amx::Product { m, n, k, c: acc, c_row, fresh, a, b }) };
    }
}

/// A product of `bf16` matrices as one of `f32`: a block of the contraction at a time is widened.
unsafe fn widened(c: &DotCall) {
    const DEPTH: i64 = 256;
    let widen = |data: *const u8, rows: i64, [row, column]: [i64; 2], columns: i64| -> Vec<f32> {
        let at = |i: i64| data.cast::<bf16>().wrapping_offset((i / columns * row + i % columns * column) as isize);
        // SAFETY: by the caller's contract.
        (0..rows * columns).map(|i| unsafe { *at(i) }.to_f32()).collect()
    };
    let moved = |data: *const u8, elements: i64| data.cast::<bf16>().wrapping_offset(elements as isize).cast::<u8>();
    let mut from = 0;
    loop {
        let k = (c.k - from).clamp(0, DEPTH);
        let a = widen(moved(c.a, from * c.a_inner), c.m, [c.a_row, c.a_inner], k);
        let b = widen(moved(c.b, from * c.b_inner), k, [c.b_inner, c.b_column], c.n);
        let (a, b) = (a.as_ptr().cast(), b.as_ptr().cast());
        let fresh = if from == 0 { c.fresh } else { 0 };
        let block = DotCall { k, a, a_row: k, a_inner: 1, b, b_inner: c.n, b_column: 1, fresh, ..*c };
        // SAFETY: by the caller's contract, and the operands are what was widened.
        unsafe { dot::<f32>(&block) };
        from += DEPTH;
        if from >= c.k {
            return;
        }
    }
}

macro_rules! integer_dots {
    ($($(#[$doc:meta])* $name:ident: $t:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for [`dot_f32`].
        pub(crate) unsafe extern "C" fn $name(call: *const DotCall) {
            // SAFETY: by the contract.
            unsafe { rows(&*call, |x: $t, a: $t, b: $t| x.wrapping_add(a.wrapping_mul(b))) }
        }
    )*};
}

integer_dots! {
    /// `acc += a b` of `u8` matrices; wraps.
    dot_u8: u8;
    /// `acc += a b` of `i32` matrices; wraps.
    dot_i32: i32;
    /// `acc += a b` of `i64` matrices; wraps.
    dot_i64: i64;
}

#[cfg(target_arch = "x86_64")]
unsafe fn dot<T: x86::Float>(c: &DotCall) {
    use blocks::{Matrix, Product};
    let (Ok(m), Ok(n), Ok(k)) = (usize::try_from(c.m), usize::try_from(c.n), usize::try_from(c.k)) else { return };
    let a = Matrix { data: c.a.cast(), row: c.a_row as isize, column: c.a_inner as isize };
    let b = Matrix { data: c.b.cast(), row: c.b_inner as isize, column: c.b_column as isize };
    let (acc, c_row, fresh) = (c.acc.cast(), c.acc_row as isize, c.fresh != 0);
    if k == 0 && fresh {
        // SAFETY: by the caller's contract.
        unsafe { clear::<T>(c) };
    }
    if m > 0 && n > 0 && k > 0 {
        // SAFETY: by the caller's contract; generated code says which vectors it was made for.
        unsafe { T::product(&Product { m, n, k, c: acc, c_row, fresh, a, b, outer: c.outer() }, c.vectors()) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn dot<T: std::ops::Mul<Output = T> + std::ops::Add<Output = T> + From<u8> + Copy + 'static>(c: &DotCall) {
    let one = T::from(1u8);
    if c.fresh != 0 {
        // SAFETY: by the caller's contract.
        unsafe { clear::<T>(c) };
    }
    // SAFETY: by the caller's contract.
    if let [d, inside @ ..] = unsafe { c.outer() } {
        let k = c.k / d.extent.max(1);
        let (size, b_outers) = (size_of::<T>() as i64, inside.len() as i64);
        for i in 0..d.extent {
            let (a, b) = ((i * k * c.a_inner * size) as isize, (i * d.stride * size) as isize);
            let (a, b) = (c.a.wrapping_offset(a), c.b.wrapping_offset(b));
            let part = DotCall { a, b, k, b_outer: inside.as_ptr(), b_outers, fresh: 0, ..*c };
            // SAFETY: by the caller's contract.
            unsafe { dot::<T>(&part) };
        }
        return;
    }
    if c.m <= 0 || c.n <= 0 || c.k <= 0 {
        return;
    }
    if [c.a_row, c.a_inner, c.b_inner, c.b_column].iter().any(|s| *s <= 0) {
        // SAFETY: by the caller's contract.
        return unsafe { rows(c, |x: T, a: T, b: T| x + a * b) };
    }
    // SAFETY: by the caller's contract.
    unsafe {
        gemm::gemm(
            c.m as usize,
            c.n as usize,
            c.k as usize,
            c.acc.cast::<T>(),
            1,
            c.acc_row as isize,
            true,
            c.a.cast::<T>(),
            c.a_inner as isize,
            c.a_row as isize,
            c.b.cast::<T>(),
            c.b_column as isize,
            c.b_inner as isize,
            one,
            one,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Writes zeros, which have no bits, to the accumulator.
unsafe fn clear<T>(c: &DotCall) {
    for i in 0..c.m.max(0) {
        let row = c.acc.cast::<T>().wrapping_offset((i * c.acc_row) as isize);
        // SAFETY: by the caller's contract.
        unsafe { row.write_bytes(0, c.n.max(0) as usize) };
    }
}

/// For each row and contraction index, a multiple of a row of `b`.
unsafe fn rows<T: Copy>(c: &DotCall, step: impl Fn(T, T, T) -> T) {
    let (acc, a, b) = (c.acc.cast::<T>(), c.a.cast::<T>(), c.b.cast::<T>());
    let at = |i: i64, s: i64, j: i64, t: i64| (i * s + j * t) as isize;
    for i in 0..c.m {
        for k in 0..c.k {
            // SAFETY: by the caller's contract, as all accesses here.
            let x = unsafe { *a.offset(at(i, c.a_row, k, c.a_inner)) };
            for j in 0..c.n {
                // SAFETY: as above.
                unsafe {
                    let out = acc.offset(at(i, c.acc_row, j, 1));
                    *out = step(*out, x, *b.offset(at(k, c.b_inner, j, c.b_column)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Dim;
    #[cfg(not(target_arch = "x86_64"))]
    use crate::cpu::Vectors;

    type Call = unsafe extern "C" fn(*const DotCall);

    /// A matrix with other elements around, and its strides: where those are whole cache lines, rows begin one.
    fn operand<T: From<i8>>(rows: i64, columns: i64, kind: usize) -> (Vec<T>, usize, i64, i64) {
        let n = (rows * columns * 4 + 128) as usize;
        let data: Vec<T> = (0..n).map(|i| T::from(((i * 7 + kind * 3) % 13) as i8 - 6)).collect();
        let line = data.as_ptr().align_offset(64);
        match kind {
            0 => (data, line, columns, 1),
            1 => (data, line, 1, rows),
            2 => (data, 3, 2 * columns, 2),
            3 => (data, 5, 1, rows + 3),
            4 => (data, 0, 0, 1),
            5 => (data, 0, 1, 0),
            6 => (data, n - 1, -columns, -1),
            _ => (data, ((rows - 1) * columns).max(0) as usize, -columns, 1),
        }
    }

    #[test]
    fn all_strides_agree_with_plain_sums() {
        for (ka, kb) in (0..8).flat_map(|a| (0..8).map(move |b| (a, b))) {
            with::<f32>(dot_f32, ka, kb);
            with::<bf16>(dot_bf16, ka, kb);
        }
    }

    fn with<T: From<i8> + Into<f32> + Copy>(dot: Call, ka: usize, kb: usize) {
        let shapes = [
            (1, 1, 1),
            (2, 67, 40),
            (3, 130, 9),
            (6, 70, 5),
            (14, 33, 20),
            (15, 32, 20),
            (200, 130, 300),
            (1, 40, 33),
            (40, 1, 33),
            (17, 9, 1),
            (5, 5, 0),
            (0, 3, 2),
            (64, 10, 128),
            (33, 65, 70),
            (64, 64, 64),
            (100, 100, 600),
            (96, 4, 513),
        ];
        for (m, n, k) in shapes {
            let (a, a0, a_row, a_inner) = operand::<T>(m, k, ka);
            let (b, b0, b_inner, b_column) = operand::<T>(k, n, kb);
            let sum = |i: i64, j: i64| -> f32 {
                let at = |base: usize, i: i64, s: i64, j: i64, t: i64| (base as i64 + i * s + j * t) as usize;
                let left = |x: i64| -> f32 { a[at(a0, i, a_row, x, a_inner)].into() };
                let right = |x: i64| -> f32 { b[at(b0, x, b_inner, j, b_column)].into() };
                (0..k).map(|x| left(x) * right(x)).sum()
            };
            let sums: Vec<f32> = (0..m * n).map(|i| sum(i / n, i % n)).collect();
            let row = n + 2;
            for (vectors, fresh) in Vectors::available().into_iter().flat_map(|v| [(v, false), (v, true)]) {
                let mut acc: Vec<f32> = (0..(m * row).max(1)).map(|i| (i % 5) as f32).collect();
                let mut expected = acc.clone();
                for (i, sum) in sums.iter().enumerate() {
                    let held = &mut expected[i / n as usize * row as usize + i % n as usize];
                    *held = if fresh { 0.0 } else { *held } + sum;
                }
                let call = DotCall {
                    m,
                    n,
                    k,
                    acc: acc.as_mut_ptr().cast(),
                    acc_row: row,
                    a: a[a0..].as_ptr().cast(),
                    a_row,
                    a_inner,
                    b: b[b0..].as_ptr().cast(),
                    b_inner,
                    b_column,
                    b_outer: std::ptr::null(),
                    b_outers: 0,
                    vectors: vectors.word(),
                    fresh: i64::from(fresh),
                };
                // SAFETY: the operands were sized for their strides.
                unsafe { dot(&call) };
                assert_eq!(acc, expected, "{m}x{n}x{k}, operands {ka} {kb}, {vectors:?}");
            }
        }
    }

    #[test]
    fn rows_of_windows_are_multiplied_where_they_lie() {
        // Windows of 3 by 2 of images of lines of 9, of which panels read all but the end of the last one.
        let (line, image) = (9, 9 * 23);
        for (m, n, images) in [(1, 20, 1), (5, 33, 2), (14, 64, 7), (15, 100, 50), (40, 170, 90)] {
            let k = images * 6;
            let a: Vec<f32> = (0..m * k).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..images * image).map(|i| ((i * 5) % 11) as f32 - 5.0).collect();
            let place = |k: i64, j: i64| (k / 6 * image + k / 2 % 3 * line + k % 2 + j) as usize;
            let row = |i: i64, j: i64| (0..k).map(|x| a[(i * k + x) as usize] * b[place(x, j)]).sum::<f32>();
            let expected: Vec<f32> = (0..m * n).map(|i| row(i / n, i % n)).collect();
            let outer = [Dim { extent: images, stride: image }, Dim { extent: 3, stride: line }];
            for vectors in Vectors::available() {
                let mut acc = vec![f32::NAN; (m * n) as usize];
                let call = DotCall {
                    m,
                    n,
                    k,
                    acc: acc.as_mut_ptr().cast(),
                    acc_row: n,
                    a: a.as_ptr().cast(),
                    a_row: k,
                    a_inner: 1,
                    b: b.as_ptr().cast(),
                    b_inner: 1,
                    b_column: 1,
                    b_outer: outer.as_ptr(),
                    b_outers: 2,
                    vectors: vectors.word(),
                    fresh: 1,
                };
                // SAFETY: all rows that panels read lie in the images.
                unsafe { dot_f32(&call) };
                assert_eq!(acc, expected, "{m}x{n}x{k}, {vectors:?}");
            }
        }
    }

    #[test]
    fn integers_wrap() {
        let (a, b, mut acc) = ([i64::MAX, 2], [2i64, 5], [1i64]);
        let call = DotCall {
            m: 1,
            n: 1,
            k: 2,
            acc: acc.as_mut_ptr().cast(),
            acc_row: 1,
            a: a.as_ptr().cast(),
            a_row: 2,
            a_inner: 1,
            b: b.as_ptr().cast(),
            b_inner: 1,
            b_column: 1,
            b_outer: std::ptr::null(),
            b_outers: 0,
            vectors: 0,
            fresh: 0,
        };
        // SAFETY: the matrices are as described.
        unsafe { dot_i64(&call) };
        assert_eq!(acc, [1i64.wrapping_add(i64::MAX.wrapping_mul(2)).wrapping_add(10)]);
    }
}
