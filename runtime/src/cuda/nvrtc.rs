//! CUDA C to machine code, by NVRTC: the run-time compiler that comes with CUDA, found when it is first used.
//!
//! `LAZULI_NVRTC` says where its library lies, where that is no usual place (see `library`). NVRTC needs no GPU, so kernels
//! compile, and are checked, on any machine.

use super::library::{self, symbol};
use lazuli_ir::{Error, ErrorKind, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Machine code of a program, and what the compiler said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What the driver loads.
    pub cubin: Vec<u8>,
    /// What each kernel needs, in order of the log.
    pub functions: Vec<FunctionInfo>,
    /// The compiler's own words.
    pub log: String,
}

/// What a kernel needs of a multiprocessor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionInfo {
    /// The function's name.
    pub name: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of local memory of a thread, spilled registers included.
    pub stack_bytes: u32,
    /// Bytes that spilling stores and loads, of a thread.
    pub spill_bytes: u32,
    /// Bytes of static shared memory of a block.
    pub shared_bytes: u32,
}

type Program = *mut std::ffi::c_void;

/// The compiler's functions. They stay loaded for the life of the process.
struct Nvrtc {
    path: PathBuf,
    version: (i32, i32),
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    error: unsafe extern "C" fn(c_int) -> *const c_char,
}

#[cfg(not(windows))]
const NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so", "libnvrtc.so.12"];
#[cfg(windows)]
const NAMES: &[&str] = &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];

/// How compiled programs are named in the compiler's messages.
const FILE: &CStr = c"lazuli.cu";

/// The options that a program is compiled with.
pub fn options(sm: u32) -> Vec<String> {
    vec![
        format!("--gpu-architecture=sm_{sm}"),
        "--fmad=false".to_owned(),
        "--std=c++17".to_owned(),
        "--ptxas-options=-v".to_owned(),
    ]
}

/// The compiler's version, major and minor. Fails where there is none.
pub fn version() -> Result<(i32, i32)> {
    Ok(nvrtc()?.version)
}

/// Where the compiler was found. Fails where there is none.
pub fn path() -> Result<PathBuf> {
    Ok(nvrtc()?.path.clone())
}

/// Compiles a program for GPUs of compute capability `sm` (`90` is sm_90).
///
/// # Errors
/// There is no NVRTC; the text is no CUDA C (the error has the compiler's log and the offending line).
pub fn compile(text: &str, sm: u32) -> Result<Compiled> {
    nvrtc()?.compile(text, sm)
}

fn nvrtc() -> Result<&'static Nvrtc> {
    static FOUND: OnceLock<Result<Nvrtc>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<Nvrtc> {
    let found = library::find("LAZULI_NVRTC", NAMES, Nvrtc::load).map_err(|tried| {
        let message = format!(
            "NVRTC, the compiler for NVIDIA GPUs, was not found{tried}; install it with `pip install \
             nvidia-cuda-nvrtc==13.0.*` and set LAZULI_NVRTC to the folder of its libnvrtc.so.13, or install the CUDA toolkit 13"
        );
        Error::new(ErrorKind::Device, message)
    })?;
    tracing::debug!(path = %found.path.display(), version = ?found.version, "NVRTC");
    Ok(found)
}

/// Loads the library that NVRTC opens by bare name from the folder that NVRTC lies in, so that it is found there.
fn load_builtins(nvrtc: &Path) {
    let Some(folder) = nvrtc.parent().filter(|p| !p.as_os_str().is_empty()) else { return };
    let Ok(files) = std::fs::read_dir(folder) else { return };
    let mut builtins: Vec<PathBuf> = files.flatten().map(|f| f.path()).collect();
    builtins.retain(|path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        name.starts_with("libnvrtc-builtins.so") || (name.starts_with("nvrtc-builtins") && name.ends_with(".dll"))
    });
    builtins.sort();
    for path in builtins {
        // SAFETY: a library of CUDA whose initialisers do nothing but set themselves up.
        if let Ok(library) = unsafe { Library::new(path) } {
            std::mem::forget(library);
        }
    }
}

