//! Rounding in the reference evaluator, and the random movement by which it measures what rounding can do to a program.
//!
//! A primitive computes in `f64`; what then happens to the result is a [`Rounding`]. [`Nearest`] is the meaning of the IR.
//! [`Moved`] adds a random amount within the primitive's stated error and does not round, so that a spread is never hidden by
//! values that happen to round alike. Amounts are at least half of what is allowed, and runs come in pairs of opposite signs:
//! the runs then never agree by chance. Movements of operations in a row may cancel, as where both raise and the second is a
//! falling function. So three of the pairs draw the same signs, but one of them turns the signs of every other operation in a
//! row, one those of every other two: movements of two or three operations that cancel in one pair add up in another.
//! Movements side by side, as of both sums of a ratio, have no such order, and cancel in every pair where their signs happen to
//! be alike. So the other pairs draw signs of their own, and all pairs amounts of their own: that all eight leave less than a
//! tenth of what is allowed happens once in some hundred thousand times.
//!
//! What every right evaluator gives alike is not moved: results of correctly rounded operations on operands that no earlier
//! movement has reached, zeros, infinities, NaN, and sums of integers that stay exact.
//!
//! **Sums.** Adding n numbers in any order errs by at most `(n - 1) u S`, where `u` is half the spacing at 1 and `S` the sum of
//! magnitudes. No back end comes near: they keep many accumulators a row and combine fixed chunks pairwise, and the bound of
//! pairwise summation is `log2(n) u S`. A sum is moved by up to `(1 + log2 n) u S`; the one more is for products that were
//! rounded before they were added, as is half the smallest number for each product that may have underflowed. The tolerance
//! is 16 times what that causes, which leaves room for runs of some ten thousand additions in one accumulator, whose errors
//! grow as the root of their number. Where terms are alike they grow faster, always rounding the same way: what one
//! accumulator over all terms is off by is looked at too, and a sum is moved by up to half of that.
//!
//! **Subnormals.** Machines that multiply matrices of `bf16` take subnormal operands for zeros, and lose products and sums that are
//! subnormal. So of contractions of what was `bf16`, one run leaves out the former, and one the latter too.
//!
//! Where a sum is so small beside its terms that all its digits may be lost, 0 may come out as well. Functions turn there (a
//! square, an absolute value), so that numbers on both sides of it do not show what becomes of it: one run takes 0.

use crate::DType;
use crate::splitmix::SplitMix;
use std::rc::Rc;

/// What becomes of the exact results of primitives.
pub(crate) trait Rounding {
    /// The result of an elementwise operation that is accurate to `ulps` units in the last place.
    fn rounded(&mut self, dtype: DType, exact: f64, ulps: f64) -> f64;

    /// The sum of floats; the terms of a contraction are `products`, exact in `f64`.
    fn sum(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>, products: bool) -> f64;

    /// The product of floats.
    fn product(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>) -> f64;

    /// One of two results that are both right; the first is the reference's.
    fn either(&mut self, reference: f64, other: f64) -> f64;

    /// Below which magnitudes a contraction takes factors, and products of them, for zeros.
    fn lost(&self) -> Lost {
        Lost::default()
    }
}

/// Magnitudes below which numbers count as zeros.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lost {
    pub(crate) factors: f64,
    pub(crate) products: f64,
}

impl Lost {
    /// The product of two factors.
    pub(crate) fn product(self, a: f64, b: f64) -> f64 {
        let kept = |x: f64, least: f64| if x.abs() < least { 0.0 * x } else { x };
        kept(kept(a, self.factors) * kept(b, self.factors), self.products)
    }
}

/// Rounds to nearest, sums once at their end.
pub(crate) struct Nearest;

impl Rounding for Nearest {
    fn rounded(&mut self, dtype: DType, exact: f64, _: f64) -> f64 {
        round(dtype, exact)
    }

    fn sum(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>, _: bool) -> f64 {
        round(dtype, terms.fold(0.0, |sum, x| sum + x))
    }

    fn product(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>) -> f64 {
        round(dtype, terms.fold(1.0, |product, x| product * x))
    }

    fn either(&mut self, reference: f64, _: f64) -> f64 {
        reference
    }
}

/// Rounds to nearest, and notes the exact results: the moved runs ask which of theirs are the same.
#[derive(Default)]
pub(crate) struct Recorded(pub Vec<f64>);

impl Rounding for Recorded {
    fn rounded(&mut self, dtype: DType, exact: f64, ulps: f64) -> f64 {
        self.0.push(exact);
        Nearest.rounded(dtype, exact, ulps)
    }

    /// Notes by how much one accumulator over all terms is off: moved terms differ, and would not show how alike these are.
    fn sum(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>, products: bool) -> f64 {
        let mut accumulator = 0.0;
        let mut noted = terms.inspect(|x| accumulator = round(dtype, accumulator + x));
        let sum = Nearest.sum(dtype, &mut noted, products);
        self.0.push((accumulator - sum).abs());
        sum
    }

