//! Scaled dot product attention.

use crate::Tensor;
use crate::ops::selection::where_;
use crate::promotion::wide;
use lazuli_ir::{DType, Error, ErrorKind, Op, ReduceOp, Result, Shape};

options! {
    /// What [`Tensor::scaled_dot_product_attention`] takes besides key and value.
    Attention {
        /// Booleans that say which keys a query sees, or summands for the scores; it broadcasts to `[.., queries, keys]`.
        mask: Option<Tensor> = None,
        /// Whether query `i` sees keys `0..=i` alone.
        is_causal: bool = false,
        /// A factor for the scores: by default one over the root of the number of features.
        scale: Option<f64> = None,
        /// Whether heads (dim -3) of key and value are shared by groups of the query's.
        enable_gqa: bool = false,
    }
}

impl Tensor {
    /// Attention of queries (the receiver, `[.., queries, features]`) on keys `[.., keys, features]` and values
    /// `[.., keys, outputs]`: `softmax(query @ key.t() * scale + mask) @ value`. Leading dims broadcast. A query that sees no key
    /// gives 0. Of halves, scores and their softmax are `f32`; what multiplies the values is a half again.
    ///
    /// # Errors
    /// Carried: shapes that do not fit; dtypes that differ or are not floats; a mask together with `is_causal`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (q, k, v) = (Tensor::zeros([2, 3, 8]), Tensor::randn([2, 4, 8]), Tensor::ones([2, 4, 5]));
    /// let y = q.scaled_dot_product_attention(&k, &v, ());
    /// assert_eq!(y.shape(), [2, 3, 5]);
    /// assert!((y.mean(..).item::<f32>()? - 1.0).abs() < 1e-6);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn scaled_dot_product_attention(&self, key: &Tensor, value: &Tensor, options: impl Into<Attention>) -> Tensor {
        const NAME: &str = "scaled_dot_product_attention";
        let options = options.into();
        let given: Vec<&Tensor> = [self, key, value].into_iter().chain(&options.mask).collect();
        ok!(NAME, &given, check(self, key, value, &options));
        let dtype = wide(self.dtype());
        let (mut key, mut value) = (key.clone(), value.clone());
        if options.enable_gqa && self.rank() > 2 {
            key = key.shared_heads(self.size(-3));
            value = value.shared_heads(self.size(-3));
        }
        let factor = options.scale.unwrap_or(1.0 / (self.size(-1) as f64).sqrt());
        let query = self.cast(NAME, dtype);
        let half = self.dtype().is_half();
        let mut scores = if half {
            // Products of halves are exact in `f32`: what is contracted stays a half.
            query.matmul(key.transpose(-1, -2).cast(NAME, dtype)) * factor
        } else {
            // The factor is split between both, as PyTorch does, so that scores of large numbers do not overflow on the way.
            let (left, right) = if factor < 0.0 { (factor, 1.0) } else { (factor.sqrt(), factor.sqrt()) };
            (query * left).matmul((key * right).transpose(-1, -2))
        };
        let mask = match &options.mask {
            None if options.is_causal => Some(visible(NAME, scores.size(-2), scores.size(-1))),
            mask => mask.clone(),
        };
        let masked = mask.is_some();
        if let Some(mask) = mask {
            scores = match mask.dtype() {
                DType::Bool => where_(mask, scores, f64::NEG_INFINITY),
                _ => scores + mask.cast(NAME, dtype),
            };
        }
        let mut weights = scores.weights(masked);
        if half {
            weights = weights.cast(NAME, self.dtype()).cast(NAME, dtype);
        }
        weights.matmul(value.cast(NAME, dtype)).rounded(NAME, self.dtype(), &given)
    }

    /// The softmax over the last dim, which is 0 where nothing is seen.
    #[track_caller]
    fn weights(&self, masked: bool) -> Tensor {
        if !masked || self.extent_shape().is_empty() {
            return self.softmax(-1);
        }
        let axes = crate::Axes { dims: smallvec::smallvec![self.rank() - 1], keep: true };
        let blind = self.detach().reduce("softmax", ReduceOp::Max, &axes).eq(f64::NEG_INFINITY);
        where_(&blind, 0.0, where_(&blind, 0.0, self).softmax(-1))
    }

    /// Heads (dim -3) repeated, each beside itself, to `heads`.
    #[track_caller]
    fn shared_heads(&self, heads: usize) -> Tensor {
        let (rank, own) = (self.rank(), self.size(-3));
        let groups = heads / own.max(1);
        let mut extents = self.extent_shape().extents();
        extents.insert(rank - 2, groups);
        let copies = self.with_dim(rank - 2).stretch(&Shape::new(extents));
        copies.flatten((rank as isize - 3)..=(rank as isize - 2))
    }
}

/// Which keys each query sees where it sees no later ones.
#[track_caller]
fn visible(name: &'static str, queries: usize, keys: usize) -> Tensor {
    let shape = Shape::new([queries, keys]);
    let query = Tensor::record(name, Op::Iota { dim: 0, shape: shape.clone() }, &[]);
    let key = Tensor::record(name, Op::Iota { dim: 1, shape }, &[]);
    key.le(query)
}

fn check(query: &Tensor, key: &Tensor, value: &Tensor, options: &Attention) -> Result<()> {
    let error = |kind, message: String| Err(Error::new(kind, message));
    if query.rank() < 2 || key.rank() < 2 || value.rank() < 2 {
        return error(ErrorKind::Shape, "takes tensors of at least 2 dims".to_owned());
    }
    if !query.dtype().is_float() || key.dtype() != query.dtype() || value.dtype() != query.dtype() {
        return error(ErrorKind::DType, "query, key and value are of one float dtype".to_owned());
    }
    if key.size(-1) != query.size(-1) || value.size(-2) != key.size(-2) {
        let message = "queries and keys have as many features, and there are as many keys as values";
        return error(ErrorKind::Shape, message.to_owned());
    }
    if options.is_causal && options.mask.is_some() {
        return error(ErrorKind::Value, "takes a mask or `is_causal`, not both".to_owned());
    }
    if options.enable_gqa && query.rank() > 2 {
        let heads = query.size(-3);
        let shared = |t: &Tensor| t.rank() > 2 && t.size(-3) != 0 && heads.is_multiple_of(t.size(-3));
        if !shared(key) || !shared(value) {
            let message = format!("{heads} heads of the query are not shared evenly by those of key and value");
            return error(ErrorKind::Shape, message);
        }
    }
    Ok(())
}
