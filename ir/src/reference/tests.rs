use super::*;
use crate::{DType, Element, UnaryOp};

fn run(text: &str, inputs: &[Dense]) -> Vec<Dense> {
    let graph = Graph::parse(text).unwrap_or_else(|e| panic!("{e}"));
    graph.verify().unwrap();
    let outputs = evaluate(&graph, inputs).unwrap();
    let bounds = evaluate_bounds(&graph, inputs, 1).unwrap();
    for (b, y) in bounds.iter().zip(&outputs) {
        assert_eq!(&b.value, y);
    }
    compare(&outputs, &bounds).unwrap();
    outputs
}

/// The result of one line on these inputs, `%a`, `%b`, `%c`.
fn line<T: Element>(line: &str, inputs: &[Dense]) -> Vec<T> {
    let names = ["%a", "%b", "%c"];
    let params: Vec<String> = inputs.iter().zip(names).map(|(x, n)| format!("{n}: {}", x.ty())).collect();
    let text = format!("graph g({}) -> (%1) {{ %1 = {line} }}", params.join(", "));
    run(&text, inputs)[0].to_vec().unwrap()
}

fn dense<T: Element, const N: usize>(v: &[T], shape: [usize; N]) -> Dense {
    Dense::from_vec(v.to_vec(), shape).unwrap()
}

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

/// Equality by bits, any NaN equal to any.
fn assert_bits(actual: &[f32], expected: &[f32]) {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    assert!(actual.len() == expected.len() && actual.iter().zip(expected).all(same), "{actual:?} {expected:?}");
}

#[test]
fn sources() {
    assert_bits(&line("constant -0.0 : f32[2]", &[]), &[-0.0, -0.0]);
    assert_eq!(line::<i64>("constant 7 : i64[]", &[]), [7]);
    assert_eq!(line::<bool>("constant true : bool[0,3]", &[]), [false; 0]);
    assert_eq!(line::<i64>("iota dim=0 : i64[2,3]", &[]), [0, 0, 0, 1, 1, 1]);
    assert_eq!(line::<i64>("iota dim=1 : i64[2,3]", &[]), [0, 1, 2, 0, 1, 2]);
    let base = dense(&[-5i64, 40], [2]);
    let drawn: Vec<f32> = line("random %a stream=2 : f32[2,2]", std::slice::from_ref(&base));
    let number = |i| crate::philox::uniform(crate::philox::philox(-5i64 as u64, 42, i));
    assert_eq!(drawn, [0, 1, 2, 3].map(number));
    assert_eq!(line::<f32>("random %a stream=0 : f32[0]", &[base]).len(), 0);
}

#[test]
fn elementwise_on_special_values() {
    let x = dense(&[0.0f32, -0.0, 1.0, -1.0, INF, -INF, NAN], [7]);
    let unary = |op: &str| line::<f32>(&format!("{op} %a : f32[7]"), std::slice::from_ref(&x));
    assert_bits(&unary("neg"), &[-0.0, 0.0, -1.0, 1.0, -INF, INF, NAN]);
    assert_bits(&unary("abs"), &[0.0, 0.0, 1.0, 1.0, INF, INF, NAN]);
    assert_bits(&unary("exp"), &[1.0, 1.0, 1f64.exp() as f32, (-1f64).exp() as f32, INF, 0.0, NAN]);
    assert_bits(&unary("log"), &[-INF, -INF, 0.0, NAN, INF, NAN, NAN]);
    assert_bits(&unary("sqrt"), &[0.0, -0.0, 1.0, NAN, INF, NAN, NAN]);
    assert_bits(&unary("rsqrt"), &[INF, -INF, 1.0, NAN, 0.0, NAN, NAN]);
    assert_bits(&unary("tanh"), &[0.0, -0.0, 1f64.tanh() as f32, -(1f64.tanh()) as f32, 1.0, -1.0, NAN]);
    let (a, b) = (dense(&[1.0f32, NAN, 1.0, -0.0, INF], [5]), dense(&[2.0f32, 1.0, NAN, 0.0, INF], [5]));
    let binary = |op: &str| line::<f32>(&format!("{op} %a, %b : f32[5]"), &[a.clone(), b.clone()]);
    assert_bits(&binary("add"), &[3.0, NAN, NAN, 0.0, INF]);
    assert_bits(&binary("sub"), &[-1.0, NAN, NAN, -0.0, NAN]);
    assert_bits(&binary("mul"), &[2.0, NAN, NAN, -0.0, INF]);
    assert_bits(&binary("div"), &[0.5, NAN, NAN, NAN, NAN]);
    assert_bits(&binary("max"), &[2.0, NAN, NAN, 0.0, INF]);
    assert_bits(&binary("min"), &[1.0, NAN, NAN, 0.0, INF]);
    let compare = |op: &str| line::<bool>(&format!("{op} %a, %b : bool[5]"), &[a.clone(), b.clone()]);
    assert_eq!(compare("eq"), [false, false, false, true, true]);
    assert_eq!(compare("ne"), [true, true, true, false, false]);
    assert_eq!(compare("lt"), [true, false, false, false, false]);
    assert_eq!(compare("ge"), [false, false, false, true, true]);
    let c = dense(&[true, false, true, false, true], [5]);
    assert_bits(&line("select %c, %a, %b : f32[5]", &[a.clone(), b.clone(), c]), &[1.0, 1.0, 1.0, 0.0, INF]);
    // Each operation rounds: 2^24 + 1 is not an f32.
    assert_bits(
        &line("add %a, %b : f32[1]", &[dense(&[16_777_216.0f32], [1]), dense(&[1.0f32], [1])]),
        &[16_777_216.0],
    );
}

