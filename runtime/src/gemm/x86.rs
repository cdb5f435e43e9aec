//! The kernels of each instruction set of x86-64, and which of them a call uses.

use super::blocks::{ASK, COPY, Group, Kernel, PLAIN, Product, group, multiply};
use super::vector::Vector;
use crate::cpu::Vectors;
use std::arch::x86_64::{__m128, __m128d, __m256, __m256d, __m512, __m512d};

/// A float type that is multiplied.
pub(super) trait Float: Sized {
    /// `c += a b`, with these vectors.
    ///
    /// # Safety
    /// As for [`multiply`]; the machine must have the vectors.
    unsafe fn product(p: &Product<'_, Self>, vectors: Vectors);
}

/// Kernels of these numbers of vectors and up to so many rows, as a function of both and of what is done beside.
macro_rules! kernels {
    ($name:ident, $product:ident, $group:ident, $vector:ty, $(#[$attribute:meta])? $($vectors:literal: $($rows:literal)*;)*) => {
        $(#[$attribute])?
        unsafe fn $group<const R: usize, const V: usize, const BESIDE: u8>(g: &Group<<$vector as Vector>::Element>) {
            // SAFETY: by the caller's contract.
            unsafe { group::<$vector, R, V, BESIDE>(g) }
        }

        fn $name(rows: usize, vectors: usize, beside: u8) -> Kernel<<$vector as Vector>::Element> {
            match (rows, vectors, beside) {
                $($(
                    ($rows, $vectors, COPY) => $group::<$rows, $vectors, COPY>,
                    ($rows, $vectors, ASK) => $group::<$rows, $vectors, ASK>,
                    ($rows, $vectors, _) => $group::<$rows, $vectors, PLAIN>,
                )*)*
                // No group has more rows or other vectors.
                _ => $group::<1, 1, PLAIN>,
            }
        }

        $(#[$attribute])?
        pub(super) unsafe fn $product(p: &Product<'_, <$vector as Vector>::Element>) {
            // SAFETY: by the caller's contract.
            unsafe { multiply::<$vector>(p, $name) }
        }
    };
}

/// All instruction sets of a type.
macro_rules! float {
    ($t:ty, $module:ident: $v128:ty, $v256:ty, $v512:ty) => {
        mod $module {
            use super::*;
            kernels!(kernel_sse2, sse2, group_sse2, $v128, 1: 1 2 3 4 5 6; 2: 1 2 3 4 5 6; 4: 1 2;);
            kernels!(kernel_avx2, avx2, group_avx2, $v256, #[target_feature(enable = "avx2,fma")]
                1: 1 2 3 4 5 6; 2: 1 2 3 4 5 6; 4: 1 2;);
            kernels!(kernel_avx512, avx512, group_avx512, $v512, #[target_feature(enable = "avx512f")]
                1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14; 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14; 4: 1 2 3 4 5 6; 8: 1 2;);
        }

        impl Float for $t {
            unsafe fn product(p: &Product<'_, $t>, vectors: Vectors) {
                // SAFETY: by the caller's contract.
                unsafe {
                    match vectors {
                        Vectors::Portable => $module::sse2(p),
                        Vectors::Avx2 => $module::avx2(p),
                        Vectors::Avx512 | Vectors::Amx => $module::avx512(p),
                    }
                }
            }
        }
    };
}

float!(f32, floats: __m128, __m256, __m512);
float!(f64, doubles: __m128d, __m256d, __m512d);
