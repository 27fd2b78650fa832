//! A layer under its private name: unpacked or being unpacked, not yet visible.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};

use super::store::store_error;
use crate::digest::Digest;
use crate::layer::{Applied, Error, Result, tree};

/// An unpacked layer waiting for [`super::Store::commit`]. Dropping it removes its private directory.
#[derive(Debug)]
pub struct Pending {
    pub(super) dir: Private,
    pub(super) diff_id: Digest,
    pub(super) applied: Applied,
    /// Bytes of the uncompressed tar stream.
    pub(super) tar_bytes: u64,
}

impl Pending {
    /// The digest of the uncompressed stream that was received.
    #[must_use]
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// How many tar entries the layer had.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.applied.entries
    }

    /// The unpacked tree, in overlayfs upper-dir form.
    #[must_use]
    pub fn fs(&self) -> PathBuf {
        self.dir.path().join("fs")
    }
}

/// A directory `layers/.new-<random>` with its lock, removed on drop unless it was renamed away.
#[derive(Debug)]
pub(crate) struct Private {
    parent: Arc<OwnedFd>,
    parent_path: PathBuf,
    name: OsString,
    fd: OwnedFd,
    kept: bool,
}

impl Private {
    /// Makes a locked private directory holding an empty `fs`.
    pub(super) fn new(parent: &Arc<OwnedFd>, parent_path: &Path) -> Result<Self> {
        let at = |operation, path: &Path| {
            let path = path.to_owned();
            move |e: rustix::io::Errno| store_error(operation, path, e)
        };
        loop {
            let name = random_name(".new-")?;
            let path = parent_path.join(&name);
            match fs::mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
                Err(rustix::io::Errno::EXIST) => continue,
                other => other.map_err(at("create directory", &path))?,
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match fs::openat(parent, &name, flags, Mode::empty()) {
                Ok(fd) => fd,
                // A sweep took it for the leftovers of a dead process: it had no lock yet.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(e) => return Err(at("open directory", &path)(e)),
            };
            if fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err()
                || !still_named(parent, &name, &fd)
            {
                continue;
            }
            let private = Self {
                parent: parent.clone(),
                parent_path: parent_path.to_owned(),
                name,
                fd,
                kept: false,
            };
            fs::mkdirat(&private.fd, "fs", Mode::from_raw_mode(0o755))
                .map_err(at("create directory", &path))?;
            // The umask may have taken bits; a container's / must be searchable by its users.
            fs::chmodat(&private.fd, "fs", Mode::from_raw_mode(0o755), AtFlags::empty())
                .map_err(at("change mode of", &path))?;
            return Ok(private);
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.parent_path.join(&self.name)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn open_fs(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.fd, "fs", flags, Mode::empty())
            .map_err(|e| store_error("open directory", self.path().join("fs"), e))
    }

    /// Renames to the final name. Gives the directory back when the name is taken.
    pub(super) fn publish(mut self, name: &str) -> Result<Option<Self>> {
        match fs::renameat_with(
            &*self.parent,
            &self.name,
            &*self.parent,
            name,
            fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {
                self.kept = true;
                Ok(None)
            }
            Err(rustix::io::Errno::EXIST) => Ok(Some(self)),
            Err(e) => Err(store_error("rename layer to", self.parent_path.join(name), e)),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody to tell: what stays is taken by the next sweep.
            let _ = tree::remove(self.parent.as_fd(), Path::new(&self.name));
        }
    }
}

/// Whether `name` in `parent` is still the directory that `fd` holds.
pub(super) fn still_named(parent: &OwnedFd, name: impl rustix::path::Arg, fd: &OwnedFd) -> bool {
    match (fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW), fs::fstat(fd)) {
        (Ok(a), Ok(b)) => a.st_dev == b.st_dev && a.st_ino == b.st_ino,
        _ => false,
    }
}

/// `prefix` and 16 random hexadecimal digits.
pub(super) fn random_name(prefix: &str) -> Result<OsString> {
    tree::random_name(prefix).map_err(|source| Error::Store {
        operation: "get random bytes for",
        path: PathBuf::from(prefix),
        source,
    })
}
