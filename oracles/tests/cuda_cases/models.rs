//! What models are made of, traced: the workloads of the benchmarks with smaller extents, training steps, and layers one by one.

use lazuli::options::{Approximate, Attention, Conv2d, Gelu, LayerNorm, ScatterReduction};
use lazuli::{DType, Tensor, keep, value_and_grad};
use lazuli_ir::reference::Dense;
use lazuli_ir::{Graph, Shape};
use lazuli_oracles::shim::GpuCase;

type Function = fn(&[Tensor]) -> Vec<Tensor>;
/// A loss of data and parameters.
type Loss = fn(&[Tensor]) -> Tensor;

/// Every model, compiled for a GPU.
pub fn cases() -> Vec<GpuCase> {
    let forward = workloads().into_iter().chain(layers());
    let forward = forward.map(|(name, inputs, function)| case(name, inputs, function));
    let trained = losses().into_iter().map(|(name, data, parameters, loss)| {
        let n = data.len();
        case(name, [data, parameters].concat(), move |x| step(loss, &x[..n], &x[n..]))
    });
    forward.chain(trained).collect()
}

fn case(name: &str, inputs: Vec<Tensor>, function: impl Fn(&[Tensor]) -> Vec<Tensor>) -> GpuCase {
    let traced = lazuli::trace(|x: Vec<Tensor>| function(&x), &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
    let graph = Graph::parse(&traced.to_string()).unwrap_or_else(|e| panic!("{name}: {e}\n{traced}"));
    let inputs = inputs.iter().map(dense).collect::<lazuli::Result<_>>().unwrap_or_else(|e| panic!("{name}: {e}"));
    GpuCase::of_graph(name, graph, inputs).unwrap_or_else(|e| panic!("{e}"))
}

fn dense(x: &Tensor) -> lazuli::Result<Dense> {
    match x.dtype() {
        DType::I64 => Dense::from_vec(x.to_vec::<i64>()?, Shape::new(x.shape())),
        DType::Bool => Dense::from_vec(x.to_vec::<bool>()?, Shape::new(x.shape())),
        _ => Dense::from_vec(x.to_vec::<f32>()?, Shape::new(x.shape())),
    }
}

/// A step of gradient descent: the loss, and the parameters after it.
fn step(loss: Loss, data: &[Tensor], parameters: &[Tensor]) -> Vec<Tensor> {
    let of = |p: &Vec<Tensor>| loss(&[data, p.as_slice()].concat());
    let (loss, gradients) = value_and_grad(of)(&parameters.to_vec());
    let updated = parameters.iter().zip(gradients).map(|(p, g)| p - 0.1 * g);
    [loss].into_iter().chain(updated).collect()
}

/// Numbers in `[-0.5, 0.5) * scale + shift`.
fn fill(seed: u64, shape: &[usize], scale: f32, shift: f32) -> Tensor {
    let mut random = lazuli_oracles::Rng::new(seed);
    let n = shape.iter().product();
    Tensor::from_vec((0..n).map(|_| random.signed() * 0.5 * scale + shift).collect(), shape)
}

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    fill(seed, shape, 4.0, 0.0)
}

/// Integers below `n`.
fn indices(seed: u64, shape: &[usize], n: usize) -> Tensor {
    let mut random = lazuli_oracles::Rng::new(seed);
    Tensor::from_vec((0..shape.iter().product()).map(|_| random.below(n) as i64).collect(), shape)
}

