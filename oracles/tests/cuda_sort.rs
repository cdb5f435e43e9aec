//! Sorts as CUDA C: run on the CPU in every order of threads, in fenced memory, against the CPU's own sort; and compiled for every
//! architecture without spilling.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_ir::program::{BufferDecl, BufferId, KernelCost, OutputDecl, Place, SortCall, Step};
use lazuli_ir::{DType, Element, Layout, Literal, Program as Whole, with_element};
use lazuli_oracles::shim::{Arg, Fence, Launch, Memory, Program, Schedule, available};
use lazuli_runtime::cuda::nvrtc;
use lazuli_runtime::cuda::source::{PRELUDE, SORT_PRELUDE, SortSource, print_sort};
use lazuli_runtime::{Argument, Array, Executable, cpu};

struct Case {
    call: SortCall,
    dtype: DType,
    source: SortSource,
}

/// Sorts of every dtype; lines that share a tile, fill one, and are merged an even and an odd number of times; along every dim, of
/// views, in both directions, whole and in part.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |shape: &[usize], dim: usize, descending: bool, count: usize, dtype: DType, view: fn(&mut Layout)| {
        let mut layout = Layout::contiguous(shape.into());
        view(&mut layout);
        let (operand, result) = (BufferId(0), BufferId(1));
        let call = SortCall { operand, layout, result, dim, descending, count, cost: KernelCost::default() };
        let source = print_sort(&call, dtype, &format!("sort_{}", cases.len())).unwrap();
        cases.push(Case { call, dtype, source });
    };
    let all = usize::MAX;
    for dtype in DType::ALL {
        for descending in [false, true] {
            add(&[3, 5], 1, descending, all, dtype, |_| ());
            add(&[3000], 0, descending, all, dtype, |_| ());
        }
        add(&[2, 4500, 2], 1, false, all, dtype, |_| ());
    }
    for (n, descending) in
        [(1, false), (2, true), (33, true), (1024, false), (2047, true), (2048, false), (2049, true), (8192, true)]
    {
        add(&[2, n], 1, descending, all, DType::F32, |_| ());
    }
    for count in [1, 7, 2048, 2049, 5000] {
        add(&[2, 9000], 1, true, count, DType::F32, |_| ());
        add(&[9000, 2], 0, false, count, DType::I64, |_| ());
    }
    add(&[700, 3], 1, true, 2, DType::F32, |_| ());
    add(&[4, 0], 1, true, 2, DType::F32, |_| ());
    add(&[0, 4], 1, true, 2, DType::F32, |_| ());
    add(&[], 0, false, all, DType::F32, |_| ());
    // Backwards through memory, and every second element.
    add(&[3, 2500], 1, false, all, DType::F32, |l| (l.strides[1], l.offset) = (-1, 2499));
    add(&[3, 60, 2], 1, true, all, DType::F32, |l| l.strides = [240, 4, 2].into_iter().collect());
    cases
}

/// Elements with ties, and for floats with NaN, infinities and both zeros.
fn elements(dtype: DType, n: usize) -> Vec<Literal> {
    let number = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) % (n / 2 + 3);
    let special = |i: usize| match i % 31 {
        3 => f64::NAN,
        5 => f64::INFINITY,
        7 => f64::NEG_INFINITY,
        11 => 0.0,
        13 => -0.0,
        17 => -1e-300,
        _ => number(i) as f64 - n as f64 / 4.0,
    };
    let value = |i: usize| match dtype {
        d if d.is_float() => Literal::F64(special(i)).cast(d),
        d => Literal::I64(number(i) as i64 - n as i64 / 4).cast(d),
    };
    (0..n).map(value).collect()
}

/// What the CPU's sort gives; what is not wanted is left out.
fn expected(case: &Case, values: &[Literal]) -> Vec<i64> {
    let shape = case.call.layout.shape.clone();
    let (elements, results) = (values.len(), shape.elements());
    let program = Whole {
        buffers: vec![
            BufferDecl { dtype: case.dtype, elements, place: Place::Input(0) },
            BufferDecl { dtype: DType::I64, elements: results, place: Place::Output { donor: None } },
        ],
        steps: vec![Step::Sort(case.call.clone())],
        outputs: vec![OutputDecl { buffer: BufferId(1), dtype: DType::I64, layout: Layout::contiguous(shape) }],
        inputs: 1,
        ..Whole::default()
    };
    let array = with_element!(case.dtype, T => {
        Array::from_vec(values.iter().map(|v| T::from_literal(*v)).collect::<Vec<T>>(), &[elements].into()).unwrap()
    });
    let executable = Executable::new(program, cpu::host_target()).unwrap();
    executable.run(vec![Argument { array, donated: false }]).unwrap().remove(0).to_vec::<i64>().unwrap()
}

