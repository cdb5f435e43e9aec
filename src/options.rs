//! The structs of optional arguments, each named after its operation: PyTorch's defaults, which `()` stands for.
//!
//! ```
//! use lazuli::prelude::*;
//! let x = lazuli::tensor([[1.0, 3.0]]);
//! assert_eq!(x.var(-1, ()).to_vec::<f32>()?, [2.0]);
//! assert_eq!(x.var(-1, Var { correction: 0.0 }).to_vec::<f32>()?, [1.0]);
//! # Ok::<(), lazuli::Error>(())
//! ```

pub use crate::ops::activation::{Approximate, Elu, Gelu, Hardtanh, LeakyRelu, Softplus};
pub use crate::ops::advanced::IndexPut;
pub use crate::ops::arithmetic::Rsub;
pub use crate::ops::attention::Attention;
pub use crate::ops::classification::{CrossEntropy, NllLoss};
pub use crate::ops::comparison::IsClose;
pub use crate::ops::convolution::{
    Conv, Conv1d, Conv2d, Conv3d, ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Padding,
};
pub use crate::ops::ctc::CtcLoss;
pub use crate::ops::diagonal::{DiagEmbed, Diagonal};
pub use crate::ops::dropout::Dropout;
pub use crate::ops::elementwise::Round;
pub use crate::ops::gather::{Embedding, OneHot, RepeatInterleave};
pub use crate::ops::interpolate::{Interpolate, Interpolation};
pub use crate::ops::join::{Indexing, Meshgrid};
pub use crate::ops::likelihood::{GaussianNllLoss, PoissonNllLoss};
pub use crate::ops::linear::{AddProductOf, Linear};
pub use crate::ops::loss::{
    BinaryCrossEntropy, BinaryCrossEntropyWithLogits, HuberLoss, KlDiv, L1Loss, MseLoss, Reduction, SmoothL1Loss,
};
pub use crate::ops::margin::{
    CosineEmbeddingLoss, HingeEmbeddingLoss, MarginRankingLoss, MultiMarginLoss, MultilabelMarginLoss,
    MultilabelSoftMarginLoss, PairwiseDistance, SoftMarginLoss, TripletMarginLoss,
};
pub use crate::ops::norm::{CosineSimilarity, Norm, Normalize};
pub use crate::ops::normalization::{BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm, RmsNorm};
pub use crate::ops::order::{Sort, TopK};
pub use crate::ops::pad::{Pad, PadMode};
pub use crate::ops::pooling::{
    AvgPool, AvgPool1d, AvgPool2d, AvgPool3d, Im2col, MaxPool, MaxPool1d, MaxPool2d, MaxPool3d,
};
pub use crate::ops::scatter::{IndexAdd, Scatter, ScatterReduction, SliceScatter};
pub use crate::ops::selection::{AddProduct, NanToNum};
pub use crate::ops::shrink::{Hardshrink, Rrelu, Softshrink};
pub use crate::ops::softmax::GumbelSoftmax;
pub use crate::ops::statistics::Var;
