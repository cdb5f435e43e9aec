//! Products of matrices in blocks: what a core of an x86-64 machine multiplies.
//!
//! The result is cut into panels of columns as wide as two vectors (more where there are few rows), the contraction into blocks whose
//! panel of `b` fits the first-level cache, and rows into groups whose results stay in registers while a block is contracted
//! ([`group`]). Per step of the contraction a group loads the panel's vectors and multiplies them with one number of `a` a row, so that
//! the arithmetic units are busy and hardly anything else is. A panel of `b` whose rows are far apart is copied by the first group that
//! reads it, while the next groups ask for the panel after it, so that it is in the second-level cache by then: from the last one a core gets
//! hardly a line in the time that it takes to multiply one. Where columns of `b` are not neighbours, a panel is packed before. `a` is read where
//! it lies, or packed a group at a time where its rows are neighbours and its columns far apart.

use super::vector::Vector;
use crate::cpu::Dim;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::hint::black_box;

/// Elements of the contraction that are one block.
const DEPTH: usize = 256;
/// Rows of a group at most.
const MOST_ROWS: usize = 14;
/// Bytes between neighbours in a column from which on a matrix may be packed.
const FAR: usize = 1 << 10;
/// Bytes that a column of a block may reach over before it is packed: a page for each entry of a small first-level TLB.
const PAGES: usize = 64 << 12;
/// Rows up to which turning columns of `b` to rows costs more than it saves.
const SKINNY: usize = 8;
/// Panels of columns that `a` is worth packing for.
const MANY: usize = 3;

/// A matrix to read: distances are in elements.
#[derive(Clone, Copy)]
pub(super) struct Matrix<T> {
    pub(super) data: *const T,
    pub(super) row: isize,
    pub(super) column: isize,
}

impl<T> Matrix<T> {
    pub(super) fn at(self, i: usize, j: usize) -> *const T {
        self.data.wrapping_offset(i as isize * self.row + j as isize * self.column)
    }

    /// Whether neighbours in a column are so far apart that so many of them are in too many pages.
    fn is_far(&self, depth: usize) -> bool {
        let apart = self.row.unsigned_abs() * size_of::<T>();
        apart >= FAR && apart * depth > PAGES
    }
}

/// `c += a b`, or `c = a b` where `c` is fresh; `c` is `m` by `n`, and neighbours in a row of it are neighbours in memory.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, T> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) c: *mut T,
    pub(super) c_row: isize,
    pub(super) fresh: bool,
    pub(super) a: Matrix<T>,
    pub(super) b: Matrix<T>,
    /// The dims that count rows of `b` outside of those that its distance counts, outermost first; where there are some, neighbours in a
    /// row are neighbours in memory.
    pub(super) outer: &'a [Dim],
}

impl<T> Product<'_, T> {
    /// Where rows of `b` are.
    fn rows(&self, from: usize, to: usize, offsets: &mut Vec<isize>) {
        offsets.clear();
        let outer: usize = self.outer.iter().map(|d| d.extent as usize).product();
        let inner = (self.k / outer.max(1)).max(1);
        // What each of the dims has counted to.
        let mut rest = from / inner;
        let mut counts: SmallVec<[i64; 4]> = self.outer.iter().map(|_| 0).collect();
        for (count, d) in counts.iter_mut().zip(self.outer).rev() {
            *count = (rest % d.extent as usize) as i64;
            rest /= d.extent as usize;
        }
        let mut at = from;
        while at < to {
            let start = at % inner;
            let end = inner.min(start + to - at);
            let first: i64 = counts.iter().zip(self.outer).map(|(count, d)| count * d.stride).sum();
            offsets.extend((start..end).map(|k| first as isize + k as isize * self.b.row));
            at += end - start;
            for (count, d) in counts.iter_mut().zip(self.outer).rev() {
                *count += 1;
                if *count < d.extent {
                    break;
                }
                *count = 0;
            }
        }
    }
}

/// Rows of a panel that are contracted at once: the rows of `b` are as far apart as it says.
pub(super) struct Group<T> {
    k: usize,
    c: *mut T,
    c_row: isize,
    fresh: bool,
    a: Matrix<T>,
    b: *const T,
    b_row: isize,
    /// Where the rows are that [`COPY`] copies, or [`ASK`] asks for.
    rows: *const isize,
    /// Columns of the last vector.
    last: usize,
    /// Where [`COPY`] writes the rows of `b`, one after the other.
    copy: *mut T,
    /// From where [`ASK`] counts the rows that it asks for.
    ahead: *const T,
}

