//! Reading a tree that is already on disk: its directories beneath its root and nowhere else, names in one order.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{Error, Result, shown};

/// Opens the directory `path` (relative; empty for the root itself) of the tree at `root`. No symlink is followed.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.is_empty() { b"." } else { path };
    loop {
        match fs::openat2(root, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other.map_err(|e| tree_error("open directory", path, e)),
        }
    }
}

/// What the directory `dir` holds, sorted by bytes; `path` is its name in messages.
pub(crate) fn names(dir: &OwnedFd, path: &[u8]) -> Result<Vec<CString>> {
    let mut names: Vec<CString> = Vec::new();
    for entry in Dir::read_from(dir).map_err(|e| tree_error("list", path, e))? {
        let entry = entry.map_err(|e| tree_error("list", path, e))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A name for the l-calls that have no `*at` form: the directory by descriptor, the last component not followed.
pub(crate) fn by_fd(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// The path of `name` in the directory `path`.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

/// A failed call on something in the tree.
pub(crate) fn tree_error(operation: &'static str, path: &[u8], errno: Errno) -> Error {
    Error::Tree {
        operation,
        path: shown(path),
        source: errno.into(),
    }
}
