//! What the checks of a kernel found: the failure of lowest site, and there of lowest linear index.

use lazuli_ir::program::CheckSite;
use lazuli_ir::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// A failed check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    at: i64,
    site: i64,
    value: i64,
}

/// The status block of a step of a call, which generated code reports to.
#[derive(Debug, Default)]
pub(crate) struct Status(Mutex<Option<Failure>>);

impl Status {
    fn note(&self, failure: Failure) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none_or(|f| (failure.site, failure.at) < (f.site, f.at)) {
            *first = Some(failure);
        }
    }

    /// The error of the step, where a check failed, which is forgotten; `sites` says what each stands for.
    pub(crate) fn take(&self, sites: &[CheckSite]) -> Result<()> {
        let Some(f) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        match usize::try_from(f.site).ok().and_then(|site| sites.get(site)) {
            Some(site) => Err(site.error(f.value)),
            None => Err(Error::internal(format!("check {} of a kernel failed, and stands for nothing", f.site))),
        }
    }
}

/// Called by generated code.
///
/// # Safety
/// `status` must point to the status of a running call.
pub(crate) unsafe extern "C" fn check_failed(status: *const Status, site: i64, value: i64, at: i64) {
    // SAFETY: by the contract.
    unsafe { &*status }.note(Failure { at, site, value });
}
