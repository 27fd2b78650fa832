//! The content store: verified blobs under their digests.
//!
//! ```text
//! ROOT/blobs/sha256/<hex>     whole and verified; never changed, only removed
//! ROOT/ingest/<random>        being received; flocked by the receiver, so an unlocked one is rubbish
//! ROOT/ingest/<alg>-<hex>.lock   flocked by whoever fetches that blob, so that it is fetched once
//! ROOT/gc.lock                shared: somebody relies on what is there; exclusive: somebody removes
//! ```
//!
//! Bytes become a blob only through [`Ingest`], which counts and hashes all of them.

pub mod atomic;
mod direct;
mod ingest;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use ingest::Ingest;

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::manifest::Descriptor;

/// The blobs under one root. Opening is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A held flock; released on drop, or by the kernel however the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// Removed on drop: the lock of one blob is not worth an inode for ever.
    unlink: Option<PathBuf>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(path) = &self.unlink {
            // While still locked, so a waiter finds the inode gone from its name and opens anew.
            let _ = fs::remove_file(path);
        }
        let _ = self.file.unlock();
    }
}

impl Store {
    /// The store under `root`. Makes its directories if they are missing; sweeps nothing.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(root: &Path) -> Result<Self> {
        for directory in ["blobs/sha256", "ingest"] {
            let path = root.join(directory);
            if !path.is_dir() {
                atomic::make_dir(&path)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Where a blob is or would be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    /// The blob's size in bytes if it is here.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|m| m.len())
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] or [`Error::File`].
    pub fn blob(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::MissingBlob(digest.clone()),
            _ => Error::file("open", &path)(e),
        })
    }

    /// Reads a small blob whole; `max` bytes at most.
    ///
    /// # Errors
    /// [`Error::MissingBlob`], [`Error::TooLarge`] or [`Error::File`].
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let file = self.blob(digest)?;
        let mut bytes = Vec::with_capacity(4096);
        file.take(max + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::file("read", &self.path(digest)))?;
        if bytes.len() as u64 > max {
            return Err(Error::TooLarge {
                object: digest.to_string(),
                max,
            });
        }
        Ok(bytes)
    }

    /// Starts receiving a blob of this digest and size.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn ingest(&self, digest: &Digest, size: u64) -> Result<Ingest> {
        if digest.algorithm() == Algorithm::Sha512 {
            atomic::make_dir(&self.root.join("blobs/sha512"))?;
        }
        Ingest::create(&self.root.join("ingest"), self.path(digest), digest.clone(), size)
    }

    /// Stores bytes at hand under their SHA-256 digest.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        self.put_as(&descriptor.digest, bytes)?;
        Ok(descriptor)
    }

    /// Stores bytes at hand, checking them against `digest`.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] or [`Error::File`].
    pub fn put_as(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.size(digest) == Some(bytes.len() as u64) {
            return Ok(());
        }
        let mut ingest = self.ingest(digest, bytes.len() as u64)?;
        ingest.write(bytes)?;
        ingest.verify()?.commit()
    }

    /// Tries to become the one that fetches a blob; `None` while another does.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn try_lock(&self, digest: &Digest) -> Result<Option<Lock>> {
        let name = format!("{}-{}.lock", digest.algorithm().name(), digest.hex());
        let path = self.root.join("ingest").join(name);
        loop {
            let file = open_lock(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(e)) => return Err(Error::file("lock", &path)(e)),
            }
            // The last holder unlinks the file; a lock on a nameless inode excludes nobody.
            let ours = file.metadata().map_err(Error::file("stat", &path))?;
            match fs::metadata(&path) {
                Ok(named) if named.ino() == ours.ino() && named.dev() == ours.dev() => {
                    return Ok(Some(Lock {
                        file,
                        unlink: Some(path),
                    }));
                }
                _ => {}
            }
        }
    }

    /// Keeps everything from being removed until dropped. Blocks only while a removal runs, which takes milliseconds.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn hold(&self) -> Result<Lock> {
        let path = self.root.join("gc.lock");
        let file = open_lock(&path)?;
        file.lock_shared().map_err(Error::file("lock", &path))?;
        Ok(Lock { file, unlink: None })
    }

    /// The right to remove; `None` while somebody holds the store.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn try_exclude(&self) -> Result<Option<Lock>> {
        let path = self.root.join("gc.lock");
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file, unlink: None })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(Error::file("lock", &path)(e)),
        }
    }

    /// Every blob with its size.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for path in atomic::entries(&self.root.join("blobs").join(algorithm.name()))? {
                let hex = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let (Ok(digest), Ok(metadata)) = (
                    Digest::parse(&format!("{}:{hex}", algorithm.name())),
                    fs::metadata(&path),
                ) else {
                    continue;
                };
                blobs.push((digest, metadata.len()));
            }
        }
        Ok(blobs)
    }

    /// Removes a blob; absent is fine. Returns the bytes given back. The caller excludes others.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, digest: &Digest) -> Result<u64> {
        let path = self.path(digest);
        let size = self.size(digest).unwrap_or(0);
        match fs::remove_file(&path) {
            Ok(()) => Ok(size),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
            Err(e) => Err(Error::file("remove", &path)(e)),
        }
    }

    /// Removes what killed receivers left behind; returns the bytes given back. Safe beside living ones: theirs are locked.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sweep(&self) -> Result<u64> {
        let mut bytes = 0;
        for path in atomic::entries(&self.root.join("ingest"))? {
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() && fs::remove_file(&path).is_ok() {
                bytes += file.metadata().map_or(0, |m| m.len());
            }
        }
        Ok(bytes)
    }
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn bytes_come_back_and_wrong_ones_never_get_a_name() {
        let (_dir, store) = store();
        let descriptor = store.put("text/plain", b"hello").unwrap();
        assert_eq!(store.read(&descriptor.digest, 5).unwrap(), b"hello");
        assert!(matches!(
            store.read(&descriptor.digest, 4),
            Err(Error::TooLarge { .. })
        ));

        let other = Digest::of(b"other");
        let mut ingest = store.ingest(&other, 5).unwrap();
        ingest.write(b"wrong").unwrap();
        assert!(matches!(ingest.verify(), Err(Error::DigestMismatch { .. })));
        let mut ingest = store.ingest(&other, 5).unwrap();
        assert!(matches!(
            ingest.write(b"too long"),
            Err(Error::SizeMismatch { .. })
        ));
        drop(ingest);
        let mut ingest = store.ingest(&other, 5).unwrap();
        ingest.write(b"othe").unwrap();
        assert!(matches!(ingest.verify(), Err(Error::SizeMismatch { .. })));
        assert_eq!(store.size(&other), None);
        assert!(
            atomic::entries(&store.root.join("ingest")).unwrap().is_empty(),
            "failed ingests leave nothing"
        );
    }

    #[test]
    fn a_sweep_takes_the_dead_and_spares_the_living() {
        let (_dir, store) = store();
        let living = store.ingest(&Digest::of(b"x"), 1).unwrap();
        fs::write(store.root.join("ingest/dead"), b"left by a killed process").unwrap();
        store.sweep().unwrap();
        assert_eq!(atomic::entries(&store.root.join("ingest")).unwrap().len(), 1);
        drop(living);
        assert_eq!(atomic::entries(&store.root.join("ingest")).unwrap().len(), 0);
    }

    #[test]
    fn a_blob_has_one_fetcher_at_a_time() {
        let (_dir, store) = store();
        let digest = Digest::of(b"x");
        let first = store.try_lock(&digest).unwrap().unwrap();
        assert!(store.try_lock(&digest).unwrap().is_none());
        drop(first);
        assert!(store.try_lock(&digest).unwrap().is_some());
    }

    #[test]
    fn removal_waits_for_nobody_and_never_runs_beside_a_holder() {
        let (_dir, store) = store();
        let hold = store.hold().unwrap();
        let second = store.hold().unwrap();
        assert!(store.try_exclude().unwrap().is_none());
        drop((hold, second));
        assert!(store.try_exclude().unwrap().is_some());
    }
}
