//! Where a tensor lives and a program runs.

use std::fmt;

/// Where a tensor lives and a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Device {
    /// The processor this program runs on.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, counted from 0.
    Cuda(usize),
}

impl Device {
    /// The device of a name: `cpu`, or `cuda:0`.
    pub fn parse(name: &str) -> Option<Device> {
        match name.strip_prefix("cuda:") {
            Some(ordinal) => ordinal.parse().ok().map(Device::Cuda),
            None => (name == "cpu").then_some(Device::Cpu),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}
