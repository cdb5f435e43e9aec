//! Kernels of primitives by layout class: loop dims that all operands walk as one are merged, the class is looked up, and the
//! kernel runs with extents and strides as run-time values.

use lazuli_ir::kernel::Kernel;
use lazuli_ir::{Device, DimVec, Layout, ReduceOp, Result, Shape};
use lazuli_passes::compile::{grain, iterations};
use lazuli_passes::primitive::{Primitive, PrimitiveKey, RowLength, StrideClass, kernel};
use lazuli_runtime::device::{self, Launcher};
use lazuli_runtime::{Array, LaunchArg, cpu};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Which loops reduce.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduced {
    /// The reduction, where there is one.
    pub(super) op: Option<ReduceOp>,
    /// The number of dims before the reduced ones.
    pub(super) kept: usize,
}

impl Reduced {
    /// Every dim stays.
    pub(super) fn none() -> Reduced {
        Reduced { op: None, kept: usize::MAX }
    }
}

/// The loops of a launch: extents, and for each array its strides along them.
struct Loops {
    extents: SmallVec<[u64; 6]>,
    strides: SmallVec<[DimVec<i64>; 4]>,
    /// How many of the loops are kept.
    kept: usize,
}

impl Loops {
    /// The loops over `shape`, outermost first, without those of one iteration, merged where every array walks two as one.
    /// Dims from `kept` on do not merge with those before.
    fn over(shape: &Shape, layouts: &[&Layout], kept: usize) -> Loops {
        let mut loops =
            Loops { extents: SmallVec::new(), strides: layouts.iter().map(|_| DimVec::new()).collect(), kept: 0 };
        for (d, extent) in shape.extents().into_iter().enumerate() {
            if d == kept {
                loops.kept = loops.extents.len();
            }
            if extent == 1 {
                continue;
            }
            let merges = !loops.extents.is_empty()
                && (d < kept || loops.extents.len() > loops.kept)
                && loops.strides.iter().zip(layouts).all(|(outer, layout)| {
                    outer.last().is_some_and(|s| *s == layout.stride(d).wrapping_mul(extent as i64))
                });
            match loops.extents.last_mut() {
                Some(outer) if merges => *outer *= extent as u64,
                _ => {
                    loops.extents.push(extent as u64);
                    loops.strides.iter_mut().for_each(|s| s.push(0));
                }
            }
            for (strides, layout) in loops.strides.iter_mut().zip(layouts) {
                if let Some(last) = strides.last_mut() {
                    *last = layout.stride(d);
                }
            }
        }
        if kept >= shape.rank() {
            loops.kept = loops.extents.len();
        }
        loops
    }

    /// Adds a loop of one iteration, where there must be one.
    fn once(&mut self) {
        self.extents.push(1);
        self.strides.iter_mut().for_each(|s| s.push(0));
    }
}

/// Runs a primitive over `shape`; `layouts` are those of the operands and, last, of the result, all of that shape.
pub(super) fn launch(
    primitive: Primitive,
    shape: &Shape,
    layouts: &[&Layout],
    reduced: Reduced,
    operands: &[&Array],
    out: &Array,
) -> Result<()> {
    if shape.is_empty() {
        return Ok(());
    }
    let mut loops = Loops::over(shape, layouts, reduced.kept);
    if loops.extents.is_empty() {
        loops.once();
        loops.kept = 1;
    }
    if primitive == Primitive::Random
        && let Some(base) = loops.strides.first_mut()
    {
        *base = smallvec::smallvec![1];
    }
    start(primitive, &loops, operands, out)
}

/// Runs a reduction of an array whose dims from `reduced.kept` on are reduced. `false`: it needs them to be one loop, and
/// their strides do not let them.
pub(super) fn reduce(x: &Array, reduced: Reduced, out: &Array) -> Result<bool> {
    let Some(op) = reduced.op else { return Ok(false) };
    // The result has no reduced dims; along them it stays where it is.
    let kept: DimVec<usize> = (0..reduced.kept).collect();
    let result = out.layout().broadcast(x.shape(), &kept);
    let mut loops = Loops::over(x.shape(), &[x.layout(), &result], reduced.kept);
    if loops.extents.len() == loops.kept {
        loops.once();
    }
    let inner = loops.extents.len() - loops.kept;
    if op.is_position() && inner != 1 {
        return Ok(false);
    }
    if let Some(result) = loops.strides.last_mut() {
        result.truncate(loops.kept);
    }
    start(Primitive::Reduce { op, inner }, &loops, &[x], out)?;
    Ok(true)
}

