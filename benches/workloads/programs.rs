//! The programs that workloads are, of any extents: inputs that any language can repeat bit for bit, and functions.
//!
//! Benchmarks run them large; tests of GPU kernels include this folder and run them small too.

use lazuli::options::{Approximate, Conv2d, Gelu, LayerNorm};
use lazuli::{DType, Device, Tensor, keep, value_and_grad};
use std::sync::Arc;

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
type Function = Arc<dyn Fn(&[Tensor], &[Tensor]) -> Tensor + Send + Sync>;

impl Workload {
    /// A program that gives one result.
    pub fn forward(
        name: impl Into<String>,
        (data, parameters): Inputs,
        function: impl Fn(&[Tensor], &[Tensor]) -> Tensor + Send + Sync + 'static,
    ) -> Workload {
        Workload { name: name.into(), data, parameters, trains: false, function: Arc::new(function) }
    }

    /// A step of gradient descent on a loss.
    pub fn trained(
        name: impl Into<String>,
        inputs: Inputs,
        loss: impl Fn(&[Tensor], &[Tensor]) -> Tensor + Send + Sync + 'static,
    ) -> Workload {
        Workload { trains: true, ..Workload::forward(name, inputs, loss) }
    }

    /// What one run computes.
    #[allow(dead_code, reason = "not every benchmark runs it so")]
    pub fn run(&self, data: &[Tensor], parameters: Vec<Tensor>) -> Outputs {
        run(&self.function, self.trains, data, parameters)
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
        let (function, trains) = (self.function.clone(), self.trains);
        move |(data, parameters)| run(&function, trains, &data, parameters)
    }
}

fn run(function: &Function, trains: bool, data: &[Tensor], parameters: Vec<Tensor>) -> Outputs {
    if !trains {
        return (function(data, &parameters), Vec::new());
    }
    let (loss, gradients) = value_and_grad(|p: &Vec<Tensor>| function(data, p))(&parameters);
    let updated = parameters.iter().zip(gradients).map(|(p, g)| p - LEARNING_RATE * g).collect();
    (loss, updated)
}

/// A bias, gelu and a residual on rows of numbers.
pub fn gelu_residual(name: impl Into<String>, rows: usize, columns: usize) -> Workload {
    let data =
        vec![fill(1, &[rows, columns], 4.0, 0.0), fill(2, &[columns], 1.0, 0.0), fill(3, &[rows, columns], 1.0, 0.0)];
    Workload::forward(name, (data, vec![]), |d, _| gelu(&(&d[0] + &d[1])) + &d[2])
}

/// Softmax of rows.
pub fn softmax(name: impl Into<String>, rows: usize, columns: usize) -> Workload {
    Workload::forward(name, (vec![fill(4, &[rows, columns], 8.0, 0.0)], vec![]), |d, _| d[0].softmax(-1))
}

/// Layer normalisation of rows.
pub fn layernorm(name: impl Into<String>, rows: usize, columns: usize) -> Workload {
    let data = normalised(rows, columns);
    Workload::forward(name, (data, vec![]), |d, _| layer_norm(&d[0], &d[1], &d[2]))
}

/// The sums over one dim of a matrix.
pub fn sum(name: impl Into<String>, rows: usize, columns: usize, dim: i64) -> Workload {
    Workload::forward(name, (vec![fill(8, &[rows, columns], 1.0, 0.0)], vec![]), move |d, _| d[0].sum(keep(dim)))
}

/// A square matrix, transposed, and another.
pub fn transpose_add(name: impl Into<String>, n: usize) -> Workload {
    let data = vec![fill(9, &[n, n], 1.0, 0.0), fill(10, &[n, n], 1.0, 0.0)];
    Workload::forward(name, (data, vec![]), |d, _| d[0].t() + &d[1])
}

