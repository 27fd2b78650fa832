//! A tar stream becomes a directory.
//!
//! The common file costs four system calls: open relative to its parent's cached descriptor, write, set times, close.
//! Nothing is looked up before it is made; what is in the way is found by `EEXIST`. Times of directories are set last.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::beneath::{self, Dirs};
use super::error::{Error, Result, shown};
use super::limits::Limits;
use super::stream::Bomb;
use super::tar::{Entry, Kind, Reader, Time, Xattr};
use super::tree;
use crate::snapshot::RootAttributes;

const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

/// What unpacking found, and what it left to the moment the layers below are known.
#[derive(Debug, Default)]
pub struct Applied {
    /// Entries read.
    pub entries: u64,
    /// Bytes of regular file data written.
    pub size: u64,
    /// Owner and mode of `/`, if the archive lists it.
    pub root: Option<RootAttributes>,
    /// Directories that only deeper names imply, parents first: they take the attributes of the layers below.
    pub implied: Vec<Vec<u8>>,
    /// Hard links whose target is not in this layer, in order.
    pub links: Vec<DeferredLink>,
    /// Extended attributes the filesystem does not take, left out.
    pub dropped_xattrs: u64,
}

/// A hard link to a name in a layer below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredLink {
    /// Name of the link, relative to the root.
    pub link: Vec<u8>,
    /// Name of the target, relative to the root.
    pub target: Vec<u8>,
}

/// Unpacks an uncompressed tar beneath `root`, an empty directory nobody else writes to. Reads to the archive's end, which
/// may come before the stream's.
///
/// # Errors
/// [`Error`]; `root` then holds part of the layer.
pub fn apply(root: BorrowedFd<'_>, source: impl BufRead, limits: &Limits) -> Result<Applied> {
    let mut applier = Applier {
        root,
        dirs: Dirs::new(root),
        limits,
        umask: umask(),
        owner: (rustix::process::geteuid(), rustix::process::getegid()),
        setgid_seen: false,
        kept_bytes: 0,
        implied: HashSet::new(),
        links: HashMap::new(),
        dir_times: Vec::new(),
        done: Applied::default(),
    };
    let mut reader = Reader::new(source, limits);
    let mut current = Vec::new();
    applier
        .run(&mut reader, &mut current)
        .map_err(|error| named(error, &current))?;
    applier.finish(reader.entries())
}

/// A size bound is noticed in the stream; here is known in which entry.
fn named(error: Error, entry: &[u8]) -> Error {
    if let Error::Stream { source, .. } = &error
        && let Some(bomb) = source.get_ref().and_then(|e| e.downcast_ref::<Bomb>())
    {
        return Error::Limit {
            entry: shown(entry),
            what: bomb.what,
            limit: bomb.limit,
        };
    }
    error
}

struct Applier<'a> {
    root: BorrowedFd<'a>,
    dirs: Dirs<'a>,
    limits: &'a Limits,
    umask: u32,
    /// Who owns what this thread makes.
    owner: (Uid, Gid),
    /// A set-group-ID directory gives its group to what is made in it.
    setgid_seen: bool,
    kept_bytes: u64,
    implied: HashSet<Vec<u8>>,
    /// Deferred links by name: their place in the archive and their target.
    links: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    dir_times: Vec<(Vec<u8>, Time)>,
    done: Applied,
}

/// Where an entry goes: its normalised path, the open parent, the last component.
struct Place<'p> {
    path: &'p [u8],
    parent: Rc<OwnedFd>,
    name: &'p [u8],
}

impl Place<'_> {
    fn failed(&self, operation: &'static str) -> impl FnOnce(Errno) -> Error + use<'_> {
        move |e| failed(operation, self.path, e)
    }
}

fn failed(operation: &'static str, path: &[u8], errno: Errno) -> Error {
    Error::Write {
        operation,
        entry: shown(path),
        source: io::Error::from(errno),
    }
}

fn refused(path: &[u8], problem: impl Into<String>) -> Error {
    Error::Entry {
        entry: shown(path),
        problem: problem.into(),
    }
}

