//! What the shim gives hand-written CUDA C, and what it finds in wrong kernels.

use super::*;
use std::sync::OnceLock;

/// Each kernel of `tests.cu`, by its name: from one `extern "C"` to the next.
fn program() -> Option<&'static Program> {
    static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        if !available().unwrap() {
            return None;
        }
        let (prelude, kernels) = include_str!("tests.cu").split_once("extern \"C\" ").unwrap();
        let named = |text: &'static str| {
            let head = text.split(") {").next().unwrap().rsplit('(').nth(1).unwrap();
            head.rsplit(' ').next().unwrap()
        };
        let texts: Vec<String> = kernels.split("extern \"C\" ").map(|t| format!("extern \"C\" {t}")).collect();
        let kernels: Vec<(&str, &str)> =
            kernels.split("extern \"C\" ").zip(&texts).map(|(t, whole)| (named(t), whole.as_str())).collect();
        Some(Program::compile(prelude, &kernels).unwrap())
    });
    program.as_ref()
}

trait Bytes: Copy {
    const SIZE: usize = size_of::<Self>();
    fn append(self, to: &mut Vec<u8>);
    fn read(from: &[u8]) -> Self;
}

macro_rules! bytes {
    ($($t:ty),*) => {$(
        impl Bytes for $t {
            fn append(self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }
            fn read(from: &[u8]) -> $t {
                <$t>::from_le_bytes(from.try_into().unwrap())
            }
        }
    )*};
}
bytes!(i32, u32, i64, u64, f32, f64);

fn memory<T: Bytes>(values: &[T], writable: bool) -> Memory {
    let mut bytes = Vec::new();
    values.iter().for_each(|v| v.append(&mut bytes));
    Memory { bytes, writable }
}

fn values<T: Bytes>(memory: &Memory) -> Vec<T> {
    memory.bytes.chunks(T::SIZE).map(T::read).collect()
}

/// Runs a kernel whose arguments are pointers to memory, in every schedule and place. All must give the same.
fn run(kernel: &str, blocks: u64, threads: u32, memory: &[Memory]) -> Option<Result<Vec<Memory>, Fault>> {
    let program = program()?;
    let args: Vec<Arg> = (0..memory.len()).map(|memory| Arg::Pointer { memory, offset: 0 }).collect();
    let mut first: Option<Vec<Memory>> = None;
    for schedule in Schedule::ALL {
        for fence in [Fence::End, Fence::Start] {
            let launch = Launch { kernel, blocks, threads, shared_bytes: 4096, args: &args, schedule, fence };
            let mut memory = memory.to_vec();
            if let Err(fault) = program.launch(&launch, &mut memory) {
                return Some(Err(fault));
            }
            if first.as_ref().is_some_and(|f| *f != memory) {
                let message = format!("{schedule:?} and {fence:?} give other results");
                return Some(Err(Fault { kind: FaultKind::Process, message }));
            }
            first = Some(memory);
        }
    }
    first.map(Ok)
}

/// Runs a right kernel that writes `n` values to its only argument.
fn gives<T: Bytes + PartialEq + fmt::Debug>(kernel: &str, blocks: u64, threads: u32, expected: &[T]) {
    let zeros = Memory { bytes: vec![0; size_of_val(expected)], writable: true };
    let Some(result) = run(kernel, blocks, threads, &[zeros]) else { return };
    assert_eq!(values::<T>(&result.unwrap()[0]), expected, "{kernel}");
}

fn fails(kernel: &str, blocks: u64, threads: u32, memory: &[Memory], kind: FaultKind, says: &str) {
    let Some(result) = run(kernel, blocks, threads, memory) else { return };
    let fault = result.unwrap_err();
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(says), "{fault}");
}

fn output(n: usize) -> Memory {
    memory(&vec![0f32; n], true)
}

fn counting(n: usize) -> Memory {
    memory(&(0..n).map(|i| i as f32).collect::<Vec<f32>>(), false)
}

#[test]
fn threads_and_blocks_have_their_numbers() {
    let expected: Vec<u32> = (0..3).flat_map(|b| (0..70).map(move |t| b * 1000 + t)).collect();
    gives("numbers", 3, 70, &expected);
}

