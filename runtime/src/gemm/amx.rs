//! Products of `bf16` matrices in the tiles of AMX, with sums in `f32`.
//!
//! A tile register holds 16 rows of 64 bytes: 16 by 16 sums, 16 rows of `a` by 32 numbers of the contraction, or as many of `b` by 16
//! columns, in *pairs*: two neighbours of the contraction side by side, column after column. One instruction multiplies two tiles in 16
//! cycles, sixteen times what vectors of floats do. Two by two tiles of sums stay in registers while a block of the contraction runs, so
//! that each tile that is loaded is used twice.
//!
//! A panel of 32 columns of `b` is packed in pairs; it stays in the first-level cache while all of `a` passes. Rows of `a` are read where
//! they lie if each of them begins a cache line, since a load across two takes several times as long; otherwise they are packed
//! too, once for all panels. What is beyond an edge is zero in what is packed, and sums of tiles that reach beyond one take a detour.
//!
//! Subnormal operands count as zeros here, and subnormal sums become zeros: the instruction knows no others.

use super::blocks::{Line, Matrix, reserve};
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Rows of a tile, and columns of a tile of sums.
const SIDE: usize = 16;
/// Numbers of the contraction in a tile.
const STEP: usize = 32;
/// Bytes of a tile.
const TILE: usize = 1024;
/// Bytes of a cache line, and of a row of a tile.
const LINE: usize = 64;
/// Steps of the contraction that are one block: a panel of `b` has 32 KiB.
const DEPTH: usize = 16;

/// `c += a b`, or `c = a b` where `c` is fresh; neighbours in a row of `c` are neighbours in memory. Operands are the bits of
/// `bf16`.
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) c: *mut f32,
    pub(super) c_row: isize,
    pub(super) fresh: bool,
    pub(super) a: Matrix<u16>,
    pub(super) b: Matrix<u16>,
}

/// Up to two tiles of rows by up to two of columns, and a block of the contraction.
struct Group {
    /// Steps of the contraction; at least one.
    steps: usize,
    a: *const u8,
    /// Bytes between the rows of a tile of `a`, from a tile to the next along the contraction, and to the one below.
    a_row: usize,
    a_step: usize,
    a_below: usize,
    /// Pairs: for each step a tile for each 16 columns.
    b: *const u8,
    c: *mut f32,
    /// Bytes between rows.
    c_row: isize,
    fresh: bool,
}

/// The layout of all tile registers: 16 rows of 64 bytes.
#[repr(align(64))]
struct Configuration([u8; 64]);

static FULL: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Configuration(bytes)
};

thread_local! {
    /// Space for packed `a` and a packed panel of `b`, kept by each thread.
    static SPACE: [RefCell<Vec<Line>>; 2] = const { [const { RefCell::new(Vec::new()) }; 2] };
}