#[test]
fn integers_wrap_and_casts_are_those_of_x86() {
    let (a, b) = (dense(&[i64::MAX, i64::MIN, -7], [3]), dense(&[1i64, -1, 2], [3]));
    let binary = |op: &str| line::<i64>(&format!("{op} %a, %b : i64[3]"), &[a.clone(), b.clone()]);
    assert_eq!(binary("add"), [i64::MIN, i64::MAX, -5]);
    assert_eq!(binary("mul"), [i64::MAX, i64::MIN, -14]);
    assert_eq!(binary("min"), [1, i64::MIN, -7]);
    assert_eq!(line::<i64>("neg %a : i64[3]", std::slice::from_ref(&a)), [-i64::MAX, i64::MIN, 7]);
    let (t, f) = (dense(&[true, false], [2]), dense(&[true, true], [2]));
    assert_eq!(line::<bool>("min %a, %b : bool[2]", &[t.clone(), f]), [true, false]);
    let x = dense(&[1.9f32, -1.9, 1e30, -INF, NAN, -0.0], [6]);
    assert_eq!(line::<i64>("cast %a : i64[6]", std::slice::from_ref(&x)), [1, -1, i64::MIN, i64::MIN, i64::MIN, 0]);
    assert_eq!(line::<bool>("cast %a : bool[6]", &[x]), [true, true, true, true, true, false]);
    assert_eq!(line::<f32>("cast %a : f32[2]", &[t]), [1.0, 0.0]);
    assert_eq!(line::<f32>("cast %a : f32[1]", &[dense(&[16_777_217i64], [1])]), [16_777_216.0]);
    assert_eq!(line::<i64>("cast %a : i64[1]", &[dense(&[(1i64 << 53) + 1], [1])]), [(1 << 53) + 1]);
}