fn workloads() -> Vec<(&'static str, Vec<Tensor>, Function)> {
    vec![
        ("gelu_residual", vec![normal(1, &[9, 300]), normal(2, &[300]), normal(3, &[9, 300])], gelu_residual),
        (
            "gelu_residual of whole vectors",
            vec![normal(1, &[8, 256]), normal(2, &[256]), normal(3, &[8, 256])],
            gelu_residual,
        ),
        ("softmax of warps", vec![fill(4, &[7, 256], 8.0, 0.0)], |x| vec![x[0].softmax(-1)]),
        ("softmax of blocks", vec![fill(4, &[3, 1500], 8.0, 0.0)], |x| vec![x[0].softmax(-1)]),
        ("softmax of long rows", vec![fill(4, &[2, 9001], 8.0, 0.0)], |x| vec![x[0].softmax(-1)]),
        ("layernorm of warps", normalised(5, 200), |x| vec![layer_norm(&x[0], &x[1], &x[2])]),
        ("layernorm of blocks", normalised(3, 1100), |x| vec![layer_norm(&x[0], &x[1], &x[2])]),
        ("sum_rows", vec![fill(8, &[12, 2500], 1.0, 0.0)], |x| vec![x[0].sum(keep(-1))]),
        ("sum_cols", vec![fill(8, &[2500, 12], 1.0, 0.0)], |x| vec![x[0].sum(keep(0))]),
        ("sum_cols of many", vec![fill(8, &[300, 130], 1.0, 0.0)], |x| vec![x[0].sum(keep(0))]),
        ("transpose_add", vec![normal(9, &[70, 70]), normal(10, &[70, 70])], |x| vec![x[0].t() + &x[1]]),
        ("mlp_forward", [vec![fill(30, &[16, 96], 1.0, 0.0)], mlp_parameters()].concat(), |x| {
            vec![mlp(&x[0], &x[1..])]
        }),
        ("attention", (40..43).map(|seed| fill(seed, &[2, 3, 40, 16], 2.0, 0.0)).collect(), |x| {
            vec![attention(&x[0], &x[1], &x[2])]
        }),
        ("transformer_block_forward", [vec![fill(62, &[2, 20, 32], 1.0, 0.0)], block_parameters()].concat(), |x| {
            vec![block(&x[0], &x[1..])]
        }),
        ("cnn_forward", [vec![fill(76, &[3, 1, 12, 12], 1.0, 0.0)], cnn_parameters()].concat(), |x| {
            vec![cnn(&x[0], &x[1..])]
        }),
    ]
}

fn losses() -> Vec<(&'static str, Vec<Tensor>, Vec<Tensor>, Loss)> {
    let labels = |n| indices(31, &[n], 10);
    vec![
        ("mlp_train", vec![fill(30, &[16, 96], 1.0, 0.0), labels(16)], mlp_parameters(), |x| {
            mlp(&x[0], &x[2..]).cross_entropy(&x[1])
        }),
        ("transformer_block_train", vec![fill(62, &[2, 20, 32], 1.0, 0.0)], block_parameters(), |x| {
            let y = block(&x[0], &x[1..]);
            (&y * &y).mean(..)
        }),
        ("cnn_train", vec![fill(76, &[3, 1, 12, 12], 1.0, 0.0), labels(3)], cnn_parameters(), |x| {
            cnn(&x[0], &x[2..]).cross_entropy(&x[1])
        }),
        ("masked attention trained", vec![], (40..43).map(|s| fill(s, &[2, 3, 17, 8], 2.0, 0.0)).collect(), |x| {
            let y =
                x[0].scaled_dot_product_attention(&x[1], &x[2], Attention { is_causal: true, ..Default::default() });
            (&y * &y).sum(..)
        }),
        ("layer_norm trained", vec![], normalised(6, 96), |x| layer_norm(&x[0], &x[1], &x[2]).square().mean(..)),
        ("layer_norm of long rows trained", vec![], normalised(3, 1300), |x| {
            layer_norm(&x[0], &x[1], &x[2]).square().mean(..)
        }),
        ("softmax trained", vec![normal(1, &[9, 70])], vec![normal(2, &[9, 70])], |x| {
            (x[1].softmax(-1) * &x[0]).sum(..)
        }),
        ("gelu trained", vec![], vec![normal(1, &[7, 130]), normal(2, &[130])], |x| (&x[0] + &x[1]).gelu().mean(..)),
        ("pooling trained", vec![], vec![normal(1, &[2, 3, 12, 13])], |x| {
            (x[0].max_pool2d(3, ()).square().sum(..)) + x[0].avg_pool2d(2, ()).square().sum(..)
        }),
        ("embedding trained", vec![indices(3, &[40], 11)], vec![normal(1, &[11, 24])], |x| {
            x[0].embedding(&x[1], ()).square().sum(..)
        }),
        ("group_norm and convolution trained", vec![normal(1, &[2, 4, 9, 9])], vec![normal(2, &[6, 4, 3, 3])], |x| {
            x[0].group_norm(2, ()).conv2d(&x[1], Conv2d { stride: [2, 2], ..Default::default() }).silu().mean(..)
        }),
        ("half precision trained", vec![normal(1, &[12, 40])], vec![fill(2, &[40, 24], 0.5, 0.0)], |x| {
            let half = |t: &Tensor| t.to(DType::BF16);
            half(&x[0]).matmul(half(&x[1])).to(DType::F32).square().mean(..)
        }),
    ]
}

