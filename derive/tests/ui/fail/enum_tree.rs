use lazuli::prelude::*;

#[derive(Clone, Tree)]
enum Layer {
    Linear(Tensor),
    Nothing,
}

fn main() {}
