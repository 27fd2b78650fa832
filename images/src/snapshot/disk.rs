//! A stored layer as a disk for guests: one EROFS image beside its directory, made when first asked for.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::store::{LayerRef, Store, store_error};
use crate::digest::Digest;
use crate::erofs;
use crate::layer::Result;

/// Beside `fs` and `layer.json`, so what removes the layer removes it too.
const NAME: &str = "layer.erofs";

/// The EROFS image of the layer whose directory is `fs`, whether it has been made or not ([`crate::Images::disks`]).
#[must_use]
pub fn disk_beside(fs: &Path) -> PathBuf {
    fs.with_file_name(NAME)
}

impl Store {
    /// The layer as an EROFS image that guests mount read-only. It is made once and shared by all; another process that makes
    /// it is waited for. Blocking: reads and writes the whole layer, and waits for the disk.
    ///
    /// # Errors
    /// [`Error::Tree`](crate::layer::Error::Tree) when the layer does not fit the format, and
    /// [`Error::Store`](crate::layer::Error::Store).
    pub fn disk(&self, layer: &LayerRef) -> Result<PathBuf> {
        let path = layer.path().join(NAME);
        let at = |operation| {
            let path = path.clone();
            move |e: Errno| store_error(operation, path, e)
        };
        if layer.has_disk() {
            return Ok(path);
        }
        // The directory's own lock is held shared by everybody who uses the layer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let record =
            fs::openat(layer.fd(), "layer.json", flags, Mode::empty()).map_err(at("open record beside"))?;
        fs::flock(&record, FlockOperation::LockExclusive).map_err(at("lock record beside"))?;
        if layer.has_disk() {
            return Ok(path);
        }
        let private = self.scratch()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat(private.fd(), NAME, flags, Mode::from_raw_mode(0o600)).map_err(at("create"))?;
        let file = File::from(file);
        let image = erofs::Image {
            file: &file,
            path: &path,
        };
        erofs::write(layer.open_fs()?.as_fd(), image, uuid(layer.key()))?;
        fs::fsync(&file).map_err(at("sync"))?;
        fs::renameat(private.fd(), NAME, layer.fd(), NAME).map_err(at("rename to"))?;
        fs::fsync(layer.fd()).map_err(at("sync directory of"))?;
        Ok(path)
    }
}

impl LayerRef {
    /// Bytes its EROFS image takes on disk, 0 without one.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        match fs::statat(self.fd(), NAME, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            Err(_) => 0,
        }
    }

    fn has_disk(&self) -> bool {
        fs::statat(self.fd(), NAME, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

/// The layer's own, the same wherever it is stored: version 8 of RFC 9562. overlayfs tells layers apart by it.
fn uuid(key: &Digest) -> [u8; 16] {
    let digits = &key.hex()[..32];
    let mut uuid = u128::from_str_radix(digits, 16)
        .expect("a digest is hexadecimal")
        .to_be_bytes();
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_the_beginning_of_the_key() {
        let key = Digest::parse(&format!("sha256:{}", "0123456789abcdef".repeat(4))).unwrap();
        assert_eq!(
            uuid(&key),
            [
                1, 0x23, 0x45, 0x67, 0x89, 0xab, 0x8d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef
            ]
        );
    }
}