/// What a group does while it contracts: nothing else,
pub(super) const PLAIN: u8 = 0;
/// or it copies the rows of `b`,
pub(super) const COPY: u8 = 1;
/// or it asks for half as many rows of what comes next.
pub(super) const ASK: u8 = 2;

/// A function that contracts a [`Group`] of so many rows and vectors, and does something beside.
pub(super) type Kernel<T> = unsafe fn(&Group<T>);

/// Writes a body once for each row, so that all of them are in registers.
macro_rules! rows {
    ($rows:ident, |$r:ident| $body:block) => { rows!(@ $rows $r $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13) };
    (@ $rows:ident $r:ident $body:block $($i:literal)*) => {$(
        if $i < $rows {
            let $r: usize = $i;
            $body
        }
    )*};
}

/// Contracts a group of `R` rows of `V` vectors.
#[inline(always)]
pub(super) unsafe fn group<X: Vector, const R: usize, const V: usize, const BESIDE: u8>(g: &Group<X::Element>) {
    // SAFETY: by the caller's contract: all that the group's extents reach is valid.
    unsafe {
        let part = X::part(g.last);
        let mut sums = [[X::splat(X::Element::default()); V]; R];
        // Three rows share an address: with one for all, or one for each, the code would compute them one from the other.
        let mut rows = [g.a.data; MOST_ROWS / 3 + 1];
        rows!(R, |r| {
            if r.is_multiple_of(3) {
                rows[r / 3] = black_box(g.a.at(r, 0));
            }
        });
        let (mut b, mut at, mut copy) = (g.b, g.rows, g.copy);
        macro_rules! step {
            () => {
                let mut columns = [X::splat(X::Element::default()); V];
                if BESIDE == COPY {
                    b = g.b.wrapping_offset(*at);
                    at = at.wrapping_add(1);
                }
                for (v, column) in columns.iter_mut().enumerate() {
                    let from = b.wrapping_add(v * X::LANES);
                    *column = if v + 1 == V { X::load_part(from, part) } else { X::load(from) };
                    if BESIDE == COPY {
                        X::store(copy.wrapping_add(v * X::LANES), *column);
                    }
                }
                rows!(R, |r| {
                    let x = X::splat(*rows[r / 3].wrapping_offset((r % 3) as isize * g.a.row));
                    for (sum, &column) in sums[r].iter_mut().zip(&columns) {
                        *sum = X::mul_add(x, column, *sum);
                    }
                });
                rows!(R, |r| {
                    if r.is_multiple_of(3) {
                        rows[r / 3] = rows[r / 3].wrapping_offset(g.a.column);
                    }
                });
                if BESIDE != COPY {
                    b = b.wrapping_offset(g.b_row);
                }
                copy = copy.wrapping_add(V * X::LANES);
            };
        }
        if BESIDE == ASK {
            if g.k % 2 == 1 {
                step!();
            }
            for _ in 0..g.k / 2 {
                let row = g.ahead.wrapping_offset(*at);
                at = at.wrapping_add(1);
                // One line more, since rows may begin within one.
                for v in 0..=V {
                    X::ask(row.wrapping_add(v * X::LANES));
                }
                step!();
                step!();
            }
        } else {
            for _ in 0..g.k {
                step!();
            }
        }
        rows!(R, |r| {
            let row = g.c.wrapping_offset(r as isize * g.c_row);
            for (v, &sum) in sums[r].iter().enumerate() {
                let to = row.wrapping_add(v * X::LANES);
                match (v + 1 == V, g.fresh) {
                    (true, true) => X::store_part(to, part, sum),
                    (true, false) => X::store_part(to, part, X::add(X::load_part(to, part), sum)),
                    (false, true) => X::store(to, sum),
                    (false, false) => X::store(to, X::add(X::load(to), sum)),
                }
            }
        });
    }
}

/// A cache line: packed panels begin at one.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(super) struct Line {
    _bytes: [u8; 64],
}