#[test]
fn movement() {
    let x = dense(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
    let moved = |l: &str| line::<f32>(l, std::slice::from_ref(&x));
    assert_eq!(moved("permute %a perm=[1,0] : f32[3,2]"), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(moved("reshape %a : f32[3,2]"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(moved("alias %a : f32[2,3]"), moved("detach %a : f32[2,3]"));
    assert_eq!(moved("slice %a [1..2, 0..3 step 2] : f32[1,2]"), [4.0, 6.0]);
    assert_eq!(moved("slice %a [1..1, 0..3] : f32[0,3]").len(), 0);
    let column = dense(&[1i64, 2], [2, 1]);
    assert_eq!(line::<i64>("broadcast %a dims=[1,2] : i64[2,2,2]", &[column]), [1, 1, 2, 2, 1, 1, 2, 2]);
    assert_eq!(line::<i64>("broadcast %a dims=[] : i64[3]", &[dense(&[9i64], [])]), [9, 9, 9]);
    let (y, v) = (dense(&[1.0f32, 2.0], [2, 1]), dense(&[-0.5f32], []));
    let padded: Vec<f32> = line("pad %a, %b low=[1,0] high=[0,1] interior=[1,5] : f32[4,2]", &[y, v.clone()]);
    assert_eq!(padded, [-0.5, -0.5, 1.0, -0.5, -0.5, -0.5, 2.0, -0.5]);
    let none = dense::<f32, 1>(&[], [0]);
    assert_eq!(line::<f32>("pad %a, %b low=[1] high=[1] interior=[3] : f32[2]", &[none, v]), [-0.5, -0.5]);
}

#[test]
fn reductions() {
    let x = dense(&[1.0f32, 5.0, 5.0, NAN, 7.0, NAN], [2, 3]);
    let one = std::slice::from_ref(&x);
    assert_bits(&line("reduce_sum %a dims=[1] acc=f32 : f32[2]", one), &[11.0, NAN]);
    assert_bits(&line("reduce_max %a dims=[1] acc=f32 : f32[2]", one), &[5.0, NAN]);
    assert_bits(&line("reduce_max %a dims=[0] acc=f32 : f32[3]", one), &[NAN, 7.0, NAN]);
    assert_eq!(line::<i64>("reduce_argmax %a dims=[1] acc=f32 : i64[2]", one), [1, 0]);
    assert_eq!(line::<i64>("reduce_argmax %a dims=[0,1] acc=f32 : i64[]", one), [3]);
    assert_bits(&line("reduce_max %a dims=[0,1] acc=f32 : f32[]", &[dense(&[-INF, -INF], [1, 2])]), &[-INF]);
    let n = dense(&[3i64, i64::MAX, 1, 3, 1, 3], [2, 3]);
    assert_eq!(line::<i64>("reduce_sum %a dims=[0] acc=i64 : i64[3]", std::slice::from_ref(&n)), [6, i64::MIN, 4]);
    assert_eq!(line::<i64>("reduce_argmax %a dims=[0] acc=i64 : i64[3]", &[n]), [0, 0, 1]);
    let b = dense(&[false, true], [2]);
    assert_eq!(line::<bool>("reduce_max %a dims=[0] acc=bool : bool[]", std::slice::from_ref(&b)), [true]);
    assert_eq!(line::<i64>("reduce_argmax %a dims=[0] acc=bool : i64[]", &[b]), [1]);
    let empty = dense::<f32, 2>(&[], [2, 0]);
    assert_eq!(line::<f32>("reduce_sum %a dims=[1] acc=f32 : f32[2]", std::slice::from_ref(&empty)), [0.0, 0.0]);
    assert_eq!(line::<f32>("reduce_max %a dims=[0] acc=f32 : f32[0]", &[empty]).len(), 0);
    let scalar = dense(&[4.0f32], []);
    assert_eq!(line::<f32>("reduce_sum %a dims=[] acc=f32 : f32[]", &[scalar]), [4.0]);
    // Rounded once: in f32 the one would be lost.
    let big = dense(&[1e8f32, 1.0, -1e8], [3]);
    assert_eq!(line::<f32>("reduce_sum %a dims=[0] acc=f32 : f32[]", &[big]), [1.0]);
}

#[test]
fn contractions() {
    let a = dense(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
    let b = dense(&[1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0], [3, 2]);
    assert_eq!(line::<f32>("dot %a, %b contract=[1;0] : f32[2,2]", &[a.clone(), b.clone()]), [4.0, 5.0, 10.0, 11.0]);
    assert_eq!(line::<f32>("dot %a, %b contract=[0,1;1,0] : f32[]", &[a.clone(), b.clone()]), [1.0 + 3.0 + 5.0 + 6.0]);
    assert_eq!(line::<f32>("dot %a, %b contract=[1;0] batch=[0;1] : f32[2]", &[a.clone(), b]), [4.0, 11.0]);
    let (u, v) = (dense(&[2i64, 3], [2]), dense(&[5i64, 7], [2]));
    assert_eq!(line::<i64>("dot %a, %b : i64[2,2]", &[u, v]), [10, 14, 15, 21]);
    let (none, also) = (dense::<f32, 2>(&[], [2, 0]), dense::<f32, 2>(&[], [0, 1]));
    assert_eq!(line::<f32>("dot %a, %b contract=[1;0] : f32[2,1]", &[none, also]), [0.0, 0.0]);
    let by_dim: Vec<f32> = line("dot %a, %a contract=[0;0] : f32[3,3]", &[a]);
    assert_eq!(by_dim, [17.0, 22.0, 27.0, 22.0, 29.0, 36.0, 27.0, 36.0, 45.0]);
}

#[test]
fn wrong_inputs_are_errors() {
    let g = Graph::parse("graph g(%x: f32[2]) -> (%x) {}").unwrap();
    assert_eq!(evaluate(&g, &[]).unwrap_err().to_string(), "graph g takes 1 inputs, not 0");
    let y = dense(&[1i64, 2], [2]);
    assert_eq!(evaluate(&g, &[y]).unwrap_err().to_string(), "input x is f32[2], not i64[2]");
    assert!(Dense::from_vec(vec![1.0f32], [2]).is_err());
    assert!(dense(&[1.0f32], [1]).to_vec::<i64>().is_err());
    assert!(apply(&Op::Unary(UnaryOp::Exp), &[]).is_err());
    assert_eq!(apply(&Op::Unary(UnaryOp::Neg), &[&dense(&[1.0f32], [1])]).unwrap(), dense(&[-1.0f32], [1]));
}

#[test]
fn what_cannot_be_allocated_is_an_error() {
    let op = Op::Constant { value: crate::Literal::F32(1.0), shape: crate::Shape::new([1 << 60]) };
    assert_eq!(apply(&op, &[]).unwrap_err().kind(), ErrorKind::Memory);
}

fn noisy() -> Dense {
    let wave = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 7.0;
    Dense::from_vec((0..128).map(wave).collect(), [8, 16]).unwrap()
}

const SOFTMAX: &str = "graph softmax(%x: f32[8,16]) -> (%7) {
  %1 = reduce_max %x dims=[1] acc=f32 : f32[8]
  %2 = broadcast %1 dims=[0] : f32[8,16]
  %3 = sub %x, %2 : f32[8,16]
  %4 = exp %3 : f32[8,16]
  %5 = reduce_sum %4 dims=[1] acc=f32 : f32[8]
  %6 = broadcast %5 dims=[0] : f32[8,16]
  %7 = div %4, %6 : f32[8,16]
}";

/// Softmax as a back end would compute it: in `f32`, in another order.
fn softmax(x: &[f32]) -> Vec<f32> {
    let row = |row: &[f32]| {
        let m = row.iter().copied().fold(-INF, f32::max);
        let e: Vec<f32> = row.iter().map(|x| (x - m).exp()).collect();
        let s: f32 = e.iter().rev().sum();
        e.into_iter().map(|e| e / s).collect::<Vec<f32>>()
    };
    x.chunks(16).flat_map(row).collect()
}

#[test]
fn bounds_admit_other_roundings_and_nothing_more() {
    let (g, x) = (Graph::parse(SOFTMAX).unwrap(), noisy());
    let mut other = softmax(&x.to_vec().unwrap());
    for seed in 0..50 {
        let bounds = evaluate_bounds(&g, std::slice::from_ref(&x), seed).unwrap();
        let result = dense(&other, [8, 16]);
        let summary = compare(&[result], &bounds).unwrap_or_else(|m| panic!("seed {seed}: {m}"));
        assert_eq!((summary.elements, summary.undetermined), (128, 0));
        let loosest = bounds[0].slack.iter().zip(bounds[0].value.literals()).map(|(s, v)| s / v.as_f64());
        assert!(loosest.fold(0.0, f64::max) < 1e-4, "the bounds are too loose to find errors");
    }
    other[17] *= 1.001;
    let bounds = evaluate_bounds(&g, std::slice::from_ref(&x), 3).unwrap();
    let mismatch = compare(&[dense(&other, [8, 16])], &bounds).unwrap_err();
    assert_eq!((mismatch.wrong, mismatch.index.as_slice()), (1, &[1, 1][..]));
    assert!(mismatch.to_string().starts_with("output 0: 1 of 128 elements of f32[8,16] differ, first at [1, 1]: "));
}

#[test]
fn sums_in_any_order_are_within_bounds() {
    let g = Graph::parse("graph s(%x: f32[5000]) -> (%1) { %1 = reduce_sum %x dims=[0] acc=f32 : f32[] }").unwrap();
    for scale in [1.0f32, 1e3] {
        let x: Vec<f32> = (0..5000).map(|i| ((i * 7919 % 10007) as f32 / 10007.0 - 0.5) * scale + 0.1).collect();
        let mut lanes = [0.0f32; 8];
        x.chunks(8).for_each(|c| c.iter().zip(&mut lanes).for_each(|(x, l)| *l += x));
        for (seed, other) in [lanes.iter().sum::<f32>(), x.iter().sum(), x.iter().rev().sum()].into_iter().enumerate() {
            let bounds = evaluate_bounds(&g, &[dense(&x, [5000])], seed as u64).unwrap();
            compare(&[dense(&[other], [])], &bounds).unwrap_or_else(|m| panic!("{m}"));
            assert!(bounds[0].slack[0] < 5e-2 * f64::from(scale), "{}", bounds[0].slack[0]);
        }
    }
}

#[test]
fn exact_results_have_no_slack() {
    let text = "graph e(%x: f32[8,16]) -> (%1, %2, %3) {
      %1 = permute %x perm=[1,0] : f32[16,8]
      %2 = reduce_max %1 dims=[0] acc=f32 : f32[8]
      %3 = cast %2 : i64[8]
    }";
    let bounds = evaluate_bounds(&Graph::parse(text).unwrap(), &[noisy()], 0).unwrap();
    assert!(bounds.iter().all(|b| b.slack.iter().all(|s| *s == 0.0) && !b.undetermined.contains(&true)));
}

/// `log(exp(x))` is `x` only up to rounding, so every decision at its own value is open.
const DECISIONS: &str = "graph d(%x: f32[4]) -> (%5, %6, %7, %9, %13, %14) {
  %1 = exp %x : f32[4]
  %2 = log %1 : f32[4]
  %3 = constant 2.0 : f32[4]
  %4 = constant 0.0 : f32[4]
  %5 = le %2, %3 : bool[4]
  %6 = cast %2 : i64[4]
  %7 = select %5, %3, %4 : f32[4]
  %8 = reduce_max %2 dims=[0] acc=f32 : f32[]
  %9 = reduce_argmax %2 dims=[0] acc=f32 : i64[]
  %10 = broadcast %8 dims=[] : f32[4]
  %11 = eq %2, %10 : bool[4]
  %12 = cast %11 : f32[4]
  %13 = mul %12, %3 : f32[4]
  %14 = reduce_sum %7 dims=[0] acc=f32 : f32[]
}";

#[test]
fn open_decisions_are_undetermined_and_spread() {
    let g = Graph::parse(DECISIONS).unwrap();
    // Four runs may by chance all fall on one side, so a decision counts as seen where some seed opens it.
    let (mut seen, mut spread, mut tie_seen) = ([false; 3], false, false);
    for seed in 0..20 {
        let x = dense(&[0.5f32, 2.0, 1.5, 1.7], [4]);
        let b = evaluate_bounds(&g, &[x], seed).unwrap();
        for (seen, b) in seen.iter_mut().zip(&b) {
            assert!(!b.undetermined[0] && !b.undetermined[2] && !b.undetermined[3]);
            *seen |= b.undetermined[1];
        }
        assert_eq!(b[3].undetermined, [false], "argmax");
        assert_eq!(b[4].undetermined, [false; 4], "eq with its own maximum: the same number in each run");
        assert!(!b[5].undetermined[0]);
        spread |= b[5].slack[0] >= 16.0;
        let x = dense(&[0.5f32, 1.5, 1.5, 1.7], [4]);
        let tie = evaluate_bounds(&g, &[x], seed).unwrap();
        assert!(!tie[0].undetermined.contains(&true) && tie[5].slack[0] < 1e-3);
        let x = dense(&[0.5f32, 1.7, 1.5, 1.7], [4]);
        tie_seen |= evaluate_bounds(&g, &[x], seed).unwrap()[3].undetermined == [true];
    }
    assert_eq!(seen, [true; 3], "le, cast, select");
    assert!(spread, "the sum spreads over both outcomes");
    assert!(tie_seen, "argmax of two moved equals");
}

#[test]
fn the_sign_of_nan_is_undetermined() {
    let g = Graph::parse(
        "graph m(%x: f32[2], %y: f32[2]) -> (%1) {
           %1 = copysign %x, %y : f32[2]
         }",
    )
    .unwrap();
    let b = evaluate_bounds(&g, &[dense(&[1.0f32, 1.0], [2]), dense(&[f32::NAN, -1.0], [2])], 1).unwrap();
    assert_eq!(b[0].undetermined, [true, false]);
}

#[test]
fn undetermined_elements_follow_movement() {
    let text = "graph m(%x: f32[2]) -> (%8) {
      %1 = exp %x : f32[2]
      %2 = constant 1.6487212 : f32[2]
      %3 = lt %1, %2 : bool[2]
      %4 = broadcast %3 dims=[1] : bool[2,2]
      %5 = constant false : bool[]
      %6 = pad %4, %5 low=[0,1] high=[0,0] : bool[2,3]
      %7 = reshape %6 : bool[6]
      %8 = slice %7 [1..6] : bool[5]
    }";
    let b = evaluate_bounds(&Graph::parse(text).unwrap(), &[dense(&[0.5f32, 3.0], [2])], 0).unwrap();
    assert_eq!(b[0].undetermined, [true, false, false, true, false]);
    let summary = compare(&[dense(&[true, false, false, false, false], [5])], &b).unwrap();
    assert_eq!((summary.elements, summary.undetermined), (5, 2));
    assert!(compare(&[dense(&[true, true, false, false, false], [5])], &b).is_err());
}

