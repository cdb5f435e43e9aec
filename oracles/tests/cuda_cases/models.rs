//! What models are made of, traced: the workloads of the benchmarks with smaller extents, training steps, and layers one by one.

use super::workloads::programs::{
    Cnn, Mlp, TransformerBlock, Workload, attention, fill, gelu_residual, indices, layer_norm, layernorm, normalised,
    softmax, sum, transpose_add,
};
use lazuli::options::{Approximate, Attention, Conv2d, Gelu, ScatterReduction};
use lazuli::{DType, Tensor, keep};
use lazuli_ir::reference::Dense;
use lazuli_ir::{Graph, Shape};
use lazuli_oracles::shim::GpuCase;

type Function = fn(&[Tensor]) -> Vec<Tensor>;

/// Every model, compiled for a GPU.
pub fn cases() -> Vec<GpuCase> {
    let workloads = workloads().into_iter().chain(losses()).map(|w| {
        let traced = w.trace().unwrap_or_else(|e| panic!("{}: {e}", w.name));
        case(&w.name, &traced.to_string(), w.data.iter().chain(&w.parameters))
    });
    let layers = layers().into_iter().map(|(name, inputs, function)| {
        let traced = lazuli::trace(|x: Vec<Tensor>| function(&x), &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        case(name, &traced.to_string(), inputs.iter())
    });
    workloads.chain(layers).collect()
}

fn case<'t>(name: &str, graph: &str, inputs: impl Iterator<Item = &'t Tensor>) -> GpuCase {
    let graph = Graph::parse(graph).unwrap_or_else(|e| panic!("{name}: {e}\n{graph}"));
    let inputs = inputs.map(dense).collect::<lazuli::Result<_>>().unwrap_or_else(|e| panic!("{name}: {e}"));
    GpuCase::of_graph(name, graph, inputs).unwrap_or_else(|e| panic!("{e}"))
}

fn dense(x: &Tensor) -> lazuli::Result<Dense> {
    match x.dtype() {
        DType::I64 => Dense::from_vec(x.to_vec::<i64>()?, Shape::new(x.shape())),
        DType::Bool => Dense::from_vec(x.to_vec::<bool>()?, Shape::new(x.shape())),
        _ => Dense::from_vec(x.to_vec::<f32>()?, Shape::new(x.shape())),
    }
}

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    fill(seed, shape, 4.0, 0.0)
}

fn workloads() -> Vec<Workload> {
    const MLP: Mlp = Mlp { batch: 16, inputs: 96, hidden: 48, classes: 10 };
    const BLOCK: TransformerBlock = TransformerBlock { batch: 2, sequence: 20, width: 32, heads: 4, hidden: 64 };
    const CNN: Cnn = Cnn { batch: 3, side: 12, features: [4, 6], classes: 10 };
    vec![
        gelu_residual("gelu_residual", 9, 300),
        gelu_residual("gelu_residual of whole vectors", 8, 256),
        softmax("softmax of warps", 7, 256),
        softmax("softmax of blocks", 3, 1500),
        softmax("softmax of long rows", 2, 9001),
        layernorm("layernorm of warps", 5, 200),
        layernorm("layernorm of blocks", 3, 1100),
        sum("sum_rows", 12, 2500, -1),
        sum("sum_cols", 2500, 12, 0),
        sum("sum_cols of many", 300, 130, 0),
        transpose_add("transpose_add", 70),
        MLP.forward("mlp_forward"),
        MLP.trained("mlp_train"),
        attention("attention", [2, 3, 40, 16]),
        BLOCK.forward("transformer_block_forward"),
        BLOCK.trained("transformer_block_train"),
        CNN.forward("cnn_forward"),
        CNN.trained("cnn_train"),
    ]
}

