//! The host's side of a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fdatasync};

/// Bytes in a sector, the unit of every virtio disk (virtio 1.2 §5.2.4).
pub(crate) const SECTOR: u64 = 512;
/// Room for a disk's name (`VIRTIO_BLK_ID_BYTES`).
pub(super) const ID_LEN: usize = 20;

/// A raw file or block device.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(super) file: File,
    sectors: u64,
    read_only: bool,
    flushes: bool,
    id: [u8; ID_LEN],
}

/// Opens what is to be a disk.
///
/// # Errors
///
/// Those of `open(2)`.
pub(crate) fn open_file(path: &Path, read_only: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        // The kernel refuses what we might let through (CVE-2026-24834).
        .write(!read_only)
        // A FIFO would be waited for.
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
}

impl Disk {
    /// As [`Disk::on`], with the file opened.
    ///
    /// # Errors
    ///
    /// Those of [`open_file`] and [`Disk::on`].
    pub(crate) fn open(path: &Path, id: &str, read_only: bool, flushes: bool) -> io::Result<Disk> {
        Disk::on(open_file(path, read_only)?, id, read_only, flushes)
    }

    /// A disk on a file of [`open_file`]'s. The guest finds `id`, cut to 20 bytes, as the disk's serial number; with `flushes` it
    /// may ask for its writes to be made durable. What is no whole sector at the end of the file is not part of the disk.
    ///
    /// # Errors
    ///
    /// What is neither a regular file nor a block device, or empty.
    fn on(mut file: File, id: &str, read_only: bool, flushes: bool) -> io::Result<Disk> {
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a regular file nor a block device",
            ));
        }
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR;
        if sectors == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is shorter than a sector",
            ));
        }
        let mut name = [0; ID_LEN];
        let length = id.len().min(ID_LEN);
        name[..length].copy_from_slice(&id.as_bytes()[..length]);
        Ok(Disk {
            file,
            sectors,
            read_only,
            flushes,
            id: name,
        })
    }

    /// Another file in the place of this, with the same name and the same rights.
    ///
    /// # Errors
    ///
    /// Those of [`Disk::on`].
    pub(super) fn moved_to(&self, file: File) -> io::Result<Disk> {
        let disk = Disk::on(file, "", self.read_only, self.flushes)?;
        Ok(Disk { id: self.id, ..disk })
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn flushes(&self) -> bool {
        self.flushes
    }

    pub(super) fn id(&self) -> &[u8; ID_LEN] {
        &self.id
    }

    /// The offset in bytes of `sector`, when so many bytes from there are on the disk.
    pub(super) fn offset(&self, sector: u64, bytes: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        (offset.checked_add(bytes)? <= self.sectors * SECTOR).then_some(offset)
    }

    /// Makes everything written so far durable. Blocks.
    pub(super) fn flush(&self) -> io::Result<()> {
        Ok(fdatasync(&self.file)?)
    }

    /// Gives the host back the space of a range; it reads as zeroes then.
    pub(super) fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset, bytes)?)
    }

    /// Makes a range read as zeroes, keeping its space.
    pub(super) fn zero(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset, bytes)?)
    }
}
