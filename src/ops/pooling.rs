//! Pooling: reductions over views of windows; and the windows themselves.

use crate::Tensor;
use crate::dims::{self, Sizes};
use crate::promotion::wide;
use lazuli_ir::{DType, DimVec, Error, ErrorKind, Literal, Op, ReduceOp, Result, Shape, WindowDim};

/// What max pooling over `N` dims takes besides the kernel; see [`MaxPool2d`].
#[derive(Clone, Debug)]
pub struct MaxPool<const N: usize> {
    /// The distance between neighbouring windows: the kernel's size by default.
    pub stride: Option<[usize; N]>,
    /// What is added around the input, and never is the largest: nothing by default.
    pub padding: [usize; N],
    /// The distance between neighbouring elements of a window: 1 by default.
    pub dilation: [usize; N],
    /// Whether windows that lie only partly inside count too.
    pub ceil_mode: bool,
}

impl<const N: usize> Default for MaxPool<N> {
    fn default() -> MaxPool<N> {
        MaxPool { stride: None, padding: [0; N], dilation: [1; N], ceil_mode: false }
    }
}

impl<const N: usize> From<()> for MaxPool<N> {
    fn from((): ()) -> MaxPool<N> {
        MaxPool::default()
    }
}

/// What average pooling over `N` dims takes besides the kernel; see [`AvgPool2d`].
#[derive(Clone, Debug)]
pub struct AvgPool<const N: usize> {
    /// The distance between neighbouring windows: the kernel's size by default.
    pub stride: Option<[usize; N]>,
    /// Zeros around the input: none by default.
    pub padding: [usize; N],
    /// Whether windows that lie only partly inside count too.
    pub ceil_mode: bool,
    /// Whether zeros of the padding count as elements: true by default.
    pub count_include_pad: bool,
    /// What sums are divided by, in the place of the number of elements.
    pub divisor_override: Option<i64>,
}

impl<const N: usize> Default for AvgPool<N> {
    fn default() -> AvgPool<N> {
        let (stride, padding) = (None, [0; N]);
        AvgPool { stride, padding, ceil_mode: false, count_include_pad: true, divisor_override: None }
    }
}

impl<const N: usize> From<()> for AvgPool<N> {
    fn from((): ()) -> AvgPool<N> {
        AvgPool::default()
    }
}

/// What [`Tensor::max_pool1d`] takes besides the kernel.
pub type MaxPool1d = MaxPool<1>;
/// What [`Tensor::max_pool2d`] takes besides the kernel.
pub type MaxPool2d = MaxPool<2>;
/// What [`Tensor::max_pool3d`] takes besides the kernel.
pub type MaxPool3d = MaxPool<3>;
/// What [`Tensor::avg_pool1d`] takes besides the kernel.
pub type AvgPool1d = AvgPool<1>;
/// What [`Tensor::avg_pool2d`] takes besides the kernel.
pub type AvgPool2d = AvgPool<2>;
/// What [`Tensor::avg_pool3d`] takes besides the kernel.
pub type AvgPool3d = AvgPool<3>;

options! {
    /// What [`Tensor::im2col`] takes besides the kernel.
    Im2col {
        /// The distance between neighbouring elements of a window: 1 by default.
        dilation: [usize; 2] = [1, 1],
        /// Zeros around the input: none by default.
        padding: [usize; 2] = [0, 0],
        /// The distance between neighbouring windows: 1 by default.
        stride: [usize; 2] = [1, 1],
    }
}

/// Windows of the last `N` dims: where they begin, and how many there are.
struct Windows<const N: usize> {
    kernel: [usize; N],
    stride: [usize; N],
    padding: [usize; N],
    dilation: [usize; N],
    counts: [usize; N],
}

