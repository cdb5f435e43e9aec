use lazuli::prelude::*;

#[derive(Clone, Tree)]
struct Linear {
    weight: Tensor,
    #[tree(skip)]
    width: usize,
}

fn main() {}
