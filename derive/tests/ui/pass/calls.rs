//! Every form of argument that a compiled function takes.

use lazuli::Compiled;
use lazuli::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Tree)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    #[tree(static)]
    rate: f64,
}

#[derive(Clone, Tree)]
struct Model<const N: usize> {
    layers: Vec<Linear>,
    heads: [Linear; N],
    #[tree(static)]
    activation: Activation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Activation {
    Relu,
}

#[derive(Clone, Tree)]
struct Pair<A, B>(A, B);

/// A compiled function has a name, so a struct can hold it.
struct Trainer<'f> {
    step: Compiled<'f, (Tensor, Tensor), Tensor>,
}

fn model() -> Model<1> {
    let linear = || Linear { weight: Tensor::ones([2, 2]), bias: None, rate: 0.5 };
    Model { layers: vec![linear(), linear()], heads: [linear()], activation: Activation::Relu }
}

fn shared_between_threads<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}

fn main() -> lazuli::Result<()> {
    let (x, w) = (Tensor::ones([2, 2]), Tensor::ones([2, 2]));

    let one = lazuli::compile(|x: Tensor| &x * 2.0);
    shared_between_threads(&one);
    one.call(&x)?;
    one.call(x.clone())?;
    one.call(3.0)?;

    let two = lazuli::compile(|(w, rate): (Tensor, Tensor)| &w - rate * &w);
    two.call((&w, 0.1))?;
    two.call((w.clone(), 1))?;

    let nested = lazuli::compile(|((a, b), c): ((Tensor, Tensor), Tensor)| (a + b, c));
    let (_, _) = nested.call(((&x, &w), 0.5))?;
    nested.call(&((x.clone(), w.clone()), x.clone()))?;

    let list = lazuli::compile(|all: Vec<Tensor>| all);
    list.call(vec![&x, &w])?;
    list.call(vec![x.clone()])?;
    list.call(&vec![x.clone(), w.clone()])?;

    let array = lazuli::compile(|[a, b]: [Tensor; 2]| a * b);
    array.call([&x, &w])?;

    let optional = lazuli::compile(|x: Option<Tensor>| x);
    optional.call(Some(&x))?;

    let map = lazuli::compile(|x: BTreeMap<String, Tensor>| x);
    map.call(BTreeMap::from([("a".to_owned(), &x)]))?;

    let derived = lazuli::compile(|(model, x): (Model<1>, Tensor)| {
        let Activation::Relu = model.activation;
        let y = model.layers.iter().fold(x, |x, layer| x.matmul(&layer.weight) * layer.rate);
        (model, y)
    });
    let (model, _) = derived.call((&model(), &x))?;
    derived.call((model, &x))?;

    let generic = lazuli::compile(|Pair(a, b): Pair<Tensor, Vec<Tensor>>| Pair(b, a));
    generic.call(Pair(x.clone(), vec![w.clone()]))?;
    generic.call(&Pair(x.clone(), vec![w.clone()]))?;

    let fallible = lazuli::compile(|x: Tensor| {
        let [rows, _columns] = x.dims()?;
        lazuli::Result::Ok(x * rows as f64)
    });
    fallible.call(&x)?;

    let trainer = Trainer { step: lazuli::compile(|(x, w): (Tensor, Tensor)| x.matmul(&w)) };
    trainer.step.clone().call((&x, &w))?;

    let captured = Tensor::ones([2, 2]);
    let borrows = lazuli::compile(|x: Tensor| x + &captured);
    borrows.call(&x)?;

    let nothing = lazuli::compile(|()| Tensor::ones([2]));
    nothing.call(())?;
    Ok(())
}