/// One function for each number of tiles: sums that are zero or loaded, the steps, and what stores them.
macro_rules! kernel {
    ($name:ident: zero [$($zero:literal)*] load [$($load:literal)*] step [$($step:literal)*] store [$($store:literal)*]) => {
        #[inline(always)]
        unsafe fn $name(g: &Group) {
            // SAFETY: by the caller's contract all that the tiles reach is valid, and the registers are configured.
            unsafe {
                asm!(
                    "test {fresh}, {fresh}",
                    "jz 3f",
                    $($zero,)*
                    "jmp 2f",
                    "3:",
                    $($load,)*
                    "2:",
                    $($step,)*
                    "add {a}, {a_step}",
                    "add {below}, {a_step}",
                    "dec {steps}",
                    "jnz 2b",
                    $($store,)*
                    a = inout(reg) g.a => _,
                    below = inout(reg) g.a.wrapping_add(g.a_below) => _,
                    a_row = in(reg) g.a_row,
                    a_step = in(reg) g.a_step,
                    b = inout(reg) g.b => _,
                    b_row = in(reg) LINE,
                    c = in(reg) g.c,
                    c_below = in(reg) g.c.wrapping_byte_offset(SIDE as isize * g.c_row),
                    c_row = in(reg) g.c_row,
                    fresh = in(reg) usize::from(g.fresh),
                    steps = inout(reg) g.steps => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

kernel!(two_by_two:
    zero ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"]
    load ["tileloadd tmm0, [{c} + {c_row}]" "tileloadd tmm1, [{c} + {c_row} + 64]"
          "tileloadd tmm2, [{c_below} + {c_row}]" "tileloadd tmm3, [{c_below} + {c_row} + 64]"]
    step ["tileloadd tmm6, [{b} + {b_row}]" "tileloaddt1 tmm4, [{a} + {a_row}]"
          "tdpbf16ps tmm0, tmm4, tmm6" "tileloadd tmm7, [{b} + {b_row} + 1024]"
          "tdpbf16ps tmm1, tmm4, tmm7" "tileloaddt1 tmm5, [{below} + {a_row}]"
          "tdpbf16ps tmm2, tmm5, tmm6" "tdpbf16ps tmm3, tmm5, tmm7" "add {b}, 2048"]
    store ["tilestored [{c} + {c_row}], tmm0" "tilestored [{c} + {c_row} + 64], tmm1"
           "tilestored [{c_below} + {c_row}], tmm2" "tilestored [{c_below} + {c_row} + 64], tmm3"]);
kernel!(one_by_two:
    zero ["tilezero tmm0" "tilezero tmm1"]
    load ["tileloadd tmm0, [{c} + {c_row}]" "tileloadd tmm1, [{c} + {c_row} + 64]"]
    step ["tileloaddt1 tmm4, [{a} + {a_row}]" "tileloadd tmm6, [{b} + {b_row}]"
          "tdpbf16ps tmm0, tmm4, tmm6" "tileloadd tmm7, [{b} + {b_row} + 1024]"
          "tdpbf16ps tmm1, tmm4, tmm7" "add {b}, 2048"]
    store ["tilestored [{c} + {c_row}], tmm0" "tilestored [{c} + {c_row} + 64], tmm1" "/* {c_below} */"]);
kernel!(two_by_one:
    zero ["tilezero tmm0" "tilezero tmm2"]
    load ["tileloadd tmm0, [{c} + {c_row}]" "tileloadd tmm2, [{c_below} + {c_row}]"]
    step ["tileloadd tmm6, [{b} + {b_row}]" "tileloaddt1 tmm4, [{a} + {a_row}]"
          "tdpbf16ps tmm0, tmm4, tmm6" "tileloaddt1 tmm5, [{below} + {a_row}]"
          "tdpbf16ps tmm2, tmm5, tmm6" "add {b}, 1024"]
    store ["tilestored [{c} + {c_row}], tmm0" "tilestored [{c_below} + {c_row}], tmm2"]);
kernel!(one_by_one:
    zero ["tilezero tmm0"]
    load ["tileloadd tmm0, [{c} + {c_row}]"]
    step ["tileloadd tmm6, [{b} + {b_row}]" "tileloaddt1 tmm4, [{a} + {a_row}]"
          "tdpbf16ps tmm0, tmm4, tmm6" "add {b}, 1024"]
    store ["tilestored [{c} + {c_row}], tmm0" "/* {c_below} */"]);

/// Multiplies.
///
/// # Safety
/// All elements that the extents and distances reach must lie in valid memory, those of the result apart from the
/// operands'; the process must be allowed to use AMX, and the machine have AVX-512 with words.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn multiply(p: &Product) {
    let [mut space_a, mut space_b] = SPACE.with(|s| [s[0].take(), s[1].take()]);
    let all = p.k.div_ceil(STEP);
    let blocks = all.div_ceil(DEPTH);
    // SAFETY: the configuration is valid, and registers are given back below.
    unsafe { asm!("ldtilecfg [{}]", in(reg) FULL.0.as_ptr(), options(nostack, readonly)) };
    for block in 0..blocks {
        let steps = (all * block / blocks, all * (block + 1) / blocks);
        let (from, depth) = (steps.0 * STEP, (steps.1 * STEP).min(p.k) - steps.0 * STEP);
        let steps = steps.1 - steps.0;
        // SAFETY: by the caller's contract; what is packed has space.
        unsafe {
            let rows = Rows::new(Matrix { data: p.a.at(0, from), ..p.a }, p.m, depth, steps, &mut space_a);
            for j in (0..p.n).step_by(2 * SIDE) {
                let columns = (p.n - j).min(2 * SIDE);
                let tiles = columns.div_ceil(SIDE);
                let panel: *mut u8 = reserve(&mut space_b, steps * tiles * TILE);
                pack_pairs(Matrix { data: p.b.at(from, j), ..p.b }, depth, columns, steps, panel);
                for i in (0..p.m).step_by(2 * SIDE) {
                    let high = (p.m - i).min(2 * SIDE);
                    let c = p.c.wrapping_offset(i as isize * p.c_row).wrapping_add(j);
                    let g = Group { b: panel, c, c_row: 4 * p.c_row, fresh: p.fresh && block == 0, ..rows.group(i) };
                    run(&g, high, columns);
                }
            }
        }
    }
    // SAFETY: other code pays for what the registers hold whenever the thread is switched.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
    SPACE.with(|s| {
        s[0].replace(space_a);
        s[1].replace(space_b);
    });
}

/// Runs a group whose tiles may reach beyond the result.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn run(g: &Group, rows: usize, columns: usize) {
    let (high, wide) = (rows.div_ceil(SIDE), columns.div_ceil(SIDE));
    let kernel = |g: &Group| {
        // SAFETY: by the caller's contract.
        unsafe {
            match (high, wide) {
                (1, 1) => one_by_one(g),
                (1, _) => one_by_two(g),
                (_, 1) => two_by_one(g),
                _ => two_by_two(g),
            }
        }
    };
    if rows.is_multiple_of(SIDE) && columns.is_multiple_of(SIDE) {
        return kernel(g);
    }
    let mut sums = Sums([0.0; 4 * SIDE * SIDE]);
    kernel(&Group { c: sums.0.as_mut_ptr(), c_row: 8 * SIDE as isize, fresh: true, ..*g });
    for i in 0..rows {
        let c = g.c.wrapping_byte_offset(i as isize * g.c_row);
        for j in (0..columns).step_by(SIDE) {
            let part = first(columns - j);
            // SAFETY: by the caller's contract; lanes beyond the columns are left out.
            unsafe {
                let sum = _mm512_load_ps(sums.0.as_ptr().add(i * 2 * SIDE + j));
                let held = if g.fresh { _mm512_setzero_ps() } else { _mm512_maskz_loadu_ps(part, c.add(j)) };
                _mm512_mask_storeu_ps(c.add(j), part, _mm512_add_ps(held, sum));
            }
        }
    }
}

#[repr(align(64))]
struct Sums([f32; 4 * SIDE * SIDE]);

#[repr(align(64))]
struct Tile([u8; TILE]);

/// The first lanes of a vector.
fn first(lanes: usize) -> __mmask16 {
    ((1u32 << lanes.min(SIDE)) - 1) as __mmask16
}

/// The same of 16 bits each.
fn first_words(lanes: usize) -> __mmask32 {
    ((1u64 << lanes.min(STEP)) - 1) as __mmask32
}

/// A block of `a`: what lies well is read in place, the rest from what was packed.
struct Rows {
    place: Matrix<u16>,
    /// The rows that are read in place: whole pairs of tiles.
    in_place: usize,
    packed: *const u8,
    steps: usize,
}

impl Rows {
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn new(a: Matrix<u16>, m: usize, depth: usize, steps: usize, space: &mut Vec<Line>) -> Rows {
        let whole = depth == steps * STEP;
        let aligned = (a.data as usize).is_multiple_of(LINE) && (2 * a.row).unsigned_abs().is_multiple_of(LINE);
        let in_place = if whole && aligned && a.column == 1 && a.row >= 0 { m / (2 * SIDE) * 2 * SIDE } else { 0 };
        let tiles = (m - in_place).div_ceil(SIDE);
        let packed: *mut u8 = reserve(space, tiles * steps * TILE);
        for t in 0..tiles {
            let i = in_place + t * SIDE;
            let group = Matrix { data: a.at(i, 0), ..a };
            // SAFETY: the space was made for all tiles.
            unsafe { pack_rows(group, (m - i).min(SIDE), depth, steps, packed.add(t * steps * TILE)) };
        }
        Rows { place: a, in_place, packed, steps }
    }

    /// The rows from number `i` on, without what a group has beside.
    fn group(&self, i: usize) -> Group {
        let (steps, b, c, c_row, fresh) = (self.steps, std::ptr::null(), std::ptr::null_mut(), 0, true);
        let below = self.steps * TILE;
        match i.checked_sub(self.in_place) {
            None => {
                let row = 2 * self.place.row as usize;
                let a = self.place.at(i, 0).cast();
                Group { steps, a, a_row: row, a_step: LINE, a_below: SIDE * row, b, c, c_row, fresh }
            }
            Some(i) => {
                let a = self.packed.wrapping_add(i / SIDE * below);
                Group { steps, a, a_row: LINE, a_step: TILE, a_below: below, b, c, c_row, fresh }
            }
        }
    }
}

/// Copies up to 16 rows of `a`, tile after tile.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows(a: Matrix<u16>, rows: usize, depth: usize, steps: usize, to: *mut u8) {
    // SAFETY: by the caller's contract: elements that are there are read, and the tiles are written.
    unsafe {
        for s in 0..steps {
            let tile: *mut u16 = to.add(s * TILE).cast();
            let some = (depth - s * STEP).min(STEP);
            if a.column == 1 {
                for i in 0..SIDE {
                    let part = if i < rows { first_words(some) } else { 0 };
                    let row = _mm512_maskz_loadu_epi16(part, a.at(i, s * STEP).cast());
                    _mm512_store_si512(tile.add(i * STEP).cast(), row);
                }
            } else if a.row == 1 {
                let mut pairs = Tile([0; TILE]);
                for p in 0..SIDE {
                    let pair = paired(a, rows, 2 * p, s * STEP, some);
                    _mm512_store_si512(pairs.0.as_mut_ptr().add(p * LINE).cast(), pair);
                }
                turn(pairs.0.as_ptr(), LINE as isize, tile.cast());
            } else {
                for i in 0..SIDE {
                    for k in 0..STEP {
                        *tile.add(i * STEP + k) = if i < rows && k < some { *a.at(i, s * STEP + k) } else { 0 };
                    }
                }
            }
        }
    }
}

/// Of 16 neighbouring rows the numbers at `k` and `k + 1` of a step, side by side.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn paired(a: Matrix<u16>, rows: usize, k: usize, from: usize, some: usize) -> __m512i {
    let half = |k: usize| {
        let part = if k < some { first_words(rows) } else { 0 };
        // SAFETY: by the caller's contract.
        let words = unsafe { _mm512_maskz_loadu_epi16(part, a.at(0, from + k).cast()) };
        _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words))
    };
    _mm512_or_si512(half(k), _mm512_slli_epi32::<16>(half(k + 1)))
}

