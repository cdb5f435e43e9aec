//! Sorts as steps of a program: for each line of an operand, the indices that sort it.
//!
//! A line's elements become integers whose order is that of the sort (NaN largest, `-0.0` equal to `0.0`, all bits inverted
//! where it descends), each beside its index. Pairs differ, so any sort of them is a stable one of the elements, and needs no
//! memory but the thread's scratch. Where only the first few of a line are wanted, the rest is dropped on the way: what does not
//! come before the worst of them never enters. Lines are claimed by threads as the iterations of kernels are.

use super::abi;
use half::{bf16, f16};
use lazuli_ir::DType;
use lazuli_ir::Layout;

/// What a sort step does, and where: its address stands in the step's table.
#[derive(Debug)]
pub(crate) struct SortPlan {
    dtype: DType,
    descending: bool,
    /// Indices of a line that are wanted.
    count: usize,
    /// Elements of a line, and the distances between neighbours in operand and result.
    length: usize,
    stride: i64,
    result_stride: i64,
    /// Elements before the operand's first.
    offset: i64,
    /// The other dims: extents, strides of the operand and of the result.
    outer: Vec<(usize, i64, i64)>,
}

/// Words of a sort step's table: the operand's and the result's address stand where a kernel has its parameters'.
pub(crate) const OPERAND: usize = abi::PARAMS;
pub(crate) const RESULT: usize = abi::PARAMS + 1;
pub(crate) const PLAN: usize = abi::PARAMS + 2;
pub(crate) const WORDS: usize = abi::PARAMS + 3;

impl SortPlan {
    pub(crate) fn new(dtype: DType, layout: &Layout, dim: usize, descending: bool, count: usize) -> SortPlan {
        let (extents, strides) = (layout.shape.extents(), layout.shape.strides());
        let mut outer: Vec<(usize, i64, i64)> =
            extents.iter().zip(layout.strides.iter().zip(&strides)).map(|(n, (s, r))| (*n, *s, *r)).collect();
        let (length, stride, result_stride) = if dim < outer.len() { outer.remove(dim) } else { (1, 0, 0) };
        let count = count.min(length);
        SortPlan { dtype, descending, count, length, stride, result_stride, offset: layout.offset, outer }
    }

    /// The number of lines.
    pub(crate) fn lines(&self) -> u64 {
        self.outer.iter().map(|d| d.0 as u64).product()
    }

    /// Lines that are worth one claim by a thread.
    pub(crate) fn grain(&self) -> u64 {
        const WORTH: u64 = 4096;
        (WORTH / (self.length as u64).max(1)).max(1)
    }

    /// Bytes of scratch memory a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let pair = if packs(self.dtype, self.length) { size_of::<u64>() } else { size_of::<(u64, u64)>() };
        self.length.saturating_mul(pair)
    }
}

/// Whether a key and an index fit one word.
fn packs(dtype: DType, length: usize) -> bool {
    dtype.size() <= 4 && u32::try_from(length).is_ok()
}

/// The entry of a sort step.
///
/// # Safety
/// `args` must be a table as described, of a step whose operand and result hold the plan's elements; `scratch` must hold
/// [`SortPlan::scratch_bytes`], aligned.
pub(crate) unsafe extern "C" fn sort_lines(args: *const u64, scratch: *mut u8, begin: i64, end: i64) {
    // SAFETY: by the contract.
    let (plan, operand, result) = unsafe {
        let word = |n: usize| *args.add(n);
        (&*(word(PLAN) as *const SortPlan), word(OPERAND) as *const u8, word(RESULT) as *mut i64)
    };
    for line in begin..end {
        let (mut rest, mut from, mut to) = (line as usize, plan.offset, 0);
        for &(n, stride, result_stride) in plan.outer.iter().rev() {
            let i = (rest % n) as i64;
            rest /= n;
            from += i * stride;
            to += i * result_stride;
        }
        // SAFETY: by the contract.
        unsafe {
            let from = operand.offset(from as isize * plan.dtype.size() as isize);
            sort_line(plan, from, result.offset(to as isize), scratch);
        }
    }
}

