//! Arithmetic, functions, comparisons and selection.

use super::{Family, one};
use crate::arguments::{Argument, Arguments, Unsupported};
use lazuli::prelude::*;
use lazuli::where_;

/// An operator of Rust, with a number on either side.
macro_rules! arithmetic {
    ($x:expr, $op:tt, $y:expr) => {
        match ($x, $y) {
            (Argument::Float(x), Argument::Tensor(y)) => x $op y,
            (Argument::Int(x), Argument::Tensor(y)) => x $op y,
            (Argument::Tensor(x), y) => with!(y, |y| x $op y),
            (x, y) => return Err(Unsupported(format!("operands {x:?} and {y:?}"))),
        }
    };
}

pub const ROWS: Family = &[
    ("acos", unary!(acos)),
    ("acosh", unary!(acosh)),
    ("asin", unary!(asin)),
    ("asinh", unary!(asinh)),
    ("atan", unary!(atan)),
    ("atanh", unary!(atanh)),
    ("ceil", unary!(ceil)),
    ("cos", unary!(cos)),
    ("cosh", unary!(cosh)),
    ("erf", unary!(erf)),
    ("erfc", unary!(erfc)),
    ("exp2", unary!(exp2)),
    ("expm1", unary!(expm1)),
    ("floor", unary!(floor)),
    ("frac", unary!(frac)),
    ("log10", unary!(log10)),
    ("log1p", unary!(log1p)),
    ("log2", unary!(log2)),
    ("sign", unary!(sign)),
    ("signbit", unary!(signbit)),
    ("sin", unary!(sin)),
    ("sinh", unary!(sinh)),
    ("tan", unary!(tan)),
    ("trunc", unary!(trunc)),
    ("bitwise_not", unary!(bitwise_not)),
    ("atan2", binary!(atan2)),
    ("copysign", binary!(copysign)),
    ("float_power", binary!(float_power)),
    ("floor_divide", binary!(floor_divide)),
    ("fmod", binary!(fmod)),
    ("pow", binary!(pow)),
    ("remainder", binary!(remainder)),
    ("bitwise_and", binary!(bitwise_and)),
    ("bitwise_or", binary!(bitwise_or)),
    ("bitwise_xor", binary!(bitwise_xor)),
    ("round", |a| {
        let (x, decimals) = (a.tensor("input")?, a.integer_or("decimals", 0)?);
        one(x.round_with(Round { decimals: decimals as i32 }))
    }),
    ("div", |a| {
        let (x, y, mode) = (a.operand("input")?, a.operand("other")?, a.named("rounding_mode"));
        match (x, mode) {
            (x, None | Some(Argument::None)) => one(arithmetic!(x, /, y)),
            (Argument::Tensor(x), Some(Argument::Text(mode))) if mode == "floor" => {
                one(with!(y, |y| x.floor_divide(y)))
            }
            (Argument::Tensor(x), _) => one(with!(y, |y| x.trunc_divide(y))),
            (x, mode) => Err(Unsupported(format!("{x:?} divided, rounded {mode:?}"))),
        }
    }),
    ("abs", unary!(abs)),
    ("add", |a| {
        let (x, y) = scaled(a)?;
        one(with!(y, |y| x + y))
    }),
    ("addcdiv", |a| {
        let (x, y, z, value) = (a.tensor("input")?, a.tensor("1")?, a.tensor("2")?, a.number("value")?);
        one(x.addcdiv(y, z, AddProduct { value }))
    }),
    ("addcmul", |a| {
        let (x, y, z, value) = (a.tensor("input")?, a.tensor("1")?, a.tensor("2")?, a.number("value")?);
        one(x.addcmul(y, z, AddProduct { value }))
    }),
    ("clamp", |a| {
        let x = a.tensor("input")?;
        one(match (a.bound("min")?, a.bound("max")?) {
            (Some(min), Some(max)) => with!(min, |min| with!(max, |max| x.clamp(min, max))),
            (Some(min), None) => with!(min, |min| x.clamp_min(min)),
            (None, Some(max)) => with!(max, |max| x.clamp_max(max)),
            (None, None) => return Err(Unsupported("no bound".into())),
        })
    }),
    ("eq", binary!(eq)),
    ("exp", unary!(exp)),
    ("fmax", binary!(fmax)),
    ("fmin", binary!(fmin)),
    ("ge", binary!(ge)),
    ("gt", binary!(gt)),
    ("heaviside", binary!(heaviside)),
    ("hypot", binary!(hypot)),
    ("isfinite", unary!(isfinite)),
    ("isinf", unary!(isinf)),
    ("isnan", unary!(isnan)),
    ("le", binary!(le)),
    ("lerp", |a| {
        let (x, end) = (a.tensor("input")?, a.tensor("end")?);
        one(with!(a.operand("weight")?, |w| x.lerp(&end, w)))
    }),
    ("log", unary!(log)),
    ("logaddexp", binary!(logaddexp)),
    ("logical_and", binary!(logical_and)),
    ("logical_not", unary!(logical_not)),
    ("logical_or", binary!(logical_or)),
    ("logical_xor", binary!(logical_xor)),
    ("lt", binary!(lt)),
    ("masked_fill", |a| {
        let (x, mask) = (a.tensor("input")?, a.tensor("mask")?);
        one(with!(a.operand("value")?, |v| x.masked_fill(&mask, v)))
    }),
    ("maximum", binary!(maximum)),
    ("minimum", binary!(minimum)),
    ("mul", |a| {
        let (x, y) = (a.operand("input")?, a.operand("other")?);
        one(arithmetic!(x, *, y))
    }),
    ("nan_to_num", |a| {
        let x = a.tensor("input")?;
        let nan = a.optional_float("nan")?.unwrap_or(0.0);
        let (posinf, neginf) = (a.optional_float("posinf")?, a.optional_float("neginf")?);
        one(x.nan_to_num(NanToNum { nan, posinf, neginf }))
    }),
    ("ne", binary!(ne)),
    ("neg", unary!(neg)),
    ("positive", unary!(positive)),
    ("reciprocal", unary!(reciprocal)),
    ("rsqrt", unary!(rsqrt)),
    ("rsub", |a| {
        let (x, y) = (a.tensor("input")?, a.operand("other")?);
        let alpha = a.number("alpha")?;
        one(with!(y, |y| x.rsub(y, Rsub { alpha })))
    }),
    ("sqrt", unary!(sqrt)),
    ("square", unary!(square)),
    ("sub", |a| {
        let (x, y) = scaled(a)?;
        one(with!(y, |y| x - y))
    }),
    ("tanh", unary!(tanh)),
    ("true_divide", |a| {
        let (x, y) = (a.operand("input")?, a.operand("other")?);
        one(arithmetic!(x, /, y))
    }),
    ("where", |a| {
        // The samples give the method's receiver first: `x.where(condition, other)`.
        let (x, condition) = (a.tensor("input")?, a.tensor("condition")?);
        one(with!(a.operand("other")?, |y| where_(condition, x, y)))
    }),
    ("xlogy", binary!(xlogy)),
];

/// The operands of `x + alpha * y` and `x - alpha * y`, the second one scaled.
fn scaled(a: &mut Arguments) -> Result<(Tensor, Argument), Unsupported> {
    let (x, y) = (a.tensor("input")?, a.operand("other")?);
    let y = match (y, a.next("alpha")) {
        (y, None | Some(Argument::Int(1))) => y,
        (Argument::Tensor(y), Some(alpha)) => Argument::Tensor(with!(alpha, |alpha| y * alpha)),
        (y, alpha) => return Err(Unsupported(format!("operand {y:?} scaled by {alpha:?}"))),
    };
    Ok((x, y))
}
