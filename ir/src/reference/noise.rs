//! Rounding of the reference evaluator, and the random movement by which it measures what rounding can do to a program.
//!
//! A primitive's result is computed in `f64` and rounded to its dtype. In a *moved* run it is first moved by a random amount
//! within the primitive's stated error. Exact results stay: the unit of movement of a power of two is the smaller spacing
//! below it, so half a unit rounds back.
//!
//! **Sums.** Adding n numbers in any order errs by at most `(n - 1) u S`, where `u` is half the spacing at 1 and `S` the sum of
//! magnitudes. No back end comes near: they keep many accumulators a row and combine fixed chunks pairwise, and the bound of
//! pairwise summation is `log2(n) u S`. A sum is moved by up to `(1 + log2 n) u S`; the one more is for products that were
//! rounded before they were added. The tolerance is 16 times what that causes, which leaves room for runs of up to some ten
//! thousand additions in one accumulator, whose errors grow as the root of their number.

use crate::DType;

/// What a run does to rounded results.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    run: u32,
    state: u64,
}

impl Noise {
    /// Rounds to nearest only.
    pub(crate) fn none() -> Noise {
        Noise { run: 0, state: 0 }
    }

    /// Moves results, as run number `run` (from 1) of a seed.
    pub(crate) fn seeded(seed: u64, run: u32) -> Noise {
        Noise { run, state: seed ^ u64::from(run).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// A number strictly between -1 and 1 (SplitMix64).
    fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / (1u64 << 52) as f64 - 1.0
    }

    /// The rounded result of an operation that is accurate to `ulps` units in the last place.
    pub(crate) fn rounded(&mut self, dtype: DType, exact: f64, ulps: f64) -> f64 {
        if self.run == 0 || ulps == 0.0 || exact == 0.0 || !exact.is_finite() {
            return round(dtype, exact);
        }
        let moved = exact + self.next() * ulps * spacing(dtype, exact);
        // No function here crosses zero by an error: exp of a very negative number stays at least 0.
        round(dtype, if moved * exact < 0.0 { 0.0 * exact } else { moved })
    }

    /// The rounded result of a sum of `count` numbers whose magnitudes sum to `magnitude`.
    pub(crate) fn sum(&mut self, dtype: DType, exact: f64, count: usize, magnitude: f64) -> f64 {
        if self.run == 0 || count == 0 || !exact.is_finite() {
            return round(dtype, exact);
        }
        // In another order a partial sum may overflow: such an element must come out differently in some run.
        if !round(dtype, magnitude).is_finite() && !self.run.is_multiple_of(2) {
            return f64::NAN;
        }
        let amount = (1.0 + (count as f64).log2()) * unit_roundoff(dtype) * magnitude;
        round(dtype, exact + self.next() * amount)
    }
}

/// The nearest value of a dtype.
pub(crate) fn round(dtype: DType, v: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(v as f32),
        DType::Bool | DType::I64 => v,
    }
}

/// Half the distance between 1 and the next number of a dtype; 0 for exact ones.
fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::Bool | DType::I64 => 0.0,
    }
}

/// The distance from `v` to the next number of the dtype towards zero: one unit in the last place.
pub(crate) fn spacing(dtype: DType, v: f64) -> f64 {
    match dtype {
        DType::F32 => {
            let magnitude = (v.abs().min(f64::from(f32::MAX))) as f32;
            let below = f32::from_bits(magnitude.to_bits().saturating_sub(1));
            (f64::from(magnitude) - f64::from(below)).max(f64::from(f32::from_bits(1)))
        }
        DType::Bool | DType::I64 => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_results_are_not_moved_and_others_go_both_ways() {
        let mut noise = Noise::seeded(7, 1);
        for v in [1.0, -2.0, 3.0, f64::from(f32::MIN_POSITIVE), f64::INFINITY, -0.0] {
            assert!((0..100).all(|_| noise.rounded(DType::F32, v, 0.5).to_bits() == v.to_bits()), "{v}");
        }
        let third: Vec<f64> = (0..100).map(|_| noise.rounded(DType::F32, 1.0 / 3.0, 0.5)).collect();
        assert!(third.iter().any(|v| *v < 1.0 / 3.0) && third.iter().any(|v| *v > 1.0 / 3.0));
        assert!((0..100).all(|_| noise.rounded(DType::F32, 1e-45, 2.0) >= 0.0));
        assert_eq!(Noise::none().rounded(DType::F32, 1.0 / 3.0, 2.0), f64::from(1.0f32 / 3.0));
    }

    #[test]
    fn spacing_is_that_below() {
        assert_eq!(spacing(DType::F32, 1.0), f64::from(f32::EPSILON) / 2.0);
        assert_eq!(spacing(DType::F32, -1.5), f64::from(f32::EPSILON));
        assert_eq!(spacing(DType::F32, 0.0), f64::from(f32::from_bits(1)));
        assert!(spacing(DType::F32, f64::INFINITY).is_finite());
    }
}
