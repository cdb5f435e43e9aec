//! What recording promises: errors are carried and name what the user called, deep graphs are no burden, traces are scopes.

#![allow(clippy::unwrap_used)]

use lazuli::prelude::*;
use lazuli::{Error, ErrorKind};

fn error(tensor: &Tensor) -> Error {
    tensor.check().unwrap_err()
}

#[test]
fn errors_name_the_operation_the_operands_and_the_line() {
    let (a, b) = (Tensor::zeros([2, 3]), Tensor::zeros([4, 5]));
    let wrong = a.matmul(&b);
    let line = line!() - 1;
    let e = error(&wrong);
    assert_eq!(e.kind(), ErrorKind::Shape);
    assert_eq!(e.operation(), Some("matmul"));
    assert_eq!(e.sources()[0].line, line);
    assert!(e.sources()[0].file.ends_with("recording.rs"));
    assert!(e.to_string().starts_with("matmul(f32[2,3], f32[4,5]): "), "{e}");

    // Operators keep the user's line too, and the first error wins.
    let sum = &a + &b;
    let line = line!() - 1;
    let later = (sum.exp() * 2.0).sum(7);
    assert_eq!(error(&later).operation(), Some("add"));
    assert_eq!(error(&later).sources()[0].line, line);
    assert_eq!(later.to_vec::<f32>().unwrap_err().to_string(), error(&sum).to_string());
    assert!(later.to_string().contains("add(f32[2,3], f32[4,5])"));
}

#[test]
fn each_wrong_argument_is_an_error_of_its_kind() {
    use ErrorKind::{Autograd, DType as Type, Dim, Index, Shape, Value};
    let x = Tensor::zeros([2, 3]);
    let int = lazuli::tensor([1, 2]);
    let cases: Vec<(Tensor, ErrorKind, &str)> = vec![
        (x.sum(2), Dim, "sum"),
        (x.sum([0, -2]), Dim, "sum"),
        (int.mean(..), Type, "mean"),
        (Tensor::zeros([0, 3]).max(0), Shape, "max"),
        (Tensor::zeros([0, 3]).argmax(..), Shape, "argmax"),
        (x.reshape([4, -1]), Shape, "reshape"),
        (x.reshape([-1, -1]), Shape, "reshape"),
        (x.view([7]), Shape, "view"),
        (x.permute([0, 0]), Dim, "permute"),
        (x.transpose(0, 2), Dim, "transpose"),
        (Tensor::zeros([1, 1, 1]).t(), Dim, "t"),
        (x.unsqueeze(4), Dim, "unsqueeze"),
        (x.expand([2, 4]), Shape, "expand"),
        (x.broadcast_to([3, 2]), Shape, "broadcast_to"),
        (x.i(2), Index, "i"),
        (x.i((0, 0, 0)), Index, "i"),
        (x.i((0..2).step(0)), Value, "i"),
        (x.i((Ellipsis, Ellipsis)), Index, "i"),
        (x.matmul(1.0), Shape, "matmul"),
        (x.matmul(Tensor::zeros([3, 1]).to(DType::I64)), Type, "matmul"),
        (lazuli::tensor([true]) - lazuli::tensor([true]), Type, "sub"),
        (-lazuli::tensor([true]), Type, "neg"),
        (lazuli::where_(&int, 1, 2), Type, "where_"),
        (int.softmax(-1), Type, "softmax"),
        (x.layer_norm([2], ()), Shape, "layer_norm"),
        (x.cross_entropy(lazuli::tensor([0])), Shape, "cross_entropy"),
        (x.cross_entropy(lazuli::tensor([0.0, 1.0])), Shape, "cross_entropy"),
        (x.cross_entropy(lazuli::tensor([true, false])), Type, "cross_entropy"),
        (x.mse_loss(Tensor::zeros([4])), Shape, "mse_loss"),
        (int.requires_grad_(true), Autograd, "requires_grad_"),
        (Tensor::from_vec(vec![1.0f32; 5], [2, 3]), Shape, "from_vec"),
        (Tensor::zeros([1 << 40, 1 << 40]), Shape, "zeros"),
        (Tensor::arange((0..4).step(0)), Value, "arange"),
        (Tensor::arange((0..4).step(-1)), Value, "arange"),
        (Tensor::arange(0.0..f64::INFINITY), Value, "arange"),
        (x.flatten(1..1), Dim, "flatten"),
    ];
    for (tensor, kind, operation) in cases {
        let e = error(&tensor);
        assert_eq!((e.kind(), e.operation()), (kind, Some(operation)), "{e}");
        assert!(e.sources()[0].file.ends_with("recording.rs"), "{e}");
        assert!(tensor.eval().is_err());
    }
}

