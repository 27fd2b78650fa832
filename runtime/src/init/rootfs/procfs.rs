//! `/proc` proved to be procfs before anything is written to it. A bind mount or link in its place would swallow the
//! write of an LSM label or a sysctl, or redirect it to a file of the host (CVE-2019-16884, CVE-2025-52881).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::open_beneath::open_resolved;
use rustix::fs::{CWD, FsWord, Mode, OFlags, ResolveFlags, fstatfs, openat};

use super::{Error, Result};

/// `PROC_SUPER_MAGIC` of linux/magic.h.
pub(crate) const PROC_MAGIC: FsWord = 0x9fa0;
/// `DEVPTS_SUPER_MAGIC`.
pub(crate) const DEVPTS_MAGIC: FsWord = 0x1cd1;

/// The caller's `/proc`, known to be the root of a procfs.
#[derive(Debug)]
pub struct Proc(OwnedFd);

/// The inode every procfs gives its root (`PROC_ROOT_INO` in the kernel's fs/proc).
const PROC_ROOT_INO: u64 = 1;

impl Proc {
    /// Opens `/proc`.
    ///
    /// # Errors
    /// [`Error::Untrusted`] if it is not the root of a procfs, [`Error::Proc`] if it cannot be opened.
    pub fn open() -> Result<Proc> {
        let fail = |source: rustix::io::Errno| Error::Proc {
            operation: "open",
            path: String::new(),
            source: source.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, "/proc", flags, Mode::empty()).map_err(fail)?;
        let magic = fstatfs(&fd).map_err(fail)?.f_type;
        let inode = rustix::fs::fstat(&fd).map_err(fail)?.st_ino;
        if magic != PROC_MAGIC || inode != PROC_ROOT_INO {
            return Err(Error::Untrusted {
                path: "/proc".into(),
                reason: "it is not the root of a procfs".into(),
            });
        }
        Ok(Proc(fd))
    }

    /// Opens `path` below it, never crossing onto another mount and never through a magic link.
    ///
    /// # Errors
    /// The errno of openat2; EXDEV where something is mounted over part of `path`.
    pub fn open_at(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        Ok(open_resolved(
            self.0.as_fd(),
            Path::new(path),
            flags,
            Mode::empty(),
            resolve,
        )?)
    }

    /// Writes `content` to the file `path` (as `sys/net/ipv4/ip_forward`, `self/attr/exec`) in one write.
    ///
    /// # Errors
    /// [`Error::Proc`], whose source is EXDEV if something is mounted over the path.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let fail = |operation| {
            let path = path.to_owned();
            move |source: io::Error| Error::Proc {
                operation,
                path,
                source,
            }
        };
        let file = self.open_at(path, OFlags::WRONLY).map_err(fail("open"))?;
        let written = rustix::io::write(&file, content).map_err(|e| fail("write")(e.into()))?;
        if written == content.len() {
            Ok(())
        } else {
            Err(fail("write")(io::ErrorKind::WriteZero.into()))
        }
    }

    /// Reads the whole file `path`.
    ///
    /// # Errors
    /// [`Error::Proc`].
    pub fn read(&self, path: &str) -> Result<String> {
        let fail = |operation| {
            let path = path.to_owned();
            move |source: io::Error| Error::Proc {
                operation,
                path,
                source,
            }
        };
        let fd = self.open_at(path, OFlags::RDONLY).map_err(fail("open"))?;
        io::read_to_string(std::fs::File::from(fd)).map_err(fail("read"))
    }
}