thread_local! {
    /// Space for a packed panel of `b` and the packed groups of `a`, kept by each thread.
    static SPACE: [RefCell<Vec<Line>>; 2] = const { [const { RefCell::new(Vec::new()) }; 2] };
    /// Where rows of `b` are.
    static ROWS: RefCell<Vec<isize>> = const { RefCell::new(Vec::new()) };
}

/// Multiplies, with kernels for these numbers of rows and vectors.
///
/// # Safety
/// All elements that the extents and distances reach must lie in valid memory, those of the result apart from the
/// operands', and the machine must have the kernels' instructions.
#[inline(always)]
pub(super) unsafe fn multiply<X: Vector>(
    p: &Product<'_, X::Element>,
    kernel: fn(usize, usize, u8) -> Kernel<X::Element>,
) {
    if p.a.column == 1 && p.b.row == 1 && p.b.column != 1 && p.m <= SKINNY {
        // SAFETY: by the caller's contract.
        return unsafe { inner_products::<X>(p) };
    }
    let widest = [8, 4].into_iter().find(|v| p.m <= rows_of::<X>(*v)).unwrap_or(2);
    let panel = widest * X::LANES;
    let groups = p.m.div_ceil(rows_of::<X>(widest));
    let rows = |i: usize| (p.m * i / groups, p.m * (i + 1) / groups);
    let group_width = p.m.div_ceil(groups).next_multiple_of(X::LANES);
    let blocks = p.k.div_ceil(DEPTH);
    let [mut packed_a, mut packed_b] = SPACE.with(|s| [s[0].take(), s[1].take()]);
    let mut offsets = ROWS.take();
    for block in 0..blocks {
        let (from, to) = (p.k * block / blocks, p.k * (block + 1) / blocks);
        let depth = to - from;
        let mut a = Matrix { data: p.a.at(0, from), ..p.a };
        let turned = Matrix { data: a.data, row: a.column, column: a.row };
        let pack_a = p.n >= MANY * panel && turned.column == 1 && turned.is_far(depth);
        if pack_a {
            let to: *mut X::Element = reserve(&mut packed_a, groups * depth * group_width);
            for i in 0..groups {
                let (first, end) = rows(i);
                let group = Matrix { data: turned.at(0, first), ..turned };
                // SAFETY: the space was made for all groups.
                unsafe { pack::<X>(group, depth, end - first, to.add(i * depth * group_width), group_width) };
            }
            a = Matrix { data: to, row: 1, column: group_width as isize };
        }
        // Rows of this block and of the next one.
        let far = !p.outer.is_empty() || p.b.column == 1 && p.b.is_far(depth);
        let copied = far && (!p.outer.is_empty() || groups > 1);
        if far {
            p.rows(from, (to + depth).min(p.k), &mut offsets);
        }
        let mut j = 0;
        while j < p.n {
            let mut vectors = widest;
            while vectors > 1 && (vectors - 1) * X::LANES >= p.n - j {
                vectors /= 2;
            }
            let width = vectors * X::LANES;
            let columns = width.min(p.n - j);
            let b = Matrix { data: p.b.at(from, j), ..p.b };
            let space: *mut X::Element = reserve(&mut packed_b, depth * width);
            if b.column != 1 {
                // SAFETY: the space was made for the panel.
                unsafe { pack::<X>(b, depth, columns, space, width) };
            }
            // The rows that come next, and their first column.
            let (next, column) = if j + columns < p.n { (0, j + columns) } else { (depth, 0) };
            // The first group waits for what it copies; those that ask have nothing to wait for.
            let known = far && next + depth / 2 * 2 <= offsets.len();
            let asking = if known { usize::from(groups > 1)..groups.min(3) } else { 0..0 };
            for i in 0..groups {
                let (first, end) = rows(i);
                let start = if pack_a { a.data.wrapping_add(i * depth * group_width) } else { a.at(first, 0) };
                let packed = b.column != 1 || copied && i > 0;
                let beside = match i {
                    0 if copied => COPY,
                    i if asking.contains(&i) => ASK,
                    _ => PLAIN,
                };
                let g = Group {
                    k: depth,
                    c: p.c.wrapping_offset(first as isize * p.c_row).wrapping_add(j),
                    c_row: p.c_row,
                    fresh: p.fresh && block == 0,
                    a: Matrix { data: start, ..a },
                    b: if packed {
                        space.cast_const()
                    } else if copied {
                        p.b.at(0, j)
                    } else {
                        b.data
                    },
                    b_row: if packed { width as isize } else { b.row },
                    rows: match beside {
                        ASK => offsets.as_ptr().wrapping_add(next + (i - asking.start) * (depth / 2)),
                        _ => offsets.as_ptr(),
                    },
                    last: columns - (vectors - 1) * X::LANES,
                    copy: space,
                    ahead: p.b.at(0, column),
                };
                // SAFETY: by the caller's contract.
                unsafe { kernel(end - first, vectors, beside)(&g) };
            }
            j += columns;
        }
    }
    SPACE.with(|s| {
        s[0].replace(packed_a);
        s[1].replace(packed_b);
    });
    ROWS.set(offsets);
}

