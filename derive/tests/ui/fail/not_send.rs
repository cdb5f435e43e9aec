use lazuli::prelude::*;
use std::cell::Cell;

fn main() {
    let count = Cell::new(0);
    let _ = lazuli::compile(|x: Tensor| {
        count.set(count.get() + 1);
        x
    });
}
