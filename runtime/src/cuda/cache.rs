//! Machine code of programs on disk, so that a program compiles once a machine and not once a process.
//!
//! A file is named after a hash of everything that the code depends on: text, options, the compiler's version,
//! architecture. It holds a mark, that key whole, the code, and a checksum; a file that is not exactly what was written (cut short,
//! overwritten, of another key with the same name) is no hit, and is written again. Files are written under another name and
//! then renamed, so whoever reads sees a whole file, also beside other processes. A folder that cannot be written is no error:
//! then there is no cache.
//!
//! The folder is `LAZULI_CACHE_DIR`, else `$XDG_CACHE_HOME/lazuli`, else `~/.cache/lazuli`. `LAZULI_CACHE=0` turns it off.

use super::nvrtc;
use lazuli_ir::Result;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The first bytes of a file, and the version of its form.
const MARK: &[u8; 8] = b"lazcub01";

/// Machine code of a program's text for an architecture: from the disk, else compiled and kept there.
///
/// # Errors
/// As for [`nvrtc::compile`].
pub fn compile(text: &str, sm: u32) -> Result<Vec<u8>> {
    Cache::from_environment().compile(text, sm)
}

/// A folder of machine code; or none.
#[derive(Clone, Debug)]
struct Cache(Option<PathBuf>);

impl Cache {
    fn from_environment() -> Cache {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        if set("LAZULI_CACHE").is_some_and(|v| v == "0") {
            return Cache(None);
        }
        let folder = set("LAZULI_CACHE_DIR").map(PathBuf::from);
        let folder = folder.or_else(|| set("XDG_CACHE_HOME").map(|d| PathBuf::from(d).join("lazuli")));
        Cache(folder.or_else(|| set("HOME").map(|d| PathBuf::from(d).join(".cache").join("lazuli"))))
    }

    fn compile(&self, text: &str, sm: u32) -> Result<Vec<u8>> {
        let (major, minor) = nvrtc::version()?;
        let key = key(text, &nvrtc::options(sm), (major, minor));
        if let Some(cubin) = self.get(&key) {
            tracing::trace!(target: "lazuli::cuda", sm, "machine code from the disk");
            return Ok(cubin);
        }
        let start = std::time::Instant::now();
        let compiled = nvrtc::compile(text, sm)?;
        let micros = start.elapsed().as_micros() as u64;
        tracing::debug!(target: "lazuli::cuda", sm, micros, functions = compiled.functions.len(), "compiled by NVRTC");
        self.put(&key, &compiled.cubin);
        Ok(compiled.cubin)
    }

    fn path(&self, key: &[u8]) -> Option<PathBuf> {
        let name = format!("{:016x}{:016x}.cubin", hash(key, 0), hash(key, 1));
        self.0.as_ref().map(|folder| folder.join(name))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let file = fs::read(self.path(key)?).ok()?;
        code(&file, key).map(<[u8]>::to_vec)
    }

    fn put(&self, key: &[u8], code: &[u8]) {
        let Some(path) = self.path(key) else { return };
        if let Err(error) = write(&path, &file(key, code)) {
            tracing::debug!(target: "lazuli::cuda", path = %path.display(), %error, "machine code was not kept");
        }
    }
}

/// Everything that the code depends on. Comments, which name the user's lines, are not part of it: a program that only moved in
/// its file is not compiled again.
fn key(text: &str, options: &[String], version: (i32, i32)) -> Vec<u8> {
    let mut key = format!("NVRTC {}.{}\n{}\n", version.0, version.1, options.join(" "));
    for line in text.lines() {
        key.push_str(line.split_once("//").map_or(line, |(code, _)| code).trim_end());
        key.push('\n');
    }
    key.into_bytes()
}

/// FNV-1a over bytes, from a start of its own: a hash that is the same in every process and version.
fn hash(bytes: &[u8], start: u64) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ start.wrapping_mul(0x9e37_79b9_7f4a_7c15), step)
}

/// A file's bytes: mark, lengths of key and code, key, code, checksum of all before.
fn file(key: &[u8], code: &[u8]) -> Vec<u8> {
    let mut file = MARK.to_vec();
    file.extend_from_slice(&(key.len() as u64).to_le_bytes());
    file.extend_from_slice(&(code.len() as u64).to_le_bytes());
    file.extend_from_slice(key);
    file.extend_from_slice(code);
    file.extend_from_slice(&hash(&file, 0).to_le_bytes());
    file
}

