//! Values move in and are lent out without copying, in any layout, and what is lent is never written.

#![allow(clippy::unwrap_used, clippy::panic)]

use lazuli::prelude::*;

/// Whether storage lies where it was; where buffers are fenced for tests, vectors are copied, and nothing is.
fn stays<T>(now: *const T, was: *const T) -> bool {
    now == was || lazuli_runtime::allocator::fencing().is_some()
}

#[test]
fn slices_and_vectors() {
    let x = Tensor::from_slice(&[true, false, true], [3]);
    assert_eq!(x.to_vec::<bool>().unwrap(), [true, false, true]);
    assert_eq!(x.lend::<bool>().unwrap().as_slice(), Some(&[true, false, true][..]));
    let error = Tensor::from_slice(&[1.0f32], [2]).check().unwrap_err().to_string();
    assert!(error.contains("from_slice") && error.contains("tests/exchange.rs"), "{error}");

    let elements = vec![1.0f32, 2.0, 3.0, 4.0];
    let at = elements.as_ptr();
    let x = Tensor::from_vec(elements, [2, 2]);
    assert!(stays(x.lend::<f32>().unwrap().as_slice().unwrap().as_ptr(), at));
    let tail = x.i((1, ..)).lend::<f32>().unwrap();
    assert_eq!(tail.as_slice().unwrap(), [3.0, 4.0]);
    assert!(stays(tail.as_slice().unwrap().as_ptr(), at.wrapping_add(2)));
}

#[test]
fn another_dtype_is_an_error_with_the_users_line() {
    let error = Tensor::ones([2]).lend::<i64>().unwrap_err().to_string();
    assert!(error.contains("lend(f32[2])") && error.contains("tests/exchange.rs"), "{error}");
    let error = (Tensor::ones([2]) + Tensor::ones([3])).lend::<f32>().unwrap_err();
    assert!(error.to_string().contains("add"), "{error}");
}

#[test]
fn a_lent_value_outlives_its_tensor() {
    let x = Tensor::arange(0..1000) * 3;
    let lent = x.lend::<i64>().unwrap();
    drop(x);
    // Storage of the same size is taken and written many times.
    for k in 0..20 {
        (Tensor::arange(0..1000) * k).eval().unwrap();
    }
    assert!(lent.as_slice().unwrap().iter().zip(0..).all(|(v, i)| *v == 3 * i));
}

#[test]
fn what_is_lent_is_not_overwritten() {
    let step = lazuli::compile(|w: Tensor| w * 2.0 + 1.0).arguments(["w"]);
    let w = Tensor::from_vec(vec![1.0f32; 4096], [64, 64]);
    let lent = w.lend::<f32>().unwrap();
    let first = step.call(w).unwrap();
    let report = step.stages().unwrap().report();
    assert!(!report.donations[0].taken && report.donations[0].reason.contains("a lent array"), "{report}");
    assert!(lent.as_slice().unwrap().iter().all(|v| *v == 1.0));
    assert!(first.to_vec::<f32>().unwrap().iter().all(|v| *v == 3.0));

    // A clone of the lent value is an owner as well; without owners the storage is taken over.
    let at = first.lend::<f32>().unwrap().as_slice().unwrap().as_ptr();
    let second = step.call(first).unwrap();
    assert_eq!(second.lend::<f32>().unwrap().as_slice().unwrap().as_ptr(), at);
    let lent = second.lend::<f32>().unwrap();
    let other = lent.clone();
    drop(lent);
    let third = step.call(second).unwrap();
    assert_ne!(third.lend::<f32>().unwrap().as_slice().unwrap().as_ptr(), at);
    assert!(other.as_slice().unwrap().iter().all(|v| *v == 7.0));
}