impl<const N: usize> Windows<N> {
    fn new(
        x: &Tensor,
        kernel: [usize; N],
        stride: Option<[usize; N]>,
        padding: [usize; N],
        dilation: [usize; N],
        ceil: bool,
    ) -> Result<Windows<N>> {
        let error = |message: String| Err(Error::new(ErrorKind::Shape, message));
        if x.rank() != N + 1 && x.rank() != N + 2 {
            return error(format!("the input has {} or {} dims, not {}", N + 1, N + 2, x.rank()));
        }
        let stride = stride.unwrap_or(kernel);
        if (0..N).any(|i| kernel[i] == 0 || stride[i] == 0 || dilation[i] == 0) {
            return Err(Error::new(ErrorKind::Value, "kernel, stride and dilation are at least 1"));
        }
        let mut counts = [0; N];
        for i in 0..N {
            let extent = x.size(i as isize - N as isize);
            if padding[i] > kernel[i] / 2 {
                let message = format!("padding of {} is more than half of a kernel of {}", padding[i], kernel[i]);
                return Err(Error::new(ErrorKind::Value, message));
            }
            let span = (kernel[i] - 1).saturating_mul(dilation[i]).saturating_add(1);
            let Some(room) = (extent + 2 * padding[i]).checked_sub(span) else {
                return error(format!(
                    "a kernel that spans {span} is larger than the padded extent {}",
                    extent + 2 * padding[i]
                ));
            };
            counts[i] = if ceil { room.div_ceil(stride[i]) } else { room / stride[i] } + 1;
            // A window that would begin in the padding at the end does not count.
            if ceil && (counts[i] - 1) * stride[i] >= extent + padding[i] {
                counts[i] -= 1;
            }
        }
        Ok(Windows { kernel, stride, padding, dilation, counts })
    }

    /// The windows as a view, with their elements in the last dims.
    #[track_caller]
    fn view(&self, name: &'static str, x: &Tensor, outside: Literal) -> Tensor {
        let first = x.rank() - N;
        let side = |i: usize| {
            let extent = x.size((first + i) as isize);
            let span = (self.kernel[i] - 1) * self.dilation[i] + 1;
            let end = (self.counts[i] - 1) * self.stride[i] + span;
            (self.padding[i] as i64, end as i64 - (extent + self.padding[i]) as i64)
        };
        let sides: DimVec<(i64, i64)> = (0..first).map(|_| (0, 0)).chain((0..N).map(side)).collect();
        let window = |i: usize| WindowDim {
            dim: first + i,
            size: self.kernel[i],
            stride: self.stride[i],
            dilation: self.dilation[i],
        };
        Tensor::record(name, Op::Window((0..N).map(window).collect()), &[&x.padded(name, &sides, outside)])
    }

    /// The dims of a window's elements in the view.
    fn axes(&self, rank: usize) -> crate::Axes {
        crate::Axes { dims: (rank..rank + N).collect(), keep: false }
    }

    /// The number of elements of each window along a dim, with or without those of the padding.
    fn elements(&self, i: usize, extent: usize, with_padding: bool) -> Vec<f32> {
        let count = |n: usize| {
            let start = (n * self.stride[i]) as i64 - self.padding[i] as i64;
            let end = (start + self.kernel[i] as i64).min((extent + self.padding[i]) as i64);
            if with_padding { end - start } else { end.min(extent as i64) - start.max(0) }
        };
        (0..self.counts[i]).map(|n| count(n) as f32).collect()
    }
}

impl Tensor {
    #[track_caller]
    fn max_pooled<const N: usize>(
        &self,
        name: &'static str,
        kernel: [usize; N],
        options: MaxPool<N>,
    ) -> std::result::Result<(Windows<N>, Tensor), Tensor> {
        let MaxPool { stride, padding, dilation, ceil_mode } = options;
        let windows = Windows::new(self, kernel, stride, padding, dilation, ceil_mode);
        match windows {
            Ok(windows) => {
                let view = windows.view(name, self, Literal::lowest(self.dtype()));
                Ok((windows, view))
            }
            Err(e) => Err(Tensor::fail(name, &[self], e.kind(), e.message())),
        }
    }

