//! A root in a mount namespace that is not the container's own: a directory of it, entered by `chroot(2)`.
//!
//! Nothing is mounted, made or pivoted: that would change the namespace of its owner and outlive the container, so
//! [`validate`](crate::validate) has refused all that would need it. What `/dev` and `/proc` are is the namespace's
//! affair, and nothing here relies on them. A change of root is no wall: a process with `CAP_SYS_CHROOT` gets out of it, into
//! the namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::open_beneath::open_in_root;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{chdir, chroot, fchdir};

use super::pivot::fail;
use super::{Error, Result};

/// Opens `root.path`, absolute, in the mount namespace the caller is in; `joined` is for the message.
///
/// # Errors
/// [`Error::FindRoot`], [`Error::OpenRoot`].
pub fn find(path: &Path, joined: bool) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/", flags, Mode::empty())
        // No magic link of whatever `/proc` is there: it would lead into another namespace.
        .and_then(|top| open_in_root(top, path, flags, Mode::empty()))
        .map_err(|e| {
            let (path, source) = (path.to_owned(), e.into());
            if joined {
                Error::FindRoot { path, source }
            } else {
                Error::OpenRoot { path, source }
            }
        })
}

/// Makes the directory `/` and the working directory. Nothing changes when it is `/` already.
///
/// # Errors
/// [`Error::Pivot`].
pub fn enter(root: BorrowedFd<'_>) -> Result<()> {
    fchdir(root.as_fd()).map_err(fail("move"))?;
    chroot(".").map_err(fail("change root"))?;
    chdir("/").map_err(fail("move"))
}
