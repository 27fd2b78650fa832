//! flocks of the network.
//!
//! `STATE/networks/.lock` is held shared through each attach and detach, and exclusively for the few moments that add or
//! remove what all share: the nftables tables, a bridge that nobody uses. `STATE/networks/<name>/lock` is held
//! exclusively while addresses of that network are handed out. `STATE/networks/.closer` is held by the one process that
//! waits for idle networks to be closed.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::{Error, Result};
use super::model::Paths;

/// A held flock; dropping it lets go, as does the death of the process.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// The whole network, among others who use it.
    pub(super) fn shared(paths: &Paths) -> Result<Self> {
        Self::take(&paths.networks().join(".lock"), FlockOperation::LockShared)
    }

    /// The whole network, alone.
    pub(super) fn exclusive(paths: &Paths) -> Result<Self> {
        Self::take(&paths.networks().join(".lock"), FlockOperation::LockExclusive)
    }

    /// The right to close idle networks; `None` when somebody has it, or STATE is gone.
    pub(super) fn closer(paths: &Paths) -> Result<Option<Self>> {
        let path = paths.networks().join(".closer");
        let file = match File::options().create(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("open", path)(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::file("lock", path)(errno.into())),
        }
    }

    /// Is this lock's file still the one at [`Lock::closer`]'s path? `None` when nothing is there.
    pub(super) fn is_closer_of(&self, paths: &Paths) -> Option<bool> {
        let there = fs::metadata(paths.networks().join(".closer")).ok()?;
        let ours = self.file.metadata().ok()?;
        Some((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }

    /// One network's addresses.
    pub(super) fn network(paths: &Paths, name: &str) -> Result<Self> {
        Self::take(&paths.network(name).join("lock"), FlockOperation::LockExclusive)
    }

    /// Network definitions.
    pub(super) fn definitions(paths: &Paths) -> Result<Self> {
        Self::take(&paths.definitions().join(".lock"), FlockOperation::LockExclusive)
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(path);
        let file = match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(path);
                fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
                open()
            }
            other => other,
        }
        .map_err(Error::file("open", path))?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Self { file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::file("lock", path)(errno.into())),
            }
        }
    }
}
