//! Where inputs lie in memory: the layouts that views have, and arrays with values in them.

use crate::data::of_literals;
use crate::rng::Rng;
use lazuli_ir::reference::Dense;
use lazuli_ir::{Element, Layout, Literal, Result, Shape, with_element};
use lazuli_runtime::Array;

/// A layout as views have it: dims in any order, repeated (stride 0), stepped, backwards, with gaps, from an offset.
pub fn random_layout(random: &mut Rng, shape: &Shape) -> Layout {
    if random.one_in(3) {
        return Layout::contiguous(shape.clone());
    }
    let mut order: Vec<usize> = (0..shape.rank()).collect();
    if random.one_in(2) {
        random.shuffle(&mut order);
    }
    let extents = shape.extents();
    let mut layout = Layout::contiguous(shape.clone());
    layout.offset = random.below(4) as i64;
    let mut next = 1;
    for d in order.into_iter().rev() {
        let reach = extents[d].saturating_sub(1) as i64;
        let step = next * random.pick(&[1, 1, 1, 1, 2, 3]).unwrap_or(1);
        match random.below(8) {
            0 => layout.strides[d] = 0,
            1 => {
                layout.strides[d] = -step;
                layout.offset += reach * step;
                next = step * (reach + 1);
            }
            kind => {
                layout.strides[d] = step;
                next = step * (reach + 1) + i64::from(kind == 2);
            }
        }
    }
    layout
}

/// What a layout has that makes a kernel read it in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Row-major from the first element.
    Contiguous,
    /// Dims in another order.
    Transposed,
    /// Steps or gaps.
    Strided,
    /// A dim backwards.
    Negative,
    /// A dim repeated.
    Broadcast,
    /// From a later element.
    Offset,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 6] =
        [Class::Contiguous, Class::Transposed, Class::Strided, Class::Negative, Class::Broadcast, Class::Offset];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Class::Contiguous => "contiguous",
            Class::Transposed => "transposed",
            Class::Strided => "strided",
            Class::Negative => "negative",
            Class::Broadcast => "broadcast",
            Class::Offset => "offset",
        }
    }
}

/// The classes that a layout belongs to.
pub fn classes(layout: &Layout) -> Vec<Class> {
    let dims: Vec<(usize, i64)> =
        layout.shape.extents().into_iter().zip(layout.strides.iter().copied()).filter(|(n, _)| *n > 1).collect();
    let moving: Vec<(usize, i64)> = dims.iter().map(|(n, s)| (*n, s.abs())).filter(|(_, s)| *s != 0).collect();
    let mut sorted = moving.clone();
    sorted.sort_by_key(|(_, s)| *s);
    let mut next = 1;
    let dense = sorted.iter().all(|(n, s)| {
        let fits = *s == next;
        next = s * *n as i64;
        fits
    });
    let has = |class: &Class| match class {
        Class::Contiguous => *layout == Layout::contiguous(layout.shape.clone()),
        Class::Transposed => !moving.windows(2).all(|w| w[0].1 >= w[1].1),
        Class::Strided => !dense,
        Class::Negative => dims.iter().any(|(_, s)| *s < 0),
        Class::Broadcast => dims.iter().any(|(_, s)| *s == 0),
        Class::Offset => layout.offset > 0 && dims.iter().all(|(_, s)| *s >= 0),
    };
    Class::ALL.into_iter().filter(has).collect()
}

/// A layout of a class, where the shape allows it.
pub fn layout_of(random: &mut Rng, shape: &Shape, class: Class) -> Layout {
    let contiguous = Layout::contiguous(shape.clone());
    if class == Class::Contiguous {
        return contiguous;
    }
    let tries = (0..64).map(|_| random_layout(random, shape));
    tries.into_iter().find(|l| classes(l).contains(&class)).unwrap_or(contiguous)
}

/// The value with the elements along repeated dims made equal, as such a layout needs it.
pub fn repeated(value: &Dense, layout: &Layout) -> Dense {
    let shape = &layout.shape;
    let row_major = Layout::contiguous(shape.clone());
    let strides = row_major.strides.iter().zip(&layout.strides).map(|(s, t)| if *t == 0 { 0 } else { *s }).collect();
    let first = Layout { strides, ..row_major };
    let all: Vec<Literal> = value.literals().collect();
    of_literals(value.ty(), first.numbers().map(|n| all[n as usize]).collect())
}

/// An array of these elements with this layout. What lies between them would show if it were read.
pub fn array(value: &Dense, layout: &Layout) -> Result<Array> {
    let between = crate::data::garbage(value.ty().dtype);
    with_element!(value.ty().dtype, T => place::<T>(value, layout, T::from_literal(between)))
}

fn place<T: Element>(value: &Dense, layout: &Layout, between: T) -> Result<Array> {
    let (_, end) = layout.bounds();
    let mut storage = vec![between; end.max(0) as usize];
    for (n, x) in layout.numbers().zip(value.literals()) {
        storage[n as usize] = T::from_literal(x);
    }
    let n = storage.len();
    Array::from_vec(storage, &Shape::new([n]))?.with_layout(layout.clone())
}

/// The elements of an array.
pub fn dense(array: &Array) -> Result<Dense> {
    with_element!(array.dtype(), T => Dense::from_vec(array.to_vec::<T>()?, array.shape().clone()))
}

/// The bits of an array's elements, every NaN alike: no operation promises a NaN's sign and payload.
pub fn bits(array: &Array) -> Result<Vec<u64>> {
    let bits = |l: Literal| if l.is_nan() { u64::MAX } else { l.bits() };
    Ok(with_element!(array.dtype(), T => array.to_vec::<T>()?.into_iter().map(|v| bits(v.literal())).collect()))
}
