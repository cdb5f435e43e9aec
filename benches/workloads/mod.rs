//! The workloads that Lazuli is compared on with its peers: inputs that any language can repeat bit for bit, and functions.

use lazuli::options::{Approximate, Conv2d, Gelu, LayerNorm};
use lazuli::{DType, Device, Tensor, keep, value_and_grad};

/// The step of gradient descent in training workloads.
const LEARNING_RATE: f64 = 0.01;

/// The data and the parameters.
pub type Inputs = (Vec<Tensor>, Vec<Tensor>);
/// The result or loss, and the updated parameters: none where nothing trains.
pub type Outputs = (Tensor, Vec<Tensor>);

/// A named program with its inputs.
pub struct Workload {
    /// Its name, the same for every engine.
    pub name: String,
    /// Inputs that stay as they are.
    pub data: Vec<Tensor>,
    /// Inputs that a training step updates, or that a forward pass reads.
    pub parameters: Vec<Tensor>,
    /// Whether one run is a training step: the function gives a loss, its gradients move the parameters.
    pub trains: bool,
    function: Function,
}

/// Of the data and the parameters.
type Function = fn(&[Tensor], &[Tensor]) -> Tensor;

impl Workload {
    /// What one run computes.
    #[allow(dead_code, reason = "not every benchmark runs it so")]
    pub fn run(&self, data: &[Tensor], parameters: Vec<Tensor>) -> Outputs {
        run(self.function, self.trains, data, parameters)
    }

    /// The same, to be compiled at its first call.
    pub fn compiled(&self) -> lazuli::Compiled<'static, Inputs, Outputs> {
        lazuli::compile(self.program()).named(&self.name)
    }

    /// The same with inputs that lie on a device.
    #[allow(dead_code, reason = "not every benchmark runs it on several")]
    pub fn on(self, device: Device) -> Workload {
        let moved = |tensors: Vec<Tensor>| tensors.iter().map(|t| t.to(device)).collect();
        Workload { data: moved(self.data), parameters: moved(self.parameters), ..self }
    }

    /// A call of the compiled function a run: a training step takes the parameters of the step before.
    #[allow(dead_code, reason = "not every benchmark runs it so")]
    pub fn runs(&self, program: lazuli::Compiled<'static, Inputs, Outputs>) -> impl FnMut() -> lazuli::Result<Tensor> {
        let mut parameters = self.parameters.clone();
        move || {
            if !self.trains {
                return Ok(program.call((&self.data, &parameters))?.0);
            }
            let (loss, updated) = program.call((&self.data, std::mem::take(&mut parameters)))?;
            parameters = updated;
            Ok(loss)
        }
    }

    /// The same, traced.
    #[allow(dead_code, reason = "not every benchmark takes the explicit chain")]
    pub fn trace(&self) -> lazuli::Result<lazuli::Traced<Inputs, Outputs>> {
        lazuli::trace(self.program(), (&self.data, &self.parameters))
    }

    fn program(&self) -> impl Fn(Inputs) -> Outputs + Send + Sync + 'static {
        let (function, trains) = (self.function, self.trains);
        move |(data, parameters)| run(function, trains, &data, parameters)
    }
}

