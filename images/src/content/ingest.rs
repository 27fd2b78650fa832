//! Receiving one blob: `Ingest` (counting and hashing) -> `Verified` (right size and digest) -> committed under its name.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::atomic;
use super::direct::Writer;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};

/// A blob being received. Dropping it removes its file.
#[derive(Debug)]
pub struct Ingest {
    pending: Pending,
    hasher: Hasher,
    digest: Digest,
    size: u64,
    offset: u64,
}

/// A blob received whole and right, not yet under its name. Dropping it removes its file.
#[derive(Debug)]
pub struct Verified {
    pending: Pending,
}

#[derive(Debug)]
struct Pending {
    writer: Writer,
    path: PathBuf,
    target: PathBuf,
    is_committed: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_committed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Ingest {
    pub(super) fn create(directory: &Path, target: PathBuf, digest: Digest, size: u64) -> Result<Self> {
        let path = directory.join(atomic::random_name());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("create", &path))?;
        // A sweeper that wins this race unlinks the file before a byte is in it; `commit` would then fail to rename.
        file.lock().map_err(Error::file("lock", &path))?;
        let hasher = Hasher::new(digest.algorithm());
        Ok(Self {
            pending: Pending {
                writer: Writer::new(file, size),
                path,
                target,
                is_committed: false,
            },
            hasher,
            digest,
            size,
            offset: 0,
        })
    }

    /// Bytes received so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] as soon as there are more than announced, [`Error::File`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let received = self.offset + bytes.len() as u64;
        if received > self.size {
            return Err(Error::SizeMismatch {
                digest: self.digest.clone(),
                expected: self.size,
                received,
            });
        }
        self.pending
            .writer
            .write_all(bytes)
            .map_err(Error::file("write", &self.pending.path))?;
        self.hasher.update(bytes);
        self.offset = received;
        Ok(())
    }

    /// Judges what was received.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`], [`Error::DigestMismatch`] or [`Error::File`]; the file is gone then.
    pub fn verify(mut self) -> Result<Verified> {
        if self.offset != self.size {
            return Err(Error::SizeMismatch {
                digest: self.digest,
                expected: self.size,
                received: self.offset,
            });
        }
        let received = self.hasher.finish();
        if received != self.digest {
            return Err(Error::DigestMismatch {
                expected: self.digest,
                received,
            });
        }
        let Pending { writer, path, .. } = &mut self.pending;
        writer.finish().map_err(Error::file("write", path))?;
        Ok(Verified {
            pending: self.pending,
        })
    }
}

impl Verified {
    /// Gives the blob its name, durably. An equal blob already there is replaced by this one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn commit(mut self) -> Result<()> {
        let Pending {
            writer, path, target, ..
        } = &self.pending;
        writer.file().sync_data().map_err(Error::file("sync", path))?;
        fs::rename(path, target).map_err(Error::file("rename", path))?;
        let directory = target.parent().unwrap_or(Path::new("/")).to_owned();
        self.pending.is_committed = true;
        atomic::sync_dir(&directory)
    }
}