/// Whether a result's element is wanted.
fn wanted(call: &SortCall, i: usize) -> bool {
    let (extents, strides) = (call.layout.shape.extents(), call.layout.shape.strides());
    extents.get(call.dim).is_none_or(|n| i as i64 / strides[call.dim] % (*n as i64) < call.count.min(*n) as i64)
}

/// The results of a sort's launches in one order of threads; those that nothing wrote are -7.
fn run(program: &Program, case: &Case, bytes: &[u8], schedule: Schedule, fence: Fence) -> Result<Vec<i64>, String> {
    let Case { call, dtype, source } = case;
    let results = call.layout.shape.elements();
    let scratch = || Memory { bytes: vec![0xff; source.scratch_bytes], writable: true };
    let mut memory = vec![
        Memory { bytes: bytes.to_vec(), writable: false },
        Memory { bytes: (-7i64).to_le_bytes().repeat(results), writable: true },
        scratch(),
        scratch(),
    ];
    for (i, run) in source.runs.iter().enumerate().filter(|_| source.blocks > 0) {
        let pointer = |memory: usize, offset: u64| Arg::Pointer { memory, offset };
        let first = call.layout.offset as u64 * dtype.size() as u64;
        let (from, to) = (2 + (i + 1) % 2, 2 + i % 2);
        let args = [pointer(0, first), pointer(1, 0), pointer(from, 0), pointer(to, 0), Arg::Word(*run)];
        let (kernel, blocks, threads) = (source.name.as_str(), source.blocks.into(), source.threads);
        let launch = Launch { kernel, blocks, threads, shared_bytes: 0, args: &args, schedule, fence };
        program.launch(&launch, &mut memory).map_err(|fault| fault.to_string())?;
    }
    Ok(memory[1].bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect())
}

#[test]
fn sorts_give_what_the_cpu_gives() {
    if !available().unwrap() {
        return;
    }
    let cases = cases();
    let prelude = format!("{PRELUDE}\n{SORT_PRELUDE}");
    let texts: Vec<(&str, &str)> = cases.iter().map(|c| (c.source.name.as_str(), c.source.text.as_str())).collect();
    let program = Program::compile(&prelude, &texts).unwrap();
    let mut failures = Vec::new();
    for case in &cases {
        let (_, high) = case.call.layout.bounds();
        let n = high.max(0) as usize;
        let values = elements(case.dtype, n);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.bits().to_le_bytes()[..case.dtype.size()].to_vec()).collect();
        let expected = expected(case, &values);
        for schedule in Schedule::ALL {
            let fence = if schedule == Schedule::Fair { Fence::End } else { Fence::Start };
            let got = run(&program, case, &bytes, schedule, fence);
            let right = got.as_ref().is_ok_and(|got| {
                let same = |(i, (g, e)): (usize, (&i64, &i64))| if wanted(&case.call, i) { g == e } else { *g == -7 };
                got.len() == expected.len() && got.iter().zip(&expected).enumerate().all(same)
            });
            if !right {
                let (call, dtype) = (&case.call, case.dtype);
                failures.push(format!("{schedule:?}: {call:?} of {dtype}: {:?}", got.map(|_| "another order")));
            }
        }
    }
    println!("{} sorts", cases.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn sorts_compile_without_spills() {
    if let Err(e) = nvrtc::version() {
        assert!(std::env::var_os("LAZULI_REQUIRE_NVRTC").is_none_or(|v| v != "1"), "{e}");
        eprintln!("skipped: {e}");
        return;
    }
    let cases = cases();
    let texts: Vec<&str> = cases.iter().map(|c| c.source.text.as_str()).collect();
    let text = format!("{PRELUDE}\n{SORT_PRELUDE}\n{}", texts.join("\n"));
    for sm in [80, 90, 100] {
        let compiled = nvrtc::compile(&text, sm).unwrap();
        assert_eq!(compiled.functions.len(), cases.len());
        let spilled: Vec<&str> =
            compiled.functions.iter().filter(|f| f.spill_bytes > 0).map(|f| f.name.as_str()).collect();
        assert_eq!(spilled, [""; 0], "sm_{sm}: {:?}", compiled.functions);
    }
}
