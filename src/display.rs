//! Tensors printed as PyTorch prints them: precision 4, scientific where magnitudes ask for it, summarised when large.

use crate::Device;
use crate::history::Kind;
use crate::tensor::Tensor;
use lazuli_ir::{DType, Element, Literal, with_element};
use std::fmt::{self, Write};

/// Tensors of more elements are summarised.
const THRESHOLD: usize = 1000;
/// Elements shown at each end of a summarised dim.
const EDGE: usize = 3;
/// Digits after the point.
const PRECISION: usize = 4;
/// Columns of a line.
const WIDTH: usize = 80;

impl fmt::Display for Tensor {
    /// Computes the value and prints it as PyTorch does. An error is printed instead of a value, and of a traced tensor its
    /// type.
    ///
    /// ```
    /// # use lazuli::prelude::*;
    /// let x = lazuli::tensor([[1.0, -2.5], [0.0, 10.0]]);
    /// assert_eq!(x.to_string(), "tensor([[ 1.0000, -2.5000],\n        [ 0.0000, 10.0000]])");
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.check().is_ok() && crate::trace::readable(&self.node).is_err() {
            return write!(f, "tensor(traced {})", self.node.ty);
        }
        match self.array().and_then(|a| literals(&a)) {
            Ok(elements) => f.write_str(&self.text(&elements)),
            Err(error) => write!(f, "tensor(error: {error})"),
        }
    }
}

fn literals(array: &lazuli_runtime::Array) -> lazuli_ir::Result<Vec<Literal>> {
    Ok(with_element!(array.dtype(), T => array.to_vec::<T>()?.into_iter().map(T::literal).collect()))
}

impl Tensor {
    fn text(&self, elements: &[Literal]) -> String {
        const PREFIX: &str = "tensor(";
        let shape = self.shape();
        let summarise = elements.len() > THRESHOLD;
        let mut text = PREFIX.to_owned();
        let mut suffix = Vec::new();
        if elements.is_empty() {
            text.push_str("[]");
            if shape.len() != 1 {
                let extents: Vec<String> = shape.iter().map(ToString::to_string).collect();
                suffix.push(format!("size=({})", extents.join(", ")));
            }
        } else {
            let shown = shown(elements, &shape, summarise);
            let printer = Printer { number: NumberFormat::of(self.dtype(), &shown), summarise };
            printer.nested(&mut text, elements, &shape, PREFIX.len());
        }
        let is_default = match self.dtype() {
            DType::F32 => true,
            DType::Bool | DType::I64 => !elements.is_empty(),
            DType::U8 | DType::I32 | DType::F16 | DType::BF16 | DType::F64 => false,
        };
        if self.device() != Device::Cpu {
            suffix.push(format!("device={}", self.device()));
        }
        if !is_default {
            suffix.push(format!("dtype={}", self.dtype()));
        }
        if let Some(history) = &self.history {
            suffix.push(match &history.kind {
                Kind::Leaf { .. } => "requires_grad=True".to_owned(),
                Kind::Cut { .. } | Kind::Operation(_) => format!("grad_fn=<{}>", history.name()),
            });
        }
        for part in suffix {
            text.push_str(", ");
            text.push_str(&part);
        }
        text.push(')');
        text
    }
}

/// The elements that are printed.
fn shown(elements: &[Literal], shape: &[usize], summarise: bool) -> Vec<Literal> {
    if !summarise {
        return elements.to_vec();
    }
    let is_shown = |mut number: usize| {
        shape.iter().rev().all(|&n| {
            let i = number % n;
            number /= n;
            n <= 2 * EDGE || i < EDGE || i >= n - EDGE
        })
    };
    elements.iter().enumerate().filter(|(i, _)| is_shown(*i)).map(|(_, v)| *v).collect()
}

/// How all numbers of one tensor are printed.
struct NumberFormat {
    style: Style,
    width: usize,
}

#[derive(Clone, Copy)]
enum Style {
    Word,
    /// Floats that are all integers.
    Whole,
    Decimal,
    Scientific,
}

