//! Products of matrices as a routine of a back end takes them: what is multiplied, how it lies, and what is done to the result on the
//! way out. Plain data, with a meaning of its own ([`Matmul::evaluate`]) and a text.

use crate::{DType, Literal};
use std::fmt;

/// How batches of matrices lie: the elements between neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MatrixStrides {
    /// From a batch of matrices to the next.
    pub outer: i64,
    /// From a matrix of a batch to the next.
    pub batch: i64,
    /// From a row to the next.
    pub row: i64,
    /// From a column to the next.
    pub column: i64,
}

impl MatrixStrides {
    /// The same matrices, transposed.
    #[must_use]
    pub fn transposed(self) -> MatrixStrides {
        MatrixStrides { row: self.column, column: self.row, ..self }
    }

    fn all(self) -> [i64; 4] {
        [self.outer, self.batch, self.row, self.column]
    }

    /// The element of a matrix of a batch.
    fn at(self, index: [usize; 4]) -> i64 {
        index.iter().zip(self.all()).fold(0, |sum, (&n, stride)| sum.saturating_add(stride.saturating_mul(n as i64)))
    }

    /// The lowest element that so many matrices reach, and one beyond the highest.
    pub fn bounds(self, extents: [usize; 4]) -> (i64, i64) {
        let strides = self.all();
        if extents.contains(&0) {
            return (0, 0);
        }
        let reach = |sign: fn(i64) -> i64| {
            let far = extents.iter().zip(strides).map(|(n, s)| sign(s).saturating_mul(*n as i64 - 1));
            far.fold(0, i64::saturating_add)
        };
        (reach(|s| s.min(0)), reach(|s| s.max(0)).saturating_add(1))
    }
}

impl fmt::Display for MatrixStrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{},{},{},{}]", self.outer, self.batch, self.row, self.column)
    }
}

/// What is done to each element of a product before it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// The Gaussian error linear unit in its tanh form: `x sigmoid(2u)`, `u = sqrt(2/pi) (x + 0.044715 x^3)`.
    Gelu,
}

impl Activation {
    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Identity => "identity",
            Activation::Gelu => "gelu",
        }
    }

    /// Its value.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Activation::Identity => x,
            Activation::Gelu => {
                let twice_u = 2.0 * std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x);
                x / (1.0 + (-twice_u).exp())
            }
        }
    }
}

/// Batches of products of matrices: `result = activation(left x right + bias)`, rounded once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// The number of batches, whose matrices lie anywhere: the routine is called for each.
    pub outer: usize,
    /// The number of products of a batch.
    pub batch: usize,
    /// Rows of the left operand and of the result.
    pub rows: usize,
    /// Columns of the right operand and of the result.
    pub columns: usize,
    /// Terms of each sum: columns of the left operand, rows of the right one.
    pub terms: usize,
    /// The elements of both operands.
    pub operands: DType,
    /// The elements of the result, and of the bias.
    pub result: DType,
    /// In what products are added up: `f32` or `f64`.
    pub acc: DType,
    /// How the left operand lies.
    pub left: MatrixStrides,
    /// How the right operand lies.
    pub right: MatrixStrides,
    /// How the result lies.
    pub out: MatrixStrides,
    /// Whether a number for each column, one after the other in memory, is added.
    pub bias: bool,
    /// What comes then.
    pub activation: Activation,
    /// Whether `f32` operands may be rounded to the 11 bits of TF32, which tensor cores multiply.
    pub tf32: bool,
}

impl Matmul {
    /// Floating point operations.
    pub fn flops(&self) -> u64 {
        [self.outer, self.batch, self.rows, self.columns, self.terms].iter().fold(2, |n, e| n.saturating_mul(*e as u64))
    }

    /// The elements that the left operand, the right one and the result reach, counted from their pointers: the lowest, and one
    /// beyond the highest.
    pub fn reaches(&self) -> [(i64, i64); 3] {
        [
            self.left.bounds([self.outer, self.batch, self.rows, self.terms]),
            self.right.bounds([self.outer, self.batch, self.terms, self.columns]),
            self.out.bounds([self.outer, self.batch, self.rows, self.columns]),
        ]
    }

