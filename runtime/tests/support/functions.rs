//! Functions of one and two numbers as machine code, for all vectors that the machine has.

use lazuli_ir::{Element, Kernel, Shape};
use lazuli_runtime::Array;
use lazuli_runtime::cpu::{CompileOptions, KernelCode, LaunchArg, Vectors, launch};

/// The code of an expression of `%a` and `%b`, numbers of a type, for each of this machine's vectors.
pub fn codes(ty: &str, expr: &str) -> Vec<KernelCode> {
    let text = format!(
        "kernel f(%x: {ty}[n], %z: {ty}[n], %y: mut {ty}[n]) extents(n) {{
           loop %i in n vector(4) {{ %a = load %x[%i]  %b = load %z[%i]  store %y[%i], {expr} }}
         }}"
    );
    let kernel = Kernel::parse(&text).unwrap();
    let code = |v| super::code(&kernel, CompileOptions { vectors: Some(v), ..CompileOptions::default() });
    Vectors::available().into_iter().map(code).collect()
}

/// The results, which are the same whatever the vectors.
pub fn apply<T: Element>(codes: &[KernelCode], x: &[T], z: &[T]) -> Vec<T> {
    let first = apply_one(&codes[0], x, z);
    for code in &codes[1..] {
        for (i, (a, b)) in first.iter().zip(apply_one(code, x, z)).enumerate() {
            let (a, b) = (a.literal(), b.literal());
            let same = a == b || (a.as_f64().is_nan() && b.as_f64().is_nan());
            assert!(same, "of {:?} and {:?}: {a} and, with wider vectors, {b}", x[i], z[i]);
        }
    }
    first
}

fn apply_one<T: Element>(code: &KernelCode, x: &[T], z: &[T]) -> Vec<T> {
    let shape = Shape::new([x.len()]);
    let array = |v: &[T]| Array::from_vec(v.to_vec(), &shape).unwrap();
    let arrays = [array(x), array(z), array(x)];
    let args: Vec<LaunchArg<'_>> = arrays.iter().map(|array| LaunchArg { array, strides: &[] }).collect();
    launch(code, &args, &[x.len() as u64], &[], &[], 1, 1).unwrap();
    arrays[2].to_vec().unwrap()
}