impl NumberFormat {
    fn of(dtype: DType, shown: &[Literal]) -> NumberFormat {
        let style = if dtype.is_float() { float_style(shown) } else { Style::Word };
        let width = shown.iter().map(|v| one(*v, style).len()).max().unwrap_or(0);
        NumberFormat { style, width }
    }

    fn write(&self, text: &mut String, value: Literal) {
        let width = self.width;
        let _ = write!(text, "{:>width$}", one(value, self.style));
    }
}

/// PyTorch's choice: whole numbers bare, scientific where magnitudes are far apart, large or small.
fn float_style(shown: &[Literal]) -> Style {
    let magnitudes = shown.iter().map(|v| v.as_f64().abs()).filter(|v| v.is_finite() && *v != 0.0);
    let (low, high) = magnitudes.clone().fold((f64::INFINITY, 0.0), |(l, h): (f64, f64), v| (l.min(v), h.max(v)));
    let wide = high > 0.0 && high / low > 1000.0;
    let whole = shown.iter().all(|v| !v.as_f64().is_finite() || v.as_f64().fract() == 0.0);
    if wide || high > 1e8 || (!whole && low < 1e-4) {
        Style::Scientific
    } else if whole {
        Style::Whole
    } else {
        Style::Decimal
    }
}

fn one(value: Literal, style: Style) -> String {
    if let Literal::Bool(v) = value {
        return if v { "True" } else { "False" }.to_owned();
    }
    if let Some(v) = value.as_i64() {
        return v.to_string();
    }
    let v = value.as_f64();
    if v.is_nan() {
        return "nan".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    match style {
        Style::Word | Style::Decimal => format!("{v:.PRECISION$}"),
        Style::Whole => format!("{v:.0}."),
        Style::Scientific => {
            // Rust writes `1.5e-7`; PyTorch writes at least two digits of exponent, and its sign.
            let text = format!("{v:.PRECISION$e}");
            match text.split_once('e') {
                Some((mantissa, exponent)) => {
                    let (sign, digits) = match exponent.strip_prefix('-') {
                        Some(digits) => ('-', digits),
                        None => ('+', exponent),
                    };
                    format!("{mantissa}e{sign}{digits:0>2}")
                }
                None => text,
            }
        }
    }
}

struct Printer {
    number: NumberFormat,
    summarise: bool,
}

impl Printer {
    /// The elements in brackets, one level a dim; `indent` columns stand before the first bracket. (Recursion is as deep as
    /// the tensor has dims.)
    fn nested(&self, text: &mut String, elements: &[Literal], shape: &[usize], indent: usize) {
        let Some((&n, inner)) = shape.split_first() else {
            if let Some(v) = elements.first() {
                text.push_str(&one(*v, self.number.style));
            }
            return;
        };
        if inner.is_empty() {
            return self.row(text, elements, indent);
        }
        let size = elements.len() / n.max(1);
        text.push('[');
        let separator = format!(",{}{}", "\n".repeat(inner.len()), " ".repeat(indent + 1));
        let mut first = true;
        for i in self.indices(n) {
            if !std::mem::take(&mut first) {
                text.push_str(&separator);
            }
            match i {
                Some(i) => self.nested(text, &elements[i * size..(i + 1) * size], inner, indent + 1),
                None => text.push_str("..."),
            }
        }
        text.push(']');
    }

    fn row(&self, text: &mut String, elements: &[Literal], indent: usize) {
        let per_line = (WIDTH.saturating_sub(indent) / (self.number.width + 2)).max(1);
        text.push('[');
        for (k, i) in self.indices(elements.len()).into_iter().enumerate() {
            if k > 0 {
                text.push(',');
                if k % per_line == 0 {
                    text.push('\n');
                    text.push_str(&" ".repeat(indent + 1));
                } else {
                    text.push(' ');
                }
            }
            match i {
                Some(i) => self.number.write(text, elements[i]),
                None => text.push_str(" ..."),
            }
        }
        text.push(']');
    }

    /// The indices of a dim that are printed, with `None` for those left out.
    fn indices(&self, n: usize) -> Vec<Option<usize>> {
        if self.summarise && n > 2 * EDGE {
            (0..EDGE).map(Some).chain([None]).chain((n - EDGE..n).map(Some)).collect()
        } else {
            (0..n).map(Some).collect()
        }
    }
}