#[test]
fn arguments_are_passed_by_the_convention() {
    let Some(program) = program() else { return };
    let args = [
        Arg::Pointer { memory: 0, offset: 8 },
        Arg::Word(-3i64 as u64),
        Arg::Word(u64::from(2.5f32.to_bits())),
        Arg::Word(1),
        Arg::Word(200),
        Arg::Word(0.25f64.to_bits()),
    ];
    let mut all = [memory(&[7f64, 0.0], true)];
    let (schedule, fence) = (Schedule::Fair, Fence::End);
    let launch = Launch { kernel: "words", blocks: 1, threads: 1, shared_bytes: 0, args: &args, schedule, fence };
    program.launch(&launch, &mut all).unwrap();
    assert_eq!(values::<f64>(&all[0]), [7.0, -3.0 + 2.5 + 1.0 + 200.0 + 0.25]);
}

#[test]
fn shared_memory_is_the_blocks_and_starts_as_nan() {
    gives("reversed", 2, 128, &(0..2).flat_map(|b| (0..128).map(move |i| b * 128 + 127 - i)).collect::<Vec<i32>>());
    gives("fresh_shared", 3, 32, &[1u32, 1, 1]);
    gives(
        "dynamic_shared",
        2,
        64,
        &(0..2).flat_map(|b| (0..64).map(move |i| (b * 64 + 63 - i) as f32)).collect::<Vec<_>>(),
    );
}

#[test]
fn lanes_exchange_values() {
    let lane = |f: &dyn Fn(i32) -> i32| (0..32).map(f).collect::<Vec<i32>>();
    gives("shuffle_index", 1, 32, &lane(&|i| (i + 1) % 32 * 10));
    gives("shuffle_xor", 1, 32, &lane(&|i| (i ^ 5) * 10));
    gives("shuffle_down", 1, 32, &lane(&|i| if i + 3 < 32 { (i + 3) * 10 } else { i * 10 }));
    gives("shuffle_up", 1, 32, &lane(&|i| if i >= 3 { (i - 3) * 10 } else { i * 10 }));
    gives("shuffle_segments", 1, 32, &lane(&|i| (i & !7 | (i + 1) & 7) * 10));
    gives(
        "shuffle_doubles",
        1,
        64,
        &[(0..32).sum::<i32>() as f64 + 0.5 * 32.0, (32..64).sum::<i32>() as f64 + 0.5 * 32.0],
    );
    gives("votes", 1, 32, &[0x5555_5555u32, 1, 0, 0xffff_ffff]);
    gives("half_warps", 1, 32, &lane(&|i| if i < 16 { 120 } else { 376 }));
    gives("short_warp", 1, 20, &[190i32]);
}

#[test]
fn a_tree_of_warps_sums_a_block() {
    let n = 512;
    let all = [counting(n), output(1)];
    let Some(result) = run("block_sum", 1, n as u32, &all) else { return };
    assert_eq!(values::<f32>(&result.unwrap()[1]), [(n * (n - 1) / 2) as f32]);
}

#[test]
fn the_last_block_finishes() {
    let all = [counting(640), memory(&[u64::MAX; 10], true), memory(&[0u32], true), output(1)];
    let Some(result) = run("last_block", 10, 64, &all) else { return };
    let result = result.unwrap();
    assert_eq!(values::<f32>(&result[3]), [(640 * 639 / 2) as f32]);
    assert_eq!(values::<u32>(&result[2]), [0]);
}

#[test]
fn atomics_are_those_of_cuda() {
    gives("atomics", 2, 64, &[128i64, -127, 127, 127, 128, 2, 127]);
    gives("atomic_floats", 1, 64, &[64f32, 96.0]);
}

#[test]
fn vectors_load_and_store() {
    let all = [counting(64), output(64)];
    let Some(result) = run("vectors", 1, 16, &all) else { return };
    let expected: Vec<f32> = (0..64).map(|i| (i / 4 * 4 + 3 - i % 4) as f32).collect();
    assert_eq!(values::<f32>(&result.unwrap()[1]), expected);
}

#[test]
fn bits_and_conversions_are_those_of_cuda() {
    let expected = [i64::from(1f32.to_bits() as i32), 3, 28, 4, i64::from(i32::MAX), 0, i64::MIN, 7, i64::MIN];
    gives("bits", 1, 1, &expected);
    let halves = [1.0f32, 65504.0, f32::INFINITY, 2f32.powi(-24), 0.0, 1.0009766, 1.0, -2f32.powi(-14), 3.140625];
    gives("halves", 1, 1, &halves);
    gives("functions", 1, 1, &[0.5f32, 7.0, 2.0, 3.0, 1.0]);
}

