//! From private directories to final names.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::lower::{self, Found};
use super::pending::Pending;
use super::store::{LayerRef, Record, Slot, Store, chain_ids, store_error};
use crate::digest::Digest;
use crate::layer::diff::read_xattrs;
use crate::layer::error::shown;
use crate::layer::listing::by_fd;
use crate::layer::{DeferredLink, Error, Result, beneath};

pub(super) fn commit(store: &Store, slots: Vec<Slot>) -> Result<Vec<LayerRef>> {
    let diff_ids: Vec<Digest> = slots
        .iter()
        .map(|slot| match slot {
            Slot::Stored(layer) => layer.diff_id().clone(),
            Slot::Pending(pending) => pending.diff_id.clone(),
        })
        .collect();
    let mut trees: Vec<OwnedFd> = Vec::with_capacity(slots.len());
    let mut unsynced = false;
    let mut named: Vec<(Digest, Slot)> = Vec::with_capacity(slots.len());
    for (slot, chain_id) in slots.into_iter().zip(chain_ids(&diff_ids)) {
        let (tree, key) = match &slot {
            Slot::Stored(layer) => (layer.open_fs()?, layer.key().clone()),
            Slot::Pending(pending) => {
                let tree = pending.dir.open_fs()?;
                let below: Vec<BorrowedFd<'_>> = trees.iter().rev().map(AsFd::as_fd).collect();
                settle(tree.as_fd(), pending, &below)?;
                let in_chain = !pending.applied.implied.is_empty() || !pending.applied.links.is_empty();
                write_record(pending, in_chain.then(|| chain_id.clone()))?;
                unsynced = true;
                (
                    tree,
                    if in_chain {
                        chain_id
                    } else {
                        pending.diff_id.clone()
                    },
                )
            }
        };
        trees.push(tree);
        named.push((key, slot));
    }
    if unsynced {
        // One flush for all layers instead of an fsync per file.
        fs::syncfs(store.fd()).map_err(|e| store_error("sync filesystem of", store.path().to_owned(), e))?;
    }
    let layers = named
        .into_iter()
        .map(|(key, slot)| match slot {
            Slot::Stored(layer) => Ok(layer),
            Slot::Pending(pending) => publish(store, pending, &key),
        })
        .collect::<Result<_>>()?;
    if unsynced {
        fs::fsync(store.fd()).map_err(|e| store_error("sync", store.path().to_owned(), e))?;
    }
    Ok(layers)
}

fn publish(store: &Store, pending: Pending, key: &Digest) -> Result<LayerRef> {
    let mut dir = pending.dir;
    loop {
        match dir.publish(key.hex())? {
            None => return store.get(key),
            Some(back) => {
                // Another process was first, unless its layer has been removed in between.
                if let Some(layer) = store.lookup(key)? {
                    return Ok(layer);
                }
                dir = back;
            }
        }
    }
}

/// Does what waited for the layers below.
fn settle(tree: BorrowedFd<'_>, pending: &Pending, below: &[BorrowedFd<'_>]) -> Result<()> {
    for path in &pending.applied.implied {
        let Some(found) = lower::find(below, path).map_err(|e| failed("look up", path, e))? else {
            continue;
        };
        take_attributes(tree, path, &found)?;
    }
    for deferred in &pending.applied.links {
        link(tree, deferred, below)?;
    }
    Ok(())
}

/// Gives the directory `path` the attributes it has below, if both are directories.
fn take_attributes(tree: BorrowedFd<'_>, path: &[u8], found: &Found) -> Result<()> {
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
        return Ok(());
    }
    let dir = match beneath::open_dir(tree, path, OFlags::NOFOLLOW) {
        Ok(dir) => dir,
        // Replaced by a later entry.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(e) => return Err(failed("open directory", path, e)),
    };
    let at = |operation| move |e| failed(operation, path, e);
    fs::fchown(
        &dir,
        Some(Uid::from_raw(found.stat.st_uid)),
        Some(Gid::from_raw(found.stat.st_gid)),
    )
    .map_err(at("change owner of"))?;
    fs::fchmod(&dir, Mode::from_raw_mode(found.stat.st_mode & 0o7777)).map_err(at("change mode of"))?;
    for xattr in read_xattrs(&by_fd(found.parent.as_fd(), &found.name), false)
        .map_err(at("read xattrs of"))?
        .kept
    {
        fs::fsetxattr(&dir, &*xattr.name, &xattr.value, XattrFlags::empty()).map_err(at("set xattr of"))?;
    }
    fs::futimens(&dir, &times(&found.stat)).map_err(at("set times of"))
}