    /// Computes it, with sums in `f64`. What is read and written is told by element, counted from the pointers.
    pub fn evaluate(
        &self,
        left: &dyn Fn(i64) -> Literal,
        right: &dyn Fn(i64) -> Literal,
        bias: &dyn Fn(i64) -> Literal,
        store: &mut dyn FnMut(i64, Literal),
    ) {
        let operand = |x: Literal| {
            let x = x.as_f64();
            if self.tf32 && self.operands == DType::F32 { tf32(x) } else { x }
        };
        let batches = (0..self.outer).flat_map(|o| (0..self.batch).map(move |b| (o, b)));
        for (o, b) in batches {
            for i in 0..self.rows {
                for j in 0..self.columns {
                    let factors = |k| (left(self.left.at([o, b, i, k])), right(self.right.at([o, b, k, j])));
                    let sum: f64 = (0..self.terms).map(factors).map(|(x, y)| operand(x) * operand(y)).sum();
                    let sum = if self.bias { sum + bias(j as i64).as_f64() } else { sum };
                    let value = Literal::F64(self.activation.apply(sum)).cast(self.acc).cast(self.result);
                    store(self.out.at([o, b, i, j]), value);
                }
            }
        }
    }
}

/// A number with the 11 significant bits of TF32, the nearest.
fn tf32(x: f64) -> f64 {
    const DROPPED: u32 = 13;
    if !x.is_finite() {
        return x;
    }
    let bits = (x as f32).to_bits();
    let half = (1 << (DROPPED - 1)) - 1 + (bits >> DROPPED & 1);
    f32::from_bits(bits.wrapping_add(half) >> DROPPED << DROPPED).into()
}

impl fmt::Display for Matmul {
    /// `matmul f32[1,8: 64,784] strides [..], [1,8: 784,256] strides [..] in f32 -> f32 strides [..] bias gelu tf32`; extents and strides
    /// are those of batches, matrices, rows and columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Matmul { outer, batch, rows, columns, terms, operands, result, acc, left, right, out, .. } = self;
        write!(
            f,
            "matmul {operands}[{outer},{batch}: {rows},{terms}] strides {left}, [{outer},{batch}: {terms},{columns}] strides {right} in {acc} -> \
             {result} strides {out}"
        )?;
        if self.bias {
            f.write_str(" bias")?;
        }
        if self.activation != Activation::Identity {
            write!(f, " {}", self.activation.name())?;
        }
        if self.tf32 {
            f.write_str(" tf32")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> Matmul {
        Matmul {
            outer: 1,
            batch: 2,
            rows: 2,
            columns: 3,
            terms: 2,
            operands: DType::F32,
            result: DType::F32,
            acc: DType::F32,
            left: MatrixStrides { outer: 0, batch: 4, row: 1, column: 2 },
            right: MatrixStrides { outer: 0, batch: 0, row: 3, column: 1 },
            out: MatrixStrides { outer: 0, batch: 6, row: 3, column: 1 },
            bias: true,
            activation: Activation::Identity,
            tf32: false,
        }
    }

    #[test]
    fn products_are_read_by_their_strides() {
        let (left, right) = ([1.0f32, 3.0, 2.0, 4.0, 5.0, 7.0, 6.0, 8.0], [1.0f32, 0.0, 2.0, 0.0, 1.0, 3.0]);
        let mut out = vec![0.0; 12];
        let number = |x: &[f32], i: i64| Literal::F32(x[i as usize]);
        product().evaluate(
            &|i| number(&left, i),
            &|i| number(&right, i),
            &|i| Literal::F32(100.0 * (i + 1) as f32),
            &mut |i, v| out[i as usize] = v.as_f64(),
        );
        assert_eq!(out, [101., 202., 308., 103., 204., 318., 105., 206., 328., 107., 208., 338.]);
        assert_eq!(product().reaches(), [(0, 8), (0, 6), (0, 12)]);
        assert_eq!(product().flops(), 48);
        assert_eq!(
            product().to_string(),
            "matmul f32[1,2: 2,2] strides [0,4,1,2], [1,2: 2,3] strides [0,0,3,1] in f32 -> f32 strides [0,6,3,1] bias"
        );
    }

    #[test]
    fn tf32_keeps_eleven_bits() {
        assert_eq!(tf32(1.0 + 1.0 / 1024.0), 1.0 + 1.0 / 1024.0);
        assert_eq!(tf32(1.0 + 1.0 / 2048.0), 1.0);
        assert_eq!(tf32(1.0 + 3.0 / 2048.0), 1.0 + 2.0 / 1024.0);
        assert!(tf32(f64::NAN).is_nan());
        assert_eq!(tf32(-0.0).to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn gelu_is_the_tanh_form() {
        for x in [-6.0f64, -1.0, 0.0, 0.5, 3.0] {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            assert!((Activation::Gelu.apply(x) - 0.5 * x * (1.0 + u.tanh())).abs() < 1e-12);
        }
        assert_eq!(Activation::Gelu.apply(f64::INFINITY), f64::INFINITY);
        assert!(Activation::Gelu.apply(f64::NAN).is_nan());
    }
}
