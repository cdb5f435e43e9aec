//! Runs launches on the host by the kernels' own meaning: the evaluator of the Kernel IR, on the fake's memory.
//!
//! So what a program computes on a GPU is known without one: addresses, strides, extents and scalars are read from the
//! words of the launch, and what lies outside of allocations is an error. What CUDA C makes of a kernel is not seen here.

use super::{Fake, Launched};
use crate::arguments::{Words, reach};
use crate::cpu::sort::{self, SortPlan};
use crate::cuda::driver::{Matrices, Meaning};
use crate::cuda::source::{CheckStatus, SortSource};
use lazuli_ir::kernel::{Access, Param, Stride};
use lazuli_ir::kernel_eval::{KernelBuffer, KernelData, ThreadOrder, evaluate};
use lazuli_ir::program::SortCall;
use lazuli_ir::{DType, Element, ErrorKind, Kernel, Layout, Literal, Matmul, with_element};

type Outcome<T = ()> = std::result::Result<T, String>;

/// A parameter of a launch: where its elements begin, and how many there are.
struct Span {
    first: u64,
    elements: usize,
    buffer: KernelBuffer,
}

/// Runs a launch.
pub(super) fn run(fake: &Fake, launched: &Launched<'_>) -> Outcome {
    match launched.meaning {
        Meaning::Kernel(kernel) => run_kernel(fake, kernel, launched),
        Meaning::Sort(call, dtype, source) => run_sort(fake, (call, dtype, source), launched.words),
    }
}

/// Runs the last launch of a sort as the whole of it, by the CPU's routine.
fn run_sort(fake: &Fake, (call, dtype, source): (&SortCall, DType, &SortSource), words: &[u64]) -> Outcome {
    let &[operand, result, from, to, run] = words else { return Err(format!("a sort of {words:?}")) };
    let scratch = source.scratch_bytes;
    if ![from, to].iter().all(|at| scratch == 0 || fake.holds(*at, scratch)) {
        return Err("the scratch memory of a sort is outside of any allocation".to_owned());
    }
    if source.runs.last() != Some(&run) {
        return Ok(());
    }
    // Relative to the first element, which the word points at.
    let layout = Layout { offset: 0, ..call.layout.clone() };
    let (low, high) = layout.bounds();
    let (size, elements) = (dtype.size() as i64, layout.shape.elements());
    let first = operand.wrapping_add_signed(low * size);
    if !fake.holds(first, ((high - low) * size) as usize) || !fake.holds(result, elements * size_of::<i64>()) {
        return Err("a sort outside of any allocation".to_owned());
    }
    let plan = SortPlan::new(dtype, &layout, call.dim, call.descending, call.count);
    let mut table = [0u64; sort::WORDS];
    (table[sort::OPERAND], table[sort::RESULT], table[sort::PLAN]) = (operand, result, &raw const plan as u64);
    let mut scratch = vec![0u128; plan.scratch_bytes().div_ceil(size_of::<u128>())];
    // SAFETY: operand and result hold what the sort reaches, as was just checked, and the scratch memory is as large as it says.
    unsafe { sort::sort_lines(table.as_ptr(), scratch.as_mut_ptr().cast(), 0, plan.lines() as i64) };
    Ok(())
}

fn run_kernel(fake: &Fake, kernel: &Kernel, launched: &Launched<'_>) -> Outcome {
    let at = Words::of(kernel, 0);
    let extents = &launched.words[at.extents..at.scalars];
    let scalars = &launched.words[at.scalars..at.total];
    let scalars: Vec<Literal> = kernel.scalars.iter().zip(scalars).map(|(s, word)| scalar(s.dtype, *word)).collect();
    let mut strides = launched.words[at.strides..at.extents].iter().map(|word| *word as i64);
    let mut spans = Vec::new();
    for (param, address) in kernel.params.iter().zip(launched.words) {
        let runtime = param.strides.iter().filter(|s| matches!(s, Stride::Runtime)).count();
        let own: Vec<i64> = strides.by_ref().take(runtime).collect();
        spans.push(span(fake, param, *address, own, extents)?);
    }
    let mut buffers: Vec<KernelBuffer> = spans.iter().map(|s| s.buffer.clone()).collect();
    match evaluate(kernel, &mut buffers, extents, &scalars, ThreadOrder::Forward) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Index && launched.words.len() > at.total => {
            note_failure(launched.words[at.total], error.message())?;
        }
        Err(error) => return Err(format!("{}: {error}", kernel.name)),
    }
    for ((param, span), after) in kernel.params.iter().zip(&spans).zip(&buffers) {
        if param.access != Access::Read {
            // SAFETY: the span was checked to lie in an allocation of the fake.
            unsafe { write_back(span, &after.data, param.dtype) };
        }
    }
    Ok(())
}

