//! Directories: the root, those an archive lists, and those only deeper names imply.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::whiteout::set_opaque;
use super::{Applier, Place, failed, refused};
use crate::layer::error::Result;
use crate::layer::tar::{Entry, Kind, Time};
use crate::snapshot::RootAttributes;

impl Applier<'_> {
    /// Opens an entry's parent, making what is missing of it.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        match self.dirs.open(path) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(failed("open directory", path, e)),
        }
        let mut fd = self
            .dirs
            .open(b"")
            .map_err(|e| failed("open directory", b"", e))?;
        let mut start = 0;
        loop {
            let end = path[start..]
                .iter()
                .position(|&b| b == b'/')
                .map_or(path.len(), |slash| start + slash);
            let (prefix, name) = (&path[..end], &path[start..end]);
            fd = match self.dirs.open(prefix) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let place = Place {
                        path: prefix,
                        parent: fd,
                        name,
                    };
                    self.implied_directory(&place)?
                }
                Err(e) => return Err(failed("open directory", prefix, e)),
            };
            if end == path.len() {
                return Ok(fd);
            }
            start = end + 1;
        }
    }

    pub(super) fn implied_directory(&mut self, place: &Place<'_>) -> Result<Rc<OwnedFd>> {
        let (_, made) = self.make_directory(place, 0o755, false)?;
        self.keep_name(place.path)?;
        self.implied.insert(place.path.to_vec());
        // The same tar gives the same tree; what is made in it would move the time, so it is set last.
        self.dir_times.push((place.path.to_vec(), Time::default()));
        Ok(made)
    }

    /// Makes or keeps a directory. A file in the way of an implied directory is an error, of a listed one it is replaced.
    pub(super) fn make_directory(
        &mut self,
        place: &Place<'_>,
        mode: u32,
        replace: bool,
    ) -> Result<(bool, Rc<OwnedFd>)> {
        let bits = Mode::from_raw_mode(mode);
        let mut opaque = false;
        let mut created = true;
        match fs::mkdirat(&place.parent, place.name, bits) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = fs::statat(&place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(place.failed("look at"))?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Directory {
                    created = false;
                } else {
                    // A whiteout and the directory in one layer: the lower directory is gone, this one is new.
                    opaque = kind == FileType::CharacterDevice && stat.st_rdev == 0;
                    if !opaque && !replace {
                        return Err(refused(
                            place.path,
                            "an entry lies below this one, which is not a directory",
                        ));
                    }
                    self.dirs.forget();
                    fs::unlinkat(&place.parent, place.name, AtFlags::empty())
                        .map_err(place.failed("replace"))?;
                    fs::mkdirat(&place.parent, place.name, bits).map_err(place.failed("create directory"))?;
                }
            }
            Err(e) => return Err(failed("create directory", place.path, e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&place.parent, place.name, flags, Mode::empty())
            .map_err(place.failed("open directory"))?;
        if opaque {
            set_opaque(&fd, place.path)?;
        }
        let fd = Rc::new(fd);
        if created {
            self.dirs.remember(place.path, &fd);
        }
        Ok((created, fd))
    }

    pub(super) fn directory(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let (created, fd) = self.make_directory(place, entry.mode & 0o777, true)?;
        if !created {
            self.implied.remove(place.path);
        }
        self.setgid_seen |= entry.mode & 0o2000 != 0;
        self.attributes(fd.as_fd(), place.path, entry, created)?;
        self.keep_name(place.path)?;
        self.dir_times.push((place.path.to_vec(), entry.mtime));
        Ok(())
    }

    pub(super) fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(refused(&entry.path, "the root is a directory, nothing else"));
        }
        let root = self
            .dirs
            .open(b"")
            .map_err(|e| failed("open directory", b"", e))?;
        self.setgid_seen |= entry.mode & 0o2000 != 0;
        self.attributes(root.as_fd(), b"", entry, false)?;
        self.done.root = Some(RootAttributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
        });
        self.dir_times.push((Vec::new(), entry.mtime));
        Ok(())
    }
}