#[test]
fn overflow_of_partial_sums_is_undetermined() {
    let g = Graph::parse("graph s(%x: f32[3]) -> (%1) { %1 = reduce_sum %x dims=[0] acc=f32 : f32[] }").unwrap();
    let b = evaluate_bounds(&g, &[dense(&[3e38f32, 3e38, -3e38], [3])], 0).unwrap();
    assert_eq!(b[0].undetermined, [true]);
    let nan = evaluate_bounds(&g, &[dense(&[INF, -INF, 0.0], [3])], 0).unwrap();
    assert_eq!(nan[0].undetermined, [false]);
    assert!(compare(&[dense(&[NAN], [])], &nan).is_ok());
    assert!(compare(&[dense(&[0.0f32], [])], &nan).is_err());
}

#[test]
fn mismatches_of_types_and_counts() {
    let b = [Bounds::exact(dense(&[1.0f32], [1]))];
    assert_eq!(compare(&[], &b).unwrap_err().to_string(), "output 0: 0 outputs, expected 1");
    assert_eq!(compare(&[dense(&[1i64], [1])], &b).unwrap_err().to_string(), "output 0: i64[1], expected f32[1]");
    assert!(compare(&[dense(&[1.0f32], [1])], &b).is_ok());
    assert!(compare(&[dense(&[NAN], [1])], &b).is_err());
    let infinite = [Bounds::exact(dense(&[INF], [1]))];
    assert!(compare(&[dense(&[INF], [1])], &infinite).is_ok());
    assert!(compare(&[dense(&[f32::MAX], [1])], &infinite).is_err());
}