/// Multiplies matrices by their meaning.
pub(super) fn multiply(fake: &Fake, matmul: &Matmul, at: &Matrices) -> Outcome {
    let [left, right, out] = matmul.reaches();
    let columns = (0, matmul.columns as i64);
    let scratch = (0, at.scratch_bytes as i64);
    for (what, address, (low, high), bytes) in [
        ("left operand", at.left, left, matmul.operands.size()),
        ("right operand", at.right, right, matmul.operands.size()),
        ("bias", at.bias.unwrap_or(at.result), if at.bias.is_some() { columns } else { (0, 1) }, matmul.result.size()),
        ("result", at.result, out, matmul.result.size()),
        ("scratch", at.scratch, scratch, 1),
    ] {
        let first = address.0.wrapping_add_signed(low * bytes as i64);
        if low < high && !fake.holds(first, (high - low) as usize * bytes) {
            return Err(format!("{matmul}: the {what} reaches outside of any allocation"));
        }
    }
    if matmul.bias != at.bias.is_some() {
        return Err(format!("{matmul} with the bias {:?}", at.bias));
    }
    // What a routine leaves there is arbitrary.
    // SAFETY: the bytes were checked to lie in an allocation of the fake.
    unsafe { (at.scratch.0 as *mut u8).write_bytes(0xA5, at.scratch_bytes) };
    let read = |address: u64, dtype: DType| {
        // SAFETY: what the product reaches was checked to lie in allocations of the fake, whose memory is initialised.
        move |i: i64| with_element!(dtype, T => unsafe { (address as *const T).offset(i as isize).read_unaligned() }.literal())
    };
    let (left, right) = (read(at.left.0, matmul.operands), read(at.right.0, matmul.operands));
    let bias = read(at.bias.map_or(0, |b| b.0), matmul.result);
    let mut results: Vec<(i64, Literal)> = Vec::new();
    matmul.evaluate(&left, &right, &bias, &mut |i, value| results.push((i, value)));
    for (i, value) in results {
        let to = at.result.0;
        // SAFETY: as above.
        with_element!(matmul.result, T => unsafe { (to as *mut T).offset(i as isize).write_unaligned(T::from_literal(value)) });
    }
    Ok(())
}

/// A run-time scalar: halves come as `f32`.
fn scalar(dtype: DType, word: u64) -> Literal {
    if dtype.is_half() { Literal::from_bits(DType::F32, word).cast(dtype) } else { Literal::from_bits(dtype, word) }
}

fn span(fake: &Fake, param: &Param, address: u64, strides: Vec<i64>, extents: &[u64]) -> Outcome<Span> {
    let (low, high) = reach(param, &strides, extents).ok_or("too few strides")?;
    let (elements, size) = ((high - low) as usize, param.dtype.size());
    let first = address.wrapping_add_signed(low * size as i64);
    if elements > 0 && !fake.holds(first, elements * size) {
        return Err(format!("parameter {} reaches outside of any allocation", param.name));
    }
    // SAFETY: the bytes lie in an allocation of the fake, whose memory is initialised.
    let data = with_element!(param.dtype, T => unsafe { read::<T>(first, elements) });
    Ok(Span { first, elements, buffer: KernelBuffer { data, offset: (-low) as usize, strides } })
}

/// # Safety
/// So many elements must lie at the address, initialised.
unsafe fn read<T: Element>(first: u64, elements: usize) -> KernelData {
    let one = |i: usize| {
        if T::DTYPE == DType::Bool {
            // SAFETY: by the contract; any byte but 0 is true.
            return T::from_literal(Literal::Bool(unsafe { *(first as *const u8).add(i) } != 0));
        }
        // SAFETY: by the contract.
        unsafe { (first as *const T).add(i).read_unaligned() }
    };
    (0..elements).map(one).collect::<Vec<T>>().into()
}

/// Writes the elements that the kernel changed: parameters may share memory.
///
/// # Safety
/// The span must be valid for writes.
unsafe fn write_back(span: &Span, after: &KernelData, dtype: DType) {
    for i in 0..span.elements {
        if let (Some(old), Some(new)) = (span.buffer.data.get(i), after.get(i))
            && old != new
        {
            // SAFETY: by the contract.
            with_element!(dtype, T => unsafe { (span.first as *mut T).add(i).write_unaligned(T::from_literal(new)) });
        }
    }
}

/// Writes what a check found, `check 3 failed at element 17, with the value -1`, where the device would.
fn note_failure(status: u64, message: &str) -> Outcome {
    let (_, failed) = message.split_once("check ").ok_or(message)?;
    let numbers: Vec<i64> = failed.split(|c: char| !c.is_ascii_digit() && c != '-').flat_map(str::parse).collect();
    let [site, at, value] = numbers.as_slice() else { return Err(message.to_owned()) };
    let failure = CheckStatus { key: !((*site as u64) << 44 | *at as u64), value: *value, lock: 0 };
    // SAFETY: the word is the address of the status, in an allocation that the executor made.
    let first = unsafe { &mut *(status as *mut CheckStatus) };
    if failure.key > first.key {
        *first = failure;
    }
    Ok(())
}