impl Nvrtc {
    fn load(place: &Path) -> std::result::Result<Nvrtc, String> {
        load_builtins(place);
        // SAFETY: as for the builtins.
        let library = unsafe { Library::new(place) }.map_err(|e| e.to_string())?;
        // SAFETY: the types are those of NVRTC's header, which have not changed since version 11; the library is never
        // unloaded, so the functions stay where they are.
        let nvrtc = unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = symbol(&library, c"nvrtcVersion")?;
            let (mut major, mut minor) = (0, 0);
            if version(&mut major, &mut minor) != 0 {
                return Err("it does not tell its version".to_owned());
            }
            Nvrtc {
                path: place.to_owned(),
                version: (major, minor),
                create: symbol(&library, c"nvrtcCreateProgram")?,
                compile: symbol(&library, c"nvrtcCompileProgram")?,
                destroy: symbol(&library, c"nvrtcDestroyProgram")?,
                cubin_size: symbol(&library, c"nvrtcGetCUBINSize")?,
                cubin: symbol(&library, c"nvrtcGetCUBIN")?,
                log_size: symbol(&library, c"nvrtcGetProgramLogSize")?,
                log: symbol(&library, c"nvrtcGetProgramLog")?,
                error: symbol(&library, c"nvrtcGetErrorString")?,
            }
        };
        std::mem::forget(library);
        Ok(nvrtc)
    }

    fn compile(&self, text: &str, sm: u32) -> Result<Compiled> {
        let wrong = |_| Error::internal("a program's text holds a zero byte");
        let c_text = CString::new(text).map_err(wrong)?;
        let options = options(sm).into_iter().map(CString::new);
        let options = options.collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let unit = Unit::new(self, &c_text)?;
        // SAFETY: the program was created, and the options are strings that live until the call is over.
        let code = unsafe { (self.compile)(unit.program, options.len() as c_int, options.as_ptr()) };
        let log = unit.read(self.log_size, self.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        if code != 0 {
            return Err(compile_error(&self.message(code), &log, text, sm));
        }
        let cubin = unit.read(self.cubin_size, self.cubin)?;
        Ok(Compiled { cubin, functions: functions(&log), log })
    }

    fn message(&self, code: c_int) -> String {
        // SAFETY: the function returns a string of its own for any number.
        let text = unsafe { (self.error)(code) };
        if text.is_null() {
            return format!("error {code}");
        }
        // SAFETY: it is a string of the library that ends with a zero.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    fn check(&self, code: c_int, what: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Device, format!("NVRTC could not {what}: {}", self.message(code))))
    }
}

/// A program of the compiler, destroyed with its user.
struct Unit<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl<'a> Unit<'a> {
    fn new(nvrtc: &'a Nvrtc, text: &CStr) -> Result<Unit<'a>> {
        let mut program = std::ptr::null_mut();
        let none = std::ptr::null();
        // SAFETY: strings that end with a zero, no headers, and a place for the result.
        let code = unsafe { (nvrtc.create)(&mut program, text.as_ptr(), FILE.as_ptr(), 0, none, none) };
        nvrtc.check(code, "take a program")?;
        Ok(Unit { nvrtc, program })
    }

    /// A result of the program that comes as a size and bytes.
    fn read(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        bytes: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>> {
        let mut n = 0;
        // SAFETY: the program exists, and there is a place for the number.
        self.nvrtc.check(unsafe { size(self.program, &mut n) }, "tell the size of its result")?;
        let mut out = vec![0u8; n];
        // SAFETY: the vector is as long as the program said.
        self.nvrtc.check(unsafe { bytes(self.program, out.as_mut_ptr().cast()) }, "give its result")?;
        Ok(out)
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        // SAFETY: the program exists, and nobody uses it any more.
        unsafe { (self.nvrtc.destroy)(&mut self.program) };
    }
}

/// The error of a program that did not compile, with the lines that the compiler complains about.
fn compile_error(what: &str, log: &str, text: &str, sm: u32) -> Error {
    let log: String = log.lines().filter(|l| !l.trim().is_empty()).map(|l| format!("\n  {l}")).collect();
    let mut message = format!("NVRTC did not compile a program for sm_{sm} ({what}):{log}");
    if let Some(line) = first_error_line(&log)
        && let Some(code) = text.lines().nth(line.saturating_sub(1))
    {
        message.push_str(&format!("\n  line {line}: {}", code.trim()));
    }
    Error::internal(message)
}

/// The line of the first `lazuli.cu(12): error: ...`.
fn first_error_line(log: &str) -> Option<usize> {
    log.lines().filter(|l| l.contains("error")).find_map(|l| {
        let (_, rest) = l.split_once("lazuli.cu(")?;
        rest.split_once(')')?.0.parse().ok()
    })
}

/// What the assembler's log (`-v`) says of each kernel.
fn functions(log: &str) -> Vec<FunctionInfo> {
    let mut found: Vec<FunctionInfo> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or(rest).to_owned();
            found.push(FunctionInfo { name, ..FunctionInfo::default() });
            continue;
        }
        let Some(function) = found.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            function.stack_bytes = number_before(line, "bytes stack frame");
            function.spill_bytes = number_before(line, "bytes spill stores") + number_before(line, "bytes spill loads");
        } else if line.contains("Used ") {
            function.registers = number_before(line, "registers");
            function.shared_bytes = number_before(line, "bytes smem");
        }
    }
    found
}

