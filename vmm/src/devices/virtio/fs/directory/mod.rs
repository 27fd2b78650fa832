//! What a guest may do to a directory of the host's.
//!
//! ```text
//! root.rs        the directory as a mount of its own: read-only, without devices and links, as the host's kernel sees it
//! known.rs       what the guest has looked up and opened, of which there is no more than a budget
//! names.rs       looking up, making, moving and removing names
//! files.rs       opening, reading, writing          attributes.rs    owners, modes, times, extended attributes
//! requests.rs    each request of the FUSE server, to one of the above
//! ```
//!
//! The guest walks paths itself and asks for one name in one directory at a time. A name is looked up beneath the directory's
//! descriptor by `openat2(2)`, which follows nothing and does not leave it; the mount stops what that would miss. Only files
//! and directories are ever opened, other things are looked at.

mod attributes;
mod files;
mod known;
mod names;
mod requests;
mod root;
mod stat;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub(crate) use self::known::Budget;
use self::known::{Handle, Known, Object};

/// The guest's number of the shared directory itself (`FUSE_ROOT_ID`).
const ROOT: u64 = 1;

/// A directory of the host's, or one file in a directory that has nothing else.
pub(crate) struct Directory {
    root: Arc<Object>,
    /// `/proc/self/fd`: the way from a descriptor that only names a file to one that opens it. Held, so that it is there
    /// when nothing else of `/proc` is.
    links: OwnedFd,
    known: Mutex<Known>,
}

impl Directory {
    /// Shares what is at `path`; a link is followed. A file is shared as a directory that holds it alone, by its name.
    /// `budget` bounds what the guest can make this process hold open.
    ///
    /// # Errors
    ///
    /// The errno of opening it, or of making a mount of it: `EPERM` without `CAP_SYS_ADMIN`.
    pub(crate) fn share(path: &Path, read_only: bool, budget: Budget) -> io::Result<Directory> {
        let root = Arc::new(root::open(path, read_only)?);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let links = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
        Ok(Directory {
            root,
            links,
            known: Mutex::new(Known::new(budget)),
        })
    }

    /// Forgets all that was looked up, and closes all that was opened.
    pub(crate) fn forget_all(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, number: u64) -> io::Result<Arc<Object>> {
        if number == ROOT {
            return Ok(self.root.clone());
        }
        self.known().object(number).ok_or_else(|| Errno::BADF.into())
    }

    fn handle(&self, handle: u64, number: u64) -> io::Result<Arc<Handle>> {
        self.known()
            .handle(handle, number)
            .ok_or_else(|| Errno::BADF.into())
    }

    /// Opens what a descriptor names, through its link in `/proc`.
    fn open_again(&self, named: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(rustix::fs::openat(
            &self.links,
            link(named),
            flags,
            Mode::empty(),
        )?)
    }
}

/// The name of a descriptor's link.
fn link(named: impl AsFd) -> String {
    named.as_fd().as_raw_fd().to_string()
}