fn layers() -> Vec<(&'static str, Vec<Tensor>, Function)> {
    let matrix = |rows: usize, columns: usize| vec![normal(rows as u64, &[rows, columns])];
    vec![
        ("log_softmax", matrix(5, 33), |x| vec![x[0].log_softmax(-1)]),
        ("softmax of columns", matrix(300, 20), |x| vec![x[0].softmax(0)]),
        ("softmax of halves", matrix(6, 128), |x| vec![x[0].to(DType::F16).softmax(-1).to(DType::F32)]),
        ("cross_entropy", vec![normal(1, &[24, 300]), indices(2, &[24], 300)], |x| vec![x[0].cross_entropy(&x[1])]),
        ("gelu", matrix(13, 77), |x| vec![x[0].gelu()]),
        ("silu and softplus", matrix(13, 77), |x| vec![x[0].silu() + x[0].softplus()]),
        ("mean of all", matrix(210, 200), |x| vec![x[0].mean(..)]),
        ("var of all", matrix(210, 200), |x| vec![x[0].var(.., ()), x[0].amax(..)]),
        ("argmax of rows", matrix(40, 300), |x| vec![x[0].argmax(-1), x[0].argmax(0)]),
        ("argmax of all", matrix(180, 200), |x| vec![x[0].argmax(..)]),
        ("logsumexp", matrix(30, 1200), |x| vec![x[0].logsumexp(-1)]),
        ("cumsum", matrix(9, 130), |x| vec![x[0].cumsum(-1), x[0].cumsum(0)]),
        ("matmul of odd sides", vec![normal(1, &[37, 41]), normal(2, &[41, 29])], |x| vec![x[0].matmul(&x[1])]),
        ("matmul of tiles", vec![normal(1, &[128, 64]), normal(2, &[64, 128])], |x| vec![x[0].matmul(&x[1]).relu()]),
        ("matmul of transposes", vec![normal(1, &[40, 70]), normal(2, &[50, 40])], |x| vec![x[0].t().matmul(x[1].t())]),
        ("matmul with a long contraction", vec![normal(1, &[5, 1500]), normal(2, &[1500, 6])], |x| {
            vec![x[0].matmul(&x[1])]
        }),
        ("matmul with a vector", vec![normal(1, &[70, 300]), normal(2, &[300])], |x| vec![x[0].matmul(&x[1])]),
        ("batched matmul of halves", vec![normal(1, &[3, 33, 48]), normal(2, &[3, 48, 20])], |x| {
            vec![x[0].to(DType::F16).matmul(x[1].to(DType::F16)).to(DType::F32)]
        }),
        ("matmul of doubles", vec![normal(1, &[33, 20]), normal(2, &[20, 17])], |x| {
            vec![x[0].to(DType::F64).matmul(x[1].to(DType::F64)).to(DType::F32)]
        }),
        ("linear with epilogue", vec![normal(1, &[33, 64]), normal(2, &[64, 40]), normal(3, &[40])], |x| {
            vec![(x[0].matmul(&x[1]) + &x[2]).gelu_with(Gelu { approximate: Approximate::Tanh })]
        }),
        ("convolution", vec![normal(1, &[2, 3, 11, 10]), normal(2, &[5, 3, 3, 3])], |x| vec![x[0].conv2d(&x[1], ())]),
        ("depthwise convolution", vec![normal(1, &[2, 4, 11, 10]), normal(2, &[4, 1, 3, 3])], |x| {
            vec![x[0].conv2d(&x[1], Conv2d { groups: 4, ..Default::default() })]
        }),
        ("pooling", vec![normal(1, &[2, 3, 11, 10])], |x| vec![x[0].max_pool2d(2, ()), x[0].avg_pool2d(3, ())]),
        ("batch_norm", vec![normal(1, &[6, 5, 7, 7])], |x| {
            let (mean, var) = (x[0].mean(keep([0, 2, 3])), x[0].var(keep([0, 2, 3]), ()));
            vec![(&x[0] - mean) * (var + 1e-5).rsqrt()]
        }),
        ("gathers", vec![normal(1, &[20, 33]), indices(2, &[20, 7], 33), indices(3, &[9], 20)], |x| {
            vec![x[0].gather(-1, &x[1]), x[0].index_select(0, &x[2])]
        }),
        ("scatters", vec![normal(1, &[20, 33]), indices(2, &[20, 40], 33), normal(3, &[20, 40])], |x| {
            vec![x[0].scatter_add(1, &x[1], &x[2]), x[0].scatter_reduce(1, &x[1], &x[2], ScatterReduction::Amax)]
        }),
        ("triangle and where", matrix(33, 33), |x| vec![x[0].tril(0), x[0].where_(x[0].gt(0.0), -1.0)]),
        ("flip, roll and transpose", vec![normal(1, &[4, 33, 65])], |x| {
            vec![x[0].flip([1, 2]) + x[0].roll([3], [1]), x[0].permute([2, 0, 1]).exp()]
        }),
        ("topk", matrix(6, 50), |x| {
            let (values, positions) = x[0].topk(5, ());
            vec![values, positions]
        }),
    ]
}

