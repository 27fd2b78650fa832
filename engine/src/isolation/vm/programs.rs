//! What a microVM is made of on this host: the monitor, a kernel, and the initial file system with the guest's PID 1.
//!
//! Found by whoever starts the container, for the shim runs from a sealed copy of itself and has no environment: it is told
//! in three variables.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{At, Error, Result};
use crate::kernel::{Kernel, Kernels, guest_program};
use crate::programs;

/// Files of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    /// `berth-vmm`.
    pub(crate) monitor: PathBuf,
    /// A bzImage or vmlinux.
    pub(crate) kernel: PathBuf,
    /// Modules for that kernel, and `berth-guest` as `/init`.
    pub(crate) initramfs: PathBuf,
}

const MONITOR: &str = "BERTH_VMM";
const KERNEL: &str = "BERTH_VM_KERNEL";
const INITRAMFS: &str = "BERTH_VM_INITRAMFS";

impl Programs {
    /// The default kernel of `root`, its initramfs for `berth-guest`, and `berth-vmm`; both programs are looked for beside the
    /// running one, or where `BERTH_GUEST` and `BERTH_VMM` say. Blocks while an initramfs is made. The kernel is held
    /// against removal as long as the second value lives.
    ///
    /// # Errors
    ///
    /// Those of [`Kernels::default`] and [`Kernel::initramfs`]; when there is no `berth-vmm`.
    pub(crate) fn find(root: &Path) -> Result<(Programs, Kernel)> {
        let monitor = programs::beside(MONITOR, "berth-vmm").at("read", "/proc/self/exe")?;
        std::fs::metadata(&monitor).at("find the microVM monitor", &monitor)?;
        let kernel = Kernels::new(root).default()?;
        let programs = Programs {
            monitor,
            kernel: kernel.image(),
            initramfs: kernel.initramfs(&guest_program()?)?,
        };
        Ok((programs, kernel))
    }

    /// Tells a shim.
    pub(crate) fn hand_over(&self, shim: &mut Command) {
        shim.env(MONITOR, &self.monitor)
            .env(KERNEL, &self.kernel)
            .env(INITRAMFS, &self.initramfs);
    }

    /// What a shim was told.
    pub(crate) fn inherited() -> Result<Programs> {
        let told = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .ok_or_else(|| Error::Invalid {
                    what: "environment of berth-shim".into(),
                    why: format!("{name} is not set"),
                })
        };
        Ok(Programs {
            monitor: told(MONITOR)?,
            kernel: told(KERNEL)?,
            initramfs: told(INITRAMFS)?,
        })
    }
}
