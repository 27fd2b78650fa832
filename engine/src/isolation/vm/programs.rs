//! What a microVM is made of on this host: the monitor, a kernel, and the initial file system with the guest's PID 1.
//!
//! Found by whoever starts the container, for the shim runs from a sealed copy of itself and has no environment: it is told
//! in three variables.

use std::path::PathBuf;
use std::process::Command;

use crate::error::{At, Error, Result};

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
    /// `BERTH_VMM`, or the file `berth-vmm` beside the running program.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub(crate) fn monitor() -> Result<PathBuf> {
        let path = match std::env::var_os(MONITOR) {
            Some(path) => path.into(),
            None => std::env::current_exe()
                .at("read", "/proc/self/exe")?
                .with_file_name("berth-vmm"),
        };
        std::fs::metadata(&path).at("find the microVM monitor", &path)?;
        Ok(path)
    }

    /// All three.
    pub(crate) fn find() -> Result<Programs> {
        let told = |name: &'static str| {
            std::env::var_os(name).map(PathBuf::from).ok_or(Error::Invalid {
                what: "environment".into(),
                why: format!("{name} is not set"),
            })
        };
        Ok(Programs {
            monitor: Programs::monitor()?,
            kernel: told(KERNEL)?,
            initramfs: told(INITRAMFS)?,
        })
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
