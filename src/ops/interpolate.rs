//! Images of other sizes: each dim is resampled by itself, as a sum of a few gathered lines with weights.

use crate::Tensor;
use crate::promotion::wide;
use lazuli_ir::{Error, ErrorKind, Result};

/// How [`Tensor::interpolate`] finds values between elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Interpolation {
    /// The element at `floor(i * scale)`.
    #[default]
    Nearest,
    /// The element whose centre is nearest.
    NearestExact,
    /// Between two neighbours a dim: linear, bilinear or trilinear, by the number of dims.
    Linear,
    /// By a cubic through four neighbours a dim.
    Cubic,
    /// The mean of the elements that an output covers.
    Area,
}

options! {
    /// What [`Tensor::interpolate`] takes: a size or a scale, and how.
    Interpolate {
        /// The extents of the result's dims behind batch and channels; one for all, or one for each.
        size: Option<Vec<usize>> = None,
        /// Or what they are multiplied by; one for all, or one for each.
        scale_factor: Option<Vec<f64>> = None,
        /// How values between elements are found.
        mode: Interpolation = Interpolation::Nearest,
        /// Whether the centres of the corner elements stay where they are, and not the corners themselves.
        align_corners: bool = false,
        /// Whether the scale is computed again from the extents it gave, which are whole numbers.
        recompute_scale_factor: bool = false,
    }
}

/// The lines that an output is made of: for each output as many indices and weights as there are taps.
struct Taps {
    index: Vec<Vec<i64>>,
    weight: Vec<Vec<f64>>,
}

/// Where an output lies in a dim of the input.
struct Grid {
    extent: usize,
    out: usize,
    /// The extent of an output in inputs.
    scale: f64,
    align_corners: bool,
}

impl Grid {
    /// The place of output `i`, in inputs.
    fn place(&self, i: usize) -> f64 {
        if self.align_corners { i as f64 * self.scale } else { (i as f64 + 0.5) * self.scale - 0.5 }
    }

    fn clamped(&self, i: i64) -> i64 {
        i.clamp(0, self.extent as i64 - 1)
    }

    fn nearest(&self, exact: bool) -> Taps {
        let shift = if exact { 0.5 } else { 0.0 };
        // In single precision, as PyTorch: where a place falls between two elements, it decides.
        let at = |i: usize| ((i as f32 + shift) * self.scale as f32).floor() as i64;
        Taps { index: vec![(0..self.out).map(|i| self.clamped(at(i))).collect()], weight: vec![vec![1.0; self.out]] }
    }

    fn linear(&self) -> Taps {
        let (mut index, mut weight) = (vec![Vec::new(), Vec::new()], vec![Vec::new(), Vec::new()]);
        for i in 0..self.out {
            let place = self.place(i).max(0.0);
            let low = self.clamped(place.floor() as i64);
            let share = (place - low as f64).clamp(0.0, 1.0);
            index[0].push(low);
            index[1].push(self.clamped(low + 1));
            weight[0].push(1.0 - share);
            weight[1].push(share);
        }
        Taps { index, weight }
    }

    fn cubic(&self) -> Taps {
        const A: f64 = -0.75;
        let inner = |d: f64| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
        let outer = |d: f64| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
        let (mut index, mut weight) = (vec![Vec::new(); 4], vec![Vec::new(); 4]);
        for i in 0..self.out {
            let place = self.place(i);
            let low = place.floor();
            let t = place - low;
            for (k, w) in [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)].into_iter().enumerate() {
                index[k].push(self.clamped(low as i64 + k as i64 - 1));
                weight[k].push(w);
            }
        }
        Taps { index, weight }
    }
}

