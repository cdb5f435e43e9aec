//! Convolutions, pooling, and resampling.

use super::{Family, Results, one};
use crate::arguments::{Argument, Arguments, Unsupported};
use lazuli::prelude::*;

macro_rules! convolution {
    ($method:ident $n:literal) => {
        |a| {
            let (x, weight, bias) = (a.tensor("input")?, a.tensor("weight")?, a.optional_tensor("bias")?);
            let stride = a.tuple("stride", 1)?;
            let padding = match a.peek_named("padding") {
                Some(Argument::Text(_)) => match a.text("padding", "valid")?.as_str() {
                    "same" => Padding::Same,
                    _ => Padding::Each([0; $n]),
                },
                _ => Padding::Each(a.tuple("padding", 0)?),
            };
            let dilation = a.tuple("dilation", 1)?;
            let groups = a.integer_or("groups", 1)? as usize;
            one(x.$method(&weight, Conv::<$n> { bias, stride, padding, dilation, groups }))
        }
    };
}

macro_rules! transposed {
    ($method:ident $n:literal) => {
        |a| {
            let (x, weight, bias) = (a.tensor("input")?, a.tensor("weight")?, a.optional_tensor("bias")?);
            let (stride, padding) = (a.tuple("stride", 1)?, a.tuple("padding", 0)?);
            let output_padding = a.tuple("output_padding", 0)?;
            let groups = a.integer_or("groups", 1)? as usize;
            let dilation = a.tuple("dilation", 1)?;
            one(x.$method(&weight, ConvTranspose::<$n> { bias, stride, padding, output_padding, dilation, groups }))
        }
    };
}

macro_rules! average {
    ($method:ident $n:literal) => {
        |a| {
            let (x, kernel) = (a.tensor("input")?, a.tuple::<$n>("kernel_size", 1)?);
            let (stride, padding) = (a.optional_tuple("stride")?, a.tuple("padding", 0)?);
            let (ceil_mode, count_include_pad) = (a.flag("ceil_mode")?, a.integer_or("count_include_pad", 1)? != 0);
            let divisor_override = a.optional_float("divisor_override")?.map(|d| d as i64);
            one(x.$method(kernel, AvgPool::<$n> { stride, padding, ceil_mode, count_include_pad, divisor_override }))
        }
    };
}

macro_rules! largest {
    ($method:ident $n:literal) => {
        |a| {
            let (x, kernel) = (a.tensor("input")?, a.tuple::<$n>("kernel_size", 1)?);
            let (stride, padding) = (a.optional_tuple("stride")?, a.tuple("padding", 0)?);
            let dilation = a.tuple("dilation", 1)?;
            let (ceil_mode, indices) = (a.flag("ceil_mode")?, a.flag("return_indices")?);
            let (y, at) = x.$method(kernel, MaxPool::<$n> { stride, padding, dilation, ceil_mode });
            Ok(if indices { vec![y, at] } else { vec![y] })
        }
    };
}

pub const ROWS: Family = &[
    ("nn.functional.adaptive_avg_pool2d", |a| {
        let (x, sizes) = (a.tensor("input")?, a.next("output_size"));
        let size = |s: &Argument| match s {
            Argument::Int(n) => Ok(Some(*n as usize)),
            Argument::None => Ok(None),
            other => Err(Unsupported(format!("size {other:?}"))),
        };
        one(x.adaptive_avg_pool2d(match sizes {
            Some(Argument::List(parts)) if parts.len() == 2 => [size(&parts[0])?, size(&parts[1])?],
            Some(one) => [size(&one)?; 2],
            None => return Err(Unsupported("no size".into())),
        }))
    }),
    ("nn.functional.avg_pool1d", average!(avg_pool1d 1)),
    ("nn.functional.avg_pool2d", average!(avg_pool2d 2)),
    ("nn.functional.conv1d", convolution!(conv1d 1)),
    ("nn.functional.conv2d", convolution!(conv2d 2)),
    ("nn.functional.conv3d", convolution!(conv3d 3)),
    ("nn.functional.conv_transpose1d", transposed!(conv_transpose1d 1)),
    ("nn.functional.conv_transpose2d", transposed!(conv_transpose2d 2)),
    ("nn.functional.interpolate", interpolate),
    ("nn.functional.max_pool1d", largest!(max_pool1d_with_indices 1)),
    ("nn.functional.max_pool2d", largest!(max_pool2d_with_indices 2)),
];

fn interpolate(a: &mut Arguments) -> Results {
    let x = a.tensor("input")?;
    let size = a.optional_list("size")?.map(|s| s.into_iter().map(|n| n as usize).collect());
    let scale_factor = a.optional_list("scale_factor")?;
    let mode = match a.text("mode", "nearest")?.as_str() {
        "nearest" => Interpolation::Nearest,
        "nearest-exact" => Interpolation::NearestExact,
        "bicubic" => Interpolation::Cubic,
        "area" => Interpolation::Area,
        _ => Interpolation::Linear,
    };
    let picks = matches!(mode, Interpolation::Nearest | Interpolation::NearestExact);
    if !picks && !x.dtype().is_float() {
        return Err(Unsupported(format!("interpolation between elements of {}", x.dtype())));
    }
    let (align_corners, recompute_scale_factor) = (a.flag("align_corners")?, a.flag("recompute_scale_factor")?);
    one(x.interpolate(Interpolate { size, scale_factor, mode, align_corners, recompute_scale_factor }))
}
