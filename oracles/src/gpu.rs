//! Whether tests have a GPU.

use lazuli_ir::{Device, Error, ErrorKind, Result};
use lazuli_runtime::device;

/// The first GPU. Where there is none, says that `test` is skipped; with `LAZULI_REQUIRE_GPU=1` that is an error.
///
/// # Errors
/// There is no GPU, and one is required.
pub fn gpu(test: &str) -> Result<Option<Device>> {
    let device = Device::Cuda(0);
    let Err(error) = device::cuda_count().and_then(|_| device::open(device)) else { return Ok(Some(device)) };
    if std::env::var_os("LAZULI_REQUIRE_GPU").is_some_and(|v| v == "1") {
        return Err(Error::new(ErrorKind::Device, format!("{test} needs a GPU: {}", error.message())));
    }
    println!("{test} was skipped: {}", error.message());
    Ok(None)
}
