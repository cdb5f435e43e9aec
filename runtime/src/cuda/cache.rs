//! Machine code of programs on disk, so that a program compiles once a machine and not once a process.
//!
//! A file is named after a hash of everything that the code depends on: text, options, the compiler's version,
//! architecture. It holds a mark, that key whole, the code, and a checksum; a file that is not exactly what was written (cut short,
//! overwritten, of another key with the same name) is no hit, and is written again. Files are written under another name and
//! then renamed, so whoever reads sees a whole file, also beside other processes. A folder that cannot be written is no error:
//! then there is no cache.
//!
//! The folder is `LAZULI_CACHE_DIR`, else `$XDG_CACHE_HOME/lazuli`, else `~/.cache/lazuli`. `LAZULI_CACHE=0` turns it off.
//!
//! Files have at most `LAZULI_CACHE_MIB` mebibytes together, 256 unless it is set: whoever writes one removes those that were used
//! longest ago until it fits. A hit makes a file's time of modification the present, so that is the time of its last use. Another process
//! that wants what was removed compiles it again.

use super::nvrtc;
use lazuli_ir::{Error, ErrorKind, Result};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The first bytes of a file, and the version of its form.
const MARK: &[u8; 8] = b"lazcub01";

/// Machine code of a program's text for an architecture: from the disk, else compiled and kept there.
///
/// # Errors
/// As for [`nvrtc::compile`].
pub fn compile(text: &str, sm: u32) -> Result<Vec<u8>> {
    Cache::from_environment()?.compile(text, sm)
}

/// Mebibytes that files have together at most, unless the environment says otherwise.
const MOST_MIB: u64 = 256;
/// After so long nobody finishes a file any more.
const ABANDONED: Duration = Duration::from_secs(3600);
/// How the names of files end that hold machine code, and of those that are being written.
const WHOLE: &str = ".cubin";
const UNFINISHED: &str = ".unfinished";

/// A folder of machine code, or none, and the bytes that its files have at most.
#[derive(Clone, Debug)]
struct Cache {
    folder: Option<PathBuf>,
    most_bytes: u64,
}

impl Cache {
    fn from_environment() -> Result<Cache> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let most_bytes = most_bytes(set("LAZULI_CACHE_MIB").as_deref())?;
        if set("LAZULI_CACHE").is_some_and(|v| v == "0") {
            return Ok(Cache { folder: None, most_bytes });
        }
        let folder = set("LAZULI_CACHE_DIR").map(PathBuf::from);
        let folder = folder.or_else(|| set("XDG_CACHE_HOME").map(|d| PathBuf::from(d).join("lazuli")));
        let folder = folder.or_else(|| set("HOME").map(|d| PathBuf::from(d).join(".cache").join("lazuli")));
        Ok(Cache { folder, most_bytes })
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
        let name = format!("{:016x}{:016x}{WHOLE}", hash(key, 0), hash(key, 1));
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let path = self.path(key)?;
        let file = fs::read(&path).ok()?;
        let code = code(&file, key).map(<[u8]>::to_vec)?;
        // Where that is not allowed, the file only seems older than it is.
        let _ = fs::File::options().write(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
        Some(code)
    }

    fn put(&self, key: &[u8], code: &[u8]) {
        let Some(path) = self.path(key) else { return };
        let file = file(key, code);
        let fits = file.len() as u64 <= self.most_bytes;
        let kept = if fits { write(&path, &file) } else { Err(std::io::Error::other("it is larger than the cache")) };
        if let Err(error) = kept.and_then(|()| self.trim(&path)) {
            tracing::debug!(target: "lazuli::cuda", path = %path.display(), %error, "machine code was not kept");
        }
    }

    /// Removes what was used longest ago, until the rest is small enough, and what nobody finishes writing. The file that was
    /// just `written` stays: no clock says that it is older.
    fn trim(&self, written: &Path) -> std::io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let now = SystemTime::now();
        let mut files = Vec::new();
        let mut bytes = 0u64;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            // Another process may have removed it meanwhile.
            let Ok(data) = entry.metadata() else { continue };
            let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match name.to_str() {
                Some(name) if name.ends_with(WHOLE) => {
                    bytes += data.len();
                    files.push((path == written, used, path, data.len()));
                }
                Some(name) if name.ends_with(UNFINISHED) && now.duration_since(used).is_ok_and(|d| d > ABANDONED) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        files.sort();
        for (newest, _, path, length) in files {
            if bytes <= self.most_bytes || newest {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => bytes -= length,
            }
        }
        Ok(())
    }
}

