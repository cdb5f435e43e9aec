use lazuli::prelude::*;

#[derive(Clone, Tree)]
struct Linear {
    weight: Tensor,
    width: usize,
}

fn main() {}
