//! A tar stream becomes a directory.
//!
//! The common file costs four system calls: open relative to its parent's cached descriptor, write, set times, close.
//! Nothing is looked up before it is made; what is in the way is found by `EEXIST`. Times of directories are set last.
//!
//! Here is the loop over the entries and how something new takes its name; each kind of entry has a file of its own.

mod attributes;
mod directory;
mod leaf;
mod whiteout;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{self, FileType, Gid, OFlags, Uid};
use rustix::io::Errno;

use super::beneath::{self, Dirs};
use super::error::{Error, Result, shown};
use super::limits::Limits;
use super::stream::Bomb;
use super::tar::{Kind, Reader, Time};
use super::tree;
use crate::snapshot::RootAttributes;
use attributes::{check_xattrs, timestamps, umask};

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
            if let Some(hidden) = name.strip_prefix(whiteout::PREFIX) {
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
