//! New tensors: from data, filled, counted, random.

use crate::Tensor;
use crate::dims::IntoShape;
use crate::operand::{Argument, Number, Operand, Scalar};
use crate::ops::arithmetic::{add, mul};
use crate::ops::index::Stepped;
use crate::ops::selection::where_;
use crate::promotion::{float_type, result_type, shape_of, tensors};
use crate::trace;
use lazuli_ir::{DType, Element, Error, ErrorKind, Op, Result, Shape};
use lazuli_runtime::Array;
use std::ops::Range;

/// A number of a nested array for [`tensor`](crate::tensor).
pub trait TensorData {
    /// The element type a tensor of it has: floats take the default `f32`, integers `i64`.
    type Element: Element;

    /// The shape below this level. Fails where parts differ.
    fn shape(&self) -> Result<Vec<usize>>;

    /// Appends the elements in row-major order.
    fn append(&self, out: &mut Vec<Self::Element>);
}

macro_rules! data_leaves {
    ($($t:ty => $element:ty;)*) => {$(
        impl TensorData for $t {
            type Element = $element;
            fn shape(&self) -> Result<Vec<usize>> {
                Ok(Vec::new())
            }
            fn append(&self, out: &mut Vec<$element>) {
                out.push(*self as $element);
            }
        }
    )*};
}

data_leaves! {
    f64 => f32;
    f32 => f32;
    i64 => i64;
    i32 => i64;
    u8 => i64;
    usize => i64;
    bool => bool;
}

fn nested<T: TensorData>(parts: &[T]) -> Result<Vec<usize>> {
    let mut shape = parts.first().map_or(Ok(Vec::new()), T::shape)?;
    for (i, part) in parts.iter().enumerate() {
        let other = part.shape()?;
        if other != shape {
            let message = format!("parts of one array differ: part 0 has shape {shape:?}, part {i} {other:?}");
            return Err(Error::new(ErrorKind::Shape, message));
        }
    }
    shape.insert(0, parts.len());
    Ok(shape)
}

macro_rules! data_nests {
    ($([$($generics:tt)*] $t:ty;)*) => {$(
        impl<T: TensorData, $($generics)*> TensorData for $t {
            type Element = T::Element;
            fn shape(&self) -> Result<Vec<usize>> {
                nested(&self[..])
            }
            fn append(&self, out: &mut Vec<T::Element>) {
                self.iter().for_each(|part| part.append(out));
            }
        }
    )*};
}

data_nests! {
    [const N: usize] [T; N];
    [] Vec<T>;
    [] &[T];
    [const N: usize] &[T; N];
    [] &Vec<T>;
}

/// A tensor of a number, or of nested arrays, slices or vectors of numbers: `torch.tensor`. Floats give the default dtype
/// `f32`, integers `i64`, booleans `bool`; [`Tensor::from_vec`] takes a vector without copying.
///
/// # Errors
/// Carried: vectors of different lengths side by side.
///
/// ```
/// # use lazuli::prelude::*;
/// let x = lazuli::tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!((x.shape(), x.dtype()), (vec![2, 3], DType::F32));
/// assert_eq!(lazuli::tensor(7).item::<i64>()?, 7);
/// assert!(lazuli::tensor(vec![vec![1], vec![2, 3]]).check().is_err());
/// # Ok::<(), lazuli::Error>(())
/// ```
#[track_caller]
pub fn tensor(data: impl TensorData) -> Tensor {
    match data.shape() {
        Ok(shape) => {
            let mut elements = Vec::with_capacity(shape.iter().product());
            data.append(&mut elements);
            Tensor::from_array(Array::from_vec(elements, &Shape::new(shape)))
        }
        Err(e) => Tensor::fail("tensor", &[], e.kind(), e.message()),
    }
}

/// What [`Tensor::arange`] counts: a range of integers or floats, stepped with `.step(..)`, or a number of elements.
pub trait Counting {
    /// Start, end and step.
    fn count(self) -> (Number, Number, Number);
}

