//! Kernels over threads: the caller always works, helpers join while there are chunks to claim and cores to run on.
//!
//! All steps of a call stand in one list before it starts. The chunks of a step are divided into a share for each thread, with
//! a cursor each. The caller opens a step by writing its number into the cursors; whoever takes part claims chunk after chunk from
//! its own share, then from those of others. So a thread finds in its caches what it had in the step and in the call before.
//! Chunks are fixed by the plan and results never depend on who runs them. Helpers are detached jobs that own a reference to the call's state: they may start late, find the call closed
//! and leave, or opened again by the next caller, and help that one. The caller waits for claimed chunks only, so a sleeping worker costs nothing.
//!
//! Threads that call at once share the cores (`CALLERS`): each that runs alone has one, and what is left is divided equally among those whose steps are
//! shared. Helpers beyond that are not asked for, and those that are there leave after their chunk: where there are as many callers as
//! cores, each runs by itself, and nobody waits for a chunk whose thread has lost its core to another caller.

use super::abi::Entry;
use crate::allocator::{self, Block};
use lazuli_ir::Result;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// A kernel to run: its code, where its arguments stand in the call's table, and its iterations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub entry: Entry,
    pub finish: Option<Entry>,
    pub first_word: usize,
    pub iterations: u64,
    pub grain: u64,
}

impl Step {
    fn chunks(&self) -> u64 {
        self.iterations.div_ceil(self.grain.max(1))
    }
}

/// The steps of a program. Whoever runs them keeps their code.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    steps: Arc<[Step]>,
    scratch_bytes: usize,
}

/// More chunks than this make coarser ones.
const MOST_CHUNKS: u64 = 1 << 20;

impl Steps {
    /// `scratch_bytes` is what a thread needs for any of them.
    pub(crate) fn new(mut steps: Vec<Step>, scratch_bytes: usize) -> Steps {
        for s in &mut steps {
            s.grain = s.grain.max(1).max(s.iterations.div_ceil(MOST_CHUNKS));
        }
        Steps { steps: steps.into(), scratch_bytes }
    }
}

/// What a caller and its helpers share. Calls of a program that follow one another may use one state.
#[derive(Debug)]
pub(crate) struct Call {
    steps: Steps,
    /// The table of arguments, which generated code reads.
    words: Box<[AtomicU64]>,
    /// For each share, the open step in the upper half, the next chunk in the lower; `CLOSED` between calls.
    cursors: SmallVec<[AtomicU64; 4]>,
    done: AtomicU64,
    /// Helpers that were asked for and have not left.
    helpers: AtomicUsize,
}

impl Call {
    /// The state for calls with this table of arguments.
    pub(crate) fn new(steps: Steps, words: &[u64]) -> Call {
        Call {
            steps,
            words: words.iter().map(|w| AtomicU64::new(*w)).collect(),
            cursors: (0..threads()).map(|_| AtomicU64::new(CLOSED)).collect(),
            done: AtomicU64::new(0),
            helpers: AtomicUsize::new(0),
        }
    }

    /// Whether its chunks are divided among as many threads as there are now.
    pub(crate) fn fits(&self) -> bool {
        self.cursors.len() == threads()
    }

    /// Sets a word of the table. For the caller, between calls.
    pub(crate) fn set(&self, word: usize, value: u64) {
        self.words[word].store(value, Relaxed);
    }

    /// The arguments of a step.
    fn arguments(&self, step: &Step) -> *const u64 {
        self.words.as_ptr().cast::<u64>().wrapping_add(step.first_word)
    }

    /// The first chunk of a share; that of the number of shares is the end.
    fn first(&self, step: &Step, share: usize) -> u64 {
        step.chunks() * share as u64 / self.cursors.len() as u64
    }

    fn close(&self) {
        self.cursors.iter().for_each(|c| c.store(CLOSED, Release));
    }

    fn is_closed(&self) -> bool {
        self.cursors[0].load(Acquire) == CLOSED
    }