    fn product(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>) -> f64 {
        self.0.push(f64::NAN);
        Nearest.product(dtype, terms)
    }

    fn either(&mut self, reference: f64, other: f64) -> f64 {
        Nearest.either(reference, other)
    }
}

/// The bits of an operation's number in a row that turn the signs in the first pairs of runs, which draw the same ones; all
/// further pairs draw signs of their own.
const TURNS: [u32; 3] = [0, 1, 2];

/// Moves results.
#[derive(Clone)]
pub(crate) struct Moved {
    run: usize,
    signs: SplitMix,
    amounts: SplitMix,
    nominal: Rc<[f64]>,
    at: usize,
    /// The number of the operation among those in a row.
    depth: u32,
    /// Whether subnormals may be lost.
    flushes: bool,
}

impl Moved {
    /// The run of this number: 2k and 2k + 1 move by opposite amounts.
    pub(crate) fn new(seed: u64, run: usize) -> Moved {
        let pair = run / 2;
        let stream = |number: usize| SplitMix::new(seed ^ ((number as u64) << 32));
        let signs = stream(if pair < TURNS.len() { 0 } else { 2 * pair });
        let amounts = stream(2 * pair + 1);
        Moved { run, signs, amounts, nominal: Rc::from([]), at: 0, depth: 0, flushes: false }
    }

    /// Starts an operation, the `depth`th in a row, whose exact results in the run that is not moved are these; it may lose
    /// subnormals where it `flushes`.
    pub(crate) fn start(&mut self, nominal: Rc<[f64]>, depth: u32, flushes: bool) {
        (self.nominal, self.at, self.depth, self.flushes) = (nominal, 0, depth, flushes);
    }

    fn opposite(&self) -> bool {
        self.run % 2 == 1
    }

    /// A number in (-1, -1/2] or [1/2, 1).
    fn draw(&mut self) -> f64 {
        let turned = TURNS.get(self.run / 2).is_some_and(|turns| self.depth & turns != 0);
        let v = (0.5 + self.amounts.signed().abs() / 2.0).copysign(self.signs.signed());
        if self.opposite() ^ turned { -v } else { v }
    }
}

impl Rounding for Moved {
    fn rounded(&mut self, dtype: DType, exact: f64, ulps: f64) -> f64 {
        let nominal = self.nominal.get(self.at).copied();
        self.at += 1;
        let ulps = stated(dtype, ulps);
        let amount = self.draw() * ulps * spacing(dtype, exact) * whole_units(dtype);
        let untouched = ulps <= 0.5 && nominal.map(f64::to_bits) == Some(exact.to_bits());
        let vanishes = exact.abs() < spacing(dtype, 0.0) / 8.0;
        if untouched || vanishes || !exact.is_finite() {
            return round(dtype, exact);
        }
        if ulps == 0.0 {
            return exact;
        }
        let moved = exact + amount;
        // No function here crosses zero by an error: exp of a very negative number stays at least 0.
        overflowed(dtype, if moved * exact < 0.0 { 0.0 * exact } else { moved })
    }

    fn sum(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>, products: bool) -> f64 {
        let (mut n, mut total, mut magnitude) = (0.0f64, 0.0, 0.0);
        let (mut integers, mut negative_zeros) = (true, true);
        for x in terms {
            n += 1.0;
            total += x;
            magnitude += if x.is_finite() { x.abs() } else { 0.0 };
            integers &= x.fract() == 0.0;
            negative_zeros &= x == 0.0 && x.is_sign_negative();
        }
        let pairwise = (1.0 + n.log2()) * unit_roundoff(dtype) * magnitude;
        let alike = self.nominal.get(self.at).copied().filter(|e| e.is_finite()).unwrap_or(0.0) / 2.0;
        self.at += 1;
        let amount = self.draw();
        if n > 0.0 && negative_zeros {
            return if self.opposite() { -0.0 } else { 0.0 };
        }
        let underflow = if products { n * spacing(dtype, 0.0) / 2.0 } else { 0.0 };
        let reach = (pairwise.max(alike) + underflow) * whole_units(dtype);
        let lost = self.run == 2 * TURNS.len() && total.abs() <= reach;
        let moved = if lost { 0.0 } else { total + amount * reach };
        // In another order a partial sum may overflow, and then anything comes out: the runs show all that may.
        if !round(dtype, magnitude).is_finite() {
            return [overflowed(dtype, moved), f64::NAN, f64::INFINITY, f64::NEG_INFINITY][self.run % 4];
        }
        let exact = integers && magnitude * unit_roundoff(dtype) <= 1.0;
        let untouched = n == 0.0 || (n == 1.0 && !products);
        overflowed(dtype, if exact || untouched || !total.is_finite() { total } else { moved })
    }