#[test]
fn a_long_chain_is_walked_without_recursion() {
    let mut g = Graph::new("chain");
    let mut v = g.add_input("x", crate::TensorType::new([1], DType::F32), crate::Sources::none());
    for _ in 0..50_000 {
        v = g.add(Op::Unary(UnaryOp::Neg), &[v], crate::Sources::none()).unwrap();
    }
    g.add_output(v);
    assert_eq!(Graph::parse(&g.to_string()).unwrap(), g);
    g.verify().unwrap();
    assert_eq!(evaluate(&g, &[dense(&[3.0f32], [1])]).unwrap(), [dense(&[3.0f32], [1])]);
}

/// The bounds of a program of one input `%x`, which was moved before: its last bits are not known.
fn bounds_of(body: &str, ty: &str, x: &Dense, seed: u64) -> Bounds {
    let graph =
        Graph::parse(&format!("graph g(%x: {}) -> (%y) {{\n{body}\n}}", x.ty())).unwrap_or_else(|e| panic!("{e}"));
    let bounds = evaluate_bounds(&graph, std::slice::from_ref(x), seed).unwrap();
    assert_eq!(bounds[0].value.ty().to_string(), ty);
    bounds.into_iter().next().unwrap()
}

#[test]
fn a_sum_that_loses_all_digits_may_be_zero() {
    // In one order 3, in another 0, and the square of neither's neighbours is as small as that of 0.
    let body = "%s = reduce_sum %x dims=[0] acc=f32 : f32[]\n%t = tanh %s : f32[]\n%y = mul %t, %t : f32[]";
    let b = bounds_of(body, "f32[]", &dense(&[1e12f32, 3.0, -1e12], [3]), 1);
    compare(&[dense(&[0.0f32], [])], &[b]).unwrap();
    let b = bounds_of(body, "f32[]", &dense(&[1.0f32, 3.0, -1.0], [3]), 1);
    assert!(compare(&[dense(&[0.0f32], [])], &[b]).is_err(), "no digit is lost here");
}

