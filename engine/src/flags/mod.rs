//! The values docker's flags take, parsed once into types that cannot hold nonsense.

mod device;
mod health;
mod isolation;
mod mount;
mod namespace;
mod restart;
mod security;
mod signal;
mod size;
mod ulimit;
mod user;

pub use device::{DeviceCgroupRule, DeviceMapping};
pub use health::Healthcheck;
pub use isolation::Isolation;
pub use mount::{MountKind, MountSpec, Propagation, parse_tmpfs, parse_volume};
pub use namespace::{CgroupnsMode, IpcMode, NetworkMode, PidMode, UsernsMode, UtsMode};
pub use restart::RestartPolicy;
pub use security::{Seccomp, SecurityOpt};
pub use signal::Signal;
pub use size::{Cpus, MemorySize, MemorySwap};
pub use ulimit::Ulimit;
pub use user::UserSpec;

/// A flag's value that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: {why}")]
pub struct InvalidFlag {
    /// What the value was meant to be, such as `memory size`.
    pub what: &'static str,
    /// The value as given, shortened.
    pub value: String,
    /// The reason.
    pub why: String,
}

impl InvalidFlag {
    pub(crate) fn new(what: &'static str, value: &str, why: impl Into<String>) -> Self {
        InvalidFlag {
            what,
            value: value.chars().take(200).collect(),
            why: why.into(),
        }
    }
}