    /// Claims a chunk and runs it, of this share or else of the one after it; `false` where none is left.
    ///
    /// # Safety
    /// As for [`run`]; the caller of the call waits for every chunk that is claimed.
    unsafe fn work(&self, share: usize, scratch: *mut u8) -> bool {
        let shares = self.cursors.len();
        (share..share + shares).any(|s| {
            // SAFETY: by the contract.
            unsafe { self.claim(s % shares, scratch) }
        })
    }

    /// Claims a chunk of a share and runs it; `false` where none is left.
    ///
    /// # Safety
    /// As for [`work`](Call::work).
    unsafe fn claim(&self, share: usize, scratch: *mut u8) -> bool {
        let cursor = &self.cursors[share];
        let mut word = cursor.load(Acquire);
        loop {
            let Some(step) = self.steps.steps.get((word >> 32) as usize) else { return false };
            let chunk = word & u64::from(u32::MAX);
            if chunk >= self.first(step, share + 1) {
                return false;
            }
            match cursor.compare_exchange_weak(word, word + 1, AcqRel, Acquire) {
                Err(now) => word = now,
                Ok(_) => {
                    let begin = chunk * step.grain;
                    let end = (begin + step.grain).min(step.iterations);
                    // SAFETY: by the contract.
                    unsafe { (step.entry)(self.arguments(step), scratch, begin as i64, end as i64) };
                    self.done.fetch_add(1, Release);
                    return true;
                }
            }
        }
    }
}

const CLOSED: u64 = u64::MAX;
/// How long a helper looks for the next step before it leaves.
const PATIENCE: Duration = Duration::from_micros(50);

/// Threads that run kernels on behalf of a caller: all callers in the lower half, those that share their steps in the upper.
static CALLERS: AtomicU64 = AtomicU64::new(0);

/// Counts a caller while it runs.
struct Caller(u64);

impl Caller {
    fn enter(shares: bool) -> Caller {
        let one = 1 | u64::from(shares) << 32;
        CALLERS.fetch_add(one, Relaxed);
        Caller(one)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        CALLERS.fetch_sub(self.0, Relaxed);
    }
}

/// The helpers that each caller that shares its steps may have now.
fn helpers_each() -> usize {
    let callers = CALLERS.load(Relaxed);
    let (all, sharing) = ((callers & u64::from(u32::MAX)) as usize, (callers >> 32) as usize);
    (threads().saturating_sub(all - sharing.min(all)) / sharing.max(1)).saturating_sub(1)
}

fn configured() -> &'static AtomicUsize {
    static THREADS: LazyLock<AtomicUsize> = LazyLock::new(|| {
        let asked = std::env::var("LAZULI_THREADS").ok().and_then(|v| v.parse().ok()).filter(|n| *n > 0);
        AtomicUsize::new(asked.unwrap_or_else(|| super::target::cores() as usize))
    });
    &THREADS
}

/// The number of threads that run a kernel.
pub fn threads() -> usize {
    configured().load(Relaxed)
}

/// Sets the number of threads that run a kernel, at least 1. Results do not depend on it.
pub fn set_num_threads(n: usize) {
    configured().store(n.max(1), Relaxed);
}

/// Memory that a thread keeps for the tiles of kernels.
struct Scratch(Option<(Block, usize)>);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some((block, _)) = self.0.take() {
            allocator::release(block);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch(None)) };
}

/// This thread's scratch memory, of at least this size. Valid until the thread asks for more or ends.
pub(crate) fn scratch(bytes: usize) -> Result<*mut u8> {
    if bytes == 0 {
        return Ok(std::ptr::null_mut());
    }
    let bytes = bytes.next_multiple_of(allocator::ALIGNMENT);
    SCRATCH.with(|s| {
        let mut s = s.borrow_mut();
        if let Some((block, size)) = &s.0
            && (*size == bytes || *size > bytes && allocator::fencing().is_none())
        {
            return Ok(block.pointer().as_ptr());
        }
        if let Some((block, _)) = s.0.take() {
            allocator::release(block);
        }
        let block = allocator::acquire(bytes)?;
        let pointer = block.pointer().as_ptr();
        s.0 = Some((block, bytes));
        Ok(pointer)
    })
}

