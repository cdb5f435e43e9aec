//! Devices, as users name them.

use crate::Result;
use std::fmt;

/// Where a tensor lives and a compiled program runs.
///
/// ```no_run
/// use lazuli::prelude::*;
/// let gpu = Device::cuda(0)?;
/// let x = Tensor::randn([1000, 1000]).to(gpu);
/// println!("{}", x.matmul(&x).mean(..).item::<f32>()?);
/// # Ok::<(), lazuli::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Device {
    /// The processor this program runs on.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, counted from 0; [`Device::cuda`] checks that it is there.
    Cuda(usize),
}

impl Device {
    /// The NVIDIA GPU of this number, counted from 0, ready to be used.
    ///
    /// # Errors
    /// There is no driver, or it is too old; there is no such GPU; there is no NVRTC: the error says what to install. See
    /// [`cuda::is_available`](crate::cuda::is_available).
    pub fn cuda(ordinal: usize) -> Result<Device> {
        lazuli_runtime::device::open(lazuli_ir::Device::Cuda(ordinal))?;
        Ok(Device::Cuda(ordinal))
    }
}

impl fmt::Display for Device {
    /// `cpu`, or `cuda:0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lazuli_ir::Device::from(*self).fmt(f)
    }
}

impl From<Device> for lazuli_ir::Device {
    fn from(device: Device) -> lazuli_ir::Device {
        match device {
            Device::Cpu => lazuli_ir::Device::Cpu,
            Device::Cuda(ordinal) => lazuli_ir::Device::Cuda(ordinal),
        }
    }
}

impl From<lazuli_ir::Device> for Device {
    fn from(device: lazuli_ir::Device) -> Device {
        match device {
            lazuli_ir::Device::Cpu => Device::Cpu,
            lazuli_ir::Device::Cuda(ordinal) => Device::Cuda(ordinal),
        }
    }
}