/// Copies up to 32 columns of `b`: for each step a tile of pairs for each 16 columns.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_pairs(b: Matrix<u16>, depth: usize, columns: usize, steps: usize, to: *mut u8) {
    let tiles = columns.div_ceil(SIDE);
    // SAFETY: by the caller's contract: elements that are there are read, and the tiles are written.
    unsafe {
        if b.column == 1 {
            let part = first_words(columns);
            let number = |i: usize| (i / 2 + STEP * (i % 2)) as i16;
            let [low, high] = [0, 1].map(|half| {
                let lanes: [i16; STEP] = std::array::from_fn(|i| number(i) + half * SIDE as i16);
                _mm512_loadu_epi16(lanes.as_ptr())
            });
            for s in 0..steps {
                let tile = to.add(s * tiles * TILE);
                for p in 0..SIDE {
                    let k = s * STEP + 2 * p;
                    let row = |k: usize| {
                        let part = if k < depth { part } else { 0 };
                        _mm512_maskz_loadu_epi16(part, b.at(k, 0).cast())
                    };
                    let (even, odd) = (row(k), row(k + 1));
                    let at = tile.add(p * LINE);
                    _mm512_store_si512(at.cast(), _mm512_permutex2var_epi16(even, low, odd));
                    if tiles == 2 {
                        _mm512_store_si512(at.add(TILE).cast(), _mm512_permutex2var_epi16(even, high, odd));
                    }
                }
            }
            return;
        }
        for s in 0..steps {
            let some = (depth - s * STEP).min(STEP);
            for t in 0..tiles {
                let tile = to.add((s * tiles + t) * TILE);
                let wide = (columns - t * SIDE).min(SIDE);
                if b.row == 1 && some == STEP && wide == SIDE {
                    turn(b.at(s * STEP, t * SIDE).cast(), 2 * b.column, tile);
                    continue;
                }
                let tile: *mut u16 = tile.cast();
                for k in 0..STEP {
                    for j in 0..SIDE {
                        let x = if k < some && j < wide { *b.at(s * STEP + k, t * SIDE + j) } else { 0 };
                        *tile.add(k / 2 * STEP + 2 * j + k % 2) = x;
                    }
                }
            }
        }
    }
}

