//! Convolutions of many shapes, compiled, against their definition: results and both gradients, where they leave the program and where
//! something is made from them. Small integers, so that sums are exact whatever their order.

use lazuli::options::{Conv1d, Conv2d, Conv3d};
use lazuli::prelude::*;
use lazuli::{compile, value_and_grad};

/// A convolution over `N` dims.
#[derive(Clone, Copy, Debug)]
struct Case<const N: usize> {
    batch: usize,
    channels: usize,
    outputs: usize,
    size: [usize; N],
    kernel: [usize; N],
    stride: [usize; N],
    padding: [usize; N],
    dilation: [usize; N],
    groups: usize,
}

fn numbers(n: usize, step: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * step + i / 7) % 5) as f32 - 2.0).collect()
}

/// All indices of these extents, in row-major order.
fn indices(extents: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<'_> {
    (0..extents.iter().product()).map(|mut rest: usize| {
        let mut index: Vec<usize> = extents.iter().rev().map(|n| (rest % n, rest /= n).0).collect();
        index.reverse();
        index
    })
}

fn place(index: &[usize], extents: &[usize]) -> usize {
    index.iter().zip(extents).fold(0, |at, (i, n)| at * n + i)
}

impl<const N: usize> Case<N> {
    fn places(&self) -> Vec<usize> {
        let span = |d: usize| (self.kernel[d] - 1) * self.dilation[d] + 1;
        (0..N).map(|d| (self.size[d] + 2 * self.padding[d] - span(d)) / self.stride[d] + 1).collect()
    }

    fn shapes(&self) -> [Vec<usize>; 3] {
        let with = |a: usize, b: usize, rest: &[usize]| [&[a, b], rest].concat();
        [
            with(self.batch, self.channels, &self.size),
            with(self.outputs, self.channels / self.groups, &self.kernel),
            with(self.batch, self.outputs, &self.places()),
        ]
    }

    /// Calls `f` with the places of a result, an input and a weight that are multiplied.
    fn terms(&self, mut f: impl FnMut(usize, usize, usize)) {
        let [x, w, y] = self.shapes();
        for at in indices(&y) {
            for of in indices(&w[1..]) {
                let group = at[1] / (self.outputs / self.groups);
                let mut from = vec![at[0], group * (self.channels / self.groups) + of[0]];
                let inside = (0..N).all(|d| {
                    let i = (at[2 + d] * self.stride[d] + of[1 + d] * self.dilation[d]).checked_sub(self.padding[d]);
                    from.push(i.unwrap_or(0));
                    i.is_some_and(|i| i < self.size[d])
                });
                if inside {
                    f(place(&at, &y), place(&from, &x), at[1] * w[1..].iter().product::<usize>() + place(&of, &w[1..]));
                }
            }
        }
    }

