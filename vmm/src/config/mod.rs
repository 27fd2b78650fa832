//! What a user may ask for, in the words of Firecracker's configuration file and API, and its checks.
//!
//! ```text
//! JSON file ──────────── serde ─► Settings ─ change, check ─► Settings ─ complete ─► Config, which boots or fails for
//! body of an API request ─ serde ─► Drive, … ──┘                                      reasons of the host alone
//! ```
//!
//! Each thing is one type, in the file as in the API; values that can be wrong on their own ([`Id`], [`MacAddress`]) are
//! checked as they are read, and what depends on something else in [`Settings`].

mod balloon;
mod boot_source;
mod cpu;
mod drive;
mod entropy;
mod id;
mod logger;
mod machine;
mod metrics;
mod network;
mod rate_limiter;
mod settings;
mod shared_directory;
mod snapshot;
mod vsock;

use std::path::{Path, PathBuf};

pub use balloon::{Balloon, BalloonChange, BalloonStatisticsChange};
pub use boot_source::{BootSource, DEFAULT_CMDLINE};
pub use cpu::{
    Bitmap, CpuConfig, CpuidModifier, CpuidRegister, CpuidRegisterModifier, KvmCapability, MsrModifier,
    Number,
};
pub use drive::{CacheType, Drive, DriveChange, IoEngine};
pub use entropy::Entropy;
pub use id::{Id, Named, NoId};
pub use logger::{Level, Logger};
pub use machine::{CpuTemplate, HugePages, MachineConfig, VCPUS_MAX};
pub use metrics::Metrics;
pub use network::{MacAddress, NetworkInterface, NetworkInterfaceChange};
pub use rate_limiter::{RateLimiter, TokenBucket};
pub use settings::Settings;
pub use shared_directory::SharedDirectory;
pub use snapshot::{
    MemoryBackend, MemoryBackendType, NetworkOverride, SnapshotCreate, SnapshotLoad, SnapshotType,
    VsockOverride,
};
pub use vsock::Vsock;

use crate::error::Result;

/// A complete and checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// vmlinux or bzImage.
    pub kernel: PathBuf,
    /// A cpio archive, compressed as the kernel likes it.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line, with where its root file system is.
    pub cmdline: String,
    /// 1 to [`VCPUS_MAX`].
    pub vcpus: u8,
    /// Guest memory, in MiB.
    pub memory_mib: u32,
    /// What the processors say of themselves otherwise than the host's.
    pub cpu: CpuConfig,
    /// Disks, the root device first.
    pub drives: Vec<Drive>,
    /// Network interfaces; each TAP and each address is there once.
    pub network_interfaces: Vec<NetworkInterface>,
    /// Directories of the host's; each tag is there once.
    pub shared_directories: Vec<SharedDirectory>,
    /// Sockets between host and guest.
    pub vsock: Option<Vsock>,
    /// A memory balloon, no larger than the memory.
    pub balloon: Option<Balloon>,
    /// A source of random numbers.
    pub entropy: Option<Entropy>,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::read`] and [`Settings::complete`].
    pub fn read(path: &Path) -> Result<Config> {
        Settings::read(path)?.complete()
    }
}
