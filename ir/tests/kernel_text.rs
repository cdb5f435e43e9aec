//! The text form of kernels: what is printed is read back as the same kernel, and wrong text is told where it is wrong.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::{ErrorKind, Kernel};

const TEXTS: [&str; 6] = [
    include_str!("kernels/softmax.txt"),
    include_str!("kernels/linear_relu.txt"),
    include_str!("kernels/column_sum.txt"),
    include_str!("kernels/mean_and_argmax.txt"),
    include_str!("kernels/pad.txt"),
    include_str!("kernels/transpose.txt"),
];

#[test]
fn kernels_print_and_parse_back() {
    for text in TEXTS {
        let kernel = Kernel::parse(text).unwrap();
        let printed = kernel.to_string();
        let again = Kernel::parse(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again, kernel, "\n{printed}\n{again}");
        assert_eq!(again.to_string(), printed);
        assert_eq!(again.sources, kernel.sources);
    }
}

#[test]
fn wrong_text_is_told_where_it_is_wrong() {
    for (text, message) in [
        (
            "kernel k() {\n  loop %i in n { }\n}",
            "line 2, column 14: expected a number or the name of an extent, found `n`",
        ),
        ("kernel k() {\n  %1 = exp %0\n}", "line 2, column 12: %0 is no value defined above"),
        ("kernel k() {\n  %1 = 0.5\n  %1 = 2\n}", "line 3, column 3: %1 is defined twice"),
        ("kernel k() {\n  %1 = sine 0.5\n}", "line 2, column 8: expected an operation, found `sine`"),
        ("kernel k(%x: f32[4]) {\n  store %x[%i], 1.0\n}", "line 2, column 12: %i is no loop variable in scope"),
        ("kernel k() { barrier", "line 1, column 21: expected a statement, found the end"),
        ("kernel k() { %900000 = 1 }", "line 1, column 14: the number %900000 is too large"),
        ("kernel k(%x: f32[4] strides(1,2)) { }", "line 1, column 28: expected 1 strides, one a dim"),
    ] {
        let error = Kernel::parse(text).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Parse, message), "{text}");
    }
}
