//! Opening and creating places in the container's root. The kernel resolves every path with the root as `/`; missing parts
//! are created one component at a time below a directory held open, so no path is walked twice with different meaning
//! (CVE-2021-30465, CVE-2024-45310).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use berth_sys::open_beneath::{open_in_root, open_resolved};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use super::{Error, Result};

/// As many links in one path as the kernel follows.
const LINKS_MAX: usize = 40;

/// What a mount goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Dir,
    File,
}

/// Opens `path` in the root by `O_PATH`, following links inside the root; `None` if it does not exist.
pub(super) fn open_existing(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    match open_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(place("open", path, e)),
    }
}

/// Opens `path` in the root by `O_PATH`, creating what is missing of it: directories 0755, a file 0644.
pub(super) fn open_or_create(root: BorrowedFd<'_>, path: &Path, kind: Place) -> Result<OwnedFd> {
    let flags = OFlags::PATH
        | if kind == Place::Dir {
            OFlags::DIRECTORY
        } else {
            OFlags::empty()
        };
    match open_in_root(root, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => create(root, path, kind).map_err(|e| {
            place(
                if kind == Place::Dir {
                    "create directory"
                } else {
                    "create file"
                },
                path,
                e,
            )
        }),
        Err(e) => Err(place("open", path, e)),
        Ok(fd) => Ok(fd),
    }
}

/// As [`open_or_create`] for a directory whose path may hold no link at all. `/proc`, `/sys` and `/dev` are where later
/// steps expect them, or nowhere (CVE-2019-19921, CVE-2026-41579).
pub(super) fn open_or_create_unlinked(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let open = || {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        open_resolved(
            root,
            path,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
            resolve,
        )
    };
    match open() {
        Err(Errno::NOENT) => {
            create(root, path, Place::Dir).map_err(|e| place("create directory", path, e))?;
            open()
        }
        answer => answer,
    }
    .map_err(|e| match e {
        Errno::LOOP => Error::Untrusted {
            path: path.to_owned(),
            reason: "the image has a symbolic link there".into(),
        },
        Errno::NOTDIR => Error::Untrusted {
            path: path.to_owned(),
            reason: "the image has no directory there".into(),
        },
        e => place("open", path, e),
    })
}

/// The directory that holds `path`'s last component, created if missing, and that component's name.
pub(super) fn open_parent(root: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, OsString)> {
    let name = path
        .file_name()
        .ok_or_else(|| place("open the parent of", path, Errno::INVAL))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((open_or_create(root, parent, Place::Dir)?, name.to_owned()))
}

/// Walks `path` from the root, creating what is missing. A dangling link on the way is followed by hand, inside the root:
/// images have `/var/run -> /run` without `/run`.
fn create(root: BorrowedFd<'_>, path: &Path, kind: Place) -> rustix::io::Result<OwnedFd> {
    let mut pending: VecDeque<OsString> = components(path).collect();
    let mut prefix = PathBuf::from(".");
    let mut here = open_in_root(root, &prefix, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        let want = if pending.is_empty() { kind } else { Place::Dir };
        let flags = OFlags::PATH
            | if want == Place::Dir {
                OFlags::DIRECTORY
            } else {
                OFlags::empty()
            };
        let next = prefix.join(&name);
        match open_in_root(root, &next, flags, Mode::empty()) {
            Ok(fd) => {
                here = fd;
                prefix = next;
                continue;
            }
            Err(Errno::NOENT) if name != ".." => {}
            Err(e) => return Err(e),
        }
        make(here.as_fd(), &name, want)?;
        match openat(
            &here,
            &name,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            // O_PATH|O_NOFOLLOW opens a link itself.
            Ok(fd) if !is_link(fd.as_fd())? => {
                here = fd;
                prefix = next;
            }
            Ok(_) | Err(Errno::NOTDIR | Errno::LOOP) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                let target = PathBuf::from(OsString::from_vec(
                    readlinkat(&here, &name, Vec::new())
                        .map_err(|_| Errno::NOTDIR)?
                        .into_bytes(),
                ));
                if target.is_absolute() {
                    prefix = PathBuf::from(".");
                    here = open_in_root(root, &prefix, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                }
                for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(component);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(here)
}

/// One new directory or empty file; one that is there already is fine.
fn make(dir: BorrowedFd<'_>, name: &OsString, kind: Place) -> rustix::io::Result<()> {
    let made = match kind {
        Place::Dir => mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Place::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        answer => answer,
    }
}

fn is_link(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Symlink)
}

fn components(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

pub(super) fn place(operation: &'static str, path: &Path, errno: Errno) -> Error {
    Error::Place {
        operation,
        path: path.to_owned(),
        source: errno.into(),
    }
}
