//! Tensors print as PyTorch prints them.

#![allow(clippy::unwrap_used)]

use lazuli::prelude::*;

#[test]
fn tensors_print_as_in_pytorch() {
    let cases = [
        (lazuli::tensor(1.5), "tensor(1.5000)"),
        (lazuli::tensor(7), "tensor(7)"),
        (lazuli::tensor(true), "tensor(True)"),
        (lazuli::tensor([1.0, 2.0, -3.0]), "tensor([ 1.,  2., -3.])"),
        (lazuli::tensor([1.0, 2.5]), "tensor([1.0000, 2.5000])"),
        (lazuli::tensor([1e-6, 1.0]), "tensor([1.0000e-06, 1.0000e+00])"),
        (lazuli::tensor([1.5, 20000.0]), "tensor([1.5000e+00, 2.0000e+04])"),
        (lazuli::tensor([f64::NAN, f64::INFINITY, 1.5]), "tensor([   nan,    inf, 1.5000])"),
        (lazuli::tensor([true, false]), "tensor([ True, False])"),
        (lazuli::tensor([[1, 20], [300, 4]]), "tensor([[  1,  20],\n        [300,   4]])"),
        (Tensor::zeros([0]), "tensor([])"),
        (Tensor::zeros([0, 3]), "tensor([], size=(0, 3))"),
        (Tensor::zeros([0]).to(DType::I64), "tensor([], dtype=i64)"),
        (lazuli::tensor([1.0]).requires_grad_(true), "tensor([1.], requires_grad=True)"),
        (Tensor::zeros([2, 1, 2]), "tensor([[[0., 0.]],\n\n        [[0., 0.]]])"),
    ];
    for (tensor, text) in cases {
        assert_eq!(tensor.to_string(), text);
    }
    let long = Tensor::arange(0..1001).to_string();
    assert_eq!(long, "tensor([   0,    1,    2,  ...,  998,  999, 1000])");
    let wide = Tensor::zeros([40, 40]).to_string();
    assert_eq!(wide.lines().count(), 7);
    assert!(wide.starts_with("tensor([[0., 0., 0.,  ..., 0., 0., 0.],\n"), "{wide}");
    assert!(wide.contains("        ...,\n"), "{wide}");
    let lines = Tensor::arange(0..30).to_string();
    assert_eq!(lines.lines().count(), 2);
}

#[test]
fn debugging_computes_nothing() {
    let x = Tensor::ones([2]) + 1.0;
    assert_eq!(format!("{x:?}"), "Tensor(f32[2], add pending)");
    x.eval().unwrap();
    assert_eq!(format!("{x:?}"), "Tensor(f32[2], ready)");
}
