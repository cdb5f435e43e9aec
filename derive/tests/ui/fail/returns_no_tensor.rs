use lazuli::prelude::*;

fn main() {
    let _ = lazuli::compile(|x: Tensor| x.sum(..).item::<f32>().unwrap_or(0.0));
}
