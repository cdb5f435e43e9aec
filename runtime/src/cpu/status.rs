//! What a call's checks found: the failure of lowest linear index.

use lazuli_ir::{Error, ErrorKind, Result};
use std::sync::{Mutex, PoisonError};

/// A failed check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    at: i64,
    site: i64,
    value: i64,
}

/// The status block of a call, which generated code reports to.
#[derive(Debug, Default)]
pub(crate) struct Status(Mutex<Option<Failure>>);

impl Status {
    fn note(&self, failure: Failure) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none_or(|f| (failure.site, failure.at) < (f.site, f.at)) {
            *first = Some(failure);
        }
    }

    /// The error of the call, where a check failed.
    pub(crate) fn result(&self) -> Result<()> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(f) => {
                let message = format!("value {} at element {} is out of range (check {})", f.value, f.at, f.site);
                Err(Error::new(ErrorKind::Index, message))
            }
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
