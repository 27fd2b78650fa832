//! Disks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Id, Named, RateLimiter};

/// A disk of the guest's: a file or a block device of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Its name in the API.
    pub drive_id: Id,
    /// Its contents.
    pub path_on_host: PathBuf,
    /// Whether the guest starts from it. There is one at most, it is the first disk, and the command line names it.
    pub is_root_device: bool,
    /// The partition on it that holds the root file system; the command line names that instead.
    pub partuuid: Option<String>,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub is_read_only: bool,
    /// What a flush does.
    #[serde(default)]
    pub cache_type: CacheType,
    /// How much it may do.
    pub rate_limiter: Option<RateLimiter>,
    /// How it reads and writes.
    #[serde(default)]
    pub io_engine: IoEngine,
    /// A vhost-user back end instead of a file.
    pub socket: Option<PathBuf>,
}

/// What the guest's flush does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// Nothing: the guest is told that there is none, and data is safe when the host's kernel has written it.
    #[default]
    Unsafe,
    /// Waits for the data to be on the host's disk.
    Writeback,
}

/// How a disk reads and writes its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoEngine {
    /// One request after the other, with system calls that wait.
    #[default]
    Sync,
    /// Many at once, with io_uring.
    Async,
}

/// What can be changed of a disk while the guest runs. What is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveChange {
    /// Which disk.
    pub drive_id: Id,
    /// New contents.
    pub path_on_host: Option<PathBuf>,
    /// New limits.
    pub rate_limiter: Option<RateLimiter>,
}

impl Named for Drive {
    fn id(&self) -> &Id {
        &self.drive_id
    }
}

impl Named for DriveChange {
    fn id(&self) -> &Id {
        &self.drive_id
    }
}
