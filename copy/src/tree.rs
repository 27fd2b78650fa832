//! Copies a tree from one directory descriptor to another.
//!
//! Each entry is reached from its parent's descriptor without following anything, so neither side can lead the walk
//! elsewhere while it runs. Regular files are pinned with `O_PATH`, looked at, and only then opened: a file exchanged for
//! a device or fifo in between is noticed before it is touched.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod,
    fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, readlinkat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::Error;

/// Directories open at once on either side; well below the usual limit of 1024 descriptors.
const DEPTH_MAX: usize = 400;

/// Who owns what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// As in the source.
    Kept,
    /// One user and group for all.
    Set(u32, u32),
}

/// Copies everything in `source` into `target`, and gives `target` the owner, mode and times of `source`.
///
/// Owners, modes, times, xattrs, hard links and special files are kept; sockets are left out.
pub fn copy_dir_contents(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Error> {
    let mut walk = Walk::new(Owner::Kept);
    let path = Path::new(".");
    let stat = fstat(source).map_err(|e| read_error(path, e))?;
    walk.contents(source, target, path, 0)?;
    walk.finish(source, target, &stat, path)
}

/// One copy in progress.
pub(super) struct Walk {
    owner: Owner,
    /// First copy of each file with several names, as descriptors of its directory would be too many: by its new inode.
    links: HashMap<(u64, u64), OwnedFd>,
}

impl Walk {
    pub(super) fn new(owner: Owner) -> Walk {
        Walk {
            owner,
            links: HashMap::new(),
        }
    }

    /// Copies the entry `name` of `from` to `new_name` in `to`; `path` is for messages.
    pub(super) fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        to: BorrowedFd<'_>,
        new_name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), Error> {
        let pinned = openat(
            from,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| read_error(path, e))?;
        self.pinned(pinned, to, new_name, path, depth)
    }

    /// Copies what `pinned` (an `O_PATH` descriptor) stands for to `name` in `to`.
    pub(super) fn pinned(
        &mut self,
        pinned: OwnedFd,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), Error> {
        let stat = fstat(&pinned).map_err(|e| read_error(path, e))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            make_way(to, name, path)?;
            let linked = linkat(
                rustix::fs::CWD,
                proc_path(first.as_fd()),
                to,
                name,
                AtFlags::SYMLINK_FOLLOW,
            );
            return linked.map_err(|e| write_error(path, e));
        }

        match kind {
            FileType::Directory => return self.directory(pinned, to, name, &stat, path, depth),
            FileType::Socket => return Ok(()),
            _ => make_way(to, name, path)?,
        }
        let write = |e| write_error(path, e);
        match kind {
            FileType::RegularFile => {
                let source = reopen(&pinned, OFlags::RDONLY).map_err(|e| read_error(path, e))?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let target = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(write)?);
                // copy_file_range or sendfile where the filesystems allow it.
                io::copy(
                    &mut File::from(source.try_clone().map_err(|e| io_write(path, e))?),
                    &mut &target,
                )
                .map_err(|e| io_write(path, e))?;
                self.finish(source.as_fd(), target.as_fd(), &stat, path)?;
            }
            FileType::Symlink => {
                let link = readlinkat(&pinned, "", Vec::new()).map_err(|e| read_error(path, e))?;
                symlinkat(link.as_c_str(), to, name).map_err(write)?;
                self.finish_unopened(to, name, &stat, path)?;
            }
            kind => {
                mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev).map_err(write)?;
                self.finish_unopened(to, name, &stat, path)?;
            }
        }
        if stat.st_nlink > 1 {
            let made = openat(
                to,
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
            // Descriptors are not endless: past the bound, further names become files of their own.
            if self.links.len() < DEPTH_MAX {
                self.links
                    .insert((stat.st_dev, stat.st_ino), made.map_err(write)?);
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        pinned: OwnedFd,
        to: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        path: &Path,
        depth: usize,
    ) -> Result<(), Error> {
        if depth >= DEPTH_MAX {
            return Err(Error::Depth {
                path: path.to_owned(),
                max: DEPTH_MAX,
            });
        }
        let source = reopen(&pinned, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| read_error(path, e))?;
        drop(pinned);
        match mkdirat(to, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(write_error(path, e)),
        }
        // An existing directory is merged into; anything else of that name is an error, as in docker.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(to, name, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOTDIR | Errno::LOOP => Error::Shape {
                path: path.to_owned(),
                reason: "cannot put a directory over something else",
            },
            e => write_error(path, e),
        })?;
        self.contents(source.as_fd(), target.as_fd(), path, depth + 1)?;
        self.finish(source.as_fd(), target.as_fd(), stat, path)
    }

    /// Copies all entries of `source` into `target`.
    pub(super) fn contents(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<(), Error> {
        for name in names(source, path)? {
            let name = OsStr::from_bytes(name.to_bytes());
            self.entry(source, name, target, name, &path.join(name), depth)?;
        }
        Ok(())
    }

    /// Owner, then mode (chown clears setuid), then xattrs (chown clears capabilities), then times.
    fn finish(
        &self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        stat: &Stat,
        path: &Path,
    ) -> Result<(), Error> {
        let write = |e| write_error(path, e);
        let (uid, gid) = self.owner_of(stat);
        rustix::fs::fchown(target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(write)?;
        fchmod(target, Mode::from_raw_mode(stat.st_mode)).map_err(write)?;
        copy_xattrs(source, target, self.owner).map_err(write)?;
        futimens(target, &times(stat)).map_err(write)
    }

    fn finish_unopened(
        &self,
        to: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        path: &Path,
    ) -> Result<(), Error> {
        let write = |e| write_error(path, e);
        let (uid, gid) = self.owner_of(stat);
        rustix::fs::chownat(
            to,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(write)?;
        utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).map_err(write)
    }

    fn owner_of(&self, stat: &Stat) -> (u32, u32) {
        match self.owner {
            Owner::Kept => (stat.st_uid, stat.st_gid),
            Owner::Set(uid, gid) => (uid, gid),
        }
    }
}

/// Removes what stands in the way of a new entry; a directory does not go.
pub(super) fn make_way(to: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
    match unlinkat(to, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(Error::Shape {
            path: path.to_owned(),
            reason: "cannot put a file over a directory",
        }),
        Err(e) => Err(write_error(path, e)),
    }
}

/// Names in a directory, without `.` and `..`, read before anything in it is touched.
pub(super) fn names(dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<CString>, Error> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(|e| read_error(path, e))? {
        let entry = entry.map_err(|e| read_error(path, e))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Opens for reading what an `O_PATH` descriptor already proved to be harmless to open.
pub(super) fn reopen(pinned: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(
        proc_path(pinned.as_fd()),
        flags | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
}

fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn times(stat: &Stat) -> Timestamps {
    let of = |sec, nsec: u64| Timespec {
        tv_sec: sec,
        tv_nsec: i64::try_from(nsec).unwrap_or(0),
    };
    Timestamps {
        last_access: of(stat.st_atime, stat.st_atime_nsec),
        last_modification: of(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Copies `user.*` and `security.capability`; the latter only where the owner stays, as a capability given to another
/// owner's file is not what anyone asked for.
fn copy_xattrs(source: BorrowedFd<'_>, target: BorrowedFd<'_>, owner: Owner) -> rustix::io::Result<()> {
    let mut list = vec![0_u8; 4096];
    let used = match flistxattr(source, &mut list) {
        Ok(n) => n,
        Err(Errno::RANGE) => {
            list.resize(65536, 0);
            flistxattr(source, &mut list)?
        }
        Err(Errno::NOTSUP) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in list[..used].split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let bytes = name.to_bytes();
        let wanted = bytes.starts_with(b"user.")
            || (owner == Owner::Kept
                && (bytes == b"security.capability" || bytes.starts_with(b"system.posix_acl")));
        if !wanted {
            continue;
        }
        let mut value = vec![0_u8; 65536];
        let n = match fgetxattr(source, name, &mut value) {
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        match fsetxattr(target, name, &value[..n], XattrFlags::empty()) {
            Err(Errno::NOTSUP) => {}
            other => other?,
        }
    }
    Ok(())
}

pub(super) fn read_error(path: &Path, e: Errno) -> Error {
    Error::Read {
        path: path.to_owned(),
        source: e.into(),
    }
}

pub(super) fn write_error(path: &Path, e: Errno) -> Error {
    io_write(path, e.into())
}

pub(super) fn io_write(path: &Path, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}