#[test]
fn a_tensor_too_large_for_memory_is_an_error_when_it_is_computed() {
    let huge = Tensor::zeros([1 << 40]) + Tensor::arange(0..1i64 << 40);
    assert!(huge.check().is_ok());
    assert_eq!(huge.eval().unwrap_err().kind(), ErrorKind::Memory);
    // The next computation is right.
    assert_eq!((Tensor::ones([2]) + 1.0).to_vec::<f32>().unwrap(), [2.0, 2.0]);
}

#[test]
fn reading_with_another_type_or_shape_is_an_error() {
    let x = lazuli::tensor([1.0, 2.0]);
    assert_eq!(x.item::<f32>().unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(x.to_vec::<i64>().unwrap_err().kind(), ErrorKind::DType);
    assert_eq!(x.dims::<2>().unwrap_err().kind(), ErrorKind::Shape);
}

/// Runs on a thread whose stack is 512 KiB.
fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(512 << 10).spawn(f).unwrap().join().unwrap();
}

#[test]
fn a_chain_of_a_million_nodes_records_evaluates_and_drops() {
    on_a_small_stack(|| {
        let mut x = Tensor::zeros(());
        for _ in 0..500_000 {
            x += 1.0;
        }
        assert_eq!(x.item::<f32>().unwrap(), 500_000.0);
    });
}

#[test]
fn a_deep_history_differentiates_and_drops() {
    on_a_small_stack(|| {
        let leaf = lazuli::tensor(1.0).requires_grad_(true);
        let mut x = leaf.clone();
        for _ in 0..50_000 {
            x = x * 1.0 + 0.0;
        }
        x.backward().unwrap();
        assert_eq!(leaf.grad().unwrap().item::<f32>().unwrap(), 1.0);
        // And one that is never gone through.
        let mut y = leaf.clone();
        for _ in 0..50_000 {
            y = -y;
        }
        drop(y);
    });
}

#[test]
fn a_pending_chain_that_is_never_read_drops() {
    on_a_small_stack(|| {
        // Inside a trace nothing is evaluated, so the chain stays whole.
        let long = lazuli::compile(|x: Tensor| {
            let mut y = x.clone();
            for _ in 0..100_000 {
                y += 1.0;
            }
            drop(y);
            x
        });
        assert_eq!(long.call(lazuli::tensor(1.0)).unwrap().item::<f32>().unwrap(), 1.0);
    });
}

#[test]
fn values_do_not_cross_the_border_of_a_trace() {
    let reading = lazuli::compile(|x: Tensor| {
        let inside = x.item::<f32>();
        assert_eq!(inside.unwrap_err().kind(), ErrorKind::Trace);
        assert_eq!(Tensor::ones([1]).item::<f32>().unwrap_err().kind(), ErrorKind::Trace);
        assert!(x.to_string().contains("traced f32[]"));
        assert_eq!(lazuli::manual_seed(1).unwrap_err().kind(), ErrorKind::Trace);
        x + 1.0
    });
    assert_eq!(reading.call(lazuli::tensor(1.0)).unwrap().item::<f32>().unwrap(), 2.0);

    let leaked = std::sync::Mutex::new(None);
    let leaking = lazuli::compile(|x: Tensor| {
        *leaked.lock().unwrap() = Some(&x * 2.0);
        x
    });
    leaking.call(lazuli::tensor(1.0)).unwrap().eval().unwrap();
    let outside = leaked.lock().unwrap().take().unwrap();
    let e = outside.item::<f32>().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Trace);
    assert_eq!((outside + 1.0).eval().unwrap_err().kind(), ErrorKind::Trace);
}
