//! Blocks between inaccessible pages: a mode for tests in which an access outside of a buffer ends the process at once.
//!
//! A fenced block is a mapping of its own. In one placement the block ends where an inaccessible page begins, in the other
//! it begins where one ends; in both there is such a page on either side. What lies between the block and the page on its
//! far side is filled with a pattern and compared when the block is given back, so that a stray write shows there too. Given
//! back means unmapped: a pointer that outlives its block shows as well.
//!
//! A block is aligned as far as its size is: buffers hold whole elements, so to the element, as a `Vec` would be. Who needs
//! more asks for a size that is a multiple of it.

use std::ptr::NonNull;
#[cfg(unix)]
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where a block lies between its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Fencing {
    /// It ends at the upper page.
    End,
    /// It starts at the lower page.
    Start,
}

impl Fencing {
    /// What `LAZULI_GUARD` asks for: `end` or `start`.
    pub(super) fn from_environment() -> Option<Fencing> {
        match std::env::var("LAZULI_GUARD").ok()?.as_str() {
            "end" => Some(Fencing::End),
            "start" => Some(Fencing::Start),
            _ => None,
        }
    }
}

/// The byte of fresh memory: NaN as any float, -1 as an integer, no boolean.
pub(super) const POISON: u8 = 0xff;

/// Fences that exist.
#[cfg(unix)]
static FENCES: AtomicUsize = AtomicUsize::new(0);

/// So many at once: systems limit the mappings of a process (Linux to 65,530, of which a fence is three), and slow down.
#[cfg(unix)]
const MOST: usize = 10_000;

/// A block's mapping.
#[cfg(unix)]
pub(super) struct Fence {
    base: NonNull<u8>,
    mapped: usize,
    page: usize,
    pointer: NonNull<u8>,
    bytes: usize,
}

#[cfg(unix)]
impl Fence {
    /// A block of exactly this size, full of [`POISON`]; `None` where the system has no memory for it, or there are very many.
    pub(super) fn new(bytes: usize, place: Fencing) -> Option<Fence> {
        if FENCES.load(Relaxed) >= MOST {
            return None;
        }
        // SAFETY: a question without side effects.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
        let inside = bytes.max(1).checked_next_multiple_of(page)?;
        let mapped = inside.checked_add(2 * page).filter(|n| *n <= isize::MAX as usize)?;
        // SAFETY: a fresh private mapping touches no memory that exists.
        let base = unsafe {
            let private = libc::MAP_PRIVATE | libc::MAP_ANON;
            libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, private, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        let base = NonNull::new(base.cast::<u8>())?;
        // SAFETY: the offsets lie within the mapping, since a block is no larger than the pages inside.
        let (first, pointer) = unsafe {
            let first = base.add(page);
            match place {
                Fencing::End => (first, first.add(inside - bytes)),
                Fencing::Start => (first, first),
            }
        };
        FENCES.fetch_add(1, Relaxed);
        // From here on the mapping is freed by dropping.
        let fence = Fence { base, mapped, page, pointer, bytes };
        // SAFETY: the pages inside are the mapping's own; they are written after they became writable.
        unsafe {
            if libc::mprotect(first.as_ptr().cast(), inside, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return None;
            }
            first.as_ptr().write_bytes(POISON, inside);
        }
        Some(fence)
    }

    /// The first byte.
    pub(super) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Ends the process where the bytes around the block were written.
    pub(super) fn inspect(&self) {
        // SAFETY: the pages inside are readable, and whoever gives the block back is done with it.
        let inside = unsafe {
            let first = self.base.add(self.page).as_ptr();
            std::slice::from_raw_parts(first, self.mapped - 2 * self.page)
        };
        let before = self.pointer.as_ptr().addr() - inside.as_ptr().addr();
        let after = inside.get(before + self.bytes..).unwrap_or_default();
        let touched = |bytes: &[u8]| bytes.iter().any(|b| *b != POISON);
        if touched(inside.get(..before).unwrap_or_default()) || touched(after) {
            eprintln!("lazuli: memory beside a buffer of {} bytes was written", self.bytes);
            std::process::abort();
        }
    }
}

#[cfg(unix)]
impl Drop for Fence {
    fn drop(&mut self) {
        FENCES.fetch_sub(1, Relaxed);
        // SAFETY: the mapping is this fence's own.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

// SAFETY: a mapping has no tie to a thread; whoever holds it owns the bytes.
#[cfg(unix)]
unsafe impl Send for Fence {}
// SAFETY: a shared fence only tells its address.
#[cfg(unix)]
unsafe impl Sync for Fence {}

/// There are none elsewhere.
#[cfg(not(unix))]
pub(super) struct Fence(std::convert::Infallible);

#[cfg(not(unix))]
impl Fence {
    pub(super) fn new(_bytes: usize, _place: Fencing) -> Option<Fence> {
        None
    }

    pub(super) fn pointer(&self) -> NonNull<u8> {
        match self.0 {}
    }

    pub(super) fn inspect(&self) {
        match self.0 {}
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, ExitStatus};

    #[test]
    fn blocks_lie_against_their_page() {
        for bytes in [0, 1, 4, 100, 4096, 4097, 1 << 20] {
            let end = Fence::new(bytes, Fencing::End).unwrap();
            assert!((end.pointer().as_ptr().addr() + bytes).is_multiple_of(end.page));
            let start = Fence::new(bytes, Fencing::Start).unwrap();
            assert!(start.pointer().as_ptr().addr().is_multiple_of(start.page));
            for fence in [end, start] {
                // SAFETY: the block is ours and this large.
                let block = unsafe { std::slice::from_raw_parts_mut(fence.pointer().as_ptr(), bytes) };
                assert!(block.iter().all(|b| *b == POISON));
                block.fill(1);
                fence.inspect();
            }
        }
        assert!(Fence::new(isize::MAX as usize, Fencing::End).is_none());
        assert!(Fence::new(1 << 60, Fencing::Start).is_none());
    }

    /// How a process ends that touches a byte beside a block of 12 bytes.
    fn ends(place: &str, at: isize, write: bool) -> ExitStatus {
        let executable = std::env::current_exe().unwrap();
        let mut child = Command::new(executable);
        child.args(["--exact", "allocator::fence::tests::a_child_touches_a_byte"]);
        child.env("LAZULI_GUARD", place).env("LAZULI_TEST_TOUCH", format!("{at} {write}"));
        child.output().unwrap().status
    }

    #[test]
    fn a_child_touches_a_byte() {
        let Ok(what) = std::env::var("LAZULI_TEST_TOUCH") else { return };
        let (at, write) = what.split_once(' ').unwrap();
        let block = super::super::acquire(12).unwrap();
        // SAFETY: none: this is the mistake that must end the process where it lies outside.
        unsafe {
            let byte = block.pointer().as_ptr().wrapping_offset(at.parse().unwrap());
            if write == "true" {
                byte.write_volatile(7);
            } else {
                let _ = byte.read_volatile();
            }
        }
        super::super::release(block);
    }

    #[test]
    fn an_access_outside_of_a_block_ends_the_process() {
        for (place, at, write, survives) in [
            ("end", 11, true, true),
            ("end", 12, false, false),
            ("end", 12, true, false),
            ("end", -1, true, false),
            ("start", 0, true, true),
            ("start", -1, false, false),
            ("start", 12, true, false),
            ("start", 5000, false, false),
            ("off", 11, true, true),
        ] {
            assert_eq!(ends(place, at, write).success(), survives, "{place} {at} {write}");
        }
    }
}
