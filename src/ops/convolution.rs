//! Convolutions: a contraction over a view of windows, so no matrix of windows is ever stored by intent; and their transposes.

use crate::Tensor;
use crate::promotion::wide;
use lazuli_ir::{DType, DimVec, DotDims, Error, ErrorKind, Literal, Op, PadDim, Result, Shape, WindowDim};

/// What surrounds the input of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding<const N: usize> {
    /// This many zeros on both sides of each dim; [`From`] an array.
    Each([usize; N]),
    /// As many zeros as make the result as large as the input; strides must be 1.
    Same,
}

impl<const N: usize> From<[usize; N]> for Padding<N> {
    fn from(sizes: [usize; N]) -> Padding<N> {
        Padding::Each(sizes)
    }
}

/// What a convolution over `N` dims takes besides input and weight; see [`Conv2d`].
#[derive(Clone, Debug)]
pub struct Conv<const N: usize> {
    /// A summand for each output channel.
    pub bias: Option<Tensor>,
    /// The distance between neighbouring windows: 1 by default.
    pub stride: [usize; N],
    /// Zeros around the input: none by default.
    pub padding: Padding<N>,
    /// The distance between neighbouring elements of a window: 1 by default.
    pub dilation: [usize; N],
    /// Groups of channels, each convolved by itself: 1 by default.
    pub groups: usize,
}

impl<const N: usize> Default for Conv<N> {
    fn default() -> Conv<N> {
        Conv { bias: None, stride: [1; N], padding: Padding::Each([0; N]), dilation: [1; N], groups: 1 }
    }
}

impl<const N: usize> From<()> for Conv<N> {
    fn from((): ()) -> Conv<N> {
        Conv::default()
    }
}

/// What [`Tensor::conv1d`] takes besides input and weight.
pub type Conv1d = Conv<1>;
/// What [`Tensor::conv2d`] takes besides input and weight.
pub type Conv2d = Conv<2>;
/// What [`Tensor::conv3d`] takes besides input and weight.
pub type Conv3d = Conv<3>;

/// What a transposed convolution over `N` dims takes besides input and weight; see [`ConvTranspose2d`].
#[derive(Clone, Debug)]
pub struct ConvTranspose<const N: usize> {
    /// A summand for each output channel.
    pub bias: Option<Tensor>,
    /// The distance between what neighbouring inputs add to: 1 by default.
    pub stride: [usize; N],
    /// Elements taken away on both sides of each dim: none by default.
    pub padding: [usize; N],
    /// Elements added at the end of each dim: none by default.
    pub output_padding: [usize; N],
    /// The distance between neighbouring elements of a window: 1 by default.
    pub dilation: [usize; N],
    /// Groups of channels, each convolved by itself: 1 by default.
    pub groups: usize,
}

impl<const N: usize> Default for ConvTranspose<N> {
    fn default() -> ConvTranspose<N> {
        let (stride, dilation) = ([1; N], [1; N]);
        ConvTranspose { bias: None, stride, padding: [0; N], output_padding: [0; N], dilation, groups: 1 }
    }
}

impl<const N: usize> From<()> for ConvTranspose<N> {
    fn from((): ()) -> ConvTranspose<N> {
        ConvTranspose::default()
    }
}

/// What [`Tensor::conv_transpose1d`] takes besides input and weight.
pub type ConvTranspose1d = ConvTranspose<1>;
/// What [`Tensor::conv_transpose2d`] takes besides input and weight.
pub type ConvTranspose2d = ConvTranspose<2>;
/// What [`Tensor::conv_transpose3d`] takes besides input and weight.
pub type ConvTranspose3d = ConvTranspose<3>;

fn shape_error<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Shape, message))
}