/// Copies 16 rows of 16 numbers of 32 bits, rows to columns; `row` is in bytes. Quarters of four rows meet while they are
/// loaded, so that all else stays within quarters.
#[target_feature(enable = "avx512f")]
unsafe fn turn(from: *const u8, row: isize, to: *mut u8) {
    for q in 0..4 {
        let quarters = |first: isize| {
            // SAFETY: by the caller's contract: all rows are there.
            let at = |i: isize| unsafe { _mm_loadu_si128(from.wrapping_offset((first + i) * row).add(16 * q).cast()) };
            let x = _mm512_castsi128_si512(at(0));
            let x = _mm512_inserti32x4::<1>(x, at(4));
            let x = _mm512_inserti32x4::<2>(x, at(8));
            _mm512_inserti32x4::<3>(x, at(12))
        };
        let (a, b, c, d) = (quarters(0), quarters(1), quarters(2), quarters(3));
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let columns = [
            _mm512_unpacklo_epi64(low, low2),
            _mm512_unpackhi_epi64(low, low2),
            _mm512_unpacklo_epi64(high, high2),
            _mm512_unpackhi_epi64(high, high2),
        ];
        for (i, column) in columns.into_iter().enumerate() {
            // SAFETY: by the caller's contract there is space for a tile.
            unsafe { _mm512_store_si512(to.add((4 * q + i) * LINE).cast(), column) };
        }
    }
}
