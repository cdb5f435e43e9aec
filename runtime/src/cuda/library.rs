//! NVIDIA's libraries beside the driver: where they may lie, and how their functions are found.
//!
//! A library is looked for in this order: where its variable says (the file, or the folder it lies in), under its bare name (so in
//! `LD_LIBRARY_PATH` and in what the system knows), under `$CUDA_HOME/lib64`, under `/usr/local/cuda/lib64`. The file is opened by
//! its full path, and its functions are taken from that handle: looking them up by bare name could find another installation.

use libloading::Library;
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// What a variable of the environment says, where it says anything.
fn given(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// The places where a library may lie, in order. A bare name is left to the system.
fn candidates(variable: &str, names: &[&str]) -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(given) = given(variable) {
        if given.is_dir() {
            places.extend(names.iter().map(|n| given.join(n)));
        } else {
            places.push(given);
        }
    }
    places.extend(names.iter().map(PathBuf::from));
    for folder in
        given("CUDA_HOME").into_iter().map(|h| h.join("lib64")).chain([PathBuf::from("/usr/local/cuda/lib64")])
    {
        places.extend(names.iter().map(|n| folder.join(n)));
    }
    places
}

/// What `load` makes of the first place where it finds the library; else what was wrong in those where there was one, for an error.
pub(super) fn find<T>(variable: &str, names: &[&str], load: impl Fn(&Path) -> Result<T, String>) -> Result<T, String> {
    let mut tried = String::new();
    for place in candidates(variable, names) {
        // A path that does not exist is no news; a bare name is looked up by the system.
        let is_path = place.components().count() > 1;
        if is_path && !place.exists() {
            continue;
        }
        match load(&place) {
            Ok(found) => return Ok(found),
            Err(why) if is_path => tried.push_str(&format!("; {}: {why}", place.display())),
            Err(_) => {}
        }
    }
    if let Some(given) = given(variable)
        && !names.iter().map(|n| given.join(n)).chain([given.clone()]).any(|place| place.is_file())
    {
        tried.push_str(&format!("; {variable} is `{}`, where it does not lie", given.display()));
    }
    Err(tried)
}

/// A function of a library.
///
/// # Safety
/// `F` must be the type of the library's function of this name, and the library must not be unloaded while it is used.
pub(super) unsafe fn symbol<F: Copy>(library: &Library, name: &CStr) -> Result<F, String> {
    // SAFETY: by the contract.
    unsafe { library.get::<F>(name.to_bytes_with_nul()) }.map(|f| *f).map_err(|e| e.to_string())
}