/// Whether input, weight and bias fit a convolution over `n` dims; `transposed` weights have the input's channels first.
fn check_channels(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    n: usize,
    groups: usize,
    transposed: bool,
) -> Result<()> {
    if x.rank() != n + 1 && x.rank() != n + 2 {
        return shape_error(format!("the input has {} or {} dims, not {}", n + 1, n + 2, x.rank()));
    }
    if w.rank() != n + 2 {
        return shape_error(format!("the weight has {} dims, not {}", n + 2, w.rank()));
    }
    if [Some(w), bias].into_iter().flatten().any(|t| t.dtype() != x.dtype()) || x.dtype() == DType::Bool {
        return Err(Error::new(ErrorKind::DType, "input, weight and bias are of one dtype of numbers"));
    }
    let channels = x.size(-(n as isize) - 1);
    let outputs = if transposed { w.size(1).saturating_mul(groups) } else { w.size(0) };
    let divided = groups > 0 && channels.is_multiple_of(groups) && outputs.is_multiple_of(groups);
    let inputs = if transposed { w.size(0) } else { w.size(1).saturating_mul(groups) };
    if !divided || inputs != channels {
        let message = format!("{channels} channels in {groups} groups do not fit a weight {}", w.extent_shape());
        return shape_error(message);
    }
    match bias {
        Some(b) if b.rank() != 1 || b.size(0) != outputs => {
            shape_error(format!("a bias {} for {outputs} output channels", b.extent_shape()))
        }
        _ => Ok(()),
    }
}

/// Channels and what follows them with a dim of groups before: `[groups, channels / groups, ..]` at `axis`. One group needs
/// none.
#[track_caller]
fn grouped(name: &'static str, x: &Tensor, axis: usize, groups: usize) -> Tensor {
    if groups == 1 {
        return x.clone();
    }
    let mut extents = x.extent_shape().extents();
    extents[axis] /= groups;
    extents.insert(axis, groups);
    x.shaped(name, Ok(Shape::new(extents)))
}

impl Tensor {
    #[track_caller]
    fn convolved<const N: usize>(&self, name: &'static str, weight: &Tensor, options: Conv<N>) -> Tensor {
        let Conv { bias, stride, padding, dilation, groups } = options;
        let given: Vec<&Tensor> = [self, weight].into_iter().chain(&bias).collect();
        ok!(name, &given, check_channels(self, weight, bias.as_ref(), N, groups, false));
        let kernel: Vec<usize> = (0..N).map(|i| weight.size(i as isize + 2)).collect();
        let sides = ok!(name, &given, sides(&kernel, stride, padding, dilation));
        let x = self.cast(name, wide(self.dtype()));
        let batched = self.rank() == N + 2;
        let x = if batched { x } else { x.with_dim(0) };
        let all: DimVec<(i64, i64)> = [(0, 0), (0, 0)].into_iter().chain(sides).collect();
        let x = x.padded(name, &all, Literal::zero(x.dtype()));
        for i in 0..N {
            let span = (kernel[i] - 1).saturating_mul(dilation[i]).saturating_add(1);
            if span > x.size(i as isize + 2) {
                let message =
                    format!("a kernel that spans {span} elements is larger than the padded input's dim {}", i + 2);
                return Tensor::fail(name, &given, ErrorKind::Shape, message);
            }
        }
        // [batch, groups, channels, .., window] meets [groups, outputs, channels, window].
        let window = |i: usize| WindowDim { dim: i + 2, size: kernel[i], stride: stride[i], dilation: dilation[i] };
        let windows = Tensor::record(name, Op::Window((0..N).map(window).collect()), &[&x]);
        let places: DimVec<usize> = windows.extent_shape().extents()[2..2 + N].into();
        let (x, w) = (grouped(name, &windows, 1, groups), grouped(name, &weight.cast(name, x.dtype()), 0, groups));
        // One more dim where there are groups.
        let (g, batch) = (usize::from(groups > 1), x.size(0));
        let pairs = [(1 + g, 1 + g)].into_iter().chain((0..N).map(|i| (2 + g + N + i, 2 + g + i)));
        let dims = DotDims { batch: (0..g).map(|_| (1, 0)).collect(), contract: pairs.collect() };
        let product = Tensor::record(name, Op::Dot { dims, acc: x.dtype() }, &[&x, &w]);
        // [groups, batch, .., outputs] becomes [batch, groups * outputs, ..].
        let order = [g].into_iter().chain(0..g).chain([1 + g + N]).chain(1 + g..1 + g + N).collect();
        let merged = [batch, weight.size(0)].into_iter().chain(places);
        let y = product.permuted(name, Ok(order)).shaped(name, Ok(Shape::new(merged)));
        finished(name, y, bias.as_ref(), batched).rounded(name, self.dtype(), &given)
    }