fn gelu_residual(x: &[Tensor]) -> Vec<Tensor> {
    vec![(&x[0] + &x[1]).gelu_with(Gelu { approximate: Approximate::Tanh }) + &x[2]]
}

fn normalised(rows: usize, columns: usize) -> Vec<Tensor> {
    vec![fill(5, &[rows, columns], 3.0, 0.0), fill(6, &[columns], 1.0, 1.0), fill(7, &[columns], 1.0, 0.0)]
}

fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let options = LayerNorm { weight: Some(weight.clone()), bias: Some(bias.clone()), ..Default::default() };
    x.layer_norm(weight.shape(), options)
}

fn mlp_parameters() -> Vec<Tensor> {
    let (inputs, hidden, outputs) = (96, 48, 10);
    vec![
        fill(20, &[inputs, hidden], 0.2, 0.0),
        fill(21, &[hidden], 0.1, 0.0),
        fill(22, &[hidden, hidden], 0.3, 0.0),
        fill(23, &[hidden], 0.1, 0.0),
        fill(24, &[hidden, outputs], 0.3, 0.0),
        fill(25, &[outputs], 0.1, 0.0),
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

fn block_parameters() -> Vec<Tensor> {
    let (d, f) = (32, 64);
    vec![
        fill(50, &[d], 1.0, 1.0),
        fill(51, &[d], 1.0, 0.0),
        fill(52, &[d, 3 * d], 0.3, 0.0),
        fill(53, &[3 * d], 1.0, 0.0),
        fill(54, &[d, d], 0.3, 0.0),
        fill(55, &[d], 1.0, 0.0),
        fill(56, &[d], 1.0, 1.0),
        fill(57, &[d], 1.0, 0.0),
        fill(58, &[d, f], 0.3, 0.0),
        fill(59, &[f], 1.0, 0.0),
        fill(60, &[f, d], 0.3, 0.0),
        fill(61, &[d], 1.0, 0.0),
    ]
}

/// A transformer block: attention of four heads and a feed-forward layer, each after a normalisation and beside a residual.
fn block(x: &Tensor, p: &[Tensor]) -> Tensor {
    const HEADS: usize = 4;
    let (b, s, d) = (x.size(0), x.size(1), x.size(2));
    let qkv = layer_norm(x, &p[0], &p[1]).matmul(&p[2]) + &p[3];
    let heads = |i: usize| {
        let part = qkv.i((.., .., i * d..(i + 1) * d));
        part.reshape([b, s, HEADS, d / HEADS]).permute([0, 2, 1, 3])
    };
    let o = attention(&heads(0), &heads(1), &heads(2)).permute([0, 2, 1, 3]).reshape([b, s, d]);
    let x = x + o.matmul(&p[4]) + &p[5];
    let h = layer_norm(&x, &p[6], &p[7]);
    &x + (h.matmul(&p[8]) + &p[9]).gelu_with(Gelu { approximate: Approximate::Tanh }).matmul(&p[10]) + &p[11]
}

fn cnn_parameters() -> Vec<Tensor> {
    vec![
        fill(70, &[4, 1, 3, 3], 0.6, 0.0),
        fill(71, &[4], 1.0, 0.0),
        fill(72, &[6, 4, 3, 3], 0.3, 0.0),
        fill(73, &[6], 1.0, 0.0),
        fill(74, &[6 * 9, 10], 0.2, 0.0),
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
    h.reshape([x.size(0), 6 * 9]).matmul(&p[4]) + &p[5]
}