    /// Each factor after the first rounds once. Where factors of one kind alone leave the dtype's range, the order decides
    /// what comes out.
    fn product(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>) -> f64 {
        let (mut n, mut total, mut large, mut small, mut integers) = (0.0f64, 1.0, 1.0f64, 1.0f64, true);
        for x in terms {
            n += 1.0;
            total *= x;
            let magnitude = x.abs();
            if magnitude > 1.0 && magnitude.is_finite() {
                large *= magnitude;
            } else if magnitude > 0.0 && magnitude < 1.0 {
                small *= magnitude;
            }
            integers &= x.fract() == 0.0;
        }
        let moved = self.rounded(dtype, total, 0.5 * n.max(1.0));
        let tiny = small < 1.0 && small < spacing(dtype, 0.0) / unit_roundoff(dtype);
        if !round(dtype, large).is_finite() || tiny {
            return [moved, f64::NAN, f64::INFINITY, f64::NEG_INFINITY][self.run % 4];
        }
        let exact = integers && large * unit_roundoff(dtype) <= 1.0;
        if exact || n <= 1.0 { round(dtype, total) } else { moved }
    }

    fn either(&mut self, reference: f64, other: f64) -> f64 {
        if self.opposite() { other } else { reference }
    }

    fn lost(&self) -> Lost {
        let normal = f64::from(f32::MIN_POSITIVE);
        match self.run.checked_sub(2 * TURNS.len()) {
            Some(1) if self.flushes => Lost { factors: normal, products: 0.0 },
            // Where larger products cancel, so do sums of them.
            Some(2) if self.flushes => Lost { factors: normal, products: 64.0 * normal },
            _ => Lost::default(),
        }
    }
}

/// The error of an operation in units of its result's dtype. Halves are computed in `f32` and rounded once, so that all of an
/// error but half a unit is that of the `f32`.
fn stated(dtype: DType, ulps: f64) -> f64 {
    match dtype {
        DType::F16 if ulps > 0.5 => 0.5 + ulps / 8192.0,
        DType::BF16 if ulps > 0.5 => 0.5 + ulps / 65536.0,
        _ => ulps,
    }
}

/// What movements are multiplied by. Runs hold numbers as `f64`, which has no digits for parts of a unit of its own: a movement of
/// an `f64` by less than a few units would round to none, or to the same one in all runs.
fn whole_units(dtype: DType) -> f64 {
    if dtype == DType::F64 { 4.0 } else { 1.0 }
}

/// The nearest value of a dtype.
pub(crate) fn round(dtype: DType, v: f64) -> f64 {
    dtype.round(v)
}

/// The value itself, or the infinity that it is in this dtype.
fn overflowed(dtype: DType, v: f64) -> f64 {
    let rounded = round(dtype, v);
    if rounded.is_finite() { v } else { rounded }
}

/// Half the distance between 1 and the next number of a dtype; 0 for exact ones.
fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1.0 / 2048.0,
        DType::BF16 => 1.0 / 256.0,
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::F64 => f64::EPSILON / 2.0,
        DType::Bool | DType::U8 | DType::I32 | DType::I64 => 0.0,
    }
}

/// One unit in the last place: the distance from `v`, rounded, to the next number of the dtype away from zero.
pub(crate) fn spacing(dtype: DType, v: f64) -> f64 {
    // The exponents of the smallest number and of the unit at 1, and the largest number.
    let (smallest, unit, largest) = match dtype {
        DType::F16 => (-24, -10, 65504.0),
        DType::BF16 => (-133, -7, f64::from(half::bf16::MAX)),
        DType::F32 => (-149, -23, f64::from(f32::MAX)),
        DType::F64 => {
            let magnitude = v.abs().min(f64::MAX.next_down());
            return magnitude.next_up() - magnitude;
        }
        DType::Bool | DType::U8 | DType::I32 | DType::I64 => return 0.0,
    };
    let magnitude = round(dtype, v.abs().min(largest)).min(largest);
    let exponent = if magnitude == 0.0 { smallest } else { libm::ilogb(magnitude) + unit };
    libm::ldexp(1.0, exponent.max(smallest))
}

pub(crate) use emulated::Emulated;

mod emulated {
    use super::*;

    /// Rounds as a real back end might: functions are off within their stated error, sums run in some order.
    pub(crate) struct Emulated(SplitMix);

    impl Emulated {
        pub(crate) fn new(seed: u64) -> Emulated {
            Emulated(SplitMix::new(seed))
        }
    }

    impl Rounding for Emulated {
        fn rounded(&mut self, dtype: DType, exact: f64, ulps: f64) -> f64 {
            let error = (stated(dtype, ulps) - 0.5).max(0.0) * spacing(dtype, exact).min(exact.abs());
            let moved = exact + self.0.signed() * error;
            round(dtype, if exact.is_finite() && ulps > 0.5 { moved } else { exact })
        }