    #[track_caller]
    fn convolved_back<const N: usize>(&self, name: &'static str, weight: &Tensor, options: ConvTranspose<N>) -> Tensor {
        let ConvTranspose { bias, stride, padding, output_padding, dilation, groups } = options;
        let given: Vec<&Tensor> = [self, weight].into_iter().chain(&bias).collect();
        ok!(name, &given, check_channels(self, weight, bias.as_ref(), N, groups, true));
        let kernel: Vec<usize> = (0..N).map(|i| weight.size(i as isize + 2)).collect();
        if (0..N).any(|i| kernel[i] == 0 || stride[i] == 0 || dilation[i] == 0) {
            let message = "kernel, stride and dilation are at least 1";
            return Tensor::fail(name, &given, ErrorKind::Value, message);
        }
        if (0..N).any(|i| output_padding[i] >= stride[i].max(dilation[i])) {
            let message = "the output padding is smaller than the stride or the dilation";
            return Tensor::fail(name, &given, ErrorKind::Value, message);
        }
        let x = self.cast(name, wide(self.dtype()));
        let batched = self.rank() == N + 2;
        let x = if batched { x } else { x.with_dim(0) };
        let batch = x.size(0);
        let places: DimVec<usize> = x.extent_shape().extents()[2..].into();
        let w = grouped(name, &weight.cast(name, x.dtype()), 0, groups);
        let x = grouped(name, &x, 1, groups);
        // [batch, groups, channels, ..] meets [groups, channels, outputs, window].
        // One more dim where there are groups.
        let g = usize::from(groups > 1);
        let outputs = weight.size(1) * groups;
        let window = |i: usize| WindowDim { dim: i + 2, size: kernel[i], stride: stride[i], dilation: dilation[i] };
        let extent = |i: usize| places[i].saturating_sub(1).saturating_mul(stride[i]).saturating_add(window(i).span());
        let cut = |i: usize| (-(padding[i] as i64), output_padding[i] as i64 - padding[i] as i64);
        if (0..N).any(|i| 2 * padding[i] > extent(i) + output_padding[i]) {
            let message = "the padding takes away more than there is";
            return Tensor::fail(name, &given, ErrorKind::Shape, message);
        }
        let sides: DimVec<(i64, i64)> = [(0, 0), (0, 0)].into_iter().chain((0..N).map(cut)).collect();
        // Element `q stride + r` of the result is made from elements `t stride + r` of the kernel, at `q - t`: for each phase `r` a
        // convolution with the part of the kernel that it meets, turned around, of an input with zeros all around.
        let zeros = Literal::zero(x.dtype());
        // Where there is a stride, zeros between the elements of the kernel are its dilation.
        let gap = |i: usize| if stride[i] > 1 { dilation[i] - 1 } else { 0 };
        let length = |i: usize| kernel[i] + (kernel[i] - 1) * gap(i);
        let reach = |i: usize| length(i).div_ceil(stride[i]);
        let fill = |i: usize| PadDim { low: 0, high: reach(i) * stride[i] - length(i), interior: gap(i) };
        let fills = (0..2 + g).map(|_| PadDim { low: 0, high: 0, interior: 0 }).chain((0..N).map(fill)).collect();
        let w = Tensor::record(name, Op::Pad(fills), &[&w, &Tensor::splat(zeros, &Shape::scalar())]);
        let own = w.extent_shape().extents()[..2 + g].iter().copied().collect::<DimVec<usize>>();
        let phases = own.into_iter().chain((0..N).flat_map(|i| [reach(i), stride[i]]));
        let w = w.shaped(name, Ok(Shape::new(phases)));
        let w = Tensor::record(name, Op::Flip((0..N).map(|i| 2 + g + 2 * i).collect()), &[&w]);
        let slide = |i: usize| WindowDim { dim: 2 + g + i, size: reach(i), stride: 1, dilation: dilation[i] - gap(i) };
        let beside = |i: usize| (slide(i).span() as i64 - 1, slide(i).span() as i64 - 1);
        let around = (0..2 + g).map(|_| (0, 0)).chain((0..N).map(beside)).collect::<DimVec<(i64, i64)>>();
        let x = x.padded(name, &around, zeros);
        let x = Tensor::record(name, Op::Window((0..N).map(slide).collect()), &[&x]);
        let counts: DimVec<usize> = x.extent_shape().extents()[2 + g..2 + g + N].into();
        let pairs = [(1 + g, g)].into_iter().chain((0..N).map(|i| (2 + g + N + i, 2 + g + 2 * i)));
        let dims = DotDims { batch: (0..g).map(|_| (1, 0)).collect(), contract: pairs.collect() };
        let product = Tensor::record(name, Op::Dot { dims, acc: x.dtype() }, &[&x, &w]);
        // [groups, batch, .., outputs, phases] becomes [batch, groups * outputs, ..].
        let places = (0..N).flat_map(|i| [1 + g + i, 2 + g + N + i]);
        let order = [g].into_iter().chain(0..g).chain([1 + g + N]).chain(places).collect();
        let merged = [batch, outputs].into_iter().chain((0..N).map(|i| counts[i] * stride[i]));
        let y = product.permuted(name, Ok(order)).shaped(name, Ok(Shape::new(merged)));
        // Phases fill up the last place; the result ends where the kernel does.
        let extra = |i: usize| extent(i) as i64 - (counts[i] * stride[i]) as i64;
        let sides: DimVec<(i64, i64)> =
            sides.iter().enumerate().map(|(d, (low, high))| (*low, high + d.checked_sub(2).map_or(0, extra))).collect();
        let y = y.padded(name, &sides, Literal::zero(y.dtype()));
        finished(name, y, bias.as_ref(), batched).rounded(name, self.dtype(), &given)
    }
}

