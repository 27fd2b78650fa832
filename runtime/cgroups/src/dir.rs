//! An open cgroup directory. Control files are reached beneath its descriptor only, and only after the kernel has said
//! that it lies on a cgroup file system: a fake `/sys` must not swallow a limit in silence.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// `statfs(2)` types, from linux/magic.h.
const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// cgroup version of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The cgroup version `fd` lies on, `None` on any other file system.
pub(crate) fn version_of(fd: BorrowedFd<'_>) -> Option<Version> {
    match rustix::fs::fstatfs(fd).ok()?.f_type {
        CGROUP_SUPER_MAGIC => Some(Version::V1),
        CGROUP2_SUPER_MAGIC => Some(Version::V2),
        _ => None,
    }
}

/// An open cgroup directory and its path for messages.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens a mount point. `None` if nothing or no cgroup file system is there.
    pub(crate) fn open_mount(path: &Path) -> Option<(Self, Version)> {
        let fd = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let version = version_of(fd.as_fd())?;
        Some((
            Self {
                fd,
                path: path.to_owned(),
            },
            version,
        ))
    }

    /// Opens the cgroup at `relative` below this one.
    pub(crate) fn open_below(&self, relative: &str) -> Result<Self> {
        let path = self.path.join(relative);
        match openat2_dir(self.fd.as_fd(), relative) {
            Ok(fd) => Ok(Self { fd, path }),
            // NO_XDEV: something else is mounted over a cgroup directory.
            Err(Errno::XDEV) => Err(Error::NotCgroupfs { path }),
            Err(error) => Err(Error::Open {
                path,
                source: error.into(),
            }),
        }
    }

    /// `mkdir` below this cgroup. `Ok(false)` if it was there already.
    pub(crate) fn make_below(&self, relative: &str) -> io::Result<bool> {
        match rustix::fs::mkdirat(&self.fd, relative, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// `rmdir` below this cgroup. `Ok(false)` if it was gone already.
    pub(crate) fn remove_below(&self, relative: &str) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.fd, relative, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Names of the cgroups directly below.
    pub(crate) fn children(&self) -> Result<Vec<String>> {
        let failed = |error: Errno| Error::Read {
            file: self.path.clone(),
            source: error.into(),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = match entry {
                Ok(entry) => entry,
                // The cgroup was removed while we listed it.
                Err(Errno::NODEV | Errno::NOENT) => break,
                Err(error) => return Err(failed(error)),
            };
            let name: &CStr = entry.file_name();
            if entry.file_type() == rustix::fs::FileType::Directory && name != c"." && name != c".." {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// Whether there is such a control file.
    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Content of a control file, without the trailing newline.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let failed = |source: io::Error| Error::Read {
            file: self.path.join(name),
            source,
        };
        let fd = self.open_file(name, OFlags::RDONLY).map_err(failed)?;
        let mut bytes = vec![0u8; 4096];
        let mut len = 0;
        loop {
            match rustix::io::read(&fd, &mut bytes[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(error.into())),
            }
            if len == bytes.len() {
                bytes.resize(len * 2, 0);
            }
        }
        bytes.truncate(len);
        let mut text = String::from_utf8(bytes).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        text.truncate(text.trim_end().len());
        Ok(text)
    }

    /// A control file holding one number; `max` reads as `u64::MAX`.
    pub(crate) fn read_u64(&self, name: &str) -> Result<u64> {
        let text = self.read(name)?;
        if text == "max" {
            return Ok(u64::MAX);
        }
        text.parse().map_err(|_| Error::Parse {
            file: self.path.join(name),
            text,
        })
    }

    /// As [`Dir::read_u64`], `None` if the file is absent.
    pub(crate) fn read_u64_if_present(&self, name: &str) -> Result<Option<u64>> {
        absent_is_none(self.read_u64(name))
    }

    /// As [`Dir::read`], `None` if the file is absent.
    pub(crate) fn read_if_present(&self, name: &str) -> Result<Option<String>> {
        absent_is_none(self.read(name))
    }

    /// Writes a value in one `write(2)`, as control files want it.
    pub(crate) fn write(&self, name: &str, value: &str) -> Result<()> {
        self.try_write(name, value)
            .map_err(|source| self.write_error(name, value, source))
    }

    /// As [`Dir::write`], with the bare error for callers who read its kind.
    pub(crate) fn try_write(&self, name: &str, value: &str) -> io::Result<()> {
        let fd = self.open_file(name, OFlags::WRONLY)?;
        write_whole(fd.as_fd(), value.as_bytes())
    }

    /// The error of a failed write to `name`.
    pub(crate) fn write_error(&self, name: &str, value: &str, source: io::Error) -> Error {
        Error::Write {
            setting: None,
            file: self.path.join(name),
            value: value.to_owned(),
            source,
        }
    }

    /// Opens a control file for writing, to be used later without allocation.
    pub(crate) fn open_for_writing(&self, name: &str) -> Result<OwnedFd> {
        self.open_file(name, OFlags::WRONLY)
            .map_err(|source| Error::Open {
                path: self.path.join(name),
                source,
            })
    }

    /// The directory, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        debug_assert!(!name.contains('/'), "control files lie directly in their cgroup");
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?)
    }
}

/// One `write(2)`; a short one means the kernel took half a value.
pub(crate) fn write_whole(fd: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    loop {
        match rustix::io::write(fd, value) {
            Ok(written) if written == value.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn openat2_dir(root: BorrowedFd<'_>, relative: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(
        root,
        relative,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_directory_is_no_cgroup() {
        let fake = tempfile::tempdir().unwrap();
        assert!(Dir::open_mount(fake.path()).is_none());
        assert!(Dir::open_mount(&fake.path().join("absent")).is_none());
    }
}
