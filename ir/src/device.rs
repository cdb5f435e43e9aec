//! Where a tensor lives and a program runs.

use std::fmt;

/// Where a tensor lives and a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
        Device::split(name, ':')
    }

    /// Its name as a word of graphs, where a colon stands before types: `cuda.0`.
    pub(crate) fn word(self) -> String {
        self.to_string().replace(':', ".")
    }

    /// The device of such a word.
    pub(crate) fn of_word(word: &str) -> Option<Device> {
        Device::split(word, '.')
    }

    fn split(name: &str, separator: char) -> Option<Device> {
        match name.split_once(separator) {
            Some(("cuda", ordinal)) => ordinal.parse().ok().map(Device::Cuda),
            Some(_) => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Graph;

    #[test]
    fn names_parse_back() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(17)] {
            assert_eq!(Device::parse(&device.to_string()), Some(device));
        }
        for wrong in ["", "cuda", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "gpu:0"] {
            assert_eq!(Device::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moves_parse_back() {
        let text = "graph move(%x: f32[2]) -> (%1) {\n  %1 = to_device %x from=cpu to=cuda.1 : f32[2]\n}\n";
        let graph = Graph::parse(text).unwrap();
        assert_eq!(graph.to_string(), text);
        assert!(Graph::parse(&text.replace("cuda.1", "cuda")).is_err());
        assert!(Graph::parse(&text.replace(" to=cuda.1", "")).is_err());
    }
}