/// The zeros before and after each dim.
fn sides<const N: usize>(
    kernel: &[usize],
    stride: [usize; N],
    padding: Padding<N>,
    dilation: [usize; N],
) -> Result<Vec<(i64, i64)>> {
    if (0..N).any(|i| kernel[i] == 0 || stride[i] == 0 || dilation[i] == 0) {
        return Err(Error::new(ErrorKind::Value, "kernel, stride and dilation are at least 1"));
    }
    match padding {
        Padding::Each(sizes) => Ok(sizes.iter().map(|&p| (p as i64, p as i64)).collect()),
        Padding::Same if stride != [1; N] => {
            Err(Error::new(ErrorKind::Value, "padding `Same` needs strides of 1: other results are not as large"))
        }
        Padding::Same => Ok((0..N)
            .map(|i| {
                let total = ((kernel[i] - 1) * dilation[i]) as i64;
                (total / 2, total - total / 2)
            })
            .collect()),
    }
}

/// The bias added, and the batch dim taken away where the input had none.
#[track_caller]
fn finished(name: &'static str, y: Tensor, bias: Option<&Tensor>, batched: bool) -> Tensor {
    let y = match bias {
        Some(bias) => &y + bias.cast(name, y.dtype()).along(1, y.rank()),
        None => y,
    };
    if batched { y } else { y.squeeze(0usize) }
}

macro_rules! convolutions {
    ($($(#[$doc:meta])* $name:ident $options:ident $inner:ident;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self, weight: &Tensor, options: impl Into<$options>) -> Tensor {
                self.$inner(stringify!($name), weight, options.into())
            }
        )*}
    };
}

