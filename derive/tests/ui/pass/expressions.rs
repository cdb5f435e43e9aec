//! Operators on tensors, references and numbers in every combination that reads well.

use lazuli::prelude::*;

fn main() -> lazuli::Result<()> {
    let (a, b) = (Tensor::ones([2]), Tensor::ones([2]));
    let _ = (&b * 2.0).exp();
    let _ = 2.0 * &a;
    let _ = 2 * &a + &b;
    let _ = 1.0 - a.clone() / 3;
    let _ = &a + &b * 2.0 - a.clone();
    let _ = -&a * -b.clone();
    let (loss, gradient) = lazuli::value_and_grad(|w: &Tensor| (w * &a).sum(..))(&b);
    let _ = (loss, &b - 0.1 * gradient);
    let ((_, aux), gradients) =
        lazuli::value_and_grad(|(w, v): &(Tensor, Tensor)| ((w * v).sum(..), (w + v, v * 2.0)))(&(a.clone(), b.clone()));
    let _ = (aux.0, gradients.1);
    let second = lazuli::grad(|x: &Tensor| lazuli::grad(|x: &Tensor| x.exp().sum(..))(x).sum(..));
    let _ = second(&a);
    Ok(())
}
