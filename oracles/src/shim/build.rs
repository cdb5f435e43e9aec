//! From texts to executables: one for each unit of kernels, linked with the host that runs them.

use lazuli_ir::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const HEADER: &str = include_str!("cuda.h");
const HOST: &str = include_str!("host.cpp");

/// Floats as a GPU rounds them: no operation is contracted. Warnings are for texts that people write.
const FLAGS: [&str; 6] = ["-std=gnu++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-w", "-pipe"];

/// The C++ compiler: `CXX`, or g++; `None` where it does not run.
pub fn compiler() -> Option<OsString> {
    let name = std::env::var_os("CXX").unwrap_or_else(|| "g++".into());
    Command::new(&name).arg("--version").output().ok().filter(|o| o.status.success()).map(|_| name)
}

/// Whether there is a compiler. A line says where there is none: tests then have nothing to run.
///
/// # Errors
/// Where there is none, and `LAZULI_REQUIRE_NVRTC` asks for all that can be tested without a GPU.
pub fn available() -> Result<bool> {
    if compiler().is_some() {
        return Ok(true);
    }
    let message = "no C++ compiler runs CUDA C on the CPU: install g++, or name one with CXX";
    if std::env::var_os("LAZULI_REQUIRE_NVRTC").is_some_and(|v| v == "1") {
        return Err(Error::new(ErrorKind::Device, message));
    }
    eprintln!("skipped: {message}");
    Ok(false)
}

/// A folder that goes away with its program.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Folder> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lazuli-shim-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| io(&path, &e))?;
        Ok(Folder(path))
    }

    /// The executable of a unit.
    pub(super) fn unit(&self, unit: usize) -> PathBuf {
        self.0.join(format!("unit{unit}"))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text).map_err(|e| io(&path, &e))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind harms nobody.
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn io(path: &Path, e: &std::io::Error) -> Error {
    Error::new(ErrorKind::Value, format!("{}: {e}", path.display()))
}

/// Compiles and links units, as many at once as there are cores.
pub(super) fn build(folder: &Folder, prelude: &str, units: &[&[(&str, &str)]]) -> Result<()> {
    let compiler = compiler().ok_or_else(|| {
        Error::new(ErrorKind::Device, "no C++ compiler to run CUDA C on the CPU: install g++, or name one with CXX")
    })?;
    folder.write("cuda.h", HEADER)?;
    let host = folder.write("host.cpp", HOST)?;
    let objects: Vec<PathBuf> = (0..=units.len()).map(|i| folder.0.join(format!("{i}.o"))).collect();
    let mut texts = Vec::new();
    for (i, unit) in units.iter().enumerate() {
        texts.push(folder.write(&format!("unit{i}.cpp"), &text(prelude, unit))?);
    }
    let sources = texts.iter().chain([&host]).zip(&objects);
    let compilations: Vec<Command> = sources
        .map(|(source, object)| {
            let mut command = Command::new(&compiler);
            command.args(FLAGS).arg("-c").arg(source).arg("-o").arg(object);
            command
        })
        .collect();
    run_all(compilations)?;
    let links = (0..units.len()).map(|i| {
        let mut command = Command::new(&compiler);
        command.arg(&objects[i]).arg(&objects[units.len()]).arg("-o").arg(folder.unit(i));
        command
    });
    run_all(links.collect())
}

/// Runs commands, as many at once as there are cores. The first that fails is the error.
fn run_all(commands: Vec<Command>) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = std::sync::Mutex::new(commands.into_iter());
    let next = || queue.lock().map_or(None, |mut q| q.next());
    let work = || {
        while let Some(mut command) = next() {
            let output = command.output().map_err(|e| io(Path::new(command.get_program()), &e))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: Vec<&str> = said.lines().take(40).collect();
                return Err(Error::internal(format!("CUDA C that g++ does not take:\n{}", said.join("\n"))));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut ended = running.into_iter().map(|r| r.join());
        ended.try_for_each(|r| r.unwrap_or_else(|_| Err(Error::internal("a compilation panicked"))))
    })
}

/// The text of a unit: the prelude, the kernels, and the table by which the host finds them.
fn text(prelude: &str, kernels: &[(&str, &str)]) -> String {
    let mut text = String::from("#include \"cuda.h\"\n");
    section(&mut text, "lz_shared_prelude");
    // Functions of the prelude are each unit's own.
    _ = writeln!(text, "namespace {{\n#line 1 \"prelude\"\n{prelude}\n}}");
    let mut table = String::from("#line 1 \"table\"\n");
    let mut entries = String::new();
    for (i, (name, kernel)) in kernels.iter().enumerate() {
        section(&mut text, &format!("lz_shared_{i}"));
        _ = writeln!(text, "#line 1 \"{name}\"\n{}", dynamic_shared(kernel));
        _ = writeln!(
            table,
            "extern \"C\" unsigned char __start_lz_shared_{i}[] __attribute__((weak)), __stop_lz_shared_{i}[] \
             __attribute__((weak));\nstatic void call_{i}(void** a) {{ lz_shim_call({name}, a); }}"
        );
        _ = writeln!(entries, "{{\"{name}\", call_{i}, __start_lz_shared_{i}, __stop_lz_shared_{i}}},");
    }
    _ = writeln!(text, "{table}const lz_shim_kernel lz_shim_kernels[] = {{\n{entries}}};");
    text
}

/// From here on static shared variables lie in a section of this name, which the host fills before each block.
fn section(text: &mut String, name: &str) {
    _ = writeln!(text, "#undef __shared__\n#define __shared__ static __attribute__((section(\"{name}\")))");
}

/// Dynamic shared memory is a pointer to what the host has: `extern __shared__ float x[];` becomes `float* const x = ...;`.
fn dynamic_shared(kernel: &str) -> String {
    let mut parts = kernel.split("extern __shared__ ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (declaration, rest) = part.split_once(';').unwrap_or((part, ""));
        let declarator = declaration.trim().trim_end_matches("[]").trim_end();
        let (ty, name) = declarator.rsplit_once(' ').unwrap_or(("", declarator));
        // An alignment is the array's; the host's memory has it.
        let ty = ty.split_once("__align__(").and_then(|(_, t)| t.split_once(") ")).map_or(ty, |(_, t)| t);
        _ = write!(text, "{ty}* const {name} = ({ty}*)lz_shim_dynamic();{rest}");
    }
    text
}
