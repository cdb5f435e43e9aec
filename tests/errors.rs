//! What a wrong program says: the whole text of its errors, and that the call after each is right.
//!
//! The texts are snapshots in `tests/snapshots`; `INSTA_UPDATE=always cargo test --test errors` rewrites them: read the
//! difference before you commit it.

use lazuli::prelude::*;
use std::fmt::Write;

/// The error of reading a tensor, and a check that the next program is right.
fn error_of(t: &Tensor) -> String {
    let text = match t.eval() {
        Ok(()) => format!("no error: {t}"),
        Err(e) => format!("{e:?}"),
    };
    let next = (lazuli::tensor([1.0, 2.0]) + 1.0).to_vec::<f32>();
    assert_eq!(next.ok().as_deref(), Some([2.0, 3.0].as_slice()), "after {text}");
    text
}

fn report(cases: &[(&str, Tensor)]) -> String {
    cases.iter().fold(String::new(), |mut all, (name, t)| {
        let _ = writeln!(all, "{name}\n  {}\n", error_of(t).replace('\n', "\n  "));
        all
    })
}

#[test]
fn recorded_errors() {
    let x = Tensor::zeros([2, 3]);
    let cases = [
        ("shapes that do not broadcast", &x + Tensor::zeros([4])),
        ("inner dims that differ", x.matmul(Tensor::zeros([4, 5]))),
        ("a difference of booleans", x.eq(0.0) - x.eq(1.0)),
        ("the mean of integers", lazuli::tensor([1, 2]).mean(..)),
        ("a dim out of range", x.sum(2)),
        ("a dim given twice", x.sum([0, 0])),
        ("an index out of range", x.i((0, 3))),
        ("too many indices", x.i((0, 0, 0))),
        ("another number of elements", x.reshape([4, 2])),
        ("a view of a transposed tensor, which copies", x.t().view([6])),
        ("an expansion of a dim that is not 1", x.expand([4, 3])),
        ("data of another length", Tensor::from_vec(vec![1.0f32; 5], [2, 3])),
        ("a size beyond any memory", Tensor::zeros([1 << 40, 1 << 40])),
        ("the largest of nothing", Tensor::zeros([0, 3]).max(0)),
        ("the position of nothing", Tensor::zeros([0]).argmax(..)),
        ("a label above the classes", x.cross_entropy(lazuli::tensor([0, 3]))),
        ("a label below zero", x.cross_entropy(lazuli::tensor([0, -1]))),
        ("the first of two errors", (&x + Tensor::zeros([4])).sum(9)),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn errors_of_each_family() {
    let x = Tensor::zeros([2, 3]);
    let part = x.split(0, 1).map_err(|e| format!("{e:?}")).err().unwrap_or_default();
    let grid = x.split([1, 1], 1).map_err(|e| format!("{e:?}")).err().unwrap_or_default();
    let cases = [
        ("parts whose dims differ", lazuli::cat(&[x.clone(), Tensor::zeros([2, 4])], 0)),
        ("nothing to join", lazuli::stack::<Tensor>(&[], 0)),
        ("an index of another rank", x.gather(1, &lazuli::tensor([0]))),
        ("an index of floats", x.index_select(0, &lazuli::tensor([0.0]))),
        ("a mask of another shape", x.i(Tensor::ones([3]).gt(0.0))),
        ("a source of another dtype", x.scatter_add(1, &lazuli::tensor([[0], [1]]), lazuli::tensor([[1], [2]]))),
        ("a part beyond the dim", x.narrow(1, 2, 2)),
        ("more elements than there are", x.topk(4, ()).0),
        ("the median of nothing", Tensor::zeros([0]).median(..).0),
        ("the variance of integers", lazuli::tensor([1, 2]).var(.., ())),
        ("an equation with too few letters", lazuli::einsum("i->i", &[&x])),
        ("batches that do not broadcast", Tensor::zeros([2, 1, 3]).bmm(Tensor::zeros([3, 3, 1]))),
        ("a bias for other features", x.linear(Tensor::zeros([4, 3]), Linear { bias: Some(Tensor::zeros([3])) })),
        ("channels that groups do not divide", Tensor::zeros([1, 3, 2]).group_norm(2, ())),
        ("a kernel larger than the input", Tensor::zeros([1, 1, 2]).conv1d(&Tensor::zeros([1, 1, 3]), ())),
        ("a mirrored padding as long as the dim", x.pad([3, 0], Pad { mode: PadMode::Reflect, ..Default::default() })),
        ("neither a size nor a scale", Tensor::zeros([1, 1, 2]).interpolate(())),
        ("queries of other features", x.scaled_dot_product_attention(&Tensor::zeros([2, 4]), &x, ())),
        ("labels of booleans", x.cross_entropy(lazuli::tensor([true, false]))),
        ("a negative power of integers", lazuli::tensor([2]).pow(-1)),
        ("bits of floats", x.bitwise_and(1)),
        ("a shift of a boolean by a float", lazuli::tensor([true]) << 1.0),
        ("an integer divided by zero", lazuli::tensor([1]).floor_divide(0)),
        ("an index out of range, found when it runs", x.gather(1, &lazuli::tensor([[0], [3]]))),
        ("a diagonal of a vector", lazuli::tensor([1]).diagonal(())),
    ];
    insta::assert_snapshot!(format!(
        "{}parts of no extent\n  {part}\n\nparts that do not add up\n  {grid}\n",
        report(&cases)
    ));
}

#[test]
fn values_where_pytorch_has_values() -> lazuli::Result<()> {
    assert_eq!(Tensor::zeros([0]).sum(..).item::<f32>()?, 0.0);
    assert!(Tensor::zeros([0]).mean(..).item::<f32>()?.is_nan());
    assert_eq!(Tensor::zeros([0, 3]).sum(0).to_vec::<f32>()?, [0.0; 3]);
    assert_eq!(Tensor::zeros([0, 3]).max(1).shape(), [0]);
    assert_eq!(Tensor::zeros([2, 0]).matmul(Tensor::zeros([0, 3])).to_vec::<f32>()?, [0.0; 6]);
    let all = lazuli::tensor([f32::NEG_INFINITY, f32::NEG_INFINITY]).softmax(-1).to_vec::<f32>()?;
    assert!(all.iter().all(|v| v.is_nan()));
    assert_eq!(lazuli::tensor([1e30, 0.0]).log_softmax(-1).to_vec::<f32>()?, [0.0, -1e30]);
    Ok(())
}

#[test]
fn a_tensor_beyond_memory_is_an_error_and_not_the_end() {
    // 2^40 elements are an idea until someone wants them stored.
    let x = Tensor::zeros([1 << 40]);
    assert!(x.check().is_ok());
    let e = (x.exp() + 1.0).eval();
    let e = e.err().map(|e| (e.kind(), e.to_string()));
    assert!(matches!(&e, Some((lazuli::ErrorKind::Memory, _))), "{e:?}");
    assert_eq!(error_of(&lazuli::tensor([1.0])), "no error: tensor([1.])");
}

#[test]
fn gradients_and_traces() -> lazuli::Result<()> {
    let mut all = String::new();
    let mut note = |name: &str, e: Option<lazuli::Error>| {
        let e = e.map_or_else(|| "no error".into(), |e| format!("{e:?}"));
        let _ = writeln!(all, "{name}\n  {}\n", e.replace('\n', "\n  "));
    };
    let w = Tensor::ones([2]).requires_grad_(true);
    note("backward of what is no number", (&w * 2.0).backward().err());
    note("backward without history", Tensor::ones([1]).sum(..).backward().err());
    let loss = w.exp().sum(..);
    loss.backward()?;
    note("backward a second time", loss.backward().err());
    note("an integer that requires grad", lazuli::tensor([1]).requires_grad_(true).check().err());
    note("item of several elements", w.item::<f32>().err());
    note("elements as another type", w.to_vec::<i64>().err());
    let f = lazuli::compile(|x: Tensor| -> lazuli::Result<Tensor> {
        x.item::<f32>()?;
        Ok(x)
    });
    note("a value read inside a trace", f.call(1.0).err());
    let seeded = lazuli::compile(|x: Tensor| -> lazuli::Result<Tensor> {
        lazuli::manual_seed(1)?;
        Ok(x)
    });
    note("a seed inside a trace", seeded.call(1.0).err());
    let shapes = lazuli::compile(|(x, y): (Tensor, Tensor)| x + y);
    note("a wrong shape in a compiled function", shapes.call((Tensor::ones([2]), Tensor::ones([3]))).err());
    let labels = lazuli::compile(|(x, y): (Tensor, Tensor)| x.cross_entropy(&y));
    note("a label out of range in a compiled call", labels.call((Tensor::zeros([1, 3]), lazuli::tensor([5]))).err());
    assert!(labels.call((Tensor::zeros([1, 3]), lazuli::tensor([2])))?.item::<f32>()?.is_finite());
    insta::assert_snapshot!(all);
    Ok(())
}