/// The bytes that files have at most, from a number of mebibytes as the environment gives it.
fn most_bytes(mib: Option<&std::ffi::OsStr>) -> Result<u64> {
    let Some(given) = mib else { return Ok(MOST_MIB << 20) };
    let number = given.to_str().and_then(|text| text.trim().parse::<u64>().ok()).and_then(|n| n.checked_mul(1 << 20));
    number.ok_or_else(|| {
        let given = given.to_string_lossy();
        let message = format!("LAZULI_CACHE_MIB is `{given}`; it is a whole number of mebibytes, such as {MOST_MIB}");
        Error::new(ErrorKind::Value, message)
    })
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
    let unfinished = folder.join(format!(".{}-{number}{UNFINISHED}", std::process::id()));
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

    fn cache(folder: PathBuf) -> Cache {
        Cache { folder: Some(folder), most_bytes: MOST_MIB << 20 }
    }

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
        let cache = cache(folder("keys"));
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
        let left: Vec<_> =
            fs::read_dir(cache.folder.as_ref().unwrap()).unwrap().flatten().map(|f| f.file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::remove_dir_all(cache.folder.unwrap()).unwrap();
    }

    #[test]
    fn files_that_are_not_whole_are_no_hits_and_are_written_again() {
        let cache = cache(folder("whole"));
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
        fs::remove_dir_all(cache.folder.unwrap()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let place = folder("file");
        fs::write(&place, b"a file where the folder should be").unwrap();
        let cache = cache(place.clone());
        cache.put(b"key", b"code");
        assert_eq!(cache.get(b"key"), None);
        let none = Cache { folder: None, most_bytes: MOST_MIB << 20 };
        none.put(b"key", b"code");
        assert_eq!(none.get(b"key"), None);
        fs::remove_file(place).unwrap();
    }

    #[test]
    fn threads_that_write_one_key_leave_one_whole_file() {
        let cache = cache(folder("threads"));
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
        assert_eq!(fs::read_dir(cache.folder.as_ref().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(cache.folder.unwrap()).unwrap();
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let cache = Cache { folder: Some(folder("bytes")), most_bytes: 3500 };
        let hours_ago = |key: &[u8], hours: u32| {
            let file = fs::File::options().write(true).open(cache.path(key).unwrap()).unwrap();
            file.set_modified(SystemTime::now() - hours * ABANDONED).unwrap();
        };
        for (key, hours) in [(b"a", 3), (b"b", 2), (b"c", 1)] {
            cache.put(key, &[1; 1000]);
            hours_ago(key, hours);
        }
        // A hit is a use.
        assert!(cache.get(b"a").is_some());
        cache.put(b"d", &[1; 1000]);
        let found = |key: &[u8]| cache.get(key).is_some();
        assert_eq!([found(b"a"), found(b"b"), found(b"c"), found(b"d")], [true, false, true, true]);
        // What is written stays, whatever the clock says of the others.
        for key in [b"a", b"c", b"d"] {
            let file = fs::File::options().write(true).open(cache.path(key).unwrap()).unwrap();
            file.set_modified(SystemTime::now() + ABANDONED).unwrap();
        }
        cache.put(b"e", &[1; 2000]);
        assert!(found(b"e"));
        // What is larger than all that is kept removes nothing.
        cache.put(b"f", &[1; 4000]);
        assert!(!found(b"f") && found(b"e"));
        // Files of other kinds are left alone, and so is what may still be written.
        let folder = cache.folder.clone().unwrap();
        for name in ["notes.txt", ".1-1.unfinished", ".1-2.unfinished"] {
            fs::write(folder.join(name), [0; 9000]).unwrap();
        }
        let old = fs::File::options().write(true).open(folder.join(".1-1.unfinished")).unwrap();
        old.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        cache.put(b"g", &[1; 10]);
        let exists = |name: &str| folder.join(name).exists();
        assert!(exists("notes.txt") && !exists(".1-1.unfinished") && exists(".1-2.unfinished"));
        assert!(found(b"e") && found(b"g"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_number_of_mebibytes_is_a_number() {
        assert_eq!(most_bytes(None).unwrap(), 256 << 20);
        assert_eq!(most_bytes(Some("16".as_ref())).unwrap(), 16 << 20);
        for wrong in ["many", "-1", "1.5", "18446744073709551615"] {
            let error = most_bytes(Some(wrong.as_ref())).unwrap_err();
            assert!(error.message().contains(wrong) && error.message().contains("mebibytes"), "{error}");
        }
    }

    #[test]
    fn writers_that_remove_each_others_files_leave_no_more_than_fits() {
        let cache = Cache { folder: Some(folder("writers")), most_bytes: 5000 };
        std::thread::scope(|s| {
            for thread in 0..4u8 {
                let cache = &cache;
                s.spawn(move || {
                    for i in 0..30u8 {
                        cache.put(&[thread, i], &[thread; 1000]);
                        assert!(cache.get(&[thread, i]).is_none_or(|code| code == [thread; 1000]));
                    }
                });
            }
        });
        cache.put(b"last", &[9; 1000]);
        let files = fs::read_dir(cache.folder.as_ref().unwrap()).unwrap().flatten();
        let bytes: u64 = files.map(|f| f.metadata().unwrap().len()).sum();
        assert!(bytes <= 5000 && cache.get(b"last").is_some(), "{bytes}");
        fs::remove_dir_all(cache.folder.unwrap()).unwrap();
    }
}