macro_rules! counting {
    ($($t:ty: $one:expr;)*) => {$(
        impl Counting for Range<$t> {
            fn count(self) -> (Number, Number, Number) {
                (self.start.number(), self.end.number(), $one.number())
            }
        }
    )*};
}

counting! {
    i32: 1i32;
    i64: 1i64;
    usize: 1usize;
    f64: 1.0f64;
}

impl<T: Scalar> Counting for Stepped<Range<T>> {
    fn count(self) -> (Number, Number, Number) {
        (self.range.start.number(), self.range.end.number(), self.step)
    }
}

impl Tensor {
    /// A tensor of the elements of a vector in row-major order, which it takes over without copying. The dtype is the
    /// element type's: `f32`, `i64` or `bool`.
    ///
    /// # Errors
    /// Carried: a number of elements that is not the shape's.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0], [2, 2]);
    /// assert_eq!(x.i((1, 0)).item::<f32>()?, 3.0);
    /// assert!(Tensor::from_vec(vec![1i64], [2]).check().is_err());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn from_vec<T: Element>(elements: Vec<T>, shape: impl IntoShape) -> Tensor {
        let shape = shape.into_shape();
        Tensor::from_elements("from_vec", Array::from_vec(elements, &shape), shape, T::DTYPE)
    }

    #[track_caller]
    pub(crate) fn from_elements(
        name: &'static str,
        array: lazuli_ir::Result<Array>,
        shape: Shape,
        dtype: DType,
    ) -> Tensor {
        match array {
            Ok(array) => Tensor::from_array(Ok(array)),
            Err(e) => Tensor::fail_as(lazuli_ir::TensorType { shape, dtype }, name, &[], e.kind(), e.message()),
        }
    }

    #[track_caller]
    fn filled(name: &'static str, shape: impl IntoShape, value: Number) -> Tensor {
        Tensor::record(name, Op::Constant { value: value.literal(value.dtype()), shape: shape.into_shape() }, &[])
    }

    /// Zeros, `f32`; [`to`](Self::to) makes another dtype.
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).to_vec::<f32>()?, [0.0, 0.0]);
    /// assert!(Tensor::zeros([1 << 40, 1 << 40]).check().is_err());
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn zeros(shape: impl IntoShape) -> Tensor {
        Tensor::filled("zeros", shape, Number::F64(0.0))
    }

    /// Ones, `f32`; [`to`](Self::to) makes another dtype.
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([2]).to_vec::<f32>()?, [1.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn ones(shape: impl IntoShape) -> Tensor {
        Tensor::filled("ones", shape, Number::F64(1.0))
    }

    /// One value everywhere; it gives the dtype: floats `f32`, integers `i64`, booleans `bool`.
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::full([2], 7).to_vec::<i64>()?, [7, 7]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn full(shape: impl IntoShape, value: impl Scalar) -> Tensor {
        Tensor::filled("full", shape, value.number())
    }

    /// A tensor whose elements do not matter: zeros, `f32`, since nothing here is without a value.
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::empty([2, 3]).shape(), [2, 3]);
    /// ```
    #[track_caller]
    pub fn empty(shape: impl IntoShape) -> Tensor {
        Tensor::filled("empty", shape, Number::F64(0.0))
    }

    /// Ones on the main diagonal of a matrix of `rows` and `columns`, zeros elsewhere, `f32`.
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::eye(2, 2).to_vec::<f32>()?, [1.0, 0.0, 0.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn eye(rows: usize, columns: usize) -> Tensor {
        let shape = Shape::new([rows, columns]);
        let row = Tensor::record("eye", Op::Iota { dim: 0, shape: shape.clone() }, &[]);
        let column = Tensor::record("eye", Op::Iota { dim: 1, shape }, &[]);
        row.eq(column).cast("eye", DType::F32).named("eye", &[])
    }

    /// `steps` numbers from `start` to `end`, both included, evenly apart, `f32`; one number is `start`. Bounds are numbers or
    /// 0-d tensors. The second half is counted back from the end, so that both ends are exact.
    ///
    /// # Errors
    /// Carried: bounds with dims.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::linspace(0, 1, 5).to_vec::<f32>()?, [0.0, 0.25, 0.5, 0.75, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn linspace(start: impl Operand, end: impl Operand, steps: usize) -> Tensor {
        let given = [start.argument(), end.argument()];
        let all = tensors(&given);
        if given.iter().any(|a| shape_of(*a).rank() > 0) {
            return Tensor::fail("linspace", &all, ErrorKind::Shape, "bounds are numbers or 0-d tensors");
        }
        let dtype = float_type(result_type(&given));
        let scalar = Shape::scalar();
        let (start, end) = (Tensor::fit(given[0], dtype, &scalar), Tensor::fit(given[1], dtype, &scalar));
        let i = Tensor::record("linspace", Op::Iota { dim: 0, shape: Shape::new([steps]) }, &[]);
        let step = (&end - &start) / steps.saturating_sub(1).max(1) as f64;
        let half = (steps / 2) as i64;
        let forward = &start + i.cast("linspace", dtype) * &step;
        let backward = end - (steps as i64 - 1 - &i).cast("linspace", dtype) * step;
        where_(i.lt(half.max(1)), forward, backward).named("linspace", &all)
    }

    /// Random integers in `low..high`, `i64`, from the next numbers of the process generator; see
    /// [`manual_seed`](crate::manual_seed). Ranges of up to 2^24 numbers take one draw of 24 bits an element, longer ones three; no
    /// number is more likely than another by more than 2^-24, or for the longer ones 2^-63.
    ///
    /// # Errors
    /// Carried: an empty range; one of 2^63 numbers and more.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert!(Tensor::randint(1, 7, [100]).to_vec::<i64>()?.iter().all(|v| (1..7).contains(v)));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn randint(low: i64, high: i64, shape: impl IntoShape) -> Tensor {
        let shape = shape.into_shape();
        let count = match i64::try_from(i128::from(high) - i128::from(low)) {
            Ok(count) if count > 0 => count,
            _ => {
                let message = format!("{low}..{high} is empty or has 2^63 numbers and more");
                return Tensor::fail("randint", &[], ErrorKind::Value, message);
            }
        };
        const DRAW: i64 = 1 << 24;
        let offset = if count <= DRAW {
            Tensor::below(count, &shape)
        } else {
            let rest = Tensor::below(DRAW, &shape) * (1 << 15) + Tensor::below(1 << 15, &shape);
            (Tensor::below(DRAW, &shape) * (DRAW << 15) + rest).remainder(count)
        };
        (offset + low).named("randint", &[])
    }

    /// Random integers of `0..count`, for counts up to 2^24: 24 bits are exact in `f64`, as are their products with the count.
    #[track_caller]
    fn below(count: i64, shape: &Shape) -> Tensor {
        let u = Tensor::uniform("randint", shape.clone()).cast("randint", DType::F64);
        (u * count as f64).cast("randint", DType::I64)
    }

    /// One value everywhere, in this tensor's shape and dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 2.0]).full_like(7).to_vec::<f32>()?, [7.0, 7.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn full_like(&self, value: impl Scalar) -> Tensor {
        self.filled_like("full_like", value.number())
    }

    /// Random numbers as [`rand`](Self::rand) draws them, in this tensor's shape and dtype.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).rand_like().shape(), [2, 3]);
    /// ```
    #[track_caller]
    pub fn rand_like(&self) -> Tensor {
        if let Err(failed) = self.floats("rand_like") {
            return failed;
        }
        Tensor::uniform("rand_like", self.extent_shape().clone())
            .rounded("rand_like", self.dtype(), &[self])
            .beside(self)
    }

    /// Random numbers as [`randn`](Self::randn) draws them, in this tensor's shape and dtype.
    ///
    /// # Errors
    /// Carried: a tensor of integers or booleans.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 3]).randn_like().shape(), [2, 3]);
    /// ```
    #[track_caller]
    pub fn randn_like(&self) -> Tensor {
        if let Err(failed) = self.floats("randn_like") {
            return failed;
        }
        Tensor::randn(self.shape()).rounded("randn_like", self.dtype(), &[self]).beside(self)
    }

    #[track_caller]
    fn filled_like(&self, name: &'static str, value: Number) -> Tensor {
        let value = value.literal(self.dtype());
        Tensor::record(name, Op::Constant { value, shape: self.extent_shape().clone() }, &[])
            .named(name, &[self])
            .beside(self)
    }

    /// A tensor of this one's shape and dtype whose elements mean nothing: they are 0, as [`empty`](Self::empty)'s are.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2]).empty_like().shape(), [2]);
    /// ```
    #[track_caller]
    pub fn empty_like(&self) -> Tensor {
        self.filled_like("empty_like", Number::I64(0))
    }

    /// Random whole numbers as [`randint`](Self::randint) draws them, in this tensor's shape and dtype.
    ///
    /// # Errors
    /// Carried, as for `randint`.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::zeros([3]).randint_like(7, 8).to_vec::<f32>()?, [7.0, 7.0, 7.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn randint_like(&self, low: i64, high: i64) -> Tensor {
        Tensor::randint(low, high, self.shape()).rounded("randint_like", self.dtype(), &[self]).beside(self)
    }

    /// Zeros of this tensor's shape and dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1, 2]).zeros_like().to_vec::<i64>()?, [0, 0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        self.filled_like("zeros_like", Number::I64(0))
    }

    /// Ones of this tensor's shape and dtype.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(lazuli::tensor([1.0, 2.0]).ones_like().to_vec::<f32>()?, [1.0, 1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        self.filled_like("ones_like", Number::I64(1))
    }

    /// The numbers of a range, end exclusive: integers give `i64`, floats `f32` (each element is `start + i * step`, rounded
    /// as `f32` arithmetic does).
    ///
    /// # Errors
    /// Carried: a step of 0 or towards the wrong side, NaN or infinite bounds.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::arange(0..4).to_vec::<i64>()?, [0, 1, 2, 3]);
    /// assert_eq!(Tensor::arange((5..0).step(-2)).to_vec::<i64>()?, [5, 3, 1]);
    /// assert_eq!(Tensor::arange((0.0..1.0).step(0.25)).to_vec::<f32>()?, [0.0, 0.25, 0.5, 0.75]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn arange(range: impl Counting) -> Tensor {
        let (start, end, step) = range.count();
        let length = match length(start, end, step) {
            Ok(n) => n,
            Err(message) => return Tensor::fail("arange", &[], ErrorKind::Value, message),
        };
        let mut x = Tensor::record("arange", Op::Iota { dim: 0, shape: Shape::new([length]) }, &[]);
        if [start, end, step].iter().any(|n| n.dtype() == DType::F32) {
            x = x.cast("arange", DType::F32);
        }
        if step != Number::I64(1) && step != Number::F64(1.0) {
            x = mul(Argument::Tensor(&x), Argument::Number(step));
        }
        if start != Number::I64(0) && start != Number::F64(0.0) {
            x = add(Argument::Tensor(&x), Argument::Number(start));
        }
        x.named("arange", &[])
    }

    /// Random numbers, uniform in `[0, 1)`, `f32`. Each draw takes the next numbers of the process generator; see
    /// [`manual_seed`](crate::manual_seed).
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = Tensor::rand([100]).to_vec::<f32>()?;
    /// assert!(x.iter().all(|v| (0.0..1.0).contains(v)));
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn rand(shape: impl IntoShape) -> Tensor {
        Tensor::uniform("rand", shape.into_shape())
    }

    #[track_caller]
    fn uniform(name: &'static str, shape: Shape) -> Tensor {
        let (base, stream) = trace::draws(1);
        Tensor::record(name, Op::Random { stream, shape }, &[&base])
    }

    /// Random numbers of the standard normal distribution, `f32`: the inverse error function of a uniform draw, so a draw
    /// costs as many numbers as [`rand`](Self::rand).
    ///
    /// # Errors
    /// Carried: a shape whose bytes cannot be counted.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// lazuli::manual_seed(0)?;
    /// let x = Tensor::randn([10_000]);
    /// assert!(x.mean(..).item::<f32>()?.abs() < 0.05);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn randn(shape: impl IntoShape) -> Tensor {
        let u = Tensor::uniform("randn", shape.into_shape());
        // Centred in each of the 2^24 intervals, so neither end of (-1, 1) is drawn. Both steps are exact.
        let x = u * 2.0 - (1.0 - (-24.0f64).exp2());
        erfinv(&x) * std::f64::consts::SQRT_2
    }
}

