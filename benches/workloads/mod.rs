//! The workloads that Lazuli is compared on with its peers: programs of fixed extents, by name.

pub mod programs;

use programs::{Cnn, Mlp, TransformerBlock};

pub use programs::Workload;

/// The names, in the order in which they are run.
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

/// The workload of a name.
pub fn workload(name: &str) -> Option<Workload> {
    const MLP: Mlp = Mlp { batch: 64, inputs: 784, hidden: 512, classes: 10 };
    const BLOCK: TransformerBlock = TransformerBlock { batch: 4, sequence: 128, width: 256, heads: 8, hidden: 1024 };
    const CNN: Cnn = Cnn { batch: 32, side: 28, features: [32, 64], classes: 10 };
    let name = *NAMES.iter().find(|n| **n == name)?;
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
        "attention_b4h8s256d64" => programs::attention(name, [4, 8, 256, 64]),
        "transformer_block_forward" => BLOCK.forward(name),
        "transformer_block_train" => BLOCK.trained(name),
        "cnn_forward_b32" => CNN.forward(name),
        "cnn_train_b32" => CNN.trained(name),
        _ => return None,
    })
}
