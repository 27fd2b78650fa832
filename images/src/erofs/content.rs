//! A regular file's bytes on their way into the image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::write::Image;
use crate::layer::error::shown;
use crate::layer::listing::tree_error;
use crate::layer::{Error, Result};

/// Files up to this size are read into memory; larger ones are copied by the kernel.
const SMALL_MAX: u64 = 64 << 10;

/// A file of the tree, open.
pub(super) struct Content<'p> {
    file: File,
    path: &'p [u8],
    size: u64,
    is_sparse: bool,
}

impl<'p> Content<'p> {
    /// Opens `name` in `dir`, which had `size` bytes when the image was laid out; `path` is for messages.
    pub(super) fn open(
        dir: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        path: &'p [u8],
        size: u64,
    ) -> Result<Self> {
        // Should a FIFO have taken its place: do not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            fs::openat(dir, name, flags, Mode::empty()).map_err(|e| tree_error("open file", path, e))?;
        let file = File::from(file);
        let found = file.metadata().map_err(|e| read_error(path, e))?;
        if !found.is_file() || found.size() != size {
            return Err(changed(path));
        }
        Ok(Self {
            file,
            path,
            size,
            is_sparse: found.blocks() * 512 < size,
        })
    }

    /// Whether all of it should be read with [`Self::read`] instead of copied.
    pub(super) fn is_small(&self) -> bool {
        self.size <= SMALL_MAX && !self.is_sparse
    }

    /// Fills `bytes` from `offset` on.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|e| read_error(self.path, e))
    }

    /// Copies the first `len` bytes to `offset` in the image, holes left out. Shares the blocks where the filesystem can.
    pub(super) fn copy(&self, len: u64, image: Image<'_>, offset: u64) -> Result<()> {
        let mut at = 0;
        while at < len {
            let data = if self.is_sparse {
                self.next_data(at, len)?
            } else {
                at..len
            };
            self.copy_range(&data, image, offset)?;
            at = data.end.max(at + 1);
            if data.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn copy_range(&self, data: &std::ops::Range<u64>, image: Image<'_>, offset: u64) -> Result<()> {
        let (mut from, mut to) = (&self.file, image.file);
        from.seek(SeekFrom::Start(data.start))
            .map_err(|e| read_error(self.path, e))?;
        to.seek(SeekFrom::Start(offset + data.start))
            .map_err(|e| image.error("seek in", e))?;
        let len = data.end - data.start;
        // copy_file_range(2), which clones blocks on XFS and btrfs: both offsets are multiples of a block.
        let copied = io::copy(&mut from.take(len), &mut to).map_err(|source| Error::Tree {
            operation: "copy into an image",
            path: shown(self.path),
            source,
        })?;
        if copied < len {
            return Err(changed(self.path));
        }
        Ok(())
    }

    /// The next stretch of data at or after `at`, cut at `end`; empty when only a hole follows.
    fn next_data(&self, at: u64, end: u64) -> Result<std::ops::Range<u64>> {
        let seek = |whence| fs::seek(&self.file, whence);
        let start = match seek(fs::SeekFrom::Data(at)) {
            Ok(start) => start.min(end),
            Err(Errno::NXIO) => end,
            // A filesystem that knows no holes.
            Err(Errno::INVAL) => return Ok(at..end),
            Err(e) => return Err(tree_error("seek in", self.path, e)),
        };
        if start == end {
            return Ok(end..end);
        }
        let stop = seek(fs::SeekFrom::Hole(start)).map_err(|e| tree_error("seek in", self.path, e))?;
        Ok(start..stop.min(end))
    }
}

fn read_error(path: &[u8], source: io::Error) -> Error {
    Error::Tree {
        operation: "read file",
        path: shown(path),
        source,
    }
}

/// The tree is not as it was when it was laid out. Stored layers never change.
pub(super) fn changed(path: &[u8]) -> Error {
    read_error(path, io::Error::other("it changed meanwhile"))
}