    fn check(
        &self,
        convolution: impl Fn(&Tensor, &Tensor) -> Tensor + Copy + Send + Sync + 'static,
    ) -> lazuli::Result<()> {
        let [xs, ws, ys] = self.shapes();
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let (x, w, g) = (numbers(count(&xs), 3), numbers(count(&ws), 2), numbers(count(&ys), 1));
        let (mut y, mut dx, mut dw) = (vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        self.terms(|at, from, of| {
            y[at] += x[from] * w[of];
            dx[from] += g[at] * w[of];
            dw[of] += g[at] * x[from];
        });
        let tensor = |v: &[f32], shape: &[usize]| Tensor::from_slice(v, shape);
        let (tx, tw, tg) = (tensor(&x, &xs), tensor(&w, &ws), tensor(&g, &ys));
        let leaves = compile(move |(x, w): (Tensor, Tensor)| convolution(&x, &w));
        assert_eq!(leaves.call((tx.clone(), tw.clone()))?.to_vec::<f32>()?, y, "{self:?}");
        assert_eq!(convolution(&tx, &tw).to_vec::<f32>()?, y, "{self:?}, eagerly");
        // What is summed over all but the channels stays inside.
        let dims: Vec<isize> = (0..N as isize + 2).filter(|d| *d != 1).collect();
        let stays = compile(move |(x, w): (Tensor, Tensor)| (convolution(&x, &w) * 2.0).sum(dims.as_slice()));
        let channel =
            |c: usize| (0..y.len()).filter(|i| i / count(&ys[2..]) % ys[1] == c).map(|i| 2.0 * y[i]).sum::<f32>();
        let sums: Vec<f32> = (0..ys[1]).map(channel).collect();
        assert_eq!(stays.call((tx.clone(), tw.clone()))?.to_vec::<f32>()?, sums, "{self:?}, summed");
        let gradients = compile(move |(x, w, g): (Tensor, Tensor, Tensor)| {
            value_and_grad(move |(x, w): &(Tensor, Tensor)| (convolution(x, w) * &g).sum(..))(&(x, w)).1
        });
        let (gx, gw) = gradients.call((tx, tw, tg))?;
        assert_eq!(gx.to_vec::<f32>()?, dx, "{self:?}, gradient of the input");
        assert_eq!(gw.to_vec::<f32>()?, dw, "{self:?}, gradient of the weight");
        Ok(())
    }
}

#[test]
fn lines() -> lazuli::Result<()> {
    let case = |channels, outputs, size, kernel, stride, padding, dilation, groups| Case {
        batch: 3,
        channels,
        outputs,
        size: [size],
        kernel: [kernel],
        stride: [stride],
        padding: [padding],
        dilation: [dilation],
        groups,
    };
    for c in [
        case(1, 1, 9, 3, 1, 0, 1, 1),
        case(16, 5, 70, 5, 1, 0, 1, 1),
        case(17, 20, 33, 4, 1, 2, 1, 1),
        case(32, 70, 300, 3, 1, 1, 2, 1),
        case(12, 12, 40, 3, 2, 1, 1, 3),
    ] {
        c.check(move |x, w| {
            let (stride, padding, dilation) = (c.stride, c.padding.into(), c.dilation);
            x.conv1d(w, Conv1d { stride, padding, dilation, groups: c.groups, ..Default::default() })
        })?;
    }
    Ok(())
}

#[test]
fn images() -> lazuli::Result<()> {
    let case = |batch, channels, outputs, size, kernel, stride, padding, dilation, groups| Case {
        batch,
        channels,
        outputs,
        size,
        kernel,
        stride,
        padding,
        dilation,
        groups,
    };
    for c in [
        case(1, 1, 1, [4, 4], [3, 3], [1, 1], [0, 0], [1, 1], 1),
        case(2, 3, 8, [17, 19], [3, 3], [1, 1], [1, 1], [1, 1], 1),
        case(2, 16, 8, [13, 11], [3, 3], [1, 1], [1, 1], [1, 1], 1),
        case(3, 33, 20, [9, 30], [3, 2], [1, 1], [1, 0], [1, 1], 1),
        case(2, 32, 40, [26, 21], [3, 3], [1, 1], [2, 2], [2, 2], 1),
        case(5, 20, 17, [7, 7], [3, 3], [1, 1], [1, 1], [1, 1], 1),
        case(2, 18, 24, [15, 16], [3, 5], [2, 2], [1, 2], [1, 1], 1),
        case(2, 16, 32, [12, 12], [3, 3], [1, 1], [1, 1], [1, 1], 2),
        case(2, 24, 24, [10, 12], [3, 3], [1, 1], [1, 1], [1, 1], 24),
        case(2, 16, 9, [20, 9], [1, 1], [1, 1], [0, 0], [1, 1], 1),
    ] {
        c.check(move |x, w| {
            let (stride, padding, dilation) = (c.stride, c.padding.into(), c.dilation);
            x.conv2d(w, Conv2d { stride, padding, dilation, groups: c.groups, ..Default::default() })
        })?;
    }
    Ok(())
}

#[test]
fn volumes() -> lazuli::Result<()> {
    let case = |channels, outputs, size, padding| Case {
        batch: 2,
        channels,
        outputs,
        size,
        kernel: [2, 3, 3],
        stride: [1; 3],
        padding,
        dilation: [1; 3],
        groups: 1,
    };
    for c in [case(3, 4, [5, 6, 7], [0, 1, 1]), case(16, 9, [4, 9, 10], [1, 1, 1])] {
        c.check(move |x, w| x.conv3d(w, Conv3d { padding: c.padding.into(), ..Default::default() }))?;
    }
    Ok(())
}