/// Sorts one line, whose element 0 and whose result's element 0 are given.
///
/// # Safety
/// As for [`sort_lines`].
unsafe fn sort_line(plan: &SortPlan, from: *const u8, to: *mut i64, scratch: *mut u8) {
    if plan.length == 0 {
        return;
    }
    let invert = |key: u64| if plan.descending { !key } else { key };
    let step = plan.stride as isize * plan.dtype.size() as isize;
    // SAFETY: by the contract.
    let key = |i: usize| invert(unsafe { key(plan.dtype, from.offset(i as isize * step)) });
    // SAFETY: by the contract.
    let store = |i: usize, index: u64| unsafe { *to.offset(i as isize * plan.result_stride as isize) = index as i64 };
    if packs(plan.dtype, plan.length) {
        // SAFETY: by the contract; the memory is initialised, as all of the allocator's is.
        let pairs = unsafe { std::slice::from_raw_parts_mut(scratch.cast::<u64>(), plan.length) };
        let first = first((0..plan.length).map(|i| key(i) << 32 | i as u64), plan.count, pairs);
        first.iter().enumerate().for_each(|(i, pair)| store(i, pair & u64::from(u32::MAX)));
        return;
    }
    // SAFETY: as above.
    let pairs = unsafe { std::slice::from_raw_parts_mut(scratch.cast::<[u64; 2]>(), plan.length) };
    let first = first((0..plan.length).map(|i| [key(i), i as u64]), plan.count, pairs);
    first.iter().enumerate().for_each(|(i, pair)| store(i, pair[1]));
}

/// The least `count` of some pairs in order, in space for all of them.
fn first<P: Ord + Copy>(pairs: impl Iterator<Item = P>, count: usize, space: &mut [P]) -> &[P] {
    /// Pairs that are held beside the wanted ones before the rest is dropped, at least.
    const BESIDE: usize = 64;
    if count == 0 {
        return &[];
    }
    let full = space.len().min(count + count.max(BESIDE));
    let (mut held, mut worst) = (0, None);
    for pair in pairs {
        if worst.is_some_and(|worst| pair > worst) {
            continue;
        }
        if held == full {
            space[..held].select_nth_unstable(count - 1);
            worst = Some(space[count - 1]);
            held = count;
            if pair > space[count - 1] {
                continue;
            }
        }
        space[held] = pair;
        held += 1;
    }
    space[..held].sort_unstable();
    &space[..held.min(count)]
}

/// An element as an integer in the order of the sort, in the low bits: those of its size, of 32 at least.
///
/// # Safety
/// `at` must be valid for reads of an element.
unsafe fn key(dtype: DType, at: *const u8) -> u64 {
    // SAFETY: by the contract, as all reads here.
    unsafe {
        match dtype {
            DType::Bool | DType::U8 => u64::from(*at),
            DType::I32 => u64::from(*at.cast::<i32>() as u32 ^ 1 << 31),
            DType::I64 => *at.cast::<i64>() as u64 ^ 1 << 63,
            DType::F16 => float_key(f16::from_bits(*at.cast::<u16>()).to_f32()),
            DType::BF16 => float_key(bf16::from_bits(*at.cast::<u16>()).to_f32()),
            DType::F32 => float_key(*at.cast::<f32>()),
            DType::F64 => {
                let v = *at.cast::<f64>();
                let bits = (v + 0.0).to_bits();
                match v.is_nan() {
                    true => u64::MAX,
                    false if bits >> 63 == 1 => !bits,
                    false => bits | 1 << 63,
                }
            }
        }
    }
}

fn float_key(v: f32) -> u64 {
    // Adding 0 makes a zero positive.
    let bits = (v + 0.0).to_bits();
    u64::from(match v.is_nan() {
        true => u32::MAX,
        false if bits >> 31 == 1 => !bits,
        false => bits | 1 << 31,
    })
}
