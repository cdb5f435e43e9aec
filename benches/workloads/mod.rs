//! The workloads that Lazuli is compared on with its peers: programs of fixed extents, by name.

pub mod programs;

use programs::{Cnn, Mlp, TransformerBlock};

pub use programs::Workload;

/// The names, in the order in which they are run.
#[allow(dead_code, reason = "not every benchmark runs all")]
pub const NAMES: [&str; 14] = [
    "gelu_residual_4m",
    "gelu_residual_64k",
    "softmax_4096x1024",
    "layernorm_4096x1024",
    "sum_rows_4096x4096",
    "sum_cols_4096x4096",
    "transpose_add_2048",
    "mlp_forward_b64",
    "mlp_train_b64",
    "attention_b4h8s256d64",
    "transformer_block_forward",
    "transformer_block_train",
    "cnn_forward_b32",
    "cnn_train_b32",
];

/// The numbers in a name, between words: `[4, 8]` of `b4h8` for `["b", "h"]`.
fn sizes<const N: usize>(name: &str, words: [&str; N]) -> Option<[usize; N]> {
    let mut rest = name;
    let mut numbers = [0; N];
    for (number, word) in numbers.iter_mut().zip(words) {
        rest = rest.strip_prefix(word)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        *number = rest[..end].parse().ok()?;
        rest = &rest[end..];
    }
    rest.is_empty().then_some(numbers)
}

/// The workload of a name: one of [`NAMES`], or of other sizes, as `attention_b8h16s2048d64`, `gemm_gelu_bf16_4096` and
/// `transformer_block_train_d1024`.
pub fn workload(name: &str) -> Option<Workload> {
    const MLP: Mlp = Mlp { batch: 64, inputs: 784, hidden: 512, classes: 10 };
    const BLOCK: TransformerBlock = TransformerBlock { batch: 4, sequence: 128, width: 256, heads: 8, hidden: 1024 };
    const CNN: Cnn = Cnn { batch: 32, side: 28, features: [32, 64], classes: 10 };
    Some(match name {
        "gelu_residual_4m" => programs::gelu_residual(name, 4096, 1024),
        "gelu_residual_64k" => programs::gelu_residual(name, 64, 1024),
        "softmax_4096x1024" => programs::softmax(name, 4096, 1024),
        "layernorm_4096x1024" => programs::layernorm(name, 4096, 1024),
        "sum_rows_4096x4096" => programs::sum(name, 4096, 4096, -1),
        "sum_cols_4096x4096" => programs::sum(name, 4096, 4096, 0),
        "transpose_add_2048" => programs::transpose_add(name, 2048),
        "mlp_forward_b64" => MLP.forward(name),
        "mlp_train_b64" => MLP.trained(name),
        "transformer_block_forward" => BLOCK.forward(name),
        "transformer_block_train" => BLOCK.trained(name),
        "cnn_forward_b32" => CNN.forward(name),
        "cnn_train_b32" => CNN.trained(name),
        _ => {
            if let Some(extents) = sizes(name, ["attention_b", "h", "s", "d"]) {
                programs::attention(name, extents)
            } else if let Some([n]) = sizes(name, ["gemm_gelu_bf16_"]) {
                programs::gemm_gelu(name, n)
            } else if let Some([width]) = sizes(name, ["transformer_block_train_d"]) {
                TransformerBlock { batch: 8, sequence: 512, width, heads: 16, hidden: 4 * width }.trained(name)
            } else {
                return None;
            }
        }
    })
}