    #[track_caller]
    fn max_pool<const N: usize>(&self, name: &'static str, kernel: [usize; N], options: MaxPool<N>) -> Tensor {
        let (windows, view) = or_failed!(self.max_pooled(name, kernel, options));
        view.reduce(name, ReduceOp::Max, &windows.axes(self.rank())).named(name, &[self])
    }

    /// Where the largest elements are: the position in the last `N` dims as one run.
    #[track_caller]
    fn max_pool_positions<const N: usize>(
        &self,
        name: &'static str,
        kernel: [usize; N],
        options: MaxPool<N>,
    ) -> Tensor {
        let (windows, view) = or_failed!(self.max_pooled(name, kernel, options));
        let axes = windows.axes(self.rank());
        let place = view.detach().reduce(name, ReduceOp::ArgMax, &axes);
        // The positions of a window's elements, as windows of the positions.
        let last: DimVec<usize> = self.extent_shape().extents()[self.rank() - N..].into();
        let run = Tensor::record(name, Op::Iota { dim: 0, shape: Shape::new([last.iter().product()]) }, &[]);
        let positions = windows.view(name, &run.shaped(name, Ok(Shape::new(last))), Literal::I64(-1));
        let elements: usize = kernel.iter().product();
        let lines = Shape::new(windows.counts.iter().copied().chain([elements]));
        let mut spread = place.extent_shape().extents();
        spread.push(elements);
        let lines = positions.shaped(name, Ok(lines)).stretch(&Shape::new(spread));
        let axis = place.rank();
        lines.picked(name, axis, &place.with_dim(axis)).squeeze(axis).named(name, &[self])
    }

    #[track_caller]
    fn avg_pool<const N: usize>(&self, name: &'static str, kernel: [usize; N], options: AvgPool<N>) -> Tensor {
        let AvgPool { stride, padding, ceil_mode, count_include_pad, divisor_override } = options;
        if self.dtype() == DType::Bool || divisor_override == Some(0) {
            let message = "averages are of numbers, and the divisor is not 0";
            return Tensor::fail(name, &[self], ErrorKind::Value, message);
        }
        let windows = ok!(name, &[self], Windows::new(self, kernel, stride, padding, [1; N], ceil_mode));
        let x = self.cast(name, wide(self.dtype()));
        let view = windows.view(name, &x, Literal::zero(x.dtype()));
        let sum = view.reduce(name, ReduceOp::Sum, &windows.axes(self.rank()));
        let mut divisor = Tensor::splat(Literal::one(DType::F32), &Shape::scalar());
        for i in 0..N {
            let extent = self.size(i as isize - N as isize);
            let line = windows.elements(i, extent, count_include_pad);
            let first = line.first().copied().unwrap_or(1.0);
            divisor = if line.iter().all(|n| *n == first) {
                divisor * f64::from(first)
            } else {
                divisor * Tensor::table(line, [windows.counts[i]]).along(i, N)
            };
        }
        if let Some(number) = divisor_override {
            divisor = Tensor::splat(Literal::from_i64(DType::F32, number), &Shape::scalar());
        }
        let y = if x.dtype().is_float() {
            sum / divisor.cast(name, x.dtype())
        } else {
            sum.trunc_divide(divisor.to(x.dtype()))
        };
        y.rounded(name, self.dtype(), &[self])
    }

    /// The mean of each of `outputs[i]` ranges of the last dims, which cover them as evenly as whole numbers can: from
    /// `floor(i * in / out)` to `ceil((i + 1) * in / out)`.
    #[track_caller]
    pub(crate) fn evenly_averaged(&self, name: &'static str, outputs: &[usize]) -> Tensor {
        let mut x = self.cast(name, wide(self.dtype()));
        let first = self.rank() - outputs.len();
        for (i, &out) in outputs.iter().enumerate() {
            x = x.averaged_ranges(name, first + i, out);
        }
        x.rounded(name, self.dtype(), &[self])
    }