#[test]
fn what_is_made_of_overflows_is_undetermined() {
    // Each row is an infinity or NaN, as the order has it. In every run all rows are the same, so that the difference to the
    // largest is NaN; but one may be -inf beside another that is inf.
    let m = f32::MAX;
    let x: Vec<f32> = (0..50).flat_map(|_| [m, m, m, -m]).collect();
    let x = dense(&x, [50, 4]);
    let body = "%s = reduce_sum %x dims=[1] acc=f32 : f32[50]\n%m = reduce_max %s dims=[0] acc=f32 : f32[]\n\
                %b = broadcast %m dims=[] : f32[50]\n%d = sub %s, %b : f32[50]";
    let sum = "%y = reduce_sum %d dims=[0] acc=f32 : f32[]";
    let dot = "%one = constant 1.0 : f32[50]\n%y = dot %d, %one contract=[0;0] : f32[]";
    for last in [sum, dot] {
        assert_eq!(bounds_of(&format!("{body}\n{last}"), "f32[]", &x, 1).undetermined, [true]);
    }
    // A decision that the runs show both ways is a number again in a sum.
    let body = "%e = exp %x : f32[4]\n%m = reduce_max %e dims=[0] acc=f32 : f32[]\n%b = broadcast %m dims=[] : f32[4]\n\
                %l = lt %e, %b : bool[4]\n%c = cast %l : f32[4]\n%y = reduce_sum %c dims=[0] acc=f32 : f32[]";
    assert_eq!(bounds_of(body, "f32[]", &dense(&[0.5f32, 0.5, 0.25, 0.125], [4]), 1).undetermined, [false]);
}

