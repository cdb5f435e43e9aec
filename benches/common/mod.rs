//! What benchmarks share: arguments of the command line, processors, times.

use lazuli::Result;
use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The arguments `--name value` of a benchmark.
pub struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// Those of this process, whose names are among `known`.
    pub fn read(known: &[&str]) -> std::result::Result<Arguments, String> {
        let mut given = Vec::new();
        // Cargo adds flags of its own.
        let mut rest = std::env::args().skip(1).filter(|a| a != "--bench" && a != "--test");
        while let Some(name) = rest.next() {
            let own = name.strip_prefix("--").filter(|n| known.contains(n));
            let own = own.ok_or_else(|| format!("{name} is unknown; there are --{}", known.join(", --")))?.to_owned();
            let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
            given.push((own, value));
        }
        Ok(Arguments(given))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The number given, or else the default.
    pub fn number<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> std::result::Result<T, String> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|e| format!("--{name} takes a number, not `{text}`: {e}"))
    }

    /// The names given, separated by commas, or else the default.
    pub fn list(&self, name: &str, default: &[&str]) -> Vec<String> {
        match self.text(name) {
            Some(text) => text.split(',').map(str::to_owned).collect(),
            None => default.iter().map(|&s| s.to_owned()).collect(),
        }
    }
}

/// The threads that the process may use.
pub fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Runs kernels on so many threads, and keeps this process on as many processors, its first: peers are measured in the same way.
#[allow(dead_code, reason = "not every benchmark asks for threads")]
pub fn use_threads(threads: usize) -> std::io::Result<()> {
    lazuli::set_num_threads(threads);
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let allowed = sched_getaffinity(None)?;
        let mut chosen = CpuSet::new();
        (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(threads).for_each(|cpu| chosen.set(cpu));
        sched_setaffinity(None, &chosen)?;
    }
    Ok(())
}

/// The times of runs, in order of length.
pub struct Times(Vec<Duration>);

impl Times {
    /// Runs again and again for so long, at least five times, after three runs that do not count.
    pub fn measure<T>(seconds: f64, mut run: impl FnMut() -> Result<T>) -> Result<Times> {
        for _ in 0..3 {
            let _ = run()?;
        }
        let (mut times, end) = (Vec::new(), Instant::now() + Duration::from_secs_f64(seconds));
        while times.len() < 5 || Instant::now() < end {
            let start = Instant::now();
            let _ = run()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(Times(times))
    }

    /// How many there are.
    #[allow(dead_code, reason = "not every benchmark says it")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The median, in seconds.
    pub fn median(&self) -> f64 {
        let (n, times) = (self.0.len(), &self.0);
        (times[(n - 1) / 2] + times[n / 2]).as_secs_f64() / 2.0
    }

    /// The shortest, in seconds.
    pub fn least(&self) -> f64 {
        self.0[0].as_secs_f64()
    }
}