impl Interpolate {
    /// The extents of the result's dims, and the scale of each where it was given.
    fn extents(&self, input: &[usize]) -> Result<Vec<(usize, Option<f64>)>> {
        let error = |message: &str| Err(Error::new(ErrorKind::Value, message));
        let n = input.len();
        let pick = |len: usize, i: usize| if len == 1 { 0 } else { i };
        match (&self.size, &self.scale_factor) {
            (Some(size), None) if size.len() == 1 || size.len() == n => {
                Ok((0..n).map(|i| (size[pick(size.len(), i)], None)).collect())
            }
            (None, Some(scale)) if scale.len() == 1 || scale.len() == n => {
                let extent = |i: usize| {
                    let factor = scale[pick(scale.len(), i)];
                    let out = (input[i] as f64 * factor).floor();
                    (out.max(0.0) as usize, Some(factor).filter(|_| !self.recompute_scale_factor))
                };
                Ok((0..n).map(extent).collect())
            }
            (Some(_), None) | (None, Some(_)) => error("takes one size or scale for all dims, or one for each"),
            _ => error("takes either a size or a scale"),
        }
    }
}

impl Tensor {
    /// `[batch, channels, ..]` with the dims behind the channels resampled to another size, or by a scale.
    ///
    /// # Errors
    /// Carried: fewer than 3 dims; not exactly one of size and scale; `align_corners` where it has no meaning; a tensor of
    /// integers or booleans, unless elements are only picked; an empty input or result.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[[1.0, 3.0]]]);
    /// let double = Interpolate { scale_factor: Some(vec![2.0]), mode: Interpolation::Linear, ..Default::default() };
    /// assert_eq!(x.interpolate(double).to_vec::<f32>()?, [1.0, 1.5, 2.5, 3.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn interpolate(&self, options: impl Into<Interpolate>) -> Tensor {
        const NAME: &str = "interpolate";
        let options = options.into();
        let picks = matches!(options.mode, Interpolation::Nearest | Interpolation::NearestExact);
        let x = if picks { self.clone() } else { or_failed!(self.floats(NAME)) };
        if self.rank() < 3 {
            let message = format!("takes [batch, channels, ..] of at least 3 dims, not {}", self.node.ty);
            return Tensor::fail(NAME, &[self], ErrorKind::Shape, message);
        }
        let interpolates = matches!(options.mode, Interpolation::Linear | Interpolation::Cubic);
        if options.align_corners && !interpolates {
            let message = "`align_corners` has a meaning for linear and cubic interpolation only";
            return Tensor::fail(NAME, &[self], ErrorKind::Value, message);
        }
        let input = self.extent_shape().extents();
        let outputs = ok!(NAME, &[self], options.extents(&input[2..]));
        if input[2..].contains(&0) || outputs.iter().any(|(n, _)| *n == 0) {
            return Tensor::fail(NAME, &[self], ErrorKind::Shape, "input and result have elements along each dim");
        }
        if options.mode == Interpolation::Area {
            let sizes: Vec<usize> = outputs.iter().map(|(n, _)| *n).collect();
            return x.evenly_averaged(NAME, &sizes).rounded(NAME, self.dtype(), &[self]);
        }
        let mut y = x;
        for (i, &(out, factor)) in outputs.iter().enumerate() {
            let extent = input[2 + i];
            let scale = if options.align_corners {
                if out > 1 { (extent - 1) as f64 / (out - 1) as f64 } else { 0.0 }
            } else {
                factor.map_or(extent as f64 / out as f64, |f| 1.0 / f)
            };
            let grid = Grid { extent, out, scale, align_corners: options.align_corners };
            let taps = match options.mode {
                Interpolation::Nearest => grid.nearest(false),
                Interpolation::NearestExact => grid.nearest(true),
                Interpolation::Linear => grid.linear(),
                Interpolation::Cubic | Interpolation::Area => grid.cubic(),
            };
            y = y.resampled(NAME, 2 + i, taps);
        }
        y.rounded(NAME, self.dtype(), &[self])
    }

    #[track_caller]
    fn resampled(&self, name: &'static str, axis: usize, taps: Taps) -> Tensor {
        let mut sum: Option<Tensor> = None;
        for (index, weight) in taps.index.into_iter().zip(taps.weight) {
            let n = index.len();
            let lines = self.lines(name, axis, &Tensor::table(index, [n]));
            let lines = if weight.iter().all(|w| *w == 1.0) {
                lines
            } else {
                let weight = Tensor::table(weight, [n]).cast(name, wide(self.dtype()));
                lines * weight.along(axis, self.rank())
            };
            sum = Some(match sum {
                None => lines,
                Some(sum) => sum + lines,
            });
        }
        sum.unwrap_or_else(|| self.clone())
    }
}