/// Steps that train layers.
fn losses() -> Vec<Workload> {
    let heads = (40..43).map(|seed| fill(seed, &[2, 3, 17, 8], 2.0, 0.0)).collect();
    vec![
        Workload::trained("masked attention trained", (vec![], heads), |_, p| {
            let y =
                p[0].scaled_dot_product_attention(&p[1], &p[2], Attention { is_causal: true, ..Default::default() });
            (&y * &y).sum(..)
        }),
        Workload::trained("layer_norm trained", (vec![], normalised(6, 96)), |_, p| {
            layer_norm(&p[0], &p[1], &p[2]).square().mean(..)
        }),
        Workload::trained("layer_norm of long rows trained", (vec![], normalised(3, 1300)), |_, p| {
            layer_norm(&p[0], &p[1], &p[2]).square().mean(..)
        }),
        Workload::trained("softmax trained", (vec![normal(1, &[9, 70])], vec![normal(2, &[9, 70])]), |d, p| {
            (p[0].softmax(-1) * &d[0]).sum(..)
        }),
        Workload::trained("gelu trained", (vec![], vec![normal(1, &[7, 130]), normal(2, &[130])]), |_, p| {
            (&p[0] + &p[1]).gelu().mean(..)
        }),
        Workload::trained("pooling trained", (vec![], vec![normal(1, &[2, 3, 12, 13])]), |_, p| {
            p[0].max_pool2d(3, ()).square().sum(..) + p[0].avg_pool2d(2, ()).square().sum(..)
        }),
        Workload::trained("embedding trained", (vec![indices(3, &[40], 11)], vec![normal(1, &[11, 24])]), |d, p| {
            d[0].embedding(&p[0], ()).square().sum(..)
        }),
        Workload::trained(
            "group_norm and convolution trained",
            (vec![normal(1, &[2, 4, 9, 9])], vec![normal(2, &[6, 4, 3, 3])]),
            |d, p| {
                let options = Conv2d { stride: [2, 2], ..Default::default() };
                d[0].group_norm(2, ()).conv2d(&p[0], options).silu().mean(..)
            },
        ),
        Workload::trained(
            "half precision trained",
            (vec![normal(1, &[12, 40])], vec![fill(2, &[40, 24], 0.5, 0.0)]),
            |d, p| {
                let half = |t: &Tensor| t.to(DType::BF16);
                half(&d[0]).matmul(half(&p[0])).to(DType::F32).square().mean(..)
            },
        ),
    ]
}

fn layers() -> Vec<(&'static str, Vec<Tensor>, Function)> {
    let matrix = |rows: usize, columns: usize| vec![normal(rows as u64, &[rows, columns])];
    vec![
        ("log_softmax", matrix(5, 33), |x| vec![x[0].log_softmax(-1)]),
        ("softmax of columns", matrix(300, 20), |x| vec![x[0].softmax(0)]),
        ("softmax of halves", matrix(6, 128), |x| vec![x[0].to(DType::F16).softmax(-1).to(DType::F32)]),
        ("cross_entropy", vec![normal(1, &[24, 300]), indices(2, &[24], 300)], |x| vec![x[0].cross_entropy(&x[1])]),
        ("normalised columns", matrix(365, 4), |x| {
            let centred = &x[0] - x[0].mean(keep(0));
            vec![&centred / (centred.square().mean(keep(0)) + 1e-6).sqrt()]
        }),
        ("gelu", matrix(13, 77), |x| vec![x[0].gelu()]),
        ("silu and softplus", matrix(13, 77), |x| vec![x[0].silu() + x[0].softplus()]),
        ("mean of all", matrix(210, 200), |x| vec![x[0].mean(..)]),
        ("var of all", matrix(210, 200), |x| vec![x[0].var(.., ()), x[0].amax(..)]),
        ("argmax of rows", matrix(40, 300), |x| vec![x[0].argmax(-1), x[0].argmax(0)]),
        ("argmax of all", matrix(180, 200), |x| vec![x[0].argmax(..)]),
        ("logsumexp", matrix(30, 1200), |x| vec![x[0].logsumexp(-1)]),
        ("cumsum", matrix(9, 130), |x| vec![x[0].cumsum(-1), x[0].cumsum(0)]),
        ("cumsum of long rows", matrix(3, 2900), |x| vec![x[0].exp().cumsum(-1) * &x[0]]),
        ("cumsum of all", vec![normal(1, &[1000])], |x| vec![x[0].cumsum(0), x[0].flip(0).cumsum(0).flip(0)]),
        ("cumulative products and largest", matrix(40, 200), |x| {
            vec![(&x[0] * 0.1 + 1.0).cumprod(1), x[0].cummax(1).0]
        }),
        ("cumsum of integers", vec![indices(1, &[300, 6], 90)], |x| vec![x[0].cumsum(0), x[0].cumsum(1)]),
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