impl Applier<'_> {
    fn run<R: BufRead>(&mut self, reader: &mut Reader<'_, R>, current: &mut Vec<u8>) -> Result<()> {
        while let Some(entry) = reader.next_entry()? {
            current.clone_from(&entry.path);
            let path = beneath::normalise(&entry.path).map_err(|problem| refused(&entry.path, problem))?;
            check_xattrs(&entry)?;
            if path.is_empty() {
                self.root_entry(&entry)?;
                continue;
            }
            let (parent, name) = beneath::split(&path);
            if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
                self.whiteout(&path, parent, name, hidden)?;
                continue;
            }
            let place = Place {
                path: &path,
                parent: self.parent(parent)?,
                name,
            };
            self.links.remove(&path);
            match &entry.kind {
                Kind::File => self.file(&place, &entry, reader)?,
                Kind::Directory => self.directory(&place, &entry)?,
                Kind::Symlink => self.symlink(&place, &entry)?,
                Kind::HardLink => self.hard_link(&place, &entry)?,
                Kind::CharDevice { major, minor } => {
                    self.node(
                        &place,
                        &entry,
                        FileType::CharacterDevice,
                        fs::makedev(*major, *minor),
                    )?;
                }
                Kind::BlockDevice { major, minor } => {
                    self.node(&place, &entry, FileType::BlockDevice, fs::makedev(*major, *minor))?;
                }
                Kind::Fifo => self.node(&place, &entry, FileType::Fifo, 0)?,
            }
        }
        Ok(())
    }

    fn finish(mut self, entries: u64) -> Result<Applied> {
        for (path, time) in &self.dir_times {
            // What is no longer a directory was replaced by a later entry with times of its own.
            match beneath::open_dir(self.root, path, OFlags::NOFOLLOW) {
                Ok(dir) => {
                    fs::futimens(&dir, &timestamps(*time)).map_err(|e| failed("set times of", path, e))?
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(failed("open directory", path, e)),
            }
        }
        self.done.implied = self.implied.into_iter().collect();
        // A parent is a prefix of what is below it, so it comes first.
        self.done.implied.sort_unstable();
        // Kept bytes only grow, so they number the links in the order of the archive.
        let mut links: Vec<_> = self.links.into_iter().collect();
        links.sort_unstable_by_key(|(_, (order, _))| *order);
        self.done.links = links
            .into_iter()
            .map(|(link, (_, target))| DeferredLink { link, target })
            .collect();
        self.done.entries = entries;
        Ok(self.done)
    }

    /// Opens an entry's parent, making what is missing of it.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
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

    fn implied_directory(&mut self, place: &Place<'_>) -> Result<Rc<OwnedFd>> {
        let (_, made) = self.make_directory(place, 0o755, false)?;
        self.keep_name(place.path)?;
        self.implied.insert(place.path.to_vec());
        // The same tar gives the same tree; what is made in it would move the time, so it is set last.
        self.dir_times.push((place.path.to_vec(), Time::default()));
        Ok(made)
    }

    /// Makes or keeps a directory. A file in the way of an implied directory is an error, of a listed one it is replaced.
    fn make_directory(&mut self, place: &Place<'_>, mode: u32, replace: bool) -> Result<(bool, Rc<OwnedFd>)> {
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

    fn directory(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
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

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
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

    fn file<R: BufRead>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        reader: &mut Reader<'_, R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = self.make(place, "create file", || {
            fs::openat(&place.parent, place.name, flags, mode)
        })?;
        let mut extents = entry.sparse.as_deref().unwrap_or_default().iter();
        let mut extent_left = if entry.sparse.is_some() { 0 } else { u64::MAX };
        loop {
            let chunk = reader.data()?;
            if chunk.is_empty() {
                break;
            }
            while extent_left == 0 {
                let extent = extents
                    .next()
                    .ok_or_else(|| refused(place.path, "data beyond its sparse map"))?;
                fs::seek(&fd, fs::SeekFrom::Start(extent.offset)).map_err(place.failed("seek in"))?;
                extent_left = extent.length;
            }
            let take = usize::try_from(extent_left)
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            let wrote = match rustix::io::write(&fd, &chunk[..take]) {
                Err(Errno::INTR) => continue,
                other => other.map_err(place.failed("write file"))?,
            };
            self.done.size += wrote as u64;
            extent_left -= wrote as u64;
            reader.used(wrote);
        }
        if entry.sparse.is_some() {
            fs::ftruncate(&fd, entry.size).map_err(place.failed("set size of"))?;
        }
        self.attributes(fd.as_fd(), place.path, entry, true)?;
        fs::futimens(&fd, &timestamps(entry.mtime)).map_err(place.failed("set times of"))
    }

    fn symlink(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        self.make(place, "create symlink", || {
            fs::symlinkat(&*entry.link, &place.parent, place.name)
        })?;
        self.finish_node(place, entry)
    }

    fn node(&mut self, place: &Place<'_>, entry: &Entry, kind: FileType, device: u64) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.make(place, "create node", || {
            fs::mknodat(&place.parent, place.name, kind, mode, device)
        })?;
        if self.mode_differs(entry.mode) {
            // Made a moment ago in a private directory: this is no symlink.
            fs::chmodat(
                &place.parent,
                place.name,
                Mode::from_raw_mode(entry.mode),
                AtFlags::empty(),
            )
            .map_err(place.failed("change mode of"))?;
        }
        self.finish_node(place, entry)
    }

    /// Owner, xattrs and times of what cannot be opened.
    fn finish_node(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let (uid, gid) = ids(entry);
        if self.owner_differs(uid, gid) {
            fs::chownat(
                &place.parent,
                place.name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(place.failed("change owner of"))?;
            if entry.mode & 0o6000 != 0 && entry.kind != Kind::Symlink {
                fs::chmodat(
                    &place.parent,
                    place.name,
                    Mode::from_raw_mode(entry.mode),
                    AtFlags::empty(),
                )
                .map_err(place.failed("change mode of"))?;
            }
        }
        if !entry.xattrs.is_empty() {
            // The l-calls do not follow the last component, and the directory is named by its descriptor.
            let mut path = format!("/proc/self/fd/{}/", place.parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(place.name);
            for xattr in &entry.xattrs {
                let set = fs::lsetxattr(&*path, &*xattr.name, &xattr.value, XattrFlags::empty());
                self.xattr_result(set, place.path, xattr)?;
            }
        }
        fs::utimensat(
            &place.parent,
            place.name,
            &timestamps(entry.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(place.failed("set times of"))
    }

    fn hard_link(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let target =
            beneath::normalise(&entry.link).map_err(|p| refused(place.path, format!("link target: {p}")))?;
        if target.is_empty() || target == place.path {
            return Err(refused(place.path, "hard link to itself or to the root"));
        }
        let (target_parent, target_name) = beneath::split(&target);
        let linked = match self.dirs.open(target_parent) {
            Ok(from) => match self.make_raw(place, || {
                fs::linkat(&from, target_name, &place.parent, place.name, AtFlags::empty())
            })? {
                Ok(()) => true,
                Err(Errno::NOENT) => false,
                Err(e) => return Err(failed("create hard link", place.path, e)),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(e) => return Err(failed("open directory", target_parent, e)),
        };
        if !linked {
            self.keep_name(place.path)?;
            self.keep_name(&target)?;
            self.links.insert(place.path.to_vec(), (self.kept_bytes, target));
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8], parent: &[u8], name: &[u8], hidden: &[u8]) -> Result<()> {
        if name == OPAQUE_MARK {
            let dir = self.parent(parent)?;
            return set_opaque(&dir, parent);
        }
        if name.starts_with(b".wh..wh.") {
            // AUFS bookkeeping in old images; never part of the tree.
            return Ok(());
        }
        // `..` would take away the parent (and `.` the directory itself).
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(path, "whiteout of no name, of . or of .."));
        }
        let target = [parent, b"/", hidden].concat();
        let target = if parent.is_empty() { hidden } else { &*target };
        let place = Place {
            path: target,
            parent: self.parent(parent)?,
            name: hidden,
        };
        match fs::mknodat(&place.parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // image-spec layer.md#whiteouts: they hide names of lower layers, never those of their own.
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match fs::openat(&place.parent, hidden, flags, Mode::empty()) {
                    Ok(dir) => {
                        self.implied.remove(place.path);
                        set_opaque(&dir, place.path)
                    }
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(e) => Err(failed("open directory", place.path, e)),
                }
            }
            Err(e) => Err(failed("create whiteout", place.path, e)),
        }
    }

    /// Makes something new; what is in the way goes first.
    fn make<T>(
        &mut self,
        place: &Place<'_>,
        operation: &'static str,
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        self.make_raw(place, make)?.map_err(place.failed(operation))
    }

    fn make_raw<T>(
        &mut self,
        place: &Place<'_>,
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> Result<std::result::Result<T, Errno>> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return Ok(other),
        }
        // It may be a directory with others below it.
        self.dirs.forget();
        tree::remove(
            place.parent.as_fd(),
            Path::new(std::ffi::OsStr::from_bytes(place.name)),
        )
        .map_err(|source| Error::Write {
            operation: "replace",
            entry: shown(place.path),
            source,
        })?;
        Ok(make())
    }

    /// Owner, mode and xattrs of an open file or directory. `fresh`: made by this thread just now with the permission bits asked.
    fn attributes(&mut self, fd: BorrowedFd<'_>, path: &[u8], entry: &Entry, fresh: bool) -> Result<()> {
        let (uid, gid) = ids(entry);
        if !fresh || self.owner_differs(uid, gid) {
            fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| failed("change owner of", path, e))?;
        }
        // After chown(2), which takes set-ID bits away.
        if !fresh || self.mode_differs(entry.mode) {
            fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(|e| failed("change mode of", path, e))?;
        }
        // After chown(2) too: it drops security.capability.
        for xattr in &entry.xattrs {
            let set = fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty());
            self.xattr_result(set, path, xattr)?;
        }
        Ok(())
    }

    fn xattr_result(
        &mut self,
        set: std::result::Result<(), Errno>,
        path: &[u8],
        xattr: &Xattr,
    ) -> Result<()> {
        match set {
            Ok(()) => Ok(()),
            // A program without its file capabilities would fail in puzzling ways; other attributes are decoration.
            Err(Errno::OPNOTSUPP) if xattr.name != b"security.capability" => {
                self.done.dropped_xattrs += 1;
                Ok(())
            }
            Err(e) => Err(failed("set xattr of", path, e)),
        }
    }

    fn owner_differs(&self, uid: Uid, gid: Gid) -> bool {
        self.setgid_seen || (uid, gid) != self.owner
    }

    fn mode_differs(&self, mode: u32) -> bool {
        self.setgid_seen || mode & (self.umask | 0o7000) != 0
    }

    fn keep_name(&mut self, name: &[u8]) -> Result<()> {
        self.kept_bytes += name.len() as u64 + 32;
        let limit = self.limits.kept_name_bytes;
        if self.kept_bytes > limit {
            return Err(Error::Limit {
                entry: shown(name),
                what: "bytes of directory and link names",
                limit,
            });
        }
        Ok(())
    }
}

fn ids(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.secs,
        tv_nsec: i64::from(time.nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn set_opaque(dir: &OwnedFd, path: &[u8]) -> Result<()> {
    fs::fsetxattr(dir, OVERLAY_OPAQUE, b"y", XattrFlags::empty()).map_err(|e| failed("make opaque", path, e))
}

/// overlayfs reads its own marks from these; an image that sets them could redirect or hide what is not its own.
fn check_xattrs(entry: &Entry) -> Result<()> {
    for xattr in &entry.xattrs {
        if xattr.name.starts_with(b"trusted.overlay.") || xattr.name.starts_with(b"user.overlay.") {
            return Err(refused(
                &entry.path,
                format!("xattr {} is overlayfs' own", shown(&xattr.name)),
            ));
        }
    }
    Ok(())
}

/// The process's umask, without setting it: other threads create files meanwhile. Unknown counts as "takes everything".
fn umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o777)
}