/// Makes a hard link whose target is in a layer below: the target is copied up, and both names are given to the copy, as
/// overlayfs does for `link(2)`.
fn link(tree: BorrowedFd<'_>, deferred: &DeferredLink, below: &[BorrowedFd<'_>]) -> Result<()> {
    let missing = || Error::LinkTarget {
        link: shown(&deferred.link),
        target: shown(&deferred.target),
    };
    let at = |operation| move |e| failed(operation, &deferred.link, e);
    let (link_parent, link_name) = beneath::split(&deferred.link);
    let link_dir = beneath::open_dir(tree, link_parent, OFlags::empty()).map_err(at("open parent of"))?;
    let link_dir_stat = fs::fstat(&link_dir).map_err(at("look at parent of"))?;
    let (target_parent, target_name) = beneath::split(&deferred.target);
    // Another link may have brought the target up before, or the archive listed it after the link.
    if let Ok(dir) = beneath::open_dir(tree, target_parent, OFlags::empty()) {
        match fs::statat(&dir, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat)
                if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                    && stat.st_rdev == 0 =>
            {
                return Err(missing());
            }
            Ok(_) => {
                fs::linkat(&dir, target_name, &link_dir, link_name, AtFlags::empty())
                    .map_err(at("create hard link"))?;
                return fs::futimens(&link_dir, &times(&link_dir_stat)).map_err(at("set times of parent of"));
            }
            Err(Errno::NOENT) => {}
            Err(e) => return Err(failed("look up", &deferred.target, e)),
        }
    }
    let found = lower::find(below, &deferred.target)
        .map_err(at("look up target of"))?
        .ok_or_else(missing)?;
    copy(&found, link_dir.as_fd(), link_name, &deferred.link)?;
    let (up, up_stat) = parents(tree, target_parent, below)?;
    match fs::linkat(&link_dir, link_name, &up, target_name, AtFlags::empty()) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(failed("create hard link", &deferred.target, e)),
    }
    fs::futimens(&up, &times(&up_stat)).map_err(at("set times of parent of"))?;
    fs::futimens(&link_dir, &times(&link_dir_stat)).map_err(at("set times of parent of"))
}

/// Opens `path` in the layer, making what is missing of it with the attributes it has below.
fn parents(tree: BorrowedFd<'_>, path: &[u8], below: &[BorrowedFd<'_>]) -> Result<(OwnedFd, Stat)> {
    let mut end = 0;
    while end < path.len() {
        end = path[end + 1..]
            .iter()
            .position(|&b| b == b'/')
            .map_or(path.len(), |slash| end + 1 + slash);
        let prefix = &path[..end];
        let (parent, name) = beneath::split(prefix);
        let dir = beneath::open_dir(tree, parent, OFlags::empty())
            .map_err(|e| failed("open directory", parent, e))?;
        let stat = fs::fstat(&dir).map_err(|e| failed("look at", parent, e))?;
        match fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                if let Some(found) = lower::find(below, prefix).map_err(|e| failed("look up", prefix, e))? {
                    take_attributes(tree, prefix, &found)?;
                }
                fs::futimens(&dir, &times(&stat)).map_err(|e| failed("set times of", parent, e))?;
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(failed("create directory", prefix, e)),
        }
    }
    let dir =
        beneath::open_dir(tree, path, OFlags::empty()).map_err(|e| failed("open directory", path, e))?;
    let stat = fs::fstat(&dir).map_err(|e| failed("look at", path, e))?;
    Ok((dir, stat))
}

/// Copies a file of a lower layer with all its attributes.
fn copy(found: &Found, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
    let at = |operation| move |e| failed(operation, path, e);
    let mode = Mode::from_raw_mode(found.stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(found.stat.st_mode);
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = fs::openat(&found.parent, &*found.name, flags, Mode::empty())
                .map_err(at("open target of"))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(at("create file"))?;
            // copy_file_range(2) where the filesystem can.
            io::copy(&mut File::from(from), &mut File::from(to)).map_err(|source| Error::Write {
                operation: "copy up the target of",
                entry: shown(path),
                source,
            })?;
        }
        FileType::Symlink => {
            let target =
                fs::readlinkat(&found.parent, &*found.name, Vec::new()).map_err(at("read target of"))?;
            fs::symlinkat(&target, dir, name).map_err(at("create symlink"))?;
        }
        FileType::Directory => {
            let problem = "hard link to a directory".to_owned();
            return Err(Error::Entry {
                entry: shown(path),
                problem,
            });
        }
        _ => fs::mknodat(dir, name, kind, mode, found.stat.st_rdev).map_err(at("create node"))?,
    }
    let owner = (
        Some(Uid::from_raw(found.stat.st_uid)),
        Some(Gid::from_raw(found.stat.st_gid)),
    );
    fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(at("change owner of"))?;
    if kind != FileType::Symlink {
        // Made a moment ago in a private directory: this is no symlink.
        fs::chmodat(dir, name, mode, AtFlags::empty()).map_err(at("change mode of"))?;
    }
    let xattrs =
        read_xattrs(&by_fd(found.parent.as_fd(), &found.name), false).map_err(at("read xattrs of"))?;
    for xattr in xattrs.kept {
        fs::lsetxattr(
            &*by_fd(dir, name),
            &*xattr.name,
            &xattr.value,
            XattrFlags::empty(),
        )
        .map_err(at("set xattr of"))?;
    }
    fs::utimensat(dir, name, &times(&found.stat), AtFlags::SYMLINK_NOFOLLOW).map_err(at("set times of"))
}

fn write_record(pending: &Pending, chain_id: Option<Digest>) -> Result<()> {
    let record = Record {
        diff_id: pending.diff_id.clone(),
        chain_id,
        size: pending.applied.size,
        entries: pending.applied.entries,
        tar_bytes: pending.tar_bytes,
        root: pending.applied.root,
        dropped_xattrs: pending.applied.dropped_xattrs,
    };
    let path = pending.dir.path().join("layer.json");
    let write = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(pending.dir.fd(), "layer.json", flags, Mode::from_raw_mode(0o600))?;
        io::Write::write_all(&mut File::from(file), &serde_json::to_vec(&record)?)
    };
    write().map_err(|source| Error::Store {
        operation: "write layer record",
        path,
        source,
    })
}

fn times(stat: &Stat) -> Timestamps {
    let last_modification = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec.cast_signed(),
    };
    Timestamps {
        last_access: last_modification,
        last_modification,
    }
}

fn failed(operation: &'static str, path: &[u8], errno: Errno) -> Error {
    Error::Write {
        operation,
        entry: shown(path),
        source: errno.into(),
    }
}
