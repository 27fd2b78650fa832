//! Network namespaces: made, pinned in the file system, visited, removed.
#![allow(unsafe_code)] // unshare(2), which rustix marks unsafe for the flags we do not use

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::error::{Error, Result};

const OWN: &str = "/proc/thread-self/ns/net";

/// The calling thread is in another network namespace until this is dropped.
pub(super) struct Visit {
    home: OwnedFd,
}

impl Visit {
    /// Enters an existing namespace.
    pub(super) fn enter(netns: &Path) -> Result<Self> {
        let failed = |source| Error::Netns {
            operation: "enter",
            path: netns.into(),
            source,
        };
        let home = File::open(OWN).map_err(failed)?.into();
        let target = File::open(netns).map_err(failed)?;
        move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| failed(errno.into()))?;
        Ok(Self { home })
    }

    /// Makes a namespace, pins it at `path` and stays in it.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let failed = |source: io::Error| Error::Netns {
            operation: "create",
            path: path.into(),
            source,
        };
        let directory = path.parent().unwrap_or(path);
        // The mount point must exist before there is anything to mount, and a leftover of a crash must not be mounted over.
        if let Err(error) = File::create_new(path) {
            match error.kind() {
                io::ErrorKind::NotFound => {
                    fs::create_dir_all(directory).map_err(failed)?;
                    File::create_new(path).map_err(failed)?;
                }
                io::ErrorKind::AlreadyExists => {
                    remove(path)?;
                    File::create_new(path).map_err(failed)?;
                }
                _ => return Err(failed(error)),
            }
        }
        let home = File::open(OWN).map_err(failed)?.into();
        // SAFETY: NEWNET changes neither memory nor the descriptor table; only sockets opened later differ.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|errno| failed(errno.into()))?;
        let visit = Self { home };
        mount_bind(OWN, path).map_err(|errno| failed(errno.into()))?;
        Ok(visit)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            // Going on would do the host's work inside a container's network. The kernel refuses only without
            // CAP_SYS_ADMIN, which getting here took.
            std::process::abort();
        }
    }
}

/// Unpins a namespace; it goes when its last process does. Absent is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    let failed = |source| Error::Netns {
        operation: "remove",
        path: path.into(),
        source,
    };
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // EINVAL: not a mount point, a crash came between file and mount.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}