    #[track_caller]
    fn averaged_ranges(&self, name: &'static str, axis: usize, out: usize) -> Tensor {
        let extent = self.size(axis as isize);
        if out == extent {
            return self.clone();
        }
        let mut extents = self.extent_shape().extents();
        if out != 0 && extent.is_multiple_of(out) {
            extents[axis] = out;
            extents.insert(axis + 1, extent / out);
            return self.shaped(name, Ok(Shape::new(extents))).mean(axis + 1);
        }
        let range = |i: usize| (i * extent / out, ((i + 1) * extent).div_ceil(out));
        let longest = (0..out).map(|i| range(i).1 - range(i).0).max().unwrap_or(0);
        let (mut index, mut weight) = (Vec::new(), Vec::new());
        for i in 0..out {
            let (start, end) = range(i);
            for k in 0..longest {
                index.push((start + k).min(extent.saturating_sub(1)) as i64);
                weight.push(if start + k < end { 1.0 / (end - start) as f32 } else { 0.0 });
            }
        }
        let count = index.len();
        extents[axis] = out;
        extents.insert(axis + 1, longest);
        let lines = self.lines(name, axis, &Tensor::table(index, [count])).shaped(name, Ok(Shape::new(extents)));
        let weight = Tensor::table(weight, [out, longest]).cast(name, self.dtype());
        let mut spread: DimVec<usize> = lines.extent_shape().extents().iter().map(|_| 1).collect();
        (spread[axis], spread[axis + 1]) = (out, longest);
        let weight = weight.shaped(name, Ok(Shape::new(spread)));
        // Elements beyond a range do not count, whatever they are.
        crate::where_(weight.gt(0.0), lines * &weight, 0.0).sum(axis + 1)
    }

    #[track_caller]
    fn adaptive<const N: usize>(&self, name: &'static str, outputs: [Option<usize>; N]) -> Tensor {
        let x = or_failed!(self.floats(name));
        if self.rank() != N + 1 && self.rank() != N + 2 {
            let message = format!("the input has {} or {} dims, not {}", N + 1, N + 2, self.rank());
            return Tensor::fail(name, &[self], ErrorKind::Shape, message);
        }
        let mut sizes = [0; N];
        for i in 0..N {
            let extent = self.size(i as isize - N as isize);
            sizes[i] = outputs[i].unwrap_or(extent);
            if extent == 0 && sizes[i] > 0 {
                return Tensor::fail(name, &[self], ErrorKind::Shape, "there is no mean of nothing");
            }
        }
        x.evenly_averaged(name, &sizes).rounded(name, self.dtype(), &[self])
    }

    /// Windows of a dim: those of `size` elements that begin at every `step`th; their elements are a new last dim. None of it
    /// copies.
    ///
    /// # Errors
    /// Carried: a dim out of range; a size or step of 0, or a size beyond the dim's extent.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::arange(0..5).unfold(0, 3, 2).to_vec::<i64>()?, [0, 1, 2, 2, 3, 4]);
    /// # Ok::<(), lazuli::Error>(())
    /// ```
    #[track_caller]
    pub fn unfold(&self, dim: isize, size: usize, step: usize) -> Tensor {
        let axis = ok!("unfold", &[self], dims::axis(dim as i64, self.rank()));
        if self.rank() == 0 || size == 0 || step == 0 || size > self.size(axis as isize) {
            let message = format!("windows of {size} elements, {step} apart, of dim {axis} of {}", self.node.ty);
            return Tensor::fail("unfold", &[self], ErrorKind::Value, message);
        }
        let window = WindowDim { dim: axis, size, stride: step, dilation: 1 };
        Tensor::record("unfold", Op::Window(smallvec::smallvec![window]), &[self])
    }

