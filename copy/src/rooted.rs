//! The root of a container as a descriptor, and paths resolved beneath it by the kernel.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Error, There};

/// A container's root directory, held open.
#[derive(Debug)]
pub struct Rootfs {
    fd: OwnedFd,
}

impl Rootfs {
    /// A root that is open already, by `O_PATH` at least.
    pub fn of_fd(fd: OwnedFd) -> Rootfs {
        Rootfs { fd }
    }

    /// A root that is a directory on this host.
    pub fn of_directory(path: &Path) -> Result<Rootfs, Error> {
        let fd = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Error::Open {
            path: path.to_owned(),
            source: e.into(),
        })?;
        Ok(Rootfs { fd })
    }

    /// The directory itself.
    pub fn as_dir(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What is at `path` inside the root, symlinks followed.
    ///
    /// # Errors
    ///
    /// The errno of the walk there.
    pub fn look(&self, path: &Path) -> Result<There, Error> {
        match resolve_in_root(self.fd.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => Ok(There::Directory),
            Err(Errno::NOTDIR) => Ok(There::Other),
            Err(Errno::NOENT) => Ok(There::Nothing),
            Err(e) => Err(open_error(path, e)),
        }
    }

    /// Resolves `path` inside the root; symlinks, the last one too when `follow`, lead nowhere else.
    pub(super) fn resolve(&self, path: &Path, follow: bool) -> rustix::io::Result<OwnedFd> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        resolve_in_root(self.fd.as_fd(), path, flags)
    }
}

/// `openat2` with the container's root as `/`. Magic links are refused as well: `/proc/1/root` in a container would be a
/// way around.
pub(super) fn resolve_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    berth_sys::open_beneath::open_in_root(root, path, flags, Mode::empty())
}

/// Opens the directory `path` inside `root`; none if nothing or no directory is there.
pub fn open_dir_beneath(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Error> {
    match resolve_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(Error::Open {
            path: path.to_owned(),
            source: e.into(),
        }),
    }
}

/// Splits a path into its parent and last name; none for `/`, `.` and what ends in `..`, which have no name of their own.
pub(super) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let name = path.file_name()?;
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Some((parent, name))
}

/// An error about `path`.
pub(super) fn open_error(path: &Path, e: Errno) -> Error {
    Error::Open {
        path: path.to_owned(),
        source: io::Error::from(e),
    }
}