fn run(function: Function, trains: bool, data: &[Tensor], parameters: Vec<Tensor>) -> Outputs {
    if !trains {
        return (function(data, &parameters), Vec::new());
    }
    let (loss, gradients) = value_and_grad(|p: &Vec<Tensor>| function(data, p))(&parameters);
    let updated = parameters.iter().zip(gradients).map(|(p, g)| p - LEARNING_RATE * g).collect();
    (loss, updated)
}

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
    let (data, parameters, function): (_, _, Function) = match name {
        "gelu_residual_4m" => (gelu_inputs(4096), vec![], gelu_residual),
        "gelu_residual_64k" => (gelu_inputs(64), vec![], gelu_residual),
        "softmax_4096x1024" => (vec![fill(4, &[4096, 1024], 8.0, 0.0)], vec![], |d, _| d[0].softmax(-1)),
        "layernorm_4096x1024" => {
            let data = vec![fill(5, &[4096, 1024], 3.0, 0.0), fill(6, &[1024], 1.0, 1.0), fill(7, &[1024], 1.0, 0.0)];
            (data, vec![], |d, _| layer_norm(&d[0], &d[1], &d[2]))
        }
        "sum_rows_4096x4096" => (vec![fill(8, &[4096, 4096], 1.0, 0.0)], vec![], |d, _| d[0].sum(keep(-1))),
        "sum_cols_4096x4096" => (vec![fill(8, &[4096, 4096], 1.0, 0.0)], vec![], |d, _| d[0].sum(keep(0))),
        "transpose_add_2048" => {
            let data = vec![fill(9, &[2048, 2048], 1.0, 0.0), fill(10, &[2048, 2048], 1.0, 0.0)];
            (data, vec![], |d, _| d[0].t() + &d[1])
        }
        "mlp_forward_b64" => (vec![fill(30, &[64, 784], 1.0, 0.0)], mlp_parameters(), |d, p| mlp(&d[0], p)),
        "mlp_train_b64" => {
            let data = vec![fill(30, &[64, 784], 1.0, 0.0), labels(31, 64, 10)];
            (data, mlp_parameters(), |d, p| mlp(&d[0], p).cross_entropy(&d[1]))
        }
        "transformer_block_forward" => {
            (vec![fill(62, &[4, 128, 256], 1.0, 0.0)], block_parameters(256, 1024), |d, p| block(&d[0], p, 8))
        }
        "transformer_block_train" => {
            (vec![fill(62, &[4, 128, 256], 1.0, 0.0)], block_parameters(256, 1024), |d, p| block_loss(&d[0], p, 8))
        }
        "cnn_forward_b32" => (vec![fill(76, &[32, 1, 28, 28], 1.0, 0.0)], cnn_parameters(), |d, p| cnn(&d[0], p)),
        "cnn_train_b32" => {
            let data = vec![fill(76, &[32, 1, 28, 28], 1.0, 0.0), labels(77, 32, 10)];
            (data, cnn_parameters(), |d, p| cnn(&d[0], p).cross_entropy(&d[1]))
        }
        _ => {
            if let Some([b, h, s, d]) = sizes(name, ["attention_b", "h", "s", "d"]) {
                let data = (40..43).map(|seed| fill(seed, &[b, h, s, d], 2.0, 0.0)).collect();
                (data, vec![], |d, _| attention(&d[0], &d[1], &d[2]))
            } else if let Some([n]) = sizes(name, ["gemm_gelu_bf16_"]) {
                let half = |seed, scale| fill(seed, &[n, n], scale, 0.0).to(DType::BF16);
                (vec![half(90, 1.0), half(91, 0.1)], vec![], |d, _| gemm_gelu(&d[0], &d[1]))
            } else if let Some([d]) = sizes(name, ["transformer_block_train_d"]) {
                let x = fill(62, &[8, 512, d], 1.0, 0.0);
                (vec![x], block_parameters(d, 4 * d), |d, p| block_loss(&d[0], p, 16))
            } else {
                return None;
            }
        }
    };
    Some(Workload { name: name.to_owned(), data, parameters, trains: name.contains("_train"), function })
}

/// Numbers in `[-0.5, 0.5) * scale + shift`: the top 24 bits of splitmix64 at each position.
fn fill(seed: u64, shape: &[usize], scale: f32, shift: f32) -> Tensor {
    // A copy into memory that large tensors get from Lazuli, as arrays of the peers lie in memory of NumPy.
    Tensor::from_slice(&numbers(seed, shape.iter().product(), scale, shift), shape)
}

fn numbers(seed: u64, n: usize, scale: f32, shift: f32) -> Vec<f32> {
    (1..=n as u64)
        .map(|i| {
            let z = i.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed);
            let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let u = ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32;
            (u - 0.5) * scale + shift
        })
        .collect()
}

fn labels(seed: u64, n: usize, classes: i64) -> Tensor {
    let label = |u: f32| (((u + 0.5) * classes as f32) as i64).clamp(0, classes - 1);
    Tensor::from_vec(numbers(seed, n, 1.0, 0.0).into_iter().map(label).collect(), [n])
}

fn gelu_inputs(rows: usize) -> Vec<Tensor> {
    vec![fill(1, &[rows, 1024], 4.0, 0.0), fill(2, &[1024], 1.0, 0.0), fill(3, &[rows, 1024], 1.0, 0.0)]
}

fn gelu_residual(d: &[Tensor], _: &[Tensor]) -> Tensor {
    (&d[0] + &d[1]).gelu_with(Gelu { approximate: Approximate::Tanh }) + &d[2]
}

fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let options = LayerNorm { weight: Some(weight.clone()), bias: Some(bias.clone()), ..Default::default() };
    x.layer_norm(weight.shape(), options)
}

fn mlp_parameters() -> Vec<Tensor> {
    vec![
        fill(20, &[784, 512], 0.07, 0.0),
        fill(21, &[512], 0.01, 0.0),
        fill(22, &[512, 512], 0.08, 0.0),
        fill(23, &[512], 0.01, 0.0),
        fill(24, &[512, 10], 0.08, 0.0),
        fill(25, &[10], 0.01, 0.0),
    ]
}

fn mlp(x: &Tensor, p: &[Tensor]) -> Tensor {
    let h = (x.matmul(&p[0]) + &p[1]).relu();
    let h = (h.matmul(&p[2]) + &p[3]).relu();
    h.matmul(&p[4]) + &p[5]
}

fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let scale = (q.size(-1) as f64).powf(-0.5);
    (q.matmul(k.transpose(-1, -2)) * scale).softmax(-1).matmul(v)
}

/// Of halves, with all between in `f32`: it rounds once.
fn gemm_gelu(x: &Tensor, w: &Tensor) -> Tensor {
    let product = x.to(DType::F32).matmul(w.to(DType::F32));
    product.gelu_with(Gelu { approximate: Approximate::Tanh }).to(DType::BF16)
}

fn block_loss(x: &Tensor, p: &[Tensor], heads: usize) -> Tensor {
    let y = block(x, p, heads);
    (&y * &y).mean(..)
}

fn block_parameters(d: usize, f: usize) -> Vec<Tensor> {
    vec![
        fill(50, &[d], 1.0, 1.0),
        fill(51, &[d], 1.0, 0.0),
        fill(52, &[d, 3 * d], 0.1, 0.0),
        fill(53, &[3 * d], 1.0, 0.0),
        fill(54, &[d, d], 0.1, 0.0),
        fill(55, &[d], 1.0, 0.0),
        fill(56, &[d], 1.0, 1.0),
        fill(57, &[d], 1.0, 0.0),
        fill(58, &[d, f], 0.1, 0.0),
        fill(59, &[f], 1.0, 0.0),
        fill(60, &[f, d], 0.1, 0.0),
        fill(61, &[d], 1.0, 0.0),
    ]
}

/// A transformer block: attention and a feed-forward layer, each after a normalisation and beside a residual.
fn block(x: &Tensor, p: &[Tensor], heads: usize) -> Tensor {
    let (b, s, d) = (x.size(0), x.size(1), x.size(2));
    let qkv = layer_norm(x, &p[0], &p[1]).matmul(&p[2]) + &p[3];
    let part = |i: usize| {
        let part = qkv.i((.., .., i * d..(i + 1) * d));
        part.reshape([b, s, heads, d / heads]).permute([0, 2, 1, 3])
    };
    let o = attention(&part(0), &part(1), &part(2)).permute([0, 2, 1, 3]).reshape([b, s, d]);
    let x = x + o.matmul(&p[4]) + &p[5];
    let h = layer_norm(&x, &p[6], &p[7]);
    &x + (h.matmul(&p[8]) + &p[9]).gelu_with(Gelu { approximate: Approximate::Tanh }).matmul(&p[10]) + &p[11]
}

fn cnn_parameters() -> Vec<Tensor> {
    vec![
        fill(70, &[32, 1, 3, 3], 0.6, 0.0),
        fill(71, &[32], 1.0, 0.0),
        fill(72, &[64, 32, 3, 3], 0.12, 0.0),
        fill(73, &[64], 1.0, 0.0),
        fill(74, &[64 * 49, 10], 0.03, 0.0),
        fill(75, &[10], 1.0, 0.0),
    ]
}

/// Two convolutions, each with its bias, a rectifier and a pooling, and a linear layer.
fn cnn(x: &Tensor, p: &[Tensor]) -> Tensor {
    let layer = |x: &Tensor, w: &Tensor, b: &Tensor| {
        let options = Conv2d { padding: [1, 1].into(), bias: Some(b.clone()), ..Default::default() };
        x.conv2d(w, options).relu().max_pool2d(2, ())
    };
    let h = layer(&layer(x, &p[0], &p[1]), &p[2], &p[3]);
    h.reshape([x.size(0), 64 * 49]).matmul(&p[4]) + &p[5]
}
