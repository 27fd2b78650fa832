//! One request of a driver: read from its chain, checked, performed (virtio 1.2 §5.2.6).
//!
//! ```text
//! header 16 bytes │ data to write, or ranges │ room for data │ status, 1 byte
//! └────────── from the driver ──────────────┘ └─ to the driver ─────────────┘
//! ```
//!
//! How the parts are spread over descriptors is the driver's affair.

use std::io;
use std::os::fd::AsFd;

use virtio_bindings::virtio_blk as blk;
use vm_memory::GuestMemoryMmap;

use super::disk::{Disk, SECTOR};
use super::{RANGE_SECTORS_MAX, RANGES_MAX};
use crate::devices::virtio::chain::{Chain, Malformed};
use crate::devices::virtio::transfer;

const HEADER_LEN: usize = 16;
const STATUS_LEN: usize = 1;
const RANGE_LEN: usize = 16;

/// A request that has a header and room for a status.
pub(super) struct Request {
    kind: u32,
    sector: u64,
    chain: Chain,
}

/// Why a request did not succeed, as its driver is told.
enum Refused {
    /// The disk failed, or the request is none for this disk.
    Failed,
    /// This disk has no such requests.
    Unsupported,
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Refused {
        match e.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => Refused::Unsupported,
            _ => Refused::Failed,
        }
    }
}

impl Request {
    /// # Errors
    ///
    /// When there is no whole header, or no room for a status: nobody could be told.
    pub(super) fn parse(memory: &GuestMemoryMmap, mut chain: Chain) -> Result<Request, Malformed> {
        let mut header = [0; HEADER_LEN];
        chain.read(memory, &mut header)?;
        if chain.writable() < STATUS_LEN {
            return Err(Malformed("a disk request has no room for its status"));
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        Ok(Request {
            kind: word(0),
            sector: u64::from_le_bytes(header[8..].try_into().expect("8 bytes")),
            chain,
        })
    }

    /// How many bytes it moves to or from the disk.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = match self.kind {
            blk::VIRTIO_BLK_T_IN => self.chain.writable() - STATUS_LEN,
            blk::VIRTIO_BLK_T_OUT => self.chain.readable(),
            _ => 0,
        };
        bytes as u64
    }

    /// Does what is asked for, and writes the status. How many bytes the driver finds written. Blocks.
    pub(super) fn perform(mut self, memory: &GuestMemoryMmap, disk: &Disk) -> Result<usize, Malformed> {
        let room = self.chain.writable() - STATUS_LEN;
        let done = match self.kind {
            blk::VIRTIO_BLK_T_IN => self.read(memory, disk, room)?,
            blk::VIRTIO_BLK_T_OUT => self.write(memory, disk)?,
            blk::VIRTIO_BLK_T_FLUSH if disk.flushes() => disk.flush().map_err(Refused::from),
            blk::VIRTIO_BLK_T_GET_ID => {
                let id = &disk.id()[..room.min(disk.id().len())];
                self.chain.write(memory, id)?;
                Ok(())
            }
            blk::VIRTIO_BLK_T_DISCARD | blk::VIRTIO_BLK_T_WRITE_ZEROES => self.ranges(memory, disk)?,
            _ => Err(Refused::Unsupported),
        };
        let status = match done {
            Ok(()) => blk::VIRTIO_BLK_S_OK,
            Err(Refused::Failed) => blk::VIRTIO_BLK_S_IOERR,
            Err(Refused::Unsupported) => blk::VIRTIO_BLK_S_UNSUPP,
        };
        // Its place is the last byte, whatever was written before it.
        let unused = self.chain.writable() - STATUS_LEN;
        self.chain.take_writable(memory, unused)?;
        self.chain
            .write(memory, &[u8::try_from(status).expect("0 to 2")])?;
        Ok(match done {
            Ok(()) => room - unused + STATUS_LEN,
            Err(_) => STATUS_LEN,
        })
    }

    fn read(
        &mut self,
        memory: &GuestMemoryMmap,
        disk: &Disk,
        room: usize,
    ) -> Result<Result<(), Refused>, Malformed> {
        let Some(offset) = whole(room).and_then(|bytes| disk.offset(self.sector, bytes)) else {
            return Ok(Err(Refused::Failed));
        };
        let slices = self.chain.take_writable(memory, room)?;
        Ok(transfer::read_at(disk.file.as_fd(), offset, &slices).map_err(Refused::from))
    }

    fn write(&mut self, memory: &GuestMemoryMmap, disk: &Disk) -> Result<Result<(), Refused>, Malformed> {
        let length = self.chain.readable();
        let offset = whole(length).and_then(|bytes| disk.offset(self.sector, bytes));
        let (Some(offset), false) = (offset, disk.is_read_only()) else {
            return Ok(Err(Refused::Failed));
        };
        let slices = self.chain.take_readable(memory, length)?;
        Ok(transfer::write_at(disk.file.as_fd(), offset, &slices).map_err(Refused::from))
    }

    fn ranges(&mut self, memory: &GuestMemoryMmap, disk: &Disk) -> Result<Result<(), Refused>, Malformed> {
        if disk.is_read_only() {
            return Ok(Err(Refused::Failed));
        }
        let count = self.chain.readable() / RANGE_LEN;
        if !self.chain.readable().is_multiple_of(RANGE_LEN) || count == 0 || count > RANGES_MAX as usize {
            return Ok(Err(Refused::Failed));
        }
        for _ in 0..count {
            let mut bytes = [0; RANGE_LEN];
            self.chain.read(memory, &mut bytes)?;
            if let Err(refused) = self.range(&bytes, disk) {
                return Ok(Err(refused));
            }
        }
        Ok(Ok(()))
    }

    /// One `struct virtio_blk_discard_write_zeroes`.
    fn range(&self, bytes: &[u8; RANGE_LEN], disk: &Disk) -> Result<(), Refused> {
        let sector = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let (sectors, flags) = (word(8), word(12));
        let unmap = flags & blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        if flags & !blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
            return Err(Refused::Unsupported);
        }
        let length = u64::from(sectors) * SECTOR;
        let offset = disk.offset(sector, length).ok_or(Refused::Failed)?;
        if sectors == 0 || sectors > RANGE_SECTORS_MAX {
            return Err(Refused::Failed);
        }
        let discards = self.kind == blk::VIRTIO_BLK_T_DISCARD;
        match (discards, unmap) {
            // "unmap" means nothing for a discard (§5.2.6.2).
            (true, true) => Err(Refused::Unsupported),
            (true, false) | (false, true) => Ok(disk.discard(offset, length)?),
            (false, false) => Ok(disk.zero(offset, length)?),
        }
    }
}

/// So many bytes, when they are whole sectors.
fn whole(bytes: usize) -> Option<u64> {
    let bytes = bytes as u64;
    bytes.is_multiple_of(SECTOR).then_some(bytes)
}
