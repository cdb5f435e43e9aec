use lazuli::prelude::*;

#[derive(Clone, Debug)]
struct Width(usize);

#[derive(Clone, Tree)]
struct Linear {
    weight: Tensor,
    #[tree(static)]
    width: Width,
}

fn main() {}
