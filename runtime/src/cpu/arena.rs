//! Executable memory: all code of a module in one mapping, first writable, then executable, never both.

use lazuli_ir::{Error, ErrorKind, Result};

/// A mapping that holds machine code and its constants. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Arena {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: the mapping is read and executed only, after `build` has made it so.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// Functions and constants start at multiples of this.
pub(crate) const ALIGNMENT: usize = 64;

/// An address to fill in: where it stands and what it leads to, each a piece and an offset in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub from: (usize, usize),
    pub to: (usize, usize),
}

impl Arena {
    /// Places pieces of code and constants in a new mapping, fills in addresses and makes it executable. Gives the offset of each
    /// piece.
    pub(crate) fn build(pieces: &[&[u8]], links: &[Link]) -> Result<(Arena, Vec<usize>)> {
        let (mut offsets, mut end) = (Vec::with_capacity(pieces.len()), 0usize);
        for piece in pieces {
            offsets.push(end);
            end = (end + piece.len()).next_multiple_of(ALIGNMENT);
        }
        let arena = Arena::map(end.max(1))?;
        for (piece, offset) in pieces.iter().zip(&offsets) {
            // SAFETY: the pieces lie within the mapping one after the other, and nobody else knows it yet.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), arena.base.add(*offset), piece.len()) };
        }
        for link in links {
            let (from, to) = (offsets[link.from.0] + link.from.1, offsets[link.to.0] + link.to.1);
            let address = arena.base as u64 + to as u64;
            // SAFETY: the eight bytes lie in a piece, and nobody else knows the mapping yet.
            unsafe { arena.base.add(from).cast::<u64>().write_unaligned(address) };
        }
        arena.make_executable()?;
        Ok((arena, offsets))
    }

    /// The address at an offset.
    pub(crate) fn at(&self, offset: usize) -> *const u8 {
        debug_assert!(offset < self.bytes);
        self.base.wrapping_add(offset)
    }

    #[cfg(unix)]
    fn map(bytes: usize) -> Result<Arena> {
        // SAFETY: a fresh private mapping touches no memory that exists.
        let base = unsafe {
            let (rw, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
            libc::mmap(std::ptr::null_mut(), bytes, rw, private, -1, 0)
        };
        if base == libc::MAP_FAILED {
            let message = format!("{bytes} bytes of memory for machine code could not be mapped");
            return Err(Error::new(ErrorKind::Memory, message));
        }
        Ok(Arena { base: base.cast(), bytes })
    }

    #[cfg(unix)]
    fn make_executable(&self) -> Result<()> {
        // SAFETY: the mapping is this arena's own, and no reference into it exists.
        let failed = unsafe { libc::mprotect(self.base.cast(), self.bytes, libc::PROT_READ | libc::PROT_EXEC) } != 0;
        if failed {
            let message = "the system refuses to make memory executable; compiled programs need that".to_owned();
            return Err(Error::new(ErrorKind::Memory, message));
        }
        self.flush_instruction_cache();
        Ok(())
    }

    /// x86 keeps its instruction cache coherent by itself; elsewhere the new code must be announced.
    #[cfg(all(unix, not(target_arch = "x86_64")))]
    fn flush_instruction_cache(&self) {
        unsafe extern "C" {
            fn __clear_cache(start: *mut u8, end: *mut u8);
        }
        // SAFETY: the range is the mapping.
        unsafe { __clear_cache(self.base, self.base.add(self.bytes)) };
    }

    #[cfg(all(unix, target_arch = "x86_64"))]
    fn flush_instruction_cache(&self) {}

    #[cfg(not(unix))]
    fn map(_bytes: usize) -> Result<Arena> {
        Err(Error::new(ErrorKind::Device, "compiling for the CPU needs a Unix system"))
    }

    #[cfg(not(unix))]
    fn make_executable(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is this arena's own; whoever runs its code holds a reference to the arena.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}