fn start(primitive: Primitive, loops: &Loops, operands: &[&Array], out: &Array) -> Result<()> {
    let launcher = launcher(primitive, loops, operands, out)?;
    let runtime: SmallVec<[DimVec<i64>; 4]> = loops
        .strides
        .iter()
        .map(|s| s.iter().copied().filter(|s| StrideClass::of(*s) == StrideClass::Other).collect())
        .collect();
    let arrays = operands.iter().copied().chain([out]);
    let args: SmallVec<[LaunchArg<'_>; 4]> =
        arrays.zip(&runtime).map(|(array, strides)| LaunchArg { array, strides }).collect();
    let kernel = launcher.kernel();
    let iterations = iterations(kernel, &loops.extents);
    let elements: u64 = loops.extents.iter().product();
    let bytes = elements * operands.iter().chain([&out]).map(|a| a.dtype().size() as u64).sum::<u64>();
    let claim = if is_parallel_reduce(kernel) {
        1
    } else {
        grain(kernel, iterations, bytes, elements * cost(primitive), cpu::host_target())
    };
    launcher.launch(&args, &loops.extents, iterations, claim)
}

fn is_parallel_reduce(kernel: &Kernel) -> bool {
    !kernel.finish.is_empty()
}

/// Floating point operations for an element, as estimates count them.
fn cost(primitive: Primitive) -> u64 {
    match primitive {
        Primitive::Unary(op) => u64::from(op.row().flops),
        Primitive::Binary(op) => u64::from(op.flops()),
        Primitive::Random => 60,
        Primitive::Copy
        | Primitive::Compare(_)
        | Primitive::Select
        | Primitive::Cast
        | Primitive::Reduce { .. }
        | Primitive::Arange => 1,
    }
}

/// The key of a launch.
fn key(primitive: Primitive, loops: &Loops, operands: &[&Array], out: &Array) -> PrimitiveKey {
    let class = |s: &DimVec<i64>| s.iter().map(|s| StrideClass::of(*s)).collect::<DimVec<StrideClass>>();
    let (result, inputs) = loops.strides.split_last().map_or((None, &[][..]), |(r, i)| (Some(r), i));
    PrimitiveKey {
        primitive,
        dtype: out.dtype(),
        rank: loops.extents.len(),
        operands: operands.iter().zip(inputs).map(|(a, s)| (a.dtype(), class(s))).collect(),
        result: result.map(class).unwrap_or_default(),
        rows: row_length(primitive, loops, out),
    }
}

fn row_length(primitive: Primitive, loops: &Loops, out: &Array) -> RowLength {
    let elements = match primitive {
        Primitive::Reduce { .. } => loops.extents.iter().skip(loops.kept).product(),
        _ => u64::MAX,
    };
    RowLength::of(out.device() != Device::Cpu, elements)
}

/// The key in one number, which is quick to make, hash and compare; `None` beyond 8 loops.
fn packed(primitive: Primitive, loops: &Loops, operands: &[&Array], out: &Array) -> Option<u128> {
    let rank = loops.extents.len();
    if rank > 8 || operands.len() > 3 {
        return None;
    }
    let (kind, which, inner) = match primitive {
        Primitive::Copy => (0, 0, 0),
        Primitive::Unary(op) => (1, op as u128, 0),
        Primitive::Binary(op) => (2, op as u128, 0),
        Primitive::Compare(op) => (3, op as u128, 0),
        Primitive::Select => (4, 0, 0),
        Primitive::Cast => (5, 0, 0),
        Primitive::Reduce { op, inner } => (6, op as u128, inner as u128),
        Primitive::Arange => (7, 0, 0),
        Primitive::Random => (8, 0, 0),
    };
    // The head says how many fields follow, so it stands in places of its own: 12 places of dtypes and 64 of strides below.
    let rows = row_length(primitive, loops, out) as u128;
    let head = (((((((rows << 4) | kind) << 8) | which) << 4) | inner) << 4) | rank as u128;
    let mut fields: u128 = 0;
    for array in operands.iter().chain([&out]) {
        fields = (fields << 3) | array.dtype() as u128;
    }
    for stride in loops.strides.iter().flatten() {
        fields = (fields << 2) | StrideClass::of(*stride) as u128;
    }
    let key = (head << 80) | fields;
    Some(key)
}

/// Kernels by device and key, shared by all threads.
static KERNELS: Mutex<Option<FxHashMap<(Device, PrimitiveKey), Launcher>>> = Mutex::new(None);

thread_local! {
    /// Those this thread has used, found without locking.
    static KNOWN: RefCell<FxHashMap<(Device, u128), Launcher>> = RefCell::default();
}

/// The kernel of a launch, compiled at its first use.
fn launcher(primitive: Primitive, loops: &Loops, operands: &[&Array], out: &Array) -> Result<Launcher> {
    let device = out.device();
    let packed = packed(primitive, loops, operands, out).map(|key| (device, key));
    if let Some(launcher) = packed.and_then(|p| KNOWN.with_borrow(|known| known.get(&p).cloned())) {
        return Ok(launcher);
    }
    let key = (device, key(primitive, loops, operands, out));
    let kernels = || KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = kernels().get_or_insert_default().get(&key).cloned();
    let launcher = match shared {
        Some(launcher) => launcher,
        // Without the lock: for a GPU that takes long. Of two threads the first result stays.
        None => {
            let launcher = Launcher::new(kernel(&key.1, device::target(device)?)?, device)?;
            kernels().get_or_insert_default().entry(key).or_insert(launcher).clone()
        }
    };
    if let Some(packed) = packed {
        KNOWN.with_borrow_mut(|known| known.insert(packed, launcher.clone()));
    }
    Ok(launcher)
}

/// The number of kernels compiled so far.
#[cfg(test)]
pub(super) fn kernels() -> usize {
    KERNELS.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, FxHashMap::len)
}