/// A product of square matrices of halves and its gelu, with all between in `f32`: it rounds once.
#[allow(dead_code, reason = "tests run it on no device")]
pub fn gemm_gelu(name: impl Into<String>, n: usize) -> Workload {
    let half = |seed, scale| fill(seed, &[n, n], scale, 0.0).to(DType::BF16);
    Workload::forward(name, (vec![half(90, 1.0), half(91, 0.1)], vec![]), |d, _| {
        gelu(&d[0].to(DType::F32).matmul(d[1].to(DType::F32))).to(DType::BF16)
    })
}

/// The extents of a network of three layers.
#[derive(Clone, Copy)]
pub struct Mlp {
    /// Rows of data.
    pub batch: usize,
    /// Features of a row.
    pub inputs: usize,
    /// Features of both hidden layers.
    pub hidden: usize,
    /// Results of a row.
    pub classes: usize,
}

impl Mlp {
    fn data(self) -> Tensor {
        fill(30, &[self.batch, self.inputs], 1.0, 0.0)
    }

    fn parameters(self) -> Vec<Tensor> {
        let Mlp { inputs, hidden, classes, .. } = self;
        vec![
            fill(20, &[inputs, hidden], 0.07, 0.0),
            fill(21, &[hidden], 0.01, 0.0),
            fill(22, &[hidden, hidden], 0.08, 0.0),
            fill(23, &[hidden], 0.01, 0.0),
            fill(24, &[hidden, classes], 0.08, 0.0),
            fill(25, &[classes], 0.01, 0.0),
        ]
    }

    /// Its results.
    pub fn forward(self, name: impl Into<String>) -> Workload {
        Workload::forward(name, (vec![self.data()], self.parameters()), |d, p| mlp(&d[0], p))
    }

    /// A step that trains it to classify.
    pub fn trained(self, name: impl Into<String>) -> Workload {
        let data = vec![self.data(), indices(31, &[self.batch], self.classes)];
        Workload::trained(name, (data, self.parameters()), |d, p| mlp(&d[0], p).cross_entropy(&d[1]))
    }
}

fn mlp(x: &Tensor, p: &[Tensor]) -> Tensor {
    let h = (x.matmul(&p[0]) + &p[1]).relu();
    let h = (h.matmul(&p[2]) + &p[3]).relu();
    h.matmul(&p[4]) + &p[5]
}

/// Attention of queries to keys and values, all of the extents batch, heads, sequence, features.
pub fn attention(name: impl Into<String>, extents: [usize; 4]) -> Workload {
    let data = (40..43).map(|seed| fill(seed, &extents, 2.0, 0.0)).collect();
    Workload::forward(name, (data, vec![]), |d, _| attend(&d[0], &d[1], &d[2]))
}

fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let scale = (q.size(-1) as f64).powf(-0.5);
    (q.matmul(k.transpose(-1, -2)) * scale).softmax(-1).matmul(v)
}

/// The extents of a transformer block.
#[derive(Clone, Copy)]
pub struct TransformerBlock {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// Features of a token.
    pub width: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Features inside the feed-forward layer.
    pub hidden: usize,
}

impl TransformerBlock {
    fn inputs(self) -> Inputs {
        let TransformerBlock { batch, sequence, width: d, hidden: f, .. } = self;
        let parameters = vec![
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
        ];
        (vec![fill(62, &[batch, sequence, d], 1.0, 0.0)], parameters)
    }

    /// Its results.
    pub fn forward(self, name: impl Into<String>) -> Workload {
        Workload::forward(name, self.inputs(), move |d, p| self.block(&d[0], p))
    }

    /// A step that trains it towards small results.
    pub fn trained(self, name: impl Into<String>) -> Workload {
        Workload::trained(name, self.inputs(), move |d, p| {
            let y = self.block(&d[0], p);
            (&y * &y).mean(..)
        })
    }

