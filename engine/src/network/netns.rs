//! Network namespaces: made, named in the file system, visited, removed.
#![allow(unsafe_code)] // unshare(2), which rustix marks unsafe for the flags we do not use

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

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

    /// Makes a namespace and stays in it. It lives as long as the descriptor that comes with the visit, and then as long
    /// as its processes; `path` leads to it for other processes as long as this one holds the descriptor.
    ///
    /// A link into `/proc`, not a mount: a mount for each container would make the host's mount table grow, and every
    /// container that starts copies that table.
    pub(super) fn create(path: &Path) -> Result<(Self, OwnedFd)> {
        let failed = |source: io::Error| Error::Netns {
            operation: "create",
            path: path.into(),
            source,
        };
        let home = File::open(OWN).map_err(failed)?.into();
        // SAFETY: NEWNET changes neither memory nor the descriptor table; only sockets opened later differ.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|errno| failed(errno.into()))?;
        let visit = Self { home };
        let namespace = OwnedFd::from(File::open(OWN).map_err(failed)?);
        let target = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        match symlink(&target, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
                symlink(&target, path)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A crash left it.
                remove(path)?;
                symlink(&target, path)
            }
            other => other,
        }
        .map_err(failed)?;
        Ok((visit, namespace))
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

/// Removes the way to a namespace; it goes with its last process and descriptor. Absent is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Netns {
            operation: "remove",
            path: path.into(),
            source,
        }),
        _ => Ok(()),
    }
}
