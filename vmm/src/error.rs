//! The monitor's errors: what was attempted, on what; the source says why.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::keeper::End;
use crate::{loader, snapshot};

/// Short for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Texts do not repeat their source: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file named by the configuration cannot be read.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not what it should be.
    #[error("configuration file {}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value of the configuration cannot be.
    #[error("{field}: {why}")]
    Invalid {
        /// Which one, as the file spells it.
        field: &'static str,
        /// Why not.
        why: String,
    },
    /// Something this monitor does not do.
    #[error("not supported: {what}: {why}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// `/dev/kvm` cannot be used.
    #[error("cannot open /dev/kvm (is this a machine with virtualization, and may this user use it?)")]
    NoKvm(#[source] io::Error),
    /// KVM lacks something a microVM needs.
    #[error("this host's KVM lacks {0}")]
    Lacking(&'static str),
    /// The CPU template asks for something this host's KVM does not do.
    #[error("cpu-config: this host's KVM lacks {0}")]
    Template(String),
    /// A snapshot's machine cannot go on here.
    #[error("this host's KVM cannot restore {0}")]
    Restore(String),
    /// A file of a snapshot is refused.
    #[error("snapshot file {}", path.display())]
    Snapshot {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: snapshot::Error,
    },
    /// A KVM call failed.
    #[error("cannot {operation}")]
    Kvm {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Guest memory cannot be had.
    #[error("cannot map {mib} MiB of guest memory")]
    Memory {
        /// How much, in MiB.
        mib: u32,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something of ours does not fit where the guest expects it.
    #[error("cannot write {what} to guest memory")]
    Write {
        /// What.
        what: &'static str,
        /// Why.
        source: vm_memory::GuestMemoryError,
    },
    /// The kernel or the initial file system is refused.
    #[error("kernel {}", path.display())]
    Kernel {
        /// The image.
        path: PathBuf,
        /// Why.
        source: loader::Error,
    },
    /// The initial file system is refused.
    #[error("initrd {}", path.display())]
    Initrd {
        /// The image.
        path: PathBuf,
        /// Why.
        source: loader::Error,
    },
    /// The API cannot be served.
    #[error("cannot serve the API at {} (is another microVM using it?)", path.display())]
    Api {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The host's side of a disk is refused.
    #[error("drive {id}: {}", path.display())]
    Drive {
        /// Its name in the configuration.
        id: String,
        /// The file or block device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host's side of a network interface is refused.
    #[error("network interface {id}: TAP {tap}")]
    NetworkInterface {
        /// Its name in the configuration.
        id: String,
        /// The TAP's.
        tap: String,
        /// Why.
        source: io::Error,
    },
    /// A directory cannot be shared.
    #[error("shared directory {tag}: {}", path.display())]
    SharedDirectory {
        /// Its tag in the configuration.
        tag: String,
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host's side of vsock cannot listen.
    #[error("cannot listen for vsock on {} (is another microVM using it?)", path.display())]
    Vsock {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process could not be confined to its jail.
    #[error("cannot {operation} (the jail needs root and CAP_SYS_ADMIN; --no-jail does without)")]
    Jail {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The machine gets no cgroup.
    #[error("cannot give the machine a cgroup (--no-jail does without)")]
    Cgroup(#[from] berth_cgroups::Error),
    /// The machine's process ended before the machine ran.
    #[error("{}", .why.as_deref().unwrap_or("the machine's process ended before it ran"))]
    Machine {
        /// What it said, its causes included.
        why: Option<String>,
        /// How it ended.
        end: End,
    },
    /// The process was told to end while it started the machine.
    #[error("ended by signal {0}")]
    Stopped(i32),
    /// The event loop or a thread of it failed.
    #[error("cannot {operation}")]
    Events {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The whole chain of causes in one line.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// The status of a process that ends with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Error::Syntax { .. } | Error::Invalid { .. } | Error::Unsupported { .. } => {
                Exit::BadConfiguration
            }
            Error::Machine {
                end: End::Status(status),
                ..
            } => Exit::of(*status).unwrap_or(Exit::Failed),
            _ => Exit::Failed,
        }
    }

    pub(crate) fn kvm(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
        move |errno| Error::Kvm {
            operation,
            source: io::Error::from_raw_os_error(errno.errno()),
        }
    }

    pub(crate) fn write(what: &'static str) -> impl FnOnce(vm_memory::GuestMemoryError) -> Error {
        move |source| Error::Write { what, source }
    }
}