    /// Attention and a feed-forward layer, each after a normalisation and beside a residual.
    fn block(self, x: &Tensor, p: &[Tensor]) -> Tensor {
        let (b, s, d) = (x.size(0), x.size(1), x.size(2));
        let qkv = layer_norm(x, &p[0], &p[1]).matmul(&p[2]) + &p[3];
        let heads = |i: usize| {
            let part = qkv.i((.., .., i * d..(i + 1) * d));
            part.reshape([b, s, self.heads, d / self.heads]).permute([0, 2, 1, 3])
        };
        let o = attend(&heads(0), &heads(1), &heads(2)).permute([0, 2, 1, 3]).reshape([b, s, d]);
        let x = x + o.matmul(&p[4]) + &p[5];
        let h = layer_norm(&x, &p[6], &p[7]);
        &x + gelu(&(h.matmul(&p[8]) + &p[9])).matmul(&p[10]) + &p[11]
    }
}

/// The extents of a network of two convolutions and a linear layer.
#[derive(Clone, Copy)]
pub struct Cnn {
    /// Images.
    pub batch: usize,
    /// Lines and columns of an image.
    pub side: usize,
    /// Features that each convolution makes.
    pub features: [usize; 2],
    /// Results of an image.
    pub classes: usize,
}

impl Cnn {
    fn data(self) -> Tensor {
        fill(76, &[self.batch, 1, self.side, self.side], 1.0, 0.0)
    }

    fn parameters(self) -> Vec<Tensor> {
        let [first, second] = self.features;
        // Each pooling halves the side.
        let pooled = self.side / 2 / 2;
        vec![
            fill(70, &[first, 1, 3, 3], 0.6, 0.0),
            fill(71, &[first], 1.0, 0.0),
            fill(72, &[second, first, 3, 3], 0.12, 0.0),
            fill(73, &[second], 1.0, 0.0),
            fill(74, &[second * pooled * pooled, self.classes], 0.03, 0.0),
            fill(75, &[self.classes], 1.0, 0.0),
        ]
    }

    /// Its results.
    pub fn forward(self, name: impl Into<String>) -> Workload {
        Workload::forward(name, (vec![self.data()], self.parameters()), |d, p| cnn(&d[0], p))
    }

    /// A step that trains it to classify.
    pub fn trained(self, name: impl Into<String>) -> Workload {
        let data = vec![self.data(), indices(77, &[self.batch], self.classes)];
        Workload::trained(name, (data, self.parameters()), |d, p| cnn(&d[0], p).cross_entropy(&d[1]))
    }
}

/// Two convolutions, each with its bias, a rectifier and a pooling, and a linear layer.
fn cnn(x: &Tensor, p: &[Tensor]) -> Tensor {
    let layer = |x: &Tensor, w: &Tensor, b: &Tensor| {
        let options = Conv2d { padding: [1, 1].into(), bias: Some(b.clone()), ..Default::default() };
        x.conv2d(w, options).relu().max_pool2d(2, ())
    };
    let h = layer(&layer(x, &p[0], &p[1]), &p[2], &p[3]);
    h.reshape([x.size(0), p[4].size(0)]).matmul(&p[4]) + &p[5]
}

fn gelu(x: &Tensor) -> Tensor {
    x.gelu_with(Gelu { approximate: Approximate::Tanh })
}

/// Rows, and what their normalisation multiplies them by and adds.
pub fn normalised(rows: usize, columns: usize) -> Vec<Tensor> {
    vec![fill(5, &[rows, columns], 3.0, 0.0), fill(6, &[columns], 1.0, 1.0), fill(7, &[columns], 1.0, 0.0)]
}

/// Layer normalisation over the dims of the weight.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let options = LayerNorm { weight: Some(weight.clone()), bias: Some(bias.clone()), ..Default::default() };
    x.layer_norm(weight.shape(), options)
}

/// Numbers in `[-0.5, 0.5) * scale + shift`: the top 24 bits of splitmix64 at each position.
pub fn fill(seed: u64, shape: &[usize], scale: f32, shift: f32) -> Tensor {
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

/// Integers below `n`.
pub fn indices(seed: u64, shape: &[usize], n: usize) -> Tensor {
    let index = |u: f32| (((u + 0.5) * n as f32) as i64).clamp(0, n as i64 - 1);
    Tensor::from_vec(numbers(seed, shape.iter().product(), 1.0, 0.0).into_iter().map(index).collect(), shape)
}