    /// The windows of images as columns: `[batch, channels, height, width]` (or without the batch) becomes
    /// `[batch, channels * window, number of windows]`. It is `torch.nn.functional.unfold`.
    ///
    /// # Errors
    /// Carried: dims that do not fit; a kernel larger than the padded input.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// assert_eq!(Tensor::ones([1, 3, 4, 4]).im2col([2, 2], ()).shape(), [1, 12, 9]);
    /// ```
    #[track_caller]
    pub fn im2col(&self, kernel: [usize; 2], options: impl Into<Im2col>) -> Tensor {
        let Im2col { dilation, padding, stride } = options.into();
        let error = |message: String| Error::new(ErrorKind::Shape, message);
        let fits = match self.rank() {
            3 | 4 => Ok(()),
            n => Err(error(format!("the input has 3 or 4 dims, not {n}"))),
        };
        ok!("im2col", &[self], fits);
        let all: DimVec<(i64, i64)> =
            (0..self.rank() - 2).map(|_| (0, 0)).chain(padding.iter().map(|&p| (p as i64, p as i64))).collect();
        let first = self.rank() - 2;
        let window = |i: usize| WindowDim { dim: first + i, size: kernel[i], stride: stride[i], dilation: dilation[i] };
        let x = self.padded("im2col", &all, Literal::zero(self.dtype()));
        let view = Tensor::record("im2col", Op::Window((0..2).map(window).collect()), &[&x]);
        let extents = view.extent_shape().extents();
        if view.check().is_ok() && (extents[first] == 0 || extents[first + 1] == 0) {
            let message = format!("a kernel {kernel:?} is larger than the padded input");
            return Tensor::fail("im2col", &[self], ErrorKind::Shape, message);
        }
        if view.check().is_err() {
            return view.named("im2col", &[self]);
        }
        // [.., channels, places, window] becomes [.., channels, window, places].
        let order = (0..first).chain([first + 2, first + 3, first, first + 1]).collect();
        let columns = extents[first - 1] * kernel[0] * kernel[1];
        let merged = extents[..first - 1].iter().copied().chain([columns, extents[first] * extents[first + 1]]);
        view.permuted("im2col", Ok(order)).shaped("im2col", Ok(Shape::new(merged))).named("im2col", &[self])
    }
}

/// One size for all dims, or one for each.
fn each<const N: usize>(name: &'static str, sizes: &DimVec<i64>) -> Result<[usize; N]> {
    let mut kernel = [0; N];
    for (i, size) in kernel.iter_mut().enumerate() {
        let given = match sizes.len() {
            1 => sizes[0],
            n if n == N => sizes[i],
            n => return Err(Error::new(ErrorKind::Value, format!("{name} takes 1 or {N} sizes, not {n}"))),
        };
        *size =
            usize::try_from(given).map_err(|_| Error::new(ErrorKind::Value, format!("size {given} is negative")))?;
    }
    Ok(kernel)
}

