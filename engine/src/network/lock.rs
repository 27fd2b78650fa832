//! flocks of the network.
//!
//! `STATE/networks/.lock` is held shared through each attach and detach, and exclusively for the few moments that add or
//! remove what all share: the nftables tables, a bridge that nobody uses. `STATE/networks/<name>/lock` is held
//! exclusively while addresses of that network are handed out.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::{Error, Result};
use super::model::Paths;

/// A held flock; dropping it lets go, as does the death of the process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
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
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::file("lock", path)(errno.into())),
            }
        }
    }
}
