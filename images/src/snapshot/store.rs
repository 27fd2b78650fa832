//! The store: look up, receive, remove, sweep.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::pending::{Pending, Private, random_name, still_named};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::{Compression, Error, Limits, Result, tree, unpack};

/// All unpacked layers of one `ROOT`. Cheap to clone, safe to share between threads and processes.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    fd: Arc<OwnedFd>,
}

/// A stored layer, held against removal as long as this value lives.
#[derive(Debug, Clone)]
pub struct LayerRef {
    key: Digest,
    path: PathBuf,
    record: Record,
    lock: Arc<OwnedFd>,
}

/// What `layer.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The chain it was committed in, when its content depends on the layers below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<Digest>,
    /// Bytes of regular file data, which is what the layer takes on disk but for metadata.
    pub size: u64,
    /// Tar entries.
    pub entries: u64,
    /// Bytes of the uncompressed tar.
    pub tar_bytes: u64,
    /// Owner and mode of `/`, when the layer lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootAttributes>,
    /// Extended attributes that the store's filesystem does not take and that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_xattrs: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Owner and mode of a root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootAttributes {
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One layer of an image on its way into [`Store::commit`], lowest first.
#[derive(Debug)]
pub enum Slot {
    /// Found by [`Store::find`].
    Stored(LayerRef),
    /// Received just now.
    Pending(Pending),
}

impl LayerRef {
    /// The name under which it is stored: its diffID or its chainID.
    #[must_use]
    pub fn key(&self) -> &Digest {
        &self.key
    }

    /// Digest of the uncompressed tar.
    #[must_use]
    pub fn diff_id(&self) -> &Digest {
        &self.record.diff_id
    }

    /// What was recorded about it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The directory for overlayfs' `lowerdir`.
    #[must_use]
    pub fn fs(&self) -> PathBuf {
        self.path.join("fs")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.lock
    }

    pub(super) fn open_fs(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&*self.lock, "fs", flags, Mode::empty())
            .map_err(|e| store_error("open directory", self.fs(), e))
    }
}

