//! Work that was submitted and not waited for yet, and what its checks found.

use super::allocator::DeviceBlock;
use super::source::CheckStatus;
use lazuli_ir::program::CheckSite;
use lazuli_ir::{Error, Result};
use std::sync::Arc;

/// Pieces of work that an error of the device names.
const NAMED: usize = 8;

/// A program or kernel whose launches may fail later.
#[derive(Debug)]
pub(super) struct Work {
    /// What errors call it.
    name: String,
    /// What its checks stand for, a list for each status.
    checks: Vec<Vec<CheckSite>>,
    /// Device memory that begins with the statuses. It must outlive the launches that write it.
    memory: Option<DeviceBlock>,
}

impl Work {
    /// Work whose statuses stand at the beginning of `memory`, one for each list of checks.
    pub(super) fn new(name: String, checks: Vec<Vec<CheckSite>>, memory: Option<DeviceBlock>) -> Arc<Work> {
        Arc::new(Work { name, checks, memory })
    }

    /// The memory of the statuses, and their bytes; `None` where nothing is checked.
    pub(super) fn statuses(&self) -> Option<(&DeviceBlock, usize)> {
        let bytes = self.checks.len() * size_of::<CheckStatus>();
        self.memory.as_ref().filter(|_| bytes > 0).map(|block| (block, bytes))
    }

    /// The error of the check that failed first: of the first step with a failure.
    pub(super) fn result(&self, statuses: &[u8]) -> Result<()> {
        for (status, sites) in statuses.chunks_exact(size_of::<CheckStatus>()).zip(&self.checks) {
            let word = |i: usize| {
                let bytes = status.get(8 * i..8 * i + 8).and_then(|b| b.first_chunk()).copied();
                u64::from_le_bytes(bytes.unwrap_or_default())
            };
            let status = CheckStatus { key: word(0), value: word(1) as i64, lock: word(2) };
            if let Some((site, value)) = status.first() {
                return Err(match sites.get(site as usize) {
                    Some(site) => site.error(value),
                    None => Error::internal(format!("check {site} of {} failed, and stands for nothing", self.name)),
                });
            }
        }
        Ok(())
    }
}

/// What was submitted since the device was waited for.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<Arc<Work>>);

impl Pending {
    pub(super) fn note(&mut self, work: &Arc<Work>) {
        // A loop submits the same work again and again; what checks nothing is kept for its name only, so not for long.
        if self.0.iter().any(|w| Arc::ptr_eq(w, work)) {
            return;
        }
        if self.0.len() >= 4 * NAMED
            && let Some(oldest) = self.0.iter().position(|w| w.statuses().is_none())
        {
            self.0.remove(oldest);
        }
        self.0.push(work.clone());
    }

    pub(super) fn take(&mut self) -> Vec<Arc<Work>> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// What may have been running, in words: ` while it ran a, b`.
    pub(super) fn running(&self) -> String {
        let names: Vec<&str> = self.0.iter().rev().take(NAMED).map(|w| w.name.as_str()).collect();
        if names.is_empty() { String::new() } else { format!(" while it ran {}", names.join(" or ")) }
    }
}