/// Runs all steps in order. Gives the nanoseconds of each step where asked to.
///
/// # Safety
/// Nobody else runs this call. The words of each step must be what its code expects (see `abi`), with buffers that hold what the
/// kernel accesses and that nobody else writes, until this returns.
pub(crate) unsafe fn run(call: &Arc<Call>, mut times: Option<&mut Vec<u64>>) -> Result<()> {
    let steps = &*call.steps.steps;
    let scratch = scratch(call.steps.scratch_bytes)?;
    let shared = call.cursors.len() > 1 && steps.iter().any(|s| s.chunks() > 1);
    let _caller = Caller::enter(shared);
    for (number, step) in steps.iter().enumerate() {
        let start = times.is_some().then(Instant::now);
        if shared && step.chunks() > 1 {
            // SAFETY: by the contract; chunks of one step touch different elements.
            unsafe { share(call, number, scratch) };
            if let Some(finish) = step.finish {
                // SAFETY: by the contract; all chunks are done.
                unsafe { finish(call.arguments(step), scratch, 0, step.iterations as i64) };
            }
        } else {
            // SAFETY: by the contract.
            unsafe { run_alone(step, call.arguments(step), scratch) };
        }
        if let (Some(times), Some(start)) = (times.as_deref_mut(), start) {
            times.push(start.elapsed().as_nanos() as u64);
        }
    }
    call.close();
    Ok(())
}

/// Runs one step on this thread, with this table of arguments.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_one(step: &Step, table: &[u64], scratch_bytes: usize) -> Result<()> {
    let scratch = scratch(scratch_bytes)?;
    let _caller = Caller::enter(false);
    // SAFETY: by the contract.
    unsafe { run_alone(step, table.as_ptr().wrapping_add(step.first_word), scratch) };
    Ok(())
}

/// Runs all iterations of a step, and its finish.
///
/// # Safety
/// As for [`run`].
unsafe fn run_alone(step: &Step, args: *const u64, scratch: *mut u8) {
    let end = step.iterations as i64;
    // SAFETY: by the contract.
    unsafe {
        if end > 0 {
            (step.entry)(args, scratch, 0, end);
        }
        if let Some(finish) = step.finish {
            finish(args, scratch, 0, end);
        }
    }
}

/// Runs one step together with helpers.
///
/// # Safety
/// As for [`run`].
unsafe fn share(call: &Arc<Call>, number: usize, scratch: *mut u8) {
    let step = &call.steps.steps[number];
    let chunks = step.chunks();
    call.done.store(0, Relaxed);
    for (share, cursor) in call.cursors.iter().enumerate() {
        cursor.store((number as u64) << 32 | call.first(step, share), Release);
    }
    let wanted = helpers_each().min(chunks as usize - 1);
    for _ in call.helpers.load(Relaxed)..wanted {
        call.helpers.fetch_add(1, Relaxed);
        let call = call.clone();
        rayon::spawn(move || {
            // A panic in a detached job would abort the process. Without this helper the others do the work.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| help(&call)));
        });
    }
    // SAFETY: by the contract.
    while unsafe { call.work(0, scratch) } {}
    let mut spins = 0u32;
    while call.done.load(Acquire) < chunks {
        spins += 1;
        // A helper may have lost its core to another process.
        if spins.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}

/// A helper: claims chunks of whatever step is open, until the call is closed, other callers need the core, or nothing happens for
/// a while.
fn help(call: &Call) {
    // Without scratch memory it leaves; the caller does the work.
    if let Ok(scratch) = scratch(call.steps.scratch_bytes) {
        // The caller has the first share, each worker always the same other one.
        let share = 1 + rayon::current_thread_index().unwrap_or(0) % (call.cursors.len() - 1);
        let mut idle: Option<Instant> = None;
        while !call.is_closed() {
            if call.helpers.fetch_update(Relaxed, Relaxed, |n| (n > helpers_each()).then(|| n - 1)).is_ok() {
                return;
            }
            // SAFETY: `run` was called with a correct table, and its caller waits for what is claimed.
            if unsafe { call.work(share, scratch) } {
                idle = None;
                continue;
            }
            match idle {
                None => idle = Some(Instant::now()),
                Some(since) if since.elapsed() > PATIENCE => break,
                Some(_) => {}
            }
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        }
    }
    call.helpers.fetch_sub(1, Relaxed);
}