impl Store {
    /// Opens `root/layers`, making it with mode 0700 if need be.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("layers");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match fs::open(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&path)
                    .map_err(|source| Error::Store {
                        operation: "create directory",
                        path: path.clone(),
                        source,
                    })?;
                fs::open(&path, flags, Mode::empty())
            }
            other => other,
        }
        .map_err(|e| store_error("open directory", path.clone(), e))?;
        Ok(Self {
            path,
            fd: Arc::new(fd),
        })
    }

    /// The stored layers of an image, by the diffIDs of its config, lowest first. `None` where one must be received.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Record`].
    pub fn find(&self, diff_ids: &[Digest]) -> Result<Vec<Option<LayerRef>>> {
        diff_ids
            .iter()
            .zip(chain_ids(diff_ids))
            .map(|(diff_id, chain_id)| match self.lookup(diff_id)? {
                Some(found) if found.record.chain_id.is_none() => Ok(Some(found)),
                // The lowest layer: its chainID is its diffID.
                Some(found) if found.record.chain_id.as_ref() == Some(&chain_id) => Ok(Some(found)),
                _ => self.lookup(&chain_id),
            })
            .collect()
    }

    /// Whether every layer of this chain is stored.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn contains(&self, diff_ids: &[Digest]) -> Result<bool> {
        Ok(self.find(diff_ids)?.iter().all(Option::is_some))
    }

    /// The layer stored under this key, if there is one.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Record`].
    pub fn lookup(&self, key: &Digest) -> Result<Option<LayerRef>> {
        let path = self.path.join(key.hex());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let fd = match fs::openat(&*self.fd, key.hex(), flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(rustix::io::Errno::NOENT) => return Ok(None),
                Err(e) => return Err(store_error("open layer", path, e)),
            };
            // Blocks only while a remover looks once more whether anybody needs the layer.
            fs::flock(&fd, FlockOperation::LockShared)
                .map_err(|e| store_error("lock layer", path.clone(), e))?;
            if !still_named(&self.fd, key.hex(), &fd) {
                continue;
            }
            let record_path = path.join("layer.json");
            let file = fs::openat(
                &fd,
                "layer.json",
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|e| store_error("open layer record", record_path.clone(), e))?;
            let mut text = Vec::new();
            File::from(file)
                .take(1 << 20)
                .read_to_end(&mut text)
                .map_err(|source| Error::Store {
                    operation: "read layer record",
                    path: record_path.clone(),
                    source,
                })?;
            let record = serde_json::from_slice(&text).map_err(|source| Error::Record {
                path: record_path,
                source,
            })?;
            return Ok(Some(LayerRef {
                key: key.clone(),
                path,
                record,
                lock: Arc::new(fd),
            }));
        }
    }

    /// As [`Store::lookup`], absence being an error.
    ///
    /// # Errors
    /// [`Error::Missing`] and those of [`Store::lookup`].
    pub fn get(&self, key: &Digest) -> Result<LayerRef> {
        self.lookup(key)?.ok_or_else(|| Error::Missing(key.clone()))
    }

    /// Unpacks a layer into a private directory while its bytes arrive. `reader` gives the blob's bytes and is read to its
    /// end, from a thread of its own; blocking, so call it from a thread per layer. The digest of the uncompressed bytes must
    /// be `expected` (`None`: whatever it is, for an import). Memory: about 2 MiB, plus the zstd window.
    ///
    /// # Errors
    /// Those of [`unpack`]; the private directory is removed.
    pub fn receive(
        &self,
        compression: Compression,
        reader: impl Read + Send,
        expected: Option<&Digest>,
        limits: &Limits,
    ) -> Result<Pending> {
        let dir = Private::new(&self.fd, &self.path)?;
        let fs = dir.open_fs()?;
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let received = unpack(fs.as_fd(), compression, reader, algorithm, limits)?;
        if let Some(expected) = expected
            && *expected != received.diff_id
        {
            return Err(Error::DiffId {
                expected: expected.clone(),
                found: received.diff_id,
            });
        }
        Ok(Pending {
            dir,
            diff_id: received.diff_id,
            applied: received.applied,
            tar_bytes: received.tar_bytes,
        })
    }

    /// A private directory on the store's filesystem, removed on drop: for what has to be looked at before it is believed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn scratch(&self) -> Result<super::pending::Private> {
        Private::new(&self.fd, &self.path)
    }

    /// Makes received layers visible under their final names, lowest first: what needed the layers below is looked up
    /// there, one `syncfs` covers all, then each is renamed. Another process committing the same layer at once is
    /// fine; one of the two directories stays. Blocking: waits for the disk.
    ///
    /// # Errors
    /// [`Error::LinkTarget`], [`Error::Store`], [`Error::Write`]. Layers renamed before the failure stay; they are whole.
    pub fn commit(&self, slots: Vec<Slot>) -> Result<Vec<LayerRef>> {
        super::commit::commit(self, slots)
    }

    /// `lowerdir` for overlayfs: uppermost layer first. `layers` is lowest first, as in the image.
    #[must_use]
    pub fn lower_dirs(layers: &[LayerRef]) -> Vec<PathBuf> {
        layers.iter().rev().map(LayerRef::fs).collect()
    }

    /// Owner and mode of `/` in an image: of the uppermost layer that lists it. The writable directory mounted over the
    /// layers has to be given these, because overlayfs shows the attributes of the uppermost directory.
    #[must_use]
    pub fn root_attributes(layers: &[LayerRef]) -> RootAttributes {
        let listed = layers.iter().rev().find_map(|layer| layer.record.root);
        listed.unwrap_or(RootAttributes {
            mode: 0o755,
            uid: 0,
            gid: 0,
        })
    }

    /// Removes a layer unless somebody holds a [`LayerRef`] to it. `unused` is asked with the layer locked, so an image or
    /// container recorded meanwhile is seen; if it says `false` the layer stays. Returns whether it was removed.
    ///
    /// # Errors
    /// [`Error::Busy`] when it is held, [`Error::Missing`], [`Error::Store`].
    pub fn remove(&self, key: &Digest, unused: impl FnOnce() -> bool) -> Result<bool> {
        let path = self.path.join(key.hex());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match fs::openat(&*self.fd, key.hex(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Err(Error::Missing(key.clone())),
            Err(e) => return Err(store_error("open layer", path, e)),
        };
        match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy(key.clone())),
            Err(e) => return Err(store_error("lock layer", path, e)),
        }
        if !still_named(&self.fd, key.hex(), &fd) {
            return Err(Error::Missing(key.clone()));
        }
        if !unused() {
            return Ok(false);
        }
        let doomed = random_name(".old-")?;
        fs::renameat(&*self.fd, key.hex(), &*self.fd, &doomed)
            .map_err(|e| store_error("rename layer", path, e))?;
        let doomed_path = self.path.join(&doomed);
        tree::remove(self.fd.as_fd(), Path::new(&doomed)).map_err(|source| Error::Store {
            operation: "remove directory",
            path: doomed_path,
            source,
        })?;
        Ok(true)
    }

    /// Removes what dead processes left behind. Returns how many directories went.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn sweep(&self) -> Result<usize> {
        let mut swept = 0;
        for name in self.names()? {
            if !name.starts_with(".new-") && !name.starts_with(".old-") {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(fd) = fs::openat(&*self.fd, &*name, flags, Mode::empty()) else {
                continue;
            };
            if fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err()
                || !still_named(&self.fd, &*name, &fd)
            {
                continue;
            }
            tree::remove(self.fd.as_fd(), Path::new(&name)).map_err(|source| Error::Store {
                operation: "remove directory",
                path: self.path.join(&name),
                source,
            })?;
            swept += 1;
        }
        Ok(swept)
    }

    /// Every stored layer, for `df` and for finding the unused ones. A layer that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Record`].
    pub fn list(&self) -> Result<Vec<LayerRef>> {
        let mut layers = Vec::new();
        for name in self.names()? {
            let algorithm = if name.len() == 128 { "sha512" } else { "sha256" };
            let Ok(key) = Digest::parse(&format!("{algorithm}:{name}")) else {
                continue;
            };
            layers.extend(self.lookup(&key)?);
        }
        layers.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(layers)
    }

    /// Bytes of file data in all stored layers.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn usage(&self) -> Result<u64> {
        Ok(self.list()?.iter().map(|layer| layer.record.size).sum())
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Result<Vec<String>> {
        let wrap = |source| Error::Store {
            operation: "list",
            path: self.path.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(wrap)? {
            // What is not text was not made here.
            names.extend(entry.map_err(wrap)?.file_name().into_string().ok());
        }
        Ok(names)
    }
}

/// The chainID of every prefix of a list of diffIDs (image-spec config.md#layer-chainid).
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let mut hasher = Hasher::new(Algorithm::Sha256);
                hasher.update(below.as_str().as_bytes());
                hasher.update(b" ");
                hasher.update(diff_id.as_str().as_bytes());
                hasher.finish()
            }
        });
    }
    chain
}

pub(super) fn store_error(operation: &'static str, path: PathBuf, errno: rustix::io::Errno) -> Error {
    Error::Store {
        operation,
        path,
        source: io::Error::from(errno),
    }
}