/// The number that stands before some words, or 0 where they do not occur.
fn number_before(line: &str, words: &str) -> u32 {
    let Some((before, _)) = line.split_once(words) else { return 0 };
    before.split_whitespace().next_back().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether NVRTC is there; where it is not, says that a test is skipped, or fails where it is required.
    fn present(test: &str) -> bool {
        match version() {
            Ok(_) => true,
            Err(error) if std::env::var_os("LAZULI_REQUIRE_NVRTC").is_some_and(|v| v == "1") => panic!("{error}"),
            Err(error) => {
                println!("{test} was skipped: {}", error.message());
                false
            }
        }
    }

    const SCALE: &str = r#"
extern "C" __global__ void scale(float* x, long long n, float by) {
    __shared__ float s[256];
    long long i = blockIdx.x * 256ll + threadIdx.x;
    s[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    if (i < n) x[i] = s[255 - threadIdx.x] * by;
}
extern "C" __global__ void zero(float* x) { x[threadIdx.x] = 0.0f; }
"#;

    #[test]
    fn cuda_nvrtc_compiles_for_each_architecture() {
        if !present("cuda_nvrtc_compiles_for_each_architecture") {
            return;
        }
        for sm in [80, 90, 100, 120] {
            let compiled = compile(SCALE, sm).unwrap();
            assert!(compiled.cubin.starts_with(b"\x7fELF"));
            let mut names: Vec<&str> = compiled.functions.iter().map(|f| f.name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["scale", "zero"], "{}", compiled.log);
            for f in &compiled.functions {
                assert!(f.registers > 0 && f.spill_bytes == 0, "{f:?} {}", compiled.log);
                assert_eq!(f.shared_bytes >= 1024, f.name == "scale", "{f:?} {}", compiled.log);
            }
        }
    }

    #[test]
    fn cuda_nvrtc_names_the_line_that_does_not_compile() {
        if !present("cuda_nvrtc_names_the_line_that_does_not_compile") {
            return;
        }
        let text = "extern \"C\" __global__ void k(float* x) {\n    x[0] = nothing_of_this_name;\n}\n";
        let error = compile(text, 90).unwrap_err();
        assert!(error.message().contains("line 2: x[0] = nothing_of_this_name;"), "{error}");
        assert!(error.message().contains("is undefined"), "{error}");
        assert!(compile("\0", 90).is_err());
        assert!(compile(SCALE, 11).is_err());
    }

    #[test]
    fn spills_registers_and_shared_memory_are_read_from_the_log() {
        let log = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'k' for 'sm_90'\n\
            ptxas info    : Function properties for k\n\
            \x20   40 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem, 376 bytes cmem[0]\n";
        let expected =
            FunctionInfo { name: "k".to_owned(), registers: 255, stack_bytes: 40, spill_bytes: 20, shared_bytes: 1024 };
        assert_eq!(functions(log), [expected]);
    }
}
