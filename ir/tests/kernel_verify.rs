//! Each invariant of the Kernel IR, by a kernel that breaks it.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::{ErrorKind, Kernel};

/// A kernel of two inputs and two outputs around a body.
fn verify(body: &str) -> Result<(), String> {
    let text = format!(
        "kernel k(%x: f32[n,8], %a: i64[8], %y: mut f32[n,8], %z: mut f32[8]) extents(n) scalars(%s: f32) {{ {body} }}"
    );
    let kernel = Kernel::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    kernel.verify().map_err(|e| {
        assert_eq!(e.kind(), ErrorKind::Verify);
        e.message().trim_start_matches("kernel k: ").to_owned()
    })
}

#[test]
fn right_kernels_pass() {
    for text in [
        include_str!("kernels/softmax.txt"),
        include_str!("kernels/linear_relu.txt"),
        include_str!("kernels/column_sum.txt"),
        include_str!("kernels/mean_and_argmax.txt"),
        include_str!("kernels/pad.txt"),
    ] {
        Kernel::parse(text).unwrap().verify().unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
    verify("loop %i in n parallel { loop %k in 8 vector(4) { store %y[%i,%k], mul (load %x[%i,%k]), %s } }").unwrap();
}

#[test]
fn each_invariant_is_checked() {
    for (body, message) in [
        // Parameters and indices.
        ("store %x[0,0], 1.0", "%x is stored to, and is not mut"),
        ("%v = load %z[0]", "%z is loaded from, and is mut"),
        ("%v = load %x[0]", "%x of rank 2 is indexed with 1 indices"),
        ("loop %i in 8 { %v = load %a[%i + 1] }", "an index of %a runs from 1 to 8, the dim has 8"),
        ("loop %i in 8 { %v = load %a[%i - 1] }", "an index of %a runs from -1 to 6, the dim has 8"),
        // SSA.
        ("loop %i in n { %v = 1.0 } store %z[0], %v", "%0 is used outside the block that defines it"),
        ("loop %i in n { tile %t: f32[4] } fill %t, 0.0", "tile %t is used where it is not declared"),
        // Types.
        ("%v = add 1.0, 1", "an operand %1 is i64, and must be f32"),
        ("%v = exp 1", "exp of i64 does not exist"),
        ("%v = select 1.0, 1.0, 2.0", "a condition %0 is f32, and must be bool"),
        ("%v: i64 = exp 1.0", "%1 is i64, and what defines it gives f32"),
        ("%v = fma 1, 2, 3", "fma of i64 does not exist"),
        ("%v = shl 1, 64", "shl by what is no constant below the width"),
        ("%v = random 1, 2, 1.0", "an operand of random %2 is f32, and must be i64"),
        ("store %z[0], 1", "a stored value %0 is i64, and must be f32"),
        ("guard 1 { }", "a guard %0 is i64, and must be bool"),
        ("%v = reduce sum %k in 8 { yield true }", "a sum of bool does not exist"),
        ("%v = reduce argmax %k in 8 { yield 1.0, 2 }", "a reduce yields 2 values and gives 1, its reducers take 2"),
        ("%v, %w = reduce argmax %k in 8 { yield 1.0, 2.0 }", "a yielded value %1 is f32, and must be i64"),
        ("tile %t: f32[4] fill %t, 1", "%t is filled with i64"),
        // Schedule.
        ("loop %i in n step 0 { }", "loop %i has a step or unroll of 0"),
        ("loop %i in n vector(3) { }", "loop %i has a vector that is no power of two"),
        ("loop %i in n vector(4) { loop %j in 8 vector(2) { } }", "a vector loop stands in a vector loop"),
        (
            "loop %i in n { loop %j in 8 parallel { } }",
            "a parallel loop or reduce is not part of the perfect nest at the root",
        ),
        (
            "%v = reduce sum %i in 8 parallel chunk=2 { yield 1.0 } store %z[0], %v",
            "a parallel loop or reduce is not part of the perfect nest at the root",
        ),
        ("%v = reduce sum %i in 8 parallel { yield 1.0 }", "a reduce that cores or blocks share has no chunk"),
        (
            "loop %i in n { %v = reduce sum %j in 8 grid.x chunk=2 { yield 1.0 } }",
            "a reduce that cores or blocks share is not the whole body",
        ),
        (
            "loop %i in n parallel { store %z[0], 1.0 }",
            "iterations of %i run at once and store to the same place of %z",
        ),
        (
            "loop %i in 8 vector(4) { store %z[0], 1.0 }",
            "iterations of %i run at once and store to the same place of %z",
        ),
        (
            "tile %t: f32[8] loop %i in 8 lane { store %t[%i], 1.0 }",
            "%t belongs to a thread, and threads share it here",
        ),
        (
            "tile %t: f32[8] scope=register loop %i in 8 lane { store %t[%i], 1.0 } loop %i in 4 { %v = load %t[%i] }",
            "register tile %t is not indexed alike by all its accesses",
        ),
        ("guard true { barrier }", "a barrier stands under a guard"),
        (
            "loop %t in 8 block { barrier }",
            "a barrier stands in a loop over threads, or one whose end depends on a thread",
        ),
        // Contractions.
        (
            "tile %t: f32[8] dot %t[%r,%c], %x[%r,%k], %x[%k,%c] over %k in 8",
            "the accumulator %t of a dot is not of rank 2",
        ),
        (
            "tile %t: f32[8,8] dot %t[%r,%c], %x[%r,%k / 2], %x[%k,%c] over %k in 8",
            "the left operand of a dot is not affine",
        ),
        (
            "tile %t: f32[8,8] dot %t[%r,%c], %x[%r,%k], %x[%r,%c] over %k in 8",
            "the right operand of a dot depends on the other's variable",
        ),
        ("tile %t: f32[8,8] dot %t[%r,%c], %a[%k], %x[%k,%c] over %k in 8", "a dot of i64 and f32 adds to f32"),
        (
            "tile %t: f32[8,8] tile %u: bf16[8,8] fill %u, 0.0 dot %t[%r,%c], %x[%r,%k], %u[%k,%c] over %k in 8",
            "a dot of f32 and bf16 adds to f32",
        ),
        (
            "tile %t: f64[8,8] tile %u: bf16[8,8] fill %u, 0.0 dot %t[%r,%c], %u[%r,%k], %u[%k,%c] over %k in 8",
            "a dot of bf16 and bf16 adds to f64",
        ),
        (
            "tile %t: f32[8,8] tile %u: f16[8,8] fill %u, 0.0 dot %t[%r,%c], %u[%r,%k], %u[%k,%c] over %k in 8",
            "a dot of f16 and f16 adds to f32",
        ),
        // Finish.
        (
            "loop %i in n { } %v = 1.0 finish { store %z[0], %v }",
            "%0 is used in finish, and is no result of the body's parallel reduce",
        ),
    ] {
        assert_eq!(verify(body).unwrap_err(), message, "{body}");
    }
    let overlapping = Kernel::parse("kernel k(%y: mut f32[2,3] strides(0,1)) { }").unwrap();
    assert_eq!(overlapping.verify().unwrap_err().message(), "kernel k: %y is written and has stride 0");
    let text = "kernel k() vars(%i, %j) { loop %i in 2 { loop %i in 3 { } } }";
    let mut twice = Kernel::parse(&text.replace("loop %i in 3", "loop %j in 3")).unwrap();
    let lazuli_ir::kernel::StmtKind::Loop(outer) = &mut twice.body[0].kind else { panic!() };
    let lazuli_ir::kernel::StmtKind::Loop(inner) = &mut outer.body[0].kind else { panic!() };
    inner.var = outer.var;
    assert_eq!(twice.verify().unwrap_err().message(), "kernel k: %i is the variable of two loops");
    let lazuli_ir::kernel::StmtKind::Loop(outer) = &mut twice.body[0].kind else { panic!() };
    outer.body.clear();
    outer.limit = Some(lazuli_ir::VarId(1).into());
    assert_eq!(twice.verify().unwrap_err().message(), "kernel k: variable %j is used outside its loop");
}
