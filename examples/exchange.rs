//! Values of the `ndarray` crate go in and come out without copying: `cargo run --release --example exchange`.

use lazuli::prelude::*;
use ndarray::{Array2, Axis, Ix1, Ix2, s};

fn main() -> lazuli::Result<()> {
    // Measurements as another crate hands them over: rows of days, columns of sensors, the latest day first.
    let mut measured = Array2::from_shape_fn((365, 4), |(day, sensor)| (day as f32 / 58.0).sin() + sensor as f32);
    measured.invert_axis(Axis(0));

    // Moved in, with the strides they have: the allocation is the tensor's storage now.
    let x = Tensor::from_ndarray(measured);
    let normalise = lazuli::compile(|x: Tensor| {
        let centred = &x - x.mean(lazuli::keep(0));
        &centred / (centred.square().mean(lazuli::keep(0)) + 1e-6).sqrt()
    });
    let y = normalise.call(&x)?;

    // Lent out: a view of the tensor's storage, for as long as `lent` lives, whatever becomes of the tensor.
    let lent = y.lend::<f32>()?;
    let view = lent.view_of::<Ix2>()?;
    println!("the last week of sensor 2: {:.2}", view.slice(s![..7, 2]));
    let correlation = view.column(0).dot(&view.column(3)) / view.nrows() as f32;
    println!("correlation of sensors 0 and 3: {correlation:.3}");

    // A tensor that is a view of another is lent as it lies, too; `standard` copies where rows must be whole.
    let days = y.t().lend::<f32>()?;
    println!("lent transposed: shape {:?}, strides {:?}", days.shape(), days.strides());
    println!("row-major without a copy: {}", days.standard()?.is_view());

    // What is lent counts as held: a call that is given the tensor leaves its storage alone.
    let next = normalise.call(y)?;
    println!("the lent rows still begin with {:.2}", lent.view()?.index_axis(Axis(0), 0));
    println!("sums of the new ones: {:.1}", next.sum(0).lend::<f32>()?.view_of::<Ix1>()?);
    Ok(())
}