/// Giles' single precision inverse error function: one polynomial in `w = -log(1 - x^2)` near the middle, one in `sqrt(w)` in
/// the tails.
#[track_caller]
fn erfinv(x: &Tensor) -> Tensor {
    const MIDDLE: [f64; 9] = [
        2.810_226_36e-8,
        3.432_739_39e-7,
        -3.523_387_7e-6,
        -4.391_506_54e-6,
        2.185_808_7e-4,
        -1.253_725_03e-3,
        -4.177_681_64e-3,
        2.466_407_27e-1,
        1.501_409_41,
    ];
    const TAIL: [f64; 9] = [
        -2.002_142_57e-4,
        1.009_505_58e-4,
        1.349_343_22e-3,
        -3.673_428_44e-3,
        5.739_507_73e-3,
        -7.622_461_3e-3,
        9.438_870_47e-3,
        1.001_674_06,
        2.832_976_82,
    ];
    let w = -((1.0 - x) * (1.0 + x)).log();
    let middle = w.lt(5.0);
    let w = where_(&middle, &w - 2.5, w.sqrt() - 3.0);
    let coefficient = |i: usize| where_(&middle, MIDDLE[i], TAIL[i]);
    let mut p = coefficient(0);
    for i in 1..MIDDLE.len() {
        p = p * &w + coefficient(i);
    }
    p * x
}