#[test]
fn a_pole_under_a_sum_is_undetermined() {
    let body = "%l = log %x : f32[2]\n%q = mul %l, %l : f32[2]\n%r = rsqrt %q : f32[2]\n\
                %y = reduce_sum %r dims=[0] acc=f32 : f32[]";
    // The logarithm of what may be 1 may be 0.
    let near = |v: f32| {
        let moved = format!("%e = exp %x : f32[2]\n{}", body.replace("log %x", "log %e"));
        bounds_of(&moved, "f32[]", &dense(&[v, 2.0], [2]), 1).undetermined
    };
    assert_eq!(near(1.2e-7), [true]);
    assert_eq!(near(0.5), [false]);
}

#[test]
fn movements_in_a_row_never_cancel() {
    let x: Vec<f32> = (0..100_000).map(|i| 1.0 + i as f32 * 1e-3).collect();
    let ty = "f32[100000]";
    let two = format!("%a = rsqrt %x : {ty}\n%y = rsqrt %a : {ty}");
    let three = format!("%a = log %x : {ty}\n%b = exp %a : {ty}\n%y = rsqrt %b : {ty}");
    for body in [two, three] {
        let b = bounds_of(&body, ty, &dense(&x, [x.len()]), 1);
        let units = |(i, slack): (usize, &f64)| slack / super::rounding::spacing(DType::F32, b.value.f64_at(i));
        let least = b.slack.iter().enumerate().map(units).fold(f64::INFINITY, f64::min);
        assert!(least > 5.0, "a bound of {least} units");
    }
}

#[test]
fn an_order_that_overflow_decides_is_undetermined() {
    let text = "graph s(%x: f32[2,3]) -> (%1, %2) {
      %1 = reduce_sum %x dims=[0] acc=f32 : f32[3]
      %2 = sort %1 dim=0 : i64[3]
    }";
    // Those that overflow do so in the same runs.
    let x = dense(&[-3e38f32, -3e38, -2e38, -3e38, -2e38, -3e38], [2, 3]);
    let b = evaluate_bounds(&Graph::parse(text).unwrap(), &[x], 7).unwrap();
    assert_eq!(b[1].undetermined, [true; 3]);
}