/// `d = a b + c` of a warp, by fragments, on small integers.
#[test]
fn matrices_multiply_by_fragments() {
    let a: Vec<f32> = (0..256).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    let b: Vec<f32> = (0..128).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
    let product = |i: usize, j: usize| (0..16).map(|k| a[i * 16 + k] * b[k * 8 + j]).sum::<f32>() + (i * 8 + j) as f32;
    let expected: Vec<f32> = (0..128).map(|i| product(i / 8, i % 8)).collect();
    for kernel in ["fragments_f16", "fragments_bf16"] {
        let Some(result) = run(kernel, 1, 32, &[memory(&a, false), memory(&b, false), output(128)]) else { return };
        assert_eq!(values::<f32>(&result.unwrap()[2]), expected, "{kernel}");
    }
}

/// One schedule that runs the reader before the writer is enough.
#[test]
fn a_missing_barrier_is_found() {
    let zeros = memory(&[0i32; 128], true);
    fails("missing_barrier", 1, 128, &[zeros], FaultKind::Process, "other results");
}

#[test]
fn a_write_that_overtakes_a_read_is_found() {
    let zeros = memory(&[0i32; 64], true);
    fails("write_after_read", 1, 64, &[zeros], FaultKind::Process, "other results");
}

#[test]
fn a_divergent_barrier_is_found() {
    let zeros = || [memory(&[0i32; 64], true)];
    fails(
        "exits_before_barrier",
        1,
        64,
        &zeros(),
        FaultKind::Barrier,
        "waits for thread 40 of its block, which has exited",
    );
    fails("two_barriers", 1, 64, &zeros(), FaultKind::Barrier, "waits at __syncthreads in line 4");
}

#[test]
fn a_wrong_mask_is_found() {
    let zeros = || [memory(&[0i32; 32], true)];
    fails("lanes_missing", 1, 32, &zeros(), FaultKind::Warp, "waits for lane 16 of its warp, which has exited");
    fails(
        "lane_not_named",
        1,
        32,
        &zeros(),
        FaultKind::Warp,
        "called by lane 16, which its mask 0000ffff does not name",
    );
    fails("reads_unnamed", 1, 32, &zeros(), FaultKind::Warp, "reads lane 31, which mask 0000ffff does not name");
    fails("masks_disagree", 1, 32, &zeros(), FaultKind::Warp, "with mask 0000ffff");
    fails("mask_beyond_block", 1, 20, &zeros(), FaultKind::Warp, "is not in the block");
}

#[test]
fn accesses_out_of_bounds_are_found() {
    let (x, y) = (counting(33), output(33));
    let copies = |kernel: &str, says: &str| fails(kernel, 2, 32, &[x.clone(), y.clone()], FaultKind::Memory, says);
    copies("stores_beyond", "writes byte 132 of buffer 1 of 132 bytes");
    copies("stores_before", "writes byte -4 of buffer 1 of 132 bytes");
    copies("reads_beyond", "reads byte 4096 of buffer 0 of 132 bytes");
    copies("writes_input", "writes byte 0 of buffer 0 of 132 bytes");
    copies("not_aligned", "not aligned");
    copies("shared_beyond", "dynamic shared memory of 4096 bytes");
}

#[test]
fn other_faults_end_a_launch_and_not_the_test() {
    let zeros = || [memory(&[0i32; 1], true)];
    fails("divides_by_zero", 1, 1, &zeros(), FaultKind::Trap, "integer division");
    fails("deep", 1, 1, &zeros(), FaultKind::Memory, "the end of a thread's stack");
    fails("nowhere", 1, 1, &zeros(), FaultKind::Process, "no kernel is named nowhere");
    gives("numbers", 1, 2, &[0u32, 1]);
}

#[test]
#[ignore = "waits until a launch is given up"]
fn a_launch_that_does_not_end_is_given_up() {
    fails("never_ends", 1, 1, &[memory(&[0i32; 1], true)], FaultKind::Endless, "has not ended after 30 seconds");
}

#[test]
fn texts_that_cuda_refuses_are_refused() {
    if program().is_none() {
        return;
    }
    let refused = |prelude: &str, text: &str| Program::compile(prelude, &[("k", text)]).unwrap_err().to_string();
    let said = refused("", "extern \"C\" __global__ void k(float* x) {\n  *x = INFINITY;\n}");
    assert!(said.contains("k:2:") && said.contains("INFINITY"), "{said}");
}
