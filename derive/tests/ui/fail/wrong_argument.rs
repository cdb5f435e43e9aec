use lazuli::prelude::*;

fn main() -> lazuli::Result<()> {
    let f = lazuli::compile(|(x, y): (Tensor, Tensor)| x + y);
    f.call((Tensor::ones([2]), "0.1"))?;
    Ok(())
}