/// Rows of a group whose results are so many vectors each.
const fn rows_of<X: Vector>(vectors: usize) -> usize {
    // The registers that two vectors of results a row leave: the panel's two, and a number of `a`.
    let registers = 2 * X::ROWS + 2;
    (registers - vectors) / vectors
}

/// Few rows of `a` times columns of `b` that lie as such: each element is a sum along both, and nothing is packed.
#[inline(always)]
unsafe fn inner_products<X: Vector>(p: &Product<'_, X::Element>) {
    const COLUMNS: usize = 4;
    let zero = X::Element::default();
    // SAFETY: by the caller's contract.
    unsafe {
        let (whole, part) = (p.k / X::LANES * X::LANES, X::part(p.k % X::LANES));
        for j in (0..p.n).step_by(COLUMNS) {
            // Columns beyond the last are the last one again.
            let column = |c: usize| p.b.at(0, (j + c).min(p.n - 1));
            for i in 0..p.m {
                let a = p.a.at(i, 0);
                let mut sums = [X::splat(zero); COLUMNS];
                for k in (0..whole).step_by(X::LANES) {
                    let x = X::load(a.add(k));
                    for (c, sum) in sums.iter_mut().enumerate() {
                        *sum = X::mul_add(x, X::load(column(c).add(k)), *sum);
                    }
                }
                if whole < p.k {
                    let x = X::load_part(a.add(whole), part);
                    for (c, sum) in sums.iter_mut().enumerate() {
                        *sum = X::mul_add(x, X::load_part(column(c).add(whole), part), *sum);
                    }
                }
                for (c, sum) in sums.into_iter().enumerate().take(p.n - j) {
                    let to = p.c.wrapping_offset(i as isize * p.c_row).wrapping_add(j + c);
                    *to = if p.fresh { X::sum(sum) } else { *to + X::sum(sum) };
                }
            }
        }
    }
}

/// Space for so many numbers.
pub(super) fn reserve<T>(space: &mut Vec<Line>, numbers: usize) -> *mut T {
    let lines = (numbers * size_of::<T>()).div_ceil(size_of::<Line>());
    if space.len() < lines {
        space.resize(lines, Line { _bytes: [0; 64] });
    }
    space.as_mut_ptr().cast()
}

/// Copies a panel of columns, each row of it to `width` numbers; what no column stands for is zero.
#[inline(always)]
unsafe fn pack<X: Vector>(b: Matrix<X::Element>, depth: usize, columns: usize, to: *mut X::Element, width: usize) {
    // SAFETY: by the caller's contract, as all here.
    unsafe {
        if b.column == 1 {
            let (whole, part) = (columns / X::LANES * X::LANES, X::part(columns % X::LANES));
            for k in 0..depth {
                let (from, to) = (b.at(k, 0), to.add(k * width));
                for v in (0..whole).step_by(X::LANES) {
                    X::store(to.add(v), X::load(from.add(v)));
                }
                if whole < width {
                    X::store(to.add(whole), X::load_part(from.add(whole), part));
                }
            }
            return;
        }
        let (side, turned) = (X::SQUARE, if b.row == 1 { columns / X::SQUARE * X::SQUARE } else { 0 });
        let deep = depth / side * side;
        for j in (0..turned).step_by(side) {
            for k in (0..deep).step_by(side) {
                X::turn(b.at(k, j), b.column, to.add(k * width + j), width);
            }
        }
        for k in 0..depth {
            let known = if k < deep { turned } else { 0 };
            for j in known..width {
                *to.add(k * width + j) = if j < columns { *b.at(k, j) } else { X::Element::default() };
            }
        }
    }
}
