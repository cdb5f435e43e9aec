//! Copies between host and device, through pinned memory.
//!
//! Copies from and to ordinary host memory make the driver wait. Those through pinned memory run beside the host; so a ring of
//! pinned segments stands between: small copies share a segment, large ones walk from one to the next, and only a segment that
//! is still being copied is waited for.

use super::driver::{Address, Driver, Event, Outcome};

/// Bytes of a segment.
const SEGMENT: usize = 1 << 20;
const SEGMENTS: usize = 8;

/// The ring. Its memory comes with the first copy.
#[derive(Debug, Default)]
pub(super) struct Staging {
    segments: Vec<Segment>,
    /// The segment that copies go through now, and how much of it is used.
    current: usize,
    used: usize,
}

#[derive(Debug)]
struct Segment {
    memory: *mut u8,
    /// When the last copy that used it is done.
    done: Event,
}

// SAFETY: pinned memory is plain memory, used by whoever holds the queue.
unsafe impl Send for Segment {}

impl Staging {
    fn ready(&mut self, driver: &dyn Driver) -> Outcome {
        if self.segments.is_empty() {
            let memory = driver.allocate_pinned(SEGMENT * SEGMENTS)?;
            for i in 0..SEGMENTS {
                let done = driver.create_event()?;
                self.segments.push(Segment { memory: memory.wrapping_add(i * SEGMENT), done });
            }
        }
        Ok(())
    }

    /// Leaves the current segment for the next, which is free then.
    fn advance(&mut self, driver: &dyn Driver) -> Outcome {
        driver.record(self.segments[self.current].done)?;
        self.current = (self.current + 1) % SEGMENTS;
        self.used = 0;
        driver.wait(self.segments[self.current].done)
    }

    /// Pinned memory for so many bytes, at most a segment.
    fn space(&mut self, driver: &dyn Driver, bytes: usize) -> Outcome<*mut u8> {
        if self.used + bytes > SEGMENT {
            self.advance(driver)?;
        }
        let at = self.segments[self.current].memory.wrapping_add(self.used);
        self.used += bytes.next_multiple_of(16);
        Ok(at)
    }

    /// Copies bytes to the device; they may be used again at once.
    ///
    /// # Safety
    /// The address must be one of the device's, from where on there are so many bytes.
    pub(super) unsafe fn copy_up(&mut self, driver: &dyn Driver, to: Address, bytes: &[u8]) -> Outcome {
        self.ready(driver)?;
        for (i, chunk) in bytes.chunks(SEGMENT).enumerate() {
            let pinned = self.space(driver, chunk.len())?;
            // SAFETY: the space holds the chunk, no copy of the device uses it, and it stays untouched until its segment's
            // event has happened; the device holds the bytes by the contract.
            unsafe {
                pinned.copy_from_nonoverlapping(chunk.as_ptr(), chunk.len());
                driver.copy_up(Address(to.0 + (i * SEGMENT) as u64), pinned, chunk.len())?;
            }
        }
        Ok(())
    }

    /// Copies bytes of the device. One copy is underway while the one before it is taken out.
    ///
    /// # Safety
    /// As for [`copy_up`](Self::copy_up).
    pub(super) unsafe fn copy_down(&mut self, driver: &dyn Driver, to: &mut [u8], from: Address) -> Outcome {
        self.ready(driver)?;
        let mut underway: Option<(&mut [u8], *mut u8, Event)> = None;
        let take_out = |underway: Option<(&mut [u8], *mut u8, Event)>| -> Outcome {
            if let Some((chunk, pinned, done)) = underway {
                driver.wait(done)?;
                // SAFETY: the copy to the pinned memory is done, and nothing else uses it.
                unsafe { chunk.as_mut_ptr().copy_from_nonoverlapping(pinned, chunk.len()) };
            }
            Ok(())
        };
        for (i, chunk) in to.chunks_mut(SEGMENT).enumerate() {
            let pinned = self.space(driver, chunk.len())?;
            let done = self.segments[self.current].done;
            // SAFETY: as for copies up, the other way.
            unsafe { driver.copy_down(pinned, Address(from.0 + (i * SEGMENT) as u64), chunk.len())? };
            driver.record(done)?;
            take_out(underway.replace((chunk, pinned, done)))?;
        }
        take_out(underway)
    }
}