        fn sum(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>, _: bool) -> f64 {
            let mut lanes = vec![0.0; 1 << self.0.below(5)];
            let mut terms: Vec<f64> = terms.collect();
            if self.0.once_in(2) {
                self.0.shuffle(&mut terms);
            }
            let fused = self.0.once_in(2);
            for (i, x) in terms.into_iter().enumerate() {
                let n = lanes.len();
                let lane = &mut lanes[i % n];
                *lane = round(dtype, *lane + if fused { x } else { round(dtype, x) });
            }
            lanes.into_iter().reduce(|a, b| round(dtype, a + b)).unwrap_or(0.0)
        }

        fn product(&mut self, dtype: DType, terms: &mut dyn Iterator<Item = f64>) -> f64 {
            let mut terms: Vec<f64> = terms.collect();
            if self.0.once_in(2) {
                self.0.shuffle(&mut terms);
            }
            terms.into_iter().fold(1.0, |product, x| round(dtype, product * x))
        }

        fn either(&mut self, reference: f64, other: f64) -> f64 {
            if self.0.once_in(2) { reference } else { other }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::MOVED;
    use super::*;

    fn moved(run: usize, nominal: f64, exact: f64, ulps: f64) -> f64 {
        let mut m = Moved::new(7, run);
        m.start(Rc::from([nominal]), 0, false);
        m.rounded(DType::F32, exact, ulps)
    }

    #[test]
    fn what_all_evaluators_give_alike_is_not_moved() {
        let third = 1.0 / 3.0;
        assert_eq!(moved(0, third, third, 0.5), f64::from(third as f32));
        for v in [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e-60] {
            assert_eq!(moved(0, 1.0, v, 2.0).to_bits(), round(DType::F32, v).to_bits(), "{v}");
        }
        assert!(moved(0, 1.0, f64::NAN, 2.0).is_nan());
        let sum = |terms: &[f64]| Moved::new(7, 1).sum(DType::F32, &mut terms.iter().copied(), false);
        assert_eq!(sum(&[1.0, 2.0, 16_777_212.0]), 16_777_215.0);
        assert_ne!(sum(&[1.0, 2.0, 16_777_215.0]), 16_777_218.0);
        assert_eq!(sum(&[0.1]), 0.1);
        assert!(sum(&[3e38, 3e38, -3e38]).is_nan());
    }

    #[test]
    fn movement_has_a_least_amount_and_comes_in_pairs() {
        for (nominal, exact, ulps) in [(1.0, 1.0, 1.5), (0.3, 0.4, 0.5)] {
            let by = |run| moved(run, nominal, exact, ulps) - exact;
            let unit = spacing(DType::F32, exact);
            assert!(by(0).abs() >= 0.49 * ulps * unit && by(0).abs() <= ulps * unit);
            assert!((by(0) + by(1)).abs() < 1e-6 * unit && by(0) != by(2));
        }
        assert!(moved(0, 1.0, 1e-45, 3.0) >= 0.0 && moved(1, 1.0, 1e-45, 3.0) >= 0.0);
        assert!(moved(0, 1.0, 1e39, 0.5) == f64::INFINITY);
    }

    /// A ratio of two sums is moved by the difference of their movements: chance must not make that small in all runs.
    #[test]
    fn movements_side_by_side_hardly_ever_agree_in_all_runs() {
        const TRIES: usize = 200_000;
        let terms = [0.1; 4];
        let mut movers: Vec<Moved> = (0..MOVED).map(|run| Moved::new(7, run)).collect();
        movers.iter_mut().for_each(|m| m.start(Rc::from([]), 2, false));
        let mut sums = || movers.iter_mut().map(|m| m.sum(DType::F32, &mut terms.iter().copied(), false)).collect();
        let reach = 3.0 * unit_roundoff(DType::F32) * 0.4;
        let close = |_: &usize| {
            let (a, b): (Vec<f64>, Vec<f64>) = (sums(), sums());
            a.iter().zip(&b).all(|(a, b)| (a - b).abs() < reach / 10.0)
        };
        let close = (0..TRIES).filter(close).count();
        assert!(close < TRIES / 20_000, "{close} of {TRIES}");
    }

    #[test]
    fn spacing_is_that_away_from_zero() {
        assert_eq!(spacing(DType::F32, 1.0), f64::from(f32::EPSILON));
        assert_eq!(spacing(DType::F32, -1.5), f64::from(f32::EPSILON));
        assert_eq!(spacing(DType::F32, 0.0), f64::from(f32::from_bits(1)));
        assert!(spacing(DType::F32, f64::INFINITY).is_finite());
    }
}
