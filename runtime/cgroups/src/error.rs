//! What can go wrong with a cgroup, and what the operator can do about it.

use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed cgroup operation. `Display` names operation and object; the cause is the `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither cgroup v1 controllers nor a v2 tree is mounted where this process can see it.
    #[error("no cgroup hierarchy is mounted at /sys/fs/cgroup")]
    NoHierarchy,
    /// A directory that should be a cgroup lies on another file system: writes to it would be swallowed.
    #[error("{} is not on a cgroup file system", path.display())]
    NotCgroupfs {
        /// The directory.
        path: PathBuf,
    },
    /// The cgroups path is not one this crate will create or open.
    #[error("cgroups path {path:?} {reason}")]
    Path {
        /// As given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A cgroup directory could not be created.
    #[error("cannot create cgroup {}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// From `mkdir(2)` or the check afterwards.
        source: io::Error,
    },
    /// The cgroup exists and somebody is in it, or below it.
    #[error("cgroup {} is in use by {processes} process(es) and {children} child cgroup(s)", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Processes in it.
        processes: usize,
        /// Cgroups directly below it.
        children: usize,
    },
    /// A cgroup directory could not be opened.
    #[error("cannot open cgroup {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// From `openat2(2)`.
        source: io::Error,
    },
    /// A control file could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The control file.
        file: PathBuf,
        /// From `open(2)` or `read(2)`.
        source: io::Error,
    },
    /// A control file holds something this crate does not understand.
    #[error("unexpected content {text:?} in {}", file.display())]
    Parse {
        /// The control file.
        file: PathBuf,
        /// The offending part.
        text: String,
    },
    /// A control file refused a value.
    #[error("{}cannot write {value:?} to {}", setting.map_or_else(String::new, |field| format!("cannot set {field}: ")), file.display())]
    Write {
        /// Field of `linux.resources`, if one asked for it.
        setting: Option<&'static str>,
        /// The control file.
        file: PathBuf,
        /// The value.
        value: String,
        /// From `open(2)` or `write(2)`.
        source: io::Error,
    },
    /// A resource was asked for whose controller this cgroup does not have.
    #[error("cannot set {setting}: cgroup {} has no {controller} controller", path.display())]
    NoController {
        /// Field of `linux.resources`.
        setting: &'static str,
        /// Controller that would carry it.
        controller: &'static str,
        /// The cgroup.
        path: PathBuf,
    },
    /// A resource was asked for that this kernel or hierarchy cannot provide.
    #[error("cannot set {setting}: {reason}")]
    Unsupported {
        /// Field of `linux.resources`.
        setting: &'static str,
        /// Why not.
        reason: String,
    },
    /// A value of `linux.resources` is invalid whatever the kernel.
    #[error("invalid {setting} {value:?}: {reason}")]
    Invalid {
        /// Field of `linux.resources`.
        setting: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A memory limit below what the cgroup already uses.
    #[error("memory limit {limit} of cgroup {} is below its usage of {usage} bytes", path.display())]
    LimitBelowUsage {
        /// The cgroup.
        path: PathBuf,
        /// Bytes asked for.
        limit: i64,
        /// Bytes in use.
        usage: u64,
    },
    /// A process could not be moved in.
    #[error("cannot move process {pid} into cgroup {}", path.display())]
    Enter {
        /// The process.
        pid: i32,
        /// The cgroup.
        path: PathBuf,
        /// From `write(2)`.
        source: io::Error,
    },
    /// The freezer did not reach the state asked for; it has been thawed again.
    #[error("cgroup {} did not freeze within {waited_ms} ms", path.display())]
    Freeze {
        /// The cgroup.
        path: PathBuf,
        /// How long was waited.
        waited_ms: u64,
    },
    /// A process could not be signalled.
    #[error("cannot kill process {pid} of cgroup {}", path.display())]
    Kill {
        /// The process.
        pid: i32,
        /// The cgroup.
        path: PathBuf,
        /// From `kill(2)`.
        source: io::Error,
    },
    /// Processes outlived SIGKILL for longer than was waited.
    #[error("cgroup {} still holds process(es) {pids:?}", path.display())]
    Busy {
        /// The cgroup.
        path: PathBuf,
        /// Who is left (possibly in uninterruptible sleep).
        pids: Vec<i32>,
    },
    /// A cgroup directory could not be removed.
    #[error("cannot remove cgroup {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// From `rmdir(2)`.
        source: io::Error,
    },
    /// The device filter of a v2 cgroup could not be loaded, found or attached.
    #[error("cannot {operation} the device filter of cgroup {}", path.display())]
    DeviceFilter {
        /// `load`, `query`, `attach`…
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// From `bpf(2)`.
        source: io::Error,
    },
}

impl Error {
    /// What the operator can do, for a `hint:` line after the error. `None` when the message says it all.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoHierarchy => Some("mount cgroup2 at /sys/fs/cgroup"),
            Self::Create { source, .. } | Self::Write { source, .. } | Self::Enter { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM)) =>
            {
                Some("run as root, or have the cgroup delegated to this user (systemd: Delegate=yes)")
            }
            Self::Create { source, .. } | Self::Write { source, .. }
                if source.raw_os_error() == Some(libc::EROFS) =>
            {
                Some("the cgroup file system is mounted read-only here")
            }
            Self::NoController { .. } => Some(
                "the controller must be enabled in cgroup.subtree_control of every parent, and no parent may hold processes",
            ),
            Self::InUse { .. } => Some("choose another linux.cgroupsPath, or stop what runs in it"),
            Self::Write { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => {
                Some("a parent cgroup allows less than was asked for")
            }
            _ => None,
        }
    }
}
