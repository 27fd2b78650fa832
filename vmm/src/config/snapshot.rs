//! Where a machine's state goes, and where it comes from.

use std::path::PathBuf;

use serde::Deserialize;

use super::Id;

/// Writes the state of a paused machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// A file for all but the memory.
    pub snapshot_path: PathBuf,
    /// A file for the memory.
    pub mem_file_path: PathBuf,
    /// How much of the memory.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
}

/// How much of the memory a snapshot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum SnapshotType {
    /// All of it.
    #[default]
    Full,
    /// What was written since the last.
    Diff,
}

/// Makes a machine from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotLoad {
    /// The file with all but the memory.
    pub snapshot_path: PathBuf,
    /// The file with the memory; the old way to say it.
    pub mem_file_path: Option<PathBuf>,
    /// Where the memory comes from.
    pub mem_backend: Option<MemoryBackend>,
    /// The old name of `track_dirty_pages`.
    #[serde(default)]
    pub enable_diff_snapshots: bool,
    /// Keep track of written pages.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Run at once.
    #[serde(default)]
    pub resume_vm: bool,
    /// Interfaces that get another TAP.
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another path for the vsock device's sockets.
    pub vsock_override: Option<VsockOverride>,
    /// The guest's clock goes on as if the machine had run meanwhile.
    #[serde(default)]
    pub clock_realtime: bool,
}

impl SnapshotLoad {
    /// Where the memory comes from, however it was said.
    ///
    /// # Errors
    ///
    /// A sentence when it was said twice or not at all.
    pub fn memory(&self) -> Result<MemoryBackend, &'static str> {
        match (&self.mem_backend, &self.mem_file_path) {
            (Some(backend), None) => Ok(backend.clone()),
            (None, Some(path)) => Ok(MemoryBackend {
                backend_type: MemoryBackendType::File,
                backend_path: path.clone(),
            }),
            // Firecracker's words, which clients look for.
            (None, None) => Err("missing field: either `mem_backend` or `mem_file_path` is required"),
            (Some(_), Some(_)) => {
                Err("too many fields: either `mem_backend` or `mem_file_path` exclusively is required")
            }
        }
    }
}

/// Where a machine's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryBackend {
    /// What is at the path.
    pub backend_type: MemoryBackendType,
    /// The file, or the socket.
    pub backend_path: PathBuf,
}

/// What gives a machine its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MemoryBackendType {
    /// A file that is mapped.
    File,
    /// A process behind a socket that brings pages as they are touched (userfaultfd(2)).
    Uffd,
}

/// Another TAP for an interface of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    /// Which interface.
    pub iface_id: Id,
    /// Its TAP from now on.
    pub host_dev_name: String,
}

/// Another path for the vsock device of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    /// Its socket from now on.
    pub uds_path: PathBuf,
}