macro_rules! pools {
    ($n:literal $max:ident $indices:ident $max_options:ident $avg:ident $avg_options:ident $adaptive:ident,
     $shape:literal $max_example:literal $avg_example:literal $adaptive_example:literal) => {
        impl Tensor {
            #[doc = concat!("The largest element of each window of ", $shape, "; NaN wins. The kernel is one size, or one for each")]
            /// dim. The gradient goes to the first largest element.
            ///
            /// # Errors
            /// Carried: dims that do not fit; a kernel larger than the padded input; a padding of more than half of it.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            #[doc = $max_example]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $max(&self, kernel: impl Sizes, options: impl Into<$max_options>) -> Tensor {
                let kernel = ok!(stringify!($max), &[self], each::<$n>(stringify!($max), &kernel.sizes()));
                self.max_pool(stringify!($max), kernel, options.into())
            }

            #[doc = concat!("[`", stringify!($max), "`](Self::", stringify!($max), "), and where the elements are: their")]
            /// positions, as `i64`, in the pooled dims as one run.
            ///
            /// # Errors
            /// Carried, as there.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            #[doc = $max_example]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $indices(&self, kernel: impl Sizes, options: impl Into<$max_options>) -> (Tensor, Tensor) {
                let name = stringify!($max);
                let (kernel, options) = (each::<$n>(name, &kernel.sizes()), options.into());
                match kernel {
                    Ok(k) => (self.max_pool(name, k, options.clone()), self.max_pool_positions(name, k, options)),
                    Err(e) => {
                        let failed = Tensor::fail(name, &[self], e.kind(), e.message());
                        (failed.clone(), failed)
                    }
                }
            }

            #[doc = concat!("The mean of each window of ", $shape, ". The kernel is one size, or one for each dim.")]
            ///
            /// # Errors
            /// Carried: dims that do not fit; a kernel larger than the padded input; a padding of more than half of it.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            #[doc = $avg_example]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $avg(&self, kernel: impl Sizes, options: impl Into<$avg_options>) -> Tensor {
                let kernel = ok!(stringify!($avg), &[self], each::<$n>(stringify!($avg), &kernel.sizes()));
                self.avg_pool(stringify!($avg), kernel, options.into())
            }

            #[doc = concat!("The means of ", $shape, " over this many ranges a dim, of extents as even as they can be; `None`")]
            /// keeps an extent.
            ///
            /// # Errors
            /// Carried: dims that do not fit; a tensor of integers or booleans; a dim without elements.
            ///
            /// ```
            /// # use lazuli::prelude::*;
            #[doc = $adaptive_example]
            /// # Ok::<(), lazuli::Error>(())
            /// ```
            #[track_caller]
            pub fn $adaptive(&self, outputs: [Option<usize>; $n]) -> Tensor {
                self.adaptive(stringify!($adaptive), outputs)
            }
        }
    };
}

pools! {
    1 max_pool1d max_pool1d_with_indices MaxPool1d avg_pool1d AvgPool1d adaptive_avg_pool1d,
    "`[batch, channels, length]` (or without the batch)"
    "assert_eq!(lazuli::tensor([[1.0, 3.0, 2.0, 0.0]]).max_pool1d(2, ()).to_vec::<f32>()?, [3.0, 2.0]);"
    "assert_eq!(lazuli::tensor([[1.0, 3.0, 2.0, 0.0]]).avg_pool1d(2, ()).to_vec::<f32>()?, [2.0, 1.0]);"
    "assert_eq!(lazuli::tensor([[1.0, 3.0, 2.0]]).adaptive_avg_pool1d([Some(2)]).to_vec::<f32>()?, [2.0, 2.5]);"
}

pools! {
    2 max_pool2d max_pool2d_with_indices MaxPool2d avg_pool2d AvgPool2d adaptive_avg_pool2d,
    "`[batch, channels, height, width]` (or without the batch)"
    "assert_eq!(Tensor::arange(0..16).reshape([1, 4, 4]).max_pool2d(2, ()).to_vec::<i64>()?, [5, 7, 13, 15]);"
    "assert_eq!(Tensor::ones([1, 4, 4]).avg_pool2d([2, 4], ()).to_vec::<f32>()?, [1.0, 1.0]);"
    "assert_eq!(Tensor::ones([1, 4, 4]).adaptive_avg_pool2d([Some(1), None]).shape(), [1, 1, 4]);"
}

pools! {
    3 max_pool3d max_pool3d_with_indices MaxPool3d avg_pool3d AvgPool3d adaptive_avg_pool3d,
    "`[batch, channels, depth, height, width]` (or without the batch)"
    "assert_eq!(Tensor::ones([1, 2, 2, 2]).max_pool3d(2, ()).to_vec::<f32>()?, [1.0]);"
    "assert_eq!(Tensor::ones([1, 2, 2, 2]).avg_pool3d(2, ()).to_vec::<f32>()?, [1.0]);"
    "assert_eq!(Tensor::ones([1, 2, 2, 2]).adaptive_avg_pool3d([Some(1), None, None]).shape(), [1, 1, 2, 2]);"
}
