//! `berth cp` with `-`: a tar on stdin or stdout.
//!
//! Reading trusts nothing: an entry's parent is opened with `RESOLVE_BENEATH`, so `..`, absolute links and links planted by
//! an earlier entry end in an error, and the entry itself is made with `O_EXCL` or its like.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use berth_sys::open_beneath::open_beneath;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fstat, linkat, mkdirat,
    mknodat, openat, readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::Error;
use super::rooted::open_error;
use super::tree::{io_write, make_way, names, read_error, reopen, write_error};

const DEPTH_MAX: usize = 400;

fn broken(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Archive { operation, source }
}

/// Writes `source` of this host, which is not followed unless `follow`, and all below it, to `out` as a tar, as `name`.
///
/// # Errors
///
/// What could not be read, or written.
pub fn write_as(source: &Path, follow: bool, name: &Path, out: impl Write) -> Result<(), Error> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let pinned = rustix::fs::open(source, flags, Mode::empty()).map_err(|e| open_error(source, e))?;
    write(pinned, name, out)
}

/// Writes what `pinned` stands for, and all below it, as `name`.
pub(super) fn write(pinned: OwnedFd, name: &Path, out: impl Write) -> Result<(), Error> {
    let mut writer = Writer {
        out: tar::Builder::new(out),
        links: HashMap::new(),
    };
    writer.entry(pinned, name, 0)?;
    let mut out = writer.out.into_inner().map_err(broken("write"))?;
    out.flush().map_err(broken("write"))
}

struct Writer<W: Write> {
    out: tar::Builder<W>,
    /// First name of each file with several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Writer<W> {
    fn entry(&mut self, pinned: OwnedFd, path: &Path, depth: usize) -> Result<(), Error> {
        if depth >= DEPTH_MAX {
            return Err(Error::Depth {
                path: path.to_owned(),
                max: DEPTH_MAX,
            });
        }
        let stat = fstat(&pinned).map_err(|e| read_error(path, e))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut header = header_of(&stat);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self
                    .out
                    .append_link(&mut header, path, first)
                    .map_err(broken("write"));
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                self.out
                    .append_data(&mut header, path, io::empty())
                    .map_err(broken("write"))?;
                let dir =
                    reopen(&pinned, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| read_error(path, e))?;
                drop(pinned);
                for name in names(dir.as_fd(), path)? {
                    let name = OsStr::from_bytes(name.to_bytes());
                    let below = path.join(name);
                    let child = openat(
                        &dir,
                        name,
                        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                    )
                    .map_err(|e| read_error(&below, e))?;
                    self.entry(child, &below, depth + 1)?;
                }
                Ok(())
            }
            FileType::RegularFile => {
                let file = File::from(reopen(&pinned, OFlags::RDONLY).map_err(|e| read_error(path, e))?);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                header.set_size(size);
                // A file that shrinks meanwhile is filled up with zeros, one that grows is cut: the header is out.
                let data = file.chain(io::repeat(0)).take(size);
                self.out
                    .append_data(&mut header, path, data)
                    .map_err(broken("write"))
            }
            FileType::Symlink => {
                let link = readlinkat(&pinned, "", Vec::new()).map_err(|e| read_error(path, e))?;
                header.set_entry_type(EntryType::Symlink);
                let link = Path::new(OsStr::from_bytes(link.to_bytes()));
                self.out
                    .append_link(&mut header, path, link)
                    .map_err(broken("write"))
            }
            FileType::Socket => Ok(()),
            kind => {
                header.set_entry_type(match kind {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                header
                    .set_device_major(rustix::fs::major(stat.st_rdev))
                    .and_then(|()| header.set_device_minor(rustix::fs::minor(stat.st_rdev)))
                    .map_err(broken("write"))?;
                self.out
                    .append_data(&mut header, path, io::empty())
                    .map_err(broken("write"))
            }
        }
    }
}