/// The number of elements of a range.
fn length(start: Number, end: Number, step: Number) -> std::result::Result<usize, String> {
    let wrong = |message: &str| Err(format!("from {start:?} to {end:?} by {step:?}: {message}"));
    match (start, end, step) {
        (Number::I64(start), Number::I64(end), Number::I64(step)) => {
            let distance = i128::from(end) - i128::from(start);
            match step {
                0 => wrong("the step is 0"),
                _ if distance != 0 && (distance > 0) != (step > 0) => wrong("the step leads away from the end"),
                _ => {
                    let n = distance.unsigned_abs().div_ceil(u128::from(step.unsigned_abs()));
                    usize::try_from(n).or_else(|_| wrong("there are too many elements"))
                }
            }
        }
        _ => {
            let value = |n: Number| match n {
                Number::Bool(b) => f64::from(u8::from(b)),
                Number::I64(v) => v as f64,
                Number::F64(v) => v,
            };
            let n = ((value(end) - value(start)) / value(step)).ceil();
            if value(step) == 0.0 {
                wrong("the step is 0")
            } else if !n.is_finite() {
                wrong("a bound is not finite")
            } else if n < 0.0 {
                wrong("the step leads away from the end")
            } else if n >= isize::MAX as f64 {
                wrong("there are too many elements")
            } else {
                Ok(n as usize)
            }
        }
    }
}