/// The code in a file that was written for this key; `None` where it is anything else.
fn code<'f>(file: &'f [u8], key: &[u8]) -> Option<&'f [u8]> {
    let (content, sum) = file.split_last_chunk::<8>()?;
    let (mark, rest) = content.split_first_chunk::<8>()?;
    let (keys, rest) = rest.split_first_chunk::<8>()?;
    let (codes, rest) = rest.split_first_chunk::<8>()?;
    let (keys, codes) = (u64::from_le_bytes(*keys) as usize, u64::from_le_bytes(*codes) as usize);
    let fits = mark == MARK && keys == key.len() && rest.len().checked_sub(keys) == Some(codes);
    let code = rest.strip_prefix(key)?;
    (fits && hash(content, 0) == u64::from_le_bytes(*sum)).then_some(code)
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let unfinished = folder.join(format!(".{}-{number}.unfinished", std::process::id()));
    let written = fs::File::create_new(&unfinished).and_then(|mut f| f.write_all(bytes));
    let renamed = written.and_then(|()| fs::rename(&unfinished, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("lazuli-cache-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn version() -> (i32, i32) {
        (13, 0)
    }

    #[test]
    fn what_was_put_is_found_under_its_key_only() {
        let cache = Cache(Some(folder("keys")));
        let (a, b) = (key("a", &nvrtc::options(90), version()), key("a", &nvrtc::options(80), version()));
        assert_eq!(cache.get(&a), None);
        cache.put(&a, b"code of a");
        cache.put(&b, b"");
        assert_eq!(cache.get(&a).as_deref(), Some(&b"code of a"[..]));
        assert_eq!(cache.get(&b).as_deref(), Some(&b""[..]));
        assert_eq!(cache.get(&key("a", &nvrtc::options(90), (13, 1))), None);
        assert_eq!(a, key("a // src/main.rs:1:2", &nvrtc::options(90), version()));
        assert_ne!(a, key("a b", &nvrtc::options(90), version()));
        cache.put(&a, b"other code");
        assert_eq!(cache.get(&a).as_deref(), Some(&b"other code"[..]));
        // Another key under the same name is no hit.
        fs::copy(cache.path(&a).unwrap(), cache.path(&b).unwrap()).unwrap();
        assert_eq!(cache.get(&b), None);
        let left: Vec<_> = fs::read_dir(cache.0.as_ref().unwrap()).unwrap().flatten().map(|f| f.file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::remove_dir_all(cache.0.unwrap()).unwrap();
    }

    #[test]
    fn files_that_are_not_whole_are_no_hits_and_are_written_again() {
        let cache = Cache(Some(folder("whole")));
        let key = key("text", &nvrtc::options(90), version());
        let good = file(&key, b"machine code");
        let path = cache.path(&key).unwrap();
        cache.put(&key, b"machine code");
        assert_eq!(fs::read(&path).unwrap(), good);
        for cut in 0..good.len() {
            fs::write(&path, &good[..cut]).unwrap();
            assert_eq!(cache.get(&key), None, "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(cache.get(&key), None, "changed at {at}");
        }
        fs::write(&path, [&good[..], b"more"].concat()).unwrap();
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"machine code");
        assert_eq!(cache.get(&key).as_deref(), Some(&b"machine code"[..]));
        fs::remove_dir_all(cache.0.unwrap()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let place = folder("file");
        fs::write(&place, b"a file where the folder should be").unwrap();
        let cache = Cache(Some(place.clone()));
        cache.put(b"key", b"code");
        assert_eq!(cache.get(b"key"), None);
        Cache(None).put(b"key", b"code");
        assert_eq!(Cache(None).get(b"key"), None);
        fs::remove_file(place).unwrap();
    }

    #[test]
    fn threads_that_write_one_key_leave_one_whole_file() {
        let cache = Cache(Some(folder("threads")));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..50 {
                        cache.put(b"key", &[7; 1000]);
                        assert_eq!(cache.get(b"key").as_deref(), Some(&[7; 1000][..]));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(cache.0.as_ref().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(cache.0.unwrap()).unwrap();
    }
}
