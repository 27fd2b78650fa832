//! `tmpcopyup`: a tmpfs that starts with what the image has at its place. Everything is reached by descriptor, links are
//! copied and never followed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};

/// Deeper trees are refused; each level holds descriptors open.
const DEPTH_MAX: u32 = 256;

/// Copies the tree at `from` (O_PATH will do) into the empty directory `to`, which takes `from`'s mode, owner and times.
/// Other mounts below `from` are copied as they appear.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let from = openat(
        from,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let to = openat(
        to,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&from)?;
    directory(from.as_fd(), to.as_fd(), &stat, 0)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat, depth: u32) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, depth)?;
        }
    }
    fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(futimens(to, &times(stat))?)
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let source = openat(from, name, open | OFlags::DIRECTORY, Mode::empty())?;
            let copy = openat(to, name, open | OFlags::DIRECTORY, Mode::empty())?;
            return directory(source.as_fd(), copy.as_fd(), &stat, depth + 1);
        }
        FileType::RegularFile => {
            let mut source = std::fs::File::from(openat(from, name, open, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut copy = std::fs::File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut source, &mut copy)?;
            // Owner before mode: chown drops setuid bits.
            fchown(&copy, uid, gid)?;
            fchmod(&copy, mode)?;
            return Ok(futimens(&copy, &times(&stat))?);
        }
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
        FileType::Socket | FileType::Unknown => return Ok(()),
        _ => mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(stat: &Stat) -> Timestamps {
    let at = |sec: i64, nsec: u64| Timespec {
        tv_sec: sec,
        tv_nsec: i64::try_from(nsec).unwrap_or_default(),
    };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}