#[test]
fn lent_values_go_to_other_threads() {
    let x = Tensor::arange(0..100) * 2;
    let lent = x.lend::<i64>().unwrap();
    let sums: Vec<i64> = std::thread::scope(|scope| {
        let threads = [lent.clone(), lent].map(|l| scope.spawn(move || l.as_slice().unwrap().iter().sum::<i64>()));
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(sums, [9900, 9900]);
}

#[test]
fn nothing_is_lent_inside_a_trace() {
    let f = lazuli::compile(|x: Tensor| {
        let error = x.lend::<f32>().unwrap_err().to_string();
        assert!(error.contains("trace"), "{error}");
        x * 2.0
    });
    f.call(Tensor::ones([2])).unwrap().eval().unwrap();
}

#[cfg(feature = "ndarray")]
mod arrays {
    use super::*;
    use ndarray::{Array, ArrayD, Axis, Ix0, Ix2, Ix3, IxDyn, ShapeBuilder, Slice, arr0};

    fn counted(shape: &[usize]) -> ArrayD<f32> {
        let n: usize = shape.iter().product();
        Array::from_iter((0..n).map(|i| i as f32)).into_shape_with_order(IxDyn(shape)).unwrap_or_default()
    }

    /// Owned arrays of every kind of layout.
    fn layouts() -> Vec<ArrayD<f32>> {
        let mut all = Vec::new();
        for shape in [&[][..], &[1], &[5], &[3, 4], &[4, 1, 3], &[2, 3, 5], &[2, 0, 3], &[0], &[1, 1], &[2, 3, 1, 4]] {
            let plain = counted(shape);
            all.push(plain.clone());
            all.push(plain.clone().reversed_axes());
            all.push(Array::from_shape_fn(IxDyn(shape).f(), |i| plain[i]));
            for (axis, &extent) in shape.iter().enumerate() {
                let mut reversed = plain.clone();
                reversed.invert_axis(Axis(axis));
                all.push(reversed.clone());
                reversed.swap_axes(0, axis);
                all.push(reversed);
                for slice in
                    [Slice::new(1, None, 1), Slice::new(0, None, 2), Slice::new(0, None, -2), Slice::new(1, Some(2), 1)]
                {
                    let mut part = plain.clone();
                    let inside = slice.start as usize <= extent && slice.end.unwrap_or(0) as usize <= extent;
                    if inside {
                        part.slice_axis_inplace(Axis(axis), slice);
                        all.push(part);
                    }
                }
            }
            all.push(plain.slice_each_axis(|_| Slice::new(0, None, -1)).to_owned());
        }
        all
    }

    fn elements(array: &ArrayD<f32>) -> Vec<f32> {
        array.iter().copied().collect()
    }

    #[test]
    fn any_layout_moves_in_and_is_lent_out_where_it_lies() {
        for array in layouts() {
            let (at, expected, strides) = (array.as_ptr(), array.clone(), array.strides().to_vec());
            let x = Tensor::from_ndarray(array);
            assert_eq!(x.shape(), expected.shape());
            assert_eq!(x.to_vec::<f32>().unwrap(), elements(&expected), "{:?} {strides:?}", expected.shape());
            let lent = x.lend::<f32>().unwrap();
            let view = lent.view().unwrap();
            assert_eq!(view, expected);
            if !expected.is_empty() {
                assert!(stays(view.as_ptr(), at));
                let same = |(d, n): (usize, &usize)| *n == 1 || view.strides()[d] == strides[d];
                assert!(view.shape().iter().enumerate().all(same), "{:?} {strides:?}", view.strides());
            }
            assert_eq!(lent.standard().unwrap(), expected);
            assert_eq!(x.to_ndarray::<f32>().unwrap(), expected);
            let owned: ArrayD<f32> = expected.clone();
            assert_eq!(Tensor::from(owned).shape(), expected.shape());
        }
    }

    #[test]
    fn operations_and_programs_take_any_layout() {
        let f = |x: &Tensor| (x * 2.0 + 1.0, x.sum(0), x.sum(-1), x.flatten(..), x.reshape([-1, 1]));
        let compiled = lazuli::compile(move |x: Tensor| f(&x));
        for array in layouts().into_iter().filter(|a| a.ndim() > 0) {
            let plain = Tensor::from_slice(&elements(&array), array.shape());
            let x = Tensor::from_ndarray(array);
            let vec = |(a, b, c, d, e): (Tensor, Tensor, Tensor, Tensor, Tensor)| {
                [a, b, c, d, e].map(|t| (t.shape(), t.to_vec::<f32>().unwrap()))
            };
            let expected = vec(f(&plain));
            assert_eq!(vec(f(&x)), expected);
            assert_eq!(vec(compiled.call(&x).unwrap()), expected);
            assert_eq!(vec(compiled.call(x).unwrap()), expected);
        }
    }

    #[test]
    fn views_of_tensors_are_lent_with_their_strides() {
        let x = Tensor::arange(0..24).reshape([2, 3, 4]);
        x.eval().unwrap();
        let base = x.lend::<i64>().unwrap();
        let at = base.view().unwrap().as_ptr();
        let part = x.i((.., 1, (1..4).step(2)));
        let lent = part.lend::<i64>().unwrap();
        assert_eq!(lent.view_of::<Ix2>().unwrap(), ndarray::array![[5, 7], [17, 19]]);
        assert_eq!(lent.view().unwrap().as_ptr(), at.wrapping_add(5));
        let wide = Tensor::ones([1, 3]).broadcast_to([4, 3]).lend::<f32>().unwrap();
        assert_eq!(wide.view().unwrap(), ArrayD::<f32>::ones(IxDyn(&[4, 3])));
        assert_eq!(wide.strides()[0], 0);
        assert!(!wide.standard().unwrap().is_view());
        assert!(x.lend::<i64>().unwrap().standard().unwrap().is_view());
        assert!(x.lend::<i64>().unwrap().view_of::<Ix3>().is_ok());
        let error = x.lend::<i64>().unwrap().view_of::<Ix2>().unwrap_err().to_string();
        assert!(error.contains("i64[2,3,4]"), "{error}");
        let number = Tensor::from(arr0(7i64));
        assert_eq!(number.lend::<i64>().unwrap().view_of::<Ix0>().unwrap()[()], 7);
    }

    #[test]
    fn an_array_that_moved_in_is_given_on_to_results() {
        let step = lazuli::compile(|w: Tensor| w * 2.0);
        let array = counted(&[32, 32]);
        let at = array.as_ptr();
        let y = step.call(Tensor::from_ndarray(array)).unwrap();
        let lent = y.lend::<f32>().unwrap();
        assert!(stays(lent.view().unwrap().as_ptr(), at));
        // While it is lent, neither operations nor programs change it.
        let _ = (&y + 1.0).to_vec::<f32>().unwrap();
        let _ = step.call(y).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(lent.view().unwrap(), counted(&[32, 32]) * 2.0);
    }

    /// Moves an array in, column-major, and lends it out where it lies.
    fn both_ways<T: lazuli::Element>(elements: [T; 4]) {
        let array = Array::from_iter(elements)
            .into_shape_with_order(((2, 2), ndarray::Order::F))
            .unwrap_or_else(|e| panic!("{e}"));
        let (at, expected) = (array.as_ptr(), array.clone());
        let x = Tensor::from_ndarray(array);
        let lent = x.lend::<T>().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((x.dtype(), x.to_vec::<T>().ok()), (T::DTYPE, Some(expected.iter().copied().collect())));
        assert_eq!(lent.view_of::<Ix2>().ok(), Some(expected.view()));
        assert!(lent.view().is_ok_and(|view| stays(view.as_ptr(), at)));
        assert_eq!(x.to_ndarray::<T>().ok(), Some(expected.into_dyn()));
    }

    #[test]
    fn borrowed_arrays_are_copied_and_every_dtype_goes_both_ways() {
        let array = counted(&[3, 4]);
        let x = Tensor::from_ndarray(array.t());
        assert_ne!(x.lend::<f32>().unwrap().view().unwrap().as_ptr(), array.as_ptr());
        assert_eq!(x.to_ndarray::<f32>().unwrap(), array.t());
        assert_eq!(Tensor::from_ndarray(array.to_shared()).to_ndarray::<f32>().unwrap(), array);

        let truth = ndarray::array![[true, false], [false, false]];
        let x = Tensor::from_ndarray(truth.clone().reversed_axes());
        assert_eq!((x.dtype(), x.lend::<bool>().unwrap().view_of::<Ix2>().unwrap()), (DType::Bool, truth.t()));
        both_ways([i64::MIN, 0, i64::MAX, 5]);
        both_ways([i32::MIN, 0, i32::MAX, 5]);
        both_ways([0u8, 1, 128, 255]);
        both_ways([f64::MIN_POSITIVE, -0.0, f64::INFINITY, 1e300]);
        both_ways([1.0f32, -0.0, f32::NEG_INFINITY, 1e-45]);
        both_ways([0.5f32, -0.0, 65504.0, 6e-8].map(lazuli::f16::from_f32));
        both_ways([0.5f32, -0.0, 3e38, 1e-40].map(lazuli::bf16::from_f32));
        let calculated = Tensor::from_ndarray(counted(&[4])).gt(1.5).lend::<bool>().unwrap();
        assert_eq!(calculated.view().unwrap(), ndarray::array![false, false, true, true].into_dyn());
    }
}