convolutions! {
    /// The convolution (cross-correlation) of `[batch, channels, length]`, or without the batch, by a weight
    /// `[outputs, channels / groups, kernel]`.
    ///
    /// # Errors
    /// Carried: dims, channels or dtypes that do not fit; a kernel larger than the padded input; `Same` with a stride.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, w) = (lazuli::tensor([[1.0, 2.0, 3.0]]), lazuli::tensor([[[1.0, -1.0]]]));
    /// assert_eq!(x.conv1d(&w, ()).to_vec::<f32>()?, [-1.0, -1.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    conv1d Conv1d convolved;
    /// The convolution (cross-correlation) of `[batch, channels, height, width]`, or without the batch, by a weight
    /// `[outputs, channels / groups, height, width]`.
    ///
    /// # Errors
    /// Carried: dims, channels or dtypes that do not fit; a kernel larger than the padded input; `Same` with a stride.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, w) = (Tensor::ones([1, 3, 8, 8]), Tensor::ones([4, 3, 3, 3]));
    /// let y = x.conv2d(&w, Conv2d { stride: [2, 2], padding: [1, 1].into(), ..Default::default() });
    /// assert_eq!(y.shape(), [1, 4, 4, 4]);
    /// assert_eq!(y.i((0, 0, 1, 1)).item::<f32>()?, 27.0);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    conv2d Conv2d convolved;
    /// The convolution (cross-correlation) of `[batch, channels, depth, height, width]`, or without the batch, by a weight
    /// `[outputs, channels / groups, depth, height, width]`.
    ///
    /// # Errors
    /// Carried: dims, channels or dtypes that do not fit; a kernel larger than the padded input; `Same` with a stride.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, w) = (Tensor::ones([1, 1, 3, 3, 3]), Tensor::ones([1, 1, 2, 2, 2]));
    /// assert_eq!(x.conv3d(&w, ()).to_vec::<f32>()?, [8.0; 8]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    conv3d Conv3d convolved;
}

macro_rules! transposed {
    ($($(#[$doc:meta])* $name:ident $options:ident;)*) => {
        convolutions! { $($(#[$doc])* $name $options convolved_back;)* }
    };
}

transposed! {
    /// The transpose of a convolution, as its gradient by the input is: `[batch, channels, length]` by a weight
    /// `[channels, outputs / groups, kernel]`.
    ///
    /// # Errors
    /// Carried: dims, channels or dtypes that do not fit; a padding larger than the result.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, w) = (lazuli::tensor([[1.0, 2.0]]), lazuli::tensor([[[1.0, 1.0]]]));
    /// assert_eq!(x.conv_transpose1d(&w, ()).to_vec::<f32>()?, [1.0, 3.0, 2.0]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    conv_transpose1d ConvTranspose1d;
    /// The transpose of a convolution, as its gradient by the input is: `[batch, channels, height, width]` by a weight
    /// `[channels, outputs / groups, height, width]`.
    ///
    /// # Errors
    /// Carried: dims, channels or dtypes that do not fit; a padding larger than the result.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, w) = (Tensor::ones([1, 4, 2, 2]), Tensor::ones([4, 3, 3, 3]));
    /// let y = x.conv_transpose2d(&w, ConvTranspose2d { stride: [2, 2], ..Default::default() });
    /// assert_eq!(y.shape(), [1, 3, 5, 5]);
    /// ```
    conv_transpose2d ConvTranspose2d;
    /// The transpose of a convolution, as its gradient by the input is: `[batch, channels, depth, height, width]` by a weight
    /// `[channels, outputs / groups, depth, height, width]`.
    ///
    /// # Errors
    /// Carried: dims, channels or dtypes that do not fit; a padding larger than the result.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let (x, w) = (Tensor::ones([1, 1, 2, 2, 2]), Tensor::ones([1, 1, 2, 2, 2]));
    /// assert_eq!(x.conv_transpose3d(&w, ()).shape(), [1, 1, 3, 3, 3]);
    /// ```
    conv_transpose3d ConvTranspose3d;
}