fn header_of(stat: &Stat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// Unpacks a tar into `dir`; owners become root's unless they are `kept`.
pub(super) fn read(dir: BorrowedFd<'_>, input: impl Read, kept: bool) -> Result<(), Error> {
    let mut archive = tar::Archive::new(input);
    let mut dir_times = Vec::new();
    for entry in archive.entries().map_err(broken("read"))? {
        let mut entry = entry.map_err(broken("read"))?;
        let path = entry.path().map_err(broken("read"))?.into_owned();
        let Some((parent, name)) = place(dir, &path)? else {
            continue;
        };
        let header = entry.header();
        let write = |e: Errno| write_error(&path, e);
        let malformed = |e: io::Error| Error::Entry {
            path: path.clone(),
            reason: e.to_string(),
        };
        let mode = Mode::from_raw_mode(header.mode().map_err(malformed)? & 0o7777);
        let owner = if kept {
            let id = |n: u64| u32::try_from(n).ok().filter(|n| *n != u32::MAX);
            match (
                id(header.uid().map_err(malformed)?),
                id(header.gid().map_err(malformed)?),
            ) {
                (Some(uid), Some(gid)) => (uid, gid),
                _ => {
                    return Err(Error::Entry {
                        path,
                        reason: "owner does not fit into 32 bits".to_owned(),
                    });
                }
            }
        } else {
            (0, 0)
        };
        let mtime = i64::try_from(header.mtime().map_err(malformed)?).unwrap_or(i64::MAX);
        let kind = header.entry_type();
        let device = match kind {
            EntryType::Char | EntryType::Block => {
                let number = |n: io::Result<Option<u32>>| n.ok().flatten().unwrap_or(0);
                rustix::fs::makedev(number(header.device_major()), number(header.device_minor()))
            }
            _ => 0,
        };
        let link = entry
            .link_name()
            .map_err(malformed)?
            .map(|link| link.into_owned());
        let link = || {
            link.clone().ok_or_else(|| Error::Entry {
                path: path.clone(),
                reason: "link without a target".to_owned(),
            })
        };
        match kind {
            EntryType::Directory => match mkdirat(&parent, &name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {
                    // A link in its place is refused: what follows would be unpacked through it.
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let made = openat(&parent, &name, flags, Mode::empty()).map_err(write)?;
                    finish(made.as_fd(), owner, mode).map_err(write)?;
                    // Set when all is in: entries below change the time.
                    if dir_times.len() < DEPTH_MAX {
                        dir_times.push((made, mtime));
                    }
                    continue;
                }
                Err(e) => return Err(write(e)),
            },
            _ => make_way(parent.as_fd(), &name, &path)?,
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR).map_err(write)?;
                let mut file = File::from(made);
                io::copy(&mut entry, &mut file).map_err(|e| io_write(&path, e))?;
                finish(file.as_fd(), owner, mode).map_err(write)?;
            }
            EntryType::Symlink => {
                symlinkat(link()?, &parent, &name).map_err(write)?;
                chown(&parent, &name, owner).map_err(write)?;
            }
            EntryType::Link => {
                let Some((target_dir, target)) = place(dir, &link()?)? else {
                    return Err(Error::Entry {
                        path,
                        reason: "hard link to the destination itself".to_owned(),
                    });
                };
                linkat(&target_dir, &target, &parent, &name, AtFlags::empty()).map_err(write)?;
                continue;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let file_type = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                mknodat(&parent, &name, file_type, mode, device).map_err(write)?;
                chown(&parent, &name, owner).map_err(write)?;
            }
            other => {
                return Err(Error::Entry {
                    path,
                    reason: format!("unknown type {:?}", char::from(other.as_byte())),
                });
            }
        }
        utimensat(&parent, &name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(write)?;
    }
    for (dir, mtime) in dir_times.iter().rev() {
        rustix::fs::futimens(dir, &times(*mtime)).map_err(|e| write_error(Path::new("."), e))?;
    }
    Ok(())
}

/// Opens the directory an entry goes into, making it if absent; none for the destination itself.
fn place(dir: BorrowedFd<'_>, path: &Path) -> Result<Option<(OwnedFd, std::ffi::OsString)>, Error> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Entry {
                    path: path.to_owned(),
                    reason: "path holds `..`".to_owned(),
                });
            }
        }
    }
    let Some(last) = names.pop() else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut walked = PathBuf::from(".");
    let mut parent = open_beneath(dir, &walked, flags, Mode::empty()).map_err(|e| write_error(path, e))?;
    for name in names {
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(write_error(path, e)),
        }
        walked.push(name);
        parent = open_beneath(dir, &walked, flags, Mode::empty()).map_err(|e| match e {
            Errno::XDEV => Error::Entry {
                path: path.to_owned(),
                reason: "a link leads out of the destination".to_owned(),
            },
            e => write_error(path, e),
        })?;
    }
    Ok(Some((parent, last.to_owned())))
}

fn finish(fd: BorrowedFd<'_>, owner: (u32, u32), mode: Mode) -> rustix::io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    rustix::fs::fchmod(fd, mode)
}

fn chown(parent: &OwnedFd, name: &OsStr, owner: (u32, u32)) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(mtime: i64) -> Timestamps {
    let at = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}
